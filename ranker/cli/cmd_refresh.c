/* cmd_refresh.c - mixrank refresh: keeps a store fresh from Kafka, or fills one and ends.
 *
 * The refresher runs in the main thread; a second one shows progress and writes the metrics file.
 * A first SIGTERM or SIGINT lets the batch at hand be written and committed and leaves the group; a
 * second one ends the program at once, which costs no more than some messages read twice.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"
#include "core/metrics.h"
#include "core/progress.h"
#include "ranker/cli/command.h"
#include "ranker/cli/refresh_encode.h"
#include "ranker/cli/store_access.h"

#define METRICS_EVERY_US 5000000

typedef struct {
    const char *bundle, *store, *brokers, *group, *instance, *items, *item_embeddings,
        *user_embeddings, *user_events, *dead_letters, *from, *metrics_file;
    mr_option_list kafka;
    int64_t epoch, batch, linger_ms, threads;
    double rate, map_gb;
    int dtype, log; /* mr_record_dtype; text, json */
    bool until_end, fast_writes, exact, json, quiet;
} refresh_options;

static const char *const dtype_choices[] = {"f32", "f16", "bf16", "int8", NULL};
static const char *const log_choices[] = {"text", "json", NULL};

static const mr_option options[] = {
    MR_OPTION_STRING("bundle", 'b', "DIR", refresh_options, bundle,
                     "whose spaces and encoders to use"),
    MR_OPTION_STRING("store", 's', "URL", refresh_options, store,
                     "where to write: lmdb:PATH or a path, redis://HOST:PORT"),
    MR_OPTION_STRING("brokers", 'k', "HOST:PORT,...", refresh_options, brokers,
                     "Kafka's brokers, or some of them"),
    MR_OPTION_STRING("group", 'g', "NAME", refresh_options, group,
                     "consumer group: its members share the work"),
    MR_OPTION_STRING("instance", 0, "NAME", refresh_options, instance,
                     "static member: keeps its partitions over a quick restart; one per process"),
    MR_OPTION_STRING(
        "items", 0, "TOPIC", refresh_options, items,
        "key: item id; value: JSON {id, title?, text?}, which is encoded here, or {id, "
        "vector | vectors}"),
    MR_OPTION_STRING("item-embeddings", 0, "TOPIC", refresh_options, item_embeddings,
                     "key: item id; value: mixrank.v1.Embedding or a record (MRE1)"),
    MR_OPTION_STRING("user-embeddings", 0, "TOPIC", refresh_options, user_embeddings,
                     "key: user id; value: the same"),
    MR_OPTION_STRING("user-events", 0, "TOPIC", refresh_options, user_events,
                     "key: user id; value: JSON {id, history: [item ids]}, the whole history"),
    MR_OPTION_STRING("dead-letters", 0, "TOPIC", refresh_options, dead_letters,
                     "where messages go that can never be written; default: the topic's name with "
                     ".dlq behind it"),
    MR_OPTION_STRING("from", 0, "WHERE", refresh_options, from,
                     "where to begin when the group has committed nothing (LMDB: when the store "
                     "has no offset): earliest, latest, or a time in UTC, 2026-01-31T12:00:00Z"),
    MR_OPTION_INT("epoch", 0, "N", refresh_options, epoch, 0, 65535,
                  "of the topics: raise it when one is made anew or gets more partitions"),
    MR_OPTION_FLAG("until-end", 0, refresh_options, until_end,
                   "read to where the topics end now, then exit: for backfills"),
    MR_OPTION_REAL("rate", 0, "N", refresh_options, rate, 0, 1e9,
                   "most messages per second; 0: as fast as it goes"),
    MR_OPTION_CHOICE("dtype", 'd', "TYPE", refresh_options, dtype, dtype_choices,
                     "how the store keeps the numbers"),
    MR_OPTION_INT("batch", 0, "N", refresh_options, batch, 1, 65536, "messages of one write"),
    MR_OPTION_INT("linger-ms", 0, "MS", refresh_options, linger_ms, 1, 60000,
                  "a batch waits no longer to be full"),
    MR_OPTION_REAL("map-gb", 0, "GB", refresh_options, map_gb, 0.001, 65536,
                   "most that an LMDB file may grow to"),
    MR_OPTION_FLAG("fast-writes", 0, refresh_options, fast_writes,
                   "LMDB: no fsync per batch; a power cut may cost the store, a kill nothing"),
    MR_OPTION_INT("threads", 't', "N", refresh_options, threads, 0, 256,
                  "threads that encode; 0: the CPUs of this process"),
    MR_OPTION_FLAG("exact", 0, refresh_options, exact,
                   "encode with the scoring kernels: the same bits in any batch, slower"),
    MR_OPTION_LIST("kafka", 0, "NAME=VALUE", refresh_options, kafka,
                   "a further setting of librdkafka, security.protocol=SASL_SSL; may be repeated"),
    MR_OPTION_STRING("metrics-file", 0, "PATH", refresh_options, metrics_file,
                     "written every 5 s in Prometheus' format, for node_exporter's textfile "
                     "collector"),
    MR_OPTION_CHOICE("log", 0, "FORM", refresh_options, log, log_choices,
                     "of the lines on standard error"),
    MR_OPTION_FLAG("json", 0, refresh_options, json, "print the summary as JSON"),
    MR_OPTION_FLAG("quiet", 0, refresh_options, quiet, "no progress line, warnings only"),
    MR_OPTION_END,
};

