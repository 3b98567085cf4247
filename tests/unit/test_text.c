/* test_text.c - UTF-8, text buffers, JSON lines, and the random sequence that is a contract.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/jsonl.h"
#include "core/rng.h"
#include "core/strbuf.h"
#include "core/utf8.h"
#include "tests/support.h"

static void every_code_point_survives_encoding_and_decoding(void **state)
{
    (void)state;
    size_t n_valid = 0;
    for (uint32_t c = 0; c < 0x120000; c++) {
        char text[4];
        size_t size = mr_utf8_encode(c, text);
        bool valid = c <= 0x10FFFF && !(c >= 0xD800 && c <= 0xDFFF);
        size_t want = !valid ? 0 : c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        if (size != want)
            fail_msg("U+%04X takes %zu bytes, expected %zu", c, size, want);
        if (!valid)
            continue;
        n_valid++;
        uint32_t back = 0;
        if (mr_utf8_decode(text, size, &back) != size || back != c)
            fail_msg("U+%04X came back as U+%04X", c, back);
        for (size_t cut = 0; cut < size; cut++)
            assert_int_equal(mr_utf8_decode(text, cut, &back), 0);
    }
    assert_int_equal(n_valid, 0x110000 - 0x800);
    char text[4];
    assert_int_equal(mr_utf8_encode(UINT32_MAX, text), 0);
}

/* Every string of up to 4 bytes that decodes must be the one that encodes: so nothing overlong, no
 * surrogate and nothing out of range can pass. Bytes of a class behave alike, so that the borders
 * of the classes are enough. */
static void nothing_decodes_but_what_encoding_gives(void **state)
{
    (void)state;
    static const unsigned char bytes[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
                                          0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
                                          0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xF8, 0xFE, 0xFF};
    const size_t n = sizeof bytes;
    size_t decoded = 0;
    for (size_t i = 0; i < n * n * n * n; i++) {
        char text[4] = {(char)bytes[i % n], (char)bytes[i / n % n], (char)bytes[i / n / n % n],
                        (char)bytes[i / n / n / n]};
        uint32_t c = 0;
        size_t size = mr_utf8_decode(text, 4, &c);
        if (size == 0)
            continue;
        decoded++;
        char again[4];
        if (mr_utf8_encode(c, again) != size || memcmp(text, again, size) != 0)
            fail_msg("%02X %02X %02X %02X decodes to U+%04X", (unsigned char)text[0],
                     (unsigned char)text[1], (unsigned char)text[2], (unsigned char)text[3], c);
    }
    assert_true(decoded > 1000);
}

static void the_valid_prefix_ends_at_the_first_bad_byte(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t want;
    } cases[] = {
        {"", 0},
        {"plain ascii, longer than eight bytes", 36},
        {"caf\xC3\xA9 and more text", 19},
        {"12345678\xFF", 8},
        {"1234567\xFF"
         "9",
         7},
        {"abc\xE2\x82", 3},
        {"\xED\xA0\x80", 0},             /* a surrogate */
        {"\xC0\xAF", 0},                 /* overlong */
        {"x\xF4\x90\x80\x80", 1},        /* above U+10FFFF */
        {"\xF0\x9F\x98\x80\xF0\x9F", 4}, /* cut */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(mr_utf8_valid_prefix(cases[i].text, strlen(cases[i].text)), cases[i].want);
    char text[40];
    for (size_t at = 0; at < sizeof text; at++) {
        memset(text, 'a', sizeof text);
        text[at] = '\x80';
        assert_int_equal(mr_utf8_valid_prefix(text, sizeof text), at);
    }
}

