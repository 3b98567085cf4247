/* test_llava.c - LLaVA against transformers, from picture files to the answer's text, and folders
 * and requests that do not fit.
 *
 * Reference data: data/llava (data/README.md), three folders with two prompts each.
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

#include "core/guard.h"
#include "encoders/llava_untrained.h"
#include "tests/unit/llava_fixture.h"
#include "tests/vision_support.h"

#define BOUND 1e-5
#define TAIL  8 /* positions of the reference logits */

static const char *name_of(size_t prompt, const char *what)
{
    static char names[8][64];
    static size_t turn;
    char *name = names[turn++ % 8];
    snprintf(name, sizeof names[0], "%zu.%s", prompt, what);
    return name;
}

/* Runs a check for every case, prompt and kernel set. */
static void for_each_prompt(void (*check)(mr_llava *llava, const mr_safetensors *reference,
                                          const example *e, size_t prompt))
{
    const mr_kernels *list[MR_KERNELS_MAX];
    const size_t n_kernels = mr_kernels_available(list);
    for (size_t i = 0; i < N_CASES; i++) {
        mr_safetensors *reference =
            test_reference_open(test_path(cases[i], "reference.safetensors"));
        json_t *examples = open_examples(cases[i]);
        for (size_t k = 0; k < n_kernels; k++) {
            const mr_llava_options opt = {.kernels = list[k], .max_positions = 256};
            mr_llava *llava = open_llava(cases[i], &opt);
            for (size_t prompt = 0; prompt < PROMPTS; prompt++) {
                example e = example_of(examples, prompt);
                check(llava, reference, &e, prompt);
                example_free(&e);
            }
            mr_llava_close(llava);
        }
        json_decref(examples);
        mr_safetensors_close(reference);
    }
    const char *phase = NULL;
    if (mr_guard_violations(&phase) != 0)
        fail_msg("something allocated in phase '%s'", phase);
}

/* ---- Stage by stage -------------------------------------------------------------------------- */

static void check_ids(mr_llava *llava, const mr_safetensors *reference, const example *e,
                      size_t prompt)
{
    size_t n, n_short, markers = 0;
    int32_t *want = test_reference_ids(reference, name_of(prompt, "input_ids"), &n);
    int32_t *want_short = test_reference_ids(reference, name_of(prompt, "prompt_ids"), &n_short);
    mr_llava_request request = request_of(e);
    for (int raw = 0; raw < 2; raw++) {
        mr_ids ids = {0};
        mr_error err = {0};
        request.raw_prompt = raw != 0;
        if (raw)
            request.prompt = mr_str_of(e->text);
        assert_status(mr_llava_prompt_ids(llava, &request, &ids, &markers, &err), MR_OK, &err);
        assert_int_equal(markers, e->n_images);
        assert_int_equal(ids.n, n);
        assert_int_equal(n - n_short, markers * (mr_llava_image_tokens(llava) - 1));
        for (size_t i = 0; i < n; i++)
            assert_int_equal(ids.data[i], want[i] == MARKER ? MR_ID_EMBED : want[i]);
        mr_ids_release(&ids);
    }
    free(want);
    free(want_short);
}

static void ids_of_the_chat_template_are_those_of_the_processor(void **state)
{
    (void)state;
    for_each_prompt(check_ids);
}

static void check_vision(mr_llava *llava, const mr_safetensors *reference, const example *e,
                         size_t prompt)
{
    size_t n_features, n_projected;
    mr_error err = {0};
    float *pixels = test_reference_floats(reference, name_of(prompt, "pixel_values"), NULL);
    float *want_features =
        test_reference_floats(reference, name_of(prompt, "image_features"), &n_features);
    float *want_projected =
        test_reference_floats(reference, name_of(prompt, "projected"), &n_projected);
    float *features = malloc(n_features * sizeof *features);
    float *projected = malloc(n_projected * sizeof *projected);
    assert_int_equal(n_features, e->n_images * mr_llava_image_tokens(llava) *
                                     (size_t)mr_llava_vision(llava)->C);
    assert_status(mr_llava_features(llava, pixels, e->n_images, features, projected, &err), MR_OK,
                  &err);
    assert_floats_near(features, want_features, n_features, BOUND);
    assert_floats_near(projected, want_projected, n_projected, BOUND);
    free(projected);
    free(features);
    free(want_projected);
    free(want_features);
    free(pixels);
}

