/* test_gemm.c - linear layers through every back end, and what preparing one refuses.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "engine/gemm.h"
#include "engine/kernels_f64.h"
#include "tests/support.h"

static const mr_dtype weight_types[] = {MR_DTYPE_F32, MR_DTYPE_F16, MR_DTYPE_BF16};
#define N_TYPES 3

/* Around the chunks of columns and rows, and around OpenBLAS's panels. */
static const struct {
    size_t N, K;
} shapes[] = {{1, 1}, {3, 17}, {63, 40}, {64, 8}, {65, 129}, {200, 33}, {450, 20}, {33, 1100}};
#define N_SHAPES (sizeof shapes / sizeof *shapes)
static const size_t row_counts[] = {1, 2, 3, 4, 7, 49, 100};
#define N_ROWS   (sizeof row_counts / sizeof *row_counts)
#define MAX_ROWS 100

typedef struct {
    char *block;
    mr_tensor tensor;
    float *bias;
    float *x;
    double *want; /* [MAX_ROWS][N], with bias */
} problem;

/* Weights begin at an odd address, as they may in a mapped file. */
static problem problem_new(size_t N, size_t K, mr_dtype type)
{
    mr_rng rng = mr_rng_seed(N * 1000 + K);
    problem p = {.tensor = {.name = "layer.weight",
                            .dtype = type,
                            .n_dims = 2,
                            .shape = {(int64_t)N, (int64_t)K},
                            .bytes = N * K * mr_dtype_size(type)}};
    p.block = malloc(p.tensor.bytes + 1);
    p.bias = malloc(N * sizeof *p.bias);
    p.x = malloc(MAX_ROWS * K * sizeof *p.x);
    p.want = malloc(MAX_ROWS * N * sizeof *p.want);
    double *x = malloc(MAX_ROWS * K * sizeof *x);
    assert_true(p.block && p.bias && p.x && p.want && x);
    p.tensor.data = p.block + 1;
    for (size_t i = 0; i < N * K; i++) {
        const float value = (float)mr_rng_normal(&rng);
        mr_dtype_from_f32(p.block + 1 + i * mr_dtype_size(type), type, &value, 1);
    }
    for (size_t n = 0; n < N; n++)
        p.bias[n] = (float)mr_rng_normal(&rng);
    for (size_t i = 0; i < MAX_ROWS * K; i++) {
        p.x[i] = (float)mr_rng_normal(&rng);
        x[i] = (double)p.x[i];
    }
    mr_kernels_generic_f64.dot_rows(p.want, N, x, K, MAX_ROWS, p.tensor.data, type, K, N, K);
    for (size_t i = 0; i < MAX_ROWS * N; i++)
        p.want[i] += (double)p.bias[i % N];
    free(x);
    return p;
}

static void problem_free(problem *p)
{
    free(p->block);
    free(p->bias);
    free(p->x);
    free(p->want);
}

/* y[M][N + 2], columns beyond N must come back as they were. */
static float *run(const problem *p, mr_gemm_kind kind, const float *bias, const mr_kernels *kernels,
                  mr_pool *pool, size_t M)
{
    mr_linear linear;
    mr_error err = {0};
    const size_t N = (size_t)p->tensor.shape[0], K = (size_t)p->tensor.shape[1], ldy = N + 2;
    assert_status(mr_linear_prepare(&linear, kind, &p->tensor, bias, &err), MR_OK, &err);
    /* Exactly as much scratch as was asked for: the sanitizer sees a byte more. */
    void *scratch = malloc(mr_gemm_scratch_bytes(kind, MAX_ROWS, N, K, mr_pool_threads(pool)));
    float *y = malloc(M * ldy * sizeof *y);
    assert_non_null(y);
    for (size_t i = 0; i < M * ldy; i++)
        y[i] = -54321.0f;
    mr_linear_run(&linear, kernels, pool, scratch, y, ldy, p->x, K, M);
    for (size_t m = 0; m < M; m++)
        assert_true(y[m * ldy + N] == -54321.0f && y[m * ldy + N + 1] == -54321.0f);
    free(scratch);
    mr_linear_done(&linear);
    mr_linear_done(&linear);
    return y;
}

