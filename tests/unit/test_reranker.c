/* test_reranker.c - a Qwen3-Reranker folder as a text bundle, against what transformers computes
 * with the template that was published with the model (tests/data/README.md, "reranker/").
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

#include "core/jsonl.h"
#include "ranker/pipeline/ranker.h"
#include "tests/ranker_support.h"
#include "tests/support.h"

#define BOUND 1e-5
#define MOST  64

typedef struct {
    mr_str query, document, instruction;
    bool has_instruction;
    size_t max_length;
    double margin, score;
    const json_t *ids;
} score_row;

typedef struct {
    json_t *rows; /* what score_row borrows from */
    score_row row[MOST];
    size_t n;
    char *folder;
} reference;

static mr_str text_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return (mr_str){json_string_value(value), json_string_length(value)};
}

static int set_up(void **state)
{
    static reference r;
    mr_jsonl reader;
    mr_error err = {0};
    json_t *row = NULL;
    r.rows = json_array();
    r.folder = test_folder_new();
    assert_status(mr_jsonl_open(&reader, "data/reranker/scores.jsonl", MR_JSONL_MAX_LINE, &err),
                  MR_OK, &err);
    while (mr_jsonl_next(&reader, &row, &err) == MR_OK && row) {
        assert_true(r.n < MOST);
        json_array_append_new(r.rows, row);
        r.row[r.n++] = (score_row){
            .query = text_of(row, "query"),
            .document = text_of(row, "document"),
            .instruction = text_of(row, "instruction"),
            .has_instruction = json_is_string(json_object_get(row, "instruction")),
            .max_length = (size_t)json_integer_value(json_object_get(row, "max_length")),
            .margin = json_real_value(json_object_get(row, "margin_plain")),
            .score = json_real_value(json_object_get(row, "score_plain")),
            .ids = json_object_get(row, "ids_plain")};
    }
    mr_jsonl_close(&reader);
    assert_int_equal(err.status, MR_OK);
    assert_true(r.n >= 17);
    *state = &r;
    return 0;
}

static int tear_down(void **state)
{
    reference *r = *state;
    json_decref(r->rows);
    test_folder_free(r->folder);
    return 0;
}

/* Made at the first call for this length. */
static mr_bundle *bundle_for(const reference *r, size_t max_length)
{
    char path[4096];
    mr_error err = {0};
    snprintf(path, sizeof path, "%s/%zu", r->folder, max_length);
    const mr_status status =
        mr_bundle_from_reranker(path, "data/reranker", NULL, max_length, true, false, &err);
    if (status != MR_EXISTS)
        assert_status(status, MR_OK, &err);
    return test_bundle_open(path, 2);
}

/* The fields that the prefix of a row takes. */
static mr_fields fields_of(const mr_bundle *bundle, const score_row *row, mr_field field[2])
{
    field[0] = (mr_field){mr_str_of("query"), row->query};
    field[1] = (mr_field){mr_str_of("instruction"), row->has_instruction
                                                        ? row->instruction
                                                        : mr_str_of(bundle->defaults_instruction)};
    return (mr_fields){field, 2};
}

static void the_ids_are_those_of_the_published_code(void **state)
{
    const reference *r = *state;
    for (size_t i = 0; i < r->n; i++) {
        const score_row *row = &r->row[i];
        mr_error err = {0};
        mr_field field[2];
        mr_bundle *bundle = bundle_for(r, row->max_length);
        mr_scorer *scorer = test_scorer(bundle, 0);
        const mr_field document = {mr_str_of("document"), row->document};
        const mr_scorer_prefix prefix = {.fields = fields_of(bundle, row, field)};
        const mr_prompt *suffix = NULL;
        assert_status(mr_scorer_begin(scorer, &prefix, &err), MR_OK, &err);
        assert_status(
            mr_scorer_suffix_prompt(scorer, (mr_fields){&document, 1}, 0, 0, &suffix, &err), MR_OK,
            &err);
        const mr_ids *first = &mr_scorer_prefix_prompt(scorer)->ids;
        if (first->n + suffix->ids.n != json_array_size(row->ids))
            fail_msg("row %zu: %zu + %zu ids, expected %zu", i, first->n, suffix->ids.n,
                     json_array_size(row->ids));
        for (size_t k = 0; k < json_array_size(row->ids); k++) {
            const json_int_t want = json_integer_value(json_array_get(row->ids, k));
            const int32_t got = k < first->n ? first->data[k] : suffix->ids.data[k - first->n];
            if (got != want)
                fail_msg("row %zu: id %zu is %d, expected %lld", i, k, (int)got, (long long)want);
        }
        mr_scorer_free(scorer);
        mr_bundle_close(bundle);
    }
}

/* One row through the pipeline. An empty query without a user is refused there, so that row goes
 * through the scorer. */
