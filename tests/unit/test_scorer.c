/* test_scorer.c - margins from prompts with slots: the same bits in any company, and one bad
 * candidate that costs nobody else anything.
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

#include "tests/ranker_support.h"
#include "tests/support.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define DIM      32
#define T        3 /* most embedding tokens of an item */
#define N        23

typedef struct {
    char *folder;
    char path[4096];
    float *vectors; /* [N][T][DIM] */
    float *user;    /* [4 * T][DIM] */
    mr_field title[N];
    mr_scorer_candidate candidate[N];
} fixture;

/* Candidates of 1 to T tokens, every third one with a title. */
static int set_up(void **state)
{
    static fixture f;
    static const char *const titles[] = {"Red kettle", "Garden chair", "\xe2\x98\x95 Tasse", "7"};
    mr_rng rng = mr_rng_seed(11);
    mr_error err = {0};
    f.folder = test_folder_new();
    snprintf(f.path, sizeof f.path, "%s/b", f.folder);
    assert_status(test_bundle_make(f.path, test_mixed_spec(T), NULL, &err), MR_OK, &err);
    f.vectors = test_vectors(&rng, N * T, DIM);
    f.user = test_vectors(&rng, 4 * T, DIM);
    for (size_t i = 0; i < N; i++) {
        f.title[i] = (mr_field){mr_str_of("title"), mr_str_of(titles[i % COUNT(titles)])};
        f.candidate[i] = (mr_scorer_candidate){.fields = {&f.title[i], i % 3 == 0},
                                               .item = {f.vectors + i * T * DIM, 1 + i % T, DIM}};
    }
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    free(f->vectors);
    free(f->user);
    test_folder_free(f->folder);
    return 0;
}

static void begin(mr_scorer *scorer, const char *query, const float *user, size_t tokens)
{
    mr_error err = {0};
    const mr_field field = {mr_str_of("query"), mr_str_of(query)};
    const mr_scorer_prefix prefix = {{&field, 1}, {user, tokens, DIM}};
    assert_status(mr_scorer_begin(scorer, &prefix, &err), MR_OK, &err);
}

static void score(mr_scorer *scorer, const mr_scorer_candidate *candidates, size_t n,
                  double *margins)
{
    mr_error err = {0}, first = {0};
    mr_status status[N];
    assert_true(n <= N);
    assert_status(mr_scorer_score(scorer, candidates, n, margins, status, &first, &err), MR_OK,
                  &err);
    for (size_t i = 0; i < n; i++)
        assert_status(status[i], MR_OK, &first);
}

/* ---- same bits ------------------------------------------------------------------------------- */

/* Every candidate by itself, each time with a scorer that has seen nothing. */
static void score_alone(const fixture *f, double *margins)
{
    mr_bundle *bundle = test_bundle_open(f->path, 1);
    for (size_t i = 0; i < N; i++) {
        mr_scorer *scorer = test_scorer(bundle, 0);
        begin(scorer, "red kettle", f->user, 5);
        margins[i] = test_score(scorer, &f->candidate[i]);
        mr_scorer_free(scorer);
    }
    mr_bundle_close(bundle);
    for (size_t i = 1; i < N; i++)
        assert_true(margins[i] != margins[0]);
}

static void assert_same_bits(const double *got, const double *want, size_t n, const char *what,
                             size_t detail)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got) != 0)
            fail_msg("%s %zu: candidate %zu has %.17g, alone it has %.17g", what, detail, i, got[i],
                     want[i]);
}

static void a_margin_is_the_same_in_batches_of_any_size(void **state)
{
    const fixture *f = *state;
    double alone[N], got[N];
    score_alone(f, alone);
    for (int threads = 1; threads <= 2; threads++) {
        mr_bundle *bundle = test_bundle_open(f->path, threads);
        for (size_t size = 1; size <= N; size++) {
            mr_scorer *scorer = test_scorer(bundle, 0);
            begin(scorer, "red kettle", f->user, 5);
            for (size_t i = 0; i < N; i += size)
                score(scorer, f->candidate + i, N - i < size ? N - i : size, got + i);
            assert_same_bits(got, alone, N, threads == 1 ? "batches of" : "2 threads, batches of",
                             size);
            mr_scorer_free(scorer);
        }
        mr_bundle_close(bundle);
    }
}

