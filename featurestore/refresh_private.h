/* refresh_private.h - what the files of the refresher share. Private to them.
 *
 *     refresher.c         options, the loop, statistics
 *     refresh_consumer.c  settings, assignment, messages, lag, leaving the group
 *     refresh_offsets.c   where to start, commits
 *     refresh_batch.c     a batch: parsed, encoded, its letters delivered, written
 *     refresh_letters.c   the producer of dead letters
 *
 * All of it runs in one thread. librdkafka's callbacks come inside its polls, which only the loop,
 * the commit and the close call: never while a batch is half way through a step. So a batch moves
 * in steps that can be repeated (mr_refresh_batch_step), and between two of them the loop polls.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_REFRESH_PRIVATE_H
#define MR_FEATURESTORE_REFRESH_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include <librdkafka/rdkafka.h>

#include "core/rng.h"
#include "featurestore/refresh_message.h"
#include "featurestore/refresher.h"

/* In the order in which a batch writes them: a user is made of items. */
enum {
    MR_REFRESH_ITEMS,
    MR_REFRESH_ITEM_EMBEDDINGS,
    MR_REFRESH_USER_EMBEDDINGS,
    MR_REFRESH_USER_EVENTS,
    MR_REFRESH_TOPICS
};

typedef struct {
    const char *name;   /* NULL: not consumed */
    char *dead_letters; /* owned */
    mr_refresh_rule rule;
    int64_t newest_ms; /* of the events read so far; 0: none */
    mr_metric *written, *stale, *dead, *tombstones, *age;
} mr_refresh_topic;

/* Kept when it is revoked, for `end` and `done`. */
typedef struct {
    int topic;
    int32_t partition;
    bool assigned;
    bool done;       /* read to `end` */
    int64_t end;     /* where it ended at its first assignment; -1: unknown, or nobody asked */
    int64_t read;    /* behind the last message that was polled; -1: none yet */
    int64_t settled; /* behind the last message that was dealt with; -1: none yet */
    int64_t sent;    /* what the last commit said; -1: none yet */
    mr_metric *lag;
} mr_refresh_partition;

/* A letter on its way. Its report may come after the batch was thrown away. */
typedef struct {
    bool delivered, failed, orphaned;
    rd_kafka_resp_err_t error;
} mr_refresh_letter;

typedef struct {
    rd_kafka_message_t *message; /* owned */
    int topic;
    bool parsed;
    bool written;
    bool settled;              /* nothing is left to do */
    bool cut;                  /* its letter goes without the value, which was too large */
    mr_refresh_letter *letter; /* owned, unless orphaned */
    mr_refresh_parsed what;
} mr_refresh_entry;

typedef struct {
    mr_refresh_entry *entries; /* owned */
    size_t n, capacity;
    size_t bytes;     /* of their keys and values */
    int64_t first_us; /* when the first came */
    bool writing;     /* no more messages are asked for */
    mr_arena arena, scratch;
} mr_refresh_batch;

struct mr_refresher {
    mr_refresher_options options; /* defaults filled in */
    mr_store *store;
    mr_refresh_encoder encoder;
    mr_metrics *metrics;
    bool transactional; /* offsets are notes in the store */

    mr_refresh_topic topics[MR_REFRESH_TOPICS];
    mr_refresh_partition *partitions; /* owned */
    size_t n_partitions, last_partition;
    bool assigned; /* none of them, perhaps; false between a revoke and the next assignment */
    mr_refresh_batch batch;
    rd_kafka_t *consumer, *producer;

    bool paused; /* the assigned partitions */
    bool away;   /* the last step failed and will be repeated */
    int64_t retry_us, backoff_us;
    bool committing;
    int64_t commit_us; /* not before */
    int64_t tick_us;   /* when the next one is due */
    int64_t lag_asked_us;
    int64_t rate_us; /* max_rate: when the next message is due */
    mr_rng jitter;

    atomic_bool stop;
    bool ran;
    mr_status status; /* why the loop ends; sticky */
    mr_error err;

    mr_refresher_stats counts; /* of run's thread */
    pthread_mutex_t lock;
    mr_refresher_stats shared; /* under lock */

    mr_metric *batch_seconds, *encode_seconds, *retries, *pause, *rebalances;
};

