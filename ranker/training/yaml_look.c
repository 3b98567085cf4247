/* yaml_look.c - a text against its schema, event by event: unknown keys, values, bounds.
 *
 * The recursion follows the schema, not the text: how deep a text nests does not matter. Memory
 * that a text can make it take is bounded by its 1 MiB and by the counts in the schema.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/yaml_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "core/options.h"
#include "core/utf8.h"

#define MAX_NAMES                                                                   \
    64 /* keys of one mapping, or words of one value, that a message may look among \
        */
#define MAX_KEYS ((size_t)4096)

typedef struct {
    const mr_yaml_schema *schema;
    mr_yaml_text *text;
    yaml_parser_t parser;
    yaml_event_t event;
    char path[MR_YAML_MAX_PATH];
    mr_error *err;
} looker;

static int line_of(const looker *l)
{
    return (int)l->event.start_mark.line + 1;
}

/* "recipe.yaml:3: " before the message of a failure. */
static mr_status at_line(const looker *l, mr_status status)
{
    return status == MR_OK ? MR_OK
                           : mr_error_prefix(l->err, status, "%s:%d", l->text->name, line_of(l));
}

#define REFUSE(l, ...) at_line((l), MR_FAIL((l)->err, INVALID, __VA_ARGS__))

static mr_status next_event(looker *l)
{
    yaml_event_delete(&l->event);
    if (yaml_parser_parse(&l->parser, &l->event))
        return MR_OK;
    memset(&l->event, 0, sizeof l->event);
    if (l->parser.error == YAML_MEMORY_ERROR)
        return MR_FAIL(l->err, NO_MEMORY, "reading '%s'", l->text->name);
    /* A problem of the bytes has an offset alone; the mark is near it. */
    const bool marked = l->parser.error != YAML_READER_ERROR;
    const size_t line = marked ? l->parser.problem_mark.line : l->parser.mark.line;
    return MR_FAIL(l->err, CORRUPT, "%s:%zu: not YAML: %s%s%s", l->text->name, line + 1,
                   l->parser.problem ? l->parser.problem : "it cannot be read",
                   l->parser.context ? ", " : "", l->parser.context ? l->parser.context : "");
}

/* What the message calls an event. */
static const char *word_of(const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT: return "a single value";
    case YAML_SEQUENCE_START_EVENT: return "a list";
    case YAML_MAPPING_START_EVENT: return "a mapping";
    default: return "nothing";
    }
}

/* Anchors, aliases and tags. */
static mr_status check_plain(const looker *l)
{
    const yaml_event_t *e = &l->event;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (e->type) {
    case YAML_ALIAS_EVENT: anchor = e->data.alias.anchor; break;
    case YAML_SCALAR_EVENT:
        anchor = e->data.scalar.anchor;
        tag = e->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = e->data.sequence_start.anchor;
        tag = e->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = e->data.mapping_start.anchor;
        tag = e->data.mapping_start.tag;
        break;
    default: break;
    }
    if (anchor)
        return REFUSE(l, "'%.60s' is an anchor or an alias, which are not taken; write it out",
                      (const char *)anchor);
    if (tag)
        return REFUSE(l, "'%.60s' is a tag, which are not taken; leave it out", (const char *)tag);
    return MR_OK;
}

static mr_status expect(const looker *l, yaml_event_type_t type, const char *wanted)
{
    mr_status status = check_plain(l);
    if (status == MR_OK && l->event.type != type)
        return REFUSE(l, "%s is %s, expected %s", *l->path ? l->path : "the text",
                      word_of(&l->event), wanted);
    return status;
}

static void suggest(mr_strbuf *out, const char *word, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        mr_strbuf_printf(out, "%s%s", i == 0 ? "" : i + 1 == n ? " or " : ", ", names[i]);
    const char *near = mr_nearest_name(word, names, n);
    if (near)
        mr_strbuf_printf(out, "; did you mean '%s'?", near);
}

/* Of the scalar that is the event; NULL: it holds a control character or is too long. */
static const char *scalar_text(const looker *l)
{
    const char *text = (const char *)l->event.data.scalar.value;
    const size_t len = l->event.data.scalar.length;
    if (len > MR_YAML_MAX_STRING)
        return NULL;
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return NULL;
    }
    return text;
}

static mr_status look_number(looker *l, const cyaml_schema_value_t *schema, const char *text)
{
    const mr_yaml_number *number = mr_yaml_find_number(l->schema, l->path);
    if (!number)
        return MR_FAIL(l->err, INTERNAL, "'%s' has no bounds", l->path);
    if (schema->type == CYAML_FLOAT) {
        double value;
        return at_line(l, mr_parse_real(l->path, text, number->min, number->max, &value, l->err));
    }
    int64_t value;
    const char *digits = text + (*text == '-' || *text == '+');
    if (digits[0] == '0' && digits[1] != '\0') /* libcyaml would read it as octal */
        return REFUSE(l, "%s is '%.60s': leave the leading zero out", l->path, text);
    return at_line(
        l, mr_parse_int(l->path, text, (int64_t)number->min, (int64_t)number->max, &value, l->err));
}

