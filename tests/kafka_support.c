/* kafka_support.c - see kafka_support.h.
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
#include "proto/mixrank/v1/embedding.pb-c.h"
#include "tests/kafka_support.h"
#include "tests/support.h"

struct kafka_client {
    rd_kafka_t *producer;
    char brokers[256];
    size_t failed;
};

void kafka_sleep_ms(int ms)
{
    nanosleep(&(struct timespec){ms / 1000, (long)(ms % 1000) * 1000000}, NULL);
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char why[256];
    if (rd_kafka_conf_set(conf, name, value, why, sizeof why) != RD_KAFKA_CONF_OK)
        fail_msg("%s: %s", name, why);
}

static void on_report(rd_kafka_t *producer, const rd_kafka_message_t *message, void *opaque)
{
    kafka_client *client = opaque;
    (void)producer;
    client->failed += message->err != RD_KAFKA_RESP_ERR_NO_ERROR;
}

kafka_client *kafka_client_new(const char *brokers)
{
    char why[256];
    kafka_client *client = calloc(1, sizeof *client);
    assert_non_null(client);
    snprintf(client->brokers, sizeof client->brokers, "%s", brokers);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", brokers);
    set(conf, "enable.idempotence", "true");
    set(conf, "linger.ms", "2");
    rd_kafka_conf_set_opaque(conf, client);
    rd_kafka_conf_set_dr_msg_cb(conf, on_report);
    rd_kafka_conf_set_log_cb(conf, NULL);
    client->producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (!client->producer)
        fail_msg("producer: %s", why);
    return client;
}

void kafka_client_free(kafka_client *client)
{
    if (!client)
        return;
    rd_kafka_destroy(client->producer);
    free(client);
}

void kafka_produce(kafka_client *client, const kafka_message *message)
{
    rd_kafka_headers_t *headers = NULL;
    if (message->version) {
        headers = rd_kafka_headers_new(1);
        rd_kafka_header_add(headers, "mixrank-version", -1, message->version, -1);
    }
    for (;;) {
        const rd_kafka_resp_err_t error = rd_kafka_producev(
            client->producer, RD_KAFKA_V_TOPIC(message->topic),
            RD_KAFKA_V_PARTITION(message->partition < 0 ? RD_KAFKA_PARTITION_UA
                                                        : message->partition),
            RD_KAFKA_V_KEY(message->key, message->key ? strlen(message->key) : 0),
            RD_KAFKA_V_VALUE((void *)(uintptr_t)message->value, message->len),
            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
        if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
            return;
        if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL)
            fail_msg("producing to %s: %s", message->topic, rd_kafka_err2str(error));
        rd_kafka_poll(client->producer, 10);
    }
}

void kafka_flush(kafka_client *client)
{
    const rd_kafka_resp_err_t error = rd_kafka_flush(client->producer, 60000);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR || client->failed)
        fail_msg("flush: %s, %zu messages failed", rd_kafka_err2str(error), client->failed);
}

size_t kafka_pack_embedding(uint64_t space, uint64_t version, float mark, void *out, size_t size)
{
    uint8_t values[4 * KAFKA_DIM];
    for (size_t i = 0; i < KAFKA_DIM; i++)
        mr_store_f32le(values + 4 * i, mark);
    Mixrank__V1__Embedding message = MIXRANK__V1__EMBEDDING__INIT;
    message.version = version;
    message.space = space;
    message.tokens = 1;
    message.dim = KAFKA_DIM;
    message.dtype = MIXRANK__V1__EMBEDDING__DTYPE__F32;
    message.values = (ProtobufCBinaryData){sizeof values, values};
    assert_true(mixrank__v1__embedding__get_packed_size(&message) <= size);
    return mixrank__v1__embedding__pack(&message, out);
}

void kafka_produce_embedding(kafka_client *client, const char *topic, int32_t partition,
                             const char *key, uint64_t version, float mark)
{
    uint8_t packed[256];
    const uint64_t space = strstr(topic, "user") ? KAFKA_USER_SPACE : KAFKA_SPACE;
    const size_t len = kafka_pack_embedding(space, version, mark, packed, sizeof packed);
    const kafka_message message = {topic, partition, key, packed, len, NULL};
    kafka_produce(client, &message);
}

void kafka_produce_text(kafka_client *client, const char *topic, int32_t partition, const char *key,
                        const char *text)
{
    const kafka_message message = {topic, partition, key, text, text ? strlen(text) : 0, NULL};
    kafka_produce(client, &message);
}

void kafka_make_topic(kafka_client *client, const char *topic, int partitions,
                      const char *const *settings)
{
    char why[256];
    rd_kafka_NewTopic_t *new_topic = rd_kafka_NewTopic_new(topic, partitions, 1, why, sizeof why);
    if (!new_topic)
        fail_msg("topic %s: %s", topic, why);
    for (; settings && *settings; settings += 2)
        rd_kafka_NewTopic_set_config(new_topic, settings[0], settings[1]);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(client->producer);
    rd_kafka_CreateTopics(client->producer, &new_topic, 1, NULL, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 30000);
    if (!event || rd_kafka_event_error(event))
        fail_msg("topic %s: %s", topic, event ? rd_kafka_event_error_string(event) : "no answer");
    size_t n = 0;
    const rd_kafka_topic_result_t **result =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
    if (n != 1 || rd_kafka_topic_result_error(result[0]) != RD_KAFKA_RESP_ERR_NO_ERROR)
        fail_msg("topic %s: %s", topic, n ? rd_kafka_topic_result_error_string(result[0]) : "");
    rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_NewTopic_destroy(new_topic);
}

static rd_kafka_t *new_consumer(kafka_client *client, const char *group)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", client->brokers);
    set(conf, "group.id", group);
    set(conf, "enable.auto.commit", "false");
    set(conf, "auto.offset.reset", "earliest");
    set(conf, "enable.partition.eof", "true");
    rd_kafka_conf_set_log_cb(conf, NULL);
    rd_kafka_t *consumer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    if (!consumer)
        fail_msg("consumer: %s", why);
    rd_kafka_poll_set_consumer(consumer);
    return consumer;
}

static int partitions_of(rd_kafka_t *client, const char *topic)
{
    const rd_kafka_metadata_t *metadata = NULL;
    rd_kafka_topic_t *handle = rd_kafka_topic_new(client, topic, NULL);
    const rd_kafka_resp_err_t error = rd_kafka_metadata(client, 0, handle, &metadata, 10000);
    int n = 0;
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR && metadata->topic_cnt == 1)
        n = metadata->topics[0].partition_cnt;
    if (metadata)
        rd_kafka_metadata_destroy(metadata);
    rd_kafka_topic_destroy(handle);
    return n;
}

size_t kafka_read_all(kafka_client *client, const char *topic, kafka_visit visit, void *context)
{
    rd_kafka_t *consumer = new_consumer(client, "kafka-support-reader");
    const int n = partitions_of(consumer, topic);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n + 1);
    for (int i = 0; i < n; i++)
        rd_kafka_topic_partition_list_add(list, topic, i)->offset = RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_assign(consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    size_t seen = 0;
    const int64_t until = mr_clock_monotonic_us() + INT64_C(60000000);
    for (int ended = 0; ended < n;) {
        if (mr_clock_monotonic_us() > until)
            fail_msg("reading %s took more than 60 s", topic);
        rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer, 100);
        if (!message)
            continue;
        if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
            ended++;
        } else if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            seen++;
            if (visit)
                visit(context, message);
        }
        rd_kafka_message_destroy(message);
    }
    rd_kafka_consumer_close(consumer);
    rd_kafka_destroy(consumer);
    return seen;
}

const char *kafka_header(const rd_kafka_message_t *message, const char *name)
{
    static char texts[8][512];
    static size_t next;
    rd_kafka_headers_t *headers = NULL;
    const void *value = NULL;
    size_t len = 0;
    if (rd_kafka_message_headers(message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR ||
        rd_kafka_header_get_last(headers, name, &value, &len) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return NULL;
    char *text = texts[next++ % 8];
    snprintf(text, sizeof texts[0], "%.*s", (int)len, (const char *)value);
    return text;
}

int64_t kafka_committed(kafka_client *client, const char *group, const char *topic,
                        int32_t partition)
{
    rd_kafka_t *consumer = new_consumer(client, group);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, partition);
    const rd_kafka_resp_err_t error = rd_kafka_committed(consumer, list, 30000);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        fail_msg("committed offset: %s", rd_kafka_err2str(error));
    const int64_t offset = list->elems[0].offset;
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(consumer);
    return offset;
}

void kafka_commit(kafka_client *client, const char *group, const char *topic, int32_t partition,
                  int64_t offset)
{
    rd_kafka_t *consumer = new_consumer(client, group);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, partition)->offset = offset;
    const rd_kafka_resp_err_t error = rd_kafka_commit(consumer, list, 0);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        fail_msg("commit: %s", rd_kafka_err2str(error));
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(consumer);
}

mr_refresher_options kafka_options(const char *brokers, const char *group)
{
    /* The mock cluster forgets a member that left only when its session would have ended, and a
     * first join takes 3 s of a session. */
    static const char *const kafka[] = {"session.timeout.ms", "5000", "heartbeat.interval.ms",
                                        "300", NULL};
    return (mr_refresher_options){.brokers = brokers,
                                  .kafka = kafka,
                                  .group = group,
                                  .item_space = KAFKA_SPACE,
                                  .user_space = KAFKA_USER_SPACE,
                                  .item_dim = KAFKA_DIM,
                                  .user_dim = KAFKA_DIM,
                                  .dtype = MR_RECORD_F32};
}

