/* test_threads.c - the pool: every item once, nested calls, several callers, no allocation.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "core/cpu_count.h"
#include "core/guard.h"
#include "core/threads.h"
#include "tests/support.h"

static const int thread_counts[] = {1, 2, 4, 7};
#define N_COUNTS (sizeof thread_counts / sizeof *thread_counts)

static mr_pool *new_pool(int n_threads)
{
    mr_pool *pool = NULL;
    mr_error err = {0};
    assert_status(mr_pool_new(&pool, n_threads, &err), MR_OK, &err);
    assert_non_null(pool);
    return pool;
}

typedef struct {
    size_t n, grain;
    int n_workers;
    unsigned char *runs;               /* [n]: plain, because every item has one owner */
    atomic_int inside[MR_MAX_THREADS]; /* by worker */
    atomic_int wrong;                  /* broken promises; asserts may not fire on other threads */
} job;

static void count_runs(void *context, size_t begin, size_t end, int worker)
{
    job *j = context;
    if (begin >= end || end > j->n || end - begin > j->grain || begin % j->grain != 0 ||
        worker < 0 || worker >= j->n_workers) {
        atomic_fetch_add(&j->wrong, 1);
        return;
    }
    if (atomic_fetch_add(&j->inside[worker], 1) != 0)
        atomic_fetch_add(&j->wrong, 1); /* two tasks share a worker's scratch */
    for (size_t i = begin; i < end; i++)
        j->runs[i]++;
    atomic_fetch_sub(&j->inside[worker], 1);
}

static void every_item_runs_once_whatever_the_sizes(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 3, 7, 64, 1000, 4097};
    static const size_t grains[] = {1, 2, 3, 64, 5000};
    static job j;
    for (size_t t = 0; t <= N_COUNTS; t++) {
        mr_pool *pool = t < N_COUNTS ? new_pool(thread_counts[t]) : NULL; /* NULL runs inline */
        assert_int_equal(mr_pool_threads(pool), t < N_COUNTS ? thread_counts[t] : 1);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            for (size_t g = 0; g < sizeof grains / sizeof *grains; g++) {
                j.n = sizes[s];
                j.grain = grains[g];
                j.n_workers = mr_pool_threads(pool);
                j.runs = calloc(j.n + 1, 1);
                assert_non_null(j.runs);
                mr_parallel_for(pool, j.n, j.grain, count_runs, &j);
                assert_int_equal(j.wrong, 0);
                for (size_t i = 0; i < j.n; i++) {
                    if (j.runs[i] != 1)
                        fail_msg("item %zu of %zu ran %d times (grain %zu, %d threads)", i, j.n,
                                 j.runs[i], j.grain, j.n_workers);
                }
                free(j.runs);
            }
        }
        mr_pool_free(pool);
    }
}

static void sum_into_slots(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    uint64_t *slots = context;
    for (size_t i = begin; i < end; i++)
        slots[i] += i + 1;
}

static void many_calls_in_a_row_lose_nothing(void **state)
{
    (void)state;
    for (size_t t = 0; t < N_COUNTS; t++) {
        mr_pool *pool = new_pool(thread_counts[t]);
        uint64_t slots[37] = {0};
        const uint64_t calls = thread_counts[t] > 2 ? 2000 : 20000;
        for (uint64_t call = 0; call < calls; call++)
            mr_parallel_for(pool, 37, 1, sum_into_slots, slots);
        for (size_t i = 0; i < 37; i++)
            assert_true(slots[i] == calls * (i + 1));
        mr_pool_free(pool);
    }
}

static void sleep_ms(int ms)
{
    struct timespec wait = {0, ms * 1000000L};
    nanosleep(&wait, NULL);
}

static void workers_that_fell_asleep_wake_again(void **state)
{
    (void)state;
    mr_pool *pool = new_pool(2);
    uint64_t slots[8] = {0};
    for (int call = 0; call < 20; call++) {
        sleep_ms(2); /* far longer than a worker spins */
        mr_parallel_for(pool, 8, 1, sum_into_slots, slots);
    }
    assert_int_equal(slots[7], 20 * 8);
    mr_pool_free(pool);
}

static void wait_for_the_other(void *context, size_t begin, size_t end, int worker)
{
    (void)end;
    (void)worker;
    atomic_int *arrived = context;
    atomic_fetch_add(arrived, 1);
    for (int i = 0; i < 5000 && atomic_load(arrived) < 2; i++)
        sleep_ms(1);
    (void)begin;
}

static void two_threads_really_run_at_the_same_time(void **state)
{
    (void)state;
    mr_pool *pool = new_pool(2);
    for (int round = 0; round < 5; round++) {
        atomic_int arrived = 0;
        mr_parallel_for(pool, 2, 1, wait_for_the_other, &arrived);
        assert_int_equal(arrived, 2);
        sleep_ms(1);
    }
    mr_pool_free(pool);
}

