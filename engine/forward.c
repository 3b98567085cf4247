/* forward.c - one pass through the transformer, top to bottom.
 *
 * Letters: R rows of the pass, C width, H query heads, K kv heads, D head size, F feed-forward
 * width, L layers. Every linear is y[R, N] = x[R, K] W[N, K]^T.
 *
 * A row's numbers come from its own inputs alone: linears and norms are computed row by row in a
 * fixed order, and attention likewise (attention.c). So rows can be batched, pruned and moved.
 *
 * In the last layer only wanted rows go beyond K and V: nobody reads what the others would give.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "core/clock.h"
#include "engine/session_private.h"

/* Elements that make handing a chunk to a thread worth it. */
#define CHUNK_ELEMENTS 16384

/* ---- Steps on rows, spread over the pool ----------------------------------------------------- */

typedef struct {
    mr_session *session;
    const mr_layer *layer;
    int index;           /* of the layer */
    const float *weight; /* of a norm */
} step;

static void over_rows(step *context, size_t n_rows, size_t width, mr_task task)
{
    mr_parallel_for(context->session->pool, n_rows, 1 + CHUNK_ELEMENTS / width, task, context);
}

/* h = norm(x) */
static void norm_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    const step *st = context;
    mr_session *s = st->session;
    const size_t C = (size_t)s->model->config.C;
    for (size_t r = begin; r < end; r++)
        s->model->kernels->rms_norm(s->h + r * C, s->x + r * C, st->weight, C,
                                    s->model->config.rms_eps);
}

/* x += h */
static void residual_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    const step *st = context;
    mr_session *s = st->session;
    const size_t C = (size_t)s->model->config.C;
    s->model->kernels->add(s->x + begin * C, s->h + begin * C, (end - begin) * C);
}

/* gate = silu(gate) * up */
static void activation_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    const step *st = context;
    mr_session *s = st->session;
    const size_t F = (size_t)s->model->config.F;
    s->model->kernels->silu_mul(s->gate + begin * F, s->up + begin * F, (end - begin) * F);
}

/* k -> normalised, rotated -> the timeline or own_k; v likewise, as it is. */
static void keys_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    const step *st = context;
    mr_session *s = st->session;
    const mr_model_config *config = &s->model->config;
    const mr_kernels *kernels = s->model->kernels;
    const size_t K = (size_t)config->K, D = (size_t)config->D;

    for (size_t r = begin; r < end; r++) {
        const mr_row *row = &s->rows[r];
        for (size_t head = 0; head < K; head++) {
            float *k = s->k + (r * K + head) * D, *v = s->v + (r * K + head) * D;
            float *k_to = s->own_k + (head * s->max_rows + r) * D;
            float *v_to = s->own_v + (head * s->max_rows + r) * D;
            if (row->own == 0) {
                const size_t at =
                    mr_timeline_at(row->timeline, (size_t)st->index, head) + row->position * D;
                k_to = row->timeline->k + at;
                v_to = row->timeline->v + at;
            }
            if (st->layer->k_norm)
                kernels->rms_norm(k, k, st->layer->k_norm, D, config->rms_eps);
            kernels->rope(k, s->cos + row->position * (D / 2), s->sin + row->position * (D / 2), D);
            memcpy(k_to, k, D * sizeof *k);
            memcpy(v_to, v, D * sizeof *v);
        }
    }
}

/* q -> normalised, rotated, scaled by 1 / sqrt(D) -> heads */
static void queries_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    const step *st = context;
    mr_session *s = st->session;
    const mr_model_config *config = &s->model->config;
    const mr_kernels *kernels = s->model->kernels;
    const size_t H = (size_t)config->H, G = H / (size_t)config->K, D = (size_t)config->D;
    const float scale = 1.0f / sqrtf((float)D);

    for (size_t r = begin; r < end; r++) {
        const size_t position = s->rows[r].position;
        for (size_t head = 0; head < H; head++) {
            float *q = s->q + (r * H + head) * D;
            float *to = s->heads + ((head / G * s->max_rows + r) * G + head % G) * D;
            if (st->layer->q_norm)
                kernels->rms_norm(q, q, st->layer->q_norm, D, config->rms_eps);
            kernels->rope(q, s->cos + position * (D / 2), s->sin + position * (D / 2), D);
            for (size_t d = 0; d < D; d++)
                to[d] = q[d] * scale;
        }
    }
}

