/* evaluation_tune.c - the weight of a blend, chosen on rows of split valid. See evaluation.h.
 *
 * Margins and priors of all valid rows are kept, so that a row is scored once however many weights
 * are tried. Rows asked of all items are not tuned on: a prior over the whole catalogue is another
 * distribution than over a list.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>

#include "ranker/evaluation/evaluation_private.h"

/* Multiples of (spread of the scores / spread of the prior). */
static const double steps[] = {0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1, 1.5, 2, 3, 5};
#define STEPS (sizeof steps / sizeof *steps)

/* Scores and priors of one system over the valid rows. */
typedef struct {
    double *score, *prior;
    size_t *first; /* [rows + 1] */
    double spread, prior_spread;
} tuning;

static double spread_of(const double *value, size_t n)
{
    double sum = 0, squares = 0;
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (!isnan(value[i])) {
            sum += value[i];
            count++;
        }
    for (size_t i = 0; i < n; i++)
        if (!isnan(value[i]))
            squares += (value[i] - sum / (double)count) * (value[i] - sum / (double)count);
    return count ? sqrt(squares / (double)count) : 0;
}

static void tuning_release(tuning *one)
{
    free(one->score);
    free(one->prior);
    free(one->first);
}

static mr_status collect(mr_evaluation_state *state, const bool *wanted, tuning *all, mr_error *err)
{
    mr_system_work ignored[MR_EVALUATION_MAX_SYSTEMS] = {{0}};
    const mr_evaluation_options *options = state->options;
    for (size_t r = 0; r < state->n_rows; r++) {
        const size_t n = state->rows[r].n_candidates;
        mr_status status = mr_evaluation_score_row(state, r, wanted, ignored, err);
        if (status != MR_OK)
            return status;
        for (size_t i = 0; i < state->evaluation->n_systems; i++) {
            const mr_system_spec *spec = &state->evaluation->systems[i];
            tuning *one = &all[i];
            if (!spec->tune || !one->first)
                continue;
            const double *score = state->scores[state->base[i]];
            const double *prior = state->baseline[spec->prior];
            memcpy(one->score + one->first[r], score, n * sizeof *score);
            memcpy(one->prior + one->first[r], prior, n * sizeof *prior);
            one->spread += spread_of(score, n);
            one->prior_spread += spread_of(prior, n);
        }
        if (options->progress)
            options->progress(options->progress_context, "tuning on split valid", r + 1,
                              state->n_rows);
    }
    return MR_OK;
}

static double choose(mr_evaluation_state *state, const tuning *one)
{
    double best = -1, best_weight = 0;
    if (!(one->prior_spread > 0))
        return 0;
    for (size_t s = 0; s < STEPS; s++) {
        const double weight = steps[s] * one->spread / one->prior_spread;
        double sum = 0;
        for (size_t r = 0; r < state->n_rows; r++) {
            double value[MR_MEASURE_COUNT];
            mr_evaluation_order(state, &state->rows[r], one->score + one->first[r],
                                one->prior + one->first[r], weight);
            mr_evaluation_measure(state, &state->rows[r], value);
            sum += value[MR_MEASURE_NDCG];
        }
        if (sum > best) {
            best = sum;
            best_weight = weight;
        }
    }
    return best_weight;
}

/* wanted: the systems whose scores tuned ones are made of. */
static mr_status prepare(mr_evaluation_state *state, bool *wanted, tuning *all, mr_error *err)
{
    for (size_t i = 0; i < state->evaluation->n_systems; i++) {
        if (!state->evaluation->systems[i].tune)
            continue;
        wanted[i] = true;
        wanted[state->base[i]] = true;
        size_t total = 0;
        all[i].first = calloc(state->n_rows + 1, sizeof *all[i].first);
        for (size_t r = 0; all[i].first && r < state->n_rows; r++) {
            all[i].first[r] = total;
            total += state->rows[r].n_candidates;
        }
        all[i].score = calloc(total + 1, sizeof *all[i].score);
        all[i].prior = calloc(total + 1, sizeof *all[i].prior);
        if (!all[i].first || !all[i].score || !all[i].prior)
            return MR_FAIL(err, NO_MEMORY, "scores of %zu rows", state->n_rows);
    }
    return MR_OK;
}

mr_status mr_evaluation_tune(mr_evaluation_state *state, size_t task, mr_error *err)
{
    bool wanted[MR_EVALUATION_MAX_SYSTEMS] = {false};
    tuning all[MR_EVALUATION_MAX_SYSTEMS] = {{0}};
    state->rows = mr_tasks_rows(state->tasks, task, MR_SPLIT_VALID, &state->n_rows);
    bool lists = state->n_rows > 0;
    for (size_t r = 0; r < state->n_rows; r++)
        lists &= state->rows[r].candidates != NULL;
    if (!lists)
        state->n_rows = 0;
    state->result->n_valid = state->n_rows;
    for (size_t i = 0; i < state->evaluation->n_systems; i++)
        state->result->system[i].untuned = state->evaluation->systems[i].tune && !lists;
    if (!lists)
        return MR_OK;
    mr_status status = prepare(state, wanted, all, err);
    for (size_t i = 0; status == MR_OK && i < state->evaluation->n_systems; i++)
        if (state->evaluation->systems[i].kind == MR_SYSTEM_RUN && wanted[i])
            status = MR_FAIL(err, INVALID,
                             "system '%s': a run has no scores of split valid to tune a blend on; "
                             "give blend=W",
                             state->evaluation->systems[i].name);
    if (status == MR_OK)
        status = collect(state, wanted, all, err);
    for (size_t i = 0; status == MR_OK && i < state->evaluation->n_systems; i++)
        if (state->evaluation->systems[i].tune)
            state->result->system[i].blend = choose(state, &all[i]);
    for (size_t i = 0; i < state->evaluation->n_systems; i++)
        tuning_release(&all[i]);
    return status;
}
