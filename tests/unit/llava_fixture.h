/* llava_fixture.h - the folders and prompts of data/llava, and somebody who listens to answers, for
 * the tests of LLaVA. Include after cmocka.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_LLAVA_FIXTURE_H
#define MR_TESTS_LLAVA_FIXTURE_H

#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/strbuf.h"
#include "encoders/llava.h"
#include "tests/support.h"

#define PROMPTS 2
#define ANSWER  64 /* tokens of the reference answers */

static const char *const cases[] = {"data/llava/published", "data/llava/sharded-f16",
                                    "data/llava/module-names-f16"};
#define N_CASES (sizeof cases / sizeof *cases)
#define MARKER  749 /* <image> in all of them */

static inline mr_llava *open_llava(const char *folder, const mr_llava_options *opt)
{
    mr_llava *llava = NULL;
    mr_error err = {0};
    assert_status(mr_llava_open(&llava, folder, opt, &err), MR_OK, &err);
    return llava;
}

/* ---- Prompts of the reference ---------------------------------------------------------------- */

typedef struct {
    const char *prompt, *text, *answer;
    size_t answer_len;
    mr_llava_image images[4];
    mr_file_map maps[4];
    size_t n_images;
} example;

static inline json_t *open_examples(const char *folder)
{
    json_t *root = NULL;
    mr_error err = {0};
    assert_status(
        mr_json_load_file(&root, test_path(folder, "reference.json"), MR_JSON_MAX_CONFIG, &err),
        MR_OK, &err);
    assert_int_equal(json_array_size(root), PROMPTS);
    return root;
}

static inline example example_of(const json_t *root, size_t index)
{
    const json_t *entry = json_array_get(root, index);
    const json_t *files = json_object_get(entry, "images");
    const json_t *answer = json_object_get(entry, "answer");
    example e = {.prompt = json_string_value(json_object_get(entry, "prompt")),
                 .text = json_string_value(json_object_get(entry, "text")),
                 .answer = json_string_value(answer),
                 .answer_len = json_string_length(answer),
                 .n_images = json_array_size(files)};
    assert_in_range(e.n_images, 1, 4);
    for (size_t i = 0; i < e.n_images; i++) {
        mr_error err = {0};
        const char *name = json_string_value(json_array_get(files, i));
        assert_status(mr_file_map_open(&e.maps[i], test_path("data/images", name), &err), MR_OK,
                      &err);
        e.images[i] = (mr_llava_image){name, {e.maps[i].data, e.maps[i].len}};
    }
    return e;
}

static inline void example_free(example *e)
{
    for (size_t i = 0; i < e->n_images; i++)
        mr_file_map_close(&e->maps[i]);
}

static inline mr_llava_request request_of(const example *e)
{
    return (mr_llava_request){.prompt = mr_str_of(e->prompt),
                              .images = e->images,
                              .n_images = e->n_images,
                              .max_tokens = ANSWER,
                              .top_p = 1};
}

typedef struct {
    mr_strbuf text;
    size_t pieces;
    size_t stop_after; /* 0: never */
} listener;

static inline bool listen(void *context, const char *text, size_t len)
{
    listener *l = context;
    assert_true(len > 0);
    mr_strbuf_append(&l->text, text, len);
    return ++l->pieces != l->stop_after;
}

#endif
