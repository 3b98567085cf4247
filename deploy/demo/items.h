/* items.h - the catalogue: one item per source package, with its text, title, picture, tags and
 * fold.
 *
 * A source package builds many near copies of one product (a plugin per language, a build per
 * toolkit). The representative is the program package that carries the source's name, else the one
 * with the most tags, else the longest description.
 * Items are in ascending order of id, which is the package name, so that an index stands for an
 * item everywhere and comparing indexes compares ids.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_DEPLOY_DEMO_ITEMS_H
#define MR_DEPLOY_DEMO_ITEMS_H

#include <stdbool.h>

#include "core/strbuf.h"
#include "deploy/demo/archive.h"
#include "deploy/demo/dep11.h"
#include "deploy/demo/names.h"

#define DEMO_DETAIL_WORDS 250
#define DEMO_ICON_SIZE    64

/* Which side of the split a person or an item is on. Items are never VALID. */
typedef enum { DEMO_TRAIN, DEMO_VALID, DEMO_TEST } demo_fold;
const char *demo_fold_name(demo_fold fold);

typedef struct {
    mr_str id;
    mr_str title; /* the name that a person knows it by, or the id */
    mr_str source;
    mr_str summary; /* valid UTF-8, as the next one */
    mr_str detail;  /* the first DEMO_DETAIL_WORDS words */
    mr_str icon;    /* a PNG in the icon folder, or empty */
    uint32_t section;
    demo_fold fold;
    demo_ids tags;            /* numbers of the vocabulary, sorted */
    uint32_t first_component; /* DEMO_NONE: ships no desktop or console program */
} demo_item;

typedef struct {
    demo_item *item; /* owned */
    size_t n;
    demo_names ids;      /* id -> index */
    demo_names sections; /* name -> number */
    demo_ids *in_section;
    demo_names sources;       /* source package -> number */
    uint32_t *item_of_source; /* by that number */

    demo_names tags;   /* the vocabulary: "facet::value" -> number */
    mr_str *tag_words; /* by that number: "Text Editing" */

    const demo_components *components;
    uint32_t *item_of_component; /* DEMO_NONE: of no item, or not a desktop or console program */
    size_t icons_missing;        /* named by the metadata; not in the folder, or no PNG */
} demo_items;

/* components must outlive the items; so must the texts behind the archive. icon_folder may be NULL:
 * no pictures. */
mr_status demo_items_build(demo_items *out, const demo_archive *archive,
                           const demo_components *components, mr_str vocabulary,
                           const char *icon_folder, mr_arena *arena, mr_error *err);
void demo_items_done(demo_items *items);

/* Appends text as valid UTF-8 on one line: bytes that are not become U+FFFD, controls a blank. */
void demo_append_clean(mr_strbuf *buf, mr_str text);
/* The same of a long description's first DEMO_DETAIL_WORDS words, one blank between them. */
void demo_append_detail(mr_strbuf *buf, mr_str detail);

/* The first 32 bits of the SHA-256 of prefix + text as a number in [0, 1): what folds are cut by.
 */
mr_status demo_unit_hash(const char *prefix, mr_str text, double *out, mr_error *err);
/* 70 % of the items. */
mr_status demo_item_fold(mr_str id, demo_fold *out, mr_error *err);

/* What both names have in common when only letters and digits count, without case. */
bool demo_same_letters(mr_str a, mr_str b);

#endif
