/* lists.c - see lists.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/lists.h"

#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/jsonl.h"
#include "encoders/template.h"

#define MAX_BASKET 4096

/* ---- What may be trained on ------------------------------------------------------------------ */

static bool is_test_item(const mr_tasks *tasks, uint32_t item)
{
    return mr_str_equal(mr_fields_get(mr_tasks_item(tasks, item)->fields, "fold"),
                        mr_str_of("test"));
}

static mr_status refuse(const mr_tasks *tasks, const mr_task_row *row, uint32_t item,
                        const char *where, mr_error *err)
{
    return MR_FAIL(err, INVALID,
                   "row '%.*s' of split train has item '%.*s' of fold test in its %s: labels of "
                   "test items must not be trained on; choose a cold task, or say "
                   "data.transductive: true and report its figures so",
                   MR_STR_ARG(row->id), MR_STR_ARG(mr_tasks_item(tasks, item)->id), where);
}

static mr_status check_row(const mr_tasks *tasks, const mr_task_row *row, mr_error *err)
{
    for (size_t i = 0; row->candidates && i < row->n_candidates; i++)
        if (is_test_item(tasks, row->candidates[i]))
            return refuse(tasks, row, row->candidates[i], "candidates", err);
    for (size_t i = 0; i < row->n_labels; i++)
        if (is_test_item(tasks, row->labels[i].item))
            return refuse(tasks, row, row->labels[i].item, "labels", err);
    for (size_t i = 0; i < row->n_history; i++)
        if (is_test_item(tasks, row->history[i]))
            return refuse(tasks, row, row->history[i], "history", err);
    return MR_OK;
}

/* ---- Rows ------------------------------------------------------------------------------------ */

/* "a/b/queries.jsonl" -> "a/b" and "queries.jsonl". */
static mr_status cut_path(mr_arena *arena, const char *path, const char **folder, const char **name,
                          mr_error *err)
{
    const char *slash = strrchr(path, '/');
    *folder = slash ? mr_arena_strndup(arena, path, (size_t)(slash - path)) : ".";
    *name = slash ? slash + 1 : path;
    return *folder ? MR_OK : MR_FAIL(err, NO_MEMORY, "'%s'", path);
}

static mr_status gather(const mr_tasks *tasks, size_t n_tasks, mr_split split,
                        const mr_task_row ***out, size_t *n, mr_error *err)
{
    size_t total = 0, rows;
    for (size_t t = 0; t < n_tasks; t++) {
        mr_tasks_rows(tasks, t, split, &rows);
        total += rows;
    }
    *out = calloc(total + 1, sizeof **out);
    if (!*out)
        return MR_FAIL(err, NO_MEMORY, "%zu rows", total);
    *n = 0;
    for (size_t t = 0; t < n_tasks; t++) {
        const mr_task_row *row = mr_tasks_rows(tasks, t, split, &rows);
        for (size_t i = 0; i < rows; i++)
            (*out)[(*n)++] = &row[i];
    }
    return MR_OK;
}

static mr_status open_source(mr_lists *lists, size_t s, const mr_recipe *recipe, mr_error *err)
{
    const mr_recipe_lists *from = &recipe->data.lists[s];
    mr_lists_source *source = &lists->source[s];
    mr_arena arena = {0};
    const char *folder, *name, *items_folder, *items = NULL;
    mr_status status = cut_path(&arena, from->file, &folder, &name, err);
    if (status == MR_OK && recipe->data.items)
        status = cut_path(&arena, recipe->data.items, &items_folder, &items, err);
    if (status == MR_OK && items && strcmp(items_folder, folder) != 0)
        status =
            MR_FAIL(err, INVALID, "data.items is in '%s' and '%s' in '%s', expected one folder",
                    items_folder, name, folder);
    const mr_tasks_options options = {.items = items,
                                      .queries = name,
                                      .tasks = (const char *const *)from->tasks,
                                      .n_tasks = from->n_tasks,
                                      .splits = 1u << MR_SPLIT_TRAIN | 1u << MR_SPLIT_VALID};
    if (status == MR_OK)
        status = mr_tasks_open(&lists->tasks[s], folder, &options, err);
    if (status == MR_OK)
        status = gather(lists->tasks[s], from->n_tasks, MR_SPLIT_TRAIN, &source->train,
                        &source->n_train, err);
    if (status == MR_OK)
        status = gather(lists->tasks[s], from->n_tasks, MR_SPLIT_VALID, &source->valid,
                        &source->n_valid, err);
    for (size_t i = 0; status == MR_OK && !recipe->data.transductive && i < source->n_train; i++)
        status = check_row(lists->tasks[s], source->train[i], err);
    if (status == MR_OK && mr_tasks_n_items(lists->tasks[s]) != mr_lists_n_items(lists))
        status = MR_FAIL(err, MISMATCH, "'%s' is about %zu items, '%s' about %zu",
                         recipe->data.lists[0].file, mr_lists_n_items(lists), from->file,
                         mr_tasks_n_items(lists->tasks[s]));
    if (status == MR_OK && source->n_train == 0)
        status = MR_FAIL(err, INVALID, "'%s' has no row of split train in these tasks", from->file);
    source->weight = from->weight;
    mr_arena_done(&arena);
    return status;
}

