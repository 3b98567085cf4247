/* bundle_system_private.h - inside of mr_bundle_system. See bundle_system.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_BUNDLE_SYSTEM_PRIVATE_H
#define MR_RANKER_EVALUATION_BUNDLE_SYSTEM_PRIVATE_H

#include "core/strbuf.h"
#include "featurestore/record.h"
#include "featurestore/store.h"
#include "ranker/evaluation/bundle_system.h"
#include "ranker/model/parts.h"
#include "ranker/pipeline/ranker.h"

struct mr_bundle_system {
    mr_bundle *bundle;
    mr_text_encoder *encoder; /* opened when first needed */
    mr_store *store;
    bool own_store; /* in memory, filled by prepare */
    mr_ranker *ranker;
    const mr_tasks *tasks; /* borrowed; NULL: not prepared */
    /* Means of the items' tokens, of unit length: item i has row slot[i] - 1 of mean, 0: none. */
    float *mean;
    uint32_t *slot; /* [items] */
    size_t n_slots;
    uint64_t record_bytes, n_records;
    mr_arena arena; /* of one call */
    mr_strbuf text; /* of a history */
};

/* bundle_dot.c */
MR_NODISCARD mr_status mr_bundle_system_make_means(mr_bundle_system *system, const uint8_t *needed,
                                                   mr_error *err);

#endif
