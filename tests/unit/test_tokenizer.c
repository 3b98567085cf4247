/* test_tokenizer.c - the tokenizer's functions on small tokenizers whose ids can be checked by eye.
 *
 * The ids were also compared with those of the tokenizers library; test_tokenizer_reference.c does
 * that at length.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support.h"
#include "tests/unit/tokenizer_fixture.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define PARSE        MR_TOKENIZE_PARSE_SPECIAL
#define BYTE_LEVEL                                                                            \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":" \
    "false}"

typedef struct {
    const char *what;
    tokenizer_parts parts;
    const char *text;
    int flags;
    const char *ids;
} encode_row;

static void check_rows(const encode_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        mr_error err = {0};
        mr_ids ids = {0};
        mr_tokenizer *tok = tokenizer_new(&rows[i].parts);
        mr_status status =
            mr_tokenizer_encode(tok, mr_str_of(rows[i].text), rows[i].flags, &ids, &err);
        assert_status(status, MR_OK, &err);
        const char *found = ids_text(ids.data, ids.n);
        if (strcmp(found, rows[i].ids) != 0)
            fail_msg("%s: '%s' gives %s, expected %s", rows[i].what, rows[i].text, found,
                     rows[i].ids);
        mr_ids_release(&ids);
        mr_tokenizer_close(tok);
    }
}

static void merges_go_by_rank_then_from_the_left(void **state)
{
    (void)state;
#define AAA "\"a\":0,\"b\":1,\"aa\":2,\"ab\":3,\"aab\":4,\"aaa\":5"
    static const encode_row rows[] = {
        {"letters", {0}, "abcab", 0, "4 3"},
        {"nothing merges", {0}, "cba", 0, "2 1 0"},
        {"leftmost first", {.vocab = AAA, .merges = "\"a a\""}, "aaaaa", 0, "2 2 0"},
        {"lower rank first", {.vocab = AAA, .merges = "\"a b\",\"a a\""}, "aab", 0, "0 3"},
        {"then what it makes", {.vocab = AAA, .merges = "\"a b\",\"a ab\""}, "aab", 0, "4"},
        {"rank, not place", {.vocab = AAA, .merges = "\"aa b\",\"a a\""}, "aabaa", 0, "4 2"},
        {"pairs", {.vocab = AAA, .merges = "[\"a\",\"b\"],[\"a\",\"ab\"]"}, "aab", 0, "4"},
        {"the last of equal merges counts",
         {.vocab = AAA, .merges = "\"a a\",\"a b\",\"a a\""},
         "aab",
         0,
         "0 3"},
        {"a comment in the old format",
         {.vocab = AAA, .merges = "\"#version: 0.2\",\"a b\""},
         "ab",
         0,
         "3"},
        {"a token that no merge makes", {.vocab = AAA, .merges = "\"a b\""}, "aa", 0, "0 0"},
        {"found all the same with ignore_merges",
         {.vocab = AAA, .merges = "\"a b\"", .options = "\"ignore_merges\":true,"},
         "aa",
         0,
         "2"},
        {"but only as a whole piece",
         {.vocab = AAA, .merges = "\"a b\"", .options = "\"ignore_merges\":true,"},
         "aab",
         0,
         "4"},
    };
    check_rows(rows, COUNT(rows));
}

static void characters_without_a_token_become_bytes_or_unknown_or_vanish(void **state)
{
    (void)state;
#define UNK   "\"unk_token\":\"?\","
#define BYTES "\"a\":0,\"b\":1,\"ab\":2,\"?\":3,\"<0xC3>\":4,\"<0xA9>\":5,\"<0xC3><0xA9>\":6"
    static const encode_row rows[] = {
        {"they vanish", {0}, "axb", 0, "3"},
        {"unknown", {.options = UNK}, "axyb", 0, "0 6 6 1"},
        {"fused", {.options = UNK "\"fuse_unk\":true,"}, "xyaz", 0, "6 0 6"},
        {"bytes",
         {.options = UNK "\"byte_fallback\":true,", .vocab = BYTES, .merges = "\"a b\""},
         "ab\xC3\xA9",
         0,
         "2 4 5"},
        {"all bytes of a character or none",
         {.options = UNK "\"byte_fallback\":true,", .vocab = BYTES, .merges = "\"a b\""},
         "a\xC3\xAA"
         "b",
         0,
         "0 3 1"},
        {"byte tokens merge when the file says so",
         {.options = "\"byte_fallback\":true,",
          .vocab = BYTES,
          .merges = "\"a b\",\"<0xC3> <0xA9>\""},
         "\xC3\xA9",
         0,
         "6"},
        {"bytes do not wait for an unknown before them",
         {.options = UNK "\"byte_fallback\":true,", .vocab = BYTES, .merges = "\"a b\""},
         "x\xC3\xA9"
         "a",
         0,
         "4 5 3 0"},
    };
    check_rows(rows, COUNT(rows));
}

static void an_unknown_token_outside_the_vocabulary_is_an_error_when_needed(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_ids ids = {0};
    mr_tokenizer *tok = tokenizer_new(&(tokenizer_parts){.options = "\"unk_token\":\"<unk>\","});
    assert_encodes(tok, mr_str_of("abc"), 0, "4");
    assert_status(mr_tokenizer_encode(tok, mr_str_of("abx"), 0, &ids, &err), MR_CORRUPT, &err);
    assert_contains(err.message, "unk_token '<unk>' is not in the vocabulary");
    assert_int_equal(ids.n, 0);
    mr_ids_release(&ids);
    mr_tokenizer_close(tok);
}

static void added_tokens_are_found_leftmost_and_longest(void **state)
{
    (void)state;
#define TWO ADDED(7, "<x>") "," ADDED(8, "<x><y>")
    static const encode_row rows[] = {
        {"plain text does not have them", {.added = TWO}, "a<x>b", 0, "3"},
        {"found", {.added = TWO}, "a<x>b", PARSE, "0 7 1"},
        {"the longest", {.added = TWO}, "<x><y><x>", PARSE, "8 7"},
        {"in the vocabulary", {.added = ADDED(3, "ab")}, "cabab", PARSE, "2 3 3"},
        {"words",
         {.added = ADDED_AS(7, "cab", true, false, false, false, true)},
         "cab,acab cabc cab",
         PARSE,
         "7 0 2 4 4 7"},
        {"lstrip",
         {.added = ADDED_AS(7, "<m>", false, true, false, false, true)},
         "a_ \t<m> b",
         PARSE,
         "0 5 7 1"},
        {"rstrip",
         {.added = ADDED_AS(7, "<m>", false, false, true, false, true)},
         "a <m> \n\xC2\xA0"
         "b",
         PARSE,
         "0 7 1"},
        {"blanks are taken once",
         {.added = ADDED_AS(7, " ", false, true, true, false, true)},
         "a   b",
         PARSE,
         "0 7 1"},
        {"normalised text is searched too",
         {.added = ADDED_AS(7, "a b", false, false, false, true, true),
          .normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"_\"}"},
         "ca ba_b",
         PARSE,
         "2 7 7"},
    };
    check_rows(rows, COUNT(rows));
}

static void pre_tokenisers_cut_as_the_library_does(void **state)
{
    (void)state;
#define SPLIT(pattern, behavior, invert)                                                           \
    "{\"type\":\"Split\",\"pattern\":" pattern ",\"behavior\":\"" behavior "\",\"invert\":" invert \
    "}"
#define ON_C        "{\"String\":\"c\"}"
#define DIGIT_VOCAB "\"a\":0,\"1\":1,\"2\":2,\"12\":3,\"a1\":4"
    /* Without a cut "abcabc" is 4 4. */
    static const encode_row rows[] = {
        {"isolated",
         {.pre_tokenizer = SPLIT(ON_C, "Isolated", "false")},
         "abcabcc",
         0,
         "3 2 3 2 2"},
        {"removed", {.pre_tokenizer = SPLIT(ON_C, "Removed", "false")}, "abcabcc", 0, "3 3"},
        {"removed and inverted",
         {.pre_tokenizer = SPLIT(ON_C, "Removed", "true")},
         "abcabcc",
         0,
         "2 2 2"},
        {"with the one before",
         {.pre_tokenizer = SPLIT(ON_C, "MergedWithPrevious", "false")},
         "abcabcc",
         0,
         "4 4 2"},
        {"with the next",
         {.pre_tokenizer = SPLIT(ON_C, "MergedWithNext", "false")},
         "abcabcc",
         0,
         "3 2 3 2 2"},
        {"contiguous",
         {.pre_tokenizer = SPLIT(ON_C, "Contiguous", "false")},
         "abcabcc",
         0,
         "3 2 3 2 2"},
        {"a regex",
         {.pre_tokenizer = SPLIT("{\"Regex\":\"b|(?<=b)c\"}", "Isolated", "false")},
         "abcab",
         0,
         "0 1 2 0 1"},
        {"digits one by one",
         {.pre_tokenizer = "{\"type\":\"Digits\",\"individual_digits\":true}",
          .vocab = DIGIT_VOCAB,
          .merges = "\"1 2\",\"a 1\""},
         "a12",
         0,
         "0 1 2"},
        {"digits together",
         {.pre_tokenizer = "{\"type\":\"Digits\",\"individual_digits\":false}",
          .vocab = DIGIT_VOCAB,
          .merges = "\"1 2\",\"a 1\""},
         "a12",
         0,
         "0 3"},
        {"none", {.vocab = DIGIT_VOCAB, .merges = "\"a 1\",\"1 2\""}, "a12", 0, "4 2"},
    };
    check_rows(rows, COUNT(rows));
}

