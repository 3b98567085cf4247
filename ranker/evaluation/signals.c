/* signals.c - see signals.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/evaluation/signals.h"
#include "core/words.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ranker/evaluation/baskets.h"
#include "ranker/evaluation/text_index.h"

/* Added to a deviation, as in the study: no division by zero, nothing else changes. */
#define LEAST_DEVIATION 1e-9

static mr_status check_items(const char *what, const uint32_t *item, size_t n, size_t n_items,
                             mr_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (item[i] >= n_items)
            return MR_FAIL(err, INVALID,
                           "%s %zu is item %u, expected one of the %zu items of the "
                           "text index",
                           what, i, item[i], n_items);
    return MR_OK;
}

mr_status mr_signals_new(mr_signals *out, const mr_baseline_context *context,
                         const mr_baseline_request *request, mr_error *err)
{
    *out = (mr_signals){0};
    const mr_text_index *text = context->text;
    if (!text)
        return MR_FAIL(err, INVALID, "a baseline without a text index, expected one");
    if (context->baskets && mr_baskets_items(context->baskets) != text->n_items)
        return MR_FAIL(err, MISMATCH,
                       "baskets of %zu items with a text index of %zu: make both of one catalogue",
                       mr_baskets_items(context->baskets), text->n_items);
    mr_status status =
        check_items("candidate", request->candidates, request->n, text->n_items, err);
    if (status == MR_OK)
        status =
            check_items("history item", request->history, request->n_history, text->n_items, err);
    if (status != MR_OK)
        return status;

    size_t pairs = 0;
    const size_t n_words = text->n_terms + 1;
    if (mr_size_mul(request->n, request->n_history, &pairs)) {
        out->similarity = calloc(pairs + 1, sizeof *out->similarity);
        out->of_word = calloc(n_words, sizeof *out->of_word);
        out->words = malloc(n_words * sizeof *out->words);
        out->overlap = calloc(mr_baskets_count(context->baskets) + 1, sizeof *out->overlap);
    }
    if (!out->similarity || !out->of_word || !out->words || !out->overlap) {
        mr_signals_done(out);
        return MR_FAIL(err, NO_MEMORY, "similarities of %zu candidates with %zu items", request->n,
                       request->n_history);
    }
    out->text = text;
    out->baskets = context->baskets;
    out->request = request;
    return MR_OK;
}

void mr_signals_done(mr_signals *signals)
{
    free(signals->similarity);
    free(signals->of_word);
    free(signals->words);
    free(signals->overlap);
    *signals = (mr_signals){0};
}

/* --- BM25 ------------------------------------------------------------------------------------ */

static uint32_t count_in(const mr_text_index *text, uint32_t item, uint32_t term)
{
    size_t low = text->first[item], high = text->first[item + 1];
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (text->term[middle] < term)
            low = middle + 1;
        else
            high = middle;
    }
    return low < text->first[item + 1] && text->term[low] == term ? text->count[low] : 0;
}

/* Of the words that stand in signals->words, each as often as of_word says. */
static void score_words(mr_signals *signals, size_t n_words, double *scores)
{
    const mr_text_index *text = signals->text;
    for (size_t i = 0; i < signals->request->n; i++) {
        const uint32_t item = signals->request->candidates[i];
        const double len = text->mean_len > 0 ? (double)text->item_len[item] / text->mean_len : 0;
        const double norm = text->k1 * (1 - text->b + text->b * len);
        scores[i] = 0;
        for (size_t w = 0; w < n_words; w++) {
            const uint32_t term = signals->words[w];
            const double count = count_in(text, item, term);
            if (count > 0)
                scores[i] += signals->of_word[term] * mr_text_index_idf(text, term) * count *
                             (text->k1 + 1) / (count + norm);
        }
    }
}

/* Adds to a word's value, and lists the word when it is new. */
static void add_word(mr_signals *signals, uint32_t term, double value, size_t *n_words)
{
    if (signals->of_word[term] == 0)
        signals->words[(*n_words)++] = term;
    signals->of_word[term] += value;
}

static void forget_words(mr_signals *signals, size_t n_words)
{
    for (size_t w = 0; w < n_words; w++)
        signals->of_word[signals->words[w]] = 0;
}

void mr_signals_bm25(mr_signals *signals, double *scores)
{
    mr_str rest = signals->request->query;
    char word[MR_WORD_MAX];
    size_t len, n_words = 0;
    while (mr_words_next(&rest, word, &len)) {
        const uint32_t term = mr_text_index_find(signals->text, word, len);
        if (term != MR_TEXT_NO_TERM)
            add_word(signals, term, 1, &n_words);
    }
    score_words(signals, n_words, scores);
    forget_words(signals, n_words);
}

/* Greater value first, then by the word itself, so that the choice does not hang on how the words
 * are numbered. */
static bool tells_more(const mr_signals *signals, uint32_t a, uint32_t b)
{
    if (signals->of_word[a] != signals->of_word[b])
        return signals->of_word[a] > signals->of_word[b];
    const mr_text_index *text = signals->text;
    return strcmp(text->word_data + text->word_first[a], text->word_data + text->word_first[b]) < 0;
}

/* Moves the most telling words to the front, in order. */
static size_t choose_words(mr_signals *signals, size_t n_words)
{
    const size_t wanted = n_words < MR_SIGNALS_HISTORY_WORDS ? n_words : MR_SIGNALS_HISTORY_WORDS;
    for (size_t k = 0; k < wanted; k++) {
        size_t best = k;
        for (size_t w = k + 1; w < n_words; w++)
            if (tells_more(signals, signals->words[w], signals->words[best]))
                best = w;
        const uint32_t term = signals->words[best];
        signals->words[best] = signals->words[k];
        signals->words[k] = term;
    }
    return wanted;
}

