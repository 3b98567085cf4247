/* test_store_cached.c - what a cache before a store asks for, what it believes and for how long.
 *
 * The clock is ours (the linker's --wrap): ages pass without waiting.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/alloc_failure.h"
#include "tests/unit/scripted_store.h"

static int64_t clock_offset_us;

int64_t __real_mr_clock_monotonic_us(void);
int64_t __wrap_mr_clock_monotonic_us(void);

int64_t __wrap_mr_clock_monotonic_us(void)
{
    return __real_mr_clock_monotonic_us() + clock_offset_us;
}

static void pass_ms(int64_t ms)
{
    clock_offset_us += ms * 1000;
}

/* The defaults of store.h. */
#define SOFT_MS     60000
#define HARD_MS     3600000
#define NEGATIVE_MS 5000
#define WRITE_MS    5000

static void put_all(scripted *inner, const char *letters, unsigned version)
{
    for (; *letters; letters++)
        inner->version[*letters & 127] = version;
}

/* ---- what reaches the store ------------------------------------------------------------------ */

static void all_misses_of_a_fetch_are_asked_for_at_once(void **state)
{
    scripted *inner = *state;
    put_all(inner, "abc", 1);
    assert_get(inner, "abc", "a1 b1 c1", "abc", MR_OK);
    assert_int_equal(inner->calls, 1);
}

static void what_is_held_is_not_asked_for_again(void **state)
{
    scripted *inner = *state;
    put_all(inner, "abcd", 1);
    assert_get(inner, "ac", "a1 c1", "ac", MR_OK);
    assert_get(inner, "abcd", "a1 b1 c1 d1", "bd", MR_OK);
    assert_get(inner, "dcba", "d1 c1 b1 a1", "", MR_OK);
    assert_int_equal(inner->calls, 2);
}

static void an_id_that_comes_twice_is_asked_for_once(void **state)
{
    scripted *inner = *state;
    put_all(inner, "ab", 2);
    assert_get(inner, "abaxa", "a2 b2 a2 - a2", "abx", MR_OK);
    assert_get(inner, "aa", "a2 a2", "", MR_OK);
    inner->fail = MR_UNAVAILABLE;
    assert_get(inner, "ccac", "? ? a2 ?", "c", MR_UNAVAILABLE);
}

static void more_ids_than_fit_on_the_stack_are_as_few(void **state)
{
    enum { N = 1000 };
    scripted *inner = *state;
    mr_store_key key = scripted_key();
    mr_str ids[N];
    answers a = {.n = 0};
    mr_error err = {0};
    put_all(inner, "abc", 1);
    for (size_t i = 0; i < N; i++)
        ids[i] = mr_str_of(i % 3 == 0 ? "a" : i % 3 == 1 ? "b" : "c");
    assert_status(mr_store_cached_ops.fetch(inner->cached, &key, ids, 60, note_answer, &a, &err),
                  MR_OK, &err);
    assert_int_equal(a.n, 60);
    mr_store_health before = scripted_health_of(inner);
    a = (answers){.n = 0};
    assert_status(mr_store_cached_ops.fetch(inner->cached, &key, ids, N, note_answer, &a, &err),
                  MR_OK, &err);
    assert_int_equal(a.n, N);
    assert_int_equal(a.last, N - 1);
    assert_int_equal(scripted_health_of(inner).hits_cache - before.hits_cache, N);
    assert_int_equal(inner->calls, 1);
}

static void an_id_that_no_key_can_have_is_missing_and_not_asked_for(void **state)
{
    static char long_id[MR_STORE_MAX_ID_BYTES + 1];
    scripted *inner = *state;
    mr_store_key key = scripted_key();
    memset(long_id, 'x', sizeof long_id);
    const mr_str ids[] = {{"", 0}, {NULL, 0}, {"a", 1}, {long_id, sizeof long_id}};
    answers a = {.n = 0};
    mr_error err = {0};
    put_all(inner, "a", 1);
    inner->fail = MR_OK;
    assert_status(mr_store_cached_ops.fetch(inner->cached, &key, ids, 4, note_answer, &a, &err),
                  MR_OK, &err);
    assert_int_equal(a.n, 4);
    assert_string_equal(a.text[0], "-");
    assert_string_equal(a.text[1], "-");
    assert_string_equal(a.text[2], "a1");
    assert_string_equal(a.text[3], "-");
    assert_string_equal(inner->asked, "a");
}

