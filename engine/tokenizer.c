/* tokenizer.c - the public functions, and one encode from text to ids. See tokenizer.h.
 *
 * A tokenizer is built once and then only read, apart from the notes in mr_tokenizer.whole, which
 * are atomic and the same whoever writes them. Everything that changes during a call is in a
 * mr_tok_run on the caller's stack.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/utf8.h"
#include "engine/tokenizer_private.h"

/* ---- Lists of ids ---- */

void mr_ids_release(mr_ids *ids)
{
    free(ids->data);
    *ids = (mr_ids){0};
}

mr_status mr_ids_append(mr_ids *ids, const int32_t *values, size_t n, mr_error *err)
{
    if (n > ids->capacity - ids->n) {
        size_t capacity = ids->capacity + ids->capacity / 2 + 32, bytes;
        if (capacity - ids->n < n && !mr_size_add(ids->n, n, &capacity))
            return MR_FAIL(err, NO_MEMORY, "a list of %zu and %zu ids", ids->n, n);
        int32_t *grown =
            mr_size_mul(capacity, sizeof *grown, &bytes) ? realloc(ids->data, bytes) : NULL;
        if (!grown)
            return MR_FAIL(err, NO_MEMORY, "a list of %zu ids", capacity);
        ids->data = grown;
        ids->capacity = capacity;
    }
    if (n)
        memcpy(ids->data + ids->n, values, n * sizeof *values);
    ids->n += n;
    return MR_OK;
}

/* ---- Opening ---- */

static mr_status build(mr_tokenizer **out, const char *name, const json_t *root, mr_error *err)
{
    mr_tokenizer *tok = calloc(1, sizeof *tok);
    if (!tok)
        return MR_FAIL(err, NO_MEMORY, "%s: a tokenizer", name);
    tok->name = mr_arena_strndup(&tok->arena, name, strlen(name));
    mr_status status =
        tok->name ? mr_tok_load(tok, root, err) : MR_FAIL(err, NO_MEMORY, "%s: a tokenizer", name);
    if (status != MR_OK) {
        mr_tokenizer_close(tok);
        return status;
    }
    *out = tok;
    return MR_OK;
}

mr_status mr_tokenizer_parse(mr_tokenizer **out, const char *name, mr_str json, mr_error *err)
{
    json_t *root = NULL;
    if (json.len > MR_JSON_MAX_TOKENIZER)
        return MR_FAIL(err, EXHAUSTED, "%s: %zu bytes of JSON, expected at most %zu", name,
                       json.len, MR_JSON_MAX_TOKENIZER);
    mr_status status = mr_json_parse(&root, name, json, err);
    if (status == MR_OK)
        status = build(out, name, root, err);
    json_decref(root);
    return status;
}

mr_status mr_tokenizer_open(mr_tokenizer **out, const char *path, mr_error *err)
{
    mr_arena arena = {0};
    json_t *root = NULL;
    mr_status status = MR_OK;
    if (mr_file_is_folder(path)) {
        const char *folder = path;
        path = mr_path_join(&arena, folder, "tokenizer.json");
        if (!path)
            status = MR_FAIL(err, NO_MEMORY, "opening the tokenizer of '%s'", folder);
    }
    if (status == MR_OK)
        status = mr_json_load_file(&root, path, MR_JSON_MAX_TOKENIZER, err);
    if (status == MR_OK)
        status = build(out, path, root, err);
    json_decref(root);
    mr_arena_done(&arena);
    return status;
}

void mr_tokenizer_close(mr_tokenizer *tok)
{
    if (!tok)
        return;
    for (size_t i = 0; i < MR_TOK_MAX_STEPS; i++) {
        mr_tok_pattern_done(&tok->normalizers[i].pattern);
        mr_tok_pattern_done(&tok->pretokenizers[i].pattern);
        mr_tok_pattern_done(&tok->decoders[i].pattern);
    }
    mr_arena_done(&tok->arena);
    free(tok);
}

/* ---- Encoding ---- */

mr_tok_run mr_tok_run_of(const mr_tokenizer *tok, mr_ids *ids, mr_error *err)
{
    return (mr_tok_run){.tok = tok, .ids = ids, .enough = SIZE_MAX, .err = err};
}

void mr_tok_run_done(mr_tok_run *run)
{
    mr_tok_matcher_done(&run->matcher);
    for (size_t i = 0; i < 2; i++)
        mr_strbuf_release(&run->normal[i]);
    for (size_t i = 0; i < MR_TOK_MAX_STEPS; i++)
        mr_strbuf_release(&run->step_text[i]);
    free(run->code_points);
    free(run->word.leaves);
    free(run->word.links);
    free(run->word.heap);
}

