/* tokenizer_load.c - tokenizer.json: the frame, the BPE model, the added tokens.
 *
 * The file is read strictly. What the library would compute and we do not is UNSUPPORTED by name;
 * what the library resolves by a guess (two tokens with one id, an added token whose id is not the
 * one it would be given) is CORRUPT, because two readers of such a file disagree about its ids.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tokenizer_private.h"

#define WHERE_SIZE 256

mr_status mr_tok_only_keys(mr_json_cursor *cur, const char *const *known)
{
    const char *key;
    json_t *value;
    if (cur->status != MR_OK || !cur->object)
        return cur->status;
    /* jansson iterates through a mutable pointer only; nothing is changed. */
    json_object_foreach((json_t *)(uintptr_t)cur->object, key, value)
    {
        size_t i = 0;
        while (known[i] && strcmp(known[i], key) != 0)
            i++;
        if (!known[i] && !json_is_null(value))
            return cur->status =
                       MR_FAIL(cur->err, UNSUPPORTED,
                               "%s: the key '%.60s' is not known to this build", cur->name, key);
    }
    return MR_OK;
}

mr_str mr_tok_json_text(mr_tokenizer *tok, mr_json_cursor *cur, const char *key, size_t max_bytes)
{
    const mr_str nothing = {"", 0};
    const json_t *value = cur->object ? json_object_get(cur->object, key) : NULL;
    if (cur->status != MR_OK)
        return nothing;
    if (!json_is_string(value)) {
        cur->status = MR_FAIL(cur->err, INVALID, "%s: '%s' is %s, expected a string", cur->name,
                              key, value ? mr_json_describe(value) : "missing");
        return nothing;
    }
    const size_t len = json_string_length(value);
    if (len > max_bytes) {
        cur->status = MR_FAIL(cur->err, EXHAUSTED, "%s: '%s' has %zu bytes, expected at most %zu",
                              cur->name, key, len, max_bytes);
        return nothing;
    }
    char *copy = mr_arena_strndup(&tok->arena, json_string_value(value), len);
    if (!copy) {
        cur->status = MR_TOK_NO_MEMORY(tok, cur->err, len);
        return nothing;
    }
    return (mr_str){copy, len};
}

/* ---- Added tokens, first half: what the file says ---- */

static int by_content(const void *a, const void *b)
{
    const mr_str x = (*(const mr_tok_added *const *)a)->content;
    const mr_str y = (*(const mr_tok_added *const *)b)->content;
    int order = memcmp(x.data, y.data, x.len < y.len ? x.len : y.len);
    return order ? order : (x.len > y.len) - (x.len < y.len);
}

