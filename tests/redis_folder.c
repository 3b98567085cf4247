/* redis_folder.c - see redis_folder.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/redis_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/remove_tree.h"

#define FOLDER_NAME "mixrank-redis-"
#define SOCKET_PATH 100 /* the path of a socket takes 107 bytes */

/* Folders of programs that crashed: nobody holds the lock in them. */
static void sweep(const char *parent)
{
    DIR *dir = opendir(parent);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL) {
        char path[REDIS_FOLDER_PATH + 300];
        if (strncmp(entry->d_name, FOLDER_NAME, sizeof FOLDER_NAME - 1) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s/owner", parent, entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            test_remove_tree(dirfd(dir), entry->d_name);
        close(fd);
    }
    if (dir)
        closedir(dir);
}

/* The file gets its name once it is locked, so that no sweep finds it unlocked. */
static int lock_folder(const char *folder)
{
    char before[REDIS_FOLDER_PATH + 16], after[REDIS_FOLDER_PATH + 16];
    snprintf(before, sizeof before, "%s/owner.new", folder);
    snprintf(after, sizeof after, "%s/owner", folder);
    int fd = open(before, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0 && flock(fd, LOCK_EX) == 0 && rename(before, after) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

int redis_folder_new(char path[REDIS_FOLDER_PATH])
{
    static bool swept;
    const char *parent = getenv("TMPDIR");
    if (!parent || strlen(parent) + sizeof FOLDER_NAME + sizeof "/XXXXXX/redis.sock" > SOCKET_PATH)
        parent = "/tmp";
    if (!swept)
        sweep(parent);
    swept = true;
    snprintf(path, REDIS_FOLDER_PATH, "%s/" FOLDER_NAME "XXXXXX", parent);
    if (!mkdtemp(path)) {
        fprintf(stderr, "redis_server: cannot make a folder in %s\n", parent);
        return -1;
    }
    int lock = lock_folder(path);
    if (lock < 0) {
        fprintf(stderr, "redis_server: cannot write in %s\n", path);
        test_remove_tree(AT_FDCWD, path);
    }
    return lock;
}

void redis_folder_free(const char *path, int lock)
{
    test_remove_tree(AT_FDCWD, path);
    close(lock);
}
