/* test_clip.c - the CLIP towers against transformers, and their numbers in any batch.
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
    };
    return cmocka_run_group_tests_name("clip", tests, NULL, NULL);
}
