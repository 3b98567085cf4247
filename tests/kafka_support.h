/* kafka_support.h - what tests of the refresher share: a client that produces and looks, a
 * refresher in a thread of its own, records that say what they are. On a mock cluster or a real
 * broker: both are an address.
 *
 * Include after cmocka.h. What fails fails the test.
 * Threads: a client belongs to the test's thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_KAFKA_SUPPORT_H
#define MR_TESTS_KAFKA_SUPPORT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <librdkafka/rdkafka.h>

#include "featurestore/refresher.h"

#define KAFKA_SPACE      UINT64_C(0x9f00c0ffee000001)
#define KAFKA_USER_SPACE UINT64_C(0x4c00c0ffee000002)
#define KAFKA_DIM        4

typedef struct kafka_client kafka_client;

kafka_client *kafka_client_new(const char *brokers);
void kafka_client_free(kafka_client *client); /* NULL is fine */

typedef struct {
    const char *topic;
    int32_t partition; /* -1: by key */
    const char *key;   /* NULL: none */
    const void *value; /* NULL: none */
    size_t len;
    const char *version; /* header; NULL: none */
} kafka_message;

/* Returns at once; kafka_flush waits until the broker has them all. */
void kafka_produce(kafka_client *client, const kafka_message *message);
void kafka_flush(kafka_client *client);

/* An Embedding of [1, KAFKA_DIM] values that all are `mark`. */
void kafka_produce_embedding(kafka_client *client, const char *topic, int32_t partition,
                             const char *key, uint64_t version, float mark);
size_t kafka_pack_embedding(uint64_t space, uint64_t version, float mark, void *out, size_t size);
void kafka_produce_text(kafka_client *client, const char *topic, int32_t partition, const char *key,
                        const char *text);

/* Makes a topic on a real broker; settings are name, value, ..., NULL, or NULL. */
void kafka_make_topic(kafka_client *client, const char *topic, int partitions,
                      const char *const *settings);

/* Calls visit for every message of a topic from its beginning to where it ends now. */
typedef void (*kafka_visit)(void *context, const rd_kafka_message_t *message);
size_t kafka_read_all(kafka_client *client, const char *topic, kafka_visit visit, void *context);
/* A header as text; one of 8 static buffers in turn; NULL: there is none. */
const char *kafka_header(const rd_kafka_message_t *message, const char *name);

/* -1001 when nothing was committed. */
int64_t kafka_committed(kafka_client *client, const char *group, const char *topic,
                        int32_t partition);
void kafka_commit(kafka_client *client, const char *group, const char *topic, int32_t partition,
                  int64_t offset);

/* Options with the test's spaces, dim and dtype; the caller adds topics. */
mr_refresher_options kafka_options(const char *brokers, const char *group);

typedef struct {
    mr_refresher *refresher;
    pthread_t thread;
    mr_status status;
    mr_error err;
} kafka_run;

void kafka_run_start(kafka_run *run, const mr_refresher_options *options, mr_store *store,
                     const mr_refresh_encoder *encoder);
/* Asks it to stop, waits for its end and wants `expected`. */
void kafka_run_stop(kafka_run *run, mr_status expected);
/* Waits for its own end. */
void kafka_run_join(kafka_run *run, mr_status expected);
/* Both of these leave the statistics in *stats, which may be NULL. */
void kafka_run_join_stats(kafka_run *run, mr_status expected, mr_refresher_stats *stats);
mr_refresher_stats kafka_run_stats(kafka_run *run);

/* Polls once in 10 ms; fails the test after 30 s. */
#define kafka_wait(condition)                                                    \
    do {                                                                         \
        const int64_t kafka_until = mr_clock_monotonic_us() + INT64_C(30000000); \
        while (!(condition)) {                                                   \
            if (mr_clock_monotonic_us() > kafka_until)                           \
                fail_msg("waited 30 s for " #condition);                         \
            kafka_sleep_ms(10);                                                  \
        }                                                                        \
    } while (0)
void kafka_sleep_ms(int ms);

/* What the store has: the mark, -1 for a tombstone, -2 for nothing. */
float kafka_stored(mr_store *store, mr_entity entity, const char *id, uint64_t *version);

#endif
