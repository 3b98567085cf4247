/* bundle_encoders.c - what makes the vectors that a bundle reads: kinds, limits, and the
 * description that a space is the hash of.
 *
 * The description has every value that decides what a vector is, defaults written out, and of the
 * encoder's files only those that the computation reads: a new README is not a new space.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/model/bundle_encoders.h"

#include <string.h>

#include "core/bytes.h"
#include "core/file.h"
#include "encoders/space.h"
#include "engine/untrained.h"

#define DEFAULT_FEATURE_LAYER (-2) /* LLaVA's */
#define MAX_DIM               16384
/* As many as one record can hold (featurestore/record.h): a user's are stored too. */
#define MAX_TOKENS 1024

/* ---- kinds ----------------------------------------------------------------------------------- */

static mr_status read_causal(mr_bundle *bundle, mr_json_cursor *cur, mr_encoder_spec *out)
{
    static const char *const known[] = {"kind",       "path",       "tokens", "text",
                                        "max_tokens", "append_eos", "dim",    NULL};
    (void)bundle;
    mr_json_only(cur, known);
    out->kind = MR_ENCODER_CAUSAL_LAST_N;
    out->path = mr_json_string(cur, "path", NULL, true);
    out->tokens =
        (int)mr_json_int(cur, "tokens", 1, MR_TEXT_ENCODER_MAX_TOKENS, MR_BUNDLE_ITEM_TOKENS);
    out->text = mr_json_array(cur, "text", true);
    out->max_tokens = (int)mr_json_int(cur, "max_tokens", 2, 32768, MR_BUNDLE_ITEM_LENGTH);
    out->append_eos = mr_json_bool(cur, "append_eos", MR_BUNDLE_APPEND_EOS);
    out->dim = (size_t)mr_json_int(cur, "dim", 1, MAX_DIM, MR_JSON_REQUIRED);
    return cur->status;
}

static mr_status read_external(mr_bundle *bundle, mr_json_cursor *cur, mr_encoder_spec *out)
{
    static const char *const known[] = {"kind", "name", "dim", "tokens", "normalised", NULL};
    (void)bundle;
    mr_json_only(cur, known);
    out->kind = MR_ENCODER_EXTERNAL;
    out->name = mr_json_string(cur, "name", NULL, true);
    out->tokens = (int)mr_json_int(cur, "tokens", 1, MAX_TOKENS, MR_BUNDLE_ITEM_TOKENS);
    out->dim = (size_t)mr_json_int(cur, "dim", 1, MAX_DIM, MR_JSON_REQUIRED);
    out->normalised = mr_json_bool(cur, "normalised", false);
    return cur->status;
}

