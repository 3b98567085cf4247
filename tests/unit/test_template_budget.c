/* test_template_budget.c - what gives way when a prompt is longer than its budget.
 *
 * Reference data: data/reranker/scores.jsonl, whose "ids_plain" follow the published code of
 * Qwen3-Reranker: the body is tokenised as one text, cut from the right to the room between two
 * fixed parts.
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
#include "encoders/template.h"
#include "tests/support.h"

static mr_tokenizer *open_tokenizer(const char *path)
{
    mr_tokenizer *tokenizer = NULL;
    mr_error err = {0};
    assert_status(mr_tokenizer_open(&tokenizer, path, &err), MR_OK, &err);
    return tokenizer;
}

static mr_template *compile(const mr_tokenizer *tokenizer, const char *json)
{
    json_t *segments = NULL;
    mr_template *tmpl = NULL;
    mr_error err = {0};
    assert_status(mr_json_parse(&segments, json, mr_str_of(json), &err), MR_OK, &err);
    assert_status(mr_template_compile(&tmpl, "test", segments, tokenizer, &err), MR_OK, &err);
    json_decref(segments);
    return tmpl;
}

static size_t fixed_tokens(const mr_template *tmpl, const mr_template_input *input)
{
    size_t n = SIZE_MAX;
    mr_error err = {0};
    assert_status(mr_template_fixed_tokens(tmpl, input, &n, &err), MR_OK, &err);
    return n;
}

#define FIELD(n, v)            \
    {                          \
        {(n), sizeof(n) - 1},  \
        {                      \
            (v), sizeof(v) - 1 \
        }                      \
    }

/* The letters of a field are tokens of one byte each: digits, which qwen2 never merges. */
static const mr_field digits[] = {FIELD("a", "1234"), FIELD("b", "567"), FIELD("title", "89012")};

/* The prompt as text: digits as they are, a slot as '.', the token with id 0 ('!') as itself. */
static void spell(const mr_tokenizer *tokenizer, const mr_ids *ids, char *out)
{
    for (size_t i = 0; i < ids->n; i++) {
        const char *token =
            ids->data[i] == MR_ID_EMBED ? "." : mr_tokenizer_token(tokenizer, ids->data[i]);
        assert_non_null(token);
        assert_int_equal(strlen(token), 1);
        out[i] = token[0];
    }
    out[ids->n] = '\0';
}

