/* test_image_encoder.c - pictures to a few tokens: what they are the mean of, that company changes
 * nothing, and what is refused.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "encoders/clip.h"
#include "encoders/image.h"
#include "encoders/image_encoder.h"
#include "tests/support.h"

/* patch 14 in 28 x 28: a grid of 2, width 32, three blocks */
#define TOWER  "data/clip/quick-gelu-patch14"
#define DIM    32
#define LAYERS 3

static mr_image_encoder *open_encoder(int tokens, int layer, size_t batch)
{
    mr_image_encoder *encoder = NULL;
    mr_error err = {0};
    const mr_image_encoder_options opt = {
        .tokens = tokens, .feature_layer = layer, .gemm = MR_GEMM_SCORING, .batch = batch};
    assert_status(mr_image_encoder_open(&encoder, TOWER, &opt, &err), MR_OK, &err);
    assert_int_equal(mr_image_encoder_dim(encoder), DIM);
    return encoder;
}

static mr_status put_file(mr_image_encoder *encoder, size_t slot, const char *path, mr_error *err)
{
    size_t len = 0;
    char *bytes = test_file_read(path, &len);
    mr_status status = mr_image_encoder_put(encoder, slot, path, (mr_bytes){bytes, len}, err);
    free(bytes);
    return status;
}

static void encode(mr_image_encoder *encoder, const char *const *paths, size_t n, float *out)
{
    mr_error err = {0};
    for (size_t i = 0; i < n; i++)
        assert_status(put_file(encoder, i, paths[i], &err), MR_OK, &err);
    assert_status(mr_image_encoder_run(encoder, n, out, &err), MR_OK, &err);
}

/* The tower by hand: decode, preprocess, features of the four patches. */
static void features_of(const char *path, int layer, float *out)
{
    mr_clip *clip = NULL;
    mr_image image = {0};
    mr_error err = {0};
    size_t len = 0;
    float pixels[3 * 28 * 28];
    char *bytes = test_file_read(path, &len);
    const mr_clip_options opt = {.gemm = MR_GEMM_SCORING};
    const mr_image_target target = mr_image_target_clip(28);
    const mr_clip_image_request request = {.feature_layer = layer, .features = out};
    assert_status(mr_clip_open(&clip, TOWER, &opt, &err), MR_OK, &err);
    assert_status(mr_image_decode(&image, path, (mr_bytes){bytes, len}, NULL, &err), MR_OK, &err);
    assert_status(mr_image_preprocess(&image, &target, pixels, &err), MR_OK, &err);
    assert_status(mr_clip_image(clip, pixels, 1, &request, &err), MR_OK, &err);
    mr_image_release(&image);
    mr_clip_close(clip);
    free(bytes);
}

static const char *const pictures[] = {"data/images/rgb-61x47.png", "data/images/rgba.png",
                                       "data/images/jpeg-photo-160x120.jpg",
                                       "data/images/bmp24-47x35.bmp", "data/images/rgb-1x1.png"};
#define PICTURES (sizeof pictures / sizeof *pictures)

static void a_token_for_each_patch_is_the_feature_itself(void **state)
{
    float want[4 * DIM], got[4 * DIM];
    (void)state;
    for (int layer = -2; layer < LAYERS; layer++) {
        mr_image_encoder *encoder = open_encoder(4, layer, 1);
        features_of(pictures[0], layer, want);
        encode(encoder, pictures, 1, got);
        assert_memory_equal(got, want, sizeof got);
        mr_image_encoder_close(encoder);
    }
}

static void one_token_is_the_mean_of_the_patches(void **state)
{
    float features[4 * DIM], want[DIM], got[DIM];
    (void)state;
    mr_image_encoder *encoder = open_encoder(1, -2, 1);
    features_of(pictures[0], -2, features);
    for (size_t c = 0; c < DIM; c++) {
        double sum = 0;
        for (size_t patch = 0; patch < 4; patch++)
            sum += (double)features[patch * DIM + c];
        want[c] = (float)(sum / 4);
    }
    encode(encoder, pictures, 1, got);
    assert_floats_near(got, want, DIM, 1e-6);
    mr_image_encoder_close(encoder);
}

static void a_picture_gives_the_same_bits_alone_and_in_company(void **state)
{
    float together[PICTURES * DIM], alone[DIM];
    (void)state;
    mr_image_encoder *many = open_encoder(1, -2, PICTURES), *one = open_encoder(1, -2, 0);
    encode(many, pictures, PICTURES, together);
    for (size_t i = 0; i < PICTURES; i++) {
        encode(one, pictures + i, 1, alone);
        assert_memory_equal(alone, together + i * DIM, sizeof alone);
    }
    mr_image_encoder_close(many);
    mr_image_encoder_close(one);
}

