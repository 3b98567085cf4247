/* store_lmdb.c - records and notes in one LMDB file: the store of a machine without a server.
 *
 * A fetch is one read transaction: a snapshot, without a lock, of pointers into the map. A put is
 * one write transaction, so that a process that is killed leaves whole batches. How the environment
 * is opened, and what LMDB needs to be kept from, is in lmdb_env.c.
 *
 * Records of more than about 2 KiB lie on pages of their own: 4,080 bytes fit one, a byte more
 * takes two.
 * SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "featurestore/lmdb_env.h"
#include "featurestore/store_backend.h"

#define REMOVE_BATCH 1000

mr_status mr_store_lmdb_open(void **self, const char *path, const mr_store_options *options,
                             mr_error *err)
{
    mr_lmdb_env *env = NULL;
    mr_status status = mr_lmdb_env_open(&env, path, options, err);
    if (status == MR_OK)
        *self = env;
    return status;
}

static void lmdb_close(void *self)
{
    mr_lmdb_env_close(self);
}

static MDB_val key_value(mr_store_key *key)
{
    return (MDB_val){key->len, key->bytes};
}

static mr_status lmdb_fetch(void *self, mr_store_key *key, const mr_str *ids, size_t n,
                            mr_store_visit visit, void *context, mr_error *err)
{
    mr_lmdb_env *env = self;
    MDB_dbi records = mr_lmdb_env_records(env);
    MDB_txn *txn;
    mr_status status = mr_lmdb_read_begin(env, &txn, err);
    if (status != MR_OK)
        return status;

    for (size_t i = 0; i < n && status == MR_OK; i++) {
        MDB_val value = {0, NULL};
        int rc = MDB_NOTFOUND;
        if (mr_store_key_set(key, ids[i])) {
            MDB_val k = key_value(key);
            rc = mdb_get(txn, records, &k, &value);
        }
        if (rc == 0)
            visit(context, i, (mr_bytes){value.mv_data, value.mv_size});
        else if (rc == MDB_NOTFOUND)
            visit(context, i, (mr_bytes){NULL, 0});
        else
            status = mr_lmdb_fail(env, rc, "reading", err);
    }
    mr_lmdb_read_end(env, txn);
    return status;
}

/* ---- put ------------------------------------------------------------------------------------- */

/* LMDB's own codes are errno's and others below 0. */
#define NOTE_DIFFERS INT_MAX

static int put_note(mr_lmdb_env *env, MDB_txn *txn, const mr_store_note *note)
{
    MDB_val k = {note->key.len, (void *)note->key.data}, stored = {0, NULL};
    int rc = note->is_swap ? mdb_get(txn, mr_lmdb_env_notes(env), &k, &stored) : MDB_NOTFOUND;
    if (rc != 0 && rc != MDB_NOTFOUND)
        return rc;
    if (!mr_store_note_swaps(note,
                             rc == 0 ? (mr_bytes){stored.mv_data, stored.mv_size} : (mr_bytes){0}))
        return NOTE_DIFFERS;
    MDB_val value = {note->value.len, (void *)note->value.data};
    return mdb_put(txn, mr_lmdb_env_notes(env), &k, &value, 0);
}

static int put_in(mr_lmdb_env *env, MDB_txn *txn, mr_store_key *key, const mr_store_write *writes,
                  size_t n, const mr_store_note *note, mr_store_put_result *result)
{
    MDB_dbi records = mr_lmdb_env_records(env);
    *result = (mr_store_put_result){0};
    for (size_t i = 0; i < n; i++) {
        MDB_val stored = {0, NULL};
        mr_store_key_set(key, writes[i].id);
        MDB_val k = key_value(key);
        int rc = mdb_get(txn, records, &k, &stored);
        if (rc != 0 && rc != MDB_NOTFOUND)
            return rc;
        if (rc == 0 &&
            !mr_store_replaces((mr_bytes){stored.mv_data, stored.mv_size}, writes[i].version)) {
            result->stale++;
            continue;
        }
        /* LMDB takes a pointer to non-const and reads only. */
        MDB_val value = {writes[i].record.len, (void *)writes[i].record.data};
        rc = mdb_put(txn, records, &k, &value, 0);
        if (rc != 0)
            return rc;
        result->written++;
    }
    return note ? put_note(env, txn, note) : 0;
}

/* A reader that died keeps the pages of its snapshot from being used again. Before a store is
 * called full, such readers are dropped and the batch gets a second chance. */
