/* refresh_encode.h - the encode function of `mixrank refresh`: rows of Kafka messages into records,
 * with a bundle's encoders. Private to ranker/cli.
 *
 * Items are rows as `encode` reads them: {id, title?, text?, ...} for a bundle with a text encoder,
 * {id, vector | vectors} where vectors come from outside. Pictures are not encoded here. Users are
 * {id, history: [item ids]}, made of the items that the store has by then; an empty history is a
 * user that has none, and leaves a tombstone.
 * Threads: one at a time.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_CLI_REFRESH_ENCODE_H
#define MR_RANKER_CLI_REFRESH_ENCODE_H

#include "featurestore/refresher.h"
#include "ranker/cli/encode_parts.h"

typedef struct {
    const mr_bundle *bundle; /* borrowed, as is the store */
    mr_store *store;
    mr_record_dtype dtype;
    mr_text_encoder *text_encoder; /* NULL: vectors from outside, or no items */
    mr_user_encoder *user_encoder; /* NULL: users are their items' vectors, or no users */
    mr_arena arena;                /* of one call */
} mr_refresh_encode;

typedef struct {
    bool items, users; /* which topics of rows are read */
    bool exact;        /* encode with the scoring kernels */
    mr_record_dtype dtype;
} mr_refresh_encode_options;

/* MISMATCH when the bundle has no encoder for what is read. */
MR_NODISCARD mr_status mr_refresh_encode_open(mr_refresh_encode *out, const mr_bundle *bundle,
                                              mr_store *store,
                                              const mr_refresh_encode_options *options,
                                              mr_error *err);
void mr_refresh_encode_close(mr_refresh_encode *encode);

/* For mr_refresh_encoder; context is a mr_refresh_encode. */
MR_NODISCARD mr_status mr_refresh_encode_rows(void *context, mr_entity entity, uint64_t space,
                                              const mr_refresh_row *rows, size_t n,
                                              mr_refresh_record *out, mr_error *err);

#endif
