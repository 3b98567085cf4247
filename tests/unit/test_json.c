/* test_json.c - bounds, messages with places, cursors, truncation at every length.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/strbuf.h"
#include "tests/support.h"

static json_t *parsed(const char *text)
{
    json_t *root = NULL;
    mr_error err = {0};
    assert_status(mr_json_parse(&root, "test.json", mr_str_of(text), &err), MR_OK, &err);
    return root;
}

static void text_that_is_not_json_is_corrupt_and_the_place_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len; /* 0: up to the terminator */
        const char *message;
    } cases[] = {
        {"", 0, "test.json: empty, expected JSON"},
        {"{\"a\": }", 0, "test.json: column 7: unexpected token near '}'"},
        {"{\n  \"a\": 1,\n}", 0, "test.json: line 3, column 1: string or '}' expected"},
        {"{\"a\":1} x", 0, "test.json: column 9: end of file expected near 'x'"},
        {"{\"a\":1,\"a\":2}", 0, "duplicate object key near '\"a\"'"},
        {"{\"a\":01}", 0, "test.json: column 6: "},
        {"[NaN]", 0, "test.json: column 4: "},
        {"3", 0, "'[' or '{' expected near '3'"},
        {"{\"a\":\"\xFF\"}", 0, "test.json: line 1, byte 7: 0xFF is not valid UTF-8"},
        {"{\n\"a\":\"\xED\xA0\x80\"}", 0, "test.json: line 2, byte 6: 0xED is not valid UTF-8"},
        {"{\"a\":\"\\ud800\"}", 0, "test.json: column 13: invalid Unicode"},
        {"[1,\0 2]", 7, "test.json: column 4: "},
        {"[1e999]", 0, "real number overflow"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *root = NULL;
        mr_error err = {0};
        mr_str text = {cases[i].text, cases[i].len ? cases[i].len : strlen(cases[i].text)};
        assert_status(mr_json_parse(&root, "test.json", text, &err), MR_CORRUPT, &err);
        assert_contains(err.message, cases[i].message);
        assert_null(root);
    }
}

static void json_cut_at_any_length_is_refused(void **state)
{
    (void)state;
    const char *text =
        "{\"a\": [1, -2.5e3, \"x\\u00e9\\n\xC3\xA9\", true, null, {\"b\": {}}], \"c\": \"\"}";
    size_t len = strlen(text);
    for (size_t cut = 0; cut <= len; cut++) {
        char *exact = malloc(cut + 1); /* so that AddressSanitizer sees a read past the end */
        assert_non_null(exact);
        char *data = exact + 1;
        memcpy(data, text, cut);
        json_t *root = NULL;
        mr_error err = {0};
        mr_status status = mr_json_parse(&root, "t", (mr_str){data, cut}, &err);
        assert_status(status, cut == len ? MR_OK : MR_CORRUPT, &err);
        json_decref(root);
        free(exact);
    }
}

static void nesting_is_bounded_but_brackets_in_strings_do_not_count(void **state)
{
    (void)state;
    for (int depth = MR_JSON_MAX_DEPTH; depth <= MR_JSON_MAX_DEPTH + 1; depth++) {
        mr_strbuf text = {0};
        for (int i = 0; i < depth; i++)
            mr_strbuf_puts(&text, i % 2 ? "[" : "{\"k[{\\\"[\":\n");
        mr_strbuf_puts(&text, depth % 2 ? "1" : "\"[[[[[[[[[[\"");
        for (int i = depth - 1; i >= 0; i--)
            mr_strbuf_puts(&text, i % 2 ? "]" : "}");
        json_t *root = NULL;
        mr_error err = {0};
        mr_status status = mr_json_parse(&root, "t", (mr_str){text.data, text.len}, &err);
        assert_status(status, depth <= MR_JSON_MAX_DEPTH ? MR_OK : MR_CORRUPT, &err);
        if (status != MR_OK)
            assert_string_equal(err.message, "t: line 33: nested deeper than 64 levels");
        json_decref(root);
        mr_strbuf_release(&text);
    }
    /* A megabyte of brackets must not reach the recursive parser. */
    size_t len = 1 << 20;
    char *brackets = malloc(len);
    assert_non_null(brackets);
    memset(brackets, '[', len);
    json_t *root = NULL;
    mr_error err = {0};
    assert_status(mr_json_parse(&root, "t", (mr_str){brackets, len}, &err), MR_CORRUPT, &err);
    free(brackets);
}

