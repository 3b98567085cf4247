/* test_cache_threads.c - many threads and one cache: single flight, deadlines, and that nobody is
 * given what is older than the last change that everybody was told of.
 *
 * Threads do not assert (cmocka would jump off their stack); they count what is wrong.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/clock.h"
#include "core/rng.h"
#include "featurestore/cache.h"
#include "tests/unit/scripted_store.h"

/* ---- single flight --------------------------------------------------------------------------- */

enum { ASKERS = 16 };

typedef struct {
    scripted *inner;
    const char *letters;
    mr_status status;
    char got[512];
    int64_t took_us;
} asker;

static void *ask(void *context)
{
    asker *a = context;
    const int64_t before = mr_clock_monotonic_us();
    a->status = scripted_get(a->inner, a->letters, a->got, NULL);
    a->took_us = mr_clock_monotonic_us() - before;
    return NULL;
}

static void hold(scripted *inner, bool hold)
{
    pthread_mutex_lock(&inner->lock);
    inner->hold = hold;
    pthread_cond_broadcast(&inner->moved);
    pthread_mutex_unlock(&inner->lock);
}

static void wait_until_held(scripted *inner, unsigned n)
{
    pthread_mutex_lock(&inner->lock);
    while (inner->held < n)
        pthread_cond_wait(&inner->moved, &inner->lock);
    pthread_mutex_unlock(&inner->lock);
}

/* A store whose fetches wait for each other as long as this test may be slow. */
static int patient_setup(void **state)
{
    scripted *inner;
    const mr_store_options options = {.cache_bytes = 1 << 20, .fetch_timeout_ms = 20000};
    mr_error err = {0};
    scripted_setup(state);
    inner = *state;
    mr_store_cached_ops.close(inner->cached);
    inner->closed = 0;
    assert_status(mr_store_cached_open(&inner->cached, &scripted_ops, inner, &options, &err), MR_OK,
                  &err);
    return 0;
}

static void sixteen_threads_that_miss_one_key_ask_once(void **state)
{
    scripted *inner = *state;
    pthread_t threads[ASKERS];
    asker askers[ASKERS];
    inner->version['a'] = 7;
    hold(inner, true);
    for (size_t i = 0; i < ASKERS; i++) {
        askers[i] = (asker){.inner = inner, .letters = "a"};
        assert_int_equal(pthread_create(&threads[i], NULL, ask, &askers[i]), 0);
    }
    wait_until_held(inner, 1);
    usleep(20000); /* the others come and find it under way; one that is later finds it held */
    hold(inner, false);
    for (size_t i = 0; i < ASKERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(askers[i].status, MR_OK);
        assert_string_equal(askers[i].got, "a7");
    }
    assert_int_equal(inner->calls, 1);
    assert_string_equal(inner->asked, "a");
}

/* Each has asked for what the other wants: both ask for their own before they wait. */
static void fetches_that_want_of_each_other_do_not_stop(void **state)
{
    static const char *const letters[] = {"abcdefgh", "hgfedcba", "efghabcd", "acegbdfh"};
    scripted *inner = *state;
    for (const char *l = letters[0]; *l; l++)
        inner->version[*l & 127] = 1;
    for (int round = 0; round < 200; round++) {
        pthread_t threads[COUNT(letters)];
        asker askers[COUNT(letters)];
        for (size_t i = 0; i < COUNT(letters); i++) {
            askers[i] = (asker){.inner = inner, .letters = letters[i]};
            assert_int_equal(pthread_create(&threads[i], NULL, ask, &askers[i]), 0);
        }
        for (size_t i = 0; i < COUNT(letters); i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(askers[i].status, MR_OK);
            for (size_t c = 0; letters[i][c]; c++) {
                assert_int_equal(askers[i].got[3 * c], letters[i][c]);
                assert_int_equal(askers[i].got[3 * c + 1], '1');
            }
            assert_true(askers[i].took_us < 10000000); /* not by running into the deadline */
        }
        for (const char *l = letters[0]; *l; l++)
            scripted_tell(inner, *l);
        pthread_mutex_lock(&inner->lock);
        inner->asked[0] = '\0';
        pthread_mutex_unlock(&inner->lock);
    }
}

