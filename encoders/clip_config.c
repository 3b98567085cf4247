/* clip_config.c - vision_config and text_config of CLIP, with the defaults of transformers.
 *
 * Checked against models/clip/configuration_clip.py of transformers 5.23. A key that is absent has
 * the value that the class gives it, so a config.json may be short.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "encoders/clip.h"

#define MAX_LAYERS       512
#define MAX_WIDTH        16384
#define MAX_FEED_FORWARD (1 << 18)
#define MAX_IMAGE        4096
#define MAX_GRID         128 /* so that the scores of a head, grid^4, stay bounded */
#define MAX_VOCABULARY   (1 << 24)
#define MAX_POSITIONS    4096

static void refuse(mr_json_cursor *cur, const char *key, const char *found, const char *known)
{
    if (cur->status == MR_OK)
        cur->status = MR_FAIL(cur->err, UNSUPPORTED, "%s: '%s' is %.80s, which is not computed; %s",
                              cur->name, key, found, known);
}

static void read_model_type(mr_json_cursor *cur, const char *expected)
{
    const char *type = mr_json_string(cur, "model_type", expected, false);
    if (cur->status == MR_OK && strcmp(type, expected) != 0)
        refuse(cur, "model_type", type, expected);
}

static bool read_activation(mr_json_cursor *cur)
{
    const char *name = mr_json_string(cur, "hidden_act", "quick_gelu", false);
    if (cur->status == MR_OK && strcmp(name, "quick_gelu") != 0 && strcmp(name, "gelu") != 0)
        refuse(cur, "hidden_act", name, "known are quick_gelu and gelu");
    return cur->status == MR_OK && strcmp(name, "quick_gelu") == 0;
}

static void check_heads(mr_json_cursor *cur, int C, int H)
{
    if (cur->status == MR_OK && C % H != 0)
        cur->status = MR_FAIL(cur->err, INVALID,
                              "%s: hidden_size %d is not a multiple of "
                              "num_attention_heads %d",
                              cur->name, C, H);
}

/* A number, or the list of two that stands for a height and a width. */
static int read_size(mr_json_cursor *cur, const char *key, int most, int fallback)
{
    if (json_is_array(json_object_get(cur->object, key))) {
        refuse(cur, key, "a list", "known is one number for both directions");
        return fallback;
    }
    return (int)mr_json_int(cur, key, 1, most, fallback);
}

mr_status mr_clip_vision_config_parse(mr_clip_vision_config *out, const char *name,
                                      const json_t *root, mr_error *err)
{
    mr_json_cursor cur = mr_json_cursor_of(name, root, err);
    mr_clip_vision_config config = {0};

    read_model_type(&cur, "clip_vision_model");
    config.L = (int)mr_json_int(&cur, "num_hidden_layers", 1, MAX_LAYERS, 12);
    config.C = (int)mr_json_int(&cur, "hidden_size", 1, MAX_WIDTH, 768);
    config.H = (int)mr_json_int(&cur, "num_attention_heads", 1, MAX_WIDTH, 12);
    config.F = (int)mr_json_int(&cur, "intermediate_size", 1, MAX_FEED_FORWARD, 3072);
    config.image_size = read_size(&cur, "image_size", MAX_IMAGE, 224);
    config.patch_size = read_size(&cur, "patch_size", MAX_IMAGE, 32);
    config.projection_dim = (int)mr_json_int(&cur, "projection_dim", 1, MAX_WIDTH, 512);
    config.eps = (float)mr_json_real(&cur, "layer_norm_eps", 0, 1, 1e-5);
    config.quick_gelu = read_activation(&cur);
    if (mr_json_int(&cur, "num_channels", 1, 1024, 3) != 3)
        refuse(&cur, "num_channels", "not 3", "pictures are RGB");
    check_heads(&cur, config.C, config.H);
    if (cur.status != MR_OK)
        return cur.status;

    config.grid = config.image_size / config.patch_size;
    if (config.grid < 1 || config.grid > MAX_GRID)
        return MR_FAIL(err, INVALID,
                       "%s: image_size %d in patches of %d makes %d rows of patches, expected 1 to "
                       "%d",
                       name, config.image_size, config.patch_size, config.grid, MAX_GRID);
    *out = config;
    return MR_OK;
}

mr_status mr_clip_text_config_parse(mr_clip_text_config *out, const char *name, const json_t *root,
                                    mr_error *err)
{
    mr_json_cursor cur = mr_json_cursor_of(name, root, err);
    mr_clip_text_config config = {0};

    read_model_type(&cur, "clip_text_model");
    config.L = (int)mr_json_int(&cur, "num_hidden_layers", 1, MAX_LAYERS, 12);
    config.C = (int)mr_json_int(&cur, "hidden_size", 1, MAX_WIDTH, 512);
    config.H = (int)mr_json_int(&cur, "num_attention_heads", 1, MAX_WIDTH, 8);
    config.F = (int)mr_json_int(&cur, "intermediate_size", 1, MAX_FEED_FORWARD, 2048);
    config.V = (int32_t)mr_json_int(&cur, "vocab_size", 1, MAX_VOCABULARY, 49408);
    config.max_positions = (int)mr_json_int(&cur, "max_position_embeddings", 1, MAX_POSITIONS, 77);
    config.projection_dim = (int)mr_json_int(&cur, "projection_dim", 1, MAX_WIDTH, 512);
    config.eps = (float)mr_json_real(&cur, "layer_norm_eps", 0, 1, 1e-5);
    config.quick_gelu = read_activation(&cur);
    config.eos_id = (int32_t)mr_json_int(&cur, "eos_token_id", 0, INT32_MAX, 49407);
    check_heads(&cur, config.C, config.H);
    if (cur.status == MR_OK)
        *out = config;
    return cur.status;
}
