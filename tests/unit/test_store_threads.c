/* test_store_threads.c - many threads read while one writes, and all of them see whole batches.
 *
 * Threads do not assert (cmocka would jump off their stack); they count what is wrong.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#include "tests/unit/store_fixture.h"

enum { IDS = 24, READERS = 6, ROUNDS = 150 };

typedef struct {
    mr_store *store;
    char names[IDS][16];
    mr_str ids[IDS];
    atomic_bool stop;
    atomic_int failed_calls;
    atomic_int torn;      /* fetches that saw two batches at once */
    atomic_int backwards; /* fetches that saw an older batch than before */
    atomic_int fetches;
} shared;

static void *read_until_stopped(void *context)
{
    shared *s = context;
    uint64_t last = 0;
    while (!atomic_load(&s->stop)) {
        seen_record seen[IDS];
        seen_list list = {.seen = seen, .n = IDS};
        if (mr_store_fetch(s->store, MR_ENTITY_ITEM, SPACE, s->ids, IDS, see_record, &list, NULL) !=
            MR_OK) {
            atomic_fetch_add(&s->failed_calls, 1);
            continue;
        }
        bool torn = list.damaged || list.disorder || list.next != IDS;
        for (size_t i = 0; i < list.next; i++)
            torn |= !seen[i].found || seen[i].version != seen[0].version ||
                    seen[i].mark != (float)seen[i].version;
        atomic_fetch_add(&s->torn, torn);
        atomic_fetch_add(&s->backwards, seen[0].version < last);
        atomic_fetch_add(&s->fetches, 1);
        last = seen[0].version;
    }
    return NULL;
}

static bool count_record(void *context, mr_str id, mr_bytes record)
{
    (void)id;
    *(size_t *)context += record.data != NULL;
    return true;
}

static void *look_around(void *context)
{
    shared *s = context;
    while (!atomic_load(&s->stop)) {
        mr_store_stats stats;
        uint64_t space;
        size_t n = 0, walked = 0, len;
        char *note = NULL;
        bool fine = mr_store_stat(s->store, &stats, NULL) == MR_OK && stats.records == IDS;
        fine &= mr_store_spaces(s->store, MR_ENTITY_ITEM, &space, 1, &n, NULL) == MR_OK && n == 1;
        fine &=
            mr_store_walk(s->store, MR_ENTITY_ITEM, SPACE, count_record, &walked, NULL) == MR_OK;
        fine &= walked == IDS;
        fine &= mr_store_get_note(s->store, "round", &note, &len, NULL) == MR_OK;
        free(note);
        atomic_fetch_add(&s->failed_calls, !fine);
    }
    return NULL;
}

static mr_status put_round(shared *s, uint64_t round)
{
    mr_store_put_item items[IDS];
    for (size_t i = 0; i < IDS; i++)
        items[i] = (mr_store_put_item){
            s->ids[i], record_new(SPACE, round, (float)round, 1 + (size_t)(round * 37 + i) % 600)};
    mr_status status = mr_store_put_with_note(s->store, MR_ENTITY_ITEM, SPACE, items, IDS, "round",
                                              mr_str_of("r"), NULL, NULL);
    for (size_t i = 0; i < IDS; i++)
        record_free(items[i].record);
    return status;
}

static void readers_see_whole_batches_while_one_writes(void **state)
{
    static shared s;
    pthread_t threads[READERS + 1];
    memset(&s, 0, sizeof s);
    s.store = ((store_fixture *)*state)->store;
    for (size_t i = 0; i < IDS; i++) {
        snprintf(s.names[i], sizeof s.names[i], "id%zu", i);
        s.ids[i] = mr_str_of(s.names[i]);
    }
    assert_int_equal(put_round(&s, 1), MR_OK);
    for (size_t i = 0; i <= READERS; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, i ? read_until_stopped : look_around, &s), 0);
    uint64_t round = 2;
    while (round <= ROUNDS || atomic_load(&s.fetches) < 50) {
        if (put_round(&s, round++) != MR_OK)
            atomic_fetch_add(&s.failed_calls, 1);
    }
    atomic_store(&s.stop, true);
    for (size_t i = 0; i <= READERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&s.failed_calls), 0);
    assert_int_equal(atomic_load(&s.torn), 0);
    assert_int_equal(atomic_load(&s.backwards), 0);
    assert_true(fetch_one(s.store, "id3").version == round - 1);
}

