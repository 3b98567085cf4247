/* store.c - what all back ends share: URLs, options, keys, argument checks, the write rule.
 *
 * A batch is checked, sorted by id and freed of duplicates here, before a back end takes a lock or
 * opens a transaction: a bad record costs no one else time, LMDB writes neighbouring pages one
 * after the other, and no back end has to think about an id that comes twice.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "featurestore/record.h"
#include "featurestore/redis_url.h"
#include "featurestore/store_backend.h"

#define SPACE_DIGITS         16
#define MEMORY_DEFAULT_BYTES (UINT64_C(1) << 30)
#define LMDB_DEFAULT_BYTES   (UINT64_C(64) << 30)
#define MAX_MS               (INT64_C(1) << 40) /* 34 years */
#define DAY_MS               INT64_C(86400000)

static const char *const entity_names[MR_ENTITY_COUNT] = {
    [MR_ENTITY_ITEM] = "item",
    [MR_ENTITY_USER] = "user",
};

struct mr_store {
    const mr_store_ops *ops;
    void *self;
    bool read_only;
    char name_space[MR_STORE_MAX_NAMESPACE_BYTES + 1];
    char url[]; /* for messages: as given, or for Redis "a Redis store", which has no password */
};

/* ---- keys ------------------------------------------------------------------------------------ */

/* "<namespace>:<entity>:", and the space behind it when there is one. */
static mr_status key_begin(const mr_store *store, mr_entity entity, const uint64_t *space,
                           mr_store_key *key, mr_error *err)
{
    if ((size_t)entity >= MR_ENTITY_COUNT)
        return MR_FAIL(err, INVALID, "entity is %d, expected 0 (item) or 1 (user)", (int)entity);
    int len =
        snprintf(key->bytes, sizeof key->bytes, "%s:%s:", store->name_space, entity_names[entity]);
    if (space)
        len +=
            snprintf(key->bytes + len, sizeof key->bytes - (size_t)len, "%016" PRIx64 ":", *space);
    key->prefix_len = key->len = (size_t)len;
    return MR_OK;
}

bool mr_store_key_space(const char *key, size_t len, size_t entity_prefix_len, uint64_t *space)
{
    if (len <= entity_prefix_len + SPACE_DIGITS || key[entity_prefix_len + SPACE_DIGITS] != ':')
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i < SPACE_DIGITS; i++) {
        char c = key[entity_prefix_len + i];
        unsigned digit;
        if (c >= '0' && c <= '9')
            digit = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (unsigned)(c - 'a') + 10;
        else
            return false;
        value = value << 4 | digit;
    }
    *space = value;
    return true;
}

/* The key as text for a message, which makes printable what it quotes, but ends at a NUL. */
static const char *key_shown(mr_store_key *key, mr_str id)
{
    if (!mr_store_key_set(key, id))
        key->len = key->prefix_len;
    for (size_t i = 0; i < key->len; i++) {
        if (key->bytes[i] == '\0')
            key->bytes[i] = '?';
    }
    key->bytes[key->len] = '\0'; /* prefix and id take at most 488 of 512 bytes */
    return key->bytes;
}

/* ---- open and close -------------------------------------------------------------------------- */

/* Copies what the caller's struct has over the defaults, so that programs built with an older or a
 * newer header both work; an option of a newer header that this build lacks must be zero. */
