/* tokenizer_pattern.c - what splits and replaces: a literal, a regex on PCRE2, a built-in scanner.
 *
 * Texts come here as valid UTF-8, so PCRE2 is told not to check them: it would check the whole text
 * at every match. Two things keep a regex, ours or a hostile file's, from taking hours:
 *
 *   - Backtracking steps of one match are bounded by what the match may see of the text.
 *   - A match sees a window, as a partial match, and a wider one only when it ran into the end of
 *     the first. What is read in wider windows is added up over a text and bounded by a multiple of
 *     its length. So a regex that reads on and on for every short match, which would take the
 * square of the text, fails; ones that match what they read never notice.
 *
 * When PCRE2's compiled code runs out of stack, its interpreter, which uses the heap, takes over.
 * SPDX-License-Identifier: Apache-2.0 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "engine/tokenizer_private.h"

#define MAX_REGEX_BYTES 8192
#define FIRST_WINDOW    256 /* bytes */
#define SPENT_FLOOR     ((size_t)1 << 20)
#define SPENT_PER_BYTE  64
#define STEPS_FLOOR     ((size_t)100000)
#define STEPS_PER_BYTE  20
#define STEPS_MAX       1000000000u
#define HEAP_MAX_KIB    (256u << 10)
#define COMPILE_OPTIONS \
    (PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C)

mr_status mr_tok_pattern_literal(mr_tok_pattern *out, const char *where, mr_str text, mr_error *err)
{
    if (text.len == 0)
        return MR_FAIL(err, UNSUPPORTED, "%s: an empty pattern, which matches everywhere", where);
    *out = (mr_tok_pattern){.kind = MR_PATTERN_LITERAL, .literal = text};
    return MR_OK;
}

mr_status mr_tok_pattern_regex(mr_tok_pattern *out, const char *where, mr_str regex, bool builtin,
                               mr_error *err)
{
    static const char *const known[] = {
        [MR_SCAN_GPT2] = MR_TOK_GPT2_REGEX,
        [MR_SCAN_QWEN2] = MR_TOK_QWEN2_REGEX,
        [MR_SCAN_LLAMA3] = MR_TOK_LLAMA3_REGEX,
    };
    for (size_t i = 0; i < sizeof known / sizeof *known && builtin; i++) {
        if (mr_str_equal(regex, mr_str_of(known[i]))) {
            *out = (mr_tok_pattern){
                .kind = MR_PATTERN_SCAN, .literal = regex, .scan = (mr_tok_scan_kind)i};
            return MR_OK;
        }
    }
    if (regex.len > MAX_REGEX_BYTES)
        return MR_FAIL(err, EXHAUSTED, "%s: a regex of %zu bytes, expected at most %d", where,
                       regex.len, MAX_REGEX_BYTES);

    mr_strbuf translated = {0};
    pcre2_compile_context *context = NULL;
    mr_status status = mr_tok_regex_translate(&translated, where, regex, err);
    if (status != MR_OK)
        goto out;
    context = pcre2_compile_context_create(NULL);
    if (!context) {
        status = MR_FAIL(err, NO_MEMORY, "%s: compiling a regex", where);
        goto out;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int code = 0;
    PCRE2_SIZE at = 0;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)(translated.data ? translated.data : ""),
                                         translated.len, COMPILE_OPTIONS, &code, &at, context);
    if (!compiled) {
        PCRE2_UCHAR message[128];
        pcre2_get_error_message(code, message, sizeof message);
        status = MR_FAIL(err, UNSUPPORTED, "%s: PCRE2 does not take the regex '%.*s': %s", where,
                         MR_STR_ARG(regex), (const char *)message);
        goto out;
    }
    /* Where code may not be generated (hardened kernels) matching is slower and the same. */
    (void)pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
    *out = (mr_tok_pattern){.kind = MR_PATTERN_REGEX, .literal = regex, .code = compiled};

out:
    pcre2_compile_context_free(context);
    mr_strbuf_release(&translated);
    return status;
}

bool mr_tok_pattern_matches_empty(const mr_tok_pattern *pattern)
{
    uint32_t may = 0;
    return pattern->kind == MR_PATTERN_REGEX &&
           (pcre2_pattern_info(pattern->code, PCRE2_INFO_MATCHEMPTY, &may) != 0 || may);
}

void mr_tok_pattern_done(mr_tok_pattern *pattern)
{
    pcre2_code_free(pattern->code);
    pattern->code = NULL;
}

void mr_tok_matcher_done(mr_tok_matcher *matcher)
{
    pcre2_match_data_free(matcher->data);
    pcre2_match_context_free(matcher->context);
    *matcher = (mr_tok_matcher){0};
}

