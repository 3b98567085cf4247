/* store_redis.c - records in Redis: one MGET per fetch, versioned writes, changes told by the
 * server.
 *
 * Records lie as plain strings under their keys, notes under <namespace>:note:<name>. What the
 * connections do is redis_node.c, who gets which request a router's matter; here is what is asked,
 * and whether the answer makes sense. docs/store.md says what operators need to know.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/store_redis.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "featurestore/record.h"

#define MGET_KEYS      4096 /* per request; a fetch of more sends several at once */
#define FIRST_BUCKET   16   /* us */
#define RETRY_PAUSE_MS 20
#define REASON_MS      500 /* an attempt that ran out of time may still say why */

/* ---- open and close -------------------------------------------------------------------------- */

static void close_router(void *context)
{
    mr_redis_router *router = context;
    router->close(router);
}

static void redis_close(void *self)
{
    mr_redis_store *store = self;
    mr_redis_loop_free(store->loop, store->router ? close_router : NULL, store->router);
    mr_redis_url_free(&store->url);
    free(store);
}

mr_status mr_store_redis_open(void **self, const char *url, const mr_store_options *options,
                              mr_error *err)
{
    mr_redis_store *store = calloc(1, sizeof *store);
    if (!store)
        return MR_FAIL(err, NO_MEMORY, "no memory for a Redis store");
    store->options = *options;
    store->options.name_space = NULL;
    store->options.password = NULL;
    mr_status status = mr_redis_url_parse(url, &store->url, err);
    if (status == MR_OK && options->password)
        status = mr_redis_url_set_password(&store->url, options->password, err);
    if (status == MR_OK)
        status = mr_redis_loop_new(&store->loop, err);
    if (status == MR_OK)
        status = store->url.kind == MR_REDIS_CLUSTER
                     ? mr_redis_cluster_open(&store->router, store->loop, &store->url,
                                             &store->options, err)
                     : mr_redis_single_open(&store->router, store->loop, &store->url,
                                            &store->options, err);
    if (status == MR_OK) {
        mr_redis_script_sha(store->script_sha);
        int64_t until = mr_clock_monotonic_us() + (options->connect_timeout_ms + REASON_MS) * 1000;
        mr_error why = {0};
        status = store->router->wait_ready(store->router, until, &why);
        if (options->open_away)
            status = MR_OK;
        else if (status != MR_OK && err)
            *err = why;
    }
    if (status != MR_OK) {
        redis_close(store);
        return status;
    }
    *self = store;
    return MR_OK;
}

/* ---- asking ---------------------------------------------------------------------------------- */

static void pause_ms(int64_t ms)
{
    const struct timespec pause = {.tv_nsec = (long)(ms * 1000000)};
    (void)nanosleep(&pause, NULL);
}

/* An error that will be another answer soon. */
static bool is_excuse(const mr_redis_store *store, const mr_redis_value *value)
{
    static const char *const words[] = {"LOADING",  "BUSY",        "MASTERDOWN",
                                        "TRYAGAIN", "CLUSTERDOWN", "NOREPLICAS"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (mr_redis_is_error(value, words[i]))
            return true;
    }
    /* With a fixed address nobody will name another server. */
    return store->url.kind != MR_REDIS_SINGLE && mr_redis_is_error(value, "READONLY");
}

mr_status mr_redis_store_run(mr_redis_store *store, mr_redis_batch *batch, mr_error *err)
{
    int64_t until = mr_clock_monotonic_us() + store->options.write_timeout_ms * 1000;
    mr_error last = {0}; /* why a connection was lost says more than that time ran out then */
    for (;;) {
        mr_error why = {0};
        mr_status status = mr_redis_batch_run(batch, until, true, &why);
        bool time_left = mr_clock_monotonic_us() + RETRY_PAUSE_MS * 1000 < until, again = false;
        if (status == MR_OK) {
            for (size_t i = 0; time_left && i < mr_redis_batch_count(batch); i++) {
                if (!is_excuse(store, mr_redis_batch_value(batch, i)))
                    continue;
                mr_redis_batch_forget(batch, i);
                again = true;
            }
            if (!again)
                return MR_OK;
        } else if (!time_left || status != MR_UNAVAILABLE) {
            if (status == MR_TIMEOUT && last.status != MR_OK)
                why = last;
            atomic_fetch_add(&store->failures, 1);
            if (err)
                *err = why;
            return why.status;
        } else {
            last = why;
        }
        pause_ms(RETRY_PAUSE_MS);
    }
}

