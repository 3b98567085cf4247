/* bm25.c - see bm25.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "deploy/demo/bm25.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define K1 1.2
#define B  0.75

size_t demo_stem_count(mr_str text)
{
    char word[MR_WORD_MAX];
    size_t len, n = 0;
    while (mr_words_next(&text, word, &len))
        n++;
    return n;
}

mr_status demo_bm25_add(demo_bm25 *index, uint32_t doc, mr_str text, mr_error *err)
{
    char word[MR_WORD_MAX];
    size_t len;
    while (mr_words_next(&text, word, &len)) {
        uint32_t term;
        mr_status status =
            demo_names_add_copy(&index->terms, &index->words, (mr_str){word, len}, &term, err);
        if (status == MR_OK)
            status = demo_ids_push(&index->token, term, err);
        if (status == MR_OK)
            status = demo_ids_push(&index->doc_of, doc, err);
        if (status != MR_OK)
            return status;
    }
    return MR_OK;
}

/* A counting sort of the (document, term) pairs by term. Documents come in ascending order, so that
 * equal pairs lie side by side and merge into one posting. */
static void build_postings(demo_bm25 *index)
{
    size_t n_terms = index->terms.n;
    size_t *first = index->first; /* [n_terms + 1], zeroed */
    for (size_t i = 0; i < index->token.n; i++)
        first[index->token.id[i] + 1]++;
    for (size_t t = 0; t < n_terms; t++)
        first[t + 1] += first[t];

    for (size_t i = 0; i < index->token.n; i++)
        index->doc[first[index->token.id[i]]++] = index->doc_of.id[i];
    size_t written = 0, begin = 0;
    for (size_t t = 0; t < n_terms; t++) {
        size_t end = first[t];
        first[t] = written;
        for (size_t i = begin; i < end; i++) {
            if (written > first[t] && index->doc[written - 1] == index->doc[i]) {
                index->count[written - 1]++;
            } else {
                index->doc[written] = index->doc[i];
                index->count[written++] = 1;
            }
        }
        begin = end;
    }
    first[n_terms] = written;
}

mr_status demo_bm25_finish(demo_bm25 *index, size_t n_docs, mr_error *err)
{
    size_t n = index->token.n;
    index->n_docs = n_docs;
    index->doc_first = calloc(n_docs + 1, sizeof *index->doc_first);
    index->first = calloc(index->terms.n + 1, sizeof *index->first);
    index->doc = calloc(n + 1, sizeof *index->doc);
    index->count = calloc(n + 1, sizeof *index->count);
    index->score = calloc(n_docs + 1, sizeof *index->score);
    if (!index->doc_first || !index->first || !index->doc || !index->count || !index->score)
        return MR_FAIL(err, NO_MEMORY, "a text index of %zu words", n);

    for (size_t i = 0; i < n; i++)
        index->doc_first[index->doc_of.id[i] + 1]++;
    for (size_t d = 0; d < n_docs; d++)
        index->doc_first[d + 1] += index->doc_first[d];
    index->mean_len = n_docs && n ? (double)n / (double)n_docs : 1;
    build_postings(index);
    demo_ids_done(&index->doc_of);
    return MR_OK;
}

void demo_bm25_done(demo_bm25 *index)
{
    demo_names_done(&index->terms);
    mr_arena_done(&index->words);
    demo_ids_done(&index->token);
    demo_ids_done(&index->doc_of);
    demo_ids_done(&index->touched);
    free(index->doc_first);
    free(index->first);
    free(index->doc);
    free(index->count);
    free(index->score);
    *index = (demo_bm25){0};
}

demo_terms demo_terms_of(const demo_bm25 *index, mr_str text)
{
    demo_terms query = {.n = 0};
    char word[MR_WORD_MAX];
    size_t len;
    while (mr_words_next(&text, word, &len)) {
        uint32_t term = demo_names_find(&index->terms, (mr_str){word, len});
        if (term == DEMO_NONE)
            continue;
        size_t i = 0;
        while (i < query.n && query.term[i] != term)
            i++;
        if (i == DEMO_QUERY_TERMS)
            continue;
        if (i == query.n) {
            query.term[query.n] = term;
            query.count[query.n++] = 0;
        }
        query.count[i]++;
    }
    return query;
}

double demo_bm25_idf(const demo_bm25 *index, uint32_t term)
{
    double df = (double)(index->first[term + 1] - index->first[term]);
    return log(1 + ((double)index->n_docs - df + 0.5) / (df + 0.5));
}

/* Fills score[] for the documents in touched[]. */
static mr_status accumulate(demo_bm25 *index, const demo_terms *query, mr_error *err)
{
    index->touched.n = 0;
    for (size_t q = 0; q < query->n; q++) {
        uint32_t term = query->term[q];
        double weight = (double)query->count[q] * demo_bm25_idf(index, term) * (K1 + 1);
        for (size_t i = index->first[term]; i < index->first[term + 1]; i++) {
            uint32_t doc = index->doc[i];
            double len = (double)(index->doc_first[doc + 1] - index->doc_first[doc]);
            double count = (double)index->count[i];
            if (index->score[doc] == 0) {
                mr_status status = demo_ids_push(&index->touched, doc, err);
                if (status != MR_OK)
                    return status;
            }
            index->score[doc] +=
                weight * count / (count + K1 * (1 - B + B * len / index->mean_len));
        }
    }
    return MR_OK;
}

static void clear_scratch(demo_bm25 *index)
{
    for (size_t i = 0; i < index->touched.n; i++)
        index->score[index->touched.id[i]] = 0;
    index->touched.n = 0;
}

mr_status demo_bm25_score(demo_bm25 *index, const demo_terms *query, const uint32_t *candidates,
                          size_t n, double *scores, mr_error *err)
{
    mr_status status = accumulate(index, query, err);
    for (size_t i = 0; status == MR_OK && i < n; i++)
        scores[i] = index->score[candidates[i]];
    clear_scratch(index);
    return status;
}

mr_status demo_bm25_top(demo_bm25 *index, const demo_terms *query, const uint8_t *allowed,
                        size_t wanted, uint32_t *out, size_t *n_out, mr_error *err)
{
    mr_status status = accumulate(index, query, err);
    const double *score = index->score;
    size_t n = 0;
    for (size_t i = 0; status == MR_OK && i < index->touched.n; i++) {
        uint32_t doc = index->touched.id[i];
        if (allowed && !allowed[doc])
            continue;
        /* out[] stays sorted: `wanted` is small, and most documents end at the first test. */
        size_t at = n;
        while (at > 0 && (score[doc] > score[out[at - 1]] ||
                          (score[doc] == score[out[at - 1]] && doc < out[at - 1])))
            at--;
        if (at == wanted)
            continue;
        if (n < wanted)
            n++;
        memmove(out + at + 1, out + at, (n - 1 - at) * sizeof *out);
        out[at] = doc;
    }
    *n_out = n;
    clear_scratch(index);
    return status;
}
