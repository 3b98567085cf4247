/* test_store_redis_away.c - a Redis that stops, stalls, restarts or was never there.
 *
 * Bounds of time are those promised plus what a busy machine may add.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/redis_fixture.h"

enum { SLACK_MS = 400, RECOVERY_MS = 2000 };

/* ---- opening --------------------------------------------------------------------------------- */

static void a_server_that_is_not_there_is_said_at_once(void **state)
{
    mr_error err = {0};
    char url[64];
    int64_t began = mr_clock_monotonic_us();
    (void)state;
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", redis_server_free_port());
    assert_status(store_open_status(url, NULL, &err), MR_UNAVAILABLE, &err);
    assert_contains(err.message, "Redis at 127.0.0.1:");
    assert_contains(err.message, "connecting failed: Connection refused");
    assert_true(since_ms(began) < SLACK_MS);
    assert_status(store_open_status("redis://no-such-host.invalid", NULL, &err), MR_UNAVAILABLE,
                  &err);
    assert_contains(err.message, "the name 'no-such-host.invalid' is not found");
}

static void a_store_opened_away_serves_when_its_server_comes(void **state)
{
    redis_server *server = redis_empty();
    mr_store_options options = redis_options();
    mr_error err = {0};
    (void)state;
    redis_server_kill(server);
    options.open_away = true;
    mr_store *store = store_open(redis_server_url(server), &options);
    assert_false(health_of(store).connected);
    assert_status(fetch_status(store, "a", &err), MR_UNAVAILABLE, &err);
    assert_true(redis_server_restart(server));
    int64_t began = mr_clock_monotonic_us();
    WAIT_FOR(fetch_status(store, "a", NULL) == MR_OK, RECOVERY_MS);
    assert_true(since_ms(began) < RECOVERY_MS);
    assert_true(health_of(store).connected);
    mr_store_close(store);
}

/* ---- fetches --------------------------------------------------------------------------------- */

static void fetches_fail_in_time_then_at_once_and_recover(void **state)
{
    redis_server *server = redis_empty();
    mr_store_options options = redis_options();
    mr_error err = {0};
    (void)state;
    options.fetch_timeout_ms = 100;
    mr_store *store = store_open(redis_server_url(server), &options);
    put_ok(store, "a", 1, 1);
    for (int round = 0; round < 3; round++) {
        redis_server_kill(server);
        WAIT_FOR(health_of(store).breaker == 2 || fetch_status(store, "a", NULL) == MR_OK, 2000);
        for (int i = 0; i < 20; i++) {
            int64_t began = mr_clock_monotonic_us();
            assert_status(fetch_status(store, "a", &err), MR_UNAVAILABLE, &err);
            assert_true(since_ms(began) < 100 + SLACK_MS);
        }
        WAIT_FOR(health_of(store).breaker == 2, 2000);
        /* The breaker is open: a hundred failures cost nothing. */
        int64_t began = mr_clock_monotonic_us();
        for (int i = 0; i < 100; i++)
            assert_status(fetch_status(store, "a", &err), MR_UNAVAILABLE, &err);
        assert_true(since_ms(began) < SLACK_MS);
        assert_contains(err.message, "left alone after 5 failures in a row; the last: Redis at");

        assert_true(redis_server_restart(server));
        WAIT_FOR(fetch_status(store, "a", NULL) == MR_OK, RECOVERY_MS);
        assert_int_equal(health_of(store).breaker, 0);
        assert_true(health_of(store).connected);
        assert_int_equal(health_of(store).reconnects, round + 1);
    }
    assert_true(health_of(store).failures > 300);
    mr_store_close(store);
}

static void a_stalled_server_costs_the_timeout_until_the_breaker_opens(void **state)
{
    redis_server *server = redis_empty();
    mr_store_options options = redis_options();
    mr_error err = {0};
    (void)state;
    options.fetch_timeout_ms = 60;
    mr_store *store = store_open(redis_server_url(server), &options);
    put_ok(store, "a", 1, 1);
    redis_server_pause(server);
    int64_t began = mr_clock_monotonic_us();
    assert_status(fetch_status(store, "a", &err), MR_UNAVAILABLE, &err);
    assert_contains(err.message, "did not answer 1 of 1 requests within");
    assert_in_range(since_ms(began), 55, 60 + SLACK_MS);
    WAIT_FOR(fetch_status(store, "a", NULL) != MR_OK && health_of(store).breaker == 2, 2000);
    /* Open, it lets a probe through now and then, and each other fetch fails at once. */
    began = mr_clock_monotonic_us();
    for (int i = 0; i < 200; i++)
        (void)fetch_status(store, "a", NULL);
    assert_true(since_ms(began) < 2 * SLACK_MS);
    WAIT_FOR(!health_of(store).connected, 3000); /* it was silent for too long */
    redis_server_resume(server);
    WAIT_FOR(fetch_status(store, "a", NULL) == MR_OK, RECOVERY_MS);
    mr_store_close(store);
}