static void a_buffer_grows_and_stays_terminated(void **state)
{
    (void)state;
    mr_strbuf buf = {0};
    mr_strbuf_puts(&buf, "");
    assert_string_equal(buf.data, "");
    for (int i = 0; i < 1000; i++)
        mr_strbuf_printf(&buf, "%d,", i);
    assert_false(buf.failed);
    assert_int_equal(buf.len, 10 * 2 + 90 * 3 + 900 * 4);
    assert_int_equal(strlen(buf.data), buf.len);
    assert_memory_equal(buf.data + buf.len - 8, "998,999,", 8);
    mr_strbuf_clear(&buf);
    assert_string_equal(buf.data, "");
    mr_strbuf_append(&buf, "a\0b", 3);
    assert_int_equal(buf.len, 3);
    assert_memory_equal(buf.data, "a\0b", 4);
    mr_strbuf_append(&buf, NULL, 0);
    assert_int_equal(buf.len, 3);
    mr_strbuf_release(&buf);
    assert_null(buf.data);
    mr_strbuf_puts(&buf, "again");
    assert_string_equal(buf.data, "again");
    mr_strbuf_release(&buf);
}

static void a_buffer_is_never_filled_past_its_end(void **state)
{
    (void)state;
    mr_strbuf one = {0}, all = {0};
    for (size_t n = 1; n < 600; n++) {
        mr_strbuf_append(&one, "x", 1); /* meets every capacity exactly */
        assert_int_equal(one.len, n);
        assert_true(one.capacity > one.len);
        mr_strbuf_clear(&all);
        mr_strbuf_append(&all, one.data, n);
        assert_true(all.capacity > all.len);
        assert_int_equal(strlen(all.data), n);
        mr_strbuf_release(&all);
    }
    mr_strbuf_release(&one);
}

static void a_failed_buffer_keeps_what_it_had_and_stays_failed(void **state)
{
    (void)state;
    mr_strbuf buf = {0};
    mr_strbuf_puts(&buf, "kept");
    mr_strbuf_append(&buf, "x", SIZE_MAX - 2); /* refused before anything is read */
    assert_true(buf.failed);
    mr_strbuf_puts(&buf, "more");
    mr_strbuf_printf(&buf, "%d", 1);
    assert_string_equal(buf.data, "kept");
    mr_strbuf_release(&buf);
    assert_false(buf.failed);
}

static void json_lines_are_read_one_at_a_time_past_bad_ones(void **state)
{
    (void)state;
    static const char content[] = "{\"n\":1}\n"
                                  "\n"
                                  "  \t\r\n"
                                  "{\"n\":4}\r\n"
                                  "{\"n\":\n"
                                  "[6]\n"
                                  "{\"n\":\"\xFF\"}\n"
                                  "{\"n\":8, \"long\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}\n"
                                  "{\"n\":9}\0\n"
                                  "{\"n\":10}"; /* no new line at the end */
    static const struct {
        uint64_t line;
        mr_status status;
        const char *message;
    } want[] = {
        {1, MR_OK, NULL},
        {4, MR_OK, NULL},
        {5, MR_CORRUPT, "line 5 of "},
        {6, MR_CORRUPT, "is an array, expected an object"},
        {7, MR_CORRUPT, "byte 7: 0xFF is not valid UTF-8"},
        {8, MR_CORRUPT, "is longer than 40 bytes"},
        {9, MR_CORRUPT, "line 9 of "},
        {10, MR_OK, NULL},
    };
    char *folder = test_folder_new();
    const char *path = test_path(folder, "rows.jsonl");
    test_file_write(path, content, sizeof content - 1);
    mr_jsonl reader = {0};
    mr_error err = {0};
    assert_status(mr_jsonl_open(&reader, path, 40, &err), MR_OK, &err);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        json_t *row = NULL;
        assert_status(mr_jsonl_next(&reader, &row, &err), want[i].status, &err);
        assert_int_equal(reader.line_number, want[i].line);
        if (want[i].status == MR_OK) {
            assert_int_equal(json_integer_value(json_object_get(row, "n")), want[i].line);
            json_decref(row);
        } else {
            assert_contains(err.message, want[i].message);
            assert_contains(err.message, "rows.jsonl");
            assert_null(row);
        }
    }
    for (int again = 0; again < 2; again++) {
        json_t *row = (json_t *)&reader; /* must be set to NULL */
        assert_status(mr_jsonl_next(&reader, &row, &err), MR_OK, &err);
        assert_null(row);
    }
    assert_int_equal(reader.bytes, sizeof content - 1);
    mr_jsonl_close(&reader);
    mr_jsonl_close(&reader);
    test_folder_free(folder);
}

