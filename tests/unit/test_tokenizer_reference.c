/* test_tokenizer_reference.c - the same ids and texts as the tokenizers library, for a tokenizer of
 * every family and some hundred texts that some tokenizer once got wrong (data/tokenizers).
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/jsonl.h"
#include "core/rng.h"
#include "core/utf8.h"
#include "engine/tokenizer_private.h"
#include "tests/support.h"

#define ROOT "data/tokenizers/"

static const char *const cases[] = {"gpt2",         "qwen2",    "qwen3-embedding",    "llama3",
                                    "smollm2",      "llama-sp", "llama-sp-metaspace", "added-flags",
                                    "nfc-lowercase"};
#define N_CASES (sizeof cases / sizeof *cases)

static mr_tokenizer *open_case(const char *name)
{
    char path[256];
    mr_tokenizer *tok = NULL;
    mr_error err = {0};
    snprintf(path, sizeof path, ROOT "%s", name);
    assert_status(mr_tokenizer_open(&tok, path, &err), MR_OK, &err);
    return tok;
}

/* Rows of data/tokenizers/<name>/<file>, handed to check one by one; returns how many. */
typedef void (*row_check)(const mr_tokenizer *tok, const json_t *row, const char *where);
static size_t each_row(const char *name, const char *file, row_check check)
{
    char path[256];
    mr_error err = {0};
    mr_jsonl reader;
    json_t *row;
    size_t n = 0;
    mr_tokenizer *tok = open_case(name);
    snprintf(path, sizeof path, ROOT "%s/%s", name, file);
    assert_status(mr_jsonl_open(&reader, path, MR_JSONL_MAX_LINE, &err), MR_OK, &err);
    for (;; n++) {
        assert_status(mr_jsonl_next(&reader, &row, &err), MR_OK, &err);
        if (!row)
            break;
        char where[300];
        snprintf(where, sizeof where, "%s line %llu", path, (unsigned long long)reader.line_number);
        check(tok, row, where);
        json_decref(row);
    }
    mr_jsonl_close(&reader);
    mr_tokenizer_close(tok);
    return n;
}

static mr_str string_at(const json_t *row, const char *key)
{
    const json_t *value = json_object_get(row, key);
    assert_true(json_is_string(value));
    return (mr_str){json_string_value(value), json_string_length(value)};
}

static void check_ids(const mr_tokenizer *tok, const json_t *row, const char *key, int flags,
                      const char *where)
{
    const json_t *want = json_object_get(row, key);
    mr_error err = {0};
    mr_ids ids = {0};
    assert_true(json_is_array(want));
    assert_status(mr_tokenizer_encode(tok, string_at(row, "text"), flags, &ids, &err), MR_OK, &err);
    for (size_t i = 0; i < ids.n || i < json_array_size(want); i++) {
        const int found = i < ids.n ? (int)ids.data[i] : -1;
        const int wanted =
            i < json_array_size(want) ? (int)json_integer_value(json_array_get(want, i)) : -1;
        if (found != wanted)
            fail_msg("%s: %s[%zu] is %d, expected %d", where, key, i, found, wanted);
    }
    mr_ids_release(&ids);
}

static void check_text(const mr_tokenizer *tok, const json_t *row, const char *key, bool skip,
                       const char *where)
{
    const json_t *list = json_object_get(row, "ids");
    const mr_str want = string_at(row, key);
    const size_t n = json_array_size(list);
    mr_error err = {0};
    char *text = NULL;
    size_t len = 0;
    int32_t *ids = calloc(n + 1, sizeof *ids);
    assert_non_null(ids);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    assert_status(mr_tokenizer_decode(tok, ids, n, skip, &text, &len, &err), MR_OK, &err);
    if (!mr_str_equal((mr_str){text, len}, want))
        fail_msg("%s: %s is '%s', expected '%.*s'", where, key, text, (int)want.len, want.data);
    free(text);
    free(ids);
}

static void check_case(const mr_tokenizer *tok, const json_t *row, const char *where)
{
    check_ids(tok, row, "ids", MR_TOKENIZE_PARSE_SPECIAL, where);
    check_ids(tok, row, "ids_add_special", MR_TOKENIZE_PARSE_SPECIAL | MR_TOKENIZE_ADD_SPECIAL,
              where);
    check_ids(tok, row, "ids_no_special_parsing", MR_TOKENIZE_PLAIN, where);
    check_text(tok, row, "decoded", false, where);
    check_text(tok, row, "decoded_skip_special", true, where);
    /* Once more, now that the tokenizer has made its notes about whole words. */
    check_ids(tok, row, "ids", MR_TOKENIZE_PARSE_SPECIAL, where);
}

