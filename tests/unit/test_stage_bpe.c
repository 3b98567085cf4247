/* test_stage_bpe.c - the bpe stage: from a recipe and its texts to the file that the tokenizers
 * library would have written (data/bpe), and what is refused.
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
#include "core/json.h"
#include "core/strbuf.h"
#include "engine/tokenizer.h"
#include "ranker/training/trainer.h"
#include "tests/support.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static mr_recipe *parse(const char *text)
{
    mr_recipe *recipe = NULL;
    mr_error err = {0};
    assert_status(mr_recipe_parse(&recipe, "r.yaml", text, strlen(text), &err), MR_OK, &err);
    return recipe;
}

/* Runs the stage on the rows (of texts.jsonl) into folder/out. more: further lines of the recipe.
 */
static mr_status try_rows(const char *folder, const char *rows, const char *more,
                          const volatile sig_atomic_t *stop, mr_train_summary *summary,
                          mr_error *err)
{
    const char *out = test_path(folder, "out");
    mr_strbuf text = {0};
    test_file_write(test_path(folder, "texts.jsonl"), rows, strlen(rows));
    mr_strbuf_printf(&text, "stage: bpe\ndata: {texts: [%s]}\n%s", test_path(folder, "texts.jsonl"),
                     more);
    assert_false(text.failed);
    mr_recipe *recipe = parse(text.data);
    const mr_train_options options = {.out = out, .stop = stop};
    mr_status status = mr_train_run(recipe, &options, summary, err);
    mr_recipe_free(recipe);
    mr_strbuf_release(&text);
    return status;
}

/* ---- Against the library ---- */

static void the_file_is_the_librarys_to_the_byte(void **state)
{
    (void)state;
    /* Between them: both styles, either case, another min_frequency than the default. */
    static const char *const cases[] = {"lowercase", "used-up"};
    for (size_t i = 0; i < COUNT(cases); i++) {
        mr_error err = {0};
        json_t *options = NULL;
        char path[128];
        mr_strbuf text = {0};
        char *folder = test_folder_new();
        snprintf(path, sizeof path, "data/bpe/%s/options.json", cases[i]);
        assert_status(mr_json_load_file(&options, path, 1 << 20, &err), MR_OK, &err);
        char *special = json_dumps(json_object_get(options, "special"), 0); /* YAML too */
        assert_non_null(special);
        mr_strbuf_printf(
            &text,
            "stage: bpe\ndata: {texts: [data/bpe/%s/texts.jsonl]}\nvocabulary: %d\nstyle: %s\n"
            "lowercase: %s\nmin_frequency: %d\nspecial: %s\n",
            cases[i], (int)json_integer_value(json_object_get(options, "vocab_size")),
            json_string_value(json_object_get(options, "words")),
            json_is_true(json_object_get(options, "lowercase")) ? "true" : "false",
            (int)json_integer_value(json_object_get(options, "min_frequency")), special);
        mr_recipe *recipe = parse(text.data);
        mr_train_summary summary = {0};
        const mr_train_options run = {.out = folder};
        assert_status(mr_train_run(recipe, &run, &summary, &err), MR_OK, &err);
        assert_true(summary.finished);
        assert_true(isnan(summary.valid_loss));

        size_t got_len, want_len;
        char *got = test_file_read(test_path(folder, "tokenizer.json"), &got_len);
        snprintf(path, sizeof path, "data/bpe/%s/tokenizer.json", cases[i]);
        char *want = test_file_read(path, &want_len);
        size_t at = 0;
        while (at < got_len && at < want_len && got[at] == want[at])
            at++;
        if (at < got_len || at < want_len)
            fail_msg("%s: byte %zu begins '%.40s', expected '%.40s'", cases[i], at, got + at,
                     want + at);
        mr_tokenizer *tok = NULL;
        assert_status(mr_tokenizer_open(&tok, folder, &err), MR_OK, &err);
        assert_int_equal(summary.tokens, mr_tokenizer_vocab_size(tok));
        mr_tokenizer_close(tok);
        free(got);
        free(want);
        free(special);
        mr_recipe_free(recipe);
        mr_strbuf_release(&text);
        json_decref(options);
        test_folder_free(folder);
    }
}

