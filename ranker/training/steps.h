/* steps.h - linear layers and attention without a mask, with their ways back: what the projector,
 * the user encoder and the vision tower are made of. Private to ranker/training; steps.inc has the
 * computing part, for one REAL.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_STEPS_H
#define MR_RANKER_TRAINING_STEPS_H

#include "ranker/training/weights.h"

#define MR_LINEAR_MAX_PARTS 3

/* One matrix product over up to three layers that read the same input: q, k and v, or gate and up.
 * Their weights stand together, [out, in], and so do their biases. */
typedef struct {
    size_t in, out; /* out: of all parts together */
    size_t n_parts;
    size_t rows[MR_LINEAR_MAX_PARTS];
    size_t weight[MR_LINEAR_MAX_PARTS], bias[MR_LINEAR_MAX_PARTS]; /* bias: or MR_NO_WEIGHT */
} mr_linear_layout;

typedef struct {
    const char *name; /* "self_attn.q_proj" */
    size_t rows;
} mr_linear_part;

/* Adds "<prefix><name>.weight" of every part, then the biases. */
mr_linear_layout mr_linear_add(mr_weights *weights, const char *prefix, const mr_linear_part *part,
                               size_t n_parts, size_t in, bool bias);
/* Adds "<prefix><name>", a vector of n. */
size_t mr_vector_add(mr_weights *weights, const char *prefix, const char *name, mr_weight_kind kind,
                     size_t n);
/* Adds "<prefix><name>", [rows, n]. */
size_t mr_matrix_add(mr_weights *weights, const char *prefix, const char *name, size_t rows,
                     size_t n);

/* Heads of attention: H of queries, K of keys and values (H is a multiple), D numbers each. */
typedef struct {
    size_t H, K, D;
} mr_heads;

#endif