/* A part of a text that added tokens cut out of it, in the run that it belongs to. */
typedef struct {
    mr_tok_run *run;
    mr_str text;
    bool at_start; /* text begins where the whole text does */
} parts;

static mr_status encode_normalized_part(void *context, size_t start, size_t end,
                                        const mr_tok_added *token)
{
    const parts *p = context;
    if (token)
        return mr_tok_push(p->run, token->id);
    return mr_tok_pretokenize(p->run, (mr_str){p->text.data + start, end - start},
                              p->at_start && start == 0);
}

static mr_status encode_part(void *context, size_t start, size_t end, const mr_tok_added *token)
{
    const parts *p = context;
    if (token)
        return mr_tok_push(p->run, token->id);
    parts normal = {.run = p->run, .at_start = start == 0};
    mr_str text = {p->text.data + start, end - start};
    mr_status status = mr_tok_normalize(p->run, text, &normal.text);
    if (status != MR_OK)
        return status;
    if (!p->run->parse_added)
        return encode_normalized_part(&normal, 0, normal.text.len, NULL);
    return mr_tok_added_split(&p->run->tok->normalized_set, &p->run->tok->classes, normal.text,
                              encode_normalized_part, &normal);
}

static mr_status check_text(mr_str text, mr_error *err)
{
    if (text.len > MR_TOK_MAX_TEXT)
        return MR_FAIL(err, EXHAUSTED, "a text of %zu bytes; a tokenizer takes at most %zu",
                       text.len, MR_TOK_MAX_TEXT);
    const size_t valid = text.len ? mr_utf8_valid_prefix(text.data, text.len) : 0;
    if (valid < text.len)
        return MR_FAIL(err, INVALID, "the text is not UTF-8: byte %zu is 0x%02X", valid,
                       (unsigned)(unsigned char)text.data[valid]);
    return MR_OK;
}

mr_status mr_tokenizer_encode(const mr_tokenizer *tok, mr_str text, int flags, mr_ids *ids,
                              mr_error *err)
{
    return mr_tokenizer_encode_first(tok, text, flags, SIZE_MAX, ids, err);
}

mr_status mr_tokenizer_encode_first(const mr_tokenizer *tok, mr_str text, int flags, size_t most,
                                    mr_ids *ids, mr_error *err)
{
    const size_t before = ids->n;
    mr_status status = check_text(text, err);
    if (status != MR_OK)
        return status;

    mr_tok_run run = mr_tok_run_of(tok, ids, err);
    run.parse_added = flags & MR_TOKENIZE_PARSE_SPECIAL;
    if (!mr_size_add(before, most, &run.enough))
        run.enough = SIZE_MAX;
    parts whole = {.run = &run, .text = text, .at_start = true};
    if (flags & MR_TOKENIZE_ADD_SPECIAL)
        status = mr_ids_append(ids, tok->prefix, tok->n_prefix, err);
    if (status == MR_OK && text.len > 0)
        status = run.parse_added
                     ? mr_tok_added_split(&tok->plain_set, &tok->classes, text, encode_part, &whole)
                     : encode_part(&whole, 0, text.len, NULL);
    if (status == MR_OK && flags & MR_TOKENIZE_ADD_SPECIAL)
        status = mr_ids_append(ids, tok->suffix, tok->n_suffix, err);
    if (status != MR_OK)
        ids->n = before;
    mr_tok_run_done(&run);
    return status;
}

mr_status mr_tokenizer_words(const mr_tokenizer *tok, mr_str text, mr_tokenizer_word visit,
                             void *context, mr_error *err)
{
    mr_status status = check_text(text, err);
    if (status != MR_OK || text.len == 0)
        return status;
    mr_ids none = {0};
    mr_tok_run run = mr_tok_run_of(tok, &none, err);
    run.visit = visit;
    run.visit_context = context;
    parts whole = {.run = &run, .text = text, .at_start = true};
    status = encode_part(&whole, 0, text.len, NULL);
    mr_tok_run_done(&run);
    return status;
}

/* ---- The vocabulary ---- */

uint32_t mr_tokenizer_byte_char(unsigned char byte)
{
    return mr_tok_byte_char(byte);
}

int32_t mr_tokenizer_vocab_size(const mr_tokenizer *tok)
{
    return tok->n_ids;
}

int32_t mr_tokenizer_token_id(const mr_tokenizer *tok, const char *token)
{
    const mr_str text = mr_str_of(token);
    const mr_tok_added *added = mr_tok_added_find(tok, text);
    return added ? added->id : mr_tok_strings_find(&tok->vocabulary, text.data, text.len);
}

const char *mr_tokenizer_token(const mr_tokenizer *tok, int32_t id)
{
    if (id < 0 || id >= tok->n_ids || tok->spelled[id].offset == MR_TOK_NO_SPAN)
        return NULL;
    return tok->bytes + tok->spelled[id].offset;
}
