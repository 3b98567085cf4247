/* bundle_dot.c - late fusion by a bundle's item encoder. See bundle_system.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>

#include "core/clock.h"
#include "ranker/evaluation/bundle_system_private.h"

#define MOST_NEAREST 64

static void normalise(float *vector, size_t dim)
{
    double sum = 0;
    for (size_t i = 0; i < dim; i++)
        sum += (double)vector[i] * (double)vector[i];
    const float scale = sum > 0 ? (float)(1 / sqrt(sum)) : 0;
    for (size_t i = 0; i < dim; i++)
        vector[i] *= scale;
}

typedef struct {
    mr_bundle_system *system;
    const uint32_t *item; /* of each id asked for */
    float *values;        /* [T][dim], scratch */
    mr_error why;         /* the first record that cannot be used */
} mean_visit;

static void on_record(void *context, size_t i, mr_bytes record)
{
    mean_visit *visit = context;
    mr_bundle_system *system = visit->system;
    const mr_encoder_spec *spec = &system->bundle->item;
    mr_record_info info;
    if (!record.data || visit->why.status != MR_OK)
        return;
    if (mr_record_decode("an item's record", record, &info, visit->values,
                         (size_t)spec->tokens * spec->dim, &visit->why) != MR_OK)
        return;
    if (info.tokens == 0)
        return;
    if (info.dim != spec->dim) {
        MR_FAIL(&visit->why, MISMATCH, "an item's record has width %u, expected %zu", info.dim,
                spec->dim);
        return;
    }
    float *mean = system->mean + system->n_slots * spec->dim;
    for (size_t t = 0; t < info.tokens; t++)
        for (size_t d = 0; d < spec->dim; d++)
            mean[d] += visit->values[t * spec->dim + d] / (float)info.tokens;
    normalise(mean, spec->dim);
    system->slot[visit->item[i]] = (uint32_t)++system->n_slots;
}

mr_status mr_bundle_system_make_means(mr_bundle_system *system, const uint8_t *needed,
                                      mr_error *err)
{
    const mr_encoder_spec *spec = &system->bundle->item;
    const size_t n_items = mr_tasks_n_items(system->tasks);
    size_t n = 0;
    mr_arena_rewind(&system->arena, (mr_arena_mark){0});
    mr_str *ids = mr_arena_array(&system->arena, mr_str, n_items);
    uint32_t *item = mr_arena_array(&system->arena, uint32_t, n_items);
    float *values = mr_arena_array(&system->arena, float, (size_t)spec->tokens * spec->dim);
    if (!ids || !item || !values)
        return MR_FAIL(err, NO_MEMORY, "means of %zu items", n_items);
    for (size_t i = 0; i < n_items; i++)
        if (needed[i]) {
            ids[n] = mr_tasks_item(system->tasks, (uint32_t)i)->id;
            item[n++] = (uint32_t)i;
        }
    system->slot = calloc(n_items + 1, sizeof *system->slot);
    system->mean = calloc(n * spec->dim + 1, sizeof *system->mean);
    if (!system->slot || !system->mean)
        return MR_FAIL(err, NO_MEMORY, "means of %zu items", n);
    mean_visit visit = {.system = system, .item = item, .values = values};
    mr_status status =
        mr_store_fetch(system->store, MR_ENTITY_ITEM, spec->space, ids, n, on_record, &visit, err);
    if (status == MR_OK && visit.why.status != MR_OK) {
        status = visit.why.status;
        if (err)
            *err = visit.why;
    }
    return status;
}

static const float *mean_of(const mr_bundle_system *system, uint32_t item)
{
    const uint32_t slot = system->slot[item];
    return slot ? system->mean + (size_t)(slot - 1) * system->bundle->item.dim : NULL;
}

static double product(const float *a, const float *b, size_t dim)
{
    float sum[4] = {0};
    size_t i = 0;
    for (; i + 4 <= dim; i += 4)
        for (size_t k = 0; k < 4; k++)
            sum[k] += a[i + k] * b[i + k];
    for (; i < dim; i++)
        sum[0] += a[i] * b[i];
    return (double)sum[0] + (double)sum[1] + (double)sum[2] + (double)sum[3];
}

/* Mean of the highest cosines with items of the history; 0 when none has a vector. */
static double nearness(const mr_bundle_system *system, const mr_task_row *row, const float *mean,
                       size_t most)
{
    double best[MOST_NEAREST];
    size_t n = 0;
    for (size_t h = 0; h < row->n_history; h++) {
        const float *other = mean_of(system, row->history[h]);
        if (!other)
            continue;
        const double value = product(mean, other, system->bundle->item.dim);
        if (n == most && value <= best[n - 1])
            continue;
        size_t at = n < most ? n++ : most - 1;
        for (; at > 0 && best[at - 1] < value; at--)
            best[at] = best[at - 1];
        best[at] = value;
    }
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += best[i];
    return n ? sum / (double)n : 0;
}

/* The query's vector, of unit length; *out is NULL for a query without tokens. */
static mr_status encode_query(mr_bundle_system *system, mr_str query, bool last_token,
                              const float **out, uint64_t *n_tokens, mr_error *err)
{
    const mr_encoder_spec *spec = &system->bundle->item;
    float *values = mr_arena_array(&system->arena, float, (size_t)spec->tokens * spec->dim);
    if (!values)
        return MR_FAIL(err, NO_MEMORY, "a query's vectors");
    const mr_field field = {mr_str_of("text"), query};
    const mr_fields fields = {&field, 1};
    uint16_t tokens = 0;
    mr_text_encoder_stats stats = {0};
    *out = NULL;
    mr_status status =
        mr_text_encoder_run(system->encoder, &fields, 1, values, &tokens, &stats, err);
    if (status != MR_OK || tokens == 0)
        return status;
    float *vector = values;
    if (last_token)
        vector += (size_t)(tokens - 1) * spec->dim;
    else
        for (size_t t = 1; t < tokens; t++)
            for (size_t d = 0; d < spec->dim; d++)
                vector[d] += values[t * spec->dim + d];
    normalise(vector, spec->dim);
    *n_tokens += stats.text_tokens;
    *out = vector;
    return MR_OK;
}

mr_status mr_bundle_system_dot(mr_bundle_system *system, const mr_task_row *row,
                               const mr_bundle_variant *variant, const mr_dot_options *options,
                               double *scores, mr_system_work *work, mr_error *err)
{
    const int64_t started = mr_clock_monotonic_us();
    const float *query = NULL;
    const bool history = !variant->no_user && options->history != 0;
    size_t nearest = options->nearest ? options->nearest : 3;
    if (nearest > MOST_NEAREST)
        nearest = MOST_NEAREST;
    mr_arena_rewind(&system->arena, (mr_arena_mark){0});
    if (!variant->no_query && row->query.len) {
        mr_status status = encode_query(system, row->query, options->last_token, &query,
                                        &work->prefix_tokens, err);
        if (status != MR_OK)
            return mr_error_prefix(err, status, "row '%.*s'", MR_STR_ARG(row->id));
    }
    for (size_t i = 0; i < row->n_candidates; i++) {
        const float *mean = mean_of(system, mr_task_candidate(row, i));
        work->candidates++;
        if (!mean) {
            scores[i] = (double)NAN;
            work->unscored++;
            continue;
        }
        scores[i] = query ? product(query, mean, system->bundle->item.dim) : 0;
        if (history)
            scores[i] += options->history * nearness(system, row, mean, nearest);
    }
    work->time_us += mr_clock_monotonic_us() - started;
    return MR_OK;
}
