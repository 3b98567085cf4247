/* score.c - scores candidates best prior first, in chunks, while time lasts. See ranking.h.
 *
 * Anytime: with a deadline, a chunk is as large as fits before it at the pace of the last one, and
 * what is left keeps its prior place. The first chunk of a request always starts when the deadline
 * is not over, so that one slow request does not stop all later ones. A margin does not depend on
 * the chunk that it was computed in, so a slow machine changes how many are scored, never what they
 * score.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "core/clock.h"
#include "ranker/pipeline/ranking.h"

/* How many are tried against a deadline before the pace is known. */
#define FIRST_CHUNK 8

typedef struct {
    size_t *index; /* [chunk] candidates of this chunk that have something to score */
    mr_scorer_candidate *candidates; /* [chunk] */
    double *margins;
    mr_status *status;
    size_t n;
} chunk_buffers;

static mr_reason reason_of(mr_status status)
{
    switch (status) {
    case MR_MISMATCH: return MR_REASON_WRONG_SHAPE;
    case MR_EXHAUSTED: return MR_REASON_TOO_LONG;
    case MR_NO_MEMORY: return MR_REASON_MEMORY;
    default: return MR_REASON_INVALID;
    }
}

/* Text that the prompt takes; an empty one was given too. */
static bool has_used_text(const mr_bundle *bundle, mr_fields fields)
{
    for (size_t i = 0; i < fields.n; i++) {
        char name[64];
        const mr_field *field = &fields.field[i];
        if (field->name.len >= sizeof name)
            continue;
        memcpy(name, field->name.data, field->name.len);
        name[field->name.len] = '\0';
        if (mr_template_uses_field(bundle->suffix, name))
            return true;
    }
    return false;
}

/* Text of a candidate into vectors, for those that the store does not know. The encoder runs with
 * the scoring kernels: the same text must give the same margin in any company. */
static mr_vectors encode_text(mr_ranking *ranking, size_t index)
{
    mr_ranker *ranker = ranking->ranker;
    const mr_bundle *bundle = ranker->bundle;
    mr_ranking_item *item = &ranking->items[index];
    const bool may = ranker->options.encode_missing &&
                     bundle->item.kind == MR_ENCODER_CAUSAL_LAST_N && !ranker->encoder_failed &&
                     (item->reason == MR_REASON_MISSING || item->reason == MR_REASON_DAMAGED ||
                      item->reason == MR_REASON_STORE_AWAY);
    if (!may || mr_fields_get(item->fields, "text").len == 0)
        return (mr_vectors){0};
    const int64_t started = mr_clock_monotonic_us();
    if (ranking->request->deadline_us && started >= ranking->request->deadline_us) {
        item->reason = MR_REASON_DEADLINE;
        mr_ranking_degrade(ranking, MR_REASON_DEADLINE);
        return (mr_vectors){0};
    }
    mr_error why = {0};
    mr_status status = MR_OK;
    if (!ranker->encoder) {
        /* One text at a time: a pass as long as the longest. */
        status = mr_bundle_open_item_encoder(bundle, MR_GEMM_SCORING, 1, &ranker->encoder, &why);
        ranker->encoder_failed = status != MR_OK;
    }
    const size_t width = (size_t)bundle->item.tokens * bundle->item.dim;
    float *values = mr_arena_array(ranking->arena, float, width);
    uint16_t tokens = 0;
    if (status == MR_OK && !values)
        status = MR_FAIL(&why, NO_MEMORY, "vectors of one item");
    if (status == MR_OK)
        status =
            mr_text_encoder_run(ranker->encoder, &item->fields, 1, values, &tokens, NULL, &why);
    ranking->work.encode_us += mr_clock_monotonic_us() - started;
    if (status != MR_OK || tokens == 0) {
        if (status != MR_OK) {
            if (!ranker->encoder_failed)
                item->reason = reason_of(status);
            mr_ranking_note(ranking, &why);
        }
        return (mr_vectors){0};
    }
    item->source = MR_SOURCE_TEXT;
    item->reason = MR_REASON_NONE;
    return (mr_vectors){values, tokens, bundle->item.dim};
}

