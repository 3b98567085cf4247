/* lmdb_env.c - see lmdb_env.h.
 *
 * Order of a life: folder, registry, header check, mdb_env_open, length check, dead readers,
 * databases and format note. Two databases in one file: "records", and "notes" with the note
 * ":format" (no namespace is empty, so that no user's note can have this key). Locks:
 * `registry_lock` is held over mdb_env_open and mdb_env_close, and never together with an
 * environment's `lock`, which guards its pool and its count of running transactions.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/lmdb_env.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/file.h"
#include "featurestore/lmdb_header.h"

#define FORMAT_NAME      "mixrank store "
#define FORMAT_VERSION   1
#define MAX_READERS      1024 /* of all processes; a slot takes 64 bytes of the lock file */
#define POOL_MAX         64
#define MIN_MAP_BYTES    ((uint64_t)64 << 10)
#define RESIZE_WAIT_S    2
#define RESTORE          "restore it, or delete the folder and encode again"
#define PATH_BYTES       4096
#define FILE_PERMISSIONS 0644

static char format_key[] = ":format"; /* LMDB wants it writable, and does not write */

struct mr_lmdb_env {
    MDB_env *handle;
    MDB_dbi records;
    MDB_dbi notes;
    bool read_only;
    bool may_create;
    bool fast_writes;
    bool listed; /* in the registry, under the four fields below */
    dev_t device;
    ino_t inode;
    pid_t process;
    mr_lmdb_env *next;

    pthread_mutex_t lock;
    pthread_cond_t quiet; /* running became 0 */
    size_t running;       /* transactions of this process, waiting ones included */
    uint64_t map_bytes;
    bool lost; /* the map could not be restored after a resize */
    size_t pooled;
    MDB_txn *pool[POOL_MAX]; /* reset readers */

    char path[];
};

MDB_env *mr_lmdb_env_handle(mr_lmdb_env *env)
{
    return env->handle;
}

MDB_dbi mr_lmdb_env_records(const mr_lmdb_env *env)
{
    return env->records;
}

MDB_dbi mr_lmdb_env_notes(const mr_lmdb_env *env)
{
    return env->notes;
}

/* ---- errors ---------------------------------------------------------------------------------- */

static const struct {
    int rc;
    mr_status status;
    const char *hint;
} failures[] = {
    {MDB_INVALID, MR_CORRUPT, RESTORE},
    {MDB_CORRUPTED, MR_CORRUPT, RESTORE},
    {MDB_PAGE_NOTFOUND, MR_CORRUPT, RESTORE},
    {MDB_INCOMPATIBLE, MR_CORRUPT, "it is damaged, or of another program"},
    {MDB_CURSOR_FULL, MR_CORRUPT, RESTORE},
    {MDB_VERSION_MISMATCH, MR_UNSUPPORTED, "another version of LMDB made it or has it open"},
    {MDB_READERS_FULL, MR_UNAVAILABLE, "let fewer threads and processes read at once"},
    {MDB_MAP_RESIZED, MR_UNAVAILABLE,
     "another process made it larger while this one was reading; try again"},
    {MDB_TXN_FULL, MR_EXHAUSTED, "put smaller batches"},
    {MDB_PANIC, MR_IO, "an earlier failure left it unusable; close it and open it again"},
    {ENOSPC, MR_EXHAUSTED, "nothing of this write was kept, all else is readable; make room"},
    {EDQUOT, MR_EXHAUSTED, "nothing of this write was kept, all else is readable; make room"},
    {EFBIG, MR_EXHAUSTED, "nothing of this write was kept, all else is readable; make room"},
    {EIO, MR_IO, "the disk fails, or is full"},
    {EACCES, MR_IO, "writers and readers alike write to lock.mdb, writers to data.mdb too"},
    {EPERM, MR_IO, "writers and readers alike write to lock.mdb, writers to data.mdb too"},
    {EROFS, MR_IO, "open it with read_only"},
    {ENOENT, MR_NOT_FOUND, "name the folder that holds data.mdb"},
    {ENOMEM, MR_NO_MEMORY,
     "its map takes address space: lower max_bytes, or raise the limit (ulimit -v)"},
};

