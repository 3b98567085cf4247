/* cache_fixture.h - short forms of what the tests of the cache do all the time. Include after
 * cmocka.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_UNIT_CACHE_FIXTURE_H
#define MR_TESTS_UNIT_CACHE_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "featurestore/cache.h"
#include "tests/support.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define KIB          ((uint64_t)1 << 10)

static inline mr_cache *cache_new(uint64_t bytes)
{
    mr_cache *cache = NULL;
    mr_error err = {0};
    assert_status(mr_cache_new(&cache, bytes, &err), MR_OK, &err);
    return cache;
}

static inline mr_bytes text(const char *terminated)
{
    return (mr_bytes){terminated, strlen(terminated)};
}

/* "key-<i>"; one of four static buffers in turn. */
static inline mr_bytes key_of(size_t i)
{
    static char names[4][24];
    static size_t turn;
    char *name = names[turn++ % 4];
    return (mr_bytes){name, (size_t)snprintf(name, sizeof names[0], "key-%zu", i)};
}

static inline mr_cache_stats stat_of(mr_cache *cache)
{
    mr_cache_stats stats;
    mr_cache_stat(cache, &stats);
    return stats;
}

/* A fill in the place of what is there now. */
static inline mr_cache_fill_kind begin(mr_cache *cache, mr_bytes key, mr_cache_fill **fill)
{
    mr_cache_entry *seen = mr_cache_get(cache, key), *came;
    const mr_cache_fill_kind kind = mr_cache_begin(cache, key, seen, fill, &came);
    assert_null(came);
    mr_cache_release(seen);
    return kind;
}

/* Asks for a key that nobody asks for, and hands in the record. */
static inline void put(mr_cache *cache, mr_bytes key, mr_bytes record)
{
    mr_cache_fill *fill;
    assert_int_equal(begin(cache, key, &fill), MR_CACHE_FILL_OURS);
    mr_cache_entry *entry = mr_cache_end(cache, fill, true, record);
    assert_non_null(entry);
    mr_cache_release(entry);
}

#endif
