/* template.h - prompts as compiled segments: trusted text, untrusted fields, tokens and slots.
 *
 * A template is a JSON array of segments:
 *
 *     "Rank ... Query: "                      text of the author; special tokens in it are parsed
 *     {"field": "query"}                      text of a request or an item
 *     {"token": "<|endoftext|>"}              exactly one token: as the vocabulary spells it, a
 *                                             text that is one token, or an id
 *     {"slot": "item"}                        as many positions as the record has embedding tokens;
 *                                             each kind of slot at most once
 *     {"join": ["<Query>: ", {"field": "query"}, "\n<Document>:"]}
 *                                             texts and fields tokenised as one text, for
 *                                             templates published so (Qwen3-Reranker); parsing is
 *                                             off in all of it
 *     ... , "max_tokens": 12                  the first 12 tokens only (fields, joins)
 *     ... , "truncate": true                  gives way from the right when the whole is longer
 *                                             than the budget (fields, joins)
 *     ... , "when": "title"                   only when that field is there and not empty. The
 *                                             names item, user and image mean the slots here:
 *                                             only when that slot has tokens
 *
 * Every segment is tokenised on its own and fields with special-token parsing off, so that no
 * query or title can forge a slot or a role marker. Slots are MR_ID_EMBED (engine/session.h):
 * outside every vocabulary. Training and serving expand templates with this one function.
 *
 * A cut never changes the tokens before it: a segment is tokenised first and cut afterwards, as the
 * published code of Qwen3-Reranker does.
 * Threads: a compiled template is read-only and may be shared; an mr_prompt belongs to one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_TEMPLATE_H
#define MR_ENCODERS_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/error.h"
#include "core/json.h"
#include "core/strbuf.h"
#include "engine/session.h"
#include "engine/tokenizer.h"

/* mr_field and mr_fields, named texts, are in core/bytes.h. */

/* The value of a field; {NULL, 0} when there is none. */
mr_str mr_fields_get(mr_fields fields, const char *name);

typedef enum { MR_SLOT_ITEM, MR_SLOT_USER, MR_SLOT_IMAGE, MR_SLOT_COUNT } mr_slot_kind;
const char *mr_slot_name(mr_slot_kind kind); /* "item", "user", "image" */

typedef struct mr_template mr_template;

#define MR_TEMPLATE_MAX_SEGMENTS 256     /* and parts of a join */
#define MR_TEMPLATE_MAX_TOKENS   1048576 /* "max_tokens" of a segment, and tokens of a slot */

/* name is for messages ("bundle.json: prefix") and copied. The tokenizer is borrowed for the
 * template's life. A segment that is not one of the above is INVALID and named by its place; an
 * unknown key is refused with the nearest known one. */
MR_NODISCARD mr_status mr_template_compile(mr_template **out, const char *name,
                                           const json_t *segments, const mr_tokenizer *tokenizer,
                                           mr_error *err);
void mr_template_free(mr_template *tmpl); /* NULL is fine */

bool mr_template_uses_slot(const mr_template *tmpl, mr_slot_kind kind);
/* Used without a condition: an expansion without tokens for it is INVALID. */
bool mr_template_requires_slot(const mr_template *tmpl, mr_slot_kind kind);
/* As text, in a join or as a condition. */
bool mr_template_uses_field(const mr_template *tmpl, const char *name);

/* Where a piece of a prompt came from: for --explain, and to find slots. */
typedef enum {
    MR_PIECE_TEXT,
    MR_PIECE_FIELD,
    MR_PIECE_TOKEN,
    MR_PIECE_SLOT,
    MR_PIECE_JOIN
} mr_piece_kind;
typedef struct {
    mr_piece_kind kind;
    const char *name;  /* field or slot name, or NULL; borrowed from the template */
    mr_slot_kind slot; /* for MR_PIECE_SLOT */
    size_t segment;    /* index in the template */
    size_t begin, n;   /* positions in ids; n is 0 for a field that is absent or gave way wholly */
    bool truncated;    /* by max_tokens or by the budget */
} mr_piece;

typedef struct {
    mr_ids ids;      /* MR_ID_EMBED at slots */
    mr_piece *piece; /* [n_pieces], owned */
    size_t n_pieces, piece_capacity;
    mr_strbuf join; /* scratch: the text of a join */
} mr_prompt;
void mr_prompt_clear(mr_prompt *prompt); /* keeps the memory */
void mr_prompt_release(mr_prompt *prompt);

typedef struct {
    mr_fields fields;
    size_t slot_tokens[MR_SLOT_COUNT]; /* embedding tokens at hand for each slot kind */
    /* Positions that the whole expansion may take; 0: no bound. Segments marked "truncate" give
     * way, the last one first, down to nothing; EXHAUSTED when the others alone are longer. */
    size_t max_tokens;
    /* Instead of EXHAUSTED, what is still too long is cut from the right, whatever it is but a
     * slot: what an encoder does with a long text. */
    bool cut_rest;
} mr_template_input;

/* Clears and fills prompt: one piece per segment whose condition holds. A slot that is due and has
 * no tokens is INVALID and named; a field that is absent expands to nothing; a field that is not
 * UTF-8 is INVALID and named with the byte. On failure the prompt is empty. */
MR_NODISCARD mr_status mr_template_expand(const mr_template *tmpl, const mr_template_input *input,
                                          mr_prompt *prompt, mr_error *err);

/* Tokens that an expansion for this input takes whatever its budget: those of all segments whose
 * condition holds and that are not marked "truncate": texts, tokens, slots, and fields and joins
 * after their own max_tokens. input->max_tokens and cut_rest are not looked at. It is the least
 * that a template needs of a budget that it shares: a prefix is expanded with max_tokens = budget -
 * fixed tokens of the suffix, then the suffix with max_tokens = budget - length of the prefix. */
MR_NODISCARD mr_status mr_template_fixed_tokens(const mr_template *tmpl,
                                                const mr_template_input *input, size_t *out,
                                                mr_error *err);

#endif
