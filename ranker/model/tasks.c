/* tasks.c - queries.jsonl, and the order of reading it all. See tasks.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/model/tasks.h"

#include <inttypes.h>
#include <stdlib.h>

#include "core/file.h"
#include "core/jsonl.h"
#include "core/options.h"
#include "core/strbuf.h"
#include "ranker/model/tasks_private.h"

#define MAX_TASKS_TOLD 32

static const char *const split_names[MR_SPLIT_COUNT] = {"train", "valid", "test"};

const char *mr_split_name(mr_split split)
{
    return (unsigned)split < MR_SPLIT_COUNT ? split_names[split] : "unknown";
}

/* Reading queries.jsonl. */
typedef struct {
    mr_tasks *tasks;
    const mr_tasks_options *options;
    mr_intern row_ids;
    mr_task_entry *entry; /* [row_ids.n] */
    size_t capacity;
    uint32_t *seen; /* [items]: 1 + the last row that had the item as a candidate */
    bool found[MR_TASKS_MAX];
    mr_intern names; /* of all tasks in the file, for the message about one that is not there */
} row_reader;

static mr_status read_text(const json_t *row, const char *key, bool required, mr_str *out,
                           mr_error *err)
{
    const json_t *value = json_object_get(row, key);
    *out = (mr_str){0};
    if (!required && (!value || json_is_null(value)))
        return MR_OK;
    if (!json_is_string(value))
        return MR_FAIL(err, INVALID, "'%s' is %s, expected a string", key,
                       value ? mr_json_describe(value) : "missing");
    *out = (mr_str){json_string_value(value), json_string_length(value)};
    if (required && out->len == 0)
        return MR_FAIL(err, INVALID, "'%s' is empty", key);
    return MR_OK;
}

/* An array of item ids; *out is NULL when there is none. */
static mr_status read_items(row_reader *reader, const json_t *row, const char *key,
                            const uint32_t **out, size_t *n, mr_error *err)
{
    const json_t *list = json_object_get(row, key);
    *out = NULL;
    *n = 0;
    if (!list || json_is_null(list))
        return MR_OK;
    if (!json_is_array(list))
        return MR_FAIL(err, INVALID, "'%s' is %s, expected an array of item ids", key,
                       mr_json_describe(list));
    const size_t count = json_array_size(list);
    uint32_t *item = mr_arena_array(&reader->tasks->arena, uint32_t, count);
    if (!item)
        return MR_FAIL(err, NO_MEMORY, "'%s' of %zu items", key, count);
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_string(id))
            return MR_FAIL(err, INVALID, "'%s' holds %s, expected item ids", key,
                           mr_json_describe(id));
        const mr_str name = {json_string_value(id), json_string_length(id)};
        if (!mr_tasks_find_item(reader->tasks, name, &item[i]))
            return MR_FAIL(err, INVALID, "'%s': the catalogue has no item '%.*s'", key,
                           MR_STR_ARG(name));
    }
    *out = item;
    *n = count;
    return MR_OK;
}

static mr_status read_candidates(row_reader *reader, const json_t *row, mr_task_row *out,
                                 mr_error *err)
{
    mr_status status =
        read_items(reader, row, "candidates", &out->candidates, &out->n_candidates, err);
    if (status != MR_OK)
        return status;
    if (!out->candidates) {
        out->n_candidates = reader->tasks->item_ids.n;
        return MR_OK;
    }
    if (out->n_candidates == 0)
        return MR_FAIL(err, INVALID,
                       "'candidates' is empty; leave it out for a row asked of all items");
    for (size_t i = 0; i < out->n_candidates; i++) {
        uint32_t *seen = &reader->seen[out->candidates[i]];
        if (*seen == reader->row_ids.n)
            return MR_FAIL(err, INVALID, "'candidates' has item '%.*s' twice",
                           MR_STR_ARG(reader->tasks->item[out->candidates[i]].id));
        *seen = (uint32_t)reader->row_ids.n;
    }
    return MR_OK;
}

