/* test_linear_ranker.c - logistic regression against PyTorch and against its own conditions for a
 * minimum, the ranker that is made of it, and memory that runs out.
 *
 * Made with ALLOC_FAILURE: the k-th allocation of our code fails, for k = 1, 2, ... until all
 * succeed.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "core/rng.h"
#include "tests/alloc_failure.h"
#include "tests/unit/baseline_fixture.h"

/* ---- logistic regression --------------------------------------------------------------------- */

static double sigmoid(double z)
{
    return 1 / (1 + exp(-z));
}

static void fit(const double *x, const uint8_t *label, size_t n, size_t dim, double *w)
{
    mr_error err = {0};
    assert_status(mr_logistic_fit(x, label, n, dim, w, &err), MR_OK, &err);
}

/* torch.optim.LBFGS in f64 on binary_cross_entropy_with_logits(reduction="sum") + |w|^2 / 2, the
 * intercept not counted, until the gradient is under 1e-8. */
static void weights_are_those_of_pytorch(void **state)
{
    (void)state;
    static const double x[][2] = {{0.5, -1.25}, {2, 0.25},   {-1, 1.5}, {0, -0.5},
                                  {1.5, 1},     {-2, -0.75}, {0.25, 2}, {-0.5, 0.5}};
    static const uint8_t label[] = {1, 1, 0, 0, 1, 0, 0, 1};
    static const double want[] = {0.04950873498177447, 0.9287949153571035, -0.373358798614968};
    double w[3];
    fit(x[0], label, COUNT(label), 2, w);
    for (size_t j = 0; j < 3; j++)
        assert_near(w[j], want[j], 1e-8);
}

static void without_features_the_intercept_is_the_log_odds(void **state)
{
    (void)state;
    static const uint8_t label[] = {1, 0, 0, 0, 0};
    double w;
    fit(NULL, label, COUNT(label), 0, &w);
    assert_near(w, log(1.0 / 4), 1e-9);
}

/* At the minimum the gradient is 0, and there is one minimum only. One feature is a thousand times
 * as large as the others, one never changes. */
static void the_gradient_vanishes_at_the_weights(void **state)
{
    (void)state;
    enum { N = 300, DIM = 10 };
    static double x[N][DIM];
    static uint8_t label[N];
    double w[DIM + 1];
    mr_rng rng = mr_rng_seed(11);
    for (size_t i = 0; i < N; i++) {
        double z = -1;
        for (size_t j = 0; j < DIM; j++) {
            x[i][j] = j == 3 ? 1000 * mr_rng_normal(&rng) : j == 4 ? 2 : mr_rng_normal(&rng);
            z += j == 3 ? x[i][j] / 2000 : j % 2 ? x[i][j] : -x[i][j] / 2;
        }
        label[i] = mr_rng_uniform(&rng) < sigmoid(z);
    }
    fit(x[0], label, N, DIM, w);
    double gradient[DIM + 1] = {0};
    for (size_t i = 0; i < N; i++) {
        double z = w[0];
        for (size_t j = 0; j < DIM; j++)
            z += w[j + 1] * x[i][j];
        gradient[0] += sigmoid(z) - label[i];
        for (size_t j = 0; j < DIM; j++)
            gradient[j + 1] += (sigmoid(z) - label[i]) * x[i][j];
    }
    assert_near(gradient[0], 0, 1e-5);
    for (size_t j = 1; j <= DIM; j++)
        assert_near(gradient[j] + w[j], 0, 1e-5 * (j == 4 ? 1000 : 1));
}

/* Whoever can tell all rows apart has no finite weights without the penalty. */
static void rows_that_a_line_separates_have_finite_weights(void **state)
{
    (void)state;
    static const double x[] = {-3, -2, -1, 1, 2, 3};
    static const uint8_t label[] = {0, 0, 0, 1, 1, 1};
    double w[2];
    fit(x, label, COUNT(label), 1, w);
    assert_near(w[0], 0, 1e-9);
    double slope = 0; /* w = 2 x sum of x (1 - sigmoid(w x)): halve the interval it lies in */
    for (double low = 0, high = 10; high - low > 1e-12;) {
        slope = (low + high) / 2;
        double pull = -slope;
        for (size_t i = 3; i < 6; i++)
            pull += 2 * x[i] * sigmoid(-slope * x[i]);
        *(pull > 0 ? &low : &high) = slope;
    }
    assert_near(w[1], slope, 1e-8);
}

