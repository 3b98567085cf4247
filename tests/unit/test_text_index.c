/* test_text_index.c - words, BM25, TF-IDF and latent dimensions on cases that fit on a sheet of
 * paper.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "core/words.h"

#include "tests/unit/baseline_fixture.h"

#define EXACT 1e-12

/* ---- words ----------------------------------------------------------------------------------- */

static void texts_are_cut_into_stems(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", ""},
        {"The package provides a ", ""},
        {"Real-time STRATEGY game", "real time strategy game"},
        {"x y 7 c++ C# g++4 64bit", "c++ c# g++4 64 bit"},
        {"libraries flies ties", "library fly ties"},
        {"players playing played plays player", "play play play play play"},
        {"games boxes bed using used", "game boxe bed"},
        {"caf\xc3\xa9 na\xefve", "caf na ve"},
        {"don't.stop,me", "don stop me"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char got[256] = "", word[MR_WORD_MAX];
        size_t len;
        mr_str rest = mr_str_of(cases[i].text);
        while (mr_words_next(&rest, word, &len)) {
            assert_int_equal(len, strlen(word));
            snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", *got ? " " : "", word);
        }
        assert_int_equal(rest.len, 0);
        assert_string_equal(got, cases[i].words);
    }
}

static void a_word_without_an_end_is_cut_and_not_split(void **state)
{
    (void)state;
    char text[1000], word[MR_WORD_MAX];
    size_t len = 0;
    memset(text, 'a', sizeof text);
    mr_str rest = {text, sizeof text};
    assert_true(mr_words_next(&rest, word, &len));
    assert_int_equal(len, MR_WORD_MAX - 1);
    assert_false(mr_words_next(&rest, word, &len));
}

/* ---- BM25 ------------------------------------------------------------------------------------ */

static const char *const fruit[] = {"red apple", "green apple pie apple", "blue sky"};

/* Mean length 8/3; "apple" is in 2 of 3 items: idf ln(1 + 1.5/2.5). */
static void bm25_is_the_formula(void **state)
{
    (void)state;
    const double apple = log(1 + 1.5 / 2.5), sky = log(1 + 2.5 / 1.5);
    const double of_red = 1.2 * (0.25 + 0.75 * 2 / (8.0 / 3));
    const double of_green = 1.2 * (0.25 + 0.75 * 4 / (8.0 / 3));
    const double red = apple * 2.2 / (1 + of_red), green = apple * 2 * 2.2 / (2 + of_green);
    const double blue = sky * 2.2 / (1 + of_red);
    const struct {
        const char *query;
        double want[3];
    } cases[] = {
        {"apple", {red, green, 0}},
        {"the APPLE!", {red, green, 0}},
        {"apple apple", {2 * red, 2 * green, 0}},
        {"sky apple unheard", {red, green, blue}},
        {"unheard words", {0, 0, 0}},
        {"", {0, 0, 0}},
    };
    mr_text_index *index = index_of(fruit, COUNT(fruit), NULL);
    const mr_baseline_context context = {.text = index};
    assert_int_equal(mr_text_index_items(index), 3);
    for (size_t i = 0; i < COUNT(cases); i++) {
        const mr_baseline_request request = request_of(cases[i].query, NULL, 0, IDS(2, 0, 1));
        double got[3];
        score(MR_BASELINE_BM25, &context, &request, got);
        assert_near(got[1], cases[i].want[0], EXACT);
        assert_near(got[2], cases[i].want[1], EXACT);
        assert_near(got[0], cases[i].want[2], EXACT);
    }
    assert_near(red, 0.5235483, 1e-6);
    mr_text_index_free(index);
}

static void the_options_of_bm25_and_the_title_count(void **state)
{
    (void)state;
    const mr_text_index_options options = {.k1 = 2, .b = 0.5};
    const mr_text_item item[] = {{.title = mr_str_of("tart"), .text = mr_str_of("red apple")},
                                 {.text = mr_str_of("sky")}};
    mr_text_index *index = NULL;
    mr_error err = {0};
    double got[2];
    assert_status(mr_text_index_new(&index, item, 2, &options, &err), MR_OK, &err);
    const mr_baseline_context context = {.text = index};
    const mr_baseline_request request = request_of("tart", NULL, 0, IDS(0, 1));
    score(MR_BASELINE_BM25, &context, &request, got);
    assert_near(got[0], log(1 + 1.5 / 1.5) * 3 / (1 + 2 * (0.5 + 0.5 * 3 / 2.0)), EXACT);
    assert_near(got[1], 0, 0);
    mr_text_index_free(index);
}