/* Labels from "grades", one per candidate. */
static mr_status read_grades(row_reader *reader, const json_t *row, mr_task_entry *entry,
                             mr_error *err)
{
    const json_t *grades = json_object_get(row, "grades");
    const size_t n = entry->row.n_candidates;
    if (!grades || json_is_null(grades))
        return MR_OK;
    if (!json_is_array(grades) || !entry->row.candidates || json_array_size(grades) != n)
        return MR_FAIL(err, INVALID, "'grades' is %s, expected an array of %zu, one per candidate",
                       mr_json_describe(grades), n);
    mr_label *label = mr_arena_array(&reader->tasks->arena, mr_label, n);
    if (!label)
        return MR_FAIL(err, NO_MEMORY, "'grades' of %zu items", n);
    for (size_t i = 0; i < n; i++) {
        const json_t *grade = json_array_get(grades, i);
        const json_int_t value = json_integer_value(grade);
        if (!json_is_integer(grade) || value < MR_GRADE_MIN || value > MR_GRADE_MAX)
            return MR_FAIL(err, INVALID, "'grades' holds %s, expected integers from %d to %d",
                           mr_json_describe(grade), MR_GRADE_MIN, MR_GRADE_MAX);
        if (value != 0)
            label[entry->row.n_labels++] = (mr_label){entry->row.candidates[i], (int)value};
    }
    entry->row.labels = label;
    entry->has_grades = true;
    return mr_tasks_finish_labels(reader->tasks, entry, "'grades'", err);
}

/* Which of the tasks and splits asked for the row belongs to; false: none. */
static mr_status sort_out(row_reader *reader, const json_t *row, uint32_t *task, mr_split *split,
                          bool *wanted, mr_error *err)
{
    mr_str name, text;
    uint32_t ignored;
    *wanted = false;
    mr_status status = read_text(row, "task", true, &name, err);
    if (status == MR_OK)
        status = read_text(row, "split", true, &text, err);
    if (status == MR_OK && reader->names.n < MAX_TASKS_TOLD)
        status = mr_intern_add(&reader->names, name, &ignored, NULL, err);
    if (status != MR_OK)
        return status;
    for (*split = 0; *split < MR_SPLIT_COUNT; (*split)++)
        if (mr_str_equal(text, mr_str_of(split_names[*split])))
            break;
    if (*split == MR_SPLIT_COUNT)
        return MR_FAIL(err, INVALID, "'split' is '%.*s', expected train, valid or test",
                       MR_STR_ARG(text));
    for (*task = 0; *task < reader->options->n_tasks; (*task)++)
        if (mr_str_equal(name, mr_str_of(reader->options->tasks[*task]))) {
            reader->found[*task] = true;
            *wanted = reader->options->splits & (1u << *split);
            return MR_OK;
        }
    return MR_OK;
}

static mr_status read_row(void *context, const json_t *json, uint64_t line, mr_error *err)
{
    row_reader *reader = context;
    mr_tasks *tasks = reader->tasks;
    mr_task_entry entry = {.line = line, .row = {.user = MR_TASK_NOBODY}};
    mr_str id, query, user;
    bool wanted, is_new;
    uint32_t number;
    mr_status status = sort_out(reader, json, &entry.task, &entry.split, &wanted, err);
    if (status != MR_OK || !wanted)
        return status;
    status = read_text(json, "id", true, &id, err);
    if (status == MR_OK)
        status = read_text(json, "query", false, &query, err);
    if (status == MR_OK)
        status = read_text(json, "user", false, &user, err);
    if (status == MR_OK)
        status = mr_intern_add(&reader->row_ids, id, &number, &is_new, err);
    if (status != MR_OK)
        return status;
    if (!is_new)
        return MR_FAIL(err, INVALID, "row '%.*s' is there twice", MR_STR_ARG(id));
    entry.row.id = reader->row_ids.name[number];
    if (user.len)
        status = mr_intern_add(&tasks->user_ids, user, &entry.row.user, NULL, err);
    const char *text = mr_arena_strndup(&tasks->arena, query.data, query.len);
    if (status == MR_OK && !text)
        status = MR_FAIL(err, NO_MEMORY, "%zu rows", reader->row_ids.n);
    entry.row.query = (mr_str){text, query.len};
    const json_t *family = json_object_get(json, "same_family");
    if (status == MR_OK && family && !json_is_boolean(family))
        status = MR_FAIL(err, INVALID, "'same_family' is %s, expected true or false",
                         mr_json_describe(family));
    entry.row.same_family = json_is_true(family);
    if (status == MR_OK)
        status = read_items(reader, json, "history", &entry.row.history, &entry.row.n_history, err);
    if (status == MR_OK)
        status = read_candidates(reader, json, &entry.row, err);
    if (status == MR_OK)
        status = read_grades(reader, json, &entry, err);
    if (status != MR_OK)
        return status;
    if (reader->row_ids.n > reader->capacity) {
        const size_t capacity = reader->capacity ? 2 * reader->capacity : 256;
        mr_task_entry *bigger = realloc(reader->entry, capacity * sizeof *bigger);
        if (!bigger)
            return MR_FAIL(err, NO_MEMORY, "%zu rows", reader->row_ids.n);
        reader->entry = bigger;
        reader->capacity = capacity;
    }
    reader->entry[number] = entry;
    return MR_OK;
}