static mr_status take_options(const mr_store_options *given, mr_store_options *out, mr_error *err)
{
    mr_store_options options = MR_STORE_OPTIONS_DEFAULT;
    if (given) {
        if (given->size < sizeof given->size)
            return MR_FAIL(err, INVALID,
                           "mr_store_options.size is %zu; begin with MR_STORE_OPTIONS_DEFAULT",
                           given->size);
        const unsigned char *bytes = (const unsigned char *)given;
        for (size_t i = sizeof options; i < given->size; i++) {
            if (bytes[i])
                return MR_FAIL(err, UNSUPPORTED,
                               "mr_store_options sets an option that this library (%zu bytes of "
                               "options) does not know; the program was built for a newer one",
                               sizeof options);
        }
        memcpy(&options, given, given->size < sizeof options ? given->size : sizeof options);
        options.size = sizeof options;
    }
    if (!options.name_space)
        options.name_space = "mixrank";
    size_t len = strlen(options.name_space);
    if (len == 0 || len > MR_STORE_MAX_NAMESPACE_BYTES)
        return MR_FAIL(err, INVALID, "store namespace '%.100s' is %zu bytes long, expected 1 to %d",
                       options.name_space, len, MR_STORE_MAX_NAMESPACE_BYTES);
    for (size_t i = 0; i < len; i++) {
        char c = options.name_space[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '-' || c == '_' || c == '.';
        if (!fine)
            return MR_FAIL(err, INVALID,
                           "store namespace '%s' has a byte 0x%02x; use letters, digits, '-', '_' "
                           "and '.'",
                           options.name_space, (unsigned char)c);
    }
    struct {
        const char *name;
        int64_t *value;
        int64_t otherwise;
    } const times[] = {
        {"fetch_timeout_ms", &options.fetch_timeout_ms, 100},
        {"write_timeout_ms", &options.write_timeout_ms, 5000},
        {"connect_timeout_ms", &options.connect_timeout_ms, 1000},
        {"record_ttl_ms", &options.record_ttl_ms, 0},
        {"tombstone_ttl_ms", &options.tombstone_ttl_ms, 30 * DAY_MS},
        {"cache_soft_age_ms", &options.cache_soft_age_ms, 60000},
        {"cache_hard_age_ms", &options.cache_hard_age_ms, 3600000},
        {"cache_negative_age_ms", &options.cache_negative_age_ms, 5000},
    };
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        if (*times[i].value < 0 || *times[i].value > MAX_MS)
            return MR_FAIL(err, INVALID,
                           "store option %s is %lld, expected 0 (the default) to %lld milliseconds",
                           times[i].name, (long long)*times[i].value, (long long)MAX_MS);
        if (*times[i].value == 0)
            *times[i].value = times[i].otherwise;
    }
    *out = options;
    return MR_OK;
}

/* Length of "scheme" in "scheme:rest", 0 when text is a path. */
static size_t scheme_length(const char *text)
{
    size_t n = 0;
    while ((text[n] >= 'a' && text[n] <= 'z') || (text[n] >= '0' && text[n] <= '9'))
        n++;
    return text[n] == ':' ? n : 0;
}

static bool is_scheme(const char *url, size_t len, const char *name)
{
    return len == strlen(name) && memcmp(url, name, len) == 0;
}

/* "redis:", "rediss:", or "redis+" and any word that Redis' own reader of URLs will judge. */
static bool scheme_is_redis(const char *url)
{
    return mr_redis_url_is(url) || strncmp(url, "redis+", 6) == 0;
}

static mr_status open_redis(mr_store *store, const char *url, const mr_store_options *options,
                            mr_error *err)
{
    mr_status status = mr_store_redis_open(&store->self, url, options, err);
    store->ops = &mr_store_redis_ops;
    if (status != MR_OK || options->cache_bytes == 0)
        return status;
    void *inner = store->self;
    status = mr_store_cached_open(&store->self, &mr_store_redis_ops, inner, options, err);
    if (status == MR_OK)
        store->ops = &mr_store_cached_ops;
    else
        mr_store_redis_ops.close(inner);
    return status;
}

