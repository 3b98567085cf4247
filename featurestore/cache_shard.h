/* cache_shard.h - one part of the cache under one lock: index, queues, ghosts. Private to cache.h's
 * implementation.
 *
 * Everything here is called with the shard's lock held, allocates nothing and frees nothing: what
 * leaves the shard is put on a list that the caller releases after the lock.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_CACHE_SHARD_H
#define MR_FEATURESTORE_CACHE_SHARD_H

#include <pthread.h>
#include <stdatomic.h>

#include "featurestore/cache.h"

#define MR_CACHE_GHOST_WAYS 8
#define MR_CACHE_MAX_HITS   3

typedef enum { MR_CACHE_SMALL, MR_CACHE_MAIN, MR_CACHE_QUEUES } mr_cache_queue_kind;

/* A look-up reads this and the key behind it: both are kept short and together. */
struct mr_cache_entry {
    mr_cache_entry *chain; /* in the index; once it has left, in a list of such */
    mr_cache_entry *newer, *older;
    uint64_t hash;
    uint64_t era;
    int64_t stored_us;
    uint32_t record_len;
    atomic_uint pins; /* the shard's is one of them */
    uint16_t key_len;
    uint8_t hits;
    uint8_t queue : 1;
    uint8_t negative : 1;
    char bytes[]; /* the key, then the record */
};
#define MR_CACHE_MAX_KEY UINT16_MAX

typedef struct {
    mr_cache_entry *newest, *oldest;
    uint64_t bytes;
    uint64_t count;
} mr_cache_queue;

/* A key that left: a part of its hash, and which departure it was. */
typedef struct {
    uint32_t mark; /* 0: free */
    uint32_t at;
} mr_cache_ghost;

typedef struct {
    pthread_mutex_t lock;
    mr_cache_entry **index; /* chains by hash; of fixed length, so that it has no bad moment */
    mr_cache_ghost *ghosts; /* sets of MR_CACHE_GHOST_WAYS */
    mr_cache_fill **fills;  /* chains by hash: those that may be joined */
    size_t index_mask, ghost_mask, fill_mask;
    mr_cache_queue queue[MR_CACHE_QUEUES];
    uint64_t fixed;    /* bytes of the shard and its tables */
    uint64_t capacity; /* bytes of entries */
    uint32_t departures;
    uint64_t evictions, invalidations;
} mr_cache_shard;

/* Makes a shard that takes at most `bytes` with all its entries. False when memory is out. */
bool mr_cache_shard_init(mr_cache_shard *shard, uint64_t bytes);
/* Releases the tables; the entries have been taken out. */
void mr_cache_shard_destroy(mr_cache_shard *shard);

/* What an entry costs, the allocator's share included. */
uint64_t mr_cache_entry_cost(const mr_cache_entry *entry);
mr_bytes mr_cache_entry_key(const mr_cache_entry *entry);

mr_cache_entry *mr_cache_shard_find(const mr_cache_shard *shard, uint64_t hash, mr_bytes key);
/* Refuses an entry that is too large for the shard; otherwise the caller adds a pin, which is the
 * shard's. What had to go, an older entry of the key included, is put before *out. */
bool mr_cache_shard_insert(mr_cache_shard *shard, mr_cache_entry *entry, mr_cache_entry **out);
/* Takes a found entry out because it changed: a key that was asked for is remembered. */
void mr_cache_shard_drop(mr_cache_shard *shard, mr_cache_entry *entry, mr_cache_entry **out);
void mr_cache_shard_clear(mr_cache_shard *shard, mr_cache_entry **out);

#endif
