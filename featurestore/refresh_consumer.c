/* refresh_consumer.c - the client of a refresher: settings, assignment, messages, lag, leaving. See
 * refresh_private.h.
 *
 * librdkafka calls back inside its polls: on_rebalance runs within mr_refresh_take's poll or within
 * mr_refresh_leave. The range assignor takes all partitions away before it gives out new ones, so a
 * revoke is about the whole batch.
 *
 * At the end of a partition librdkafka tells the offset where the next message will be. That moves
 * the position over what no consumer ever sees (marks of transactions, offsets that compaction
 * emptied), so that the lag comes to zero and a start at "latest" is kept over a restart although
 * no message came in between.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "featurestore/refresh_private.h"

#define ASK_MS        1000 /* one question to a broker */
#define REVOKE_US     5000000
#define TICK_US       1000000
#define PAUSED_LAG_US 5000000
#define CLOSE_US      10000000
#define DESTROY_US    5000000

/* ---- settings -------------------------------------------------------------------------------- */

/* What the promises of refresher.h stand on. */
static const char *const ours[] = {"bootstrap.servers",
                                   "metadata.broker.list",
                                   "group.id",
                                   "group.instance.id",
                                   "enable.auto.commit",
                                   "enable.auto.offset.store",
                                   "auto.offset.reset",
                                   "isolation.level",
                                   "partition.assignment.strategy",
                                   "enable.partition.eof",
                                   "enable.idempotence",
                                   "transactional.id",
                                   "log.queue"};

static void on_log(const rd_kafka_t *client, int level, const char *facility, const char *text)
{
    mr_refresher *r = rd_kafka_opaque(client);
    /* syslog levels: 4 is a warning. Failures come to on_error too; and settings are given to both
     * consumer and producer, each of which warns of those that are the other's. */
    const bool is_warning = level <= 4 && strcmp(facility, "CONFWARN") != 0 &&
                            strcmp(facility, "FAIL") != 0 && strcmp(facility, "ERROR") != 0;
    mr_refresh_event(r, is_warning ? MR_LOG_WARN : MR_LOG_DEBUG, "kafka", "%s: %s", facility, text);
}

static bool is_final(rd_kafka_resp_err_t error)
{
    switch (error) {
    case RD_KAFKA_RESP_ERR__FATAL:
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED: return true;
    default: return false;
    }
}

void mr_refresh_kafka_failed(mr_refresher *r, rd_kafka_t *client, rd_kafka_resp_err_t error,
                             const char *text)
{
    mr_error why = {0};
    char fatal[256] = "";
    if (error == RD_KAFKA_RESP_ERR__FATAL)
        rd_kafka_fatal_error(client, fatal, sizeof fatal);
    (void)MR_FAIL(&why, UNAVAILABLE, "%s: %s%s%s", rd_kafka_err2name(error), text,
                  *fatal ? ": " : "", fatal);
    if (is_final(error))
        mr_refresh_fail(r, MR_UNAVAILABLE, &why);
    else
        mr_refresh_event(r, MR_LOG_WARN, "kafka error", "%s", why.message);
}

static void on_error(rd_kafka_t *client, int error, const char *text, void *opaque)
{
    mr_refresh_kafka_failed(opaque, client, (rd_kafka_resp_err_t)error, text);
}

static mr_status set(rd_kafka_conf_t *conf, const char *name, const char *value, mr_error *err)
{
    char why[256];
    if (rd_kafka_conf_set(conf, name, value, why, sizeof why) != RD_KAFKA_CONF_OK)
        return MR_FAIL(err, INVALID, "Kafka setting '%s': %s", name, why);
    return MR_OK;
}

static mr_status set_pairs(rd_kafka_conf_t *conf, const char *const *pairs, mr_error *err)
{
    mr_status status = MR_OK;
    for (; pairs && *pairs && status == MR_OK; pairs += 2) {
        if (!pairs[1])
            return MR_FAIL(err, INVALID, "Kafka setting '%s' has no value", pairs[0]);
        status = set(conf, pairs[0], pairs[1], err);
    }
    return status;
}

rd_kafka_conf_t *mr_refresh_conf(mr_refresher *r, const char *const *own, mr_error *err)
{
    const char *const *given = r->options.kafka;
    mr_status status = MR_OK;
    for (const char *const *pair = given; pair && *pair && status == MR_OK; pair += 2) {
        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
            if (strcmp(*pair, ours[i]) == 0)
                status = MR_FAIL(err, INVALID,
                                 "Kafka setting '%s' is the refresher's own: it promises what it "
                                 "does by it",
                                 *pair);
        }
        if (!pair[1])
            break;
    }
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (status == MR_OK)
        status = set(conf, "bootstrap.servers", r->options.brokers, err);
    if (status == MR_OK)
        status = set(conf, "client.id", "mixrank-refresh", err);
    if (status == MR_OK)
        status = set(conf, "log.queue", "true", err);
    if (status == MR_OK)
        status = set(conf, "reconnect.backoff.max.ms", "2000", err);
    if (status == MR_OK)
        status = set_pairs(conf, own, err);
    if (status == MR_OK)
        status = set_pairs(conf, given, err);
    if (status != MR_OK) {
        rd_kafka_conf_destroy(conf);
        return NULL;
    }
    rd_kafka_conf_set_opaque(conf, r);
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_error_cb(conf, on_error);
    return conf;
}