static mr_status look_word(const looker *l, const cyaml_schema_value_t *schema, const char *text)
{
    const char *names[MAX_NAMES];
    size_t n = 0;
    for (uint32_t i = 0; i < schema->enumeration.count && n < MAX_NAMES; i++) {
        names[n++] = schema->enumeration.strings[i].str;
        if (strcmp(names[n - 1], text) == 0)
            return MR_OK;
    }
    mr_strbuf list = {0};
    suggest(&list, text, names, n);
    mr_status status =
        REFUSE(l, "%s is '%.60s', expected %s", l->path, text, list.data ? list.data : "a word");
    mr_strbuf_release(&list);
    return status;
}

static mr_status look_scalar(looker *l, const cyaml_schema_value_t *schema)
{
    mr_status status =
        expect(l, YAML_SCALAR_EVENT,
               schema->type == CYAML_FLOAT                               ? "a number"
               : schema->type == CYAML_INT || schema->type == CYAML_UINT ? "an integer"
               : schema->type == CYAML_BOOL                              ? "true or false"
                                                                         : "a string");
    if (status != MR_OK)
        return status;
    const char *text = scalar_text(l);
    const bool plain = l->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (!text)
        return REFUSE(l, "%s has a control character or line break, or over %d bytes", l->path,
                      MR_YAML_MAX_STRING);
    if (*text == '\0' || (plain && (strcmp(text, "~") == 0 || strcmp(text, "null") == 0 ||
                                    strcmp(text, "Null") == 0 || strcmp(text, "NULL") == 0)))
        return REFUSE(l, "%s is empty; give a value or leave the key out", l->path);
    switch (schema->type) {
    case CYAML_STRING: return MR_OK;
    case CYAML_ENUM: return look_word(l, schema, text);
    case CYAML_BOOL:
        if (plain && (strcmp(text, "true") == 0 || strcmp(text, "false") == 0))
            return MR_OK;
        return REFUSE(l, "%s is '%.60s', expected true or false", l->path, text);
    default:
        if (!plain)
            return REFUSE(l, "%s is the string \"%.60s\", expected a number without quotes",
                          l->path, text);
        return look_number(l, schema, text);
    }
}

static mr_status add_key(looker *l)
{
    mr_yaml_text *text = l->text;
    const mr_yaml_key *before = mr_yaml_find(text, l->path);
    if (before)
        return REFUSE(l, "%s is there twice, first in line %d", l->path, before->line);
    if (text->n == MAX_KEYS)
        return at_line(l, MR_FAIL(l->err, EXHAUSTED, "more than %zu keys", MAX_KEYS));
    if (text->n == text->capacity) {
        const size_t capacity = text->capacity ? 2 * text->capacity : 64;
        mr_yaml_key *grown = mr_arena_array(&text->arena, mr_yaml_key, capacity);
        if (!grown)
            return MR_FAIL(l->err, NO_MEMORY, "the keys of '%s'", text->name);
        if (text->n)
            memcpy(grown, text->key, text->n * sizeof *grown);
        text->key = grown;
        text->capacity = capacity;
    }
    char *path = mr_arena_strndup(&text->arena, l->path, strlen(l->path));
    if (!path)
        return MR_FAIL(l->err, NO_MEMORY, "the keys of '%s'", text->name);
    text->key[text->n++] = (mr_yaml_key){path, line_of(l)};
    return MR_OK;
}

/* The field that the key, which is the event, names. */
static mr_status find_field(const looker *l, const cyaml_schema_field_t *fields,
                            const cyaml_schema_field_t **out)
{
    const char *text = scalar_text(l);
    const char *names[MAX_NAMES];
    size_t n = 0;
    for (const cyaml_schema_field_t *f = fields; f->key; f++) {
        if (text && strcmp(f->key, text) == 0) {
            *out = f;
            return MR_OK;
        }
        if (n < MAX_NAMES)
            names[n++] = f->key;
    }
    const char *where = *l->path ? " in " : "";
    const char *near = text ? mr_nearest_name(text, names, n) : NULL;
    if (near)
        return REFUSE(l, "unknown key '%.60s'%s%s; did you mean '%s'?", text, where, l->path, near);
    mr_strbuf list = {0};
    suggest(&list, "", names, n);
    mr_status status = REFUSE(l, "unknown key '%.60s'%s%s, expected %s", text ? text : "", where,
                              l->path, list.data ? list.data : "another");
    mr_strbuf_release(&list);
    return status;
}