/* ---- ages ------------------------------------------------------------------------------------ */

static void none_is_believed_for_its_own_short_age(void **state)
{
    scripted *inner = *state;
    assert_get(inner, "a", "-", "a", MR_OK);
    put_all(inner, "a", 1);
    assert_get(inner, "a", "-", "", MR_OK);
    pass_ms(NEGATIVE_MS - 100);
    assert_get(inner, "a", "-", "", MR_OK);
    pass_ms(200);
    assert_get(inner, "a", "a1", "a", MR_OK);
    assert_get(inner, "b", "-", "b", MR_OK);
    pass_ms(NEGATIVE_MS + 100);
    inner->fail = MR_UNAVAILABLE; /* it is not believed longer because nobody can be asked */
    assert_get(inner, "b", "?", "b", MR_UNAVAILABLE);
}

static void past_the_soft_age_a_record_is_asked_for_again(void **state)
{
    scripted *inner = *state;
    put_all(inner, "a", 1);
    assert_get(inner, "a", "a1", "a", MR_OK);
    put_all(inner, "a", 2);
    pass_ms(SOFT_MS * 89 / 100);
    assert_get(inner, "a", "a1", "", MR_OK);
    pass_ms(SOFT_MS * 22 / 100);
    assert_get(inner, "a", "a2", "a", MR_OK);
    assert_get(inner, "a", "a2", "", MR_OK);
    pass_ms(SOFT_MS * 111 / 100);
    inner->version['a'] = 0; /* it was taken away for good */
    assert_get(inner, "a", "-", "a", MR_OK);
    assert_get(inner, "a", "-", "", MR_OK);
}

static void records_that_came_together_do_not_grow_old_together(void **state)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const size_t n = sizeof letters - 1;
    scripted *inner = *state;
    char got[512];
    mr_error err = {0};
    size_t asked[4];
    put_all(inner, letters, 1);
    assert_status(scripted_get(inner, letters, got, &err), MR_OK, &err);
    static const int percent[] = {89, 97, 105, 111}; /* of the soft age, since all came */
    for (size_t i = 0; i < COUNT(percent); i++) {
        pass_ms(SOFT_MS * (percent[i] - (i ? percent[i - 1] : 0)) / 100);
        inner->asked[0] = '\0';
        assert_status(scripted_get(inner, letters, got, &err), MR_OK, &err);
        asked[i] = strlen(inner->asked);
    }
    assert_int_equal(asked[0], 0);
    for (size_t i = 1; i < COUNT(percent); i++) {
        if (asked[i] < n / 8 || asked[i] > n / 8 * 5)
            fail_msg("%zu of %zu records grew old before %d %% of the age", asked[i], n,
                     percent[i]);
    }
    assert_int_equal(asked[1] + asked[2] + asked[3], n);
}

static void an_old_record_serves_while_the_store_is_away(void **state)
{
    scripted *inner = *state;
    put_all(inner, "ab", 1);
    assert_get(inner, "ab", "a1 b1", "ab", MR_OK);
    inner->fail = MR_UNAVAILABLE;
    pass_ms(SOFT_MS * 2);
    assert_get(inner, "ab", "a1 b1", "ab", MR_OK);
    assert_int_equal(scripted_health_of(inner).hits_stale, 2);
    assert_get(inner, "acb", "a1 ? b1", "acb", MR_UNAVAILABLE);
    inner->fail = MR_OK;
    put_all(inner, "abc", 2);
    assert_get(inner, "acb", "a2 c2 b2", "acb", MR_OK);
    assert_int_equal(scripted_health_of(inner).hits_stale, 4);
}

static void past_the_hard_age_nothing_serves(void **state)
{
    scripted *inner = *state;
    put_all(inner, "abcdef", 1);
    inner->watcher->tracking(inner->watcher->context, true);
    assert_get(inner, "abcdef", "a1 b1 c1 d1 e1 f1", "abcdef", MR_OK);
    pass_ms(HARD_MS * 89 / 100);
    assert_get(inner, "abcdef", "a1 b1 c1 d1 e1 f1", "", MR_OK);
    inner->fail = MR_UNAVAILABLE;
    pass_ms(HARD_MS * 11 / 100);
    assert_get(inner, "abcdef", "? ? ? ? ? ?", "abcdef", MR_UNAVAILABLE);
    inner->fail = MR_OK;
    assert_get(inner, "a", "a1", "a", MR_OK);
}

