/* test_pipeline_images.c - candidates with text tokens, with a picture's, with both: stored and
 * sent along, and what becomes of a broken picture.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ranker/pipeline/ranker.h"
#include "tests/ranker_support.h"
#include "tests/support.h"

#define COUNT(a)     (sizeof(a) / sizeof *(a))
#define DIM          32
#define IMAGE_TOKENS 4

typedef struct {
    char *folder;
    mr_bundle *bundle;
    mr_store *store;
    mr_ranker *ranker;
    char *png, *other; /* files */
    size_t png_len, other_len;
    float *item;                     /* [1][DIM] of items "both" and "text" */
    float image[IMAGE_TOKENS * DIM]; /* of png */
} fixture;

/* To the last bit: cmocka's assert_float_equal compares as f32. */
static void assert_same(double got, double want)
{
    if (!(got == want))
        fail_msg("%.17g, expected %.17g", got, want);
}

/* The spec of ranker_support.h with pictures; both slots may be empty, or the picture's may not. */
static json_t *image_spec(bool required)
{
    json_t *spec = test_mixed_spec(1);
    json_t *patch =
        test_json("{'suffix': [{'slot': 'item', 'when': 'item'}, %s,"
                  "            {'field': 'title', 'max_tokens': 12, 'when': 'title'},"
                  "            {'token': '<|endoftext|>'}]}",
                  required ? "{'slot': 'image'}" : "{'slot': 'image', 'when': 'image'}");
    json_t *image = test_json("{'kind': 'clip', 'feature_layer': -2, 'tokens': %d}", IMAGE_TOKENS);
    json_object_update(spec, patch);
    json_object_set_new(json_object_get(spec, "encoders"), "image", image);
    json_decref(patch);
    return spec;
}

static mr_bundle *make_bundle(const char *path, bool required)
{
    mr_error err = {0};
    json_t *spec = image_spec(required);
    const mr_bundle_create_options opt = {.spec = spec,
                                          .llm = "data/mixed/llm",
                                          .item_encoder = "data/mixed/encoder",
                                          .image_encoder = "data/clip/quick-gelu-patch14"};
    assert_status(mr_bundle_create(path, &opt, &err), MR_OK, &err);
    json_decref(spec);
    return test_bundle_open(path, 2);
}

static int set_up(void **state)
{
    static fixture f;
    mr_rng rng = mr_rng_seed(5);
    mr_error err = {0};
    mr_image_encoder *encoder = NULL;
    f.folder = test_folder_new();
    f.bundle = make_bundle(test_path(f.folder, "b"), false);
    f.png = test_file_read("data/images/rgb-61x47.png", &f.png_len);
    f.other = test_file_read("data/images/rgba.png", &f.other_len);
    assert_status(mr_bundle_open_image_encoder(f.bundle, MR_GEMM_SCORING, 1, &encoder, &err), MR_OK,
                  &err);
    assert_status(mr_image_encoder_put(encoder, 0, "png", (mr_bytes){f.png, f.png_len}, &err),
                  MR_OK, &err);
    assert_status(mr_image_encoder_run(encoder, 1, f.image, &err), MR_OK, &err);
    mr_image_encoder_close(encoder);

    f.item = test_vectors(&rng, 1, DIM);
    assert_status(mr_store_open(&f.store, "memory:", NULL, &err), MR_OK, &err);
    const uint64_t items = f.bundle->item.space, images = f.bundle->image.space;
    assert_true(items != images);
    test_store_put(f.store, MR_ENTITY_ITEM, items, "both", f.item, 1, DIM);
    test_store_put(f.store, MR_ENTITY_ITEM, images, "both", f.image, IMAGE_TOKENS, DIM);
    test_store_put(f.store, MR_ENTITY_ITEM, items, "text", f.item, 1, DIM);
    test_store_put(f.store, MR_ENTITY_ITEM, images, "picture", f.image, IMAGE_TOKENS, DIM);
    assert_status(mr_ranker_new(&f.ranker, f.bundle, f.store, NULL, &err), MR_OK, &err);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    mr_ranker_free(f->ranker);
    mr_store_close(f->store);
    mr_bundle_close(f->bundle);
    free(f->item);
    free(f->png);
    free(f->other);
    test_folder_free(f->folder);
    return 0;
}

