/* evaluation_rows.c - one row: scores of all systems, order, measures. See evaluation.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/hash.h"
#include "core/rng.h"
#include "ranker/evaluation/evaluation_private.h"
#include "ranker/evaluation/metrics.h"

#define CUT 10

static bool grow(void *array, size_t n, size_t size)
{
    void **at = array;
    void *bigger = realloc(*at, n * size);
    if (bigger)
        *at = bigger;
    return bigger != NULL;
}

mr_status mr_evaluation_reserve(mr_evaluation_state *state, size_t n, mr_error *err)
{
    if (n <= state->capacity)
        return MR_OK;
    bool good = grow(&state->blended, n, sizeof *state->blended) &&
                grow(&state->order, n, sizeof *state->order) &&
                grow(&state->grades, n, sizeof *state->grades) &&
                grow(&state->keys, n, sizeof *state->keys);
    for (size_t i = 0; good && i < state->evaluation->n_systems; i++)
        good = grow(&state->scores[i], n, sizeof *state->scores[i]);
    for (size_t i = 0; good && i < MR_BASELINE_COUNT; i++)
        good = grow(&state->baseline[i], n, sizeof *state->baseline[i]);
    if (!good)
        return MR_FAIL(err, NO_MEMORY, "rows of %zu candidates", n);
    state->capacity = n;
    return MR_OK;
}

void mr_evaluation_release(mr_evaluation_state *state)
{
    free(state->blended);
    free(state->order);
    free(state->grades);
    free(state->keys);
    for (size_t i = 0; i < MR_EVALUATION_MAX_SYSTEMS; i++)
        free(state->scores[i]);
    for (size_t i = 0; i < MR_BASELINE_COUNT; i++)
        free(state->baseline[i]);
}

/* ---- scores ---------------------------------------------------------------------------------- */

static mr_status score_baseline(mr_evaluation_state *state, mr_baseline baseline,
                                const mr_task_row *row, mr_error *err)
{
    if (state->has_baseline[baseline])
        return MR_OK;
    state->has_baseline[baseline] = true;
    if (baseline == MR_BASELINE_LINEAR && !state->fitted) {
        for (size_t i = 0; i < row->n_candidates; i++)
            state->baseline[baseline][i] = 0;
        return MR_OK;
    }
    const int64_t started = mr_clock_monotonic_us();
    mr_status status =
        mr_lexical_system_score(state->lexical, baseline, row, state->baseline[baseline], err);
    state->baseline_us[baseline] = mr_clock_monotonic_us() - started;
    return status;
}

static mr_status score_system(mr_evaluation_state *state, size_t i, size_t row_index,
                              mr_system_work *work, mr_error *err)
{
    const mr_system_spec *spec = &state->evaluation->systems[i];
    const mr_task_row *row = &state->rows[row_index];
    const size_t n = row->n_candidates;
    mr_status status = MR_OK;
    switch (spec->kind) {
    case MR_SYSTEM_BASELINE:
        status = score_baseline(state, spec->baseline, row, err);
        if (status == MR_OK)
            memcpy(state->scores[i], state->baseline[spec->baseline], n * sizeof(double));
        work->candidates += n;
        work->time_us += state->baseline_us[spec->baseline];
        return status;
    case MR_SYSTEM_BUNDLE:
        return mr_bundle_system_rank(state->bundle_of[i]->system, row, &spec->variant,
                                     state->scores[i], work, err);
    case MR_SYSTEM_DOT:
        return mr_bundle_system_dot(state->bundle_of[i]->system, row, &spec->variant, &spec->dot,
                                    state->scores[i], work, err);
    case MR_SYSTEM_RUN:
        memcpy(state->scores[i], mr_trec_run_scores(state->run[i], row_index), n * sizeof(double));
        work->candidates += n;
        for (size_t k = 0; k < n; k++)
            work->unscored += isnan(state->scores[i][k]);
        return MR_OK;
    }
    return MR_FAIL(err, INTERNAL, "a system of no kind");
}

