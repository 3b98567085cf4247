/* test_template.c - compiling templates, expanding them, and what hostile text cannot do to them.
 *
 * Budgets are in test_template_budget.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encoders/template.h"
#include "tests/support.h"

static const char *const tokenizers[] = {
    "gpt2",    "qwen2",    "qwen3-embedding",    "llama3",
    "smollm2", "llama-sp", "llama-sp-metaspace", "added-flags",
};
#define N_TOKENIZERS (sizeof tokenizers / sizeof *tokenizers)

static mr_tokenizer *open_tokenizer(const char *name)
{
    char folder[64];
    mr_tokenizer *tokenizer = NULL;
    mr_error err = {0};
    snprintf(folder, sizeof folder, "data/tokenizers/%s", name);
    assert_status(mr_tokenizer_open(&tokenizer, test_path(folder, "tokenizer.json"), &err), MR_OK,
                  &err);
    return tokenizer;
}

static mr_status try_compile(const mr_tokenizer *tokenizer, const char *json, mr_template **out,
                             mr_error *err)
{
    json_t *segments = NULL;
    assert_status(mr_json_parse(&segments, json, mr_str_of(json), err), MR_OK, err);
    mr_status status = mr_template_compile(out, "prefix", segments, tokenizer, err);
    json_decref(segments);
    return status;
}

static mr_template *compile(const mr_tokenizer *tokenizer, const char *json)
{
    mr_template *tmpl = NULL;
    mr_error err = {0};
    assert_status(try_compile(tokenizer, json, &tmpl, &err), MR_OK, &err);
    return tmpl;
}

static void expand(const mr_template *tmpl, const mr_template_input *input, mr_prompt *prompt)
{
    mr_error err = {0};
    assert_status(mr_template_expand(tmpl, input, prompt, &err), MR_OK, &err);
}

static void append(const mr_tokenizer *tokenizer, const char *text, int flags, mr_ids *ids)
{
    mr_error err = {0};
    assert_status(mr_tokenizer_encode(tokenizer, mr_str_of(text), flags, ids, &err), MR_OK, &err);
}

static void append_id(mr_ids *ids, int32_t id)
{
    mr_error err = {0};
    assert_status(mr_ids_append(ids, &id, 1, &err), MR_OK, &err);
}

static void assert_ids(const mr_ids *got, const mr_ids *want)
{
    size_t i = 0;
    while (i < got->n && i < want->n && got->data[i] == want->data[i])
        i++;
    if (i < got->n || i < want->n)
        fail_msg("%zu ids, expected %zu; they part at %zu: %d, expected %d", got->n, want->n, i,
                 i < got->n ? (int)got->data[i] : -2, i < want->n ? (int)want->data[i] : -2);
}

#define FIELD(n, v)            \
    {                          \
        {(n), sizeof(n) - 1},  \
        {                      \
            (v), sizeof(v) - 1 \
        }                      \
    }

static void every_kind_of_segment_becomes_its_ids(void **state)
{
    static const char json[] =
        "[\"<|im_start|>user\\nQuery: \", {\"field\":\"query\"}, {\"token\":\"<|im_end|>\"},"
        " {\"slot\":\"user\",\"when\":\"user\"}, {\"slot\":\"item\"},"
        " {\"join\":[\"<|im_end|>: \", {\"field\":\"query\"}, \"\\n\", {\"field\":\"none\"}]},"
        " {\"field\":\"none\"}]";
    static const mr_field fields[] = {FIELD("query", "red kettle"), FIELD("query", "not this one")};
    const mr_template_input input = {.fields = {fields, 2},
                                     .slot_tokens = {[MR_SLOT_ITEM] = 2, [MR_SLOT_USER] = 40}};
    (void)state;
    mr_tokenizer *tokenizer = open_tokenizer("qwen2");
    mr_template *tmpl = compile(tokenizer, json);

    mr_ids want = {0};
    size_t ends[7];
    append(tokenizer, "<|im_start|>user\nQuery: ", MR_TOKENIZE_PARSE_SPECIAL, &want);
    assert_int_equal(want.data[0], mr_tokenizer_token_id(tokenizer, "<|im_start|>"));
    ends[0] = want.n;
    append(tokenizer, "red kettle", MR_TOKENIZE_PLAIN, &want);
    ends[1] = want.n;
    append_id(&want, mr_tokenizer_token_id(tokenizer, "<|im_end|>"));
    ends[2] = want.n;
    for (int i = 0; i < 40; i++)
        append_id(&want, MR_ID_EMBED);
    ends[3] = want.n;
    for (int i = 0; i < 2; i++)
        append_id(&want, MR_ID_EMBED);
    ends[4] = want.n;
    append(tokenizer, "<|im_end|>: red kettle\n", MR_TOKENIZE_PLAIN, &want);
    ends[5] = ends[6] = want.n;

    static const struct {
        mr_piece_kind kind;
        const char *name;
    } pieces[] = {
        {MR_PIECE_TEXT, NULL},    {MR_PIECE_FIELD, "query"}, {MR_PIECE_TOKEN, NULL},
        {MR_PIECE_SLOT, "user"},  {MR_PIECE_SLOT, "item"},   {MR_PIECE_JOIN, NULL},
        {MR_PIECE_FIELD, "none"},
    };
    mr_prompt prompt = {0};
    for (int round = 0; round < 2; round++) { /* a prompt is used again */
        expand(tmpl, &input, &prompt);
        assert_ids(&prompt.ids, &want);
        assert_int_equal(prompt.n_pieces, 7);
        for (size_t i = 0; i < 7; i++) {
            const mr_piece *piece = &prompt.piece[i];
            assert_int_equal(piece->kind, pieces[i].kind);
            if (pieces[i].name)
                assert_string_equal(piece->name, pieces[i].name);
            else
                assert_null(piece->name);
            assert_int_equal(piece->segment, i);
            assert_int_equal(piece->begin, i ? ends[i - 1] : 0);
            assert_int_equal(piece->begin + piece->n, ends[i]);
            assert_false(piece->truncated);
        }
        assert_int_equal(prompt.piece[3].slot, MR_SLOT_USER);
        assert_int_equal(prompt.piece[4].slot, MR_SLOT_ITEM);
    }
    mr_prompt_release(&prompt);
    mr_ids_release(&want);
    mr_template_free(tmpl);
    mr_tokenizer_close(tokenizer);
}

