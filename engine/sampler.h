/* sampler.h - the next token from logits: greedy, or temperature and nucleus (top-p) sampling.
 *
 *     mr_sampler sampler;
 *     mr_sampler_init(&sampler, V, 0.7, 0.9, seed, &err);
 *     int32_t id = mr_sampler_next(&sampler, logits);
 *     mr_sampler_done(&sampler);
 *
 * Generation exists because LLaVA answers in text; ranking never decodes.
 * Threads: a sampler belongs to one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_SAMPLER_H
#define MR_ENGINE_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/rng.h"

typedef struct {
    double temperature; /* 0: greedy */
    double top_p; /* (0, 1]; the smallest set of most likely tokens with at least this share */
    mr_rng rng;
    void *scratch; /* [V] pairs, owned; allocated once by init */
    size_t V;
} mr_sampler;

/* INVALID for a negative or non-finite temperature, or top_p outside (0, 1]. *out is overwritten;
 * on failure there is nothing to release. */
MR_NODISCARD mr_status mr_sampler_init(mr_sampler *out, size_t V, double temperature, double top_p,
                                       uint64_t seed, mr_error *err);
void mr_sampler_done(mr_sampler *sampler); /* idempotent */
/* Greedy ties go to the smallest id, as torch.argmax does. NaN logits never win; when nothing else
 * is there, id 0 comes out. A seed gives the same tokens for the same logits. */
int32_t mr_sampler_next(mr_sampler *sampler, const float *logits);

#endif
