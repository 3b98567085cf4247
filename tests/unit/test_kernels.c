/* test_kernels.c - the row functions of every kernel set of this machine against the generic
 * kernels in double, and which set is chosen.
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

/* ---- Rows ------------------------------------------------------------------------------------ */

/* |got - want| within bound of |want|, element by element; below `floor` only absolutely. */
static void assert_elements(const char *what, const mr_kernels *kernels, const float *got,
                            const double *want, size_t n, double bound, double floor)
{
    for (size_t i = 0; i < n; i++) {
        const double scale = fabs(want[i]) > floor ? fabs(want[i]) : floor;
        if (!(fabs((double)got[i] - want[i]) <= bound * scale)) {
            print_error("%s/%s n %zu [%zu]: %.9g, expected %.9g\n", kernels->name, what, n, i,
                        (double)got[i], want[i]);
            fail();
        }
    }
}

static void check_softmax(const mr_kernels *kernels)
{
    mr_rng rng = mr_rng_seed(15);
    for (size_t i = 0; i < N_LENGTHS; i++) {
        const size_t n = length_at(i);
        floats x = floats_random(&rng, n, 12), before = floats_copy(x);
        const float max = kernels->max(x.data, n);
        float largest = -INFINITY;
        for (size_t j = 0; j < n; j++)
            largest = x.data[j] > largest ? x.data[j] : largest;
        assert_true(max == largest);

        const float sum = kernels->softmax_exp(x.data, n, max);
        double total = 0;
        double *want = doubles_of(before);
        for (size_t j = 0; j < n; j++) {
            want[j] = exp((double)(before.data[j] - max));
            total += want[j];
        }
        assert_elements("softmax_exp", kernels, x.data, want, n, 2e-7, 1e-37);
        if (!(fabs((double)sum - total) <= 1e-6 * total)) {
            print_error("%s/softmax_exp n %zu: sum %.9g, expected %.9g\n", kernels->name, n,
                        (double)sum, total);
            fail();
        }
        /* An element does not feel its place in a vector, nor the length. */
        for (size_t j = 0; j < n && i < N_SHORT; j++) {
            float alone = before.data[j];
            kernels->softmax_exp(&alone, 1, max);
            same_bits("softmax_exp", kernels, j, x.data[j], alone);
        }
        free(want);
        free(x.block);
        free(before.block);
    }
}

static void softmax_exp_agrees_with_double_at_every_length(void **state)
{
    (void)state;
    for_each_set(check_softmax);
}

static void check_exp_range(const mr_kernels *kernels)
{
    /* Every result that a float can hold, subnormal ones with an absolute bound. */
    for (int i = -110000; i <= 0; i++) {
        const float x = (float)i / 1000;
        float y = x;
        const double want = exp((double)x);
        kernels->softmax_exp(&y, 1, 0);
        if (!(fabs((double)y - want) <= 2e-7 * want + 1.5e-45)) {
            print_error("%s/softmax_exp(%.9g): %.9g, expected %.9g\n", kernels->name, (double)x,
                        (double)y, want);
            fail();
        }
    }
}

static void exponential_is_accurate_over_its_whole_range(void **state)
{
    (void)state;
    for_each_set(check_exp_range);
}

static void check_softmax_special(const mr_kernels *kernels)
{
    for (size_t n = 2; n < 20; n++) {
        for (size_t at = 0; at < n; at++) {
            float x[20];
            for (size_t i = 0; i < n; i++)
                x[i] = 0.5f;
            x[at] = -INFINITY;
            const float sum = kernels->softmax_exp(x, n, kernels->max(x, n));
            assert_true(x[at] == 0.0f && sum == (float)(n - 1));

            for (size_t i = 0; i < n; i++)
                x[i] = 0.5f;
            x[at] = NAN;
            assert_true(isnan(kernels->softmax_exp(x, n, 0.5f)) && isnan(x[at]));
            assert_true(x[at == 0] == 1.0f);
        }
    }
    assert_true(kernels->max(NULL, 0) == -INFINITY);
    assert_true(kernels->softmax_exp(NULL, 0, 0) == 0.0f);
}

static void softmax_masks_minus_infinity_and_keeps_nan(void **state)
{
    (void)state;
    for_each_set(check_softmax_special);
}

