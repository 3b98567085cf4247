/* test_model_config.c - config.json: defaults as transformers has them, every option, every
 * refusal.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model_config.h"
#include "engine/untrained.h"
#include "tests/support.h"

#define SHAPE                                                                                      \
    "\"num_hidden_layers\":2,\"hidden_size\":64,\"num_attention_heads\":32,\"intermediate_size\":" \
    "96,\"vocab_size\":100"
#define LLAMA "{\"model_type\":\"llama\"," SHAPE "}"
#define QWEN2 "{\"model_type\":\"qwen2\"," SHAPE "}"
#define QWEN3 "{\"model_type\":\"qwen3\"," SHAPE "}"

/* base with the keys of patch put over it. */
static mr_status parse(const char *base, const char *patch, mr_model_config *out, mr_error *err)
{
    json_t *root = json_loads(base, 0, NULL);
    json_t *over = json_loads(patch, 0, NULL);
    assert_non_null(root);
    if (!over)
        fail_msg("not JSON: %s", patch);
    assert_int_equal(json_object_update(root, over), 0);
    mr_status status = mr_model_config_parse(out, "config.json", root, err);
    json_decref(over);
    json_decref(root);
    return status;
}

static void absent_keys_have_the_defaults_of_each_class(void **state)
{
    (void)state;
    /* Printed by transformers 5.23 from AutoConfig for these five keys and a model_type. */
    static const struct {
        const char *base;
        mr_family family;
        int K, D, max_positions;
        bool qkv_bias, qk_norm;
        int32_t bos_id, eos_id;
    } row[] = {
        {LLAMA, MR_FAMILY_LLAMA, 32, 2, 2048, false, false, 1, 2},
        {QWEN2, MR_FAMILY_QWEN2, 32, 2, 32768, true, false, -1, -1},
        {QWEN3, MR_FAMILY_QWEN3, 32, 128, 32768, false, true, -1, -1},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        mr_model_config c;
        assert_status(parse(row[i].base, "{}", &c, &err), MR_OK, &err);
        assert_int_equal(c.family, row[i].family);
        assert_int_equal(c.L, 2);
        assert_int_equal(c.C, 64);
        assert_int_equal(c.H, 32);
        assert_int_equal(c.F, 96);
        assert_int_equal(c.V, 100);
        assert_int_equal(c.K, row[i].K);
        assert_int_equal(c.D, row[i].D);
        assert_int_equal(c.max_positions, row[i].max_positions);
        assert_int_equal(c.qkv_bias, row[i].qkv_bias);
        assert_int_equal(c.qk_norm, row[i].qk_norm);
        assert_int_equal(c.o_bias, false);
        assert_int_equal(c.mlp_bias, false);
        assert_int_equal(c.tied, false);
        assert_true(c.rms_eps == 1e-6f);
        assert_true(c.rope_theta == 10000);
        assert_int_equal(c.rope_type, MR_ROPE_DEFAULT);
        assert_int_equal(c.bos_id, row[i].bos_id);
        assert_int_equal(c.eos_id, row[i].eos_id);
    }
}

static void every_key_is_read(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_model_config c;
    assert_status(parse(LLAMA,
                        "{\"num_hidden_layers\":3,\"hidden_size\":48,\"num_attention_heads\":6,"
                        "\"num_key_value_heads\":3,\"head_dim\":10,\"intermediate_size\":50,"
                        "\"vocab_size\":77,\"rms_norm_eps\":1e-5,\"max_position_embeddings\":123,"
                        "\"tie_word_embeddings\":true,\"attention_bias\":true,\"mlp_bias\":true,"
                        "\"bos_token_id\":5,\"eos_token_id\":[6,7],\"rope_theta\":500000,"
                        "\"torch_dtype\":\"float64\",\"hidden_act\":\"silu\"}",
                        &c, &err),
                  MR_OK, &err);
    assert_int_equal(c.L, 3);
    assert_int_equal(c.C, 48);
    assert_int_equal(c.H, 6);
    assert_int_equal(c.K, 3);
    assert_int_equal(c.D, 10);
    assert_int_equal(c.F, 50);
    assert_int_equal(c.V, 77);
    assert_true(c.rms_eps == 1e-5f);
    assert_int_equal(c.max_positions, 123);
    assert_true(c.tied && c.qkv_bias && c.o_bias && c.mlp_bias && !c.qk_norm);
    assert_int_equal(c.bos_id, 5);
    assert_int_equal(c.eos_id, 6);
    assert_true(c.rope_theta == 500000);
}

