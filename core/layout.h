/* layout.h - many parts of one allocation, each on a cache line: scratch that is sized once.
 *
 *     mr_layout plan = {0}, real;
 *     lay_out(s, &plan);                        parts are NULL, sizes add up
 *     s->memory = mr_layout_allocate(&plan, &real, &s->bytes);
 *     lay_out(s, &real);                        the same calls again, now with addresses
 *
 * Laying out twice with one function keeps sizes and addresses from disagreeing.
 * Threads: a layout belongs to one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_LAYOUT_H
#define MR_CORE_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>

#define MR_LAYOUT_ALIGN 64

typedef struct {
    char *base;    /* NULL while planning */
    size_t used;   /* bytes handed out so far, each part rounded up to MR_LAYOUT_ALIGN */
    bool overflow; /* a size did not fit; sticky */
} mr_layout;

/* The next rows x columns elements of `size` bytes; NULL while planning or after an overflow. */
void *mr_layout_part(mr_layout *layout, size_t rows, size_t columns, size_t size);

/* Zeroed memory for a finished plan, for free(), and the layout that hands out its parts; *bytes is
 * what was allocated. NULL after an overflow or when memory is out; *real and *bytes are then
 * untouched. */
void *mr_layout_allocate(const mr_layout *plan, mr_layout *real, size_t *bytes);

#endif
