/* test_store_redis.c - what a store keeps in a real Redis, and what it says of a server that
 * refuses.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/redis_fixture.h"

/* ---- what lies where ------------------------------------------------------------------------- */

static void records_and_notes_lie_under_plain_keys(void **state)
{
    redis_server *server = redis_empty();
    mr_store *store = redis_open(redis_server_url(server));
    mr_error err = {0};
    (void)state;
    put_ok(store, "a", 7, 1);
    assert_status(mr_store_set_note(store, "place", mr_str_of("v"), &err), MR_OK, &err);
    mr_bytes record = record_new(SPACE, 7, 1, 4);
    redisReply *reply = redis_server_command(server, "GET " ITEM_KEY("a"));
    assert_int_equal(reply->len, record.len);
    assert_memory_equal(reply->str, record.data, record.len);
    freeReplyObject(reply);
    reply = redis_server_command(server, "GET mixrank:note:place");
    assert_string_equal(reply->str, "v");
    freeReplyObject(reply);
    assert_int_equal(redis_server_integer(server, "DBSIZE"), 2);
    assert_string_equal(mr_store_backend(store), "redis");
    record_free(record);
    mr_store_close(store);
}

static void many_databases_and_namespaces_are_apart(void **state)
{
    redis_server *server = redis_empty();
    mr_store_options options = redis_options();
    char url[256];
    (void)state;
    mr_store *zero = redis_open(redis_server_url(server));
    snprintf(url, sizeof url, "redis://%s/3", redis_server_address(server));
    mr_store *three = redis_open(url);
    options.name_space = "other";
    mr_store *other = store_open(redis_server_url(server), &options);
    put_ok(zero, "a", 1, 1);
    assert_false(fetch_one(three, "a").found);
    assert_false(fetch_one(other, "a").found);
    put_ok(three, "a", 1, 3);
    assert_true(fetch_one(zero, "a").mark == 1);
    assert_true(fetch_one(three, "a").mark == 3);
    mr_store_close(zero);
    mr_store_close(three);
    mr_store_close(other);
}

static void a_socket_file_serves_as_well(void **state)
{
    redis_server *server = redis_empty();
    mr_store *store = redis_open(redis_server_url_unix(server));
    char url[512];
    mr_error err = {0};
    (void)state;
    put_ok(store, "a", 1, 1);
    assert_true(fetch_one(store, "a").mark == 1);
    mr_store_close(store);
    snprintf(url, sizeof url, "redis+unix:%s?db=2", redis_server_socket(server));
    store = redis_open(url);
    assert_false(fetch_one(store, "a").found);
    mr_store_close(store);
    assert_status(store_open_status("redis+unix:/nowhere/redis.sock", NULL, &err), MR_UNAVAILABLE,
                  &err);
    assert_contains(err.message, "Redis at /nowhere/redis.sock: connecting failed: No such file");
}

static void a_fetch_of_thousands_is_whole(void **state)
{
    redis_server *server = redis_empty();
    mr_store *store = redis_open(redis_server_url(server));
    enum { N = 9001 }; /* three MGETs */
    static char names[N][16];
    static mr_str ids[N];
    static seen_record seen[N];
    mr_store_put_item *items = calloc(N, sizeof *items);
    mr_store_put_result result = {0};
    mr_error err = {0};
    (void)state;
    assert_non_null(items);
    for (size_t i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "%zu", i);
        ids[i] = i % 1000 == 7 ? mr_str_of("") : mr_str_of(names[i]);
        items[i] = (mr_store_put_item){mr_str_of(names[i]), record_new(SPACE, 1, (float)i, 40)};
    }
    assert_status(mr_store_put(store, MR_ENTITY_ITEM, SPACE, items, N, &result, &err), MR_OK, &err);
    assert_int_equal(result.written, N);
    fetch_ids(store, MR_ENTITY_ITEM, SPACE, ids, N, seen);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(seen[i].found, i % 1000 != 7);
        assert_true(!seen[i].found || seen[i].mark == (float)i);
        record_free(items[i].record);
    }
    mr_store_health health = health_of(store);
    assert_int_equal(health.fetches, 1);
    assert_int_equal(health.fetch_count, 1);
    assert_int_equal(health.ids, N);
    assert_int_equal(health.misses, 9);
    assert_int_equal(health.hits_store, N - 9);
    free(items);
    mr_store_close(store);
}

