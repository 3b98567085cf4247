/* archive.c - see archive.h. Reading here, the choice in filter.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "deploy/demo/archive.h"

#include <stdlib.h>
#include <string.h>

demo_tags demo_tags_of(mr_str field)
{
    return (demo_tags){.rest = field};
}

static bool ends_tag(char c)
{
    return c == ',' || c == ' ' || c == '\t' || c == '\n';
}

/* Up to the separator or to the end; both leave *rest. */
static mr_str cut(mr_str *rest, bool (*ends)(char))
{
    size_t len = 0;
    while (len < rest->len && !ends(rest->data[len]))
        len++;
    mr_str piece = {rest->data, len};
    size_t used = len < rest->len ? len + 1 : len;
    *rest = (mr_str){rest->data + used, rest->len - used};
    return piece;
}

static bool is_comma(char c)
{
    return c == ',';
}

bool demo_tags_next(demo_tags *tags, mr_str *facet, mr_str *value)
{
    while (tags->group.len) {
        *facet = tags->facet;
        *value = demo_trim(cut(&tags->group, is_comma));
        if (value->len)
            return true;
    }
    while (tags->rest.len) {
        if (ends_tag(tags->rest.data[0])) {
            tags->rest.data++;
            tags->rest.len--;
            continue;
        }
        mr_str whole = tags->rest;
        size_t at = 0;
        while (at + 2 < whole.len && !ends_tag(whole.data[at]) &&
               memcmp(whole.data + at, "::", 2) != 0)
            at++;
        if (at == 0 || at + 2 >= whole.len || memcmp(whole.data + at, "::", 2) != 0) {
            cut(&tags->rest, ends_tag); /* not a tag */
            continue;
        }
        tags->facet = (mr_str){whole.data, at};
        tags->rest = (mr_str){whole.data + at + 2, whole.len - at - 2};
        if (tags->rest.data[0] == '{') {
            const char *close = memchr(tags->rest.data, '}', tags->rest.len);
            size_t len = close ? (size_t)(close - tags->rest.data) : tags->rest.len;
            size_t used = close ? len + 1 : len;
            tags->group = (mr_str){tags->rest.data + 1, len - 1};
            tags->rest = (mr_str){tags->rest.data + used, tags->rest.len - used};
            return demo_tags_next(tags, facet, value);
        }
        *facet = tags->facet;
        *value = cut(&tags->rest, ends_tag);
        if (value->len)
            return true;
    }
    return false;
}

demo_detail demo_detail_of(mr_str detail)
{
    return (demo_detail){.lines = detail};
}

bool demo_detail_next(demo_detail *detail, mr_str *word)
{
    while (!demo_words_next(&detail->line, word)) {
        if (!demo_lines_next(&detail->lines, &detail->line))
            return false;
        if (mr_str_equal(demo_trim(detail->line), mr_str_of(".")))
            detail->line.len = 0;
    }
    return true;
}

static mr_str first_line(mr_str value)
{
    mr_str line = {"", 0};
    demo_lines_next(&value, &line);
    return demo_trim(line);
}

static mr_str after_first_line(mr_str value)
{
    mr_str line;
    return demo_lines_next(&value, &line) ? value : (mr_str){"", 0};
}

static mr_str first_word(mr_str value)
{
    mr_str word = {"", 0};
    demo_words_next(&value, &word);
    return word;
}

/* Policy 5.6.1, and a bound: names become ids of items, in files where a blank separates fields. */
static bool is_package_name(mr_str name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.data[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (i == 0 || !strchr("+-.", c) || c == '\0'))
            return false;
    }
    return name.len >= 1 && name.len <= 200;
}

static mr_status read_packages(demo_archive *out, mr_str text, mr_error *err)
{
    demo_stanza_reader reader = demo_stanzas_of("Packages", text);
    demo_stanza stanza;
    size_t capacity = 0;
    mr_status status;
    while ((status = demo_stanza_next(&reader, &stanza, err)) == MR_OK && stanza.n > 0) {
        demo_package package = {0};
        uint32_t id;
        if ((status = demo_stanza_need(&reader, &stanza, "Package", &package.name, err)) != MR_OK)
            return status;
        if (!is_package_name(package.name))
            return MR_FAIL(
                err, CORRUPT,
                "Packages: the stanza at line %llu has the package name '%.*s', expected "
                "letters, digits, '+', '-', '.'",
                (unsigned long long)stanza.line, MR_STR_ARG(package.name));
        if ((status = demo_names_add(&out->names, package.name, &id, err)) != MR_OK)
            return status;
        package.section = demo_trim(demo_stanza_get(&stanza, "Section"));
        package.tags = demo_stanza_get(&stanza, "Tag");
        package.detail_md5 = demo_trim(demo_stanza_get(&stanza, "Description-md5"));
        mr_str description = demo_stanza_get(&stanza, "Description");
        package.summary = first_line(description);
        package.detail = after_first_line(description);
        package.source = first_word(demo_stanza_get(&stanza, "Source"));
        if (!package.source.len)
            package.source = package.name;

        if (id == capacity) {
            capacity = capacity ? capacity * 2 : 1024;
            demo_package *grown = realloc(out->package, capacity * sizeof *grown);
            if (!grown)
                return MR_FAIL(err, NO_MEMORY, "Packages: %zu packages", capacity);
            out->package = grown;
        }
        out->package[id] = package;
        out->n = out->names.n;
    }
    if (status == MR_OK && out->n == 0)
        return MR_FAIL(err, CORRUPT,
                       "Packages: the file is empty, expected stanzas 'Package: ...'");
    return status;
}

static mr_status read_translations(demo_archive *archive, mr_str text, mr_error *err)
{
    demo_stanza_reader reader = demo_stanzas_of("Translation-en", text);
    demo_stanza stanza;
    mr_status status;
    while ((status = demo_stanza_next(&reader, &stanza, err)) == MR_OK && stanza.n > 0) {
        mr_str name, md5, description;
        if ((status = demo_stanza_need(&reader, &stanza, "Package", &name, err)) != MR_OK ||
            (status = demo_stanza_need(&reader, &stanza, "Description-md5", &md5, err)) != MR_OK ||
            (status = demo_stanza_need(&reader, &stanza, "Description-en", &description, err)) !=
                MR_OK)
            return status;
        uint32_t id = demo_names_find(&archive->names, name);
        if (id == DEMO_NONE || !mr_str_equal(archive->package[id].detail_md5, md5))
            continue; /* of another version or architecture */
        archive->package[id].summary = first_line(description);
        archive->package[id].detail = after_first_line(description);
    }
    return status;
}

mr_status demo_archive_read(demo_archive *out, mr_str packages, mr_str translations, mr_error *err)
{
    *out = (demo_archive){0};
    mr_status status = read_packages(out, packages, err);
    if (status == MR_OK)
        status = read_translations(out, translations, err);
    if (status != MR_OK)
        demo_archive_done(out);
    return status;
}

void demo_archive_select(demo_archive *archive, const demo_components *components)
{
    for (size_t i = 0; i < components->n; i++) {
        const demo_component *component = &components->component[i];
        uint32_t id = demo_names_find(&archive->names, component->package);
        if (id != DEMO_NONE && demo_component_is_application(component))
            archive->package[id].is_application = true;
    }
    for (size_t i = 0; i < archive->n; i++)
        archive->package[i].is_program = demo_is_program(&archive->package[i]);
}

void demo_archive_done(demo_archive *archive)
{
    free(archive->package);
    demo_names_done(&archive->names);
    *archive = (demo_archive){0};
}