/* ---- The pass -------------------------------------------------------------------------------- */

static void norm(step *st, const float *weight, size_t n_rows)
{
    st->weight = weight;
    over_rows(st, n_rows, (size_t)st->session->model->config.C, norm_task);
}

static void linear(mr_session *s, const mr_linear *layer, float *y, const float *x, size_t n_rows)
{
    const int64_t start = mr_clock_monotonic_us();
    mr_linear_run(layer, s->model->kernels, s->pool, s->gemm_scratch, y, layer->N, x, layer->K,
                  n_rows);
    s->stats.gemm_us += mr_clock_monotonic_us() - start;
    s->stats.flops += 2 * (uint64_t)n_rows * layer->N * layer->K;
}

static void attention(mr_session *s, int layer, size_t n_rows)
{
    const int64_t start = mr_clock_monotonic_us();
    mr_attention_run(s, layer, n_rows);
    s->stats.attention_us += mr_clock_monotonic_us() - start;
}

/* Moves wanted rows to the front of rows, x and h; returns how many there are. K and V of all rows
 * stay where they are, and own_first still points to them. */
static size_t prune(mr_session *s, size_t n_rows)
{
    const size_t C = (size_t)s->model->config.C;
    size_t kept = 0;
    for (size_t r = 0; r < n_rows; r++) {
        if (!s->rows[r].wanted)
            continue;
        if (kept != r) {
            s->rows[kept] = s->rows[r];
            memcpy(s->x + kept * C, s->x + r * C, C * sizeof *s->x);
            memcpy(s->h + kept * C, s->h + r * C, C * sizeof *s->h);
        }
        kept++;
    }
    s->stats.pruned_rows += n_rows - kept;
    return kept;
}

/* One block on the residual stream; returns the rows that are left. */
static size_t block(mr_session *s, int index, size_t n_rows)
{
    const mr_model *model = s->model;
    const mr_layer *layer = &model->layers[index];
    const size_t C = (size_t)model->config.C, F = (size_t)model->config.F;
    const size_t HD = (size_t)model->config.H * (size_t)model->config.D;
    const size_t KD = (size_t)model->config.K * (size_t)model->config.D;
    step st = {.session = s, .layer = layer, .index = index};

    norm(&st, layer->attention_norm, n_rows);
    linear(s, &layer->k, s->k, s->h, n_rows);
    linear(s, &layer->v, s->v, s->h, n_rows);
    over_rows(&st, n_rows, 2 * KD, keys_task);

    if (index == model->config.L - 1 && !s->tap)
        n_rows = prune(s, n_rows);
    if (n_rows == 0)
        return 0;

    linear(s, &layer->q, s->q, s->h, n_rows);
    over_rows(&st, n_rows, HD, queries_task);
    attention(s, index, n_rows);
    linear(s, &layer->o, s->h, s->q, n_rows);
    over_rows(&st, n_rows, C, residual_task);

    norm(&st, layer->mlp_norm, n_rows);
    linear(s, &layer->gate, s->gate, s->h, n_rows);
    linear(s, &layer->up, s->up, s->h, n_rows);
    over_rows(&st, n_rows, F, activation_task);
    linear(s, &layer->down, s->h, s->gate, n_rows);
    over_rows(&st, n_rows, C, residual_task);
    return n_rows;
}

void mr_forward_pass(mr_session *s)
{
    const int64_t start = mr_clock_monotonic_us();
    const int64_t timed = s->stats.gemm_us + s->stats.attention_us;
    const mr_model *model = s->model;
    const size_t C = (size_t)model->config.C;
    size_t n_rows = s->n_rows;

    s->stats.rows += n_rows;
    if (s->tap)
        s->tap(s->tap_context, 0, s->x, n_rows);
    for (int l = 0; l < model->config.L; l++) {
        n_rows = block(s, l, n_rows);
        if (s->tap)
            s->tap(s->tap_context, l + 1, s->x, n_rows);
    }
    for (size_t r = 0; r < n_rows; r++) {
        if (!s->rows[r].wanted)
            continue;
        model->kernels->rms_norm(s->out, s->x + r * C, model->final_norm, C, model->config.rms_eps);
        s->out += C;
    }
    s->stats.other_us +=
        mr_clock_monotonic_us() - start - (s->stats.gemm_us + s->stats.attention_us - timed);
}
