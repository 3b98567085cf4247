/* refresh_offsets.c - where a partition is read from, and what is committed. See refresh_private.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "core/json.h"
#include "featurestore/note_json.h"
#include "featurestore/refresh_private.h"

#define ASK_MS          1000 /* one question to a broker; repeated, so that a stop is noticed */
#define ASK_TIMES       30
#define COMMIT_EVERY_US 200000

/* ---- where to start -------------------------------------------------------------------------- */

void mr_refresh_note_name(const mr_refresher *r, int topic, int32_t partition, char *out,
                          size_t size)
{
    snprintf(out, size, "refresh:%s:%s:%" PRId32, r->options.group, r->topics[topic].name,
             partition);
}

/* Of the store; false: it has none for this epoch. */
static mr_status noted_offset(mr_refresher *r, int topic, int32_t number, bool *found,
                              int64_t *offset, mr_error *err)
{
    char name[MR_REFRESH_NOTE_NAME];
    mr_error why = {0};
    json_t *note = NULL;
    mr_refresh_note_name(r, topic, number, name, sizeof name);
    *found = false;
    mr_status status = mr_store_get_json_note(r->store, name, &note, &why);
    if (note) {
        mr_json_cursor cur = mr_json_cursor_of(name, note, &why);
        const int64_t epoch = mr_json_int(&cur, "epoch", 0, UINT16_MAX, MR_JSON_REQUIRED);
        *offset = mr_json_int(&cur, "offset", 0, INT64_MAX, MR_JSON_REQUIRED);
        *found = epoch == r->options.epoch;
        status = cur.status;
    }
    json_decref(note);
    if (status != MR_OK && err)
        *err = why;
    return status;
}

/* A question to the brokers, repeated while they are away and nobody wants us to stop. */
typedef rd_kafka_resp_err_t (*question)(mr_refresher *r, rd_kafka_topic_partition_list_t *list);

static rd_kafka_resp_err_t ask_committed(mr_refresher *r, rd_kafka_topic_partition_list_t *list)
{
    return rd_kafka_committed(r->consumer, list, ASK_MS);
}

static rd_kafka_resp_err_t ask_times(mr_refresher *r, rd_kafka_topic_partition_list_t *list)
{
    return rd_kafka_offsets_for_times(r->consumer, list, ASK_MS);
}

static mr_status ask(mr_refresher *r, question call, rd_kafka_topic_partition_list_t *list,
                     const char *what, mr_error *err)
{
    rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR__TIMED_OUT;
    for (int i = 0; i < ASK_TIMES && error != RD_KAFKA_RESP_ERR_NO_ERROR; i++) {
        if (atomic_load(&r->stop))
            break;
        error = call(r, list);
    }
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        return MR_FAIL(err, UNAVAILABLE, "asking for %s: %s", what, rd_kafka_err2str(error));
    return MR_OK;
}

/* Those of `list` that have no offset: where options.start says. */
static mr_status start_offsets(mr_refresher *r, rd_kafka_topic_partition_list_t *list,
                               mr_error *err)
{
    if (r->options.start != MR_REFRESH_TIMESTAMP) {
        for (int i = 0; i < list->cnt; i++) {
            if (list->elems[i].offset < 0)
                list->elems[i].offset = r->options.start == MR_REFRESH_LATEST
                                            ? RD_KAFKA_OFFSET_END
                                            : RD_KAFKA_OFFSET_BEGINNING;
        }
        return MR_OK;
    }
    rd_kafka_topic_partition_list_t *times = rd_kafka_topic_partition_list_new(list->cnt + 1);
    for (int i = 0; i < list->cnt; i++) {
        if (list->elems[i].offset < 0)
            rd_kafka_topic_partition_list_add(times, list->elems[i].topic, list->elems[i].partition)
                ->offset = r->options.start_ms;
    }
    mr_status status = times->cnt ? ask(r, ask_times, times, "offsets by time", err) : MR_OK;
    for (int i = 0; i < times->cnt && status == MR_OK; i++) {
        const rd_kafka_topic_partition_t *found = &times->elems[i];
        rd_kafka_topic_partition_t *aim =
            rd_kafka_topic_partition_list_find(list, found->topic, found->partition);
        if (found->err)
            status = MR_FAIL(err, UNAVAILABLE, "offset by time of %s[%d]: %s", found->topic,
                             found->partition, rd_kafka_err2str(found->err));
        else /* none so late: the end, which is negative too */
            aim->offset = found->offset;
    }
    rd_kafka_topic_partition_list_destroy(times);
    return status;
}