static void uneven(void *context, size_t begin, size_t end, int worker)
{
    if (begin == 0)
        sleep_ms(3); /* the caller or a worker is still busy when the chunks have run out */
    sum_into_slots(context, begin, end, worker);
}

static void uneven_tasks_are_waited_for(void **state)
{
    (void)state;
    for (size_t t = 0; t < N_COUNTS; t++) {
        mr_pool *pool = new_pool(thread_counts[t]);
        uint64_t slots[16] = {0};
        for (int call = 0; call < 20; call++)
            mr_parallel_for(pool, 16, 1, uneven, slots);
        for (size_t i = 0; i < 16; i++)
            assert_int_equal(slots[i], 20 * (i + 1));
        mr_pool_free(pool);
    }
}

typedef struct {
    mr_pool *pool, *other;
    atomic_int wrong;
    atomic_int inner_items;
    atomic_int arrived;
    int outer_worker; /* one value per nested call: lives on the caller's stack */
} nest;

static void inner_task(void *context, size_t begin, size_t end, int worker)
{
    nest *n = context;
    if (n->outer_worker >= 0 && worker != n->outer_worker)
        atomic_fetch_add(&n->wrong, 1);
    atomic_fetch_add(&n->inner_items, (int)(end - begin));
}

static void outer_task(void *context, size_t begin, size_t end, int worker)
{
    nest *outer = context;
    /* The first two items meet, so that a worker takes part in every call. */
    if (begin < 2 && mr_pool_threads(outer->pool) > 1)
        wait_for_the_other(&outer->arrived, begin, end, worker);
    for (size_t i = begin; i < end; i++) {
        nest inner = {.outer_worker = worker};
        mr_parallel_for(outer->pool, 10, 3, inner_task, &inner);
        /* The other pool has its own workers; being on top of both must not hang. */
        nest beside = {.outer_worker = -1};
        mr_parallel_for(outer->other, 10, 3, inner_task, &beside);
        if (inner.inner_items != 10 || inner.wrong != 0 || beside.inner_items != 10)
            atomic_fetch_add(&outer->wrong, 1);
        atomic_fetch_add(&outer->inner_items, 1);
    }
}

static void nested_calls_run_inline_as_the_same_worker(void **state)
{
    (void)state;
    for (size_t t = 0; t < N_COUNTS; t++) {
        nest outer = {.pool = new_pool(thread_counts[t]), .other = new_pool(2)};
        for (int call = 0; call < 50; call++) {
            outer.arrived = 0;
            mr_parallel_for(outer.pool, 12, 1, outer_task, &outer);
        }
        assert_int_equal(outer.wrong, 0);
        assert_int_equal(outer.inner_items, 50 * 12);
        mr_pool_free(outer.pool);
        mr_pool_free(outer.other);
    }
}

typedef struct {
    mr_pool *pool;
    uint64_t slots[20];
} caller;

static void alone_task(void *context, size_t begin, size_t end, int worker)
{
    caller *c = context;
    sum_into_slots(c->slots, begin, end, worker);
}

/* Plain memory that all callers write: ThreadSanitizer sees it if calls are not one at a time, and
 * the counter sees it without. */
static int unguarded;
static atomic_int inside_alone, met_another;

static void touch_unguarded(void *context, size_t begin, size_t end, int worker)
{
    (void)context;
    (void)begin;
    (void)end;
    (void)worker;
    if (atomic_fetch_add(&inside_alone, 1) != 0)
        atomic_fetch_add(&met_another, 1);
    unguarded++;
    sched_yield();
    atomic_fetch_sub(&inside_alone, 1);
}

static void *call_many_times(void *argument)
{
    caller *c = argument;
    for (int i = 0; i < 500; i++) {
        mr_parallel_for(c->pool, 20, 3, alone_task, c);
        mr_parallel_for(c->pool, 1, 1, touch_unguarded, c);
    }
    return NULL;
}

static void callers_on_different_threads_take_turns(void **state)
{
    (void)state;
    for (size_t t = 0; t < 3; t++) {
        mr_pool *pool = new_pool(thread_counts[t]);
        caller callers[3] = {{0}};
        pthread_t threads[3];
        unguarded = 0;
        for (int i = 0; i < 3; i++) {
            callers[i].pool = pool;
            assert_int_equal(pthread_create(&threads[i], NULL, call_many_times, &callers[i]), 0);
        }
        for (int i = 0; i < 3; i++)
            pthread_join(threads[i], NULL);
        for (int i = 0; i < 3; i++) {
            for (size_t k = 0; k < 20; k++)
                assert_int_equal(callers[i].slots[k], 500 * (k + 1));
        }
        assert_int_equal(unguarded, 3 * 500);
        assert_int_equal(met_another, 0);
        mr_pool_free(pool);
    }
}

