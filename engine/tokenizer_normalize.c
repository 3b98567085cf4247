/* tokenizer_normalize.c - the normaliser: NFC, Lowercase, Prepend, Replace, one after the other.
 *
 * A step that changes nothing copies nothing: most text passes through as it came.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/tokenizer_private.h"

/* What normalising may make of a text: Replace puts up to MR_TOK_MAX_SPLICE bytes for one. */
#define GROWTH_MAX   16
#define GROWTH_FLOOR ((size_t)1 << 20)

static mr_status replace(mr_tok_run *run, const mr_tok_normalizer *step, mr_str text, size_t limit,
                         mr_strbuf *out, bool *changed)
{
    mr_tok_search search = {.pattern = &step->pattern,
                            .classes = &run->tok->classes,
                            .matcher = &run->matcher,
                            .text = text,
                            .last_end = SIZE_MAX};
    size_t copied = 0;
    for (;;) {
        size_t start, end;
        bool found;
        mr_status status = mr_tok_search_next(&search, &found, &start, &end, run->err);
        if (status != MR_OK)
            return status;
        if (!found)
            break;
        mr_strbuf_append(out, text.data + copied, start - copied);
        mr_strbuf_append(out, step->text.data, step->text.len);
        copied = end;
        *changed = true;
        if (out->len > limit)
            return MR_FAIL(run->err, EXHAUSTED, "%s: normalising %zu bytes gives more than %zu",
                           run->tok->name, text.len, limit);
    }
    if (*changed)
        mr_strbuf_append(out, text.data + copied, text.len - copied);
    return MR_OK;
}

mr_status mr_tok_normalize(mr_tok_run *run, mr_str text, mr_str *out)
{
    const mr_tokenizer *tok = run->tok;
    const size_t limit = GROWTH_FLOOR + GROWTH_MAX * text.len;
    int turn = 0;
    for (size_t i = 0; i < tok->n_normalizers && text.len > 0; i++) {
        const mr_tok_normalizer *step = &tok->normalizers[i];
        mr_strbuf *to = &run->normal[turn];
        bool changed = false;
        mr_status status = MR_OK;
        mr_strbuf_clear(to);
        switch (step->kind) {
        case MR_NORMALIZE_NFC: status = mr_tok_nfc(run, text, to, &changed); break;
        case MR_NORMALIZE_LOWERCASE: mr_tok_lowercase(text, to, &changed); break;
        case MR_NORMALIZE_PREPEND:
            mr_strbuf_append(to, step->text.data, step->text.len);
            mr_strbuf_append(to, text.data, text.len);
            changed = true;
            break;
        case MR_NORMALIZE_REPLACE: status = replace(run, step, text, limit, to, &changed); break;
        }
        if (status != MR_OK)
            return status;
        if (to->failed)
            return MR_TOK_NO_MEMORY(tok, run->err, text.len);
        if (changed) {
            text = (mr_str){to->data, to->len};
            turn = !turn;
        }
    }
    *out = text;
    return MR_OK;
}
