/* redis_scan.c - what needs all the keys: walks, spaces, counting, removing.
 *
 * SCAN goes through the whole database, whatever its pattern: a walk over a few keys beside ten
 * million others takes seconds of the server, in steps of about a millisecond that others are
 * served between. It promises every key that is there all the time, and may name a key twice.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "featurestore/store_redis.h"

#define PAGE_KEYS      "1000" /* that the server looks at per SCAN */
#define MAX_PAGES      ((size_t)1 << 22)
#define WALK_CHUNK     256               /* records per MGET of a walk */
#define MAX_KEY_BYTES  ((size_t)4 << 30) /* that a walk collects */
#define MAX_SPACES     ((size_t)1 << 16)
#define EXACT_KEYS     INT64_C(65536) /* smaller databases are counted, of others DBSIZE is told */
#define MAX_CURSOR_LEN 20

/* Takes one page of keys, each a string. */
typedef mr_status (*page_visit)(void *context, const mr_redis_value *keys,
                                const mr_redis_address *server, mr_error *err);

/* The prefix as a glob pattern that matches it literally, and a '*'. */
static mr_bytes make_pattern(const mr_store_key *key, char out[2 * MR_STORE_KEY_MAX + 2])
{
    size_t n = 0;
    for (size_t i = 0; i < key->prefix_len; i++) {
        if (strchr("*?[]\\^", key->bytes[i]))
            out[n++] = '\\';
        out[n++] = key->bytes[i];
    }
    out[n++] = '*';
    return (mr_bytes){out, n};
}

static bool is_page(const mr_redis_value *value)
{
    if (value->type != MR_REDIS_ARRAY || value->n != 2)
        return false;
    const mr_redis_value *cursor = value->element[0], *keys = value->element[1];
    if (cursor->type != MR_REDIS_STRING || cursor->len == 0 || cursor->len > MAX_CURSOR_LEN ||
        strspn(cursor->str, "0123456789") != cursor->len || keys->type != MR_REDIS_ARRAY)
        return false;
    for (size_t i = 0; i < keys->n; i++) {
        if (keys->element[i]->type != MR_REDIS_STRING)
            return false;
    }
    return true;
}

static mr_status scan_server(mr_redis_store *store, const mr_redis_address *server,
                             mr_bytes pattern, page_visit visit, void *context, mr_error *err)
{
    const mr_bytes nowhere = {NULL, 0};
    char cursor[MAX_CURSOR_LEN + 1] = "0";
    for (size_t page = 0; page < MAX_PAGES; page++) {
        const mr_bytes args[] = {MR_REDIS_ARG("SCAN"),  {cursor, strlen(cursor)},
                                 MR_REDIS_ARG("MATCH"), pattern,
                                 MR_REDIS_ARG("COUNT"), MR_REDIS_ARG(PAGE_KEYS)};
        mr_redis_batch *batch = NULL;
        const mr_redis_value *value;
        mr_status status = mr_redis_store_ask(store, args, 6, nowhere, server, &batch, &value, err);
        if (status == MR_OK && !is_page(value))
            status = mr_redis_store_odd(store, "SCAN", err);
        if (status == MR_OK) {
            memcpy(cursor, value->element[0]->str, value->element[0]->len + 1);
            status = visit(context, value->element[1], server, err);
        }
        mr_redis_batch_free(batch);
        if (status != MR_OK || strcmp(cursor, "0") == 0)
            return status;
    }
    return MR_FAIL(err, CORRUPT, "'%.200s' does not come to an end of its keys", store->url.shown);
}

