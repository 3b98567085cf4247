/* test_optimizer.c - 20 steps of AdamW with clipping against PyTorch's, the same bits with any
 * number of threads, and the learning rate over a run.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "ranker/training/optimizer.h"
#include "tests/support.h"
#include "tests/vision_support.h"

#define STEPS 20

/* cmocka's assert_float_equal compares as f32. */
static void assert_near(double got, double want, double bound)
{
    if (!(fabs(got - want) <= bound))
        fail_msg("%.17g, expected %.17g within %g", got, want, bound);
}

static const mr_adamw adamw = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};

static float *tensor(const mr_safetensors *file, const char *name, const char *what, int step,
                     size_t *n)
{
    char key[64];
    if (step < 0)
        snprintf(key, sizeof key, "%s.%s", name, what);
    else
        snprintf(key, sizeof key, "%s.%s.%d", name, what, step);
    return test_reference_floats(file, key, n);
}

static void twenty_steps_follow_pytorch(void **state)
{
    static const char *const names[2] = {"matrix", "bias"};
    mr_safetensors *file = test_reference_open("data/training/adamw.safetensors");
    mr_parameter p[2] = {{.decay = true}, {.decay = false}};
    double norms[STEPS];
    (void)state;
    assert_int_equal(test_reference_find(file, "norms")->bytes, sizeof norms);
    memcpy(norms, test_reference_find(file, "norms")->data, sizeof norms);
    for (size_t i = 0; i < 2; i++) {
        p[i].value = tensor(file, names[i], "start", -1, &p[i].n);
        p[i].moment1 = calloc(p[i].n, sizeof(float));
        p[i].moment2 = calloc(p[i].n, sizeof(float));
    }
    for (int step = 0; step < STEPS; step++) {
        float *gradient[2];
        for (size_t i = 0; i < 2; i++)
            p[i].gradient = gradient[i] = tensor(file, names[i], "gradient", step, NULL);
        const double norm = mr_gradient_norm(p, 2);
        if (!(fabs(norm - norms[step]) <= 1e-6 * norms[step]))
            fail_msg("step %d: norm %.9g, PyTorch %.9g", step, norm, norms[step]);
        mr_adamw_step(&adamw, step + 1, 3e-2, mr_clip_scale(norm, 1), p, 2, NULL);
        for (size_t i = 0; i < 2; i++) {
            float *want = tensor(file, names[i], "after", step, NULL);
            assert_floats_near(p[i].value, want, p[i].n, 1e-6);
            free(want);
            free(gradient[i]);
        }
    }
    for (size_t i = 0; i < 2; i++) {
        free(p[i].value);
        free(p[i].moment1);
        free(p[i].moment2);
    }
    mr_safetensors_close(file);
}

enum { LARGE = 100003 };

static float *steps_with(mr_pool *pool)
{
    mr_rng rng = mr_rng_seed(3);
    float *value = calloc(4 * LARGE, sizeof *value), *gradient = value + LARGE;
    assert_non_null(value);
    const mr_parameter p = {.value = value,
                            .gradient = gradient,
                            .moment1 = value + 2 * LARGE,
                            .moment2 = value + 3 * LARGE,
                            .n = LARGE,
                            .decay = true};
    for (size_t i = 0; i < LARGE; i++)
        value[i] = (float)mr_rng_normal(&rng);
    for (int step = 1; step <= 3; step++) {
        for (size_t i = 0; i < LARGE; i++)
            gradient[i] = (float)mr_rng_normal(&rng);
        mr_adamw_step(&adamw, step, 1e-3, mr_clip_scale(mr_gradient_norm(&p, 1), 1), &p, 1, pool);
    }
    return value;
}

static void threads_change_no_bit(void **state)
{
    mr_pool *pool = NULL;
    mr_error err = {0};
    (void)state;
    assert_status(mr_pool_new(&pool, 3, &err), MR_OK, &err);
    float *one = steps_with(NULL), *three = steps_with(pool);
    assert_memory_equal(one, three, 4 * LARGE * sizeof *one);
    free(one);
    free(three);
    mr_pool_free(pool);
}

static void clipping_bounds_the_norm(void **state)
{
    static const struct {
        double norm, most, scale;
    } cases[] = {{0, 1, 1}, {0.5, 1, 1}, {4, 1, 0.25}, {1e9, 2, 2e-9}, {7, 0, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_near(mr_clip_scale(cases[i].norm, cases[i].most), cases[i].scale,
                    1e-6 * cases[i].scale);
    float bad[2] = {1, NAN};
    const mr_parameter p = {.gradient = bad, .n = 2};
    assert_true(isnan(mr_gradient_norm(&p, 1)));
}

static void the_rate_warms_up_and_falls_along_a_cosine(void **state)
{
    static const struct {
        int64_t step;
        double rate;
    } cases[] = {{1, 0.1},   {5, 0.5},   {10, 1},    {35, 0.1 + 0.9 * 0.853553390593},
                 {60, 0.55}, {110, 0.1}, {111, 0.1}, {1000, 0.1}};
    const mr_schedule schedule = {.peak = 1, .floor = 0.1, .warm_up = 10, .steps = 110};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_near(mr_schedule_rate(&schedule, cases[i].step), cases[i].rate, 1e-9);
    const mr_schedule cold = {.peak = 1, .floor = 0, .warm_up = 0, .steps = 1};
    assert_near(mr_schedule_rate(&cold, 1), 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twenty_steps_follow_pytorch), cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(clipping_bounds_the_norm),
        cmocka_unit_test(the_rate_warms_up_and_falls_along_a_cosine)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
