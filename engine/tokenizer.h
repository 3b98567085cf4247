/* tokenizer.h - Hugging Face tokenizer.json: text to ids and back, equal to `tokenizers`.
 *
 *     mr_tokenizer *tok = NULL;
 *     mr_tokenizer_open(&tok, "model/tokenizer.json", &err);
 *     mr_ids ids = {0};
 *     mr_tokenizer_encode(tok, mr_str_of(text), MR_TOKENIZE_PLAIN, &ids, &err);   appends
 *     mr_ids_release(&ids);
 *
 * Covers the BPE family: byte-level (GPT-2, Qwen2/3, Llama-3, SmolLM2) and SentencePiece-style with
 * byte fallback (Llama-2, TinyLlama, Vicuna); normalisers NFC, Lowercase, Prepend, Replace,
 * Sequence; pre-tokenisers Split (regex), ByteLevel, Digits, Metaspace, Sequence; added tokens with
 * lstrip, rstrip, single_word, normalized; TemplateProcessing and ByteLevel post-processors;
 * ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip, Sequence decoders. Anything else in the
 * file is UNSUPPORTED by name, never silently skipped; so are truncation and fixed padding.
 *
 * Equal means equal to tokenizers 0.23 on every text, with one exception: regexes other than those
 * of GPT-2, Qwen2 and Llama-3 take their \p{..} classes from PCRE2, whose Unicode may be older, so
 * that a character of the last few years may be cut off differently.
 *
 * Cost is O(n log n) in the text, whatever the text; memory is O(n), about 30 bytes per byte of a
 * single word in the worst case. A text is at most 1 GiB. A regex that runs away on a text is
 * EXHAUSTED, not a hang.
 * Threads: read-only after open; encode and decode may run on many threads at once.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_TOKENIZER_H
#define MR_ENGINE_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/error.h"

typedef struct mr_tokenizer mr_tokenizer;

/* A growing list of ids. data is owned by the list. */
typedef struct {
    int32_t *data;
    size_t n;
    size_t capacity;
} mr_ids;
void mr_ids_release(mr_ids *ids);
MR_NODISCARD mr_status mr_ids_append(mr_ids *ids, const int32_t *values, size_t n, mr_error *err);

/* May be joined with |. */
typedef enum {
    MR_TOKENIZE_PLAIN = 0,         /* added and special tokens in the text are ordinary text */
    MR_TOKENIZE_PARSE_SPECIAL = 1, /* they become their ids, as `tokenizers` does by default */
    MR_TOKENIZE_ADD_SPECIAL = 2,   /* run the post-processor (BOS and the like) */
} mr_tokenize_flags;

/* path: a tokenizer.json or a folder that holds one. */
MR_NODISCARD mr_status mr_tokenizer_open(mr_tokenizer **out, const char *path, mr_error *err);
/* The same from memory (copied). name is for messages. */
MR_NODISCARD mr_status mr_tokenizer_parse(mr_tokenizer **out, const char *name, mr_str json,
                                          mr_error *err);
void mr_tokenizer_close(mr_tokenizer *tok); /* NULL is fine */

/* Appends to ids. Invalid UTF-8 is INVALID and names the byte offset; ids are then unchanged. */
MR_NODISCARD mr_status mr_tokenizer_encode(const mr_tokenizer *tok, mr_str text, int flags,
                                           mr_ids *ids, mr_error *err);
/* The same for a caller who keeps at most `most` ids: the first `most` are those of encode, and
 * words after them are left out. Cutting the text instead would not be the same: what follows may
 * change the last word. */
MR_NODISCARD mr_status mr_tokenizer_encode_first(const mr_tokenizer *tok, mr_str text, int flags,
                                                 size_t most, mr_ids *ids, mr_error *err);

/* The words of a text, in order: what the pre-tokeniser cuts it into and BPE then merges on its
 * own. Added tokens in the text are ordinary text. A vocabulary that is trained on these words sees
 * what encode will see. word is borrowed for the call; a failure of visit ends the walk and is
 * returned. */
typedef mr_status (*mr_tokenizer_word)(void *context, mr_str word, mr_error *err);
MR_NODISCARD mr_status mr_tokenizer_words(const mr_tokenizer *tok, mr_str text,
                                          mr_tokenizer_word visit, void *context, mr_error *err);
/* The character that stands for a byte in byte-level vocabularies. */
uint32_t mr_tokenizer_byte_char(unsigned char byte);

/* Decodes ids to text that the caller frees, terminated; *len for texts with NUL. skip_special
 * leaves out special tokens. Bytes that do not form UTF-8 become U+FFFD, as the library does. An id
 * outside the vocabulary is INVALID. */
MR_NODISCARD mr_status mr_tokenizer_decode(const mr_tokenizer *tok, const int32_t *ids, size_t n,
                                           bool skip_special, char **text, size_t *len,
                                           mr_error *err);

/* One more than the largest id. */
int32_t mr_tokenizer_vocab_size(const mr_tokenizer *tok);
/* -1 when there is no such token. Looks at added tokens first, then at the model's vocabulary as it
 * spells it ("\u0120yes" for " yes" in byte-level BPE). */
int32_t mr_tokenizer_token_id(const mr_tokenizer *tok, const char *token);
/* As the vocabulary spells it; NULL when there is none. Borrowed. */
const char *mr_tokenizer_token(const mr_tokenizer *tok, int32_t id);

#endif
