/* tasks_private.h - inside of mr_tasks, for its readers. See tasks.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_MODEL_TASKS_PRIVATE_H
#define MR_RANKER_MODEL_TASKS_PRIVATE_H

#include "ranker/model/intern.h"
#include "ranker/model/tasks.h"

/* A row with what only reading needs. */
typedef struct {
    mr_task_row row;
    uint32_t task;
    mr_split split;
    uint64_t line;   /* of queries.jsonl */
    bool has_grades; /* with the candidates: no labels in a file */
} mr_task_entry;

struct mr_tasks {
    mr_arena arena; /* fields, histories, candidates, labels, rows */
    mr_intern item_ids, user_ids;
    mr_item *item; /* [item_ids.n] */
    size_t item_capacity;
    size_t n_tasks;
    mr_task_row *row; /* by task, then split */
    size_t first[MR_TASKS_MAX * MR_SPLIT_COUNT + 1];
};

/* tasks_items.c */
MR_NODISCARD mr_status mr_tasks_read_items(mr_tasks *tasks, const char *path, mr_error *err);

/* tasks_labels.c. Fills labels of the entries of this task from a TREC file. row_ids numbers the
 * entries. */
MR_NODISCARD mr_status mr_tasks_read_labels(mr_tasks *tasks, const char *path, uint32_t task,
                                            const mr_intern *row_ids, mr_task_entry *entries,
                                            mr_error *err);
/* Sorts labels that are filled in. where: for messages. INVALID for an item that is labelled twice,
 * and for a row without a relevant one. */
MR_NODISCARD mr_status mr_tasks_finish_labels(const mr_tasks *tasks, const mr_task_entry *entry,
                                              const char *where, mr_error *err);

#endif