static void a_margin_is_the_same_in_every_slot(void **state)
{
    const fixture *f = *state;
    double alone[N], got[N], want[N];
    mr_scorer_candidate turned[N];
    score_alone(f, alone);
    mr_bundle *bundle = test_bundle_open(f->path, 2);
    mr_scorer *scorer = test_scorer(bundle, 0);
    begin(scorer, "red kettle", f->user, 5);
    for (size_t turn = 0; turn < N; turn++) {
        for (size_t i = 0; i < N; i++) {
            turned[i] = f->candidate[(i + turn) % N];
            want[i] = alone[(i + turn) % N];
        }
        score(scorer, turned, N, got);
        assert_same_bits(got, want, N, "turned by", turn);
    }
    mr_scorer_free(scorer);
    mr_bundle_close(bundle);
}

/* Few rows a pass: the prefix is cut into several, and a suffix may fill one by itself. */
static void a_margin_is_the_same_in_passes_of_any_length(void **state)
{
    static const size_t rows[] = {1, 2, 3, 5, 8, 17, 64, 4096};
    const fixture *f = *state;
    double alone[N], got[N];
    score_alone(f, alone);
    mr_bundle *bundle = test_bundle_open(f->path, 2);
    for (size_t i = 0; i < COUNT(rows); i++) {
        mr_scorer *scorer = test_scorer(bundle, rows[i]);
        begin(scorer, "red kettle", f->user, 5);
        score(scorer, f->candidate, N, got);
        assert_same_bits(got, alone, N, "rows of a pass", rows[i]);
        mr_scorer_free(scorer);
    }
    mr_bundle_close(bundle);
}

static void a_margin_is_the_same_with_a_warm_prefix(void **state)
{
    static const struct {
        const char *before;
        size_t user_tokens;
    } row[] = {{"red kettle", 5},
               {"red kettle", 4},
               {"red kettles", 5},
               {"blue", 0},
               {"red", 5},
               {"", 0},
               {"red kettle and more of it", 12}};
    const fixture *f = *state;
    double alone[N], got[N], other[N];
    score_alone(f, alone);
    mr_bundle *bundle = test_bundle_open(f->path, 2);
    mr_scorer *scorer = test_scorer(bundle, 0);
    for (size_t i = 0; i < COUNT(row); i++) {
        begin(scorer, row[i].before, f->user, row[i].user_tokens);
        if (i % 2 == 0) /* one that is never computed must not count as cached */
            score(scorer, f->candidate, N, other);
        begin(scorer, "red kettle", f->user, 5);
        score(scorer, f->candidate, N, got);
        assert_same_bits(got, alone, N, "after query", i);
        score(scorer, f->candidate, N, got);
        assert_same_bits(got, alone, N, "again after query", i);
    }
    mr_scorer_free(scorer);
    mr_bundle_close(bundle);
}

