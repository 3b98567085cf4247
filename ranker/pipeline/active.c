/* active.c - see active.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/pipeline/active.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/json.h"
#include "encoders/space.h"
#include "ranker/model/parts.h"

#define FORMAT 1

/* ---- reading --------------------------------------------------------------------------------- */

static const char *copy_string(mr_json_cursor *cur, const char *key, mr_arena *arena)
{
    const char *text = mr_json_string(cur, key, NULL, true);
    if (!text)
        return NULL;
    const char *copy = mr_arena_strndup(arena, text, strlen(text));
    if (!copy && cur->status == MR_OK)
        cur->status = MR_FAIL(cur->err, NO_MEMORY, "%s", cur->name);
    return copy;
}

static uint64_t read_space(mr_json_cursor *cur, const char *key)
{
    uint64_t space = 0;
    const char *text = mr_json_string(cur, key, NULL, false);
    if (text && cur->status == MR_OK)
        cur->status = mr_space_parse(text, &space, cur->err);
    return space;
}

static mr_status read_bundle(const json_t *object, mr_arena *arena, mr_active_bundle *out,
                             mr_error *err)
{
    mr_json_cursor cur = mr_json_cursor_of("note 'active'", object, err);
    out->name = copy_string(&cur, "name", arena);
    out->version = copy_string(&cur, "version", arena);
    out->path = copy_string(&cur, "path", arena);
    const char *digest = mr_json_string(&cur, "digest", NULL, true);
    out->item_space = read_space(&cur, "item_space");
    out->user_space = read_space(&cur, "user_space");
    out->image_space = read_space(&cur, "image_space");
    if (cur.status != MR_OK)
        return cur.status;
    if (strlen(digest) != MR_SHA256_HEX - 1 || strspn(digest, "0123456789abcdef") != strlen(digest))
        return MR_FAIL(err, CORRUPT, "note 'active': 'digest' is '%.80s', expected 64 hex digits",
                       digest);
    memcpy(out->digest, digest, sizeof out->digest);
    return MR_OK;
}

static mr_status read_note(const json_t *root, mr_arena *arena, mr_active *out, mr_error *err)
{
    mr_json_cursor cur = mr_json_cursor_of("note 'active'", root, err);
    const int64_t format = mr_json_int(&cur, "format", 1, INT64_MAX, MR_JSON_REQUIRED);
    if (cur.status == MR_OK && format != FORMAT)
        return MR_FAIL(
            err, UNSUPPORTED,
            "note 'active' has format %lld, this program knows %d: a newer mixrank wrote "
            "it",
            (long long)format, FORMAT);
    const int64_t generation = mr_json_int(&cur, "generation", 1, INT64_MAX - 1, MR_JSON_REQUIRED);
    out->switched_ms = mr_json_int(&cur, "switched_ms", 0, INT64_MAX, 0);
    const json_t *bundle = mr_json_object(&cur, "bundle", true);
    const json_t *previous = mr_json_object(&cur, "previous", false);
    if (cur.status != MR_OK)
        return cur.status;
    out->generation = (uint64_t)generation;
    mr_status status = read_bundle(bundle, arena, &out->bundle, err);
    if (status == MR_OK && previous)
        status = read_bundle(previous, arena, &out->previous, err);
    return status;
}

mr_status mr_active_read(mr_store *store, mr_arena *arena, mr_active *out, mr_error *err)
{
    mr_active active = {0};
    char *value = NULL;
    size_t len = 0;
    json_t *root = NULL;
    mr_error why = {0};
    mr_status status = mr_store_get_note(store, MR_ACTIVE_NOTE, &value, &len, &why);
    if (status == MR_NOT_FOUND) {
        *out = active;
        return MR_OK;
    }
    if (status != MR_OK) {
        if (err)
            *err = why;
        return status;
    }
    const char *text = mr_arena_strndup(arena, value, len);
    if (!text)
        status = MR_FAIL(err, NO_MEMORY, "note 'active' of %zu bytes", len);
    active.text = (mr_str){text, len};
    if (status == MR_OK)
        status = mr_json_parse(&root, "note 'active'", active.text, err);
    if (status == MR_OK)
        status = read_note(root, arena, &active, err);
    if (status == MR_INVALID) {
        /* As of a caller's argument; this one is the store's. */
        status = MR_CORRUPT;
        if (err)
            err->status = MR_CORRUPT;
    }
    if (status == MR_OK)
        *out = active;
    json_decref(root);
    free(value);
    return status;
}

/* ---- a bundle -------------------------------------------------------------------------------- */

static mr_status digest_of(const char *folder, char digest[MR_SHA256_HEX], mr_error *err)
{
    mr_arena arena = {0};
    const char *path = mr_path_join(&arena, folder, "bundle.json");
    mr_status status = path ? mr_hash_sha256_file(path, digest, err)
                            : MR_FAIL(err, NO_MEMORY, "a path in '%s'", folder);
    mr_arena_done(&arena);
    return status;
}

