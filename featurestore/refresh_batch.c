/* refresh_batch.c - a batch of messages on its way into the store. See refresh_private.h.
 *
 * Topic by topic, items before users: messages are parsed, rows encoded, what was rejected sent to
 * the dead-letter topic, and records put. Every entry remembers how far it has come, so a step that
 * was cut short (the store is away, an encoder takes its time) is simply taken again.
 *
 * Where the store has transactions (LMDB), each partition of the batch is one put together with a
 * note of the offset behind it. A note per partition, because partitions move between the members
 * of a group, and a put per partition, because a transaction takes one note. The letters of a
 * partition are delivered before its note moves.
 *
 * A store that refuses a batch for good is asked record by record: what it refuses among others
 * that it takes, or because another program's value lies under the key, is a poisoned message. When
 * it takes none, the fault is the store's own: the run ends, and nothing was lost.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "featurestore/refresh_private.h"

#define BATCH_MAX_BYTES ((size_t)16 << 20)
#define ARENA_MAX_BYTES ((size_t)64 << 20)
#define STEP_US         1000000
#define ENCODE_ROWS     64

/* ---- the batch itself ------------------------------------------------------------------------ */

mr_status mr_refresh_batch_add(mr_refresher *r, int topic, rd_kafka_message_t *message,
                               mr_error *err)
{
    mr_refresh_batch *batch = &r->batch;
    if (batch->n == batch->capacity) {
        const size_t capacity = batch->capacity ? 2 * batch->capacity : r->options.batch;
        mr_refresh_entry *bigger = realloc(batch->entries, capacity * sizeof *bigger);
        if (!bigger) {
            rd_kafka_message_destroy(message);
            return MR_FAIL(err, NO_MEMORY, "a batch of %zu messages", capacity);
        }
        batch->entries = bigger;
        batch->capacity = capacity;
    }
    if (batch->n == 0)
        batch->first_us = mr_clock_monotonic_us();
    mr_refresh_entry *entry = &batch->entries[batch->n++];
    memset(entry, 0, offsetof(mr_refresh_entry, what)); /* parsing fills the rest */
    entry->message = message;
    entry->topic = topic;
    batch->bytes += message->len + message->key_len;
    return MR_OK;
}

bool mr_refresh_batch_is_full(const mr_refresher *r)
{
    return r->batch.n >= r->options.batch || r->batch.bytes >= BATCH_MAX_BYTES;
}

void mr_refresh_batch_clear(mr_refresher *r)
{
    mr_refresh_batch *batch = &r->batch;
    for (size_t i = 0; i < batch->n; i++) {
        mr_refresh_letter_drop(batch->entries[i].letter);
        rd_kafka_message_destroy(batch->entries[i].message);
    }
    batch->n = batch->bytes = 0;
    batch->writing = false;
    mr_arena_rewind(&batch->arena, (mr_arena_mark){0});
    mr_arena_rewind(&batch->scratch, (mr_arena_mark){0});
    r->away = false;
    r->retry_us = r->backoff_us = 0;
}

void mr_refresh_batch_done(mr_refresher *r)
{
    mr_refresh_batch_clear(r);
    mr_arena_done(&r->batch.arena);
    mr_arena_done(&r->batch.scratch);
    free(r->batch.entries);
    r->batch = (mr_refresh_batch){0};
}

static void reject_entry(mr_refresh_entry *entry, mr_refresh_code code, const char *reason)
{
    entry->what.kind = MR_REFRESH_REJECTED;
    entry->what.code = code;
    snprintf(entry->what.reason, sizeof entry->what.reason, "%.*s",
             (int)sizeof entry->what.reason - 1, *reason ? reason : "no reason was given");
}

/* ---- parse ----------------------------------------------------------------------------------- */

