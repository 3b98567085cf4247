/* test_ops.c - training's steps: ways back against central differences in double, and every set in
 * float against double.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "engine/kernels.h"
#include "ranker/training/ops.h"
#include "ranker/training/ops_exp.h"
#include "tests/support.h"

#define MAX_N      70
#define MAX_ROWS   5
#define MAX_RESULT (4 * MAX_ROWS * MAX_N + MAX_N * MAX_N)
#define STEP       1e-5

#define REAL       float
#define NAME(x)    x##_f32
#include "tests/unit/ops_cases.inc"
#undef REAL
#undef NAME
#define REAL    double
#define NAME(x) x##_f64
#include "tests/unit/ops_cases.inc"
#undef REAL
#undef NAME

typedef enum {
    OP_GEMM,
    OP_ADD,
    OP_DOT,
    OP_BIAS,
    OP_RMS_NORM,
    OP_RMS_NORM_BACK,
    OP_LAYER_NORM,
    OP_LAYER_NORM_BACK,
    OP_NORMALISE,
    OP_NORMALISE_BACK,
    OP_ROPE,
    OP_ROPE_BACK,
    OP_SILU_MUL,
    OP_SILU_MUL_BACK,
    OP_GELU,
    OP_GELU_BACK,
    OP_QUICK_GELU,
    OP_QUICK_GELU_BACK,
    OP_SOFTMAX,
    OP_SOFTMAX_BACK,
    OP_CROSS_ENTROPY,
    OP_COUNT
} op;

static const char *const op_names[OP_COUNT] = {"gemm",         "add",
                                               "dot",          "bias",
                                               "rms_norm",     "rms_norm_back",
                                               "layer_norm",   "layer_norm_back",
                                               "normalise",    "normalise_back",
                                               "rope",         "rope_back",
                                               "silu_mul",     "silu_mul_back",
                                               "gelu",         "gelu_back",
                                               "quick_gelu",   "quick_gelu_back",
                                               "softmax",      "softmax_back",
                                               "cross_entropy"};

_Static_assert(sizeof op_cases_f32 / sizeof *op_cases_f32 == OP_COUNT, "one case a name");

/* Drawn once for a shape, in float, so that both precisions start from the same numbers. */
typedef struct {
    size_t rows, n;
    float x[MAX_ROWS * 2 * MAX_N], w[MAX_N], b[MAX_N], dy[MAX_ROWS * MAX_N];
    double x64[MAX_ROWS * 2 * MAX_N], w64[MAX_N], b64[MAX_N], dy64[MAX_ROWS * MAX_N];
} drawn;

static void draw_part(mr_rng *rng, size_t n, double mean, float *f32, double *f64)
{
    for (size_t i = 0; i < n; i++) {
        f32[i] = (float)(mean + mr_rng_normal(rng));
        f64[i] = (double)f32[i];
    }
}

static void draw(drawn *d, size_t rows, size_t n)
{
    mr_rng rng = mr_rng_seed(rows * 1000 + n);
    d->rows = rows;
    d->n = n;
    draw_part(&rng, rows * 2 * n, 0.1, d->x, d->x64);
    draw_part(&rng, n, 1, d->w, d->w64);
    draw_part(&rng, n, 0, d->b, d->b64);
    draw_part(&rng, rows * n, 0, d->dy, d->dy64);
}

static void run_f64(const drawn *d, op which, double *to)
{
    memset(to, 0, MAX_RESULT * sizeof *to);
    const operands_f64 o = {
        mr_ops_select_f64(), d->rows, d->n, d->x64, d->w64, d->b64, d->dy64, to};
    op_cases_f64[which](&o);
}

/* ---- Float against double -------------------------------------------------------------------- */

static const size_t widths[] = {1, 2, 7, 16, 33, 64, 70};
#define N_WIDTHS (sizeof widths / sizeof *widths)

static void check_set(const mr_ops_f32 *ops)
{
    static drawn d;
    static double want64[MAX_RESULT];
    static float got[MAX_RESULT], want[MAX_RESULT];
    for (size_t i = 0; i < N_WIDTHS; i++) {
        draw(&d, 1 + i % MAX_ROWS, widths[i]);
        for (int which = 0; which < OP_COUNT; which++) {
            memset(got, 0, sizeof got);
            const operands_f32 o = {ops, d.rows, d.n, d.x, d.w, d.b, d.dy, got};
            op_cases_f32[which](&o);
            run_f64(&d, (op)which, want64);
            for (size_t k = 0; k < MAX_RESULT; k++)
                want[k] = (float)want64[k];
            /* At width 1 these ways back are differences of equals: nothing to compare. */
            if (d.n == 1 && (which == OP_LAYER_NORM_BACK || which == OP_NORMALISE_BACK))
                continue;
            const double error = test_relative_error(got, want, MAX_RESULT);
            if (error > 3e-6)
                fail_msg("%s of set %s over %zu rows of %zu is off by %g", op_names[which],
                         ops->name, d.rows, d.n, error);
        }
    }
}