static mr_status open_backend(mr_store *store, const char *url, mr_store_options *options,
                              mr_error *err)
{
    size_t scheme = scheme_length(url);
    const char *rest = scheme ? url + scheme + 1 : url;

    if (is_scheme(url, scheme, "memory")) {
        if (*rest)
            return MR_FAIL(err, INVALID, "store '%.200s': nothing goes behind \"memory:\"", url);
        if (options->read_only)
            return MR_FAIL(
                err, INVALID,
                "store '%s' begins empty, so that read_only leaves nothing to do with it; "
                "name a path",
                url);
        if (options->max_bytes == 0)
            options->max_bytes = MEMORY_DEFAULT_BYTES;
        store->ops = &mr_store_memory_ops;
        return mr_store_memory_open(&store->self, options, err);
    }
    /* Before paths: a scheme with a '+' looks like one. */
    if (scheme_is_redis(url))
        return open_redis(store, url, options, err);
    if (scheme == 0 || is_scheme(url, scheme, "lmdb")) {
        if (!*rest)
            return MR_FAIL(err, INVALID, "store '%s' has no path; write lmdb:PATH", url);
        if (options->max_bytes == 0)
            options->max_bytes = LMDB_DEFAULT_BYTES;
        store->ops = &mr_store_lmdb_ops;
        return mr_store_lmdb_open(&store->self, rest, options, err);
    }
    return MR_FAIL(
        err, INVALID,
        "store '%.200s' has an unknown scheme; known are \"memory:\", \"lmdb:PATH\" (a path with a "
        "colon needs the \"lmdb:\" too), redis://, rediss://, redis+unix:, redis+sentinel:// and "
        "redis+cluster://",
        url);
}

mr_status mr_store_open(mr_store **out, const char *url, const mr_store_options *given,
                        mr_error *err)
{
    mr_store_options options;
    if (!url || !*url)
        return MR_FAIL(err, INVALID,
                       "no store named; write \"memory:\", \"lmdb:PATH\", a path or redis://HOST");
    mr_status status = take_options(given, &options, err);
    if (status != MR_OK)
        return status;

    const char *shown = scheme_is_redis(url) ? "a Redis store" : url;
    size_t shown_bytes = strlen(shown) + 1;
    mr_store *store = calloc(1, sizeof *store + shown_bytes);
    if (!store)
        return MR_FAIL(err, NO_MEMORY, "no memory for a store handle");
    memcpy(store->url, shown, shown_bytes);
    memcpy(store->name_space, options.name_space, strlen(options.name_space) + 1);
    store->read_only = options.read_only;

    status = open_backend(store, url, &options, err);
    if (status != MR_OK) {
        free(store);
        return status;
    }
    *out = store;
    return MR_OK;
}

void mr_store_close(mr_store *store)
{
    if (!store)
        return;
    store->ops->close(store->self);
    free(store);
}

/* ---- write ----------------------------------------------------------------------------------- */

bool mr_store_replaces(mr_bytes stored, uint64_t version)
{
    mr_record_info info;
    if (!stored.data || mr_record_peek(NULL, stored, &info, NULL) != MR_OK ||
        version > info.version)
        return true;
    return mr_record_check(NULL, stored, &info, NULL) != MR_OK;
}

static mr_status check_writable(const mr_store *store, mr_error *err)
{
    if (store->read_only)
        return MR_FAIL(err, INVALID, "store '%.200s' was opened with read_only and takes no writes",
                       store->url);
    return MR_OK;
}

static mr_status check_item(mr_store_key *key, uint64_t space, const mr_store_put_item *item,
                            size_t index, uint64_t *version, mr_error *err)
{
    mr_record_info info;
    if (!mr_store_key_set(key, item->id))
        return MR_FAIL(err, INVALID,
                       "id of record %zu in a put ('%.*s') is %zu bytes long, expected 1 to %d",
                       index, MR_STR_ARG(item->id), item->id.len, MR_STORE_MAX_ID_BYTES);
    if (mr_record_check(NULL, item->record, &info, NULL) != MR_OK)
        return mr_record_check(key_shown(key, item->id), item->record, &info, err);
    if (info.space != space)
        return MR_FAIL(err, MISMATCH,
                       "record '%.300s' was made in space %016" PRIx64
                       ", the put is for %016" PRIx64 ": another encoder?",
                       key_shown(key, item->id), info.space, space);
    *version = info.version;
    return MR_OK;
}

