/* template.c - expanding a compiled template into a prompt, and fitting it to a budget.
 *
 * Two passes: first every segment is tokenised, then what is too long gives way. A long text is not
 * cut before it is tokenised: NFC and the pre-tokeniser look ahead without bound (a run of letters,
 * a run of spaces), and BPE merges by rank over the whole word, so that no number of bytes is known
 * to leave the earlier tokens alone. The tokenizer is told instead how many ids can matter, and
 * leaves out the words after them. That is one id more than the budget: of a segment longer than
 * the whole budget, the second pass keeps the same part whatever its length.
 * SPDX-License-Identifier: Apache-2.0 */
#include "encoders/template.h"

#include <stdlib.h>
#include <string.h>

#include "core/utf8.h"
#include "encoders/template_segments.h"

mr_str mr_fields_get(mr_fields fields, const char *name)
{
    const mr_str wanted = mr_str_of(name);
    for (size_t i = 0; i < fields.n; i++) {
        if (mr_str_equal(fields.field[i].name, wanted))
            return fields.field[i].value;
    }
    return (mr_str){NULL, 0};
}

bool mr_template_requires_slot(const mr_template *tmpl, mr_slot_kind kind)
{
    for (size_t i = 0; i < tmpl->n; i++)
        if (tmpl->segments[i].kind == MR_PIECE_SLOT && tmpl->segments[i].slot == kind &&
            tmpl->segments[i].when == TEMPLATE_ALWAYS)
            return true;
    return false;
}

bool mr_template_uses_slot(const mr_template *tmpl, mr_slot_kind kind)
{
    for (size_t i = 0; i < tmpl->n; i++) {
        if (tmpl->segments[i].kind == MR_PIECE_SLOT && tmpl->segments[i].slot == kind)
            return true;
    }
    return false;
}

static bool segment_uses_field(const template_segment *segment, const char *name)
{
    if (segment->kind == MR_PIECE_FIELD && strcmp(segment->name, name) == 0)
        return true;
    if (segment->when == TEMPLATE_WHEN_FIELD && strcmp(segment->when_field, name) == 0)
        return true;
    for (size_t i = 0; i < segment->n_parts; i++) {
        if (segment->parts[i].field && strcmp(segment->parts[i].field, name) == 0)
            return true;
    }
    return false;
}

bool mr_template_uses_field(const mr_template *tmpl, const char *name)
{
    for (size_t i = 0; i < tmpl->n; i++) {
        if (segment_uses_field(&tmpl->segments[i], name))
            return true;
    }
    return false;
}

void mr_prompt_clear(mr_prompt *prompt)
{
    prompt->ids.n = 0;
    prompt->n_pieces = 0;
    mr_strbuf_clear(&prompt->join);
}

void mr_prompt_release(mr_prompt *prompt)
{
    mr_ids_release(&prompt->ids);
    mr_strbuf_release(&prompt->join);
    free(prompt->piece);
    *prompt = (mr_prompt){0};
}

static mr_status prompt_add_piece(mr_prompt *prompt, const mr_piece *piece, mr_error *err)
{
    if (prompt->n_pieces == prompt->piece_capacity) {
        size_t capacity = prompt->piece_capacity ? 2 * prompt->piece_capacity : 16;
        mr_piece *grown = realloc(prompt->piece, capacity * sizeof *grown);
        if (!grown)
            return MR_FAIL(err, NO_MEMORY, "no memory for %zu pieces of a prompt", capacity);
        prompt->piece = grown;
        prompt->piece_capacity = capacity;
    }
    prompt->piece[prompt->n_pieces++] = *piece;
    return MR_OK;
}

static bool is_due(const template_segment *segment, const mr_template_input *input)
{
    switch (segment->when) {
    case TEMPLATE_ALWAYS: return true;
    case TEMPLATE_WHEN_FIELD: return mr_fields_get(input->fields, segment->when_field).len > 0;
    case TEMPLATE_WHEN_SLOT: return input->slot_tokens[segment->when_slot] > 0;
    }
    return false;
}

/* Here and not left to the tokenizer: in a join its offset would be that of the joined text. */
static mr_status check_field(const mr_template *tmpl, const char *name, mr_str value, mr_error *err)
{
    size_t valid = value.len ? mr_utf8_valid_prefix(value.data, value.len) : 0;
    if (valid == value.len)
        return MR_OK;
    return MR_FAIL(
        err, INVALID,
        "%s: field '%s' is not UTF-8: byte 0x%02x at offset %zu of %zu; send text as UTF-8",
        tmpl->name, name, (unsigned)(unsigned char)value.data[valid], valid, value.len);
}

