/* weights.c - see weights.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/weights.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "core/rng.h"

#define NAME_BYTES 512

void mr_weights_done(mr_weights *weights)
{
    if (!weights)
        return;
    free(weights->weight);
    mr_arena_done(&weights->arena);
    *weights = (mr_weights){0};
}

void mr_weights_begin_part(mr_weights *weights, const char *name)
{
    char *copy = mr_arena_strndup(&weights->arena, name, strlen(name));
    if (!copy || weights->n_parts == MR_WEIGHTS_MAX_PARTS) {
        weights->failed = true;
        return;
    }
    weights->part[weights->n_parts++] = (mr_weights_part){copy, weights->n, 0};
}

size_t mr_weights_add(mr_weights *weights, const char *name, mr_weight_kind kind, int n_dims,
                      const int64_t *shape)
{
    if (weights->n == weights->capacity) {
        const size_t capacity = weights->capacity ? 2 * weights->capacity : 64;
        mr_weight *grown = realloc(weights->weight, capacity * sizeof *grown);
        if (grown) {
            weights->weight = grown;
            weights->capacity = capacity;
        }
    }
    char *copy = mr_arena_strndup(&weights->arena, name, strlen(name));
    if (weights->failed || weights->n == weights->capacity || !copy || weights->n_parts == 0) {
        weights->failed = true;
        return MR_NO_WEIGHT;
    }
    mr_weight *weight = &weights->weight[weights->n];
    *weight = (mr_weight){.name = copy, .kind = kind, .n_dims = n_dims, .n = 1, .trained = true};
    for (int d = 0; d < n_dims; d++) {
        weight->shape[d] = shape[d];
        if (shape[d] < 0 || !mr_size_mul(weight->n, (size_t)shape[d], &weight->n))
            weights->failed = true;
    }
    weight->offset = weights->total;
    weights->failed |= !mr_size_add(weights->total, weight->n, &weights->total);
    weights->part[weights->n_parts - 1].n++;
    return weights->n++;
}

mr_status mr_weights_check(const mr_weights *weights, mr_error *err)
{
    if (weights->failed || weights->total > SIZE_MAX / (4 * sizeof(double)))
        return MR_FAIL(err, NO_MEMORY, "a list of %zu weights", weights->n);
    return MR_OK;
}

const mr_weights_part *mr_weights_find_part(const mr_weights *weights, const char *name)
{
    for (size_t p = 0; p < weights->n_parts; p++)
        if (strcmp(weights->part[p].name, name) == 0)
            return &weights->part[p];
    return NULL;
}

bool mr_weights_trained(const mr_weights *weights, size_t index)
{
    return index != MR_NO_WEIGHT && weights->weight[index].trained;
}

size_t mr_weights_trained_elements(const mr_weights *weights)
{
    size_t n = 0;
    for (size_t i = 0; i < weights->n; i++)
        n += weights->weight[i].trained ? weights->weight[i].n : 0;
    return n;
}

/* ---- Freezing -------------------------------------------------------------------------------- */

static void full_name(const mr_weights_part *part, const mr_weight *weight, char out[NAME_BYTES])
{
    snprintf(out, NAME_BYTES, "%s.%s", part->name, weight->name);
}

/* A weight that a pattern without a match may have meant. */
static mr_status no_match(const mr_weights *weights, const char *pattern, mr_error *err)
{
    char name[NAME_BYTES] = "";
    for (size_t p = 0; p < weights->n_parts; p++) {
        const mr_weights_part *part = &weights->part[p];
        const size_t len = strlen(part->name);
        const bool same_part = strncmp(pattern, part->name, len) == 0 && pattern[len] == '.';
        if (part->n > 0 && (!name[0] || same_part))
            full_name(part, &weights->weight[part->first + part->n - 1], name);
    }
    return MR_FAIL(err, INVALID,
                   "freeze: '%.200s' matches no weight; weights are named like '%.200s', and * "
                   "stands for any run of characters",
                   pattern, name);
}

mr_status mr_weights_freeze(mr_weights *weights, const char *pattern, mr_error *err)
{
    bool any = false;
    for (size_t p = 0; p < weights->n_parts; p++) {
        const mr_weights_part *part = &weights->part[p];
        for (size_t i = part->first; i < part->first + part->n; i++) {
            char name[NAME_BYTES];
            full_name(part, &weights->weight[i], name);
            if (fnmatch(pattern, name, 0) == 0) {
                weights->weight[i].trained = false;
                any = true;
            }
        }
    }
    return any ? MR_OK : no_match(weights, pattern, err);
}

