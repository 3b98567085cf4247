/* bundle_write.c - assembles bundles: copies parts, fills in widths, digests and spaces, checks the
 * result by opening it, and only then gives it its name.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/model/bundle_write.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/hash.h"
#include "encoders/clip.h"
#include "encoders/space.h"
#include "ranker/model/folder.h"
#include "ranker/model/parts.h"

/* ---- sealing --------------------------------------------------------------------------------- */

static mr_status digest_file(void *context, const char *path, const char *relative, mr_error *err)
{
    json_t *files = context;
    char digest[MR_SHA256_HEX];
    if (strcmp(relative, "bundle.json") == 0)
        return MR_OK;
    mr_status status = mr_hash_sha256_file(path, digest, err);
    if (status == MR_OK && json_object_set_new(files, relative, json_string(digest)) != 0)
        status = MR_FAIL(err, NO_MEMORY, "file digests");
    return status;
}

/* Fills "spaces" from the encoders' descriptions; the user's depends on the item's, so the item
 * goes first. */
static mr_status fill_spaces(json_t *root, mr_error *err)
{
    static const char *const encoders[] = {"item", "user", "image"};
    json_object_del(root, "spaces");
    for (size_t i = 0; i < sizeof encoders / sizeof *encoders; i++) {
        if (!json_object_get(json_object_get(root, "encoders"), encoders[i]))
            continue;
        json_t *description = mr_bundle_space_description(root, encoders[i], err);
        if (!description)
            return err ? err->status : MR_INVALID;
        uint64_t space = 0;
        char text[MR_SPACE_TEXT];
        mr_status status = mr_space_of(description, &space, err);
        json_decref(description);
        if (status != MR_OK)
            return status;
        mr_space_format(space, text);
        json_t *spaces = json_object_get(root, "spaces");
        if (!spaces) {
            spaces = json_object();
            if (json_object_set_new(root, "spaces", spaces) != 0)
                return MR_FAIL(err, NO_MEMORY, "spaces");
        }
        if (json_object_set_new(spaces, encoders[i], json_string(text)) != 0)
            return MR_FAIL(err, NO_MEMORY, "spaces");
    }
    return MR_OK;
}

mr_status mr_bundle_seal(const char *folder, mr_error *err)
{
    mr_arena arena = {0};
    json_t *root = NULL, *files = json_object();
    char *path = mr_path_join(&arena, folder, "bundle.json");
    mr_status status = path && files ? MR_OK : MR_FAIL(err, NO_MEMORY, "sealing '%s'", folder);
    if (status == MR_OK)
        status = mr_json_load_file(&root, path, MR_JSON_MAX_CONFIG, err);
    if (status == MR_OK)
        status = mr_folder_walk(folder, digest_file, files, err);
    if (status == MR_OK && json_object_set(root, "files", files) != 0)
        status = MR_FAIL(err, NO_MEMORY, "file digests");
    if (status == MR_OK)
        status = fill_spaces(root, err);
    if (status == MR_OK)
        status = mr_json_save_file(root, path, err);
    json_decref(files);
    json_decref(root);
    mr_arena_done(&arena);
    return status;
}

/* ---- create ---------------------------------------------------------------------------------- */

/* What may be at the target: nothing, or with --force a bundle. Not any folder: a slip of the
 * finger must not cost somebody their files. */
static mr_status check_target(mr_arena *arena, const char *target, bool overwrite, mr_error *err)
{
    if (*target == '\0')
        return MR_FAIL(err, INVALID, "the name of the bundle's folder is empty");
    if (!mr_file_exists(target))
        return MR_OK;
    if (!overwrite)
        return MR_FAIL(err, EXISTS, "'%s' is already there; --force replaces it", target);
    char *spec = mr_path_join(arena, target, "bundle.json");
    if (!spec)
        return MR_FAIL(err, NO_MEMORY, "folder names");
    if (!mr_file_exists(spec))
        return MR_FAIL(err, INVALID,
                       "'%s' is no bundle (no bundle.json in it); only bundles are "
                       "replaced",
                       target);
    return MR_OK;
}

/* Gives a finished folder its name; one that was there goes away only after the new one is whole.
 */
