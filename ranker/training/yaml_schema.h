/* yaml_schema.h - YAML into structs by libcyaml, with messages for people.
 *
 * libcyaml loads a text by a schema, but where the text is wrong it says so in a log of its own,
 * and where a number is absent it leaves a 0. So the text is looked over first, event by event,
 * against the same schema: an unknown key is refused with the nearest one, a value with what was
 * expected, each with its line and the key's path. Then libcyaml fills the structs, and numbers
 * that the text does not have get their defaults.
 *
 *     mr_yaml_text text = {0};
 *     mr_yaml_look(&text, &schema, "recipe.yaml", data, len, &err);
 *     mr_yaml_load(&text, &schema, data, len, &struct, &err);
 *     mr_yaml_done(&text);
 *
 * Stricter than YAML, on purpose: no anchors and aliases (a few lines of them unfold to gigabytes),
 * no tags, no second document, no octal or hexadecimal numbers, true and false alone for booleans,
 * no null, no key twice, no control characters in strings.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_YAML_SCHEMA_H
#define MR_RANKER_TRAINING_YAML_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>

#include <cyaml/cyaml.h>

#include "core/arena.h"
#include "core/error.h"
#include "core/strbuf.h"

#define MR_YAML_MAX_BYTES  ((size_t)1 << 20)
#define MR_YAML_MAX_STRING 4096 /* bytes of a scalar */
#define MR_YAML_MAX_PATH   128

/* Bounds and default of a number. Every number of the schema has one. */
typedef struct {
    const char *path; /* "optimizer.rate", "losses[].weight" */
    double min, max;  /* whole and at most 2^53 for integers */
    double fallback;  /* may lie out of the bounds: what the text cannot say */
} mr_yaml_number;

typedef struct {
    const cyaml_schema_value_t *value; /* a mapping, CYAML_FLAG_POINTER */
    const mr_yaml_number *number;
    size_t n_numbers;
} mr_yaml_schema;

typedef struct {
    const char *path; /* "losses[0].weight" */
    int line;         /* from 1 */
} mr_yaml_key;

/* The keys that a text has, in its order. */
typedef struct {
    const char *name; /* borrowed; for messages */
    mr_arena arena;
    mr_yaml_key *key;
    size_t n, capacity;
} mr_yaml_text;

void mr_yaml_done(mr_yaml_text *text); /* idempotent; zero-initialised is fine */

/* CORRUPT for what is not YAML, INVALID for what the schema refuses, EXHAUSTED for too much. */
MR_NODISCARD mr_status mr_yaml_look(mr_yaml_text *out, const mr_yaml_schema *schema,
                                    const char *name, const char *data, size_t len, mr_error *err);
/* Of a text that mr_yaml_look took. *out is freed by mr_yaml_free. */
MR_NODISCARD mr_status mr_yaml_load(const mr_yaml_text *text, const mr_yaml_schema *schema,
                                    const char *data, size_t len, void **out, mr_error *err);
void mr_yaml_free(const mr_yaml_schema *schema, void *value); /* NULL is fine */

/* Bounds and default of the number at a path, or NULL. */
const mr_yaml_number *mr_yaml_find_number(const mr_yaml_schema *schema, const char *path);
/* The key of that path, or NULL. */
const mr_yaml_key *mr_yaml_find(const mr_yaml_text *text, const char *path);

/* Appends a line "path=value" for everything that differs from its default, in the schema's order:
 * equal for structs that are equal, and the same after the schema has got another key. Paths that
 * begin with one of skip[] are left out (NULL-terminated). */
void mr_yaml_canonical(const mr_yaml_schema *schema, const void *value, const char *const *skip,
                       mr_strbuf *out);

#endif
