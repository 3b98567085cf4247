/* log.c - see log.h.
 *
 * A line is built whole and written with one call, so that lines of different threads do not mix.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "core/progress.h"
#include "core/strbuf.h"
#include "core/utf8.h"

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static atomic_int minimum_level = MR_LOG_INFO;
static atomic_bool as_json;

void mr_log_set_level(mr_log_level minimum)
{
    atomic_store(&minimum_level, (int)minimum);
}

void mr_log_set_json(int on)
{
    atomic_store(&as_json, on != 0);
}

/* Between double quotes, as a JSON string: valid in both forms. Bytes that are not UTF-8 become
 * U+FFFD: a reader of JSON lines must not choke on the one line that tells of broken input. */
static void put_quoted(mr_strbuf *out, const char *text)
{
    size_t len = strlen(text);
    mr_strbuf_append(out, "\"", 1);
    for (size_t i = 0; i < len;) {
        uint32_t c;
        size_t size = mr_utf8_decode(text + i, len - i, &c);
        if (size == 0) {
            mr_strbuf_puts(out, "\xEF\xBF\xBD");
            i++;
            continue;
        }
        if (c == '"' || c == '\\')
            mr_strbuf_printf(out, "\\%c", (char)c);
        else if (c == '\n')
            mr_strbuf_puts(out, "\\n");
        else if (c == '\t')
            mr_strbuf_puts(out, "\\t");
        else if (c < 0x20 || (c >= 0x7f && c < 0xa0)) /* C1 controls move a terminal, too */
            mr_strbuf_printf(out, "\\u%04x", (unsigned)c);
        else
            mr_strbuf_append(out, text + i, size);
        i += size;
    }
    mr_strbuf_append(out, "\"", 1);
}

/* A word that needs no quotes in the text form. */
static bool is_plain(const char *text)
{
    for (const char *p = text; *p; p++) {
        bool plain = (*p >= '0' && *p <= '9') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= 'a' && *p <= 'z') || strchr("-_./:%+,@", *p) != NULL;
        if (!plain)
            return false;
    }
    return *text != '\0';
}

static void put_time(mr_strbuf *out)
{
    int64_t now_ms = mr_clock_wall_ms();
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm utc;
    char text[32];
    if (!gmtime_r(&seconds, &utc) || !strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc))
        text[0] = '\0';
    mr_strbuf_printf(out, "%s.%03dZ", text, (int)(now_ms % 1000));
}

void mr_log(mr_log_level level, const char *component, const char *event, ...)
{
    if ((int)level < atomic_load(&minimum_level))
        return;
    bool json = atomic_load(&as_json);
    const char *level_name = level <= MR_LOG_ERROR ? level_names[level] : "error";

    mr_strbuf line = {0};
    if (json) {
        mr_strbuf_puts(&line, "{\"ts\":\"");
        put_time(&line);
        mr_strbuf_printf(&line, "\",\"level\":\"%s\",\"component\":", level_name);
        put_quoted(&line, component);
        mr_strbuf_puts(&line, ",\"event\":");
        put_quoted(&line, event);
    } else {
        put_time(&line);
        mr_strbuf_printf(&line, " %-5s %s: %s", level_name, component, event);
    }

    va_list pairs;
    va_start(pairs, event);
    const char *key;
    while ((key = va_arg(pairs, const char *)) != NULL) {
        const char *value = va_arg(pairs, const char *);
        if (json) {
            mr_strbuf_append(&line, ",", 1);
            put_quoted(&line, key);
            mr_strbuf_append(&line, ":", 1);
        } else {
            mr_strbuf_printf(&line, " %s=", key);
        }
        if (!value) {
            mr_strbuf_puts(&line, json ? "null" : "-");
            break;
        }
        if (json || !is_plain(value))
            put_quoted(&line, value);
        else
            mr_strbuf_puts(&line, value);
    }
    va_end(pairs);
    mr_strbuf_puts(&line, json ? "}\n" : "\n");

    mr_progress_clear();
    if (line.failed) /* out of memory: the event itself still gets out */
        fprintf(stderr, "%s %s: %s\n", level_name, component, event);
    else
        (void)fwrite(line.data, 1, line.len, stderr);
    mr_strbuf_release(&line);
}
