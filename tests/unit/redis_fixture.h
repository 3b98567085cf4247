/* redis_fixture.h - a real Redis for the tests of one program, and short forms of what they look
 * at.
 *
 * Include after cmocka.h. A test takes redis_empty(): the program's server, without data.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_REDIS_FIXTURE_H
#define MR_TESTS_REDIS_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "core/clock.h"
#include "featurestore/store_backend.h"
#include "tests/redis_server.h"
#include "tests/unit/store_fixture.h"

#define ITEM_KEY(id) "mixrank:item:9f00c0ffee000001:" id /* in SPACE */

static inline redis_server *redis_empty(void)
{
    static redis_server *server; /* goes with the process */
    if (!server)
        server = redis_server_start(NULL);
    else if (!redis_server_running(server))
        assert_true(redis_server_restart(server));
    assert_non_null(server);
    assert_true(redis_server_run(server, "FLUSHALL"));
    assert_true(redis_server_run(server, "SCRIPT FLUSH"));
    return server;
}

/* Machines that run tests are busy: a fetch that should succeed has time. */
static inline mr_store_options redis_options(void)
{
    mr_store_options options = MR_STORE_OPTIONS_DEFAULT;
    options.fetch_timeout_ms = 5000;
    return options;
}

static inline mr_store *redis_open(const char *url)
{
    const mr_store_options options = redis_options();
    return store_open(url, &options);
}

static inline mr_status fetch_status(mr_store *store, const char *id, mr_error *err)
{
    seen_record seen;
    seen_list list = {.seen = &seen, .n = 1};
    mr_str text = mr_str_of(id);
    return mr_store_fetch(store, MR_ENTITY_ITEM, SPACE, &text, 1, see_record, &list, err);
}

static inline mr_store_health health_of(mr_store *store)
{
    mr_store_health health;
    mr_store_health_of(store, &health);
    return health;
}

static inline int64_t since_ms(int64_t began_us)
{
    return (mr_clock_monotonic_us() - began_us) / 1000;
}

/* Polls; false after the time. */
#define WAIT_FOR(condition, timeout_ms)                                             \
    do {                                                                            \
        int64_t wait_began = mr_clock_monotonic_us();                               \
        while (!(condition)) {                                                      \
            if (since_ms(wait_began) > (timeout_ms))                                \
                fail_msg("not so within %d ms: %s", (int)(timeout_ms), #condition); \
            redis_server_sleep_ms(5);                                               \
        }                                                                           \
    } while (0)

/* ---- a watcher that counts ------------------------------------------------------------------- */

typedef struct {
    atomic_int changed, flushes, on, off;
    atomic_bool is_on;
    pthread_mutex_t lock;
    char last[MR_STORE_KEY_MAX]; /* under lock */
} counting_watcher;

static inline void watcher_changed(void *context, mr_bytes key)
{
    counting_watcher *w = context;
    pthread_mutex_lock(&w->lock);
    snprintf(w->last, sizeof w->last, "%.*s", (int)key.len, (const char *)key.data);
    pthread_mutex_unlock(&w->lock);
    atomic_fetch_add(&w->changed, 1);
}

static inline void watcher_flush(void *context)
{
    counting_watcher *w = context;
    atomic_fetch_add(&w->flushes, 1);
}

static inline void watcher_tracking(void *context, bool is_on)
{
    counting_watcher *w = context;
    atomic_fetch_add(is_on ? &w->on : &w->off, 1);
    atomic_store(&w->is_on, is_on);
}

#endif
