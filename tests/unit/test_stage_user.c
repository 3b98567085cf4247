/* test_stage_user.c - pre-training of the user encoder: the loss falls and is that of serving's
 * encoders, the same bits whatever the threads, what is no negative, what is not learned from, and
 * that a ranker takes the result.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "encoders/text_encoder.h"
#include "encoders/user_encoder.h"
#include "ranker/training/journal.h"
#include "tests/ranker_support.h"
#include "tests/unit/training_fixture.h"

#define STEPS 120
#define T     2 /* tokens of an item */
#define DIM   16
#define K     3 /* tokens of a user */

static char *world;

#define BASE(bundle)                                        \
    "stage: user\n"                                         \
    "seed: 11\n"                                            \
    "bundle: '@/" bundle ".json'\n"                         \
    "history: 4\n"                                          \
    "batch: 6\n"                                            \
    "shards: 4\n"                                           \
    "valid_every: 16\n"                                     \
    "losses: [{kind: sampled_softmax, temperature: 0.2}]\n" \
    "parts:\n"                                              \
    "  - {name: encoder, from: '@/enc/encoder'}\n"          \
    "  - {name: user, new: perceiver, layers: 1, heads: 2, ffn: 24, latents: 3, deviation: 0.2}\n"
#define DATA(users) "data: {items: '@/items.jsonl', users: '@/" users ".jsonl'}\n"
#define RATE        "optimizer: {rate: 5e-3, warm_up: 2, weight_decay: 0}\n"
#define LONG        "steps: 120\n" RATE

static const struct {
    const char *name, *base, *freeze;
    bool joint;
} ways[] = {{"frozen", BASE("set"), "freeze: ['encoder.*']\n", false},
            {"joint", BASE("set"), "", true},
            {"sequence", BASE("sequence"), "freeze: ['encoder.*']\n", false}};

static mr_recipe *recipe_of(size_t way, const char *users, const char *rest)
{
    return world_recipe(world, ways[way].base, users, ways[way].freeze, rest);
}

static const char *place(size_t way, const char *suffix)
{
    char name[64];
    snprintf(name, sizeof name, "user_%s_%s", ways[way].name, suffix);
    return test_path(world, name);
}

static void write_bundles(void)
{
    static const char *const orders[] = {"set", "sequence"};
    for (size_t i = 0; i < COUNT(orders); i++) {
        mr_error err = {0};
        char path[1024];
        json_t *spec = test_json("%s", world_bundle);
        json_t *user = json_object_get(json_object_get(spec, "encoders"), "user");
        json_object_set_new(user, "order", json_string(orders[i]));
        snprintf(path, sizeof path, "%s/%s.json", world, orders[i]);
        assert_status(mr_json_save_file(spec, path, &err), MR_OK, &err);
        json_decref(spec);
    }
}

static int set_up(void **state)
{
    (void)state;
    world = world_new();
    world_decoders(world);
    write_bundles();
    for (size_t i = 0; i < COUNT(ways); i++) {
        mr_recipe *recipe = recipe_of(i, DATA("users"), LONG);
        assert_true(train_ok(recipe, place(i, "a"), (run_options){0}).finished);
        mr_recipe_free(recipe);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_folder_free(world);
    return 0;
}

/* ---- Learning -------------------------------------------------------------------------------- */

static void the_loss_falls(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        mr_journal_rows rows = {0};
        mr_error err = {0};
        double before = 0, after = 0;
        assert_status(mr_journal_read(&rows, test_path(place(i, "a"), MR_JOURNAL_NAME), &err),
                      MR_OK, &err);
        assert_int_equal(rows.n, STEPS);
        for (size_t k = 0; k < 20; k++) {
            before += rows.row[k].loss / 20;
            after += rows.row[STEPS - 1 - k].loss / 20;
        }
        for (size_t k = 0; k < STEPS; k++)
            assert_int_equal(isfinite(rows.row[k].valid), k % 16 == 15 || k + 1 == STEPS);
        mr_journal_rows_free(&rows);
        if (!(after < 0.9 * before))
            fail_msg("%s: the loss is %g in the first steps and %g in the last", ways[i].name,
                     before, after);
    }
}