static void a_removed_space_is_gone_and_nothing_else(void **state)
{
    redis_server *server = redis_empty();
    mr_store *store = redis_open(redis_server_url(server));
    mr_error err = {0};
    uint64_t removed = 99;
    (void)state;
    for (int i = 0; i < 2500; i++) {
        char id[16];
        snprintf(id, sizeof id, "r%d", i);
        put_ok(store, id, 1, 1);
    }
    assert_status(
        put_record(store, MR_ENTITY_ITEM, SPACE + 1, mr_str_of("r1"), 1, 2, 2, NULL, &err), MR_OK,
        &err);
    assert_status(put_record(store, MR_ENTITY_USER, SPACE, mr_str_of("r1"), 1, 2, 2, NULL, &err),
                  MR_OK, &err);
    assert_status(mr_store_remove_space(store, MR_ENTITY_ITEM, SPACE, &removed, &err), MR_OK, &err);
    assert_int_equal(removed, 2500);
    assert_int_equal(redis_server_integer(server, "DBSIZE"), 2);
    assert_status(mr_store_remove_space(store, MR_ENTITY_ITEM, SPACE, &removed, &err), MR_OK, &err);
    assert_int_equal(removed, 0);
    mr_store_close(store);
}

static void read_only_takes_no_writes(void **state)
{
    redis_server *server = redis_empty();
    mr_store_options options = redis_options();
    mr_error err = {0};
    (void)state;
    options.read_only = true;
    mr_store *store = store_open(redis_server_url(server), &options);
    assert_status(put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of("a"), 1, 1, 2, NULL, &err),
                  MR_INVALID, &err);
    assert_contains(err.message, "read_only");
    assert_status(mr_store_set_note(store, "n", mr_str_of("v"), &err), MR_INVALID, &err);
    assert_status(mr_store_remove_space(store, MR_ENTITY_ITEM, SPACE, NULL, &err), MR_INVALID,
                  &err);
    assert_int_equal(redis_server_integer(server, "DBSIZE"), 0);
    mr_store_close(store);
}

/* ---- other values under our keys ------------------------------------------------------------- */

static void values_that_are_no_records_are_told_counted_and_replaced(void **state)
{
    redis_server *server = redis_empty();
    mr_store *store = redis_open(redis_server_url(server));
    mr_bytes record = record_new(SPACE, 5, 1, 4);
    uint8_t *bytes = (uint8_t *)(uintptr_t)record.data;
    (void)state;
    const struct {
        const char *name;
        size_t len;
        size_t flip; /* this byte, when it is not 0 */
        bool plausible;
    } row[] = {
        {"text", 0, 0, false},
        {"cut in the header", 47, 0, false},
        {"header alone", 48, 0, false},
        {"cut in the payload", record.len - 1, 0, false},
        {"other magic", record.len, 1, false},
        {"other layout", record.len, 4, false},
        {"other length", record.len, 36, false},
        {"whole", record.len, 0, true},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_store_health before = health_of(store);
        mr_store_put_result result = {0};
        mr_error err = {0};
        if (row[i].flip)
            bytes[row[i].flip] ^= 2;
        if (row[i].len)
            assert_true(redis_server_run(server, "SET " ITEM_KEY("x") " %b", bytes, row[i].len));
        else
            assert_true(redis_server_run(server, "SET " ITEM_KEY("x") " hello"));
        if (row[i].flip)
            bytes[row[i].flip] ^= 2;
        seen_record seen;
        seen_list list = {.seen = &seen, .n = 1};
        mr_str id = mr_str_of("x");
        assert_status(mr_store_fetch(store, MR_ENTITY_ITEM, SPACE, &id, 1, see_record, &list, &err),
                      MR_OK, &err);
        assert_int_equal(list.damaged, !row[i].plausible);
        assert_int_equal(health_of(store).foreign_values - before.foreign_values,
                         !row[i].plausible);
        /* An older version replaces what is no record, and no record that is one. */
        assert_status(put_record(store, MR_ENTITY_ITEM, SPACE, id, 4, 2, 4, &result, &err), MR_OK,
                      &err);
        if (result.written != !row[i].plausible)
            fail_msg("%s: written %zu", row[i].name, result.written);
        assert_true(fetch_one(store, "x").mark == (row[i].plausible ? 1 : 2));
    }
    record_free(record);
    mr_store_close(store);
}