static void a_condition_asks_for_a_field_or_a_slot(void **state)
{
    static const mr_field with_title[] = {FIELD("title", "x"), FIELD("user", "a field")};
    static const mr_field empty_title[] = {FIELD("title", "")};
    static const struct {
        const char *json;
        mr_fields fields;
        size_t item, user;
        size_t n, pieces;
    } row[] = {
        {"[{\"token\":3,\"when\":\"title\"}]", {with_title, 2}, 0, 0, 1, 1},
        {"[{\"token\":3,\"when\":\"title\"}]", {empty_title, 1}, 0, 0, 0, 0},
        {"[{\"token\":3,\"when\":\"title\"}]", {NULL, 0}, 0, 0, 0, 0},
        {"[{\"token\":3,\"when\":\"item\"}]", {NULL, 0}, 2, 0, 1, 1},
        {"[{\"token\":3,\"when\":\"item\"}]", {NULL, 0}, 0, 2, 0, 0},
        /* "user" is the slot, whatever fields there are. */
        {"[{\"token\":3,\"when\":\"user\"}]", {with_title, 2}, 0, 0, 0, 0},
        {"[{\"slot\":\"user\",\"when\":\"user\"}]", {NULL, 0}, 0, 3, 3, 1},
        {"[{\"slot\":\"user\",\"when\":\"user\"}]", {NULL, 0}, 3, 0, 0, 0},
        {"[{\"join\":[\"x\"],\"when\":\"title\"}, {\"token\":1}]", {empty_title, 1}, 0, 0, 1, 1},
        {"[{\"token\":3,\"when\":null}]", {NULL, 0}, 0, 0, 1, 1},
        {"[{\"join\":[{\"field\":\"a\"},{\"field\":\"b\"}]}]", {NULL, 0}, 0, 0, 0, 1},
        {"[\"\"]", {NULL, 0}, 0, 0, 0, 1},
        {"[]", {with_title, 2}, 1, 1, 0, 0},
    };
    (void)state;
    mr_tokenizer *tokenizer = open_tokenizer("llama-sp");
    mr_prompt prompt = {0};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_template *tmpl = compile(tokenizer, row[i].json);
        const mr_template_input input = {
            .fields = row[i].fields,
            .slot_tokens = {[MR_SLOT_ITEM] = row[i].item, [MR_SLOT_USER] = row[i].user}};
        expand(tmpl, &input, &prompt);
        if (prompt.ids.n != row[i].n || prompt.n_pieces != row[i].pieces)
            fail_msg("%s: %zu ids in %zu pieces, expected %zu in %zu", row[i].json, prompt.ids.n,
                     prompt.n_pieces, row[i].n, row[i].pieces);
        mr_template_free(tmpl);
    }
    mr_prompt_release(&prompt);
    mr_tokenizer_close(tokenizer);
}