static void check_rms_norm(const mr_kernels *kernels)
{
    mr_rng rng = mr_rng_seed(16);
    for (size_t i = 1; i < N_LENGTHS; i++) {
        const size_t n = length_at(i);
        floats x = floats_random(&rng, n, 3), weight = floats_random(&rng, n, 1);
        floats y = floats_new(n);
        double *x64 = doubles_of(x), *weight64 = doubles_of(weight);
        kernels->rms_norm(y.data, x.data, weight.data, n, 1e-6f);
        mr_kernels_generic_f64.rms_norm(x64, x64, weight64, n, (double)1e-6f);
        assert_elements("rms_norm", kernels, y.data, x64, n, 5e-7, 0);

        kernels->rms_norm(x.data, x.data, weight.data, n, 1e-6f);
        for (size_t j = 0; j < n; j++)
            same_bits("rms_norm in place", kernels, j, x.data[j], y.data[j]);

        memset(x.data, 0, n * sizeof(float));
        kernels->rms_norm(y.data, x.data, weight.data, n, 1e-6f);
        for (size_t j = 0; j < n; j++)
            assert_true(y.data[j] == 0.0f);
        x.data[n - 1] = NAN;
        kernels->rms_norm(y.data, x.data, weight.data, n, 1e-6f);
        for (size_t j = 0; j < n; j++)
            assert_true(isnan(y.data[j]));
        free(x.block);
        free(weight.block);
        free(y.block);
        free(x64);
        free(weight64);
    }
}

static void rms_norm_agrees_with_double_and_survives_zero_rows(void **state)
{
    (void)state;
    for_each_set(check_rms_norm);
}

static void check_layer_norm(const mr_kernels *kernels)
{
    mr_rng rng = mr_rng_seed(19);
    for (size_t i = 1; i < N_LENGTHS; i++) {
        const size_t n = length_at(i);
        floats x = floats_random(&rng, n, 3), weight = floats_random(&rng, n, 1);
        floats bias = floats_random(&rng, n, 1), y = floats_new(n);
        for (size_t j = 0; j < n; j++)
            x.data[j] += 50; /* far from zero: mean(x^2) - mean^2 would lose three digits */
        double *x64 = doubles_of(x), *weight64 = doubles_of(weight), *bias64 = doubles_of(bias);
        kernels->layer_norm(y.data, x.data, weight.data, bias.data, n, 1e-5f);
        mr_kernels_generic_f64.layer_norm(x64, x64, weight64, bias64, n, (double)1e-5f);
        /* The rounding of the mean, 50 with 24 bits, is what is left; of two near values it is
         * most. */
        if (n > 2)
            assert_elements("layer_norm", kernels, y.data, x64, n, 2e-5, 1);

        kernels->layer_norm(x.data, x.data, weight.data, bias.data, n, 1e-5f);
        for (size_t j = 0; j < n; j++)
            same_bits("layer_norm in place", kernels, j, x.data[j], y.data[j]);

        for (size_t j = 0; j < n; j++)
            x.data[j] = -7;
        kernels->layer_norm(y.data, x.data, weight.data, bias.data, n, 1e-5f);
        for (size_t j = 0; j < n; j++)
            same_bits("layer_norm of a constant row", kernels, j, y.data[j], bias.data[j]);
        x.data[n - 1] = NAN;
        kernels->layer_norm(y.data, x.data, weight.data, bias.data, n, 1e-5f);
        for (size_t j = 0; j < n; j++)
            assert_true(isnan(y.data[j]));
        free(x.block);
        free(weight.block);
        free(bias.block);
        free(y.block);
        free(x64);
        free(weight64);
        free(bias64);
    }
}

static void layer_norm_agrees_with_double_and_survives_constant_rows(void **state)
{
    (void)state;
    for_each_set(check_layer_norm);
}

