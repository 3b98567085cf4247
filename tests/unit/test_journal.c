/* test_journal.c - the log of a run: which steps it has, what resuming leaves of it, and writes
 * that fail.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core/json.h"
#include "core/strbuf.h"
#include "ranker/training/journal.h"
#include "tests/support.h"

static mr_train_progress progress_at(int64_t step, int64_t steps)
{
    const bool valid = step % 300 == 0;
    return (mr_train_progress){.step = step,
                               .steps = steps,
                               .loss = 1 + 2.0 / (double)step,
                               .smooth_loss = 1.5 + 1.0 / 3.0,
                               .rate = 1e-3 * (double)step / (double)steps,
                               .gradient_norm = 0.25,
                               .tokens_per_s = 1234.56,
                               .valid_loss = valid ? 1.25 : (double)NAN};
}

/* Runs steps first..last of a run of that many, as a trainer does. */
static void run(const char *folder, int64_t resumed, int64_t last, int64_t steps)
{
    mr_journal *journal = NULL;
    mr_error err = {0};
    assert_status(mr_journal_open(&journal, test_path(folder, MR_JOURNAL_NAME), resumed, 0, &err),
                  MR_OK, &err);
    for (int64_t step = resumed + 1; step <= last; step++) {
        const mr_train_progress progress = progress_at(step, steps);
        assert_status(mr_journal_add(journal, &progress, &err), MR_OK, &err);
    }
    assert_status(mr_journal_sync(journal, &err), MR_OK, &err);
    mr_journal_close(journal);
}

/* The journal without what depends on the clock; for free(). */
static char *without_seconds(const char *folder)
{
    char *text = test_file_read(test_path(folder, MR_JOURNAL_NAME), NULL);
    for (char *at = text; (at = strstr(at, "\"seconds\":"));) {
        at += strlen("\"seconds\":");
        for (; *at != '}'; at++)
            *at = '#';
    }
    return text;
}

static void a_line_says_what_a_step_did(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    run(folder, 0, 1, 10);
    char *text = without_seconds(folder);
    assert_string_equal(text, "{\"step\":1,\"loss\":3,\"smooth\":1.83333333,\"rate\":0.0001,"
                              "\"norm\":0.25,\"tokens_per_s\":1235,\"seconds\":###}\n");
    free(text);
    run(folder, 0, 300, 301);
    mr_journal_rows rows = {0};
    mr_error err = {0};
    assert_status(mr_journal_read(&rows, test_path(folder, MR_JOURNAL_NAME), &err), MR_OK, &err);
    assert_int_equal(rows.n, 300);
    assert_int_equal(rows.row[299].step, 300);
    assert_true(rows.row[299].valid == 1.25);
    assert_true(isnan(rows.row[298].valid));
    assert_true(rows.row[1].loss == 2);
    assert_true(rows.row[1].smooth == 1.83333333);
    assert_true(rows.row[1].norm == 0.25);
    assert_true(rows.row[1].tokens_per_s == 1235);
    assert_true(rows.row[1].seconds >= 0);
    mr_journal_rows_free(&rows);
    mr_journal_rows_free(&rows);
    test_folder_free(folder);
}

static void a_run_has_about_a_thousand_lines(void **state)
{
    (void)state;
    static const struct {
        int64_t steps, every;
    } rows[] = {{5, 1}, {1000, 1}, {1001, 2}, {2000, 2}, {2001, 5}, {4000, 5}, {9001, 10}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *folder = test_folder_new();
        mr_journal_rows got = {0};
        mr_error err = {0};
        size_t want = 0;
        run(folder, 0, rows[i].steps, rows[i].steps);
        assert_status(mr_journal_read(&got, test_path(folder, MR_JOURNAL_NAME), &err), MR_OK, &err);
        for (int64_t step = 1; step <= rows[i].steps; step++) {
            const bool logged =
                step == 1 || step == rows[i].steps || step % 300 == 0 || step % rows[i].every == 0;
            if (logged && (want >= got.n || got.row[want].step != step))
                fail_msg("of %d steps: row %zu is not step %d", (int)rows[i].steps, want,
                         (int)step);
            want += logged;
        }
        assert_int_equal(got.n, want);
        mr_journal_rows_free(&got);
        test_folder_free(folder);
    }
}

