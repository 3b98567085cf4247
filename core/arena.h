/* arena.h - one lifetime, one free.
 *
 *     mr_arena arena = {.limit = 64 << 20};        zero-initialised apart from the limit is ready
 *     float *row = mr_arena_array(&arena, float, n);
 *     mr_arena_mark mark = mr_arena_now(&arena);   scratch from here on
 *     mr_arena_rewind(&arena, mark);               blocks are kept for the next use
 *     mr_arena_done(&arena);
 *
 * Memory is zeroed. Allocation returns NULL on overflow, when memory is out, or when the total
 * would pass the limit: a bound on what a user can make us allocate, and a way to make the k-th
 * allocation fail in a test. Pointers stay valid until rewind past them or done. Threads: not
 * thread-safe; one arena belongs to one owner at a time.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_ARENA_H
#define MR_CORE_ARENA_H

#include <stddef.h>

#include "core/bytes.h"

typedef struct mr_arena_block mr_arena_block;

typedef struct {
    mr_arena_block *first;
    mr_arena_block *current;
    size_t used;  /* bytes handed out */
    size_t limit; /* bytes; 0 means no limit */
} mr_arena;

typedef struct {
    mr_arena_block *block;
    size_t block_used;
    size_t used;
} mr_arena_mark;

void mr_arena_done(mr_arena *arena);

/* count * size bytes at the alignment (a power of two, at most 4096). count of 0 gives a valid
 * pointer to nothing. */
void *mr_arena_alloc(mr_arena *arena, size_t count, size_t size, size_t align);
#define mr_arena_array(arena, type, count) \
    ((type *)mr_arena_alloc((arena), (count), sizeof(type), _Alignof(type)))

/* A terminated copy. */
char *mr_arena_strndup(mr_arena *arena, const char *text, size_t len);

mr_arena_mark mr_arena_now(const mr_arena *arena);
void mr_arena_rewind(mr_arena *arena, mr_arena_mark mark);

#endif