static void a_value_of_another_type_fails_the_put_but_not_the_other_records(void **state)
{
    redis_server *server = redis_empty();
    mr_store *store = redis_open(redis_server_url(server));
    mr_store_put_item items[] = {{mr_str_of("a"), record_new(SPACE, 1, 1, 2)},
                                 {mr_str_of("b"), record_new(SPACE, 1, 2, 2)},
                                 {mr_str_of("c"), record_new(SPACE, 1, 3, 2)},
                                 {mr_str_of("d"), record_new(SPACE, 1, 4, 2)}};
    mr_store_put_result result = {9, 9};
    mr_error err = {0};
    (void)state;
    assert_true(redis_server_run(server, "LPUSH " ITEM_KEY("b") " x"));
    assert_true(redis_server_run(server, "HSET " ITEM_KEY("c") " f x"));
    assert_status(mr_store_put_with_note(store, MR_ENTITY_ITEM, SPACE, items, 4, "n",
                                         mr_str_of("v"), &result, &err),
                  MR_MISMATCH, &err);
    assert_contains(err.message, "key '" ITEM_KEY("b") "' holds a value of another type");
    assert_contains(err.message, "choose another namespace");
    assert_int_equal(result.written, 9);
    assert_int_equal(health_of(store).foreign_values, 2);
    assert_true(fetch_one(store, "a").mark == 1);
    assert_false(fetch_one(store, "b").found);
    assert_true(fetch_one(store, "d").mark == 4);
    assert_int_equal(redis_server_integer(server, "EXISTS mixrank:note:n"), 0);
    assert_int_equal(redis_server_integer(server, "LLEN " ITEM_KEY("b")), 1);

    char *value = NULL;
    size_t len;
    assert_true(redis_server_run(server, "LPUSH mixrank:note:list x"));
    assert_status(mr_store_get_note(store, "list", &value, &len, &err), MR_MISMATCH, &err);
    assert_contains(err.message, "holds something else under a key of ours");
    for (size_t i = 0; i < COUNT(items); i++)
        record_free(items[i].record);
    mr_store_close(store);
}

/* ---- the script ------------------------------------------------------------------------------ */

static void the_script_comes_back_after_a_script_flush(void **state)
{
    redis_server *server = redis_empty();
    mr_store *store = redis_open(redis_server_url(server));
    (void)state;
    for (uint64_t version = 1; version < 4; version++) {
        assert_true(redis_server_run(server, "SCRIPT FLUSH"));
        put_ok(store, "a", version, (float)version);
    }
    assert_int_equal(redis_server_info(server, "number_of_cached_scripts"), 1);
    /* From now on its name is enough. */
    assert_true(redis_server_run(server, "CONFIG RESETSTAT"));
    put_ok(store, "a", 4, 4);
    redisReply *reply = redis_server_command(server, "INFO commandstats");
    assert_contains(reply->str, "cmdstat_evalsha:calls=1");
    assert_null(strstr(reply->str, "cmdstat_eval:"));
    freeReplyObject(reply);
    mr_store_close(store);
}

/* Each byte of a version at each of its ends: strcoll, doubles and signs all fail some of these. */
static void versions_compare_as_64_bit_numbers(redis_server *server)
{
    static const uint64_t seeds[] = {0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x80000000, 0xffffffff};
    enum { N = COUNT(seeds) * 4 };
    uint64_t versions[N];
    size_t n = 0;
    mr_store *store = redis_open(redis_server_url(server));
    for (size_t i = 0; i < COUNT(seeds); i++) {
        versions[n++] = seeds[i];
        versions[n++] = seeds[i] << 32;
        versions[n++] = (UINT64_C(1) << 53) + seeds[i];
        versions[n++] = UINT64_MAX - seeds[i];
    }
    for (size_t i = 0; i < N; i++) {
        for (size_t k = 0; k < N; k++) {
            mr_store_put_result result = {0};
            mr_error err = {0};
            char id[32];
            snprintf(id, sizeof id, "%zu-%zu", i, k);
            put_ok(store, id, versions[i], 1);
            assert_status(put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of(id), versions[k], 2, 4,
                                     &result, &err),
                          MR_OK, &err);
            if (result.written != (versions[k] > versions[i]))
                fail_msg("%016llx onto %016llx: written %zu", (unsigned long long)versions[k],
                         (unsigned long long)versions[i], result.written);
        }
    }
    mr_store_close(store);
}

static void versions_up_to_2_to_the_64_decide(void **state)
{
    (void)state;
    versions_compare_as_64_bit_numbers(redis_empty());
}