/* By id; of one id the newest first, and of equal versions the one that came first. */
static int compare_writes(const void *left, const void *right)
{
    const mr_store_write *a = left, *b = right;
    size_t common = a->id.len < b->id.len ? a->id.len : b->id.len;
    int order = memcmp(a->id.data, b->id.data, common);
    if (order != 0)
        return order;
    if (a->id.len != b->id.len)
        return a->id.len < b->id.len ? -1 : 1;
    if (a->version != b->version)
        return a->version > b->version ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

static size_t sort_and_drop_duplicates(mr_store_write *writes, size_t n)
{
    size_t kept = 0;
    if (n > 1)
        qsort(writes, n, sizeof *writes, compare_writes);
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || !mr_str_equal(writes[kept - 1].id, writes[i].id))
            writes[kept++] = writes[i];
    }
    return kept;
}

static mr_status put(mr_store *store, mr_entity entity, uint64_t space,
                     const mr_store_put_item *items, size_t n, const mr_store_note *note,
                     mr_store_put_result *result, mr_error *err)
{
    mr_store_key key;
    mr_store_write *writes = NULL;
    mr_store_put_result counted = {0};
    size_t bytes;

    mr_status status = check_writable(store, err);
    if (status == MR_OK)
        status = key_begin(store, entity, &space, &key, err);
    if (status != MR_OK)
        return status;
    if (n && !items)
        return MR_FAIL(err, INVALID, "a put of %zu records came without records", n);
    if (!mr_size_mul(n, sizeof *writes, &bytes) || (n && !(writes = malloc(bytes))))
        return MR_FAIL(err, NO_MEMORY, "no memory to sort a put of %zu records", n);

    for (size_t i = 0; i < n; i++) {
        writes[i] = (mr_store_write){.id = items[i].id, .record = items[i].record, .index = i};
        status = check_item(&key, space, &items[i], i, &writes[i].version, err);
        if (status != MR_OK)
            goto out;
    }
    size_t kept = sort_and_drop_duplicates(writes, n);
    status = store->ops->put(store->self, &key, writes, kept, note, &counted, err);
    if (status == MR_OK && result) {
        *result = counted;
        result->stale += n - kept;
    }

out:
    free(writes);
    return status;
}

mr_status mr_store_put(mr_store *store, mr_entity entity, uint64_t space,
                       const mr_store_put_item *items, size_t n, mr_store_put_result *result,
                       mr_error *err)
{
    return put(store, entity, space, items, n, NULL, result, err);
}

/* ---- notes ----------------------------------------------------------------------------------- */

static mr_status note_key(const mr_store *store, const char *name, mr_store_key *key, mr_error *err)
{
    size_t len = name ? strlen(name) : 0;
    key->prefix_len = (size_t)snprintf(key->bytes, sizeof key->bytes, "%s:", store->name_space);
    if (!mr_store_key_set(key, (mr_str){name, len}))
        return MR_FAIL(err, INVALID,
                       "name of a note ('%.100s') is %zu bytes long, expected 1 to %d",
                       name ? name : "", len, MR_STORE_MAX_ID_BYTES);
    return MR_OK;
}

mr_status mr_store_put_with_note(mr_store *store, mr_entity entity, uint64_t space,
                                 const mr_store_put_item *items, size_t n, const char *note_name,
                                 mr_str note, mr_store_put_result *result, mr_error *err)
{
    mr_store_key key;
    mr_status status = note_key(store, note_name, &key, err);
    if (status != MR_OK)
        return status;
    if (note.len > MR_STORE_MAX_NOTE_BYTES || (note.len && !note.data))
        return MR_FAIL(err, INVALID, "note '%.100s' is %zu bytes long, expected at most %zu",
                       note_name, note.len, MR_STORE_MAX_NOTE_BYTES);
    const mr_store_note write = {.key = {key.bytes, key.len}, .value = note};
    return put(store, entity, space, items, n, &write, result, err);
}

mr_status mr_store_set_note(mr_store *store, const char *name, mr_str value, mr_error *err)
{
    return mr_store_put_with_note(store, MR_ENTITY_ITEM, 0, NULL, 0, name, value, NULL, err);
}