static void segments_give_way_last_first(void **state)
{
    static const char plain[] = "[{\"field\":\"a\"},{\"token\":0},{\"field\":\"b\"}]";
    static const char both[] = "[{\"field\":\"a\",\"truncate\":true},{\"token\":0},"
                               "{\"field\":\"b\",\"truncate\":true}]";
    static const char first[] = "[{\"field\":\"a\",\"truncate\":true},{\"token\":0},"
                                "{\"field\":\"b\"}]";
    static const char bounded[] = "[{\"field\":\"a\",\"max_tokens\":2},{\"token\":0},"
                                  "{\"field\":\"title\",\"max_tokens\":3,\"truncate\":true}]";
    static const char joined[] =
        "[{\"slot\":\"item\"},{\"join\":[{\"field\":\"a\"},{\"field\":\"b\"}],"
        "\"max_tokens\":5,\"truncate\":true},{\"token\":0}]";
    static const struct {
        const char *json;
        size_t max_tokens;
        bool cut_rest;
        const char *spelled; /* NULL: EXHAUSTED */
        const char *cut;     /* per piece: '+' truncated, '-' whole */
    } row[] = {
        {plain, 0, false, "1234!567", "---"}, {plain, 8, false, "1234!567", "---"},
        {plain, 7, false, NULL, NULL},        {plain, 7, true, "1234!56", "--+"},
        {plain, 5, true, "1234!", "--+"},     {plain, 4, true, "1234", "-++"},
        {plain, 1, true, "1", "+++"},         {both, 8, false, "1234!567", "---"},
        {both, 7, false, "1234!56", "--+"},   {both, 5, false, "1234!", "--+"},
        {both, 4, false, "123!", "+-+"},      {both, 1, false, "!", "+-+"},
        {both, 1, true, "!", "+-+"},          {first, 8, false, "1234!567", "---"},
        {first, 6, false, "12!567", "+--"},   {first, 4, false, "!567", "+--"},
        {first, 3, false, NULL, NULL},        {first, 3, true, "!56", "+-+"},
        {bounded, 0, false, "12!890", "+-+"}, {bounded, 6, false, "12!890", "+-+"},
        {bounded, 5, false, "12!89", "+-+"},  {bounded, 3, false, "12!", "+-+"},
        {bounded, 2, false, NULL, NULL},      {joined, 0, false, "..12345!", "-+-"},
        {joined, 5, false, "..12!", "-+-"},   {joined, 3, false, "..!", "-+-"},
        {joined, 2, false, NULL, NULL},       {joined, 2, true, "..", "-++"},
        {joined, 1, true, NULL, NULL}, /* a slot is never cut */
    };
    (void)state;
    mr_tokenizer *tokenizer = open_tokenizer("data/tokenizers/qwen2/tokenizer.json");
    assert_string_equal(mr_tokenizer_token(tokenizer, 0), "!");
    mr_prompt prompt = {0};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_template *tmpl = compile(tokenizer, row[i].json);
        const mr_template_input input = {.fields = {digits, 3},
                                         .slot_tokens = {[MR_SLOT_ITEM] = 2},
                                         .max_tokens = row[i].max_tokens,
                                         .cut_rest = row[i].cut_rest};
        mr_error err = {0};
        mr_status status = mr_template_expand(tmpl, &input, &prompt, &err);
        if (!row[i].spelled) {
            assert_status(status, MR_EXHAUSTED, &err);
            assert_contains(err.message, "the budget is ");
        } else {
            char text[32], cut[8] = "";
            assert_status(status, MR_OK, &err);
            spell(tokenizer, &prompt.ids, text);
            size_t end = 0;
            for (size_t k = 0; k < prompt.n_pieces; k++) {
                cut[k] = prompt.piece[k].truncated ? '+' : '-';
                assert_int_equal(prompt.piece[k].begin, end);
                end += prompt.piece[k].n;
            }
            cut[prompt.n_pieces] = '\0';
            assert_int_equal(end, prompt.ids.n);
            if (strcmp(text, row[i].spelled) != 0 || strcmp(cut, row[i].cut) != 0)
                fail_msg("row %zu, budget %zu: '%s' %s, expected '%s' %s", i, row[i].max_tokens,
                         text, cut, row[i].spelled, row[i].cut);
        }
        mr_template_free(tmpl);
    }
    mr_prompt_release(&prompt);
    mr_tokenizer_close(tokenizer);
}

static void fixed_tokens_are_those_that_cannot_give_way(void **state)
{
    static const struct {
        const char *json;
        size_t user, n;
    } row[] = {
        {"[]", 0, 0},
        {"[\"12\",{\"token\":0}]", 0, 3},
        {"[{\"field\":\"a\"}]", 0, 4},
        {"[{\"field\":\"a\",\"truncate\":true}]", 0, 0},
        {"[{\"field\":\"a\",\"max_tokens\":3}]", 0, 3},
        {"[{\"field\":\"a\",\"max_tokens\":9}]", 0, 4},
        {"[{\"field\":\"none\"}]", 0, 0},
        {"[{\"join\":[{\"field\":\"a\"},\"00\"]}]", 0, 6},
        {"[{\"join\":[{\"field\":\"a\"},\"00\"],\"truncate\":true},{\"token\":0}]", 0, 1},
        {"[{\"token\":0,\"when\":\"title\"},{\"token\":0,\"when\":\"none\"}]", 0, 1},
        {"[{\"slot\":\"user\",\"when\":\"user\"},{\"token\":0}]", 5, 6},
        {"[{\"slot\":\"user\",\"when\":\"user\"},{\"token\":0}]", 0, 1},
    };
    (void)state;
    mr_tokenizer *tokenizer = open_tokenizer("data/tokenizers/qwen2/tokenizer.json");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_template *tmpl = compile(tokenizer, row[i].json);
        const mr_template_input input = {.fields = {digits, 3},
                                         .slot_tokens = {[MR_SLOT_USER] = row[i].user},
                                         .max_tokens = 1}; /* not looked at */
        size_t n = fixed_tokens(tmpl, &input);
        if (n != row[i].n)
            fail_msg("%s: %zu fixed tokens, expected %zu", row[i].json, n, row[i].n);
        mr_template_free(tmpl);
    }
    /* What an expansion would refuse is refused here, too. */
    mr_template *tmpl = compile(tokenizer, "[{\"slot\":\"user\"}]");
    const mr_template_input none = {.max_tokens = 0};
    size_t n = 77;
    mr_error err = {0};
    assert_status(mr_template_fixed_tokens(tmpl, &none, &n, &err), MR_INVALID, &err);
    assert_contains(err.message, "slot 'user' has no embedding tokens");
    assert_int_equal(n, 77);
    mr_template_free(tmpl);
    mr_tokenizer_close(tokenizer);
}

