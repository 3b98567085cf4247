/* rotation.h - rankings that go on while a store's active bundle changes.
 *
 *     mr_rotation *rotation = NULL;
 *     mr_rotation_new(&rotation, store, NULL, &err);
 *     mr_rotation_refresh(rotation, NULL, &err);           at the start, and then every few seconds
 *     ...
 *     mr_seat *seat = NULL;                                one per thread
 *     mr_seat_new(&seat, rotation, &err);
 *     mr_seat_rank(seat, &request, &reply, &err);
 *
 * A rotation holds the bundle that the store's note names (active.h), and the one before it. A
 * request picks its bundle first: the records of its items are fetched in the active bundle's
 * spaces, and when fewer than min_coverage of them are there, also in those of the previous one.
 * If more are there, the previous bundle ranks the whole request, else the active one does, and
 * items that it lacks keep the place of their prior. Everything of one ranking, its user too, is of
 * one bundle and its spaces, and nothing is scored twice. The reply says by which bundle; in either
 * case it is degraded by MR_REASON_LOW_COVERAGE.
 *
 * A request with vectors inline is never ranked by the previous bundle: they were made for the
 * active one. Nor does one that the previous bundle refuses fail for that.
 *
 * A refresh reads the note; when its generation changed, it loads the bundle beside those that are
 * in use, with its golden requests, and exchanges the pointers. Rankings under way end with what
 * they began with. When anything fails, all stays as it was. For the time of a load three bundles
 * may be in memory.
 * Threads: a rotation may be used by any, one refresh runs at a time; a seat belongs to one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_PIPELINE_ROTATION_H
#define MR_RANKER_PIPELINE_ROTATION_H

#include "ranker/pipeline/active.h"
#include "ranker/pipeline/ranker.h"

typedef struct mr_rotation mr_rotation;
typedef struct mr_seat mr_seat;

/* Opens the bundle that the note means, golden requests included. The default opens its path; a
 * service that keeps bundles elsewhere finds it by name, version and digest. Whatever is opened is
 * closed with mr_bundle_close, and *folder (in the arena) says where it lies. */
typedef mr_status (*mr_rotation_opener)(void *context, const mr_active_bundle *wanted,
                                        mr_arena *arena, mr_bundle **bundle, const char **folder,
                                        mr_error *err);

typedef struct {
    mr_ranker_options ranker;  /* of every ranker; min_coverage is the bound above */
    mr_rotation_opener opener; /* NULL: by path */
    void *context;             /* the opener's */
    int threads;               /* of each bundle's pool, by path; 0: the CPUs of this process */
    bool no_previous;          /* hold the active bundle alone */
} mr_rotation_options;
#define MR_ROTATION_OPTIONS_DEFAULT         \
    {                                       \
        .ranker = MR_RANKER_OPTIONS_DEFAULT \
    }

/* store is borrowed; options (copied) may be NULL. Empty until the first refresh. */
MR_NODISCARD mr_status mr_rotation_new(mr_rotation **out, mr_store *store,
                                       const mr_rotation_options *options, mr_error *err);
/* After all of its seats. NULL is fine. */
void mr_rotation_free(mr_rotation *rotation);

typedef struct {
    bool changed;
    uint64_t generation;     /* in use now */
    mr_error previous_error; /* why there is no previous one, although the note names it; or OK */
} mr_rotation_news;
/* NOT_FOUND when the store names no active bundle and none is in use. news may be NULL. */
MR_NODISCARD mr_status mr_rotation_refresh(mr_rotation *rotation, mr_rotation_news *news,
                                           mr_error *err);
/* 0 before the first refresh that succeeded. */
uint64_t mr_rotation_generation(mr_rotation *rotation);

MR_NODISCARD mr_status mr_seat_new(mr_seat **out, mr_rotation *rotation, mr_error *err);
void mr_seat_free(mr_seat *seat); /* NULL is fine */
/* As mr_ranker_rank. UNAVAILABLE before the first refresh that succeeded. */
MR_NODISCARD mr_status mr_seat_rank(mr_seat *seat, const mr_rank_request *request,
                                    mr_rank_reply **reply, mr_error *err);
/* The active bundle, to ask it what it is; borrowed until the seat's next call. NULL before the
 * first refresh that succeeded. */
const mr_bundle *mr_seat_bundle(mr_seat *seat);

#endif
