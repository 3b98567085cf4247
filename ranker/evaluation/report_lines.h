/* report_lines.h - the figures of a report, before anybody prints them. See report.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_REPORT_LINES_H
#define MR_RANKER_EVALUATION_REPORT_LINES_H

#include "ranker/evaluation/report.h"

typedef struct {
    bool blank; /* no figures */
    double mean[MR_MEASURE_COUNT];
    mr_interval ndcg, rr, hit; /* MR_MEASURE_NDCG, _RR_BEST, _HIT_10 */
    bool has_gain;             /* there is another system to compare with */
    mr_interval gain_ndcg, gain_rr;
    double tokens;        /* computed per candidate, its share of prefixes too */
    double suffix_tokens; /* of these, a candidate's own */
    double per_second;    /* candidates; 0: not measured */
    double item_bytes;    /* 0: not known */
    double unscored;      /* share of the candidates */
} mr_report_line;

/* A system over a task's rows; without_family: over those that are not of a name family. */
MR_NODISCARD mr_status mr_report_make_line(const mr_evaluation *evaluation,
                                           const mr_report_options *options,
                                           const mr_task_result *task, size_t system,
                                           bool without_family, mr_report_line *out, mr_error *err);
/* Whether a task has lines without name families, and how many rows they are over. */
bool mr_report_has_families(const mr_report_options *options, const mr_task_result *task,
                            size_t *n_rows);

#endif
