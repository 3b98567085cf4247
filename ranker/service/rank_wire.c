/* rank_wire.c - see rank_wire.h.
 *
 * protobuf-c allocates through the request's arena, so that a small message of many empty parts
 * cannot take more memory than the arena's limit, and one rewind frees it all.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/service/rank_wire.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

#include "core/half.h"
#include "proto/mixrank/v1/ranking.pb-c.h"

typedef Mixrank__V1__RankRequest pb_request;
typedef Mixrank__V1__RankReply pb_reply;
typedef Mixrank__V1__RankedItem pb_item;
typedef Mixrank__V1__Candidate pb_candidate;
typedef Mixrank__V1__Tokens pb_tokens;

/* Reasons travel under the same numbers. */
_Static_assert((int)MR_REASON_MISSING == (int)MIXRANK__V1__REASON__REASON_MISSING, "");
_Static_assert((int)MR_REASON_LOW_COVERAGE == (int)MIXRANK__V1__REASON__REASON_LOW_COVERAGE, "");
_Static_assert((int)MR_REASON_COUNT == (int)MIXRANK__V1__REASON__REASON_LOW_COVERAGE + 1, "");
_Static_assert((int)MR_SOURCE_PRIOR + 1 == (int)MIXRANK__V1__SOURCE__SOURCE_PRIOR, "");
_Static_assert((int)MR_SOURCE_COUNT == (int)MIXRANK__V1__SOURCE__SOURCE_PRIOR, "");

typedef struct {
    mr_arena *arena;
    bool full;
} arena_use;

static void *use_arena(void *context, size_t bytes)
{
    arena_use *use = context;
    void *memory = mr_arena_alloc(use->arena, bytes, 1, _Alignof(max_align_t));
    use->full = use->full || !memory;
    return memory;
}

static void keep(void *context, void *memory)
{
    (void)context;
    (void)memory;
}

/* ---- read ------------------------------------------------------------------------------------ */

static mr_str text_of(const char *text)
{
    return mr_str_of(text ? text : "");
}

/* Values as f32 in the arena. `what` is for messages. */
static mr_status read_tokens(const char *what, const pb_tokens *tokens, mr_arena *arena,
                             const float **values, uint16_t *n_tokens, uint16_t *dim, mr_error *err)
{
    size_t size;
    switch (tokens->dtype) {
    case MIXRANK__V1__TOKENS__DTYPE__F32: size = 4; break;
    case MIXRANK__V1__TOKENS__DTYPE__F16:
    case MIXRANK__V1__TOKENS__DTYPE__BF16: size = 2; break;
    default:
        return MR_FAIL(err, INVALID, "%s: dtype is %d, expected F32 (1), F16 (2) or BF16 (3)", what,
                       (int)tokens->dtype);
    }
    if (tokens->tokens == 0 || tokens->tokens > UINT16_MAX || tokens->dim == 0 ||
        tokens->dim > UINT16_MAX)
        return MR_FAIL(err, INVALID, "%s: [%u, %u] is no shape of tokens x dim", what,
                       tokens->tokens, tokens->dim);
    const size_t n = (size_t)tokens->tokens * tokens->dim;
    if (tokens->values.len != n * size)
        return MR_FAIL(err, INVALID, "%s: %zu bytes of values, expected %u x %u x %zu = %zu", what,
                       tokens->values.len, tokens->tokens, tokens->dim, size, n * size);
    float *to = mr_arena_array(arena, float, n);
    if (!to)
        return MR_FAIL(err, EXHAUSTED, "%s: no room for %zu values", what, n);
    const unsigned char *from = tokens->values.data;
    for (size_t i = 0; i < n; i++) {
        if (size == 4)
            to[i] = mr_load_f32le(from + 4 * i);
        else if (tokens->dtype == MIXRANK__V1__TOKENS__DTYPE__F16)
            to[i] = mr_f16_to_f32(mr_load_u16le(from + 2 * i));
        else
            to[i] = mr_bf16_to_f32(mr_load_u16le(from + 2 * i));
        if (!isfinite(to[i]))
            return MR_FAIL(err, INVALID, "%s: value %zu of token %zu is not finite", what,
                           i % tokens->dim, i / tokens->dim);
    }
    *values = to;
    *n_tokens = (uint16_t)tokens->tokens;
    *dim = (uint16_t)tokens->dim;
    return MR_OK;
}

/* All inline tokens of a request must claim one space. */
static mr_status claim_space(uint64_t *claimed, uint64_t space, const char *what, mr_error *err)
{
    if (space == 0 || *claimed == space)
        return MR_OK;
    if (*claimed != 0)
        return MR_FAIL(err, INVALID,
                       "%s: its space is %016llx, that of others in the request %016llx; a "
                       "ranking never mixes spaces",
                       what, (unsigned long long)space, (unsigned long long)*claimed);
    *claimed = space;
    return MR_OK;
}