/* Qwen3-Reranker's prompt as two templates that share a budget, as a bundle has them. */
static const char reranker_prefix[] =
    "[\"<|im_start|>system\\nJudge whether the Document meets the requirements based on the Query "
    "and the Instruct provided. Note that the answer can only be \\\"yes\\\" or \\\"no\\\"."
    "<|im_end|>\\n<|im_start|>user\\n\","
    "{\"join\":[\"<Instruct>: \",{\"field\":\"instruction\"},\"\\n<Query>: \","
    "{\"field\":\"query\"},\"\\n<Document>:\"],\"truncate\":true}]";
static const char reranker_suffix[] =
    "[{\"join\":[\" \",{\"field\":\"document\"}],\"truncate\":true},"
    "\"<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n\"]";

typedef struct {
    mr_tokenizer *tokenizer;
    mr_template *prefix, *suffix;
    mr_prompt prompt;
} reranker;

static reranker open_reranker(void)
{
    reranker r = {.tokenizer = open_tokenizer("data/reranker/tokenizer.json")};
    r.prefix = compile(r.tokenizer, reranker_prefix);
    r.suffix = compile(r.tokenizer, reranker_suffix);
    return r;
}

static void close_reranker(reranker *r)
{
    mr_prompt_release(&r->prompt);
    mr_template_free(r->prefix);
    mr_template_free(r->suffix);
    mr_tokenizer_close(r->tokenizer);
}

/* Appends prefix and suffix to ids, the way ranker/model shares max_length between them. */
static void expand_pair(reranker *r, const mr_template_input *base, size_t max_length, mr_ids *ids)
{
    mr_template_input input = *base;
    mr_error err = {0};
    input.max_tokens = max_length - fixed_tokens(r->suffix, &input);
    assert_status(mr_template_expand(r->prefix, &input, &r->prompt, &err), MR_OK, &err);
    assert_status(mr_ids_append(ids, r->prompt.ids.data, r->prompt.ids.n, &err), MR_OK, &err);
    input.max_tokens = max_length - r->prompt.ids.n;
    assert_status(mr_template_expand(r->suffix, &input, &r->prompt, &err), MR_OK, &err);
    assert_status(mr_ids_append(ids, r->prompt.ids.data, r->prompt.ids.n, &err), MR_OK, &err);
}

static mr_str text_of(const json_t *row, const char *key)
{
    const json_t *value = json_object_get(row, key);
    if (json_is_null(value)) /* the published default */
        return mr_str_of(
            "Given a web search query, retrieve relevant passages that answer the query");
    assert_true(json_is_string(value));
    return (mr_str){json_string_value(value), json_string_length(value)};
}

