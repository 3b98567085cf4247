/* test_store.c - what every store promises, run against each back end.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/rng.h"
#include "tests/unit/store_fixture.h"

/* ---- fetch ----------------------------------------------------------------------------------- */

static void fetch_keeps_order_and_marks_the_missing(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    const mr_str ids[] = {mr_str_of("c"), mr_str_of("nobody"), mr_str_of("a"),
                          mr_str_of("b"), mr_str_of("a"),      mr_str_of("")};
    static const float marks[] = {3, 0, 1, 2, 1, 0};
    seen_record seen[COUNT(ids)];
    put_ok(store, "a", 1, 1);
    put_ok(store, "b", 1, 2);
    put_ok(store, "c", 1, 3);
    fetch_ids(store, MR_ENTITY_ITEM, SPACE, ids, COUNT(ids), seen);
    for (size_t i = 0; i < COUNT(ids); i++) {
        assert_int_equal(seen[i].found, marks[i] != 0);
        assert_true(seen[i].mark == marks[i]);
    }
}

static void fetching_nothing_visits_nothing(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    seen_record none[1];
    fetch_ids(store, MR_ENTITY_USER, 0, NULL, 0, none);
}

static void large_batches_are_whole(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    enum { N = 3000 };
    static char names[N][16];
    static mr_str ids[N];
    static seen_record seen[N];
    mr_store_put_item *items = calloc(N, sizeof *items);
    mr_store_put_result result = {0};
    mr_error err = {0};
    assert_non_null(items);
    for (size_t i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "id-%zu", i * 7919 % N);
        ids[i] = mr_str_of(names[i]);
        items[i] = (mr_store_put_item){ids[i], record_new(SPACE, 1, (float)i, 3)};
    }
    assert_status(mr_store_put(store, MR_ENTITY_ITEM, SPACE, items, N, &result, &err), MR_OK, &err);
    assert_int_equal(result.written, N);
    fetch_ids(store, MR_ENTITY_ITEM, SPACE, ids, N, seen);
    for (size_t i = 0; i < N; i++) {
        assert_true(seen[i].found && seen[i].mark == (float)i);
        record_free(items[i].record);
    }
    free(items);
}

static void ids_are_any_1_to_400_bytes(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    static char longest[401];
    memset(longest, 'x', sizeof longest);
    const struct {
        mr_str id;
        bool fits;
    } row[] = {
        {{"a:b:c", 5}, true},        {{":", 1}, true},       {{"\0", 1}, true},
        {{"a\0b", 3}, true},         {{"a\0c", 3}, true},    {{"\xff\xfe\n\x1b[31m", 8}, true},
        {{"na\xc3\xafve", 6}, true}, {{longest, 399}, true}, {{longest, 400}, true},
        {{longest, 401}, false},     {{"", 0}, false},       {{NULL, 0}, false},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_error err = {0};
        mr_status status =
            put_record(store, MR_ENTITY_ITEM, SPACE, row[i].id, 1, (float)i + 1, 2, NULL, &err);
        assert_status(status, row[i].fits ? MR_OK : MR_INVALID, &err);
        if (!row[i].fits)
            assert_contains(err.message, "bytes long, expected 1 to 400");
    }
    for (size_t i = 0; i < COUNT(row); i++) {
        seen_record seen;
        fetch_ids(store, MR_ENTITY_ITEM, SPACE, &row[i].id, 1, &seen);
        assert_int_equal(seen.found, row[i].fits);
        assert_true(seen.mark == (row[i].fits ? (float)i + 1 : 0));
    }
}

