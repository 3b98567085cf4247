/* vision.c - see vision.h: which weights there are; the passes are vision.inc, in float and in
 * double.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/vision.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/layout.h"
#include "encoders/image_encoder.h"

/* As clip.h binds them. */
static const char *const prefixes[] = {"vision_model.",
                                       "vision_tower.vision_model.",
                                       "model.vision_tower.vision_model.",
                                       "model.vision_tower.",
                                       "vision_tower.",
                                       ""};
#define N_PREFIXES (sizeof prefixes / sizeof *prefixes)

static bool has(const mr_safetensors *file, const char *prefix, const char *name)
{
    char full[128];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return mr_safetensors_find(file, full) != NULL;
}

mr_status mr_vision_train_shape(mr_vision_shape *out, const char *folder, int feature_layer,
                                int tokens, mr_error *err)
{
    mr_safetensors *file = NULL;
    mr_clip *clip = NULL;
    const mr_clip_options opt = {.max_images = 1};
    mr_status status = mr_safetensors_open(&file, folder, err);
    /* Serving's reader looks at everything that may be wrong with it. */
    if (status == MR_OK)
        status = mr_clip_open(&clip, folder, &opt, err);
    if (status != MR_OK)
        goto out;
    size_t i = 0;
    while (i < N_PREFIXES && !has(file, prefixes[i], "pre_layrnorm.weight"))
        i++;
    if (i == N_PREFIXES) {
        status = MR_FAIL(err, NOT_FOUND, "%s: no 'pre_layrnorm.weight' of a vision tower", folder);
        goto out;
    }
    *out = (mr_vision_shape){.config = *mr_clip_vision(clip),
                             .prefix = prefixes[i],
                             .post_norm = has(file, prefixes[i], "post_layernorm.weight"),
                             .feature_layer = feature_layer,
                             .tokens = tokens};

out:
    mr_clip_close(clip);
    mr_safetensors_close(file);
    return status;
}

/* A LayerNorm's weight and, right after it, its bias. */
static size_t add_norm(mr_weights *weights, const char *prefix, const char *name, size_t C,
                       size_t *bias)
{
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    const size_t weight = mr_vector_add(weights, prefix, full, MR_WEIGHT_ONES, C);
    snprintf(full, sizeof full, "%s.bias", name);
    *bias = mr_vector_add(weights, prefix, full, MR_WEIGHT_ZEROS, C);
    return weight;
}

static mr_vision_block add_block(const mr_vision_shape *shape, size_t index, mr_weights *weights)
{
    const size_t C = (size_t)shape->config.C, F = (size_t)shape->config.F;
    const mr_linear_part qkv[] = {
        {"self_attn.q_proj", C}, {"self_attn.k_proj", C}, {"self_attn.v_proj", C}};
    const mr_linear_part out = {"self_attn.out_proj", C}, fc1 = {"mlp.fc1", F},
                         fc2 = {"mlp.fc2", C};
    char prefix[96];
    snprintf(prefix, sizeof prefix, "%sencoder.layers.%zu.", shape->prefix, index);
    mr_vision_block b = {.begin = weights->n};
    b.norm1 = add_norm(weights, prefix, "layer_norm1", C, &b.norm1_bias);
    b.qkv = mr_linear_add(weights, prefix, qkv, 3, C, true);
    b.out = mr_linear_add(weights, prefix, &out, 1, C, true);
    b.norm2 = add_norm(weights, prefix, "layer_norm2", C, &b.norm2_bias);
    b.fc1 = mr_linear_add(weights, prefix, &fc1, 1, C, true);
    b.fc2 = mr_linear_add(weights, prefix, &fc2, 1, F, true);
    b.end = weights->n;
    return b;
}

static mr_status check_shape(const mr_vision_shape *shape, mr_error *err)
{
    const mr_clip_vision_config *c = &shape->config;
    const int side = mr_image_encoder_side(shape->tokens);
    if (side == 0 || side > c->grid)
        return MR_FAIL(err, INVALID,
                       "%d tokens of a picture, expected a square up to the tower's grid of %d x "
                       "%d: 1, 4, 9, 16, ...",
                       shape->tokens, c->grid, c->grid);
    if (shape->feature_layer > c->L || shape->feature_layer < -c->L - 1)
        return MR_FAIL(err, INVALID,
                       "feature layer %d, but the tower has hidden states 0 to %d (-1 is the last)",
                       shape->feature_layer, c->L);
    return MR_OK;
}

mr_status mr_vision_train_add(mr_vision_layout *out, const mr_vision_shape *shape,
                              mr_weights *weights, mr_error *err)
{
    const mr_clip_vision_config *c = &shape->config;
    mr_status status = check_shape(shape, err);
    if (status != MR_OK)
        return status;
    const size_t C = (size_t)c->C, p = (size_t)c->patch_size, L = (size_t)c->L;
    const int64_t patch[4] = {c->C, 3, c->patch_size, c->patch_size};
    char name[96];
    *out = (mr_vision_layout){
        .shape = *shape, .side = (size_t)mr_image_encoder_side(shape->tokens), .begin = weights->n};
    out->layer =
        (size_t)(shape->feature_layer < 0 ? c->L + 1 + shape->feature_layer : shape->feature_layer);
    out->block = mr_arena_array(&weights->arena, mr_vision_block, L);
    if (!out->block)
        return MR_FAIL(err, NO_MEMORY, "weights of a vision tower");

    snprintf(name, sizeof name, "%sembeddings.class_embedding", shape->prefix);
    out->class_embedding = mr_vector_add(weights, "", name, MR_WEIGHT_MATRIX, C);
    snprintf(name, sizeof name, "%sembeddings.patch_embedding.weight", shape->prefix);
    out->patch =
        (mr_linear_layout){.in = 3 * p * p,
                           .out = C,
                           .n_parts = 1,
                           .rows = {C},
                           .weight = {mr_weights_add(weights, name, MR_WEIGHT_MATRIX, 4, patch)},
                           .bias = {MR_NO_WEIGHT}};
    out->positions = mr_matrix_add(weights, shape->prefix, "embeddings.position_embedding.weight",
                                   (size_t)c->grid * (size_t)c->grid + 1, C);
    out->pre_norm = add_norm(weights, shape->prefix, "pre_layrnorm", C, &out->pre_norm_bias);
    for (size_t l = 0; l < L; l++)
        out->block[l] = add_block(shape, l, weights);
    size_t bias;
    if (shape->post_norm)
        add_norm(weights, shape->prefix, "post_layernorm", C, &bias);
    out->end = weights->n;
    status = mr_weights_check(weights, err);
    const size_t first_unused =
        out->layer < L ? out->block[out->layer].begin : out->block[L - 1].end;
    for (size_t i = first_unused; status == MR_OK && i < out->end; i++)
        weights->weight[i].trained = false;
    return status;
}

#define REAL    float
#define NAME(x) x##_f32
#include "ranker/training/vision.inc"
#undef REAL
#undef NAME
#define REAL    double
#define NAME(x) x##_f64
#include "ranker/training/vision.inc"
#undef REAL
#undef NAME
