/* test_clip.c - the CLIP towers against transformers, and folders that are no CLIP.
 *
 * Reference data: data/clip (data/README.md).
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/guard.h"
#include "core/rng.h"
#include "encoders/clip.h"
#include "encoders/llava_untrained.h"
#include "tests/support.h"
#include "tests/vision_support.h"

#define BOUND 1e-5

static const struct {
    const char *folder;
    bool has_text;
} cases[] = {
    {"data/clip/quick-gelu-patch14", true},
    {"data/clip/gelu-patch16", true},
    {"data/clip/f16-patch10", true},
    {"data/clip/vision-only", false},
};
#define N_CASES (sizeof cases / sizeof *cases)

static mr_clip *open_clip(const char *folder, const mr_clip_options *opt)
{
    mr_clip *clip = NULL;
    mr_error err = {0};
    assert_status(mr_clip_open(&clip, folder, opt, &err), MR_OK, &err);
    return clip;
}

static size_t positions(const mr_clip *clip)
{
    const size_t grid = (size_t)mr_clip_vision(clip)->grid;
    return grid * grid + 1;
}

/* Runs a check for every case, kernel set and back end. */
static void for_each_clip(void (*check)(mr_clip *clip, const mr_safetensors *reference))
{
    const mr_kernels *list[MR_KERNELS_MAX];
    const size_t n_kernels = mr_kernels_available(list);
    for (size_t i = 0; i < N_CASES; i++) {
        mr_safetensors *reference =
            test_reference_open(test_path(cases[i].folder, "reference.safetensors"));
        for (size_t k = 0; k < n_kernels; k++) {
            for (int gemm = 0; gemm < MR_GEMM_COUNT; gemm++) {
                const mr_clip_options opt = {.gemm = (mr_gemm_kind)gemm,
                                             .kernels = list[k],
                                             .max_images = 2,
                                             .text = cases[i].has_text};
                mr_clip *clip = open_clip(cases[i].folder, &opt);
                check(clip, reference);
                mr_clip_close(clip);
            }
        }
        mr_safetensors_close(reference);
    }
    const char *phase = NULL;
    if (mr_guard_violations(&phase) != 0)
        fail_msg("a tower allocated in phase '%s'", phase);
}

/* ---- Pictures -------------------------------------------------------------------------------- */

static float *state_of(const mr_safetensors *reference, const char *kind, int layer)
{
    char name[64];
    snprintf(name, sizeof name, "%s.hidden_states.%d", kind, layer);
    return test_reference_floats(reference, name, NULL);
}

static void check_hidden_states(mr_clip *clip, const mr_safetensors *reference)
{
    const mr_clip_vision_config *config = mr_clip_vision(clip);
    const size_t state = positions(clip) * (size_t)config->C;
    size_t n;
    float *pixels = test_reference_floats(reference, "pixel_values", &n);
    float *got = malloc((size_t)(config->L + 1) * state * sizeof *got);
    for (size_t picture = 0; picture < 2; picture++) {
        mr_error err = {0};
        assert_status(mr_clip_hidden_states(clip, pixels + picture * n / 2, got, &err), MR_OK,
                      &err);
        for (int layer = 0; layer <= config->L; layer++) {
            float *want = state_of(reference, "vision", layer);
            assert_floats_near(got + (size_t)layer * state, want + picture * state, state, BOUND);
            free(want);
        }
    }
    free(got);
    free(pixels);
}

static void every_hidden_state_of_a_picture_is_that_of_transformers(void **state)
{
    (void)state;
    for_each_clip(check_hidden_states);
}

