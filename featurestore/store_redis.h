/* store_redis.h - what the parts of the Redis back end share: store_redis.c, redis_put.c,
 * redis_scan.c.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_STORE_REDIS_H
#define MR_FEATURESTORE_STORE_REDIS_H

#include <stdatomic.h>

#include "featurestore/redis_batch.h"
#include "featurestore/store_backend.h"

#define MR_REDIS_MAX_SERVERS 256

typedef struct {
    mr_redis_url url;
    mr_store_options options; /* its strings are not kept */
    mr_redis_loop *loop;
    mr_redis_router *router;
    char script_sha[41];

    atomic_uint_least64_t fetches, ids, hits, misses, failures, foreign_values;
    atomic_uint_least64_t round_trips, round_trip_us, buckets[16];
} mr_redis_store;

/* For writes, walks and notes. Runs the batch until every request has an answer that counts: lost
 * connections and servers that excuse themselves (LOADING, a failover) are waited for until the
 * write timeout. All our requests may be repeated. Error replies are left to the caller. */
mr_status mr_redis_store_run(mr_redis_store *store, mr_redis_batch *batch, mr_error *err);

/* What an error reply means, and what to do about it. */
mr_status mr_redis_store_refused(const mr_redis_store *store, const mr_redis_value *value,
                                 mr_error *err);
/* A reply of the wrong kind. */
mr_status mr_redis_store_odd(const mr_redis_store *store, const char *command, mr_error *err);

/* One request to one server and its reply, as mr_redis_store_run; *batch is for free, and holds the
 * value. An error reply is a failure. */
mr_status mr_redis_store_ask(mr_redis_store *store, const mr_bytes *args, size_t n, mr_bytes key,
                             const mr_redis_address *at, mr_redis_batch **batch,
                             const mr_redis_value **value, mr_error *err);

/* Counts a value that is no record of ours. */
void mr_redis_store_look_at(mr_redis_store *store, mr_bytes value);

/* "<namespace>:<name>" of store.c as "<namespace>:note:<name>": in Redis notes lie beside records.
 */
mr_bytes mr_redis_note_key(mr_bytes key, char out[MR_STORE_KEY_MAX]);

/* redis_put.c */
void mr_redis_script_sha(char sha[41]);
mr_status mr_redis_put(void *self, mr_store_key *key, const mr_store_write *writes, size_t n,
                       const mr_store_note *note, mr_store_put_result *result, mr_error *err);

/* redis_scan.c */
mr_status mr_redis_walk(void *self, const mr_store_key *key, mr_store_walk_visit visit,
                        void *context, mr_error *err);
mr_status mr_redis_spaces(void *self, const mr_store_key *key, uint64_t *spaces, size_t capacity,
                          size_t *n, mr_error *err);
mr_status mr_redis_stat(void *self, mr_store_stats *out, mr_error *err);
mr_status mr_redis_remove(void *self, const mr_store_key *key, uint64_t *removed, mr_error *err);

/* For "%.*s" and memory: the text of a literal. */
#define MR_REDIS_ARG(literal) ((mr_bytes){literal, sizeof(literal) - 1})

#endif
