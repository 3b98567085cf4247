/* test_pipeline.c - a ranking never fails because of one candidate: every reason not to score one,
 * limits of a request, and what the order is made of.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ranker/pipeline/ranking.h"
#include "tests/unit/pipeline_fixture.h"

#define ID(text) .id = {(text), sizeof(text) - 1}

/* ---- what can be wrong with a candidate ------------------------------------------------------ */

static void stored_items_stand_by_their_margins(void **state)
{
    fixture *f = *state;
    mr_candidate candidates[STORED] = {{ID("")}};
    for (size_t i = 0; i < STORED; i++)
        candidates[i].id = mr_str_of(stored_id(i));
    const mr_rank_request request = request_for("red kettle", candidates, STORED);
    mr_rank_reply *reply = rank(f->ranker, &request);
    assert_int_equal(reply->n_items, STORED);
    assert_int_equal(reply->n_candidates, STORED);
    assert_int_equal(reply->n_scored, STORED);
    assert_int_equal(reply->n_found, STORED);
    assert_int_equal(reply->degraded, 0);
    assert_null(reply->explain);
    assert_null(reply->explain_json);
    for (size_t i = 0; i < STORED; i++) {
        const mr_ranked_item *item = &reply->items[i];
        assert_item(reply, item->index, MR_SOURCE_MODEL, MR_REASON_NONE);
        assert_true(item->score == 1 / (1 + exp(-item->margin)));
        assert_true(i == 0 || item->margin <= reply->items[i - 1].margin);
    }
    /* And they are what a scorer says of the same vectors. */
    mr_error err = {0};
    mr_scorer *scorer = test_scorer(f->bundle, 0);
    const mr_field query = {mr_str_of("query"), mr_str_of("red kettle")};
    const mr_scorer_prefix prefix = {.fields = {&query, 1}};
    assert_status(mr_scorer_begin(scorer, &prefix, &err), MR_OK, &err);
    for (size_t i = 0; i < STORED; i++) {
        const mr_scorer_candidate c = {.item = {f->vectors + i * T * DIM, 1 + i % T, DIM}};
        assert_true(item_of(reply, i)->margin == test_score(scorer, &c));
    }
    mr_scorer_free(scorer);
    mr_rank_reply_free(reply);
}

