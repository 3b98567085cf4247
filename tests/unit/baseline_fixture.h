/* baseline_fixture.h - small catalogues and requests for tests of the baselines. Include after
 * cmocka.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_UNIT_BASELINE_FIXTURE_H
#define MR_TESTS_UNIT_BASELINE_FIXTURE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ranker/evaluation/baseline.h"
#include "tests/support.h"

#define COUNT(a)  (sizeof(a) / sizeof *(a))
#define MAX_ITEMS 16
/* An array literal and its length. */
#define IDS(...) (const uint32_t[]){__VA_ARGS__}, COUNT(((const uint32_t[]){__VA_ARGS__}))

/* cmocka's assert_float_equal compares as f32. */
#define assert_near(got, want, bound) test_near((got), (want), (bound), __FILE__, __LINE__)
static inline void test_near(double got, double want, double bound, const char *file, int line)
{
    if (fabs(got - want) <= bound)
        return;
    print_error("%.17g, expected %.17g within %g\n", got, want, bound);
    _fail(file, line);
}

/* Every word counts, however rare or common. */
static const mr_text_index_options all_words = {.min_items = 1, .max_share = 1};

/* Two topics that share no word. */
static const char *const topics[] = {"car engine wheel", "automobile engine wheel",
                                     "engine wheel",     "engine",
                                     "rose petal",       "tulip petal garden",
                                     "petal garden",     "garden",
                                     "wheel engine",     "petal"};

static inline mr_text_index *index_of(const char *const *text, size_t n,
                                      const mr_text_index_options *options)
{
    mr_text_item item[MAX_ITEMS];
    mr_text_index *index = NULL;
    mr_error err = {0};
    assert_true(n <= MAX_ITEMS);
    for (size_t i = 0; i < n; i++)
        item[i] = (mr_text_item){.text = mr_str_of(text[i]), .section = (uint32_t)(i % 2)};
    assert_status(mr_text_index_new(&index, item, n, options, &err), MR_OK, &err);
    return index;
}

static inline mr_baseline_request request_of(const char *query, const uint32_t *history,
                                             size_t n_history, const uint32_t *candidates, size_t n)
{
    return (mr_baseline_request){.query = mr_str_of(query),
                                 .history = history,
                                 .n_history = n_history,
                                 .candidates = candidates,
                                 .n = n};
}

static inline void score(mr_baseline baseline, const mr_baseline_context *context,
                         const mr_baseline_request *request, double *scores)
{
    mr_error err = {0};
    for (size_t i = 0; i < request->n; i++)
        scores[i] = (double)NAN;
    assert_status(mr_baseline_score(baseline, context, request, scores, &err), MR_OK, &err);
}

#endif
