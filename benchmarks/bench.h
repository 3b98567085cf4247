/* bench.h - what the benchmarks share: repetitions, the median, one JSON line per figure.
 *
 *     bench_clock clock = bench_start(0.3, 5);          at least 0.3 s and 5 repetitions
 *     while (bench_more(&clock)) { bench_tick(&clock); work(); bench_tock(&clock); }
 *     double seconds = bench_median(&clock);
 *
 * A benchmark checks its result against a reference before it starts the clock, and keeps setting
 * up outside tick and tock. The first repetition warms up and is not counted.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_BENCHMARKS_BENCH_H
#define MR_BENCHMARKS_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/options.h"
#include "mixrank_version.h"

#define BENCH_MAX_REPETITIONS 1000

typedef struct {
    double seconds[BENCH_MAX_REPETITIONS];
    int n;        /* counted */
    int started;  /* including the one that warms up */
    int least;    /* repetitions */
    double until; /* keep going at least so long */
    double tick, cpu_tick;
    double cpu_seconds; /* of the whole process, over the counted repetitions */
} bench_clock;

static inline double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Of all threads of the process: what others do on a shared machine hardly moves it. */
static inline double bench_cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline bench_clock bench_start(double seconds, int repetitions)
{
    return (bench_clock){.least = repetitions, .until = bench_now() + seconds};
}

static inline bool bench_more(const bench_clock *clock)
{
    return clock->n < BENCH_MAX_REPETITIONS &&
           (clock->n < clock->least || bench_now() < clock->until);
}

static inline void bench_tick(bench_clock *clock)
{
    clock->cpu_tick = bench_cpu_now();
    clock->tick = bench_now();
}

static inline void bench_tock(bench_clock *clock)
{
    const double seconds = bench_now() - clock->tick;
    if (clock->started++ > 0) {
        clock->seconds[clock->n++] = seconds;
        clock->cpu_seconds += bench_cpu_now() - clock->cpu_tick;
    }
}

static inline int bench_compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* share 0.5: the median; 0: the fastest; 0.99: the 99th percentile. Sorts. */
static inline double bench_quantile(bench_clock *clock, double share)
{
    qsort(clock->seconds, (size_t)clock->n, sizeof(double), bench_compare);
    return clock->seconds[(int)(share * (clock->n - 1) + 0.5)];
}

static inline double bench_median(bench_clock *clock)
{
    return bench_quantile(clock, 0.5);
}

/* The fields that every line has; the caller prints ", \"name\": value" pairs and bench_line_end.
 */
static inline void bench_line_begin(const char *bench, const char *what)
{
    printf("{\"bench\": \"%s\", \"what\": \"%s\", \"version\": \"%s\", \"commit\": \"%s\", "
           "\"compiler\": \"%s\", \"build\": \"%s\"",
           bench, what, MR_VERSION, MR_COMMIT, MR_COMPILER, MR_BUILD_TYPE);
}

static inline void bench_line_end(void)
{
    printf("}\n");
    fflush(stdout);
}

/* Reads the options of a benchmark that takes no names, into *opt, which holds the defaults; a copy
 * of them is for the help. True when it is to run; else *code is what main returns. */
static inline bool bench_read_options(const mr_command_help *help, const mr_option *table, int argc,
                                      char **argv, void *opt, const void *defaults, int *code)
{
    int n_positional = 0;
    bool help_wanted = false;
    mr_error err = {0};
    const bool fine =
        mr_options_parse(table, argc, argv, opt, &n_positional, &help_wanted, &err) == MR_OK;
    *code = 0;
    if (!fine || n_positional > 0) {
        fprintf(stderr, "%s: %s\n", help->name, fine ? "takes no names" : err.message);
        *code = 2;
        return false;
    }
    if (help_wanted)
        mr_options_print_help(stdout, help, table, defaults);
    return !help_wanted;
}

#endif
