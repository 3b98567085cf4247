/* test_bundle_user.c - bundles whose users go through a trained encoder: what is filled in, what
 * their space depends on, what is refused, and that rankings run it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "ranker/model/parts.h"
#include "ranker/pipeline/ranker.h"
#include "tests/ranker_support.h"
#include "tests/support.h"

#define COUNT(a)     (sizeof(a) / sizeof *(a))
#define USER_ENCODER "data/training/user"
#define DIM          32
#define T            2 /* tokens of an item */
#define LATENTS      3
#define STORED       6 /* items "a" to "f" of 1 and 2 tokens by turns */

static char *folder;

static int make_folder(void **state)
{
    (void)state;
    folder = test_folder_new();
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    test_folder_free(folder);
    return 0;
}

static mr_status make(const char *path, json_t *spec, const char *encoder, mr_error *err)
{
    const mr_bundle_create_options opt = {.spec = spec,
                                          .llm = "data/mixed/llm",
                                          .item_encoder = "data/mixed/encoder",
                                          .user_encoder = encoder};
    mr_status status = mr_bundle_create(path, &opt, err);
    json_decref(spec);
    return status;
}

static mr_bundle *new_bundle(const char *name, int tokens, const char *encoder)
{
    mr_error err = {0};
    assert_status(make(test_path(folder, name), test_mixed_spec(tokens), encoder, &err), MR_OK,
                  &err);
    return test_bundle_open(test_path(folder, name), 1);
}

/* ---- The bundle ------------------------------------------------------------------------------ */

static void a_user_encoder_fills_in_its_shape(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_user_encoder *encoder = NULL;
    mr_bundle *bundle = new_bundle("b", T, USER_ENCODER);
    assert_string_equal(bundle->user.path, "user/");
    assert_int_equal(bundle->user.tokens, LATENTS);
    assert_int_equal(bundle->user.dim, DIM);
    assert_int_equal(bundle->user.items, 4); /* 8 vectors of 2 an item */
    assert_int_equal(mr_bundle_user_tokens(bundle), LATENTS);
    assert_false(bundle->user_projector_borrowed);
    assert_string_equal(mr_projector_kind(bundle->user_projector), "identity");
    assert_status(mr_bundle_open_user_encoder(bundle, &encoder, &err), MR_OK, &err);
    assert_int_equal(mr_user_encoder_config(encoder)->latents, LATENTS);
    mr_user_encoder_close(encoder);
    mr_bundle_close(bundle);
    assert_status(mr_bundle_verify(test_path(folder, "b"), &err), MR_OK, &err);

    mr_bundle *direct = new_bundle("direct", T, NULL);
    assert_int_equal(direct->user.items, 4);
    assert_int_equal(mr_bundle_user_tokens(direct), 4 * T);
    encoder = NULL;
    assert_status(mr_bundle_open_user_encoder(direct, &encoder, &err), MR_MISMATCH, &err);
    assert_contains(err.message, "has no user encoder to run");
    mr_bundle_close(direct);
}

/* Copies the encoder with one byte of its last weight turned round. */
static const char *changed_encoder(void)
{
    static char path[4096];
    size_t len, config_len;
    snprintf(path, sizeof path, "%s", test_path(folder, "changed"));
    char *weights = test_file_read(USER_ENCODER "/model.safetensors", &len);
    char *config = test_file_read(USER_ENCODER "/config.json", &config_len);
    mr_error err = {0};
    assert_status(mr_file_make_folders(path, &err), MR_OK, &err);
    weights[len - 4] = (char)(weights[len - 4] ^ 1);
    test_file_write(test_path(path, "model.safetensors"), weights, len);
    test_file_write(test_path(path, "config.json"), config, config_len);
    free(weights);
    free(config);
    return path;
}