static void entities_and_spaces_are_apart(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    /* Ids that would meet if a key were cut or joined carelessly. */
    static const struct {
        mr_entity entity;
        uint64_t space;
        const char *id;
    } row[] = {
        {MR_ENTITY_ITEM, 1, "x"},    {MR_ENTITY_USER, 1, "x"},
        {MR_ENTITY_ITEM, 0x10, "x"}, {MR_ENTITY_ITEM, UINT64_MAX, "x"},
        {MR_ENTITY_ITEM, 0, "x"},    {MR_ENTITY_ITEM, 1, "0000000000000001:x"},
        {MR_ENTITY_ITEM, 1, "x:"},   {MR_ENTITY_ITEM, 1, ":x"},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_error err = {0};
        assert_status(put_record(store, row[i].entity, row[i].space, mr_str_of(row[i].id), 1,
                                 (float)i + 1, 2, NULL, &err),
                      MR_OK, &err);
    }
    for (size_t i = 0; i < COUNT(row); i++) {
        seen_record seen;
        mr_str id = mr_str_of(row[i].id);
        fetch_ids(store, row[i].entity, row[i].space, &id, 1, &seen);
        assert_true(seen.found && seen.mark == (float)i + 1);
        fetch_ids(store, row[i].entity, UINT64_C(0x123456789), &id, 1, &seen);
        assert_false(seen.found);
    }
}

/* ---- the write rule -------------------------------------------------------------------------- */

static void only_a_larger_64_bit_version_replaces(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    static const struct {
        uint64_t stored, offered;
    } row[] = {
        {0, 0},
        {0, 1},
        {7, 6},
        {7, 7},
        {7, 8},
        {9, 10},                                      /* as text, 10 < 9 */
        {UINT64_C(1) << 53, (UINT64_C(1) << 53) + 1}, /* equal as doubles */
        {(UINT64_C(1) << 53) + 1, UINT64_C(1) << 53},
        {INT64_MAX, UINT64_C(1) << 63}, /* negative when signed */
        {UINT64_C(1) << 63, INT64_MAX},
        {UINT64_C(0x00000001ffffffff), UINT64_C(0x0000000200000000)}, /* by halves */
        {UINT64_C(0x0000000200000000), UINT64_C(0x00000001ffffffff)},
        {UINT64_MAX - 1, UINT64_MAX},
        {UINT64_MAX, UINT64_MAX},
        {UINT64_MAX, 0},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        char id[16];
        mr_store_put_result result = {9, 9};
        mr_error err = {0};
        bool wins = row[i].offered > row[i].stored;
        snprintf(id, sizeof id, "v%zu", i);
        put_ok(store, id, row[i].stored, 1);
        assert_status(put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of(id), row[i].offered, 2, 6,
                                 &result, &err),
                      MR_OK, &err);
        if (result.written != wins || result.stale != !wins)
            fail_msg("%llu onto %llu: written %zu, stale %zu", (unsigned long long)row[i].offered,
                     (unsigned long long)row[i].stored, result.written, result.stale);
        seen_record seen = fetch_one(store, id);
        assert_true(seen.mark == (wins ? 2 : 1));
        assert_true(seen.version == (wins ? row[i].offered : row[i].stored));
    }
}

static void of_one_id_in_a_batch_the_newest_counts(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    mr_store_put_item items[] = {
        {mr_str_of("d"), record_new(SPACE, 5, 1, 2)}, {mr_str_of("e"), record_new(SPACE, 1, 2, 2)},
        {mr_str_of("d"), record_new(SPACE, 7, 3, 9)}, {mr_str_of("d"), record_new(SPACE, 6, 4, 2)},
        {mr_str_of("d"), record_new(SPACE, 7, 5, 2)},
    };
    mr_store_put_result result = {0};
    mr_error err = {0};
    assert_status(mr_store_put(store, MR_ENTITY_ITEM, SPACE, items, COUNT(items), &result, &err),
                  MR_OK, &err);
    assert_int_equal(result.written, 2);
    assert_int_equal(result.stale, 3);
    assert_true(fetch_one(store, "d").mark == 3);
    assert_true(fetch_one(store, "e").mark == 2);
    for (size_t i = 0; i < COUNT(items); i++)
        record_free(items[i].record);
}

static void a_tombstone_removes_until_a_newer_record_comes(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    mr_error err = {0};
    mr_store_put_result result;
    put_ok(store, "t", 1, 5);
    assert_status(put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of("t"), 2, 0, 0, &result, &err),
                  MR_OK, &err);
    assert_int_equal(result.written, 1);
    seen_record seen = fetch_one(store, "t");
    assert_true(seen.found && seen.tombstone && seen.version == 2);
    assert_status(put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of("t"), 1, 5, 4, &result, &err),
                  MR_OK, &err);
    assert_int_equal(result.stale, 1);
    assert_true(fetch_one(store, "t").tombstone);
    put_ok(store, "t", 3, 6);
    assert_true(fetch_one(store, "t").mark == 6);
}