mr_status mr_evaluation_score_row(mr_evaluation_state *state, size_t row, const bool *wanted,
                                  mr_system_work *work, mr_error *err)
{
    const mr_task_row *at = &state->rows[row];
    mr_status status = mr_evaluation_reserve(state, at->n_candidates, err);
    memset(state->has_baseline, 0, sizeof state->has_baseline);
    for (size_t i = 0; status == MR_OK && i < state->evaluation->n_systems; i++) {
        const mr_system_spec *spec = &state->evaluation->systems[i];
        if (wanted && !wanted[i])
            continue;
        if (state->base[i] == i)
            status = score_system(state, i, row, &work[i], err);
        if (status == MR_OK && (spec->tune || spec->blend != 0))
            status = score_baseline(state, spec->prior, at, err);
    }
    return status;
}

/* ---- order and measures ---------------------------------------------------------------------- */

static int by_score(const void *a, const void *b)
{
    const mr_sort_key *x = a, *y = b;
    const bool no_x = isnan(x->score), no_y = isnan(y->score);
    if (no_x != no_y)
        return no_x ? 1 : -1;
    if (!no_x && x->score != y->score)
        return x->score > y->score ? -1 : 1;
    if (x->tie != y->tie)
        return x->tie < y->tie ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

bool mr_evaluation_order(mr_evaluation_state *state, const mr_task_row *row, const double *scores,
                         const double *prior, double blend)
{
    const size_t n = row->n_candidates;
    bool some = false, none = false, different = false;
    double first = 0;
    mr_rng rng = mr_rng_seed(state->options->seed ^ mr_hash_xxh3(row->id.data, row->id.len));
    for (size_t i = 0; i < n; i++) {
        state->blended[i] = scores[i] + (prior && blend != 0 ? blend * prior[i] : 0);
        if (isnan(state->blended[i])) {
            none = true;
        } else {
            first = some ? first : state->blended[i];
            some = true;
            different |= state->blended[i] != first;
        }
        state->keys[i] = (mr_sort_key){state->blended[i], mr_rng_u64(&rng), i};
    }
    qsort(state->keys, n, sizeof *state->keys, by_score);
    for (size_t i = 0; i < n; i++) {
        state->order[i] = state->keys[i].place;
        state->grades[i] = mr_task_grade(row, mr_task_candidate(row, state->order[i]));
    }
    return different || (some && none);
}

void mr_evaluation_measure(const mr_evaluation_state *state, const mr_task_row *row,
                           double value[MR_MEASURE_COUNT])
{
    const size_t n = row->n_candidates;
    const int *grades = state->grades;
    mr_judgements judged = {0};
    for (size_t i = 0; i < row->n_labels; i++)
        mr_judgements_add(&judged, row->labels[i].grade);
    const int best = mr_judgements_highest(&judged);
    value[MR_MEASURE_NDCG] = mr_metric_ndcg(grades, n, &judged, CUT, MR_GAIN_EXPONENTIAL);
    value[MR_MEASURE_NDCG_LINEAR] = mr_metric_ndcg(grades, n, &judged, CUT, MR_GAIN_LINEAR);
    value[MR_MEASURE_RR_BEST] = mr_metric_reciprocal_rank(grades, n, best);
    value[MR_MEASURE_HIT_1] = mr_metric_success(grades, n, 1, best);
    value[MR_MEASURE_HIT_10] = mr_metric_success(grades, n, CUT, best);
    value[MR_MEASURE_RR] = mr_metric_reciprocal_rank(grades, n, 1);
    value[MR_MEASURE_MAP] = mr_metric_average_precision(grades, n, &judged, 1);
    value[MR_MEASURE_P_10] = mr_metric_precision(grades, n, CUT, 1);
    value[MR_MEASURE_RECALL_10] = mr_metric_recall(grades, n, &judged, CUT, 1);
    value[MR_MEASURE_SUCCESS_10] = mr_metric_success(grades, n, CUT, 1);
}