static void assert_same(const char *run_a, const char *run_b)
{
    static const char *const files[] = {"encoder/model.safetensors", "user/model.safetensors",
                                        "user/config.json", "optimizer.safetensors"};
    for (size_t f = 0; f < COUNT(files); f++)
        assert_true(mr_file_exists(checkpoint_file(run_a, STEPS, files[f])));
    assert_same_run(run_a, run_b, STEPS);
}

static void threads_and_stops_do_not_change_a_bit(void **state)
{
    (void)state;
    static const int64_t stops[] = {1, 40, 0};
    for (size_t i = 0; i < COUNT(ways); i++) {
        mr_recipe *recipe = recipe_of(i, DATA("users"), LONG);
        train_ok(recipe, place(i, "3"), (run_options){.threads = 3});
        assert_same(place(i, "a"), place(i, "3"));
        for (size_t s = 0; s < COUNT(stops); s++)
            train_ok(recipe, place(i, "stopped"),
                     (run_options){.threads = 1 + (int)s % 2, .stop_step = stops[s]});
        assert_same(place(i, "a"), place(i, "stopped"));
        mr_recipe_free(recipe);
    }
}

static void a_frozen_encoder_stays_as_it_was(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++)
        assert_int_equal(same_bytes(test_path(world, "enc/encoder/model.safetensors"),
                                    test_path(place(i, "a"), "encoder/model.safetensors")),
                         !ways[i].joint);
    /* And the user, when it is the encoder that is trained. */
    mr_recipe *recipe =
        world_recipe(world, BASE("set") DATA("users"), "freeze: ['user.*']\nsteps: 3\n" RATE);
    train_ok(recipe, test_path(world, "still"), (run_options){.stop_step = 1});
    char first[2048];
    snprintf(first, sizeof first, "%s/first", world);
    mr_error err = {0};
    assert_status(
        mr_file_copy(checkpoint_file(test_path(world, "still"), 1, "user/model.safetensors"), first,
                     &err),
        MR_OK, &err);
    train_ok(recipe, test_path(world, "still"), (run_options){0});
    mr_recipe_free(recipe);
    assert_true(same_bytes(first, test_path(world, "still/user/model.safetensors")));
    assert_false(same_bytes(test_path(world, "enc/encoder/model.safetensors"),
                            test_path(world, "still/encoder/model.safetensors")));
}

/* ---- As it is served ------------------------------------------------------------------------- */

static void normalise(float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((double)x[i] / sqrt(sum));
}

static void mean(const float *tokens, size_t n, float *out)
{
    for (size_t i = 0; i < DIM; i++) {
        double sum = 0;
        for (size_t t = 0; t < n; t++)
            sum += (double)tokens[t * DIM + i];
        out[i] = (float)(sum / (double)n);
    }
    normalise(out, DIM);
}

/* Embedding tokens of an item as `encode` makes them: its fields from items.jsonl. */
static void encode_item(mr_text_encoder *encoder, const char *id, float out[T * DIM])
{
    char *text = test_file_read(test_path(world, "items.jsonl"), NULL), start[32];
    snprintf(start, sizeof start, "{\"id\":\"%s\"", id);
    char *line = strstr(text, start);
    assert_non_null(line);
    line[strcspn(line, "\n")] = '\0';
    json_t *row = json_loads(line, 0, NULL);
    assert_non_null(row);
    const mr_field fields[] = {
        {mr_str_of("title"), mr_str_of(json_string_value(json_object_get(row, "title")))},
        {mr_str_of("text"), mr_str_of(json_string_value(json_object_get(row, "text")))}};
    const mr_fields all = {fields, COUNT(fields)};
    uint16_t tokens;
    mr_error err = {0};
    assert_status(mr_text_encoder_run(encoder, &all, 1, out, &tokens, NULL, &err), MR_OK, &err);
    assert_int_equal(tokens, T);
    json_decref(row);
    free(text);
}

