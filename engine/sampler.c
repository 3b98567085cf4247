/* sampler.c - see sampler.h.
 *
 * Probabilities are doubles, exp((logit - largest) / temperature) summed in the order of ids. The
 * nucleus is taken from a heap, most likely first: a peaked distribution costs one pass over the
 * vocabulary and a few steps, a flat one a sort, and none of it allocates.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

typedef struct {
    double p;
    int32_t id;
} pair;

mr_status mr_sampler_init(mr_sampler *out, size_t V, double temperature, double top_p,
                          uint64_t seed, mr_error *err)
{
    *out = (mr_sampler){0};
    if (V == 0 || V > INT32_MAX)
        return MR_FAIL(err, INVALID, "a sampler over %zu tokens", V);
    if (!(temperature >= 0) || !isfinite(temperature))
        return MR_FAIL(err, INVALID, "temperature is %g, expected 0 (greedy) or more", temperature);
    if (!(top_p > 0 && top_p <= 1))
        return MR_FAIL(err, INVALID, "top_p is %g, expected more than 0 and at most 1", top_p);
    pair *scratch = calloc(V, sizeof *scratch);
    if (!scratch)
        return MR_FAIL(err, NO_MEMORY, "a sampler over %zu tokens", V);
    *out = (mr_sampler){temperature, top_p, mr_rng_seed(seed), scratch, V};
    return MR_OK;
}

void mr_sampler_done(mr_sampler *sampler)
{
    free(sampler->scratch);
    sampler->scratch = NULL;
}

static int32_t greedy(const float *logits, size_t V)
{
    size_t best = V;
    for (size_t i = 0; i < V; i++) {
        if (!isnan(logits[i]) && (best == V || logits[i] > logits[best]))
            best = i;
    }
    return best == V ? 0 : (int32_t)best;
}

/* More likely, or as likely with the smaller id: a total order, so that ties are not left to the
 * heap. */
static bool before(pair a, pair b)
{
    return a.p > b.p || (a.p == b.p && a.id < b.id);
}

static void sink(pair *heap, size_t n, size_t at)
{
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(heap[child + 1], heap[child]))
            child++;
        if (!before(heap[child], heap[at]))
            return;
        const pair up = heap[child];
        heap[child] = heap[at];
        heap[at] = up;
    }
}

/* Moves the most likely pairs behind the heap, until they have the share. Returns how many; the
 * most likely one is last. *mass: what they have. */
static size_t take_nucleus(pair *pairs, size_t n, double wanted, double *mass)
{
    for (size_t i = n / 2; i-- > 0;)
        sink(pairs, n, i);
    size_t left = n;
    *mass = 0;
    while (left > 0 && (left == n || *mass < wanted)) {
        const pair best = pairs[0];
        *mass += best.p;
        pairs[0] = pairs[--left];
        sink(pairs, left, 0);
        pairs[left] = best;
    }
    return n - left;
}

int32_t mr_sampler_next(mr_sampler *sampler, const float *logits)
{
    const size_t V = sampler->V;
    const int32_t best = greedy(logits, V);
    const double largest = (double)logits[best];
    if (sampler->temperature == 0 || !isfinite(largest))
        return best;

    pair *pairs = sampler->scratch;
    size_t n = 0;
    double total = 0;
    for (size_t i = 0; i < V; i++) {
        const double p = exp(((double)logits[i] - largest) / sampler->temperature);
        if (!(p > 0)) /* a NaN, or too far off to count */
            continue;
        pairs[n++] = (pair){p, (int32_t)i};
        total += p;
    }

    double mass = total;
    size_t first = 0;
    if (sampler->top_p < 1)
        first = n - take_nucleus(pairs, n, sampler->top_p * total, &mass);
    double draw = mr_rng_uniform(&sampler->rng) * mass;
    for (size_t i = n; i-- > first;) {
        draw -= pairs[i].p;
        if (draw < 0)
            return pairs[i].id;
    }
    return pairs[first].id; /* rounding left a crumb */
}
