/* store_memory.c - records in a hash table, for tests, small catalogues and caches.
 *
 * Open addressing with linear probing over the XXH3 of the whole key. No single record is ever
 * removed (a removed entity is a tombstone record), and removing a space builds the table anew, so
 * that probing needs no markers. Entries are immutable
 * and counted: the table holds one pin, and a fetch pins what it found while it has the lock, then
 * visits without it. So a snapshot costs one counter per record, a slow visit delays no writer, and
 * a visit may write to the store that it reads.
 *
 * Locks: `table` is a read-write lock and is held only inside this file, never during a visit.
 * `turnstile` in front of it lets a waiting writer stop new readers: the usual read-write locks
 * prefer readers, and a busy service would keep a writer out for ever.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "featurestore/store_backend.h"

#define FIRST_CAPACITY 64
#define FEW            512 /* records of a fetch whose pointers fit on the stack */

typedef struct {
    uint64_t hash;
    size_t value_len;
    uint32_t key_len;
    atomic_uint pins;
    char bytes[]; /* the key, then the value */
} entry;

typedef struct {
    uint64_t hash;
    entry *entry; /* NULL: free */
} slot;

typedef struct {
    slot *slots;
    size_t capacity; /* 0 or a power of two; at most three quarters are taken */
    size_t count;
} table;

typedef struct {
    pthread_mutex_t turnstile;
    pthread_rwlock_t lock;
    table records;
    table notes;
    uint64_t used_bytes;
    uint64_t max_bytes;
} memory_store;

static void lock_read(memory_store *store)
{
    pthread_mutex_lock(&store->turnstile);
    pthread_mutex_unlock(&store->turnstile);
    pthread_rwlock_rdlock(&store->lock);
}

static void unlock_read(memory_store *store)
{
    pthread_rwlock_unlock(&store->lock);
}

static void lock_write(memory_store *store)
{
    pthread_mutex_lock(&store->turnstile);
    pthread_rwlock_wrlock(&store->lock);
}

static void unlock_write(memory_store *store)
{
    pthread_rwlock_unlock(&store->lock);
    pthread_mutex_unlock(&store->turnstile);
}

/* ---- entries and tables ---------------------------------------------------------------------- */

static entry *entry_new(const char *key, size_t key_len, const void *value, size_t value_len)
{
    size_t bytes;
    if (!mr_size_add(sizeof(entry) + key_len, value_len, &bytes))
        return NULL;
    entry *e = malloc(bytes);
    if (!e)
        return NULL;
    e->hash = mr_hash_xxh3(key, key_len);
    e->key_len = (uint32_t)key_len;
    e->value_len = value_len;
    atomic_init(&e->pins, 1);
    memcpy(e->bytes, key, key_len);
    if (value_len)
        memcpy(e->bytes + key_len, value, value_len);
    return e;
}

static entry *entry_pin(entry *e)
{
    if (e)
        atomic_fetch_add_explicit(&e->pins, 1, memory_order_relaxed);
    return e;
}

static void entry_unpin(entry *e)
{
    if (e && atomic_fetch_sub_explicit(&e->pins, 1, memory_order_acq_rel) == 1)
        free(e);
}

static mr_bytes entry_value(const entry *e)
{
    return e ? (mr_bytes){e->bytes + e->key_len, e->value_len} : (mr_bytes){NULL, 0};
}

/* With the two slots that an entry takes on average: what max_bytes bounds is what is used. */
static uint64_t entry_cost(const entry *e)
{
    return e ? sizeof(entry) + 2 * sizeof(slot) + e->key_len + e->value_len : 0;
}

/* The slot that holds the key, or the free one where it belongs. The table must have slots. */
static slot *table_slot(const table *t, const char *key, size_t key_len, uint64_t hash)
{
    size_t mask = t->capacity - 1;
    for (size_t i = (size_t)hash & mask;; i = (i + 1) & mask) {
        slot *s = &t->slots[i];
        if (!s->entry || (s->hash == hash && s->entry->key_len == key_len &&
                          memcmp(s->entry->bytes, key, key_len) == 0))
            return s;
    }
}