static void check_outputs(mr_clip *clip, const mr_safetensors *reference)
{
    const mr_clip_vision_config *config = mr_clip_vision(clip);
    const size_t T = positions(clip), C = (size_t)config->C, P = (size_t)config->projection_dim;
    mr_error err = {0};
    float *pixels = test_reference_floats(reference, "pixel_values", NULL);
    float *features = malloc(2 * T * C * sizeof *features);
    float *pooled = malloc(2 * C * sizeof *pooled), *embeds = malloc((2 * P + 1) * sizeof *embeds);
    float *want_pooled = test_reference_floats(reference, "vision.pooled", NULL);

    for (int layer = -(config->L + 1); layer <= config->L; layer++) {
        float *want = state_of(reference, "vision", layer < 0 ? config->L + 1 + layer : layer);
        for (int keep_cls = 0; keep_cls < 2; keep_cls++) {
            const mr_clip_image_request request = {.feature_layer = layer,
                                                   .keep_cls = keep_cls != 0,
                                                   .features = features,
                                                   .pooled = keep_cls ? pooled : NULL};
            assert_status(mr_clip_image(clip, pixels, 2, &request, &err), MR_OK, &err);
            const size_t skip = keep_cls ? 0 : 1, rows = T - skip;
            for (size_t picture = 0; picture < 2; picture++)
                assert_floats_near(features + picture * rows * C, want + (picture * T + skip) * C,
                                   rows * C, BOUND);
        }
        assert_floats_near(pooled, want_pooled, 2 * C, BOUND);
        free(want);
    }
    if (P > 0) {
        float *want = test_reference_floats(reference, "image_embeds", NULL);
        const mr_clip_image_request request = {.embeds = embeds};
        assert_status(mr_clip_image(clip, pixels, 2, &request, &err), MR_OK, &err);
        assert_floats_near(embeds, want, 2 * P, BOUND);
        free(want);
    }
    free(want_pooled);
    free(embeds);
    free(pooled);
    free(features);
    free(pixels);
}

static void features_of_every_layer_and_embeddings_are_those_of_transformers(void **state)
{
    (void)state;
    for_each_clip(check_outputs);
}

static void a_picture_does_not_depend_on_its_batch_or_the_threads(void **state)
{
    enum { PICTURES = 5 };
    static const struct {
        size_t max_images;
        int threads;
    } row[] = {{1, 1}, {2, 1}, {5, 1}, {3, 2}, {8, 3}};
    const mr_kernels *list[MR_KERNELS_MAX];
    const size_t n_kernels = mr_kernels_available(list);
    (void)state;
    /* 82 positions: attention in two tiles, the second one short. */
    const mr_clip_vision_config shape = {.L = 2,
                                         .C = 24,
                                         .H = 3,
                                         .F = 44,
                                         .image_size = 36,
                                         .patch_size = 4,
                                         .grid = 9,
                                         .projection_dim = 9,
                                         .quick_gelu = true,
                                         .eps = 1e-5f};
    const size_t T = 9 * 9, C = 24, n_pixels = PICTURES * 3 * 36 * 36;
    char *folder = test_folder_new();
    mr_error err = {0};
    mr_untrained_options weights = MR_UNTRAINED_OPTIONS_DEFAULT;
    weights.deviation = 0.3;
    weights.norm_deviation = 0.2;
    assert_status(mr_clip_untrained_write(folder, &shape, NULL, &weights, &err), MR_OK, &err);

    mr_rng rng = mr_rng_seed(3);
    float *pixels = malloc(n_pixels * sizeof *pixels);
    for (size_t i = 0; i < n_pixels; i++)
        pixels[i] = (float)mr_rng_normal(&rng);
    for (size_t k = 0; k < n_kernels; k++) {
        float *features[2], *embeds[2];
        for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
            const size_t at = i > 0;
            mr_pool *pool = NULL;
            assert_status(mr_pool_new(&pool, row[i].threads, &err), MR_OK, &err);
            const mr_clip_options opt = {
                .kernels = list[k], .pool = pool, .max_images = row[i].max_images};
            mr_clip *clip = open_clip(folder, &opt);
            assert_true(mr_clip_is_untrained(clip));
            features[at] = malloc(PICTURES * T * C * sizeof(float));
            embeds[at] = malloc(PICTURES * 9 * sizeof(float));
            const mr_clip_image_request request = {
                .feature_layer = -2, .features = features[at], .embeds = embeds[at]};
            assert_status(mr_clip_image(clip, pixels, PICTURES, &request, &err), MR_OK, &err);
            if (at) {
                assert_memory_equal(features[1], features[0], PICTURES * T * C * sizeof(float));
                assert_memory_equal(embeds[1], embeds[0], PICTURES * 9 * sizeof(float));
                free(features[1]);
                free(embeds[1]);
            }
            mr_clip_close(clip);
            mr_pool_free(pool);
        }
        free(features[0]);
        free(embeds[0]);
    }
    free(pixels);
    test_folder_free(folder);
}