/* In en_US.UTF-8 'a' sorts before 'B': that the server really compares so is asked of it first. The
 * locale is made here where the machine has none. */
static void versions_decide_under_another_locale(void **state)
{
    char command[512];
    snprintf(command, sizeof command, "localedef -i en_US -f UTF-8 '%s' >/dev/null 2>&1",
             test_path(*state, "en_US.UTF-8"));
    bool made = system(command) == 0;
    if (made)
        setenv("LOCPATH", *state, 1);
    redis_server *server = redis_server_start(&(redis_server_options){.locale = "en_US.UTF-8"});
    unsetenv("LOCPATH");
    assert_non_null(server);
    bool differs = redis_server_integer(server, "EVAL %s 0", "return 'a' < 'B' and 1 or 0") == 1;
    if (differs)
        versions_compare_as_64_bit_numbers(server);
    redis_server_free(server);
    if (!differs) {
        print_message("skipped: no locale en_US.UTF-8, and localedef cannot make it\n");
        skip();
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static void records_expire_with_a_spread_and_tombstones_on_their_own(void **state)
{
    redis_server *server = redis_empty();
    mr_store_options options = redis_options();
    mr_error err = {0};
    int64_t least = INT64_MAX, most = 0;
    (void)state;
    options.record_ttl_ms = 100000;
    options.tombstone_ttl_ms = 3000000;
    mr_store *store = store_open(redis_server_url(server), &options);
    for (int i = 0; i < 100; i++) {
        char id[16];
        snprintf(id, sizeof id, "t%d", i);
        put_ok(store, id, 1, 1);
        int64_t ttl = redis_server_integer(server, "PTTL " ITEM_KEY("%s"), id);
        least = ttl < least ? ttl : least;
        most = ttl > most ? ttl : most;
    }
    if (least < 80000 || most > 110000 || most - least < 5000)
        fail_msg("lives of %lld to %lld ms, expected 90000 to 110000 spread", (long long)least,
                 (long long)most);
    assert_status(put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of("t1"), 2, 0, 0, NULL, &err),
                  MR_OK, &err);
    int64_t ttl = redis_server_integer(server, "PTTL " ITEM_KEY("t1"));
    assert_in_range(ttl, 2600000, 3300000);
    mr_store_close(store);

    /* Without an age records stay, and tombstones go after 30 days. */
    store = redis_open(redis_server_url(server));
    put_ok(store, "t1", 3, 1);
    assert_int_equal(redis_server_integer(server, "PTTL " ITEM_KEY("t1")), -1);
    assert_status(put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of("t1"), 4, 0, 0, NULL, &err),
                  MR_OK, &err);
    ttl = redis_server_integer(server, "PTTL " ITEM_KEY("t1")) / 86400000;
    assert_in_range(ttl, 26, 33);
    mr_store_close(store);
}

static void an_expired_record_is_missing(void **state)
{
    redis_server *server = redis_empty();
    mr_store_options options = redis_options();
    (void)state;
    options.record_ttl_ms = 50;
    mr_store *store = store_open(redis_server_url(server), &options);
    put_ok(store, "a", 1, 1);
    WAIT_FOR(!fetch_one(store, "a").found, 2000);
    put_ok(store, "a", 1, 1); /* the version went with it */
    mr_store_close(store);
}

/* ---- a full server --------------------------------------------------------------------------- */

static void a_full_server_is_exhausted_and_goes_on_serving(void **state)
{
    redis_server *server = redis_server_start(&(redis_server_options){.maxmemory = "4mb"});
    assert_non_null(server);
    mr_store *store = redis_open(redis_server_url(server));
    mr_error err = {0};
    mr_status status = MR_OK;
    mr_store_stats stats;
    uint64_t n = 0;
    (void)state;
    while (status == MR_OK && n < 20000) {
        char id[32];
        snprintf(id, sizeof id, "f%llu", (unsigned long long)n);
        status =
            put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of(id), 1, (float)n, 256, NULL, &err);
        n += status == MR_OK;
    }
    assert_status(status, MR_EXHAUSTED, &err);
    assert_contains(err.message, "is full: OOM");
    assert_contains(err.message, "raise maxmemory");
    assert_true(n > 100);
    assert_true(fetch_one(store, "f7").mark == 7);
    assert_status(mr_store_stat(store, &stats, &err), MR_OK, &err);
    assert_int_equal(stats.records, n);
    assert_int_equal(stats.max_bytes, 4 << 20);
    /* It is told once per put, and costs the breaker nothing. */
    assert_int_equal(health_of(store).breaker, 0);
    mr_store_close(store);
    redis_server_free(server);
}

