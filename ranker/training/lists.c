/* lists.c - see lists.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/lists.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/jsonl.h"
#include "encoders/template.h"
#include "ranker/model/intern.h"

#define MAX_BASKET 4096

/* ---- What may be trained on ------------------------------------------------------------------ */

static bool is_test_item(const mr_tasks *tasks, uint32_t item)
{
    return mr_str_equal(mr_fields_get(mr_tasks_item(tasks, item)->fields, "fold"),
                        mr_str_of("test"));
}

/* A fold that is spelt in another way would pass for one that may be trained on. */
static mr_status check_fold(mr_str fold, const char *what, mr_str id, mr_error *err)
{
    for (int split = 0; split < MR_SPLIT_COUNT; split++)
        if (mr_str_equal(fold, mr_str_of(mr_split_name((mr_split)split))))
            return MR_OK;
    return MR_FAIL(err, INVALID, "%s '%.*s' is of fold '%.*s', expected train, valid or test", what,
                   MR_STR_ARG(id), MR_STR_ARG(fold));
}

static mr_status check_items(const mr_tasks *tasks, mr_error *err)
{
    mr_status status = MR_OK;
    for (uint32_t i = 0; status == MR_OK && i < mr_tasks_n_items(tasks); i++) {
        const mr_item *item = mr_tasks_item(tasks, i);
        const mr_str fold = mr_fields_get(item->fields, "fold");
        if (fold.len > 0)
            status = check_fold(fold, "item", item->id, err);
    }
    return status;
}

static mr_status refuse(const mr_tasks *tasks, const mr_task_row *row, mr_split split,
                        uint32_t item, const char *where, mr_error *err)
{
    return MR_FAIL(err, INVALID,
                   "row '%.*s' of split %s has item '%.*s' of fold test in its %s: labels of "
                   "test items must not be trained on; choose a cold task, or say "
                   "data.transductive: true and report its figures so",
                   MR_STR_ARG(row->id), mr_split_name(split),
                   MR_STR_ARG(mr_tasks_item(tasks, item)->id), where);
}

/* A row without candidates is asked of all items, those of fold test among them. */
static mr_status check_row(const mr_tasks *tasks, const mr_task_row *row, mr_split split,
                           mr_error *err)
{
    for (size_t i = 0; i < row->n_candidates; i++)
        if (is_test_item(tasks, mr_task_candidate(row, i)))
            return refuse(tasks, row, split, mr_task_candidate(row, i), "candidates", err);
    for (size_t i = 0; i < row->n_labels; i++)
        if (is_test_item(tasks, row->labels[i].item))
            return refuse(tasks, row, split, row->labels[i].item, "labels", err);
    for (size_t i = 0; i < row->n_history; i++)
        if (is_test_item(tasks, row->history[i]))
            return refuse(tasks, row, split, row->history[i], "history", err);
    return MR_OK;
}

static mr_status check_rows(const mr_tasks *tasks, const mr_lists_source *source, mr_error *err)
{
    mr_status status = MR_OK;
    for (size_t i = 0; status == MR_OK && i < source->n_train; i++)
        status = check_row(tasks, source->train[i], MR_SPLIT_TRAIN, err);
    for (size_t i = 0; status == MR_OK && i < source->n_valid; i++)
        status = check_row(tasks, source->valid[i], MR_SPLIT_VALID, err);
    return status;
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

typedef struct {
    mr_arena *arena;
    const char *path;
    const char **task; /* [MR_TASKS_MAX] */
    size_t n;
} task_finder;

static mr_status add_task(void *context, const json_t *row, uint64_t line, mr_error *err)
{
    (void)line;
    task_finder *f = context;
    mr_json_cursor cur = mr_json_cursor_of(f->path, row, err);
    const char *name = mr_json_string(&cur, "task", NULL, true);
    const char *split = mr_json_string(&cur, "split", NULL, true);
    if (cur.status != MR_OK || strcmp(split, mr_split_name(MR_SPLIT_TEST)) == 0)
        return cur.status;
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->task[i], name) == 0)
            return MR_OK;
    if (f->n == MR_TASKS_MAX)
        return MR_FAIL(err, EXHAUSTED, "more than %d tasks", MR_TASKS_MAX);
    f->task[f->n] = mr_arena_strndup(f->arena, name, strlen(name));
    return f->task[f->n++] ? MR_OK : MR_FAIL(err, NO_MEMORY, "a task");
}

/* Names of all tasks that a file has rows of to train on or to look at, for an entry that names
 * none. */
