/* test_user_encoder.c - histories to tokens as PyTorch computes them, the same bits in any company,
 * and folders with one thing wrong.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "core/rng.h"
#include "encoders/user_encoder.h"
#include "engine/untrained.h"
#include "tests/support.h"
#include "tests/vision_support.h"

#define BOUND    1e-5
#define ORIGINAL "data/training/user"
#define SEQUENCE "data/training/user-sequence"
#define USERS    3

static const char *const folders[] = {ORIGINAL, SEQUENCE};
static const char *const references[] = {"data/training/reference-user.safetensors",
                                         "data/training/reference-user-sequence.safetensors"};

static mr_user_encoder *open_encoder(const char *folder, const mr_user_encoder_options *opt)
{
    mr_user_encoder *encoder = NULL;
    mr_error err = {0};
    assert_status(mr_user_encoder_open(&encoder, folder, opt, &err), MR_OK, &err);
    return encoder;
}

static void tokens_are_what_pytorch_computes_with_every_set_of_kernels(void **state)
{
    (void)state;
    const mr_kernels *sets[MR_KERNELS_MAX];
    const size_t n_sets = mr_kernels_available(sets);
    for (size_t i = 0; i < 2; i++) {
        mr_safetensors *file = test_reference_open(references[i]);
        float *items = test_reference_floats(file, "input", NULL);
        float *want = test_reference_floats(file, "output", NULL);
        size_t n_rows = 0;
        int32_t *rows = test_reference_ids(file, "rows", &n_rows);
        assert_int_equal(n_rows, USERS);
        for (size_t s = 0; s < n_sets; s++) {
            const mr_user_encoder_options opt = {.kernels = sets[s]};
            mr_user_encoder *encoder = open_encoder(folders[i], &opt);
            const mr_user_config *c = mr_user_encoder_config(encoder);
            const size_t width = c->latents * c->C;
            float *out = calloc(width, sizeof *out);
            const float *from = items;
            for (size_t u = 0; u < USERS; u++) {
                mr_error err = {0};
                assert_status(mr_user_encoder_run(encoder, from, (size_t)rows[u], out, &err), MR_OK,
                              &err);
                assert_floats_near(out, want + u * width, width, BOUND);
                from += (size_t)rows[u] * c->item_dim;
            }
            assert_false(mr_user_encoder_is_untrained(encoder));
            assert_true(mr_user_encoder_bytes(encoder) > 0);
            free(out);
            mr_user_encoder_close(encoder);
        }
        free(items);
        free(want);
        free(rows);
        mr_safetensors_close(file);
    }
    const char *phase = NULL;
    if (mr_guard_violations(&phase) != 0)
        fail_msg("%zu allocations during '%s'", mr_guard_violations(NULL), phase);
}

static void a_user_has_the_same_bits_with_any_pool_and_after_any_other(void **state)
{
    (void)state;
    mr_safetensors *file = test_reference_open(references[0]);
    float *items = test_reference_floats(file, "input", NULL);
    float first[3 * 32], again[3 * 32];
    mr_error err = {0};
    mr_pool *pool = NULL;
    assert_status(mr_pool_new(&pool, 3, &err), MR_OK, &err);
    const mr_user_encoder_options with_pool = {.pool = pool};
    mr_user_encoder *alone = open_encoder(ORIGINAL, NULL);
    mr_user_encoder *spread = open_encoder(ORIGINAL, &with_pool);
    assert_status(mr_user_encoder_run(alone, items, 5, first, &err), MR_OK, &err);
    for (size_t n = 1; n <= 8; n++) {
        assert_status(mr_user_encoder_run(spread, items + 32, n, again, &err), MR_OK, &err);
        assert_status(mr_user_encoder_run(spread, items, 5, again, &err), MR_OK, &err);
        assert_memory_equal(again, first, sizeof first);
    }
    mr_user_encoder_close(alone);
    mr_user_encoder_close(spread);
    mr_pool_free(pool);
    free(items);
    mr_safetensors_close(file);
}

static void a_history_that_cannot_be_is_refused(void **state)
{
    (void)state;
    mr_user_encoder *encoder = open_encoder(ORIGINAL, NULL);
    float items[9 * 32] = {0}, out[3 * 32];
    mr_error err = {0};
    assert_status(mr_user_encoder_run(encoder, items, 0, out, &err), MR_INVALID, &err);
    assert_contains(err.message, "a history of 0 vectors; this user encoder takes 1 to 8");
    assert_status(mr_user_encoder_run(encoder, items, 9, out, &err), MR_INVALID, &err);
    items[2 * 32 + 7] = NAN;
    assert_status(mr_user_encoder_run(encoder, items, 2, out, &err), MR_OK, &err);
    assert_status(mr_user_encoder_run(encoder, items, 3, out, &err), MR_INVALID, &err);
    assert_contains(err.message, "history vector 2 is nan in column 7");
    for (size_t i = 0; i < 32; i++)
        items[2 * 32 + i] = i % 2 ? 3e38f : -3e38f; /* finite, but no sum of them is */
    assert_status(mr_user_encoder_run(encoder, items, 3, out, &err), MR_INVALID, &err);
    assert_contains(err.message, "embedding token 0 is");
    mr_user_encoder_close(encoder);
}

