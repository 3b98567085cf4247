/* refresher.c - options, the loop and statistics of a refresher. See refresher.h, and
 * refresh_private.h for how it is divided.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/refresher.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "featurestore/refresh_private.h"

#define DEFAULT_GROUP     "mixrank-refresh"
#define DEFAULT_BATCH     256
#define DEFAULT_LINGER_MS 20
#define MAX_GROUP_BYTES   100 /* with a topic's 249 and a number in the name of a note */
#define MAX_TOPIC_BYTES   249
#define SCRATCH_LIMIT     ((size_t)512 << 20)
#define IDLE_MS           50
#define BACKOFF_FIRST_US  50000
#define BACKOFF_MOST_US   5000000
#define FINISH_US         5000000
#define RATE_BURST_US     100000 /* what a slow moment may be caught up by */

/* ---- events, failures ------------------------------------------------------------------------ */

void mr_refresh_event(mr_refresher *r, mr_log_level level, const char *event, const char *fmt, ...)
{
    if (!r->options.on_event)
        return;
    char detail[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    r->options.on_event(r->options.event_context, level, event, detail);
}

void mr_refresh_fail(mr_refresher *r, mr_status status, const mr_error *why)
{
    if (r->status != MR_OK)
        return;
    r->status = status;
    r->err = *why;
}

bool mr_refresh_is_passing(mr_status status)
{
    return mr_status_is_retryable(status) || status == MR_IO;
}

void mr_refresh_publish(mr_refresher *r)
{
    r->counts.paused = r->away;
    mr_metric_set(r->pause, r->away);
    pthread_mutex_lock(&r->lock);
    r->shared = r->counts;
    pthread_mutex_unlock(&r->lock);
}

void mr_refresher_stat(mr_refresher *r, mr_refresher_stats *out)
{
    pthread_mutex_lock(&r->lock);
    *out = r->shared;
    pthread_mutex_unlock(&r->lock);
}

/* ---- options --------------------------------------------------------------------------------- */

static mr_status take_topic(mr_refresher *r, int t, const char *name, mr_error *err)
{
    const mr_refresher_options *options = &r->options;
    const bool user = t >= MR_REFRESH_USER_EMBEDDINGS;
    mr_refresh_topic *topic = &r->topics[t];
    if (!name)
        return MR_OK;
    if (!*name || strlen(name) > MAX_TOPIC_BYTES || *name == '^')
        return MR_FAIL(err, INVALID,
                       "topic '%.100s' is no name of a topic: 1 to %d bytes, and no pattern", name,
                       MAX_TOPIC_BYTES);
    for (int other = 0; other < t; other++) {
        if (r->topics[other].name && strcmp(r->topics[other].name, name) == 0)
            return MR_FAIL(err, INVALID, "topic '%s' is named twice: each has its own format",
                           name);
    }
    if (options->dead_letters && strcmp(options->dead_letters, name) == 0)
        return MR_FAIL(err, INVALID, "topic '%s' cannot be its own dead-letter topic", name);
    topic->name = name;
    topic->rule = (mr_refresh_rule){
        .entity = user ? MR_ENTITY_USER : MR_ENTITY_ITEM,
        .rows = t == MR_REFRESH_ITEMS || t == MR_REFRESH_USER_EVENTS,
        .space = user ? options->user_space : options->item_space,
        .dim = user ? options->user_dim : options->item_dim,
        .dtype = options->dtype,
        .epoch = options->epoch,
    };
    const size_t size = strlen(options->dead_letters ? options->dead_letters : name) + 8;
    topic->dead_letters = malloc(size);
    if (!topic->dead_letters)
        return MR_FAIL(err, NO_MEMORY, "a refresher");
    if (options->dead_letters)
        snprintf(topic->dead_letters, size, "%s", options->dead_letters);
    else
        snprintf(topic->dead_letters, size, "%s.dlq", name);
    if (topic->rule.rows && !r->encoder.encode)
        return MR_FAIL(err, INVALID, "topic '%s' holds rows to encode, and there is no encoder",
                       name);
    return MR_OK;
}

static mr_status take_options(mr_refresher *r, mr_error *err)
{
    mr_refresher_options *options = &r->options;
    if (!options->brokers || !*options->brokers)
        return MR_FAIL(err, INVALID, "no brokers named; expected host:port,host:port");
    if (!options->group)
        options->group = DEFAULT_GROUP;
    if (!*options->group || strlen(options->group) > MAX_GROUP_BYTES)
        return MR_FAIL(err, INVALID, "group '%.100s' is %zu bytes long, expected 1 to %d",
                       options->group, strlen(options->group), MAX_GROUP_BYTES);
    if (options->batch == 0)
        options->batch = DEFAULT_BATCH;
    if (options->linger_ms == 0)
        options->linger_ms = DEFAULT_LINGER_MS;
    if (options->batch > 65536 || options->linger_ms < 0 || options->linger_ms > 60000)
        return MR_FAIL(err, INVALID,
                       "a batch is %zu messages or %" PRId64 " ms, expected 1 to 65536 and 1 to "
                       "60000",
                       options->batch, options->linger_ms);
    if (!(options->max_rate >= 0 && options->max_rate <= 1e9) ||
        (options->max_rate > 0 && options->max_rate < 0.1))
        return MR_FAIL(err, INVALID, "max_rate is %g messages/s, expected 0 or 0.1 to 1e9",
                       options->max_rate);
    if ((unsigned)options->dtype >= MR_RECORD_DTYPE_COUNT)
        return MR_FAIL(err, INVALID, "dtype is %d, expected one of mr_record_dtype",
                       (int)options->dtype);
    if ((unsigned)options->start > MR_REFRESH_TIMESTAMP ||
        (options->start == MR_REFRESH_TIMESTAMP && options->start_ms < 0))
        return MR_FAIL(err, INVALID,
                       "start is %d at %" PRId64 " ms, expected one of "
                       "mr_refresh_start and a time since 1970",
                       (int)options->start, options->start_ms);
    const char *const names[MR_REFRESH_TOPICS] = {options->items, options->item_embeddings,
                                                  options->user_embeddings, options->user_events};
    mr_status status = MR_OK;
    size_t n = 0;
    for (int t = 0; t < MR_REFRESH_TOPICS && status == MR_OK; t++) {
        status = take_topic(r, t, names[t], err);
        n += names[t] != NULL;
    }
    if (status == MR_OK && n == 0)
        return MR_FAIL(err, INVALID, "no topics named: there is nothing to read");
    return status;
}

static void open_metrics(mr_refresher *r)
{
    static const double seconds[] = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100};
    static const mr_metric_info
        messages = {"mixrank_refresh_messages_total",
                    MR_METRIC_COUNTER,
                    "Messages dealt with, by topic and outcome.",
                    {"topic", "outcome"},
                    NULL,
                    0},
        tombstones = {"mixrank_refresh_tombstones_total",
                      MR_METRIC_COUNTER,
                      "Messages that remove an id.",
                      {"topic"},
                      NULL,
                      0},
        age = {"mixrank_refresh_newest_event_age_seconds",
               MR_METRIC_GAUGE,
               "Age of the newest event that was read.",
               {"topic"},
               NULL,
               0},
        batch = {"mixrank_refresh_batch_seconds",
                 MR_METRIC_HISTOGRAM,
                 "From a batch's first message to the store's answer.",
                 {NULL},
                 seconds,
                 sizeof seconds / sizeof *seconds},
        encode = {"mixrank_refresh_encode_seconds",
                  MR_METRIC_HISTOGRAM,
                  "Calls of the encoder.",
                  {NULL},
                  seconds,
                  sizeof seconds / sizeof *seconds},
        retries = {"mixrank_refresh_retries_total",
                   MR_METRIC_COUNTER,
                   "Batches tried again: the store or the dead-letter topic was away.",
                   {NULL},
                   NULL,
                   0},
        paused = {"mixrank_refresh_paused",
                  MR_METRIC_GAUGE,
                  "1 while a batch waits for the store or the dead-letter topic.",
                  {NULL},
                  NULL,
                  0},
        rebalances = {"mixrank_refresh_rebalances_total",
                      MR_METRIC_COUNTER,
                      "Assignments taken.",
                      {NULL},
                      NULL,
                      0};
    mr_metrics *m = r->metrics;
    for (int t = 0; t < MR_REFRESH_TOPICS; t++) {
        mr_refresh_topic *topic = &r->topics[t];
        const char *name = topic->name;
        if (!name)
            continue;
        topic->written = mr_metrics_get(m, &messages, (const char *[]){name, "written"});
        topic->stale = mr_metrics_get(m, &messages, (const char *[]){name, "stale"});
        topic->dead = mr_metrics_get(m, &messages, (const char *[]){name, "dead_letter"});
        topic->tombstones = mr_metrics_get(m, &tombstones, (const char *[]){name});
        topic->age = mr_metrics_get(m, &age, (const char *[]){name});
    }
    r->batch_seconds = mr_metrics_get(m, &batch, NULL);
    r->encode_seconds = mr_metrics_get(m, &encode, NULL);
    r->retries = mr_metrics_get(m, &retries, NULL);
    r->pause = mr_metrics_get(m, &paused, NULL);
    r->rebalances = mr_metrics_get(m, &rebalances, NULL);
}