static void check_quick_gelu(const mr_kernels *kernels)
{
    /* The rounding of 1.702 x comes out x times as large; past the float range all is zero. */
    for (int i = -60000; i <= 60000; i++) {
        const float x = (float)i / 1000;
        float y = x;
        double y64 = (double)x;
        kernels->quick_gelu(&y, 1);
        mr_kernels_generic_f64.quick_gelu(&y64, 1);
        assert_elements("quick_gelu", kernels, &y, &y64, 1,
                        5e-7 + (x < 0 ? 2.1e-7 * (double)-x : 0), 1e-31);
    }
    mr_rng rng = mr_rng_seed(20);
    for (size_t n = 0; n < N_SHORT; n++) {
        floats x = floats_random(&rng, n, 3), before = floats_copy(x);
        kernels->quick_gelu(x.data, n);
        for (size_t j = 0; j < n; j++) {
            float alone = before.data[j];
            kernels->quick_gelu(&alone, 1);
            same_bits("quick_gelu", kernels, j, x.data[j], alone);
        }
        free(x.block);
        free(before.block);
    }
    float special[] = {INFINITY, 3e38f, -3e38f, NAN};
    kernels->quick_gelu(special, 4);
    assert_true(special[0] == INFINITY && special[1] == 3e38f && special[2] == 0.0f &&
                isnan(special[3]));
}

static void quick_gelu_is_accurate_over_its_range_and_keeps_nan(void **state)
{
    (void)state;
    for_each_set(check_quick_gelu);
}

/* Far out on the negative side a relative change of x comes out x^2 times as large. */
static double gelu_bound(double x)
{
    return 1e-6 + (x < 0 ? 1.2e-7 * x * x : 0);
}

static void check_activations(const mr_kernels *kernels)
{
    mr_rng rng = mr_rng_seed(17);
    for (size_t i = 0; i < N_LENGTHS; i++) {
        const size_t n = length_at(i);
        floats gate = floats_random(&rng, n, 4), up = floats_random(&rng, n, 1);
        floats x = floats_random(&rng, n, 3), sum = floats_copy(x);
        floats gate_before = floats_copy(gate), x_before = floats_copy(x);
        double *gate64 = doubles_of(gate), *up64 = doubles_of(up), *x64 = doubles_of(x);
        double *sum64 = doubles_of(x);

        kernels->silu_mul(gate.data, up.data, n);
        mr_kernels_generic_f64.silu_mul(gate64, up64, n);
        assert_elements("silu_mul", kernels, gate.data, gate64, n, 5e-7, 1e-30);

        kernels->gelu(x.data, n);
        mr_kernels_generic_f64.gelu(x64, n);
        for (size_t j = 0; j < n; j++)
            assert_elements("gelu", kernels, &x.data[j], &x64[j], 1,
                            gelu_bound((double)x_before.data[j]), 1e-30);

        kernels->add(sum.data, up.data, n);
        mr_kernels_generic_f64.add(sum64, up64, n);
        assert_elements("add", kernels, sum.data, sum64, n, 1.2e-7, 1e-30);

        for (size_t j = 0; j < n && i < N_SHORT; j++) {
            float g = gate_before.data[j], a = x_before.data[j], b = x_before.data[j];
            kernels->silu_mul(&g, &up.data[j], 1);
            kernels->gelu(&a, 1);
            kernels->add(&b, &up.data[j], 1);
            same_bits("silu_mul", kernels, j, gate.data[j], g);
            same_bits("gelu", kernels, j, x.data[j], a);
            same_bits("add", kernels, j, sum.data[j], b);
        }
        free(gate.block);
        free(up.block);
        free(x.block);
        free(sum.block);
        free(gate_before.block);
        free(x_before.block);
        free(gate64);
        free(up64);
        free(x64);
        free(sum64);
    }
}

static void activations_agree_with_double_at_every_length(void **state)
{
    (void)state;
    for_each_set(check_activations);
}

