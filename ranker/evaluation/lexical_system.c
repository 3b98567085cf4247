/* lexical_system.c - see lexical_system.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/evaluation/lexical_system.h"

#include <inttypes.h>
#include <stdlib.h>

#include "core/file.h"
#include "core/hash.h"
#include "core/jsonl.h"
#include "encoders/template.h"
#include "ranker/model/intern.h"

/* A person of users.jsonl whose fold is train. */
typedef struct {
    uint32_t *item; /* of the arena */
    size_t n;
} person;

struct mr_lexical_system {
    const mr_tasks *tasks;
    mr_lexical_options options;
    mr_text_index *index;
    mr_intern people_ids;
    person *people;
    size_t capacity;
    size_t *basket_of;   /* [users of tasks]: 1 + place in people, or 0 */
    uint8_t *train_item; /* [items]: its fold is train */
    uint32_t *all_items; /* [items] 0, 1, 2, ... */
    mr_arena arena;
    /* Of the task begun last. */
    mr_baskets *baskets;
    bool cold;
    bool fitted;
    mr_linear_ranker linear;
};

/* ---- the catalogue --------------------------------------------------------------------------- */

static bool fold_is_train(mr_fields fields)
{
    return mr_str_equal(mr_fields_get(fields, "fold"), mr_str_of("train"));
}

static mr_status make_index(mr_lexical_system *system, mr_error *err)
{
    const size_t n = mr_tasks_n_items(system->tasks);
    mr_intern sections = {0};
    mr_status status = MR_OK;
    mr_text_item *item = calloc(n, sizeof *item);
    system->train_item = calloc(n, 1);
    system->all_items = calloc(n, sizeof *system->all_items);
    if (!item || !system->train_item || !system->all_items)
        status = MR_FAIL(err, NO_MEMORY, "an index of %zu items", n);
    for (size_t i = 0; status == MR_OK && i < n; i++) {
        const mr_fields fields = mr_tasks_item(system->tasks, (uint32_t)i)->fields;
        const mr_str section = mr_fields_get(fields, "section");
        item[i].text = mr_fields_get(fields, "text");
        if (system->options.titles)
            item[i].title = mr_fields_get(fields, "title");
        item[i].section = MR_BASELINE_NO_SECTION;
        if (section.len)
            status = mr_intern_add(&sections, section, &item[i].section, NULL, err);
        system->train_item[i] = fold_is_train(fields);
        system->all_items[i] = (uint32_t)i;
    }
    if (status == MR_OK)
        status = mr_text_index_new(&system->index, item, n, NULL, err);
    mr_intern_release(&sections);
    free(item);
    return status;
}

/* ---- baskets --------------------------------------------------------------------------------- */

static mr_status read_person(void *context, const json_t *row, uint64_t line, mr_error *err)
{
    (void)line;
    mr_lexical_system *system = context;
    const json_t *id = json_object_get(row, "id"), *fold = json_object_get(row, "fold");
    const json_t *list = json_object_get(row, "history");
    if (!json_is_string(id) || json_string_length(id) == 0)
        return MR_FAIL(err, INVALID, "'id' is %s, expected the person's id",
                       id ? mr_json_describe(id) : "missing");
    if (!json_is_string(fold) || strcmp(json_string_value(fold), "train") != 0)
        return MR_OK;
    if (!json_is_array(list))
        return MR_FAIL(err, INVALID, "'history' is %s, expected an array of item ids",
                       list ? mr_json_describe(list) : "missing");
    const size_t n = json_array_size(list);
    uint32_t number;
    bool is_new;
    mr_status status =
        mr_intern_add(&system->people_ids, (mr_str){json_string_value(id), json_string_length(id)},
                      &number, &is_new, err);
    if (status != MR_OK)
        return status;
    if (!is_new)
        return MR_FAIL(err, INVALID, "person '%s' is there twice", json_string_value(id));
    if (system->people_ids.n > system->capacity) {
        const size_t capacity = system->capacity ? 2 * system->capacity : 256;
        person *bigger = realloc(system->people, capacity * sizeof *bigger);
        if (!bigger)
            return MR_FAIL(err, NO_MEMORY, "%zu people", system->people_ids.n);
        system->people = bigger;
        system->capacity = capacity;
    }
    person *out = &system->people[number];
    *out = (person){.item = mr_arena_array(&system->arena, uint32_t, n)};
    if (!out->item)
        return MR_FAIL(err, NO_MEMORY, "%zu people", system->people_ids.n);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_string(item))
            return MR_FAIL(err, INVALID, "'history' holds %s, expected item ids",
                           mr_json_describe(item));
        const mr_str name = {json_string_value(item), json_string_length(item)};
        if (!mr_tasks_find_item(system->tasks, name, &out->item[out->n++]))
            return MR_FAIL(err, INVALID, "'history': the catalogue has no item '%.*s'",
                           MR_STR_ARG(name));
    }
    return MR_OK;
}

