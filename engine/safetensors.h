/* safetensors.h - read, validate and write the safetensors format, single file or sharded.
 *
 * Layout (huggingface/safetensors, README "Format"): u64 little-endian N; N bytes of JSON that
 * start with '{' and may end in spaces; then the tensor bytes. The JSON maps a name to
 * {"dtype","shape","data_offsets":[begin,end)} with offsets from the end of the header;
 * "__metadata__" maps strings to strings.
 *
 * A file is trusted for nothing: the header is at most 100 MB and inside the file, every dtype is
 * known, shape products do not overflow and equal the byte range, ranges are inside the file, do
 * not overlap and leave no holes, names are unique. (The checks of the reference implementation;
 * like it, unknown keys beside "dtype", "shape" and "data_offsets" are passed over.) Failures are
 * CORRUPT and name file, tensor, found and expected.
 *
 * Data is mapped, not copied: mr_tensor.data is borrowed from the mr_safetensors until close and
 * may have no alignment beyond 1. Threads: read-only after open; may be shared.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_SAFETENSORS_H
#define MR_ENGINE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "engine/dtype.h"

#define MR_TENSOR_MAX_DIMS         8
#define MR_SAFETENSORS_MAX_HEADER  ((size_t)100 * 1000 * 1000) /* the reference's own bound */
#define MR_SAFETENSORS_MAX_TENSORS ((size_t)1000 * 1000)

/* A borrowed, dense, row-major view. */
typedef struct {
    const char *name;
    const void *data;
    mr_dtype dtype;
    int n_dims;
    int64_t shape[MR_TENSOR_MAX_DIMS];
    size_t bytes;
} mr_tensor;

typedef struct mr_safetensors mr_safetensors;

/* path: a .safetensors file, a .safetensors.index.json, or a folder that holds
 * model.safetensors or model.safetensors.index.json (the single file wins, as in transformers).
 * Shards named by an index must be plain relative names, hold the tensors that the index puts
 * there, and be complete. */
MR_NODISCARD mr_status mr_safetensors_open(mr_safetensors **out, const char *path, mr_error *err);
void mr_safetensors_close(mr_safetensors *file); /* NULL is fine */

/* Parses a file held in memory (borrowed until close). name is for messages. The entry point for
 * fuzzing. */
MR_NODISCARD mr_status mr_safetensors_parse(mr_safetensors **out, const char *name,
                                            const void *data, size_t len, mr_error *err);

/* As given to open or parse. */
const char *mr_safetensors_name(const mr_safetensors *file);
size_t mr_safetensors_count(const mr_safetensors *file);
const mr_tensor *mr_safetensors_at(const mr_safetensors *file, size_t index); /* by name order */
const mr_tensor *mr_safetensors_find(const mr_safetensors *file, const char *name); /* or NULL */
const char *mr_safetensors_metadata(const mr_safetensors *file, const char *key);   /* or NULL */
/* Bytes mapped over all shards. */
size_t mr_safetensors_bytes(const mr_safetensors *file);

/* NOT_FOUND or MISMATCH (shape, dtype not a weight dtype), naming tensor, found and expected.
 * shape: n_dims values, -1 matches any. */
MR_NODISCARD mr_status mr_safetensors_need(const mr_safetensors *file, const char *name, int n_dims,
                                           const int64_t *shape, mr_tensor *out, mr_error *err);

/* "[896, 4864]", "[]", and "?" for -1; for messages. Cut to fit. */
#define MR_SHAPE_TEXT 96
void mr_shape_text(int n_dims, const int64_t *shape, char out[MR_SHAPE_TEXT]);

/* Writes tensors in the given order, 8-byte aligned header, atomically. metadata: key, value pairs
 * ending with NULL, or NULL. INVALID when a name repeats or bytes do not match dtype and shape. */
MR_NODISCARD mr_status mr_safetensors_write(const char *path, const mr_tensor *tensors, size_t n,
                                            const char *const *metadata, mr_error *err);

/* Writes the tensors of one file into another, which may be the same path: weights (F32, F16, BF16)
 * as dtype, one of these, rounded to nearest even; others as they are. Metadata is left behind. */
MR_NODISCARD mr_status mr_safetensors_convert(const char *from, const char *to, mr_dtype dtype,
                                              mr_error *err);

/* As mr_safetensors_write, for tensors that are produced piecewise, so that a file may be larger
 * than memory: open (data and bytes of the tensors are ignored), append in order, commit or
 * abandon. Nothing is under the final name before commit. */
typedef struct mr_safetensors_writer mr_safetensors_writer;
MR_NODISCARD mr_status mr_safetensors_writer_open(mr_safetensors_writer **out, const char *path,
                                                  const mr_tensor *tensors, size_t n,
                                                  const char *const *metadata, mr_error *err);
MR_NODISCARD mr_status mr_safetensors_writer_append(mr_safetensors_writer *writer, const void *data,
                                                    size_t len, mr_error *err);
/* INVALID when fewer bytes came than the tensors have. Frees the writer in any case. */
MR_NODISCARD mr_status mr_safetensors_writer_commit(mr_safetensors_writer *writer, mr_error *err);
void mr_safetensors_writer_abandon(mr_safetensors_writer *writer); /* NULL is fine */

#endif
