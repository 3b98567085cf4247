/* llava.c - opening a LLaVA folder, and the stages of its forward pass.
 *
 * The three parts read one set of mapped files: the vision tower and the projector borrow it, the
 * language model owns it. Only the language model knows positions; a picture is just rows that take
 * the place of word embeddings.
 * SPDX-License-Identifier: Apache-2.0 */
#include "encoders/llava.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "encoders/llava_private.h"

#define DEFAULT_POSITIONS 2048
#define PASS_ROWS         1024 /* positions of a prompt computed together */

/* The joint of the two models: one special token, spelled in prompts. */
static mr_status find_marker(mr_llava *llava, const char *folder, mr_error *err)
{
    const int32_t token = llava->config.image_token;
    mr_ids ids = {0};
    llava->marker = mr_tokenizer_token(llava->tokenizer, token);
    if (!llava->marker)
        return MR_FAIL(err, MISMATCH,
                       "%s: config.json says image_token_index %d, but tokenizer.json has no such "
                       "token; are the files of two models mixed?",
                       folder, (int)token);
    mr_status status = mr_tokenizer_encode(llava->tokenizer, mr_str_of(llava->marker),
                                           MR_TOKENIZE_PARSE_SPECIAL, &ids, err);
    if (status == MR_OK && (ids.n != 1 || ids.data[0] != token))
        status = MR_FAIL(err, MISMATCH,
                         "%s: config.json says image_token_index %d, which tokenizer.json spells "
                         "'%.60s', but does not read as one token",
                         folder, (int)token, llava->marker);
    mr_ids_release(&ids);
    return status;
}

/* The projector itself takes biases or leaves them; here config.json says which. */
static mr_status check_projector_bias(const mr_llava *llava, const char *folder, mr_error *err)
{
    static const char *const names[] = {
        "multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_2.bias",
        "model.multi_modal_projector.linear_1.bias", "model.multi_modal_projector.linear_2.bias"};
    size_t found = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        found += mr_safetensors_find(llava->file, names[i]) != NULL;
    if (found != (llava->config.projector_bias ? 2 : 0))
        return MR_FAIL(err, MISMATCH,
                       "%s: the projector has %zu of its 2 biases; config.json says "
                       "multimodal_projector_bias %s",
                       folder, found, llava->config.projector_bias ? "true" : "false");
    if (strcmp(mr_projector_kind(llava->projector), "mlp") != 0)
        return MR_FAIL(err, NOT_FOUND,
                       "%s: tensor 'multi_modal_projector.linear_2.weight' is missing", folder);
    return MR_OK;
}

static mr_status open_parts(mr_llava *llava, const char *folder, const mr_llava_options *opt,
                            mr_error *err)
{
    mr_status status = mr_llava_config_load(&llava->config, folder, err);
    if (status == MR_OK)
        status = mr_tokenizer_open(&llava->tokenizer, folder, err);
    if (status == MR_OK)
        status = find_marker(llava, folder, err);
    if (status == MR_OK)
        status = mr_safetensors_open(&llava->file, folder, err);
    if (status != MR_OK)
        return status;

    const mr_llava_config *config = &llava->config;
    const mr_clip_options clip_options = {.kernels = opt->kernels, .pool = opt->pool};
    status = mr_clip_bind(&llava->clip, llava->file, &config->vision, NULL, &clip_options, err);
    if (status == MR_OK)
        status = mr_projector_bind(&llava->projector, llava->file, (size_t)config->vision.C,
                                   (size_t)config->text.C, err);
    if (status == MR_OK)
        status = check_projector_bias(llava, folder, err);
    if (status != MR_OK)
        return status;

    const mr_model_options model_options = {.gemm = MR_GEMM_SCORING, .kernels = opt->kernels};
    status = mr_model_bind(&llava->model, llava->file, &config->text, &model_options, err);
    if (status == MR_OK)
        llava->file = NULL;
    return status;
}

