/* encode_parts.c - see encode_parts.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/cli/encode_parts.h"

#include <stdio.h>
#include <string.h>

#include "encoders/space.h"

mr_status mr_encode_take_vectors(const mr_encoder_spec *spec, const mr_catalogue_item *row,
                                 float *out, uint16_t *tokens, mr_error *err)
{
    if (!row->vectors)
        return MR_FAIL(err, INVALID,
                       "item '%.*s' has no 'vector': the bundle's item space '%s' comes from "
                       "outside",
                       MR_STR_ARG(row->id), spec->name);
    if (row->dim != spec->dim || row->tokens > spec->tokens)
        return MR_FAIL(err, MISMATCH,
                       "item '%.*s' has vectors [%u, %u], the bundle takes up to [%d, %zu]",
                       MR_STR_ARG(row->id), row->tokens, row->dim, spec->tokens, spec->dim);
    char name[96];
    snprintf(name, sizeof name, "item '%.*s'", MR_STR_ARG(row->id));
    mr_status status =
        mr_external_check(name, row->vectors, row->tokens, row->dim, spec->normalised, err);
    if (status != MR_OK)
        return status;
    memcpy(out, row->vectors, (size_t)row->tokens * row->dim * sizeof *out);
    *tokens = row->tokens;
    return MR_OK;
}

typedef struct {
    const mr_encoder_spec *spec; /* of the items */
    float *values;               /* [capacity][dim] */
    size_t tokens, capacity, unknown;
} history_visit;

static void on_history_item(void *context, size_t i, mr_bytes record)
{
    history_visit *visit = context;
    const mr_encoder_spec *spec = visit->spec;
    mr_record_info info;
    (void)i;
    if (!record.data || mr_record_peek("a history item", record, &info, NULL) != MR_OK ||
        info.tombstone || info.space != spec->space || info.dim != spec->dim ||
        visit->tokens + info.tokens > visit->capacity ||
        mr_record_decode("a history item", record, &info, visit->values + visit->tokens * spec->dim,
                         (visit->capacity - visit->tokens) * spec->dim, NULL) != MR_OK) {
        visit->unknown++;
        return;
    }
    visit->tokens += info.tokens;
}

/* The item ids of a history in the arena, those that stand for the user first. */
static mr_status choose_history(const mr_bundle *bundle, const json_t *list, mr_arena *arena,
                                mr_str **out, size_t *n_out, mr_error *err)
{
    const size_t n = json_array_size(list), most = (size_t)bundle->user.items;
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
    *n_out = mr_history_choose(ids, n, bundle->user.order, most, chosen, scratch);
    for (size_t i = 0; i < *n_out; i++)
        chosen_ids[i] = ids[chosen[i]];
    *out = chosen_ids;
    return MR_OK;
}

mr_status mr_encode_make_user(const mr_encode_user_source *source, const json_t *history,
                              mr_arena *arena, mr_encode_user_vectors *out, mr_error *err)
{
    const mr_bundle *bundle = source->bundle;
    history_visit visit = {.spec = &bundle->item,
                           .capacity = (size_t)(bundle->user.items * bundle->item.tokens)};
    *out = (mr_encode_user_vectors){0};
    if (!json_is_array(history))
        return MR_FAIL(err, INVALID, "'history' is %s, expected an array of item ids",
                       history ? mr_json_describe(history) : "missing");
    visit.values = mr_arena_array(arena, float, visit.capacity * bundle->item.dim);
    if (!visit.values)
        return MR_FAIL(err, NO_MEMORY, "a user of %zu vectors", visit.capacity);
    mr_str *ids = NULL;
    size_t n = 0;
    mr_status status = choose_history(bundle, history, arena, &ids, &n, err);
    if (status == MR_OK)
        status = mr_store_fetch(source->store, MR_ENTITY_ITEM, bundle->item.space, ids, n,
                                on_history_item, &visit, err);
    if (status != MR_OK)
        return status;
    out->values = visit.values;
    out->tokens = visit.tokens;
    out->unknown = visit.unknown;
    if (!source->encoder || visit.tokens == 0)
        return MR_OK;
    const size_t tokens = (size_t)bundle->user.tokens;
    float *made = mr_arena_array(arena, float, tokens * bundle->user.dim);
    if (!made)
        return MR_FAIL(err, NO_MEMORY, "a user of %zu tokens", tokens);
    out->values = made;
    out->tokens = tokens;
    return mr_user_encoder_run(source->encoder, visit.values, visit.tokens, made, err);
}

mr_status mr_encode_make_record(mr_record_info info, const float *values, mr_arena *arena,
                                mr_bytes *out, mr_error *err)
{
    if (!values) {
        info.tombstone = true;
        info.tokens = info.dim = 0;
    }
    const size_t bytes = mr_record_bytes(&info);
    void *record = mr_arena_alloc(arena, bytes, 1, 16);
    if (!record)
        return MR_FAIL(err, NO_MEMORY, "a record of %zu bytes", bytes);
    mr_status status = mr_record_encode(&info, values, record, err);
    if (status == MR_OK)
        *out = (mr_bytes){record, bytes};
    return status;
}
