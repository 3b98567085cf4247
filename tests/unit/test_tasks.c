/* test_tasks.c - reading a catalogue's items, rows and labels: what is kept, and what is refused
 * with file and line.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "ranker/model/tasks.h"
#include "tests/support.h"

static const char items[] = "{\"id\":\"a\",\"title\":\"A\",\"text\":\"red\",\"n\":3}\n"
                            "{\"id\":\"b\",\"text\":\"green\"}\n"
                            "\n"
                            "{\"id\":\"c\"}\n";

static const char queries[] =
    "{\"id\":\"r1\",\"task\":\"T\",\"split\":\"test\",\"query\":\"red\",\"user\":\"ann\","
    "\"history\":[\"b\",\"b\"],\"same_family\":true,\"candidates\":[\"c\",\"a\"]}\n"
    "{\"id\":\"r2\",\"task\":\"U\",\"split\":\"test\"}\n"
    "{\"id\":\"r3\",\"task\":\"T\",\"split\":\"train\",\"user\":\"bob\",\"candidates\":[\"b\"]}\n"
    "{\"id\":\"r4\",\"task\":\"T\",\"split\":\"test\",\"user\":\"ann\",\"candidates\":[\"b\"]}\n"
    "{\"id\":\"r5\",\"task\":\"T\",\"split\":\"valid\",\"candidates\":[\"a\"]}\n";

static const char labels_t[] = "r4 0 b 2\n"
                               "r1 0 c 1\r\n"
                               "\n"
                               "r1\t0  a   3 \n"
                               "r1 0 b 0\n"
                               "r3 0 b 1\n"
                               "r5 0 a 1\n"
                               "elsewhere 0 nothing 1\n"
                               "r1 0 b -1";
static const char labels_u[] = "r2 0 b 1\n";

static char *make_catalogue(const char *item_rows, const char *query_rows, const char *labels)
{
    char *folder = test_folder_new();
    mr_error err = {0};
    assert_status(mr_file_make_folders(test_path(folder, "qrels"), &err), MR_OK, &err);
    test_file_write(test_path(folder, "items.jsonl"), item_rows, strlen(item_rows));
    test_file_write(test_path(folder, "queries.jsonl"), query_rows, strlen(query_rows));
    test_file_write(test_path(folder, "qrels/T.txt"), labels, strlen(labels));
    test_file_write(test_path(folder, "qrels/U.txt"), labels_u, strlen(labels_u));
    return folder;
}

static const char *const both[] = {"T", "U"};

static void rows_are_kept_by_task_and_split(void **state)
{
    char *folder = make_catalogue(items, queries, labels_t);
    const mr_tasks_options options = {
        .tasks = both, .n_tasks = 2, .splits = 1u << MR_SPLIT_TEST | 1u << MR_SPLIT_TRAIN};
    mr_tasks *tasks = NULL;
    mr_error err = {0};
    size_t n;
    uint32_t number;
    (void)state;
    assert_status(mr_tasks_open(&tasks, folder, &options, &err), MR_OK, &err);
    assert_int_equal(mr_tasks_n_items(tasks), 3);
    assert_int_equal(mr_tasks_item(tasks, 0)->fields.n, 2); /* the number is no field */
    assert_true(mr_tasks_find_item(tasks, mr_str_of("c"), &number));
    assert_int_equal(number, 2);
    assert_false(mr_tasks_find_item(tasks, mr_str_of("d"), &number));
    assert_int_equal(mr_tasks_n_users(tasks), 2);

    const mr_task_row *row = mr_tasks_rows(tasks, 0, MR_SPLIT_TEST, &n);
    assert_int_equal(n, 2);
    assert_true(mr_str_equal(row[0].id, mr_str_of("r1")));
    assert_true(mr_str_equal(row[0].query, mr_str_of("red")));
    assert_true(row[0].same_family && !row[1].same_family);
    assert_int_equal(row[0].n_history, 2);
    assert_int_equal(row[0].n_candidates, 2);
    assert_int_equal(mr_task_candidate(&row[0], 0), 2);
    assert_int_equal(mr_task_grade(&row[0], 0), 3);
    assert_int_equal(mr_task_grade(&row[0], 1), -1);
    assert_int_equal(mr_task_grade(&row[0], 2), 1);
    assert_int_equal(row[0].user, row[1].user);
    assert_int_equal(mr_task_grade(&row[1], 0), 0);
    assert_int_equal(row[1].query.len, 0);

    row = mr_tasks_rows(tasks, 1, MR_SPLIT_TEST, &n);
    assert_int_equal(n, 1);
    assert_null(row[0].candidates);
    assert_int_equal(row[0].n_candidates, 3);
    assert_int_equal(row[0].user, MR_TASK_NOBODY);
    mr_tasks_rows(tasks, 0, MR_SPLIT_TRAIN, &n);
    assert_int_equal(n, 1);
    mr_tasks_rows(tasks, 0, MR_SPLIT_VALID, &n);
    assert_int_equal(n, 0); /* was not asked for */
    mr_tasks_close(tasks);
    mr_tasks_close(NULL);
    test_folder_free(folder);
}