static void metaspace_marks_starts_as_its_scheme_says(void **state)
{
    (void)state;
#define METASPACE(scheme, split)                                                 \
    "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"" scheme \
    "\",\"split\":" split "}"
#define META_VOCAB "\"a\":0,\"_\":1,\"_a\":2,\"a_\":3,\"<s>\":4"
#define META(scheme, split)                                             \
    {                                                                   \
        .pre_tokenizer = METASPACE(scheme, split), .vocab = META_VOCAB, \
        .merges = "\"a _\",\"_ a\"", .added = ADDED(4, "<s>")           \
    }
    static const encode_row rows[] = {
        {"first", META("first", "true"), "a a<s>a", PARSE, "2 2 4 0"},
        {"first is asked of the whole text", META("first", "true"), "<s>a", PARSE, "4 0"},
        {"always", META("always", "true"), "a a<s>a", PARSE, "2 2 4 2"},
        {"never", META("never", "true"), "a a<s>a", PARSE, "0 2 4 0"},
        {"not doubled", META("always", "true"), " a", 0, "2"},
        {"unsplit", META("always", "false"), "a a", 0, "1 3 0"},
    };
    check_rows(rows, COUNT(rows));
}

static void nfc_composes_and_reorders(void **state)
{
    (void)state;
#define NFC "{\"type\":\"NFC\"}"
#define NFC_VOCAB                                                                                 \
    "\"e\":0,\"\xC3\xA9\":1,\"\xCC\x81\":2,\"\xCC\xA3\":3,\"\xE1\xBA\xB9\":4,\"\xEA\xB0\x80\":5," \
    "\"\xEA\xB0\x81\":6,\"\xC3\x85\":7"
    static const encode_row rows[] = {
        {"composed", {.normalizer = NFC, .vocab = NFC_VOCAB, .merges = ""}, "e\xCC\x81", 0, "1"},
        {"already", {.normalizer = NFC, .vocab = NFC_VOCAB, .merges = ""}, "\xC3\xA9", 0, "1"},
        {"reordered",
         {.normalizer = NFC, .vocab = NFC_VOCAB, .merges = ""},
         "e\xCC\x81\xCC\xA3",
         0,
         "4 2"},
        {"marks alone are put in order",
         {.normalizer = NFC, .vocab = NFC_VOCAB, .merges = ""},
         "\xCC\x81\xCC\xA3",
         0,
         "3 2"},
        {"jamo",
         {.normalizer = NFC, .vocab = NFC_VOCAB, .merges = ""},
         "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8",
         0,
         "6"},
        {"a syllable and a final consonant",
         {.normalizer = NFC, .vocab = NFC_VOCAB, .merges = ""},
         "\xEA\xB0\x80\xE1\x86\xA8",
         0,
         "6"},
        {"a singleton",
         {.normalizer = NFC, .vocab = NFC_VOCAB, .merges = ""},
         "\xE2\x84\xAB",
         0,
         "7"},
    };
    check_rows(rows, COUNT(rows));
}

