/* store_cached.c - a store with a cache before it.
 *
 * What a cached record is worth. While the store tells of changes (tracking), a record that was
 * asked for since it began to tell is as good as new until the hard age. Any other is believed for
 * the soft age, then asked for again. After a flush ("changes may have been missed") everything is
 * asked for again, at once. In all three cases an old record stays where it is until the new one
 * comes, and serves if none comes: a flush that emptied the cache would leave a ranking with
 * nothing at the one moment that the cache is for, since losing the connection is what makes a
 * store say flush. What is known to have changed is dropped, and past the hard age nothing serves.
 * "There is none" is believed for its own short age and never beyond it.
 *
 * Ages are spread by the hash of the key, so that a cache that was warmed in a minute does not grow
 * old in one: soft ages by a tenth either way, hard ages by a tenth downwards.
 *
 * Deadlocks: a fetch ends all fills of its own before it waits for those of others. That is also
 * why an id that comes twice in a fetch needs no care: the second one waits for a fill that has
 * ended.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdatomic.h>
#include <stdlib.h>

#include "core/clock.h"
#include "featurestore/cache.h"
#include "featurestore/store_backend.h"

#define FEW 64 /* ids of a fetch whose places fit on the stack */

typedef struct {
    _Atomic uint64_t fetches, ids, hits_cache, hits_stale, negative_hits, hits_store, misses;
} counters;

typedef struct {
    const mr_store_ops *ops;
    void *inner;
    mr_cache *cache;
    mr_store_watcher watcher;
    int64_t soft_us, hard_us, negative_us, wait_us, write_us;
    _Atomic uint64_t trusted_era; /* what began before it was flushed */
    _Atomic uint64_t tracked_era; /* of what began before it, no changes are told */
    _Atomic int64_t doubted_us;   /* the same, by time: see cached_put */
    _Atomic uint64_t flushes;
    counters count;
} cached_store;

/* ---- what an entry is worth ------------------------------------------------------------------ */

typedef enum {
    FRESH,
    AGED,   /* asked for again; serves meanwhile */
    PASSED, /* asked for again; serves when the store is away */
    DEAD,   /* does not serve */
} worth;

/* Between 0.9 of the age and `tenths` tenths of it more, by the key. */
static int64_t spread(int64_t age, uint64_t hash, int64_t tenths)
{
    const int64_t part = (int64_t)(hash >> 16 & 0xffff); /* of 65,536 */
    return age - age / 10 + age / 10 * tenths * part / 65536;
}

static worth worth_of(cached_store *store, const mr_cache_entry *entry, int64_t now)
{
    const int64_t stored = mr_cache_stored_us(entry), age = now - stored;
    const uint64_t era = mr_cache_era_of(entry), hash = mr_cache_hash_of(entry);
    const bool trusted = era >= atomic_load(&store->trusted_era);
    if (age > spread(store->hard_us, hash, 1))
        return DEAD;
    if (!mr_cache_record(entry).data)
        return trusted && age <= store->negative_us ? FRESH : DEAD;
    if (!trusted)
        return PASSED;
    const bool tracked =
        era >= atomic_load(&store->tracked_era) && stored >= atomic_load(&store->doubted_us);
    return tracked || age <= spread(store->soft_us, hash, 2) ? FRESH : AGED;
}

/* ---- fetch ----------------------------------------------------------------------------------- */

typedef enum {
    IMPOSSIBLE, /* no key can have this id */
    FROM_CACHE,
    TO_ASK,  /* a fill of ours */
    TO_WAIT, /* a fill of another fetch, or of an earlier place of this one */
    FROM_STORE,
    UNKNOWN, /* the store did not answer; an old entry may serve */
} place_state;

typedef struct {
    mr_cache_entry *entry; /* what is visited; until the store answers, an old one or NULL */
    mr_cache_fill *fill;
    place_state state;
    bool aged; /* the entry may serve while another fetch asks */
} place;

typedef struct {
    cached_store *store;
    place *places;
    mr_str *ids;   /* that are ours to ask for */
    size_t *index; /* of each of them */
    size_t n_ids;
    bool no_memory; /* a record came and could not be copied */
} request;

