/* test_sampler.c - the next token: greedy, by temperature, from the nucleus.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "engine/sampler.h"
#include "tests/support.h"

#define DRAWS 10000

static mr_sampler new_sampler(size_t V, double temperature, double top_p, uint64_t seed)
{
    mr_sampler sampler;
    mr_error err = {0};
    assert_status(mr_sampler_init(&sampler, V, temperature, top_p, seed, &err), MR_OK, &err);
    return sampler;
}

static void greedy_takes_the_largest_and_the_smallest_id_of_equals(void **state)
{
    (void)state;
    static const struct {
        float logits[5];
        int32_t id;
    } row[] = {
        {{1, 3, 2, 0, -1}, 1},
        {{-5, -4, -4, -9, -4}, 1},
        {{7, 7, 7, 7, 7}, 0},
        {{NAN, 1, NAN, 2, NAN}, 3},
        {{NAN, -INFINITY, NAN, NAN, NAN}, 1},
        {{NAN, NAN, NAN, NAN, NAN}, 0},
        {{-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY}, 0},
        {{0, INFINITY, 1, INFINITY, 2}, 1},
        {{-0.0f, 0.0f, -1, -1, -1}, 0},
    };
    mr_sampler greedy = new_sampler(5, 0, 1, 1), warm = new_sampler(5, 1, 0.9, 1);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        const int32_t id = mr_sampler_next(&greedy, row[i].logits);
        if (id != row[i].id)
            fail_msg("row %zu: id %d, expected %d", i, (int)id, (int)row[i].id);
        /* Where there is nothing to weigh, a temperature changes nothing. */
        if (!isfinite(row[i].logits[row[i].id]) &&
            mr_sampler_next(&warm, row[i].logits) != row[i].id)
            fail_msg("row %zu: sampled another id than %d", i, (int)row[i].id);
    }
    mr_sampler_done(&greedy);
    mr_sampler_done(&warm);
    mr_sampler_done(&warm);
}

/* How often each id came, of DRAWS. */
static void count(size_t V, const float *logits, double temperature, double top_p, size_t *counts)
{
    mr_sampler sampler = new_sampler(V, temperature, top_p, 99);
    memset(counts, 0, V * sizeof *counts);
    mr_guard_begin("sample");
    for (int i = 0; i < DRAWS; i++) {
        const int32_t id = mr_sampler_next(&sampler, logits);
        assert_in_range(id, 0, V - 1);
        counts[id]++;
    }
    mr_guard_end();
    mr_sampler_done(&sampler);
    const char *phase = NULL;
    if (mr_guard_violations(&phase) != 0)
        fail_msg("sampling allocated in phase '%s'", phase);
}

static void tokens_come_as_often_as_temperature_and_nucleus_say(void **state)
{
    (void)state;
    /* Probabilities in the order of ids: 0.15, 0.5, NaN, 0.05, 0.3. */
    const float logits[5] = {logf(0.15f), logf(0.5f), NAN, logf(0.05f), logf(0.3f)};
    static const struct {
        double temperature, top_p, expected[5];
    } row[] = {
        {1, 1, {0.15, 0.5, 0, 0.05, 0.3}},
        {1, 0.4, {0, 1, 0, 0, 0}},
        {1, 0.499, {0, 1, 0, 0, 0}},
        {1, 0.501, {0, 0.625, 0, 0, 0.375}},
        {1, 0.79, {0, 0.625, 0, 0, 0.375}},
        {1, 0.81, {0.1578947, 0.5263158, 0, 0, 0.3157895}},
        {1, 0.96, {0.15, 0.5, 0, 0.05, 0.3}},
        /* Squares: 0.0225, 0.25, 0.0025, 0.09 of 0.365. */
        {0.5, 1, {0.0616438, 0.6849315, 0, 0.0068493, 0.2465753}},
        {0.5, 0.7, {0, 0.7352941, 0, 0, 0.2647059}},
        {0.01, 1, {0, 1, 0, 0, 0}},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        size_t counts[5];
        count(5, logits, row[i].temperature, row[i].top_p, counts);
        for (size_t id = 0; id < 5; id++) {
            const double share = (double)counts[id] / DRAWS, p = row[i].expected[id];
            /* Five deviations; exact where the token may not come at all. */
            const double bound = 5 * sqrt(p * (1 - p) / DRAWS);
            if (fabs(share - p) > bound)
                fail_msg("temperature %g, top_p %g, id %zu: share %g, expected %g",
                         row[i].temperature, row[i].top_p, id, share, p);
        }
    }
}