/* Refuses the row that says so. */
static mr_status add_n(void *context, const json_t *row, uint64_t line, mr_error *err)
{
    int64_t *sum = context;
    if (json_object_get(row, "bad"))
        return MR_FAIL(err, MISMATCH, "row of line %d is bad", (int)line);
    *sum += json_integer_value(json_object_get(row, "n"));
    return MR_OK;
}

static void each_row_is_visited_up_to_the_first_failure_and_its_line_told(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        mr_status status;
        uint64_t line;
        int64_t sum;
        const char *message;
    } rows[] = {
        {"{\"n\":1}\n\n{\"n\":4}\n", MR_OK, 0, 5, ""},
        {"", MR_OK, 0, 0, ""},
        {"{\"n\":1}\n\n{\"bad\":0}\n{\"n\":4}\n", MR_MISMATCH, 3, 1, "row of line 3 is bad"},
        {"{\"n\":1}\n[]\n{\"n\":4}\n", MR_CORRUPT, 0, 1, "line 2 of "},
    };
    char *folder = test_folder_new();
    const char *path = test_path(folder, "each.jsonl");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mr_error err = {0};
        int64_t sum = 0;
        uint64_t line = 99;
        test_file_write(path, rows[i].text, strlen(rows[i].text));
        assert_status(mr_jsonl_each(path, MR_JSONL_MAX_LINE, add_n, &sum, &line, &err),
                      rows[i].status, &err);
        assert_int_equal(line, rows[i].line);
        assert_int_equal(sum, rows[i].sum);
        assert_contains(err.message, rows[i].message);
    }
    mr_error err = {0};
    uint64_t line = 99;
    assert_status(mr_jsonl_each(test_path(folder, "none"), 40, add_n, NULL, &line, &err),
                  MR_NOT_FOUND, &err);
    assert_int_equal(line, 0);
    test_folder_free(folder);
}

static void the_line_limit_is_exact(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    const char *path = test_path(folder, "a");
    test_file_write(path, "{\"n\":12}\n{\"n\":3}\n", 17);
    mr_error err = {0};
    for (size_t limit = 7; limit <= 8; limit++) {
        mr_jsonl reader = {0};
        json_t *row = NULL;
        assert_status(mr_jsonl_open(&reader, path, limit, &err), MR_OK, &err);
        assert_status(mr_jsonl_next(&reader, &row, &err), limit == 8 ? MR_OK : MR_CORRUPT, &err);
        json_decref(row);
        row = NULL;
        assert_status(mr_jsonl_next(&reader, &row, &err), MR_OK, &err);
        assert_int_equal(json_integer_value(json_object_get(row, "n")), 3);
        json_decref(row);
        assert_true(reader.capacity <= limit);
        mr_jsonl_close(&reader);
    }
    test_folder_free(folder);
}

static void json_lines_come_from_standard_input_too_and_not_from_folders(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    mr_jsonl reader = {0};
    mr_error err = {0};
    assert_status(mr_jsonl_open(&reader, folder, 100, &err), MR_INVALID, &err);
    assert_contains(err.message, "is a folder, expected a file of JSON lines");
    assert_status(mr_jsonl_open(&reader, test_path(folder, "none"), 100, &err), MR_NOT_FOUND, &err);

    const char *path = test_path(folder, "in");
    test_file_write(path, "{\"n\":1}\nbad\n", 12);
    assert_non_null(freopen(path, "r", stdin));
    json_t *row = NULL;
    assert_status(mr_jsonl_open(&reader, "-", 100, &err), MR_OK, &err);
    assert_status(mr_jsonl_next(&reader, &row, &err), MR_OK, &err);
    assert_non_null(row);
    json_decref(row);
    assert_status(mr_jsonl_next(&reader, &row, &err), MR_CORRUPT, &err);
    assert_contains(err.message, "line 2 of standard input: ");
    mr_jsonl_close(&reader);
    assert_int_not_equal(fileno(stdin), -1); /* is not ours to close */
    test_folder_free(folder);
}

