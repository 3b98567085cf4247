/* tokenizer_scan.c - the regexes of GPT-2, Qwen2 and Llama-3, run by hand.
 *
 * They differ in details of one idea, and nearly every tokenizer.json has one of them. By hand they
 * are several times as fast as compiled by PCRE2, take linear time on anything, and use the
 * character classes of the library (tokenizer_unicode.c). tokenizer_private.h spells them out; each
 * alternative is one numbered step below, tried in the regex's order. Every character begins a
 * match, so pieces follow each other without gaps.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/tokenizer_private.h"

enum { OTHER = 0, LETTER = MR_CLASS_LETTER, NUMBER = MR_CLASS_NUMBER, SPACE = MR_CLASS_SPACE };
#define KINDS (MR_CLASS_LETTER | MR_CLASS_NUMBER | MR_CLASS_SPACE)

typedef struct {
    const mr_tok_classes *classes;
    const char *text;
    size_t len;
} scanner;

static int kind_at(const scanner *s, size_t at, size_t *size)
{
    return mr_tok_class_at(s->classes, s->text + at, size) & KINDS;
}

/* End of the run of one kind that goes on at `at`, of at most max characters. */
static size_t run_end(const scanner *s, size_t at, int kind, size_t max)
{
    size_t size;
    while (at < s->len && max > 0 && kind_at(s, at, &size) == kind) {
        at += size;
        max--;
    }
    return at;
}

/* Length of 's 't 're 've 'm 'll 'd at `at`, where an apostrophe is; 0: none. Ignoring case, the
 * long s (U+017F) is an s too. */
static size_t contraction(const scanner *s, size_t at, bool caseless)
{
    const char *p = s->text + at + 1;
    const size_t left = s->len - at - 1;
    if (left == 0)
        return 0;
    const char fold = caseless ? 0x20 : 0;
    const char first = (char)(p[0] | fold);
    if (first == 's' || first == 't' || first == 'm' || first == 'd')
        return 2;
    if (left < 2)
        return 0;
    const char second = (char)(p[1] | fold);
    if (((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l'))
        return 3;
    return caseless && p[0] == '\xC5' && p[1] == '\xBF' ? 3 : 0;
}

/* \s+(?!\S)|\s+ over the whitespace in [at, end): all of it at the end of the text, else all but
 * its last character, if that leaves any. */
static size_t whitespace(const scanner *s, size_t at, size_t end, size_t last)
{
    return end == s->len || last == at ? end : last;
}

static size_t scan_gpt2(const scanner *s, size_t at)
{
    size_t size, next_size;
    if (s->text[at] == '\'') { /* 1: 's|'t|... */
        size_t len = contraction(s, at, false);
        if (len)
            return at + len;
    }
    int kind = kind_at(s, at, &size);
    if (kind != SPACE) /* 2, 3, 4 without their blank */
        return run_end(s, at + size, kind, SIZE_MAX);
    if (s->text[at] == ' ' && at + 1 < s->len) {
        kind = kind_at(s, at + 1, &next_size);
        if (kind != SPACE) /* 2, 3, 4: ?\p{L}+, ?\p{N}+, ?[^\s\p{L}\p{N}]+ */
            return run_end(s, at + 1 + next_size, kind, SIZE_MAX);
    }
    size_t end = at, last = at; /* 5, 6 */
    while (end < s->len && kind_at(s, end, &size) == SPACE) {
        last = end;
        end += size;
    }
    return whitespace(s, at, end, last);
}

static bool is_newline(char c)
{
    return c == '\r' || c == '\n';
}

static size_t scan_qwen2(const scanner *s, size_t at, size_t max_digits)
{
    size_t size, next_size;
    const char c = s->text[at];
    if (c == '\'') { /* 1: (?i:'s|'t|...) */
        size_t len = contraction(s, at, true);
        if (len)
            return at + len;
    }
    int kind = kind_at(s, at, &size);
    if (kind == LETTER) /* 2: [^\r\n\p{L}\p{N}]?\p{L}+ without its first part */
        return run_end(s, at + size, LETTER, SIZE_MAX);
    if (kind == NUMBER) /* 3: \p{N} or \p{N}{1,3} */
        return run_end(s, at + size, NUMBER, max_digits - 1);

    const size_t next = at + size;
    const int next_kind = next < s->len ? kind_at(s, next, &next_size) : SPACE;
    if (next_kind == LETTER && !is_newline(c)) /* 2 with it */
        return run_end(s, next + next_size, LETTER, SIZE_MAX);
    if (kind == OTHER || (c == ' ' && next_kind == OTHER)) { /* 4:  ?[^\s\p{L}\p{N}]+[\r\n]* */
        size_t end = run_end(s, next, OTHER, SIZE_MAX);
        while (end < s->len && is_newline(s->text[end]))
            end++;
        return end;
    }
    size_t end = at, last = at, after_newline = 0;
    while (end < s->len && kind_at(s, end, &size) == SPACE) {
        last = end;
        end += size;
        if (is_newline(s->text[last]))
            after_newline = end;
    }
    if (after_newline) /* 5: \s*[\r\n]+ ends after the last of them */
        return after_newline;
    return whitespace(s, at, end, last); /* 6, 7 */
}

size_t mr_tok_scan(mr_tok_scan_kind kind, const mr_tok_classes *classes, const char *text,
                   size_t len, size_t at)
{
    const scanner s = {classes, text, len};
    switch (kind) {
    case MR_SCAN_GPT2: return scan_gpt2(&s, at);
    case MR_SCAN_QWEN2: return scan_qwen2(&s, at, 1);
    case MR_SCAN_LLAMA3: break;
    }
    return scan_qwen2(&s, at, 3);
}
