/* test_log.c - log lines in both forms, and the text of a progress bar.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ctype.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/utf8.h"
#include "tests/support.h"

static int reset(void **state)
{
    (void)state;
    mr_log_set_level(MR_LOG_INFO);
    mr_log_set_json(0);
    mr_progress_set_quiet(false);
    return 0;
}

static void log_one(const void *context)
{
    mr_log(MR_LOG_WARN, "store", "record dropped", "key", "items:7", "reason",
           (const char *)context, NULL);
}

static void the_text_form_starts_with_utc_time_level_and_component(void **state)
{
    (void)state;
    char *line = test_capture_stderr(log_one, "CRC is 0x01, expected 0x02");
    assert_string_equal(line + 24, " warn  store: record dropped key=items:7 "
                                   "reason=\"CRC is 0x01, expected 0x02\"\n");
    static const char pattern[] = "dddd-dd-ddTdd:dd:dd.dddZ";
    for (size_t i = 0; i < 24; i++) {
        if (pattern[i] == 'd')
            assert_true(isdigit((unsigned char)line[i]));
        else
            assert_int_equal(line[i], pattern[i]);
    }
    free(line);
}

static const char *const hostile[] = {
    "plain",
    "",
    "two words",
    "quote \" backslash \\",
    "line\nbreak\ttab\rreturn",
    "\x1b[2J\x7f\x01",
    "\xC2\x9B[31m",
    "caf\xC3\xA9 \xF0\x9F\x98\x80",
    "broken \xFF\xC3( utf8",
    "a=b",
};
#define N_HOSTILE (sizeof hostile / sizeof *hostile)

static void log_hostile(const void *context)
{
    (void)context;
    for (size_t i = 0; i < N_HOSTILE; i++)
        mr_log(MR_LOG_ERROR, "test", "hostile", "value", hostile[i], NULL);
}

static void values_can_neither_forge_lines_nor_reach_the_terminal(void **state)
{
    (void)state;
    for (int as_json = 0; as_json <= 1; as_json++) {
        mr_log_set_json(as_json);
        char *text = test_capture_stderr(log_hostile, NULL);
        size_t lines = 0;
        for (size_t at = 0; text[at];) {
            uint32_t c;
            size_t size = mr_utf8_decode(text + at, strlen(text + at), &c);
            assert_true(size > 0); /* the output is valid UTF-8 */
            if (c == '\n')
                lines++;
            else if (c < 0x20 || (c >= 0x7f && c < 0xa0))
                fail_msg("control U+%04X got out", c);
            at += size;
        }
        assert_int_equal(lines, N_HOSTILE);
        free(text);
    }
}

static void json_lines_parse_back_to_the_same_values(void **state)
{
    (void)state;
    mr_log_set_json(1);
    char *text = test_capture_stderr(log_hostile, NULL);
    char *line = text;
    for (size_t i = 0; i < N_HOSTILE; i++) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        json_error_t error;
        json_t *root = json_loadb(line, (size_t)(end - line), JSON_REJECT_DUPLICATES, &error);
        if (!root)
            fail_msg("line %zu: %s", i, error.text);
        assert_string_equal(json_string_value(json_object_get(root, "level")), "error");
        assert_string_equal(json_string_value(json_object_get(root, "component")), "test");
        assert_string_equal(json_string_value(json_object_get(root, "event")), "hostile");
        assert_int_equal(json_string_length(json_object_get(root, "ts")), 24);
        const char *value = json_string_value(json_object_get(root, "value"));
        if (strstr(hostile[i], "broken"))
            assert_string_equal(value, "broken \xEF\xBF\xBD\xEF\xBF\xBD( utf8");
        else
            assert_string_equal(value, hostile[i]);
        json_decref(root);
        line = end + 1;
    }
    free(text);
}

static void log_levels(const void *context)
{
    (void)context;
    mr_log(MR_LOG_DEBUG, "c", "debug event", NULL);
    mr_log(MR_LOG_INFO, "c", "info event", NULL);
    mr_log(MR_LOG_WARN, "c", "warn event", NULL);
    mr_log(MR_LOG_ERROR, "c", "error event", NULL);
}

static void levels_below_the_minimum_are_silent(void **state)
{
    (void)state;
    static const char *const events[] = {"debug event", "info event", "warn event", "error event"};
    for (int minimum = MR_LOG_DEBUG; minimum <= MR_LOG_ERROR; minimum++) {
        mr_log_set_level((mr_log_level)minimum);
        char *text = test_capture_stderr(log_levels, NULL);
        for (int level = 0; level < 4; level++)
            assert_int_equal(strstr(text, events[level]) != NULL, level >= minimum);
        free(text);
    }
}

static void log_null(const void *context)
{
    const char *missing = context;
    mr_log(MR_LOG_INFO, "c", "e", "a", "1", "b", missing, "c", "3", NULL);
}

static void a_null_value_ends_the_list(void **state)
{
    (void)state;
    char *text = test_capture_stderr(log_null, NULL);
    assert_string_equal(text + 24, " info  c: e a=1 b=-\n");
    free(text);
    mr_log_set_json(1);
    text = test_capture_stderr(log_null, NULL);
    assert_contains(text, "\"event\":\"e\",\"a\":\"1\",\"b\":null}\n");
    free(text);
}

#define LINES_PER_THREAD 200

static void *log_many(void *context)
{
    for (int i = 0; i < LINES_PER_THREAD; i++)
        mr_log(MR_LOG_INFO, "thread", "line", "who", (const char *)context, NULL);
    return NULL;
}

