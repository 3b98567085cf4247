/* scripted_store.h - a back end that does what a test says, and a cache before it.
 *
 * Ids are one letter; the record of 'a' in version 3 is the text "a3", and version 0 is none. The
 * script may fail, stop after some ids, wait for a word, or call the test between reading what it
 * holds and answering. Include after cmocka.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_UNIT_SCRIPTED_STORE_H
#define MR_TESTS_UNIT_SCRIPTED_STORE_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "featurestore/store_backend.h"
#include "tests/support.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

typedef struct scripted {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    unsigned version[128];
    unsigned calls;   /* of fetch */
    char asked[1024]; /* ids of all fetches, "ab,c" for two of them */
    unsigned puts, others, closed;
    mr_status fail; /* of fetch, after `after` visits, and of put and remove */
    size_t after;
    bool hold; /* fetches wait until it is false */
    unsigned held;
    void (*meanwhile)(struct scripted *inner); /* with what was asked for read, and not answered */
    const mr_store_watcher *watcher;
    void *cached; /* the store under test */
} scripted;

static mr_status scripted_away(const scripted *inner, mr_error *err)
{
    return mr_error_set(err, inner->fail, __FILE__, __LINE__, "the script says no");
}

static void scripted_close(void *self)
{
    ((scripted *)self)->closed++;
}

static mr_status scripted_fetch(void *self, mr_store_key *key, const mr_str *ids, size_t n,
                                mr_store_visit visit, void *context, mr_error *err)
{
    scripted *inner = self;
    unsigned *version = calloc(n, sizeof *version);
    (void)key;
    pthread_mutex_lock(&inner->lock);
    inner->held += inner->hold;
    pthread_cond_broadcast(&inner->moved);
    while (inner->hold)
        pthread_cond_wait(&inner->moved, &inner->lock);
    inner->calls++;
    size_t len = strlen(inner->asked);
    for (size_t i = 0; i < n && len + 3 < sizeof inner->asked; i++) {
        if (i == 0 && len)
            inner->asked[len++] = ',';
        inner->asked[len++] = ids[i].data[0];
    }
    inner->asked[len] = '\0';
    for (size_t i = 0; version && i < n; i++)
        version[i] = inner->version[ids[i].data[0] & 127];
    const mr_status fail = version ? inner->fail : MR_NO_MEMORY;
    const size_t reach = fail == MR_OK ? n : version && inner->after < n ? inner->after : 0;
    pthread_mutex_unlock(&inner->lock);
    if (inner->meanwhile)
        inner->meanwhile(inner);
    for (size_t i = 0; i < reach; i++) {
        char text[32];
        const int bytes = snprintf(text, sizeof text, "%c%u", ids[i].data[0], version[i]);
        visit(context, i, version[i] ? (mr_bytes){text, (size_t)bytes} : (mr_bytes){NULL, 0});
    }
    free(version);
    return fail == MR_OK ? MR_OK : fail == MR_NO_MEMORY ? fail : scripted_away(inner, err);
}

static mr_status scripted_put(void *self, mr_store_key *key, const mr_store_write *writes, size_t n,
                              const mr_store_note *note, mr_store_put_result *result, mr_error *err)
{
    scripted *inner = self;
    (void)key;
    (void)note;
    pthread_mutex_lock(&inner->lock);
    inner->puts++;
    for (size_t i = 0; inner->fail == MR_OK && i < n; i++)
        inner->version[writes[i].id.data[0] & 127] = (unsigned)writes[i].version;
    pthread_mutex_unlock(&inner->lock);
    result->written = n;
    return inner->fail == MR_OK ? MR_OK : scripted_away(inner, err);
}

static mr_status scripted_get_note(void *self, mr_bytes key, char **value, size_t *len,
                                   mr_error *err)
{
    (void)key;
    (void)err;
    ((scripted *)self)->others++;
    *len = 4;
    *value = malloc(5);
    if (*value)
        memcpy(*value, "note", 5);
    return MR_OK;
}

static mr_status scripted_walk(void *self, const mr_store_key *key, mr_store_walk_visit visit,
                               void *context, mr_error *err)
{
    (void)key;
    (void)err;
    ((scripted *)self)->others++;
    (void)visit(context, mr_str_of("w"), (mr_bytes){"w1", 2});
    return MR_OK;
}

static mr_status scripted_spaces(void *self, const mr_store_key *key, uint64_t *spaces,
                                 size_t capacity, size_t *n, mr_error *err)
{
    (void)key;
    (void)err;
    ((scripted *)self)->others++;
    *n = 1;
    if (capacity)
        spaces[0] = 77;
    return MR_OK;
}

static mr_status scripted_stat(void *self, mr_store_stats *out, mr_error *err)
{
    (void)err;
    ((scripted *)self)->others++;
    *out = (mr_store_stats){1, 2, 3};
    return MR_OK;
}

static mr_status scripted_sync(void *self, mr_error *err)
{
    (void)err;
    ((scripted *)self)->others++;
    return MR_OK;
}

