/* alloc_failure.c - see alloc_failure.h. __real_* is the C library or the sanitizer.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/alloc_failure.h"

#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);

static long until_failure; /* 0: off */

void alloc_fail_at(long k)
{
    until_failure = k;
}

bool alloc_failed(void)
{
    const bool failed = until_failure == 0;
    until_failure = 0;
    return failed;
}

static bool fails(void)
{
    return until_failure > 0 && --until_failure == 0;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
    return fails() ? NULL : __real_realloc(p, size);
}
