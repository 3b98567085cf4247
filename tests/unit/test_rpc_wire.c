/* test_rpc_wire.c - framing, timeouts, messages and compression of gRPC, byte by byte.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "ranker/service/rpc_compress.h"
#include "ranker/service/rpc_wire.h"
#include "tests/support.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void timeouts_are_read_and_refused(void **state)
{
    static const struct {
        const char *text;
        int64_t us; /* -1: refused */
    } rows[] = {{"1H", INT64_C(3600000000)},
                {"2M", 120000000},
                {"3S", 3000000},
                {"250m", 250000},
                {"7u", 7},
                {"1n", 1}, /* rounded up: a deadline of nothing would have expired */
                {"1000n", 1},
                {"1001n", 2},
                {"0n", 0},
                {"0S", 0},
                {"99999999H", INT64_C(99999999) * 3600000000},
                {"00000001S", 1000000},
                {"", -1},
                {"S", -1},
                {"5", -1},
                {"100000000S", -1},
                {"-1S", -1},
                {"+1S", -1},
                {" 1S", -1},
                {"1S ", -1},
                {"1s", -1},
                {"1.5S", -1},
                {"1SS", -1}};
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        int64_t us = -1;
        const bool read = mr_rpc_timeout_parse(mr_str_of(rows[i].text), &us);
        if (read != (rows[i].us >= 0) || us != rows[i].us)
            fail_msg("'%s' gave %lld us, expected %lld", rows[i].text, (long long)us,
                     (long long)rows[i].us);
    }
}

static void messages_are_percent_encoded(void **state)
{
    static const struct {
        const char *text;
        size_t most;
        const char *want;
    } rows[] = {
        {"plain text ~ !", 100, "plain text ~ !"},
        {"100 %", 100, "100 %25"},
        {"a\nb\tc\x7f", 100, "a%0Ab%09c%7F"},
        {"gr\xc3\xb6\xc3\x9f", 100, "gr%C3%B6%C3%9F"},
        {"\xe6\x97\xa5", 100, "%E6%97%A5"},
        {"\xf0\x9f\x98\x80!", 100, "%F0%9F%98%80!"},
        {"a\xff z", 100, "a%EF%BF%BD z"}, /* not UTF-8 */
        {"a\xc3", 100, "a%EF%BF%BD"},     /* cut inside a character by its author */
        {"ab\xc3\xb6z", 3, "ab"},         /* cut by us: no half characters */
        {"ab\xc3\xb6z", 4, "ab%C3%B6"},
        {"", 100, ""},
        {NULL, 100, ""},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        mr_strbuf out = {0};
        mr_rpc_message_encode(&out, rows[i].text, rows[i].most);
        assert_string_equal(out.data ? out.data : "", rows[i].want);
        mr_strbuf_release(&out);
    }
}

static void lists_are_searched_by_word(void **state)
{
    static const struct {
        const char *list;
        bool has;
    } rows[] = {{"gzip", true},      {"identity, gzip", true}, {"identity,gzip ,x", true},
                {"", false},         {"gzipp", false},         {"xgzip", false},
                {"gzip;q=0", false}, {",,gzip", true},         {"g,zip", false}};
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (mr_rpc_list_has(mr_str_of(rows[i].list), "gzip") != rows[i].has)
            fail_msg("'%s'", rows[i].list);
    }
}

/* ---- framing ---- */

static size_t make_messages(uint8_t *out, const size_t *sizes, size_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        mr_rpc_prefix_write(out + at, i % 2, (uint32_t)sizes[i]);
        at += MR_RPC_PREFIX;
        for (size_t k = 0; k < sizes[i]; k++)
            out[at++] = (uint8_t)(i + k);
    }
    return at;
}

static void frames_cut_anywhere_give_the_same_messages(void **state)
{
    static const size_t sizes[] = {3, 0, 1, 300, 0, 7};
    uint8_t bytes[512];
    const size_t len = make_messages(bytes, sizes, COUNT(sizes));
    (void)state;
    for (size_t piece = 1; piece <= len; piece++) {
        mr_rpc_budget budget = {.limit = 4096};
        mr_rpc_reader reader = {.limit = 300, .body.budget = &budget};
        size_t messages = 0;
        for (size_t from = 0; from < len; from += piece) {
            const size_t to = from + piece < len ? from + piece : len;
            for (size_t at = from; at < to;) {
                size_t used;
                const mr_rpc_wire result = mr_rpc_reader_feed(&reader, bytes + at, to - at, &used);
                at += used;
                if (result == MR_RPC_WIRE_MORE) {
                    assert_int_equal(at, to);
                    assert_true(mr_rpc_reader_is_partial(&reader));
                    continue;
                }
                assert_int_equal(result, MR_RPC_WIRE_OK);
                assert_int_equal(reader.body.len, sizes[messages]);
                assert_int_equal(reader.compressed, messages % 2);
                for (size_t k = 0; k < reader.body.len; k++)
                    assert_int_equal(reader.body.data[k], (uint8_t)(messages + k));
                mr_rpc_buffer_release(&reader.body);
                mr_rpc_reader_next(&reader);
                messages++;
            }
        }
        assert_int_equal(messages, COUNT(sizes));
        assert_false(mr_rpc_reader_is_partial(&reader));
        assert_int_equal(atomic_load(&budget.used), 0);
    }
}