static mr_status read_id(const char *what, const char *id, mr_str *out, mr_error *err)
{
    *out = text_of(id);
    if (out->len > MR_STORE_MAX_ID_BYTES)
        return MR_FAIL(err, INVALID, "%s: its id is %zu bytes long, at most %d", what, out->len,
                       MR_STORE_MAX_ID_BYTES);
    return MR_OK;
}

static mr_status read_candidate(mr_rank_wire *wire, const pb_candidate *from, size_t index,
                                mr_arena *arena, mr_candidate *to, mr_error *err)
{
    char what[48];
    snprintf(what, sizeof what, "candidate %zu", index);
    mr_status status = read_id(what, from->id, &to->id, err);
    if (status != MR_OK)
        return status;
    mr_field *field = mr_arena_array(arena, mr_field, from->n_fields);
    if (!field)
        return MR_FAIL(err, EXHAUSTED, "%s: no room for %zu fields", what, from->n_fields);
    for (size_t i = 0; i < from->n_fields; i++)
        field[i] = (mr_field){text_of(from->fields[i]->key), text_of(from->fields[i]->value)};
    to->fields = (mr_fields){field, from->n_fields};
    to->image = (mr_bytes){from->image.len ? from->image.data : NULL, from->image.len};
    if (from->prior) {
        if (!isfinite(from->prior->score))
            return MR_FAIL(err, INVALID, "%s: its prior is not a finite number", what);
        to->prior = from->prior->score;
        to->has_prior = true;
    }
    if (from->tokens) {
        status = read_tokens(what, from->tokens, arena, &to->vectors, &to->tokens, &to->dim, err);
        if (status == MR_OK)
            status = claim_space(&wire->item_space, from->tokens->space, what, err);
    }
    return status;
}

static mr_status read_user(mr_rank_wire *wire, const Mixrank__V1__User *user, mr_arena *arena,
                           mr_error *err)
{
    mr_rank_request *request = &wire->request;
    mr_status status = read_id("user", user->id, &request->user_id, err);
    if (status == MR_OK && user->tokens) {
        status = read_tokens("user", user->tokens, arena, &request->user_vectors,
                             &request->user_tokens, &request->user_dim, err);
        if (status == MR_OK)
            status = claim_space(&wire->user_space, user->tokens->space, "user", err);
    }
    if (status != MR_OK || user->n_history == 0)
        return status;
    mr_str *history = mr_arena_array(arena, mr_str, user->n_history);
    if (!history)
        return MR_FAIL(err, EXHAUSTED, "user: no room for a history of %zu", user->n_history);
    for (size_t i = 0; status == MR_OK && i < user->n_history; i++)
        status = read_id("an item of the user's history", user->history[i], &history[i], err);
    request->history = history;
    request->n_history = user->n_history;
    return status;
}

mr_status mr_rank_wire_read(mr_rank_wire *out, mr_bytes message, mr_arena *arena, mr_error *err)
{
    arena_use use = {.arena = arena};
    ProtobufCAllocator allocator = {use_arena, keep, &use};
    const pb_request *from =
        mixrank__v1__rank_request__unpack(&allocator, message.len, message.data);
    if (!from && use.full)
        return MR_FAIL(err, EXHAUSTED,
                       "a request of %zu bytes takes more than the %zu that one may take unpacked",
                       message.len, arena->limit);
    if (!from)
        return MR_FAIL(err, INVALID, "%zu bytes that are no mixrank.v1.RankRequest", message.len);

    *out = (mr_rank_wire){.request = MR_RANK_REQUEST_DEFAULT,
                          .request_id = text_of(from->request_id),
                          .model = text_of(from->model)};
    mr_rank_request *request = &out->request;
    if (out->request_id.len > MR_RANK_WIRE_REQUEST_ID_MAX)
        return MR_FAIL(err, INVALID, "request_id is %zu bytes long, at most %d",
                       out->request_id.len, MR_RANK_WIRE_REQUEST_ID_MAX);
    request->query = text_of(from->query);
    request->top_k = from->top_k;
    request->blend = from->blend;
    request->explain = from->explain;

    mr_candidate *candidates = mr_arena_array(arena, mr_candidate, from->n_candidates);
    mr_field *field = mr_arena_array(arena, mr_field, from->n_fields);
    if (!candidates || !field)
        return MR_FAIL(err, EXHAUSTED, "no room for %zu candidates", from->n_candidates);
    for (size_t i = 0; i < from->n_fields; i++)
        field[i] = (mr_field){text_of(from->fields[i]->key), text_of(from->fields[i]->value)};
    request->fields = (mr_fields){field, from->n_fields};

    mr_status status = from->user ? read_user(out, from->user, arena, err) : MR_OK;
    for (size_t i = 0; status == MR_OK && i < from->n_candidates; i++)
        status = read_candidate(out, from->candidates[i], i, arena, &candidates[i], err);
    request->candidates = candidates;
    request->n_candidates = from->n_candidates;
    return status;
}