/* ---- changes that are told ------------------------------------------------------------------- */

static void while_changes_are_told_the_soft_age_is_not_looked_at(void **state)
{
    scripted *inner = *state;
    put_all(inner, "ab", 1);
    assert_get(inner, "a", "a1", "a", MR_OK); /* before anyone told of changes */
    inner->watcher->tracking(inner->watcher->context, true);
    assert_get(inner, "ab", "a1 b1", "b", MR_OK);
    pass_ms(SOFT_MS * 2);
    assert_get(inner, "ab", "a1 b1", "a", MR_OK);
    pass_ms(SOFT_MS * 2);
    assert_get(inner, "ab", "a1 b1", "", MR_OK);
    inner->watcher->tracking(inner->watcher->context, false);
    assert_get(inner, "ab", "a1 b1", "ab", MR_OK);
    assert_get(inner, "ab", "a1 b1", "", MR_OK);
}

static void what_was_told_to_have_changed_is_asked_for_again(void **state)
{
    scripted *inner = *state;
    put_all(inner, "ab", 1);
    inner->watcher->tracking(inner->watcher->context, true);
    assert_get(inner, "ab", "a1 b1", "ab", MR_OK);
    put_all(inner, "ab", 2);
    scripted_tell(inner, 'b');
    assert_get(inner, "ab", "a1 b2", "b", MR_OK);
    scripted_tell(inner, 'z'); /* of which nothing is held */
    assert_int_equal(scripted_health_of(inner).invalidations, 1);
    scripted_tell(inner, 'b');
    inner->fail = MR_UNAVAILABLE; /* what is known to be wrong does not serve */
    assert_get(inner, "ab", "a1 ?", "b", MR_UNAVAILABLE);
}

static void tell_and_change_a(scripted *inner)
{
    inner->meanwhile = NULL;
    inner->version['a'] = 9;
    scripted_tell(inner, 'a');
}

static void a_change_that_overtakes_its_answer_is_not_lost(void **state)
{
    scripted *inner = *state;
    put_all(inner, "ab", 1);
    inner->watcher->tracking(inner->watcher->context, true);
    inner->meanwhile = tell_and_change_a;
    assert_get(inner, "ab", "a1 b1", "ab", MR_OK); /* asked before, answered with the old one */
    assert_get(inner, "ab", "a9 b1", "a", MR_OK);
    assert_get(inner, "ab", "a9 b1", "", MR_OK);
}

static void flush_meanwhile(scripted *inner)
{
    inner->meanwhile = NULL;
    put_all(inner, "ab", 9);
    inner->watcher->flush(inner->watcher->context);
}

static void after_a_flush_all_is_asked_for_again_and_serves_until_then(void **state)
{
    scripted *inner = *state;
    put_all(inner, "ab", 1);
    inner->watcher->tracking(inner->watcher->context, true);
    assert_get(inner, "ab", "a1 b1", "ab", MR_OK);
    assert_get(inner, "x", "-", "x", MR_OK);
    put_all(inner, "abx", 2);
    inner->watcher->flush(inner->watcher->context);
    inner->watcher->tracking(inner->watcher->context, false);
    inner->fail = MR_UNAVAILABLE;
    assert_get(inner, "abx", "a1 b1 ?", "abx", MR_UNAVAILABLE);
    inner->fail = MR_OK;
    assert_get(inner, "abx", "a2 b2 x2", "abx", MR_OK);
    assert_get(inner, "abx", "a2 b2 x2", "", MR_OK);
    assert_int_equal(scripted_health_of(inner).flushes, 1);
}

static void a_flush_during_a_fill_leaves_nothing_that_is_believed(void **state)
{
    scripted *inner = *state;
    put_all(inner, "ab", 1);
    inner->watcher->tracking(inner->watcher->context, true);
    inner->meanwhile = flush_meanwhile;
    assert_get(inner, "ab", "a1 b1", "ab", MR_OK);
    assert_get(inner, "ab", "a9 b9", "ab", MR_OK);
    assert_get(inner, "ab", "a9 b9", "", MR_OK);
}

/* ---- a store that fails ---------------------------------------------------------------------- */