static mr_status find_tasks(mr_arena *arena, const char *path, const char *task[MR_TASKS_MAX],
                            size_t *n, mr_error *err)
{
    task_finder finder = {arena, path, task, 0};
    uint64_t line;
    mr_status status = mr_jsonl_each(path, MR_JSONL_MAX_LINE, add_task, &finder, &line, err);
    *n = finder.n;
    if (line)
        return mr_error_prefix(err, status, "%s, line %" PRIu64, path, line);
    if (status == MR_OK && *n == 0)
        status = MR_FAIL(err, INVALID, "'%s' has no row of split train or valid", path);
    return status;
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
    const char *found[MR_TASKS_MAX];
    mr_tasks_options options = {.items = items,
                                .queries = name,
                                .tasks = (const char *const *)from->tasks,
                                .n_tasks = from->n_tasks,
                                .splits = 1u << MR_SPLIT_TRAIN | 1u << MR_SPLIT_VALID};
    if (status == MR_OK && from->n_tasks == 0) {
        options.tasks = found;
        status = find_tasks(&arena, from->file, found, &options.n_tasks, err);
    }
    if (status == MR_OK)
        status = mr_tasks_open(&lists->tasks[s], folder, &options, err);
    if (status == MR_OK && s == 0)
        status = check_items(lists->tasks[s], err);
    if (status == MR_OK)
        status = gather(lists->tasks[s], options.n_tasks, MR_SPLIT_TRAIN, &source->train,
                        &source->n_train, err);
    if (status == MR_OK)
        status = gather(lists->tasks[s], options.n_tasks, MR_SPLIT_VALID, &source->valid,
                        &source->n_valid, err);
    if (status == MR_OK && !recipe->data.transductive)
        status = check_rows(lists->tasks[s], source, err);
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

/* The catalogue of a recipe that has no lists. */
static mr_status open_items(mr_lists *lists, const mr_recipe *recipe, mr_error *err)
{
    mr_arena arena = {0};
    const char *folder, *name;
    mr_status status = cut_path(&arena, recipe->data.items, &folder, &name, err);
    const mr_tasks_options options = {.items = name};
    if (status == MR_OK)
        status = mr_tasks_open(&lists->tasks[0], folder, &options, err);
    if (status == MR_OK)
        status = check_items(lists->tasks[0], err);
    mr_arena_done(&arena);
    return status;
}

/* ---- Baskets and people ---------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

typedef struct {
    mr_lists *lists;
    const mr_recipe *recipe;
    mr_intern ids;
    bool **known; /* [n_sources][users of the source] */
    size_t capacity, valid_capacity;
} people_reader;

static void free_basket(mr_lists_basket *basket)
{
    free(basket->item);
    free(basket->given);
    *basket = (mr_lists_basket){0};
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
    *out = (mr_lists_basket){.item = calloc(n + 1, sizeof *out->item),
                             .given = calloc(n + 1, sizeof *out->given),
                             .n_given = n};
    if (!out->item || !out->given) {
        free_basket(out);
        return MR_FAIL(err, NO_MEMORY, "a basket of %zu items", n);
    }
    memcpy(out->given, item, n * sizeof *item);
    memcpy(out->item, item, n * sizeof *item);
    qsort(out->item, n, sizeof *out->item, by_number);
    out->n = 0;
    for (size_t i = 0; i < n; i++) /* what is there twice was picked once */
        if (i == 0 || out->item[i] != out->item[out->n - 1])
            out->item[out->n++] = out->item[i];
    return MR_OK;
}

static mr_status check_rows_of(const mr_task_row *const *row, size_t n, uint32_t user,
                               mr_split split, const char *id, const char *fold, mr_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (row[i]->user == user)
            return MR_FAIL(err, INVALID,
                           "row '%.*s' of split %s is asked by '%s', who is of fold %s",
                           MR_STR_ARG(row[i]->id), mr_split_name(split), id, fold);
    return MR_OK;
}

/* A person who is not of fold train must ask no row of split train, one of fold test none at all.
 */
static mr_status check_person(const mr_lists *lists, const char *id, const char *fold,
                              mr_error *err)
{
    for (size_t s = 0; s < lists->n_sources; s++) {
        uint32_t user;
        if (!mr_tasks_find_user(lists->tasks[s], mr_str_of(id), &user))
            continue;
        const mr_lists_source *source = &lists->source[s];
        mr_status status =
            check_rows_of(source->train, source->n_train, user, MR_SPLIT_TRAIN, id, fold, err);
        if (status == MR_OK && strcmp(fold, "test") == 0)
            status =
                check_rows_of(source->valid, source->n_valid, user, MR_SPLIT_VALID, id, fold, err);
        if (status != MR_OK)
            return status;
    }
    return MR_OK;
}

