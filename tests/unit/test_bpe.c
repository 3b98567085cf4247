/* test_bpe.c - BPE training: the same file and ids as the tokenizers library (data/bpe), ties,
 * determinism, what is refused, and memory that runs out at any allocation.
 *
 * Made with ALLOC_FAILURE: after alloc_fail_at(k) the k-th allocation of our code fails.
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
#include "core/jsonl.h"
#include "ranker/training/bpe.h"
#include "tests/alloc_failure.h"
#include "tests/support.h"
#include "tests/unit/tokenizer_fixture.h"

/* ---- Texts and training ---- */

typedef struct {
    const mr_str *texts;
    size_t n, at;
    bool backwards;
    size_t fail_at; /* of texts, from 1; 0: never */
} source;

static mr_status next_text(void *context, mr_str *text, mr_error *err)
{
    source *s = context;
    if (s->at == s->n) {
        *text = (mr_str){0};
        return MR_OK;
    }
    if (s->at + 1 == s->fail_at)
        return MR_FAIL(err, IO, "the disk is gone");
    *text = s->texts[s->backwards ? s->n - 1 - s->at : s->at];
    s->at++;
    return MR_OK;
}

static mr_bpe *train(const mr_bpe_options *options, source from)
{
    mr_error err = {0};
    mr_bpe *bpe = NULL;
    assert_status(mr_bpe_train(&bpe, options, next_text, &from, &err), MR_OK, &err);
    return bpe;
}

static mr_bpe *train_on(const mr_bpe_options *options, const char *text)
{
    const mr_str texts[] = {mr_str_of(text)};
    return train(options, (source){.texts = texts, .n = 1});
}

static mr_status try_on(const mr_bpe_options *options, mr_str text, mr_error *err)
{
    source from = {.texts = &text, .n = 1};
    mr_bpe *bpe = NULL;
    mr_status status = mr_bpe_train(&bpe, options, next_text, &from, err);
    assert_true((status == MR_OK) == (bpe != NULL));
    mr_bpe_free(bpe);
    return status;
}

/* The tokenizer.json, for free(). */
static char *file_of(const mr_bpe *bpe, size_t *len)
{
    mr_error err = {0};
    char *folder = test_folder_new();
    assert_status(mr_bpe_write(bpe, folder, &err), MR_OK, &err);
    char *text = test_file_read(test_path(folder, "tokenizer.json"), len);
    test_folder_free(folder);
    return text;
}

static mr_tokenizer *tokenizer_of(const mr_bpe *bpe)
{
    mr_error err = {0};
    mr_tokenizer *tok = NULL;
    char *folder = test_folder_new();
    assert_status(mr_bpe_write(bpe, folder, &err), MR_OK, &err);
    assert_status(mr_tokenizer_open(&tok, folder, &err), MR_OK, &err);
    test_folder_free(folder);
    return tok;
}

static void assert_same_text(const char *got, const char *want, const char *where)
{
    size_t at = 0, line = 1;
    while (got[at] && got[at] == want[at])
        line += got[at++] == '\n';
    if (got[at] || want[at])
        fail_msg("%s: line %zu has '%.40s', expected '%.40s'", where, line, got + at, want + at);
}

/* ---- Against the library ---- */

static const char *const cases[] = {"gpt2", "qwen2", "lowercase", "ties", "used-up"};
#define N_CASES  (sizeof cases / sizeof *cases)
#define MAX_LIST 128

typedef struct {
    json_t *options, *rows[MAX_LIST];
    mr_str texts[MAX_LIST];
    size_t n;
    const char *special[MAX_LIST];
    mr_bpe_options wanted;
} reference;

static const char *case_path(const char *name, const char *file)
{
    static char path[128];
    snprintf(path, sizeof path, "data/bpe/%s/%s", name, file);
    return path;
}