void mr_signals_bm25_history(mr_signals *signals, double *scores)
{
    const mr_text_index *text = signals->text;
    size_t n_words = 0;
    for (size_t h = 0; h < signals->request->n_history; h++) {
        const uint32_t item = signals->request->history[h];
        for (size_t k = text->first[item]; k < text->first[item + 1]; k++)
            add_word(signals, text->term[k], mr_text_index_idf(text, text->term[k]), &n_words);
    }
    const size_t chosen = choose_words(signals, n_words);
    forget_words(signals, n_words);
    for (size_t w = 0; w < chosen; w++)
        signals->of_word[signals->words[w]] = 1;
    score_words(signals, chosen, scores);
    forget_words(signals, chosen);
}

/* --- cosines --------------------------------------------------------------------------------- */

/* One row of similarity, which is sorted by it. */
static void sum_up(double *row, size_t n, double *nearest3, double *nearest, double *mean)
{
    const size_t top = n < MR_SIGNALS_NEAREST ? n : MR_SIGNALS_NEAREST;
    double sum = 0, first = 0;
    for (size_t k = 0; k < n; k++)
        sum += row[k];
    if (mean)
        *mean = n ? sum / (double)n : 0;
    for (size_t k = 0; k < top; k++) {
        size_t best = k;
        for (size_t h = k + 1; h < n; h++)
            if (row[h] > row[best])
                best = h;
        const double value = row[best];
        row[best] = row[k];
        row[k] = value;
        first += value;
    }
    if (nearest)
        *nearest = n ? row[0] : 0;
    if (nearest3)
        *nearest3 = top ? first / (double)top : 0;
}

static void sum_up_all(mr_signals *signals, double *nearest3, double *nearest, double *mean)
{
    const size_t n_history = signals->request->n_history;
    for (size_t i = 0; i < signals->request->n; i++)
        sum_up(signals->similarity + i * n_history, n_history, nearest3 ? nearest3 + i : NULL,
               nearest ? nearest + i : NULL, mean ? mean + i : NULL);
}

/* A history item's row is spread out over all words, so that a candidate's looks its words up. */
void mr_signals_tfidf(mr_signals *signals, double *nearest3, double *nearest, double *mean)
{
    const mr_text_index *text = signals->text;
    const mr_baseline_request *request = signals->request;
    for (size_t h = 0; h < request->n_history; h++) {
        const size_t begin = text->tf_first[request->history[h]];
        const size_t end = text->tf_first[request->history[h] + 1];
        for (size_t k = begin; k < end; k++)
            signals->of_word[text->column[k]] = text->weight[k];
        for (size_t i = 0; i < request->n; i++) {
            const uint32_t item = request->candidates[i];
            double sum = 0;
            for (size_t k = text->tf_first[item]; k < text->tf_first[item + 1]; k++)
                sum += text->weight[k] * signals->of_word[text->column[k]];
            signals->similarity[i * request->n_history + h] = sum;
        }
        for (size_t k = begin; k < end; k++)
            signals->of_word[text->column[k]] = 0;
    }
    sum_up_all(signals, nearest3, nearest, mean);
}

/* In eight partial sums, which a compiler may keep in one register without reordering anything. */
static double dot(const double *a, const double *b, size_t n)
{
    double part[8] = {0}, sum = 0;
    size_t k = 0;
    for (; k + 8 <= n; k += 8)
        for (size_t lane = 0; lane < 8; lane++)
            part[lane] += a[k + lane] * b[k + lane];
    for (; k < n; k++)
        sum += a[k] * b[k];
    for (size_t lane = 0; lane < 8; lane++)
        sum += part[lane];
    return sum;
}

void mr_signals_lsa(mr_signals *signals, double *nearest3, double *nearest, double *mean)
{
    const mr_text_index *text = signals->text;
    const mr_baseline_request *request = signals->request;
    const size_t dim = text->lsa_dim;
    for (size_t i = 0; i < request->n; i++)
        for (size_t h = 0; h < request->n_history; h++)
            signals->similarity[i * request->n_history + h] =
                dim ? dot(text->lsa + request->candidates[i] * dim,
                          text->lsa + request->history[h] * dim, dim)
                    : 0;
    sum_up_all(signals, nearest3, nearest, mean);
}

/* --- the rest -------------------------------------------------------------------------------- */

void mr_signals_cooccurrence(mr_signals *signals, double *scores)
{
    if (signals->baskets)
        mr_baskets_score(signals->baskets, signals->request, signals->overlap, scores);
    else
        for (size_t i = 0; i < signals->request->n; i++)
            scores[i] = 0;
}

void mr_signals_section(const mr_signals *signals, double *scores)
{
    const mr_baseline_request *request = signals->request;
    const uint32_t *section = signals->text->section;
    for (size_t i = 0; i < request->n; i++) {
        const uint32_t own = section[request->candidates[i]];
        size_t shared = 0;
        for (size_t h = 0; h < request->n_history; h++)
            shared += own != MR_BASELINE_NO_SECTION && section[request->history[h]] == own;
        scores[i] = shared ? (double)shared / (double)request->n_history : 0;
    }
}

void mr_signals_standardise(double *values, size_t n)
{
    double sum = 0, square = 0;
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    const double mean = n ? sum / (double)n : 0;
    bool equal = true;
    for (size_t i = 0; i < n; i++) {
        const double from_mean = values[i] - mean;
        square += from_mean * from_mean;
        equal = equal && values[i] == values[0];
    }
    const double deviation = n ? sqrt(square / (double)n) + LEAST_DEVIATION : 1;
    for (size_t i = 0; i < n; i++)
        values[i] = equal ? 0 : (values[i] - mean) / deviation;
}
