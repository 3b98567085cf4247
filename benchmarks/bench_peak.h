/* bench_peak.h - what the processor could do at best: a loop of fused multiply-adds on registers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_BENCHMARKS_BENCH_PEAK_H
#define MR_BENCHMARKS_BENCH_PEAK_H

#include <math.h>

#include "benchmarks/bench.h"
#include "core/threads.h"
#include "engine/kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#    include <immintrin.h>
#    define BENCH_HAVE_PEAK_LOOP 1
#endif

#define BENCH_PEAK_ROUNDS 4000000

typedef struct {
    double gflops;     /* of all threads together */
    double cpu_gflops; /* per second of CPU time: of one core */
} peak_rate;

#ifdef BENCH_HAVE_PEAK_LOOP
/* 12 independent chains of 8 lanes: enough to cover the latency of two FMA units. */
__attribute__((target("avx2,fma"))) static void bench_peak_task(void *context, size_t begin,
                                                                size_t end, int worker)
{
    float *sink = (float *)context + worker * 16;
    for (size_t task = begin; task < end; task++) {
        __m256 a[12];
        const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
        for (int i = 0; i < 12; i++)
            a[i] = _mm256_set1_ps((float)(i + 1));
        for (int round = 0; round < BENCH_PEAK_ROUNDS; round++) {
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

/* The best of several, for a limit is a limit. */
static inline peak_rate measure_peak(mr_pool *pool)
{
    static float sink[MR_MAX_THREADS * 16];
    const size_t threads = (size_t)mr_pool_threads(pool);
    if (!mr_kernels_find("avx2"))
        return (peak_rate){(double)NAN, (double)NAN};
    bench_clock clock = bench_start(0.5, 5);
    while (bench_more(&clock)) {
        bench_tick(&clock);
        mr_parallel_for(pool, threads, 1, bench_peak_task, sink);
        bench_tock(&clock);
    }
    const double work = 1e-9 * (double)threads * BENCH_PEAK_ROUNDS * 12 * 16;
    return (peak_rate){work / bench_quantile(&clock, 0), work * clock.n / clock.cpu_seconds};
}
#else
static inline peak_rate measure_peak(mr_pool *pool)
{
    (void)pool;
    return (peak_rate){(double)NAN, (double)NAN};
}
#endif

#endif