static size_t read_rows(const char *name, const char *file, json_t **rows)
{
    mr_error err = {0};
    mr_jsonl reader;
    size_t n = 0;
    assert_status(mr_jsonl_open(&reader, case_path(name, file), MR_JSONL_MAX_LINE, &err), MR_OK,
                  &err);
    for (;; n++) {
        assert_true(n < MAX_LIST);
        assert_status(mr_jsonl_next(&reader, &rows[n], &err), MR_OK, &err);
        if (!rows[n])
            break;
    }
    mr_jsonl_close(&reader);
    return n;
}

static mr_str text_of(const json_t *row)
{
    const json_t *text = json_object_get(row, "text");
    assert_true(json_is_string(text));
    return (mr_str){json_string_value(text), json_string_length(text)};
}

static void open_reference(reference *ref, const char *name)
{
    mr_error err = {0};
    *ref = (reference){0};
    assert_status(mr_json_load_file(&ref->options, case_path(name, "options.json"), 1 << 20, &err),
                  MR_OK, &err);
    ref->n = read_rows(name, "texts.jsonl", ref->rows);
    for (size_t i = 0; i < ref->n; i++)
        ref->texts[i] = text_of(ref->rows[i]);
    const json_t *special = json_object_get(ref->options, "special");
    const char *words = json_string_value(json_object_get(ref->options, "words"));
    assert_true(json_array_size(special) < MAX_LIST);
    for (size_t i = 0; i < json_array_size(special); i++)
        ref->special[i] = json_string_value(json_array_get(special, i));
    ref->wanted = (mr_bpe_options){
        .vocab_size = (int32_t)json_integer_value(json_object_get(ref->options, "vocab_size")),
        .min_frequency =
            (uint64_t)json_integer_value(json_object_get(ref->options, "min_frequency")),
        .words = strcmp(words, "qwen2") == 0 ? MR_BPE_QWEN2 : MR_BPE_GPT2,
        .lowercase = json_is_true(json_object_get(ref->options, "lowercase")),
        .special = ref->special,
        .n_special = json_array_size(special)};
}

static void close_reference(reference *ref)
{
    for (size_t i = 0; i < ref->n; i++)
        json_decref(ref->rows[i]);
    json_decref(ref->options);
}

static void the_file_is_the_librarys_to_the_byte_in_any_order_of_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        reference ref;
        open_reference(&ref, cases[i]);
        size_t want_len, len;
        char *want = test_file_read(case_path(cases[i], "tokenizer.json"), &want_len);
        for (int backwards = 0; backwards < 2; backwards++) {
            mr_bpe *bpe = train(&ref.wanted,
                                (source){.texts = ref.texts, .n = ref.n, .backwards = backwards});
            char *got = file_of(bpe, &len);
            assert_same_text(got, want, cases[i]);
            assert_int_equal(len, want_len);
            free(got);
            mr_bpe_free(bpe);
        }
        free(want);
        close_reference(&ref);
    }
}

static void check_encoding(const mr_tokenizer *tok, const json_t *row, const char *name)
{
    mr_error err = {0};
    mr_ids ids = {0};
    const mr_str text = text_of(row);
    const json_t *want = json_object_get(row, "ids");
    assert_status(mr_tokenizer_encode(tok, text, MR_TOKENIZE_PARSE_SPECIAL, &ids, &err), MR_OK,
                  &err);
    for (size_t i = 0; i < ids.n || i < json_array_size(want); i++) {
        const int found = i < ids.n ? (int)ids.data[i] : -1;
        const int wanted =
            i < json_array_size(want) ? (int)json_integer_value(json_array_get(want, i)) : -1;
        if (found != wanted)
            fail_msg("%s: '%.40s': id %zu is %d, expected %d", name, text.data, i, found, wanted);
    }
    char *back = NULL;
    size_t len = 0;
    assert_status(mr_tokenizer_decode(tok, ids.data, ids.n, false, &back, &len, &err), MR_OK, &err);
    const bool kept = strcmp(name, "lowercase") != 0; /* what is lost does not come back */
    if (kept && !mr_str_equal((mr_str){back, len}, text))
        fail_msg("%s: '%.40s' came back as '%.40s'", name, text.data, back);
    free(back);
    mr_ids_release(&ids);
}

