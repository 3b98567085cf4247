/* trec_run.h - TREC runs: row id, Q0, item id, rank, score, tag.
 *
 * Written so that any program that reads runs sees our order: trec_eval sorts by score as a float,
 * whatever the rank says, and breaks ties by id. So where our scores are equal as floats, or one
 * was not scored, the number written is a little below the one before.
 * Threads: one object, one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_TREC_RUN_H
#define MR_RANKER_EVALUATION_TREC_RUN_H

#include "core/error.h"
#include "core/file.h"
#include "ranker/model/tasks.h"

/* Rows asked of all items write no more than these. */
#define MR_TREC_RUN_MOST 1000

/* "a name" becomes "a-name": a tag and a file name without blanks. At most size - 1 bytes. */
void mr_trec_name(const char *name, char *out, size_t size);

/* One row, best first: order holds places of the row's candidates. INVALID when an id has a blank
 * or a control character, or is empty: a run cannot hold it. IO when the disk is full. */
MR_NODISCARD mr_status mr_trec_run_write(FILE *out, const mr_tasks *tasks, const mr_task_row *row,
                                         const size_t *order, const double *scores, const char *tag,
                                         mr_error *err);
/* The row's labels as TREC qrels. */
MR_NODISCARD mr_status mr_trec_qrels_write(FILE *out, const mr_tasks *tasks, const mr_task_row *row,
                                           mr_error *err);

typedef struct mr_trec_run mr_trec_run;

/* Scores of these rows' candidates. Lines of other rows are passed over; an item that is no
 * candidate of its row, an item twice in a row, a line without six columns or with a score that is
 * no finite number are INVALID or CORRUPT and named by their line. rows and tasks are borrowed. */
MR_NODISCARD mr_status mr_trec_run_open(mr_trec_run **out, const char *path, const mr_tasks *tasks,
                                        const mr_task_row *rows, size_t n_rows, mr_error *err);
void mr_trec_run_close(mr_trec_run *run); /* NULL is fine */
/* [rows[row].n_candidates], NaN for a candidate that the run does not have. Borrowed. */
const double *mr_trec_run_scores(const mr_trec_run *run, size_t row);

#endif
