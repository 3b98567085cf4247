/* llava_untrained.c - see llava_untrained.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "encoders/llava_untrained.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "encoders/clip_private.h"
#include "engine/model_layout.h"

#define MAX_SHARD_BYTES ((size_t)4900 * 1000 * 1000)

/* clang-format off */
static const mr_llava_shape shapes[] = {
    {"llava-tiny",
     {.L = 3, .C = 32, .H = 4, .F = 64, .image_size = 56, .patch_size = 14, .grid = 4,
      .quick_gelu = true, .eps = 1e-5f},
     {.family = MR_FAMILY_LLAMA, .L = 2, .C = 64, .H = 4, .K = 4, .D = 16, .F = 128, .V = 1024,
      .rms_eps = 1e-5f, .max_positions = 512, .rope_theta = 1e4, .rope_factor = 1, .rope_low = 1,
      .rope_high = 1, .bos_id = 1, .eos_id = 2},
     MR_DTYPE_F16, 0.3, 1000},
    {"llava-1.5-7b",
     {.L = 24, .C = 1024, .H = 16, .F = 4096, .image_size = 336, .patch_size = 14, .grid = 24,
      .quick_gelu = true, .eps = 1e-5f},
     {.family = MR_FAMILY_LLAMA, .L = 32, .C = 4096, .H = 32, .K = 32, .D = 128, .F = 11008,
      .V = 32064, .rms_eps = 1e-5f, .max_positions = 4096, .rope_theta = 1e4, .rope_factor = 1,
      .rope_low = 1, .rope_high = 1, .bos_id = 1, .eos_id = 2},
     MR_DTYPE_F16, 0.02, 32000},
};
/* clang-format on */
#define N_SHAPES (sizeof shapes / sizeof *shapes)

const mr_llava_shape *mr_llava_shape_find(const char *name)
{
    for (size_t i = 0; i < N_SHAPES; i++) {
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    }
    return NULL;
}

const mr_llava_shape *mr_llava_shapes(size_t *n)
{
    *n = N_SHAPES;
    return shapes;
}

/* ---- config.json ----------------------------------------------------------------------------- */

/* 1e-05 and not 9.99999974737875e-06. */
static double shortest_eps(float eps)
{
    char text[32];
    snprintf(text, sizeof text, "%.3g", (double)eps);
    return strtod(text, NULL);
}

static json_t *vision_to_json(const mr_clip_vision_config *config)
{
    json_t *root = json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f}", "model_type", "clip_vision_model",
        "num_hidden_layers", config->L, "hidden_size", config->C, "num_attention_heads", config->H,
        "intermediate_size", config->F, "image_size", config->image_size, "patch_size",
        config->patch_size, "hidden_act", config->quick_gelu ? "quick_gelu" : "gelu",
        "layer_norm_eps", shortest_eps(config->eps));
    if (root && config->projection_dim > 0)
        json_object_set_new(root, "projection_dim", json_integer(config->projection_dim));
    return root;
}

static json_t *text_to_json(const mr_clip_text_config *config)
{
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:i}", "model_type",
                     "clip_text_model", "num_hidden_layers", config->L, "hidden_size", config->C,
                     "num_attention_heads", config->H, "intermediate_size", config->F, "vocab_size",
                     (int)config->V, "max_position_embeddings", config->max_positions,
                     "projection_dim", config->projection_dim, "hidden_act",
                     config->quick_gelu ? "quick_gelu" : "gelu", "layer_norm_eps",
                     shortest_eps(config->eps), "eos_token_id", (int)config->eos_id);
}

/* Takes root. */
static mr_status save(mr_arena *arena, const char *folder, const char *name, json_t *root,
                      mr_error *err)
{
    const char *path = mr_path_join(arena, folder, name);
    mr_status status = root && path ? mr_json_save_file(root, path, err)
                                    : MR_FAIL(err, NO_MEMORY, "writing '%s/%s'", folder, name);
    json_decref(root);
    return status;
}

/* ---- tokenizer.json -------------------------------------------------------------------------- */

#define FIRST_BYTE 3 /* after <unk>, <s>, </s> */
#define FIRST_CHAR (FIRST_BYTE + 256)
#define SYLLABLES  100

/* A word of syllables for each number, none twice: "\u2581" (a space) or nothing, then two
 * syllables, later three. */
static void spell(int number, char out[32])
{
    static const char consonants[] = "bcdfghjklmnprstvwxyz", vowels[] = "aeiou";
    const int pairs = SYLLABLES * SYLLABLES;
    const bool starts = number < pairs || number >= 2 * pairs;
    const int syllables = number < 2 * pairs ? 2 : 3;
    int rest = number < 2 * pairs ? number % pairs : number - 2 * pairs;
    size_t n = (size_t)snprintf(out, 32, "%s", starts ? "\xE2\x96\x81" : "");
    for (int i = 0; i < syllables; i++, rest /= SYLLABLES) {
        out[n++] = consonants[rest % SYLLABLES / 5];
        out[n++] = vowels[rest % 5];
    }
    out[n] = '\0';
}

