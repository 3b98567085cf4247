/* test_kernel_products.c - dot_rows and weighted_sum of every kernel set of this machine, against
 * the generic kernels in double and, bit for bit, against themselves in other tiles.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels_support.h"

static const mr_dtype weight_types[] = {MR_DTYPE_F32, MR_DTYPE_F16, MR_DTYPE_BF16};
#define N_TYPES 3

/* A sum of n products is off by at most this much of the sum of their absolute values: 8 lanes, so
 * n / 8 roundings in a row at worst, far fewer on average. */
static double dot_bound(size_t n)
{
    return 6e-8 * (8 + sqrt((double)n));
}

static void check_dot_lengths(const mr_kernels *kernels)
{
    mr_rng rng = mr_rng_seed(11);
    for (size_t t = 0; t < N_TYPES; t++) {
        for (size_t i = 0; i < N_LENGTHS; i++) {
            enum { M = 4, N = 5 };
            const size_t K = length_at(i);
            floats a = floats_random(&rng, M * K, 1);
            weights w = weights_random(&rng, weight_types[t], N * K);
            float y[M * N];
            double *a64 = doubles_of(a), want[M * N], size[M * N];
            kernels->dot_rows(y, N, a.data, K, M, w.data, w.type, K, N, K);
            mr_kernels_generic_f64.dot_rows(want, N, a64, K, M, w.data, w.type, K, N, K);
            memset(size, 0, sizeof size);
            for (size_t m = 0; m < M; m++) {
                for (size_t n = 0; n < N; n++) {
                    for (size_t k = 0; k < K; k++) {
                        float one;
                        mr_dtype_to_f32(&one, w.data + (n * K + k) * mr_dtype_size(w.type), w.type,
                                        1);
                        size[m * N + n] += fabs(a64[m * K + k] * (double)one);
                    }
                }
            }
            for (size_t j = 0; j < M * N; j++) {
                const double off = fabs((double)y[j] - want[j]);
                if (!(off <= dot_bound(K) * size[j])) {
                    print_error("%s/dot_rows %s K %zu [%zu]: %.9g, expected %.9g\n", kernels->name,
                                mr_dtype_name(w.type), K, j, (double)y[j], want[j]);
                    fail();
                }
            }
            free(a64);
            free(a.block);
            free(w.block);
        }
    }
}

static void dot_rows_of_every_length_agrees_with_double(void **state)
{
    (void)state;
    for_each_set(check_dot_lengths);
}

/* All of M x N at once, then every sub-shape up to it, then one by one: always the same bits, and
 * nothing is written beside them. */
static void check_dot_tiles(const mr_kernels *kernels)
{
    static const size_t depths[] = {1, 7, 8, 17, 33, 128, 1025, 2100};
    enum { M = 9, N = 10, LDY = N + 3 };
    mr_rng rng = mr_rng_seed(12);
    for (size_t t = 0; t < N_TYPES; t++) {
        for (size_t d = 0; d < sizeof depths / sizeof *depths; d++) {
            const size_t K = depths[d], lda = K + 5, ldw = K + 3;
            floats a = floats_random(&rng, M * lda, 1);
            weights w = weights_random(&rng, weight_types[t], N * ldw);
            float one[M * N];
            for (size_t m = 0; m < M; m++)
                for (size_t n = 0; n < N; n++)
                    kernels->dot_rows(&one[m * N + n], 1, a.data + m * lda, lda, 1,
                                      w.data + n * ldw * mr_dtype_size(w.type), w.type, ldw, 1, K);
            for (size_t rows = 0; rows <= M; rows++) {
                for (size_t columns = 0; columns <= N; columns++) {
                    float y[M * LDY];
                    for (size_t i = 0; i < M * LDY; i++)
                        y[i] = -12345.0f;
                    kernels->dot_rows(y, LDY, a.data, lda, rows, w.data, w.type, ldw, columns, K);
                    for (size_t m = 0; m < M; m++) {
                        for (size_t n = 0; n < LDY; n++)
                            same_bits("dot_rows", kernels, m * LDY + n, y[m * LDY + n],
                                      m < rows && n < columns ? one[m * N + n] : -12345.0f);
                    }
                }
            }
            free(a.block);
            free(w.block);
        }
    }
}

