/* lsa.c - latent semantic analysis of the TF-IDF matrix (Deerwester et al. 1990): a truncated
 * singular value decomposition, of which only the cosines of items are needed.
 *
 * Subspace iteration: W <- orth(X^T X W) from a random start converges to the span of the first
 * right singular vectors, and the rows of X W have the cosines of the truncated matrix in whatever
 * basis W is. So no singular vector is ever told from another, and the usual small eigenproblem
 * falls away. Orthonormalised by Cholesky factors of the Gram matrix: one pass squares the
 * condition of X^T X W, some thousands, which doubles hold easily; directions beyond the rank
 * become 0.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "ranker/evaluation/text_index.h"

#define ITERATIONS 10
#define RANK_BOUND 1e-10 /* a squared length less than this share of what it was is rounding */

/* to[n_items][dim] = X from[n_columns][dim] */
static void times(const mr_text_index *index, const double *from, double *to, size_t dim)
{
    memset(to, 0, index->n_items * dim * sizeof *to);
    for (size_t i = 0; i < index->n_items; i++) {
        double *row = to + i * dim;
        for (size_t k = index->tf_first[i]; k < index->tf_first[i + 1]; k++) {
            const double *add = from + index->column[k] * dim;
            const double weight = index->weight[k];
            for (size_t d = 0; d < dim; d++)
                row[d] += weight * add[d];
        }
    }
}

/* to[n_columns][dim] = X^T from[n_items][dim] */
static void times_transposed(const mr_text_index *index, const double *from, double *to, size_t dim)
{
    memset(to, 0, index->n_columns * dim * sizeof *to);
    for (size_t i = 0; i < index->n_items; i++) {
        const double *add = from + i * dim;
        for (size_t k = index->tf_first[i]; k < index->tf_first[i + 1]; k++) {
            double *row = to + index->column[k] * dim;
            const double weight = index->weight[k];
            for (size_t d = 0; d < dim; d++)
                row[d] += weight * add[d];
        }
    }
}

/* Lower factor of the Gram matrix, in place; a diagonal of 0 marks a dependent direction. */
static void factor(double *gram, size_t dim)
{
    for (size_t j = 0; j < dim; j++) {
        double pivot = gram[j * dim + j];
        const double bound = RANK_BOUND * pivot;
        for (size_t k = 0; k < j; k++)
            pivot -= gram[j * dim + k] * gram[j * dim + k];
        const bool independent = pivot > bound;
        const double root = independent ? sqrt(pivot) : 0;
        gram[j * dim + j] = root;
        for (size_t i = j + 1; i < dim; i++) {
            double sum = gram[i * dim + j];
            for (size_t k = 0; k < j; k++)
                sum -= gram[i * dim + k] * gram[j * dim + k];
            gram[i * dim + j] = independent ? sum / root : 0;
        }
    }
}

/* Makes the columns of rows[n][dim] orthonormal. gram has room for dim * dim. */
static void orthonormalise(double *rows, size_t n, size_t dim, double *gram)
{
    memset(gram, 0, dim * dim * sizeof *gram);
    for (size_t i = 0; i < n; i++) {
        const double *row = rows + i * dim;
        for (size_t a = 0; a < dim; a++)
            for (size_t b = 0; b <= a; b++)
                gram[a * dim + b] += row[a] * row[b];
    }
    factor(gram, dim);
    for (size_t i = 0; i < n; i++) {
        double *row = rows + i * dim;
        for (size_t j = 0; j < dim; j++) {
            double sum = row[j];
            for (size_t k = 0; k < j; k++)
                sum -= row[k] * gram[j * dim + k];
            row[j] = gram[j * dim + j] > 0 ? sum / gram[j * dim + j] : 0;
        }
    }
}

static void normalise_rows(double *rows, size_t n, size_t dim)
{
    for (size_t i = 0; i < n; i++) {
        double *row = rows + i * dim, square = 0;
        for (size_t d = 0; d < dim; d++)
            square += row[d] * row[d];
        for (size_t d = 0; d < dim && square > 0; d++)
            row[d] /= sqrt(square);
    }
}

mr_status mr_text_index_build_lsa(mr_text_index *index, size_t dim, uint64_t seed, mr_error *err)
{
    if (dim > index->n_items)
        dim = index->n_items;
    if (dim > index->n_columns)
        dim = index->n_columns;
    index->lsa_dim = dim;
    if (dim == 0)
        return MR_OK;
    mr_status status = MR_OK;
    size_t item_values, word_values;
    double *basis = NULL, *gram = NULL;
    if (mr_size_mul(index->n_items, dim, &item_values) &&
        mr_size_mul(index->n_columns, dim, &word_values)) {
        index->lsa = calloc(item_values, sizeof *index->lsa);
        basis = calloc(word_values, sizeof *basis);
        gram = calloc(dim * dim, sizeof *gram);
    }
    if (!index->lsa || !basis || !gram) {
        status = MR_FAIL(err, NO_MEMORY, "%zu latent dimensions of %zu items and %zu words", dim,
                         index->n_items, index->n_columns);
        goto out;
    }
    mr_rng rng = mr_rng_seed(seed);
    for (size_t i = 0; i < word_values; i++)
        basis[i] = mr_rng_normal(&rng);
    for (int round = 0; round < ITERATIONS; round++) {
        times(index, basis, index->lsa, dim);
        times_transposed(index, index->lsa, basis, dim);
        orthonormalise(basis, index->n_columns, dim, gram);
    }
    times(index, basis, index->lsa, dim);
    normalise_rows(index->lsa, index->n_items, dim);

out:
    free(basis);
    free(gram);
    return status;
}
