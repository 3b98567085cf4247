/* test_metrics.c - metrics.h against values worked out by hand from the definitions that it names.
 *
 * D(p) = 1 / log2(p + 1): D(1) = 1, D(2) = 0.630929753571, D(3) = 0.5, D(4) = 0.430676558074,
 * D(5) = 0.386852807235. The list `3 0 1 0 1` of a query with labels 3, 1, 1, 1 is used throughout;
 * one relevant document was not retrieved.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "core/rng.h"
#include "ranker/evaluation/metrics.h"

#define MOST 12

static mr_judgements judge(const int *labels)
{
    mr_judgements judged = {0};
    for (; *labels; labels++)
        mr_judgements_add(&judged, *labels);
    return judged;
}

static void same(const char *what, double got, double want)
{
    if (!(fabs(got - want) < 1e-11))
        fail_msg("%s is %.12f, expected %.12f", what, got, want);
}

static const int standard[] = {3, 0, 1, 0, 1};
static const int standard_labels[] = {1, 3, 1, 1, 0};
enum { N = 5 };

static void ndcg_divides_by_the_ideal_list_of_all_labels(void **state)
{
    const mr_judgements judged = judge(standard_labels);
    (void)state;
    /* DCG = 3 + 0.5 + 0.386852807235; ideal 3 1 1 1 = 3 + 0.630929753571 + 0.5 + 0.430676558074 */
    same("linear", mr_metric_ndcg(standard, N, &judged, 10, MR_GAIN_LINEAR),
         3.886852807235 / 4.561606311645);
    same("linear, whole list", mr_metric_ndcg(standard, N, &judged, 0, MR_GAIN_LINEAR),
         3.886852807235 / 4.561606311645);
    /* Gains 7 and 1. */
    same("exponential", mr_metric_ndcg(standard, N, &judged, 10, MR_GAIN_EXPONENTIAL),
         7.886852807235 / 8.561606311645);
    /* Cut at 2: DCG 3, ideal 3 + 0.630929753571 */
    same("cut at 2", mr_metric_ndcg(standard, N, &judged, 2, MR_GAIN_LINEAR), 3 / 3.630929753571);
    same("cut at 3", mr_metric_ndcg(standard, N, &judged, 3, MR_GAIN_LINEAR), 3.5 / 4.130929753571);
    same("cut at 1", mr_metric_ndcg(standard, N, &judged, 1, MR_GAIN_EXPONENTIAL), 1);
}

static void set_measures_count_relevant_ones(void **state)
{
    const mr_judgements judged = judge(standard_labels);
    (void)state;
    same("P_1", mr_metric_precision(standard, N, 1, 1), 1);
    same("P_3", mr_metric_precision(standard, N, 3, 1), 2.0 / 3);
    same("P_10 of a list of 5", mr_metric_precision(standard, N, 10, 1), 0.3);
    same("P_5 at level 2", mr_metric_precision(standard, N, 5, 2), 0.2);
    same("recall_3", mr_metric_recall(standard, N, &judged, 3, 1), 0.5);
    same("recall_10", mr_metric_recall(standard, N, &judged, 10, 1), 0.75);
    same("recall_10 at level 3", mr_metric_recall(standard, N, &judged, 10, 3), 1);
    same("success_1", mr_metric_success(standard, N, 1, 1), 1);
    same("success_10 at level 4", mr_metric_success(standard, N, 10, 4), 0);
    static const int late[] = {0, 0, 1};
    same("success_2", mr_metric_success(late, 3, 2, 1), 0);
    same("success_3", mr_metric_success(late, 3, 3, 1), 1);
}

static void rank_measures_follow_the_places(void **state)
{
    const mr_judgements judged = judge(standard_labels);
    static const int late[] = {0, 1, 0, 3};
    (void)state;
    same("recip_rank", mr_metric_reciprocal_rank(standard, N, 1), 1);
    same("recip_rank, second", mr_metric_reciprocal_rank(late, 4, 1), 0.5);
    same("recip_rank at level 3", mr_metric_reciprocal_rank(late, 4, 3), 0.25);
    same("recip_rank of none", mr_metric_reciprocal_rank(late, 1, 1), 0);
    /* Relevant at 1, 3, 5: (1/1 + 2/3 + 3/5) / 4 */
    same("map", mr_metric_average_precision(standard, N, &judged, 1), (1 + 2.0 / 3 + 0.6) / 4);
    same("map at level 3", mr_metric_average_precision(standard, N, &judged, 3), 1);
}