/* ---- several writers ------------------------------------------------------------------------- */

typedef struct {
    mr_store *store;
    uint64_t first;
    size_t written;
    bool failed;
} writer;

enum { WRITERS = 4, PUTS = 60 };

/* Each writes its own ids, and all write "top" with versions that interleave. */
static void *write_own_and_top(void *context)
{
    writer *w = context;
    for (uint64_t i = 0; i < PUTS; i++) {
        char own[32];
        uint64_t version = i * WRITERS + w->first + 1;
        snprintf(own, sizeof own, "own-%u-%u", (unsigned)w->first, (unsigned)i);
        mr_store_put_item items[] = {{mr_str_of(own), record_new(SPACE, 1, 5, 3)},
                                     {mr_str_of("top"), record_new(SPACE, version, 6, 30)}};
        mr_store_put_result result = {0};
        w->failed |=
            mr_store_put(w->store, MR_ENTITY_ITEM, SPACE, items, 2, &result, NULL) != MR_OK;
        w->written += result.written;
        record_free(items[0].record);
        record_free(items[1].record);
    }
    return NULL;
}

static void writers_are_serialised_and_the_largest_version_stays(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    writer writers[WRITERS];
    pthread_t threads[WRITERS];
    mr_store_stats stats;
    mr_error err = {0};
    for (size_t i = 0; i < WRITERS; i++) {
        writers[i] = (writer){.store = store, .first = i};
        assert_int_equal(pthread_create(&threads[i], NULL, write_own_and_top, &writers[i]), 0);
    }
    for (size_t i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
        assert_false(writers[i].failed);
        assert_true(writers[i].written >= PUTS);
    }
    assert_int_equal(fetch_one(store, "top").version, WRITERS * PUTS);
    assert_status(mr_store_stat(store, &stats, &err), MR_OK, &err);
    assert_int_equal(stats.records, WRITERS * PUTS + 1);
}

/* ---- opening at once ------------------------------------------------------------------------- */

typedef struct {
    const char *path;
    pthread_barrier_t *start;
    mr_store *store;
    mr_status status;
} opener;

static void *open_it(void *context)
{
    opener *o = context;
    pthread_barrier_wait(o->start);
    o->status = mr_store_open(&o->store, o->path, NULL, NULL);
    return NULL;
}

static void of_many_that_open_a_path_at_once_one_gets_it(void **state)
{
    enum { N = 6 };
    for (int round = 0; round < 10; round++) {
        char name[16];
        pthread_barrier_t start;
        pthread_t threads[N];
        opener openers[N];
        size_t won = 0;
        snprintf(name, sizeof name, "s%d", round);
        pthread_barrier_init(&start, NULL, N);
        for (size_t i = 0; i < N; i++) {
            openers[i] = (opener){test_path(*state, name), &start, NULL, MR_OK};
            assert_int_equal(pthread_create(&threads[i], NULL, open_it, &openers[i]), 0);
        }
        for (size_t i = 0; i < N; i++)
            pthread_join(threads[i], NULL);
        for (size_t i = 0; i < N; i++) {
            won += openers[i].status == MR_OK;
            assert_true(openers[i].status == MR_OK || openers[i].status == MR_INVALID);
            mr_store_close(openers[i].store);
        }
        assert_int_equal(won, 1);
        pthread_barrier_destroy(&start);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY(readers_see_whole_batches_while_one_writes),
        ON_EVERY(writers_are_serialised_and_the_largest_version_stays),
        WITH_FOLDER(of_many_that_open_a_path_at_once_one_gets_it),
    };
    return cmocka_run_group_tests_name("store_threads", tests, NULL, NULL);
}
