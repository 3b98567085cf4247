/* test_redis_cluster.c - a store on a Redis Cluster that is whole: spread, moved, failed over in
 * peace. test_redis_cluster_away.c has the losses.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#include "core/rng.h"
#include "featurestore/redis_slots.h"
#include "tests/unit/cluster_fixture.h"

static void slots_are_those_that_the_server_computes(void **state)
{
    cluster_fixture *f = *state;
    static const char tags[] = "{}{}ab";
    mr_rng rng = mr_rng_seed(5);
    for (int i = 0; i < 1000; i++) {
        char key[40];
        size_t len = (size_t)mr_rng_below(&rng, sizeof key);
        for (size_t k = 0; k < len; k++)
            key[k] =
                i % 2 ? tags[mr_rng_below(&rng, sizeof tags - 1)] : (char)mr_rng_below(&rng, 256);
        int64_t want =
            redis_server_integer(redis_cluster_node(f->cluster, 0), "CLUSTER KEYSLOT %b", key, len);
        assert_int_equal(mr_redis_slot((mr_bytes){key, len}), want);
    }
}

static void records_are_spread_over_the_masters_and_come_back(void **state)
{
    cluster_fixture *f = *state;
    mr_store_put_result result = {0};
    mr_error err = {0};
    assert_string_equal(mr_store_backend(f->store), "redis");
    assert_status(put_range(f, 0, RECORDS, 1, &result, &err), MR_OK, &err);
    assert_int_equal(result.written, RECORDS);
    assert_int_equal(result.stale, 0);
    for (int i = 0; i < MASTERS; i++)
        assert_true(redis_server_integer(redis_cluster_node(f->cluster, i), "DBSIZE") > 500);
    fetch_all_ok(f, 1);

    assert_status(put_range(f, 0, RECORDS, 1, &result, &err), MR_OK, &err);
    assert_int_equal(result.written, 0);
    assert_int_equal(result.stale, RECORDS);
    assert_status(put_range(f, 0, 100, 2, &result, &err), MR_OK, &err);
    assert_int_equal(result.written, 100);
    assert_status(put_range(f, 0, 200, 2, &result, &err), MR_OK, &err);
    assert_int_equal(result.written, 100);
    assert_int_equal(result.stale, 100);

    /* Missing, twice, too long and empty ids, in one fetch over all masters. */
    static char longest[401];
    memset(longest, 'x', sizeof longest);
    const mr_str ids[] = {f->ids[7], mr_str_of("nobody"), f->ids[7], {longest, 401},
                          {"", 0},   f->ids[1999]};
    seen_record seen[COUNT(ids)];
    fetch_ids(f->store, MR_ENTITY_ITEM, SPACE, ids, COUNT(ids), seen);
    static const bool found[] = {true, false, true, false, false, true};
    for (size_t i = 0; i < COUNT(ids); i++)
        assert_int_equal(seen[i].found, found[i]);
}

typedef struct {
    size_t n;
    char last[16];
    bool disorder;
} walked;

static bool on_walk(void *context, mr_str id, mr_bytes record)
{
    walked *w = context;
    char name[16];
    snprintf(name, sizeof name, "%.*s", (int)id.len, id.data);
    w->disorder |= w->n > 0 && strcmp(w->last, name) >= 0;
    w->disorder |= record.len == 0;
    memcpy(w->last, name, sizeof name);
    w->n++;
    return true;
}

static void walk_spaces_stat_and_remove_reach_every_master(void **state)
{
    cluster_fixture *f = *state;
    walked w = {0};
    mr_error err = {0};
    mr_store_stats stats = {0};
    uint64_t spaces[4] = {0}, removed = 0;
    size_t n = 0;
    put_all_ok(f, 3);
    assert_status(put_record(f->store, MR_ENTITY_ITEM, 5, mr_str_of("alone"), 1, 1, 4, NULL, &err),
                  MR_OK, &err);
    assert_status(mr_store_walk(f->store, MR_ENTITY_ITEM, SPACE, on_walk, &w, &err), MR_OK, &err);
    assert_int_equal(w.n, RECORDS);
    assert_false(w.disorder);

    assert_status(mr_store_spaces(f->store, MR_ENTITY_ITEM, spaces, 4, &n, &err), MR_OK, &err);
    assert_int_equal(n, 2);
    assert_true(spaces[0] == 5 && spaces[1] == SPACE);
    assert_status(mr_store_stat(f->store, &stats, &err), MR_OK, &err);
    assert_true(stats.records >= RECORDS + 1);
    assert_true(stats.used_bytes > 0);

    assert_status(mr_store_remove_space(f->store, MR_ENTITY_ITEM, SPACE, &removed, &err), MR_OK,
                  &err);
    assert_int_equal(removed, RECORDS);
    assert_false(fetch_one(f->store, "id-0007").found);
    assert_status(mr_store_remove_space(f->store, MR_ENTITY_ITEM, 5, &removed, &err), MR_OK, &err);
    assert_int_equal(removed, 1);
    for (int i = 0; i < MASTERS; i++)
        assert_int_equal(redis_server_integer(redis_cluster_node(f->cluster, i), "DBSIZE"), 0);
}