static void options_mean_what_they_mean_in_transformers(void **state)
{
    (void)state;
    static const struct {
        const char *base, *patch;
        int K, D;
        bool qkv_bias, o_bias, mlp_bias;
        int32_t bos_id, eos_id;
    } row[] = {
        {LLAMA, "{\"num_key_value_heads\":null,\"head_dim\":null}", 32, 2, 0, 0, 0, 1, 2},
        {QWEN2, "{\"num_key_value_heads\":null,\"num_attention_heads\":16}", 16, 4, 1, 0, 0, -1,
         -1},
        {QWEN2, "{\"attention_bias\":true,\"mlp_bias\":true}", 32, 2, 1, 0, 0, -1, -1},
        {QWEN2, "{\"head_dim\":8}", 32, 8, 1, 0, 0, -1, -1},
        {QWEN3, "{\"attention_bias\":true,\"mlp_bias\":true}", 32, 128, 1, 1, 0, -1, -1},
        {QWEN3, "{\"head_dim\":null}", 32, 128, 0, 0, 0, -1, -1},
        {LLAMA, "{\"bos_token_id\":null,\"eos_token_id\":null}", 32, 2, 0, 0, 0, -1, -1},
        {LLAMA, "{\"bos_token_id\":-1,\"eos_token_id\":[]}", 32, 2, 0, 0, 0, -1, -1},
        {LLAMA, "{\"sliding_window\":8,\"use_sliding_window\":true}", 32, 2, 0, 0, 0, 1, 2},
        {QWEN2, "{\"sliding_window\":8,\"use_sliding_window\":false}", 32, 2, 1, 0, 0, -1, -1},
        {QWEN2, "{\"use_sliding_window\":true,\"max_window_layers\":2}", 32, 2, 1, 0, 0, -1, -1},
        {QWEN2, "{\"use_sliding_window\":true,\"sliding_window\":null,\"max_window_layers\":0}", 32,
         2, 1, 0, 0, -1, -1},
        {QWEN3,
         "{\"use_sliding_window\":true,\"max_window_layers\":0,"
         "\"layer_types\":[\"full_attention\",\"full_attention\"]}",
         32, 128, 0, 0, 0, -1, -1},
        {LLAMA, "{\"num_experts\":0,\"is_causal\":true,\"partial_rotary_factor\":1.0}", 32, 2, 0, 0,
         0, 1, 2},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        mr_model_config c;
        print_message("%s\n", row[i].patch);
        assert_status(parse(row[i].base, row[i].patch, &c, &err), MR_OK, &err);
        assert_int_equal(c.K, row[i].K);
        assert_int_equal(c.D, row[i].D);
        assert_int_equal(c.qkv_bias, row[i].qkv_bias);
        assert_int_equal(c.o_bias, row[i].o_bias);
        assert_int_equal(c.mlp_bias, row[i].mlp_bias);
        assert_int_equal(c.bos_id, row[i].bos_id);
        assert_int_equal(c.eos_id, row[i].eos_id);
    }
}

#define LLAMA3                                                                                  \
    "\"factor\":32.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_" \
    "embeddings\":8192"

static void both_spellings_of_the_rotary_parameters_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *patch;
        double theta;
        mr_rope_type type;
        double factor;
        int original;
    } row[] = {
        {"{\"rope_theta\":5e5,\"rope_scaling\":null}", 5e5, MR_ROPE_DEFAULT, 1, 0},
        {"{\"rope_parameters\":{\"rope_theta\":5e5,\"rope_type\":\"default\"}}", 5e5,
         MR_ROPE_DEFAULT, 1, 0},
        {"{\"rope_parameters\":{\"rope_theta\":5e5},\"rope_theta\":7}", 5e5, MR_ROPE_DEFAULT, 1, 0},
        {"{\"rope_parameters\":{\"rope_type\":\"default\"},\"rope_theta\":7}", 7, MR_ROPE_DEFAULT,
         1, 0},
        {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}}", 1e4, MR_ROPE_LINEAR, 4, 0},
        {"{\"rope_scaling\":{\"type\":\"linear\",\"rope_type\":\"linear\",\"factor\":4}}", 1e4,
         MR_ROPE_LINEAR, 4, 0},
        {"{\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4}}", 1e4, MR_ROPE_LINEAR, 4,
         0},
        {"{\"rope_scaling\":{},\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4}}", 1e4,
         MR_ROPE_LINEAR, 4, 0},
        {"{\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2},"
         "\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4}}",
         1e4, MR_ROPE_LINEAR, 2, 0},
        {"{\"rope_theta\":5e5,\"rope_scaling\":{\"rope_type\":\"llama3\"," LLAMA3 "}}", 5e5,
         MR_ROPE_LLAMA3, 32, 8192},
        {"{\"rope_parameters\":{\"rope_theta\":5e5,\"rope_type\":\"llama3\"," LLAMA3 "}}", 5e5,
         MR_ROPE_LLAMA3, 32, 8192},
        {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
         "\"high_freq_factor\":4},\"max_position_embeddings\":64}",
         1e4, MR_ROPE_LLAMA3, 8, 64},
        {"{\"original_max_position_embeddings\":99,"
         "\"rope_scaling\":{\"rope_type\":\"llama3\"," LLAMA3 "}}",
         1e4, MR_ROPE_LLAMA3, 32, 99},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        mr_model_config c;
        print_message("%s\n", row[i].patch);
        assert_status(parse(LLAMA, row[i].patch, &c, &err), MR_OK, &err);
        assert_true(c.rope_theta == row[i].theta);
        assert_int_equal(c.rope_type, row[i].type);
        assert_true(c.rope_factor == row[i].factor);
        assert_int_equal(c.rope_original_positions, row[i].original);
        if (c.rope_type == MR_ROPE_LLAMA3)
            assert_true(c.rope_low == 1 && c.rope_high == 4);
    }
}