mr_status mr_redis_store_refused(const mr_redis_store *store, const mr_redis_value *value,
                                 mr_error *err)
{
    static const char *const away[] = {"LOADING",     "BUSY",       "MASTERDOWN", "TRYAGAIN",
                                       "CLUSTERDOWN", "NOREPLICAS", "READONLY"};
    const char *shown = store->url.shown, *said = value->str;
    const char *user = store->url.user ? store->url.user : "default";
    for (size_t i = 0; i < sizeof away / sizeof *away; i++) {
        if (!mr_redis_is_error(value, away[i]))
            continue;
        if (strcmp(away[i], "READONLY") == 0)
            return MR_FAIL(
                err, UNAVAILABLE,
                "'%.200s' is a replica and takes no writes (%.150s); name its master, or "
                "the Sentinels with redis+sentinel://",
                shown, said);
        return MR_FAIL(err, UNAVAILABLE, "'%.200s' does not serve now: %.200s", shown, said);
    }
    if (mr_redis_is_error(value, "NOPERM"))
        return MR_FAIL(err, IO,
                       "'%.150s' does not let user '%.60s' do this (%.150s); docs/store.md lists "
                       "the commands and keys that the user needs",
                       shown, user, said);
    if (mr_redis_is_error(value, "NOAUTH") || mr_redis_is_error(value, "WRONGPASS"))
        return MR_FAIL(err, IO, "'%.150s' does not let user '%.60s' in: %.150s", shown, user, said);
    if (mr_redis_is_error(value, "OOM"))
        return MR_FAIL(err, EXHAUSTED,
                       "'%.200s' is full: %.120s; raise maxmemory, or remove what is not needed",
                       shown, said);
    if (mr_redis_is_error(value, "MOVED") || mr_redis_is_error(value, "CROSSSLOT"))
        return MR_FAIL(err, MISMATCH,
                       "'%.200s' is part of a cluster (%.100s); write redis+cluster://", shown,
                       said);
    if (mr_redis_is_error(value, "WRONGTYPE"))
        return MR_FAIL(err, MISMATCH,
                       "'%.200s' holds something else under a key of ours (%.100s); does another "
                       "program use the namespace?",
                       shown, said);
    return MR_FAIL(err, IO, "'%.200s' refused: %.250s", shown, said);
}

mr_status mr_redis_store_odd(const mr_redis_store *store, const char *command, mr_error *err)
{
    return MR_FAIL(err, CORRUPT, "'%.200s' gave an answer to %s that makes no sense; is it Redis?",
                   store->url.shown, command);
}

mr_status mr_redis_store_ask(mr_redis_store *store, const mr_bytes *args, size_t n, mr_bytes key,
                             const mr_redis_address *at, mr_redis_batch **batch,
                             const mr_redis_value **value, mr_error *err)
{
    *batch = NULL;
    mr_status status = mr_redis_batch_new(batch, store->router, err);
    if (status == MR_OK)
        status = mr_redis_batch_add(*batch, args, n, key, at, err);
    if (status == MR_OK)
        status = mr_redis_store_run(store, *batch, err);
    if (status != MR_OK)
        return status;
    *value = mr_redis_batch_value(*batch, 0);
    return (*value)->type == MR_REDIS_ERROR ? mr_redis_store_refused(store, *value, err) : MR_OK;
}

void mr_redis_store_look_at(mr_redis_store *store, mr_bytes value)
{
    mr_record_info info;
    if (value.data && mr_record_peek(NULL, value, &info, NULL) != MR_OK)
        atomic_fetch_add(&store->foreign_values, 1);
}

/* ---- fetch ----------------------------------------------------------------------------------- */

/* The keys of those ids that can have one, behind a command's name. */
typedef struct {
    mr_bytes *args; /* args[0] is the command; owned, and the keys lie behind */
    size_t n;       /* keys */
} key_list;

static bool list_keys(key_list *list, mr_store_key *key, const mr_str *ids, size_t n)
{
    size_t bytes, total;
    if (!mr_size_add(n, 1, &total) || !mr_size_mul(total, sizeof(mr_bytes), &total))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (mr_store_key_set(key, ids[i]) && !mr_size_add(total, key->len, &total))
            return false;
    }
    bytes = (n + 1) * sizeof(mr_bytes);
    *list = (key_list){.args = malloc(total)};
    if (!list->args)
        return false;
    char *to = (char *)list->args + bytes;
    for (size_t i = 0; i < n; i++) {
        if (!mr_store_key_set(key, ids[i]))
            continue;
        memcpy(to, key->bytes, key->len);
        list->args[++list->n] = (mr_bytes){to, key->len};
        to += key->len;
    }
    return true;
}

