/* tokenizer_private.h - what the tokenizer's files share. Nobody else includes it.
 *
 * The way of a text (the order is the library's, and so is every odd corner of it):
 *
 *     text --added tokens--> segments --normaliser--> --normalised added tokens--> segments
 *          --pre-tokeniser steps--> pieces --BPE--> ids --post-processor--> ids
 *
 * Everything runs depth first: a piece goes through all later steps before the next one is cut, so
 * that no list of pieces is ever built and the ids come out in order.
 *
 *   tokenizer.c              public functions; one encode from text to ids
 *   tokenizer_load.c         tokenizer.json: the frame, vocabulary, merges, added tokens
 *   tokenizer_load_steps.c   tokenizer.json: normaliser, pre-tokeniser, post-processor, decoder
 *   tokenizer_words.c        tables made from vocabulary and merges for the way of a text
 *   tokenizer_table.c        hash tables: string -> id, pair of ids -> merge
 *   tokenizer_unicode.c      character classes
 *   tokenizer_added.c        finding added tokens in a text
 *   tokenizer_normalize.c    normaliser steps
 *   tokenizer_nfc.c          composition, in linear time
 *   tokenizer_pretokenize.c  pre-tokeniser steps
 *   tokenizer_pattern.c      patterns: literal text, PCRE2, built-in scanners
 *   tokenizer_regex.c        Oniguruma's regex syntax (what tokenizer.json is written in) to
 * PCRE2's tokenizer_scan.c         the GPT-2, Qwen2 and Llama-3 regexes, by hand tokenizer_bpe.c
 * words to ids tokenizer_merge.c        the merge loop tokenizer_decode.c       ids to text
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_TOKENIZER_PRIVATE_H
#define MR_ENGINE_TOKENIZER_PRIVATE_H

#include <stdatomic.h>

#include "core/arena.h"
#include "core/json.h"
#include "core/strbuf.h"
#include "engine/tokenizer.h"

/* Bounds on what a file can ask for. Real files stay an order of magnitude below each. */
#define MR_TOK_MAX_IDS    (1 << 22)
#define MR_TOK_MAX_MERGES (1 << 22)
#define MR_TOK_MAX_ADDED  (1 << 18)
#define MR_TOK_MAX_SPLICE 256 /* bytes of an added token, a literal pattern or a replacement */
#define MR_TOK_MAX_STEPS  16  /* of each of normaliser, pre-tokeniser, decoder */
#define MR_TOK_MAX_TEXT   ((size_t)1 << 30)

/* ---- Characters (tokenizer_unicode.c) ---- */

enum {
    MR_CLASS_LETTER = 1,   /* \p{L} */
    MR_CLASS_NUMBER = 2,   /* \p{N} */
    MR_CLASS_SPACE = 4,    /* White_Space, which is \s */
    MR_CLASS_WORD = 8,     /* \w of the regex crate: what single_word looks at */
    MR_CLASS_NUMERIC = 16, /* numeric for Digits and yet not NUMBER */
    MR_CLASS_COMPOSES = 32 /* NFC may change it or something before it */
};

/* Two stages: 256 code points a block, equal blocks shared. */
typedef struct {
    uint8_t ascii[128]; /* a copy of the first half of block 0, next to nothing else */
    uint16_t block[0x110000 >> 8];
    uint8_t (*blocks)[256];
} mr_tok_classes;

/* with_nfc also fills MR_CLASS_COMPOSES. */
mr_status mr_tok_classes_init(mr_tok_classes *classes, mr_arena *arena, bool with_nfc,
                              mr_error *err);

static inline uint8_t mr_tok_class(const mr_tok_classes *classes, uint32_t code_point)
{
    return classes->blocks[classes->block[code_point >> 8]][code_point & 0xFF];
}

