/* refresh_fixture.c - see refresh_fixture.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>

#include "tests/unit/refresh_fixture.h"

/* ---- the script ------------------------------------------------------------------------------ */

static struct {
    atomic_int fail_every, status, away, slow_ms, put_calls, puts, commits, early, refused_status;
    char refused[64];
    pthread_mutex_t lock;
    int n;
    bool *answered; /* [n] */
} script = {.lock = PTHREAD_MUTEX_INITIALIZER};

void script_reset(void)
{
    free(script.answered);
    script.answered = NULL;
    script.n = 0;
    script.refused[0] = '\0';
    script.fail_every = script.status = script.away = script.slow_ms = 0;
    script.put_calls = script.puts = script.commits = script.early = 0;
}

void script_fail_every_put(int n, mr_status status)
{
    script.status = (int)status;
    script.fail_every = n;
}

void script_store_is_away(bool away)
{
    script.away = away;
}

void script_refuse_id(const char *id, mr_status status)
{
    script.refused_status = (int)status;
    snprintf(script.refused, sizeof script.refused, "%s", id);
}

void script_slow_puts(int ms)
{
    script.slow_ms = ms;
}

void script_watch_order(int n)
{
    script.answered = calloc((size_t)n, sizeof *script.answered);
    assert_non_null(script.answered);
    script.n = n;
}

int script_commits(void)
{
    return script.commits;
}

int script_early_commits(void)
{
    return script.early;
}

int script_puts(void)
{
    return script.puts;
}

static void note_answered(const mr_store_put_item *items, size_t n)
{
    pthread_mutex_lock(&script.lock);
    for (size_t i = 0; i < n && script.answered; i++) {
        char id[16];
        snprintf(id, sizeof id, "%.*s", (int)items[i].id.len, items[i].id.data);
        const long at = strtol(id + 1, NULL, 10);
        if (at >= 0 && at < script.n)
            script.answered[at] = true;
    }
    pthread_mutex_unlock(&script.lock);
}

static void look_at_commit(const rd_kafka_topic_partition_list_t *offsets)
{
    script.commits++;
    pthread_mutex_lock(&script.lock);
    for (int i = 0; offsets && script.answered && i < offsets->cnt; i++) {
        for (int64_t o = 0; o < offsets->elems[i].offset && o < script.n; o++) {
            if (!script.answered[o]) {
                script.early++;
                break;
            }
        }
    }
    pthread_mutex_unlock(&script.lock);
}

mr_status __real_mr_store_put(mr_store *store, mr_entity entity, uint64_t space,
                              const mr_store_put_item *items, size_t n, mr_store_put_result *result,
                              mr_error *err);
mr_status __wrap_mr_store_put(mr_store *store, mr_entity entity, uint64_t space,
                              const mr_store_put_item *items, size_t n, mr_store_put_result *result,
                              mr_error *err);
mr_status __wrap_mr_store_put(mr_store *store, mr_entity entity, uint64_t space,
                              const mr_store_put_item *items, size_t n, mr_store_put_result *result,
                              mr_error *err)
{
    const int calls = ++script.put_calls, every = script.fail_every;
    if (script.slow_ms)
        kafka_sleep_ms(script.slow_ms);
    if (script.away)
        return MR_FAIL(err, UNAVAILABLE, "scripted: the store is away");
    if (every && calls % every == 0)
        return mr_error_set(err, (mr_status)(int)script.status, __FILE__, __LINE__, "scripted");
    for (size_t i = 0; i < n && script.refused[0]; i++) {
        if (mr_str_equal(items[i].id, mr_str_of(script.refused)))
            return mr_error_set(err, (mr_status)(int)script.refused_status, __FILE__, __LINE__,
                                "scripted refusal");
    }
    mr_status status = __real_mr_store_put(store, entity, space, items, n, result, err);
    if (status == MR_OK) {
        script.puts++;
        note_answered(items, n);
    }
    return status;
}

rd_kafka_resp_err_t __real_rd_kafka_commit(rd_kafka_t *client,
                                           const rd_kafka_topic_partition_list_t *offsets,
                                           int async);
rd_kafka_resp_err_t __wrap_rd_kafka_commit(rd_kafka_t *client,
                                           const rd_kafka_topic_partition_list_t *offsets,
                                           int async);