static mr_status give_name(mr_arena *arena, const char *from, const char *to, bool overwrite,
                           mr_error *err)
{
    if (rename(from, to) == 0)
        return MR_OK;
    if (!overwrite || (errno != ENOTEMPTY && errno != EEXIST))
        return mr_file_fail(err, errno, "name the finished bundle", to);
    char *old = mr_arena_alloc(arena, strlen(to) + 32, 1, 1);
    if (!old)
        return MR_FAIL(err, NO_MEMORY, "folder names");
    snprintf(old, strlen(to) + 32, "%s.old-%ld", to, (long)getpid());
    if (rename(to, old) != 0)
        return mr_file_fail(err, errno, "replace", to);
    if (rename(from, to) != 0) {
        const int number = errno;
        (void)rename(old, to); /* as it was */
        return mr_file_fail(err, number, "replace", to);
    }
    mr_folder_remove(old);
    return MR_OK;
}

/* The encoder's width, from its config.json, unless the spec gives it. */
static mr_status fill_dim(json_t *root, const char *encoder_folder, mr_error *err)
{
    json_t *item = json_object_get(json_object_get(root, "encoders"), "item");
    const char *kind = json_string_value(json_object_get(item, "kind"));
    if (!kind || strcmp(kind, "causal_last_n") != 0) {
        if (encoder_folder)
            return MR_FAIL(err, INVALID,
                           "an item encoder '%s' was given, but 'encoders.item' is no "
                           "causal_last_n encoder",
                           encoder_folder);
        return MR_OK;
    }
    if (!encoder_folder)
        return MR_FAIL(err, INVALID,
                       "'encoders.item' is a causal_last_n encoder, but no folder with "
                       "its model was given");
    mr_arena arena = {0};
    mr_model_config config;
    char *path = mr_path_join(&arena, encoder_folder, "config.json");
    mr_status status = path ? mr_model_config_load(&config, path, err)
                            : MR_FAIL(err, NO_MEMORY, "path of config.json");
    if (status == MR_OK && (json_object_set_new(item, "dim", json_integer(config.C)) != 0 ||
                            json_object_set_new(item, "path", json_string("encoder/")) != 0))
        status = MR_FAIL(err, NO_MEMORY, "the spec");
    mr_arena_done(&arena);
    return status;
}

/* The same of the image encoder. */
static mr_status fill_image_dim(json_t *root, const char *folder, mr_error *err)
{
    json_t *image = json_object_get(json_object_get(root, "encoders"), "image");
    const char *kind = json_string_value(json_object_get(image, "kind"));
    const bool is_clip = kind && strcmp(kind, "clip") == 0;
    if (is_clip != (folder != NULL))
        return MR_FAIL(err, INVALID,
                       is_clip ? "'encoders.image' is a clip encoder, but no folder with its tower "
                                 "was given"
                               : "an image encoder was given, but 'encoders.image' is no clip "
                                 "encoder");
    if (!is_clip)
        return MR_OK;
    mr_clip *clip = NULL;
    const mr_clip_options opt = {.max_images = 1};
    mr_status status = mr_clip_open(&clip, folder, &opt, err);
    if (status == MR_OK &&
        (json_object_set_new(image, "dim", json_integer(mr_clip_vision(clip)->C)) != 0 ||
         json_object_set_new(image, "path", json_string("vision/")) != 0))
        status = MR_FAIL(err, NO_MEMORY, "the spec");
    mr_clip_close(clip);
    return status;
}

/* The same of the user encoder, which also says how many tokens it gives. */
static mr_status fill_user(json_t *root, const char *folder, mr_error *err)
{
    json_t *user = json_object_get(json_object_get(root, "encoders"), "user");
    const char *kind = json_string_value(json_object_get(user, "kind"));
    if (!folder) {
        if (json_object_get(user, "path"))
            return MR_FAIL(err, INVALID,
                           "'encoders.user' has a 'path', but no folder with a user encoder was "
                           "given");
        return MR_OK;
    }
    if (!kind || strcmp(kind, "history") != 0)
        return MR_FAIL(err, INVALID,
                       "a user encoder '%s' was given, but 'encoders.user' is no history encoder",
                       folder);
    mr_arena arena = {0};
    mr_user_config config;
    char *path = mr_path_join(&arena, folder, "config.json");
    mr_status status = path ? mr_user_config_load(&config, path, err)
                            : MR_FAIL(err, NO_MEMORY, "path of config.json");
    if (status == MR_OK &&
        (json_object_set_new(user, "dim", json_integer((json_int_t)config.C)) != 0 ||
         json_object_set_new(user, "tokens", json_integer((json_int_t)config.latents)) != 0 ||
         json_object_set_new(user, "path", json_string("user/")) != 0))
        status = MR_FAIL(err, NO_MEMORY, "the spec");
    mr_arena_done(&arena);
    return status;
}