mr_status mr_refresher_new(mr_refresher **out, const mr_refresher_options *options, mr_store *store,
                           const mr_refresh_encoder *encoder, mr_metrics *metrics, mr_error *err)
{
    mr_refresher *r = calloc(1, sizeof *r);
    if (!r)
        return MR_FAIL(err, NO_MEMORY, "a refresher");
    pthread_mutex_init(&r->lock, NULL);
    r->options = *options;
    r->store = store;
    r->metrics = metrics;
    if (encoder)
        r->encoder = *encoder;
    r->transactional = strcmp(mr_store_backend(store), "lmdb") == 0;
    r->jitter = mr_rng_seed((uint64_t)mr_clock_monotonic_us());
    r->batch.scratch.limit = SCRATCH_LIMIT;
    r->counts.lag = r->shared.lag = -1;
    mr_status status = take_options(r, err);
    if (status == MR_OK)
        status = mr_refresh_consumer_new(r, err);
    if (status != MR_OK) {
        mr_refresher_free(r);
        return status;
    }
    open_metrics(r);
    *out = r;
    return MR_OK;
}

void mr_refresher_free(mr_refresher *r)
{
    if (!r)
        return;
    mr_refresh_leave(r);
    mr_refresh_letters_close(r);
    mr_refresh_batch_done(r);
    for (int t = 0; t < MR_REFRESH_TOPICS; t++)
        free(r->topics[t].dead_letters);
    free(r->partitions);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

void mr_refresher_stop(mr_refresher *r)
{
    atomic_store(&r->stop, true);
}

/* ---- the loop -------------------------------------------------------------------------------- */

/* One step of the batch, when it is time for one. False: a failure that stays. */
static bool try_batch(mr_refresher *r, int64_t now_us)
{
    mr_error why = {0};
    bool done = false;
    if (r->away && now_us < r->retry_us)
        return true;
    r->batch.writing = true;
    mr_status status = mr_refresh_batch_step(r, &done, &why);
    if (status == MR_OK) {
        if (r->away)
            mr_refresh_event(r, MR_LOG_INFO, "going on", "the batch was taken");
        r->away = false;
        r->backoff_us = 0;
        return true;
    }
    if (!mr_refresh_is_passing(status)) {
        mr_refresh_fail(r, status, &why);
        return false;
    }
    /* Half to all of the pause, so that many refreshers do not come back at once. */
    r->backoff_us = r->backoff_us ? 2 * r->backoff_us : BACKOFF_FIRST_US;
    if (r->backoff_us > BACKOFF_MOST_US)
        r->backoff_us = BACKOFF_MOST_US;
    const int64_t pause =
        (int64_t)((double)r->backoff_us * (0.5 + 0.5 * mr_rng_uniform(&r->jitter)));
    r->retry_us = mr_clock_monotonic_us() + pause;
    if (!r->away)
        mr_refresh_event(r, MR_LOG_WARN, "waiting", "%s", why.message);
    r->away = true;
    r->counts.store_retries++;
    mr_metric_add(r->retries, 1);
    mr_refresh_publish(r);
    return true;
}

bool mr_refresh_finish_batch(mr_refresher *r, int64_t deadline_us)
{
    while (r->batch.n && r->status == MR_OK) {
        const int64_t now = mr_clock_monotonic_us();
        if (now >= deadline_us || !try_batch(r, now))
            break;
        if (r->away)
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return r->batch.n == 0;
}

static bool is_at_end(const mr_refresher *r)
{
    if (!r->options.stop_at_end || !r->assigned || r->batch.n)
        return false;
    for (size_t i = 0; i < r->n_partitions; i++) {
        if (r->partitions[i].assigned && !r->partitions[i].done)
            return false;
    }
    return true;
}

/* How long the poll may wait: to the end of the batch, the next try, the next message of a bounded
 * rate. */
static int64_t poll_wait(const mr_refresher *r, int64_t now_us)
{
    int64_t wait = IDLE_MS * 1000;
    if (r->batch.n && !r->batch.writing) {
        const int64_t left = r->batch.first_us + r->options.linger_ms * 1000 - now_us;
        wait = left < wait ? left : wait;
    } else if (r->batch.writing) {
        const int64_t left = r->away ? r->retry_us - now_us : 0;
        wait = left < wait ? left : wait;
    }
    return wait > 0 ? wait : 0;
}

/* True when a message may be asked for; else it slept a little. */
static bool within_rate(mr_refresher *r, int64_t now_us, int64_t wait_us)
{
    if (r->options.max_rate <= 0 || r->batch.writing)
        return true;
    if (now_us >= r->rate_us)
        return true;
    const int64_t left = r->rate_us - now_us, pause = left < wait_us ? left : wait_us;
    nanosleep(&(struct timespec){.tv_nsec = (long)(pause > 0 ? pause : 0) * 1000}, NULL);
    return false;
}

static void poll_once(mr_refresher *r, int64_t now_us)
{
    const int64_t wait = poll_wait(r, now_us);
    if (!within_rate(r, now_us, wait))
        return;
    /* Rounded up: a poll of 0 ms in the last part of a millisecond would spin. */
    rd_kafka_message_t *message = rd_kafka_consumer_poll(r->consumer, (int)((wait + 999) / 1000));
    if (!message)
        return;
    if (r->options.max_rate > 0 && message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        const int64_t earliest = now_us - RATE_BURST_US;
        r->rate_us = r->rate_us > earliest ? r->rate_us : earliest;
        r->rate_us += (int64_t)(1e6 / r->options.max_rate);
    }
    mr_refresh_take(r, message);
}

static bool batch_is_due(const mr_refresher *r, int64_t now_us)
{
    return r->batch.n && (r->batch.writing || mr_refresh_batch_is_full(r) ||
                          now_us >= r->batch.first_us + r->options.linger_ms * 1000);
}

mr_status mr_refresher_run(mr_refresher *r, mr_error *err)
{
    if (r->ran)
        return MR_FAIL(err, INVALID, "a refresher runs once; make a new one");
    mr_error why = {0};
    mr_status status = mr_refresh_subscribe(r, &why);
    r->ran = true;
    if (status != MR_OK)
        mr_refresh_fail(r, status, &why);
    while (!atomic_load(&r->stop) && r->status == MR_OK && !is_at_end(r)) {
        int64_t now = mr_clock_monotonic_us();
        if (batch_is_due(r, now) && !try_batch(r, now))
            break;
        /* What waits for the store must not take more, and must go on polling. */
        mr_refresh_pause(r, r->batch.writing);
        now = mr_clock_monotonic_us();
        poll_once(r, now);
        if (r->producer)
            rd_kafka_poll(r->producer, 0);
        mr_refresh_commit(r, 0);
        mr_refresh_tick(r, now);
    }
    if (r->status == MR_OK)
        (void)mr_refresh_finish_batch(r, mr_clock_monotonic_us() + FINISH_US);
    mr_refresh_commit(r, FINISH_US);
    mr_refresh_leave(r);
    mr_refresh_letters_close(r);
    mr_refresh_publish(r);
    if (r->status != MR_OK && err)
        *err = r->err;
    return r->status;
}
