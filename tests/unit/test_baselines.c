/* test_baselines.c - baskets, what the signals add up to, random draws, and requests that are
 * refused.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/baseline_fixture.h"

#define EXACT 1e-12
/* What a deviation is lengthened by before anything is divided by it moves a score by this much. */
#define STANDARDISED 1e-6

/* ---- baskets --------------------------------------------------------------------------------- */

static const char *const five[] = {"aa", "bb", "cc", "dd", "ee"};

static void items_of_one_basket_co_occur_with_the_weight_of_its_size(void **state)
{
    (void)state;
    static const uint32_t three[] = {0, 1, 2}, two[] = {2, 1, 2}, single[] = {3};
    static const uint8_t allowed[] = {0, 1, 1, 1, 1};
    uint32_t large[201];
    for (size_t i = 0; i < COUNT(large); i++)
        large[i] = (uint32_t)(i % 5);
    const mr_basket basket[] = {{three, 3}, {two, 3}, {single, 1}, {large, COUNT(large)}};
    const double w2 = 1 / log(4), w3 = 1 / log(5), w5 = 1 / log(7);
    const struct {
        const uint8_t *allowed;
        size_t n_baskets, leave_out;
        double want[3]; /* of items 2, 3 and 1 to a history of 0 and 1 */
    } cases[] = {
        {NULL, 3, 0, {2 * w3 + w2, 0, w3}},
        {NULL, 3, 1, {w2, 0, 0}},
        {NULL, 3, 2, {2 * w3, 0, w3}},
        {NULL, 3, 3, {2 * w3 + w2, 0, w3}},
        {NULL, 4, 0, {2 * w3 + w2 + 2 * w5, 2 * w5, w3 + w5}},
        {allowed, 3, 0, {2 * w2, 0, 0}},
        {NULL, 0, 0, {0, 0, 0}},
    };
    mr_text_index *index = index_of(five, COUNT(five), NULL);
    for (size_t i = 0; i < COUNT(cases); i++) {
        mr_error err = {0};
        mr_baskets *baskets = NULL;
        assert_status(mr_baskets_new(&baskets, basket, cases[i].n_baskets, COUNT(five),
                                     cases[i].allowed, &err),
                      MR_OK, &err);
        const mr_baseline_context context = {.text = index, .baskets = baskets};
        mr_baseline_request request = request_of("", IDS(0, 1), IDS(2, 3, 1));
        request.leave_out = cases[i].leave_out;
        for (int again = 0; again < 2; again++) {
            double got[3];
            score(MR_BASELINE_COOCCURRENCE, &context, &request, got);
            for (size_t k = 0; k < 3; k++)
                assert_near(got[k], cases[i].want[k], EXACT);
        }
        mr_baskets_free(baskets);
    }
    mr_text_index_free(index);
}

static void baskets_of_more_than_two_hundred_items_say_nothing(void **state)
{
    (void)state;
    static const char text[] = "aa";
    mr_text_item item[202];
    uint32_t large[201];
    mr_text_index *index = NULL;
    mr_error err = {0};
    for (size_t i = 0; i < COUNT(item); i++)
        item[i] = (mr_text_item){.text = mr_str_of(text)};
    for (size_t i = 0; i < COUNT(large); i++)
        large[i] = (uint32_t)i;
    assert_status(mr_text_index_new(&index, item, COUNT(item), NULL, &err), MR_OK, &err);
    for (size_t n = 200; n <= 201; n++) {
        const mr_basket basket = {large, n};
        mr_baskets *baskets = NULL;
        double got[1];
        assert_status(mr_baskets_new(&baskets, &basket, 1, COUNT(item), NULL, &err), MR_OK, &err);
        const mr_baseline_context context = {.text = index, .baskets = baskets};
        const mr_baseline_request request = request_of("", IDS(0), IDS(1));
        score(MR_BASELINE_COOCCURRENCE, &context, &request, got);
        assert_near(got[0], n == 200 ? 1 / log(202) : 0, EXACT);
        mr_baskets_free(baskets);
    }
    mr_text_index_free(index);
}

/* ---- what they add up to --------------------------------------------------------------------- */

/* Of two candidates the better one stands 1 above the mean and the other 1 below. Item 0 wins by
 * the query and 1 by the history, 1 alone shares a basket with it; 0 its section. */
