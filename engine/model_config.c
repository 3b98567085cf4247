/* model_config.c - reading config.json with transformers' defaults and our refusals.
 *
 * Checked against the configuration classes and modeling_rope_utils.py of transformers 5.23. Reads
 * go through a JSON cursor: its first error is kept, so the status is looked at once per part.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/model_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The cast: clang sees a float that grows. */
#define REQUIRED         ((double)NAN)

#define MAX_LAYERS       512
#define MAX_WIDTH        65536
#define MAX_HEADS        1024
#define MAX_HEAD_SIZE    1024
#define MAX_FEED_FORWARD (1 << 20)
#define MAX_VOCABULARY   (1 << 24)
#define MAX_POSITIONS    (1 << 30)
#define MAX_PROJECTION   (1 << 18) /* rows of q: H * D */

static const struct {
    const char *name;
    const char *architecture;
    int head_size;          /* when absent; 0: C/H */
    int kv_heads;           /* when absent; 0: H */
    int max_positions;      /* when absent */
    int32_t bos_id, eos_id; /* when absent */
    bool qkv_bias;          /* whatever the file says */
    bool attention_bias;    /* the key is read */
    bool mlp_bias;          /* the key is read */
    bool qk_norm;
    bool sliding_window; /* the keys are read */
} families[MR_FAMILY_COUNT] = {
    [MR_FAMILY_LLAMA] = {.name = "llama",
                         .architecture = "LlamaForCausalLM",
                         .max_positions = 2048,
                         .bos_id = 1,
                         .eos_id = 2,
                         .attention_bias = true,
                         .mlp_bias = true},
    [MR_FAMILY_QWEN2] = {.name = "qwen2",
                         .architecture = "Qwen2ForCausalLM",
                         .kv_heads = 32,
                         .max_positions = 32768,
                         .bos_id = -1,
                         .eos_id = -1,
                         .qkv_bias = true,
                         .sliding_window = true},
    [MR_FAMILY_QWEN3] = {.name = "qwen3",
                         .architecture = "Qwen3ForCausalLM",
                         .head_size = 128,
                         .kv_heads = 32,
                         .max_positions = 32768,
                         .bos_id = -1,
                         .eos_id = -1,
                         .attention_bias = true,
                         .qk_norm = true,
                         .sliding_window = true},
};

static const char *const rope_names[MR_ROPE_COUNT] = {
    [MR_ROPE_DEFAULT] = "default",
    [MR_ROPE_LINEAR] = "linear",
    [MR_ROPE_LLAMA3] = "llama3",
};

const char *mr_family_name(mr_family family)
{
    return families[family].name;
}

/* Marks the cursor failed, as its own reads do. */
#define REFUSE(cur, ...)                                                   \
    do {                                                                   \
        if ((cur)->status == MR_OK)                                        \
            (cur)->status = MR_FAIL((cur)->err, UNSUPPORTED, __VA_ARGS__); \
    } while (0)

static void read_family(mr_json_cursor *cur, mr_model_config *out)
{
    const char *type = mr_json_string(cur, "model_type", "", true);
    for (int i = 0; cur->status == MR_OK && i < MR_FAMILY_COUNT; i++) {
        if (strcmp(type, families[i].name) == 0) {
            out->family = (mr_family)i;
            return;
        }
    }
    REFUSE(cur,
           "%s: model_type '%.60s' is not one that the engine computes; it knows llama, qwen2 "
           "and qwen3",
           cur->name, type);
}

static bool is_null_in_file(const mr_json_cursor *cur, const char *key)
{
    return json_is_null(json_object_get(cur->object, key));
}

