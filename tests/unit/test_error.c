/* test_error.c - statuses, messages that quote hostile input, prefixes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/utf8.h"
#include "tests/support.h"

static void every_status_has_a_name_a_text_and_a_grpc_code(void **state)
{
    (void)state;
    for (int s = 0; s < MR_STATUS_COUNT; s++) {
        assert_true(strlen(mr_status_name((mr_status)s)) > 1);
        assert_true(strlen(mr_status_text((mr_status)s)) > 1);
        int code = mr_status_grpc_code((mr_status)s);
        if (code < 0 || code > 16 || (s != MR_OK) != (code != 0))
            fail_msg("%s has gRPC code %d", mr_status_name((mr_status)s), code);
    }
    assert_string_equal(mr_status_name(MR_NOT_FOUND), "NOT_FOUND");
    assert_string_equal(mr_status_text(MR_TIMEOUT), "deadline exceeded");
    assert_int_equal(mr_status_grpc_code(MR_CORRUPT), 15);
    assert_true(mr_status_is_retryable(MR_UNAVAILABLE));
    assert_false(mr_status_is_retryable(MR_INVALID));
}

static void a_status_out_of_range_reads_as_internal(void **state)
{
    (void)state;
    const int bad[] = {-1, MR_STATUS_COUNT, 1000};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_string_equal(mr_status_name((mr_status)bad[i]), "INTERNAL");
}

static void a_failure_records_status_place_and_message(void **state)
{
    (void)state;
    mr_error err = {0};
    int line = __LINE__ + 1;
    mr_status status = MR_FAIL(&err, MISMATCH, "'%s' holds %d bytes, expected %d", "k", 3, 4);
    assert_status(status, MR_MISMATCH, &err);
    assert_int_equal(err.status, MR_MISMATCH);
    assert_string_equal(err.message, "'k' holds 3 bytes, expected 4");
    assert_int_equal(err.line, line);
    assert_contains(err.file, "test_error.c");
}

static void a_null_error_still_gives_the_status(void **state)
{
    (void)state;
    assert_int_equal(MR_FAIL(NULL, IO, "unseen %d", 1), MR_IO);
    assert_int_equal(mr_error_prefix(NULL, MR_CORRUPT, "unseen"), MR_CORRUPT);
}

static void what_a_message_quotes_cannot_act_on_a_terminal_or_break_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *input, *shown;
    } cases[] = {
        {"plain", "plain"},
        {"a\nb\tc", "a?b?c"},
        {"\x1b[31mred", "?[31mred"},
        {"del\x7f", "del?"},
        {"c1 \xC2\x9B[2J", "c1 ??[2J"},
        {"caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80", "caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80"},
        {"bad \xFF\xC3;", "bad ??;"},
        {"cut \xE2\x82", "cut ??"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mr_error err = {0};
        MR_FAIL(&err, INVALID, "%s", cases[i].input);
        assert_string_equal(err.message, cases[i].shown);
    }
}

static void a_message_that_is_too_long_ends_at_a_whole_character(void **state)
{
    (void)state;
    /* Shifted by 0..3 bytes, so that the cut falls on every byte of a character. */
    for (size_t shift = 0; shift < 4; shift++) {
        char text[700];
        memset(text, 'x', shift);
        for (size_t i = shift; i + 4 < sizeof text; i += 4)
            memcpy(text + i, "\xF0\x9F\x98\x80", 4);
        text[shift + (sizeof text - shift - 4) / 4 * 4] = '\0';
        mr_error err = {0};
        MR_FAIL(&err, INVALID, "%s", text);
        size_t len = strlen(err.message);
        assert_true(len >= sizeof err.message - 4 && len < sizeof err.message);
        assert_int_equal(mr_utf8_valid_prefix(err.message, len), len);
        assert_null(strchr(err.message, '?'));
    }
}

static void prefixes_put_the_outermost_context_first_and_keep_the_origin(void **state)
{
    (void)state;
    mr_error err = {0};
    int line = __LINE__ + 1;
    MR_FAIL(&err, NOT_FOUND, "config.json: missing");
    assert_status(mr_error_prefix(&err, MR_INTERNAL, "part '%s'", "llm"), MR_NOT_FOUND, &err);
    assert_status(mr_error_prefix(&err, MR_INTERNAL, "opening bundle"), MR_NOT_FOUND, &err);
    assert_string_equal(err.message, "opening bundle: part 'llm': config.json: missing");
    assert_int_equal(err.line, line);
}

static void a_prefix_never_overruns_and_never_turns_a_failure_into_success(void **state)
{
    (void)state;
    mr_error err = {0};
    char filler[510];
    memset(filler, 'm', sizeof filler);
    filler[sizeof filler - 1] = '\0';
    MR_FAIL(&err, IO, "%s", filler);
    for (int i = 0; i < 4; i++)
        assert_int_equal(mr_error_prefix(&err, MR_IO, "%s", "context"), MR_IO);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_contains(err.message, "context: context: context: context: mmm");

    char before[sizeof err.message];
    memcpy(before, err.message, sizeof before);
    char huge[2000];
    memset(huge, 'p', sizeof huge);
    huge[sizeof huge - 1] = '\0';
    mr_error_prefix(&err, MR_IO, "%s", huge); /* no room for both: the cause is worth more */
    assert_string_equal(err.message, before);

    mr_error empty = {0};
    assert_int_equal(mr_error_prefix(&empty, MR_TIMEOUT, "waiting"), MR_TIMEOUT);
    assert_int_equal(empty.status, MR_TIMEOUT);
}

static void an_error_may_be_rewritten_from_its_own_message(void **state)
{
    (void)state;
    mr_error err = {0};
    MR_FAIL(&err, IO, "inner");
    MR_FAIL(&err, CORRUPT, "outer (%s)", err.message);
    assert_string_equal(err.message, "outer (inner)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_a_name_a_text_and_a_grpc_code),
        cmocka_unit_test(a_status_out_of_range_reads_as_internal),
        cmocka_unit_test(a_failure_records_status_place_and_message),
        cmocka_unit_test(a_null_error_still_gives_the_status),
        cmocka_unit_test(what_a_message_quotes_cannot_act_on_a_terminal_or_break_utf8),
        cmocka_unit_test(a_message_that_is_too_long_ends_at_a_whole_character),
        cmocka_unit_test(prefixes_put_the_outermost_context_first_and_keep_the_origin),
        cmocka_unit_test(a_prefix_never_overruns_and_never_turns_a_failure_into_success),
        cmocka_unit_test(an_error_may_be_rewritten_from_its_own_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