static void standardised_signals_are_added_up(void **state)
{
    (void)state;
    static const uint32_t shared[] = {1, 2};
    static const char *const text[] = {"tea", "cup saucer", "cup saucer"};
    const mr_basket basket = {shared, 2};
    mr_error err = {0};
    mr_text_index *index = index_of(text, COUNT(text), &all_words);
    mr_baskets *baskets = NULL;
    assert_status(mr_baskets_new(&baskets, &basket, 1, COUNT(text), NULL, &err), MR_OK, &err);
    const mr_baseline_context context = {.text = index, .baskets = baskets};
    const mr_baseline_request request = request_of("tea", IDS(2), IDS(0, 1));
    double got[2], features[2][MR_BASELINE_FEATURES];
    score(MR_BASELINE_SUM, &context, &request, got);
    assert_near(got[0], 0, STANDARDISED);
    assert_near(got[1], 0, STANDARDISED);
    score(MR_BASELINE_HISTORY_SUM, &context, &request, got);
    assert_near(got[0], -3 + 0.5, STANDARDISED);
    assert_near(got[1], 3 - 0.5, STANDARDISED);

    /* BM25, LSA twice, TF-IDF twice, co-occurrence, section, and the three products. */
    static const double want[MR_BASELINE_FEATURES] = {1, -1, -1, -1, -1, -1, 1, -1, -1, -1};
    assert_status(mr_baseline_features(&context, &request, features[0], &err), MR_OK, &err);
    for (size_t f = 0; f < MR_BASELINE_FEATURES; f++) {
        assert_near(features[0][f], want[f], STANDARDISED);
        assert_near(features[1][f], f < MR_BASELINE_SIGNALS ? -want[f] : want[f], STANDARDISED);
    }
    mr_baskets_free(baskets);
    mr_text_index_free(index);
}

static void an_item_without_a_section_shares_none(void **state)
{
    (void)state;
    mr_text_item item[3];
    mr_text_index *index = NULL;
    mr_error err = {0};
    double features[2][MR_BASELINE_FEATURES];
    for (size_t i = 0; i < 3; i++)
        item[i] = (mr_text_item){.text = mr_str_of("tea"), .section = MR_BASELINE_NO_SECTION};
    assert_status(mr_text_index_new(&index, item, 3, NULL, &err), MR_OK, &err);
    const mr_baseline_context context = {.text = index};
    const mr_baseline_request request = request_of("tea", IDS(2), IDS(0, 1));
    assert_status(mr_baseline_features(&context, &request, features[0], &err), MR_OK, &err);
    for (size_t f = 0; f < MR_BASELINE_FEATURES; f++)
        assert_near(features[1][f], 0, 0);
    mr_text_index_free(index);
}

static void nothing_to_go_by_makes_all_scores_equal(void **state)
{
    (void)state;
    static const char *const queries[] = {"", "unheard words", "the of and", "\xff\xfe", "a"};
    mr_text_index *index = index_of(topics, COUNT(topics), &all_words);
    mr_linear_ranker linear = {.n_levels = 1, .grade = {1}};
    for (size_t f = 0; f <= MR_BASELINE_FEATURES; f++)
        linear.weight[0][f] = 1;
    const mr_baseline_context context = {.text = index, .linear = &linear};
    for (size_t q = 0; q < COUNT(queries); q++) {
        for (int b = MR_BASELINE_RANDOM + 1; b < MR_BASELINE_COUNT; b++) {
            const mr_baseline_request request = request_of(queries[q], NULL, 0, IDS(0, 4, 7));
            double got[3];
            score((mr_baseline)b, &context, &request, got);
            assert_near(got[1], got[0], 0);
            assert_near(got[2], got[0], 0);
            const mr_baseline_request nobody = {.query = mr_str_of(queries[q])};
            score((mr_baseline)b, &context, &nobody, got);
        }
    }
    mr_text_index_free(index);
}

static void an_empty_catalogue_answers_an_empty_request(void **state)
{
    (void)state;
    static const char *const none[] = {""};
    for (size_t n = 0; n <= 1; n++) {
        mr_text_index *index = index_of(none, n, NULL);
        const mr_baseline_context context = {.text = index};
        const mr_baseline_request request = request_of("tea", NULL, 0, NULL, 0);
        double got[1] = {0};
        for (int b = 0; b < MR_BASELINE_LINEAR; b++)
            score((mr_baseline)b, &context, &request, got);
        mr_text_index_free(index);
    }
}

/* ---- repeatable ------------------------------------------------------------------------------ */

static void the_same_catalogue_gives_the_same_bits(void **state)
{
    (void)state;
    mr_text_index *first = index_of(topics, COUNT(topics), &all_words);
    mr_text_index *second = index_of(topics, COUNT(topics), &all_words);
    const mr_baseline_context a = {.text = first, .seed = 7}, b = {.text = second, .seed = 7};
    const mr_baseline_request request = request_of("engine", IDS(0, 5), IDS(1, 2, 3, 6));
    for (int k = 0; k < MR_BASELINE_LINEAR; k++) {
        double x[4], y[4];
        score((mr_baseline)k, &a, &request, x);
        score((mr_baseline)k, &b, &request, y);
        assert_memory_equal(x, y, sizeof x);
    }
    mr_text_index_free(first);
    mr_text_index_free(second);
}

