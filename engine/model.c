/* model.c - opening a model: config.json, the mapped weights, and the walk over model_layout.h's
 * table that puts each tensor in its place. Then the two ends, embedding and head.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "engine/model_layout.h"
#include "engine/untrained.h"

#define NAME_MAX_BYTES 160
#define HEAD_GRAIN     64 /* rows of the head that a thread takes at a time */

/* Where checkpoints put the decoder, and the head that goes with it. */
static const struct {
    const char *decoder;
    const char *head;
} prefixes[] = {
    {"model.", "lm_head.weight"},                               /* Llama, Qwen, the reranker */
    {"", "lm_head.weight"},                                     /* Qwen3-Embedding */
    {"model.language_model.", "lm_head.weight"},                /* LLaVA, newer */
    {"language_model.model.", "language_model.lm_head.weight"}, /* LLaVA, as published */
};
#define N_PREFIXES (sizeof prefixes / sizeof *prefixes)

typedef struct {
    mr_model *model;
    const mr_safetensors *file;
    const char *prefix;
    mr_error *err;
} binder;

/* "...; config.json says hidden_size 64": what a person changes when the file is right. */
static mr_status add_reason(mr_error *err, mr_status status, const char *reason)
{
    if (!err || reason[0] == '\0')
        return status;
    const size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof err->message - used, "; config.json says %s", reason);
    return status;
}

static bool shape_is(const mr_tensor *tensor, int n_dims, const int64_t *shape)
{
    return tensor->n_dims == n_dims &&
           memcmp(tensor->shape, shape, (size_t)n_dims * sizeof *shape) == 0;
}

/* A tensor of the shape that the letters say. */
static mr_status need(const binder *b, const char *name, int n_dims, const mr_dim *dims,
                      mr_tensor *out)
{
    const mr_model_config *config = &b->model->config;
    int64_t shape[2];
    for (int d = 0; d < n_dims; d++)
        shape[d] = mr_dim_value(config, dims[d]);

    mr_status status = mr_safetensors_need(b->file, name, n_dims, shape, out, b->err);
    const mr_tensor *found = mr_safetensors_find(b->file, name);
    if (status != MR_MISMATCH || shape_is(found, n_dims, shape))
        return status;

    char reason[2 * MR_REASON] = "";
    for (int d = 0; d < n_dims; d++) {
        if (found->n_dims == n_dims && found->shape[d] == shape[d])
            continue;
        char part[MR_REASON];
        const size_t used = strlen(reason);
        mr_dim_reason(config, dims[d], part);
        snprintf(reason + used, sizeof reason - used, "%s%s", used ? " and " : "", part);
    }
    return add_reason(b->err, status, reason);
}

/* A small vector, widened into memory of our own. */
static mr_status bind_vector(const binder *b, const char *name, mr_dim d, float **out)
{
    mr_tensor tensor;
    mr_status status = need(b, name, 1, &d, &tensor);
    if (status != MR_OK)
        return status;
    const size_t n = (size_t)tensor.shape[0];
    float *values = mr_arena_array(&b->model->arena, float, n);
    if (!values)
        return MR_FAIL(b->err, NO_MEMORY, "tensor '%s': %zu floats", name, n);
    mr_dtype_to_f32(values, tensor.data, tensor.dtype, n);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(values[i]))
            return MR_FAIL(b->err, CORRUPT, "%s: tensor '%s' holds %g at index %zu",
                           mr_safetensors_name(b->file), name, (double)values[i], i);
    }
    *out = values;
    return MR_OK;
}

/* An optional vector: bound when config.json says that it is there, and refused when the file has
 * it all the same, for leaving it out would give other scores without a word. */
static mr_status bind_optional(const binder *b, const char *name, mr_dim d, mr_part part,
                               float **out)
{
    const mr_model_config *config = &b->model->config;
    char reason[MR_REASON];
    mr_part_reason(config, part, reason);
    if (mr_part_is_there(config, part)) {
        mr_status status = bind_vector(b, name, d, out);
        return status == MR_NOT_FOUND ? add_reason(b->err, status, reason) : status;
    }
    if (mr_safetensors_find(b->file, name))
        return MR_FAIL(b->err, MISMATCH,
                       "%s: tensor '%s' is in the file, but there is no place for it; config.json "
                       "says %s",
                       mr_safetensors_name(b->file), name, reason);
    return MR_OK;
}

static mr_status bind_linear(const binder *b, const char *stem, const mr_layer_slot *s,
                             mr_linear *out)
{
    char name[NAME_MAX_BYTES];
    mr_tensor weight;
    float *bias = NULL;
    const mr_dim dims[2] = {s->rows, s->cols};

    snprintf(name, sizeof name, "%s.bias", stem);
    mr_status status = bind_optional(b, name, s->rows, s->part, &bias);
    if (status != MR_OK)
        return status;

    snprintf(name, sizeof name, "%s.weight", stem);
    status = need(b, name, 2, dims, &weight);
    if (status != MR_OK)
        return status;

    status = mr_linear_prepare(out, b->model->gemm, &weight, bias, b->err);
    if (status == MR_OK)
        b->model->owned_bytes += out->packed_bytes;
    return status;
}