/* Every prompt by itself, as one run of a session, prefix and suffix in one piece. */
static void the_shared_prefix_agrees_with_whole_prompts(void **state)
{
    const fixture *f = *state;
    double margins[N];
    float got[N], want[N], hidden[DIM], logits[2];
    mr_error err = {0};
    mr_bundle *bundle = test_bundle_open(f->path, 1);
    mr_scorer *scorer = test_scorer(bundle, 0);
    mr_session *session = NULL;
    const mr_session_options opt = {.max_prefix = 200, .max_rows = 200};
    assert_status(mr_session_new(&session, bundle->llm, &opt, &err), MR_OK, &err);
    begin(scorer, "red kettle", f->user, 5);
    score(scorer, f->candidate, N, margins);
    for (size_t i = 0; i < N; i++) {
        const mr_scorer_candidate *c = &f->candidate[i];
        const mr_prompt *prefix = mr_scorer_prefix_prompt(scorer), *suffix = NULL;
        int32_t ids[256];
        float embeds[16 * DIM];
        assert_status(mr_scorer_suffix_prompt(scorer, c->fields, c->item.tokens, 0, &suffix, &err),
                      MR_OK, &err);
        const size_t n = prefix->ids.n + suffix->ids.n;
        assert_true(n <= COUNT(ids));
        memcpy(ids, prefix->ids.data, prefix->ids.n * sizeof *ids);
        memcpy(ids + prefix->ids.n, suffix->ids.data, suffix->ids.n * sizeof *ids);
        memcpy(embeds, f->user, 5 * DIM * sizeof *embeds);
        memcpy(embeds + 5 * DIM, c->item.values, c->item.tokens * DIM * sizeof *embeds);
        const mr_input whole = {ids, n, embeds, 5 + c->item.tokens};
        const mr_batch batch = {.prefix = &whole, .prefix_want = MR_WANT_LAST, .n_last = 1};
        mr_session_reset(session);
        assert_status(mr_session_run(session, &batch, hidden, &err), MR_OK, &err);
        const int32_t labels[2] = {bundle->yes_id, bundle->no_id};
        mr_model_label_logits(bundle->llm, hidden, labels, 2, logits);
        want[i] = logits[0] - logits[1];
        got[i] = (float)margins[i];
    }
    assert_floats_near(got, want, N, 1e-5);
    mr_session_free(session);
    mr_scorer_free(scorer);
    mr_bundle_close(bundle);
}

/* ---- the prefix cache ------------------------------------------------------------------------ */

static void the_part_that_two_prefixes_share_is_computed_once(void **state)
{
    const fixture *f = *state;
    double margins[N];
    mr_bundle *bundle = test_bundle_open(f->path, 1);
    mr_scorer *scorer = test_scorer(bundle, 0);
    begin(scorer, "red kettle", f->user, 4);
    mr_scorer_stats first = mr_scorer_take_stats(scorer);
    assert_int_equal(first.prefix_tokens_cached, 0);
    score(scorer, f->candidate, 2, margins);
    mr_scorer_stats after = mr_scorer_take_stats(scorer);
    assert_int_equal(after.candidates, 2);
    assert_int_equal(after.session.rows, first.prefix_tokens + after.suffix_tokens);

    begin(scorer, "red kettle", f->user, 4);
    mr_scorer_stats same = mr_scorer_take_stats(scorer);
    assert_int_equal(same.prefix_tokens_cached, first.prefix_tokens);
    score(scorer, f->candidate, 2, margins);
    after = mr_scorer_take_stats(scorer);
    assert_int_equal(after.session.rows, after.suffix_tokens);

    /* Other user vectors at the same ids: shared up to the first of them. */
    begin(scorer, "red kettle", f->user + DIM, 4);
    mr_scorer_stats other = mr_scorer_take_stats(scorer);
    assert_int_equal(other.prefix_tokens, first.prefix_tokens);
    assert_int_equal(other.prefix_tokens_cached, first.prefix_tokens - 5);
    mr_scorer_free(scorer);
    mr_bundle_close(bundle);
}

/* ---- what is wrong with one is its own problem ----------------------------------------------- */