static mr_status matcher_ready(mr_tok_matcher *matcher, mr_error *err)
{
    if (!matcher->data)
        matcher->data = pcre2_match_data_create(1, NULL);
    if (!matcher->context) {
        matcher->context = pcre2_match_context_create(NULL);
        if (matcher->context)
            pcre2_set_heap_limit(matcher->context, HEAP_MAX_KIB);
    }
    if (!matcher->data || !matcher->context)
        return MR_FAIL(err, NO_MEMORY, "memory for matching a regex");
    return MR_OK;
}

static mr_status gave_up(const mr_tok_search *search, const char *why, mr_error *err)
{
    return MR_FAIL(err, EXHAUSTED, "the regex '%.*s' gave up at byte %zu of a text: %s",
                   MR_STR_ARG(search->pattern->literal), search->at, why);
}

/* Matches at search->at and nowhere else; *end is SIZE_MAX when there is no match. */
static mr_status match_here(mr_tok_search *search, size_t *end, mr_error *err)
{
    pcre2_match_data *data = search->matcher->data;
    pcre2_match_context *context = search->matcher->context;
    const mr_str text = search->text;
    for (size_t window = FIRST_WINDOW;; window *= 4) {
        size_t seen = text.len;
        uint32_t options = PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK;
        if (text.len - search->at > window) {
            seen = search->at + window;
            while (((unsigned char)text.data[seen] & 0xC0) == 0x80)
                seen--; /* not within a character */
            options |= PCRE2_PARTIAL_HARD;
        }
        if (window > FIRST_WINDOW) {
            search->spent += seen - search->at;
            if (search->spent > SPENT_FLOOR && search->spent / SPENT_PER_BYTE > text.len)
                return gave_up(search, "it reads the same text over and over", err);
        }
        size_t steps = STEPS_FLOOR + STEPS_PER_BYTE * (seen - search->at);
        pcre2_set_match_limit(context, steps > STEPS_MAX ? STEPS_MAX : (uint32_t)steps);
        int rc = pcre2_match(search->pattern->code, (PCRE2_SPTR)text.data, seen, search->at,
                             options, data, context);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
            rc = pcre2_match(search->pattern->code, (PCRE2_SPTR)text.data, seen, search->at,
                             options | PCRE2_NO_JIT, data, context);
        if (rc == PCRE2_ERROR_PARTIAL)
            continue;
        if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
            PCRE2_UCHAR message[128];
            pcre2_get_error_message(rc, message, sizeof message);
            return gave_up(search, (const char *)message, err);
        }
        *end = rc < 0 ? SIZE_MAX : pcre2_get_ovector_pointer(data)[1];
        return MR_OK;
    }
}

static mr_status next_regex(mr_tok_search *search, bool *found, size_t *start, size_t *end,
                            mr_error *err)
{
    const mr_str text = search->text;
    mr_status status = matcher_ready(search->matcher, err);
    while (status == MR_OK && search->at <= text.len) {
        size_t stop;
        status = match_here(search, &stop, err);
        if (status != MR_OK)
            break;
        /* An empty match right after a match does not count. */
        if (stop != SIZE_MAX && (stop > search->at || stop != search->last_end)) {
            *start = search->at;
            *end = search->at = search->last_end = stop;
            *found = true;
            break;
        }
        search->at +=
            search->at < text.len ? mr_tok_char_size((unsigned char)text.data[search->at]) : 1;
    }
    return status;
}

static void next_literal(mr_tok_search *search, bool *found, size_t *start, size_t *end)
{
    const mr_str wanted = search->pattern->literal;
    const mr_str text = search->text;
    while (text.len - search->at >= wanted.len) {
        const char *hit =
            memchr(text.data + search->at, wanted.data[0], text.len - search->at - wanted.len + 1);
        if (!hit)
            break;
        size_t at = (size_t)(hit - text.data);
        if (memcmp(hit, wanted.data, wanted.len) == 0) {
            *start = at;
            *end = search->at = at + wanted.len;
            *found = true;
            return;
        }
        search->at = at + 1;
    }
    search->at = text.len;
}

mr_status mr_tok_search_next(mr_tok_search *search, bool *found, size_t *start, size_t *end,
                             mr_error *err)
{
    *found = false;
    switch (search->pattern->kind) {
    case MR_PATTERN_SCAN:
        if (search->at < search->text.len) {
            *start = search->at;
            search->at = *end = mr_tok_scan(search->pattern->scan, search->classes,
                                            search->text.data, search->text.len, search->at);
            *found = true;
        }
        return MR_OK;
    case MR_PATTERN_LITERAL: next_literal(search, found, start, end); return MR_OK;
    case MR_PATTERN_REGEX: break;
    }
    return next_regex(search, found, start, end, err);
}
