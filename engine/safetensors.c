/* safetensors.c - parsing and validating one file, and looking things up. See safetensors.h.
 *
 * The header is parsed as JSON; then the tensors are sorted by offset and walked once: each must
 * begin where the one before it ended, and the last must end with the file. That one walk proves
 * that ranges are inside the file, do not overlap and leave no holes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "engine/safetensors_private.h"

#define METADATA_KEY "__metadata__"
/* A pointer file that git-lfs leaves in place of the real one: the commonest broken download. */
#define LFS_START "version https://git-lfs"

bool mr_tensor_dense_bytes(mr_dtype dtype, int n_dims, const int64_t *shape, size_t *out)
{
    size_t count = 1;
    for (int d = 0; d < n_dims; d++) {
        if ((uint64_t)shape[d] > SIZE_MAX || !mr_size_mul(count, (size_t)shape[d], &count))
            return false;
    }
    return mr_size_mul(count, mr_dtype_size(dtype), out);
}

void mr_shape_text(int n_dims, const int64_t *shape, char out[MR_SHAPE_TEXT])
{
    size_t at = 0;
    out[at++] = '[';
    for (int d = 0; d < n_dims; d++) {
        char value[32];
        if (shape[d] < 0)
            snprintf(value, sizeof value, "?");
        else
            snprintf(value, sizeof value, "%" PRId64, shape[d]);
        int n = snprintf(out + at, MR_SHAPE_TEXT - at, "%s%s", d ? ", " : "", value);
        if (n < 0 || (size_t)n >= MR_SHAPE_TEXT - at - 1) {
            at = MR_SHAPE_TEXT - 2;
            break;
        }
        at += (size_t)n;
    }
    out[at++] = ']';
    out[at] = '\0';
}

mr_safetensors *mr_safetensors_new(const char *name)
{
    mr_safetensors *file = calloc(1, sizeof *file);
    if (!file)
        return NULL;
    file->name = mr_arena_strndup(&file->arena, name, strlen(name));
    if (!file->name) {
        mr_safetensors_close(file);
        return NULL;
    }
    return file;
}

void mr_safetensors_close(mr_safetensors *file)
{
    if (!file)
        return;
    for (size_t i = 0; i < file->n_shards; i++)
        mr_safetensors_close(file->shards[i]);
    mr_file_map_close(&file->map);
    mr_arena_done(&file->arena);
    free(file);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const mr_tensor *)a)->name, ((const mr_tensor *)b)->name);
}

