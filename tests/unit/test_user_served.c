/* test_user_served.c - users that a trained encoder makes of their histories: a bundle of a run's
 * parts ranks by the margins that training saw, to 1e-4.
 *
 * The trainer's own draw and pass give the margins of valid rows; the same people, queries and
 * candidates then go through `encode`'s text encoder, a store, and the pipeline, which runs the
 * user encoder of the bundle. Users without one: test_train_serve.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "ranker/model/bundle_write.h"
#include "ranker/pipeline/ranker.h"
#include "ranker/training/item_table.h"
#include "ranker/training/rank_pass.h"
#include "tests/ranker_support.h"
#include "tests/unit/training_fixture.h"

#define TOLERANCE  1e-4
#define CANDIDATES 6
#define HISTORY    3 /* items of a user; some people have more */

/* How a user enters the prompt. */
typedef struct {
    const char *name;
    const char *order; /* "set", "sequence" */
    const char *user;  /* parts beside llm, encoder and item_projector */
    const char *rest;
    bool user_projector;
} form;

#define PARTS                             \
    "parts:\n"                            \
    "  - {name: llm, from: '@/lm/llm'}\n" \
    "  - {name: encoder, from: '@/enc/encoder'}\n"

static const form forms[] = {
    /* As wide as the items, and with them the llm: no projector. */
    {"identity", "set",
     "  - {name: user, new: perceiver, layers: 1, heads: 2, ffn: 24, latents: 3, deviation: 0.3}\n",
     "freeze: ['encoder.*']\n", false},
    {"projector", "set",
     "  - {name: user, new: perceiver, layers: 2, width: 24, heads: 3, ffn: 32, latents: 2,"
     " deviation: 0.3}\n"
     "  - {name: user_projector, new: linear}\n",
     "freeze: ['encoder.*']\n", true},
    /* More latents than there are vectors in a short history. */
    {"joint", "set",
     "  - {name: user, new: perceiver, layers: 1, heads: 1, ffn: 24, latents: 9, deviation: 0.3}\n"
     "  - {name: user_projector, new: mlp}\n",
     "", true},
    {"sequence", "sequence",
     "  - {name: user, new: perceiver, layers: 1, heads: 2, ffn: 24, latents: 3, deviation: 0.3}\n",
     "", false},
};

static char *world;

/* ---- The trainer's side ---------------------------------------------------------------------- */

static mr_recipe *recipe_of(const form *f, const char *rest)
{
    return world_recipe(world,
                        strcmp(f->order, "set") == 0 ? RECIPE_RANK("set") : RECIPE_RANK("sequence"),
                        PARTS "  - {name: item_projector, new: linear, scale: 4}\n", f->user,
                        "losses: [{kind: listwise}]\nbatch: 6\n", f->rest, rest);
}

/* The parts that a run left, as those of a recipe. */
static mr_recipe *recipe_of_result(const form *f)
{
    mr_strbuf parts = {0};
    mr_strbuf_printf(&parts,
                     "parts:\n"
                     "  - {name: llm, from: '@/%s/llm'}\n"
                     "  - {name: encoder, from: '@/%s/encoder'}\n"
                     "  - {name: item_projector, from: '@/%s/item_projector.safetensors'}\n"
                     "  - {name: user, from: '@/%s/user'}\n",
                     f->name, f->name, f->name, f->name);
    if (f->user_projector)
        mr_strbuf_printf(&parts,
                         "  - {name: user_projector, from: '@/%s/user_projector.safetensors'}\n",
                         f->name);
    mr_strbuf_puts(&parts, "losses: [{kind: listwise}]\nbatch: 6\nsteps: 1\n");
    assert_false(parts.failed);
    mr_recipe *recipe = world_recipe(
        world, strcmp(f->order, "set") == 0 ? RECIPE_RANK("set") : RECIPE_RANK("sequence"),
        parts.data);
    mr_strbuf_release(&parts);
    return recipe;
}

