/* dep11.c - see dep11.h. A recursive reader over the events of libyaml.
 *
 * The reader holds one event at a time. Every read_* function is called with the first event of its
 * value taken and leaves with the last one taken. The first failure stays in reader.status.
 * SPDX-License-Identifier: Apache-2.0 */
#include "deploy/demo/dep11.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef struct {
    const char *name;
    yaml_parser_t parser;
    yaml_event_t event;
    bool holds_event;
    long icon_size;
    mr_arena *arena;
    mr_status status;
    mr_error *err;
} reader;

static bool fail(reader *r, const char *found, const char *expected)
{
    if (r->status == MR_OK)
        r->status = MR_FAIL(r->err, CORRUPT, "%s, line %zu: found %s, expected %s", r->name,
                            r->event.start_mark.line + 1, found, expected);
    return false;
}

static const char *event_word(yaml_event_type_t type)
{
    switch (type) {
    case YAML_SCALAR_EVENT: return "a single value";
    case YAML_SEQUENCE_START_EVENT: return "a list";
    case YAML_MAPPING_START_EVENT: return "a mapping";
    case YAML_ALIAS_EVENT: return "an alias";
    case YAML_STREAM_END_EVENT: return "the end of the file";
    default: return "the end of a value";
    }
}

static bool next(reader *r)
{
    if (r->status != MR_OK)
        return false;
    if (r->holds_event)
        yaml_event_delete(&r->event);
    r->holds_event = false;
    if (!yaml_parser_parse(&r->parser, &r->event)) {
        r->status =
            MR_FAIL(r->err, CORRUPT, "%s, line %zu: %s", r->name, r->parser.problem_mark.line + 1,
                    r->parser.problem ? r->parser.problem : "not YAML");
        return false;
    }
    r->holds_event = true;
    if (r->event.type == YAML_ALIAS_EVENT)
        return fail(r, "an alias", "a plain value");
    return true;
}

static bool expect(reader *r, yaml_event_type_t type, const char *what)
{
    return r->event.type == type || fail(r, event_word(r->event.type), what);
}

static mr_str scalar(const reader *r)
{
    return (mr_str){(const char *)r->event.data.scalar.value, r->event.data.scalar.length};
}

static bool scalar_is(const reader *r, const char *text)
{
    return mr_str_equal(scalar(r), mr_str_of(text));
}

static bool keep(reader *r, mr_str text, mr_str *out)
{
    char *copy = mr_arena_strndup(r->arena, text.data, text.len);
    if (!copy) {
        r->status = MR_FAIL(r->err, NO_MEMORY, "%s: memory for the texts is used up", r->name);
        return false;
    }
    *out = (mr_str){copy, text.len};
    return true;
}

static bool skip_value(reader *r)
{
    int depth = 0;
    do {
        switch (r->event.type) {
        case YAML_SEQUENCE_START_EVENT:
        case YAML_MAPPING_START_EVENT: depth++; break;
        case YAML_SEQUENCE_END_EVENT:
        case YAML_MAPPING_END_EVENT: depth--; break;
        case YAML_SCALAR_EVENT: break;
        default: return fail(r, event_word(r->event.type), "a value");
        }
        if (depth > DEMO_DEP11_DEPTH)
            return fail(r, "values nested very deeply", "at most 32 levels");
    } while (depth > 0 && next(r));
    return r->status == MR_OK;
}

static bool read_scalar(reader *r, mr_str *out)
{
    return expect(r, YAML_SCALAR_EVENT, "a single value") && keep(r, scalar(r), out);
}

static bool read_list(reader *r, demo_texts *out)
{
    mr_str text[DEMO_DEP11_LIST];
    size_t n = 0;
    if (!expect(r, YAML_SEQUENCE_START_EVENT, "a list"))
        return false;
    while (next(r) && r->event.type != YAML_SEQUENCE_END_EVENT) {
        if (n == DEMO_DEP11_LIST)
            return fail(r, "a longer list", "at most 256 entries");
        if (!read_scalar(r, &text[n++]))
            return false;
    }
    if (r->status != MR_OK)
        return false;
    out->text = mr_arena_array(r->arena, mr_str, n);
    if (!out->text) {
        r->status = MR_FAIL(r->err, NO_MEMORY, "%s: memory for the texts is used up", r->name);
        return false;
    }
    memcpy(out->text, text, n * sizeof *text);
    out->n = n;
    return true;
}

/* How good a language key is as English: 0 is none. */
static int english_rank(const reader *r)
{
    static const char *const key[] = {"en_GB", "en_US", "en", "C"};
    for (int i = 0; i < 4; i++)
        if (scalar_is(r, key[i]))
            return i + 1;
    return 0;
}

/* The English of {language: value}: a single value into *text or a list into *list. */
static bool read_translated(reader *r, mr_str *text, demo_texts *list)
{
    if (r->event.type != YAML_MAPPING_START_EVENT)
        return text ? read_scalar(r, text) : read_list(r, list);
    int best = 0;
    while (next(r) && r->event.type != YAML_MAPPING_END_EVENT) {
        if (!expect(r, YAML_SCALAR_EVENT, "a language"))
            return false;
        int rank = english_rank(r);
        if (!next(r))
            return false;
        bool wanted = rank > best;
        if (!(wanted ? text ? read_scalar(r, text) : read_list(r, list) : skip_value(r)))
            return false;
        if (wanted)
            best = rank;
    }
    return r->status == MR_OK;
}

