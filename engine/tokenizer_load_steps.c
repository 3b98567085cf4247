/* tokenizer_load_steps.c - tokenizer.json: normaliser, pre-tokeniser, decoder, post-processor.
 *
 * Each of these is one step or a Sequence of steps, which may nest; they are flattened into the
 * tokenizer's arrays.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/tokenizer_private.h"

#define WHERE_SIZE  256
#define MAX_AROUND  64 /* ids that a post-processor puts around a text */
#define MAX_NESTING 8

typedef mr_status (*load_step)(mr_tokenizer *tok, mr_json_cursor *cur, const char *type);

/* Opens a step or walks a Sequence. part is the file's word for it, list the key of a Sequence. */
static mr_status load_steps(mr_tokenizer *tok, const char *where, const json_t *value,
                            const char *list, load_step load, int depth, mr_error *err)
{
    if (!value || json_is_null(value))
        return MR_OK;
    mr_json_cursor cur = mr_json_cursor_of(where, value, err);
    const char *type = mr_json_string(&cur, "type", NULL, true);
    if (cur.status != MR_OK)
        return cur.status;
    if (strcmp(type, "Sequence") != 0)
        return load(tok, &cur, type);

    const char *const keys[] = {"type", list, NULL};
    mr_tok_only_keys(&cur, keys);
    const json_t *steps = mr_json_array(&cur, list, true);
    if (cur.status != MR_OK)
        return cur.status;
    if (depth == MAX_NESTING)
        return MR_FAIL(err, CORRUPT, "%s: Sequences nested deeper than %d", where, MAX_NESTING);
    for (size_t i = 0; i < json_array_size(steps); i++) {
        char inner[WHERE_SIZE];
        snprintf(inner, sizeof inner, "%.180s.%s[%zu]", where, list, i);
        const json_t *step = json_array_get(steps, i);
        if (json_is_null(step))
            return MR_FAIL(err, INVALID, "%s: is null, expected an object", inner);
        mr_status status = load_steps(tok, inner, step, list, load, depth + 1, err);
        if (status != MR_OK)
            return status;
    }
    return MR_OK;
}

static mr_status too_many(const mr_json_cursor *cur)
{
    return MR_FAIL(cur->err, EXHAUSTED, "%s: more than %d steps", cur->name, MR_TOK_MAX_STEPS);
}

static mr_status unsupported_type(const mr_json_cursor *cur, const char *type, const char *known)
{
    return MR_FAIL(cur->err, UNSUPPORTED, "%s: the type '%.60s' is not supported; known are %s",
                   cur->name, type, known);
}

/* A boolean without which the library would not read the file. */
static bool required_bool(mr_json_cursor *cur, const char *key)
{
    const json_t *value = cur->object ? json_object_get(cur->object, key) : NULL;
    if (cur->status == MR_OK && !json_is_boolean(value))
        cur->status = MR_FAIL(cur->err, INVALID, "%s: '%s' is %s, expected true or false",
                              cur->name, key, value ? mr_json_describe(value) : "missing");
    return json_is_true(value);
}

/* {"String": s} or {"Regex": s} under "pattern". */
static mr_status read_pattern(mr_tokenizer *tok, mr_json_cursor *cur, mr_tok_pattern *out)
{
    static const char *const keys[] = {"String", "Regex", NULL};
    char where[WHERE_SIZE];
    snprintf(where, sizeof where, "%.240s.pattern", cur->name);
    mr_json_cursor inner = mr_json_cursor_of(where, mr_json_object(cur, "pattern", true), cur->err);
    if (cur->status != MR_OK)
        return cur->status;
    mr_tok_only_keys(&inner, keys);
    const bool is_regex = json_object_get(inner.object, "Regex") != NULL;
    if (inner.status == MR_OK && json_object_size(inner.object) != 1)
        return MR_FAIL(cur->err, INVALID, "%s: expected either 'String' or 'Regex'", where);
    mr_str text = mr_tok_json_text(tok, &inner, is_regex ? "Regex" : "String",
                                   is_regex ? SIZE_MAX : MR_TOK_MAX_SPLICE);
    if (inner.status != MR_OK)
        return inner.status;
    return is_regex ? mr_tok_pattern_regex(out, where, text, true, cur->err)
                    : mr_tok_pattern_literal(out, where, text, cur->err);
}