/* The length in bytes of the character that begins with this byte of valid UTF-8. */
static inline size_t mr_tok_char_size(unsigned char lead)
{
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* The code point at p, which is valid UTF-8 (checked once, on entry). */
static inline uint32_t mr_tok_code_point(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    if (u[0] < 0x80)
        return u[0];
    if (u[0] < 0xE0)
        return (u[0] & 0x1Fu) << 6 | (u[1] & 0x3Fu);
    if (u[0] < 0xF0)
        return (u[0] & 0x0Fu) << 12 | (u[1] & 0x3Fu) << 6 | (u[2] & 0x3Fu);
    return (u[0] & 0x07u) << 18 | (u[1] & 0x3Fu) << 12 | (u[2] & 0x3Fu) << 6 | (u[3] & 0x3Fu);
}

/* Class of the character at p, whose length goes to *size. */
static inline uint8_t mr_tok_class_at(const mr_tok_classes *classes, const char *p, size_t *size)
{
    unsigned char lead = (unsigned char)*p;
    if (lead < 0x80) {
        *size = 1;
        return classes->ascii[lead];
    }
    *size = mr_tok_char_size(lead);
    return mr_tok_class(classes, mr_tok_code_point(p));
}

/* ---- Tables (tokenizer_table.c) ---- */

/* A run of bytes in a blob; MR_TOK_NO_SPAN in offset: there is none. */
typedef struct {
    uint32_t offset, len;
} mr_tok_span;
#define MR_TOK_NO_SPAN UINT32_MAX

/* Strings by id, and ids by string. Open addressing; a slot holds 32 bits of the hash and id + 1.
 */
typedef struct {
    const char *bytes;        /* borrowed */
    const mr_tok_span *spans; /* borrowed; by id */
    uint64_t *slots;
    uint32_t mask;
    uint64_t seed;
} mr_tok_strings;

/* Indexes the n_ids spans that are there. CORRUPT: two ids have the same string, or the strings
 * were made to collide. */
mr_status mr_tok_strings_init(mr_tok_strings *table, mr_arena *arena, const char *bytes,
                              const mr_tok_span *spans, int32_t n_ids, const char *name,
                              mr_error *err);
/* -1: not there. */
int32_t mr_tok_strings_find(const mr_tok_strings *table, const char *text, size_t len);

typedef struct {
    uint64_t pair; /* left << 32 | right; MR_TOK_NO_PAIR: free */
    uint32_t rank; /* the smaller, the earlier */
    int32_t id;    /* what the two become */
} mr_tok_merge;
#define MR_TOK_NO_PAIR UINT64_MAX
#define MR_TOK_NO_RANK UINT32_MAX

typedef struct {
    mr_tok_merge *slots;
    uint32_t mask;
    uint64_t seed;
} mr_tok_merges;

/* Of merges with the same pair the last one counts. list[i].rank is i. */
mr_status mr_tok_merges_init(mr_tok_merges *table, mr_arena *arena, const mr_tok_merge *list,
                             size_t n, const char *name, mr_error *err);

static inline uint64_t mr_tok_mix(uint64_t value, uint64_t seed)
{
    value = (value ^ seed) * UINT64_C(0x9E3779B97F4A7C15);
    value ^= value >> 32;
    value *= UINT64_C(0xD6E8FEB86659FD93);
    return value ^ value >> 32;
}

static inline uint64_t mr_tok_pair(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* NULL: the two do not merge. */
static inline const mr_tok_merge *mr_tok_merges_find(const mr_tok_merges *table, uint64_t pair)
{
    for (uint32_t at = (uint32_t)mr_tok_mix(pair, table->seed) & table->mask;;
         at = (at + 1) & table->mask) {
        const mr_tok_merge *slot = &table->slots[at];
        if (slot->pair == pair)
            return slot;
        if (slot->pair == MR_TOK_NO_PAIR)
            return NULL;
    }
}

/* ---- Patterns (tokenizer_pattern.c, tokenizer_regex.c, tokenizer_scan.c) ---- */

typedef enum { MR_SCAN_GPT2, MR_SCAN_QWEN2, MR_SCAN_LLAMA3 } mr_tok_scan_kind;

typedef struct {
    enum { MR_PATTERN_LITERAL, MR_PATTERN_REGEX, MR_PATTERN_SCAN } kind;
    mr_str literal; /* also the source of a regex, for messages */
    mr_tok_scan_kind scan;
    void *code; /* pcre2_code; owned */
} mr_tok_pattern;

#define MR_TOK_GPT2_REGEX \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define MR_TOK_QWEN2_REGEX                                                                   \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]" \
    "+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define MR_TOK_LLAMA3_REGEX                                                                    \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{" \
    "N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

mr_status mr_tok_pattern_literal(mr_tok_pattern *out, const char *where, mr_str text,
                                 mr_error *err);
/* builtin: the three known regexes run by hand; false keeps them on PCRE2 (the oracle in tests). */
mr_status mr_tok_pattern_regex(mr_tok_pattern *out, const char *where, mr_str regex, bool builtin,
                               mr_error *err);
bool mr_tok_pattern_matches_empty(const mr_tok_pattern *pattern); /* or may do so */
void mr_tok_pattern_done(mr_tok_pattern *pattern);

/* Appends PCRE2's spelling of an Oniguruma pattern. UNSUPPORTED names what has no equal there. */
mr_status mr_tok_regex_translate(mr_strbuf *out, const char *where, mr_str regex, mr_error *err);

/* The end of the piece that begins at text[at], at < len; these patterns match everywhere. */
size_t mr_tok_scan(mr_tok_scan_kind kind, const mr_tok_classes *classes, const char *text,
                   size_t len, size_t at);

/* What PCRE2 needs for one call at a time; made when first needed, owned by a run. */
typedef struct {
    void *data;    /* pcre2_match_data */
    void *context; /* pcre2_match_context */
} mr_tok_matcher;
void mr_tok_matcher_done(mr_tok_matcher *matcher);

/* An iteration over the matches in a text. */
typedef struct {
    const mr_tok_pattern *pattern;
    const mr_tok_classes *classes;
    mr_tok_matcher *matcher;
    mr_str text;
    size_t at;       /* where the search goes on */
    size_t last_end; /* end of the match before, SIZE_MAX at the start */
    size_t spent;    /* bytes read in wide windows: see tokenizer_pattern.c */
} mr_tok_search;

/* *found false at the end. */
mr_status mr_tok_search_next(mr_tok_search *search, bool *found, size_t *start, size_t *end,
                             mr_error *err);

/* ---- Steps ---- */

typedef struct {
    enum {
        MR_NORMALIZE_NFC,
        MR_NORMALIZE_LOWERCASE,
        MR_NORMALIZE_PREPEND,
        MR_NORMALIZE_REPLACE
    } kind;
    mr_str text; /* what is put in */
    mr_tok_pattern pattern;
} mr_tok_normalizer;

typedef enum {
    MR_SPLIT_REMOVED,
    MR_SPLIT_ISOLATED,
    MR_SPLIT_MERGED_WITH_PREVIOUS,
    MR_SPLIT_MERGED_WITH_NEXT,
    MR_SPLIT_CONTIGUOUS,
} mr_tok_behavior;

typedef enum { MR_PREPEND_NEVER, MR_PREPEND_FIRST, MR_PREPEND_ALWAYS } mr_tok_prepend;

typedef struct {
    enum { MR_PRETOK_SPLIT, MR_PRETOK_DIGITS, MR_PRETOK_METASPACE, MR_PRETOK_BYTE_LEVEL } kind;
    mr_tok_pattern pattern;   /* SPLIT; BYTE_LEVEL with its regex; METASPACE: its replacement */
    mr_tok_behavior behavior; /* SPLIT, DIGITS */
    bool invert;              /* SPLIT */
    bool splits;              /* BYTE_LEVEL, METASPACE: uses the pattern */
    bool prefix_space;        /* BYTE_LEVEL */
    mr_tok_prepend prepend;   /* METASPACE */
} mr_tok_pretokenizer;

typedef struct {
    enum {
        MR_DECODE_BYTE_LEVEL,
        MR_DECODE_METASPACE,
        MR_DECODE_REPLACE,
        MR_DECODE_BYTE_FALLBACK,
        MR_DECODE_FUSE,
        MR_DECODE_STRIP
    } kind;
    mr_str text;            /* REPLACE: what is put in; METASPACE, STRIP: the character */
    mr_tok_pattern pattern; /* REPLACE */
    mr_tok_prepend prepend; /* METASPACE */
    size_t start, stop;     /* STRIP: at most so many at each end */
} mr_tok_decoder;

/* ---- Added tokens (tokenizer_added.c) ---- */

typedef struct {
    int32_t id;
    mr_str content;    /* as the file spells it */
    mr_str normalized; /* what is searched for and what decodes; content unless normalised */
    bool special, single_word, lstrip, rstrip, is_normalized;
    bool skipped; /* left out by skip_special: what it decodes to spells a special token */
} mr_tok_added;

/* Tokens that are searched for in one pass, sorted by what is searched for. */
typedef struct {
    const mr_tok_added **sorted;
    uint32_t n;
    uint32_t first[257]; /* sorted[first[b]..first[b + 1]) begin with byte b */
} mr_tok_added_set;

/* The added token with this content, or NULL. */
const mr_tok_added *mr_tok_added_find(const mr_tokenizer *tok, mr_str content);

/* CORRUPT when two tokens are searched for with the same text. */
mr_status mr_tok_added_set_init(mr_tok_added_set *set, mr_arena *arena, const mr_tok_added *added,
                                size_t n, bool normalized, const char *name, mr_error *err);

/* Calls piece(context, start, end, token or NULL) for the parts of the text in order. */
typedef mr_status (*mr_tok_added_piece)(void *context, size_t start, size_t end,
                                        const mr_tok_added *token);
mr_status mr_tok_added_split(const mr_tok_added_set *set, const mr_tok_classes *classes,
                             mr_str text, mr_tok_added_piece piece, void *context);

/* ---- The tokenizer ---- */

enum { MR_WORD_UNKNOWN, MR_WORD_WHOLE, MR_WORD_PARTS }; /* see mr_tokenizer.whole */

struct mr_tokenizer {
    mr_arena arena; /* everything that is not said to be owned elsewhere */
    char *name;     /* for messages */
    mr_tok_classes classes;

    /* Model. Ids are dense enough to index arrays; an id without a token has no span. */
    int32_t n_ids;
    char *bytes; /* all strings, each terminated; file order */
    mr_tok_span *spelled;
    mr_tok_strings vocabulary; /* the model's tokens, as spelled */
    mr_tok_merges merges;
    size_t n_merges;
    bool byte_level; /* pieces are bytes; tokens are spelled in the byte alphabet */
    bool byte_fallback, fuse_unk, ignore_merges;
    const char *unk_token; /* NULL: unknown characters vanish */
    int32_t unk_id;        /* -1: there is none */
    int32_t fallback[256]; /* "<0x00>".. ; -1: not in the vocabulary */

    /* Words are looked up as pieces hold them: as bytes in byte-level models. */
    char *word_bytes;
    mr_tok_span *word_spans;
    mr_tok_strings words;
    size_t longest_word;
    /* Whether BPE of a token's own text gives that token: MR_WORD_*. Found out when first asked,
     * by any thread; all threads find the same. */
    _Atomic unsigned char *whole;
    int32_t byte_ids[256]; /* byte_level: the token of one byte */
    int32_t *bmp_ids;      /* otherwise: tokens of one character below U+10000 */
    /* Bit set: some merge can join two symbols that meet as this pair of characters. NULL: unknown.
     * A clear bit is a place where a long word may be cut without changing the ids. */
    uint64_t *meets;
    uint32_t meets_mask;

    mr_tok_normalizer normalizers[MR_TOK_MAX_STEPS];
    size_t n_normalizers;
    mr_tok_pretokenizer pretokenizers[MR_TOK_MAX_STEPS];
    size_t n_pretokenizers;
    mr_tok_decoder decoders[MR_TOK_MAX_STEPS];
    size_t n_decoders;
    bool has_decoder; /* without one, tokens are joined by spaces */

    mr_tok_added *added; /* in file order */
    size_t n_added;
    const mr_tok_added **added_by_id; /* NULL where the id is not an added token */
    const mr_tok_added **added_by_content;
    mr_tok_added_set plain_set, normalized_set;

    int32_t *prefix, *suffix; /* what the post-processor puts around a text */
    size_t n_prefix, n_suffix;
};

mr_status mr_tok_load(mr_tokenizer *tok, const json_t *root, mr_error *err);
/* From vocabulary and merges: words, whole, byte_ids or bmp_ids, meets. list: all n_merges. */
mr_status mr_tok_make_words(mr_tokenizer *tok, const mr_tok_merge *list, mr_error *err);
/* The parts of the file that are pipelines of steps. value NULL or JSON null: none. */
mr_status mr_tok_load_normalizer(mr_tokenizer *tok, const json_t *value, mr_error *err);
mr_status mr_tok_load_pretokenizer(mr_tokenizer *tok, const json_t *value, mr_error *err);
mr_status mr_tok_load_decoder(mr_tokenizer *tok, const json_t *value, mr_error *err);
mr_status mr_tok_load_post_processor(mr_tokenizer *tok, const json_t *value, mr_error *err);

/* Reading one object of the file: every key must be known, and a failure names where it is. */
mr_status mr_tok_only_keys(mr_json_cursor *cur, const char *const *known);
/* A string with its length (it may hold NUL), copied to the arena. */
mr_str mr_tok_json_text(mr_tokenizer *tok, mr_json_cursor *cur, const char *key, size_t max_bytes);

/* ---- One call ---- */

/* A word while it is merged. */
typedef struct {
    int32_t *leaves; /* ids of characters */
    size_t n_leaves, capacity;
    int32_t *links; /* scratch of long words */
    size_t links_capacity;
    uint64_t *heap;
    size_t heap_capacity;
} mr_tok_word;

typedef struct {
    const mr_tokenizer *tok;
    mr_ids *ids;
    size_t enough;           /* words that begin with so many ids in the list are left out */
    mr_tokenizer_word visit; /* gets the words instead of BPE; NULL: none does */
    void *visit_context;
    mr_error *err;
    bool parse_added;
    mr_tok_matcher matcher;
    mr_strbuf normal[2];                   /* normaliser output, in turns */
    mr_strbuf step_text[MR_TOK_MAX_STEPS]; /* pieces that a pre-tokeniser step rewrote */
    uint32_t *code_points;                 /* of NFC */
    size_t code_points_capacity;
    mr_tok_word word;
} mr_tok_run;

mr_tok_run mr_tok_run_of(const mr_tokenizer *tok, mr_ids *ids, mr_error *err);
void mr_tok_run_done(mr_tok_run *run);

/* *out is text itself or lies in run->normal. */
mr_status mr_tok_normalize(mr_tok_run *run, mr_str text, mr_str *out);
/* Appends the NFC of text; does nothing and says false in *changed when text is NFC already. */
mr_status mr_tok_nfc(mr_tok_run *run, mr_str text, mr_strbuf *out, bool *changed);
/* The same with lower case. text is valid UTF-8. */
void mr_tok_lowercase(mr_str text, mr_strbuf *out, bool *changed);
/* Appends the ids of a segment; at_start: it begins where the whole text does. */
mr_status mr_tok_pretokenize(mr_tok_run *run, mr_str text, bool at_start);
mr_status mr_tok_bpe(mr_tok_run *run, mr_str piece);
/* Merges run->word.leaves and appends the result. */
mr_status mr_tok_merge_word(mr_tok_run *run);

/* The character that stands for a byte in byte-level vocabularies, and back (-1: none does). */
uint32_t mr_tok_byte_char(unsigned char byte);
int mr_tok_char_byte(uint32_t code_point);

static inline mr_status mr_tok_push(mr_tok_run *run, int32_t id)
{
    mr_ids *ids = run->ids;
    if (ids->n < ids->capacity) {
        ids->data[ids->n++] = id;
        return MR_OK;
    }
    return mr_ids_append(ids, &id, 1, run->err);
}

/* Out of memory, in the words of this module. */
#define MR_TOK_NO_MEMORY(tok, err, bytes) \
    MR_FAIL(err, NO_MEMORY, "%s: %zu bytes of tokenizer memory", (tok)->name, (size_t)(bytes))

#endif
