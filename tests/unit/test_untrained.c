/* test_untrained.c - random models: the same bytes for a seed, the shapes of the known models.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "engine/model_layout.h"
#include "engine/untrained.h"
#include "tests/support.h"

static const mr_untrained_shape *tiny(void)
{
    const mr_untrained_shape *shape = mr_untrained_find("tiny");
    assert_non_null(shape);
    return shape;
}

static void write_tiny(const char *folder, mr_untrained_options opt, const mr_model_config *config)
{
    mr_error err = {0};
    assert_status(mr_untrained_write(folder, config, &opt, &err), MR_OK, &err);
}

static mr_safetensors *open_weights(const char *folder)
{
    mr_error err = {0};
    mr_safetensors *file = NULL;
    assert_status(mr_safetensors_open(&file, folder, &err), MR_OK, &err);
    return file;
}

static void a_seed_gives_the_same_bytes_and_another_gives_others(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    char hash[4][MR_SHA256_HEX];
    const uint64_t seeds[4] = {7, 7, 8, UINT64_MAX};
    for (int i = 0; i < 4; i++) {
        mr_error err = {0};
        mr_untrained_options opt = MR_UNTRAINED_OPTIONS_DEFAULT;
        opt.seed = seeds[i];
        write_tiny(folder, opt, &tiny()->config);
        assert_status(mr_hash_sha256_file(test_path(folder, "model.safetensors"), hash[i], &err),
                      MR_OK, &err);
    }
    assert_string_equal(hash[0], hash[1]);
    assert_string_not_equal(hash[0], hash[2]);
    assert_string_not_equal(hash[2], hash[3]);
    test_folder_free(folder);
}

/* The weights were recomputed with numpy and compared with what the safetensors library reads from
 * these three files: equal. */
static void the_bytes_of_a_seed_are_part_of_the_contract(void **state)
{
    (void)state;
    static const struct {
        mr_dtype dtype;
        const char *sha256;
    } row[] = {
        {MR_DTYPE_F32, "9db9bbd7c0072160fc5837dfcb6b2d61d0d6c93c1c1fe92682697706775f337c"},
        {MR_DTYPE_F16, "58f6fde093fed499bd89c00d46eace6e5180bfe020baa88d726b29c65cb07085"},
        {MR_DTYPE_BF16, "1a2813dbb801f7bd13801f6361adc9780680f82214f001fe472175e032518a98"},
    };
    char *folder = test_folder_new();
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        char hash[MR_SHA256_HEX];
        mr_untrained_options opt = MR_UNTRAINED_OPTIONS_DEFAULT;
        opt.dtype = row[i].dtype;
        write_tiny(folder, opt, &tiny()->config);
        assert_status(mr_hash_sha256_file(test_path(folder, "model.safetensors"), hash, &err),
                      MR_OK, &err);
        assert_string_equal(hash, row[i].sha256);
    }
    test_folder_free(folder);
}

static void weights_have_the_mean_and_deviation_asked_for(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    mr_untrained_options opt = {.seed = 3, .deviation = 0.5, .norm_deviation = 0.25};
    opt.dtype = MR_DTYPE_F32;
    write_tiny(folder, opt, &tiny()->config);
    mr_safetensors *file = open_weights(folder);

    const mr_tensor *table = mr_safetensors_find(file, "model.embed_tokens.weight");
    assert_non_null(table);
    const size_t n = table->bytes / sizeof(float);
    double sum = 0, squares = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        float v;
        memcpy(&v, (const char *)table->data + i * sizeof v, sizeof v);
        sum += (double)v;
        squares += (double)v * (double)v;
        most = fmax(most, fabs((double)v));
    }
    const double mean = sum / (double)n, deviation = sqrt(squares / (double)n - mean * mean);
    if (!(fabs(mean) < 0.01 && fabs(deviation - 0.5) < 0.01))
        fail_msg("mean %g, deviation %g over %zu values", mean, deviation, n);
    assert_true(most > 1.0 && most < 0.5 * 3.5);

    const mr_tensor *norm = mr_safetensors_find(file, "model.norm.weight");
    assert_non_null(norm);
    float first;
    memcpy(&first, norm->data, sizeof first);
    assert_true(first != 1 && fabsf(first - 1) < 1);
    mr_safetensors_close(file);

    opt.norm_deviation = 0;
    write_tiny(folder, opt, &tiny()->config);
    file = open_weights(folder);
    norm = mr_safetensors_find(file, "model.layers.1.self_attn.k_norm.weight");
    assert_non_null(norm);
    for (size_t i = 0; i < norm->bytes / sizeof(float); i++) {
        memcpy(&first, (const char *)norm->data + i * sizeof first, sizeof first);
        assert_true(first == 1);
    }
    mr_safetensors_close(file);
    test_folder_free(folder);
}