static mr_status scripted_remove(void *self, const mr_store_key *key, uint64_t *removed,
                                 mr_error *err)
{
    scripted *inner = self;
    (void)key;
    inner->others++;
    memset(inner->version, 0, sizeof inner->version);
    *removed = 5;
    return inner->fail == MR_OK ? MR_OK : scripted_away(inner, err);
}

static void scripted_health(void *self, mr_store_health *out)
{
    (void)self;
    out->fetches = 1000; /* only what reached it: the cache knows better */
    out->reconnects = 7;
    out->connected = true;
}

static void scripted_watch(void *self, const mr_store_watcher *watcher)
{
    ((scripted *)self)->watcher = watcher;
}

static const mr_store_ops scripted_ops = {
    .name = "scripted",
    .close = scripted_close,
    .fetch = scripted_fetch,
    .put = scripted_put,
    .get_note = scripted_get_note,
    .walk = scripted_walk,
    .spaces = scripted_spaces,
    .stat = scripted_stat,
    .sync = scripted_sync,
    .remove = scripted_remove,
    .health = scripted_health,
    .watch = scripted_watch,
};

/* ---- the store under test -------------------------------------------------------------------- */

#define KEY_PREFIX "t:item:00000000000000aa:"

static inline mr_store_key scripted_key(void)
{
    mr_store_key key = {.prefix_len = sizeof KEY_PREFIX - 1, .len = sizeof KEY_PREFIX - 1};
    memcpy(key.bytes, KEY_PREFIX, key.prefix_len);
    return key;
}

static inline int scripted_setup(void **state)
{
    scripted *inner = calloc(1, sizeof *inner);
    const mr_store_options options = {.cache_bytes = 1 << 20};
    mr_error err = {0};
    assert_non_null(inner);
    pthread_mutex_init(&inner->lock, NULL);
    pthread_cond_init(&inner->moved, NULL);
    assert_status(mr_store_cached_open(&inner->cached, &scripted_ops, inner, &options, &err), MR_OK,
                  &err);
    *state = inner;
    return 0;
}

static inline int scripted_teardown(void **state)
{
    scripted *inner = *state;
    mr_store_cached_ops.close(inner->cached);
    assert_int_equal(inner->closed, 1);
    pthread_mutex_destroy(&inner->lock);
    pthread_cond_destroy(&inner->moved);
    free(inner);
    return 0;
}

#define SCRIPTED(test) cmocka_unit_test_setup_teardown(test, scripted_setup, scripted_teardown)

/* What a fetch of one-letter ids visited: "a3 - b1" with '-' for none and '?' for not visited. */
typedef struct {
    char text[64][12];
    size_t n, last;
    bool disorder;
} answers;

static inline void note_answer(void *context, size_t index, mr_bytes record)
{
    answers *a = context;
    a->disorder |= index >= 64 || (a->n && index <= a->last);
    a->n++;
    a->last = index;
    if (index < 64)
        snprintf(a->text[index], sizeof a->text[index], "%.*s", record.data ? (int)record.len : 1,
                 record.data ? (const char *)record.data : "-");
}

static inline mr_status scripted_get(scripted *inner, const char *letters, char out[512],
                                     mr_error *err)
{
    mr_store_key key = scripted_key();
    mr_str ids[64] = {{NULL, 0}};
    answers a = {.disorder = false};
    const size_t n = strlen(letters);
    for (size_t i = 0; i < n; i++)
        ids[i] = (mr_str){letters + i, 1};
    const mr_status status =
        mr_store_cached_ops.fetch(inner->cached, &key, ids, n, note_answer, &a, err);
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < n; i++)
        len += (size_t)snprintf(out + len, 512 - len, "%s%s", i ? " " : "",
                                a.text[i][0] ? a.text[i] : "?");
    if (a.disorder)
        snprintf(out, 512, "visited out of order");
    return status;
}

/* Fetches the letters; compares what came, what the store was asked for, and the status. */
#define assert_get(inner, letters, want, want_asked, want_status)                           \
    do {                                                                                    \
        char got_[512];                                                                     \
        mr_error err_ = {0};                                                                \
        (inner)->asked[0] = '\0';                                                           \
        assert_status(scripted_get((inner), (letters), got_, &err_), (want_status), &err_); \
        assert_string_equal(got_, (want));                                                  \
        assert_string_equal((inner)->asked, (want_asked));                                  \
    } while (0)

static inline mr_status scripted_write(scripted *inner, char id, unsigned version)
{
    mr_store_key key = scripted_key();
    mr_store_put_result result = {0};
    const mr_store_write write = {.id = {&id, 1}, .version = version};
    return mr_store_cached_ops.put(inner->cached, &key, &write, 1, NULL, &result, NULL);
}

/* The store tells that a record changed. */
static inline void scripted_tell(scripted *inner, char id)
{
    mr_store_key key = scripted_key();
    assert_true(mr_store_key_set(&key, (mr_str){&id, 1}));
    inner->watcher->changed(inner->watcher->context, (mr_bytes){key.bytes, key.len});
}

static inline mr_store_health scripted_health_of(scripted *inner)
{
    mr_store_health health = {0};
    mr_store_cached_ops.health(inner->cached, &health);
    return health;
}

#endif