static void notes_lie_on_the_master_of_their_slot(void **state)
{
    cluster_fixture *f = *state;
    mr_error err = {0};
    char name[16], value[16];
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "note-%d", i);
        snprintf(value, sizeof value, "value %d", i);
        assert_status(mr_store_set_note(f->store, name, mr_str_of(value), &err), MR_OK, &err);
    }
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "note-%d", i);
        snprintf(value, sizeof value, "value %d", i);
        assert_note(f->store, name, value);
    }
    char *text = NULL;
    size_t len;
    assert_status(mr_store_get_note(f->store, "never", &text, &len, &err), MR_NOT_FOUND, &err);
    mr_store_put_item item = {f->ids[0], record_new(SPACE, 9, 1, 4)};
    assert_status(mr_store_put_with_note(f->store, MR_ENTITY_ITEM, SPACE, &item, 1, "with",
                                         mr_str_of("it"), NULL, &err),
                  MR_OK, &err);
    record_free(item.record);
    assert_note(f->store, "with", "it");
}

static void a_node_that_lost_the_script_gets_it_again(void **state)
{
    cluster_fixture *f = *state;
    put_all_ok(f, 10);
    assert_true(redis_server_run(redis_cluster_node(f->cluster, 1), "SCRIPT FLUSH"));
    put_all_ok(f, 11);
    fetch_all_ok(f, 11);
}

static void there_is_no_tracking_and_health_says_connected(void **state)
{
    cluster_fixture *f = *state;
    mr_store_health health;
    fetch_all_ok(f, 11);
    mr_store_health_of(f->store, &health);
    assert_true(health.connected);
    assert_false(health.tracking);
    assert_int_equal(health.breaker, 0);
    assert_int_equal(health.hits_store, RECORDS);
    assert_int_equal(health.failures, 0);
}

static void a_cache_before_a_cluster_lives_by_age(void **state)
{
    cluster_fixture *f = *state;
    mr_store_options options = MR_STORE_OPTIONS_DEFAULT;
    mr_store_health health;
    options.cache_bytes = 16 << 20;
    options.cache_soft_age_ms = 200;
    options.fetch_timeout_ms = 2000;
    mr_store *cached = store_open(f->url, &options);
    put_ok(f->store, "id-0000", 20, 1);
    assert_true(fetch_one(cached, "id-0000").mark == 1);
    put_ok(f->store, "id-0000", 21, 2);
    assert_true(fetch_one(cached, "id-0000").mark == 1); /* nobody told it */
    redis_server_sleep_ms(300);
    for (int i = 0; i < 100 && fetch_one(cached, "id-0000").mark != 2; i++)
        redis_server_sleep_ms(20);
    assert_true(fetch_one(cached, "id-0000").mark == 2);
    mr_store_health_of(cached, &health);
    assert_false(health.tracking);
    mr_store_close(cached);
}

/* ---- under load ------------------------------------------------------------------------------ */

typedef struct {
    cluster_fixture *f;
    atomic_bool stop;
    atomic_int fetches, failures, wrong;
    atomic_ullong version; /* that every record has at least */
    char message[512];
} load;

static void see_load(void *context, size_t index, mr_bytes record)
{
    load *l = ((void **)context)[0];
    uint64_t least = *(uint64_t *)((void **)context)[1];
    bool damaged = false;
    seen_record seen = see(record, &damaged);
    if (!seen.found || damaged || seen.version < least || seen.mark != mark_of(index, seen.version))
        atomic_fetch_add(&l->wrong, 1);
}