/* What comes late belongs to fetches that have gone, and to no other. */
static void late_answers_are_given_to_nobody(void **state)
{
    redis_server *server = redis_empty();
    mr_store_options options = redis_options();
    mr_store_options quick = redis_options();
    (void)state;
    quick.fetch_timeout_ms = 10;
    quick.connect_timeout_ms = 20000; /* the connection stays */
    mr_store *store = store_open(redis_server_url(server), &quick);
    mr_store *other = store_open(redis_server_url(server), &options);
    for (int i = 0; i < 10; i++) {
        char id[8];
        snprintf(id, sizeof id, "%d", i);
        put_ok(other, id, 1, (float)i);
    }
    for (int round = 0; round < 3; round++) {
        redis_server_pause(server);
        for (int i = 0; i < 4; i++)
            assert_int_equal(fetch_status(store, "1", NULL), MR_UNAVAILABLE);
        redis_server_resume(server);
        for (int i = 0; i < 10; i++) {
            seen_record seen = {0};
            seen_list list = {.seen = &seen, .n = 1};
            char id[8];
            snprintf(id, sizeof id, "%d", i);
            mr_str text = mr_str_of(id);
            if (mr_store_fetch(store, MR_ENTITY_ITEM, SPACE, &text, 1, see_record, &list, NULL) ==
                MR_OK)
                assert_true(seen.mark == (float)i);
        }
    }
    assert_int_equal(health_of(store).reconnects, 0);
    mr_store_close(store);
    mr_store_close(other);
}

static void an_idle_connection_that_died_is_noticed_before_it_is_needed(void **state)
{
    redis_server *server = redis_empty();
    mr_store *store = redis_open(redis_server_url(server));
    (void)state;
    for (int i = 0; i < 3; i++) {
        uint64_t before = health_of(store).reconnects;
        assert_true(redis_server_run(server, "CLIENT KILL TYPE normal SKIPME yes"));
        WAIT_FOR(health_of(store).reconnects > before, 1000);
        assert_int_equal(fetch_status(store, "a", NULL), MR_OK);
    }
    assert_int_equal(health_of(store).failures, 0);
    mr_store_close(store);
}

/* ---- writes ---------------------------------------------------------------------------------- */

static void *put_one(void *context)
{
    mr_store *store = context;
    static mr_status status;
    status = put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of("a"), 1, 1, 4, NULL, NULL);
    return &status;
}

static void a_put_waits_for_a_server_that_restarts(void **state)
{
    redis_server *server = redis_empty();
    mr_store *store = redis_open(redis_server_url(server));
    (void)state;
    for (int round = 0; round < 3; round++) {
        pthread_t thread;
        void *status;
        redis_server_kill(server);
        assert_int_equal(pthread_create(&thread, NULL, put_one, store), 0);
        redis_server_sleep_ms(300);
        assert_true(redis_server_restart(server)); /* empty: nothing was kept on disk */
        pthread_join(thread, &status);
        assert_int_equal(*(mr_status *)status, MR_OK);
        assert_true(fetch_one(store, "a").found);
    }
    assert_int_equal(health_of(store).failures, 0);
    mr_store_close(store);
}

static void a_put_to_a_server_that_stays_away_fails_in_time(void **state)
{
    redis_server *server = redis_empty();
    mr_store_options options = redis_options();
    mr_error err = {0};
    char *value = NULL;
    size_t len;
    (void)state;
    options.write_timeout_ms = 300;
    mr_store *store = store_open(redis_server_url(server), &options);
    redis_server_kill(server);
    int64_t began = mr_clock_monotonic_us();
    mr_status status =
        put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of("a"), 1, 1, 4, NULL, &err);
    assert_true(status == MR_TIMEOUT || status == MR_UNAVAILABLE);
    assert_in_range(since_ms(began), 200, 300 + SLACK_MS);
    began = mr_clock_monotonic_us();
    status = mr_store_get_note(store, "n", &value, &len, &err);
    assert_true(status == MR_TIMEOUT || status == MR_UNAVAILABLE);
    assert_true(since_ms(began) < 300 + SLACK_MS);
    mr_store_close(store);
}

