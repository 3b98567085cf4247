/* demo_fixture.h - a copy of the invented archive in a folder of its own, and short forms of what
 * the tests of the demo catalogue do with it.
 *
 *     place *p = place_new();
 *     edit(p, "Packages", "Section: sound", "Section: libs");
 *     build_ok(p);
 *     json_t *items = rows_of(p, "items.jsonl");
 *     json_decref(items);
 *     place_free(p);
 *
 * Include after cmocka.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_DEMO_FIXTURE_H
#define MR_TESTS_DEMO_FIXTURE_H

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/file.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/jsonl.h"
#include "core/strbuf.h"
#include "deploy/demo/catalogue.h"
#include "tests/support.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define ARCHIVE      "data/debian-fixture"

static const char *const lists[] = {"Packages", "Translation-en", "Sources", "Components.yml",
                                    "Release"};
static const char *const files[] = {
    "items.jsonl",     "items_long.jsonl",     "users.jsonl",  "queries.jsonl",     "manifest.json",
    "qrels/E1.txt",    "qrels/E1-cold.txt",    "qrels/D1.txt", "qrels/D1-cold.txt", "qrels/C.txt",
    "qrels/C-all.txt", "qrels/B1-all.txt",     "qrels/B3.txt", "qrels/B4.txt",      "texts.jsonl",
    "pairs.jsonl",     "training_lists.jsonl",
};
#define QRELS_BEGIN 5 /* where they stand among the files */
#define QRELS_END   14

/* Small enough for forty packages. */
static const demo_rules small_rules = {
    .candidates = 8,
    .search_basket = 4,
    .basket = 4,
    .tag_items_min = 3,
    .tag_items_max = 20,
    .matches_min = 2,
    .cold_matches_min = 1,
    .matches_max = 3,
    .near_max = 2,
    .category_items_min = 2,
    .lists_per_person = 6,
};

/* A copy of the archive with pictures, and room for a catalogue. */
typedef struct {
    char *folder;
    demo_options options;
} place;

static inline void copy_list(const place *p, const char *name)
{
    char from[256];
    size_t len;
    snprintf(from, sizeof from, ARCHIVE "/%s", name);
    char *text = test_file_read(from, &len);
    test_file_write(test_path(p->folder, name), text, len);
    free(text);
}

static inline char *keep(const char *path)
{
    size_t len = strlen(path) + 1;
    char *copy = malloc(len);
    assert_non_null(copy);
    memcpy(copy, path, len);
    return copy;
}

static inline place *place_new(void)
{
    place *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->folder = test_folder_new();
    for (size_t i = 0; i < COUNT(lists); i++)
        copy_list(p, lists[i]);
    copy_list(p, "vocabulary");
    assert_int_equal(mkdir(test_path(p->folder, "icons"), 0755), 0);
    static const char *const icon[] = {"icons/acornpad_acornpad.png", "icons/fernview_fernview.png",
                                       "icons/zinniasuite-slides_slides.png",
                                       "icons/birchwriter_big.png", "cedarnote_escape.png"};
    for (size_t i = 0; i < COUNT(icon); i++)
        test_file_write(test_path(p->folder, icon[i]), "\x89PNG\r\n\x1a\nand so on", 17);
    p->options = (demo_options){
        .lists = p->folder,
        .icons = keep(test_path(p->folder, "icons")),
        .vocabulary = keep(test_path(p->folder, "vocabulary")),
        .out = keep(test_path(p->folder, "out")),
        .rules = small_rules,
    };
    return p;
}

static inline void place_free(place *p)
{
    free((char *)p->options.icons);
    free((char *)p->options.vocabulary);
    free((char *)p->options.out);
    test_folder_free(p->folder);
    free(p);
}

static inline demo_summary build_ok(place *p)
{
    demo_summary summary = {0};
    mr_error err = {0};
    assert_status(demo_catalogue_build(&p->options, &summary, &err), MR_OK, &err);
    return summary;
}

static inline char *read_out(const place *p, const char *name, size_t *len)
{
    return test_file_read(test_path(p->options.out, name), len);
}

static inline json_t *rows_of(const place *p, const char *name)
{
    json_t *rows = json_array();
    json_t *row = NULL;
    mr_jsonl reader;
    mr_error err = {0};
    assert_status(mr_jsonl_open(&reader, test_path(p->options.out, name), MR_JSONL_MAX_LINE, &err),
                  MR_OK, &err);
    while (mr_jsonl_next(&reader, &row, &err) == MR_OK && row)
        json_array_append_new(rows, row);
    mr_jsonl_close(&reader);
    return rows;
}

static inline const char *text_of(const json_t *row, const char *key)
{
    return json_string_value(json_object_get(row, key));
}

static inline const json_t *row_of(const json_t *rows, const char *id)
{
    for (size_t i = 0; i < json_array_size(rows); i++)
        if (strcmp(text_of(json_array_get(rows, i), "id"), id) == 0)
            return json_array_get(rows, i);
    return NULL;
}

static inline bool list_holds(const json_t *list, const char *text)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_string_value(json_array_get(list, i)), text) == 0)
            return true;
    return false;
}

/* Replaces the first `old` in a list file by `new`. */
static inline void edit(const place *p, const char *name, const char *old, const char *new)
{
    char *text = test_file_read(test_path(p->folder, name), NULL);
    char *at = strstr(text, old);
    assert_non_null(at);
    mr_strbuf changed = {0};
    mr_strbuf_append(&changed, text, (size_t)(at - text));
    mr_strbuf_puts(&changed, new);
    mr_strbuf_puts(&changed, at + strlen(old));
    test_file_write(test_path(p->folder, name), changed.data, changed.len);
    mr_strbuf_release(&changed);
    free(text);
}

/* Lower-cased, so that no spelling slips through. */
static inline void assert_nowhere(const char *where, const char *text, size_t len,
                                  const char *secret)
{
    size_t n = strlen(secret);
    for (size_t i = 0; n && i + n <= len; i++) {
        size_t k = 0;
        while (k < n && tolower((unsigned char)text[i + k]) == tolower((unsigned char)secret[k]))
            k++;
        if (k == n)
            fail_msg("%s holds '%s'", where, secret);
    }
}

#endif