const mr_tok_added *mr_tok_added_find(const mr_tokenizer *tok, mr_str content)
{
    size_t low = 0, high = tok->n_added;
    const mr_tok_added wanted = {.content = content};
    const mr_tok_added *const key = &wanted;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = by_content(&key, &tok->added_by_content[middle]);
        if (order == 0)
            return tok->added_by_content[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

static mr_status read_added(mr_tokenizer *tok, const json_t *array, mr_error *err)
{
    static const char *const keys[] = {"id",     "content",    "single_word", "lstrip",
                                       "rstrip", "normalized", "special",     NULL};
    const size_t n = json_array_size(array);
    if (n > MR_TOK_MAX_ADDED)
        return MR_FAIL(err, EXHAUSTED, "%s: %zu added tokens, expected at most %d", tok->name, n,
                       MR_TOK_MAX_ADDED);
    tok->added = mr_arena_array(&tok->arena, mr_tok_added, n);
    tok->added_by_content = mr_arena_array(&tok->arena, const mr_tok_added *, n);
    if (!tok->added || !tok->added_by_content)
        return MR_TOK_NO_MEMORY(tok, err, n * sizeof *tok->added);
    tok->n_added = n;
    for (size_t i = 0; i < n; i++) {
        char where[WHERE_SIZE];
        snprintf(where, sizeof where, "%.200s: added_tokens[%zu]", tok->name, i);
        mr_json_cursor cur = mr_json_cursor_of(where, json_array_get(array, i), err);
        mr_tok_added *added = &tok->added[i];
        mr_tok_only_keys(&cur, keys);
        added->content = mr_tok_json_text(tok, &cur, "content", MR_TOK_MAX_SPLICE);
        added->normalized = added->content;
        added->id = (int32_t)mr_json_int(&cur, "id", 0, MR_TOK_MAX_IDS - 1, MR_JSON_REQUIRED);
        struct {
            const char *key;
            bool *value;
        } const flags[] = {{"single_word", &added->single_word},
                           {"lstrip", &added->lstrip},
                           {"rstrip", &added->rstrip},
                           {"normalized", &added->is_normalized},
                           {"special", &added->special}};
        for (size_t f = 0; f < sizeof flags / sizeof *flags; f++) {
            *flags[f].value = mr_json_bool(&cur, flags[f].key, false);
            if (cur.status == MR_OK && !json_is_boolean(json_object_get(cur.object, flags[f].key)))
                cur.status = MR_FAIL(err, INVALID, "%s: '%s' is missing, expected true or false",
                                     where, flags[f].key);
        }
        if (cur.status == MR_OK && added->content.len == 0)
            cur.status = MR_FAIL(err, CORRUPT, "%s: 'content' is empty", where);
        if (cur.status != MR_OK)
            return cur.status;
        if (added->id >= tok->n_ids)
            tok->n_ids = added->id + 1;
        tok->added_by_content[i] = added;
    }
    if (n)
        qsort(tok->added_by_content, n, sizeof *tok->added_by_content, by_content);
    for (size_t i = 1; i < n; i++) {
        const mr_str content = tok->added_by_content[i]->content;
        if (mr_str_equal(tok->added_by_content[i - 1]->content, content))
            return MR_FAIL(err, CORRUPT, "%s: the added token '%.*s' is there twice", tok->name,
                           MR_STR_ARG(content));
    }
    return MR_OK;
}

/* ---- Vocabulary ---- */

static mr_status read_vocabulary(mr_tokenizer *tok, const json_t *vocab, mr_error *err)
{
    const char *token;
    json_t *value;
    const size_t n = json_object_size(vocab);
    size_t bytes = 0;
    if (n == 0 || n > MR_TOK_MAX_IDS)
        return MR_FAIL(err, CORRUPT, "%s: model.vocab has %zu tokens, expected 1 to %d", tok->name,
                       n, MR_TOK_MAX_IDS);
    json_object_foreach((json_t *)(uintptr_t)vocab, token, value)
    {
        const json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= MR_TOK_MAX_IDS)
            return MR_FAIL(err, CORRUPT,
                           "%s: model.vocab: '%.60s' is %s, expected an id from 0 to %d", tok->name,
                           token, mr_json_describe(value), MR_TOK_MAX_IDS - 1);
        bytes += strlen(token) + 1;
        if (id >= tok->n_ids)
            tok->n_ids = (int32_t)id + 1;
    }
    for (size_t i = 0; i < tok->n_added; i++)
        bytes += tok->added[i].content.len + 1;
    if (bytes >= MR_TOK_NO_SPAN)
        return MR_FAIL(err, EXHAUSTED, "%s: %zu bytes of tokens", tok->name, bytes);

    const size_t n_ids = (size_t)tok->n_ids;
    tok->bytes = mr_arena_alloc(&tok->arena, bytes, 1, 1);
    tok->spelled = mr_arena_array(&tok->arena, mr_tok_span, n_ids);
    if (!tok->bytes || !tok->spelled)
        return MR_TOK_NO_MEMORY(tok, err, bytes + n_ids * sizeof *tok->spelled);
    for (size_t id = 0; id < n_ids; id++)
        tok->spelled[id].offset = MR_TOK_NO_SPAN;

    uint32_t at = 0;
    json_object_foreach((json_t *)(uintptr_t)vocab, token, value)
    {
        mr_tok_span *span = &tok->spelled[json_integer_value(value)];
        const size_t len = strlen(token);
        if (span->offset != MR_TOK_NO_SPAN)
            return MR_FAIL(err, CORRUPT, "%s: model.vocab: '%.60s' and '%.60s' both have id %d",
                           tok->name, tok->bytes + span->offset, token,
                           (int)json_integer_value(value));
        *span = (mr_tok_span){at, (uint32_t)len};
        memcpy(tok->bytes + at, token, len + 1);
        at += (uint32_t)len + 1;
    }
    mr_status status = mr_tok_strings_init(&tok->vocabulary, &tok->arena, tok->bytes, tok->spelled,
                                           tok->n_ids, tok->name, err);
    if (status != MR_OK)
        return status;

    /* Added tokens: those of the vocabulary keep their id, the others are numbered after it. */
    int32_t next = (int32_t)n;
    for (size_t i = 0; i < tok->n_added; i++) {
        const mr_tok_added *added = &tok->added[i];
        int32_t id = mr_tok_strings_find(&tok->vocabulary, added->content.data, added->content.len);
        bool is_new = id < 0;
        if (is_new)
            id = next++;
        if (added->id != id)
            return MR_FAIL(err, CORRUPT,
                           "%s: the added token '%.*s' has id %d, where the tokenizers library "
                           "gives it %d (%s)",
                           tok->name, MR_STR_ARG(added->content), (int)added->id, (int)id,
                           is_new ? "added tokens are numbered after the vocabulary, in order"
                                  : "the vocabulary has it so");
        if (!is_new)
            continue;
        if (tok->spelled[id].offset != MR_TOK_NO_SPAN)
            return MR_FAIL(err, CORRUPT, "%s: the added token '%.*s' and '%.60s' both have id %d",
                           tok->name, MR_STR_ARG(added->content),
                           tok->bytes + tok->spelled[id].offset, (int)id);
        tok->spelled[id] = (mr_tok_span){at, (uint32_t)added->content.len};
        memcpy(tok->bytes + at, added->content.data, added->content.len + 1);
        at += (uint32_t)added->content.len + 1;
    }
    return MR_OK;
}

/* ---- Merges ---- */

/* The two halves of merges[i]. A comment of the old format has none: *skip. */
static mr_status read_halves(const mr_tokenizer *tok, const json_t *value, size_t i, bool strings,
                             mr_str *left, mr_str *right, bool *skip, mr_error *err)
{
    *skip = false;
    if (strings && json_is_string(value)) {
        const char *text = json_string_value(value);
        const size_t len = json_string_length(value);
        if (strncmp(text, "#version", 8) == 0) {
            *skip = true;
            return MR_OK;
        }
        const char *blank = memchr(text, ' ', len);
        if (blank && !memchr(blank + 1, ' ', len - (size_t)(blank + 1 - text))) {
            *left = (mr_str){text, (size_t)(blank - text)};
            *right = (mr_str){blank + 1, len - left->len - 1};
            return MR_OK;
        }
    } else if (!strings && json_array_size(value) == 2) {
        const json_t *a = json_array_get(value, 0), *b = json_array_get(value, 1);
        if (json_is_string(a) && json_is_string(b)) {
            *left = (mr_str){json_string_value(a), json_string_length(a)};
            *right = (mr_str){json_string_value(b), json_string_length(b)};
            return MR_OK;
        }
    }
    return MR_FAIL(err, CORRUPT, "%s: model.merges[%zu] is %s, expected %s", tok->name, i,
                   mr_json_describe(value),
                   strings ? "two tokens with a space between" : "a list of two tokens");
}

static mr_status read_merges(mr_tokenizer *tok, const json_t *array, mr_tok_merge *list,
                             mr_error *err)
{
    mr_strbuf joined = {0};
    mr_status status = MR_OK;
    const bool strings = json_is_string(json_array_get(array, 0));
    for (size_t i = 0; i < json_array_size(array); i++) {
        mr_str part[3];
        bool skip;
        status =
            read_halves(tok, json_array_get(array, i), i, strings, &part[0], &part[1], &skip, err);
        if (status != MR_OK)
            break;
        if (skip)
            continue;
        mr_strbuf_clear(&joined);
        mr_strbuf_append(&joined, part[0].data, part[0].len);
        mr_strbuf_append(&joined, part[1].data, part[1].len);
        if (joined.failed) {
            status = MR_TOK_NO_MEMORY(tok, err, joined.len);
            break;
        }
        part[2] = (mr_str){joined.data, joined.len};
        int32_t id[3];
        for (int p = 0; p < 3 && status == MR_OK; p++) {
            id[p] = mr_tok_strings_find(&tok->vocabulary, part[p].data, part[p].len);
            if (id[p] < 0)
                status = MR_FAIL(err, CORRUPT,
                                 "%s: model.merges[%zu] %s '%.*s', which is not in model.vocab",
                                 tok->name, i, p < 2 ? "joins" : "makes", MR_STR_ARG(part[p]));
        }
        if (status != MR_OK)
            break;
        list[tok->n_merges] =
            (mr_tok_merge){mr_tok_pair(id[0], id[1]), (uint32_t)tok->n_merges, id[2]};
        tok->n_merges++;
    }
    mr_strbuf_release(&joined);
    return status;
}

/* ---- The model ---- */

static mr_status read_options(mr_tokenizer *tok, mr_json_cursor *cur)
{
    static const char *const keys[] = {"type",
                                       "dropout",
                                       "unk_token",
                                       "fuse_unk",
                                       "byte_fallback",
                                       "continuing_subword_prefix",
                                       "ignore_merges",
                                       "vocab",
                                       "merges",
                                       "end_of_word_suffix",
                                       NULL};
    const char *type = mr_json_string(cur, "type", "BPE", false);
    if (cur->status == MR_OK && strcmp(type, "BPE") != 0)
        return MR_FAIL(cur->err, UNSUPPORTED, "%s: model type '%.60s', expected 'BPE'", tok->name,
                       type);
    mr_tok_only_keys(cur, keys);
    if (mr_json_real(cur, "dropout", 0, 1, 0) > 0)
        return MR_FAIL(cur->err, UNSUPPORTED, "%s: 'dropout' makes ids random; expected null or 0",
                       cur->name);
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++) {
        const char *affix = mr_json_string(cur, affixes[i], "", false);
        if (cur->status == MR_OK && *affix)
            return MR_FAIL(cur->err, UNSUPPORTED, "%s: '%s' is '%.60s', expected null", cur->name,
                           affixes[i], affix);
    }
    const char *unk = mr_json_string(cur, "unk_token", NULL, false);
    if (unk && !(tok->unk_token = mr_arena_strndup(&tok->arena, unk, strlen(unk))))
        return MR_TOK_NO_MEMORY(tok, cur->err, strlen(unk));
    tok->fuse_unk = mr_json_bool(cur, "fuse_unk", false);
    tok->byte_fallback = mr_json_bool(cur, "byte_fallback", false);
    tok->ignore_merges = mr_json_bool(cur, "ignore_merges", false);
    return cur->status;
}

