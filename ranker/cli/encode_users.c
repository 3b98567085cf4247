/* encode_users.c - users of a JSONL file into records, from the stored vectors of their items. See
 * encode.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/jsonl.h"
#include "core/progress.h"
#include "featurestore/record.h"
#include "ranker/cli/encode.h"

/* One user's record, from the stored vectors of the items that stand for the history. *made stays
 * false when it is there already, or none of the items is. */
static mr_status encode_user(mr_encode_state *state, const json_t *row, mr_store_put_item *out,
                             bool *made, mr_error *err)
{
    const mr_bundle *bundle = state->bundle;
    const json_t *id = json_object_get(row, "id"), *history = json_object_get(row, "history");
    if (!json_is_string(id) || json_string_length(id) == 0 || !json_is_array(history))
        return MR_FAIL(err, INVALID, "expected {\"id\": string, \"history\": [item ids]}");
    const mr_str name = {
        mr_arena_strndup(&state->arena, json_string_value(id), json_string_length(id)),
        json_string_length(id)};
    if (!name.data)
        return MR_FAIL(err, NO_MEMORY, "a user");
    if (name.len > MR_STORE_MAX_ID_BYTES)
        return MR_FAIL(err, INVALID, "'id' is %zu bytes long, expected at most %d", name.len,
                       MR_STORE_MAX_ID_BYTES);
    bool there = false;
    mr_encode_known known = {state->version, &there};
    mr_status status = mr_store_fetch(state->store, MR_ENTITY_USER, bundle->user.space, &name, 1,
                                      mr_encode_on_known, &known, err);
    if (status != MR_OK || there) {
        state->counts.skipped += there;
        return status;
    }
    const mr_encode_user_source source = {bundle, state->store, state->user_encoder};
    mr_encode_user_vectors user;
    status = mr_encode_make_user(&source, history, &state->arena, &user, err);
    state->counts.unknown_items += user.unknown;
    if (status != MR_OK)
        return mr_error_prefix(err, status, "user '%.*s'", MR_STR_ARG(name));
    *made = user.tokens > 0;
    if (!*made) {
        state->counts.empty++;
        return MR_OK;
    }
    return mr_encode_record(state, name, bundle->user.space, user.values, (uint16_t)user.tokens,
                            bundle->user.dim, out, err);
}

mr_status mr_encode_users(mr_encode_state *state, mr_error *err)
{
    const char *path = state->opt->users;
    const uint64_t space = state->bundle->user.space;
    mr_store_put_item *records = calloc((size_t)state->opt->batch, sizeof *records);
    mr_jsonl reader = {0};
    size_t n = 0, pending = 0;
    mr_status status = records ? mr_encode_begin_run(state, MR_ENTITY_USER, space, path, err)
                               : MR_FAIL(err, NO_MEMORY, "a batch of users");
    if (status == MR_OK)
        status = mr_jsonl_open(&reader, path, MR_JSONL_MAX_LINE, err);
    mr_progress bar = mr_progress_start("encoding users", mr_encode_file_size(path), "bytes");
    while (status == MR_OK) {
        json_t *row = NULL;
        status = mr_jsonl_next(&reader, &row, err);
        if (status != MR_OK || !row)
            break;
        bool made = false;
        status = encode_user(state, row, &records[n], &made, err);
        if (status != MR_OK)
            mr_error_prefix(err, status, "line %" PRIu64 " of %s", reader.line_number, reader.name);
        json_decref(row);
        state->counts.read++;
        n += made;
        /* The arena holds what a batch read, not only what it made. */
        if (status == MR_OK && ++pending == (size_t)state->opt->batch) {
            status = mr_encode_put(state, MR_ENTITY_USER, space, records, n, err);
            n = pending = 0;
            mr_arena_rewind(&state->arena, (mr_arena_mark){0});
            mr_progress_update(&bar, reader.bytes, NULL);
        }
    }
    if (status == MR_OK)
        status = mr_encode_put(state, MR_ENTITY_USER, space, records, n, err);
    if (status == MR_OK)
        status = mr_encode_end_run(state, err);
    mr_progress_finish(&bar, NULL);
    mr_arena_rewind(&state->arena, (mr_arena_mark){0});
    mr_jsonl_close(&reader);
    free(records);
    return status;
}
