/* file.c - see file.h.
 *
 * Files are opened with O_NONBLOCK before they are known to be regular: opening a named pipe would
 * otherwise wait for a writer for ever. The flag means nothing for a regular file.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define STREAM_CHUNK     ((size_t)256 << 10)
#define TEMPORARY_SUFFIX 40 /* ".tmp-<pid>-<count>" */
#define TEMPORARY_TRIES  100

static mr_status status_of_errno(int number)
{
    switch (number) {
    case ENOENT:
    case ENOTDIR: return MR_NOT_FOUND;
    case EEXIST: return MR_EXISTS;
    case EISDIR: return MR_INVALID;
    case ENOMEM: return MR_NO_MEMORY;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE: return MR_EXHAUSTED;
    default: return MR_IO;
    }
}

mr_status mr_file_fail(mr_error *err, int error_number, const char *doing, const char *path)
{
    mr_status status = status_of_errno(error_number);
    bool too_many_open = error_number == EMFILE || error_number == ENFILE;
    char reason[128];
    if (strerror_r(error_number, reason, sizeof reason) != 0)
        snprintf(reason, sizeof reason, "error number %d", error_number);
    mr_error_set(err, status, __FILE__, __LINE__, "cannot %s '%s': %s%s", doing, path, reason,
                 too_many_open ? "; raise the limit of open files (ulimit -n)" : "");
    return status;
}

static const char *kind_of(mode_t mode)
{
    return S_ISDIR(mode)    ? "a folder"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

/* Opens a regular file for reading; *fd is -1 after a failure. */
static mr_status open_regular(int *fd, struct stat *info, const char *path, mr_error *err)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return mr_file_fail(err, errno, "open", path);
    mr_status status = MR_OK;
    if (fstat(*fd, info) != 0)
        status = mr_file_fail(err, errno, "examine", path);
    else if (!S_ISREG(info->st_mode))
        status = MR_FAIL(err, INVALID, "'%s' is %s, expected a regular file", path,
                         kind_of(info->st_mode));
    else if ((uintmax_t)info->st_size > SIZE_MAX / 2)
        status = MR_FAIL(err, EXHAUSTED, "'%s' is too large to address", path);
    if (status != MR_OK) {
        close(*fd);
        *fd = -1;
    }
    return status;
}

