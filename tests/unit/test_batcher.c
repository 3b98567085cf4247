/* test_batcher.c - rankings that share passes: the same bits as alone, deadlines, cancellation,
 * failures that stay with their job, and the cache of prefixes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "tests/ranker_support.h"
#include "tests/support.h"

#define DIM     32
#define T       3  /* most embedding tokens of an item */
#define ITEMS   40 /* to choose candidates from */
#define QUERIES 7
#define USERS   3
#define MOST    13 /* candidates of a request */

typedef struct {
    char *folder;
    char path[4096];
    mr_bundle *bundle;
    float *vectors, *users;
    mr_field title[ITEMS];
    mr_scorer_candidate item[ITEMS];
} fixture;

static const char *const queries[QUERIES] = {
    "text editor", "a terminal with tabs", "text", "spreadsheet", "play music and film from a disk",
    "draw",        "compiler for C",
};

static int set_up(void **state)
{
    static fixture f;
    static const char *const titles[] = {"Red kettle", "Garden chair", "7"};
    mr_rng rng = mr_rng_seed(5);
    mr_error err = {0};
    f.folder = test_folder_new();
    snprintf(f.path, sizeof f.path, "%s/b", f.folder);
    assert_status(test_bundle_make(f.path, test_mixed_spec(T), NULL, &err), MR_OK, &err);
    f.bundle = test_bundle_open(f.path, 2);
    f.vectors = test_vectors(&rng, ITEMS * T, DIM);
    f.users = test_vectors(&rng, USERS * 4, DIM);
    for (size_t i = 0; i < ITEMS; i++) {
        f.title[i] = (mr_field){mr_str_of("title"), mr_str_of(titles[i % 3])};
        f.item[i] = (mr_scorer_candidate){.fields = {&f.title[i], i % 4 == 0},
                                          .item = {f.vectors + i * T * DIM, 1 + i % T, DIM}};
    }
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    mr_bundle_close(f->bundle);
    free(f->vectors);
    free(f->users);
    test_folder_free(f->folder);
    return 0;
}

/* A request is a number: its query, user and candidates follow from it. */
static size_t candidates_of(const fixture *f, size_t request, mr_scorer_candidate *out)
{
    const size_t n = 1 + request * 5 % MOST;
    for (size_t i = 0; i < n; i++)
        out[i] = f->item[(request * 11 + i * 3) % ITEMS];
    return n;
}

static mr_status rank(const fixture *f, mr_scorer *scorer, size_t request, double *margins,
                      mr_status *status, mr_error *err)
{
    mr_scorer_candidate candidate[MOST];
    const mr_field query = {mr_str_of("query"), mr_str_of(queries[request % QUERIES])};
    const size_t user = request / 2 % (USERS + 1);
    const mr_scorer_prefix prefix = {
        {&query, 1},
        user < USERS ? (mr_vectors){f->users + user * 4 * DIM, 1 + user, DIM} : (mr_vectors){0}};
    mr_status ran = mr_scorer_begin(scorer, &prefix, err);
    if (ran == MR_OK)
        ran = mr_scorer_score(scorer, candidate, candidates_of(f, request, candidate), margins,
                              status, NULL, err);
    return ran;
}

static mr_batcher *batcher_new(const fixture *f, const mr_batcher_options *options)
{
    mr_batcher *batcher = NULL;
    mr_error err = {0};
    assert_status(mr_batcher_new(&batcher, f->bundle, options, &err), MR_OK, &err);
    return batcher;
}

static mr_scorer *scorer_new(const fixture *f, mr_batcher *batcher)
{
    mr_scorer *scorer = NULL;
    mr_error err = {0};
    const mr_scorer_options options = {.batcher = batcher};
    assert_status(mr_scorer_new(&scorer, f->bundle, &options, &err), MR_OK, &err);
    return scorer;
}

/* ---- Same bits ------------------------------------------------------------------------------- */

#define THREADS  16
#define REQUESTS 1000 /* of all threads together */

