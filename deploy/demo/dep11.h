/* dep11.h - application metadata: what an archive's DEP-11 file says of the programs that it holds.
 *
 * The file is a stream of YAML documents: a header, then one component each. Only what the demo
 * uses is kept, English texts only. The English of a translated value is its key C, else en, en_US,
 * en_GB. Texts are copied into the arena.
 * Bounds: DEMO_COMPONENTS documents, nesting of DEMO_DEP11_DEPTH, 256 keywords or categories each.
 * Malformed YAML, an alias or a wrong shape is CORRUPT and names file and line.
 * Format: the AppStream specification, "Debian YAML".
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_DEPLOY_DEMO_DEP11_H
#define MR_DEPLOY_DEMO_DEP11_H

#include <stdbool.h>

#include "core/arena.h"
#include "core/bytes.h"
#include "core/error.h"

#define DEMO_COMPONENTS  200000
#define DEMO_DEP11_DEPTH 32
#define DEMO_DEP11_LIST  256

typedef struct {
    mr_str *text;
    size_t n;
} demo_texts;

typedef struct {
    mr_str package; /* empty for a web application without one */
    mr_str type;    /* "desktop-application", ... */
    mr_str name;
    mr_str icon; /* file name of the cached icon of the wanted size, or empty */
    demo_texts keywords;
    demo_texts categories;
} demo_component;

typedef struct {
    demo_component *component; /* owned */
    size_t n;
} demo_components;

/* icon_size: width in pixels of the icons that are wanted, at scale 1. */
mr_status demo_dep11_read(const char *name, mr_str text, long icon_size, mr_arena *arena,
                          demo_components *out, mr_error *err);
void demo_components_done(demo_components *components);

/* A program that a person starts: a desktop, console or web application. */
bool demo_component_is_application(const demo_component *component);

#endif
