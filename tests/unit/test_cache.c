/* test_cache.c - what the cache keeps and what it lets go, on one thread: its bound, its resistance
 * to scans beside FIFO and LRU of the same size, fills and what overtakes them.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "core/clock.h"
#include "core/rng.h"
#include "tests/alloc_failure.h"
#include "tests/unit/cache_fixture.h"

static bool holds(mr_cache *cache, mr_bytes key)
{
    mr_cache_entry *entry = mr_cache_get(cache, key);
    mr_cache_release(entry);
    return entry != NULL;
}

static void assert_holds(mr_cache *cache, mr_bytes key, mr_bytes record)
{
    mr_cache_entry *entry = mr_cache_get(cache, key);
    assert_non_null(entry);
    const mr_bytes got = mr_cache_record(entry);
    assert_int_equal(got.len, record.len);
    assert_int_equal(got.data == NULL, record.data == NULL);
    if (record.len)
        assert_memory_equal(got.data, record.data, record.len);
    mr_cache_release(entry);
}

/* ---- keys and records ------------------------------------------------------------------------ */

static void a_record_is_found_under_its_key_and_no_other(void **state)
{
    (void)state;
    static const char binary[] = {'\0', '\xff', 'a', '\0'};
    mr_cache *cache = cache_new(64 * KIB);
    put(cache, text("ab"), text("one"));
    put(cache, text("abc"), text("two"));
    put(cache, (mr_bytes){binary, 4}, (mr_bytes){binary, 3});
    put(cache, (mr_bytes){binary, 1}, (mr_bytes){"", 0}); /* empty, and yet a record */
    put(cache, text("none"), (mr_bytes){NULL, 0});
    assert_holds(cache, text("ab"), text("one"));
    assert_holds(cache, text("abc"), text("two"));
    assert_holds(cache, (mr_bytes){binary, 4}, (mr_bytes){binary, 3});
    assert_holds(cache, (mr_bytes){binary, 1}, (mr_bytes){"", 0});
    assert_holds(cache, text("none"), (mr_bytes){NULL, 0});
    assert_false(holds(cache, text("a")));
    assert_false(holds(cache, (mr_bytes){binary, 2}));
    assert_int_equal(stat_of(cache).entries, 5);
    put(cache, text("ab"), text("three")); /* again: one takes the other's place */
    assert_holds(cache, text("ab"), text("three"));
    assert_int_equal(stat_of(cache).entries, 5);
    mr_cache_free(cache);
    mr_cache_free(NULL);
    mr_cache_release(NULL);
}

static void a_cache_too_small_for_its_tables_is_refused(void **state)
{
    (void)state;
    mr_cache *cache = NULL;
    mr_error err = {0};
    assert_status(mr_cache_new(&cache, 64 * KIB - 1, &err), MR_INVALID, &err);
    assert_contains(err.message, "65535 bytes");
    assert_contains(err.message, "at least 65536");
    assert_null(cache);
}

static void bytes_never_exceed_the_bound(void **state)
{
    static const uint64_t bounds[] = {64 * KIB, 100 * KIB, 1024 * KIB, 20480 * KIB};
    (void)state;
    char *record = calloc(1, 40000);
    assert_non_null(record);
    for (size_t b = 0; b < COUNT(bounds); b++) {
        mr_cache *cache = cache_new(bounds[b]);
        mr_rng rng = mr_rng_seed(b);
        uint64_t most = 0;
        const size_t longest = (size_t)(bounds[b] / 4 < 40000 ? bounds[b] / 4 : 40000);
        for (size_t i = 0; i < 6000; i++) {
            const size_t len =
                mr_rng_below(&rng, 8) ? mr_rng_below(&rng, 1500) : mr_rng_below(&rng, longest);
            put(cache, key_of(mr_rng_below(&rng, 4000)),
                (mr_bytes){mr_rng_below(&rng, 10) ? record : NULL, len});
            mr_cache_release(mr_cache_get(cache, key_of(mr_rng_below(&rng, 100))));
            if (i % 50 == 0)
                mr_cache_changed(cache, key_of(mr_rng_below(&rng, 4000)));
            const mr_cache_stats stats = stat_of(cache);
            if (stats.bytes > bounds[b])
                fail_msg("%llu bytes in use of %llu after %zu records",
                         (unsigned long long)stats.bytes, (unsigned long long)bounds[b], i);
            most = stats.bytes > most ? stats.bytes : most;
        }
        if (bounds[b] < 4096 * KIB) {
            assert_true(stat_of(cache).evictions > 0);
            assert_true(most > bounds[b] / 100 * 70); /* and it is made use of */
        }
        mr_cache_flush(cache);
        assert_int_equal(stat_of(cache).entries, 0);
        assert_true(stat_of(cache).bytes < bounds[b] / 20); /* the tables */
        mr_cache_free(cache);
    }
    free(record);
}

