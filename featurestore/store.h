/* store.h - PUBLIC. Embedding records by entity, space and id, behind one interface.
 *
 *     mr_store *store = NULL;
 *     if (mr_store_open(&store, "lmdb:/var/lib/mixrank/store", NULL, &err) != MR_OK) ...
 *     mr_store_fetch(store, MR_ENTITY_ITEM, space, ids, n, on_record, context, &err);
 *     mr_store_close(store);
 *
 * A URL picks the back end (docs/store.md):
 *     memory:                                     this process, gone with it
 *     lmdb:PATH or PATH                           one file, many processes
 *     redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]  rediss:// with TLS
 *     redis+unix:[//USER:PASSWORD@]PATH[?db=N]    a socket file
 *     redis+sentinel://[..@]HOST:PORT,HOST:PORT/MASTER[/DB]
 *     redis+cluster://[..@]HOST:PORT,HOST:PORT
 * Key: <namespace>:<entity>:<space as 16 hex digits>:<id>. An id is any bytes. A password in a URL
 * is percent-decoded and never shown in a message.
 *
 * Write rule: a record replaces one with a smaller version only (64 bits, unsigned); an older or
 * equal one is ignored and counted as stale, which makes a write that is repeated after a crash
 * harmless. A tombstone is a record too. A stored record that is found damaged is replaced by any.
 *
 * Threads: any number of threads may fetch at once; puts are serialised inside. No lock is held
 * while a visit runs, so a visit may call any function of any store but mr_store_close; it sees the
 * snapshot that its fetch or walk began with. A slow visit in LMDB keeps old pages alive: copy out.
 * Processes: LMDB takes one writer at a time (the others wait) and any number of readers meanwhile.
 * One process opens a path once (INVALID otherwise) and does not use a store across fork().
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_STORE_H
#define MR_FEATURESTORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/api.h"
#include "core/bytes.h"
#include "core/error.h"

MR_BEGIN_DECLS

typedef struct mr_store mr_store;

typedef enum { MR_ENTITY_ITEM, MR_ENTITY_USER, MR_ENTITY_COUNT } mr_entity;

/* LMDB keys end at 511 bytes; the prefix of a key takes up to 100 of them. */
#define MR_STORE_MAX_ID_BYTES        400
#define MR_STORE_MAX_NAMESPACE_BYTES 64
#define MR_STORE_MAX_NOTE_BYTES      ((size_t)1 << 20)

typedef struct {
    size_t size;            /* sizeof(mr_store_options) */
    const char *name_space; /* copied; default "mixrank"; letters, digits, '-', '_', '.' */
    uint64_t max_bytes;     /* memory: bound of all records; LMDB: map size. 0: 1 GiB / 64 GiB */
    bool read_only;         /* LMDB: open an existing store without the right to write */
    bool no_create;         /* NOT_FOUND when the LMDB store does not exist */
    bool fast_writes; /* LMDB: no fsync per put; mr_store_sync makes it durable. A killed process
                         loses nothing, a power cut before the sync may lose the store */
    /* Redis. Times in milliseconds; 0 takes the default. */
    const char *password;       /* instead of the URL's; copied */
    int64_t fetch_timeout_ms;   /* a fetch waits no longer; 100 */
    int64_t write_timeout_ms;   /* a put, walk or note; 5,000 */
    int64_t connect_timeout_ms; /* 1,000 */
    int64_t record_ttl_ms;      /* records expire, spread over 10 %; 0: never */
    int64_t tombstone_ttl_ms;   /* must outlast the topics' retention; 0: 30 days */
    bool open_away;             /* open although no server answers: fetches are UNAVAILABLE until
                                   one does. Otherwise open fails, with the reason */
    /* A cache of raw records in this process, before Redis only (cache.h); 0 bytes: none. */
    uint64_t cache_bytes;
    int64_t cache_soft_age_ms;     /* older ones are asked for again, and serve meanwhile; 60,000.
                                      Not looked at while the server tells of changes */
    int64_t cache_hard_age_ms;     /* older ones are not served by any means; 3,600,000 */
    int64_t cache_negative_age_ms; /* "there is none" is believed so long; 5,000 */
} mr_store_options;
#define MR_STORE_OPTIONS_DEFAULT                                  \
    {                                                             \
        .size = sizeof(mr_store_options), .name_space = "mixrank" \
    }

/* options may be NULL. INVALID: a bad URL or option. NOT_FOUND: read_only or no_create, and nothing
 * is there. CORRUPT: the file is damaged, cut short or not ours. UNSUPPORTED: a newer format, or a
 * back end that this build lacks. IO: no permission, a failing disk. */
MR_API MR_NODISCARD mr_status mr_store_open(mr_store **out, const char *url,
                                            const mr_store_options *options, mr_error *err);
MR_API void mr_store_close(mr_store *store); /* NULL is fine */

/* Called once per id, in order. record is borrowed until the callback returns; its data is NULL
 * when the store has none. The bytes are as stored and not yet checked (mr_record_check). */
typedef void (*mr_store_visit)(void *context, size_t index, mr_bytes record);

/* All ids in one round trip and one consistent snapshot; with a cache, each as fresh as the cache's
 * rules say. An id that is too long or empty counts as missing. UNAVAILABLE when the back end is
 * away. After a failure, a visit that was made holds as after a success, each id at most once and
 * in order; of an id that was not visited nothing is known. A cache visits all that it knows before
 * it fails, and does not fail when that is every id. */
