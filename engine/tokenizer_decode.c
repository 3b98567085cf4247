/* tokenizer_decode.c - ids to text.
 *
 * The decoder is a chain of steps that each turn a list of strings into a list of strings; in the
 * end the list is joined. A list is one buffer of bytes and the ends of its strings in it.
 * Only ByteLevel makes bytes that may not be UTF-8, and it replaces them itself, so that between
 * steps everything is text.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core/utf8.h"
#include "engine/tokenizer_private.h"

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

typedef struct {
    mr_strbuf text;
    size_t *ends; /* owned */
    size_t n, capacity;
} list;

typedef struct {
    const mr_tokenizer *tok;
    mr_tok_matcher matcher;
    mr_strbuf bytes; /* of ByteLevel and ByteFallback, before they are text */
    mr_error *err;
} decoding;

static void list_release(list *strings)
{
    mr_strbuf_release(&strings->text);
    free(strings->ends);
    *strings = (list){0};
}

static mr_str list_at(const list *strings, size_t i)
{
    size_t start = i ? strings->ends[i - 1] : 0;
    return (mr_str){strings->text.data ? strings->text.data + start : "", strings->ends[i] - start};
}

/* Ends the string that was appended to strings->text. */
static bool list_close(list *strings)
{
    if (strings->n == strings->capacity) {
        size_t capacity = strings->capacity * 2 + 64;
        size_t *grown = realloc(strings->ends, capacity * sizeof *grown);
        if (!grown)
            return false;
        strings->ends = grown;
        strings->capacity = capacity;
    }
    strings->ends[strings->n++] = strings->text.len;
    return true;
}

static bool list_add(list *strings, mr_str text)
{
    mr_strbuf_append(&strings->text, text.data, text.len);
    return list_close(strings);
}

/* How many bytes one U+FFFD stands for: the longest start of a character that stops too early, or
 * one byte (Unicode 16, chapter 3.9, "maximal subpart"). */
static size_t broken_length(const unsigned char *p, size_t len)
{
    size_t want = p[0] >= 0xC2 && p[0] < 0xE0   ? 2
                  : p[0] >= 0xE0 && p[0] < 0xF0 ? 3
                  : p[0] >= 0xF0 && p[0] < 0xF5 ? 4
                                                : 1;
    unsigned low = 0x80, high = 0xBF; /* of the second byte */
    if (p[0] == 0xE0)
        low = 0xA0;
    else if (p[0] == 0xED)
        high = 0x9F;
    else if (p[0] == 0xF0)
        low = 0x90;
    else if (p[0] == 0xF4)
        high = 0x8F;
    size_t n = 1;
    while (n < want && n < len && p[n] >= low && p[n] <= high) {
        low = 0x80;
        high = 0xBF;
        n++;
    }
    return n;
}

static void append_lossy(mr_strbuf *out, const char *bytes, size_t len)
{
    for (size_t at = 0; at < len;) {
        size_t valid = mr_utf8_valid_prefix(bytes + at, len - at);
        mr_strbuf_append(out, bytes + at, valid);
        at += valid;
        if (at < len) {
            mr_strbuf_append(out, REPLACEMENT, strlen(REPLACEMENT));
            at += broken_length((const unsigned char *)bytes + at, len - at);
        }
    }
}

/* The bytes that a token is spelled for; a token with a character outside the byte alphabet is its
 * own text. */
static void append_byte_level(mr_strbuf *out, mr_str token)
{
    const size_t before = out->len;
    for (size_t i = 0; i < token.len; i += mr_tok_char_size((unsigned char)token.data[i])) {
        int byte = mr_tok_char_byte(mr_tok_code_point(token.data + i));
        if (byte < 0) {
            out->len = before;
            mr_strbuf_append(out, token.data, token.len);
            return;
        }
        char c = (char)byte;
        mr_strbuf_append(out, &c, 1);
    }
}