mr_status mr_active_describe(const mr_bundle *bundle, const char *folder, mr_arena *arena,
                             mr_active_bundle *out, mr_error *err)
{
    mr_active_bundle made = {.item_space = mr_bundle_item_space(bundle),
                             .user_space = mr_bundle_user_space(bundle),
                             .image_space =
                                 bundle->image.kind == MR_ENCODER_NONE ? 0 : bundle->image.space};
    char *path = realpath(folder, NULL);
    if (!path)
        return mr_file_fail(err, errno, "find", folder);
    mr_status status = digest_of(folder, made.digest, err);
    if (status == MR_OK) {
        made.name = mr_arena_strndup(arena, bundle->name, strlen(bundle->name));
        made.version = mr_arena_strndup(arena, bundle->version, strlen(bundle->version));
        made.path = mr_arena_strndup(arena, path, strlen(path));
        if (!made.name || !made.version || !made.path)
            status = MR_FAIL(err, NO_MEMORY, "the description of bundle '%s'", bundle->name);
    }
    free(path);
    if (status == MR_OK)
        *out = made;
    return status;
}

bool mr_active_same(const mr_active_bundle *a, const mr_active_bundle *b)
{
    return a->name && b->name && memcmp(a->digest, b->digest, sizeof a->digest) == 0;
}

mr_status mr_active_check(const mr_active_bundle *expected, const mr_bundle *bundle,
                          const char *folder, mr_error *err)
{
    char digest[MR_SHA256_HEX];
    mr_status status = digest_of(folder, digest, err);
    if (status != MR_OK)
        return status;
    if (memcmp(digest, expected->digest, sizeof digest) != 0)
        return MR_FAIL(err, MISMATCH,
                       "bundle '%s' is %s %s with digest %.12s.., the store's active bundle is %s "
                       "%s with %.12s..: another bundle lies there, or it was changed",
                       folder, bundle->name, bundle->version, digest, expected->name,
                       expected->version, expected->digest);
    const uint64_t image = bundle->image.kind == MR_ENCODER_NONE ? 0 : bundle->image.space;
    if (mr_bundle_item_space(bundle) != expected->item_space ||
        mr_bundle_user_space(bundle) != expected->user_space || image != expected->image_space)
        return MR_FAIL(err, MISMATCH,
                       "bundle '%s' has item space %016llx, the store's active bundle %016llx (or "
                       "the users' or pictures' differ): was the note written by hand?",
                       folder, (unsigned long long)mr_bundle_item_space(bundle),
                       (unsigned long long)expected->item_space);
    return MR_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

static json_t *space_json(uint64_t space)
{
    char text[MR_SPACE_TEXT];
    if (!space)
        return json_null();
    mr_space_format(space, text);
    return json_string(text);
}

static json_t *bundle_json(const mr_active_bundle *bundle)
{
    if (!bundle->name)
        return json_null();
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:o}", "name", bundle->name, "version",
                     bundle->version, "digest", bundle->digest, "path", bundle->path, "item_space",
                     space_json(bundle->item_space), "user_space", space_json(bundle->user_space),
                     "image_space", space_json(bundle->image_space));
}

static mr_status write_note(mr_store *store, const mr_active *now, const mr_active_bundle *bundle,
                            const mr_active_bundle *previous, mr_error *err)
{
    json_t *root =
        json_pack("{s:i, s:I, s:I, s:o, s:o}", "format", FORMAT, "generation",
                  (json_int_t)now->generation + 1, "switched_ms", (json_int_t)mr_clock_wall_ms(),
                  "bundle", bundle_json(bundle), "previous", bundle_json(previous));
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    mr_status status;
    if (!text) {
        status = MR_FAIL(err, NO_MEMORY, "note 'active' (or a path in it is not UTF-8)");
    } else {
        status = mr_store_swap_note(store, MR_ACTIVE_NOTE, now->text, mr_str_of(text), err);
        if (status == MR_MISMATCH)
            status = MR_FAIL(err, MISMATCH,
                             "generation %llu of the active bundle is over: someone else switched "
                             "or rolled back meanwhile. Look at it (mixrank store active) and "
                             "decide again",
                             (unsigned long long)now->generation);
    }
    free(text);
    json_decref(root);
    return status;
}

mr_status mr_active_switch(mr_store *store, const mr_active *now, const mr_active_bundle *next,
                           mr_error *err)
{
    if (now->generation && mr_active_same(&now->bundle, next))
        return MR_FAIL(err, EXISTS, "bundle %s %s is active already, since generation %llu",
                       next->name, next->version, (unsigned long long)now->generation);
    return write_note(store, now, next, &now->bundle, err);
}

mr_status mr_active_roll_back(mr_store *store, const mr_active *now, mr_error *err)
{
    if (!now->generation)
        return MR_FAIL(err, NOT_FOUND,
                       "the store names no active bundle: nothing was switched, and nothing can be "
                       "rolled back");
    if (!now->previous.name)
        return MR_FAIL(err, NOT_FOUND,
                       "bundle %s %s is the first that was active: there is none to roll back to",
                       now->bundle.name, now->bundle.version);
    return write_note(store, now, &now->previous, &now->bundle, err);
}
