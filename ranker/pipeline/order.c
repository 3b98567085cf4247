/* order.c - see order.h.
 *
 * Sorting is a merge sort of our own because the order must be stable and the comparison needs its
 * context: qsort is neither, and qsort_r is not portable.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/pipeline/order.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const mr_order_input *input;
    double blend;
    bool by_prior;
} key_of;

/* Higher is better. A candidate without a prior is behind every one that has one. */
static bool before(const key_of *key, size_t a, size_t b)
{
    const mr_order_input *x = &key->input[a], *y = &key->input[b];
    if (key->by_prior) {
        if (x->has_prior != y->has_prior)
            return x->has_prior;
        return x->has_prior && x->prior > y->prior;
    }
    const double u = x->margin + (x->has_prior ? key->blend * x->prior : 0.0);
    const double v = y->margin + (y->has_prior ? key->blend * y->prior : 0.0);
    return u > v;
}

/* Stable: `right` goes first only when it is strictly better. */
static void merge_sort(const key_of *key, size_t *order, size_t n, size_t *scratch)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t start = 0; start < n; start += 2 * width) {
            size_t middle = start + width < n ? start + width : n;
            size_t end = start + 2 * width < n ? start + 2 * width : n;
            size_t left = start, right = middle;
            for (size_t k = start; k < end; k++) {
                bool take_right =
                    right < end && (left >= middle || before(key, order[right], order[left]));
                scratch[k] = take_right ? order[right++] : order[left++];
            }
        }
        memcpy(order, scratch, n * sizeof *order);
    }
}

void mr_order_by_prior(const mr_order_input *input, size_t n, size_t *order, size_t *scratch)
{
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    const key_of key = {.input = input, .by_prior = true};
    merge_sort(&key, order, n, scratch);
}

void mr_order_final(const mr_order_input *input, size_t n, double blend, size_t *order,
                    size_t *scratch)
{
    mr_order_by_prior(input, n, order, scratch);
    size_t *scored = scratch, *spare = scratch + n, n_scored = 0;
    for (size_t i = 0; i < n; i++)
        if (!isnan(input[i].margin))
            scored[n_scored++] = i;
    const key_of key = {.input = input, .blend = blend};
    merge_sort(&key, scored, n_scored, spare);
    for (size_t place = 0, next = 0; place < n; place++)
        if (!isnan(input[order[place]].margin))
            order[place] = scored[next++];
}