static void rows_that_nothing_can_be_learned_from_are_refused(void **state)
{
    (void)state;
    static const double x[] = {1, 2, (double)NAN};
    static const uint8_t ones[] = {1, 1, 1}, both[] = {1, 0, 1};
    const struct {
        const uint8_t *label;
        size_t n, dim;
        const char *message;
    } cases[] = {{ones, 2, 1, "2 of 2 rows are positive"},
                 {ones, 0, 1, "0 of 0 rows are positive"},
                 {both, 3, 1, "feature 0 of row 2 is not a finite number"},
                 {both, 1, 64, "64 features, expected at most 63"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        double w[65];
        mr_error err = {0};
        assert_status(mr_logistic_fit(x, cases[i].label, cases[i].n, cases[i].dim, w, &err),
                      MR_INVALID, &err);
        assert_contains(err.message, cases[i].message);
    }
}

/* ---- the ranker ------------------------------------------------------------------------------ */

static const char *const shop[] = {"green tea", "black tea", "tea cup",  "milk jug",
                                   "milk cow",  "black cat", "grey cat", "cat food"};

/* The asked-for word makes grade 1, the history's other word grade 3. */
static const uint32_t everything[] = {0, 1, 2, 3, 4, 5, 6, 7};
static const uint32_t cup[] = {2}, cow[] = {4}, food[] = {7};
static const uint8_t grades[][8] = {
    {1, 3, 1, 0, 0, 0, 0, 0}, {0, 0, 0, 3, 1, 0, 0, 0}, {0, 0, 0, 0, 0, 3, 1, 1}};

static void fill_rows(mr_linear_row rows[3])
{
    rows[0].request = request_of("tea", cup, 1, everything, 8);
    rows[1].request = request_of("milk", cow, 1, everything, 8);
    rows[2].request = request_of("cat", food, 1, everything, 8);
    for (size_t r = 0; r < 3; r++)
        rows[r].grade = grades[r];
}

static void candidates_are_ordered_by_the_gain_that_is_expected_of_them(void **state)
{
    (void)state;
    mr_linear_row rows[3];
    mr_linear_ranker linear, again;
    mr_error err = {0};
    double got[8], features[8][MR_BASELINE_FEATURES];
    fill_rows(rows);
    mr_text_index *index = index_of(shop, COUNT(shop), &all_words);
    mr_baseline_context context = {.text = index, .linear = &linear};
    assert_status(mr_linear_ranker_fit(&linear, &context, rows, 3, &err), MR_OK, &err);
    assert_int_equal(linear.n_levels, 2);
    assert_int_equal(linear.grade[0], 1);
    assert_int_equal(linear.grade[1], 3);
    score(MR_BASELINE_LINEAR, &context, &rows[1].request, got);
    assert_status(mr_baseline_features(&context, &rows[1].request, features[0], &err), MR_OK, &err);
    for (size_t i = 0; i < 8; i++) {
        double z[2] = {linear.weight[0][0], linear.weight[1][0]};
        for (size_t f = 0; f < MR_BASELINE_FEATURES; f++) {
            z[0] += linear.weight[0][f + 1] * features[i][f];
            z[1] += linear.weight[1][f + 1] * features[i][f];
        }
        assert_near(got[i], sigmoid(z[0]) + 6 * sigmoid(z[1]), 1e-12);
        if (i != 3 && i != 4 && !(got[i] < got[3] && got[i] < got[4]))
            fail_msg("item %zu scores %g, the two that match %g and %g", i, got[i], got[3], got[4]);
    }
    assert_status(mr_linear_ranker_fit(&again, &context, rows, 3, &err), MR_OK, &err);
    assert_memory_equal(&again, &linear, sizeof linear);
    mr_text_index_free(index);
}

/* A training person's own basket answers the row; left out, it says nothing. */
static void a_row_does_not_see_the_basket_that_it_leaves_out(void **state)
{
    (void)state;
    static const uint32_t own[] = {1, 2};
    const mr_basket basket = {own, 2};
    mr_linear_row rows[3];
    mr_baskets *baskets = NULL;
    mr_linear_ranker seen, left_out, none;
    mr_error err = {0};
    fill_rows(rows);
    mr_text_index *index = index_of(shop, COUNT(shop), &all_words);
    assert_status(mr_baskets_new(&baskets, &basket, 1, COUNT(shop), NULL, &err), MR_OK, &err);
    const mr_baseline_context with = {.text = index, .baskets = baskets}, without = {.text = index};
    assert_status(mr_linear_ranker_fit(&seen, &with, rows, 3, &err), MR_OK, &err);
    rows[0].request.leave_out = 1;
    assert_status(mr_linear_ranker_fit(&left_out, &with, rows, 3, &err), MR_OK, &err);
    assert_status(mr_linear_ranker_fit(&none, &without, rows, 3, &err), MR_OK, &err);
    assert_memory_equal(&left_out, &none, sizeof none);
    assert_memory_not_equal(&seen, &none, sizeof none);
    mr_baskets_free(baskets);
    mr_text_index_free(index);
}

static void rows_without_anything_to_tell_apart_are_refused(void **state)
{
    (void)state;
    static const uint8_t zero[8] = {0}, one[8] = {1, 1, 1, 1, 1, 1, 1, 1}, nine[8] = {0, 9};
    static const uint32_t outside[] = {0, 8};
    const struct {
        const uint8_t *grade;
        const uint32_t *candidates;
        size_t n;
        const char *message;
    } cases[] = {{zero, everything, 8, "1 rows without a grade above 0"},
                 {one, everything, 8, "grades of 1 and above: 8 of 8 rows are positive"},
                 {nine, everything, 8, "grade 9 of candidate 1 in row 0, expected 0 to 7"},
                 {nine, everything, 0, "without a grade above 0"},
                 {one, outside, 2, "row 0: candidate 1 is item 8"}};
    mr_text_index *index = index_of(shop, COUNT(shop), &all_words);
    const mr_baseline_context context = {.text = index};
    for (size_t i = 0; i < COUNT(cases); i++) {
        const mr_linear_row row = {request_of("tea", NULL, 0, cases[i].candidates, cases[i].n),
                                   cases[i].grade};
        mr_linear_ranker linear;
        mr_error err = {0};
        assert_status(mr_linear_ranker_fit(&linear, &context, &row, 1, &err), MR_INVALID, &err);
        assert_contains(err.message, cases[i].message);
    }
    mr_text_index_free(index);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* The whole way from texts to scores; what failed first. */
static mr_status work(mr_error *err)
{
    mr_text_item item[COUNT(shop)];
    mr_linear_row rows[3];
    mr_linear_ranker linear;
    mr_text_index *index = NULL;
    mr_baskets *baskets = NULL;
    const mr_basket basket = {everything, 8};
    double got[8];
    fill_rows(rows);
    for (size_t i = 0; i < COUNT(shop); i++)
        item[i] = (mr_text_item){.text = mr_str_of(shop[i])};
    mr_status status = mr_text_index_new(&index, item, COUNT(shop), &all_words, err);
    if (status == MR_OK)
        status = mr_baskets_new(&baskets, &basket, 1, COUNT(shop), NULL, err);
    mr_baseline_context context = {.text = index, .baskets = baskets, .linear = &linear};
    if (status == MR_OK)
        status = mr_linear_ranker_fit(&linear, &context, rows, 3, err);
    for (int b = 0; b < MR_BASELINE_COUNT && status == MR_OK; b++)
        status = mr_baseline_score((mr_baseline)b, &context, &rows[0].request, got, err);
    mr_baskets_free(baskets);
    mr_text_index_free(index);
    return status;
}

static void the_kth_allocation_fails_cleanly_for_every_k(void **state)
{
    (void)state;
    mr_status status = MR_NO_MEMORY;
    long k = 0;
    while (status != MR_OK) {
        mr_error err = {0};
        alloc_fail_at(++k);
        status = work(&err);
        const bool all_succeeded = !alloc_failed();
        assert_status(status, all_succeeded ? MR_OK : MR_NO_MEMORY, &err);
    }
    assert_true(k > 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_those_of_pytorch),
        cmocka_unit_test(without_features_the_intercept_is_the_log_odds),
        cmocka_unit_test(the_gradient_vanishes_at_the_weights),
        cmocka_unit_test(rows_that_a_line_separates_have_finite_weights),
        cmocka_unit_test(rows_that_nothing_can_be_learned_from_are_refused),
        cmocka_unit_test(candidates_are_ordered_by_the_gain_that_is_expected_of_them),
        cmocka_unit_test(a_row_does_not_see_the_basket_that_it_leaves_out),
        cmocka_unit_test(rows_without_anything_to_tell_apart_are_refused),
        cmocka_unit_test(the_kth_allocation_fails_cleanly_for_every_k),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