/* Two people of fold valid hold two items each, so that one is known by the other; which of them is
 * left out is the trainer's draw: one of four ways. */
static void the_loss_is_that_of_serving(void **state)
{
    (void)state;
    static const char *const held[2][2] = {{"i00", "i10"}, {"i01", "i07"}};
    mr_strbuf users = {0};
    char *text = test_file_read(test_path(world, "users.jsonl"), NULL);
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        const char *fold = strstr(line, "\"fold\":\"");
        if (strncmp(fold + 8, "train", 5) == 0)
            mr_strbuf_append(&users, line, (size_t)(strchr(line, '\n') + 1 - line));
    }
    free(text);
    for (size_t p = 0; p < 2; p++)
        mr_strbuf_printf(&users,
                         "{\"id\":\"v%zu\",\"fold\":\"valid\",\"history\":[\"%s\",\"%s\"]}\n", p,
                         held[p][0], held[p][1]);
    write_text(world, "two.jsonl", &users);
    mr_recipe *recipe = recipe_of(1, DATA("two"), "steps: 8\n" RATE);
    const mr_train_summary summary = train_ok(recipe, test_path(world, "two"), (run_options){0});
    mr_recipe_free(recipe);

    mr_error err = {0};
    mr_text_encoder *encoder = NULL;
    mr_user_encoder *user = NULL;
    json_t *spec = test_json("%s", world_bundle);
    const json_t *item = json_object_get(json_object_get(spec, "encoders"), "item");
    const mr_text_encoder_options opt = {
        .text = json_object_get(item, "text"),
        .tokens = T,
        .max_tokens = (int)json_integer_value(json_object_get(item, "max_tokens")),
        .append_eos = true};
    assert_status(mr_text_encoder_open(&encoder, test_path(world, "two/encoder"), &opt, &err),
                  MR_OK, &err);
    assert_status(mr_user_encoder_open(&user, test_path(world, "two/user"), NULL, &err), MR_OK,
                  &err);
    float tokens[2][2][T * DIM], u[2][2][DIM], v[2][2][DIM];
    for (size_t p = 0; p < 2; p++) {
        for (size_t k = 0; k < 2; k++) {
            float latents[K * DIM];
            encode_item(encoder, held[p][k], tokens[p][k]);
            mean(tokens[p][k], T, v[p][k]);
            assert_status(mr_user_encoder_run(user, tokens[p][k], T, latents, &err), MR_OK, &err);
            mean(latents, K, u[p][k]);
        }
    }
    double nearest = HUGE_VAL, least_apart = HUGE_VAL, loss[4];
    for (size_t way = 0; way < 4; way++) {
        const size_t out[2] = {way & 1, way >> 1}; /* the targets */
        loss[way] = 0;
        for (size_t p = 0; p < 2; p++) {
            double s[2];
            for (size_t q = 0; q < 2; q++) {
                s[q] = 0;
                for (size_t i = 0; i < DIM; i++)
                    s[q] += (double)u[p][1 - out[p]][i] * (double)v[q][out[q]][i] / 0.2;
            }
            loss[way] += (log(exp(s[0]) + exp(s[1])) - s[p]) / 2;
        }
        nearest = fmin(nearest, fabs(loss[way] - summary.valid_loss));
        for (size_t other = 0; other < way; other++)
            least_apart = fmin(least_apart, fabs(loss[way] - loss[other]));
    }
    mr_text_encoder_close(encoder);
    mr_user_encoder_close(user);
    json_decref(spec);
    if (!(nearest < 2e-5))
        fail_msg("the loss of the valid split is %.7f, of serving %.7f, %.7f, %.7f or %.7f",
                 summary.valid_loss, loss[0], loss[1], loss[2], loss[3]);
    if (!(least_apart > 2e-4))
        fail_msg("%g %g %g %g are alike", loss[0], loss[1], loss[2], loss[3]);
}

