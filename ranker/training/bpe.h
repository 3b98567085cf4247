/* bpe.h - learning a byte-level BPE vocabulary from texts, and writing it as a tokenizer.json.
 *
 *     mr_bpe_options options = {.vocab_size = 4096, .min_frequency = 2,
 *                               .special = special, .n_special = 3,
 *                               .end_of_text = "<|endoftext|>"};
 *     mr_bpe *bpe = NULL;
 *     mr_bpe_train(&bpe, &options, next_text, &reader, &err);
 *     mr_bpe_write(bpe, "llm", &err);                 llm/tokenizer.json, llm/tokenizer_config.json
 *     mr_bpe_free(bpe);
 *
 * Byte pair encoding (Sennrich et al. 2016) over the 256 bytes (GPT-2): texts are cut into words by
 * the engine's own tokenizer, so training sees the words that encoding will see; then the pair of
 * neighbours that is most frequent becomes a token, again and again.
 *
 * The result is that of Hugging Face `tokenizers` 0.23 (BpeTrainer with the byte-level alphabet, no
 * limit on the length of a token), to the last byte of its pretty-printed file:
 *   - ids: the special tokens in the order given, from 0; then the 256 bytes, ordered by the
 *     character that stands for each ("!" first); then a token for each merge, in order of merging;
 *   - of pairs that are equally frequent the one with the smaller left id is merged first, then the
 *     one with the smaller right id. Nothing depends on the order of texts;
 *   - added_tokens lists the special tokens, special and not normalised. In the texts themselves
 *     they are ordinary text, as all else.
 * It refuses more, for safety: words over MR_BPE_MAX_WORD bytes are not learnt from, and a special
 * token that merging would make is an error, because a text could then spell it.
 *
 * Cost: counting takes time linear in the texts and no memory beyond their *distinct* words.
 * Learning takes about 40 bytes for each byte of those, and time O(n log n) in them whatever the
 * vocabulary's size, since a merge visits only the words that hold its pair: 18 MB of English (4.7
 * million tokens) to 4,096 in about a second. Texts made to be slow cost at most MR_BPE_MAX_WORD
 * steps a byte. Threads: one call, one thread; a trained mr_bpe is read-only.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_BPE_H
#define MR_RANKER_TRAINING_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/error.h"

#define MR_BPE_MAX_VOCAB   (1 << 20)
#define MR_BPE_MAX_SPECIAL (1 << 16)
#define MR_BPE_MAX_WORD    1024 /* bytes; a longer word is no word of any language */

/* Where words end. */
typedef enum {
    MR_BPE_GPT2,  /* numbers whole: GPT-2's expression, as the ByteLevel pre-tokeniser has it */
    MR_BPE_QWEN2, /* digits one by one, line ends with what is before them: that of Qwen2 and 3 */
} mr_bpe_words;

typedef struct {
    int32_t vocab_size;     /* special tokens and the 256 bytes included */
    uint64_t min_frequency; /* pairs that occur less often are not merged; 0 is 1 */
    mr_bpe_words words;
    bool lowercase;             /* texts are read in lower case, now and by the tokenizer */
    const char *const *special; /* distinct, UTF-8, 1 to 255 bytes; borrowed during training */
    size_t n_special;
    const char *end_of_text; /* one of special, or NULL: eos_token of tokenizer_config.json */
} mr_bpe_options;

/* Hands out the next text; text->data NULL at the end. The text is borrowed until the next call.
 * A failure ends training and is returned as it is. */
typedef mr_status (*mr_bpe_next)(void *context, mr_str *text, mr_error *err);

typedef struct mr_bpe mr_bpe;

/* INVALID: a vocab_size below the bytes and special tokens or above MR_BPE_MAX_VOCAB, special
 * tokens that are empty, too long, listed twice, not UTF-8 or spelled like a byte or a merge, texts
 * with nothing in them, and a text that is not UTF-8 (which names its number, from 1, and the
 * byte). EXHAUSTED: more than 1 GiB of one text or 2 GiB of distinct words, or words made to
 * collide. Texts with too few pairs for vocab_size are no error: training ends when no pair is left
 * that is frequent enough, and mr_bpe_figures says how large the vocabulary became. */
MR_NODISCARD mr_status mr_bpe_train(mr_bpe **out, const mr_bpe_options *options, mr_bpe_next next,
                                    void *context, mr_error *err);
void mr_bpe_free(mr_bpe *bpe); /* NULL is fine */

typedef struct {
    uint64_t texts, bytes, words; /* read; words count each occurrence */
    uint64_t left_out;            /* words over MR_BPE_MAX_WORD, not in `words` */
    size_t distinct_words;
    size_t merges;
    int32_t vocab_size; /* reached; what a model's embedding needs */
} mr_bpe_figures;
const mr_bpe_figures *mr_bpe_figures_of(const mr_bpe *bpe);

/* Writes tokenizer.json and tokenizer_config.json into a folder that exists, each in one step. What
 * was there is replaced. engine/tokenizer.h, `tokenizers` and `transformers` read them. */
MR_NODISCARD mr_status mr_bpe_write(const mr_bpe *bpe, const char *folder, mr_error *err);

#endif