static mr_status load_model(mr_tokenizer *tok, const json_t *model, mr_error *err)
{
    char where[WHERE_SIZE];
    snprintf(where, sizeof where, "%.200s: model", tok->name);
    mr_json_cursor cur = mr_json_cursor_of(where, model, err);
    mr_status status = read_options(tok, &cur);
    if (status != MR_OK)
        return status;
    const json_t *vocab = mr_json_object(&cur, "vocab", true);
    const json_t *merges = mr_json_array(&cur, "merges", true);
    if (cur.status != MR_OK)
        return cur.status;
    const size_t n = json_array_size(merges);
    if (n > MR_TOK_MAX_MERGES)
        return MR_FAIL(err, EXHAUSTED, "%s: %zu merges, expected at most %d", where, n,
                       MR_TOK_MAX_MERGES);
    status = read_vocabulary(tok, vocab, err);
    if (status != MR_OK)
        return status;

    tok->unk_id = tok->unk_token ? mr_tok_strings_find(&tok->vocabulary, tok->unk_token,
                                                       strlen(tok->unk_token))
                                 : -1;
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        tok->fallback[b] = mr_tok_strings_find(&tok->vocabulary, name, 6);
    }
    tok->whole = mr_arena_alloc(&tok->arena, (size_t)tok->n_ids, sizeof *tok->whole, 1);
    mr_tok_merge *list = calloc(n + 1, sizeof *list);
    if (!tok->whole || !list) {
        free(list);
        return MR_TOK_NO_MEMORY(tok, err, (size_t)tok->n_ids + n * sizeof *list);
    }
    status = read_merges(tok, merges, list, err);
    if (status == MR_OK)
        status = mr_tok_merges_init(&tok->merges, &tok->arena, list, tok->n_merges, tok->name, err);
    if (status == MR_OK)
        status = mr_tok_make_words(tok, list, err);
    free(list);
    return status;
}