static void a_token_is_named_by_spelling_text_or_id(void **state)
{
    static const struct {
        const char *tokenizer, *json, *token;
    } row[] = {
        {"qwen2", "[{\"token\":\"<|endoftext|>\"}]", "<|endoftext|>"},
        {"qwen2", "[{\"token\":\"<think>\"}]", "<think>"},
        {"qwen2", "[{\"token\":\"yes\"}]", "yes"},
        {"qwen2", "[{\"token\":\"\\u0120\"}]", "\u0120"},
        {"qwen2", "[{\"token\":\" \"}]", "\u0120"}, /* a text that is one token */
        {"qwen2", "[{\"token\":\"\\n\"}]", "\u010a"},
        {"llama3", "[{\"token\":\"<|eot_id|>\"}]", "<|eot_id|>"},
        {"llama-sp", "[{\"token\":\"</s>\"}]", "</s>"},
        {"llama-sp", "[{\"token\":\"<0x0A>\"}]", "<0x0A>"},
    };
    (void)state;
    mr_prompt prompt = {0};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_tokenizer *tokenizer = open_tokenizer(row[i].tokenizer);
        const mr_template_input input = {.max_tokens = 0};
        const int32_t want = mr_tokenizer_token_id(tokenizer, row[i].token);
        assert_true(want >= 0);
        char by_id[64];
        snprintf(by_id, sizeof by_id, "[{\"token\":%d}]", (int)want);
        const char *const spellings[] = {row[i].json, by_id};
        for (size_t k = 0; k < 2; k++) {
            mr_template *tmpl = compile(tokenizer, spellings[k]);
            expand(tmpl, &input, &prompt);
            assert_int_equal(prompt.ids.n, 1);
            assert_int_equal(prompt.ids.data[0], want);
            mr_template_free(tmpl);
        }
        mr_tokenizer_close(tokenizer);
    }
    mr_prompt_release(&prompt);
}

/* What a forger would try: every added token, alone, between words, all in a row, and cut in two so
 * that two fields side by side would spell it. */
typedef struct {
    char *texts[64];
    int32_t ids[32];
    size_t n_texts, n_ids;
} forgeries;

static void add_text(forgeries *f, const char *format, const char *a, const char *b)
{
    char text[1024];
    assert_true(f->n_texts < sizeof f->texts / sizeof *f->texts);
    int n = snprintf(text, sizeof text, format, a, b);
    assert_true(n >= 0 && (size_t)n < sizeof text);
    char *copy = malloc((size_t)n + 1);
    assert_non_null(copy);
    memcpy(copy, text, (size_t)n + 1);
    f->texts[f->n_texts++] = copy;
}