static void patches_are_pooled_over_cells_of_the_grid(void **state)
{
    (void)state;
    static const size_t row[][2] = {{24, 1}, {24, 2}, {24, 3}, {24, 4}, {5, 2}, {5, 4}, {3, 3}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        const size_t grid = row[i][0], side = row[i][1];
        float features[24 * 24][2], out[16][2], mean[2] = {0, 0};
        size_t seen = 0;
        for (size_t p = 0; p < grid * grid; p++) {
            features[p][0] = (float)(p / grid);
            features[p][1] = (float)(p % grid);
        }
        mr_clip_pool_grid(&features[0][0], grid, 2, side, &out[0][0]);
        for (size_t cell = 0; cell < side * side; cell++) {
            /* The mean of row and column numbers is the middle of the cell. */
            const size_t top = cell / side * grid / side;
            const size_t bottom = (cell / side + 1) * grid / side;
            const size_t left = cell % side * grid / side;
            const size_t right = (cell % side + 1) * grid / side;
            const double y = (double)(top + bottom - 1) / 2, x = (double)(left + right - 1) / 2;
            if (fabs((double)out[cell][0] - y) > 1e-5 || fabs((double)out[cell][1] - x) > 1e-5)
                fail_msg("grid %zu, side %zu, cell %zu: (%g, %g), expected (%g, %g)", grid, side,
                         cell, (double)out[cell][0], (double)out[cell][1], y, x);
            const size_t patches = (bottom - top) * (right - left);
            seen += patches;
            mean[0] += out[cell][0] * (float)patches;
            mean[1] += out[cell][1] * (float)patches;
        }
        assert_int_equal(seen, grid * grid); /* every patch in one cell */
        assert_true(fabsf(mean[0] / (float)seen - (float)(grid - 1) / 2) < 1e-3f);
        assert_true(fabsf(mean[1] / (float)seen - (float)(grid - 1) / 2) < 1e-3f);
    }
}

/* ---- Texts ----------------------------------------------------------------------------------- */

static size_t count_texts(const mr_safetensors *reference)
{
    for (size_t n = 0;; n++) {
        char name[64];
        snprintf(name, sizeof name, "text.%zu.input_ids", n);
        if (!mr_safetensors_find(reference, name))
            return n;
    }
}

static void check_texts(mr_clip *clip, const mr_safetensors *reference)
{
    const mr_clip_text_config *config = mr_clip_text(clip);
    if (!config)
        return;
    const size_t texts = count_texts(reference), C = (size_t)config->C;
    assert_true(texts >= 2);
    for (size_t i = 0; i < texts; i++) {
        char kind[32], name[64];
        size_t n;
        mr_error err = {0};
        snprintf(kind, sizeof kind, "text.%zu", i);
        snprintf(name, sizeof name, "%s.input_ids", kind);
        int32_t *ids = test_reference_ids(reference, name, &n);
        float *got = malloc((size_t)(config->L + 1) * n * C * sizeof *got);
        float *embeds = malloc((size_t)config->projection_dim * sizeof *embeds);
        assert_status(mr_clip_text_hidden_states(clip, ids, n, got, &err), MR_OK, &err);
        for (int layer = 0; layer <= config->L; layer++) {
            float *want = state_of(reference, kind, layer);
            assert_floats_near(got + (size_t)layer * n * C, want, n * C, BOUND);
            free(want);
        }
        snprintf(name, sizeof name, "%s.embeds", kind);
        float *want = test_reference_floats(reference, name, NULL);
        assert_status(mr_clip_text_embed(clip, ids, n, embeds, &err), MR_OK, &err);
        assert_floats_near(embeds, want, (size_t)config->projection_dim, BOUND);
        free(want);
        free(embeds);
        free(got);
        free(ids);
    }
}

