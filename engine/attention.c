/* attention.c - softmax(Q K^T) V for the rows of a pass: shared prefixes from their timelines, own
 * suffix from scratch.
 *
 * Work is cut into tiles: one kv head by some consecutive rows of one timeline, with the H/K query
 * heads that read it. A tile's scores lie in scratch as [row, head][key], keys in the order of
 * positions, cached ones first. So the query-key products of many candidates against the one prefix
 * are a matrix product, and so are their weighted sums of V.
 *
 * Same bits: a score is a dot product over D; a softmax runs over position + 1 scores; a weighted
 * sum adds one value at a time in the order of positions, carried exactly from the cached part to
 * the own part. None of it depends on the tile, on which keys were cached, or on when.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/bytes.h"
#include "engine/session_private.h"

#define TILE_HEADS   48          /* rows x query heads of a tile, at most */
#define SCORE_FLOATS (64 * 1024) /* of a tile, so that scores stay in L2 */
#define SCORE_ALIGN  16

typedef struct {
    mr_session *session;
    int layer;
    size_t n_rows;
    size_t tile; /* rows of one */
    size_t tiles;
} attention_job;

static size_t group_of(const mr_model_config *config)
{
    return (size_t)(config->H / config->K);
}

size_t mr_attention_floats(const mr_model_config *config, size_t max_keys)
{
    const size_t group = group_of(config), width = mr_size_round_up(max_keys, SCORE_ALIGN);
    const size_t one_row = group * width;
    const size_t heads = group > TILE_HEADS ? group : TILE_HEADS;
    return (one_row > SCORE_FLOATS ? one_row : SCORE_FLOATS) + heads * ((size_t)config->D + 1);
}

/* Rows [i, end) that read the same cached keys; with own_too, also the same own keys. */
static size_t run_end(const mr_row *rows, size_t i, size_t n, bool own_too)
{
    size_t end = i + 1;
    while (end < n && rows[end].cached == rows[i].cached &&
           (!own_too || (rows[end].own > 0 && rows[end].own_first == rows[i].own_first)))
        end++;
    return end;
}

/* One kv head, rows [first, first + n) of one timeline. */
static void attend(const attention_job *job, size_t head, size_t first, size_t n, float *scratch)
{
    const mr_session *s = job->session;
    const mr_model_config *config = &s->model->config;
    const mr_kernels *kernels = s->model->kernels;
    const size_t D = (size_t)config->D, K = (size_t)config->K, G = group_of(config);
    const mr_timeline *timeline = s->rows[first].timeline;
    const size_t cache_at = mr_timeline_at(timeline, (size_t)job->layer, head);
    const float *k_cache = timeline->k + cache_at, *v_cache = timeline->v + cache_at;
    const float *own_k = s->own_k + head * s->max_rows * D;
    const float *own_v = s->own_v + head * s->max_rows * D;
    const float *q = s->heads + (head * s->max_rows + first) * G * D;
    const mr_row *rows = s->rows + first;

    size_t keys = 0, most = 0, common = rows[0].cached;
    for (size_t i = 0; i < n; i++) {
        keys = rows[i].position + 1 > keys ? rows[i].position + 1 : keys;
        most = rows[i].cached > most ? rows[i].cached : most;
        common = rows[i].cached < common ? rows[i].cached : common;
    }
    const size_t width = mr_size_round_up(keys, SCORE_ALIGN);
    float *scores = scratch, *out = scores + n * G * width, *scale = out + n * G * D;

    /* Scores. A row whose own cached keys are fewer ignores the surplus. */
    kernels->dot_rows(scores, width, q, D, n * G, k_cache, MR_DTYPE_F32, D, most, D);
    for (size_t i = 0, end; i < n; i = end) {
        end = run_end(rows, i, n, true);
        if (rows[i].own > 0)
            kernels->dot_rows(scores + i * G * width + rows[i].cached, width, q + i * G * D, D,
                              (end - i) * G, own_k + rows[i].own_first * D, MR_DTYPE_F32, D,
                              rows[end - 1].own, D);
    }

    for (size_t i = 0; i < n * G; i++) {
        float *score = scores + i * width;
        const size_t visible = rows[i / G].position + 1;
        scale[i] = 1.0f / kernels->softmax_exp(score, visible, kernels->max(score, visible));
    }

    /* Values: what all rows share in one product, then what each sees beyond it. */
    memset(out, 0, n * G * D * sizeof *out);
    kernels->weighted_sum(out, D, scores, width, n * G, v_cache, D, common, D);
    for (size_t i = 0, end; i < n; i = end) {
        end = run_end(rows, i, n, false);
        kernels->weighted_sum(out + i * G * D, D, scores + i * G * width + common, width,
                              (end - i) * G, v_cache + common * D, D, rows[i].cached - common, D);
    }
    for (size_t i = 0; i < n; i++) {
        kernels->weighted_sum(out + i * G * D, D, scores + i * G * width + rows[i].cached, width, G,
                              own_v + rows[i].own_first * D, D, rows[i].own, D);
    }

    for (size_t i = 0; i < n * G; i++) {
        float *to = s->q + ((first + i / G) * K * G + head * G + i % G) * D;
        for (size_t d = 0; d < D; d++)
            to[d] = out[i * D + d] * scale[i];
    }
}

static void attention_task(void *context, size_t begin, size_t end, int worker)
{
    const attention_job *job = context;
    const mr_session *s = job->session;
    float *scratch = s->attention_scratch + (size_t)worker * s->attention_floats;
    for (size_t task = begin; task < end; task++) {
        size_t first = task % job->tiles * job->tile;
        const size_t last = job->n_rows - first < job->tile ? job->n_rows : first + job->tile;
        for (size_t next; first < last; first = next) {
            for (next = first + 1; next < last && s->rows[next].timeline == s->rows[first].timeline;
                 next++)
                ;
            attend(job, task / job->tiles, first, next - first, scratch);
        }
    }
}

void mr_attention_run(mr_session *session, int layer, size_t n_rows)
{
    const mr_model_config *config = &session->model->config;
    const size_t group = group_of(config);
    size_t keys = 1;
    for (size_t i = 0; i < n_rows; i++) {
        const size_t visible = session->rows[i].position + 1;
        keys = visible > keys ? visible : keys;
        session->stats.flops += 4 * (uint64_t)config->H * (uint64_t)config->D * visible;
    }

    const size_t one_row = group * mr_size_round_up(keys, SCORE_ALIGN);
    attention_job job = {.session = session, .layer = layer, .n_rows = n_rows};
    job.tile =
        SCORE_FLOATS / one_row < TILE_HEADS / group ? SCORE_FLOATS / one_row : TILE_HEADS / group;
    if (job.tile == 0)
        job.tile = 1;
    job.tiles = (n_rows + job.tile - 1) / job.tile;
    mr_parallel_for(session->pool, (size_t)config->K * job.tiles, 1, attention_task, &job);
}
