/* error.c - see error.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/error.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/utf8.h"

#define MESSAGE_SIZE ((int)sizeof((mr_error){0}.message))

typedef struct {
    const char *name;
    const char *text;
    int grpc_code;
    int retryable;
} status_row;

static const status_row status_table[] = {
#define STATUS_ROW(name, grpc, retry, text) {#name, text, grpc, retry},
    MR_STATUS_MAP(STATUS_ROW)
#undef STATUS_ROW
};

static const status_row *row_of(mr_status status)
{
    if ((size_t)status >= MR_STATUS_COUNT)
        status = MR_INTERNAL;
    return &status_table[status];
}

const char *mr_status_text(mr_status status)
{
    return row_of(status)->text;
}

const char *mr_status_name(mr_status status)
{
    return row_of(status)->name;
}

int mr_status_grpc_code(mr_status status)
{
    return row_of(status)->grpc_code;
}

int mr_status_is_retryable(mr_status status)
{
    return row_of(status)->retryable;
}

/* Messages quote input. A terminal escape, a new line or broken UTF-8 in a file name must not reach
 * a log as itself, and a message cut to size must not end in half a character. */
static void make_printable(char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len;) {
        uint32_t c;
        size_t size = mr_utf8_decode(text + i, len - i, &c);
        if (size == 0 && len == MESSAGE_SIZE - 1 && len - i < 4) {
            text[i] = '\0'; /* the cut */
            return;
        }
        if (size == 0) {
            text[i++] = '?';
            continue;
        }
        if (c < 0x20 || (c >= 0x7f && c < 0xa0)) /* C0, DEL, C1 */
            memset(text + i, '?', size);
        i += size;
    }
}

mr_status mr_error_set(mr_error *err, mr_status status, const char *file, int line, const char *fmt,
                       ...)
{
    if (!err)
        return status;
    char message[MESSAGE_SIZE]; /* apart: an argument may point into err->message */
    va_list ap;
    va_start(ap, fmt);
    if (vsnprintf(message, sizeof message, fmt, ap) < 0)
        message[0] = '\0';
    va_end(ap);
    make_printable(message);
    *err = (mr_error){.status = status, .file = file, .line = line};
    memcpy(err->message, message, sizeof message);
    return status;
}

mr_status mr_error_prefix(mr_error *err, mr_status status, const char *fmt, ...)
{
    if (!err)
        return status;
    if (err->status == MR_OK) /* a failure that left no word must not come out as a success */
        err->status = status;
    char joined[2 * MESSAGE_SIZE];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(joined, MESSAGE_SIZE, fmt, ap);
    va_end(ap);
    if (n < 0 || n >= MESSAGE_SIZE)
        return err->status;
    memcpy(joined + n, ": ", 2);
    memcpy(joined + n + 2, err->message, MESSAGE_SIZE);
    joined[MESSAGE_SIZE - 1] = '\0';
    make_printable(joined);
    memcpy(err->message, joined, MESSAGE_SIZE);
    return err->status;
}