static const mr_command_help help = {
    "refresh", "--bundle DIR --store URL --brokers HOST:PORT --items TOPIC [options]",
    "Keeps a store fresh from Kafka. An offset moves after the store has answered, and versions "
    "make "
    "a message that comes twice harmless: it may be killed at any time. Start more of them in one "
    "group to share the work. docs/refresh.md has formats, sizing and a runbook.",
    "  mixrank refresh -b bundle -s redis://localhost -k localhost:9092 --items items\n"
    "  mixrank refresh -b bundle -s store -k localhost:9092 --item-embeddings vectors --until-end\n"
    "  mixrank refresh -b bundle -s store -k localhost:9092 --user-events histories --from "
    "latest\n"};

/* ---- options --------------------------------------------------------------------------------- */

/* earliest, latest, or a time. */
static mr_status parse_from(const char *text, mr_refresher_options *out, mr_error *err)
{
    if (strcmp(text, "earliest") == 0) {
        out->start = MR_REFRESH_EARLIEST;
        return MR_OK;
    }
    if (strcmp(text, "latest") == 0) {
        out->start = MR_REFRESH_LATEST;
        return MR_OK;
    }
    struct tm time = {0};
    int end = 0;
    out->start = MR_REFRESH_TIMESTAMP;
    const int read = sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2dZ%n", &time.tm_year, &time.tm_mon,
                            &time.tm_mday, &time.tm_hour, &time.tm_min, &time.tm_sec, &end);
    if (read != 6 || end == 0 || text[end] || time.tm_year < 1970 || time.tm_mon < 1 ||
        time.tm_mon > 12 || time.tm_mday < 1 || time.tm_mday > 31 || time.tm_hour < 0 ||
        time.tm_hour > 23 || time.tm_min < 0 || time.tm_min > 59 || time.tm_sec < 0 ||
        time.tm_sec > 60)
        return MR_FAIL(err, INVALID,
                       "--from is '%s', expected earliest, latest or a time in UTC like "
                       "2026-01-31T12:00:00Z",
                       text);
    time.tm_year -= 1900;
    time.tm_mon -= 1;
    out->start_ms = (int64_t)timegm(&time) * 1000;
    return MR_OK;
}

/* NAME=VALUE into name, value, ..., NULL; cuts the arguments in place. */
static mr_status split_settings(const mr_option_list *list, const char **out, mr_error *err)
{
    for (size_t i = 0; i < list->n; i++) {
        char *equals = strchr((char *)(uintptr_t)list->value[i], '=');
        if (!equals || equals == list->value[i])
            return MR_FAIL(err, INVALID, "--kafka is '%s', expected NAME=VALUE", list->value[i]);
        *equals = '\0';
        out[2 * i] = list->value[i];
        out[2 * i + 1] = equals + 1;
    }
    out[2 * list->n] = NULL;
    return MR_OK;
}

/* ---- what runs beside the refresher ---------------------------------------------------------- */

typedef struct {
    const refresh_options *opt;
    mr_refresher *refresher;
    mr_metrics *metrics;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool ended; /* under lock */
    bool complained;
} monitor;

static void write_metrics(monitor *m)
{
    mr_strbuf text = {0};
    mr_error err = {0};
    if (!m->opt->metrics_file)
        return;
    mr_metrics_write(m->metrics, &text);
    mr_status status = text.failed ? MR_FAIL(&err, NO_MEMORY, "metrics")
                                   : mr_file_write(m->opt->metrics_file, text.data, text.len, &err);
    if (status != MR_OK && !m->complained)
        mr_log(MR_LOG_WARN, "refresh", "metrics file not written", "path", m->opt->metrics_file,
               "reason", err.message, NULL);
    m->complained = status != MR_OK;
    mr_strbuf_release(&text);
}

