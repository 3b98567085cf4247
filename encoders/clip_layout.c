/* clip_layout.c - which tensors the CLIP towers have: tables of names and shapes that binding and
 * writing walk.
 *
 * Checkpoints put a tower under different prefixes, and the projections beside them. A tensor that
 * config.json has no place for is refused, for leaving it out would give other numbers silently.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "encoders/clip_private.h"

#define NAME_BYTES 160

typedef enum {
    KIND_VECTOR, /* float *, widened copy of all elements */
    KIND_NORM,   /* mr_clip_norm: name.weight and name.bias */
    KIND_LINEAR, /* mr_linear: name.weight and name.bias */
    KIND_MATRIX, /* mr_linear without a bias: name as it is */
    KIND_PATCH,  /* the same for a convolution [C, 3, p, p], seen as a matrix */
    KIND_MAPPED, /* mr_tensor, as it is */
} slot_kind;

typedef struct {
    const char *name;
    size_t offset;
    slot_kind kind;
    int n_dims;
    mr_clip_dim rows, cols;
    bool optional;
    bool outside; /* not under the tower's prefix */
} slot;

/* clang-format off */
#define LINEAR(name, member, rows, cols) \
    {name, offsetof(mr_clip_layer, member), KIND_LINEAR, 2, MR_CLIP_DIM_##rows, \
     MR_CLIP_DIM_##cols, false, false}
#define NORM(name, type, member, optional) \
    {name, offsetof(type, member), KIND_NORM, 1, MR_CLIP_DIM_C, MR_CLIP_DIM_C, optional, false}

static const slot layer_slots[] = {
    NORM("layer_norm1", mr_clip_layer, norm1, false),
    LINEAR("self_attn.q_proj", q, C, C),
    LINEAR("self_attn.k_proj", k, C, C),
    LINEAR("self_attn.v_proj", v, C, C),
    LINEAR("self_attn.out_proj", out, C, C),
    NORM("layer_norm2", mr_clip_layer, norm2, false),
    LINEAR("mlp.fc1", fc1, F, C),
    LINEAR("mlp.fc2", fc2, C, F),
};
#define N_LAYER_SLOTS (sizeof layer_slots / sizeof *layer_slots)

/* First the slots before the blocks, then those after. */
static const slot vision_slots[] = {
    {"embeddings.class_embedding", offsetof(mr_clip_vision_ends, class_embedding), KIND_VECTOR, 1,
     MR_CLIP_DIM_C, MR_CLIP_DIM_C, false, false},
    {"embeddings.patch_embedding.weight", offsetof(mr_clip_vision_ends, patch), KIND_PATCH, 4,
     MR_CLIP_DIM_C, MR_CLIP_DIM_C, false, false},
    {"embeddings.position_embedding.weight", offsetof(mr_clip_vision_ends, positions), KIND_VECTOR,
     2, MR_CLIP_DIM_POSITIONS, MR_CLIP_DIM_C, false, false},
    NORM("pre_layrnorm", mr_clip_vision_ends, pre_norm, false),
    NORM("post_layernorm", mr_clip_vision_ends, post_norm, true),
    {"visual_projection.weight", offsetof(mr_clip_vision_ends, projection), KIND_MATRIX, 2,
     MR_CLIP_DIM_PROJECTION, MR_CLIP_DIM_C, true, true},
};
#define N_VISION_SLOTS 6
#define VISION_BEFORE  4

static const slot text_slots[] = {
    {"embeddings.token_embedding.weight", offsetof(mr_clip_text_ends, tokens), KIND_MAPPED, 2,
     MR_CLIP_DIM_V, MR_CLIP_DIM_C, false, false},
    {"embeddings.position_embedding.weight", offsetof(mr_clip_text_ends, positions), KIND_VECTOR, 2,
     MR_CLIP_DIM_POSITIONS, MR_CLIP_DIM_C, false, false},
    NORM("final_layer_norm", mr_clip_text_ends, final_norm, false),
    {"text_projection.weight", offsetof(mr_clip_text_ends, projection), KIND_MATRIX, 2,
     MR_CLIP_DIM_PROJECTION, MR_CLIP_DIM_C, false, true},
};
#define N_TEXT_SLOTS 4
#define TEXT_BEFORE  2
/* clang-format on */

/* CLIPModel and CLIPVisionModel; LLaVA as published; LLaVA 4.52 and later; 5.x's module names; a
 * vision model saved by them. */
static const char *const vision_prefixes[] = {"vision_model.",
                                              "vision_tower.vision_model.",
                                              "model.vision_tower.vision_model.",
                                              "model.vision_tower.",
                                              "vision_tower.",
                                              ""};
#define N_VISION_PREFIXES (sizeof vision_prefixes / sizeof *vision_prefixes)
#define TEXT_PREFIX       "text_model."

static mr_clip_dims dims_of(int C, int F, int positions, int projection)
{
    mr_clip_dims d = {.size = {[MR_CLIP_DIM_C] = C,
                               [MR_CLIP_DIM_F] = F,
                               [MR_CLIP_DIM_POSITIONS] = positions,
                               [MR_CLIP_DIM_PROJECTION] = projection}};
    snprintf(d.reason[MR_CLIP_DIM_C], sizeof d.reason[0], "hidden_size %d", C);
    snprintf(d.reason[MR_CLIP_DIM_F], sizeof d.reason[0], "intermediate_size %d", F);
    snprintf(d.reason[MR_CLIP_DIM_PROJECTION], sizeof d.reason[0], "projection_dim %d", projection);
    return d;
}

static mr_clip_dims vision_dims(const mr_clip_vision_config *config)
{
    mr_clip_dims d =
        dims_of(config->C, config->F, config->grid * config->grid + 1, config->projection_dim);
    snprintf(d.reason[MR_CLIP_DIM_POSITIONS], sizeof d.reason[0], "image_size %d and patch_size %d",
             config->image_size, config->patch_size);
    d.patch = config->patch_size;
    return d;
}

static mr_clip_dims text_dims(const mr_clip_text_config *config)
{
    mr_clip_dims d = dims_of(config->C, config->F, config->max_positions, config->projection_dim);
    d.size[MR_CLIP_DIM_V] = config->V;
    snprintf(d.reason[MR_CLIP_DIM_POSITIONS], sizeof d.reason[0], "max_position_embeddings %d",
             config->max_positions);
    snprintf(d.reason[MR_CLIP_DIM_V], sizeof d.reason[0], "vocab_size %d", (int)config->V);
    return d;
}

/* The shape of a slot's weight. */
static void shape_of(const mr_clip_dims *dims, const slot *s, int64_t shape[4])
{
    shape[0] = dims->size[s->rows];
    shape[1] = s->kind == KIND_PATCH ? 3 : dims->size[s->cols];
    shape[2] = shape[3] = dims->patch;
}

/* ---- Binding --------------------------------------------------------------------------------- */

typedef struct {
    mr_clip *clip;
    const mr_safetensors *file;
    const char *prefix;
    const mr_clip_dims *dims;
    mr_error *err;
} binder;

/* A tensor of the wanted shape; a mismatch says which line of config.json it contradicts. */
static mr_status need(const binder *b, const slot *s, const char *name, int n_dims, mr_tensor *out)
{
    int64_t shape[4];
    shape_of(b->dims, s, shape);
    mr_status status = mr_safetensors_need(b->file, name, n_dims, shape, out, b->err);
    const mr_tensor *found = mr_safetensors_find(b->file, name);
    if (status != MR_MISMATCH || found->n_dims != n_dims || !b->err)
        return status;

    const char *separator = "; config.json says ";
    for (int d = 0; d < n_dims; d++) {
        if (found->shape[d] == shape[d])
            continue;
        char patch[32];
        snprintf(patch, sizeof patch, "patch_size %d", (int)b->dims->patch);
        const char *reason = d == 0                  ? b->dims->reason[s->rows]
                             : s->kind == KIND_PATCH ? (d == 1 ? "num_channels 3" : patch)
                                                     : b->dims->reason[s->cols];
        const size_t used = strlen(b->err->message);
        snprintf(b->err->message + used, sizeof b->err->message - used, "%s%s", separator, reason);
        separator = " and ";
    }
    return status;
}

/* All elements of a small tensor, widened into memory of our own. */
static mr_status copy_floats(const binder *b, const mr_tensor *tensor, float **out)
{
    const size_t n = tensor->bytes / mr_dtype_size(tensor->dtype);
    float *values = mr_arena_array(&b->clip->arena, float, n);
    if (!values)
        return MR_FAIL(b->err, NO_MEMORY, "tensor '%s': %zu floats", tensor->name, n);
    mr_dtype_to_f32(values, tensor->data, tensor->dtype, n);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(values[i]))
            return MR_FAIL(b->err, CORRUPT, "%s: tensor '%s' holds %g at element %zu",
                           mr_safetensors_name(b->file), tensor->name, (double)values[i], i);
    }
    *out = values;
    return MR_OK;
}

