/* test_store_swap.c - a note that changes only while it is what its writer has read.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#include "tests/unit/store_fixture.h"

static const mr_str none = {NULL, 0};

static void a_swap_goes_on_only_from_what_was_read(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    mr_error err = {0};
    assert_status(mr_store_swap_note(store, "n", mr_str_of("x"), mr_str_of("one"), &err),
                  MR_MISMATCH, &err);
    assert_contains(err.message, "n' holds another value than was read before");
    char *value = NULL;
    size_t len;
    assert_status(mr_store_get_note(store, "n", &value, &len, &err), MR_NOT_FOUND, &err);
    assert_status(mr_store_swap_note(store, "n", none, mr_str_of("one"), &err), MR_OK, &err);
    assert_note(store, "n", "one");
    assert_status(mr_store_swap_note(store, "n", none, mr_str_of("two"), &err), MR_MISMATCH, &err);
    assert_status(mr_store_swap_note(store, "n", mr_str_of("on"), mr_str_of("two"), &err),
                  MR_MISMATCH, &err);
    assert_status(mr_store_swap_note(store, "n", mr_str_of(""), mr_str_of("two"), &err),
                  MR_MISMATCH, &err);
    assert_note(store, "n", "one");
    assert_status(mr_store_swap_note(store, "n", mr_str_of("one"), mr_str_of("two"), &err), MR_OK,
                  &err);
    assert_note(store, "n", "two");
    /* Sent again, as after an answer that was lost. */
    assert_status(mr_store_swap_note(store, "n", mr_str_of("one"), mr_str_of("two"), &err), MR_OK,
                  &err);
    assert_status(mr_store_swap_note(store, "n", none, mr_str_of("two"), &err), MR_OK, &err);
    assert_note(store, "n", "two");
}

static void an_empty_note_is_not_the_same_as_none(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    mr_error err = {0};
    assert_status(mr_store_set_note(store, "n", mr_str_of(""), &err), MR_OK, &err);
    assert_status(mr_store_swap_note(store, "n", none, mr_str_of("x"), &err), MR_MISMATCH, &err);
    assert_status(mr_store_swap_note(store, "n", mr_str_of(""), (mr_str){"a\0b", 3}, &err), MR_OK,
                  &err);
    assert_status(mr_store_swap_note(store, "n", mr_str_of("a"), mr_str_of("x"), &err), MR_MISMATCH,
                  &err);
    assert_status(mr_store_swap_note(store, "n", (mr_str){"a\0b", 3}, mr_str_of("x"), &err), MR_OK,
                  &err);
    assert_note(store, "n", "x");
    assert_status(mr_store_swap_note(store, "n", mr_str_of("x"), none, &err), MR_INVALID, &err);
    assert_status(mr_store_swap_note(store, "", none, mr_str_of("x"), &err), MR_INVALID, &err);
}

enum { WRITERS = 4, STEPS = 50 };

typedef struct {
    mr_store *store;
    atomic_int failed;
} shared;

/* Adds one to the number in the note, as often as others come between. */
static void *count_up(void *context)
{
    shared *s = context;
    for (int done = 0; done < STEPS;) {
        char *value = NULL, next[40];
        size_t len = 0;
        const mr_status read = mr_store_get_note(s->store, "count", &value, &len, NULL);
        if (read != MR_OK && read != MR_NOT_FOUND) {
            atomic_fetch_add(&s->failed, 1);
            return NULL;
        }
        /* Whose it is stands behind it: two that write the same would both have their way. */
        snprintf(next, sizeof next, "%ld %p.%d", value ? strtol(value, NULL, 10) + 1 : 1,
                 (void *)&value, done);
        const mr_status status =
            mr_store_swap_note(s->store, "count", (mr_str){value, len}, mr_str_of(next), NULL);
        free(value);
        done += status == MR_OK;
        if (status != MR_OK && status != MR_MISMATCH)
            atomic_fetch_add(&s->failed, 1);
        if (atomic_load(&s->failed))
            return NULL;
    }
    return NULL;
}

static void of_writers_that_read_the_same_one_has_its_way(void **state)
{
    shared s = {.store = ((store_fixture *)*state)->store};
    pthread_t thread[WRITERS];
    for (size_t i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, count_up, &s), 0);
    for (size_t i = 0; i < WRITERS; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(atomic_load(&s.failed), 0);
    char *value = NULL;
    size_t len;
    assert_status(mr_store_get_note(s.store, "count", &value, &len, NULL), MR_OK, NULL);
    assert_int_equal(strtol(value, NULL, 10), WRITERS * STEPS);
    free(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY(a_swap_goes_on_only_from_what_was_read),
        ON_EVERY(an_empty_note_is_not_the_same_as_none),
        ON_EVERY(of_writers_that_read_the_same_one_has_its_way),
    };
    const int missing = STORE_MISSING();
    if (missing)
        return missing;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
