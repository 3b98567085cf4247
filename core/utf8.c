/* utf8.c - see utf8.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/utf8.h"

#include <string.h>

size_t mr_utf8_decode(const char *text, size_t len, uint32_t *code_point)
{
    if (len == 0)
        return 0;
    const unsigned char *p = (const unsigned char *)text;
    uint32_t lead = p[0];
    if (lead < 0x80) {
        *code_point = lead;
        return 1;
    }
    size_t size;
    uint32_t value, smallest;
    if (lead >= 0xC2 && lead < 0xE0) {
        size = 2;
        value = lead & 0x1F;
        smallest = 0x80;
    } else if (lead >= 0xE0 && lead < 0xF0) {
        size = 3;
        value = lead & 0x0F;
        smallest = 0x800;
    } else if (lead >= 0xF0 && lead < 0xF5) {
        size = 4;
        value = lead & 0x07;
        smallest = 0x10000;
    } else {
        return 0;
    }
    if (len < size)
        return 0;
    for (size_t i = 1; i < size; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
        value = value << 6 | (p[i] & 0x3Fu);
    }
    if (value < smallest || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
        return 0;
    *code_point = value;
    return size;
}

size_t mr_utf8_valid_prefix(const char *text, size_t len)
{
    size_t at = 0;
    while (at < len) {
        uint64_t eight;
        if (len - at >= sizeof eight) { /* most text is ASCII: eight bytes at a time */
            memcpy(&eight, text + at, sizeof eight);
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                at += sizeof eight;
                continue;
            }
        }
        uint32_t code_point;
        size_t size = mr_utf8_decode(text + at, len - at, &code_point);
        if (size == 0)
            break;
        at += size;
    }
    return at;
}

size_t mr_utf8_encode(uint32_t code_point, char out[4])
{
    unsigned char *p = (unsigned char *)out;
    if (code_point < 0x80) {
        p[0] = (unsigned char)code_point;
        return 1;
    }
    if (code_point < 0x800) {
        p[0] = (unsigned char)(0xC0 | code_point >> 6);
        p[1] = (unsigned char)(0x80 | (code_point & 0x3F));
        return 2;
    }
    if (code_point >= 0xD800 && code_point < 0xE000)
        return 0;
    if (code_point < 0x10000) {
        p[0] = (unsigned char)(0xE0 | code_point >> 12);
        p[1] = (unsigned char)(0x80 | (code_point >> 6 & 0x3F));
        p[2] = (unsigned char)(0x80 | (code_point & 0x3F));
        return 3;
    }
    if (code_point > 0x10FFFF)
        return 0;
    p[0] = (unsigned char)(0xF0 | code_point >> 18);
    p[1] = (unsigned char)(0x80 | (code_point >> 12 & 0x3F));
    p[2] = (unsigned char)(0x80 | (code_point >> 6 & 0x3F));
    p[3] = (unsigned char)(0x80 | (code_point & 0x3F));
    return 4;
}
