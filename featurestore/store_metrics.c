/* store_metrics.c - see store_metrics.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/store_metrics.h"

#include <stdlib.h>

#define BUCKETS 15 /* of mr_store_health, without its last, which has no bound */

/* What one number of the health becomes. */
typedef enum {
    FETCHES,
    IDS,
    FAILURES,
    RECONNECTS,
    BREAKER,
    CONNECTED,
    TRACKING,
    CACHE_BYTES,
    EVICTIONS,
    INVALIDATIONS,
    FLUSHES,
    FOREIGN,
    SINGLES
} single;

enum { CACHE_HIT, CACHE_STALE, CACHE_NONE, STORE_HIT, STORE_NONE, RESULTS };

struct mr_store_metrics {
    mr_store *store;
    mr_metrics *metrics;
    mr_metric *single[SINGLES];
    mr_metric *records[RESULTS];
    mr_metric *round_trip;
};

#define SINGLE(metric_name, metric_kind, text)                                               \
    {                                                                                        \
        .name = "mixrank_store_" metric_name, .kind = MR_METRIC_##metric_kind, .help = text, \
        .labels = {                                                                          \
            "backend"                                                                        \
        }                                                                                    \
    }
static const mr_metric_info single_info[SINGLES] = {
    [FETCHES] = SINGLE("fetches_total", COUNTER, "Fetches, each of any number of ids."),
    [IDS] = SINGLE("ids_total", COUNTER, "Ids asked for."),
    [FAILURES] =
        SINGLE("failures_total", COUNTER, "Fetches and puts that the server did not answer."),
    [RECONNECTS] = SINGLE("reconnects_total", COUNTER, "Connections that were made again."),
    [BREAKER] =
        SINGLE("breaker_state", GAUGE, "0 closed, 1 half open, 2 open: fetches fail at once."),
    [CONNECTED] = SINGLE("connected", GAUGE, "1 while every server answers."),
    [TRACKING] = SINGLE("tracking", GAUGE, "1 while the server tells of changes to the cache."),
    [CACHE_BYTES] = SINGLE("cache_bytes", GAUGE, "Bytes of records in this process's cache."),
    [EVICTIONS] = SINGLE("evictions_total", COUNTER, "Records that left the cache for others."),
    [INVALIDATIONS] =
        SINGLE("invalidations_total", COUNTER, "Records that left the cache because they changed."),
    [FLUSHES] = SINGLE("flushes_total", COUNTER,
                       "Times the whole cache went because changes may have been missed."),
    [FOREIGN] = SINGLE("foreign_values_total", COUNTER,
                       "Values under our keys that are no records of ours."),
};

static const mr_metric_info records_info = {
    .name = "mixrank_store_records_total",
    .kind = MR_METRIC_COUNTER,
    .help = "Answers to ids by tier (cache, store) and result (hit, stale, none).",
    .labels = {"backend", "tier", "result"}};

static const char *const results[RESULTS][2] = {
    [CACHE_HIT] = {"cache", "hit"},   [CACHE_STALE] = {"cache", "stale"},
    [CACHE_NONE] = {"cache", "none"}, [STORE_HIT] = {"store", "hit"},
    [STORE_NONE] = {"store", "none"},
};

/* 2^i x 16 us. */
static const double bounds[BUCKETS] = {16e-6,    32e-6,    64e-6,    128e-6,    256e-6,
                                       512e-6,   1024e-6,  2048e-6,  4096e-6,   8192e-6,
                                       16384e-6, 32768e-6, 65536e-6, 131072e-6, 262144e-6};
static const mr_metric_info round_trip_info = {.name = "mixrank_store_round_trip_seconds",
                                               .kind = MR_METRIC_HISTOGRAM,
                                               .help = "Time of the server's answers to fetches.",
                                               .labels = {"backend"},
                                               .buckets = bounds,
                                               .n_buckets = BUCKETS};

static void set(mr_metric *metric, uint64_t value)
{
    mr_metric_set(metric, (double)value);
}

static void collect(void *context)
{
    const mr_store_metrics *m = context;
    mr_store_health health;
    mr_store_health_of(m->store, &health);
    set(m->single[FETCHES], health.fetches);
    set(m->single[IDS], health.ids);
    set(m->single[FAILURES], health.failures);
    set(m->single[RECONNECTS], health.reconnects);
    mr_metric_set(m->single[BREAKER], health.breaker);
    mr_metric_set(m->single[CONNECTED], health.connected);
    mr_metric_set(m->single[TRACKING], health.tracking);
    set(m->single[CACHE_BYTES], health.cache_bytes);
    set(m->single[EVICTIONS], health.evictions);
    set(m->single[INVALIDATIONS], health.invalidations);
    set(m->single[FLUSHES], health.flushes);
    set(m->single[FOREIGN], health.foreign_values);
    /* Read one after the other while others count: the part may be ahead of the whole. */
    set(m->records[CACHE_HIT],
        health.hits_cache > health.hits_stale ? health.hits_cache - health.hits_stale : 0);
    set(m->records[CACHE_STALE], health.hits_stale);
    set(m->records[CACHE_NONE], health.negative_hits);
    set(m->records[STORE_HIT], health.hits_store);
    set(m->records[STORE_NONE], health.misses);
    mr_metric_set_histogram(m->round_trip, health.fetch_us_buckets, (double)health.fetch_us / 1e6);
}

mr_status mr_store_metrics_new(mr_store_metrics **out, mr_store *store, mr_metrics *metrics,
                               mr_error *err)
{
    mr_store_metrics *m = calloc(1, sizeof *m);
    if (!m)
        return MR_FAIL(err, NO_MEMORY, "no memory for the metrics of a store");
    m->store = store;
    m->metrics = metrics;
    const char *backend = mr_store_backend(store);
    for (size_t i = 0; i < SINGLES; i++)
        m->single[i] = mr_metrics_get(metrics, &single_info[i], (const char *const[]){backend});
    for (size_t i = 0; i < RESULTS; i++)
        m->records[i] = mr_metrics_get(
            metrics, &records_info, (const char *const[]){backend, results[i][0], results[i][1]});
    m->round_trip = mr_metrics_get(metrics, &round_trip_info, (const char *const[]){backend});
    mr_status status = mr_metrics_add_collector(metrics, collect, m, err);
    if (status != MR_OK) {
        free(m);
        return status;
    }
    *out = m;
    return MR_OK;
}

void mr_store_metrics_free(mr_store_metrics *m)
{
    if (!m)
        return;
    mr_metrics_remove_collector(m->metrics, collect, m);
    free(m);
}