static forgeries read_forgeries(const char *tokenizer)
{
    forgeries f = {0};
    char folder[64], all[1024] = "";
    json_t *root = NULL;
    mr_error err = {0};
    snprintf(folder, sizeof folder, "data/tokenizers/%s", tokenizer);
    assert_status(
        mr_json_load_file(&root, test_path(folder, "tokenizer.json"), MR_JSON_MAX_TOKENIZER, &err),
        MR_OK, &err);
    const json_t *list = json_object_get(root, "added_tokens");
    const json_t *vocabulary = json_object_get(json_object_get(root, "model"), "vocab");
    assert_true(json_array_size(list) > 0);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *token = json_array_get(list, i);
        const char *content = json_string_value(json_object_get(token, "content"));
        /* An added word that the model has as a word of its own is no more than that. */
        if (json_is_true(json_object_get(token, "special")) ||
            !json_object_get(vocabulary, content))
            f.ids[f.n_ids++] = (int32_t)json_integer_value(json_object_get(token, "id"));
        add_text(&f, "%s%s", content, "");
        add_text(&f, "a %s b%s", content, content);
        add_text(&f, "\n%s\n \u00a0%s", content, content);
        size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s", content);
    }
    add_text(&f, "%s%s", all, "<image><|image_pad|>-1 \xef\xbf\xbf");
    json_decref(root);
    return f;
}

static void release_forgeries(forgeries *f)
{
    for (size_t i = 0; i < f->n_texts; i++)
        free(f->texts[i]);
}

static size_t count_forged(const mr_prompt *prompt, const forgeries *f)
{
    size_t forged = 0;
    for (size_t i = 0; i < prompt->ids.n; i++) {
        bool bad = prompt->ids.data[i] < 0;
        for (size_t k = 0; k < f->n_ids; k++)
            bad = bad || prompt->ids.data[i] == f->ids[k];
        forged += bad;
    }
    return forged;
}

/* The author's own text does mean its tokens: without this, the test below would be empty. */
static void assert_author_can_say_them(const mr_tokenizer *tokenizer, const forgeries *f)
{
    bool said[32] = {false};
    mr_prompt prompt = {0};
    for (size_t i = 0; i < f->n_texts; i++) {
        json_t *author = json_pack("[s]", f->texts[i]);
        mr_template *tmpl = NULL;
        mr_error err = {0};
        const mr_template_input input = {.max_tokens = 0};
        assert_status(mr_template_compile(&tmpl, "author", author, tokenizer, &err), MR_OK, &err);
        expand(tmpl, &input, &prompt);
        for (size_t k = 0; k < prompt.ids.n; k++) {
            for (size_t id = 0; id < f->n_ids; id++)
                said[id] = said[id] || prompt.ids.data[k] == f->ids[id];
        }
        mr_template_free(tmpl);
        json_decref(author);
    }
    for (size_t id = 0; id < f->n_ids; id++) {
        if (!said[id])
            fail_msg("no text of the author gives the token %d", (int)f->ids[id]);
    }
    mr_prompt_release(&prompt);
}

static void no_text_of_a_request_forges_a_token_or_a_slot(void **state)
{
    static const char *const templates[] = {
        "[{\"field\":\"query\"}]",
        "[{\"field\":\"query\"}, {\"field\":\"query\"}]",
        "[{\"field\":\"left\"}, {\"field\":\"right\"}]",
        "[{\"join\":[{\"field\":\"query\"}]}]",
        "[{\"join\":[\"<Query>: \", {\"field\":\"query\"}, \"\\n\", {\"field\":\"query\"}]}]",
        "[{\"join\":[{\"field\":\"left\"}, {\"field\":\"right\"}]}]",
    };
    (void)state;
    mr_prompt prompt = {0};
    for (size_t t = 0; t < N_TOKENIZERS; t++) {
        mr_tokenizer *tokenizer = open_tokenizer(tokenizers[t]);
        forgeries f = read_forgeries(tokenizers[t]);
        for (size_t k = 0; k < sizeof templates / sizeof *templates; k++) {
            mr_template *tmpl = compile(tokenizer, templates[k]);
            for (size_t i = 0; i < f.n_texts; i++) {
                const mr_str whole = mr_str_of(f.texts[i]);
                size_t half = whole.len / 2;
                while (half > 0 && ((unsigned char)whole.data[half] & 0xC0) == 0x80)
                    half--;
                const mr_field fields[] = {
                    {mr_str_of("query"), whole},
                    {mr_str_of("left"), {whole.data, half}},
                    {mr_str_of("right"), {whole.data + half, whole.len - half}},
                };
                const mr_template_input input = {.fields = {fields, 3}};
                expand(tmpl, &input, &prompt);
                assert_true(prompt.ids.n > 0);
                size_t forged = count_forged(&prompt, &f);
                if (forged)
                    fail_msg("%s: %zu special ids from '%s' in %s", tokenizers[t], forged,
                             f.texts[i], templates[k]);
            }
            mr_template_free(tmpl);
        }
        assert_author_can_say_them(tokenizer, &f);
        release_forgeries(&f);
        mr_tokenizer_close(tokenizer);
    }
    mr_prompt_release(&prompt);
}