/* ---- users ----------------------------------------------------------------------------------- */

static redis_server *server_with_users(void)
{
    static redis_server *server;
    if (!server)
        server = redis_server_start(&(redis_server_options){
            .acl = "user default on >root ~* &* +@all\n"
                   "user alice on >s%cr:t/ ~mixrank:* &__redis__:invalidate +@all\n"
                   "user reader on >r ~mixrank:* resetchannels +mget +get +ping\n"
                   "user free on nopass ~* &* +@all\n"
                   /* as docs/store.md has them */
                   "user ranker on >k ~mixrank:* &__redis__:invalidate +mget +get +ping "
                   "+client|setname +client|id +client|tracking +subscribe\n"
                   "user writer on >w ~mixrank:* &__redis__:invalidate +mget +get +set +evalsha "
                   "+eval +getrange +strlen +scan +unlink +dbsize +info|memory +ping +select "
                   "+client|setname +client|id +client|tracking +subscribe\n",
            .password = "root"});
    assert_non_null(server);
    return server;
}

static void a_user_with_a_password_is_let_in(void **state)
{
    redis_server *server = server_with_users();
    mr_store_options options = redis_options();
    char url[256];
    (void)state;
    snprintf(url, sizeof url, "redis://alice:s%%25cr%%3At%%2F@%s", redis_server_address(server));
    mr_store *store = redis_open(url);
    put_ok(store, "a", 1, 1);
    mr_store_close(store);
    /* The option goes before what the URL says. */
    options.password = "s%cr:t/";
    snprintf(url, sizeof url, "redis://alice:wrong@%s", redis_server_address(server));
    store = store_open(url, &options);
    assert_true(fetch_one(store, "a").found);
    mr_store_close(store);
    snprintf(url, sizeof url, "redis://free@%s", redis_server_address(server));
    store = redis_open(url);
    mr_store_close(store);
    snprintf(url, sizeof url, "redis://:root@%s", redis_server_address(server));
    store = redis_open(url);
    mr_store_close(store);
}

static void a_wrong_sign_in_names_user_and_server_but_no_password(void **state)
{
    redis_server *server = server_with_users();
    static const struct {
        const char *sign_in, *message;
    } row[] = {
        {"alice:hunter2@", "user 'alice' is not let in (WRONGPASS"},
        {":hunter2@", "user 'default' is not let in (WRONGPASS"},
        {"nobody:hunter2@", "user 'nobody' is not let in (WRONGPASS"},
        {"", "the server wants a password (NOAUTH"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        char url[256];
        mr_error err = {0};
        int64_t began = mr_clock_monotonic_us();
        snprintf(url, sizeof url, "redis://%s%s", row[i].sign_in, redis_server_address(server));
        assert_status(store_open_status(url, NULL, &err), MR_IO, &err);
        assert_contains(err.message, row[i].message);
        assert_contains(err.message, redis_server_address(server));
        assert_null(strstr(err.message, "hunter2"));
        assert_true(since_ms(began) < 900); /* it need not be waited for */
    }
}

static void what_a_user_may_not_do_is_said(void **state)
{
    redis_server *server = server_with_users();
    char url[256];
    mr_error err = {0};
    (void)state;
    snprintf(url, sizeof url, "redis://reader:r@%s", redis_server_address(server));
    mr_store *store = redis_open(url); /* without a name, and without CLIENT at all */
    assert_false(fetch_one(store, "none").found);
    assert_status(put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of("a"), 1, 1, 2, NULL, &err),
                  MR_IO, &err);
    assert_contains(err.message, "does not let user 'reader' do this (NOPERM");
    assert_status(mr_store_remove_space(store, MR_ENTITY_ITEM, SPACE, NULL, &err), MR_IO, &err);
    mr_store_close(store);
    mr_store_options options = redis_options();
    options.name_space = "foreign";
    store = store_open(url, &options);
    assert_status(fetch_status(store, "a", &err), MR_IO, &err);
    assert_contains(err.message, "NOPERM");
    mr_store_close(store);
}

static bool count_visit(void *context, mr_str id, mr_bytes record)
{
    (void)id;
    (void)record;
    ++*(size_t *)context;
    return true;
}