/* A string that is one character. */
static mr_str read_character(mr_tokenizer *tok, mr_json_cursor *cur, const char *key)
{
    mr_str text = mr_tok_json_text(tok, cur, key, MR_TOK_MAX_SPLICE);
    if (cur->status == MR_OK &&
        (text.len == 0 || mr_tok_char_size((unsigned char)text.data[0]) != text.len))
        cur->status = MR_FAIL(cur->err, INVALID, "%s: '%s' is '%.*s', expected one character",
                              cur->name, key, MR_STR_ARG(text));
    return text;
}

static int read_choice(mr_json_cursor *cur, const char *key, const char *const *names, int n,
                       int fallback)
{
    const char *text =
        mr_json_string(cur, key, fallback < 0 ? NULL : names[fallback], fallback < 0);
    if (cur->status != MR_OK)
        return 0;
    for (int i = 0; i < n; i++) {
        if (strcmp(text, names[i]) == 0)
            return i;
    }
    cur->status = MR_FAIL(cur->err, INVALID, "%s: '%s' is '%.60s', expected '%s', '%s' or another",
                          cur->name, key, text, names[0], names[1]);
    return 0;
}

/* ---- Normaliser ---- */

static mr_status load_normalizer(mr_tokenizer *tok, mr_json_cursor *cur, const char *type)
{
    static const char *const type_alone[] = {"type", NULL};
    static const char *const prepend_keys[] = {"type", "prepend", NULL};
    static const char *const replace_keys[] = {"type", "pattern", "content", NULL};
    if (tok->n_normalizers == MR_TOK_MAX_STEPS)
        return too_many(cur);
    mr_tok_normalizer *step = &tok->normalizers[tok->n_normalizers++];
    mr_status status = MR_OK;
    if (strcmp(type, "NFC") == 0) {
        step->kind = MR_NORMALIZE_NFC;
        mr_tok_only_keys(cur, type_alone);
    } else if (strcmp(type, "Lowercase") == 0) {
        step->kind = MR_NORMALIZE_LOWERCASE;
        mr_tok_only_keys(cur, type_alone);
    } else if (strcmp(type, "Prepend") == 0) {
        step->kind = MR_NORMALIZE_PREPEND;
        mr_tok_only_keys(cur, prepend_keys);
        step->text = mr_tok_json_text(tok, cur, "prepend", MR_TOK_MAX_SPLICE);
        if (cur->status == MR_OK && step->text.len == 0)
            return MR_FAIL(cur->err, UNSUPPORTED, "%s: 'prepend' is empty", cur->name);
    } else if (strcmp(type, "Replace") == 0) {
        step->kind = MR_NORMALIZE_REPLACE;
        mr_tok_only_keys(cur, replace_keys);
        step->text = mr_tok_json_text(tok, cur, "content", MR_TOK_MAX_SPLICE);
        status = read_pattern(tok, cur, &step->pattern);
        /* What the library makes of the text around an empty match follows from its offsets. */
        if (status == MR_OK && mr_tok_pattern_matches_empty(&step->pattern))
            return MR_FAIL(cur->err, UNSUPPORTED, "%s: the regex '%.*s' may match an empty text",
                           cur->name, MR_STR_ARG(step->pattern.literal));
    } else {
        return unsupported_type(cur, type, "NFC, Lowercase, Prepend, Replace, Sequence");
    }
    return status != MR_OK ? status : cur->status;
}

mr_status mr_tok_load_normalizer(mr_tokenizer *tok, const json_t *value, mr_error *err)
{
    char where[WHERE_SIZE];
    snprintf(where, sizeof where, "%.150s: normalizer", tok->name);
    return load_steps(tok, where, value, "normalizers", load_normalizer, 0, err);
}

/* ---- Pre-tokeniser ---- */

static mr_tok_prepend read_prepend_scheme(mr_json_cursor *cur)
{
    static const char *const names[] = {
        [MR_PREPEND_NEVER] = "never", [MR_PREPEND_FIRST] = "first", [MR_PREPEND_ALWAYS] = "always"};
    const mr_tok_prepend scheme =
        (mr_tok_prepend)read_choice(cur, "prepend_scheme", names, 3, MR_PREPEND_ALWAYS);
    /* The older spelling may stand beside it, and must then agree. */
    const bool prefix = mr_json_bool(cur, "add_prefix_space", true);
    if (cur->status == MR_OK && !prefix && scheme != MR_PREPEND_NEVER)
        cur->status = MR_FAIL(cur->err, CORRUPT,
                              "%s: 'add_prefix_space' is false, and 'prepend_scheme' is '%s', "
                              "expected 'never'",
                              cur->name, names[scheme]);
    return scheme;
}

