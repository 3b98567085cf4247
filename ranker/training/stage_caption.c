/* stage_caption.c - LLaVA's training (arXiv 2310.03744): the next token of a text that stands after
 * a picture.
 *
 * Stage 1 of the paper freezes tower and language model and learns the projector; stage 2 frees the
 * language model: two recipes of this one. A picture's tokens (vision.h) go through the projector
 * into the rows of the prompt that stand for them; only the text's tokens are asked for. The mean
 * runs over the tokens of a batch, as in the paper's code. One row in 50, by its number, is the
 * valid split.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "ranker/training/caption_data.h"

#define VALID_EVERY   50
#define VALID_BATCHES 8

typedef struct {
    mr_decoder_f32 *run;
    mr_projector_train_f32 *projector;
    mr_vision_train_f32 *vision; /* NULL: frozen */
    mr_pack pack;
    int32_t *ids, *target; /* [rows] */
    bool *wanted;
    mr_span *span;
    float *pixels; /* [pictures][3][S][S] of a tower that is trained */
    float *raw;    /* [pictures][tokens][dim] of a frozen one */
    float *d_raw, *d_vectors, *d_out;
    const float *out;
    size_t n_wanted, texts_of_batch; /* tokens asked for: here, and in the whole batch */
} shard;

typedef struct {
    mr_trainer *trainer;
    mr_captions data;
    size_t tokens, dim, C; /* of a picture; of the tower; of the llm */
    size_t pixels;
    size_t per_shard;
    bool trains_vision;
    uint64_t n_train, n_valid;
    shard *shard;
} stage;

/* ---- Opening --------------------------------------------------------------------------------- */

static void close_stage(void *state)
{
    stage *st = state;
    if (!st)
        return;
    for (size_t s = 0; st->shard && s < st->trainer->n_shards; s++) {
        shard *sh = &st->shard[s];
        mr_decoder_free_f32(sh->run);
        mr_projector_train_free_f32(sh->projector);
        mr_vision_train_free_f32(sh->vision);
        free(sh->ids);
        free(sh->target);
        free(sh->wanted);
        free(sh->span);
        free(sh->pixels);
        free(sh->raw);
        free(sh->d_raw);
        free(sh->d_vectors);
        free(sh->d_out);
    }
    free(st->shard);
    mr_captions_close(&st->data);
    free(st);
}

static mr_status open_shard(stage *st, shard *sh, mr_error *err)
{
    mr_trainer *t = st->trainer;
    const size_t n = st->per_shard, vectors = n * st->tokens;
    const size_t rows = n * (st->tokens + st->data.longest);
    sh->ids = calloc(rows, sizeof *sh->ids);
    sh->target = calloc(rows, sizeof *sh->target);
    sh->wanted = calloc(rows, sizeof *sh->wanted);
    sh->span = calloc(n, sizeof *sh->span);
    sh->pixels = calloc(st->trains_vision ? n * st->pixels : 1, sizeof(float));
    sh->raw = calloc(vectors * st->dim, sizeof(float));
    sh->d_raw = calloc(vectors * st->dim, sizeof(float));
    sh->d_vectors = calloc(vectors * st->C, sizeof(float));
    sh->d_out = calloc(n * st->data.longest * st->C, sizeof(float));
    if (!sh->ids || !sh->target || !sh->wanted || !sh->span || !sh->pixels || !sh->raw ||
        !sh->d_raw || !sh->d_vectors || !sh->d_out)
        return MR_FAIL(err, NO_MEMORY, "a shard of %zu pictures and %zu rows", n, rows);
    mr_status status =
        mr_decoder_new_f32(&sh->run, &t->llm.decoder, &t->weights, t->ops, rows, err);
    if (status == MR_OK)
        status = mr_projector_train_new_f32(&sh->projector, &t->image_projector.projector,
                                            &t->weights, t->ops, vectors, err);
    if (status == MR_OK && st->trains_vision)
        status =
            mr_vision_train_new_f32(&sh->vision, &t->vision.vision, &t->weights, t->ops, n, err);
    return status;
}