static mr_status lmdb_put(void *self, mr_store_key *key, const mr_store_write *writes, size_t n,
                          const mr_store_note *note, mr_store_put_result *result, mr_error *err)
{
    mr_lmdb_env *env = self;
    for (bool again = true;; again = false) {
        MDB_txn *txn;
        mr_status status = mr_lmdb_write_begin(env, &txn, err);
        if (status != MR_OK)
            return status;
        int rc = put_in(env, txn, key, writes, n, note, result);
        if (rc == 0)
            rc = mr_lmdb_write_commit(env, txn);
        else
            mr_lmdb_write_abort(env, txn);
        if (rc == 0)
            return MR_OK;
        if (rc == NOTE_DIFFERS)
            return mr_store_note_differs(note, err);
        if (rc != MDB_MAP_FULL || !again || !mr_lmdb_drop_dead_readers(env))
            return mr_lmdb_fail(env, rc, "writing to", err);
    }
}

/* ---- the rest -------------------------------------------------------------------------------- */

static mr_status lmdb_get_note(void *self, mr_bytes key, char **value, size_t *len, mr_error *err)
{
    mr_lmdb_env *env = self;
    MDB_txn *txn;
    mr_status status = mr_lmdb_read_begin(env, &txn, err);
    if (status != MR_OK)
        return status;

    MDB_val k = {key.len, (void *)key.data}, found;
    int rc = mdb_get(txn, mr_lmdb_env_notes(env), &k, &found);
    if (rc == MDB_NOTFOUND) {
        status = MR_FAIL(err, NOT_FOUND, "the LMDB store has no note '%.*s'", (int)key.len,
                         (const char *)key.data);
    } else if (rc != 0) {
        status = mr_lmdb_fail(env, rc, "reading", err);
    } else {
        char *copy = malloc(found.mv_size + 1);
        if (copy) {
            memcpy(copy, found.mv_data, found.mv_size);
            copy[found.mv_size] = '\0';
            *value = copy;
            *len = found.mv_size;
        } else {
            status = MR_FAIL(err, NO_MEMORY, "no memory for a note of %zu bytes", found.mv_size);
        }
    }
    mr_lmdb_read_end(env, txn);
    return status;
}

/* Opens a cursor in a transaction of its own. */
static mr_status cursor_begin(mr_lmdb_env *env, MDB_txn **txn, MDB_cursor **cursor, mr_error *err)
{
    mr_status status = mr_lmdb_read_begin(env, txn, err);
    if (status != MR_OK)
        return status;
    int rc = mdb_cursor_open(*txn, mr_lmdb_env_records(env), cursor);
    if (rc != 0) {
        mr_lmdb_read_end(env, *txn);
        return mr_lmdb_fail(env, rc, "reading", err);
    }
    return MR_OK;
}

static mr_status cursor_end(mr_lmdb_env *env, MDB_txn *txn, MDB_cursor *cursor, int rc,
                            mr_error *err)
{
    mdb_cursor_close(cursor);
    mr_lmdb_read_end(env, txn);
    return rc == 0 || rc == MDB_NOTFOUND ? MR_OK : mr_lmdb_fail(env, rc, "reading", err);
}

static bool has_prefix(const MDB_val *found, const mr_store_key *key)
{
    return found->mv_size > key->prefix_len &&
           memcmp(found->mv_data, key->bytes, key->prefix_len) == 0;
}

static mr_status lmdb_walk(void *self, const mr_store_key *key, mr_store_walk_visit visit,
                           void *context, mr_error *err)
{
    mr_lmdb_env *env = self;
    MDB_txn *txn;
    MDB_cursor *cursor;
    mr_status status = cursor_begin(env, &txn, &cursor, err);
    if (status != MR_OK)
        return status;

    MDB_val k = {key->prefix_len, (void *)key->bytes}, value;
    int rc = mdb_cursor_get(cursor, &k, &value, MDB_SET_RANGE);
    while (rc == 0 && has_prefix(&k, key)) {
        mr_str id = {(const char *)k.mv_data + key->prefix_len, k.mv_size - key->prefix_len};
        if (!visit(context, id, (mr_bytes){value.mv_data, value.mv_size}))
            break;
        rc = mdb_cursor_get(cursor, &k, &value, MDB_NEXT);
    }
    return cursor_end(env, txn, cursor, rc, err);
}