static entry *table_find(const table *t, const char *key, size_t key_len)
{
    return t->capacity ? table_slot(t, key, key_len, mr_hash_xxh3(key, key_len))->entry : NULL;
}

/* Room for `more` entries. False when memory is out; the table is then as before. */
static bool table_reserve(table *t, size_t more)
{
    size_t need, bytes, capacity = t->capacity ? t->capacity : FIRST_CAPACITY;
    if (!mr_size_add(t->count, more, &need))
        return false;
    while (need > capacity / 4 * 3) {
        if (!mr_size_mul(capacity, 2, &capacity))
            return false;
    }
    if (capacity == t->capacity)
        return true;
    if (!mr_size_mul(capacity, sizeof(slot), &bytes))
        return false;
    slot *slots = calloc(1, bytes);
    if (!slots)
        return false;
    for (size_t i = 0; i < t->capacity; i++) {
        if (!t->slots[i].entry)
            continue;
        size_t at = (size_t)t->slots[i].hash & (capacity - 1);
        while (slots[at].entry)
            at = (at + 1) & (capacity - 1);
        slots[at] = t->slots[i];
    }
    free(t->slots);
    t->slots = slots;
    t->capacity = capacity;
    return true;
}

/* Returns what stood there before, NULL when the key is new. */
static entry *table_swap(table *t, entry *e)
{
    slot *s = table_slot(t, e->bytes, e->key_len, e->hash);
    entry *before = s->entry;
    *s = (slot){e->hash, e};
    t->count += !before;
    return before;
}

static void table_free(table *t)
{
    for (size_t i = 0; i < t->capacity; i++)
        entry_unpin(t->slots[i].entry);
    free(t->slots);
}

/* ---- operations ------------------------------------------------------------------------------ */

mr_status mr_store_memory_open(void **self, const mr_store_options *options, mr_error *err)
{
    memory_store *store = calloc(1, sizeof *store);
    if (!store)
        return MR_FAIL(err, NO_MEMORY, "no memory for a memory store");
    pthread_mutex_init(&store->turnstile, NULL);
    pthread_rwlock_init(&store->lock, NULL);
    store->max_bytes = options->max_bytes;
    *self = store;
    return MR_OK;
}

static void memory_close(void *self)
{
    memory_store *store = self;
    table_free(&store->records);
    table_free(&store->notes);
    pthread_rwlock_destroy(&store->lock);
    pthread_mutex_destroy(&store->turnstile);
    free(store);
}

static mr_status memory_fetch(void *self, mr_store_key *key, const mr_str *ids, size_t n,
                              mr_store_visit visit, void *context, mr_error *err)
{
    memory_store *store = self;
    entry *few[FEW];
    entry **found = few;
    size_t bytes;
    if (n > FEW && (!mr_size_mul(n, sizeof(entry *), &bytes) || !(found = malloc(bytes))))
        return MR_FAIL(err, NO_MEMORY, "no memory to fetch %zu records", n);

    lock_read(store);
    for (size_t i = 0; i < n; i++)
        found[i] = mr_store_key_set(key, ids[i])
                       ? entry_pin(table_find(&store->records, key->bytes, key->len))
                       : NULL;
    unlock_read(store);

    for (size_t i = 0; i < n; i++) {
        visit(context, i, entry_value(found[i]));
        entry_unpin(found[i]);
    }
    if (found != few)
        free(found);
    return MR_OK;
}

/* A write that is made ready outside the lock. After it is applied, `entry` is what it replaced. */
typedef struct {
    entry *entry;
    bool wins;
} planned;

