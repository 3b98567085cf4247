/* stage_contrastive.c - InfoNCE for the item encoder (van den Oord et al. 2018), both directions.
 *
 * A text's vector is the mean of its T embedding tokens at length 1. A batch holds a block of each
 * source (contrast_data.h) in the proportion of their weights; within a block logits are a . b /
 * temperature, without what belongs together but is no pair of the batch. Shards encode texts of
 * their own; the losses are joined over all of them.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ranker/training/contrast_data.h"
#include "ranker/training/encoder_pass.h"
#include "ranker/training/losses.h"

#define MASKED (-1e4f) /* exp is 0, and finite */

typedef struct {
    mr_contrast_source source;
    uint64_t first;  /* example of the epoch that number 0 of the block is */
    size_t begin, n; /* rows of the batch */
} block;

typedef struct {
    mr_trainer *trainer;
    mr_contrast_data *data;
    size_t dim, T;
    size_t share[MR_FROM_COUNT]; /* examples of each source in a batch */
    mr_encoder_pass *pass;       /* [n_shards] */
    double temperature;

    /* The batch at hand, over all shards. */
    block block[MR_FROM_COUNT];
    size_t n_blocks, n; /* examples */
    mr_contrast_example *example;
    float *a, *b;           /* [batch][dim] at length 1 */
    float *length;          /* [2][batch] before that */
    float *d_a, *d_b;       /* [batch][dim] */
    float *logits, *turned; /* [batch][batch] */
    int32_t *target;
    double loss;
} stage;

/* ---- Opening --------------------------------------------------------------------------------- */

static void close_stage(void *state)
{
    stage *st = state;
    if (!st)
        return;
    for (size_t s = 0; st->pass && s < st->trainer->n_shards; s++)
        mr_encoder_pass_close(&st->pass[s]);
    free(st->pass);
    mr_contrast_data_close(st->data);
    free(st->example);
    free(st->a);
    free(st->b);
    free(st->length);
    free(st->d_a);
    free(st->d_b);
    free(st->logits);
    free(st->turned);
    free(st->target);
    free(st);
}

/* Cuts the batch by the sources' weights. */
static mr_status set_shares(stage *st, mr_error *err)
{
    const mr_recipe_data *data = &st->trainer->recipe->data;
    const size_t batch = (size_t)st->trainer->recipe->batch;
    double weight[MR_FROM_COUNT] = {0}, total = 0;
    size_t used = 0, largest = 0;
    weight[MR_FROM_PAIRS] = data->n_pairs > 0 ? data->pairs_weight : 0;
    weight[MR_FROM_BASKETS] = data->users ? data->users_weight : 0;
    for (size_t i = 0; i < data->n_lists; i++)
        weight[MR_FROM_LISTS] += data->lists[i].weight;
    for (int s = 0; s < MR_FROM_COUNT; s++) {
        if (mr_contrast_data_count(st->data, (mr_contrast_source)s, false) == 0)
            weight[s] = 0;
        total += weight[s];
    }
    if (total <= 0)
        return MR_FAIL(err, INVALID, "data has no pair of texts to learn from");
    for (size_t s = 0; s < MR_FROM_COUNT; s++) {
        st->share[s] = (size_t)((double)batch * weight[s] / total);
        used += st->share[s];
        if (weight[s] > weight[largest])
            largest = s;
    }
    st->share[largest] += batch - used;
    return MR_OK;
}

static mr_status allocate(stage *st, mr_error *err)
{
    const mr_trainer *t = st->trainer;
    const size_t batch = (size_t)t->recipe->batch, dim = st->dim;
    st->example = calloc(batch, sizeof *st->example);
    st->a = calloc(batch * dim, sizeof(float));
    st->b = calloc(batch * dim, sizeof(float));
    st->length = calloc(2 * batch, sizeof(float));
    st->d_a = calloc(batch * dim, sizeof(float));
    st->d_b = calloc(batch * dim, sizeof(float));
    st->logits = calloc(batch * batch, sizeof(float));
    st->turned = calloc(batch * batch, sizeof(float));
    st->target = calloc(batch, sizeof *st->target);
    st->pass = calloc(t->n_shards, sizeof *st->pass);
    if (!st->example || !st->a || !st->b || !st->length || !st->d_a || !st->d_b || !st->logits ||
        !st->turned || !st->target || !st->pass)
        return MR_FAIL(err, NO_MEMORY, "a batch of %zu pairs", batch);
    const size_t texts = 2 * ((batch + t->n_shards - 1) / t->n_shards);
    mr_status status = MR_OK;
    for (size_t s = 0; status == MR_OK && s < t->n_shards; s++)
        status = mr_encoder_pass_open(&st->pass[s], t, texts, texts * (size_t)t->recipe->max_tokens,
                                      err);
    return status;
}