/* ---- walk, spaces, stat ---------------------------------------------------------------------- */

typedef struct {
    char ids[256];
    size_t n;
    size_t stop_after;
} walked;

static bool note_id(void *context, mr_str id, mr_bytes record)
{
    walked *w = context;
    bool damaged = false;
    seen_record seen = see(record, &damaged);
    assert_false(damaged);
    size_t used = strlen(w->ids);
    snprintf(w->ids + used, sizeof w->ids - used, "%.*s%s ", MR_STR_ARG(id),
             seen.tombstone ? "!" : "");
    return ++w->n != w->stop_after;
}

static void a_walk_visits_one_space_in_key_order(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    static const char *const ids[] = {"b", "a", "ab", "B", "a:", "zz", "a0"};
    mr_error err = {0};
    for (size_t i = 0; i < COUNT(ids); i++)
        put_ok(store, ids[i], 1, 1);
    assert_status(put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of("dead"), 1, 0, 0, NULL, &err),
                  MR_OK, &err);
    assert_status(put_record(store, MR_ENTITY_ITEM, SPACE - 1, mr_str_of("w"), 1, 1, 2, NULL, &err),
                  MR_OK, &err);
    assert_status(put_record(store, MR_ENTITY_ITEM, SPACE + 1, mr_str_of("w"), 1, 1, 2, NULL, &err),
                  MR_OK, &err);
    assert_status(put_record(store, MR_ENTITY_USER, SPACE, mr_str_of("w"), 1, 1, 2, NULL, &err),
                  MR_OK, &err);

    walked all = {.stop_after = 0}, three = {.stop_after = 3}, none = {.stop_after = 0};
    assert_status(mr_store_walk(store, MR_ENTITY_ITEM, SPACE, note_id, &all, &err), MR_OK, &err);
    assert_string_equal(all.ids, "B a a0 a: ab b dead! zz ");
    assert_status(mr_store_walk(store, MR_ENTITY_ITEM, SPACE, note_id, &three, &err), MR_OK, &err);
    assert_string_equal(three.ids, "B a a0 ");
    assert_status(mr_store_walk(store, MR_ENTITY_USER, SPACE + 1, note_id, &none, &err), MR_OK,
                  &err);
    assert_int_equal(none.n, 0);
}

static void spaces_are_listed_ascending_and_counted_beyond_capacity(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    static const uint64_t spaces[] = {7, UINT64_MAX, 0, UINT64_C(1) << 63, 0x10};
    static const uint64_t sorted[] = {0, 7, 0x10, UINT64_C(1) << 63, UINT64_MAX};
    uint64_t found[6] = {0};
    size_t n = 99;
    mr_error err = {0};
    assert_status(mr_store_spaces(store, MR_ENTITY_ITEM, found, 6, &n, &err), MR_OK, &err);
    assert_int_equal(n, 0);
    for (size_t i = 0; i < COUNT(spaces); i++) {
        for (int id = 0; id < 5; id++) {
            char name[16];
            snprintf(name, sizeof name, ":%d", id);
            assert_status(
                put_record(store, MR_ENTITY_ITEM, spaces[i], mr_str_of(name), 1, 1, 2, NULL, &err),
                MR_OK, &err);
        }
    }
    assert_status(put_record(store, MR_ENTITY_USER, 3, mr_str_of("u"), 1, 1, 2, NULL, &err), MR_OK,
                  &err);
    assert_status(mr_store_spaces(store, MR_ENTITY_ITEM, found, 6, &n, &err), MR_OK, &err);
    assert_int_equal(n, 5);
    assert_memory_equal(found, sorted, sizeof sorted);
    memset(found, 0, sizeof found);
    assert_status(mr_store_spaces(store, MR_ENTITY_ITEM, found, 2, &n, &err), MR_OK, &err);
    assert_int_equal(n, 5);
    assert_true(found[1] == 7 && found[2] == 0);
    assert_status(mr_store_spaces(store, MR_ENTITY_USER, NULL, 0, &n, &err), MR_OK, &err);
    assert_int_equal(n, 1);
}