static json_t *added_token(int id, const char *content)
{
    return json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", id, "content", content,
                     "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
}

/* Llama's kind: bytes for what has no token, so that every prompt has ids, and a beginning-of-text
 * token in front. */
static json_t *tokenizer_to_json(int tokens)
{
    static const char *const special[FIRST_BYTE] = {"<unk>", "<s>", "</s>"};
    json_t *vocab = json_object(), *added = json_array();
    char text[32];
    int id = 0;
    for (; id < FIRST_BYTE; id++) {
        json_object_set_new(vocab, special[id], json_integer(id));
        json_array_append_new(added, added_token(id, special[id]));
    }
    for (; id < FIRST_CHAR; id++) {
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)(id - FIRST_BYTE));
        json_object_set_new(vocab, text, json_integer(id));
    }
    json_object_set_new(vocab, "\xE2\x96\x81", json_integer(id++));
    for (int c = '!'; c <= '~'; c++) {
        snprintf(text, sizeof text, "%c", (char)c);
        json_object_set_new(vocab, text, json_integer(id++));
    }
    for (int word = 0; id < tokens; word++) {
        spell(word, text);
        json_object_set_new(vocab, text, json_integer(id++));
    }
    json_array_append_new(added, added_token(tokens, "<image>"));
    json_array_append_new(added, added_token(tokens + 1, "<pad>"));

    return json_pack(
        "{s:s, s:n, s:n, s:o, s:{s:s, s:[{s:s, s:s}, {s:s, s:{s:s}, s:s}]}, s:n,"
        " s:{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], s:[{s:{s:s, s:i}}, {s:{s:s, s:i}},"
        " {s:{s:s, s:i}}, {s:{s:s, s:i}}], s:{s:{s:s, s:[i], s:[s]}}},"
        " s:{s:s, s:[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}, {s:s, s:s, s:i, s:i}]},"
        " s:{s:s, s:n, s:s, s:n, s:n, s:b, s:b, s:b, s:o, s:[]}}",
        "version", "1.0", "truncation", "padding", "added_tokens", added, "normalizer", "type",
        "Sequence", "normalizers", "type", "Prepend", "prepend", "\xE2\x96\x81", "type", "Replace",
        "pattern", "String", " ", "content", "\xE2\x96\x81", "pre_tokenizer", "post_processor",
        "type", "TemplateProcessing", "single", "SpecialToken", "id", "<s>", "type_id", 0,
        "Sequence", "id", "A", "type_id", 0, "pair", "SpecialToken", "id", "<s>", "type_id", 0,
        "Sequence", "id", "A", "type_id", 0, "SpecialToken", "id", "<s>", "type_id", 1, "Sequence",
        "id", "B", "type_id", 1, "special_tokens", "<s>", "id", "<s>", "ids", 1, "tokens", "<s>",
        "decoder", "type", "Sequence", "decoders", "type", "Replace", "pattern", "String",
        "\xE2\x96\x81", "content", " ", "type", "ByteFallback", "type", "Fuse", "type", "Strip",
        "content", " ", "start", 1, "stop", 0, "model", "type", "BPE", "dropout", "unk_token",
        "<unk>", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 1, "byte_fallback",
        1, "ignore_merges", 0, "vocab", vocab, "merges");
}

/* ---- Weights --------------------------------------------------------------------------------- */

static void set_shape(mr_tensor *tensor, const char *name, mr_dtype dtype, int n_dims, int rows,
                      int cols)
{
    *tensor = (mr_tensor){.name = name, .dtype = dtype, .n_dims = n_dims, .shape = {rows, cols}};
    tensor->bytes = mr_dtype_size(dtype) * (size_t)rows * (n_dims == 2 ? (size_t)cols : 1);
}

