/* kafkamock.c - for the tests of the command line: a Kafka cluster to read from.
 *
 *     kafkamock FILE <fifo >address
 *
 * FILE has lines of a topic, a tab and a value: JSON, whose "id" is the key; "!ID", a tombstone; or
 * anything else, under the key "poison". Prints the address when all of it is there, and lives
 * until standard input ends.
 * SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <librdkafka/rdkafka.h>

#include <librdkafka/rdkafka_mock.h>

static size_t failed;

static void on_report(rd_kafka_t *producer, const rd_kafka_message_t *message, void *opaque)
{
    (void)producer;
    (void)opaque;
    failed += message->err != RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_t *new_producer(const char *brokers)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_log_cb(conf, NULL);
    rd_kafka_conf_set_dr_msg_cb(conf, on_report);
    if (brokers)
        rd_kafka_conf_set(conf, "bootstrap.servers", brokers, why, sizeof why);
    return rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
}

static void produce(rd_kafka_t *producer, const char *topic, const char *value)
{
    json_t *row = json_loads(value, 0, NULL);
    const char *id = json_string_value(json_object_get(row, "id"));
    const char *key = *value == '!' ? value + 1 : id ? id : "poison";
    if (*value == '!')
        value = NULL;
    failed +=
        rd_kafka_producev(producer, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(0),
                          RD_KAFKA_V_KEY(key, strlen(key)),
                          RD_KAFKA_V_VALUE((void *)(uintptr_t)value, value ? strlen(value) : 0),
                          RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                          RD_KAFKA_V_END) != RD_KAFKA_RESP_ERR_NO_ERROR;
    json_decref(row);
}

int main(int argc, char **argv)
{
    static char line[1 << 16];
    FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
    rd_kafka_t *owner = new_producer(NULL);
    rd_kafka_mock_cluster_t *cluster = owner ? rd_kafka_mock_cluster_new(owner, 1) : NULL;
    if (!file || !cluster) {
        fprintf(stderr, "usage: kafkamock FILE\n");
        return 2;
    }
    rd_kafka_t *producer = new_producer(rd_kafka_mock_cluster_bootstraps(cluster));
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *tab = strchr(line, '\t');
        if (!tab)
            continue;
        *tab = '\0';
        rd_kafka_mock_topic_create(cluster, line, 1, 1); /* the second time it is there */
        produce(producer, line, tab + 1);
    }
    fclose(file);
    if (rd_kafka_flush(producer, 30000) != RD_KAFKA_RESP_ERR_NO_ERROR || failed) {
        fprintf(stderr, "kafkamock: %zu messages failed\n", failed);
        return 1;
    }
    puts(rd_kafka_mock_cluster_bootstraps(cluster));
    fflush(stdout);
    while (getchar() != EOF)
        ;
    rd_kafka_destroy(producer);
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(owner);
    return 0;
}
