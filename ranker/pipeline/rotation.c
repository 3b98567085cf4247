/* rotation.c - see rotation.h.
 *
 * Bundles are counted: the rotation holds the two that are current, each seat those that its
 * rankers were made of, so that a bundle is closed when the last seat has moved on. A seat looks at
 * the generation at each request, and makes its rankers anew when that changed; the rankers of a
 * bundle that stays (the active one becomes the previous) are kept.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/pipeline/rotation.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "ranker/pipeline/ranking.h"

/* A loaded bundle. */
typedef struct {
    mr_bundle *bundle;
    char digest[MR_SHA256_HEX];
    int users; /* under the rotation's lock */
} loaded;

struct mr_rotation {
    mr_store *store;
    mr_rotation_options options;
    pthread_mutex_t refreshing; /* taken before lock */
    pthread_mutex_t lock;       /* of what is below, and of loaded.users */
    loaded *active, *previous;
    _Atomic uint64_t generation;
};

struct mr_seat {
    mr_rotation *rotation;
    uint64_t generation;
    struct place {
        loaded *of; /* counted */
        mr_ranker *ranker;
    } active, previous;
};

/* ---- bundles --------------------------------------------------------------------------------- */

static mr_status open_by_path(const mr_rotation *rotation, const mr_active_bundle *wanted,
                              mr_bundle **bundle, const char **folder, mr_error *err)
{
    mr_bundle_options options = MR_BUNDLE_OPTIONS_DEFAULT;
    options.threads = rotation->options.threads;
    *folder = wanted->path;
    return mr_bundle_open(bundle, wanted->path, &options, err);
}

static mr_status load(const mr_rotation *rotation, const mr_active_bundle *wanted, mr_arena *arena,
                      loaded **out, mr_error *err)
{
    loaded *made = calloc(1, sizeof *made);
    const char *folder = wanted->path;
    if (!made)
        return MR_FAIL(err, NO_MEMORY, "a bundle");
    mr_status status = rotation->options.opener
                           ? rotation->options.opener(rotation->options.context, wanted, arena,
                                                      &made->bundle, &folder, err)
                           : open_by_path(rotation, wanted, &made->bundle, &folder, err);
    if (status == MR_OK)
        status = mr_active_check(wanted, made->bundle, folder, err);
    if (status != MR_OK) {
        mr_bundle_close(made->bundle);
        free(made);
        return mr_error_prefix(err, status, "active bundle %s %s", wanted->name, wanted->version);
    }
    memcpy(made->digest, wanted->digest, sizeof made->digest);
    made->users = 1;
    *out = made;
    return MR_OK;
}

static void let_go(mr_rotation *rotation, loaded *one)
{
    if (!one)
        return;
    pthread_mutex_lock(&rotation->lock);
    const bool last = --one->users == 0;
    pthread_mutex_unlock(&rotation->lock);
    if (last) {
        mr_bundle_close(one->bundle);
        free(one);
    }
}

/* Of those in use, counted once more; NULL when it is not among them. */
static loaded *find(mr_rotation *rotation, const mr_active_bundle *wanted)
{
    loaded *found = NULL;
    pthread_mutex_lock(&rotation->lock);
    loaded *const both[] = {rotation->active, rotation->previous};
    for (size_t i = 0; i < 2 && !found; i++)
        if (both[i] && memcmp(both[i]->digest, wanted->digest, sizeof wanted->digest) == 0)
            found = both[i];
    if (found)
        found->users++;
    pthread_mutex_unlock(&rotation->lock);
    return found;
}

static mr_status find_or_load(mr_rotation *rotation, const mr_active_bundle *wanted,
                              mr_arena *arena, loaded **out, mr_error *err)
{
    *out = find(rotation, wanted);
    return *out ? MR_OK : load(rotation, wanted, arena, out, err);
}

/* ---- rotation -------------------------------------------------------------------------------- */

mr_status mr_rotation_new(mr_rotation **out, mr_store *store, const mr_rotation_options *options,
                          mr_error *err)
{
    mr_rotation *rotation = calloc(1, sizeof *rotation);
    if (!rotation)
        return MR_FAIL(err, NO_MEMORY, "a rotation of bundles");
    rotation->store = store;
    rotation->options = options ? *options : (mr_rotation_options)MR_ROTATION_OPTIONS_DEFAULT;
    pthread_mutex_init(&rotation->refreshing, NULL);
    pthread_mutex_init(&rotation->lock, NULL);
    *out = rotation;
    return MR_OK;
}

void mr_rotation_free(mr_rotation *rotation)
{
    if (!rotation)
        return;
    let_go(rotation, rotation->active);
    let_go(rotation, rotation->previous);
    pthread_mutex_destroy(&rotation->lock);
    pthread_mutex_destroy(&rotation->refreshing);
    free(rotation);
}

uint64_t mr_rotation_generation(mr_rotation *rotation)
{
    return atomic_load(&rotation->generation);
}

static mr_status change(mr_rotation *rotation, const mr_active *note, mr_arena *arena,
                        mr_rotation_news *news, mr_error *err)
{
    loaded *active = NULL, *previous = NULL;
    mr_status status = find_or_load(rotation, &note->bundle, arena, &active, err);
    if (status != MR_OK)
        return status;
    /* Without it rankings are as good as the active bundle's spaces: no reason to stay behind. */
    if (note->previous.name && !rotation->options.no_previous &&
        !mr_active_same(&note->bundle, &note->previous))
        (void)find_or_load(rotation, &note->previous, arena, &previous, &news->previous_error);

    pthread_mutex_lock(&rotation->lock);
    loaded *const old[] = {rotation->active, rotation->previous};
    rotation->active = active;
    rotation->previous = previous;
    atomic_store(&rotation->generation, note->generation);
    pthread_mutex_unlock(&rotation->lock);
    for (size_t i = 0; i < 2; i++)
        let_go(rotation, old[i]);
    news->changed = true;
    return MR_OK;
}

