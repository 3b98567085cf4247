/* user_encoder.c - see user_encoder.h: which weights there are; the passes are user_encoder.inc, in
 * float and in double.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/user_encoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/layout.h"

static mr_user_block add_block(const mr_user_config *c, const char *kind, size_t index, bool cross,
                               mr_weights *weights)
{
    const size_t HD = c->H * c->D, KD = c->K * c->D;
    char prefix[48], attention[64];
    snprintf(prefix, sizeof prefix, "%s.%zu.", kind, index);
    snprintf(attention, sizeof attention, "%s%s_attn.", prefix, cross ? "cross" : "self");
    const mr_linear_part qkv[] = {{"q_proj", HD}, {"k_proj", KD}, {"v_proj", KD}};
    const mr_linear_part o = {"o_proj", c->C}, down = {"mlp.down_proj", c->C};
    const mr_linear_part gate_up[] = {{"mlp.gate_proj", c->F}, {"mlp.up_proj", c->F}};
    mr_user_block b = {.context_norm = MR_NO_WEIGHT};
    b.norm = mr_vector_add(weights, prefix, "input_layernorm.weight", MR_WEIGHT_ONES, c->C);
    if (cross)
        b.context_norm =
            mr_vector_add(weights, prefix, "context_layernorm.weight", MR_WEIGHT_ONES, c->C);
    b.q = mr_linear_add(weights, attention, qkv, cross ? 1 : 3, c->C, false);
    if (cross)
        b.kv = mr_linear_add(weights, attention, qkv + 1, 2, c->C, false);
    b.o = mr_linear_add(weights, attention, &o, 1, HD, false);
    b.mlp_norm =
        mr_vector_add(weights, prefix, "post_attention_layernorm.weight", MR_WEIGHT_ONES, c->C);
    b.gate_up = mr_linear_add(weights, prefix, gate_up, 2, c->C, false);
    b.down = mr_linear_add(weights, prefix, &down, 1, c->F, false);
    return b;
}

mr_status mr_user_train_add(mr_user_layout *out, const mr_user_config *config, mr_weights *weights,
                            mr_error *err)
{
    const mr_user_config *c = config;
    const mr_linear_part input = {"input_proj", c->C};
    *out = (mr_user_layout){.config = *c, .positions = MR_NO_WEIGHT};
    out->layer = mr_arena_array(&weights->arena, mr_user_block, c->layers);
    out->cross_layer = mr_arena_array(&weights->arena, mr_user_block, c->cross_layers);
    if (!out->layer || !out->cross_layer)
        return MR_FAIL(err, NO_MEMORY, "weights of a user encoder");
    out->history_begin = weights->n;
    out->input = mr_linear_add(weights, "", &input, 1, c->item_dim, true);
    if (c->positions == MR_USER_POSITIONS_LEARNED)
        out->positions =
            mr_matrix_add(weights, "", "position_embedding.weight", c->max_history, c->C);
    for (size_t i = 0; i < c->layers; i++)
        out->layer[i] = add_block(c, "layers", i, false, weights);
    out->history_end = weights->n;
    out->latents = mr_matrix_add(weights, "", "latents.weight", c->latents, c->C);
    for (size_t i = 0; i < c->cross_layers; i++)
        out->cross_layer[i] = add_block(c, "cross_layers", i, true, weights);
    out->final_norm = mr_vector_add(weights, "", "norm.weight", MR_WEIGHT_ONES, c->C);
    return mr_weights_check(weights, err);
}

#define REAL    float
#define NAME(x) x##_f32
#include "ranker/training/user_encoder.inc"
#undef REAL
#undef NAME
#define REAL    double
#define NAME(x) x##_f64
#include "ranker/training/user_encoder.inc"
#undef REAL
#undef NAME