static void with_the_store_away_the_cache_serves_alone(void **state)
{
    static const mr_status failures[] = {MR_UNAVAILABLE, MR_TIMEOUT, MR_IO, MR_CORRUPT};
    scripted *inner = *state;
    put_all(inner, "ace", 1);
    assert_get(inner, "ace", "a1 c1 e1", "ace", MR_OK);
    for (size_t i = 0; i < COUNT(failures); i++) {
        char got[512];
        mr_error err = {0};
        inner->fail = failures[i];
        assert_get(inner, "ace", "a1 c1 e1", "", MR_OK);
        assert_get(inner, "abcde", "a1 ? c1 ? e1", "bd", failures[i]);
        assert_status(scripted_get(inner, "ab", got, &err), failures[i], &err);
        assert_contains(err.message, "the script says no");
    }
    inner->fail = MR_OK;
    assert_get(inner, "abcde", "a1 - c1 - e1", "bd", MR_OK);
}

static void what_came_before_a_failure_is_visited_and_kept(void **state)
{
    scripted *inner = *state;
    put_all(inner, "abcd", 1);
    assert_get(inner, "c", "c1", "c", MR_OK);
    inner->fail = MR_UNAVAILABLE;
    inner->after = 1;
    assert_get(inner, "abcd", "a1 ? c1 ?", "abd", MR_UNAVAILABLE);
    inner->after = 0;
    assert_get(inner, "ac", "a1 c1", "", MR_OK);
}

static void a_success_leaves_the_error_untouched(void **state)
{
    scripted *inner = *state;
    char got[512];
    mr_error err = {0};
    put_all(inner, "a", 1);
    assert_status(scripted_get(inner, "a", got, &err), MR_OK, &err);
    pass_ms(SOFT_MS * 2);
    inner->fail = MR_UNAVAILABLE;
    assert_status(scripted_get(inner, "a", got, &err), MR_OK, &err);
    assert_string_equal(got, "a1");
    assert_string_equal(err.message, "");
}

/* ---- writing --------------------------------------------------------------------------------- */

static void a_put_is_seen_by_the_next_fetch(void **state)
{
    scripted *inner = *state;
    put_all(inner, "ab", 1);
    inner->watcher->tracking(inner->watcher->context, true); /* which tells not of our own puts */
    assert_get(inner, "abx", "a1 b1 -", "abx", MR_OK);
    assert_int_equal(scripted_write(inner, 'a', 2), MR_OK);
    assert_int_equal(scripted_write(inner, 'x', 2), MR_OK);
    assert_get(inner, "abx", "a2 b1 x2", "ax", MR_OK);
    assert_int_equal(inner->puts, 2);
}

static void write_a_meanwhile(scripted *inner)
{
    inner->meanwhile = NULL;
    assert_int_equal(scripted_write(inner, 'a', 2), MR_OK);
}

static void a_put_during_a_fill_is_not_hidden_by_it(void **state)
{
    scripted *inner = *state;
    put_all(inner, "a", 1);
    inner->watcher->tracking(inner->watcher->context, true);
    inner->meanwhile = write_a_meanwhile;
    assert_get(inner, "a", "a1", "a", MR_OK);
    assert_get(inner, "a", "a2", "a", MR_OK);
}

static void a_put_without_an_answer_may_still_happen_and_is_found_out(void **state)
{
    scripted *inner = *state;
    put_all(inner, "a", 1);
    inner->watcher->tracking(inner->watcher->context, true);
    assert_get(inner, "a", "a1", "a", MR_OK);
    inner->fail = MR_UNAVAILABLE;
    assert_int_equal(scripted_write(inner, 'a', 2), MR_UNAVAILABLE);
    inner->fail = MR_OK;
    assert_get(inner, "a", "a1", "a", MR_OK); /* dropped, as after a put that was answered */
    put_all(inner, "a", 2);                   /* now it is carried out, and nobody tells */
    pass_ms(SOFT_MS * 2);
    assert_get(inner, "a", "a2", "a", MR_OK);
    pass_ms(SOFT_MS * 2);
    assert_get(inner, "a", "a2", "", MR_OK); /* what is asked for later is told of again */
}