static void a_record_too_large_to_keep_is_delivered(void **state)
{
    (void)state;
    static char large[32 << 10];
    mr_cache *cache = cache_new(64 * KIB);
    mr_cache_fill *fill;
    put(cache, text("k"), text("small"));
    put(cache, text("other"), text("small"));
    assert_int_equal(begin(cache, text("k"), &fill), MR_CACHE_FILL_OURS);
    mr_cache_entry *entry = mr_cache_end(cache, fill, true, (mr_bytes){large, sizeof large});
    assert_int_equal(mr_cache_record(entry).len, sizeof large);
    mr_cache_release(entry);
    assert_false(holds(cache, text("k"))); /* what was there before is known to be old */
    assert_true(holds(cache, text("other")));
    mr_cache_free(cache);
}

static void an_entry_that_was_evicted_lives_until_it_is_released(void **state)
{
    (void)state;
    static const char filler[1000];
    mr_cache *cache = cache_new(64 * KIB);
    put(cache, text("k"), text("a record"));
    mr_cache_entry *pinned = mr_cache_get(cache, text("k"));
    for (size_t i = 0; i < 1000; i++)
        put(cache, key_of(i), (mr_bytes){filler, sizeof filler});
    mr_cache_flush(cache);
    assert_false(holds(cache, text("k")));
    assert_int_equal(mr_cache_record(pinned).len, 8);
    assert_memory_equal(mr_cache_record(pinned).data, "a record", 8);
    mr_cache_release(pinned);
    mr_cache_free(cache);
}

/* ---- what stays ------------------------------------------------------------------------------ */

#define RECORD_BYTES 432

/* A cache of n entries that forgets the one that came first, or was used least lately. */
typedef struct {
    size_t n, used;
    bool lru;
    size_t key[512];
    uint64_t time[512], now;
} plain_cache;

static bool plain_ask(plain_cache *plain, size_t key)
{
    size_t oldest = 0;
    for (size_t i = 0; i < plain->used; i++) {
        if (plain->key[i] == key) {
            if (plain->lru)
                plain->time[i] = ++plain->now;
            return true;
        }
        if (plain->time[i] < plain->time[oldest])
            oldest = i;
    }
    const size_t place = plain->used < plain->n ? plain->used++ : oldest;
    plain->key[place] = key;
    plain->time[place] = ++plain->now;
    return false;
}

static bool ask_sized(mr_cache *cache, size_t key, size_t len)
{
    static const char record[16 << 10];
    if (holds(cache, key_of(key)))
        return true;
    put(cache, key_of(key), (mr_bytes){record, len});
    return false;
}

static bool ask(mr_cache *cache, size_t key)
{
    return ask_sized(cache, key, RECORD_BYTES);
}

static void a_scan_of_ten_times_the_cache_leaves_the_hot_set(void **state)
{
    (void)state;
    mr_cache *cache = cache_new(128 * KIB);
    for (size_t i = 0; i < 1000; i++)
        ask(cache, 100000 + i);
    const size_t room = stat_of(cache).entries; /* of entries of this size */
    assert_true(room > 150 && room < 300);
    mr_cache_flush(cache);

    static plain_cache lru, fifo;
    lru = (plain_cache){.n = room, .lru = true};
    fifo = (plain_cache){.n = room};
    const size_t hot = room / 2;
    for (size_t round = 0; round < 5; round++) {
        for (size_t i = 0; i < hot; i++) {
            ask(cache, i);
            plain_ask(&lru, i);
            plain_ask(&fifo, i);
        }
    }
    for (size_t i = 0; i < 10 * room; i++) {
        ask(cache, 1000 + i);
        plain_ask(&lru, 1000 + i);
        plain_ask(&fifo, 1000 + i);
    }
    size_t hits = 0, lru_hits = 0, fifo_hits = 0;
    for (size_t i = 0; i < hot; i++) {
        hits += ask(cache, i);
        lru_hits += plain_ask(&lru, i);
        fifo_hits += plain_ask(&fifo, i);
    }
    if (hits < hot * 9 / 10)
        fail_msg("%zu of %zu hot keys are there after the scan, expected nine of ten", hits, hot);
    assert_int_equal(lru_hits, 0);
    assert_int_equal(fifo_hits, 0);
    mr_cache_free(cache);
}

