/* test_half_migrated.c - 10,000 rankings while items move from one space to another, one by one,
 * and operators switch, roll back and switch again. None may mix the spaces: every margin is that
 * of the pure old or the pure new ranking, all of a reply of the same one, user included; what has
 * no margin stands where its prior puts it.
 *
 * Threads do not assert (cmocka would jump off their stack); they count, and keep the first
 * complaint. Compiled twice: for LMDB and, with STORE_ON_REDIS, for a real Redis with the cache
 * before it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "tests/unit/rotation_fixture.h"
#ifdef STORE_ON_REDIS
#    include "tests/redis_server.h"
#endif

enum { RANKINGS = 10000, RANKERS = 2, MOST = 12 };

typedef struct {
    const pair *p;
    mr_store *store;
    mr_rotation *rotation;
    atomic_int done; /* rankings */
    atomic_int wrong;
    atomic_int by_old, by_new, by_previous, partial, anonymous;
    atomic_bool stop;
    pthread_mutex_t lock;
    char complaint[400]; /* the first */
} shared;

static void complain(shared *s, const char *what, const mr_rank_reply *reply, size_t place)
{
    pthread_mutex_lock(&s->lock);
    if (atomic_fetch_add(&s->wrong, 1) == 0) {
        const mr_ranked_item *item = &reply->items[place];
        snprintf(s->complaint, sizeof s->complaint,
                 "%s: bundle version %s, by_previous %d, found %zu of %zu, degraded %#x; place %zu "
                 "is candidate %zu with margin %.9g, reason %s",
                 what, reply->bundle_version, reply->by_previous, reply->n_found,
                 reply->n_candidates, (unsigned)reply->degraded, place, item->index, item->margin,
                 mr_reason_name(item->reason));
    }
    pthread_mutex_unlock(&s->lock);
}

static bool has(const mr_rank_reply *reply, mr_reason reason)
{
    return (reply->degraded & 1u << reason) != 0;
}

/* item[c]: of candidate c, or ITEMS for one that nobody knows. */
static void check(shared *s, const mr_rank_reply *reply, size_t query, bool user,
                  const size_t *item, size_t known)
{
    const int which = strcmp(reply->bundle_version, "1") == 0 ? OLD : NEW;
    const mr_bundle *bundle = s->p->bundle[which];
    const bool with_user = user && !has(reply, MR_REASON_USER_MISSING);
    const bool low = 2 * reply->n_found < reply->n_candidates;
    if (reply->item_space != bundle->item.space || reply->user_space != bundle->user.space)
        complain(s, "the reply names the spaces of another bundle", reply, 0);
    if (reply->by_previous != (reply->by_previous && has(reply, MR_REASON_LOW_COVERAGE)))
        complain(s, "by the previous bundle without low coverage", reply, 0);
    if (low && !has(reply, MR_REASON_LOW_COVERAGE))
        complain(s, "low coverage is not told", reply, 0);
    /* The old space is complete: once the old bundle is the previous one, it covers more. */
    if (which == NEW && low && reply->n_found < known)
        complain(s, "the previous bundle would have known more", reply, 0);
    size_t scored = 0;
    for (size_t place = 0; place < reply->n_items; place++) {
        const mr_ranked_item *one = &reply->items[place];
        const size_t i = item[one->index];
        if (isnan(one->margin)) {
            if (one->index != place)
                complain(s, "an item that was not scored left the place of its prior", reply,
                         place);
            if (one->source != MR_SOURCE_PRIOR || one->reason != MR_REASON_MISSING)
                complain(s, "an item that was not scored has another reason", reply, place);
            continue;
        }
        scored++;
        if (i == ITEMS || one->margin != s->p->margin[which][query][with_user][i])
            complain(s, "a margin that the bundle alone would not give", reply, place);
    }
    if (scored != reply->n_found)
        complain(s, "what was found was not scored", reply, 0);
    atomic_fetch_add(which == OLD ? &s->by_old : &s->by_new, 1);
    atomic_fetch_add(&s->by_previous, reply->by_previous);
    atomic_fetch_add(&s->partial, which == NEW && scored < known);
    atomic_fetch_add(&s->anonymous, user && !with_user);
}

static void *rank_on(void *context)
{
    shared *s = context;
    mr_seat *seat = NULL;
    mr_error err = {0};
    mr_rng rng = mr_rng_seed((uint64_t)atomic_fetch_add(&s->done, 0) + (uint64_t)(uintptr_t)&seat);
    if (mr_seat_new(&seat, s->rotation, &err) != MR_OK) {
        atomic_fetch_add(&s->wrong, 1);
        return NULL;
    }
    while (atomic_fetch_add(&s->done, 1) < RANKINGS && !atomic_load(&s->wrong)) {
        mr_candidate candidates[MOST] = {{.prior = 0}};
        size_t item[MOST], known = 0;
        const size_t n = 1 + (size_t)mr_rng_below(&rng, MOST);
        const size_t first = (size_t)mr_rng_below(&rng, ITEMS);
        for (size_t c = 0; c < n; c++) {
            item[c] = mr_rng_below(&rng, 10) ? (first + 5 * c) % ITEMS : ITEMS;
            candidates[c].id = mr_str_of(item[c] == ITEMS ? "nobody" : s->p->id[item[c]]);
            known += item[c] != ITEMS;
        }
        const size_t query = (size_t)mr_rng_below(&rng, QUERIES);
        const bool user = mr_rng_below(&rng, 2);
        const mr_rank_request request = pair_request(query, user, candidates, n);
        mr_rank_reply *reply = NULL;
        if (mr_seat_rank(seat, &request, &reply, &err) != MR_OK) {
            pthread_mutex_lock(&s->lock);
            if (atomic_fetch_add(&s->wrong, 1) == 0)
                snprintf(s->complaint, sizeof s->complaint, "a ranking failed: %.300s",
                         err.message);
            pthread_mutex_unlock(&s->lock);
            break;
        }
        check(s, reply, query, user, item, known);
        mr_rank_reply_free(reply);
    }
    mr_seat_free(seat);
    return NULL;
}