static void the_engine_encodes_as_the_library_and_decodes_what_it_encoded(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        reference ref;
        json_t *rows[MAX_LIST];
        open_reference(&ref, cases[i]);
        mr_bpe *bpe = train(&ref.wanted, (source){.texts = ref.texts, .n = ref.n});
        mr_tokenizer *tok = tokenizer_of(bpe);
        const size_t n = read_rows(cases[i], "cases.jsonl", rows);
        assert_true(n > ref.n);
        for (size_t r = 0; r < n; r++) {
            check_encoding(tok, rows[r], cases[i]);
            json_decref(rows[r]);
        }
        assert_int_equal(mr_tokenizer_vocab_size(tok), mr_bpe_figures_of(bpe)->vocab_size);
        mr_tokenizer_close(tok);
        mr_bpe_free(bpe);
        close_reference(&ref);
    }
}

/* ---- What is learnt ---- */

static void equal_counts_go_to_the_smaller_left_id_then_the_smaller_right_id(void **state)
{
    (void)state;
    /* As bytes: a < b < y < z. Every pair occurs once. */
    static const char *const want[] = {"ab", "ay", "by", "za"};
    const mr_bpe_options options = {.vocab_size = 260};
    mr_bpe *bpe = train_on(&options, "za\nby\nay\nab");
    mr_tokenizer *tok = tokenizer_of(bpe);
    for (int i = 0; i < 4; i++)
        assert_string_equal(mr_tokenizer_token(tok, 256 + i), want[i]);
    mr_tokenizer_close(tok);
    mr_bpe_free(bpe);
}

static void frequency_comes_before_ids_and_counts_follow_earlier_merges(void **state)
{
    (void)state;
    /* "yz" 3 times; then "xyz" twice; "wx" is never next, for its x is taken. */
    static const char *const want[] = {"yz", "xyz", "wxyz"};
    const mr_bpe_options options = {.vocab_size = 300};
    mr_bpe *bpe = train_on(&options, "wxyz\nxyz\nyz");
    mr_tokenizer *tok = tokenizer_of(bpe);
    for (int i = 0; i < 3; i++)
        assert_string_equal(mr_tokenizer_token(tok, 256 + i), want[i]);
    assert_int_equal(mr_bpe_figures_of(bpe)->vocab_size, 259);
    mr_tokenizer_close(tok);
    mr_bpe_free(bpe);
}

