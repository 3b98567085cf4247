/* test_clip_folders.c - folders that hold a CLIP in one way or another, and folders that do not.
 *
 * Each is a copy of data/clip/quick-gelu-patch14 in which one thing differs.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "encoders/llava_untrained.h"
#include "tests/support.h"
#include "tests/vision_support.h"

#define BOUND    1e-5
#define ORIGINAL "data/clip/quick-gelu-patch14"

static mr_clip *open_clip(const char *folder, const mr_clip_options *opt)
{
    mr_clip *clip = NULL;
    mr_error err = {0};
    assert_status(mr_clip_open(&clip, folder, opt, &err), MR_OK, &err);
    return clip;
}

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
        test_variant_write(folder, ORIGINAL, &variant);
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
        test_variant_write(folder, ORIGINAL, &row[i].variant);
        assert_status(mr_clip_open(&clip, folder, &opt, &err), row[i].status, &err);
        assert_contains(err.message, row[i].message);
        assert_null(clip);
        test_folder_free(folder);
    }
    mr_clip *clip = NULL;
    mr_error err = {0};
    const mr_clip_options many = {.max_images = 1025};
    assert_status(mr_clip_open(&clip, ORIGINAL, &many, &err), MR_INVALID, &err);
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
        test_variant_write(folder, ORIGINAL, &variant);
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
    test_variant_write(folder, ORIGINAL, &variant);
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

    clip = open_clip(ORIGINAL, &opt);
    assert_false(mr_clip_is_untrained(clip));
    mr_clip_close(clip);
    test_folder_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_prefix_of_the_vision_tower_is_found),
        cmocka_unit_test(a_folder_with_something_wrong_is_refused_by_name),
        cmocka_unit_test(what_a_tower_lacks_is_said_when_it_is_asked_for),
        cmocka_unit_test(configurations_may_be_short_or_old),
        cmocka_unit_test(a_random_pair_of_towers_opens_and_says_what_it_is),
    };
    return cmocka_run_group_tests_name("clip_folders", tests, NULL, NULL);
}
