/* template_compile.c - from a JSON array of segments to a compiled template.
 *
 * A bundle's template is written by hand, so every slip is answered with the segment's place, what
 * was found and what would have been right. Texts are tokenised here, once; a prompt then copies
 * their ids.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encoders/template_segments.h"

static const char *const slot_names[MR_SLOT_COUNT] = {"item", "user", "image"};

const char *mr_slot_name(mr_slot_kind kind)
{
    return (size_t)kind < MR_SLOT_COUNT ? slot_names[kind] : "unknown";
}

bool template_slot_from_name(const char *name, mr_slot_kind *out)
{
    for (size_t i = 0; i < MR_SLOT_COUNT; i++) {
        if (strcmp(name, slot_names[i]) == 0) {
            *out = (mr_slot_kind)i;
            return true;
        }
    }
    return false;
}

/* What compiling one segment needs; where is its place, "bundle.json: prefix[2]". */
typedef struct {
    mr_template *tmpl;
    const char *where;
    mr_error *err;
} compiler;

static mr_status no_memory(const compiler *c)
{
    return MR_FAIL(c->err, NO_MEMORY, "%s: no memory for the segment", c->where);
}

/* The ids of an author's text, in the template's arena. */
static mr_status tokenise_text(const compiler *c, mr_str text, const int32_t **ids, size_t *n)
{
    mr_ids list = {0};
    mr_status status =
        mr_tokenizer_encode(c->tmpl->tokenizer, text, MR_TOKENIZE_PARSE_SPECIAL, &list, c->err);
    if (status != MR_OK) {
        mr_error_prefix(c->err, status, "%s", c->where);
        goto out;
    }
    int32_t *copy = mr_arena_array(&c->tmpl->arena, int32_t, list.n);
    if (!copy) {
        status = no_memory(c);
        goto out;
    }
    if (list.n)
        memcpy(copy, list.data, list.n * sizeof *copy);
    *ids = copy;
    *n = list.n;

out:
    mr_ids_release(&list);
    return status;
}

/* A field's or a slot's name: a string that C can hold, copied. */
static mr_status read_name(const compiler *c, const json_t *object, const char *key,
                           const char **out)
{
    const json_t *value = json_object_get(object, key);
    const char *text = json_string_value(value);
    if (!text)
        return MR_FAIL(c->err, INVALID, "%s: '%s' is %s, expected a name", c->where, key,
                       mr_json_describe(value));
    if (text[0] == '\0' || strlen(text) != json_string_length(value))
        return MR_FAIL(c->err, INVALID, "%s: '%s' is %s, expected a name without NUL", c->where,
                       key, text[0] == '\0' ? "empty" : "a text with NUL in it");
    *out = mr_arena_strndup(&c->tmpl->arena, text, strlen(text));
    return *out ? MR_OK : no_memory(c);
}

static mr_status read_slot(const compiler *c, const json_t *object, template_segment *segment)
{
    mr_status status = read_name(c, object, "slot", &segment->name);
    if (status != MR_OK)
        return status;
    if (!template_slot_from_name(segment->name, &segment->slot))
        return MR_FAIL(c->err, INVALID, "%s: there is no slot '%s'; slots are item, user and image",
                       c->where, segment->name);
    return MR_OK;
}

static mr_status read_token(const compiler *c, const json_t *object, template_segment *segment)
{
    const mr_tokenizer *tokenizer = c->tmpl->tokenizer;
    const json_t *value = json_object_get(object, "token");
    int32_t id = -1;

    if (json_is_integer(value)) {
        json_int_t number = json_integer_value(value);
        if (number < 0 || number >= mr_tokenizer_vocab_size(tokenizer))
            return MR_FAIL(c->err, INVALID,
                           "%s: token %lld is outside the vocabulary, expected 0 to %d", c->where,
                           (long long)number, (int)mr_tokenizer_vocab_size(tokenizer) - 1);
        id = (int32_t)number;
        if (!mr_tokenizer_token(tokenizer, id))
            return MR_FAIL(c->err, INVALID, "%s: the vocabulary has no token with id %d", c->where,
                           (int)id);
    } else if (json_is_string(value)) {
        mr_str text = {json_string_value(value), json_string_length(value)};
        if (strlen(text.data) == text.len)
            id = mr_tokenizer_token_id(tokenizer, text.data);
        if (id < 0) {
            const int32_t *ids = NULL;
            size_t n = 0;
            mr_status status = tokenise_text(c, text, &ids, &n);
            if (status != MR_OK)
                return status;
            if (n != 1)
                return MR_FAIL(c->err, INVALID,
                               "%s: '%.*s' is %zu tokens in this vocabulary, expected exactly one; "
                               "use the token's own spelling or its id",
                               c->where, MR_STR_ARG(text), n);
            id = ids[0];
        }
    } else {
        return MR_FAIL(c->err, INVALID,
                       "%s: 'token' is %s, expected the spelling or the id of one token", c->where,
                       mr_json_describe(value));
    }

    int32_t *copy = mr_arena_array(&c->tmpl->arena, int32_t, 1);
    if (!copy)
        return no_memory(c);
    copy[0] = id;
    segment->ids = copy;
    segment->n_ids = 1;
    return MR_OK;
}