/* ---- What a recipe says reaches the tokenizer ---- */

static size_t count_tokens(const char *folder, const char *text)
{
    mr_error err = {0};
    mr_tokenizer *tok = NULL;
    mr_ids ids = {0};
    assert_status(mr_tokenizer_open(&tok, test_path(folder, "out"), &err), MR_OK, &err);
    assert_status(mr_tokenizer_encode(tok, mr_str_of(text), MR_TOKENIZE_PLAIN, &ids, &err), MR_OK,
                  &err);
    const size_t n = ids.n;
    mr_ids_release(&ids);
    mr_tokenizer_close(tok);
    return n;
}

static void style_case_and_frequency_are_the_recipes(void **state)
{
    (void)state;
    static const char rows[] = "{\"text\":\"Tea 1999 tea 1999\"}\n\n{\"text\":\"TEA 1999\"}\n";
    static const struct {
        const char *more, *text;
        size_t tokens;
    } cases[] = {
        {"vocabulary: 300\n", " 1999", 1}, /* gpt2: numbers whole */
        {"vocabulary: 300\nstyle: gpt2\n", " 1999", 1},
        {"vocabulary: 300\nstyle: qwen2\n", " 1999", 5},
        {"vocabulary: 300\nmin_frequency: 1\n", "TEA", 1},
        {"vocabulary: 300\n", "TEA", 3}, /* seen once */
        {"vocabulary: 300\nlowercase: true\nmin_frequency: 1\n", "tEa", 1},
        {"vocabulary: 300\nmin_frequency: 7\n", " 1999", 5},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *folder = test_folder_new();
        mr_error err = {0};
        mr_train_summary summary = {0};
        assert_status(try_rows(folder, rows, cases[i].more, NULL, &summary, &err), MR_OK, &err);
        const size_t n = count_tokens(folder, cases[i].text);
        if (n != cases[i].tokens)
            fail_msg("row %zu: '%s' has %zu tokens, expected %zu", i, cases[i].text, n,
                     cases[i].tokens);
        test_folder_free(folder);
    }
}

static void the_end_of_text_is_the_one_special_token_unless_others_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *more, *first, *end;
    } cases[] = {
        {"vocabulary: 270\n", "<|endoftext|>", "<|endoftext|>"},
        {"vocabulary: 270\nspecial: [\"<|a|>\", \"<|endoftext|>\"]\n", "<|a|>", "<|endoftext|>"},
        {"vocabulary: 270\nspecial: [\"<|a|>\"]\n", "<|a|>", NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *folder = test_folder_new();
        mr_error err = {0};
        mr_train_summary summary = {0};
        mr_tokenizer *tok = NULL;
        json_t *config = NULL;
        assert_status(
            try_rows(folder, "{\"text\":\"tea tea\"}\n", cases[i].more, NULL, &summary, &err),
            MR_OK, &err);
        const char *out = test_path(folder, "out");
        assert_status(mr_tokenizer_open(&tok, out, &err), MR_OK, &err);
        assert_string_equal(mr_tokenizer_token(tok, 0), cases[i].first);
        assert_status(
            mr_json_load_file(&config, test_path(out, "tokenizer_config.json"), 1 << 20, &err),
            MR_OK, &err);
        const char *end = json_string_value(json_object_get(config, "eos_token"));
        assert_string_equal(end ? end : "none", cases[i].end ? cases[i].end : "none");
        json_decref(config);
        mr_tokenizer_close(tok);
        test_folder_free(folder);
    }
}

/* ---- What is refused ---- */

