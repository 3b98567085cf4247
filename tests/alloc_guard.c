/* alloc_guard.c - linked into tests with mr_test(... ALLOC_GUARD): counts allocations that happen
 * inside a guarded phase (core/guard.h).
 *
 * The linker's --wrap sends our code's calls here. Calls inside shared libraries are not seen; what
 * the engine calls in its forward pass is our own. __real_* is the C library or the sanitizer.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdint.h>

#include "core/guard.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
int __real_posix_memalign(void **out, size_t align, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
int __wrap_posix_memalign(void **out, size_t align, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);

void *__wrap_malloc(size_t size)
{
    mr_guard_note_allocation(size);
    return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    mr_guard_note_allocation(size != 0 && count > SIZE_MAX / size ? SIZE_MAX : count * size);
    return __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    mr_guard_note_allocation(size);
    return __real_realloc(old, size);
}

int __wrap_posix_memalign(void **out, size_t align, size_t size)
{
    mr_guard_note_allocation(size);
    return __real_posix_memalign(out, align, size);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
    mr_guard_note_allocation(size);
    return __real_aligned_alloc(align, size);
}
