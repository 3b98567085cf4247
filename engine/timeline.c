/* timeline.c - memory of keys and values, and a branch off a shared beginning. See timeline.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/layout.h"
#include "engine/timeline_private.h"

static void lay_out(mr_timeline *timeline, mr_layout *layout)
{
    const mr_model_config *config = &timeline->model->config;
    const size_t rows = (size_t)config->L * (size_t)config->K * (size_t)config->D;
    timeline->k = mr_layout_part(layout, rows, timeline->capacity, sizeof(float));
    timeline->v = mr_layout_part(layout, rows, timeline->capacity, sizeof(float));
}

size_t mr_timeline_bytes_for(const mr_model *model, size_t capacity)
{
    mr_timeline timeline = {.model = model, .capacity = capacity};
    mr_layout plan = {0};
    lay_out(&timeline, &plan);
    return plan.overflow || plan.used > SIZE_MAX - sizeof timeline ? SIZE_MAX
                                                                   : plan.used + sizeof timeline;
}

mr_status mr_timeline_new(mr_timeline **out, const mr_model *model, size_t capacity, mr_error *err)
{
    const size_t positions = (size_t)model->config.max_positions;
    if (capacity > positions)
        return MR_FAIL(err, EXHAUSTED,
                       "a timeline of %zu positions; the model has max_position_embeddings %zu",
                       capacity, positions);
    mr_timeline *timeline = calloc(1, sizeof *timeline);
    if (!timeline)
        return MR_FAIL(err, NO_MEMORY, "a timeline");
    timeline->model = model;
    timeline->capacity = capacity;
    mr_layout plan = {0}, real;
    lay_out(timeline, &plan);
    timeline->memory = mr_layout_allocate(&plan, &real, &timeline->bytes);
    if (!timeline->memory) {
        free(timeline);
        return MR_FAIL(err, NO_MEMORY, "a timeline of %zu positions (%zu bytes)", capacity,
                       plan.overflow ? SIZE_MAX : plan.used);
    }
    lay_out(timeline, &real);
    *out = timeline;
    return MR_OK;
}

void mr_timeline_free(mr_timeline *timeline)
{
    if (!timeline)
        return;
    free(timeline->memory);
    free(timeline);
}

size_t mr_timeline_bytes(const mr_timeline *timeline)
{
    return timeline->bytes + sizeof *timeline;
}

size_t mr_timeline_length(const mr_timeline *timeline)
{
    return timeline->length;
}

size_t mr_timeline_capacity(const mr_timeline *timeline)
{
    return timeline->capacity;
}

void mr_timeline_truncate(mr_timeline *timeline, size_t length)
{
    if (length < timeline->length)
        timeline->length = length;
}

mr_status mr_timeline_copy(mr_timeline *to, const mr_timeline *from, size_t length, mr_error *err)
{
    if (to->model != from->model)
        return MR_FAIL(err, INVALID, "a timeline of one model cannot be copied to another's");
    if (length > from->length || length > to->capacity)
        return MR_FAIL(err, INVALID,
                       "%zu positions to copy from a timeline that holds %zu to one with room for "
                       "%zu",
                       length, from->length, to->capacity);
    const mr_model_config *config = &to->model->config;
    const size_t bytes = length * (size_t)config->D * sizeof(float);
    for (size_t layer = 0; layer < (size_t)config->L; layer++) {
        for (size_t head = 0; head < (size_t)config->K; head++) {
            const size_t at = mr_timeline_at(to, layer, head),
                         at_from = mr_timeline_at(from, layer, head);
            memcpy(to->k + at, from->k + at_from, bytes);
            memcpy(to->v + at, from->v + at_from, bytes);
        }
    }
    to->length = length;
    return MR_OK;
}