static mr_status allot(mr_llava *llava, const mr_llava_options *opt, mr_error *err)
{
    const mr_model_config *text = &llava->config.text;
    const size_t grid = (size_t)llava->config.vision.grid;
    llava->image_tokens = grid * grid + (llava->config.keep_cls ? 1 : 0);
    llava->max_positions = opt->max_positions ? opt->max_positions : DEFAULT_POSITIONS;
    if (!opt->max_positions && llava->max_positions > (size_t)text->max_positions)
        llava->max_positions = (size_t)text->max_positions;

    const mr_session_options session_options = {
        .max_prefix = llava->max_positions,
        .max_rows = llava->max_positions < PASS_ROWS ? llava->max_positions : PASS_ROWS,
        .max_suffix = 1,
        .pool = opt->pool};
    mr_status status = mr_session_new(&llava->session, llava->model, &session_options, err);
    if (status != MR_OK)
        return status;

    /* Of any number of rows: the projector takes them in blocks. */
    const size_t projector_bytes = mr_projector_scratch_bytes(llava->projector, SIZE_MAX);
    llava->bytes = projector_bytes + (size_t)text->C * sizeof(float);
    llava->projector_scratch = malloc(projector_bytes);
    llava->hidden = calloc((size_t)text->C, sizeof *llava->hidden);
    if (!llava->projector_scratch || !llava->hidden)
        return MR_FAIL(err, NO_MEMORY, "scratch of %zu bytes", llava->bytes);
    return MR_OK;
}

mr_status mr_llava_open(mr_llava **out, const char *folder, const mr_llava_options *opt,
                        mr_error *err)
{
    mr_llava *llava = calloc(1, sizeof *llava);
    if (!llava)
        return MR_FAIL(err, NO_MEMORY, "opening '%s'", folder);
    llava->pool = opt->pool;
    llava->kernels = opt->kernels ? opt->kernels : mr_kernels_select();

    mr_status status = open_parts(llava, folder, opt, err);
    llava->config.target.pad_to_square |= opt->pad_to_square;
    if (status == MR_OK)
        status = allot(llava, opt, err);
    if (status != MR_OK)
        goto out;
    *out = llava;
    llava = NULL;

out:
    mr_llava_close(llava);
    return status;
}

void mr_llava_close(mr_llava *llava)
{
    if (!llava)
        return;
    mr_session_free(llava->session);
    mr_projector_close(llava->projector);
    mr_clip_close(llava->clip);
    mr_model_close(llava->model);
    mr_safetensors_close(llava->file);
    mr_tokenizer_close(llava->tokenizer);
    free(llava->projector_scratch);
    free(llava->hidden);
    free(llava);
}

const mr_model *mr_llava_model(const mr_llava *llava)
{
    return llava->model;
}

const mr_tokenizer *mr_llava_tokenizer(const mr_llava *llava)
{
    return llava->tokenizer;
}

const mr_clip_vision_config *mr_llava_vision(const mr_llava *llava)
{
    return mr_clip_vision(llava->clip);
}

size_t mr_llava_image_tokens(const mr_llava *llava)
{
    return llava->image_tokens;
}

size_t mr_llava_positions(const mr_llava *llava)
{
    return llava->max_positions;
}

size_t mr_llava_bytes(const mr_llava *llava)
{
    return llava->bytes + mr_clip_bytes(llava->clip) + mr_session_bytes(llava->session) +
           llava->model->owned_bytes;
}

bool mr_llava_is_untrained(const mr_llava *llava)
{
    return mr_model_is_untrained(llava->model);
}

bool mr_llava_is_end(const mr_llava *llava, int32_t id)
{
    for (size_t i = 0; i < llava->config.n_ends; i++) {
        if (llava->config.ends[i] == id)
            return true;
    }
    return false;
}

/* ---- Stages ---------------------------------------------------------------------------------- */

mr_status mr_llava_features(mr_llava *llava, const float *pixels, size_t n, float *features,
                            float *projected, mr_error *err)
{
    const mr_clip_image_request request = {.feature_layer = llava->config.feature_layer,
                                           .keep_cls = llava->config.keep_cls,
                                           .features = features};
    mr_status status = mr_clip_image(llava->clip, pixels, n, &request, err);
    if (status == MR_OK && projected)
        mr_projector_run(llava->projector, llava->kernels, llava->pool, llava->projector_scratch,
                         features, n * llava->image_tokens, projected);
    return status;
}

static mr_status extend(mr_llava *llava, const mr_input *input, float *logits, mr_error *err)
{
    const mr_batch batch = {.prefix = input, .prefix_want = MR_WANT_LAST, .n_last = 1};
    mr_status status = mr_session_run(llava->session, &batch, llava->hidden, err);
    if (status == MR_OK)
        mr_model_logits(llava->model, llava->pool, llava->hidden, 1, logits);
    return status;
}

mr_status mr_llava_prefill(mr_llava *llava, const mr_input *input, float *logits, mr_error *err)
{
    if (input->n == 0)
        return MR_FAIL(err, INVALID, "an input of no positions");
    mr_session_reset(llava->session);
    return extend(llava, input, logits, err);
}

mr_status mr_llava_next(mr_llava *llava, int32_t id, float *logits, mr_error *err)
{
    const mr_input input = {.ids = &id, .n = 1};
    return extend(llava, &input, logits, err);
}