static void the_random_sequence_is_fixed(void **state)
{
    (void)state;
    /* The published outputs of SplitMix64 for the seed 1234567. */
    static const uint64_t want[] = {UINT64_C(6457827717110365317), UINT64_C(3203168211198807973),
                                    UINT64_C(9817491932198370423), UINT64_C(4593380528125082431),
                                    UINT64_C(16408922859458223821)};
    mr_rng rng = mr_rng_seed(1234567);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        uint64_t got = mr_rng_u64(&rng);
        if (got != want[i])
            fail_msg("draw %zu is %llu, expected %llu", i, (unsigned long long)got,
                     (unsigned long long)want[i]);
    }
}

static void derived_draws_are_fixed_to_the_last_bit(void **state)
{
    (void)state;
    mr_rng rng = mr_rng_seed(42);
    assert_true(mr_rng_uniform(&rng) == 0x1.7bae644c5fd6dp-1);
    assert_int_equal(mr_rng_below(&rng, 1000), 291);
    static const double normals[] = {-0x1.47f4af60c7f94p+0, -0x1.342959c9fa344p-1,
                                     -0x1.8ad8264f1e64dp+0, -0x1.73962f43d35a8p+0};
    for (size_t i = 0; i < sizeof normals / sizeof *normals; i++) {
        double got = mr_rng_normal(&rng);
        if (got != normals[i])
            fail_msg("normal %zu is %a, expected %a", i, got, normals[i]);
    }
}

static void draws_have_the_distribution_that_they_claim(void **state)
{
    (void)state;
    mr_rng rng = mr_rng_seed(3);
    const int n = 200000;
    double sum = 0, squares = 0, fourth = 0, uniform = 0;
    int beyond = 0;
    size_t faces[6] = {0};
    for (int i = 0; i < n; i++) {
        double x = mr_rng_normal(&rng);
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
        beyond += fabs(x) > 1.959964;
        double u = mr_rng_uniform(&rng);
        assert_true(u >= 0 && u < 1);
        uniform += u;
        faces[mr_rng_below(&rng, 6)]++;
    }
    /* Five standard errors each. */
    assert_true(fabs(sum / n) < 5 / sqrt(n));
    assert_true(fabs(squares / n - 1) < 5 * sqrt(2.0 / n));
    assert_true(fabs(fourth / n - 3) < 5 * sqrt(96.0 / n));
    assert_true(fabs((double)beyond / n - 0.05) < 5 * sqrt(0.05 * 0.95 / n));
    assert_true(fabs(uniform / n - 0.5) < 5 * sqrt(1.0 / 12 / n));
    for (int f = 0; f < 6; f++)
        assert_true(fabs((double)faces[f] / n - 1.0 / 6) < 5 * sqrt(5.0 / 36 / n));
    assert_int_equal(mr_rng_below(&rng, 1), 0);
    /* Three quarters of the range: a plain remainder would give the first third half of the draws.
     */
    int in_first_third = 0;
    for (int i = 0; i < 10000; i++) {
        uint64_t draw = mr_rng_below(&rng, UINT64_C(3) << 62);
        assert_true(draw < UINT64_C(3) << 62);
        in_first_third += draw < UINT64_C(1) << 62;
    }
    assert_in_range(in_first_third, 3333 - 240, 3333 + 240);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_survives_encoding_and_decoding),
        cmocka_unit_test(nothing_decodes_but_what_encoding_gives),
        cmocka_unit_test(the_valid_prefix_ends_at_the_first_bad_byte),
        cmocka_unit_test(a_buffer_grows_and_stays_terminated),
        cmocka_unit_test(a_buffer_is_never_filled_past_its_end),
        cmocka_unit_test(a_failed_buffer_keeps_what_it_had_and_stays_failed),
        cmocka_unit_test(json_lines_are_read_one_at_a_time_past_bad_ones),
        cmocka_unit_test(each_row_is_visited_up_to_the_first_failure_and_its_line_told),
        cmocka_unit_test(the_line_limit_is_exact),
        cmocka_unit_test(json_lines_come_from_standard_input_too_and_not_from_folders),
        cmocka_unit_test(the_random_sequence_is_fixed),
        cmocka_unit_test(derived_draws_are_fixed_to_the_last_bit),
        cmocka_unit_test(draws_have_the_distribution_that_they_claim),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