static void read_shape(mr_json_cursor *cur, mr_model_config *out)
{
    out->L = (int)mr_json_int(cur, "num_hidden_layers", 1, MAX_LAYERS, MR_JSON_REQUIRED);
    out->C = (int)mr_json_int(cur, "hidden_size", 1, MAX_WIDTH, MR_JSON_REQUIRED);
    out->H = (int)mr_json_int(cur, "num_attention_heads", 1, MAX_HEADS, MR_JSON_REQUIRED);
    out->F = (int)mr_json_int(cur, "intermediate_size", 1, MAX_FEED_FORWARD, MR_JSON_REQUIRED);
    out->V = (int32_t)mr_json_int(cur, "vocab_size", 1, MAX_VOCABULARY, MR_JSON_REQUIRED);
    out->max_positions = (int)mr_json_int(cur, "max_position_embeddings", 1, MAX_POSITIONS,
                                          families[out->family].max_positions);
    out->rms_eps = (float)mr_json_real(cur, "rms_norm_eps", 0, 1, 1e-6);
    if (cur->status != MR_OK)
        return;

    /* The classes tell "absent" from null: only null means H in those of Qwen. */
    int kv_heads = families[out->family].kv_heads;
    if (kv_heads == 0 || is_null_in_file(cur, "num_key_value_heads"))
        kv_heads = out->H;
    out->K = (int)mr_json_int(cur, "num_key_value_heads", 1, MAX_HEADS, kv_heads);

    const int head_size = families[out->family].head_size;
    out->D = (int)mr_json_int(cur, "head_dim", 1, MAX_HEAD_SIZE, head_size);
    if (cur->status != MR_OK)
        return;
    if (out->D == 0) {
        if (out->C % out->H != 0) {
            cur->status = MR_FAIL(cur->err, INVALID,
                                  "%s: hidden_size %d is not a multiple of num_attention_heads %d "
                                  "and there is no head_dim",
                                  cur->name, out->C, out->H);
            return;
        }
        out->D = out->C / out->H;
    }
    if (out->H % out->K != 0)
        cur->status = MR_FAIL(cur->err, INVALID,
                              "%s: num_attention_heads %d is not a multiple of "
                              "num_key_value_heads %d",
                              cur->name, out->H, out->K);
    else if (out->D % 2 != 0 || out->D > MAX_HEAD_SIZE)
        cur->status = MR_FAIL(cur->err, INVALID,
                              "%s: the head size is %d, expected an even number up to %d for the "
                              "rotation",
                              cur->name, out->D, MAX_HEAD_SIZE);
    else if ((int64_t)out->H * out->D > MAX_PROJECTION)
        cur->status =
            MR_FAIL(cur->err, INVALID, "%s: %d heads of %d make %lld rows, at most %d", cur->name,
                    out->H, out->D, (long long)out->H * out->D, MAX_PROJECTION);
}

static void read_rope(mr_json_cursor *cur, mr_model_config *out)
{
    /* As transformers: rope_scaling, the old key, wins unless it is empty; values inside win over
     * those beside it. */
    const json_t *scaling = mr_json_object(cur, "rope_scaling", false);
    const json_t *parameters = mr_json_object(cur, "rope_parameters", false);
    const bool old = json_object_size(scaling) > 0;
    mr_json_cursor rope = mr_json_cursor_of(cur->name, old ? scaling : parameters, cur->err);
    rope.status = cur->status;

    static const char *const layer_kinds[] = {"full_attention", "sliding_attention"};
    for (size_t i = 0; i < sizeof layer_kinds / sizeof *layer_kinds; i++) {
        if (json_is_object(json_object_get(rope.object, layer_kinds[i])))
            REFUSE(&rope, "%s: rotary parameters per kind of layer ('%s') are not computed",
                   cur->name, layer_kinds[i]);
    }

    const char *type = mr_json_string(&rope, "type", "default", false);
    type = mr_json_string(&rope, "rope_type", type, false);
    out->rope_type = MR_ROPE_COUNT;
    for (int i = 0; i < MR_ROPE_COUNT; i++) {
        if (strcmp(type, rope_names[i]) == 0)
            out->rope_type = (mr_rope_type)i;
    }
    if (out->rope_type == MR_ROPE_COUNT)
        REFUSE(&rope,
               "%s: rotary scaling of type '%.60s' is not computed; known are default, linear and "
               "llama3",
               cur->name, type);

    const double beside = mr_json_real(cur, "rope_theta", 1, 1e15, 10000);
    out->rope_theta = mr_json_real(&rope, "rope_theta", 1, 1e15, beside);

    const double part = mr_json_real(cur, "partial_rotary_factor", 0, 1, 1);
    if (mr_json_real(&rope, "partial_rotary_factor", 0, 1, part) < 1)
        REFUSE(&rope, "%s: a partial_rotary_factor under 1 is not computed", cur->name);

    out->rope_factor = out->rope_low = out->rope_high = 1;
    if (out->rope_type == MR_ROPE_LINEAR || out->rope_type == MR_ROPE_LLAMA3)
        out->rope_factor = mr_json_real(&rope, "factor", 1e-6, 1e6, REQUIRED);
    if (out->rope_type == MR_ROPE_LLAMA3) {
        out->rope_low = mr_json_real(&rope, "low_freq_factor", 1e-6, 1e6, REQUIRED);
        out->rope_high = mr_json_real(&rope, "high_freq_factor", 1e-6, 1e6, REQUIRED);
        int64_t positions = mr_json_int(&rope, "original_max_position_embeddings", 1, MAX_POSITIONS,
                                        out->max_positions);
        positions =
            mr_json_int(cur, "original_max_position_embeddings", 1, MAX_POSITIONS, positions);
        out->rope_original_positions = (int)positions;
        if (rope.status == MR_OK && out->rope_high <= out->rope_low)
            rope.status = MR_FAIL(cur->err, INVALID,
                                  "%s: high_freq_factor %g must be above low_freq_factor %g",
                                  cur->name, out->rope_high, out->rope_low);
    }
    if (cur->status == MR_OK)
        cur->status = rope.status;
}