static void a_tensor_does_not_change_when_others_come(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    mr_model_config config = tiny()->config;
    const mr_untrained_options opt = MR_UNTRAINED_OPTIONS_DEFAULT;
    write_tiny(test_path(folder, "a"), opt, &config);
    config.tied = false;
    config.L = 3;
    config.V = 10;
    write_tiny(test_path(folder, "b"), opt, &config);
    mr_safetensors *a = open_weights(test_path(folder, "a"));
    mr_safetensors *b = open_weights(test_path(folder, "b"));
    const mr_tensor *x = mr_safetensors_find(a, "model.layers.1.mlp.up_proj.weight");
    const mr_tensor *y = mr_safetensors_find(b, "model.layers.1.mlp.up_proj.weight");
    assert_int_equal(x->bytes, y->bytes);
    assert_memory_equal(x->data, y->data, x->bytes);
    assert_null(mr_safetensors_find(a, "lm_head.weight"));
    assert_non_null(mr_safetensors_find(b, "lm_head.weight"));
    mr_safetensors_close(a);
    mr_safetensors_close(b);
    test_folder_free(folder);
}

static void the_file_says_that_it_is_untrained(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    mr_untrained_options opt = MR_UNTRAINED_OPTIONS_DEFAULT;
    opt.seed = 41;
    write_tiny(folder, opt, &tiny()->config);
    mr_safetensors *file = open_weights(folder);
    assert_string_equal(mr_safetensors_metadata(file, MR_UNTRAINED_KEY), "seed 41");
    mr_safetensors_close(file);
    test_folder_free(folder);
}

static void known_shapes_have_the_published_number_of_weights(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t weights;
    } row[] = {
        {"qwen3-0.6b", 596049920},
        {"qwen2.5-0.5b", 494032768},
        {"smollm2-135m", 134515008},
        {"llama-3.2-1b", 1235814400},
    };
    size_t n;
    const mr_untrained_shape *all = mr_untrained_shapes(&n);
    assert_int_equal(n, 1 + sizeof row / sizeof *row);
    assert_ptr_equal(mr_untrained_find(all[0].name), all);
    assert_null(mr_untrained_find("qwen3"));
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        mr_arena arena = {0};
        mr_tensor *tensors;
        const mr_untrained_shape *shape = mr_untrained_find(row[i].name);
        assert_non_null(shape);
        assert_status(mr_model_layout(&shape->config, shape->dtype, &arena, &tensors, &n, &err),
                      MR_OK, &err);
        uint64_t weights = 0;
        for (size_t t = 0; t < n; t++)
            weights += tensors[t].bytes / mr_dtype_size(shape->dtype);
        if (weights != row[i].weights)
            fail_msg("%s has %llu weights, expected %llu", row[i].name, (unsigned long long)weights,
                     (unsigned long long)row[i].weights);
        mr_arena_done(&arena);
    }
}

static void a_shape_survives_its_own_config_json(void **state)
{
    (void)state;
    size_t n;
    const mr_untrained_shape *all = mr_untrained_shapes(&n);
    for (size_t i = 0; i < n; i++) {
        mr_error err = {0};
        mr_model_config back;
        json_t *root = mr_model_config_to_json(&all[i].config);
        assert_non_null(root);
        assert_status(mr_model_config_parse(&back, all[i].name, root, &err), MR_OK, &err);
        json_decref(root);
        const mr_model_config *c = &all[i].config;
        assert_true(back.family == c->family && back.L == c->L && back.C == c->C &&
                    back.H == c->H && back.K == c->K && back.D == c->D && back.F == c->F &&
                    back.V == c->V && back.tied == c->tied && back.qkv_bias == c->qkv_bias &&
                    back.o_bias == c->o_bias && back.mlp_bias == c->mlp_bias &&
                    back.qk_norm == c->qk_norm && back.rms_eps == c->rms_eps &&
                    back.max_positions == c->max_positions && back.rope_theta == c->rope_theta &&
                    back.rope_type == c->rope_type && back.rope_factor == c->rope_factor &&
                    back.rope_low == c->rope_low && back.rope_high == c->rope_high &&
                    back.rope_original_positions == c->rope_original_positions &&
                    back.bos_id == c->bos_id && back.eos_id == c->eos_id);
    }
}