static mr_status bind_vector(const binder *b, const slot *s, const char *name, int n_dims,
                             float **out)
{
    mr_tensor tensor;
    mr_status status = need(b, s, name, n_dims, &tensor);
    return status == MR_OK ? copy_floats(b, &tensor, out) : status;
}

static mr_status bind_linear(const binder *b, const slot *s, const char *stem, mr_linear *out)
{
    char name[NAME_BYTES];
    mr_tensor weight;
    float *bias = NULL;
    mr_status status;
    if (s->kind == KIND_LINEAR) {
        snprintf(name, sizeof name, "%s.bias", stem);
        status = bind_vector(b, s, name, 1, &bias);
        if (status != MR_OK)
            return status;
        snprintf(name, sizeof name, "%s.weight", stem);
    } else {
        snprintf(name, sizeof name, "%s", stem);
    }
    status = need(b, s, name, s->n_dims, &weight);
    if (status != MR_OK)
        return status;
    if (s->kind == KIND_PATCH) {
        weight.n_dims = 2;
        weight.shape[1] *= weight.shape[2] * weight.shape[3];
    }
    return mr_linear_prepare(out, b->clip->gemm, &weight, bias, b->err);
}

static mr_status bind_norm(const binder *b, const slot *s, const char *stem, mr_clip_norm *out)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s.weight", stem);
    if (s->optional && !mr_safetensors_find(b->file, name))
        return MR_OK;
    mr_status status = bind_vector(b, s, name, 1, &out->weight);
    snprintf(name, sizeof name, "%s.bias", stem);
    return status == MR_OK ? bind_vector(b, s, name, 1, &out->bias) : status;
}