/* Which piece is the first is asked of the text before normalisation. NFC and lower case keep its
 * start; where text is inserted or removed there, the library's answer follows from how it keeps
 * offsets. */
static mr_status check_start_is_kept(const mr_tokenizer *tok, const mr_json_cursor *cur)
{
    bool kept = true;
    for (size_t i = 0; i < tok->n_normalizers; i++)
        kept = kept && (tok->normalizers[i].kind == MR_NORMALIZE_NFC ||
                        tok->normalizers[i].kind == MR_NORMALIZE_LOWERCASE);
    for (size_t i = 0; i + 1 < tok->n_pretokenizers; i++)
        kept = kept && tok->pretokenizers[i].kind != MR_PRETOK_METASPACE;
    if (kept)
        return MR_OK;
    return MR_FAIL(cur->err, UNSUPPORTED,
                   "%s: 'prepend_scheme' is 'first' after a step that inserts or removes text; "
                   "expected 'always' or 'never'",
                   cur->name);
}

static mr_status load_pretokenizer(mr_tokenizer *tok, mr_json_cursor *cur, const char *type)
{
    static const char *const split_keys[] = {"type", "pattern", "behavior", "invert", NULL};
    static const char *const digits_keys[] = {"type", "individual_digits", NULL};
    static const char *const metaspace_keys[] = {
        "type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep", NULL};
    static const char *const byte_level_keys[] = {"type", "add_prefix_space", "trim_offsets",
                                                  "use_regex", NULL};
    static const char *const behaviors[] = {
        [MR_SPLIT_REMOVED] = "Removed",
        [MR_SPLIT_ISOLATED] = "Isolated",
        [MR_SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [MR_SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
        [MR_SPLIT_CONTIGUOUS] = "Contiguous",
    };
    if (tok->byte_level)
        return MR_FAIL(cur->err, UNSUPPORTED, "%s: a step after ByteLevel, which must be the last",
                       cur->name);
    if (tok->n_pretokenizers == MR_TOK_MAX_STEPS)
        return too_many(cur);
    mr_tok_pretokenizer *step = &tok->pretokenizers[tok->n_pretokenizers++];
    mr_status status = MR_OK;
    if (strcmp(type, "Split") == 0) {
        step->kind = MR_PRETOK_SPLIT;
        mr_tok_only_keys(cur, split_keys);
        step->behavior = (mr_tok_behavior)read_choice(cur, "behavior", behaviors, 5, -1);
        step->invert = required_bool(cur, "invert");
        status = read_pattern(tok, cur, &step->pattern);
    } else if (strcmp(type, "Digits") == 0) {
        step->kind = MR_PRETOK_DIGITS;
        mr_tok_only_keys(cur, digits_keys);
        step->behavior =
            required_bool(cur, "individual_digits") ? MR_SPLIT_ISOLATED : MR_SPLIT_CONTIGUOUS;
    } else if (strcmp(type, "Metaspace") == 0) {
        step->kind = MR_PRETOK_METASPACE;
        step->behavior = MR_SPLIT_MERGED_WITH_NEXT;
        mr_tok_only_keys(cur, metaspace_keys);
        step->splits = mr_json_bool(cur, "split", true);
        step->prepend = read_prepend_scheme(cur);
        if (cur->status == MR_OK && step->prepend == MR_PREPEND_FIRST)
            status = check_start_is_kept(tok, cur);
        if (status != MR_OK)
            return status;
        mr_str mark = read_character(tok, cur, "replacement");
        if (cur->status == MR_OK)
            status = mr_tok_pattern_literal(&step->pattern, cur->name, mark, cur->err);
    } else if (strcmp(type, "ByteLevel") == 0) {
        step->kind = MR_PRETOK_BYTE_LEVEL;
        step->behavior = MR_SPLIT_ISOLATED;
        tok->byte_level = true;
        mr_tok_only_keys(cur, byte_level_keys);
        step->prefix_space = required_bool(cur, "add_prefix_space");
        (void)required_bool(cur, "trim_offsets"); /* of offsets, which we do not give */
        step->splits = mr_json_bool(cur, "use_regex", true);
        if (cur->status == MR_OK && step->splits)
            status = mr_tok_pattern_regex(&step->pattern, cur->name, mr_str_of(MR_TOK_GPT2_REGEX),
                                          true, cur->err);
    } else {
        return unsupported_type(cur, type, "Split, ByteLevel, Digits, Metaspace, Sequence");
    }
    return status != MR_OK ? status : cur->status;
}

mr_status mr_tok_load_pretokenizer(mr_tokenizer *tok, const json_t *value, mr_error *err)
{
    char where[WHERE_SIZE];
    snprintf(where, sizeof where, "%.150s: pre_tokenizer", tok->name);
    return load_steps(tok, where, value, "pretokenizers", load_pretokenizer, 0, err);
}

/* ---- Decoder ---- */

static mr_status load_decoder(mr_tokenizer *tok, mr_json_cursor *cur, const char *type)
{
    static const char *const plain_keys[] = {"type", NULL};
    static const char *const byte_level_keys[] = {"type", "add_prefix_space", "trim_offsets",
                                                  "use_regex", NULL};
    static const char *const metaspace_keys[] = {
        "type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep", NULL};
    static const char *const replace_keys[] = {"type", "pattern", "content", NULL};
    static const char *const strip_keys[] = {"type", "content", "start", "stop", NULL};
    if (tok->n_decoders == MR_TOK_MAX_STEPS)
        return too_many(cur);
    mr_tok_decoder *step = &tok->decoders[tok->n_decoders++];
    mr_status status = MR_OK;
    if (strcmp(type, "ByteLevel") == 0) {
        step->kind = MR_DECODE_BYTE_LEVEL;
        mr_tok_only_keys(cur, byte_level_keys);
    } else if (strcmp(type, "Metaspace") == 0) {
        step->kind = MR_DECODE_METASPACE;
        mr_tok_only_keys(cur, metaspace_keys);
        step->text = read_character(tok, cur, "replacement");
        step->prepend = read_prepend_scheme(cur);
    } else if (strcmp(type, "Replace") == 0) {
        step->kind = MR_DECODE_REPLACE;
        mr_tok_only_keys(cur, replace_keys);
        step->text = mr_tok_json_text(tok, cur, "content", MR_TOK_MAX_SPLICE);
        status = read_pattern(tok, cur, &step->pattern);
    } else if (strcmp(type, "ByteFallback") == 0) {
        step->kind = MR_DECODE_BYTE_FALLBACK;
        mr_tok_only_keys(cur, plain_keys);
    } else if (strcmp(type, "Fuse") == 0) {
        step->kind = MR_DECODE_FUSE;
        mr_tok_only_keys(cur, plain_keys);
    } else if (strcmp(type, "Strip") == 0) {
        step->kind = MR_DECODE_STRIP;
        mr_tok_only_keys(cur, strip_keys);
        step->text = read_character(tok, cur, "content");
        step->start = (size_t)mr_json_int(cur, "start", 0, INT32_MAX, MR_JSON_REQUIRED);
        step->stop = (size_t)mr_json_int(cur, "stop", 0, INT32_MAX, MR_JSON_REQUIRED);
    } else {
        return unsupported_type(
            cur, type, "ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip, Sequence");
    }
    return status != MR_OK ? status : cur->status;
}

mr_status mr_tok_load_decoder(mr_tokenizer *tok, const json_t *value, mr_error *err)
{
    char where[WHERE_SIZE];
    snprintf(where, sizeof where, "%.150s: decoder", tok->name);
    tok->has_decoder = value && !json_is_null(value);
    return load_steps(tok, where, value, "decoders", load_decoder, 0, err);
}

/* ---- Post-processor ---- */

/* Appends special_tokens[name].ids to the ids before or after the text. */
static mr_status add_around(mr_tokenizer *tok, const mr_json_cursor *template, const json_t *known,
                            const char *name, int32_t *ids, size_t *n)
{
    static const char *const keys[] = {"id", "ids", "tokens", NULL};
    const json_t *special = json_object_get(known, name);
    if (!special)
        return MR_FAIL(template->err, CORRUPT,
                       "%s: 'single' uses '%.60s', which is not in "
                       "'special_tokens'",
                       template->name, name);
    char where[WHERE_SIZE];
    snprintf(where, sizeof where, "%.150s.special_tokens['%.60s']", template->name, name);
    mr_json_cursor cur = mr_json_cursor_of(where, special, template->err);
    mr_tok_only_keys(&cur, keys);
    const json_t *list = mr_json_array(&cur, "ids", true);
    for (size_t i = 0; i < json_array_size(list) && cur.status == MR_OK; i++) {
        const json_t *value = json_array_get(list, i);
        const json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= tok->n_ids || tok->spelled[id].offset == MR_TOK_NO_SPAN)
            cur.status = MR_FAIL(cur.err, CORRUPT, "%s: ids[%zu] is %s, expected the id of a token",
                                 where, i, mr_json_describe(value));
        else if (*n == MAX_AROUND)
            cur.status = MR_FAIL(cur.err, EXHAUSTED, "%s: more than %d ids around a text", where,
                                 MAX_AROUND);
        else
            ids[(*n)++] = (int32_t)id;
    }
    return cur.status;
}

/* A piece of a template: {"SpecialToken": {"id": name}} or {"Sequence": {"id": "A"}}. *name NULL:
 * it is the text. */
static mr_status read_piece(const mr_json_cursor *template, const json_t *value, size_t i,
                            const char **name)
{
    static const char *const keys[] = {"id", "type_id", NULL};
    char where[WHERE_SIZE];
    snprintf(where, sizeof where, "%.200s.single[%zu]", template->name, i);
    const json_t *special = json_object_get(value, "SpecialToken");
    const json_t *text = json_object_get(value, "Sequence");
    if (json_object_size(value) != 1 || (!special && !text))
        return MR_FAIL(template->err, INVALID,
                       "%s: is %s, expected a 'SpecialToken' or a 'Sequence'", where,
                       mr_json_describe(value));
    mr_json_cursor cur = mr_json_cursor_of(where, special ? special : text, template->err);
    mr_tok_only_keys(&cur, keys);
    const char *id = mr_json_string(&cur, "id", NULL, true);
    if (cur.status == MR_OK && text && strcmp(id, "A") != 0)
        return MR_FAIL(cur.err, UNSUPPORTED, "%s: the sequence '%.60s', expected 'A'", where, id);
    *name = text ? NULL : id;
    return cur.status;
}

static mr_status load_template(mr_tokenizer *tok, mr_json_cursor *cur)
{
    static const char *const keys[] = {"type", "single", "pair", "special_tokens", NULL};
    int32_t ids[2][MAX_AROUND];
    size_t n[2] = {0, 0};
    int texts = 0;
    mr_tok_only_keys(cur, keys);
    const json_t *single = mr_json_array(cur, "single", true);
    const json_t *known = mr_json_object(cur, "special_tokens", true);
    if (cur->status != MR_OK)
        return cur->status;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const char *name = NULL;
        mr_status status = read_piece(cur, json_array_get(single, i), i, &name);
        if (status == MR_OK && !name && ++texts > 1)
            break;
        if (status == MR_OK && name)
            status = add_around(tok, cur, known, name, ids[texts], &n[texts]);
        if (status != MR_OK)
            return status;
    }
    if (texts != 1)
        return MR_FAIL(cur->err, UNSUPPORTED, "%s: 'single' holds the text %s, expected once",
                       cur->name, texts ? "twice" : "nowhere");
    if (tok->prefix)
        return MR_FAIL(cur->err, UNSUPPORTED, "%s: a second TemplateProcessing", cur->name);
    tok->n_prefix = n[0];
    tok->n_suffix = n[1];
    tok->prefix = mr_arena_array(&tok->arena, int32_t, n[0]);
    tok->suffix = mr_arena_array(&tok->arena, int32_t, n[1]);
    if (!tok->prefix || !tok->suffix)
        return MR_TOK_NO_MEMORY(tok, cur->err, (n[0] + n[1]) * sizeof *tok->prefix);
    memcpy(tok->prefix, ids[0], n[0] * sizeof *tok->prefix);
    memcpy(tok->suffix, ids[1], n[1] * sizeof *tok->suffix);
    return MR_OK;
}

static mr_status load_post_processor(mr_tokenizer *tok, mr_json_cursor *cur, const char *type)
{
    static const char *const byte_level_keys[] = {"type", "add_prefix_space", "trim_offsets",
                                                  "use_regex", NULL};
    if (strcmp(type, "ByteLevel") == 0) /* trims offsets, which we do not give */
        return mr_tok_only_keys(cur, byte_level_keys);
    if (strcmp(type, "TemplateProcessing") == 0)
        return load_template(tok, cur);
    return unsupported_type(cur, type, "TemplateProcessing, ByteLevel, Sequence");
}

mr_status mr_tok_load_post_processor(mr_tokenizer *tok, const json_t *value, mr_error *err)
{
    char where[WHERE_SIZE];
    snprintf(where, sizeof where, "%.150s: post_processor", tok->name);
    return load_steps(tok, where, value, "processors", load_post_processor, 0, err);
}