static void *fetch_on(void *context)
{
    load *l = context;
    while (!atomic_load(&l->stop)) {
        mr_error err = {0};
        uint64_t least = atomic_load(&l->version);
        void *both[] = {l, &least};
        if (mr_store_fetch(l->f->store, MR_ENTITY_ITEM, SPACE, l->f->ids, 256, see_load, both,
                           &err) != MR_OK) {
            if (atomic_fetch_add(&l->failures, 1) == 0)
                memcpy(l->message, err.message, sizeof l->message);
        }
        atomic_fetch_add(&l->fetches, 1);
    }
    return NULL;
}

/* Fetches and writes go on in threads while `change` does something to the cluster. */
static void under_load(cluster_fixture *f, void (*change)(cluster_fixture *f, load *l))
{
    load l = {.f = f};
    pthread_t threads[4];
    put_all_ok(f, 100);
    atomic_store(&l.version, 100);
    for (size_t i = 0; i < COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fetch_on, &l), 0);
    change(f, &l);
    int before = atomic_load(&l.fetches);
    for (int i = 0; i < 500 && atomic_load(&l.fetches) < before + 50; i++)
        redis_server_sleep_ms(10);
    atomic_store(&l.stop, true);
    for (size_t i = 0; i < COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    if (l.failures)
        fail_msg("%d of %d fetches failed; the first: %s", l.failures, l.fetches, l.message);
    assert_int_equal(l.wrong, 0);
    assert_true(l.fetches >= before + 50);
}

static void write_more(cluster_fixture *f, load *l)
{
    uint64_t next = atomic_load(&l->version) + 1;
    put_all_ok(f, next);
    atomic_store(&l->version, next);
}

/* Ten slots of the first records go round, each with some keys on both sides for a while. */
static void move_slots(cluster_fixture *f, load *l)
{
    int64_t asked = errors_told(f, "ASK"), moved = errors_told(f, "MOVED");
    for (size_t i = 0; i < 10; i++) {
        const char *key = key_of(f, i);
        int slot = (int)mr_redis_slot((mr_bytes){key, strlen(key)});
        int from = redis_cluster_owner(f->cluster, 0, slot), to = (from + 1) % MASTERS;
        assert_true(from >= 0 && from < MASTERS);
        assert_true(redis_cluster_move_begin(f->cluster, slot, from, to));
        write_more(f, l);
        int keys;
        while ((keys = redis_cluster_move_keys(f->cluster, slot, from, to, 1)) > 0)
            write_more(f, l);
        assert_int_equal(keys, 0);
        assert_true(redis_cluster_move_end(f->cluster, slot, from, to));
        write_more(f, l);
    }
    assert_true(errors_told(f, "ASK") > asked);
    assert_true(errors_told(f, "MOVED") > moved);
}

static void slots_move_without_a_fetch_or_a_write_failing(void **state)
{
    cluster_fixture *f = *state;
    under_load(f, move_slots);
    fetch_all_ok(f, 100 + 10 * 3);
}

/* CLUSTER FAILOVER: the master hands over. */
static void hand_over(cluster_fixture *f, load *l)
{
    redis_server *replica = redis_cluster_node(f->cluster, MASTERS);
    assert_true(redis_server_run(replica, "CLUSTER FAILOVER"));
    for (int i = 0; i < 20; i++)
        write_more(f, l);
    assert_true(redis_server_wait_info(replica, "role:master", WAIT_MS));
    write_more(f, l);
}

static void a_master_hands_over_without_a_fetch_or_a_write_failing(void **state)
{
    cluster_fixture *f = *state;
    under_load(f, hand_over);
}

int main(void)
{
    if (redis_server_missing())
        return redis_server_skip();
    const struct CMUnitTest tests[] = {
        ON_CLUSTER(slots_are_those_that_the_server_computes),
        ON_CLUSTER(records_are_spread_over_the_masters_and_come_back),
        ON_CLUSTER(walk_spaces_stat_and_remove_reach_every_master),
        ON_CLUSTER(notes_lie_on_the_master_of_their_slot),
        ON_CLUSTER(a_node_that_lost_the_script_gets_it_again),
        ON_CLUSTER(there_is_no_tracking_and_health_says_connected),
        ON_CLUSTER(a_cache_before_a_cluster_lives_by_age),
        ON_CLUSTER(slots_move_without_a_fetch_or_a_write_failing),
        ON_CLUSTER(a_master_hands_over_without_a_fetch_or_a_write_failing),
    };
    return cmocka_run_group_tests(tests, cluster_setup, cluster_teardown);
}
