/* kernels.h - the inner loops, one struct of function pointers per instruction set.
 *
 * generic is plain C, always present, and the oracle in tests; avx2 and later ones are its twins,
 * each in a file with its own compile flags. mr_kernels_select picks the best that this CPU has, at
 * run time; MIXRANK_KERNELS=generic overrides it. Kernels never allocate, fail or check shapes:
 * their callers do, once.
 *
 * Same bits: every function reduces in an order that depends on the length alone, never on how many
 * rows are done together, on alignment or on what lies beside the row. So the value of an output
 * element is a function of its own inputs, and a margin does not depend on the batch around it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_KERNELS_H
#define MR_ENGINE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "engine/dtype.h"

typedef struct {
    const char *name; /* "generic", "avx2": shown by `mixrank check`, part of numerics_id */

    /* y[m * ldy + n] = sum_k a[m * lda + k] * w[n * ldw + k], for m < M, n < N.
     * a: f32 rows. w: rows of a weight dtype (F32, F16, BF16), widened exactly, accumulated in f32.
     * ldw counts elements. No alignment is assumed. */
    void (*dot_rows)(float *y, size_t ldy, const float *a, size_t lda, size_t M, const void *w,
                     mr_dtype dtype, size_t ldw, size_t N, size_t K);

    /* out[r * ldo + d] += sum_p weight[r * ldw + p] * v[p * ldv + d], p ascending, for r < R,
     * d < D. It adds one product at a time, so two calls over the halves of P give the same bits as
     * one call over the whole. */
    void (*weighted_sum)(float *out, size_t ldo, const float *weight, size_t ldw, size_t R,
                         const float *v, size_t ldv, size_t P, size_t D);

    /* x[i] = exp(x[i] - max) for i < n; returns their sum, in a fixed order. Relative error of the
     * exponential is under 2e-7. max is the largest x; -INFINITY elsewhere masks, NaN gives NaN. */
    float (*softmax_exp)(float *x, size_t n, float max);
    float (*max)(const float *x, size_t n); /* -INFINITY for n = 0; may pass over a NaN */

    /* y = x / sqrt(mean(x^2) + eps) * weight, one row; y may be x. weight: f32. */
    void (*rms_norm)(float *y, const float *x, const float *weight, size_t n, float eps);
    /* y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight + bias; y may be x. CLIP. */
    void (*layer_norm)(float *y, const float *x, const float *weight, const float *bias, size_t n,
                       float eps);

    /* gate[i] = silu(gate[i]) * up[i]. */
    void (*silu_mul)(float *gate, const float *up, size_t n);
    /* x[i] = gelu(x[i]), the exact (erf) form. */
    void (*gelu)(float *x, size_t n);
    /* x[i] = x[i] / (1 + exp(-1.702 x[i])): what CLIP was trained with in place of GELU. */
    void (*quick_gelu)(float *x, size_t n);

    void (*add)(float *y, const float *x, size_t n); /* y[i] += x[i] */

    /* Rotates pairs (x[i], x[i + D/2]), as transformers' rotate_half does. cos, sin: [D/2]. */
    void (*rope)(float *x, const float *cos, const float *sin, size_t D);
} mr_kernels;

#define MR_KERNELS_MAX 8

extern const mr_kernels mr_kernels_generic;
/* In x86-64 builds only, and not every CPU can run it: ask mr_kernels_available. */
extern const mr_kernels mr_kernels_avx2;
/* The set that MIXRANK_KERNELS names, if this machine can run it, else the best that it can. */
const mr_kernels *mr_kernels_select(void);
/* All sets that this machine can run, generic first and the best last; for tests and `mixrank
 * check`. Returns how many. */
size_t mr_kernels_available(const mr_kernels *list[MR_KERNELS_MAX]);
/* NULL when there is no such set here: lets `mixrank check` say that MIXRANK_KERNELS is misspelt.
 */
const mr_kernels *mr_kernels_find(const char *name);

#endif