static int by_range(const void *a, const void *b)
{
    const mr_tensor *x = a, *y = b;
    uintptr_t begin_x = (uintptr_t)x->data, begin_y = (uintptr_t)y->data;
    if (begin_x != begin_y)
        return begin_x < begin_y ? -1 : 1;
    /* Empty tensors sit in front of the one that begins at the same byte. */
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

void mr_safetensors_sort(mr_safetensors *file)
{
    if (file->n_tensors)
        qsort(file->tensors, file->n_tensors, sizeof *file->tensors, by_name);
}

/* The first 8 bytes, checked; *header and *payload are then inside the file. */
static mr_status split(const mr_safetensors *file, const char *data, size_t len, mr_str *header,
                       mr_bytes *payload, mr_error *err)
{
    if (len >= strlen(LFS_START) && memcmp(data, LFS_START, strlen(LFS_START)) == 0)
        return MR_FAIL(
            err, CORRUPT,
            "%s: is a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'",
            file->name);
    if (len < SAFETENSORS_LENGTH_BYTES)
        return MR_FAIL(err, CORRUPT,
                       "%s: has %zu bytes, too few for a safetensors header; is it cut short?",
                       file->name, len);
    const uint64_t n = mr_load_u64le(data);
    if (n > MR_SAFETENSORS_MAX_HEADER)
        return MR_FAIL(err, CORRUPT,
                       "%s: says that its header has %" PRIu64
                       " bytes, the format allows %zu; is it "
                       "a safetensors file?",
                       file->name, n, MR_SAFETENSORS_MAX_HEADER);
    const size_t room = len - SAFETENSORS_LENGTH_BYTES;
    if (n > room)
        return MR_FAIL(err, CORRUPT,
                       "%s: says that its header has %" PRIu64
                       " bytes, but only %zu follow; is the "
                       "file cut short?",
                       file->name, n, room);
    *header = (mr_str){data + SAFETENSORS_LENGTH_BYTES, (size_t)n};
    *payload = (mr_bytes){header->data + n, room - (size_t)n};
    if (n == 0 || header->data[0] != '{')
        return MR_FAIL(err, CORRUPT, "%s: the header does not start with '{'", file->name);
    return MR_OK;
}

/* The JSON reader gives reals for all numbers when one of them has more than 63 bits. */
static const char *describe_number(const json_t *value)
{
    return json_is_real(value) ? "a fraction, or an integer that is too large is in the header"
                               : mr_json_describe(value);
}

static mr_status parse_shape(const mr_safetensors *file, const json_t *value, mr_tensor *tensor,
                             mr_error *err)
{
    if (!json_is_array(value))
        return MR_FAIL(err, CORRUPT, "%s: tensor '%.200s': 'shape' is %s, expected an array",
                       file->name, tensor->name, mr_json_describe(value));
    const size_t n_dims = json_array_size(value);
    if (n_dims > MR_TENSOR_MAX_DIMS)
        return MR_FAIL(err, UNSUPPORTED,
                       "%s: tensor '%.200s' has %zu dimensions, at most %d are read", file->name,
                       tensor->name, n_dims, MR_TENSOR_MAX_DIMS);
    tensor->n_dims = (int)n_dims;
    for (size_t d = 0; d < n_dims; d++) {
        const json_t *size = json_array_get(value, d);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return MR_FAIL(err, CORRUPT,
                           "%s: tensor '%.200s': 'shape' holds %s, expected integers from 0",
                           file->name, tensor->name, describe_number(size));
        tensor->shape[d] = json_integer_value(size);
    }
    return MR_OK;
}

static mr_status parse_range(const mr_safetensors *file, const json_t *value, mr_bytes payload,
                             mr_tensor *tensor, mr_error *err)
{
    const json_t *begin = json_array_get(value, 0), *end = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return MR_FAIL(
            err, CORRUPT,
            "%s: tensor '%.200s': 'data_offsets' holds %s, expected two integers, [begin, end)",
            file->name, tensor->name,
            json_array_size(value) == 2 ? describe_number(json_is_integer(begin) ? end : begin)
                                        : "another number of values");
    const json_int_t from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || to < from || (uint64_t)to > payload.len)
        return MR_FAIL(err, CORRUPT,
                       "%s: tensor '%.200s': bytes [%" PRId64 ", %" PRId64 ") are not inside the "
                       "file's %zu bytes of data; is the file cut short?",
                       file->name, tensor->name, (int64_t)from, (int64_t)to, payload.len);
    tensor->data = (const char *)payload.data + from;
    tensor->bytes = (size_t)(to - from);
    return MR_OK;
}