static mr_status look_value(looker *l, const cyaml_schema_value_t *schema);

static mr_status look_mapping(looker *l, const cyaml_schema_value_t *schema)
{
    mr_status status = expect(l, YAML_MAPPING_START_EVENT, "a mapping of keys to values");
    const size_t len = strlen(l->path);
    const int line = line_of(l);
    while (status == MR_OK && (status = next_event(l)) == MR_OK &&
           l->event.type != YAML_MAPPING_END_EVENT) {
        const cyaml_schema_field_t *field = NULL;
        status = expect(l, YAML_SCALAR_EVENT, "keys that are words");
        if (status == MR_OK)
            status = find_field(l, schema->mapping.fields, &field);
        if (status != MR_OK)
            return status;
        snprintf(l->path + len, sizeof l->path - len, "%s%s", len ? "." : "", field->key);
        status = add_key(l);
        if (status == MR_OK)
            status = next_event(l);
        if (status == MR_OK)
            status = look_value(l, &field->value);
        l->path[len] = '\0';
    }
    for (const cyaml_schema_field_t *f = schema->mapping.fields; status == MR_OK && f->key; f++) {
        if (f->value.flags & CYAML_FLAG_OPTIONAL)
            continue;
        snprintf(l->path + len, sizeof l->path - len, "%s%s", len ? "." : "", f->key);
        if (!mr_yaml_find(l->text, l->path))
            status = MR_FAIL(l->err, INVALID, "%s:%d: %s is missing", l->text->name, line, l->path);
        l->path[len] = '\0';
    }
    return status;
}

static mr_status look_sequence(looker *l, const cyaml_schema_value_t *schema)
{
    mr_status status = expect(l, YAML_SEQUENCE_START_EVENT, "a list");
    const size_t len = strlen(l->path);
    for (size_t i = 0; status == MR_OK; i++) {
        status = next_event(l);
        if (status != MR_OK || l->event.type == YAML_SEQUENCE_END_EVENT)
            break;
        if (i == schema->sequence.max)
            return REFUSE(l, "%s has more than %u entries", l->path, schema->sequence.max);
        snprintf(l->path + len, sizeof l->path - len, "[%zu]", i);
        status = look_value(l, schema->sequence.entry);
        l->path[len] = '\0';
    }
    return status;
}

static mr_status look_value(looker *l, const cyaml_schema_value_t *schema)
{
    switch (schema->type) {
    case CYAML_MAPPING: return look_mapping(l, schema);
    case CYAML_SEQUENCE: return look_sequence(l, schema);
    default: return look_scalar(l, schema);
    }
}

static mr_status look_document(looker *l)
{
    mr_status status = next_event(l); /* the start of the stream */
    if (status == MR_OK)
        status = next_event(l);
    if (status == MR_OK && l->event.type == YAML_STREAM_END_EVENT)
        return MR_FAIL(l->err, INVALID, "%s: nothing in it", l->text->name);
    if (status == MR_OK)
        status = next_event(l);
    if (status == MR_OK)
        status = look_value(l, l->schema->value);
    if (status == MR_OK)
        status = next_event(l); /* the end of the document */
    if (status == MR_OK)
        status = next_event(l);
    if (status == MR_OK && l->event.type != YAML_STREAM_END_EVENT)
        status = REFUSE(l, "a second document begins, expected one");
    return status;
}

mr_status mr_yaml_look(mr_yaml_text *out, const mr_yaml_schema *schema, const char *name,
                       const char *data, size_t len, mr_error *err)
{
    looker l = {.schema = schema, .text = out, .err = err};
    *out = (mr_yaml_text){.name = name};
    if (len > MR_YAML_MAX_BYTES)
        return MR_FAIL(err, EXHAUSTED, "%s: %zu bytes, at most %zu are read", name, len,
                       MR_YAML_MAX_BYTES);
    /* libyaml would guess another encoding from a mark at the start. */
    const size_t valid = mr_utf8_valid_prefix(data, len);
    if (valid < len) {
        size_t line = 1;
        for (size_t i = 0; i < valid; i++)
            line += data[i] == '\n';
        return MR_FAIL(err, CORRUPT, "%s:%zu: not UTF-8", name, line);
    }
    if (!yaml_parser_initialize(&l.parser))
        return MR_FAIL(err, NO_MEMORY, "reading '%s'", name);
    yaml_parser_set_input_string(&l.parser, (const unsigned char *)data, len);
    mr_status status = look_document(&l);
    yaml_event_delete(&l.event);
    yaml_parser_delete(&l.parser);
    return status;
}
