/* rotation_fixture.h - two bundles whose spaces and vectors differ, and what each of them says of
 * every item, for tests of rotation. Include after cmocka.h, once per program.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_UNIT_ROTATION_FIXTURE_H
#define MR_TESTS_UNIT_ROTATION_FIXTURE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "featurestore/record.h"
#include "ranker/model/parts.h"
#include "ranker/pipeline/rotation.h"
#include "tests/ranker_support.h"
#include "tests/support.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { DIM = 32, ITEMS = 24, QUERIES = 2, OLD = 0, NEW = 1 };

static const char *const query_text[QUERIES] = {"red kettle", "a warm hat"};

typedef struct {
    char *folder;
    char path[2][4096];
    mr_bundle *bundle[2]; /* opened by the test, for the spaces and to compare with */
    float *vectors[2];    /* [ITEMS][DIM] */
    char id[ITEMS][8];
    mr_store *whole;                     /* both spaces, complete */
    double margin[2][QUERIES][2][ITEMS]; /* by bundle, query, with the user or without, item */
} pair;

static void put_user(const pair *p, mr_store *store, int which)
{
    test_store_put(store, MR_ENTITY_USER, p->bundle[which]->user.space, "u", p->vectors[which], 2,
                   DIM);
}

static void put_item(const pair *p, mr_store *store, int which, size_t i)
{
    test_store_put(store, MR_ENTITY_ITEM, p->bundle[which]->item.space, p->id[i],
                   p->vectors[which] + i * DIM, 1, DIM);
}

static mr_rank_request pair_request(size_t query, bool user, const mr_candidate *candidates,
                                    size_t n)
{
    mr_rank_request request = MR_RANK_REQUEST_DEFAULT;
    request.query = mr_str_of(query_text[query]);
    if (user)
        request.user_id = mr_str_of("u");
    request.candidates = candidates;
    request.n_candidates = n;
    return request;
}

/* What the bundle says of all items, in a store where nothing is lacking. */
static void know_margins(pair *p, int which)
{
    mr_ranker *ranker = NULL;
    mr_candidate candidates[ITEMS] = {{.prior = 0}};
    mr_error err = {0};
    assert_status(mr_ranker_new(&ranker, p->bundle[which], p->whole, NULL, &err), MR_OK, &err);
    for (size_t i = 0; i < ITEMS; i++)
        candidates[i].id = mr_str_of(p->id[i]);
    for (size_t q = 0; q < QUERIES; q++) {
        for (int user = 0; user < 2; user++) {
            const mr_rank_request request = pair_request(q, user, candidates, ITEMS);
            mr_rank_reply *reply = NULL;
            assert_status(mr_ranker_rank(ranker, &request, &reply, &err), MR_OK, &err);
            assert_int_equal(reply->n_scored, ITEMS);
            assert_int_equal(reply->degraded, 0);
            for (size_t i = 0; i < ITEMS; i++)
                p->margin[which][q][user][reply->items[i].index] = reply->items[i].margin;
            mr_rank_reply_free(reply);
        }
    }
    mr_ranker_free(ranker);
}

static void make_bundle(pair *p, int which)
{
    static const char *const version[] = {"1", "2"};
    mr_error err = {0};
    json_t *spec = test_mixed_spec(2);
    json_object_set_new(spec, "version", json_string(version[which]));
    if (which == NEW) /* another text: another space */
        json_object_set_new(json_object_get(json_object_get(spec, "encoders"), "item"), "text",
                            test_json("['Thing: ', {'field': 'text'}]"));
    snprintf(p->path[which], sizeof p->path[which], "%s", test_path(p->folder, version[which]));
    assert_status(test_bundle_make(p->path[which], spec, NULL, &err), MR_OK, &err);
    p->bundle[which] = test_bundle_open(p->path[which], 1);
}

static int pair_set_up(void **state)
{
    static pair p;
    mr_rng rng = mr_rng_seed(77);
    mr_error err = {0};
    p.folder = test_folder_new();
    assert_status(mr_store_open(&p.whole, "memory:", NULL, &err), MR_OK, &err);
    for (size_t i = 0; i < ITEMS; i++)
        snprintf(p.id[i], sizeof p.id[i], "i%02zu", i);
    for (int which = 0; which < 2; which++) {
        make_bundle(&p, which);
        p.vectors[which] = test_vectors(&rng, ITEMS, DIM);
        put_user(&p, p.whole, which);
        for (size_t i = 0; i < ITEMS; i++)
            put_item(&p, p.whole, which, i);
    }
    assert_true(p.bundle[OLD]->item.space != p.bundle[NEW]->item.space);
    assert_true(p.bundle[OLD]->user.space != p.bundle[NEW]->user.space);
    for (int which = 0; which < 2; which++)
        know_margins(&p, which);
    /* So that a mix can be seen in every single item. */
    for (size_t q = 0; q < QUERIES; q++)
        for (size_t i = 0; i < ITEMS; i++)
            for (int a = 0; a < 4; a++)
                for (int b = 0; b < a; b++)
                    assert_true(p.margin[a / 2][q][a % 2][i] != p.margin[b / 2][q][b % 2][i]);
    *state = &p;
    return 0;
}

static int pair_tear_down(void **state)
{
    pair *p = *state;
    for (int which = 0; which < 2; which++) {
        mr_bundle_close(p->bundle[which]);
        free(p->vectors[which]);
    }
    mr_store_close(p->whole);
    test_folder_free(p->folder);
    return 0;
}

/* Makes one of the bundles active, whatever is in the store. */
static void switch_to(const pair *p, mr_store *store, int which)
{
    mr_arena arena = {0};
    mr_active now;
    mr_active_bundle next;
    mr_error err = {0};
    assert_status(mr_active_read(store, &arena, &now, &err), MR_OK, &err);
    assert_status(mr_active_describe(p->bundle[which], p->path[which], &arena, &next, &err), MR_OK,
                  &err);
    assert_status(mr_active_switch(store, &now, &next, &err), MR_OK, &err);
    mr_arena_done(&arena);
}

static void roll_back(mr_store *store)
{
    mr_arena arena = {0};
    mr_active now;
    mr_error err = {0};
    assert_status(mr_active_read(store, &arena, &now, &err), MR_OK, &err);
    assert_status(mr_active_roll_back(store, &now, &err), MR_OK, &err);
    mr_arena_done(&arena);
}

#endif
