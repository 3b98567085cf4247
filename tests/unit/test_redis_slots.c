/* test_redis_slots.c - slots of keys, the map out of CLUSTER SLOTS, redirections; no server.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "featurestore/redis_slots.h"
#include "tests/support.h"

static const mr_redis_address asked = {"10.0.0.9", 7009};

/* A reply out of RESP text; NULL when the text ends within it. */
static mr_redis_reply *reply_of(const char *resp, size_t len)
{
    mr_redis_reader *reader;
    mr_redis_reply *reply = NULL;
    mr_error err = {0};
    assert_status(mr_redis_reader_new(&reader, &err), MR_OK, &err);
    assert_status(mr_redis_reader_feed(reader, resp, len, &err), MR_OK, &err);
    assert_status(mr_redis_reader_next(reader, &reply, &err), MR_OK, &err);
    mr_redis_reader_free(reader);
    return reply;
}

static mr_status read_map(const char *resp, mr_redis_slot_map *map, mr_error *err)
{
    mr_redis_reply *reply = reply_of(resp, strlen(resp));
    assert_non_null(reply);
    mr_status status = mr_redis_slots_read(mr_redis_reply_value(reply), &asked, map, err);
    mr_redis_reply_free(reply);
    return status;
}

/* ---- slots ----------------------------------------------------------------------------------- */

static void crc16_is_the_specifications(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned crc;
    } rows[] = {{"", 0}, {"123456789", 0x31c3}, {"A", 0x58e5}, {"foo", 44950}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(mr_redis_crc16(rows[i].text, strlen(rows[i].text)), rows[i].crc);
    /* Bit by bit, over every byte value. */
    uint8_t bytes[256];
    unsigned crc = 0;
    for (unsigned i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)i;
        crc ^= i << 8;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 0x8000 ? (crc << 1 ^ 0x1021) & 0xffff : crc << 1 & 0xffff;
    }
    assert_int_equal(mr_redis_crc16(bytes, sizeof bytes), crc);
}