typedef struct {
    mr_recipe *recipe;
    mr_train_options opt;
    mr_trainer trainer;
    mr_lists lists;
    mr_text_table texts;
    float *table;
    mr_rank_draw draw;
    mr_rank_pass pass;
    mr_item_tokens tokens;
} trained;

static void open_trained(trained *t, const form *f)
{
    mr_error err = {0};
    *t = (trained){.recipe = recipe_of_result(f), .opt = {.out = "/nowhere", .threads = 1}};
    t->trainer = (mr_trainer){.recipe = t->recipe, .opt = &t->opt, .ops = mr_ops_select_f32()};
    mr_trainer *trainer = &t->trainer;
    assert_status(mr_pool_new(&trainer->pool, 1, &err), MR_OK, &err);
    assert_status(mr_trainer_open_parts(trainer, &err), MR_OK, &err);
    assert_status(mr_lists_open(&t->lists, t->recipe, &err), MR_OK, &err);
    assert_status(
        mr_item_texts_add(&t->texts, trainer, &t->lists, trainer->spec.item_max_tokens, &err),
        MR_OK, &err);
    assert_status(mr_item_table_new(&t->table, trainer, &t->texts, &err), MR_OK, &err);
    t->tokens = (mr_item_tokens){.tokens = t->table,
                                 .T = (size_t)trainer->spec.item_tokens,
                                 .dim = (size_t)trainer->encoder.decoder.config.C};
    assert_status(mr_rank_draw_open(&t->draw, trainer, &t->lists, 1, &err), MR_OK, &err);
    assert_status(mr_rank_pass_open(&t->pass, trainer, &trainer->spec, &trainer->llm,
                                    &trainer->item_projector, &trainer->user_projector, &t->lists,
                                    1, &err),
                  MR_OK, &err);
    assert_status(mr_rank_pass_encode_users(&t->pass, &trainer->user, 1, &err), MR_OK, &err);
}

static void close_trained(trained *t)
{
    mr_rank_pass_close(&t->pass);
    mr_rank_draw_close(&t->draw);
    free(t->table);
    mr_text_table_release(&t->texts);
    mr_lists_close(&t->lists);
    mr_pool *pool = t->trainer.pool;
    mr_trainer_close_parts(&t->trainer);
    mr_pool_free(pool);
    mr_recipe_free(t->recipe);
}

/* ---- The server's side ----------------------------------------------------------------------- */

typedef struct {
    mr_bundle *bundle;
    mr_store *store;
    mr_ranker *ranker;
} served;

static const char *part_path(const form *f, const char *name, char path[1024])
{
    snprintf(path, 1024, "%s/%s/%s", world, f->name, name);
    return path;
}

static void make_bundle(const form *f, const char *folder)
{
    mr_error err = {0};
    json_t *spec = NULL;
    char llm[1024], encoder[1024], user[1024], items[1024], users[1024], path[1024];
    snprintf(path, sizeof path, "%s/%s.json", world, f->order);
    assert_status(mr_json_load_file(&spec, path, MR_JSON_MAX_CONFIG, &err), MR_OK, &err);
    const mr_bundle_create_options opt = {
        .spec = spec,
        .llm = part_path(f, "llm", llm),
        .item_encoder = part_path(f, "encoder", encoder),
        .user_encoder = part_path(f, "user", user),
        .item_projector = part_path(f, "item_projector.safetensors", items),
        .user_projector =
            f->user_projector ? part_path(f, "user_projector.safetensors", users) : NULL};
    assert_status(mr_bundle_create(folder, &opt, &err), MR_OK, &err);
    json_decref(spec);
}

