/* tokenizer_lowercase.c - lower case, character by character, as the tokenizers library has it.
 *
 * Each character is mapped on its own: no final sigma, no language. The table is our own, as that
 * of the classes is: utf8proc 2.8 (Unicode 15) leaves 55 capitals of Unicode 16 and 17 as they are.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/utf8.h"
#include "engine/tokenizer_private.h"

/* The one that becomes two: an i and a dot above that combines. */
#define DOTTED_CAPITAL_I 0x130
#define COMBINING_DOT    "\xcc\x87"

static const struct {
    uint32_t first, last, step;
    int32_t add;
} runs[] = {
#include "engine/tokenizer_lowercase.inc"
};

static uint32_t lower(uint32_t character)
{
    size_t low = 0, high = sizeof runs / sizeof *runs;
    if (character == DOTTED_CAPITAL_I)
        return 'i';
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (runs[middle].last < character)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == sizeof runs / sizeof *runs || character < runs[low].first ||
        (character - runs[low].first) % runs[low].step != 0)
        return character;
    return (uint32_t)((int32_t)character + runs[low].add);
}

void mr_tok_lowercase(mr_str text, mr_strbuf *out, bool *changed)
{
    size_t copied = 0, size;
    for (size_t i = 0; i < text.len; i += size) {
        uint32_t from = (unsigned char)text.data[i], to = from;
        size = 1;
        if (from < 0x80) {
            to = from >= 'A' && from <= 'Z' ? from + ('a' - 'A') : from;
        } else {
            from = mr_tok_code_point(text.data + i); /* the text was checked */
            size = mr_tok_char_size((unsigned char)text.data[i]);
            to = lower(from);
        }
        if (to == from)
            continue;
        char bytes[4];
        mr_strbuf_append(out, text.data + copied, i - copied);
        mr_strbuf_append(out, bytes, mr_utf8_encode(to, bytes));
        if (from == DOTTED_CAPITAL_I)
            mr_strbuf_append(out, COMBINING_DOT, sizeof COMBINING_DOT - 1);
        copied = i + size;
        *changed = true;
    }
    if (*changed)
        mr_strbuf_append(out, text.data + copied, text.len - copied);
}
