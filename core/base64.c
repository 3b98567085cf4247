/* base64.c - see base64.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/base64.h"

static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

mr_status mr_base64_decode(mr_arena *arena, mr_str text, mr_bytes *out, mr_error *err)
{
    size_t padding = 0, n = 0;
    if (text.len % 4 != 0)
        return MR_FAIL(err, INVALID, "%zu characters, expected base64: a multiple of four",
                       text.len);
    while (padding < 2 && padding < text.len && text.data[text.len - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < text.len - padding; i++)
        if (value_of(text.data[i]) < 0)
            return MR_FAIL(err, INVALID, "character %zu is no base64 (RFC 4648, section 4)", i);
    uint8_t *bytes = mr_arena_alloc(arena, text.len / 4 * 3 + 2, 1, 16);
    if (!bytes)
        return MR_FAIL(err, NO_MEMORY, "%zu characters of base64", text.len);
    if (!mr_base64_decode_unpadded(text, bytes, &n))
        return MR_FAIL(err, INVALID, "it is no base64 (RFC 4648, section 4)");
    *out = (mr_bytes){bytes, n};
    return MR_OK;
}

bool mr_base64_decode_unpadded(mr_str text, uint8_t *out, size_t *len)
{
    size_t n = text.len;
    for (int i = 0; i < 2 && n > 0 && text.len % 4 == 0; i++)
        n -= text.data[n - 1] == '=';
    if (n % 4 == 1)
        return false;
    uint32_t bits = 0;
    size_t written = 0;
    for (size_t i = 0; i < n; i++) {
        const int value = value_of(text.data[i]);
        if (value < 0)
            return false;
        bits = bits << 6 | (uint32_t)value;
        if (i % 4 != 0) /* 6, 12, 18, 24 bits: a byte from the second character of four on */
            out[written++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
    *len = written;
    return true;
}

void mr_base64_encode_unpadded(mr_strbuf *out, mr_bytes bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = bytes.data;
    for (size_t i = 0; i < bytes.len; i += 3) {
        const size_t left = bytes.len - i;
        const uint32_t bits = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
                              (left > 2 ? (uint32_t)p[i + 2] : 0);
        const char four[4] = {digits[bits >> 18], digits[bits >> 12 & 63], digits[bits >> 6 & 63],
                              digits[bits & 63]};
        mr_strbuf_append(out, four, left > 2 ? 4 : left + 1);
    }
}