static mr_status read_people(mr_lexical_system *system, const char *folder, mr_error *err)
{
    const size_t n_users = mr_tasks_n_users(system->tasks);
    system->basket_of = calloc(n_users + 1, sizeof *system->basket_of);
    const char *path = mr_path_join(&system->arena, folder, "users.jsonl");
    if (!system->basket_of || !path)
        return MR_FAIL(err, NO_MEMORY, "%zu people", n_users);
    if (!mr_file_exists(path))
        return MR_OK;
    uint64_t line;
    mr_status status = mr_jsonl_each(path, MR_JSONL_MAX_LINE, read_person, system, &line, err);
    if (line)
        return mr_error_prefix(err, status, "line %" PRIu64 " of %s", line, path);
    for (size_t i = 0; status == MR_OK && i < system->people_ids.n; i++) {
        uint32_t user;
        if (mr_tasks_find_user(system->tasks, system->people_ids.name[i], &user))
            system->basket_of[user] = i + 1;
    }
    return status;
}

mr_status mr_lexical_system_open(mr_lexical_system **out, const char *folder, const mr_tasks *tasks,
                                 const mr_lexical_options *options, mr_error *err)
{
    mr_lexical_system *system = calloc(1, sizeof *system);
    if (!system)
        return MR_FAIL(err, NO_MEMORY, "baselines");
    system->tasks = tasks;
    system->options = *options;
    system->arena.limit = MR_TASKS_MAX_BYTES;
    mr_status status = make_index(system, err);
    if (status == MR_OK)
        status = read_people(system, folder, err);
    if (status == MR_OK)
        *out = system;
    else
        mr_lexical_system_close(system);
    return status;
}

void mr_lexical_system_close(mr_lexical_system *system)
{
    if (!system)
        return;
    mr_text_index_free(system->index);
    mr_baskets_free(system->baskets);
    mr_intern_release(&system->people_ids);
    free(system->people);
    free(system->basket_of);
    free(system->train_item);
    free(system->all_items);
    mr_arena_done(&system->arena);
    free(system);
}

/* ---- a task ---------------------------------------------------------------------------------- */

static mr_baseline_request request_of(const mr_lexical_system *system, const mr_task_row *row,
                                      bool training)
{
    mr_baseline_request request = {.query = row->query,
                                   .history = row->history,
                                   .n_history = row->n_history,
                                   .candidates =
                                       row->candidates ? row->candidates : system->all_items,
                                   .n = row->n_candidates};
    if (training && row->user != MR_TASK_NOBODY)
        request.leave_out = system->basket_of[row->user];
    return request;
}

/* Whether rows of train and test share no candidate. Without rows of train every task is cold. */
static mr_status find_cold(mr_lexical_system *system, size_t task, mr_error *err)
{
    size_t n_train, n_test;
    const mr_task_row *train = mr_tasks_rows(system->tasks, task, MR_SPLIT_TRAIN, &n_train);
    const mr_task_row *test = mr_tasks_rows(system->tasks, task, MR_SPLIT_TEST, &n_test);
    uint8_t *trained = calloc(mr_tasks_n_items(system->tasks), 1);
    if (!trained)
        return MR_FAIL(err, NO_MEMORY, "items of a task");
    for (size_t i = 0; i < n_train; i++)
        for (size_t k = 0; k < train[i].n_candidates; k++)
            trained[mr_task_candidate(&train[i], k)] = 1;
    system->cold = true;
    for (size_t i = 0; system->cold && i < n_test; i++)
        for (size_t k = 0; k < test[i].n_candidates; k++)
            system->cold &= !trained[mr_task_candidate(&test[i], k)];
    free(trained);
    return MR_OK;
}