/* Up to len bytes; fewer at the end of the file, -1 on error. */
static ssize_t read_full(int fd, void *data, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = read(fd, (char *)data + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

mr_status mr_file_map_open(mr_file_map *out, const char *path, mr_error *err)
{
    int fd;
    struct stat info;
    mr_status status = open_regular(&fd, &info, path, err);
    if (status != MR_OK)
        return status;

    mr_file_map map = {NULL, (size_t)info.st_size};
    if (map.len > 0) { /* mmap refuses a length of 0 */
        void *data = mmap(NULL, map.len, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            status = mr_file_fail(err, errno, "map", path);
        else
            map.data = data;
    }
    close(fd);
    if (status == MR_OK)
        *out = map;
    return status;
}

void mr_file_map_close(mr_file_map *map)
{
    if (!map)
        return;
    if (map->data)
        munmap((void *)map->data, map->len);
    *map = (mr_file_map){0};
}

mr_status mr_file_read(mr_arena *arena, const char *path, size_t max_bytes, mr_str *out,
                       mr_error *err)
{
    int fd;
    struct stat info;
    mr_status status = open_regular(&fd, &info, path, err);
    if (status != MR_OK)
        return status;

    size_t len = (size_t)info.st_size;
    char *text = NULL;
    if (len > max_bytes) {
        status = MR_FAIL(err, EXHAUSTED, "'%s' holds %zu bytes, expected at most %zu", path, len,
                         max_bytes);
        goto out;
    }
    text = mr_arena_array(arena, char, len + 1);
    if (!text) {
        status = MR_FAIL(err, NO_MEMORY, "%zu bytes for '%s'", len + 1, path);
        goto out;
    }
    ssize_t got = read_full(fd, text, len);
    if (got < 0) {
        status = mr_file_fail(err, errno, "read", path);
        goto out;
    }
    *out = (mr_str){text, (size_t)got};

out:
    close(fd);
    return status;
}

mr_status mr_file_writer_open(mr_file_writer *out, const char *path, mr_error *err)
{
    static atomic_uint counter;
    mr_file_writer writer = {0};
    mr_status status = MR_OK;
    int fd = -1;
    struct stat old;
    size_t size = strlen(path) + 1;

    writer.path = malloc(size);
    writer.temporary = malloc(size + TEMPORARY_SUFFIX);
    if (!writer.path || !writer.temporary) {
        status = MR_FAIL(err, NO_MEMORY, "writing '%s'", path);
        goto out;
    }
    memcpy(writer.path, path, size);
    /* The rename would put a file in its place: as root that is the end of the machine's /dev/null.
     */
    const bool there = stat(path, &old) == 0;
    if (there && !S_ISREG(old.st_mode)) {
        status = MR_FAIL(err, INVALID,
                         "cannot replace '%s': it is %s, expected a regular file or "
                         "a new name",
                         path, kind_of(old.st_mode));
        goto out;
    }
    /* Not mkstemp: it makes the file private, where a new file should follow the umask. */
    for (int i = 0; i < TEMPORARY_TRIES && fd < 0; i++) {
        snprintf(writer.temporary, size + TEMPORARY_SUFFIX, "%s.tmp-%ld-%u", path, (long)getpid(),
                 atomic_fetch_add(&counter, 1));
        fd = open(writer.temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    if (fd < 0) {
        status = mr_file_fail(err, errno, "create", writer.temporary);
        goto out;
    }
    /* A file that its owner made private stays private when it is replaced. */
    if (there)
        (void)fchmod(fd, old.st_mode & 0777);
    writer.stream = fdopen(fd, "wb");
    if (!writer.stream) {
        status = mr_file_fail(err, errno, "write", writer.temporary);
        goto out;
    }
    fd = -1;
    *out = writer;

out:
    if (fd >= 0) {
        close(fd);
        unlink(writer.temporary);
    }
    if (status != MR_OK) {
        free(writer.path);
        free(writer.temporary);
    }
    return status;
}

/* So that the rename itself survives a power cut. Best effort: some file systems refuse it. */
static void sync_folder_of(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 0;
    if (len >= sizeof folder)
        return;
    memcpy(folder, path, len);
    folder[len] = '\0';
    int fd = open(len ? folder : slash ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    close(fd);
}

mr_status mr_file_writer_commit(mr_file_writer *writer, mr_error *err)
{
    if (!writer->stream)
        return MR_FAIL(err, INTERNAL, "commit of a file writer that is not open");
    mr_status status = MR_OK;
    if (ferror(writer->stream)) {
        /* errno of that write is gone by now. */
        status = MR_FAIL(err, IO, "writing '%s' failed; is the disk full?", writer->path);
    } else if (fflush(writer->stream) != 0 || fsync(fileno(writer->stream)) != 0) {
        status = mr_file_fail(err, errno, "write", writer->path);
    }
    int closed = fclose(writer->stream);
    writer->stream = NULL;
    if (status == MR_OK && closed != 0)
        status = mr_file_fail(err, errno, "close", writer->path);
    if (status == MR_OK && rename(writer->temporary, writer->path) != 0)
        status = mr_file_fail(err, errno, "replace", writer->path);
    if (status == MR_OK)
        sync_folder_of(writer->path);
    else
        unlink(writer->temporary);
    free(writer->temporary);
    free(writer->path);
    *writer = (mr_file_writer){0};
    return status;
}

void mr_file_writer_abandon(mr_file_writer *writer)
{
    if (!writer || !writer->stream)
        return;
    fclose(writer->stream);
    unlink(writer->temporary);
    free(writer->temporary);
    free(writer->path);
    *writer = (mr_file_writer){0};
}

mr_status mr_file_write(const char *path, const void *data, size_t len, mr_error *err)
{
    mr_file_writer writer;
    mr_status status = mr_file_writer_open(&writer, path, err);
    if (status != MR_OK)
        return status;
    if (len)
        (void)fwrite(data, 1, len, writer.stream); /* commit looks at ferror */
    return mr_file_writer_commit(&writer, err);
}

mr_status mr_file_stream(const char *path, mr_file_visit visit, void *context, mr_error *err)
{
    int fd;
    struct stat info;
    mr_status status = open_regular(&fd, &info, path, err);
    if (status != MR_OK)
        return status;
    char *chunk = malloc(STREAM_CHUNK);
    if (!chunk)
        status = MR_FAIL(err, NO_MEMORY, "%zu bytes to read '%s'", STREAM_CHUNK, path);
    while (status == MR_OK) {
        ssize_t got = read_full(fd, chunk, STREAM_CHUNK);
        if (got == 0)
            break;
        status = got < 0 ? mr_file_fail(err, errno, "read", path)
                         : visit(context, chunk, (size_t)got, err);
    }
    free(chunk);
    close(fd);
    return status;
}

static mr_status write_chunk(void *context, const void *data, size_t len, mr_error *err)
{
    mr_file_writer *writer = context;
    if (fwrite(data, 1, len, writer->stream) != len)
        return mr_file_fail(err, errno, "write", writer->path);
    return MR_OK;
}

mr_status mr_file_copy(const char *from, const char *to, mr_error *err)
{
    mr_file_writer writer;
    mr_status status = mr_file_writer_open(&writer, to, err);
    if (status != MR_OK)
        return status;
    status = mr_file_stream(from, write_chunk, &writer, err);
    if (status == MR_OK)
        return mr_file_writer_commit(&writer, err);
    mr_file_writer_abandon(&writer);
    return status;
}

bool mr_file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

bool mr_file_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

mr_status mr_file_make_folders(const char *path, mr_error *err)
{
    if (path[0] == '\0')
        return MR_FAIL(err, INVALID, "the name of a folder to make is empty");
    size_t len = strlen(path);
    char *partial = malloc(len + 1);
    if (!partial)
        return MR_FAIL(err, NO_MEMORY, "making folder '%s'", path);
    mr_status status = MR_OK;
    for (size_t i = 1; i <= len && status == MR_OK; i++) {
        if (i < len && path[i] != '/')
            continue;
        memcpy(partial, path, i);
        partial[i] = '\0';
        if (mkdir(partial, 0777) == 0)
            continue;
        int reason = errno; /* the look at the folder below may change it */
        if (mr_file_is_folder(partial))
            continue;
        if (reason == EEXIST)
            status = MR_FAIL(err, EXISTS, "cannot make folder '%s': '%s' is there and not a folder",
                             path, partial);
        else
            status = mr_file_fail(err, reason, "make folder", partial);
    }
    free(partial);
    return status;
}

char *mr_path_join(mr_arena *arena, const char *folder, const char *name)
{
    size_t head = strlen(folder);
    size_t tail = strlen(name);
    size_t slash = head > 0 && folder[head - 1] != '/';
    char *path = mr_arena_array(arena, char, head + slash + tail + 1);
    if (!path)
        return NULL;
    snprintf(path, head + slash + tail + 1, "%s%s%s", folder, slash ? "/" : "", name);
    return path;
}

mr_status mr_path_check_relative(const char *name, mr_error *err)
{
    if (!name || name[0] == '\0')
        return MR_FAIL(err, INVALID, "an empty path, expected a relative one");
    if (name[0] == '/')
        return MR_FAIL(err, INVALID, "path '%s' is absolute, expected one inside the folder", name);
    if (strchr(name, '\\'))
        return MR_FAIL(err, INVALID, "path '%s' holds a backslash; write '/' between folders",
                       name);
    for (const char *part = name; part;) {
        const char *slash = strchr(part, '/');
        size_t len = slash ? (size_t)(slash - part) : strlen(part);
        if (len == 2 && part[0] == '.' && part[1] == '.')
            return MR_FAIL(err, INVALID, "path '%s' leaves its folder through '..'", name);
        part = slash ? slash + 1 : NULL;
    }
    return MR_OK;
}