static void what_is_not_computed_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *base, *patch, *message;
    } row[] = {
        {LLAMA, "{\"model_type\":\"mistral\"}",
         "config.json: model_type 'mistral' is not one that the engine computes; it knows llama, "
         "qwen2 and qwen3"},
        {LLAMA, "{\"model_type\":\"qwen3_moe\"}", "'qwen3_moe'"},
        {LLAMA, "{\"hidden_act\":\"gelu\"}", "hidden_act 'gelu'"},
        {QWEN3, "{\"num_experts\":8}", "mixtures of experts ('num_experts')"},
        {LLAMA, "{\"num_local_experts\":8}", "'num_local_experts'"},
        {LLAMA, "{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}}", "type 'yarn'"},
        {LLAMA, "{\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":4}}", "type 'dynamic'"},
        {LLAMA, "{\"rope_parameters\":{\"rope_type\":\"longrope\"}}", "type 'longrope'"},
        {QWEN2, "{\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1e4}}}",
         "per kind of layer ('full_attention')"},
        {LLAMA, "{\"partial_rotary_factor\":0.5}", "partial_rotary_factor"},
        {LLAMA, "{\"rope_parameters\":{\"partial_rotary_factor\":0.5}}", "partial_rotary_factor"},
        {QWEN2, "{\"use_sliding_window\":true,\"max_window_layers\":1}",
         "layers from 1 on use a sliding window"},
        {QWEN3, "{\"use_sliding_window\":true,\"max_window_layers\":0,\"sliding_window\":4096}",
         "layers from 0 on"},
        {QWEN3, "{\"layer_types\":[\"full_attention\",\"sliding_attention\"]}",
         "layer_types[1] is 'sliding_attention'"},
        {QWEN3, "{\"layer_types\":[\"linear_attention\"]}", "layer_types[0] is 'linear_attention'"},
        {QWEN3, "{\"layer_types\":[7]}", "layer_types[0] is 'not a string'"},
        {LLAMA, "{\"quantization_config\":{\"bits\":4}}", "quantization_config"},
        {QWEN2, "{\"is_causal\":false}", "not causal"},
        {QWEN3, "{\"use_bidirectional_attention\":true}", "not causal"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        mr_model_config c = {.L = 77};
        print_message("%s\n", row[i].patch);
        assert_status(parse(row[i].base, row[i].patch, &c, &err), MR_UNSUPPORTED, &err);
        assert_contains(err.message, "config.json: ");
        assert_contains(err.message, row[i].message);
        assert_int_equal(c.L, 77);
    }
}

