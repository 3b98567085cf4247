/* test_metrics_registry.c - the registry of metrics and what it writes for Prometheus.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/metrics.h"
#include "tests/alloc_failure.h"
#include "tests/support.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const double bounds[] = {0.5, 1, 2.5};
static const mr_metric_info plain = {
    .name = "mixrank_test_total", .kind = MR_METRIC_COUNTER, .help = "Things counted."};
static const mr_metric_info labelled = {.name = "mixrank_test_by_kind_total",
                                        .kind = MR_METRIC_COUNTER,
                                        .help = "By kind.",
                                        .labels = {"kind"}};
static const mr_metric_info gauge = {
    .name = "mixrank_test_level", .kind = MR_METRIC_GAUGE, .help = "A level."};
static const mr_metric_info histogram = {.name = "mixrank_test_seconds",
                                         .kind = MR_METRIC_HISTOGRAM,
                                         .help = "Times.",
                                         .labels = {"what"},
                                         .buckets = bounds,
                                         .n_buckets = 3};

static int setup(void **state)
{
    mr_metrics *metrics = NULL;
    assert_status(mr_metrics_new(&metrics, NULL), MR_OK, NULL);
    *state = metrics;
    return 0;
}

static int teardown(void **state)
{
    mr_metrics_free(*state);
    return 0;
}

static mr_metric *get(mr_metrics *metrics, const mr_metric_info *info, const char *label)
{
    return mr_metrics_get(metrics, info, label ? (const char *const[]){label} : NULL);
}

static void assert_writes(mr_metrics *metrics, const char *expected)
{
    mr_strbuf out = {0};
    mr_metrics_write(metrics, &out);
    assert_false(out.failed);
    assert_string_equal(out.data ? out.data : "", expected);
    mr_strbuf_release(&out);
}

static void assert_has_line(mr_metrics *metrics, const char *line, bool has)
{
    mr_strbuf out = {0};
    char whole[600];
    mr_metrics_write(metrics, &out);
    snprintf(whole, sizeof whole, "\n%s\n", line);
    if ((strstr(out.data ? out.data : "", whole) != NULL) != has)
        fail_msg("expected %sthe line\n%s\nin\n%s", has ? "" : "not ", line, out.data);
    mr_strbuf_release(&out);
}

static void an_empty_registry_writes_nothing(void **state)
{
    assert_writes(*state, "");
}

static void families_come_by_name_and_series_by_labels(void **state)
{
    mr_metric_add(get(*state, &labelled, "b"), 2);
    mr_metric_add(get(*state, &plain, NULL), 3);
    mr_metric_set(get(*state, &gauge, NULL), -1.5);
    mr_metric_add(get(*state, &labelled, "a"), 1);
    mr_metric_add(get(*state, &labelled, "b"), 0.25);
    assert_writes(*state, "# HELP mixrank_test_by_kind_total By kind.\n"
                          "# TYPE mixrank_test_by_kind_total counter\n"
                          "mixrank_test_by_kind_total{kind=\"a\"} 1\n"
                          "mixrank_test_by_kind_total{kind=\"b\"} 2.25\n"
                          "# HELP mixrank_test_level A level.\n"
                          "# TYPE mixrank_test_level gauge\n"
                          "mixrank_test_level -1.5\n"
                          "# HELP mixrank_test_total Things counted.\n"
                          "# TYPE mixrank_test_total counter\n"
                          "mixrank_test_total 3\n");
}

static void a_histogram_is_cumulative_and_ends_in_infinity(void **state)
{
    mr_metric *metric = get(*state, &histogram, "x");
    static const double seen[] = {0.25, 0.5, 0.75, 2.5, 3, 100};
    for (size_t i = 0; i < COUNT(seen); i++)
        mr_metric_observe(metric, seen[i]);
    mr_metric_observe(metric, (double)NAN);
    mr_metric_add(metric, 7); /* no counter */
    mr_metric_set(metric, 7);
    const char *expected = "# HELP mixrank_test_seconds Times.\n"
                           "# TYPE mixrank_test_seconds histogram\n"
                           "mixrank_test_seconds_bucket{what=\"x\",le=\"0.5\"} 2\n"
                           "mixrank_test_seconds_bucket{what=\"x\",le=\"1\"} 3\n"
                           "mixrank_test_seconds_bucket{what=\"x\",le=\"2.5\"} 4\n"
                           "mixrank_test_seconds_bucket{what=\"x\",le=\"+Inf\"} 6\n"
                           "mixrank_test_seconds_sum{what=\"x\"} 107\n"
                           "mixrank_test_seconds_count{what=\"x\"} 6\n";
    assert_writes(*state, expected);
    assert_true(mr_metric_value(metric) == 107);
    mr_metric_set_histogram(metric, (const uint64_t[]){2, 1, 1, 2}, 107);
    assert_writes(*state, expected);
    mr_metric_set_histogram(metric, (const uint64_t[]){0, 0, 5, 0}, 1e300);
    assert_has_line(*state, "mixrank_test_seconds_bucket{what=\"x\",le=\"1\"} 0", true);
    assert_has_line(*state, "mixrank_test_seconds_count{what=\"x\"} 5", true);
    assert_has_line(*state, "mixrank_test_seconds_sum{what=\"x\"} 1e+300", true);
}