/* Appends the numbers from..to as words, greatest first: not in the order of the alphabet. */
static void write_numbers(char *text, size_t size, int from, int to)
{
    for (int k = to; k >= from; k--)
        snprintf(text + strlen(text), size - strlen(text), " %d", k);
}

/* In both cases the history has more than 40 words. First "49" is in three items and the others in
 * one or two, so that it is the word left out. Then all 42 words tell equally much, and the last
 * two of them as text are left out. */
static void the_history_is_searched_by_its_forty_most_telling_words(void **state)
{
    (void)state;
    char history[200] = "zz", all[200] = "", low[200] = "", high[200] = "", most[200] = "";
    write_numbers(history, sizeof history, 10, 49);
    write_numbers(all, sizeof all, 10, 51);
    write_numbers(low, sizeof low, 10, 30);
    write_numbers(high, sizeof high, 31, 51);
    write_numbers(most, sizeof most, 10, 49);
    const struct {
        const char *text[6], *query;
    } cases[] = {
        {{history, "zz", "zz 49", "49 49", "10", "zz"}, "zz 10"},
        {{all, "", low, high, "", ""}, most},
    };
    for (size_t c = 0; c < COUNT(cases); c++) {
        mr_text_index *index = index_of(cases[c].text, 6, NULL);
        const mr_baseline_context context = {.text = index};
        double of_history[3], of_words[3];
        const mr_baseline_request request = request_of("", IDS(0, 1), IDS(2, 3, 4));
        const mr_baseline_request same = request_of(cases[c].query, NULL, 0, IDS(2, 3, 4));
        score(MR_BASELINE_BM25_HISTORY, &context, &request, of_history);
        score(MR_BASELINE_BM25, &context, &same, of_words);
        for (size_t i = 0; i < 3; i++)
            assert_near(of_history[i], of_words[i], EXACT);
        mr_text_index_free(index);
    }
}

/* ---- cosines --------------------------------------------------------------------------------- */

/* Of the four items "apple" is in three and "red" and the others in one. */
static void tfidf_is_the_cosine_of_weighted_words(void **state)
{
    (void)state;
    const char *const text[] = {"red apple", "green apple", "apple apple pie", "blue sky"};
    const double apple = log(5.0 / 4) + 1, rare = log(5.0 / 2) + 1;
    const double twice = (1 + log(2)) * apple;
    const double red_green = apple * apple / (apple * apple + rare * rare);
    const double red_pie =
        apple * twice / (sqrt(apple * apple + rare * rare) * sqrt(twice * twice + rare * rare));
    mr_text_index *index = index_of(text, COUNT(text), &all_words);
    const mr_baseline_context context = {.text = index};
    double got[2];
    const mr_baseline_request one = request_of("", IDS(0), IDS(1, 3));
    score(MR_BASELINE_TFIDF, &context, &one, got);
    assert_near(got[0], red_green, EXACT);
    assert_near(got[1], 0, 0);

    const mr_baseline_request two = request_of("", IDS(1, 2), IDS(0, 3));
    score(MR_BASELINE_TFIDF, &context, &two, got);
    assert_near(got[0], (red_green + red_pie) / 2, EXACT);
    mr_text_index_free(index);
}

static void only_the_three_nearest_items_of_the_history_count(void **state)
{
    (void)state;
    const char *const text[] = {"red apple", "red apple", "sky", "sea", "red apple", "red apple"};
    mr_text_index *index = index_of(text, COUNT(text), &all_words);
    const mr_baseline_context context = {.text = index};
    const mr_baseline_request request = request_of("", IDS(2, 1, 3, 4, 5), IDS(0, 2));
    static const mr_baseline both[] = {MR_BASELINE_TFIDF, MR_BASELINE_LSA};
    for (size_t b = 0; b < COUNT(both); b++) {
        double got[2];
        score(both[b], &context, &request, got);
        assert_near(got[0], 1, 1e-9);
        assert_near(got[1], 1.0 / 3, 1e-9);
    }
    mr_text_index_free(index);
}

/* With the bounds of the defaults a word of one or two items, or of more than a fifth of them, says
 * nothing; BM25 reads it all the same. */
