/* test_pipeline_users.c - users, deadlines and explanations of a ranking.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/clock.h"
#include "core/utf8.h"
#include "ranker/pipeline/ranking.h"
#include "tests/unit/pipeline_fixture.h"

#define ID(text) .id = {(text), sizeof(text) - 1}

static const mr_candidate three[] = {{ID("a")}, {ID("b")}, {ID("c")}};

/* ---- users ----------------------------------------------------------------------------------- */

/* Margins of the three candidates, in the order of the request. */
static uint32_t margins_for(fixture *f, const mr_rank_request *request, double margins[3])
{
    mr_rank_reply *reply = rank(f->ranker, request);
    assert_int_equal(reply->n_scored, 3);
    for (size_t i = 0; i < 3; i++)
        margins[i] = item_of(reply, i)->margin;
    const uint32_t degraded = reply->degraded;
    mr_rank_reply_free(reply);
    return degraded;
}

static void assert_same(const double *a, const double *b, bool same, const char *what)
{
    if ((memcmp(a, b, 3 * sizeof *a) == 0) != same)
        fail_msg("%s: margins %.9g %.9g %.9g and %.9g %.9g %.9g, expected %s", what, a[0], a[1],
                 a[2], b[0], b[1], b[2], same ? "the same" : "others");
}

/* The same vectors inline, as a stored record and as the history that they were made from. */
static void a_user_is_the_same_inline_stored_or_as_a_history(void **state)
{
    fixture *f = *state;
    double anonymous[3], inline_margins[3], stored[3], history[3], turned[3];
    mr_rank_request request = request_for("red kettle", three, 3);
    assert_int_equal(margins_for(f, &request, anonymous), 0);

    /* What a set of the items d and f stands for, in the order that history.h gives it. */
    const mr_str ids[2] = {mr_str_of("d"), mr_str_of("f")};
    size_t chosen[2];
    char scratch[64];
    assert_int_equal(mr_history_choose(ids, 2, MR_HISTORY_SET, 4, chosen, scratch), 2);
    float values[2 * T * DIM];
    size_t tokens = 0;
    for (size_t i = 0; i < 2; i++) {
        const size_t item = chosen[i] == 0 ? 3 : 5, n = 1 + item % T;
        memcpy(values + tokens * DIM, f->vectors + item * T * DIM, n * DIM * sizeof *values);
        tokens += n;
    }
    request.user_vectors = values;
    request.user_tokens = (uint16_t)tokens;
    request.user_dim = DIM;
    assert_int_equal(margins_for(f, &request, inline_margins), 0);
    assert_same(inline_margins, anonymous, false, "inline against anonymous");

    test_store_put(f->store, MR_ENTITY_USER, f->bundle->user.space, "u", values, tokens, DIM);
    request = request_for("red kettle", three, 3);
    request.user_id = mr_str_of("u");
    assert_int_equal(margins_for(f, &request, stored), 0);
    assert_same(stored, inline_margins, true, "stored against inline");

    request = request_for("red kettle", three, 3);
    request.history = ids;
    request.n_history = 2;
    assert_int_equal(margins_for(f, &request, history), 0);
    assert_same(history, inline_margins, true, "history against inline");

    /* A set has no order, and what the store does not know is left out. */
    const mr_str other[] = {mr_str_of("f"), mr_str_of("nobody"), mr_str_of("d"), mr_str_of("f")};
    request.history = other;
    request.n_history = 4;
    assert_int_equal(margins_for(f, &request, turned), 0);
    assert_same(turned, inline_margins, true, "another order of the set");
}

