/* folder.c - see folder.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/model/folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/bytes.h"
#include "core/file.h"

#define MAX_DEPTH 8

static bool is_self_or_parent(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* relative is "" for the root itself; depth counts what is left below it. */
static mr_status walk(mr_arena *arena, const char *root, const char *relative, int depth,
                      mr_folder_visit visit, void *context, mr_error *err)
{
    const char *folder = *relative ? mr_path_join(arena, root, relative) : root;
    if (!folder)
        return MR_FAIL(err, NO_MEMORY, "names of files in '%s'", root);
    DIR *dir = opendir(folder);
    if (!dir)
        return mr_file_fail(err, errno, "read folder", folder);
    mr_status status = MR_OK;
    struct dirent *entry;
    while (status == MR_OK && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        const mr_arena_mark mark = mr_arena_now(arena);
        char *path = mr_path_join(arena, folder, entry->d_name);
        char *name = *relative ? mr_path_join(arena, relative, entry->d_name)
                               : mr_arena_strndup(arena, entry->d_name, strlen(entry->d_name));
        struct stat info, link;
        if (!path || !name)
            status = MR_FAIL(err, NO_MEMORY, "names of files in '%s'", root);
        else if (lstat(path, &link) != 0 || stat(path, &info) != 0)
            status = mr_file_fail(err, errno, "look at", path);
        else if (S_ISREG(info.st_mode))
            status = visit(context, path, name, err);
        else if (S_ISDIR(link.st_mode) && depth == 0)
            status =
                MR_FAIL(err, INVALID, "'%s' is nested deeper than %d folders", path, MAX_DEPTH);
        else if (S_ISDIR(link.st_mode))
            status = walk(arena, root, name, depth - 1, visit, context, err);
        mr_arena_rewind(arena, mark);
    }
    closedir(dir);
    return status;
}

mr_status mr_folder_walk(const char *root, mr_folder_visit visit, void *context, mr_error *err)
{
    mr_arena arena = {0};
    mr_status status = walk(&arena, root, "", MAX_DEPTH, visit, context, err);
    mr_arena_done(&arena);
    return status;
}

mr_status mr_folder_place(const char *from, const char *to, bool link_it, mr_error *err)
{
    if (link_it) {
        /* The file itself: a link to a symbolic link would point out of the bundle. */
        char *real = realpath(from, NULL);
        const bool linked = real && link(real, to) == 0;
        free(real);
        if (linked)
            return MR_OK; /* other file systems refuse: fall through to the copy */
    }
    return mr_file_copy(from, to, err);
}

static bool is_model_file(const char *name)
{
    static const char *const whole[] = {"config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "generation_config.json",
                                        "preprocessor_config.json",
                                        "processor_config.json",
                                        "LICENSE",
                                        "README.md"};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (strcmp(name, whole[i]) == 0)
            return true;
    return mr_ends_with(name, ".safetensors") || mr_ends_with(name, ".safetensors.index.json");
}

mr_status mr_folder_place_model(const char *from, const char *to, bool link_it, mr_error *err)
{
    if (!mr_file_is_folder(from))
        return MR_FAIL(err, NOT_FOUND, "model folder '%s' is not there", from);
    mr_status status = mr_file_make_folders(to, err);
    if (status != MR_OK)
        return status;
    DIR *dir = opendir(from);
    if (!dir)
        return mr_file_fail(err, errno, "read folder", from);
    mr_arena arena = {0};
    struct dirent *entry;
    while (status == MR_OK && (entry = readdir(dir))) {
        if (!is_model_file(entry->d_name))
            continue;
        char *source = mr_path_join(&arena, from, entry->d_name);
        char *target = mr_path_join(&arena, to, entry->d_name);
        status = source && target ? mr_folder_place(source, target, link_it, err)
                                  : MR_FAIL(err, NO_MEMORY, "names of files in '%s'", from);
    }
    closedir(dir);
    mr_arena_done(&arena);
    return status;
}

static void remove_tree(mr_arena *arena, const char *folder, int depth)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        if (is_self_or_parent(entry->d_name))
            continue;
        char *path = mr_path_join(arena, folder, entry->d_name);
        struct stat info;
        if (!path || lstat(path, &info) != 0)
            continue;
        if (!S_ISDIR(info.st_mode))
            unlink(path);
        else if (depth > 0)
            remove_tree(arena, path, depth - 1);
    }
    if (dir)
        closedir(dir);
    rmdir(folder);
}

void mr_folder_remove(const char *folder)
{
    mr_arena arena = {0};
    remove_tree(&arena, folder, MAX_DEPTH);
    mr_arena_done(&arena);
}