static void check_decode(const mr_tokenizer *tok, const json_t *row, const char *where)
{
    check_text(tok, row, "decoded", false, where);
    check_text(tok, row, "decoded_skip_special", true, where);
}

static void every_text_gives_the_ids_of_the_library_and_comes_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++)
        assert_true(each_row(cases[i], "cases.jsonl", check_case) > 20);
}

static void ids_that_no_text_gives_decode_as_in_the_library(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++)
        assert_true(each_row(cases[i], "decode.jsonl", check_decode) > 10);
}

/* Text that normalisation leaves alone comes back byte for byte from byte-level tokenizers. */
static void check_round_trip(const mr_tokenizer *tok, const json_t *row, const char *where)
{
    const mr_str text = string_at(row, "text");
    mr_error err = {0};
    mr_ids ids = {0};
    char *back = NULL;
    size_t len = 0;
    assert_status(mr_tokenizer_encode(tok, text, MR_TOKENIZE_PLAIN, &ids, &err), MR_OK, &err);
    assert_status(mr_tokenizer_decode(tok, ids.data, ids.n, false, &back, &len, &err), MR_OK, &err);
    if (!mr_str_equal((mr_str){back, len}, text))
        fail_msg("%s: came back as '%s'", where, back);
    free(back);
    mr_ids_release(&ids);
}

static void byte_level_tokenizers_give_every_text_back(void **state)
{
    (void)state;
    static const char *const lossless[] = {"gpt2", "llama3", "smollm2"};
    for (size_t i = 0; i < sizeof lossless / sizeof *lossless; i++)
        assert_true(each_row(lossless[i], "cases.jsonl", check_round_trip) > 20);
}

/* ---- The first ids ---- */

static void check_first(const mr_tokenizer *tok, const json_t *row, const char *where)
{
    const mr_str text = string_at(row, "text");
    mr_error err = {0};
    mr_ids all = {0}, first = {0};
    assert_status(mr_tokenizer_encode(tok, text, MR_TOKENIZE_PLAIN, &all, &err), MR_OK, &err);
    for (size_t most = 0; most <= all.n + 1; most += 1 + most / 8) {
        const size_t wanted = most < all.n ? most : all.n;
        first.n = 0;
        assert_status(mr_tokenizer_encode_first(tok, text, MR_TOKENIZE_PLAIN, most, &first, &err),
                      MR_OK, &err);
        if (first.n < wanted ||
            (wanted && memcmp(first.data, all.data, wanted * sizeof *all.data) != 0))
            fail_msg("%s: the first %zu of %zu ids are others", where, wanted, all.n);
    }
    mr_ids_release(&all);
    mr_ids_release(&first);
}

static void the_first_ids_are_those_of_the_whole_text(void **state)
{
    (void)state;
    static const char *const some[] = {"qwen2", "llama-sp", "nfc-lowercase"};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        assert_true(each_row(some[i], "cases.jsonl", check_first) > 20);
}

/* ---- Lower case, character by character ---- */

typedef struct {
    char bytes[8];
    size_t len;
} spelled;

/* What each character of the library's list becomes; empty: it is not in the list. */
static spelled lower_of[0x110000];

static void note_lower(const mr_tokenizer *tok, const json_t *row, const char *where)
{
    (void)tok;
    const mr_str text = string_at(row, "text"), lower = string_at(row, "lower");
    size_t at = 0;
    for (size_t i = 0; i < text.len; i += mr_tok_char_size((unsigned char)text.data[i])) {
        const uint32_t character = mr_tok_code_point(text.data + i);
        spelled *to = &lower_of[character];
        to->len = mr_tok_char_size((unsigned char)lower.data[at]);
        if (character == 0x130) /* an i and a combining dot */
            to->len += 2;
        assert_true(at + to->len <= lower.len);
        memcpy(to->bytes, lower.data + at, to->len);
        at += to->len;
    }
    if (at != lower.len)
        fail_msg("%s: %zu bytes of %zu belong to no character", where, lower.len - at, lower.len);
}

static void every_character_has_the_lower_case_of_the_library(void **state)
{
    (void)state;
    mr_strbuf out = {0};
    size_t n = 0;
    assert_true(each_row("nfc-lowercase", "lowercase.jsonl", note_lower) > 20);
    for (uint32_t c = 0; c < 0x110000; c++) {
        char text[4];
        const size_t len = mr_utf8_encode(c, text);
        bool changed = false;
        mr_strbuf_clear(&out);
        mr_tok_lowercase((mr_str){text, len}, &out, &changed);
        if (changed != (lower_of[c].len > 0) || out.len != lower_of[c].len ||
            memcmp(out.len ? out.data : "", lower_of[c].bytes, out.len) != 0)
            fail_msg("U+%04X becomes '%.*s', expected '%.*s'", (unsigned)c, (int)out.len,
                     out.len ? out.data : "", (int)lower_of[c].len, lower_of[c].bytes);
        n += changed;
    }
    assert_true(n > 1400);
    assert_false(out.failed);
    mr_strbuf_release(&out);
}

