/* tokenizer_regex.c - Oniguruma's regex syntax to PCRE2's, for what means the same in both.
 *
 * The regexes of tokenizer.json are run by Oniguruma (Ruby's syntax). PCRE2 reads most of them
 * alike, and some differently without saying so: \h is a hexadecimal digit there and a blank here,
 * \s has another member (U+180E), a{1,2}+ is possessive here and a repeat of a repeat there, an
 * option in the middle of a branch ends elsewhere, (?i:ss) matches one sharp s there. So nothing is
 * passed on that this file does not know to be equal; the rest is UNSUPPORTED and named. Classes
 * follow the Unicode version of PCRE2; the regexes that tokenizer_scan.c knows do not come here.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/utf8.h"
#include "engine/tokenizer_private.h"

#define MAX_NESTING 50
#define WHITE_SPACE                                                                         \
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}" \
    "\\x{205f}\\x{3000}"
#define NOT_WHITE_SPACE                                                                      \
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}" \
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"           \
    "\\x{3001}-\\x{10ffff}"

typedef struct {
    mr_strbuf *out;
    const char *where;
    mr_str source;
    size_t at;
    int depth;
    bool caseless;
    char last_folded; /* caseless: the literal letter just before, lower case; 0: none */
    mr_error *err;
} translation;

/* Names a part of the pattern that is not passed on. */
static mr_status refuse(translation *t, mr_str part)
{
    return MR_FAIL(t->err, UNSUPPORTED, "%s: the regex '%.*s' uses '%.*s' at byte %zu", t->where,
                   MR_STR_ARG(t->source), MR_STR_ARG(part), t->at);
}

static mr_status refuse_next(translation *t, size_t len)
{
    size_t left = t->source.len - t->at;
    return refuse(t, (mr_str){t->source.data + t->at, len < left ? len : left});
}

static int peek(const translation *t, size_t ahead)
{
    return t->at + ahead < t->source.len ? (unsigned char)t->source.data[t->at + ahead] : -1;
}

static bool next_is(const translation *t, const char *text)
{
    size_t len = strlen(text);
    return t->source.len - t->at >= len && memcmp(t->source.data + t->at, text, len) == 0;
}

static void copy(translation *t, size_t len)
{
    mr_strbuf_append(t->out, t->source.data + t->at, len);
    t->at += len;
}