/* ---- partitions ------------------------------------------------------------------------------ */

int mr_refresh_topic_of(const mr_refresher *r, const char *name)
{
    for (int t = 0; t < MR_REFRESH_TOPICS; t++) {
        if (r->topics[t].name && strcmp(r->topics[t].name, name) == 0)
            return t;
    }
    return -1;
}

mr_refresh_partition *mr_refresh_partition_of(mr_refresher *r, const char *topic, int32_t number)
{
    for (size_t i = 0; i < r->n_partitions; i++) {
        const size_t at = (r->last_partition + i) % r->n_partitions;
        mr_refresh_partition *partition = &r->partitions[at];
        if (partition->partition == number &&
            strcmp(r->topics[partition->topic].name, topic) == 0) {
            r->last_partition = at;
            return partition;
        }
    }
    return NULL;
}

static mr_refresh_partition *add_partition(mr_refresher *r, int topic, int32_t number)
{
    static const mr_metric_info lag = {"mixrank_refresh_lag",
                                       MR_METRIC_GAUGE,
                                       "Messages behind the end of a partition.",
                                       {"topic", "partition"},
                                       NULL,
                                       0};
    mr_refresh_partition *bigger =
        realloc(r->partitions, (r->n_partitions + 1) * sizeof *r->partitions);
    if (!bigger)
        return NULL;
    r->partitions = bigger;
    char text[16];
    snprintf(text, sizeof text, "%" PRId32, number);
    bigger += r->n_partitions++;
    *bigger = (mr_refresh_partition){
        .topic = topic,
        .partition = number,
        .end = -1,
        .lag = mr_metrics_get(r->metrics, &lag, (const char *[]){r->topics[topic].name, text})};
    return bigger;
}

static rd_kafka_topic_partition_list_t *assigned_list(const mr_refresher *r)
{
    rd_kafka_topic_partition_list_t *list =
        rd_kafka_topic_partition_list_new((int)r->n_partitions + 1);
    for (size_t i = 0; i < r->n_partitions; i++) {
        const mr_refresh_partition *partition = &r->partitions[i];
        if (partition->assigned)
            rd_kafka_topic_partition_list_add(list, r->topics[partition->topic].name,
                                              partition->partition);
    }
    return list;
}