static mr_status open_stage(mr_trainer *t, void **state, uint64_t *examples, mr_error *err)
{
    mr_status status = mr_trainer_need(t, &t->encoder, "encoder", err);
    if (status == MR_OK && !t->spec.item_text)
        status = MR_FAIL(err, INVALID, "'bundle' has to be there and describe encoders.item");
    if (status != MR_OK)
        return status;
    stage *st = calloc(1, sizeof *st);
    *state = st;
    if (!st)
        return MR_FAIL(err, NO_MEMORY, "the stage");
    st->trainer = t;
    st->dim = (size_t)t->encoder.decoder.config.C;
    st->T = (size_t)t->spec.item_tokens;
    st->temperature = t->recipe->n_losses > 0 ? t->recipe->loss[0].temperature : 0.05;
    status = mr_contrast_data_open(&st->data, t, err);
    if (status == MR_OK)
        status = set_shares(st, err);
    if (status == MR_OK)
        status = allocate(st, err);
    for (int s = 0; status == MR_OK && s < MR_FROM_COUNT; s++)
        *examples += mr_contrast_data_count(st->data, (mr_contrast_source)s, false);
    return status;
}

/* ---- A batch --------------------------------------------------------------------------------- */

/* Which examples: the same for every shard that asks. */
static size_t plan(const stage *st, const mr_batch_place *place, block *out, size_t *n_blocks)
{
    size_t n = 0;
    *n_blocks = 0;
    for (int s = 0; s < MR_FROM_COUNT; s++) {
        const mr_contrast_source source = (mr_contrast_source)s;
        size_t share = st->share[s];
        if (place->valid && mr_contrast_data_count(st->data, source, true) < share)
            share = 0;
        if (share == 0)
            continue;
        out[(*n_blocks)++] = (block){source, place->number * share, n, share};
        n += share;
    }
    return n;
}

static mr_contrast_example example_at(const stage *st, const block *blocks, size_t e, bool valid)
{
    const block *bl = blocks;
    while (e >= bl->begin + bl->n)
        bl++;
    return mr_contrast_data_example(st->data, bl->source, valid, bl->first + (e - bl->begin));
}

/* Mean of T tokens at length 1; returns the length before. */
static float pool(const stage *st, const float *tokens, float *out)
{
    const mr_ops_f32 *ops = st->trainer->ops;
    memset(out, 0, st->dim * sizeof *out);
    for (size_t t = 0; t < st->T; t++)
        ops->add_scaled(out, tokens + t * st->dim, 1 / (float)st->T, st->dim);
    const float length = sqrtf(ops->dot(out, out, st->dim)) + 1e-12f;
    for (size_t i = 0; i < st->dim; i++)
        out[i] /= length;
    return length;
}

/* The way back of pool: with u = x / |x|, dx = (du - u (u . du)) / |x|, to each of T tokens. */
static void pool_back(const stage *st, const float *u, const float *du, float length, float *out)
{
    const mr_ops_f32 *ops = st->trainer->ops;
    const float along = ops->dot(u, du, st->dim), scale = 1 / (length * (float)st->T);
    for (size_t i = 0; i < st->dim; i++)
        out[i] = (du[i] - u[i] * along) * scale;
    for (size_t t = 1; t < st->T; t++)
        memcpy(out + t * st->dim, out, st->dim * sizeof *out);
}

