/* model_layout.h - which tensors a decoder has, their names and shapes: one table that binding,
 * closing and writing walk.
 *
 * Every shape is spelled in dimension letters, so that an error can say which line of config.json
 * it contradicts. Names are those inside a block, without ".weight" and ".bias".
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_MODEL_LAYOUT_H
#define MR_ENGINE_MODEL_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "engine/model_config.h"
#include "engine/safetensors.h"

typedef enum { MR_DIM_C, MR_DIM_F, MR_DIM_V, MR_DIM_D, MR_DIM_HD, MR_DIM_KD } mr_dim;

/* What of config.json decides that an optional tensor is there. */
typedef enum {
    MR_PART_ALWAYS,
    MR_PART_QKV_BIAS,
    MR_PART_O_BIAS,
    MR_PART_MLP_BIAS,
    MR_PART_QK_NORM,
} mr_part;

/* One member of mr_layer. */
typedef struct {
    const char *name;  /* "self_attn.q_proj" */
    size_t offset;     /* in mr_layer */
    bool linear;       /* mr_linear with weight [rows, cols], else float * of [rows] */
    mr_dim rows, cols; /* cols: of a linear only */
    mr_part part;      /* decides on a linear's bias, or on the vector itself */
} mr_layer_slot;

#define MR_LAYER_SLOTS 11
extern const mr_layer_slot mr_layer_slots[MR_LAYER_SLOTS];

int64_t mr_dim_value(const mr_model_config *config, mr_dim dim);
bool mr_part_is_there(const mr_model_config *config, mr_part part);

/* For messages: "num_key_value_heads 8 of head_dim 128"; "attention_bias false". */
#define MR_REASON 128
void mr_dim_reason(const mr_model_config *config, mr_dim dim, char out[MR_REASON]);
void mr_part_reason(const mr_model_config *config, mr_part part, char out[MR_REASON]);

/* Every tensor of such a model under the "model." prefix, in the order of a forward pass, data
 * NULL: what a writer of checkpoints walks. In the arena. */
MR_NODISCARD mr_status mr_model_layout(const mr_model_config *config, mr_dtype dtype,
                                       mr_arena *arena, mr_tensor **tensors, size_t *n,
                                       mr_error *err);

#endif