/* ---- Damage ---------------------------------------------------------------------------------- */

static void a_folder_with_one_thing_wrong_is_one_clear_error(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        test_variant variant;
        mr_status status;
        const char *message;
    } row[] = {
        {"another model",
         {.config = "mixrank_user", .config_other = "llama"},
         MR_UNSUPPORTED,
         "'model_type' is 'llama', expected 'mixrank_user'"},
        {"an unknown key",
         {.config = "\"num_latents\"", .config_other = "\"num_latent\""},
         MR_INVALID,
         "num_latent"},
        {"a key too many",
         {.config = "\"num_latents\"", .config_other = "\"x\": 1, \"num_latents\""},
         MR_INVALID,
         "'x'"},
        {"no width",
         {.config = "\"hidden_size\": 32,", .config_other = ""},
         MR_INVALID,
         "'hidden_size' is missing"},
        {"no latents",
         {.config = "\"num_latents\": 3", .config_other = "\"num_latents\": 0"},
         MR_INVALID,
         "'num_latents' is"},
        {"too long a history",
         {.config = "\"max_history\": 8", .config_other = "\"max_history\": 1025"},
         MR_INVALID,
         "'max_history' is"},
        {"positions nobody knows",
         {.config = "\"none\"", .config_other = "\"rotary\""},
         MR_UNSUPPORTED,
         "'position_embedding' is 'rotary'; known are none"},
        {"kv heads that do not divide",
         {.config = "\"num_key_value_heads\": 2", .config_other = "\"num_key_value_heads\": 3"},
         MR_INVALID,
         "'num_attention_heads' 4 is not a multiple of 'num_key_value_heads' 3"},
        {"heads without a size",
         {.config = "\"num_attention_heads\": 4,\n  \"num_key_value_heads\": 2,\n  \"head_dim\": 6",
          .config_other = "\"num_attention_heads\": 5"},
         MR_INVALID,
         "set 'head_dim'"},
        {"a list for a number",
         {.config = "\"head_dim\": 6", .config_other = "\"head_dim\": [6]"},
         MR_INVALID,
         "'head_dim' is"},
        {"a larger head",
         {.config = "\"head_dim\": 6", .config_other = "\"head_dim\": 7"},
         MR_MISMATCH,
         "is [24, 32], expected [28, 32]"},
        {"another width of items",
         {.config = "\"item_dim\": 32", .config_other = "\"item_dim\": 31"},
         MR_MISMATCH,
         "'input_proj.weight' is [32, 32], expected [32, 31]"},
        {"a block more",
         {.config = "\"num_hidden_layers\": 1", .config_other = "\"num_hidden_layers\": 2"},
         MR_NOT_FOUND,
         "'layers.1.input_layernorm.weight' is missing"},
        {"a block less",
         {.config = "\"num_hidden_layers\": 1", .config_other = "\"num_hidden_layers\": 0"},
         MR_UNSUPPORTED,
         "tensor 'layers.0.input_layernorm.weight' has no place"},
        {"a look less",
         {.config = "\"num_cross_layers\": 2", .config_other = "\"num_cross_layers\": 1"},
         MR_UNSUPPORTED,
         "tensor 'cross_layers.1.context_layernorm.weight' has no place"},
        {"positions without a table",
         {.config = "\"none\"", .config_other = "\"learned\""},
         MR_NOT_FOUND,
         "'position_embedding.weight' is missing"},
        {"a table without positions",
         {.add_from = "latents.weight", .add_as = "position_embedding.weight"},
         MR_UNSUPPORTED,
         "'position_embedding.weight' has no place"},
        {"a bias",
         {.add_from = "norm.weight", .add_as = "layers.0.self_attn.q_proj.bias"},
         MR_UNSUPPORTED,
         "'layers.0.self_attn.q_proj.bias' has no place"},
        {"no latents in the file",
         {.drop = "latents.weight"},
         MR_NOT_FOUND,
         "'latents.weight' is missing"},
        {"no bias of the input",
         {.drop = "input_proj.bias"},
         MR_NOT_FOUND,
         "'input_proj.bias' is missing"},
        {"no norm of the context",
         {.drop = "cross_layers.1.context_layernorm.weight"},
         MR_NOT_FOUND,
         "'cross_layers.1.context_layernorm.weight' is missing"},
        {"a matrix turned round",
         {.transpose = "layers.0.mlp.down_proj.weight"},
         MR_MISMATCH,
         "is [20, 32], expected [32, 20]"},
        {"NaN in a matrix",
         {.spoil = "cross_layers.0.cross_attn.k_proj.weight"},
         MR_CORRUPT,
         "'cross_layers.0.cross_attn.k_proj.weight' holds nan at element 0"},
        {"NaN in a latent",
         {.spoil = "latents.weight"},
         MR_CORRUPT,
         "'latents.weight' holds nan at element 0"},
        {"NaN in a gain", {.spoil = "norm.weight"}, MR_CORRUPT, "'norm.weight' holds nan"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char *folder = test_folder_new();
        mr_user_encoder *encoder = NULL;
        mr_error err = {0};
        test_variant_write(folder, ORIGINAL, &row[i].variant);
        const mr_status status = mr_user_encoder_open(&encoder, folder, NULL, &err);
        if (status != row[i].status || !strstr(err.message, row[i].message))
            fail_msg("%s: gave %s '%s', expected %s '%s'", row[i].what, mr_status_name(status),
                     err.message, mr_status_name(row[i].status), row[i].message);
        assert_null(encoder);
        test_folder_free(folder);
    }
}

