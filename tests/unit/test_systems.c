/* test_systems.c - what a caller writes for a system, and TREC runs there and back.
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

#include "core/file.h"
#include "ranker/evaluation/system_spec.h"
#include "ranker/evaluation/trec_run.h"
#include "tests/support.h"

static void specs_become_systems(void **state)
{
    mr_arena arena = {0};
    mr_system_spec spec, tuned;
    mr_error err = {0};
    (void)state;
    assert_status(mr_system_spec_parse(&arena, "bm25-history", &spec, &err), MR_OK, &err);
    assert_int_equal(spec.kind, MR_SYSTEM_BASELINE);
    assert_int_equal(spec.baseline, MR_BASELINE_BM25_HISTORY);
    assert_string_equal(spec.name, "bm25-history");
    assert_status(
        mr_system_spec_parse(&arena, "bundle:/x/y/demo/,no-user,blend=0.5,prior=sum", &spec, &err),
        MR_OK, &err);
    assert_int_equal(spec.kind, MR_SYSTEM_BUNDLE);
    assert_string_equal(spec.path, "/x/y/demo/");
    assert_string_equal(spec.name, "bundle:demo no-user + 0.5 sum");
    assert_true(spec.variant.no_user && !spec.variant.no_query && !spec.tune);
    assert_true(spec.blend == 0.5 && spec.prior == MR_BASELINE_SUM);
    assert_status(mr_system_spec_tuned(&arena, &spec, &tuned, &err), MR_OK, &err);
    assert_true(tuned.tune && mr_system_spec_same_scores(&spec, &tuned));
    assert_status(mr_system_spec_parse(&arena, "dot:e,history=0.25,nearest=5,last,name=late fusion",
                                       &spec, &err),
                  MR_OK, &err);
    assert_true(spec.dot.history == 0.25 && spec.dot.nearest == 5 && spec.dot.last_token);
    assert_string_equal(spec.name, "late fusion");
    assert_status(mr_system_spec_parse(&arena, "dot:e,history=0.5,nearest=5,last", &tuned, &err),
                  MR_OK, &err);
    assert_false(mr_system_spec_same_scores(&spec, &tuned));
    assert_status(mr_system_spec_parse(&arena, "run:%.run,blend=1", &spec, &err), MR_OK, &err);
    assert_string_equal(spec.name, "run:%.run + 1 bm25");
    mr_arena_done(&arena);
}

static void specs_that_mean_nothing_are_refused(void **state)
{
    static const struct {
        const char *text, *message;
    } row[] = {
        {"bm26", "unknown system 'bm26'; did you mean 'bm25'?"},
        {"", "unknown system ''"},
        {"bundle:", "'bundle:' needs a path"},
        {"bundle:d,no-usr", "unknown option 'no-usr'; did you mean 'no-user'?"},
        {"bundle:d,no-user=1", "'no-user' takes no value"},
        {"bundle:d,store", "'store' needs a value"},
        {"bundle:d,store=", "'store' is empty"},
        {"bundle:d,blend=x", "blend is 'x', expected a number"},
        {"bundle:d,prior=bm52", "unknown prior 'bm52'"},
        {"bundle:d,nearest=3", "unknown option 'nearest'"},
        {"dot:d,nearest=65", "nearest is '65', expected an integer from 1 to 64"},
        {"dot:d,history=-1", "history is '-1', expected a number from 0"},
        {"bm25,blend=1", "unknown option 'blend'"},
        {"bm25,,", "unknown option ''"},
        {"run:r,no-user", "unknown option 'no-user'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_arena arena = {0};
        mr_system_spec spec;
        mr_error err = {0};
        assert_status(mr_system_spec_parse(&arena, row[i].text, &spec, &err), MR_INVALID, &err);
        assert_contains(err.message, row[i].message);
        assert_contains(err.message, row[i].text);
        mr_arena_done(&arena);
    }
}

/* ---- runs ------------------------------------------------------------------------------------ */

static const char *const task[] = {"T"};

static mr_tasks *open_tasks(char **folder)
{
    static const char items[] =
        "{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":\"c\"}\n{\"id\":\"d e\"}\n";
    static const char queries[] =
        "{\"id\":\"r1\",\"task\":\"T\",\"split\":\"test\",\"candidates\":[\"c\",\"a\",\"b\"]}\n"
        "{\"id\":\"r2\",\"task\":\"T\",\"split\":\"test\",\"candidates\":[\"d e\"]}\n";
    static const char labels[] = "r1 0 a 2\nr1 0 b -1\nr2 0 a 1\n";
    const mr_tasks_options options = {.tasks = task, .n_tasks = 1, .splits = 1u << MR_SPLIT_TEST};
    mr_tasks *tasks = NULL;
    mr_error err = {0};
    *folder = test_folder_new();
    assert_status(mr_file_make_folders(test_path(*folder, "qrels"), &err), MR_OK, &err);
    test_file_write(test_path(*folder, "items.jsonl"), items, strlen(items));
    test_file_write(test_path(*folder, "queries.jsonl"), queries, strlen(queries));
    test_file_write(test_path(*folder, "qrels/T.txt"), labels, strlen(labels));
    assert_status(mr_tasks_open(&tasks, *folder, &options, &err), MR_OK, &err);
    return tasks;
}