static void dot_rows_gives_the_same_bits_in_every_tile(void **state)
{
    (void)state;
    for_each_set(check_dot_tiles);
}

/* More rows than a block takes, in every remainder of the block. */
static void check_dot_blocks(const mr_kernels *kernels)
{
    enum { M = 103, N = 6, K = 1030 };
    mr_rng rng = mr_rng_seed(13);
    floats a = floats_random(&rng, M * K, 1), y = floats_new(M * N), one = floats_new(N);
    for (size_t t = 0; t < N_TYPES; t++) {
        weights w = weights_random(&rng, weight_types[t], N * K);
        for (size_t rows = 45; rows <= M; rows++) {
            kernels->dot_rows(y.data, N, a.data, K, rows, w.data, w.type, K, N, K);
            for (size_t m = rows > 52 ? rows - 6 : 0; m < rows; m++) {
                kernels->dot_rows(one.data, N, a.data + m * K, K, 1, w.data, w.type, K, N, K);
                for (size_t n = 0; n < N; n++)
                    same_bits("dot_rows", kernels, m * N + n, y.data[m * N + n], one.data[n]);
            }
        }
        free(w.block);
    }
    free(a.block);
    free(y.block);
    free(one.block);
}

static void dot_rows_gives_the_same_bits_in_every_block(void **state)
{
    (void)state;
    for_each_set(check_dot_blocks);
}

/* Rows at the beginning of cache lines may take a way of their own; their sums may not. */
static void check_dot_alignment(const mr_kernels *kernels)
{
    enum { M = 14, N = 9 };
    static const size_t depths[] = {5, 32, 1030, 2048};
    mr_rng rng = mr_rng_seed(19);
    for (size_t t = 0; t < N_TYPES; t++) {
        for (size_t d = 0; d < sizeof depths / sizeof *depths; d++) {
            const size_t K = depths[d], ldw = (K + 63) / 64 * 64,
                         size = mr_dtype_size(weight_types[t]);
            floats a = floats_random(&rng, M * K, 1);
            weights w = weights_random(&rng, weight_types[t], N * K);
            char *aligned = aligned_alloc(64, N * ldw * size);
            float y[M * N], want[M * N];
            assert_non_null(aligned);
            for (size_t n = 0; n < N; n++)
                memcpy(aligned + n * ldw * size, w.data + n * K * size, K * size);
            kernels->dot_rows(want, N, a.data, K, M, w.data, w.type, K, N, K);
            kernels->dot_rows(y, N, a.data, K, M, aligned, w.type, ldw, N, K);
            for (size_t i = 0; i < M * N; i++)
                same_bits("dot_rows aligned", kernels, i, y[i], want[i]);
            free(aligned);
            free(a.block);
            free(w.block);
        }
    }
}

static void dot_rows_gives_the_same_bits_at_every_alignment(void **state)
{
    (void)state;
    for_each_set(check_dot_alignment);
}

static void check_dot_special(const mr_kernels *kernels)
{
    enum { K = 21 };
    for (size_t at = 0; at < K; at++) {
        for (size_t t = 0; t < N_TYPES; t++) {
            float a[2 * K], one[K], y[4];
            unsigned char w[2 * K * sizeof(float)];
            const size_t size = mr_dtype_size(weight_types[t]);
            for (size_t k = 0; k < K; k++) {
                a[k] = a[K + k] = 1.0f;
                one[k] = 1.0f;
            }
            mr_dtype_from_f32(w, weight_types[t], one, K);
            a[at] = NAN;
            one[at] = INFINITY;
            mr_dtype_from_f32(w + K * size, weight_types[t], one, K);
            kernels->dot_rows(y, 2, a, K, 2, w, weight_types[t], K, 2, K);
            assert_true(isnan(y[0]) && isnan(y[1])); /* the NaN row */
            assert_true(y[2] == (float)K);           /* its neighbour does not see it */
            assert_true(isinf(y[3]) && y[3] > 0);
        }
    }
}

static void dot_rows_keeps_nan_and_infinity_in_their_row(void **state)
{
    (void)state;
    for_each_set(check_dot_special);
}

