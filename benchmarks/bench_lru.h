/* bench_lru.h - what featurestore/cache.h is measured against: the cache that anyone would write.
 *
 * A hash table and a list in the order of use under one lock; a hit moves its entry to the front.
 * Entries are counted, as there, so that a hit may be used after the lock. Bounded by entries.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_BENCHMARKS_BENCH_LRU_H
#define MR_BENCHMARKS_BENCH_LRU_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/hash.h"

typedef struct lru_entry {
    struct lru_entry *chain, *newer, *older;
    uint64_t hash;
    size_t key_len, record_len;
    atomic_uint pins;
    char bytes[]; /* the record, then the key */
} lru_entry;

typedef struct {
    pthread_mutex_t lock;
    lru_entry **index;
    size_t mask, n, most;
    lru_entry *newest, *oldest;
} lru;

static inline bool lru_init(lru *cache, size_t most)
{
    size_t slots = 64;
    while (slots < most)
        slots *= 2;
    *cache = (lru){.index = calloc(slots, sizeof(lru_entry *)), .mask = slots - 1, .most = most};
    pthread_mutex_init(&cache->lock, NULL);
    return cache->index != NULL;
}

static inline void lru_release(lru_entry *e)
{
    if (e && atomic_fetch_sub_explicit(&e->pins, 1, memory_order_acq_rel) == 1)
        free(e);
}

static inline void lru_unlink(lru *cache, lru_entry *e)
{
    *(e->newer ? &e->newer->older : &cache->newest) = e->older;
    *(e->older ? &e->older->newer : &cache->oldest) = e->newer;
}

static inline void lru_push(lru *cache, lru_entry *e)
{
    e->newer = NULL;
    e->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = e;
    cache->newest = e;
}

static inline lru_entry *lru_get(lru *cache, mr_bytes key)
{
    const uint64_t hash = mr_hash_xxh3(key.data, key.len);
    pthread_mutex_lock(&cache->lock);
    lru_entry *e = cache->index[hash & cache->mask];
    while (e && (e->hash != hash || e->key_len != key.len ||
                 memcmp(e->bytes + e->record_len, key.data, key.len) != 0))
        e = e->chain;
    if (e) {
        atomic_fetch_add_explicit(&e->pins, 1, memory_order_relaxed);
        lru_unlink(cache, e);
        lru_push(cache, e);
    }
    pthread_mutex_unlock(&cache->lock);
    return e;
}

static inline lru_entry *lru_drop_oldest(lru *cache)
{
    lru_entry *e = cache->oldest, **link = &cache->index[e->hash & cache->mask];
    while (*link != e)
        link = &(*link)->chain;
    *link = e->chain;
    lru_unlink(cache, e);
    cache->n--;
    return e;
}

/* The key is not in it. */
static inline void lru_put(lru *cache, mr_bytes key, mr_bytes record)
{
    lru_entry *e = malloc(sizeof *e + key.len + record.len), *gone = NULL;
    if (!e)
        return;
    *e = (lru_entry){
        .hash = mr_hash_xxh3(key.data, key.len), .key_len = key.len, .record_len = record.len};
    atomic_init(&e->pins, 1);
    memcpy(e->bytes, record.data, record.len);
    memcpy(e->bytes + record.len, key.data, key.len);
    pthread_mutex_lock(&cache->lock);
    if (cache->n == cache->most)
        gone = lru_drop_oldest(cache);
    e->chain = cache->index[e->hash & cache->mask];
    cache->index[e->hash & cache->mask] = e;
    lru_push(cache, e);
    cache->n++;
    pthread_mutex_unlock(&cache->lock);
    lru_release(gone);
}

static inline void lru_destroy(lru *cache)
{
    while (cache->oldest)
        lru_release(lru_drop_oldest(cache));
    free(cache->index);
    pthread_mutex_destroy(&cache->lock);
}

#endif