/* What a trained user encoder's own config.json has to agree with. */
static mr_status check_user_encoder(const mr_bundle *bundle, mr_json_cursor *cur,
                                    mr_encoder_spec *out)
{
    mr_arena scratch = {0};
    mr_user_config config;
    mr_status status = mr_path_check_relative(out->path, cur->err);
    if (status == MR_OK) {
        char *folder = mr_path_join(&scratch, bundle->folder, out->path);
        char *path = folder ? mr_path_join(&scratch, folder, "config.json") : NULL;
        status = path ? mr_user_config_load(&config, path, cur->err)
                      : MR_FAIL(cur->err, NO_MEMORY, "path of the user encoder");
    }
    mr_arena_done(&scratch);
    if (status != MR_OK)
        return mr_error_prefix(cur->err, status, "%s: 'path'", cur->name);
    const struct {
        const char *key, *name;
        size_t says, is;
    } pairs[] = {{"tokens", "num_latents", (size_t)out->tokens, config.latents},
                 {"dim", "hidden_size", out->dim, config.C},
                 {"encoders.item.dim", "item_dim", bundle->item.dim, config.item_dim}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (pairs[i].says != pairs[i].is)
            return MR_FAIL(cur->err, MISMATCH, "%s: '%s' is %zu, but the user encoder's %s is %zu",
                           cur->name, pairs[i].key, pairs[i].says, pairs[i].name, pairs[i].is);
    if (out->order == MR_HISTORY_SET && config.positions != MR_USER_POSITIONS_NONE)
        return MR_FAIL(cur->err, INVALID,
                       "%s: the user encoder has positions, which mean nothing in a set; 'order' "
                       "is to be 'sequence'",
                       cur->name);
    out->items = (int)(config.max_history / (size_t)bundle->item.tokens);
    if (out->items == 0)
        return MR_FAIL(cur->err, INVALID,
                       "%s: the user encoder takes %zu history vectors, but an item has up to %d",
                       cur->name, config.max_history, bundle->item.tokens);
    return MR_OK;
}

static mr_status read_history(mr_bundle *bundle, mr_json_cursor *cur, mr_encoder_spec *out)
{
    static const char *const known[] = {"kind", "tokens", "order", "path", "dim", NULL};
    mr_json_only(cur, known);
    out->kind = MR_ENCODER_HISTORY;
    out->tokens =
        (int)mr_json_int(cur, "tokens", 1, MR_BUNDLE_HISTORY_MOST, MR_BUNDLE_HISTORY_TOKENS);
    const char *order = mr_json_string(cur, "order", MR_BUNDLE_HISTORY_ORDER, false);
    out->path = mr_json_string(cur, "path", NULL, false);
    out->dim = (size_t)mr_json_int(cur, "dim", 1, MAX_DIM, out->path ? MR_JSON_REQUIRED : 0);
    if (cur->status != MR_OK)
        return cur->status;
    if (!out->path && out->dim)
        return MR_FAIL(cur->err, INVALID,
                       "%s: 'dim' belongs to a user encoder, which 'path' would name; without one "
                       "a user's tokens are as wide as the items'",
                       cur->name);
    if (strcmp(order, "set") != 0 && strcmp(order, "sequence") != 0)
        return MR_FAIL(cur->err, INVALID, "%s: 'order' is '%s', expected 'set' or 'sequence'",
                       cur->name, order);
    out->order = strcmp(order, "set") == 0 ? MR_HISTORY_SET : MR_HISTORY_SEQUENCE;
    if (bundle->item.kind == MR_ENCODER_NONE)
        return MR_FAIL(cur->err, INVALID,
                       "%s: a history is made of item vectors, but there is no 'encoders.item'",
                       cur->name);
    if (out->path)
        return check_user_encoder(bundle, cur, out);
    if (out->tokens * bundle->item.tokens > MAX_TOKENS)
        return MR_FAIL(cur->err, INVALID,
                       "%s: %d items of up to %d tokens are more than the %d that a user may have",
                       cur->name, out->tokens, bundle->item.tokens, MAX_TOKENS);
    out->dim = bundle->item.dim;
    out->items = out->tokens;
    return MR_OK;
}

static mr_status read_clip(mr_bundle *bundle, mr_json_cursor *cur, mr_encoder_spec *out)
{
    static const char *const known[] = {"kind", "path", "feature_layer", "tokens", "dim", NULL};
    (void)bundle;
    mr_json_only(cur, known);
    out->kind = MR_ENCODER_CLIP;
    out->path = mr_json_string(cur, "path", NULL, true);
    out->feature_layer = (int)mr_json_int(cur, "feature_layer", -1000, 1000, DEFAULT_FEATURE_LAYER);
    out->tokens = (int)mr_json_int(cur, "tokens", 1, MAX_TOKENS, MR_BUNDLE_ITEM_TOKENS);
    out->dim = (size_t)mr_json_int(cur, "dim", 1, MAX_DIM, MR_JSON_REQUIRED);
    if (cur->status == MR_OK && mr_image_encoder_side(out->tokens) == 0)
        return MR_FAIL(cur->err, INVALID,
                       "%s: 'tokens' is %d, expected a square: cells of a grid over the picture, "
                       "1, 4, 9 or 16",
                       cur->name, out->tokens);
    return cur->status;
}

typedef struct {
    const char *kind;
    mr_status (*read)(mr_bundle *, mr_json_cursor *, mr_encoder_spec *);
} encoder_kind;

static const encoder_kind item_kinds[] = {
    {"causal_last_n", read_causal}, {"external", read_external}, {NULL, NULL}};
static const encoder_kind user_kinds[] = {
    {"external", read_external}, {"history", read_history}, {NULL, NULL}};
static const encoder_kind image_kinds[] = {
    {"clip", read_clip}, {"external", read_external}, {NULL, NULL}};

static mr_status read_encoder(mr_bundle *bundle, const char *name, const char *key,
                              const encoder_kind *kinds, mr_encoder_spec *out, mr_error *err)
{
    const json_t *object = json_object_get(json_object_get(bundle->root, "encoders"), name);
    if (!object)
        return MR_OK;
    mr_json_cursor cur = mr_json_cursor_of(key, object, err);
    const char *kind = mr_json_string(&cur, "kind", NULL, true);
    if (cur.status != MR_OK)
        return cur.status;
    for (size_t i = 0; kinds[i].kind; i++)
        if (strcmp(kind, kinds[i].kind) == 0)
            return kinds[i].read(bundle, &cur, out);
    return MR_FAIL(err, UNSUPPORTED, "%s: 'kind' is '%s'; known for it are %s and %s", key, kind,
                   kinds[0].kind, kinds[1].kind);
}

/* ---- spaces ---------------------------------------------------------------------------------- */

static bool decides_vectors(const char *name)
{
    return strcmp(name, "config.json") == 0 || strcmp(name, "tokenizer.json") == 0 ||
           mr_ends_with(name, ".safetensors") || mr_ends_with(name, ".safetensors.index.json");
}

/* A picture's vectors depend on its preprocessing as well; a text's do not. */
static bool decides_pictures(const char *name)
{
    return strcmp(name, "preprocessor_config.json") == 0 ||
           strcmp(name, "processor_config.json") == 0;
}

/* {name: digest} of the files below path that decide the vectors, from "files". */
static json_t *encoder_files(const json_t *root, const char *path, bool pictures)
{
    json_t *out = json_object(), *digest;
    const char *name;
    size_t len = path ? strlen(path) : 0;
    while (len && path[len - 1] == '/')
        len--;
    json_object_foreach(json_object_get(root, "files"), name, digest)
    {
        if (len && strncmp(name, path, len) == 0 && name[len] == '/' &&
            (decides_vectors(name + len + 1) || (pictures && decides_pictures(name + len + 1))))
            json_object_set(out, name + len + 1, digest);
    }
    return out;
}

json_t *mr_bundle_space_description(const json_t *root, const char *encoder, mr_error *err)
{
    static const char *const keys[] = {"kind",       "text",          "tokens", "max_tokens",
                                       "append_eos", "dim",           "name",   "normalised",
                                       "order",      "feature_layer", NULL};
    const json_t *spec = json_object_get(json_object_get(root, "encoders"), encoder);
    const char *kind = json_string_value(json_object_get(spec, "kind"));
    if (!kind) {
        MR_FAIL(err, NOT_FOUND, "bundle.json: no encoder '%s'", encoder);
        return NULL;
    }
    const bool is_causal = strcmp(kind, "causal_last_n") == 0;
    const bool is_history = strcmp(kind, "history") == 0;
    const bool is_clip = strcmp(kind, "clip") == 0;
    const char *missing = NULL;

    /* Defaults first, so that writing one out makes no other space. The number of tokens of an
     * external vector is a bound and not a property. */
    json_t *out = is_causal    ? json_pack("{s:i, s:i, s:b}", "tokens", MR_BUNDLE_ITEM_TOKENS,
                                           "max_tokens", MR_BUNDLE_ITEM_LENGTH, "append_eos", 1)
                  : is_clip    ? json_pack("{s:i, s:i}", "tokens", MR_BUNDLE_ITEM_TOKENS,
                                           "feature_layer", DEFAULT_FEATURE_LAYER)
                  : is_history ? json_pack("{s:i, s:s}", "tokens", MR_BUNDLE_HISTORY_TOKENS,
                                           "order", MR_BUNDLE_HISTORY_ORDER)
                               : json_pack("{s:b}", "normalised", 0);
    int failed = !out;
    for (size_t i = 0; !failed && keys[i]; i++) {
        json_t *value = json_object_get(spec, keys[i]);
        const bool bound = !is_causal && !is_history && !is_clip && strcmp(keys[i], "tokens") == 0;
        if (value && !bound)
            failed |= json_object_set(out, keys[i], value);
    }
    const char *path = json_string_value(json_object_get(spec, "path"));
    if (!failed && (is_causal || is_clip || (is_history && path))) {
        json_t *files = encoder_files(root, path, is_clip);
        if (json_object_size(files) == 0)
            missing = "'files' has none of its folder";
        failed |= json_object_set_new(out, "files", files);
    }
    if (!failed && is_history) {
        json_t *item = json_object_get(json_object_get(root, "spaces"), "item");
        if (item)
            failed |= json_object_set(out, "item_space", item);
        else
            missing = "'spaces.item' is missing";
    }
    if (failed || missing) {
        json_decref(out);
        if (failed)
            MR_FAIL(err, NO_MEMORY, "the description of encoder '%s'", encoder);
        else
            MR_FAIL(err, INVALID,
                    "bundle.json: encoder '%s' cannot be described: %s; `mixrank bundle create` "
                    "fills it in",
                    encoder, missing);
        return NULL;
    }
    return out;
}

static mr_status read_space(mr_bundle *bundle, const char *name, mr_encoder_spec *spec,
                            mr_error *err)
{
    if (spec->kind == MR_ENCODER_NONE)
        return MR_OK;
    const char *text =
        json_string_value(json_object_get(json_object_get(bundle->root, "spaces"), name));
    if (!text)
        return MR_FAIL(err, INVALID,
                       "bundle.json: 'spaces.%s' is missing; `mixrank bundle create` fills it in",
                       name);
    mr_status status = mr_space_parse(text, &spec->space, err);
    if (status != MR_OK)
        return mr_error_prefix(err, status, "bundle.json: 'spaces.%s'", name);
    mr_error why = {0};
    json_t *description = mr_bundle_space_description(bundle->root, name, &why);
    uint64_t computed = 0;
    status = description ? mr_space_of(description, &computed, &why) : why.status;
    json_decref(description);
    if (status != MR_OK) {
        if (err)
            *err = why;
        return status;
    }
    if (computed != spec->space) {
        char shown[MR_SPACE_TEXT];
        mr_space_format(computed, shown);
        return MR_FAIL(err, MISMATCH,
                       "bundle.json: 'spaces.%s' is %s, but the encoder's description and files "
                       "hash to %s; stored vectors of %s do not belong to this encoder",
                       name, text, shown, text);
    }
    return MR_OK;
}

/* ---- the encoder's folder -------------------------------------------------------------------- */

static mr_status look_at_weights(mr_bundle *bundle, const char *name, const char *folder,
                                 mr_error *err)
{
    mr_arena scratch = {0};
    mr_safetensors *file = NULL;
    mr_status status = mr_path_check_relative(folder, err);
    char *path = NULL;
    if (status == MR_OK) {
        path = mr_path_join(&scratch, bundle->folder, folder);
        status = path ? mr_safetensors_open(&file, path, err)
                      : MR_FAIL(err, NO_MEMORY, "path of the %s encoder", name);
    }
    if (status == MR_OK)
        bundle->untrained |= mr_safetensors_metadata(file, MR_UNTRAINED_KEY) != NULL;
    else
        mr_error_prefix(err, status, "bundle.json: encoders.%s: 'path'", name);
    mr_safetensors_close(file);
    mr_arena_done(&scratch);
    return status;
}

mr_status mr_bundle_read_encoders(mr_bundle *bundle, mr_error *err)
{
    static const char *const known[] = {"item", "user", "image", NULL};
    static const char *const sections[][2] = {{"encoders", "bundle.json: encoders"},
                                              {"projectors", "bundle.json: projectors"},
                                              {"spaces", "bundle.json: spaces"}};
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        const json_t *object = json_object_get(bundle->root, sections[i][0]);
        if (!object || json_is_null(object))
            continue;
        mr_json_cursor cur = mr_json_cursor_of(sections[i][1], object, err);
        mr_json_only(&cur, known);
        if (cur.status != MR_OK)
            return cur.status;
    }
    mr_status status =
        read_encoder(bundle, "item", "bundle.json: encoders.item", item_kinds, &bundle->item, err);
    if (status == MR_OK)
        status = read_encoder(bundle, "user", "bundle.json: encoders.user", user_kinds,
                              &bundle->user, err);
    if (status == MR_OK)
        status = read_encoder(bundle, "image", "bundle.json: encoders.image", image_kinds,
                              &bundle->image, err);
    if (status == MR_OK)
        status = read_space(bundle, "item", &bundle->item, err);
    if (status == MR_OK)
        status = read_space(bundle, "user", &bundle->user, err);
    if (status == MR_OK)
        status = read_space(bundle, "image", &bundle->image, err);
    /* Two external encoders of one name: texts would be read as pictures. */
    if (status == MR_OK && bundle->image.kind != MR_ENCODER_NONE &&
        bundle->image.space == bundle->item.space)
        return MR_FAIL(err, INVALID,
                       "bundle.json: 'encoders.item' and 'encoders.image' are one encoder with one "
                       "space; records of an item and of its picture would have the same key");
    if (status == MR_OK && bundle->item.kind == MR_ENCODER_CAUSAL_LAST_N)
        status = look_at_weights(bundle, "item", bundle->item.path, err);
    if (status == MR_OK && bundle->image.kind == MR_ENCODER_CLIP)
        status = look_at_weights(bundle, "image", bundle->image.path, err);
    if (status == MR_OK && bundle->user.kind == MR_ENCODER_HISTORY && bundle->user.path)
        status = look_at_weights(bundle, "user", bundle->user.path, err);
    return status;
}
