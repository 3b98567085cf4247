/* bench_kernels.c - the linear layer at the shapes of a 0.6 B decoder, against the machine's limit.
 *
 *     bench_kernels [--threads N] [--seconds S]
 *
 * Prints JSON lines: GFLOP/s for each back end, weight type and number of rows, and the share of
 * the f32 peak, which a register-only FMA loop measures in the same run on the same threads.
 * Weights rotate over copies that together exceed the last-level cache, as layers do in a forward
 * pass, so small row counts show the memory's limit. Every product is checked against the
 * double-precision generic kernel before it is timed. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "benchmarks/bench.h"
#include "core/options.h"
#include "core/rng.h"
#include "core/threads.h"
#include "engine/gemm.h"
#include "engine/kernels_f64.h"

#if defined(__x86_64__) && defined(__GNUC__)
#    include <immintrin.h>
#    define HAVE_PEAK_LOOP 1
#endif

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

/* ---- The machine's limit --------------------------------------------------------------------- */

#define PEAK_ROUNDS 4000000

#ifdef HAVE_PEAK_LOOP
/* 12 independent chains of 8 lanes: enough to cover the latency of two FMA units. */
__attribute__((target("avx2,fma"))) static void peak_task(void *context, size_t begin, size_t end,
                                                          int worker)
{
    float *sink = (float *)context + worker * 16;
    for (size_t task = begin; task < end; task++) {
        __m256 a[12];
        const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
        for (int i = 0; i < 12; i++)
            a[i] = _mm256_set1_ps((float)(i + 1));
        for (int round = 0; round < PEAK_ROUNDS; round++) {
            a[0] = _mm256_fmadd_ps(a[0], x, y);
            a[1] = _mm256_fmadd_ps(a[1], x, y);
            a[2] = _mm256_fmadd_ps(a[2], x, y);
            a[3] = _mm256_fmadd_ps(a[3], x, y);
            a[4] = _mm256_fmadd_ps(a[4], x, y);
            a[5] = _mm256_fmadd_ps(a[5], x, y);
            a[6] = _mm256_fmadd_ps(a[6], x, y);
            a[7] = _mm256_fmadd_ps(a[7], x, y);
            a[8] = _mm256_fmadd_ps(a[8], x, y);
            a[9] = _mm256_fmadd_ps(a[9], x, y);
            a[10] = _mm256_fmadd_ps(a[10], x, y);
            a[11] = _mm256_fmadd_ps(a[11], x, y);
        }
        for (int i = 1; i < 12; i++)
            a[0] = _mm256_add_ps(a[0], a[i]);
        sink[0] += _mm256_cvtss_f32(a[0]);
    }
}

/* GFLOP/s of all threads together; the best of several, for a limit is a limit. */
static double peak_gflops(mr_pool *pool)
{
    static float sink[MR_MAX_THREADS * 16];
    const size_t threads = (size_t)mr_pool_threads(pool);
    if (!mr_kernels_find("avx2"))
        return (double)NAN;
    bench_clock clock = bench_start(0.5, 5);
    while (bench_more(&clock)) {
        bench_tick(&clock);
        mr_parallel_for(pool, threads, 1, peak_task, sink);
        bench_tock(&clock);
    }
    return (double)threads * PEAK_ROUNDS * 12 * 16 / bench_quantile(&clock, 0) * 1e-9;
}
#else
static double peak_gflops(mr_pool *pool)
{
    (void)pool;
    return (double)NAN;
}
#endif

/* ---- One figure ------------------------------------------------------------------------------ */

typedef struct {
    size_t N, K;
    mr_dtype dtype;
    size_t copies;
    char *weights; /* [copies][N][K] */
    float *x;      /* [MAX_ROWS][K] */
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

static int figure(const options *opt, mr_pool *pool, double peak, const matrices *m,
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
    const double gflops = 2e-9 * (double)M * (double)m->N * (double)m->K / seconds;

    bench_line_begin("kernels", "linear");
    printf(", \"backend\": \"%s\", \"kernels\": \"%s\", \"weights\": \"%s\", \"threads\": %d, "
           "\"M\": %zu, \"N\": %zu, \"K\": %zu, \"gflops\": %.1f, \"peak_gflops\": %.1f, "
           "\"share\": %.3f, \"weight_gb_s\": %.1f, \"repetitions\": %d, \"error\": %.1e",
           mr_gemm_name(kind), kernels->name, mr_dtype_name(m->dtype), mr_pool_threads(pool), M,
           m->N, m->K, gflops, peak, gflops / peak, 1e-9 * (double)bytes / seconds, clock.n, error);
    bench_line_end();
    return 0;
}

static int shape(const options *opt, mr_pool *pool, double peak, size_t N, size_t K, mr_dtype dtype)
{
    static const size_t rows[] = {1, 8, 32, 64, 256, MAX_ROWS};
    const mr_kernels *best = mr_kernels_select();
    const size_t bytes = N * K * mr_dtype_size(dtype);
    int failed = 1;
    matrices m = {.N = N, .K = K, .dtype = dtype, .copies = 1 + COPIES_BYTES / bytes};
    m.weights = malloc(m.copies * bytes);
    m.x = malloc(MAX_ROWS * K * sizeof *m.x);
    m.y = malloc(MAX_ROWS * N * sizeof *m.y);
    m.scratch =
        malloc(mr_gemm_scratch_bytes(MR_GEMM_BLAS, MAX_ROWS, N, K, mr_pool_threads(pool)) + 1);
    if (!m.weights || !m.x || !m.y || !m.scratch)
        goto out;

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
    free(m.weights);
    free(m.x);
    free(m.y);
    free(m.scratch);
    return failed;
}

int main(int argc, char **argv)
{
    options opt = {.threads = 0, .seconds = 0.3};
    int n_positional;
    bool help_wanted;
    mr_error err;
    mr_pool *pool = NULL;
    const options defaults = opt;

    if (mr_options_parse(option_table, argc, argv, &opt, &n_positional, &help_wanted, &err) !=
            MR_OK ||
        n_positional > 0) {
        fprintf(stderr, "bench_kernels: %s\n", n_positional > 0 ? "takes no names" : err.message);
        return 2;
    }
    if (help_wanted) {
        mr_options_print_help(stdout, &help, option_table, &defaults);
        return 0;
    }
    if (mr_pool_new(&pool, (int)opt.threads, &err) != MR_OK) {
        fprintf(stderr, "bench_kernels: %s\n", err.message);
        return 1;
    }

    const double peak = peak_gflops(pool);
    int failed = 0;
    static const mr_dtype dtypes[] = {MR_DTYPE_F32, MR_DTYPE_BF16, MR_DTYPE_F16};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        failed |= shape(&opt, pool, peak, 3072, 1024, dtypes[i]);
        failed |= shape(&opt, pool, peak, 1024, 3072, dtypes[i]);
    }
    mr_pool_free(pool);
    return failed;
}