static void the_user_space_is_that_of_the_encoder_and_of_the_items(void **state)
{
    (void)state;
    mr_bundle *first = new_bundle("first", T, USER_ENCODER);
    mr_bundle *same = new_bundle("same", T, USER_ENCODER);
    mr_bundle *direct = new_bundle("direct", T, NULL);
    mr_bundle *other_files = new_bundle("files", T, changed_encoder());
    mr_bundle *other_items = new_bundle("items", 1, USER_ENCODER);
    assert_true(same->user.space == first->user.space);
    assert_true(direct->user.space != first->user.space);
    assert_true(other_files->user.space != first->user.space);
    assert_true(other_files->item.space == first->item.space);
    assert_true(other_items->user.space != first->user.space);
    mr_bundle_close(first);
    mr_bundle_close(same);
    mr_bundle_close(direct);
    mr_bundle_close(other_files);
    mr_bundle_close(other_items);
}

static void parts_that_do_not_go_together_make_no_bundle(void **state)
{
    (void)state;
    static const struct {
        const char *what, *user, *encoder;
        mr_status status;
        const char *message;
    } row[] = {
        {"an encoder without a user", NULL, USER_ENCODER, MR_INVALID,
         "a user encoder 'data/training/user' was given, but 'encoders.user' is no history"},
        {"an encoder of vectors from outside",
         "{'kind': 'external', 'name': 'u', 'dim': 32, 'tokens': 3}", USER_ENCODER, MR_INVALID,
         "'encoders.user' is no history encoder"},
        {"a path without an encoder", "{'kind': 'history', 'path': 'user/', 'tokens': 3}", NULL,
         MR_INVALID, "'encoders.user' has a 'path', but no folder"},
        {"positions over a set", "{'kind': 'history'}", "data/training/user-sequence", MR_MISMATCH,
         "'encoders.item.dim' is 32, but the user encoder's item_dim is 10"},
        {"a folder that is not there", "{'kind': 'history'}", "data/nothing", MR_NOT_FOUND,
         "data/nothing"},
        {"another kind of model", "{'kind': 'history'}", "data/mixed/encoder", MR_UNSUPPORTED,
         "expected 'mixrank_user'"},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_error err = {0};
        json_t *spec = test_mixed_spec(T);
        json_object_del(json_object_get(spec, "encoders"), "user");
        if (row[i].user)
            json_object_set_new(json_object_get(spec, "encoders"), "user",
                                test_json("%s", row[i].user));
        const mr_status status = make(test_path(folder, "none"), spec, row[i].encoder, &err);
        if (status != row[i].status || !strstr(err.message, row[i].message))
            fail_msg("%s: gave %s '%s', expected %s '%s'", row[i].what, mr_status_name(status),
                     err.message, mr_status_name(row[i].status), row[i].message);
        assert_false(mr_file_exists(test_path(folder, "none")));
    }
}

static void set_user_keys(json_t *root, const void *context)
{
    json_t *patch = test_json("%s", (const char *)context);
    json_object_update(json_object_get(json_object_get(root, "encoders"), "user"), patch);
    json_decref(patch);
}

static void a_bundle_json_that_its_encoder_contradicts_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *patch;
        mr_status status;
        const char *message;
    } row[] = {
        {"{'tokens': 4}", MR_MISMATCH, "'tokens' is 4, but the user encoder's num_latents is 3"},
        {"{'dim': 16}", MR_MISMATCH, "'dim' is 16, but the user encoder's hidden_size is 32"},
        {"{'dim': null}", MR_INVALID, "'dim' is missing"},
        {"{'path': null}", MR_INVALID, "'dim' belongs to a user encoder, which 'path' would name"},
        {"{'path': '../user'}", MR_INVALID, "'path'"},
        {"{'path': 'elsewhere/'}", MR_NOT_FOUND, "elsewhere"},
        {"{'order': 'sequence'}", MR_MISMATCH, "'spaces.user' is"},
    };
    mr_bundle_close(new_bundle("b", T, USER_ENCODER));
    const char *path = test_path(folder, "b");
    size_t len;
    char *good = test_file_read(test_path(path, "bundle.json"), &len);
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_bundle *bundle = NULL;
        mr_error err = {0};
        path = test_path(folder, "b");
        test_file_write(test_path(path, "bundle.json"), good, len);
        test_bundle_edit(path, set_user_keys, row[i].patch);
        const mr_status status = mr_bundle_open(&bundle, path, NULL, &err);
        if (status != row[i].status || !strstr(err.message, row[i].message) || bundle)
            fail_msg("%s: gave %s '%s', expected %s '%s'", row[i].patch, mr_status_name(status),
                     err.message, mr_status_name(row[i].status), row[i].message);
    }
    free(good);
}

