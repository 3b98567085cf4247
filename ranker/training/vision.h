/* vision.h - CLIP's vision tower with a way back: pictures to the tokens of
 * encoders/image_encoder.h.
 *
 * A pass computes patch embeddings, the blocks up to the feature layer (LLaVA's -2 leaves out the
 * last), and the mean over side^2 cells of the patch grid. Later blocks and post_layernorm are
 * weights of the part too, so that what is saved is a whole tower, but they are frozen from the
 * start: nothing is computed through them.
 *
 *     const float *tokens = mr_vision_train_forward_f32(run, values, pixels, n);
 *     ...loss: d_tokens...
 *     mr_vision_train_backward_f32(run, values, d_tokens, gradients);
 *
 * Pixels have no gradient: they are data. As in every vision transformer the patch convolution has
 * a stride of its own size, so it is a product over flattened patches. Threads: one run, one
 * thread; any number of runs over the same weights.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_VISION_H
#define MR_RANKER_TRAINING_VISION_H

#include "encoders/clip.h"
#include "ranker/training/ops.h"
#include "ranker/training/steps.h"
#include "ranker/training/weights.h"

typedef struct {
    mr_clip_vision_config config;
    const char *prefix; /* of the names: "vision_model.", or what a LLaVA folder has; static */
    bool post_norm;     /* the folder has post_layernorm */
    int feature_layer;  /* as in clip.h: 0 to L, or counted from the end */
    int tokens;         /* of a picture: a square, at most the grid */
} mr_vision_shape;

/* Indexes into mr_weights. */
typedef struct {
    size_t norm1, norm1_bias; /* LayerNorm */
    mr_linear_layout qkv, out;
    size_t norm2, norm2_bias;
    mr_linear_layout fc1, fc2;
    size_t begin, end; /* weights of the block */
} mr_vision_block;

typedef struct {
    mr_vision_shape shape;
    size_t layer, side; /* blocks that are computed; cells in a row of the grid */
    size_t begin, end;  /* all weights of the tower */
    size_t class_embedding, positions;
    mr_linear_layout patch; /* [C, 3 p p] */
    size_t pre_norm, pre_norm_bias;
    mr_vision_block *block; /* [L], in the weights' arena */
} mr_vision_layout;

/* What a folder holds: CLIP, its vision model, or LLaVA, as clip.h opens them. */
MR_NODISCARD mr_status mr_vision_train_shape(mr_vision_shape *out, const char *folder,
                                             int feature_layer, int tokens, mr_error *err);

/* Adds the tower's weights to the current part. INVALID for a feature layer or a number of tokens
 * that the tower cannot give. */
MR_NODISCARD mr_status mr_vision_train_add(mr_vision_layout *out, const mr_vision_shape *shape,
                                           mr_weights *weights, mr_error *err);

#define REAL    float
#define NAME(x) x##_f32
#include "ranker/training/vision_decl.inc"
#undef REAL
#undef NAME
#define REAL    double
#define NAME(x) x##_f64
#include "ranker/training/vision_decl.inc"
#undef REAL
#undef NAME

#endif