/* Every third request is one of the hot set; the rest are a walk that never ends. */
static void while_a_scan_goes_on_the_hot_set_stays(void **state)
{
    (void)state;
    mr_cache *cache = cache_new(128 * KIB);
    for (size_t i = 0; i < 1000; i++)
        ask(cache, 100000 + i);
    const size_t room = stat_of(cache).entries;
    mr_cache_flush(cache);
    static plain_cache lru;
    lru = (plain_cache){.n = room, .lru = true};
    mr_rng rng = mr_rng_seed(4);
    const size_t hot = room / 2, least = 20 * room;
    size_t hits = 0, lru_hits = 0, asked = 0;
    for (size_t i = 0; i < 60 * room; i++) {
        const bool is_hot = i % 3 == 0;
        const size_t key = is_hot ? mr_rng_below(&rng, hot) : 1000 + i;
        const bool hit = ask(cache, key), lru_hit = plain_ask(&lru, key);
        if (!is_hot || i < least) /* the first part warms both */
            continue;
        asked++;
        hits += hit;
        lru_hits += lru_hit;
    }
    if (hits * 100 < asked * 98 || lru_hits * 100 > asked * 80)
        fail_msg("of %zu requests for hot keys %zu were hits, of a LRU %zu; expected at least 98 "
                 "%% and at most 80 %%",
                 asked, hits, lru_hits);
    mr_cache_free(cache);
}

static void a_key_that_comes_back_soon_is_taken_in_for_good(void **state)
{
    /* Small records fill the ghosts' table, large ones leave most of it empty: how long a key is
     * remembered is the queue's affair, not the table's. */
    static const struct {
        uint64_t bytes;
        size_t record;
    } row[] = {{128 * KIB, RECORD_BYTES}, {1024 * KIB, 12 * 1024}};
    (void)state;
    for (size_t r = 0; r < COUNT(row); r++) {
        mr_cache *cache = cache_new(row[r].bytes);
        const size_t early = 1, late = 2;
        size_t next = 1000;
        for (size_t i = 0; i < 1000; i++)
            ask_sized(cache, next++, row[r].record);
        const size_t room = stat_of(cache).entries;
        ask_sized(cache, early, row[r].record);
        ask_sized(cache, late, row[r].record);
        for (size_t i = 0; i < room + 4; i++)
            ask_sized(cache, next++, row[r].record); /* nobody asks for them again: they leave */
        assert_false(ask_sized(cache, early, row[r].record)); /* remembered: enters main */
        for (size_t i = 0; i < 3 * room; i++)
            ask_sized(cache, next++, row[r].record);
        assert_false(ask_sized(cache, late, row[r].record)); /* forgotten: one like any other */
        for (size_t i = 0; i < room; i++)
            ask_sized(cache, next++, row[r].record);
        assert_true(holds(cache, key_of(early)));
        assert_false(holds(cache, key_of(late)));
        mr_cache_free(cache);
    }
}

/* ---- fills ----------------------------------------------------------------------------------- */

static void a_fill_under_way_is_waited_for_and_not_begun_again(void **state)
{
    (void)state;
    mr_cache *cache = cache_new(64 * KIB);
    mr_cache_fill *first, *second;
    const int64_t before = mr_clock_monotonic_us();
    assert_int_equal(begin(cache, text("k"), &first), MR_CACHE_FILL_OURS);
    assert_int_equal(begin(cache, text("k"), &second), MR_CACHE_FILL_OTHER);
    mr_cache_entry *ended = mr_cache_end(cache, first, true, text("value"));
    bool came = false;
    mr_cache_entry *waited = mr_cache_wait(cache, second, 0, &came);
    assert_true(came);
    assert_ptr_equal(waited, ended);
    assert_true(mr_cache_stored_us(ended) >= before);
    assert_true(mr_cache_stored_us(ended) <= mr_clock_monotonic_us());
    mr_cache_release(waited);
    mr_cache_release(ended);
    assert_holds(cache, text("k"), text("value"));
    mr_cache_free(cache);
}

