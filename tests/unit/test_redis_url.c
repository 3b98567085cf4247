/* test_redis_url.c - what a store's Redis URL may say, and that no message repeats the password.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "featurestore/redis_url.h"
#include "featurestore/store.h"
#include "tests/support.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *or_none(const char *text)
{
    return text ? text : "(none)";
}

static void urls_are_read(void **state)
{
    static const struct {
        const char *url;
        mr_redis_kind kind;
        bool tls;
        int database;
        const char *user, *password, *master, *addresses, *shown;
    } row[] = {
        {"redis://localhost", MR_REDIS_SINGLE, false, 0, NULL, NULL, NULL, "localhost:6379 ",
         "redis://localhost"},
        {"redis://h:1/", MR_REDIS_SINGLE, false, 0, NULL, NULL, NULL, "h:1 ", "redis://h:1/"},
        {"redis://h:65535/15", MR_REDIS_SINGLE, false, 15, NULL, NULL, NULL, "h:65535 ",
         "redis://h:65535/15"},
        {"redis://alice:secret@h", MR_REDIS_SINGLE, false, 0, "alice", "secret", NULL, "h:6379 ",
         "redis://alice:***@h"},
        {"redis://:secret@h", MR_REDIS_SINGLE, false, 0, NULL, "secret", NULL, "h:6379 ",
         "redis://:***@h"},
        {"redis://alice@h", MR_REDIS_SINGLE, false, 0, "alice", NULL, NULL, "h:6379 ",
         "redis://alice@h"},
        {"redis://a%3Ab:p%40s%2Fs%25%c3%a9@h/2", MR_REDIS_SINGLE, false, 2, "a:b", "p@s/s%\xc3\xa9",
         NULL, "h:6379 ", "redis://a%3Ab:***@h/2"},
        {"redis://u:p@ss:w/rd@h:7", MR_REDIS_SINGLE, false, 0, "u", "p@ss:w/rd", NULL, "h:7 ",
         "redis://u:***@h:7"},
        {"redis://[::1]", MR_REDIS_SINGLE, false, 0, NULL, NULL, NULL, "[::1]:6379 ",
         "redis://[::1]"},
        {"redis://[fe80::1%25eth0]:7", MR_REDIS_SINGLE, false, 0, NULL, NULL, NULL,
         "[fe80::1%25eth0]:7 ", "redis://[fe80::1%25eth0]:7"},
        {"rediss://h:6380", MR_REDIS_SINGLE, true, 0, NULL, NULL, NULL, "h:6380 ",
         "rediss://h:6380"},
        {"redis+unix:/run/redis.sock", MR_REDIS_SINGLE, false, 0, NULL, NULL, NULL,
         "/run/redis.sock ", "redis+unix:/run/redis.sock"},
        {"redis+unix:///run/a%20b.sock?db=3", MR_REDIS_SINGLE, false, 3, NULL, NULL, NULL,
         "/run/a b.sock ", "redis+unix:///run/a%20b.sock?db=3"},
        {"redis+unix:///run/a@b.sock", MR_REDIS_SINGLE, false, 0, NULL, NULL, NULL,
         "/run/a@b.sock ", "redis+unix:///run/a@b.sock"},
        {"redis+unix://u:pw@/run/r.sock", MR_REDIS_SINGLE, false, 0, "u", "pw", NULL,
         "/run/r.sock ", "redis+unix://u:***@/run/r.sock"},
        {"redis+sentinel://s1,s2:7,[::2]:8/main/4", MR_REDIS_SENTINEL, false, 4, NULL, NULL, "main",
         "s1:26379 s2:7 [::2]:8 ", "redis+sentinel://s1,s2:7,[::2]:8/main/4"},
        {"redis+sentinel://u:pw@s1/a%2Fb", MR_REDIS_SENTINEL, false, 0, "u", "pw", "a/b",
         "s1:26379 ", "redis+sentinel://u:***@s1/a%2Fb"},
        {"redis+cluster://:pw@n1:1,n2", MR_REDIS_CLUSTER, false, 0, NULL, "pw", NULL,
         "n1:1 n2:6379 ", "redis+cluster://:***@n1:1,n2"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_redis_url url;
        mr_error err = {0};
        char addresses[1024] = "", text[MR_REDIS_ADDRESS_TEXT];
        assert_status(mr_redis_url_parse(row[i].url, &url, &err), MR_OK, &err);
        for (size_t k = 0; k < url.n; k++) {
            size_t at = strlen(addresses);
            snprintf(addresses + at, sizeof addresses - at, "%s ",
                     mr_redis_address_text(&url.address[k], text));
        }
        assert_int_equal(url.kind, row[i].kind);
        assert_int_equal(url.tls, row[i].tls);
        assert_int_equal(url.database, row[i].database);
        assert_string_equal(or_none(url.user), or_none(row[i].user));
        assert_string_equal(or_none(url.password), or_none(row[i].password));
        assert_string_equal(or_none(url.master), or_none(row[i].master));
        assert_string_equal(addresses, row[i].addresses);
        assert_string_equal(url.shown, row[i].shown);
        mr_redis_url_free(&url);
    }
}

static void what_is_wrong_is_named_without_the_password(void **state)
{
    static const struct {
        const char *url, *message;
    } row[] = {
        {"redis:localhost", "'redis:' is not followed by \"//\"; write redis://[USER"},
        {"redis://", "'' is no server; write HOST, HOST:PORT"},
        {"redis://u:hunter2@", "'redis://u:***@': '' is no server"},
        {"redis://u:hunter2@h:0", "'redis://u:***@h:0': 'h:0' is no server"},
        {"redis://u:hunter2@h:65536", "'h:65536' is no server"},
        {"redis://u:hunter2@h:6379x", "'h:6379x' is no server"},
        {"redis://u:hunter2@h:", "'h:' is no server"},
        {"redis://u:hunter2@:6379", "':6379' is no server"},
        {"redis://u:hunter2@h h", "'h h' is no server"},
        {"redis://u:hunter2@[::1", "'[::1' is no server"},
        {"redis://u:hunter2@[::1]6379", "'[::1]6379' is no server"},
        {"redis://u:hunter2@[localhost]:1", "'[localhost]:1' is no server"},
        {"redis://u:hunter2@::1", "'::1' is no server"},
        {"redis://u:hunter2@a,b", "names several servers, expected one"},
        {"redis://u:hunter2@h/x", "names database 'x', expected a number from 0 to 65535"},
        {"redis://u:hunter2@h/-1", "names database '-1'"},
        {"redis://u:hunter2@h/65536", "names database '65536'"},
        {"redis://u:hunter2@h/0/1", "names database '0/1'"},
        {"redis://u:hunter2%@h", "the password in a Redis URL has a '%'"},
        {"redis://u:hunter2%4@h", "the password in a Redis URL has a '%'"},
        {"redis://u:hunter2%00@h", "(other than 00)"},
        {"redis://u%zz:hunter2@h", "the user in a Redis URL has a '%'"},
        {"redis+unix:", "the path of the socket is 0 bytes long"},
        {"redis+unix://u:hunter2@", "the path of the socket is 0 bytes long"},
        {"redis+unix://run/redis.sock", "comes a sign-in with an '@', or an absolute path"},
        {"redis+unix:/run/r?hunter2", "only \"db=N\" may follow"},
        {"redis+unix:/run/r?db=", "names database ''"},
        {"redis+sentinel://u:hunter2@s1", "does not name the master"},
        {"redis+sentinel://u:hunter2@s1/", "does not name the master"},
        {"redis+sentinel://u:hunter2@s1,/m", "'' is no server"},
        {"redis+sentinel://u:hunter2@s1/m/x", "names database 'x'"},
        {"redis+cluster://u:hunter2@n1/1", "a cluster has no database numbers"},
        {"redis+proxy://u:hunter2@n1", "a Redis URL begins with redis://"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_redis_url url;
        mr_error err = {0};
        mr_store *store = NULL;
        assert_status(mr_redis_url_parse(row[i].url, &url, &err), MR_INVALID, &err);
        assert_contains(err.message, row[i].message);
        assert_null(url.shown);
        mr_error opened = {0};
        assert_status(mr_store_open(&store, row[i].url, NULL, &opened), MR_INVALID, &opened);
        assert_string_equal(opened.message, err.message);
        if (strstr(row[i].url, "u:hunter2"))
            assert_null(strstr(err.message, "hunter2"));
    }
}

static void lengths_have_bounds(void **state)
{
    char text[8192], host[400];
    mr_redis_url url;
    mr_error err = {0};
    (void)state;
    memset(host, 'h', sizeof host);
    snprintf(text, sizeof text, "redis://%.255s", host);
    assert_status(mr_redis_url_parse(text, &url, &err), MR_OK, &err);
    mr_redis_url_free(&url);
    snprintf(text, sizeof text, "redis://%.256s", host);
    assert_status(mr_redis_url_parse(text, &url, &err), MR_INVALID, &err);
    snprintf(text, sizeof text, "redis+unix:%.107s", host);
    assert_status(mr_redis_url_parse(text, &url, &err), MR_OK, &err);
    mr_redis_url_free(&url);
    snprintf(text, sizeof text, "redis+unix:%.108s", host);
    assert_status(mr_redis_url_parse(text, &url, &err), MR_INVALID, &err);
    assert_contains(err.message, "is 108 bytes long, expected 1 to 107");

    size_t len = (size_t)snprintf(text, sizeof text, "redis+cluster://h");
    for (int i = 1; i < 32; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, ",h%d", i);
    assert_status(mr_redis_url_parse(text, &url, &err), MR_OK, &err);
    assert_int_equal(url.n, 32);
    mr_redis_url_free(&url);
    snprintf(text + len, sizeof text - len, ",h32");
    assert_status(mr_redis_url_parse(text, &url, &err), MR_INVALID, &err);
    assert_contains(err.message, "names more than 32 servers");

    memset(text, 'x', 5000);
    memcpy(text, "redis://", 8);
    text[5000] = '\0';
    assert_status(mr_redis_url_parse(text, &url, &err), MR_INVALID, &err);
    assert_contains(err.message, "is 5000 bytes long, expected at most 4096");
}

/* Every prefix of good URLs: each is read or refused, and nothing else happens. */
static void urls_cut_anywhere_are_read_or_refused(void **state)
{
    static const char *const whole[] = {"redis+sentinel://u%41:p%42@s1:1,[::2]:8/main%20x/4",
                                        "redis+unix://u:pw@/run/r%20.sock?db=3"};
    (void)state;
    for (size_t i = 0; i < COUNT(whole); i++) {
        for (size_t len = 0; len <= strlen(whole[i]); len++) {
            char *cut = malloc(len + 1); /* exact, for the address sanitizer */
            mr_redis_url url;
            mr_error err = {0};
            assert_non_null(cut);
            memcpy(cut, whole[i], len);
            cut[len] = '\0';
            mr_status status = mr_redis_url_parse(cut, &url, &err);
            assert_true(status == MR_OK || status == MR_INVALID);
            if (status == MR_OK)
                mr_redis_url_free(&url);
            free(cut);
        }
    }
}

static void a_password_from_elsewhere_replaces_the_urls(void **state)
{
    mr_redis_url url;
    mr_error err = {0};
    (void)state;
    assert_status(mr_redis_url_parse("redis://u:old@h", &url, &err), MR_OK, &err);
    assert_status(mr_redis_url_set_password(&url, "n%41w", &err), MR_OK, &err);
    assert_string_equal(url.password, "n%41w"); /* not decoded: it is no part of a URL */
    assert_string_equal(url.shown, "redis://u:***@h");
    mr_redis_url_free(&url);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_are_read),
        cmocka_unit_test(what_is_wrong_is_named_without_the_password),
        cmocka_unit_test(lengths_have_bounds),
        cmocka_unit_test(urls_cut_anywhere_are_read_or_refused),
        cmocka_unit_test(a_password_from_elsewhere_replaces_the_urls),
    };
    return cmocka_run_group_tests_name("redis_url", tests, NULL, NULL);
}
