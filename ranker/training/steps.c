/* steps.c - see steps.h: the weights of linear layers.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/steps.h"

#include <stdio.h>

#define NAME_BYTES 160

mr_linear_layout mr_linear_add(mr_weights *weights, const char *prefix, const mr_linear_part *part,
                               size_t n_parts, size_t in, bool bias)
{
    mr_linear_layout linear = {.in = in, .n_parts = n_parts};
    char name[NAME_BYTES];
    for (size_t i = 0; i < n_parts; i++) {
        snprintf(name, sizeof name, "%s.weight", part[i].name);
        linear.weight[i] = mr_matrix_add(weights, prefix, name, part[i].rows, in);
        linear.bias[i] = MR_NO_WEIGHT;
        linear.rows[i] = part[i].rows;
        linear.out += part[i].rows;
    }
    for (size_t i = 0; bias && i < n_parts; i++) {
        snprintf(name, sizeof name, "%s.bias", part[i].name);
        linear.bias[i] = mr_vector_add(weights, prefix, name, MR_WEIGHT_ZEROS, part[i].rows);
    }
    return linear;
}

static size_t add(mr_weights *weights, const char *prefix, const char *name, mr_weight_kind kind,
                  int n_dims, const int64_t *shape)
{
    char full[2 * NAME_BYTES];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return mr_weights_add(weights, full, kind, n_dims, shape);
}

size_t mr_vector_add(mr_weights *weights, const char *prefix, const char *name, mr_weight_kind kind,
                     size_t n)
{
    const int64_t shape[1] = {(int64_t)n};
    return add(weights, prefix, name, kind, 1, shape);
}

size_t mr_matrix_add(mr_weights *weights, const char *prefix, const char *name, size_t rows,
                     size_t n)
{
    const int64_t shape[2] = {(int64_t)rows, (int64_t)n};
    return add(weights, prefix, name, MR_WEIGHT_MATRIX, 2, shape);
}
