/* test_store_redis_hostile.c - servers that lie, stammer, stall or stop in the middle of a word.
 *
 * Whatever comes, a call ends in time with an error that says what was wrong, nothing of it is
 * taken for a record that it is not, and the store goes on when the server makes sense again.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/fake_redis.h"
#include "tests/unit/redis_fixture.h"

enum { TIMEOUT_MS = 150, SLACK_MS = 400 };

static mr_store *open_to(fake_redis *fake, uint64_t cache_bytes)
{
    mr_store_options options = MR_STORE_OPTIONS_DEFAULT;
    options.fetch_timeout_ms = TIMEOUT_MS;
    options.write_timeout_ms = 2 * TIMEOUT_MS;
    options.connect_timeout_ms = 500;
    options.cache_bytes = cache_bytes;
    return store_open(fake_redis_url(fake), &options);
}

/* ---- answers to a fetch ---------------------------------------------------------------------- */

#define NILS3 "*3\r\n$-1\r\n$-1\r\n$-1\r\n"

static void an_answer_that_makes_no_sense_fails_the_fetch_in_time(void **state)
{
    static const struct {
        fake_rule rule;
        const char *message;
    } row[] = {
        {{"MGET", FAKE_SAY, "+OK\r\n", 0, 0}, "is of type status, expected array"},
        {{"MGET", FAKE_SAY, ":3\r\n", 0, 0}, "is of type integer, expected array"},
        {{"MGET", FAKE_SAY, "$-1\r\n", 0, 0}, "is of type nil, expected array"},
        {{"MGET", FAKE_SAY, "*-1\r\n", 0, 0}, "is of type nil, expected array"},
        {{"MGET", FAKE_SAY, "*2\r\n$-1\r\n$-1\r\n", 0, 0}, "has 2 elements, expected 3"},
        {{"MGET", FAKE_SAY, "*4\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n", 0, 0},
         "has 4 elements, expected 3"},
        {{"MGET", FAKE_SAY, "*0\r\n", 0, 0}, "has 0 elements, expected 3"},
        {{"MGET", FAKE_SAY, "*3\r\n:1\r\n$-1\r\n$-1\r\n", 0, 0}, "an answer to MGET that makes no"},
        {{"MGET", FAKE_SAY, "*3\r\n*0\r\n$-1\r\n$-1\r\n", 0, 0}, "an answer to MGET that makes no"},
        {{"MGET", FAKE_SAY, "*1000000000\r\n", 0, 0}, "the server sent a reply of 1000000000 elem"},
        {{"MGET", FAKE_SAY, "*3\r\n$-9\r\n", 0, 0}, "does not speak Redis' protocol"},
        {{"MGET", FAKE_SAY, "*3\r\n$999999999999\r\nabc", 0, 0}, "did not answer"},
        {{"MGET", FAKE_SAY, "*3\r\n$5\r\nabc", 0, 0}, "did not answer"},
        {{"MGET", FAKE_SAY, "HTTP/1.1 200 OK\r\n\r\n", 0, 0}, "does not speak Redis' protocol"},
        {{"MGET", FAKE_SAY, "\0\0\0\0\0\0\0\0", 8, 0}, "does not speak Redis' protocol"},
        {{"MGET", FAKE_SAY, ">3\r\n$-1\r\n$-1\r\n$-1\r\n", 0, 0}, "the server "},
        {{"MGET", FAKE_SAY, "-ERR \x1b[31mred\r\n", 0, 0}, "refused: ERR ?[31mred"},
        {{"MGET", FAKE_SAY, "-\r\n", 0, 0}, "refused: "},
        {{"MGET", FAKE_SAY, "-NOPERM no\r\n", 0, 0}, "does not let user 'default' do this (NOPERM"},
        {{"MGET", FAKE_SAY, "-LOADING later\r\n", 0, 0}, "does not serve now: LOADING later"},
        {{"MGET", FAKE_SAY, "-BUSY script\r\n", 0, 0}, "does not serve now: BUSY script"},
        {{"MGET", FAKE_SAY, "-MASTERDOWN x\r\n", 0, 0}, "does not serve now: MASTERDOWN x"},
        {{"MGET", FAKE_SAY, "-MOVED 1 a:1\r\n", 0, 0}, "is part of a cluster (MOVED"},
        {{"MGET", FAKE_STALL, NULL, 0, 0}, "did not answer"},
        {{"MGET", FAKE_CLOSE, NULL, 0, 0}, "the server closed the connection"},
        {{"MGET", FAKE_CLOSE, "*3\r\n$-1\r\n$-1", 0, 0}, "the server closed the connection"},
        {{"MGET", FAKE_HALF_CLOSE, "*3\r\n$-1\r\n", 0, 0}, "the server closed the connection"},
        {{"MGET", FAKE_FLOOD, "*1\r\n", 0, 0}, "arrays that are nested too deeply"},
        {{"MGET", FAKE_FLOOD, "+x\r\n+x\r\n+x\r\n", 0, 0}, "is of type status, expected array"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        fake_redis *fake = fake_redis_start(&row[i].rule, 1);
        mr_store *store = open_to(fake, 0);
        seen_record seen[3];
        seen_list list = {.seen = seen, .n = 3};
        const mr_str ids[] = {mr_str_of("a"), mr_str_of("b"), mr_str_of("c")};
        mr_error err = {0};
        int64_t began = mr_clock_monotonic_us();
        mr_status status =
            mr_store_fetch(store, MR_ENTITY_ITEM, SPACE, ids, 3, see_record, &list, &err);
        if (status == MR_OK || !strstr(err.message, row[i].message))
            fail_msg("row %zu: %s '%s', expected '%s'", i, mr_status_name(status), err.message,
                     row[i].message);
        assert_true(since_ms(began) < TIMEOUT_MS + SLACK_MS);
        for (size_t k = 0; k < list.next; k++)
            assert_false(seen[k].found);
        assert_int_equal(health_of(store).failures, 1);
        mr_store_close(store);
        fake_redis_free(fake);
    }
}

static void an_answer_that_comes_byte_by_byte_is_an_answer(void **state)
{
    static const fake_rule rule = {"MGET", FAKE_SAY_SLOWLY, "*1\r\n$5\r\nhello\r\n", 0, 0};
    (void)state;
    fake_redis *fake = fake_redis_start(&rule, 1);
    mr_store *store = open_to(fake, 0);
    seen_record seen;
    seen_list list = {.seen = &seen, .n = 1};
    const mr_str id = mr_str_of("a");
    mr_error err = {0};
    assert_status(mr_store_fetch(store, MR_ENTITY_ITEM, SPACE, &id, 1, see_record, &list, &err),
                  MR_OK, &err);
    assert_true(list.damaged); /* what was stored is no record, and its reader finds that */
    assert_int_equal(health_of(store).foreign_values, 1);
    mr_store_close(store);
    fake_redis_free(fake);
}

/* The connection that lied is left, and the next fetch finds a new one. */
static void after_nonsense_the_store_connects_anew(void **state)
{
    static const fake_rule rules[] = {{"MGET", FAKE_SAY, "*2\r\n$-1\r\n$-1\r\n", 0, 1},
                                      {"MGET", FAKE_SAY, "*1\r\n$-1\r\n", 0, 0}};
    (void)state;
    fake_redis *fake = fake_redis_start(rules, COUNT(rules));
    mr_store *store = open_to(fake, 0);
    assert_int_equal(fetch_status(store, "a", NULL), MR_CORRUPT);
    WAIT_FOR(fetch_status(store, "a", NULL) == MR_OK, 2000);
    assert_int_equal(fake_redis_connections(fake), 2);
    assert_int_equal(health_of(store).reconnects, 1);
    mr_store_close(store);
    fake_redis_free(fake);
}

static void words_that_nobody_asked_for_end_the_connection(void **state)
{
    static const fake_rule rule = {"MGET", FAKE_SAY, "*1\r\n$-1\r\n", 0, 0};
    static const char *const pushed[] = {"+OK\r\n", "*1\r\n$-1\r\n", "-ERR max number\r\n", "\r\n"};
    (void)state;
    fake_redis *fake = fake_redis_start(&rule, 1);
    mr_store *store = open_to(fake, 0);
    for (size_t i = 0; i < COUNT(pushed); i++) {
        uint64_t before = health_of(store).reconnects;
        assert_int_equal(fetch_status(store, "a", NULL), MR_OK);
        fake_redis_push(fake, pushed[i], strlen(pushed[i]));
        WAIT_FOR(health_of(store).reconnects > before, 2000);
        WAIT_FOR(fetch_status(store, "a", NULL) == MR_OK, 2000);
    }
    mr_store_close(store);
    fake_redis_free(fake);
}

/* ---- sign-in --------------------------------------------------------------------------------- */

static void a_sign_in_that_goes_wrong_is_said_in_time(void **state)
{
    static const struct {
        fake_rule rule;
        const char *sign_in, *message;
    } row[] = {
        {{"PING", FAKE_STALL, NULL, 0, 0}, "", "no connection and sign-in within 500 ms"},
        {{"PING", FAKE_SAY, ":1\r\n", 0, 0}, "", "the server does not serve yet: integer"},
        {{"PING", FAKE_CLOSE, NULL, 0, 0}, "", "the server closed the connection"},
        {{"CLIENT", FAKE_SAY, "SSH-2.0-OpenSSH\r\n", 0, 0}, "", "does not speak Redis' protocol"},
        {{"CLIENT", FAKE_CLOSE, "-ERR max number of clients reached\r\n", 0, 0},
         "",
         "the server said ERR max number of clients reached"},
        {{"CLIENT", FAKE_FLOOD, "+OK\r\n+OK\r\n+PONG\r\n", 0, 0}, "", "the server"},
        {{"AUTH", FAKE_SAY, "-WRONGPASS no\r\n", 0, 0},
         "u:hunter2@",
         "user 'u' is not let in (WRONGPASS no)"},
        {{"AUTH", FAKE_SAY, "-ERR unknown command 'AUTH', with args: 'u' 'hunter2'\r\n", 0, 0},
         "u:hunter2@",
         "the server does not know AUTH"},
        {{"AUTH", FAKE_SAY, "*0\r\n", 0, 0}, "u:hunter2@", "the answer to AUTH is of type array"},
        {{"AUTH", FAKE_STALL, NULL, 0, 0}, "u:hunter2@", "no connection and sign-in within 500 ms"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        fake_redis *fake = fake_redis_start(&row[i].rule, 1);
        mr_store_options options = MR_STORE_OPTIONS_DEFAULT;
        mr_error err = {0};
        char url[128];
        int64_t began = mr_clock_monotonic_us();
        options.connect_timeout_ms = 500;
        snprintf(url, sizeof url, "redis://%s%s", row[i].sign_in,
                 fake_redis_url(fake) + strlen("redis://"));
        mr_status status = store_open_status(url, &options, &err);
        if (status == MR_OK || !strstr(err.message, row[i].message))
            fail_msg("row %zu: %s '%s', expected '%s'", i, mr_status_name(status), err.message,
                     row[i].message);
        assert_null(strstr(err.message, "hunter2"));
        assert_true(since_ms(began) < 500 + SLACK_MS);
        fake_redis_free(fake);
    }
}

static void a_server_that_is_loading_is_waited_for(void **state)
{
    static const fake_rule rules[] = {{"PING", FAKE_SAY, "-LOADING data\r\n", 0, 2},
                                      {"MGET", FAKE_SAY, "*1\r\n$-1\r\n", 0, 0}};
    (void)state;
    fake_redis *fake = fake_redis_start(rules, COUNT(rules));
    mr_store_options options = redis_options();
    options.connect_timeout_ms = 3000;
    mr_store *store = store_open(fake_redis_url(fake), &options);
    assert_int_equal(fake_redis_connections(fake), 3);
    assert_int_equal(fetch_status(store, "a", NULL), MR_OK);
    mr_store_close(store);
    fake_redis_free(fake);
}

/* ---- the invalidation connection ------------------------------------------------------------- */

static void odd_news_end_both_connections_and_the_store_serves_on(void **state)
{
    static const fake_rule rule = {"MGET", FAKE_SAY, "*1\r\n$-1\r\n", 0, 0};
    static const char *const news[] = {
        "*0\r\n",
        "*1\r\n$7\r\nmessage\r\n",
        "*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n:1\r\n",
        "*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n*1\r\n:1\r\n",
        "*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n*1\r\n*0\r\n",
        "*4\r\n$7\r\nmessage\r\n$1\r\nx\r\n*0\r\n*0\r\n",
        "*3\r\n$9\r\nsubscribe\r\n:7\r\n$-1\r\n",
        "*3\r\n:1\r\n:2\r\n:3\r\n",
        "$-1\r\n",
        "+OK\r\n",
        "-ERR x\r\n",
        "garbage\r\n",
    };
    (void)state;
    fake_redis *fake = fake_redis_start(&rule, 1);
    mr_store *store = open_to(fake, 1 << 20);
    assert_true(health_of(store).tracking);
    for (size_t i = 0; i < COUNT(news); i++) {
        uint64_t before = health_of(store).reconnects;
        fake_redis_push(fake, news[i], strlen(news[i]));
        WAIT_FOR(health_of(store).reconnects > before && health_of(store).tracking, 2000);
        WAIT_FOR(fetch_status(store, "a", NULL) == MR_OK, 2000);
    }
    mr_store_close(store);
    fake_redis_free(fake);
}

static void a_tracking_that_is_answered_oddly_is_done_without(void **state)
{
    static const fake_rule rows[] = {
        {"CLIENT TRACKING", FAKE_SAY, "-ERR unknown\r\n", 0, 0},
        {"CLIENT TRACKING", FAKE_SAY, ":1\r\n", 0, 0},
        {"CLIENT ID", FAKE_SAY, "+seven\r\n", 0, 0},
        {"SUBSCRIBE", FAKE_SAY, "-NOPERM\r\n", 0, 0},
        {"SUBSCRIBE", FAKE_SAY, "+OK\r\n", 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        const fake_rule rules[] = {rows[i], {"MGET", FAKE_SAY, "*1\r\n$-1\r\n", 0, 0}};
        fake_redis *fake = fake_redis_start(rules, 2);
        mr_store *store = open_to(fake, 1 << 20);
        assert_true(health_of(store).connected);
        assert_false(health_of(store).tracking);
        assert_int_equal(fetch_status(store, "a", NULL), MR_OK);
        mr_store_close(store);
        fake_redis_free(fake);
    }
}

/* ---- writes and walks ------------------------------------------------------------------------ */

static mr_status do_put(mr_store *store, mr_error *err)
{
    return put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of("a"), 1, 1, 4, NULL, err);
}

static bool visit_nothing(void *context, mr_str id, mr_bytes record)
{
    (void)id;
    (void)record;
    ++*(int *)context;
    return true;
}

static mr_status do_walk(mr_store *store, mr_error *err)
{
    int visits = 0;
    mr_status status = mr_store_walk(store, MR_ENTITY_ITEM, SPACE, visit_nothing, &visits, err);
    assert_int_equal(visits, 0);
    return status;
}

static mr_status do_stat(mr_store *store, mr_error *err)
{
    mr_store_stats stats;
    return mr_store_stat(store, &stats, err);
}

static mr_status do_note(mr_store *store, mr_error *err)
{
    char *value = NULL;
    size_t len;
    mr_status status = mr_store_get_note(store, "n", &value, &len, err);
    free(value);
    return status;
}

static mr_status do_set_note(mr_store *store, mr_error *err)
{
    return mr_store_set_note(store, "n", mr_str_of("v"), err);
}

static mr_status do_remove(mr_store *store, mr_error *err)
{
    return mr_store_remove_space(store, MR_ENTITY_ITEM, SPACE, NULL, err);
}

#define PAGE "*2\r\n$1\r\n0\r\n*1\r\n$31\r\nmixrank:item:9f00c0ffee000001:x\r\n"

static void other_calls_check_what_comes_too(void **state)
{
    static const struct {
        mr_status (*call)(mr_store *store, mr_error *err);
        fake_rule rules[2];
        const char *message;
    } row[] = {
        {do_put, {{"EVALSHA", FAKE_SAY, "*1\r\n:3\r\n", 0, 0}}, "an answer to EVALSHA that makes"},
        {do_put, {{"EVALSHA", FAKE_SAY, "*1\r\n:-1\r\n", 0, 0}}, "an answer to EVALSHA that makes"},
        {do_put, {{"EVALSHA", FAKE_SAY, "*1\r\n$-1\r\n", 0, 0}}, "an answer to EVALSHA that makes"},
        {do_put, {{"EVALSHA", FAKE_SAY, "*1\r\n:2\r\n", 0, 0}}, "holds a value of another type"},
        {do_put, {{"EVALSHA", FAKE_SAY, "*0\r\n", 0, 0}}, "has 0 elements, expected 1"},
        {do_put, {{"EVALSHA", FAKE_SAY, ":1\r\n", 0, 0}}, "is of type integer, expected array"},
        {do_put, {{"EVAL", FAKE_SAY, "-NOSCRIPT no\r\n", 0, 0}}, "refused: NOSCRIPT no"},
        {do_put, {{"EVALSHA", FAKE_SAY, "-READONLY no\r\n", 0, 0}}, "is a replica and takes no wr"},
        {do_put, {{"EVALSHA", FAKE_SAY, "-MISCONF disk\r\n", 0, 0}}, "refused: MISCONF disk"},
        {do_put, {{"EVALSHA", FAKE_SAY, "-LOADING x\r\n", 0, 0}}, "does not serve now: LOADING"},
        {do_put, {{"EVALSHA", FAKE_STALL, NULL, 0, 0}}, "did not answer"},
        {do_put, {{"EVALSHA", FAKE_CLOSE, NULL, 0, 0}}, "the server closed the connection"},
        {do_set_note, {{"SET", FAKE_SAY, "$-1\r\n", 0, 0}}, "an answer to SET that makes no sense"},
        {do_note, {{"GET", FAKE_SAY, ":1\r\n", 0, 0}}, "an answer to GET that makes no sense"},
        {do_note, {{"GET", FAKE_SAY, "$-1\r\n", 0, 0}}, "has no note 'mixrank:n'"},
        {do_walk, {{"SCAN", FAKE_SAY, "*0\r\n", 0, 0}}, "an answer to SCAN that makes no sense"},
        {do_walk, {{"SCAN", FAKE_SAY, "*2\r\n:0\r\n*0\r\n", 0, 0}}, "an answer to SCAN"},
        {do_walk, {{"SCAN", FAKE_SAY, "*2\r\n$1\r\n0\r\n*1\r\n:1\r\n", 0, 0}}, "answer to SCAN"},
        {do_walk, {{"SCAN", FAKE_SAY, "*2\r\n$1\r\nx\r\n*0\r\n", 0, 0}}, "an answer to SCAN"},
        {do_walk, {{"SCAN", FAKE_SAY, "*2\r\n$0\r\n\r\n*0\r\n", 0, 0}}, "an answer to SCAN"},
        {do_walk,
         {{"SCAN", FAKE_SAY, "*2\r\n$30\r\n111111111111111111111111111111\r\n*0\r\n", 0, 0}},
         "an answer to SCAN"},
        {do_walk,
         {{"SCAN", FAKE_SAY, PAGE, 0, 0}, {"MGET", FAKE_SAY, "*0\r\n", 0, 0}},
         "has 0 elements, expected 1"},
        {do_walk,
         {{"SCAN", FAKE_SAY, PAGE, 0, 0}, {"MGET", FAKE_SAY, "*1\r\n:1\r\n", 0, 0}},
         "an answer to MGET that makes no sense"},
        {do_stat, {{"DBSIZE", FAKE_SAY, ":-1\r\n", 0, 0}}, "an answer to DBSIZE that makes no"},
        {do_remove,
         {{"SCAN", FAKE_SAY, PAGE, 0, 0}, {"UNLINK", FAKE_SAY, "+x\r\n", 0, 0}},
         "an answer to UNLINK that makes no sense"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        fake_redis *fake = fake_redis_start(row[i].rules, row[i].rules[1].command ? 2 : 1);
        mr_store *store = open_to(fake, 0);
        mr_error err = {0};
        int64_t began = mr_clock_monotonic_us();
        mr_status status = row[i].call(store, &err);
        if (status == MR_OK || !strstr(err.message, row[i].message))
            fail_msg("row %zu: %s '%s', expected '%s'", i, mr_status_name(status), err.message,
                     row[i].message);
        assert_true(since_ms(began) < 2 * TIMEOUT_MS + SLACK_MS);
        mr_store_close(store);
        fake_redis_free(fake);
    }
}

/* Keys of a SCAN that are too short or too long for a record's, and one that comes twice. */
static void a_walk_skips_keys_that_are_none_of_its_own(void **state)
{
    static char page[1024];
    char huge[601];
    (void)state;
    memset(huge, 'k', 600);
    huge[600] = '\0';
    snprintf(page, sizeof page,
             "*2\r\n$1\r\n0\r\n*4\r\n$31\r\nmixrank:item:9f00c0ffee000001:x\r\n$1\r\nm\r\n"
             "$600\r\n%s\r\n$31\r\nmixrank:item:9f00c0ffee000001:x\r\n",
             huge);
    const fake_rule rules[] = {
        {"SCAN", FAKE_SAY, page, 0, 0},
        {"MGET mixrank:item:9f00c0ffee000001:x ", FAKE_SAY, "*1\r\n$2\r\nhi\r\n", 0, 0}};
    fake_redis *fake = fake_redis_start(rules, 2);
    mr_store *store = open_to(fake, 0);
    mr_error err = {0};
    int visits = 0;
    assert_status(mr_store_walk(store, MR_ENTITY_ITEM, SPACE, visit_nothing, &visits, &err), MR_OK,
                  &err);
    assert_int_equal(visits, 1);
    mr_store_close(store);
    fake_redis_free(fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_that_makes_no_sense_fails_the_fetch_in_time),
        cmocka_unit_test(an_answer_that_comes_byte_by_byte_is_an_answer),
        cmocka_unit_test(after_nonsense_the_store_connects_anew),
        cmocka_unit_test(words_that_nobody_asked_for_end_the_connection),
        cmocka_unit_test(a_sign_in_that_goes_wrong_is_said_in_time),
        cmocka_unit_test(a_server_that_is_loading_is_waited_for),
        cmocka_unit_test(odd_news_end_both_connections_and_the_store_serves_on),
        cmocka_unit_test(a_tracking_that_is_answered_oddly_is_done_without),
        cmocka_unit_test(other_calls_check_what_comes_too),
        cmocka_unit_test(a_walk_skips_keys_that_are_none_of_its_own),
    };
    return cmocka_run_group_tests_name("store_redis_hostile", tests, NULL, NULL);
}