void mr_refresh_pause(mr_refresher *r, bool pause)
{
    if (r->paused == pause)
        return;
    rd_kafka_topic_partition_list_t *list = assigned_list(r);
    if (pause)
        rd_kafka_pause_partitions(r->consumer, list);
    else
        rd_kafka_resume_partitions(r->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    r->paused = pause;
}

/* ---- assignment ------------------------------------------------------------------------------ */

static void note_end(mr_refresher *r, mr_refresh_partition *partition)
{
    int64_t low = 0, high = 0;
    if (!r->options.stop_at_end || partition->done || partition->end >= 0)
        return;
    /* Without an answer the end that librdkafka tells of decides alone. */
    if (rd_kafka_query_watermark_offsets(r->consumer, r->topics[partition->topic].name,
                                         partition->partition, &low, &high,
                                         5 * ASK_MS) == RD_KAFKA_RESP_ERR_NO_ERROR)
        partition->end = high;
}

static void take_assignment(mr_refresher *r, rd_kafka_topic_partition_list_t *list)
{
    mr_error why = {0};
    mr_status status = mr_refresh_choose_offsets(r, list, &why);
    for (int i = 0; i < list->cnt && status == MR_OK; i++) {
        const rd_kafka_topic_partition_t *one = &list->elems[i];
        const int topic = mr_refresh_topic_of(r, one->topic);
        mr_refresh_partition *partition = mr_refresh_partition_of(r, one->topic, one->partition);
        if (!partition && topic >= 0)
            partition = add_partition(r, topic, one->partition);
        if (!partition) {
            status = MR_FAIL(&why, NO_MEMORY, "%d partitions", list->cnt);
            break;
        }
        partition->assigned = true;
        partition->read = partition->settled = partition->sent = -1;
        note_end(r, partition);
    }
    if (status != MR_OK) {
        rd_kafka_assign(r->consumer, NULL);
        if (!atomic_load(&r->stop))
            mr_refresh_fail(r, status, &why);
        return;
    }
    rd_kafka_assign(r->consumer, list);
    r->assigned = true;
    r->counts.partitions = list->cnt;
}

static void give_up_assignment(mr_refresher *r)
{
    if (rd_kafka_assignment_lost(r->consumer)) {
        mr_refresh_event(r, MR_LOG_WARN, "assignment lost",
                         "%zu messages are left to the next owner", r->batch.n);
    } else {
        (void)mr_refresh_finish_batch(r, mr_clock_monotonic_us() + REVOKE_US);
        mr_refresh_commit(r, REVOKE_US);
    }
    mr_refresh_batch_clear(r);
    mr_refresh_pause(r, false); /* librdkafka remembers a pause over an assignment */
    for (size_t i = 0; i < r->n_partitions; i++) {
        r->partitions[i].assigned = false;
        mr_metric_set(r->partitions[i].lag, 0);
    }
    rd_kafka_assign(r->consumer, NULL);
    r->assigned = false;
    r->counts.partitions = 0;
}

static void on_rebalance(rd_kafka_t *consumer, rd_kafka_resp_err_t error,
                         rd_kafka_topic_partition_list_t *list, void *opaque)
{
    mr_refresher *r = opaque;
    (void)consumer;
    if (error == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        mr_refresh_event(r, MR_LOG_INFO, "assigned", "%d partitions", list->cnt);
        r->counts.rebalances++;
        mr_metric_add(r->rebalances, 1);
        take_assignment(r, list);
    } else {
        mr_refresh_event(r, MR_LOG_INFO, "revoked", "%d partitions", list->cnt);
        give_up_assignment(r);
    }
    mr_refresh_publish(r);
}

mr_status mr_refresh_subscribe(mr_refresher *r, mr_error *err)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(MR_REFRESH_TOPICS);
    for (int t = 0; t < MR_REFRESH_TOPICS; t++) {
        if (r->topics[t].name)
            rd_kafka_topic_partition_list_add(list, r->topics[t].name, RD_KAFKA_PARTITION_UA);
    }
    const rd_kafka_resp_err_t error = rd_kafka_subscribe(r->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        return MR_FAIL(err, INVALID, "subscribing: %s", rd_kafka_err2str(error));
    return MR_OK;
}

/* ---- messages -------------------------------------------------------------------------------- */

void mr_refresh_take(mr_refresher *r, rd_kafka_message_t *message)
{
    const rd_kafka_resp_err_t error = message->err;
    const char *topic = message->rkt ? rd_kafka_topic_name(message->rkt) : "";
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR && error != RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        if (error == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART && r->options.stop_at_end) {
            mr_error why = {0};
            (void)MR_FAIL(&why, NOT_FOUND, "Kafka topic '%s' does not exist", topic);
            mr_refresh_fail(r, MR_NOT_FOUND, &why);
        } else {
            mr_refresh_kafka_failed(r, r->consumer, error, rd_kafka_message_errstr(message));
        }
        rd_kafka_message_destroy(message);
        return;
    }
    mr_refresh_partition *partition = mr_refresh_partition_of(r, topic, message->partition);
    if (!partition || !partition->assigned) { /* of an assignment that is gone */
        rd_kafka_message_destroy(message);
        return;
    }
    if (error == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        partition->read = message->offset;
        if (r->batch.n == 0)
            partition->settled = message->offset;
        partition->done = true;
        rd_kafka_message_destroy(message);
        return;
    }
    const int64_t behind = message->offset + 1;
    mr_error why = {0};
    mr_status status = mr_refresh_batch_add(r, partition->topic, message, &why);
    if (status != MR_OK) {
        mr_refresh_fail(r, status, &why);
        return;
    }
    partition->read = behind;
    partition->done |= partition->end >= 0 && behind >= partition->end;
    r->counts.consumed++;
}

/* ---- lag ------------------------------------------------------------------------------------- */

/* librdkafka learns a partition's end by fetching it, which it does not while it is paused. */
static int64_t end_of(mr_refresher *r, const mr_refresh_partition *partition, bool may_ask)
{
    const char *topic = r->topics[partition->topic].name;
    int64_t low = 0, high = -1;
    rd_kafka_resp_err_t error =
        may_ask
            ? rd_kafka_query_watermark_offsets(r->consumer, topic, partition->partition, &low,
                                               &high, 200)
            : rd_kafka_get_watermark_offsets(r->consumer, topic, partition->partition, &low, &high);
    return error == RD_KAFKA_RESP_ERR_NO_ERROR ? high : -1;
}