static void positions_need_a_sequence(void **state)
{
    (void)state;
    mr_error err = {0};
    size_t len;
    char encoder[4096];
    snprintf(encoder, sizeof encoder, "%s", test_path(folder, "sequence"));
    assert_status(mr_file_make_folders(encoder, &err), MR_OK, &err);
    char *weights = test_file_read(USER_ENCODER "/model.safetensors", &len);
    test_file_write(test_path(encoder, "model.safetensors"), weights, len);
    free(weights);
    mr_user_config config;
    assert_status(mr_user_config_load(&config, USER_ENCODER "/config.json", &err), MR_OK, &err);
    config.positions = MR_USER_POSITIONS_SINUSOID;
    assert_status(mr_user_config_save(&config, test_path(encoder, "config.json"), &err), MR_OK,
                  &err);
    assert_status(make(test_path(folder, "b"), test_mixed_spec(T), encoder, &err), MR_INVALID,
                  &err);
    assert_contains(err.message, "the user encoder has positions, which mean nothing in a set");
    json_t *spec = test_mixed_spec(T);
    json_object_set_new(json_object_get(json_object_get(spec, "encoders"), "user"), "order",
                        json_string("sequence"));
    assert_status(make(test_path(folder, "b"), spec, encoder, &err), MR_OK, &err);
}

/* ---- Rankings -------------------------------------------------------------------------------- */

typedef struct {
    mr_bundle *bundle;
    mr_store *store;
    mr_ranker *ranker;
    float *vectors; /* [STORED][T][DIM] */
} fixture;

static const mr_candidate candidates[] = {{.id = {"a", 1}}, {.id = {"b", 1}}, {.id = {"c", 1}}};

static void open_fixture(fixture *f)
{
    static const char *const ids[STORED] = {"a", "b", "c", "d", "e", "f"};
    mr_rng rng = mr_rng_seed(4);
    mr_error err = {0};
    f->bundle = new_bundle("b", T, USER_ENCODER);
    assert_status(mr_store_open(&f->store, "memory:", NULL, &err), MR_OK, &err);
    f->vectors = test_vectors(&rng, STORED * T, DIM);
    for (size_t i = 0; i < STORED; i++)
        test_store_put(f->store, MR_ENTITY_ITEM, f->bundle->item.space, ids[i],
                       f->vectors + i * T * DIM, 1 + i % T, DIM);
    assert_status(mr_ranker_new(&f->ranker, f->bundle, f->store, NULL, &err), MR_OK, &err);
}

static void close_fixture(fixture *f)
{
    mr_ranker_free(f->ranker);
    mr_store_close(f->store);
    mr_bundle_close(f->bundle);
    free(f->vectors);
}

static mr_rank_request request_of(void)
{
    mr_rank_request request = MR_RANK_REQUEST_DEFAULT;
    request.query = mr_str_of("red kettle");
    request.candidates = candidates;
    request.n_candidates = COUNT(candidates);
    return request;
}

/* Margins by candidate; returns what was degraded. */
static uint32_t margins_of(fixture *f, const mr_rank_request *request, double margins[3])
{
    mr_rank_reply *reply = NULL;
    mr_error err = {0};
    assert_status(mr_ranker_rank(f->ranker, request, &reply, &err), MR_OK, &err);
    assert_int_equal(reply->n_scored, 3);
    for (size_t i = 0; i < reply->n_items; i++)
        margins[reply->items[i].index] = reply->items[i].margin;
    const uint32_t degraded = reply->degraded;
    mr_rank_reply_free(reply);
    return degraded;
}

static void assert_margins(const double *got, const double *want, bool same, const char *what)
{
    if ((memcmp(got, want, 3 * sizeof *got) == 0) != same)
        fail_msg("%s: %.9g %.9g %.9g and %.9g %.9g %.9g, expected %s", what, got[0], got[1], got[2],
                 want[0], want[1], want[2], same ? "the same" : "others");
}

