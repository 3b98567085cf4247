/* text_encoder.c - see text_encoder.h.
 *
 * Every text is one suffix over an empty timeline: it attends to itself alone and its positions
 * start at 0, so that a batch needs no padding and no mask. Texts fill a batch in their order until
 * the next one does not fit. With the scoring kernels the batch does not show in the result.
 * SPDX-License-Identifier: Apache-2.0 */
#include "encoders/text_encoder.h"

#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/file.h"
#include "engine/session.h"
#include "engine/tokenizer.h"

#define DEFAULT_BATCH_TOKENS 4096
#define LONGEST_TEXT         32768
#define LARGEST_BATCH        ((size_t)1 << 20)

struct mr_text_encoder {
    mr_tokenizer *tokenizer;
    mr_template *tmpl;
    mr_model *model;
    mr_session *session;
    size_t dim, T, max_tokens, max_rows;
    bool append_eos;
    mr_prompt prompt; /* of one item */

    /* The batch at hand: texts whose ids lie one after another. */
    int32_t *ids;     /* [max_rows] */
    mr_input *inputs; /* [max_rows]: a text has at least one position */
    size_t *item;     /* [max_rows], the index of each text */
    size_t n_ids, n_texts;
    float *hidden; /* [max_rows, dim] */
};

static mr_status check_options(const mr_text_encoder_options *opt, mr_error *err)
{
    if (opt->tokens < 1 || opt->tokens > MR_TEXT_ENCODER_MAX_TOKENS)
        return MR_FAIL(err, INVALID, "tokens is %d, expected 1 to %d", opt->tokens,
                       MR_TEXT_ENCODER_MAX_TOKENS);
    if (opt->max_tokens < 2 || opt->max_tokens > LONGEST_TEXT)
        return MR_FAIL(err, INVALID, "max_tokens is %d, expected 2 to %d", opt->max_tokens,
                       LONGEST_TEXT);
    if (opt->tokens > opt->max_tokens)
        return MR_FAIL(err, INVALID,
                       "tokens is %d and max_tokens %d: no text is long enough; raise max_tokens",
                       opt->tokens, opt->max_tokens);
    if (opt->batch_tokens > LARGEST_BATCH)
        return MR_FAIL(err, INVALID, "batch_tokens is %zu, expected at most %zu", opt->batch_tokens,
                       LARGEST_BATCH);
    return MR_OK;
}

static mr_status open_tokenizer(mr_text_encoder *encoder, const char *folder, mr_error *err)
{
    mr_arena arena = {0};
    mr_status status = MR_OK;

    const char *path = mr_path_join(&arena, folder, "tokenizer.json");
    if (!path)
        status = MR_FAIL(err, NO_MEMORY, "no memory for a path in '%s'", folder);
    else if (!mr_file_is_folder(folder))
        status = MR_FAIL(err, NOT_FOUND,
                         "there is no folder '%s'; expected one with tokenizer.json, config.json "
                         "and model.safetensors",
                         folder);
    else if (!mr_file_exists(path))
        status = MR_FAIL(err, NOT_FOUND,
                         "'%s' is missing; an encoder needs the tokenizer that its model was "
                         "trained with",
                         path);
    else
        status = mr_tokenizer_open(&encoder->tokenizer, path, err);
    mr_arena_done(&arena);
    return status;
}

static mr_status open_model(mr_text_encoder *encoder, const char *folder,
                            const mr_text_encoder_options *opt, mr_error *err)
{
    const mr_model_options model_options = {
        .gemm = opt->gemm, .kernels = opt->kernels, .headless = true};
    mr_status status = mr_model_open(&encoder->model, folder, &model_options, err);
    if (status != MR_OK)
        return status;

    const mr_model_config *config = &encoder->model->config;
    const int32_t ids = mr_tokenizer_vocab_size(encoder->tokenizer);
    if (ids > config->V)
        return MR_FAIL(err, MISMATCH,
                       "tokenizer.json has ids up to %d, the model has embeddings for 0 to %d; are "
                       "the files of two models mixed?",
                       (int)ids - 1, (int)config->V - 1);
    if (opt->max_tokens > config->max_positions)
        return MR_FAIL(err, MISMATCH, "max_tokens is %d, config.json allows %d positions",
                       opt->max_tokens, config->max_positions);
    if (opt->append_eos && (config->eos_id < 0 || config->eos_id >= config->V))
        return MR_FAIL(err, MISMATCH,
                       "append_eos is set and config.json %s; name the token in the text template "
                       "instead: {\"token\": ...}",
                       config->eos_id < 0 ? "has no eos_token_id"
                                          : "has an eos_token_id outside the vocabulary");
    encoder->dim = (size_t)config->C;
    return MR_OK;
}

