/* stage_contrastive.c - InfoNCE for the item encoder (van den Oord et al. 2018), both directions.
 *
 * A text's vector is the mean of its T embedding tokens at length 1. A batch holds a block of each
 * source (contrast_data.h) in the proportion of their weights; within a block logits are a . b /
 * temperature, without what belongs together but is no pair of the batch. Shards encode texts of
 * their own; the losses are joined over all of them.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "ranker/training/contrast_data.h"
#include "ranker/training/encoder_pass.h"
#include "ranker/training/similarity.h"

#define MAX_TEXT   1024 /* tokens; a longer text loses none */
#define FEW_TOKENS 12

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
    mr_similarity similarity;
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
    mr_similarity_close(&st->similarity);
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
    if (weight[MR_FROM_LISTS] > 0 && mr_contrast_data_count(st->data, MR_FROM_LISTS, false) == 0)
        return MR_FAIL(err, INVALID, "no row of split train in data.lists has a query");
    for (int s = 0; s < MR_FROM_COUNT; s++)
        total += weight[s];
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
    const size_t batch = (size_t)t->recipe->batch;
    st->example = calloc(batch, sizeof *st->example);
    st->pass = calloc(t->n_shards, sizeof *st->pass);
    if (!st->example || !st->pass)
        return MR_FAIL(err, NO_MEMORY, "a batch of %zu pairs", batch);
    const size_t texts = 2 * ((batch + t->n_shards - 1) / t->n_shards);
    mr_status status = mr_similarity_open(&st->similarity, t->ops, batch, st->dim, err);
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

/* With some of its tokens left out where there is a generator; never the last T, which are pooled,
 * and not from texts of a few words. */
static mr_status add_text(const stage *st, mr_encoder_pass *pass, size_t text, mr_rng *rng,
                          mr_error *err)
{
    const double dropout = st->trainer->recipe->token_dropout;
    size_t n, kept = 0;
    const int32_t *ids = mr_text_table_at(mr_contrast_data_texts(st->data), text, &n);
    int32_t some[MAX_TEXT];
    if (!rng || dropout <= 0 || n > MAX_TEXT || n < st->T + FEW_TOKENS)
        return mr_encoder_pass_add(pass, ids, n, err);
    for (size_t i = 0; i < n; i++)
        if (i + st->T >= n || mr_rng_uniform(rng) >= dropout)
            some[kept++] = ids[i];
    return mr_encoder_pass_add(pass, some, kept, err);
}

static mr_status forward(void *state, size_t index, const mr_batch_place *place, mr_error *err)
{
    stage *st = state;
    mr_encoder_pass *pass = &st->pass[index];
    const size_t shards = st->trainer->n_shards, batch = (size_t)st->trainer->recipe->batch;
    block blocks[MR_FROM_COUNT];
    size_t n_blocks;
    const size_t n = plan(st, place, blocks, &n_blocks);
    mr_encoder_pass_clear(pass);
    mr_status status = MR_OK;
    for (size_t e = index; status == MR_OK && e < n; e += shards) {
        mr_rng rng = mr_rng_seed(st->trainer->recipe->seed ^
                                 (place->number * batch + e + 1) * UINT64_C(0xD1B54A32D192ED03));
        st->example[e] = example_at(st, blocks, e, place->valid);
        status = add_text(st, pass, st->example[e].a, place->valid ? NULL : &rng, err);
        if (status == MR_OK)
            status = add_text(st, pass, st->example[e].b, place->valid ? NULL : &rng, err);
    }
    if (status != MR_OK || pass->pack.n_spans == 0)
        return status;
    const mr_ops_f32 *ops = st->trainer->ops;
    mr_similarity *s = &st->similarity;
    const float *tokens = mr_encoder_pass_forward(pass);
    for (size_t e = index; e < n; e += shards, tokens += 2 * st->T * st->dim) {
        mr_pool_tokens(ops, tokens, st->T, st->dim, s->a + e * st->dim, &s->a_length[e]);
        mr_pool_tokens(ops, tokens + st->T * st->dim, st->T, st->dim, s->b + e * st->dim,
                       &s->b_length[e]);
    }
    return MR_OK;
}

typedef struct {
    const stage *st;
    const block *bl;
} block_of;

static bool related(const void *context, size_t i, size_t j)
{
    const block_of *c = context;
    const mr_contrast_example *first = &c->st->example[c->bl->begin];
    return mr_contrast_data_related(c->st->data, c->bl->source, &first[i], &first[j]);
}

/* Both directions of one block; weight: its share of the batch. */
static double block_loss(stage *st, const block *bl, float weight)
{
    const block_of context = {st, bl};
    const mr_similarity_pairs pairs = {.first = bl->begin,
                                       .n = bl->n,
                                       .temperature = st->temperature,
                                       .both = true,
                                       .weight = weight,
                                       .related = related,
                                       .context = &context};
    return mr_similarity_loss(&st->similarity, &pairs);
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
    const mr_similarity *s = &st->similarity;
    const size_t dim = st->dim;
    report->loss = index == 0 ? st->loss : 0;
    report->tokens = pass->pack.rows;
    if (!gradients || pass->pack.n_spans == 0)
        return MR_OK;
    const mr_ops_f32 *ops = st->trainer->ops;
    float *to = pass->d_out;
    for (size_t e = index; e < st->n; e += st->trainer->n_shards, to += 2 * st->T * dim) {
        mr_pool_tokens_back(ops, s->a + e * dim, s->d_a + e * dim, s->a_length[e], st->T, dim, to);
        mr_pool_tokens_back(ops, s->b + e * dim, s->d_b + e * dim, s->b_length[e], st->T, dim,
                            to + st->T * dim);
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

const mr_stage mr_stage_contrastive = {.open = open_stage,
                                       .close = close_stage,
                                       .forward = forward,
                                       .join = join,
                                       .backward = backward,
                                       .valid_batches = valid_batches};