/* ---- Data ------------------------------------------------------------------------------------ */

static void what_is_in_the_own_basket_is_no_negative(void **state)
{
    (void)state;
    static const struct {
        const char *users;
        bool alike;
    } table[] = {
        {"{'id':'a','fold':'train','history':['i00','i01']}\n"
         "{'id':'b','fold':'train','history':['i01','i00']}\n",
         true},
        {"{'id':'a','fold':'train','history':['i00','i01']}\n"
         "{'id':'b','fold':'train','history':['i03','i04']}\n",
         false},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        write_json(world, "few.jsonl", table[i].users);
        mr_recipe *recipe = recipe_of(0, DATA("few"), "steps: 2\n" RATE);
        const mr_train_summary summary =
            train_ok(recipe, test_path(world, "few"), (run_options){.fresh = true});
        mr_recipe_free(recipe);
        if (table[i].alike)
            assert_true(fabs(summary.loss) < 1e-6);
        else
            assert_true(summary.loss > 0.05);
    }
}

/* Items of fold test, people of fold test, and histories of one: as if they were not there. */
static void nothing_of_fold_test_is_learned(void **state)
{
    (void)state;
    char *text = test_file_read(test_path(world, "users.jsonl"), NULL);
    json_t *row;
    mr_strbuf out = {0};
    for (char *line = text; *line; line = strchr(line, '\0') + 1) {
        line[strcspn(line, "\n")] = '\0';
        row = json_loads(line, 0, NULL);
        assert_non_null(row);
        json_t *history = json_object_get(row, "history");
        const char *fold = json_string_value(json_object_get(row, "fold"));
        for (size_t i = json_array_size(history); i-- > 0;) {
            const char *id = json_string_value(json_array_get(history, i));
            if (item_is_test((id[1] - '0') * 10 + id[2] - '0'))
                json_array_remove(history, i);
        }
        if (strcmp(fold, "test") != 0) {
            char *dumped = json_dumps(row, JSON_COMPACT);
            mr_strbuf_printf(&out, "%s\n", dumped);
            free(dumped);
        }
        json_decref(row);
    }
    free(text);
    mr_strbuf_puts(&out, "{\"id\":\"single\",\"fold\":\"train\",\"history\":[\"i00\"]}\n");
    write_text(world, "clean.jsonl", &out);
    mr_recipe *recipe = recipe_of(0, DATA("clean"), LONG);
    train_ok(recipe, test_path(world, "clean"), (run_options){0});
    mr_recipe_free(recipe);
    assert_same(place(0, "a"), test_path(world, "clean"));
    /* Said so, they are. */
    recipe = recipe_of(
        0, "data: {items: '@/items.jsonl', users: '@/users.jsonl', transductive: true}\n", LONG);
    train_ok(recipe, test_path(world, "warm"), (run_options){0});
    mr_recipe_free(recipe);
    assert_false(same_bytes(test_path(place(0, "a"), "user/model.safetensors"),
                            test_path(world, "warm/user/model.safetensors")));
}

static void an_epoch_leaves_out_every_pick_once(void **state)
{
    (void)state;
    write_json(world, "few.jsonl",
               "{'id':'a','fold':'train','history':['i00','i01','i03']}\n"
               "{'id':'b','fold':'train','history':['i04','i06','i07','i09','i00','i00']}\n"
               "{'id':'c','fold':'valid','history':['i04','i06','i07','i09']}\n");
    mr_recipe *recipe = recipe_of(0, DATA("few"), "epochs: 3\n" RATE);
    const mr_train_summary summary = train_ok(recipe, test_path(world, "epochs"), (run_options){0});
    mr_recipe_free(recipe);
    assert_int_equal(summary.last_step, 4); /* 3 x (3 + 5) picks, 6 in a step */
    assert_true(isnan(summary.valid_loss)); /* of one person alone nothing can be said */
}

