/* base64.h - RFC 4648 section 4 into bytes: the standard alphabet, padded, without line breaks.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_BASE64_H
#define MR_CORE_BASE64_H

#include "core/arena.h"
#include "core/bytes.h"
#include "core/error.h"

/* The bytes live in the arena. INVALID for a length that is no multiple of four, for padding
 * anywhere but at the end, and for any other character. */
MR_NODISCARD mr_status mr_base64_decode(mr_arena *arena, mr_str text, mr_bytes *out, mr_error *err);

#endif
