/* store_access.c - see store_access.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/cli/store_access.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "encoders/space.h"
#include "featurestore/redis_url.h"

#define MAX_PASSWORD 4096

const char *const mr_store_kind_names[MR_KIND_COUNT + 1] = {"item", "user", "image", NULL};

mr_entity mr_store_kind_entity(mr_store_kind kind)
{
    return kind == MR_KIND_USER ? MR_ENTITY_USER : MR_ENTITY_ITEM;
}

/* ---- opening --------------------------------------------------------------------------------- */

mr_status mr_store_access_password(mr_store_options *options, mr_arena *arena, mr_error *err)
{
    const char *file = getenv("MIXRANK_STORE__PASSWORD_FILE");
    if (!options->password)
        options->password = getenv("MIXRANK_STORE__PASSWORD");
    if (options->password || !file || !*file)
        return MR_OK;
    mr_str text;
    mr_status status = mr_file_read(arena, file, MAX_PASSWORD, &text, err);
    if (status != MR_OK)
        return mr_error_prefix(err, status, "MIXRANK_STORE__PASSWORD_FILE");
    char *password = mr_arena_strndup(arena, text.data, text.len);
    if (!password)
        return MR_FAIL(err, NO_MEMORY, "a password");
    password[strcspn(password, "\r\n")] = '\0';
    options->password = password;
    return MR_OK;
}

mr_status mr_store_access_open(mr_store **out, const mr_store_access *access, mr_store_mode mode,
                               mr_error *err)
{
    mr_arena arena = {0};
    mr_store_options options = MR_STORE_OPTIONS_DEFAULT;
    options.name_space = access->name_space;
    options.password = access->password;
    options.read_only = mode == MR_STORE_READ;
    options.no_create = mode != MR_STORE_CREATE;
    options.fetch_timeout_ms = 5000; /* nobody waits for a page here */
    options.write_timeout_ms = 30000;
    options.fast_writes = mode == MR_STORE_CREATE; /* copy syncs at its end */
    if (mode != MR_STORE_READ)
        options.max_bytes = (uint64_t)(access->map_gb * 0x1p30);
    mr_status status = mr_store_access_password(&options, &arena, err);
    if (status == MR_OK)
        status = mr_store_open(out, access->store, &options, err);
    mr_arena_done(&arena);
    return status;
}

const char *mr_store_access_shown(const char *url, mr_arena *arena)
{
    mr_redis_url parsed;
    if (strncmp(url, "redis", 5) != 0)
        return url;
    if (mr_redis_url_parse(url, &parsed, NULL) != MR_OK)
        return "the redis store";
    const char *shown = mr_arena_strndup(arena, parsed.shown, strlen(parsed.shown));
    mr_redis_url_free(&parsed);
    return shown ? shown : "the redis store";
}

/* ---- spaces ---------------------------------------------------------------------------------- */

mr_status mr_bundle_spaces(const char *folder, uint64_t spaces[MR_KIND_COUNT], mr_error *err)
{
    mr_arena arena = {0};
    json_t *root = NULL;
    const char *path = mr_path_join(&arena, folder, "bundle.json");
    mr_status status = path ? mr_json_load_file(&root, path, MR_JSON_MAX_CONFIG, err)
                            : MR_FAIL(err, NO_MEMORY, "a path in '%s'", folder);
    for (int kind = 0; kind < MR_KIND_COUNT; kind++)
        spaces[kind] = 0;
    if (status == MR_OK) {
        mr_json_cursor cur = mr_json_cursor_of(path, root, err);
        mr_json_cursor in = mr_json_cursor_of(path, mr_json_object(&cur, "spaces", false), err);
        status = cur.status;
        for (int kind = 0; status == MR_OK && in.object && kind < MR_KIND_COUNT; kind++) {
            const char *text = mr_json_string(&in, mr_store_kind_names[kind], NULL, false);
            status = in.status;
            if (text && status == MR_OK)
                status = mr_space_parse(text, &spaces[kind], err);
        }
    }
    json_decref(root);
    mr_arena_done(&arena);
    return status;
}

