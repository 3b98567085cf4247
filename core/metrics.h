/* metrics.h - counters, gauges and histograms with labels, written in Prometheus' text format.
 *
 *     static const mr_metric_info info = {"mixrank_refresh_messages_total", MR_METRIC_COUNTER,
 *                                         "Messages handled, by topic and outcome.",
 *                                         {"topic", "outcome"}, NULL, 0};
 *     mr_metric *written = mr_metrics_get(metrics, &info, (const char *[]){"items", "written"});
 *     mr_metric_add(written, 1);
 *
 * A registry belongs to a program (no globals): whoever runs a part hands it the registry, and NULL
 * everywhere means "do not count", so that libraries need no ifs. Names follow Prometheus' rules
 * (prefix mixrank_, base units: seconds, bytes; counters end in _total). Series of one name share
 * its info, which is borrowed for the registry's life (static storage). Label values are copied and
 * escaped when written; a family takes at most MR_METRICS_MAX_SERIES series: what comes beyond
 * counts under the label values "other", so that no peer can fill memory with new labels. A value
 * is cut at MR_METRICS_MAX_LABEL_BYTES, and its broken bytes are written as U+FFFD.
 *
 * Format: prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4.
 * Threads: any; adding takes no lock. Collectors (values that live elsewhere) run during a write,
 * one at a time; they may look up series and set them, and call nothing else of their registry.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_METRICS_H
#define MR_CORE_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/strbuf.h"

#define MR_METRICS_MAX_LABELS      4
#define MR_METRICS_MAX_SERIES      256 /* "other" included */
#define MR_METRICS_MAX_LABEL_BYTES 200

typedef struct mr_metrics mr_metrics; /* a registry */
typedef struct mr_metric mr_metric;   /* one series, owned by its registry */

typedef enum { MR_METRIC_COUNTER, MR_METRIC_GAUGE, MR_METRIC_HISTOGRAM } mr_metric_kind;

typedef struct {
    const char *name;
    mr_metric_kind kind;
    const char *help;
    const char *labels[MR_METRICS_MAX_LABELS]; /* names; NULL ends */
    const double *buckets; /* histogram: upper bounds, ascending, without +Inf */
    size_t n_buckets;
} mr_metric_info;

mr_status mr_metrics_new(mr_metrics **out, mr_error *err);
void mr_metrics_free(mr_metrics *metrics); /* NULL is fine */

/* The series with these label values (one per label of info; NULL when it has none), made at first
 * use. NULL for a NULL registry, when memory is out, for an info that Prometheus would refuse (its
 * name, a label's name, buckets that do not ascend), and for one that does not agree with the info
 * which its name has already: all of the below accept it. */
mr_metric *mr_metrics_get(mr_metrics *metrics, const mr_metric_info *info,
                          const char *const *label_values);

/* What does not suit the series does nothing: less than 0 added to a counter, NaN observed. */
void mr_metric_add(mr_metric *metric, double amount);    /* counter (>= 0) or gauge */
void mr_metric_set(mr_metric *metric, double value);     /* gauge, or a counter kept elsewhere */
void mr_metric_observe(mr_metric *metric, double value); /* histogram */
double mr_metric_value(const mr_metric *metric);         /* histogram: the sum; 0 for NULL */
/* Takes a histogram over whole from where it is kept: counts per bucket [n_buckets + 1], sum. */
void mr_metric_set_histogram(mr_metric *metric, const uint64_t *counts, double sum);

/* Called before each write, to set what is kept elsewhere. */
typedef void (*mr_metrics_collector)(void *context);
mr_status mr_metrics_add_collector(mr_metrics *metrics, mr_metrics_collector collect, void *context,
                                   mr_error *err);
/* Before what context points to goes away; waits for a write under way. */
void mr_metrics_remove_collector(mr_metrics *metrics, mr_metrics_collector collect, void *context);

/* Appends all families in the order of their names. out->failed when memory is out. */
void mr_metrics_write(mr_metrics *metrics, mr_strbuf *out);

#endif