static void removing_a_space_empties_the_cache(void **state)
{
    scripted *inner = *state;
    mr_store_key key = scripted_key();
    uint64_t removed = 0;
    mr_error err = {0};
    for (int fail = 0; fail < 2; fail++) {
        put_all(inner, "ab", 1);
        assert_get(inner, "ab", "a1 b1", "ab", MR_OK);
        inner->fail = fail ? MR_UNAVAILABLE : MR_OK;
        assert_status(mr_store_cached_ops.remove(inner->cached, &key, &removed, &err), inner->fail,
                      &err);
        assert_int_equal(removed, 5);
        inner->fail = MR_OK;
        assert_get(inner, "ab", "- -", "ab", MR_OK);
        pass_ms(NEGATIVE_MS * 2);
    }
    assert_int_equal(scripted_health_of(inner).flushes, 2);
}

/* ---- what is the store's --------------------------------------------------------------------- */

static bool count_walk(void *context, mr_str id, mr_bytes record)
{
    *(size_t *)context += id.len + record.len;
    return true;
}

static void all_else_is_the_stores(void **state)
{
    scripted *inner = *state;
    mr_store_key key = scripted_key();
    mr_store_stats stats;
    mr_error err = {0};
    uint64_t space = 0;
    size_t n = 0, walked = 0, len = 0;
    char *value = NULL;
    assert_status(mr_store_cached_ops.walk(inner->cached, &key, count_walk, &walked, &err), MR_OK,
                  &err);
    assert_int_equal(walked, 3);
    assert_status(mr_store_cached_ops.spaces(inner->cached, &key, &space, 1, &n, &err), MR_OK,
                  &err);
    assert_int_equal(space, 77);
    assert_status(mr_store_cached_ops.stat(inner->cached, &stats, &err), MR_OK, &err);
    assert_int_equal(stats.max_bytes, 3);
    assert_status(mr_store_cached_ops.sync(inner->cached, &err), MR_OK, &err);
    assert_status(
        mr_store_cached_ops.get_note(inner->cached, (mr_bytes){"k", 1}, &value, &len, &err), MR_OK,
        &err);
    assert_string_equal(value, "note");
    free(value);
    assert_int_equal(inner->others, 5);
}

