/* base64.h - RFC 4648 section 4: the standard alphabet, without line breaks.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_BASE64_H
#define MR_CORE_BASE64_H

#include "core/arena.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/strbuf.h"

/* Padded text. The bytes live in the arena. INVALID for a length that is no multiple of four, for
 * padding anywhere but at the end, and for any other character. */
MR_NODISCARD mr_status mr_base64_decode(mr_arena *arena, mr_str text, mr_bytes *out, mr_error *err);

/* As protocols have it that leave the padding out or not: bits beyond the last byte are ignored.
 * Writes at most text.len / 4 * 3 + 2 bytes; false for a character or a length that cannot be. */
bool mr_base64_decode_unpadded(mr_str text, uint8_t *out, size_t *len);
void mr_base64_encode_unpadded(mr_strbuf *out, mr_bytes bytes);

#endif
