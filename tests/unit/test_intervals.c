/* test_intervals.c - the bootstrap over people: exact cases, and its coverage of a known mean.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "core/rng.h"
#include "ranker/evaluation/intervals.h"
#include "tests/support.h"

static mr_interval interval(const double *values, const uint32_t *group, size_t n,
                            const mr_bootstrap_options *options)
{
    mr_interval out = {0};
    mr_error err = {0};
    assert_status(mr_bootstrap_mean(values, group, n, options, &out, &err), MR_OK, &err);
    return out;
}

static void equal_values_have_no_width(void **state)
{
    static const double values[] = {0.25, 0.25, 0.25, 0.25};
    static const uint32_t group[] = {1, 1, 2, MR_GROUP_NONE};
    (void)state;
    const mr_interval got = interval(values, group, 4, NULL);
    assert_true(got.mean == 0.25 && got.low == 0.25 && got.high == 0.25);
    assert_int_equal(got.rows, 4);
    assert_int_equal(got.groups, 3);
}

static void one_person_says_nothing_about_others(void **state)
{
    static const double values[] = {0, 1, 0.5};
    static const uint32_t group[] = {7, 7, 7};
    (void)state;
    const mr_interval got = interval(values, group, 3, NULL);
    assert_true(got.low == got.mean && got.high == got.mean && got.mean == 0.5);
    assert_int_equal(got.groups, 1);
}

static void rows_of_nobody_are_each_their_own(void **state)
{
    static const double values[] = {0, 1, 0, 1};
    static const uint32_t group[] = {MR_GROUP_NONE, MR_GROUP_NONE, MR_GROUP_NONE, MR_GROUP_NONE};
    (void)state;
    const mr_interval got = interval(values, group, 4, NULL);
    assert_int_equal(got.groups, 4);
    if (!(got.low == 0 && got.high == 1))
        fail_msg("[%g, %g], expected all of [0, 1]", got.low, got.high);
}

/* Two people, one with three rows: a resample has one of 4 equally likely draws, with the means
 * (0,0,0,1)/4, 0 alone and 1 alone. The quartiles of those are 0, 1/4 and 1. */
static void rows_of_a_person_move_together(void **state)
{
    static const double values[] = {0, 0, 0, 1};
    static const uint32_t group[] = {5, 5, 5, 9};
    const mr_bootstrap_options half = {.resamples = 20000, .seed = 3, .confidence = 0.3};
    (void)state;
    const mr_interval got = interval(values, group, 4, &half);
    assert_true(got.mean == 0.25);
    if (!(got.low == 0.25 && got.high == 0.25))
        fail_msg("[%g, %g], expected the middle half to be 0.25", got.low, got.high);
    const mr_bootstrap_options wide = {.resamples = 20000, .seed = 3, .confidence = 0.8};
    const mr_interval all = interval(values, group, 4, &wide);
    if (!(all.low == 0 && all.high == 1))
        fail_msg("[%g, %g], expected [0, 1]", all.low, all.high);
}

static void the_numbers_of_people_do_not_matter(void **state)
{
    double values[60], other[60];
    uint32_t group[60], renamed[60];
    mr_rng rng = mr_rng_seed(2);
    (void)state;
    for (size_t i = 0; i < 60; i++) {
        values[i] = mr_rng_uniform(&rng);
        group[i] = (uint32_t)(i / 4);
    }
    for (size_t i = 0; i < 60; i++) {
        other[i] = values[i];
        renamed[i] = group[i] * 1000 + 17;
    }
    const mr_interval a = interval(values, group, 60, NULL);
    const mr_interval b = interval(other, renamed, 60, NULL);
    assert_true(a.low == b.low && a.high == b.high && a.mean == b.mean);
    const mr_bootstrap_options seeded = {.resamples = 2000, .seed = 99, .confidence = 0.95};
    const mr_interval c = interval(values, group, 60, &seeded);
    assert_true(c.low != a.low && fabs(c.low - a.low) < 0.02);
}

/* Of 200 samples of 40 people whose mean is known, 95 % intervals hold it about 190 times; fewer
 * than 176 or more than 199 have a chance under 1 in 1,000 even for a true share of 0.93. */
