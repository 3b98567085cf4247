/* stage_user.c - pre-training of the user encoder (User-LLM's first stage, arXiv 2402.13598,
 * without its order): an item is left out of a person's basket, and the user that the rest gives is
 * to be nearer to it than to what others picked.
 *
 *   u = mean of the user's K tokens, v = mean of the item's T tokens, both at length 1
 *   loss = mean over the batch of -log softmax over its targets of u . v / temperature
 *
 * Negatives are the other examples' targets, so picks of other people, each as likely as it is
 * picked; what is in the person's own basket is none. An epoch leaves out every pick once. The
 * valid split is the people of fold valid, one item each.
 *
 * While the item encoder is frozen its tokens are computed once; else each shard encodes the items
 * of its examples, and the gradient goes on into it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "ranker/training/history_draw.h"
#include "ranker/training/item_batch.h"
#include "ranker/training/similarity.h"

#define VALID_BATCHES 32

typedef struct {
    const mr_lists_basket *basket;
    uint32_t target;
} example;

typedef struct {
    mr_arena arena;
    mr_history_draw histories;
    uint32_t *rest;    /* [n_items] */
    uint32_t *history; /* items of all users, one after the other */
    size_t *rows_of;   /* [users] history vectors of each */
    size_t n_users, n_history;
    mr_item_batch items; /* of an encoder that is trained */
    mr_item_tokens tokens;
    mr_user_train_f32 *run;
    float *in, *d_in; /* [history vectors][dim] */
    float *d_out;     /* [users][K][dim] */
    float *d_target;  /* [T][dim] */
} shard;

typedef struct {
    mr_trainer *trainer;
    mr_lists lists;
    mr_text_table texts;
    float *table; /* [n_items][T][dim] of a frozen encoder, or NULL */
    size_t T, K, dim;
    double temperature;
    bool joint;
    shard *shard;

    /* The batch at hand, over all shards. */
    size_t n;
    example *example;
    mr_similarity similarity; /* a: people, b: their targets */
    double loss;
} stage;

/* ---- Opening --------------------------------------------------------------------------------- */

static void close_shard(shard *sh)
{
    mr_item_batch_close(&sh->items);
    mr_user_train_free_f32(sh->run);
    mr_arena_done(&sh->arena);
}

static void close_stage(void *state)
{
    stage *st = state;
    if (!st)
        return;
    for (size_t s = 0; st->shard && s < st->trainer->n_shards; s++)
        close_shard(&st->shard[s]);
    free(st->shard);
    free(st->table);
    free(st->example);
    mr_similarity_close(&st->similarity);
    mr_text_table_release(&st->texts);
    mr_lists_close(&st->lists);
    free(st);
}

static mr_status open_shard(stage *st, shard *sh, mr_error *err)
{
    mr_trainer *t = st->trainer;
    const size_t users = ((size_t)t->recipe->batch + t->n_shards - 1) / t->n_shards;
    if (!mr_history_draw_open(&sh->histories, t, &st->lists, &sh->arena))
        return MR_FAIL(err, NO_MEMORY, "a shard");
    const size_t items = users * sh->histories.most, rows = items * st->T;
    sh->rest = mr_arena_array(&sh->arena, uint32_t, sh->histories.room);
    sh->history = mr_arena_array(&sh->arena, uint32_t, items);
    sh->rows_of = mr_arena_array(&sh->arena, size_t, users);
    sh->in = mr_arena_array(&sh->arena, float, rows * st->dim);
    sh->d_in = mr_arena_array(&sh->arena, float, rows * st->dim);
    sh->d_out = mr_arena_array(&sh->arena, float, users * st->K * st->dim);
    sh->d_target = mr_arena_array(&sh->arena, float, st->T * st->dim);
    if (!sh->rest || !sh->history || !sh->rows_of || !sh->in || !sh->d_in || !sh->d_out ||
        !sh->d_target)
        return MR_FAIL(err, NO_MEMORY, "a shard of %zu users", users);
    mr_status status =
        mr_user_train_new_f32(&sh->run, &t->user.user, &t->weights, t->ops, rows, users, err);
    if (status == MR_OK && st->joint)
        status = mr_item_batch_open(&sh->items, t, &st->texts, items + users, err);
    return status;
}

static mr_status check_parts(const mr_trainer *t, mr_error *err)
{
    mr_status status = mr_trainer_need(t, &t->encoder, "encoder", err);
    if (status == MR_OK)
        status = mr_trainer_need(t, &t->user, "user", err);
    const size_t C = t->user.user.config.C, dim = (size_t)t->encoder.decoder.config.C;
    if (status == MR_OK && C != dim)
        status = MR_FAIL(err, MISMATCH,
                         "the width of part 'user' is %zu, expected that of part 'encoder', %zu: "
                         "stage user compares the two",
                         C, dim);
    if (status == MR_OK && t->recipe->batch < 2)
        status = MR_FAIL(err, INVALID,
                         "batch is 1, expected at least 2: what others picked are the negatives");
    return status;
}

