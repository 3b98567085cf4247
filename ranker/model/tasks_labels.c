/* tasks_labels.c - qrels/<task>.txt: four columns, apart by blanks. See tasks.h.
 *
 * Two passes over the mapped file: the first counts the labels of each row, the second fills them
 * in, so that lines may stand in any order and nothing grows.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "core/file.h"
#include "core/options.h"
#include "ranker/model/tasks_private.h"

#define MAX_LINE ((size_t)64 << 10)

typedef struct {
    const char *path;
    mr_str rest;
    uint64_t line;
} label_reader;

typedef struct {
    mr_str row, item;
    int grade;
} label_line;

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static mr_str next_column(mr_str *line)
{
    while (line->len && is_blank(*line->data)) {
        line->data++;
        line->len--;
    }
    mr_str column = {line->data, 0};
    while (column.len < line->len && !is_blank(line->data[column.len]))
        column.len++;
    line->data += column.len;
    line->len -= column.len;
    return column;
}

static mr_status read_grade(mr_str text, int *out, mr_error *err)
{
    char digits[16];
    int64_t value = 0;
    if (text.len >= sizeof digits)
        return MR_FAIL(err, INVALID, "the grade is '%.*s', expected an integer from %d to %d",
                       MR_STR_ARG(text), MR_GRADE_MIN, MR_GRADE_MAX);
    memcpy(digits, text.data, text.len);
    digits[text.len] = '\0';
    mr_status status = mr_parse_int("the grade", digits, MR_GRADE_MIN, MR_GRADE_MAX, &value, err);
    *out = (int)value;
    return status;
}

/* False at the end of the file, or when *status is a failure. */
static bool next_line(label_reader *reader, label_line *out, mr_status *status, mr_error *err)
{
    while (reader->rest.len) {
        const char *end = memchr(reader->rest.data, '\n', reader->rest.len);
        mr_str line = {reader->rest.data,
                       end ? (size_t)(end - reader->rest.data) : reader->rest.len};
        const size_t taken = line.len + (end != NULL);
        reader->rest.data += taken;
        reader->rest.len -= taken;
        reader->line++;
        if (line.len > MAX_LINE) {
            *status = MR_FAIL(err, CORRUPT, "line %llu of %s is longer than %zu bytes",
                              (unsigned long long)reader->line, reader->path, MAX_LINE);
            return false;
        }
        out->row = next_column(&line);
        if (out->row.len == 0)
            continue;
        next_column(&line); /* TREC's "iteration", which nobody reads */
        out->item = next_column(&line);
        const mr_str grade = next_column(&line);
        if (grade.len == 0 || next_column(&line).len)
            *status = MR_FAIL(err, CORRUPT, "expected four columns: row id, 0, item id, grade");
        else
            *status = read_grade(grade, &out->grade, err);
        if (*status != MR_OK)
            mr_error_prefix(err, *status, "line %llu of %s", (unsigned long long)reader->line,
                            reader->path);
        return *status == MR_OK;
    }
    return false;
}

static int by_item(const void *a, const void *b)
{
    const mr_label *x = a, *y = b;
    return (x->item > y->item) - (x->item < y->item);
}

/* What the two passes share: calls for every label of a row that is kept. */
typedef struct {
    mr_tasks *tasks;
    uint32_t task;
    const mr_intern *row_ids;
    mr_task_entry *entries;
    bool filling;
} label_pass;

static mr_status visit_labels(const label_pass *pass, label_reader reader, mr_error *err)
{
    mr_status status = MR_OK;
    label_line line;
    while (next_line(&reader, &line, &status, err)) {
        uint32_t number;
        if (!mr_intern_find(pass->row_ids, line.row, &number))
            continue; /* of a split that was not asked for */
        mr_task_entry *entry = &pass->entries[number];
        uint32_t item;
        if (entry->has_grades)
            return MR_FAIL(err, INVALID, "line %llu of %s: row '%.*s' has 'grades' already",
                           (unsigned long long)reader.line, reader.path, MR_STR_ARG(line.row));
        if (entry->task != pass->task)
            return MR_FAIL(err, INVALID, "line %llu of %s: row '%.*s' belongs to another task",
                           (unsigned long long)reader.line, reader.path, MR_STR_ARG(line.row));
        if (!mr_tasks_find_item(pass->tasks, line.item, &item))
            return MR_FAIL(err, INVALID, "line %llu of %s: the catalogue has no item '%.*s'",
                           (unsigned long long)reader.line, reader.path, MR_STR_ARG(line.item));
        if (line.grade == 0)
            continue;
        if (pass->filling)
            ((mr_label *)(uintptr_t)entry->row.labels)[entry->row.n_labels] =
                (mr_label){item, line.grade};
        entry->row.n_labels++;
    }
    return status;
}

mr_status mr_tasks_finish_labels(const mr_tasks *tasks, const mr_task_entry *entry,
                                 const char *where, mr_error *err)
{
    const mr_task_row *row = &entry->row;
    qsort((mr_label *)(uintptr_t)row->labels, row->n_labels, sizeof *row->labels, by_item);
    bool relevant = false;
    for (size_t i = 0; i < row->n_labels; i++) {
        relevant |= row->labels[i].grade > 0;
        if (i && row->labels[i].item == row->labels[i - 1].item)
            return MR_FAIL(err, INVALID, "%s labels item '%.*s' of row '%.*s' twice", where,
                           MR_STR_ARG(tasks->item[row->labels[i].item].id), MR_STR_ARG(row->id));
    }
    if (!relevant)
        return MR_FAIL(err, INVALID,
                       "%s has no relevant item for row '%.*s' (line %llu of queries.jsonl): it "
                       "cannot be measured",
                       where, MR_STR_ARG(row->id), (unsigned long long)entry->line);
    return MR_OK;
}

mr_status mr_tasks_read_labels(mr_tasks *tasks, const char *path, uint32_t task,
                               const mr_intern *row_ids, mr_task_entry *entries, mr_error *err)
{
    mr_file_map map = {0};
    mr_status status = mr_file_map_open(&map, path, err);
    if (status != MR_OK)
        return status;
    label_pass pass = {tasks, task, row_ids, entries, false};
    const label_reader reader = {.path = path, .rest = {map.data, map.len}};
    status = visit_labels(&pass, reader, err);
    for (size_t i = 0; status == MR_OK && i < row_ids->n; i++) {
        mr_task_row *row = &entries[i].row;
        if (entries[i].task != task || entries[i].has_grades)
            continue;
        row->labels = mr_arena_array(&tasks->arena, mr_label, row->n_labels);
        if (!row->labels)
            status = MR_FAIL(err, NO_MEMORY, "labels of %s", path);
        row->n_labels = 0;
    }
    pass.filling = true;
    if (status == MR_OK)
        status = visit_labels(&pass, reader, err);
    for (size_t i = 0; status == MR_OK && i < row_ids->n; i++)
        if (entries[i].task == task && !entries[i].has_grades)
            status = mr_tasks_finish_labels(tasks, &entries[i], path, err);
    mr_file_map_close(&map);
    return status;
}
