/* baskets.c - see baseline.h.
 *
 * Pairs are never counted ahead of time: a basket of 200 has 20 thousand of them. For each item the
 * baskets that hold it are listed, and a request adds up, basket by basket, how much of its history
 * lies in each.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/evaluation/baskets.h"

#include <math.h>
#include <stdlib.h>

#define MIN_BASKET 2
#define MAX_BASKET 200

struct mr_baskets {
    size_t n, n_items;
    double *weight; /* [n]; 0 for baskets that say nothing */
    size_t *first;  /* item i is in basket[first[i]..first[i + 1]), ascending */
    uint32_t *basket;
};

void mr_baskets_free(mr_baskets *baskets)
{
    if (!baskets)
        return;
    free(baskets->weight);
    free(baskets->first);
    free(baskets->basket);
    free(baskets);
}

size_t mr_baskets_count(const mr_baskets *baskets)
{
    return baskets ? baskets->n : 0;
}

size_t mr_baskets_items(const mr_baskets *baskets)
{
    return baskets->n_items;
}

static mr_status count_items(mr_baskets *out, const mr_basket *basket, const uint8_t *allowed,
                             uint32_t *last, mr_error *err)
{
    for (size_t b = 0; b < out->n; b++) {
        size_t kept = 0;
        for (size_t k = 0; k < basket[b].n; k++) {
            const uint32_t item = basket[b].item[k];
            if (item >= out->n_items)
                return MR_FAIL(err, INVALID, "basket %zu holds item %u, expected below %zu", b,
                               item, out->n_items);
            if ((allowed && !allowed[item]) || last[item] == b + 1)
                continue;
            last[item] = (uint32_t)(b + 1);
            kept++;
        }
        if (kept < MIN_BASKET || kept > MAX_BASKET)
            continue;
        out->weight[b] = 1 / log(2 + (double)kept);
    }
    return MR_OK;
}

/* Calls for each distinct allowed item of each basket that says something, in order: first to count
 * them, then to place them. */
static void list_items(mr_baskets *out, const mr_basket *basket, const uint8_t *allowed,
                       uint32_t *last, size_t *cursor)
{
    for (size_t i = 0; i < out->n_items; i++)
        last[i] = 0;
    for (size_t b = 0; b < out->n; b++) {
        for (size_t k = 0; out->weight[b] > 0 && k < basket[b].n; k++) {
            const uint32_t item = basket[b].item[k];
            if ((allowed && !allowed[item]) || last[item] == b + 1)
                continue;
            last[item] = (uint32_t)(b + 1);
            if (out->basket)
                out->basket[cursor[item]] = (uint32_t)b;
            cursor[item]++;
        }
    }
}

mr_status mr_baskets_new(mr_baskets **out, const mr_basket *basket, size_t n, size_t n_items,
                         const uint8_t *allowed, mr_error *err)
{
    if (n_items > MR_BASELINE_MAX_ITEMS || n >= UINT32_MAX)
        return MR_FAIL(err, EXHAUSTED,
                       "%zu baskets of %zu items, expected at most %zu items and 2^32 baskets", n,
                       n_items, MR_BASELINE_MAX_ITEMS);
    mr_status status = MR_OK;
    mr_baskets *made = calloc(1, sizeof *made);
    uint32_t *last = calloc(n_items + 1, sizeof *last); /* 1 + the basket that held it last */
    size_t *cursor = calloc(n_items + 1, sizeof *cursor);
    if (made) {
        made->n = n;
        made->n_items = n_items;
        made->weight = calloc(n + 1, sizeof *made->weight);
        made->first = calloc(n_items + 2, sizeof *made->first);
    }
    if (!made || !last || !cursor || !made->weight || !made->first) {
        status = MR_FAIL(err, NO_MEMORY, "%zu baskets of %zu items", n, n_items);
        goto out;
    }
    status = count_items(made, basket, allowed, last, err);
    if (status != MR_OK)
        goto out;
    list_items(made, basket, allowed, last, cursor);
    for (size_t i = 0; i < n_items; i++) {
        made->first[i + 1] = made->first[i] + cursor[i];
        cursor[i] = made->first[i];
    }
    made->basket = malloc((made->first[n_items] + 1) * sizeof *made->basket);
    if (!made->basket) {
        status = MR_FAIL(err, NO_MEMORY, "%zu items in baskets", made->first[n_items]);
        goto out;
    }
    list_items(made, basket, allowed, last, cursor);

out:
    free(last);
    free(cursor);
    if (status == MR_OK)
        *out = made;
    else
        mr_baskets_free(made);
    return status;
}

static bool in_history(const mr_baseline_request *request, uint32_t item)
{
    for (size_t h = 0; h < request->n_history; h++)
        if (request->history[h] == item)
            return true;
    return false;
}

void mr_baskets_score(const mr_baskets *baskets, const mr_baseline_request *request,
                      double *overlap, double *scores)
{
    for (size_t h = 0; h < request->n_history; h++) {
        const uint32_t item = request->history[h];
        for (size_t k = baskets->first[item]; k < baskets->first[item + 1]; k++)
            overlap[baskets->basket[k]] += 1;
    }
    for (size_t i = 0; i < request->n; i++) {
        const uint32_t item = request->candidates[i];
        const double itself = in_history(request, item) ? 1 : 0;
        scores[i] = 0;
        for (size_t k = baskets->first[item]; k < baskets->first[item + 1]; k++) {
            const uint32_t b = baskets->basket[k];
            if (b + (size_t)1 != request->leave_out)
                scores[i] += baskets->weight[b] * (overlap[b] - itself);
        }
    }
    for (size_t h = 0; h < request->n_history; h++) {
        const uint32_t item = request->history[h];
        for (size_t k = baskets->first[item]; k < baskets->first[item + 1]; k++)
            overlap[baskets->basket[k]] = 0;
    }
}
