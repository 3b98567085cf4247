/* test_base64.c - RFC 4648 texts into bytes, and what is none.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/base64.h"
#include "tests/support.h"

static void decodes_the_vectors_of_the_rfc(void **state)
{
    static const char *const cases[][2] = {{"", ""},
                                           {"Zg==", "f"},
                                           {"Zm8=", "fo"},
                                           {"Zm9v", "foo"},
                                           {"Zm9vYg==", "foob"},
                                           {"Zm9vYmE=", "fooba"},
                                           {"Zm9vYmFy", "foobar"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mr_arena arena = {0};
        mr_bytes out = {0};
        mr_error err = {0};
        assert_status(mr_base64_decode(&arena, mr_str_of(cases[i][0]), &out, &err), MR_OK, &err);
        assert_int_equal(out.len, strlen(cases[i][1]));
        assert_memory_equal(out.data, cases[i][1], out.len);
        mr_arena_done(&arena);
    }
}

static void keeps_every_byte_value(void **state)
{
    (void)state;
    mr_arena arena = {0};
    mr_bytes out = {0};
    mr_error err = {0};
    assert_status(mr_base64_decode(&arena, mr_str_of("AP/+/wA="), &out, &err), MR_OK, &err);
    assert_int_equal(out.len, 5);
    assert_memory_equal(out.data, "\x00\xff\xfe\xff\x00", 5);
    mr_arena_done(&arena);
}

static void refuses_what_is_no_base64(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {{"Zg=", "3 characters, expected base64: a multiple of four"},
                 {"Zm9v\n", "5 characters"},
                 {"Z===", "character 1 is no base64"},
                 {"Zg==Zg==", "character 2 is no base64"},
                 {"=Zg=", "character 0 is no base64"},
                 {" Zm9vYg=", "character 0 is no base64"},
                 {"Zm-_", "character 2 is no base64"},
                 {"====", "character 0 is no base64"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mr_arena arena = {0};
        mr_bytes out = {0};
        mr_error err = {0};
        assert_status(mr_base64_decode(&arena, mr_str_of(cases[i].text), &out, &err), MR_INVALID,
                      &err);
        assert_contains(err.message, cases[i].message);
        assert_null(out.data);
        mr_arena_done(&arena);
    }
}

static void unpadded_goes_both_ways_and_may_be_padded(void **state)
{
    (void)state;
    uint8_t bytes[64], back[64];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 37 + 200);
    for (size_t n = 0; n <= sizeof bytes; n++) {
        mr_strbuf text = {0};
        size_t len = 99;
        mr_base64_encode_unpadded(&text, (mr_bytes){bytes, n});
        assert_int_equal(text.len, (4 * n + 2) / 3); /* no padding */
        assert_true(mr_base64_decode_unpadded((mr_str){text.data, text.len}, back, &len));
        assert_int_equal(len, n);
        assert_memory_equal(back, bytes, n);
        while (text.len % 4) /* clients may pad */
            mr_strbuf_puts(&text, "=");
        assert_true(mr_base64_decode_unpadded((mr_str){text.data, text.len}, back, &len));
        assert_int_equal(len, n);
        assert_memory_equal(back, bytes, n);
        mr_strbuf_release(&text);
    }
}

static void what_cannot_be_unpadded_base64_is_refused(void **state)
{
    static const char *const rows[] = {"A",    "AAAAA", "AA-_", "AA==AA", "=AAA",  "AA A",
                                       "AA\n", "====",  "AA=",  "A===",   "AAAA=", "A=AA"};
    uint8_t out[16];
    size_t len;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (mr_base64_decode_unpadded(mr_str_of(rows[i]), out, &len))
            fail_msg("'%s' was taken for base64", rows[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(decodes_the_vectors_of_the_rfc),
                                       cmocka_unit_test(keeps_every_byte_value),
                                       cmocka_unit_test(refuses_what_is_no_base64),
                                       cmocka_unit_test(unpadded_goes_both_ways_and_may_be_padded),
                                       cmocka_unit_test(what_cannot_be_unpadded_base64_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
