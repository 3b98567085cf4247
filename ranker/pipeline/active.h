/* active.h - which bundle a store is ranked with: the note "active".
 *
 *     {"format": 1, "generation": 3, "switched_ms": 1767225600000,
 *      "bundle":   {"name": "shop", "version": "2", "digest": "<sha256 of bundle.json>",
 *                   "path": "/srv/bundles/2",
 *                   "item_space": "9f..", "user_space": "4c..", "image_space": null},
 *      "previous": {...} or null}
 *
 * A bundle and its spaces are one value, so that they switch together, in one write. Every switch
 * and roll back is a compare-and-set on the whole note that it was decided by, and adds one to the
 * generation: of two operators who looked at the same state one has its way, the other is told.
 * bundle.json holds the SHA-256 of all other files, so that its own stands for the whole bundle.
 * docs/migration.md has the operator's side.
 * Threads: pure; a store's rules otherwise.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_PIPELINE_ACTIVE_H
#define MR_RANKER_PIPELINE_ACTIVE_H

#include <stdint.h>

#include "core/arena.h"
#include "core/hash.h"
#include "featurestore/store.h"
#include "ranker/model/bundle.h"

#define MR_ACTIVE_NOTE "active"

typedef struct {
    const char *name, *version, *path;
    char digest[MR_SHA256_HEX];
    uint64_t item_space, user_space, image_space; /* 0: none */
} mr_active_bundle;

typedef struct {
    uint64_t generation; /* 0: the store has no such note */
    int64_t switched_ms;
    mr_active_bundle bundle;
    mr_active_bundle previous; /* name NULL: there is none */
    mr_str text;               /* as it is stored; data NULL for generation 0 */
} mr_active;

/* Strings come from the arena. A store without the note gives generation 0 and MR_OK. CORRUPT: a
 * note that is none of ours. UNSUPPORTED: of a newer format. */
MR_NODISCARD mr_status mr_active_read(mr_store *store, mr_arena *arena, mr_active *out,
                                      mr_error *err);

/* What the note says of an open bundle in that folder. The path is made absolute. */
MR_NODISCARD mr_status mr_active_describe(const mr_bundle *bundle, const char *folder,
                                          mr_arena *arena, mr_active_bundle *out, mr_error *err);

/* Makes next the active bundle, and what `now` (from read) names the previous one. EXISTS when
 * next is active already; MISMATCH when the note changed since it was read. */
MR_NODISCARD mr_status mr_active_switch(mr_store *store, const mr_active *now,
                                        const mr_active_bundle *next, mr_error *err);
/* Exchanges the two: a second roll back goes forward again. NOT_FOUND without a previous one. */
MR_NODISCARD mr_status mr_active_roll_back(mr_store *store, const mr_active *now, mr_error *err);

/* Whether they are the same files, wherever they lie. */
bool mr_active_same(const mr_active_bundle *a, const mr_active_bundle *b);
/* MISMATCH, in words, when an open bundle is not the one that the note means. */
MR_NODISCARD mr_status mr_active_check(const mr_active_bundle *expected, const mr_bundle *bundle,
                                       const char *folder, mr_error *err);

#endif
