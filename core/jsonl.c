/* jsonl.c - see jsonl.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/jsonl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/file.h"

#define FIRST_CAPACITY ((size_t)4 << 10)

mr_status mr_jsonl_open(mr_jsonl *out, const char *path, size_t max_line, mr_error *err)
{
    mr_jsonl reader = {.max_line = max_line};
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    mr_status status = MR_OK;
    struct stat info;

    reader.name = malloc(strlen(name) + 1);
    if (!reader.name)
        return MR_FAIL(err, NO_MEMORY, "opening '%s'", name);
    memcpy(reader.name, name, strlen(name) + 1);
    reader.stream = standard ? stdin : fopen(path, "re");
    if (!reader.stream)
        status = mr_file_fail(err, errno, "open", name);
    else if (fstat(fileno(reader.stream), &info) == 0 && S_ISDIR(info.st_mode))
        status = MR_FAIL(err, INVALID, "'%s' is a folder, expected a file of JSON lines", name);
    if (status != MR_OK)
        mr_jsonl_close(&reader);
    else
        *out = reader;
    return status;
}

void mr_jsonl_close(mr_jsonl *reader)
{
    if (!reader)
        return;
    if (reader->stream && reader->stream != stdin)
        fclose(reader->stream);
    free(reader->name);
    free(reader->line);
    *reader = (mr_jsonl){0};
}

static bool grow(mr_jsonl *reader)
{
    size_t capacity = reader->capacity ? reader->capacity * 2 : FIRST_CAPACITY;
    if (capacity > reader->max_line)
        capacity = reader->max_line;
    char *line = realloc(reader->line, capacity);
    if (!line)
        return false;
    reader->line = line;
    reader->capacity = capacity;
    return true;
}

static void skip_line(mr_jsonl *reader)
{
    int c;
    while ((c = getc_unlocked(reader->stream)) != EOF) {
        reader->bytes++;
        if (c == '\n')
            return;
    }
}

/* The next line without its end; *more is false after the last one. */
static mr_status read_line(mr_jsonl *reader, size_t *len, bool *more, mr_error *err)
{
    size_t n = 0;
    int c;
    *more = false;
    while ((c = getc_unlocked(reader->stream)) != EOF) {
        if (!*more) {
            *more = true;
            reader->line_number++;
        }
        reader->bytes++;
        if (c == '\n')
            break;
        if (n == reader->max_line) {
            skip_line(reader);
            return MR_FAIL(err, CORRUPT, "line %llu of %s is longer than %zu bytes",
                           (unsigned long long)reader->line_number, reader->name, reader->max_line);
        }
        if (n == reader->capacity && !grow(reader)) {
            skip_line(reader);
            return MR_FAIL(err, NO_MEMORY, "line %llu of %s: %zu bytes and more",
                           (unsigned long long)reader->line_number, reader->name, n);
        }
        reader->line[n++] = (char)c;
    }
    if (c == EOF && ferror(reader->stream))
        return mr_file_fail(err, errno, "read", reader->name);
    *len = n;
    return MR_OK;
}

static bool is_blank(const char *line, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    }
    return true;
}

mr_status mr_jsonl_next(mr_jsonl *reader, json_t **row, mr_error *err)
{
    size_t len = 0;
    bool more;
    do {
        mr_status status = read_line(reader, &len, &more, err);
        if (status != MR_OK)
            return status;
    } while (more && is_blank(reader->line, len));
    if (!more) {
        *row = NULL;
        return MR_OK;
    }

    char name[256];
    snprintf(name, sizeof name, "line %llu of %s", (unsigned long long)reader->line_number,
             reader->name);
    json_t *value = NULL;
    mr_status status = mr_json_parse(&value, name, (mr_str){reader->line, len}, err);
    if (status != MR_OK)
        return status;
    if (!json_is_object(value)) {
        status =
            MR_FAIL(err, CORRUPT, "%s is %s, expected an object", name, mr_json_describe(value));
        json_decref(value);
        return status;
    }
    *row = value;
    return MR_OK;
}

mr_status mr_jsonl_each(const char *path, size_t max_line, mr_jsonl_visit visit, void *context,
                        uint64_t *line, mr_error *err)
{
    mr_jsonl reader = {0};
    json_t *row = NULL;
    *line = 0;
    mr_status status = mr_jsonl_open(&reader, path, max_line, err);
    while (status == MR_OK && (status = mr_jsonl_next(&reader, &row, err)) == MR_OK && row) {
        status = visit(context, row, reader.line_number, err);
        if (status != MR_OK)
            *line = reader.line_number;
        json_decref(row);
    }
    mr_jsonl_close(&reader);
    return status;
}