static mr_status check_people(const stage *st, mr_error *err)
{
    if (st->lists.n_baskets < 2)
        return MR_FAIL(err, INVALID,
                       "'%s' has %zu people of fold train with two items that may be trained on, "
                       "expected at least 2",
                       st->trainer->recipe->data.users, st->lists.n_baskets);
    return MR_OK;
}

static mr_status allocate(stage *st, mr_error *err)
{
    const mr_trainer *t = st->trainer;
    const size_t batch = (size_t)t->recipe->batch;
    st->example = calloc(batch, sizeof *st->example);
    st->shard = calloc(t->n_shards, sizeof *st->shard);
    if (!st->example || !st->shard)
        return MR_FAIL(err, NO_MEMORY, "a batch of %zu people", batch);
    mr_status status = mr_similarity_open(&st->similarity, t->ops, batch, st->dim, err);
    for (size_t s = 0; status == MR_OK && s < t->n_shards; s++)
        status = open_shard(st, &st->shard[s], err);
    return status;
}

static mr_status open_stage(mr_trainer *t, void **state, uint64_t *examples, mr_error *err)
{
    mr_status status = check_parts(t, err);
    if (status != MR_OK)
        return status;
    stage *st = calloc(1, sizeof *st);
    *state = st;
    if (!st)
        return MR_FAIL(err, NO_MEMORY, "the stage");
    st->trainer = t;
    st->T = (size_t)t->spec.item_tokens;
    st->K = t->user.user.config.latents;
    st->dim = t->user.user.config.C;
    st->temperature = t->recipe->loss[0].temperature;
    st->joint = mr_trainer_trains(t, &t->encoder);
    status = mr_lists_open(&st->lists, t->recipe, err);
    if (status == MR_OK)
        status = check_people(st, err);
    if (status == MR_OK)
        status = mr_item_texts_add(&st->texts, t, &st->lists, t->spec.item_max_tokens, err);
    if (status == MR_OK && !st->joint)
        status = mr_item_table_new(&st->table, t, &st->texts, err);
    if (status == MR_OK)
        status = allocate(st, err);
    if (status == MR_OK)
        *examples = mr_lists_n_picks(&st->lists);
    return status;
}

/* ---- A batch --------------------------------------------------------------------------------- */

static size_t people_of(const stage *st, const mr_batch_place *place)
{
    const size_t batch = (size_t)st->trainer->recipe->batch;
    if (!place->valid)
        return batch;
    const size_t left = st->lists.n_valid - (size_t)place->number * batch;
    return left < batch ? left : batch;
}

/* Example i of all epochs: a pick, in the order of its epoch; or of the valid split: a person,
 * whose item left out is always the same. */
static example example_at(const stage *st, uint64_t i, bool valid, mr_rng *rng)
{
    if (valid) {
        const mr_lists_basket *basket = &st->lists.valid[i];
        return (example){basket, basket->item[mr_rng_below(rng, basket->n)]};
    }
    const uint64_t n = mr_lists_n_picks(&st->lists);
    example x;
    x.target = mr_lists_pick(
        &st->lists, (size_t)mr_shuffle_at(st->trainer->recipe->seed, i / n, n, i % n), &x.basket);
    return x;
}

/* What a person is known by: the basket without the target. */
static void add_user(shard *sh, const example *x, size_t T, bool valid, mr_rng *rng)
{
    const bool sequence = sh->histories.order == MR_HISTORY_SEQUENCE;
    const size_t rest =
        mr_lists_fellows(x->basket, x->target, sequence, sh->histories.room, sh->rest);
    const size_t chosen = mr_history_draw_choose(&sh->histories, sh->rest, rest, valid, rng,
                                                 sh->history + sh->n_history);
    sh->rows_of[sh->n_users++] = chosen * T;
    sh->n_history += chosen;
}

static mr_status encode_items(const stage *st, shard *sh, size_t index, mr_error *err)
{
    mr_status status = MR_OK;
    mr_item_batch_begin(&sh->items);
    for (size_t i = 0; status == MR_OK && i < sh->n_history; i++)
        status = mr_item_batch_add(&sh->items, sh->history[i], err);
    for (size_t u = 0; status == MR_OK && u < sh->n_users; u++)
        status = mr_item_batch_add(&sh->items,
                                   st->example[index + u * st->trainer->n_shards].target, err);
    if (status == MR_OK)
        sh->tokens = mr_item_batch_forward(&sh->items);
    return status;
}