/* ---- Values ---------------------------------------------------------------------------------- */

void mr_weights_draw(const mr_weights *weights, const mr_weights_part *part, uint64_t seed,
                     double deviation, float *values)
{
    for (size_t i = part->first; i < part->first + part->n; i++) {
        const mr_weight *weight = &weights->weight[i];
        char name[NAME_BYTES];
        full_name(part, weight, name);
        mr_rng rng = mr_rng_seed(seed ^ mr_hash_xxh3(name, strlen(name)));
        float *to = values + weight->offset;
        for (size_t k = 0; k < weight->n; k++) {
            if (weight->kind == MR_WEIGHT_MATRIX)
                to[k] = (float)(deviation * mr_rng_normal(&rng));
            else
                to[k] = weight->kind == MR_WEIGHT_ONES ? 1.0f : 0.0f;
        }
    }
}

/* The tensor under its name, or under the name without "model.". */
static mr_status find(const mr_safetensors *file, const mr_weight *weight, mr_tensor *out,
                      mr_error *err)
{
    const char *name = weight->name;
    if (!mr_safetensors_find(file, name)) {
        static const char prefix[] = "model.";
        if (strncmp(name, prefix, sizeof prefix - 1) == 0 &&
            mr_safetensors_find(file, name + sizeof prefix - 1))
            name += sizeof prefix - 1;
    }
    return mr_safetensors_need(file, name, weight->n_dims, weight->shape, out, err);
}

mr_status mr_weights_load(const mr_weights *weights, const mr_weights_part *part, const char *path,
                          float *values, mr_error *err)
{
    mr_safetensors *file = NULL;
    mr_status status = mr_safetensors_open(&file, path, err);
    for (size_t i = part->first; status == MR_OK && i < part->first + part->n; i++) {
        const mr_weight *weight = &weights->weight[i];
        mr_tensor tensor;
        status = find(file, weight, &tensor, err);
        if (status != MR_OK)
            break;
        float *to = values + weight->offset;
        mr_dtype_to_f32(to, tensor.data, tensor.dtype, weight->n);
        for (size_t k = 0; k < weight->n; k++) {
            if (!isfinite(to[k])) {
                status = MR_FAIL(err, CORRUPT, "'%s': '%s' holds a value that is not finite", path,
                                 weight->name);
                break;
            }
        }
    }
    mr_safetensors_close(file);
    return status;
}

mr_status mr_weights_save(const mr_weights *weights, const mr_weights_part *part, const char *path,
                          mr_dtype dtype, const float *values, const char *const *metadata,
                          mr_error *err)
{
    mr_arena arena = {0};
    mr_tensor *tensors = mr_arena_array(&arena, mr_tensor, part->n);
    mr_safetensors_writer *writer = NULL;
    size_t longest = 0;
    for (size_t i = 0; tensors && i < part->n; i++) {
        const mr_weight *weight = &weights->weight[part->first + i];
        tensors[i] = (mr_tensor){.name = weight->name, .dtype = dtype, .n_dims = weight->n_dims};
        memcpy(tensors[i].shape, weight->shape, sizeof weight->shape);
        tensors[i].bytes = weight->n * mr_dtype_size(dtype);
        longest = mr_size_max(longest, weight->n);
    }
    void *bytes = mr_arena_alloc(&arena, longest, mr_dtype_size(dtype), sizeof(float));
    mr_status status = tensors && bytes ? MR_OK : MR_FAIL(err, NO_MEMORY, "writing '%s'", path);
    if (status == MR_OK)
        status = mr_safetensors_writer_open(&writer, path, tensors, part->n, metadata, err);
    for (size_t i = 0; status == MR_OK && i < part->n; i++) {
        mr_dtype_from_f32(bytes, dtype, values + weights->weight[part->first + i].offset,
                          weights->weight[part->first + i].n);
        status = mr_safetensors_writer_append(writer, bytes, tensors[i].bytes, err);
    }
    if (status == MR_OK) {
        status = mr_safetensors_writer_commit(writer, err);
        writer = NULL;
    }
    mr_safetensors_writer_abandon(writer);
    mr_arena_done(&arena);
    return status;
}
