/* test_tokenizer_refused.c - files that are wrong, hostile, or ask for what is not computed: one
 * clear message each. And texts on which a regex would run away.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>

#include "tests/support.h"
#include "tests/unit/tokenizer_fixture.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define BYTE_LEVEL   "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true}"
#define REGEX(text)                                                                       \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" text "\"},\"behavior\":\"Isolated\"," \
    "\"invert\":false}"
#define TEMPLATE(single, special)                          \
    "{\"type\":\"TemplateProcessing\",\"single\":[" single \
    "],\"pair\":[],\"special_tokens\":{" special "}}"
#define TEXT_A     "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}"
#define SPECIAL(s) "{\"SpecialToken\":{\"id\":\"" s "\",\"type_id\":0}}"

typedef struct {
    tokenizer_parts parts;
    mr_status status;
    const char *message;
} refusal;

static void check_refusals(const refusal *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        mr_error err = {0};
        mr_tokenizer *tok = NULL;
        mr_status status = tokenizer_try(&tok, &rows[i].parts, &err);
        if (status != rows[i].status || !strstr(err.message, rows[i].message))
            fail_msg("row %zu is %s '%s', expected %s and '%s'", i, mr_status_name(status),
                     err.message, mr_status_name(rows[i].status), rows[i].message);
        assert_null(tok);
        assert_contains(err.message, "t.json");
    }
}

static void vocabularies_that_cannot_be(void **state)
{
    (void)state;
    static const refusal rows[] = {
        {{.vocab = "\"a\":0,\"b\":0", .merges = ""}, MR_CORRUPT, "'a' and 'b' both have id 0"},
        {{.vocab = "\"a\":-1", .merges = ""}, MR_CORRUPT, "'a' is the number -1"},
        {{.vocab = "\"a\":4194304", .merges = ""}, MR_CORRUPT, "expected an id from 0 to 4194303"},
        {{.vocab = "\"a\":99999999999999999999", .merges = ""}, MR_CORRUPT, "expected an id"},
        {{.vocab = "\"a\":1.5", .merges = ""}, MR_CORRUPT, "expected an id"},
        {{.vocab = "\"a\":\"0\"", .merges = ""}, MR_CORRUPT, "'a' is the string \"0\""},
        {{.vocab = "\"a\":0,\"a\":1", .merges = ""}, MR_CORRUPT, "duplicate"},
        {{.vocab = " ", .merges = ""}, MR_CORRUPT, "model.vocab has 0 tokens"},
        {{.merges = "\"a z\""}, MR_CORRUPT, "model.merges[0] joins 'z', which is not in"},
        {{.merges = "\"a b\",\"b c\""}, MR_CORRUPT, "model.merges[1] makes 'bc', which is not in"},
        {{.merges = "\"ab\""}, MR_CORRUPT, "merges[0] is the string \"ab\", expected two tokens"},
        {{.merges = "\"a b c\""}, MR_CORRUPT, "expected two tokens with a space between"},
        {{.merges = "\"a b\",[\"a\",\"b\"]"}, MR_CORRUPT, "merges[1] is an array"},
        {{.merges = "[\"a\",\"b\",\"c\"]"}, MR_CORRUPT, "expected a list of two tokens"},
        {{.merges = "[\"a\",1]"}, MR_CORRUPT, "expected a list of two tokens"},
        {{.merges = "{}"}, MR_CORRUPT, "merges[0] is an object"},
        {{.added = ADDED(8, "<s>")},
         MR_CORRUPT,
         "'<s>' has id 8, where the tokenizers library "
         "gives it 7"},
        {{.added = ADDED(4, "ab")}, MR_CORRUPT, "the vocabulary has it so"},
        {{.added = ADDED(5000000, "x")}, MR_INVALID, "'id' is the number 5000000"},
        {{.added = ADDED(7, "x") "," ADDED(8, "x")}, MR_CORRUPT, "'x' is there twice"},
        {{.added = ADDED(7, "")}, MR_CORRUPT, "added_tokens[0]: 'content' is empty"},
        {{.added = "{\"id\":7,\"content\":\"x\"}"}, MR_INVALID, "'single_word' is missing"},
        {{.added = "7"}, MR_INVALID, "added_tokens[0]: is the number 7, expected an object"},
        {{.added = ADDED_AS(7, "_", false, false, false, true,
                            true) "," ADDED_AS(8, " ", false, false, false, true, true),
          .vocab = "\"a\":0,\"1\":1,\"2\":2,\"3\":3,\"4\":4,\"5\":5,\"6\":6",
          .merges = "",
          .normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"_\"}"},
         MR_CORRUPT,
         "are searched for with the same text"},
        {{.added = ADDED_AS(7, "Tok", false, false, false, true,
                            false) "," ADDED_AS(8, "tOK", false, false, false, true, false),
          .normalizer = "{\"type\":\"Lowercase\"}"},
         MR_CORRUPT,
         "the added tokens 'Tok' and 'tOK' are searched for with the same text"},
    };
    check_refusals(rows, COUNT(rows));
}

static void what_is_not_computed_is_refused_by_name(void **state)
{
    (void)state;
    static const refusal rows[] = {
        {{.options = "\"dropout\":0.1,"}, MR_UNSUPPORTED, "'dropout' makes ids random"},
        {{.options = "\"continuing_subword_prefix\":\"##\","},
         MR_UNSUPPORTED,
         "'continuing_subword_prefix' is '##', expected null"},
        {{.options = "\"end_of_word_suffix\":\"</w>\","},
         MR_UNSUPPORTED,
         "'end_of_word_suffix' is '</w>'"},
        {{.options = "\"new_option\":1,"}, MR_UNSUPPORTED, "the key 'new_option' is not known"},
        {{.normalizer = "{\"type\":\"NFKC\"}"},
         MR_UNSUPPORTED,
         "normalizer: the type 'NFKC' is not supported; known are NFC"},
        {{.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":"
                        "\"NFKC\"}]}"},
         MR_UNSUPPORTED,
         "normalizer.normalizers[1]: the type 'NFKC'"},
        {{.normalizer = "{\"type\":\"NFC\",\"form\":2}"}, MR_UNSUPPORTED, "the key 'form'"},
        {{.normalizer = "{\"type\":\"Lowercase\",\"language\":\"tr\"}"},
         MR_UNSUPPORTED,
         "the key 'language'"},
        {{.normalizer = "{\"type\":\"Prepend\",\"prepend\":\"\"}"}, MR_UNSUPPORTED, "is empty"},
        {{.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"x\"}"},
         MR_UNSUPPORTED,
         "an empty pattern"},
        {{.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a*\"},\"content\":\"x\"}"},
         MR_UNSUPPORTED,
         "'a*' may match an empty text"},
        {{.pre_tokenizer = "{\"type\":\"Whitespace\"}"}, MR_UNSUPPORTED, "type 'Whitespace'"},
        {{.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[" BYTE_LEVEL
                           ",{\"type\":\"Digits\",\"individual_digits\":true}]}"},
         MR_UNSUPPORTED,
         "pretokenizers[1]: a step after ByteLevel"},
        {{.normalizer = "{\"type\":\"Prepend\",\"prepend\":\"_\"}",
          .pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":"
                           "\"first\"}"},
         MR_UNSUPPORTED,
         "'prepend_scheme' is 'first' after a step that inserts"},
        {{.pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"__\"}"},
         MR_INVALID,
         "'replacement' is '__', expected one character"},
        {{.pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":"
                           "false}"},
         MR_CORRUPT,
         "'add_prefix_space' is false"},
        {{.decoder = "{\"type\":\"WordPiece\"}"}, MR_UNSUPPORTED, "decoder: the type 'WordPiece'"},
        {{.post_processor = "{\"type\":\"RobertaProcessing\"}"},
         MR_UNSUPPORTED,
         "post_processor: the type 'RobertaProcessing'"},
        {{.post_processor = TEMPLATE("", "")}, MR_UNSUPPORTED, "'single' holds the text nowhere"},
        {{.post_processor = TEMPLATE(TEXT_A "," TEXT_A, "")},
         MR_UNSUPPORTED,
         "'single' holds the text twice"},
        {{.post_processor = TEMPLATE("{\"Sequence\":{\"id\":\"B\",\"type_id\":0}}", "")},
         MR_UNSUPPORTED,
         "the sequence 'B', expected 'A'"},
        {{.post_processor = TEMPLATE(SPECIAL("<s>") "," TEXT_A, "")},
         MR_CORRUPT,
         "'single' uses '<s>', which is not in 'special_tokens'"},
        {{.post_processor = TEMPLATE(SPECIAL("x") "," TEXT_A,
                                     "\"x\":{\"id\":\"x\",\"ids\":[70],\"tokens\":[\"x\"]}")},
         MR_CORRUPT,
         "ids[0] is the number 70, expected the id of a token"},
    };
    check_refusals(rows, COUNT(rows));
}

static void the_frame_of_the_file_is_checked(void **state)
{
    (void)state;
#define MODEL "\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}"
    static const struct {
        const char *json;
        mr_status status; /* MR_OK: accepted */
        const char *message;
    } rows[] = {
        {"{" MODEL "}", MR_OK, ""},
        {"{\"padding\":{\"strategy\":\"BatchLongest\",\"pad_to_multiple_of\":null}," MODEL "}",
         MR_OK, ""},
        {"", MR_CORRUPT, "empty"},
        {"[]", MR_INVALID, "is an array, expected an object"},
        {"null", MR_CORRUPT, "expected near 'null'"},
        {"{}", MR_INVALID, "'model' is missing"},
        {"{\"model\":{\"vocab\":{\"a\":0}}}", MR_INVALID, "'merges' is missing"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", MR_UNSUPPORTED,
         "model type 'Unigram', expected 'BPE'"},
        {"{\"version\":\"2.0\"," MODEL "}", MR_UNSUPPORTED, "version '2.0'"},
        {"{\"truncation\":{\"max_length\":512}," MODEL "}", MR_UNSUPPORTED,
         "'truncation' is set, expected null"},
        {"{\"padding\":{\"strategy\":{\"Fixed\":8}}," MODEL "}", MR_UNSUPPORTED,
         "'padding' is set"},
        {"{\"extra\":1," MODEL "}", MR_UNSUPPORTED, "the key 'extra' is not known"},
        {"{\"model\":{\"vocab\":{\"a\\u0000\":0},\"merges\":[]}}", MR_CORRUPT, "NUL"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        mr_error err = {0};
        mr_tokenizer *tok = NULL;
        assert_status(mr_tokenizer_parse(&tok, "t.json", mr_str_of(rows[i].json), &err),
                      rows[i].status, &err);
        assert_contains(err.message, rows[i].message);
        assert_true((tok != NULL) == (rows[i].status == MR_OK));
        mr_tokenizer_close(tok);
    }
}

