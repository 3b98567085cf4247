/* projector_train.h - the projectors of encoders/projector.h with a way back: identity, linear, and
 * a two-layer MLP with exact GELU, under the names of the serving file (linear_1, linear_2).
 *
 *     mr_projector_train_f32 *run; mr_projector_train_new_f32(&run, &layout, &weights, ops, max,
 * ..) const float *out = mr_projector_train_forward_f32(run, values, x, rows);
 *     ...loss: d_out...
 *     mr_projector_train_backward_f32(run, values, d_out, gradients, d_x);
 *
 * Threads: one run, one thread; any number of runs over the same weights.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_PROJECTOR_TRAIN_H
#define MR_RANKER_TRAINING_PROJECTOR_TRAIN_H

#include "ranker/training/ops.h"
#include "ranker/training/steps.h"
#include "ranker/training/weights.h"

typedef enum { MR_PROJECTOR_IDENTITY, MR_PROJECTOR_LINEAR, MR_PROJECTOR_MLP } mr_projector_form;

typedef struct {
    mr_projector_form form;
    size_t in, hidden, out; /* hidden: of an MLP */
    bool bias[2];           /* of linear_1 and linear_2 */
} mr_projector_shape;

typedef struct {
    mr_projector_shape shape;
    mr_linear_layout first, second;
} mr_projector_layout;

/* The shape of a projector's own file (its tensors without a prefix); path NULL: identity, of
 * `in` numbers. What is no projector of this kind is refused as in encoders/projector.h. */
MR_NODISCARD mr_status mr_projector_train_shape(mr_projector_shape *out, const char *path,
                                                size_t in, mr_error *err);

/* Adds the projector's weights to the current part: none for identity. INVALID for a width of 0,
 * and for an identity that changes the width. */
MR_NODISCARD mr_status mr_projector_train_add(mr_projector_layout *out,
                                              const mr_projector_shape *shape, mr_weights *weights,
                                              mr_error *err);

#define REAL    float
#define NAME(x) x##_f32
#include "ranker/training/projector_train_decl.inc"
#undef REAL
#undef NAME
#define REAL    double
#define NAME(x) x##_f64
#include "ranker/training/projector_train_decl.inc"
#undef REAL
#undef NAME

#endif
