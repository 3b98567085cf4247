/* rng.h - a seeded generator whose sequence is part of the contract (SplitMix64, Steele et al.
 * 2014): the same seed gives the same weights and the same sample on every machine.
 * Not for secrets. Threads: one generator, one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_RNG_H
#define MR_CORE_RNG_H

#include <stdint.h>

typedef struct {
    uint64_t state;
} mr_rng;

mr_rng mr_rng_seed(uint64_t seed);
uint64_t mr_rng_u64(mr_rng *rng);
uint64_t mr_rng_below(mr_rng *rng, uint64_t n); /* unbiased, 0..n-1; n must not be 0 */
double mr_rng_uniform(mr_rng *rng);             /* [0, 1), 53 bits */
double mr_rng_normal(mr_rng *rng);              /* mean 0, deviation 1 */

#endif