/* What became of each candidate, by its place in the request. */
static mr_rank_reply *rank(mr_ranker *ranker, const mr_candidate *candidates, size_t n,
                           mr_ranked_item *by_index)
{
    mr_rank_request request = MR_RANK_REQUEST_DEFAULT;
    mr_rank_reply *reply = NULL;
    mr_error err = {0};
    request.query = mr_str_of("red kettle");
    request.candidates = candidates;
    request.n_candidates = n;
    request.explain = true;
    assert_status(mr_ranker_rank(ranker, &request, &reply, &err), MR_OK, &err);
    assert_int_equal(reply->n_items, n);
    for (size_t i = 0; i < n; i++)
        by_index[reply->items[i].index] = reply->items[i];
    return reply;
}

static mr_candidate by_id(const char *id)
{
    return (mr_candidate){.id = mr_str_of(id)};
}

static void text_picture_and_both_are_scored_each_its_way(void **state)
{
    fixture *f = *state;
    const mr_candidate candidates[] = {by_id("both"), by_id("text"), by_id("picture"),
                                       by_id("nobody")};
    mr_ranked_item items[COUNT(candidates)];
    mr_rank_reply *reply = rank(f->ranker, candidates, COUNT(candidates), items);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(items[i].source, MR_SOURCE_MODEL);
        assert_int_equal(items[i].reason, MR_REASON_NONE);
        assert_true(isfinite(items[i].margin));
    }
    assert_true(items[0].margin != items[1].margin);
    assert_true(items[1].margin != items[2].margin);
    assert_true(items[0].margin != items[2].margin);
    assert_int_equal(items[3].reason, MR_REASON_MISSING);
    assert_int_equal(reply->n_found, 3);
    assert_int_equal(reply->n_scored, 3);
    /* 1 + 4 + closing, 1 + closing, 4 + closing */
    assert_int_equal(reply->work.suffix_tokens, 6 + 2 + 5);
    mr_rank_reply_free(reply);
}

static void a_margin_is_that_of_the_scorer_fed_by_hand(void **state)
{
    fixture *f = *state;
    const mr_candidate candidates[] = {by_id("picture"), by_id("both"), by_id("text")};
    mr_ranked_item items[COUNT(candidates)];
    mr_rank_reply_free(rank(f->ranker, candidates, COUNT(candidates), items));
    mr_scorer *scorer = test_scorer(f->bundle, 0);
    mr_field query = {mr_str_of("query"), mr_str_of("red kettle")};
    const mr_scorer_prefix prefix = {.fields = {&query, 1}};
    const mr_vectors item = {f->item, 1, DIM}, image = {f->image, IMAGE_TOKENS, DIM};
    const mr_scorer_candidate by_hand[] = {
        {.image = image}, {.item = item, .image = image}, {.item = item}};
    for (size_t i = 0; i < COUNT(by_hand); i++) {
        mr_error err = {0};
        assert_status(mr_scorer_begin(scorer, &prefix, &err), MR_OK, &err);
        assert_same(items[i].margin, test_score(scorer, &by_hand[i]));
    }
    mr_scorer_free(scorer);
}