static mr_status forward(void *state, size_t index, const mr_batch_place *place, mr_error *err)
{
    stage *st = state;
    mr_encoder_pass *pass = &st->pass[index];
    const mr_text_table *texts = mr_contrast_data_texts(st->data);
    const size_t shards = st->trainer->n_shards, batch = (size_t)st->trainer->recipe->batch;
    block blocks[MR_FROM_COUNT];
    size_t n_blocks, length;
    const size_t n = plan(st, place, blocks, &n_blocks);
    mr_encoder_pass_clear(pass);
    mr_status status = MR_OK;
    for (size_t e = index; status == MR_OK && e < n; e += shards) {
        st->example[e] = example_at(st, blocks, e, place->valid);
        const int32_t *ids = mr_text_table_at(texts, st->example[e].a, &length);
        status = mr_encoder_pass_add(pass, ids, length, err);
        ids = mr_text_table_at(texts, st->example[e].b, &length);
        if (status == MR_OK)
            status = mr_encoder_pass_add(pass, ids, length, err);
    }
    if (status != MR_OK || pass->pack.n_spans == 0)
        return status;
    const float *tokens = mr_encoder_pass_forward(pass);
    for (size_t e = index; e < n; e += shards, tokens += 2 * st->T * st->dim) {
        st->length[e] = pool(st, tokens, st->a + e * st->dim);
        st->length[batch + e] = pool(st, tokens + st->T * st->dim, st->b + e * st->dim);
    }
    return MR_OK;
}

/* Both directions of one block; weight: its share of the batch. Sets d_a and d_b. */
static double block_loss(stage *st, const block *bl, float weight)
{
    const mr_ops_f32 *ops = st->trainer->ops;
    const size_t n = bl->n, dim = st->dim;
    const float inverse = (float)(1 / st->temperature);
    const float *a = st->a + bl->begin * dim, *b = st->b + bl->begin * dim;
    ops->gemm(false, true, n, n, dim, inverse, a, dim, b, dim, 0, st->logits, n);
    for (size_t i = 0; i < n; i++) {
        const mr_contrast_example *x = &st->example[bl->begin + i];
        st->target[i] = (int32_t)i;
        for (size_t j = 0; j < n; j++)
            if (i != j &&
                mr_contrast_data_related(st->data, bl->source, x, &st->example[bl->begin + j]))
                st->logits[i * n + j] = MASKED;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            st->turned[j * n + i] = st->logits[i * n + j];
    double loss = mr_loss_cross_entropy(st->logits, st->target, n, n, st->logits);
    loss += mr_loss_cross_entropy(st->turned, st->target, n, n, st->turned);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            st->logits[i * n + j] += st->turned[j * n + i];
    const float scale = 0.5f * weight * inverse;
    ops->gemm(false, false, n, dim, n, scale, st->logits, n, b, dim, 0, st->d_a + bl->begin * dim,
              dim);
    ops->gemm(true, false, n, dim, n, scale, st->logits, n, a, dim, 0, st->d_b + bl->begin * dim,
              dim);
    return 0.5 * (double)weight * loss;
}

static mr_status join(void *state, const mr_batch_place *place, mr_error *err)
{
    (void)err;
    stage *st = state;
    st->n = plan(st, place, st->block, &st->n_blocks);
    st->loss = 0;
    for (size_t i = 0; i < st->n_blocks; i++)
        st->loss += block_loss(st, &st->block[i], (float)st->block[i].n / (float)st->n);
    return MR_OK;
}

static mr_status backward(void *state, size_t index, const mr_batch_place *place, float *gradients,
                          mr_shard_report *report, mr_error *err)
{
    (void)place;
    (void)err;
    stage *st = state;
    mr_encoder_pass *pass = &st->pass[index];
    const size_t batch = (size_t)st->trainer->recipe->batch, dim = st->dim;
    report->loss = index == 0 ? st->loss : 0;
    report->tokens = pass->pack.rows;
    if (!gradients || pass->pack.n_spans == 0)
        return MR_OK;
    float *to = pass->d_out;
    for (size_t e = index; e < st->n; e += st->trainer->n_shards, to += 2 * st->T * dim) {
        pool_back(st, st->a + e * dim, st->d_a + e * dim, st->length[e], to);
        pool_back(st, st->b + e * dim, st->d_b + e * dim, st->length[batch + e], to + st->T * dim);
    }
    mr_encoder_pass_backward(pass, gradients);
    return MR_OK;
}

static size_t valid_batches(void *state)
{
    const stage *st = state;
    const size_t share = st->share[MR_FROM_PAIRS];
    const size_t n = (size_t)mr_contrast_data_count(st->data, MR_FROM_PAIRS, true);
    return share > 0 ? n / share : 0;
}

const mr_stage mr_stage_contrastive = {.name = "contrastive",
                                       .open = open_stage,
                                       .close = close_stage,
                                       .forward = forward,
                                       .join = join,
                                       .backward = backward,
                                       .valid_batches = valid_batches};
