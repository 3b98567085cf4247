/* bpe_merge.c - from counted words to merges, in the order of the tokenizers library.
 *
 * A queue holds the pairs, most frequent first, each with the words in which it came up, so that a
 * merge visits those alone. Counts in the queue may be too high: merging a neighbour takes from
 * them. An entry that comes out with another count than its pair now has goes back with that one.
 *
 * Why a pair needs only one entry: a text becomes a token by one merge only. Wherever it stands
 * unbroken, all merges before have cut its inside alike (a run of one token is paired from the
 * left, and a pair across its edge would break it), so the merge that makes it in one place makes
 * it in all. Hence a pair comes up in one step, that of the later of its halves, and nowhere after
 * it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "ranker/training/bpe_private.h"

typedef struct {
    uint64_t pair; /* left << 32 | right: also the order of pairs with one count */
    int64_t count;
    size_t first; /* of its words in `places` */
    uint32_t n;
    uint32_t number; /* of the pair */
} entry;

/* A pair that came up in a word. */
typedef struct {
    uint64_t pair;
    uint32_t number, word;
} addition;

typedef struct {
    mr_bpe *bpe;
    const mr_bpe_strings *words;
    const uint64_t *counts; /* of words */
    uint32_t *symbols;      /* tokens of all words; word w begins where its bytes do */
    uint32_t *lengths;      /* of words, in symbols */

    mr_bpe_strings pairs; /* 8 bytes each */
    int64_t *pair_counts; /* by number of the pair */
    size_t counts_capacity;

    addition *additions; /* of the merge at hand */
    size_t n_additions, additions_capacity;
    uint32_t *places; /* words of entries */
    size_t n_places, places_capacity;
    entry *heap;
    size_t n_heap, heap_capacity;
    size_t merges_capacity;
    mr_error *err;
} trainer;

/* mr_bpe_reserve for an array of any type. */
#define RESERVE(t, array, capacity, n)                                              \
    do {                                                                            \
        void *reserved = (array);                                                   \
        mr_status reserve_status =                                                  \
            mr_bpe_reserve(&reserved, &(capacity), (n), sizeof *(array), (t)->err); \
        if (reserve_status != MR_OK)                                                \
            return reserve_status;                                                  \
        (array) = reserved;                                                         \
    } while (0)

/* ---- The queue: a binary heap ---- */

static bool before(const entry *a, const entry *b)
{
    if (a->count != b->count)
        return a->count > b->count;
    return a->pair < b->pair;
}

static mr_status push(trainer *t, entry value)
{
    RESERVE(t, t->heap, t->heap_capacity, t->n_heap + 1);
    size_t at = t->n_heap++;
    while (at > 0 && before(&value, &t->heap[(at - 1) / 2])) {
        t->heap[at] = t->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    t->heap[at] = value;
    return MR_OK;
}

static entry pop(trainer *t)
{
    const entry top = t->heap[0];
    const entry last = t->heap[--t->n_heap];
    size_t at = 0;
    for (size_t child = 1; child < t->n_heap; child = 2 * at + 1) {
        if (child + 1 < t->n_heap && before(&t->heap[child + 1], &t->heap[child]))
            child++;
        if (!before(&t->heap[child], &last))
            break;
        t->heap[at] = t->heap[child];
        at = child;
    }
    t->heap[at] = last;
    return top;
}

/* ---- Counts ---- */

static mr_status count_pair(trainer *t, uint32_t left, uint32_t right, int64_t change,
                            uint32_t word)
{
    const uint64_t pair = (uint64_t)left << 32 | right;
    const uint32_t known = t->pairs.n;
    uint32_t number = 0;
    mr_status status =
        mr_bpe_strings_add(&t->pairs, (mr_str){(const char *)&pair, sizeof pair}, &number, t->err);
    if (status != MR_OK)
        return status;
    if (number == known) {
        RESERVE(t, t->pair_counts, t->counts_capacity, t->pairs.n);
        t->pair_counts[number] = 0;
    }
    t->pair_counts[number] += change;
    if (change > 0) {
        RESERVE(t, t->additions, t->additions_capacity, t->n_additions + 1);
        t->additions[t->n_additions++] = (addition){pair, number, word};
    }
    return MR_OK;
}

static int by_pair_and_word(const void *a, const void *b)
{
    const addition *x = a, *y = b;
    if (x->pair != y->pair)
        return x->pair < y->pair ? -1 : 1;
    return (x->word > y->word) - (x->word < y->word);
}

/* An entry for each pair that came up, with its words, each once. */
static mr_status push_additions(trainer *t)
{
    if (t->n_additions == 0)
        return MR_OK;
    qsort(t->additions, t->n_additions, sizeof *t->additions, by_pair_and_word);
    RESERVE(t, t->places, t->places_capacity, t->n_places + t->n_additions);
    for (size_t i = 0; i < t->n_additions;) {
        const addition *first = &t->additions[i];
        entry made = {.pair = first->pair,
                      .count = t->pair_counts[first->number],
                      .first = t->n_places,
                      .number = first->number};
        for (; i < t->n_additions && t->additions[i].pair == made.pair; i++) {
            const uint32_t word = t->additions[i].word;
            if (t->n_places == made.first || t->places[t->n_places - 1] != word)
                t->places[t->n_places++] = word;
        }
        made.n = (uint32_t)(t->n_places - made.first);
        if (made.count <= 0) {
            t->n_places = made.first;
            continue;
        }
        mr_status status = push(t, made);
        if (status != MR_OK)
            return status;
    }
    t->n_additions = 0;
    return MR_OK;
}

/* ---- Merging ---- */

static uint32_t *symbols_of(const trainer *t, uint32_t word)
{
    return t->symbols + (word ? t->words->ends[word - 1] : 0);
}

/* Every word as the tokens of its bytes, and the pairs of them. */
static mr_status spell_words(trainer *t)
{
    t->symbols = malloc(t->words->n_bytes * sizeof *t->symbols);
    t->lengths = malloc(t->words->n * sizeof *t->lengths);
    if (!t->symbols || !t->lengths)
        return MR_FAIL(t->err, NO_MEMORY, "BPE training: %zu bytes of words", t->words->n_bytes);
    for (uint32_t w = 0; w < t->words->n; w++) {
        const mr_str word = mr_bpe_strings_at(t->words, w);
        uint32_t *symbols = symbols_of(t, w);
        t->lengths[w] = (uint32_t)word.len;
        for (size_t i = 0; i < word.len; i++) {
            symbols[i] = t->bpe->byte_token[(unsigned char)word.data[i]];
            mr_status status =
                i ? count_pair(t, symbols[i - 1], symbols[i], (int64_t)t->counts[w], w) : MR_OK;
            if (status != MR_OK)
                return status;
        }
    }
    return push_additions(t);
}

/* Merges a pair in one word, from the left, and counts what that does to the pairs beside it. A
 * neighbour on the left is already merged, one on the right not yet. */
static mr_status merge_word(trainer *t, uint32_t word, mr_bpe_pair pair, uint32_t made)
{
    uint32_t *symbols = symbols_of(t, word);
    const uint32_t n = t->lengths[word];
    const int64_t count = (int64_t)t->counts[word];
    mr_status status = MR_OK;
    uint32_t out = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (i + 1 == n || symbols[i] != pair.left || symbols[i + 1] != pair.right) {
            symbols[out++] = symbols[i];
            continue;
        }
        if (out > 0) {
            status = count_pair(t, symbols[out - 1], pair.left, -count, word);
            if (status == MR_OK)
                status = count_pair(t, symbols[out - 1], made, count, word);
        }
        if (status == MR_OK && i + 2 < n) {
            status = count_pair(t, pair.right, symbols[i + 2], -count, word);
            if (status == MR_OK)
                status = count_pair(t, made, symbols[i + 2], count, word);
        }
        if (status != MR_OK)
            return status;
        symbols[out++] = made;
        i++;
    }
    t->lengths[word] = out;
    return MR_OK;
}

