/* similarity.c - see similarity.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/similarity.h"

#include <stdlib.h>
#include <string.h>

#include "ranker/training/losses.h"

#define MASKED (-1e4f) /* exp is 0, and finite */

void mr_pool_tokens(const mr_ops_f32 *ops, const float *tokens, size_t T, size_t dim, float *out,
                    float *length)
{
    memset(out, 0, dim * sizeof *out);
    for (size_t t = 0; t < T; t++)
        ops->add_scaled(out, tokens + t * dim, 1 / (float)T, dim);
    ops->normalise(out, dim, length, out, dim, 1, dim);
}

void mr_pool_tokens_back(const mr_ops_f32 *ops, const float *u, const float *du, float length,
                         size_t T, size_t dim, float *d_tokens)
{
    ops->normalise_back(d_tokens, dim, du, dim, u, dim, &length, 1, dim);
    for (size_t i = 0; i < dim; i++)
        d_tokens[i] /= (float)T;
    for (size_t t = 1; t < T; t++)
        memcpy(d_tokens + t * dim, d_tokens, dim * sizeof *d_tokens);
}

mr_status mr_similarity_open(mr_similarity *out, const mr_ops_f32 *ops, size_t most, size_t dim,
                             mr_error *err)
{
    *out = (mr_similarity){.ops = ops, .dim = dim};
    out->a = calloc(most * dim, sizeof(float));
    out->b = calloc(most * dim, sizeof(float));
    out->a_length = calloc(most, sizeof(float));
    out->b_length = calloc(most, sizeof(float));
    out->d_a = calloc(most * dim, sizeof(float));
    out->d_b = calloc(most * dim, sizeof(float));
    out->logits = calloc(most * most, sizeof(float));
    out->turned = calloc(most * most, sizeof(float));
    out->target = calloc(most, sizeof *out->target);
    if (out->a && out->b && out->a_length && out->b_length && out->d_a && out->d_b && out->logits &&
        out->turned && out->target)
        return MR_OK;
    mr_similarity_close(out);
    return MR_FAIL(err, NO_MEMORY, "a batch of %zu pairs", most);
}

void mr_similarity_close(mr_similarity *s)
{
    free(s->a);
    free(s->b);
    free(s->a_length);
    free(s->b_length);
    free(s->d_a);
    free(s->d_b);
    free(s->logits);
    free(s->turned);
    free(s->target);
    *s = (mr_similarity){0};
}

double mr_similarity_loss(mr_similarity *s, const mr_similarity_pairs *p)
{
    const mr_ops_f32 *ops = s->ops;
    const size_t n = p->n, dim = s->dim, at = p->first * dim;
    const float *a = s->a + at, *b = s->b + at;
    const float inverse = (float)(1 / p->temperature), share = p->both ? 0.5f : 1;
    ops->gemm(false, true, n, n, dim, inverse, a, dim, b, dim, 0, s->logits, n);
    for (size_t i = 0; i < n; i++) {
        s->target[i] = (int32_t)i;
        for (size_t j = 0; j < n; j++)
            if (i != j && p->related(p->context, i, j))
                s->logits[i * n + j] = MASKED;
    }
    for (size_t i = 0; p->both && i < n; i++)
        for (size_t j = 0; j < n; j++)
            s->turned[j * n + i] = s->logits[i * n + j];
    double loss = mr_loss_cross_entropy(s->logits, s->target, n, n, s->logits);
    if (p->both)
        loss += mr_loss_cross_entropy(s->turned, s->target, n, n, s->turned);
    for (size_t i = 0; p->both && i < n; i++)
        for (size_t j = 0; j < n; j++)
            s->logits[i * n + j] += s->turned[j * n + i];
    const float scale = share * p->weight * inverse;
    ops->gemm(false, false, n, dim, n, scale, s->logits, n, b, dim, 0, s->d_a + at, dim);
    ops->gemm(true, false, n, dim, n, scale, s->logits, n, a, dim, 0, s->d_b + at, dim);
    return (double)share * (double)p->weight * loss;
}
