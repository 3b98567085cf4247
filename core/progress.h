/* progress.h - a progress bar on standard error, when that is a terminal and nobody asked for
 * quiet.
 *
 *     mr_progress bar = mr_progress_start("encoding", total_items, "items");
 *     mr_progress_update(&bar, done, "2.1 k tokens/s");
 *     mr_progress_finish(&bar, "encoded 11860 items");
 *
 * Redraws at most ten times a second. Shows share, rate, time left and an optional note. With no
 * terminal it stays silent but for the closing line. total 0: a count without a share.
 * Threads: one bar, one thread; one visible bar in a process.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_PROGRESS_H
#define MR_CORE_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *label; /* borrowed */
    const char *unit;  /* borrowed */
    uint64_t total;
    int64_t started_us;
    int64_t drawn_us; /* when last; 0: never */
    bool visible;
} mr_progress;

void mr_progress_set_quiet(bool quiet); /* for all bars of the process */
mr_progress mr_progress_start(const char *label, uint64_t total, const char *unit);
void mr_progress_update(mr_progress *bar, uint64_t done, const char *note /* may be NULL */);
void mr_progress_finish(mr_progress *bar, const char *summary /* may be NULL */);

/* Takes a bar off the line that it stands on, so that a log line can be written; the next update
 * draws it again. Any thread. */
void mr_progress_clear(void);

/* The text of one redraw, without cursor movement, at most `columns` wide. Apart from drawing so
 * that it can be tested. */
void mr_progress_format(const mr_progress *bar, uint64_t done, int64_t now_us, const char *note,
                        int columns, char *out, size_t size);

#endif
