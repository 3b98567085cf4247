/* deb822.c - see deb822.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "deploy/demo/deb822.h"

#include <string.h>
#include <strings.h>

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_space(char c)
{
    return is_blank(c) || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

mr_str demo_trim(mr_str text)
{
    while (text.len && is_space(text.data[0])) {
        text.data++;
        text.len--;
    }
    while (text.len && is_space(text.data[text.len - 1]))
        text.len--;
    return text;
}

bool demo_words_next(mr_str *rest, mr_str *word)
{
    size_t begin = 0;
    while (begin < rest->len && is_space(rest->data[begin]))
        begin++;
    size_t end = begin;
    while (end < rest->len && !is_space(rest->data[end]))
        end++;
    if (begin == end)
        return false;
    *word = (mr_str){rest->data + begin, end - begin};
    *rest = (mr_str){rest->data + end, rest->len - end};
    return true;
}

bool demo_lines_next(mr_str *rest, mr_str *line)
{
    if (!rest->len)
        return false;
    const char *newline = memchr(rest->data, '\n', rest->len);
    size_t len = newline ? (size_t)(newline - rest->data) : rest->len;
    size_t used = newline ? len + 1 : len;
    *line = (mr_str){rest->data, len};
    *rest = (mr_str){rest->data + used, rest->len - used};
    return true;
}

demo_stanza_reader demo_stanzas_of(const char *name, mr_str text)
{
    const char *begin = text.data ? text.data : "";
    return (demo_stanza_reader){.name = name, .at = begin, .end = begin + text.len, .line = 1};
}

/* Takes one line off the text. An index always ends with a line end: a file that does not was cut.
 */
static mr_status take_line(demo_stanza_reader *reader, mr_str *line, mr_error *err)
{
    size_t left = (size_t)(reader->end - reader->at);
    const char *newline = memchr(reader->at, '\n', left);
    if (!newline)
        return MR_FAIL(err, CORRUPT,
                       "%s, line %llu: the file ends within a line; was the download cut short?",
                       reader->name, (unsigned long long)reader->line);
    *line = (mr_str){reader->at, (size_t)(newline - reader->at)};
    if (memchr(line->data, '\0', line->len))
        return MR_FAIL(err, CORRUPT, "%s, line %llu: holds a NUL byte, expected text", reader->name,
                       (unsigned long long)reader->line);
    reader->at = newline + 1;
    reader->line++;
    return MR_OK;
}

/* The front of a line for a message. */
static mr_str quoted(const demo_stanza_reader *reader, mr_str line)
{
    if (reader->private_text)
        return mr_str_of("the line");
    return (mr_str){line.data, line.len > 60 ? 60 : line.len};
}

static mr_status add_field(const demo_stanza_reader *reader, uint64_t line_number, mr_str line,
                           demo_stanza *out, mr_error *err)
{
    const char *colon = memchr(line.data, ':', line.len);
    if (!colon || colon == line.data)
        return MR_FAIL(err, CORRUPT, "%s, line %llu: %.*s is not of the form 'Field: value'",
                       reader->name, (unsigned long long)line_number,
                       MR_STR_ARG(quoted(reader, line)));
    mr_str name = {line.data, (size_t)(colon - line.data)};
    for (size_t i = 0; i < out->n; i++)
        if (out->field[i].name.len == name.len &&
            strncasecmp(out->field[i].name.data, name.data, name.len) == 0)
            return MR_FAIL(
                err, CORRUPT, "%s, line %llu: %.*s: the field is there twice in a stanza",
                reader->name, (unsigned long long)line_number, MR_STR_ARG(quoted(reader, line)));
    if (out->n == DEMO_STANZA_FIELDS)
        return MR_FAIL(err, EXHAUSTED, "%s, line %llu: a stanza has more than %d fields",
                       reader->name, (unsigned long long)line_number, DEMO_STANZA_FIELDS);

    const char *value = colon + 1;
    const char *end = line.data + line.len;
    while (value < end && is_blank(*value))
        value++;
    out->field[out->n++] = (demo_field){name, {value, (size_t)(end - value)}};
    return MR_OK;
}

mr_status demo_stanza_next(demo_stanza_reader *reader, demo_stanza *out, mr_error *err)
{
    out->n = 0;
    const char *begin = NULL;
    while (reader->at < reader->end) {
        uint64_t line_number = reader->line;
        mr_str line;
        mr_status status = take_line(reader, &line, err);
        if (status != MR_OK)
            return status;

        if (demo_trim(line).len == 0) {
            if (out->n)
                return MR_OK;
            continue;
        }
        if (!begin) {
            begin = line.data;
            out->line = line_number;
        }
        if ((size_t)(reader->at - begin) > DEMO_STANZA_BYTES)
            return MR_FAIL(err, EXHAUSTED, "%s: the stanza at line %llu has more than %zu bytes",
                           reader->name, (unsigned long long)out->line, DEMO_STANZA_BYTES);

        if (is_blank(line.data[0])) {
            if (!out->n)
                return MR_FAIL(err, CORRUPT, "%s, line %llu: a continuation line without a field",
                               reader->name, (unsigned long long)line_number);
            mr_str *value = &out->field[out->n - 1].value;
            value->len = (size_t)(line.data + line.len - value->data);
        } else {
            status = add_field(reader, line_number, line, out, err);
            if (status != MR_OK)
                return status;
        }
    }
    return MR_OK;
}

mr_str demo_stanza_get(const demo_stanza *stanza, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < stanza->n; i++)
        if (stanza->field[i].name.len == len &&
            strncasecmp(stanza->field[i].name.data, name, len) == 0)
            return stanza->field[i].value;
    return (mr_str){"", 0};
}

mr_status demo_stanza_need(const demo_stanza_reader *reader, const demo_stanza *stanza,
                           const char *name, mr_str *out, mr_error *err)
{
    *out = demo_trim(demo_stanza_get(stanza, name));
    if (!out->len)
        return MR_FAIL(err, CORRUPT, "%s: the stanza at line %llu has no '%s'", reader->name,
                       (unsigned long long)stanza->line, name);
    return MR_OK;
}
