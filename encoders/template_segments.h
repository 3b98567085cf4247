/* template_segments.h - private to template.c and template_compile.c: what a template is compiled
 * to.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_TEMPLATE_SEGMENTS_H
#define MR_ENCODERS_TEMPLATE_SEGMENTS_H

#include "core/arena.h"
#include "encoders/template.h"

/* A piece of a join: a text, or the name of a field. */
typedef struct {
    const char *field; /* NULL: a text */
    mr_str text;
} template_part;

typedef enum { TEMPLATE_ALWAYS, TEMPLATE_WHEN_FIELD, TEMPLATE_WHEN_SLOT } template_condition;

typedef struct {
    mr_piece_kind kind;
    const char *name;  /* field or slot name, or NULL */
    mr_slot_kind slot; /* for a slot */

    template_condition when;
    const char *when_field;
    mr_slot_kind when_slot;

    bool truncate;
    size_t max_tokens; /* 0: no bound of its own */

    const int32_t *ids; /* [n_ids], of a text or a token */
    size_t n_ids;

    const template_part *parts; /* [n_parts], of a join */
    size_t n_parts;
} template_segment;

/* Everything lives in the arena but the tokenizer, which is the caller's. */
struct mr_template {
    mr_arena arena;
    const char *name;
    const mr_tokenizer *tokenizer;
    template_segment *segments;
    size_t n;
};

bool template_slot_from_name(const char *name, mr_slot_kind *out);

#endif
