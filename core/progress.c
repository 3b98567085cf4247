/* progress.c - see progress.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/progress.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/strbuf.h"

#define REDRAW_US       100000
#define BAR_CELLS       20
#define LINE_SIZE       256
#define COLUMNS_DEFAULT 80
#define ERASE_LINE      "\r\033[K"

static atomic_bool quiet;
static atomic_bool on_screen; /* a bar stands on the current line of the terminal */

void mr_progress_set_quiet(bool is_quiet)
{
    atomic_store(&quiet, is_quiet);
}

static bool stderr_can_show(void)
{
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
}

static int columns_of_stderr(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return COLUMNS_DEFAULT;
}

mr_progress mr_progress_start(const char *label, uint64_t total, const char *unit)
{
    return (mr_progress){
        .label = label,
        .unit = unit,
        .total = total,
        .started_us = mr_clock_monotonic_us(),
        .visible = !atomic_load(&quiet) && stderr_can_show(),
    };
}

/* "07:35" or "2:07:35". */
static void format_duration(double seconds, char *out, size_t size)
{
    uint64_t s = seconds < 359999 ? (uint64_t)(seconds + 0.5) : 359999; /* 99:59:59 */
    if (s >= 3600)
        snprintf(out, size, "%u:%02u:%02u", (unsigned)(s / 3600), (unsigned)(s / 60 % 60),
                 (unsigned)(s % 60));
    else
        snprintf(out, size, "%02u:%02u", (unsigned)(s / 60), (unsigned)(s % 60));
}

void mr_progress_format(const mr_progress *bar, uint64_t done, int64_t now_us, const char *note,
                        int columns, char *out, size_t size)
{
    mr_strbuf line = {0};
    double seconds = (double)(now_us - bar->started_us) * 1e-6;
    double rate = seconds > 0 ? (double)done / seconds : 0;
    mr_strbuf_puts(&line, bar->label);
    if (bar->total > 0) {
        uint64_t shown = done < bar->total ? done : bar->total;
        double share = (double)shown / (double)bar->total;
        int full = (int)(share * BAR_CELLS);
        mr_strbuf_printf(&line, " [%.*s%.*s] %3d%%  %" PRIu64 "/%" PRIu64 " %s", full,
                         "####################", BAR_CELLS - full, "--------------------",
                         (int)(share * 100), done, bar->total, bar->unit);
    } else {
        mr_strbuf_printf(&line, "  %" PRIu64 " %s", done, bar->unit);
    }
    if (rate > 0) {
        mr_strbuf_printf(&line, "  %.*f/s", rate < 10 ? 1 : 0, rate);
        if (done < bar->total) {
            char left[16];
            format_duration((double)(bar->total - done) / rate, left, sizeof left);
            mr_strbuf_printf(&line, "  %s left", left);
        }
    }
    if (note)
        mr_strbuf_printf(&line, "  %s", note);

    size_t limit = columns > 0 && (size_t)columns < size ? (size_t)columns + 1 : size;
    snprintf(out, limit, "%s", line.data ? line.data : "");
    mr_strbuf_release(&line);
}

void mr_progress_clear(void)
{
    if (atomic_exchange(&on_screen, false))
        fputs(ERASE_LINE, stderr);
}

void mr_progress_update(mr_progress *bar, uint64_t done, const char *note)
{
    if (!bar->visible)
        return;
    int64_t now = mr_clock_monotonic_us();
    if (bar->drawn_us != 0 && now - bar->drawn_us < REDRAW_US)
        return;
    bar->drawn_us = now;
    char line[LINE_SIZE];
    /* A full last column would make some terminals wrap. */
    mr_progress_format(bar, done, now, note, columns_of_stderr() - 1, line, sizeof line);
    fprintf(stderr, ERASE_LINE "%s", line);
    atomic_store(&on_screen, true);
}

void mr_progress_finish(mr_progress *bar, const char *summary)
{
    if (bar->visible)
        mr_progress_clear();
    bar->visible = false;
    if (!summary || atomic_load(&quiet))
        return;
    double seconds = (double)(mr_clock_monotonic_us() - bar->started_us) * 1e-6;
    if (seconds < 60) {
        fprintf(stderr, "%s in %.1f s\n", summary, seconds);
    } else {
        char took[16];
        format_duration(seconds, took, sizeof took);
        fprintf(stderr, "%s in %s\n", summary, took);
    }
}
