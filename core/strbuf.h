/* strbuf.h - a growing text buffer with a sticky failure, for output built piecewise.
 *
 * Invariant: data is NULL or terminated at data[len]. After an allocation failure `failed` stays
 * true and further appends do nothing, so that one check at the end is enough.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_STRBUF_H
#define MR_CORE_STRBUF_H

#include <stdbool.h>
#include <stddef.h>

#include "core/api.h"

typedef struct {
    char *data; /* owned */
    size_t len;
    size_t capacity;
    bool failed;
} mr_strbuf;

void mr_strbuf_append(mr_strbuf *buf, const char *text, size_t len);
void mr_strbuf_puts(mr_strbuf *buf, const char *text);
void mr_strbuf_printf(mr_strbuf *buf, const char *fmt, ...) MR_PRINTF(2, 3);
void mr_strbuf_clear(mr_strbuf *buf);   /* keeps the memory */
void mr_strbuf_release(mr_strbuf *buf); /* frees it; ready for reuse */

#endif
