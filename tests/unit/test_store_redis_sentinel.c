/* test_store_redis_sentinel.c - a store that asks Sentinels for its master, and follows a failover.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/redis_groups.h"
#include "tests/unit/redis_fixture.h"

static redis_sentinels *group_of(const redis_server_options *options)
{
    redis_sentinels *group = redis_sentinels_start(1, 3, options);
    assert_non_null(group);
    return group;
}

static void the_masters_name_leads_to_it_and_a_failover_is_followed(void **state)
{
    redis_sentinels *group = group_of(NULL);
    mr_store_options options = redis_options();
    mr_error err = {0};
    (void)state;
    options.write_timeout_ms = 20000;
    mr_store *store = store_open(redis_sentinels_url(group), &options);
    redis_server *old = redis_sentinels_master(group);
    put_ok(store, "a", 1, 1);
    assert_int_equal(redis_server_integer(old, "EXISTS " ITEM_KEY("a")), 1);
    assert_int_equal(redis_server_integer(old, "WAIT 1 5000"), 1);

    redis_server_kill(old);
    /* A write waits for the new master as it would for a restart. */
    put_ok(store, "b", 1, 2);
    redis_server *now = redis_sentinels_wait_master(group, old, 20000);
    assert_non_null(now);
    assert_int_equal(redis_server_integer(now, "EXISTS " ITEM_KEY("b")), 1);
    WAIT_FOR(fetch_status(store, "a", NULL) == MR_OK, 2000);
    assert_true(fetch_one(store, "a").mark == 1);

    /* The old one comes back as a replica: nobody writes to it. */
    assert_true(redis_server_restart(old));
    assert_status(put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of("c"), 1, 3, 4, NULL, &err),
                  MR_OK, &err);
    assert_int_equal(redis_server_integer(now, "EXISTS " ITEM_KEY("c")), 1);
    mr_store_close(store);
    redis_sentinels_free(group);
}

/* The server steps down, and lives on as a replica. */
static void a_master_that_became_a_replica_is_left(void **state)
{
    redis_sentinels *group = group_of(NULL);
    mr_store_options options = redis_options();
    (void)state;
    options.write_timeout_ms = 20000;
    mr_store *store = store_open(redis_sentinels_url(group), &options);
    redis_server *old = redis_sentinels_master(group);
    put_ok(store, "a", 1, 1);
    assert_true(redis_server_run(redis_sentinels_sentinel(group, 0), "SENTINEL FAILOVER mixrank"));
    redis_server *now = redis_sentinels_wait_master(group, old, 20000);
    assert_non_null(now);
    assert_true(redis_server_wait_info(old, "role:slave", 20000));
    put_ok(store, "b", 1, 2);
    assert_int_equal(redis_server_integer(now, "EXISTS " ITEM_KEY("b")), 1);
    mr_store_close(store);
    redis_sentinels_free(group);
}

static void sentinels_that_are_gone_or_know_nothing_are_said(void **state)
{
    redis_sentinels *group = group_of(NULL);
    mr_error err = {0};
    char url[512], address[64];
    (void)state;
    snprintf(address, sizeof address, "%s",
             redis_server_address(redis_sentinels_sentinel(group, 0)));
    snprintf(url, sizeof url, "redis+sentinel://%s/nosuch", address);
    assert_status(store_open_status(url, NULL, &err), MR_UNAVAILABLE, &err);
    assert_contains(err.message, "it watches no master 'nosuch'");
    assert_contains(err.message, address);
    /* The first is gone, the second is no Sentinel, the third knows. */
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d,%s,%s/mixrank",
             redis_server_free_port(), redis_server_address(redis_sentinels_master(group)),
             address);
    mr_store *store = redis_open(url);
    put_ok(store, "a", 1, 1);
    mr_store_close(store);
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d/mixrank", redis_server_free_port());
    assert_status(store_open_status(url, NULL, &err), MR_UNAVAILABLE, &err);
    assert_contains(err.message, "the Sentinel at 127.0.0.1:");
    assert_contains(err.message, "Connection refused");
    redis_sentinels_free(group);
}

static void the_masters_password_is_the_urls(void **state)
{
    redis_sentinels *group = group_of(&(redis_server_options){.password = "pw"});
    mr_error err = {0};
    char url[512];
    (void)state;
    mr_store *store = redis_open(redis_sentinels_url(group));
    put_ok(store, "a", 1, 1);
    mr_store_close(store);
    snprintf(url, sizeof url, "redis+sentinel://:hunter2@%s/mixrank",
             redis_server_address(redis_sentinels_sentinel(group, 0)));
    assert_status(store_open_status(url, NULL, &err), MR_IO, &err);
    assert_contains(err.message, "user 'default' is not let in");
    assert_null(strstr(err.message, "hunter2"));
    redis_sentinels_free(group);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_masters_name_leads_to_it_and_a_failover_is_followed),
        cmocka_unit_test(a_master_that_became_a_replica_is_left),
        cmocka_unit_test(sentinels_that_are_gone_or_know_nothing_are_said),
        cmocka_unit_test(the_masters_password_is_the_urls),
    };
    if (redis_server_missing())
        return redis_server_skip();
    return cmocka_run_group_tests_name("store_redis_sentinel", tests, NULL, NULL);
}
