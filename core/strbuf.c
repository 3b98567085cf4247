/* strbuf.c - see strbuf.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/strbuf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 128

/* Room for `more` bytes and the terminator. */
static bool reserve(mr_strbuf *buf, size_t more)
{
    if (buf->failed)
        return false;
    if (buf->data && more < buf->capacity - buf->len)
        return true;
    if (more > SIZE_MAX / 4 || buf->len > SIZE_MAX / 4) {
        buf->failed = true;
        return false;
    }
    size_t capacity = buf->capacity ? buf->capacity * 2 : FIRST_CAPACITY;
    if (capacity < buf->len + more + 1)
        capacity = buf->len + more + 1;
    char *data = realloc(buf->data, capacity);
    if (!data) {
        buf->failed = true;
        return false;
    }
    if (!buf->data)
        data[0] = '\0';
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

void mr_strbuf_append(mr_strbuf *buf, const char *text, size_t len)
{
    if (!reserve(buf, len))
        return;
    if (len)
        memcpy(buf->data + buf->len, text, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
}

void mr_strbuf_puts(mr_strbuf *buf, const char *text)
{
    mr_strbuf_append(buf, text, strlen(text));
}

void mr_strbuf_printf(mr_strbuf *buf, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int need = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (need < 0)
        buf->failed = true;
    if (need < 0 || !reserve(buf, (size_t)need))
        return;
    va_start(ap, fmt);
    (void)vsnprintf(buf->data + buf->len, (size_t)need + 1, fmt, ap);
    va_end(ap);
    buf->len += (size_t)need;
}

void mr_strbuf_clear(mr_strbuf *buf)
{
    buf->len = 0;
    if (buf->data)
        buf->data[0] = '\0';
}

void mr_strbuf_release(mr_strbuf *buf)
{
    free(buf->data);
    *buf = (mr_strbuf){0};
}