/* Vision tower, projector, language model, under the names of the published folder. */
static mr_status list_tensors(const mr_llava_shape *shape, mr_arena *arena, mr_tensor **out,
                              size_t *n_out, mr_error *err)
{
    mr_tensor *vision, *text;
    size_t n_vision, n_text, n = 0;
    mr_status status = mr_clip_vision_layout(&shape->vision, "vision_tower.vision_model.", false,
                                             shape->dtype, arena, &vision, &n_vision, err);
    if (status == MR_OK)
        status = mr_model_layout(&shape->text, shape->dtype, arena, &text, &n_text, err);
    if (status != MR_OK)
        return status;

    mr_tensor *all = mr_arena_array(arena, mr_tensor, n_vision + 4 + n_text);
    if (!all)
        return MR_FAIL(err, NO_MEMORY, "a list of %zu tensors", n_vision + 4 + n_text);
    memcpy(all, vision, n_vision * sizeof *all);
    n = n_vision;
    const int C = shape->text.C;
    set_shape(&all[n++], "multi_modal_projector.linear_1.weight", shape->dtype, 2, C,
              shape->vision.C);
    set_shape(&all[n++], "multi_modal_projector.linear_1.bias", shape->dtype, 1, C, 0);
    set_shape(&all[n++], "multi_modal_projector.linear_2.weight", shape->dtype, 2, C, C);
    set_shape(&all[n++], "multi_modal_projector.linear_2.bias", shape->dtype, 1, C, 0);
    for (size_t i = 0; i < n_text; i++) {
        char name[160];
        snprintf(name, sizeof name, "language_model.%s", text[i].name);
        all[n] = text[i];
        all[n].name = mr_arena_strndup(arena, name, strlen(name));
        if (!all[n++].name)
            return MR_FAIL(err, NO_MEMORY, "a list of %zu tensors", n_vision + 4 + n_text);
    }
    *out = all;
    *n_out = n;
    return MR_OK;
}

mr_status mr_llava_untrained_write(const char *folder, const mr_llava_shape *shape, uint64_t seed,
                                   mr_error *err)
{
    mr_arena arena = {0};
    mr_tensor *tensors;
    size_t n;
    mr_untrained_options opt = MR_UNTRAINED_OPTIONS_DEFAULT;
    opt.seed = seed;
    opt.deviation = shape->deviation;

    mr_status status = mr_file_make_folders(folder, err);
    if (status == MR_OK)
        status = save(&arena, folder, "config.json",
                      json_pack("{s:s, s:[s], s:i, s:i, s:s, s:s, s:s, s:o, s:o}", "model_type",
                                "llava", "architectures", "LlavaForConditionalGeneration",
                                "image_token_index", (int)shape->tokens, "vision_feature_layer", -2,
                                "vision_feature_select_strategy", "default", "projector_hidden_act",
                                "gelu", "torch_dtype", "float16", "text_config",
                                mr_model_config_to_json(&shape->text), "vision_config",
                                vision_to_json(&shape->vision)),
                      err);
    if (status == MR_OK)
        status = save(&arena, folder, "generation_config.json",
                      json_pack("{s:i, s:i, s:i}", "bos_token_id", (int)shape->text.bos_id,
                                "eos_token_id", (int)shape->text.eos_id, "pad_token_id",
                                (int)shape->tokens + 1),
                      err);
    if (status == MR_OK)
        status = save(&arena, folder, "tokenizer.json", tokenizer_to_json(shape->tokens), err);
    if (status == MR_OK)
        status = list_tensors(shape, &arena, &tensors, &n, err);
    if (status == MR_OK)
        status = mr_untrained_write_tensors(folder, tensors, n, MAX_SHARD_BYTES, &opt, err);
    mr_arena_done(&arena);
    return status;
}

mr_status mr_clip_untrained_write(const char *folder, const mr_clip_vision_config *vision,
                                  const mr_clip_text_config *text, const mr_untrained_options *opt,
                                  mr_error *err)
{
    mr_arena arena = {0};
    mr_tensor *tensors, *more = NULL, *all;
    size_t n, n_more = 0;
    mr_status status =
        mr_clip_vision_layout(vision, "vision_model.", text || vision->projection_dim > 0,
                              opt->dtype, &arena, &tensors, &n, err);
    if (status == MR_OK && text)
        status = mr_clip_text_layout(text, opt->dtype, &arena, &more, &n_more, err);
    if (status != MR_OK)
        goto out;
    all = mr_arena_array(&arena, mr_tensor, n + n_more);
    if (!all) {
        status = MR_FAIL(err, NO_MEMORY, "a list of %zu tensors", n + n_more);
        goto out;
    }
    memcpy(all, tensors, n * sizeof *all);
    if (n_more > 0)
        memcpy(all + n, more, n_more * sizeof *all);

    status = mr_file_make_folders(folder, err);
    if (status == MR_OK)
        status = save(&arena, folder, "config.json",
                      text ? json_pack("{s:s, s:[s], s:i, s:o, s:o}", "model_type", "clip",
                                       "architectures", "CLIPModel", "projection_dim",
                                       text->projection_dim, "vision_config",
                                       vision_to_json(vision), "text_config", text_to_json(text))
                           : vision_to_json(vision),
                      err);
    if (status == MR_OK)
        status = mr_untrained_write_tensors(folder, all, n + n_more, 0, opt, err);

out:
    mr_arena_done(&arena);
    return status;
}
