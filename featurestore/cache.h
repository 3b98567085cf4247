/* cache.h - a byte-bounded cache of raw records by key, that one long scan cannot empty.
 *
 * S3-FIFO (Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache eviction", SOSP
 * 2023): new keys enter a small queue (a tenth of the bytes); those asked for again before they
 * leave it go to the main queue, the others leave with their key remembered in a ghost queue, and a
 * key that comes back while it is there enters the main queue at once. So a catalogue walked once
 * passes through the small queue and leaves the hot items alone. A hit is one saturating counter:
 * no list is reordered under a lock.
 *
 * Entries are immutable and counted: a lookup pins what it returns, so that a visit may take its
 * time without a lock, and an entry that was evicted meanwhile lives until it is released. An entry
 * without bytes is a negative one: "the store has none". A cache knows nothing of ages: it says
 * when an entry was asked for, and its users decide what that is worth to them.
 *
 * Fills: whoever asks the store for a key begins a fill, and hands in what came back. One that
 * finds a fill under way waits for it instead of asking again (single flight). A change or a flush
 * that arrives between begin and end makes the fill deliver to its waiters but keep nothing: an
 * invalidation may overtake the answer that it belongs to (store_backend.h). Nobody joins such a
 * fill any more: a thread that comes after the change asks for itself. Whoever waits must have
 * ended the fills of its own: then no two wait for each other.
 *
 * Threads: any. Sharded by hash; no lock is held while a caller's code runs.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_CACHE_H
#define MR_FEATURESTORE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/error.h"

typedef struct mr_cache mr_cache;
typedef struct mr_cache_entry mr_cache_entry;

/* bytes bounds keys, records, their bookkeeping and the tables together; at least 64 KiB. Beside
 * the bound lives what callers have in their hands: pinned entries that were evicted, fills under
 * way. A record that takes more than a quarter of a shard (from 8 MiB on: of 4 MiB or more) is
 * delivered and not kept. */
MR_NODISCARD mr_status mr_cache_new(mr_cache **out, uint64_t bytes, mr_error *err);
void mr_cache_free(mr_cache *cache); /* NULL is fine; every entry must have been released */

/* NULL when the cache holds nothing under the key. Otherwise pinned until mr_cache_release. */
mr_cache_entry *mr_cache_get(mr_cache *cache, mr_bytes key);
void mr_cache_release(mr_cache_entry *entry);            /* NULL is fine */
mr_bytes mr_cache_record(const mr_cache_entry *entry);   /* data NULL: negative */
int64_t mr_cache_stored_us(const mr_cache_entry *entry); /* monotonic time its fill began */
uint64_t mr_cache_era_of(const mr_cache_entry *entry);   /* in which its fill began, from 1 */
uint64_t mr_cache_hash_of(const mr_cache_entry *entry);  /* of its key; for spreading ages */

typedef enum {
    MR_CACHE_FILL_OURS,  /* ask the store, then end the fill, whatever happens */
    MR_CACHE_FILL_OTHER, /* another thread asks: wait for it */
    MR_CACHE_FILL_CAME,  /* what another thread asked for came since the look-up: no fill */
} mr_cache_fill_kind;
typedef struct mr_cache_fill mr_cache_fill;

/* seen: what the look-up before found and the caller will not have, still pinned, or NULL. Another
 * one that is there by now is *came, pinned (CAME): without it, two threads that miss a key one
 * after the other would both ask. Every fill is ended (OURS) or waited for (OTHER), once. Never
 * fails: without memory for bookkeeping the fill is OURS and NULL, and keeps nothing. */
mr_cache_fill_kind mr_cache_begin(mr_cache *cache, mr_bytes key, const mr_cache_entry *seen,
                                  mr_cache_fill **fill, mr_cache_entry **came);
/* record.data NULL: there is none; kept as a negative entry. `came` false: the store did not
 * answer, nothing is kept and waiters are told. Returns the entry, pinned, kept or not; NULL when
 * nothing came or memory is out. */
mr_cache_entry *mr_cache_end(mr_cache *cache, mr_cache_fill *fill, bool came, mr_bytes record);
/* Waits for the fill of another thread, at most until the monotonic time (0: not at all). *came as
 * it was handed in; false after the deadline. Returns the entry, pinned, or NULL. */
mr_cache_entry *mr_cache_wait(mr_cache *cache, mr_cache_fill *fill, int64_t deadline_us,
                              bool *came);

void mr_cache_changed(mr_cache *cache, mr_bytes key); /* drops it; never blocks on a fill */
void mr_cache_flush(mr_cache *cache);                 /* drops all */
/* Fills that begin from here on are of a new era, which is returned: what began before can be told
 * apart without dropping it. */
uint64_t mr_cache_next_era(mr_cache *cache);

typedef struct {
    uint64_t bytes, entries, evictions, flushes;
    uint64_t invalidations; /* changes that met an entry or a fill */
} mr_cache_stats;
void mr_cache_stat(mr_cache *cache, mr_cache_stats *out);

#endif