static void who_waits_for_another_fetch_waits_no_longer_than_its_timeout(void **state)
{
    scripted *inner = *state;
    pthread_t thread;
    asker first = {.inner = inner, .letters = "a"};
    char got[512];
    mr_error err = {0};
    inner->version['a'] = inner->version['b'] = 1;
    assert_status(scripted_get(inner, "b", got, &err), MR_OK, &err);
    hold(inner, true);
    assert_int_equal(pthread_create(&thread, NULL, ask, &first), 0);
    wait_until_held(inner, 1);
    const int64_t before = mr_clock_monotonic_us();
    const mr_status status = scripted_get(inner, "ba", got, &err); /* asks for nothing itself */
    const int64_t took = mr_clock_monotonic_us() - before;
    hold(inner, false);
    pthread_join(thread, NULL);
    assert_status(status, MR_UNAVAILABLE, &err);
    assert_string_equal(got, "b1 ?");
    assert_contains(err.message, "1 of 2 records");
    assert_contains(err.message, "100 ms");
    assert_true(took >= 100000);
    assert_int_equal(first.status, MR_OK);
    assert_string_equal(first.got, "a1");
}

/* ---- a storm on the cache -------------------------------------------------------------------- */

enum { KEYS = 64, WORKERS = 6, STEPS = 15000 };

typedef struct {
    mr_cache *cache;
    _Atomic uint64_t now[KEYS];  /* versions in the store */
    _Atomic uint64_t told[KEYS]; /* that the cache was told of */
    atomic_int older;            /* entries from before a change that was told */
    atomic_int damaged;
    atomic_int hits;
    atomic_int seed;
} storm;

/* Bytes that say which key and version they are. */
static mr_bytes storm_record(uint64_t key, uint64_t version, uint64_t out[64])
{
    for (size_t i = 0; i < 64; i++)
        out[i] = key << 32 | version;
    return (mr_bytes){out, (1 + key) * sizeof *out};
}

static void storm_look(storm *s, const mr_cache_entry *entry, uint64_t key, uint64_t least)
{
    const mr_bytes record = mr_cache_record(entry);
    uint64_t want[64], first;
    if (record.len < sizeof first) {
        atomic_fetch_add(&s->damaged, 1);
        return;
    }
    memcpy(&first, record.data, sizeof first);
    const mr_bytes whole = storm_record(key, first & 0xffffffff, want);
    atomic_fetch_add(&s->damaged,
                     record.len != whole.len || memcmp(record.data, want, whole.len) != 0);
    atomic_fetch_add(&s->older, (first & 0xffffffff) < least);
    atomic_fetch_add(&s->hits, 1);
}

static void *weather(void *context)
{
    storm *s = context;
    mr_rng rng = mr_rng_seed((uint64_t)atomic_fetch_add(&s->seed, 1));
    for (int step = 0; step < STEPS; step++) {
        const uint64_t key = mr_rng_below(&rng, KEYS);
        const mr_bytes name = {&key, sizeof key};
        const uint64_t kind = mr_rng_below(&rng, 64);
        if (kind < 3) {
            const uint64_t version = atomic_fetch_add(&s->now[key], 1) + 1;
            mr_cache_changed(s->cache, name);
            uint64_t told = atomic_load(&s->told[key]);
            while (told < version && !atomic_compare_exchange_weak(&s->told[key], &told, version))
                ;
            continue;
        }
        if (kind == 3 && step % 8 == 0) {
            mr_cache_flush(s->cache);
            continue;
        }
        const uint64_t least = atomic_load(&s->told[key]);
        mr_cache_entry *entry = mr_cache_get(s->cache, name);
        if (!entry) {
            mr_cache_fill *fill;
            bool came = true;
            const mr_cache_fill_kind begun = mr_cache_begin(s->cache, name, NULL, &fill, &entry);
            if (begun == MR_CACHE_FILL_OURS) {
                uint64_t bytes[64];
                const uint64_t version = atomic_load(&s->now[key]);
                if (kind == 4)
                    sched_yield(); /* changes overtake it */
                entry = mr_cache_end(s->cache, fill, true, storm_record(key, version, bytes));
            } else if (begun == MR_CACHE_FILL_OTHER) {
                entry = mr_cache_wait(s->cache, fill, mr_clock_monotonic_us() + 10000000, &came);
                atomic_fetch_add(&s->damaged, !came);
            }
        }
        if (entry)
            storm_look(s, entry, key, least);
        mr_cache_release(entry);
    }
    return NULL;
}

