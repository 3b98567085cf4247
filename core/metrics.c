/* metrics.c - see metrics.h.
 *
 * Families and their series are sorted lists that only grow, so that whoever holds a series keeps
 * it. A registry has two locks: one for the lists (readers share it, a new series takes it alone),
 * and one for collectors, which also keeps two writes apart. A collector runs under the second
 * alone and may therefore look up series.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/utf8.h"

#define OTHER "other"

/* A double that threads add to: its bits, exchanged until nobody came between. */
typedef struct {
    _Atomic uint64_t bits;
} shared_real;

typedef struct family family;

struct mr_metric {
    family *family;
    mr_metric *next; /* by label values */
    char *label[MR_METRICS_MAX_LABELS];
    shared_real value;         /* histogram: the sum */
    _Atomic uint64_t counts[]; /* histogram: [n_buckets + 1], each bucket's own */
};

struct family {
    const mr_metric_info *info;
    family *next; /* by name */
    mr_metric *series;
    mr_metric *other; /* one of series, once there was no room for more */
    size_t n_series;
};

typedef struct collector collector;
struct collector {
    mr_metrics_collector collect;
    void *context;
    collector *next;
};

struct mr_metrics {
    pthread_rwlock_t lists;
    pthread_mutex_t writing; /* taken before lists */
    family *families;
    collector *collectors; /* in the order in which they came */
};

/* ---- numbers --------------------------------------------------------------------------------- */

