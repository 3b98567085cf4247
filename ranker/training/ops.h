/* ops.h - the steps of training that are not matrix products: values and gradients, row by row.
 *
 * One source (ops.inc), three compilations: float for every machine, float for AVX2, and double for
 * checking gradients. mr_ops_select picks at run time, following the engine's choice of kernels.
 *
 * Conventions. Rows stand `ld` elements apart. A backward step takes dy, the gradient with respect
 * to its output, and *adds* to the gradients of weights, so that batches accumulate; whether it
 * sets or adds the gradient of its input is said with it. Gradients of weights may be NULL: frozen.
 * Sums run in an order that depends on the width alone.
 * Threads: pure. Nothing is allocated.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_OPS_H
#define MR_RANKER_TRAINING_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REAL    float
#define NAME(x) x##_f32
#include "ranker/training/ops_decl.inc"
#undef REAL
#undef NAME
#define REAL    double
#define NAME(x) x##_f64
#include "ranker/training/ops_decl.inc"
#undef REAL
#undef NAME

extern const mr_ops_f32 mr_ops_generic_f32;
extern const mr_ops_f64 mr_ops_generic_f64;
#ifdef MR_HAVE_AVX2_OPS
extern const mr_ops_f32 mr_ops_avx2_f32;
#endif

/* The best set that this CPU runs; MIXRANK_KERNELS=generic forces the plain one. */
const mr_ops_f32 *mr_ops_select_f32(void);
/* The only one there is in double. */
const mr_ops_f64 *mr_ops_select_f64(void);

#endif
