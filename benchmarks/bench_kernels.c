/* bench_kernels.c - the linear layer at the shapes of a 0.6 B decoder, against the machine's limit.
 *
 *     bench_kernels [--threads N] [--seconds S]
 *
 * Prints JSON lines: GFLOP/s for each back end, weight type and number of rows, and the share of
 * the f32 peak, which a register-only FMA loop measures in the same run on the same threads. The
 * same share per second of CPU time, cpu_share, says how good the code is where share also says how
 * busy the machine was. Weights rotate over copies that together exceed the last-level cache, as
 * layers do in a forward pass, so small row counts show the memory's limit.
 * Every product is checked against the double-precision generic kernel before it is timed.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "benchmarks/bench.h"
#include "benchmarks/bench_peak.h"
#include "core/options.h"
#include "core/rng.h"
#include "core/threads.h"
#include "engine/gemm.h"
#include "engine/kernels_f64.h"

#define MAX_ROWS     1024
#define COPIES_BYTES ((size_t)96 << 20)

typedef struct {
    int64_t threads;
    double seconds;
} options;

static const mr_option option_table[] = {
    MR_OPTION_INT("threads", 't', "N", options, threads, 0, MR_MAX_THREADS,
                  "threads; 0: the CPUs of this process"),
    MR_OPTION_REAL("seconds", 's', "S", options, seconds, 0.01, 60, "least time per figure"),
    MR_OPTION_END,
};
static const mr_command_help help = {"bench_kernels", "[options]",
                                     "Linear layers in GFLOP/s and as a share of the FMA peak.",
                                     "  bench_kernels --threads 2\n"};

/* ---- One figure ------------------------------------------------------------------------------ */

typedef struct {
    size_t N, K;
    mr_dtype dtype;
    size_t copies;
    char *block;
    char *weights; /* in block: [copies][N][K], 8 bytes off alignment, as a file's tensors may be */
    float *x;      /* [MAX_ROWS][K], aligned as a session's rows */
    float *y;      /* [MAX_ROWS][N] */
    void *scratch;
} matrices;

/* Largest |y - f64| over the first, the middle and the last row, over the largest |f64|. */
static double relative_error(const matrices *m, size_t M)
{
    double *x = calloc(m->K, sizeof *x), *y = calloc(m->N, sizeof *y), worst = (double)NAN,
           largest = 0;
    if (x && y) {
        worst = 0;
        for (int i = 0; i < 3; i++) {
            const size_t row = (M - 1) * (size_t)i / 2;
            for (size_t k = 0; k < m->K; k++)
                x[k] = (double)m->x[row * m->K + k];
            mr_kernels_generic_f64.dot_rows(y, m->N, x, m->K, 1, m->weights, m->dtype, m->K, m->N,
                                            m->K);
            for (size_t n = 0; n < m->N; n++) {
                largest = fmax(largest, fabs(y[n]));
                worst = fmax(worst, fabs((double)m->y[row * m->N + n] - y[n]));
            }
        }
    }
    free(x);
    free(y);
    return worst / largest;
}

