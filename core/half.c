/* half.c - see half.h.
 *
 * Integer arithmetic throughout, so that a process that flushes subnormals to zero gets the same.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/half.h"

static uint32_t to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* bits >> shift, to nearest, ties to even. 1 <= shift <= 31. */
static uint32_t shift_rounded(uint32_t bits, int shift)
{
    uint32_t half = UINT32_C(1) << (shift - 1);
    uint32_t odd = (bits >> shift) & 1;
    return (bits + half - 1 + odd) >> shift;
}

uint16_t mr_f32_to_bf16(float value)
{
    uint32_t bits = to_bits(value);
    if ((bits & UINT32_C(0x7fffffff)) > UINT32_C(0x7f800000))
        return (uint16_t)(bits >> 16 | 0x0040u); /* rounding a NaN could make it infinity */
    /* A carry out of the fraction raises the exponent, up to infinity, as it should. The sum cannot
     * wrap: NaN is gone, and the largest other bits are those of minus infinity. */
    return (uint16_t)shift_rounded(bits, 16);
}

uint16_t mr_f32_to_f16(float value)
{
    uint32_t bits = to_bits(value);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t magnitude = bits & UINT32_C(0x7fffffff);
    if (magnitude > UINT32_C(0x7f800000))
        return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x03ffu));
    if (magnitude >= UINT32_C(0x477ff000)) /* 65520, half-way to 2^16, rounds up: infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude >= UINT32_C(113) << 23) /* 2^-14: normal */
        return (uint16_t)(sign | shift_rounded(magnitude - (UINT32_C(112) << 23), 13));
    if (magnitude < UINT32_C(102) << 23) /* below 2^-25, half of the smallest */
        return (uint16_t)sign;
    uint32_t fraction = (magnitude & UINT32_C(0x7fffff)) | UINT32_C(0x800000);
    int exponent = (int)(magnitude >> 23); /* 102..112 */
    return (uint16_t)(sign | shift_rounded(fraction, 126 - exponent));
}