static void show(monitor *m, mr_progress *bar)
{
    mr_refresher_stats stats;
    char note[128], lag[32] = "?";
    mr_refresher_stat(m->refresher, &stats);
    if (stats.lag >= 0)
        snprintf(lag, sizeof lag, "%" PRId64, stats.lag);
    snprintf(note, sizeof note, "lag %s, %d partitions, %" PRIu64 " dead letters%s", lag,
             stats.partitions, stats.dead_letters, stats.paused ? ", store away" : "");
    mr_progress_update(bar, stats.consumed, note);
}

static void *run_monitor(void *context)
{
    monitor *m = context;
    int64_t written_us = 0;
    mr_progress bar = mr_progress_start("refreshing", 0, "messages");
    pthread_mutex_lock(&m->lock);
    while (!m->ended) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        pthread_cond_timedwait(&m->wake, &m->lock, &until);
        pthread_mutex_unlock(&m->lock);
        show(m, &bar);
        const int64_t now = mr_clock_monotonic_us();
        if (now >= written_us + METRICS_EVERY_US) {
            written_us = now;
            write_metrics(m);
        }
        pthread_mutex_lock(&m->lock);
    }
    pthread_mutex_unlock(&m->lock);
    mr_progress_finish(&bar, NULL);
    write_metrics(m);
    return NULL;
}

static void on_event(void *context, mr_log_level level, const char *event, const char *detail)
{
    (void)context;
    mr_log(level, "refresh", event, "detail", detail, NULL);
}

static mr_refresher *_Atomic running;

static void on_signal(int number)
{
    (void)number;
    mr_refresher *refresher = running;
    if (refresher)
        mr_refresher_stop(refresher);
}

static void catch_signals(mr_refresher *refresher)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    running = refresher;
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

/* ---- the command ----------------------------------------------------------------------------- */

static void print_summary(const refresh_options *opt, const mr_bundle *bundle,
                          const mr_refresher_stats *stats, double seconds)
{
    const bool untrained = mr_bundle_is_untrained(bundle);
    if (opt->json) {
        json_t *root =
            json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "consumed",
                      (json_int_t)stats->consumed, "written", (json_int_t)stats->written, "stale",
                      (json_int_t)stats->stale, "tombstones", (json_int_t)stats->tombstones,
                      "dead_letters", (json_int_t)stats->dead_letters, "batches",
                      (json_int_t)stats->batches, "retries", (json_int_t)stats->store_retries,
                      "rebalances", (json_int_t)stats->rebalances, "seconds", seconds);
        if (root && untrained)
            json_object_set_new(root, "notice", json_string(MR_UNTRAINED_NOTICE));
        mr_command_print_json(root);
        return;
    }
    printf("%" PRIu64 " messages read: %" PRIu64 " records written, %" PRIu64 " stale, %" PRIu64
           " tombstones, %" PRIu64 " dead letters; %.1f s%s\n",
           stats->consumed, stats->written, stats->stale, stats->tombstones, stats->dead_letters,
           seconds, untrained ? "; " MR_UNTRAINED_NOTICE : "");
}

