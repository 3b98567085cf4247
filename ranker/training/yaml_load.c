/* yaml_load.c - structs from a text that was looked over, their defaults and their canonical form.
 *
 * Defaults and the canonical form are one walk over the schema and the struct together.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/yaml_schema.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Keeps the first line of libcyaml's log: what follows is a trace back through the schema. */
static void keep_log(cyaml_log_t level, void *context, const char *format, va_list args)
{
    char *line = context;
    if (level == CYAML_LOG_ERROR && !*line) {
        vsnprintf(line, MR_YAML_MAX_PATH, format, args);
        line[strcspn(line, "\n")] = '\0';
    }
}

static cyaml_config_t config_of(char *line)
{
    return (cyaml_config_t){.log_fn = keep_log,
                            .log_ctx = line,
                            .mem_fn = cyaml_mem,
                            .log_level = CYAML_LOG_ERROR,
                            .flags = CYAML_CFG_NO_ALIAS};
}

typedef struct walk walk;
struct walk {
    const mr_yaml_schema *schema;
    char path[MR_YAML_MAX_PATH];
    void (*leaf)(walk *w, const cyaml_schema_value_t *schema, void *value);
    const mr_yaml_text *text; /* of fill */
    bool failed;
    const char *const *skip; /* of canonical */
    mr_strbuf *out;
};

static uint64_t read_uint(const void *at, size_t size)
{
    uint64_t value = 0;
    switch (size) {
    case 1: value = *(const uint8_t *)at; break;
    case 4: value = *(const uint32_t *)at; break;
    case 8: value = *(const uint64_t *)at; break;
    default: break;
    }
    return value;
}

static void walk_value(walk *w, const cyaml_schema_value_t *schema, void *value, size_t count)
{
    const size_t len = strlen(w->path);
    if (schema->flags & CYAML_FLAG_POINTER)
        value = *(void **)value;
    switch (schema->type) {
    case CYAML_MAPPING:
        for (const cyaml_schema_field_t *f = schema->mapping.fields; f->key; f++) {
            const bool list = f->value.type == CYAML_SEQUENCE;
            const size_t n = list ? read_uint((char *)value + f->count_offset, f->count_size) : 0;
            snprintf(w->path + len, sizeof w->path - len, "%s%s", len ? "." : "", f->key);
            walk_value(w, &f->value, (char *)value + f->data_offset, n);
            w->path[len] = '\0';
        }
        break;
    case CYAML_SEQUENCE: {
        const cyaml_schema_value_t *entry = schema->sequence.entry;
        const size_t size =
            entry->flags & CYAML_FLAG_POINTER ? sizeof(void *) : (size_t)entry->data_size;
        for (size_t i = 0; i < count; i++) {
            snprintf(w->path + len, sizeof w->path - len, "[%zu]", i);
            walk_value(w, entry, (char *)value + i * size, 0);
            w->path[len] = '\0';
        }
        break;
    }
    default: w->leaf(w, schema, value); break;
    }
}

static void write_number(const cyaml_schema_value_t *schema, void *value, double number)
{
    if (schema->type == CYAML_FLOAT)
        *(double *)value = number;
    else if (schema->data_size == sizeof(int32_t))
        *(int32_t *)value = (int32_t)number;
    else
        *(int64_t *)value = (int64_t)number; /* of either sign: the bounds are below 2^53 */
}

static void fill_leaf(walk *w, const cyaml_schema_value_t *schema, void *value)
{
    if (schema->type != CYAML_INT && schema->type != CYAML_UINT && schema->type != CYAML_FLOAT)
        return;
    const mr_yaml_number *number = mr_yaml_find_number(w->schema, w->path);
    if (!number)
        w->failed = true;
    else if (!mr_yaml_find(w->text, w->path))
        write_number(schema, value, number->fallback);
}

