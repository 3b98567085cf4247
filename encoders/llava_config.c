/* llava_config.c - config.json of a LLaVA: two models in one, and how they are joined.
 *
 * Checked against models/llava/configuration_llava.py of transformers 5.23. Published folders leave
 * out of text_config whatever is LlamaConfig's default, the width included, so those defaults are
 * filled in before the engine reads it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "encoders/llava_private.h"

#define REFUSE(cur, ...)                                                   \
    do {                                                                   \
        if ((cur)->status == MR_OK)                                        \
            (cur)->status = MR_FAIL((cur)->err, UNSUPPORTED, __VA_ARGS__); \
    } while (0)

static const struct {
    const char *key;
    int value;
} llama_defaults[] = {
    {"hidden_size", 4096},       {"intermediate_size", 11008}, {"num_hidden_layers", 32},
    {"num_attention_heads", 32}, {"vocab_size", 32000},
};

/* text_config with what the engine must be told. The caller owns it; NULL when memory is out. */
static json_t *complete_text(const json_t *text, bool tied)
{
    json_t *full = text ? json_deep_copy(text) : json_object();
    int failed = full == NULL;
    if (!json_object_get(full, "model_type"))
        failed |= json_object_set_new(full, "model_type", json_string("llama"));
    const char *type = json_string_value(json_object_get(full, "model_type"));
    for (size_t i = 0;
         type && strcmp(type, "llama") == 0 && i < sizeof llama_defaults / sizeof *llama_defaults;
         i++) {
        if (!json_object_get(full, llama_defaults[i].key))
            failed |= json_object_set_new(full, llama_defaults[i].key,
                                          json_integer(llama_defaults[i].value));
    }
    if (tied)
        failed |= json_object_set_new(full, "tie_word_embeddings", json_true());
    if (failed) {
        json_decref(full);
        return NULL;
    }
    return full;
}

static void read_feature_layer(mr_json_cursor *cur, mr_llava_config *out)
{
    const json_t *value = json_object_get(cur->object, "vision_feature_layer");
    const json_t *only = json_array_get(value, 0);
    if (json_is_array(value) && json_array_size(value) == 1 && json_is_integer(only) &&
        json_integer_value(only) >= -1000 && json_integer_value(only) <= 1000)
        out->feature_layer = (int)json_integer_value(only);
    else if (json_is_array(value))
        REFUSE(cur,
               "%s: vision_feature_layer is a list of %zu; features of several layers side by "
               "side are not computed",
               cur->name, json_array_size(value));
    else
        out->feature_layer = (int)mr_json_int(cur, "vision_feature_layer", -1000, 1000, -2);
    const int L = out->vision.L;
    if (cur->status == MR_OK && (out->feature_layer < -(L + 1) || out->feature_layer > L))
        cur->status = MR_FAIL(cur->err, INVALID,
                              "%s: vision_feature_layer is %d; a tower of %d layers has hidden "
                              "states 0 to %d, or -1 to %d from the end",
                              cur->name, out->feature_layer, L, L, -(L + 1));
}

static void read_joint(mr_json_cursor *cur, mr_llava_config *out)
{
    const char *strategy = mr_json_string(cur, "vision_feature_select_strategy", "default", false);
    if (cur->status == MR_OK && strcmp(strategy, "default") != 0 && strcmp(strategy, "full") != 0)
        REFUSE(cur,
               "%s: vision_feature_select_strategy '%.60s' is not computed; known are default and "
               "full",
               cur->name, strategy);
    out->keep_cls = cur->status == MR_OK && strcmp(strategy, "full") == 0;
    read_feature_layer(cur, out);

    const char *activation = mr_json_string(cur, "projector_hidden_act", "gelu", false);
    if (cur->status == MR_OK && strcmp(activation, "gelu") != 0)
        REFUSE(cur, "%s: projector_hidden_act '%.60s' is not computed; the projector knows gelu",
               cur->name, activation);
    out->projector_bias = mr_json_bool(cur, "multimodal_projector_bias", true);

    const int64_t token = mr_json_int(cur, "image_token_id", 0, INT32_MAX, 32000);
    out->image_token = (int32_t)mr_json_int(cur, "image_token_index", 0, INT32_MAX, token);
}