static void a_message_cut_at_any_length_is_not_whole(void **state)
{
    static const size_t sizes[] = {40};
    uint8_t bytes[64];
    const size_t len = make_messages(bytes, sizes, 1);
    (void)state;
    for (size_t n = 0; n < len; n++) {
        mr_rpc_reader reader = {.limit = 100};
        size_t used;
        uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees a byte too many */
        memcpy(exact, bytes, n);
        assert_int_equal(mr_rpc_reader_feed(&reader, exact, n, &used), MR_RPC_WIRE_MORE);
        assert_int_equal(used, n);
        assert_int_equal(mr_rpc_reader_is_partial(&reader), n > 0);
        mr_rpc_buffer_release(&reader.body);
        free(exact);
    }
}

static void bad_frames_are_told_apart(void **state)
{
    static const struct {
        const char *what;
        uint8_t bytes[6];
        size_t limit;
        mr_rpc_wire want;
    } rows[] = {{"at the limit", {0, 0, 0, 0, 1, 9}, 1, MR_RPC_WIRE_OK},
                {"above the limit", {0, 0, 0, 0, 2, 9}, 1, MR_RPC_WIRE_TOO_LARGE},
                {"4 GiB", {0, 0xff, 0xff, 0xff, 0xff, 9}, 1 << 24, MR_RPC_WIRE_TOO_LARGE},
                {"flag 2", {2, 0, 0, 0, 1, 9}, 1, MR_RPC_WIRE_MALFORMED},
                {"flag 255", {255, 0, 0, 0, 1, 9}, 1, MR_RPC_WIRE_MALFORMED}};
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        mr_rpc_reader reader = {.limit = rows[i].limit};
        size_t used;
        const mr_rpc_wire got = mr_rpc_reader_feed(&reader, rows[i].bytes, 6, &used);
        if (got != rows[i].want)
            fail_msg("%s: got %d, expected %d", rows[i].what, (int)got, (int)rows[i].want);
        mr_rpc_buffer_release(&reader.body);
    }
}

static void an_announced_length_costs_nothing_until_it_comes(void **state)
{
    (void)state;
    mr_rpc_budget budget = {.limit = (size_t)1 << 30};
    mr_rpc_reader reader = {.limit = (size_t)16 << 20, .body.budget = &budget};
    uint8_t bytes[MR_RPC_PREFIX + 10] = {0, 0, 0xff, 0xff, 0xff};
    size_t used;
    assert_int_equal(mr_rpc_reader_feed(&reader, bytes, sizeof bytes, &used), MR_RPC_WIRE_MORE);
    if (atomic_load(&budget.used) > 1024)
        fail_msg("%zu bytes for a message of which 10 came", atomic_load(&budget.used));
    mr_rpc_buffer_release(&reader.body);
    assert_int_equal(atomic_load(&budget.used), 0);
}

static void a_budget_bounds_all_buffers_together(void **state)
{
    (void)state;
    mr_rpc_budget budget = {.limit = 5000};
    mr_rpc_buffer a = {.budget = &budget}, b = {.budget = &budget};
    assert_int_equal(mr_rpc_buffer_reserve(&a, 3000, 10000), MR_RPC_WIRE_OK);
    assert_int_equal(mr_rpc_buffer_reserve(&b, 3000, 10000), MR_RPC_WIRE_BUDGET);
    assert_null(b.data);
    assert_int_equal(mr_rpc_buffer_reserve(&b, 2000, 10000), MR_RPC_WIRE_OK);
    assert_int_equal(atomic_load(&budget.used), 5000);
    mr_rpc_budget_force(&budget, 100); /* a reply that exists already */
    mr_rpc_buffer_release(&a);
    assert_int_equal(atomic_load(&budget.used), 2100);
    assert_int_equal(mr_rpc_buffer_reserve(&a, 20000, 10000), MR_RPC_WIRE_TOO_LARGE);
    mr_rpc_budget_give(&budget, 100);
    mr_rpc_buffer_release(&b);
    assert_int_equal(atomic_load(&budget.used), 0);
}

/* ---- compression ---- */

static size_t compress(const uint8_t *data, size_t len, uint8_t **out)
{
    size_t n;
    assert_true(mr_rpc_gzip((mr_bytes){data, len}, 0, out, &n));
    return n;
}