static void *run_thread(void *context)
{
    kafka_run *run = context;
    run->status = mr_refresher_run(run->refresher, &run->err);
    return NULL;
}

static void print_event(void *context, mr_log_level level, const char *event, const char *detail)
{
    (void)context;
    if (level > MR_LOG_DEBUG)
        fprintf(stderr, "refresher: %s: %s\n", event, detail);
}

void kafka_run_start(kafka_run *run, const mr_refresher_options *options, mr_store *store,
                     const mr_refresh_encoder *encoder)
{
    mr_refresher_options with_events = *options;
    *run = (kafka_run){0};
    if (!with_events.on_event)
        with_events.on_event = print_event;
    assert_status(mr_refresher_new(&run->refresher, &with_events, store, encoder, NULL, &run->err),
                  MR_OK, &run->err);
    assert_int_equal(pthread_create(&run->thread, NULL, run_thread, run), 0);
}

void kafka_run_join_stats(kafka_run *run, mr_status expected, mr_refresher_stats *stats)
{
    assert_int_equal(pthread_join(run->thread, NULL), 0);
    assert_status(run->status, expected, &run->err);
    if (stats)
        mr_refresher_stat(run->refresher, stats);
    mr_refresher_free(run->refresher);
    run->refresher = NULL;
}

void kafka_run_join(kafka_run *run, mr_status expected)
{
    kafka_run_join_stats(run, expected, NULL);
}

