/* tokenizer_nfc.c - normalisation form C (Unicode Standard Annex 15) in linear time.
 *
 * utf8proc knows the data; the loops are ours for three reasons. Its reordering of combining marks
 * takes the square of their number, so that a megabyte of marks would hang. It looks at every
 * character, where nearly all text is NFC already and needs to be scanned only. And the library
 * whose ids we have to give normalises with the tables of Unicode 9: what is newer it leaves alone,
 * and so do we.
 *
 * A stretch to be normalised begins at the last character that cannot join the one before it
 * (MR_CLASS_COMPOSES is clear) and ends where the next such one begins.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/tokenizer_nfc.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/utf8.h"
#include "engine/tokenizer_private.h"

#define NFC_OPTIONS        (UTF8PROC_STABLE | UTF8PROC_COMPOSE)
#define MAX_DECOMPOSED     4 /* code points of one canonical decomposition */
#define INSERTION_SORT_MAX 24
#define FIRST_DECOMPOSING  0xC0
#define LAST_DECOMPOSING   0x2FA1D /* beyond it nothing decomposes or is reordered */
#define ASCII_MASK         UINT64_C(0x8080808080808080)

/* Combining marks, and characters that take part in compositions, that came after Unicode 9.
 * Where a whole block is newer, the block. */
static const struct {
    uint32_t first, last;
} newer[] = {
    {0x07FD, 0x07FD},   {0x0898, 0x089F},   {0x08CA, 0x08D3},   {0x09FE, 0x09FE},
    {0x0C3C, 0x0C3C},   {0x0D3B, 0x0D3C},   {0x0EBA, 0x0EBA},   {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x105C0, 0x105FF},
    {0x10D24, 0x10D27}, {0x10D69, 0x10D6D}, {0x10EAB, 0x10EAC}, {0x10EFC, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B},
    {0x11380, 0x113FF}, {0x1145E, 0x1145E}, {0x1182C, 0x1183B}, {0x11900, 0x1195F},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16100, 0x1613F},
    {0x16D40, 0x16D7F}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
    {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF},
};

static bool is_newer(uint32_t code_point)
{
    size_t low = 0, high = sizeof newer / sizeof *newer;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code_point > newer[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof newer / sizeof *newer && code_point >= newer[low].first;
}

static int combining_class(uint32_t code_point)
{
    if (code_point < 0x300 || is_newer(code_point))
        return 0;
    return utf8proc_get_property((utf8proc_int32_t)code_point)->combining_class;
}

/* Full canonical decomposition; returns how many code points, at most MAX_DECOMPOSED. */
static size_t decompose(uint32_t code_point, uint32_t out[MAX_DECOMPOSED])
{
    utf8proc_int32_t parts[MAX_DECOMPOSED];
    utf8proc_ssize_t n = 0;
    int boundary = 0;
    if (code_point >= FIRST_DECOMPOSING && !is_newer(code_point))
        n = utf8proc_decompose_char((utf8proc_int32_t)code_point, parts, MAX_DECOMPOSED,
                                    NFC_OPTIONS, &boundary);
    if (n < 1 || n > MAX_DECOMPOSED) {
        out[0] = code_point;
        return 1;
    }
    for (utf8proc_ssize_t i = 0; i < n; i++)
        out[i] = (uint32_t)parts[i];
    return (size_t)n;
}

/* 0: the two do not compose. */
static uint32_t compose_pair(uint32_t starter, uint32_t next)
{
    if (is_newer(starter) || is_newer(next))
        return 0;
    utf8proc_int32_t pair[2] = {(utf8proc_int32_t)starter, (utf8proc_int32_t)next};
    return utf8proc_normalize_utf32(pair, 2, NFC_OPTIONS) == 1 ? (uint32_t)pair[0] : 0;
}

/* Canonical composition in place; returns the new length. A character composes with the last
 * starter when nothing between them is a starter or has a class as high as its own. */
static size_t compose(uint32_t *text, size_t n)
{
    size_t kept = 0, starter = SIZE_MAX;
    int last_class = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t code_point = text[i];
        int class = combining_class(code_point);
        if (starter != SIZE_MAX && (kept - 1 == starter || last_class < class)) {
            uint32_t composed = compose_pair(text[starter], code_point);
            if (composed) {
                text[starter] = composed;
                continue;
            }
        }
        if (class == 0)
            starter = kept;
        last_class = class;
        text[kept++] = code_point;
    }
    return kept;
}

/* Stable sort of a run of marks by class; room holds n code points. */
static void sort_marks(uint32_t *marks, size_t n, uint32_t *room)
{
    if (n <= INSERTION_SORT_MAX) {
        for (size_t i = 1; i < n; i++) {
            uint32_t mark = marks[i];
            int class = combining_class(mark);
            size_t at = i;
            for (; at > 0 && combining_class(marks[at - 1]) > class; at--)
                marks[at] = marks[at - 1];
            marks[at] = mark;
        }
        return;
    }
    size_t next[257] = {0};
    for (size_t i = 0; i < n; i++)
        next[combining_class(marks[i]) + 1]++;
    for (size_t class = 0; class < 256; class ++)
        next[class + 1] += next[class];
    memcpy(room, marks, n * sizeof *marks);
    for (size_t i = 0; i < n; i++)
        marks[next[combining_class(room[i])]++] = room[i];
}