/* Takes over the pin of what the store answered. */
static void take_answer(place *p, mr_cache_entry *entry)
{
    mr_cache_release(p->entry);
    p->entry = entry;
    p->state = FROM_STORE;
}

static void look_up(request *r, mr_store_key *key, const mr_str *ids, size_t n, int64_t now)
{
    for (size_t i = 0; i < n; i++) {
        place *p = &r->places[i];
        mr_cache_entry *came;
        *p = (place){.state = IMPOSSIBLE};
        if (!mr_store_key_set(key, ids[i]))
            continue;
        const mr_bytes name = {key->bytes, key->len};
        p->entry = mr_cache_get(r->store->cache, name);
        const worth w = p->entry ? worth_of(r->store, p->entry, now) : DEAD;
        p->state = FROM_CACHE;
        if (w == FRESH)
            continue;
        p->aged = w == AGED;
        switch (mr_cache_begin(r->store->cache, name, p->entry, &p->fill, &came)) {
        case MR_CACHE_FILL_CAME: take_answer(p, came); continue;
        case MR_CACHE_FILL_OTHER: p->state = TO_WAIT; break;
        case MR_CACHE_FILL_OURS:
            p->state = TO_ASK;
            r->ids[r->n_ids] = ids[i];
            r->index[r->n_ids++] = i;
        }
        if (w == DEAD) {
            mr_cache_release(p->entry);
            p->entry = NULL;
        }
    }
}

static void on_answer(void *context, size_t i, mr_bytes record)
{
    request *r = context;
    place *p = &r->places[r->index[i]];
    mr_cache_entry *entry = mr_cache_end(r->store->cache, p->fill, true, record);
    if (entry) {
        take_answer(p, entry);
    } else {
        p->state = UNKNOWN;
        r->no_memory = true;
    }
}

static mr_status ask(request *r, mr_store_key *key, mr_error *why)
{
    cached_store *store = r->store;
    mr_status status = MR_OK;
    if (r->n_ids)
        status = store->ops->fetch(store->inner, key, r->ids, r->n_ids, on_answer, r, why);
    for (size_t i = 0; i < r->n_ids; i++) {
        place *p = &r->places[r->index[i]];
        if (p->state != TO_ASK)
            continue;
        mr_cache_end(store->cache, p->fill, false, (mr_bytes){NULL, 0});
        p->state = UNKNOWN;
    }
    return status;
}

static void wait_for_others(request *r, size_t n, int64_t deadline)
{
    for (size_t i = 0; i < n; i++) {
        place *p = &r->places[i];
        bool came;
        if (p->state != TO_WAIT)
            continue;
        mr_cache_entry *entry =
            mr_cache_wait(r->store->cache, p->fill, p->aged ? 0 : deadline, &came);
        p->state = UNKNOWN;
        if (entry)
            take_answer(p, entry);
    }
}

/* In order, each once; counts. Returns how many had no answer. */
static size_t visit_all(request *r, size_t n, mr_store_visit visit, void *context)
{
    uint64_t cache = 0, stale = 0, negative = 0, found = 0, misses = 0;
    size_t unknown = 0;
    for (size_t i = 0; i < n; i++) {
        place *p = &r->places[i];
        if (!p->entry) {
            if (p->state == IMPOSSIBLE)
                visit(context, i, (mr_bytes){NULL, 0});
            else
                unknown++;
            continue;
        }
        const mr_bytes record = mr_cache_record(p->entry);
        if (p->state == FROM_STORE) {
            found += record.data != NULL;
            misses += record.data == NULL;
        } else {
            cache += record.data != NULL;
            negative += record.data == NULL;
            stale += p->state == UNKNOWN;
        }
        visit(context, i, record);
        mr_cache_release(p->entry);
    }
    counters *count = &r->store->count;
    atomic_fetch_add_explicit(&count->fetches, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&count->ids, n, memory_order_relaxed);
    atomic_fetch_add_explicit(&count->hits_cache, cache, memory_order_relaxed);
    atomic_fetch_add_explicit(&count->hits_stale, stale, memory_order_relaxed);
    atomic_fetch_add_explicit(&count->negative_hits, negative, memory_order_relaxed);
    atomic_fetch_add_explicit(&count->hits_store, found, memory_order_relaxed);
    atomic_fetch_add_explicit(&count->misses, misses, memory_order_relaxed);
    return unknown;
}