static void check_activation_range(const mr_kernels *kernels)
{
    for (int i = -13000; i <= 13000; i++) {
        const float x = (float)i / 1000, unit = 1.0f;
        float silu = x, gelu = x;
        double silu64 = (double)x, gelu64 = (double)x;
        const double unit64 = 1;
        kernels->silu_mul(&silu, &unit, 1);
        kernels->gelu(&gelu, 1);
        mr_kernels_generic_f64.silu_mul(&silu64, &unit64, 1);
        mr_kernels_generic_f64.gelu(&gelu64, 1);
        assert_elements("silu", kernels, &silu, &silu64, 1, 5e-7, 1e-30);
        assert_elements("gelu", kernels, &gelu, &gelu64, 1, gelu_bound((double)x), 1e-36);
    }

    static const struct {
        float x, silu, gelu;
    } row[] = {
        {0.0f, 0.0f, 0.0f},
        {-0.0f, 0.0f, 0.0f},
        {1e4f, 1e4f, 1e4f},
        {-1e4f, 0.0f, 0.0f},
        {3e38f, 3e38f, 3e38f},
        {-3e38f, 0.0f, 0.0f},
        {INFINITY, INFINITY, INFINITY},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        float silu = row[i].x, gelu = row[i].x;
        const float unit = 1.0f;
        kernels->silu_mul(&silu, &unit, 1);
        kernels->gelu(&gelu, 1);
        if (silu != row[i].silu || gelu != row[i].gelu) {
            print_error("%s: silu(%g) %g, expected %g; gelu %g, expected %g\n", kernels->name,
                        (double)row[i].x, (double)silu, (double)row[i].silu, (double)gelu,
                        (double)row[i].gelu);
            fail();
        }
    }
    float silu = NAN, gelu = NAN;
    const float unit = 1.0f;
    kernels->silu_mul(&silu, &unit, 1);
    kernels->gelu(&gelu, 1);
    assert_true(isnan(silu) && isnan(gelu));
}

static void activations_are_accurate_over_their_range_and_keep_nan(void **state)
{
    (void)state;
    for_each_set(check_activation_range);
}

static void check_rope(const mr_kernels *kernels)
{
    mr_rng rng = mr_rng_seed(18);
    for (size_t D = 0; D <= 160; D += 2) {
        floats x = floats_random(&rng, D, 1), c = floats_new(D / 2), s = floats_new(D / 2);
        for (size_t i = 0; i < D / 2; i++) {
            c.data[i] = (float)cos((double)i);
            s.data[i] = (float)sin((double)i);
        }
        double *x64 = doubles_of(x), *c64 = doubles_of(c), *s64 = doubles_of(s);
        kernels->rope(x.data, c.data, s.data, D);
        mr_kernels_generic_f64.rope(x64, c64, s64, D);
        assert_elements("rope", kernels, x.data, x64, D, 3e-7, 1);
        free(x.block);
        free(c.block);
        free(s.block);
        free(x64);
        free(c64);
        free(s64);
    }
}

static void rope_agrees_with_double_at_every_head_size(void **state)
{
    (void)state;
    for_each_set(check_rope);
}

/* ---- Selection ------------------------------------------------------------------------------- */

static void selection_follows_the_environment_and_falls_back_to_the_best(void **state)
{
    (void)state;
    const mr_kernels *list[MR_KERNELS_MAX];
    const size_t n = mr_kernels_available(list);
    assert_in_range(n, 1, MR_KERNELS_MAX);
    assert_string_equal(list[0]->name, "generic");

    for (size_t i = 0; i < n; i++) {
        setenv("MIXRANK_KERNELS", list[i]->name, 1);
        assert_ptr_equal(mr_kernels_select(), list[i]);
        assert_ptr_equal(mr_kernels_find(list[i]->name), list[i]);
    }
    setenv("MIXRANK_KERNELS", "avx1024", 1);
    assert_ptr_equal(mr_kernels_select(), list[n - 1]);
    assert_null(mr_kernels_find("avx1024"));
    unsetenv("MIXRANK_KERNELS");
    assert_ptr_equal(mr_kernels_select(), list[n - 1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_exp_agrees_with_double_at_every_length),
        cmocka_unit_test(exponential_is_accurate_over_its_whole_range),
        cmocka_unit_test(softmax_masks_minus_infinity_and_keeps_nan),
        cmocka_unit_test(rms_norm_agrees_with_double_and_survives_zero_rows),
        cmocka_unit_test(layer_norm_agrees_with_double_and_survives_constant_rows),
        cmocka_unit_test(quick_gelu_is_accurate_over_its_range_and_keeps_nan),
        cmocka_unit_test(activations_agree_with_double_at_every_length),
        cmocka_unit_test(activations_are_accurate_over_their_range_and_keep_nan),
        cmocka_unit_test(rope_agrees_with_double_at_every_head_size),
        cmocka_unit_test(selection_follows_the_environment_and_falls_back_to_the_best),
    };
    return cmocka_run_group_tests_name("kernels", tests, NULL, NULL);
}
