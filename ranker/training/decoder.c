/* decoder.c - which weights a decoder has, what a pack may be, and the passes in float and double.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/decoder.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/layout.h"
#include "ranker/training/losses.h"

#define NAME_BYTES 96

/* ---- Weights --------------------------------------------------------------------------------- */

static size_t add(mr_weights *weights, int layer, const char *name, int64_t rows, int64_t cols)
{
    char full[NAME_BYTES];
    const int64_t shape[2] = {rows, cols};
    if (layer < 0)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "model.layers.%d.%s", layer, name);
    const size_t len = strlen(name);
    const bool is_bias = len > 5 && strcmp(name + len - 5, ".bias") == 0;
    const mr_weight_kind kind = cols > 0  ? MR_WEIGHT_MATRIX
                                : is_bias ? MR_WEIGHT_ZEROS
                                          : MR_WEIGHT_ONES;
    return mr_weights_add(weights, full, kind, cols > 0 ? 2 : 1, shape);
}

static void add_layer(mr_decoder_layer *out, const mr_model_config *config, int l,
                      mr_weights *weights)
{
    const int64_t C = config->C, F = config->F, D = config->D;
    const int64_t HD = (int64_t)config->H * D, KD = (int64_t)config->K * D;
    mr_decoder_layer layer = {.qkv_bias = MR_NO_WEIGHT,
                              .q_norm = MR_NO_WEIGHT,
                              .k_norm = MR_NO_WEIGHT,
                              .o_bias = MR_NO_WEIGHT,
                              .gate_up_bias = MR_NO_WEIGHT,
                              .down_bias = MR_NO_WEIGHT};
    layer.attention_norm = add(weights, l, "input_layernorm.weight", C, 0);
    layer.q = add(weights, l, "self_attn.q_proj.weight", HD, C);
    layer.k = add(weights, l, "self_attn.k_proj.weight", KD, C);
    layer.v = add(weights, l, "self_attn.v_proj.weight", KD, C);
    if (config->qkv_bias) {
        layer.qkv_bias = add(weights, l, "self_attn.q_proj.bias", HD, 0);
        add(weights, l, "self_attn.k_proj.bias", KD, 0);
        add(weights, l, "self_attn.v_proj.bias", KD, 0);
    }
    if (config->qk_norm) {
        layer.q_norm = add(weights, l, "self_attn.q_norm.weight", D, 0);
        layer.k_norm = add(weights, l, "self_attn.k_norm.weight", D, 0);
    }
    layer.o = add(weights, l, "self_attn.o_proj.weight", C, HD);
    if (config->o_bias)
        layer.o_bias = add(weights, l, "self_attn.o_proj.bias", C, 0);
    layer.mlp_norm = add(weights, l, "post_attention_layernorm.weight", C, 0);
    layer.gate = add(weights, l, "mlp.gate_proj.weight", F, C);
    layer.up = add(weights, l, "mlp.up_proj.weight", F, C);
    if (config->mlp_bias) {
        layer.gate_up_bias = add(weights, l, "mlp.gate_proj.bias", F, 0);
        add(weights, l, "mlp.up_proj.bias", F, 0);
    }
    layer.down = add(weights, l, "mlp.down_proj.weight", C, F);
    if (config->mlp_bias)
        layer.down_bias = add(weights, l, "mlp.down_proj.bias", C, 0);
    *out = layer;
}

mr_status mr_decoder_add(mr_decoder_layout *out, const mr_model_config *config, bool headless,
                         mr_weights *weights, mr_error *err)
{
    mr_decoder_layout layout = {.config = *config};
    layout.layer = mr_arena_array(&weights->arena, mr_decoder_layer, (size_t)config->L);
    if (!layout.layer)
        return MR_FAIL(err, NO_MEMORY, "a decoder of %d layers", config->L);
    layout.embedding = add(weights, -1, "model.embed_tokens.weight", config->V, config->C);
    for (int l = 0; l < config->L; l++)
        add_layer(&layout.layer[l], config, l, weights);
    layout.final_norm = add(weights, -1, "model.norm.weight", config->C, 0);
    layout.head = layout.embedding;
    if (headless)
        layout.head = MR_NO_WEIGHT;
    else if (!config->tied)
        layout.head = add(weights, -1, "lm_head.weight", config->V, config->C);
    *out = layout;
    return mr_weights_check(weights, err);
}

/* ---- Packs ----------------------------------------------------------------------------------- */

static size_t parent_rows(const mr_pack *pack, const mr_span *span)
{
    return span->parent < 0 ? 0 : pack->span[span->parent].n;
}

static mr_status check_span(const mr_pack *pack, size_t s, size_t begin, int max_positions,
                            mr_error *err)
{
    const mr_span *span = &pack->span[s];
    if (span->begin != begin || span->n == 0 || span->n > pack->rows - begin)
        return MR_FAIL(err, INVALID, "span %zu has rows %zu + %zu of %zu, expected to begin at %zu",
                       s, span->begin, span->n, pack->rows, begin);
    if (span->parent >= 0 && ((size_t)span->parent >= s || pack->span[span->parent].parent >= 0))
        return MR_FAIL(err, INVALID, "span %zu has parent %" PRId64 ", which is no earlier prefix",
                       s, span->parent);
    if (parent_rows(pack, span) + span->n > (size_t)max_positions)
        return MR_FAIL(err, INVALID, "span %zu reaches position %zu of max_position_embeddings %d",
                       s, parent_rows(pack, span) + span->n, max_positions);
    return MR_OK;
}

mr_status mr_pack_check(const mr_pack *pack, const mr_model_config *config, size_t *n_vectors,
                        size_t *n_wanted, mr_error *err)
{
    size_t begin = 0, vectors = 0, wanted = 0;
    for (size_t s = 0; s < pack->n_spans; s++) {
        mr_status status = check_span(pack, s, begin, config->max_positions, err);
        if (status != MR_OK)
            return status;
        begin += pack->span[s].n;
    }
    if (begin != pack->rows || begin == 0)
        return MR_FAIL(err, INVALID, "spans cover %zu of %zu rows", begin, pack->rows);
    for (size_t r = 0; r < pack->rows; r++) {
        const int32_t id = pack->ids[r];
        if (id != MR_ROW_VECTOR && (id < 0 || id >= config->V))
            return MR_FAIL(err, INVALID, "row %zu has token %d of a vocabulary of %d", r, (int)id,
                           (int)config->V);
        vectors += id == MR_ROW_VECTOR;
        wanted += !pack->wanted || pack->wanted[r];
    }
    *n_vectors = vectors;
    *n_wanted = wanted;
    return MR_OK;
}

/* ---- Passes ---------------------------------------------------------------------------------- */

#define REAL      float
#define NAME(x)   x##_f32
#define REAL_SQRT sqrtf
#include "ranker/training/decoder.inc"
#include "ranker/training/decoder_attention.inc"
#include "ranker/training/decoder_back.inc"
#undef REAL
#undef NAME
#undef REAL_SQRT

#define REAL      double
#define NAME(x)   x##_f64
#define REAL_SQRT sqrt
#include "ranker/training/decoder.inc"
#include "ranker/training/decoder_attention.inc"
#include "ranker/training/decoder_back.inc"
