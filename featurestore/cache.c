/* cache.c - shards, pins and fills. The queues are in cache_shard.c.
 *
 * A fill has two lives. While it may be joined it is in its shard's table, and whoever misses the
 * key waits for it. A change or a flush takes it out of the table: those who wait already get the
 * answer that they asked for before the change, nobody else joins it, and nothing of it is kept. So
 * a thread that puts a record and fetches it afterwards never gets an answer from before its put.
 *
 * Memory is taken and given back outside the locks. What is pinned or on its way lives beside the
 * bound, as long as its caller needs it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/cache.h"

#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/hash.h"
#include "featurestore/cache_shard.h"

#define LEAST_BYTES (UINT64_C(64) << 10)
#define SHARD_BYTES (UINT64_C(4) << 20) /* of one at least, so that large records fit */
#define MAX_SHARDS  64

struct mr_cache {
    _Atomic uint64_t era;
    _Atomic uint64_t flushes;
    unsigned n_shards; /* a power of two */
    mr_cache_shard shards[];
};

struct mr_cache_fill {
    mr_cache_fill *chain;
    mr_cache_shard *shard;
    uint64_t hash;
    uint64_t era;
    int64_t began_us;
    size_t refs; /* who began it and who waits; under the shard's lock, as all below */
    bool joinable, done, came;
    mr_cache_entry *result; /* pinned, for those who wait */
    pthread_cond_t ended;
    size_t key_len;
    char key[];
};

/* ---- cache ----------------------------------------------------------------------------------- */

mr_status mr_cache_new(mr_cache **out, uint64_t bytes, mr_error *err)
{
    if (bytes < LEAST_BYTES)
        return MR_FAIL(err, INVALID, "a cache of %llu bytes was asked for, expected at least %llu",
                       (unsigned long long)bytes, (unsigned long long)LEAST_BYTES);
    unsigned n = 1;
    while (n < MAX_SHARDS && bytes / (2 * n) >= SHARD_BYTES)
        n *= 2;
    mr_cache *cache = calloc(1, sizeof *cache + n * sizeof(mr_cache_shard));
    if (!cache)
        goto no_memory;
    atomic_init(&cache->era, 1);
    for (; cache->n_shards < n; cache->n_shards++) {
        if (!mr_cache_shard_init(&cache->shards[cache->n_shards], (bytes - sizeof *cache) / n))
            goto no_memory;
    }
    *out = cache;
    return MR_OK;

no_memory:
    mr_cache_free(cache);
    return MR_FAIL(err, NO_MEMORY, "no memory for the tables of a cache of %llu bytes",
                   (unsigned long long)bytes);
}

static void release_all(mr_cache_entry *list)
{
    while (list) {
        mr_cache_entry *next = list->chain;
        mr_cache_release(list);
        list = next;
    }
}

void mr_cache_free(mr_cache *cache)
{
    if (!cache)
        return;
    for (unsigned i = 0; i < cache->n_shards; i++) {
        mr_cache_entry *gone = NULL;
        mr_cache_shard_clear(&cache->shards[i], &gone);
        release_all(gone);
        mr_cache_shard_destroy(&cache->shards[i]);
    }
    free(cache);
}

/* The index and the ghosts take the low bits of the hash. */
static mr_cache_shard *shard_of(mr_cache *cache, uint64_t hash)
{
    return &cache->shards[(hash >> 58) & (cache->n_shards - 1)];
}

/* ---- entries --------------------------------------------------------------------------------- */

/* record.data NULL: a negative one. Pinned once. */
static mr_cache_entry *entry_new(mr_bytes key, mr_bytes record)
{
    size_t bytes;
    const size_t record_len = record.data ? record.len : 0;
    if (record_len > UINT32_MAX ||
        !mr_size_add(offsetof(mr_cache_entry, bytes) + key.len, record_len, &bytes))
        return NULL;
    mr_cache_entry *e = malloc(mr_size_max(bytes, sizeof *e));
    if (!e)
        return NULL;
    *e = (mr_cache_entry){
        .record_len = (uint32_t)record_len, .key_len = (uint16_t)key.len, .negative = !record.data};
    atomic_init(&e->pins, 1);
    if (key.len)
        memcpy(e->bytes, key.data, key.len);
    if (record_len)
        memcpy(e->bytes + key.len, record.data, record_len);
    return e;
}

