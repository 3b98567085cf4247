/* fetch.c - one round trip for the items, one for the user; what comes back is copied raw and
 * decoded when its turn comes. See ranking.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "core/clock.h"
#include "featurestore/record.h"
#include "ranker/pipeline/ranking.h"

/* ---- items ----------------------------------------------------------------------------------- */

typedef struct {
    mr_ranking *ranking;
    const size_t *index; /* of the candidate behind each id asked for */
} item_visit;

static mr_bytes keep_copy(mr_arena *arena, mr_bytes record)
{
    void *copy = mr_arena_alloc(arena, record.len, 1, 16);
    if (!copy)
        return (mr_bytes){0};
    memcpy(copy, record.data, record.len);
    return (mr_bytes){copy, record.len};
}

static void on_item(void *context, size_t i, mr_bytes record)
{
    item_visit *visit = context;
    mr_ranking_item *item = &visit->ranking->items[visit->index[i]];
    if (!record.data) {
        item->reason = MR_REASON_MISSING;
        return;
    }
    item->record = keep_copy(visit->ranking->arena, record);
    item->reason = item->record.data ? MR_REASON_NONE : MR_REASON_MEMORY;
}

static void on_image(void *context, size_t i, mr_bytes record)
{
    item_visit *visit = context;
    const size_t index = visit->index[i];
    mr_ranking_item *item = &visit->ranking->items[index];
    if (!record.data) {
        item->image_reason = MR_REASON_MISSING;
        return;
    }
    item->image_record = keep_copy(visit->ranking->arena, record);
    item->image_reason = item->image_record.data ? MR_REASON_NONE : MR_REASON_MEMORY;
}

/* Records of pictures, for candidates that did not bring one. Their space is the image encoder's:
 * the same ids under other keys. */
static void fetch_images(mr_ranking *ranking, mr_str *ids, size_t *index)
{
    const mr_rank_request *request = ranking->request;
    const mr_bundle *bundle = ranking->ranker->bundle;
    size_t wanted = 0;
    if (!mr_template_uses_slot(bundle->suffix, MR_SLOT_IMAGE))
        return;
    for (size_t i = 0; i < request->n_candidates; i++) {
        const mr_candidate *candidate = &request->candidates[i];
        ranking->items[i].image_reason = MR_REASON_MISSING;
        if (ranking->items[i].reason == MR_REASON_INVALID || mr_ranking_brings_image(ranking, i) ||
            candidate->id.len == 0 || !ranking->ranker->store)
            continue;
        ranking->items[i].image_reason = MR_REASON_STORE_AWAY; /* until it is visited */
        ids[wanted] = candidate->id;
        index[wanted++] = i;
    }
    if (wanted == 0)
        return;
    /* Also after the items' fetch failed: a cache may know these, and a store that is known to be
     * away answers at once. */
    item_visit visit = {ranking, index};
    mr_error why = {0};
    if (mr_store_fetch(ranking->ranker->store, MR_ENTITY_ITEM, bundle->image.space, ids, wanted,
                       on_image, &visit, &why) != MR_OK) {
        mr_ranking_note(ranking, &why);
        mr_ranking_degrade(ranking, MR_REASON_STORE_AWAY);
    }
}

/* Found is what the prompt must have, or where it may choose, either. */
static void count_found(mr_ranking *ranking)
{
    const mr_template *suffix = ranking->ranker->bundle->suffix;
    const bool needs_item = mr_template_requires_slot(suffix, MR_SLOT_ITEM);
    const bool needs_image = mr_template_requires_slot(suffix, MR_SLOT_IMAGE);
    for (size_t i = 0; i < ranking->request->n_candidates; i++) {
        const mr_ranking_item *item = &ranking->items[i];
        if (item->reason == MR_REASON_INVALID)
            continue;
        const bool has_item = ranking->request->candidates[i].vectors || item->record.data ||
                              item->reason == MR_REASON_MEMORY;
        const bool has_image = mr_ranking_brings_image(ranking, i) || item->image_record.data ||
                               item->image_reason == MR_REASON_MEMORY;
        ranking->n_found +=
            (has_item || has_image) && (has_item || !needs_item) && (has_image || !needs_image);
    }
}