static void pause_ms(long ms)
{
    const struct timespec time = {0, ms * 1000000};
    nanosleep(&time, NULL);
}

/* True when so many of a hundred rankings are done. */
static bool wait_for(shared *s, int percent)
{
    while (atomic_load(&s->done) < RANKINGS / 100 * percent && !atomic_load(&s->wrong))
        pause_ms(1);
    return !atomic_load(&s->wrong);
}

/* Two thirds of the items one by one over the first half, then the user, then the rest. */
static void *migrate(void *context)
{
    shared *s = context;
    for (size_t i = 0; i < ITEMS; i++) {
        const size_t item = i * 7 % ITEMS;
        if (!wait_for(s, (int)(5 + i * 80 / ITEMS)))
            return NULL;
        put_item(s->p, s->store, NEW, item);
        if (i == ITEMS / 2)
            put_user(s->p, s->store, NEW);
    }
    return NULL;
}

static void *refresh(void *context)
{
    shared *s = context;
    while (!atomic_load(&s->stop)) {
        mr_error err = {0};
        if (mr_rotation_refresh(s->rotation, NULL, &err) != MR_OK) {
            pthread_mutex_lock(&s->lock);
            if (atomic_fetch_add(&s->wrong, 1) == 0)
                snprintf(s->complaint, sizeof s->complaint, "a refresh failed: %.300s",
                         err.message);
            pthread_mutex_unlock(&s->lock);
        }
        pause_ms(2);
    }
    return NULL;
}

static mr_store *open_store(const pair *p)
{
    mr_store *store = NULL;
    mr_error err = {0};
    mr_store_options options = MR_STORE_OPTIONS_DEFAULT;
    options.fetch_timeout_ms = 10000; /* of a busy machine; this test is not about a slow store */
    options.max_bytes = UINT64_C(1) << 28;
#ifdef STORE_ON_REDIS
    (void)p;
    static redis_server *server; /* goes with the process */
    server = redis_server_start(NULL);
    assert_non_null(server);
    options.cache_bytes = 1 << 20;
    assert_status(mr_store_open(&store, redis_server_url(server), &options, &err), MR_OK, &err);
#else
    options.fast_writes = true;
    assert_status(mr_store_open(&store, test_path(p->folder, "store"), &options, &err), MR_OK,
                  &err);
#endif
    return store;
}

static void no_ranking_of_a_half_migrated_store_mixes_spaces(void **state)
{
    const pair *p = *state;
    shared s = {.p = p, .store = open_store(p)};
    mr_rotation_options options = MR_ROTATION_OPTIONS_DEFAULT;
    mr_error err = {0};
    pthread_mutex_init(&s.lock, NULL);
    options.threads = 1;
    for (size_t i = 0; i < ITEMS; i++)
        put_item(p, s.store, OLD, i);
    put_user(p, s.store, OLD);
    switch_to(p, s.store, OLD);
    assert_status(mr_rotation_new(&s.rotation, s.store, &options, &err), MR_OK, &err);
    assert_status(mr_rotation_refresh(s.rotation, NULL, &err), MR_OK, &err);

    pthread_t ranker[RANKERS], writer, refresher;
    for (size_t i = 0; i < RANKERS; i++)
        assert_int_equal(pthread_create(&ranker[i], NULL, rank_on, &s), 0);
    assert_int_equal(pthread_create(&writer, NULL, migrate, &s), 0);
    assert_int_equal(pthread_create(&refresher, NULL, refresh, &s), 0);
    if (wait_for(&s, 15)) /* far too early, on purpose */
        switch_to(p, s.store, NEW);
    if (wait_for(&s, 50))
        roll_back(s.store);
    if (wait_for(&s, 60))
        roll_back(s.store); /* forward again */
    for (size_t i = 0; i < RANKERS; i++)
        pthread_join(ranker[i], NULL);
    pthread_join(writer, NULL);
    atomic_store(&s.stop, true);
    pthread_join(refresher, NULL);

    print_message(
        "%d rankings: %d by the old bundle (%d of them as the previous one), %d by the new "
        "(%d with items still missing); %d of known users as anonymous\n",
        RANKINGS, atomic_load(&s.by_old), atomic_load(&s.by_previous), atomic_load(&s.by_new),
        atomic_load(&s.partial), atomic_load(&s.anonymous));
    if (atomic_load(&s.wrong))
        fail_msg("%d complaints; the first: %s", atomic_load(&s.wrong), s.complaint);
    assert_int_equal(atomic_load(&s.by_old) + atomic_load(&s.by_new), RANKINGS);
    /* All that may happen did, or the test has shown nothing. */
    assert_true(atomic_load(&s.by_previous) > RANKINGS / 100);
    assert_true(atomic_load(&s.by_old) - atomic_load(&s.by_previous) > RANKINGS / 20);
    assert_true(atomic_load(&s.partial) > RANKINGS / 100);
    assert_true(atomic_load(&s.by_new) - atomic_load(&s.partial) > RANKINGS / 100);
    mr_rotation_free(s.rotation);
    mr_store_close(s.store);
    pthread_mutex_destroy(&s.lock);
}

int main(void)
{
#ifdef STORE_ON_REDIS
    if (redis_server_missing())
        return redis_server_skip();
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_ranking_of_a_half_migrated_store_mixes_spaces),
    };
    return cmocka_run_group_tests(tests, pair_set_up, pair_tear_down);
}