static void a_user_that_cannot_be_used_is_ranked_as_anonymous(void **state)
{
    fixture *f = *state;
    float narrow[16] = {0}, huge[DIM];
    for (size_t i = 0; i < DIM; i++)
        huge[i] = 0.1f;
    const uint64_t space = f->bundle->user.space;
    float *many = calloc((4 * T + 1) * DIM, sizeof *many);
    assert_non_null(many);
    test_store_put(f->store, MR_ENTITY_USER, space, "gone", NULL, 0, 0);
    test_store_put(f->store, MR_ENTITY_USER, space, "narrow", narrow, 1, 16);
    test_store_put(f->store, MR_ENTITY_USER, space, "many", many, 4 * T + 1, DIM);
    test_store_put(f->store, MR_ENTITY_USER, space, "damaged", huge, 1, DIM);
    test_store_put(f->store, MR_ENTITY_USER, space ^ 1, "elsewhere", huge, 1, DIM);
    static const char *const users[] = {"nobody", "gone", "narrow", "many", "damaged", "elsewhere"};
    double anonymous[3], got[3];
    mr_rank_request request = request_for("red kettle", three, 3);
    margins_for(f, &request, anonymous);
    fault.damage = "damaged";
    for (size_t i = 0; i < COUNT(users); i++) {
        request.user_id = mr_str_of(users[i]);
        assert_int_equal(margins_for(f, &request, got), bits(MR_REASON_USER_MISSING));
        assert_same(got, anonymous, true, users[i]);
    }
    clear_fault(state);
    /* Histories too. */
    const mr_str unknown[] = {mr_str_of("nobody"), mr_str_of("nothing")};
    request = request_for("red kettle", three, 3);
    request.history = unknown;
    request.n_history = 2;
    assert_int_equal(margins_for(f, &request, got), bits(MR_REASON_USER_MISSING));
    assert_same(got, anonymous, true, "a history of unknown items");
    free(many);
}

static void a_store_away_for_the_user_degrades_and_ranks(void **state)
{
    fixture *f = *state;
    double anonymous[3], got[3];
    mr_rank_request request = request_for("red kettle", three, 3);
    margins_for(f, &request, anonymous);
    test_store_put(f->store, MR_ENTITY_USER, f->bundle->user.space, "u2", f->vectors, 1, DIM);
    request.user_id = mr_str_of("u2");
    fault = (fetch_fault){MR_UNAVAILABLE, 0, MR_ENTITY_USER, NULL, 0};
    assert_int_equal(margins_for(f, &request, got),
                     bits(MR_REASON_USER_MISSING) | bits(MR_REASON_STORE_AWAY));
    assert_same(got, anonymous, true, "the store away");
    clear_fault(state);
    assert_int_equal(margins_for(f, &request, got), 0);
    assert_same(got, anonymous, false, "the store back");
}

static void a_user_alone_is_enough_to_rank_by(void **state)
{
    fixture *f = *state;
    double got[3];
    mr_rank_request request = request_for("", three, 3);
    request.user_id = mr_str_of("nobody at all");
    assert_int_equal(margins_for(f, &request, got), bits(MR_REASON_USER_MISSING));
    const mr_str history[] = {mr_str_of("a")};
    request.user_id = (mr_str){0};
    request.history = history;
    request.n_history = 1;
    assert_int_equal(margins_for(f, &request, got), 0);
}

static void a_wrong_user_of_the_request_is_the_callers_mistake(void **state)
{
    fixture *f = *state;
    float values[DIM] = {0};
    const mr_str one = mr_str_of("a");
    struct {
        mr_rank_request request;
        mr_status status;
        const char *message;
    } row[] = {
        {request_for("q", three, 3), MR_INVALID, "inline user vectors are [0, 32]"},
        {request_for("q", three, 3), MR_MISMATCH, "user vectors are 31 wide, the bundle's are 32"},
        {request_for("q", three, 3), MR_INVALID, "user vectors: token 0 is nan in column 4"},
        {request_for("q", three, 3), MR_INVALID, "the history has 100001 items; at most 100000"},
    };
    values[4] = (float)NAN;
    for (size_t i = 0; i < 3; i++) {
        row[i].request.user_vectors = values;
        row[i].request.user_tokens = i != 0;
        row[i].request.user_dim = i == 1 ? DIM - 1 : DIM;
    }
    row[3].request.history = &one;
    row[3].request.n_history = 100001;
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_rank_reply *reply = NULL;
        mr_error err = {0};
        assert_status(mr_ranker_rank(f->ranker, &row[i].request, &reply, &err), row[i].status,
                      &err);
        assert_contains(err.message, row[i].message);
        assert_null(reply);
    }
}