static void odd_lists_have_values_too(void **state)
{
    static const int three[] = {3};
    static const int negative[] = {-1, 2};
    static const int huge[] = {1000, 1};
    const mr_judgements none = {0};
    const mr_judgements one = judge((const int[]){2, 0});
    (void)state;
    same("ndcg of no labels", mr_metric_ndcg(three, 1, &none, 10, MR_GAIN_LINEAR), 0);
    same("map of no labels", mr_metric_average_precision(three, 1, &none, 1), 0);
    same("recall of no labels", mr_metric_recall(three, 1, &none, 10, 1), 0);
    same("ndcg of an empty list", mr_metric_ndcg(three, 0, &one, 10, MR_GAIN_LINEAR), 0);
    same("P_10 of an empty list", mr_metric_precision(three, 0, 10, 1), 0);
    same("P of an empty list", mr_metric_precision(three, 0, 0, 1), 0);
    same("recip_rank of an empty list", mr_metric_reciprocal_rank(three, 0, 1), 0);
    same("a grade below 0 gains nothing",
         mr_metric_ndcg(negative, 2, &one, 10, MR_GAIN_EXPONENTIAL), 0.630929753571);
    same("a grade out of bounds counts as the highest",
         mr_metric_ndcg(huge, 2, &(mr_judgements){.count = {[1] = 1, [MR_GRADE_MAX] = 1}}, 10,
                        MR_GAIN_LINEAR),
         1);
    assert_int_equal(mr_judgements_highest(&none), 0);
    assert_int_equal(mr_judgements_highest(&one), 2);
    assert_int_equal(mr_judgements_relevant(&one, 0), 1);
    assert_int_equal(mr_judgements_relevant(&one, 3), 0);
    mr_judgements bounded = {0};
    mr_judgements_add(&bounded, 1000);
    mr_judgements_add(&bounded, 0);
    mr_judgements_add(&bounded, -1);
    assert_int_equal(mr_judgements_highest(&bounded), MR_GRADE_MAX);
    assert_int_equal(mr_judgements_relevant(&bounded, 1), 1);
}

/* Best order gives 1, a swap of neighbours in the right direction never hurts, all stay in 0..1. */
static void random_lists_keep_the_measures_in_bounds(void **state)
{
    mr_rng rng = mr_rng_seed(11);
    (void)state;
    for (unsigned round = 0; round < 2000; round++) {
        int grades[MOST], best[MOST];
        const size_t n = 1 + (size_t)mr_rng_below(&rng, MOST);
        mr_judgements judged = {0};
        for (size_t i = 0; i < n; i++) {
            grades[i] = (int)mr_rng_below(&rng, 4);
            mr_judgements_add(&judged, grades[i]);
        }
        size_t filled = 0;
        for (int grade = 3; grade >= 0; grade--)
            for (size_t i = 0; i < n; i++)
                if (grades[i] == grade)
                    best[filled++] = grade;
        const size_t k = (size_t)mr_rng_below(&rng, MOST + 2);
        const mr_gain gain = round % 2 ? MR_GAIN_LINEAR : MR_GAIN_EXPONENTIAL;
        const double ndcg = mr_metric_ndcg(grades, n, &judged, k, gain);
        if (!(ndcg >= 0 && ndcg <= 1 + 1e-12))
            fail_msg("round %u: ndcg of %zu at %zu is %g", round, n, k, ndcg);
        same("ndcg of the best order", mr_metric_ndcg(best, n, &judged, k, gain),
             mr_judgements_highest(&judged) > 0);
        for (size_t i = 0; i + 1 < n; i++) {
            if (grades[i] >= grades[i + 1])
                continue;
            int swapped[MOST];
            memcpy(swapped, grades, sizeof grades);
            swapped[i] = grades[i + 1];
            swapped[i + 1] = grades[i];
            const double better = mr_metric_ndcg(swapped, n, &judged, k, gain);
            if (better < ndcg)
                fail_msg("round %u: a better order has %g, it was %g", round, better, ndcg);
            const double ap = mr_metric_average_precision(grades, n, &judged, 1);
            if (mr_metric_average_precision(swapped, n, &judged, 1) < ap)
                fail_msg("round %u: a better order has less than %g", round, ap);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ndcg_divides_by_the_ideal_list_of_all_labels),
        cmocka_unit_test(set_measures_count_relevant_ones),
        cmocka_unit_test(rank_measures_follow_the_places),
        cmocka_unit_test(odd_lists_have_values_too),
        cmocka_unit_test(random_lists_keep_the_measures_in_bounds),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
