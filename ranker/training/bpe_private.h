/* bpe_private.h - what the files of BPE training share. Nobody else includes it.
 *
 *   bpe.c         public functions; from texts to counted words
 *   bpe_merge.c   from counted words to merges
 *   bpe_table.c   strings with numbers
 *   bpe_write.c   tokenizer.json and tokenizer_config.json
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_BPE_PRIVATE_H
#define MR_RANKER_TRAINING_BPE_PRIVATE_H

#include "core/strbuf.h"
#include "ranker/training/bpe.h"

#define MR_BPE_BYTES 256

/* Distinct strings, numbered in the order in which they came. Zero-initialised is empty. */
typedef struct {
    char *bytes; /* all strings, one after the other */
    size_t n_bytes, bytes_capacity;
    uint32_t *ends; /* [n] */
    uint32_t n, capacity;
    uint64_t *slots; /* 32 bits of the hash, and the number + 1; 0: free */
    size_t n_slots;  /* a power of two, at least twice n */
    unsigned seed;
} mr_bpe_strings;

/* *number: of the string, which is added (and is then n - 1) if it was not there. */
mr_status mr_bpe_strings_add(mr_bpe_strings *strings, mr_str text, uint32_t *number, mr_error *err);
void mr_bpe_strings_release(mr_bpe_strings *strings);

static inline mr_str mr_bpe_strings_at(const mr_bpe_strings *strings, uint32_t number)
{
    const uint32_t start = number ? strings->ends[number - 1] : 0;
    return (mr_str){strings->bytes + start, strings->ends[number] - start};
}

/* Grows *data to hold n elements of `size`, by doubling. */
mr_status mr_bpe_reserve(void **data, size_t *capacity, size_t n, size_t size, mr_error *err);

typedef struct {
    uint32_t left, right; /* tokens */
} mr_bpe_pair;

struct mr_bpe {
    mr_bpe_words style;
    bool lowercase;
    mr_bpe_strings tokens; /* by id; bytes spelled in the byte alphabet, as in the file */
    uint32_t n_special;
    uint32_t end_of_text; /* n_special: there is none */
    uint32_t byte_token[MR_BPE_BYTES];
    mr_bpe_pair *merges; /* in order */
    mr_bpe_figures figures;
};

/* Fills merges and adds their tokens. words: distinct, as bytes; counts by their number. */
mr_status mr_bpe_merge(mr_bpe *bpe, const mr_bpe_strings *words, const uint64_t *counts,
                       int32_t vocab_size, uint64_t min_frequency, mr_error *err);

/* Appends the tokenizer.json. */
void mr_bpe_print(const mr_bpe *bpe, mr_strbuf *out);

#endif