static void a_resumed_journal_equals_an_uninterrupted_one(void **state)
{
    (void)state;
    char *whole = test_folder_new(), *resumed = test_folder_new();
    run(whole, 0, 1503, 1503);
    char *want = without_seconds(whole);
    run(resumed, 0, 700, 1503);   /* killed here; the last checkpoint was of step 650 */
    run(resumed, 650, 700, 1503); /* killed before the next one */
    run(resumed, 650, 901, 1503); /* stopped, with a checkpoint between logged steps */
    run(resumed, 901, 1503, 1503);
    char *got = without_seconds(resumed);
    assert_string_equal(got, want);
    free(got);
    run(resumed, 1503, 1503, 1503); /* there is nothing left to do */
    got = without_seconds(resumed);
    assert_string_equal(got, want);
    free(got);
    run(resumed, 0, 1503, 1503); /* afresh */
    got = without_seconds(resumed);
    assert_string_equal(got, want);
    free(got);
    free(want);
    test_folder_free(whole);
    test_folder_free(resumed);
}

static void seconds_go_on_where_they_were(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    const char line[] = "{\"step\":1,\"loss\":1,\"smooth\":1,\"rate\":1,\"norm\":1,"
                        "\"tokens_per_s\":1,\"seconds\":1000}\n";
    test_file_write(test_path(folder, MR_JOURNAL_NAME), line, strlen(line));
    run(folder, 1, 2, 2);
    mr_journal_rows rows = {0};
    mr_error err = {0};
    assert_status(mr_journal_read(&rows, test_path(folder, MR_JOURNAL_NAME), &err), MR_OK, &err);
    assert_int_equal(rows.n, 2);
    assert_true(rows.row[1].seconds >= 1000 && rows.row[1].seconds < 1060);
    mr_journal_rows_free(&rows);
    test_folder_free(folder);
}

/* Whatever a process that was killed left behind the lines that count. */
static void a_tail_that_was_cut_is_dropped(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    run(folder, 0, 40, 90);
    size_t whole = 0;
    char *text = test_file_read(test_path(folder, MR_JOURNAL_NAME), &whole);
    char *want = without_seconds(folder);
    run(folder, 40, 41, 90);
    size_t longer = 0;
    char *more = test_file_read(test_path(folder, MR_JOURNAL_NAME), &longer);
    for (size_t len = whole; len < longer; len++) {
        mr_journal_rows rows = {0};
        mr_error err = {0};
        test_file_write(test_path(folder, MR_JOURNAL_NAME), more, len);
        assert_status(mr_journal_read(&rows, test_path(folder, MR_JOURNAL_NAME), &err), MR_OK,
                      &err);
        assert_int_equal(rows.n, 40);
        mr_journal_rows_free(&rows);
        run(folder, 41, 41, 90); /* a checkpoint of a step whose line is not whole */
        char *got = without_seconds(folder);
        assert_string_equal(got, want);
        free(got);
    }
    memset(more + whole, 0, longer - whole); /* what a power cut may leave */
    test_file_write(test_path(folder, MR_JOURNAL_NAME), more, longer);
    run(folder, 40, 40, 90);
    char *got = without_seconds(folder);
    assert_string_equal(got, want);
    free(got);
    free(more);
    free(text);
    free(want);
    test_folder_free(folder);
}

static void a_journal_that_is_none_is_refused_with_its_line(void **state)
{
    (void)state;
#define ROW(step)                                                                            \
    "{\"step\":" step ",\"loss\":1,\"smooth\":1,\"rate\":1,\"norm\":1,\"tokens_per_s\":1,\"" \
    "seconds\":1}\n"
    static const struct {
        const char *text;
        mr_status status;
        const char *message;
    } rows[] = {
        {ROW("1") "what\n" ROW("2"), MR_CORRUPT, "line 2 of "},
        {ROW("1") "[]\n", MR_CORRUPT, "line 2 of "},
        {ROW("1") "{}\n", MR_INVALID, "log.jsonl: the row: 'step' is missing"},
        {ROW("1") ROW("0"), MR_INVALID, "log.jsonl: the row: 'step' is the number 0"},
        {ROW("2") ROW("2"), MR_INVALID, "log.jsonl: step 2 comes after step 2"},
        {ROW("\"2\""), MR_INVALID, "line 1 of "},
    };
    char *folder = test_folder_new();
    mr_journal_rows got = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mr_error err = {0};
        test_file_write(test_path(folder, MR_JOURNAL_NAME), rows[i].text, strlen(rows[i].text));
        assert_status(mr_journal_read(&got, test_path(folder, MR_JOURNAL_NAME), &err),
                      rows[i].status, &err);
        assert_contains(err.message, rows[i].message);
        assert_null(got.row);
    }
    mr_error err = {0};
    assert_status(mr_journal_read(&got, test_path(folder, "none"), &err), MR_NOT_FOUND, &err);
    mr_journal *journal = NULL;
    assert_status(mr_journal_open(&journal, test_path(folder, "none/log.jsonl"), 0, 0, &err),
                  MR_NOT_FOUND, &err);
    assert_null(journal);
    test_file_write(test_path(folder, MR_JOURNAL_NAME), "", 0);
    assert_status(mr_journal_read(&got, test_path(folder, MR_JOURNAL_NAME), &err), MR_OK, &err);
    assert_int_equal(got.n, 0);
    test_folder_free(folder);
}

