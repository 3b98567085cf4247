/* tokenizer_unicode.c - character classes as the tokenizers library sees them.
 *
 * The classes are a table of our own and not a C library's, so that the ids of a text do not depend
 * on which Unicode version a machine's libraries know: Debian 12's PCRE2 takes nine thousand
 * letters of Unicode 16 for unassigned characters.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "engine/tokenizer_nfc.h"
#include "engine/tokenizer_private.h"

#define N_CODE_POINTS 0x110000
#define N_BLOCKS      (N_CODE_POINTS >> 8)

static const struct {
    uint32_t first, last;
    uint8_t classes;
} runs[] = {
#define L MR_CLASS_LETTER
#define N MR_CLASS_NUMBER
#define S MR_CLASS_SPACE
#define W MR_CLASS_WORD
#define D MR_CLASS_NUMERIC
#include "engine/tokenizer_classes.inc"
#undef L
#undef N
#undef S
#undef W
#undef D
};

mr_status mr_tok_classes_init(mr_tok_classes *classes, mr_arena *arena, bool with_nfc,
                              mr_error *err)
{
    mr_status status = MR_OK;
    uint8_t(*distinct)[256] = NULL;
    size_t n_distinct = 0;
    uint8_t *flat = calloc(N_CODE_POINTS, 1);
    distinct = malloc(N_BLOCKS * sizeof *distinct);
    if (!flat || !distinct) {
        status = MR_FAIL(err, NO_MEMORY, "a table of character classes");
        goto out;
    }
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        memset(flat + runs[i].first, runs[i].classes, runs[i].last - runs[i].first + 1);
    if (with_nfc)
        mr_tok_nfc_mark(flat);
    memcpy(classes->ascii, flat, sizeof classes->ascii);

    for (size_t b = 0; b < N_BLOCKS; b++) {
        size_t same = 0;
        while (same < n_distinct && memcmp(distinct[same], flat + b * 256, 256) != 0)
            same++;
        if (same == n_distinct)
            memcpy(distinct[n_distinct++], flat + b * 256, 256);
        classes->block[b] = (uint16_t)same;
    }
    classes->blocks = mr_arena_alloc(arena, n_distinct, sizeof *distinct, 64);
    if (!classes->blocks) {
        status = MR_FAIL(err, NO_MEMORY, "a table of character classes");
        goto out;
    }
    memcpy(classes->blocks, distinct, n_distinct * sizeof *distinct);

out:
    free(distinct);
    free(flat);
    return status;
}

/* GPT-2's byte alphabet: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and on,
 * in order. */
static bool stands_for_itself(uint32_t code_point)
{
    return (code_point >= 0x21 && code_point <= 0x7E) ||
           (code_point >= 0xA1 && code_point <= 0xFF && code_point != 0xAD);
}

uint32_t mr_tok_byte_char(unsigned char byte)
{
    if (stands_for_itself(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100u + byte;
    if (byte <= 0xA0)
        return 0x121u + (byte - 0x7Fu);
    return 0x143;
}

int mr_tok_char_byte(uint32_t code_point)
{
    if (stands_for_itself(code_point))
        return (int)code_point;
    if (code_point < 0x100 || code_point > 0x143)
        return -1;
    uint32_t nth = code_point - 0x100;
    return (int)(nth <= 0x20 ? nth : nth < 0x43 ? nth - 0x21 + 0x7F : 0xAD);
}
