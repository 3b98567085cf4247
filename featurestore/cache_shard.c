/* cache_shard.c - S3-FIFO: what comes in, what stays and what goes. See cache.h for the idea.
 *
 * The ghost queue is a table of marks rather than a list of keys: eight bytes a key, no allocation,
 * and a key counts as remembered while fewer others have left since than the shard holds. Two keys
 * with one mark (one in 2^22 look-ups) cost nothing but a place in the main queue.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/cache_shard.h"

#include <stdlib.h>
#include <string.h>

/* A record of 256 int8 values with its key and bookkeeping takes about as much. */
#define BYTES_PER_SLOT 512
#define LEAST_SLOTS    64
#define SMALL_SHARE    10 /* the small queue's target is one part in so many */
#define LARGEST_SHARE  4  /* an entry that takes more than one part in so many is not kept */

/* ---- tables ---------------------------------------------------------------------------------- */

bool mr_cache_shard_init(mr_cache_shard *shard, uint64_t bytes)
{
    size_t slots = LEAST_SLOTS;
    while (slots <= bytes / BYTES_PER_SLOT / 2)
        slots *= 2;
    size_t fills = slots / 8 < 1024 ? slots / 8 : 1024;

    *shard = (mr_cache_shard){.index_mask = slots - 1,
                              .ghost_mask = slots / MR_CACHE_GHOST_WAYS - 1,
                              .fill_mask = fills - 1};
    shard->index = calloc(slots, sizeof *shard->index);
    shard->ghosts = calloc(slots, sizeof *shard->ghosts);
    shard->fills = calloc(fills, sizeof *shard->fills);
    if (!shard->index || !shard->ghosts || !shard->fills) {
        free(shard->index);
        free(shard->ghosts);
        free(shard->fills);
        return false;
    }
    pthread_mutex_init(&shard->lock, NULL);
    shard->fixed = sizeof *shard + slots * (sizeof *shard->index + sizeof *shard->ghosts) +
                   fills * sizeof *shard->fills;
    shard->capacity = bytes - shard->fixed;
    return true;
}

void mr_cache_shard_destroy(mr_cache_shard *shard)
{
    free(shard->index);
    free(shard->ghosts);
    free(shard->fills);
    pthread_mutex_destroy(&shard->lock);
}

uint64_t mr_cache_entry_cost(const mr_cache_entry *entry)
{
    const size_t bytes = offsetof(mr_cache_entry, bytes) + entry->key_len + entry->record_len;
    return mr_size_round_up(bytes + sizeof(size_t), 16);
}

mr_bytes mr_cache_entry_key(const mr_cache_entry *entry)
{
    return (mr_bytes){entry->bytes, entry->key_len};
}

mr_cache_entry *mr_cache_shard_find(const mr_cache_shard *shard, uint64_t hash, mr_bytes key)
{
    mr_cache_entry *e = shard->index[hash & shard->index_mask];
    while (e && (e->hash != hash || e->key_len != key.len ||
                 memcmp(mr_cache_entry_key(e).data, key.data, key.len) != 0))
        e = e->chain;
    return e;
}

/* ---- ghosts ---------------------------------------------------------------------------------- */

static uint32_t mark_of(uint64_t hash)
{
    return (uint32_t)(hash >> 32) | 1;
}

static mr_cache_ghost *ghost_set(const mr_cache_shard *shard, uint64_t hash)
{
    return shard->ghosts + (hash & shard->ghost_mask) * MR_CACHE_GHOST_WAYS;
}

static void ghost_add(mr_cache_shard *shard, uint64_t hash)
{
    mr_cache_ghost *set = ghost_set(shard, hash), *place = set;
    const uint32_t now = shard->departures++;
    for (size_t i = 0; i < MR_CACHE_GHOST_WAYS; i++) {
        if (set[i].mark == mark_of(hash)) {
            place = &set[i];
            break;
        }
        if (place->mark && (!set[i].mark || now - set[i].at > now - place->at))
            place = &set[i];
    }
    *place = (mr_cache_ghost){mark_of(hash), now};
}