/* ---- Added tokens, second half: what is searched for ---- */

static mr_status index_added(mr_tokenizer *tok, mr_error *err)
{
    const size_t n = tok->n_added;
    tok->added_by_id = mr_arena_array(&tok->arena, const mr_tok_added *, (size_t)tok->n_ids);
    if (!tok->added_by_id)
        return MR_TOK_NO_MEMORY(tok, err, (size_t)tok->n_ids * sizeof *tok->added_by_id);
    for (size_t i = 0; i < n; i++)
        tok->added_by_id[tok->added[i].id] = &tok->added[i];

    mr_tok_run run = mr_tok_run_of(tok, NULL, err);
    mr_status status = MR_OK;
    for (size_t i = 0; i < n && status == MR_OK; i++) {
        mr_tok_added *added = &tok->added[i];
        mr_str text = added->content;
        if (added->is_normalized)
            status = mr_tok_normalize(&run, text, &text);
        if (status == MR_OK && text.len == 0)
            status = MR_FAIL(err, CORRUPT,
                             "%s: nothing is left of the added token '%.*s' when it "
                             "is normalised",
                             tok->name, MR_STR_ARG(added->content));
        if (status != MR_OK || mr_str_equal(text, added->content))
            continue;
        char *copy = mr_arena_strndup(&tok->arena, text.data, text.len);
        if (!copy)
            status = MR_TOK_NO_MEMORY(tok, err, text.len);
        added->normalized = (mr_str){copy, text.len};
    }
    mr_tok_run_done(&run);
    if (status != MR_OK)
        return status;

    for (size_t i = 0; i < n; i++) {
        const mr_tok_added *spells = mr_tok_added_find(tok, tok->added[i].normalized);
        tok->added[i].skipped = spells && spells->special;
    }
    status =
        mr_tok_added_set_init(&tok->plain_set, &tok->arena, tok->added, n, false, tok->name, err);
    if (status == MR_OK)
        status = mr_tok_added_set_init(&tok->normalized_set, &tok->arena, tok->added, n, true,
                                       tok->name, err);
    return status;
}

