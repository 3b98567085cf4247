/* similarity.h - vectors of length 1 against each other: InfoNCE (van den Oord et al. 2018) and
 * sampled softmax with the batch's own targets as negatives.
 *
 * A thing's vector is the mean of its tokens at length 1. Private to ranker/training. Threads: one
 * mr_similarity, one thread; pooling is pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_SIMILARITY_H
#define MR_RANKER_TRAINING_SIMILARITY_H

#include "core/error.h"
#include "ranker/training/ops.h"

/* Mean of tokens [T][dim] at length 1; *length: before that. */
void mr_pool_tokens(const mr_ops_f32 *ops, const float *tokens, size_t T, size_t dim, float *out,
                    float *length);
/* The way back, from u = out and its gradient: *sets* d_tokens [T][dim]. */
void mr_pool_tokens_back(const mr_ops_f32 *ops, const float *u, const float *du, float length,
                         size_t T, size_t dim, float *d_tokens);

/* A batch of up to `most` pairs: a[i] belongs to b[i]. */
typedef struct {
    const mr_ops_f32 *ops;
    size_t dim;
    float *a, *b;               /* [most][dim] at length 1 */
    float *a_length, *b_length; /* [most] before that */
    float *d_a, *d_b;           /* [most][dim] */
    float *logits, *turned;     /* [most][most] */
    int32_t *target;
} mr_similarity;

MR_NODISCARD mr_status mr_similarity_open(mr_similarity *out, const mr_ops_f32 *ops, size_t most,
                                          size_t dim, mr_error *err);
void mr_similarity_close(mr_similarity *similarity); /* idempotent */

/* What belongs together though it is no pair: a of pair i and b of pair j, i not j, counted from
 * the first of the pairs that are compared. */
typedef bool (*mr_related)(const void *context, size_t i, size_t j);

typedef struct {
    size_t first, n; /* pairs of the batch that are compared with each other */
    double temperature;
    bool both; /* the mean of both directions, else each a looks for its b alone */
    float weight;
    mr_related related;
    const void *context;
} mr_similarity_pairs;

/* weight x the mean over these pairs of -log softmax(a . b / temperature); sets their d_a, d_b. */
double mr_similarity_loss(mr_similarity *similarity, const mr_similarity_pairs *pairs);

#endif