static void whatever_is_wrong_with_one_the_others_are_ranked(void **state)
{
    fixture *f = *state;
    static float nan_vectors[DIM], huge_vectors[DIM], narrow[16], many[3 * DIM];
    nan_vectors[5] = (float)NAN;
    huge_vectors[0] = (float)INFINITY;
    const mr_field bad_text = {mr_str_of("title"), {"\xff", 1}};
    mr_field too_many[33];
    for (size_t i = 0; i < COUNT(too_many); i++)
        too_many[i] = (mr_field){mr_str_of("x"), mr_str_of("y")};
    static char long_id[500];
    memset(long_id, 'x', sizeof long_id);
    const uint64_t space = f->bundle->item.space;
    test_store_put(f->store, MR_ENTITY_ITEM, space, "gone", NULL, 0, 0);
    test_store_put(f->store, MR_ENTITY_ITEM, space, "narrow", narrow, 1, 16);
    test_store_put(f->store, MR_ENTITY_ITEM, space, "many", many, 3, DIM);
    test_store_put(f->store, MR_ENTITY_ITEM, space, "damaged", many, 1, DIM);
    test_store_put(f->store, MR_ENTITY_ITEM, space + 1, "elsewhere", many, 1, DIM);
    const struct {
        const char *what;
        mr_candidate candidate;
        mr_reason reason;
    } row[] = {
        {"an unknown id", {ID("nobody")}, MR_REASON_MISSING},
        {"no id, no text, no vectors", {.prior = 0}, MR_REASON_MISSING},
        {"an id that is too long", {.id = {long_id, sizeof long_id}}, MR_REASON_MISSING},
        {"an item of another space", {ID("elsewhere")}, MR_REASON_MISSING},
        {"a removed one", {ID("gone")}, MR_REASON_REMOVED},
        {"a damaged record", {ID("damaged")}, MR_REASON_DAMAGED},
        {"a record of another width", {ID("narrow")}, MR_REASON_WRONG_SHAPE},
        {"a record of more tokens", {ID("many")}, MR_REASON_WRONG_SHAPE},
        {"inline NaN", {.vectors = nan_vectors, .tokens = 1, .dim = DIM}, MR_REASON_INVALID},
        {"inline infinity", {.vectors = huge_vectors, .tokens = 1, .dim = DIM}, MR_REASON_INVALID},
        {"inline of another width",
         {.vectors = narrow, .tokens = 1, .dim = 16},
         MR_REASON_WRONG_SHAPE},
        {"inline of more tokens",
         {.vectors = many, .tokens = 3, .dim = DIM},
         MR_REASON_WRONG_SHAPE},
        {"inline of no tokens", {.vectors = many, .tokens = 0, .dim = DIM}, MR_REASON_WRONG_SHAPE},
        {"inline of no width", {.vectors = many, .tokens = 1, .dim = 0}, MR_REASON_WRONG_SHAPE},
        {"a text that is not UTF-8", {ID("a"), .fields = {&bad_text, 1}}, MR_REASON_INVALID},
        {"inline vectors with such a text",
         {.fields = {&bad_text, 1}, .vectors = many, .tokens = 1, .dim = DIM},
         MR_REASON_INVALID},
        {"too many texts", {ID("a"), .fields = {too_many, COUNT(too_many)}}, MR_REASON_INVALID},
    };
    /* Good ones at even places, bad ones between them. */
    mr_candidate all[2 * COUNT(row)];
    for (size_t i = 0; i < COUNT(all); i++)
        all[i] = i % 2 ? row[i / 2].candidate
                       : (mr_candidate){.id = mr_str_of(stored_id(i / 2 % STORED))};
    fault.damage = "damaged";
    const mr_rank_request request = request_for("red kettle", all, COUNT(all));
    mr_rank_reply *reply = rank(f->ranker, &request);
    assert_int_equal(reply->n_items, COUNT(all));
    assert_int_equal(reply->n_scored, COUNT(row));
    for (size_t i = 0; i < COUNT(all); i++) {
        if (i % 2 == 0) {
            assert_item(reply, i, MR_SOURCE_MODEL, MR_REASON_NONE);
            continue;
        }
        const mr_ranked_item *item = item_of(reply, i);
        if (item->reason != row[i / 2].reason || item->source != MR_SOURCE_PRIOR)
            fail_msg("%s: %s, expected %s", row[i / 2].what, mr_reason_name(item->reason),
                     mr_reason_name(row[i / 2].reason));
        assert_ptr_equal(item, &reply->items[i]); /* its place in the input */
    }
    mr_rank_reply_free(reply);
}

static void a_store_that_is_away_costs_vectors_and_no_reply(void **state)
{
    static const mr_status failures[] = {MR_UNAVAILABLE, MR_IO, MR_CORRUPT, MR_NO_MEMORY};
    fixture *f = *state;
    mr_candidate candidates[STORED] = {{ID("")}};
    for (size_t i = 0; i < STORED; i++) {
        candidates[i].id = mr_str_of(stored_id(i));
        candidates[i].prior = (double)i;
        candidates[i].has_prior = true;
    }
    const mr_rank_request request = request_for("red kettle", candidates, STORED);
    for (size_t i = 0; i < COUNT(failures); i++) {
        for (size_t after = 0; after <= 2; after++) {
            fault = (fetch_fault){failures[i], after, MR_ENTITY_ITEM, NULL, 0};
            mr_rank_reply *reply = rank(f->ranker, &request);
            assert_int_equal(reply->n_scored, after);
            assert_true(reply->degraded & bits(MR_REASON_STORE_AWAY));
            for (size_t c = 0; c < STORED; c++)
                assert_item(reply, c, c < after ? MR_SOURCE_MODEL : MR_SOURCE_PRIOR,
                            c < after ? MR_REASON_NONE : MR_REASON_STORE_AWAY);
            for (size_t place = 0; after == 0 && place < STORED; place++)
                assert_int_equal(reply->items[place].index, STORED - 1 - place);
            mr_rank_reply_free(reply);
        }
    }
    clear_fault(state);
    mr_rank_reply *reply = rank(f->ranker, &request);
    assert_int_equal(reply->degraded, 0);
    mr_rank_reply_free(reply);
}

