/* projector.c - see projector.h.
 *
 * Rows are taken in blocks, so that the scratch for a hundred thousand rows is that of one block. A
 * row's result does not depend on the block: the scoring kernels reduce in a fixed order, and GELU
 * runs over one row at a time.
 * SPDX-License-Identifier: Apache-2.0 */
#include "encoders/projector.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "engine/gemm.h"

#define BLOCK_ROWS  256
#define ALIGNMENT   64
#define MAX_DIM     65536
#define NAME_SIZE   96
#define CHECK_CHUNK 1024

struct mr_projector {
    const char *kind;
    size_t in_dim, hidden_dim, out_dim; /* hidden_dim 0: one layer at most */
    mr_safetensors *owned_file;         /* NULL: borrowed, or identity */
    const mr_safetensors *file;         /* NULL: identity */
    mr_linear layer[2];                 /* [n_layers] */
    float *bias[2];                     /* owned f32 copies, or NULL */
    int n_layers;
};

static const char *const prefixes[] = {"multi_modal_projector.", "model.multi_modal_projector.",
                                       ""};
#define N_PREFIXES (sizeof prefixes / sizeof *prefixes)

static const char *const tensor_names[] = {"linear_1.weight", "linear_1.bias", "linear_2.weight",
                                           "linear_2.bias"};
#define N_TENSORS (sizeof tensor_names / sizeof *tensor_names)

static void full_name(char out[NAME_SIZE], const char *prefix, int layer, const char *part)
{
    snprintf(out, NAME_SIZE, "%slinear_%d.%s", prefix, layer + 1, part);
}

static bool has_tensor(const mr_safetensors *file, const char *prefix, int layer, const char *part)
{
    char name[NAME_SIZE];
    full_name(name, prefix, layer, part);
    return mr_safetensors_find(file, name) != NULL;
}

/* A third layer or a norm changes what the projector computes: better refused than left out. */
static mr_status refuse_unknown(const mr_safetensors *file, const char *prefix, const char *path,
                                mr_error *err)
{
    const size_t skip = strlen(prefix);
    for (size_t i = 0; i < mr_safetensors_count(file); i++) {
        const char *name = mr_safetensors_at(file, i)->name;
        if (strncmp(name, prefix, skip) != 0)
            continue;
        size_t k = 0;
        while (k < N_TENSORS && strcmp(name + skip, tensor_names[k]) != 0)
            k++;
        if (k == N_TENSORS)
            return MR_FAIL(err, UNSUPPORTED,
                           "%s: tensor '%.200s' is not part of a projector of one or two linear "
                           "layers (linear_1, linear_2; weight and bias)",
                           path, name);
    }
    return MR_OK;
}

static mr_status check_finite(const mr_tensor *tensor, const char *path, mr_error *err)
{
    const size_t size = mr_dtype_size(tensor->dtype);
    const size_t n = tensor->bytes / size;
    float chunk[CHECK_CHUNK];
    for (size_t begin = 0; begin < n; begin += CHECK_CHUNK) {
        size_t count = n - begin < CHECK_CHUNK ? n - begin : CHECK_CHUNK;
        mr_dtype_to_f32(chunk, (const char *)tensor->data + begin * size, tensor->dtype, count);
        for (size_t i = 0; i < count; i++) {
            if (!isfinite(chunk[i]))
                return MR_FAIL(err, CORRUPT, "%s: tensor '%s' holds %g at element %zu", path,
                               tensor->name, (double)chunk[i], begin + i);
        }
    }
    return MR_OK;
}

