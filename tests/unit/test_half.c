/* test_half.c - float16 and bfloat16 against slow formulas of their definitions.
 *
 * The reference works with doubles, which hold every value and every midpoint exactly.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "core/half.h"
#include "core/rng.h"

typedef struct {
    const char *name;
    int fraction_bits;
    int bias;
    uint16_t (*narrow)(float value);
    float (*widen)(uint16_t bits);
} format;

static float widen_bf16(uint16_t bits)
{
    return mr_bf16_to_f32(bits);
}

static const format formats[] = {
    {"f16", 10, 15, mr_f32_to_f16, mr_f16_to_f32},
    {"bf16", 7, 127, mr_f32_to_bf16, widen_bf16},
};
#define N_FORMATS (sizeof formats / sizeof *formats)

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static unsigned infinity_bits(const format *f)
{
    return 0x7fffu >> f->fraction_bits << f->fraction_bits;
}

/* The definition: (-1)^sign * 2^(exponent - bias) * (1 + fraction / 2^fraction_bits). Finite only;
 * for one past the largest it gives the value at which rounding would have its next step. */
static double value_of(const format *f, unsigned magnitude)
{
    unsigned fraction = magnitude & ((1u << f->fraction_bits) - 1);
    int exponent = (int)(magnitude >> f->fraction_bits);
    if (exponent == 0)
        return ldexp(fraction, 1 - f->bias - f->fraction_bits);
    return ldexp(fraction + (1u << f->fraction_bits), exponent - f->bias - f->fraction_bits);
}

static void widening_matches_the_definition_for_all_65536_values(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_FORMATS; k++) {
        const format *f = &formats[k];
        for (unsigned bits = 0; bits <= 0xffff; bits++) {
            float got = f->widen((uint16_t)bits);
            unsigned magnitude = bits & 0x7fff;
            if (magnitude > infinity_bits(f)) {
                if (!isnan(got))
                    fail_msg("%s 0x%04x gave %g, expected NaN", f->name, bits, (double)got);
            } else {
                double want =
                    magnitude == infinity_bits(f) ? (double)INFINITY : value_of(f, magnitude);
                want = bits & 0x8000 ? -want : want;
                if ((double)got != want || !signbit(got) != !signbit(want))
                    fail_msg("%s 0x%04x gave %.9g, expected %.9g", f->name, bits, (double)got,
                             want);
            }
        }
    }
}

static void narrowing_undoes_widening(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_FORMATS; k++) {
        const format *f = &formats[k];
        for (unsigned bits = 0; bits <= 0xffff; bits++) {
            unsigned got = f->narrow(f->widen((uint16_t)bits));
            bool is_nan = (bits & 0x7fff) > infinity_bits(f);
            unsigned quiet = 1u << (f->fraction_bits - 1);
            unsigned want = is_nan ? bits | quiet : bits;
            if (got != want)
                fail_msg("%s 0x%04x came back as 0x%04x, expected 0x%04x", f->name, bits, got,
                         want);
        }
    }
}

static void expect_narrow(const format *f, float value, unsigned want)
{
    for (unsigned sign = 0; sign <= 1; sign++) {
        unsigned got = f->narrow(of_bits(bits_of(value) | sign << 31));
        if (got != (want | sign << 15))
            fail_msg("%s of %s%.9g gave 0x%04x, expected 0x%04x", f->name, sign ? "-" : "",
                     (double)value, got, want | sign << 15);
    }
}

static void midpoints_go_to_even_and_their_neighbours_to_the_nearer_value(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_FORMATS; k++) {
        const format *f = &formats[k];
        /* The last step ends at infinity: beyond half of it, values round to infinity. */
        for (unsigned low = 0; low < infinity_bits(f); low++) {
            double middle = (value_of(f, low) + value_of(f, low + 1)) / 2;
            float value = (float)middle;
            assert_true((double)value == middle);
            expect_narrow(f, value, low & 1 ? low + 1 : low);
            expect_narrow(f, of_bits(bits_of(value) - 1), low);
            expect_narrow(f, of_bits(bits_of(value) + 1), low + 1);
        }
    }
}

static void random_floats_go_to_the_nearest_value(void **state)
{
    (void)state;
    mr_rng rng = mr_rng_seed(1);
    for (int i = 0; i < 2000000; i++) {
        uint32_t bits = (uint32_t)mr_rng_u64(&rng) & 0x7fffffffu;
        float value = of_bits(bits);
        for (size_t k = 0; k < N_FORMATS; k++) {
            const format *f = &formats[k];
            unsigned got = f->narrow(value) & 0x7fffu;
            if (isnan(value)) {
                assert_true(got > infinity_bits(f));
                continue;
            }
            double x = (double)value;
            double here = value_of(f, got);
            double above = value_of(f, got + 1);
            double below = got > 0 ? value_of(f, got - 1) : 0;
            bool is_infinite = got == infinity_bits(f);
            bool near_enough = (is_infinite || x <= (here + above) / 2) && x >= (here + below) / 2;
            if (!near_enough)
                fail_msg("%s of %.9g gave 0x%04x (%.9g)", f->name, x, got, here);
        }
    }
}

static void special_values_keep_their_meaning(void **state)
{
    (void)state;
    expect_narrow(&formats[0], INFINITY, 0x7c00);
    expect_narrow(&formats[1], INFINITY, 0x7f80);
    expect_narrow(&formats[0], 65504.0f, 0x7bff);
    expect_narrow(&formats[0], 65519.996f, 0x7bff);
    expect_narrow(&formats[0], 65520.0f, 0x7c00);
    expect_narrow(&formats[0], 3.4e38f, 0x7c00);
    expect_narrow(&formats[1], 3.4028235e38f, 0x7f80);
    expect_narrow(&formats[0], 0.0f, 0);
    expect_narrow(&formats[0], 0x1p-24f, 1);
    expect_narrow(&formats[0], 0x1p-25f, 0);
    expect_narrow(&formats[0], 0x1.000002p-25f, 1);
    expect_narrow(&formats[0], 1.0f, 0x3c00);
    /* A NaN whose payload is in the low bits only must not become infinity. */
    assert_int_equal(mr_f32_to_f16(of_bits(0x7f800001)), 0x7e00);
    assert_int_equal(mr_f32_to_bf16(of_bits(0x7f800001)), 0x7fc0);
    assert_int_equal(mr_f32_to_bf16(of_bits(0xffffffff)), 0xffff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(widening_matches_the_definition_for_all_65536_values),
        cmocka_unit_test(narrowing_undoes_widening),
        cmocka_unit_test(midpoints_go_to_even_and_their_neighbours_to_the_nearer_value),
        cmocka_unit_test(random_floats_go_to_the_nearest_value),
        cmocka_unit_test(special_values_keep_their_meaning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