static void with_the_store_away_what_a_cache_knows_is_ranked(void **state)
{
    fixture *f = *state;
    mr_candidate candidates[STORED] = {{ID("")}};
    for (size_t i = 0; i < STORED; i++)
        candidates[i].id = mr_str_of(stored_id(i));
    candidates[3].id = mr_str_of("nobody");
    const mr_rank_request request = request_for("red kettle", candidates, STORED);
    mr_rank_reply *whole = rank(f->ranker, &request);
    fault = (fetch_fault){MR_UNAVAILABLE, 0, MR_ENTITY_ITEM, NULL, 1u << 1 | 1u << 3 | 1u << 4};
    mr_rank_reply *reply = rank(f->ranker, &request);
    assert_int_equal(reply->n_found, 2);
    assert_int_equal(reply->n_scored, 2);
    assert_true(reply->degraded & bits(MR_REASON_STORE_AWAY));
    for (size_t i = 0; i < STORED; i++) {
        if (i == 1 || i == 4) {
            assert_item(reply, i, MR_SOURCE_MODEL, MR_REASON_NONE);
            assert_true(item_of(reply, i)->margin == item_of(whole, i)->margin);
        } else {
            assert_item(reply, i, MR_SOURCE_PRIOR,
                        i == 3 ? MR_REASON_MISSING : MR_REASON_STORE_AWAY);
        }
    }
    mr_rank_reply_free(reply);
    mr_rank_reply_free(whole);
}

static void a_store_of_another_space_gives_low_coverage(void **state)
{
    fixture *f = *state;
    mr_store *other = NULL;
    mr_ranker *ranker = NULL;
    mr_error err = {0};
    assert_status(mr_store_open(&other, "memory:", NULL, &err), MR_OK, &err);
    test_store_put(other, MR_ENTITY_ITEM, f->bundle->item.space ^ 1, "a", f->vectors, 1, DIM);
    assert_status(mr_ranker_new(&ranker, f->bundle, other, NULL, &err), MR_OK, &err);
    const mr_candidate candidates[] = {{ID("b")}, {ID("a")}};
    const mr_rank_request request = request_for("x", candidates, 2);
    mr_rank_reply *reply = rank(ranker, &request);
    assert_int_equal(reply->n_found, 0);
    assert_int_equal(reply->degraded, bits(MR_REASON_LOW_COVERAGE));
    assert_int_equal(reply->items[0].index, 0);
    assert_item(reply, 1, MR_SOURCE_PRIOR, MR_REASON_MISSING);
    mr_rank_reply_free(reply);
    mr_ranker_free(ranker);
    mr_store_close(other);
}

static void coverage_is_a_share_of_the_candidates(void **state)
{
    fixture *f = *state;
    const mr_candidate candidates[] = {{ID("a")}, {ID("b")}, {ID("nobody")}, {ID("nothing")}};
    for (size_t n = 1; n <= 4; n++) {
        mr_ranker_options options = MR_RANKER_OPTIONS_DEFAULT;
        options.min_coverage = 0.6;
        mr_ranker *ranker = new_ranker(f, &options);
        const mr_rank_request request = request_for("x", candidates, n);
        mr_rank_reply *reply = rank(ranker, &request);
        /* 1, 1, 2/3 and 1/2 were found. */
        assert_int_equal(reply->degraded, n == 4 ? bits(MR_REASON_LOW_COVERAGE) : 0);
        mr_rank_reply_free(reply);
        mr_ranker_free(ranker);
    }
}

/* ---- text in the place of vectors ------------------------------------------------------------ */