static mr_status parse_tensor(mr_safetensors *file, const char *name, const json_t *value,
                              mr_bytes payload, mr_tensor *tensor, mr_error *err)
{
    tensor->name = mr_arena_strndup(&file->arena, name, strlen(name));
    if (!tensor->name)
        return MR_FAIL(err, NO_MEMORY, "%s: the tensor table", file->name);
    if (!json_is_object(value))
        return MR_FAIL(err, CORRUPT, "%s: tensor '%.200s' is %s, expected an object", file->name,
                       name, mr_json_describe(value));

    static const char *const keys[] = {"dtype", "shape", "data_offsets"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!json_object_get(value, keys[i]))
            return MR_FAIL(err, CORRUPT, "%s: tensor '%.200s' has no '%s'", file->name, name,
                           keys[i]);
    }
    const json_t *dtype = json_object_get(value, "dtype");
    if (!json_is_string(dtype) ||
        !mr_dtype_from_name(json_string_value(dtype), json_string_length(dtype), &tensor->dtype))
        return MR_FAIL(err, CORRUPT, "%s: tensor '%.200s': 'dtype' is %s, which is not known",
                       file->name, name, mr_json_describe(dtype));

    mr_status status = parse_shape(file, json_object_get(value, "shape"), tensor, err);
    if (status == MR_OK)
        status = parse_range(file, json_object_get(value, "data_offsets"), payload, tensor, err);
    if (status != MR_OK)
        return status;

    size_t need;
    char shape[MR_SHAPE_TEXT];
    mr_shape_text(tensor->n_dims, tensor->shape, shape);
    if (!mr_tensor_dense_bytes(tensor->dtype, tensor->n_dims, tensor->shape, &need))
        return MR_FAIL(err, CORRUPT, "%s: tensor '%.200s': the size of %s %s overflows", file->name,
                       name, mr_dtype_name(tensor->dtype), shape);
    if (need != tensor->bytes)
        return MR_FAIL(err, CORRUPT,
                       "%s: tensor '%.200s' is %s %s, %zu bytes, but its range has %zu", file->name,
                       name, mr_dtype_name(tensor->dtype), shape, need, tensor->bytes);
    return MR_OK;
}

static mr_status parse_metadata(mr_safetensors *file, json_t *value, mr_error *err)
{
    if (!json_is_object(value))
        return MR_FAIL(err, CORRUPT, "%s: '%s' is %s, expected an object", file->name, METADATA_KEY,
                       mr_json_describe(value));
    file->metadata = mr_arena_array(&file->arena, const char *, 2 * json_object_size(value));
    if (!file->metadata)
        return MR_FAIL(err, NO_MEMORY, "%s: the metadata", file->name);

    const char *key;
    json_t *text;
    json_object_foreach(value, key, text)
    {
        if (!json_is_string(text))
            return MR_FAIL(err, CORRUPT, "%s: '%s': '%.200s' is %s, expected a string", file->name,
                           METADATA_KEY, key, mr_json_describe(text));
        const char **pair = file->metadata + 2 * file->n_metadata;
        pair[0] = mr_arena_strndup(&file->arena, key, strlen(key));
        pair[1] = mr_arena_strndup(&file->arena, json_string_value(text), json_string_length(text));
        if (!pair[0] || !pair[1])
            return MR_FAIL(err, NO_MEMORY, "%s: the metadata", file->name);
        file->n_metadata++;
    }
    return MR_OK;
}

static mr_status check_coverage(mr_safetensors *file, mr_bytes payload, mr_error *err)
{
    if (file->n_tensors)
        qsort(file->tensors, file->n_tensors, sizeof *file->tensors, by_range);
    size_t end = 0;
    const char *previous = NULL;
    for (size_t i = 0; i < file->n_tensors; i++) {
        const mr_tensor *tensor = &file->tensors[i];
        const size_t begin = (size_t)((const char *)tensor->data - (const char *)payload.data);
        if (begin < end)
            return MR_FAIL(err, CORRUPT,
                           "%s: tensor '%.150s' begins at byte %zu, inside '%.150s', which ends at "
                           "%zu",
                           file->name, tensor->name, begin, previous, end);
        if (begin > end)
            return MR_FAIL(err, CORRUPT,
                           "%s: bytes %zu to %zu, in front of tensor '%.200s', belong to no tensor",
                           file->name, end, begin, tensor->name);
        end = begin + tensor->bytes;
        previous = tensor->name;
    }
    if (end != payload.len)
        return MR_FAIL(err, CORRUPT,
                       "%s: the tensors end at byte %zu, but the file has %zu bytes of data",
                       file->name, end, payload.len);
    return MR_OK;
}

