/* threads.h - one pool, one call: run a range of independent tasks on all threads.
 *
 * Work is handed out in chunks by an atomic counter; the caller works too. Results must not depend
 * on which thread ran a task: every task owns its outputs, so that the same bits come out with any
 * number of threads. Nothing is allocated per call. Workers spin briefly, then sleep: a forward
 * pass calls this hundreds of times, an idle service not at all.
 * Threads: one parallel_for at a time per pool (callers on different threads queue on a lock);
 * a call nested in a task of the same pool runs inline, as the worker that it is nested in. A task
 * may call another pool, as long as pools never wait for each other in a circle.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_THREADS_H
#define MR_CORE_THREADS_H

#include <stddef.h>

#include "core/error.h"

typedef struct mr_pool mr_pool;

#define MR_MAX_THREADS 256

/* n_threads counts the caller; 0 means the CPUs this process may run on (cgroup quota included). */
mr_status mr_pool_new(mr_pool **out, int n_threads, mr_error *err);
void mr_pool_free(mr_pool *pool);         /* NULL is fine */
int mr_pool_threads(const mr_pool *pool); /* 1 for NULL */

/* task handles items [begin, end); worker is 0..threads-1, for per-thread scratch. */
typedef void (*mr_task)(void *context, size_t begin, size_t end, int worker);

/* Calls task over [0, n) in chunks of `grain` items (at least 1; the last may be shorter), inline
 * calls too. A NULL pool runs inline as worker 0, and callers of it are not kept apart. */
void mr_parallel_for(mr_pool *pool, size_t n, size_t grain, mr_task task, void *context);

/* CPUs that the affinity mask and the control groups' CPU quotas leave to this process, 1 to
 * MR_MAX_THREADS. Reads files: ask once. */
int mr_cpu_count(void);

#endif
