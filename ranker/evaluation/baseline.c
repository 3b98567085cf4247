/* baseline.c - see baseline.h: names, features, and which signals each baseline adds up.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/evaluation/baseline.h"

#include <stdlib.h>

#include "core/hash.h"
#include "core/rng.h"
#include "ranker/evaluation/linear.h"
#include "ranker/evaluation/signals.h"

static const struct {
    const char *name, *what;
} baselines[] = {
#define MR_BASELINE_ROW(id, text, about) {text, about},
    MR_BASELINE_MAP(MR_BASELINE_ROW)
#undef MR_BASELINE_ROW
};

const char *mr_baseline_name(mr_baseline baseline)
{
    return (unsigned)baseline < MR_BASELINE_COUNT ? baselines[baseline].name : "unknown";
}

const char *mr_baseline_what(mr_baseline baseline)
{
    return (unsigned)baseline < MR_BASELINE_COUNT ? baselines[baseline].what : "unknown";
}

/* Seeded by the candidates too: the same draw for all requests of equal length would be luck that
 * repeats. */
static void draw(uint64_t seed, const mr_baseline_request *request, double *scores)
{
    const uint64_t about =
        request->n ? mr_hash_xxh3(request->candidates, request->n * sizeof *request->candidates)
                   : 0;
    mr_rng rng = mr_rng_seed(seed ^ about);
    for (size_t i = 0; i < request->n; i++)
        scores[i] = mr_rng_uniform(&rng);
}

/* values += weight * standardised(add); add is used up. */
static void add_standardised(double *values, double *add, size_t n, double weight)
{
    mr_signals_standardise(add, n);
    for (size_t i = 0; i < n; i++)
        values[i] += weight * add[i];
}

/* part[n] is scratch. */
static void add_up(mr_signals *signals, mr_baseline baseline, double *part, double *scores)
{
    const size_t n = signals->request->n;
    for (size_t i = 0; i < n; i++)
        scores[i] = 0;
    mr_signals_tfidf(signals, part, NULL, NULL);
    add_standardised(scores, part, n, 1);
    if (baseline == MR_BASELINE_SUM) {
        mr_signals_bm25(signals, part);
        add_standardised(scores, part, n, 1);
        return;
    }
    mr_signals_lsa(signals, part, NULL, NULL);
    add_standardised(scores, part, n, 1);
    mr_signals_cooccurrence(signals, part);
    add_standardised(scores, part, n, 1);
    mr_signals_section(signals, part);
    add_standardised(scores, part, n, 0.5);
}

static mr_status score_linear(const mr_baseline_context *context,
                              const mr_baseline_request *request, double *scores, mr_error *err)
{
    size_t n_values;
    if (!context->linear)
        return MR_FAIL(err, INVALID, "the baseline 'linear' without a fitted ranker, expected one");
    double *features = NULL;
    if (mr_size_mul(request->n, MR_BASELINE_FEATURES, &n_values))
        features = calloc(n_values + 1, sizeof *features);
    if (!features)
        return MR_FAIL(err, NO_MEMORY, "features of %zu candidates", request->n);
    const mr_status status = mr_baseline_features(context, request, features, err);
    for (size_t i = 0; status == MR_OK && i < request->n; i++)
        scores[i] = mr_linear_ranker_score(context->linear, features + i * MR_BASELINE_FEATURES);
    free(features);
    return status;
}

mr_status mr_baseline_score(mr_baseline baseline, const mr_baseline_context *context,
                            const mr_baseline_request *request, double *scores, mr_error *err)
{
    if ((unsigned)baseline >= MR_BASELINE_COUNT)
        return MR_FAIL(err, INVALID, "baseline number %d, expected below %d", (int)baseline,
                       (int)MR_BASELINE_COUNT);
    if (baseline == MR_BASELINE_LINEAR)
        return score_linear(context, request, scores, err);
    if (baseline == MR_BASELINE_RANDOM) {
        draw(context->seed, request, scores);
        return MR_OK;
    }

    mr_signals signals;
    double *part = NULL;
    mr_status status = mr_signals_new(&signals, context, request, err);
    if (status != MR_OK)
        return status;
    switch (baseline) {
    case MR_BASELINE_BM25: mr_signals_bm25(&signals, scores); break;
    case MR_BASELINE_BM25_HISTORY: mr_signals_bm25_history(&signals, scores); break;
    case MR_BASELINE_TFIDF: mr_signals_tfidf(&signals, scores, NULL, NULL); break;
    case MR_BASELINE_LSA: mr_signals_lsa(&signals, scores, NULL, NULL); break;
    case MR_BASELINE_COOCCURRENCE: mr_signals_cooccurrence(&signals, scores); break;
    default:
        part = calloc(request->n + 1, sizeof *part);
        if (part)
            add_up(&signals, baseline, part, scores);
        else
            status = MR_FAIL(err, NO_MEMORY, "signals of %zu candidates", request->n);
    }
    free(part);
    mr_signals_done(&signals);
    return status;
}

/* --- features -------------------------------------------------------------------------------- */

enum { BM25, LSA_NEAREST3, LSA_MEAN, TFIDF_NEAREST, TFIDF_NEAREST3, COOCCURRENCE, SECTION };

/* signal[MR_BASELINE_SIGNALS][n] is scratch. */
static void fill_signals(mr_signals *signals, double *signal)
{
    const size_t n = signals->request->n;
    mr_signals_bm25(signals, signal + BM25 * n);
    mr_signals_lsa(signals, signal + LSA_NEAREST3 * n, NULL, signal + LSA_MEAN * n);
    mr_signals_tfidf(signals, signal + TFIDF_NEAREST3 * n, signal + TFIDF_NEAREST * n, NULL);
    mr_signals_cooccurrence(signals, signal + COOCCURRENCE * n);
    mr_signals_section(signals, signal + SECTION * n);
}

mr_status mr_baseline_features(const mr_baseline_context *context,
                               const mr_baseline_request *request, double *features, mr_error *err)
{
    const size_t n = request->n;
    size_t n_values;
    mr_signals signals;
    mr_status status = mr_signals_new(&signals, context, request, err);
    if (status != MR_OK)
        return status;
    double *signal = NULL;
    if (mr_size_mul(n, MR_BASELINE_SIGNALS, &n_values))
        signal = calloc(n_values + 1, sizeof *signal);
    if (!signal) {
        status = MR_FAIL(err, NO_MEMORY, "signals of %zu candidates", n);
        goto out;
    }
    fill_signals(&signals, signal);
    for (size_t s = 0; s < MR_BASELINE_SIGNALS; s++)
        mr_signals_standardise(signal + s * n, n);
    for (size_t i = 0; i < n; i++) {
        double *row = features + i * MR_BASELINE_FEATURES;
        for (size_t s = 0; s < MR_BASELINE_SIGNALS; s++)
            row[s] = signal[s * n + i];
        for (size_t k = 0; k < MR_BASELINE_FEATURES - MR_BASELINE_SIGNALS; k++)
            row[MR_BASELINE_SIGNALS + k] = row[BM25] * row[TFIDF_NEAREST + k];
    }

out:
    free(signal);
    mr_signals_done(&signals);
    return status;
}