static void rank_row(const reference *r, const score_row *row, double *margin, double *score)
{
    mr_error err = {0};
    mr_bundle *bundle = bundle_for(r, row->max_length);
    const mr_field document = {mr_str_of("document"), row->document};
    const mr_field instruction = {mr_str_of("instruction"), row->instruction};
    if (row->query.len == 0) {
        mr_field field[2];
        mr_scorer *scorer = test_scorer(bundle, 0);
        const mr_scorer_prefix prefix = {.fields = fields_of(bundle, row, field)};
        const mr_scorer_candidate candidate = {.fields = {&document, 1}};
        assert_status(mr_scorer_begin(scorer, &prefix, &err), MR_OK, &err);
        *margin = test_score(scorer, &candidate);
        *score = mr_bundle_score(bundle, *margin);
        mr_scorer_free(scorer);
    } else {
        mr_ranker *ranker = NULL;
        mr_rank_reply *reply = NULL;
        const mr_candidate candidate = {.fields = {&document, 1}};
        mr_rank_request request = MR_RANK_REQUEST_DEFAULT;
        request.query = row->query;
        request.fields = (mr_fields){&instruction, row->has_instruction};
        request.candidates = &candidate;
        request.n_candidates = 1;
        assert_status(mr_ranker_new(&ranker, bundle, NULL, NULL, &err), MR_OK, &err);
        assert_status(mr_ranker_rank(ranker, &request, &reply, &err), MR_OK, &err);
        assert_int_equal(reply->n_items, 1);
        assert_int_equal(reply->items[0].source, MR_SOURCE_TEXT);
        assert_int_equal(reply->degraded, 0);
        *margin = reply->items[0].margin;
        *score = reply->items[0].score;
        mr_rank_reply_free(reply);
        mr_ranker_free(ranker);
    }
    mr_bundle_close(bundle);
}

static void margins_and_scores_are_those_of_transformers(void **state)
{
    const reference *r = *state;
    float margins[MOST], scores[MOST], want_margins[MOST], want_scores[MOST];
    for (size_t i = 0; i < r->n; i++) {
        double margin, score;
        rank_row(r, &r->row[i], &margin, &score);
        margins[i] = (float)margin;
        scores[i] = (float)score;
        want_margins[i] = (float)r->row[i].margin;
        want_scores[i] = (float)r->row[i].score;
    }
    print_message("margins off by %.2g of the largest, scores by %.2g\n",
                  test_relative_error(margins, want_margins, r->n),
                  test_relative_error(scores, want_scores, r->n));
    assert_floats_near(margins, want_margins, r->n, BOUND);
    assert_floats_near(scores, want_scores, r->n, BOUND);
}

/* All documents of one query and instruction in one request, in any order: what a search page
 * sends. */
static void one_request_ranks_many_documents(void **state)
{
    const reference *r = *state;
    mr_error err = {0};
    mr_candidate candidates[MOST];
    mr_field documents[MOST];
    double want[MOST];
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        if (!mr_str_equal(r->row[i].query, mr_str_of("how to boil water")))
            continue;
        /* "text" is what a catalogue calls it. */
        documents[n] = (mr_field){mr_str_of(n % 2 ? "text" : "document"), r->row[i].document};
        candidates[n] = (mr_candidate){.fields = {&documents[n], 1}};
        want[n++] = r->row[i].margin;
    }
    assert_true(n >= 2);
    mr_bundle *bundle = bundle_for(r, 8192);
    mr_ranker *ranker = NULL;
    mr_rank_reply *reply = NULL;
    mr_rank_request request = MR_RANK_REQUEST_DEFAULT;
    request.query = mr_str_of("how to boil water");
    request.candidates = candidates;
    request.n_candidates = n;
    assert_status(mr_ranker_new(&ranker, bundle, NULL, NULL, &err), MR_OK, &err);
    assert_status(mr_ranker_rank(ranker, &request, &reply, &err), MR_OK, &err);
    assert_int_equal(reply->n_scored, n);
    for (size_t i = 0; i < n; i++) {
        assert_true(fabs(reply->items[i].margin - want[reply->items[i].index]) < 1e-4);
        assert_true(i == 0 || reply->items[i].margin <= reply->items[i - 1].margin);
    }
    mr_rank_reply_free(reply);
    mr_ranker_free(ranker);
    mr_bundle_close(bundle);
}

static void a_reranker_bundle_has_golden_requests_too(void **state)
{
    const reference *r = *state;
    mr_error err = {0};
    char path[4096];
    snprintf(path, sizeof path, "%s/golden", r->folder);
    assert_status(
        mr_bundle_from_reranker(path, "data/reranker/", "Find it", 512, true, false, &err), MR_OK,
        &err);
    assert_status(mr_bundle_write_golden(path, NULL, 2, 1, &err), MR_OK, &err);
    assert_status(mr_bundle_verify(path, &err), MR_OK, &err);
    mr_bundle *bundle = test_bundle_open(path, 1);
    assert_string_equal(mr_bundle_name(bundle), "reranker");
    assert_string_equal(bundle->defaults_instruction, "Find it");
    assert_false(mr_bundle_is_mixed(bundle));
    assert_true(mr_bundle_item_space(bundle) == 0 && mr_bundle_user_space(bundle) == 0);
    mr_bundle_close(bundle);
}

static void an_instruction_that_is_not_utf8_is_refused(void **state)
{
    const reference *r = *state;
    mr_error err = {0};
    char path[4096];
    snprintf(path, sizeof path, "%s/none", r->folder);
    assert_status(mr_bundle_from_reranker(path, "data/reranker", "caf\xe9", 512, true, false, &err),
                  MR_INVALID, &err);
    assert_contains(err.message, "is not UTF-8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_ids_are_those_of_the_published_code),
        cmocka_unit_test(margins_and_scores_are_those_of_transformers),
        cmocka_unit_test(one_request_ranks_many_documents),
        cmocka_unit_test(a_reranker_bundle_has_golden_requests_too),
        cmocka_unit_test(an_instruction_that_is_not_utf8_is_refused),
    };
    return cmocka_run_group_tests_name("reranker", tests, set_up, tear_down);
}