static void a_missing_item_is_encoded_from_its_text(void **state)
{
    fixture *f = *state;
    const char *text = "A red kettle that boils water in three minutes.";
    const mr_field field = {mr_str_of("text"), mr_str_of(text)};
    const mr_field empty = {mr_str_of("text"), {"", 0}};
    const mr_fields fields = {&field, 1};
    float values[T * DIM];
    uint16_t tokens = 0;
    mr_error err = {0};
    mr_text_encoder *encoder = NULL;
    assert_status(mr_bundle_open_item_encoder(f->bundle, MR_GEMM_SCORING, 0, &encoder, &err), MR_OK,
                  &err);
    assert_status(mr_text_encoder_run(encoder, &fields, 1, values, &tokens, NULL, &err), MR_OK,
                  &err);
    assert_int_equal(tokens, T);
    mr_text_encoder_close(encoder);
    test_store_put(f->store, MR_ENTITY_ITEM, f->bundle->item.space, "stored", values, tokens, DIM);
    test_store_put(f->store, MR_ENTITY_ITEM, f->bundle->item.space, "removed", NULL, 0, 0);
    test_store_put(f->store, MR_ENTITY_ITEM, f->bundle->item.space, "damaged", values, tokens, DIM);

    const mr_candidate candidates[] = {
        {ID("stored")},
        {ID("unknown"), .fields = fields},
        {.fields = fields},
        {ID("damaged"), .fields = fields},
        {ID("removed"), .fields = fields}, /* it was taken away: its text does not bring it back */
        {ID("unknown"), .fields = {&empty, 1}},
    };
    fault.damage = "damaged";
    const mr_rank_request request = request_for("red kettle", candidates, COUNT(candidates));
    mr_rank_reply *reply = rank(f->ranker, &request);
    assert_item(reply, 0, MR_SOURCE_MODEL, MR_REASON_NONE);
    for (size_t i = 1; i <= 3; i++) {
        assert_item(reply, i, MR_SOURCE_TEXT, MR_REASON_NONE);
        assert_true(item_of(reply, i)->margin == item_of(reply, 0)->margin);
    }
    assert_item(reply, 4, MR_SOURCE_PRIOR, MR_REASON_REMOVED);
    assert_item(reply, 5, MR_SOURCE_PRIOR, MR_REASON_MISSING);
    assert_true(reply->work.encode_us > 0);
    mr_rank_reply_free(reply);

    mr_ranker_options options = MR_RANKER_OPTIONS_DEFAULT;
    options.encode_missing = false;
    mr_ranker *ranker = new_ranker(f, &options);
    reply = rank(ranker, &request);
    assert_item(reply, 1, MR_SOURCE_PRIOR, MR_REASON_MISSING);
    assert_item(reply, 3, MR_SOURCE_PRIOR, MR_REASON_DAMAGED);
    mr_rank_reply_free(reply);
    mr_ranker_free(ranker);
}

static void without_the_store_text_still_ranks(void **state)
{
    fixture *f = *state;
    const mr_field field = {mr_str_of("text"), mr_str_of("chair")};
    const mr_candidate candidates[] = {{ID("a"), .fields = {&field, 1}}, {ID("b")}};
    const mr_rank_request request = request_for("chair", candidates, 2);
    fault = (fetch_fault){MR_UNAVAILABLE, 0, MR_ENTITY_ITEM, NULL, 0};
    mr_rank_reply *reply = rank(f->ranker, &request);
    assert_item(reply, 0, MR_SOURCE_TEXT, MR_REASON_NONE);
    assert_item(reply, 1, MR_SOURCE_PRIOR, MR_REASON_STORE_AWAY);
    mr_rank_reply_free(reply);
}

static void a_title_is_part_of_the_prompt(void **state)
{
    fixture *f = *state;
    const mr_field title = {mr_str_of("title"), mr_str_of("Red kettle")};
    const mr_candidate candidates[] = {{ID("a")}, {ID("a"), .fields = {&title, 1}}};
    const mr_rank_request request = request_for("x", candidates, 2);
    mr_rank_reply *reply = rank(f->ranker, &request);
    assert_true(item_of(reply, 0)->margin != item_of(reply, 1)->margin);
    mr_rank_reply_free(reply);
}

/* ---- the order ------------------------------------------------------------------------------- */

static void blend_and_top_k(void **state)
{
    fixture *f = *state;
    mr_candidate candidates[STORED] = {{ID("")}};
    for (size_t i = 0; i < STORED; i++) {
        candidates[i].id = mr_str_of(stored_id(i));
        candidates[i].prior = (double)(STORED - i);
        candidates[i].has_prior = true;
    }
    mr_rank_request request = request_for("red kettle", candidates, STORED);
    mr_rank_reply *plain = rank(f->ranker, &request);
    request.blend = 1e6; /* the prior alone */
    mr_rank_reply *blended = rank(f->ranker, &request);
    for (size_t i = 0; i < STORED; i++) {
        assert_int_equal(blended->items[i].index, i);
        assert_true(blended->items[i].margin == item_of(plain, i)->margin);
    }
    mr_rank_reply_free(blended);
    request.blend = 0;
    for (size_t k = 1; k <= STORED + 1; k++) {
        request.top_k = k;
        mr_rank_reply *reply = rank(f->ranker, &request);
        assert_int_equal(reply->n_items, k < STORED ? k : STORED);
        assert_int_equal(reply->n_candidates, STORED);
        assert_int_equal(reply->n_scored, STORED);
        for (size_t i = 0; i < reply->n_items; i++)
            assert_int_equal(reply->items[i].index, plain->items[i].index);
        mr_rank_reply_free(reply);
    }
    mr_rank_reply_free(plain);
}