static void the_documented_rights_are_enough(void **state)
{
    redis_server *server = server_with_users();
    mr_store_options options = redis_options();
    char url[256];
    mr_error err = {0};
    mr_store_stats stats;
    uint64_t space, removed;
    size_t n = 0, spaces = 0;
    (void)state;
    assert_true(redis_server_run(server, "FLUSHALL"));
    options.cache_bytes = 1 << 20;
    snprintf(url, sizeof url, "redis://writer:w@%s/1", redis_server_address(server));
    mr_store *writer = store_open(url, &options);
    assert_true(health_of(writer).tracking);
    put_ok(writer, "a", 1, 1);
    put_ok(writer, "a", 2, 2);
    assert_status(mr_store_set_note(writer, "n", mr_str_of("v"), &err), MR_OK, &err);
    assert_note(writer, "n", "v");
    assert_status(mr_store_walk(writer, MR_ENTITY_ITEM, SPACE, count_visit, &n, &err), MR_OK, &err);
    assert_int_equal(n, 1);
    assert_status(mr_store_spaces(writer, MR_ENTITY_ITEM, &space, 1, &spaces, &err), MR_OK, &err);
    assert_status(mr_store_stat(writer, &stats, &err), MR_OK, &err);
    assert_int_equal(stats.records, 1);
    assert_status(mr_store_remove_space(writer, MR_ENTITY_ITEM, SPACE, &removed, &err), MR_OK,
                  &err);
    assert_int_equal(removed, 1);
    mr_store_close(writer);
    snprintf(url, sizeof url, "redis://ranker:k@%s", redis_server_address(server));
    mr_store *ranker = store_open(url, &options);
    assert_true(health_of(ranker).tracking);
    assert_false(fetch_one(ranker, "a").found);
    mr_store_close(ranker);
}

static void a_database_that_is_not_there_is_said(void **state)
{
    redis_server *server = redis_empty();
    char url[256];
    mr_error err = {0};
    (void)state;
    snprintf(url, sizeof url, "redis://%s/16", redis_server_address(server));
    assert_status(store_open_status(url, NULL, &err), MR_IO, &err);
    assert_contains(err.message, "database 16 cannot be used: ERR DB index is out of range");
}

/* ---- options --------------------------------------------------------------------------------- */

static void times_have_bounds(void **state)
{
    mr_store_options options = redis_options();
    mr_error err = {0};
    (void)state;
    options.write_timeout_ms = -1;
    assert_status(store_open_status("memory:", &options, &err), MR_INVALID, &err);
    assert_contains(err.message, "write_timeout_ms is -1, expected 0 (the default) to");
    options.write_timeout_ms = INT64_MAX;
    assert_status(store_open_status("memory:", &options, &err), MR_INVALID, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_and_notes_lie_under_plain_keys),
        cmocka_unit_test(many_databases_and_namespaces_are_apart),
        cmocka_unit_test(a_socket_file_serves_as_well),
        cmocka_unit_test(a_fetch_of_thousands_is_whole),
        cmocka_unit_test(a_removed_space_is_gone_and_nothing_else),
        cmocka_unit_test(read_only_takes_no_writes),
        cmocka_unit_test(values_that_are_no_records_are_told_counted_and_replaced),
        cmocka_unit_test(a_value_of_another_type_fails_the_put_but_not_the_other_records),
        cmocka_unit_test(the_script_comes_back_after_a_script_flush),
        cmocka_unit_test(versions_up_to_2_to_the_64_decide),
        WITH_FOLDER(versions_decide_under_another_locale),
        cmocka_unit_test(records_expire_with_a_spread_and_tombstones_on_their_own),
        cmocka_unit_test(an_expired_record_is_missing),
        cmocka_unit_test(a_full_server_is_exhausted_and_goes_on_serving),
        cmocka_unit_test(a_user_with_a_password_is_let_in),
        cmocka_unit_test(a_wrong_sign_in_names_user_and_server_but_no_password),
        cmocka_unit_test(what_a_user_may_not_do_is_said),
        cmocka_unit_test(the_documented_rights_are_enough),
        cmocka_unit_test(a_database_that_is_not_there_is_said),
        cmocka_unit_test(times_have_bounds),
    };
    if (redis_server_missing())
        return redis_server_skip();
    return cmocka_run_group_tests_name("store_redis", tests, NULL, NULL);
}