static void features_and_projections_are_those_of_transformers(void **state)
{
    (void)state;
    for_each_prompt(check_vision);
}

typedef struct {
    float *rows; /* [L + 1][n][C] */
    size_t state;
    int seen;
} tapped;

/* In the middle of a forward pass: nothing may allocate. */
static void keep_layer(void *context, int layer, const float *rows, size_t n_rows)
{
    tapped *tap = context;
    (void)n_rows;
    memcpy(tap->rows + (size_t)layer * tap->state, rows, tap->state * sizeof *rows);
    tap->seen++;
}

/* The input of the reference, with our own pictures. */
static mr_input input_of(mr_llava *llava, const mr_safetensors *reference, size_t prompt,
                         int32_t **ids, float **projected)
{
    mr_error err = {0};
    size_t n, n_pixels;
    const size_t S = (size_t)mr_llava_vision(llava)->image_size;
    const size_t C = (size_t)mr_llava_model(llava)->config.C;
    float *pixels = test_reference_floats(reference, name_of(prompt, "pixel_values"), &n_pixels);
    const size_t images = n_pixels / (3 * S * S), rows = images * mr_llava_image_tokens(llava);
    float *features = malloc(rows * (size_t)mr_llava_vision(llava)->C * sizeof *features);
    *projected = malloc(rows * C * sizeof **projected);
    assert_status(mr_llava_features(llava, pixels, images, features, *projected, &err), MR_OK,
                  &err);
    *ids = test_reference_ids(reference, name_of(prompt, "input_ids"), &n);
    for (size_t i = 0; i < n; i++)
        (*ids)[i] = (*ids)[i] == MARKER ? MR_ID_EMBED : (*ids)[i];
    free(features);
    free(pixels);
    return (mr_input){.ids = *ids, .n = n, .embeds = *projected, .n_embeds = rows};
}

static void check_language(mr_llava *llava, const mr_safetensors *reference, const example *e,
                           size_t prompt)
{
    (void)e;
    const mr_model *model = mr_llava_model(llava);
    const size_t C = (size_t)model->config.C, V = (size_t)model->config.V;
    int32_t *ids;
    float *projected;
    mr_error err = {0};
    const mr_input input = input_of(llava, reference, prompt, &ids, &projected);

    float *embeds = malloc(input.n * C * sizeof *embeds);
    float *want = test_reference_floats(reference, name_of(prompt, "inputs_embeds"), NULL);
    assert_status(mr_input_embeds(model, &input, embeds, &err), MR_OK, &err);
    assert_floats_near(embeds, want, input.n * C, BOUND);
    free(want);

    const int L = model->config.L;
    tapped tap = {.state = input.n * C};
    tap.rows = malloc((size_t)(L + 1) * tap.state * sizeof(float));
    mr_session *session = NULL;
    const mr_session_options opt = {.max_prefix = input.n, .max_rows = input.n};
    assert_status(mr_session_new(&session, model, &opt, &err), MR_OK, &err);
    mr_session_set_tap(session, keep_layer, &tap);
    const mr_batch batch = {.prefix = &input, .prefix_want = MR_WANT_LAST, .n_last = TAIL};
    float *hidden = malloc(TAIL * C * sizeof *hidden), *logits = malloc(TAIL * V * sizeof *logits);
    assert_status(mr_session_run(session, &batch, hidden, &err), MR_OK, &err);
    assert_int_equal(tap.seen, L + 1);
    for (int layer = 0; layer <= L; layer++) {
        char what[32];
        snprintf(what, sizeof what, "hidden_states.%d", layer);
        want =
            test_reference_floats(reference, name_of(prompt, layer == L ? "pre_norm" : what), NULL);
        assert_floats_near(tap.rows + (size_t)layer * tap.state, want, tap.state, BOUND);
        free(want);
    }
    free(tap.rows);
    mr_model_logits(model, NULL, hidden, TAIL, logits);
    want = test_reference_floats(reference, name_of(prompt, "logits"), NULL);
    assert_floats_near(logits, want, TAIL * V, BOUND);
    free(want);
    free(hidden);
    free(logits);
    mr_session_free(session);
    free(embeds);
    free(projected);
    free(ids);
}

