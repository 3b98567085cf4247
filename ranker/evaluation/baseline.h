/* baseline.h - what a ranker has to beat: the same lists, scored without a language model.
 *
 *     mr_text_index *text;
 *     mr_text_index_new(&text, items, n_items, NULL, &err);          once per catalogue, seconds
 *     mr_baskets_new(&baskets, basket, n_baskets, n_items, train_items, &err);
 *     mr_baseline_context context = {.text = text, .baskets = baskets};
 *     mr_linear_ranker_fit(&linear, &context, rows, n_rows, &err);   rows of split train, no others
 *     context.linear = &linear;
 *     mr_baseline_score(MR_BASELINE_LINEAR, &context, &request, scores, &err);
 *
 * Items are numbers, 0..n_items-1 in the order of the catalogue. Scores are doubles, greater is
 * better, and comparable within one request only. A request that gives a baseline nothing to go by
 * (no query, no history, unknown words) makes all its scores equal: break ties by a seeded shuffle,
 * not by input order.
 *
 * Nothing here checks splits, and two of the inputs hold labels: baskets must be those of people
 * whose labels may be trained on, cut to items whose labels may be (`allowed`), and so must be the
 * rows that a linear ranker is fitted to. A person in the baskets who also asks a training row
 * would answer it: such a row says which basket to leave out.
 * There is no popularity among the features, on purpose: most items of a catalogue have one owner,
 * so that being owned by somebody else is a sign against the answer, which no product has.
 *
 * Bounds: MR_BASELINE_MAX_ITEMS items, 2^31 words in all; words are cut at 63 bytes.
 * Threads: all objects are read-only once made; all functions may run at once.
 * Same inputs, same bits, on any machine with the same libm.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_BASELINE_H
#define MR_RANKER_EVALUATION_BASELINE_H

#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/error.h"

#define MR_BASELINE_MAX_ITEMS  ((size_t)1 << 24)
#define MR_BASELINE_NO_SECTION UINT32_MAX

/* --- the catalogue --------------------------------------------------------------------------- */

/* All borrowed during mr_text_index_new only. */
typedef struct {
    mr_str title;     /* counted as words of the text; empty where the name is to play no part */
    mr_str text;      /* UTF-8; only ASCII letters and digits make words */
    uint32_t section; /* any number for a department of the catalogue, or MR_BASELINE_NO_SECTION */
} mr_text_item;

/* Zero or NULL means the default. */
typedef struct {
    double k1;         /* BM25; 1.2 */
    double b;          /* BM25; 0.75 */
    size_t min_items;  /* TF-IDF and LSA leave out words of fewer items; 3 */
    double max_share;  /* and words of more than this share of the items, up to 1; 0.2 */
    size_t lsa_dim;    /* 128, or fewer where the catalogue has fewer words or items */
    uint64_t lsa_seed; /* of the subspace that the search for the latent dimensions begins with */
} mr_text_index_options;

typedef struct mr_text_index mr_text_index;

mr_status mr_text_index_new(mr_text_index **out, const mr_text_item *items, size_t n,
                            const mr_text_index_options *options, mr_error *err);
void mr_text_index_free(mr_text_index *index); /* NULL is fine */
size_t mr_text_index_items(const mr_text_index *index);

/* --- baskets of training people -------------------------------------------------------------- */

typedef struct {
    const uint32_t *item; /* borrowed during mr_baskets_new only; a double counts once */
    size_t n;
} mr_basket;

typedef struct mr_baskets mr_baskets;

/* Two items co-occur in a basket of n items with weight 1/ln(2 + n); baskets of fewer than 2 or
 * more than 200 items say nothing. allowed: one flag per item, items without it are taken out of
 * every basket first; NULL: all are allowed. An item outside 0..n_items-1 is INVALID. */
mr_status mr_baskets_new(mr_baskets **out, const mr_basket *basket, size_t n, size_t n_items,
                         const uint8_t *allowed, mr_error *err);
void mr_baskets_free(mr_baskets *baskets); /* NULL is fine */

/* --- scoring --------------------------------------------------------------------------------- */

/* All borrowed. An item outside the catalogue is INVALID. */
typedef struct {
    mr_str query;            /* may be empty */
    const uint32_t *history; /* a set; may be NULL with n_history 0 */
    size_t n_history;
    const uint32_t *candidates;
    size_t n;
    size_t leave_out; /* 1 + place in `baskets` of the person who asks, for training rows: that
                       * basket does not count; 0 leaves none out */
} mr_baseline_request;

