/* dtype.h - element types of tensors, their sizes and names, and bulk conversion to float32.
 *
 * Elements are little-endian in memory, as in the files they are mapped from.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_DTYPE_H
#define MR_ENGINE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    MR_DTYPE_F64,
    MR_DTYPE_F32,
    MR_DTYPE_F16,
    MR_DTYPE_BF16,
    MR_DTYPE_I64,
    MR_DTYPE_I32,
    MR_DTYPE_I16,
    MR_DTYPE_I8,
    MR_DTYPE_U64,
    MR_DTYPE_U32,
    MR_DTYPE_U16,
    MR_DTYPE_U8,
    MR_DTYPE_BOOL,
    MR_DTYPE_COUNT
} mr_dtype;

size_t mr_dtype_size(mr_dtype dtype);
/* As safetensors spells it: "F32", "BF16". */
const char *mr_dtype_name(mr_dtype dtype);
bool mr_dtype_from_name(const char *name, size_t len, mr_dtype *out);
/* F32, F16 and BF16: what weights may be stored in. */
bool mr_dtype_is_weight(mr_dtype dtype);

/* n elements of a weight dtype to float32, exactly. src needs no alignment. */
void mr_dtype_to_f32(float *dst, const void *src, mr_dtype dtype, size_t n);
/* Round to nearest even. dst needs no alignment. */
void mr_dtype_from_f32(void *dst, mr_dtype dtype, const float *src, size_t n);

#endif