static void a_template_tells_what_it_uses(void **state)
{
    (void)state;
    mr_tokenizer *tokenizer = open_tokenizer("qwen2");
    mr_template *tmpl = compile(
        tokenizer, "[\"text\", {\"field\":\"title\"}, {\"join\":[\"query\",{\"field\":\"body\"}]},"
                   " {\"slot\":\"user\",\"when\":\"lang\"}, {\"token\":3,\"when\":\"image\"}]");
    static const struct {
        const char *field;
        bool used;
    } row[] = {{"title", true},  {"body", true},  {"lang", true},
               {"query", false}, {"user", false}, {"image", false}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        if (mr_template_uses_field(tmpl, row[i].field) != row[i].used)
            fail_msg("field '%s': expected %d", row[i].field, row[i].used);
    }
    assert_true(mr_template_uses_slot(tmpl, MR_SLOT_USER));
    assert_false(mr_template_uses_slot(tmpl, MR_SLOT_ITEM));
    assert_false(mr_template_uses_slot(tmpl, MR_SLOT_IMAGE)); /* asked about, not filled */
    mr_template_free(tmpl);
    mr_tokenizer_close(tokenizer);

    assert_string_equal(mr_slot_name(MR_SLOT_ITEM), "item");
    assert_string_equal(mr_slot_name(MR_SLOT_USER), "user");
    assert_string_equal(mr_slot_name(MR_SLOT_IMAGE), "image");
    mr_template_free(NULL);
}

static void fields_are_found_by_their_whole_name(void **state)
{
    static const mr_field list[] = {FIELD("title", "1"), FIELD("titles", "2"), FIELD("tit", "3")};
    const mr_fields fields = {list, 3};
    (void)state;
    assert_int_equal(mr_fields_get(fields, "titles").data[0], '2');
    assert_int_equal(mr_fields_get(fields, "tit").data[0], '3');
    assert_null(mr_fields_get(fields, "titl").data);
    assert_null(mr_fields_get((mr_fields){NULL, 0}, "title").data);
}

