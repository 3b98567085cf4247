/* test_store_metrics.c - a store's health as the page of metrics shows it. The health is the
 * test's: the linker sends mr_store_health_of here.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "featurestore/store_metrics.h"
#include "tests/support.h"

static mr_store_health health;

void __wrap_mr_store_health_of(mr_store *store, mr_store_health *out);
void __wrap_mr_store_health_of(mr_store *store, mr_store_health *out)
{
    (void)store;
    *out = health;
}

static void assert_line(mr_metrics *metrics, const char *line)
{
    mr_strbuf out = {0};
    char whole[300];
    mr_metrics_write(metrics, &out);
    snprintf(whole, sizeof whole, "\nmixrank_store_%s\n", line);
    if (!out.data || !strstr(out.data, whole))
        fail_msg("expected the line\n%s\nin\n%s", whole, out.data ? out.data : "nothing");
    mr_strbuf_release(&out);
}

static void every_number_of_the_health_is_on_the_page(void **state)
{
    (void)state;
    mr_store *store = NULL;
    mr_metrics *metrics = NULL;
    mr_store_metrics *sm = NULL;
    mr_error err = {0};
    assert_status(mr_store_open(&store, "memory:", NULL, &err), MR_OK, &err);
    assert_status(mr_metrics_new(&metrics, &err), MR_OK, &err);
    assert_status(mr_store_metrics_new(&sm, store, metrics, &err), MR_OK, &err);
    assert_line(metrics, "fetches_total{backend=\"memory\"} 0");
    health = (mr_store_health){.fetches = 1,
                               .ids = 1000,
                               .hits_cache = 500,
                               .hits_stale = 20,
                               .negative_hits = 3,
                               .hits_store = 400,
                               .misses = 97,
                               .evictions = 5,
                               .invalidations = 6,
                               .flushes = 7,
                               .cache_bytes = UINT64_C(1) << 40,
                               .failures = 8,
                               .reconnects = 9,
                               .foreign_values = 10,
                               .fetch_count = 6,
                               .fetch_us = 2500000,
                               .fetch_us_buckets = {1, [3] = 2, [14] = 1, [15] = 2},
                               .breaker = 2,
                               .connected = true,
                               .tracking = false};
    static const char *const lines[] = {
        "fetches_total{backend=\"memory\"} 1",
        "ids_total{backend=\"memory\"} 1000",
        "records_total{backend=\"memory\",tier=\"cache\",result=\"hit\"} 480",
        "records_total{backend=\"memory\",tier=\"cache\",result=\"stale\"} 20",
        "records_total{backend=\"memory\",tier=\"cache\",result=\"none\"} 3",
        "records_total{backend=\"memory\",tier=\"store\",result=\"hit\"} 400",
        "records_total{backend=\"memory\",tier=\"store\",result=\"none\"} 97",
        "evictions_total{backend=\"memory\"} 5",
        "invalidations_total{backend=\"memory\"} 6",
        "flushes_total{backend=\"memory\"} 7",
        "cache_bytes{backend=\"memory\"} 1099511627776",
        "failures_total{backend=\"memory\"} 8",
        "reconnects_total{backend=\"memory\"} 9",
        "foreign_values_total{backend=\"memory\"} 10",
        "breaker_state{backend=\"memory\"} 2",
        "connected{backend=\"memory\"} 1",
        "tracking{backend=\"memory\"} 0",
        "round_trip_seconds_bucket{backend=\"memory\",le=\"1.6e-05\"} 1",
        "round_trip_seconds_bucket{backend=\"memory\",le=\"6.4e-05\"} 1",
        "round_trip_seconds_bucket{backend=\"memory\",le=\"0.000128\"} 3",
        "round_trip_seconds_bucket{backend=\"memory\",le=\"0.131072\"} 3",
        "round_trip_seconds_bucket{backend=\"memory\",le=\"0.262144\"} 4",
        "round_trip_seconds_bucket{backend=\"memory\",le=\"+Inf\"} 6",
        "round_trip_seconds_sum{backend=\"memory\"} 2.5",
        "round_trip_seconds_count{backend=\"memory\"} 6",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_line(metrics, lines[i]);
    health.hits_stale = 600; /* read later than the whole */
    assert_line(metrics, "records_total{backend=\"memory\",tier=\"cache\",result=\"hit\"} 0");
    mr_store_metrics_free(sm);
    mr_store_close(store);
    assert_line(metrics, "ids_total{backend=\"memory\"} 1000"); /* and nobody asks the store */
    mr_metrics_free(metrics);
    mr_store_metrics_free(NULL);
}

static void without_a_registry_nothing_is_counted(void **state)
{
    (void)state;
    mr_store *store = NULL;
    mr_store_metrics *sm = NULL;
    mr_error err = {0};
    assert_status(mr_store_open(&store, "memory:", NULL, &err), MR_OK, &err);
    assert_status(mr_store_metrics_new(&sm, store, NULL, &err), MR_OK, &err);
    mr_store_metrics_free(sm);
    mr_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_of_the_health_is_on_the_page),
        cmocka_unit_test(without_a_registry_nothing_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