/* One GET per key, or one MGET for up to MGET_KEYS. The list's args are borrowed as space. */
static mr_status add_reads(mr_redis_store *store, mr_redis_batch *batch, key_list *list,
                           mr_error *err)
{
    const mr_bytes nowhere = {NULL, 0};
    if (store->router->one_key) {
        for (size_t i = 1; i <= list->n; i++) {
            const mr_bytes args[] = {MR_REDIS_ARG("GET"), list->args[i]};
            mr_status status = mr_redis_batch_add(batch, args, 2, list->args[i], NULL, err);
            if (status != MR_OK)
                return status;
        }
        return MR_OK;
    }
    for (size_t from = 0; from < list->n; from += MGET_KEYS) {
        size_t n = list->n - from < MGET_KEYS ? list->n - from : MGET_KEYS;
        mr_bytes kept = list->args[from];
        list->args[from] = MR_REDIS_ARG("MGET");
        mr_status status = mr_redis_batch_add(batch, list->args + from, n + 1, nowhere, NULL, err);
        list->args[from] = kept;
        if (status != MR_OK)
            return status;
        mr_redis_batch_expect(batch, MR_REDIS_ARRAY, n);
    }
    return MR_OK;
}

static void count_round_trip(mr_redis_store *store, int64_t us)
{
    size_t bucket = 0;
    while (bucket < 15 && us > (int64_t)FIRST_BUCKET << bucket)
        bucket++;
    atomic_fetch_add(&store->buckets[bucket], 1);
    atomic_fetch_add(&store->round_trips, 1);
    atomic_fetch_add(&store->round_trip_us, (uint64_t)(us > 0 ? us : 0));
}

/* A value of another type is nil in an MGET; a GET says so, and means the same. */
static bool take_value(const mr_redis_value *value, mr_bytes *out)
{
    if (value->type == MR_REDIS_STRING)
        *out = (mr_bytes){value->str, value->len};
    else if (value->type == MR_REDIS_NIL || mr_redis_is_error(value, "WRONGTYPE"))
        *out = (mr_bytes){NULL, 0};
    else
        return false;
    return true;
}

/* The value that answers key i of the list; NULL when none came. An error may stand for several. */
static const mr_redis_value *value_of(const mr_redis_store *store, const mr_redis_batch *batch,
                                      size_t i)
{
    if (store->router->one_key)
        return mr_redis_batch_value(batch, i);
    const mr_redis_value *array = mr_redis_batch_value(batch, i / MGET_KEYS);
    return array && array->type == MR_REDIS_ARRAY && i % MGET_KEYS < array->n
               ? array->element[i % MGET_KEYS]
               : array;
}

/* Visits what came. In a cluster that may be a part: the others' server is away. */
static mr_status visit_values(mr_redis_store *store, const mr_redis_batch *batch, mr_store_key *key,
                              const mr_str *ids, size_t n, mr_store_visit visit, void *context,
                              mr_error *err)
{
    mr_status status = MR_OK;
    uint64_t hits = 0, misses = 0;
    size_t next = 0;
    for (size_t i = 0; i < n; i++) {
        mr_bytes bytes = {NULL, 0};
        if (mr_store_key_set(key, ids[i])) {
            const mr_redis_value *value = value_of(store, batch, next++);
            if (!value)
                continue;
            if (!take_value(value, &bytes)) {
                if (status == MR_OK && value->type == MR_REDIS_ERROR)
                    status = mr_redis_store_refused(store, value, err);
                else if (status == MR_OK)
                    status =
                        mr_redis_store_odd(store, store->router->one_key ? "GET" : "MGET", err);
                continue;
            }
        }
        hits += bytes.data != NULL;
        misses += bytes.data == NULL;
        mr_redis_store_look_at(store, bytes);
        visit(context, i, bytes);
    }
    atomic_fetch_add(&store->hits, hits);
    atomic_fetch_add(&store->misses, misses);
    return status;
}

