/* test_store_redis_tracking.c - changes made by others are told, and so is when they may be missed.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/redis_fixture.h"

typedef struct {
    redis_server *server;
    void *store;
    counting_watcher watcher;
} watched;

static const mr_store_ops *const ops = &mr_store_redis_ops;

static void watched_open(watched *w, const char *url, mr_status expected)
{
    mr_store_options options = redis_options();
    mr_error err = {0};
    memset(w, 0, sizeof *w);
    pthread_mutex_init(&w->watcher.lock, NULL);
    w->server = redis_empty();
    options.write_timeout_ms = 5000;
    options.connect_timeout_ms = 1000;
    assert_status(
        mr_store_redis_open(&w->store, url ? url : redis_server_url(w->server), &options, &err),
        expected, &err);
    const mr_store_watcher watcher = {&w->watcher, watcher_changed, watcher_flush,
                                      watcher_tracking};
    ops->watch(w->store, &watcher);
}

static void watched_close(watched *w)
{
    ops->close(w->store);
    pthread_mutex_destroy(&w->watcher.lock);
}

static void keep_nothing(void *context, size_t index, mr_bytes record)
{
    (void)index;
    if (context)
        *(size_t *)context += record.data != NULL;
}

static mr_status fetch_key(watched *w, const char *id)
{
    mr_store_key key = {.prefix_len = sizeof "mixrank:item:9f00c0ffee000001:" - 1};
    mr_str text = mr_str_of(id);
    memcpy(key.bytes, "mixrank:item:9f00c0ffee000001:", key.prefix_len);
    return ops->fetch(w->store, &key, &text, 1, keep_nothing, NULL, NULL);
}

static bool is_tracking(watched *w)
{
    mr_store_health health = {0};
    ops->health(w->store, &health);
    return health.tracking && health.connected && atomic_load(&w->watcher.is_on);
}

static void assert_last(watched *w, const char *expected)
{
    char last[MR_STORE_KEY_MAX];
    pthread_mutex_lock(&w->watcher.lock);
    memcpy(last, w->watcher.last, sizeof last);
    pthread_mutex_unlock(&w->watcher.lock);
    assert_string_equal(last, expected);
}

static void a_change_of_a_fetched_key_is_told(void **state)
{
    watched w;
    (void)state;
    watched_open(&w, NULL, MR_OK);
    assert_true(is_tracking(&w));
    assert_int_equal(atomic_load(&w.watcher.on), 1);
    static const char *const change[] = {"SET " ITEM_KEY("a") " x", "DEL " ITEM_KEY("a"),
                                         "SET " ITEM_KEY("a") " y PX 100000",
                                         "PEXPIRE " ITEM_KEY("a") " 20"};
    for (size_t i = 0; i < COUNT(change); i++) {
        int before = atomic_load(&w.watcher.changed);
        assert_int_equal(fetch_key(&w, "a"), MR_OK); /* "none" is followed too */
        assert_true(redis_server_run(w.server, change[i]));
        WAIT_FOR(atomic_load(&w.watcher.changed) == before + 1, 2000);
        assert_last(&w, ITEM_KEY("a"));
    }
    /* What was not fetched is nobody's business. */
    int before = atomic_load(&w.watcher.changed);
    assert_true(redis_server_run(w.server, "SET " ITEM_KEY("b") " x"));
    assert_int_equal(fetch_key(&w, "a"), MR_OK);
    assert_true(redis_server_run(w.server, "SET " ITEM_KEY("a") " z"));
    WAIT_FOR(atomic_load(&w.watcher.changed) == before + 1, 2000);
    watched_close(&w);
}

/* One's own writes as well: a put that was given up may still be carried out later. */
static void a_change_by_the_store_itself_is_told(void **state)
{
    watched w;
    mr_store_key key = {.prefix_len = sizeof "mixrank:item:9f00c0ffee000001:" - 1};
    mr_bytes record = record_new(SPACE, 5, 1, 4);
    mr_store_write write = {mr_str_of("a"), record, 5, 0};
    mr_store_put_result result = {0};
    mr_error err = {0};
    (void)state;
    watched_open(&w, NULL, MR_OK);
    memcpy(key.bytes, "mixrank:item:9f00c0ffee000001:", key.prefix_len);
    assert_int_equal(fetch_key(&w, "a"), MR_OK);
    assert_status(ops->put(w.store, &key, &write, 1, NULL, &result, &err), MR_OK, &err);
    assert_int_equal(result.written, 1);
    WAIT_FOR(atomic_load(&w.watcher.changed) == 1, 2000);
    assert_last(&w, ITEM_KEY("a"));
    record_free(record);
    watched_close(&w);
}

static void a_flush_of_the_server_is_told(void **state)
{
    static const char *const commands[] = {"FLUSHALL", "FLUSHDB"};
    watched w;
    (void)state;
    watched_open(&w, NULL, MR_OK);
    for (size_t i = 0; i < COUNT(commands); i++) {
        int before = atomic_load(&w.watcher.flushes);
        assert_int_equal(fetch_key(&w, "a"), MR_OK);
        assert_true(redis_server_run(w.server, commands[i]));
        WAIT_FOR(atomic_load(&w.watcher.flushes) > before, 2000);
    }
    assert_true(is_tracking(&w));
    watched_close(&w);
}