static void more_values_than_memory_should_hold_are_refused_before_parsing(void **state)
{
    (void)state;
    size_t len = ((size_t)8 << 20) * 2 + 100;
    char *text = malloc(len);
    assert_non_null(text);
    for (size_t i = 0; i < len; i++)
        text[i] = i % 2 ? ',' : '0';
    text[0] = '[';
    json_t *root = NULL;
    mr_error err = {0};
    assert_status(mr_json_parse(&root, "big.json", (mr_str){text, len}, &err), MR_EXHAUSTED, &err);
    assert_string_equal(err.message, "big.json: line 1: more than 8388608 values");
    free(text);
}

static void nul_escapes_and_byte_order_marks_are_accepted(void **state)
{
    (void)state;
    json_t *root = parsed("\xEF\xBB\xBF{\"a\": \"x\\u0000y\"}");
    const json_t *a = json_object_get(root, "a");
    assert_int_equal(json_string_length(a), 3);
    assert_memory_equal(json_string_value(a), "x\0y", 3);
    /* As a C string it would be another one: a cursor refuses. */
    mr_error err = {0};
    mr_json_cursor cur = mr_json_cursor_of("test.json", root, &err);
    assert_null(mr_json_string(&cur, "a", NULL, true));
    assert_status(cur.status, MR_INVALID, &err);
    assert_contains(err.message, "expected a string without NUL characters");
    json_decref(root);
}

static void a_cursor_reads_what_is_there_and_falls_back_where_it_is_not(void **state)
{
    (void)state;
    json_t *root = parsed("{\"i\":7,\"r\":0.5,\"t\":true,\"f\":false,\"s\":\"x\",\"o\":{},\"a\":[],"
                          "\"n\":null,\"w\":3.0,\"big\":9007199254740993}");
    mr_error err = {0};
    mr_json_cursor cur = mr_json_cursor_of("test.json", root, &err);
    assert_int_equal(mr_json_int(&cur, "i", 0, 10, MR_JSON_REQUIRED), 7);
    assert_int_equal(mr_json_int(&cur, "w", 0, 10, MR_JSON_REQUIRED), 3);
    assert_true(mr_json_int(&cur, "big", 0, INT64_MAX, 0) == INT64_C(9007199254740993));
    assert_int_equal(mr_json_int(&cur, "none", 0, 10, 9), 9);
    assert_int_equal(mr_json_int(&cur, "n", 0, 10, 9), 9);
    assert_true(mr_json_real(&cur, "r", 0, 1, (double)NAN) == 0.5);
    assert_true(mr_json_real(&cur, "i", 0, 10, (double)NAN) == 7);
    assert_true(mr_json_real(&cur, "none", 0, 1, 0.25) == 0.25);
    assert_true(mr_json_bool(&cur, "t", false));
    assert_false(mr_json_bool(&cur, "f", true));
    assert_true(mr_json_bool(&cur, "none", true));
    assert_string_equal(mr_json_string(&cur, "s", NULL, true), "x");
    assert_string_equal(mr_json_string(&cur, "none", "d", false), "d");
    assert_null(mr_json_string(&cur, "n", NULL, false));
    assert_ptr_equal(mr_json_object(&cur, "o", true), json_object_get(root, "o"));
    assert_ptr_equal(mr_json_array(&cur, "a", true), json_object_get(root, "a"));
    assert_null(mr_json_object(&cur, "none", false));
    assert_null(mr_json_array(&cur, "n", false));
    assert_status(cur.status, MR_OK, &err);
    assert_int_equal(err.status, MR_OK);
    json_decref(root);
}

typedef void (*read_function)(mr_json_cursor *cur);

static void read_int(mr_json_cursor *cur)
{
    assert_int_equal(mr_json_int(cur, "k", 1, 1024, MR_JSON_REQUIRED), 1);
}

