/* bundle.c - reads bundle.json, opens the parts and checks that they fit each other.
 *
 * The order is: the file by itself (keys, types, ranges), then each part by itself, then the
 * joints: template against tokenizer and encoders, projector against encoder width and LLM width,
 * labels against the vocabulary, spaces against what the encoders' description hashes to. Every
 * message starts with the bundle's path and the key.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/model/bundle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "ranker/model/bundle_encoders.h"
#include "ranker/model/bundle_write.h"
#include "ranker/model/parts.h"

#define BUNDLE_FORMAT 1

static const char *const bundle_keys[] = {
    "format", "name",       "version",  "mode",      "llm",         "prefix",
    "suffix", "max_length", "score",    "encoders",  "projectors",  "spaces",
    "golden", "files",      "defaults", "untrained", "description", NULL};

/* Keys of the format whose computation this build does not have: refused by name, because a ranking
 * that silently leaves a phase out is wrong. */
static const char *const later_keys[] = {"phase1", NULL};

static mr_status refuse_later_keys(const json_t *root, mr_error *err)
{
    for (size_t i = 0; later_keys[i]; i++)
        if (json_object_get(root, later_keys[i]))
            return MR_FAIL(err, UNSUPPORTED, "bundle.json: '%s' is not computed by this version",
                           later_keys[i]);
    return MR_OK;
}

static char *bundle_path(mr_bundle *bundle, const char *name)
{
    return mr_path_join(&bundle->arena, bundle->folder, name);
}

static mr_status part_path(mr_bundle *bundle, const char *key, const char *name, char **out,
                           mr_error *err)
{
    mr_status status = mr_path_check_relative(name, err);
    if (status != MR_OK)
        return mr_error_prefix(err, status, "bundle.json: '%s'", key);
    *out = bundle_path(bundle, name);
    if (!*out)
        return MR_FAIL(err, NO_MEMORY, "path of '%s'", key);
    return MR_OK;
}

/* ---- score labels ---------------------------------------------------------------------------- */

static mr_status read_label(mr_bundle *bundle, const json_t *score, const char *key, int32_t *out,
                            mr_error *err)
{
    const json_t *value = json_object_get(score, key);
    const int32_t vocabulary = bundle->llm->config.V;
    if (json_is_integer(value)) {
        json_int_t id = json_integer_value(value);
        if (id < 0 || id >= vocabulary)
            return MR_FAIL(err, INVALID,
                           "bundle.json: 'score.%s' is id %lld, outside the vocabulary of %d", key,
                           (long long)id, (int)vocabulary);
        *out = (int32_t)id;
        return MR_OK;
    }
    if (!json_is_string(value))
        return MR_FAIL(err, INVALID, "bundle.json: 'score.%s' is %s, expected a token or its id",
                       key, mr_json_describe(value));
    /* A special token by its spelling, as in segments; else a text that is one token. */
    const int32_t special = mr_tokenizer_token_id(bundle->tokenizer, json_string_value(value));
    if (special >= 0 && special < vocabulary) {
        *out = special;
        return MR_OK;
    }
    mr_ids ids = {0};
    mr_str text = {json_string_value(value), json_string_length(value)};
    mr_status status = mr_tokenizer_encode(bundle->tokenizer, text, MR_TOKENIZE_PLAIN, &ids, err);
    if (status == MR_OK && ids.n != 1)
        status = MR_FAIL(err, INVALID,
                         "bundle.json: 'score.%s' is '%.*s', which is %zu tokens, expected one",
                         key, MR_STR_ARG(text), ids.n);
    if (status == MR_OK && ids.data[0] >= vocabulary)
        status = MR_FAIL(err, MISMATCH,
                         "bundle.json: 'score.%s' is token %d, but the model has only %d rows", key,
                         (int)ids.data[0], (int)vocabulary);
    if (status == MR_OK)
        *out = ids.data[0];
    mr_ids_release(&ids);
    return status;
}

