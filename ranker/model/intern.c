/* intern.c - see intern.h. Open addressing with linear probing, at most half full.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/model/intern.h"

#include <stdlib.h>

#include "core/hash.h"

#define FIRST_SLOTS ((size_t)1024)

/* The slot that holds the name, or the free one where it belongs. */
static size_t place_of(const mr_intern *table, mr_str name)
{
    size_t at = (size_t)mr_hash_xxh3(name.data, name.len) & (table->n_slots - 1);
    while (table->slot[at] && !mr_str_equal(table->name[table->slot[at] - 1], name))
        at = (at + 1) & (table->n_slots - 1);
    return at;
}

static bool grow(mr_intern *table)
{
    const size_t n_slots = table->n_slots ? 2 * table->n_slots : FIRST_SLOTS;
    mr_str *name = realloc(table->name, n_slots / 2 * sizeof *name);
    if (!name)
        return false;
    table->name = name;
    table->capacity = n_slots / 2;
    uint32_t *slot = calloc(n_slots, sizeof *slot);
    if (!slot)
        return false;
    free(table->slot);
    table->slot = slot;
    table->n_slots = n_slots;
    for (size_t i = 0; i < table->n; i++)
        table->slot[place_of(table, table->name[i])] = (uint32_t)(i + 1);
    return true;
}

mr_status mr_intern_add(mr_intern *table, mr_str name, uint32_t *number, bool *is_new,
                        mr_error *err)
{
    if (table->n >= UINT32_MAX - 1)
        return MR_FAIL(err, EXHAUSTED, "more than %u names", UINT32_MAX - 1);
    if (table->n >= table->n_slots / 2 && !grow(table))
        return MR_FAIL(err, NO_MEMORY, "a table of %zu names", table->n);
    const size_t at = place_of(table, name);
    const bool fresh = table->slot[at] == 0;
    if (fresh) {
        char *copy = mr_arena_strndup(&table->arena, name.data, name.len);
        if (!copy)
            return MR_FAIL(err, NO_MEMORY, "a table of %zu names", table->n);
        table->name[table->n++] = (mr_str){copy, name.len};
        table->slot[at] = (uint32_t)table->n;
    }
    *number = table->slot[at] - 1;
    if (is_new)
        *is_new = fresh;
    return MR_OK;
}

bool mr_intern_find(const mr_intern *table, mr_str name, uint32_t *number)
{
    if (table->n == 0)
        return false;
    const size_t at = place_of(table, name);
    if (table->slot[at] == 0)
        return false;
    *number = table->slot[at] - 1;
    return true;
}

void mr_intern_release(mr_intern *table)
{
    mr_arena_done(&table->arena);
    free(table->name);
    free(table->slot);
    *table = (mr_intern){0};
}
