/* test_train_serve.c - what is trained is what is served: the margins that training computes for a
 * list are those of a bundle made of the trained parts, for the same query, history and candidates.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "ranker/pipeline/ranker.h"
#include "ranker/training/item_table.h"
#include "ranker/training/rank_pass.h"
#include "tests/ranker_support.h"
#include "tests/unit/training_fixture.h"

#define BOUND     1e-4
#define MAX_LISTS 32

/* What users are in a prompt, and how long it may be. */
typedef struct {
    const char *name;
    bool mixed;
    int tokens;        /* items that stand for a user */
    const char *order; /* of them */
    int max_length;
    bool own_projector; /* of users; else the items' serves */
} setting;

static const setting settings[] = {
    {"set", true, 4, "set", 48, true},           {"cut", true, 2, "set", 48, true},
    {"sequence", true, 3, "sequence", 48, true}, {"tight", true, 3, "set", 19, true},
    {"borrowed", true, 3, "set", 48, false},     {"text", false, 0, NULL, 64, false},
    {"text_tight", false, 0, NULL, 16, false},
};

static char *world;

static const char mixed_losses[] = "losses: [{kind: listwise}]\n"
                                   "steps: 15\nbatch: 6\noptimizer: {rate: 1e-2}\n";

static int set_up(void **state)
{
    (void)state;
    world = world_new();
    world_decoders(world);
    mr_recipe *recipe = world_recipe(world, RECIPE_RANK("bundle"), rank_parts, mixed_losses);
    train_ok(recipe, test_path(world, "trained"), (run_options){0});
    mr_recipe_free(recipe);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_folder_free(world);
    return 0;
}

/* ---- The side of training -------------------------------------------------------------------- */

typedef struct {
    mr_recipe *recipe;
    mr_train_options opt;
    mr_trainer trainer;
    mr_lists lists;
    mr_text_table texts;
    float *table;
    mr_rank_draw draw;
    mr_rank_pass pass;
} training;

/* bundle.json of a setting: an edited copy. The caller owns it. */
static json_t *spec_of(const setting *s)
{
    json_t *spec = test_json("%s", s->mixed ? world_bundle : world_teacher);
    json_object_set_new(spec, "max_length", json_integer(s->max_length));
    if (!s->mixed)
        return spec;
    json_t *user = json_object_get(json_object_get(spec, "encoders"), "user");
    json_object_set_new(user, "tokens", json_integer(s->tokens));
    json_object_set_new(user, "order", json_string(s->order));
    if (!s->own_projector)
        json_object_del(json_object_get(spec, "projectors"), "user");
    return spec;
}