/* Decides what wins and whether all of it fits, and changes nothing. */
static mr_status plan_batch(memory_store *store, planned *plan, const mr_store_write *writes,
                            size_t n, const entry *note, uint64_t *used,
                            mr_store_put_result *result, mr_error *err)
{
    if (!table_reserve(&store->records, n) || !table_reserve(&store->notes, note ? 1 : 0))
        return MR_FAIL(err, NO_MEMORY, "no memory for the table of a memory store of %zu records",
                       store->records.count);
    uint64_t after = store->used_bytes;
    if (note)
        after +=
            entry_cost(note) - entry_cost(table_find(&store->notes, note->bytes, note->key_len));
    for (size_t i = 0; i < n; i++) {
        const entry *e = plan[i].entry;
        const entry *old = table_slot(&store->records, e->bytes, e->key_len, e->hash)->entry;
        plan[i].wins = mr_store_replaces(entry_value(old), writes[i].version);
        if (plan[i].wins)
            after +=
                entry_cost(e) - entry_cost(old); /* may pass below zero on the way; wraps back */
        result->written += plan[i].wins;
        result->stale += !plan[i].wins;
    }
    if (after > store->max_bytes && after > store->used_bytes)
        return MR_FAIL(err, EXHAUSTED,
                       "the memory store is full: %llu of %llu bytes are used and this put of %zu "
                       "records needs %llu more; nothing of it was written. Raise max_bytes",
                       (unsigned long long)store->used_bytes, (unsigned long long)store->max_bytes,
                       n, (unsigned long long)(after - store->used_bytes));
    *used = after;
    return MR_OK;
}

static mr_status memory_put(void *self, mr_store_key *key, const mr_store_write *writes, size_t n,
                            const mr_store_note *note, mr_store_put_result *result, mr_error *err)
{
    memory_store *store = self;
    planned *plan = calloc(n + 1, sizeof *plan); /* the last one is the note */
    entry *new_note = NULL;
    mr_status status = MR_OK;
    uint64_t used = 0;
    bool ready = plan != NULL;

    for (size_t i = 0; ready && i < n; i++) {
        mr_store_key_set(key, writes[i].id);
        plan[i].entry =
            entry_new(key->bytes, key->len, writes[i].record.data, writes[i].record.len);
        ready = plan[i].entry != NULL;
    }
    if (ready && note) {
        new_note = entry_new(note->key.data, note->key.len, note->value.data, note->value.len);
        plan[n] = (planned){new_note, true};
        ready = new_note != NULL;
    }
    if (!ready) {
        status = MR_FAIL(err, NO_MEMORY, "no memory to put %zu records", n);
        goto out;
    }

    lock_write(store);
    if (note && !mr_store_note_swaps(
                    note, entry_value(table_find(&store->notes, note->key.data, note->key.len))))
        status = mr_store_note_differs(note, err);
    if (status == MR_OK)
        status = plan_batch(store, plan, writes, n, new_note, &used, result, err);
    if (status == MR_OK) {
        store->used_bytes = used;
        for (size_t i = 0; i < n; i++) {
            if (plan[i].wins)
                plan[i].entry = table_swap(&store->records, plan[i].entry);
        }
        if (new_note)
            plan[n].entry = table_swap(&store->notes, new_note);
    }
    unlock_write(store);

out:
    for (size_t i = 0; plan && i <= n; i++)
        entry_unpin(plan[i].entry);
    free(plan);
    return status;
}

static mr_status memory_get_note(void *self, mr_bytes key, char **value, size_t *len, mr_error *err)
{
    memory_store *store = self;
    lock_read(store);
    entry *found = entry_pin(table_find(&store->notes, key.data, key.len));
    unlock_read(store);
    if (!found)
        return MR_FAIL(err, NOT_FOUND, "the memory store has no note '%.*s'", (int)key.len,
                       (const char *)key.data);

    mr_bytes bytes = entry_value(found);
    char *copy = malloc(bytes.len + 1);
    if (copy) {
        memcpy(copy, bytes.data, bytes.len);
        copy[bytes.len] = '\0';
        *value = copy;
        *len = bytes.len;
    }
    entry_unpin(found);
    return copy ? MR_OK : MR_FAIL(err, NO_MEMORY, "no memory for a note of %zu bytes", bytes.len);
}

/* As LMDB orders keys. */
static int compare_entries(const void *left, const void *right)
{
    const entry *a = *(entry *const *)left, *b = *(entry *const *)right;
    int order = memcmp(a->bytes, b->bytes, a->key_len < b->key_len ? a->key_len : b->key_len);
    return order ? order : (a->key_len > b->key_len) - (a->key_len < b->key_len);
}

