/* bpe.c - the public functions, and the way from texts to counted words. See bpe.h.
 *
 * Words are cut by the engine's tokenizer, opened from the very file that mr_bpe_write would write
 * if nothing were learnt. So there is no second pre-tokeniser that could disagree with the first.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/bpe.h"

#include <stdlib.h>

#include "core/utf8.h"
#include "engine/tokenizer.h"
#include "ranker/training/bpe_private.h"

#define MAX_SPECIAL_BYTES 255

/* ---- Options ---- */

static mr_status check_options(const mr_bpe_options *options, mr_error *err)
{
    if (options->words != MR_BPE_GPT2 && options->words != MR_BPE_QWEN2)
        return MR_FAIL(err, INVALID, "BPE training: words %d, expected GPT-2's or Qwen2's",
                       (int)options->words);
    if (options->n_special > MR_BPE_MAX_SPECIAL)
        return MR_FAIL(err, INVALID, "BPE training: %zu special tokens, expected at most %d",
                       options->n_special, MR_BPE_MAX_SPECIAL);
    const int32_t least = MR_BPE_BYTES + (int32_t)options->n_special;
    if (options->vocab_size < least || options->vocab_size > MR_BPE_MAX_VOCAB)
        return MR_FAIL(err, INVALID,
                       "BPE training: a vocabulary of %d, expected from %d (the %d bytes and %zu "
                       "special tokens) to %d",
                       (int)options->vocab_size, (int)least, MR_BPE_BYTES, options->n_special,
                       MR_BPE_MAX_VOCAB);
    return MR_OK;
}

static mr_status add_special(mr_bpe *bpe, const mr_bpe_options *options, mr_error *err)
{
    bpe->n_special = bpe->end_of_text = (uint32_t)options->n_special;
    for (uint32_t i = 0; i < bpe->n_special; i++) {
        const mr_str text = mr_str_of(options->special[i]);
        uint32_t id = 0;
        if (text.len == 0 || text.len > MAX_SPECIAL_BYTES ||
            mr_utf8_valid_prefix(text.data, text.len) != text.len)
            return MR_FAIL(err, INVALID,
                           "BPE training: special token %u ('%.*s') has %zu bytes, expected 1 to "
                           "%d bytes of UTF-8",
                           (unsigned)i, MR_STR_ARG(text), text.len, MAX_SPECIAL_BYTES);
        mr_status status = mr_bpe_strings_add(&bpe->tokens, text, &id, err);
        if (status != MR_OK)
            return status;
        if (id != i)
            return MR_FAIL(err, INVALID, "BPE training: the special token '%.*s' is listed twice",
                           MR_STR_ARG(text));
        if (options->end_of_text && mr_str_equal(text, mr_str_of(options->end_of_text)))
            bpe->end_of_text = i;
    }
    if (options->end_of_text && bpe->end_of_text == bpe->n_special)
        return MR_FAIL(err, INVALID,
                       "BPE training: end_of_text '%.200s' is not one of the special tokens",
                       options->end_of_text);
    return MR_OK;
}

/* The bytes, ordered by the characters that stand for them. */
static mr_status add_bytes(mr_bpe *bpe, mr_error *err)
{
    int order[MR_BPE_BYTES];
    for (int b = 0; b < MR_BPE_BYTES; b++) {
        const uint32_t character = mr_tokenizer_byte_char((unsigned char)b);
        int at = b;
        for (; at > 0 && mr_tokenizer_byte_char((unsigned char)order[at - 1]) > character; at--)
            order[at] = order[at - 1];
        order[at] = b;
    }
    for (int i = 0; i < MR_BPE_BYTES; i++) {
        char text[4];
        const size_t len = mr_utf8_encode(mr_tokenizer_byte_char((unsigned char)order[i]), text);
        uint32_t *id = &bpe->byte_token[order[i]];
        mr_status status = mr_bpe_strings_add(&bpe->tokens, (mr_str){text, len}, id, err);
        if (status != MR_OK)
            return status;
        if (*id < bpe->n_special)
            return MR_FAIL(err, INVALID,
                           "BPE training: the special token '%.*s' is also how the vocabulary "
                           "spells the byte 0x%02X; choose a longer one, like <|end|>",
                           (int)len, text, (unsigned)order[i]);
    }
    return MR_OK;
}