static void random_draws_follow_the_seed_and_the_candidates(void **state)
{
    (void)state;
    const mr_baseline_context seven = {.seed = 7}, eight = {.seed = 8};
    const mr_baseline_request request = request_of("", NULL, 0, IDS(1, 2, 3, 4));
    const mr_baseline_request other = request_of("", NULL, 0, IDS(1, 2, 3, 5));
    double a[4], b[4];
    score(MR_BASELINE_RANDOM, &seven, &request, a);
    score(MR_BASELINE_RANDOM, &seven, &request, b);
    assert_memory_equal(a, b, sizeof a);
    score(MR_BASELINE_RANDOM, &eight, &request, b);
    assert_memory_not_equal(a, b, sizeof a);
    score(MR_BASELINE_RANDOM, &seven, &other, b);
    assert_memory_not_equal(a, b, sizeof a);
    for (size_t i = 0; i < 4; i++)
        assert_true(a[i] >= 0 && a[i] < 1);
}

static void every_baseline_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int a = 0; a < MR_BASELINE_COUNT; a++) {
        assert_true(strlen(mr_baseline_what((mr_baseline)a)) > 10);
        for (int b = 0; b < a; b++)
            assert_string_not_equal(mr_baseline_name((mr_baseline)a),
                                    mr_baseline_name((mr_baseline)b));
    }
    assert_string_equal(mr_baseline_name(MR_BASELINE_BM25_HISTORY), "bm25-history");
    assert_string_equal(mr_baseline_name(MR_BASELINE_COUNT), "unknown");
}

/* ---- refused --------------------------------------------------------------------------------- */

static void what_is_wrong_with_a_request_is_said(void **state)
{
    (void)state;
    static const uint32_t item[] = {4, 5};
    const mr_basket basket = {item, 2};
    mr_error err = {0};
    mr_text_index *index = index_of(five, COUNT(five), NULL);
    mr_baskets *baskets = NULL;
    assert_status(mr_baskets_new(&baskets, &basket, 1, 5, NULL, &err), MR_INVALID, &err);
    assert_contains(err.message, "basket 0 holds item 5, expected below 5");
    assert_status(mr_baskets_new(&baskets, &basket, 1, 6, NULL, &err), MR_OK, &err);
    const struct {
        mr_baseline baseline;
        mr_baseline_context context;
        mr_baseline_request request;
        mr_status status;
        const char *message;
    } cases[] = {
        {MR_BASELINE_BM25,
         {.text = index},
         request_of("", NULL, 0, IDS(0, 5)),
         MR_INVALID,
         "candidate 1 is item 5, expected one of the 5 items"},
        {MR_BASELINE_TFIDF,
         {.text = index},
         request_of("", IDS(7), IDS(0)),
         MR_INVALID,
         "history item 0 is item 7"},
        {MR_BASELINE_SUM,
         {.text = NULL},
         request_of("", NULL, 0, IDS(0)),
         MR_INVALID,
         "without a text index"},
        {MR_BASELINE_LSA,
         {.text = index, .baskets = baskets},
         request_of("", NULL, 0, IDS(0)),
         MR_MISMATCH,
         "baskets of 6 items with a text index of 5"},
        {MR_BASELINE_LINEAR,
         {.text = index},
         request_of("", NULL, 0, IDS(0)),
         MR_INVALID,
         "without a fitted ranker"},
        {MR_BASELINE_COUNT,
         {.text = index},
         request_of("", NULL, 0, IDS(0)),
         MR_INVALID,
         "baseline number 9"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        double got[2];
        err = (mr_error){0};
        assert_status(
            mr_baseline_score(cases[i].baseline, &cases[i].context, &cases[i].request, got, &err),
            cases[i].status, &err);
        assert_contains(err.message, cases[i].message);
    }
    mr_baskets_free(baskets);
    mr_text_index_free(index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_of_one_basket_co_occur_with_the_weight_of_its_size),
        cmocka_unit_test(baskets_of_more_than_two_hundred_items_say_nothing),
        cmocka_unit_test(standardised_signals_are_added_up),
        cmocka_unit_test(an_item_without_a_section_shares_none),
        cmocka_unit_test(nothing_to_go_by_makes_all_scores_equal),
        cmocka_unit_test(an_empty_catalogue_answers_an_empty_request),
        cmocka_unit_test(the_same_catalogue_gives_the_same_bits),
        cmocka_unit_test(random_draws_follow_the_seed_and_the_candidates),
        cmocka_unit_test(every_baseline_has_a_name_of_its_own),
        cmocka_unit_test(what_is_wrong_with_a_request_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