static void numbers_read_back_as_they_were(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        {0, "0"},
        {0.1, "0.1"},
        {1.0 / 3, "0.3333333333333333"},
        {0.1 + 0.2, "0.30000000000000004"},
        {123456789012345, "123456789012345"},
        {1e-320, "9.99988867182683e-321"},
        {-1e22, "-1e+22"},
        {(double)INFINITY, "+Inf"},
        {-(double)INFINITY, "-Inf"},
        {(double)NAN, "NaN"},
    };
    mr_metric *metric = get(*state, &gauge, NULL);
    for (size_t i = 0; i < COUNT(cases); i++) {
        char line[100];
        mr_metric_set(metric, cases[i].value);
        snprintf(line, sizeof line, "mixrank_test_level %s", cases[i].text);
        assert_has_line(*state, line, true);
    }
}

static void what_labels_hold_cannot_break_the_page(void **state)
{
    static const struct {
        const char *label, *line;
    } cases[] = {
        {"a\"} 1\nforged{x=\"", "mixrank_test_by_kind_total{kind=\"a\\\"} 1\\nforged{x=\\\"\"} 1"},
        {"back\\slash", "mixrank_test_by_kind_total{kind=\"back\\\\slash\"} 1"},
        {"caf\xC3\xA9", "mixrank_test_by_kind_total{kind=\"caf\xC3\xA9\"} 1"},
        {"bro\xC3ken", "mixrank_test_by_kind_total{kind=\"bro\xEF\xBF\xBDken\"} 1"},
        {"", "mixrank_test_by_kind_total{kind=\"\"} 1"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        mr_metric_add(get(*state, &labelled, cases[i].label), 1);
        assert_has_line(*state, cases[i].line, true);
    }
    assert_ptr_equal(get(*state, &labelled, NULL), get(*state, &labelled, ""));

    static const mr_metric_info help = {
        .name = "mixrank_help", .kind = MR_METRIC_GAUGE, .help = "a \\ and \"b\"\nc"};
    get(*state, &help, NULL);
    mr_strbuf out = {0};
    mr_metrics_write(*state, &out);
    assert_contains(out.data, "# HELP mixrank_help a \\\\ and \"b\"\\nc\n# TYPE");
    mr_strbuf_release(&out);
}

static void a_long_label_is_cut_between_characters(void **state)
{
    char label[300], expected[400];
    memset(label, 'x', sizeof label);
    memcpy(label + MR_METRICS_MAX_LABEL_BYTES - 1, "\xC3\xA9", 2); /* its middle is the bound */
    label[sizeof label - 1] = '\0';
    mr_metric *metric = get(*state, &labelled, label);
    mr_metric_add(metric, 1);
    snprintf(expected, sizeof expected, "mixrank_test_by_kind_total{kind=\"%.*s\"} 1",
             MR_METRICS_MAX_LABEL_BYTES - 1, label);
    assert_has_line(*state, expected, true);
    label[MR_METRICS_MAX_LABEL_BYTES + 50] = 'y';
    assert_ptr_equal(get(*state, &labelled, label), metric);
    label[MR_METRICS_MAX_LABEL_BYTES - 1] = '\0';
    assert_ptr_equal(get(*state, &labelled, label), metric);
}

static void labels_beyond_the_bound_count_as_other(void **state)
{
    mr_metric *first = NULL;
    for (int i = 0; i < 1000; i++) {
        char label[20];
        snprintf(label, sizeof label, "k%d", i);
        mr_metric *metric = get(*state, &labelled, label);
        mr_metric_add(metric, 1);
        if (i == 0)
            first = metric;
    }
    mr_strbuf out = {0};
    mr_metrics_write(*state, &out);
    size_t lines = 0;
    for (const char *at = out.data; (at = strstr(at, "\nmixrank_test")) != NULL; at++)
        lines++;
    assert_int_equal(lines, MR_METRICS_MAX_SERIES);
    mr_strbuf_release(&out);
    assert_has_line(*state, "mixrank_test_by_kind_total{kind=\"other\"} 745", true);
    assert_ptr_equal(get(*state, &labelled, "k0"), first);
    assert_ptr_equal(get(*state, &labelled, "new"), get(*state, &labelled, "other"));
}

static void a_series_named_other_is_the_one_that_takes_the_rest(void **state)
{
    mr_metric *other = get(*state, &labelled, "other");
    for (int i = 0; i < 400; i++) {
        char label[20];
        snprintf(label, sizeof label, "k%d", i);
        mr_metric_add(get(*state, &labelled, label), 1);
    }
    assert_true(mr_metric_value(other) == 400 - (MR_METRICS_MAX_SERIES - 2));
}

static void counters_do_not_go_back(void **state)
{
    mr_metric *metric = get(*state, &plain, NULL);
    mr_metric_add(metric, 5);
    mr_metric_add(metric, -1);
    mr_metric_add(metric, (double)NAN);
    assert_true(mr_metric_value(metric) == 5);
    mr_metric_set(metric, 2); /* one that is kept elsewhere */
    assert_true(mr_metric_value(metric) == 2);
    mr_metric_observe(metric, 9);
    assert_true(mr_metric_value(metric) == 2);
}

static void what_prometheus_would_refuse_is_no_series(void **state)
{
    static const double falling[] = {1, 0.5}, endless[] = {1, INFINITY};
    static const mr_metric_info wrong[] = {
        {.name = "0digit", .kind = MR_METRIC_GAUGE, .help = "x"},
        {.name = "", .kind = MR_METRIC_GAUGE, .help = "x"},
        {.name = "with space", .kind = MR_METRIC_GAUGE, .help = "x"},
        {.name = "colon:ed", .kind = MR_METRIC_GAUGE, .help = "x"},
        {.name = "no_help", .kind = MR_METRIC_GAUGE},
        {.name = "label", .kind = MR_METRIC_GAUGE, .help = "x", .labels = {"le"}},
        {.name = "label", .kind = MR_METRIC_GAUGE, .help = "x", .labels = {"__name__"}},
        {.name = "label", .kind = MR_METRIC_GAUGE, .help = "x", .labels = {"a", "a"}},
        {.name = "label", .kind = MR_METRIC_GAUGE, .help = "x", .labels = {"a-b"}},
        {"falls", MR_METRIC_HISTOGRAM, "x", {NULL}, falling, 2},
        {"endless", MR_METRIC_HISTOGRAM, "x", {NULL}, endless, 2},
        {"of_another_kind", (mr_metric_kind)9, "x", {NULL}, NULL, 0},
    };
    for (size_t i = 0; i < COUNT(wrong); i++)
        if (mr_metrics_get(*state, &wrong[i], (const char *const[]){"a", "b"}))
            fail_msg("case %zu ('%s') got a series", i, wrong[i].name);
    assert_writes(*state, "");
}

static void one_name_has_one_description(void **state)
{
    mr_metric *metric = get(*state, &histogram, "x");
    mr_metric_info copy = histogram;
    assert_ptr_equal(get(*state, &copy, "x"), metric);
    static const double other_bounds[] = {0.5, 1, 2.6};
    mr_metric_info other[] = {histogram, histogram, histogram, histogram};
    other[0].kind = MR_METRIC_GAUGE;
    other[1].labels[0] = "which";
    other[2].n_buckets = 2;
    other[3].buckets = other_bounds;
    for (size_t i = 0; i < COUNT(other); i++)
        if (get(*state, &other[i], "x"))
            fail_msg("case %zu got a series", i);
}

static void nothing_is_counted_without_a_registry(void **state)
{
    (void)state;
    mr_strbuf out = {0};
    mr_metric *metric = get(NULL, &plain, NULL);
    assert_null(metric);
    mr_metric_add(metric, 1);
    mr_metric_set(metric, 1);
    mr_metric_observe(metric, 1);
    mr_metric_set_histogram(metric, NULL, 0);
    assert_true(mr_metric_value(metric) == 0);
    assert_status(mr_metrics_add_collector(NULL, NULL, NULL, NULL), MR_OK, NULL);
    mr_metrics_remove_collector(NULL, NULL, NULL);
    mr_metrics_write(NULL, &out);
    assert_null(out.data);
    mr_metrics_free(NULL);
}

typedef struct {
    mr_metrics *metrics;
    int calls;
} counted;

static void collect(void *context)
{
    counted *c = context;
    mr_metric_set(get(c->metrics, &gauge, NULL), ++c->calls);
}

static void collectors_set_what_is_kept_elsewhere(void **state)
{
    counted one = {*state, 0}, two = {*state, 10};
    assert_status(mr_metrics_add_collector(*state, collect, &one, NULL), MR_OK, NULL);
    assert_has_line(*state, "mixrank_test_level 1", true);
    assert_has_line(*state, "mixrank_test_level 2", true);
    assert_status(mr_metrics_add_collector(*state, collect, &two, NULL), MR_OK, NULL);
    assert_has_line(*state, "mixrank_test_level 11", true); /* the later one's */
    mr_metrics_remove_collector(*state, collect, &two);
    mr_metrics_remove_collector(*state, collect, &two); /* gone already: nothing */
    assert_has_line(*state, "mixrank_test_level 4", true);
    mr_metrics_remove_collector(*state, collect, &one);
    assert_has_line(*state, "mixrank_test_level 4", true);
    assert_int_equal(one.calls, 4);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void memory_that_runs_out_costs_counts_and_nothing_else(void **state)
{
    (void)state;
    bool done = false;
    for (long k = 1; !done; k++) {
        mr_metrics *metrics = NULL;
        mr_error err = {0};
        counted one = {NULL, 0};
        mr_strbuf out = {0};
        alloc_fail_at(k);
        const mr_status status = mr_metrics_new(&metrics, &err);
        const mr_status added = mr_metrics_add_collector(metrics, collect, &one, &err);
        one.metrics = metrics;
        mr_metric_add(get(metrics, &labelled, "a"), 1);
        mr_metric_observe(get(metrics, &histogram, "x"), 1);
        mr_metrics_write(metrics, &out);
        done = !alloc_failed();
        if (!done && status == MR_OK && added == MR_OK) {
            /* The next of each gets the memory, and the page is whole. */
            mr_strbuf_release(&out);
            mr_metric_add(get(metrics, &labelled, "a"), 1);
            mr_metrics_write(metrics, &out);
            assert_contains(out.data, "mixrank_test_by_kind_total{kind=\"a\"} ");
            assert_contains(out.data, "mixrank_test_level ");
        } else if (!done) {
            assert_int_equal(err.status, MR_NO_MEMORY);
        } else {
            assert_true(k > 6);
            assert_false(out.failed);
        }
        mr_strbuf_release(&out);
        mr_metrics_free(metrics);
    }
}

/* ---- threads --------------------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 20000 };

typedef struct {
    mr_metrics *metrics;
    atomic_int broken;
    atomic_bool stop;
} shared;

static void *count_up(void *context)
{
    shared *s = context;
    mr_metric *metric = get(s->metrics, &plain, NULL);
    mr_metric *times = get(s->metrics, &histogram, "x");
    for (int i = 0; i < ROUNDS; i++) {
        char label[20];
        mr_metric_add(metric, 0.5);
        mr_metric_observe(times, i % 4);
        snprintf(label, sizeof label, "k%d", i % 400);
        mr_metric_add(get(s->metrics, &labelled, label), 1);
    }
    return NULL;
}

/* Each page is whole: as many as the last bucket says are counted. */
static void *write_pages(void *context)
{
    shared *s = context;
    while (!atomic_load(&s->stop)) {
        mr_strbuf out = {0};
        unsigned long long last = 0, count = 1;
        mr_metrics_write(s->metrics, &out);
        const char *bucket = out.data ? strstr(out.data, "le=\"+Inf\"} ") : NULL;
        const char *total = out.data ? strstr(out.data, "_count{what=\"x\"} ") : NULL;
        if (bucket && total) {
            last = strtoull(bucket + strlen("le=\"+Inf\"} "), NULL, 10);
            count = strtoull(total + strlen("_count{what=\"x\"} "), NULL, 10);
            atomic_fetch_add(&s->broken, last != count);
        }
        atomic_fetch_add(&s->broken, out.failed);
        mr_strbuf_release(&out);
    }
    return NULL;
}

static void *add_and_remove_collectors(void *context)
{
    shared *s = context;
    while (!atomic_load(&s->stop)) {
        counted own = {s->metrics, 0};
        if (mr_metrics_add_collector(s->metrics, collect, &own, NULL) != MR_OK)
            atomic_fetch_add(&s->broken, 1);
        mr_metrics_remove_collector(s->metrics, collect, &own);
    }
    return NULL;
}

static void no_count_is_lost_between_threads(void **state)
{
    shared s = {.metrics = *state};
    pthread_t counters[THREADS], writer, changer;
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&counters[i], NULL, count_up, &s), 0);
    assert_int_equal(pthread_create(&writer, NULL, write_pages, &s), 0);
    assert_int_equal(pthread_create(&changer, NULL, add_and_remove_collectors, &s), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(counters[i], NULL);
    atomic_store(&s.stop, true);
    pthread_join(writer, NULL);
    pthread_join(changer, NULL);
    assert_int_equal(atomic_load(&s.broken), 0);
    assert_true(mr_metric_value(get(*state, &plain, NULL)) == 0.5 * THREADS * ROUNDS);
    assert_true(mr_metric_value(get(*state, &histogram, "x")) == 1.5 * THREADS * ROUNDS);
    double by_kind = mr_metric_value(get(*state, &labelled, "other"));
    for (int i = 0; i < 400; i++) {
        char label[20];
        snprintf(label, sizeof label, "k%d", i);
        mr_metric *metric = get(*state, &labelled, label);
        if (metric != get(*state, &labelled, "other"))
            by_kind += mr_metric_value(metric);
    }
    assert_true(by_kind == (double)THREADS * ROUNDS);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_empty_registry_writes_nothing),
        TEST(families_come_by_name_and_series_by_labels),
        TEST(a_histogram_is_cumulative_and_ends_in_infinity),
        TEST(numbers_read_back_as_they_were),
        TEST(what_labels_hold_cannot_break_the_page),
        TEST(a_long_label_is_cut_between_characters),
        TEST(labels_beyond_the_bound_count_as_other),
        TEST(a_series_named_other_is_the_one_that_takes_the_rest),
        TEST(counters_do_not_go_back),
        TEST(what_prometheus_would_refuse_is_no_series),
        TEST(one_name_has_one_description),
        TEST(nothing_is_counted_without_a_registry),
        TEST(collectors_set_what_is_kept_elsewhere),
        TEST(memory_that_runs_out_costs_counts_and_nothing_else),
        TEST(no_count_is_lost_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