static mr_status add_person(people_reader *reader, const char *id, mr_error *err)
{
    uint32_t number, user;
    bool is_new;
    mr_status status = mr_intern_add(&reader->ids, mr_str_of(id), &number, &is_new, err);
    if (status == MR_OK && !is_new)
        status = MR_FAIL(err, INVALID, "'%s' is there twice", id);
    for (size_t s = 0; status == MR_OK && s < reader->lists->n_sources; s++)
        if (mr_tasks_find_user(reader->lists->tasks[s], mr_str_of(id), &user))
            reader->known[s][user] = true;
    return status;
}

static mr_status add_basket(people_reader *reader, const json_t *history, mr_lists_basket **baskets,
                            size_t *n, size_t *capacity, mr_error *err)
{
    if (*n == *capacity) {
        const size_t bigger = *capacity ? 2 * *capacity : 256;
        mr_lists_basket *grown = realloc(*baskets, bigger * sizeof *grown);
        if (!grown)
            return MR_FAIL(err, NO_MEMORY, "%zu baskets", bigger);
        *baskets = grown;
        *capacity = bigger;
    }
    mr_lists_basket basket;
    mr_status status = read_basket(reader->lists, reader->recipe, history, &basket, err);
    if (status == MR_OK && basket.n >= 2)
        (*baskets)[(*n)++] = basket;
    else if (status == MR_OK)
        free_basket(&basket);
    return status;
}

static mr_status read_person(void *context, const json_t *row, uint64_t line, mr_error *err)
{
    (void)line;
    people_reader *reader = context;
    mr_lists *lists = reader->lists;
    mr_json_cursor cur = mr_json_cursor_of(reader->recipe->data.users, row, err);
    const char *id = mr_json_string(&cur, "id", NULL, true);
    const char *fold = mr_json_string(&cur, "fold", "train", false);
    const json_t *history = mr_json_array(&cur, "history", true);
    mr_status status = cur.status;
    if (status == MR_OK)
        status = check_fold(mr_str_of(fold), "person", mr_str_of(id), err);
    if (status == MR_OK)
        status = add_person(reader, id, err);
    const bool learned = status == MR_OK && strcmp(fold, "train") == 0;
    if (status == MR_OK && !learned)
        status = check_person(lists, id, fold, err);
    if (status == MR_OK && learned)
        status =
            add_basket(reader, history, &lists->basket, &lists->n_baskets, &reader->capacity, err);
    else if (status == MR_OK && strcmp(fold, "valid") == 0)
        status = add_basket(reader, history, &lists->valid, &lists->n_valid,
                            &reader->valid_capacity, err);
    return status;
}

static mr_status read_people(people_reader *reader, mr_error *err)
{
    const char *path = reader->recipe->data.users;
    uint64_t line;
    mr_status status = mr_jsonl_each(path, MR_JSONL_MAX_LINE, read_person, reader, &line, err);
    return line ? mr_error_prefix(err, status, "%s, line %" PRIu64, path, line) : status;
}

/* Nobody can tell the fold of a person whom data.users does not have. */
static mr_status check_known(const people_reader *reader, mr_error *err)
{
    for (size_t s = 0; s < reader->lists->n_sources; s++) {
        const mr_lists_source *source = &reader->lists->source[s];
        for (size_t i = 0; i < source->n_train + source->n_valid; i++) {
            const mr_task_row *row =
                i < source->n_train ? source->train[i] : source->valid[i - source->n_train];
            if (row->user != MR_TASK_NOBODY && !reader->known[s][row->user])
                return MR_FAIL(err, INVALID, "row '%.*s' is asked by a person who is not in '%s'",
                               MR_STR_ARG(row->id), reader->recipe->data.users);
        }
    }
    return MR_OK;
}