static void training_ends_early_when_no_pair_is_frequent_enough(void **state)
{
    (void)state;
    static const struct {
        uint64_t min_frequency;
        size_t merges;
    } rows[] = {{0, 3}, {1, 3}, {2, 2}, {3, 1}, {4, 0}, {UINT64_MAX, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const mr_bpe_options options = {.vocab_size = 4096, .min_frequency = rows[i].min_frequency};
        mr_bpe *bpe = train_on(&options, "wxyz\nxyz\nyz");
        const mr_bpe_figures *found = mr_bpe_figures_of(bpe);
        assert_int_equal(found->merges, rows[i].merges);
        assert_int_equal(found->vocab_size, 256 + rows[i].merges);
        mr_bpe_free(bpe);
    }
}

static void figures_count_texts_bytes_and_words(void **state)
{
    (void)state;
    char *longest = calloc(1, 2 * MR_BPE_MAX_WORD);
    assert_non_null(longest);
    memset(longest, 'a', MR_BPE_MAX_WORD);
    const mr_str at_limit = mr_str_of(longest);
    char *longer = calloc(1, 2 * MR_BPE_MAX_WORD);
    assert_non_null(longer);
    memset(longer, 'b', MR_BPE_MAX_WORD + 1);
    const mr_str texts[] = {mr_str_of("one two one"), {"", 0}, at_limit, mr_str_of(longer)};
    const mr_bpe_options options = {.vocab_size = 1000};
    mr_bpe *bpe = train(&options, (source){.texts = texts, .n = 4});
    const mr_bpe_figures *found = mr_bpe_figures_of(bpe);
    assert_int_equal(found->texts, 4);
    assert_int_equal(found->bytes, 11 + 2 * MR_BPE_MAX_WORD + 1);
    assert_int_equal(found->words, 4); /* "one", " two", " one" and the a's */
    assert_int_equal(found->distinct_words, 4);
    assert_int_equal(found->left_out, 1);
    mr_tokenizer *tok = tokenizer_of(bpe);
    assert_true(mr_tokenizer_token_id(tok, "aa") >= 256);
    assert_int_equal(mr_tokenizer_token_id(tok, "bb"), -1);
    mr_tokenizer_close(tok);
    mr_bpe_free(bpe);
    free(longest);
    free(longer);
}

static void bytes_alone_are_a_vocabulary(void **state)
{
    (void)state;
    const char *const special[] = {"<|end|>"};
    const mr_bpe_options options = {.vocab_size = 257, .special = special, .n_special = 1};
    mr_bpe *bpe = train_on(&options, "aa aa aa");
    mr_tokenizer *tok = tokenizer_of(bpe);
    assert_int_equal(mr_bpe_figures_of(bpe)->merges, 0);
    assert_encodes(tok, mr_str_of("!a<|end|>"), MR_TOKENIZE_PARSE_SPECIAL, "1 65 0");
    mr_tokenizer_close(tok);
    mr_bpe_free(bpe);
}

static void special_tokens_come_first_and_no_text_can_spell_them(void **state)
{
    (void)state;
    const char *const special[] = {"<|endoftext|>", "<|yes|>", "<|no|>"};
    const mr_bpe_options options = {
        .vocab_size = 1000, .special = special, .n_special = 3, .end_of_text = "<|endoftext|>"};
    mr_bpe *bpe = train_on(&options, "<|yes|> <|yes|> <|no|> <|endoftext|> yes no");
    mr_tokenizer *tok = tokenizer_of(bpe);
    mr_error err = {0};
    mr_ids ids = {0};
    assert_encodes(tok, mr_str_of("<|no|><|endoftext|><|yes|>"), MR_TOKENIZE_PARSE_SPECIAL,
                   "2 0 1");
    assert_status(mr_tokenizer_encode(tok, mr_str_of("<|no|><|endoftext|><|yes|>"),
                                      MR_TOKENIZE_PLAIN, &ids, &err),
                  MR_OK, &err);
    for (size_t i = 0; i < ids.n; i++) {
        if (ids.data[i] < 3)
            fail_msg("plain text gave the special token %d", (int)ids.data[i]);
    }
    static const int32_t with_special[] = {2, 0, 1};
    assert_decodes(tok, with_special, 3, true, "");
    mr_ids_release(&ids);
    mr_tokenizer_close(tok);
    mr_bpe_free(bpe);
}

static void the_config_names_the_end_of_text_if_there_is_one(void **state)
{
    (void)state;
    const char *const special[] = {"<|pad|>", "<|\"end\"|>"};
    mr_error err = {0};
    for (int with = 0; with < 2; with++) {
        const mr_bpe_options options = {.vocab_size = 300,
                                        .special = special,
                                        .n_special = 2,
                                        .end_of_text = with ? special[1] : NULL};
        mr_bpe *bpe = train_on(&options, "some text");
        char *folder = test_folder_new();
        json_t *config = NULL;
        assert_status(mr_bpe_write(bpe, folder, &err), MR_OK, &err);
        assert_status(
            mr_json_load_file(&config, test_path(folder, "tokenizer_config.json"), 1 << 20, &err),
            MR_OK, &err);
        assert_string_equal(json_string_value(json_object_get(config, "tokenizer_class")),
                            "PreTrainedTokenizerFast");
        const char *found = json_string_value(json_object_get(config, "eos_token"));
        assert_string_equal(found ? found : "none", with ? special[1] : "none");
        json_decref(config);
        test_folder_free(folder);
        mr_bpe_free(bpe);
    }
}

/* ---- What is refused ---- */

static void options_that_cannot_be_are_refused_by_name(void **state)
{
    (void)state;
    static char too_long[300];
    memset(too_long, 'x', 256);
    static const char *const end[] = {"<|end|>"}, *const twice[] = {"<|a|>", "<|b|>", "<|a|>"},
                             *const empty[] = {"<|a|>", ""}, *const large[] = {too_long},
                             *const broken[] = {"<|\xFF|>"}, *const byte[] = {"<|a|>", "!"},
                             *const spelled[] = {"\xC4\xA0"}; /* U+0120, a blank */
    const struct {
        mr_bpe_options options;
        const char *message;
    } rows[] = {
        {{.vocab_size = 255},
         "a vocabulary of 255, expected from 256 (the 256 bytes and 0 special"},
        {{.vocab_size = 256, .special = end, .n_special = 1}, "expected from 257"},
        {{.vocab_size = -1}, "a vocabulary of -1"},
        {{.vocab_size = MR_BPE_MAX_VOCAB + 1}, "to 1048576"},
        {{.vocab_size = 300, .words = (mr_bpe_words)7}, "words 7"},
        {{.vocab_size = 300, .special = end, .n_special = MR_BPE_MAX_SPECIAL + 1},
         "65537 special tokens, expected at most 65536"},
        {{.vocab_size = 300, .special = twice, .n_special = 3}, "'<|a|>' is listed twice"},
        {{.vocab_size = 300, .special = empty, .n_special = 2}, "special token 1 ('') has 0 bytes"},
        {{.vocab_size = 300, .special = large, .n_special = 1}, "has 256 bytes, expected 1 to 255"},
        {{.vocab_size = 300, .special = broken, .n_special = 1}, "bytes of UTF-8"},
        {{.vocab_size = 300, .special = byte, .n_special = 2}, "spells the byte 0x21"},
        {{.vocab_size = 300, .special = spelled, .n_special = 1}, "spells the byte 0x20"},
        {{.vocab_size = 300, .special = end, .n_special = 1, .end_of_text = "<|eos|>"},
         "'<|eos|>' is not one of the special tokens"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mr_error err = {0};
        assert_status(try_on(&rows[i].options, mr_str_of("a text"), &err), MR_INVALID, &err);
        assert_contains(err.message, rows[i].message);
    }
}

static void a_special_token_that_merging_would_make_is_refused(void **state)
{
    (void)state;
    const char *const special[] = {"##"};
    const mr_bpe_options options = {.vocab_size = 300, .special = special, .n_special = 1};
    mr_error err = {0};
    assert_status(try_on(&options, mr_str_of("## ##"), &err), MR_INVALID, &err);
    assert_contains(err.message, "merging makes '##', which is a special token");
    assert_status(try_on(&options, mr_str_of("no such sign"), &err), MR_OK, &err);
}

static void texts_with_nothing_to_learn_from_are_refused(void **state)
{
    (void)state;
    const mr_bpe_options options = {.vocab_size = 300};
    const mr_str empty[] = {{"", 0}, {"", 0}};
    char *longer = calloc(1, 2 * MR_BPE_MAX_WORD);
    assert_non_null(longer);
    memset(longer, 'x', MR_BPE_MAX_WORD + 1);
    const mr_str too_long[] = {mr_str_of(longer)};
    const struct {
        source from;
        const char *message;
    } rows[] = {{{.n = 0}, "no words to learn from in 0 texts"},
                {{.texts = empty, .n = 2}, "in 2 texts (0 words over"},
                {{.texts = too_long, .n = 1}, "in 1 texts (1 words over 1024 bytes"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mr_error err = {0};
        mr_bpe *bpe = NULL;
        source from = rows[i].from;
        assert_status(mr_bpe_train(&bpe, &options, next_text, &from, &err), MR_INVALID, &err);
        assert_contains(err.message, rows[i].message);
        assert_null(bpe);
    }
    free(longer);
}

static void a_text_that_is_not_utf8_is_named_by_number_and_byte(void **state)
{
    (void)state;
    const mr_bpe_options options = {.vocab_size = 300};
    static const char *const broken[] = {"ab\xFF", "ab\xC3", "ab\xED\xA0\x80", "ab\xC0\xAF"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        const mr_str texts[] = {mr_str_of("fine"), {"", 0}, mr_str_of(broken[i])};
        mr_error err = {0};
        mr_bpe *bpe = NULL;
        source from = {.texts = texts, .n = 3};
        assert_status(mr_bpe_train(&bpe, &options, next_text, &from, &err), MR_INVALID, &err);
        assert_contains(err.message, "text 3: the text is not UTF-8: byte 2 is 0x");
        assert_null(bpe);
    }
}

static void a_failure_of_the_source_is_returned_as_it_is(void **state)
{
    (void)state;
    const mr_bpe_options options = {.vocab_size = 300};
    const mr_str texts[] = {mr_str_of("one"), mr_str_of("two")};
    mr_error err = {0};
    mr_bpe *bpe = NULL;
    source from = {.texts = texts, .n = 2, .fail_at = 2};
    assert_status(mr_bpe_train(&bpe, &options, next_text, &from, &err), MR_IO, &err);
    assert_string_equal(err.message, "the disk is gone");
    assert_null(bpe);
}

static void writing_where_no_folder_is_fails_and_says_where(void **state)
{
    (void)state;
    const mr_bpe_options options = {.vocab_size = 300};
    mr_bpe *bpe = train_on(&options, "a text");
    mr_error err = {0};
    char *folder = test_folder_new();
    const char *missing = test_path(folder, "missing");
    assert_int_not_equal(mr_bpe_write(bpe, missing, &err), MR_OK);
    assert_contains(err.message, "missing/tokenizer_config.json");
    assert_false(mr_file_exists(missing));
    test_folder_free(folder);
    mr_bpe_free(bpe);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    const char *const special[] = {"<|end|>"};
    const mr_bpe_options options = {
        .vocab_size = 330, .special = special, .n_special = 1, .words = MR_BPE_QWEN2};
    const mr_str texts[] = {mr_str_of("the ranker ranks the items that the user reads"),
                            mr_str_of("a text with other words, 1024 of them")};
    char *folder = test_folder_new();
    bool done = false;
    long k = 1;
    for (; !done; k++) {
        source from = {.texts = texts, .n = 2};
        mr_error err = {0};
        mr_bpe *bpe = NULL;
        alloc_fail_at(k);
        mr_status status = mr_bpe_train(&bpe, &options, next_text, &from, &err);
        assert_true((status == MR_OK) == (bpe != NULL));
        if (status == MR_OK)
            status = mr_bpe_write(bpe, folder, &err);
        done = !alloc_failed(); /* all that were asked for were given */
        mr_bpe_free(bpe);
        assert_status(status, done ? MR_OK : MR_NO_MEMORY, &err);
    }
    assert_true(k > 30);
    test_folder_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_is_the_librarys_to_the_byte_in_any_order_of_texts),
        cmocka_unit_test(the_engine_encodes_as_the_library_and_decodes_what_it_encoded),
        cmocka_unit_test(equal_counts_go_to_the_smaller_left_id_then_the_smaller_right_id),
        cmocka_unit_test(frequency_comes_before_ids_and_counts_follow_earlier_merges),
        cmocka_unit_test(training_ends_early_when_no_pair_is_frequent_enough),
        cmocka_unit_test(figures_count_texts_bytes_and_words),
        cmocka_unit_test(bytes_alone_are_a_vocabulary),
        cmocka_unit_test(special_tokens_come_first_and_no_text_can_spell_them),
        cmocka_unit_test(the_config_names_the_end_of_text_if_there_is_one),
        cmocka_unit_test(options_that_cannot_be_are_refused_by_name),
        cmocka_unit_test(a_special_token_that_merging_would_make_is_refused),
        cmocka_unit_test(texts_with_nothing_to_learn_from_are_refused),
        cmocka_unit_test(a_text_that_is_not_utf8_is_named_by_number_and_byte),
        cmocka_unit_test(a_failure_of_the_source_is_returned_as_it_is),
        cmocka_unit_test(writing_where_no_folder_is_fails_and_says_where),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