/* A picture that came with the request, into vectors. With the scoring kernels, as the text. */
static mr_vectors encode_image(mr_ranking *ranking, size_t index)
{
    mr_ranker *ranker = ranking->ranker;
    const mr_bundle *bundle = ranker->bundle;
    const mr_candidate *candidate = &ranking->request->candidates[index];
    mr_ranking_item *item = &ranking->items[index];
    const int64_t started = mr_clock_monotonic_us();
    if (ranking->request->deadline_us && started >= ranking->request->deadline_us) {
        item->image_reason = MR_REASON_DEADLINE;
        mr_ranking_degrade(ranking, MR_REASON_DEADLINE);
        return (mr_vectors){0};
    }
    mr_error why = ranker->image_encoder_error;
    mr_status status = why.status;
    if (status == MR_OK && !ranker->image_encoder)
        status =
            mr_bundle_open_image_encoder(bundle, MR_GEMM_SCORING, 1, &ranker->image_encoder, &why);
    if (status != MR_OK) {
        /* A folder that is wrong stays wrong; memory and descriptors may come back. */
        if (status != MR_NO_MEMORY && status != MR_EXHAUSTED)
            ranker->image_encoder_error = why;
        mr_ranking_note(ranking, &why);
        item->image_reason = MR_REASON_MISSING;
        return (mr_vectors){0};
    }
    const size_t tokens = (size_t)bundle->image.tokens;
    float *values = mr_arena_array(ranking->arena, float, tokens * bundle->image.dim);
    if (!values)
        status = MR_FAIL(&why, NO_MEMORY, "vectors of one picture");
    if (status == MR_OK)
        status = mr_image_encoder_put(ranker->image_encoder, 0, "inline", candidate->image, &why);
    if (status == MR_OK)
        status = mr_image_encoder_run(ranker->image_encoder, 1, values, &why);
    ranking->work.encode_us += mr_clock_monotonic_us() - started;
    if (status != MR_OK) {
        item->image_reason = reason_of(status);
        mr_error_prefix(&why, status, "candidate %zu '%.*s'", index, MR_STR_ARG(candidate->id));
        mr_ranking_note(ranking, &why);
        return (mr_vectors){0};
    }
    item->image_reason = MR_REASON_NONE;
    return (mr_vectors){values, tokens, bundle->image.dim};
}

/* Whether a candidate may be ranked by its other half when this half is not there: only when that
 * is how the store holds it. What is lacking for want of time, memory or an answer would make the
 * margin depend on them, and what was removed is not to come back through its picture. */
static bool may_lack(mr_reason reason)
{
    return reason == MR_REASON_MISSING || reason == MR_REASON_DAMAGED;
}

/* What stands in the slots of a mixed prompt. False when there is not what the prompt needs; the
 * item then has its reason. */
static bool slot_vectors_of(mr_ranking *ranking, size_t index, mr_vectors *item_vectors,
                            mr_vectors *image_vectors)
{
    const mr_template *suffix = ranking->ranker->bundle->suffix;
    const bool takes_image = mr_template_uses_slot(suffix, MR_SLOT_IMAGE);
    const bool inline_image = mr_ranking_brings_image(ranking, index);
    mr_ranking_item *item = &ranking->items[index];
    item->source = MR_SOURCE_MODEL;
    *item_vectors = mr_ranking_item_vectors(ranking, index);
    if (!item_vectors->tokens)
        *item_vectors = encode_text(ranking, index);
    *image_vectors = (mr_vectors){0};
    if (!item_vectors->tokens && (!may_lack(item->reason) ||
                                  mr_template_requires_slot(suffix, MR_SLOT_ITEM) || !takes_image))
        return false;
    if (!takes_image)
        return true;
    *image_vectors =
        inline_image ? encode_image(ranking, index) : mr_ranking_image_vectors(ranking, index);
    if (image_vectors->tokens) {
        if (inline_image)
            item->source = MR_SOURCE_IMAGE;
        return true;
    }
    /* A picture that the caller sent is part of what is to be ranked. One that was taken away is
     * as one that never was. */
    const bool optional = !inline_image && !mr_template_requires_slot(suffix, MR_SLOT_IMAGE) &&
                          (may_lack(item->image_reason) || item->image_reason == MR_REASON_REMOVED);
    if (!optional)
        item->reason = item->image_reason;
    return optional && item_vectors->tokens;
}