/* ---- refresher.c ----------------------------------------------------------------------------- */

void mr_refresh_event(mr_refresher *r, mr_log_level level, const char *event, const char *fmt, ...)
    MR_PRINTF(4, 5);
/* Ends the loop; the first failure stays. */
void mr_refresh_fail(mr_refresher *r, mr_status status, const mr_error *why);
/* A failure that goes away by itself or by an operator's hand: repeated, never given up. */
bool mr_refresh_is_passing(mr_status status);
/* Steps until the batch is empty (true), the deadline, or a failure that stays. */
bool mr_refresh_finish_batch(mr_refresher *r, int64_t deadline_us);
void mr_refresh_publish(mr_refresher *r);

/* ---- refresh_consumer.c ---------------------------------------------------------------------- */

MR_NODISCARD mr_status mr_refresh_consumer_new(mr_refresher *r, mr_error *err);
MR_NODISCARD mr_status mr_refresh_subscribe(mr_refresher *r, mr_error *err);
/* The settings that consumer and producer share. The caller owns the result. */
rd_kafka_conf_t *mr_refresh_conf(mr_refresher *r, const char *const *own, mr_error *err);
mr_refresh_partition *mr_refresh_partition_of(mr_refresher *r, const char *topic,
                                              int32_t partition);
void mr_refresh_pause(mr_refresher *r, bool pause);
/* Takes what the poll gave: a message into the batch, the end of a partition, an error. */
void mr_refresh_take(mr_refresher *r, rd_kafka_message_t *message);
/* Once a second: lag and ages. */
void mr_refresh_tick(mr_refresher *r, int64_t now_us);
/* Leaves the group and destroys the client, within about 15 s. */
void mr_refresh_leave(mr_refresher *r);
/* Tells of an error, and ends the loop by one that no retry mends. */
void mr_refresh_kafka_failed(mr_refresher *r, rd_kafka_t *client, rd_kafka_resp_err_t error,
                             const char *text);
int mr_refresh_topic_of(const mr_refresher *r, const char *name); /* -1: none of ours */

/* ---- refresh_offsets.c ----------------------------------------------------------------------- */

/* Fills in offsets: the store's notes, or without transactions what the group committed, else
 * options.start. */
MR_NODISCARD mr_status mr_refresh_choose_offsets(mr_refresher *r,
                                                 rd_kafka_topic_partition_list_t *list,
                                                 mr_error *err);
/* Name of the note that holds a partition's offset. */
void mr_refresh_note_name(const mr_refresher *r, int topic, int32_t partition, char *out,
                          size_t size);
#define MR_REFRESH_NOTE_NAME 400
/* Sends what was settled since the last commit; wait_us 0: without waiting for the answer. */
void mr_refresh_commit(mr_refresher *r, int64_t wait_us);
/* librdkafka's answer to a commit that nobody waited for. */
void mr_refresh_on_commit(rd_kafka_t *consumer, rd_kafka_resp_err_t error,
                          rd_kafka_topic_partition_list_t *offsets, void *opaque);

/* ---- refresh_batch.c ------------------------------------------------------------------------- */

/* Takes ownership of the message, also when it fails for want of memory. */
MR_NODISCARD mr_status mr_refresh_batch_add(mr_refresher *r, int topic, rd_kafka_message_t *message,
                                            mr_error *err);
bool mr_refresh_batch_is_full(const mr_refresher *r);
/* Does what it can within about a second. *done: all is settled. Passing failures are repeated. */
MR_NODISCARD mr_status mr_refresh_batch_step(mr_refresher *r, bool *done, mr_error *err);
void mr_refresh_batch_clear(mr_refresher *r); /* throws away what is left */
void mr_refresh_batch_done(mr_refresher *r);

/* ---- refresh_letters.c ----------------------------------------------------------------------- */

/* Sends the letters of the rejected entries [n] of a topic that have none yet. *delivered: the
 * broker has them all. Waits for reports until deadline_us. */
MR_NODISCARD mr_status mr_refresh_send_letters(mr_refresher *r, int topic, int64_t deadline_us,
                                               bool *delivered, mr_error *err);
void mr_refresh_letter_drop(mr_refresh_letter *letter); /* NULL is fine */
void mr_refresh_letters_close(mr_refresher *r);

#endif