static void every_back_end_agrees_with_double(void **state)
{
    (void)state;
    const mr_kernels *list[MR_KERNELS_MAX];
    const size_t n_sets = mr_kernels_available(list);
    mr_pool *pools[2] = {NULL, NULL};
    mr_error err = {0};
    assert_status(mr_pool_new(&pools[1], 3, &err), MR_OK, &err);

    for (size_t s = 0; s < N_SHAPES; s++) {
        for (size_t t = 0; t < N_TYPES; t++) {
            problem p = problem_new(shapes[s].N, shapes[s].K, weight_types[t]);
            const size_t N = shapes[s].N;
            float *got = malloc(MAX_ROWS * N * sizeof *got),
                  *want = malloc(MAX_ROWS * N * sizeof *want);
            assert_true(got && want);
            for (size_t i = 0; i < n_sets * MR_GEMM_COUNT * 2 * N_ROWS; i++) {
                const mr_kernels *kernels = list[i % n_sets];
                const mr_gemm_kind kind = (mr_gemm_kind)(i / n_sets % MR_GEMM_COUNT);
                mr_pool *pool = pools[i / n_sets / MR_GEMM_COUNT % 2];
                const size_t M = row_counts[i / n_sets / MR_GEMM_COUNT / 2];
                const float *bias = i % 3 ? p.bias : NULL;
                float *y = run(&p, kind, bias, kernels, pool, M);
                for (size_t m = 0; m < M; m++) {
                    for (size_t n = 0; n < N; n++) {
                        got[m * N + n] = y[m * (N + 2) + n];
                        want[m * N + n] =
                            (float)(p.want[m * N + n] - (bias ? 0 : (double)p.bias[n]));
                    }
                }
                if (!(test_relative_error(got, want, M * N) <= 2e-6))
                    print_error("%s/%s, %s, N %zu, K %zu, M %zu, %d threads:\n", mr_gemm_name(kind),
                                kernels->name, mr_dtype_name(weight_types[t]), N, shapes[s].K, M,
                                mr_pool_threads(pool));
                assert_floats_near(got, want, M * N, 2e-6);
                free(y);
            }
            free(got);
            free(want);
            problem_free(&p);
        }
    }
    mr_pool_free(pools[1]);
}

static void scoring_gives_a_row_the_same_bits_in_any_batch_on_any_number_of_threads(void **state)
{
    (void)state;
    const mr_kernels *list[MR_KERNELS_MAX];
    const size_t n_sets = mr_kernels_available(list);
    mr_pool *pools[3] = {NULL, NULL, NULL};
    mr_error err = {0};
    assert_status(mr_pool_new(&pools[1], 2, &err), MR_OK, &err);
    assert_status(mr_pool_new(&pools[2], 3, &err), MR_OK, &err);

    for (size_t s = 0; s < N_SHAPES; s++) {
        for (size_t t = 0; t < N_TYPES; t++) {
            problem p = problem_new(shapes[s].N, shapes[s].K, weight_types[t]);
            const size_t ldy = shapes[s].N + 2;
            for (size_t set = 0; set < n_sets; set++) {
                float *all = run(&p, MR_GEMM_SCORING, p.bias, list[set], NULL, MAX_ROWS);
                for (size_t i = 0; i < 3 * N_ROWS; i++) {
                    const size_t M = row_counts[i / 3];
                    float *y = run(&p, MR_GEMM_SCORING, p.bias, list[set], pools[i % 3], M);
                    if (memcmp(y, all, M * ldy * sizeof *y) != 0) {
                        print_error("%s, %s, N %zu, K %zu: %zu rows on %d threads differ from %d "
                                    "rows on one\n",
                                    list[set]->name, mr_dtype_name(weight_types[t]), shapes[s].N,
                                    shapes[s].K, M, mr_pool_threads(pools[i % 3]), MAX_ROWS);
                        fail();
                    }
                    free(y);
                }
                free(all);
            }
            problem_free(&p);
        }
    }
    mr_pool_free(pools[1]);
    mr_pool_free(pools[2]);
}