static void a_broken_picture_costs_its_neighbours_nothing(void **state)
{
    float want[DIM], got[DIM];
    mr_error err = {0};
    (void)state;
    mr_image_encoder *encoder = open_encoder(1, -2, 2);
    encode(encoder, pictures, 1, want);
    assert_status(put_file(encoder, 0, pictures[0], &err), MR_OK, &err);
    assert_status(
        mr_image_encoder_put(encoder, 1, "item 'x'", (mr_bytes){"\x89PNG\r\n\x1a\n", 8}, &err),
        MR_CORRUPT, &err);
    assert_contains(err.message, "item 'x'");
    assert_status(mr_image_encoder_run(encoder, 1, got, &err), MR_OK, &err);
    assert_memory_equal(got, want, sizeof got);
    assert_status(mr_image_encoder_run(encoder, 3, got, &err), MR_INVALID, &err);
    assert_contains(err.message, "3 pictures in one run, opened for 2");
    mr_image_encoder_close(encoder);
}

static void wrong_options_are_refused_by_name(void **state)
{
    static const struct {
        mr_image_encoder_options opt;
        const char *folder;
        mr_status status;
        const char *message;
    } cases[] = {
        {{.tokens = 2, .feature_layer = -1}, TOWER, MR_INVALID, "2 tokens of a picture, expected"},
        {{.tokens = 9, .feature_layer = -1}, TOWER, MR_INVALID, "the tower's grid of 2 x 2"},
        {{.tokens = 0, .feature_layer = -1}, TOWER, MR_INVALID, "0 tokens of a picture"},
        {{.tokens = 1, .feature_layer = 4},
         TOWER,
         MR_INVALID,
         "feature layer 4, but the tower has hidden states 0 to 3"},
        {{.tokens = 1, .feature_layer = -5}, TOWER, MR_INVALID, "feature layer -5"},
        {{.tokens = 1}, "data/mixed/llm", MR_UNSUPPORTED, "config.json"},
        {{.tokens = 1}, "data/nowhere", MR_NOT_FOUND, "data/nowhere"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mr_image_encoder *encoder = NULL;
        mr_error err = {0};
        assert_status(mr_image_encoder_open(&encoder, cases[i].folder, &cases[i].opt, &err),
                      cases[i].status, &err);
        assert_contains(err.message, cases[i].message);
        assert_null(encoder);
    }
}

/* transformers 5 keeps the image processor within processor_config.json. */
static void the_preprocessing_of_either_file_is_followed(void **state)
{
    static const char wanted[] = "{'do_resize': true, 'size': {'shortest_edge': 28}, "
                                 "'crop_size': {'height': 28, 'width': 28}, "
                                 "'image_mean': [0.1, 0.2, 0.3], 'image_std': [0.5, 0.5, 0.5]}";
    (void)state;
    char *folder = test_folder_new(), text[512];
    float vectors[3][DIM];
    for (int i = 0; i < 3; i++) {
        const char *path = test_path(folder, i == 0 ? "none" : i == 1 ? "own" : "part");
        mr_error err = {0};
        mr_image_encoder *encoder = NULL;
        const mr_image_encoder_options opt = {
            .tokens = 1, .feature_layer = -1, .gemm = MR_GEMM_SCORING};
        assert_status(mr_file_make_folders(path, &err), MR_OK, &err);
        assert_status(mr_file_copy(TOWER "/config.json", test_path(path, "config.json"), &err),
                      MR_OK, &err);
        assert_status(
            mr_file_copy(TOWER "/model.safetensors", test_path(path, "model.safetensors"), &err),
            MR_OK, &err);
        const int n =
            snprintf(text, sizeof text, i == 2 ? "{'image_processor': %s}" : "%s", wanted);
        for (int k = 0; k < n; k++)
            if (text[k] == '\'')
                text[k] = '"';
        if (i > 0)
            test_file_write(
                test_path(path, i == 1 ? "preprocessor_config.json" : "processor_config.json"),
                text, (size_t)n);
        assert_status(mr_image_encoder_open(&encoder, path, &opt, &err), MR_OK, &err);
        encode(encoder, pictures, 1, vectors[i]);
        mr_image_encoder_close(encoder);
    }
    assert_memory_equal(vectors[1], vectors[2], sizeof vectors[1]);
    assert_memory_not_equal(vectors[0], vectors[1], sizeof vectors[1]);
    test_folder_free(folder);
}

static void squares_have_a_side(void **state)
{
    static const int cases[][2] = {{1, 1},  {4, 2}, {9, 3}, {16, 4}, {576, 24},
                                   {-4, 0}, {0, 0}, {2, 0}, {15, 0}, {1 << 30, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(mr_image_encoder_side(cases[i][0]), cases[i][1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_for_each_patch_is_the_feature_itself),
        cmocka_unit_test(one_token_is_the_mean_of_the_patches),
        cmocka_unit_test(a_picture_gives_the_same_bits_alone_and_in_company),
        cmocka_unit_test(a_broken_picture_costs_its_neighbours_nothing),
        cmocka_unit_test(wrong_options_are_refused_by_name),
        cmocka_unit_test(the_preprocessing_of_either_file_is_followed),
        cmocka_unit_test(squares_have_a_side)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