/* Margins of all lists of the valid split. */
static void open_training(training *t, const setting *s)
{
    static const char parts[] = "parts:\n"
                                "  - {name: llm, from: '@/trained/llm'}\n"
                                "  - {name: encoder, from: '@/trained/encoder'}\n"
                                "  - {name: item_projector, "
                                "from: '@/trained/item_projector.safetensors'}\n";
    mr_error err = {0};
    json_t *spec = spec_of(s);
    char bundle[64], line[128];
    snprintf(bundle, sizeof bundle, "%s.json", s->name);
    assert_status(mr_json_save_file(spec, test_path(world, bundle), &err), MR_OK, &err);
    json_decref(spec);
    t->recipe = world_recipe(world, RECIPE_RANK("bundle"),
                             s->mixed ? parts : "parts: [{name: llm, from: '@/trained/llm'}]\n",
                             s->own_projector ? "  - {name: user_projector, "
                                                "from: '@/trained/user_projector.safetensors'}\n"
                                              : "",
                             mixed_losses);
    snprintf(line, sizeof line, "%s", test_path(world, bundle));
    free(t->recipe->bundle);
    t->recipe->bundle = malloc(sizeof line);
    assert_non_null(t->recipe->bundle);
    memcpy(t->recipe->bundle, line, sizeof line);
    t->recipe->candidates = 8;

    t->trainer = (mr_trainer){.recipe = t->recipe, .opt = &t->opt, .ops = mr_ops_select_f32()};
    assert_status(mr_pool_new(&t->trainer.pool, 2, &err), MR_OK, &err);
    assert_status(mr_trainer_open_parts(&t->trainer, &err), MR_OK, &err);
    assert_status(mr_lists_open(&t->lists, t->recipe, &err), MR_OK, &err);
    mr_item_tokens tokens = {.T = 0, .dim = (size_t)t->trainer.llm.decoder.config.C};
    if (s->mixed) {
        assert_status(mr_item_texts_add(&t->texts, &t->trainer, &t->lists,
                                        t->trainer.spec.item_max_tokens, &err),
                      MR_OK, &err);
        assert_status(mr_item_table_new(&t->table, &t->trainer, &t->texts, &err), MR_OK, &err);
        tokens = (mr_item_tokens){.tokens = t->table,
                                  .T = (size_t)t->trainer.spec.item_tokens,
                                  .dim = (size_t)t->trainer.encoder.decoder.config.C};
    }
    assert_status(mr_rank_draw_open(&t->draw, &t->trainer, &t->lists, MAX_LISTS, &err), MR_OK,
                  &err);
    assert_status(mr_rank_pass_open(&t->pass, &t->trainer, &t->trainer.spec, &t->trainer.llm,
                                    &t->trainer.item_projector, &t->trainer.user_projector,
                                    &t->lists, MAX_LISTS, &err),
                  MR_OK, &err);
    const uint64_t n = mr_rank_draw_examples(&t->lists, true);
    assert_in_range(n, 10, MAX_LISTS);
    for (uint64_t i = 0; i < n; i++)
        assert_status(mr_rank_draw_add(&t->draw, i, true, &err), MR_OK, &err);
    assert_status(mr_rank_pass_forward(&t->pass, &t->draw, &tokens, &err), MR_OK, &err);
}

static void close_training(training *t)
{
    mr_rank_pass_close(&t->pass);
    mr_rank_draw_close(&t->draw);
    free(t->table);
    mr_text_table_release(&t->texts);
    mr_lists_close(&t->lists);
    mr_trainer_close_parts(&t->trainer);
    mr_pool_free(t->trainer.pool);
    mr_recipe_free(t->recipe);
}

/* The row that a list was drawn from. */
static const mr_task_row *row_of(const training *t, const mr_rank_list *list)
{
    for (size_t s = 0; s < t->lists.n_sources; s++)
        for (size_t i = 0; i < t->lists.source[s].n_valid; i++)
            if (mr_str_equal(t->lists.source[s].valid[i]->id, list->id))
                return t->lists.source[s].valid[i];
    fail_msg("no row '%.*s'", MR_STR_ARG(list->id));
    return NULL;
}

/* ---- The side of serving --------------------------------------------------------------------- */

typedef struct {
    mr_bundle *bundle;
    mr_store *store;
    mr_ranker *ranker;
    float *vectors; /* [items][T][dim], of the encoder */
    uint16_t *tokens;
    size_t T, dim;
} serving;

static void encode_items(serving *v, const training *t)
{
    mr_error err = {0};
    mr_text_encoder *encoder = NULL;
    assert_status(mr_bundle_open_item_encoder(v->bundle, MR_GEMM_SCORING, 0, &encoder, &err), MR_OK,
                  &err);
    v->T = mr_text_encoder_tokens(encoder);
    v->dim = mr_text_encoder_dim(encoder);
    v->vectors = calloc(N_ITEMS * v->T * v->dim, sizeof *v->vectors);
    v->tokens = calloc(N_ITEMS, sizeof *v->tokens);
    assert_true(v->vectors && v->tokens);
    mr_fields fields[N_ITEMS];
    for (uint32_t i = 0; i < N_ITEMS; i++)
        fields[i] = mr_lists_item(&t->lists, i)->fields;
    assert_status(mr_text_encoder_run(encoder, fields, N_ITEMS, v->vectors, v->tokens, NULL, &err),
                  MR_OK, &err);
    mr_text_encoder_close(encoder);
    for (uint32_t i = 0; i < N_ITEMS; i++) {
        char id[8];
        snprintf(id, sizeof id, "i%02d", (int)i);
        test_store_put(v->store, MR_ENTITY_ITEM, v->bundle->item.space, id,
                       v->vectors + i * v->T * v->dim, v->tokens[i], v->dim);
    }
}