static bool has_prefix(const entry *e, const mr_store_key *key)
{
    return e && e->key_len > key->prefix_len && memcmp(e->bytes, key->bytes, key->prefix_len) == 0;
}

static mr_status memory_walk(void *self, const mr_store_key *key, mr_store_walk_visit visit,
                             void *context, mr_error *err)
{
    memory_store *store = self;
    size_t n = 0;

    lock_read(store);
    const table *t = &store->records;
    entry **found = malloc((t->count + 1) * sizeof(entry *));
    for (size_t i = 0; found && i < t->capacity; i++) {
        if (has_prefix(t->slots[i].entry, key))
            found[n++] = entry_pin(t->slots[i].entry);
    }
    unlock_read(store);
    if (!found)
        return MR_FAIL(err, NO_MEMORY, "no memory to walk the records of a memory store");

    qsort(found, n, sizeof(entry *), compare_entries);
    bool more = true;
    for (size_t i = 0; i < n; i++) {
        mr_str id = {found[i]->bytes + key->prefix_len, found[i]->key_len - key->prefix_len};
        more = more && visit(context, id, entry_value(found[i]));
        entry_unpin(found[i]);
    }
    free(found);
    return MR_OK;
}

/* The next space above *floor (or any, when there is none yet): a store holds two or three spaces,
 * so that a pass per space is cheaper than keeping an index. */
static bool next_space(const table *t, const mr_store_key *key, const uint64_t *floor,
                       uint64_t *next)
{
    bool any = false;
    for (size_t i = 0; i < t->capacity; i++) {
        const entry *e = t->slots[i].entry;
        uint64_t space;
        if (!has_prefix(e, key) ||
            !mr_store_key_space(e->bytes, e->key_len, key->prefix_len, &space) ||
            (floor && space <= *floor) || (any && space >= *next))
            continue;
        *next = space;
        any = true;
    }
    return any;
}

static mr_status memory_spaces(void *self, const mr_store_key *key, uint64_t *spaces,
                               size_t capacity, size_t *n, mr_error *err)
{
    memory_store *store = self;
    size_t count = 0;
    uint64_t last = 0, next = 0;
    (void)err;
    lock_read(store);
    while (next_space(&store->records, key, count ? &last : NULL, &next)) {
        if (count < capacity)
            spaces[count] = next;
        count++;
        last = next;
    }
    unlock_read(store);
    *n = count;
    return MR_OK;
}

static mr_status memory_stat(void *self, mr_store_stats *out, mr_error *err)
{
    memory_store *store = self;
    (void)err;
    lock_read(store);
    *out = (mr_store_stats){store->records.count, store->used_bytes, store->max_bytes};
    unlock_read(store);
    return MR_OK;
}

/* The others move to a table of the same size: then no place between them is free by mistake. */
static mr_status memory_remove(void *self, const mr_store_key *key, uint64_t *removed,
                               mr_error *err)
{
    memory_store *store = self;
    mr_status status = MR_OK;
    lock_write(store);
    table *t = &store->records, kept = {.capacity = store->records.capacity};
    if (t->capacity && !(kept.slots = calloc(t->capacity, sizeof(slot)))) {
        status = MR_FAIL(err, NO_MEMORY, "no memory to remove records from a memory store");
        goto out;
    }
    for (size_t i = 0; i < t->capacity; i++) {
        entry *e = t->slots[i].entry;
        if (!e)
            continue;
        if (has_prefix(e, key)) {
            store->used_bytes -= entry_cost(e);
            entry_unpin(e);
            ++*removed;
        } else {
            table_swap(&kept, e);
        }
    }
    free(t->slots);
    *t = kept;
out:
    unlock_write(store);
    return status;
}

static mr_status memory_sync(void *self, mr_error *err)
{
    (void)self;
    (void)err;
    return MR_OK;
}

const mr_store_ops mr_store_memory_ops = {
    .name = "memory",
    .close = memory_close,
    .fetch = memory_fetch,
    .put = memory_put,
    .get_note = memory_get_note,
    .walk = memory_walk,
    .spaces = memory_spaces,
    .stat = memory_stat,
    .sync = memory_sync,
    .remove = memory_remove,
};
