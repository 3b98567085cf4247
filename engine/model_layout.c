/* model_layout.c - see model_layout.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/model_layout.h"

#include <stdio.h>
#include <string.h>

#include "engine/model.h"

#define NAME_BYTES 96

#define LINEAR(name, member, rows, cols, bias)                                               \
    {                                                                                        \
        name, offsetof(mr_layer, member), true, MR_DIM_##rows, MR_DIM_##cols, MR_PART_##bias \
    }
#define VECTOR(name, member, rows, part)                                                      \
    {                                                                                         \
        name, offsetof(mr_layer, member), false, MR_DIM_##rows, MR_DIM_##rows, MR_PART_##part \
    }

const mr_layer_slot mr_layer_slots[MR_LAYER_SLOTS] = {
    VECTOR("input_layernorm", attention_norm, C, ALWAYS),
    LINEAR("self_attn.q_proj", q, HD, C, QKV_BIAS),
    LINEAR("self_attn.k_proj", k, KD, C, QKV_BIAS),
    LINEAR("self_attn.v_proj", v, KD, C, QKV_BIAS),
    VECTOR("self_attn.q_norm", q_norm, D, QK_NORM),
    VECTOR("self_attn.k_norm", k_norm, D, QK_NORM),
    LINEAR("self_attn.o_proj", o, C, HD, O_BIAS),
    VECTOR("post_attention_layernorm", mlp_norm, C, ALWAYS),
    LINEAR("mlp.gate_proj", gate, F, C, MLP_BIAS),
    LINEAR("mlp.up_proj", up, F, C, MLP_BIAS),
    LINEAR("mlp.down_proj", down, C, F, MLP_BIAS),
};

int64_t mr_dim_value(const mr_model_config *config, mr_dim dim)
{
    switch (dim) {
    case MR_DIM_C: return config->C;
    case MR_DIM_F: return config->F;
    case MR_DIM_V: return config->V;
    case MR_DIM_D: return config->D;
    case MR_DIM_HD: return (int64_t)config->H * config->D;
    case MR_DIM_KD: return (int64_t)config->K * config->D;
    }
    return -1;
}

void mr_dim_reason(const mr_model_config *config, mr_dim dim, char out[MR_REASON])
{
    switch (dim) {
    case MR_DIM_C: snprintf(out, MR_REASON, "hidden_size %d", config->C); break;
    case MR_DIM_F: snprintf(out, MR_REASON, "intermediate_size %d", config->F); break;
    case MR_DIM_V: snprintf(out, MR_REASON, "vocab_size %d", (int)config->V); break;
    case MR_DIM_D: snprintf(out, MR_REASON, "head_dim %d", config->D); break;
    case MR_DIM_HD:
        snprintf(out, MR_REASON, "num_attention_heads %d of head_dim %d", config->H, config->D);
        break;
    case MR_DIM_KD:
        snprintf(out, MR_REASON, "num_key_value_heads %d of head_dim %d", config->K, config->D);
        break;
    }
}

bool mr_part_is_there(const mr_model_config *config, mr_part part)
{
    switch (part) {
    case MR_PART_ALWAYS: return true;
    case MR_PART_QKV_BIAS: return config->qkv_bias;
    case MR_PART_O_BIAS: return config->o_bias;
    case MR_PART_MLP_BIAS: return config->mlp_bias;
    case MR_PART_QK_NORM: return config->qk_norm;
    }
    return false;
}

void mr_part_reason(const mr_model_config *config, mr_part part, char out[MR_REASON])
{
    const char *value = mr_part_is_there(config, part) ? "true" : "false";
    const bool is_bias = part == MR_PART_QKV_BIAS || part == MR_PART_O_BIAS;
    if (part == MR_PART_MLP_BIAS && config->family == MR_FAMILY_LLAMA)
        snprintf(out, MR_REASON, "mlp_bias %s", value);
    else if (is_bias && config->family != MR_FAMILY_QWEN2)
        snprintf(out, MR_REASON, "attention_bias %s", value);
    else
        snprintf(out, MR_REASON, "model_type %s", mr_family_name(config->family));
}

typedef struct {
    const mr_model_config *config;
    mr_dtype dtype;
    mr_arena *arena;
    mr_tensor *tensors;
    size_t n;
    bool failed;
} list;

static void add(list *l, const char *name, int n_dims, mr_dim rows, mr_dim cols)
{
    mr_tensor *tensor = &l->tensors[l->n++];
    tensor->name = mr_arena_strndup(l->arena, name, strlen(name));
    tensor->dtype = l->dtype;
    tensor->n_dims = n_dims;
    tensor->shape[0] = mr_dim_value(l->config, rows);
    if (n_dims == 2)
        tensor->shape[1] = mr_dim_value(l->config, cols);
    tensor->bytes = mr_dtype_size(l->dtype);
    for (int d = 0; d < n_dims; d++)
        tensor->bytes *= (size_t)tensor->shape[d];
    l->failed |= !tensor->name;
}

mr_status mr_model_layout(const mr_model_config *config, mr_dtype dtype, mr_arena *arena,
                          mr_tensor **tensors, size_t *n, mr_error *err)
{
    const size_t most = 3 + (size_t)config->L * 2 * MR_LAYER_SLOTS;
    list l = {config, dtype, arena, mr_arena_array(arena, mr_tensor, most), 0, false};
    if (!l.tensors)
        return MR_FAIL(err, NO_MEMORY, "a list of %zu tensors", most);

    add(&l, "model.embed_tokens.weight", 2, MR_DIM_V, MR_DIM_C);
    for (int layer = 0; layer < config->L; layer++) {
        for (size_t i = 0; i < MR_LAYER_SLOTS; i++) {
            const mr_layer_slot *slot = &mr_layer_slots[i];
            const bool optional = mr_part_is_there(config, slot->part);
            char name[NAME_BYTES];
            if (slot->linear || optional) {
                snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, slot->name);
                add(&l, name, slot->linear ? 2 : 1, slot->rows, slot->cols);
            }
            if (slot->linear && optional) {
                snprintf(name, sizeof name, "model.layers.%d.%s.bias", layer, slot->name);
                add(&l, name, 1, slot->rows, slot->rows);
            }
        }
    }
    add(&l, "model.norm.weight", 1, MR_DIM_C, MR_DIM_C);
    if (!config->tied)
        add(&l, "lm_head.weight", 2, MR_DIM_V, MR_DIM_C);
    if (l.failed)
        return MR_FAIL(err, NO_MEMORY, "the names of %zu tensors", l.n);
    *tensors = l.tensors;
    *n = l.n;
    return MR_OK;
}