static void hidden_states_and_embeddings_of_texts_are_those_of_transformers(void **state)
{
    (void)state;
    for_each_clip(check_texts);
}

static double cosine(const float *a, const float *b, size_t n)
{
    double dot = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) {
        dot += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return dot / sqrt(aa * bb);
}

static void check_similarity(mr_clip *clip, const mr_safetensors *reference)
{
    if (!mr_clip_text(clip))
        return;
    const size_t P = (size_t)mr_clip_vision(clip)->projection_dim, texts = count_texts(reference);
    mr_error err = {0};
    float *pixels = test_reference_floats(reference, "pixel_values", NULL);
    float *want = test_reference_floats(reference, "logits_per_image", NULL);
    float *images = malloc(2 * P * sizeof *images), *text = malloc(P * sizeof *text);
    float *got = malloc(2 * texts * sizeof *got);
    const mr_clip_image_request request = {.embeds = images};
    assert_status(mr_clip_image(clip, pixels, 2, &request, &err), MR_OK, &err);
    for (size_t t = 0; t < texts; t++) {
        char name[64];
        size_t n;
        snprintf(name, sizeof name, "text.%zu.input_ids", t);
        int32_t *ids = test_reference_ids(reference, name, &n);
        assert_status(mr_clip_text_embed(clip, ids, n, text, &err), MR_OK, &err);
        for (size_t i = 0; i < 2; i++)
            got[i * texts + t] = mr_clip_logit_scale(clip) * (float)cosine(images + i * P, text, P);
        free(ids);
    }
    assert_floats_near(got, want, 2 * texts, BOUND);
    free(got);
    free(text);
    free(images);
    free(want);
    free(pixels);
}

static void scaled_cosines_are_the_logits_of_transformers(void **state)
{
    (void)state;
    for_each_clip(check_similarity);
}

static void texts_that_cannot_be_pooled_are_refused(void **state)
{
    (void)state;
    static const struct {
        int32_t ids[21];
        size_t n;
        mr_status status;
        const char *message;
    } row[] = {
        {{5, 90}, 2, MR_OK, NULL},
        {{5, 6, 7}, 3, MR_INVALID, "no end token 90"},
        {{0}, 0, MR_INVALID, "no tokens"},
        {{5, -1, 90}, 3, MR_INVALID, "id -1 at position 1"},
        {{96, 90}, 2, MR_INVALID, "outside the vocabulary of 96"},
        {{90}, 21, MR_EXHAUSTED, "21 tokens; the model has max_position_embeddings 20"},
    };
    const mr_clip_options opt = {.text = true}, blind = {.text = false};
    mr_clip *clip = open_clip(cases[0].folder, &opt);
    float out[24];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        assert_status(mr_clip_text_embed(clip, row[i].ids, row[i].n, out, &err), row[i].status,
                      &err);
        if (row[i].message)
            assert_contains(err.message, row[i].message);
    }
    mr_clip_close(clip);

    clip = open_clip(cases[0].folder, &blind);
    mr_error err = {0};
    assert_null(mr_clip_text(clip));
    assert_status(mr_clip_text_embed(clip, row[0].ids, 2, out, &err), MR_INVALID, &err);
    assert_contains(err.message, "text tower was not opened");
    mr_clip_close(clip);
}

/* ---- Folders --------------------------------------------------------------------------------- */

static void every_prefix_of_the_vision_tower_is_found(void **state)
{
    (void)state;
    static const char *const prefixes[] = {"vision_model.",
                                           "vision_tower.vision_model.",
                                           "model.vision_tower.vision_model.",
                                           "model.vision_tower.",
                                           "vision_tower.",
                                           ""};
    float *pixels, *want = NULL;
    mr_safetensors *reference = test_reference_open("data/clip/quick-gelu-patch14/"
                                                    "reference.safetensors");
    pixels = test_reference_floats(reference, "pixel_values", NULL);
    want = test_reference_floats(reference, "vision.pooled", NULL);
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        char *folder = test_folder_new();
        float pooled[2 * 32];
        mr_error err = {0};
        const test_variant variant = {.prefix = "vision_model.", .new_prefix = prefixes[i]};
        test_variant_write(folder, cases[0].folder, &variant);
        const mr_clip_options opt = {.max_images = 2};
        mr_clip *clip = open_clip(folder, &opt);
        const mr_clip_image_request request = {.pooled = pooled};
        assert_status(mr_clip_image(clip, pixels, 2, &request, &err), MR_OK, &err);
        assert_floats_near(pooled, want, 2 * 32, BOUND);
        mr_clip_close(clip);
        test_folder_free(folder);
    }
    free(want);
    free(pixels);
    mr_safetensors_close(reference);
}