#define ROW(rest) "{\"id\":\"r1\",\"task\":\"T\",\"split\":\"test\"" rest "}\n"

static void what_is_wrong_is_named_with_its_line(void **state)
{
    static const char good[] = "r1 0 a 1\n";
    static const char two[] = ROW("") ROW("");
    static const struct {
        const char *items, *queries, *labels, *message;
        mr_status status;
    } row[] = {
        {"{\"id\":\"a\"}\n{\"id\":\"a\"}", ROW(""), good, "line 2 of", MR_INVALID},
        {"{\"id\":\"a\"}\n{\"id\":\"a\"}", ROW(""), good, "'a' is there twice", MR_INVALID},
        {"{\"id\":7}", ROW(""), good, "'id' is the number 7", MR_INVALID},
        {"{\"id\":\"\"}", ROW(""), good, "expected the item's id", MR_INVALID},
        {"{}", ROW(""), good, "'id' is missing", MR_INVALID},
        {"[]", ROW(""), good, "items.jsonl", MR_CORRUPT},
        {"", ROW(""), good, "has no items", MR_INVALID},
        {items, "{\"id\":\"r1\"}", good, "'task' is missing", MR_INVALID},
        {items, "{\"id\":\"r1\",\"task\":\"T\"}", good, "'split' is missing", MR_INVALID},
        {items, "{\"id\":\"r1\",\"task\":\"T\",\"split\":\"dev\"}", good,
         "'split' is 'dev', expected train, valid or test", MR_INVALID},
        {items, "{\"task\":\"T\",\"split\":\"test\"}", good, "'id' is missing", MR_INVALID},
        {items, "{\"id\":\"\",\"task\":\"T\",\"split\":\"test\"}", good, "'id' is empty",
         MR_INVALID},
        {items, two, good, "line 2 of", MR_INVALID},
        {items, two, good, "row 'r1' is there twice", MR_INVALID},
        {items, "{\"id\":\"r1\",\"task\":\"V\",\"split\":\"test\"}", good,
         "has no task 'T'; it has V", MR_NOT_FOUND},
        {items, "", good, "it has no rows at all", MR_NOT_FOUND},
        {items, "\n{broken\n", good, "queries.jsonl", MR_CORRUPT},
        {items, ROW(",\"query\":[]"), good, "'query' is an array", MR_INVALID},
        {items, ROW(",\"user\":1"), good, "'user' is the number 1", MR_INVALID},
        {items, ROW(",\"same_family\":1"), good, "expected true or false", MR_INVALID},
        {items, ROW(",\"history\":\"a\""), good, "'history' is the string", MR_INVALID},
        {items, ROW(",\"history\":[1]"), good, "'history' holds the number 1", MR_INVALID},
        {items, ROW(",\"history\":[\"x\"]"), good, "no item 'x'", MR_INVALID},
        {items, ROW(",\"candidates\":{}"), good, "'candidates' is an object", MR_INVALID},
        {items, ROW(",\"candidates\":[]"), good, "'candidates' is empty", MR_INVALID},
        {items, ROW(",\"candidates\":[\"x\"]"), good, "no item 'x'", MR_INVALID},
        {items, ROW(",\"candidates\":[\"a\",\"b\",\"a\"]"), good, "has item 'a' twice", MR_INVALID},
        {items, ROW(""), "", "no relevant item for row 'r1' (line 1", MR_INVALID},
        {items, ROW(""), "r1 0 a 0\n", "cannot be measured", MR_INVALID},
        {items, ROW(""), "r1 0 a -1\n", "cannot be measured", MR_INVALID},
        {items, ROW(""), "r1 0 a\n", "expected four columns", MR_CORRUPT},
        {items, ROW(""), "r1 0 a 1 x\n", "expected four columns", MR_CORRUPT},
        {items, ROW(""), "\n\nr1 0 a\n", "line 3 of", MR_CORRUPT},
        {items, ROW(""), "r1 0 a one\n", "the grade is 'one'", MR_INVALID},
        {items, ROW(""), "r1 0 a 31\n", "from -1 to 30", MR_INVALID},
        {items, ROW(""), "r1 0 a 1.5\n", "the grade is '1.5'", MR_INVALID},
        {items, ROW(""), "r1 0 a 11111111111111111111111\n", "from -1 to 30", MR_INVALID},
        {items, ROW(""), "r1 0 x 1\n", "no item 'x'", MR_INVALID},
        {items, ROW(""), "r1 0 a 1\nr1 0 a 2\n", "labels item 'a' of row 'r1' twice", MR_INVALID},
    };
    static const char *const one[] = {"T"};
    const mr_tasks_options options = {.tasks = one, .n_tasks = 1, .splits = 1u << MR_SPLIT_TEST};
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char *folder = make_catalogue(row[i].items, row[i].queries, row[i].labels);
        mr_tasks *tasks = NULL;
        mr_error err = {0};
        const mr_status got = mr_tasks_open(&tasks, folder, &options, &err);
        if (got != row[i].status)
            print_message("row %zu: %s\n", i, row[i].message);
        assert_status(got, row[i].status, &err);
        assert_contains(err.message, row[i].message);
        assert_null(tasks);
        test_folder_free(folder);
    }
}