static void what_came_between_look_up_and_fill_is_not_asked_for(void **state)
{
    (void)state;
    mr_cache *cache = cache_new(64 * KIB);
    mr_cache_fill *fill;
    mr_cache_entry *came, *old;
    put(cache, text("k"), text("one")); /* by another thread, after our look-up found nothing */
    assert_int_equal(mr_cache_begin(cache, text("k"), NULL, &fill, &came), MR_CACHE_FILL_CAME);
    assert_null(fill);
    assert_memory_equal(mr_cache_record(came).data, "one", 3);
    old = came;
    put(cache, text("k"), text("two"));
    assert_int_equal(mr_cache_begin(cache, text("k"), old, &fill, &came), MR_CACHE_FILL_CAME);
    assert_memory_equal(mr_cache_record(came).data, "two", 3);
    mr_cache_release(old);
    mr_cache_release(came);
    assert_int_equal(stat_of(cache).entries, 1);
    mr_cache_free(cache);
}

static void a_fill_that_got_no_answer_tells_who_waits_and_keeps_nothing(void **state)
{
    (void)state;
    mr_cache *cache = cache_new(64 * KIB);
    mr_cache_fill *first, *second;
    put(cache, text("k"), text("old"));
    assert_int_equal(begin(cache, text("k"), &first), MR_CACHE_FILL_OURS);
    assert_int_equal(begin(cache, text("k"), &second), MR_CACHE_FILL_OTHER);
    assert_null(mr_cache_end(cache, first, false, (mr_bytes){NULL, 0}));
    bool came = true;
    assert_null(mr_cache_wait(cache, second, INT64_MAX, &came));
    assert_false(came);
    assert_holds(cache, text("k"), text("old"));
    put(cache, text("k"), text("new")); /* ours again */
    assert_holds(cache, text("k"), text("new"));
    mr_cache_free(cache);
}

static void who_waits_gives_up_at_the_deadline(void **state)
{
    (void)state;
    mr_cache *cache = cache_new(64 * KIB);
    mr_cache_fill *first, *second, *third;
    assert_int_equal(begin(cache, text("k"), &first), MR_CACHE_FILL_OURS);
    assert_int_equal(begin(cache, text("k"), &second), MR_CACHE_FILL_OTHER);
    assert_int_equal(begin(cache, text("k"), &third), MR_CACHE_FILL_OTHER);
    bool came = true;
    const int64_t before = mr_clock_monotonic_us();
    assert_null(mr_cache_wait(cache, second, before + 30000, &came));
    assert_false(came);
    assert_true(mr_clock_monotonic_us() >= before + 30000);
    came = true;
    assert_null(mr_cache_wait(cache, third, 0, &came));
    assert_false(came);
    mr_cache_release(mr_cache_end(cache, first, true, text("late")));
    assert_holds(cache, text("k"), text("late"));
    mr_cache_free(cache);
}

static void a_change_that_overtakes_its_answer_keeps_nothing(void **state)
{
    (void)state;
    for (int flush = 0; flush < 2; flush++) {
        mr_cache *cache = cache_new(64 * KIB);
        mr_cache_fill *first, *joined, *second;
        assert_int_equal(begin(cache, text("k"), &first), MR_CACHE_FILL_OURS);
        assert_int_equal(begin(cache, text("k"), &joined), MR_CACHE_FILL_OTHER);
        if (flush)
            mr_cache_flush(cache);
        else
            mr_cache_changed(cache, text("k"));
        /* Who comes after the change does not join what may be from before it. */
        assert_int_equal(begin(cache, text("k"), &second), MR_CACHE_FILL_OURS);
        mr_cache_release(mr_cache_end(cache, second, true, text("new")));
        mr_cache_entry *old = mr_cache_end(cache, first, true, text("old"));
        bool came = false;
        mr_cache_entry *waited = mr_cache_wait(cache, joined, 0, &came);
        assert_true(came);
        assert_ptr_equal(waited, old);
        assert_memory_equal(mr_cache_record(old).data, "old", 3);
        mr_cache_release(waited);
        mr_cache_release(old);
        assert_holds(cache, text("k"), text("new"));
        assert_int_equal(stat_of(cache).invalidations, !flush);
        assert_int_equal(stat_of(cache).flushes, flush);
        mr_cache_free(cache);
    }
}