MR_API MR_NODISCARD mr_status mr_store_fetch(mr_store *store, mr_entity entity, uint64_t space,
                                             const mr_str *ids, size_t n, mr_store_visit visit,
                                             void *context, mr_error *err);

typedef struct {
    mr_str id;
    mr_bytes record; /* made by mr_record_encode; checked before it is written */
} mr_store_put_item;

typedef struct {
    size_t written;
    size_t stale; /* the store held an equal or newer version */
} mr_store_put_result;

/* All of the batch or none of it (memory and LMDB); in Redis record by record, so that a put which
 * failed may be repeated until it succeeds. The records' space must be `space` (MISMATCH),
 * their bytes in order (CORRUPT) and the ids 1 to 400 bytes long (INVALID). Of several records of
 * one id in a batch the newest counts, the others are stale. EXHAUSTED when the store or its disk
 * is full: nothing of the batch is written, all else stays readable. result may be NULL. */
MR_API MR_NODISCARD mr_status mr_store_put(mr_store *store, mr_entity entity, uint64_t space,
                                           const mr_store_put_item *items, size_t n,
                                           mr_store_put_result *result, mr_error *err);

/* Small named values beside the records, one set per namespace: checkpoints, a catalogue's digest,
 * what a space is. A name is 1 to 400 bytes. get: NOT_FOUND when absent; the value is a copy that
 * the caller frees, with a NUL behind its len bytes. */
MR_API MR_NODISCARD mr_status mr_store_set_note(mr_store *store, const char *name, mr_str value,
                                                mr_error *err);
MR_API MR_NODISCARD mr_status mr_store_get_note(mr_store *store, const char *name, char **value,
                                                size_t *len, mr_error *err);

/* Sets the note only while it holds `expected` (data NULL: while there is none): of two writers who
 * read the same value, one has its way and the other gets MISMATCH. A swap that was carried out
 * may be repeated. */
MR_API MR_NODISCARD mr_status mr_store_swap_note(mr_store *store, const char *name, mr_str expected,
                                                 mr_str value, mr_error *err);

/* Puts and one note in one transaction where the back end has them: the place that a reader of a
 * log or a file has reached moves together with what it wrote. */
MR_API MR_NODISCARD mr_status mr_store_put_with_note(mr_store *store, mr_entity entity,
                                                     uint64_t space, const mr_store_put_item *items,
                                                     size_t n, const char *note_name, mr_str note,
                                                     mr_store_put_result *result, mr_error *err);

/* Visits every record of an entity and space in key order, tombstones included, as one snapshot;
 * stop by returning false. Redis has no snapshot: records written meanwhile may be missed, and the
 * keys are collected and sorted first. */
typedef bool (*mr_store_walk_visit)(void *context, mr_str id, mr_bytes record);
MR_API MR_NODISCARD mr_status mr_store_walk(mr_store *store, mr_entity entity, uint64_t space,
                                            mr_store_walk_visit visit, void *context,
                                            mr_error *err);

/* Spaces that hold at least one record of the entity, ascending. All of them are counted in *n,
 * only the first `capacity` are written. For "this store was written for another space". */
MR_API MR_NODISCARD mr_status mr_store_spaces(mr_store *store, mr_entity entity, uint64_t *spaces,
                                              size_t capacity, size_t *n, mr_error *err);

typedef struct {
    uint64_t records;    /* of all namespaces, entities and spaces; tombstones included */
    uint64_t used_bytes; /* memory: keys, records and their bookkeeping; LMDB: pages in use */
    uint64_t max_bytes;
} mr_store_stats;
MR_API MR_NODISCARD mr_status mr_store_stat(mr_store *store, mr_store_stats *out, mr_error *err);

/* Removes every record of an entity and space, tombstones included: for a space that nothing reads
 * any more. *removed may be NULL. In batches: after a failure, part of it is gone. */
MR_API MR_NODISCARD mr_status mr_store_remove_space(mr_store *store, mr_entity entity,
                                                    uint64_t space, uint64_t *removed,
                                                    mr_error *err);

/* Where records came from since the store was opened, and how its server is. All counters grow. */
typedef struct {
    uint64_t fetches;                /* mr_store_fetch calls */
    uint64_t ids;                    /* asked for */
    uint64_t hits_cache, hits_store; /* records found, by tier */
    uint64_t hits_stale;             /* of hits_cache: past the soft age, or with the server gone */
    uint64_t negative_hits, misses;  /* "none" from the cache; from the store */
    uint64_t evictions, invalidations, flushes;
    uint64_t cache_bytes; /* in use */
    uint64_t failures;    /* fetches and puts that the server did not answer */
    uint64_t reconnects;
    uint64_t foreign_values;        /* values under our keys that are no records of ours */
    uint64_t fetch_count, fetch_us; /* round trips and their time */
    uint64_t fetch_us_buckets[16];  /* round trips that took at most 2^i x 16 us; last: the rest */
    int breaker;                    /* 0 closed, 1 half open, 2 open: fetches fail at once */
    bool connected, tracking;       /* to every server; invalidations are coming */
} mr_store_health;
MR_API void mr_store_health_of(mr_store *store, mr_store_health *out);

/* What was put before is on disk afterwards (Redis: nothing to do; its persistence is its own). */
MR_API MR_NODISCARD mr_status mr_store_sync(mr_store *store, mr_error *err);
MR_API const char *mr_store_backend(const mr_store *store); /* "memory", "lmdb", "redis" */

MR_END_DECLS

#endif