mr_status mr_lmdb_fail(mr_lmdb_env *env, int rc, const char *doing, mr_error *err)
{
    if (rc == MDB_MAP_FULL)
        return MR_FAIL(err, EXHAUSTED,
                       "LMDB store '%.200s' is full: its map of %llu bytes is used up; nothing of "
                       "this write was kept, all else is readable. Open it with a larger max_bytes",
                       env->path, (unsigned long long)mr_lmdb_map_bytes(env));
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        if (failures[i].rc == rc)
            return mr_error_set(err, failures[i].status, __FILE__, __LINE__,
                                "%s LMDB store '%.200s': %s; %s", doing, env->path,
                                mdb_strerror(rc), failures[i].hint);
    }
    return MR_FAIL(err, IO, "%s LMDB store '%.200s': %s", doing, env->path, mdb_strerror(rc));
}

/* ---- the file -------------------------------------------------------------------------------- */

static mr_status check_header(mr_lmdb_env *env, const char *file, mr_error *err)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return mr_lmdb_fail(env, errno, "opening", err);
    const char *fault = mr_lmdb_header_fault(fd);
    close(fd);
    if (fault)
        return MR_FAIL(err, CORRUPT, "'%.300s' is damaged, or no LMDB file: %s; " RESTORE, file,
                       fault);
    return MR_OK;
}

/* Every page up to the last that the header speaks of was written before the header was. */
static mr_status check_length(mr_lmdb_env *env, const char *file, mr_error *err)
{
    MDB_envinfo info;
    MDB_stat stat;
    struct stat st;
    int fd;
    mdb_env_info(env->handle, &info);
    mdb_env_stat(env->handle, &stat);
    mdb_env_get_fd(env->handle, &fd);
    if (fstat(fd, &st) != 0)
        return mr_lmdb_fail(env, errno, "opening", err);
    env->map_bytes = info.me_mapsize;
    uint64_t pages = (uint64_t)st.st_size / stat.ms_psize;
    if (info.me_last_pgno >= pages)
        return MR_FAIL(err, CORRUPT,
                       "'%.300s' has %llu pages of %u bytes, its header speaks of %llu: it was cut "
                       "short; " RESTORE,
                       file, (unsigned long long)pages, stat.ms_psize,
                       (unsigned long long)info.me_last_pgno + 1);
    return MR_OK;
}

/* ---- open and close -------------------------------------------------------------------------- */

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static mr_lmdb_env *registry;

/* A child that was forked inherits the list, but not what its parent opened: the process counts. */
static const mr_lmdb_env *registry_find(const struct stat *st)
{
    for (const mr_lmdb_env *env = registry; env; env = env->next) {
        if (env->device == st->st_dev && env->inode == st->st_ino && env->process == getpid())
            return env;
    }
    return NULL;
}

static mr_status open_handle(mr_lmdb_env *env, const char *file, mr_error *err)
{
    unsigned flags = MDB_NOTLS;
    struct stat st;
    int fd;
    if (env->read_only)
        flags |= MDB_RDONLY;
    if (env->fast_writes)
        flags |= MDB_NOSYNC;

    mr_status status = MR_OK;
    pthread_mutex_lock(&registry_lock);
    if (stat(file, &st) == 0) {
        const mr_lmdb_env *other = registry_find(&st);
        if (other)
            status =
                MR_FAIL(err, INVALID,
                        "LMDB store '%.200s' is already open in this process%s%.100s; open it once "
                        "and share the handle",
                        env->path, strcmp(other->path, env->path) ? " as " : "",
                        strcmp(other->path, env->path) ? other->path : "");
        else
            status = check_header(env, file, err);
    }
    if (status == MR_OK) {
        int rc = mdb_env_open(env->handle, env->path, flags, FILE_PERMISSIONS);
        if (rc == 0) {
            mdb_env_get_fd(env->handle, &fd);
            rc = fstat(fd, &st) == 0 ? 0 : errno;
        }
        if (rc == 0) {
            env->listed = true;
            env->device = st.st_dev;
            env->inode = st.st_ino;
            env->process = getpid();
            env->next = registry;
            registry = env;
        } else {
            status = mr_lmdb_fail(env, rc, "opening", err);
        }
    }
    pthread_mutex_unlock(&registry_lock);
    return status;
}

