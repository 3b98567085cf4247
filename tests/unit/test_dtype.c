/* test_dtype.c - names, sizes, and conversions that are exact and need no alignment.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/half.h"
#include "engine/dtype.h"

static const mr_dtype weights[] = {MR_DTYPE_F32, MR_DTYPE_F16, MR_DTYPE_BF16};

static void every_name_finds_its_dtype(void **state)
{
    (void)state;
    for (int d = 0; d < MR_DTYPE_COUNT; d++) {
        mr_dtype found = MR_DTYPE_COUNT;
        const char *name = mr_dtype_name((mr_dtype)d);
        assert_true(mr_dtype_from_name(name, strlen(name), &found));
        assert_int_equal(found, d);
        assert_true(mr_dtype_size((mr_dtype)d) >= 1 && mr_dtype_size((mr_dtype)d) <= 8);
    }
    mr_dtype found = MR_DTYPE_I8;
    assert_false(mr_dtype_from_name("F3", 2, &found));
    assert_false(mr_dtype_from_name("F322", 4, &found));
    assert_false(mr_dtype_from_name("f32", 3, &found));
    assert_false(mr_dtype_from_name("", 0, &found));
    assert_int_equal(found, MR_DTYPE_I8);
}

static void only_three_dtypes_hold_weights(void **state)
{
    (void)state;
    int n = 0;
    for (int d = 0; d < MR_DTYPE_COUNT; d++)
        n += mr_dtype_is_weight((mr_dtype)d);
    assert_int_equal(n, 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(mr_dtype_is_weight(weights[i]));
}

static void all_half_patterns_survive_widening_and_narrowing(void **state)
{
    (void)state;
    static const mr_dtype halves[] = {MR_DTYPE_F16, MR_DTYPE_BF16};
    for (size_t i = 0; i < 2; i++) {
        for (uint32_t bits = 0; bits < 65536; bits++) {
            const uint16_t in = (uint16_t)bits;
            uint16_t out = 0;
            float wide;
            mr_dtype_to_f32(&wide, &in, halves[i], 1);
            mr_dtype_from_f32(&out, halves[i], &wide, 1);
            if (out != in && !isnan(wide))
                fail_msg("%s 0x%04x became 0x%04x", mr_dtype_name(halves[i]), in, out);
        }
    }
}

static void bulk_conversion_works_at_any_address_and_length(void **state)
{
    (void)state;
    enum { MOST = 37 };
    float values[MOST];
    for (int i = 0; i < MOST; i++)
        values[i] = (float)(i - 18) * 0.3711f;
    for (size_t t = 0; t < 3; t++) {
        const size_t size = mr_dtype_size(weights[t]);
        for (size_t offset = 0; offset < 5; offset++) {
            for (size_t n = 0; n <= MOST; n++) {
                /* Exactly as large as needed: the sanitizer sees one element too many. */
                char *bytes = malloc(offset + n * size + 1);
                float *back = malloc(n * sizeof *back + 1);
                assert_non_null(bytes);
                assert_non_null(back);
                mr_dtype_from_f32(bytes + offset, weights[t], values, n);
                mr_dtype_to_f32(back, bytes + offset, weights[t], n);
                for (size_t i = 0; i < n; i++) {
                    const float want = weights[t] == MR_DTYPE_F32 ? values[i]
                                       : weights[t] == MR_DTYPE_F16
                                           ? mr_f16_to_f32(mr_f32_to_f16(values[i]))
                                           : mr_bf16_to_f32(mr_f32_to_bf16(values[i]));
                    if (back[i] != want)
                        fail_msg("%s at +%zu, [%zu] of %zu: %.9g, expected %.9g",
                                 mr_dtype_name(weights[t]), offset, i, n, (double)back[i],
                                 (double)want);
                }
                free(bytes);
                free(back);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_name_finds_its_dtype),
        cmocka_unit_test(only_three_dtypes_hold_weights),
        cmocka_unit_test(all_half_patterns_survive_widening_and_narrowing),
        cmocka_unit_test(bulk_conversion_works_at_any_address_and_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