static void statistics_follow_what_is_stored(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    mr_store_stats before, after, same;
    mr_error err = {0};
    assert_status(mr_store_stat(store, &before, &err), MR_OK, &err);
    assert_int_equal(before.records, 0);
    assert_int_equal(before.max_bytes, 256 << 20);
    for (int i = 0; i < 100; i++) {
        char id[16];
        snprintf(id, sizeof id, "s%d", i);
        assert_status(
            put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of(id), 1, 1, 256, NULL, &err), MR_OK,
            &err);
    }
    assert_status(mr_store_stat(store, &after, &err), MR_OK, &err);
    assert_int_equal(after.records, 100);
    assert_true(after.used_bytes > before.used_bytes + 100 * 1024);
    assert_true(after.used_bytes < before.used_bytes + 100 * 2500);
    for (int round = 0; round < 50; round++)
        assert_status(put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of("s7"), 2 + (uint64_t)round,
                                 1, 256, NULL, &err),
                      MR_OK, &err);
    assert_status(mr_store_stat(store, &same, &err), MR_OK, &err);
    assert_int_equal(same.records, 100);
    /* LMDB holds on to the pages of the last few transactions. */
    assert_true(same.used_bytes < after.used_bytes + 100 * 1024);
    assert_status(mr_store_sync(store, &err), MR_OK, &err);
}

static void a_removed_space_leaves_the_others(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    enum { N = 2300 }; /* more than a batch of any back end */
    mr_store_put_item *items = calloc(N, sizeof *items);
    static char names[N][16];
    const mr_bytes record = record_new(SPACE, 1, 1, 2);
    mr_store_stats stats, after;
    mr_error err = {0};
    uint64_t removed = 99;
    assert_non_null(items);
    for (size_t i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "%zu", i);
        items[i] = (mr_store_put_item){mr_str_of(names[i]), record};
    }
    assert_status(put_record(store, MR_ENTITY_ITEM, SPACE - 1, mr_str_of("7"), 1, 2, 2, NULL, &err),
                  MR_OK, &err);
    assert_status(put_record(store, MR_ENTITY_ITEM, SPACE + 1, mr_str_of("7"), 1, 3, 2, NULL, &err),
                  MR_OK, &err);
    assert_status(put_record(store, MR_ENTITY_USER, SPACE, mr_str_of("7"), 1, 4, 2, NULL, &err),
                  MR_OK, &err);
    assert_status(mr_store_set_note(store, "n", mr_str_of("v"), &err), MR_OK, &err);
    assert_status(mr_store_stat(store, &stats, &err), MR_OK, &err);
    for (int round = 0; round < 2; round++) { /* the same versions again: nothing stayed behind */
        mr_store_put_result result = {0};
        assert_status(mr_store_put(store, MR_ENTITY_ITEM, SPACE, items, N, &result, &err), MR_OK,
                      &err);
        assert_int_equal(result.written, N);
        assert_status(mr_store_remove_space(store, MR_ENTITY_ITEM, SPACE, &removed, &err), MR_OK,
                      &err);
        assert_int_equal(removed, N);
        assert_false(fetch_one(store, "7").found);
        assert_status(mr_store_stat(store, &after, &err), MR_OK, &err);
        assert_int_equal(after.records, 3);
    }
    if (strcmp(((store_fixture *)*state)->backend, "memory") == 0)
        assert_int_equal(after.used_bytes, stats.used_bytes);
    seen_record seen;
    const mr_str seven = mr_str_of("7");
    fetch_ids(store, MR_ENTITY_ITEM, SPACE - 1, &seven, 1, &seen);
    assert_true(seen.mark == 2);
    fetch_ids(store, MR_ENTITY_ITEM, SPACE + 1, &seven, 1, &seen);
    assert_true(seen.mark == 3);
    fetch_ids(store, MR_ENTITY_USER, SPACE, &seven, 1, &seen);
    assert_true(seen.mark == 4);
    assert_note(store, "n", "v");
    assert_status(mr_store_remove_space(store, MR_ENTITY_ITEM, SPACE, NULL, &err), MR_OK, &err);
    record_free(record);
    free(items);
}