/* A part that is an object: {"field": name} and nothing else. */
static mr_status read_part_field(const compiler *c, const json_t *object, template_part *part)
{
    static const char *const known[] = {"field", NULL};
    mr_json_cursor cur = mr_json_cursor_of(c->where, object, c->err);
    mr_json_only(&cur, known);
    if (cur.status != MR_OK)
        return mr_error_prefix(c->err, cur.status,
                               "a part of a join is a text or {\"field\": ...}");
    return read_name(c, object, "field", &part->field);
}

static mr_status read_join(const compiler *c, const json_t *object, template_segment *segment)
{
    const json_t *list = json_object_get(object, "join");
    if (!json_is_array(list))
        return MR_FAIL(c->err, INVALID, "%s: 'join' is %s, expected an array of texts and fields",
                       c->where, mr_json_describe(list));
    size_t n = json_array_size(list);
    if (n == 0 || n > MR_TEMPLATE_MAX_SEGMENTS)
        return MR_FAIL(c->err, INVALID, "%s: 'join' has %zu parts, expected 1 to %d", c->where, n,
                       MR_TEMPLATE_MAX_SEGMENTS);
    template_part *parts = mr_arena_array(&c->tmpl->arena, template_part, n);
    if (!parts)
        return no_memory(c);

    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(list, i);
        char where[256];
        snprintf(where, sizeof where, "%s.join[%zu]", c->where, i);
        const compiler inner = {c->tmpl, where, c->err};
        if (json_is_string(value)) {
            size_t len = json_string_length(value);
            char *copy = mr_arena_strndup(&c->tmpl->arena, json_string_value(value), len);
            if (!copy)
                return no_memory(c);
            parts[i].text = (mr_str){copy, len};
        } else if (json_is_object(value)) {
            mr_status status = read_part_field(&inner, value, &parts[i]);
            if (status != MR_OK)
                return status;
        } else {
            return MR_FAIL(c->err, INVALID, "%s: found %s, expected a text or {\"field\": ...}",
                           where, mr_json_describe(value));
        }
    }
    segment->parts = parts;
    segment->n_parts = n;
    return MR_OK;
}

/* The kinds of segments that are objects, by the key that makes them one. */
static const struct kind_row {
    const char *key;
    mr_piece_kind kind;
    const char *known[5]; /* keys that it may have */
} kind_table[] = {
    {"field", MR_PIECE_FIELD, {"field", "max_tokens", "truncate", "when", NULL}},
    {"token", MR_PIECE_TOKEN, {"token", "when", NULL}},
    {"slot", MR_PIECE_SLOT, {"slot", "when", NULL}},
    {"join", MR_PIECE_JOIN, {"join", "max_tokens", "truncate", "when", NULL}},
};
#define N_KINDS (sizeof kind_table / sizeof *kind_table)

static mr_status find_kind(const compiler *c, const json_t *object, const struct kind_row **out)
{
    static const char *const any_key[] = {"field",      "token",    "slot", "join",
                                          "max_tokens", "truncate", "when", NULL};
    mr_json_cursor cur = mr_json_cursor_of(c->where, object, c->err);
    mr_json_only(&cur, any_key); /* first, so that "feild" is told its neighbour */
    if (cur.status != MR_OK)
        return cur.status;

    const struct kind_row *found = NULL;
    for (size_t i = 0; i < N_KINDS; i++) {
        const json_t *value = json_object_get(object, kind_table[i].key);
        if (!value || json_is_null(value))
            continue;
        if (found)
            return MR_FAIL(c->err, INVALID, "%s: has both '%s' and '%s', expected one of them",
                           c->where, found->key, kind_table[i].key);
        found = &kind_table[i];
    }
    if (!found)
        return MR_FAIL(c->err, INVALID,
                       "%s: has none of 'field', 'token', 'slot' and 'join', expected one of them",
                       c->where);
    *out = found;
    return MR_OK;
}

static mr_status read_condition(const compiler *c, const json_t *object, template_segment *segment)
{
    const json_t *value = json_object_get(object, "when");
    if (!value || json_is_null(value))
        return MR_OK;
    const char *name = NULL;
    mr_status status = read_name(c, object, "when", &name);
    if (status != MR_OK)
        return status;
    if (template_slot_from_name(name, &segment->when_slot)) {
        segment->when = TEMPLATE_WHEN_SLOT;
    } else {
        segment->when = TEMPLATE_WHEN_FIELD;
        segment->when_field = name;
    }
    return MR_OK;
}