/* Binds layer `index`. in_dim and out_dim: 0 matches any. */
static mr_status bind_layer(mr_projector *projector, int index, const char *path,
                            const char *prefix, size_t in_dim, size_t out_dim, mr_error *err)
{
    char name[NAME_SIZE];
    mr_tensor weight;
    const int64_t wanted[2] = {out_dim ? (int64_t)out_dim : -1, in_dim ? (int64_t)in_dim : -1};

    full_name(name, prefix, index, "weight");
    mr_status status = mr_safetensors_need(projector->file, name, 2, wanted, &weight, err);
    if (status != MR_OK)
        return status;
    if (weight.shape[0] < 1 || weight.shape[0] > MAX_DIM || weight.shape[1] < 1 ||
        weight.shape[1] > MAX_DIM)
        return MR_FAIL(err, MISMATCH, "%s: tensor '%s' is [%lld, %lld], expected dims of 1 to %d",
                       path, name, (long long)weight.shape[0], (long long)weight.shape[1], MAX_DIM);
    status = check_finite(&weight, path, err);
    if (status != MR_OK)
        return status;

    if (has_tensor(projector->file, prefix, index, "bias")) {
        mr_tensor bias;
        full_name(name, prefix, index, "bias");
        status = mr_safetensors_need(projector->file, name, 1, weight.shape, &bias, err);
        if (status == MR_OK)
            status = check_finite(&bias, path, err);
        if (status != MR_OK)
            return status;
        const size_t n = (size_t)weight.shape[0];
        projector->bias[index] = malloc(n * sizeof(float));
        if (!projector->bias[index])
            return MR_FAIL(err, NO_MEMORY, "%s: no memory for '%s'", path, name);
        mr_dtype_to_f32(projector->bias[index], bias.data, bias.dtype, n);
    }
    status = mr_linear_prepare(&projector->layer[index], MR_GEMM_SCORING, &weight,
                               projector->bias[index], err);
    if (status == MR_OK)
        projector->n_layers = index + 1;
    return status;
}

static mr_status bind_file(mr_projector *projector, size_t in_dim, size_t out_dim, mr_error *err)
{
    const char *path = mr_safetensors_name(projector->file);
    const char *prefix = NULL;
    for (size_t i = 0; i < N_PREFIXES && !prefix; i++) {
        if (has_tensor(projector->file, prefixes[i], 0, "weight"))
            prefix = prefixes[i];
    }
    if (!prefix)
        return MR_FAIL(err, NOT_FOUND,
                       "%s: no tensor 'linear_1.weight', with or without the prefix '%s': not a "
                       "projector; leave the projector out where the encoder's vectors already "
                       "are of the model's width",
                       path, prefixes[0]);
    mr_status status = refuse_unknown(projector->file, prefix, path, err);
    if (status != MR_OK)
        return status;

    const bool two = has_tensor(projector->file, prefix, 1, "weight");
    if (!two && has_tensor(projector->file, prefix, 1, "bias"))
        return MR_FAIL(err, NOT_FOUND, "%s: has '%slinear_2.bias' but no '%slinear_2.weight'", path,
                       prefix, prefix);
    status = bind_layer(projector, 0, path, prefix, in_dim, two ? 0 : out_dim, err);
    if (status == MR_OK && two)
        status = bind_layer(projector, 1, path, prefix, projector->layer[0].N, out_dim, err);
    if (status != MR_OK)
        return status;

    projector->kind = two ? "mlp" : "linear";
    projector->in_dim = projector->layer[0].K;
    projector->hidden_dim = two ? projector->layer[0].N : 0;
    projector->out_dim = projector->layer[projector->n_layers - 1].N;
    return MR_OK;
}

static mr_status make_identity(mr_projector *projector, size_t in_dim, size_t out_dim,
                               mr_error *err)
{
    projector->kind = "identity";
    projector->in_dim = in_dim ? in_dim : out_dim;
    projector->out_dim = out_dim ? out_dim : in_dim;
    if (projector->in_dim != projector->out_dim || projector->in_dim == 0)
        return MR_FAIL(err, MISMATCH,
                       "no projector and vectors of %zu dims where %zu are expected; name a "
                       "projector file that maps them",
                       in_dim, out_dim);
    return MR_OK;
}

mr_status mr_projector_open(mr_projector **out, const char *path, size_t in_dim, size_t out_dim,
                            mr_error *err)
{
    mr_status status = MR_OK;
    mr_projector *projector = calloc(1, sizeof *projector);
    if (!projector)
        return MR_FAIL(err, NO_MEMORY, "no memory for a projector");

    if (path) {
        status = mr_safetensors_open(&projector->owned_file, path, err);
        projector->file = projector->owned_file;
        if (status == MR_OK)
            status = bind_file(projector, in_dim, out_dim, err);
    } else {
        status = make_identity(projector, in_dim, out_dim, err);
    }
    if (status != MR_OK)
        goto out;
    *out = projector;
    projector = NULL;

out:
    mr_projector_close(projector);
    return status;
}