static mr_status bind_layer(const binder *b, int index)
{
    char stem[NAME_MAX_BYTES - 8], name[NAME_MAX_BYTES];
    mr_layer *layer = &b->model->layers[index];

    for (size_t i = 0; i < MR_LAYER_SLOTS; i++) {
        const mr_layer_slot *s = &mr_layer_slots[i];
        void *member = (char *)layer + s->offset;
        mr_status status;
        snprintf(stem, sizeof stem, "%slayers.%d.%s", b->prefix, index, s->name);
        if (s->linear) {
            status = bind_linear(b, stem, s, member);
        } else {
            snprintf(name, sizeof name, "%s.weight", stem);
            status = s->part == MR_PART_ALWAYS ? bind_vector(b, name, s->rows, member)
                                               : bind_optional(b, name, s->rows, s->part, member);
        }
        if (status == MR_NOT_FOUND && index > 0 && i == 0) {
            char reason[MR_REASON];
            snprintf(reason, sizeof reason, "num_hidden_layers %d", b->model->config.L);
            add_reason(b->err, status, reason);
        }
        if (status != MR_OK)
            return status;
    }
    return MR_OK;
}

/* The prefix under which the file has a decoder; N_PREFIXES when there is none. */
static size_t find_prefix(const mr_safetensors *file)
{
    char name[NAME_MAX_BYTES];
    for (size_t i = 0; i < N_PREFIXES; i++) {
        snprintf(name, sizeof name, "%slayers.0.input_layernorm.weight", prefixes[i].decoder);
        if (mr_safetensors_find(file, name))
            return i;
    }
    return N_PREFIXES;
}

/* Embedding and head. A tied pair may be stored under either name, or under both when they agree.
 */
static mr_status bind_ends(const binder *b, const char *head_name, bool headless)
{
    mr_model *model = b->model;
    static const mr_dim dims[2] = {MR_DIM_V, MR_DIM_C};
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%sembed_tokens.weight", b->prefix);
    const bool embedding_is_there = mr_safetensors_find(b->file, name) != NULL;
    const bool head_is_there = mr_safetensors_find(b->file, head_name) != NULL;
    const bool tied = model->config.tied;

    mr_status status = need(b, tied && !embedding_is_there && head_is_there ? head_name : name, 2,
                            dims, &model->embedding);
    if (status != MR_OK || headless)
        return status;

    if (!tied) {
        status = need(b, head_name, 2, dims, &model->head);
        return status == MR_NOT_FOUND ? add_reason(b->err, status, "tie_word_embeddings false")
                                      : status;
    }
    model->head = model->embedding;
    if (!embedding_is_there || !head_is_there)
        return MR_OK;

    mr_tensor stored;
    status = need(b, head_name, 2, dims, &stored);
    if (status != MR_OK)
        return status;
    if (stored.dtype != model->embedding.dtype ||
        memcmp(stored.data, model->embedding.data, stored.bytes) != 0)
        return MR_FAIL(b->err, MISMATCH,
                       "%s: '%s' and '%s' differ, but config.json says tie_word_embeddings true; "
                       "which of the two is the head? Say false to use the first",
                       mr_safetensors_name(b->file), head_name, name);
    return MR_OK;
}

static mr_status bind(mr_model *model, const mr_safetensors *file, bool headless, mr_error *err)
{
    const mr_model_config *config = &model->config;
    const size_t at = find_prefix(file);
    if (at == N_PREFIXES) {
        const mr_tensor *first = mr_safetensors_at(file, 0);
        return MR_FAIL(err, NOT_FOUND,
                       "%s: holds no decoder: no 'layers.0.input_layernorm.weight', alone or under "
                       "'model.', 'model.language_model.' or 'language_model.model.' (%zu tensors, "
                       "the first is '%.80s')",
                       mr_safetensors_name(file), mr_safetensors_count(file),
                       first ? first->name : "");
    }
    const binder b = {model, file, prefixes[at].decoder, err};

    model->layers = mr_arena_array(&model->arena, mr_layer, (size_t)config->L);
    model->rope_inverse = mr_arena_array(&model->arena, double, (size_t)config->D / 2);
    if (!model->layers || !model->rope_inverse)
        return MR_FAIL(err, NO_MEMORY, "a table of %d layers", config->L);
    mr_rope_frequencies(config, model->rope_inverse);

    mr_status status = bind_ends(&b, prefixes[at].head, headless);
    for (int i = 0; status == MR_OK && i < config->L; i++)
        status = bind_layer(&b, i);
    if (status != MR_OK)
        return status;

    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%snorm.weight", b.prefix);
    return bind_vector(&b, name, MR_DIM_C, &model->final_norm);
}

