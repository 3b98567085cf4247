/* text_index.c - see text_index.h: reading the texts, and the two matrices.
 *
 * One pass numbers the words of every item and leaves a long list of word numbers; each item's part
 * of it is then sorted and counted in place. TF-IDF is that of scikit-learn's TfidfVectorizer with
 * sublinear_tf (1 + ln count, idf ln((1 + N)/(1 + n)) + 1, rows of length 1), which the study used.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/evaluation/text_index.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "core/words.h"

#define DEFAULT_K1        1.2
#define DEFAULT_B         0.75
#define DEFAULT_MIN_ITEMS 3
#define DEFAULT_MAX_SHARE 0.2
#define DEFAULT_LSA_DIM   128
#define MAX_LSA_DIM       1024
#define MAX_WORDS         ((size_t)INT32_MAX)

size_t mr_text_index_items(const mr_text_index *index)
{
    return index->n_items;
}

void mr_text_index_free(mr_text_index *index)
{
    if (!index)
        return;
    free(index->word_data);
    free(index->word_first);
    free(index->slot);
    free(index->first);
    free(index->term);
    free(index->count);
    free(index->item_len);
    free(index->item_count);
    free(index->tf_first);
    free(index->column);
    free(index->weight);
    free(index->lsa);
    free(index->section);
    free(index);
}

/* The slot that the word is in, or the free one that it belongs in. */
static size_t slot_of(const mr_text_index *index, const char *word, size_t len)
{
    const size_t mask = index->n_slots - 1;
    size_t at = (size_t)mr_hash_xxh3(word, len) & mask;
    for (;; at = (at + 1) & mask) {
        const uint32_t term = index->slot[at];
        if (term == MR_TEXT_NO_TERM ||
            strcmp(index->word_data + index->word_first[term], word) == 0)
            return at;
    }
}

uint32_t mr_text_index_find(const mr_text_index *index, const char *word, size_t len)
{
    return index->n_slots ? index->slot[slot_of(index, word, len)] : MR_TEXT_NO_TERM;
}

double mr_text_index_idf(const mr_text_index *index, uint32_t term)
{
    const double n = (double)index->n_items, with = (double)index->item_count[term];
    return log(1 + (n - with + 0.5) / (with + 0.5));
}

static bool grow(void **data, size_t *capacity, size_t wanted, size_t size)
{
    if (wanted <= *capacity)
        return true;
    size_t bytes, to = *capacity ? *capacity : 1024;
    while (to < wanted)
        to *= 2;
    if (!mr_size_mul(to, size, &bytes))
        return false;
    void *grown = realloc(*data, bytes);
    if (!grown)
        return false;
    *data = grown;
    *capacity = to;
    return true;
}

static bool rehash(mr_text_index *index, size_t n_slots)
{
    uint32_t *slot = malloc(n_slots * sizeof *slot);
    if (!slot)
        return false;
    free(index->slot);
    index->slot = slot;
    index->n_slots = n_slots;
    memset(slot, 0xff, n_slots * sizeof *slot);
    for (size_t t = 0; t < index->n_terms; t++) {
        const char *word = index->word_data + index->word_first[t];
        slot[slot_of(index, word, strlen(word))] = (uint32_t)t;
    }
    return true;
}

static bool number_word(mr_text_index *index, const char *word, size_t len, uint32_t *term)
{
    if (2 * (index->n_terms + 1) > index->n_slots &&
        !rehash(index, index->n_slots ? 2 * index->n_slots : 4096))
        return false;
    const size_t at = slot_of(index, word, len);
    if (index->slot[at] == MR_TEXT_NO_TERM) {
        if (!grow((void **)&index->word_data, &index->word_capacity, index->word_bytes + len + 1,
                  1) ||
            !grow((void **)&index->word_first, &index->term_capacity, index->n_terms + 1,
                  sizeof *index->word_first))
            return false;
        memcpy(index->word_data + index->word_bytes, word, len + 1);
        index->word_first[index->n_terms] = index->word_bytes;
        index->word_bytes += len + 1;
        index->slot[at] = (uint32_t)index->n_terms++;
    }
    *term = index->slot[at];
    return true;
}