static mr_status read_rows(row_reader *reader, const char *path, mr_error *err)
{
    uint64_t line;
    mr_status status = mr_jsonl_each(path, MR_JSONL_MAX_LINE, read_row, reader, &line, err);
    return line ? mr_error_prefix(err, status, "line %" PRIu64 " of %s", line, path) : status;
}

static mr_status check_found(const row_reader *reader, const char *path, mr_error *err)
{
    for (size_t i = 0; i < reader->options->n_tasks; i++) {
        if (reader->found[i])
            continue;
        mr_strbuf known = {0};
        for (size_t k = 0; k < reader->names.n; k++)
            mr_strbuf_printf(&known, "%s%.*s", k ? ", " : "", MR_STR_ARG(reader->names.name[k]));
        mr_status status =
            MR_FAIL(err, NOT_FOUND, "%s has no task '%s'; it has %s", path,
                    reader->options->tasks[i], known.len ? known.data : "no rows at all");
        mr_strbuf_release(&known);
        return status;
    }
    return MR_OK;
}

/* Entries into the final array, by task and split. */
static mr_status arrange(row_reader *reader, mr_error *err)
{
    mr_tasks *tasks = reader->tasks;
    const size_t n = reader->row_ids.n, n_groups = tasks->n_tasks * MR_SPLIT_COUNT;
    tasks->row = mr_arena_array(&tasks->arena, mr_task_row, n);
    if (!tasks->row)
        return MR_FAIL(err, NO_MEMORY, "%zu rows", n);
    for (size_t i = 0; i < n; i++)
        tasks->first[reader->entry[i].task * MR_SPLIT_COUNT + (size_t)reader->entry[i].split + 1]++;
    for (size_t i = 0; i < n_groups; i++)
        tasks->first[i + 1] += tasks->first[i];
    size_t next[MR_TASKS_MAX * MR_SPLIT_COUNT];
    memcpy(next, tasks->first, n_groups * sizeof *next);
    for (size_t i = 0; i < n; i++) {
        const mr_task_entry *entry = &reader->entry[i];
        mr_task_row *row = &tasks->row[next[entry->task * MR_SPLIT_COUNT + (size_t)entry->split]++];
        *row = entry->row;
        const char *id = mr_arena_strndup(&tasks->arena, row->id.data, row->id.len);
        if (!id)
            return MR_FAIL(err, NO_MEMORY, "%zu rows", n);
        row->id.data = id;
    }
    return MR_OK;
}

static bool is_items_alone(const mr_tasks_options *options)
{
    return options->n_tasks == 0 && options->splits == 0;
}

static mr_status check_options(const mr_tasks_options *options, mr_error *err)
{
    if ((options->n_tasks == 0 && !is_items_alone(options)) || options->n_tasks > MR_TASKS_MAX)
        return MR_FAIL(err, INVALID, "%zu tasks, expected 1 to %d", options->n_tasks, MR_TASKS_MAX);
    for (size_t i = 0; i < options->n_tasks; i++) {
        /* The name becomes that of a file. */
        mr_status status = mr_path_check_relative(options->tasks[i], err);
        if (status != MR_OK || strchr(options->tasks[i], '/'))
            return MR_FAIL(err, INVALID, "'%s' is no name of a task", options->tasks[i]);
        for (size_t k = 0; k < i; k++)
            if (strcmp(options->tasks[i], options->tasks[k]) == 0)
                return MR_FAIL(err, INVALID, "task '%s' is asked for twice", options->tasks[i]);
    }
    mr_status status = options->items ? mr_path_check_relative(options->items, err) : MR_OK;
    if (status == MR_OK && options->queries)
        status = mr_path_check_relative(options->queries, err);
    return status;
}

/* Whether some row of the task waits for labels of a file; a task without rows does, too: its file
 * has to be there. */
static bool lacks_grades(const row_reader *reader, uint32_t task)
{
    size_t rows = 0;
    for (size_t i = 0; i < reader->row_ids.n; i++) {
        if (reader->entry[i].task != task)
            continue;
        rows++;
        if (!reader->entry[i].has_grades)
            return true;
    }
    return rows == 0;
}