/* Every item of the catalogue encoded, as `mixrank encode` does. */
static void fill_store(served *s, const mr_lists *lists)
{
    mr_error err = {0};
    mr_text_encoder *encoder = NULL;
    assert_status(mr_bundle_open_item_encoder(s->bundle, MR_GEMM_BLAS, 0, &encoder, &err), MR_OK,
                  &err);
    const size_t T = (size_t)s->bundle->item.tokens, dim = s->bundle->item.dim;
    float *values = calloc(T * dim, sizeof *values);
    assert_non_null(values);
    for (uint32_t i = 0; i < mr_lists_n_items(lists); i++) {
        const mr_item *item = mr_lists_item(lists, i);
        uint16_t tokens = 0;
        char id[64];
        assert_status(mr_text_encoder_run(encoder, &item->fields, 1, values, &tokens, NULL, &err),
                      MR_OK, &err);
        assert_int_equal(tokens, T);
        snprintf(id, sizeof id, "%.*s", MR_STR_ARG(item->id));
        test_store_put(s->store, MR_ENTITY_ITEM, s->bundle->item.space, id, values, tokens, dim);
    }
    free(values);
    mr_text_encoder_close(encoder);
}

static void open_served(served *s, const form *f, const mr_lists *lists)
{
    mr_error err = {0};
    char folder[1024];
    make_bundle(f, part_path(f, "bundle", folder));
    s->bundle = test_bundle_open(folder, 2);
    assert_status(mr_store_open(&s->store, "memory:", NULL, &err), MR_OK, &err);
    fill_store(s, lists);
    mr_ranker_options options = MR_RANKER_OPTIONS_DEFAULT;
    options.encode_missing = false;
    assert_status(mr_ranker_new(&s->ranker, s->bundle, s->store, &options, &err), MR_OK, &err);
}

static void close_served(served *s)
{
    mr_ranker_free(s->ranker);
    mr_store_close(s->store);
    mr_bundle_close(s->bundle);
}

/* margin[CANDIDATES] in the order of the list. */
static void rank_list(served *s, const trained *t, const mr_rank_list *list, const mr_str *history,
                      size_t n_history, double *margin)
{
    mr_error err = {0};
    mr_candidate candidate[CANDIDATES] = {0};
    mr_rank_request request = MR_RANK_REQUEST_DEFAULT;
    mr_rank_reply *reply = NULL;
    for (size_t i = 0; i < list->n; i++) {
        const mr_item *item = mr_lists_item(&t->lists, list->item[i]);
        candidate[i] = (mr_candidate){.id = item->id, .fields = item->fields};
    }
    if (list->has_query)
        request.query = list->query;
    request.history = history;
    request.n_history = n_history;
    request.candidates = candidate;
    request.n_candidates = list->n;
    assert_status(mr_ranker_rank(s->ranker, &request, &reply, &err), MR_OK, &err);
    assert_int_equal(reply->degraded, 0);
    assert_int_equal(reply->n_scored, list->n);
    for (size_t i = 0; i < reply->n_items; i++)
        margin[reply->items[i].index] = reply->items[i].margin;
    mr_rank_reply_free(reply);
}

/* ---- Both ------------------------------------------------------------------------------------ */

static const mr_task_row *valid_row(const mr_lists *lists, uint64_t i)
{
    size_t s = 0;
    while (i >= lists->source[s].n_valid)
        i -= lists->source[s++].n_valid;
    return lists->source[s].valid[i];
}

/* Adds to *apart how far the margins of a list are from each other. */
static void compare(const form *f, served *s, trained *t, const mr_str *history, size_t n_history,
                    double *margin, double *apart)
{
    mr_error err = {0};
    const mr_rank_list *list = &t->draw.list[0];
    assert_status(mr_rank_pass_forward(&t->pass, &t->draw, &t->tokens, &err), MR_OK, &err);
    rank_list(s, t, list, history, n_history, margin);
    for (size_t i = 0; i < list->n; i++) {
        const double want = (double)t->pass.margin[i];
        if (!(fabs(margin[i] - want) <= TOLERANCE))
            fail_msg("%s, row %.*s, candidate %zu: served %.7f, trained %.7f", f->name,
                     MR_STR_ARG(list->id), i, margin[i], want);
        *apart += fabs(want - (double)t->pass.margin[0]);
    }
}

