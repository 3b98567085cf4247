/* coverage.h - how much of one space another one has already: whether a migration may switch.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_COVERAGE_H
#define MR_FEATURESTORE_COVERAGE_H

#include "featurestore/store.h"

typedef struct {
    uint64_t ids;        /* with a record in the current space that is no tombstone */
    uint64_t covered;    /* of ids: with one in the next space too */
    uint64_t missing;    /* of ids: nothing there */
    uint64_t removed;    /* of ids: a tombstone there, so that the current one is behind. Covered:
                            whoever ranks by the next space knows what it is to know */
    uint64_t damaged;    /* of ids: a record there that does not pass its checks */
    uint64_t older;      /* of covered: of a smaller version than the current one */
    uint64_t tombstones; /* in the current space; not among ids */
} mr_coverage;

/* (covered + removed) / ids; 1 of no ids. */
double mr_coverage_share(const mr_coverage *coverage);

/* Called for each id that is missing or damaged in the next space, in key order. */
typedef void (*mr_coverage_lacking)(void *context, mr_str id);
/* Now and then, with the ids looked at so far. */
typedef void (*mr_coverage_progress)(void *context, uint64_t done);

/* Walks `current` as one snapshot (see mr_store_walk) and looks each id up in `next`, some hundred
 * at a time. lacking and progress may be NULL. */
MR_NODISCARD mr_status mr_store_coverage(mr_store *store, mr_entity entity, uint64_t current,
                                         uint64_t next, mr_coverage_lacking lacking,
                                         mr_coverage_progress progress, void *context,
                                         mr_coverage *out, mr_error *err);

#endif