static void the_post_processor_runs_on_request_only(void **state)
{
    (void)state;
    const tokenizer_parts parts = {
        .added = ADDED(7, "<s>") "," ADDED(8, "</s>"),
        .post_processor =
            "{\"type\":\"Sequence\",\"processors\":[" BYTE_LEVEL
            ",{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\","
            "\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":"
            "\"</s>\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\","
            "\"ids\":[7],\"tokens\":[\"<s>\"]},\"</s>\":{\"id\":\"</s>\",\"ids\":[8,8],\"tokens\":["
            "\"</s>\",\"</s>\"]}}}]}"};
    mr_tokenizer *tok = tokenizer_new(&parts);
    assert_encodes(tok, mr_str_of("ab"), MR_TOKENIZE_ADD_SPECIAL, "7 3 8 8");
    assert_encodes(tok, mr_str_of("ab"), MR_TOKENIZE_PLAIN, "3");
    assert_encodes(tok, mr_str_of(""), MR_TOKENIZE_ADD_SPECIAL, "7 8 8");
    mr_tokenizer_close(tok);
}

static void encode_appends_and_takes_nul_and_refuses_what_is_not_utf8(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_ids ids = {0};
    mr_tokenizer *tok = tokenizer_new(&(tokenizer_parts){.options = "\"unk_token\":\"?\","});
    const int32_t before[] = {70, 71};
    assert_status(mr_ids_append(&ids, before, 2, &err), MR_OK, &err);
    assert_status(mr_tokenizer_encode(tok, (mr_str){"ab\0c", 4}, 0, &ids, &err), MR_OK, &err);
    assert_string_equal(ids_text(ids.data, ids.n), "70 71 3 6 2");
    static const struct {
        const char *text;
        const char *message;
    } bad[] = {
        {"ab\xFF", "byte 2 is 0xFF"},
        {"abc\xC3", "byte 3 is 0xC3"},
        {"\xED\xA0\x80", "byte 0 is 0xED"},
        {"a\xC0\x80", "byte 1 is 0xC0"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_status(mr_tokenizer_encode(tok, mr_str_of(bad[i].text), PARSE, &ids, &err),
                      MR_INVALID, &err);
        assert_contains(err.message, bad[i].message);
        assert_string_equal(ids_text(ids.data, ids.n), "70 71 3 6 2");
    }
    assert_status(mr_tokenizer_encode(tok, (mr_str){NULL, 0}, PARSE, &ids, &err), MR_OK, &err);
    assert_int_equal(ids.n, 5);
    mr_ids_release(&ids);
    mr_tokenizer_close(tok);
}

static void tokens_are_looked_up_both_ways(void **state)
{
    (void)state;
    mr_tokenizer *tok = tokenizer_new(&(tokenizer_parts){
        .added = ADDED(8, "<s>"), .vocab = LETTERS_VOCAB ",\"far\":12", .merges = LETTERS_MERGES});
    assert_int_equal(mr_tokenizer_vocab_size(tok), 13);
    assert_int_equal(mr_tokenizer_token_id(tok, "abc"), 4);
    assert_int_equal(mr_tokenizer_token_id(tok, "<s>"), 8);
    assert_int_equal(mr_tokenizer_token_id(tok, "abcd"), -1);
    assert_int_equal(mr_tokenizer_token_id(tok, ""), -1);
    assert_string_equal(mr_tokenizer_token(tok, 8), "<s>");
    assert_string_equal(mr_tokenizer_token(tok, 12), "far");
    assert_null(mr_tokenizer_token(tok, 9)); /* a hole */
    assert_null(mr_tokenizer_token(tok, 13));
    assert_null(mr_tokenizer_token(tok, -1));
    mr_tokenizer_close(tok);
}

static void open_takes_a_file_or_its_folder(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    char *json = tokenizer_json(&(tokenizer_parts){0});
    const char *path = test_path(folder, "tokenizer.json");
    const char *tries[] = {folder, path};
    mr_error err = {0};
    mr_tokenizer *tok = NULL;
    for (size_t i = 0; i < COUNT(tries); i++) {
        assert_status(mr_tokenizer_open(&tok, tries[i], &err), MR_NOT_FOUND, &err);
        assert_contains(err.message, path);
        assert_null(tok);
    }
    test_file_write(path, json, strlen(json));
    for (size_t i = 0; i < COUNT(tries); i++) {
        assert_status(mr_tokenizer_open(&tok, tries[i], &err), MR_OK, &err);
        assert_encodes(tok, mr_str_of("ab"), 0, "3");
        mr_tokenizer_close(tok);
    }
    mr_tokenizer_close(NULL);
    free(json);
    test_folder_free(folder);
}

typedef struct {
    mr_strbuf list; /* "word|word|" */
    size_t stop_after;
} word_list;

static mr_status add_word(void *context, mr_str word, mr_error *err)
{
    word_list *words = context;
    if (words->stop_after && --words->stop_after == 0)
        return MR_FAIL(err, CANCELLED, "enough");
    mr_strbuf_append(&words->list, word.data, word.len);
    mr_strbuf_puts(&words->list, "|");
    return MR_OK;
}

static void words_are_what_bpe_merges_each_on_its_own(void **state)
{
    (void)state;
    mr_tokenizer *tok = tokenizer_new(
        &(tokenizer_parts){.added = ADDED(7, "<s>"),
                           .normalizer = "{\"type\":\"NFC\"}",
                           .pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                                            "\"trim_offsets\":true,\"use_regex\":true}"});
    const struct {
        const char *text, *words;
        size_t stop_after;
        mr_status status;
    } rows[] = {{"ab  it's 12\n", "ab| | it|'s| 12|\n|", 0, MR_OK},
                {"e\xCC\x81<s>x", "\xC3\xA9|<|s|>|x|", 0, MR_OK}, /* composed; no added token */
                {"", "", 0, MR_OK},
                {"a b c", "a| b|", 3, MR_CANCELLED},
                {"a \xFF", "", 0, MR_INVALID}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        word_list words = {.stop_after = rows[i].stop_after};
        mr_error err = {0};
        assert_status(mr_tokenizer_words(tok, mr_str_of(rows[i].text), add_word, &words, &err),
                      rows[i].status, &err);
        assert_string_equal(words.list.data ? words.list.data : "", rows[i].words);
        mr_strbuf_release(&words.list);
    }
    mr_tokenizer_close(tok);
    assert_int_equal(mr_tokenizer_byte_char(' '), 0x120);
    assert_int_equal(mr_tokenizer_byte_char('a'), 'a');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_go_by_rank_then_from_the_left),
        cmocka_unit_test(characters_without_a_token_become_bytes_or_unknown_or_vanish),
        cmocka_unit_test(an_unknown_token_outside_the_vocabulary_is_an_error_when_needed),
        cmocka_unit_test(added_tokens_are_found_leftmost_and_longest),
        cmocka_unit_test(pre_tokenisers_cut_as_the_library_does),
        cmocka_unit_test(metaspace_marks_starts_as_its_scheme_says),
        cmocka_unit_test(nfc_composes_and_reorders),
        cmocka_unit_test(the_post_processor_runs_on_request_only),
        cmocka_unit_test(encode_appends_and_takes_nul_and_refuses_what_is_not_utf8),
        cmocka_unit_test(tokens_are_looked_up_both_ways),
        cmocka_unit_test(open_takes_a_file_or_its_folder),
        cmocka_unit_test(words_are_what_bpe_merges_each_on_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