static void regexes_that_pcre2_reads_otherwise_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *regex; /* as JSON has it */
        mr_status status;
        const char *message;
    } rows[] = {
        {"\\\\p{L}+|[^\\\\s\\\\d]?a{2,3}?|(?i:'s|ll)|(?<=b)c|\\\\x{e9}|\\\\u00e9|[a-c_-]", MR_OK,
         ""},
        {"[!\\\"#$%&'()*+,\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+", MR_OK, ""},
        {"\\\\h+", MR_UNSUPPORTED, "uses '\\h' at byte 0"},
        {"a\\\\w", MR_UNSUPPORTED, "uses '\\w' at byte 1"},
        {"\\\\bab", MR_UNSUPPORTED, "uses '\\b'"},
        {"(a)\\\\1", MR_UNSUPPORTED, "uses '\\1'"},
        {"(?<n>a)", MR_UNSUPPORTED, "uses '(?<n'"},
        {"(*FAIL)", MR_UNSUPPORTED, "uses '(*'"},
        {"a(?i)b", MR_UNSUPPORTED, "uses '(?i)'"},
        {"(?m:a.b)", MR_UNSUPPORTED, "uses '(?m:'"},
        {"a{1,2}+", MR_UNSUPPORTED, "uses '+'"},
        {"a**", MR_UNSUPPORTED, "uses '*'"},
        {"a{2}?", MR_UNSUPPORTED, "uses '?'"},
        {"a{x", MR_UNSUPPORTED, "uses '{x'"},
        {"[a&&b]", MR_UNSUPPORTED, "uses '&&'"},
        {"[[:alpha:]]", MR_UNSUPPORTED, "uses '[:'"},
        {"[a-c-e]", MR_UNSUPPORTED, "uses '-e'"},
        {"[]a]", MR_UNSUPPORTED, "uses ']'"},
        {"\\\\xe9", MR_UNSUPPORTED, "uses '\\xe9'"},
        {"\\\\p{Letter", MR_UNSUPPORTED, "uses '\\p{L'"},
        {"\\\\p{Alnum}", MR_UNSUPPORTED, "uses '\\p{Alnum}'"},
        {"\\\\p{Nonsense}", MR_UNSUPPORTED, "PCRE2 does not take the regex"},
        {"(?i:ss)", MR_UNSUPPORTED, "ignores the case of 'ss', which one character may stand for"},
        {"(?i:\\u00e9)", MR_UNSUPPORTED, "ignores the case of U+00E9"},
        {"(?i:[^a])", MR_UNSUPPORTED, "uses '^'"},
        {"(a", MR_CORRUPT, "has a '(' without its ')'"},
        {"a)", MR_CORRUPT, "has a ')' too many"},
        {"[a", MR_CORRUPT, "has a '[' without its ']'"},
        {"(?:(?:ab){1000}){1000}", MR_UNSUPPORTED, "regular expression is too large"},
        {"a\\\\", MR_UNSUPPORTED, "uses '\\' at byte 1"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char json[512];
        mr_error err = {0};
        mr_tokenizer *tok = NULL;
        snprintf(json, sizeof json,
                 "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},"
                 "\"behavior\":\"Isolated\",\"invert\":false}," MODEL "}",
                 rows[i].regex);
        mr_status status = mr_tokenizer_parse(&tok, "t.json", mr_str_of(json), &err);
        if (status != rows[i].status || !strstr(err.message, rows[i].message))
            fail_msg("'%s' is %s '%s', expected %s and '%s'", rows[i].regex, mr_status_name(status),
                     err.message, mr_status_name(rows[i].status), rows[i].message);
        mr_tokenizer_close(tok);
    }
}