rd_kafka_resp_err_t __wrap_rd_kafka_commit(rd_kafka_t *client,
                                           const rd_kafka_topic_partition_list_t *offsets,
                                           int async)
{
    look_at_commit(offsets);
    return __real_rd_kafka_commit(client, offsets, async);
}

typedef void (*commit_cb)(rd_kafka_t *, rd_kafka_resp_err_t, rd_kafka_topic_partition_list_t *,
                          void *);
rd_kafka_resp_err_t __real_rd_kafka_commit_queue(rd_kafka_t *client,
                                                 const rd_kafka_topic_partition_list_t *offsets,
                                                 rd_kafka_queue_t *queue, commit_cb cb,
                                                 void *opaque);
rd_kafka_resp_err_t __wrap_rd_kafka_commit_queue(rd_kafka_t *client,
                                                 const rd_kafka_topic_partition_list_t *offsets,
                                                 rd_kafka_queue_t *queue, commit_cb cb,
                                                 void *opaque);
rd_kafka_resp_err_t __wrap_rd_kafka_commit_queue(rd_kafka_t *client,
                                                 const rd_kafka_topic_partition_list_t *offsets,
                                                 rd_kafka_queue_t *queue, commit_cb cb,
                                                 void *opaque)
{
    look_at_commit(offsets);
    return __real_rd_kafka_commit_queue(client, offsets, queue, cb, opaque);
}

/* ---- the fixture ----------------------------------------------------------------------------- */

int fixture_setup(void **state)
{
    static const char *const topics[] = {"items", "item-embeddings", "user-embeddings",
                                         "user-events"};
    mr_error err = {0};
    char why[256];
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    script_reset();
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_log_cb(conf, NULL);
    f->owner = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    assert_non_null(f->owner);
    f->cluster = rd_kafka_mock_cluster_new(f->owner, 2);
    f->brokers = rd_kafka_mock_cluster_bootstraps(f->cluster);
    for (size_t i = 0; i < 4; i++)
        rd_kafka_mock_topic_create(f->cluster, topics[i], 2, 1);
    f->client = kafka_client_new(f->brokers);
    assert_status(mr_store_open(&f->store, "memory:", NULL, &err), MR_OK, &err);
    *state = f;
    return 0;
}

int fixture_teardown(void **state)
{
    fixture *f = *state;
    kafka_client_free(f->client);
    rd_kafka_mock_cluster_destroy(f->cluster);
    rd_kafka_destroy(f->owner);
    mr_store_close(f->store);
    mr_arena_done(&f->encoded);
    free(f);
    script_reset();
    return 0;
}

void use_all_topics(mr_refresher_options *options)
{
    options->items = "items";
    options->item_embeddings = "item-embeddings";
    options->user_embeddings = "user-embeddings";
    options->user_events = "user-events";
}

mr_status encode(void *context, mr_entity entity, uint64_t space, const mr_refresh_row *rows,
                 size_t n, mr_refresh_record *out, mr_error *err)
{
    fixture *f = context;
    (void)entity;
    f->encode_calls++;
    if (f->encode_ms)
        kafka_sleep_ms(f->encode_ms);
    mr_arena_rewind(&f->encoded, (mr_arena_mark){0});
    for (size_t i = 0; i < n; i++) {
        json_t *row = NULL;
        mr_status status = mr_json_parse(&row, "row", rows[i].json, err);
        if (status != MR_OK)
            return status;
        const char *reason = json_string_value(json_object_get(row, "reject"));
        float values[KAFKA_DIM];
        for (size_t k = 0; k < KAFKA_DIM; k++)
            values[k] = (float)json_number_value(json_object_get(row, "mark"));
        const mr_record_info info = {.version = rows[i].version,
                                     .space = space,
                                     .event_ms = rows[i].event_ms,
                                     .tokens = 1,
                                     .dim = KAFKA_DIM};
        const bool fails = json_is_true(json_object_get(row, "fail"));
        if (fails) {
            status = MR_FAIL(err, MISMATCH, "scripted failure");
        } else if (reason) {
            snprintf(out[i].reason, sizeof out[i].reason, "%s", reason);
        } else {
            void *record = mr_arena_alloc(&f->encoded, mr_record_bytes(&info), 1, 16);
            out[i].record = (mr_bytes){record, mr_record_bytes(&info)};
            status = record ? mr_record_encode(&info, values, record, err) : MR_NO_MEMORY;
        }
        json_decref(row);
        if (status != MR_OK)
            return status;
    }
    return MR_OK;
}