/* Ids of a field or a join that can matter: more than its own bound, or than the whole budget. */
static size_t ids_wanted(const template_segment *segment, size_t budget)
{
    size_t bound = budget ? budget : SIZE_MAX;
    if (segment->max_tokens && segment->max_tokens < bound)
        bound = segment->max_tokens;
    return bound < SIZE_MAX ? bound + 1 : SIZE_MAX;
}

static mr_status append_plain(const mr_template *tmpl, mr_str text, size_t wanted, mr_ids *ids,
                              mr_error *err)
{
    if (text.len == 0)
        return MR_OK;
    mr_status status =
        mr_tokenizer_encode_first(tmpl->tokenizer, text, MR_TOKENIZE_PLAIN, wanted, ids, err);
    if (status != MR_OK)
        mr_error_prefix(err, status, "%s", tmpl->name);
    return status;
}

static mr_status append_field(const mr_template *tmpl, const template_segment *segment,
                              const mr_template_input *input, mr_prompt *prompt, mr_error *err)
{
    mr_str value = mr_fields_get(input->fields, segment->name);
    mr_status status = check_field(tmpl, segment->name, value, err);
    if (status != MR_OK)
        return status;
    return append_plain(tmpl, value, ids_wanted(segment, input->max_tokens), &prompt->ids, err);
}

static mr_status append_join(const mr_template *tmpl, const template_segment *segment,
                             const mr_template_input *input, mr_prompt *prompt, mr_error *err)
{
    mr_strbuf_clear(&prompt->join);
    for (size_t i = 0; i < segment->n_parts; i++) {
        const template_part *part = &segment->parts[i];
        mr_str text = part->text;
        if (part->field) {
            text = mr_fields_get(input->fields, part->field);
            mr_status status = check_field(tmpl, part->field, text, err);
            if (status != MR_OK)
                return status;
        }
        mr_strbuf_append(&prompt->join, text.data, text.len);
    }
    if (prompt->join.failed) {
        mr_strbuf_release(&prompt->join);
        return MR_FAIL(err, NO_MEMORY, "%s: no memory to join %zu texts", tmpl->name,
                       segment->n_parts);
    }
    return append_plain(tmpl, (mr_str){prompt->join.data, prompt->join.len},
                        ids_wanted(segment, input->max_tokens), &prompt->ids, err);
}

static mr_status append_slot(const mr_template *tmpl, const template_segment *segment,
                             const mr_template_input *input, mr_prompt *prompt, mr_error *err)
{
    static const int32_t embeds[16] = {MR_ID_EMBED, MR_ID_EMBED, MR_ID_EMBED, MR_ID_EMBED,
                                       MR_ID_EMBED, MR_ID_EMBED, MR_ID_EMBED, MR_ID_EMBED,
                                       MR_ID_EMBED, MR_ID_EMBED, MR_ID_EMBED, MR_ID_EMBED,
                                       MR_ID_EMBED, MR_ID_EMBED, MR_ID_EMBED, MR_ID_EMBED};
    const size_t step = sizeof embeds / sizeof *embeds;
    size_t left = input->slot_tokens[segment->slot];

    if (left == 0)
        return MR_FAIL(err, INVALID,
                       "%s: slot '%s' has no embedding tokens; give some, or mark the segment "
                       "\"when\": \"%s\"",
                       tmpl->name, segment->name, segment->name);
    if (left > MR_TEMPLATE_MAX_TOKENS)
        return MR_FAIL(err, INVALID, "%s: slot '%s' has %zu embedding tokens, expected at most %d",
                       tmpl->name, segment->name, left, MR_TEMPLATE_MAX_TOKENS);
    mr_status status = MR_OK;
    while (left > 0 && status == MR_OK) {
        size_t n = left < step ? left : step;
        status = mr_ids_append(&prompt->ids, embeds, n, err);
        left -= n;
    }
    return status;
}