/* ---- under load ------------------------------------------------------------------------------ */

enum { LOADERS = 6 };

typedef struct {
    mr_store *store;
    atomic_bool stop;
    atomic_int answered, failed, late, wrong;
} load;

static void *fetch_until_stopped(void *context)
{
    load *l = context;
    while (!atomic_load(&l->stop)) {
        seen_record seen[3];
        seen_list list = {.seen = seen, .n = 3};
        const mr_str ids[] = {mr_str_of("a"), mr_str_of("b"), mr_str_of("none")};
        mr_error err = {0};
        int64_t began = mr_clock_monotonic_us();
        mr_status status =
            mr_store_fetch(l->store, MR_ENTITY_ITEM, SPACE, ids, 3, see_record, &list, &err);
        atomic_fetch_add(&l->late, since_ms(began) > 100 + SLACK_MS);
        if (status == MR_OK) {
            atomic_fetch_add(&l->answered, 1);
            bool right = list.next == 3 && !list.damaged && seen[0].mark == 1 &&
                         seen[1].mark == 2 && !seen[2].found;
            atomic_fetch_add(&l->wrong, !right);
        } else {
            atomic_fetch_add(&l->failed, 1);
            atomic_fetch_add(&l->wrong, status != MR_UNAVAILABLE);
            redis_server_sleep_ms(1);
        }
    }
    return NULL;
}

static void a_server_that_stops_under_load_is_back_within_two_seconds(void **state)
{
    redis_server *server = redis_server_start(&(redis_server_options){.appendonly = true});
    static load l;
    pthread_t threads[LOADERS];
    mr_store_options options = redis_options();
    (void)state;
    assert_non_null(server);
    options.fetch_timeout_ms = 100;
    memset(&l, 0, sizeof l);
    l.store = store_open(redis_server_url(server), &options);
    put_ok(l.store, "a", 1, 1);
    put_ok(l.store, "b", 1, 2);
    for (int i = 0; i < LOADERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fetch_until_stopped, &l), 0);
    for (int round = 0; round < 3; round++) {
        int before = atomic_load(&l.answered);
        WAIT_FOR(atomic_load(&l.answered) > before + 100, 10000);
        redis_server_kill(server);
        before = atomic_load(&l.failed);
        WAIT_FOR(atomic_load(&l.failed) > before + 20, 5000);
        assert_true(redis_server_restart(server));
        before = atomic_load(&l.answered);
        WAIT_FOR(atomic_load(&l.answered) > before + 20, RECOVERY_MS);
    }
    atomic_store(&l.stop, true);
    for (int i = 0; i < LOADERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&l.wrong), 0);
    assert_int_equal(atomic_load(&l.late), 0);
    mr_store_close(l.store);
    redis_server_free(server);
}

static void a_store_is_closed_while_its_server_is_away_or_stalled(void **state)
{
    redis_server *server = redis_empty();
    mr_store_options options = redis_options();
    (void)state;
    options.fetch_timeout_ms = 20;
    for (int round = 0; round < 4; round++) {
        mr_store *store = store_open(redis_server_url(server), &options);
        if (round % 2)
            redis_server_pause(server);
        else
            redis_server_kill(server);
        for (int i = 0; i < 3; i++)
            assert_int_equal(fetch_status(store, "a", NULL), MR_UNAVAILABLE);
        int64_t began = mr_clock_monotonic_us();
        mr_store_close(store);
        assert_true(since_ms(began) < SLACK_MS);
        if (round % 2)
            redis_server_resume(server);
        else
            assert_true(redis_server_restart(server));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_that_is_not_there_is_said_at_once),
        cmocka_unit_test(a_store_opened_away_serves_when_its_server_comes),
        cmocka_unit_test(fetches_fail_in_time_then_at_once_and_recover),
        cmocka_unit_test(a_stalled_server_costs_the_timeout_until_the_breaker_opens),
        cmocka_unit_test(late_answers_are_given_to_nobody),
        cmocka_unit_test(an_idle_connection_that_died_is_noticed_before_it_is_needed),
        cmocka_unit_test(a_put_waits_for_a_server_that_restarts),
        cmocka_unit_test(a_put_to_a_server_that_stays_away_fails_in_time),
        cmocka_unit_test(a_server_that_stops_under_load_is_back_within_two_seconds),
        cmocka_unit_test(a_store_is_closed_while_its_server_is_away_or_stalled),
    };
    if (redis_server_missing())
        return redis_server_skip();
    return cmocka_run_group_tests_name("store_redis_away", tests, NULL, NULL);
}
