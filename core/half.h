/* half.h - float16 and bfloat16 as bits: exact widening, round-to-nearest-even narrowing.
 *
 * Lives in core because both the engine's weights and the store's records need it. One value at a
 * time; the engine's kernels have faster twins for rows.
 * Narrowing: overflow becomes infinity, NaN stays NaN (quiet), subnormals are kept.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_HALF_H
#define MR_CORE_HALF_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline float mr_bf16_to_f32(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* binary16 is 1 sign, 5 exponent and 10 fraction bits; binary32 has 8 and 23. So an exponent moves
 * by 127 - 15 = 112 and a fraction by 13 bits. All three cases are computed and masks choose: a
 * loop of this has no branches, and compilers make vectors of it. No subnormal number is computed
 * with, so that a process that flushes them to zero gets the same. */
static inline float mr_f16_to_f32(uint16_t bits)
{
    const uint32_t magnitude = bits & UINT32_C(0x7fff), moved = magnitude << 13;
    const uint32_t is_subnormal = 0 - ((magnitude - UINT32_C(0x0400)) >> 31);
    const uint32_t is_special = 0 - ((UINT32_C(0x7bff) - magnitude) >> 31); /* infinity and NaN */
    const float fraction = (float)(int32_t)magnitude * 0x1p-24f; /* of a subnormal, exactly */
    uint32_t subnormal, wide;
    float value;
    memcpy(&subnormal, &fraction, sizeof subnormal);
    wide = ((moved + (UINT32_C(112) << 23)) & ~is_subnormal) | (subnormal & is_subnormal);
    wide |= is_special & UINT32_C(0x7f800000);
    wide |= (bits & UINT32_C(0x8000)) << 16;
    memcpy(&value, &wide, sizeof value);
    return value;
}
uint16_t mr_f32_to_bf16(float value);
uint16_t mr_f32_to_f16(float value);

#endif