static mr_status run(const refresh_options *opt, const mr_bundle *bundle,
                     const mr_refresher_options *refresher_options, mr_store *store,
                     const mr_refresh_encoder *encoder, mr_error *err)
{
    monitor m = {.opt = opt, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
    const int64_t started = mr_clock_monotonic_us();
    mr_status status = mr_metrics_new(&m.metrics, err);
    if (status == MR_OK)
        status = mr_refresher_new(&m.refresher, refresher_options, store, encoder, m.metrics, err);
    if (status != MR_OK)
        goto out;
    catch_signals(m.refresher);
    const bool watched = pthread_create(&m.thread, NULL, run_monitor, &m) == 0;
    status = mr_refresher_run(m.refresher, err);
    if (status == MR_OK)
        status = mr_store_sync(store, err);
    running = NULL;
    if (watched) {
        pthread_mutex_lock(&m.lock);
        m.ended = true;
        pthread_cond_signal(&m.wake);
        pthread_mutex_unlock(&m.lock);
        pthread_join(m.thread, NULL);
    }
    if (status == MR_OK) {
        mr_refresher_stats stats;
        mr_refresher_stat(m.refresher, &stats);
        print_summary(opt, bundle, &stats, (double)(mr_clock_monotonic_us() - started) / 1e6);
    }
out:
    mr_refresher_free(m.refresher);
    mr_metrics_free(m.metrics);
    return status;
}

static mr_refresher_options refresher_options_of(const refresh_options *opt,
                                                 const mr_bundle *bundle, const char *const *kafka)
{
    return (mr_refresher_options){
        .brokers = opt->brokers,
        .group = opt->group,
        .instance = opt->instance,
        .items = opt->items,
        .item_embeddings = opt->item_embeddings,
        .user_embeddings = opt->user_embeddings,
        .user_events = opt->user_events,
        .dead_letters = opt->dead_letters,
        .item_space = mr_bundle_item_space(bundle),
        .user_space = mr_bundle_user_space(bundle),
        .item_dim = (uint16_t)bundle->item.dim,
        .user_dim = (uint16_t)bundle->user.dim,
        .dtype = (mr_record_dtype)opt->dtype,
        .epoch = (uint16_t)opt->epoch,
        .batch = (size_t)opt->batch,
        .linger_ms = opt->linger_ms,
        .max_rate = opt->rate,
        .stop_at_end = opt->until_end,
        .kafka = kafka,
        .on_event = on_event,
    };
}

static mr_status check_spaces(const refresh_options *opt, const mr_bundle *bundle, mr_error *err)
{
    if (opt->item_embeddings && bundle->item.kind == MR_ENCODER_NONE)
        return MR_FAIL(err, MISMATCH, "bundle '%s' ranks text: it has no item vectors to keep",
                       mr_bundle_name(bundle));
    if (opt->user_embeddings && bundle->user.kind == MR_ENCODER_NONE)
        return MR_FAIL(err, MISMATCH, "bundle '%s' has no users", mr_bundle_name(bundle));
    return MR_OK;
}

int mr_cmd_refresh(int argc, char **argv)
{
    refresh_options opt = {.group = "mixrank-refresh",
                           .from = "earliest",
                           .batch = 256,
                           .linger_ms = 20,
                           .map_gb = 64,
                           .dtype = MR_RECORD_BF16};
    int n_positional = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n_positional, &code))
        return code;
    if (n_positional)
        return mr_command_misuse(help.name, "unexpected argument '%s'", argv[1]);
    const bool topics = opt.items || opt.item_embeddings || opt.user_embeddings || opt.user_events;
    if (!opt.bundle || !opt.store || !opt.brokers || !topics)
        return mr_command_misuse(help.name, "%s is missing",
                                 !opt.bundle    ? "--bundle"
                                 : !opt.store   ? "--store"
                                 : !opt.brokers ? "--brokers"
                                                : "a topic (--items, --item-embeddings, "
                                                  "--user-embeddings or --user-events)");
    mr_error err = {0};
    mr_refresher_options start = {0};
    const char *kafka[2 * MR_OPTION_LIST_MAX + 1];
    if (parse_from(opt.from, &start, &err) != MR_OK ||
        split_settings(&opt.kafka, kafka, &err) != MR_OK)
        return mr_command_misuse(help.name, "%s", err.message);
    mr_progress_set_quiet(opt.quiet);
    mr_log_set_json(opt.log == 1);
    mr_log_set_level(opt.quiet ? MR_LOG_WARN : MR_LOG_INFO);

    mr_bundle *bundle = NULL;
    mr_store *store = NULL;
    mr_refresh_encode encode = {0};
    mr_bundle_options bundle_options = MR_BUNDLE_OPTIONS_DEFAULT;
    bundle_options.threads = (int)opt.threads;
    bundle_options.skip_golden = true; /* they prove the ranking model, which nobody asks here */
    mr_status status = mr_bundle_open(&bundle, opt.bundle, &bundle_options, &err);
    if (status == MR_OK)
        status = check_spaces(&opt, bundle, &err);
    if (status == MR_OK) {
        mr_store_options store_options = MR_STORE_OPTIONS_DEFAULT;
        store_options.max_bytes = (uint64_t)(opt.map_gb * 0x1p30);
        store_options.fast_writes = opt.fast_writes;
        store_options.open_away = !opt.until_end; /* a service may come up before its Redis */
        mr_arena arena = {0};
        status = mr_store_access_password(&store_options, &arena, &err);
        if (status == MR_OK)
            status = mr_store_open(&store, opt.store, &store_options, &err);
        mr_arena_done(&arena);
    }
    const mr_refresh_encode_options encode_options = {opt.items != NULL, opt.user_events != NULL,
                                                      opt.exact, (mr_record_dtype)opt.dtype};
    if (status == MR_OK)
        status = mr_refresh_encode_open(&encode, bundle, store, &encode_options, &err);
    if (status == MR_OK) {
        mr_refresher_options refresher_options = refresher_options_of(&opt, bundle, kafka);
        refresher_options.start = start.start;
        refresher_options.start_ms = start.start_ms;
        const mr_refresh_encoder encoder = {&encode, mr_refresh_encode_rows};
        if (mr_bundle_is_untrained(bundle))
            mr_command_warn_untrained(help.name, !opt.json);
        status = run(&opt, bundle, &refresher_options, store, &encoder, &err);
    }
    if (status != MR_OK)
        code = mr_command_fail(help.name, &err);
    mr_refresh_encode_close(&encode);
    mr_store_close(store);
    mr_bundle_close(bundle);
    return code;
}