static void check_form(const form *f)
{
    served s = {0};
    trained t;
    double apart = 0, of_user = 0, margin[CANDIDATES], anonymous[CANDIDATES];
    mr_error err = {0};
    open_trained(&t, f);
    open_served(&s, f, &t.lists);
    const uint64_t n = mr_rank_draw_examples(&t.lists, true);
    size_t longer = 0;
    assert_true(n >= 16);
    assert_int_equal(s.bundle->user.items, HISTORY);
    assert_int_equal(t.draw.histories.most, HISTORY);
    for (uint64_t i = 0; i < n; i++) {
        const mr_task_row *row = valid_row(&t.lists, i);
        mr_str history[N_ITEMS];
        for (size_t h = 0; h < row->n_history; h++)
            history[h] = mr_lists_item(&t.lists, row->history[h])->id;
        mr_rank_draw_clear(&t.draw);
        assert_status(mr_rank_draw_add(&t.draw, i, true, &err), MR_OK, &err);
        mr_rank_list *list = &t.draw.list[0];
        assert_true(list->n_history > 0);
        longer += row->n_history > HISTORY;
        compare(f, &s, &t, history, row->n_history, margin, &apart);
        if (!list->has_query)
            continue;
        const size_t n_history = list->n_history;
        list->n_history = 0; /* anonymous */
        compare(f, &s, &t, NULL, 0, anonymous, &apart);
        for (size_t k = 0; k < list->n; k++)
            of_user += fabs(margin[k] - anonymous[k]);
        list->n_history = n_history;
        list->has_query = false; /* browsing */
        compare(f, &s, &t, history, row->n_history, margin, &apart);
    }
    assert_true(longer > 0);
    /* Margins that say nothing would agree as well. */
    if (!(apart / (double)n > 100 * TOLERANCE && of_user / (double)n > 100 * TOLERANCE))
        fail_msg("%s: margins of a row are %g apart, and %g from those of nobody", f->name,
                 apart / (double)n, of_user / (double)n);
    close_served(&s);
    close_trained(&t);
}

static void a_bundle_ranks_by_the_margins_of_training(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(forms); i++) {
        mr_recipe *recipe =
            recipe_of(&forms[i], "steps: 30\noptimizer: {rate: 1e-2, warm_up: 3}\n");
        recipe->history = HISTORY;
        train_ok(recipe, test_path(world, forms[i].name), (run_options){.threads = 2});
        mr_recipe_free(recipe);
        check_form(&forms[i]);
    }
}

static mr_recipe *short_recipe(const form *f, const char *freeze)
{
    return world_recipe(world,
                        strcmp(f->order, "set") == 0 ? RECIPE_RANK("set") : RECIPE_RANK("sequence"),
                        PARTS "  - {name: item_projector, new: linear, scale: 4}\n", f->user,
                        "losses: [{kind: listwise}]\nbatch: 6\nvalid_every: 4\nsteps: 9\n"
                        "optimizer: {rate: 1e-2, warm_up: 3}\n",
                        freeze);
}

static void threads_and_stops_do_not_change_a_bit(void **state)
{
    (void)state;
    static const int64_t stops[] = {1, 5, 0};
    for (size_t i = 0; i < COUNT(forms); i++) {
        char a[1024], b[1024];
        snprintf(a, sizeof a, "%s/%s_a", world, forms[i].name);
        snprintf(b, sizeof b, "%s/%s_b", world, forms[i].name);
        mr_recipe *recipe = short_recipe(&forms[i], forms[i].rest);
        train_ok(recipe, a, (run_options){.threads = 3});
        for (size_t s = 0; s < COUNT(stops); s++)
            train_ok(recipe, b, (run_options){.threads = 1 + (int)s % 2, .stop_step = stops[s]});
        mr_recipe_free(recipe);
        assert_same_run(a, b, 9);
        assert_true(mr_file_exists(checkpoint_file(a, 9, "user/model.safetensors")));
    }
}