static mr_status open_people(mr_lists *lists, const mr_recipe *recipe, mr_error *err)
{
    people_reader reader = {.lists = lists, .recipe = recipe};
    reader.known = calloc(lists->n_sources + 1, sizeof *reader.known);
    mr_status status = reader.known ? MR_OK : MR_FAIL(err, NO_MEMORY, "the people");
    for (size_t s = 0; status == MR_OK && s < lists->n_sources; s++) {
        reader.known[s] = calloc(mr_tasks_n_users(lists->tasks[s]) + 1, sizeof(bool));
        if (!reader.known[s])
            status = MR_FAIL(err, NO_MEMORY, "the people");
    }
    if (status == MR_OK)
        status = read_people(&reader, err);
    if (status == MR_OK)
        status = check_known(&reader, err);
    if (status == MR_OK && recipe->data.users_weight > 0 && lists->n_baskets == 0)
        status = MR_FAIL(err, INVALID,
                         "data.users_weight is %g and '%s' has nobody of fold train with two items "
                         "that may be trained on",
                         recipe->data.users_weight, recipe->data.users);
    for (size_t s = 0; reader.known && s < lists->n_sources; s++)
        free(reader.known[s]);
    free(reader.known);
    mr_intern_release(&reader.ids);
    return status;
}

static mr_status count_picks(mr_lists *lists, mr_error *err)
{
    lists->begin = calloc(lists->n_baskets + 1, sizeof *lists->begin);
    if (!lists->begin)
        return MR_FAIL(err, NO_MEMORY, "%zu baskets", lists->n_baskets);
    for (size_t b = 0; b < lists->n_baskets; b++)
        lists->begin[b + 1] = lists->begin[b] + lists->basket[b].n;
    return MR_OK;
}

mr_status mr_lists_open(mr_lists *out, const mr_recipe *recipe, mr_error *err)
{
    const size_t n = recipe->data.n_lists;
    *out = (mr_lists){.n_sources = n};
    if (n == 0 && !(recipe->data.items && recipe->data.users))
        return MR_FAIL(err, INVALID, "the recipe has no data.lists");
    if (recipe->data.users_weight > 0 && !recipe->data.users)
        return MR_FAIL(err, INVALID, "data.users_weight is %g, and the recipe has no data.users",
                       recipe->data.users_weight);
    out->tasks = calloc(n + 1, sizeof *out->tasks);
    out->source = calloc(n + 1, sizeof *out->source);
    mr_status status =
        out->tasks && out->source ? MR_OK : MR_FAIL(err, NO_MEMORY, "%zu sources of lists", n);
    if (status == MR_OK && n == 0)
        status = open_items(out, recipe, err);
    for (size_t s = 0; status == MR_OK && s < n; s++)
        status = open_source(out, s, recipe, err);
    if (status == MR_OK && recipe->data.users)
        status = open_people(out, recipe, err);
    if (status == MR_OK)
        status = count_picks(out, err);
    if (status != MR_OK)
        mr_lists_close(out);
    return status;
}

void mr_lists_close(mr_lists *lists)
{
    if (lists->tasks && lists->n_sources == 0)
        mr_tasks_close(lists->tasks[0]);
    for (size_t s = 0; s < lists->n_sources; s++) {
        if (lists->tasks)
            mr_tasks_close(lists->tasks[s]);
        if (lists->source) {
            free(lists->source[s].train);
            free(lists->source[s].valid);
        }
    }
    for (size_t b = 0; b < lists->n_baskets; b++)
        free_basket(&lists->basket[b]);
    for (size_t b = 0; b < lists->n_valid; b++)
        free_basket(&lists->valid[b]);
    free(lists->basket);
    free(lists->begin);
    free(lists->valid);
    free(lists->tasks);
    free(lists->source);
    *lists = (mr_lists){0};
}

size_t mr_lists_n_items(const mr_lists *lists)
{
    return mr_tasks_n_items(lists->tasks[0]);
}

size_t mr_lists_n_picks(const mr_lists *lists)
{
    return lists->begin ? lists->begin[lists->n_baskets] : 0;
}

uint32_t mr_lists_pick(const mr_lists *lists, size_t pick, const mr_lists_basket **basket)
{
    size_t low = 0, high = lists->n_baskets; /* the last basket that begins at or before it */
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (lists->begin[middle] <= pick)
            low = middle;
        else
            high = middle;
    }
    *basket = &lists->basket[low];
    return lists->basket[low].item[pick - lists->begin[low]];
}

bool mr_lists_holds(const mr_lists_basket *basket, uint32_t item)
{
    return bsearch(&item, basket->item, basket->n, sizeof *basket->item, by_number);
}

size_t mr_lists_fellows(const mr_lists_basket *basket, uint32_t target, bool sequence, size_t room,
                        uint32_t *out)
{
    const uint32_t *item = sequence ? basket->given : basket->item;
    const size_t n = sequence ? basket->n_given : basket->n;
    size_t fellows = 0;
    for (size_t i = 0; i < n && fellows < room; i++)
        if (item[i] != target)
            out[fellows++] = item[i];
    return fellows;
}