static void log_from_threads(const void *context)
{
    (void)context;
    pthread_t threads[2];
    static char names[2][8] = {"first", "second"};
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_many, names[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

static void lines_of_different_threads_do_not_mix(void **state)
{
    (void)state;
    char *text = test_capture_stderr(log_from_threads, NULL);
    int first = 0, second = 0;
    for (char *line = text; *line;) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        assert_true(strlen(line) > 24);
        if (strcmp(line + 24, " info  thread: line who=first") == 0)
            first++;
        else if (strcmp(line + 24, " info  thread: line who=second") == 0)
            second++;
        else
            fail_msg("a mixed line: %s", line);
        line = end + 1;
    }
    assert_int_equal(first, LINES_PER_THREAD);
    assert_int_equal(second, LINES_PER_THREAD);
    free(text);
}

static void the_bar_shows_share_rate_and_time_left(void **state)
{
    (void)state;
    static const struct {
        uint64_t total, done;
        double seconds;
        const char *note;
        int columns;
        const char *want;
    } cases[] = {
        {1000, 250, 10, NULL, 120,
         "encoding [#####---------------]  25%  250/1000 items  25/s  00:30 left"},
        {1000, 1000, 10, "2.1 k tokens/s", 120,
         "encoding [####################] 100%  1000/1000 items  100/s  2.1 k tokens/s"},
        {10000, 1, 2, NULL, 120,
         "encoding [--------------------]   0%  1/10000 items  0.5/s  5:33:18 left"},
        {1000, 0, 0, NULL, 120, "encoding [--------------------]   0%  0/1000 items"},
        {0, 42, 10, NULL, 120, "encoding  42 items  4.2/s"},
        {10, 20, 10, NULL, 120, "encoding [####################] 100%  20/10 items  2.0/s"},
        {1000, 250, 10, NULL, 20, "encoding [#####-----"},
        {UINT64_MAX, 1, 100, NULL, 120,
         "encoding [--------------------]   0%  1/18446744073709551615 items  0.0/s  99:59:59 "
         "left"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mr_progress bar = {"encoding", "items", cases[i].total, 0, 0, true};
        char line[256];
        mr_progress_format(&bar, cases[i].done, (int64_t)(cases[i].seconds * 1e6), cases[i].note,
                           cases[i].columns, line, sizeof line);
        assert_string_equal(line, cases[i].want);
    }
}

static void run_bar(const void *context)
{
    mr_progress bar = mr_progress_start("encoding", 10, "items");
    for (uint64_t i = 0; i <= 10; i++)
        mr_progress_update(&bar, i, NULL);
    mr_progress_finish(&bar, context);
}

static void without_a_terminal_only_the_closing_line_is_written(void **state)
{
    (void)state;
    char *text = test_capture_stderr(run_bar, "encoded 10 items");
    assert_string_equal(text, "encoded 10 items in 0.0 s\n");
    free(text);
    text = test_capture_stderr(run_bar, NULL);
    assert_string_equal(text, "");
    free(text);
    mr_progress_set_quiet(true);
    text = test_capture_stderr(run_bar, "encoded 10 items");
    assert_string_equal(text, "");
    free(text);
}

static void a_terminal_shows_the_bar_and_log_lines_do_not_run_into_it(void **state)
{
    (void)state;
    int master, terminal;
    if (openpty(&master, &terminal, NULL, NULL, NULL) != 0) {
        print_message("no pseudo-terminals here\n");
        skip();
    }
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    assert_true(dup2(terminal, STDERR_FILENO) >= 0);
    setenv("TERM", "xterm", 1);
    mr_progress bar = mr_progress_start("encoding", 10, "items");
    mr_progress_update(&bar, 5, "half");
    mr_progress_update(&bar, 6, "too soon to draw again");
    mr_log(MR_LOG_WARN, "c", "in between", NULL);
    mr_progress_finish(&bar, "encoded 10 items");
    fflush(stderr);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);

    /* What was written reaches the other side piece by piece, some of it later. */
    static const char last[] = "encoded 10 items in 0.0 s\r\n";
    char text[1024] = "";
    size_t got = 0;
    struct pollfd readable = {.fd = master, .events = POLLIN};
    while (!strstr(text, last) && poll(&readable, 1, 5000) == 1) {
        ssize_t n = read(master, text + got, sizeof text - 1 - got);
        if (n <= 0)
            break;
        got += (size_t)n;
        text[got] = '\0';
    }
    close(master);
    close(terminal);
    assert_memory_equal(text, "\r\x1b[Kencoding [##########----------]  50%  5/10 items", 50);
    const char *line = strstr(text, "half\r\x1b[K2"); /* erased, then a year */
    assert_non_null(line);
    assert_contains(line, "warn  c: in between\r\n");
    assert_null(strstr(text, "too soon"));
    assert_contains(text, last);
}

static void clocks_go_forward_and_know_the_century(void **state)
{
    (void)state;
    int64_t before = mr_clock_monotonic_us();
    for (int i = 0; i < 1000; i++) {
        int64_t now = mr_clock_monotonic_us();
        assert_true(now >= before);
        before = now;
    }
    assert_true(mr_clock_wall_ms() > INT64_C(1577836800000)); /* 2020 */
}

#define FRESH(test) cmocka_unit_test_setup(test, reset)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH(the_text_form_starts_with_utc_time_level_and_component),
        FRESH(values_can_neither_forge_lines_nor_reach_the_terminal),
        FRESH(json_lines_parse_back_to_the_same_values),
        FRESH(levels_below_the_minimum_are_silent),
        FRESH(a_null_value_ends_the_list),
        FRESH(lines_of_different_threads_do_not_mix),
        FRESH(the_bar_shows_share_rate_and_time_left),
        FRESH(without_a_terminal_only_the_closing_line_is_written),
        FRESH(a_terminal_shows_the_bar_and_log_lines_do_not_run_into_it),
        FRESH(clocks_go_forward_and_know_the_century),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
