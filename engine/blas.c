/* blas.c - the OpenBLAS back end and training's products: the only file that calls OpenBLAS, and
 * the owner of its thread count.
 *
 * OpenBLAS runs one thread per call and we split the columns over our pool, so that its pool and
 * ours never wait for each other (with both, small products lose more than half their speed). It
 * has no half-precision product here: such weights are widened, one panel of rows per thread, into
 * scratch. Its kernels depend on the shape of the call, so bits depend on the batch: never for
 * scoring.
 * SPDX-License-Identifier: Apache-2.0 */
#include <cblas.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/bytes.h"
#include "engine/blas.h"
#include "engine/gemm_backend.h"

/* Rows of weights widened at a time: the panel is small beside the product that it feeds, and what
 * OpenBLAS packs again for each call (the activations) is small beside the panel. */
#define PANEL 192

typedef struct {
    const mr_gemm_call *call;
    size_t columns; /* of y per task */
    bool widen;     /* the weights go through scratch */
} blas_job;

static void set_one_thread(void)
{
    openblas_set_num_threads(1);
}

static void one_thread_per_call(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_one_thread);
}

static size_t blas_scratch_bytes(size_t max_rows, size_t max_n, size_t max_k, int n_threads)
{
    (void)max_rows;
    const size_t rows = max_n < PANEL ? max_n : PANEL;
    size_t panel, bytes;
    if (!mr_size_mul(rows, max_k, &panel) || !mr_size_mul(panel, sizeof(float), &panel) ||
        !mr_size_mul(panel, (size_t)n_threads, &bytes))
        return SIZE_MAX;
    return bytes;
}

static void blas_task(void *context, size_t begin, size_t end, int worker)
{
    const blas_job *job = context;
    const mr_gemm_call *call = job->call;
    const mr_linear *linear = call->linear;
    const mr_dtype dtype = linear->weight.dtype;
    const size_t K = linear->K, row_bytes = K * mr_dtype_size(dtype);

    for (size_t task = begin; task < end; task++) {
        const size_t n = task * job->columns;
        const size_t N = linear->N - n < job->columns ? linear->N - n : job->columns;
        const char *rows = (const char *)linear->weight.data + n * row_bytes;
        const void *w = rows;
        if (job->widen) {
            const size_t panel = (linear->N < PANEL ? linear->N : PANEL) * K;
            float *mine = (float *)call->scratch + (size_t)worker * panel;
            mr_dtype_to_f32(mine, rows, dtype, N * K);
            w = mine;
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)call->M, (blasint)N,
                    (blasint)K, 1.0f, call->x, (blasint)call->ldx, w, (blasint)K, 0.0f, call->y + n,
                    (blasint)call->ldy);
        mr_gemm_add_bias(call, 0, call->M, n, N);
    }
}

static void blas_run(const mr_gemm_call *call, mr_pool *pool)
{
    one_thread_per_call();
    const size_t N = call->linear->N;
    const size_t threads = (size_t)mr_pool_threads(pool);
    const mr_tensor *weight = &call->linear->weight;
    blas_job job = {.call = call, .columns = mr_size_round_up((N + threads - 1) / threads, 16)};
    /* A mapped tensor may stand at any byte; OpenBLAS wants whole floats. */
    job.widen = weight->dtype != MR_DTYPE_F32 || (uintptr_t)weight->data % sizeof(float) != 0;
    if (job.widen && job.columns > PANEL)
        job.columns = PANEL;
    mr_parallel_for(pool, (N + job.columns - 1) / job.columns, 1, blas_task, &job);
}

const mr_gemm_backend mr_gemm_backend_blas = {
    .name = "blas", .scratch_bytes = blas_scratch_bytes, .run = blas_run};

/* ---- Training's products --------------------------------------------------------------------- */

static CBLAS_TRANSPOSE transpose(bool wanted)
{
    return wanted ? CblasTrans : CblasNoTrans;
}

void mr_blas_gemm_f32(bool transpose_a, bool transpose_b, size_t M, size_t N, size_t K, float alpha,
                      const float *a, size_t lda, const float *b, size_t ldb, float beta, float *c,
                      size_t ldc)
{
    one_thread_per_call();
    cblas_sgemm(CblasRowMajor, transpose(transpose_a), transpose(transpose_b), (blasint)M,
                (blasint)N, (blasint)K, alpha, a, (blasint)lda, b, (blasint)ldb, beta, c,
                (blasint)ldc);
}

void mr_blas_gemm_f64(bool transpose_a, bool transpose_b, size_t M, size_t N, size_t K,
                      double alpha, const double *a, size_t lda, const double *b, size_t ldb,
                      double beta, double *c, size_t ldc)
{
    one_thread_per_call();
    cblas_dgemm(CblasRowMajor, transpose(transpose_a), transpose(transpose_b), (blasint)M,
                (blasint)N, (blasint)K, alpha, a, (blasint)lda, b, (blasint)ldb, beta, c,
                (blasint)ldc);
}