typedef struct {
    const fixture *f;
    mr_batcher *batcher;
    size_t first;
    const double (*want)[MOST];
    size_t wrong; /* margins that differ from those alone */
    size_t failed;
} client;

static void *run_client(void *context)
{
    client *c = context;
    mr_scorer *scorer = NULL;
    const mr_scorer_options options = {.batcher = c->batcher};
    if (mr_scorer_new(&scorer, c->f->bundle, &options, NULL) != MR_OK) {
        c->failed++;
        return NULL;
    }
    for (size_t request = c->first; request < REQUESTS; request += THREADS) {
        double got[MOST] = {0};
        mr_status status[MOST];
        mr_scorer_candidate unused[MOST];
        if (rank(c->f, scorer, request, got, status, NULL) != MR_OK) {
            c->failed++;
            continue;
        }
        const size_t n = candidates_of(c->f, request, unused);
        for (size_t i = 0; i < n; i++)
            c->wrong +=
                status[i] != MR_OK || memcmp(&got[i], &c->want[request][i], sizeof got[i]) != 0;
    }
    mr_scorer_free(scorer);
    return NULL;
}

static void a_thousand_requests_give_equal_margins_alone_and_sixteen_at_once(void **state)
{
    const fixture *f = *state;
    static double want[REQUESTS][MOST];
    mr_scorer *alone = test_scorer(f->bundle, 0);
    for (size_t request = 0; request < REQUESTS; request++) {
        mr_status status[MOST];
        mr_error err = {0};
        assert_status(rank(f, alone, request, want[request], status, &err), MR_OK, &err);
    }
    mr_scorer_free(alone);

    /* Room for everything; passes of a few rows; a cache that holds nothing for long. */
    static const mr_batcher_options options[] = {
        {0},
        {.max_rows = 24, .max_queue_rows = 100000},
        {.max_rows = 64, .cache_bytes = 1},
        {.max_rows = 200, .cache_bytes = 60000},
    };
    for (size_t o = 0; o < sizeof options / sizeof *options; o++) {
        mr_batcher *batcher = batcher_new(f, &options[o]);
        client clients[THREADS];
        pthread_t threads[THREADS];
        for (size_t t = 0; t < THREADS; t++) {
            clients[t] = (client){
                .f = f, .batcher = batcher, .first = t, .want = (const double(*)[MOST])want};
            assert_int_equal(pthread_create(&threads[t], NULL, run_client, &clients[t]), 0);
        }
        for (size_t t = 0; t < THREADS; t++)
            pthread_join(threads[t], NULL);
        size_t wrong = 0, failed = 0;
        for (size_t t = 0; t < THREADS; t++) {
            wrong += clients[t].wrong;
            failed += clients[t].failed;
        }
        mr_batcher_stats stats;
        mr_batcher_stat(batcher, &stats);
        print_message(
            "  %zu: %llu jobs in %llu passes, %llu of several; prefixes: %llu hits, %llu "
            "branches, %llu misses, %llu evictions, %llu bytes\n",
            o, (unsigned long long)stats.jobs, (unsigned long long)stats.passes,
            (unsigned long long)stats.merged, (unsigned long long)stats.cache.hits,
            (unsigned long long)stats.cache.branches, (unsigned long long)stats.cache.misses,
            (unsigned long long)stats.cache.evictions, (unsigned long long)stats.cache.bytes);
        assert_int_equal(failed, 0);
        assert_int_equal(wrong, 0);
        assert_int_equal(stats.jobs, REQUESTS);
        assert_int_equal(stats.queued_rows, 0);
        assert_true(stats.merged > 0);
        mr_batcher_free(batcher);
    }
}

/* ---- Limits ---------------------------------------------------------------------------------- */

