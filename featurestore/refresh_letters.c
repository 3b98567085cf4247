/* refresh_letters.c - dead letters: what can never be written, with the reason, into a topic of its
 * own. See refresh_private.h.
 *
 * A letter has the message's key, value and headers, and these headers behind them:
 *     mixrank-topic, mixrank-partition, mixrank-offset   where it came from
 *     mixrank-code     one word of MR_REFRESH_CODE_MAP
 *     mixrank-reason   a sentence
 *     mixrank-time     when it was rejected, milliseconds since 1970
 *     mixrank-cut      bytes of the value, where that was too large for the dead-letter topic
 * A refresher that dies between a letter and its commit sends the letter again: readers of the
 * topic tell copies by topic, partition and offset.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "featurestore/refresh_private.h"

#define LETTER_TIMEOUT_MS "30000"
#define CLOSE_MS          2000

static void on_report(rd_kafka_t *producer, const rd_kafka_message_t *message, void *opaque)
{
    mr_refresh_letter *letter = message->_private;
    (void)producer;
    (void)opaque;
    if (letter->orphaned) {
        free(letter);
        return;
    }
    letter->error = message->err;
    letter->failed = message->err != RD_KAFKA_RESP_ERR_NO_ERROR;
    letter->delivered = !letter->failed;
}

void mr_refresh_letter_drop(mr_refresh_letter *letter)
{
    if (letter && !letter->delivered && !letter->failed)
        letter->orphaned = true;
    else
        free(letter);
}

static mr_status open_producer(mr_refresher *r, mr_error *err)
{
    static const char *const own[] = {"enable.idempotence", "true", "message.timeout.ms",
                                      LETTER_TIMEOUT_MS, NULL};
    char why[512];
    if (r->producer)
        return MR_OK;
    rd_kafka_conf_t *conf = mr_refresh_conf(r, own, err);
    if (!conf)
        return MR_INVALID;
    rd_kafka_conf_set_dr_msg_cb(conf, on_report);
    r->producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (!r->producer) {
        rd_kafka_conf_destroy(conf);
        return MR_FAIL(err, INVALID, "the producer of dead letters: %s", why);
    }
    rd_kafka_set_log_queue(r->producer, NULL);
    return MR_OK;
}

static bool add_header(rd_kafka_headers_t *headers, const char *name, const char *value)
{
    return rd_kafka_header_add(headers, name, -1, value, -1) == RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_headers_t *make_headers(const mr_refresh_entry *entry)
{
    const rd_kafka_message_t *message = entry->message;
    rd_kafka_headers_t *given = NULL, *headers = NULL;
    if (rd_kafka_message_headers(message, &given) == RD_KAFKA_RESP_ERR_NO_ERROR)
        headers = rd_kafka_headers_copy(given);
    else
        headers = rd_kafka_headers_new(8);
    if (!headers)
        return NULL;
    char partition[32], offset[32], time[32], cut[32];
    snprintf(partition, sizeof partition, "%" PRId32, message->partition);
    snprintf(offset, sizeof offset, "%" PRId64, message->offset);
    snprintf(time, sizeof time, "%" PRId64, mr_clock_wall_ms());
    snprintf(cut, sizeof cut, "%zu", message->len);
    if (add_header(headers, "mixrank-topic", rd_kafka_topic_name(message->rkt)) &&
        add_header(headers, "mixrank-partition", partition) &&
        add_header(headers, "mixrank-offset", offset) &&
        add_header(headers, "mixrank-code", mr_refresh_code_name(entry->what.code)) &&
        add_header(headers, "mixrank-reason", entry->what.reason) &&
        add_header(headers, "mixrank-time", time) &&
        (!entry->cut || add_header(headers, "mixrank-cut", cut)))
        return headers;
    rd_kafka_headers_destroy(headers);
    return NULL;
}

static mr_status letter_failure(mr_refresher *r, const mr_refresh_entry *entry,
                                rd_kafka_resp_err_t error, mr_error *err)
{
    const char *topic = r->topics[entry->topic].dead_letters;
    switch (error) {
    case RD_KAFKA_RESP_ERR__QUEUE_FULL:
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__PURGE_QUEUE:
    case RD_KAFKA_RESP_ERR__PURGE_INFLIGHT:
    case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
    case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS:
    case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND:
        return MR_FAIL(err, UNAVAILABLE, "dead-letter topic '%s': %s", topic,
                       rd_kafka_err2str(error));
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        return MR_FAIL(err, NOT_FOUND,
                       "dead-letter topic '%s' does not exist, and the broker makes none: make it",
                       topic);
    default:
        return MR_FAIL(err, MISMATCH, "dead-letter topic '%s' does not take letters: %s", topic,
                       rd_kafka_err2str(error));
    }
}

static mr_status send_letter(mr_refresher *r, mr_refresh_entry *entry, mr_error *err)
{
    const rd_kafka_message_t *message = entry->message;
    mr_refresh_letter *letter = calloc(1, sizeof *letter);
    rd_kafka_headers_t *headers = letter ? make_headers(entry) : NULL;
    if (!headers) {
        free(letter);
        return MR_FAIL(err, NO_MEMORY, "a dead letter");
    }
    void *value = entry->cut ? NULL : message->payload;
    const rd_kafka_resp_err_t error = rd_kafka_producev(
        r->producer, RD_KAFKA_V_TOPIC(r->topics[entry->topic].dead_letters),
        RD_KAFKA_V_KEY(message->key, message->key_len),
        RD_KAFKA_V_VALUE(value, value ? message->len : 0), RD_KAFKA_V_HEADERS(headers),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_OPAQUE(letter), RD_KAFKA_V_END);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
        entry->letter = letter;
        return MR_OK;
    }
    rd_kafka_headers_destroy(headers);
    free(letter);
    if (error == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE && !entry->cut) {
        entry->cut = true;
        return send_letter(r, entry, err);
    }
    return letter_failure(r, entry, error, err);
}

/* What became of the letters; those that failed are given back to be sent again. */
static mr_status look_at_letters(mr_refresher *r, int topic, bool *delivered, mr_error *err)
{
    *delivered = true;
    for (size_t i = 0; i < r->batch.n; i++) {
        mr_refresh_entry *entry = &r->batch.entries[i];
        if (entry->topic != topic || entry->what.kind != MR_REFRESH_REJECTED || !entry->parsed)
            continue;
        if (entry->letter && entry->letter->failed) {
            const rd_kafka_resp_err_t error = entry->letter->error;
            mr_refresh_letter_drop(entry->letter);
            entry->letter = NULL;
            *delivered = false;
            if (error == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE && !entry->cut) {
                entry->cut = true;
                continue;
            }
            if (error == RD_KAFKA_RESP_ERR__FATAL) {
                char why[256] = "";
                rd_kafka_fatal_error(r->producer, why, sizeof why);
                return MR_FAIL(err, INTERNAL, "the producer of dead letters: %s", why);
            }
            return letter_failure(r, entry, error, err);
        }
        *delivered &= entry->letter && entry->letter->delivered;
    }
    return MR_OK;
}

mr_status mr_refresh_send_letters(mr_refresher *r, int topic, int64_t deadline_us, bool *delivered,
                                  mr_error *err)
{
    mr_status status = look_at_letters(r, topic, delivered, err);
    if (status == MR_OK && !*delivered)
        status = open_producer(r, err);
    while (status == MR_OK && !*delivered) {
        for (size_t i = 0; i < r->batch.n && status == MR_OK; i++) {
            mr_refresh_entry *entry = &r->batch.entries[i];
            if (entry->topic == topic && entry->parsed && !entry->letter &&
                entry->what.kind == MR_REFRESH_REJECTED)
                status = send_letter(r, entry, err);
        }
        if (status != MR_OK)
            break;
        rd_kafka_poll(r->producer, 20);
        status = look_at_letters(r, topic, delivered, err);
        if (mr_clock_monotonic_us() >= deadline_us)
            break;
    }
    return status;
}

void mr_refresh_letters_close(mr_refresher *r)
{
    if (!r->producer)
        return;
    /* What is still on its way belongs to nobody: its message will be read again. */
    rd_kafka_purge(r->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    rd_kafka_flush(r->producer, CLOSE_MS);
    rd_kafka_destroy(r->producer);
    r->producer = NULL;
}
