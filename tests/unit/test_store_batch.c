/* test_store_batch.c - what is written together: all of it or nothing, and the notes that go along.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/store_fixture.h"

static void a_batch_with_a_bad_record_changes_nothing(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    static char too_long[401];
    memset(too_long, 'y', sizeof too_long);
    mr_bytes good = record_new(SPACE, 9, 9, 2), alien = record_new(SPACE + 1, 9, 9, 2);
    mr_bytes broken = record_new(SPACE, 9, 9, 2);
    ((uint8_t *)(uintptr_t)broken.data)[50] ^= 1;
    const struct {
        mr_store_put_item bad;
        mr_status status;
        const char *message;
    } row[] = {
        {{{"evil\0id", 7}, broken},
         MR_CORRUPT,
         "'mixrank:item:9f00c0ffee000001:evil?id' has checksum"},
        {{{"\xff", 1}, {good.data, 20}}, MR_CORRUPT, ":?' is 20 bytes"},
        {{{"none", 4}, {NULL, 0}}, MR_CORRUPT, ":none' is 0 bytes"},
        {{{"alien", 5}, alien},
         MR_MISMATCH,
         ":alien' was made in space 9f00c0ffee000002, the put is for 9f00c0ffee000001"},
        {{{"", 0}, good}, MR_INVALID, "id of record 1 in a put ('') is 0 bytes long"},
        {{{too_long, 401}, good}, MR_INVALID, "is 401 bytes long, expected 1 to 400"},
    };
    put_ok(store, "old", 1, 1);
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_store_put_item items[] = {
            {mr_str_of("old"), good}, row[i].bad, {mr_str_of("new"), good}};
        mr_store_put_result result = {7, 7};
        mr_error err = {0};
        assert_status(mr_store_put_with_note(store, MR_ENTITY_ITEM, SPACE, items, 3, "place",
                                             mr_str_of("x"), &result, &err),
                      row[i].status, &err);
        assert_contains(err.message, row[i].message);
        assert_int_equal(result.written, 7);
        assert_true(fetch_one(store, "old").mark == 1);
        assert_false(fetch_one(store, "new").found);
        char *value = NULL;
        size_t len;
        assert_status(mr_store_get_note(store, "place", &value, &len, &err), MR_NOT_FOUND, &err);
    }
    record_free(good);
    record_free(alien);
    record_free(broken);
}

#ifndef STORE_ON_REDIS
/* ---- a full store ---------------------------------------------------------------------------- */

enum { BATCH = 8, WIDTH = 256 };

static mr_status put_batch(mr_store *store, size_t first, uint64_t version, mr_error *err)
{
    static char names[BATCH][32];
    mr_store_put_item items[BATCH];
    char place[32];
    for (size_t i = 0; i < BATCH; i++) {
        snprintf(names[i], sizeof names[i], "f%zu", first + i);
        items[i] = (mr_store_put_item){mr_str_of(names[i]),
                                       record_new(SPACE, version, (float)(first + i), WIDTH)};
    }
    snprintf(place, sizeof place, "%zu", first + BATCH);
    mr_status status = mr_store_put_with_note(store, MR_ENTITY_ITEM, SPACE, items, BATCH, "place",
                                              mr_str_of(place), NULL, err);
    for (size_t i = 0; i < BATCH; i++)
        record_free(items[i].record);
    return status;
}

static void assert_holds_exactly(mr_store *store, size_t n)
{
    mr_store_stats stats;
    mr_error err = {0};
    char place[32];
    for (size_t i = 0; i < n + BATCH; i++) {
        char name[32];
        snprintf(name, sizeof name, "f%zu", i);
        seen_record seen = fetch_one(store, name);
        assert_int_equal(seen.found, i < n);
        assert_true(!seen.found || seen.mark == (float)i);
    }
    assert_status(mr_store_stat(store, &stats, &err), MR_OK, &err);
    assert_int_equal(stats.records, n);
    assert_true(stats.used_bytes <= stats.max_bytes);
    snprintf(place, sizeof place, "%zu", n);
    assert_note(store, "place", place);
}

static void a_full_store_refuses_the_whole_batch_and_keeps_the_rest(void **state)
{
    const store_fixture *f = *state;
    char url[4200];
    mr_store_options options = MR_STORE_OPTIONS_DEFAULT;
    options.max_bytes = 512 << 10;
    options.fast_writes = true;
    snprintf(url, sizeof url, f->lmdb ? "%s/small" : "%s", f->url);
    mr_store *store = store_open(url, &options);

    mr_status status = MR_OK;
    mr_error err = {0};
    size_t n = 0;
    while (n < 10000 && (status = put_batch(store, n, 1, &err)) == MR_OK)
        n += BATCH;
    assert_status(status, MR_EXHAUSTED, &err);
    assert_contains(err.message, f->lmdb ? "/small' is full: its map of 524288 bytes is used up"
                                         : "the memory store is full: ");
    assert_contains(err.message, "max_bytes");
    assert_true(n >= 128);
    assert_holds_exactly(store, n);

    /* Again and again: a refused batch leaves nothing behind that fills the store further. */
    for (int i = 0; i < 20; i++)
        assert_status(put_batch(store, n, 1, &err), MR_EXHAUSTED, &err);
    assert_holds_exactly(store, n);
    /* What the store has already costs nothing. */
    assert_status(put_batch(store, n - BATCH, 1, &err), MR_OK, &err);
    assert_holds_exactly(store, n);

    if (f->lmdb) {
        mr_store_close(store);
        options.max_bytes *= 2;
        store = store_open(url, &options);
        assert_holds_exactly(store, n);
        assert_status(put_batch(store, n, 1, &err), MR_OK, &err);
        assert_holds_exactly(store, n + BATCH);
    }
    mr_store_close(store);
}