static void read_real(mr_json_cursor *cur)
{
    assert_true(mr_json_real(cur, "k", 0.5, 1, (double)NAN) == 0.5);
}

static void read_bool(mr_json_cursor *cur)
{
    assert_true(mr_json_bool(cur, "k", true));
}

static void read_string(mr_json_cursor *cur)
{
    assert_null(mr_json_string(cur, "k", NULL, true));
}

static void read_object(mr_json_cursor *cur)
{
    assert_null(mr_json_object(cur, "k", true));
}

static void read_array(mr_json_cursor *cur)
{
    assert_null(mr_json_array(cur, "k", true));
}

static void read_only(mr_json_cursor *cur)
{
    static const char *const known[] = {"encoders", "version", "name", NULL};
    mr_json_only(cur, known);
}

static void a_wrong_value_is_named_with_what_was_found_and_expected(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        read_function read;
        const char *message;
    } cases[] = {
        {"{\"k\":\"two\"}", read_int,
         "c.json: 'k' is the string \"two\", expected an integer from 1 to 1024"},
        {"{\"k\":0}", read_int, "c.json: 'k' is the number 0, expected an integer from 1 to 1024"},
        {"{\"k\":1025}", read_int, "'k' is the number 1025, expected"},
        {"{\"k\":1.5}", read_int, "'k' is the number 1.5, expected an integer"},
        {"{\"k\":1e300}", read_int, "expected an integer"},
        {"{\"k\":true}", read_int, "'k' is true, expected"},
        {"{}", read_int, "c.json: 'k' is missing, expected an integer from 1 to 1024"},
        {"{\"k\":null}", read_int, "c.json: 'k' is missing, expected"},
        {"{\"k\":0.25}", read_real, "'k' is the number 0.25, expected a number from 0.5 to 1"},
        {"{\"k\":[]}", read_real, "'k' is an array, expected a number"},
        {"{}", read_real, "'k' is missing, expected a number from 0.5 to 1"},
        {"{\"k\":1}", read_bool, "'k' is the number 1, expected true or false"},
        {"{\"k\":{}}", read_string, "'k' is an object, expected a string"},
        {"{}", read_string, "'k' is missing, expected a string"},
        {"{\"k\":[]}", read_object, "'k' is an array, expected an object"},
        {"{\"k\":{}}", read_array, "'k' is an object, expected an array"},
        {"{}", read_array, "'k' is missing, expected an array"},
        {"{\"name\":1,\"encodr\":1}", read_only,
         "c.json: unknown key 'encodr'; did you mean 'encoders'?"},
        {"{\"zzzzzz\":1}", read_only,
         "c.json: unknown key 'zzzzzz'; known are 'encoders', 'version', 'name'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *root = parsed(cases[i].text);
        mr_error err = {0};
        mr_json_cursor cur = mr_json_cursor_of("c.json", root, &err);
        cases[i].read(&cur);
        assert_status(cur.status, MR_INVALID, &err);
        assert_contains(err.message, cases[i].message);
        json_decref(root);
    }
}

static void a_cursor_keeps_its_first_error_and_then_gives_fallbacks(void **state)
{
    (void)state;
    json_t *root = parsed("{\"a\":\"bad\",\"b\":5,\"c\":true}");
    mr_error err = {0};
    mr_json_cursor cur = mr_json_cursor_of("c.json", root, &err);
    assert_int_equal(mr_json_int(&cur, "a", 0, 9, 3), 3);
    assert_int_equal(mr_json_int(&cur, "b", 0, 9, 4), 4); /* is 5, but the cursor has failed */
    assert_int_equal(mr_json_int(&cur, "none", 2, 9, MR_JSON_REQUIRED), 2);
    assert_false(mr_json_bool(&cur, "c", false));
    read_only(&cur);
    assert_status(cur.status, MR_INVALID, &err);
    assert_contains(err.message, "'a' is the string \"bad\"");
    json_decref(root);
}

