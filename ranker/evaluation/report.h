/* report.h - an evaluation as a table for a terminal, as JSON, as a page of documentation.
 *
 * All three show the same lines: for each task a line per system, over all rows, and where
 * `no_family` asks for it and rows are marked so, over those whose answer is not of a name family
 * in the history. Intervals resample people (intervals.h). Gains are paired: of a system over the
 * one that it is compared with, row by row.
 * Threads: pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_REPORT_H
#define MR_RANKER_EVALUATION_REPORT_H

#include "core/json.h"
#include "core/strbuf.h"
#include "ranker/evaluation/evaluation.h"

#define MR_REPORT_NO_AGAINST SIZE_MAX

typedef struct {
    size_t against; /* place of the system that gains are over, or MR_REPORT_NO_AGAINST */
    bool no_family;
    mr_bootstrap_options bootstrap;
} mr_report_options;

/* The place of the system with this name; NOT_FOUND with the names that there are. */
MR_NODISCARD mr_status mr_report_find_system(const mr_evaluation *evaluation, const char *name,
                                             size_t *out, mr_error *err);

MR_NODISCARD mr_status mr_report_table(const mr_evaluation *evaluation,
                                       const mr_report_options *options, mr_strbuf *out,
                                       mr_error *err);
/* The caller owns *out. */
MR_NODISCARD mr_status mr_report_json(const mr_evaluation *evaluation,
                                      const mr_report_options *options, json_t **out,
                                      mr_error *err);
/* command: how the page is made again, as one line or more; without paths of this machine. */
MR_NODISCARD mr_status mr_report_markdown(const mr_evaluation *evaluation,
                                          const mr_report_options *options, const char *command,
                                          mr_strbuf *out, mr_error *err);

#endif
