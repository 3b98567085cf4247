/* test_refresh_mock.c - the refresher against librdkafka's mock cluster: what is written, where a
 * run begins, and that an offset never moves before the store has answered.
 *
 * The store's puts and the client's commits are wrapped by the linker (kafka.cmake), to fail on
 * command and to see their order. A first join of a group takes 3 s on the mock.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/refresh_fixture.h"

static void all_four_topics_reach_the_store(void **state)
{
    fixture *f = *state;
    mr_refresher_options options = kafka_options(f->brokers, "all");
    const mr_refresh_encoder encoder = {f, encode};
    use_all_topics(&options);
    options.epoch = 1;
    options.stop_at_end = true;
    kafka_produce_text(f->client, "items", 0, "a", "{\"id\":\"a\",\"mark\":5}");
    kafka_produce_text(f->client, "items", 0, "gone", "{\"id\":\"gone\",\"mark\":5}");
    kafka_produce_text(f->client, "items", 0, "gone", NULL);
    kafka_produce_embedding(f->client, "item-embeddings", 1, "b", 0, 6);
    kafka_produce_embedding(f->client, "item-embeddings", 1, "b", 0, 7);
    kafka_produce_embedding(f->client, "item-embeddings", 0, "c", UINT64_MAX, 8);
    kafka_produce_embedding(f->client, "item-embeddings", 0, "c", 3, 9);
    kafka_produce_embedding(f->client, "user-embeddings", 0, "ada", 0, 10);
    kafka_produce_text(f->client, "user-events", 0, "bob",
                       "{\"id\":\"bob\",\"mark\":11,\"version\":\"12345678901234567890\"}");
    kafka_flush(f->client);
    kafka_run run;
    mr_refresher_stats stats;
    kafka_run_start(&run, &options, f->store, &encoder);
    kafka_run_join_stats(&run, MR_OK, &stats);

    uint64_t version = 0;
    assert_stored(f->store, MR_ENTITY_ITEM, "a", 5);
    assert_stored(f->store, MR_ENTITY_ITEM, "gone", -1);
    assert_stored(f->store, MR_ENTITY_ITEM, "b", 7);
    assert_true(kafka_stored(f->store, MR_ENTITY_ITEM, "c", &version) == 8.0f);
    assert_true(version == UINT64_MAX);
    assert_stored(f->store, MR_ENTITY_USER, "ada", 10);
    assert_true(kafka_stored(f->store, MR_ENTITY_USER, "bob", &version) == 11.0f);
    assert_true(version == UINT64_C(12345678901234567890));
    (void)kafka_stored(f->store, MR_ENTITY_ITEM, "b", &version);
    assert_true(version == (UINT64_C(1) << 48 | 1));
    assert_int_equal(stats.consumed, 9);
    assert_int_equal(stats.tombstones, 1);
    assert_int_equal(stats.written + stats.stale, 9);
    assert_int_equal(stats.dead_letters, 0);
    assert_int_equal(kafka_committed(f->client, "all", "items", 0), 3);
    assert_int_equal(kafka_committed(f->client, "all", "item-embeddings", 0), 2);
    assert_int_equal(kafka_committed(f->client, "all", "item-embeddings", 1), 2);
    assert_int_equal(kafka_committed(f->client, "all", "user-events", 0), 1);
}

static void an_offset_moves_only_after_the_store_has_answered(void **state)
{
    fixture *f = *state;
    enum { N = 3000 };
    mr_refresher_options options = kafka_options(f->brokers, "order");
    options.item_embeddings = "ordered";
    options.batch = 64;
    options.stop_at_end = true;
    rd_kafka_mock_topic_create(f->cluster, "ordered", 1, 1);
    for (int i = 0; i < N; i++) {
        char key[16];
        snprintf(key, sizeof key, "m%d", i);
        kafka_produce_embedding(f->client, "ordered", 0, key, 0, (float)i);
    }
    kafka_flush(f->client);
    script_watch_order(N);
    script_slow_puts(2); /* ms */
    script_fail_every_put(5, MR_UNAVAILABLE);
    kafka_run run;
    mr_refresher_stats stats;
    kafka_run_start(&run, &options, f->store, NULL);
    kafka_run_join_stats(&run, MR_OK, &stats);
    assert_int_equal(stats.written, N);
    assert_true(stats.store_retries > 0);
    assert_true(script_commits() > 1);
    assert_int_equal(script_early_commits(), 0);
    assert_int_equal(kafka_committed(f->client, "order", "ordered", 0), N);
}

/* ---- poison ---------------------------------------------------------------------------------- */

typedef struct {
    size_t n;
    char codes[16][32], offsets[16][32], reasons[16][300], keys[16][32];
    size_t lens[16];
} letters;

