/* prefix_cache.h - timelines of prompts' beginnings, kept for the next request that begins so.
 *
 * Requests of one bundle share the instruction, those of one query the query, those that come again
 * everything. An entry is one whole prefix; every boundary of it (where a segment ends) is indexed
 * by the hash of what stands before, so that a new prefix branches off the longest beginning that
 * any entry holds. Hashes find, ids and vectors decide: two prefixes are the same only when every
 * position is.
 *
 * Bounded in bytes: the entry that was not used for the longest time goes first. Entries that are
 * taken cannot go; what does not fit beside them is dropped when it is given back.
 * Threads: one at a time (the batcher's).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_MODEL_PREFIX_CACHE_H
#define MR_RANKER_MODEL_PREFIX_CACHE_H

#include "engine/session.h"

typedef struct mr_prefix_cache mr_prefix_cache;
typedef struct mr_prefix_entry mr_prefix_entry;

#define MR_PREFIX_MAX_BOUNDARIES 8

/* A prompt's beginning: positions, and the vectors of those that are MR_ID_EMBED, in order. */
typedef struct {
    mr_input input;
    /* Ascending positions after which another request may differ; the whole length is always one
     * and need not be named. */
    size_t boundary[MR_PREFIX_MAX_BOUNDARIES];
    size_t n_boundaries;
} mr_prefix_key;

MR_NODISCARD mr_status mr_prefix_cache_new(mr_prefix_cache **out, const mr_model *model,
                                           uint64_t max_bytes, mr_error *err);
void mr_prefix_cache_free(mr_prefix_cache *cache); /* NULL is fine; all were given back */

/* Positions of this prefix that would have to be computed if it were taken now; *entry is its own
 * entry, or NULL when there is none yet. Takes and changes nothing. */
size_t mr_prefix_cache_lacking(const mr_prefix_cache *cache, const mr_prefix_key *key,
                               const mr_prefix_entry **entry);

/* The entry of this prefix, found or new, taken once more. A new one's timeline holds what another
 * entry had in common; the caller appends the rest (mr_prefix_entry_pending) before it gives it
 * back. key is copied. */
MR_NODISCARD mr_status mr_prefix_cache_take(mr_prefix_cache *cache, const mr_prefix_key *key,
                                            mr_prefix_entry **out, mr_error *err);
/* An entry whose timeline is not whole is forgotten when the last taker gives it back. */
void mr_prefix_cache_give(mr_prefix_cache *cache, mr_prefix_entry *entry);

mr_timeline *mr_prefix_entry_timeline(const mr_prefix_entry *entry);
/* What the timeline lacks; n is 0 when it is whole. Borrowed from the entry. */
mr_input mr_prefix_entry_pending(const mr_prefix_entry *entry);

typedef struct {
    uint64_t hits;     /* whole prefixes found */
    uint64_t branches; /* of the others: those that began with something known */
    uint64_t misses;
    uint64_t tokens, tokens_cached; /* of all prefixes taken */
    uint64_t evictions;
    uint64_t entries, bytes; /* now */
} mr_prefix_cache_stats;
void mr_prefix_cache_stat(const mr_prefix_cache *cache, mr_prefix_cache_stats *out);

#endif