static void a_deadline_that_is_over_leaves_the_candidates_without_margins(void **state)
{
    const fixture *f = *state;
    mr_batcher *batcher = batcher_new(f, NULL);
    mr_scorer *scorer = scorer_new(f, batcher);
    double margins[MOST];
    mr_status status[MOST];
    mr_scorer_candidate candidate[MOST];
    mr_error err = {0};
    mr_scorer_set_limits(scorer, mr_clock_monotonic_us() - 1, NULL);
    assert_status(rank(f, scorer, 4, margins, status, &err), MR_OK, &err);
    const size_t n = candidates_of(f, 4, candidate);
    for (size_t i = 0; i < n; i++) {
        assert_status(status[i], MR_TIMEOUT, &err);
        assert_true(isnan(margins[i]));
    }
    mr_scorer_set_limits(scorer, mr_clock_monotonic_us() + 60000000, NULL);
    assert_status(rank(f, scorer, 4, margins, status, &err), MR_OK, &err);
    assert_status(status[0], MR_OK, &err);
    mr_scorer_free(scorer);
    mr_batcher_free(batcher);
}

static void a_cancelled_ranking_is_not_computed(void **state)
{
    const fixture *f = *state;
    mr_batcher *batcher = batcher_new(f, NULL);
    mr_scorer *scorer = scorer_new(f, batcher);
    atomic_bool cancelled = true;
    double margins[MOST];
    mr_status status[MOST];
    mr_error err = {0};
    mr_batcher_stats stats;
    mr_scorer_set_limits(scorer, 0, &cancelled);
    assert_status(rank(f, scorer, 4, margins, status, &err), MR_CANCELLED, &err);
    assert_contains(err.message, "cancelled after 0 of");
    mr_batcher_stat(batcher, &stats);
    assert_int_equal(stats.passes, 0);
    assert_int_equal(stats.cancelled, 1);
    mr_scorer_free(scorer);
    mr_batcher_free(batcher);
}

typedef struct {
    mr_batcher *batcher;
    mr_batch_job job;
    mr_status status;
    mr_error err;
} raw_job;

static void *run_raw(void *context)
{
    raw_job *raw = context;
    raw->status = mr_batcher_run(raw->batcher, &raw->job, &raw->err);
    return NULL;
}

static void bad_input_fails_its_own_job_and_no_other_of_the_pass(void **state)
{
    const fixture *f = *state;
    enum { JOBS = 8 };
    static const int32_t good[] = {5, 6, 7}, bad[] = {5, 1 << 30, 7};
    mr_batcher *batcher = batcher_new(f, NULL);
    double margins[JOBS][2];
    const mr_input good_suffix[2] = {{.ids = good, .n = 1}, {.ids = good, .n = 2}};
    const mr_input bad_suffix[2] = {{.ids = good, .n = 1}, {.ids = bad, .n = 2}};
    for (size_t round = 0; round < 20; round++) {
        raw_job raw[JOBS];
        pthread_t threads[JOBS];
        for (size_t j = 0; j < JOBS; j++) {
            const bool is_bad = j == round % JOBS;
            raw[j] = (raw_job){.batcher = batcher,
                               .job = {.prefix = {.input = {.ids = good, .n = 1 + j % 3}},
                                       .suffixes = is_bad ? bad_suffix : good_suffix,
                                       .n = 2,
                                       .margins = margins[j]}};
            assert_int_equal(pthread_create(&threads[j], NULL, run_raw, &raw[j]), 0);
        }
        for (size_t j = 0; j < JOBS; j++)
            pthread_join(threads[j], NULL);
        for (size_t j = 0; j < JOBS; j++) {
            const bool is_bad = j == round % JOBS;
            assert_status(raw[j].status, is_bad ? MR_INVALID : MR_OK, &raw[j].err);
            assert_int_equal(raw[j].job.n_done, is_bad ? 0 : 2);
        }
    }
    mr_batcher_free(batcher);
}