static void intervals_hold_the_truth_as_often_as_they_say(void **state)
{
    mr_rng rng = mr_rng_seed(4);
    size_t held = 0, held_by_rows = 0;
    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        double values[120];
        uint32_t group[120], alone[120];
        for (size_t i = 0; i < 120; i += 3) {
            const double person = mr_rng_normal(&rng);
            for (size_t j = i; j < i + 3; j++) {
                values[j] = person + 0.1 * mr_rng_normal(&rng);
                group[j] = (uint32_t)i;
                alone[j] = MR_GROUP_NONE;
            }
        }
        const mr_bootstrap_options opt = {.resamples = 400, .seed = round, .confidence = 0.95};
        const mr_interval people = interval(values, group, 120, &opt);
        const mr_interval rows = interval(values, alone, 120, &opt);
        held += people.low <= 0 && 0 <= people.high;
        held_by_rows += rows.low <= 0 && 0 <= rows.high;
    }
    if (held < 176 || held > 199)
        fail_msg("%zu of 200 intervals hold the mean, expected about 190", held);
    if (held_by_rows >= held - 15)
        fail_msg("rows drawn alone: %zu of 200, people: %zu; expected far fewer", held_by_rows,
                 held);
}

static void a_difference_is_paired(void **state)
{
    double a[40], b[40];
    uint32_t group[40];
    mr_rng rng = mr_rng_seed(8);
    mr_interval got;
    mr_error err = {0};
    (void)state;
    for (size_t i = 0; i < 40; i++) {
        b[i] = mr_rng_uniform(&rng);
        a[i] = b[i] + 0.01;
        group[i] = (uint32_t)(i / 2);
    }
    assert_status(mr_bootstrap_difference(a, b, group, 40, NULL, &got, &err), MR_OK, &err);
    if (fabs(got.mean - 0.01) > 1e-12 || fabs(got.low - 0.01) > 1e-12 ||
        fabs(got.high - 0.01) > 1e-12)
        fail_msg("%g [%g, %g], expected 0.01 everywhere", got.mean, got.low, got.high);
}

static void what_cannot_be_drawn_is_refused(void **state)
{
    static const double good[] = {1, 2}, bad[] = {1, (double)INFINITY}, nan_at_0[] = {(double)NAN};
    static const uint32_t group[] = {1, 2};
    static const struct {
        const char *message;
        const double *values;
        size_t n;
        mr_bootstrap_options options;
    } row[] = {
        {"no rows", good, 0, MR_BOOTSTRAP_OPTIONS_DEFAULT},
        {"the value of row 1 is inf", bad, 2, MR_BOOTSTRAP_OPTIONS_DEFAULT},
        {"the value of row 0 is", nan_at_0, 1, MR_BOOTSTRAP_OPTIONS_DEFAULT},
        {"0 resamples, expected 1 to 1000000", good, 2, {.resamples = 0, .confidence = 0.9}},
        {"1000001 resamples", good, 2, {.resamples = 1000001, .confidence = 0.9}},
        {"a confidence of 0", good, 2, {.resamples = 10, .confidence = 0}},
        {"a confidence of 1", good, 2, {.resamples = 10, .confidence = 1}},
        {"a confidence of nan", good, 2, {.resamples = 10, .confidence = (double)NAN}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_interval out;
        mr_error err = {0};
        assert_status(
            mr_bootstrap_mean(row[i].values, group, row[i].n, &row[i].options, &out, &err),
            MR_INVALID, &err);
        assert_contains(err.message, row[i].message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_values_have_no_width),
        cmocka_unit_test(one_person_says_nothing_about_others),
        cmocka_unit_test(rows_of_nobody_are_each_their_own),
        cmocka_unit_test(rows_of_a_person_move_together),
        cmocka_unit_test(the_numbers_of_people_do_not_matter),
        cmocka_unit_test(intervals_hold_the_truth_as_often_as_they_say),
        cmocka_unit_test(a_difference_is_paired),
        cmocka_unit_test(what_cannot_be_drawn_is_refused),
    };
    return cmocka_run_group_tests_name("intervals", tests, NULL, NULL);
}
