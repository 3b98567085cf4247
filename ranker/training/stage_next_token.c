/* stage_next_token.c - language-model pre-training on texts.
 *
 * All texts, each followed by the end-of-sequence token, are one stream of ids, cut into windows of
 * max_tokens; a window is one span and every row is asked for the next id. One window in a hundred,
 * by its number, is the valid split. Windows come in a new order each epoch.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/jsonl.h"
#include "ranker/training/losses.h"
#include "ranker/training/trainer_private.h"

#define VALID_EVERY   100               /* windows */
#define VALID_BATCHES 8                 /* at most: a look, not an exam */
#define MAX_TOKENS    ((size_t)1 << 31) /* of the stream */

typedef struct {
    mr_decoder_f32 *run;
    mr_span *span;
    int32_t *ids, *target;
    const float *out;
    float *d_out;
    mr_pack pack;
} shard;

typedef struct {
    mr_trainer *trainer;
    mr_ids stream;
    size_t window, per_shard;  /* tokens; most windows of a shard */
    uint64_t n_train, n_valid; /* windows */
    shard *shard;
} stage;

/* ---- Data ------------------------------------------------------------------------------------ */

typedef struct {
    stage *st;
    const char *path;
    int32_t eos;
} text_reader;

static mr_status read_text(void *context, const json_t *row, uint64_t line, mr_error *err)
{
    (void)line;
    const text_reader *r = context;
    mr_ids *stream = &r->st->stream;
    mr_json_cursor cur = mr_json_cursor_of(r->path, row, err);
    const char *text = mr_json_string(&cur, "text", NULL, true);
    mr_status status = cur.status;
    if (status == MR_OK)
        status = mr_tokenizer_encode(r->st->trainer->tokenizer, mr_str_of(text), MR_TOKENIZE_PLAIN,
                                     stream, err);
    if (status == MR_OK)
        status = mr_ids_append(stream, &r->eos, 1, err);
    if (status == MR_OK && stream->n > MAX_TOKENS)
        status = MR_FAIL(err, EXHAUSTED, "more than %zu tokens", MAX_TOKENS);
    return status;
}

static mr_status read_file(stage *st, const char *path, int32_t eos, mr_error *err)
{
    text_reader reader = {st, path, eos};
    uint64_t line;
    mr_status status = mr_jsonl_each(path, MR_JSONL_MAX_LINE, read_text, &reader, &line, err);
    return line ? mr_error_prefix(err, status, "%s, line %" PRIu64, path, line) : status;
}

static mr_status read_texts(stage *st, mr_error *err)
{
    const mr_recipe *recipe = st->trainer->recipe;
    const int32_t eos = st->trainer->llm.decoder.config.eos_id;
    if (eos < 0)
        return MR_FAIL(err, INVALID, "the llm's config.json names no eos_token_id to end texts");
    mr_status status = MR_OK;
    for (size_t i = 0; status == MR_OK && i < recipe->data.n_texts; i++)
        status = read_file(st, recipe->data.texts[i], eos, err);
    const uint64_t windows = st->stream.n > 0 ? (st->stream.n - 1) / st->window : 0;
    st->n_valid = windows / VALID_EVERY;
    st->n_train = windows - st->n_valid;
    if (status == MR_OK && st->n_train == 0)
        status = MR_FAIL(err, INVALID,
                         "data.texts gives %zu tokens, fewer than one window of %zu (max_tokens)",
                         st->stream.n, st->window);
    return status;
}

/* Windows VALID_EVERY - 1, 2 VALID_EVERY - 1, ... are the valid split; the others count on. */
static const int32_t *window_at(const stage *st, bool valid, uint64_t i)
{
    const uint64_t number = valid ? i * VALID_EVERY + VALID_EVERY - 1 : i + i / (VALID_EVERY - 1);
    return st->stream.data + number * st->window;
}

/* ---- Passes ---------------------------------------------------------------------------------- */

static void close_stage(void *state)
{
    stage *st = state;
    if (!st)
        return;
    for (size_t s = 0; st->shard && s < st->trainer->n_shards; s++) {
        mr_decoder_free_f32(st->shard[s].run);
        free(st->shard[s].span);
        free(st->shard[s].ids);
        free(st->shard[s].target);
        free(st->shard[s].d_out);
    }
    free(st->shard);
    mr_ids_release(&st->stream);
    free(st);
}