static void on_letter(void *context, const rd_kafka_message_t *message)
{
    letters *seen = context;
    if (seen->n == 16)
        fail_msg("more than 16 letters");
    const size_t i = seen->n++;
    snprintf(seen->codes[i], 32, "%s", kafka_header(message, "mixrank-code"));
    snprintf(seen->offsets[i], 32, "%s/%s/%s", kafka_header(message, "mixrank-topic"),
             kafka_header(message, "mixrank-partition"), kafka_header(message, "mixrank-offset"));
    snprintf(seen->reasons[i], 300, "%s", kafka_header(message, "mixrank-reason"));
    snprintf(seen->keys[i], 32, "%.*s", (int)message->key_len,
             message->key ? (const char *)message->key : "");
    seen->lens[i] = message->len;
    assert_non_null(kafka_header(message, "mixrank-time"));
    assert_null(kafka_header(message, "mixrank-cut"));
}

static void assert_letter(const letters *seen, const char *offset, const char *key,
                          const char *code, const char *reason)
{
    for (size_t i = 0; i < seen->n; i++) {
        if (strcmp(seen->offsets[i], offset) != 0)
            continue;
        assert_string_equal(seen->keys[i], key);
        assert_string_equal(seen->codes[i], code);
        assert_contains(seen->reasons[i], reason);
        return;
    }
    fail_msg("no letter for %s", offset);
}

static void poison_goes_to_the_dead_letters_and_its_neighbours_do_not(void **state)
{
    fixture *f = *state;
    mr_refresher_options options = kafka_options(f->brokers, "poison");
    const mr_refresh_encoder encoder = {f, encode};
    use_all_topics(&options);
    options.stop_at_end = true;
    uint8_t wrong_space[256];
    const size_t len = kafka_pack_embedding(7, 1, 1, wrong_space, sizeof wrong_space);
    const kafka_message of_another = {"item-embeddings", 0, "x", wrong_space, len, NULL};
    kafka_produce_embedding(f->client, "item-embeddings", 0, "a", 0, 1);
    kafka_produce(f->client, &of_another);
    kafka_produce_embedding(f->client, "item-embeddings", 0, NULL, 0, 1);
    kafka_produce_embedding(f->client, "item-embeddings", 0, "nan", 0, NAN);
    kafka_produce_text(f->client, "item-embeddings", 0, "text", "not an embedding");
    kafka_produce_embedding(f->client, "item-embeddings", 0, "refused", 0, 1);
    kafka_produce_embedding(f->client, "item-embeddings", 0, "b", 0, 2);
    kafka_produce_text(f->client, "items", 0, "good", "{\"id\":\"good\",\"mark\":3}");
    kafka_produce_text(f->client, "items", 0, "bad", "{\"id\":\"bad\",\"reject\":\"no text\"}");
    kafka_produce_text(f->client, "items", 0, "worse", "{\"id\":\"worse\",\"fail\":true}");
    kafka_produce_text(f->client, "items", 0, "json", "{");
    kafka_produce_text(f->client, "items", 0, "fine", "{\"id\":\"fine\",\"mark\":4}");
    kafka_flush(f->client);
    script_refuse_id("refused", MR_CORRUPT);
    kafka_run run;
    mr_refresher_stats stats;
    kafka_run_start(&run, &options, f->store, &encoder);
    kafka_run_join_stats(&run, MR_OK, &stats);

    assert_stored(f->store, MR_ENTITY_ITEM, "a", 1);
    assert_stored(f->store, MR_ENTITY_ITEM, "b", 2);
    assert_stored(f->store, MR_ENTITY_ITEM, "good", 3);
    assert_stored(f->store, MR_ENTITY_ITEM, "fine", 4);
    assert_stored(f->store, MR_ENTITY_ITEM, "x", -2);
    assert_stored(f->store, MR_ENTITY_ITEM, "bad", -2);
    assert_int_equal(stats.written, 4);
    assert_int_equal(stats.dead_letters, 8);
    letters seen = {0};
    kafka_read_all(f->client, "item-embeddings.dlq", on_letter, &seen);
    assert_int_equal(seen.n, 5);
    assert_letter(&seen, "item-embeddings/0/1", "x", "space", "another encoder");
    assert_letter(&seen, "item-embeddings/0/2", "", "key", "no key");
    assert_letter(&seen, "item-embeddings/0/3", "nan", "values", "nan");
    assert_letter(&seen, "item-embeddings/0/4", "text", "value", "16 bytes");
    assert_letter(&seen, "item-embeddings/0/5", "refused", "store", "scripted");
    seen = (letters){0};
    kafka_read_all(f->client, "items.dlq", on_letter, &seen);
    assert_int_equal(seen.n, 3);
    assert_letter(&seen, "items/0/1", "bad", "encoder", "no text");
    assert_letter(&seen, "items/0/2", "worse", "encoder", "scripted");
    assert_letter(&seen, "items/0/3", "json", "value", "value");
    assert_int_equal(kafka_committed(f->client, "poison", "item-embeddings", 0), 7);
    assert_int_equal(kafka_committed(f->client, "poison", "items", 0), 5);
}