static void a_picture_sent_along_scores_as_the_stored_one(void **state)
{
    fixture *f = *state;
    const mr_bytes png = {f->png, f->png_len}, other = {f->other, f->other_len};
    mr_candidate candidates[] = {by_id("both"), by_id("picture"), by_id("text"), by_id(""),
                                 by_id("both")};
    candidates[2].image = candidates[3].image = png;
    candidates[4].image = other; /* instead of the stored one */
    mr_ranked_item items[COUNT(candidates)];
    mr_rank_reply_free(rank(f->ranker, candidates, COUNT(candidates), items));
    assert_same(items[2].margin, items[0].margin);
    assert_same(items[3].margin, items[1].margin);
    assert_true(isfinite(items[4].margin) && items[4].margin != items[0].margin);
    assert_int_equal(items[0].source, MR_SOURCE_MODEL);
    for (size_t i = 2; i < COUNT(candidates); i++)
        assert_int_equal(items[i].source, MR_SOURCE_IMAGE);
    assert_string_equal(mr_source_name(MR_SOURCE_IMAGE), "image");
}

static void a_broken_picture_costs_its_candidate_alone(void **state)
{
    fixture *f = *state;
    mr_candidate candidates[] = {by_id("both"), by_id("both"), by_id("both"), by_id("both")};
    candidates[1].image = (mr_bytes){f->png, f->png_len / 2};
    candidates[2].image = (mr_bytes){"GIF89a", 6};
    mr_ranked_item items[COUNT(candidates)];
    mr_rank_reply *reply = rank(f->ranker, candidates, COUNT(candidates), items);
    assert_int_equal(items[1].reason, MR_REASON_INVALID);
    assert_int_equal(items[2].reason, MR_REASON_INVALID);
    assert_int_equal(items[1].source, MR_SOURCE_PRIOR);
    assert_same(items[0].margin, items[3].margin);
    assert_int_equal(reply->n_scored, 2);
    assert_contains(reply->explain, "candidate 1 'both': picture 'inline'");
    mr_rank_reply_free(reply);
}

static void a_picture_of_another_shape_is_not_scored(void **state)
{
    fixture *f = *state;
    mr_store *store = NULL;
    mr_ranker *ranker = NULL;
    mr_error err = {0};
    const mr_candidate candidates[] = {by_id("wide"), by_id("text")};
    mr_ranked_item items[COUNT(candidates)];
    assert_status(mr_store_open(&store, "memory:", NULL, &err), MR_OK, &err);
    test_store_put(store, MR_ENTITY_ITEM, f->bundle->item.space, "text", f->item, 1, DIM);
    test_store_put(store, MR_ENTITY_ITEM, f->bundle->item.space, "wide", f->item, 1, DIM);
    /* More tokens than the bundle takes: not this encoder's. */
    float *many = calloc(5 * DIM, sizeof *many);
    assert_non_null(many);
    test_store_put(store, MR_ENTITY_ITEM, f->bundle->image.space, "wide", many, 5, DIM);
    assert_status(mr_ranker_new(&ranker, f->bundle, store, NULL, &err), MR_OK, &err);
    mr_rank_reply_free(rank(ranker, candidates, COUNT(candidates), items));
    assert_int_equal(items[0].reason, MR_REASON_WRONG_SHAPE);
    assert_true(isfinite(items[1].margin));
    mr_ranker_free(ranker);
    mr_store_close(store);
    free(many);
}

static void a_prompt_that_needs_a_picture_ranks_none_without(void **state)
{
    fixture *f = *state;
    mr_bundle *bundle = make_bundle(test_path(f->folder, "required"), true);
    mr_ranker *ranker = NULL;
    mr_error err = {0};
    const mr_candidate candidates[] = {by_id("both"), by_id("text"), by_id("picture")};
    mr_ranked_item items[COUNT(candidates)];
    assert_status(mr_ranker_new(&ranker, bundle, f->store, NULL, &err), MR_OK, &err);
    mr_rank_reply_free(rank(ranker, candidates, COUNT(candidates), items));
    assert_true(isfinite(items[0].margin));
    assert_true(isfinite(items[2].margin));
    assert_int_equal(items[1].reason, MR_REASON_MISSING);
    mr_ranker_free(ranker);
    mr_bundle_close(bundle);
}

