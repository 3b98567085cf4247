/* test_guard.c - the allocation guard catches every wrapped function; nothing outside a phase.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>

#include "core/guard.h"

/* Compilers may drop a malloc whose result is only freed. */
static void *volatile kept;

static void keep(void *p)
{
    assert_non_null(p);
    kept = p;
    free(kept);
}

static size_t violations_of(void (*body)(void))
{
    size_t before = mr_guard_violations(NULL);
    body();
    return mr_guard_violations(NULL) - before;
}

static void by_malloc(void)
{
    keep(malloc(40));
}

static void by_calloc(void)
{
    keep(calloc(4, 10));
}

static void by_realloc(void)
{
    keep(realloc(NULL, 40));
}

static void by_posix_memalign(void)
{
    void *p = NULL;
    assert_int_equal(posix_memalign(&p, 64, 64), 0);
    keep(p);
}

static void by_aligned_alloc(void)
{
    keep(aligned_alloc(64, 64));
}

static void (*const ways[])(void) = {by_malloc, by_calloc, by_realloc, by_posix_memalign,
                                     by_aligned_alloc};
#define N_WAYS (sizeof ways / sizeof *ways)

static void allocations_outside_a_phase_are_no_violation(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_WAYS; i++)
        assert_int_equal(violations_of(ways[i]), 0);
    const char *phase = "untouched";
    assert_int_equal(mr_guard_violations(&phase), 0);
    assert_null(phase);
    assert_int_equal(mr_guard_first_bytes(), 0);
}

static void the_first_violation_is_named_with_the_phase_that_it_is_in_and_its_size(void **state)
{
    (void)state;
    mr_guard_begin("outer");
    mr_guard_begin("inner");
    mr_guard_end();
    assert_int_equal(violations_of(by_malloc), 1);
    mr_guard_begin("later");
    assert_int_equal(violations_of(by_posix_memalign), 1);
    mr_guard_end();
    mr_guard_end();
    const char *phase = NULL;
    assert_int_equal(mr_guard_violations(&phase), 2);
    assert_string_equal(phase, "outer");
    assert_int_equal(mr_guard_first_bytes(), 40);
    assert_int_equal(violations_of(by_malloc), 0); /* both phases have ended */
}

static void every_way_to_allocate_is_seen(void **state)
{
    (void)state;
    mr_guard_begin("all");
    for (size_t i = 0; i < N_WAYS; i++) {
        if (violations_of(ways[i]) != 1)
            fail_msg("way %zu is not counted", i);
    }
    mr_guard_end();
}

static void *allocate_elsewhere(void *unused)
{
    (void)unused;
    by_malloc();
    return NULL;
}

static void a_phase_covers_all_threads_of_the_process(void **state)
{
    (void)state;
    size_t before = mr_guard_violations(NULL);
    pthread_t thread;
    mr_guard_begin("elsewhere");
    assert_int_equal(pthread_create(&thread, NULL, allocate_elsewhere, NULL), 0);
    pthread_join(thread, NULL);
    mr_guard_end();
    assert_true(mr_guard_violations(NULL) > before);
}

static void deep_nesting_is_counted_right(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++)
        mr_guard_begin("deep");
    for (int i = 0; i < 20; i++) {
        assert_int_equal(violations_of(by_malloc), 1);
        mr_guard_end();
    }
    assert_int_equal(violations_of(by_malloc), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_outside_a_phase_are_no_violation),
        cmocka_unit_test(the_first_violation_is_named_with_the_phase_that_it_is_in_and_its_size),
        cmocka_unit_test(every_way_to_allocate_is_seen),
        cmocka_unit_test(a_phase_covers_all_threads_of_the_process),
        cmocka_unit_test(deep_nesting_is_counted_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
