/* names.h - small tables that every part of the demo catalogue needs: text -> number, and growing
 * lists of numbers.
 *
 * Numbers are handed out from 0 in the order of first sight, so that arrays beside a table are
 * indexed by them. Zero-initialised is empty and ready. Threads: one table, one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_DEPLOY_DEMO_NAMES_H
#define MR_DEPLOY_DEMO_NAMES_H

#include <stdint.h>

#include "core/arena.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/rng.h"

#define DEMO_NONE UINT32_MAX

typedef struct {
    uint32_t *id; /* owned */
    size_t n;
    size_t capacity;
} demo_ids;

mr_status demo_ids_push(demo_ids *ids, uint32_t id, mr_error *err);
void demo_ids_sort(demo_ids *ids); /* ascending, repeated ones dropped */
bool demo_ids_hold(const demo_ids *sorted, uint32_t id);
void demo_ids_shuffle(demo_ids *ids, mr_rng *rng);
void demo_ids_done(demo_ids *ids);

typedef struct {
    mr_str *name; /* [n], texts borrowed from whoever added them */
    size_t n;
    size_t capacity;
    uint32_t *slot; /* open addressing, a power of two */
    size_t n_slots;
} demo_names;

/* The number of the name, given out now if it is new. The text must outlive the table; with a
 * scratch text use the copying form. */
mr_status demo_names_add(demo_names *names, mr_str name, uint32_t *id, mr_error *err);
mr_status demo_names_add_copy(demo_names *names, mr_arena *arena, mr_str name, uint32_t *id,
                              mr_error *err);
uint32_t demo_names_find(const demo_names *names, mr_str name); /* DEMO_NONE: unknown */
void demo_names_done(demo_names *names);

int demo_str_compare(mr_str a, mr_str b); /* by bytes, as strcmp */
mr_status demo_str_copy(mr_arena *arena, mr_str text, mr_str *out, mr_error *err);

#endif
