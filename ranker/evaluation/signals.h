/* signals.h - the raw signals of one request, before they are standardised or added up.
 *
 *     mr_signals signals;
 *     status = mr_signals_new(&signals, context, request, &err);
 *     mr_signals_bm25(&signals, scores);
 *     mr_signals_done(&signals);
 *
 * Each function fills scores[request->n]; a request without a query or a history gives zeros.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_SIGNALS_H
#define MR_RANKER_EVALUATION_SIGNALS_H

#include "ranker/evaluation/baseline.h"

#define MR_SIGNALS_HISTORY_WORDS 40
#define MR_SIGNALS_NEAREST       3

typedef struct {
    const mr_text_index *text;
    const mr_baskets *baskets;
    const mr_baseline_request *request;
    double *of_word;    /* [words]: zero outside a call */
    uint32_t *words;    /* [words] */
    double *overlap;    /* [baskets]: zero outside a call */
    double *similarity; /* [n][n_history] */
} mr_signals;

/* Checks that every item of the request is one of the catalogue. */
mr_status mr_signals_new(mr_signals *out, const mr_baseline_context *context,
                         const mr_baseline_request *request, mr_error *err);
void mr_signals_done(mr_signals *signals); /* idempotent; zero-initialised is fine */

void mr_signals_bm25(mr_signals *signals, double *scores);
void mr_signals_bm25_history(mr_signals *signals, double *scores);
/* Cosines with the items of the history: the mean of the 3 nearest, the nearest, the mean of all.
 * Those that are not asked for may be NULL. */
void mr_signals_tfidf(mr_signals *signals, double *nearest3, double *nearest, double *mean);
void mr_signals_lsa(mr_signals *signals, double *nearest3, double *nearest, double *mean);
void mr_signals_cooccurrence(mr_signals *signals, double *scores);
/* Share of the history that is in the candidate's section. */
void mr_signals_section(const mr_signals *signals, double *scores);

/* To mean 0 and deviation 1; equal values become 0. */
void mr_signals_standardise(double *values, size_t n);

#endif
