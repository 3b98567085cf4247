/* refresher.h - keeps a store fresh from Kafka: a consumer group that writes what its topics say.
 *
 * Topics (names are options):
 *     items            key: item id, value: JSON {id, title?, text?, ...}     -> encode -> store
 *     item-embeddings  key: item id, value: mixrank.v1.Embedding or a record  -> store
 *     user-embeddings  key: user id, the same
 *     user-events      key: user id, value: JSON {id, history: [item ids]}: the whole history
 * No value: a tombstone. A JSON value may carry "version" (an integer, or a string of digits beyond
 * 2^53) and "event_time_ms".
 *
 * Effect once: versions and the write rule make a message that is delivered again harmless, so at
 * least once is enough, and the offset moves only after the store has answered. The version of a
 * message without one is (topic epoch << 48) | offset, which grows for a key as long as it stays in
 * its partition: raise `epoch` when the number of partitions changes or a topic is made anew. With
 * LMDB the offsets are notes in the same transaction as the records, and win over the group's.
 *
 * A message that can never be written (no key, unparsable, another space, wrong width, values that
 * are not finite) goes to the dead-letter topic with the reason, source topic, partition and offset
 * as headers, and is counted; its offset moves once the broker has the letter. A store that is away
 * pauses the partitions while polling goes on (a consumer that does not poll is thrown out of its
 * group), and the batch is written again with growing pauses. On revoke the batch is written and
 * committed first; an assignment that was lost throws it away.
 *
 * Threads: one refresher runs in one thread (mr_refresher_run); stop may be called from any thread
 * and from a signal handler. Scale out by running more of them in one group.
 * Facts and traps of librdkafka 2.0.2 that this stands on: range assignor (cooperative-sticky
 * aborts), single-message polls (batches hand out revoked partitions).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_REFRESHER_H
#define MR_FEATURESTORE_REFRESHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/log.h"
#include "core/metrics.h"
#include "featurestore/record.h"
#include "featurestore/store.h"

typedef struct mr_refresher mr_refresher;

/* One row to encode: the parsed value of a message of `items` or `user-events`. */
typedef struct {
    mr_str id;   /* borrowed */
    mr_str json; /* the value, an object */
    uint64_t version;
    int64_t event_ms;
} mr_refresh_row;

/* What became of a row. */
typedef struct {
    mr_bytes record;  /* in the encoder's memory until its next call; empty: rejected */
    char reason[256]; /* why, when rejected: goes to the dead-letter topic */
} mr_refresh_record;

/* Encodes n rows of an entity into records of `space`. A row that can never be encoded is rejected;
 * a failing call (memory, store away) is retried whole. */
typedef struct {
    void *context;
    mr_status (*encode)(void *context, mr_entity entity, uint64_t space, const mr_refresh_row *rows,
                        size_t n, mr_refresh_record *out, mr_error *err);
} mr_refresh_encoder;

typedef enum { MR_REFRESH_EARLIEST, MR_REFRESH_LATEST, MR_REFRESH_TIMESTAMP } mr_refresh_start;

typedef struct {
    const char *brokers;  /* "host:port,host:port" */
    const char *group;    /* default "mixrank-refresh" */
    const char *instance; /* static member id; NULL: a dynamic member */
    const char *items, *item_embeddings, *user_embeddings, *user_events; /* NULL: not consumed */
    const char *dead_letters; /* topic; NULL: "<topic>.dlq" of each */
    uint64_t item_space, user_space;
    uint16_t item_dim, user_dim; /* expected width; 0: any */
    mr_record_dtype dtype;       /* how embeddings that come as Embedding are kept */
    uint16_t epoch;              /* topic epoch, see above */
    size_t batch;                /* messages; 0: 256 */
    int64_t linger_ms;           /* a batch waits no longer; 0: 20 */
    double max_rate;             /* messages per second, for backfills; 0: no bound */
    mr_refresh_start start;      /* where nothing was committed */
    int64_t start_ms;            /* for TIMESTAMP */
    bool stop_at_end;            /* run returns when every partition has been read to where its end
                                    was at the start: backfills, tests */
    const char *const *kafka;    /* further librdkafka settings: name, value, ..., NULL */
    /* Told what happens, for logs; NULL: nobody. From run's thread; detail may quote a peer. */
    void (*on_event)(void *context, mr_log_level level, const char *event, const char *detail);
    void *event_context;
} mr_refresher_options;

/* What the last statistics said; also as metrics mixrank_refresh_*. */
typedef struct {
    uint64_t consumed, written, stale, tombstones, dead_letters, batches, store_retries, rebalances;
    int64_t lag;    /* over all assigned partitions; -1: not known yet */
    int partitions; /* assigned */
    bool paused;    /* the store is away */
} mr_refresher_stats;

/* All is borrowed for the refresher's life; encoder may be NULL when items and user_events are;
 * metrics may be NULL. INVALID: options; UNAVAILABLE comes later, in run. */
MR_NODISCARD mr_status mr_refresher_new(mr_refresher **out, const mr_refresher_options *options,
                                        mr_store *store, const mr_refresh_encoder *encoder,
                                        mr_metrics *metrics, mr_error *err);
/* Consumes until stop, until the end (stop_at_end), or a failure that retrying cannot mend
 * (authentication, a fatal client error, a dead-letter topic that does not take letters). Leaves
 * the group before it returns. */
MR_NODISCARD mr_status mr_refresher_run(mr_refresher *refresher, mr_error *err);
void mr_refresher_stop(mr_refresher *refresher);                          /* async-signal-safe */
void mr_refresher_stat(mr_refresher *refresher, mr_refresher_stats *out); /* any thread */
void mr_refresher_free(mr_refresher *refresher);                          /* NULL is fine */

#endif