mr_status mr_yaml_load(const mr_yaml_text *text, const mr_yaml_schema *schema, const char *data,
                       size_t len, void **out, mr_error *err)
{
    char line[MR_YAML_MAX_PATH] = "";
    const cyaml_config_t config = config_of(line);
    void *value = NULL;
    const cyaml_err_t code =
        cyaml_load_data((const uint8_t *)data, len, &config, schema->value, &value, NULL);
    if (code == CYAML_ERR_OOM)
        return MR_FAIL(err, NO_MEMORY, "reading '%s'", text->name);
    if (code != CYAML_OK || !value)
        return MR_FAIL(err, INVALID, "%s: %s", text->name, *line ? line : cyaml_strerror(code));
    walk w = {.schema = schema, .leaf = fill_leaf, .text = text};
    walk_value(&w, schema->value, &value, 0);
    if (w.failed) {
        mr_yaml_free(schema, value);
        return MR_FAIL(err, INTERNAL, "a number of the schema has no bounds");
    }
    *out = value;
    return MR_OK;
}

void mr_yaml_free(const mr_yaml_schema *schema, void *value)
{
    char line[MR_YAML_MAX_PATH] = "";
    const cyaml_config_t config = config_of(line);
    if (value)
        (void)cyaml_free(&config, schema->value, value, 0);
}

static double read_number(const cyaml_schema_value_t *schema, const void *value)
{
    if (schema->type == CYAML_FLOAT)
        return *(const double *)value;
    const uint64_t number = read_uint(value, schema->data_size); /* its size is below 2^53 */
    if (schema->type == CYAML_INT)
        return schema->data_size == sizeof(int32_t) ? (double)(int32_t)(uint32_t)number
                                                    : (double)(int64_t)number;
    return (double)number;
}

static bool is_default(const walk *w, const cyaml_schema_value_t *schema, const void *value)
{
    const mr_yaml_number *number;
    switch (schema->type) {
    case CYAML_STRING: return !value;
    case CYAML_BOOL: return !read_uint(value, schema->data_size);
    case CYAML_ENUM: /* one that may be left out is then its first word */
        return schema->flags & CYAML_FLAG_OPTIONAL && !read_uint(value, schema->data_size);
    default:
        number = mr_yaml_find_number(w->schema, w->path);
        return number && read_number(schema, value) == number->fallback;
    }
}

static void canonical_leaf(walk *w, const cyaml_schema_value_t *schema, void *value)
{
    for (const char *const *skip = w->skip; skip && *skip; skip++) {
        if (strncmp(w->path, *skip, strlen(*skip)) == 0)
            return;
    }
    if (is_default(w, schema, value))
        return;
    mr_strbuf_printf(w->out, "%s=", w->path);
    if (schema->type == CYAML_STRING)
        mr_strbuf_puts(w->out, value);
    else
        mr_strbuf_printf(w->out, "%.17g", read_number(schema, value));
    mr_strbuf_puts(w->out, "\n"); /* no string holds one */
}

void mr_yaml_canonical(const mr_yaml_schema *schema, const void *value, const char *const *skip,
                       mr_strbuf *out)
{
    void *root = (void *)(uintptr_t)value; /* walked for reading */
    walk w = {.schema = schema, .leaf = canonical_leaf, .skip = skip, .out = out};
    walk_value(&w, schema->value, &root, 0);
}

const mr_yaml_key *mr_yaml_find(const mr_yaml_text *text, const char *path)
{
    for (size_t i = 0; i < text->n; i++) {
        if (strcmp(text->key[i].path, path) == 0)
            return &text->key[i];
    }
    return NULL;
}

const mr_yaml_number *mr_yaml_find_number(const mr_yaml_schema *schema, const char *path)
{
    char pattern[MR_YAML_MAX_PATH];
    size_t n = 0;
    for (const char *p = path; *p && n < sizeof pattern - 1; p++) {
        pattern[n++] = *p;
        if (*p == '[')
            p += strcspn(p, "]") - 1;
    }
    pattern[n] = '\0';
    for (size_t i = 0; i < schema->n_numbers; i++) {
        if (strcmp(schema->number[i].path, pattern) == 0)
            return &schema->number[i];
    }
    return NULL;
}

void mr_yaml_done(mr_yaml_text *text)
{
    mr_arena_done(&text->arena);
    *text = (mr_yaml_text){0};
}