static void no_rows_touch_nothing(void **state)
{
    (void)state;
    problem p = problem_new(3, 17, MR_DTYPE_F32);
    for (int kind = 0; kind < MR_GEMM_COUNT; kind++) {
        mr_linear linear;
        mr_error err = {0};
        assert_status(mr_linear_prepare(&linear, (mr_gemm_kind)kind, &p.tensor, NULL, &err), MR_OK,
                      &err);
        mr_linear_run(&linear, &mr_kernels_generic, NULL, NULL, NULL, 0, NULL, 0, 0);
        mr_linear_done(&linear);
    }
    mr_linear_done(NULL);
    problem_free(&p);
}

static void preparing_refuses_what_is_not_a_matrix_of_weights(void **state)
{
    (void)state;
    static const float data[12];
    static const struct {
        const char *what;
        mr_tensor tensor;
        mr_gemm_kind kind;
        mr_status status;
        const char *message;
    } row[] = {
        {"another type",
         {.name = "w",
          .data = data,
          .dtype = MR_DTYPE_I8,
          .n_dims = 2,
          .shape = {3, 4},
          .bytes = 12},
         MR_GEMM_SCORING,
         MR_UNSUPPORTED,
         "tensor 'w' is I8; a linear layer takes F32, F16 or BF16"},
        {"a vector",
         {.name = "w",
          .data = data,
          .dtype = MR_DTYPE_F32,
          .n_dims = 1,
          .shape = {12},
          .bytes = 48},
         MR_GEMM_SCORING,
         MR_MISMATCH,
         "tensor 'w' has 1 dimensions"},
        {"no rows",
         {.name = "w", .data = data, .dtype = MR_DTYPE_F32, .n_dims = 2, .shape = {0, 4}},
         MR_GEMM_BLAS,
         MR_MISMATCH,
         "both at least 1"},
        {"too few bytes",
         {.name = "w",
          .data = data,
          .dtype = MR_DTYPE_F32,
          .n_dims = 2,
          .shape = {3, 4},
          .bytes = 47},
         MR_GEMM_BLAS,
         MR_MISMATCH,
         "tensor 'w' [3, 4] F32 holds 47 bytes"},
        {"a size that overflows",
         {.name = "w",
          .data = data,
          .dtype = MR_DTYPE_F32,
          .n_dims = 2,
          .shape = {INT64_MAX, INT64_MAX},
          .bytes = 48},
         MR_GEMM_SCORING,
         MR_MISMATCH,
         "holds 48 bytes"},
        {"no data",
         {.name = NULL, .dtype = MR_DTYPE_F32, .n_dims = 2, .shape = {3, 4}, .bytes = 48},
         MR_GEMM_SCORING,
         MR_MISMATCH,
         "(unnamed)"},
        {"an unknown back end",
         {.name = "w",
          .data = data,
          .dtype = MR_DTYPE_F32,
          .n_dims = 2,
          .shape = {3, 4},
          .bytes = 48},
         MR_GEMM_COUNT,
         MR_INVALID,
         "GEMM back end 2; there are 2"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_linear linear = {.N = 77};
        mr_error err = {0};
        assert_status(mr_linear_prepare(&linear, row[i].kind, &row[i].tensor, NULL, &err),
                      row[i].status, &err);
        assert_contains(err.message, row[i].message);
        assert_int_equal(linear.N, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_back_end_agrees_with_double),
        cmocka_unit_test(scoring_gives_a_row_the_same_bits_in_any_batch_on_any_number_of_threads),
        cmocka_unit_test(no_rows_touch_nothing),
        cmocka_unit_test(preparing_refuses_what_is_not_a_matrix_of_weights),
    };
    return cmocka_run_group_tests_name("gemm", tests, NULL, NULL);
}
