/* test_refresh_failures.c - the refresher while things are away: the store, the brokers, the
 * coordinator, the dead-letter topic, other members. On librdkafka's mock cluster.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/refresh_fixture.h"

enum { PRODUCE = 0, FETCH = 1, OFFSET_COMMIT = 8, JOIN_GROUP = 11, HEARTBEAT = 12 };

static mr_refresher_options embeddings(fixture *f, const char *group)
{
    mr_refresher_options options = kafka_options(f->brokers, group);
    options.item_embeddings = "item-embeddings";
    return options;
}

/* m0, m1, ... to both partitions in turn. */
static void produce(fixture *f, int from, int to)
{
    for (int i = from; i < to; i++) {
        char key[16];
        snprintf(key, sizeof key, "m%d", i);
        kafka_produce_embedding(f->client, "item-embeddings", i % 2, key, 0, (float)i);
    }
    kafka_flush(f->client);
}

static int stored_of(fixture *f, int n)
{
    int found = 0;
    for (int i = 0; i < n; i++) {
        char key[16];
        snprintf(key, sizeof key, "m%d", i);
        found += kafka_stored(f->store, MR_ENTITY_ITEM, key, NULL) == (float)i;
    }
    return found;
}

static void a_store_that_is_away_pauses_and_resumes(void **state)
{
    fixture *f = *state;
    const mr_refresher_options options = embeddings(f, "pause");
    kafka_run run;
    script_store_is_away(true);
    produce(f, 0, 100);
    kafka_run_start(&run, &options, f->store, NULL);
    kafka_wait(kafka_run_stats(&run).store_retries >= 6);
    mr_refresher_stats stats = kafka_run_stats(&run);
    assert_true(stats.paused);
    assert_int_equal(stats.written, 0);
    /* It polls all the while, or the group would have thrown it out. */
    assert_int_equal(stats.rebalances, 1);
    assert_int_equal(stats.partitions, 2);
    produce(f, 100, 200);
    script_store_is_away(false);
    kafka_wait(kafka_run_stats(&run).written == 200);
    assert_int_equal(stored_of(f, 200), 200);
    kafka_wait(kafka_run_stats(&run).lag == 0);
    stats = kafka_run_stats(&run);
    assert_false(stats.paused);
    assert_int_equal(stats.consumed, 200);
    kafka_run_stop(&run, MR_OK);
    assert_int_equal(kafka_committed(f->client, "pause", "item-embeddings", 0), 100);
    assert_int_equal(kafka_committed(f->client, "pause", "item-embeddings", 1), 100);
}

static void a_stop_while_the_store_is_away_leaves_the_offset_where_it_was(void **state)
{
    fixture *f = *state;
    const mr_refresher_options options = embeddings(f, "stopped");
    kafka_run run;
    produce(f, 0, 10);
    kafka_run_start(&run, &options, f->store, NULL);
    kafka_wait(kafka_run_stats(&run).written == 10);
    script_store_is_away(true);
    produce(f, 10, 20);
    kafka_wait(kafka_run_stats(&run).paused);
    kafka_run_stop(&run, MR_OK);
    assert_int_equal(kafka_committed(f->client, "stopped", "item-embeddings", 0), 5);
    script_store_is_away(false);
    kafka_run_start(&run, &options, f->store, NULL);
    kafka_wait(kafka_run_stats(&run).written == 10);
    kafka_run_stop(&run, MR_OK);
    assert_int_equal(stored_of(f, 20), 20);
}

static void brokers_that_go_and_come_back_cost_nothing(void **state)
{
    fixture *f = *state;
    const mr_refresher_options options = embeddings(f, "brokers");
    kafka_run run;
    produce(f, 0, 50);
    kafka_run_start(&run, &options, f->store, NULL);
    kafka_wait(kafka_run_stats(&run).written == 50);
    rd_kafka_mock_broker_set_down(f->cluster, 1);
    rd_kafka_mock_broker_set_down(f->cluster, 2);
    kafka_sleep_ms(1500);
    rd_kafka_mock_broker_set_up(f->cluster, 1);
    rd_kafka_mock_broker_set_up(f->cluster, 2);
    produce(f, 50, 100);
    kafka_wait(stored_of(f, 100) == 100);
    kafka_run_stop(&run, MR_OK);
}

