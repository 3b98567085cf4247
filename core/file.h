/* file.h - mapped reads, bounded reads, atomic writes, and paths that stay inside a folder.
 *
 * Only regular files are read: a folder, pipe or device is INVALID, and never waited for.
 * A missing file is NOT_FOUND, a full disk EXHAUSTED, anything else that the system refuses IO.
 * Threads: a mapping is read-only and may be shared.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_FILE_H
#define MR_CORE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "core/arena.h"
#include "core/bytes.h"
#include "core/error.h"

/* A whole regular file, mapped read-only. Zero-initialised means empty.
 *
 * Whoever cuts a mapped file short takes the pages away: touching them then raises SIGBUS. So files
 * that are in use are replaced (mr_file_write renames a new one over them), never rewritten in
 * place. A mapping keeps the file that it was made of, also when that is renamed over or deleted.
 */
typedef struct {
    const void *data;
    size_t len;
} mr_file_map;

mr_status mr_file_map_open(mr_file_map *out, const char *path, mr_error *err);
void mr_file_map_close(mr_file_map *map); /* idempotent */

/* Copies a file of at most max_bytes into the arena, terminated by an extra NUL that out->len does
 * not count. EXHAUSTED when it is longer. */
mr_status mr_file_read(mr_arena *arena, const char *path, size_t max_bytes, mr_str *out,
                       mr_error *err);

/* Hands a file of any length to visit in chunks, in order; stops at its first failure. */
typedef mr_status (*mr_file_visit)(void *context, const void *data, size_t len, mr_error *err);
mr_status mr_file_stream(const char *path, mr_file_visit visit, void *context, mr_error *err);

/* Replaces path in one step: temporary file in the same folder, fsync, rename. Never leaves a
 * half-written file under the final name. The permissions of a file that was there are kept; a
 * symbolic link to a file is replaced by the file. INVALID when a folder, pipe or device is there.
 */
mr_status mr_file_write(const char *path, const void *data, size_t len, mr_error *err);

/* The same for content that is produced piecewise:
 *     mr_file_writer w; open; fwrite(..., w.stream); commit or abandon. */
typedef struct {
    FILE *stream;
    char *temporary; /* owned */
    char *path;      /* owned */
} mr_file_writer;
mr_status mr_file_writer_open(mr_file_writer *out, const char *path, mr_error *err);
mr_status mr_file_writer_commit(mr_file_writer *writer, mr_error *err); /* closes in any case */
void mr_file_writer_abandon(mr_file_writer *writer);                    /* no-op after commit */

mr_status mr_file_make_folders(const char *path, mr_error *err); /* mkdir -p */
/* Fills err from an errno: "cannot open 'a.json': Permission denied". Returns the status. */
mr_status mr_file_fail(mr_error *err, int error_number, const char *doing, const char *path);

bool mr_file_exists(const char *path);
bool mr_file_is_folder(const char *path);
mr_status mr_file_copy(const char *from, const char *to, mr_error *err); /* atomic, as write */

/* folder + "/" + name in the arena; NULL when memory is out. */
char *mr_path_join(mr_arena *arena, const char *folder, const char *name);

/* INVALID unless name is a relative path that cannot leave its folder: not empty, not absolute, no
 * ".." component, no backslash. For paths that come from a bundle or an index file. Links are not
 * followed up: whoever may put a link into a bundle may put a file there. */
mr_status mr_path_check_relative(const char *name, mr_error *err);

#endif