/* ---- Counting ---- */

typedef struct {
    mr_bpe_strings words;
    uint64_t *counts;
    size_t capacity;
    mr_bpe_figures *figures;
} counting;

static mr_status count_word(void *context, mr_str word, mr_error *err)
{
    counting *c = context;
    if (word.len > MR_BPE_MAX_WORD) {
        c->figures->left_out++;
        return MR_OK;
    }
    const uint32_t known = c->words.n;
    uint32_t number = 0;
    mr_status status = mr_bpe_strings_add(&c->words, word, &number, err);
    if (status == MR_OK && number == known) {
        void *counts = c->counts;
        status = mr_bpe_reserve(&counts, &c->capacity, c->words.n, sizeof *c->counts, err);
        c->counts = counts;
        if (status == MR_OK)
            c->counts[number] = 0;
    }
    if (status != MR_OK)
        return status;
    c->counts[number]++;
    c->figures->words++;
    return MR_OK;
}

static mr_status count_texts(counting *c, const mr_tokenizer *tok, mr_bpe_next next, void *context,
                             mr_error *err)
{
    for (;;) {
        mr_str text = {0};
        mr_status status = next(context, &text, err);
        if (status != MR_OK || !text.data)
            return status;
        c->figures->texts++;
        c->figures->bytes += text.len;
        status = mr_tokenizer_words(tok, text, count_word, c, err);
        if (status != MR_OK)
            return mr_error_prefix(err, status, "text %llu", (unsigned long long)c->figures->texts);
    }
}

/* The tokenizer that the options describe before anything is learnt. */
static mr_status open_unlearnt(mr_tokenizer **out, const mr_bpe *bpe, mr_error *err)
{
    mr_strbuf json = {0};
    mr_bpe_print(bpe, &json);
    mr_status status =
        json.failed ? MR_FAIL(err, NO_MEMORY, "BPE training: %zu bytes of JSON", json.len)
                    : mr_tokenizer_parse(out, "BPE training", (mr_str){json.data, json.len}, err);
    mr_strbuf_release(&json);
    return status;
}

/* ---- Public functions ---- */

mr_status mr_bpe_train(mr_bpe **out, const mr_bpe_options *options, mr_bpe_next next, void *context,
                       mr_error *err)
{
    mr_status status = check_options(options, err);
    if (status != MR_OK)
        return status;
    mr_bpe *bpe = calloc(1, sizeof *bpe);
    if (!bpe)
        return MR_FAIL(err, NO_MEMORY, "BPE training: %zu bytes", sizeof *bpe);
    mr_tokenizer *tok = NULL;
    counting c = {.figures = &bpe->figures};
    bpe->style = options->words;
    bpe->lowercase = options->lowercase;
    status = add_special(bpe, options, err);
    if (status == MR_OK)
        status = add_bytes(bpe, err);
    if (status == MR_OK)
        status = open_unlearnt(&tok, bpe, err);
    if (status == MR_OK)
        status = count_texts(&c, tok, next, context, err);
    if (status == MR_OK && c.words.n == 0)
        status = MR_FAIL(err, INVALID,
                         "BPE training: no words to learn from in %llu texts (%llu words over %d "
                         "bytes were left out)",
                         (unsigned long long)bpe->figures.texts,
                         (unsigned long long)bpe->figures.left_out, MR_BPE_MAX_WORD);
    bpe->figures.distinct_words = c.words.n;
    if (status == MR_OK)
        status =
            mr_bpe_merge(bpe, &c.words, c.counts, options->vocab_size, options->min_frequency, err);
    bpe->figures.vocab_size = (int32_t)bpe->tokens.n;
    mr_bpe_strings_release(&c.words);
    free(c.counts);
    mr_tokenizer_close(tok);
    if (status != MR_OK) {
        mr_bpe_free(bpe);
        return status;
    }
    *out = bpe;
    return MR_OK;
}

void mr_bpe_free(mr_bpe *bpe)
{
    if (!bpe)
        return;
    mr_bpe_strings_release(&bpe->tokens);
    free(bpe->merges);
    free(bpe);
}

const mr_bpe_figures *mr_bpe_figures_of(const mr_bpe *bpe)
{
    return &bpe->figures;
}