static void errors_of_commits_and_fetches_are_not_fatal(void **state)
{
    fixture *f = *state;
    const mr_refresher_options options = embeddings(f, "errors");
    kafka_run run;
    rd_kafka_mock_push_request_errors(
        f->cluster, OFFSET_COMMIT, 4, RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
        RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
        RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS);
    rd_kafka_mock_push_request_errors(f->cluster, FETCH, 2, RD_KAFKA_RESP_ERR__TRANSPORT,
                                      RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION);
    kafka_run_start(&run, &options, f->store, NULL);
    for (int i = 0; i < 10; i++) {
        produce(f, 10 * i, 10 * i + 10);
        kafka_sleep_ms(100);
    }
    kafka_wait(stored_of(f, 100) == 100);
    /* A generation that the group knows no more: the member joins again, and goes on. */
    kafka_wait(kafka_run_stats(&run).rebalances >= 2);
    produce(f, 100, 110);
    kafka_wait(stored_of(f, 110) == 110 && kafka_run_stats(&run).lag == 0);
    kafka_run_stop(&run, MR_OK);
    assert_int_equal(kafka_committed(f->client, "errors", "item-embeddings", 0), 55);
    assert_int_equal(kafka_committed(f->client, "errors", "item-embeddings", 1), 55);
}

static void two_members_share_the_work_and_one_takes_over(void **state)
{
    fixture *f = *state;
    const mr_refresher_options options = embeddings(f, "two");
    kafka_run first, second;
    produce(f, 0, 100);
    kafka_run_start(&first, &options, f->store, NULL);
    kafka_wait(kafka_run_stats(&first).written == 100);
    kafka_run_start(&second, &options, f->store, NULL);
    for (int i = 1; i < 40 && kafka_run_stats(&second).partitions != 1; i++) {
        produce(f, 100 * i, 100 * i + 100);
        kafka_sleep_ms(200);
    }
    kafka_wait(kafka_run_stats(&first).partitions == 1 && kafka_run_stats(&second).partitions == 1);
    produce(f, 4000, 4200);
    kafka_wait(stored_of(f, 200) == 200 && kafka_run_stats(&second).written >= 100);
    kafka_run_stop(&first, MR_OK);
    kafka_wait(kafka_run_stats(&second).partitions == 2);
    produce(f, 4200, 4300);
    kafka_wait(kafka_run_stats(&second).lag == 0);
    kafka_run_stop(&second, MR_OK);
    int want = 0;
    for (int p = 0; p < 2; p++)
        want += (int)kafka_committed(f->client, "two", "item-embeddings", p);
    /* Every message was put once at least, and the last of a key is the newest. */
    assert_int_equal(want, kafka_read_all(f->client, "item-embeddings", NULL, NULL));
    for (int i = 4000; i < 4300; i++) {
        char key[16];
        snprintf(key, sizeof key, "m%d", i);
        assert_stored(f->store, MR_ENTITY_ITEM, key, i);
    }
}

/* librdkafka remembers a pause over a rebalance. */
static void a_rebalance_while_the_store_is_away_leaves_nothing_paused(void **state)
{
    fixture *f = *state;
    const mr_refresher_options options = embeddings(f, "unpaused");
    kafka_run first, second;
    produce(f, 0, 20);
    kafka_run_start(&first, &options, f->store, NULL);
    kafka_wait(kafka_run_stats(&first).written == 20);
    script_store_is_away(true);
    produce(f, 20, 40);
    kafka_wait(kafka_run_stats(&first).paused);
    kafka_run_start(&second, &options, f->store, NULL);
    kafka_wait(kafka_run_stats(&first).partitions == 1 && kafka_run_stats(&second).partitions == 1);
    script_store_is_away(false);
    produce(f, 40, 60);
    kafka_wait(stored_of(f, 60) == 60);
    kafka_run_stop(&first, MR_OK);
    kafka_run_stop(&second, MR_OK);
}