/* One row per baseline: enum name, name in reports, what it is. */
#define MR_BASELINE_MAP(X)                                                                       \
    X(RANDOM, "random", "a seeded draw")                                                         \
    X(BM25, "bm25", "BM25 of the query")                                                         \
    X(BM25_HISTORY, "bm25-history", "BM25 of the 40 most telling words of the history")          \
    X(TFIDF, "tfidf", "TF-IDF cosine, mean of the 3 nearest items of the history")               \
    X(LSA, "lsa", "cosine in 128 latent dimensions, mean of the 3 nearest items of the history") \
    X(COOCCURRENCE, "co-occurrence", "how often others hold the item together with the history") \
    X(SUM, "sum", "sum of standardised BM25 and TF-IDF")                                         \
    X(HISTORY_SUM, "history-sum",                                                                \
      "sum of standardised LSA, TF-IDF, co-occurrence and half the section's share")             \
    X(LINEAR, "linear", "logistic regression on 7 features and 3 products, by expected gain")

typedef enum {
#define MR_BASELINE_ENUM(name, text, what) MR_BASELINE_##name,
    MR_BASELINE_MAP(MR_BASELINE_ENUM)
#undef MR_BASELINE_ENUM
        MR_BASELINE_COUNT
} mr_baseline;

const char *mr_baseline_name(mr_baseline baseline); /* "bm25-history" */
const char *mr_baseline_what(mr_baseline baseline); /* one line for a reader of the report */

typedef struct mr_linear_ranker mr_linear_ranker;

typedef struct {
    const mr_text_index *text;      /* needed by all but RANDOM */
    const mr_baskets *baskets;      /* NULL: nothing co-occurs */
    const mr_linear_ranker *linear; /* needed by LINEAR */
    uint64_t seed;                  /* RANDOM */
} mr_baseline_context;

/* scores[request->n]. */
mr_status mr_baseline_score(mr_baseline baseline, const mr_baseline_context *context,
                            const mr_baseline_request *request, double *scores, mr_error *err);

/* --- the linear ranker ----------------------------------------------------------------------- */

#define MR_BASELINE_SIGNALS   7
#define MR_BASELINE_FEATURES  (MR_BASELINE_SIGNALS + 3)
#define MR_BASELINE_MAX_GRADE 7

/* features[n][MR_BASELINE_FEATURES], standardised over the candidates of the request (a signal that
 * is equal for all is 0): BM25 of the query; LSA cosine with the history, mean of the 3 nearest and
 * of all; TF-IDF cosine, the nearest and the mean of the 3 nearest; co-occurrence; share of the
 * history in the candidate's section; then BM25 times the two TF-IDF signals and co-occurrence. */
mr_status mr_baseline_features(const mr_baseline_context *context,
                               const mr_baseline_request *request, double *features, mr_error *err);

/* weight[level][0] is the intercept. Level k says P(grade >= grade[k]); the score is the expected
 * gain, sum of (2^grade[k] - 2^grade[k - 1]) x P, with 2^grade[-1] = 1. */
struct mr_linear_ranker {
    size_t n_levels;
    uint8_t grade[MR_BASELINE_MAX_GRADE]; /* ascending, above 0 */
    double weight[MR_BASELINE_MAX_GRADE][MR_BASELINE_FEATURES + 1];
};

typedef struct {
    mr_baseline_request request;
    const uint8_t *grade; /* [request.n], 0..MR_BASELINE_MAX_GRADE; borrowed */
} mr_linear_row;

/* Fits one logistic regression per grade that occurs (L2 penalty of weight 1 on the summed loss,
 * none on the intercept; Newton's method to convergence). Rows without any grade above 0, or
 * without any of 0, are INVALID: there is nothing to tell apart. */
mr_status mr_linear_ranker_fit(mr_linear_ranker *out, const mr_baseline_context *context,
                               const mr_linear_row *rows, size_t n_rows, mr_error *err);

/* The solver on its own: minimises sum log(1 + exp(-y z)) + |w|^2 / 2 with z = w[0] + w[1..] x,
 * y = +-1 from label[n]; x[n][dim], w[dim + 1]. dim at most 63. A label that all rows share is
 * INVALID: its intercept has no finite best value. */
mr_status mr_logistic_fit(const double *x, const uint8_t *label, size_t n, size_t dim, double *w,
                          mr_error *err);

#endif
