/* tokenizer_bpe.c - a piece of text to ids.
 *
 * Three things make this fast without changing an id:
 *   1. A piece that is a token is that token, if merging its own characters gives just that. The
 *      answer is found out once per token and kept (mr_tokenizer.whole); most words end here.
 *   2. A long piece is cut into words where no merge can ever join: between two characters that do
 *      not meet inside any token that merges make (mr_tokenizer.meets). SentencePiece models, which
 *      hand over whole texts as one piece, get words this way.
 *   3. What is left goes through the merge loop.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "core/utf8.h"
#include "engine/tokenizer_private.h"

typedef struct {
    mr_tok_run *run;
    mr_str piece;
    int32_t piece_id;     /* the token with the piece's text, -1: none */
    size_t start, end;    /* of the word in the piece */
    bool unknown_pending; /* an unknown token that is not in the word yet */
    size_t unknown_start, unknown_end;
} speller;

static mr_status flush_word(speller *s)
{
    mr_tok_run *run = s->run;
    const mr_tokenizer *tok = run->tok;
    const size_t n = run->word.n_leaves;
    run->word.n_leaves = 0;
    if (n == 0 || run->ids->n >= run->enough)
        return MR_OK;

    int32_t id = -1;
    const size_t len = s->end - s->start;
    if (len == s->piece.len)
        id = s->piece_id;
    else if (n == 1)
        return mr_tok_push(run, run->word.leaves[0]);
    else if (len <= tok->longest_word)
        id = mr_tok_strings_find(&tok->words, s->piece.data + s->start, len);
    if (id >= 0 && atomic_load_explicit(&tok->whole[id], memory_order_relaxed) == MR_WORD_WHOLE)
        return mr_tok_push(run, id);

    const size_t before = run->ids->n;
    run->word.n_leaves = n;
    mr_status status = mr_tok_merge_word(run);
    run->word.n_leaves = 0;
    if (status == MR_OK && id >= 0) {
        bool whole = run->ids->n == before + 1 && run->ids->data[before] == id;
        atomic_store_explicit(&tok->whole[id], whole ? MR_WORD_WHOLE : MR_WORD_PARTS,
                              memory_order_relaxed);
    }
    return status;
}

static bool may_meet(const mr_tokenizer *tok, int32_t left, int32_t right)
{
    if (!tok->meets)
        return true;
    uint32_t bit = (uint32_t)mr_tok_mix(mr_tok_pair(left, right), 0) & tok->meets_mask;
    return tok->meets[bit / 64] >> (bit % 64) & 1;
}

static mr_status add_leaf(speller *s, int32_t id, size_t start, size_t end)
{
    mr_tok_word *word = &s->run->word;
    if (word->n_leaves && !may_meet(s->run->tok, word->leaves[word->n_leaves - 1], id)) {
        mr_status status = flush_word(s);
        if (status != MR_OK)
            return status;
    }
    if (word->n_leaves == word->capacity) {
        size_t capacity = word->capacity + word->capacity / 2 + 64;
        int32_t *grown = realloc(word->leaves, capacity * sizeof *grown);
        if (!grown)
            return MR_TOK_NO_MEMORY(s->run->tok, s->run->err, capacity * sizeof *grown);
        word->leaves = grown;
        word->capacity = capacity;
    }
    if (word->n_leaves == 0)
        s->start = start;
    s->end = end;
    word->leaves[word->n_leaves++] = id;
    return MR_OK;
}

static mr_status add_pending_unknown(speller *s)
{
    if (!s->unknown_pending)
        return MR_OK;
    s->unknown_pending = false;
    return add_leaf(s, s->run->tok->unk_id, s->unknown_start, s->unknown_end);
}

/* A character that is no token: its bytes, or the unknown token, or nothing. An unknown token waits
 * for the next known character or the end; bytes do not make it go first. That is the library's
 * order, whatever one thinks of it. */
static mr_status add_unknown(speller *s, const char *bytes, size_t n_bytes, size_t start,
                             size_t end)
{
    const mr_tokenizer *tok = s->run->tok;
    mr_status status = MR_OK;
    bool as_bytes = tok->byte_fallback;
    for (size_t i = 0; i < n_bytes && as_bytes; i++)
        as_bytes = tok->fallback[(unsigned char)bytes[i]] >= 0;
    for (size_t i = 0; i < n_bytes && as_bytes && status == MR_OK; i++)
        status = add_leaf(s, tok->fallback[(unsigned char)bytes[i]], start, end);
    if (as_bytes || !tok->unk_token)
        return status;

    if (tok->unk_id < 0)
        return MR_FAIL(s->run->err, CORRUPT,
                       "%s: a text has a character without a token, and unk_token '%.80s' is not "
                       "in the vocabulary",
                       tok->name, tok->unk_token);
    if (s->unknown_pending && tok->fuse_unk) {
        s->unknown_end = end;
        return MR_OK;
    }
    status = add_pending_unknown(s);
    s->unknown_pending = true;
    s->unknown_start = start;
    s->unknown_end = end;
    return status;
}

static mr_status add_known(speller *s, int32_t id, size_t start, size_t end)
{
    mr_status status = s->unknown_pending ? add_pending_unknown(s) : MR_OK;
    return status == MR_OK ? add_leaf(s, id, start, end) : status;
}

static mr_status spell_bytes(speller *s)
{
    const mr_tokenizer *tok = s->run->tok;
    for (size_t i = 0; i < s->piece.len; i++) {
        unsigned char byte = (unsigned char)s->piece.data[i];
        int32_t id = tok->byte_ids[byte];
        mr_status status;
        if (id >= 0) {
            status = add_known(s, id, i, i + 1);
        } else {
            char spelled[4];
            size_t len = mr_utf8_encode(mr_tok_byte_char(byte), spelled);
            status = add_unknown(s, spelled, len, i, i + 1);
        }
        if (status != MR_OK)
            return status;
    }
    return MR_OK;
}

static mr_status spell_characters(speller *s)
{
    const mr_tokenizer *tok = s->run->tok;
    for (size_t i = 0, size; i < s->piece.len; i += size) {
        const char *p = s->piece.data + i;
        if (s->run->ids->n >= s->run->enough)
            return MR_OK;
        size = mr_tok_char_size((unsigned char)*p);
        int32_t id = size < 4 ? tok->bmp_ids[mr_tok_code_point(p)]
                              : mr_tok_strings_find(&tok->vocabulary, p, size);
        mr_status status =
            id >= 0 ? add_known(s, id, i, i + size) : add_unknown(s, p, size, i, i + size);
        if (status != MR_OK)
            return status;
    }
    return MR_OK;
}

mr_status mr_tok_bpe(mr_tok_run *run, mr_str piece)
{
    const mr_tokenizer *tok = run->tok;
    if (run->ids->n >= run->enough)
        return MR_OK;
    speller s = {.run = run, .piece = piece, .piece_id = -1};
    if (piece.len <= tok->longest_word) {
        s.piece_id = mr_tok_strings_find(&tok->words, piece.data, piece.len);
        if (s.piece_id >= 0 &&
            (tok->ignore_merges ||
             atomic_load_explicit(&tok->whole[s.piece_id], memory_order_relaxed) == MR_WORD_WHOLE))
            return mr_tok_push(run, s.piece_id);
    }
    run->word.n_leaves = 0;
    mr_status status = tok->byte_level ? spell_bytes(&s) : spell_characters(&s);
    if (status == MR_OK)
        status = add_pending_unknown(&s);
    return status == MR_OK ? flush_word(&s) : status;
}
