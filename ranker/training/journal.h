/* journal.h - what a run did, one JSON line per logged step.
 *
 *     {"step":20,"loss":3.2,"smooth":3.4,"rate":1e-3,"norm":0.7,"tokens_per_s":9100,"seconds":4}
 *
 * loss is the step's own, smooth its running mean, rate the learning rate, norm the length of the
 * gradient before clipping, seconds the time spent in training up to here, over all calls of a run
 * that was interrupted. "valid" is there where the valid split was looked at.
 *
 * A line is written at once or not at all: a write that fails is taken back, and a last line that a
 * killed process left in part is dropped when the run goes on. Resuming drops lines of steps that
 * are computed again, so the journal of a resumed run is that of an uninterrupted one but for
 * seconds and tokens_per_s: which steps are logged depends on their numbers alone.
 *
 *     mr_journal_open(&journal, "out/log.jsonl", resumed_step, 0, &err);
 *     mr_journal_add(journal, &progress, &err);      every step; it chooses
 *     mr_journal_sync(journal, &err);                before a checkpoint is put in place
 *     mr_journal_close(journal);
 *
 * Threads: one journal, one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_JOURNAL_H
#define MR_RANKER_TRAINING_JOURNAL_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "ranker/training/trainer.h"

typedef struct mr_journal mr_journal;

#define MR_JOURNAL_NAME "log.jsonl" /* in the folder of a run */

/* Keeps the lines of steps 1..step that are there, drops all others, and goes on behind them; step
 * 0 begins anew. every: a line each so many steps, beside the first, the last and those with a
 * valid loss; 0: so that a run has about a thousand. */
MR_NODISCARD mr_status mr_journal_open(mr_journal **out, const char *path, int64_t step,
                                       int64_t every, mr_error *err);
/* INVALID for a loss, rate or norm that is not finite: JSON has no word for it, and the run is
 * over.
 */
MR_NODISCARD mr_status mr_journal_add(mr_journal *journal, const mr_train_progress *progress,
                                      mr_error *err);
/* To the disk, so that no checkpoint outlives lines of before. */
MR_NODISCARD mr_status mr_journal_sync(mr_journal *journal, mr_error *err);
void mr_journal_close(mr_journal *journal); /* NULL is fine */

typedef struct {
    int64_t step;
    double loss, smooth, rate, norm, tokens_per_s, seconds;
    double valid; /* NaN: not looked at */
} mr_journal_row;

typedef struct {
    mr_journal_row *row; /* in the order of their steps; owned */
    size_t n;
} mr_journal_rows;

/* Reads a journal. A last line without its end is left out; any other that is not a
 * row, and a step that does not come after the one before, is CORRUPT or INVALID and names the
 * line. */
MR_NODISCARD mr_status mr_journal_read(mr_journal_rows *out, const char *path, mr_error *err);
void mr_journal_rows_free(mr_journal_rows *rows); /* idempotent; zero-initialised is fine */

#endif
