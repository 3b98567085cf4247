/* test_store_redis_memory.c - memory that runs out anywhere costs a call or a connection, no more.
 *
 * The k-th allocation of the store fails, for every k, on whichever thread it comes. The sanitizers
 * see what is lost or used after all.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/alloc_failure.h"
#include "tests/fake_redis.h"
#include "tests/unit/redis_fixture.h"

#define PAGE "*2\r\n$1\r\n0\r\n*1\r\n$31\r\nmixrank:item:9f00c0ffee000001:a\r\n"

static const fake_rule rules[] = {
    {"MGET", FAKE_SAY, "*1\r\n$-1\r\n", 0, 0},
    {"EVALSHA", FAKE_SAY, "-NOSCRIPT x\r\n", 0, 0},
    {"EVAL", FAKE_SAY, "*1\r\n:1\r\n", 0, 0},
    {"GET", FAKE_SAY, "$1\r\nv\r\n", 0, 0},
    {"SCAN", FAKE_SAY, PAGE, 0, 0},
    {"UNLINK", FAKE_SAY, ":1\r\n", 0, 0},
    {"DBSIZE", FAKE_SAY, ":1\r\n", 0, 0},
    {"INFO", FAKE_SAY, "$13\r\nused_memory:9\r\n", 0, 0},
};

static bool visit_any(void *context, mr_str id, mr_bytes record)
{
    (void)context;
    (void)id;
    (void)record;
    return true;
}

static void see_any(void *context, size_t index, mr_bytes record)
{
    (void)context;
    (void)index;
    (void)record;
}

static void expect(mr_status status, const mr_error *err)
{
    if (status != MR_OK && status != MR_NO_MEMORY && status != MR_UNAVAILABLE &&
        status != MR_TIMEOUT && status != MR_EXHAUSTED)
        fail_msg("%s: %s", mr_status_name(status), err->message);
}

/* Everything once. record: of SPACE. */
static void use_a_store(const char *url, mr_bytes record, uint64_t cache_bytes)
{
    mr_store_options options = MR_STORE_OPTIONS_DEFAULT;
    const mr_str id = mr_str_of("a");
    const mr_store_put_item item = {id, record};
    mr_store_stats stats;
    mr_store *store = NULL;
    mr_error err = {0};
    uint64_t space, removed;
    size_t n, len;
    char *value = NULL;
    options.cache_bytes = cache_bytes;
    options.fetch_timeout_ms = options.write_timeout_ms = 500;
    mr_status status = mr_store_open(&store, url, &options, &err);
    expect(status, &err);
    if (status != MR_OK) {
        assert_null(store);
        return;
    }
    expect(mr_store_put_with_note(store, MR_ENTITY_ITEM, SPACE, &item, 1, "n", mr_str_of("v"), NULL,
                                  &err),
           &err);
    expect(mr_store_fetch(store, MR_ENTITY_ITEM, SPACE, &id, 1, see_any, NULL, &err), &err);
    expect(mr_store_get_note(store, "n", &value, &len, &err), &err);
    free(value);
    expect(mr_store_walk(store, MR_ENTITY_ITEM, SPACE, visit_any, NULL, &err), &err);
    expect(mr_store_spaces(store, MR_ENTITY_ITEM, &space, 1, &n, &err), &err);
    expect(mr_store_stat(store, &stats, &err), &err);
    expect(mr_store_remove_space(store, MR_ENTITY_ITEM, SPACE, &removed, &err), &err);
    mr_store_close(store);
}

static void memory_may_run_out_at_any_allocation(void **state)
{
    fake_redis *fake = fake_redis_start(rules, COUNT(rules));
    const mr_bytes record = record_new(SPACE, 1, 1, 4);
    char url[160];
    (void)state;
    snprintf(url, sizeof url, "redis://u%%41:p%%42@%s", fake_redis_url(fake) + strlen("redis://"));
    for (int with_cache = 0; with_cache < 2; with_cache++) {
        long k = 1;
        for (bool done = false; !done && k < 1000; k++) {
            alloc_fail_at(k);
            use_a_store(url, record, with_cache ? 1 << 20 : 0);
            done = !alloc_failed();
        }
        assert_in_range(k, 50, 999); /* it reached many, and the end */
    }
    record_free(record);
    fake_redis_free(fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_may_run_out_at_any_allocation),
    };
    return cmocka_run_group_tests_name("store_redis_memory", tests, NULL, NULL);
}