mr_status mr_refresh_choose_offsets(mr_refresher *r, rd_kafka_topic_partition_list_t *list,
                                    mr_error *err)
{
    mr_status status = MR_OK;
    for (int i = 0; i < list->cnt && r->transactional && status == MR_OK; i++) {
        rd_kafka_topic_partition_t *one = &list->elems[i];
        const int topic = mr_refresh_topic_of(r, one->topic);
        bool found = false;
        int64_t offset = 0;
        if (topic >= 0)
            status = noted_offset(r, topic, one->partition, &found, &offset, err);
        one->offset = found ? offset : RD_KAFKA_OFFSET_INVALID;
    }
    if (status == MR_OK && !r->transactional)
        status = ask(r, ask_committed, list, "committed offsets", err);
    for (int i = 0; i < list->cnt && status == MR_OK && !r->transactional; i++) {
        if (list->elems[i].err)
            status =
                MR_FAIL(err, UNAVAILABLE, "committed offset of %s[%d]: %s", list->elems[i].topic,
                        list->elems[i].partition, rd_kafka_err2str(list->elems[i].err));
    }
    return status == MR_OK ? start_offsets(r, list, err) : status;
}

/* ---- commits --------------------------------------------------------------------------------- */

static void commit_answered(mr_refresher *r, rd_kafka_resp_err_t error)
{
    r->committing = false;
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR || error == RD_KAFKA_RESP_ERR__NO_OFFSET)
        return;
    /* The next commit says it again. Of a group that moves on without us, the next owner does. */
    for (size_t i = 0; i < r->n_partitions; i++)
        r->partitions[i].sent = -1;
    r->commit_us = mr_clock_monotonic_us() + 5 * COMMIT_EVERY_US;
    mr_refresh_kafka_failed(r, r->consumer, error, "committing offsets");
}

void mr_refresh_on_commit(rd_kafka_t *consumer, rd_kafka_resp_err_t error,
                          rd_kafka_topic_partition_list_t *offsets, void *opaque)
{
    (void)consumer;
    (void)offsets;
    commit_answered(opaque, error);
}

static void commit_and_wait(mr_refresher *r, rd_kafka_topic_partition_list_t *list, int64_t wait_us)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_new(r->consumer);
    rd_kafka_resp_err_t error = rd_kafka_commit_queue(r->consumer, list, queue, NULL, NULL);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(queue, (int)(wait_us / 1000));
        error = event ? rd_kafka_event_error(event) : RD_KAFKA_RESP_ERR__TIMED_OUT;
        rd_kafka_event_destroy(event);
    }
    rd_kafka_queue_destroy(queue);
    commit_answered(r, error);
}

void mr_refresh_commit(mr_refresher *r, int64_t wait_us)
{
    const int64_t now = mr_clock_monotonic_us();
    if (wait_us == 0 && (r->committing || now < r->commit_us))
        return;
    rd_kafka_topic_partition_list_t *list = NULL;
    for (size_t i = 0; i < r->n_partitions; i++) {
        mr_refresh_partition *partition = &r->partitions[i];
        if (!partition->assigned || partition->settled < 0 ||
            (partition->settled == partition->sent && !(wait_us && r->committing)))
            continue;
        if (!list)
            list = rd_kafka_topic_partition_list_new((int)r->n_partitions);
        rd_kafka_topic_partition_list_add(list, r->topics[partition->topic].name,
                                          partition->partition)
            ->offset = partition->settled;
        partition->sent = partition->settled;
    }
    r->commit_us = now + COMMIT_EVERY_US;
    if (!list)
        return;
    if (wait_us) {
        commit_and_wait(r, list, wait_us);
    } else {
        r->committing = true;
        const rd_kafka_resp_err_t error = rd_kafka_commit(r->consumer, list, 1);
        if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
            commit_answered(r, error);
    }
    rd_kafka_topic_partition_list_destroy(list);
}
