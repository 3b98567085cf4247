/* names.c - see names.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "deploy/demo/names.h"

#include <stdlib.h>
#include <string.h>

#include "core/hash.h"

mr_status demo_ids_push(demo_ids *ids, uint32_t id, mr_error *err)
{
    if (ids->n == ids->capacity) {
        size_t capacity = ids->capacity ? ids->capacity * 2 : 8;
        uint32_t *grown = realloc(ids->id, capacity * sizeof *grown);
        if (!grown)
            return MR_FAIL(err, NO_MEMORY, "a list of %zu numbers", capacity);
        ids->id = grown;
        ids->capacity = capacity;
    }
    ids->id[ids->n++] = id;
    return MR_OK;
}

static int compare_ids(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void demo_ids_sort(demo_ids *ids)
{
    if (ids->n < 2)
        return;
    qsort(ids->id, ids->n, sizeof *ids->id, compare_ids);
    size_t kept = 1;
    for (size_t i = 1; i < ids->n; i++)
        if (ids->id[i] != ids->id[kept - 1])
            ids->id[kept++] = ids->id[i];
    ids->n = kept;
}

bool demo_ids_hold(const demo_ids *sorted, uint32_t id)
{
    return sorted->n && bsearch(&id, sorted->id, sorted->n, sizeof id, compare_ids) != NULL;
}

void demo_ids_shuffle(demo_ids *ids, mr_rng *rng)
{
    for (size_t i = ids->n; i > 1; i--) {
        size_t j = (size_t)mr_rng_below(rng, i);
        uint32_t moved = ids->id[i - 1];
        ids->id[i - 1] = ids->id[j];
        ids->id[j] = moved;
    }
}

void demo_ids_done(demo_ids *ids)
{
    free(ids->id);
    *ids = (demo_ids){0};
}

/* Where the name is, or the free slot where it belongs. */
static size_t slot_of(const demo_names *names, mr_str name)
{
    size_t mask = names->n_slots - 1;
    size_t at = (size_t)mr_hash_xxh3(name.data, name.len) & mask;
    while (names->slot[at] != DEMO_NONE && !mr_str_equal(names->name[names->slot[at]], name))
        at = (at + 1) & mask;
    return at;
}

/* At most half of the slots are in use, so that a search ends soon. */
static mr_status grow(demo_names *names, mr_error *err)
{
    size_t capacity = names->capacity ? names->capacity * 2 : 64;
    mr_str *name = realloc(names->name, capacity * sizeof *name);
    if (!name)
        return MR_FAIL(err, NO_MEMORY, "a table of %zu names", capacity);
    names->name = name;
    size_t n_slots = capacity * 2;
    uint32_t *slot = realloc(names->slot, n_slots * sizeof *slot);
    if (!slot)
        return MR_FAIL(err, NO_MEMORY, "a table of %zu names", capacity);
    names->slot = slot;
    names->n_slots = n_slots;
    names->capacity = capacity;
    for (size_t i = 0; i < n_slots; i++)
        slot[i] = DEMO_NONE;
    for (size_t i = 0; i < names->n; i++)
        slot[slot_of(names, names->name[i])] = (uint32_t)i;
    return MR_OK;
}

static mr_status add(demo_names *names, mr_arena *copy_into, mr_str name, uint32_t *id,
                     mr_error *err)
{
    if (names->n == names->capacity) {
        mr_status status = grow(names, err);
        if (status != MR_OK)
            return status;
    }
    size_t at = slot_of(names, name);
    if (names->slot[at] == DEMO_NONE) {
        mr_str kept = name;
        if (copy_into) {
            mr_status status = demo_str_copy(copy_into, name, &kept, err);
            if (status != MR_OK)
                return status;
        }
        names->name[names->n] = kept;
        names->slot[at] = (uint32_t)names->n++;
    }
    *id = names->slot[at];
    return MR_OK;
}

mr_status demo_names_add(demo_names *names, mr_str name, uint32_t *id, mr_error *err)
{
    return add(names, NULL, name, id, err);
}

mr_status demo_names_add_copy(demo_names *names, mr_arena *arena, mr_str name, uint32_t *id,
                              mr_error *err)
{
    return add(names, arena, name, id, err);
}

uint32_t demo_names_find(const demo_names *names, mr_str name)
{
    return names->n ? names->slot[slot_of(names, name)] : DEMO_NONE;
}

void demo_names_done(demo_names *names)
{
    free(names->name);
    free(names->slot);
    *names = (demo_names){0};
}

int demo_str_compare(mr_str a, mr_str b)
{
    size_t common = a.len < b.len ? a.len : b.len;
    int order = common ? memcmp(a.data, b.data, common) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

mr_status demo_str_copy(mr_arena *arena, mr_str text, mr_str *out, mr_error *err)
{
    char *copy = mr_arena_strndup(arena, text.data ? text.data : "", text.len);
    if (!copy)
        return MR_FAIL(err, NO_MEMORY, "a copy of %zu bytes of text", text.len);
    *out = (mr_str){copy, text.len};
    return MR_OK;
}
