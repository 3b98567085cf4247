/* test_refresh_broker.c - the refresher against a real Kafka broker: what a mock cannot show.
 * Compaction, transactions, times, static members, a broker that restarts.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "tests/kafka_broker.h"
#include "tests/kafka_support.h"
#include "tests/support.h"

static kafka_broker *broker;
static kafka_client *client;

typedef struct {
    char *folder;
    mr_store *store;
} fixture;

static mr_store *open_lmdb(const char *folder)
{
    mr_error err = {0};
    mr_store_options options = MR_STORE_OPTIONS_DEFAULT;
    mr_store *store = NULL;
    options.fast_writes = true;
    options.max_bytes = (uint64_t)64 << 20;
    assert_status(mr_store_open(&store, folder, &options, &err), MR_OK, &err);
    return store;
}

static int setup(void **state)
{
    mr_error err = {0};
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->folder = test_folder_new();
    assert_status(mr_store_open(&f->store, "memory:", NULL, &err), MR_OK, &err);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    mr_store_close(f->store);
    test_folder_free(f->folder);
    free(f);
    return 0;
}

static mr_refresher_options to_the_end_of(const char *topic, const char *group)
{
    mr_refresher_options options = kafka_options(kafka_broker_address(broker), group);
    options.item_embeddings = topic;
    options.stop_at_end = true;
    return options;
}

static mr_refresher_stats run_to_end(mr_store *store, const mr_refresher_options *options)
{
    kafka_run run;
    mr_refresher_stats stats;
    kafka_run_start(&run, options, store, NULL);
    kafka_run_join_stats(&run, MR_OK, &stats);
    return stats;
}

static void assert_mark(mr_store *store, const char *id, float want)
{
    const float got = kafka_stored(store, MR_ENTITY_ITEM, id, NULL);
    if (got != want)
        fail_msg("%s is %g, expected %g", id, (double)got, (double)want);
}

enum { KEYS = 40, ROUNDS = 25 };

/* Every key gets ROUNDS versions; every fifth is removed in the end. */
static void a_compacted_topic_gives_the_same_store(void **state)
{
    static const char *const compact[] = {"cleanup.policy",
                                          "compact",
                                          "min.cleanable.dirty.ratio",
                                          "0.01",
                                          "segment.ms",
                                          "500",
                                          "min.compaction.lag.ms",
                                          "0",
                                          "delete.retention.ms",
                                          "500",
                                          NULL};
    fixture *f = *state;
    char key[16];
    kafka_make_topic(client, "compacted", 2, compact);
    mr_refresher_options options = to_the_end_of("compacted", "compaction");
    for (int round = 0; round < ROUNDS; round++) {
        for (int k = 0; k < KEYS; k++) {
            snprintf(key, sizeof key, "k%d", k);
            kafka_produce_embedding(client, "compacted", k % 2, key, 0, (float)(100 * round + k));
        }
        if (round == ROUNDS / 2) {
            kafka_flush(client);
            (void)run_to_end(f->store, &options); /* half of it before it is compacted */
        }
    }
    for (int k = 0; k < KEYS; k += 5) {
        snprintf(key, sizeof key, "k%d", k);
        kafka_produce_text(client, "compacted", k % 2, key, NULL);
    }
    kafka_flush(client);
    /* Before its tombstones expire: who lags longer than delete.retention.ms never sees them. */
    (void)run_to_end(f->store, &options);
    /* A segment is compacted after another one has begun. */
    size_t left = 0;
    for (int i = 0; i < 60; i++) {
        kafka_produce_embedding(client, "compacted", i % 2, i % 2 ? "tick1" : "tick0", 0, (float)i);
        kafka_flush(client);
        kafka_sleep_ms(500);
        left = i % 4 == 3 ? kafka_read_all(client, "compacted", NULL, NULL) : left;
        if (left && left < (size_t)3 * KEYS)
            break;
    }
    if (left == 0 || left >= (size_t)3 * KEYS)
        fail_msg("%zu messages are left of %d, expected compaction", left, KEYS * ROUNDS);
    mr_store *fresh = open_lmdb(f->folder);
    (void)run_to_end(fresh, &options);
    for (int k = 0; k < KEYS; k++) {
        snprintf(key, sizeof key, "k%d", k);
        const float want = (float)(100 * (ROUNDS - 1) + k);
        assert_mark(f->store, key, k % 5 == 0 ? -1 : want);
        const float got = kafka_stored(fresh, MR_ENTITY_ITEM, key, NULL);
        /* What was removed may be known as removed, or not at all, once tombstones expire. */
        if (k % 5 == 0)
            assert_true(got == -1.0f || got == -2.0f);
        else
            assert_mark(fresh, key, want);
    }
    mr_store_close(fresh);
}

