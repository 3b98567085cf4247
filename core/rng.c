/* rng.c - see rng.h.
 *
 * The C library's log may differ in the last bit from one machine to the next, and the sequence is
 * a promise, so normal variates use a logarithm made of additions, multiplications and divisions,
 * which IEEE 754 rounds the same way everywhere (the build forbids contraction).
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/rng.h"

#include <math.h>

mr_rng mr_rng_seed(uint64_t seed)
{
    return (mr_rng){seed};
}

uint64_t mr_rng_u64(mr_rng *rng)
{
    uint64_t z = rng->state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

uint64_t mr_rng_below(mr_rng *rng, uint64_t n)
{
    /* 2^64 mod n values at the bottom would be one time too many: draw again. */
    uint64_t surplus = (0 - n) % n;
    uint64_t draw;
    do
        draw = mr_rng_u64(rng);
    while (draw < surplus);
    return draw % n;
}

double mr_rng_uniform(mr_rng *rng)
{
    return (double)(mr_rng_u64(rng) >> 11) * 0x1p-53;
}

/* ln(x) = e ln 2 + 2 artanh(z), z = (m - 1) / (m + 1), for x = m 2^e with m around 1. |z| < 0.1716,
 * so the series is exact to double precision after z^21. */
static double portable_log(double x)
{
    int exponent;
    double m = frexp(x, &exponent);
    if (m < 0.70710678118654752) {
        m *= 2;
        exponent--;
    }
    double z = (m - 1) / (m + 1);
    double square = z * z;
    double sum = 0;
    for (int k = 21; k >= 1; k -= 2)
        sum = sum * square + 1.0 / k;
    return exponent * 0.69314718055994531 + 2 * z * sum;
}

/* Marsaglia's polar method (1964). The second variate of a pair is not kept: one call, one draw,
 * and the state stays one number. */
double mr_rng_normal(mr_rng *rng)
{
    double u, square;
    do {
        u = 2 * mr_rng_uniform(rng) - 1;
        double v = 2 * mr_rng_uniform(rng) - 1;
        square = u * u + v * v;
    } while (square >= 1 || square == 0);
    return u * sqrt(-2 * portable_log(square) / square);
}