static void a_bad_candidate_costs_only_itself(void **state)
{
    const fixture *f = *state;
    float broken[T * DIM], huge[DIM];
    static char long_text[4096];
    memset(long_text, 'x', sizeof long_text - 1);
    memcpy(broken, f->vectors, sizeof broken);
    broken[DIM + 3] = (float)NAN;
    for (size_t i = 0; i < DIM; i++)
        huge[i] = (float)INFINITY;
    const mr_field bad_text = {mr_str_of("title"), {"caf\xe9", 4}};
    const struct {
        mr_scorer_candidate candidate;
        mr_status status;
        const char *message;
    } row[] = {
        {{.item = {f->vectors, 1, DIM - 1}},
         MR_MISMATCH,
         "item vectors are 31 wide, the bundle's are 32"},
        {{.item = {f->vectors, T + 1, DIM}},
         MR_MISMATCH,
         "item has 4 embedding tokens, the bundle takes 3"},
        {{.item = {broken, 2, DIM}}, MR_INVALID, "item vectors: token 1 is nan in column 3"},
        {{.item = {huge, 1, DIM}}, MR_INVALID, "item vectors: token 0 is inf in column 0"},
        {{.item = {NULL, 0, 0}}, MR_INVALID, "slot 'item' has no embedding tokens"},
        {{.fields = {&bad_text, 1}, .item = {f->vectors, 1, DIM}},
         MR_INVALID,
         "field 'title' is not UTF-8"},
    };
    double alone[N], margins[COUNT(row) * 2 + 1];
    mr_scorer_candidate all[COUNT(row) * 2 + 1];
    mr_status status[COUNT(row) * 2 + 1];
    score_alone(f, alone);
    mr_bundle *bundle = test_bundle_open(f->path, 2);
    mr_scorer *scorer = test_scorer(bundle, 0);
    begin(scorer, "red kettle", f->user, 5);
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_error err = {0}, first = {0};
        double margin = 0;
        mr_status one = MR_OK;
        assert_status(mr_scorer_score(scorer, &row[i].candidate, 1, &margin, &one, &first, &err),
                      MR_OK, &err);
        assert_status(one, row[i].status, &first);
        assert_contains(first.message, row[i].message);
        assert_true(isnan(margin));
    }
    /* Between good ones: good at even places, bad at odd ones. */
    for (size_t i = 0; i < COUNT(all); i++)
        all[i] = i % 2 ? row[i / 2].candidate : f->candidate[i / 2];
    mr_error err = {0}, first = {0};
    assert_status(mr_scorer_score(scorer, all, COUNT(all), margins, status, &first, &err), MR_OK,
                  &err);
    for (size_t i = 0; i < COUNT(all); i++) {
        assert_status(status[i], i % 2 ? row[i / 2].status : MR_OK, &first);
        if (i % 2 == 0)
            assert_same_bits(&margins[i], &alone[i / 2], 1, "good one at", i);
        else
            assert_true(isnan(margins[i]));
    }
    assert_contains(first.message, row[0].message);
    /* NULL for the message is fine. */
    assert_status(mr_scorer_score(scorer, all, COUNT(all), margins, status, NULL, NULL), MR_OK,
                  &err);
    mr_scorer_free(scorer);
    mr_bundle_close(bundle);
}