/* *made: the token of the pair's text. */
static mr_status make_token(trainer *t, mr_bpe_pair pair, uint32_t *made)
{
    mr_bpe *bpe = t->bpe;
    char text[4 * MR_BPE_MAX_WORD]; /* a byte is spelled in at most two */
    const mr_str left = mr_bpe_strings_at(&bpe->tokens, pair.left);
    const mr_str right = mr_bpe_strings_at(&bpe->tokens, pair.right);
    memcpy(text, left.data, left.len);
    memcpy(text + left.len, right.data, right.len);
    mr_status status =
        mr_bpe_strings_add(&bpe->tokens, (mr_str){text, left.len + right.len}, made, t->err);
    if (status == MR_OK && *made < bpe->n_special)
        return MR_FAIL(t->err, INVALID,
                       "BPE training: merging makes '%.*s', which is a special token: any text "
                       "could spell it. Choose a special token of letters and signs together, "
                       "like <|end|>",
                       (int)(left.len + right.len), text);
    return status;
}

static mr_status merge_best(trainer *t, const entry *best)
{
    mr_bpe *bpe = t->bpe;
    const mr_bpe_pair pair = {(uint32_t)(best->pair >> 32), (uint32_t)best->pair};
    uint32_t made = 0;
    mr_status status = make_token(t, pair, &made);
    if (status != MR_OK)
        return status;
    RESERVE(t, bpe->merges, t->merges_capacity, bpe->figures.merges + 1);
    bpe->merges[bpe->figures.merges++] = pair;
    for (uint32_t i = 0; i < best->n; i++) {
        status = merge_word(t, t->places[best->first + i], pair, made);
        if (status != MR_OK)
            return status;
    }
    return push_additions(t);
}

static mr_status merge_until(trainer *t, uint32_t vocab_size, int64_t least)
{
    mr_status status = MR_OK;
    while (status == MR_OK && t->bpe->tokens.n < vocab_size && t->n_heap > 0) {
        entry best = pop(t);
        const int64_t count = t->pair_counts[best.number];
        if (best.count != count) {
            best.count = count;
            status = push(t, best);
        } else if (count < least) {
            break;
        } else {
            status = merge_best(t, &best);
        }
    }
    return status;
}

mr_status mr_bpe_merge(mr_bpe *bpe, const mr_bpe_strings *words, const uint64_t *counts,
                       int32_t vocab_size, uint64_t min_frequency, mr_error *err)
{
    trainer t = {.bpe = bpe, .words = words, .counts = counts, .err = err};
    const int64_t least = min_frequency == 0          ? 1
                          : min_frequency > INT64_MAX ? INT64_MAX
                                                      : (int64_t)min_frequency;
    mr_status status = spell_words(&t);
    if (status == MR_OK)
        status = merge_until(&t, (uint32_t)vocab_size, least);
    free(t.symbols);
    free(t.lengths);
    mr_bpe_strings_release(&t.pairs);
    free(t.pair_counts);
    free(t.additions);
    free(t.places);
    free(t.heap);
    return status;
}