/* Texts are encoded one at a time: padding to the longest of one adds nothing. */
static mr_status check_padding(const mr_tokenizer *tok, const json_t *padding, mr_error *err)
{
    const json_t *strategy = json_object_get(padding, "strategy");
    const json_t *multiple = json_object_get(padding, "pad_to_multiple_of");
    if (!padding || json_is_null(padding) ||
        (json_is_string(strategy) && strcmp(json_string_value(strategy), "BatchLongest") == 0 &&
         (!multiple || json_is_null(multiple))))
        return MR_OK;
    return MR_FAIL(err, UNSUPPORTED, "%s: 'padding' is set, expected null or 'BatchLongest'",
                   tok->name);
}

mr_status mr_tok_load(mr_tokenizer *tok, const json_t *root, mr_error *err)
{
    static const char *const keys[] = {
        "version",       "truncation",     "padding", "added_tokens", "normalizer",
        "pre_tokenizer", "post_processor", "decoder", "model",        NULL};
    mr_json_cursor cur = mr_json_cursor_of(tok->name, root, err);
    mr_tok_only_keys(&cur, keys);
    const char *version = mr_json_string(&cur, "version", "1.0", false);
    const json_t *added = mr_json_array(&cur, "added_tokens", false);
    const json_t *model = mr_json_object(&cur, "model", true);
    if (cur.status != MR_OK)
        return cur.status;
    if (strcmp(version, "1.0") != 0)
        return MR_FAIL(err, UNSUPPORTED, "%s: version '%.60s', expected '1.0'", tok->name, version);
    if (!json_is_null(json_object_get(root, "truncation")) && json_object_get(root, "truncation"))
        return MR_FAIL(err, UNSUPPORTED,
                       "%s: 'truncation' is set, expected null: how long a text may be is the "
                       "caller's business here",
                       tok->name);
    mr_status status = check_padding(tok, json_object_get(root, "padding"), err);
    if (status != MR_OK)
        return status;

    status = mr_tok_load_normalizer(tok, json_object_get(root, "normalizer"), err);
    if (status == MR_OK)
        status = mr_tok_load_pretokenizer(tok, json_object_get(root, "pre_tokenizer"), err);
    if (status == MR_OK)
        status = mr_tok_load_decoder(tok, json_object_get(root, "decoder"), err);
    if (status == MR_OK)
        status = read_added(tok, added, err);
    if (status == MR_OK)
        status = load_model(tok, model, err);
    if (status != MR_OK)
        return status;

    bool with_nfc = false;
    for (size_t i = 0; i < tok->n_normalizers; i++)
        with_nfc = with_nfc || tok->normalizers[i].kind == MR_NORMALIZE_NFC;
    status = mr_tok_classes_init(&tok->classes, &tok->arena, with_nfc, err);
    if (status == MR_OK)
        status = index_added(tok, err);
    if (status == MR_OK)
        status = mr_tok_load_post_processor(tok, json_object_get(root, "post_processor"), err);
    return status;
}