static mr_status cached_fetch(void *self, mr_store_key *key, const mr_str *ids, size_t n,
                              mr_store_visit visit, void *context, mr_error *err)
{
    cached_store *store = self;
    place few[FEW];
    mr_str few_ids[FEW];
    size_t few_index[FEW];
    void *many = NULL;
    request r = {.store = store, .places = few, .ids = few_ids, .index = few_index};
    if (n > FEW) {
        size_t bytes;
        if (!mr_size_mul(n, sizeof(place) + sizeof(mr_str) + sizeof(size_t), &bytes) ||
            !(many = malloc(bytes)))
            return MR_FAIL(err, NO_MEMORY, "no memory to fetch %zu records", n);
        r.places = many;
        r.ids = (mr_str *)(r.places + n);
        r.index = (size_t *)(r.ids + n);
    }
    const int64_t now = mr_clock_monotonic_us();
    mr_error why = {0};
    look_up(&r, key, ids, n, now);
    mr_status status = ask(&r, key, &why);
    wait_for_others(&r, n, now + store->wait_us);
    const size_t unknown = visit_all(&r, n, visit, context);
    free(many);
    if (unknown == 0)
        return MR_OK;
    if (status != MR_OK) {
        if (err)
            *err = why;
        return status;
    }
    if (r.no_memory)
        return MR_FAIL(err, NO_MEMORY, "no memory for %zu of %zu records that the store sent",
                       unknown, n);
    return MR_FAIL(err, UNAVAILABLE,
                   "%zu of %zu records were being asked for by another fetch, which got no answer "
                   "within %lld ms",
                   unknown, n, (long long)(store->wait_us / 1000));
}

/* ---- writing --------------------------------------------------------------------------------- */

/* The keys are marked as changed after the store answered, and only then. A fill that read the old
 * record began before the store carried the put out, so that it either ended before the mark and
 * its entry is dropped, or is still under way and keeps nothing. Marking them before as well would
 * gain nothing: between that mark and the put, the next fetch puts the old record back.
 *
 * A put that got no answer may still be carried out a little later, after the mark, and no change
 * is told of a put of our own. So what is asked for until it must be over is under the soft age. */
static mr_status cached_put(void *self, mr_store_key *key, const mr_store_write *writes, size_t n,
                            const mr_store_note *note, mr_store_put_result *result, mr_error *err)
{
    cached_store *store = self;
    const mr_status status = store->ops->put(store->inner, key, writes, n, note, result, err);
    if (n && (status == MR_UNAVAILABLE || status == MR_TIMEOUT))
        atomic_store(&store->doubted_us, mr_clock_monotonic_us() + store->write_us);
    for (size_t i = 0; i < n; i++) {
        if (mr_store_key_set(key, writes[i].id))
            mr_cache_changed(store->cache, (mr_bytes){key->bytes, key->len});
    }
    return status;
}

static mr_status cached_remove(void *self, const mr_store_key *key, uint64_t *removed,
                               mr_error *err)
{
    cached_store *store = self;
    const mr_status status = store->ops->remove(store->inner, key, removed, err);
    mr_cache_flush(store->cache); /* after a failure too: a part may be gone */
    return status;
}

/* ---- what the store tells -------------------------------------------------------------------- */

static void on_changed(void *context, mr_bytes key)
{
    cached_store *store = context;
    mr_cache_changed(store->cache, key);
}

static void on_flush(void *context)
{
    cached_store *store = context;
    atomic_store(&store->trusted_era, mr_cache_next_era(store->cache));
    atomic_fetch_add(&store->flushes, 1);
}

static void on_tracking(void *context, bool is_on)
{
    cached_store *store = context;
    atomic_store(&store->tracked_era, is_on ? mr_cache_next_era(store->cache) : UINT64_MAX);
}

/* ---- the rest is the inner store's ----------------------------------------------------------- */