static void open_serving(serving *v, const setting *s, const training *t)
{
    mr_error err = {0};
    char llm[1024], encoder[1024], item[1024], user[1024], path[1024];
    json_t *spec = spec_of(s);
    snprintf(llm, sizeof llm, "%s/trained/llm", world);
    snprintf(encoder, sizeof encoder, "%s/trained/encoder", world);
    snprintf(item, sizeof item, "%s/trained/item_projector.safetensors", world);
    snprintf(user, sizeof user, "%s/trained/user_projector.safetensors", world);
    snprintf(path, sizeof path, "%s/bundle_%s", world, s->name);
    const mr_bundle_create_options opt = {.overwrite = true,
                                          .spec = spec,
                                          .llm = llm,
                                          .item_encoder = s->mixed ? encoder : NULL,
                                          .item_projector = s->mixed ? item : NULL,
                                          .user_projector = s->own_projector ? user : NULL};
    assert_status(mr_bundle_create(path, &opt, &err), MR_OK, &err);
    json_decref(spec);
    v->bundle = test_bundle_open(path, 2);
    assert_status(mr_store_open(&v->store, "memory:", NULL, &err), MR_OK, &err);
    if (s->mixed)
        encode_items(v, t);
    assert_status(mr_ranker_new(&v->ranker, v->bundle, v->store, NULL, &err), MR_OK, &err);
}

static void close_serving(serving *v)
{
    mr_ranker_free(v->ranker);
    mr_store_close(v->store);
    mr_bundle_close(v->bundle);
    free(v->vectors);
    free(v->tokens);
}

/* ---- Both ------------------------------------------------------------------------------------ */

static void with_both(const setting *s,
                      void (*body)(const setting *, const training *, const serving *))
{
    training t = {0};
    serving v = {0};
    open_training(&t, s);
    open_serving(&v, s, &t);
    body(s, &t, &v);
    close_serving(&v);
    close_training(&t);
}

static void assert_margin(const setting *s, const training *t, size_t l, size_t i, double served)
{
    const double trained = (double)t->pass.margin[t->pass.first[l] + i];
    if (!(fabs(served - trained) <= BOUND))
        fail_msg("%s: list '%.*s', candidate %zu: the margin in training is %.7g, in serving %.7g",
                 s->name, MR_STR_ARG(t->draw.list[l].id), i, trained, served);
}

static void compare_tokens(const setting *s, const training *t, const serving *v)
{
    for (uint32_t i = 0; i < N_ITEMS && s->mixed; i++)
        assert_int_equal(v->tokens[i], v->T);
    if (s->mixed)
        assert_floats_near(t->table, v->vectors, N_ITEMS * v->T * v->dim, 1e-5);
}

static void embedding_tokens_are_those_of_the_encoder(void **state)
{
    (void)state;
    with_both(&settings[0], compare_tokens);
}

