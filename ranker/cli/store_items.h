/* store_items.h - whether a store holds items that a bundle can read.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_CLI_STORE_ITEMS_H
#define MR_RANKER_CLI_STORE_ITEMS_H

#include "core/json.h"
#include "featurestore/store.h"
#include "ranker/model/parts.h"

/* MISMATCH when the store has items, but none in the bundle's space; NOT_FOUND when it has none at
 * all. MR_OK for a bundle in text mode, which reads none. url is for the message. */
MR_NODISCARD mr_status mr_store_items_check(mr_store *store, const char *url,
                                            const mr_bundle *bundle, mr_error *err);

/* The item spaces of the store as an array of 16-digit texts, the first sixteen; the caller owns
 * it. */
MR_NODISCARD mr_status mr_store_items_spaces(mr_store *store, json_t **out, mr_error *err);

#endif