static void a_folder_with_something_wrong_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        test_variant variant;
        mr_status status;
        const char *message;
    } row[] = {
        {{.drop = "vision_model.embeddings.class_embedding"},
         MR_NOT_FOUND,
         "holds no CLIP vision tower"},
        {{.drop = "vision_model.encoder.layers.1.mlp.fc1.bias"},
         MR_NOT_FOUND,
         "'vision_model.encoder.layers.1.mlp.fc1.bias' is missing"},
        {{.drop = "vision_model.encoder.layers.2.layer_norm1.weight"},
         MR_NOT_FOUND,
         "is missing; config.json says num_hidden_layers 3"},
        {{.drop = "vision_model.pre_layrnorm.bias"},
         MR_NOT_FOUND,
         "'vision_model.pre_layrnorm.bias'"},
        {{.drop = "text_model.final_layer_norm.weight"},
         MR_NOT_FOUND,
         "'text_model.final_layer_norm.weight' is missing"},
        {{.drop = "text_projection.weight"}, MR_NOT_FOUND, "'text_projection.weight' is missing"},
        {{.transpose = "vision_model.encoder.layers.0.mlp.fc2.weight"},
         MR_MISMATCH,
         "is [64, 32], expected [32, 64]; config.json says hidden_size 32 and intermediate_size "
         "64"},
        {{.transpose = "vision_model.embeddings.patch_embedding.weight"},
         MR_MISMATCH,
         "is [14, 3, 14, 32], expected [32, 3, 14, 14]; config.json says hidden_size 32 and "
         "patch_size 14"},
        {{.transpose = "vision_model.embeddings.position_embedding.weight"},
         MR_MISMATCH,
         "expected [5, 32]; config.json says image_size 28 and patch_size 14"},
        {{.transpose = "text_model.embeddings.token_embedding.weight"},
         MR_MISMATCH,
         "expected [96, 32]; config.json says vocab_size 96"},
        {{.spoil = "vision_model.post_layernorm.weight"}, MR_CORRUPT, "holds nan at element 0"},
        {{.spoil = "vision_model.encoder.layers.0.self_attn.q_proj.bias"},
         MR_CORRUPT,
         "self_attn.q_proj.bias' holds nan"},
        {{.spoil = "logit_scale"}, MR_CORRUPT, "'logit_scale' is nan"},
        {{.add_from = "vision_model.post_layernorm.bias",
          .add_as = "vision_model.embeddings.patch_embedding.bias"},
         MR_MISMATCH,
         "CLIP has no such bias"},
        {{.add_from = "vision_model.post_layernorm.bias",
          .add_as = "vision_model.encoder.layers.3.layer_norm1.weight"},
         MR_MISMATCH,
         "is in the file; config.json says num_hidden_layers 3"},
        {{.config = "\"model_type\": \"clip\"", .config_other = "\"model_type\": \"siglip\""},
         MR_UNSUPPORTED,
         "model_type 'siglip' has no CLIP tower"},
        {{.config = "\"clip_vision_model\"", .config_other = "\"vit\""},
         MR_UNSUPPORTED,
         "'model_type' is vit"},
        {{.config = "\"quick_gelu\"", .config_other = "\"swish\""},
         MR_UNSUPPORTED,
         "'hidden_act' is swish, which is not computed; known are quick_gelu and gelu"},
        {{.config = "\"num_channels\": 3", .config_other = "\"num_channels\": 4"},
         MR_UNSUPPORTED,
         "'num_channels' is not 3"},
        {{.config = "\"patch_size\": 14", .config_other = "\"patch_size\": [14, 14]"},
         MR_UNSUPPORTED,
         "'patch_size' is a list"},
        {{.config = "\"patch_size\": 14", .config_other = "\"patch_size\": 29"},
         MR_INVALID,
         "image_size 28 in patches of 29"},
        {{.config = "\"image_size\": 28", .config_other = "\"image_size\": 4096, \"x\": 1"},
         MR_INVALID,
         "expected 1 to 128"},
        {{.config = "\"projection_dim\": 24", .config_other = "\"projection_dim\": 25"},
         MR_MISMATCH,
         "config.json says projection_dim 25"},
        {{.config = "\"model_type\": \"clip\"",
          .config_other = "\"model_type\": \"clip_vision_model\""},
         MR_NOT_FOUND,
         "has no text tower"},
    };
    const mr_clip_options opt = {.text = true};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char *folder = test_folder_new();
        mr_clip *clip = NULL;
        mr_error err = {0};
        test_variant_write(folder, cases[0].folder, &row[i].variant);
        assert_status(mr_clip_open(&clip, folder, &opt, &err), row[i].status, &err);
        assert_contains(err.message, row[i].message);
        assert_null(clip);
        test_folder_free(folder);
    }
    mr_clip *clip = NULL;
    mr_error err = {0};
    const mr_clip_options many = {.max_images = 1025};
    assert_status(mr_clip_open(&clip, cases[0].folder, &many, &err), MR_INVALID, &err);
    assert_contains(err.message, "1025 pictures; at most 1024");
}