static mr_status cached_get_note(void *self, mr_bytes key, char **value, size_t *len, mr_error *err)
{
    cached_store *store = self;
    return store->ops->get_note(store->inner, key, value, len, err);
}

static mr_status cached_walk(void *self, const mr_store_key *key, mr_store_walk_visit visit,
                             void *context, mr_error *err)
{
    cached_store *store = self;
    return store->ops->walk(store->inner, key, visit, context, err);
}

static mr_status cached_spaces(void *self, const mr_store_key *key, uint64_t *spaces,
                               size_t capacity, size_t *n, mr_error *err)
{
    cached_store *store = self;
    return store->ops->spaces(store->inner, key, spaces, capacity, n, err);
}

static mr_status cached_stat(void *self, mr_store_stats *out, mr_error *err)
{
    cached_store *store = self;
    return store->ops->stat(store->inner, out, err);
}

static mr_status cached_sync(void *self, mr_error *err)
{
    cached_store *store = self;
    return store->ops->sync(store->inner, err);
}

/* What the inner store counts of fetches is only what reached it: here the whole is known. */
static void cached_health(void *self, mr_store_health *out)
{
    cached_store *store = self;
    mr_cache_stats cache;
    if (store->ops->health)
        store->ops->health(store->inner, out);
    mr_cache_stat(store->cache, &cache);
    out->fetches = atomic_load(&store->count.fetches);
    out->ids = atomic_load(&store->count.ids);
    out->hits_cache = atomic_load(&store->count.hits_cache);
    out->hits_stale = atomic_load(&store->count.hits_stale);
    out->negative_hits = atomic_load(&store->count.negative_hits);
    out->hits_store = atomic_load(&store->count.hits_store);
    out->misses = atomic_load(&store->count.misses);
    out->evictions = cache.evictions;
    out->invalidations = cache.invalidations;
    out->flushes = cache.flushes + atomic_load(&store->flushes);
    out->cache_bytes = cache.bytes;
}

static void cached_close(void *self)
{
    cached_store *store = self;
    store->ops->close(store->inner); /* its thread may be telling of a change */
    mr_cache_free(store->cache);
    free(store);
}

static int64_t microseconds(int64_t ms, int64_t otherwise_ms)
{
    const int64_t most = INT64_C(1) << 35; /* a year */
    const int64_t value = ms > 0 ? ms : otherwise_ms;
    return (value < most ? value : most) * 1000;
}

mr_status mr_store_cached_open(void **self, const mr_store_ops *inner_ops, void *inner,
                               const mr_store_options *options, mr_error *err)
{
    cached_store *store = calloc(1, sizeof *store);
    if (!store)
        return MR_FAIL(err, NO_MEMORY, "no memory for a store's cache");
    mr_status status = mr_cache_new(&store->cache, options->cache_bytes, err);
    if (status != MR_OK) {
        free(store);
        return status;
    }
    store->ops = inner_ops;
    store->inner = inner;
    store->soft_us = microseconds(options->cache_soft_age_ms, 60000);
    store->hard_us = microseconds(options->cache_hard_age_ms, 3600000);
    store->negative_us = microseconds(options->cache_negative_age_ms, 5000);
    store->wait_us = microseconds(options->fetch_timeout_ms, 100);
    store->write_us = microseconds(options->write_timeout_ms, 5000);
    atomic_init(&store->tracked_era, UINT64_MAX);
    atomic_init(&store->doubted_us, INT64_MIN);
    store->watcher = (mr_store_watcher){store, on_changed, on_flush, on_tracking};
    if (inner_ops->watch)
        inner_ops->watch(inner, &store->watcher);
    *self = store;
    return MR_OK;
}

/* Named after what is behind it: the cache goes before Redis alone. */
const mr_store_ops mr_store_cached_ops = {
    .name = "redis",
    .close = cached_close,
    .fetch = cached_fetch,
    .put = cached_put,
    .get_note = cached_get_note,
    .walk = cached_walk,
    .spaces = cached_spaces,
    .stat = cached_stat,
    .sync = cached_sync,
    .remove = cached_remove,
    .health = cached_health,
};