static void a_removed_item_does_not_come_back_through_its_picture(void **state)
{
    fixture *f = *state;
    mr_store *store = NULL;
    mr_ranker *ranker = NULL;
    mr_error err = {0};
    mr_candidate candidates[] = {by_id("gone"), by_id("gone"), by_id("stripped")};
    candidates[1].image = (mr_bytes){f->png, f->png_len};
    mr_ranked_item items[COUNT(candidates)];
    assert_status(mr_store_open(&store, "memory:", NULL, &err), MR_OK, &err);
    test_store_put(store, MR_ENTITY_ITEM, f->bundle->item.space, "gone", NULL, 0, 0);
    test_store_put(store, MR_ENTITY_ITEM, f->bundle->image.space, "gone", f->image, IMAGE_TOKENS,
                   DIM);
    /* A picture that was taken away is as one that never was. */
    test_store_put(store, MR_ENTITY_ITEM, f->bundle->item.space, "stripped", f->item, 1, DIM);
    test_store_put(store, MR_ENTITY_ITEM, f->bundle->image.space, "stripped", NULL, 0, 0);
    assert_status(mr_ranker_new(&ranker, f->bundle, store, NULL, &err), MR_OK, &err);
    mr_rank_reply_free(rank(ranker, candidates, COUNT(candidates), items));
    assert_int_equal(items[0].reason, MR_REASON_REMOVED);
    assert_int_equal(items[1].reason, MR_REASON_REMOVED);
    assert_int_equal(items[2].reason, MR_REASON_NONE);
    assert_true(isfinite(items[2].margin));
    mr_ranker_free(ranker);
    mr_store_close(store);
}

static void found_is_what_the_prompt_can_use(void **state)
{
    fixture *f = *state;
    mr_candidate candidates[] = {by_id("nobody"), by_id("text"), by_id("picture")};
    candidates[0].image = (mr_bytes){f->png, f->png_len};
    mr_ranked_item items[COUNT(candidates)];
    mr_rank_reply *reply = rank(f->ranker, candidates, COUNT(candidates), items);
    assert_int_equal(reply->n_found, 3);
    assert_int_equal(reply->degraded, 0);
    mr_rank_reply_free(reply);

    mr_bundle *bundle = make_bundle(test_path(f->folder, "needs"), true);
    mr_ranker *ranker = NULL;
    mr_error err = {0};
    assert_status(mr_ranker_new(&ranker, bundle, f->store, NULL, &err), MR_OK, &err);
    reply = rank(ranker, candidates, COUNT(candidates), items);
    assert_int_equal(reply->n_found, 2); /* "text" has no picture */
    assert_int_equal(reply->n_scored, 2);
    mr_rank_reply_free(reply);
    mr_ranker_free(ranker);
    mr_bundle_close(bundle);
}

static void an_empty_picture_is_one_that_cannot_be_read(void **state)
{
    fixture *f = *state;
    mr_candidate candidates[] = {by_id("both"), by_id("both")};
    candidates[1].image = (mr_bytes){"", 0};
    mr_ranked_item items[COUNT(candidates)];
    mr_rank_reply_free(rank(f->ranker, candidates, COUNT(candidates), items));
    assert_true(isfinite(items[0].margin));
    assert_int_equal(items[1].reason, MR_REASON_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_picture_and_both_are_scored_each_its_way),
        cmocka_unit_test(a_margin_is_that_of_the_scorer_fed_by_hand),
        cmocka_unit_test(a_picture_sent_along_scores_as_the_stored_one),
        cmocka_unit_test(a_broken_picture_costs_its_candidate_alone),
        cmocka_unit_test(a_picture_of_another_shape_is_not_scored),
        cmocka_unit_test(a_prompt_that_needs_a_picture_ranks_none_without),
        cmocka_unit_test(a_removed_item_does_not_come_back_through_its_picture),
        cmocka_unit_test(found_is_what_the_prompt_can_use),
        cmocka_unit_test(an_empty_picture_is_one_that_cannot_be_read)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