static mr_status servers_of(mr_redis_store *store, mr_redis_address **out, size_t *n, mr_error *err)
{
    mr_redis_address *servers = calloc(MR_REDIS_MAX_SERVERS, sizeof *servers);
    if (!servers)
        return MR_FAIL(err, NO_MEMORY, "no memory for the servers of a store");
    mr_status status = store->router->servers(store->router, servers, MR_REDIS_MAX_SERVERS, n, err);
    if (status == MR_OK && *n > MR_REDIS_MAX_SERVERS)
        status = MR_FAIL(err, UNSUPPORTED, "'%.200s' has %zu servers, at most %d are known to work",
                         store->url.shown, *n, MR_REDIS_MAX_SERVERS);
    if (status != MR_OK) {
        free(servers);
        return status;
    }
    *out = servers;
    return MR_OK;
}

static mr_status scan_all(mr_redis_store *store, mr_bytes pattern, page_visit visit, void *context,
                          mr_error *err)
{
    mr_redis_address *servers = NULL;
    size_t n = 0;
    mr_status status = servers_of(store, &servers, &n, err);
    for (size_t i = 0; status == MR_OK && i < n; i++)
        status = scan_server(store, &servers[i], pattern, visit, context, err);
    free(servers);
    return status;
}

/* ---- walk ------------------------------------------------------------------------------------ */

typedef struct {
    size_t at;
    size_t len;
} key_place;

/* The ids behind the prefix, in one run of bytes. */
typedef struct {
    mr_redis_store *store;
    size_t prefix_len;
    char *bytes;
    size_t len, capacity;
    key_place *places;
    size_t n, places_capacity;
} collected;

static mr_status collect_page(void *context, const mr_redis_value *keys,
                              const mr_redis_address *server, mr_error *err)
{
    collected *all = context;
    (void)server;
    for (size_t i = 0; i < keys->n; i++) {
        const mr_redis_value *key = keys->element[i];
        if (key->len <= all->prefix_len || key->len >= MR_STORE_KEY_MAX)
            continue; /* no record's key */
        size_t len = key->len - all->prefix_len;
        if (all->len + len > MAX_KEY_BYTES)
            return MR_FAIL(err, EXHAUSTED, "'%.200s' has more keys than can be walked at once",
                           all->store->url.shown);
        if (all->len + len > all->capacity) {
            size_t capacity = mr_size_max(all->len + len, 2 * all->capacity + 65536);
            char *bytes = realloc(all->bytes, capacity);
            if (!bytes)
                return MR_FAIL(err, NO_MEMORY, "no memory for %zu keys of a walk", all->n);
            all->bytes = bytes;
            all->capacity = capacity;
        }
        if (all->n == all->places_capacity) {
            size_t capacity = 2 * all->places_capacity + 1024;
            key_place *places = realloc(all->places, capacity * sizeof *places);
            if (!places)
                return MR_FAIL(err, NO_MEMORY, "no memory for %zu keys of a walk", all->n);
            all->places = places;
            all->places_capacity = capacity;
        }
        memcpy(all->bytes + all->len, key->str + all->prefix_len, len);
        all->places[all->n++] = (key_place){all->len, len};
        all->len += len;
    }
    return MR_OK;
}

static int compare_ids(const void *left, const void *right)
{
    const mr_str *a = left, *b = right;
    int order = memcmp(a->data, b->data, a->len < b->len ? a->len : b->len);
    return order ? order : (a->len > b->len) - (a->len < b->len);
}

/* In key order, each once; for free(). */
static mr_str *sorted_ids(const collected *all, size_t *n)
{
    mr_str *ids = malloc((all->n + 1) * sizeof *ids);
    size_t kept = 0;
    if (!ids)
        return NULL;
    for (size_t i = 0; i < all->n; i++)
        ids[i] = (mr_str){all->bytes + all->places[i].at, all->places[i].len};
    qsort(ids, all->n, sizeof *ids, compare_ids);
    for (size_t i = 0; i < all->n; i++) {
        if (kept == 0 || !mr_str_equal(ids[kept - 1], ids[i]))
            ids[kept++] = ids[i];
    }
    *n = kept;
    return ids;
}