/* ---- write ----------------------------------------------------------------------------------- */

/* Terminated, in the arena; "" when there is none. */
static char *terminated(mr_arena *arena, mr_str text)
{
    return mr_arena_strndup(arena, text.data ? text.data : "", text.len);
}

static mr_status write_items(const mr_rank_wire *wire, const mr_rank_reply *reply, mr_arena *arena,
                             pb_reply *to, mr_error *err)
{
    pb_item *item = mr_arena_array(arena, pb_item, reply->n_items);
    pb_item **list = mr_arena_array(arena, pb_item *, reply->n_items);
    if (!item || !list)
        return MR_FAIL(err, EXHAUSTED, "no room for a reply of %zu items", reply->n_items);
    for (size_t i = 0; i < reply->n_items; i++) {
        const mr_ranked_item *from = &reply->items[i];
        const bool scored = from->source != MR_SOURCE_PRIOR;
        mixrank__v1__ranked_item__init(&item[i]);
        item[i].index = (uint32_t)from->index;
        item[i].id = terminated(arena, wire->request.candidates[from->index].id);
        item[i].score = scored ? from->score : 0;
        item[i].margin = scored ? from->margin : 0;
        item[i].source = (Mixrank__V1__Source)((int)from->source + 1);
        item[i].reason = (Mixrank__V1__Reason)from->reason;
        if (!item[i].id)
            return MR_FAIL(err, EXHAUSTED, "no room for the id of item %zu", i);
        list[i] = &item[i];
    }
    to->items = list;
    to->n_items = reply->n_items;
    return MR_OK;
}

mr_status mr_rank_wire_write(const mr_rank_wire *wire, const mr_rank_reply *reply,
                             const mr_rank_wire_extra *extra, mr_arena *arena, mr_bytes *out,
                             mr_error *err)
{
    pb_reply to = MIXRANK__V1__RANK_REPLY__INIT;
    Mixrank__V1__Timings timings = MIXRANK__V1__TIMINGS__INIT;
    Mixrank__V1__Reason degraded[MR_REASON_COUNT];
    const mr_rank_work *work = &reply->work;

    mr_status status = write_items(wire, reply, arena, &to, err);
    if (status != MR_OK)
        return status;
    to.request_id = terminated(arena, wire->request_id);
    to.model = terminated(arena, mr_str_of(reply->bundle_name));
    to.model_version = terminated(arena, mr_str_of(reply->bundle_version));
    to.numerics_id = terminated(arena, mr_str_of(extra->numerics_id));
    to.explanation = terminated(arena, mr_str_of(reply->explain));
    if (!to.request_id || !to.model || !to.model_version || !to.numerics_id || !to.explanation)
        return MR_FAIL(err, EXHAUSTED, "no room for a reply of %zu items", reply->n_items);
    to.item_space = reply->item_space;
    to.user_space = reply->user_space;
    to.candidates = (uint32_t)reply->n_candidates;
    to.scored = (uint32_t)reply->n_scored;
    to.found = (uint32_t)reply->n_found;
    for (int reason = MR_REASON_NONE + 1; reason < MR_REASON_COUNT; reason++)
        if (reply->degraded & 1u << reason)
            degraded[to.n_degraded++] = (Mixrank__V1__Reason)reason;
    to.degraded = degraded;
    timings.queue_us = (uint64_t)extra->queue_us;
    timings.fetch_us = (uint64_t)work->fetch_us;
    timings.encode_us = (uint64_t)work->encode_us;
    timings.score_us = (uint64_t)(work->expand_us + work->project_us + work->forward_us);
    timings.total_us = (uint64_t)(work->total_us + extra->queue_us);
    timings.prefix_tokens = work->prefix_tokens;
    timings.prefix_tokens_cached = work->prefix_tokens_cached;
    timings.suffix_tokens = work->suffix_tokens;
    to.timings = &timings;
    to.partial = extra->partial;
    to.untrained = extra->untrained;

    const size_t bytes = mixrank__v1__rank_reply__get_packed_size(&to);
    unsigned char *packed = mr_arena_array(arena, unsigned char, bytes);
    if (!packed)
        return MR_FAIL(err, EXHAUSTED, "no room for a reply of %zu bytes", bytes);
    mixrank__v1__rank_reply__pack(&to, packed);
    *out = (mr_bytes){packed, bytes};
    return MR_OK;
}