static void templates_with_a_slip_are_refused_by_place(void **state)
{
    static const struct {
        const char *json, *message;
    } row[] = {
        {"{}", "prefix: found an object, expected an array of segments"},
        {"[3]", "prefix[0]: found the number 3, expected a text or an object"},
        {"[\"a\", null]", "prefix[1]: found null"},
        {"[{}]", "prefix[0]: has none of 'field', 'token', 'slot' and 'join'"},
        {"[{\"when\":\"user\"}]", "prefix[0]: has none of"},
        {"[{\"field\":null}]", "prefix[0]: has none of"},
        {"[{\"feild\":\"query\"}]", "unknown key 'feild'; did you mean 'field'?"},
        {"[{\"field\":\"q\",\"max_token\":3}]", "did you mean 'max_tokens'?"},
        {"[{\"slot\":\"item\",\"truncate\":true}]", "unknown key 'truncate'"},
        {"[{\"token\":3,\"max_tokens\":1}]", "unknown key 'max_tokens'"},
        {"[{\"field\":\"q\",\"slot\":\"item\"}]", "has both 'field' and 'slot'"},
        {"[{\"field\":7}]", "'field' is the number 7, expected a name"},
        {"[{\"field\":\"\"}]", "'field' is empty"},
        {"[{\"field\":\"a\\u0000b\"}]", "'field' is a text with NUL"},
        {"[{\"field\":\"q\",\"max_tokens\":0}]", "'max_tokens' is the number 0"},
        {"[{\"field\":\"q\",\"max_tokens\":\"9\"}]", "'max_tokens' is the string \"9\""},
        {"[{\"field\":\"q\",\"max_tokens\":1048577}]", "from 1 to 1048576"},
        {"[{\"field\":\"q\",\"truncate\":1}]", "'truncate' is the number 1"},
        {"[{\"field\":\"q\",\"when\":true}]", "'when' is true, expected a name"},
        {"[{\"slot\":\"items\"}]", "no slot 'items'; slots are item, user and image"},
        {"[{\"slot\":\"item\"},\"a\",{\"slot\":\"item\"}]",
         "prefix[2]: slot 'item' is already segment 0"},
        {"[{\"token\":\"<|endoftex|>\"}]", "tokens in this vocabulary, expected exactly one"},
        {"[{\"token\":\"red kettle\"}]", "'red kettle' is "},
        {"[{\"token\":\"\"}]", "'' is 0 tokens"},
        {"[{\"token\":-1}]", "token -1 is outside the vocabulary, expected 0 to "},
        {"[{\"token\":100000}]", "token 100000 is outside the vocabulary"},
        {"[{\"token\":9000000000000}]", "token 9000000000000 is outside the vocabulary"},
        {"[{\"token\":1.5}]", "'token' is the number 1.5"},
        {"[{\"token\":[\"a\"]}]", "'token' is an array"},
        {"[{\"join\":\"a\"}]", "'join' is the string \"a\", expected an array"},
        {"[{\"join\":[]}]", "'join' has 0 parts"},
        {"[{\"join\":[\"a\",3]}]", "prefix[0].join[1]: found the number 3"},
        {"[{\"join\":[{\"join\":[\"a\"]}]}]", "prefix[0].join[0]: unknown key 'join'"},
        {"[{\"join\":[{\"slot\":\"item\"}]}]", "unknown key 'slot'"},
        {"[{\"join\":[{\"field\":\"a\",\"max_tokens\":3}]}]", "unknown key 'max_tokens'"},
        {"[{\"join\":[{}]}]", "prefix[0].join[0]: 'field' is null"},
    };
    (void)state;
    mr_tokenizer *tokenizer = open_tokenizer("qwen2");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_template *tmpl = NULL;
        mr_error err = {0};
        mr_status status = try_compile(tokenizer, row[i].json, &tmpl, &err);
        if (status != MR_INVALID)
            fail_msg("%s: %s (%s), expected INVALID", row[i].json, mr_status_name(status),
                     err.message);
        assert_contains(err.message, row[i].message);
        assert_null(tmpl);
    }
    mr_tokenizer_close(tokenizer);
}

static void templates_are_bounded(void **state)
{
    (void)state;
    mr_tokenizer *tokenizer = open_tokenizer("qwen2");
    json_t *segments = json_array();
    json_t *parts = json_array();
    for (int i = 0; i <= MR_TEMPLATE_MAX_SEGMENTS; i++) {
        json_array_append_new(segments, json_string("a"));
        json_array_append_new(parts, json_string("a"));
    }
    json_t *join = json_pack("[{so}]", "join", parts);
    mr_template *tmpl = NULL;
    mr_error err = {0};
    assert_status(mr_template_compile(&tmpl, "x", segments, tokenizer, &err), MR_INVALID, &err);
    assert_contains(err.message, "x: 257 segments, expected at most 256");
    assert_status(mr_template_compile(&tmpl, "x", join, tokenizer, &err), MR_INVALID, &err);
    assert_contains(err.message, "'join' has 257 parts, expected 1 to 256");
    assert_int_equal(json_array_remove(segments, 0), 0);
    assert_status(mr_template_compile(&tmpl, "x", segments, tokenizer, &err), MR_OK, &err);
    mr_prompt prompt = {0};
    const mr_template_input input = {.max_tokens = 0};
    expand(tmpl, &input, &prompt);
    assert_int_equal(prompt.n_pieces, MR_TEMPLATE_MAX_SEGMENTS);
    assert_int_equal(prompt.ids.n, MR_TEMPLATE_MAX_SEGMENTS);
    mr_prompt_release(&prompt);
    mr_template_free(tmpl);
    json_decref(join);
    json_decref(segments);
    mr_tokenizer_close(tokenizer);
}

