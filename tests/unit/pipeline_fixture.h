/* pipeline_fixture.h - one bundle, one store and a fetch that can be made to fail, for tests of
 * ranker/pipeline. Include after cmocka.h, once per program, linked with
 * -Wl,--wrap=mr_store_fetch.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_UNIT_PIPELINE_FIXTURE_H
#define MR_TESTS_UNIT_PIPELINE_FIXTURE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ranker/pipeline/ranker.h"
#include "tests/ranker_support.h"
#include "tests/support.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define DIM      32
#define T        2
#define STORED   6 /* items "a", "b", ... of 1 and 2 tokens by turns */

typedef struct {
    char *folder;
    mr_bundle *bundle;
    mr_store *store;
    mr_ranker *ranker;
    float *vectors; /* [STORED][T][DIM] */
} fixture;

/* ---- a store that misbehaves ----------------------------------------------------------------- */

typedef struct {
    mr_status fail;     /* not MR_OK: fetches fail with it */
    size_t after;       /* ids that are visited before it fails */
    mr_entity entity;   /* whose fetches */
    const char *damage; /* the record of this id comes with one bit turned round */
    unsigned cached;    /* bit i: id i is visited all the same, as by a cache */
} fetch_fault;

static fetch_fault fault = {.entity = MR_ENTITY_COUNT};

typedef struct {
    mr_store_visit visit;
    void *context;
    const mr_str *ids;
} damaged_visit;

static void visit_damaged(void *context, size_t i, mr_bytes record)
{
    const damaged_visit *d = context;
    if (!record.data || !mr_str_equal(d->ids[i], mr_str_of(fault.damage))) {
        d->visit(d->context, i, record);
        return;
    }
    char *copy = malloc(record.len);
    assert_non_null(copy);
    memcpy(copy, record.data, record.len);
    copy[record.len - 1] = (char)(copy[record.len - 1] ^ 1);
    d->visit(d->context, i, (mr_bytes){copy, record.len});
    free(copy);
}

static void visit_cached(void *context, size_t i, mr_bytes record)
{
    const damaged_visit *d = context;
    if (fault.cached >> i & 1)
        d->visit(d->context, i, record);
}

mr_status __real_mr_store_fetch(mr_store *store, mr_entity entity, uint64_t space,
                                const mr_str *ids, size_t n, mr_store_visit visit, void *context,
                                mr_error *err);
mr_status __wrap_mr_store_fetch(mr_store *store, mr_entity entity, uint64_t space,
                                const mr_str *ids, size_t n, mr_store_visit visit, void *context,
                                mr_error *err);

mr_status __wrap_mr_store_fetch(mr_store *store, mr_entity entity, uint64_t space,
                                const mr_str *ids, size_t n, mr_store_visit visit, void *context,
                                mr_error *err)
{
    damaged_visit damaged = {visit, context, ids};
    if (fault.damage)
        return __real_mr_store_fetch(store, entity, space, ids, n, visit_damaged, &damaged, err);
    if (fault.fail == MR_OK || fault.entity != entity)
        return __real_mr_store_fetch(store, entity, space, ids, n, visit, context, err);
    mr_status status =
        fault.cached
            ? __real_mr_store_fetch(store, entity, space, ids, n, visit_cached, &damaged, err)
            : __real_mr_store_fetch(store, entity, space, ids, fault.after < n ? fault.after : n,
                                    visit, context, err);
    return status == MR_OK ? mr_error_set(err, fault.fail, __FILE__, __LINE__, "the store is away")
                           : status;
}

/* ---- set up ---------------------------------------------------------------------------------- */

static mr_ranker *new_ranker(const fixture *f, const mr_ranker_options *options)
{
    mr_ranker *ranker = NULL;
    mr_error err = {0};
    assert_status(mr_ranker_new(&ranker, f->bundle, f->store, options, &err), MR_OK, &err);
    return ranker;
}

static const char *stored_id(size_t i)
{
    static const char *const ids[STORED] = {"a", "b", "c", "d", "e", "f"};
    return ids[i];
}

static int fixture_set_up(void **state)
{
    static fixture f;
    mr_rng rng = mr_rng_seed(21);
    mr_error err = {0};
    f.folder = test_folder_new();
    const char *path = test_path(f.folder, "b");
    assert_status(test_bundle_make(path, test_mixed_spec(T), NULL, &err), MR_OK, &err);
    f.bundle = test_bundle_open(path, 2);
    assert_status(mr_store_open(&f.store, "memory:", NULL, &err), MR_OK, &err);
    f.vectors = test_vectors(&rng, STORED * T, DIM);
    for (size_t i = 0; i < STORED; i++)
        test_store_put(f.store, MR_ENTITY_ITEM, f.bundle->item.space, stored_id(i),
                       f.vectors + i * T * DIM, 1 + i % T, DIM);
    f.ranker = new_ranker(&f, NULL);
    *state = &f;
    return 0;
}

static int fixture_tear_down(void **state)
{
    fixture *f = *state;
    mr_ranker_free(f->ranker);
    mr_store_close(f->store);
    mr_bundle_close(f->bundle);
    free(f->vectors);
    test_folder_free(f->folder);
    return 0;
}

static int clear_fault(void **state)
{
    (void)state;
    fault = (fetch_fault){.entity = MR_ENTITY_COUNT};
    return 0;
}

/* ---- requests -------------------------------------------------------------------------------- */

static mr_rank_request request_for(const char *query, const mr_candidate *candidates, size_t n)
{
    mr_rank_request request = MR_RANK_REQUEST_DEFAULT;
    request.query = mr_str_of(query);
    request.candidates = candidates;
    request.n_candidates = n;
    return request;
}

/* Must succeed; the caller frees the reply. */
static mr_rank_reply *rank(mr_ranker *ranker, const mr_rank_request *request)
{
    mr_rank_reply *reply = NULL;
    mr_error err = {0};
    assert_status(mr_ranker_rank(ranker, request, &reply, &err), MR_OK, &err);
    assert_int_equal(err.status, MR_OK);
    return reply;
}

/* The item of a candidate, wherever it stands. */
static const mr_ranked_item *item_of(const mr_rank_reply *reply, size_t candidate)
{
    for (size_t i = 0; i < reply->n_items; i++)
        if (reply->items[i].index == candidate)
            return &reply->items[i];
    fail_msg("candidate %zu is not in the reply", candidate);
    return NULL;
}

static void assert_item(const mr_rank_reply *reply, size_t candidate, mr_source source,
                        mr_reason reason)
{
    const mr_ranked_item *item = item_of(reply, candidate);
    if (item->source != source || item->reason != reason)
        fail_msg("candidate %zu stands by %s (%s), expected by %s (%s)", candidate,
                 mr_source_name(item->source), mr_reason_name(item->reason), mr_source_name(source),
                 mr_reason_name(reason));
    assert_int_equal(isnan(item->margin), source == MR_SOURCE_PRIOR);
    assert_int_equal(isnan(item->score), source == MR_SOURCE_PRIOR);
}

static uint32_t bits(mr_reason reason)
{
    return 1u << reason;
}

#endif
