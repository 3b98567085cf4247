/* safetensors_shards.c - opening a path: a file, a folder, or an index of shards.
 *
 * An index (model.safetensors.index.json) maps tensor names to file names. It decides what the set
 * holds: a tensor must be in the shard that the index names; what a shard holds besides is not
 * seen.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/json.h"
#include "engine/safetensors_private.h"

#define SINGLE_NAME     "model.safetensors"
#define INDEX_NAME      "model.safetensors.index.json"
#define INDEX_MAX_BYTES MR_SAFETENSORS_MAX_HEADER
#define MAX_SHARDS      4096 /* published models have at most a few hundred */

static mr_status open_single(mr_safetensors **out, const char *path, mr_error *err)
{
    mr_safetensors *file = NULL;
    mr_file_map map = {0};

    mr_status status = mr_file_map_open(&map, path, err);
    if (status != MR_OK)
        return status;

    status = mr_safetensors_parse(&file, path, map.data, map.len, err);
    if (status != MR_OK) {
        mr_file_map_close(&map);
        return status;
    }
    file->map = map;
    *out = file;
    return MR_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct file names of the map, sorted, checked. */
static mr_status list_shards(mr_arena *arena, const char *path, json_t *map, const char ***names,
                             size_t *n_names, mr_error *err)
{
    const size_t n = json_object_size(map);
    if (n > MR_SAFETENSORS_MAX_TENSORS)
        return MR_FAIL(err, CORRUPT, "%s: names %zu tensors, at most %zu are read", path, n,
                       MR_SAFETENSORS_MAX_TENSORS);
    const char **list = mr_arena_array(arena, const char *, n);
    if (!list)
        return MR_FAIL(err, NO_MEMORY, "%s: a list of %zu names", path, n);

    size_t count = 0;
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        if (!json_is_string(value))
            return MR_FAIL(err, CORRUPT, "%s: 'weight_map': '%.200s' is %s, expected a file name",
                           path, tensor, mr_json_describe(value));
        const char *name = json_string_value(value);
        if (strlen(name) != json_string_length(value) || strchr(name, '/') ||
            strcmp(name, ".") == 0 || mr_path_check_relative(name, NULL) != MR_OK)
            return MR_FAIL(
                err, CORRUPT,
                "%s: tensor '%.150s' is said to be in '%.150s', expected a plain file name "
                "beside the index",
                path, tensor, name);
        list[count++] = name;
    }
    if (count)
        qsort(list, count, sizeof *list, compare_names);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || strcmp(list[kept - 1], list[i]) != 0)
            list[kept++] = list[i];
    }
    if (kept > MAX_SHARDS)
        return MR_FAIL(err, CORRUPT, "%s: names %zu shards, at most %d are read", path, kept,
                       MAX_SHARDS);
    *names = list;
    *n_names = kept;
    return MR_OK;
}

static mr_status open_shards(mr_safetensors *set, mr_arena *scratch, const char *path,
                             const char *const *names, size_t n, mr_error *err)
{
    set->shards = mr_arena_array(&set->arena, mr_safetensors *, n);
    const char *slash = strrchr(path, '/');
    const char *folder =
        slash ? mr_arena_strndup(scratch, path, (size_t)(slash - path) + (slash == path)) : ".";
    if (!set->shards || !folder)
        return MR_FAIL(err, NO_MEMORY, "%s: %zu shards", path, n);

    for (size_t i = 0; i < n; i++) {
        char *shard = slash ? mr_path_join(scratch, folder, names[i])
                            : mr_arena_strndup(scratch, names[i], strlen(names[i]));
        if (!shard)
            return MR_FAIL(err, NO_MEMORY, "%s: %zu shards", path, n);
        if (!mr_file_exists(shard))
            return MR_FAIL(err, NOT_FOUND,
                           "%s: shard '%.200s' is missing beside the index; is the download "
                           "complete?",
                           path, names[i]);
        mr_status status = open_single(&set->shards[i], shard, err);
        if (status != MR_OK)
            return status;
        set->n_shards = i + 1;
        set->bytes += set->shards[i]->bytes;
    }
    return MR_OK;
}

static mr_status collect_tensors(mr_safetensors *set, const char *path, json_t *map,
                                 const char *const *names, mr_error *err)
{
    const size_t n = json_object_size(map);
    set->tensors = mr_arena_array(&set->arena, mr_tensor, n);
    if (!set->tensors)
        return MR_FAIL(err, NO_MEMORY, "%s: a table of %zu tensors", path, n);

    const char *name;
    json_t *value;
    json_object_foreach(map, name, value)
    {
        const char *shard = json_string_value(value);
        const char *const *at = bsearch(&shard, names, set->n_shards, sizeof *names, compare_names);
        const mr_tensor *tensor = at ? mr_safetensors_find(set->shards[at - names], name) : NULL;
        if (!tensor)
            return MR_FAIL(
                err, CORRUPT,
                "%s: tensor '%.150s' is said to be in shard '%.150s', which does not hold "
                "it",
                path, name, shard);
        set->tensors[set->n_tensors++] = *tensor;
    }
    mr_safetensors_sort(set);
    return MR_OK;
}

static mr_status open_index(mr_safetensors **out, const char *path, mr_error *err)
{
    json_t *root = NULL;
    mr_arena scratch = {0};
    mr_safetensors *set = NULL;
    const char **names = NULL;
    size_t n_names = 0;

    mr_status status = mr_json_load_file(&root, path, INDEX_MAX_BYTES, err);
    if (status != MR_OK)
        goto out;

    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map)) {
        status = MR_FAIL(err, CORRUPT,
                         "%s: 'weight_map' is %s, expected an object of tensor and file names",
                         path, map ? mr_json_describe(map) : "missing");
        goto out;
    }
    set = mr_safetensors_new(path);
    if (!set) {
        status = MR_FAIL(err, NO_MEMORY, "opening '%s'", path);
        goto out;
    }
    status = list_shards(&scratch, path, map, &names, &n_names, err);
    if (status != MR_OK)
        goto out;

    status = open_shards(set, &scratch, path, names, n_names, err);
    if (status != MR_OK)
        goto out;

    status = collect_tensors(set, path, map, names, err);
    if (status != MR_OK)
        goto out;
    *out = set;
    set = NULL;

out:
    mr_safetensors_close(set);
    mr_arena_done(&scratch);
    json_decref(root);
    return status;
}

static mr_status open_folder(mr_safetensors **out, const char *folder, mr_error *err)
{
    mr_arena arena = {0};
    mr_status status;

    char *single = mr_path_join(&arena, folder, SINGLE_NAME);
    char *index = mr_path_join(&arena, folder, INDEX_NAME);
    if (!single || !index)
        status = MR_FAIL(err, NO_MEMORY, "opening '%s'", folder);
    else if (mr_file_exists(single))
        status = open_single(out, single, err);
    else if (mr_file_exists(index))
        status = open_index(out, index, err);
    else
        status = MR_FAIL(err, NOT_FOUND,
                         "%s: holds neither %s nor %s; weights in other formats must be saved as "
                         "safetensors first",
                         folder, SINGLE_NAME, INDEX_NAME);
    mr_arena_done(&arena);
    return status;
}

mr_status mr_safetensors_open(mr_safetensors **out, const char *path, mr_error *err)
{
    if (mr_file_is_folder(path))
        return open_folder(out, path, err);
    if (mr_ends_with(path, ".index.json"))
        return open_index(out, path, err);
    return open_single(out, path, err);
}