/* Either connection, and then both are made anew: flushed when lost, and again when told anew. */
static void the_loss_of_either_connection_flushes(void **state)
{
    static const char *const kill[] = {"CLIENT KILL TYPE pubsub",
                                       "CLIENT KILL TYPE normal SKIPME yes"};
    watched w;
    (void)state;
    watched_open(&w, NULL, MR_OK);
    for (int round = 0; round < 4; round++) {
        int flushes = atomic_load(&w.watcher.flushes), on = atomic_load(&w.watcher.on);
        int off = atomic_load(&w.watcher.off);
        assert_int_equal(redis_server_integer(w.server, kill[round % 2]), 1);
        WAIT_FOR(atomic_load(&w.watcher.on) == on + 1, 2000);
        assert_int_equal(atomic_load(&w.watcher.off), off + 1);
        assert_int_equal(atomic_load(&w.watcher.flushes), flushes + 2);
        WAIT_FOR(redis_server_clients(w.server, "sub=1") == 1, 2000);
        WAIT_FOR(redis_server_clients(w.server, "") == 2, 2000);
        int changed = atomic_load(&w.watcher.changed);
        assert_int_equal(fetch_key(&w, "a"), MR_OK);
        assert_true(redis_server_run(w.server, "SET " ITEM_KEY("a") " %d", round));
        WAIT_FOR(atomic_load(&w.watcher.changed) == changed + 1, 2000);
    }
    watched_close(&w);
}

static void a_silent_server_flushes_too(void **state)
{
    watched w;
    (void)state;
    watched_open(&w, NULL, MR_OK);
    redis_server_pause(w.server);
    WAIT_FOR(!atomic_load(&w.watcher.is_on), 4000);
    assert_int_equal(atomic_load(&w.watcher.off), 1);
    redis_server_resume(w.server);
    WAIT_FOR(is_tracking(&w), 3000);
    watched_close(&w);
}

/* A user without the right to subscribe: the store works, and says that it is not told. */
static void without_the_right_to_track_the_store_works_untracked(void **state)
{
    static redis_server *server;
    watched w;
    char url[256];
    (void)state;
    server = redis_server_start(
        &(redis_server_options){.password = "root",
                                .acl = "user default on >root ~* &* +@all\n"
                                       "user mute on >m ~* resetchannels +@all\n"
                                       "user still on >s ~* &* +@all -client|tracking\n"});
    assert_non_null(server);
    static const char *const users[] = {"mute:m", "still:s"};
    for (size_t i = 0; i < COUNT(users); i++) {
        snprintf(url, sizeof url, "redis://%s@%s", users[i], redis_server_address(server));
        watched_open(&w, url, MR_OK);
        mr_store_health health = {0};
        ops->health(w.store, &health);
        assert_true(health.connected);
        assert_false(health.tracking);
        assert_int_equal(atomic_load(&w.watcher.on), 0);
        assert_int_equal(fetch_key(&w, "a"), MR_OK);
        watched_close(&w);
    }
    redis_server_free(server);
}

/* With the cache before it, through the public interface. */
static void a_cached_record_that_others_change_is_asked_for_again(void **state)
{
    redis_server *server = redis_empty();
    mr_store_options options = redis_options();
    (void)state;
    mr_store *writer = redis_open(redis_server_url(server));
    options.cache_bytes = 1 << 20;
    mr_store *store = store_open(redis_server_url(server), &options);
    assert_true(health_of(store).tracking);
    put_ok(writer, "a", 1, 1);
    for (int i = 0; i < 50; i++)
        assert_true(fetch_one(store, "a").mark == 1);
    assert_int_equal(health_of(store).fetch_count, 1);
    assert_int_equal(health_of(store).hits_cache, 49);
    for (uint64_t version = 2; version < 30; version++) {
        put_ok(writer, "a", version, (float)version);
        WAIT_FOR(fetch_one(store, "a").mark == (float)version, 1000);
    }
    put_ok(store, "a", 100, 100); /* one's own */
    assert_true(fetch_one(store, "a").mark == 100);
    mr_store_close(store);
    mr_store_close(writer);
}

static void the_cache_serves_while_the_server_is_away(void **state)
{
    redis_server *server = redis_empty();
    mr_store_options options = redis_options();
    mr_error err = {0};
    (void)state;
    options.cache_bytes = 1 << 20;
    options.fetch_timeout_ms = 200;
    mr_store *store = store_open(redis_server_url(server), &options);
    put_ok(store, "a", 1, 1);
    assert_true(fetch_one(store, "a").mark == 1);
    redis_server_kill(server);
    WAIT_FOR(!health_of(store).connected, 2000);
    for (int i = 0; i < 50; i++)
        assert_true(fetch_one(store, "a").mark == 1);
    assert_true(health_of(store).hits_stale >= 50);
    assert_status(fetch_status(store, "b", &err), MR_UNAVAILABLE, &err);
    assert_true(redis_server_restart(server)); /* empty */
    WAIT_FOR(!fetch_one(store, "a").found, 3000);
    mr_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_of_a_fetched_key_is_told),
        cmocka_unit_test(a_change_by_the_store_itself_is_told),
        cmocka_unit_test(a_flush_of_the_server_is_told),
        cmocka_unit_test(the_loss_of_either_connection_flushes),
        cmocka_unit_test(a_silent_server_flushes_too),
        cmocka_unit_test(without_the_right_to_track_the_store_works_untracked),
        cmocka_unit_test(a_cached_record_that_others_change_is_asked_for_again),
        cmocka_unit_test(the_cache_serves_while_the_server_is_away),
    };
    if (redis_server_missing())
        return redis_server_skip();
    return cmocka_run_group_tests_name("store_redis_tracking", tests, NULL, NULL);
}