static void a_cursor_on_what_is_not_an_object_starts_failed(void **state)
{
    (void)state;
    json_t *root = parsed("[1]");
    mr_error err = {0};
    mr_json_cursor cur = mr_json_cursor_of("c.json", root, &err);
    assert_status(cur.status, MR_INVALID, &err);
    assert_string_equal(err.message, "c.json: is an array, expected an object");
    json_decref(root);

    mr_error none = {0};
    cur = mr_json_cursor_of("c.json", NULL, &none); /* a missing object: all defaults */
    assert_int_equal(mr_json_int(&cur, "k", 0, 9, 4), 4);
    assert_status(cur.status, MR_OK, &none);
    read_int(&cur);
    assert_status(cur.status, MR_INVALID, &none);
}

static void integers_beyond_64_bits_turn_the_numbers_of_a_file_into_reals(void **state)
{
    (void)state;
    json_t *root = parsed("{\"model_max_length\": 1000000000000000019884624838656, \"n\": 12}");
    mr_error err = {0};
    mr_json_cursor cur = mr_json_cursor_of("c.json", root, &err);
    assert_int_equal(mr_json_int(&cur, "n", 0, 100, MR_JSON_REQUIRED), 12);
    assert_true(mr_json_real(&cur, "model_max_length", 0, 1e40, (double)NAN) == 1e30);
    assert_status(cur.status, MR_OK, &err);
    json_decref(root);
}

static void described_strings_are_cut_at_a_whole_character(void **state)
{
    (void)state;
    char text[200];
    memset(text, 'x', sizeof text);
    for (size_t at = 57; at < 60; at++) {
        memset(text, 'x', sizeof text);
        for (size_t i = 0; i < 3; i++)
            text[at + i] = "\xE2\x82\xAC"[i];
        json_t *value = json_stringn(text, sizeof text);
        const char *shown = mr_json_describe(value);
        assert_int_equal(strlen(shown), strlen("the string \"\"") + 3 + (at == 57 ? 60 : at));
        json_decref(value);
    }
    assert_string_equal(mr_json_describe(NULL), "null");
}

static void files_round_trip_with_sorted_keys_and_a_final_new_line(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    const char *path = test_path(folder, "out.json");
    json_t *root = parsed("{\"b\":1,\"a\":[0.1,\"\xC3\xA9\\u0000\"]}");
    mr_error err = {0};
    assert_status(mr_json_save_file(root, path, &err), MR_OK, &err);
    char *text = test_file_read(path, NULL);
    assert_int_equal(text[strlen(text) - 1], '\n');
    assert_true(strstr(text, "\"a\"") < strstr(text, "\"b\""));
    json_t *again = NULL;
    assert_status(mr_json_load_file(&again, path, MR_JSON_MAX_CONFIG, &err), MR_OK, &err);
    assert_true(json_equal(root, again));
    json_decref(again);

    again = NULL;
    assert_status(mr_json_load_file(&again, path, strlen(text) - 1, &err), MR_EXHAUSTED, &err);
    assert_contains(err.message, "bytes of JSON, expected at most");
    assert_status(mr_json_load_file(&again, test_path(folder, "none"), 9, &err), MR_NOT_FOUND,
                  &err);
    assert_null(again);
    assert_status(mr_json_save_file(root, test_path(folder, "no/out"), &err), MR_NOT_FOUND, &err);
    json_decref(root);
    free(text);
    test_folder_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_that_is_not_json_is_corrupt_and_the_place_is_named),
        cmocka_unit_test(json_cut_at_any_length_is_refused),
        cmocka_unit_test(nesting_is_bounded_but_brackets_in_strings_do_not_count),
        cmocka_unit_test(more_values_than_memory_should_hold_are_refused_before_parsing),
        cmocka_unit_test(nul_escapes_and_byte_order_marks_are_accepted),
        cmocka_unit_test(a_cursor_reads_what_is_there_and_falls_back_where_it_is_not),
        cmocka_unit_test(a_wrong_value_is_named_with_what_was_found_and_expected),
        cmocka_unit_test(a_cursor_keeps_its_first_error_and_then_gives_fallbacks),
        cmocka_unit_test(a_cursor_on_what_is_not_an_object_starts_failed),
        cmocka_unit_test(integers_beyond_64_bits_turn_the_numbers_of_a_file_into_reals),
        cmocka_unit_test(described_strings_are_cut_at_a_whole_character),
        cmocka_unit_test(files_round_trip_with_sorted_keys_and_a_final_new_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