static void every_half_precision_value_is_widened_exactly(void **state)
{
    (void)state;
    const mr_kernels *list[MR_KERNELS_MAX];
    const size_t n = mr_kernels_available(list);
    for (size_t i = 0; i < n; i++) {
        for (uint32_t bits = 0; bits < 65536; bits += 2) {
            const uint16_t pair[2] = {(uint16_t)bits, (uint16_t)(bits + 1)};
            for (size_t t = 1; t < N_TYPES; t++) {
                const float unit = 1.0f;
                float want[2], y[2];
                mr_dtype_to_f32(want, pair, weight_types[t], 2);
                list[i]->dot_rows(y, 2, &unit, 1, 1, pair, weight_types[t], 1, 2, 1);
                for (size_t j = 0; j < 2; j++) {
                    if (isnan(want[j]))
                        assert_true(isnan(y[j]));
                    else if (want[j] != y[j]) /* 0 + -0 is 0: compare values, not bits */
                        same_bits("widening", list[i], bits + j, y[j], want[j]);
                }
            }
        }
    }
}

static void check_weighted_sum(const mr_kernels *kernels)
{
    static const size_t counts[] = {0, 1, 2, 5, 64, 131};
    enum { R = 5 };
    mr_rng rng = mr_rng_seed(14);
    for (size_t D = 0; D < N_SHORT; D++) {
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            const size_t P = counts[c], ldw = P + 2, ldv = D + 1;
            floats weight = floats_random(&rng, R * ldw, 1), v = floats_random(&rng, P * ldv, 1);
            floats start = floats_random(&rng, R * D, 1), out = floats_copy(start);
            double *w64 = doubles_of(weight), *v64 = doubles_of(v), *want = doubles_of(start);
            kernels->weighted_sum(out.data, D, weight.data, ldw, R, v.data, ldv, P, D);
            mr_kernels_generic_f64.weighted_sum(want, D, w64, ldw, R, v64, ldv, P, D);
            for (size_t i = 0; i < R * D; i++) {
                double size = fabs((double)start.data[i]);
                for (size_t p = 0; p < P; p++)
                    size += fabs(w64[i / D * ldw + p] * v64[p * ldv + i % D]);
                if (!(fabs((double)out.data[i] - want[i]) <= 6e-8 * (double)(P + 1) * size)) {
                    print_error("%s/weighted_sum D %zu P %zu [%zu]: %.9g, expected %.9g\n",
                                kernels->name, D, P, i, (double)out.data[i], want[i]);
                    fail();
                }
            }

            /* Fewer rows together, and the sum in two parts. */
            for (size_t rows = 1; rows <= R; rows++) {
                for (size_t first = 0; first < R; first += rows) {
                    const size_t n = R - first < rows ? R - first : rows;
                    const size_t cut = P * rows / (R + 1);
                    floats part = floats_copy(start);
                    kernels->weighted_sum(part.data + first * D, D, weight.data + first * ldw, ldw,
                                          n, v.data, ldv, cut, D);
                    kernels->weighted_sum(part.data + first * D, D, weight.data + first * ldw + cut,
                                          ldw, n, v.data + cut * ldv, ldv, P - cut, D);
                    for (size_t i = 0; i < R * D; i++) {
                        const size_t row = i / D;
                        const bool touched = row >= first && row < first + n;
                        same_bits("weighted_sum", kernels, i, part.data[i],
                                  touched ? out.data[i] : start.data[i]);
                    }
                    free(part.block);
                }
            }
            free(weight.block);
            free(v.block);
            free(start.block);
            free(out.block);
            free(w64);
            free(v64);
            free(want);
        }
    }
}

static void weighted_sum_agrees_with_double_and_can_be_cut_anywhere(void **state)
{
    (void)state;
    for_each_set(check_weighted_sum);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dot_rows_of_every_length_agrees_with_double),
        cmocka_unit_test(dot_rows_gives_the_same_bits_in_every_tile),
        cmocka_unit_test(dot_rows_gives_the_same_bits_in_every_block),
        cmocka_unit_test(dot_rows_gives_the_same_bits_at_every_alignment),
        cmocka_unit_test(dot_rows_keeps_nan_and_infinity_in_their_row),
        cmocka_unit_test(every_half_precision_value_is_widened_exactly),
        cmocka_unit_test(weighted_sum_agrees_with_double_and_can_be_cut_anywhere),
    };
    return cmocka_run_group_tests_name("kernel products", tests, NULL, NULL);
}
