/* evaluation_private.h - the state of one evaluation between its stages. See evaluation.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_EVALUATION_PRIVATE_H
#define MR_RANKER_EVALUATION_EVALUATION_PRIVATE_H

#include "ranker/evaluation/bundle_system.h"
#include "ranker/evaluation/evaluation.h"
#include "ranker/evaluation/lexical_system.h"
#include "ranker/evaluation/trec_run.h"

typedef struct {
    double score;
    uint64_t tie;
    size_t place;
} mr_sort_key;

/* A bundle that is open, shared by all systems of the same folder and store. */
typedef struct {
    const char *path, *store;
    mr_bundle_system *system;
    bool with_means;
} mr_open_bundle;

typedef struct {
    const mr_evaluation_options *options;
    mr_evaluation *evaluation;
    mr_open_bundle bundle[MR_EVALUATION_MAX_SYSTEMS];
    size_t n_bundles;
    mr_open_bundle *bundle_of[MR_EVALUATION_MAX_SYSTEMS]; /* of a system; NULL: none */
    size_t base[MR_EVALUATION_MAX_SYSTEMS]; /* the first system with the same scores */
    bool needs_lexical, needs_linear, tunes;
    /* Of the items file at hand. */
    mr_tasks *tasks;
    mr_lexical_system *lexical;
    /* Of the task at hand. */
    mr_task_result *result;
    bool fitted;
    const mr_task_row *rows; /* of the pass at hand */
    size_t n_rows;
    mr_trec_run *run[MR_EVALUATION_MAX_SYSTEMS];
    /* Of the row at hand. */
    size_t capacity;                           /* candidates */
    double *scores[MR_EVALUATION_MAX_SYSTEMS]; /* before any blend; of base systems */
    double *baseline[MR_BASELINE_COUNT];
    bool has_baseline[MR_BASELINE_COUNT];
    int64_t baseline_us[MR_BASELINE_COUNT];
    double *blended;
    size_t *order;
    int *grades;
    mr_sort_key *keys;
} mr_evaluation_state;

/* evaluation_rows.c. Room for rows of this many candidates. */
MR_NODISCARD mr_status mr_evaluation_reserve(mr_evaluation_state *state, size_t n, mr_error *err);
void mr_evaluation_release(mr_evaluation_state *state);
/* Scores of the row by every base system that `wanted` (NULL: all) names, and priors. */
MR_NODISCARD mr_status mr_evaluation_score_row(mr_evaluation_state *state, size_t row,
                                               const bool *wanted, mr_system_work *work,
                                               mr_error *err);
/* Orders the row by scores + blend x prior (NULL: none) into state->order and state->grades;
 * false when all scores are equal. */
bool mr_evaluation_order(mr_evaluation_state *state, const mr_task_row *row, const double *scores,
                         const double *prior, double blend);
void mr_evaluation_measure(const mr_evaluation_state *state, const mr_task_row *row,
                           double value[MR_MEASURE_COUNT]);

/* evaluation_tune.c. Chooses result->system[i].blend of the systems that tune, on rows of split
 * valid of the task. */
MR_NODISCARD mr_status mr_evaluation_tune(mr_evaluation_state *state, size_t task, mr_error *err);

#endif