static mr_bytes version_header(const rd_kafka_message_t *message)
{
    rd_kafka_headers_t *headers = NULL;
    const void *value = NULL;
    size_t size = 0;
    if (rd_kafka_message_headers(message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR ||
        rd_kafka_header_get_last(headers, MR_REFRESH_VERSION_HEADER, &value, &size) !=
            RD_KAFKA_RESP_ERR_NO_ERROR)
        return (mr_bytes){0};
    return (mr_bytes){value, size};
}

static mr_status parse_entries(mr_refresher *r, int t, mr_error *err)
{
    mr_refresh_topic *topic = &r->topics[t];
    for (size_t i = 0; i < r->batch.n; i++) {
        mr_refresh_entry *entry = &r->batch.entries[i];
        if (entry->topic != t || entry->parsed)
            continue;
        const rd_kafka_message_t *kafka = entry->message;
        rd_kafka_timestamp_type_t type;
        const int64_t timestamp = rd_kafka_message_timestamp(kafka, &type);
        const mr_refresh_message message = {
            .key = {kafka->key, kafka->key_len},
            .value = {kafka->payload, kafka->len},
            .version = version_header(kafka),
            .offset = kafka->offset,
            .timestamp_ms = type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE ? -1 : timestamp};
        mr_status status = mr_refresh_parse(&topic->rule, &message, &r->batch.arena,
                                            &r->batch.scratch, &entry->what, err);
        if (status != MR_OK)
            return status;
        entry->parsed = true;
        if (entry->what.kind == MR_REFRESH_REJECTED)
            continue;
        if (entry->what.event_ms > topic->newest_ms)
            topic->newest_ms = entry->what.event_ms;
        if (entry->what.tombstone) {
            r->counts.tombstones++;
            mr_metric_add(topic->tombstones, 1);
        }
    }
    return MR_OK;
}

/* ---- encode ---------------------------------------------------------------------------------- */

/* Keeps what the encoder made: its memory is its own until the next call. */
static mr_status keep_record(mr_refresher *r, mr_refresh_entry *entry, mr_refresh_record *made,
                             mr_error *err)
{
    mr_error why = {0};
    mr_record_info info;
    if (made->record.len == 0) {
        made->reason[sizeof made->reason - 1] = '\0';
        reject_entry(entry, MR_REFRESH_CODE_ENCODER, made->reason);
        return MR_OK;
    }
    if (mr_record_check("the encoder's record", made->record, &info, &why) != MR_OK) {
        reject_entry(entry, MR_REFRESH_CODE_ENCODER, why.message);
        return MR_OK;
    }
    if (info.space != r->topics[entry->topic].rule.space) {
        reject_entry(entry, MR_REFRESH_CODE_SPACE, "the encoder made a record of another space");
        return MR_OK;
    }
    void *copy = mr_arena_alloc(&r->batch.arena, made->record.len, 1, 16);
    if (!copy)
        return MR_FAIL(err, NO_MEMORY, "a record of %zu bytes", made->record.len);
    memcpy(copy, made->record.data, made->record.len);
    entry->what.record = (mr_bytes){copy, made->record.len};
    entry->what.kind = MR_REFRESH_RECORD;
    return MR_OK;
}

typedef struct {
    mr_refresh_entry *entries[ENCODE_ROWS];
    mr_refresh_row rows[ENCODE_ROWS];
    mr_refresh_record out[ENCODE_ROWS];
    size_t n;
} encode_chunk;

static mr_status call_encoder(mr_refresher *r, int t, encode_chunk *chunk, size_t first, size_t n,
                              mr_error *err)
{
    const mr_refresh_rule *rule = &r->topics[t].rule;
    const int64_t started = mr_clock_monotonic_us();
    for (size_t i = 0; i < n; i++)
        chunk->out[first + i] = (mr_refresh_record){0};
    mr_status status = r->encoder.encode(r->encoder.context, rule->entity, rule->space,
                                         chunk->rows + first, n, chunk->out + first, err);
    mr_metric_observe(r->encode_seconds, (double)(mr_clock_monotonic_us() - started) / 1e6);
    for (size_t i = 0; i < n && status == MR_OK; i++)
        status = keep_record(r, chunk->entries[first + i], &chunk->out[first + i], err);
    return status;
}

/* A call that failed for good is made row by row, and the rows that it fails for are rejected; if
 * those are all of several, the fault is the encoder's own. */
static mr_status encode_singly(mr_refresher *r, int t, encode_chunk *chunk, mr_error *err)
{
    size_t rejected = 0;
    mr_error first = {0};
    for (size_t i = 0; i < chunk->n; i++) {
        mr_error why = {0};
        mr_status status = call_encoder(r, t, chunk, i, 1, &why);
        if (status == MR_OK)
            continue;
        if (mr_refresh_is_passing(status)) {
            *err = why;
            return status;
        }
        if (rejected++ == 0)
            first = why;
        reject_entry(chunk->entries[i], MR_REFRESH_CODE_ENCODER, why.message);
    }
    if (rejected < 2 || rejected < chunk->n)
        return MR_OK;
    *err = first;
    return mr_error_prefix(err, first.status, "no row of %zu could be encoded", chunk->n);
}

/* One chunk; *left: there are more. */
static mr_status encode_some(mr_refresher *r, int t, bool *left, mr_error *err)
{
    encode_chunk *chunk = mr_arena_array(&r->batch.scratch, encode_chunk, 1);
    if (!chunk)
        return MR_FAIL(err, NO_MEMORY, "rows to encode");
    *left = false;
    for (size_t i = 0; i < r->batch.n && !*left; i++) {
        mr_refresh_entry *entry = &r->batch.entries[i];
        if (entry->topic != t || !entry->parsed || entry->what.kind != MR_REFRESH_ROW)
            continue;
        if (chunk->n == ENCODE_ROWS) {
            *left = true;
            break;
        }
        chunk->entries[chunk->n] = entry;
        chunk->rows[chunk->n++] = (mr_refresh_row){entry->what.id, entry->what.json,
                                                   entry->what.version, entry->what.event_ms};
    }
    mr_status status = chunk->n ? call_encoder(r, t, chunk, 0, chunk->n, err) : MR_OK;
    if (status != MR_OK && !mr_refresh_is_passing(status))
        status = encode_singly(r, t, chunk, err);
    mr_arena_rewind(&r->batch.scratch, (mr_arena_mark){0});
    return status;
}

/* ---- put ------------------------------------------------------------------------------------- */

static void count_written(mr_refresher *r, int t, const mr_store_put_result *result)
{
    r->counts.written += result->written;
    r->counts.stale += result->stale;
    mr_metric_add(r->topics[t].written, (double)result->written);
    mr_metric_add(r->topics[t].stale, (double)result->stale);
}

/* Of the entries from `first` on: those of its topic and, with transactions, of its partition. */
static bool same_group(const mr_refresher *r, const mr_refresh_entry *first,
                       const mr_refresh_entry *entry)
{
    return entry->topic == first->topic && !entry->settled &&
           (!r->transactional || entry->message->partition == first->message->partition);
}

static mr_status put_singly(mr_refresher *r, mr_refresh_entry *first, mr_error *err)
{
    const mr_refresh_rule *rule = &r->topics[first->topic].rule;
    size_t taken = 0, refused = 0;
    mr_error refusal = {0};
    for (mr_refresh_entry *entry = first; entry < r->batch.entries + r->batch.n; entry++) {
        if (!same_group(r, first, entry) || entry->what.kind != MR_REFRESH_RECORD)
            continue;
        if (entry->written) { /* by a step that the store did not see through */
            taken++;
            continue;
        }
        mr_error why = {0};
        mr_store_put_result result = {0};
        const mr_store_put_item item = {entry->what.id, entry->what.record};
        mr_status status =
            mr_store_put(r->store, rule->entity, rule->space, &item, 1, &result, &why);
        if (status == MR_OK) {
            taken++;
            entry->written = true;
            count_written(r, first->topic, &result);
        } else if (mr_refresh_is_passing(status)) {
            *err = why;
            return status;
        } else {
            /* A mismatch, of a record whose space is right, is about what is under its key now:
             * the store itself is well. */
            taken += status == MR_MISMATCH;
            refused++;
            refusal = why;
            snprintf(entry->what.reason, sizeof entry->what.reason, "%.255s", why.message);
        }
    }
    if (taken == 0 && refused) {
        *err = refusal;
        return mr_error_prefix(err, refusal.status, "the store takes no record");
    }
    for (mr_refresh_entry *entry = first; entry < r->batch.entries + r->batch.n; entry++) {
        if (same_group(r, first, entry) && !entry->written && entry->parsed &&
            entry->what.kind == MR_REFRESH_RECORD && *entry->what.reason) {
            entry->what.kind = MR_REFRESH_REJECTED;
            entry->what.code = MR_REFRESH_CODE_STORE;
        }
    }
    return MR_OK;
}

static mr_status put_records(mr_refresher *r, const mr_refresh_entry *first,
                             const mr_store_put_item *items, size_t n, int64_t behind,
                             mr_error *err)
{
    const mr_refresh_rule *rule = &r->topics[first->topic].rule;
    mr_store_put_result result = {0};
    mr_status status = MR_OK;
    if (r->transactional) {
        char name[MR_REFRESH_NOTE_NAME], note[96];
        mr_refresh_note_name(r, first->topic, first->message->partition, name, sizeof name);
        snprintf(note, sizeof note, "{\"epoch\":%u,\"offset\":%" PRId64 "}", rule->epoch, behind);
        status = mr_store_put_with_note(r->store, rule->entity, rule->space, items, n, name,
                                        mr_str_of(note), &result, err);
    } else if (n) {
        status = mr_store_put(r->store, rule->entity, rule->space, items, n, &result, err);
    }
    if (status == MR_OK)
        count_written(r, first->topic, &result);
    return status;
}

/* One group. *again: it was put in part, and what is left needs letters. */
static mr_status put_group(mr_refresher *r, mr_refresh_entry *first, bool *again, mr_error *err)
{
    mr_refresh_entry *end = r->batch.entries + r->batch.n;
    mr_store_put_item *items = mr_arena_array(&r->batch.scratch, mr_store_put_item, r->batch.n);
    if (!items)
        return MR_FAIL(err, NO_MEMORY, "a put of %zu records", r->batch.n);
    size_t n = 0;
    int64_t behind = 0;
    for (mr_refresh_entry *entry = first; entry < end; entry++) {
        if (!same_group(r, first, entry))
            continue;
        if (entry->what.kind == MR_REFRESH_RECORD && !entry->written)
            items[n++] = (mr_store_put_item){entry->what.id, entry->what.record};
        if (entry->message->offset >= behind)
            behind = entry->message->offset + 1;
    }
    mr_status status = put_records(r, first, items, n, behind, err);
    if (status != MR_OK && !mr_refresh_is_passing(status)) {
        status = put_singly(r, first, err);
        *again = status == MR_OK;
    }
    mr_arena_rewind(&r->batch.scratch, (mr_arena_mark){0});
    if (status != MR_OK || *again)
        return status;
    size_t dead = 0;
    for (mr_refresh_entry *entry = first; entry < end; entry++) {
        if (!same_group(r, first, entry))
            continue;
        dead += entry->what.kind == MR_REFRESH_REJECTED;
        if (entry != first)
            entry->settled = true;
    }
    first->settled = true;
    r->counts.dead_letters += dead;
    mr_metric_add(r->topics[first->topic].dead, (double)dead);
    return MR_OK;
}

/* ---- a step ---------------------------------------------------------------------------------- */

static void tell_of_letters(mr_refresher *r, int t)
{
    const mr_refresh_entry *first = NULL;
    size_t n = 0;
    for (size_t i = 0; i < r->batch.n; i++) {
        const mr_refresh_entry *entry = &r->batch.entries[i];
        if (entry->topic == t && entry->what.kind == MR_REFRESH_REJECTED && !entry->letter) {
            first = first ? first : entry;
            n++;
        }
    }
    if (first)
        mr_refresh_event(r, MR_LOG_WARN, "messages rejected",
                         "%zu of topic %s; the first at partition %d, offset %" PRId64 ": %s", n,
                         r->topics[t].name, first->message->partition, first->message->offset,
                         first->what.reason);
}

static mr_status step_topic(mr_refresher *r, int t, int64_t deadline_us, bool *done, mr_error *err)
{
    bool left = true, delivered = false, again = false;
    *done = false;
    mr_status status = parse_entries(r, t, err);
    while (status == MR_OK && left) {
        status = encode_some(r, t, &left, err);
        if (status == MR_OK && left && mr_clock_monotonic_us() >= deadline_us)
            return MR_OK;
    }
    if (status != MR_OK)
        return status;
    tell_of_letters(r, t);
    status = mr_refresh_send_letters(r, t, deadline_us, &delivered, err);
    if (status != MR_OK || !delivered)
        return status;
    for (size_t i = 0; i < r->batch.n && status == MR_OK; i++) {
        mr_refresh_entry *entry = &r->batch.entries[i];
        if (entry->topic == t && !entry->settled)
            status = put_group(r, entry, &again, err);
        if (again)
            return status;
    }
    *done = status == MR_OK;
    return status;
}

mr_status mr_refresh_batch_step(mr_refresher *r, bool *done, mr_error *err)
{
    mr_refresh_batch *batch = &r->batch;
    const int64_t deadline = mr_clock_monotonic_us() + STEP_US;
    bool present[MR_REFRESH_TOPICS] = {false};
    mr_status status = MR_OK;
    *done = true;
    for (size_t i = 0; i < batch->n; i++)
        present[batch->entries[i].topic] |= !batch->entries[i].settled;
    for (int t = 0; t < MR_REFRESH_TOPICS && status == MR_OK && *done; t++) {
        if (present[t])
            status = step_topic(r, t, deadline, done, err);
    }
    if (status != MR_OK || !*done) {
        *done = false;
        return status;
    }
    /* All that was read is in the batch. */
    for (size_t i = 0; i < r->n_partitions; i++) {
        if (r->partitions[i].assigned && r->partitions[i].read >= 0)
            r->partitions[i].settled = r->partitions[i].read;
    }
    if (batch->n) {
        r->counts.batches++;
        mr_metric_observe(r->batch_seconds,
                          (double)(mr_clock_monotonic_us() - batch->first_us) / 1e6);
        mr_refresh_publish(r);
    }
    const size_t arena_bytes = batch->arena.used;
    mr_refresh_batch_clear(r);
    if (arena_bytes > ARENA_MAX_BYTES)
        mr_arena_done(&batch->arena); /* one huge batch must not hold its memory for good */
    return MR_OK;
}
