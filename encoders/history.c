/* history.c - see history.h.
 *
 * One heap sort does the work: in place, without recursion, and O(n log n) whatever the ids, while
 * qsort may allocate and has no context to look ids up by. Ids that share a hash are told apart by
 * their bytes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "encoders/history.h"

#include <stdbool.h>

#include "core/hash.h"

typedef struct {
    uint64_t hash;
    size_t index;
} entry;

typedef struct {
    const mr_str *ids;
    bool last_first; /* among equal ids the later place sorts first */
} id_order;

static int compare_bytes(mr_str a, mr_str b)
{
    size_t common = a.len < b.len ? a.len : b.len;
    int by_bytes = common ? memcmp(a.data, b.data, common) : 0;
    return by_bytes ? by_bytes : (a.len > b.len) - (a.len < b.len);
}

static bool before_by_id(const void *context, const entry *a, const entry *b)
{
    const id_order *order = context;
    if (a->hash != b->hash)
        return a->hash < b->hash;
    int by_bytes = compare_bytes(order->ids[a->index], order->ids[b->index]);
    if (by_bytes)
        return by_bytes < 0;
    return order->last_first ? a->index > b->index : a->index < b->index;
}

static bool before_by_index(const void *context, const entry *a, const entry *b)
{
    (void)context;
    return a->index < b->index;
}

typedef bool (*before_fn)(const void *context, const entry *a, const entry *b);

/* Lets heap[root] sink to its place in heap[0, n), the last one in the order on top. */
static void sink(entry *heap, size_t root, size_t n, before_fn before, const void *context)
{
    const entry moving = heap[root];
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && before(context, &heap[child], &heap[child + 1]))
            child++;
        if (!before(context, &moving, &heap[child]))
            break;
        heap[root] = heap[child];
    }
    heap[root] = moving;
}

static void sort(entry *list, size_t n, before_fn before, const void *context)
{
    for (size_t i = n / 2; i-- > 0;)
        sink(list, i, n, before, context);
    for (size_t end = n; end > 1;) {
        end--;
        const entry largest = list[0];
        list[0] = list[end];
        list[end] = largest;
        sink(list, 0, end, before, context);
    }
}

/* Keeps the first of each run of equal ids; returns how many are left. */
static size_t unique(entry *list, size_t n, const mr_str *ids)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (kept > 0 && list[kept - 1].hash == list[i].hash &&
            mr_str_equal(ids[list[kept - 1].index], ids[list[i].index]))
            continue;
        list[kept++] = list[i];
    }
    return kept;
}

size_t mr_history_scratch_bytes(size_t n)
{
    size_t bytes = SIZE_MAX;
    (void)mr_size_mul(n, sizeof(entry), &bytes); /* untouched on overflow */
    return bytes;
}

size_t mr_history_choose(const mr_str *ids, size_t n, mr_history_order order, size_t most,
                         size_t *chosen, void *scratch)
{
    entry *list = scratch;
    const id_order by_id = {ids, order == MR_HISTORY_SEQUENCE};

    for (size_t i = 0; i < n; i++)
        list[i] = (entry){mr_hash_xxh3(ids[i].data, ids[i].len), i};
    sort(list, n, before_by_id, &by_id);
    size_t kept = unique(list, n, ids);

    size_t count = kept < most ? kept : most;
    size_t first = 0;
    if (order == MR_HISTORY_SEQUENCE) {
        sort(list, kept, before_by_index, NULL);
        first = kept - count;
    }
    for (size_t i = 0; i < count; i++)
        chosen[i] = list[first + i].index;
    return count;
}
