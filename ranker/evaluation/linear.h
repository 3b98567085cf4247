/* linear.h - what a fitted linear ranker makes of one candidate; see baseline.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_LINEAR_H
#define MR_RANKER_EVALUATION_LINEAR_H

#include "ranker/evaluation/baseline.h"

/* The expected gain of features[MR_BASELINE_FEATURES]. */
double mr_linear_ranker_score(const mr_linear_ranker *linear, const double *features);

#endif