static mr_status add_chunk(mr_redis_store *store, mr_redis_batch *batch, mr_store_key *key,
                           const mr_str *ids, size_t n, mr_error *err)
{
    const mr_bytes nowhere = {NULL, 0};
    char *keys = malloc(n * MR_STORE_KEY_MAX);
    mr_bytes args[WALK_CHUNK + 1] = {MR_REDIS_ARG("MGET")};
    mr_status status = keys ? MR_OK : MR_FAIL(err, NO_MEMORY, "no memory to walk a store");
    for (size_t i = 0; status == MR_OK && i < n; i++) {
        char *to = keys + i * MR_STORE_KEY_MAX;
        memcpy(to, key->bytes, key->prefix_len);
        memcpy(to + key->prefix_len, ids[i].data, ids[i].len);
        args[i + 1] = (mr_bytes){to, key->prefix_len + ids[i].len};
        if (store->router->one_key) {
            const mr_bytes get[] = {MR_REDIS_ARG("GET"), args[i + 1]};
            status = mr_redis_batch_add(batch, get, 2, args[i + 1], NULL, err);
        }
    }
    if (status == MR_OK && !store->router->one_key) {
        status = mr_redis_batch_add(batch, args, n + 1, nowhere, NULL, err);
        if (status == MR_OK)
            mr_redis_batch_expect(batch, MR_REDIS_ARRAY, n);
    }
    free(keys);
    return status;
}

/* *more is cleared when the visit has seen enough. */
static mr_status walk_chunk(mr_redis_store *store, mr_store_key *key, const mr_str *ids, size_t n,
                            mr_store_walk_visit visit, void *context, bool *more, mr_error *err)
{
    mr_redis_batch *batch = NULL;
    mr_status status = mr_redis_batch_new(&batch, store->router, err);
    if (status == MR_OK)
        status = add_chunk(store, batch, key, ids, n, err);
    if (status == MR_OK)
        status = mr_redis_store_run(store, batch, err);
    for (size_t i = 0; status == MR_OK && *more && i < n; i++) {
        const mr_redis_value *value = mr_redis_batch_value(batch, store->router->one_key ? i : 0);
        if (!store->router->one_key && value->type == MR_REDIS_ARRAY)
            value = value->element[i];
        if (value->type == MR_REDIS_NIL || mr_redis_is_error(value, "WRONGTYPE"))
            continue; /* expired meanwhile, or not ours */
        if (value->type == MR_REDIS_ERROR) {
            status = mr_redis_store_refused(store, value, err);
        } else if (value->type != MR_REDIS_STRING) {
            status = mr_redis_store_odd(store, "MGET", err);
        } else {
            mr_bytes record = {value->str, value->len};
            mr_redis_store_look_at(store, record);
            *more = visit(context, ids[i], record);
        }
    }
    mr_redis_batch_free(batch);
    return status;
}

mr_status mr_redis_walk(void *self, const mr_store_key *key, mr_store_walk_visit visit,
                        void *context, mr_error *err)
{
    mr_redis_store *store = self;
    mr_store_key mine = *key;
    collected all = {.store = store, .prefix_len = key->prefix_len};
    char pattern[2 * MR_STORE_KEY_MAX + 2];
    mr_str *ids = NULL;
    size_t n = 0;
    bool more = true;
    mr_status status = scan_all(store, make_pattern(key, pattern), collect_page, &all, err);
    if (status == MR_OK && !(ids = sorted_ids(&all, &n)))
        status = MR_FAIL(err, NO_MEMORY, "no memory for %zu keys of a walk", all.n);
    for (size_t from = 0; status == MR_OK && more && from < n; from += WALK_CHUNK)
        status = walk_chunk(store, &mine, ids + from, n - from < WALK_CHUNK ? n - from : WALK_CHUNK,
                            visit, context, &more, err);
    free(ids);
    free(all.places);
    free(all.bytes);
    return status;
}

/* ---- spaces ---------------------------------------------------------------------------------- */