static void read_biases_and_head(mr_json_cursor *cur, mr_model_config *out)
{
    const bool attention =
        families[out->family].attention_bias && mr_json_bool(cur, "attention_bias", false);
    out->qkv_bias = families[out->family].qkv_bias || attention;
    out->o_bias = attention;
    out->mlp_bias = families[out->family].mlp_bias && mr_json_bool(cur, "mlp_bias", false);
    out->qk_norm = families[out->family].qk_norm;
    out->tied = mr_json_bool(cur, "tie_word_embeddings", false);
}

static int32_t read_token_id(mr_json_cursor *cur, const char *key, int32_t absent)
{
    const json_t *value = json_object_get(cur->object, key);
    if (json_is_null(value))
        return -1;
    if (!json_is_array(value))
        return (int32_t)mr_json_int(cur, key, -1, INT32_MAX, absent);
    const json_t *first = json_array_get(value, 0);
    if (!first)
        return -1;
    const json_int_t id = json_integer_value(first);
    if (cur->status == MR_OK && (!json_is_integer(first) || id < 0 || id > INT32_MAX))
        cur->status = MR_FAIL(cur->err, INVALID, "%s: '%s' must be a token id or a list of them",
                              cur->name, key);
    return (int32_t)id;
}

/* As Qwen2Config: layers from max_window_layers on slide, unless layer_types says which. */
static void refuse_sliding_window(mr_json_cursor *cur, const mr_model_config *out)
{
    if (!families[out->family].sliding_window)
        return;
    const json_t *types = mr_json_array(cur, "layer_types", false);
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (!type || strcmp(type, "full_attention") != 0)
            REFUSE(cur, "%s: layer_types[%zu] is '%.60s'; only full_attention is computed",
                   cur->name, i, type ? type : "not a string");
    }
    const bool in_use = mr_json_bool(cur, "use_sliding_window", false);
    const int64_t first = mr_json_int(cur, "max_window_layers", 0, INT32_MAX, 28);
    if (in_use && !types && !is_null_in_file(cur, "sliding_window") && first < out->L)
        REFUSE(cur,
               "%s: layers from %lld on use a sliding window (use_sliding_window), which is "
               "not computed",
               cur->name, (long long)first);
}

static void refuse_other_computations(mr_json_cursor *cur)
{
    const char *activation = mr_json_string(cur, "hidden_act", "silu", false);
    if (cur->status == MR_OK && strcmp(activation, "silu") != 0)
        REFUSE(cur, "%s: hidden_act '%.60s' is not computed; the engine knows silu", cur->name,
               activation);

    static const char *const experts[] = {"num_experts", "num_local_experts", "n_routed_experts"};
    for (size_t i = 0; i < sizeof experts / sizeof *experts; i++) {
        if (mr_json_int(cur, experts[i], 0, INT32_MAX, 0) > 0)
            REFUSE(cur, "%s: mixtures of experts ('%s') are not computed", cur->name, experts[i]);
    }
    if (mr_json_object(cur, "quantization_config", false))
        REFUSE(cur,
               "%s: quantised weights (quantization_config) are not read; use a checkpoint in "
               "F32, F16 or BF16",
               cur->name);
    if (!mr_json_bool(cur, "is_causal", true) ||
        mr_json_bool(cur, "use_bidirectional_attention", false))
        REFUSE(cur, "%s: attention that is not causal is not computed", cur->name);
}