static mr_cache_entry *entry_pin(mr_cache_entry *entry)
{
    if (entry)
        atomic_fetch_add_explicit(&entry->pins, 1, memory_order_relaxed);
    return entry;
}

void mr_cache_release(mr_cache_entry *entry)
{
    if (entry && atomic_fetch_sub_explicit(&entry->pins, 1, memory_order_acq_rel) == 1)
        free(entry);
}

mr_bytes mr_cache_record(const mr_cache_entry *entry)
{
    return entry->negative ? (mr_bytes){NULL, 0}
                           : (mr_bytes){entry->bytes + entry->key_len, entry->record_len};
}

int64_t mr_cache_stored_us(const mr_cache_entry *entry)
{
    return entry->stored_us;
}

uint64_t mr_cache_era_of(const mr_cache_entry *entry)
{
    return entry->era;
}

uint64_t mr_cache_hash_of(const mr_cache_entry *entry)
{
    return entry->hash;
}

mr_cache_entry *mr_cache_get(mr_cache *cache, mr_bytes key)
{
    const uint64_t hash = mr_hash_xxh3(key.data, key.len);
    mr_cache_shard *shard = shard_of(cache, hash);
    pthread_mutex_lock(&shard->lock);
    mr_cache_entry *e = entry_pin(mr_cache_shard_find(shard, hash, key));
    if (e && e->hits < MR_CACHE_MAX_HITS)
        e->hits++;
    pthread_mutex_unlock(&shard->lock);
    return e;
}

/* ---- fills ----------------------------------------------------------------------------------- */

static mr_cache_fill *fill_new(mr_cache_shard *shard, uint64_t hash, mr_bytes key)
{
    mr_cache_fill *fill =
        key.len <= MR_CACHE_MAX_KEY ? malloc(sizeof *fill + key.len) : NULL; /* stores: 512 */
    if (!fill)
        return NULL;
    *fill = (mr_cache_fill){
        .shard = shard, .hash = hash, .refs = 1, .joinable = true, .key_len = key.len};
    memcpy(fill->key, key.data, key.len);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&fill->ended, &clock);
    pthread_condattr_destroy(&clock);
    return fill;
}

static void fill_free(mr_cache_fill *fill)
{
    if (!fill)
        return;
    pthread_cond_destroy(&fill->ended);
    mr_cache_release(fill->result);
    free(fill);
}

static mr_cache_fill *fill_find(const mr_cache_shard *shard, uint64_t hash, mr_bytes key)
{
    mr_cache_fill *fill = shard->fills[hash & shard->fill_mask];
    while (fill && (fill->hash != hash || fill->key_len != key.len ||
                    memcmp(fill->key, key.data, key.len) != 0))
        fill = fill->chain;
    return fill;
}

/* From here on nobody joins it. */
static void fill_close(mr_cache_fill *fill)
{
    mr_cache_fill **link = &fill->shard->fills[fill->hash & fill->shard->fill_mask];
    while (*link != fill)
        link = &(*link)->chain;
    *link = fill->chain;
    fill->joinable = false;
}

mr_cache_fill_kind mr_cache_begin(mr_cache *cache, mr_bytes key, const mr_cache_entry *seen,
                                  mr_cache_fill **out, mr_cache_entry **came)
{
    const uint64_t hash = mr_hash_xxh3(key.data, key.len);
    mr_cache_shard *shard = shard_of(cache, hash);
    mr_cache_fill *mine = fill_new(shard, hash, key);
    if (mine) {
        mine->began_us = mr_clock_monotonic_us();
        mine->era = atomic_load(&cache->era);
    }
    mr_cache_fill_kind kind = MR_CACHE_FILL_OURS;
    *out = mine;
    *came = NULL;
    pthread_mutex_lock(&shard->lock);
    mr_cache_entry *entry = mr_cache_shard_find(shard, hash, key);
    mr_cache_fill *other = fill_find(shard, hash, key);
    if (entry && entry != seen) {
        kind = MR_CACHE_FILL_CAME;
        *came = entry_pin(entry);
        *out = NULL;
    } else if (other) {
        kind = MR_CACHE_FILL_OTHER;
        other->refs++;
        *out = other;
    } else if (mine) {
        mr_cache_fill **head = &shard->fills[hash & shard->fill_mask];
        mine->chain = *head;
        *head = mine;
    }
    pthread_mutex_unlock(&shard->lock);
    if (kind != MR_CACHE_FILL_OURS)
        fill_free(mine);
    return kind;
}

