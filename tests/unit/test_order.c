/* test_order.c - the order and fallback rule of order.h: a table by hand, then random lists against
 * the rule read out loud, in quadratic time.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "ranker/pipeline/order.h"
#include "tests/support.h"

#define MOST      64
#define MOST_CASE 6             /* candidates of a case of the table */
#define NONE      ((double)NAN) /* a margin of one that was not scored */
#define HAS(p)    (p), true

typedef struct {
    const char *what;
    double blend;
    size_t n;
    mr_order_input input[MOST_CASE];
    const char *order; /* indexes, as digits */
} order_case;

static void lists_come_out_in_this_order(void **state)
{
    static const order_case row[] = {
        {"nothing", 0, 0, {{.margin = 0}}, ""},
        {"one that was scored", 0, 1, {{.margin = -3}}, "0"},
        {"one that was not", 0, 1, {{.margin = NONE}}, "0"},
        {"by margin", 0, 4, {{.margin = 1}, {.margin = 3}, {.margin = -2}, {.margin = 2}}, "1302"},
        {"equal margins by index", 0, 3, {{.margin = 1}, {.margin = 1}, {.margin = 1}}, "012"},
        {"the two zeros are equal",
         0,
         3,
         {{.margin = -0.0}, {.margin = 0.0}, {.margin = 1}},
         "201"},
        {"priors do not matter when all are scored",
         0,
         3,
         {{1, HAS(1)}, {2, HAS(9)}, {3, HAS(5)}},
         "210"},
        {"nothing scored: by prior",
         0,
         4,
         {{NONE, HAS(1)}, {NONE, HAS(9)}, {NONE, HAS(-4)}, {NONE, HAS(5)}},
         "1302"},
        {"nothing scored, equal priors: by index",
         0,
         3,
         {{NONE, HAS(2)}, {NONE, HAS(2)}, {NONE, HAS(3)}},
         "201"},
        {"nothing scored, no priors: as it came",
         0,
         4,
         {{.margin = NONE}, {.margin = NONE}, {.margin = NONE}, {.margin = NONE}},
         "0123"},
        {"without a prior behind those with one, however low",
         0,
         3,
         {{.margin = NONE}, {NONE, HAS(-1e300)}, {.margin = NONE}},
         "102"},
        {"one that was not scored keeps its place in the input",
         0,
         4,
         {{.margin = 1}, {.margin = NONE}, {.margin = 3}, {.margin = 2}},
         "2130"},
        {"and its place by prior",
         0,
         4,
         {{1, HAS(10)}, {5, HAS(20)}, {NONE, HAS(40)}, {3, HAS(30)}},
         "2130"},
        {"the first place stays with the prior",
         0,
         3,
         {{NONE, HAS(9)}, {100, HAS(1)}, {200, HAS(2)}},
         "021"},
        {"the last place too", 0, 3, {{1, HAS(9)}, {2, HAS(8)}, {.margin = NONE}}, "102"},
        {"blend lifts a high prior", 0.5, 3, {{1, HAS(8)}, {2, HAS(1)}, {3, HAS(0)}}, "021"},
        {"a negative blend turns it round", -1, 2, {{1, HAS(3)}, {1, HAS(2)}}, "10"},
        {"blend counts a missing prior as nothing",
         1,
         3,
         {{.margin = 1}, {0, HAS(2)}, {0, HAS(-2)}},
         "102"},
        {"blend moves none that was not scored",
         100,
         3,
         {{NONE, HAS(1)}, {0, HAS(3)}, {1, HAS(2)}},
         "120"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        size_t order[MOST_CASE], scratch[2 * MOST_CASE];
        assert_int_equal(strlen(row[i].order), row[i].n);
        mr_order_final(row[i].input, row[i].n, row[i].blend, order, scratch);
        for (size_t place = 0; place < row[i].n; place++)
            if (order[place] != (size_t)(row[i].order[place] - '0'))
                fail_msg("%s: place %zu has %zu, expected the order %s", row[i].what, place,
                         order[place], row[i].order);
    }
}

/* ---- against the rule itself ----------------------------------------------------------------- */

/* Whether a stands before b in the prior order. */
static bool prior_before(const mr_order_input *input, size_t a, size_t b)
{
    const mr_order_input *x = &input[a], *y = &input[b];
    if (x->has_prior != y->has_prior)
        return x->has_prior;
    if (x->has_prior && x->prior != y->prior)
        return x->prior > y->prior;
    return a < b;
}

static double blended(const mr_order_input *x, double blend)
{
    return x->margin + (x->has_prior ? blend * x->prior : 0);
}

static bool scored_before(const mr_order_input *input, size_t a, size_t b, double blend)
{
    const double u = blended(&input[a], blend), v = blended(&input[b], blend);
    return u != v ? u > v : a < b;
}

/* Where a candidate stands is how many stand before it: counted one by one. */
static void order_slowly(const mr_order_input *input, size_t n, double blend, size_t *order)
{
    size_t free_place[MOST], n_free = 0;
    bool taken[MOST] = {false};
    for (size_t i = 0; i < n; i++) {
        size_t place = 0;
        for (size_t j = 0; j < n; j++)
            place += j != i && prior_before(input, j, i);
        if (isnan(input[i].margin)) {
            order[place] = i;
            taken[place] = true;
        }
    }
    for (size_t place = 0; place < n; place++)
        if (!taken[place])
            free_place[n_free++] = place;
    for (size_t i = 0; i < n; i++) {
        if (isnan(input[i].margin))
            continue;
        size_t rank = 0;
        for (size_t j = 0; j < n; j++)
            rank += j != i && !isnan(input[j].margin) && scored_before(input, j, i, blend);
        assert_true(rank < n_free);
        order[free_place[rank]] = i;
    }
}

/* Few distinct values, so that ties are common. */
static mr_order_input random_input(mr_rng *rng, unsigned kind)
{
    mr_order_input out = {.margin = (double)mr_rng_below(rng, 5) - 2,
                          .prior = (double)mr_rng_below(rng, 4),
                          .has_prior = mr_rng_below(rng, 4) != 0};
    if ((kind & 1) != 0 && mr_rng_below(rng, 3) == 0)
        out.margin = NONE;
    if ((kind & 2) != 0)
        out.has_prior = false;
    if ((kind & 4) != 0)
        out.margin = isnan(out.margin) ? NONE : mr_rng_normal(rng);
    if (!out.has_prior)
        out.prior = NONE; /* must not be looked at */
    return out;
}

static void random_lists_follow_the_rule(void **state)
{
    mr_rng rng = mr_rng_seed(5);
    static const double blends[] = {0, 0.5, -2, 1e-3};
    (void)state;
    for (unsigned round = 0; round < 4000; round++) {
        mr_order_input input[MOST];
        size_t got[MOST], want[MOST], scratch[2 * MOST];
        const size_t n = (size_t)mr_rng_below(&rng, round % 10 == 0 ? MOST + 1 : 9);
        const double blend = blends[mr_rng_below(&rng, 4)];
        for (size_t i = 0; i < n; i++)
            input[i] = random_input(&rng, round % 8);
        mr_order_final(input, n, blend, got, scratch);
        order_slowly(input, n, blend, want);
        for (size_t place = 0; place < n; place++)
            if (got[place] != want[place])
                fail_msg("round %u, %zu candidates, blend %g: place %zu has %zu, expected %zu",
                         round, n, blend, place, got[place], want[place]);
    }
}

static void the_prior_order_is_stable(void **state)
{
    mr_rng rng = mr_rng_seed(6);
    (void)state;
    for (unsigned round = 0; round < 500; round++) {
        mr_order_input input[MOST];
        size_t order[MOST], scratch[MOST];
        const size_t n = (size_t)mr_rng_below(&rng, MOST + 1);
        for (size_t i = 0; i < n; i++)
            input[i] = random_input(&rng, round % 8);
        mr_order_by_prior(input, n, order, scratch);
        for (size_t place = 1; place < n; place++)
            if (!prior_before(input, order[place - 1], order[place]))
                fail_msg("round %u: %zu stands before %zu", round, order[place - 1], order[place]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_come_out_in_this_order),
        cmocka_unit_test(random_lists_follow_the_rule),
        cmocka_unit_test(the_prior_order_is_stable),
    };
    return cmocka_run_group_tests_name("order", tests, NULL, NULL);
}