/* A file that ends anywhere gives an error or fewer rows, never anything else. */
static void files_cut_at_every_length_do_no_harm(void **state)
{
    char *folder = make_catalogue(items, queries, labels_t);
    const mr_tasks_options options = {.tasks = both, .n_tasks = 2, .splits = 7};
    static const struct {
        const char *name, *text;
    } file[] = {{"items.jsonl", items}, {"queries.jsonl", queries}, {"qrels/T.txt", labels_t}};
    size_t whole = 0;
    (void)state;
    for (size_t f = 0; f < 3; f++) {
        for (size_t len = 0; len <= strlen(file[f].text); len++) {
            mr_tasks *tasks = NULL;
            mr_error err = {0};
            test_file_write(test_path(folder, file[f].name), file[f].text, len);
            if (mr_tasks_open(&tasks, folder, &options, &err) == MR_OK)
                whole++;
            else
                assert_true(err.message[0] != '\0');
            mr_tasks_close(tasks);
        }
        test_file_write(test_path(folder, file[f].name), file[f].text, strlen(file[f].text));
    }
    assert_true(whole >= 3);
    test_folder_free(folder);
}

static void a_call_that_makes_no_sense_is_refused(void **state)
{
    static const char *const twice[] = {"T", "T"}, *const path[] = {"../T"}, *const sub[] = {"a/T"};
    static const struct {
        mr_tasks_options options;
        const char *message;
    } row[] = {
        {{.tasks = both, .n_tasks = 0, .splits = 1}, "0 tasks, expected 1 to 64"},
        {{.tasks = twice, .n_tasks = 2, .splits = 1}, "task 'T' is asked for twice"},
        {{.tasks = path, .n_tasks = 1, .splits = 1}, "'../T' is no name of a task"},
        {{.tasks = sub, .n_tasks = 1, .splits = 1}, "'a/T' is no name of a task"},
        {{.tasks = both, .n_tasks = 2, .splits = 1, .items = "../items.jsonl"}, "items.jsonl"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_tasks *tasks = NULL;
        mr_error err = {0};
        assert_status(mr_tasks_open(&tasks, "nowhere", &row[i].options, &err), MR_INVALID, &err);
        assert_contains(err.message, row[i].message);
    }
    mr_tasks *tasks = NULL;
    mr_error err = {0};
    const mr_tasks_options options = {.tasks = both, .n_tasks = 2, .splits = 1};
    assert_status(mr_tasks_open(&tasks, "nowhere", &options, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "nowhere/items.jsonl");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_kept_by_task_and_split),
        cmocka_unit_test(what_is_wrong_is_named_with_its_line),
        cmocka_unit_test(files_cut_at_every_length_do_no_harm),
        cmocka_unit_test(a_call_that_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests_name("tasks", tests, NULL, NULL);
}
