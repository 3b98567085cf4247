/* test_timeline.c - prefixes apart from a session: many in one run, kept, branched off, refused.
 *
 * Everything is compared bit for bit with the same prompt alone in a session of its own.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/engine_support.h"
#include "tests/support.h"

#define SHAPE      4 /* of test_shapes: qwen3, L 3, C 48, V 150, 512 positions */
#define WIDTH      48
#define REQUESTS   5
#define CANDIDATES 4

static char *folder;
static mr_model *model;
static mr_pool *pool;

static int open_model(void **state)
{
    (void)state;
    mr_error err = {0};
    folder = test_folder_new();
    test_model_write(folder, &test_shapes[SHAPE]);
    model = test_model_open(folder, MR_GEMM_SCORING, NULL);
    return mr_pool_new(&pool, 3, &err) == MR_OK ? 0 : -1;
}

static int close_model(void **state)
{
    (void)state;
    mr_pool_free(pool);
    mr_model_close(model);
    test_folder_free(folder);
    return 0;
}

static mr_timeline *timeline_new(size_t capacity)
{
    mr_timeline *timeline = NULL;
    mr_error err = {0};
    assert_status(mr_timeline_new(&timeline, model, capacity, &err), MR_OK, &err);
    return timeline;
}

static mr_session *borrowing_session(size_t max_prefix, size_t max_rows, size_t max_suffix)
{
    mr_session *session = NULL;
    mr_error err = {0};
    const mr_session_options opt = {.max_prefix = max_prefix,
                                    .max_rows = max_rows,
                                    .max_suffix = max_suffix,
                                    .pool = pool,
                                    .borrowed_timelines = true};
    assert_status(mr_session_new(&session, model, &opt, &err), MR_OK, &err);
    return session;
}

/* The last row of each suffix after the prefix, in a session of its own. */
static void alone(const mr_input *prefix, const mr_input *suffixes, size_t n, float *out)
{
    mr_session *session = test_session_new(model, prefix->n, 64, 16, NULL);
    mr_error err = {0};
    const mr_batch batch = {.prefix = prefix,
                            .suffixes = suffixes,
                            .n_suffixes = n,
                            .suffix_want = MR_WANT_LAST,
                            .n_last = 1};
    assert_status(mr_session_run(session, &batch, out, &err), MR_OK, &err);
    mr_session_free(session);
}

typedef struct {
    mr_input prefix[REQUESTS];
    mr_input suffix[REQUESTS][CANDIDATES];
    float want[REQUESTS][CANDIDATES * WIDTH];
} requests;

static requests *requests_new(uint64_t seed)
{
    static const size_t prefix_lengths[REQUESTS] = {29, 3, 17, 41, 8};
    requests *r = calloc(1, sizeof *r);
    assert_non_null(r);
    mr_rng rng = mr_rng_seed(seed);
    for (size_t i = 0; i < REQUESTS; i++) {
        r->prefix[i] = test_input_new(&rng, model, prefix_lengths[i], i);
        for (size_t c = 0; c < CANDIDATES; c++)
            r->suffix[i][c] = test_input_new(&rng, model, 1 + (i + 3 * c) % 6, 1);
        alone(&r->prefix[i], r->suffix[i], CANDIDATES, r->want[i]);
    }
    return r;
}

static void requests_free(requests *r)
{
    for (size_t i = 0; i < REQUESTS; i++) {
        test_input_free(&r->prefix[i]);
        for (size_t c = 0; c < CANDIDATES; c++)
            test_input_free(&r->suffix[i][c]);
    }
    free(r);
}

static mr_batch batch_of(mr_timeline *timeline, const mr_input *prefix, const mr_input *suffixes)
{
    return (mr_batch){.timeline = timeline,
                      .prefix = prefix,
                      .suffixes = suffixes,
                      .n_suffixes = CANDIDATES,
                      .suffix_want = MR_WANT_LAST,
                      .n_last = 1};
}

/* ---- Many in one run ------------------------------------------------------------------------- */

