/* lmdb_env.h - an LMDB environment opened with care: what the library leaves to its user.
 *
 * - A path is open once in a process. LMDB's locks are fcntl locks, which vanish when any
 * descriptor of the file is closed, so that a second handle would let two writers in. A registry by
 * device and inode refuses it.
 * - The header is checked before LMDB maps the file, and the file's length after: LMDB believes
 * both, and a file that was cut short would end the process with SIGBUS at some later read.
 * - Read transactions keep their slot in the lock file and are reset and renewed. They belong to no
 *   thread (MDB_NOTLS): whoever reads takes one from the pool.
 * - When another process lets the file outgrow our map, the map is enlarged between transactions.
 * Threads: everything but open and close from any thread; a transaction by one thread at a time.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_LMDB_ENV_H
#define MR_FEATURESTORE_LMDB_ENV_H

#include <lmdb.h>
#include <stdbool.h>

#include "core/error.h"
#include "featurestore/store.h"

typedef struct mr_lmdb_env mr_lmdb_env;

/* Opens or makes the store in folder path, format note included. */
mr_status mr_lmdb_env_open(mr_lmdb_env **out, const char *path, const mr_store_options *options,
                           mr_error *err);
void mr_lmdb_env_close(mr_lmdb_env *env); /* NULL is fine */

MDB_env *mr_lmdb_env_handle(mr_lmdb_env *env);
MDB_dbi mr_lmdb_env_records(const mr_lmdb_env *env);
MDB_dbi mr_lmdb_env_notes(const mr_lmdb_env *env);

/* A snapshot. What mdb_get returned is valid until the end. */
mr_status mr_lmdb_read_begin(mr_lmdb_env *env, MDB_txn **txn, mr_error *err);
void mr_lmdb_read_end(mr_lmdb_env *env, MDB_txn *txn);

/* Waits for other writers, of this and of other processes. End with exactly one of the two; both
 * end the transaction in any case. commit returns LMDB's code. */
mr_status mr_lmdb_write_begin(mr_lmdb_env *env, MDB_txn **txn, mr_error *err);
int mr_lmdb_write_commit(mr_lmdb_env *env, MDB_txn *txn);
void mr_lmdb_write_abort(mr_lmdb_env *env, MDB_txn *txn);

/* Frees the slots of readers that died. True when there were any. */
bool mr_lmdb_drop_dead_readers(mr_lmdb_env *env);

/* Bytes of the pages in use: all that were ever taken, less the free ones. */
mr_status mr_lmdb_used_bytes(mr_lmdb_env *env, MDB_txn *txn, uint64_t *used, mr_error *err);
uint64_t mr_lmdb_map_bytes(mr_lmdb_env *env);
mr_status mr_lmdb_sync(mr_lmdb_env *env, mr_error *err);

/* LMDB's code (or an errno) as a status and a message that names the store; doing is "reading" and
 * the like. */
mr_status mr_lmdb_fail(mr_lmdb_env *env, int rc, const char *doing, mr_error *err);

#endif
