/* json.c - see json.h.
 *
 * jansson parses by recursion and builds a node of up to 128 bytes for as little as two bytes of
 * text. A scan over the raw text counts nesting and values first, so that hostile input is refused
 * before anything is built from it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/options.h"
#include "core/utf8.h"

#define MAX_VALUES    ((size_t)8 << 20)
#define QUOTED_MAX    60 /* bytes of a value that a message shows */
#define DESCRIBE_SIZE 96
#define KNOWN_KEYS    256
#define EXACT_REAL    9007199254740992.0 /* 2^53: whole reals up to here are exact */

/* Refuses what would cost too much to parse. Malformed text passes: the parser names it better. */
static mr_status check_cost(const char *name, mr_str text, mr_error *err)
{
    size_t depth = 0, values = 1, line = 1;
    bool in_string = false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        switch (c) {
        case '"': in_string = true; break;
        case '\n': line++; break;
        case '[':
        case '{':
            values++;
            if (++depth > MR_JSON_MAX_DEPTH)
                return MR_FAIL(err, CORRUPT, "%s: line %zu: nested deeper than %d levels", name,
                               line, MR_JSON_MAX_DEPTH);
            break;
        case ']':
        case '}': depth -= depth > 0; break;
        case ',':
            if (++values > MAX_VALUES)
                return MR_FAIL(err, EXHAUSTED, "%s: line %zu: more than %zu values", name, line,
                               MAX_VALUES);
            break;
        default: break;
        }
    }
    return MR_OK;
}

static mr_status parse_failure(const char *name, mr_str text, const json_error_t *found,
                               mr_error *err)
{
    enum json_error_code code = json_error_code(found);
    if (code == json_error_out_of_memory)
        return MR_FAIL(err, NO_MEMORY, "%s: parsing %zu bytes of JSON", name, text.len);
    if (text.len == 0)
        return MR_FAIL(err, CORRUPT, "%s: empty, expected JSON", name);
    char place[64] = "";
    if (memchr(text.data, '\n', text.len))
        snprintf(place, sizeof place, "line %d, ", found->line);
    return MR_FAIL(err, CORRUPT, "%s: %scolumn %d: %s", name, place, found->column, found->text);
}

mr_status mr_json_parse(json_t **out, const char *name, mr_str text, mr_error *err)
{
    if (text.len >= 3 && memcmp(text.data, "\xEF\xBB\xBF", 3) == 0) {
        text.data += 3; /* the byte order mark of Windows editors */
        text.len -= 3;
    }
    mr_status status = check_cost(name, text, err);
    if (status != MR_OK)
        return status;

    size_t valid = text.len ? mr_utf8_valid_prefix(text.data, text.len) : 0;
    if (valid < text.len) {
        size_t line = 1, start = 0;
        for (size_t i = 0; i < valid; i++) {
            if (text.data[i] == '\n') {
                line++;
                start = i + 1;
            }
        }
        return MR_FAIL(err, CORRUPT, "%s: line %zu, byte %zu: 0x%02X is not valid UTF-8", name,
                       line, valid - start + 1, (unsigned char)text.data[valid]);
    }

    const size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
    const char *data = text.data ? text.data : "";
    json_error_t found;
    json_t *root = json_loadb(data, text.len, flags, &found);
    /* Tokenizer settings of Hugging Face say "no limit" with an integer of 31 digits. */
    if (!root && json_error_code(&found) == json_error_numeric_overflow)
        root = json_loadb(data, text.len, flags | JSON_DECODE_INT_AS_REAL, &found);
    if (!root)
        return parse_failure(name, text, &found, err);
    *out = root;
    return MR_OK;
}

mr_status mr_json_load_file(json_t **out, const char *path, size_t max_bytes, mr_error *err)
{
    mr_file_map map = {0};
    mr_status status = mr_file_map_open(&map, path, err);
    if (status != MR_OK)
        return status;
    if (map.len > max_bytes)
        status = MR_FAIL(err, EXHAUSTED, "%s: %zu bytes of JSON, expected at most %zu", path,
                         map.len, max_bytes);
    else
        status = mr_json_parse(out, path, (mr_str){map.data, map.len}, err);
    mr_file_map_close(&map);
    return status;
}

mr_status mr_json_save_file(const json_t *value, const char *path, mr_error *err)
{
    mr_file_writer writer;
    mr_status status = mr_file_writer_open(&writer, path, err);
    if (status != MR_OK)
        return status;
    if (json_dumpf(value, writer.stream, JSON_INDENT(2) | JSON_SORT_KEYS) != 0 &&
        !ferror(writer.stream)) {
        mr_file_writer_abandon(&writer);
        return MR_FAIL(err, INVALID, "writing '%s': %s cannot be written as JSON", path,
                       mr_json_describe(value));
    }
    (void)fputc('\n', writer.stream); /* commit looks at ferror */
    return mr_file_writer_commit(&writer, err);
}

const char *mr_json_describe(const json_t *value)
{
    static _Thread_local char text[DESCRIBE_SIZE];
    switch (value ? json_typeof(value) : JSON_NULL) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: return "null";
    case JSON_INTEGER:
        snprintf(text, sizeof text, "the number %" JSON_INTEGER_FORMAT, json_integer_value(value));
        return text;
    case JSON_REAL:
        snprintf(text, sizeof text, "the number %.17g", json_real_value(value));
        return text;
    case JSON_STRING: {
        size_t len = json_string_length(value);
        size_t shown =
            len > QUOTED_MAX ? mr_utf8_valid_prefix(json_string_value(value), QUOTED_MAX) : len;
        snprintf(text, sizeof text, "the string \"%.*s%s\"", (int)shown, json_string_value(value),
                 shown < len ? "..." : "");
        return text;
    }
    }
    return "nothing";
}