#endif

/* ---- notes ----------------------------------------------------------------------------------- */

static void notes_are_kept_replaced_and_copied(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    mr_error err = {0};
    char *value = NULL;
    size_t len = 77;
    assert_status(mr_store_get_note(store, "nothing", &value, &len, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "no note 'mixrank:nothing'");
    assert_null(value);

    assert_status(mr_store_set_note(store, "n", mr_str_of("one"), &err), MR_OK, &err);
    assert_note(store, "n", "one");
    assert_status(mr_store_set_note(store, "n", mr_str_of("a longer one"), &err), MR_OK, &err);
    assert_note(store, "n", "a longer one");
    assert_status(mr_store_set_note(store, "n", (mr_str){NULL, 0}, &err), MR_OK, &err);
    assert_note(store, "n", "");

    assert_status(mr_store_set_note(store, "bytes", (mr_str){"a\0b", 3}, &err), MR_OK, &err);
    assert_status(mr_store_get_note(store, "bytes", &value, &len, &err), MR_OK, &err);
    assert_int_equal(len, 3);
    assert_memory_equal(value, "a\0b", 4);
    free(value);

    /* A note is no record, whatever its name. */
    assert_status(mr_store_set_note(store, "item:9f00c0ffee000001:n", mr_str_of("z"), &err), MR_OK,
                  &err);
    assert_false(fetch_one(store, "n").found);
}

static void notes_have_bounds(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    mr_error err = {0};
    char *big = calloc(1, MR_STORE_MAX_NOTE_BYTES + 1), *value = NULL;
    char name[402] = "";
    size_t len;
    assert_non_null(big);
    assert_status(mr_store_set_note(store, "big", (mr_str){big, MR_STORE_MAX_NOTE_BYTES}, &err),
                  MR_OK, &err);
    assert_status(mr_store_set_note(store, "big", (mr_str){big, MR_STORE_MAX_NOTE_BYTES + 1}, &err),
                  MR_INVALID, &err);
    assert_contains(err.message, "note 'big' is 1048577 bytes long, expected at most 1048576");
    assert_status(mr_store_set_note(store, "", mr_str_of("x"), &err), MR_INVALID, &err);
    assert_status(mr_store_set_note(store, NULL, mr_str_of("x"), &err), MR_INVALID, &err);
    memset(name, 'n', 400);
    assert_status(mr_store_set_note(store, name, mr_str_of("x"), &err), MR_OK, &err);
    assert_note(store, name, "x");
    name[400] = 'n';
    assert_status(mr_store_set_note(store, name, mr_str_of("x"), &err), MR_INVALID, &err);
    assert_contains(err.message, "is 401 bytes long, expected 1 to 400");
    assert_status(mr_store_get_note(store, name, &value, &len, &err), MR_INVALID, &err);
    free(big);
}

static void a_put_moves_its_note_along(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    mr_error err = {0};
    mr_store_put_item item = {mr_str_of("p"), record_new(SPACE, 4, 1, 2)};
    mr_store_put_result result = {0};
    assert_status(mr_store_put_with_note(store, MR_ENTITY_ITEM, SPACE, &item, 1, "offset",
                                         mr_str_of("17"), &result, &err),
                  MR_OK, &err);
    assert_int_equal(result.written, 1);
    assert_note(store, "offset", "17");
    /* A repeated batch is stale, and its place moves all the same. */
    assert_status(mr_store_put_with_note(store, MR_ENTITY_ITEM, SPACE, &item, 1, "offset",
                                         mr_str_of("18"), &result, &err),
                  MR_OK, &err);
    assert_int_equal(result.written, 0);
    assert_int_equal(result.stale, 1);
    assert_note(store, "offset", "18");
    assert_status(mr_store_put_with_note(store, MR_ENTITY_ITEM, SPACE, NULL, 0, "offset",
                                         mr_str_of("19"), &result, &err),
                  MR_OK, &err);
    assert_note(store, "offset", "19");
    record_free(item.record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY(a_batch_with_a_bad_record_changes_nothing),
#ifndef STORE_ON_REDIS /* promises records, not batches */
        ON_EVERY(a_full_store_refuses_the_whole_batch_and_keeps_the_rest),
#endif
        ON_EVERY(notes_are_kept_replaced_and_copied),
        ON_EVERY(notes_have_bounds),
        ON_EVERY(a_put_moves_its_note_along),
    };
    const int missing = STORE_MISSING();
    if (missing)
        return missing;
    return cmocka_run_group_tests_name("store_batch", tests, NULL, NULL);
}
