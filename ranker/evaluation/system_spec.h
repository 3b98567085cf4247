/* system_spec.h - what is to be measured, as a caller writes it.
 *
 *   random, bm25, bm25-history, tfidf, lsa, co-occurrence, sum, history-sum, linear
 *                              a baseline (baseline.h)
 *   dot:BUNDLE[,option...]     late fusion by the bundle's item encoder (bundle_system.h)
 *   bundle:DIR[,option...]     the bundle itself
 *   run:FILE[,option...]       a TREC run that was written before; % stands for the task
 *
 *   name=TEXT                  in reports; else the spec with the last part of its path
 *   no-user, no-query          leave the history or the query out
 *   store=URL                  vectors from there instead of encoding them (dot, bundle)
 *   blend=W, blend=tune        score + W x prior; tune: W by NDCG@10 on rows of split valid
 *   prior=BASELINE             of blend; bm25 when left out
 *   history-items=N            items of a prompt's field "history" (bundle); 50
 *   history=W, nearest=N, last the parts of dot; 1, 3, and the mean of a query's tokens
 *
 * Threads: pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_SYSTEM_SPEC_H
#define MR_RANKER_EVALUATION_SYSTEM_SPEC_H

#include <stdbool.h>
#include <stddef.h>

#include "core/arena.h"
#include "core/error.h"
#include "ranker/evaluation/baseline.h"
#include "ranker/evaluation/bundle_system.h"

typedef enum { MR_SYSTEM_BASELINE, MR_SYSTEM_DOT, MR_SYSTEM_BUNDLE, MR_SYSTEM_RUN } mr_system_kind;

typedef struct {
    const char *text; /* as given */
    const char *name;
    mr_system_kind kind;
    mr_baseline baseline; /* of MR_SYSTEM_BASELINE */
    const char *path;     /* of the others */
    const char *store;    /* or NULL */
    mr_bundle_variant variant;
    mr_dot_options dot;
    double blend; /* 0: none */
    bool tune;
    mr_baseline prior;
} mr_system_spec;

/* Strings of *out are in the arena. INVALID names the spec, the part and what may stand there. */
MR_NODISCARD mr_status mr_system_spec_parse(mr_arena *arena, const char *text, mr_system_spec *out,
                                            mr_error *err);
/* The same system with a tuned blend, under a name that says so. */
MR_NODISCARD mr_status mr_system_spec_tuned(mr_arena *arena, const mr_system_spec *spec,
                                            mr_system_spec *out, mr_error *err);
/* Whether both give the same scores before any blend, so that one computation serves both. */
bool mr_system_spec_same_scores(const mr_system_spec *a, const mr_system_spec *b);

#endif