static int compare_term(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Appends the words of both texts to index->term. */
static mr_status read_item(mr_text_index *index, const mr_text_item *item, size_t *n_words,
                           size_t *capacity, mr_error *err)
{
    const mr_str texts[] = {item->title, item->text};
    for (size_t k = 0; k < 2; k++) {
        mr_str rest = texts[k];
        char word[MR_WORD_MAX];
        size_t len;
        while (mr_words_next(&rest, word, &len)) {
            if (*n_words == MAX_WORDS)
                return MR_FAIL(err, EXHAUSTED,
                               "the texts have more than %zu words: index fewer items", MAX_WORDS);
            if (!grow((void **)&index->term, capacity, *n_words + 1, sizeof *index->term) ||
                !number_word(index, word, len, &index->term[*n_words]))
                return MR_FAIL(err, NO_MEMORY, "an index of %zu words", *n_words);
            ++*n_words;
        }
    }
    return MR_OK;
}

/* Sorts term[first[i]..] of every item and merges equal ones; counts go to count[]. */
static mr_status count_terms(mr_text_index *index, mr_error *err)
{
    const size_t n_words = index->first[index->n_items];
    index->count = malloc((n_words + 1) * sizeof *index->count);
    index->item_count = calloc(index->n_terms + 1, sizeof *index->item_count);
    if (!index->count || !index->item_count)
        return MR_FAIL(err, NO_MEMORY, "counts of %zu words", n_words);
    size_t out = 0;
    for (size_t i = 0; i < index->n_items; i++) {
        const size_t begin = index->first[i], n = index->item_len[i];
        index->first[i] = out;
        if (n)
            qsort(index->term + begin, n, sizeof *index->term, compare_term);
        for (size_t k = 0; k < n; k++) {
            const uint32_t term = index->term[begin + k];
            if (k > 0 && index->term[out - 1] == term) {
                index->count[out - 1]++;
                continue;
            }
            index->term[out] = term;
            index->count[out++] = 1;
            index->item_count[term]++;
        }
    }
    index->first[index->n_items] = out;
    return MR_OK;
}

static mr_status read_items(mr_text_index *index, const mr_text_item *items, mr_error *err)
{
    size_t n_words = 0, capacity = 0;
    for (size_t i = 0; i < index->n_items; i++) {
        index->first[i] = n_words;
        index->section[i] = items[i].section;
        const mr_status status = read_item(index, &items[i], &n_words, &capacity, err);
        if (status != MR_OK)
            return status;
        index->item_len[i] = (uint32_t)(n_words - index->first[i]);
    }
    index->first[index->n_items] = n_words;
    index->mean_len = index->n_items ? (double)n_words / (double)index->n_items : 0;
    return count_terms(index, err);
}

static mr_status weigh_terms(mr_text_index *index, size_t min_items, double max_share,
                             mr_error *err)
{
    const size_t n_pairs = index->first[index->n_items];
    mr_status status = MR_OK;
    uint32_t *column_of = malloc((index->n_terms + 1) * sizeof *column_of);
    index->tf_first = malloc((index->n_items + 1) * sizeof *index->tf_first);
    index->column = malloc((n_pairs + 1) * sizeof *index->column);
    index->weight = malloc((n_pairs + 1) * sizeof *index->weight);
    if (!column_of || !index->tf_first || !index->column || !index->weight) {
        status = MR_FAIL(err, NO_MEMORY, "weights of %zu words in items", n_pairs);
        goto out;
    }
    for (size_t t = 0; t < index->n_terms; t++) {
        const size_t n = index->item_count[t];
        const bool kept = n >= min_items && (double)n <= max_share * (double)index->n_items;
        column_of[t] = kept ? (uint32_t)index->n_columns++ : MR_TEXT_NO_TERM;
    }
    size_t at = 0;
    for (size_t i = 0; i < index->n_items; i++) {
        double square = 0;
        index->tf_first[i] = at;
        for (size_t k = index->first[i]; k < index->first[i + 1]; k++) {
            const uint32_t term = index->term[k];
            if (column_of[term] == MR_TEXT_NO_TERM)
                continue;
            const double idf =
                log((1 + (double)index->n_items) / (1 + (double)index->item_count[term])) + 1;
            const double weight = (1 + log((double)index->count[k])) * idf;
            index->column[at] = column_of[term];
            index->weight[at++] = weight;
            square += weight * weight;
        }
        for (size_t k = index->tf_first[i]; k < at; k++)
            index->weight[k] /= sqrt(square);
    }
    index->tf_first[index->n_items] = at;

out:
    free(column_of);
    return status;
}

static mr_status check_options(mr_text_index_options *o, size_t n, mr_error *err)
{
    if (n > MR_BASELINE_MAX_ITEMS)
        return MR_FAIL(err, EXHAUSTED, "a text index of %zu items, expected at most %zu", n,
                       MR_BASELINE_MAX_ITEMS);
    if (o->k1 == 0)
        o->k1 = DEFAULT_K1;
    if (o->b == 0)
        o->b = DEFAULT_B;
    if (o->min_items == 0)
        o->min_items = DEFAULT_MIN_ITEMS;
    if (o->max_share == 0)
        o->max_share = DEFAULT_MAX_SHARE;
    if (o->lsa_dim == 0)
        o->lsa_dim = DEFAULT_LSA_DIM;
    if (!(o->k1 > 0 && o->k1 <= 1000))
        return MR_FAIL(err, INVALID, "k1 of BM25 is %g, expected above 0 and at most 1000", o->k1);
    if (!(o->b > 0 && o->b <= 1))
        return MR_FAIL(err, INVALID, "b of BM25 is %g, expected above 0 and at most 1", o->b);
    if (!(o->max_share > 0 && o->max_share <= 1))
        return MR_FAIL(err, INVALID,
                       "words of up to a share of %g of the items, expected above 0 and at most 1",
                       o->max_share);
    if (o->lsa_dim > MAX_LSA_DIM)
        return MR_FAIL(err, INVALID, "%zu latent dimensions, expected at most %d", o->lsa_dim,
                       MAX_LSA_DIM);
    return MR_OK;
}

mr_status mr_text_index_new(mr_text_index **out, const mr_text_item *items, size_t n,
                            const mr_text_index_options *options, mr_error *err)
{
    mr_text_index_options o = options ? *options : (mr_text_index_options){0};
    mr_status status = check_options(&o, n, err);
    if (status != MR_OK)
        return status;
    mr_text_index *index = calloc(1, sizeof *index);
    if (!index)
        return MR_FAIL(err, NO_MEMORY, "a text index");
    index->n_items = n;
    index->k1 = o.k1;
    index->b = o.b;
    index->first = malloc((n + 1) * sizeof *index->first);
    index->item_len = malloc((n + 1) * sizeof *index->item_len);
    index->section = malloc((n + 1) * sizeof *index->section);
    if (!index->first || !index->item_len || !index->section) {
        status = MR_FAIL(err, NO_MEMORY, "a text index of %zu items", n);
        goto out;
    }
    status = read_items(index, items, err);
    if (status == MR_OK)
        status = weigh_terms(index, o.min_items, o.max_share, err);
    if (status == MR_OK)
        status = mr_text_index_build_lsa(index, o.lsa_dim, o.lsa_seed, err);

out:
    if (status == MR_OK)
        *out = index;
    else
        mr_text_index_free(index);
    return status;
}