static bool read_number(reader *r, long *out)
{
    if (!expect(r, YAML_SCALAR_EVENT, "a number"))
        return false;
    char *end = NULL;
    const char *text = (const char *)r->event.data.scalar.value;
    *out = strtol(text, &end, 10);
    return (end != text && *end == '\0' && *out >= 0 && *out <= 65536) ||
           fail(r, "another text", "a number of pixels");
}

/* One entry of Icon: cached:, kept if it has the wanted size and is the first such. */
static bool read_icon_entry(reader *r, demo_component *component)
{
    mr_str file = {0};
    long width = 0, scale = 1;
    if (!expect(r, YAML_MAPPING_START_EVENT, "an icon with name and width"))
        return false;
    while (next(r) && r->event.type != YAML_MAPPING_END_EVENT) {
        if (!expect(r, YAML_SCALAR_EVENT, "a key"))
            return false;
        bool is_name = scalar_is(r, "name");
        bool is_width = scalar_is(r, "width");
        bool is_scale = scalar_is(r, "scale");
        if (!next(r))
            return false;
        if (!(is_name    ? read_scalar(r, &file)
              : is_width ? read_number(r, &width)
              : is_scale ? read_number(r, &scale)
                         : skip_value(r)))
            return false;
    }
    if (width == r->icon_size && scale == 1 && !component->icon.len)
        component->icon = file;
    return r->status == MR_OK;
}

static bool read_icons(reader *r, demo_component *component)
{
    if (!expect(r, YAML_MAPPING_START_EVENT, "kinds of icons"))
        return false;
    while (next(r) && r->event.type != YAML_MAPPING_END_EVENT) {
        if (!expect(r, YAML_SCALAR_EVENT, "a kind of icon"))
            return false;
        bool cached = scalar_is(r, "cached");
        if (!next(r))
            return false;
        if (!cached || r->event.type != YAML_SEQUENCE_START_EVENT) {
            if (!skip_value(r))
                return false;
            continue;
        }
        while (next(r) && r->event.type != YAML_SEQUENCE_END_EVENT)
            if (!read_icon_entry(r, component))
                return false;
    }
    return r->status == MR_OK;
}

static bool read_component(reader *r, demo_component *out)
{
    while (next(r) && r->event.type != YAML_MAPPING_END_EVENT) {
        if (!expect(r, YAML_SCALAR_EVENT, "a key"))
            return false;
        enum { OTHER, PACKAGE, TYPE, NAME, KEYWORDS, CATEGORIES, ICON } key = OTHER;
        static const char *const word[] = {"",         "Package",    "Type", "Name",
                                           "Keywords", "Categories", "Icon"};
        for (int i = 1; i < 7; i++)
            if (scalar_is(r, word[i]))
                key = i;
        if (!next(r))
            return false;
        bool read = false;
        switch (key) {
        case PACKAGE: read = read_scalar(r, &out->package); break;
        case TYPE: read = read_scalar(r, &out->type); break;
        case NAME: read = read_translated(r, &out->name, NULL); break;
        case KEYWORDS: read = read_translated(r, NULL, &out->keywords); break;
        case CATEGORIES: read = read_list(r, &out->categories); break;
        case ICON: read = read_icons(r, out); break;
        case OTHER: read = skip_value(r); break;
        }
        if (!read)
            return false;
    }
    return r->status == MR_OK;
}

static bool add_component(reader *r, demo_components *list, size_t *capacity,
                          const demo_component *component)
{
    if (list->n == DEMO_COMPONENTS)
        return fail(r, "more components", "at most 200000");
    if (list->n == *capacity) {
        size_t grown = *capacity ? *capacity * 2 : 256;
        demo_component *moved = realloc(list->component, grown * sizeof *moved);
        if (!moved) {
            r->status = MR_FAIL(r->err, NO_MEMORY, "%s: %zu components", r->name, grown);
            return false;
        }
        list->component = moved;
        *capacity = grown;
    }
    list->component[list->n++] = *component;
    return true;
}

static bool read_stream(reader *r, demo_components *out)
{
    size_t capacity = 0;
    bool header = true;
    while (next(r) && r->event.type != YAML_STREAM_END_EVENT) {
        if (r->event.type != YAML_DOCUMENT_START_EVENT)
            continue;
        if (!next(r) || !expect(r, YAML_MAPPING_START_EVENT, "a component"))
            return false;
        demo_component component = {0};
        if (!read_component(r, &component))
            return false;
        if (!header && !component.type.len)
            return fail(r, "a component without Type", "Type: desktop-application or another");
        if (!header && !add_component(r, out, &capacity, &component))
            return false;
        header = false;
    }
    if (header)
        return fail(r, "no document", "the header 'File: DEP-11'");
    return r->status == MR_OK;
}

mr_status demo_dep11_read(const char *name, mr_str text, long icon_size, mr_arena *arena,
                          demo_components *out, mr_error *err)
{
    reader r = {.name = name, .icon_size = icon_size, .arena = arena, .err = err};
    *out = (demo_components){0};
    if (!yaml_parser_initialize(&r.parser))
        return MR_FAIL(err, NO_MEMORY, "%s: no memory for the YAML parser", name);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)(text.len ? text.data : ""),
                                 text.len);

    if (!read_stream(&r, out))
        demo_components_done(out);

    if (r.holds_event)
        yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    return r.status;
}

void demo_components_done(demo_components *components)
{
    free(components->component);
    *components = (demo_components){0};
}

bool demo_component_is_application(const demo_component *component)
{
    static const char *const type[] = {"desktop-application", "console-application",
                                       "web-application"};
    for (size_t i = 0; i < sizeof type / sizeof *type; i++)
        if (mr_str_equal(component->type, mr_str_of(type[i])))
            return true;
    return false;
}
