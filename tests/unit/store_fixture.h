/* store_fixture.h - records that say what they are, and short forms of fetch and put.
 *
 * A record made here has [1, width] values that all equal its mark, so that a test can tell whose
 * bytes it was given. Include after cmocka.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_STORE_FIXTURE_H
#define MR_TESTS_STORE_FIXTURE_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "featurestore/record.h"
#include "featurestore/store.h"
#include "tests/support.h"
#ifdef STORE_ON_REDIS
#    include "tests/redis_server.h"
#endif

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define SPACE        UINT64_C(0x9f00c0ffee000001)
#define MAX_WIDTH    1024

/* Runs body in a child process. 0: it returned true. 1: false. 100 + n: signal n ended it. */
static inline int in_child(bool (*body)(const char *folder), const char *folder)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, STDERR_FILENO); /* LMDB and sanitizers say a word when they die */
        alarm(60);
        _exit(body(folder) ? 0 : 1);
    }
    int status = 0;
    assert_true(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

/* The store that a test of every back end runs against: memory and LMDB, or, where STORE_ON_REDIS
 * is defined, a real Redis that is emptied before each test. */
typedef struct {
    const char *backend;
    bool lmdb;
    char *folder;
    char url[4096];
    mr_store *store;
} store_fixture;

static inline mr_store *store_open(const char *url, const mr_store_options *options)
{
    mr_error err = {0};
    mr_store *store = NULL;
    assert_status(mr_store_open(&store, url, options, &err), MR_OK, &err);
    assert_non_null(store);
    return store;
}

static inline mr_status store_open_status(const char *url, const mr_store_options *options,
                                          mr_error *err)
{
    mr_store *store = NULL;
    mr_status status = mr_store_open(&store, url, options, err);
    if (status != MR_OK)
        assert_null(store);
    mr_store_close(store);
    return status;
}

/* For free(). Returns MR_RECORD_HEADER_BYTES + 4 * width bytes; a width of 0 gives a tombstone. */
static inline mr_bytes record_new(uint64_t space, uint64_t version, float mark, size_t width)
{
    float values[MAX_WIDTH];
    mr_error err = {0};
    mr_record_info info = {.version = version,
                           .space = space,
                           .tombstone = width == 0,
                           .tokens = 1,
                           .dim = (uint16_t)width};
    assert_true(width <= MAX_WIDTH);
    for (size_t i = 0; i < width; i++)
        values[i] = mark;
    void *out = malloc(mr_record_bytes(&info));
    assert_non_null(out);
    assert_status(mr_record_encode(&info, width ? values : NULL, out, &err), MR_OK, &err);
    return (mr_bytes){out, mr_record_bytes(&info)};
}

static inline void record_free(mr_bytes record)
{
    free((void *)(uintptr_t)record.data);
}

static inline mr_status put_record(mr_store *store, mr_entity entity, uint64_t space, mr_str id,
                                   uint64_t version, float mark, size_t width,
                                   mr_store_put_result *result, mr_error *err)
{
    mr_store_put_item item = {id, record_new(space, version, mark, width)};
    mr_status status = mr_store_put(store, entity, space, &item, 1, result, err);
    record_free(item.record);
    return status;
}

/* Puts one item record of 4 values and wants it written. */
static inline void put_ok(mr_store *store, const char *id, uint64_t version, float mark)
{
    mr_error err = {0};
    mr_store_put_result result = {0};
    assert_status(
        put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of(id), version, mark, 4, &result, &err),
        MR_OK, &err);
    assert_int_equal(result.written, 1);
    assert_int_equal(result.stale, 0);
}

typedef struct {
    bool visited;
    bool found;
    bool tombstone;
    uint64_t version;
    float mark;
} seen_record;

typedef struct {
    seen_record *seen;
    size_t n;     /* capacity */
    size_t next;  /* the index that the next visit must have */
    bool damaged; /* a record did not check, or its values differ among themselves */
    bool disorder;
} seen_list;

static inline seen_record see(mr_bytes record, bool *damaged)
{
    float values[MAX_WIDTH];
    seen_record seen = {.visited = true, .found = record.data != NULL};
    mr_record_info info;
    if (!record.data)
        return seen;
    if (mr_record_decode("seen", record, &info, values, MAX_WIDTH, NULL) != MR_OK) {
        *damaged = true;
        return seen;
    }
    seen.tombstone = info.tombstone;
    seen.version = info.version;
    seen.mark = info.tombstone ? 0 : values[0];
    for (size_t i = 0; i < (size_t)info.tokens * info.dim; i++)
        *damaged |= values[i] != values[0];
    return seen;
}