static void impossible_options_are_refused(void **state)
{
    (void)state;
    static const struct {
        mr_untrained_options opt;
        const char *message;
    } row[] = {
        {{.deviation = 0.02, .dtype = MR_DTYPE_I8}, "as I8; expected F32, F16 or BF16"},
        {{.deviation = -1, .dtype = MR_DTYPE_F32}, "deviation -1"},
        {{.deviation = 1e9, .dtype = MR_DTYPE_F32}, "expected 0 to 100"},
        {{.deviation = (double)NAN, .dtype = MR_DTYPE_F32}, "deviation nan"},
        {{.norm_deviation = -2, .dtype = MR_DTYPE_F32}, "and -2"},
    };
    char *folder = test_folder_new();
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        assert_status(mr_untrained_write(folder, &tiny()->config, &row[i].opt, &err), MR_INVALID,
                      &err);
        assert_contains(err.message, row[i].message);
    }
    mr_error err = {0};
    const mr_untrained_options opt = MR_UNTRAINED_OPTIONS_DEFAULT;
    test_file_write(test_path(folder, "file"), "x", 1);
    assert_status(mr_untrained_write(test_path(folder, "file"), &tiny()->config, &opt, &err),
                  MR_EXISTS, &err);
    test_folder_free(folder);
}

static void weights_are_cut_into_shards_that_open_as_one(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    mr_error err = {0};
    mr_arena arena = {0};
    mr_tensor *tensors;
    size_t n;
    mr_untrained_options opt = MR_UNTRAINED_OPTIONS_DEFAULT;
    opt.seed = 9;
    write_tiny(test_path(folder, "whole"), opt, &tiny()->config);
    assert_status(mr_model_layout(&tiny()->config, MR_DTYPE_F32, &arena, &tensors, &n, &err), MR_OK,
                  &err);
    /* The table of 256 KiB is alone in its shard, being larger than the limit. */
    assert_status(
        mr_untrained_write_tensors(test_path(folder, "cut"), tensors, n, 130 * 1024, &opt, &err),
        MR_OK, &err);
    char *index = test_file_read(test_path(folder, "cut/model.safetensors.index.json"), NULL);
    assert_contains(index, "\"model.embed_tokens.weight\": \"model-00001-of-00004.safetensors\"");
    assert_contains(index, "\"total_size\"");
    free(index);

    mr_safetensors *whole = open_weights(test_path(folder, "whole"));
    mr_safetensors *cut = open_weights(test_path(folder, "cut"));
    assert_int_equal(mr_safetensors_count(cut), n);
    for (size_t i = 0; i < n; i++) {
        const mr_tensor *a = mr_safetensors_find(whole, tensors[i].name);
        const mr_tensor *b = mr_safetensors_find(cut, tensors[i].name);
        assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->data, b->data, a->bytes);
    }
    assert_string_equal(mr_safetensors_metadata(cut, MR_UNTRAINED_KEY), "seed 9");
    mr_safetensors_close(whole);
    mr_safetensors_close(cut);
    mr_arena_done(&arena);
    test_folder_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seed_gives_the_same_bytes_and_another_gives_others),
        cmocka_unit_test(the_bytes_of_a_seed_are_part_of_the_contract),
        cmocka_unit_test(weights_have_the_mean_and_deviation_asked_for),
        cmocka_unit_test(a_tensor_does_not_change_when_others_come),
        cmocka_unit_test(the_file_says_that_it_is_untrained),
        cmocka_unit_test(known_shapes_have_the_published_number_of_weights),
        cmocka_unit_test(a_shape_survives_its_own_config_json),
        cmocka_unit_test(impossible_options_are_refused),
        cmocka_unit_test(weights_are_cut_into_shards_that_open_as_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