static void a_broker_that_restarts_costs_nothing(void **state)
{
    fixture *f = *state;
    char key[16];
    kafka_make_topic(client, "restarted", 3, NULL);
    mr_refresher_options options = to_the_end_of("restarted", "restart");
    options.stop_at_end = false;
    kafka_run run;
    kafka_run_start(&run, &options, f->store, NULL);
    for (int i = 0; i < 600; i++) {
        snprintf(key, sizeof key, "r%d", i);
        kafka_produce_embedding(client, "restarted", i % 3, key, 0, (float)i);
        if (i == 200) {
            kafka_flush(client);
            kafka_wait(kafka_run_stats(&run).written >= 200);
            assert_true(kafka_broker_restart(broker));
        }
        if (i == 400) {
            kafka_flush(client);
            assert_true(kafka_broker_kill(broker));
            assert_true(kafka_broker_restart(broker));
        }
    }
    kafka_flush(client);
    kafka_wait(kafka_run_stats(&run).lag == 0 && kafka_run_stats(&run).consumed >= 600);
    kafka_run_stop(&run, MR_OK);
    for (int i = 0; i < 600; i++) {
        snprintf(key, sizeof key, "r%d", i);
        assert_mark(f->store, key, (float)i);
    }
    for (int p = 0; p < 3; p++)
        assert_int_equal(kafka_committed(client, "restart", "restarted", p), 200);
}

static void a_start_by_time_reads_what_came_since(void **state)
{
    fixture *f = *state;
    kafka_make_topic(client, "timed", 2, NULL);
    kafka_produce_embedding(client, "timed", 0, "before", 0, 1);
    kafka_flush(client);
    kafka_sleep_ms(50);
    const int64_t since = mr_clock_wall_ms();
    kafka_produce_embedding(client, "timed", 0, "after", 0, 2);
    kafka_flush(client);
    mr_refresher_options options = to_the_end_of("timed", "times");
    options.start = MR_REFRESH_TIMESTAMP;
    options.start_ms = since;
    assert_int_equal(run_to_end(f->store, &options).consumed, 1);
    assert_mark(f->store, "before", -2);
    assert_mark(f->store, "after", 2);
    /* Once something is committed the time counts no more. */
    options.start_ms = 0;
    assert_int_equal(run_to_end(f->store, &options).consumed, 0);
}

static void offsets_in_lmdb_win_over_a_group_that_was_reset(void **state)
{
    fixture *f = *state;
    kafka_make_topic(client, "noted", 1, NULL);
    kafka_produce_embedding(client, "noted", 0, "a", 0, 1);
    kafka_produce_embedding(client, "noted", 0, "b", 0, 2);
    kafka_flush(client);
    mr_store *store = open_lmdb(f->folder);
    const mr_refresher_options options = to_the_end_of("noted", "notes");
    assert_int_equal(run_to_end(store, &options).consumed, 2);
    kafka_commit(client, "notes", "noted", 0, 0);
    assert_int_equal(run_to_end(store, &options).consumed, 0);
    kafka_produce_embedding(client, "noted", 0, "c", 0, 3);
    kafka_flush(client);
    kafka_commit(client, "notes", "noted", 0, 3);
    assert_int_equal(run_to_end(store, &options).consumed, 1);
    assert_mark(store, "c", 3);
    mr_store_close(store);
}

static void in_transaction(rd_kafka_t *producer, const char *key, float mark, bool commit)
{
    uint8_t packed[256];
    const size_t len = kafka_pack_embedding(KAFKA_SPACE, 0, mark, packed, sizeof packed);
    rd_kafka_error_t *error = rd_kafka_begin_transaction(producer);
    assert_null(error);
    assert_int_equal(rd_kafka_producev(producer, RD_KAFKA_V_TOPIC("transactions"),
                                       RD_KAFKA_V_PARTITION(0), RD_KAFKA_V_KEY(key, strlen(key)),
                                       RD_KAFKA_V_VALUE(packed, len),
                                       RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END),
                     RD_KAFKA_RESP_ERR_NO_ERROR);
    assert_int_equal(rd_kafka_flush(producer, 30000), RD_KAFKA_RESP_ERR_NO_ERROR);
    error = commit ? rd_kafka_commit_transaction(producer, 30000)
                   : rd_kafka_abort_transaction(producer, 30000);
    if (error)
        fail_msg("transaction: %s", rd_kafka_error_string(error));
}