static void sort_all_marks(uint32_t *text, size_t n, uint32_t *room)
{
    for (size_t i = 0; i < n;) {
        size_t end = i;
        while (end < n && combining_class(text[end]) != 0)
            end++;
        sort_marks(text + i, end - i, room);
        i = end + (end == i);
    }
}

/* Nothing here decomposes, apart from Hangul syllables, which are NFC as they are. */
static const struct {
    uint32_t first, last;
} inert[] = {{0x3400, 0x9FFF}, {0xAC00, 0xF8FF}, {0x17000, 0x18CFF}, {0x20000, 0x2F7FF}};

void mr_tok_nfc_mark(uint8_t *classes)
{
    /* The vowels and final consonants that join the Hangul syllable before them. */
    for (uint32_t c = 0x1161; c <= 0x11C2; c++)
        classes[c] |= c <= 0x1175 || c >= 0x11A8 ? MR_CLASS_COMPOSES : 0;
    for (uint32_t c = FIRST_DECOMPOSING, skip = 0; c <= LAST_DECOMPOSING; c++) {
        if (skip < sizeof inert / sizeof *inert && c == inert[skip].first) {
            c = inert[skip++].last;
            continue;
        }
        if (is_newer(c))
            continue;
        if (combining_class(c) != 0)
            classes[c] |= MR_CLASS_COMPOSES;
        uint32_t parts[MAX_DECOMPOSED], whole[MAX_DECOMPOSED];
        size_t n = decompose(c, parts);
        if (n == 1 && parts[0] == c)
            continue;
        memcpy(whole, parts, sizeof whole);
        if (compose(whole, n) != 1 || whole[0] != c) {
            classes[c] |= MR_CLASS_COMPOSES; /* NFC replaces it */
            continue;
        }
        for (size_t i = 1; i < n; i++)
            classes[parts[i]] |= MR_CLASS_COMPOSES; /* it may join what is before it */
    }
}

/* Room for n code points twice over: the stretch and the scratch of its sort. */
static mr_status reserve(mr_tok_run *run, size_t n)
{
    if (run->code_points_capacity >= 2 * n)
        return MR_OK;
    size_t capacity = 2 * n + 64;
    uint32_t *grown = realloc(run->code_points, capacity * sizeof *grown);
    if (!grown)
        return MR_TOK_NO_MEMORY(run->tok, run->err, capacity * sizeof *grown);
    run->code_points = grown;
    run->code_points_capacity = capacity;
    return MR_OK;
}

static mr_status normalize_stretch(mr_tok_run *run, const char *text, size_t len, mr_strbuf *out)
{
    uint32_t parts[MAX_DECOMPOSED];
    size_t n = 0;
    for (size_t i = 0; i < len; i += mr_tok_char_size((unsigned char)text[i]))
        n += decompose(mr_tok_code_point(text + i), parts);
    mr_status status = reserve(run, n + MAX_DECOMPOSED);
    if (status != MR_OK)
        return status;

    uint32_t *points = run->code_points;
    n = 0;
    for (size_t i = 0; i < len; i += mr_tok_char_size((unsigned char)text[i]))
        n += decompose(mr_tok_code_point(text + i), points + n);
    sort_all_marks(points, n, points + run->code_points_capacity / 2);
    n = compose(points, n);

    for (size_t i = 0; i < n; i++) {
        char bytes[4];
        mr_strbuf_append(out, bytes, mr_utf8_encode(points[i], bytes));
    }
    return MR_OK;
}

mr_status mr_tok_nfc(mr_tok_run *run, mr_str text, mr_strbuf *out, bool *changed)
{
    const mr_tok_classes *classes = &run->tok->classes;
    size_t copied = 0;         /* text up to here is in out */
    size_t stretch = SIZE_MAX; /* a stretch that began here is open */
    size_t boundary = 0;       /* where the last character that begins a stretch is */
    *changed = false;
    for (size_t i = 0; i < text.len;) {
        uint64_t eight;
        if (stretch == SIZE_MAX && text.len - i >= sizeof eight) {
            memcpy(&eight, text.data + i, sizeof eight);
            if ((eight & ASCII_MASK) == 0) {
                i += sizeof eight;
                boundary = i - 1;
                continue;
            }
        }
        size_t size;
        bool joins = mr_tok_class_at(classes, text.data + i, &size) & MR_CLASS_COMPOSES;
        if (joins && stretch == SIZE_MAX) {
            stretch = boundary;
        } else if (!joins) {
            if (stretch != SIZE_MAX) {
                mr_strbuf_append(out, text.data + copied, stretch - copied);
                mr_status status = normalize_stretch(run, text.data + stretch, i - stretch, out);
                if (status != MR_OK)
                    return status;
                copied = i;
                stretch = SIZE_MAX;
                *changed = true;
            }
            boundary = i;
        }
        i += size;
    }
    if (stretch != SIZE_MAX) {
        mr_strbuf_append(out, text.data + copied, stretch - copied);
        mr_status status = normalize_stretch(run, text.data + stretch, text.len - stretch, out);
        if (status != MR_OK)
            return status;
        copied = text.len;
        *changed = true;
    }
    if (*changed)
        mr_strbuf_append(out, text.data + copied, text.len - copied);
    if (out->failed)
        return MR_TOK_NO_MEMORY(run->tok, run->err, text.len);
    return MR_OK;
}