/* ---- The scanners against the regexes that they stand for ---- */

static void compare_cuts(const char *regex, mr_str text, const mr_tok_classes *classes)
{
    mr_error err = {0};
    mr_tok_pattern by_hand = {0}, compiled = {0};
    mr_tok_matcher matcher = {0};
    assert_status(mr_tok_pattern_regex(&by_hand, "test", mr_str_of(regex), true, &err), MR_OK,
                  &err);
    assert_status(mr_tok_pattern_regex(&compiled, "test", mr_str_of(regex), false, &err), MR_OK,
                  &err);
    assert_int_equal(by_hand.kind, MR_PATTERN_SCAN);
    assert_int_equal(compiled.kind, MR_PATTERN_REGEX);
    mr_tok_search a = {&by_hand, classes, &matcher, text, 0, SIZE_MAX, 0};
    mr_tok_search b = {&compiled, classes, &matcher, text, 0, SIZE_MAX, 0};
    for (bool more = true; more;) {
        size_t start[2] = {0, 0}, end[2] = {0, 0};
        bool found[2];
        assert_status(mr_tok_search_next(&a, &found[0], &start[0], &end[0], &err), MR_OK, &err);
        assert_status(mr_tok_search_next(&b, &found[1], &start[1], &end[1], &err), MR_OK, &err);
        if (found[0] != found[1] || start[0] != start[1] || end[0] != end[1])
            fail_msg("'%s' cuts %zu..%zu of '%.*s' by hand, %zu..%zu by PCRE2", regex, start[0],
                     end[0], (int)text.len, text.data, start[1], end[1]);
        more = found[0];
    }
    mr_tok_matcher_done(&matcher);
    mr_tok_pattern_done(&by_hand);
    mr_tok_pattern_done(&compiled);
}

static void scanners_cut_where_the_regexes_do(void **state)
{
    (void)state;
    static const char *const regexes[] = {MR_TOK_GPT2_REGEX, MR_TOK_QWEN2_REGEX,
                                          MR_TOK_LLAMA3_REGEX};
    /* What the alternatives of the regexes tell apart, and what looks like it. */
    static const char *const parts[] = {"a",
                                        "B",
                                        "it",
                                        "'",
                                        "'s",
                                        "'S",
                                        "'\xC5\xBF",
                                        "'re",
                                        "'LL",
                                        "'v",
                                        "1",
                                        "12",
                                        "\xC2\xBD",
                                        " ",
                                        "  ",
                                        "\t",
                                        "\n",
                                        "\r\n",
                                        "\xC2\xA0",
                                        "\xE3\x80\x80",
                                        ".",
                                        "!?",
                                        "_",
                                        "\xE6\xBC\xA2",
                                        "e\xCC\x81",
                                        "\xCC\x81",
                                        "\xF0\x9F\x98\x80",
                                        "\xD9\xA3",
                                        "\xE1\xA0\x8E",
                                        "\x1c",
                                        "\xC2\x85"};
    mr_error err = {0};
    mr_arena arena = {0};
    mr_tok_classes classes;
    mr_rng rng = mr_rng_seed(5);
    assert_status(mr_tok_classes_init(&classes, &arena, false, &err), MR_OK, &err);
    for (int i = 0; i < 3000; i++) {
        char text[256];
        size_t len = 0;
        for (uint64_t n = mr_rng_below(&rng, 14); n > 0; n--) {
            const char *part = parts[mr_rng_below(&rng, sizeof parts / sizeof *parts)];
            memcpy(text + len, part, strlen(part));
            len += strlen(part);
        }
        for (size_t r = 0; r < 3; r++)
            compare_cuts(regexes[r], (mr_str){text, len}, &classes);
    }
    mr_arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_text_gives_the_ids_of_the_library_and_comes_back),
        cmocka_unit_test(ids_that_no_text_gives_decode_as_in_the_library),
        cmocka_unit_test(byte_level_tokenizers_give_every_text_back),
        cmocka_unit_test(the_first_ids_are_those_of_the_whole_text),
        cmocka_unit_test(every_character_has_the_lower_case_of_the_library),
        cmocka_unit_test(scanners_cut_where_the_regexes_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
