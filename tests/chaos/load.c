/* load.c - see load.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/chaos/load.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/rng.h"

#define LATE_MOST      200 /* positions that an event comes late */
#define DUPLICATE_MOST 300

const char *const chaos_poison_codes[CHAOS_POISONS] = {"space", "value", "values", "key", "shape"};

typedef struct {
    uint64_t position;
    uint32_t event;
} slot;

static int compare_slots(const void *left, const void *right)
{
    const slot *a = left, *b = right;
    if (a->position != b->position)
        return a->position < b->position ? -1 : 1;
    return a->event < b->event ? -1 : a->event > b->event;
}

static bool chance(mr_rng *rng, uint64_t per_thousand)
{
    return mr_rng_below(rng, 1000) < per_thousand;
}

static void make_events(chaos_load *load, mr_rng *rng)
{
    for (size_t i = 0; i < load->n; i++) {
        chaos_event *event = &load->events[i];
        *event = (chaos_event){.user = chance(rng, 250), .mark = (float)(i + 1), .version = i + 1};
        event->key = (uint32_t)mr_rng_below(rng, event->user ? load->n_users : load->n_items);
        if (chance(rng, 10)) {
            event->kind = CHAOS_TOMBSTONE;
            load->tombstones++;
        }
        if (chance(rng, 1) || i == load->n / 2) { /* one at least */
            event->kind = CHAOS_POISON;
            event->poison = (int)(load->poison++ % CHAOS_POISONS);
            load->poison_by_kind[event->poison]++;
        }
    }
}

/* Events keep their place but for those that are late or come a second time. */
static size_t place_events(chaos_load *load, slot *slots, mr_rng *rng)
{
    size_t n = 0;
    for (size_t i = 0; i < load->n; i++) {
        const chaos_event *event = &load->events[i];
        const bool late = event->kind != CHAOS_POISON && chance(rng, 50);
        const bool twice = event->kind != CHAOS_POISON && chance(rng, 100);
        slots[n++] = (slot){i + (late ? 1 + mr_rng_below(rng, LATE_MOST) : 0), (uint32_t)i};
        load->late += late;
        if (twice)
            slots[n++] = (slot){i + mr_rng_below(rng, DUPLICATE_MOST), (uint32_t)i};
        load->duplicates += twice;
    }
    return n;
}

/* The plain loop: one thread, in the order of the log. */
static void replay(chaos_load *load)
{
    for (size_t i = 0; i < load->n_messages; i++) {
        const chaos_event *event = &load->events[load->order[i]];
        if (event->kind == CHAOS_POISON)
            continue;
        chaos_record *record = event->user ? &load->users[event->key] : &load->items[event->key];
        if (!event->user && record->written && event->version <= record->version)
            continue;
        *record = (chaos_record){.written = true,
                                 .tombstone = event->kind == CHAOS_TOMBSTONE,
                                 .version = event->version,
                                 .mark = event->mark};
    }
}

bool chaos_load_make(chaos_load *out, size_t events, uint64_t seed)
{
    mr_rng rng = mr_rng_seed(seed);
    *out = (chaos_load){.n = events,
                        .n_items = (uint32_t)(events / 20 + 1),
                        .n_users = (uint32_t)(events / 80 + 1)};
    out->events = calloc(events, sizeof *out->events);
    out->items = calloc(out->n_items, sizeof *out->items);
    out->users = calloc(out->n_users, sizeof *out->users);
    out->order = calloc(2 * events, sizeof *out->order);
    slot *slots = calloc(2 * events, sizeof *slots);
    const bool made = out->events && out->items && out->users && out->order && slots;
    if (made) {
        make_events(out, &rng);
        out->n_messages = place_events(out, slots, &rng);
        qsort(slots, out->n_messages, sizeof *slots, compare_slots);
        for (size_t i = 0; i < out->n_messages; i++)
            out->order[i] = slots[i].event;
        replay(out);
    } else {
        chaos_load_free(out);
    }
    free(slots);
    return made;
}

void chaos_load_free(chaos_load *load)
{
    free(load->events);
    free(load->items);
    free(load->users);
    free(load->order);
    *load = (chaos_load){0};
}

void chaos_key(const chaos_event *event, size_t i, char out[32])
{
    if (event->kind == CHAOS_POISON)
        snprintf(out, 32, "poison-%zu", i);
    else
        snprintf(out, 32, "%c%" PRIu32, event->user ? 'u' : 'i', event->key);
}
