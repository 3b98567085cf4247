/* archive.h - the binary packages of a suite: what the index says of each, and which of them a
 * person would pick as a program.
 *
 * Fields are spans of the mapped index files. Of a package that is listed twice the last stanza
 * stands. The English long description comes from Translation-en by package and Description-md5.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_DEPLOY_DEMO_ARCHIVE_H
#define MR_DEPLOY_DEMO_ARCHIVE_H

#include <stdbool.h>

#include "deploy/demo/deb822.h"
#include "deploy/demo/dep11.h"
#include "deploy/demo/names.h"

typedef struct {
    mr_str name;
    mr_str source; /* the source package's name */
    mr_str section;
    mr_str tags;    /* as written: "role::program, use::{editing,viewing}" */
    mr_str summary; /* the short description */
    mr_str detail;  /* the long one, as written: continuation lines, "." for a blank one */
    mr_str detail_md5;
    bool is_application; /* it ships a component that a person starts */
    bool is_program;     /* passes the filter: a candidate for the catalogue */
} demo_package;

typedef struct {
    demo_package *package; /* owned */
    size_t n;
    demo_names names; /* package name -> index */
} demo_archive;

mr_status demo_archive_read(demo_archive *out, mr_str packages, mr_str translations, mr_error *err);
/* Sets is_application and is_program of every package. */
void demo_archive_select(demo_archive *archive, const demo_components *components);
void demo_archive_done(demo_archive *archive);

/* The words of a long description; the "." lines that stand for blank ones are not words. */
typedef struct {
    mr_str lines;
    mr_str line;
} demo_detail;

demo_detail demo_detail_of(mr_str detail);
bool demo_detail_next(demo_detail *detail, mr_str *word);

/* One tag after the other, groups written out: facet "use", value "editing". */
typedef struct {
    mr_str rest;
    mr_str facet;
    mr_str group; /* what is left of a {...} */
} demo_tags;

demo_tags demo_tags_of(mr_str field);
bool demo_tags_next(demo_tags *tags, mr_str *facet, mr_str *value);

/* The filter's question about one package, apart so that it can be tested. */
bool demo_is_program(const demo_package *package);

#endif
