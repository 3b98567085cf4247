/* engine_support.c - see engine_support.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "engine/untrained.h"
#include "tests/engine_support.h"
#include "tests/support.h"

/* clang-format off */
#define COMMON .rope_theta = 1e4, .rope_factor = 1, .rope_low = 1, .rope_high = 1, \
               .max_positions = 512, .bos_id = -1, .eos_id = -1
const test_shape test_shapes[] = {
    {"llama, as many kv heads as heads, untied",
     {.family = MR_FAMILY_LLAMA, .L = 2, .C = 36, .H = 3, .K = 3, .D = 12, .F = 52, .V = 131,
      .rms_eps = 1e-5f, COMMON}, MR_DTYPE_F32},
    {"llama with every bias, one kv head, bf16",
     {.family = MR_FAMILY_LLAMA, .L = 2, .C = 40, .H = 5, .K = 1, .D = 8, .F = 100, .V = 99,
      .qkv_bias = true, .o_bias = true, .mlp_bias = true, .tied = true, .rms_eps = 1e-5f, COMMON},
     MR_DTYPE_BF16},
    {"llama3 rope, f16",
     {.family = MR_FAMILY_LLAMA, .L = 3, .C = 24, .H = 4, .K = 2, .D = 6, .F = 44, .V = 70,
      .tied = true, .rms_eps = 1e-5f, .rope_theta = 5e5, .rope_type = MR_ROPE_LLAMA3,
      .rope_factor = 8, .rope_low = 1, .rope_high = 4, .rope_original_positions = 64,
      .max_positions = 512, .bos_id = -1, .eos_id = -1}, MR_DTYPE_F16},
    {"qwen2",
     {.family = MR_FAMILY_QWEN2, .L = 2, .C = 28, .H = 7, .K = 1, .D = 4, .F = 68, .V = 120,
      .qkv_bias = true, .tied = true, .rms_eps = 1e-6f, COMMON}, MR_DTYPE_F32},
    {"qwen3, head size apart from the width, bf16",
     {.family = MR_FAMILY_QWEN3, .L = 3, .C = 48, .H = 6, .K = 2, .D = 20, .F = 100, .V = 150,
      .qk_norm = true, .tied = true, .rms_eps = 1e-6f, COMMON}, MR_DTYPE_BF16},
    {"qwen3, sizes that vectors divide, untied",
     {.family = MR_FAMILY_QWEN3, .L = 2, .C = 64, .H = 4, .K = 2, .D = 32, .F = 96, .V = 160,
      .qk_norm = true, .rms_eps = 1e-6f, COMMON}, MR_DTYPE_F32},
};
/* clang-format on */
const size_t test_n_shapes = sizeof test_shapes / sizeof *test_shapes;

void test_model_write(const char *folder, const test_shape *shape)
{
    mr_error err = {0};
    mr_untrained_options opt = MR_UNTRAINED_OPTIONS_DEFAULT;
    opt.seed = 7;
    opt.deviation = 0.25;
    opt.norm_deviation = 0.2;
    opt.dtype = shape->dtype;
    assert_status(mr_untrained_write(folder, &shape->config, &opt, &err), MR_OK, &err);
}

mr_model *test_model_open(const char *folder, mr_gemm_kind gemm, const mr_kernels *kernels)
{
    mr_model *model = NULL;
    mr_error err = {0};
    const mr_model_options opt = {.gemm = gemm, .kernels = kernels};
    assert_status(mr_model_open(&model, folder, &opt, &err), MR_OK, &err);
    return model;
}

mr_input test_input_new(mr_rng *rng, const mr_model *model, size_t n, size_t slot)
{
    const size_t C = (size_t)model->config.C;
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    float *embeds = malloc((n + 1) * C * sizeof *embeds);
    mr_input input = {.ids = ids, .n = n, .embeds = embeds};
    assert_true(ids && embeds);
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)mr_rng_below(rng, (uint64_t)model->config.V);
        if (slot && i % slot == 0) {
            ids[i] = MR_ID_EMBED;
            for (size_t c = 0; c < C; c++)
                embeds[input.n_embeds * C + c] = (float)(0.3 * mr_rng_normal(rng));
            input.n_embeds++;
        }
    }
    return input;
}

void test_input_free(mr_input *input)
{
    free((void *)input->ids);
    free((void *)input->embeds);
    *input = (mr_input){0};
}

mr_input test_input_join(const mr_model *model, const mr_input *a, const mr_input *b)
{
    const size_t C = (size_t)model->config.C;
    int32_t *ids = malloc((a->n + b->n + 1) * sizeof *ids);
    float *embeds = malloc((a->n_embeds + b->n_embeds + 1) * C * sizeof *embeds);
    assert_true(ids && embeds);
    memcpy(ids, a->ids, a->n * sizeof *ids);
    memcpy(ids + a->n, b->ids, b->n * sizeof *ids);
    memcpy(embeds, a->embeds, a->n_embeds * C * sizeof *embeds);
    memcpy(embeds + a->n_embeds * C, b->embeds, b->n_embeds * C * sizeof *embeds);
    return (mr_input){ids, a->n + b->n, embeds, a->n_embeds + b->n_embeds};
}

void test_assert_same_bits(const char *what, const float *got, const float *want, size_t rows,
                           size_t width)
{
    for (size_t i = 0; i < rows * width; i++) {
        uint32_t got_bits, want_bits;
        memcpy(&got_bits, &got[i], sizeof got_bits);
        memcpy(&want_bits, &want[i], sizeof want_bits);
        if (got_bits != want_bits) {
            print_error("%s: row %zu, component %zu: %.9g, expected the bits of %.9g\n", what,
                        i / width, i % width, (double)got[i], (double)want[i]);
            fail();
        }
    }
}

mr_session *test_session_new(const mr_model *model, size_t max_prefix, size_t max_rows,
                             size_t max_suffix, mr_pool *pool)
{
    mr_session *session = NULL;
    mr_error err = {0};
    const mr_session_options opt = {
        .max_prefix = max_prefix, .max_rows = max_rows, .max_suffix = max_suffix, .pool = pool};
    assert_status(mr_session_new(&session, model, &opt, &err), MR_OK, &err);
    return session;
}
