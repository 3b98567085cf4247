/* metrics.h - how good one ranked list is, by graded labels.
 *
 *     mr_judgements judged = {0};
 *     mr_judgements_add(&judged, 3);  mr_judgements_add(&judged, 1);      all labels of the query
 *     int grades[] = {0, 3, 0, 1};                                         of the list, best first
 *     mr_metric_ndcg(grades, 4, &judged, 10, MR_GAIN_EXPONENTIAL);
 *
 * As trec_eval 9 computes them, where it has the measure, so that its printed digits are ours:
 *
 *   ndcg, ndcg_cut_k  gain / log2(place + 1), summed over the first k, over the same sum of the
 *                     ideal list of ALL labels of the query, those that were not retrieved too
 *                     (Jarvelin and Kekalainen 2002). trec_eval's gain is the grade itself
 *                     (MR_GAIN_LINEAR); 2^grade - 1 (Burges et al. 2005) is the other custom
 *   recip_rank        1 / place of the first relevant one, 0 without any
 *   map               mean over ALL relevant labels of the precision at their places
 *   P_k               relevant ones among the first k, over k, also when the list is shorter
 *   recall_k          relevant ones among the first k, over all relevant labels
 *   success_k         1 when a relevant one is among the first k
 *
 * Relevant means: a grade of at least `level` (trec_eval -l, there 1 by default). A document that
 * nobody judged has grade 0; grades below 0 gain nothing. A query without any relevant label has 0
 * in all of them. Ties are the caller's: a list comes in as it is to be counted (evaluation.h says
 * how we break them; trec_eval takes the greater id first, whatever the run's ranks say).
 * Threads: pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_METRICS_H
#define MR_RANKER_EVALUATION_METRICS_H

#include <stddef.h>

#include "ranker/model/tasks.h"

typedef enum { MR_GAIN_LINEAR, MR_GAIN_EXPONENTIAL } mr_gain;

/* The labels of one query, counted by grade. Zero-initialised is empty. */
typedef struct {
    size_t count[MR_GRADE_MAX + 1]; /* [0] is not looked at */
} mr_judgements;

/* Grades of 0 and below count as not relevant; those above MR_GRADE_MAX as MR_GRADE_MAX. */
void mr_judgements_add(mr_judgements *judged, int grade);
size_t mr_judgements_relevant(const mr_judgements *judged, int level);
int mr_judgements_highest(const mr_judgements *judged); /* 0: nothing is relevant */

/* grades[n], best first. k of 0: the whole list. level is at least 1. */
double mr_metric_ndcg(const int *grades, size_t n, const mr_judgements *judged, size_t k,
                      mr_gain gain);
double mr_metric_reciprocal_rank(const int *grades, size_t n, int level);
double mr_metric_average_precision(const int *grades, size_t n, const mr_judgements *judged,
                                   int level);
double mr_metric_precision(const int *grades, size_t n, size_t k, int level);
double mr_metric_recall(const int *grades, size_t n, const mr_judgements *judged, size_t k,
                        int level);
double mr_metric_success(const int *grades, size_t n, size_t k, int level);

#endif