/* stem: the slot's name under its prefix. base: what the offsets count from. */
static mr_status bind_slot(const binder *b, const slot *s, const char *stem, void *base)
{
    void *member = (char *)base + s->offset;
    switch (s->kind) {
    case KIND_VECTOR: return bind_vector(b, s, stem, s->n_dims, member);
    case KIND_NORM: return bind_norm(b, s, stem, member);
    case KIND_MAPPED: return need(b, s, stem, s->n_dims, member);
    case KIND_MATRIX:
        if (s->optional && !mr_safetensors_find(b->file, stem))
            return MR_OK;
        break;
    case KIND_LINEAR:
    case KIND_PATCH: break;
    }
    return bind_linear(b, s, stem, member);
}

static mr_status bind_tower(const binder *b, mr_clip_tower *tower, const slot *slots,
                            size_t n_slots, void *ends)
{
    char stem[NAME_BYTES - 8];
    mr_status status = MR_OK;
    tower->layers = mr_arena_array(&b->clip->arena, mr_clip_layer, tower->L);
    if (!tower->layers)
        return MR_FAIL(b->err, NO_MEMORY, "a table of %zu layers", tower->L);

    for (size_t i = 0; status == MR_OK && i < n_slots; i++) {
        snprintf(stem, sizeof stem, "%s%s", slots[i].outside ? "" : b->prefix, slots[i].name);
        status = bind_slot(b, &slots[i], stem, ends);
    }
    for (size_t l = 0; status == MR_OK && l < tower->L; l++) {
        for (size_t i = 0; status == MR_OK && i < N_LAYER_SLOTS; i++) {
            snprintf(stem, sizeof stem, "%sencoder.layers.%zu.%s", b->prefix, l,
                     layer_slots[i].name);
            status = bind_slot(b, &layer_slots[i], stem, &tower->layers[l]);
            if (status == MR_NOT_FOUND && i == 0 && l > 0 && b->err) {
                const size_t used = strlen(b->err->message);
                snprintf(b->err->message + used, sizeof b->err->message - used,
                         "; config.json says num_hidden_layers %zu", tower->L);
            }
        }
    }
    if (status != MR_OK)
        return status;

    snprintf(stem, sizeof stem, "%sencoder.layers.%zu.layer_norm1.weight", b->prefix, tower->L);
    if (mr_safetensors_find(b->file, stem))
        return MR_FAIL(b->err, MISMATCH,
                       "%s: tensor '%s' is in the file; config.json says num_hidden_layers %zu",
                       mr_safetensors_name(b->file), stem, tower->L);
    return MR_OK;
}