/* Appends the ids and the piece of segment `index`, after the segment's own bound. */
static mr_status append_segment(const mr_template *tmpl, size_t index,
                                const mr_template_input *input, mr_prompt *prompt, mr_error *err)
{
    const template_segment *segment = &tmpl->segments[index];
    mr_piece piece = {.kind = segment->kind,
                      .name = segment->name,
                      .slot = segment->slot,
                      .segment = index,
                      .begin = prompt->ids.n};
    mr_status status = MR_OK;
    switch (segment->kind) {
    case MR_PIECE_TEXT:
    case MR_PIECE_TOKEN:
        status = mr_ids_append(&prompt->ids, segment->ids, segment->n_ids, err);
        break;
    case MR_PIECE_FIELD: status = append_field(tmpl, segment, input, prompt, err); break;
    case MR_PIECE_SLOT: status = append_slot(tmpl, segment, input, prompt, err); break;
    case MR_PIECE_JOIN: status = append_join(tmpl, segment, input, prompt, err); break;
    }
    if (status != MR_OK)
        return status;

    piece.n = prompt->ids.n - piece.begin;
    if (segment->max_tokens && piece.n > segment->max_tokens) {
        piece.n = segment->max_tokens;
        piece.truncated = true;
        prompt->ids.n = piece.begin + piece.n;
    }
    return prompt_add_piece(prompt, &piece, err);
}

/* Takes up to `excess` positions from the right of the piece; returns what is still too much. */
static size_t shorten(mr_piece *piece, size_t excess)
{
    size_t cut = piece->n < excess ? piece->n : excess;
    if (cut > 0) {
        piece->n -= cut;
        piece->truncated = true;
    }
    return excess - cut;
}

/* Moves the ids together after pieces were shortened. */
static void close_gaps(mr_prompt *prompt)
{
    size_t end = 0;
    for (size_t i = 0; i < prompt->n_pieces; i++) {
        mr_piece *piece = &prompt->piece[i];
        if (piece->n && piece->begin != end)
            memmove(prompt->ids.data + end, prompt->ids.data + piece->begin,
                    piece->n * sizeof *prompt->ids.data);
        piece->begin = end;
        end += piece->n;
    }
    prompt->ids.n = end;
}

static mr_status fit(const mr_template *tmpl, const mr_template_input *input, mr_prompt *prompt,
                     mr_error *err)
{
    if (input->max_tokens == 0 || prompt->ids.n <= input->max_tokens)
        return MR_OK;
    size_t excess = prompt->ids.n - input->max_tokens;
    for (size_t i = prompt->n_pieces; i-- > 0 && excess > 0;) {
        mr_piece *piece = &prompt->piece[i];
        if (tmpl->segments[piece->segment].truncate)
            excess = shorten(piece, excess);
    }
    for (size_t i = prompt->n_pieces; input->cut_rest && i-- > 0 && excess > 0;) {
        if (prompt->piece[i].kind == MR_PIECE_SLOT)
            break;
        excess = shorten(&prompt->piece[i], excess);
    }
    if (excess > 0)
        return MR_FAIL(
            err, EXHAUSTED,
            "%s: at least %zu tokens besides what may be truncated, the budget is %zu; shorten "
            "the texts or mark a segment \"truncate\": true",
            tmpl->name, input->max_tokens + excess, input->max_tokens);
    close_gaps(prompt);
    return MR_OK;
}

mr_status mr_template_expand(const mr_template *tmpl, const mr_template_input *input,
                             mr_prompt *prompt, mr_error *err)
{
    mr_status status = MR_OK;

    mr_prompt_clear(prompt);
    for (size_t i = 0; i < tmpl->n && status == MR_OK; i++) {
        if (is_due(&tmpl->segments[i], input))
            status = append_segment(tmpl, i, input, prompt, err);
    }
    if (status == MR_OK)
        status = fit(tmpl, input, prompt, err);
    if (status != MR_OK)
        mr_prompt_clear(prompt);
    return status;
}

mr_status mr_template_fixed_tokens(const mr_template *tmpl, const mr_template_input *input,
                                   size_t *out, mr_error *err)
{
    mr_template_input unbounded = *input;
    mr_prompt scratch = {0};
    mr_status status = MR_OK;

    unbounded.max_tokens = 0;
    for (size_t i = 0; i < tmpl->n && status == MR_OK; i++) {
        if (!tmpl->segments[i].truncate && is_due(&tmpl->segments[i], input))
            status = append_segment(tmpl, i, &unbounded, &scratch, err);
    }
    if (status == MR_OK)
        *out = scratch.ids.n;
    mr_prompt_release(&scratch);
    return status;
}