static void only_a_hash_tag_counts_where_there_is_one(void **state)
{
    (void)state;
    static const struct {
        const char *key, *counts;
    } rows[] = {
        {"{user1000}.following", "user1000"},
        {"foo{}{bar}", "foo{}{bar}"},
        {"foo{{bar}}zap", "{bar"},
        {"foo{bar}{zap}", "bar"},
        {"{bar", "{bar"},
        {"bar}", "bar}"},
        {"}bar{", "}bar{"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned want = mr_redis_crc16(rows[i].counts, strlen(rows[i].counts)) % MR_REDIS_SLOTS;
        unsigned got = mr_redis_slot((mr_bytes){rows[i].key, strlen(rows[i].key)});
        if (got != want)
            fail_msg("slot of '%s' is %u, expected %u", rows[i].key, got, want);
    }
    assert_int_equal(mr_redis_slot((mr_bytes){"foo", 3}), 12182); /* as redis answers */
}

/* ---- the map --------------------------------------------------------------------------------- */

#define NODE(host_len, host, port) "*3\r\n$" host_len "\r\n" host "\r\n:" port "\r\n$2\r\nid\r\n"
#define RANGE(first, last, node)   "*3\r\n:" first "\r\n:" last "\r\n" node

static void a_map_names_the_masters_of_slots(void **state)
{
    mr_redis_slot_map *map = *state;
    mr_error err = {0};
    /* A replica behind a master, an empty and an absent host, a name, a host of nobody. */
    static const char resp[] =
        "*6\r\n"
        "*4\r\n:0\r\n:99\r\n" NODE("8", "10.0.0.1", "7001") NODE("8", "10.0.0.2", "7002")
            RANGE("100", "199", NODE("0", "", "7003"))
                RANGE("200", "299", "*4\r\n$-1\r\n:7003\r\n$2\r\nid\r\n*0\r\n")
                    RANGE("300", "300", NODE("7", "a.local", "7004"))
                        RANGE("301", "400", NODE("1", "?", "7004"))
                            RANGE("16383", "16383", NODE("8", "10.0.0.1", "7001"));
    assert_status(read_map(resp, map, &err), MR_OK, &err);
    assert_int_equal(map->n, 3);
    assert_int_equal(map->covered, 100 + 100 + 100 + 1 + 1);
    static const struct {
        unsigned slot;
        const char *host;
        int port;
    } rows[] = {{0, "10.0.0.1", 7001},     {99, "10.0.0.1", 7001}, {100, "10.0.0.9", 7003},
                {299, "10.0.0.9", 7003},   {300, "a.local", 7004}, {301, NULL, 0},
                {16383, "10.0.0.1", 7001}, {16382, NULL, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint16_t owner = map->owner[rows[i].slot];
        if (!rows[i].host) {
            assert_int_equal(owner, MR_REDIS_NO_NODE);
            continue;
        }
        assert_true(owner < map->n);
        assert_string_equal(map->node[owner].host, rows[i].host);
        assert_int_equal(map->node[owner].port, rows[i].port);
    }
    assert_status(read_map("*0\r\n", map, &err), MR_OK, &err);
    assert_int_equal(map->covered, 0);
}

static void what_is_no_map_is_refused_with_its_fault(void **state)
{
    mr_redis_slot_map *map = *state;
    static const struct {
        const char *resp, *says;
        mr_status status;
    } rows[] = {
        {"-ERR This instance has cluster support disabled\r\n", "write redis://", MR_UNSUPPORTED},
        {"-NOPERM no\r\n", "NOPERM no", MR_UNAVAILABLE},
        {"$2\r\nok\r\n", "is a string, expected an array", MR_CORRUPT},
        {"*1\r\n:5\r\n", "no array of two numbers", MR_CORRUPT},
        {"*1\r\n*2\r\n:0\r\n:1\r\n", "no array of two numbers", MR_CORRUPT},
        {"*1\r\n*3\r\n$1\r\n0\r\n:1\r\n" NODE("1", "a", "1"), "no array of two", MR_CORRUPT},
        {"*1\r\n" RANGE("-1", "5", NODE("1", "a", "1")), "-1 to 5", MR_CORRUPT},
        {"*1\r\n" RANGE("5", "4", NODE("1", "a", "1")), "5 to 4", MR_CORRUPT},
        {"*1\r\n" RANGE("0", "16384", NODE("1", "a", "1")), "0 to 16384", MR_CORRUPT},
        {"*1\r\n" RANGE("0", "9223372036854775807", NODE("1", "a", "1")), "expected within",
         MR_CORRUPT},
        {"*1\r\n" RANGE("0", "1", NODE("1", "a", "0")), "port of 1 to 65535", MR_CORRUPT},
        {"*1\r\n" RANGE("0", "1", NODE("1", "a", "65536")), "port of 1 to 65535", MR_CORRUPT},
        {"*1\r\n" RANGE("0", "1", "*2\r\n:1\r\n:1\r\n"), "has no host", MR_CORRUPT},
        {"*1\r\n" RANGE("0", "1", "*1\r\n$1\r\na\r\n"), "has no host", MR_CORRUPT},
        {"*1\r\n" RANGE("0", "1", "$1\r\na\r\n"), "has no host", MR_CORRUPT},
        {"*1\r\n" RANGE("0", "1", "*0\r\n"), "has no host", MR_CORRUPT},
        {"*2\r\n" RANGE("0", "5", NODE("1", "a", "1")) RANGE("5", "6", NODE("1", "b", "1")),
         "slot 5 twice", MR_CORRUPT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mr_error err = {0};
        assert_status(read_map(rows[i].resp, map, &err), rows[i].status, &err);
        assert_contains(err.message, rows[i].says);
        assert_contains(err.message, "10.0.0.9:7009");
    }
}

static void hosts_and_masters_are_bounded(void **state)
{
    mr_redis_slot_map *map = *state;
    mr_error err = {0};
    char host[MR_REDIS_MAX_HOST + 2], resp[512];
    memset(host, 'h', sizeof host);
    for (int len = MR_REDIS_MAX_HOST; len <= MR_REDIS_MAX_HOST + 1; len++) {
        snprintf(resp, sizeof resp, "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$%d\r\n%.*s\r\n:1\r\n", len, len,
                 host);
        assert_status(read_map(resp, map, &err), len <= MR_REDIS_MAX_HOST ? MR_OK : MR_CORRUPT,
                      &err);
    }
    /* A NUL within a host would make two hosts one. */
    static const char nul[] = "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$3\r\na\0b\r\n:1\r\n";
    mr_redis_reply *reply = reply_of(nul, sizeof nul - 1);
    assert_non_null(reply);
    assert_status(mr_redis_slots_read(mr_redis_reply_value(reply), &asked, map, &err), MR_CORRUPT,
                  &err);
    mr_redis_reply_free(reply);

    /* One slot for each of 1,024 masters, and one master more. */
    for (int masters = MR_REDIS_MAX_NODES; masters <= MR_REDIS_MAX_NODES + 1; masters++) {
        size_t size = (size_t)masters * 80 + 16, used;
        char *many = malloc(size);
        assert_non_null(many);
        used = (size_t)snprintf(many, size, "*%d\r\n", masters);
        for (int i = 0; i < masters; i++)
            used += (size_t)snprintf(many + used, size - used,
                                     "*3\r\n:%d\r\n:%d\r\n*2\r\n$1\r\na\r\n:%d\r\n", i, i, i + 1);
        mr_status status = read_map(many, map, &err);
        assert_status(status, masters <= MR_REDIS_MAX_NODES ? MR_OK : MR_CORRUPT, &err);
        free(many);
    }
    assert_contains(err.message, "more than 1024 masters");
}

/* ---- redirections ---------------------------------------------------------------------------- */

static void redirections_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        mr_redis_redirect kind;
        unsigned slot;
        const char *host;
        int port;
    } rows[] = {
        {"MOVED 3999 127.0.0.1:6381", MR_REDIS_MOVED, 3999, "127.0.0.1", 6381},
        {"ASK 0 127.0.0.1:6381", MR_REDIS_ASK, 0, "127.0.0.1", 6381},
        {"MOVED 16383 :6381", MR_REDIS_MOVED, 16383, "10.0.0.9", 6381},
        {"ASK 16383 ::1:6381", MR_REDIS_ASK, 16383, "::1", 6381},
        {"MOVED 1 fe80::2%eth0:1", MR_REDIS_MOVED, 1, "fe80::2%eth0", 1},
        {"MOVED 1 [::1]:65535", MR_REDIS_MOVED, 1, "::1", 65535},
        {"MOVED 1 redis-0.example:7000", MR_REDIS_MOVED, 1, "redis-0.example", 7000},
        {"MOVED 16384 a:1", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"MOVED -1 a:1", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"MOVED 99999999999 a:1", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"MOVED 1 a:0", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"MOVED 1 a:65536", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"MOVED 1 a:", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"MOVED 1 a:1x", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"MOVED 1 ?:6381", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"MOVED 1 a", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"MOVED 1:2", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"MOVED  a:1", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"MOVED ", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"MOVED", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"ASK", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"MOVEDX 1 a:1", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"ERR MOVED 1 a:1", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
        {"", MR_REDIS_NO_REDIRECT, 0, NULL, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char resp[128];
        unsigned slot = 7;
        mr_redis_address to = {"untouched", 7};
        int len = snprintf(resp, sizeof resp, "-%s\r\n", rows[i].text);
        mr_redis_reply *reply = reply_of(resp, (size_t)len);
        assert_non_null(reply);
        mr_redis_redirect kind =
            mr_redis_redirect_read(mr_redis_reply_value(reply), &asked, &slot, &to);
        mr_redis_reply_free(reply);
        if (kind != rows[i].kind)
            fail_msg("'%s' is read as %d, expected %d", rows[i].text, (int)kind, (int)rows[i].kind);
        bool follows = kind != MR_REDIS_NO_REDIRECT;
        assert_int_equal(slot, follows ? rows[i].slot : 7);
        assert_string_equal(to.host, follows ? rows[i].host : "untouched");
        assert_int_equal(to.port, follows ? rows[i].port : 7);
    }
}

static void a_value_that_looks_like_a_redirection_is_none(void **state)
{
    (void)state;
    static const char resp[] = "$21\r\nMOVED 1 127.0.0.1:100\r\n";
    unsigned slot = 7;
    mr_redis_address to = {"untouched", 7};
    mr_redis_reply *reply = reply_of(resp, sizeof resp - 1);
    assert_non_null(reply);
    assert_int_equal(mr_redis_redirect_read(mr_redis_reply_value(reply), &asked, &slot, &to),
                     MR_REDIS_NO_REDIRECT);
    mr_redis_reply_free(reply);
}

static int map_new(void **state)
{
    *state = malloc(sizeof(mr_redis_slot_map));
    return *state ? 0 : -1;
}

static int map_free(void **state)
{
    free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc16_is_the_specifications),
        cmocka_unit_test(only_a_hash_tag_counts_where_there_is_one),
        cmocka_unit_test(a_map_names_the_masters_of_slots),
        cmocka_unit_test(what_is_no_map_is_refused_with_its_fault),
        cmocka_unit_test(hosts_and_masters_are_bounded),
        cmocka_unit_test(redirections_are_read),
        cmocka_unit_test(a_value_that_looks_like_a_redirection_is_none),
    };
    return cmocka_run_group_tests(tests, map_new, map_free);
}
