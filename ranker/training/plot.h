/* plot.h - a journal as a picture: an SVG of loss against steps that a browser shows as it is.
 *
 * Dots are the losses of steps, the line their running mean, the ringed line the valid split, the
 * thin line the learning rate on an axis of its own at the right. The file refers to nothing
 * outside itself, follows the reader's dark mode, and has the same bytes for the same journal.
 * However long a run was, the file stays below about 100 kB: a column of pixels shows its extremes.
 * Threads: none shared.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_PLOT_H
#define MR_RANKER_TRAINING_PLOT_H

#include "core/error.h"
#include "core/strbuf.h"
#include "ranker/training/journal.h"

typedef enum {
    MR_PLOT_AUTO,   /* logarithmic where losses span more than a factor of 30 */
    MR_PLOT_LINEAR, /* of losses; steps are always linear */
    MR_PLOT_LOG,    /* INVALID when a loss is not above 0 */
} mr_plot_scale;

typedef struct {
    const char *title; /* UTF-8; NULL: "training" */
    mr_plot_scale scale;
    int64_t steps; /* of the whole run: where the axis ends; 0: at the last row */
} mr_plot_options;

/* Appends the SVG. No rows give axes and a word that there are none. */
MR_NODISCARD mr_status mr_plot_render(const mr_journal_rows *rows, const mr_plot_options *opt,
                                      mr_strbuf *out, mr_error *err);

#define MR_PLOT_NAME "loss.svg"

/* Reads the journal of a run's folder and replaces the picture in it, in one step. The title is the
 * folder's own name. */
MR_NODISCARD mr_status mr_plot_journal(const char *folder, mr_error *err);

#endif