static void health_says_where_records_came_from(void **state)
{
    scripted *inner = *state;
    put_all(inner, "ab", 1);
    assert_get(inner, "abx", "a1 b1 -", "abx", MR_OK);
    assert_get(inner, "abx", "a1 b1 -", "", MR_OK);
    pass_ms(SOFT_MS * 2);
    inner->fail = MR_UNAVAILABLE;
    assert_get(inner, "ac", "a1 ?", "ac", MR_UNAVAILABLE);
    const mr_store_health h = scripted_health_of(inner);
    assert_int_equal(h.fetches, 3);
    assert_int_equal(h.ids, 8);
    assert_int_equal(h.hits_store, 2);
    assert_int_equal(h.misses, 1);
    assert_int_equal(h.hits_cache, 3);
    assert_int_equal(h.negative_hits, 1);
    assert_int_equal(h.hits_stale, 1);
    assert_int_equal(h.reconnects, 7);
    assert_true(h.connected);
    assert_true(h.cache_bytes > 0 && h.cache_bytes <= 1 << 20);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void a_cache_that_is_too_small_is_refused_and_the_store_stays_the_callers(void **state)
{
    const mr_store_options options = {.cache_bytes = 1000};
    scripted inner = {.calls = 0};
    void *self = NULL;
    mr_error err = {0};
    (void)state;
    assert_status(mr_store_cached_open(&self, &scripted_ops, &inner, &options, &err), MR_INVALID,
                  &err);
    assert_contains(err.message, "1000 bytes");
    assert_contains(err.message, "65536");
    assert_null(self);
    assert_int_equal(inner.closed, 0);
}

static void without_memory_opening_fails_and_fetching_says_so(void **state)
{
    const mr_store_options options = {.cache_bytes = 1 << 20};
    scripted *inner = *state;
    long k = 1;
    for (bool done = false; !done; k++) {
        void *self = NULL;
        mr_error err = {0};
        alloc_fail_at(k);
        const mr_status status = mr_store_cached_open(&self, &scripted_ops, inner, &options, &err);
        done = !alloc_failed();
        assert_status(status, done ? MR_OK : MR_NO_MEMORY, &err);
        assert_int_equal(inner->closed, 0);
        if (done) {
            mr_store_cached_ops.close(self);
            inner->closed = 0;
        }
    }
    assert_true(k > 4);

    /* The store's own calls fail among others, and leave it as if it were away. */
    size_t in_part = 0;
    for (bool done = false; !done; k++) {
        char got[512];
        mr_error err = {0};
        mr_store_cached_ops.close(inner->cached);
        inner->closed = 0;
        assert_status(mr_store_cached_open(&inner->cached, &scripted_ops, inner, &options, &err),
                      MR_OK, &err);
        put_all(inner, "abcd", 1);
        assert_get(inner, "b", "b1", "b", MR_OK);
        if (in_part == 0)
            k = 1;
        alloc_fail_at(k);
        const mr_status status = scripted_get(inner, "abcd", got, &err);
        done = !alloc_failed();
        assert_true(status == MR_OK || status == MR_NO_MEMORY);
        assert_true(!done || status == MR_OK);
        for (size_t i = 0; i < 4; i++) {
            const char place[] = {(char)('a' + (int)i), '1', '\0'};
            assert_true(strstr(got, place) || status == MR_NO_MEMORY);
        }
        assert_non_null(strstr(got, "b1"));
        in_part++;
        assert_get(inner, "abcd", "a1 b1 c1 d1", inner->asked, MR_OK);
    }
    assert_true(in_part > 6);
}

typedef struct {
    scripted *inner;
    size_t visits;
    bool wrong;
} nested;

static void fetch_within(void *context, size_t index, mr_bytes record)
{
    nested *n = context;
    char got[512];
    (void)index;
    (void)record;
    n->visits++;
    n->wrong |= scripted_get(n->inner, "abq", got, NULL) != MR_OK || strcmp(got, "a1 b1 -") != 0 ||
                scripted_write(n->inner, 'z', 1) != MR_OK;
}

static void a_visit_may_fetch_from_the_same_store(void **state)
{
    scripted *inner = *state;
    mr_store_key key = scripted_key();
    const mr_str ids[] = {{"a", 1}, {"b", 1}, {"z", 1}};
    nested n = {.inner = inner};
    mr_error err = {0};
    put_all(inner, "ab", 1);
    assert_status(mr_store_cached_ops.fetch(inner->cached, &key, ids, 3, fetch_within, &n, &err),
                  MR_OK, &err);
    assert_int_equal(n.visits, 3);
    assert_false(n.wrong);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCRIPTED(all_misses_of_a_fetch_are_asked_for_at_once),
        SCRIPTED(what_is_held_is_not_asked_for_again),
        SCRIPTED(an_id_that_comes_twice_is_asked_for_once),
        SCRIPTED(more_ids_than_fit_on_the_stack_are_as_few),
        SCRIPTED(an_id_that_no_key_can_have_is_missing_and_not_asked_for),
        SCRIPTED(a_visit_may_fetch_from_the_same_store),
        SCRIPTED(none_is_believed_for_its_own_short_age),
        SCRIPTED(past_the_soft_age_a_record_is_asked_for_again),
        SCRIPTED(records_that_came_together_do_not_grow_old_together),
        SCRIPTED(an_old_record_serves_while_the_store_is_away),
        SCRIPTED(past_the_hard_age_nothing_serves),
        SCRIPTED(while_changes_are_told_the_soft_age_is_not_looked_at),
        SCRIPTED(what_was_told_to_have_changed_is_asked_for_again),
        SCRIPTED(a_change_that_overtakes_its_answer_is_not_lost),
        SCRIPTED(after_a_flush_all_is_asked_for_again_and_serves_until_then),
        SCRIPTED(a_flush_during_a_fill_leaves_nothing_that_is_believed),
        SCRIPTED(with_the_store_away_the_cache_serves_alone),
        SCRIPTED(what_came_before_a_failure_is_visited_and_kept),
        SCRIPTED(a_success_leaves_the_error_untouched),
        SCRIPTED(a_put_is_seen_by_the_next_fetch),
        SCRIPTED(a_put_during_a_fill_is_not_hidden_by_it),
        SCRIPTED(a_put_without_an_answer_may_still_happen_and_is_found_out),
        SCRIPTED(removing_a_space_empties_the_cache),
        SCRIPTED(all_else_is_the_stores),
        SCRIPTED(health_says_where_records_came_from),
        cmocka_unit_test(a_cache_that_is_too_small_is_refused_and_the_store_stays_the_callers),
        SCRIPTED(without_memory_opening_fails_and_fetching_says_so),
    };
    return cmocka_run_group_tests_name("store_cached", tests, NULL, NULL);
}