static mr_status compile_text(mr_text_encoder *encoder, const json_t *text, mr_error *err)
{
    json_t *owned = NULL;
    if (!text) {
        owned = json_pack("[{ss}]", "field", "text");
        if (!owned)
            return MR_FAIL(err, NO_MEMORY, "no memory for the default text template");
        text = owned;
    }
    mr_status status = mr_template_compile(&encoder->tmpl, "text", text, encoder->tokenizer, err);
    for (int slot = 0; status == MR_OK && slot < MR_SLOT_COUNT; slot++) {
        if (mr_template_uses_slot(encoder->tmpl, (mr_slot_kind)slot))
            status = MR_FAIL(err, INVALID,
                             "text: an encoder reads text alone, found slot '%s'; use fields",
                             mr_slot_name((mr_slot_kind)slot));
    }
    json_decref(owned);
    return status;
}

static mr_status allot(mr_text_encoder *encoder, const mr_text_encoder_options *opt, mr_error *err)
{
    const size_t rows = encoder->max_rows;
    const mr_session_options session_options = {
        .max_prefix = 0, .max_rows = rows, .max_suffix = encoder->max_tokens, .pool = opt->pool};
    mr_status status = mr_session_new(&encoder->session, encoder->model, &session_options, err);
    if (status != MR_OK)
        return status;

    encoder->ids = calloc(rows, sizeof *encoder->ids);
    encoder->inputs = calloc(rows, sizeof *encoder->inputs);
    encoder->item = calloc(rows, sizeof *encoder->item);
    encoder->hidden = calloc(rows, encoder->dim * sizeof *encoder->hidden);
    if (!encoder->ids || !encoder->inputs || !encoder->item || !encoder->hidden)
        return MR_FAIL(err, NO_MEMORY, "no memory for a batch of %zu positions of %zu values", rows,
                       encoder->dim);
    return MR_OK;
}

mr_status mr_text_encoder_open(mr_text_encoder **out, const char *folder,
                               const mr_text_encoder_options *opt, mr_error *err)
{
    mr_text_encoder *encoder = NULL;
    mr_status status = check_options(opt, err);
    if (status != MR_OK)
        goto out;

    encoder = calloc(1, sizeof *encoder);
    if (!encoder) {
        status = MR_FAIL(err, NO_MEMORY, "no memory for an encoder");
        goto out;
    }
    encoder->T = (size_t)opt->tokens;
    encoder->max_tokens = (size_t)opt->max_tokens;
    encoder->append_eos = opt->append_eos;
    encoder->max_rows = opt->batch_tokens ? opt->batch_tokens : DEFAULT_BATCH_TOKENS;
    if (encoder->max_rows < encoder->max_tokens)
        encoder->max_rows = encoder->max_tokens;

    status = open_tokenizer(encoder, folder, err);
    if (status == MR_OK)
        status = open_model(encoder, folder, opt, err);
    if (status == MR_OK)
        status = compile_text(encoder, opt->text, err);
    if (status == MR_OK)
        status = allot(encoder, opt, err);
    if (status != MR_OK)
        goto out;
    *out = encoder;
    encoder = NULL;

out:
    if (status != MR_OK)
        mr_error_prefix(err, status, "text encoder '%s'", folder);
    mr_text_encoder_close(encoder);
    return status;
}

void mr_text_encoder_close(mr_text_encoder *encoder)
{
    if (!encoder)
        return;
    mr_prompt_release(&encoder->prompt);
    free(encoder->ids);
    free(encoder->inputs);
    free(encoder->item);
    free(encoder->hidden);
    mr_session_free(encoder->session);
    mr_template_free(encoder->tmpl);
    mr_model_close(encoder->model);
    mr_tokenizer_close(encoder->tokenizer);
    free(encoder);
}

size_t mr_text_encoder_dim(const mr_text_encoder *encoder)
{
    return encoder->dim;
}

size_t mr_text_encoder_tokens(const mr_text_encoder *encoder)
{
    return encoder->T;
}

const mr_model *mr_text_encoder_model(const mr_text_encoder *encoder)
{
    return encoder->model;
}

