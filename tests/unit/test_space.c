/* test_space.c - fingerprints of encoders, and the checks on vectors from outside.
 *
 * The golden hashes were computed by another program: Python's json.dumps(sort_keys=True,
 * separators=(",", ":"), ensure_ascii=False) and libxxhash's XXH3_64bits through ctypes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "encoders/space.h"
#include "tests/support.h"

static json_t *parse(const char *text)
{
    json_t *value = NULL;
    mr_error err = {0};
    assert_status(mr_json_parse(&value, "test", mr_str_of(text), &err), MR_OK, &err);
    return value;
}

static uint64_t space_of(const char *text)
{
    json_t *value = parse(text);
    uint64_t space = 0;
    mr_error err = {0};
    assert_status(mr_space_of(value, &space, &err), MR_OK, &err);
    json_decref(value);
    return space;
}

static void a_space_is_the_xxh3_of_the_canonical_text(void **state)
{
    static const struct {
        const char *description;
        const char *space;
    } row[] = {
        {"{\"kind\":\"external\",\"name\":\"vendor-v1\",\"dim\":384,\"normalised\":true}",
         "810c79906ca5fdb6"},
        {"{\"kind\":\"causal_last_n\",\"text\":[\"Item information: \",{\"field\":\"text\"}],"
         "\"tokens\":1,\"max_tokens\":512,\"append_eos\":true,\"dim\":1024,\"files\":{"
         "\"model.safetensors\":"
         "\"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f\",\"config.json\":"
         "\"abababababababababababababababababababababababababababababababab\"}}",
         "c4ae85bc5176cb78"},
        {"{\"kind\":\"history\",\"tokens\":4,\"order\":\"set\","
         "\"item_space\":\"00c0ffee12345678\"}",
         "14947c94cf216cb6"},
        {"{\"kind\":\"external\",\"name\":\"caf\\u00e9 \u5546\u54c1 \\\"q\\\"/\\n\",\"dim\":2,"
         "\"normalised\":false,\"scale\":0.1}",
         "25a25e3eab0b3874"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char text[MR_SPACE_TEXT];
        mr_space_format(space_of(row[i].description), text);
        assert_string_equal(text, row[i].space);
    }
}

static void the_order_of_keys_and_the_white_space_do_not_matter(void **state)
{
    (void)state;
    assert_int_equal(
        space_of("{\"kind\":\"external\",\"files\":{\"a\":\"1\",\"b\":\"2\"},\"dim\":3}"),
        space_of(
            "{ \"dim\" : 3,\n \"files\": {\"b\":\"2\", \"a\":\"1\"}, \"kind\":\"external\" }"));
}

static void everything_else_in_the_description_matters(void **state)
{
    static const char *const row[] = {
        "{\"kind\":\"causal_last_n\",\"text\":[\"a\",\"b\"],\"tokens\":1,\"dim\":8}",
        "{\"kind\":\"causal_last_n\",\"text\":[\"b\",\"a\"],\"tokens\":1,\"dim\":8}",
        "{\"kind\":\"causal_last_n\",\"text\":[\"ab\"],\"tokens\":1,\"dim\":8}",
        "{\"kind\":\"causal_last_n\",\"text\":[\"a\",\"b\"],\"tokens\":2,\"dim\":8}",
        "{\"kind\":\"causal_last_n\",\"text\":[\"a\",\"b\"],\"tokens\":1,\"dim\":8.0}",
        "{\"kind\":\"causal_last_n\",\"text\":[\"a\",\"b\"],\"tokens\":1,\"dim\":8,\"x\":null}",
        "{\"kind\":\"history\",\"text\":[\"a\",\"b\"],\"tokens\":1,\"dim\":8}",
    };
    const size_t n = sizeof row / sizeof *row;
    (void)state;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(space_of(row[i]), space_of(row[k]));
    }
}

static void a_description_without_a_kind_is_refused(void **state)
{
    static const struct {
        const char *description;
        const char *message;
    } row[] = {
        {"[]", "is an array, expected an object"},
        {"{\"dim\":3}", "'kind' is missing"},
        {"{\"kind\":7}", "'kind' is the number 7"},
        {"{\"kind\":\"\"}", "'kind' is the string \"\""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        json_t *value = parse(row[i].description);
        uint64_t space = 42;
        mr_error err = {0};
        assert_status(mr_space_of(value, &space, &err), MR_INVALID, &err);
        assert_contains(err.message, row[i].message);
        assert_int_equal(space, 42);
        json_decref(value);
    }
}

static void a_space_survives_being_written_and_read(void **state)
{
    static const struct {
        uint64_t space;
        const char *text;
    } row[] = {
        {0, "0000000000000000"},
        {1, "0000000000000001"},
        {UINT64_C(0x9f00000000abcdef), "9f00000000abcdef"},
        {UINT64_MAX, "ffffffffffffffff"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char text[MR_SPACE_TEXT];
        mr_space_format(row[i].space, text);
        assert_string_equal(text, row[i].text);
        uint64_t back = ~row[i].space;
        mr_error err = {0};
        assert_status(mr_space_parse(text, &back, &err), MR_OK, &err);
        assert_int_equal(back, row[i].space);
    }
}

static void a_space_in_any_other_spelling_is_refused(void **state)
{
    static const char *const row[] = {
        "",
        "9f",
        "9f00000000abcde",
        "9f00000000abcdef0",
        "9F00000000ABCDEF",
        "0x9f00000000abcd",
        " 9f0000000abcdef",
        "9f00000000abcdeg",
        "-000000000000001",
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        uint64_t space = 42;
        mr_error err = {0};
        assert_status(mr_space_parse(row[i], &space, &err), MR_INVALID, &err);
        assert_contains(err.message, row[i]);
        assert_contains(err.message, "16 lower-case hex digits");
        assert_int_equal(space, 42);
    }
}

static void vectors_from_outside_are_checked(void **state)
{
    static const struct {
        const char *what;
        float vectors[2][3];
        bool normalised;
        mr_status status;
        const char *message;
    } row[] = {
        {"unit", {{1, 0, 0}, {0.6F, 0, -0.8F}}, true, MR_OK, NULL},
        {"nearly unit", {{1.009F, 0, 0}, {0, 0.991F, 0}}, true, MR_OK, NULL},
        {"any length", {{0, 0, 0}, {3e38F, 3e38F, 3e38F}}, false, MR_OK, NULL},
        {"too long", {{1, 0, 0}, {1, 0.2F, 0}}, true, MR_INVALID, "vector 1 has length 1.0198"},
        {"too short", {{0.98F, 0, 0}, {1, 0, 0}}, true, MR_INVALID, "vector 0 has length 0.98"},
        {"zero", {{1, 0, 0}, {0, 0, 0}}, true, MR_INVALID, "vector 1 has length 0, expected 1"},
        {"nan", {{1, 0, 0}, {0, NAN, 0}}, false, MR_INVALID, "value 1 of vector 1 is "},
        {"infinite", {{0, 0, INFINITY}, {0, 1, 0}}, false, MR_INVALID, "vector 0 is inf"},
        {"overflowing norm", {{3e38F, 3e38F, 3e38F}, {1, 0, 0}}, true, MR_INVALID, "length 5.19"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        assert_status(
            mr_external_check(row[i].what, row[i].vectors[0], 2, 3, row[i].normalised, &err),
            row[i].status, &err);
        if (row[i].message) {
            assert_contains(err.message, row[i].what);
            assert_contains(err.message, row[i].message);
        }
    }
    mr_error err = {0};
    assert_status(mr_external_check("none", NULL, 0, 3, true, &err), MR_OK, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_space_is_the_xxh3_of_the_canonical_text),
        cmocka_unit_test(the_order_of_keys_and_the_white_space_do_not_matter),
        cmocka_unit_test(everything_else_in_the_description_matters),
        cmocka_unit_test(a_description_without_a_kind_is_refused),
        cmocka_unit_test(a_space_survives_being_written_and_read),
        cmocka_unit_test(a_space_in_any_other_spelling_is_refused),
        cmocka_unit_test(vectors_from_outside_are_checked),
    };
    return cmocka_run_group_tests_name("space", tests, NULL, NULL);
}