mr_status mr_ranking_fetch(mr_ranking *ranking, mr_error *err)
{
    const mr_rank_request *request = ranking->request;
    const mr_bundle *bundle = ranking->ranker->bundle;
    const size_t n = request->n_candidates;
    if (!bundle->mixed)
        return MR_OK;
    mr_str *ids = mr_arena_array(ranking->arena, mr_str, n);
    size_t *index = mr_arena_array(ranking->arena, size_t, n);
    if (!ids || !index)
        return MR_FAIL(err, NO_MEMORY, "ids of %zu candidates", n);
    size_t wanted = 0;
    for (size_t i = 0; i < n; i++) {
        if (ranking->items[i].reason == MR_REASON_INVALID)
            continue; /* by its text: not to be scored in part */
        if (request->candidates[i].vectors) {
            continue;
        }
        ranking->items[i].reason = MR_REASON_MISSING;
        if (request->candidates[i].id.len == 0 || !ranking->ranker->store)
            continue;
        ranking->items[i].reason = MR_REASON_STORE_AWAY; /* until it is visited */
        ids[wanted] = request->candidates[i].id;
        index[wanted++] = i;
    }
    if (wanted) {
        item_visit visit = {ranking, index};
        mr_error why = {0};
        mr_status status = mr_store_fetch(ranking->ranker->store, MR_ENTITY_ITEM,
                                          bundle->item.space, ids, wanted, on_item, &visit, &why);
        if (status != MR_OK) {
            /* A store that is away costs the ranking the vectors that no cache knew, never the
             * caller the reply. */
            mr_ranking_note(ranking, &why);
            mr_ranking_degrade(ranking, MR_REASON_STORE_AWAY);
        }
    }
    fetch_images(ranking, ids, index);
    count_found(ranking);
    if ((double)ranking->n_found < ranking->ranker->options.min_coverage * (double)n)
        mr_ranking_degrade(ranking, MR_REASON_LOW_COVERAGE);
    return MR_OK;
}

static mr_reason reason_of(mr_status status)
{
    return status == MR_NO_MEMORY ? MR_REASON_MEMORY : MR_REASON_DAMAGED;
}

static void count_age(mr_ranking *ranking, int64_t event_ms)
{
    if (event_ms <= 0)
        return;
    const int64_t age = event_ms < ranking->wall_ms ? ranking->wall_ms - event_ms : 0;
    ranking->ages_ms += age;
    if (age > ranking->work.oldest_age_ms)
        ranking->work.oldest_age_ms = age;
    ranking->work.records_aged++;
}

/* Decodes a record of the given space into the arena; no tokens and a reason when it cannot be
 * used. */
static mr_vectors decode(mr_ranking *ranking, const char *key, mr_bytes record, uint64_t space,
                         mr_reason *reason)
{
    mr_record_info info;
    mr_error why = {0};
    /* The header says how much room the values take; decode then checks the whole record. */
    mr_status status = mr_record_peek(key, record, &info, &why);
    float *values = NULL;
    if (status == MR_OK) {
        const size_t count = (size_t)info.tokens * info.dim;
        values = mr_arena_array(ranking->arena, float, count);
        status = values ? mr_record_decode(key, record, &info, values, count, &why)
                        : MR_FAIL(&why, NO_MEMORY, "%s: %zu values", key, count);
    }
    if (status == MR_OK && info.space != space)
        status = MR_FAIL(&why, MISMATCH, "%s: its space is %016llx, expected %016llx", key,
                         (unsigned long long)info.space, (unsigned long long)space);
    if (status == MR_OK && (info.tombstone || info.tokens == 0)) {
        *reason = MR_REASON_REMOVED;
        return (mr_vectors){0};
    }
    if (status != MR_OK) {
        *reason = reason_of(status);
        mr_ranking_note(ranking, &why);
        return (mr_vectors){0};
    }
    count_age(ranking, info.event_ms);
    return (mr_vectors){values, info.tokens, info.dim};
}

mr_vectors mr_ranking_item_vectors(mr_ranking *ranking, size_t index)
{
    const mr_candidate *candidate = &ranking->request->candidates[index];
    mr_ranking_item *item = &ranking->items[index];
    if (candidate->vectors) {
        if (candidate->tokens == 0 || candidate->dim == 0)
            item->reason = MR_REASON_WRONG_SHAPE;
        return (mr_vectors){candidate->vectors, candidate->tokens, candidate->dim};
    }
    if (!item->record.data)
        return (mr_vectors){0};
    char key[96];
    snprintf(key, sizeof key, "item '%.*s'", MR_STR_ARG(candidate->id));
    return decode(ranking, key, item->record, ranking->ranker->bundle->item.space, &item->reason);
}

bool mr_ranking_brings_image(const mr_ranking *ranking, size_t index)
{
    const mr_bundle *bundle = ranking->ranker->bundle;
    return ranking->request->candidates[index].image.data &&
           bundle->image.kind == MR_ENCODER_CLIP &&
           mr_template_uses_slot(bundle->suffix, MR_SLOT_IMAGE);
}

mr_vectors mr_ranking_image_vectors(mr_ranking *ranking, size_t index)
{
    mr_ranking_item *item = &ranking->items[index];
    if (!item->image_record.data)
        return (mr_vectors){0};
    char key[96];
    snprintf(key, sizeof key, "picture of item '%.*s'",
             MR_STR_ARG(ranking->request->candidates[index].id));
    return decode(ranking, key, item->image_record, ranking->ranker->bundle->image.space,
                  &item->image_reason);
}

/* ---- user ------------------------------------------------------------------------------------ */

typedef struct {
    mr_ranking *ranking;
    mr_bytes *records; /* one per id asked for */
} raw_visit;

static void on_raw(void *context, size_t i, mr_bytes record)
{
    raw_visit *visit = context;
    if (record.data)
        visit->records[i] = keep_copy(visit->ranking->arena, record);
}

