/* ops_exp.h - an exponential in float that a compiler can vectorise: no call, no branch.
 *
 * Range reduction by powers of two (the magic constant rounds to a whole number, whose bits are
 * then the low ones of the sum), and the polynomial of the Cephes library's expf (S. Moshier) on
 * [-ln2/2, ln2/2]. Relative error under 2e-7; below -87 it stays at exp(-87), 1.6e-38; NaN stays.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_OPS_EXP_H
#define MR_RANKER_TRAINING_OPS_EXP_H

#include <stdint.h>
#include <string.h>

static inline float mr_exp_f32(float x)
{
    const float magic = 12582912.0f; /* 1.5 x 2^23 */
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float shifted = x * 1.44269504f + magic;
    const float n = shifted - magic;
    const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4B400000u + 127u) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

#endif