void mr_refresh_tick(mr_refresher *r, int64_t now_us)
{
    if (now_us < r->tick_us)
        return;
    r->tick_us = now_us + TICK_US;
    const bool may_ask = r->paused && now_us >= r->lag_asked_us + PAUSED_LAG_US;
    if (may_ask)
        r->lag_asked_us = now_us;
    int64_t total = r->assigned ? 0 : -1;
    for (size_t i = 0; i < r->n_partitions; i++) {
        const mr_refresh_partition *partition = &r->partitions[i];
        if (!partition->assigned || (r->paused && !may_ask && total >= 0))
            continue;
        const int64_t end = end_of(r, partition, may_ask);
        if (end < 0 || partition->settled < 0) {
            total = -1;
            break;
        }
        const int64_t lag = end > partition->settled ? end - partition->settled : 0;
        mr_metric_set(partition->lag, (double)lag);
        total += lag;
    }
    if (!r->paused || may_ask)
        r->counts.lag = total;
    const int64_t wall = mr_clock_wall_ms();
    for (int t = 0; t < MR_REFRESH_TOPICS; t++) {
        if (r->topics[t].newest_ms)
            mr_metric_set(r->topics[t].age, (double)(wall - r->topics[t].newest_ms) / 1e3);
    }
    mr_refresh_publish(r);
}

/* ---- the client's life ----------------------------------------------------------------------- */

mr_status mr_refresh_consumer_new(mr_refresher *r, mr_error *err)
{
    static const char *const resets[] = {
        [MR_REFRESH_EARLIEST] = "earliest",
        [MR_REFRESH_LATEST] = "latest",
        [MR_REFRESH_TIMESTAMP] = "earliest",
    };
    const char *const own[] = {"group.id",
                               r->options.group,
                               "enable.auto.commit",
                               "false",
                               "enable.auto.offset.store",
                               "false",
                               "isolation.level",
                               "read_committed",
                               "partition.assignment.strategy",
                               "range",
                               "enable.partition.eof",
                               "true",
                               "auto.offset.reset",
                               resets[r->options.start],
                               "session.timeout.ms",
                               "30000",
                               "max.poll.interval.ms",
                               "300000",
                               "fetch.wait.max.ms",
                               "100",
                               "queued.max.messages.kbytes",
                               "65536",
                               "topic.metadata.refresh.interval.ms",
                               "30000",
                               r->options.instance ? "group.instance.id" : NULL,
                               r->options.instance,
                               NULL};
    char why[512];
    rd_kafka_conf_t *conf = mr_refresh_conf(r, own, err);
    if (!conf)
        return MR_INVALID;
    rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
    rd_kafka_conf_set_offset_commit_cb(conf, mr_refresh_on_commit);
    r->consumer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    if (!r->consumer) {
        rd_kafka_conf_destroy(conf);
        return MR_FAIL(err, INVALID, "the Kafka consumer: %s", why);
    }
    rd_kafka_poll_set_consumer(r->consumer);
    rd_kafka_set_log_queue(r->consumer, NULL);
    return MR_OK;
}

/* librdkafka 2.0.2 may hang when a member is closed in the middle of a rebalance. So closing goes
 * by polls with an end, and destroying in a thread that is left behind when it does not come back:
 * a program that is told to stop stops. */
static void *destroy_consumer(void *context)
{
    rd_kafka_destroy_flags(context, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    return NULL;
}

static bool close_consumer(mr_refresher *r)
{
    const int64_t deadline = mr_clock_monotonic_us() + CLOSE_US;
    rd_kafka_queue_t *queue = rd_kafka_queue_new(r->consumer);
    rd_kafka_error_t *error = rd_kafka_consumer_close_queue(r->consumer, queue);
    bool closed = error != NULL; /* it is closed, or there never was a group */
    rd_kafka_error_destroy(error);
    while (!closed && mr_clock_monotonic_us() < deadline) {
        rd_kafka_message_t *message = rd_kafka_consume_queue(queue, 50);
        if (message)
            rd_kafka_message_destroy(message);
        closed = rd_kafka_consumer_closed(r->consumer);
    }
    rd_kafka_queue_destroy(queue);
    return closed;
}

void mr_refresh_leave(mr_refresher *r)
{
    if (!r->consumer)
        return;
    if (r->ran && !close_consumer(r))
        mr_refresh_event(r, MR_LOG_WARN, "leaving the group takes too long",
                         "the broker will notice by the session timeout");
    mr_refresh_batch_clear(r); /* messages belong to the client */
    pthread_t thread;
    if (pthread_create(&thread, NULL, destroy_consumer, r->consumer) != 0) {
        destroy_consumer(r->consumer);
    } else {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += DESTROY_US / 1000000;
        if (pthread_timedjoin_np(thread, NULL, &until) != 0) {
            pthread_detach(thread);
            mr_refresh_event(r, MR_LOG_ERROR, "the Kafka client does not end", "left behind");
        }
    }
    r->consumer = NULL;
    r->counts.partitions = 0;
}