static void a_bundle_without_users_takes_no_history(void **state)
{
    fixture *f = *state;
    mr_error err = {0};
    mr_ranker *ranker = NULL;
    mr_rank_reply *reply = NULL;
    const char *path = test_path(f->folder, "no-users");
    const mr_str one = mr_str_of("a");
    json_t *spec = test_mixed_spec(T);
    json_object_del(json_object_get(spec, "encoders"), "user");
    json_object_set_new(spec, "prefix", test_json("[{'field': 'query'}]"));
    assert_status(test_bundle_make(path, spec, NULL, &err), MR_OK, &err);
    mr_bundle *bundle = test_bundle_open(path, 1);
    assert_status(mr_ranker_new(&ranker, bundle, f->store, NULL, &err), MR_OK, &err);
    mr_rank_request request = request_for("q", three, 3);
    request.history = &one;
    request.n_history = 1;
    assert_status(mr_ranker_rank(ranker, &request, &reply, &err), MR_INVALID, &err);
    assert_contains(err.message, "a history was given, but bundle 'test' has no history encoder");
    /* An id is fine: this bundle ranks everybody alike. */
    request = request_for("q", three, 3);
    request.user_id = mr_str_of("u");
    reply = rank(ranker, &request);
    assert_int_equal(reply->degraded, 0);
    assert_int_equal(reply->n_scored, 3); /* the items' space is the same */
    mr_rank_reply_free(reply);
    mr_ranker_free(ranker);
    mr_bundle_close(bundle);
}

/* A store's user may be longer than the prompt has room for; the ranking goes on without. */
static void a_user_too_long_for_the_prompt_is_left_out(void **state)
{
    fixture *f = *state;
    mr_error err = {0};
    mr_ranker *ranker = NULL;
    const char *path = test_path(f->folder, "short");
    float values[4 * T * DIM] = {0};
    json_t *spec = test_mixed_spec(T);
    json_object_set_new(spec, "max_length", json_integer(12));
    json_object_set_new(spec, "prefix",
                        test_json("['Q', {'field': 'query', 'truncate': true},"
                                  " {'slot': 'user', 'when': 'user'}, '\\n\\n']"));
    json_object_set_new(spec, "suffix", test_json("[{'slot': 'item'}, 'a b c']"));
    assert_status(test_bundle_make(path, spec, NULL, &err), MR_OK, &err);
    mr_bundle *bundle = test_bundle_open(path, 1);
    assert_status(mr_ranker_new(&ranker, bundle, f->store, NULL, &err), MR_OK, &err);
    test_store_put(f->store, MR_ENTITY_USER, bundle->user.space, "long", values, 4 * T, DIM);
    mr_rank_request request = request_for("q", three, 3);
    request.user_id = mr_str_of("long");
    mr_rank_reply *reply = rank(ranker, &request);
    assert_int_equal(reply->n_scored, 3);
    assert_int_equal(reply->degraded, bits(MR_REASON_USER_MISSING));
    mr_rank_reply_free(reply);
    /* Inline it is a mistake, and named. */
    request.user_id = (mr_str){0};
    request.user_vectors = values;
    request.user_tokens = 4 * T;
    request.user_dim = DIM;
    reply = NULL;
    assert_status(mr_ranker_rank(ranker, &request, &reply, &err), MR_EXHAUSTED, &err);
    assert_contains(err.message, "prefix");
    mr_ranker_free(ranker);
    mr_bundle_close(bundle);
}

/* ---- deadlines ------------------------------------------------------------------------------- */

enum { MANY = 2000 };

static mr_candidate *many_candidates(void)
{
    mr_candidate *candidates = calloc(MANY, sizeof *candidates);
    assert_non_null(candidates);
    for (size_t i = 0; i < MANY; i++)
        candidates[i] =
            (mr_candidate){.id = mr_str_of(i % 7 == 6 ? "nobody" : stored_id(i % STORED)),
                           .prior = (double)(i * 7919 % MANY),
                           .has_prior = true};
    return candidates;
}

static void a_deadline_that_is_over_leaves_the_prior_order(void **state)
{
    fixture *f = *state;
    mr_candidate *candidates = many_candidates();
    mr_rank_request request = request_for("kettle", candidates, MANY);
    request.deadline_us = mr_clock_monotonic_us() - 1;
    mr_rank_reply *reply = rank(f->ranker, &request);
    assert_int_equal(reply->n_scored, 0);
    assert_int_equal(reply->degraded, bits(MR_REASON_DEADLINE));
    for (size_t i = 0; i < MANY; i++) {
        const size_t c = reply->items[i].index;
        assert_int_equal(c * 7919 % MANY, MANY - 1 - i);
        assert_item(reply, c, MR_SOURCE_PRIOR, c % 7 == 6 ? MR_REASON_MISSING : MR_REASON_DEADLINE);
    }
    mr_rank_reply_free(reply);
    free(candidates);
}