static void the_plain_set_agrees_with_double(void **state)
{
    (void)state;
    assert_string_equal(mr_ops_generic_f32.name, "generic");
    check_set(&mr_ops_generic_f32);
}

static void the_set_of_this_machine_agrees_with_double(void **state)
{
    (void)state;
    const mr_ops_f32 *ops = mr_ops_select_f32();
    if (ops == &mr_ops_generic_f32)
        skip();
    check_set(ops);
}

static void the_plain_set_is_chosen_where_kernels_are_plain(void **state)
{
    (void)state;
    const bool plain = strcmp(mr_kernels_select()->name, "generic") == 0;
    assert_int_equal(mr_ops_select_f32() == &mr_ops_generic_f32, plain);
}

static void the_exponential_is_within_its_bound_and_keeps_nan(void **state)
{
    (void)state;
    double worst = 0;
    for (int i = -87 * 64; i <= 88 * 64; i++) {
        const float x = (float)i / 64 + 0.003f;
        if (x >= -87 && x <= 88) {
            const double want = exp((double)x), error = fabs((double)mr_exp_f32(x) / want - 1);
            worst = error > worst ? error : worst;
        }
    }
    if (!(worst < 2e-7))
        fail_msg("the exponential is off by %g, its bound is 2e-7", worst);
    assert_true(isnan(mr_exp_f32(NAN)));
    assert_true(mr_exp_f32(-INFINITY) > 0 && mr_exp_f32(-INFINITY) < 2e-38f);
    assert_true(isfinite(mr_exp_f32(INFINITY)));
}

/* ---- Ways back against central differences --------------------------------------------------- */

typedef enum { BY_X, BY_W, BY_B } operand;

/* The loss is dy . (the first rows x n results of `forward`). Its gradient by an operand stands in
 * the results of `back` after at_rows x rows x n and at x n others. */
typedef struct {
    op forward, back;
    operand by;
    size_t at_rows, at;
    size_t operand_ld; /* how far apart rows of the operand are, in units of n */
    double start;      /* what the gradient was added to */
} way_back;

static const way_back ways[] = {
    {OP_RMS_NORM, OP_RMS_NORM_BACK, BY_X, 0, 0, 2, 1},
    {OP_RMS_NORM, OP_RMS_NORM_BACK, BY_X, 1, 1, 2, 1}, /* with a frozen weight */
    {OP_RMS_NORM, OP_RMS_NORM_BACK, BY_W, 1, 0, 1, 1},
    {OP_LAYER_NORM, OP_LAYER_NORM_BACK, BY_X, 0, 0, 2, 1},
    {OP_LAYER_NORM, OP_LAYER_NORM_BACK, BY_X, 1, 2, 2, 1}, /* the same */
    {OP_LAYER_NORM, OP_LAYER_NORM_BACK, BY_W, 1, 0, 1, 1},
    {OP_LAYER_NORM, OP_LAYER_NORM_BACK, BY_B, 1, 1, 1, 1},
    {OP_NORMALISE, OP_NORMALISE_BACK, BY_X, 0, 0, 2, 0},
    {OP_SILU_MUL, OP_SILU_MUL_BACK, BY_X, 0, 0, 2, 0},
    {OP_GELU, OP_GELU_BACK, BY_X, 0, 0, 1, 0},
    {OP_QUICK_GELU, OP_QUICK_GELU_BACK, BY_X, 0, 0, 1, 0},
    {OP_SOFTMAX, OP_SOFTMAX_BACK, BY_X, 0, 0, 2, 0},
};

static double loss_of(const drawn *d, op forward, double *to)
{
    double loss = 0;
    run_f64(d, forward, to);
    for (size_t i = 0; i < d->rows * d->n; i++)
        loss += d->dy64[i] * to[i];
    return loss;
}

static double numeric(drawn *d, op forward, double *value, double *to)
{
    const double was = *value;
    *value = was + STEP;
    const double above = loss_of(d, forward, to);
    *value = was - STEP;
    const double below = loss_of(d, forward, to);
    *value = was;
    return (above - below) / (2 * STEP);
}