static void nobody_is_given_what_is_older_than_a_change_that_was_told(void **state)
{
    static storm s;
    pthread_t threads[WORKERS];
    mr_error err = {0};
    mr_cache_stats stats;
    (void)state;
    memset(&s, 0, sizeof s);
    assert_status(mr_cache_new(&s.cache, 64 << 10, &err), MR_OK, &err);
    for (size_t i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, weather, &s), 0);
    for (size_t i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    mr_cache_stat(s.cache, &stats);
    assert_int_equal(atomic_load(&s.older), 0);
    assert_int_equal(atomic_load(&s.damaged), 0);
    assert_true(atomic_load(&s.hits) > WORKERS * STEPS / 2);
    assert_true(stats.invalidations > 100);
    assert_true(stats.flushes > 10);
    assert_true(stats.bytes <= 64 << 10);
    mr_cache_free(s.cache);
}

/* ---- a storm on the store -------------------------------------------------------------------- */

typedef struct {
    scripted *inner;
    char own;
    int wrong;
} writer;

/* Puts records of its own and fetches them among everybody's: what it put, it gets. */
static void *write_and_read(void *context)
{
    writer *w = context;
    for (unsigned version = 1; version <= 400; version++) {
        const char letters[] = {'a', w->own, 'b', 'c', 'd', w->own, '\0'};
        char got[512], want[16];
        mr_store_key key = scripted_key();
        mr_store_put_result result = {0};
        const mr_store_write write = {.id = {&w->own, 1}, .version = version};
        w->wrong += mr_store_cached_ops.put(w->inner->cached, &key, &write, 1, NULL, &result,
                                            NULL) != MR_OK;
        w->wrong += scripted_get(w->inner, letters, got, NULL) != MR_OK;
        const int len = snprintf(want, sizeof want, " %c%u ", w->own, version);
        const char *second = strstr(got, want);
        w->wrong += !second;
        w->wrong += strncmp(got + strlen(got) - (size_t)len + 1, want, (size_t)len - 1) != 0;
    }
    return NULL;
}

static void a_thread_gets_what_it_put(void **state)
{
    enum { WRITERS = 4 };
    scripted *inner = *state;
    pthread_t threads[WRITERS];
    writer writers[WRITERS];
    inner->watcher->tracking(inner->watcher->context, true);
    for (size_t i = 0; i < WRITERS; i++) {
        writers[i] = (writer){.inner = inner, .own = (char)('a' + (int)i)};
        assert_int_equal(pthread_create(&threads[i], NULL, write_and_read, &writers[i]), 0);
    }
    for (int i = 0; i < 200; i++) {
        inner->watcher->flush(inner->watcher->context);
        scripted_tell(inner, (char)('a' + i % 5));
        (void)scripted_health_of(inner);
        sched_yield();
    }
    for (size_t i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(writers[i].wrong, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sixteen_threads_that_miss_one_key_ask_once, patient_setup,
                                        scripted_teardown),
        cmocka_unit_test_setup_teardown(fetches_that_want_of_each_other_do_not_stop, patient_setup,
                                        scripted_teardown),
        SCRIPTED(who_waits_for_another_fetch_waits_no_longer_than_its_timeout),
        cmocka_unit_test(nobody_is_given_what_is_older_than_a_change_that_was_told),
        cmocka_unit_test_setup_teardown(a_thread_gets_what_it_put, patient_setup,
                                        scripted_teardown),
    };
    return cmocka_run_group_tests_name("cache_threads", tests, NULL, NULL);
}
