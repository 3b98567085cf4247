/* blas.h - matrix products for training, in float and in double, on the calling thread alone.
 *
 * c[M, N] = alpha x op(a)[M, K] op(b)[K, N] + beta x c, row major; op transposes where told.
 * Leading dimensions count elements and are those of the matrices as they are stored. Sizes are
 * below 2^31. A call gives the same bits every time; another shape may sum in another order, so
 * never for scoring (gemm.h). Threads: any number of calls at once.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_BLAS_H
#define MR_ENGINE_BLAS_H

#include <stdbool.h>
#include <stddef.h>

void mr_blas_gemm_f32(bool transpose_a, bool transpose_b, size_t M, size_t N, size_t K, float alpha,
                      const float *a, size_t lda, const float *b, size_t ldb, float beta, float *c,
                      size_t ldc);
void mr_blas_gemm_f64(bool transpose_a, bool transpose_b, size_t M, size_t N, size_t K,
                      double alpha, const double *a, size_t lda, const double *b, size_t ldb,
                      double beta, double *c, size_t ldc);

#endif
