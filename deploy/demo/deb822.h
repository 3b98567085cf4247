/* deb822.h - stanzas of "Field: value" text, as package indexes and the tag vocabulary use them.
 *
 *     demo_stanza_reader reader = demo_stanzas_of("Packages", text);
 *     demo_stanza stanza;
 *     while ((status = demo_stanza_next(&reader, &stanza, &err)) == MR_OK && stanza.n > 0) {
 *         mr_str name = demo_stanza_get(&stanza, "Package");
 *
 * Nothing is copied: values are spans of the text, so the text must outlive them. A value runs from
 * the first character after the colon's blanks to the last one of its continuation lines, which
 * keep their leading blank; demo_words_next() and demo_lines_next() take values apart.
 * Bounds: DEMO_STANZA_BYTES and DEMO_STANZA_FIELDS per stanza. A line without a colon, a
 * continuation without a field, a NUL byte, a repeated field or a file that ends within a line is
 * CORRUPT and names file and line.
 * Format: the Debian Policy Manual, chapter 5.1.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_DEPLOY_DEMO_DEB822_H
#define MR_DEPLOY_DEMO_DEB822_H

#include <stdbool.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/error.h"

#define DEMO_STANZA_BYTES  ((size_t)2 << 20) /* the longest real one has 0.4 MB */
#define DEMO_STANZA_FIELDS 128

typedef struct {
    mr_str name;
    mr_str value;
} demo_field;

typedef struct {
    uint64_t line; /* where it begins, from 1 */
    size_t n;      /* 0: the end of the text */
    demo_field field[DEMO_STANZA_FIELDS];
} demo_stanza;

typedef struct {
    const char *name; /* for messages, borrowed */
    const char *at;
    const char *end;
    uint64_t line;
    bool private_text; /* messages name the line, and quote nothing of it */
} demo_stanza_reader;

demo_stanza_reader demo_stanzas_of(const char *name, mr_str text);
mr_status demo_stanza_next(demo_stanza_reader *reader, demo_stanza *out, mr_error *err);

/* The value, or an empty span when the stanza has no such field. Names compare without case. */
mr_str demo_stanza_get(const demo_stanza *stanza, const char *name);
/* The same, but an absent or empty field is CORRUPT. */
mr_status demo_stanza_need(const demo_stanza_reader *reader, const demo_stanza *stanza,
                           const char *name, mr_str *out, mr_error *err);

/* Takes the next piece off the front of *rest; false at its end. */
bool demo_words_next(mr_str *rest, mr_str *word); /* split at blanks and line ends */
bool demo_lines_next(mr_str *rest, mr_str *line); /* without the line end */
mr_str demo_trim(mr_str text);

#endif