static mr_status place_projector(mr_arena *arena, json_t *root, const char *bundle,
                                 const char *name, const char *from, bool link_it, mr_error *err)
{
    if (!from)
        return MR_OK;
    char *file = mr_arena_alloc(arena, strlen(name) + 32, 1, 1);
    char *to = NULL;
    if (file) {
        snprintf(file, strlen(name) + 32, "%s_projector.safetensors", name);
        to = mr_path_join(arena, bundle, file);
    }
    if (!to)
        return MR_FAIL(err, NO_MEMORY, "file names");
    json_t *projectors = json_object_get(root, "projectors");
    if (!projectors) {
        projectors = json_object();
        if (json_object_set_new(root, "projectors", projectors) != 0)
            return MR_FAIL(err, NO_MEMORY, "the spec");
    }
    if (json_object_set_new(projectors, name, json_string(file)) != 0)
        return MR_FAIL(err, NO_MEMORY, "the spec");
    return mr_folder_place(from, to, link_it, err);
}

static mr_status convert_file(void *context, const char *path, const char *relative, mr_error *err)
{
    const mr_bundle_create_options *opt = context;
    (void)relative;
    return mr_ends_with(path, ".safetensors") ? mr_safetensors_convert(path, path, opt->dtype, err)
                                              : MR_OK;
}

static mr_status assemble(mr_arena *arena, const char *folder, const mr_bundle_create_options *opt,
                          mr_error *err)
{
    mr_status status = mr_file_make_folders(folder, err);
    json_t *root = json_deep_copy(opt->spec);
    char *path = mr_path_join(arena, folder, "bundle.json");
    char *llm = mr_path_join(arena, folder, "llm"),
         *encoder = mr_path_join(arena, folder, "encoder");
    char *vision = mr_path_join(arena, folder, "vision"),
         *user = mr_path_join(arena, folder, "user");
    if (status == MR_OK && (!root || !path || !llm || !encoder || !vision || !user))
        status = MR_FAIL(err, NO_MEMORY, "the spec");
    if (status == MR_OK && !json_is_object(root))
        status =
            MR_FAIL(err, INVALID, "the spec is %s, expected an object", mr_json_describe(root));
    if (status == MR_OK && json_object_set_new(root, "llm", json_string("llm/")) != 0)
        status = MR_FAIL(err, NO_MEMORY, "the spec");
    if (status == MR_OK) {
        json_object_del(root, "golden"); /* of the bundle that the spec was taken from */
        status = fill_dim(root, opt->item_encoder, err);
    }
    if (status == MR_OK)
        status = fill_image_dim(root, opt->image_encoder, err);
    if (status == MR_OK)
        status = fill_user(root, opt->user_encoder, err);
    if (status == MR_OK)
        status = mr_folder_place_model(opt->llm, llm, opt->link, err);
    if (status == MR_OK && opt->item_encoder)
        status = mr_folder_place_model(opt->item_encoder, encoder, opt->link, err);
    if (status == MR_OK && opt->image_encoder)
        status = mr_folder_place_model(opt->image_encoder, vision, opt->link, err);
    if (status == MR_OK && opt->user_encoder)
        status = mr_folder_place_model(opt->user_encoder, user, opt->link, err);
    if (status == MR_OK)
        status = place_projector(arena, root, folder, "item", opt->item_projector, opt->link, err);
    if (status == MR_OK)
        status = place_projector(arena, root, folder, "user", opt->user_projector, opt->link, err);
    if (status == MR_OK)
        status =
            place_projector(arena, root, folder, "image", opt->image_projector, opt->link, err);
    if (status == MR_OK && opt->convert)
        status = mr_folder_walk(folder, convert_file, (void *)(uintptr_t)opt, err);
    if (status == MR_OK)
        status = mr_json_save_file(root, path, err);
    if (status == MR_OK)
        status = mr_bundle_seal(folder, err);
    json_decref(root);
    return status;
}

/* Opens the encoders too, so that a bundle with a name is a bundle that works. */
static mr_status try_encoders(const mr_bundle *bundle, mr_error *err)
{
    mr_status status = MR_OK;
    if (bundle->item.kind == MR_ENCODER_CAUSAL_LAST_N) {
        mr_text_encoder *encoder = NULL;
        status = mr_bundle_open_item_encoder(bundle, MR_GEMM_SCORING, 1, &encoder, err);
        mr_text_encoder_close(encoder);
    }
    if (status == MR_OK && bundle->image.kind == MR_ENCODER_CLIP) {
        mr_image_encoder *encoder = NULL;
        status = mr_bundle_open_image_encoder(bundle, MR_GEMM_SCORING, 1, &encoder, err);
        mr_image_encoder_close(encoder);
    }
    if (status == MR_OK && bundle->user.kind == MR_ENCODER_HISTORY && bundle->user.path) {
        mr_user_encoder *encoder = NULL;
        status = mr_bundle_open_user_encoder(bundle, &encoder, err);
        mr_user_encoder_close(encoder);
    }
    return status;
}