static mr_status find_folder(mr_lmdb_env *env, const char *file, mr_error *err)
{
    struct stat st;
    if (stat(env->path, &st) == 0 && !S_ISDIR(st.st_mode))
        return MR_FAIL(err, INVALID, "store path '%.300s' is a file; an LMDB store is a folder",
                       env->path);
    bool there = stat(file, &st) == 0;
    if (there && st.st_size > 0)
        return MR_OK;
    if (!there && errno != ENOENT)
        return mr_lmdb_fail(env, errno, "opening", err);
    if (!env->may_create)
        return MR_FAIL(err, NOT_FOUND, "there is no store at '%.300s' (no data.mdb in it)",
                       env->path);
    return mr_file_make_folders(env->path, err);
}

/* The store's format; *found is false in an LMDB file without one. */
static int read_format(mr_lmdb_env *env, MDB_txn *txn, char out[32], bool *found)
{
    MDB_val key = {sizeof format_key - 1, format_key}, value;
    *found = false;
    int rc = mdb_dbi_open(txn, "records", 0, &env->records);
    if (rc == 0)
        rc = mdb_dbi_open(txn, "notes", 0, &env->notes);
    if (rc == 0)
        rc = mdb_get(txn, env->notes, &key, &value);
    if (rc == 0) {
        size_t n = value.mv_size < 31 ? value.mv_size : 31;
        memcpy(out, value.mv_data, n);
        out[n] = '\0';
        *found = true;
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int write_format(mr_lmdb_env *env, MDB_txn *txn)
{
    char text[32];
    int len = snprintf(text, sizeof text, FORMAT_NAME "%d", FORMAT_VERSION);
    MDB_val key = {sizeof format_key - 1, format_key}, value = {(size_t)len, text};
    int rc = mdb_dbi_open(txn, "records", MDB_CREATE, &env->records);
    if (rc == 0)
        rc = mdb_dbi_open(txn, "notes", MDB_CREATE, &env->notes);
    return rc ? rc : mdb_put(txn, env->notes, &key, &value, 0);
}

static mr_status check_format(const mr_lmdb_env *env, const char *format, mr_error *err)
{
    char expected[32];
    snprintf(expected, sizeof expected, FORMAT_NAME "%d", FORMAT_VERSION);
    if (strcmp(format, expected) == 0)
        return MR_OK;
    return MR_FAIL(
        err, UNSUPPORTED,
        "store '%.200s' has format '%s'; this build reads '%s': was it written by a newer "
        "version?",
        env->path, format, expected);
}

/* Opens the databases. A reader's look comes first, so that opening a store that exists waits for
 * no writer. In a fresh file they are made; whoever of two processes comes second finds them. */
static mr_status open_databases(mr_lmdb_env *env, mr_error *err)
{
    bool found = false, empty = false;
    for (int writing = 0; writing <= env->may_create && !found; writing++) {
        char format[32];
        MDB_stat stat;
        MDB_txn *txn;
        int rc = mdb_txn_begin(env->handle, NULL, writing ? 0 : MDB_RDONLY, &txn);
        if (rc != 0)
            return mr_lmdb_fail(env, rc, "opening", err);
        rc = read_format(env, txn, format, &found);
        if (rc == 0 && !found)
            rc = mdb_stat(txn, 1 /* the main database, which names the others */, &stat);
        if (rc == 0 && !found)
            empty = stat.ms_entries == 0;
        if (rc == 0 && !found && writing && empty) {
            rc = write_format(env, txn);
            found = rc == 0;
            snprintf(format, sizeof format, FORMAT_NAME "%d", FORMAT_VERSION);
        }
        if (rc != 0) {
            mdb_txn_abort(txn);
            return mr_lmdb_fail(env, rc, "opening", err);
        }
        mr_status status = found ? check_format(env, format, err) : MR_OK;
        rc = mdb_txn_commit(txn); /* of a reader too: an abort would close the databases */
        if (status != MR_OK)
            return status;
        if (rc != 0)
            return mr_lmdb_fail(env, rc, "opening", err);
    }
    if (!found && empty)
        return MR_FAIL(err, NOT_FOUND, "there is no store at '%.300s' (data.mdb is empty)",
                       env->path);
    if (!found)
        return MR_FAIL(err, CORRUPT,
                       "'%.300s' is an LMDB file of another program, or damaged: it has no format "
                       "note; name another folder",
                       env->path);
    return MR_OK;
}

mr_status mr_lmdb_env_open(mr_lmdb_env **out, const char *path, const mr_store_options *options,
                           mr_error *err)
{
    char file[PATH_BYTES];
    size_t path_bytes = strlen(path) + 1, page = (size_t)sysconf(_SC_PAGESIZE);
    if (path_bytes + sizeof "/data.mdb" > sizeof file)
        return MR_FAIL(err, INVALID,
                       "store path '%.100s...' is %zu bytes long, expected less than %zu", path,
                       path_bytes - 1, sizeof file - sizeof "/data.mdb");
    snprintf(file, sizeof file, "%s/data.mdb", path);
    if (options->max_bytes < MIN_MAP_BYTES || options->max_bytes > SIZE_MAX / 2)
        return MR_FAIL(err, INVALID, "max_bytes of store '%.200s' is %llu, expected %llu to %zu",
                       path, (unsigned long long)options->max_bytes,
                       (unsigned long long)MIN_MAP_BYTES, SIZE_MAX / 2);

    mr_lmdb_env *env = calloc(1, sizeof *env + path_bytes);
    if (!env)
        return MR_FAIL(err, NO_MEMORY, "no memory for an LMDB store");
    memcpy(env->path, path, path_bytes);
    env->read_only = options->read_only;
    env->may_create = !options->read_only && !options->no_create;
    env->fast_writes = options->fast_writes;
    pthread_mutex_init(&env->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&env->quiet, &attr);
    pthread_condattr_destroy(&attr);

    mr_status status = find_folder(env, file, err);
    if (status != MR_OK)
        goto out;
    int rc = mdb_env_create(&env->handle);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(env->handle, 2);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(env->handle, MAX_READERS);
    if (rc == 0)
        rc = mdb_env_set_mapsize(env->handle, mr_size_round_up((size_t)options->max_bytes, page));
    if (rc != 0) {
        status = mr_lmdb_fail(env, rc, "opening", err);
        goto out;
    }
    status = open_handle(env, file, err);
    if (status == MR_OK)
        status = check_length(env, file, err);
    if (status == MR_OK) {
        mr_lmdb_drop_dead_readers(env);
        status = open_databases(env, err);
    }
    if (status == MR_OK) {
        *out = env;
        env = NULL;
    }

out:
    mr_lmdb_env_close(env);
    return status;
}

void mr_lmdb_env_close(mr_lmdb_env *env)
{
    if (!env)
        return;
    while (env->pooled)
        mdb_txn_abort(env->pool[--env->pooled]);
    if (env->listed && env->fast_writes && !env->read_only)
        mdb_env_sync(env->handle, 1);

    pthread_mutex_lock(&registry_lock);
    if (env->handle)
        mdb_env_close(env->handle);
    for (mr_lmdb_env **at = &registry; env->listed && *at; at = &(*at)->next) {
        if (*at == env) {
            *at = env->next;
            break;
        }
    }
    pthread_mutex_unlock(&registry_lock);

    pthread_cond_destroy(&env->quiet);
    pthread_mutex_destroy(&env->lock);
    free(env);
}

bool mr_lmdb_drop_dead_readers(mr_lmdb_env *env)
{
    int dead = 0;
    return mdb_reader_check(env->handle, &dead) == 0 && dead > 0;
}

/* ---- transactions ---------------------------------------------------------------------------- */

/* Announces a transaction and hands out a reader to renew, NULL when there is none. */
static MDB_txn *enter(mr_lmdb_env *env, bool reader)
{
    pthread_mutex_lock(&env->lock);
    env->running++;
    MDB_txn *txn = reader && env->pooled ? env->pool[--env->pooled] : NULL;
    pthread_mutex_unlock(&env->lock);
    return txn;
}

/* Takes back a reader that was reset; NULL is fine. */
static void leave(mr_lmdb_env *env, MDB_txn *reset)
{
    pthread_mutex_lock(&env->lock);
    if (reset && env->pooled < POOL_MAX) {
        env->pool[env->pooled++] = reset;
        reset = NULL;
    }
    if (--env->running == 0)
        pthread_cond_broadcast(&env->quiet);
    pthread_mutex_unlock(&env->lock);
    mdb_txn_abort(reset);
}

/* Takes over the map size that another process gave the file. LMDB wants no transaction of ours to
 * run meanwhile, and one of them may be this thread's own, whose visit began another: so the wait
 * has an end. Returns MDB_MAP_RESIZED when it ran out. */
static int adopt_map_size(mr_lmdb_env *env)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += RESIZE_WAIT_S;
    int rc = 0;
    pthread_mutex_lock(&env->lock);
    while (env->running > 0 && rc == 0)
        rc = pthread_cond_timedwait(&env->quiet, &env->lock, &until);
    if (env->running > 0) {
        rc = MDB_MAP_RESIZED;
    } else {
        MDB_envinfo info;
        rc = mdb_env_set_mapsize(env->handle, 0);
        env->lost = rc != 0;
        if (!env->lost) {
            mdb_env_info(env->handle, &info);
            env->map_bytes = info.me_mapsize;
        }
    }
    pthread_mutex_unlock(&env->lock);
    return rc;
}

uint64_t mr_lmdb_map_bytes(mr_lmdb_env *env)
{
    pthread_mutex_lock(&env->lock);
    uint64_t bytes = env->map_bytes;
    pthread_mutex_unlock(&env->lock);
    return bytes;
}

static bool is_lost(mr_lmdb_env *env)
{
    pthread_mutex_lock(&env->lock);
    bool lost = env->lost;
    pthread_mutex_unlock(&env->lock);
    return lost;
}

/* LMDB looks into the map for this: no resize meanwhile. */
mr_status mr_lmdb_sync(mr_lmdb_env *env, mr_error *err)
{
    enter(env, false);
    int rc = is_lost(env) ? MDB_PANIC : mdb_env_sync(env->handle, 1);
    leave(env, NULL);
    return rc ? mr_lmdb_fail(env, rc, "writing to", err) : MR_OK;
}

static mr_status begin(mr_lmdb_env *env, bool reader, MDB_txn **out, mr_error *err)
{
    int rc = 0;
    for (int attempt = 0; attempt < 3; attempt++) {
        MDB_txn *txn = enter(env, reader);
        if (is_lost(env))
            rc = MDB_PANIC;
        else if (txn)
            rc = mdb_txn_renew(txn);
        else
            rc = mdb_txn_begin(env->handle, NULL, reader ? MDB_RDONLY : 0, &txn);
        if (rc == 0) {
            *out = txn;
            return MR_OK;
        }
        leave(env, txn);
        if (rc == MDB_MAP_RESIZED)
            rc = adopt_map_size(env);
        else if (rc != MDB_READERS_FULL || !mr_lmdb_drop_dead_readers(env))
            break;
        if (rc != 0 && rc != MDB_READERS_FULL)
            break;
    }
    return mr_lmdb_fail(env, rc ? rc : MDB_MAP_RESIZED, reader ? "reading" : "writing to", err);
}

mr_status mr_lmdb_read_begin(mr_lmdb_env *env, MDB_txn **txn, mr_error *err)
{
    return begin(env, true, txn, err);
}

void mr_lmdb_read_end(mr_lmdb_env *env, MDB_txn *txn)
{
    mdb_txn_reset(txn);
    leave(env, txn);
}

mr_status mr_lmdb_write_begin(mr_lmdb_env *env, MDB_txn **txn, mr_error *err)
{
    return begin(env, false, txn, err);
}

int mr_lmdb_write_commit(mr_lmdb_env *env, MDB_txn *txn)
{
    int rc = mdb_txn_commit(txn);
    leave(env, NULL);
    return rc;
}

void mr_lmdb_write_abort(mr_lmdb_env *env, MDB_txn *txn)
{
    mdb_txn_abort(txn);
    leave(env, NULL);
}

mr_status mr_lmdb_used_bytes(mr_lmdb_env *env, MDB_txn *txn, uint64_t *used, mr_error *err)
{
    MDB_envinfo info;
    MDB_stat stat;
    MDB_cursor *cursor;
    MDB_val key, value;
    mdb_env_info(env->handle, &info);
    int rc = mdb_stat(txn, 0 /* the list of free pages */, &stat);
    if (rc == 0)
        rc = mdb_cursor_open(txn, 0, &cursor);
    if (rc != 0)
        return mr_lmdb_fail(env, rc, "reading", err);

    /* Each entry is a count and that many page numbers. */
    uint64_t pages = (uint64_t)info.me_last_pgno + 1;
    while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        size_t count = 0;
        if (value.mv_size >= sizeof count)
            memcpy(&count, value.mv_data, sizeof count);
        pages -= count < pages ? count : pages;
    }
    mdb_cursor_close(cursor);
    if (rc != MDB_NOTFOUND)
        return mr_lmdb_fail(env, rc, "reading", err);
    *used = pages * stat.ms_psize;
    return MR_OK;
}