static void requests_in_one_run_give_the_bits_that_they_give_alone(void **state)
{
    (void)state;
    requests *r = requests_new(1);
    static const size_t max_rows[] = {6, 7, 16, 31, 64, 300}; /* passes cut anywhere */
    for (size_t m = 0; m < sizeof max_rows / sizeof *max_rows; m++) {
        mr_session *session = borrowing_session(64, max_rows[m], 6);
        mr_timeline *timeline[REQUESTS];
        mr_batch batch[REQUESTS];
        float got[REQUESTS][CANDIDATES * WIDTH];
        mr_error err = {0};
        for (size_t i = 0; i < REQUESTS; i++) {
            timeline[i] = timeline_new(41 + i);
            batch[i] = batch_of(timeline[i], &r->prefix[i], r->suffix[i]);
        }
        assert_status(mr_session_run_many(session, batch, REQUESTS, &got[0][0], &err), MR_OK, &err);
        for (size_t i = 0; i < REQUESTS; i++) {
            char what[64];
            snprintf(what, sizeof what, "request %zu, passes of %zu rows", i, max_rows[m]);
            test_assert_same_bits(what, got[i], r->want[i], CANDIDATES, WIDTH);
            assert_int_equal(mr_timeline_length(timeline[i]), r->prefix[i].n);
        }

        /* Warm, in another order, one of them twice. */
        const mr_batch warm[] = {
            batch_of(timeline[4], NULL, r->suffix[4]),
            batch_of(timeline[0], NULL, r->suffix[0]),
            batch_of(timeline[0], NULL, r->suffix[0]),
        };
        assert_status(mr_session_run_many(session, warm, 3, &got[0][0], &err), MR_OK, &err);
        test_assert_same_bits("warm 4", got[0], r->want[4], CANDIDATES, WIDTH);
        test_assert_same_bits("warm 0", got[1], r->want[0], CANDIDATES, WIDTH);
        test_assert_same_bits("warm 0 again", got[2], r->want[0], CANDIDATES, WIDTH);
        for (size_t i = 0; i < REQUESTS; i++)
            mr_timeline_free(timeline[i]);
        mr_session_free(session);
    }
    requests_free(r);
}

static void a_prefix_computed_in_one_session_is_read_in_another(void **state)
{
    (void)state;
    requests *r = requests_new(2);
    mr_session *first = borrowing_session(64, 9, 6), *second = borrowing_session(50, 64, 6);
    mr_timeline *timeline = timeline_new(41);
    mr_error err = {0};
    float got[CANDIDATES * WIDTH];
    const mr_batch fill = {.timeline = timeline, .prefix = &r->prefix[3]};
    assert_status(mr_session_run(first, &fill, NULL, &err), MR_OK, &err);
    const mr_batch read = batch_of(timeline, NULL, r->suffix[3]);
    assert_status(mr_session_run(second, &read, got, &err), MR_OK, &err);
    test_assert_same_bits("the other session", got, r->want[3], CANDIDATES, WIDTH);
    mr_timeline_free(timeline);
    mr_session_free(first);
    mr_session_free(second);
    requests_free(r);
}

static void a_branch_goes_on_from_the_shared_beginning(void **state)
{
    (void)state;
    enum { SHARED = 11, REST = 9 };
    mr_rng rng = mr_rng_seed(3);
    mr_input shared = test_input_new(&rng, model, SHARED, 2);
    mr_session *session = borrowing_session(40, 64, 6);
    mr_timeline *trunk = timeline_new(SHARED);
    mr_error err = {0};
    assert_status(
        mr_session_run(session, &(mr_batch){.timeline = trunk, .prefix = &shared}, NULL, &err),
        MR_OK, &err);
    for (size_t i = 0; i < 3; i++) {
        mr_input rest = test_input_new(&rng, model, REST, 1),
                 whole = test_input_join(model, &shared, &rest), suffix[CANDIDATES];
        for (size_t c = 0; c < CANDIDATES; c++)
            suffix[c] = test_input_new(&rng, model, 1 + c, 0);
        float got[CANDIDATES * WIDTH], want[CANDIDATES * WIDTH];
        alone(&whole, suffix, CANDIDATES, want);

        mr_timeline *branch = timeline_new(SHARED + REST);
        assert_status(mr_timeline_copy(branch, trunk, SHARED, &err), MR_OK, &err);
        const mr_batch batch = batch_of(branch, &rest, suffix);
        assert_status(mr_session_run(session, &batch, got, &err), MR_OK, &err);
        test_assert_same_bits("branch", got, want, CANDIDATES, WIDTH);
        assert_int_equal(mr_timeline_length(trunk), SHARED);
        mr_timeline_free(branch);
        test_input_free(&rest);
        test_input_free(&whole);
        for (size_t c = 0; c < CANDIDATES; c++)
            test_input_free(&suffix[c]);
    }
    mr_timeline_free(trunk);
    mr_session_free(session);
    test_input_free(&shared);
}

/* ---- Refused --------------------------------------------------------------------------------- */