mr_cache_entry *mr_cache_end(mr_cache *cache, mr_cache_fill *fill, bool came, mr_bytes record)
{
    (void)cache;
    const mr_bytes key = fill ? (mr_bytes){fill->key, fill->key_len} : (mr_bytes){NULL, 0};
    mr_cache_entry *entry = came ? entry_new(key, record) : NULL;
    if (!fill)
        return entry;
    if (entry) {
        entry->hash = fill->hash;
        entry->era = fill->era;
        entry->stored_us = fill->began_us;
    }
    mr_cache_entry *gone = NULL;
    pthread_mutex_lock(&fill->shard->lock);
    if (fill->joinable) {
        fill_close(fill);
        if (entry && mr_cache_shard_insert(fill->shard, entry, &gone))
            entry_pin(entry); /* the shard's, before it can lose it */
    }
    fill->done = true;
    fill->came = entry != NULL;
    const bool last = --fill->refs == 0;
    if (!last) {
        fill->result = entry_pin(entry);
        pthread_cond_broadcast(&fill->ended);
    }
    pthread_mutex_unlock(&fill->shard->lock);
    if (last)
        fill_free(fill);
    release_all(gone);
    return entry;
}

mr_cache_entry *mr_cache_wait(mr_cache *cache, mr_cache_fill *fill, int64_t deadline_us, bool *came)
{
    (void)cache;
    const int64_t until = deadline_us > 0 ? deadline_us : 0;
    const struct timespec deadline = {.tv_sec = until / 1000000,
                                      .tv_nsec = (long)(until % 1000000) * 1000};
    pthread_mutex_lock(&fill->shard->lock);
    while (!fill->done && deadline_us > 0 &&
           pthread_cond_timedwait(&fill->ended, &fill->shard->lock, &deadline) == 0)
        ;
    *came = fill->done && fill->came;
    mr_cache_entry *entry = entry_pin(fill->result);
    const bool last = --fill->refs == 0;
    pthread_mutex_unlock(&fill->shard->lock);
    if (last)
        fill_free(fill);
    return entry;
}

/* ---- changes --------------------------------------------------------------------------------- */

void mr_cache_changed(mr_cache *cache, mr_bytes key)
{
    const uint64_t hash = mr_hash_xxh3(key.data, key.len);
    mr_cache_shard *shard = shard_of(cache, hash);
    mr_cache_entry *gone = NULL;
    pthread_mutex_lock(&shard->lock);
    mr_cache_entry *entry = mr_cache_shard_find(shard, hash, key);
    mr_cache_fill *fill = fill_find(shard, hash, key);
    if (entry)
        mr_cache_shard_drop(shard, entry, &gone);
    if (fill)
        fill_close(fill);
    shard->invalidations += entry || fill;
    pthread_mutex_unlock(&shard->lock);
    release_all(gone);
}

void mr_cache_flush(mr_cache *cache)
{
    for (unsigned i = 0; i < cache->n_shards; i++) {
        mr_cache_shard *shard = &cache->shards[i];
        mr_cache_entry *gone = NULL;
        pthread_mutex_lock(&shard->lock);
        mr_cache_shard_clear(shard, &gone);
        for (size_t b = 0; b <= shard->fill_mask; b++) {
            while (shard->fills[b])
                fill_close(shard->fills[b]);
        }
        pthread_mutex_unlock(&shard->lock);
        release_all(gone);
    }
    atomic_fetch_add(&cache->flushes, 1);
}

uint64_t mr_cache_next_era(mr_cache *cache)
{
    return atomic_fetch_add(&cache->era, 1) + 1;
}

void mr_cache_stat(mr_cache *cache, mr_cache_stats *out)
{
    *out = (mr_cache_stats){.bytes = sizeof *cache, .flushes = atomic_load(&cache->flushes)};
    for (unsigned i = 0; i < cache->n_shards; i++) {
        mr_cache_shard *shard = &cache->shards[i];
        pthread_mutex_lock(&shard->lock);
        out->bytes += shard->fixed;
        for (int kind = 0; kind < MR_CACHE_QUEUES; kind++) {
            out->bytes += shard->queue[kind].bytes;
            out->entries += shard->queue[kind].count;
        }
        out->evictions += shard->evictions;
        out->invalidations += shard->invalidations;
        pthread_mutex_unlock(&shard->lock);
    }
}