void kafka_run_stop(kafka_run *run, mr_status expected)
{
    mr_refresher_stop(run->refresher);
    kafka_run_join(run, expected);
}

mr_refresher_stats kafka_run_stats(kafka_run *run)
{
    mr_refresher_stats stats;
    mr_refresher_stat(run->refresher, &stats);
    return stats;
}

typedef struct {
    float mark;
    uint64_t version;
} stored_record;

static void on_stored(void *context, size_t index, mr_bytes record)
{
    stored_record *out = context;
    float values[KAFKA_DIM];
    mr_record_info info;
    (void)index;
    if (!record.data)
        return;
    if (mr_record_decode("stored", record, &info, values, KAFKA_DIM, NULL) != MR_OK) {
        out->mark = -3;
        return;
    }
    out->version = info.version;
    out->mark = info.tombstone ? -1 : values[0];
}

float kafka_stored(mr_store *store, mr_entity entity, const char *id, uint64_t *version)
{
    mr_error err = {0};
    stored_record found = {.mark = -2};
    const mr_str name = mr_str_of(id);
    assert_status(mr_store_fetch(store, entity,
                                 entity == MR_ENTITY_USER ? KAFKA_USER_SPACE : KAFKA_SPACE, &name,
                                 1, on_stored, &found, &err),
                  MR_OK, &err);
    if (version)
        *version = found.version;
    return found.mark;
}