void mr_active_spaces(const mr_active_bundle *bundle, uint64_t spaces[MR_KIND_COUNT])
{
    spaces[MR_KIND_ITEM] = bundle->item_space;
    spaces[MR_KIND_USER] = bundle->user_space;
    spaces[MR_KIND_IMAGE] = bundle->image_space;
}

/* For free(). */
static mr_status all_spaces(mr_store *store, mr_entity entity, uint64_t **spaces, size_t *n,
                            mr_error *err)
{
    uint64_t *list = NULL;
    size_t count = 0, capacity = 16;
    for (;; capacity = count) {
        uint64_t *bigger = realloc(list, capacity * sizeof *list);
        if (!bigger) {
            free(list);
            return MR_FAIL(err, NO_MEMORY, "%zu spaces", capacity);
        }
        list = bigger;
        mr_status status = mr_store_spaces(store, entity, list, capacity, &count, err);
        if (status != MR_OK) {
            free(list);
            return status;
        }
        if (count <= capacity)
            break;
    }
    *spaces = list;
    *n = count;
    return MR_OK;
}

mr_status mr_store_each_space(mr_store *store, mr_entity entity, mr_space_visit visit,
                              void *context, mr_error *err)
{
    mr_status status = MR_OK;
    for (int e = 0; status == MR_OK && e < MR_ENTITY_COUNT; e++) {
        uint64_t *spaces = NULL;
        size_t n = 0;
        if (entity != MR_ENTITY_COUNT && e != (int)entity)
            continue;
        status = all_spaces(store, (mr_entity)e, &spaces, &n, err);
        for (size_t i = 0; status == MR_OK && i < n; i++)
            status = visit(context, (mr_entity)e, spaces[i], err);
        free(spaces);
    }
    return status;
}

/* The only space that the store has of this kind. */
static mr_status only_space(mr_store *store, const char *url, mr_store_kind kind, uint64_t *out,
                            mr_error *err)
{
    uint64_t found[8] = {0};
    size_t n = 0, used = 0;
    mr_status status = mr_store_spaces(store, mr_store_kind_entity(kind), found, 8, &n, err);
    if (status != MR_OK)
        return status;
    if (n == 0)
        return MR_FAIL(err, NOT_FOUND, "store '%s' has no record of any %s", url,
                       mr_store_kind_names[kind]);
    if (n == 1 && kind != MR_KIND_IMAGE) {
        *out = found[0];
        return MR_OK;
    }
    char list[256] = "";
    for (size_t i = 0; i < n && i < 8; i++) {
        char text[MR_SPACE_TEXT];
        mr_space_format(found[i], text);
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", text);
    }
    return MR_FAIL(err, INVALID,
                   "store '%s' has records in %zu space%s (%s%s); say which by --space or --bundle",
                   url, n, n == 1 ? "" : "s", list, n > 8 ? ", ..." : "");
}

mr_status mr_store_access_space(mr_store *store, const mr_store_access *access, mr_store_kind kind,
                                const char *space, const char *bundle, uint64_t *out, mr_error *err)
{
    uint64_t spaces[MR_KIND_COUNT] = {0};
    const char *whose = bundle;
    if (space)
        return mr_space_parse(space, out, err);
    mr_arena arena = {0};
    mr_status status = MR_OK;
    if (bundle) {
        status = mr_bundle_spaces(bundle, spaces, err);
    } else {
        mr_active active;
        status = mr_active_read(store, &arena, &active, err);
        if (status == MR_OK && active.generation) {
            mr_active_spaces(&active.bundle, spaces);
            whose = active.bundle.path;
        }
    }
    if (status == MR_OK && spaces[kind])
        *out = spaces[kind];
    else if (status == MR_OK && whose)
        status = MR_FAIL(err, NOT_FOUND, "bundle '%s' has no %s space", whose,
                         mr_store_kind_names[kind]);
    else if (status == MR_OK)
        status = only_space(store, mr_store_access_shown(access->store, &arena), kind, out, err);
    mr_arena_done(&arena);
    return status;
}
