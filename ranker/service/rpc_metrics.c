/* rpc_metrics.c - the transport's families in the registry.
 *
 * Connections, bytes and resets are counted in atomics beside the server and copied over when the
 * registry is read; calls are written as they end.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "ranker/service/rpc_private.h"

static const double seconds_buckets[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                         0.1,    0.25,  0.5,    1,     2.5,  5,     10};

static const mr_metric_info calls_info = {.name = "mixrank_rpc_calls_total",
                                          .kind = MR_METRIC_COUNTER,
                                          .help = "Calls that ended, by method and status code.",
                                          .labels = {"method", "code"}};
static const mr_metric_info seconds_info = {.name = "mixrank_rpc_call_seconds",
                                            .kind = MR_METRIC_HISTOGRAM,
                                            .help = "From a call's headers to its last byte sent.",
                                            .labels = {"method"},
                                            .buckets = seconds_buckets,
                                            .n_buckets =
                                                sizeof seconds_buckets / sizeof *seconds_buckets};

/* clang-format off */
#define ROW(metric, type, text) {.name = "mixrank_rpc_" metric, .kind = type, .help = text}
#define GAUGE(metric, text)   ROW(metric, MR_METRIC_GAUGE, text)
#define COUNTER(metric, text) ROW(metric, MR_METRIC_COUNTER, text)
static const mr_metric_info counter_info[MR_RPC_COUNTERS] = {
    [MR_RPC_N_CONNECTIONS] = GAUGE("connections", "Open connections."),
    [MR_RPC_N_CALLS] = GAUGE("calls", "Calls in the server, with cancelled ones that compute."),
    [MR_RPC_N_ACCEPTED] = COUNTER("connections_total", "Connections accepted."),
    [MR_RPC_N_REFUSED] = COUNTER("connections_refused_total",
                                 "Connections closed at once: as many as allowed were open."),
    [MR_RPC_N_ACCEPT_ERRORS] = COUNTER("accept_errors_total",
                                       "Failures to accept, such as too few file descriptors."),
    [MR_RPC_N_RESETS_RECEIVED] = COUNTER("resets_received_total", "Streams that clients reset."),
    [MR_RPC_N_RESETS_SENT] = COUNTER("resets_sent_total", "Streams that the server reset."),
    [MR_RPC_N_DROPPED] = COUNTER("connections_dropped_total",
                                 "Connections that broke the protocol, a limit or a time limit."),
    [MR_RPC_N_RECEIVED] = COUNTER("received_bytes_total", "Bytes received, without TLS's own."),
    [MR_RPC_N_SENT] = COUNTER("sent_bytes_total", "Bytes sent, without TLS's own."),
    [MR_RPC_N_FINISHED] = COUNTER("finished_total", "Calls that ended, whatever their method."),
};
static const mr_metric_info buffered_info =
    GAUGE("buffered_bytes", "Memory of requests and of replies not yet sent.");
/* clang-format on */

typedef struct {
    mr_metric *code[MR_RPC_CODE_COUNT];
    mr_metric *seconds;
} method_series;

struct mr_rpc_instruments {
    mr_metrics *metrics;
    mr_metric *counter[MR_RPC_COUNTERS];
    mr_metric *buffered;
    const mr_rpc_method *methods; /* borrowed */
    size_t n_methods;
    method_series series[]; /* [n_methods + 1]: the last for paths that are none */
};

/* All series at the start: a scrape then shows zeros, from which rates can be taken. */
static void open_series(mr_metrics *metrics, const char *path, method_series *series)
{
    for (int code = 0; code < MR_RPC_CODE_COUNT; code++) {
        const char *const values[] = {path, mr_rpc_code_name((mr_rpc_code)code)};
        if (code == MR_RPC_OK || code == MR_RPC_CANCELLED || code == MR_RPC_DEADLINE_EXCEEDED)
            series->code[code] = mr_metrics_get(metrics, &calls_info, values);
    }
    series->seconds = mr_metrics_get(metrics, &seconds_info, (const char *const[]){path});
}

mr_rpc_instruments *mr_rpc_instruments_new(mr_metrics *metrics, const mr_rpc_method *methods,
                                           size_t n_methods)
{
    if (!metrics)
        return NULL;
    mr_rpc_instruments *all = calloc(1, sizeof *all + (n_methods + 1) * sizeof *all->series);
    if (!all)
        return NULL;
    all->metrics = metrics;
    all->methods = methods;
    all->n_methods = n_methods;
    for (size_t i = 0; i < MR_RPC_COUNTERS; i++)
        all->counter[i] = mr_metrics_get(metrics, &counter_info[i], NULL);
    all->buffered = mr_metrics_get(metrics, &buffered_info, NULL);
    for (size_t i = 0; i < n_methods; i++)
        open_series(metrics, methods[i].path, &all->series[i]);
    return all;
}

void mr_rpc_instruments_free(mr_rpc_instruments *instruments)
{
    free(instruments);
}

void mr_rpc_instruments_call(mr_rpc_shared *shared, const mr_rpc_method *method, mr_rpc_code code,
                             double seconds)
{
    mr_rpc_count(shared, MR_RPC_N_FINISHED, 1);
    mr_rpc_instruments *all = shared->instruments;
    if (!all || (unsigned)code >= MR_RPC_CODE_COUNT)
        return;
    const size_t i = method ? (size_t)(method - all->methods) : all->n_methods;
    mr_metric *known = all->series[i].code[code];
    if (!known) { /* not kept: loops share the table, and errors may take a look-up */
        const char *const values[] = {method ? method->path : "unknown", mr_rpc_code_name(code)};
        known = mr_metrics_get(all->metrics, &calls_info, values);
    }
    mr_metric_add(known, 1);
    mr_metric_observe(all->series[i].seconds, seconds);
}

static void publish(void *context)
{
    const mr_rpc_shared *shared = context;
    const mr_rpc_instruments *all = shared->instruments;
    for (size_t i = 0; i < MR_RPC_COUNTERS; i++)
        mr_metric_set(all->counter[i], (double)mr_rpc_counted(shared, (mr_rpc_counter)i));
    mr_metric_set(all->buffered,
                  (double)atomic_load_explicit(&shared->budget.used, memory_order_relaxed));
}

mr_status mr_rpc_instruments_attach(mr_rpc_shared *shared, mr_error *err)
{
    if (!shared->instruments)
        return MR_OK;
    return mr_metrics_add_collector(shared->instruments->metrics, publish, shared, err);
}

void mr_rpc_instruments_detach(mr_rpc_shared *shared)
{
    if (shared->instruments)
        mr_metrics_remove_collector(shared->instruments->metrics, publish, shared);
}
