/* kernels_f64.h - the generic kernels in double precision: what float kernels and gradients are
 * checked against.
 *
 * Compiled from the same source as mr_kernels_generic (kernels_generic.inc), so that the formulas
 * cannot drift apart. Members mean what kernels.h says; weights keep their storage types.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_KERNELS_F64_H
#define MR_ENGINE_KERNELS_F64_H

#include <stddef.h>

#include "engine/dtype.h"

typedef struct {
    const char *name;
    void (*dot_rows)(double *y, size_t ldy, const double *a, size_t lda, size_t M, const void *w,
                     mr_dtype dtype, size_t ldw, size_t N, size_t K);
    void (*weighted_sum)(double *out, size_t ldo, const double *weight, size_t ldw, size_t R,
                         const double *v, size_t ldv, size_t P, size_t D);
    double (*softmax_exp)(double *x, size_t n, double max);
    double (*max)(const double *x, size_t n);
    void (*rms_norm)(double *y, const double *x, const double *weight, size_t n, double eps);
    void (*layer_norm)(double *y, const double *x, const double *weight, const double *bias,
                       size_t n, double eps);
    void (*silu_mul)(double *gate, const double *up, size_t n);
    void (*gelu)(double *x, size_t n);
    void (*quick_gelu)(double *x, size_t n);
    void (*add)(double *y, const double *x, size_t n);
    void (*rope)(double *x, const double *cos, const double *sin, size_t D);
} mr_kernels_f64;

extern const mr_kernels_f64 mr_kernels_generic_f64;

#endif