/* ---- Baskets and people ---------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static mr_status read_basket(const mr_lists *lists, const mr_recipe *recipe, const json_t *history,
                             mr_lists_basket *out, mr_error *err)
{
    uint32_t item[MAX_BASKET];
    size_t n = 0, index;
    json_t *id;
    json_array_foreach((json_t *)history, index, id)
    {
        uint32_t number;
        if (!json_is_string(id))
            return MR_FAIL(err, INVALID, "'history' holds %s, expected item ids",
                           mr_json_describe(id));
        /* A product that left the catalogue is no mistake. */
        if (!mr_tasks_find_item(lists->tasks[0], mr_str_of(json_string_value(id)), &number))
            continue;
        if (!recipe->data.transductive && is_test_item(lists->tasks[0], number))
            continue;
        if (n < MAX_BASKET)
            item[n++] = number;
    }
    *out = (mr_lists_basket){.item = calloc(n + 1, sizeof *out->item), .n = n};
    if (!out->item)
        return MR_FAIL(err, NO_MEMORY, "a basket of %zu items", n);
    memcpy(out->item, item, n * sizeof *item);
    qsort(out->item, n, sizeof *out->item, by_number);
    return MR_OK;
}

/* A person who is not of fold train must ask no row of split train. */
static mr_status check_person(const mr_lists *lists, const char *id, const char *fold,
                              mr_error *err)
{
    for (size_t s = 0; s < lists->n_sources; s++) {
        uint32_t user;
        if (!mr_tasks_find_user(lists->tasks[s], mr_str_of(id), &user))
            continue;
        for (size_t i = 0; i < lists->source[s].n_train; i++)
            if (lists->source[s].train[i]->user == user)
                return MR_FAIL(err, INVALID,
                               "row '%.*s' of split train is asked by '%s', who is of fold %s",
                               MR_STR_ARG(lists->source[s].train[i]->id), id, fold);
    }
    return MR_OK;
}

static mr_status read_person(mr_lists *lists, const mr_recipe *recipe, const char *path,
                             const json_t *row, size_t *capacity, mr_error *err)
{
    mr_json_cursor cur = mr_json_cursor_of(path, row, err);
    const char *id = mr_json_string(&cur, "id", NULL, true);
    const char *fold = mr_json_string(&cur, "fold", "train", false);
    const json_t *history = mr_json_array(&cur, "history", true);
    if (cur.status != MR_OK)
        return cur.status;
    if (strcmp(fold, "train") != 0)
        return check_person(lists, id, fold, err);
    if (lists->n_baskets == *capacity) {
        const size_t bigger = *capacity ? 2 * *capacity : 256;
        mr_lists_basket *grown = realloc(lists->basket, bigger * sizeof *grown);
        if (!grown)
            return MR_FAIL(err, NO_MEMORY, "%zu baskets", bigger);
        lists->basket = grown;
        *capacity = bigger;
    }
    mr_lists_basket basket;
    mr_status status = read_basket(lists, recipe, history, &basket, err);
    if (status == MR_OK && basket.n >= 2)
        lists->basket[lists->n_baskets++] = basket;
    else if (status == MR_OK)
        free(basket.item);
    return status;
}

static mr_status read_people(mr_lists *lists, const mr_recipe *recipe, mr_error *err)
{
    const char *path = recipe->data.users;
    size_t capacity = 0;
    mr_jsonl reader;
    mr_status status = mr_jsonl_open(&reader, path, MR_JSONL_MAX_LINE, err);
    if (status != MR_OK)
        return status;
    json_t *row;
    while ((status = mr_jsonl_next(&reader, &row, err)) == MR_OK && row) {
        status = read_person(lists, recipe, path, row, &capacity, err);
        if (status != MR_OK)
            mr_error_prefix(err, status, "%s, line %llu", path,
                            (unsigned long long)reader.line_number);
        json_decref(row);
        if (status != MR_OK)
            break;
    }
    mr_jsonl_close(&reader);
    return status;
}

mr_status mr_lists_open(mr_lists *out, const mr_recipe *recipe, mr_error *err)
{
    const size_t n = recipe->data.n_lists;
    *out = (mr_lists){.n_sources = n};
    if (n == 0)
        return MR_FAIL(err, INVALID, "the recipe has no data.lists");
    out->tasks = calloc(n, sizeof *out->tasks);
    out->source = calloc(n, sizeof *out->source);
    mr_status status =
        out->tasks && out->source ? MR_OK : MR_FAIL(err, NO_MEMORY, "%zu sources of lists", n);
    for (size_t s = 0; status == MR_OK && s < n; s++)
        status = open_source(out, s, recipe, err);
    if (status == MR_OK && recipe->data.users)
        status = read_people(out, recipe, err);
    if (status != MR_OK)
        mr_lists_close(out);
    return status;
}

void mr_lists_close(mr_lists *lists)
{
    for (size_t s = 0; s < lists->n_sources; s++) {
        if (lists->tasks)
            mr_tasks_close(lists->tasks[s]);
        if (lists->source) {
            free(lists->source[s].train);
            free(lists->source[s].valid);
        }
    }
    for (size_t b = 0; b < lists->n_baskets; b++)
        free(lists->basket[b].item);
    free(lists->basket);
    free(lists->tasks);
    free(lists->source);
    *lists = (mr_lists){0};
}

size_t mr_lists_n_items(const mr_lists *lists)
{
    return mr_tasks_n_items(lists->tasks[0]);
}