static mr_status check_parts(const mr_trainer *t, mr_error *err)
{
    mr_status status = mr_trainer_need(t, &t->llm, "llm", err);
    if (status == MR_OK)
        status = mr_trainer_need(t, &t->vision, "vision", err);
    if (status == MR_OK)
        status = mr_trainer_need(t, &t->image_projector, "image_projector", err);
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
    const mr_vision_shape *vision = &t->vision.vision.shape;
    const size_t side = (size_t)vision->config.image_size;
    const size_t positions = (size_t)t->llm.decoder.config.max_positions;
    st->trainer = t;
    st->tokens = (size_t)vision->tokens;
    st->dim = (size_t)vision->config.C;
    st->C = (size_t)t->llm.decoder.config.C;
    st->pixels = 3 * side * side;
    st->per_shard = ((size_t)t->recipe->batch + t->n_shards - 1) / t->n_shards;
    st->trains_vision = mr_trainer_trains(t, &t->vision);
    status = mr_captions_open(&st->data, t, err);
    if (status == MR_OK && st->tokens + st->data.longest > positions)
        status = MR_FAIL(err, INVALID,
                         "a picture of %zu tokens and a text of %zu are more than the llm's %zu "
                         "positions; lower max_tokens, or 'tokens' of part 'vision'",
                         st->tokens, st->data.longest, positions);
    t->passed_over = st->data.passed_over;
    st->n_valid = st->data.n / VALID_EVERY;
    st->n_train = st->data.n - st->n_valid;
    st->shard = calloc(t->n_shards, sizeof *st->shard);
    if (status == MR_OK && !st->shard)
        status = MR_FAIL(err, NO_MEMORY, "%zu shards", t->n_shards);
    for (size_t s = 0; status == MR_OK && s < t->n_shards; s++)
        status = open_shard(st, &st->shard[s], err);
    *examples = st->n_train;
    return status;
}

/* ---- Passes ---------------------------------------------------------------------------------- */

static uint64_t captions_of(const stage *st, const mr_batch_place *place)
{
    const uint64_t batch = (uint64_t)st->trainer->recipe->batch;
    if (!place->valid)
        return batch;
    const uint64_t left = st->n_valid - place->number * batch;
    return left < batch ? left : batch;
}

/* Rows VALID_EVERY - 1, 2 VALID_EVERY - 1, ... are the valid split; the others count on. */
static const mr_caption *caption_at(const stage *st, const mr_batch_place *place, uint64_t e)
{
    const mr_recipe *recipe = st->trainer->recipe;
    const uint64_t number = place->number * (uint64_t)recipe->batch + e, n = st->n_train;
    if (place->valid)
        return &st->data.caption[number * VALID_EVERY + VALID_EVERY - 1];
    const uint64_t i = mr_shuffle_at(recipe->seed, number / n, n, number % n);
    return &st->data.caption[i + i / (VALID_EVERY - 1)];
}

/* Appends a row's prompt, picture and text. What precedes each of the text's tokens is asked for
 * it.
 */
static void add_caption(const stage *st, shard *sh, const mr_caption *c)
{
    const int32_t *ids = st->data.ids.data + c->begin;
    const size_t at = sh->pack.rows, first = c->before + st->tokens;
    const size_t n = first + c->after + c->text - 1; /* nothing is asked of the last one */
    int32_t *to = sh->ids + at;
    memcpy(to, ids, c->before * sizeof *ids);
    for (size_t i = 0; i < st->tokens; i++)
        to[c->before + i] = MR_ROW_VECTOR;
    memcpy(to + first, ids + c->before, (n - first) * sizeof *ids);
    memset(sh->wanted + at, 0, n * sizeof *sh->wanted);
    for (size_t i = 0; i < c->text; i++) {
        sh->wanted[at + n - c->text + i] = true;
        sh->target[sh->n_wanted++] = ids[c->before + c->after + i];
    }
    sh->span[sh->pack.n_spans++] = (mr_span){at, n, -1};
    sh->pack.rows += n;
}

