/* dtype.c - one table of element types, and loops that widen and narrow.
 *
 * Elements are read through memcpy: tensors in a mapped file may start at any byte. Compilers turn
 * these copies into plain unaligned loads.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/dtype.h"

#include <string.h>

#include "core/half.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#    error "the engine computes on mapped little-endian weights and needs a little-endian machine"
#endif

static const struct {
    const char *name;
    size_t size;
} dtypes[MR_DTYPE_COUNT] = {
    [MR_DTYPE_F64] = {"F64", 8},   [MR_DTYPE_F32] = {"F32", 4}, [MR_DTYPE_F16] = {"F16", 2},
    [MR_DTYPE_BF16] = {"BF16", 2}, [MR_DTYPE_I64] = {"I64", 8}, [MR_DTYPE_I32] = {"I32", 4},
    [MR_DTYPE_I16] = {"I16", 2},   [MR_DTYPE_I8] = {"I8", 1},   [MR_DTYPE_U64] = {"U64", 8},
    [MR_DTYPE_U32] = {"U32", 4},   [MR_DTYPE_U16] = {"U16", 2}, [MR_DTYPE_U8] = {"U8", 1},
    [MR_DTYPE_BOOL] = {"BOOL", 1},
};

size_t mr_dtype_size(mr_dtype dtype)
{
    return dtypes[dtype].size;
}

const char *mr_dtype_name(mr_dtype dtype)
{
    return dtypes[dtype].name;
}

bool mr_dtype_from_name(const char *name, size_t len, mr_dtype *out)
{
    for (int i = 0; i < MR_DTYPE_COUNT; i++) {
        if (strlen(dtypes[i].name) == len && memcmp(dtypes[i].name, name, len) == 0) {
            *out = (mr_dtype)i;
            return true;
        }
    }
    return false;
}

bool mr_dtype_is_weight(mr_dtype dtype)
{
    return dtype == MR_DTYPE_F32 || dtype == MR_DTYPE_F16 || dtype == MR_DTYPE_BF16;
}

static uint16_t half_at(const void *src, size_t i)
{
    uint16_t bits;
    memcpy(&bits, (const char *)src + i * sizeof bits, sizeof bits);
    return bits;
}

static void half_put(void *dst, size_t i, uint16_t bits)
{
    memcpy((char *)dst + i * sizeof bits, &bits, sizeof bits);
}

void mr_dtype_to_f32(float *dst, const void *src, mr_dtype dtype, size_t n)
{
    if (dtype == MR_DTYPE_F32) {
        if (n)
            memcpy(dst, src, n * sizeof *dst);
    } else if (dtype == MR_DTYPE_BF16) {
        for (size_t i = 0; i < n; i++)
            dst[i] = mr_bf16_to_f32(half_at(src, i));
    } else if (dtype == MR_DTYPE_F16) {
        for (size_t i = 0; i < n; i++)
            dst[i] = mr_f16_to_f32(half_at(src, i));
    }
}

void mr_dtype_from_f32(void *dst, mr_dtype dtype, const float *src, size_t n)
{
    if (dtype == MR_DTYPE_F32) {
        if (n)
            memcpy(dst, src, n * sizeof *src);
    } else if (dtype == MR_DTYPE_BF16) {
        for (size_t i = 0; i < n; i++)
            half_put(dst, i, mr_f32_to_bf16(src[i]));
    } else if (dtype == MR_DTYPE_F16) {
        for (size_t i = 0; i < n; i++)
            half_put(dst, i, mr_f32_to_f16(src[i]));
    }
}