static void the_published_prompt_of_the_reranker_comes_out(void **state)
{
    (void)state;
    reranker r = open_reranker();
    mr_jsonl reader;
    mr_error err = {0};
    json_t *row = NULL;
    size_t n_rows = 0, n_cut = 0;
    assert_status(mr_jsonl_open(&reader, "data/reranker/scores.jsonl", MR_JSONL_MAX_LINE, &err),
                  MR_OK, &err);
    while (assert_status(mr_jsonl_next(&reader, &row, &err), MR_OK, &err), row) {
        const mr_field fields[] = {
            {mr_str_of("instruction"), text_of(row, "instruction")},
            {mr_str_of("query"), text_of(row, "query")},
            {mr_str_of("document"), text_of(row, "document")},
        };
        const mr_template_input input = {.fields = {fields, 3}};
        const size_t max_length = (size_t)json_integer_value(json_object_get(row, "max_length"));
        const json_t *want = json_object_get(row, "ids_plain");
        mr_ids ids = {0};
        expand_pair(&r, &input, max_length, &ids);
        if (ids.n != json_array_size(want))
            fail_msg("row %zu: %zu ids, expected %zu", n_rows, ids.n, json_array_size(want));
        for (size_t i = 0; i < ids.n; i++)
            assert_int_equal(ids.data[i], json_integer_value(json_array_get(want, i)));
        n_cut += ids.n == max_length;
        n_rows++;
        mr_ids_release(&ids);
        json_decref(row);
    }
    mr_jsonl_close(&reader);
    assert_true(n_rows >= 10);
    assert_true(n_cut >= 2);
    close_reranker(&r);
}

static void every_budget_cuts_the_body_as_one_text(void **state)
{
    static const mr_field fields[] = {
        FIELD("instruction", "Find the item, 12 or 34"), FIELD("query", "red  kettle \xc3\xa9"),
        FIELD("document", "\n  The kettle's 3 lids. \xf0\x9f\x98\x80")};
    const mr_template_input input = {.fields = {fields, 3}};
    static const char body[] = "<Instruct>: Find the item, 12 or 34\n<Query>: red  kettle \xc3\xa9"
                               "\n<Document>: \n  The kettle's 3 lids. \xf0\x9f\x98\x80";
    (void)state;
    reranker r = open_reranker();
    mr_error err = {0};
    const size_t head = fixed_tokens(r.prefix, &input);
    const size_t tail = fixed_tokens(r.suffix, &input);
    mr_ids whole = {0};
    assert_status(
        mr_tokenizer_encode(r.tokenizer, mr_str_of(body), MR_TOKENIZE_PLAIN, &whole, &err), MR_OK,
        &err);
    assert_true(whole.n > 20);
    for (size_t room = 0; room <= whole.n + 2; room++) {
        const size_t kept = room < whole.n ? room : whole.n;
        mr_ids ids = {0};
        expand_pair(&r, &input, head + room + tail, &ids);
        assert_int_equal(ids.n, head + kept + tail);
        for (size_t i = 0; i < kept; i++) {
            if (ids.data[head + i] != whole.data[i])
                fail_msg("room for %zu: body token %zu is %d, expected %d", room, i,
                         (int)ids.data[head + i], (int)whole.data[i]);
        }
        assert_int_equal(ids.data[head + kept], mr_tokenizer_token_id(r.tokenizer, "<|im_end|>"));
        mr_ids_release(&ids);
    }
    mr_ids_release(&whole);
    close_reranker(&r);
}

