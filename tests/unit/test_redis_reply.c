/* test_redis_reply.c - what servers send is read in any pieces, and refused beyond the bounds.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "featurestore/redis_reply.h"
#include "tests/support.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static mr_redis_reader *reader_new(void)
{
    mr_redis_reader *reader = NULL;
    mr_error err = {0};
    assert_status(mr_redis_reader_new(&reader, &err), MR_OK, &err);
    return reader;
}

static const char nested[] =
    "*6\r\n+OK\r\n-ERR no\r\n:-42\r\n$3\r\na\0b\r\n$-1\r\n*2\r\n*0\r\n$0\r\n\r\n";

static void assert_nested(const mr_redis_value *v)
{
    assert_int_equal(v->type, MR_REDIS_ARRAY);
    assert_int_equal(v->n, 6);
    assert_int_equal(v->element[0]->type, MR_REDIS_STATUS);
    assert_string_equal(v->element[0]->str, "OK");
    assert_int_equal(v->element[1]->type, MR_REDIS_ERROR);
    assert_true(mr_redis_is_error(v->element[1], "ERR"));
    assert_false(mr_redis_is_error(v->element[1], "ER"));
    assert_false(mr_redis_is_error(v->element[0], "OK"));
    assert_int_equal(v->element[2]->integer, -42);
    assert_int_equal(v->element[3]->len, 3);
    assert_memory_equal(v->element[3]->str, "a\0b", 4);
    assert_int_equal(v->element[4]->type, MR_REDIS_NIL);
    assert_int_equal(v->element[5]->n, 2);
    assert_int_equal(v->element[5]->element[0]->n, 0);
    assert_int_equal(v->element[5]->element[1]->len, 0);
    assert_string_equal(v->element[5]->element[1]->str, "");
}

static void a_reply_may_come_in_any_two_pieces(void **state)
{
    (void)state;
    for (size_t cut = 0; cut < sizeof nested; cut++) {
        mr_redis_reader *reader = reader_new();
        mr_redis_reply *reply = NULL, *none = NULL;
        mr_error err = {0};
        size_t len = sizeof nested - 1;
        assert_status(mr_redis_reader_feed(reader, nested, cut, &err), MR_OK, &err);
        assert_status(mr_redis_reader_next(reader, &reply, &err), MR_OK, &err);
        if (cut < len) {
            assert_null(reply);
            assert_status(mr_redis_reader_feed(reader, nested + cut, len - cut, &err), MR_OK, &err);
            assert_status(mr_redis_reader_next(reader, &reply, &err), MR_OK, &err);
        }
        assert_non_null(reply);
        assert_nested(mr_redis_reply_value(reply));
        assert_status(mr_redis_reader_next(reader, &none, &err), MR_OK, &err);
        assert_null(none);
        mr_redis_reader_free(reader);
        assert_nested(mr_redis_reply_value(reply)); /* it does not need its reader */
        mr_redis_reply_free(reply);
    }
}

static void a_reader_that_is_freed_within_a_reply_leaks_nothing(void **state)
{
    (void)state;
    for (size_t cut = 0; cut < sizeof nested; cut++) {
        mr_redis_reader *reader = reader_new();
        mr_redis_reply *reply = NULL;
        mr_error err = {0};
        assert_status(mr_redis_reader_feed(reader, nested, cut, &err), MR_OK, &err);
        assert_status(mr_redis_reader_next(reader, &reply, &err), MR_OK, &err);
        mr_redis_reply_free(reply);
        mr_redis_reader_free(reader);
    }
}