/* The last offset of the partition is a mark that no consumer sees: a run to the end must end. */
static void aborted_transactions_are_never_seen(void **state)
{
    fixture *f = *state;
    char why[256];
    kafka_make_topic(client, "transactions", 1, NULL);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", kafka_broker_address(broker), why, sizeof why);
    rd_kafka_conf_set(conf, "transactional.id", "test", why, sizeof why);
    rd_kafka_conf_set_log_cb(conf, NULL);
    rd_kafka_t *producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    assert_non_null(producer);
    rd_kafka_error_t *error = rd_kafka_init_transactions(producer, 30000);
    if (error)
        fail_msg("init: %s", rd_kafka_error_string(error));
    in_transaction(producer, "kept", 1, true);
    in_transaction(producer, "kept", 2, false);
    in_transaction(producer, "dropped", 3, false);
    rd_kafka_destroy(producer);
    const mr_refresher_options options = to_the_end_of("transactions", "transactions");
    const mr_refresher_stats stats = run_to_end(f->store, &options);
    assert_int_equal(stats.consumed, 1);
    assert_mark(f->store, "kept", 1);
    assert_mark(f->store, "dropped", -2);
    assert_int_equal(kafka_committed(client, "transactions", "transactions", 0), 6);
}

static void a_static_member_that_restarts_disturbs_nobody(void **state)
{
    static const char *const kafka[] = {"session.timeout.ms", "20000", NULL};
    fixture *f = *state;
    kafka_make_topic(client, "static", 4, NULL);
    mr_refresher_options options = to_the_end_of("static", "static");
    options.stop_at_end = false;
    options.kafka = kafka;
    kafka_run first, second;
    options.instance = "first";
    kafka_run_start(&first, &options, f->store, NULL);
    options.instance = "second";
    kafka_run_start(&second, &options, f->store, NULL);
    kafka_wait(kafka_run_stats(&first).partitions == 2 && kafka_run_stats(&second).partitions == 2);
    const uint64_t before = kafka_run_stats(&first).rebalances;
    kafka_run_stop(&second, MR_OK);
    kafka_run_start(&second, &options, f->store, NULL);
    kafka_wait(kafka_run_stats(&second).partitions == 2);
    assert_int_equal(kafka_run_stats(&first).rebalances, before);
    kafka_run_stop(&second, MR_OK);
    kafka_run_stop(&first, MR_OK);
}

static void on_letter(void *context, const rd_kafka_message_t *message)
{
    int *n = context;
    ++*n;
    assert_string_equal(kafka_header(message, "mixrank-code"), "value");
    assert_string_equal(kafka_header(message, "mixrank-topic"), "poisoned");
    assert_string_equal(kafka_header(message, "mixrank-offset"), "1");
    assert_memory_equal(message->payload, "poison", 6);
}

static void letters_reach_a_topic_that_the_broker_makes(void **state)
{
    fixture *f = *state;
    kafka_make_topic(client, "poisoned", 1, NULL);
    kafka_produce_embedding(client, "poisoned", 0, "a", 0, 1);
    kafka_produce_text(client, "poisoned", 0, "b", "poison");
    kafka_produce_embedding(client, "poisoned", 0, "c", 0, 3);
    kafka_flush(client);
    const mr_refresher_options options = to_the_end_of("poisoned", "poisoned");
    assert_int_equal(run_to_end(f->store, &options).dead_letters, 1);
    assert_mark(f->store, "c", 3);
    int n = 0;
    kafka_read_all(client, "poisoned.dlq", on_letter, &n);
    assert_int_equal(n, 1);
}

static void a_topic_that_is_not_there_fails_a_run_to_the_end(void **state)
{
    fixture *f = *state;
    const mr_refresher_options options = to_the_end_of("nowhere", "nowhere");
    kafka_run run;
    kafka_run_start(&run, &options, f->store, NULL);
    kafka_run_join(&run, MR_NOT_FOUND);
}

int main(void)
{
    broker = kafka_broker_start(NULL);
    if (!broker)
        return kafka_broker_skip();
    client = kafka_client_new(kafka_broker_address(broker));
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(a_compacted_topic_gives_the_same_store),
        CASE(a_broker_that_restarts_costs_nothing),
        CASE(a_start_by_time_reads_what_came_since),
        CASE(offsets_in_lmdb_win_over_a_group_that_was_reset),
        CASE(aborted_transactions_are_never_seen),
        CASE(a_static_member_that_restarts_disturbs_nobody),
        CASE(letters_reach_a_topic_that_the_broker_makes),
        CASE(a_topic_that_is_not_there_fails_a_run_to_the_end),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    kafka_client_free(client);
    kafka_broker_free(broker);
    return failed;
}