static void rare_and_common_words_are_left_out_of_the_cosines(void **state)
{
    (void)state;
    const char *const text[] = {"tea all1", "tea all1", "tea all1", "odd all1", "odd all1",
                                "all1",     "all1",     "all1",     "all1",     "all1",
                                "all1",     "all1",     "all1",     "all1",     "all1"};
    mr_text_index *index = index_of(text, COUNT(text), NULL);
    const mr_baseline_context context = {.text = index};
    double got[3];
    const mr_baseline_request request = request_of("odd", IDS(1, 4), IDS(0, 3, 5));
    score(MR_BASELINE_TFIDF, &context, &request, got);
    assert_near(got[0], 0.5, EXACT);
    assert_near(got[1], 0, 0);
    assert_near(got[2], 0, 0);
    score(MR_BASELINE_BM25, &context, &request, got);
    assert_true(got[1] > 0 && got[0] == 0);
    mr_text_index_free(index);
}

static void as_many_latent_dimensions_as_words_give_the_cosines_of_the_words(void **state)
{
    (void)state;
    mr_text_index *index = index_of(topics, COUNT(topics), &all_words);
    const mr_baseline_context context = {.text = index};
    const mr_baseline_request request = request_of("", IDS(0, 5), IDS(1, 2, 3, 4, 6, 7, 8, 9));
    double lsa[8], tfidf[8];
    score(MR_BASELINE_LSA, &context, &request, lsa);
    score(MR_BASELINE_TFIDF, &context, &request, tfidf);
    for (size_t i = 0; i < 8; i++)
        assert_near(lsa[i], tfidf[i], 1e-9);
    mr_text_index_free(index);
}

/* The words "car" and "automobile" never meet; their companions do. */
static void few_latent_dimensions_bring_words_of_one_topic_together(void **state)
{
    (void)state;
    static const char *const text[] = {
        "car",          "automobile",       "petal",
        "engine wheel", "car engine wheel", "automobile engine wheel",
        "engine wheel", "engine wheel",     "petal garden",
        "petal garden", "petal garden",     "petal garden",
        "petal garden"};
    const mr_text_index_options options = {.min_items = 1, .max_share = 1, .lsa_dim = 2};
    mr_text_index *index = index_of(text, COUNT(text), &options);
    const mr_baseline_context context = {.text = index};
    const mr_baseline_request request = request_of("", IDS(0), IDS(1, 2, 3));
    double got[3];
    score(MR_BASELINE_TFIDF, &context, &request, got);
    assert_near(got[0], 0, 0);
    score(MR_BASELINE_LSA, &context, &request, got);
    assert_near(got[0], 1, 1e-6);
    assert_near(got[1], 0, 1e-6);
    assert_near(got[2], 1, 1e-6);
    mr_text_index_free(index);
}

static void more_dimensions_than_the_texts_have_are_no_harm(void **state)
{
    (void)state;
    static const char *const same[] = {"tea cup", "tea cup", "tea cup", "", "cup tea"};
    mr_text_index *index = index_of(same, COUNT(same), &all_words);
    const mr_baseline_context context = {.text = index};
    const mr_baseline_request request = request_of("", IDS(0), IDS(1, 3, 4));
    double got[3];
    score(MR_BASELINE_LSA, &context, &request, got);
    assert_near(got[0], 1, 1e-9);
    assert_near(got[1], 0, 0);
    assert_near(got[2], 1, 1e-9);
    mr_text_index_free(index);
}

/* ---- refused --------------------------------------------------------------------------------- */

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    static const struct {
        mr_text_index_options options;
        const char *message;
    } cases[] = {{{.k1 = -1}, "k1 of BM25 is -1"},
                 {{.b = 1.5}, "b of BM25 is 1.5"},
                 {{.max_share = 2}, "a share of 2"},
                 {{.lsa_dim = 5000}, "5000 latent dimensions, expected at most 1024"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        mr_text_index *index = NULL;
        mr_error err = {0};
        assert_status(mr_text_index_new(&index, NULL, 0, &cases[i].options, &err), MR_INVALID,
                      &err);
        assert_contains(err.message, cases[i].message);
        assert_null(index);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_cut_into_stems),
        cmocka_unit_test(a_word_without_an_end_is_cut_and_not_split),
        cmocka_unit_test(bm25_is_the_formula),
        cmocka_unit_test(the_options_of_bm25_and_the_title_count),
        cmocka_unit_test(the_history_is_searched_by_its_forty_most_telling_words),
        cmocka_unit_test(tfidf_is_the_cosine_of_weighted_words),
        cmocka_unit_test(only_the_three_nearest_items_of_the_history_count),
        cmocka_unit_test(rare_and_common_words_are_left_out_of_the_cosines),
        cmocka_unit_test(as_many_latent_dimensions_as_words_give_the_cosines_of_the_words),
        cmocka_unit_test(few_latent_dimensions_bring_words_of_one_topic_together),
        cmocka_unit_test(more_dimensions_than_the_texts_have_are_no_harm),
        cmocka_unit_test(options_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