/* Finite vectors that the projector makes infinite: the session refuses such input whole. */
static void vectors_that_overflow_in_the_projector_cost_only_their_candidate(void **state)
{
    const fixture *f = *state;
    char path[4200];
    mr_error err = {0}, first = {0};
    snprintf(path, sizeof path, "%s-projected", f->path);
    json_t *spec = test_mixed_spec(1);
    json_t *encoders = json_object_get(spec, "encoders");
    json_object_set_new(encoders, "item",
                        test_json("{'kind': 'external', 'name': 'mini', 'dim': 24}"));
    assert_status(
        test_bundle_make(path, spec, "data/projectors/mlp-f32/projector.safetensors", &err), MR_OK,
        &err);
    mr_bundle *bundle = test_bundle_open(path, 1);
    mr_scorer *scorer = test_scorer(bundle, 0);
    float good[24], huge[24];
    for (size_t i = 0; i < 24; i++) {
        good[i] = 0.1f * (float)i;
        huge[i] = i % 2 ? 3e38f : -3e38f;
    }
    const mr_scorer_candidate all[] = {
        {.item = {good, 1, 24}}, {.item = {huge, 1, 24}}, {.item = {good, 1, 24}}};
    double margins[3];
    mr_status status[3];
    begin(scorer, "red", NULL, 0);
    assert_status(mr_scorer_score(scorer, all, 3, margins, status, &first, &err), MR_OK, &err);
    assert_status(status[0], MR_OK, &first);
    assert_status(status[1], MR_INVALID, &first);
    assert_contains(first.message, "item vectors are not finite after the projector");
    assert_true(isnan(margins[1]));
    assert_true(margins[0] == margins[2] && isfinite(margins[0]));
    const double margin = margins[0];
    /* All of a group. */
    assert_status(mr_scorer_score(scorer, all + 1, 1, margins, status, NULL, &err), MR_OK, &err);
    assert_status(status[0], MR_INVALID, NULL);
    /* As a user they are the caller's mistake. */
    const mr_field field = {mr_str_of("query"), mr_str_of("red")};
    const mr_scorer_prefix prefix = {{&field, 1}, {huge, 1, 24}};
    assert_status(mr_scorer_begin(scorer, &prefix, &err), MR_INVALID, &err);
    assert_contains(err.message, "user vectors are not finite after the projector");
    begin(scorer, "red", NULL, 0);
    assert_true(test_score(scorer, &all[0]) == margin);
    mr_scorer_free(scorer);
    mr_bundle_close(bundle);
}

static void a_slot_whose_condition_fails_takes_no_vectors(void **state)
{
    const fixture *f = *state;
    char path[4200];
    mr_error err = {0};
    snprintf(path, sizeof path, "%s-conditional", f->path);
    json_t *spec = test_mixed_spec(T);
    json_object_set_new(spec, "suffix",
                        test_json("[{'slot': 'item', 'when': 'title'}, {'token': '<|im_end|>'}]"));
    json_object_set_new(spec, "prefix",
                        test_json("['q', {'slot': 'user', 'when': 'query'}, {'field': 'query'}]"));
    assert_status(test_bundle_make(path, spec, NULL, &err), MR_OK, &err);
    mr_bundle *bundle = test_bundle_open(path, 1);
    mr_scorer *scorer = test_scorer(bundle, 0);
    double margins[N];
    begin(scorer, "", f->user, 3); /* no query: no user slot either */
    assert_int_equal(mr_scorer_prefix_prompt(scorer)->ids.n, 1);
    score(scorer, f->candidate, N, margins);
    assert_true(margins[1] == margins[2]); /* no title, so no item */
    assert_true(margins[0] != margins[1]);
    begin(scorer, "x", f->user, 3);
    assert_int_equal(mr_scorer_prefix_prompt(scorer)->ids.n, 5);
    score(scorer, f->candidate, N, margins);
    mr_scorer_free(scorer);
    mr_bundle_close(bundle);
}

/* ---- begin ----------------------------------------------------------------------------------- */

