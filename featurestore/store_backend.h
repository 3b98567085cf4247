/* store_backend.h - what a back end implements, and what it may leave to store.c.
 *
 * store.c checks arguments, records and ids, sorts a batch and drops duplicates before it calls
 * down, so that every back end sees the same clean input. A back end stores bytes under keys,
 * applies the write rule where its transaction is (mr_store_replaces) and says in its errors where
 * it lives.
 *
 * A key is  <namespace>:<entity>:<space as 16 hex digits>:<id>  and is built one at a time in a
 * buffer on the stack; notes live apart from records, under  <namespace>:<name> .
 * Threads: every operation but close may be called from any thread, and from within a visit of the
 * same store: no operation may hold a lock while it calls a visit.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_STORE_BACKEND_H
#define MR_FEATURESTORE_STORE_BACKEND_H

#include "featurestore/store.h"

#define MR_STORE_KEY_MAX 512

/* A prefix, and room for an id behind it. */
typedef struct {
    size_t prefix_len;
    size_t len; /* of the whole key */
    char bytes[MR_STORE_KEY_MAX];
} mr_store_key;

/* Puts id behind the prefix. False when no stored key can have this id. */
static inline bool mr_store_key_set(mr_store_key *key, mr_str id)
{
    if (id.len == 0 || id.len > MR_STORE_MAX_ID_BYTES || !id.data)
        return false;
    memcpy(key->bytes + key->prefix_len, id.data, id.len);
    key->len = key->prefix_len + id.len;
    return true;
}

/* Reads the space out of a record's key that begins with "<namespace>:<entity>:" of that length. */
bool mr_store_key_space(const char *key, size_t len, size_t entity_prefix_len, uint64_t *space);

/* One record to write. In a batch the ids ascend (memcmp, then length) and differ. */
typedef struct {
    mr_str id;
    mr_bytes record; /* checked */
    uint64_t version;
    size_t index; /* in the caller's batch */
} mr_store_write;

typedef struct {
    mr_bytes key;
    mr_str value;
    bool is_swap; /* only while the note holds `expected`; data NULL: while there is none */
    mr_str expected;
} mr_store_note;

/* Whether a swap may go on, given what is stored (data NULL: nothing): also when it holds the new
 * value already, so that it may be repeated. MISMATCH otherwise, and nothing is to be written. */
bool mr_store_note_swaps(const mr_store_note *note, mr_bytes stored);
mr_status mr_store_note_differs(const mr_store_note *note, mr_error *err);

/* The write rule. stored.data is NULL when there is none. A stored record that is damaged loses to
 * any: nothing that it says about its version can be believed. */
bool mr_store_replaces(mr_bytes stored, uint64_t version);

/* What a back end whose server tells of changes reports to a cache before it. Called on the back
 * end's own thread, with no lock of the back end held; must not block and must not call the back
 * end. Order: `tracking(true)` comes before the first fetch whose answer may be kept, and between
 * an answer to a fetch and a later change of one of its keys there is always a `changed` or a
 * `flush`. A change may be told BEFORE the answer that it makes old arrives (they come on two
 * connections): whoever keeps answers must note, for keys that are on their way, that they changed
 * meanwhile. */
typedef struct {
    void *context;
    void (*changed)(void *context, mr_bytes key);
    void (*flush)(void *context);                /* changes may have been missed */
    void (*tracking)(void *context, bool is_on); /* off: no changes will be told; soft age rules */
} mr_store_watcher;

typedef struct {
    const char *name;
    void (*close)(void *self);

    mr_status (*fetch)(void *self, mr_store_key *key, const mr_str *ids, size_t n,
                       mr_store_visit visit, void *context, mr_error *err);
    /* note may be NULL; n may be 0. *result is zero on entry and counts this batch only. */
    mr_status (*put)(void *self, mr_store_key *key, const mr_store_write *writes, size_t n,
                     const mr_store_note *note, mr_store_put_result *result, mr_error *err);
    mr_status (*get_note)(void *self, mr_bytes key, char **value, size_t *len, mr_error *err);
    /* Records whose key begins with the prefix of key, in key order. */
    mr_status (*walk)(void *self, const mr_store_key *key, mr_store_walk_visit visit, void *context,
                      mr_error *err);
    /* The prefix of key is "<namespace>:<entity>:". */
    mr_status (*spaces)(void *self, const mr_store_key *key, uint64_t *spaces, size_t capacity,
                        size_t *n, mr_error *err);
    mr_status (*stat)(void *self, mr_store_stats *out, mr_error *err);
    mr_status (*sync)(void *self, mr_error *err);
    /* Removes all records whose key begins with the prefix of key. */
    mr_status (*remove)(void *self, const mr_store_key *key, uint64_t *removed, mr_error *err);

    /* Optional, below: NULL where the back end has nothing to say. */

    /* Adds what the back end counts; *out is zero or filled by another layer. */
    void (*health)(void *self, mr_store_health *out);
    /* Sets who is told of changes, once, before the first fetch. See mr_store_watcher. */
    void (*watch)(void *self, const mr_store_watcher *watcher);
} mr_store_ops;

/* A back end says which operations serve *self. options are complete: every default is filled in.
 */
mr_status mr_store_memory_open(void **self, const mr_store_options *options, mr_error *err);
mr_status mr_store_lmdb_open(void **self, const char *path, const mr_store_options *options,
                             mr_error *err);
mr_status mr_store_redis_open(void **self, const char *url, const mr_store_options *options,
                              mr_error *err);
/* Puts a cache of options->cache_bytes before another back end; takes ownership of inner on
 * success. cache.h has the rules. */
mr_status mr_store_cached_open(void **self, const mr_store_ops *inner_ops, void *inner,
                               const mr_store_options *options, mr_error *err);
extern const mr_store_ops mr_store_memory_ops;
extern const mr_store_ops mr_store_lmdb_ops;
extern const mr_store_ops mr_store_redis_ops;
extern const mr_store_ops mr_store_cached_ops;

#endif