static mr_status read_score(mr_bundle *bundle, mr_error *err)
{
    static const char *const known[] = {"kind", "yes", "no", "temperature", "bias", NULL};
    mr_json_cursor cur =
        mr_json_cursor_of("bundle.json: score", json_object_get(bundle->root, "score"), err);
    mr_json_only(&cur, known);
    const char *kind = mr_json_string(&cur, "kind", "yes_no", false);
    bundle->temperature = mr_json_real(&cur, "temperature", 1e-6, 1e6, 1.0);
    bundle->bias = mr_json_real(&cur, "bias", -1e6, 1e6, 0.0);
    if (cur.status != MR_OK)
        return cur.status;
    if (strcmp(kind, "yes_no") != 0)
        return MR_FAIL(err, UNSUPPORTED, "bundle.json: 'score.kind' is '%s'; known is yes_no",
                       kind);
    const json_t *score = json_object_get(bundle->root, "score");
    mr_status status = read_label(bundle, score, "yes", &bundle->yes_id, err);
    if (status == MR_OK)
        status = read_label(bundle, score, "no", &bundle->no_id, err);
    if (status == MR_OK && bundle->yes_id == bundle->no_id)
        status = MR_FAIL(err, INVALID, "bundle.json: 'score.yes' and 'score.no' are both token %d",
                         (int)bundle->yes_id);
    return status;
}

/* ---- parts ----------------------------------------------------------------------------------- */

static mr_status open_llm(mr_bundle *bundle, const char *name, mr_error *err)
{
    char *path = NULL;
    mr_status status = part_path(bundle, "llm", name, &path, err);
    if (status != MR_OK)
        return status;
    mr_model_options opt = MR_MODEL_OPTIONS_DEFAULT;
    status = mr_model_open(&bundle->llm, path, &opt, err);
    if (status == MR_OK)
        status = mr_tokenizer_open(&bundle->tokenizer, path, err);
    const int32_t ids = status == MR_OK ? mr_tokenizer_vocab_size(bundle->tokenizer) : 0;
    if (status == MR_OK && ids > bundle->llm->config.V)
        status = MR_FAIL(err, MISMATCH,
                         "tokenizer.json has ids up to %d, the model has embeddings for 0 to %d; "
                         "are the files of two models mixed?",
                         (int)ids - 1, (int)bundle->llm->config.V - 1);
    if (status != MR_OK)
        return mr_error_prefix(err, status, "'llm'");
    mr_model_numerics_id(bundle->llm, bundle->numerics_id, sizeof bundle->numerics_id);
    bundle->untrained |= mr_model_is_untrained(bundle->llm);
    return MR_OK;
}

static mr_status open_templates(mr_bundle *bundle, mr_error *err)
{
    const json_t *prefix = json_object_get(bundle->root, "prefix");
    const json_t *suffix = json_object_get(bundle->root, "suffix");
    mr_status status = mr_template_compile(&bundle->prefix, "bundle.json: 'prefix'", prefix,
                                           bundle->tokenizer, err);
    if (status == MR_OK)
        status = mr_template_compile(&bundle->suffix, "bundle.json: 'suffix'", suffix,
                                     bundle->tokenizer, err);
    if (status != MR_OK)
        return status;
    /* The prefix is what all candidates share, the suffix is what they do not: a slot on the wrong
     * side would rank every candidate by the same item, or compute the user once per candidate. */
    if (mr_template_uses_slot(bundle->prefix, MR_SLOT_ITEM))
        return MR_FAIL(err, INVALID,
                       "bundle.json: 'prefix' has an item slot; it belongs in 'suffix'");
    if (mr_template_uses_slot(bundle->prefix, MR_SLOT_IMAGE))
        return MR_FAIL(err, INVALID,
                       "bundle.json: 'prefix' has an image slot; it belongs in 'suffix'");
    if (mr_template_uses_slot(bundle->suffix, MR_SLOT_USER))
        return MR_FAIL(err, INVALID,
                       "bundle.json: 'suffix' has a user slot; it belongs in 'prefix'");
    const bool has_item_slot = mr_template_uses_slot(bundle->suffix, MR_SLOT_ITEM);
    if (bundle->mixed != has_item_slot)
        return MR_FAIL(err, INVALID, "bundle.json: 'mode' is '%s', but 'suffix' has %s item slot",
                       bundle->mixed ? "mixed" : "text", has_item_slot ? "an" : "no");
    if (has_item_slot && bundle->item.kind == MR_ENCODER_NONE)
        return MR_FAIL(err, INVALID,
                       "bundle.json: 'suffix' has an item slot, but there is no "
                       "'encoders.item' to fill it");
    if (mr_template_uses_slot(bundle->suffix, MR_SLOT_IMAGE) && !bundle->mixed)
        return MR_FAIL(err, INVALID,
                       "bundle.json: 'suffix' has an image slot, which needs 'mode': 'mixed'");
    if (mr_template_uses_slot(bundle->suffix, MR_SLOT_IMAGE) &&
        bundle->image.kind == MR_ENCODER_NONE)
        return MR_FAIL(err, INVALID,
                       "bundle.json: 'suffix' has an image slot, but there is no "
                       "'encoders.image' to fill it");
    if (mr_template_uses_slot(bundle->prefix, MR_SLOT_USER) && bundle->user.kind == MR_ENCODER_NONE)
        return MR_FAIL(err, INVALID,
                       "bundle.json: 'prefix' has a user slot, but there is no "
                       "'encoders.user' to fill it");
    return MR_OK;
}