mr_status mr_text_encoder_expand(const mr_template *tmpl, mr_fields fields, int max_tokens,
                                 int32_t eos_id, mr_prompt *prompt, mr_error *err)
{
    const mr_template_input input = {
        .fields = fields, .max_tokens = max_tokens - (eos_id >= 0 ? 1 : 0), .cut_rest = true};
    mr_status status = mr_template_expand(tmpl, &input, prompt, err);
    if (status != MR_OK || prompt->ids.n == 0 || eos_id < 0)
        return status;
    return mr_ids_append(&prompt->ids, &eos_id, 1, err);
}

/* Leaves the item's ids in encoder->prompt, the closing token included. */
static mr_status read_item(mr_text_encoder *encoder, mr_fields fields, mr_text_encoder_stats *stats,
                           mr_error *err)
{
    mr_prompt *prompt = &encoder->prompt;
    const int32_t eos = encoder->append_eos ? encoder->model->config.eos_id : -1;
    mr_status status =
        mr_text_encoder_expand(encoder->tmpl, fields, (int)encoder->max_tokens, eos, prompt, err);
    if (status != MR_OK || prompt->ids.n == 0)
        return status;
    for (size_t i = 0; i < prompt->n_pieces; i++) {
        if (prompt->piece[i].truncated) {
            stats->truncated++;
            break;
        }
    }
    return MR_OK;
}

static void add_to_batch(mr_text_encoder *encoder, size_t item)
{
    const mr_ids *ids = &encoder->prompt.ids;
    int32_t *at = encoder->ids + encoder->n_ids;
    memcpy(at, ids->data, ids->n * sizeof *at);
    encoder->inputs[encoder->n_texts] = (mr_input){.ids = at, .n = ids->n};
    encoder->item[encoder->n_texts] = item;
    encoder->n_texts++;
    encoder->n_ids += ids->n;
}

/* Computes the batch at hand and spreads its rows over the output; the batch is then empty. */
static mr_status run_batch(mr_text_encoder *encoder, float *out, uint16_t *tokens, mr_error *err)
{
    const size_t T = encoder->T, dim = encoder->dim;
    if (encoder->n_texts == 0)
        return MR_OK;
    const mr_batch batch = {.suffixes = encoder->inputs,
                            .n_suffixes = encoder->n_texts,
                            .suffix_want = MR_WANT_LAST,
                            .n_last = T};
    mr_session_reset(encoder->session);
    mr_status status = mr_session_run(encoder->session, &batch, encoder->hidden, err);
    if (status != MR_OK)
        return mr_error_prefix(err, status, "items %zu to %zu", encoder->item[0],
                               encoder->item[encoder->n_texts - 1]);

    const float *row = encoder->hidden;
    for (size_t i = 0; i < encoder->n_texts; i++) {
        const size_t n = encoder->inputs[i].n < T ? encoder->inputs[i].n : T;
        memcpy(out + encoder->item[i] * T * dim, row, n * dim * sizeof *row);
        tokens[encoder->item[i]] = (uint16_t)n;
        row += n * dim;
    }
    encoder->n_ids = 0;
    encoder->n_texts = 0;
    return MR_OK;
}

mr_status mr_text_encoder_run(mr_text_encoder *encoder, const mr_fields *items, size_t n,
                              float *out, uint16_t *tokens, mr_text_encoder_stats *stats,
                              mr_error *err)
{
    mr_text_encoder_stats counted = {0};
    mr_status status = MR_OK;
    if (n == 0)
        goto out;

    memset(out, 0, n * encoder->T * encoder->dim * sizeof *out);
    memset(tokens, 0, n * sizeof *tokens);
    encoder->n_ids = 0;
    encoder->n_texts = 0;
    for (size_t i = 0; i < n; i++) {
        status = read_item(encoder, items[i], &counted, err);
        if (status != MR_OK) {
            mr_error_prefix(err, status, "item %zu", i);
            goto out;
        }
        const size_t length = encoder->prompt.ids.n;
        if (length == 0)
            continue;
        if (encoder->n_ids + length > encoder->max_rows) {
            status = run_batch(encoder, out, tokens, err);
            if (status != MR_OK)
                goto out;
        }
        add_to_batch(encoder, i);
        counted.text_tokens += length;
    }
    status = run_batch(encoder, out, tokens, err);

out:
    if (status == MR_OK && stats)
        *stats = counted;
    return status;
}