typedef struct {
    size_t prefix_len;
    uint64_t *spaces; /* ascending */
    size_t n, capacity;
} space_set;

static mr_status spaces_page(void *context, const mr_redis_value *keys,
                             const mr_redis_address *server, mr_error *err)
{
    space_set *set = context;
    (void)server;
    for (size_t i = 0; i < keys->n; i++) {
        uint64_t space;
        size_t at = 0;
        if (!mr_store_key_space(keys->element[i]->str, keys->element[i]->len, set->prefix_len,
                                &space))
            continue;
        while (at < set->n && set->spaces[at] < space)
            at++;
        if (at < set->n && set->spaces[at] == space)
            continue;
        if (set->n == MAX_SPACES)
            return MR_FAIL(err, EXHAUSTED, "the store holds more than %zu spaces", MAX_SPACES);
        if (set->n == set->capacity) {
            size_t capacity = 2 * set->capacity + 16;
            uint64_t *spaces = realloc(set->spaces, capacity * sizeof *spaces);
            if (!spaces)
                return MR_FAIL(err, NO_MEMORY, "no memory for %zu spaces", capacity);
            set->spaces = spaces;
            set->capacity = capacity;
        }
        memmove(set->spaces + at + 1, set->spaces + at, (set->n - at) * sizeof *set->spaces);
        set->spaces[at] = space;
        set->n++;
    }
    return MR_OK;
}

mr_status mr_redis_spaces(void *self, const mr_store_key *key, uint64_t *spaces, size_t capacity,
                          size_t *n, mr_error *err)
{
    space_set set = {.prefix_len = key->prefix_len};
    char pattern[2 * MR_STORE_KEY_MAX + 2];
    mr_status status = scan_all(self, make_pattern(key, pattern), spaces_page, &set, err);
    if (status == MR_OK) {
        size_t shown = set.n < capacity ? set.n : capacity;
        if (shown)
            memcpy(spaces, set.spaces, shown * sizeof *spaces);
        *n = set.n;
    }
    free(set.spaces);
    return status;
}

/* ---- stat ------------------------------------------------------------------------------------ */

/* "<any>:item:<16 hex>:<id>" or user. */
static bool is_record_key(const mr_redis_value *key)
{
    static const char *const entities[] = {":item:", ":user:"};
    const char *colon = memchr(key->str, ':', key->len);
    size_t before = colon ? (size_t)(colon - key->str) : 0;
    uint64_t space;
    for (size_t i = 0; colon && i < 2; i++) {
        size_t len = strlen(entities[i]);
        if (key->len - before > len && memcmp(colon, entities[i], len) == 0)
            return mr_store_key_space(key->str, key->len, before + len, &space);
    }
    return false;
}

static mr_status count_page(void *context, const mr_redis_value *keys,
                            const mr_redis_address *server, mr_error *err)
{
    uint64_t *records = context;
    (void)server;
    (void)err;
    for (size_t i = 0; i < keys->n; i++)
        *records += is_record_key(keys->element[i]);
    return MR_OK;
}

