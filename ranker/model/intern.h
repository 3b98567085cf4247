/* intern.h - names to numbers: ids of items, rows and people, each stored once.
 *
 * The first name is 0, the next new one 1, and so on. Zero-initialised is empty and ready. Names
 * are copied; they and the table are the owner's to release. At most UINT32_MAX - 1 names.
 * Threads: one table, one thread; lookups alone may run at once.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_MODEL_INTERN_H
#define MR_RANKER_MODEL_INTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/error.h"

typedef struct {
    mr_arena arena; /* of the names; its limit may be set before the first add */
    mr_str *name;   /* [n] */
    size_t n, capacity;
    uint32_t *slot; /* [n_slots], a power of two; number + 1, 0 is free */
    size_t n_slots;
} mr_intern;

/* *number is that of the name, new or not; *is_new (may be NULL) says which. */
MR_NODISCARD mr_status mr_intern_add(mr_intern *table, mr_str name, uint32_t *number, bool *is_new,
                                     mr_error *err);
bool mr_intern_find(const mr_intern *table, mr_str name, uint32_t *number);
void mr_intern_release(mr_intern *table); /* ready for reuse */

#endif