static void a_prior_that_is_not_finite_is_none(void **state)
{
    fixture *f = *state;
    const mr_candidate candidates[] = {
        {ID("x"), .prior = (double)NAN, .has_prior = true},
        {ID("y"), .prior = (double)INFINITY, .has_prior = true},
        {ID("z"), .prior = -5, .has_prior = true},
    };
    const mr_rank_request request = request_for("q", candidates, 3);
    mr_rank_reply *reply = rank(f->ranker, &request);
    assert_int_equal(reply->items[0].index, 2);
    assert_int_equal(reply->items[1].index, 0);
    assert_int_equal(reply->items[2].index, 1);
    mr_rank_reply_free(reply);
}

static void a_candidate_that_comes_twice_is_ranked_twice(void **state)
{
    fixture *f = *state;
    const mr_candidate candidates[] = {{ID("a")}, {ID("b")}, {ID("a")}};
    const mr_rank_request request = request_for("q", candidates, 3);
    mr_rank_reply *reply = rank(f->ranker, &request);
    assert_true(item_of(reply, 0)->margin == item_of(reply, 2)->margin);
    assert_int_equal(reply->n_items, 3);
    mr_rank_reply_free(reply);
}

/* ---- limits of a request --------------------------------------------------------------------- */

static void refuse(mr_ranker *ranker, const mr_rank_request *request, const char *message)
{
    mr_rank_reply *reply = NULL;
    mr_error err = {0};
    assert_status(mr_ranker_rank(ranker, request, &reply, &err), MR_INVALID, &err);
    assert_contains(err.message, message);
    assert_null(reply);
}

static void a_wrong_request_is_refused_with_one_message(void **state)
{
    fixture *f = *state;
    const mr_candidate one = {ID("a")};
    const mr_rank_request good = request_for("q", &one, 1);
    mr_rank_request request = good;
    request.n_candidates = 0;
    refuse(f->ranker, &request, "the request has no candidates");

    request = good;
    request.query = (mr_str){0};
    refuse(f->ranker, &request, "the query is empty and there is no user: nothing to rank by");

    request = good;
    request.query = (mr_str){"caf\xc3\xa9 \xe9t\xe9", 10};
    refuse(f->ranker, &request, "the query is not UTF-8 at byte 6");

    request = good;
    const size_t ten_mb = (size_t)10 << 20;
    char *long_query = malloc(ten_mb);
    assert_non_null(long_query);
    memset(long_query, 'q', ten_mb);
    request.query = (mr_str){long_query, ten_mb};
    refuse(f->ranker, &request, "the query is 10485760 bytes long; this ranker takes 1048576");
    free(long_query);

    const mr_field bad = {mr_str_of("instruction"), {"ab\x80", 3}};
    request = good;
    request.fields = (mr_fields){&bad, 1};
    refuse(f->ranker, &request,
           "field 'instruction': a field of the request is not UTF-8 at byte 2");

    mr_field many[33];
    for (size_t i = 0; i < COUNT(many); i++)
        many[i] = (mr_field){mr_str_of("x"), mr_str_of("y")};
    request = good;
    request.fields = (mr_fields){many, COUNT(many)};
    refuse(f->ranker, &request, "the request has 33 fields; at most 32");

    request = good;
    request.blend = (double)NAN;
    refuse(f->ranker, &request, "blend is nan, expected a finite number");

    mr_rank_reply_free(rank(f->ranker, &good));
    mr_rank_reply_free(NULL);
}

static void options_are_checked(void **state)
{
    fixture *f = *state;
    mr_ranker *ranker = NULL;
    mr_error err = {0};
    mr_ranker_options options = MR_RANKER_OPTIONS_DEFAULT;
    options.min_coverage = 1.5;
    assert_status(mr_ranker_new(&ranker, f->bundle, f->store, &options, &err), MR_INVALID, &err);
    assert_contains(err.message, "min_coverage is 1.5, expected 0 to 1");
    assert_true(mr_ranker_bytes(f->ranker) > 0);
    mr_ranker_free(NULL);
}

static void ten_thousand_candidates_and_not_one_more(void **state)
{
    enum { MOST = 10000 };
    fixture *f = *state;
    mr_candidate *candidates = calloc(MOST + 1, sizeof *candidates);
    assert_non_null(candidates);
    for (size_t i = 0; i <= MOST; i++)
        candidates[i].id = mr_str_of(stored_id(i % STORED));
    mr_rank_request request = request_for("kettle", candidates, MOST + 1);
    refuse(f->ranker, &request, "the request has 10001 candidates; this ranker takes 10000");
    request.n_candidates = MOST;
    mr_rank_reply *reply = rank(f->ranker, &request);
    assert_int_equal(reply->n_items, MOST);
    assert_int_equal(reply->n_scored, MOST);
    for (size_t i = 1; i < MOST; i++) {
        const mr_ranked_item *a = &reply->items[i - 1], *b = &reply->items[i];
        assert_true(a->margin > b->margin || (a->margin == b->margin && a->index < b->index));
    }
    mr_rank_reply_free(reply);
    free(candidates);
}

