/* alloc_failure.c - see alloc_failure.h. __real_* is the C library or the sanitizer.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/alloc_failure.h"

#include <stdatomic.h>
#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);

static atomic_long until_failure; /* 0: off; threads of the code under test count too */

void alloc_fail_at(long k)
{
    atomic_store(&until_failure, k);
}

bool alloc_failed(void)
{
    return atomic_exchange(&until_failure, 0) <= 0;
}

static bool fails(void)
{
    return atomic_load(&until_failure) > 0 && atomic_fetch_sub(&until_failure, 1) == 1;
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
