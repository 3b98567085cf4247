/* safetensors_convert.c - a file again, with its weights in another type.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "core/arena.h"
#include "engine/safetensors_private.h"

#define CHUNK ((size_t)1 << 16) /* elements */

/* One tensor, in pieces. A type that is no weight's is copied. */
static mr_status append(mr_safetensors_writer *writer, const mr_tensor *from, mr_dtype dtype,
                        float *values, void *bytes, mr_error *err)
{
    const size_t size = mr_dtype_size(from->dtype);
    if (!mr_dtype_is_weight(from->dtype) || from->dtype == dtype)
        return mr_safetensors_writer_append(writer, from->data, from->bytes, err);
    const char *at = from->data;
    for (size_t left = from->bytes / size; left > 0;) {
        const size_t n = left < CHUNK ? left : CHUNK;
        mr_dtype_to_f32(values, at, from->dtype, n);
        mr_dtype_from_f32(bytes, dtype, values, n);
        mr_status status =
            mr_safetensors_writer_append(writer, bytes, n * mr_dtype_size(dtype), err);
        if (status != MR_OK)
            return status;
        at += n * size;
        left -= n;
    }
    return MR_OK;
}

mr_status mr_safetensors_convert(const char *from, const char *to, mr_dtype dtype, mr_error *err)
{
    static const char *const metadata[] = {"format", "pt", NULL};
    mr_arena arena = {0};
    mr_safetensors *file = NULL;
    mr_safetensors_writer *writer = NULL;
    mr_status status = mr_safetensors_open(&file, from, err);
    if (status != MR_OK)
        return status;
    const size_t n = mr_safetensors_count(file);
    mr_tensor *tensors = mr_arena_array(&arena, mr_tensor, n);
    float *values = mr_arena_array(&arena, float, CHUNK),
          *bytes = mr_arena_array(&arena, float, CHUNK);
    if (!tensors || !values || !bytes)
        status = MR_FAIL(err, NO_MEMORY, "converting '%s'", from);
    for (size_t i = 0; status == MR_OK && i < n; i++) {
        tensors[i] = *mr_safetensors_at(file, i);
        if (mr_dtype_is_weight(tensors[i].dtype)) {
            tensors[i].bytes =
                tensors[i].bytes / mr_dtype_size(tensors[i].dtype) * mr_dtype_size(dtype);
            tensors[i].dtype = dtype;
        }
    }
    if (status == MR_OK)
        status = mr_safetensors_writer_open(&writer, to, tensors, n, metadata, err);
    for (size_t i = 0; status == MR_OK && i < n; i++)
        status = append(writer, mr_safetensors_at(file, i), dtype, values, bytes, err);
    if (status == MR_OK) {
        status = mr_safetensors_writer_commit(writer, err);
        writer = NULL;
    }
    mr_safetensors_writer_abandon(writer);
    mr_safetensors_close(file);
    mr_arena_done(&arena);
    return status;
}