/* ---- Refused --------------------------------------------------------------------------------- */

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
#define WITH(user)                                  \
    "stage: user\nbundle: '@/set.json'\nsteps: 1\n" \
    "parts:\n  - {name: encoder, from: '@/enc/encoder'}\n  - {name: user, " user "}\n"
    static const struct {
        const char *head, *rest;
        mr_status status;
        const char *message;
    } table[] = {
        {WITH("new: perceiver, layers: 1, heads: 2, width: 24, ffn: 24, latents: 3"), "batch: 4\n",
         MR_MISMATCH, "the width of part 'user' is 24, expected that of part 'encoder', 16"},
        {WITH("new: perceiver, layers: 1, heads: 3, ffn: 24, latents: 3"), "batch: 4\n", MR_INVALID,
         "part 'user': its width 16 is no multiple of its heads (3)"},
        {WITH("new: perceiver, layers: 100, heads: 2, ffn: 24, latents: 3"), "batch: 4\n",
         MR_INVALID, "num_hidden_layers"},
        {WITH("new: perceiver, layers: 1, heads: 2, ffn: 24, latents: 3"),
         "batch: 4\nhistory: 600\n", MR_INVALID,
         "a history of 600 items of 2 tokens is more than the 1024 vectors"},
        {WITH("new: perceiver, layers: 1, heads: 2, ffn: 24, latents: 3"), "batch: 1\n", MR_INVALID,
         "batch is 1, expected at least 2"},
        {WITH("from: data/training/user"), "batch: 4\n", MR_MISMATCH,
         "part 'user' reads vectors of 32 numbers, part 'encoder' makes some of 16"},
        {WITH("from: '@/user_sequence_a/user'"), "batch: 4\n", MR_INVALID,
         "part 'user' has positions, which mean nothing in a set; encoders.user.order"},
        {WITH("from: '@/enc/encoder'"), "batch: 4\n", MR_UNSUPPORTED,
         "no folder of a user encoder"},
        {WITH("new: perceiver, layers: 1, heads: 2, ffn: 24, latents: 3"),
         "batch: 4\nfreeze: ['encoder.*', 'user.*']\n", MR_INVALID, "everything is frozen"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        mr_error err = {0};
        mr_train_summary summary = {0};
        mr_recipe *recipe = world_recipe(world, table[i].head, DATA("users"), table[i].rest);
        assert_status(train(recipe, test_path(world, "refused"), (run_options){0}, &summary, &err),
                      table[i].status, &err);
        assert_contains(err.message, table[i].message);
        mr_recipe_free(recipe);
    }
    static const struct {
        const char *users, *message;
    } people[] = {
        {"", "has 0 people of fold train with two items"},
        {"{'id':'a','fold':'train','history':['i00','i01']}\n", "has 1 people of fold train"},
        {"{'id':'a','fold':'train','history':['i00',1]}\n", "line 1: 'history' holds"},
        {"{'id':'a','fold':'train','history':[]}\n{'fold':'train','history':[]}\n", "line 2"},
        {"{'id':'a','fold':'trial','history':['i00','i01']}\n", "line 1"},
    };
    for (size_t i = 0; i < COUNT(people); i++) {
        mr_error err = {0};
        mr_train_summary summary = {0};
        write_json(world, "few.jsonl", people[i].users);
        mr_recipe *recipe = recipe_of(0, DATA("few"), "steps: 1\n");
        assert_status(train(recipe, test_path(world, "refused"), (run_options){0}, &summary, &err),
                      MR_INVALID, &err);
        assert_contains(err.message, people[i].message);
        mr_recipe_free(recipe);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_loss_falls),
        cmocka_unit_test(threads_and_stops_do_not_change_a_bit),
        cmocka_unit_test(a_frozen_encoder_stays_as_it_was),
        cmocka_unit_test(the_loss_is_that_of_serving),
        cmocka_unit_test(what_is_in_the_own_basket_is_no_negative),
        cmocka_unit_test(nothing_of_fold_test_is_learned),
        cmocka_unit_test(an_epoch_leaves_out_every_pick_once),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests_name("stage_user", tests, set_up, tear_down);
}