static void bad_input_is_named_and_leaves_no_prompt(void **state)
{
    static const mr_field bad_query[] = {FIELD("title", "fine"), FIELD("query", "ab\xff")};
    static const mr_field cut_query[] = {FIELD("query", "caf\xc3")};
    static const mr_field overlong[] = {FIELD("query", "\xc0\xaf")};
    static const mr_field surrogate[] = {FIELD("query", "abc\xed\xa0\x80")};
    static const struct {
        const char *json;
        mr_fields fields;
        size_t item, max_tokens;
        mr_status status;
        const char *message;
    } row[] = {
        {"[\"a\",{\"field\":\"query\"}]",
         {bad_query, 2},
         0,
         0,
         MR_INVALID,
         "prefix: field 'query' is not UTF-8: byte 0xff at offset 2 of 3"},
        {"[\"a\",{\"join\":[\"long text \",{\"field\":\"title\"},{\"field\":\"query\"}]}]",
         {bad_query, 2},
         0,
         0,
         MR_INVALID,
         "field 'query' is not UTF-8: byte 0xff at offset 2 of 3"},
        {"[{\"field\":\"query\"}]", {cut_query, 1}, 0, 0, MR_INVALID, "byte 0xc3 at offset 3 of 4"},
        {"[{\"field\":\"query\"}]", {overlong, 1}, 0, 0, MR_INVALID, "byte 0xc0 at offset 0 of 2"},
        {"[{\"field\":\"query\"}]", {surrogate, 1}, 0, 0, MR_INVALID, "offset 3 of 6"},
        {"[\"a\",{\"slot\":\"item\"}]",
         {NULL, 0},
         0,
         0,
         MR_INVALID,
         "slot 'item' has no embedding tokens"},
        {"[\"a\",{\"slot\":\"item\"}]",
         {NULL, 0},
         SIZE_MAX,
         0,
         MR_INVALID,
         "expected at most 1048576"},
        {"[{\"slot\":\"item\"},{\"token\":3}]",
         {NULL, 0},
         8,
         8,
         MR_EXHAUSTED,
         "at least 9 tokens besides what may be truncated, the budget is 8"},
    };
    (void)state;
    mr_tokenizer *tokenizer = open_tokenizer("qwen2");
    mr_template *filler = compile(tokenizer, "[\"some text\"]");
    mr_prompt prompt = {0};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        const mr_template_input nothing = {.max_tokens = 0};
        expand(filler, &nothing, &prompt);
        mr_template *tmpl = compile(tokenizer, row[i].json);
        const mr_template_input input = {.fields = row[i].fields,
                                         .slot_tokens = {[MR_SLOT_ITEM] = row[i].item},
                                         .max_tokens = row[i].max_tokens};
        mr_error err = {0};
        assert_status(mr_template_expand(tmpl, &input, &prompt, &err), row[i].status, &err);
        assert_contains(err.message, row[i].message);
        assert_int_equal(prompt.ids.n, 0);
        assert_int_equal(prompt.n_pieces, 0);
        mr_template_free(tmpl);
    }
    mr_prompt_release(&prompt);
    mr_template_free(filler);
    mr_tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_segment_becomes_its_ids),
        cmocka_unit_test(a_condition_asks_for_a_field_or_a_slot),
        cmocka_unit_test(a_token_is_named_by_spelling_text_or_id),
        cmocka_unit_test(no_text_of_a_request_forges_a_token_or_a_slot),
        cmocka_unit_test(a_template_tells_what_it_uses),
        cmocka_unit_test(fields_are_found_by_their_whole_name),
        cmocka_unit_test(templates_with_a_slip_are_refused_by_place),
        cmocka_unit_test(templates_are_bounded),
        cmocka_unit_test(bad_input_is_named_and_leaves_no_prompt),
    };
    return cmocka_run_group_tests_name("template", tests, NULL, NULL);
}