static bool decode_byte_level(decoding *d, const list *in, list *out)
{
    mr_strbuf_clear(&d->bytes);
    for (size_t i = 0; i < in->n; i++)
        append_byte_level(&d->bytes, list_at(in, i));
    append_lossy(&out->text, d->bytes.data, d->bytes.len);
    return list_close(out);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte of "<0xHH>", or -1. The library's number parser also takes "+H". */
static int fallback_byte(mr_str token)
{
    if (token.len != 6 || memcmp(token.data, "<0x", 3) != 0 || token.data[5] != '>')
        return -1;
    int high = token.data[3] == '+' ? 0 : hex_digit(token.data[3]);
    int low = hex_digit(token.data[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* A run of byte tokens becomes one string, or one U+FFFD for each byte if it is not UTF-8. */
static bool flush_fallback(decoding *d, list *out)
{
    const size_t len = d->bytes.len;
    bool fits = true;
    if (len && mr_utf8_valid_prefix(d->bytes.data, len) == len)
        fits = list_add(out, (mr_str){d->bytes.data, len});
    else
        for (size_t i = 0; i < len && fits; i++)
            fits = list_add(out, mr_str_of(REPLACEMENT));
    mr_strbuf_clear(&d->bytes);
    return fits;
}

static bool decode_byte_fallback(decoding *d, const list *in, list *out)
{
    mr_strbuf_clear(&d->bytes);
    for (size_t i = 0; i < in->n; i++) {
        mr_str token = list_at(in, i);
        int byte = fallback_byte(token);
        if (byte >= 0) {
            char c = (char)byte;
            mr_strbuf_append(&d->bytes, &c, 1);
        } else if (!flush_fallback(d, out) || !list_add(out, token)) {
            return false;
        }
    }
    return flush_fallback(d, out);
}

/* The replacement is a blank, and nothing at all in the first token if one was put in front. */
static bool decode_metaspace(const mr_tok_decoder *step, const list *in, list *out)
{
    for (size_t i = 0; i < in->n; i++) {
        mr_str token = list_at(in, i);
        for (size_t at = 0; at < token.len;) {
            size_t size = mr_tok_char_size((unsigned char)token.data[at]);
            if (!mr_str_equal((mr_str){token.data + at, size}, step->text))
                mr_strbuf_append(&out->text, token.data + at, size);
            else if (i > 0 || step->prepend == MR_PREPEND_NEVER)
                mr_strbuf_append(&out->text, " ", 1);
            at += size;
        }
        if (!list_close(out))
            return false;
    }
    return true;
}

static mr_status decode_replace(decoding *d, const mr_tok_decoder *step, const list *in, list *out)
{
    for (size_t i = 0; i < in->n; i++) {
        mr_str token = list_at(in, i);
        mr_tok_search search = {.pattern = &step->pattern,
                                .classes = &d->tok->classes,
                                .matcher = &d->matcher,
                                .text = token,
                                .last_end = SIZE_MAX};
        size_t copied = 0;
        bool found = token.len > 0;
        while (found) {
            size_t start = 0, end = 0;
            mr_status status = mr_tok_search_next(&search, &found, &start, &end, d->err);
            if (status != MR_OK)
                return status;
            if (found) {
                mr_strbuf_append(&out->text, token.data + copied, start - copied);
                mr_strbuf_append(&out->text, step->text.data, step->text.len);
                copied = end;
            }
        }
        mr_strbuf_append(&out->text, token.data + copied, token.len - copied);
        if (out->text.len > MR_TOK_MAX_TEXT)
            return MR_FAIL(d->err, EXHAUSTED, "%s: decoding gives more than %zu bytes",
                           d->tok->name, MR_TOK_MAX_TEXT);
        if (!list_close(out))
            return MR_TOK_NO_MEMORY(d->tok, d->err, out->n * sizeof *out->ends);
    }
    return MR_OK;
}

static bool decode_strip(const mr_tok_decoder *step, const list *in, list *out)
{
    const mr_str unwanted = step->text;
    for (size_t i = 0; i < in->n; i++) {
        mr_str token = list_at(in, i);
        for (size_t k = 0; k < step->start && token.len >= unwanted.len &&
                           memcmp(token.data, unwanted.data, unwanted.len) == 0;
             k++) {
            token.data += unwanted.len;
            token.len -= unwanted.len;
        }
        for (size_t k = 0;
             k < step->stop && token.len >= unwanted.len &&
             memcmp(token.data + token.len - unwanted.len, unwanted.data, unwanted.len) == 0;
             k++)
            token.len -= unwanted.len;
        if (!list_add(out, token))
            return false;
    }
    return true;
}

static mr_status decode_step(decoding *d, const mr_tok_decoder *step, const list *in, list *out)
{
    bool fits = true;
    switch (step->kind) {
    case MR_DECODE_BYTE_LEVEL: fits = decode_byte_level(d, in, out); break;
    case MR_DECODE_BYTE_FALLBACK: fits = decode_byte_fallback(d, in, out); break;
    case MR_DECODE_METASPACE: fits = decode_metaspace(step, in, out); break;
    case MR_DECODE_STRIP: fits = decode_strip(step, in, out); break;
    case MR_DECODE_FUSE:
        fits = list_add(out, (mr_str){in->text.data ? in->text.data : "", in->text.len});
        break;
    case MR_DECODE_REPLACE: {
        mr_status status = decode_replace(d, step, in, out);
        if (status != MR_OK)
            return status;
    }
    }
    if (!fits || out->text.failed || d->bytes.failed)
        return MR_TOK_NO_MEMORY(d->tok, d->err, in->text.len);
    return MR_OK;
}

/* The tokens of the ids as the decoder gets them. */
static mr_status list_tokens(decoding *d, const int32_t *ids, size_t n, bool skip_special,
                             list *out)
{
    const mr_tokenizer *tok = d->tok;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= tok->n_ids || tok->spelled[ids[i]].offset == MR_TOK_NO_SPAN)
            return MR_FAIL(d->err, INVALID, "%s: id %d at place %zu is no token; ids go to %d",
                           tok->name, (int)ids[i], i, (int)tok->n_ids - 1);
        const mr_tok_added *added = tok->added_by_id[ids[i]];
        if (added && added->skipped && skip_special)
            continue;
        const mr_tok_span span = tok->spelled[ids[i]];
        mr_str text = added ? added->normalized : (mr_str){tok->bytes + span.offset, span.len};
        if (!list_add(out, text) || out->text.failed)
            return MR_TOK_NO_MEMORY(tok, d->err, out->text.len);
        if (out->text.len > MR_TOK_MAX_TEXT)
            return MR_FAIL(d->err, EXHAUSTED, "%s: %zu ids spell more than %zu bytes", tok->name, n,
                           MR_TOK_MAX_TEXT);
    }
    return MR_OK;
}

mr_status mr_tokenizer_decode(const mr_tokenizer *tok, const int32_t *ids, size_t n,
                              bool skip_special, char **text, size_t *len, mr_error *err)
{
    decoding d = {.tok = tok, .err = err};
    list strings = {0}, next = {0};
    mr_status status = list_tokens(&d, ids, n, skip_special, &strings);
    for (size_t i = 0; i < tok->n_decoders && status == MR_OK; i++) {
        mr_strbuf_clear(&next.text);
        next.n = 0;
        status = decode_step(&d, &tok->decoders[i], &strings, &next);
        list swap = strings;
        strings = next;
        next = swap;
    }
    mr_strbuf joined = {0};
    if (status != MR_OK)
        goto out;

    if (tok->has_decoder) {
        mr_strbuf_append(&strings.text, "", 0); /* a terminated buffer, even of nothing */
        joined = strings.text;
        strings.text = (mr_strbuf){0};
    } else {
        mr_strbuf_append(&joined, "", 0);
        for (size_t i = 0; i < strings.n; i++) {
            mr_str token = list_at(&strings, i);
            mr_strbuf_append(&joined, " ", i > 0);
            mr_strbuf_append(&joined, token.data, token.len);
        }
    }
    if (joined.failed) {
        mr_strbuf_release(&joined);
        status = MR_TOK_NO_MEMORY(tok, err, joined.len);
        goto out;
    }
    *text = joined.data;
    *len = joined.len;

out:
    list_release(&strings);
    list_release(&next);
    mr_strbuf_release(&d.bytes);
    mr_tok_matcher_done(&d.matcher);
    return status;
}
