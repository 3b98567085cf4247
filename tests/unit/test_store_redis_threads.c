/* test_store_redis_threads.c - many threads on one store while its connections are cut.
 *
 * Threads do not assert (cmocka would jump off their stack); they count what is wrong.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/redis_fixture.h"

enum { IDS = 40, READERS = 5, WRITERS = 2 };

typedef struct {
    mr_store *store;
    char names[IDS][16];
    mr_str ids[IDS];
    atomic_bool stop;
    atomic_int fetched, put, looked, wrong, backwards, unexpected;
    atomic_uint_least64_t version; /* the last that was handed to a writer */
} shared;

static bool is_absence(mr_status status)
{
    return status == MR_UNAVAILABLE || status == MR_TIMEOUT;
}

typedef struct {
    seen_record seen[IDS];
    size_t next, visits; /* the smallest index that may come */
    bool damaged, disorder;
} some_seen;

/* A fetch that fails may have visited some, in order. */
static void see_some(void *context, size_t index, mr_bytes record)
{
    some_seen *some = context;
    if (index < some->next || index >= IDS) {
        some->disorder = true;
        return;
    }
    some->next = index + 1;
    some->visits++;
    some->seen[index] = see(record, &some->damaged);
}

static void *fetch_until_stopped(void *context)
{
    shared *s = context;
    uint64_t seen_before[IDS] = {0};
    while (!atomic_load(&s->stop)) {
        some_seen some = {.next = 0};
        mr_status status =
            mr_store_fetch(s->store, MR_ENTITY_ITEM, SPACE, s->ids, IDS, see_some, &some, NULL);
        atomic_fetch_add(&s->unexpected, status != MR_OK && !is_absence(status));
        bool wrong = some.damaged || some.disorder || (status == MR_OK && some.visits != IDS);
        for (size_t i = 0; i < IDS; i++) {
            const seen_record *seen = &some.seen[i];
            if (!seen->found)
                continue;
            /* A record says whose it is, and no id goes back in time. */
            wrong |= seen->mark != (float)i;
            atomic_fetch_add(&s->backwards, seen->version < seen_before[i]);
            seen_before[i] = seen->version;
        }
        atomic_fetch_add(&s->wrong, wrong);
        atomic_fetch_add(&s->fetched, status == MR_OK);
    }
    return NULL;
}

static void *put_until_stopped(void *context)
{
    shared *s = context;
    while (!atomic_load(&s->stop)) {
        mr_store_put_item items[IDS];
        uint64_t version = atomic_fetch_add(&s->version, 1) + 1;
        for (size_t i = 0; i < IDS; i++)
            items[i] = (mr_store_put_item){
                s->ids[i], record_new(SPACE, version, (float)i, 1 + (version + i) % 500)};
        mr_status status = mr_store_put_with_note(s->store, MR_ENTITY_ITEM, SPACE, items, IDS,
                                                  "round", mr_str_of("r"), NULL, NULL);
        atomic_fetch_add(&s->unexpected, status != MR_OK && !is_absence(status));
        atomic_fetch_add(&s->put, status == MR_OK);
        for (size_t i = 0; i < IDS; i++)
            record_free(items[i].record);
    }
    return NULL;
}

static bool count_visit(void *context, mr_str id, mr_bytes record)
{
    (void)id;
    (void)record;
    ++*(size_t *)context;
    return true;
}

static void *look_around(void *context)
{
    shared *s = context;
    while (!atomic_load(&s->stop)) {
        mr_store_stats stats;
        mr_store_health health;
        uint64_t space;
        size_t n = 0, walked = 0;
        mr_store_health_of(s->store, &health);
        bool fine = true;
        mr_status status =
            mr_store_walk(s->store, MR_ENTITY_ITEM, SPACE, count_visit, &walked, NULL);
        fine &= status == MR_OK ? walked == IDS : is_absence(status);
        status = mr_store_stat(s->store, &stats, NULL);
        fine &= status == MR_OK ? stats.records == IDS : is_absence(status);
        status = mr_store_spaces(s->store, MR_ENTITY_ITEM, &space, 1, &n, NULL);
        fine &= status == MR_OK ? n == 1 && space == SPACE : is_absence(status);
        atomic_fetch_add(&s->wrong, !fine);
        atomic_fetch_add(&s->looked, 1);
    }
    return NULL;
}

static void run_all(uint64_t cache_bytes, bool cut)
{
    static shared s;
    pthread_t threads[READERS + WRITERS + 1];
    redis_server *server = redis_empty();
    mr_store_options options = redis_options();
    memset(&s, 0, sizeof s);
    options.cache_bytes = cache_bytes;
    s.store = store_open(redis_server_url(server), &options);
    for (size_t i = 0; i < IDS; i++) {
        snprintf(s.names[i], sizeof s.names[i], "id%zu", i);
        s.ids[i] = mr_str_of(s.names[i]);
        put_ok(s.store, s.names[i], 0, (float)i);
    }
    for (size_t i = 0; i < READERS + WRITERS + 1; i++)
        assert_int_equal(pthread_create(&threads[i], NULL,
                                        i < READERS             ? fetch_until_stopped
                                        : i < READERS + WRITERS ? put_until_stopped
                                                                : look_around,
                                        &s),
                         0);
    for (int round = 0; round < 12; round++) {
        int fetched = atomic_load(&s.fetched), put = atomic_load(&s.put);
        int looked = atomic_load(&s.looked);
        WAIT_FOR(atomic_load(&s.fetched) > fetched + 20 && atomic_load(&s.put) > put + 2 &&
                     atomic_load(&s.looked) > looked,
                 20000);
        if (cut)
            assert_true(redis_server_run(server, round % 2 ? "CLIENT KILL TYPE normal SKIPME yes"
                                                           : "CLIENT KILL TYPE pubsub"));
    }
    atomic_store(&s.stop, true);
    for (size_t i = 0; i < READERS + WRITERS + 1; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&s.unexpected), 0);
    assert_int_equal(atomic_load(&s.wrong), 0);
    assert_int_equal(atomic_load(&s.backwards), 0);
    WAIT_FOR(health_of(s.store).connected, 3000);
    mr_store_close(s.store);
}

static void all_calls_run_at_once(void **state)
{
    (void)state;
    run_all(0, false);
}

static void all_calls_run_at_once_while_connections_are_cut(void **state)
{
    (void)state;
    run_all(0, true);
}

static void a_cached_store_never_goes_back_in_time(void **state)
{
    (void)state;
    run_all(1 << 20, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_calls_run_at_once),
        cmocka_unit_test(all_calls_run_at_once_while_connections_are_cut),
        cmocka_unit_test(a_cached_store_never_goes_back_in_time),
    };
    if (redis_server_missing())
        return redis_server_skip();
    return cmocka_run_group_tests_name("store_redis_threads", tests, NULL, NULL);
}
