/* items.c - see items.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "deploy/demo/items.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/hash.h"
#include "core/strbuf.h"
#include "core/utf8.h"

#define ITEM_TRAIN_SHARE 0.7

const char *demo_fold_name(demo_fold fold)
{
    static const char *const name[] = {"train", "valid", "test"};
    return name[fold];
}

mr_status demo_unit_hash(const char *prefix, mr_str text, double *out, mr_error *err)
{
    char joined[1024];
    size_t prefix_len = strlen(prefix);
    if (prefix_len + text.len > sizeof joined)
        return MR_FAIL(err, EXHAUSTED, "a name of %zu bytes, expected at most 1000", text.len);
    memcpy(joined, prefix, prefix_len);
    memcpy(joined + prefix_len, text.data, text.len);
    char hex[MR_SHA256_HEX];
    mr_status status = mr_hash_sha256_hex(joined, prefix_len + text.len, hex, err);
    if (status != MR_OK)
        return status;
    hex[8] = '\0';
    *out = (double)strtoul(hex, NULL, 16) / 4294967296.0;
    return MR_OK;
}

mr_status demo_item_fold(mr_str id, demo_fold *out, mr_error *err)
{
    double unit;
    mr_status status = demo_unit_hash("", id, &unit, err);
    if (status == MR_OK)
        *out = unit < ITEM_TRAIN_SHARE ? DEMO_TRAIN : DEMO_TEST;
    return status;
}

bool demo_same_letters(mr_str a, mr_str b)
{
    size_t i = 0, j = 0;
    for (;;) {
        while (i < a.len && !isalnum((unsigned char)a.data[i]))
            i++;
        while (j < b.len && !isalnum((unsigned char)b.data[j]))
            j++;
        if (i == a.len || j == b.len)
            return i == a.len && j == b.len;
        if (tolower((unsigned char)a.data[i++]) != tolower((unsigned char)b.data[j++]))
            return false;
    }
}

void demo_append_clean(mr_strbuf *buf, mr_str text)
{
    while (text.len) {
        size_t valid = mr_utf8_valid_prefix(text.data, text.len);
        for (size_t i = 0; i < valid; i++) {
            char c =
                (unsigned char)text.data[i] < 0x20 || text.data[i] == 0x7f ? ' ' : text.data[i];
            mr_strbuf_append(buf, &c, 1);
        }
        if (valid < text.len) {
            mr_strbuf_append(buf, "\xEF\xBF\xBD", 3);
            valid++;
        }
        text = (mr_str){text.data + valid, text.len - valid};
    }
}

void demo_append_detail(mr_strbuf *buf, mr_str text)
{
    demo_detail detail = demo_detail_of(text);
    mr_str word;
    for (int n = 0; n < DEMO_DETAIL_WORDS && demo_detail_next(&detail, &word); n++) {
        if (n)
            mr_strbuf_append(buf, " ", 1);
        demo_append_clean(buf, word);
    }
}

static mr_status keep_buffer(const mr_strbuf *buf, mr_arena *arena, mr_str *out, mr_error *err)
{
    if (buf->failed)
        return MR_FAIL(err, NO_MEMORY, "the text of an item");
    return demo_str_copy(arena, (mr_str){buf->data ? buf->data : "", buf->len}, out, err);
}

static mr_status read_texts(demo_item *item, const demo_package *package, mr_strbuf *buf,
                            mr_arena *arena, mr_error *err)
{
    mr_strbuf_clear(buf);
    demo_append_clean(buf, package->summary);
    mr_status status = keep_buffer(buf, arena, &item->summary, err);
    if (status != MR_OK)
        return status;

    mr_strbuf_clear(buf);
    demo_append_detail(buf, package->detail);
    return keep_buffer(buf, arena, &item->detail, err);
}

/* --- the representative of a source ---------------------------------------------------------- */