/* Every tensor counts: a file without it does not open. */
static void no_tensor_is_optional(void **state)
{
    (void)state;
    mr_safetensors *file = test_reference_open("data/training/user/model.safetensors");
    const size_t n = mr_safetensors_count(file);
    assert_int_equal(n, 4 + 9 + 2 * 10);
    for (size_t i = 0; i < n; i++) {
        char *folder = test_folder_new();
        mr_user_encoder *encoder = NULL;
        mr_error err = {0};
        const test_variant variant = {.drop = mr_safetensors_at(file, i)->name};
        test_variant_write(folder, ORIGINAL, &variant);
        assert_status(mr_user_encoder_open(&encoder, folder, NULL, &err), MR_NOT_FOUND, &err);
        assert_contains(err.message, variant.drop);
        test_folder_free(folder);
    }
    mr_safetensors_close(file);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    size_t len, config_len;
    char *weights = test_file_read("data/training/user-sequence/model.safetensors", &len);
    char *config = test_file_read("data/training/user-sequence/config.json", &config_len);
    mr_error err = {0};
    mr_user_encoder *encoder = NULL;
    test_file_write(test_path(folder, "config.json"), config, config_len);
    for (size_t cut = 0; cut < len; cut += cut < 4000 ? 97 : 1009) {
        test_file_write(test_path(folder, "model.safetensors"), weights, cut);
        assert_int_not_equal(mr_user_encoder_open(&encoder, folder, NULL, &err), MR_OK);
    }
    test_file_write(test_path(folder, "model.safetensors"), weights, len);
    for (size_t cut = 0; cut + 2 < config_len; cut++) {
        test_file_write(test_path(folder, "config.json"), config, cut);
        assert_int_not_equal(mr_user_encoder_open(&encoder, folder, NULL, &err), MR_OK);
    }
    free(config);
    free(weights);
    test_folder_free(folder);
}

static void a_config_is_read_as_it_was_written(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    const char *path = test_path(folder, "config.json");
    mr_error err = {0};
    mr_user_config read;
    const mr_user_config config = {.item_dim = 192,
                                   .C = 96,
                                   .H = 6,
                                   .K = 2,
                                   .D = 32,
                                   .F = 256,
                                   .layers = 0,
                                   .cross_layers = 2,
                                   .latents = 4,
                                   .max_history = 64,
                                   .positions = MR_USER_POSITIONS_LEARNED,
                                   .eps = 1e-6f};
    assert_status(mr_user_config_save(&config, path, &err), MR_OK, &err);
    assert_status(mr_user_config_load(&read, path, &err), MR_OK, &err);
    assert_memory_equal(&read, &config, sizeof read);
    mr_user_config wrong = config;
    wrong.K = 4;
    assert_status(mr_user_config_save(&wrong, path, &err), MR_INVALID, &err);
    assert_contains(err.message, "not a multiple of 'num_key_value_heads' 4");
    assert_status(mr_user_config_load(&read, path, &err), MR_OK, &err);
    test_folder_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_what_pytorch_computes_with_every_set_of_kernels),
        cmocka_unit_test(a_user_has_the_same_bits_with_any_pool_and_after_any_other),
        cmocka_unit_test(a_history_that_cannot_be_is_refused),
        cmocka_unit_test(a_folder_with_one_thing_wrong_is_one_clear_error),
        cmocka_unit_test(no_tensor_is_optional),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(a_config_is_read_as_it_was_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
