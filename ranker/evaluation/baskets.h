/* baskets.h - co-occurrence of one request's candidates with its history; see baseline.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_BASKETS_H
#define MR_RANKER_EVALUATION_BASKETS_H

#include "ranker/evaluation/baseline.h"

size_t mr_baskets_count(const mr_baskets *baskets); /* 0 for NULL */
size_t mr_baskets_items(const mr_baskets *baskets);

/* scores[n]: the sum, over baskets that hold the candidate, of the basket's weight times the
 * history's other items in it. overlap has room for mr_baskets_count values and is zero before and
 * after. Items must be in range. */
void mr_baskets_score(const mr_baskets *baskets, const mr_baseline_request *request,
                      double *overlap, double *scores);

#endif