static mr_status try_parts(const char *folder, mr_error *err)
{
    mr_bundle *bundle = NULL;
    mr_status status = mr_bundle_load(&bundle, folder, 1, err);
    if (status == MR_OK)
        status = try_encoders(bundle, err);
    mr_bundle_close(bundle);
    return status;
}

mr_status mr_bundle_create(const char *out_folder, const mr_bundle_create_options *opt,
                           mr_error *err)
{
    size_t len = strlen(out_folder);
    while (len > 1 && out_folder[len - 1] == '/')
        len--;
    mr_arena arena = {0};
    char *target = mr_arena_strndup(&arena, out_folder, len);
    char *temporary = mr_arena_alloc(&arena, len + 32, 1, 1);
    if (!target || !temporary) {
        mr_arena_done(&arena);
        return MR_FAIL(err, NO_MEMORY, "creating bundle '%s'", out_folder);
    }
    snprintf(temporary, len + 32, "%s.new-%ld", target, (long)getpid());
    mr_status status = check_target(&arena, target, opt->overwrite, err);
    if (status == MR_OK) {
        status = assemble(&arena, temporary, opt, err);
        if (status == MR_OK)
            status = try_parts(temporary, err);
        if (status == MR_OK)
            status = give_name(&arena, temporary, target, opt->overwrite, err);
        if (status != MR_OK) {
            mr_folder_remove(temporary);
            mr_error_prefix(err, status, "creating '%s'", target);
        }
    }
    mr_arena_done(&arena);
    return status;
}

/* ---- verify ---------------------------------------------------------------------------------- */

static mr_status verify_file(const char *folder, const char *name, const json_t *expected,
                             mr_error *err)
{
    mr_arena arena = {0};
    char found[MR_SHA256_HEX];
    const char *digest = json_is_string(expected) ? json_string_value(expected) : "nothing";
    mr_status status = mr_path_check_relative(name, err);
    if (status == MR_OK) {
        char *path = mr_path_join(&arena, folder, name);
        status =
            path ? mr_hash_sha256_file(path, found, err) : MR_FAIL(err, NO_MEMORY, "file names");
    }
    if (status == MR_OK && strcmp(found, digest) != 0)
        status = MR_FAIL(err, MISMATCH,
                         "'%s' has SHA-256 %s, bundle.json says %.64s; the file was changed or "
                         "damaged",
                         name, found, digest);
    mr_arena_done(&arena);
    return status;
}

/* Before anything is opened: a damaged file is to be told by its name, not by what it leads to. */
static mr_status verify_files(const char *folder, mr_error *err)
{
    mr_arena arena = {0};
    json_t *root = NULL;
    char *path = mr_path_join(&arena, folder, "bundle.json");
    mr_status status = path ? mr_json_load_file(&root, path, MR_JSON_MAX_CONFIG, err)
                            : MR_FAIL(err, NO_MEMORY, "path of bundle.json");
    json_t *files = json_object_get(root, "files");
    if (status == MR_OK && json_object_size(files) == 0)
        status = MR_FAIL(err, INVALID, "bundle.json has no 'files' to verify");
    const char *name;
    json_t *expected;
    json_object_foreach(files, name, expected)
    {
        if (status == MR_OK)
            status = verify_file(folder, name, expected, err);
    }
    json_decref(root);
    mr_arena_done(&arena);
    return status == MR_OK ? MR_OK : mr_error_prefix(err, status, "bundle '%s'", folder);
}

mr_status mr_bundle_verify(const char *folder, mr_error *err)
{
    mr_bundle *bundle = NULL;
    mr_status status = verify_files(folder, err);
    if (status == MR_OK)
        status = mr_bundle_load(&bundle, folder, 0, err);
    if (status == MR_OK)
        status = try_encoders(bundle, err);
    if (status == MR_OK && json_object_get(bundle->root, "golden"))
        status = mr_bundle_check_golden(bundle, err);
    mr_bundle_close(bundle);
    return status;
}