static mr_status forward(void *state, size_t index, const mr_batch_place *place, mr_error *err)
{
    stage *st = state;
    shard *sh = &st->shard[index];
    const mr_trainer *t = st->trainer;
    const size_t n = people_of(st, place), width = st->T * st->dim;
    sh->n_users = sh->n_history = 0;
    for (size_t e = index; e < n; e += t->n_shards) {
        const uint64_t i = place->number * (uint64_t)t->recipe->batch + e;
        mr_rng rng =
            mr_rng_seed(t->recipe->seed ^ (2 * i + place->valid) * UINT64_C(0x9E3779B97F4A7C15));
        st->example[e] = example_at(st, i, place->valid, &rng);
        add_user(sh, &st->example[e], st->T, place->valid, &rng);
    }
    if (sh->n_users == 0)
        return MR_OK;
    sh->tokens = (mr_item_tokens){.tokens = st->table, .T = st->T, .dim = st->dim};
    mr_status status = st->joint ? encode_items(st, sh, index, err) : MR_OK;
    if (status != MR_OK)
        return status;
    for (size_t i = 0; i < sh->n_history; i++)
        memcpy(sh->in + i * width, mr_item_tokens_of(&sh->tokens, sh->history[i]),
               width * sizeof *sh->in);
    mr_similarity *s = &st->similarity;
    const float *users =
        mr_user_train_forward_f32(sh->run, t->values, sh->in, sh->rows_of, sh->n_users);
    for (size_t e = index; e < n; e += t->n_shards, users += st->K * st->dim) {
        mr_pool_tokens(t->ops, users, st->K, st->dim, s->a + e * st->dim, &s->a_length[e]);
        mr_pool_tokens(t->ops, mr_item_tokens_of(&sh->tokens, st->example[e].target), st->T,
                       st->dim, s->b + e * st->dim, &s->b_length[e]);
    }
    return MR_OK;
}

/* Whether j's target is in i's own basket: theirs too, though it was not left out. */
static bool related(const void *context, size_t i, size_t j)
{
    const stage *st = context;
    return mr_lists_holds(st->example[i].basket, st->example[j].target);
}

static mr_status join(void *state, const mr_batch_place *place, mr_error *err)
{
    (void)err;
    stage *st = state;
    st->n = people_of(st, place);
    const mr_similarity_pairs pairs = {
        .n = st->n, .temperature = st->temperature, .weight = 1, .related = related, .context = st};
    st->loss = mr_similarity_loss(&st->similarity, &pairs);
    return MR_OK;
}

static mr_status backward(void *state, size_t index, const mr_batch_place *place, float *gradients,
                          mr_shard_report *report, mr_error *err)
{
    (void)place;
    (void)err;
    stage *st = state;
    shard *sh = &st->shard[index];
    const mr_trainer *t = st->trainer;
    const mr_similarity *s = &st->similarity;
    const size_t dim = st->dim, width = st->T * dim;
    report->loss = index == 0 ? st->loss : 0;
    report->tokens = sh->n_history * st->T + (st->joint ? mr_item_batch_rows(&sh->items) : 0);
    if (!gradients || sh->n_users == 0)
        return MR_OK;
    float *to = sh->d_out;
    for (size_t e = index; e < st->n; e += t->n_shards, to += st->K * dim)
        mr_pool_tokens_back(t->ops, s->a + e * dim, s->d_a + e * dim, s->a_length[e], st->K, dim,
                            to);
    mr_user_train_backward_f32(sh->run, t->values, sh->d_out, gradients,
                               st->joint ? sh->d_in : NULL);
    if (!st->joint)
        return MR_OK;
    float *d_tokens = mr_item_batch_gradient(&sh->items);
    for (size_t i = 0; i < sh->n_history; i++)
        t->ops->add(d_tokens + sh->items.place[sh->history[i]] * width, sh->d_in + i * width,
                    width);
    for (size_t e = index; e < st->n; e += t->n_shards) {
        mr_pool_tokens_back(t->ops, s->b + e * dim, s->d_b + e * dim, s->b_length[e], st->T, dim,
                            sh->d_target);
        t->ops->add(d_tokens + sh->items.place[st->example[e].target] * width, sh->d_target, width);
    }
    mr_item_batch_backward(&sh->items, gradients);
    return MR_OK;
}

/* Whole batches, so that there are as many negatives as in training; a smaller one when there are
 * too few people for that. */
static size_t valid_batches(void *state)
{
    const stage *st = state;
    const size_t n = st->lists.n_valid / (size_t)st->trainer->recipe->batch;
    if (n == 0)
        return st->lists.n_valid > 1 ? 1 : 0;
    return n < VALID_BATCHES ? n : VALID_BATCHES;
}

const mr_stage mr_stage_user = {.open = open_stage,
                                .close = close_stage,
                                .forward = forward,
                                .join = join,
                                .backward = backward,
                                .valid_batches = valid_batches};