/* Whatever the time was enough for: the best by prior were scored, with their usual margins. */
static bool check_cut(const mr_rank_reply *reply, const mr_rank_reply *whole)
{
    size_t best = MANY; /* lowest prior that was scored, and highest that was not */
    size_t left = 0;
    for (size_t i = 0; i < MANY; i++) {
        const mr_ranked_item *item = &reply->items[i];
        const size_t prior = item->index * 7919 % MANY;
        if (item->source == MR_SOURCE_MODEL) {
            best = prior < best ? prior : best;
            assert_true(item->margin == item_of(whole, item->index)->margin);
        } else if (item->reason == MR_REASON_DEADLINE) {
            left = prior > left ? prior : left;
            assert_int_equal(prior, MANY - 1 - i); /* its place */
        } else {
            assert_int_equal(item->reason, MR_REASON_MISSING);
        }
    }
    const bool cut = reply->n_scored < whole->n_scored;
    assert_int_equal(reply->degraded, cut ? bits(MR_REASON_DEADLINE) : 0);
    if (cut && reply->n_scored)
        assert_true(best > left);
    return cut && reply->n_scored > 0;
}

static void a_deadline_cuts_after_the_best_by_prior(void **state)
{
    fixture *f = *state;
    mr_candidate *candidates = many_candidates();
    mr_rank_request request = request_for("kettle", candidates, MANY);
    mr_rank_reply *whole = rank(f->ranker, &request);
    bool seen = false;
    /* However fast the machine: some budget is enough for some and not for all. */
    for (int64_t budget = 50; !seen && budget < INT64_C(1) << 34; budget += budget / 2) {
        request.deadline_us = mr_clock_monotonic_us() + budget;
        mr_rank_reply *reply = rank(f->ranker, &request);
        seen = check_cut(reply, whole);
        const bool all = reply->n_scored == whole->n_scored;
        mr_rank_reply_free(reply);
        if (all)
            break;
    }
    assert_true(seen);
    mr_rank_reply_free(whole);
    free(candidates);
}

/* One slow request must not make the ranker think that nothing ever fits. */
static void after_a_slow_request_the_next_one_is_tried(void **state)
{
    fixture *f = *state;
    mr_ranker_options options = MR_RANKER_OPTIONS_DEFAULT;
    options.chunk = 1;
    mr_ranker *ranker = new_ranker(f, &options);
    mr_rank_request request = request_for("kettle", three, 3);
    ranker->us_per_candidate = 1e15;
    request.deadline_us = mr_clock_monotonic_us() + INT64_C(600000000);
    mr_rank_reply *reply = rank(ranker, &request);
    assert_int_equal(reply->n_scored, 3);
    assert_true(ranker->us_per_candidate < 1e9);
    mr_rank_reply_free(reply);
    mr_ranker_free(ranker);
}

static void chunks_of_any_size_give_one_order(void **state)
{
    static const size_t chunks[] = {1, 3, 64, 5000};
    fixture *f = *state;
    mr_candidate *candidates = many_candidates();
    const mr_rank_request request = request_for("kettle", candidates, 300);
    mr_rank_reply *want = rank(f->ranker, &request);
    for (size_t i = 0; i < COUNT(chunks); i++) {
        mr_ranker_options options = MR_RANKER_OPTIONS_DEFAULT;
        options.chunk = chunks[i];
        options.max_rows = 7 * chunks[i];
        mr_ranker *ranker = new_ranker(f, &options);
        mr_rank_reply *got = rank(ranker, &request);
        for (size_t k = 0; k < 300; k++) {
            assert_int_equal(got->items[k].index, want->items[k].index);
            assert_memory_equal(&got->items[k].margin, &want->items[k].margin, sizeof(double));
        }
        mr_rank_reply_free(got);
        mr_ranker_free(ranker);
    }
    mr_rank_reply_free(want);
    free(candidates);
}

/* ---- explain --------------------------------------------------------------------------------- */

