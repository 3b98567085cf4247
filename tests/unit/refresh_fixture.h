/* refresh_fixture.h - a mock cluster, a store in memory and a script for what goes wrong. For tests
 * that wrap mr_store_put, rd_kafka_commit and rd_kafka_commit_queue (kafka.cmake).
 *
 * Include after cmocka.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_REFRESH_FIXTURE_H
#define MR_TESTS_REFRESH_FIXTURE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In this order: the second needs the first. */
#include <librdkafka/rdkafka.h>

#include <librdkafka/rdkafka_mock.h>

#include "core/arena.h"
#include "core/clock.h"
#include "core/json.h"
#include "featurestore/refresher.h"
#include "tests/kafka_support.h"
#include "tests/support.h"

/* ---- the script, reset before every test ----------------------------------------------------- */

void script_reset(void);
/* Every n-th put fails so; 0: none. */
void script_fail_every_put(int n, mr_status status);
/* All of them, until told otherwise. */
void script_store_is_away(bool away);
/* Puts with this id among their records fail so, for good. */
void script_refuse_id(const char *id, mr_status status);
void script_slow_puts(int ms);
/* Ids are "m<offset>" of one partition of n messages: commits beyond what a put has answered count
 * as early. */
void script_watch_order(int n);
int script_commits(void);
int script_early_commits(void);
int script_puts(void); /* answered with OK */

/* ---- the fixture ----------------------------------------------------------------------------- */

typedef struct {
    rd_kafka_t *owner;
    rd_kafka_mock_cluster_t *cluster;
    const char *brokers;
    kafka_client *client;
    mr_store *store;
    mr_arena encoded; /* the encoder's memory */
    int encode_calls;
    int encode_ms;
} fixture;

int fixture_setup(void **state);
int fixture_teardown(void **state);
void use_all_topics(mr_refresher_options *options); /* made by the setup, 2 partitions each */

/* {"id", "mark"}: a record of that mark; {"reject": reason}: rejected; {"fail": true}: the call
 * fails for good. context is the fixture. */
mr_status encode(void *context, mr_entity entity, uint64_t space, const mr_refresh_row *rows,
                 size_t n, mr_refresh_record *out, mr_error *err);

#define assert_stored(store, entity, id, want)                                         \
    do {                                                                               \
        const float got_mark = kafka_stored((store), (entity), (id), NULL);            \
        if (got_mark != (float)(want))                                                 \
            fail_msg("%s is %g, expected %g", (id), (double)got_mark, (double)(want)); \
    } while (0)

#endif