/* Whether the key left not long ago; forgets it. */
static bool ghost_take(mr_cache_shard *shard, uint64_t hash)
{
    mr_cache_ghost *set = ghost_set(shard, hash);
    const uint64_t held = shard->queue[MR_CACHE_SMALL].count + shard->queue[MR_CACHE_MAIN].count;
    for (size_t i = 0; i < MR_CACHE_GHOST_WAYS; i++) {
        if (set[i].mark != mark_of(hash))
            continue;
        const bool recent = (uint32_t)(shard->departures - set[i].at) <= held;
        set[i].mark = 0;
        return recent;
    }
    return false;
}

/* ---- queues ---------------------------------------------------------------------------------- */

static void queue_push(mr_cache_shard *shard, mr_cache_entry *entry, mr_cache_queue_kind kind)
{
    mr_cache_queue *queue = &shard->queue[kind];
    entry->queue = kind & 1;
    entry->newer = NULL;
    entry->older = queue->newest;
    *(queue->newest ? &queue->newest->newer : &queue->oldest) = entry;
    queue->newest = entry;
    queue->bytes += mr_cache_entry_cost(entry);
    queue->count++;
}

static void queue_remove(mr_cache_shard *shard, mr_cache_entry *entry)
{
    mr_cache_queue *queue = &shard->queue[entry->queue];
    *(entry->newer ? &entry->newer->older : &queue->newest) = entry->older;
    *(entry->older ? &entry->older->newer : &queue->oldest) = entry->newer;
    queue->bytes -= mr_cache_entry_cost(entry);
    queue->count--;
}

static void leave(mr_cache_shard *shard, mr_cache_entry *entry, mr_cache_entry **out)
{
    mr_cache_entry **link = &shard->index[entry->hash & shard->index_mask];
    while (*link != entry)
        link = &(*link)->chain;
    *link = entry->chain;
    queue_remove(shard, entry);
    entry->chain = *out;
    *out = entry;
}

/* Each step takes an entry out, moves one from small to main or lowers a counter, so it ends. */
static void make_room(mr_cache_shard *shard, uint64_t cost, mr_cache_entry **out)
{
    mr_cache_queue *small = &shard->queue[MR_CACHE_SMALL], *big = &shard->queue[MR_CACHE_MAIN];
    while (small->bytes + big->bytes + cost > shard->capacity) {
        const bool from_small =
            small->count && (small->bytes > shard->capacity / SMALL_SHARE || big->count == 0);
        mr_cache_entry *oldest = from_small ? small->oldest : big->oldest;
        if (oldest->hits) {
            queue_remove(shard, oldest);
            oldest->hits = from_small ? 0 : (uint8_t)(oldest->hits - 1);
            queue_push(shard, oldest, MR_CACHE_MAIN);
            continue;
        }
        if (from_small)
            ghost_add(shard, oldest->hash);
        leave(shard, oldest, out);
        shard->evictions++;
    }
}

bool mr_cache_shard_insert(mr_cache_shard *shard, mr_cache_entry *entry, mr_cache_entry **out)
{
    const uint64_t cost = mr_cache_entry_cost(entry);
    mr_cache_entry *old = mr_cache_shard_find(shard, entry->hash, mr_cache_entry_key(entry));
    mr_cache_queue_kind kind = MR_CACHE_SMALL;
    /* What was there under the key goes in any case: the new one is what the store has. */
    if (old) {
        kind = old->queue;
        entry->hits = old->hits;
        leave(shard, old, out);
    }
    if (cost > shard->capacity / LARGEST_SHARE)
        return false;
    if (!old && ghost_take(shard, entry->hash))
        kind = MR_CACHE_MAIN;
    make_room(shard, cost, out);
    mr_cache_entry **head = &shard->index[entry->hash & shard->index_mask];
    entry->chain = *head;
    *head = entry;
    queue_push(shard, entry, kind);
    return true;
}

void mr_cache_shard_drop(mr_cache_shard *shard, mr_cache_entry *entry, mr_cache_entry **out)
{
    if (entry->hits || entry->queue == MR_CACHE_MAIN)
        ghost_add(shard, entry->hash);
    leave(shard, entry, out);
}

void mr_cache_shard_clear(mr_cache_shard *shard, mr_cache_entry **out)
{
    for (int kind = 0; kind < MR_CACHE_QUEUES; kind++) {
        while (shard->queue[kind].oldest)
            leave(shard, shard->queue[kind].oldest, out);
    }
}