/* A number field of INFO; 0 when there is none. */
static uint64_t info_field(const mr_redis_value *info, const char *name)
{
    const char *at = info->type == MR_REDIS_STRING ? strstr(info->str, name) : NULL;
    return at && (at == info->str || at[-1] == '\n') ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static mr_status stat_server(mr_redis_store *store, const mr_redis_address *server, int64_t *keys,
                             mr_store_stats *out, mr_error *err)
{
    const mr_bytes nowhere = {NULL, 0}, dbsize = MR_REDIS_ARG("DBSIZE");
    const mr_bytes info[] = {MR_REDIS_ARG("INFO"), MR_REDIS_ARG("memory")};
    mr_redis_batch *batch = NULL;
    const mr_redis_value *value;
    mr_status status = mr_redis_store_ask(store, &dbsize, 1, nowhere, server, &batch, &value, err);
    if (status == MR_OK && (value->type != MR_REDIS_INTEGER || value->integer < 0))
        status = mr_redis_store_odd(store, "DBSIZE", err);
    if (status == MR_OK)
        *keys += value->integer;
    mr_redis_batch_free(batch);
    if (status != MR_OK)
        return status;
    status = mr_redis_store_ask(store, info, 2, nowhere, server, &batch, &value, err);
    if (status == MR_OK) {
        uint64_t most = info_field(value, "maxmemory:");
        out->used_bytes += info_field(value, "used_memory:");
        out->max_bytes += most ? most : info_field(value, "total_system_memory:");
    }
    mr_redis_batch_free(batch);
    return status;
}

mr_status mr_redis_stat(void *self, mr_store_stats *out, mr_error *err)
{
    mr_redis_store *store = self;
    mr_store_stats stats = {0};
    mr_redis_address *servers = NULL;
    size_t n = 0;
    int64_t keys = 0;
    mr_status status = servers_of(store, &servers, &n, err);
    for (size_t i = 0; status == MR_OK && i < n; i++)
        status = stat_server(store, &servers[i], &keys, &stats, err);
    stats.records = (uint64_t)keys;
    if (status == MR_OK && keys <= EXACT_KEYS) {
        stats.records = 0;
        for (size_t i = 0; status == MR_OK && i < n; i++)
            status =
                scan_server(store, &servers[i], MR_REDIS_ARG("*"), count_page, &stats.records, err);
    }
    if (status == MR_OK)
        *out = stats;
    free(servers);
    return status;
}

/* ---- remove ---------------------------------------------------------------------------------- */

typedef struct {
    mr_redis_store *store;
    uint64_t removed;
} removal;

static mr_status remove_page(void *context, const mr_redis_value *keys,
                             const mr_redis_address *server, mr_error *err)
{
    removal *r = context;
    mr_redis_batch *batch = NULL;
    if (keys->n == 0)
        return MR_OK;
    mr_bytes *args = malloc((keys->n + 1) * sizeof *args);
    if (!args)
        return MR_FAIL(err, NO_MEMORY, "no memory to remove %zu records", keys->n);
    args[0] = MR_REDIS_ARG("UNLINK");
    for (size_t i = 0; i < keys->n; i++)
        args[i + 1] = (mr_bytes){keys->element[i]->str, keys->element[i]->len};
    mr_status status = mr_redis_batch_new(&batch, r->store->router, err);
    if (r->store->router->one_key) {
        for (size_t i = 1; status == MR_OK && i <= keys->n; i++) {
            const mr_bytes one[] = {args[0], args[i]};
            status = mr_redis_batch_add(batch, one, 2, args[i], NULL, err);
        }
    } else if (status == MR_OK) {
        status = mr_redis_batch_add(batch, args, keys->n + 1, (mr_bytes){NULL, 0}, server, err);
    }
    if (status == MR_OK)
        status = mr_redis_store_run(r->store, batch, err);
    for (size_t i = 0; status == MR_OK && i < mr_redis_batch_count(batch); i++) {
        const mr_redis_value *value = mr_redis_batch_value(batch, i);
        if (value->type == MR_REDIS_INTEGER && value->integer >= 0)
            r->removed += (uint64_t)value->integer;
        else
            status = value->type == MR_REDIS_ERROR ? mr_redis_store_refused(r->store, value, err)
                                                   : mr_redis_store_odd(r->store, "UNLINK", err);
    }
    mr_redis_batch_free(batch);
    free(args);
    return status;
}

mr_status mr_redis_remove(void *self, const mr_store_key *key, uint64_t *removed, mr_error *err)
{
    removal r = {.store = self};
    char pattern[2 * MR_STORE_KEY_MAX + 2];
    mr_status status = scan_all(self, make_pattern(key, pattern), remove_page, &r, err);
    *removed = r.removed;
    return status;
}
