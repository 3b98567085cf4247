/* clip_tower.c - one block of a CLIP tower on the rows of a pass: LayerNorm, attention, MLP.
 *
 * All sequences of a pass go through each linear together. Attention takes its queries, keys and
 * values head by head: next to each other in memory, where rows of all heads would be C floats
 * apart and fall into the same few cache sets. A tile of it is some rows of one head of one
 * sequence; the scores of a tile stay in L2.
 *
 * Same bits: norms and activations run over one row, a score is a dot product over D, a softmax and
 * a weighted sum run over the keys of the sequence in order. Neither batch nor tile show.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "core/bytes.h"
#include "encoders/clip_private.h"

#define TILE_ROWS      48
#define SCORE_ALIGN    16
#define CHUNK_ELEMENTS 16384 /* that make handing a chunk to a thread worth it */

typedef struct {
    mr_clip *clip;
    const mr_clip_tower *tower;
    const mr_clip_norm *norm;
    const float *from;
    float *to;
    size_t n, T; /* sequences, rows of each */
    float scale;
} step;

static void over_rows(const step *context, size_t rows, size_t width, mr_task task)
{
    mr_parallel_for(context->clip->pool, rows, 1 + CHUNK_ELEMENTS / width, task, (void *)context);
}

size_t mr_clip_wide_columns(const mr_clip_tower *tower)
{
    return 4 * tower->C > tower->F ? 4 * tower->C : tower->F;
}

/* A tile's scores, and its queries. */
size_t mr_clip_attention_floats(const mr_clip_tower *tower, size_t T)
{
    return TILE_ROWS * (mr_size_round_up(T, SCORE_ALIGN) + tower->D);
}

void mr_clip_linear(mr_clip *clip, const mr_linear *linear, float *y, const float *x, size_t n)
{
    mr_linear_run(linear, clip->kernels, clip->pool, clip->gemm_scratch, y, linear->N, x, linear->K,
                  n);
}

/* to = norm(from) */
static void norm_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    const step *st = context;
    const size_t C = st->tower->C;
    for (size_t r = begin; r < end; r++)
        st->clip->kernels->layer_norm(st->to + r * C, st->from + r * C, st->norm->weight,
                                      st->norm->bias, C, st->tower->eps);
}

void mr_clip_norm_rows(mr_clip *clip, const mr_clip_tower *tower, const mr_clip_norm *norm,
                       float *rows, size_t n)
{
    const step st = {.clip = clip, .tower = tower, .norm = norm, .from = rows, .to = rows};
    over_rows(&st, n, tower->C, norm_task);
}

/* to += from */
static void add_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    const step *st = context;
    const size_t C = st->tower->C;
    st->clip->kernels->add(st->to + begin * C, st->from + begin * C, (end - begin) * C);
}

/* Row by row: a value then stands at the same place of a vector whatever the batch. */
static void activation_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    const step *st = context;
    const mr_kernels *kernels = st->clip->kernels;
    const size_t F = st->tower->F;
    for (size_t r = begin; r < end; r++) {
        if (st->tower->quick_gelu)
            kernels->quick_gelu(st->to + r * F, F);
        else
            kernels->gelu(st->to + r * F, F);
    }
}

/* from [n][T][H][D] -> to [n][H][T][D] */
static void by_head_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    const step *st = context;
    const size_t H = st->tower->H, D = st->tower->D, C = st->tower->C, T = st->T;
    for (size_t r = begin; r < end; r++) {
        const float *row = st->from + r * C;
        float *first = st->to + (r / T * H * T + r % T) * D;
        for (size_t head = 0; head < H; head++)
            memcpy(first + head * T * D, row + head * D, D * sizeof *row);
    }
}

/* One head of one sequence, its rows [first, first + rows). from: q, k, v by head, [3][n][H][T][D].
 */