static void a_call_allocates_nothing(void **state)
{
    (void)state;
    mr_pool *pool = new_pool(2);
    uint64_t slots[64] = {0};
    mr_guard_begin("parallel_for");
    for (int i = 0; i < 200; i++)
        mr_parallel_for(pool, 64, 1, sum_into_slots, slots);
    mr_guard_end();
    const char *phase = NULL;
    assert_int_equal(mr_guard_violations(&phase), 0);
    assert_null(phase);
    mr_pool_free(pool);
}

static void a_number_of_threads_that_makes_no_sense_is_refused(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_pool *pool = NULL;
    assert_status(mr_pool_new(&pool, -1, &err), MR_INVALID, &err);
    assert_string_equal(err.message, "-1 threads, expected 0 (one for each CPU) to 256");
    assert_status(mr_pool_new(&pool, MR_MAX_THREADS + 1, &err), MR_INVALID, &err);
    assert_null(pool);
    mr_pool_free(NULL);
}

static void zero_threads_means_the_cpus_that_may_be_used(void **state)
{
    (void)state;
    int cpus = mr_cpu_count();
    assert_in_range(cpus, 1, MR_MAX_THREADS);
    mr_pool *pool = new_pool(0);
    assert_int_equal(mr_pool_threads(pool), cpus);
    mr_pool_free(pool);
}

static void write_text(const char *folder, const char *name, const char *text)
{
    test_file_write(test_path(folder, name), text, strlen(text));
}

static void the_cpu_quota_of_control_groups_is_honoured(void **state)
{
    (void)state;
    static const struct {
        const char *membership, *file, *text, *file2, *text2;
        int want;
    } cases[] = {
        {"0::/a/b\n", "a/b/cpu.max", "150000 100000\n", NULL, NULL, 2},
        {"0::/a/b\n", "a/b/cpu.max", "max 100000\n", NULL, NULL, 0},
        {"0::/a/b\n", "a/b/cpu.max", "400000 100000\n", "a/cpu.max", "300000 100000\n", 3},
        {"0::/a/b\n", "cpu.max", "1000 100000\n", NULL, NULL, 1}, /* at the root of a container */
        {"0::/a/../../b\n", "cpu.max", "100000 100000\n", NULL, NULL, 1},
        {"0::/\n", "cpu.max", "200000 100000\n", NULL, NULL, 2},
        {"4:cpu,cpuacct:/a\n3:memory:/b\n", "cpu,cpuacct/a/cpu.cfs_quota_us", "250000\n",
         "cpu,cpuacct/a/cpu.cfs_period_us", "100000\n", 3},
        {"4:cpu,cpuacct:/a\n", "cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n",
         "cpu,cpuacct/a/cpu.cfs_period_us", "100000\n", 0},
        {"4:cpuacct:/a\n", "cpu,cpuacct/a/cpu.cfs_quota_us", "100000\n",
         "cpu,cpuacct/a/cpu.cfs_period_us", "100000\n", 0},
        {"0::/a/b\n", "a/b/cpu.max", "nonsense\n", NULL, NULL, 0},
        {"0::/a/b\n", "a/b/cpu.max", "", NULL, NULL, 0},
        {"0::/a/b\n", "a/b/cpu.max", "100000 0\n", NULL, NULL, 0},
        {"no colons here\n", "cpu.max", "100000 100000\n", NULL, NULL, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *folder = test_folder_new();
        static const char *const folders[] = {"a", "a/b", "cpu,cpuacct", "cpu,cpuacct/a"};
        for (size_t f = 0; f < 4; f++)
            assert_int_equal(mkdir(test_path(folder, folders[f]), 0777), 0);
        write_text(folder, "membership", cases[i].membership);
        write_text(folder, cases[i].file, cases[i].text);
        if (cases[i].file2)
            write_text(folder, cases[i].file2, cases[i].text2);
        int got = mr_cgroup_cpu_limit(test_path(folder, "membership"), folder);
        if (got != cases[i].want)
            fail_msg("case %zu gave %d, expected %d", i, got, cases[i].want);
        test_folder_free(folder);
    }
    assert_int_equal(mr_cgroup_cpu_limit("/nonexistent/cgroup", "/nonexistent"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_runs_once_whatever_the_sizes),
        cmocka_unit_test(many_calls_in_a_row_lose_nothing),
        cmocka_unit_test(workers_that_fell_asleep_wake_again),
        cmocka_unit_test(two_threads_really_run_at_the_same_time),
        cmocka_unit_test(uneven_tasks_are_waited_for),
        cmocka_unit_test(nested_calls_run_inline_as_the_same_worker),
        cmocka_unit_test(callers_on_different_threads_take_turns),
        cmocka_unit_test(a_call_allocates_nothing),
        cmocka_unit_test(a_number_of_threads_that_makes_no_sense_is_refused),
        cmocka_unit_test(zero_threads_means_the_cpus_that_may_be_used),
        cmocka_unit_test(the_cpu_quota_of_control_groups_is_honoured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
