/* tokenizer_merge.c - the merge loop of BPE: of all neighbours that merge, always those with the
 * lowest rank, and of these the leftmost.
 *
 * Ordinary words have a few symbols, and scanning all ranks for each merge is the fastest there is.
 * Long words (a text without a place to cut, a megabyte of one letter) take a heap of (rank,
 * position), so that n symbols cost n log n.
 *
 * Invariants of the heap version, for the symbols at positions 0..n-1:
 *   1. next and prev link the symbols that are left; a symbol that went into its left neighbour has
 *      rank GONE.
 *   2. rank[i] is the rank of symbol i with the one at next[i], MR_TOK_NO_RANK if they do not
 * merge.
 *   3. Each such pair has an entry rank << 32 | i in the heap. An entry whose rank is not rank[i]
 *      is stale and dropped.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "engine/tokenizer_private.h"

#define SHORT_MAX 96 /* measured: from about 100 on the heap is as fast */
#define WAYS      8  /* children of a heap entry: one cache line */
#define GONE      (MR_TOK_NO_RANK - 1)
#define END       INT32_MAX

static mr_status merge_short(mr_tok_run *run)
{
    const mr_tok_merges *merges = &run->tok->merges;
    int32_t *id = run->word.leaves;
    size_t n = run->word.n_leaves;
    uint32_t rank[SHORT_MAX];
    int32_t becomes[SHORT_MAX];

    for (size_t i = 0; i + 1 < n; i++) {
        const mr_tok_merge *merge = mr_tok_merges_find(merges, mr_tok_pair(id[i], id[i + 1]));
        rank[i] = merge ? merge->rank : MR_TOK_NO_RANK;
        becomes[i] = merge ? merge->id : 0;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) {
            if (rank[i] < rank[best])
                best = i;
        }
        if (rank[best] == MR_TOK_NO_RANK)
            break;
        id[best] = becomes[best];
        n--;
        for (size_t i = best + 1; i < n; i++) {
            id[i] = id[i + 1];
            rank[i - 1] = rank[i];
            becomes[i - 1] = becomes[i];
        }
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const mr_tok_merge *merge = mr_tok_merges_find(merges, mr_tok_pair(id[i], id[i + 1]));
            rank[i] = merge ? merge->rank : MR_TOK_NO_RANK;
            becomes[i] = merge ? merge->id : 0;
        }
    }
    return mr_ids_append(run->ids, id, n, run->err);
}

static void sift_down(uint64_t *heap, size_t n, size_t at)
{
    const uint64_t entry = heap[at];
    for (;;) {
        const size_t first = WAYS * at + 1;
        if (first >= n)
            break;
        size_t child = first;
        const size_t end = n - first < WAYS ? n : first + WAYS;
        for (size_t i = first + 1; i < end; i++)
            child = heap[i] < heap[child] ? i : child;
        if (heap[child] >= entry)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = entry;
}

static mr_status heap_push(mr_tok_run *run, size_t *n, uint64_t entry)
{
    mr_tok_word *word = &run->word;
    if (*n == word->heap_capacity) {
        size_t capacity = word->heap_capacity + word->heap_capacity / 2 + 64;
        uint64_t *grown = realloc(word->heap, capacity * sizeof *grown);
        if (!grown)
            return MR_TOK_NO_MEMORY(run->tok, run->err, capacity * sizeof *grown);
        word->heap = grown;
        word->heap_capacity = capacity;
    }
    uint64_t *heap = word->heap;
    size_t at = (*n)++;
    while (at > 0 && heap[(at - 1) / WAYS] > entry) {
        heap[at] = heap[(at - 1) / WAYS];
        at = (at - 1) / WAYS;
    }
    heap[at] = entry;
    return MR_OK;
}

/* Room for next, prev and rank of n symbols. */
static mr_status reserve_links(mr_tok_run *run, size_t n)
{
    mr_tok_word *word = &run->word;
    if (word->links_capacity >= 3 * n)
        return MR_OK;
    int32_t *grown = realloc(word->links, 3 * n * sizeof *grown);
    if (!grown)
        return MR_TOK_NO_MEMORY(run->tok, run->err, 3 * n * sizeof *grown);
    word->links = grown;
    word->links_capacity = 3 * n;
    return MR_OK;
}

static mr_status merge_long(mr_tok_run *run)
{
    const mr_tok_merges *merges = &run->tok->merges;
    const size_t n = run->word.n_leaves;
    int32_t *id = run->word.leaves;
    mr_status status = reserve_links(run, n);
    if (status != MR_OK)
        return status;
    int32_t *next = run->word.links;
    int32_t *prev = next + n;
    uint32_t *rank = (uint32_t *)(prev + n);

    size_t n_heap = 0;
    for (size_t i = 0; i < n; i++) {
        const mr_tok_merge *merge =
            i + 1 < n ? mr_tok_merges_find(merges, mr_tok_pair(id[i], id[i + 1])) : NULL;
        next[i] = i + 1 < n ? (int32_t)i + 1 : END;
        prev[i] = (int32_t)i - 1;
        rank[i] = merge ? merge->rank : MR_TOK_NO_RANK;
        /* Pushed in any order: sorted into a heap below. */
        if (merge && n_heap == run->word.heap_capacity) {
            status = heap_push(run, &n_heap, (uint64_t)merge->rank << 32 | i);
            if (status != MR_OK)
                return status;
        } else if (merge) {
            run->word.heap[n_heap++] = (uint64_t)merge->rank << 32 | i;
        }
    }
    for (size_t i = n_heap > 1 ? (n_heap - 2) / WAYS + 1 : 0; i-- > 0;)
        sift_down(run->word.heap, n_heap, i);

    while (n_heap > 0) {
        const uint64_t top = run->word.heap[0];
        const int32_t at = (int32_t)(top & UINT32_MAX);
        run->word.heap[0] = run->word.heap[--n_heap];
        if (n_heap)
            sift_down(run->word.heap, n_heap, 0);
        if (rank[at] != top >> 32)
            continue;

        const int32_t gone = next[at];
        id[at] = mr_tok_merges_find(merges, mr_tok_pair(id[at], id[gone]))->id;
        rank[gone] = GONE;
        next[at] = next[gone];
        if (next[at] != END)
            prev[next[at]] = at;
        for (int32_t left = prev[at] >= 0 ? prev[at] : at;; left = at) {
            const mr_tok_merge *merge =
                next[left] == END
                    ? NULL
                    : mr_tok_merges_find(merges, mr_tok_pair(id[left], id[next[left]]));
            rank[left] = merge ? merge->rank : MR_TOK_NO_RANK;
            if (merge)
                status = heap_push(run, &n_heap, (uint64_t)merge->rank << 32 | (uint32_t)left);
            if (status != MR_OK)
                return status;
            if (left == at)
                break;
        }
    }
    size_t kept = 0;
    for (int32_t i = 0; i != END; i = next[i])
        id[kept++] = id[i];
    return mr_ids_append(run->ids, id, kept, run->err);
}

mr_status mr_tok_merge_word(mr_tok_run *run)
{
    return run->word.n_leaves <= SHORT_MAX ? merge_short(run) : merge_long(run);
}