static void every_hidden_state_and_the_logits_are_those_of_transformers(void **state)
{
    (void)state;
    for_each_prompt(check_language);
}

static size_t argmax(const float *logits, size_t V)
{
    size_t best = 0;
    for (size_t i = 1; i < V; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

static void check_greedy(mr_llava *llava, const mr_safetensors *reference, const example *e,
                         size_t prompt)
{
    (void)e;
    const size_t V = (size_t)mr_llava_model(llava)->config.V;
    int32_t *ids;
    float *projected, *logits = malloc(V * sizeof *logits);
    size_t n;
    mr_error err = {0};
    const mr_input input = input_of(llava, reference, prompt, &ids, &projected);
    int32_t *want = test_reference_ids(reference, name_of(prompt, "answer_ids"), &n);
    assert_int_equal(n, ANSWER);
    assert_status(mr_llava_prefill(llava, &input, logits, &err), MR_OK, &err);
    for (size_t i = 0; i < n; i++) {
        const size_t id = argmax(logits, V);
        if (id != (size_t)want[i])
            fail_msg("token %zu is %zu, expected %d", i, id, (int)want[i]);
        assert_status(mr_llava_next(llava, (int32_t)id, logits, &err), MR_OK, &err);
    }
    free(want);
    free(logits);
    free(projected);
    free(ids);
}

static void sixty_four_greedy_tokens_are_those_of_transformers(void **state)
{
    (void)state;
    for_each_prompt(check_greedy);
}

/* ---- Answers --------------------------------------------------------------------------------- */

static void check_answer(mr_llava *llava, const mr_safetensors *reference, const example *e,
                         size_t prompt)
{
    (void)reference;
    (void)prompt;
    listener l = {0};
    mr_error err = {0};
    mr_llava_report report;
    const mr_llava_request request = request_of(e);
    assert_status(mr_llava_answer(llava, &request, listen, &l, &report, &err), MR_OK, &err);
    assert_int_equal(report.answer_tokens, ANSWER);
    assert_false(report.ended);
    assert_int_equal(report.image_tokens, mr_llava_image_tokens(llava));
    assert_int_equal(report.positions,
                     report.prompt_tokens + e->n_images * (mr_llava_image_tokens(llava) - 1));
    assert_int_equal(report.feature_width, mr_llava_vision(llava)->C);
    assert_int_equal(report.width, mr_llava_model(llava)->config.C);
    assert_true(report.first_token_us > 0 && report.prefill_us > 0 && report.vision_us > 0);
    assert_true(l.pieces > 20); /* it came in pieces */
    if (l.text.len != e->answer_len || memcmp(l.text.data, e->answer, e->answer_len) != 0)
        fail_msg("answer '%s', expected '%s'", l.text.data, e->answer);
    mr_strbuf_release(&l.text);
}

static void answers_from_picture_files_are_those_of_transformers(void **state)
{
    (void)state;
    for_each_prompt(check_answer);
}

static void an_answer_ends_with_its_token_or_when_the_listener_has_enough(void **state)
{
    (void)state;
    json_t *examples = open_examples(cases[0]);
    example e = example_of(examples, 0);
    mr_safetensors *reference = test_reference_open(test_path(cases[0], "reference.safetensors"));
    size_t n;
    mr_error err = {0};
    mr_llava_report report;
    int32_t *ids = test_reference_ids(reference, "0.answer_ids", &n);

    /* The fourth token of the answer is made the end, in each place where it can be said. */
    static const struct {
        const char *file, *format;
    } row[] = {
        {"generation_config.json", "{\"eos_token_id\": %d}"},
        {"generation_config.json", "{\"eos_token_id\": [2, %d]}"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char *folder = test_folder_new(), text[64];
        const test_variant variant = {0};
        listener l = {0};
        test_variant_write(folder, cases[0], &variant);
        snprintf(text, sizeof text, row[i].format, (int)ids[3]);
        test_file_write(test_path(folder, row[i].file), text, strlen(text));
        const mr_llava_options opt = {0};
        mr_llava *llava = open_llava(folder, &opt);
        assert_true(mr_llava_is_end(llava, ids[3]));
        assert_int_equal(mr_llava_is_end(llava, 2), i);
        const mr_llava_request request = request_of(&e);
        assert_status(mr_llava_answer(llava, &request, listen, &l, &report, &err), MR_OK, &err);
        assert_true(report.ended);
        assert_int_equal(report.answer_tokens, 4);
        assert_true(l.text.len > 0 && strncmp(l.text.data, e.answer, l.text.len) == 0);
        mr_strbuf_release(&l.text);
        mr_llava_close(llava);
        test_folder_free(folder);
    }

    const mr_llava_options opt = {0};
    mr_llava *llava = open_llava(cases[0], &opt);
    listener l = {.stop_after = 2};
    mr_llava_request request = request_of(&e);
    assert_status(mr_llava_answer(llava, &request, listen, &l, &report, &err), MR_OK, &err);
    assert_int_equal(l.pieces, 2);
    assert_in_range(report.answer_tokens, 2, 10);
    assert_false(report.ended);
    mr_strbuf_release(&l.text);

    /* Without a listener, and one token. */
    request.max_tokens = 1;
    assert_status(mr_llava_answer(llava, &request, NULL, NULL, &report, &err), MR_OK, &err);
    assert_int_equal(report.answer_tokens, 1);
    mr_llava_close(llava);
    free(ids);
    mr_safetensors_close(reference);
    example_free(&e);
    json_decref(examples);
}

static void a_seed_gives_the_same_answer_and_another_another(void **state)
{
    (void)state;
    json_t *examples = open_examples(cases[1]);
    example e = example_of(examples, 1);
    const mr_llava_options opt = {0};
    mr_llava *llava = open_llava(cases[1], &opt);
    listener l[3];
    memset(l, 0, sizeof l);
    for (size_t i = 0; i < 3; i++) {
        mr_error err = {0};
        mr_llava_request request = request_of(&e);
        request.temperature = 1;
        request.top_p = 0.95;
        request.seed = i / 2;
        assert_status(mr_llava_answer(llava, &request, listen, &l[i], NULL, &err), MR_OK, &err);
    }
    assert_string_equal(l[0].text.data, l[1].text.data);
    assert_string_not_equal(l[0].text.data, l[2].text.data);
    for (size_t i = 0; i < 3; i++)
        mr_strbuf_release(&l[i].text);
    mr_llava_close(llava);
    example_free(&e);
    json_decref(examples);
}

static void the_original_padding_sees_another_picture(void **state)
{
    (void)state;
    json_t *examples = open_examples(cases[0]);
    example e = example_of(examples, 0);
    listener l[2];
    memset(l, 0, sizeof l);
    for (int pad = 0; pad < 2; pad++) {
        mr_error err = {0};
        const mr_llava_options opt = {.pad_to_square = pad != 0};
        mr_llava *llava = open_llava(cases[0], &opt);
        const mr_llava_request request = request_of(&e);
        assert_status(mr_llava_answer(llava, &request, listen, &l[pad], NULL, &err), MR_OK, &err);
        mr_llava_close(llava);
    }
    assert_string_not_equal(l[0].text.data, l[1].text.data);
    mr_strbuf_release(&l[0].text);
    mr_strbuf_release(&l[1].text);
    example_free(&e);
    json_decref(examples);
}

/* The ninth picture is in the third pass: another one in its place has to show. */
static void more_pictures_than_a_pass_holds_are_taken_in_turn(void **state)
{
    (void)state;
    enum { PICTURES = 9 };
    json_t *examples = open_examples(cases[0]);
    example e = example_of(examples, 1);
    const mr_llava_options opt = {0};
    mr_llava *llava = open_llava(cases[0], &opt);
    mr_llava_image images[PICTURES];
    listener l[2];
    memset(l, 0, sizeof l);
    for (size_t round = 0; round < 2; round++) {
        mr_error err = {0};
        mr_llava_report report;
        for (size_t i = 0; i < PICTURES; i++)
            images[i] = e.images[i == PICTURES - 1 ? round : i % 2];
        const mr_llava_request request = {.prompt = mr_str_of("all of them?"),
                                          .images = images,
                                          .n_images = PICTURES,
                                          .max_tokens = ANSWER,
                                          .top_p = 1};
        assert_status(mr_llava_answer(llava, &request, listen, &l[round], &report, &err), MR_OK,
                      &err);
        assert_int_equal(report.positions,
                         report.prompt_tokens + PICTURES * (mr_llava_image_tokens(llava) - 1));
    }
    assert_string_not_equal(l[0].text.data, l[1].text.data);
    mr_strbuf_release(&l[0].text);
    mr_strbuf_release(&l[1].text);
    mr_llava_close(llava);
    example_free(&e);
    json_decref(examples);
}

static void an_untrained_folder_answers_and_says_what_it_is(void **state)
{
    (void)state;
    json_t *examples = open_examples(cases[0]);
    example e = example_of(examples, 1);
    char *folder = test_folder_new();
    mr_error err = {0};
    mr_llava_report report;
    const mr_llava_shape *shape = mr_llava_shape_find("llava-tiny");
    assert_non_null(shape);
    assert_null(mr_llava_shape_find("llava"));
    assert_status(mr_llava_untrained_write(folder, shape, 3, &err), MR_OK, &err);
    const mr_llava_options opt = {0};
    mr_llava *llava = open_llava(folder, &opt);
    assert_true(mr_llava_is_untrained(llava));
    assert_int_equal(mr_llava_image_tokens(llava), 16);
    listener l = {0};
    const mr_llava_request request = request_of(&e);
    assert_status(mr_llava_answer(llava, &request, listen, &l, &report, &err), MR_OK, &err);
    assert_true(l.text.len > 0 && report.positions > 32);
    mr_strbuf_release(&l.text);
    mr_llava_close(llava);
    test_folder_free(folder);

    const mr_llava_options plain = {0};
    llava = open_llava(cases[0], &plain);
    assert_false(mr_llava_is_untrained(llava));
    mr_llava_close(llava);
    example_free(&e);
    json_decref(examples);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_of_the_chat_template_are_those_of_the_processor),
        cmocka_unit_test(features_and_projections_are_those_of_transformers),
        cmocka_unit_test(sixty_four_greedy_tokens_are_those_of_transformers),
        cmocka_unit_test(answers_from_picture_files_are_those_of_transformers),
        cmocka_unit_test(an_answer_ends_with_its_token_or_when_the_listener_has_enough),
        cmocka_unit_test(a_seed_gives_the_same_answer_and_another_another),
        cmocka_unit_test(the_original_padding_sees_another_picture),
        cmocka_unit_test(more_pictures_than_a_pass_holds_are_taken_in_turn),
        cmocka_unit_test(an_untrained_folder_answers_and_says_what_it_is),
        cmocka_unit_test(every_hidden_state_and_the_logits_are_those_of_transformers),
    };
    return cmocka_run_group_tests_name("llava", tests, NULL, NULL);
}