mr_status mr_model_bind(mr_model **out, mr_safetensors *file, const mr_model_config *config,
                        const mr_model_options *opt, mr_error *err)
{
    mr_model *model = calloc(1, sizeof *model);
    if (!model)
        return MR_FAIL(err, NO_MEMORY, "opening '%s'", mr_safetensors_name(file));
    model->config = *config;
    model->gemm = opt->gemm;
    model->kernels = opt->kernels ? opt->kernels : mr_kernels_select();

    mr_status status = bind(model, file, opt->headless, err);
    if (status != MR_OK) {
        mr_model_close(model);
        return status;
    }
    model->owned_bytes += model->arena.used;
    model->file = file;
    *out = model;
    return MR_OK;
}

mr_status mr_model_open(mr_model **out, const char *folder, const mr_model_options *opt,
                        mr_error *err)
{
    mr_arena scratch = {0};
    mr_safetensors *file = NULL;
    mr_model_config config;
    mr_status status;

    const char *path = mr_path_join(&scratch, folder, "config.json");
    if (!path) {
        status = MR_FAIL(err, NO_MEMORY, "opening '%s'", folder);
        goto out;
    }
    status = mr_model_config_load(&config, path, err);
    if (status != MR_OK)
        goto out;

    status = mr_safetensors_open(&file, folder, err);
    if (status != MR_OK)
        goto out;

    status = mr_model_bind(out, file, &config, opt, err);
    if (status == MR_OK)
        file = NULL;

out:
    mr_safetensors_close(file);
    mr_arena_done(&scratch);
    return status;
}

void mr_model_close(mr_model *model)
{
    if (!model)
        return;
    for (int l = 0; model->layers && l < model->config.L; l++) {
        for (size_t i = 0; i < MR_LAYER_SLOTS; i++) {
            if (mr_layer_slots[i].linear)
                mr_linear_done((mr_linear *)((char *)&model->layers[l] + mr_layer_slots[i].offset));
        }
    }
    mr_safetensors_close(model->file);
    mr_arena_done(&model->arena);
    free(model);
}

bool mr_model_is_untrained(const mr_model *model)
{
    return mr_safetensors_metadata(model->file, MR_UNTRAINED_KEY) != NULL;
}

/* "BF16", or "mixed": the tensors that go through kernels in their stored form. */
static const char *weight_dtype(const mr_model *model)
{
    const mr_dtype first = model->embedding.dtype;
    bool same = !model->head.data || model->head.dtype == first;
    for (int l = 0; l < model->config.L; l++) {
        for (size_t i = 0; i < MR_LAYER_SLOTS; i++) {
            const mr_linear *linear =
                (const mr_linear *)((const char *)&model->layers[l] + mr_layer_slots[i].offset);
            if (mr_layer_slots[i].linear && linear->weight.dtype != first)
                same = false;
        }
    }
    return same ? mr_dtype_name(first) : "mixed";
}

void mr_model_numerics_id(const mr_model *model, char *out, size_t size)
{
    snprintf(out, size, "%s/%s/%s/r%d", mr_gemm_name(model->gemm), model->kernels->name,
             weight_dtype(model), MR_ENGINE_REVISION);
}

static const void *row_of(const mr_tensor *matrix, size_t row)
{
    const size_t row_bytes = (size_t)matrix->shape[1] * mr_dtype_size(matrix->dtype);
    return (const char *)matrix->data + row * row_bytes;
}

void mr_model_embed(const mr_model *model, int32_t id, float *out)
{
    const mr_tensor *table = &model->embedding;
    mr_dtype_to_f32(out, row_of(table, (size_t)id), table->dtype, (size_t)table->shape[1]);
}

void mr_model_label_logits(const mr_model *model, const float *hidden, const int32_t *ids, size_t n,
                           float *out)
{
    const mr_tensor *head = &model->head;
    const size_t C = (size_t)model->config.C;
    for (size_t i = 0; i < n; i++)
        model->kernels->dot_rows(out + i, 1, hidden, C, 1, row_of(head, (size_t)ids[i]),
                                 head->dtype, C, 1, C);
}

typedef struct {
    const mr_model *model;
    const float *hidden;
    size_t n;
    float *out;
} head_job;

static void head_rows(void *context, size_t begin, size_t end, int worker)
{
    const head_job *job = context;
    const mr_tensor *head = &job->model->head;
    const size_t C = (size_t)job->model->config.C, V = (size_t)job->model->config.V;
    (void)worker;
    job->model->kernels->dot_rows(job->out + begin, V, job->hidden, C, job->n, row_of(head, begin),
                                  head->dtype, C, end - begin, C);
}

void mr_model_logits(const mr_model *model, mr_pool *pool, const float *hidden, size_t n,
                     float *out)
{
    head_job job = {model, hidden, n, out};
    if (n)
        mr_parallel_for(pool, (size_t)model->config.V, HEAD_GRAIN, head_rows, &job);
}
