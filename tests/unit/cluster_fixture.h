/* cluster_fixture.h - a real 3 + 3 Redis Cluster, a store on it, and 2,000 records to put there.
 *
 * Record i is "id-<i>" with mark i + 1, as of version v: mark i + 1 + 10,000 v. Include after
 * cmocka.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_CLUSTER_FIXTURE_H
#define MR_TESTS_CLUSTER_FIXTURE_H

#include "core/clock.h"
#include "tests/redis_groups.h"
#include "tests/unit/store_fixture.h"

#define RECORDS 2000
#define MASTERS 3
#define WAIT_MS 30000

typedef struct {
    redis_cluster *cluster;
    mr_store *store;
    char url[512];
    char names[RECORDS][16];
    mr_str ids[RECORDS];
    seen_record seen[RECORDS];
} cluster_fixture;

static inline int cluster_setup(void **state)
{
    redis_server_options options = {.password = "sesame"};
    cluster_fixture *f = calloc(1, sizeof *f);
    if (!f || !(f->cluster = redis_cluster_start(MASTERS, MASTERS, &options)))
        return -1;
    snprintf(f->url, sizeof f->url, "%s", redis_cluster_url(f->cluster));
    for (size_t i = 0; i < RECORDS; i++) {
        snprintf(f->names[i], sizeof f->names[i], "id-%04zu", i);
        f->ids[i] = mr_str_of(f->names[i]);
    }
    *state = f;
    return 0;
}

static inline int cluster_teardown(void **state)
{
    cluster_fixture *f = *state;
    redis_cluster_free(f->cluster);
    free(f);
    return 0;
}

/* Each test its own store, with times that a busy machine keeps. */
static inline int cluster_open(void **state)
{
    cluster_fixture *f = *state;
    mr_store_options options = MR_STORE_OPTIONS_DEFAULT;
    options.fetch_timeout_ms = 2000;
    options.write_timeout_ms = 20000;
    options.connect_timeout_ms = 5000;
    f->store = store_open(f->url, &options);
    return 0;
}

static inline int cluster_shut(void **state)
{
    cluster_fixture *f = *state;
    mr_store_close(f->store);
    f->store = NULL;
    return 0;
}
#define ON_CLUSTER(test) cmocka_unit_test_setup_teardown(test, cluster_open, cluster_shut)

static inline float mark_of(size_t i, uint64_t version)
{
    return (float)(i + 1 + 10000 * version);
}

/* Records [first, first + n). */
static inline mr_status put_range(cluster_fixture *f, size_t first, size_t n, uint64_t version,
                                  mr_store_put_result *result, mr_error *err)
{
    mr_store_put_item *items = calloc(n, sizeof *items);
    assert_non_null(items);
    for (size_t i = 0; i < n; i++)
        items[i] = (mr_store_put_item){f->ids[first + i],
                                       record_new(SPACE, version, mark_of(first + i, version), 4)};
    mr_status status = mr_store_put(f->store, MR_ENTITY_ITEM, SPACE, items, n, result, err);
    for (size_t i = 0; i < n; i++)
        record_free(items[i].record);
    free(items);
    return status;
}

static inline void put_all_ok(cluster_fixture *f, uint64_t version)
{
    mr_store_put_result result = {0};
    mr_error err = {0};
    assert_status(put_range(f, 0, RECORDS, version, &result, &err), MR_OK, &err);
    /* What was sent twice counts as stale the second time. */
    assert_int_equal(result.written + result.stale, RECORDS);
}

static inline void fetch_all_ok(cluster_fixture *f, uint64_t version)
{
    fetch_ids(f->store, MR_ENTITY_ITEM, SPACE, f->ids, RECORDS, f->seen);
    for (size_t i = 0; i < RECORDS; i++) {
        if (!f->seen[i].found || f->seen[i].version != version ||
            f->seen[i].mark != mark_of(i, version))
            fail_msg("record %zu: found %d, version %llu, mark %g; expected version %llu", i,
                     f->seen[i].found, (unsigned long long)f->seen[i].version,
                     (double)f->seen[i].mark, (unsigned long long)version);
    }
}

/* The key of record i in the servers. */
static inline const char *key_of(const cluster_fixture *f, size_t i)
{
    static char key[128];
    snprintf(key, sizeof key, "mixrank:item:%016llx:%s", (unsigned long long)SPACE, f->names[i]);
    return key;
}

/* How often the servers answered with this error since they were started. */
static inline int64_t errors_told(cluster_fixture *f, const char *word)
{
    char field[64];
    int64_t sum = 0;
    snprintf(field, sizeof field, "errorstat_%s:count=", word);
    for (int i = 0; i < redis_cluster_nodes(f->cluster); i++) {
        redisReply *reply =
            redis_server_command(redis_cluster_node(f->cluster, i), "INFO errorstats");
        const char *found = reply ? strstr(reply->str, field) : NULL;
        if (found)
            sum += strtoll(found + strlen(field), NULL, 10);
        if (reply)
            freeReplyObject(reply);
    }
    return sum;
}

#endif