mr_status mr_model_config_parse(mr_model_config *out, const char *name, const json_t *root,
                                mr_error *err)
{
    mr_model_config config = {0};
    mr_json_cursor cur = mr_json_cursor_of(name, root, err);

    read_family(&cur, &config);
    if (cur.status != MR_OK)
        return cur.status;
    read_shape(&cur, &config);
    if (cur.status != MR_OK)
        return cur.status;
    read_rope(&cur, &config);
    read_biases_and_head(&cur, &config);
    config.bos_id = read_token_id(&cur, "bos_token_id", families[config.family].bos_id);
    config.eos_id = read_token_id(&cur, "eos_token_id", families[config.family].eos_id);
    refuse_sliding_window(&cur, &config);
    refuse_other_computations(&cur);
    if (cur.status == MR_OK)
        *out = config;
    return cur.status;
}

mr_status mr_model_config_load(mr_model_config *out, const char *path, mr_error *err)
{
    json_t *root = NULL;
    mr_status status = mr_json_load_file(&root, path, MR_JSON_MAX_CONFIG, err);
    if (status == MR_OK)
        status = mr_model_config_parse(out, path, root, err);
    json_decref(root);
    return status;
}

/* The old spelling: every version of transformers reads it. */
static json_t *rope_to_json(const mr_model_config *config)
{
    switch (config->rope_type) {
    case MR_ROPE_LINEAR:
        return json_pack("{s:s, s:f}", "rope_type", "linear", "factor", config->rope_factor);
    case MR_ROPE_LLAMA3:
        return json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor",
                         config->rope_factor, "low_freq_factor", config->rope_low,
                         "high_freq_factor", config->rope_high, "original_max_position_embeddings",
                         config->rope_original_positions);
    default: return json_null();
    }
}

static json_t *id_to_json(int32_t id)
{
    return id < 0 ? json_null() : json_integer(id);
}

/* The shortest decimal that reads back as the same float: 1e-05 and not 9.99999974737875e-06. */
static double shortest_decimal(float value)
{
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            break;
    }
    return strtod(text, NULL);
}

json_t *mr_model_config_to_json(const mr_model_config *config)
{
    json_t *root = json_pack(
        "{s:s, s:[s], s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:o, s:b, s:o, s:o, s:s}",
        "model_type", families[config->family].name, "architectures",
        families[config->family].architecture, "num_hidden_layers", config->L, "hidden_size",
        config->C, "num_attention_heads", config->H, "num_key_value_heads", config->K, "head_dim",
        config->D, "intermediate_size", config->F, "vocab_size", (int)config->V,
        "max_position_embeddings", config->max_positions, "rms_norm_eps",
        shortest_decimal(config->rms_eps), "rope_theta", config->rope_theta, "rope_scaling",
        rope_to_json(config), "tie_word_embeddings", (int)config->tied, "bos_token_id",
        id_to_json(config->bos_id), "eos_token_id", id_to_json(config->eos_id), "hidden_act",
        "silu");
    if (!root)
        return NULL;
    int failed = 0;
    if (families[config->family].attention_bias)
        failed |= json_object_set_new(root, "attention_bias", json_boolean(config->o_bias));
    if (families[config->family].mlp_bias)
        failed |= json_object_set_new(root, "mlp_bias", json_boolean(config->mlp_bias));
    if (families[config->family].sliding_window)
        failed |= json_object_set_new(root, "use_sliding_window", json_false());
    if (failed) {
        json_decref(root);
        return NULL;
    }
    return root;
}

/* Frequencies whose wavelength is long against the positions that the model was first trained on
 * are divided by the factor, short ones stay, those between are blended (Llama 3.1). */
static float llama3_scaled(const mr_model_config *config, float inverse)
{
    const float factor = (float)config->rope_factor, low = (float)config->rope_low;
    const float positions = (float)config->rope_original_positions;
    const float longest = (float)(config->rope_original_positions / config->rope_low);
    const float shortest = (float)(config->rope_original_positions / config->rope_high);
    const float wavelength = (float)(2 * 3.14159265358979323846) / inverse;

    if (wavelength > longest)
        return inverse / factor;
    if (wavelength < shortest)
        return inverse;
    const float smooth =
        (positions / wavelength - low) / (float)(config->rope_high - config->rope_low);
    return (1 - smooth) * inverse / factor + smooth * inverse;
}

void mr_rope_frequencies(const mr_model_config *config, double *inverse)
{
    for (int i = 0; i < config->D / 2; i++) {
        const float exponent = (float)(2 * i) / (float)config->D;
        float value = 1.0f / (float)pow((double)(float)config->rope_theta, (double)exponent);
        if (config->rope_type == MR_ROPE_LINEAR)
            value /= (float)config->rope_factor;
        else if (config->rope_type == MR_ROPE_LLAMA3)
            value = llama3_scaled(config, value);
        inverse[i] = (double)value;
    }
}