static void a_dead_letter_topic_that_takes_no_letters_ends_the_run(void **state)
{
    fixture *f = *state;
    const mr_refresher_options options = embeddings(f, "letters");
    kafka_run run;
    kafka_produce_text(f->client, "item-embeddings", 0, "poison", "poison");
    kafka_flush(f->client);
    rd_kafka_mock_push_request_errors(
        f->cluster, PRODUCE, 3, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    kafka_run_start(&run, &options, f->store, NULL);
    assert_int_equal(pthread_join(run.thread, NULL), 0);
    assert_status(run.status, MR_MISMATCH, &run.err);
    assert_contains(run.err.message,
                    "dead-letter topic 'item-embeddings.dlq' does not take letters");
    mr_refresher_free(run.refresher);
    assert_true(kafka_committed(f->client, "letters", "item-embeddings", 0) < 0);
}

static void on_cut_letter(void *context, const rd_kafka_message_t *message)
{
    int *n = context;
    const char *cut = kafka_header(message, "mixrank-cut");
    assert_non_null(cut);
    assert_string_equal(cut, "6");
    assert_null(message->payload);
    ++*n;
}

static void a_letter_that_is_too_large_goes_without_its_value(void **state)
{
    fixture *f = *state;
    mr_refresher_options options = embeddings(f, "large");
    kafka_run run;
    kafka_produce_text(f->client, "item-embeddings", 0, "poison", "poison");
    kafka_flush(f->client);
    rd_kafka_mock_push_request_errors(f->cluster, PRODUCE, 1, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    options.stop_at_end = true;
    kafka_run_start(&run, &options, f->store, NULL);
    kafka_run_join(&run, MR_OK);
    int cut = 0;
    kafka_read_all(f->client, "item-embeddings.dlq", on_cut_letter, &cut);
    assert_int_equal(cut, 1);
}

static void a_topic_that_is_not_there_fails_a_run_to_the_end(void **state)
{
    fixture *f = *state;
    mr_refresher_options options = embeddings(f, "missing");
    kafka_run run;
    options.item_embeddings = "nowhere";
    options.stop_at_end = true;
    rd_kafka_mock_topic_create(f->cluster, "nowhere", 1, 1);
    rd_kafka_mock_topic_set_error(f->cluster, "nowhere", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    kafka_run_start(&run, &options, f->store, NULL);
    assert_int_equal(pthread_join(run.thread, NULL), 0);
    assert_status(run.status, MR_NOT_FOUND, &run.err);
    assert_contains(run.err.message, "Kafka topic 'nowhere' does not exist");
    mr_refresher_free(run.refresher);
}

static void a_bounded_rate_is_kept(void **state)
{
    fixture *f = *state;
    mr_refresher_options options = embeddings(f, "rate");
    kafka_run run;
    options.max_rate = 100;
    options.stop_at_end = true;
    produce(f, 0, 150);
    kafka_run_start(&run, &options, f->store, NULL);
    kafka_wait(kafka_run_stats(&run).written > 0);
    const int64_t started = mr_clock_monotonic_us();
    mr_refresher_stats stats;
    kafka_run_join_stats(&run, MR_OK, &stats);
    assert_int_equal(stats.written, 150);
    /* The first batch and the burst are free. */
    assert_true(mr_clock_monotonic_us() - started > 1000000);
}

static void an_encoder_that_takes_its_time_keeps_its_place_in_the_group(void **state)
{
    fixture *f = *state;
    mr_refresher_options options = kafka_options(f->brokers, "slow");
    const mr_refresh_encoder encoder = {f, encode};
    kafka_run run;
    mr_refresher_stats stats;
    options.items = "items";
    options.stop_at_end = true;
    f->encode_ms = 1200; /* longer than a step */
    for (int i = 0; i < 200; i++) {
        char key[16], text[64];
        snprintf(key, sizeof key, "m%d", i);
        snprintf(text, sizeof text, "{\"id\":\"m%d\",\"mark\":%d}", i, i);
        kafka_produce_text(f->client, "items", 0, key, text);
    }
    kafka_flush(f->client);
    kafka_run_start(&run, &options, f->store, &encoder);
    kafka_run_join_stats(&run, MR_OK, &stats);
    assert_int_equal(stats.consumed, 200);
    assert_int_equal(stats.rebalances, 1);
    assert_int_equal(stored_of(f, 200), 200);
    assert_true(f->encode_calls >= 4);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        CASE(a_store_that_is_away_pauses_and_resumes),
        CASE(a_stop_while_the_store_is_away_leaves_the_offset_where_it_was),
        CASE(brokers_that_go_and_come_back_cost_nothing),
        CASE(errors_of_commits_and_fetches_are_not_fatal),
        CASE(two_members_share_the_work_and_one_takes_over),
        CASE(a_rebalance_while_the_store_is_away_leaves_nothing_paused),
        CASE(a_dead_letter_topic_that_takes_no_letters_ends_the_run),
        CASE(a_letter_that_is_too_large_goes_without_its_value),
        CASE(a_topic_that_is_not_there_fails_a_run_to_the_end),
        CASE(a_bounded_rate_is_kept),
        CASE(an_encoder_that_takes_its_time_keeps_its_place_in_the_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
