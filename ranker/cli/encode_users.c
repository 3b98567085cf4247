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

typedef struct {
    mr_encode_state *state;
    float *values; /* [most][dim] */
    size_t tokens, capacity;
} history_visit;

static void on_history_item(void *context, size_t i, mr_bytes record)
{
    history_visit *visit = context;
    const mr_encoder_spec *spec = &visit->state->bundle->item;
    mr_record_info info;
    (void)i;
    if (!record.data || mr_record_peek("a history item", record, &info, NULL) != MR_OK ||
        info.tombstone || info.space != spec->space || info.dim != spec->dim ||
        visit->tokens + info.tokens > visit->capacity ||
        mr_record_decode("a history item", record, &info, visit->values + visit->tokens * spec->dim,
                         (visit->capacity - visit->tokens) * spec->dim, NULL) != MR_OK) {
        visit->state->counts.unknown_items++;
        return;
    }
    visit->tokens += info.tokens;
}

/* The item ids of a history in the arena, those that stand for the user first. */
static mr_status choose_history(mr_encode_state *state, const json_t *list, mr_str **out,
                                size_t *n_out, mr_error *err)
{
    const size_t n = json_array_size(list), most = (size_t)state->bundle->user.items;
    mr_arena *arena = &state->arena;
    mr_str *ids = mr_arena_array(arena, mr_str, n),
           *chosen_ids = mr_arena_array(arena, mr_str, most);
    size_t *chosen = mr_arena_array(arena, size_t, most);
    void *scratch = mr_arena_alloc(arena, mr_history_scratch_bytes(n), 1, 16);
    if (!ids || !chosen_ids || !chosen || !scratch)
        return MR_FAIL(err, NO_MEMORY, "a history of %zu items", n);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_string(item))
            return MR_FAIL(err, INVALID, "'history' holds %s, expected item ids",
                           mr_json_describe(item));
        ids[i] = (mr_str){json_string_value(item), json_string_length(item)};
    }
    *n_out = mr_history_choose(ids, n, state->bundle->user.order, most, chosen, scratch);
    for (size_t i = 0; i < *n_out; i++)
        chosen_ids[i] = ids[chosen[i]];
    *out = chosen_ids;
    return MR_OK;
}

/* One user's record, from the stored vectors of the items that stand for the history. *made stays
 * false when it is there already, or none of the items is. */
static mr_status encode_user(mr_encode_state *state, const json_t *row, mr_store_put_item *out,
                             bool *made, mr_error *err)
{
    const mr_bundle *bundle = state->bundle;
    const json_t *id = json_object_get(row, "id"), *list = json_object_get(row, "history");
    if (!json_is_string(id) || json_string_length(id) == 0 || !json_is_array(list))
        return MR_FAIL(err, INVALID, "expected {\"id\": string, \"history\": [item ids]}");
    const mr_str name = {
        mr_arena_strndup(&state->arena, json_string_value(id), json_string_length(id)),
        json_string_length(id)};
    history_visit visit = {.state = state,
                           .capacity = (size_t)(bundle->user.items * bundle->item.tokens)};
    visit.values = mr_arena_array(&state->arena, float, visit.capacity * bundle->item.dim);
    if (!name.data || !visit.values)
        return MR_FAIL(err, NO_MEMORY, "a user of %zu vectors", visit.capacity);
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
    mr_str *ids = NULL;
    size_t n = 0;
    status = choose_history(state, list, &ids, &n, err);
    if (status == MR_OK)
        status = mr_store_fetch(state->store, MR_ENTITY_ITEM, bundle->item.space, ids, n,
                                on_history_item, &visit, err);
    *made = status == MR_OK && visit.tokens > 0;
    if (!*made) {
        state->counts.empty += status == MR_OK;
        return status;
    }
    const float *values = visit.values;
    size_t tokens = visit.tokens;
    if (state->user_encoder) {
        tokens = (size_t)bundle->user.tokens;
        float *made_values = mr_arena_array(&state->arena, float, tokens * bundle->user.dim);
        if (!made_values)
            return MR_FAIL(err, NO_MEMORY, "a user of %zu tokens", tokens);
        status = mr_user_encoder_run(state->user_encoder, values, visit.tokens, made_values, err);
        if (status != MR_OK)
            return mr_error_prefix(err, status, "user '%.*s'", MR_STR_ARG(name));
        values = made_values;
    }
    return mr_encode_record(state, name, bundle->user.space, values, (uint16_t)tokens,
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
