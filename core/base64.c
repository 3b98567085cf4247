/* base64.c - see base64.h. OpenSSL decodes; what it is lax about (white space around the text,
 * padding counted as bytes) is checked here.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/base64.h"

#include <limits.h>
#include <openssl/evp.h>
#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

mr_status mr_base64_decode(mr_arena *arena, mr_str text, mr_bytes *out, mr_error *err)
{
    size_t padding = 0;
    if (text.len > INT_MAX)
        return MR_FAIL(err, INVALID, "%zu characters of base64, at most %d", text.len, INT_MAX);
    if (text.len % 4 != 0)
        return MR_FAIL(err, INVALID, "%zu characters, expected base64: a multiple of four",
                       text.len);
    while (padding < 2 && padding < text.len && text.data[text.len - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < text.len - padding; i++)
        if (text.data[i] == '\0' || !strchr(alphabet, text.data[i]))
            return MR_FAIL(err, INVALID, "character %zu is no base64 (RFC 4648, section 4)", i);
    unsigned char *bytes = mr_arena_alloc(arena, text.len / 4 * 3 + 1, 1, 16);
    if (!bytes)
        return MR_FAIL(err, NO_MEMORY, "%zu characters of base64", text.len);
    const int n =
        text.len ? EVP_DecodeBlock(bytes, (const unsigned char *)text.data, (int)text.len) : 0;
    if (n < 0 || (size_t)n < padding)
        return MR_FAIL(err, INVALID, "it is no base64 (RFC 4648, section 4)");
    *out = (mr_bytes){bytes, (size_t)n - padding};
    return MR_OK;
}
