/* timeline_private.h - how a timeline lies in memory; for session.c, forward.c and attention.c.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_TIMELINE_PRIVATE_H
#define MR_ENGINE_TIMELINE_PRIVATE_H

#include "engine/timeline.h"

struct mr_timeline {
    const mr_model *model;
    size_t capacity, length;
    void *memory; /* owned */
    size_t bytes;
    float *k, *v; /* [L][K][capacity][D] */
};

/* Where the keys (or values) of a layer's kv head begin: [capacity][D]. */
static inline size_t mr_timeline_at(const mr_timeline *timeline, size_t layer, size_t head)
{
    const mr_model_config *config = &timeline->model->config;
    return (layer * (size_t)config->K + head) * timeline->capacity * (size_t)config->D;
}

#endif