static void what_a_tower_lacks_is_said_when_it_is_asked_for(void **state)
{
    (void)state;
    float pixels[3 * 28 * 28] = {0}, out[5 * 32];
    static const struct {
        const char *drop;
        mr_clip_image_request request; /* 1 in a pointer's place: wanted */
        bool features, embeds, pooled;
        mr_status status;
        const char *message;
    } row[] = {
        {"visual_projection.weight", {0}, false, true, false, MR_NOT_FOUND, "visual_projection"},
        {"visual_projection.weight", {0}, true, false, true, MR_OK, NULL},
        {"vision_model.post_layernorm.weight",
         {0},
         false,
         false,
         true,
         MR_NOT_FOUND,
         "no 'post_layernorm'"},
        {"vision_model.post_layernorm.weight",
         {.feature_layer = -2},
         true,
         false,
         false,
         MR_OK,
         NULL},
        {"logit_scale",
         {.feature_layer = 4},
         true,
         false,
         false,
         MR_INVALID,
         "feature layer 4; a tower of 3 blocks has hidden states 0 to 3, or -1 to -4"},
        {"logit_scale", {.feature_layer = -5}, true, false, false, MR_INVALID, "feature layer -5"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char *folder = test_folder_new();
        float pooled[32];
        mr_error err = {0};
        const test_variant variant = {.drop = row[i].drop};
        test_variant_write(folder, cases[0].folder, &variant);
        const mr_clip_options opt = {.max_images = 1};
        mr_clip *clip = open_clip(folder, &opt);
        assert_true(mr_clip_logit_scale(clip) == 0);
        mr_clip_image_request request = row[i].request;
        request.features = row[i].features ? out : NULL;
        request.embeds = row[i].embeds ? out : NULL;
        request.pooled = row[i].pooled ? pooled : NULL;
        assert_status(mr_clip_image(clip, pixels, 1, &request, &err), row[i].status, &err);
        if (row[i].message)
            assert_contains(err.message, row[i].message);
        mr_clip_close(clip);
        test_folder_free(folder);
    }
}

static void configurations_may_be_short_or_old(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_clip_vision_config vision;
    mr_clip_text_config text;
    assert_status(mr_clip_vision_config_parse(&vision, "none", NULL, &err), MR_OK, &err);
    assert_true(vision.L == 12 && vision.C == 768 && vision.H == 12 && vision.F == 3072 &&
                vision.image_size == 224 && vision.patch_size == 32 && vision.grid == 7 &&
                vision.projection_dim == 512 && vision.quick_gelu && vision.eps == 1e-5f);
    assert_status(mr_clip_text_config_parse(&text, "none", NULL, &err), MR_OK, &err);
    assert_true(text.L == 12 && text.C == 512 && text.H == 8 && text.F == 2048 && text.V == 49408 &&
                text.max_positions == 77 && text.projection_dim == 512 && text.eos_id == 49407);

    /* A LLaVA without a vision_config is ViT-L/14-336; with an empty one, the class's defaults. */
    json_t *root = json_pack("{s:{}}", "vision_config");
    assert_status(mr_clip_llava_vision_config(&vision, "empty", root, &err), MR_OK, &err);
    assert_int_equal(vision.C, 768);
    json_object_clear(root);
    assert_status(mr_clip_llava_vision_config(&vision, "absent", root, &err), MR_OK, &err);
    assert_true(vision.C == 1024 && vision.L == 24 && vision.grid == 24 && vision.H == 16);
    json_decref(root);

    /* First releases: what counts is in vision_config_dict. */
    char *folder = test_folder_new();
    const test_variant variant = {
        .config = "\"vision_config\"",
        .config_other = "\"vision_config\": {\"hidden_size\": 64}, \"vision_config_dict\""};
    test_variant_write(folder, cases[0].folder, &variant);
    const mr_clip_options opt = {.max_images = 1};
    mr_clip *clip = open_clip(folder, &opt);
    assert_int_equal(mr_clip_vision(clip)->C, 32);
    mr_clip_close(clip);
    test_folder_free(folder);
}

static void a_random_pair_of_towers_opens_and_says_what_it_is(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    mr_error err = {0};
    const mr_clip_vision_config vision = {.L = 1,
                                          .C = 12,
                                          .H = 2,
                                          .F = 20,
                                          .image_size = 8,
                                          .patch_size = 4,
                                          .grid = 2,
                                          .projection_dim = 6,
                                          .eps = 1e-5f};
    const mr_clip_text_config text = {.L = 1,
                                      .C = 8,
                                      .H = 2,
                                      .F = 12,
                                      .V = 30,
                                      .max_positions = 9,
                                      .projection_dim = 6,
                                      .quick_gelu = true,
                                      .eps = 1e-5f,
                                      .eos_id = 29};
    mr_untrained_options weights = MR_UNTRAINED_OPTIONS_DEFAULT;
    weights.dtype = MR_DTYPE_F16;
    assert_status(mr_clip_untrained_write(folder, &vision, &text, &weights, &err), MR_OK, &err);
    const mr_clip_options opt = {.text = true};
    mr_clip *clip = open_clip(folder, &opt);
    assert_true(mr_clip_is_untrained(clip));
    assert_false(mr_clip_vision(clip)->quick_gelu);
    assert_true(mr_clip_text(clip)->quick_gelu);
    assert_int_equal(mr_clip_text(clip)->eos_id, 29);
    assert_true(mr_clip_bytes(clip) > 8 * 5 * 12 * sizeof(float));
    mr_clip_close(clip);

    clip = open_clip(cases[0].folder, &opt);
    assert_false(mr_clip_is_untrained(clip));
    mr_clip_close(clip);
    test_folder_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_hidden_state_of_a_picture_is_that_of_transformers),
        cmocka_unit_test(features_of_every_layer_and_embeddings_are_those_of_transformers),
        cmocka_unit_test(a_picture_does_not_depend_on_its_batch_or_the_threads),
        cmocka_unit_test(patches_are_pooled_over_cells_of_the_grid),
        cmocka_unit_test(hidden_states_and_embeddings_of_texts_are_those_of_transformers),
        cmocka_unit_test(scaled_cosines_are_the_logits_of_transformers),
        cmocka_unit_test(texts_that_cannot_be_pooled_are_refused),
        cmocka_unit_test(every_prefix_of_the_vision_tower_is_found),
        cmocka_unit_test(a_folder_with_something_wrong_is_refused_by_name),
        cmocka_unit_test(what_a_tower_lacks_is_said_when_it_is_asked_for),
        cmocka_unit_test(configurations_may_be_short_or_old),
        cmocka_unit_test(a_random_pair_of_towers_opens_and_says_what_it_is),
    };
    return cmocka_run_group_tests_name("clip", tests, NULL, NULL);
}