mr_status mr_projector_bind(mr_projector **out, const mr_safetensors *file, size_t in_dim,
                            size_t out_dim, mr_error *err)
{
    mr_projector *projector = calloc(1, sizeof *projector);
    if (!projector)
        return MR_FAIL(err, NO_MEMORY, "no memory for a projector");
    projector->file = file;
    mr_status status = bind_file(projector, in_dim, out_dim, err);
    if (status != MR_OK) {
        mr_projector_close(projector);
        return status;
    }
    *out = projector;
    return MR_OK;
}

void mr_projector_close(mr_projector *projector)
{
    if (!projector)
        return;
    for (int i = 0; i < 2; i++) {
        mr_linear_done(&projector->layer[i]);
        free(projector->bias[i]);
    }
    mr_safetensors_close(projector->owned_file);
    free(projector);
}

const char *mr_projector_kind(const mr_projector *projector)
{
    return projector->kind;
}

size_t mr_projector_in_dim(const mr_projector *projector)
{
    return projector->in_dim;
}

size_t mr_projector_out_dim(const mr_projector *projector)
{
    return projector->out_dim;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* The hidden rows of one block, first in the scratch. */
static size_t hidden_bytes(const mr_projector *projector, size_t rows)
{
    return mr_size_round_up(rows * projector->hidden_dim * sizeof(float), ALIGNMENT);
}

size_t mr_projector_scratch_bytes(const mr_projector *projector, size_t n)
{
    if (projector->n_layers == 0)
        return 0;
    size_t rows = n < BLOCK_ROWS ? n : BLOCK_ROWS;
    size_t max_n = larger(projector->hidden_dim, projector->out_dim);
    size_t max_k = larger(projector->hidden_dim, projector->in_dim);
    return ALIGNMENT + hidden_bytes(projector, rows) +
           mr_gemm_scratch_bytes(MR_GEMM_SCORING, rows, max_n, max_k, MR_MAX_THREADS);
}

typedef struct {
    const mr_kernels *kernels;
    float *rows;
    size_t width;
} gelu_work;

static void gelu_rows(void *context, size_t begin, size_t end, int worker)
{
    const gelu_work *work = context;
    (void)worker;
    for (size_t i = begin; i < end; i++)
        work->kernels->gelu(work->rows + i * work->width, work->width);
}

void mr_projector_run(const mr_projector *projector, const mr_kernels *kernels, mr_pool *pool,
                      void *scratch, const float *x, size_t n, float *y)
{
    if (n == 0)
        return;
    if (projector->n_layers == 0) {
        memcpy(y, x, n * projector->out_dim * sizeof *y);
        return;
    }
    const size_t in = projector->in_dim, hidden = projector->hidden_dim, out = projector->out_dim;
    char *base = (char *)scratch;
    base += (ALIGNMENT - (uintptr_t)base % ALIGNMENT) % ALIGNMENT;
    float *middle = (float *)(void *)base;
    void *gemm = base + hidden_bytes(projector, n < BLOCK_ROWS ? n : BLOCK_ROWS);

    for (size_t begin = 0; begin < n; begin += BLOCK_ROWS) {
        const size_t rows = n - begin < BLOCK_ROWS ? n - begin : BLOCK_ROWS;
        const float *from = x + begin * in;
        float *to = y + begin * out;
        if (projector->n_layers == 1) {
            mr_linear_run(&projector->layer[0], kernels, pool, gemm, to, out, from, in, rows);
            continue;
        }
        mr_linear_run(&projector->layer[0], kernels, pool, gemm, middle, hidden, from, in, rows);
        gelu_work work = {kernels, middle, hidden};
        mr_parallel_for(pool, rows, 4, gelu_rows, &work);
        mr_linear_run(&projector->layer[1], kernels, pool, gemm, to, out, middle, hidden, rows);
    }
}