static void wrong_values_are_refused_and_say_what_was_expected(void **state)
{
    (void)state;
    static const struct {
        const char *base, *patch, *message;
    } row[] = {
        {LLAMA, "{\"model_type\":null}", "'model_type' is missing"},
        {LLAMA, "{\"model_type\":3}", "'model_type' is the number 3, expected a string"},
        {LLAMA, "{\"num_hidden_layers\":null}", "'num_hidden_layers' is missing"},
        {LLAMA, "{\"num_hidden_layers\":0}", "expected an integer from 1 to 512"},
        {LLAMA, "{\"num_hidden_layers\":513}", "expected an integer from 1 to 512"},
        {LLAMA, "{\"hidden_size\":65537}", "'hidden_size' is the number 65537"},
        {LLAMA, "{\"hidden_size\":-64}", "'hidden_size'"},
        {LLAMA, "{\"hidden_size\":\"64\"}", "'hidden_size' is the string \"64\""},
        {LLAMA, "{\"hidden_size\":64.5}", "'hidden_size'"},
        {LLAMA, "{\"intermediate_size\":9223372036854775807}", "'intermediate_size'"},
        {LLAMA, "{\"vocab_size\":4294967296}", "'vocab_size'"},
        {LLAMA, "{\"num_attention_heads\":2000}", "'num_attention_heads'"},
        {LLAMA, "{\"num_attention_heads\":7}",
         "hidden_size 64 is not a multiple of num_attention_heads 7 and there is no head_dim"},
        {LLAMA, "{\"num_key_value_heads\":5}",
         "num_attention_heads 32 is not a multiple of num_key_value_heads 5"},
        {QWEN2, "{\"num_attention_heads\":16}", "not a multiple of num_key_value_heads 32"},
        {LLAMA, "{\"head_dim\":7}", "the head size is 7, expected an even number"},
        {LLAMA, "{\"hidden_size\":32}", "the head size is 1, expected an even number"},
        {LLAMA, "{\"head_dim\":2048}", "'head_dim'"},
        {LLAMA, "{\"head_dim\":1024,\"num_attention_heads\":1024}", "1048576 rows, at most 262144"},
        {LLAMA, "{\"rms_norm_eps\":-1}", "'rms_norm_eps'"},
        {LLAMA, "{\"tie_word_embeddings\":\"yes\"}", "'tie_word_embeddings'"},
        {LLAMA, "{\"attention_bias\":1}", "'attention_bias'"},
        {LLAMA, "{\"rope_theta\":0}", "'rope_theta'"},
        {LLAMA, "{\"rope_scaling\":\"linear\"}", "'rope_scaling'"},
        {LLAMA, "{\"rope_scaling\":{\"type\":\"linear\"}}", "'factor' is missing"},
        {LLAMA, "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}", "'factor'"},
        {LLAMA, "{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}",
         "'low_freq_factor' is missing"},
        {LLAMA,
         "{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
         "\"high_freq_factor\":4}}",
         "high_freq_factor 4 must be above low_freq_factor 4"},
        {LLAMA, "{\"eos_token_id\":[\"a\"]}", "'eos_token_id' must be a token id"},
        {LLAMA, "{\"eos_token_id\":4294967296}", "'eos_token_id'"},
        {QWEN2, "{\"layer_types\":\"full_attention\"}", "'layer_types'"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        mr_model_config c = {.L = 77};
        print_message("%s\n", row[i].patch);
        assert_status(parse(row[i].base, row[i].patch, &c, &err), MR_INVALID, &err);
        assert_contains(err.message, "config.json: ");
        assert_contains(err.message, row[i].message);
        assert_int_equal(c.L, 77);
    }
    mr_error err = {0};
    mr_model_config c;
    json_t *list = json_array();
    assert_status(mr_model_config_parse(&c, "config.json", list, &err), MR_INVALID, &err);
    assert_contains(err.message, "expected an object");
    json_decref(list);
}

static void a_written_config_reads_back_the_same(void **state)
{
    (void)state;
    static const char *const bases[] = {LLAMA, QWEN2, QWEN3};
    static const char *const patches[] = {
        "{}",
        "{\"attention_bias\":true,\"mlp_bias\":true,\"tie_word_embeddings\":true}",
        "{\"rope_theta\":5e5,\"rope_scaling\":{\"rope_type\":\"llama3\"," LLAMA3 "}}",
        "{\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.5},\"rms_norm_eps\":1e-5}",
        "{\"num_key_value_heads\":4,\"head_dim\":6,\"bos_token_id\":1,\"eos_token_id\":[2,3]}",
    };
    for (size_t b = 0; b < sizeof bases / sizeof *bases; b++) {
        for (size_t p = 0; p < sizeof patches / sizeof *patches; p++) {
            mr_error err = {0};
            mr_model_config first, second;
            assert_status(parse(bases[b], patches[p], &first, &err), MR_OK, &err);
            json_t *root = mr_model_config_to_json(&first);
            assert_non_null(root);
            assert_status(mr_model_config_parse(&second, "again", root, &err), MR_OK, &err);
            json_decref(root);
            assert_int_equal(second.family, first.family);
            assert_int_equal(second.L, first.L);
            assert_int_equal(second.C, first.C);
            assert_int_equal(second.H, first.H);
            assert_int_equal(second.K, first.K);
            assert_int_equal(second.D, first.D);
            assert_int_equal(second.F, first.F);
            assert_int_equal(second.V, first.V);
            assert_int_equal(second.tied, first.tied);
            assert_int_equal(second.qkv_bias, first.qkv_bias);
            assert_int_equal(second.o_bias, first.o_bias);
            assert_int_equal(second.mlp_bias, first.mlp_bias);
            assert_int_equal(second.qk_norm, first.qk_norm);
            assert_true(second.rms_eps == first.rms_eps);
            assert_int_equal(second.max_positions, first.max_positions);
            assert_true(second.rope_theta == first.rope_theta);
            assert_int_equal(second.rope_type, first.rope_type);
            assert_true(second.rope_factor == first.rope_factor);
            assert_true(second.rope_low == first.rope_low);
            assert_true(second.rope_high == first.rope_high);
            assert_int_equal(second.rope_original_positions, first.rope_original_positions);
            assert_int_equal(second.bos_id, first.bos_id);
            assert_int_equal(second.eos_id, first.eos_id);
        }
    }
}

static void a_file_that_is_missing_or_cut_is_named(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    const char *path = test_path(folder, "config.json");
    mr_error err = {0};
    mr_model_config c;
    assert_status(mr_model_config_load(&c, path, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, path);
    for (size_t len = 0; len < sizeof LLAMA - 1; len++) {
        test_file_write(path, LLAMA, len);
        assert_status(mr_model_config_load(&c, path, &err), MR_CORRUPT, &err);
        assert_contains(err.message, path);
    }
    test_file_write(path, LLAMA, sizeof LLAMA - 1);
    assert_status(mr_model_config_load(&c, path, &err), MR_OK, &err);
    test_folder_free(folder);
}

/* inv_freq of LlamaRotaryEmbedding, transformers 5.23 with torch 2.15, as float32. */
static const double llama3_reference[32] = {1.0,
                                            0.663601279258728,
                                            0.44036662578582764,
                                            0.2922278344631195,
                                            0.193922758102417,
                                            0.12868738174438477,
                                            0.08539710193872452,
                                            0.05666961893439293,
                                            0.03760603070259094,
                                            0.02495540864765644,
                                            0.016560440883040428,
                                            0.010989529080688953,
                                            0.00729266507551074,
                                            0.00483942124992609,
                                            0.0032114461064338684,
                                            0.0012905480107292533,
                                            0.000429556705057621,
                                            9.708286233944818e-05,
                                            1.9461638657958247e-05,
                                            1.291476746700937e-05,
                                            8.570255886297673e-06,
                                            5.687232260243036e-06,
                                            3.7740544485131977e-06,
                                            2.504467147446121e-06,
                                            1.6619674170215148e-06,
                                            1.1028836297555245e-06,
                                            7.318749339901842e-07,
                                            4.856731266045244e-07,
                                            3.2229328894572973e-07,
                                            2.1387423032592778e-07,
                                            1.4192720243499934e-07,
                                            9.418306490260875e-08};
static const double linear_reference[10] = {
    0.3333333432674408,     0.13270239531993866,  0.05282977223396301,   0.021031908690929413,
    0.008372954092919827,   0.003333333181217313, 0.0013270234921947122, 0.0005282977945171297,
    0.00021031910728197545, 8.372956654056907e-05};

static void frequencies_are_those_of_transformers(void **state)
{
    (void)state;
    static const mr_model_config linear = {
        .D = 20, .rope_theta = 1e4, .rope_type = MR_ROPE_LINEAR, .rope_factor = 3};
    const struct {
        const mr_model_config *config;
        const double *reference;
    } row[] = {
        {&mr_untrained_find("llama-3.2-1b")->config, llama3_reference},
        {&linear, linear_reference},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        double inverse[64];
        mr_rope_frequencies(row[i].config, inverse);
        for (int k = 0; k < row[i].config->D / 2; k++) {
            /* One unit in the last place of a float: what two pow() may differ by. */
            const double off = fabs(inverse[k] / row[i].reference[k] - 1);
            if (!(off <= 1.2e-7))
                fail_msg("[%zu][%d] is %.17g, expected %.17g", i, k, inverse[k],
                         row[i].reference[k]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absent_keys_have_the_defaults_of_each_class),
        cmocka_unit_test(every_key_is_read),
        cmocka_unit_test(options_mean_what_they_mean_in_transformers),
        cmocka_unit_test(both_spellings_of_the_rotary_parameters_are_read),
        cmocka_unit_test(what_is_not_computed_is_refused_by_name),
        cmocka_unit_test(wrong_values_are_refused_and_say_what_was_expected),
        cmocka_unit_test(a_written_config_reads_back_the_same),
        cmocka_unit_test(a_file_that_is_missing_or_cut_is_named),
        cmocka_unit_test(frequencies_are_those_of_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