static void attend(const step *st, size_t sequence, size_t head, size_t first, size_t rows,
                   float *scratch)
{
    const mr_clip_tower *tower = st->tower;
    const mr_kernels *kernels = st->clip->kernels;
    const size_t T = st->T, D = tower->D, C = tower->C, all = st->n * T * C;
    const float *q = st->from + ((sequence * tower->H + head) * T + first) * D;
    const float *k = st->from + all + (sequence * tower->H + head) * T * D;
    const float *v = k + all;
    float *out = st->to + (sequence * T + first) * C + head * D;
    const size_t keys = tower->causal ? first + rows : T;
    const size_t width = mr_size_round_up(T, SCORE_ALIGN);
    float *scores = scratch, *scaled = scratch + TILE_ROWS * width;

    for (size_t i = 0; i < rows * D; i++)
        scaled[i] = q[i] * st->scale;
    kernels->dot_rows(scores, width, scaled, D, rows, k, MR_DTYPE_F32, D, keys, D);
    for (size_t r = 0; r < rows; r++) {
        float *score = scores + r * width;
        const size_t visible = tower->causal ? first + r + 1 : T;
        const float total = kernels->softmax_exp(score, visible, kernels->max(score, visible));
        /* Kept for after the sum over values; the query is no longer needed. */
        scaled[r * D] = 1.0f / total;
        memset(out + r * C, 0, D * sizeof *out);
        if (tower->causal)
            kernels->weighted_sum(out + r * C, C, score, width, 1, v, D, visible, D);
    }
    if (!tower->causal)
        kernels->weighted_sum(out, C, scores, width, rows, v, D, T, D);
    for (size_t r = 0; r < rows; r++)
        for (size_t d = 0; d < D; d++)
            out[r * C + d] *= scaled[r * D];
}

static void attention_task(void *context, size_t begin, size_t end, int worker)
{
    const step *st = context;
    const size_t tiles = (st->T + TILE_ROWS - 1) / TILE_ROWS, H = st->tower->H;
    float *scratch = st->clip->attention_scratch + (size_t)worker * st->clip->attention_floats;
    for (size_t task = begin; task < end; task++) {
        const size_t first = task % tiles * TILE_ROWS;
        const size_t rows = st->T - first < TILE_ROWS ? st->T - first : TILE_ROWS;
        attend(st, task / tiles / H, task / tiles % H, first, rows, scratch);
    }
}

void mr_clip_block(mr_clip *clip, const mr_clip_tower *tower, size_t index, size_t n, size_t T)
{
    const mr_clip_layer *layer = &tower->layers[index];
    const mr_linear *const projections[3] = {&layer->q, &layer->k, &layer->v};
    const size_t rows = n * T, C = tower->C, H = tower->H;
    float *fresh = clip->wide, *heads = clip->wide + rows * C;
    step st = {.clip = clip, .tower = tower, .n = n, .T = T};

    st.norm = &layer->norm1;
    st.from = clip->x;
    st.to = clip->h;
    over_rows(&st, rows, C, norm_task);
    for (size_t i = 0; i < 3; i++) {
        mr_clip_linear(clip, projections[i], fresh, clip->h, rows);
        st.from = fresh;
        st.to = heads + i * rows * C;
        over_rows(&st, rows, C, by_head_task);
    }
    st.from = heads;
    st.to = clip->h;
    st.scale = 1.0f / sqrtf((float)tower->D);
    mr_parallel_for(clip->pool, n * H * ((T + TILE_ROWS - 1) / TILE_ROWS), 1, attention_task, &st);
    mr_clip_linear(clip, &layer->out, fresh, clip->h, rows);
    st.from = fresh;
    st.to = clip->x;
    over_rows(&st, rows, C, add_task);

    st.norm = &layer->norm2;
    st.from = clip->x;
    st.to = clip->h;
    over_rows(&st, rows, C, norm_task);
    mr_clip_linear(clip, &layer->fc1, clip->wide, clip->h, rows);
    st.to = clip->wide;
    over_rows(&st, rows, tower->F, activation_task);
    mr_clip_linear(clip, &layer->fc2, clip->h, clip->wide, rows);
    st.from = clip->h;
    st.to = clip->x;
    over_rows(&st, rows, C, add_task);
}