static mr_status open_projector(mr_bundle *bundle, const char *name, const mr_encoder_spec *spec,
                                mr_projector **out, mr_error *err)
{
    const json_t *projectors = json_object_get(bundle->root, "projectors");
    const json_t *value = json_object_get(projectors, name);
    char *path = NULL;
    mr_status status = MR_OK;
    if (spec->kind == MR_ENCODER_NONE) {
        if (value)
            return MR_FAIL(err, INVALID,
                           "bundle.json: 'projectors.%s' is given, but there is no 'encoders.%s' "
                           "whose vectors it could project",
                           name, name);
        return MR_OK;
    }
    if (value && !json_is_null(value)) {
        if (!json_is_string(value))
            return MR_FAIL(err, INVALID, "bundle.json: 'projectors.%s' is %s, expected a file name",
                           name, mr_json_describe(value));
        status = part_path(bundle, "projectors", json_string_value(value), &path, err);
    } else if (out == &bundle->user_projector && spec->kind == MR_ENCODER_HISTORY && !spec->path) {
        /* Item vectors taken straight: without a projector of their own they go the items' way. */
        bundle->user_projector = bundle->item_projector;
        bundle->user_projector_borrowed = true;
        return MR_OK;
    }
    if (status == MR_OK)
        status = mr_projector_open(out, path, spec->dim, (size_t)bundle->llm->config.C, err);
    if (status != MR_OK)
        mr_error_prefix(err, status, "'projectors.%s'", name);
    return status;
}

static mr_status read_root(mr_bundle *bundle, mr_error *err)
{
    char *path = bundle_path(bundle, "bundle.json");
    if (!path)
        return MR_FAIL(err, NO_MEMORY, "path of bundle.json");
    if (!mr_file_exists(path))
        return MR_FAIL(err, NOT_FOUND, "no bundle.json there; is it a bundle folder?");
    mr_status status = mr_json_load_file(&bundle->root, path, MR_JSON_MAX_CONFIG, err);
    if (status != MR_OK)
        return status;
    mr_json_cursor cur = mr_json_cursor_of("bundle.json", bundle->root, err);
    (void)mr_json_int(&cur, "format", BUNDLE_FORMAT, BUNDLE_FORMAT, MR_JSON_REQUIRED);
    if (cur.status == MR_OK && (status = refuse_later_keys(bundle->root, err)) != MR_OK)
        return status;
    mr_json_only(&cur, bundle_keys);
    bundle->name = mr_json_string(&cur, "name", NULL, true);
    bundle->version = mr_json_string(&cur, "version", "0", false);
    const char *mode = mr_json_string(&cur, "mode", NULL, true);
    bundle->max_length = (size_t)mr_json_int(&cur, "max_length", 8, 131072, MR_BUNDLE_MAX_LENGTH);
    bundle->untrained = mr_json_bool(&cur, "untrained", false);
    (void)mr_json_array(&cur, "prefix", true);
    (void)mr_json_array(&cur, "suffix", true);
    (void)mr_json_string(&cur, "llm", NULL, true);
    (void)mr_json_object(&cur, "score", true);
    (void)mr_json_object(&cur, "encoders", false);
    (void)mr_json_object(&cur, "projectors", false);
    (void)mr_json_object(&cur, "spaces", false);
    (void)mr_json_object(&cur, "files", false);
    const json_t *defaults = mr_json_object(&cur, "defaults", false);
    if (cur.status != MR_OK)
        return cur.status;
    if (strcmp(mode, "mixed") != 0 && strcmp(mode, "text") != 0)
        return MR_FAIL(err, INVALID, "bundle.json: 'mode' is '%s', expected 'mixed' or 'text'",
                       mode);
    bundle->mixed = strcmp(mode, "mixed") == 0;
    if (defaults) {
        static const char *const known[] = {"instruction", NULL};
        mr_json_cursor sub = mr_json_cursor_of("bundle.json: defaults", defaults, err);
        mr_json_only(&sub, known);
        bundle->defaults_instruction = mr_json_string(&sub, "instruction", NULL, false);
        status = sub.status;
    }
    return status;
}