static void what_is_no_reply_is_refused(void **state)
{
    static const struct {
        const char *bytes, *message;
    } row[] = {
        {"HTTP/1.1 400 Bad Request\r\n", "does not speak Redis' protocol"},
        {"\x15\x03\x01\x00\x02", "does not speak Redis' protocol"},
        {"*1048577\r\n", "a reply of 1048577 elements, at most 1048576 are taken"},
        {"*2\r\n*1048575\r\n", "a reply of 1048577 elements"},
        {"*2147483647\r\n", "elements"},
        {"*99999999999\r\n", "the server"},
        {"*-7\r\n", "the server"},
        {"$-7\r\n", "the server"},
        {"$99999999999999999999\r\n", "the server"},
        {":12x\r\n", "the server"},
        {"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n+x\r\n", "the server"},
        {"%1\r\n+a\r\n+b\r\n", "the server"}, /* RESP3 */
    };
    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_redis_reader *reader = reader_new();
        mr_redis_reply *reply = NULL;
        mr_error err = {0};
        mr_status status = mr_redis_reader_feed(reader, row[i].bytes, strlen(row[i].bytes), &err);
        if (status == MR_OK)
            status = mr_redis_reader_next(reader, &reply, &err);
        assert_status(status, MR_CORRUPT, &err);
        assert_contains(err.message, row[i].message);
        assert_null(reply);
        mr_redis_reader_free(reader);
    }
}

/* A value is announced with half a gigabyte and more; memory grows with what comes, not with that.
 */
static void a_length_alone_takes_no_memory(void **state)
{
    mr_redis_reader *reader = reader_new();
    mr_redis_reply *reply = NULL;
    mr_error err = {0};
    static const char start[] = "$9000000000000000000\r\nabc";
    (void)state;
    assert_status(mr_redis_reader_feed(reader, start, sizeof start - 1, &err), MR_OK, &err);
    assert_status(mr_redis_reader_next(reader, &reply, &err), MR_OK, &err);
    assert_null(reply);
    mr_redis_reader_free(reader);
}

static void large_batches_are_whole(void **state)
{
    enum { N = 5000, LEN = 1000 };
    mr_redis_reader *reader = reader_new();
    mr_redis_reply *reply = NULL;
    mr_error err = {0};
    char value[LEN + 32];
    (void)state;
    int head = snprintf(value, sizeof value, "*%d\r\n", N);
    assert_status(mr_redis_reader_feed(reader, value, (size_t)head, &err), MR_OK, &err);
    for (int i = 0; i < N; i++) {
        int len = snprintf(value, sizeof value, "$%d\r\n", LEN);
        memset(value + len, 'a' + i % 26, LEN);
        memcpy(value + len + LEN, "\r\n", 2);
        assert_status(mr_redis_reader_feed(reader, value, (size_t)len + LEN + 2, &err), MR_OK,
                      &err);
        assert_status(mr_redis_reader_next(reader, &reply, &err), MR_OK, &err);
        assert_int_equal(reply != NULL, i == N - 1);
    }
    const mr_redis_value *v = mr_redis_reply_value(reply);
    assert_int_equal(v->n, N);
    for (int i = 0; i < N; i++)
        assert_true(v->element[i]->len == LEN && v->element[i]->str[LEN - 1] == 'a' + i % 26);
    mr_redis_reply_free(reply);
    mr_redis_reader_free(reader);
}

static void requests_are_written_as_arrays_of_strings(void **state)
{
    mr_redis_wire wire = {0};
    const mr_bytes one[] = {{"GET", 3}, {"a\r\n\0", 4}, {NULL, 0}}, two[] = {{"PING", 4}};
    static const char expected[] =
        "*3\r\n$3\r\nGET\r\n$4\r\na\r\n\0\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n";
    (void)state;
    assert_true(mr_redis_wire_add(&wire, one, 3));
    assert_true(mr_redis_wire_add(&wire, two, 1));
    assert_int_equal(wire.len, sizeof expected - 1);
    assert_memory_equal(wire.data, expected, wire.len);
    const mr_bytes huge[] = {{"x", SIZE_MAX - 10}};
    assert_false(mr_redis_wire_add(&wire, huge, 1));
    assert_int_equal(wire.len, sizeof expected - 1);
    mr_redis_wire_free(&wire);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reply_may_come_in_any_two_pieces),
        cmocka_unit_test(a_reader_that_is_freed_within_a_reply_leaks_nothing),
        cmocka_unit_test(what_is_no_reply_is_refused),
        cmocka_unit_test(a_length_alone_takes_no_memory),
        cmocka_unit_test(large_batches_are_whole),
        cmocka_unit_test(requests_are_written_as_arrays_of_strings),
    };
    return cmocka_run_group_tests_name("redis_reply", tests, NULL, NULL);
}