static int figure(const options *opt, mr_pool *pool, peak_rate peak, const matrices *m,
                  mr_gemm_kind kind, const mr_kernels *kernels, size_t M)
{
    mr_error err;
    mr_linear linear[64];
    const size_t bytes = m->N * m->K * mr_dtype_size(m->dtype);
    for (size_t i = 0; i < m->copies; i++) {
        const mr_tensor weight = {.name = "w",
                                  .data = m->weights + i * bytes,
                                  .dtype = m->dtype,
                                  .n_dims = 2,
                                  .shape = {(int64_t)m->N, (int64_t)m->K},
                                  .bytes = bytes};
        if (mr_linear_prepare(&linear[i], kind, &weight, NULL, &err) != MR_OK) {
            fprintf(stderr, "bench_kernels: %s\n", err.message);
            return 1;
        }
    }

    mr_linear_run(&linear[0], kernels, pool, m->scratch, m->y, m->N, m->x, m->K, M);
    const double error = relative_error(m, M);
    if (!(error < 1e-5)) {
        fprintf(stderr, "bench_kernels: %s/%s M %zu: error %g against f64, expected under 1e-5\n",
                mr_gemm_name(kind), kernels->name, M, error);
        return 1;
    }

    size_t turn = 0;
    bench_clock clock = bench_start(opt->seconds, 5);
    while (bench_more(&clock)) {
        bench_tick(&clock);
        mr_linear_run(&linear[turn], kernels, pool, m->scratch, m->y, m->N, m->x, m->K, M);
        bench_tock(&clock);
        turn = turn + 1 < m->copies ? turn + 1 : 0;
    }
    const double seconds = bench_median(&clock);
    const double work = 2e-9 * (double)M * (double)m->N * (double)m->K, gflops = work / seconds;
    const double cpu_gflops = work * clock.n / clock.cpu_seconds;

    bench_line_begin("kernels", "linear");
    printf(", \"backend\": \"%s\", \"kernels\": \"%s\", \"weights\": \"%s\", \"threads\": %d, "
           "\"M\": %zu, \"N\": %zu, \"K\": %zu, \"gflops\": %.1f, \"peak_gflops\": %.1f, "
           "\"share\": %.3f, \"cpu_share\": %.3f, \"weight_gb_s\": %.1f, \"repetitions\": %d, "
           "\"error\": %.1e",
           mr_gemm_name(kind), kernels->name, mr_dtype_name(m->dtype), mr_pool_threads(pool), M,
           m->N, m->K, gflops, peak.gflops, gflops / peak.gflops, cpu_gflops / peak.cpu_gflops,
           1e-9 * (double)bytes / seconds, clock.n, error);
    bench_line_end();
    return 0;
}

static int shape(const options *opt, mr_pool *pool, peak_rate peak, size_t N, size_t K,
                 mr_dtype dtype)
{
    static const size_t rows[] = {1, 8, 32, 64, 256, MAX_ROWS};
    const mr_kernels *best = mr_kernels_select();
    const size_t bytes = N * K * mr_dtype_size(dtype);
    int failed = 1;
    matrices m = {.N = N, .K = K, .dtype = dtype, .copies = 1 + COPIES_BYTES / bytes};
    m.block = aligned_alloc(64, m.copies * bytes + 64);
    m.x = aligned_alloc(64, MAX_ROWS * K * sizeof *m.x);
    m.y = aligned_alloc(64, MAX_ROWS * N * sizeof *m.y);
    m.scratch =
        malloc(mr_gemm_scratch_bytes(MR_GEMM_BLAS, MAX_ROWS, N, K, mr_pool_threads(pool)) + 1);
    if (!m.block || !m.x || !m.y || !m.scratch)
        goto out;
    m.weights = m.block + 8;

    mr_rng rng = mr_rng_seed(1);
    for (size_t i = 0; i < MAX_ROWS * K; i++)
        m.x[i] = (float)(mr_rng_uniform(&rng) - 0.5);
    for (size_t i = 0; i < N * K; i++) {
        const float value = (float)(mr_rng_uniform(&rng) - 0.5);
        mr_dtype_from_f32(m.weights + i * mr_dtype_size(dtype), dtype, &value, 1);
    }
    for (size_t i = 1; i < m.copies; i++)
        memcpy(m.weights + i * bytes, m.weights, bytes);

    failed = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        failed |= figure(opt, pool, peak, &m, MR_GEMM_SCORING, best, rows[i]);
        failed |= figure(opt, pool, peak, &m, MR_GEMM_BLAS, best, rows[i]);
    }
    failed |= figure(opt, pool, peak, &m, MR_GEMM_SCORING, &mr_kernels_generic, 64);

out:
    free(m.block);
    free(m.x);
    free(m.y);
    free(m.scratch);
    return failed;
}

int main(int argc, char **argv)
{
    options opt = {.threads = 0, .seconds = 0.3};
    int code;
    mr_error err;
    mr_pool *pool = NULL;
    const options defaults = opt;

    if (!bench_read_options(&help, option_table, argc, argv, &opt, &defaults, &code))
        return code;
    if (mr_pool_new(&pool, (int)opt.threads, &err) != MR_OK) {
        fprintf(stderr, "bench_kernels: %s\n", err.message);
        return 1;
    }

    const peak_rate peak = measure_peak(pool);
    int failed = 0;
    static const mr_dtype dtypes[] = {MR_DTYPE_F32, MR_DTYPE_BF16, MR_DTYPE_F16};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        failed |= shape(&opt, pool, peak, 3072, 1024, dtypes[i]);
        failed |= shape(&opt, pool, peak, 1024, 3072, dtypes[i]);
    }
    mr_pool_free(pool);
    return failed;
}
