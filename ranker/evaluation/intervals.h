/* intervals.h - how far a mean over rows may be trusted: a bootstrap that resamples people.
 *
 * One person asks many rows, and they are alike: to draw rows would make the interval too narrow.
 * So each resample draws as many groups (people) as there are, with replacement, takes all rows of
 * each, and has the mean over those rows (the cluster bootstrap of Davison and Hinkley 1997, 3.8;
 * percentile interval, Efron and Tibshirani 1993, 13.3). A percentile between two resamples is
 * interpolated linearly. The same values, groups, options and seed give the same interval anywhere.
 *
 * Two systems over the same rows are compared by the differences of their rows, with the same
 * draws: a paired interval. One that does not hold 0 is a difference that people chosen otherwise
 * would show too.
 * Threads: pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_INTERVALS_H
#define MR_RANKER_EVALUATION_INTERVALS_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/* A row of nobody: a group of its own. */
#define MR_GROUP_NONE UINT32_MAX

typedef struct {
    uint32_t resamples; /* 1 to 1,000,000 */
    uint64_t seed;
    double confidence; /* above 0, below 1 */
} mr_bootstrap_options;
#define MR_BOOTSTRAP_OPTIONS_DEFAULT                      \
    {                                                     \
        .resamples = 2000, .seed = 1, .confidence = 0.95, \
    }

typedef struct {
    double mean, low, high;
    size_t rows, groups;
} mr_interval;

/* values[n] and the group of each, any numbers. options may be NULL. INVALID: no rows, a value that
 * is not finite (named by its place), options out of range. One group gives low = high = mean. */
MR_NODISCARD mr_status mr_bootstrap_mean(const double *values, const uint32_t *group, size_t n,
                                         const mr_bootstrap_options *options, mr_interval *out,
                                         mr_error *err);
/* Of a[i] - b[i]. */
MR_NODISCARD mr_status mr_bootstrap_difference(const double *a, const double *b,
                                               const uint32_t *group, size_t n,
                                               const mr_bootstrap_options *options,
                                               mr_interval *out, mr_error *err);

#endif
