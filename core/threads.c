/* threads.c - see threads.h.
 *
 * One 64-bit word, the gate, carries the whole protocol: a job's generation, whether workers may
 * still enter it, and how many are inside. The caller opens the gate, works along, closes the gate
 * when the chunks have run out, and waits for those inside only. So a worker that the system has
 * not yet woken costs nothing: it finds the gate closed and stays out. Job fields may be rewritten
 * once the gate is closed and empty, because a worker reads them only after it has entered.
 *
 * Sleeping uses the usual pattern of two flags that are written before the other one is read:
 * a worker counts itself a sleeper and then looks at the gate, the caller opens the gate and then
 * looks for sleepers, all sequentially consistent, so at least one of the two sees the other.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/threads.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__) || defined(__i386__)
#    include <immintrin.h>
#endif

#include "core/bytes.h"
#include "core/clock.h"

#define CACHE_LINE      64
#define SPIN_US         100 /* longer than the serial work between two calls of a forward pass */
#define SPINS_PER_CLOCK 32  /* the clock costs about as much as this many pauses */

#define GATE_OPEN       UINT64_C(0x80000000)
#define GATE_INSIDE     UINT64_C(0x7fffffff)
#define GATE_GENERATION 32 /* shift */

typedef struct {
    mr_pool *pool;
    pthread_t thread;
    int index;
} worker;

struct mr_pool {
    pthread_mutex_t caller_lock; /* held for the length of one parallel_for */
    int n_threads;
    int spin_us;

    /* The job: written by the caller while the gate is closed and empty. */
    mr_task task;
    void *context;
    size_t n, grain, n_chunks;

    _Alignas(CACHE_LINE) _Atomic uint64_t gate;
    _Alignas(CACHE_LINE) _Atomic size_t next_chunk;
    _Alignas(CACHE_LINE) pthread_mutex_t sleep_lock;
    pthread_cond_t opened; /* workers sleep here */
    pthread_cond_t empty;  /* the caller sleeps here */
    atomic_int n_sleepers;
    atomic_bool caller_sleeps;
    atomic_bool stop;

    worker workers[]; /* [n_threads - 1]; the caller is the missing one, with index 0 */
};

/* The tasks that this thread is in the middle of, innermost first: nested calls look here. */
typedef struct frame {
    const mr_pool *pool;
    int index;
    const struct frame *outer;
} frame;

static _Thread_local const frame *innermost;

static inline void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#endif
}

/* A spin that ends after spin_us. Zero-initialised is ready. */
typedef struct {
    unsigned count;
    int64_t until_us;
} spinner;

static bool spin_once(spinner *spin, int spin_us)
{
    pause_briefly();
    if (spin->count++ % SPINS_PER_CLOCK != 0)
        return true;
    int64_t now = mr_clock_monotonic_us();
    if (spin->until_us == 0)
        spin->until_us = now + spin_us;
    return now < spin->until_us;
}

static void run_chunks(mr_pool *pool, int index)
{
    frame here = {pool, index, innermost};
    innermost = &here;
    for (;;) {
        size_t chunk = atomic_fetch_add_explicit(&pool->next_chunk, 1, memory_order_relaxed);
        if (chunk >= pool->n_chunks)
            break;
        size_t begin = chunk * pool->grain;
        size_t left = pool->n - begin;
        pool->task(pool->context, begin, begin + (left < pool->grain ? left : pool->grain), index);
    }
    innermost = here.outer;
}

static void run_inline(size_t n, size_t grain, mr_task task, void *context, int index)
{
    for (size_t begin = 0; begin < n;) {
        size_t end = n - begin < grain ? n : begin + grain;
        task(context, begin, end, index);
        begin = end;
    }
}

static bool is_open_after(uint64_t gate, uint32_t seen)
{
    return (gate & GATE_OPEN) && (uint32_t)(gate >> GATE_GENERATION) != seen;
}

/* Waits for the gate to open on a generation after `seen`; false when the pool stops. */
static bool wait_for_job(mr_pool *pool, uint32_t seen)
{
    spinner spin = {0};
    do {
        if (is_open_after(atomic_load(&pool->gate), seen))
            return true;
        if (atomic_load(&pool->stop))
            return false;
    } while (spin_once(&spin, pool->spin_us));

    pthread_mutex_lock(&pool->sleep_lock);
    atomic_fetch_add(&pool->n_sleepers, 1);
    while (!is_open_after(atomic_load(&pool->gate), seen) && !atomic_load(&pool->stop))
        pthread_cond_wait(&pool->opened, &pool->sleep_lock);
    atomic_fetch_sub(&pool->n_sleepers, 1);
    pthread_mutex_unlock(&pool->sleep_lock);
    return !atomic_load(&pool->stop);
}

static void *worker_main(void *argument)
{
    const worker *self = argument;
    mr_pool *pool = self->pool;
    uint32_t seen = 0;
    while (wait_for_job(pool, seen)) {
        uint64_t gate = atomic_load(&pool->gate);
        bool entered = false;
        while (!entered && is_open_after(gate, seen))
            entered = atomic_compare_exchange_weak(&pool->gate, &gate, gate + 1);
        if (!entered)
            continue;
        seen = (uint32_t)(gate >> GATE_GENERATION);
        run_chunks(pool, self->index);

        uint64_t before = atomic_fetch_sub(&pool->gate, 1);
        bool was_last = !(before & GATE_OPEN) && (before & GATE_INSIDE) == 1;
        if (was_last && atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->sleep_lock);
            pthread_cond_signal(&pool->empty);
            pthread_mutex_unlock(&pool->sleep_lock);
        }
    }
    return NULL;
}

