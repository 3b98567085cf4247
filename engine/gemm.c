/* gemm.c - linear layers: the table of back ends, and the scoring one.
 *
 * Scoring splits y into tiles of N_CHUNK columns by as many rows as leave every thread something to
 * do; a tile is one call of the dot_rows kernel. The split is free to follow the machine: an
 * element's bits do not depend on it (kernels.h).
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/gemm.h"

#include <stdint.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "engine/gemm_backend.h"

/* Columns of a tile: enough that handing it out costs nothing, few enough that two threads finish
 * together. Rows are split only when there are too few columns to go round. */
#define N_CHUNK          64
#define M_CHUNK          48
#define TASKS_PER_THREAD 4

typedef struct {
    const mr_gemm_call *call;
    size_t m_chunk, m_chunks;
} scoring_job;

static void scoring_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    const scoring_job *job = context;
    const mr_gemm_call *call = job->call;
    const mr_linear *linear = call->linear;
    const size_t row_bytes = linear->K * mr_dtype_size(linear->weight.dtype);

    for (size_t task = begin; task < end; task++) {
        const size_t n = task / job->m_chunks * N_CHUNK;
        const size_t m = task % job->m_chunks * job->m_chunk;
        const size_t N = linear->N - n < N_CHUNK ? linear->N - n : N_CHUNK;
        const size_t M = call->M - m < job->m_chunk ? call->M - m : job->m_chunk;
        call->kernels->dot_rows(call->y + m * call->ldy + n, call->ldy, call->x + m * call->ldx,
                                call->ldx, M, (const char *)linear->weight.data + n * row_bytes,
                                linear->weight.dtype, linear->K, N, linear->K);
        mr_gemm_add_bias(call, m, M, n, N);
    }
}

static void scoring_run(const mr_gemm_call *call, mr_pool *pool)
{
    const size_t threads = (size_t)mr_pool_threads(pool);
    const size_t n_chunks = (call->linear->N + N_CHUNK - 1) / N_CHUNK;
    scoring_job job = {.call = call, .m_chunk = mr_size_round_up(call->M, M_CHUNK), .m_chunks = 1};
    while (threads > 1 && job.m_chunk > M_CHUNK &&
           n_chunks * job.m_chunks < threads * TASKS_PER_THREAD) {
        job.m_chunk = mr_size_round_up(job.m_chunk / 2, M_CHUNK);
        job.m_chunks = (call->M + job.m_chunk - 1) / job.m_chunk;
    }
    mr_parallel_for(pool, n_chunks * job.m_chunks, 1, scoring_task, &job);
}

static const mr_gemm_backend scoring = {.name = "scoring", .run = scoring_run};

static const mr_gemm_backend *const backends[MR_GEMM_COUNT] = {
    [MR_GEMM_SCORING] = &scoring,
    [MR_GEMM_BLAS] = &mr_gemm_backend_blas,
};

const char *mr_gemm_name(mr_gemm_kind kind)
{
    return backends[kind]->name;
}

void mr_gemm_add_bias(const mr_gemm_call *call, size_t m, size_t M, size_t n, size_t N)
{
    const float *bias = call->linear->bias;
    if (!bias)
        return;
    for (size_t i = m; i < m + M; i++)
        call->kernels->add(call->y + i * call->ldy + n, bias + n, N);
}

mr_status mr_linear_prepare(mr_linear *out, mr_gemm_kind kind, const mr_tensor *weight,
                            const float *bias, mr_error *err)
{
    const char *name = weight->name ? weight->name : "(unnamed)";
    if ((unsigned)kind >= MR_GEMM_COUNT)
        return MR_FAIL(err, INVALID, "GEMM back end %d; there are %d", (int)kind, MR_GEMM_COUNT);
    if (!mr_dtype_is_weight(weight->dtype))
        return MR_FAIL(err, UNSUPPORTED, "tensor '%s' is %s; a linear layer takes F32, F16 or BF16",
                       name, mr_dtype_name(weight->dtype));
    if (weight->n_dims != 2 || weight->shape[0] < 1 || weight->shape[1] < 1)
        return MR_FAIL(err, MISMATCH,
                       "tensor '%s' has %d dimensions (the first is %lld); a linear "
                       "layer takes [outputs, inputs], both at least 1",
                       name, weight->n_dims,
                       weight->n_dims > 0 ? (long long)weight->shape[0] : 0LL);

    mr_linear linear = {.weight = *weight,
                        .bias = bias,
                        .N = (size_t)weight->shape[0],
                        .K = (size_t)weight->shape[1],
                        .kind = kind};
    size_t elements, bytes;
    if (!mr_size_mul(linear.N, linear.K, &elements) ||
        !mr_size_mul(elements, mr_dtype_size(weight->dtype), &bytes) || bytes > weight->bytes ||
        !weight->data)
        return MR_FAIL(err, MISMATCH, "tensor '%s' [%zu, %zu] %s holds %zu bytes: too few", name,
                       linear.N, linear.K, mr_dtype_name(weight->dtype), weight->bytes);

    if (backends[kind]->prepare) {
        mr_status status = backends[kind]->prepare(&linear, err);
        if (status != MR_OK)
            return status;
    }
    *out = linear;
    return MR_OK;
}

void mr_linear_done(mr_linear *linear)
{
    if (!linear)
        return;
    free(linear->packed);
    *linear = (mr_linear){0};
}

size_t mr_gemm_scratch_bytes(mr_gemm_kind kind, size_t max_rows, size_t max_n, size_t max_k,
                             int n_threads)
{
    const mr_gemm_backend *backend = backends[kind];
    return backend->scratch_bytes ? backend->scratch_bytes(max_rows, max_n, max_k, n_threads) : 0;
}

void mr_linear_run(const mr_linear *linear, const mr_kernels *kernels, mr_pool *pool, void *scratch,
                   float *y, size_t ldy, const float *x, size_t ldx, size_t M)
{
    if (M == 0)
        return;
    const mr_gemm_call call = {linear, kernels, scratch, y, x, ldy, ldx, M};
    backends[linear->kind]->run(&call, pool);
}
