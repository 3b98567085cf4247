/* evaluation.h - systems over the rows of tasks: who ranks better, how surely, at what cost.
 *
 *     mr_evaluation_options options = {.catalogue = "build/demo/catalogue", ...};
 *     mr_evaluation *evaluation = NULL;
 *     mr_evaluation_run(&evaluation, &options, &err);
 *     mr_report_table(evaluation, &text, &err);                        report.h
 *
 * Only rows of the split asked for are measured. Two other uses of rows are part of the systems: a
 * linear ranker is fitted to split train, and a tuned blend has its weight chosen on split valid.
 *
 * A list is ordered by score; equal scores by a seeded shuffle of their own for each row, which
 * favours neither the input order nor anybody's ids; candidates that were not scored come last. A
 * system that gives equal scores to all candidates of all rows of a task had nothing to go by (a
 * query's baseline without queries): it is marked so and has no figures that mean anything.
 *
 * A blend is score + W x prior, as serving orders with a prior. Tuning tries multiples of the ratio
 * of the two spreads within lists and keeps the best mean NDCG@10, the smaller one among equals.
 * Threads: one run at a time; rankings inside use the bundle's threads.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_EVALUATION_H
#define MR_RANKER_EVALUATION_EVALUATION_H

#include "ranker/evaluation/intervals.h"
#include "ranker/evaluation/system_spec.h"

#define MR_EVALUATION_MAX_SYSTEMS 64

/* One row per measure: enum name, name in JSON (trec_eval's where it has the measure), what it is.
 * "best" means: of the highest grade that the row has. */
#define MR_MEASURE_MAP(X)                                                    \
    X(NDCG, "ndcg_exp_cut_10", "NDCG@10 with gain 2^grade - 1")              \
    X(RR_BEST, "recip_rank_best", "reciprocal rank of the first best item")  \
    X(HIT_1, "success_best_1", "a best item is first")                       \
    X(HIT_10, "success_best_10", "a best item is among the first 10")        \
    X(NDCG_LINEAR, "ndcg_cut_10", "NDCG@10 with the grade as gain")          \
    X(RR, "recip_rank", "reciprocal rank of the first relevant item")        \
    X(MAP, "map", "average precision")                                       \
    X(P_10, "P_10", "relevant items among the first 10, over 10")            \
    X(RECALL_10, "recall_10", "relevant items among the first 10, over all") \
    X(SUCCESS_10, "success_10", "a relevant item is among the first 10")

typedef enum {
#define MR_MEASURE_ENUM(id, name, what) MR_MEASURE_##id,
    MR_MEASURE_MAP(MR_MEASURE_ENUM)
#undef MR_MEASURE_ENUM
        MR_MEASURE_COUNT
} mr_measure;

const char *mr_measure_name(mr_measure measure);
const char *mr_measure_what(mr_measure measure);

typedef void (*mr_evaluation_progress)(void *context, const char *what, uint64_t done,
                                       uint64_t total);

typedef struct {
    const char *catalogue;
    /* "E1", or "C@items_long.jsonl" for a task whose items are another file of the folder. */
    const char *const *tasks;
    size_t n_tasks;
    const mr_system_spec *systems;
    size_t n_systems;
    mr_split split;
    size_t limit;                    /* rows per task, spread evenly over them; 0: all */
    uint64_t seed;                   /* of ties, the random baseline and the intervals */
    int threads;                     /* 0: the CPUs of this process */
    bool titles;                     /* baselines read titles too */
    const char *runs;                /* folder for <task>.<system>.run and <task>.qrels; or NULL */
    mr_evaluation_progress progress; /* or NULL */
    void *progress_context;
} mr_evaluation_options;

typedef struct {
    bool blank;                      /* nothing to go by: figures are those of a shuffle */
    double blend;                    /* that the figures were made with */
    bool untuned;                    /* no rows of split valid to tune on: blend is 0 */
    double *value[MR_MEASURE_COUNT]; /* [n_rows] */
    mr_system_work work;
    double item_bytes; /* that stand for one item; 0: not known */
} mr_system_result;

typedef struct {
    const char *name;                 /* without its items file */
    const char *items;                /* file, or NULL */
    size_t n_rows, n_people, n_valid; /* n_people: distinct; valid rows that blends were tuned on */
    double mean_candidates;
    bool cold;
    /* Share of the rows with a query of 3 words or more whose best item has the whole query in its
     * text: where it is high, the texts give the answers away. */
    double verbatim;
    uint32_t *person;         /* [n_rows], MR_GROUP_NONE for nobody */
    bool *same_family;        /* [n_rows] */
    mr_system_result *system; /* [n_systems] */
} mr_task_result;

/* What a bundle was, for reports. */
typedef struct {
    const char *name, *version, *numerics;
    bool untrained;
} mr_system_about;

typedef struct mr_evaluation {
    mr_arena arena;
    mr_system_spec *systems;
    mr_system_about *about; /* [n_systems]; name NULL: no bundle */
    size_t n_systems;
    mr_task_result *tasks;
    size_t n_tasks;
    mr_split split;
    size_t limit;
    uint64_t seed;
    char digest[65];            /* of the catalogue, from its manifest.json; "" without */
    const char *catalogue_date; /* likewise */
} mr_evaluation;

/* On success *out is the caller's. INVALID: two systems of one name, too many, a task twice. */
MR_NODISCARD mr_status mr_evaluation_run(mr_evaluation **out, const mr_evaluation_options *options,
                                         mr_error *err);
void mr_evaluation_free(mr_evaluation *evaluation); /* NULL is fine */

#endif
