/* utf8.h - validation and iteration, as RFC 3629: no surrogates, no overlong forms, <= U+10FFFF.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_UTF8_H
#define MR_CORE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length of the valid part; equals len when all is valid. */
size_t mr_utf8_valid_prefix(const char *text, size_t len);

/* Decodes the code point at text[0..len); returns its length in bytes, 0 when invalid or empty. */
size_t mr_utf8_decode(const char *text, size_t len, uint32_t *code_point);

/* Writes 1..4 bytes; returns how many, 0 for a surrogate or a value out of range. */
size_t mr_utf8_encode(uint32_t code_point, char out[4]);

#endif