/* An id or a list of ids; false and nothing read when the key is absent or null. */
static bool read_ends(mr_json_cursor *cur, mr_llava_config *out)
{
    const json_t *value = json_object_get(cur->object, "eos_token_id");
    if (!value || json_is_null(value))
        return false;
    out->n_ends = 0;
    if (!json_is_array(value)) {
        out->ends[out->n_ends++] =
            (int32_t)mr_json_int(cur, "eos_token_id", -1, INT32_MAX, MR_JSON_REQUIRED);
        return true;
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *id = json_array_get(value, i);
        if (cur->status == MR_OK &&
            (!json_is_integer(id) || json_integer_value(id) < 0 ||
             json_integer_value(id) > INT32_MAX || out->n_ends == MR_LLAVA_MAX_ENDS))
            cur->status = MR_FAIL(cur->err, INVALID,
                                  "%s: 'eos_token_id' must be a token id or a list of at most %d",
                                  cur->name, MR_LLAVA_MAX_ENDS);
        if (cur->status != MR_OK)
            return true;
        out->ends[out->n_ends++] = (int32_t)json_integer_value(id);
    }
    return true;
}

/* What `generate` stops at: its own file, else the text model's configuration. */
static mr_status load_ends(mr_llava_config *out, mr_arena *arena, const char *folder,
                           const json_t *text, mr_error *err)
{
    mr_status status = MR_OK;
    json_t *root = NULL;
    bool found = false;
    const char *path = mr_path_join(arena, folder, "generation_config.json");
    if (!path)
        return MR_FAIL(err, NO_MEMORY, "opening '%s'", folder);
    if (mr_file_exists(path)) {
        status = mr_json_load_file(&root, path, MR_JSON_MAX_CONFIG, err);
        if (status != MR_OK)
            return status;
        mr_json_cursor cur = mr_json_cursor_of(path, root, err);
        found = read_ends(&cur, out);
        status = cur.status;
    }
    if (status == MR_OK && !found) {
        mr_json_cursor cur = mr_json_cursor_of("text_config", text, err);
        if (!read_ends(&cur, out) && out->text.eos_id >= 0)
            out->ends[out->n_ends++] = out->text.eos_id;
        status = cur.status;
    }
    json_decref(root);
    return status;
}

mr_status mr_llava_config_load(mr_llava_config *out, const char *folder, mr_error *err)
{
    mr_llava_config config = {0};
    mr_arena arena = {0};
    json_t *root = NULL, *text = NULL;
    mr_status status;

    const char *path = mr_path_join(&arena, folder, "config.json");
    char *part = path ? mr_arena_alloc(&arena, strlen(path) + 32, 1, 1) : NULL;
    if (!part) {
        status = MR_FAIL(err, NO_MEMORY, "opening '%s'", folder);
        goto out;
    }
    status = mr_json_load_file(&root, path, MR_JSON_MAX_CONFIG, err);
    if (status != MR_OK)
        goto out;

    mr_json_cursor cur = mr_json_cursor_of(path, root, err);
    const char *type = mr_json_string(&cur, "model_type", "", true);
    if (cur.status == MR_OK && strcmp(type, "llava") != 0)
        REFUSE(&cur, "%s: model_type '%.60s' is not LLaVA; expected llava", path, type);
    const json_t *text_part = mr_json_object(&cur, "text_config", false);
    const bool tied = mr_json_bool(&cur, "tie_word_embeddings", false);
    if (mr_json_object(&cur, "quantization_config", false))
        REFUSE(&cur,
               "%s: quantised weights (quantization_config) are not read; use a folder in F32, "
               "F16 or BF16",
               path);
    status = cur.status;
    if (status == MR_OK) {
        text = complete_text(text_part, tied);
        if (!text)
            status = MR_FAIL(err, NO_MEMORY, "opening '%s'", path);
    }
    if (status != MR_OK)
        goto out;

    snprintf(part, strlen(path) + 32, "%s: text_config", path);
    status = mr_model_config_parse(&config.text, part, text, err);
    if (status == MR_OK)
        status = mr_clip_llava_vision_config(&config.vision, path, root, err);
    if (status != MR_OK)
        goto out;

    read_joint(&cur, &config);
    status = cur.status;
    if (status == MR_OK)
        status = load_ends(&config, &arena, folder, text, err);
    if (status == MR_OK)
        status = mr_image_target_load(&config.target, folder, config.vision.image_size, err);
    if (status == MR_OK)
        *out = config;

out:
    json_decref(text);
    json_decref(root);
    mr_arena_done(&arena);
    return status;
}