mr_status mr_store_swap_note(mr_store *store, const char *name, mr_str expected, mr_str value,
                             mr_error *err)
{
    mr_store_key key;
    mr_status status = note_key(store, name, &key, err);
    if (status != MR_OK)
        return status;
    if (value.len > MR_STORE_MAX_NOTE_BYTES || !value.data)
        return MR_FAIL(err, INVALID, "note '%.100s' is %zu bytes long, expected at most %zu", name,
                       value.len, MR_STORE_MAX_NOTE_BYTES);
    const mr_store_note note = {{key.bytes, key.len}, value, true, expected};
    return put(store, MR_ENTITY_ITEM, 0, NULL, 0, &note, NULL, err);
}

bool mr_store_note_swaps(const mr_store_note *note, mr_bytes stored)
{
    if (!note->is_swap)
        return true;
    if (!stored.data)
        return !note->expected.data;
    const mr_str held = {stored.data, stored.len};
    return (note->expected.data && mr_str_equal(held, note->expected)) ||
           mr_str_equal(held, note->value);
}

mr_status mr_store_note_differs(const mr_store_note *note, mr_error *err)
{
    return MR_FAIL(err, MISMATCH,
                   "note '%.*s' holds another value than was read before: another program changed "
                   "it meanwhile; read it again",
                   MR_STR_ARG(((mr_str){note->key.data, note->key.len})));
}

mr_status mr_store_get_note(mr_store *store, const char *name, char **value, size_t *len,
                            mr_error *err)
{
    mr_store_key key;
    mr_status status = note_key(store, name, &key, err);
    if (status != MR_OK)
        return status;
    return store->ops->get_note(store->self, (mr_bytes){key.bytes, key.len}, value, len, err);
}

/* ---- read ------------------------------------------------------------------------------------ */

mr_status mr_store_fetch(mr_store *store, mr_entity entity, uint64_t space, const mr_str *ids,
                         size_t n, mr_store_visit visit, void *context, mr_error *err)
{
    mr_store_key key;
    mr_status status = key_begin(store, entity, &space, &key, err);
    if (status != MR_OK || n == 0)
        return status;
    return store->ops->fetch(store->self, &key, ids, n, visit, context, err);
}

mr_status mr_store_walk(mr_store *store, mr_entity entity, uint64_t space,
                        mr_store_walk_visit visit, void *context, mr_error *err)
{
    mr_store_key key;
    mr_status status = key_begin(store, entity, &space, &key, err);
    if (status != MR_OK)
        return status;
    return store->ops->walk(store->self, &key, visit, context, err);
}

mr_status mr_store_spaces(mr_store *store, mr_entity entity, uint64_t *spaces, size_t capacity,
                          size_t *n, mr_error *err)
{
    mr_store_key key;
    mr_status status = key_begin(store, entity, NULL, &key, err);
    if (status != MR_OK)
        return status;
    return store->ops->spaces(store->self, &key, spaces, capacity, n, err);
}

mr_status mr_store_stat(mr_store *store, mr_store_stats *out, mr_error *err)
{
    return store->ops->stat(store->self, out, err);
}

mr_status mr_store_remove_space(mr_store *store, mr_entity entity, uint64_t space,
                                uint64_t *removed, mr_error *err)
{
    mr_store_key key;
    uint64_t count = 0;
    mr_status status = check_writable(store, err);
    if (status == MR_OK)
        status = key_begin(store, entity, &space, &key, err);
    if (status == MR_OK)
        status = store->ops->remove(store->self, &key, &count, err);
    if (removed)
        *removed = count;
    return status;
}

void mr_store_health_of(mr_store *store, mr_store_health *out)
{
    *out = (mr_store_health){.connected = true};
    if (store->ops->health)
        store->ops->health(store->self, out);
}

mr_status mr_store_sync(mr_store *store, mr_error *err)
{
    return store->read_only ? MR_OK : store->ops->sync(store->self, err);
}

const char *mr_store_backend(const mr_store *store)
{
    return store->ops->name;
}