static void wait_until_empty(mr_pool *pool)
{
    spinner spin = {0};
    do {
        if (!(atomic_load(&pool->gate) & GATE_INSIDE))
            return;
    } while (spin_once(&spin, pool->spin_us));

    pthread_mutex_lock(&pool->sleep_lock);
    atomic_store(&pool->caller_sleeps, true);
    while (atomic_load(&pool->gate) & GATE_INSIDE)
        pthread_cond_wait(&pool->empty, &pool->sleep_lock);
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->sleep_lock);
}

void mr_parallel_for(mr_pool *pool, size_t n, size_t grain, mr_task task, void *context)
{
    if (n == 0)
        return;
    if (grain == 0)
        grain = 1;
    if (!pool) {
        run_inline(n, grain, task, context, 0);
        return;
    }
    for (const frame *f = innermost; f; f = f->outer) {
        if (f->pool == pool) {
            run_inline(n, grain, task, context, f->index);
            return;
        }
    }

    pthread_mutex_lock(&pool->caller_lock);
    pool->task = task;
    pool->context = context;
    pool->n = n;
    pool->grain = grain;
    pool->n_chunks = n / grain + (n % grain != 0);
    atomic_store_explicit(&pool->next_chunk, 0, memory_order_relaxed);
    if (pool->n_threads == 1 || pool->n_chunks == 1) {
        run_chunks(pool, 0);
    } else {
        /* Closed and empty, so nobody else writes the gate now. */
        uint64_t generation = (atomic_load(&pool->gate) >> GATE_GENERATION) + 1;
        atomic_store(&pool->gate, generation << GATE_GENERATION | GATE_OPEN);
        if (atomic_load(&pool->n_sleepers) > 0) {
            pthread_mutex_lock(&pool->sleep_lock);
            pthread_cond_broadcast(&pool->opened);
            pthread_mutex_unlock(&pool->sleep_lock);
        }
        run_chunks(pool, 0);
        atomic_fetch_and(&pool->gate, ~GATE_OPEN);
        wait_until_empty(pool);
    }
    pthread_mutex_unlock(&pool->caller_lock);
}

/* Stops and joins the first n workers. */
static void stop_workers(mr_pool *pool, int n)
{
    pthread_mutex_lock(&pool->sleep_lock);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->opened);
    pthread_mutex_unlock(&pool->sleep_lock);
    for (int i = 0; i < n; i++)
        pthread_join(pool->workers[i].thread, NULL);
}

static void destroy(mr_pool *pool)
{
    pthread_mutex_destroy(&pool->caller_lock);
    pthread_mutex_destroy(&pool->sleep_lock);
    pthread_cond_destroy(&pool->opened);
    pthread_cond_destroy(&pool->empty);
    free(pool);
}

mr_status mr_pool_new(mr_pool **out, int n_threads, mr_error *err)
{
    int n_cpus = mr_cpu_count();
    if (n_threads == 0)
        n_threads = n_cpus;
    if (n_threads < 0 || n_threads > MR_MAX_THREADS)
        return MR_FAIL(err, INVALID, "%d threads, expected 0 (one for each CPU) to %d", n_threads,
                       MR_MAX_THREADS);
    size_t bytes = sizeof(mr_pool) + (size_t)(n_threads - 1) * sizeof(worker);
    bytes = mr_size_round_up(bytes, CACHE_LINE);
    mr_pool *pool = aligned_alloc(CACHE_LINE, bytes);
    if (!pool)
        return MR_FAIL(err, NO_MEMORY, "a pool of %d threads", n_threads);
    memset(pool, 0, bytes);
    pool->n_threads = n_threads;
    /* With more threads than CPUs a spinning thread keeps the CPU from the one it waits for. */
    pool->spin_us = n_threads > n_cpus ? 0 : SPIN_US;
    pthread_mutex_init(&pool->caller_lock, NULL);
    pthread_mutex_init(&pool->sleep_lock, NULL);
    pthread_cond_init(&pool->opened, NULL);
    pthread_cond_init(&pool->empty, NULL);

    /* Signals are for the program's own threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = 0;
    int n_started = 0;
    for (; n_started < n_threads - 1; n_started++) {
        worker *w = &pool->workers[n_started];
        w->pool = pool;
        w->index = n_started + 1;
        failure = pthread_create(&w->thread, NULL, worker_main, w);
        if (failure)
            break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure) {
        char reason[128];
        if (strerror_r(failure, reason, sizeof reason) != 0)
            snprintf(reason, sizeof reason, "error number %d", failure);
        stop_workers(pool, n_started);
        destroy(pool);
        return MR_FAIL(err, EXHAUSTED, "cannot start thread %d of %d: %s; ask for fewer threads",
                       n_started + 2, n_threads, reason);
    }
    *out = pool;
    return MR_OK;
}

void mr_pool_free(mr_pool *pool)
{
    if (!pool)
        return;
    stop_workers(pool, pool->n_threads - 1);
    destroy(pool);
}

int mr_pool_threads(const mr_pool *pool)
{
    return pool ? pool->n_threads : 1;
}
