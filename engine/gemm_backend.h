/* gemm_backend.h - one row of the table of GEMM back ends; internal to gemm.c and its back ends.
 *
 * run gets shapes that gemm.c has checked, and M of at least 1. Bias is added by gemm.c's epilogue
 * (mr_gemm_add_bias), which a back end calls on each tile of y while it is still in cache.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_GEMM_BACKEND_H
#define MR_ENGINE_GEMM_BACKEND_H

#include "engine/gemm.h"

typedef struct {
    const mr_linear *linear;
    const mr_kernels *kernels;
    void *scratch;
    float *y;
    const float *x;
    size_t ldy, ldx, M;
} mr_gemm_call;

typedef struct {
    const char *name;
    mr_status (*prepare)(mr_linear *linear, mr_error *err); /* NULL: uses the weight as it is */
    size_t (*scratch_bytes)(size_t max_rows, size_t max_n, size_t max_k, int n_threads);
    void (*run)(const mr_gemm_call *call, mr_pool *pool);
} mr_gemm_backend;

extern const mr_gemm_backend mr_gemm_backend_blas;

/* y[m][n] += bias[n] for the tile rows [m, m + M), columns [n, n + N). */
void mr_gemm_add_bias(const mr_gemm_call *call, size_t m, size_t M, size_t n, size_t N);

#endif