mr_status mr_bundle_load(mr_bundle **out, const char *folder, int threads, mr_error *err)
{
    mr_bundle *bundle = calloc(1, sizeof *bundle);
    if (!bundle)
        return MR_FAIL(err, NO_MEMORY, "opening bundle '%s'", folder);
    mr_status status = MR_OK;
    bundle->folder = mr_arena_strndup(&bundle->arena, folder, strlen(folder));
    if (!bundle->folder)
        status = MR_FAIL(err, NO_MEMORY, "folder name");
    if (status == MR_OK)
        status = read_root(bundle, err);
    if (status == MR_OK)
        status = mr_pool_new(&bundle->pool, threads, err);
    if (status == MR_OK)
        status = mr_bundle_read_encoders(bundle, err);
    if (status == MR_OK)
        status = open_llm(bundle, json_string_value(json_object_get(bundle->root, "llm")), err);
    if (status == MR_OK && bundle->max_length > (size_t)bundle->llm->config.max_positions)
        bundle->max_length = (size_t)bundle->llm->config.max_positions;
    if (status == MR_OK)
        status = open_templates(bundle, err);
    if (status == MR_OK)
        status = open_projector(bundle, "item", &bundle->item, &bundle->item_projector, err);
    if (status == MR_OK)
        status = open_projector(bundle, "user", &bundle->user, &bundle->user_projector, err);
    if (status == MR_OK)
        status = open_projector(bundle, "image", &bundle->image, &bundle->image_projector, err);
    if (status == MR_OK)
        status = read_score(bundle, err);
    if (status != MR_OK) {
        mr_bundle_close(bundle);
        return mr_error_prefix(err, status, "bundle '%s'", folder);
    }
    *out = bundle;
    return MR_OK;
}

mr_status mr_bundle_open(mr_bundle **out, const char *folder, const mr_bundle_options *options,
                         mr_error *err)
{
    mr_bundle_options opt = MR_BUNDLE_OPTIONS_DEFAULT;
    if (options)
        memcpy(&opt, options, options->size < sizeof opt ? options->size : sizeof opt);
    mr_bundle *bundle = NULL;
    mr_status status = mr_bundle_load(&bundle, folder, opt.threads, err);
    if (status == MR_OK && !opt.skip_golden && json_object_get(bundle->root, "golden"))
        status = mr_bundle_check_golden(bundle, err);
    if (status != MR_OK) {
        mr_bundle_close(bundle);
        return status;
    }
    *out = bundle;
    return MR_OK;
}

void mr_bundle_close(mr_bundle *bundle)
{
    if (!bundle)
        return;
    if (!bundle->user_projector_borrowed)
        mr_projector_close(bundle->user_projector);
    mr_projector_close(bundle->item_projector);
    mr_projector_close(bundle->image_projector);
    mr_template_free(bundle->prefix);
    mr_template_free(bundle->suffix);
    mr_tokenizer_close(bundle->tokenizer);
    mr_model_close(bundle->llm);
    mr_pool_free(bundle->pool);
    json_decref(bundle->root);
    mr_arena_done(&bundle->arena);
    free(bundle);
}

mr_status mr_bundle_open_item_encoder(const mr_bundle *bundle, mr_gemm_kind gemm,
                                      size_t batch_tokens, mr_text_encoder **out, mr_error *err)
{
    if (bundle->item.kind != MR_ENCODER_CAUSAL_LAST_N)
        return MR_FAIL(err, MISMATCH,
                       "bundle '%s' %s: it has no text encoder to run; give it ready vectors",
                       bundle->folder,
                       bundle->item.kind == MR_ENCODER_EXTERNAL ? "takes item vectors from outside"
                                                                : "ranks text");
    mr_arena scratch = {0};
    char *path = mr_path_join(&scratch, bundle->folder, bundle->item.path);
    mr_status status = path ? mr_path_check_relative(bundle->item.path, err)
                            : MR_FAIL(err, NO_MEMORY, "path of the item encoder");
    mr_text_encoder *encoder = NULL;
    if (status == MR_OK) {
        mr_text_encoder_options opt = {.text = bundle->item.text,
                                       .tokens = bundle->item.tokens,
                                       .max_tokens = bundle->item.max_tokens,
                                       .append_eos = bundle->item.append_eos,
                                       .gemm = gemm,
                                       .batch_tokens = batch_tokens,
                                       .pool = bundle->pool};
        status = mr_text_encoder_open(&encoder, path, &opt, err);
    }
    if (status == MR_OK && mr_text_encoder_dim(encoder) != bundle->item.dim)
        status = MR_FAIL(err, MISMATCH, "its states are %zu wide, 'encoders.item.dim' says %zu",
                         mr_text_encoder_dim(encoder), bundle->item.dim);
    if (status != MR_OK) {
        mr_error_prefix(err, status, "bundle '%s': item encoder", bundle->folder);
        mr_text_encoder_close(encoder);
    } else {
        *out = encoder;
    }
    mr_arena_done(&scratch);
    return status;
}