static void runs_keep_our_order_for_whoever_sorts_by_score(void **state)
{
    char *folder;
    mr_tasks *tasks = open_tasks(&folder);
    size_t n;
    const mr_task_row *row = mr_tasks_rows(tasks, 0, MR_SPLIT_TEST, &n);
    /* b and a are equal as floats, c was not scored. */
    static const double scores[] = {(double)NAN, 1.0, 1.0 + 1e-12};
    static const size_t order[] = {2, 1, 0};
    mr_error err = {0};
    mr_file_writer writer;
    (void)state;
    assert_status(mr_file_writer_open(&writer, test_path(folder, "run"), &err), MR_OK, &err);
    assert_status(mr_trec_run_write(writer.stream, tasks, &row[0], order, scores, "t", &err), MR_OK,
                  &err);
    assert_status(mr_file_writer_commit(&writer, &err), MR_OK, &err);
    char *text = test_file_read(test_path(folder, "run"), NULL);
    assert_string_equal(text, "r1 Q0 b 1 1 t\n"
                              "r1 Q0 a 2 0.99999994 t\n"
                              "r1 Q0 c 3 0.999999881 t\n");
    free(text);
    test_folder_free(folder);
    mr_tasks_close(tasks);
}

static void what_a_run_cannot_hold_is_refused(void **state)
{
    char *folder;
    mr_tasks *tasks = open_tasks(&folder);
    size_t n;
    const mr_task_row *row = mr_tasks_rows(tasks, 0, MR_SPLIT_TEST, &n);
    static const double scores[] = {1};
    static const size_t order[] = {0};
    mr_error err = {0};
    FILE *out = fopen(test_path(folder, "run"), "w");
    (void)state;
    assert_non_null(out);
    assert_status(mr_trec_run_write(out, tasks, &row[1], order, scores, "t", &err), MR_INVALID,
                  &err);
    assert_contains(err.message, "item id 'd e' is empty, or has a blank");
    fclose(out);
    char name[12];
    mr_trec_name("a b/c: d + e", name, sizeof name);
    assert_string_equal(name, "a-b-c-d-+-e");
    mr_trec_name("0123456789abc", name, 4);
    assert_string_equal(name, "012");
    test_folder_free(folder);
    mr_tasks_close(tasks);
}

static void runs_are_read_or_refused_with_their_line(void **state)
{
    static const struct {
        const char *text, *message; /* NULL: fine */
    } row[] = {
        {"r1 Q0 a 1 2.5 t\nother Q0 x 1 1 t\n\nr1 Q0 b 2 -1e3 t", NULL},
        {"r1 Q0 a 1 2.5\n", "line 1 of"},
        {"r1 Q0 a 1 2.5\n", "expected six columns"},
        {"r1 Q0 a 1 2.5 t u\n", "expected six columns"},
        {"\nr1 Q0 a 1 nan t\n", "line 2 of"},
        {"r1 Q0 a 1 nan t\n", "the score is 'nan'"},
        {"r1 Q0 a 1 1e999 t\n", "the score is '1e999'"},
        {"r1 Q0 a 1 0000000000000000000000000000000000000000000000000000000000000000001 t\n",
         "expected a number"},
        {"r1 Q0 x 1 1 t\n", "item 'x' is no candidate of row 'r1'"},
        {"r2 Q0 a 1 1 t\n", "item 'a' is no candidate of row 'r2'"},
        {"r1 Q0 a 1 1 t\nr1 Q0 a 2 1 t\n", "item 'a' stands twice in row 'r1'"},
    };
    char *folder;
    mr_tasks *tasks = open_tasks(&folder);
    size_t n;
    const mr_task_row *rows = mr_tasks_rows(tasks, 0, MR_SPLIT_TEST, &n);
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_trec_run *run = NULL;
        mr_error err = {0};
        test_file_write(test_path(folder, "run"), row[i].text, strlen(row[i].text));
        const mr_status status =
            mr_trec_run_open(&run, test_path(folder, "run"), tasks, rows, n, &err);
        if (row[i].message) {
            assert_true(status == MR_INVALID || status == MR_CORRUPT);
            assert_contains(err.message, row[i].message);
            continue;
        }
        assert_status(status, MR_OK, &err);
        const double *scores = mr_trec_run_scores(run, 0);
        assert_true(isnan(scores[0]) && scores[1] == 2.5 && scores[2] == -1000);
        assert_true(isnan(mr_trec_run_scores(run, 1)[0]));
        mr_trec_run_close(run);
    }
    test_folder_free(folder);
    mr_tasks_close(tasks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(specs_become_systems),
        cmocka_unit_test(specs_that_mean_nothing_are_refused),
        cmocka_unit_test(runs_keep_our_order_for_whoever_sorts_by_score),
        cmocka_unit_test(what_a_run_cannot_hold_is_refused),
        cmocka_unit_test(runs_are_read_or_refused_with_their_line),
    };
    return cmocka_run_group_tests_name("systems", tests, NULL, NULL);
}