static void gzip_comes_back_at_any_size(void **state)
{
    static const size_t sizes[] = {0, 1, 2, 100, 1023, 1024, 16384, 16385, 70000};
    uint8_t *data = malloc(70000);
    (void)state;
    for (size_t i = 0; i < 70000; i++)
        data[i] = (uint8_t)(i * i >> 7);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        uint8_t *packed;
        const size_t n = compress(data, sizes[i], &packed);
        mr_rpc_buffer plain = {0};
        assert_int_equal(mr_rpc_inflate(MR_RPC_GZIP, (mr_bytes){packed, n}, sizes[i], &plain),
                         MR_RPC_WIRE_OK);
        assert_int_equal(plain.len, sizes[i]);
        if (sizes[i])
            assert_memory_equal(plain.data, data, sizes[i]);
        mr_rpc_buffer_release(&plain);
        if (sizes[i]) { /* one byte less is too large, however it ends */
            assert_int_equal(
                mr_rpc_inflate(MR_RPC_GZIP, (mr_bytes){packed, n}, sizes[i] - 1, &plain),
                MR_RPC_WIRE_TOO_LARGE);
            mr_rpc_buffer_release(&plain);
        }
        free(packed);
    }
    free(data);
}

static void gzip_cut_at_any_length_is_damaged(void **state)
{
    uint8_t data[300], *packed;
    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7 ^ i >> 3);
    const size_t n = compress(data, sizeof data, &packed);
    for (size_t cut = 0; cut < n; cut++) {
        mr_rpc_buffer plain = {0};
        const mr_rpc_wire got = mr_rpc_inflate(MR_RPC_GZIP, (mr_bytes){packed, cut}, 1000, &plain);
        if (got != MR_RPC_WIRE_MALFORMED)
            fail_msg("cut at %zu of %zu: got %d", cut, n, (int)got);
        mr_rpc_buffer_release(&plain);
    }
    packed = realloc(packed, n + 1);
    packed[n] = 0; /* a byte behind the end */
    mr_rpc_buffer plain = {0};
    assert_int_equal(mr_rpc_inflate(MR_RPC_GZIP, (mr_bytes){packed, n + 1}, 1000, &plain),
                     MR_RPC_WIRE_MALFORMED);
    mr_rpc_buffer_release(&plain);
    assert_int_equal(mr_rpc_inflate(MR_RPC_DEFLATE, (mr_bytes){packed, n}, 1000, &plain),
                     MR_RPC_WIRE_MALFORMED); /* gzip is no zlib */
    mr_rpc_buffer_release(&plain);
    free(packed);
}

static void a_bomb_stops_at_the_limit_and_the_budget(void **state)
{
    uint8_t *zeros = calloc(1, (size_t)8 << 20), *packed;
    (void)state;
    const size_t n = compress(zeros, (size_t)8 << 20, &packed);
    assert_true(n < 64 << 10);
    mr_rpc_budget budget = {.limit = (size_t)1 << 20};
    mr_rpc_buffer plain = {.budget = &budget};
    assert_int_equal(mr_rpc_inflate(MR_RPC_GZIP, (mr_bytes){packed, n}, 100000, &plain),
                     MR_RPC_WIRE_TOO_LARGE);
    assert_true(plain.capacity <= 100000);
    mr_rpc_buffer_release(&plain);
    assert_int_equal(mr_rpc_inflate(MR_RPC_GZIP, (mr_bytes){packed, n}, (size_t)16 << 20, &plain),
                     MR_RPC_WIRE_BUDGET);
    mr_rpc_buffer_release(&plain);
    assert_int_equal(atomic_load(&budget.used), 0);
    free(packed);
    free(zeros);
}

static void encodings_are_known_by_their_names(void **state)
{
    mr_rpc_encoding encoding;
    (void)state;
    assert_true(mr_rpc_encoding_parse(mr_str_of("identity"), &encoding));
    assert_int_equal(encoding, MR_RPC_IDENTITY);
    assert_true(mr_rpc_encoding_parse(mr_str_of("gzip"), &encoding));
    assert_int_equal(encoding, MR_RPC_GZIP);
    assert_true(mr_rpc_encoding_parse(mr_str_of("deflate"), &encoding));
    assert_int_equal(encoding, MR_RPC_DEFLATE);
    assert_false(mr_rpc_encoding_parse(mr_str_of("snappy"), &encoding));
    assert_false(mr_rpc_encoding_parse(mr_str_of(""), &encoding));
    assert_false(mr_rpc_encoding_parse(mr_str_of("GZIP"), &encoding));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timeouts_are_read_and_refused),
        cmocka_unit_test(messages_are_percent_encoded),
        cmocka_unit_test(lists_are_searched_by_word),
        cmocka_unit_test(frames_cut_anywhere_give_the_same_messages),
        cmocka_unit_test(a_message_cut_at_any_length_is_not_whole),
        cmocka_unit_test(bad_frames_are_told_apart),
        cmocka_unit_test(an_announced_length_costs_nothing_until_it_comes),
        cmocka_unit_test(a_budget_bounds_all_buffers_together),
        cmocka_unit_test(gzip_comes_back_at_any_size),
        cmocka_unit_test(gzip_cut_at_any_length_is_damaged),
        cmocka_unit_test(a_bomb_stops_at_the_limit_and_the_budget),
        cmocka_unit_test(encodings_are_known_by_their_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