static inline void see_record(void *context, size_t index, mr_bytes record)
{
    seen_list *list = context;
    if (index != list->next || index >= list->n) {
        list->disorder = true;
        return;
    }
    list->next++;
    list->seen[index] = see(record, &list->damaged);
}

/* Fetches and wants every id visited once, in order, with sound records. */
static inline void fetch_ids(mr_store *store, mr_entity entity, uint64_t space, const mr_str *ids,
                             size_t n, seen_record *seen)
{
    mr_error err = {0};
    seen_list list = {.seen = seen, .n = n};
    memset(seen, 0, n * sizeof *seen);
    assert_status(mr_store_fetch(store, entity, space, ids, n, see_record, &list, &err), MR_OK,
                  &err);
    assert_false(list.disorder);
    assert_false(list.damaged);
    assert_int_equal(list.next, n);
}

static inline seen_record fetch_one(mr_store *store, const char *id)
{
    seen_record seen;
    mr_str text = mr_str_of(id);
    fetch_ids(store, MR_ENTITY_ITEM, SPACE, &text, 1, &seen);
    return seen;
}

static inline void assert_note(mr_store *store, const char *name, const char *expected)
{
    mr_error err = {0};
    char *value = NULL;
    size_t len = 0;
    assert_status(mr_store_get_note(store, name, &value, &len, &err), MR_OK, &err);
    assert_string_equal(value, expected);
    assert_int_equal(len, strlen(expected));
    free(value);
}

static inline int folder_setup(void **state)
{
    *state = test_folder_new();
    return 0;
}

static inline int folder_teardown(void **state)
{
    test_folder_free(*state);
    return 0;
}
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_setup, folder_teardown)

static inline void store_fixture_find(store_fixture *f)
{
#ifdef STORE_ON_REDIS
    static redis_server *server; /* goes with the process */
    if (!server)
        server = redis_server_start(&(redis_server_options){.maxmemory = "256mb"});
    assert_non_null(server);
    assert_true(redis_server_run(server, "FLUSHALL"));
    snprintf(f->url, sizeof f->url, "%s", redis_server_url(server));
#else
    f->folder = f->lmdb ? test_folder_new() : NULL;
    snprintf(f->url, sizeof f->url, "%s%s",
             f->lmdb ? "lmdb:" : "memory:", f->lmdb ? f->folder : "");
#endif
}

static inline int store_fixture_setup(void **state)
{
    store_fixture *f = *state;
    store_fixture_find(f);
    mr_store_options options = MR_STORE_OPTIONS_DEFAULT;
    options.fast_writes = true;
    options.max_bytes = UINT64_C(256) << 20;
    options.fetch_timeout_ms = 5000; /* machines that run tests are busy */
    f->store = store_open(f->url, &options);
    return 0;
}

static inline int store_fixture_teardown(void **state)
{
    store_fixture *f = *state;
    mr_store_close(f->store);
    test_folder_free(f->folder);
    f->store = NULL;
    return 0;
}

/* Each behaviour once per back end. */
static inline store_fixture *fixture_of(size_t i)
{
#ifdef STORE_ON_REDIS
    static store_fixture fixtures[] = {{.backend = "redis"}};
#else
    static store_fixture fixtures[] = {{.backend = "memory"}, {.backend = "lmdb", .lmdb = true}};
#endif
    return &fixtures[i];
}
/* clang-format off */
#ifdef STORE_ON_REDIS
#define ON_EVERY(test) \
    {#test " (redis)", test, store_fixture_setup, store_fixture_teardown, fixture_of(0)}
#define STORE_MISSING() (redis_server_missing() ? redis_server_skip() : 0)
#else
#define ON_EVERY(test) \
    {#test " (memory)", test, store_fixture_setup, store_fixture_teardown, fixture_of(0)}, \
    {#test " (lmdb)", test, store_fixture_setup, store_fixture_teardown, fixture_of(1)}
#define STORE_MISSING() 0
#endif
/* clang-format on */

#endif