static void a_foreign_value_under_a_key_costs_that_message_alone(void **state)
{
    fixture *f = *state;
    mr_refresher_options options = kafka_options(f->brokers, "foreign");
    options.item_embeddings = "item-embeddings";
    options.stop_at_end = true;
    kafka_produce_embedding(f->client, "item-embeddings", 0, "foreign", 0, 1);
    kafka_flush(f->client);
    script_refuse_id("foreign", MR_MISMATCH);
    kafka_run run;
    mr_refresher_stats stats;
    kafka_run_start(&run, &options, f->store, NULL);
    kafka_run_join_stats(&run, MR_OK, &stats);
    assert_int_equal(stats.dead_letters, 1);
    assert_int_equal(kafka_committed(f->client, "foreign", "item-embeddings", 0), 1);
}

static void a_store_that_takes_nothing_ends_the_run_and_loses_nothing(void **state)
{
    fixture *f = *state;
    mr_refresher_options options = kafka_options(f->brokers, "refusal");
    options.item_embeddings = "item-embeddings";
    options.stop_at_end = true;
    kafka_produce_embedding(f->client, "item-embeddings", 0, "a", 0, 1);
    kafka_produce_embedding(f->client, "item-embeddings", 0, "b", 0, 1);
    kafka_flush(f->client);
    script_fail_every_put(1, MR_INVALID);
    kafka_run run;
    kafka_run_start(&run, &options, f->store, NULL);
    assert_int_equal(pthread_join(run.thread, NULL), 0);
    assert_status(run.status, MR_INVALID, &run.err);
    assert_contains(run.err.message, "the store takes no record: scripted");
    mr_refresher_free(run.refresher);
    assert_true(kafka_committed(f->client, "refusal", "item-embeddings", 0) < 0);
    assert_int_equal(kafka_read_all(f->client, "item-embeddings.dlq", NULL, NULL), 0);
}

/* ---- where a run begins ---------------------------------------------------------------------- */

static mr_refresher_stats run_to_end(mr_store *store, const mr_refresher_options *options)
{
    kafka_run run;
    mr_refresher_stats stats;
    kafka_run_start(&run, options, store, NULL);
    kafka_run_join_stats(&run, MR_OK, &stats);
    return stats;
}

static void a_second_run_goes_on_where_the_first_left_off(void **state)
{
    fixture *f = *state;
    mr_refresher_options options = kafka_options(f->brokers, "again");
    options.item_embeddings = "item-embeddings";
    options.stop_at_end = true;
    kafka_produce_embedding(f->client, "item-embeddings", 0, "a", 0, 1);
    kafka_flush(f->client);
    assert_int_equal(run_to_end(f->store, &options).consumed, 1);
    kafka_produce_embedding(f->client, "item-embeddings", 0, "b", 0, 2);
    kafka_flush(f->client);
    const mr_refresher_stats stats = run_to_end(f->store, &options);
    assert_int_equal(stats.consumed, 1);
    assert_stored(f->store, MR_ENTITY_ITEM, "b", 2);
}

static void latest_begins_at_the_end_and_remembers_it(void **state)
{
    fixture *f = *state;
    mr_refresher_options options = kafka_options(f->brokers, "late");
    options.item_embeddings = "item-embeddings";
    options.stop_at_end = true;
    options.start = MR_REFRESH_LATEST;
    kafka_produce_embedding(f->client, "item-embeddings", 0, "old", 0, 1);
    kafka_flush(f->client);
    assert_int_equal(run_to_end(f->store, &options).consumed, 0);
    assert_int_equal(kafka_committed(f->client, "late", "item-embeddings", 0), 1);
    kafka_produce_embedding(f->client, "item-embeddings", 0, "new", 0, 2);
    kafka_flush(f->client);
    assert_int_equal(run_to_end(f->store, &options).consumed, 1);
    assert_stored(f->store, MR_ENTITY_ITEM, "old", -2);
    assert_stored(f->store, MR_ENTITY_ITEM, "new", 2);
}