static mr_status open_shard(stage *st, shard *sh, mr_error *err)
{
    mr_trainer *t = st->trainer;
    const size_t rows = st->per_shard * st->window, C = (size_t)t->llm.decoder.config.C;
    sh->span = calloc(st->per_shard, sizeof *sh->span);
    sh->ids = calloc(rows, sizeof *sh->ids);
    sh->target = calloc(rows, sizeof *sh->target);
    sh->d_out = calloc(rows * C, sizeof *sh->d_out);
    if (!sh->span || !sh->ids || !sh->target || !sh->d_out)
        return MR_FAIL(err, NO_MEMORY, "a shard of %zu rows", rows);
    return mr_decoder_new_f32(&sh->run, &t->llm.decoder, &t->weights, t->ops, rows, err);
}

static mr_status open_stage(mr_trainer *t, void **state, uint64_t *examples, mr_error *err)
{
    mr_status status = mr_trainer_need(t, &t->llm, "llm", err);
    if (status != MR_OK)
        return status;
    stage *st = calloc(1, sizeof *st);
    *state = st;
    if (!st)
        return MR_FAIL(err, NO_MEMORY, "the stage");
    st->trainer = t;
    st->window = (size_t)t->recipe->max_tokens;
    st->per_shard = ((size_t)t->recipe->batch + t->n_shards - 1) / t->n_shards;
    if (st->window > (size_t)t->llm.decoder.config.max_positions)
        return MR_FAIL(err, INVALID, "max_tokens is %zu, the llm has %d positions", st->window,
                       t->llm.decoder.config.max_positions);
    status = read_texts(st, err);
    st->shard = calloc(t->n_shards, sizeof *st->shard);
    if (status == MR_OK && !st->shard)
        status = MR_FAIL(err, NO_MEMORY, "%zu shards", t->n_shards);
    for (size_t s = 0; status == MR_OK && s < t->n_shards; s++)
        status = open_shard(st, &st->shard[s], err);
    *examples = st->n_train;
    return status;
}

static mr_status forward(void *state, size_t index, const mr_batch_place *place, mr_error *err)
{
    stage *st = state;
    shard *sh = &st->shard[index];
    const mr_recipe *recipe = st->trainer->recipe;
    const uint64_t batch = (uint64_t)recipe->batch;
    const uint64_t n = place->valid ? st->n_valid : st->n_train;
    size_t windows = 0;
    for (uint64_t e = index; e < batch; e += st->trainer->n_shards) {
        const uint64_t number = place->number * batch + e;
        if (place->valid && number >= n)
            break;
        const uint64_t i =
            place->valid ? number : mr_shuffle_at(recipe->seed, number / n, n, number % n);
        const int32_t *from = window_at(st, place->valid, i);
        const size_t at = windows * st->window;
        memcpy(sh->ids + at, from, st->window * sizeof *from);
        memcpy(sh->target + at, from + 1, st->window * sizeof *from);
        sh->span[windows++] = (mr_span){at, st->window, -1};
    }
    sh->pack = (mr_pack){sh->ids, windows * st->window, sh->span, windows, NULL};
    if (windows == 0)
        return MR_OK;
    size_t vectors, wanted;
    mr_status status =
        mr_pack_check(&sh->pack, &st->trainer->llm.decoder.config, &vectors, &wanted, err);
    if (status == MR_OK)
        sh->out = mr_decoder_forward_f32(sh->run, st->trainer->values, &sh->pack, NULL);
    return status;
}

static mr_status backward(void *state, size_t index, const mr_batch_place *place, float *gradients,
                          mr_shard_report *report, mr_error *err)
{
    (void)err;
    stage *st = state;
    shard *sh = &st->shard[index];
    const size_t rows = sh->pack.rows;
    uint64_t windows = (uint64_t)st->trainer->recipe->batch;
    if (place->valid) {
        const uint64_t left = st->n_valid - place->number * windows;
        windows = left < windows ? left : windows;
    }
    const double share = 1 / ((double)windows * (double)st->window);
    const float *values = st->trainer->values;
    report->tokens = rows;
    report->loss =
        share * mr_decoder_next_token_f32(sh->run, values, sh->out, sh->target, rows, (float)share,
                                          gradients ? sh->d_out : NULL, gradients);
    if (gradients && rows > 0)
        mr_decoder_backward_f32(sh->run, values, sh->d_out, gradients, NULL);
    return MR_OK;
}

static size_t valid_batches(void *state)
{
    const stage *st = state;
    const size_t batch = (size_t)st->trainer->recipe->batch;
    const size_t n = ((size_t)st->n_valid + batch - 1) / batch;
    return n < VALID_BATCHES ? n : VALID_BATCHES;
}

const mr_stage mr_stage_next_token = {.open = open_stage,
                                      .close = close_stage,
                                      .forward = forward,
                                      .backward = backward,
                                      .valid_batches = valid_batches};