static void a_history_is_ranked_by_the_encoders_tokens(void **state)
{
    (void)state;
    fixture f;
    mr_error err = {0};
    double anonymous[3], inline_margins[3], history[3], stored[3];
    open_fixture(&f);
    mr_rank_request request = request_of();
    assert_int_equal(margins_of(&f, &request, anonymous), 0);

    /* What the items d and f stand for, in the order of history.h. */
    const mr_str ids[2] = {mr_str_of("d"), mr_str_of("f")};
    size_t chosen[2], n = 0;
    char scratch[64];
    float items[2 * T * DIM], tokens[LATENTS * DIM];
    assert_int_equal(mr_history_choose(ids, 2, MR_HISTORY_SET, 4, chosen, scratch), 2);
    for (size_t i = 0; i < 2; i++) {
        const size_t item = chosen[i] == 0 ? 3 : 5;
        memcpy(items + n * DIM, f.vectors + item * T * DIM, (1 + item % T) * DIM * sizeof *items);
        n += 1 + item % T;
    }
    mr_user_encoder *encoder = NULL;
    assert_status(mr_bundle_open_user_encoder(f.bundle, &encoder, &err), MR_OK, &err);
    assert_status(mr_user_encoder_run(encoder, items, n, tokens, &err), MR_OK, &err);
    mr_user_encoder_close(encoder);

    request.user_vectors = tokens;
    request.user_tokens = LATENTS;
    request.user_dim = DIM;
    assert_int_equal(margins_of(&f, &request, inline_margins), 0);
    assert_margins(inline_margins, anonymous, false, "inline against anonymous");

    request = request_of();
    const mr_str other[] = {ids[1], mr_str_of("nobody"), ids[0], ids[1]};
    request.history = other;
    request.n_history = COUNT(other);
    assert_int_equal(margins_of(&f, &request, history), 0);
    assert_margins(history, inline_margins, true, "history against inline");

    test_store_put(f.store, MR_ENTITY_USER, f.bundle->user.space, "u", tokens, LATENTS, DIM);
    request = request_of();
    request.user_id = mr_str_of("u");
    assert_int_equal(margins_of(&f, &request, stored), 0);
    assert_margins(stored, inline_margins, true, "stored against inline");
    close_fixture(&f);
}

static void a_user_that_the_encoder_cannot_make_is_ranked_as_anonymous(void **state)
{
    (void)state;
    fixture f;
    double anonymous[3], got[3];
    float huge[DIM];
    open_fixture(&f);
    mr_rank_request request = request_of();
    assert_int_equal(margins_of(&f, &request, anonymous), 0);
    for (size_t i = 0; i < DIM; i++)
        huge[i] = i % 2 ? 3e38f : -3e38f;
    test_store_put(f.store, MR_ENTITY_ITEM, f.bundle->item.space, "huge", huge, 1, DIM);
    static const char *const histories[] = {"huge", "nobody"};
    for (size_t i = 0; i < COUNT(histories); i++) {
        const mr_str one = mr_str_of(histories[i]);
        request = request_of();
        request.history = &one;
        request.n_history = 1;
        assert_int_equal(margins_of(&f, &request, got), 1u << MR_REASON_USER_MISSING);
        assert_margins(got, anonymous, true, histories[i]);
    }
    /* More tokens than the encoder gives are no user of this bundle. */
    float *many = calloc((LATENTS + 1) * DIM, sizeof *many);
    test_store_put(f.store, MR_ENTITY_USER, f.bundle->user.space, "many", many, LATENTS + 1, DIM);
    request = request_of();
    request.user_id = mr_str_of("many");
    assert_int_equal(margins_of(&f, &request, got), 1u << MR_REASON_USER_MISSING);
    free(many);
    close_fixture(&f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_user_encoder_fills_in_its_shape),
        TEST(the_user_space_is_that_of_the_encoder_and_of_the_items),
        TEST(parts_that_do_not_go_together_make_no_bundle),
        TEST(a_bundle_json_that_its_encoder_contradicts_is_refused),
        TEST(positions_need_a_sequence),
        TEST(a_history_is_ranked_by_the_encoders_tokens),
        TEST(a_user_that_the_encoder_cannot_make_is_ranked_as_anonymous),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