static void eras_tell_what_began_before(void **state)
{
    (void)state;
    mr_cache *cache = cache_new(64 * KIB);
    mr_cache_fill *fill;
    put(cache, text("a"), text("1"));
    assert_int_equal(begin(cache, text("b"), &fill), MR_CACHE_FILL_OURS);
    const uint64_t era = mr_cache_next_era(cache);
    mr_cache_release(mr_cache_end(cache, fill, true, text("2")));
    put(cache, text("c"), text("3"));
    mr_cache_entry *a = mr_cache_get(cache, text("a")), *b = mr_cache_get(cache, text("b")),
                   *c = mr_cache_get(cache, text("c"));
    assert_true(mr_cache_era_of(a) > 0);
    assert_true(mr_cache_era_of(a) < era);
    assert_true(mr_cache_era_of(b) < era);
    assert_true(mr_cache_era_of(c) == era);
    assert_true(mr_cache_hash_of(a) != mr_cache_hash_of(b));
    mr_cache_release(a);
    mr_cache_release(b);
    mr_cache_release(c);
    mr_cache_free(cache);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void without_memory_nothing_is_kept_and_nothing_is_lost(void **state)
{
    (void)state;
    long k = 1, steps = 0;
    for (bool done = false; !done; k++) {
        mr_cache *cache = NULL;
        mr_error err = {0};
        alloc_fail_at(k);
        const mr_status status = mr_cache_new(&cache, 10 << 20, &err);
        done = !alloc_failed();
        assert_status(status, done ? MR_OK : MR_NO_MEMORY, &err);
        assert_int_equal(cache == NULL, !done);
        mr_cache_free(cache);
    }
    assert_true(k > 5);
    for (bool done = false; !done; steps++) {
        mr_cache *cache = cache_new(64 * KIB);
        mr_cache_fill *ours, *other;
        bool came = false;
        alloc_fail_at(steps + 1);
        assert_int_equal(begin(cache, text("k"), &ours), MR_CACHE_FILL_OURS);
        const mr_cache_fill_kind kind = begin(cache, text("k"), &other);
        assert_true(kind == MR_CACHE_FILL_OTHER || ours == NULL);
        mr_cache_entry *entry = mr_cache_end(cache, ours, true, text("value"));
        mr_cache_entry *second = kind == MR_CACHE_FILL_OTHER
                                     ? mr_cache_wait(cache, other, 0, &came)
                                     : mr_cache_end(cache, other, true, text("value"));
        assert_true(kind == MR_CACHE_FILL_OURS || came == (entry != NULL));
        done = !alloc_failed();
        assert_true(!done || (entry && second == entry));
        if (second)
            assert_memory_equal(mr_cache_record(second).data, "value", 5);
        mr_cache_release(entry);
        mr_cache_release(second);
        mr_cache_free(cache);
    }
    assert_int_equal(steps, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_is_found_under_its_key_and_no_other),
        cmocka_unit_test(a_cache_too_small_for_its_tables_is_refused),
        cmocka_unit_test(bytes_never_exceed_the_bound),
        cmocka_unit_test(a_record_too_large_to_keep_is_delivered),
        cmocka_unit_test(an_entry_that_was_evicted_lives_until_it_is_released),
        cmocka_unit_test(a_scan_of_ten_times_the_cache_leaves_the_hot_set),
        cmocka_unit_test(while_a_scan_goes_on_the_hot_set_stays),
        cmocka_unit_test(a_key_that_comes_back_soon_is_taken_in_for_good),
        cmocka_unit_test(a_fill_under_way_is_waited_for_and_not_begun_again),
        cmocka_unit_test(what_came_between_look_up_and_fill_is_not_asked_for),
        cmocka_unit_test(a_fill_that_got_no_answer_tells_who_waits_and_keeps_nothing),
        cmocka_unit_test(who_waits_gives_up_at_the_deadline),
        cmocka_unit_test(a_change_that_overtakes_its_answer_keeps_nothing),
        cmocka_unit_test(eras_tell_what_began_before),
        cmocka_unit_test(without_memory_nothing_is_kept_and_nothing_is_lost),
    };
    return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
