/* tasks.h - a catalogue and what is asked of it: items, rows of queries, labels.
 *
 * A folder with
 *
 *   items.jsonl         {"id", "title"?, "text"?, ...}   every member that is a string is a field
 *   queries.jsonl       {"id", "task", "split", "query"?, "user"?, "history"?: [item ids],
 *                        "same_family"?: bool, "candidates"?: [item ids],
 *                        "grades"?: [one per candidate]}
 *   qrels/<task>.txt    TREC labels: row id, anything, item id, grade; apart by blanks. Not looked
 *                       for where all rows of the task have their grades with them
 *
 * split is train, valid or test. A row without candidates is asked of all items. An item that a row
 * has no label for has grade 0. The history is what a ranker may know of the person who asks, and
 * all of it: nothing is looked up by the user's id, which only tells whose rows belong together.
 *
 * Rows of other tasks and splits are not kept. What is wrong is named by file and line: an unknown
 * item, an id twice, a candidate twice, a label of nobody's, a row that no label makes relevant
 * (it could not be measured). Files may be of any length; a line of JSON is at most 16 MiB, and all
 * that is kept at most MR_TASKS_MAX_BYTES.
 * Threads: read-only after open.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_MODEL_TASKS_H
#define MR_RANKER_MODEL_TASKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/error.h"

#define MR_TASKS_MAX_BYTES ((size_t)8 << 30)
#define MR_TASKS_MAX       64
#define MR_TASK_NOBODY     UINT32_MAX

/* 2^30 is a gain that a double holds exactly; nobody grades finer. */
#define MR_GRADE_MIN (-1)
#define MR_GRADE_MAX 30

typedef enum { MR_SPLIT_TRAIN, MR_SPLIT_VALID, MR_SPLIT_TEST, MR_SPLIT_COUNT } mr_split;
const char *mr_split_name(mr_split split); /* "train", "valid", "test" */

typedef struct {
    mr_str id;
    mr_fields fields; /* without the id */
} mr_item;

typedef struct {
    uint32_t item;
    int grade; /* MR_GRADE_MIN to MR_GRADE_MAX, not 0 */
} mr_label;

/* Items are numbers, in the order of items.jsonl. */
typedef struct {
    mr_str id, query;
    uint32_t user; /* a number for each person, or MR_TASK_NOBODY */
    bool same_family;
    const uint32_t *history;
    size_t n_history;
    const uint32_t *candidates; /* NULL: all items */
    size_t n_candidates;        /* of all items too */
    const mr_label *labels;     /* ascending by item */
    size_t n_labels;
} mr_task_row;

typedef struct mr_tasks mr_tasks;

typedef struct {
    const char *items;        /* a file of the folder; NULL: items.jsonl */
    const char *queries;      /* a file of the folder; NULL: queries.jsonl */
    const char *const *tasks; /* names; at most MR_TASKS_MAX, each once */
    size_t n_tasks;
    unsigned splits; /* bit (1 << split) for each one to keep */
} mr_tasks_options;  /* no task and no split: the items alone, without queries.jsonl */

/* NOT_FOUND for a task without any row, of any split, with the tasks that there are. A task that
 * has rows, but none of these splits, has none here. */
MR_NODISCARD mr_status mr_tasks_open(mr_tasks **out, const char *folder,
                                     const mr_tasks_options *options, mr_error *err);
void mr_tasks_close(mr_tasks *tasks); /* NULL is fine */

size_t mr_tasks_n_items(const mr_tasks *tasks);
const mr_item *mr_tasks_item(const mr_tasks *tasks, uint32_t item);
bool mr_tasks_find_item(const mr_tasks *tasks, mr_str id, uint32_t *item);
bool mr_tasks_find_user(const mr_tasks *tasks, mr_str id, uint32_t *user);
size_t mr_tasks_n_users(const mr_tasks *tasks);

/* Rows of one task (its place in the options) and split, in the order of the file. */
const mr_task_row *mr_tasks_rows(const mr_tasks *tasks, size_t task, mr_split split, size_t *n);

/* The i-th candidate: for rows asked of all items too. */
static inline uint32_t mr_task_candidate(const mr_task_row *row, size_t i)
{
    return row->candidates ? row->candidates[i] : (uint32_t)i;
}
int mr_task_grade(const mr_task_row *row, uint32_t item);

#endif