static void a_job_that_does_not_fit_behind_those_that_wait_is_refused(void **state)
{
    const fixture *f = *state;
    enum { JOBS = 12, SUFFIXES = 64 };
    static const int32_t ids[] = {5, 6, 7, 8};
    static mr_input suffix[SUFFIXES];
    static double margins[JOBS][SUFFIXES];
    for (size_t i = 0; i < SUFFIXES; i++)
        suffix[i] = (mr_input){.ids = ids, .n = 4};
    const mr_batcher_options options = {.max_rows = 16, .max_queue_rows = 2 * SUFFIXES * 4};
    mr_batcher *batcher = batcher_new(f, &options);
    raw_job raw[JOBS];
    pthread_t threads[JOBS];
    size_t refused = 0;
    const double *taken = NULL; /* margins of the first that was not refused */
    for (size_t j = 0; j < JOBS; j++) {
        raw[j] = (raw_job){.batcher = batcher,
                           .job = {.prefix = {.input = {.ids = ids, .n = 2}},
                                   .suffixes = suffix,
                                   .n = SUFFIXES,
                                   .margins = margins[j]}};
        assert_int_equal(pthread_create(&threads[j], NULL, run_raw, &raw[j]), 0);
    }
    for (size_t j = 0; j < JOBS; j++) {
        pthread_join(threads[j], NULL);
        if (raw[j].status == MR_EXHAUSTED) {
            assert_contains(raw[j].err.message, "over the bound of 512");
            refused++;
        } else {
            assert_status(raw[j].status, MR_OK, &raw[j].err);
            taken = taken ? taken : margins[j];
            assert_memory_equal(margins[j], taken, sizeof margins[0]);
        }
    }
    mr_batcher_stats stats;
    mr_batcher_stat(batcher, &stats);
    print_message("  %zu of %d refused\n", refused, JOBS);
    assert_int_equal(stats.rejected, refused);
    assert_non_null(taken); /* an empty queue takes any job */
    mr_batcher_free(batcher);
}

/* ---- The cache ------------------------------------------------------------------------------- */

/* And a session to fill its entries with. */
static mr_prefix_cache *cache_new(const fixture *f, uint64_t bytes, mr_session **session)
{
    mr_prefix_cache *cache = NULL;
    mr_error err = {0};
    const mr_session_options options = {
        .max_prefix = 32, .max_rows = 32, .borrowed_timelines = true};
    assert_status(mr_session_new(session, f->bundle->llm, &options, &err), MR_OK, &err);
    assert_status(mr_prefix_cache_new(&cache, f->bundle->llm, bytes, &err), MR_OK, &err);
    return cache;
}

static mr_prefix_entry *take(mr_prefix_cache *cache, const mr_prefix_key *key)
{
    mr_prefix_entry *entry = NULL;
    mr_error err = {0};
    assert_status(mr_prefix_cache_take(cache, key, &entry, &err), MR_OK, &err);
    return entry;
}

/* Computes what the entry lacks. */
static void fill(mr_session *session, mr_prefix_entry *entry)
{
    mr_error err = {0};
    const mr_input pending = mr_prefix_entry_pending(entry);
    const mr_batch batch = {.timeline = mr_prefix_entry_timeline(entry), .prefix = &pending};
    if (pending.n)
        assert_status(mr_session_run(session, &batch, NULL, &err), MR_OK, &err);
}