static mr_status read_object(const compiler *c, const json_t *object, template_segment *segment)
{
    const struct kind_row *row = NULL;
    mr_status status = find_kind(c, object, &row);
    if (status != MR_OK)
        return status;

    mr_json_cursor cur = mr_json_cursor_of(c->where, object, c->err);
    mr_json_only(&cur, row->known);
    if (cur.status != MR_OK)
        return mr_error_prefix(c->err, cur.status, "a segment with '%s'", row->key);
    if (row->kind == MR_PIECE_FIELD || row->kind == MR_PIECE_JOIN) {
        segment->max_tokens = (size_t)mr_json_int(&cur, "max_tokens", 1, MR_TEMPLATE_MAX_TOKENS, 0);
        segment->truncate = mr_json_bool(&cur, "truncate", false);
        if (cur.status != MR_OK)
            return cur.status;
    }
    status = read_condition(c, object, segment);
    if (status != MR_OK)
        return status;

    segment->kind = row->kind;
    switch (row->kind) {
    case MR_PIECE_FIELD: return read_name(c, object, "field", &segment->name);
    case MR_PIECE_TOKEN: return read_token(c, object, segment);
    case MR_PIECE_SLOT: return read_slot(c, object, segment);
    case MR_PIECE_JOIN: return read_join(c, object, segment);
    case MR_PIECE_TEXT: break;
    }
    return MR_FAIL(c->err, INTERNAL, "%s: a kind without a reader", c->where);
}

static mr_status read_segment(const compiler *c, const json_t *value, template_segment *segment)
{
    if (json_is_object(value))
        return read_object(c, value, segment);
    if (!json_is_string(value))
        return MR_FAIL(c->err, INVALID, "%s: found %s, expected a text or an object", c->where,
                       mr_json_describe(value));
    segment->kind = MR_PIECE_TEXT;
    return tokenise_text(c, (mr_str){json_string_value(value), json_string_length(value)},
                         &segment->ids, &segment->n_ids);
}

/* A record's embedding tokens enter a prompt once: with the same slot twice, the count of slots
 * would not be the count of vectors. */
static mr_status refuse_slot_twice(const mr_template *tmpl, size_t last, mr_error *err)
{
    const template_segment *segment = &tmpl->segments[last];
    for (size_t i = 0; segment->kind == MR_PIECE_SLOT && i < last; i++) {
        if (tmpl->segments[i].kind == MR_PIECE_SLOT && tmpl->segments[i].slot == segment->slot)
            return MR_FAIL(err, INVALID,
                           "%s[%zu]: slot '%s' is already segment %zu; a slot may be used once",
                           tmpl->name, last, segment->name, i);
    }
    return MR_OK;
}

mr_status mr_template_compile(mr_template **out, const char *name, const json_t *segments,
                              const mr_tokenizer *tokenizer, mr_error *err)
{
    mr_template *tmpl = NULL;
    mr_status status = MR_OK;

    if (!json_is_array(segments))
        return MR_FAIL(err, INVALID, "%s: found %s, expected an array of segments", name,
                       mr_json_describe(segments));
    size_t n = json_array_size(segments);
    if (n > MR_TEMPLATE_MAX_SEGMENTS)
        return MR_FAIL(err, INVALID, "%s: %zu segments, expected at most %d", name, n,
                       MR_TEMPLATE_MAX_SEGMENTS);

    tmpl = calloc(1, sizeof *tmpl);
    if (!tmpl)
        return MR_FAIL(err, NO_MEMORY, "%s: no memory for a template", name);
    tmpl->tokenizer = tokenizer;
    tmpl->name = mr_arena_strndup(&tmpl->arena, name, strlen(name));
    tmpl->segments = mr_arena_array(&tmpl->arena, template_segment, n);
    if (!tmpl->name || !tmpl->segments) {
        status = MR_FAIL(err, NO_MEMORY, "%s: no memory for %zu segments", name, n);
        goto out;
    }
    tmpl->n = n;

    for (size_t i = 0; i < n; i++) {
        char where[200];
        snprintf(where, sizeof where, "%s[%zu]", name, i);
        const compiler c = {tmpl, where, err};
        status = read_segment(&c, json_array_get(segments, i), &tmpl->segments[i]);
        if (status == MR_OK)
            status = refuse_slot_twice(tmpl, i, err);
        if (status != MR_OK)
            goto out;
    }
    *out = tmpl;
    tmpl = NULL;

out:
    mr_template_free(tmpl);
    return status;
}

void mr_template_free(mr_template *tmpl)
{
    if (!tmpl)
        return;
    mr_arena_done(&tmpl->arena);
    free(tmpl);
}