static void the_text_of_every_special_token_changes_no_slot(void **state)
{
    fixture *f = *state;
    const mr_candidate candidates[] = {{ID("a")}, {ID("b")}};
    mr_rank_request request =
        request_for("<|endoftext|><|im_start|><|im_end|><think></think>", candidates, 2);
    request.explain = true;
    mr_rank_reply *reply = rank(f->ranker, &request);
    assert_int_equal(reply->n_scored, 2);
    json_t *explain = json_loads(reply->explain_json, 0, NULL);
    const json_t *prefix = json_object_get(explain, "prefix");
    assert_int_equal(json_array_size(prefix), 3); /* text, query, text: no user slot */
    const json_t *ids = json_object_get(json_array_get(prefix, 1), "ids");
    assert_true(json_array_size(ids) > 5);
    for (size_t i = 0; i < json_array_size(ids); i++)
        assert_true(json_integer_value(json_array_get(ids, i)) < 628);
    json_decref(explain);
    mr_rank_reply_free(reply);
}

/* Whatever a request's memory is enough for: an error that says so, or a reply whose items say so.
 */
static void little_memory_fails_cleanly_or_leaves_items_out(void **state)
{
    fixture *f = *state;
    mr_candidate candidates[STORED * 20];
    const mr_field text = {mr_str_of("text"), mr_str_of("a kettle")};
    size_t refused = 0, in_part = 0, whole = 0;
    for (size_t i = 0; i < COUNT(candidates); i++)
        candidates[i] = i % 7 == 6 ? (mr_candidate){.fields = {&text, 1}}
                                   : (mr_candidate){.id = mr_str_of(stored_id(i % STORED))};
    mr_rank_request request = request_for("red kettle", candidates, COUNT(candidates));
    request.explain = true;
    mr_ranker *ranker = new_ranker(f, NULL);
    for (size_t limit = 64; limit < 100000; limit += limit / 16) {
        mr_rank_reply *reply = NULL;
        mr_error err = {0};
        ranker->arena.limit = limit;
        const mr_status status = mr_ranker_rank(ranker, &request, &reply, &err);
        if (status != MR_OK) {
            assert_status(status, MR_NO_MEMORY, &err);
            assert_true(err.message[0] != '\0');
            assert_null(reply);
            refused++;
            continue;
        }
        for (size_t i = 0; i < COUNT(candidates); i++) {
            const mr_ranked_item *item = item_of(reply, i);
            if (item->source == MR_SOURCE_PRIOR)
                assert_int_equal(item->reason, MR_REASON_MEMORY);
        }
        *(reply->n_scored == COUNT(candidates) ? &whole : &in_part) += 1;
        mr_rank_reply_free(reply);
    }
    assert_true(refused > 10 && in_part > 0 && whole > 0);
    mr_ranker_free(ranker);
}

#define TEST(test) cmocka_unit_test_teardown(test, clear_fault)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(stored_items_stand_by_their_margins),
        TEST(whatever_is_wrong_with_one_the_others_are_ranked),
        TEST(a_store_that_is_away_costs_vectors_and_no_reply),
        TEST(with_the_store_away_what_a_cache_knows_is_ranked),
        TEST(a_store_of_another_space_gives_low_coverage),
        TEST(coverage_is_a_share_of_the_candidates),
        TEST(a_missing_item_is_encoded_from_its_text),
        TEST(without_the_store_text_still_ranks),
        TEST(a_title_is_part_of_the_prompt),
        TEST(blend_and_top_k),
        TEST(a_prior_that_is_not_finite_is_none),
        TEST(a_candidate_that_comes_twice_is_ranked_twice),
        TEST(a_wrong_request_is_refused_with_one_message),
        TEST(options_are_checked),
        TEST(ten_thousand_candidates_and_not_one_more),
        TEST(the_text_of_every_special_token_changes_no_slot),
        TEST(little_memory_fails_cleanly_or_leaves_items_out),
    };
    return cmocka_run_group_tests_name("pipeline", tests, fixture_set_up, fixture_tear_down);
}