/* Between the first and the last step. */
static void a_user_encoder_is_trained_or_frozen_by_pattern(void **state)
{
    (void)state;
    static const struct {
        const char *freeze;
        bool moves;
    } table[] = {{"", true}, {"freeze: ['user.*']\n", false}};
    for (size_t i = 0; i < COUNT(table); i++) {
        char out[1024], first[1024];
        mr_error err = {0};
        snprintf(out, sizeof out, "%s/pattern%zu", world, i);
        snprintf(first, sizeof first, "%s/first%zu", world, i);
        mr_recipe *recipe = short_recipe(&forms[0], table[i].freeze);
        train_ok(recipe, out, (run_options){.stop_step = 1});
        assert_status(mr_file_copy(checkpoint_file(out, 1, "user/model.safetensors"), first, &err),
                      MR_OK, &err);
        train_ok(recipe, out, (run_options){0});
        mr_recipe_free(recipe);
        if (same_bytes(first, test_path(out, "user/model.safetensors")) == table[i].moves)
            fail_msg("with '%s' the user encoder %s", table[i].freeze,
                     table[i].moves ? "stays" : "moves");
    }
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *head, *parts;
        mr_status status;
        const char *message;
    } table[] = {
        {RECIPE_RANK("set"),
         PARTS "  - {name: user, new: perceiver, layers: 1, width: 24, heads: 2, ffn: 24,"
               " latents: 3}\n",
         MR_MISMATCH,
         "without a part user_projector the width 24 of part 'user' must be the llm's, 16"},
        {RECIPE_RANK("teacher"),
         "parts:\n  - {name: llm, from: '@/lm/llm'}\n"
         "  - {name: user, new: perceiver, layers: 1, heads: 2, ffn: 24, latents: 3}\n",
         MR_INVALID, "part 'user' reads what part 'encoder' makes of items; the recipe has none"},
        {RECIPE_RANK("userless"),
         PARTS "  - {name: user, new: perceiver, layers: 1, heads: 2, ffn: 24, latents: 3}\n",
         MR_INVALID, "part 'user' has no effect: the prefix of"},
    };
    mr_error err = {0};
    json_t *spec = test_json("%s", world_bundle);
    json_array_remove(json_object_get(spec, "prefix"),
                      json_array_size(json_object_get(spec, "prefix")) - 1);
    assert_status(mr_json_save_file(spec, test_path(world, "userless.json"), &err), MR_OK, &err);
    json_decref(spec);
    for (size_t i = 0; i < COUNT(table); i++) {
        mr_train_summary summary = {0};
        err = (mr_error){0};
        mr_recipe *recipe = world_recipe(world, table[i].head, table[i].parts,
                                         "losses: [{kind: listwise}]\nbatch: 6\nsteps: 1\n");
        assert_status(train(recipe, test_path(world, "refused"), (run_options){0}, &summary, &err),
                      table[i].status, &err);
        assert_contains(err.message, table[i].message);
        mr_recipe_free(recipe);
    }
}

static int set_up(void **state)
{
    (void)state;
    world = world_new();
    world_decoders(world);
    static const char *const orders[] = {"set", "sequence"};
    for (size_t i = 0; i < COUNT(orders); i++) {
        mr_error err = {0};
        char path[1024];
        json_t *spec = test_json("%s", world_bundle);
        json_t *user = json_object_get(json_object_get(spec, "encoders"), "user");
        json_object_set_new(user, "order", json_string(orders[i]));
        json_object_del(spec, "projectors");
        snprintf(path, sizeof path, "%s/%s.json", world, orders[i]);
        assert_status(mr_json_save_file(spec, path, &err), MR_OK, &err);
        json_decref(spec);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_folder_free(world);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bundle_ranks_by_the_margins_of_training),
        cmocka_unit_test(threads_and_stops_do_not_change_a_bit),
        cmocka_unit_test(a_user_encoder_is_trained_or_frozen_by_pattern),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests_name("training_served", tests, set_up, tear_down);
}
