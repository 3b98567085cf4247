/* fuzz_template.c - whatever a template and the texts put into it hold: an error that says where,
 * or a prompt within its budget whose slots and role markers are the template's own.
 *
 * Input: {"template": [..], "fields": {..}, "slots": {"item": 2, ..}, "max_tokens": 9,
 * "cut_rest": true}, and after a form feed bytes that become the field "query", UTF-8 or not.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core/utf8.h"
#include "encoders/template.h"
#include "tests/fuzz/fuzz.h"

#define MAX_FIELDS 16
#define MAX_SLOT   64 /* embedding tokens: more would only take time */

static mr_tokenizer *tokenizer;
static int32_t markers[3]; /* tokens that no text of a request may become */

static void require(int condition)
{
    if (!condition)
        abort();
}

static void close_tokenizer(void)
{
    mr_tokenizer_close(tokenizer);
}

static void open_tokenizer(void)
{
    static const char *const spelled[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    mr_error err = {0};
    require(mr_tokenizer_open(&tokenizer, TESTS_FOLDER "/data/tokenizers/qwen2", &err) == MR_OK);
    atexit(close_tokenizer);
    for (size_t i = 0; i < sizeof markers / sizeof *markers; i++) {
        markers[i] = mr_tokenizer_token_id(tokenizer, spelled[i]);
        require(markers[i] >= 0);
    }
}

static void check_failure(mr_status status, const mr_error *err)
{
    require(err->status == status && err->message[0] != '\0');
    require(mr_utf8_valid_prefix(err->message, strlen(err->message)) == strlen(err->message));
}

/* The pieces stand side by side and cover the prompt; what came from a request is plain text. */
static void look_at(const mr_prompt *prompt)
{
    const int32_t vocabulary = mr_tokenizer_vocab_size(tokenizer);
    size_t at = 0;
    for (size_t p = 0; p < prompt->n_pieces; p++) {
        const mr_piece *piece = &prompt->piece[p];
        require(piece->begin == at && piece->n <= prompt->ids.n - at);
        const bool slot = piece->kind == MR_PIECE_SLOT;
        const bool plain = piece->kind == MR_PIECE_FIELD || piece->kind == MR_PIECE_JOIN;
        for (; at < piece->begin + piece->n; at++) {
            const int32_t id = prompt->ids.data[at];
            require(slot ? id == MR_ID_EMBED : id >= 0 && id < vocabulary);
            for (size_t m = 0; plain && m < sizeof markers / sizeof *markers; m++)
                require(id != markers[m]);
        }
    }
    require(at == prompt->ids.n);
}

static void require_same(const mr_prompt *a, const mr_prompt *b)
{
    require(a->ids.n == b->ids.n && a->n_pieces == b->n_pieces);
    require(a->ids.n == 0 || memcmp(a->ids.data, b->ids.data, a->ids.n * sizeof *a->ids.data) == 0);
}

static void expand(const mr_template *tmpl, mr_template_input input)
{
    mr_prompt prompt = {0}, whole = {0};
    mr_error err = {0};
    mr_status status = mr_template_expand(tmpl, &input, &prompt, &err);
    if (status != MR_OK) {
        require(prompt.ids.n == 0);
        check_failure(status, &err);
    } else {
        require(input.max_tokens == 0 || prompt.ids.n <= input.max_tokens);
        look_at(&prompt);
    }

    /* Without a budget, then with one of exactly the length, then with the least that is enough. */
    size_t fixed = 0;
    input.max_tokens = 0;
    input.cut_rest = false;
    status = mr_template_expand(tmpl, &input, &whole, &err);
    if (status == MR_OK) {
        look_at(&whole);
        input.max_tokens = whole.ids.n;
        require(mr_template_expand(tmpl, &input, &prompt, &err) == MR_OK);
        require_same(&prompt, &whole);
        require(mr_template_fixed_tokens(tmpl, &input, &fixed, &err) == MR_OK);
        require(fixed <= whole.ids.n);
        input.max_tokens = fixed;
        require(mr_template_expand(tmpl, &input, &prompt, &err) == MR_OK);
        require(fixed == 0 || prompt.ids.n == fixed);
    } else {
        check_failure(status, &err);
    }
    mr_prompt_release(&whole);
    mr_prompt_release(&prompt);
}

static size_t number_of(const json_t *object, const char *key, size_t most)
{
    const json_int_t n = json_integer_value(json_object_get(object, key));
    return n <= 0 ? 0 : (size_t)n < most ? (size_t)n : most;
}

static void try_input(const json_t *root, mr_str query)
{
    mr_template *tmpl = NULL;
    mr_error err = {0};
    mr_status status =
        mr_template_compile(&tmpl, "fuzz", json_object_get(root, "template"), tokenizer, &err);
    if (status != MR_OK) {
        require(!tmpl);
        check_failure(status, &err);
        return;
    }
    mr_field field[MAX_FIELDS] = {{{"query", 5}, query}};
    mr_template_input input = {.fields = {field, 1},
                               .max_tokens = number_of(root, "max_tokens", 1 << 20),
                               .cut_rest = json_is_true(json_object_get(root, "cut_rest"))};
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(root, "fields"), name, value)
    {
        if (json_is_string(value) && input.fields.n < MAX_FIELDS)
            field[input.fields.n++] =
                (mr_field){mr_str_of(name), {json_string_value(value), json_string_length(value)}};
    }
    for (int kind = 0; kind < MR_SLOT_COUNT; kind++)
        input.slot_tokens[kind] =
            number_of(json_object_get(root, "slots"), mr_slot_name((mr_slot_kind)kind), MAX_SLOT);
    expand(tmpl, input);
    mr_template_free(tmpl);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!tokenizer)
        open_tokenizer();
    const uint8_t *end = size ? memchr(data, '\f', size) : NULL;
    const mr_str json = {(const char *)data, end ? (size_t)(end - data) : size};
    const mr_str query = {end ? (const char *)end + 1 : "", end ? size - json.len - 1 : 0};
    json_t *root = NULL;
    if (mr_json_parse(&root, "fuzz", json, NULL) == MR_OK)
        try_input(root, query);
    json_decref(root);
    return 0;
}