static int descending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static void the_nucleus_is_the_smallest_set_with_the_share(void **state)
{
    (void)state;
    enum { V = 300 };
    mr_rng rng = mr_rng_seed(4);
    for (int round = 0; round < 8; round++) {
        float logits[V];
        double p[V], sorted[V], total = 0, mass = 0;
        size_t counts[V], members = 0;
        const double top_p = 0.05 + 0.9 * mr_rng_uniform(&rng);
        for (size_t i = 0; i < V; i++) {
            logits[i] = (float)(3 * mr_rng_normal(&rng));
            p[i] = exp((double)logits[i]);
            total += p[i];
        }
        memcpy(sorted, p, sizeof p);
        qsort(sorted, V, sizeof *sorted, descending);
        while (mass < top_p * total)
            mass += sorted[members++];
        count(V, logits, 1, top_p, counts);
        for (size_t i = 0; i < V; i++) {
            const bool inside = p[i] >= sorted[members - 1];
            const double share = inside ? p[i] / mass : 0;
            const double bound = 6 * sqrt(share * (1 - share) / DRAWS) + (inside ? 1e-4 : 0);
            if (fabs((double)counts[i] / DRAWS - share) > bound)
                fail_msg("round %d, top_p %g, id %zu: share %g, expected %g", round, top_p, i,
                         (double)counts[i] / DRAWS, share);
        }
    }
}

static void a_seed_gives_the_same_tokens_and_another_gives_others(void **state)
{
    (void)state;
    enum { V = 50, N = 64 };
    float logits[V];
    int32_t ids[3][N];
    for (size_t i = 0; i < V; i++)
        logits[i] = (float)(i % 7) * 0.3f;
    static const uint64_t seeds[3] = {5, 5, 6};
    for (size_t s = 0; s < 3; s++) {
        mr_sampler sampler = new_sampler(V, 0.8, 0.9, seeds[s]);
        for (size_t i = 0; i < N; i++)
            ids[s][i] = mr_sampler_next(&sampler, logits);
        mr_sampler_done(&sampler);
    }
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_memory_not_equal(ids[0], ids[2], sizeof ids[0]);
}

static void impossible_options_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t V;
        double temperature, top_p;
        const char *message;
    } row[] = {
        {0, 0, 1, "over 0 tokens"},
        {(size_t)INT32_MAX + 1, 0, 1, "tokens"},
        {9, -0.1, 1, "temperature is -0.1"},
        {9, (double)NAN, 1, "temperature is nan"},
        {9, (double)INFINITY, 1, "temperature is inf"},
        {9, 1, 0, "top_p is 0, expected more than 0"},
        {9, 1, 1.5, "top_p is 1.5"},
        {9, 1, (double)NAN, "top_p is nan"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_sampler sampler;
        mr_error err = {0};
        assert_status(
            mr_sampler_init(&sampler, row[i].V, row[i].temperature, row[i].top_p, 1, &err),
            MR_INVALID, &err);
        assert_contains(err.message, row[i].message);
        mr_sampler_done(&sampler);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_largest_and_the_smallest_id_of_equals),
        cmocka_unit_test(tokens_come_as_often_as_temperature_and_nucleus_say),
        cmocka_unit_test(the_nucleus_is_the_smallest_set_with_the_share),
        cmocka_unit_test(a_seed_gives_the_same_tokens_and_another_gives_others),
        cmocka_unit_test(impossible_options_are_refused),
    };
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