static void what_cannot_be_run_is_refused_and_leaves_all_as_it_was(void **state)
{
    (void)state;
    requests *r = requests_new(4);
    char *other_folder = test_folder_new();
    test_model_write(other_folder, &test_shapes[SHAPE]);
    mr_model *other = test_model_open(other_folder, MR_GEMM_SCORING, NULL);
    mr_session *session = borrowing_session(40, 64, 6);
    mr_timeline *a = timeline_new(64), *b = timeline_new(16), *foreign = NULL;
    mr_error err = {0};
    assert_status(mr_timeline_new(&foreign, other, 8, &err), MR_OK, &err);
    const mr_batch fill = {.timeline = a, .prefix = &r->prefix[1]};
    assert_status(mr_session_run(session, &fill, NULL, &err), MR_OK, &err);

    const struct {
        const char *name;
        mr_batch batch[2];
        size_t n;
        mr_status status;
        const char *message;
    } row[] = {
        {"no timeline", {batch_of(NULL, NULL, r->suffix[0])}, 1, MR_INVALID, "without a timeline"},
        {"another model",
         {batch_of(foreign, NULL, r->suffix[0])},
         1,
         MR_INVALID,
         "of another model"},
        {"full", {batch_of(b, &r->prefix[0], r->suffix[0])}, 1, MR_EXHAUSTED, "holds 16"},
        {"beyond the session",
         {batch_of(a, &r->prefix[3], r->suffix[0])},
         1,
         MR_EXHAUSTED,
         "the session computes 46"},
        {"the second fails",
         {batch_of(a, &r->prefix[1], r->suffix[0]), batch_of(b, &r->prefix[0], r->suffix[0])},
         2,
         MR_EXHAUSTED,
         "batch 1: "},
        {"one appends to what another reads",
         {batch_of(a, &r->prefix[1], r->suffix[0]), batch_of(a, NULL, r->suffix[0])},
         2,
         MR_INVALID,
         "batches 0 and 1 of a run share a timeline"},
    };
    float got[2 * CANDIDATES * WIDTH];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        err = (mr_error){0};
        print_message("  %s\n", row[i].name);
        assert_status(mr_session_run_many(session, row[i].batch, row[i].n, got, &err),
                      row[i].status, &err);
        assert_contains(err.message, row[i].message);
        assert_int_equal(mr_timeline_length(a), r->prefix[1].n);
        assert_int_equal(mr_timeline_length(b), 0);
    }
    const mr_batch read = batch_of(a, NULL, r->suffix[1]);
    assert_status(mr_session_run(session, &read, got, &err), MR_OK, &err);
    test_assert_same_bits("afterwards", got, r->want[1], CANDIDATES, WIDTH);

    mr_timeline *never = NULL;
    assert_status(mr_timeline_new(&never, model, 513, &err), MR_EXHAUSTED, &err);
    assert_contains(err.message, "max_position_embeddings 512");
    assert_status(mr_timeline_copy(b, a, 4, &err), MR_INVALID, &err);
    assert_contains(err.message, "holds 3");
    assert_status(mr_timeline_copy(foreign, a, 1, &err), MR_INVALID, &err);
    assert_contains(err.message, "one model");

    mr_timeline_free(foreign);
    mr_timeline_free(a);
    mr_timeline_free(b);
    mr_session_free(session);
    mr_model_close(other);
    test_folder_free(other_folder);
    requests_free(r);
}

static void its_bytes_are_those_that_were_foretold(void **state)
{
    (void)state;
    static const size_t capacity[] = {0, 1, 7, 64, 512};
    for (size_t i = 0; i < sizeof capacity / sizeof *capacity; i++) {
        mr_timeline *timeline = timeline_new(capacity[i]);
        const size_t foretold = mr_timeline_bytes_for(model, capacity[i]);
        const size_t least = 2 * capacity[i] * sizeof(float) * (size_t)model->config.L *
                             (size_t)model->config.K * (size_t)model->config.D;
        print_message("  %zu positions: %zu bytes, foretold %zu, keys and values %zu\n",
                      capacity[i], mr_timeline_bytes(timeline), foretold, least);
        assert_true(mr_timeline_bytes(timeline) >= least);
        assert_in_range(mr_timeline_bytes(timeline), foretold, foretold + 256);
        mr_timeline_free(timeline);
    }
    mr_timeline_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_in_one_run_give_the_bits_that_they_give_alone),
        cmocka_unit_test(a_prefix_computed_in_one_session_is_read_in_another),
        cmocka_unit_test(a_branch_goes_on_from_the_shared_beginning),
        cmocka_unit_test(what_cannot_be_run_is_refused_and_leaves_all_as_it_was),
        cmocka_unit_test(its_bytes_are_those_that_were_foretold),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