/* Adds the candidate to the chunk when there is something to score it by. */
static void prepare(mr_ranking *ranking, size_t index, chunk_buffers *chunk)
{
    const mr_bundle *bundle = ranking->ranker->bundle;
    mr_ranking_item *item = &ranking->items[index];
    mr_vectors vectors = {0}, image = {0};
    if (item->reason == MR_REASON_INVALID)
        return;
    if (bundle->mixed) {
        if (!slot_vectors_of(ranking, index, &vectors, &image))
            return;
    } else {
        item->source = MR_SOURCE_TEXT;
        if (!has_used_text(bundle, item->fields)) {
            item->reason = MR_REASON_MISSING;
            return;
        }
    }
    item->tokens = vectors.tokens;
    item->image_tokens = image.tokens;
    chunk->index[chunk->n] = index;
    chunk->candidates[chunk->n] =
        (mr_scorer_candidate){.fields = item->fields, .item = vectors, .image = image};
    chunk->n++;
}

static mr_status score_chunk(mr_ranking *ranking, chunk_buffers *chunk, mr_error *err)
{
    if (chunk->n == 0)
        return MR_OK;
    mr_status status = mr_scorer_score(ranking->ranker->scorer, chunk->candidates, chunk->n,
                                       chunk->margins, chunk->status, &ranking->first_error, err);
    if (status != MR_OK)
        return status;
    for (size_t i = 0; i < chunk->n; i++) {
        mr_ranking_item *item = &ranking->items[chunk->index[i]];
        mr_status one = chunk->status[i];
        /* Weights that give NaN or infinity would sort anywhere: such a candidate is not scored. */
        if (one == MR_OK && !isfinite(chunk->margins[i]))
            one = MR_INVALID;
        item->reason = one == MR_OK ? MR_REASON_NONE : reason_of(one);
        if (one == MR_OK)
            ranking->keys[chunk->index[i]].margin = chunk->margins[i];
    }
    return MR_OK;
}

/* Candidates that the next chunk may take; 0 when none fits before the deadline any more. */
static size_t chunk_size(const mr_ranking *ranking, int64_t now, bool first)
{
    const size_t size = ranking->ranker->options.chunk;
    const int64_t deadline = ranking->request->deadline_us;
    if (!deadline)
        return size;
    if (now >= deadline)
        return 0;
    const double pace = ranking->ranker->us_per_candidate;
    const double fits = pace > 0 ? (double)(deadline - now) / pace : FIRST_CHUNK;
    if (fits < 1)
        return first ? 1 : 0;
    return fits < (double)size ? (size_t)fits : size;
}

mr_status mr_ranking_score(mr_ranking *ranking, mr_error *err)
{
    const mr_rank_request *request = ranking->request;
    mr_arena *arena = ranking->arena;
    const size_t n = request->n_candidates, size = ranking->ranker->options.chunk;
    size_t *by_prior = mr_arena_array(arena, size_t, n);
    size_t *scratch = mr_arena_array(arena, size_t, n);
    chunk_buffers chunk = {.index = mr_arena_array(arena, size_t, size),
                           .candidates = mr_arena_array(arena, mr_scorer_candidate, size),
                           .margins = mr_arena_array(arena, double, size),
                           .status = mr_arena_array(arena, mr_status, size)};
    if (!by_prior || !scratch || !chunk.index || !chunk.candidates || !chunk.margins ||
        !chunk.status)
        return MR_FAIL(err, NO_MEMORY, "working memory for %zu candidates", n);
    mr_order_by_prior(ranking->keys, n, by_prior, scratch);

    for (size_t done = 0; done < n;) {
        const int64_t now = mr_clock_monotonic_us();
        const size_t take = chunk_size(ranking, now, done == 0);
        if (take == 0) {
            for (size_t i = done; i < n; i++) {
                mr_ranking_item *item = &ranking->items[by_prior[i]];
                if (item->reason == MR_REASON_NONE)
                    item->reason = MR_REASON_DEADLINE;
            }
            mr_ranking_degrade(ranking, MR_REASON_DEADLINE);
            break;
        }
        const mr_arena_mark mark = mr_arena_now(arena);
        const size_t end = n - done < take ? n : done + take;
        chunk.n = 0;
        for (size_t i = done; i < end; i++)
            prepare(ranking, by_prior[i], &chunk);
        mr_status status = score_chunk(ranking, &chunk, err);
        mr_arena_rewind(arena, mark);
        if (status != MR_OK)
            return status;
        ranking->ranker->us_per_candidate =
            (double)(mr_clock_monotonic_us() - now) / (double)(end - done);
        done = end;
    }
    return MR_OK;
}
