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

float mr_f16_to_f32(uint16_t bits);
uint16_t mr_f32_to_bf16(float value);
uint16_t mr_f32_to_f16(float value);

#endif
