/* lexical_system.h - the baselines of baseline.h over the rows of tasks.h.
 *
 * Makes the text index of a catalogue, the baskets of training people, and for each task the linear
 * ranker, and keeps labels apart while it does: a linear ranker is fitted to rows of split train of
 * its own task; baskets are those of users.jsonl whose "fold" is train. A task is cold when no
 * candidate of its rows of split test is one of a row of split train; for a cold task baskets are
 * cut to items whose "fold" is train, so that nobody's label of a test item counts.
 * Threads: one at a time.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_LEXICAL_SYSTEM_H
#define MR_RANKER_EVALUATION_LEXICAL_SYSTEM_H

#include "ranker/evaluation/baseline.h"
#include "ranker/model/tasks.h"

typedef struct mr_lexical_system mr_lexical_system;

typedef struct {
    bool titles;   /* the field "title" counts as words of the text */
    uint64_t seed; /* of the random baseline */
} mr_lexical_options;

/* tasks is borrowed. Texts are the items' field "text", sections their field "section". folder may
 * have a users.jsonl: {"id", "fold", "history"}; without one nothing co-occurs. */
MR_NODISCARD mr_status mr_lexical_system_open(mr_lexical_system **out, const char *folder,
                                              const mr_tasks *tasks,
                                              const mr_lexical_options *options, mr_error *err);
void mr_lexical_system_close(mr_lexical_system *system); /* NULL is fine */

/* The task whose rows are asked next. fit: the linear ranker is needed; *fitted says whether the
 * task had training rows to fit it to. Then tasks must hold the task's rows of train and test. */
MR_NODISCARD mr_status mr_lexical_system_begin(mr_lexical_system *system, size_t task, bool fit,
                                               bool *fitted, mr_error *err);

MR_NODISCARD mr_status mr_lexical_system_score(mr_lexical_system *system, mr_baseline baseline,
                                               const mr_task_row *row, double *scores,
                                               mr_error *err);

/* Of the task begun last. */
bool mr_lexical_system_is_cold(const mr_lexical_system *system);

#endif
