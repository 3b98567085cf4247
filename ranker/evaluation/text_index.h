/* text_index.h - inside of mr_text_index, shared by the files that build it and score with it.
 *
 * Two matrices of items by words, both in rows of ascending word numbers: counts of all words, for
 * BM25; and TF-IDF weights of the words that are neither rare nor common, rows of length 1. A word
 * has a number in each: `term` by first appearance, `column` among the TF-IDF words.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_TEXT_INDEX_H
#define MR_RANKER_EVALUATION_TEXT_INDEX_H

#include "ranker/evaluation/baseline.h"

#define MR_TEXT_NO_TERM UINT32_MAX

struct mr_text_index {
    size_t n_items, n_terms, n_columns;
    double k1, b;
    double mean_len; /* words per item */

    /* Words: term t is word_data[word_first[t]..], terminated. */
    char *word_data;
    size_t word_bytes, word_capacity;
    size_t *word_first;
    size_t term_capacity;
    uint32_t *slot; /* open addressing: a term or MR_TEXT_NO_TERM */
    size_t n_slots; /* a power of two, or 0 */

    /* Counts: item i has term[first[i]..first[i + 1]), count[] times each. */
    size_t *first;
    uint32_t *term;
    uint32_t *count;
    uint32_t *item_len;   /* [n_items] words */
    uint32_t *item_count; /* [n_terms] items that have the term */

    /* TF-IDF: item i has column[tf_first[i]..tf_first[i + 1]) with weight[]. */
    size_t *tf_first;
    uint32_t *column;
    double *weight;

    size_t lsa_dim;
    double *lsa; /* [n_items][lsa_dim], rows of length 1, or 0 where an item has no direction */

    uint32_t *section; /* [n_items] */
};

/* MR_TEXT_NO_TERM for a word that no item has. */
uint32_t mr_text_index_find(const mr_text_index *index, const char *word, size_t len);

/* ln(1 + (N - n + 0.5) / (n + 0.5)) of a term in n of N items (Robertson and Zaragoza 2009, as
 * Lucene has it: never negative). */
double mr_text_index_idf(const mr_text_index *index, uint32_t term);

/* Fills lsa of an index whose TF-IDF matrix stands; lsa.c. */
mr_status mr_text_index_build_lsa(mr_text_index *index, size_t dim, uint64_t seed, mr_error *err);

#endif