static size_t count_tags(mr_str field)
{
    demo_tags tags = demo_tags_of(field);
    mr_str facet, value;
    size_t n = 0;
    while (demo_tags_next(&tags, &facet, &value))
        n++;
    return n;
}

/* Code points of the long description as a reader sees it: without the lines' leading blank, with
 * a "." line as an empty one. */
static size_t count_letters(mr_str detail)
{
    size_t n = 0;
    mr_str line;
    while (demo_lines_next(&detail, &line)) {
        n++; /* the line end */
        if (mr_str_equal(demo_trim(line), mr_str_of(".")))
            continue;
        for (size_t i = line.len && line.data[0] == ' '; i < line.len; i++)
            n += ((unsigned char)line.data[i] & 0xC0) != 0x80;
    }
    return n;
}

static bool is_better(const demo_package *a, const demo_package *b)
{
    bool a_named = mr_str_equal(a->name, a->source);
    bool b_named = mr_str_equal(b->name, b->source);
    if (a_named != b_named)
        return a_named;
    size_t a_tags = count_tags(a->tags), b_tags = count_tags(b->tags);
    if (a_tags != b_tags)
        return a_tags > b_tags;
    size_t a_letters = count_letters(a->detail), b_letters = count_letters(b->detail);
    if (a_letters != b_letters)
        return a_letters > b_letters;
    return demo_str_compare(a->name, b->name) > 0;
}

static int compare_packages(const void *a, const void *b)
{
    const demo_package *const *x = a;
    const demo_package *const *y = b;
    return demo_str_compare((*x)->name, (*y)->name);
}

/* *chosen: one package per source in order of name, owned by the caller. */
static mr_status choose(demo_items *out, const demo_archive *archive, const demo_package ***chosen,
                        mr_error *err)
{
    const demo_package **best = calloc(archive->n ? archive->n : 1, sizeof *best);
    if (!best)
        return MR_FAIL(err, NO_MEMORY, "a table of %zu packages", archive->n);
    for (size_t i = 0; i < archive->n; i++) {
        const demo_package *package = &archive->package[i];
        if (!package->is_program)
            continue;
        uint32_t source;
        mr_status status = demo_names_add(&out->sources, package->source, &source, err);
        if (status != MR_OK) {
            free(best);
            return status;
        }
        if (!best[source] || is_better(package, best[source]))
            best[source] = package;
    }
    out->n = out->sources.n;
    qsort(best, out->n, sizeof *best, compare_packages);
    *chosen = best;
    return MR_OK;
}

/* --- tags ------------------------------------------------------------------------------------ */

static mr_status read_vocabulary(demo_items *out, mr_str text, mr_arena *arena, mr_error *err)
{
    demo_stanza_reader reader = demo_stanzas_of("the tag vocabulary", text);
    demo_stanza stanza;
    mr_str *words = NULL;
    size_t capacity = 0;
    mr_status status;
    while ((status = demo_stanza_next(&reader, &stanza, err)) == MR_OK && stanza.n > 0) {
        mr_str tag = demo_trim(demo_stanza_get(&stanza, "Tag"));
        if (!tag.len)
            continue; /* a facet */
        mr_str description, line;
        uint32_t id;
        if ((status = demo_stanza_need(&reader, &stanza, "Description", &description, err)) !=
                MR_OK ||
            (status = demo_names_add(&out->tags, tag, &id, err)) != MR_OK)
            break;
        if (!words || id == capacity) {
            capacity = capacity ? capacity * 2 : 256;
            mr_str *grown = realloc(words, capacity * sizeof *grown);
            if (!grown) {
                status = MR_FAIL(err, NO_MEMORY, "a vocabulary of %zu tags", capacity);
                break;
            }
            words = grown;
        }
        demo_lines_next(&description, &line);
        words[id] = demo_trim(line);
    }
    if (status == MR_OK) {
        out->tag_words = mr_arena_array(arena, mr_str, out->tags.n);
        if (!out->tag_words)
            status = MR_FAIL(err, NO_MEMORY, "a vocabulary of %zu tags", out->tags.n);
        else if (words)
            memcpy(out->tag_words, words, out->tags.n * sizeof *words);
    }
    free(words);
    return status;
}

