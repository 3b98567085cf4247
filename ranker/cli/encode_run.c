/* encode_run.c - the version of an encode run, what the store has of it already, and its records.
 * See encode.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/cli/encode.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/clock.h"
#include "core/json.h"
#include "featurestore/note_json.h"
#include "featurestore/record.h"

static void note_name(char *out, size_t size, mr_entity entity, uint64_t space)
{
    snprintf(out, size, "encode:%s:%016" PRIx64, entity == MR_ENTITY_ITEM ? "item" : "user", space);
}

static mr_status read_note(mr_encode_state *state, mr_entity entity, uint64_t space,
                           mr_encode_note *out, mr_error *err)
{
    char name[64];
    mr_error why = {0};
    json_t *note = NULL;
    *out = (mr_encode_note){0};
    note_name(name, sizeof name, entity, space);
    mr_status status = mr_store_get_json_note(state->store, name, &note, &why);
    if (note) {
        mr_json_cursor cur = mr_json_cursor_of(name, note, &why);
        const char *digest = mr_json_string(&cur, "digest", NULL, true);
        out->version = (uint64_t)mr_json_int(&cur, "version", 1, INT64_MAX, MR_JSON_REQUIRED);
        out->complete = mr_json_bool(&cur, "complete", false);
        snprintf(out->digest, sizeof out->digest, "%s", digest ? digest : "");
        status = cur.status;
    }
    json_decref(note);
    if (status != MR_OK && err)
        *err = why;
    return status;
}

static mr_status write_note(mr_encode_state *state, mr_error *err)
{
    char value[sizeof state->note.digest + 96];
    snprintf(value, sizeof value, "{\"digest\":\"%s\",\"version\":%" PRIu64 ",\"complete\":%s}",
             state->note.digest, state->note.version, state->note.complete ? "true" : "false");
    return mr_store_set_note(state->store, state->note_name, mr_str_of(value), err);
}

/* What the records are made from, in one line. Empty for what cannot be read twice. */
static mr_status digest_of(mr_encode_state *state, mr_entity entity, const char *path, char *out,
                           size_t size, mr_error *err)
{
    char file[MR_SHA256_HEX];
    mr_encode_note items;
    out[0] = '\0';
    if (strcmp(path, "-") == 0)
        return MR_OK;
    mr_status status = mr_hash_sha256_file(path, file, err);
    if (status != MR_OK)
        return status;
    const char *dtype = mr_record_dtype_name((mr_record_dtype)state->opt->dtype);
    if (entity == MR_ENTITY_ITEM) {
        snprintf(out, size, "%s/%s%s", file, dtype, state->opt->exact ? "/exact" : "");
        return MR_OK;
    }
    status = read_note(state, MR_ENTITY_ITEM, state->bundle->item.space, &items, err);
    snprintf(out, size, "%s/%s/items %" PRIu64 "%s", file, dtype, items.version,
             items.complete ? "" : " in part");
    return status;
}

/* The version of this run: see encode.h. */
mr_status mr_encode_begin_run(mr_encode_state *state, mr_entity entity, uint64_t space,
                              const char *path, mr_error *err)
{
    mr_encode_note last;
    mr_status status = read_note(state, entity, space, &last, err);
    if (status == MR_OK)
        status = digest_of(state, entity, path, state->note.digest, sizeof state->note.digest, err);
    if (status != MR_OK)
        return status;
    const bool same = *state->note.digest && strcmp(last.digest, state->note.digest) == 0;
    state->version = state->opt->version ? (uint64_t)state->opt->version
                     : same              ? last.version
                                         : last.version + 1;
    state->note.version = state->version > last.version ? state->version : last.version;
    state->note.complete = same && last.complete;
    note_name(state->note_name, sizeof state->note_name, entity, space);
    return write_note(state, err);
}

mr_status mr_encode_end_run(mr_encode_state *state, mr_error *err)
{
    if (state->note.complete)
        return MR_OK;
    state->note.complete = true;
    return write_note(state, err);
}

void mr_encode_on_known(void *context, size_t i, mr_bytes record)
{
    const mr_encode_known *visit = context;
    mr_record_info info;
    visit->there[i] = record.data && mr_record_check("", record, &info, NULL) == MR_OK &&
                      info.version >= visit->version;
}

mr_status mr_encode_record(mr_encode_state *state, mr_str id, uint64_t space, const float *values,
                           uint16_t tokens, size_t dim, mr_store_put_item *out, mr_error *err)
{
    const mr_record_info info = {.dtype = (mr_record_dtype)state->opt->dtype,
                                 .version = state->version,
                                 .space = space,
                                 .event_ms = mr_clock_wall_ms(),
                                 .tokens = tokens,
                                 .dim = (uint16_t)dim};
    mr_bytes record = {0};
    mr_status status = mr_encode_make_record(info, values, &state->arena, &record, err);
    if (status != MR_OK)
        return mr_error_prefix(err, status, "'%.*s'", MR_STR_ARG(id));
    *out = (mr_store_put_item){id, record};
    return MR_OK;
}

mr_status mr_encode_put(mr_encode_state *state, mr_entity entity, uint64_t space,
                        const mr_store_put_item *items, size_t n, mr_error *err)
{
    mr_store_put_result result = {0};
    mr_status status =
        n ? mr_store_put(state->store, entity, space, items, n, &result, err) : MR_OK;
    state->counts.encoded += result.written;
    state->counts.stale += result.stale;
    return status;
}

uint64_t mr_encode_file_size(const char *path)
{
    struct stat info;
    return strcmp(path, "-") != 0 && stat(path, &info) == 0 ? (uint64_t)info.st_size : 0;
}
