/* tokenizer_pretokenize.c - the pre-tokeniser: cutting a segment into pieces for BPE.
 *
 * Steps run depth first: a piece goes through all later steps before its right neighbour is cut.
 * Steps that rewrite text (Metaspace, a byte-level prefix space) write to a buffer of their own, so
 * that the pieces of outer steps stay where they are. Empty pieces are dropped everywhere.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/tokenizer_private.h"

static mr_status run_step(mr_tok_run *run, size_t index, mr_str piece, bool at_start);

/* Turns a sequence of matches and gaps into pieces, as `behavior` says. */
typedef struct {
    mr_tok_run *run;
    size_t next_step;
    mr_str text;
    mr_tok_behavior behavior;
    bool at_start;
    bool pending, was_match; /* a piece that may still grow, and what the part before was */
    size_t start, end;       /* of it */
} splitter;

static mr_status emit(splitter *s, size_t start, size_t end)
{
    if (start == end)
        return MR_OK;
    return run_step(s->run, s->next_step, (mr_str){s->text.data + start, end - start},
                    s->at_start && start == 0);
}

static mr_status flush(splitter *s)
{
    if (!s->pending)
        return MR_OK;
    s->pending = false;
    return emit(s, s->start, s->end);
}

static mr_status add_part(splitter *s, size_t start, size_t end, bool is_match)
{
    bool joins = false; /* the pending piece */
    switch (s->behavior) {
    case MR_SPLIT_ISOLATED: return emit(s, start, end);
    case MR_SPLIT_REMOVED: return is_match ? MR_OK : emit(s, start, end);
    case MR_SPLIT_CONTIGUOUS: joins = is_match == s->was_match; break;
    case MR_SPLIT_MERGED_WITH_PREVIOUS: joins = is_match && !s->was_match; break;
    case MR_SPLIT_MERGED_WITH_NEXT: joins = !is_match && s->was_match; break;
    }
    s->was_match = is_match;
    if (joins && s->pending) {
        s->end = end;
        return MR_OK;
    }
    mr_status status = flush(s);
    s->pending = true;
    s->start = start;
    s->end = end;
    return status;
}

static mr_status split_by_pattern(mr_tok_run *run, splitter *s, const mr_tok_pattern *pattern,
                                  bool invert)
{
    mr_tok_search search = {.pattern = pattern,
                            .classes = &run->tok->classes,
                            .matcher = &run->matcher,
                            .text = s->text,
                            .last_end = SIZE_MAX};
    size_t done = 0;
    for (;;) {
        if (run->ids->n >= run->enough)
            return MR_OK;
        size_t start, end;
        bool found;
        mr_status status = mr_tok_search_next(&search, &found, &start, &end, run->err);
        if (status != MR_OK)
            return status;
        if (!found)
            break;
        if (done != start)
            status = add_part(s, done, start, invert);
        if (status == MR_OK)
            status = add_part(s, start, end, !invert);
        if (status != MR_OK)
            return status;
        done = end;
    }
    mr_status status = done < s->text.len ? add_part(s, done, s->text.len, invert) : MR_OK;
    return status == MR_OK ? flush(s) : status;
}

static mr_status split_digits(splitter *s)
{
    const mr_tok_classes *classes = &s->run->tok->classes;
    size_t done = 0, size;
    for (size_t at = 0; at < s->text.len; at += size) {
        uint8_t class = mr_tok_class_at(classes, s->text.data + at, &size);
        if (!(class & (MR_CLASS_NUMBER | MR_CLASS_NUMERIC)))
            continue;
        mr_status status = done < at ? add_part(s, done, at, false) : MR_OK;
        if (status == MR_OK)
            status = add_part(s, at, at + size, true);
        if (status != MR_OK)
            return status;
        done = at + size;
    }
    mr_status status = done < s->text.len ? add_part(s, done, s->text.len, false) : MR_OK;
    return status == MR_OK ? flush(s) : status;
}

static bool starts_with(mr_str text, mr_str start)
{
    return text.len >= start.len && memcmp(text.data, start.data, start.len) == 0;
}

/* Blanks become the replacement character, and one more may go in front. */
static mr_status rewrite_metaspace(mr_tok_run *run, size_t index, bool at_start, mr_str *text)
{
    const mr_tok_pretokenizer *step = &run->tok->pretokenizers[index];
    const mr_str mark = step->pattern.literal;
    mr_strbuf *out = &run->step_text[index];
    mr_strbuf_clear(out);
    const bool begins = text->data[0] == ' ' || starts_with(*text, mark);
    if (!begins &&
        (step->prepend == MR_PREPEND_ALWAYS || (step->prepend == MR_PREPEND_FIRST && at_start)))
        mr_strbuf_append(out, mark.data, mark.len);
    for (size_t at = 0; at < text->len;) {
        const char *blank = memchr(text->data + at, ' ', text->len - at);
        size_t end = blank ? (size_t)(blank - text->data) : text->len;
        mr_strbuf_append(out, text->data + at, end - at);
        if (blank)
            mr_strbuf_append(out, mark.data, mark.len);
        at = end + 1;
    }
    if (out->failed)
        return MR_TOK_NO_MEMORY(run->tok, run->err, text->len);
    *text = (mr_str){out->data, out->len};
    return MR_OK;
}

static mr_status add_prefix_space(mr_tok_run *run, size_t index, mr_str *text)
{
    mr_strbuf *out = &run->step_text[index];
    mr_strbuf_clear(out);
    mr_strbuf_append(out, " ", 1);
    mr_strbuf_append(out, text->data, text->len);
    if (out->failed)
        return MR_TOK_NO_MEMORY(run->tok, run->err, text->len);
    *text = (mr_str){out->data, out->len};
    return MR_OK;
}

static mr_status run_step(mr_tok_run *run, size_t index, mr_str piece, bool at_start)
{
    if (index == run->tok->n_pretokenizers)
        return run->visit ? run->visit(run->visit_context, piece, run->err)
                          : mr_tok_bpe(run, piece);

    const mr_tok_pretokenizer *step = &run->tok->pretokenizers[index];
    mr_status status = MR_OK;
    splitter s = {.run = run,
                  .next_step = index + 1,
                  .text = piece,
                  .behavior = step->behavior,
                  .at_start = at_start};
    switch (step->kind) {
    case MR_PRETOK_DIGITS: return split_digits(&s);
    case MR_PRETOK_SPLIT: return split_by_pattern(run, &s, &step->pattern, step->invert);
    case MR_PRETOK_METASPACE: status = rewrite_metaspace(run, index, at_start, &s.text); break;
    case MR_PRETOK_BYTE_LEVEL:
        if (step->prefix_space && piece.data[0] != ' ')
            status = add_prefix_space(run, index, &s.text);
        break;
    }
    if (status != MR_OK)
        return status;
    if (!step->splits)
        return emit(&s, 0, s.text.len);
    return split_by_pattern(run, &s, &step->pattern, false);
}

mr_status mr_tok_pretokenize(mr_tok_run *run, mr_str text, bool at_start)
{
    return text.len ? run_step(run, 0, text, at_start) : MR_OK;
}