static mr_status read_labels(row_reader *reader, const char *folder, mr_error *err)
{
    mr_tasks *tasks = reader->tasks;
    mr_status status = MR_OK;
    for (uint32_t t = 0; status == MR_OK && t < tasks->n_tasks; t++) {
        mr_strbuf path = {0};
        if (!lacks_grades(reader, t))
            continue;
        mr_strbuf_printf(&path, "%s/qrels/%s.txt", folder, reader->options->tasks[t]);
        status = path.failed ? MR_FAIL(err, NO_MEMORY, "a path")
                             : mr_tasks_read_labels(tasks, path.data, t, &reader->row_ids,
                                                    reader->entry, err);
        mr_strbuf_release(&path);
    }
    return status;
}

static mr_status read_all(row_reader *reader, const char *folder, mr_error *err)
{
    mr_tasks *tasks = reader->tasks;
    const char *items = reader->options->items ? reader->options->items : "items.jsonl";
    const char *path = mr_path_join(&tasks->arena, folder, items);
    if (!path)
        return MR_FAIL(err, NO_MEMORY, "a path");
    mr_status status = mr_tasks_read_items(tasks, path, err);
    if (status != MR_OK || is_items_alone(reader->options))
        return status;
    reader->seen = calloc(tasks->item_ids.n, sizeof *reader->seen);
    const char *queries = reader->options->queries ? reader->options->queries : "queries.jsonl";
    path = mr_path_join(&tasks->arena, folder, queries);
    if (!reader->seen || !path)
        return MR_FAIL(err, NO_MEMORY, "%zu items", tasks->item_ids.n);
    status = read_rows(reader, path, err);
    if (status == MR_OK)
        status = check_found(reader, path, err);
    if (status == MR_OK)
        status = read_labels(reader, folder, err);
    return status == MR_OK ? arrange(reader, err) : status;
}

mr_status mr_tasks_open(mr_tasks **out, const char *folder, const mr_tasks_options *options,
                        mr_error *err)
{
    mr_status status = check_options(options, err);
    if (status != MR_OK)
        return status;
    mr_tasks *tasks = calloc(1, sizeof *tasks);
    if (!tasks)
        return MR_FAIL(err, NO_MEMORY, "tasks");
    tasks->arena.limit = MR_TASKS_MAX_BYTES;
    tasks->item_ids.arena.limit = MR_TASKS_MAX_BYTES;
    tasks->n_tasks = options->n_tasks;
    row_reader reader = {.tasks = tasks, .options = options};
    reader.row_ids.arena.limit = MR_TASKS_MAX_BYTES;
    status = read_all(&reader, folder, err);
    mr_intern_release(&reader.row_ids);
    mr_intern_release(&reader.names);
    free(reader.entry);
    free(reader.seen);
    if (status == MR_OK)
        *out = tasks;
    else
        mr_tasks_close(tasks);
    return status;
}

void mr_tasks_close(mr_tasks *tasks)
{
    if (!tasks)
        return;
    mr_intern_release(&tasks->item_ids);
    mr_intern_release(&tasks->user_ids);
    free(tasks->item);
    mr_arena_done(&tasks->arena);
    free(tasks);
}

size_t mr_tasks_n_items(const mr_tasks *tasks)
{
    return tasks->item_ids.n;
}

const mr_item *mr_tasks_item(const mr_tasks *tasks, uint32_t item)
{
    return &tasks->item[item];
}

bool mr_tasks_find_item(const mr_tasks *tasks, mr_str id, uint32_t *item)
{
    return mr_intern_find(&tasks->item_ids, id, item);
}

bool mr_tasks_find_user(const mr_tasks *tasks, mr_str id, uint32_t *user)
{
    return mr_intern_find(&tasks->user_ids, id, user);
}

size_t mr_tasks_n_users(const mr_tasks *tasks)
{
    return tasks->user_ids.n;
}

const mr_task_row *mr_tasks_rows(const mr_tasks *tasks, size_t task, mr_split split, size_t *n)
{
    const size_t group = task * MR_SPLIT_COUNT + (size_t)split;
    *n = tasks->first[group + 1] - tasks->first[group];
    return tasks->row + tasks->first[group];
}

int mr_task_grade(const mr_task_row *row, uint32_t item)
{
    size_t low = 0, high = row->n_labels;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (row->labels[middle].item < item)
            low = middle + 1;
        else
            high = middle;
    }
    return low < row->n_labels && row->labels[low].item == item ? row->labels[low].grade : 0;
}
