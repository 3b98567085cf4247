/* test_llava_refused.c - requests and folders that LLaVA refuses, and what it says.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "tests/unit/llava_fixture.h"
#include "tests/vision_support.h"

static void requests_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    json_t *examples = open_examples(cases[0]);
    example e = example_of(examples, 1);
    const mr_llava_image cut = {"half.png", {e.images[0].bytes.data, e.images[0].bytes.len / 2}};
    const struct {
        mr_llava_request request;
        mr_status status;
        const char *message;
    } row[] = {
        {{.prompt = mr_str_of("<image> and <image>?"),
          .raw_prompt = true,
          .images = e.images,
          .n_images = 1,
          .max_tokens = 4,
          .top_p = 1},
         MR_MISMATCH,
         "the prompt has 2 '<image>' markers and there is 1 picture"},
        {{.prompt = mr_str_of("nothing to see"),
          .raw_prompt = true,
          .images = e.images,
          .n_images = 2,
          .max_tokens = 4,
          .top_p = 1},
         MR_MISMATCH,
         "the prompt has 0 '<image>' markers and there are 2 pictures"},
        {{.prompt = mr_str_of("what is <image>?"),
          .images = e.images,
          .n_images = 1,
          .max_tokens = 4,
          .top_p = 1},
         MR_MISMATCH,
         "has 2 '<image>' markers"},
        {{.prompt = mr_str_of("why?"), .max_tokens = 60, .top_p = 1},
         MR_EXHAUSTED,
         "an answer of 60 tokens do not fit the 64 positions"},
        {{.prompt = mr_str_of("why?"),
          .images = e.images,
          .n_images = 2,
          .max_tokens = 1000,
          .top_p = 1},
         MR_EXHAUSTED,
         "(8 of pictures) and an answer of 1000 tokens"},
        {{.prompt = mr_str_of("why?"), .max_tokens = 0, .top_p = 1}, MR_INVALID, "max_tokens 0"},
        {{.prompt = mr_str_of("why?"), .max_tokens = 1, .top_p = 2}, MR_INVALID, "top_p is 2"},
        {{.prompt = mr_str_of("why?"), .max_tokens = 1, .temperature = -1, .top_p = 1},
         MR_INVALID,
         "temperature is -1"},
        {{.prompt = mr_str_of("a \xff"), .max_tokens = 1, .top_p = 1}, MR_INVALID, "UTF-8"},
        {{.prompt = mr_str_of("why?"), .images = &cut, .n_images = 1, .max_tokens = 1, .top_p = 1},
         MR_CORRUPT,
         "half.png"},
        {{.prompt = mr_str_of("why?"), .max_tokens = 2, .top_p = 1}, MR_OK, NULL},
    };
    const mr_llava_options opt = {.max_positions = 64};
    mr_llava *llava = open_llava(cases[0], &opt);
    assert_int_equal(mr_llava_positions(llava), 64);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        listener l = {0};
        assert_status(mr_llava_answer(llava, &row[i].request, listen, &l, NULL, &err),
                      row[i].status, &err);
        if (row[i].message)
            assert_contains(err.message, row[i].message);
        mr_strbuf_release(&l.text);
    }
    mr_llava_close(llava);
    example_free(&e);
    json_decref(examples);
}

/* ---- Folders --------------------------------------------------------------------------------- */