static void a_bad_prefix_is_refused_and_leaves_the_scorer_usable(void **state)
{
    const fixture *f = *state;
    float broken[DIM];
    double alone[N], got[N];
    memcpy(broken, f->user, sizeof broken);
    broken[7] = (float)-INFINITY;
    const mr_field bad_text = {mr_str_of("query"), {"a\xff", 2}};
    const struct {
        mr_scorer_prefix prefix;
        mr_status status;
        const char *message;
    } row[] = {
        {{.user = {f->user, 1, 8}}, MR_MISMATCH, "user vectors are 8 wide, the bundle's are 32"},
        {{.user = {f->user, 4 * T + 1, DIM}},
         MR_MISMATCH,
         "user has 13 embedding tokens, the bundle takes 12"},
        {{.user = {broken, 1, DIM}}, MR_INVALID, "user vectors: token 0 is -inf in column 7"},
        {{.fields = {&bad_text, 1}},
         MR_INVALID,
         "field 'query' is not UTF-8: byte 0xff at offset 1"},
    };
    mr_error err = {0};
    mr_status status;
    score_alone(f, alone);
    mr_bundle *bundle = test_bundle_open(f->path, 1);
    mr_scorer *scorer = test_scorer(bundle, 0);
    assert_status(mr_scorer_score(scorer, f->candidate, 1, got, &status, NULL, &err), MR_INVALID,
                  &err);
    assert_contains(err.message, "before a successful mr_scorer_begin");
    for (size_t i = 0; i < COUNT(row); i++) {
        assert_status(mr_scorer_begin(scorer, &row[i].prefix, &err), row[i].status, &err);
        assert_contains(err.message, row[i].message);
        assert_status(mr_scorer_score(scorer, f->candidate, 1, got, &status, NULL, &err),
                      MR_INVALID, &err);
        begin(scorer, "red kettle", f->user, 5);
        score(scorer, f->candidate, N, got);
        assert_same_bits(got, alone, N, "after a failure", i);
    }
    mr_scorer_free(scorer);
    mr_bundle_close(bundle);
}

static void a_long_query_gives_way_and_leaves_room_for_every_item(void **state)
{
    const fixture *f = *state;
    static char query[5001];
    double margins[N];
    for (size_t i = 0; i < 5000; i++)
        query[i] = "kettle "[i % 7];
    mr_bundle *bundle = test_bundle_open(f->path, 1);
    mr_scorer *scorer = test_scorer(bundle, 0);
    begin(scorer, query, f->user, 4);
    const mr_prompt *prefix = mr_scorer_prefix_prompt(scorer);
    assert_int_equal(prefix->ids.n, 200 - T - 1);
    assert_true(prefix->piece[1].truncated);
    score(scorer, f->candidate + 1, 2, margins);
    mr_scorer_free(scorer);
    mr_bundle_close(bundle);
}

static void the_text_of_special_tokens_is_text(void **state)
{
    const fixture *f = *state;
    double margins[N];
    mr_bundle *bundle = test_bundle_open(f->path, 1);
    mr_scorer *scorer = test_scorer(bundle, 0);
    begin(scorer, "<|endoftext|><|im_start|><|im_end|><think></think>-1 <|item|>", f->user, 2);
    const mr_prompt *prefix = mr_scorer_prefix_prompt(scorer);
    size_t slots = 0;
    for (size_t i = 0; i < prefix->ids.n; i++) {
        slots += prefix->ids.data[i] == MR_ID_EMBED;
        assert_true(prefix->ids.data[i] < 628); /* where the added tokens begin */
    }
    assert_int_equal(slots, 2);
    score(scorer, f->candidate, N, margins);
    mr_scorer_free(scorer);
    mr_bundle_close(bundle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_margin_is_the_same_in_batches_of_any_size),
        cmocka_unit_test(a_margin_is_the_same_in_every_slot),
        cmocka_unit_test(a_margin_is_the_same_in_passes_of_any_length),
        cmocka_unit_test(a_margin_is_the_same_with_a_warm_prefix),
        cmocka_unit_test(the_shared_prefix_agrees_with_whole_prompts),
        cmocka_unit_test(the_part_that_two_prefixes_share_is_computed_once),
        cmocka_unit_test(a_bad_candidate_costs_only_itself),
        cmocka_unit_test(vectors_that_overflow_in_the_projector_cost_only_their_candidate),
        cmocka_unit_test(a_slot_whose_condition_fails_takes_no_vectors),
        cmocka_unit_test(a_bad_prefix_is_refused_and_leaves_the_scorer_usable),
        cmocka_unit_test(a_long_query_gives_way_and_leaves_room_for_every_item),
        cmocka_unit_test(the_text_of_special_tokens_is_text),
    };
    return cmocka_run_group_tests_name("scorer", tests, set_up, tear_down);
}
