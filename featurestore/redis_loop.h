/* redis_loop.h - the one thread of a Redis store that owns its sockets and timers.
 *
 * Everything in redis_link.h and redis_node.h runs on this thread and needs no locks; other threads
 * hand in jobs and wait for what these do (redis_batch.h). Names are looked up on the loop thread:
 * an answer of the resolver that takes long holds up the store, not its callers, who have a timeout
 * of their own.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_REDIS_LOOP_H
#define MR_FEATURESTORE_REDIS_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"

struct event_base;

typedef struct mr_redis_loop mr_redis_loop;

MR_NODISCARD mr_status mr_redis_loop_new(mr_redis_loop **out, mr_error *err);
/* Runs the jobs that were handed in, then `last` (may be NULL) on the loop thread: the place where
 * nodes are freed. Then ends and joins the thread. NULL is fine. Not from the loop thread. */
void mr_redis_loop_free(mr_redis_loop *loop, void (*last)(void *context), void *context);

/* Work for the loop thread; its memory is the caller's until run was called. Jobs run in order. */
typedef struct mr_redis_job {
    struct mr_redis_job *next;
    void (*run)(struct mr_redis_job *job);
} mr_redis_job;
void mr_redis_loop_post(mr_redis_loop *loop, mr_redis_job *job); /* any thread; never fails */

/* Runs it on the loop thread and waits until it is done. Not from the loop thread. */
void mr_redis_loop_call(mr_redis_loop *loop, void (*run)(void *context), void *context);

/* The rest is for the loop thread. */
struct event_base *mr_redis_loop_base(mr_redis_loop *loop);

/* A timer that runs once, when it is armed. Arming it again moves it. */
typedef struct mr_redis_timer mr_redis_timer;
mr_redis_timer *mr_redis_timer_new(mr_redis_loop *loop, void (*run)(void *context),
                                   void *context); /* NULL: out of memory */
void mr_redis_timer_arm(mr_redis_timer *timer, int64_t after_ms);
void mr_redis_timer_stop(mr_redis_timer *timer);
void mr_redis_timer_free(mr_redis_timer *timer); /* NULL is fine; may be called within its run */

#endif