static const char *find_vision(const mr_safetensors *file)
{
    char name[NAME_BYTES];
    for (size_t i = 0; i < N_VISION_PREFIXES; i++) {
        snprintf(name, sizeof name, "%sembeddings.class_embedding", vision_prefixes[i]);
        if (mr_safetensors_find(file, name))
            return vision_prefixes[i];
    }
    return NULL;
}

mr_status mr_clip_bind_vision(mr_clip *clip, mr_error *err)
{
    const mr_clip_vision_config *config = &clip->vision_config;
    const mr_clip_dims dims = vision_dims(config);
    const binder b = {clip, clip->file, find_vision(clip->file), &dims, err};
    if (!b.prefix)
        return MR_FAIL(err, NOT_FOUND,
                       "%s: holds no CLIP vision tower: no 'embeddings.class_embedding' under "
                       "'vision_model.', 'vision_tower.vision_model.', "
                       "'model.vision_tower.vision_model.' or 'model.vision_tower.' (%zu tensors)",
                       mr_safetensors_name(clip->file), mr_safetensors_count(clip->file));

    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%sembeddings.patch_embedding.bias", b.prefix);
    if (mr_safetensors_find(clip->file, name))
        return MR_FAIL(err, MISMATCH, "%s: tensor '%s' is in the file, but CLIP has no such bias",
                       mr_safetensors_name(clip->file), name);

    clip->vision = (mr_clip_tower){.L = (size_t)config->L,
                                   .C = (size_t)config->C,
                                   .H = (size_t)config->H,
                                   .D = (size_t)(config->C / config->H),
                                   .F = (size_t)config->F,
                                   .eps = config->eps,
                                   .quick_gelu = config->quick_gelu};
    mr_status status =
        bind_tower(&b, &clip->vision, vision_slots, N_VISION_SLOTS, &clip->vision_ends);
    if (status == MR_OK && !clip->vision_ends.projection.weight.data)
        clip->vision_config.projection_dim = 0;
    return status;
}

mr_status mr_clip_bind_text(mr_clip *clip, mr_error *err)
{
    const mr_clip_text_config *config = &clip->text_config;
    const mr_clip_dims dims = text_dims(config);
    const binder b = {clip, clip->file, TEXT_PREFIX, &dims, err};
    clip->text = (mr_clip_tower){.L = (size_t)config->L,
                                 .C = (size_t)config->C,
                                 .H = (size_t)config->H,
                                 .D = (size_t)(config->C / config->H),
                                 .F = (size_t)config->F,
                                 .eps = config->eps,
                                 .quick_gelu = config->quick_gelu,
                                 .causal = true};
    mr_status status = bind_tower(&b, &clip->text, text_slots, N_TEXT_SLOTS, &clip->text_ends);
    if (status != MR_OK)
        return status;

    mr_tensor scale;
    if (mr_safetensors_find(clip->file, "logit_scale")) {
        status = mr_safetensors_need(clip->file, "logit_scale", 0, NULL, &scale, err);
        if (status != MR_OK)
            return status;
        float value;
        mr_dtype_to_f32(&value, scale.data, scale.dtype, 1);
        if (!isfinite(value))
            return MR_FAIL(err, CORRUPT, "%s: tensor 'logit_scale' is %g",
                           mr_safetensors_name(clip->file), (double)value);
        clip->logit_scale = expf(value);
    }
    return MR_OK;
}

static void unbind_tower(mr_clip_tower *tower)
{
    for (size_t l = 0; tower->layers && l < tower->L; l++) {
        for (size_t i = 0; i < N_LAYER_SLOTS; i++) {
            if (layer_slots[i].kind == KIND_LINEAR)
                mr_linear_done((mr_linear *)((char *)&tower->layers[l] + layer_slots[i].offset));
        }
    }
}

