/* arena.c - a chain of blocks, each bump-allocated. See arena.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_MIN ((size_t)64 << 10)
#define ALIGN_MAX 4096

struct mr_arena_block {
    mr_arena_block *next;
    size_t capacity;
    size_t used;
    _Alignas(max_align_t) unsigned char data[];
};

void mr_arena_done(mr_arena *arena)
{
    if (!arena)
        return;
    for (mr_arena_block *block = arena->first; block;) {
        mr_arena_block *next = block->next;
        free(block);
        block = next;
    }
    *arena = (mr_arena){.limit = arena->limit};
}

static void *take_from(mr_arena_block *block, size_t bytes, size_t align)
{
    unsigned char *base = block->data + block->used;
    size_t pad = (size_t)(-(uintptr_t)base & (align - 1));
    size_t need;
    if (!mr_size_add(bytes, pad, &need) || need > block->capacity - block->used)
        return NULL;
    block->used += need;
    return memset(base + pad, 0, bytes);
}

void *mr_arena_alloc(mr_arena *arena, size_t count, size_t size, size_t align)
{
    size_t bytes, total;
    if (align == 0 || (align & (align - 1)) != 0 || align > ALIGN_MAX ||
        !mr_size_mul(count, size, &bytes) || !mr_size_add(arena->used, bytes, &total) ||
        (arena->limit && total > arena->limit))
        return NULL;

    /* Blocks after the current one are left over from before a rewind: use them first. */
    for (mr_arena_block *block = arena->current; block; block = block->next) {
        void *p = take_from(block, bytes, align);
        if (p) {
            arena->current = block;
            arena->used = total;
            return p;
        }
        if (block->next)
            block->next->used = 0;
    }

    size_t capacity;
    if (!mr_size_add(bytes, align, &capacity))
        return NULL;
    if (capacity < BLOCK_MIN)
        capacity = BLOCK_MIN;
    if (capacity > SIZE_MAX - sizeof(mr_arena_block))
        return NULL;
    mr_arena_block *block = malloc(sizeof *block + capacity);
    if (!block)
        return NULL;
    block->next = NULL;
    block->capacity = capacity;
    block->used = 0;
    mr_arena_block **tail = &arena->first;
    while (*tail)
        tail = &(*tail)->next;
    *tail = block;
    arena->current = block;
    arena->used = total;
    return take_from(block, bytes, align);
}

char *mr_arena_strndup(mr_arena *arena, const char *text, size_t len)
{
    size_t bytes;
    if (!mr_size_add(len, 1, &bytes))
        return NULL;
    char *copy = mr_arena_alloc(arena, bytes, 1, 1);
    if (copy && len)
        memcpy(copy, text, len);
    return copy;
}

mr_arena_mark mr_arena_now(const mr_arena *arena)
{
    mr_arena_block *block = arena->current;
    return (mr_arena_mark){block, block ? block->used : 0, arena->used};
}

void mr_arena_rewind(mr_arena *arena, mr_arena_mark mark)
{
    mr_arena_block *block = mark.block ? mark.block : arena->first;
    if (block) /* those after it are emptied when an allocation reaches them */
        block->used = mark.block ? mark.block_used : 0;
    arena->current = block;
    arena->used = mark.used;
}
