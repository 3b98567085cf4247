/* test_migration.c - what one space has of another, and the note that says which bundle is active.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "featurestore/coverage.h"
#include "ranker/pipeline/active.h"
#include "tests/unit/store_fixture.h"

#define OTHER (SPACE + 1)

typedef struct {
    char ids[4096]; /* "a b c " */
    size_t calls;
    uint64_t done;
} told;

static void on_lacking(void *context, mr_str id)
{
    told *t = context;
    const size_t used = strlen(t->ids);
    snprintf(t->ids + used, sizeof t->ids - used, "%.*s ", MR_STR_ARG(id));
}

static void on_progress(void *context, uint64_t done)
{
    told *t = context;
    t->calls++;
    t->done = done;
}

static void put_in(mr_store *store, uint64_t space, const char *id, uint64_t version, size_t width)
{
    mr_error err = {0};
    assert_status(
        put_record(store, MR_ENTITY_ITEM, space, mr_str_of(id), version, 1, width, NULL, &err),
        MR_OK, &err);
}

static mr_coverage cover(mr_store *store, told *t)
{
    mr_coverage coverage = {0};
    mr_error err = {0};
    assert_status(mr_store_coverage(store, MR_ENTITY_ITEM, SPACE, OTHER, on_lacking, on_progress, t,
                                    &coverage, &err),
                  MR_OK, &err);
    return coverage;
}

static void coverage_is_counted_apart_by_what_the_next_space_has(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    told t = {{0}, 0, 0};
    assert_true(mr_coverage_share(&(mr_coverage){0}) == 1);
    mr_coverage c = cover(store, &t);
    assert_int_equal(c.ids, 0);
    put_in(store, SPACE, "a", 5, 4);
    put_in(store, OTHER, "a", 5, 4);
    put_in(store, SPACE, "behind", 5, 4);
    put_in(store, OTHER, "behind", 4, 4);
    put_in(store, SPACE, "gone here", 5, 0);
    put_in(store, SPACE, "gone there", 5, 4);
    put_in(store, OTHER, "gone there", 6, 0);
    put_in(store, SPACE, "missing", 5, 4);
    put_in(store, OTHER, "only there", 5, 4);
    c = cover(store, &t);
    assert_int_equal(c.ids, 4);
    assert_int_equal(c.covered, 2);
    assert_int_equal(c.older, 1);
    assert_int_equal(c.removed, 1);
    assert_int_equal(c.missing, 1);
    assert_int_equal(c.damaged, 0);
    assert_int_equal(c.tombstones, 1);
    assert_true(mr_coverage_share(&c) == 0.75);
    assert_string_equal(t.ids, "missing ");
    assert_int_equal(t.done, 5);
}

static void coverage_of_many_batches_is_that_of_all(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    enum { IDS = 1500 };
    for (size_t i = 0; i < IDS; i++) {
        char id[20];
        snprintf(id, sizeof id, "%05zu", i);
        put_in(store, SPACE, id, 1, 4);
        if (i % 3)
            put_in(store, OTHER, id, 1, 4);
    }
    mr_coverage c = {0};
    mr_error err = {0};
    assert_status(
        mr_store_coverage(store, MR_ENTITY_ITEM, SPACE, OTHER, NULL, NULL, NULL, &c, &err), MR_OK,
        &err);
    assert_int_equal(c.ids, IDS);
    assert_int_equal(c.covered, IDS / 3 * 2);
    assert_int_equal(c.missing, IDS / 3);
}

/* ---- the note -------------------------------------------------------------------------------- */

static mr_active_bundle bundle_of(const char *version)
{
    mr_active_bundle out = {
        .name = "shop", .version = version, .path = "/b", .item_space = 7, .user_space = 8};
    memset(out.digest, version[0], sizeof out.digest - 1);
    return out;
}

static mr_active read_note(mr_store *store, mr_arena *arena)
{
    mr_active active = {0};
    mr_error err = {0};
    assert_status(mr_active_read(store, arena, &active, &err), MR_OK, &err);
    return active;
}

static void the_active_bundle_switches_and_rolls_back(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    mr_arena arena = {0};
    mr_error err = {0};
    const mr_active_bundle one = bundle_of("1"), two = bundle_of("2"), three = bundle_of("3");
    mr_active now = read_note(store, &arena);
    assert_int_equal(now.generation, 0);
    assert_status(mr_active_roll_back(store, &now, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "nothing was switched");
    assert_status(mr_active_switch(store, &now, &one, &err), MR_OK, &err);
    now = read_note(store, &arena);
    assert_int_equal(now.generation, 1);
    assert_null(now.previous.name);
    assert_true(mr_active_same(&now.bundle, &one));
    assert_true(now.bundle.item_space == 7 && now.bundle.user_space == 8);
    assert_true(now.bundle.image_space == 0);
    assert_string_equal(now.bundle.path, "/b");
    assert_true(now.switched_ms > 0);
    assert_status(mr_active_roll_back(store, &now, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "bundle shop 1 is the first");
    assert_status(mr_active_switch(store, &now, &one, &err), MR_EXISTS, &err);
    assert_contains(err.message, "shop 1 is active already, since generation 1");

    assert_status(mr_active_switch(store, &now, &two, &err), MR_OK, &err);
    /* Another operator looked at generation 1 too. */
    assert_status(mr_active_switch(store, &now, &three, &err), MR_MISMATCH, &err);
    assert_contains(err.message, "generation 1 of the active bundle is over");
    const mr_active old = now;
    now = read_note(store, &arena);
    assert_int_equal(now.generation, 2);
    assert_true(mr_active_same(&now.bundle, &two) && mr_active_same(&now.previous, &one));
    assert_status(mr_active_roll_back(store, &now, &err), MR_OK, &err);
    assert_status(mr_active_roll_back(store, &old, &err), MR_NOT_FOUND, &err);
    assert_status(mr_active_switch(store, &now, &three, &err), MR_MISMATCH, &err);
    now = read_note(store, &arena);
    assert_int_equal(now.generation, 3);
    assert_true(mr_active_same(&now.bundle, &one) && mr_active_same(&now.previous, &two));
    assert_status(mr_active_roll_back(store, &now, &err), MR_OK, &err);
    now = read_note(store, &arena);
    assert_int_equal(now.generation, 4);
    assert_true(mr_active_same(&now.bundle, &two) && mr_active_same(&now.previous, &one));
    mr_arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY(coverage_is_counted_apart_by_what_the_next_space_has),
        ON_EVERY(coverage_of_many_batches_is_that_of_all),
        ON_EVERY(the_active_bundle_switches_and_rolls_back),
    };
    const int missing = STORE_MISSING();
    if (missing)
        return missing;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
