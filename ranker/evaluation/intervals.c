/* intervals.c - see intervals.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/evaluation/intervals.h"

#include <math.h>
#include <stdlib.h>

#include "core/rng.h"

typedef struct {
    uint32_t group;
    size_t row;
} member;

typedef struct {
    double sum;
    size_t rows;
} cluster;

static int by_group(const void *a, const void *b)
{
    const member *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Rows into clusters, in the order of the groups' numbers; returns how many. */
static size_t make_clusters(const double *values, const member *members, size_t n, cluster *out)
{
    size_t n_clusters = 0;
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || members[i].group != members[i - 1].group || members[i].group == MR_GROUP_NONE)
            out[n_clusters++] = (cluster){0};
        out[n_clusters - 1].sum += values[members[i].row];
        out[n_clusters - 1].rows++;
    }
    return n_clusters;
}

/* sorted[n] at a share of 0..1. */
static double percentile(const double *sorted, size_t n, double share)
{
    const double place = share * (double)(n - 1);
    const size_t below = (size_t)place;
    if (below + 1 >= n)
        return sorted[n - 1];
    return sorted[below] + (place - (double)below) * (sorted[below + 1] - sorted[below]);
}

static mr_status check(const double *values, size_t n, const mr_bootstrap_options *opt,
                       mr_error *err)
{
    if (n == 0)
        return MR_FAIL(err, INVALID, "an interval over no rows");
    if (opt->resamples < 1 || opt->resamples > 1000000)
        return MR_FAIL(err, INVALID, "%u resamples, expected 1 to 1000000", opt->resamples);
    if (!(opt->confidence > 0 && opt->confidence < 1))
        return MR_FAIL(err, INVALID, "a confidence of %g, expected above 0 and below 1",
                       opt->confidence);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return MR_FAIL(err, INVALID, "the value of row %zu is %g", i, values[i]);
    return MR_OK;
}

mr_status mr_bootstrap_mean(const double *values, const uint32_t *group, size_t n,
                            const mr_bootstrap_options *options, mr_interval *out, mr_error *err)
{
    const mr_bootstrap_options standard = MR_BOOTSTRAP_OPTIONS_DEFAULT;
    const mr_bootstrap_options opt = options ? *options : standard;
    mr_status status = check(values, n, &opt, err);
    if (status != MR_OK)
        return status;
    member *members = calloc(n, sizeof *members);
    cluster *clusters = calloc(n, sizeof *clusters);
    double *means = calloc(opt.resamples, sizeof *means);
    if (!members || !clusters || !means) {
        status = MR_FAIL(err, NO_MEMORY, "an interval over %zu rows", n);
        goto out;
    }
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        members[i] = (member){group[i], i};
        sum += values[i];
    }
    qsort(members, n, sizeof *members, by_group);
    const size_t n_clusters = make_clusters(values, members, n, clusters);
    mr_rng rng = mr_rng_seed(opt.seed);
    for (uint32_t r = 0; r < opt.resamples; r++) {
        cluster drawn = {0};
        for (size_t i = 0; i < n_clusters; i++) {
            const cluster *one = &clusters[mr_rng_below(&rng, n_clusters)];
            drawn.sum += one->sum;
            drawn.rows += one->rows;
        }
        means[r] = drawn.sum / (double)drawn.rows;
    }
    qsort(means, opt.resamples, sizeof *means, by_value);
    const double outside = (1 - opt.confidence) / 2;
    *out = (mr_interval){.mean = sum / (double)n,
                         .low = percentile(means, opt.resamples, outside),
                         .high = percentile(means, opt.resamples, 1 - outside),
                         .rows = n,
                         .groups = n_clusters};
out:
    free(members);
    free(clusters);
    free(means);
    return status;
}

mr_status mr_bootstrap_difference(const double *a, const double *b, const uint32_t *group, size_t n,
                                  const mr_bootstrap_options *options, mr_interval *out,
                                  mr_error *err)
{
    double *difference = calloc(n ? n : 1, sizeof *difference);
    if (!difference)
        return MR_FAIL(err, NO_MEMORY, "an interval over %zu rows", n);
    for (size_t i = 0; i < n; i++)
        difference[i] = a[i] - b[i];
    mr_status status = mr_bootstrap_mean(difference, group, n, options, out, err);
    free(difference);
    return status;
}