static void a_store_tells_that_it_is_there(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    mr_store_health health;
    memset(&health, 0xff, sizeof health);
    mr_store_health_of(store, &health);
    assert_true(health.connected);
    assert_false(health.tracking);
    assert_int_equal(health.breaker, 0);
    assert_int_equal(health.failures, 0);
    assert_int_equal(health.hits_cache, 0);
}

/* ---- visits ---------------------------------------------------------------------------------- */

typedef struct {
    mr_store *store;
    size_t visits;
    bool failed;
} busy;

static void fetch_put_and_walk_again(void *context, size_t index, mr_bytes record)
{
    busy *b = context;
    mr_error err = {0};
    bool damaged = false;
    seen_record now, then = see(record, &damaged);
    seen_list list = {.seen = &now, .n = 1};
    mr_str id = mr_str_of(index ? "b" : "a");
    mr_store_put_item item = {mr_str_of("b"), record_new(SPACE, 10 + index, 50, 4)};
    uint64_t space;
    size_t spaces;
    mr_store_stats stats;
    walked w = {.stop_after = 0};

    b->visits++;
    b->failed |= damaged || then.mark != (float)index + 1;
    b->failed |= mr_store_put(b->store, MR_ENTITY_ITEM, SPACE, &item, 1, NULL, &err) != MR_OK;
    b->failed |= mr_store_set_note(b->store, "n", mr_str_of("v"), &err) != MR_OK;
    b->failed |=
        mr_store_fetch(b->store, MR_ENTITY_ITEM, SPACE, &id, 1, see_record, &list, &err) != MR_OK;
    b->failed |= now.mark != (index ? 50 : 1); /* the inner fetch is newer than the outer */
    b->failed |= mr_store_walk(b->store, MR_ENTITY_ITEM, SPACE, note_id, &w, &err) != MR_OK;
    b->failed |= mr_store_spaces(b->store, MR_ENTITY_ITEM, &space, 1, &spaces, &err) != MR_OK;
    b->failed |= mr_store_stat(b->store, &stats, &err) != MR_OK;
    b->failed |= w.n != 2 || spaces != 1 || stats.records != 2;
    record_free(item.record);
}

static void a_visit_may_use_the_store_and_keeps_its_snapshot(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    const mr_str ids[] = {mr_str_of("a"), mr_str_of("b")};
    mr_error err = {0};
    busy b = {.store = store};
    put_ok(store, "a", 1, 1);
    put_ok(store, "b", 1, 2);
    assert_status(
        mr_store_fetch(store, MR_ENTITY_ITEM, SPACE, ids, 2, fetch_put_and_walk_again, &b, &err),
        MR_OK, &err);
    assert_int_equal(b.visits, 2);
    assert_false(b.failed);
    assert_true(fetch_one(store, "b").mark == 50);
}

static bool put_behind(void *context, mr_str id, mr_bytes record)
{
    busy *b = context;
    char next[32];
    (void)id;
    (void)record;
    b->visits++;
    snprintf(next, sizeof next, "z%zu", b->visits);
    put_ok(b->store, next, 1, 1);
    return b->visits < 100;
}