mr_status mr_bundle_open_image_encoder(const mr_bundle *bundle, mr_gemm_kind gemm, size_t batch,
                                       mr_image_encoder **out, mr_error *err)
{
    if (bundle->image.kind != MR_ENCODER_CLIP)
        return MR_FAIL(err, MISMATCH, "bundle '%s' has no image encoder to run", bundle->folder);
    mr_arena scratch = {0};
    char *path = mr_path_join(&scratch, bundle->folder, bundle->image.path);
    mr_status status = path ? mr_path_check_relative(bundle->image.path, err)
                            : MR_FAIL(err, NO_MEMORY, "path of the image encoder");
    mr_image_encoder *encoder = NULL;
    if (status == MR_OK) {
        const mr_image_encoder_options opt = {.tokens = bundle->image.tokens,
                                              .feature_layer = bundle->image.feature_layer,
                                              .gemm = gemm,
                                              .batch = batch,
                                              .pool = bundle->pool};
        status = mr_image_encoder_open(&encoder, path, &opt, err);
    }
    if (status == MR_OK && mr_image_encoder_dim(encoder) != bundle->image.dim)
        status = MR_FAIL(err, MISMATCH, "its features are %zu wide, 'encoders.image.dim' says %zu",
                         mr_image_encoder_dim(encoder), bundle->image.dim);
    if (status != MR_OK) {
        mr_error_prefix(err, status, "bundle '%s': image encoder", bundle->folder);
        mr_image_encoder_close(encoder);
    } else {
        *out = encoder;
    }
    mr_arena_done(&scratch);
    return status;
}

mr_status mr_bundle_open_user_encoder(const mr_bundle *bundle, mr_user_encoder **out, mr_error *err)
{
    if (bundle->user.kind != MR_ENCODER_HISTORY || !bundle->user.path)
        return MR_FAIL(err, MISMATCH, "bundle '%s' has no user encoder to run", bundle->folder);
    mr_arena scratch = {0};
    const mr_user_encoder_options opt = {.pool = bundle->pool};
    char *path = mr_path_join(&scratch, bundle->folder, bundle->user.path);
    mr_status status = path ? mr_user_encoder_open(out, path, &opt, err)
                            : MR_FAIL(err, NO_MEMORY, "path of the user encoder");
    if (status != MR_OK)
        mr_error_prefix(err, status, "bundle '%s': user encoder", bundle->folder);
    mr_arena_done(&scratch);
    return status;
}

size_t mr_bundle_user_tokens(const mr_bundle *bundle)
{
    const mr_encoder_spec *user = &bundle->user;
    /* Item vectors taken straight are as many as the items have together. */
    const bool direct = user->kind == MR_ENCODER_HISTORY && !user->path;
    return (size_t)user->tokens * (direct ? (size_t)bundle->item.tokens : 1);
}

double mr_bundle_margin(const mr_bundle *bundle, const float *hidden)
{
    const int32_t labels[2] = {bundle->yes_id, bundle->no_id};
    float logits[2];
    mr_model_label_logits(bundle->llm, hidden, labels, 2, logits);
    return (double)logits[0] - (double)logits[1];
}

double mr_bundle_score(const mr_bundle *bundle, double margin)
{
    return 1.0 / (1.0 + exp(-(margin / bundle->temperature + bundle->bias)));
}

const char *mr_bundle_name(const mr_bundle *bundle)
{
    return bundle->name;
}

const char *mr_bundle_version(const mr_bundle *bundle)
{
    return bundle->version;
}

bool mr_bundle_is_mixed(const mr_bundle *bundle)
{
    return bundle->mixed;
}

bool mr_bundle_is_untrained(const mr_bundle *bundle)
{
    return bundle->untrained;
}

uint64_t mr_bundle_item_space(const mr_bundle *bundle)
{
    return bundle->item.kind == MR_ENCODER_NONE ? 0 : bundle->item.space;
}

uint64_t mr_bundle_user_space(const mr_bundle *bundle)
{
    return bundle->user.kind == MR_ENCODER_NONE ? 0 : bundle->user.space;
}

const char *mr_bundle_numerics_id(const mr_bundle *bundle)
{
    return bundle->numerics_id;
}