static void a_prefix_goes_on_from_the_longest_beginning_that_is_known(void **state)
{
    const fixture *f = *state;
    mr_session *session = NULL;
    mr_prefix_cache *cache = cache_new(f, 1 << 20, &session);
    const size_t C = (size_t)f->bundle->llm->config.C;
    float *one = calloc(C, sizeof *one), *other = calloc(C, sizeof *other);
    assert_true(one && other);
    other[0] = 1.0f;

    const struct {
        const char *name;
        int32_t ids[6];
        const float *embeds;
        size_t known; /* positions that are found */
    } row[] = {
        {"new", {1, 2, 3, MR_ID_EMBED, 5, 6}, one, 0},
        {"the same", {1, 2, 3, MR_ID_EMBED, 5, 6}, one, 6},
        {"another vector", {1, 2, 3, MR_ID_EMBED, 5, 6}, other, 3},
        {"another end", {1, 2, 3, MR_ID_EMBED, 5, 7}, other, 4},
        {"another query", {1, 2, 4, MR_ID_EMBED, 5, 6}, one, 2},
        {"another instruction", {2, 2, 3, MR_ID_EMBED, 5, 6}, one, 0},
        {"the same again", {1, 2, 3, MR_ID_EMBED, 5, 6}, one, 6},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        const mr_prefix_key key = {
            .input = {.ids = row[i].ids, .n = 6, .embeds = row[i].embeds, .n_embeds = 1},
            .boundary = {2, 3, 4},
            .n_boundaries = 3};
        mr_prefix_entry *entry = take(cache, &key);
        print_message("  %s: %zu known\n", row[i].name,
                      mr_timeline_length(mr_prefix_entry_timeline(entry)));
        assert_int_equal(mr_timeline_length(mr_prefix_entry_timeline(entry)), row[i].known);
        fill(session, entry);
        mr_prefix_cache_give(cache, entry);
    }

    /* One that was never computed is not kept, and lends nothing meanwhile. */
    const int32_t ids[] = {9, 9, 9};
    const mr_prefix_key key = {.input = {.ids = ids, .n = 3}, .boundary = {1}, .n_boundaries = 1};
    mr_prefix_entry *first = take(cache, &key), *again = take(cache, &key);
    assert_ptr_equal(first, again);
    assert_int_equal(mr_timeline_length(mr_prefix_entry_timeline(first)), 0);
    mr_prefix_cache_stats before, after;
    mr_prefix_cache_stat(cache, &before);
    mr_prefix_cache_give(cache, first);
    mr_prefix_cache_give(cache, again);
    mr_prefix_cache_stat(cache, &after);
    assert_int_equal(before.entries, after.entries + 1);

    free(one);
    free(other);
    mr_session_free(session);
    mr_prefix_cache_free(cache);
}

static void the_cache_stays_within_its_bytes_and_drops_what_was_used_longest_ago(void **state)
{
    const fixture *f = *state;
    const uint64_t bound = 5 * (mr_timeline_bytes_for(f->bundle->llm, 8) + 1500);
    mr_session *session = NULL;
    mr_prefix_cache *cache = cache_new(f, bound, &session);
    mr_prefix_cache_stats stats;
    mr_rng rng = mr_rng_seed(9);
    for (int32_t i = 0; i < 400; i++) {
        /* One prefix comes every other time, the rest once. */
        int32_t ids[8] = {3, 1, 4, 1, 5, 9, 2, 6};
        if (i % 2)
            for (size_t p = 0; p < 8; p++)
                ids[p] = (int32_t)(mr_rng_below(&rng, 100));
        const mr_prefix_key key = {.input = {.ids = ids, .n = 8}};
        mr_prefix_entry *entry = take(cache, &key);
        if (i % 2 == 0 && i > 0)
            assert_int_equal(mr_timeline_length(mr_prefix_entry_timeline(entry)), 8);
        fill(session, entry);
        mr_prefix_cache_give(cache, entry);
        mr_prefix_cache_stat(cache, &stats);
        assert_true(stats.bytes <= bound);
    }
    print_message("  %llu entries, %llu of %llu bytes, %llu evictions\n",
                  (unsigned long long)stats.entries, (unsigned long long)stats.bytes,
                  (unsigned long long)bound, (unsigned long long)stats.evictions);
    assert_in_range(stats.entries, 3, 6);
    assert_true(stats.evictions > 150);
    mr_session_free(session);
    mr_prefix_cache_free(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_requests_give_equal_margins_alone_and_sixteen_at_once),
        cmocka_unit_test(a_deadline_that_is_over_leaves_the_candidates_without_margins),
        cmocka_unit_test(a_cancelled_ranking_is_not_computed),
        cmocka_unit_test(bad_input_fails_its_own_job_and_no_other_of_the_pass),
        cmocka_unit_test(a_job_that_does_not_fit_behind_those_that_wait_is_refused),
        cmocka_unit_test(a_prefix_goes_on_from_the_longest_beginning_that_is_known),
        cmocka_unit_test(the_cache_stays_within_its_bytes_and_drops_what_was_used_longest_ago),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