static void a_walk_that_adds_records_comes_to_an_end(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    mr_error err = {0};
    busy b = {.store = store};
    put_ok(store, "a", 1, 1);
    put_ok(store, "b", 1, 1);
    assert_status(mr_store_walk(store, MR_ENTITY_ITEM, SPACE, put_behind, &b, &err), MR_OK, &err);
    assert_int_equal(b.visits, 2);
    assert_true(fetch_one(store, "z2").found);
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* Random batches against the plainest model there is: an array of versions. */
static void random_batches_agree_with_a_model(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    enum { IDS = 150, BATCH = 40, ROUNDS = 120 };
    static seen_record model[IDS], seen[IDS];
    static char names[IDS][16];
    static mr_str ids[IDS];
    mr_rng rng = mr_rng_seed(11);
    memset(model, 0, sizeof model);
    for (size_t i = 0; i < IDS; i++) {
        snprintf(names[i], sizeof names[i], "%zu", i * i);
        ids[i] = mr_str_of(names[i]);
    }
    for (int round = 0; round < ROUNDS; round++) {
        mr_store_put_item items[BATCH];
        size_t n = (size_t)mr_rng_below(&rng, BATCH + 1), written = 0;
        bool touched[IDS] = {false};
        for (size_t i = 0; i < n; i++) {
            size_t id = (size_t)mr_rng_below(&rng, IDS), width = (size_t)mr_rng_below(&rng, 12);
            uint64_t version = mr_rng_below(&rng, 1000) << mr_rng_below(&rng, 55);
            float mark = (float)(round * BATCH + (int)i + 1);
            width *= width * 6; /* 0, a tombstone, to 726: inline, on a page, on two pages */
            items[i] = (mr_store_put_item){ids[id], record_new(SPACE, version, mark, width)};
            if (!model[id].found || version > model[id].version) {
                model[id] = (seen_record){true, true, width == 0, version, width ? mark : 0};
                written += !touched[id];
                touched[id] = true;
            }
        }
        mr_store_put_result result = {0};
        mr_error err = {0};
        assert_status(mr_store_put(store, MR_ENTITY_ITEM, SPACE, items, n, &result, &err), MR_OK,
                      &err);
        assert_int_equal(result.written, written);
        assert_int_equal(result.stale, n - written);
        for (size_t i = 0; i < n; i++)
            record_free(items[i].record);
        fetch_ids(store, MR_ENTITY_ITEM, SPACE, ids, IDS, seen);
        for (size_t i = 0; i < IDS; i++) {
            if (seen[i].found != model[i].found || seen[i].version != model[i].version ||
                seen[i].tombstone != model[i].tombstone || seen[i].mark != model[i].mark)
                fail_msg("round %d, id %s: version %llu mark %g, expected %llu and %g", round,
                         names[i], (unsigned long long)seen[i].version, (double)seen[i].mark,
                         (unsigned long long)model[i].version, (double)model[i].mark);
        }
    }
}

static void an_entity_that_is_none_is_refused(void **state)
{
    mr_store *store = ((store_fixture *)*state)->store;
    mr_error err = {0};
    mr_str id = mr_str_of("x");
    size_t n;
    mr_entity none = (mr_entity)2;
    assert_status(mr_store_fetch(store, none, 1, &id, 1, see_record, NULL, &err), MR_INVALID, &err);
    assert_contains(err.message, "entity is 2, expected 0 (item) or 1 (user)");
    assert_status(mr_store_put(store, none, 1, NULL, 0, NULL, &err), MR_INVALID, &err);
    assert_status(mr_store_walk(store, none, 1, note_id, NULL, &err), MR_INVALID, &err);
    assert_status(mr_store_spaces(store, none, NULL, 0, &n, &err), MR_INVALID, &err);
    assert_string_equal(mr_store_backend(store), ((store_fixture *)*state)->backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY(fetch_keeps_order_and_marks_the_missing),
        ON_EVERY(fetching_nothing_visits_nothing),
        ON_EVERY(large_batches_are_whole),
        ON_EVERY(ids_are_any_1_to_400_bytes),
        ON_EVERY(entities_and_spaces_are_apart),
        ON_EVERY(only_a_larger_64_bit_version_replaces),
        ON_EVERY(of_one_id_in_a_batch_the_newest_counts),
        ON_EVERY(a_tombstone_removes_until_a_newer_record_comes),
        ON_EVERY(a_walk_visits_one_space_in_key_order),
        ON_EVERY(spaces_are_listed_ascending_and_counted_beyond_capacity),
        ON_EVERY(statistics_follow_what_is_stored),
        ON_EVERY(a_removed_space_leaves_the_others),
        ON_EVERY(a_store_tells_that_it_is_there),
        ON_EVERY(a_visit_may_use_the_store_and_keeps_its_snapshot),
        ON_EVERY(a_walk_that_adds_records_comes_to_an_end),
        ON_EVERY(random_batches_agree_with_a_model),
        ON_EVERY(an_entity_that_is_none_is_refused),
    };
    const int missing = STORE_MISSING();
    if (missing)
        return missing;
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
