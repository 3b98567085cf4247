/* user_encoder.h - the user encoder of encoders/user_encoder.h with a way back.
 *
 * A pass takes the histories of many users at once: their item vectors one history after the other,
 * the newest last. The linear layers run over all of them together, attention within each.
 *
 *     const float *users = mr_user_train_forward_f32(run, values, items, rows_of, n_users);
 *     ...loss: d_users...
 *     mr_user_train_backward_f32(run, values, d_users, gradients, d_items);
 *
 * Threads: one run, one thread; any number of runs over the same weights.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_USER_ENCODER_H
#define MR_RANKER_TRAINING_USER_ENCODER_H

#include "encoders/user_config.h"
#include "ranker/training/ops.h"
#include "ranker/training/steps.h"
#include "ranker/training/weights.h"

/* Indexes into mr_weights. A block of the history has q, k and v as the parts of q; one of the
 * latents has q alone, and k and v as the parts of kv. */
typedef struct {
    size_t norm, context_norm; /* context_norm: MR_NO_WEIGHT in the history's blocks */
    mr_linear_layout q, kv, o;
    size_t mlp_norm;
    mr_linear_layout gate_up, down;
} mr_user_block;

typedef struct {
    mr_user_config config;
    mr_linear_layout input;
    size_t positions;           /* MR_NO_WEIGHT unless they are learned */
    mr_user_block *layer;       /* [layers], in the weights' arena */
    size_t latents;             /* [latents][C] */
    mr_user_block *cross_layer; /* [cross_layers] */
    size_t final_norm;
    size_t history_begin, history_end; /* weights that the history's own part has */
} mr_user_layout;

/* Adds the weights of a user encoder to the current part. config must have passed
 * mr_user_config_parse. */
MR_NODISCARD mr_status mr_user_train_add(mr_user_layout *out, const mr_user_config *config,
                                         mr_weights *weights, mr_error *err);

#define REAL    float
#define NAME(x) x##_f32
#include "ranker/training/user_encoder_decl.inc"
#undef REAL
#undef NAME
#define REAL    double
#define NAME(x) x##_f64
#include "ranker/training/user_encoder_decl.inc"
#undef REAL
#undef NAME

#endif