static void a_folder_with_something_wrong_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        test_variant variant;
        mr_status status;
        const char *message;
    } row[] = {
        {{.drop = "multi_modal_projector.linear_1.bias"}, MR_MISMATCH, "1 of its 2 biases"},
        {{.drop = "multi_modal_projector.linear_1.weight"}, MR_NOT_FOUND, "linear_1.weight"},
        {{.drop = "multi_modal_projector.linear_2.weight"}, MR_NOT_FOUND, "linear_2"},
        {{.transpose = "multi_modal_projector.linear_1.weight"},
         MR_MISMATCH,
         "linear_1.weight' is [24, 32]"},
        {{.drop = "vision_tower.vision_model.encoder.layers.0.mlp.fc2.weight"},
         MR_NOT_FOUND,
         "'vision_tower.vision_model.encoder.layers.0.mlp.fc2.weight' is missing"},
        {{.drop = "vision_tower.vision_model.embeddings.class_embedding"},
         MR_NOT_FOUND,
         "holds no CLIP vision tower"},
        {{.drop = "language_model.model.layers.1.mlp.up_proj.weight"},
         MR_NOT_FOUND,
         "'language_model.model.layers.1.mlp.up_proj.weight' is missing"},
        {{.drop = "language_model.lm_head.weight"}, MR_NOT_FOUND, "language_model.lm_head.weight"},
        {{.config = "\"model_type\": \"llava\"", .config_other = "\"model_type\": \"llava_next\""},
         MR_UNSUPPORTED,
         "model_type 'llava_next' is not LLaVA"},
        {{.config = "\"model_type\": \"llama\"", .config_other = "\"model_type\": \"mistral\""},
         MR_UNSUPPORTED,
         "text_config: model_type 'mistral'"},
        {{.config = "\"projector_hidden_act\": \"gelu\"",
          .config_other = "\"projector_hidden_act\": \"relu\""},
         MR_UNSUPPORTED,
         "projector_hidden_act 'relu'"},
        {{.config = "\"vision_feature_layer\": -2",
          .config_other = "\"vision_feature_layer\": [-2, -1]"},
         MR_UNSUPPORTED,
         "vision_feature_layer is a list of 2"},
        {{.config = "\"vision_feature_layer\": -2", .config_other = "\"vision_feature_layer\": 4"},
         MR_INVALID,
         "vision_feature_layer is 4"},
        {{.config = "\"default\"", .config_other = "\"cls_patch\""},
         MR_UNSUPPORTED,
         "vision_feature_select_strategy 'cls_patch'"},
        {{.config = "\"image_token_index\": 749", .config_other = "\"image_token_index\": 760"},
         MR_MISMATCH,
         "image_token_index 760, but tokenizer.json has no such token"},
        {{.config = "\"tie_word_embeddings\": false",
          .config_other = "\"multimodal_projector_bias\": false"},
         MR_MISMATCH,
         "2 of its 2 biases; config.json says multimodal_projector_bias false"},
        {{.config = "\"tie_word_embeddings\": false",
          .config_other = "\"quantization_config\": {\"bits\": 4}"},
         MR_UNSUPPORTED,
         "quantization_config"},
        {{.config = "\"image_size\": 28", .config_other = "\"image_size\": 30"},
         MR_MISMATCH,
         "makes pictures of 28 pixels, but config.json says image_size 30"},
        {{.config = "\"hidden_size\": 32", .config_other = "\"hidden_size\": 64"},
         MR_MISMATCH,
         "expected [64, 32]"},
        {{.config = "\"max_position_embeddings\": 512",
          .config_other = "\"max_position_embeddings\": 128"},
         MR_OK,
         NULL},
        {{.config = "\"vision_feature_layer\": -2",
          .config_other = "\"vision_feature_layer\": [-2]"},
         MR_OK,
         NULL},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char *folder = test_folder_new();
        mr_llava *llava = NULL;
        mr_error err = {0};
        const mr_llava_options opt = {0};
        test_variant_write(folder, cases[0], &row[i].variant);
        assert_status(mr_llava_open(&llava, folder, &opt, &err), row[i].status, &err);
        if (row[i].message) {
            assert_contains(err.message, row[i].message);
            assert_null(llava);
        } else {
            assert_in_range(mr_llava_positions(llava), 128, 512);
        }
        mr_llava_close(llava);
        test_folder_free(folder);
    }
}

static void a_session_longer_than_the_model_is_refused(void **state)
{
    (void)state;
    mr_llava *llava = NULL;
    mr_error err = {0};
    const mr_llava_options opt = {.max_positions = 513};
    assert_status(mr_llava_open(&llava, cases[0], &opt, &err), MR_EXHAUSTED, &err);
    assert_contains(err.message, "max_position_embeddings 512");
    assert_null(llava);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_that_do_not_fit_are_refused),
        cmocka_unit_test(a_folder_with_something_wrong_is_refused_by_name),
        cmocka_unit_test(a_session_longer_than_the_model_is_refused),
    };
    return cmocka_run_group_tests_name("llava_refused", tests, NULL, NULL);
}