static void an_explanation_shows_prompt_work_and_places(void **state)
{
    fixture *f = *state;
    const mr_field title = {mr_str_of("title"), mr_str_of("Red kettle")};
    const mr_field text = {mr_str_of("text"), mr_str_of("a kettle")};
    const mr_str history[] = {mr_str_of("d")};
    const mr_candidate candidates[] = {{ID("b"), .fields = {&title, 1}},
                                       {ID("nobody")},
                                       {ID("\x1b[31m\xff"), .fields = {&text, 1}}};
    mr_rank_request request = request_for("red", candidates, 3);
    request.history = history;
    request.n_history = 1;
    request.explain = true;
    mr_ranker *ranker = new_ranker(f, NULL);
    mr_rank_reply *reply = rank(ranker, &request);
    static const char *const parts[] = {
        "shared by all candidates",
        "field query",
        "slot  user            2  embedding tokens",
        "slot  item            2",
        "field title",
        "token                 1  <|endoftext|>",
        "computed for 2",
        "saved",
        "stopped at keys and values",
        "GFLOP",
        "time     fetch",
        "forward",
        "1 by model",
        "1 by text",
        "1 by prior",
        "1 missing",
        "suffix",
        "\xc4\xa0", /* a blank, as spelled */
    };
    for (size_t i = 0; i < COUNT(parts); i++)
        assert_contains(reply->explain, parts[i]);
    json_t *json = json_loads(reply->explain_json, 0, NULL);
    assert_non_null(json);
    assert_contains(json_string_value(json_object_get(json, "numerics_id")), "scoring/");
    assert_int_equal(json_array_size(json_object_get(json, "suffixes")), 2);
    const json_t *work = json_object_get(json, "work");
    assert_int_equal(json_integer_value(json_object_get(work, "prefix_tokens")),
                     reply->work.prefix_tokens);
    /* The work that was done: the whole prefix and both suffixes. */
    assert_int_equal(reply->work.tokens_without_sharing,
                     2 * reply->work.prefix_tokens + reply->work.suffix_tokens);
    assert_int_equal(reply->work.prefix_tokens_cached, 0);
    assert_int_equal(reply->work.rows_pruned,
                     reply->work.prefix_tokens + reply->work.suffix_tokens - 2);
    assert_true(reply->work.flops > 0 && reply->work.total_us > 0);
    json_decref(json);
    mr_rank_reply_free(reply);

    reply = rank(ranker, &request); /* warm */
    assert_int_equal(reply->work.prefix_tokens_cached, reply->work.prefix_tokens);
    mr_rank_reply_free(reply);
    mr_ranker_free(ranker);
}

/* An id is any bytes; an explanation is shown to people. */
static void an_explanation_is_clean_text(void **state)
{
    fixture *f = *state;
    test_store_put(f->store, MR_ENTITY_ITEM, f->bundle->item.space, "\x1b[31mred\xff\n", f->vectors,
                   1, DIM);
    const mr_candidate candidate = {ID("\x1b[31mred\xff\n")};
    mr_rank_request request = request_for("q", &candidate, 1);
    request.explain = true;
    mr_rank_reply *reply = rank(f->ranker, &request);
    assert_int_equal(reply->n_scored, 1);
    assert_null(strchr(reply->explain, '\x1b'));
    assert_null(strchr(reply->explain, '\xff'));
    assert_int_equal(mr_utf8_valid_prefix(reply->explain, strlen(reply->explain)),
                     strlen(reply->explain));
    mr_rank_reply_free(reply);
}

static void an_explanation_of_nothing_scored_says_why(void **state)
{
    fixture *f = *state;
    const mr_candidate candidate = {ID("narrow")};
    mr_rank_request request = request_for("q", &candidate, 1);
    float narrow[16] = {0};
    test_store_put(f->store, MR_ENTITY_ITEM, f->bundle->item.space, "narrow", narrow, 1, 16);
    request.explain = true;
    mr_rank_reply *reply = rank(f->ranker, &request);
    assert_contains(reply->explain, "0 computed for 0 candidates");
    assert_contains(reply->explain, "1 by prior, 1 wrong_shape");
    assert_contains(reply->explain, "first    item vectors are 16 wide, the bundle's are 32");
    mr_rank_reply_free(reply);
}

#define TEST(test) cmocka_unit_test_teardown(test, clear_fault)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_user_is_the_same_inline_stored_or_as_a_history),
        TEST(a_user_that_cannot_be_used_is_ranked_as_anonymous),
        TEST(a_store_away_for_the_user_degrades_and_ranks),
        TEST(a_user_alone_is_enough_to_rank_by),
        TEST(a_wrong_user_of_the_request_is_the_callers_mistake),
        TEST(a_bundle_without_users_takes_no_history),
        TEST(a_user_too_long_for_the_prompt_is_left_out),
        TEST(a_deadline_that_is_over_leaves_the_prior_order),
        TEST(a_deadline_cuts_after_the_best_by_prior),
        TEST(after_a_slow_request_the_next_one_is_tried),
        TEST(chunks_of_any_size_give_one_order),
        TEST(an_explanation_shows_prompt_work_and_places),
        TEST(an_explanation_is_clean_text),
        TEST(an_explanation_of_nothing_scored_says_why),
    };
    return cmocka_run_group_tests_name("pipeline_users", tests, fixture_set_up, fixture_tear_down);
}