static mr_status redis_fetch(void *self, mr_store_key *key, const mr_str *ids, size_t n,
                             mr_store_visit visit, void *context, mr_error *err)
{
    mr_redis_store *store = self;
    mr_redis_batch *batch = NULL;
    key_list list = {0};
    mr_error why = {0};
    int64_t began = mr_clock_monotonic_us();

    atomic_fetch_add(&store->fetches, 1);
    atomic_fetch_add(&store->ids, n);
    if (!list_keys(&list, key, ids, n))
        return MR_FAIL(err, NO_MEMORY, "no memory to fetch %zu records", n);
    mr_status status = mr_redis_batch_new(&batch, store->router, err);
    if (status == MR_OK)
        status = add_reads(store, batch, &list, err);
    if (status != MR_OK)
        goto out;

    mr_status came =
        mr_redis_batch_run(batch, began + store->options.fetch_timeout_ms * 1000, false, &why);
    if (came == MR_OK && list.n)
        count_round_trip(store, mr_clock_monotonic_us() - began);
    status = visit_values(store, batch, key, ids, n, visit, context, err);
    if (came != MR_OK) {
        /* For a caller, a server that is slow is one that is away. */
        if (came == MR_TIMEOUT)
            why.status = MR_UNAVAILABLE;
        status = why.status;
        if (err)
            *err = why;
    }
    if (status != MR_OK)
        atomic_fetch_add(&store->failures, 1);

out:
    mr_redis_batch_free(batch);
    free(list.args);
    return status;
}

/* ---- the rest -------------------------------------------------------------------------------- */

mr_bytes mr_redis_note_key(mr_bytes key, char out[MR_STORE_KEY_MAX])
{
    const char *bytes = key.data;
    size_t name_space = (size_t)((const char *)memchr(bytes, ':', key.len) - bytes) + 1;
    memcpy(out, bytes, name_space);
    memcpy(out + name_space, "note:", 5);
    memcpy(out + name_space + 5, bytes + name_space, key.len - name_space);
    return (mr_bytes){out, key.len + 5}; /* at most 470 of 512 bytes: see store.h */
}

static mr_status redis_get_note(void *self, mr_bytes key, char **value, size_t *len, mr_error *err)
{
    mr_redis_store *store = self;
    mr_redis_batch *batch = NULL;
    const mr_redis_value *found;
    char space[MR_STORE_KEY_MAX];
    const mr_bytes stored = mr_redis_note_key(key, space);
    const mr_bytes args[] = {MR_REDIS_ARG("GET"), stored};
    mr_status status = mr_redis_store_ask(store, args, 2, stored, NULL, &batch, &found, err);
    if (status == MR_OK && found->type == MR_REDIS_NIL)
        status = MR_FAIL(err, NOT_FOUND, "'%.200s' has no note '%.*s'", store->url.shown,
                         (int)key.len, (const char *)key.data);
    else if (status == MR_OK && found->type != MR_REDIS_STRING)
        status = mr_redis_store_odd(store, "GET", err);
    if (status == MR_OK) {
        char *copy = malloc(found->len + 1);
        if (copy) {
            memcpy(copy, found->str, found->len);
            copy[found->len] = '\0';
            *value = copy;
            *len = found->len;
        } else {
            status = MR_FAIL(err, NO_MEMORY, "no memory for a note of %zu bytes", found->len);
        }
    }
    mr_redis_batch_free(batch);
    return status;
}

static mr_status redis_sync(void *self, mr_error *err)
{
    (void)self;
    (void)err;
    return MR_OK;
}

static void redis_health(void *self, mr_store_health *out)
{
    mr_redis_store *store = self;
    mr_store_health servers = {.connected = true, .tracking = true};
    store->router->health(store->router, &servers);
    out->fetches += atomic_load(&store->fetches);
    out->ids += atomic_load(&store->ids);
    out->hits_store += atomic_load(&store->hits);
    out->misses += atomic_load(&store->misses);
    out->failures += atomic_load(&store->failures);
    out->foreign_values += atomic_load(&store->foreign_values);
    out->fetch_count += atomic_load(&store->round_trips);
    out->fetch_us += atomic_load(&store->round_trip_us);
    for (size_t i = 0; i < 16; i++)
        out->fetch_us_buckets[i] += atomic_load(&store->buckets[i]);
    out->reconnects += servers.reconnects;
    out->breaker = servers.breaker;
    out->connected = servers.connected;
    out->tracking = servers.tracking;
}

static void redis_watch(void *self, const mr_store_watcher *watcher)
{
    mr_redis_store *store = self;
    if (!store->router->watch) {
        watcher->tracking(watcher->context, false);
        return;
    }
    store->router->watch(store->router, watcher);
    /* The connections are made anew. The first fetches need not meet that. */
    (void)store->router->wait_ready(
        store->router, mr_clock_monotonic_us() + store->options.connect_timeout_ms * 1000, NULL);
}

const mr_store_ops mr_store_redis_ops = {
    .name = "redis",
    .close = redis_close,
    .fetch = redis_fetch,
    .put = mr_redis_put,
    .get_note = redis_get_note,
    .walk = mr_redis_walk,
    .spaces = mr_redis_spaces,
    .stat = mr_redis_stat,
    .sync = redis_sync,
    .remove = mr_redis_remove,
    .health = redis_health,
    .watch = redis_watch,
};
