/* bm25.h - plain lexical search over the items' texts: to find hard negatives for one task, and as
 * the baseline that a reader checks the data by.
 *
 *     demo_bm25 index = {0};
 *     demo_bm25_add(&index, item, summary, &err); demo_bm25_add(&index, item, detail, &err);
 *     demo_bm25_finish(&index, n_items, &err);
 *     demo_terms query = demo_terms_of(&index, words);
 *     demo_bm25_score(&index, &query, candidates, n, scores);
 *
 * Words are those of core/words.h. Okapi BM25 with k1 1.2, b 0.75 and idf = ln(1 + (N - df +
 * 0.5)/(df + 0.5)) (Robertson and Zaragoza 2009). Documents are added in ascending order. Threads:
 * one index, one thread (scores use scratch inside).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_DEPLOY_DEMO_BM25_H
#define MR_DEPLOY_DEMO_BM25_H

#include "core/words.h"
#include "deploy/demo/names.h"

#define DEMO_QUERY_TERMS 64

size_t demo_stem_count(mr_str text); /* words, as core/words.h has them */

typedef struct {
    uint32_t term[DEMO_QUERY_TERMS];
    uint32_t count[DEMO_QUERY_TERMS];
    size_t n;
} demo_terms;

typedef struct {
    mr_arena words;
    demo_names terms;
    size_t n_docs;
    double mean_len;
    /* Words in the order of the texts: document d has words token.id[doc_first[d]..doc_first[d+1]).
     */
    demo_ids token;
    size_t *doc_first;
    /* Postings: term t is in documents doc[first[t]..first[t+1]), count[] times each. */
    size_t *first;
    uint32_t *doc;
    uint32_t *count;
    /* Scratch of one query: zero outside a call. */
    double *score;
    demo_ids touched;
    demo_ids doc_of; /* while adding */
} demo_bm25;

mr_status demo_bm25_add(demo_bm25 *index, uint32_t doc, mr_str text, mr_error *err);
mr_status demo_bm25_finish(demo_bm25 *index, size_t n_docs, mr_error *err);
void demo_bm25_done(demo_bm25 *index);

/* Words that no document has are dropped, and those past DEMO_QUERY_TERMS distinct ones. */
demo_terms demo_terms_of(const demo_bm25 *index, mr_str text);
double demo_bm25_idf(const demo_bm25 *index, uint32_t term);

mr_status demo_bm25_score(demo_bm25 *index, const demo_terms *query, const uint32_t *candidates,
                          size_t n, double *scores, mr_error *err);
/* The best `wanted` documents with a score, best first, equal ones in ascending order; allowed may
 * be NULL or has a byte for each document. out has room for `wanted`. */
mr_status demo_bm25_top(demo_bm25 *index, const demo_terms *query, const uint8_t *allowed,
                        size_t wanted, uint32_t *out, size_t *n_out, mr_error *err);

#endif