mr_json_cursor mr_json_cursor_of(const char *name, const json_t *object, mr_error *err)
{
    mr_json_cursor cur = {name, object, err, MR_OK};
    if (json_is_null(object))
        cur.object = NULL;
    if (cur.object && !json_is_object(cur.object)) {
        cur.status =
            MR_FAIL(err, INVALID, "%s: is %s, expected an object", name, mr_json_describe(object));
        cur.object = NULL;
    }
    return cur;
}

/* The value of a key; NULL when absent, null, or when an earlier read has failed. */
static const json_t *value_of(const mr_json_cursor *cur, const char *key)
{
    if (cur->status != MR_OK || !cur->object)
        return NULL;
    const json_t *value = json_object_get(cur->object, key);
    return json_is_null(value) ? NULL : value;
}

/* value NULL: the key is missing. */
static void refuse(mr_json_cursor *cur, const char *key, const json_t *value, const char *expected)
{
    if (cur->status == MR_OK)
        cur->status = MR_FAIL(cur->err, INVALID, "%s: '%s' is %s, expected %s", cur->name, key,
                              value ? mr_json_describe(value) : "missing", expected);
}

int64_t mr_json_int(mr_json_cursor *cur, const char *key, int64_t min, int64_t max,
                    int64_t fallback)
{
    const json_t *value = value_of(cur, key);
    if (!value && fallback != MR_JSON_REQUIRED)
        return fallback;

    int64_t number = 0;
    bool whole = json_is_integer(value);
    if (whole) {
        number = json_integer_value(value);
    } else if (json_is_real(value)) {
        double real = json_real_value(value);
        whole = fabs(real) <= EXACT_REAL && floor(real) == real;
        number = whole ? (int64_t)real : 0;
    }
    if (whole && number >= min && number <= max)
        return number;
    char expected[96];
    snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)min,
             (long long)max);
    refuse(cur, key, value, expected);
    return fallback == MR_JSON_REQUIRED ? min : fallback;
}

double mr_json_real(mr_json_cursor *cur, const char *key, double min, double max, double fallback)
{
    const json_t *value = value_of(cur, key);
    if (!value && !isnan(fallback))
        return fallback;
    if (json_is_number(value)) {
        double number = json_number_value(value);
        if (number >= min && number <= max)
            return number;
    }
    char expected[96];
    snprintf(expected, sizeof expected, "a number from %.10g to %.10g", min, max);
    refuse(cur, key, value, expected);
    return isnan(fallback) ? min : fallback;
}

bool mr_json_bool(mr_json_cursor *cur, const char *key, bool fallback)
{
    const json_t *value = value_of(cur, key);
    if (!value)
        return fallback;
    if (json_is_boolean(value))
        return json_is_true(value);
    refuse(cur, key, value, "true or false");
    return fallback;
}

const char *mr_json_string(mr_json_cursor *cur, const char *key, const char *fallback,
                           bool required)
{
    const json_t *value = value_of(cur, key);
    if (!value && !required)
        return fallback;
    if (!json_is_string(value)) {
        refuse(cur, key, value, "a string");
        return fallback;
    }
    if (strlen(json_string_value(value)) != json_string_length(value)) {
        refuse(cur, key, value, "a string without NUL characters");
        return fallback;
    }
    return json_string_value(value);
}

static const json_t *typed(mr_json_cursor *cur, const char *key, json_type type, bool required)
{
    const json_t *value = value_of(cur, key);
    if (!value && !required)
        return NULL;
    if (value && json_typeof(value) == type)
        return value;
    refuse(cur, key, value, type == JSON_OBJECT ? "an object" : "an array");
    return NULL;
}

const json_t *mr_json_object(mr_json_cursor *cur, const char *key, bool required)
{
    return typed(cur, key, JSON_OBJECT, required);
}

const json_t *mr_json_array(mr_json_cursor *cur, const char *key, bool required)
{
    return typed(cur, key, JSON_ARRAY, required);
}

void mr_json_only(mr_json_cursor *cur, const char *const *known)
{
    if (cur->status != MR_OK || !cur->object)
        return;
    size_t n = 0;
    while (known[n])
        n++;
    const char *key;
    json_t *value;
    /* jansson iterates through a mutable pointer only; nothing is changed. */
    json_object_foreach((json_t *)cur->object, key, value)
    {
        size_t i = 0;
        while (i < n && strcmp(known[i], key) != 0)
            i++;
        if (i < n)
            continue;
        const char *near = mr_nearest_name(key, known, n);
        if (near) {
            cur->status = MR_FAIL(cur->err, INVALID, "%s: unknown key '%.60s'; did you mean '%s'?",
                                  cur->name, key, near);
            return;
        }
        char list[KNOWN_KEYS];
        size_t used = 0;
        list[0] = '\0';
        for (i = 0; i < n && used < sizeof list; i++)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s'%s'", i ? ", " : "",
                                     known[i]);
        cur->status = MR_FAIL(cur->err, INVALID, "%s: unknown key '%.60s'; known are %s%s",
                              cur->name, key, list, used < sizeof list ? "" : "...");
        return;
    }
}
