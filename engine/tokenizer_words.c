/* tokenizer_words.c - tables, made once from vocabulary and merges, that speed up the way from a
 * piece of text to ids. tokenizer_bpe.c says what each is good for.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "engine/tokenizer_private.h"

static mr_str spelling(const mr_tokenizer *tok, int32_t id)
{
    return (mr_str){tok->bytes + tok->spelled[id].offset, tok->spelled[id].len};
}

static bool in_model(const mr_tokenizer *tok, int32_t id)
{
    return id >= 0 && id < tok->n_ids && tok->spelled[id].offset != MR_TOK_NO_SPAN &&
           mr_tok_strings_find(&tok->vocabulary, tok->bytes + tok->spelled[id].offset,
                               tok->spelled[id].len) == id;
}

/* Tokens as the bytes that they are spelled for. Those with a character outside the byte alphabet
 * can never come out of a piece and have none. */
static mr_status make_byte_words(mr_tokenizer *tok, mr_error *err)
{
    const size_t n = (size_t)tok->n_ids;
    size_t bytes = 0;
    for (size_t id = 0; id < n; id++)
        bytes += tok->spelled[id].offset == MR_TOK_NO_SPAN ? 0 : tok->spelled[id].len;
    tok->word_bytes = mr_arena_alloc(&tok->arena, bytes, 1, 1);
    tok->word_spans = mr_arena_array(&tok->arena, mr_tok_span, n);
    if (!tok->word_bytes || !tok->word_spans)
        return MR_TOK_NO_MEMORY(tok, err, bytes + n * sizeof *tok->word_spans);

    for (int b = 0; b < 256; b++)
        tok->byte_ids[b] = -1;
    uint32_t at = 0;
    for (int32_t id = 0; id < tok->n_ids; id++) {
        tok->word_spans[id].offset = MR_TOK_NO_SPAN;
        if (!in_model(tok, id))
            continue;
        const mr_str text = spelling(tok, id);
        uint32_t len = 0;
        bool whole = text.len > 0;
        for (size_t i = 0; i < text.len && whole;
             i += mr_tok_char_size((unsigned char)text.data[i])) {
            int byte = mr_tok_char_byte(mr_tok_code_point(text.data + i));
            whole = byte >= 0;
            tok->word_bytes[at + len] = (char)byte;
            len += whole;
        }
        if (!whole)
            continue;
        tok->word_spans[id] = (mr_tok_span){at, len};
        if (len == 1)
            tok->byte_ids[(unsigned char)tok->word_bytes[at]] = id;
        if (len > tok->longest_word)
            tok->longest_word = len;
        at += len;
    }
    return mr_tok_strings_init(&tok->words, &tok->arena, tok->word_bytes, tok->word_spans,
                               tok->n_ids, tok->name, err);
}

static mr_status make_text_words(mr_tokenizer *tok, mr_error *err)
{
    tok->words = tok->vocabulary;
    tok->bmp_ids = mr_arena_array(&tok->arena, int32_t, 0x10000);
    if (!tok->bmp_ids)
        return MR_TOK_NO_MEMORY(tok, err, 0x10000 * sizeof *tok->bmp_ids);
    for (size_t c = 0; c < 0x10000; c++)
        tok->bmp_ids[c] = -1;
    for (int32_t id = 0; id < tok->n_ids; id++) {
        if (!in_model(tok, id))
            continue;
        const mr_str text = spelling(tok, id);
        if (text.len > tok->longest_word)
            tok->longest_word = text.len;
        if (text.len && text.len == mr_tok_char_size((unsigned char)text.data[0]) && text.len < 4)
            tok->bmp_ids[mr_tok_code_point(text.data)] = id;
    }
    return MR_OK;
}

/* The id of the first or last character of a token; -1: that character is no token. */
static int32_t edge(const mr_tokenizer *tok, int32_t id, bool last)
{
    const mr_str text = spelling(tok, id);
    size_t at = 0, size = 0;
    for (size_t i = 0; i < text.len && (last || i == 0); i += size) {
        size = mr_tok_char_size((unsigned char)text.data[i]);
        at = i;
    }
    return mr_tok_strings_find(&tok->vocabulary, text.data + at, size);
}

/* See mr_tokenizer.meets. A merge whose halves are byte tokens or the unknown token joins what is
 * not spelled next to each other; no real file has one, and with one there is no cutting. */
static mr_status make_meets(mr_tokenizer *tok, const mr_tok_merge *list, mr_error *err)
{
    uint8_t *special = calloc((size_t)tok->n_ids, 1);
    if (!special)
        return MR_TOK_NO_MEMORY(tok, err, tok->n_ids);
    if (tok->unk_id >= 0)
        special[tok->unk_id] = 1;
    for (int b = 0; b < 256 && tok->byte_fallback; b++) {
        if (tok->fallback[b] >= 0)
            special[tok->fallback[b]] = 1;
    }
    bool cuts = true;
    for (size_t i = 0; i < tok->n_merges && cuts; i++)
        cuts = !special[list[i].pair >> 32] && !special[list[i].pair & UINT32_MAX];
    free(special);
    if (!cuts)
        return MR_OK;

    uint32_t bits = 1u << 13;
    while (bits < 8 * tok->n_merges)
        bits *= 2;
    tok->meets = mr_arena_array(&tok->arena, uint64_t, bits / 64);
    if (!tok->meets)
        return MR_TOK_NO_MEMORY(tok, err, bits / 8);
    tok->meets_mask = bits - 1;
    for (size_t i = 0; i < tok->n_merges; i++) {
        int32_t left = edge(tok, (int32_t)(list[i].pair >> 32), true);
        int32_t right = edge(tok, (int32_t)(list[i].pair & UINT32_MAX), false);
        if (left < 0 || right < 0)
            continue;
        uint32_t bit = (uint32_t)mr_tok_mix(mr_tok_pair(left, right), 0) & tok->meets_mask;
        tok->meets[bit / 64] |= UINT64_C(1) << (bit % 64);
    }
    return MR_OK;
}

mr_status mr_tok_make_words(mr_tokenizer *tok, const mr_tok_merge *list, mr_error *err)
{
    mr_status status = tok->byte_level ? make_byte_words(tok, err) : make_text_words(tok, err);
    return status == MR_OK ? make_meets(tok, list, err) : status;
}