static void offsets_in_lmdb_win_over_the_groups(void **state)
{
    fixture *f = *state;
    mr_error err = {0};
    char *folder = test_folder_new();
    mr_store_options lmdb = MR_STORE_OPTIONS_DEFAULT;
    lmdb.fast_writes = true;
    lmdb.max_bytes = (uint64_t)64 << 20;
    mr_store *store = NULL;
    assert_status(mr_store_open(&store, folder, &lmdb, &err), MR_OK, &err);
    mr_refresher_options options = kafka_options(f->brokers, "lmdb");
    options.item_embeddings = "item-embeddings";
    options.stop_at_end = true;
    for (int i = 0; i < 6; i++)
        kafka_produce_embedding(f->client, "item-embeddings", i % 2, "abcdef" + i, 0, (float)i);
    kafka_produce_text(f->client, "item-embeddings", 1, "last", "poison");
    kafka_flush(f->client);
    assert_int_equal(run_to_end(store, &options).consumed, 7);
    char *note = NULL;
    size_t len = 0;
    assert_status(mr_store_get_note(store, "refresh:lmdb:item-embeddings:1", &note, &len, &err),
                  MR_OK, &err);
    assert_string_equal(note, "{\"epoch\":0,\"offset\":4}");
    free(note);

    assert_int_equal(run_to_end(store, &options).consumed, 0);
    /* A new store has none of it, whatever the group has committed. */
    mr_store_close(store);
    char *second = test_folder_new();
    assert_status(mr_store_open(&store, second, &lmdb, &err), MR_OK, &err);
    assert_int_equal(run_to_end(store, &options).consumed, 7);
    /* Another epoch is another log. */
    options.epoch = 1;
    assert_int_equal(run_to_end(store, &options).consumed, 7);
    mr_store_close(store);
    test_folder_free(folder);
    test_folder_free(second);
}

/* ---- options --------------------------------------------------------------------------------- */

static void options_that_cannot_work_are_refused(void **state)
{
    static const char *const auto_commit[] = {"enable.auto.commit", "true", NULL};
    static const char *const no_value[] = {"session.timeout.ms", NULL};
    static const char *const unknown[] = {"no.such.setting", "1", NULL};
    fixture *f = *state;
    const mr_refresher_options good = {.brokers = f->brokers, .item_embeddings = "e"};
    struct {
        mr_refresher_options options;
        const char *message;
    } cases[12];
    for (size_t i = 0; i < 12; i++)
        cases[i].options = good;
    cases[0].options.brokers = NULL;
    cases[0].message = "no brokers";
    cases[1].options.item_embeddings = NULL;
    cases[1].message = "no topics";
    cases[2].options.items = "rows";
    cases[2].message = "topic 'rows' holds rows to encode";
    cases[3].options.user_embeddings = "e";
    cases[3].message = "topic 'e' is named twice";
    cases[4].options.item_embeddings = "^e.*";
    cases[4].message = "no pattern";
    cases[5].options.kafka = auto_commit;
    cases[5].message = "Kafka setting 'enable.auto.commit' is the refresher's own";
    cases[6].options.kafka = no_value;
    cases[6].message = "'session.timeout.ms' has no value";
    cases[7].options.kafka = unknown;
    cases[7].message = "'no.such.setting'";
    cases[8].options.max_rate = -1;
    cases[8].message = "max_rate is -1";
    cases[9].options.dead_letters = "e";
    cases[9].message = "its own dead-letter topic";
    cases[10].options.group = "";
    cases[10].message = "group ''";
    cases[11].options.batch = 1000000;
    cases[11].message = "1000000 messages";
    for (size_t i = 0; i < 12; i++) {
        mr_refresher *refresher = NULL;
        mr_error err = {0};
        assert_status(mr_refresher_new(&refresher, &cases[i].options, f->store, NULL, NULL, &err),
                      MR_INVALID, &err);
        assert_null(refresher);
        assert_contains(err.message, cases[i].message);
    }
    mr_refresher_free(NULL);
}

static void a_refresher_that_never_ran_goes_away(void **state)
{
    fixture *f = *state;
    mr_error err = {0};
    mr_refresher *refresher = NULL;
    mr_refresher_options options = kafka_options("127.0.0.1:1", "idle");
    options.item_embeddings = "item-embeddings";
    assert_status(mr_refresher_new(&refresher, &options, f->store, NULL, NULL, &err), MR_OK, &err);
    mr_refresher_free(refresher);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        CASE(all_four_topics_reach_the_store),
        CASE(an_offset_moves_only_after_the_store_has_answered),
        CASE(poison_goes_to_the_dead_letters_and_its_neighbours_do_not),
        CASE(a_foreign_value_under_a_key_costs_that_message_alone),
        CASE(a_store_that_takes_nothing_ends_the_run_and_loses_nothing),
        CASE(a_second_run_goes_on_where_the_first_left_off),
        CASE(latest_begins_at_the_end_and_remembers_it),
        CASE(offsets_in_lmdb_win_over_the_groups),
        CASE(options_that_cannot_work_are_refused),
        CASE(a_refresher_that_never_ran_goes_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