void mr_ranking_drop_user(mr_ranking *ranking)
{
    ranking->user = (mr_vectors){0};
    mr_ranking_degrade(ranking, MR_REASON_USER_MISSING);
}

static void user_from_store(mr_ranking *ranking)
{
    mr_bytes record = {0};
    raw_visit visit = {ranking, &record};
    const mr_bundle *bundle = ranking->ranker->bundle;
    mr_error why = {0};
    mr_status status =
        ranking->ranker->store
            ? mr_store_fetch(ranking->ranker->store, MR_ENTITY_USER, bundle->user.space,
                             &ranking->request->user_id, 1, on_raw, &visit, &why)
            : MR_FAIL(&why, NOT_FOUND, "a user id was given, but no store");
    if (status != MR_OK) {
        if (ranking->ranker->store)
            mr_ranking_degrade(ranking, MR_REASON_STORE_AWAY);
        mr_ranking_note(ranking, &why);
    }
    mr_reason reason = MR_REASON_MISSING;
    if (record.data)
        ranking->user = decode(ranking, "the user's record", record, bundle->user.space, &reason);
    if (!ranking->user.tokens)
        mr_ranking_drop_user(ranking);
}

/* The history's vectors through the bundle's user encoder. What it cannot make of them costs the
 * ranking the user, as any record that cannot be used. */
static mr_status encode_user(mr_ranking *ranking, const float *vectors, size_t n, mr_error *err)
{
    const mr_encoder_spec *user = &ranking->ranker->bundle->user;
    mr_error why = {0};
    float *values = mr_arena_array(ranking->arena, float, (size_t)user->tokens * user->dim);
    if (!values)
        return MR_FAIL(err, NO_MEMORY, "a user of %d tokens", user->tokens);
    const int64_t started = mr_clock_monotonic_us();
    if (mr_user_encoder_run(ranking->ranker->user_encoder, vectors, n, values, &why) == MR_OK) {
        ranking->user = (mr_vectors){values, (size_t)user->tokens, user->dim};
    } else {
        mr_ranking_note(ranking, &why);
        mr_ranking_drop_user(ranking);
    }
    ranking->work.encode_us += mr_clock_monotonic_us() - started;
    return MR_OK;
}

static mr_status user_from_history(mr_ranking *ranking, mr_error *err)
{
    const mr_rank_request *request = ranking->request;
    const mr_bundle *bundle = ranking->ranker->bundle;
    mr_arena *arena = ranking->arena;
    const size_t most = (size_t)bundle->user.items;
    void *scratch = mr_arena_alloc(arena, mr_history_scratch_bytes(request->n_history), 1, 16);
    size_t *chosen = mr_arena_array(arena, size_t, most);
    mr_str *ids = mr_arena_array(arena, mr_str, most);
    mr_bytes *records = mr_arena_array(arena, mr_bytes, most);
    float *values =
        mr_arena_array(arena, float, most *(size_t)bundle->item.tokens * bundle->item.dim);
    if (!scratch || !chosen || !ids || !records || !values)
        return MR_FAIL(err, NO_MEMORY, "a history of %zu items", request->n_history);
    const size_t n = mr_history_choose(request->history, request->n_history, bundle->user.order,
                                       most, chosen, scratch);
    for (size_t i = 0; i < n; i++)
        ids[i] = request->history[chosen[i]];
    raw_visit visit = {ranking, records};
    mr_error why = {0};
    if (ranking->ranker->store &&
        mr_store_fetch(ranking->ranker->store, MR_ENTITY_ITEM, bundle->item.space, ids, n, on_raw,
                       &visit, &why) != MR_OK) {
        mr_ranking_degrade(ranking, MR_REASON_STORE_AWAY);
        mr_ranking_note(ranking, &why);
    }
    size_t tokens = 0;
    for (size_t i = 0; i < n; i++) {
        mr_reason reason;
        if (!records[i].data)
            continue;
        mr_vectors one = decode(ranking, "a history item", records[i], bundle->item.space, &reason);
        if (!one.values || one.dim != bundle->item.dim || one.tokens > (size_t)bundle->item.tokens)
            continue;
        memcpy(values + tokens * one.dim, one.values, one.tokens * one.dim * sizeof(float));
        tokens += one.tokens;
    }
    if (tokens == 0)
        mr_ranking_drop_user(ranking);
    else if (ranking->ranker->user_encoder)
        return encode_user(ranking, values, tokens, err);
    else
        ranking->user = (mr_vectors){values, tokens, bundle->item.dim};
    return MR_OK;
}

mr_status mr_ranking_fetch_user(mr_ranking *ranking, mr_error *err)
{
    const mr_rank_request *request = ranking->request;
    if (!mr_template_uses_slot(ranking->ranker->bundle->prefix, MR_SLOT_USER))
        return MR_OK;
    if (request->user_vectors) {
        ranking->user =
            (mr_vectors){request->user_vectors, request->user_tokens, request->user_dim};
        return MR_OK;
    }
    ranking->user_is_stored = true;
    if (request->n_history)
        return user_from_history(ranking, err);
    if (request->user_id.len)
        user_from_store(ranking);
    return MR_OK;
}
