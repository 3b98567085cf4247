/* safetensors_private.h - what safetensors.c, safetensors_shards.c and safetensors_write.c share.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_SAFETENSORS_PRIVATE_H
#define MR_ENGINE_SAFETENSORS_PRIVATE_H

#include <stdbool.h>

#include "core/arena.h"
#include "core/file.h"
#include "engine/safetensors.h"

#define SAFETENSORS_LENGTH_BYTES 8 /* the u64 in front of the header */

/* One file, or a folder of them: then the tensors are copies of the shards' views. */
struct mr_safetensors {
    mr_arena arena; /* everything below but the maps and the shards */
    const char *name;
    mr_file_map map;    /* empty for memory and for a sharded set */
    mr_tensor *tensors; /* by name, bytewise */
    size_t n_tensors;
    const char **metadata; /* key, value, key, value */
    size_t n_metadata;     /* pairs */
    size_t bytes;
    mr_safetensors **shards; /* owned */
    size_t n_shards;
};

/* An empty one with a name; NULL when memory is out. */
mr_safetensors *mr_safetensors_new(const char *name);

/* Sorts by name, for find. */
void mr_safetensors_sort(mr_safetensors *file);

/* Bytes of a dense tensor; false when the product does not fit. shape must not be negative. */
bool mr_tensor_dense_bytes(mr_dtype dtype, int n_dims, const int64_t *shape, size_t *out);

#endif