void mr_clip_unbind(mr_clip *clip)
{
    unbind_tower(&clip->vision);
    unbind_tower(&clip->text);
    mr_linear_done(&clip->vision_ends.patch);
    mr_linear_done(&clip->vision_ends.projection);
    mr_linear_done(&clip->text_ends.projection);
}

/* ---- Listing --------------------------------------------------------------------------------- */

typedef struct {
    const mr_clip_dims *dims;
    mr_dtype dtype;
    mr_arena *arena;
    mr_tensor *tensors;
    size_t n;
    bool failed;
} list;

static void add(list *l, const char *stem, const char *suffix, const slot *s, int n_dims)
{
    char name[NAME_BYTES];
    mr_tensor *tensor = &l->tensors[l->n++];
    snprintf(name, sizeof name, "%s%s", stem, suffix);
    tensor->name = mr_arena_strndup(l->arena, name, strlen(name));
    tensor->dtype = l->dtype;
    tensor->n_dims = n_dims;
    int64_t shape[4];
    shape_of(l->dims, s, shape);
    tensor->bytes = mr_dtype_size(l->dtype);
    for (int d = 0; d < n_dims; d++) {
        tensor->shape[d] = shape[d];
        tensor->bytes *= (size_t)shape[d];
    }
    l->failed |= !tensor->name;
}

static void add_slot(list *l, const char *stem, const slot *s)
{
    if (s->kind == KIND_NORM || s->kind == KIND_LINEAR) {
        add(l, stem, ".weight", s, s->n_dims);
        add(l, stem, ".bias", s, 1);
    } else {
        add(l, stem, "", s, s->n_dims);
    }
}

static mr_status list_tower(list *l, const char *prefix, size_t layers, const slot *slots,
                            size_t before, size_t n_slots, bool with_projection, mr_error *err)
{
    const size_t most = 2 * (n_slots + layers * N_LAYER_SLOTS);
    char stem[NAME_BYTES - 8];
    l->tensors = mr_arena_array(l->arena, mr_tensor, most);
    if (!l->tensors)
        return MR_FAIL(err, NO_MEMORY, "a list of %zu tensors", most);

    for (size_t i = 0; i < n_slots; i++) {
        for (size_t layer = 0; i == before && layer < layers; layer++) {
            for (size_t k = 0; k < N_LAYER_SLOTS; k++) {
                snprintf(stem, sizeof stem, "%sencoder.layers.%zu.%s", prefix, layer,
                         layer_slots[k].name);
                add_slot(l, stem, &layer_slots[k]);
            }
        }
        if (slots[i].outside && !with_projection)
            continue;
        snprintf(stem, sizeof stem, "%s%s", slots[i].outside ? "" : prefix, slots[i].name);
        add_slot(l, stem, &slots[i]);
    }
    return l->failed ? MR_FAIL(err, NO_MEMORY, "the names of %zu tensors", l->n) : MR_OK;
}

mr_status mr_clip_vision_layout(const mr_clip_vision_config *config, const char *prefix,
                                bool with_projection, mr_dtype dtype, mr_arena *arena,
                                mr_tensor **tensors, size_t *n, mr_error *err)
{
    const mr_clip_dims dims = vision_dims(config);
    list l = {.dims = &dims, .dtype = dtype, .arena = arena};
    mr_status status = list_tower(&l, prefix, (size_t)config->L, vision_slots, VISION_BEFORE,
                                  N_VISION_SLOTS, with_projection, err);
    *tensors = l.tensors;
    *n = l.n;
    return status;
}

mr_status mr_clip_text_layout(const mr_clip_text_config *config, mr_dtype dtype, mr_arena *arena,
                              mr_tensor **tensors, size_t *n, mr_error *err)
{
    const mr_clip_dims dims = text_dims(config);
    list l = {.dims = &dims, .dtype = dtype, .arena = arena};
    mr_status status = list_tower(&l, TEXT_PREFIX, (size_t)config->L, text_slots, TEXT_BEFORE,
                                  N_TEXT_SLOTS, true, err);
    *tensors = l.tensors;
    *n = l.n;
    return status;
}