static mr_status make_baskets(mr_lexical_system *system, mr_error *err)
{
    const size_t n = system->people_ids.n;
    mr_basket *basket = calloc(n + 1, sizeof *basket);
    if (!basket)
        return MR_FAIL(err, NO_MEMORY, "%zu baskets", n);
    for (size_t i = 0; i < n; i++)
        basket[i] = (mr_basket){system->people[i].item, system->people[i].n};
    mr_status status = mr_baskets_new(&system->baskets, basket, n, mr_tasks_n_items(system->tasks),
                                      system->cold ? system->train_item : NULL, err);
    free(basket);
    return status;
}

static mr_baseline_context context_of(const mr_lexical_system *system)
{
    return (mr_baseline_context){.text = system->index,
                                 .baskets = system->baskets,
                                 .linear = system->fitted ? &system->linear : NULL,
                                 .seed = system->options.seed};
}

/* Grades of a row's candidates, cut to what a baseline knows; false when there is nothing to tell
 * apart. */
static bool read_grades(const mr_task_row *row, uint8_t *out)
{
    bool some = false, others = false;
    for (size_t i = 0; i < row->n_candidates; i++) {
        const int grade = mr_task_grade(row, row->candidates[i]);
        out[i] = (uint8_t)(grade < 0                       ? 0
                           : grade > MR_BASELINE_MAX_GRADE ? MR_BASELINE_MAX_GRADE
                                                           : grade);
        some |= out[i] > 0;
        others |= out[i] == 0;
    }
    return some && others;
}

/* Rows asked of all items are not fitted to: too many candidates of too few kinds. */
static mr_status fit(mr_lexical_system *system, size_t task, mr_error *err)
{
    size_t n, n_rows = 0, n_grades = 0;
    const mr_task_row *row = mr_tasks_rows(system->tasks, task, MR_SPLIT_TRAIN, &n);
    for (size_t i = 0; i < n; i++)
        n_grades += row[i].candidates ? row[i].n_candidates : 0;
    mr_status status = MR_OK;
    mr_linear_row *rows = calloc(n + 1, sizeof *rows);
    uint8_t *grades = calloc(n_grades + 1, 1);
    if (!rows || !grades)
        status = MR_FAIL(err, NO_MEMORY, "%zu training rows", n);
    uint8_t *next = grades;
    for (size_t i = 0; status == MR_OK && i < n; i++) {
        if (!row[i].candidates || !read_grades(&row[i], next))
            continue;
        rows[n_rows++] = (mr_linear_row){request_of(system, &row[i], true), next};
        next += row[i].n_candidates;
    }
    const mr_baseline_context context = context_of(system);
    if (status == MR_OK && n_rows)
        status = mr_linear_ranker_fit(&system->linear, &context, rows, n_rows, err);
    system->fitted = status == MR_OK && n_rows > 0;
    free(rows);
    free(grades);
    return status == MR_OK ? status : mr_error_prefix(err, status, "fitting the linear ranker");
}

mr_status mr_lexical_system_begin(mr_lexical_system *system, size_t task, bool needs_linear,
                                  bool *fitted, mr_error *err)
{
    mr_baskets_free(system->baskets);
    system->baskets = NULL;
    system->fitted = false;
    mr_status status = find_cold(system, task, err);
    if (status == MR_OK)
        status = make_baskets(system, err);
    if (status == MR_OK && needs_linear)
        status = fit(system, task, err);
    *fitted = system->fitted;
    return status;
}

mr_status mr_lexical_system_score(mr_lexical_system *system, mr_baseline baseline,
                                  const mr_task_row *row, double *scores, mr_error *err)
{
    mr_baseline_context context = context_of(system);
    const mr_baseline_request request = request_of(system, row, false);
    /* Lists of the same candidates are told apart by their rows. */
    context.seed ^= mr_hash_xxh3(row->id.data, row->id.len);
    mr_status status = mr_baseline_score(baseline, &context, &request, scores, err);
    return status == MR_OK ? status
                           : mr_error_prefix(err, status, "baseline %s, row '%.*s'",
                                             mr_baseline_name(baseline), MR_STR_ARG(row->id));
}

bool mr_lexical_system_is_cold(const mr_lexical_system *system)
{
    return system->cold;
}
