/* remove_tree.c - see remove_tree.h. Without cmocka: servers' folders are removed by it too.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/remove_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

void test_remove_tree(int parent, const char *name)
{
    if (unlinkat(parent, name, 0) == 0)
        return;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir) {
        struct dirent *entry;
        while ((entry = readdir(dir)) != NULL) {
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                test_remove_tree(fd, entry->d_name);
        }
        closedir(dir);
    }
    (void)unlinkat(parent, name, AT_REMOVEDIR);
}