static void a_number_that_json_lacks_ends_the_run(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    mr_journal *journal = NULL;
    mr_error err = {0};
    assert_status(mr_journal_open(&journal, test_path(folder, MR_JOURNAL_NAME), 0, 0, &err), MR_OK,
                  &err);
    const double bad[] = {(double)NAN, (double)INFINITY, -(double)INFINITY, 1e200};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mr_train_progress p = progress_at(1, 1);
        p.loss = bad[i];
        assert_status(mr_journal_add(journal, &p, &err), MR_INVALID, &err);
        p = progress_at(1, 1);
        p.gradient_norm = bad[i];
        assert_status(mr_journal_add(journal, &p, &err), MR_INVALID, &err);
        p = progress_at(1, 1);
        p.valid_loss = bad[i];
        if (i > 0)
            assert_status(mr_journal_add(journal, &p, &err), MR_INVALID, &err);
    }
    assert_contains(err.message, "step 1: a loss, rate or norm");
    mr_journal_close(journal);
    mr_journal_close(NULL);
    test_folder_free(folder);
}

/* A limit on the size of files stands in for a full disk: writes become short, then fail. */
static void a_write_that_fails_leaves_whole_lines(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    mr_journal *journal = NULL;
    mr_error err = {0};
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_status(mr_journal_open(&journal, test_path(folder, MR_JOURNAL_NAME), 0, 0, &err), MR_OK,
                  &err);
    small = (struct rlimit){.rlim_cur = 1000, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int64_t step = 1;
    mr_status status = MR_OK;
    for (; status == MR_OK && step <= 100; step++) {
        const mr_train_progress progress = progress_at(step, 100);
        status = mr_journal_add(journal, &progress, &err);
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_DFL);
    assert_status(status, MR_IO, &err);
    assert_contains(err.message, "log.jsonl");
    mr_journal_rows rows = {0};
    mr_error none = {0};
    assert_status(mr_journal_read(&rows, test_path(folder, MR_JOURNAL_NAME), &none), MR_OK, &none);
    assert_int_equal(rows.n, step - 2);
    size_t len = 0;
    char *text = test_file_read(test_path(folder, MR_JOURNAL_NAME), &len);
    assert_int_equal(text[len - 1], '\n');
    free(text);

    const mr_train_progress progress = progress_at(step - 1, 100); /* there is room again */
    assert_status(mr_journal_add(journal, &progress, &none), MR_OK, &none);
    mr_journal_rows_free(&rows);
    assert_status(mr_journal_read(&rows, test_path(folder, MR_JOURNAL_NAME), &none), MR_OK, &none);
    assert_int_equal(rows.n, step - 1);
    mr_journal_rows_free(&rows);
    mr_journal_close(journal);
    test_folder_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_says_what_a_step_did),
        cmocka_unit_test(a_run_has_about_a_thousand_lines),
        cmocka_unit_test(a_resumed_journal_equals_an_uninterrupted_one),
        cmocka_unit_test(seconds_go_on_where_they_were),
        cmocka_unit_test(a_tail_that_was_cut_is_dropped),
        cmocka_unit_test(a_journal_that_is_none_is_refused_with_its_line),
        cmocka_unit_test(a_number_that_json_lacks_ends_the_run),
        cmocka_unit_test(a_write_that_fails_leaves_whole_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
