/* report.h - is the data sane? Random order and plain BM25 on every task, beside what the same
 * tasks gave when the data set was studied (Debian 12.15).
 *
 * Measures: NDCG@10 with gain 2^grade - 1, and the reciprocal rank of the first item with the
 * highest grade. Equal scores are ordered by a seeded draw. Tasks against the whole catalogue: the
 * share of queries with the answer among the first 100, and the reciprocal rank within these.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_DEPLOY_DEMO_REPORT_H
#define MR_DEPLOY_DEMO_REPORT_H

#include <stdio.h>

#include "deploy/demo/tasks.h"

typedef struct {
    size_t n;
    double ndcg, reciprocal_rank, random_ndcg; /* sums */
} demo_figures;

typedef struct {
    demo_sink sink; /* first: put() casts back; measures and passes on */
    demo_sink *next;
    const demo_items *items;
    demo_bm25 *full;
    demo_bm25 *detail;
    demo_figures figures[DEMO_TASKS][2]; /* all splits; split "test" */
    /* scratch */
    double *score;
    size_t *order;
    int *grade;
    size_t capacity;
} demo_report;

/* next may be NULL. */
void demo_report_init(demo_report *out, const demo_items *items, demo_bm25 *full, demo_bm25 *detail,
                      demo_sink *next);
void demo_report_print(const demo_report *report, const demo_people *people, FILE *stream);
void demo_report_done(demo_report *report);

/* grade[order[0]], grade[order[1]], ... in the ranked order, n of them. */
double demo_ndcg(const int *grade, const size_t *order, size_t n, size_t cut);

#endif