static void check_way(const way_back *way, drawn *d)
{
    static double to[MAX_RESULT], back[MAX_RESULT];
    const size_t rows = way->by == BY_X ? d->rows : 1;
    /* silu_mul's operand is gate and up, so its gradient has rows of 2 n as well. */
    const size_t width = way->forward == OP_SILU_MUL ? 2 * d->n : d->n;
    double *values = way->by == BY_X ? d->x64 : way->by == BY_W ? d->w64 : d->b64;
    run_f64(d, way->back, back);
    const double *gradient = back + way->at_rows * d->rows * d->n + way->at * d->n;
    double worst = 0, largest = 0;
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < width; i++) {
            const double want =
                numeric(d, way->forward, values + r * way->operand_ld * d->n + i, to);
            worst = fmax(worst, fabs(gradient[r * width + i] - way->start - want));
            largest = fmax(largest, fabs(want));
        }
    }
    if (!(worst <= 1e-8 + 1e-6 * largest))
        fail_msg("%s by operand %d, %zu rows of %zu: off by %g where the largest is %g",
                 op_names[way->back], (int)way->by, d->rows, d->n, worst, largest);
}

static void ways_back_agree_with_central_differences(void **state)
{
    (void)state;
    static drawn d;
    for (size_t i = 0; i < N_WIDTHS; i++) {
        draw(&d, 1 + i % MAX_ROWS, widths[i]);
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++)
            check_way(&ways[w], &d);
    }
}

static void cross_entropy_gives_the_gradient_of_its_own_loss(void **state)
{
    (void)state;
    static drawn d;
    static double to[MAX_RESULT], given[MAX_RESULT];
    draw(&d, 3, 33);
    const size_t all = d.rows * d.n;
    run_f64(&d, OP_CROSS_ENTROPY, given);
    for (size_t r = 0; r < d.rows; r++) {
        for (size_t i = 0; i < d.n; i++) {
            double *value = d.x64 + r * 2 * d.n + i;
            const double was = *value;
            *value = was + STEP;
            run_f64(&d, OP_CROSS_ENTROPY, to);
            const double above = to[all + r];
            *value = was - STEP;
            run_f64(&d, OP_CROSS_ENTROPY, to);
            const double want = 0.7 * (above - to[all + r]) / (2 * STEP);
            *value = was;
            if (!(fabs(given[r * d.n + i] - want) <= 1e-8))
                fail_msg("row %zu, class %zu: %g, by differences %g", r, i, given[r * d.n + i],
                         want);
        }
    }
}

/* A rotation's transpose is its inverse, and its gradient. */
static void rope_turned_back_is_where_it_was(void **state)
{
    (void)state;
    static drawn d;
    static double turned[MAX_RESULT], back[MAX_RESULT];
    draw(&d, 4, 7);
    double before[MAX_ROWS * 2 * MAX_N], along = 0, across = 0;
    memcpy(before, d.x64, sizeof before);
    run_f64(&d, OP_ROPE, turned);
    run_f64(&d, OP_ROPE_BACK, back);
    for (size_t i = 0; i < d.rows * 2 * d.n; i++) {
        along += turned[i] * d.x64[i]; /* <R x, x> = <x, R^T x> */
        across += d.x64[i] * back[i];
    }
    assert_true(fabs(along - across) <= 1e-12 * fabs(along));
    memcpy(d.x64, turned, d.rows * 2 * d.n * sizeof *turned);
    run_f64(&d, OP_ROPE_BACK, back);
    for (size_t i = 0; i < d.rows * 2 * d.n; i++)
        if (!(fabs(back[i] - before[i]) < 1e-12))
            fail_msg("element %zu: %g, it was %g", i, back[i], before[i]);
}

static void a_vector_without_direction_stays_zero_and_gets_no_gradient(void **state)
{
    (void)state;
    const float zero[3] = {0}, dy[3] = {1, -2, 3};
    float y[3] = {9, 9, 9}, dx[3] = {9, 9, 9}, length = 9;
    mr_ops_generic_f32.normalise(y, 3, &length, zero, 3, 1, 3);
    mr_ops_generic_f32.normalise_back(dx, 3, dy, 3, y, 3, &length, 1, 3);
    assert_memory_equal(y, zero, sizeof zero);
    assert_true(length == 0 && dx[0] == 0 && dx[1] == 0 && dx[2] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_plain_set_agrees_with_double),
        cmocka_unit_test(the_set_of_this_machine_agrees_with_double),
        cmocka_unit_test(the_plain_set_is_chosen_where_kernels_are_plain),
        cmocka_unit_test(the_exponential_is_within_its_bound_and_keeps_nan),
        cmocka_unit_test(ways_back_agree_with_central_differences),
        cmocka_unit_test(cross_entropy_gives_the_gradient_of_its_own_loss),
        cmocka_unit_test(rope_turned_back_is_where_it_was),
        cmocka_unit_test(a_vector_without_direction_stays_zero_and_gets_no_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