static mr_status forward(void *state, size_t index, const mr_batch_place *place, mr_error *err)
{
    stage *st = state;
    shard *sh = &st->shard[index];
    const mr_trainer *t = st->trainer;
    const uint64_t n = captions_of(st, place);
    mr_status status = MR_OK;
    sh->pack = (mr_pack){.ids = sh->ids, .span = sh->span, .wanted = sh->wanted};
    sh->n_wanted = sh->texts_of_batch = 0;
    for (uint64_t e = 0; status == MR_OK && e < n; e++) {
        const mr_caption *c = caption_at(st, place, e);
        const size_t picture = sh->pack.n_spans;
        sh->texts_of_batch += c->text;
        if (e % t->n_shards != index)
            continue;
        add_caption(st, sh, c);
        if (st->trains_vision)
            status =
                mr_captions_pixels(&st->data, c->picture, sh->pixels + picture * st->pixels, err);
        else
            memcpy(sh->raw + picture * st->data.width,
                   st->data.features + c->picture * st->data.width,
                   st->data.width * sizeof *sh->raw);
    }
    if (status != MR_OK || sh->pack.n_spans == 0)
        return status;
    const size_t pictures = sh->pack.n_spans;
    const float *raw = sh->raw;
    if (st->trains_vision)
        raw = mr_vision_train_forward_f32(sh->vision, t->values, sh->pixels, pictures);
    const float *vectors =
        mr_projector_train_forward_f32(sh->projector, t->values, raw, pictures * st->tokens);
    size_t taken, wanted;
    status = mr_pack_check(&sh->pack, &t->llm.decoder.config, &taken, &wanted, err);
    if (status == MR_OK && (taken != pictures * st->tokens || wanted != sh->n_wanted))
        status = MR_FAIL(err, INTERNAL, "%zu vectors and %zu texts, expected %zu and %zu", taken,
                         wanted, pictures * st->tokens, sh->n_wanted);
    if (status == MR_OK)
        sh->out = mr_decoder_forward_f32(sh->run, t->values, &sh->pack, vectors);
    return status;
}

static mr_status backward(void *state, size_t index, const mr_batch_place *place, float *gradients,
                          mr_shard_report *report, mr_error *err)
{
    (void)place;
    (void)err;
    stage *st = state;
    shard *sh = &st->shard[index];
    const mr_trainer *t = st->trainer;
    if (sh->pack.n_spans == 0)
        return MR_OK;
    const double share = 1 / (double)sh->texts_of_batch;
    const bool below = st->trains_vision || mr_trainer_trains(t, &t->image_projector);
    report->tokens = sh->pack.rows;
    report->loss =
        share * mr_decoder_next_token_f32(sh->run, t->values, sh->out, sh->target, sh->n_wanted,
                                          (float)share, gradients ? sh->d_out : NULL, gradients);
    if (!gradients)
        return MR_OK;
    mr_decoder_backward_f32(sh->run, t->values, sh->d_out, gradients, below ? sh->d_vectors : NULL);
    if (!below)
        return MR_OK;
    mr_projector_train_backward_f32(sh->projector, t->values, sh->d_vectors, gradients,
                                    st->trains_vision ? sh->d_raw : NULL);
    if (st->trains_vision)
        mr_vision_train_backward_f32(sh->vision, t->values, sh->d_raw, gradients);
    return MR_OK;
}

static size_t valid_batches(void *state)
{
    const stage *st = state;
    const size_t batch = (size_t)st->trainer->recipe->batch;
    const size_t n = ((size_t)st->n_valid + batch - 1) / batch;
    return n < VALID_BATCHES ? n : VALID_BATCHES;
}

const mr_stage mr_stage_caption = {.open = open_stage,
                                   .close = close_stage,
                                   .forward = forward,
                                   .backward = backward,
                                   .valid_batches = valid_batches};