static void compare_scorer(const setting *s, const training *t, const serving *v)
{
    mr_scorer *scorer = test_scorer(v->bundle, 0);
    double lowest = HUGE_VAL, highest = -HUGE_VAL;
    size_t users = 0;
    for (size_t l = 0; l < t->draw.n_lists; l++) {
        const mr_rank_list *list = &t->draw.list[l];
        mr_error err = {0};
        float *user = calloc((size_t)t->recipe->history * v->T * v->dim + 1, sizeof *user);
        assert_non_null(user);
        for (size_t h = 0; h < list->n_history && s->mixed; h++)
            memcpy(user + h * v->T * v->dim, v->vectors + list->history[h] * v->T * v->dim,
                   v->T * v->dim * sizeof *user);
        const mr_field query = {mr_str_of("query"), list->query};
        const mr_scorer_prefix prefix = {
            .fields = {&query, list->has_query},
            .user = {user, s->mixed ? list->n_history * v->T : 0, v->dim}};
        users += prefix.user.tokens > 0;
        assert_status(mr_scorer_begin(scorer, &prefix, &err), MR_OK, &err);
        for (size_t i = 0; i < list->n; i++) {
            const mr_scorer_candidate candidate = {
                .fields = mr_lists_item(&t->lists, list->item[i])->fields,
                .item = {s->mixed ? v->vectors + list->item[i] * v->T * v->dim : NULL,
                         s->mixed ? v->T : 0, v->dim}};
            const double margin = test_score(scorer, &candidate);
            assert_margin(s, t, l, i, margin);
            lowest = fmin(lowest, margin);
            highest = fmax(highest, margin);
        }
        free(user);
    }
    /* Margins that are all alike would agree whatever the prompts. */
    assert_true(highest - lowest > 100 * BOUND);
    assert_int_equal(users > 5, s->mixed);
    mr_scorer_free(scorer);
}

static void the_scorer_of_a_bundle_gives_the_margins_of_training(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(settings); i++)
        with_both(&settings[i], compare_scorer);
}

/* As a request names them: ids, whose vectors are in the store; the row's whole history. */
static void compare_ranker(const setting *s, const training *t, const serving *v)
{
    size_t longer = 0;
    for (size_t l = 0; l < t->draw.n_lists; l++) {
        const mr_rank_list *list = &t->draw.list[l];
        const mr_task_row *row = row_of(t, list);
        if (row->query.len == 0 && !s->mixed)
            continue; /* nothing to rank by: a request of that kind is refused */
        mr_error err = {0};
        mr_rank_reply *reply = NULL;
        mr_candidate candidates[8];
        memset(candidates, 0, sizeof candidates);
        mr_str history[N_ITEMS];
        assert_int_equal(list->n, COUNT(candidates));
        for (size_t i = 0; i < list->n; i++) {
            const mr_item *item = mr_lists_item(&t->lists, list->item[i]);
            candidates[i].id = item->id;
            candidates[i].fields = item->fields;
        }
        for (size_t i = 0; i < row->n_history; i++)
            history[i] = mr_lists_item(&t->lists, row->history[i])->id;
        longer += row->n_history > (size_t)s->tokens;
        mr_rank_request request = MR_RANK_REQUEST_DEFAULT;
        request.query = row->query;
        request.history = history;
        request.n_history = s->mixed ? row->n_history : 0;
        request.candidates = candidates;
        request.n_candidates = list->n;
        assert_status(mr_ranker_rank(v->ranker, &request, &reply, &err), MR_OK, &err);
        assert_int_equal(reply->degraded, 0);
        assert_int_equal(reply->n_scored, list->n);
        for (size_t i = 0; i < reply->n_items; i++)
            assert_margin(s, t, l, reply->items[i].index, reply->items[i].margin);
        mr_rank_reply_free(reply);
    }
    if (s->mixed && s->tokens < 4)
        assert_true(longer > 0);
}

static void a_request_gives_the_margins_of_training(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(settings); i++)
        with_both(&settings[i], compare_ranker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embedding_tokens_are_those_of_the_encoder),
        cmocka_unit_test(the_scorer_of_a_bundle_gives_the_margins_of_training),
        cmocka_unit_test(a_request_gives_the_margins_of_training),
    };
    return cmocka_run_group_tests_name("train_serve", tests, set_up, tear_down);
}