static mr_status read_tags(demo_items *items, demo_item *item, mr_str field, mr_error *err)
{
    demo_tags tags = demo_tags_of(field);
    mr_str facet, value;
    while (demo_tags_next(&tags, &facet, &value)) {
        char whole[256];
        int len = snprintf(whole, sizeof whole, "%.*s::%.*s", MR_STR_ARG(facet), MR_STR_ARG(value));
        if (len < 0 || (size_t)len >= sizeof whole)
            continue;
        uint32_t id = demo_names_find(&items->tags, (mr_str){whole, (size_t)len});
        if (id == DEMO_NONE)
            continue;
        mr_status status = demo_ids_push(&item->tags, id, err);
        if (status != MR_OK)
            return status;
    }
    demo_ids_sort(&item->tags);
    return MR_OK;
}

/* --- components ------------------------------------------------------------------------------ */

static bool is_png(mr_arena *arena, const char *folder, mr_str name)
{
    static const unsigned char signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    unsigned char found[8] = {0};
    char *path = mr_path_join(arena, folder, name.data);
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (!file)
        return false;
    bool is = fread(found, 1, sizeof found, file) == sizeof found &&
              memcmp(found, signature, sizeof found) == 0;
    fclose(file);
    return is;
}

/* A name out of the metadata is a path only after these checks. */
static bool is_icon_name(mr_str name)
{
    return name.len > 4 && name.len < 200 && memcmp(name.data + name.len - 4, ".png", 4) == 0 &&
           !memchr(name.data, '/', name.len) && !memchr(name.data, '\0', name.len) &&
           mr_utf8_valid_prefix(name.data, name.len) == name.len &&
           mr_path_check_relative(name.data, NULL) == MR_OK;
}

static void take_icon(demo_items *items, demo_item *item, const demo_component *component,
                      const char *folder, mr_arena *arena)
{
    if (!component->icon.len || !folder)
        return;
    if (is_icon_name(component->icon) && is_png(arena, folder, component->icon))
        item->icon = component->icon;
    else
        items->icons_missing++;
}

/* Several programs in one package: the one that is called like the package gives the title. */
static mr_status take_title(demo_item *item, const demo_component *component, mr_strbuf *buf,
                            mr_arena *arena, mr_error *err)
{
    if (!demo_component_is_application(component) || !component->name.len)
        return MR_OK;
    bool first = mr_str_equal(item->title, item->id);
    bool exact = demo_same_letters(component->name, item->id);
    if (!first && !(exact && !demo_same_letters(item->title, item->id)))
        return MR_OK;
    mr_strbuf_clear(buf);
    demo_append_clean(buf, demo_trim(component->name));
    return keep_buffer(buf, arena, &item->title, err);
}

static mr_status attach(demo_items *items, const demo_archive *archive, const char *icon_folder,
                        mr_strbuf *buf, mr_arena *arena, mr_error *err)
{
    const demo_components *components = items->components;
    items->item_of_component = mr_arena_array(arena, uint32_t, components->n);
    if (!items->item_of_component)
        return MR_FAIL(err, NO_MEMORY, "a table of %zu components", components->n);
    /* The item's own package speaks first, the other packages of its source after it. */
    for (int own = 1; own >= 0; own--) {
        for (size_t i = 0; i < components->n; i++) {
            const demo_component *component = &components->component[i];
            items->item_of_component[i] = DEMO_NONE;
            uint32_t package = demo_names_find(&archive->names, component->package);
            if (package == DEMO_NONE || !archive->package[package].is_program)
                continue;
            uint32_t source = demo_names_find(&items->sources, archive->package[package].source);
            demo_item *item = &items->item[items->item_of_source[source]];
            if (mr_str_equal(component->type, mr_str_of("desktop-application")) ||
                mr_str_equal(component->type, mr_str_of("console-application"))) {
                items->item_of_component[i] = items->item_of_source[source];
                if (!own && item->first_component == DEMO_NONE)
                    item->first_component = (uint32_t)i;
            }
            if (mr_str_equal(component->package, item->id) != (own == 1))
                continue;
            if (!item->icon.len)
                take_icon(items, item, component, icon_folder, arena);
            mr_status status = own ? take_title(item, component, buf, arena, err) : MR_OK;
            if (status != MR_OK)
                return status;
        }
    }
    return MR_OK;
}