static mr_status parse(mr_safetensors *file, const char *data, size_t len, mr_error *err)
{
    json_t *root = NULL;
    mr_str header = {0};
    mr_bytes payload = {0};

    mr_status status = split(file, data, len, &header, &payload, err);
    if (status != MR_OK)
        goto out;

    status = mr_json_parse(&root, file->name, header, err);
    if (status != MR_OK)
        goto out;

    const size_t n = json_object_size(root);
    if (n > MR_SAFETENSORS_MAX_TENSORS) {
        status = MR_FAIL(err, CORRUPT, "%s: holds %zu tensors, at most %zu are read", file->name, n,
                         MR_SAFETENSORS_MAX_TENSORS);
        goto out;
    }
    file->tensors = mr_arena_array(&file->arena, mr_tensor, n);
    if (!file->tensors) {
        status = MR_FAIL(err, NO_MEMORY, "%s: a table of %zu tensors", file->name, n);
        goto out;
    }
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        if (strcmp(key, METADATA_KEY) == 0)
            status = parse_metadata(file, value, err);
        else
            status =
                parse_tensor(file, key, value, payload, &file->tensors[file->n_tensors++], err);
        if (status != MR_OK)
            goto out;
    }
    status = check_coverage(file, payload, err);
    if (status != MR_OK)
        goto out;
    mr_safetensors_sort(file);
    file->bytes = len;

out:
    json_decref(root);
    return status;
}

mr_status mr_safetensors_parse(mr_safetensors **out, const char *name, const void *data, size_t len,
                               mr_error *err)
{
    mr_safetensors *file = mr_safetensors_new(name);
    if (!file)
        return MR_FAIL(err, NO_MEMORY, "opening '%s'", name);
    mr_status status = parse(file, data, len, err);
    if (status != MR_OK) {
        mr_safetensors_close(file);
        return status;
    }
    *out = file;
    return MR_OK;
}

const char *mr_safetensors_name(const mr_safetensors *file)
{
    return file->name;
}

size_t mr_safetensors_count(const mr_safetensors *file)
{
    return file->n_tensors;
}

const mr_tensor *mr_safetensors_at(const mr_safetensors *file, size_t index)
{
    return index < file->n_tensors ? &file->tensors[index] : NULL;
}

const mr_tensor *mr_safetensors_find(const mr_safetensors *file, const char *name)
{
    const mr_tensor key = {.name = name};
    if (file->n_tensors == 0)
        return NULL;
    return bsearch(&key, file->tensors, file->n_tensors, sizeof *file->tensors, by_name);
}

const char *mr_safetensors_metadata(const mr_safetensors *file, const char *key)
{
    for (size_t i = 0; i < file->n_metadata; i++) {
        if (strcmp(file->metadata[2 * i], key) == 0)
            return file->metadata[2 * i + 1];
    }
    for (size_t i = 0; i < file->n_shards; i++) {
        const char *value = mr_safetensors_metadata(file->shards[i], key);
        if (value)
            return value;
    }
    return NULL;
}

size_t mr_safetensors_bytes(const mr_safetensors *file)
{
    return file->bytes;
}

mr_status mr_safetensors_need(const mr_safetensors *file, const char *name, int n_dims,
                              const int64_t *shape, mr_tensor *out, mr_error *err)
{
    const mr_tensor *tensor = mr_safetensors_find(file, name);
    if (!tensor)
        return MR_FAIL(err, NOT_FOUND, "%s: tensor '%.200s' is missing", file->name, name);

    bool fits = tensor->n_dims == n_dims;
    for (int d = 0; fits && d < n_dims; d++)
        fits = shape[d] < 0 || shape[d] == tensor->shape[d];
    if (!fits) {
        char found[MR_SHAPE_TEXT], expected[MR_SHAPE_TEXT];
        mr_shape_text(tensor->n_dims, tensor->shape, found);
        mr_shape_text(n_dims, shape, expected);
        return MR_FAIL(err, MISMATCH, "%s: tensor '%.200s' is %s, expected %s", file->name, name,
                       found, expected);
    }
    if (!mr_dtype_is_weight(tensor->dtype))
        return MR_FAIL(err, MISMATCH, "%s: tensor '%.200s' is %s, expected F32, F16 or BF16",
                       file->name, name, mr_dtype_name(tensor->dtype));
    *out = *tensor;
    return MR_OK;
}