static void a_regex_that_runs_away_is_stopped(void **state)
{
    (void)state;
    static const struct {
        const char *pre_tokenizer;
        char fill;
        size_t len;
        const char *message;
    } rows[] = {
        {REGEX("(a+)+$"), 'a', 5000, "match limit exceeded"},
        {REGEX("(?:a?){30}a{30}"), 'a', 30, "match limit exceeded"},
        {REGEX("a+x|a"), 'a', 300000, "it reads the same text over and over"},
        {REGEX("a+[^a]"), 'a', 300000, "it reads the same text over and over"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        mr_error err = {0};
        mr_ids ids = {0};
        mr_tokenizer *tok =
            tokenizer_new(&(tokenizer_parts){.pre_tokenizer = rows[i].pre_tokenizer});
        char *text = malloc(rows[i].len + 1);
        assert_non_null(text);
        memset(text, rows[i].fill, rows[i].len);
        text[rows[i].len] = 'b';
        assert_status(
            mr_tokenizer_encode(tok, (mr_str){text, rows[i].len + (i == 0)}, 0, &ids, &err),
            MR_EXHAUSTED, &err);
        assert_contains(err.message, rows[i].message);
        assert_int_equal(ids.n, 0);
        free(text);
        mr_ids_release(&ids);
        mr_tokenizer_close(tok);
    }
}

/* A file with a bit of everything. */
static char *full_json(void)
{
    return tokenizer_json(&(tokenizer_parts){
        .added = ADDED(7, "<s>") "," ADDED_AS(8, "x_y", true, true, true, true, false),
        .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":"
                      "\"Prepend\",\"prepend\":\"_\"},{\"type\":\"Replace\",\"pattern\":{"
                      "\"String\":\" \"},\"content\":\"_\"}]}",
        .pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[" REGEX(
            "_?[^_]+") ",{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"Metaspace\","
                       "\"replacement\":\"_\",\"prepend_scheme\":\"always\",\"split\":true}]}",
        .post_processor = TEMPLATE(SPECIAL("<s>") "," TEXT_A,
                                   "\"<s>\":{\"id\":\"<s>\",\"ids\":[7],\"tokens\":[\"<s>\"]}"),
        .decoder = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{"
                   "\"String\":\"_\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":"
                   "\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}",
        .options = "\"dropout\":null,\"unk_token\":\"?\",\"fuse_unk\":true,\"byte_fallback\":true,"
                   "\"ignore_merges\":false,",
    });
}

static void a_file_cut_anywhere_is_an_error(void **state)
{
    (void)state;
    char *json = full_json();
    const size_t whole = strlen(json);
    for (size_t len = 0; len <= whole; len++) {
        mr_error err = {0};
        mr_tokenizer *tok = NULL;
        /* A block of exactly this length: a sanitizer sees a byte read too many. */
        char *cut = malloc(len ? len : 1);
        assert_non_null(cut);
        memcpy(cut, json, len);
        mr_status status = mr_tokenizer_parse(&tok, "t.json", (mr_str){cut, len}, &err);
        assert_int_equal(status == MR_OK, len == whole);
        assert_true(status == MR_OK || err.message[0] != '\0');
        mr_tokenizer_close(tok);
        free(cut);
    }
    free(json);
}

/* Replaces the n-th value below `value`, counting from 0; false when there are not so many. */
static bool replace_nth(json_t *value, size_t *n, json_t *by)
{
    const char *key;
    void *next;
    json_t *child;
    size_t i;
    if (json_is_object(value)) {
        json_object_foreach_safe(value, next, key, child)
        {
            if ((*n)-- == 0)
                return json_object_set(value, key, by) == 0;
            if (replace_nth(child, n, by))
                return true;
        }
    }
    json_array_foreach(value, i, child)
    {
        if ((*n)-- == 0)
            return json_array_set(value, i, by) == 0;
        if (replace_nth(child, n, by))
            return true;
    }
    return false;
}

static void any_value_of_a_wrong_type_is_read_or_refused(void **state)
{
    (void)state;
    static const char *const values[] = {"null",
                                         "true",
                                         "-1",
                                         "3.5",
                                         "1e99",
                                         "\"\"",
                                         "\"x\"",
                                         "[]",
                                         "[[]]",
                                         "{}",
                                         "{\"type\":\"NFC\"}"};
    char *json = full_json();
    size_t refused = 0, n_values = 0;
    for (size_t v = 0; v < COUNT(values); v++) {
        json_t *by = json_loads(values[v], JSON_DECODE_ANY, NULL);
        for (size_t nth = 0;; nth++) {
            json_t *root = json_loads(json, 0, NULL);
            size_t left = nth;
            const bool there = replace_nth(root, &left, by);
            char *changed = there ? json_dumps(root, 0) : NULL;
            json_decref(root);
            if (!there)
                break;
            mr_error err = {0};
            mr_tokenizer *tok = NULL;
            mr_ids ids = {0};
            mr_status status = mr_tokenizer_parse(&tok, "t.json", mr_str_of(changed), &err);
            if (status != MR_OK) {
                assert_true(strlen(err.message) > 10);
                refused++;
            } else {
                status = mr_tokenizer_encode(tok, mr_str_of("ab <s> x_y12"), 3, &ids, &err);
                assert_true(status == MR_OK || err.message[0] != '\0');
            }
            n_values++;
            mr_ids_release(&ids);
            mr_tokenizer_close(tok);
            free(changed);
        }
        json_decref(by);
    }
    assert_true(n_values > 900);
    assert_true(refused > n_values * 3 / 4);
    free(json);
}

static void ids_that_are_no_tokens_do_not_decode(void **state)
{
    (void)state;
    static const struct {
        int32_t id;
        const char *message;
    } rows[] = {
        {-1, "id -1 at place 1 is no token"},
        {13, "id 13 at place 1 is no token; ids go to 12"},
        {9, "id 9 at place 1"},
        {INT32_MAX, "id 2147483647"},
    };
    mr_tokenizer *tok = tokenizer_new(&(tokenizer_parts){.vocab = LETTERS_VOCAB ",\"far\":12"});
    for (size_t i = 0; i < COUNT(rows); i++) {
        mr_error err = {0};
        char *text = NULL;
        size_t len = 0;
        const int32_t ids[2] = {0, rows[i].id};
        assert_status(mr_tokenizer_decode(tok, ids, 2, false, &text, &len, &err), MR_INVALID, &err);
        assert_contains(err.message, rows[i].message);
        assert_null(text);
    }
    mr_tokenizer_close(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vocabularies_that_cannot_be),
        cmocka_unit_test(what_is_not_computed_is_refused_by_name),
        cmocka_unit_test(the_frame_of_the_file_is_checked),
        cmocka_unit_test(regexes_that_pcre2_reads_otherwise_are_refused),
        cmocka_unit_test(a_regex_that_runs_away_is_stopped),
        cmocka_unit_test(a_file_cut_anywhere_is_an_error),
        cmocka_unit_test(any_value_of_a_wrong_type_is_read_or_refused),
        cmocka_unit_test(ids_that_are_no_tokens_do_not_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