static void rows_that_are_no_texts_end_the_stage_and_leave_no_tokenizer(void **state)
{
    (void)state;
    static const struct {
        const char *rows, *more;
        mr_status status;
        const char *message;
    } cases[] = {
        {"{\"text\":\"a\"}\n\n{\"title\":\"b\"}\n", "vocabulary: 300\n", MR_INVALID,
         "'text' is missing"},
        {"{\"text\":\"a\"}\n{\"text\":7}\n", "vocabulary: 300\n", MR_INVALID, "line 2 of "},
        {"{\"text\":\"a\"}\n{\"text\":\"b\"\n", "vocabulary: 300\n", MR_CORRUPT, "2"},
        {"{\"text\":\"a\"}\n[\"b\"]\n", "vocabulary: 300\n", MR_CORRUPT, "2"},
        {"{\"text\":\"a\\u0000b\"}\n", "vocabulary: 300\n", MR_INVALID,
         "expected a string without NUL characters"},
        {"", "vocabulary: 300\n", MR_INVALID, "no words to learn from in 0 texts"},
        {"{\"text\":\"\"}\n", "vocabulary: 300\n", MR_INVALID, "no words to learn from in 1 texts"},
        {"{\"text\":\"a b\"}\n",
         "vocabulary: 260\nspecial: [\"<1>\", \"<2>\", \"<3>\", \"<4>\", \"<5>\"]\n", MR_INVALID,
         "a vocabulary of 260, expected from 261"},
        {"{\"text\":\"a b\"}\n", "vocabulary: 300\nspecial: [\"<1>\", \"<1>\"]\n", MR_INVALID,
         "'<1>' is listed twice"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *folder = test_folder_new();
        mr_error err = {0};
        mr_train_summary summary = {0};
        assert_status(try_rows(folder, cases[i].rows, cases[i].more, NULL, &summary, &err),
                      cases[i].status, &err);
        assert_contains(err.message, cases[i].message);
        assert_false(mr_file_exists(test_path(folder, "out/tokenizer.json")));
        test_folder_free(folder);
    }
}

static void a_file_that_is_not_there_is_named(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    mr_error err = {0};
    mr_train_summary summary = {0};
    mr_recipe *recipe = parse("stage: bpe\ndata: {texts: [none.jsonl]}\nvocabulary: 300\n");
    const mr_train_options run = {.out = folder};
    assert_status(mr_train_run(recipe, &run, &summary, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "none.jsonl");
    mr_recipe_free(recipe);
    test_folder_free(folder);
}

static void a_signal_stops_it_and_what_was_there_stays(void **state)
{
    (void)state;
    const volatile sig_atomic_t stop = 1;
    char *folder = test_folder_new();
    mr_error err = {0};
    mr_train_summary summary = {0};
    size_t before_len, after_len;
    assert_status(
        try_rows(folder, "{\"text\":\"tea tea\"}\n", "vocabulary: 270\n", NULL, &summary, &err),
        MR_OK, &err);
    char *before = test_file_read(test_path(folder, "out/tokenizer.json"), &before_len);
    assert_status(
        try_rows(folder, "{\"text\":\"cup cup\"}\n", "vocabulary: 270\n", &stop, &summary, &err),
        MR_CANCELLED, &err);
    char *after = test_file_read(test_path(folder, "out/tokenizer.json"), &after_len);
    assert_int_equal(after_len, before_len);
    assert_memory_equal(after, before, before_len);
    free(before);
    free(after);
    test_folder_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_is_the_librarys_to_the_byte),
        cmocka_unit_test(style_case_and_frequency_are_the_recipes),
        cmocka_unit_test(the_end_of_text_is_the_one_special_token_unless_others_are_named),
        cmocka_unit_test(rows_that_are_no_texts_end_the_stage_and_leave_no_tokenizer),
        cmocka_unit_test(a_file_that_is_not_there_is_named),
        cmocka_unit_test(a_signal_stops_it_and_what_was_there_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
