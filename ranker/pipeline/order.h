/* order.h - the order and fallback rule, apart from everything else so that it can be read and
 * tested alone.
 *
 *   1. The prior order: candidates by prior, highest first, ties and missing priors by input index;
 *      one without a prior stands behind those that have one. With no priors: input order.
 *   2. A candidate that was not scored keeps its place in the prior order.
 *   3. The scored ones fill the other places by margin + blend x prior, highest first, ties by
 * input index.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_PIPELINE_ORDER_H
#define MR_RANKER_PIPELINE_ORDER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    double margin; /* NaN: not scored */
    double prior;
    bool has_prior;
} mr_order_input;

/* Both write the indexes best first. scratch: n indexes for the first, 2 * n for the second. */
void mr_order_by_prior(const mr_order_input *input, size_t n, size_t *order, size_t *scratch);
void mr_order_final(const mr_order_input *input, size_t n, double blend, size_t *order,
                    size_t *scratch);

#endif