/* One look per space: behind a space's first record, the search goes on at its end. */
static mr_status lmdb_spaces(void *self, const mr_store_key *key, uint64_t *spaces, size_t capacity,
                             size_t *n, mr_error *err)
{
    mr_lmdb_env *env = self;
    MDB_txn *txn;
    MDB_cursor *cursor;
    char from[MR_STORE_KEY_MAX];
    size_t count = 0, len = key->prefix_len;
    mr_status status = cursor_begin(env, &txn, &cursor, err);
    if (status != MR_OK)
        return status;

    memcpy(from, key->bytes, len);
    MDB_val k = {len, from}, value;
    int rc = mdb_cursor_get(cursor, &k, &value, MDB_SET_RANGE);
    while (rc == 0 && has_prefix(&k, key)) {
        uint64_t space;
        if (mr_store_key_space(k.mv_data, k.mv_size, key->prefix_len, &space)) {
            if (count < capacity)
                spaces[count] = space;
            count++;
            len = key->prefix_len + 17;
            memcpy(from, k.mv_data, len);
            from[len - 1] = ':' + 1; /* above every id of this space, below the next space */
            k = (MDB_val){len, from};
            rc = mdb_cursor_get(cursor, &k, &value, MDB_SET_RANGE);
        } else {
            rc = mdb_cursor_get(cursor, &k, &value, MDB_NEXT);
        }
    }
    status = cursor_end(env, txn, cursor, rc, err);
    if (status == MR_OK)
        *n = count;
    return status;
}

/* Up to `most` records that begin with the prefix, in one transaction. Each deletion may free pages
 * and needs a few itself, so that a store that is full takes small steps. */
static int remove_some(mr_lmdb_env *env, MDB_txn *txn, const mr_store_key *key, size_t most,
                       size_t *n)
{
    MDB_cursor *cursor;
    MDB_val k = {key->prefix_len, (void *)key->bytes}, value;
    *n = 0;
    int rc = mdb_cursor_open(txn, mr_lmdb_env_records(env), &cursor);
    if (rc != 0)
        return rc;
    rc = mdb_cursor_get(cursor, &k, &value, MDB_SET_RANGE);
    while (rc == 0 && *n < most && has_prefix(&k, key)) {
        rc = mdb_cursor_del(cursor, 0);
        if (rc != 0)
            break;
        ++*n;
        k = (MDB_val){key->prefix_len, (void *)key->bytes};
        rc = mdb_cursor_get(cursor, &k, &value, MDB_SET_RANGE);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static mr_status lmdb_remove(void *self, const mr_store_key *key, uint64_t *removed, mr_error *err)
{
    mr_lmdb_env *env = self;
    size_t n;
    do {
        MDB_txn *txn;
        mr_status status = mr_lmdb_write_begin(env, &txn, err);
        if (status != MR_OK)
            return status;
        int rc = remove_some(env, txn, key, REMOVE_BATCH, &n);
        if (rc == 0)
            rc = mr_lmdb_write_commit(env, txn);
        else
            mr_lmdb_write_abort(env, txn);
        if (rc != 0)
            return mr_lmdb_fail(env, rc, "removing from", err);
        *removed += n;
    } while (n == REMOVE_BATCH);
    return MR_OK;
}

static mr_status lmdb_stat(void *self, mr_store_stats *out, mr_error *err)
{
    mr_lmdb_env *env = self;
    MDB_txn *txn;
    MDB_stat stat;
    mr_status status = mr_lmdb_read_begin(env, &txn, err);
    if (status != MR_OK)
        return status;
    uint64_t used = 0;
    int rc = mdb_stat(txn, mr_lmdb_env_records(env), &stat);
    status = rc ? mr_lmdb_fail(env, rc, "reading", err) : mr_lmdb_used_bytes(env, txn, &used, err);
    mr_lmdb_read_end(env, txn);
    if (status == MR_OK)
        *out = (mr_store_stats){stat.ms_entries, used, mr_lmdb_map_bytes(env)};
    return status;
}

static mr_status lmdb_sync(void *self, mr_error *err)
{
    return mr_lmdb_sync(self, err);
}

const mr_store_ops mr_store_lmdb_ops = {
    .name = "lmdb",
    .close = lmdb_close,
    .fetch = lmdb_fetch,
    .put = lmdb_put,
    .get_note = lmdb_get_note,
    .walk = lmdb_walk,
    .spaces = lmdb_spaces,
    .stat = lmdb_stat,
    .sync = lmdb_sync,
    .remove = lmdb_remove,
};
