/* gemm.h - y = x W^T (+ bias) for a linear layer, behind one interface for every precision.
 *
 * A linear is prepared once, at load: the back end may keep the borrowed weights as they are, pack
 * them, or quantise them (packing counts against the 1.15x memory rule). Running it is a plain
 * call that allocates nothing: scratch comes from the session, sized by mr_gemm_scratch_bytes.
 *
 *   MR_GEMM_SCORING  our kernels on the mapped weights, fixed K order: the same bits in any batch.
 *   MR_GEMM_BLAS     OpenBLAS, f32; weights in half precision are widened panel by panel. Fast for
 *                    many rows, and chooses its kernels by shape, so it never scores: it encodes,
 *                    trains and checks.
 *
 * bf16 and int8 kernels are further rows of the same table.
 * Threads: a prepared linear is read-only and may be shared. Work is spread over the pool.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_GEMM_H
#define MR_ENGINE_GEMM_H

#include <stddef.h>

#include "core/error.h"
#include "core/threads.h"
#include "engine/kernels.h"
#include "engine/safetensors.h"

typedef enum { MR_GEMM_SCORING, MR_GEMM_BLAS, MR_GEMM_COUNT } mr_gemm_kind;

typedef struct {
    mr_tensor weight;  /* [N, K], borrowed */
    const float *bias; /* [N] f32, borrowed, or NULL */
    size_t N, K;
    mr_gemm_kind kind;
    void *packed; /* back end's own, owned by the linear; NULL when it uses weight as is */
    size_t packed_bytes;
} mr_linear;

const char *mr_gemm_name(mr_gemm_kind kind); /* "scoring", "blas" */

/* weight must be 2-D of a weight dtype. */
MR_NODISCARD mr_status mr_linear_prepare(mr_linear *out, mr_gemm_kind kind, const mr_tensor *weight,
                                         const float *bias, mr_error *err);
void mr_linear_done(mr_linear *linear); /* idempotent */

/* Scratch for up to max_rows rows of the widest of the given linears, per call in flight. */
size_t mr_gemm_scratch_bytes(mr_gemm_kind kind, size_t max_rows, size_t max_n, size_t max_k,
                             int n_threads);

/* y[M, N] = x[M, K] W^T + bias. y and x must not overlap. */
void mr_linear_run(const mr_linear *linear, const mr_kernels *kernels, mr_pool *pool, void *scratch,
                   float *y, size_t ldy, const float *x, size_t ldx, size_t M);

#endif