static double real_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void real_add(shared_real *real, double amount)
{
    uint64_t old = atomic_load_explicit(&real->bits, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&real->bits, &old, bits_of(real_of(old) + amount),
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

static void real_set(shared_real *real, double value)
{
    atomic_store_explicit(&real->bits, bits_of(value), memory_order_relaxed);
}

static double real_get(const shared_real *real)
{
    return real_of(atomic_load_explicit(&real->bits, memory_order_relaxed));
}

/* ---- registry -------------------------------------------------------------------------------- */

mr_status mr_metrics_new(mr_metrics **out, mr_error *err)
{
    mr_metrics *metrics = calloc(1, sizeof *metrics);
    if (!metrics)
        return MR_FAIL(err, NO_MEMORY, "no memory for a registry of metrics");
    pthread_rwlock_init(&metrics->lists, NULL);
    pthread_mutex_init(&metrics->writing, NULL);
    *out = metrics;
    return MR_OK;
}

void mr_metrics_free(mr_metrics *metrics)
{
    if (!metrics)
        return;
    while (metrics->families) {
        family *next = metrics->families->next;
        for (mr_metric *series = metrics->families->series; series;) {
            mr_metric *following = series->next;
            free(series);
            series = following;
        }
        free(metrics->families);
        metrics->families = next;
    }
    while (metrics->collectors) {
        collector *next = metrics->collectors->next;
        free(metrics->collectors);
        metrics->collectors = next;
    }
    pthread_mutex_destroy(&metrics->writing);
    pthread_rwlock_destroy(&metrics->lists);
    free(metrics);
}

/* ---- series ---------------------------------------------------------------------------------- */

static bool is_name(const char *name)
{
    if (!name || !*name)
        return false;
    for (const char *c = name; *c; c++) {
        const bool letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || *c == '_';
        if (!letter && (c == name || *c < '0' || *c > '9'))
            return false;
    }
    return true;
}

static size_t label_count(const mr_metric_info *info)
{
    size_t n = 0;
    while (n < MR_METRICS_MAX_LABELS && info->labels[n])
        n++;
    return n;
}

/* One family with a wrong name would make a scraper refuse the whole page. */
static bool is_writable(const mr_metric_info *info)
{
    if (!is_name(info->name) || !info->help || (unsigned)info->kind > MR_METRIC_HISTOGRAM)
        return false;
    const size_t n = label_count(info);
    for (size_t i = 0; i < n; i++) {
        if (!is_name(info->labels[i]) || strncmp(info->labels[i], "__", 2) == 0 ||
            strcmp(info->labels[i], "le") == 0)
            return false;
        for (size_t j = 0; j < i; j++)
            if (strcmp(info->labels[i], info->labels[j]) == 0)
                return false;
    }
    if (info->kind != MR_METRIC_HISTOGRAM)
        return true;
    for (size_t i = 0; i < info->n_buckets; i++)
        if (!isfinite(info->buckets[i]) || (i && info->buckets[i] <= info->buckets[i - 1]))
            return false;
    return true;
}

/* Two copies of one description are the same family; another one of its name is a mistake. */
static bool is_same(const mr_metric_info *a, const mr_metric_info *b)
{
    if (a == b)
        return true;
    const size_t n = label_count(a);
    if (a->kind != b->kind || n != label_count(b))
        return false;
    for (size_t i = 0; i < n; i++)
        if (strcmp(a->labels[i], b->labels[i]) != 0)
            return false;
    if (a->kind != MR_METRIC_HISTOGRAM)
        return true;
    if (a->n_buckets != b->n_buckets)
        return false;
    for (size_t i = 0; i < a->n_buckets; i++)
        if (a->buckets[i] < b->buckets[i] || a->buckets[i] > b->buckets[i])
            return false;
    return true;
}

/* Below 0: the series comes before one with these values; 0: it is the one. */
static int compare_labels(const mr_metric *series, const mr_str *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const size_t len = strlen(series->label[i]);
        const size_t common = len < values[i].len ? len : values[i].len;
        const int order = common ? memcmp(series->label[i], values[i].data, common) : 0;
        if (order != 0)
            return order;
        if (len != values[i].len)
            return len < values[i].len ? -1 : 1;
    }
    return 0;
}

/* The place of the series: **place is it, or what comes behind it. */
static mr_metric **series_place(family *of, const mr_str *values, size_t n, bool *found)
{
    mr_metric **place = &of->series;
    *found = false;
    while (*place) {
        const int order = compare_labels(*place, values, n);
        *found = order == 0;
        if (order >= 0)
            break;
        place = &(*place)->next;
    }
    return place;
}

/* As series_place; whether it is there says is_named. */
static family **family_place(mr_metrics *metrics, const char *name)
{
    family **place = &metrics->families;
    while (*place && strcmp((*place)->info->name, name) < 0)
        place = &(*place)->next;
    return place;
}

static bool is_named(const family *of, const char *name)
{
    return of && strcmp(of->info->name, name) == 0;
}

static mr_metric *series_new(family *of, mr_metric **place, const mr_str *values, size_t n)
{
    const size_t n_counts = of->info->kind == MR_METRIC_HISTOGRAM ? of->info->n_buckets + 1 : 0;
    size_t bytes = sizeof(mr_metric) + n_counts * sizeof(_Atomic uint64_t);
    const size_t texts = bytes;
    for (size_t i = 0; i < n; i++)
        bytes += values[i].len + 1;
    mr_metric *series = calloc(1, bytes);
    if (!series)
        return NULL;
    char *text = (char *)series + texts;
    for (size_t i = 0; i < n; i++) {
        series->label[i] = text;
        if (values[i].len)
            memcpy(text, values[i].data, values[i].len);
        text += values[i].len + 1;
    }
    series->family = of;
    series->next = *place;
    *place = series;
    of->n_series++;
    return series;
}

/* The last place of a family is kept for "other". */
static mr_metric *series_add(family *of, const mr_str *values, size_t n)
{
    bool found;
    mr_metric **place = series_place(of, values, n, &found);
    if (found)
        return *place;
    if (n == 0 || of->n_series + 1 < MR_METRICS_MAX_SERIES)
        return series_new(of, place, values, n);
    if (!of->other) {
        mr_str other[MR_METRICS_MAX_LABELS];
        for (size_t i = 0; i < n; i++)
            other[i] = mr_str_of(OTHER);
        place = series_place(of, other, n, &found);
        of->other = found ? *place : series_new(of, place, other, n);
    }
    return of->other;
}

static family *family_add(mr_metrics *metrics, const mr_metric_info *info)
{
    family **place = family_place(metrics, info->name);
    if (is_named(*place, info->name))
        return is_same((*place)->info, info) ? *place : NULL;
    if (!is_writable(info))
        return NULL;
    family *added = calloc(1, sizeof *added);
    if (!added)
        return NULL;
    added->info = info;
    added->next = *place;
    *place = added;
    return added;
}

/* At most MR_METRICS_MAX_LABEL_BYTES, and no character in part. */
static mr_str label_value(const char *value)
{
    mr_str text = {value ? value : "", 0};
    while (text.len < MR_METRICS_MAX_LABEL_BYTES && text.data[text.len])
        text.len++;
    if (text.data[text.len]) {
        size_t back = 0;
        while (back < 3 && back < text.len &&
               ((unsigned char)text.data[text.len - back] & 0xc0u) == 0x80u)
            back++;
        text.len -= back;
    }
    return text;
}

mr_metric *mr_metrics_get(mr_metrics *metrics, const mr_metric_info *info,
                          const char *const *label_values)
{
    if (!metrics || !info || !info->name)
        return NULL;
    const size_t n = label_count(info);
    mr_str values[MR_METRICS_MAX_LABELS];
    for (size_t i = 0; i < n; i++)
        values[i] = label_value(label_values ? label_values[i] : NULL);

    mr_metric *out = NULL;
    pthread_rwlock_rdlock(&metrics->lists);
    family *of = *family_place(metrics, info->name);
    if (is_named(of, info->name) && is_same(of->info, info)) {
        bool found;
        mr_metric **place = series_place(of, values, n, &found);
        out = found ? *place : of->other;
    }
    pthread_rwlock_unlock(&metrics->lists);
    if (out)
        return out;

    pthread_rwlock_wrlock(&metrics->lists);
    of = family_add(metrics, info);
    if (of)
        out = series_add(of, values, n);
    pthread_rwlock_unlock(&metrics->lists);
    return out;
}

/* ---- counting -------------------------------------------------------------------------------- */

void mr_metric_add(mr_metric *metric, double amount)
{
    if (!metric || metric->family->info->kind == MR_METRIC_HISTOGRAM)
        return;
    if (metric->family->info->kind == MR_METRIC_COUNTER && !(amount >= 0))
        return;
    real_add(&metric->value, amount);
}

void mr_metric_set(mr_metric *metric, double value)
{
    if (metric && metric->family->info->kind != MR_METRIC_HISTOGRAM)
        real_set(&metric->value, value);
}

void mr_metric_observe(mr_metric *metric, double value)
{
    if (!metric || metric->family->info->kind != MR_METRIC_HISTOGRAM || isnan(value))
        return;
    const mr_metric_info *info = metric->family->info;
    size_t bucket = 0;
    while (bucket < info->n_buckets && value > info->buckets[bucket])
        bucket++;
    atomic_fetch_add_explicit(&metric->counts[bucket], 1, memory_order_relaxed);
    real_add(&metric->value, value);
}

double mr_metric_value(const mr_metric *metric)
{
    return metric ? real_get(&metric->value) : 0;
}

void mr_metric_set_histogram(mr_metric *metric, const uint64_t *counts, double sum)
{
    if (!metric || metric->family->info->kind != MR_METRIC_HISTOGRAM)
        return;
    for (size_t i = 0; i <= metric->family->info->n_buckets; i++)
        atomic_store_explicit(&metric->counts[i], counts[i], memory_order_relaxed);
    real_set(&metric->value, sum);
}

/* ---- collectors ------------------------------------------------------------------------------ */

mr_status mr_metrics_add_collector(mr_metrics *metrics, mr_metrics_collector collect, void *context,
                                   mr_error *err)
{
    if (!metrics)
        return MR_OK;
    collector *added = calloc(1, sizeof *added);
    if (!added)
        return MR_FAIL(err, NO_MEMORY, "no memory for a collector of metrics");
    *added = (collector){collect, context, NULL};
    pthread_mutex_lock(&metrics->writing);
    collector **place = &metrics->collectors;
    while (*place)
        place = &(*place)->next;
    *place = added;
    pthread_mutex_unlock(&metrics->writing);
    return MR_OK;
}

void mr_metrics_remove_collector(mr_metrics *metrics, mr_metrics_collector collect, void *context)
{
    if (!metrics)
        return;
    pthread_mutex_lock(&metrics->writing);
    for (collector **place = &metrics->collectors; *place; place = &(*place)->next) {
        collector *here = *place;
        if (here->collect == collect && here->context == context) {
            *place = here->next;
            free(here);
            break;
        }
    }
    pthread_mutex_unlock(&metrics->writing);
}

/* ---- text ------------------------------------------------------------------------------------ */

/* The shortest of the usual forms that reads back as the same number, whatever the locale. */
static void put_number(mr_strbuf *out, double value)
{
    char text[40];
    if (isnan(value)) {
        mr_strbuf_puts(out, "NaN");
        return;
    }
    if (isinf(value)) {
        mr_strbuf_puts(out, value > 0 ? "+Inf" : "-Inf");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (bits_of(strtod(text, NULL)) == bits_of(value))
            break;
    }
    /* A locale's decimal point may take several bytes. */
    bool in_point = false;
    for (const char *c = text; *c; c++) {
        const bool plain = strchr("0123456789+-e", *c) != NULL;
        if (plain)
            mr_strbuf_append(out, c, 1);
        else if (!in_point)
            mr_strbuf_puts(out, ".");
        in_point = !plain;
    }
}

/* Help: backslash and line feed; a label's value: quotes too. The format is UTF-8. */
static void put_escaped(mr_strbuf *out, const char *text, bool quotes)
{
    const size_t len = strlen(text);
    for (size_t i = 0; i < len;) {
        uint32_t code;
        const size_t n = mr_utf8_decode(text + i, len - i, &code);
        if (n == 0)
            mr_strbuf_puts(out, "\xEF\xBF\xBD");
        else if (text[i] == '\\')
            mr_strbuf_puts(out, "\\\\");
        else if (text[i] == '\n')
            mr_strbuf_puts(out, "\\n");
        else if (text[i] == '"' && quotes)
            mr_strbuf_puts(out, "\\\"");
        else
            mr_strbuf_append(out, text + i, n);
        i += n ? n : 1;
    }
}

/* `name_suffix{labels,le="bound"} `, and the value is to follow. bound may be NULL. */
static void put_series(mr_strbuf *out, const mr_metric *series, const char *suffix,
                       const double *bound)
{
    const mr_metric_info *info = series->family->info;
    const size_t n = label_count(info);
    mr_strbuf_puts(out, info->name);
    mr_strbuf_puts(out, suffix);
    if (n || bound)
        mr_strbuf_puts(out, "{");
    for (size_t i = 0; i < n; i++) {
        mr_strbuf_printf(out, "%s%s=\"", i ? "," : "", info->labels[i]);
        put_escaped(out, series->label[i], true);
        mr_strbuf_puts(out, "\"");
    }
    if (bound) {
        mr_strbuf_puts(out, n ? ",le=\"" : "le=\"");
        put_number(out, *bound);
        mr_strbuf_puts(out, "\"");
    }
    mr_strbuf_puts(out, n || bound ? "} " : " ");
}

static void put_histogram(mr_strbuf *out, const mr_metric *series)
{
    const mr_metric_info *info = series->family->info;
    const double infinite = (double)INFINITY;
    uint64_t total = 0;
    for (size_t i = 0; i <= info->n_buckets; i++) {
        total += atomic_load_explicit(&series->counts[i], memory_order_relaxed);
        put_series(out, series, "_bucket", i < info->n_buckets ? &info->buckets[i] : &infinite);
        mr_strbuf_printf(out, "%llu\n", (unsigned long long)total);
    }
    put_series(out, series, "_sum", NULL);
    put_number(out, real_get(&series->value));
    mr_strbuf_puts(out, "\n");
    put_series(out, series, "_count", NULL);
    mr_strbuf_printf(out, "%llu\n", (unsigned long long)total);
}

void mr_metrics_write(mr_metrics *metrics, mr_strbuf *out)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    if (!metrics)
        return;
    pthread_mutex_lock(&metrics->writing);
    for (const collector *c = metrics->collectors; c; c = c->next)
        c->collect(c->context);
    pthread_rwlock_rdlock(&metrics->lists);
    for (const family *of = metrics->families; of; of = of->next) {
        if (!of->series)
            continue; /* memory was out for its first */
        mr_strbuf_printf(out, "# HELP %s ", of->info->name);
        put_escaped(out, of->info->help, false);
        mr_strbuf_printf(out, "\n# TYPE %s %s\n", of->info->name, kinds[of->info->kind]);
        for (const mr_metric *series = of->series; series; series = series->next) {
            if (of->info->kind == MR_METRIC_HISTOGRAM) {
                put_histogram(out, series);
                continue;
            }
            put_series(out, series, "", NULL);
            put_number(out, real_get(&series->value));
            mr_strbuf_puts(out, "\n");
        }
    }
    pthread_rwlock_unlock(&metrics->lists);
    pthread_mutex_unlock(&metrics->writing);
}