mr_status mr_rotation_refresh(mr_rotation *rotation, mr_rotation_news *out, mr_error *err)
{
    mr_arena arena = {0};
    mr_active note;
    mr_rotation_news news = {0};
    pthread_mutex_lock(&rotation->refreshing);
    mr_status status = mr_active_read(rotation->store, &arena, &note, err);
    /* A note that is gone (a store that was emptied) is no reason to stop with what is in use. */
    if (status == MR_OK && !note.generation && !mr_rotation_generation(rotation))
        status = MR_FAIL(err, NOT_FOUND,
                         "the store names no active bundle; `mixrank store switch --bundle DIR` "
                         "does");
    if (status == MR_OK && note.generation && note.generation != mr_rotation_generation(rotation))
        status = change(rotation, &note, &arena, &news, err);
    news.generation = mr_rotation_generation(rotation);
    pthread_mutex_unlock(&rotation->refreshing);
    mr_arena_done(&arena);
    if (status == MR_OK && out)
        *out = news;
    return status;
}

/* ---- seats ----------------------------------------------------------------------------------- */

mr_status mr_seat_new(mr_seat **out, mr_rotation *rotation, mr_error *err)
{
    mr_seat *seat = calloc(1, sizeof *seat);
    if (!seat)
        return MR_FAIL(err, NO_MEMORY, "a seat of a rotation");
    seat->rotation = rotation;
    *out = seat;
    return MR_OK;
}

static void leave(mr_seat *seat, struct place *place)
{
    mr_ranker_free(place->ranker);
    let_go(seat->rotation, place->of);
    *place = (struct place){0};
}

void mr_seat_free(mr_seat *seat)
{
    if (!seat)
        return;
    leave(seat, &seat->active);
    leave(seat, &seat->previous);
    free(seat);
}

/* Takes what is current now; rankers are made when they are needed. */
static void move_on(mr_seat *seat)
{
    mr_rotation *rotation = seat->rotation;
    struct place old[] = {seat->active, seat->previous};
    pthread_mutex_lock(&rotation->lock);
    struct place next[] = {{.of = rotation->active}, {.of = rotation->previous}};
    for (size_t i = 0; i < 2; i++)
        if (next[i].of)
            next[i].of->users++;
    seat->generation = atomic_load(&rotation->generation);
    pthread_mutex_unlock(&rotation->lock);
    for (size_t i = 0; i < 2; i++) {
        for (size_t j = 0; j < 2; j++) {
            if (next[i].of && next[i].of == old[j].of) {
                next[i].ranker = old[j].ranker;
                old[j].ranker = NULL;
            }
        }
    }
    for (size_t i = 0; i < 2; i++)
        leave(seat, &old[i]);
    seat->active = next[0];
    seat->previous = next[1];
}

const mr_bundle *mr_seat_bundle(mr_seat *seat)
{
    if (seat->generation != mr_rotation_generation(seat->rotation))
        move_on(seat);
    return seat->active.of ? seat->active.of->bundle : NULL;
}

static mr_status seat_ranker(mr_seat *seat, struct place *place, mr_error *err)
{
    return place->ranker ? MR_OK
                         : mr_ranker_new(&place->ranker, place->of->bundle, seat->rotation->store,
                                         &seat->rotation->options.ranker, err);
}

static bool brings_vectors(const mr_rank_request *request)
{
    if (request->user_vectors)
        return true;
    for (size_t i = 0; i < request->n_candidates; i++)
        if (request->candidates[i].vectors)
            return true;
    return false;
}

/* Whether the previous bundle is to be asked as well: not for a store that is away when there is no
 * time to wait for it twice. */
static bool may_ask_previous(const mr_seat *seat, const mr_ranking *ranking)
{
    const mr_rank_request *request = ranking->request;
    if (!seat->previous.of || !(ranking->degraded & (1u << MR_REASON_LOW_COVERAGE)) ||
        brings_vectors(request))
        return false;
    return !request->deadline_us || mr_clock_monotonic_us() < request->deadline_us;
}

mr_status mr_seat_rank(mr_seat *seat, const mr_rank_request *request, mr_rank_reply **reply,
                       mr_error *err)
{
    if (seat->generation != mr_rotation_generation(seat->rotation))
        move_on(seat);
    if (!seat->active.of)
        return MR_FAIL(err, UNAVAILABLE, "no bundle is loaded yet");
    mr_ranking first, second;
    mr_status status = seat_ranker(seat, &seat->active, err);
    if (status == MR_OK)
        status = mr_ranking_begin(&first, seat->active.ranker, request, err);
    if (status != MR_OK)
        return status;
    if (may_ask_previous(seat, &first)) {
        /* What the previous bundle cannot do is no failure of the request. */
        if (seat_ranker(seat, &seat->previous, NULL) == MR_OK &&
            mr_ranking_begin(&second, seat->previous.ranker, request, NULL) == MR_OK &&
            second.n_found > first.n_found) {
            second.started_us = first.started_us;
            second.work.fetch_us += first.work.fetch_us;
            mr_ranking_degrade(&second, MR_REASON_LOW_COVERAGE);
            mr_rank_reply *by_previous = NULL;
            if (mr_ranking_finish(&second, &by_previous, NULL) == MR_OK) {
                by_previous->by_previous = true;
                *reply = by_previous;
                return MR_OK;
            }
        }
    }
    return mr_ranking_finish(&first, reply, err);
}
