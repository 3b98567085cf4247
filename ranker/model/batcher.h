/* batcher.h - merges the candidates of concurrent rankings into passes of one model.
 *
 *     mr_batcher *batcher = NULL;
 *     mr_batcher_new(&batcher, bundle, NULL, &err);
 *     mr_batch_job job = {.prefix = key, .suffixes = inputs, .n = n, .margins = margins};
 *     mr_batcher_run(batcher, &job, &err);          blocks; called from many threads at once
 *
 * One thread runs passes. While one is under way, jobs arrive; the next pass takes those whose
 * deadline is nearest, as many of their suffixes as its token budget has room for, so that a job of
 * thousands of candidates never blocks one of ten for longer than a pass, and nobody waits for a
 * batch to fill. Prefixes come from a cache (prefix_cache.h) or are computed in the same pass.
 *
 * A margin does not depend on who shares the pass (engine/session.h, Same bits): this only changes
 * when a candidate is scored, never what it scores.
 *
 * Threads: any number may run jobs; free when none does.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_MODEL_BATCHER_H
#define MR_RANKER_MODEL_BATCHER_H

#include <stdatomic.h>

#include "ranker/model/parts.h"
#include "ranker/model/prefix_cache.h"

typedef struct mr_batcher mr_batcher;

typedef struct {
    size_t max_rows;       /* token budget of a pass; 0: 1024 */
    size_t max_queue_rows; /* suffix tokens that may wait; more are EXHAUSTED. 0: 64 x max_rows */
    uint64_t cache_bytes;  /* of prefixes; 0: 256 MiB */
} mr_batcher_options;

/* bundle is borrowed for the batcher's life. options may be NULL. */
MR_NODISCARD mr_status mr_batcher_new(mr_batcher **out, const mr_bundle *bundle,
                                      const mr_batcher_options *options, mr_error *err);
void mr_batcher_free(mr_batcher *batcher); /* NULL is fine; no job is running */

/* All is borrowed until the run returns. */
typedef struct {
    mr_prefix_key prefix;
    const mr_input *suffixes; /* [n], each at least one position; all checked by the caller */
    size_t n;
    int64_t deadline_us;          /* monotonic; 0: none, after all that have one */
    const atomic_bool *cancelled; /* looked at before each pass; NULL: never */
    double *margins;              /* [n] */
    /* What became of it. */
    size_t n_done;        /* the first n_done margins are there */
    size_t prefix_cached; /* positions of the prefix that were not computed for it */
    int64_t waited_us;    /* until its first pass began */
} mr_batch_job;

/* OK: all n are done. TIMEOUT: the deadline passed, CANCELLED: it was, both with n_done of them.
 * EXHAUSTED: too much is waiting already, nothing was done. Others: the pass failed for this job's
 * input (INVALID) or memory; other jobs of the pass are not affected by the former. */
MR_NODISCARD mr_status mr_batcher_run(mr_batcher *batcher, mr_batch_job *job, mr_error *err);

typedef struct {
    uint64_t jobs, passes, candidates, rows; /* rows: positions computed */
    uint64_t merged;                         /* passes that served more than one job */
    uint64_t rejected, timeouts, cancelled;
    size_t queued_rows; /* suffix tokens that wait, now */
    double rows_per_s;  /* of the last passes; 0: none ran yet. For admission by predicted cost */
    mr_prefix_cache_stats cache;
} mr_batcher_stats;
void mr_batcher_stat(mr_batcher *batcher, mr_batcher_stats *out);

#endif
