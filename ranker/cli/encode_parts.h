/* encode_parts.h - how a bundle makes records of one item and one user: what `encode` does for
 * files and `refresh` for messages. Private to ranker/cli.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_CLI_ENCODE_PARTS_H
#define MR_RANKER_CLI_ENCODE_PARTS_H

#include "core/arena.h"
#include "featurestore/record.h"
#include "featurestore/store.h"
#include "ranker/cli/catalogue.h"
#include "ranker/model/parts.h"

/* Vectors that came with a row, checked against the bundle's external item encoder, into out
 * [spec->tokens][spec->dim]. INVALID or MISMATCH names the item. */
MR_NODISCARD mr_status mr_encode_take_vectors(const mr_encoder_spec *spec,
                                              const mr_catalogue_item *row, float *out,
                                              uint16_t *tokens, mr_error *err);

/* What users are made with; all borrowed. */
typedef struct {
    const mr_bundle *bundle;
    mr_store *store;          /* holds the items' records */
    mr_user_encoder *encoder; /* NULL: users are their items' vectors */
} mr_encode_user_source;

typedef struct {
    const float *values; /* [tokens][bundle->user.dim] in the arena */
    size_t tokens;       /* 0: none of the history's items is in the store */
    size_t unknown;      /* items of the history without a record */
} mr_encode_user_vectors;

/* A user from the stored vectors of the items that stand for the history. INVALID for a history
 * that is no array of strings; else what the store says. */
MR_NODISCARD mr_status mr_encode_make_user(const mr_encode_user_source *source,
                                           const json_t *history, mr_arena *arena,
                                           mr_encode_user_vectors *out, mr_error *err);

/* A record in the arena; values NULL: a tombstone, whatever tokens and dim are. */
MR_NODISCARD mr_status mr_encode_make_record(mr_record_info info, const float *values,
                                             mr_arena *arena, mr_bytes *out, mr_error *err);

#endif