static mr_status index_sections(demo_items *out, mr_arena *arena, mr_error *err)
{
    out->in_section = mr_arena_array(arena, demo_ids, out->sections.n);
    if (!out->in_section)
        return MR_FAIL(err, NO_MEMORY, "a table of %zu sections", out->sections.n);
    for (size_t i = 0; i < out->n; i++) {
        mr_status status = demo_ids_push(&out->in_section[out->item[i].section], (uint32_t)i, err);
        if (status != MR_OK)
            return status;
    }
    return MR_OK;
}

static mr_status fill(demo_items *out, const demo_package *const *chosen, mr_strbuf *buf,
                      mr_arena *arena, mr_error *err)
{
    out->item = calloc(out->n ? out->n : 1, sizeof *out->item);
    out->item_of_source = mr_arena_array(arena, uint32_t, out->n);
    if (!out->item || !out->item_of_source)
        return MR_FAIL(err, NO_MEMORY, "a catalogue of %zu items", out->n);
    for (size_t i = 0; i < out->n; i++) {
        const demo_package *package = chosen[i];
        demo_item *item = &out->item[i];
        item->id = item->title = package->name;
        item->source = package->source;
        item->first_component = DEMO_NONE;
        out->item_of_source[demo_names_find(&out->sources, package->source)] = (uint32_t)i;
        uint32_t index;
        mr_status status;
        if ((status = demo_names_add(&out->ids, item->id, &index, err)) != MR_OK ||
            (status = demo_names_add(&out->sections, package->section, &item->section, err)) !=
                MR_OK ||
            (status = demo_item_fold(item->id, &item->fold, err)) != MR_OK ||
            (status = read_texts(item, package, buf, arena, err)) != MR_OK ||
            (status = read_tags(out, item, package->tags, err)) != MR_OK)
            return status;
    }
    return index_sections(out, arena, err);
}

mr_status demo_items_build(demo_items *out, const demo_archive *archive,
                           const demo_components *components, mr_str vocabulary,
                           const char *icon_folder, mr_arena *arena, mr_error *err)
{
    *out = (demo_items){.components = components};
    const demo_package **chosen = NULL;
    mr_strbuf buf = {0};
    mr_status status = read_vocabulary(out, vocabulary, arena, err);
    if (status == MR_OK)
        status = choose(out, archive, &chosen, err);
    if (status == MR_OK)
        status = fill(out, chosen, &buf, arena, err);
    if (status == MR_OK)
        status = attach(out, archive, icon_folder, &buf, arena, err);
    if (status == MR_OK && out->n == 0)
        status = MR_FAIL(err, INVALID, "none of %zu packages is a program that a person would pick",
                         archive->n);
    mr_strbuf_release(&buf);
    free(chosen);
    if (status != MR_OK)
        demo_items_done(out);
    return status;
}

void demo_items_done(demo_items *items)
{
    for (size_t i = 0; items->item && i < items->n; i++)
        demo_ids_done(&items->item[i].tags);
    for (size_t i = 0; items->in_section && i < items->sections.n; i++)
        demo_ids_done(&items->in_section[i]);
    free(items->item);
    demo_names_done(&items->ids);
    demo_names_done(&items->sections);
    demo_names_done(&items->sources);
    demo_names_done(&items->tags);
    *items = (demo_items){0};
}
