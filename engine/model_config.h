/* model_config.h - Hugging Face config.json of a causal decoder: Llama, Qwen2/2.5, Qwen3.
 *
 * Dimension letters of the project: C width, H heads, K kv heads, D head size, F feed-forward,
 * V vocabulary, L layers.
 * Both spellings of the rotary base are read ("rope_theta" and "rope_parameters.rope_theta", newer
 * transformers), and rope_scaling / rope_parameters of type "llama3", "linear" and "default".
 * A key that is absent has the value that transformers' class of that model_type gives it: head_dim
 * is C/H for Llama and Qwen2 but 128 for Qwen3, num_key_value_heads is H for Llama but 32 for Qwen.
 * L, C, H, F and V must be there.
 * A model_type or an option that the engine does not compute (sliding window in use, MoE, other
 * activations) is UNSUPPORTED by name: a wrong score is worse than none. The dtype in the file is
 * not read: each tensor has its own.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_MODEL_CONFIG_H
#define MR_ENGINE_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/json.h"

typedef enum { MR_FAMILY_LLAMA, MR_FAMILY_QWEN2, MR_FAMILY_QWEN3, MR_FAMILY_COUNT } mr_family;

typedef enum { MR_ROPE_DEFAULT, MR_ROPE_LINEAR, MR_ROPE_LLAMA3, MR_ROPE_COUNT } mr_rope_type;

typedef struct {
    mr_family family;
    int L, C, H, K, D, F;
    int32_t V;
    bool tied;     /* the head is the embedding matrix */
    bool qkv_bias; /* Qwen2 always, Llama and Qwen3 with attention_bias */
    bool o_bias;   /* Llama and Qwen3 with attention_bias */
    bool mlp_bias; /* Llama with mlp_bias */
    bool qk_norm;  /* Qwen3: RMS norm per head on q and k, before the rotation */
    float rms_eps;
    int max_positions;
    double rope_theta;
    mr_rope_type rope_type;
    double rope_factor, rope_low, rope_high; /* llama3; factor also for linear */
    int rope_original_positions;             /* llama3 */
    int32_t bos_id, eos_id;                  /* -1 when there is none; the first of a list */
} mr_model_config;

const char *mr_family_name(mr_family family); /* "llama", "qwen2", "qwen3" */

/* name is for messages. INVALID for a value that is missing, of another type or out of bounds. */
MR_NODISCARD mr_status mr_model_config_parse(mr_model_config *out, const char *name,
                                             const json_t *root, mr_error *err);
MR_NODISCARD mr_status mr_model_config_load(mr_model_config *out, const char *path, mr_error *err);
/* A config.json tree that transformers reads too (old and new); the caller owns it. NULL when
 * memory is out. */
json_t *mr_model_config_to_json(const mr_model_config *config);

/* The D/2 inverse frequencies after scaling. Computed in the order and precision of transformers
 * (float32), so that angles at far positions agree with it; held in double. */
void mr_rope_frequencies(const mr_model_config *config, double *inverse /* [D/2] */);

#endif