/* Whatever the text, a bound keeps the first of the tokens that the whole text has. */
static void a_bound_never_changes_the_tokens_before_it(void **state)
{
    static const char *const names[] = {"gpt2", "qwen2", "llama3", "smollm2", "llama-sp"};
    static const size_t bounds[] = {1, 2, 3, 5, 8, 13, 40};
    (void)state;
    mr_prompt prompt = {0};
    for (size_t t = 0; t < sizeof names / sizeof *names; t++) {
        char path[96];
        snprintf(path, sizeof path, "data/tokenizers/%s/tokenizer.json", names[t]);
        mr_tokenizer *tokenizer = open_tokenizer(path);
        mr_template *by_budget = compile(tokenizer, "[{\"field\":\"text\",\"truncate\":true}]");
        snprintf(path, sizeof path, "data/tokenizers/%s/cases.jsonl", names[t]);
        mr_jsonl reader;
        mr_error err = {0};
        json_t *row = NULL;
        size_t n_cut = 0;
        assert_status(mr_jsonl_open(&reader, path, MR_JSONL_MAX_LINE, &err), MR_OK, &err);
        while (assert_status(mr_jsonl_next(&reader, &row, &err), MR_OK, &err), row) {
            const mr_field field = {mr_str_of("text"), text_of(row, "text")};
            const json_t *want = json_object_get(row, "ids_no_special_parsing");
            const size_t n = json_array_size(want);
            for (size_t b = 0; b < sizeof bounds / sizeof *bounds; b++) {
                char json[96];
                snprintf(json, sizeof json, "[{\"field\":\"text\",\"max_tokens\":%zu}]", bounds[b]);
                mr_template *by_segment = compile(tokenizer, json);
                const mr_template_input inputs[] = {
                    {.fields = {&field, 1}},
                    {.fields = {&field, 1}, .max_tokens = bounds[b]},
                };
                const size_t kept = n < bounds[b] ? n : bounds[b];
                for (size_t k = 0; k < 2; k++) {
                    const mr_template *tmpl = k ? by_budget : by_segment;
                    assert_status(mr_template_expand(tmpl, &inputs[k], &prompt, &err), MR_OK, &err);
                    assert_int_equal(prompt.ids.n, kept);
                    assert_int_equal(prompt.piece[0].truncated, n > bounds[b]);
                    for (size_t i = 0; i < kept; i++) {
                        if (prompt.ids.data[i] != json_integer_value(json_array_get(want, i)))
                            fail_msg("%s, '%s', bound %zu: id %zu is %d, expected %d", names[t],
                                     json_string_value(json_object_get(row, "name")), bounds[b], i,
                                     (int)prompt.ids.data[i],
                                     (int)json_integer_value(json_array_get(want, i)));
                    }
                }
                n_cut += n > bounds[b];
                mr_template_free(by_segment);
            }
            json_decref(row);
        }
        assert_true(n_cut > 100);
        mr_jsonl_close(&reader);
        mr_template_free(by_budget);
        mr_tokenizer_close(tokenizer);
    }
    mr_prompt_release(&prompt);
}

static void a_long_field_is_cut_to_its_first_tokens(void **state)
{
    (void)state;
    mr_tokenizer *tokenizer = open_tokenizer("data/tokenizers/qwen2/tokenizer.json");
    mr_template *tmpl =
        compile(tokenizer, "[{\"field\":\"query\",\"max_tokens\":12},{\"token\":0}]");
    static const char words[] = "The red kettle boils 3 cups of water. ";
    const size_t len = (size_t)1 << 20;
    char *text = malloc(len);
    assert_non_null(text);
    for (size_t i = 0; i < len; i++)
        text[i] = words[i % (sizeof words - 1)];
    const mr_field field = {mr_str_of("query"), {text, len}};
    const mr_template_input input = {.fields = {&field, 1}};
    mr_prompt prompt = {0};
    mr_error err = {0};
    mr_ids want = {0};
    assert_status(mr_template_expand(tmpl, &input, &prompt, &err), MR_OK, &err);
    assert_status(
        mr_tokenizer_encode(tokenizer, (mr_str){text, 2000}, MR_TOKENIZE_PLAIN, &want, &err), MR_OK,
        &err);
    assert_int_equal(prompt.ids.n, 13);
    assert_memory_equal(prompt.ids.data, want.data, 12 * sizeof *want.data);
    assert_int_equal(prompt.ids.data[12], 0);
    assert_true(prompt.piece[0].truncated);
    mr_ids_release(&want);
    mr_prompt_release(&prompt);
    free(text);
    mr_template_free(tmpl);
    mr_tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segments_give_way_last_first),
        cmocka_unit_test(fixed_tokens_are_those_that_cannot_give_way),
        cmocka_unit_test(the_published_prompt_of_the_reranker_comes_out),
        cmocka_unit_test(every_budget_cuts_the_body_as_one_text),
        cmocka_unit_test(a_bound_never_changes_the_tokens_before_it),
        cmocka_unit_test(a_long_field_is_cut_to_its_first_tokens),
    };
    return cmocka_run_group_tests_name("template_budget", tests, NULL, NULL);
}