static bool is_letter(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(int c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Under (?i) only ASCII is passed on, and no two letters that a single character folds to. */
static mr_status check_folding(translation *t, uint32_t code_point)
{
    if (!t->caseless)
        return MR_OK;
    if (code_point >= 0x80)
        return MR_FAIL(t->err, UNSUPPORTED,
                       "%s: the regex '%.*s' ignores the case of U+%04X, which is not ASCII",
                       t->where, MR_STR_ARG(t->source), (unsigned)code_point);
    char folded = (char)(code_point >= 'A' && code_point <= 'Z' ? code_point + 32 : code_point);
    char before = t->last_folded;
    if ((before == 's' && (folded == 's' || folded == 't')) ||
        (before == 'f' && (folded == 'f' || folded == 'i' || folded == 'l')))
        return MR_FAIL(t->err, UNSUPPORTED,
                       "%s: the regex '%.*s' ignores the case of '%c%c', which one character "
                       "may stand for",
                       t->where, MR_STR_ARG(t->source), before, folded);
    t->last_folded = folded;
    return MR_OK;
}

/* One character of the pattern by its code point. */
static mr_status emit_literal(translation *t, uint32_t code_point)
{
    mr_status status = check_folding(t, code_point);
    if (status == MR_OK)
        mr_strbuf_printf(t->out, "\\x{%x}", (unsigned)code_point);
    return status;
}

/* \p{Name}: general categories and scripts. */
static mr_status translate_property(translation *t)
{
    const char *start = t->source.data + t->at;
    const char *close = memchr(start, '}', t->source.len - t->at);
    if (peek(t, 2) != '{' || !close || close - start > 40)
        return refuse_next(t, 4);
    bool negated = start[1] == 'P';
    mr_str name = {start + 3, (size_t)(close - start - 3)};
    if (name.len && name.data[0] == '^') {
        negated = !negated;
        name.data++;
        name.len--;
    }
    const size_t whole = (size_t)(close - start) + 1;
    if (name.len == 0)
        return refuse_next(t, whole);
    for (size_t i = 0; i < name.len; i++) {
        if (!is_letter((unsigned char)name.data[i]) && name.data[i] != '_')
            return refuse_next(t, whole);
    }
    /* A category is a capital of this list and perhaps one small letter. PCRE2 takes script names
     * for script extensions unless told otherwise. */
    bool category = name.len <= 2 && strchr("LMNPSZC", name.data[0]) &&
                    (name.len == 1 || (name.data[1] >= 'a' && name.data[1] <= 'z'));
    if (!category && (name.len < 3 || name.data[0] < 'A' || name.data[0] > 'Z'))
        return refuse_next(t, whole);
    static const char *const other_meaning[] = {"Any", "Assigned", "ASCII", "Alnum", "Alpha"};
    for (size_t i = 0; i < sizeof other_meaning / sizeof *other_meaning; i++) {
        if (mr_str_equal(name, mr_str_of(other_meaning[i])))
            return refuse_next(t, whole);
    }
    if (t->caseless && category && name.data[0] == 'L' && name.len == 2)
        return refuse_next(t, whole);
    mr_strbuf_printf(t->out, "\\%c{%s%.*s}", negated ? 'P' : 'p',
                     category ? "" : "sc:", (int)name.len, name.data);
    t->at += whole;
    t->last_folded = 0;
    return MR_OK;
}

/* \xHH, \x{H..}, \uHHHH. */
static mr_status read_code_point(translation *t, uint32_t *code_point, size_t *len)
{
    size_t digits = 0, at = 2;
    uint32_t value = 0;
    const bool braces = peek(t, 1) == 'x' && peek(t, 2) == '{';
    const size_t max = braces ? 6 : peek(t, 1) == 'u' ? 4 : 2;
    at += braces;
    for (; digits < max && hex_value(peek(t, at)) >= 0; at++, digits++)
        value = value << 4 | (uint32_t)hex_value(peek(t, at));
    bool whole = braces ? digits > 0 && peek(t, at) == '}' : digits == max;
    char bytes[4];
    /* \xHH from 80 on is a byte to Oniguruma, not a character. */
    if (!whole || mr_utf8_encode(value, bytes) == 0 || (max == 2 && value >= 0x80))
        return refuse_next(t, at);
    *code_point = value;
    *len = at + braces;
    return MR_OK;
}

/* An escape that stands for one character, in or outside a class. *len 0: it does not. */
static mr_status read_character_escape(translation *t, uint32_t *code_point, size_t *len)
{
    int c = peek(t, 1);
    *len = 2;
    switch (c) {
    case 'r': *code_point = '\r'; return MR_OK;
    case 'n': *code_point = '\n'; return MR_OK;
    case 't': *code_point = '\t'; return MR_OK;
    case 'f': *code_point = '\f'; return MR_OK;
    case 'v': *code_point = '\v'; return MR_OK;
    case 'a': *code_point = '\a'; return MR_OK;
    case 'e': *code_point = 0x1B; return MR_OK;
    case 'x':
    case 'u': return read_code_point(t, code_point, len);
    default: break;
    }
    *len = 0;
    if (c >= 0 && c < 0x80 && !is_letter(c) && !is_digit(c) && c >= 0x20) {
        *code_point = (uint32_t)c;
        *len = 2;
    }
    return MR_OK;
}

/* A class escape: \s \d \p{..} and their opposites. */
static mr_status translate_class_escape(translation *t, bool in_brackets)
{
    switch (peek(t, 1)) {
    case 's': mr_strbuf_puts(t->out, in_brackets ? WHITE_SPACE : "[" WHITE_SPACE "]"); break;
    case 'S': mr_strbuf_puts(t->out, in_brackets ? NOT_WHITE_SPACE : "[^" WHITE_SPACE "]"); break;
    case 'd': mr_strbuf_puts(t->out, "\\p{Nd}"); break;
    case 'D': mr_strbuf_puts(t->out, "\\P{Nd}"); break;
    case 'p':
    case 'P': return translate_property(t);
    default: return refuse_next(t, 2);
    }
    t->at += 2;
    t->last_folded = 0;
    return MR_OK;
}

/* One character of a bracket expression. *is_class: it was a class escape, already emitted. */
static mr_status read_member(translation *t, uint32_t *code_point, bool *is_class)
{
    size_t len = 0;
    mr_status status;
    *is_class = false;
    if (peek(t, 0) == '\\') {
        status = read_character_escape(t, code_point, &len);
        if (status == MR_OK && len == 0) {
            *is_class = true;
            return translate_class_escape(t, true);
        }
    } else {
        int c = peek(t, 0);
        if (c == '[' || next_is(t, "&&"))
            return refuse_next(t, 2); /* a class in a class; "&&" intersects */
        len = mr_utf8_decode(t->source.data + t->at, t->source.len - t->at, code_point);
        status = len ? MR_OK : refuse_next(t, 1);
    }
    t->at += len;
    return status;
}

static mr_status translate_brackets(translation *t)
{
    copy(t, 1);
    if (peek(t, 0) == '^') {
        if (t->caseless)
            return refuse_next(t, 1);
        copy(t, 1);
    }
    if (peek(t, 0) == ']')
        return refuse_next(t, 1);
    for (bool first = true; peek(t, 0) != ']'; first = false) {
        uint32_t from = 0, to = 0;
        bool is_class = false;
        if (peek(t, 0) < 0)
            return MR_FAIL(t->err, CORRUPT, "%s: the regex '%.*s' has a '[' without its ']'",
                           t->where, MR_STR_ARG(t->source));
        if (peek(t, 0) == '-' && !first && peek(t, 1) != ']')
            return refuse_next(t, 2);
        t->last_folded = 0;
        mr_status status = read_member(t, &from, &is_class);
        if (status != MR_OK)
            return status;
        if (is_class)
            continue;
        status = emit_literal(t, from);
        if (status != MR_OK)
            return status;
        if (peek(t, 0) != '-' || peek(t, 1) == ']')
            continue;
        copy(t, 1);
        t->last_folded = 0;
        status = read_member(t, &to, &is_class);
        if (status != MR_OK)
            return status;
        if (is_class || to < from)
            return refuse_next(t, 1);
        status = emit_literal(t, to);
        if (status != MR_OK)
            return status;
    }
    copy(t, 1);
    t->last_folded = 0;
    return MR_OK;
}

/* After something that can be repeated. */
static mr_status translate_quantifier(translation *t)
{
    bool braces = false, exact = false;
    int c = peek(t, 0);
    if (c == '*' || c == '+' || c == '?') {
        copy(t, 1);
    } else if (c == '{') {
        size_t at = 1, digits = 0;
        bool comma = false, low = false;
        for (; is_digit(peek(t, at)) || (peek(t, at) == ',' && !comma); at++) {
            if (peek(t, at) == ',') {
                low = digits > 0;
                comma = true;
                digits = 0;
            } else if (++digits > 4) {
                return refuse_next(t, at + 1);
            }
        }
        if (peek(t, at) != '}' || (digits == 0 && !(comma && low)))
            return refuse_next(t, at + 1);
        if (comma && !low) { /* {,n} is text to older PCRE2 */
            mr_strbuf_puts(t->out, "{0");
            t->at++;
            at--;
        }
        copy(t, at + 1);
        braces = true;
        exact = !comma;
    } else {
        return MR_OK;
    }
    t->last_folded = 0;
    if ((peek(t, 0) == '?' && !exact) || (peek(t, 0) == '+' && !braces))
        copy(t, 1);
    c = peek(t, 0);
    if (c == '*' || c == '+' || c == '?' || c == '{')
        return refuse_next(t, 1); /* a repeat of a repeat */
    return MR_OK;
}

static mr_status translate_branches(translation *t);

static mr_status translate_group(translation *t, bool *repeatable)
{
    static const char *const openings[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    const bool caseless = t->caseless;
    bool known = false;
    if (++t->depth > MAX_NESTING)
        return refuse_next(t, 1);
    if (next_is(t, "(?i:") || next_is(t, "(?-i:")) {
        t->caseless = peek(t, 2) == 'i';
        copy(t, t->caseless ? 4 : 5);
        known = true;
    } else if (peek(t, 1) != '?') {
        if (peek(t, 1) == '*')
            return refuse_next(t, 2);
        mr_strbuf_puts(t->out, "(?:"); /* nothing asks what it captured */
        t->at++;
        known = true;
    }
    for (size_t i = 0; i < sizeof openings / sizeof *openings && !known; i++) {
        if (next_is(t, openings[i])) {
            *repeatable = i == 0 || i == 5; /* the others look and take nothing */
            copy(t, strlen(openings[i]));
            known = true;
        }
    }
    if (!known)
        return refuse_next(t, 4);
    t->last_folded = 0;
    mr_status status = translate_branches(t);
    if (status != MR_OK)
        return status;
    if (peek(t, 0) != ')')
        return MR_FAIL(t->err, CORRUPT, "%s: the regex '%.*s' has a '(' without its ')'", t->where,
                       MR_STR_ARG(t->source));
    copy(t, 1);
    t->caseless = caseless;
    t->last_folded = 0;
    t->depth--;
    return MR_OK;
}

static mr_status translate_escape(translation *t, bool *repeatable)
{
    uint32_t code_point = 0;
    size_t len = 0;
    if (peek(t, 1) == 'A' || peek(t, 1) == 'z') {
        *repeatable = false;
        copy(t, 2);
        return MR_OK;
    }
    mr_status status = read_character_escape(t, &code_point, &len);
    if (status != MR_OK)
        return status;
    if (len == 0)
        return translate_class_escape(t, false);
    status = emit_literal(t, code_point);
    t->at += len;
    return status;
}

/* Branches up to the ')' that ends them or to the end. */
static mr_status translate_branches(translation *t)
{
    if (next_is(t, "(?i)")) { /* first of all it means the same in both */
        t->caseless = true;
        copy(t, 4);
    }
    while (t->at < t->source.len && peek(t, 0) != ')') {
        mr_status status = MR_OK;
        bool repeatable = true;
        switch (peek(t, 0)) {
        case '(': status = translate_group(t, &repeatable); break;
        case '[': status = translate_brackets(t); break;
        case '\\': status = translate_escape(t, &repeatable); break;
        case '|':
            copy(t, 1);
            t->last_folded = 0;
            continue;
        case '^':
        case '$':
            copy(t, 1);
            repeatable = false;
            t->last_folded = 0;
            break;
        case '.':
            copy(t, 1);
            t->last_folded = 0;
            break;
        case '*':
        case '+':
        case '?':
        case '{':
        case '}':
        case ']': return refuse_next(t, 1);
        default: {
            uint32_t code_point = 0;
            size_t len = mr_utf8_decode(t->source.data + t->at, t->source.len - t->at, &code_point);
            if (len == 0)
                return refuse_next(t, 1);
            status = emit_literal(t, code_point);
            t->at += len;
        }
        }
        if (status == MR_OK && repeatable)
            status = translate_quantifier(t);
        if (status != MR_OK)
            return status;
    }
    return MR_OK;
}

mr_status mr_tok_regex_translate(mr_strbuf *out, const char *where, mr_str regex, mr_error *err)
{
    translation t = {.out = out, .where = where, .source = regex, .err = err};
    mr_status status = translate_branches(&t);
    if (status != MR_OK)
        return status;
    if (t.at < regex.len)
        return MR_FAIL(err, CORRUPT, "%s: the regex '%.*s' has a ')' too many", where,
                       MR_STR_ARG(regex));
    if (out->failed)
        return MR_FAIL(err, NO_MEMORY, "%s: translating a regex", where);
    return MR_OK;
}
