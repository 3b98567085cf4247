/* test_trainer.c - the loop with every stage: the same bits whatever the threads and however often
 * it was stopped, a loss that falls, what is frozen, checkpoints that are kept.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <math.h>

#include "engine/safetensors.h"
#include "ranker/training/journal.h"
#include "tests/unit/training_fixture.h"

#define STEPS 24

static char *world;

static const char schedule[] = "steps: 24\n"
                               "optimizer: {rate: 1e-2, warm_up: 3, weight_decay: 0.05}\n"
                               "valid_every: 10\n";

/* One recipe of each way through the loop. */
typedef struct {
    const char *name;
    const char *piece[5];
} way;

static const way ways[] = {
    {"next_token", {recipe_next_token, "batch: 5\n", schedule}},
    {"contrastive", {recipe_contrastive, "batch: 16\n", schedule}},
    {"rank_frozen",
     {RECIPE_RANK("bundle"), rank_parts,
      "freeze: ['encoder.*']\nlosses: [{kind: listwise}, {kind: yes_no, weight: 0.5}]\n",
      "batch: 6\nshards: 4\n", schedule}},
    {"rank_joint",
     {RECIPE_RANK("bundle") "  users_weight: 0.5\n", rank_parts, "losses: [{kind: listwise}]\n",
      "batch: 6\n", schedule}},
    {"rank_distilled",
     {RECIPE_RANK("bundle"), rank_parts, rank_teacher,
      "batch: 4\nsecond_phase: 0.5\nquery_dropout: 0.2\n"
      "losses:\n"
      "  - {kind: listwise}\n"
      "  - {kind: distill, weight: 0.5, weight_late: 0.1, temperature: 2}\n"
      "  - {kind: align, weight: 0.1, weight_late: 0.5}\n",
      schedule}},
    {"rank_text",
     {RECIPE_RANK("teacher"), "parts: [{name: llm, from: '@/lm/llm', layers: 3, share_qk: true}]\n",
      "losses: [{kind: listwise}]\n", "batch: 5\n", schedule}},
};

static mr_recipe *recipe_of(const way *w)
{
    return world_recipe(world, w->piece[0], w->piece[1], w->piece[2], w->piece[3], w->piece[4]);
}

static const char *place(const char *name, const char *suffix)
{
    char joined[256];
    snprintf(joined, sizeof joined, "%s_%s", name, suffix);
    return test_path(world, joined);
}

static int set_up(void **state)
{
    (void)state;
    world = world_new();
    world_decoders(world);
    for (size_t i = 0; i < COUNT(ways); i++) {
        mr_recipe *recipe = recipe_of(&ways[i]);
        const mr_train_summary summary =
            train_ok(recipe, place(ways[i].name, "a"), (run_options){0});
        mr_recipe_free(recipe);
        assert_int_equal(summary.first_step, 1);
        assert_int_equal(summary.last_step, STEPS);
        assert_true(summary.finished);
        assert_true(summary.tokens > 0);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_folder_free(world);
    return 0;
}

/* ---- The same bits --------------------------------------------------------------------------- */

static void threads_do_not_change_a_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        mr_recipe *recipe = recipe_of(&ways[i]);
        train_ok(recipe, place(ways[i].name, "2"), (run_options){.threads = 2});
        assert_same_run(place(ways[i].name, "a"), place(ways[i].name, "2"), STEPS);
        train_ok(recipe, place(ways[i].name, "3"), (run_options){.threads = 3});
        assert_same_run(place(ways[i].name, "a"), place(ways[i].name, "3"), STEPS);
        mr_recipe_free(recipe);
    }
}

/* In the first phase, at its end, in the second; before and after a look at the valid split. */
static void a_run_that_was_stopped_goes_on_to_the_same_bits(void **state)
{
    (void)state;
    static const int64_t stops[] = {1, 7, 12, 20, 0};
    for (size_t i = 0; i < COUNT(ways); i++) {
        int64_t done = 0;
        for (size_t s = 0; s < COUNT(stops); s++) {
            /* As another process would: nothing of the recipe's memory is kept. */
            mr_recipe *recipe = recipe_of(&ways[i]);
            const mr_train_summary summary =
                train_ok(recipe, place(ways[i].name, "stopped"),
                         (run_options){.threads = 1 + (int)s % 2, .stop_step = stops[s]});
            mr_recipe_free(recipe);
            assert_int_equal(summary.first_step, done + 1);
            done = stops[s] ? stops[s] : STEPS;
            assert_int_equal(summary.last_step, done);
            assert_int_equal(summary.finished, done == STEPS);
            assert_int_equal(mr_file_exists(place(ways[i].name, "stopped/loss.svg")), true);
            assert_int_equal(mr_file_is_folder(place(ways[i].name, "stopped/llm")) ||
                                 mr_file_is_folder(place(ways[i].name, "stopped/encoder")),
                             done == STEPS);
        }
        assert_same_run(place(ways[i].name, "a"), place(ways[i].name, "stopped"), STEPS);
    }
}

static void looks_at_the_valid_split_change_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        mr_recipe *recipe = recipe_of(&ways[i]);
        recipe->valid_every = 0;
        const mr_train_summary blind =
            train_ok(recipe, place(ways[i].name, "blind"), (run_options){0});
        recipe->valid_every = 5;
        const mr_train_summary looks =
            train_ok(recipe, place(ways[i].name, "looks"), (run_options){0});
        mr_recipe_free(recipe);
        assert_true(isnan(blind.valid_loss));
        assert_true(isfinite(looks.valid_loss) && looks.valid_loss > 0);
        assert_true(blind.loss == looks.loss && blind.tokens == looks.tokens);
        for (size_t f = 0; f < COUNT(part_files); f++) {
            char blind_file[2048];
            snprintf(blind_file, sizeof blind_file, "%s",
                     checkpoint_file(place(ways[i].name, "blind"), STEPS, part_files[f]));
            assert_same_file(blind_file,
                             checkpoint_file(place(ways[i].name, "looks"), STEPS, part_files[f]));
        }
    }
}

/* ---- Learning -------------------------------------------------------------------------------- */

static double mean_loss(const mr_journal_rows *rows, size_t begin, size_t n)
{
    double sum = 0;
    for (size_t i = begin; i < begin + n; i++)
        sum += rows->row[i].loss;
    return sum / (double)n;
}

/* What a stage is for shows in more steps than the other tests need; the share that has to go is of
 * the loss of the first sixth of them. A text teacher is trained first, then learned from. Few rows
 * can be learned by heart, whatever the rounding of a build does to the way there. */
#define FEW_ROWS(bundle)                                                            \
    "stage: rank\nseed: 7\ntokenizer: '@/tok'\nbundle: '@/" bundle ".json'\n"       \
    "candidates: 8\nhistory: 4\nuser_dropout: 0\ndata:\n  items: '@/items.jsonl'\n" \
    "  users: '@/users.jsonl'\n  lists: [{file: '@/more.jsonl'}]\n"
#define LONGER \
    "losses: [{kind: listwise}]\nsteps: 110\nbatch: 6\noptimizer: {rate: 1e-2, warm_up: 3}\n"

static void the_loss_falls(void **state)
{
    (void)state;
    static const struct {
        way way;
        double share;
    } table[] = {
        {{"next_token_a", {NULL}}, 0.2},
        {{"contrastive_a", {NULL}}, 0.1},
        {{"long_frozen", {FEW_ROWS("bundle"), rank_parts, "freeze: ['encoder.*']\n", LONGER}}, 0.5},
        {{"long_joint", {FEW_ROWS("bundle"), rank_parts, LONGER}}, 0.5},
        {{"long_text", {FEW_ROWS("teacher"), "parts: [{name: llm, from: '@/lm/llm'}]\n", LONGER}},
         0.5},
        {{"long_distilled",
          {FEW_ROWS("bundle"), rank_parts,
           "  - {name: teacher, from: '@/long_text/llm'}\nteacher: '@/teacher.json'\n"
           "losses: [{kind: distill}]\nsteps: 110\nbatch: 6\noptimizer: {rate: 1e-2}\n"}},
         0.8},
        {{"long_aligned",
          {FEW_ROWS("bundle"), rank_parts,
           "teacher: '@/teacher.json'\nlosses: [{kind: align}]\n"
           "steps: 40\nbatch: 6\noptimizer: {rate: 1e-2}\n"}},
         0.8},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        const way *w = &table[i].way;
        char out[1024];
        mr_journal_rows rows = {0};
        mr_error err = {0};
        snprintf(out, sizeof out, "%s/%s", world, w->name);
        if (w->piece[0]) {
            mr_recipe *recipe = recipe_of(w);
            train_ok(recipe, out, (run_options){.threads = 2});
            mr_recipe_free(recipe);
        }
        assert_status(mr_journal_read(&rows, test_path(out, MR_JOURNAL_NAME), &err), MR_OK, &err);
        const size_t some = rows.n / 6;
        const double before = mean_loss(&rows, 0, some);
        const double after = mean_loss(&rows, rows.n - some, some);
        if (!(after < (1 - table[i].share) * before))
            fail_msg("%s: the loss is %g in the first steps and %g in the last", w->name, before,
                     after);
        mr_journal_rows_free(&rows);
    }
}

static void the_log_tells_when_the_valid_split_was_looked_at(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        mr_journal_rows rows = {0};
        mr_error err = {0};
        const char *log = test_path(place(ways[i].name, "a"), MR_JOURNAL_NAME);
        assert_status(mr_journal_read(&rows, log, &err), MR_OK, &err);
        assert_int_equal(rows.n, STEPS);
        for (size_t k = 0; k < rows.n; k++)
            assert_int_equal(isfinite(rows.row[k].valid), k == 9 || k == 19 || k == STEPS - 1);
        mr_journal_rows_free(&rows);
    }
}

/* Compares a tensor of two files bit by bit. */
static bool same_tensor(const char *a, const char *b, const char *name)
{
    mr_safetensors *x = NULL, *y = NULL;
    mr_error err = {0};
    assert_status(mr_safetensors_open(&x, a, &err), MR_OK, &err);
    assert_status(mr_safetensors_open(&y, b, &err), MR_OK, &err);
    const mr_tensor *s = mr_safetensors_find(x, name), *t = mr_safetensors_find(y, name);
    assert_true(s && t && s->bytes == t->bytes);
    const bool same = memcmp(s->data, t->data, s->bytes) == 0;
    mr_safetensors_close(x);
    mr_safetensors_close(y);
    return same;
}

static void what_is_frozen_stays_as_it_was_and_the_rest_moves(void **state)
{
    (void)state;
    static const struct {
        const char *weight;
        bool frozen;
    } table[] = {{"model.embed_tokens.weight", true},
                 {"model.layers.0.self_attn.q_proj.weight", true},
                 {"model.layers.0.mlp.down_proj.weight", true},
                 {"model.layers.1.self_attn.q_proj.weight", false},
                 {"model.layers.1.input_layernorm.weight", false},
                 {"model.norm.weight", false}};
    const char encoder[] = "encoder/model.safetensors", llm[] = "llm/model.safetensors";
    const char weight[] = "model.layers.0.self_attn.v_proj.weight";
    assert_same_file(test_path(world, "enc/encoder/model.safetensors"),
                     test_path(place("rank_frozen", "a"), encoder));
    assert_false(same_tensor(test_path(world, "enc/encoder/model.safetensors"),
                             test_path(place("rank_joint", "a"), encoder), weight));
    assert_false(same_tensor(test_path(world, "lm/llm/model.safetensors"),
                             test_path(place("rank_frozen", "a"), llm), weight));

    mr_recipe *recipe =
        world_recipe(world, RECIPE_RANK("bundle"), rank_parts,
                     "freeze: ['llm.model.embed*', 'llm.model.layers.0.*']\nsteps: 3\nbatch: 4\n",
                     "losses: [{kind: listwise}]\noptimizer: {rate: 1e-2}\n");
    train_ok(recipe, test_path(world, "partly"), (run_options){0});
    mr_recipe_free(recipe);
    for (size_t i = 0; i < COUNT(table); i++) {
        const bool same =
            same_tensor(test_path(world, "lm/llm/model.safetensors"),
                        test_path(world, "partly/llm/model.safetensors"), table[i].weight);
        if (same != table[i].frozen)
            fail_msg("%s: frozen %d, the same bits %d", table[i].weight, table[i].frozen, same);
    }
}

static float *file_values(const char *path, size_t *n)
{
    mr_safetensors *file = NULL;
    mr_error err = {0};
    float *out = NULL;
    *n = 0;
    assert_status(mr_safetensors_open(&file, path, &err), MR_OK, &err);
    for (size_t t = 0; t < mr_safetensors_count(file); t++) {
        const mr_tensor *tensor = mr_safetensors_at(file, t);
        const size_t more = tensor->bytes / sizeof(float);
        out = realloc(out, (*n + more) * sizeof *out);
        assert_non_null(out);
        memcpy(out + *n, tensor->data, tensor->bytes);
        *n += more;
    }
    mr_safetensors_close(file);
    return out;
}

static void micro_batches_learn_what_one_batch_learns(void **state)
{
    (void)state;
    static const struct {
        const char *name, *file, *piece[3];
    } table[] = {
        {"lm", "llm/model.safetensors", {recipe_next_token, "", ""}},
        {"rank",
         "llm/model.safetensors",
         {RECIPE_RANK("bundle"), rank_parts, "losses: [{kind: listwise}]\n"}},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        float *values[2];
        size_t n[2];
        for (int parts = 1; parts <= 2; parts++) {
            char name[64];
            snprintf(name, sizeof name, "accumulated_%s_%d", table[i].name, parts);
            mr_recipe *recipe =
                world_recipe(world, table[i].piece[0], table[i].piece[1], table[i].piece[2],
                             "steps: 5\noptimizer: {rate: 1e-3, eps: 1e-4}\n",
                             parts == 1 ? "batch: 8\n" : "batch: 4\naccumulate: 2\n");
            train_ok(recipe, test_path(world, name), (run_options){0});
            mr_recipe_free(recipe);
            values[parts - 1] =
                file_values(test_path(test_path(world, name), table[i].file), &n[parts - 1]);
        }
        assert_int_equal(n[0], n[1]);
        assert_floats_near(values[1], values[0], n[0], 1e-5);
        free(values[0]);
        free(values[1]);
    }
}

/* ---- Folders --------------------------------------------------------------------------------- */

static int count_checkpoints(const char *out)
{
    int n = 0;
    DIR *dir = opendir(out);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        n += strncmp(entry->d_name, "checkpoint", 10) == 0;
    closedir(dir);
    return n;
}

static void as_many_checkpoints_are_kept_as_asked_for(void **state)
{
    (void)state;
    static const int kept[] = {1, 2, 3};
    for (size_t i = 0; i < COUNT(kept); i++) {
        mr_recipe *recipe = world_recipe(world, recipe_next_token, "steps: 10\nbatch: 2\n");
        recipe->checkpoint.steps = 2;
        recipe->checkpoint.keep = kept[i];
        char name[32];
        snprintf(name, sizeof name, "kept_%d", kept[i]);
        const char *out = test_path(world, name);
        train_ok(recipe, out, (run_options){0});
        mr_recipe_free(recipe);
        assert_int_equal(count_checkpoints(out), kept[i]);
        for (int k = 0; k < kept[i]; k++)
            assert_true(mr_file_exists(checkpoint_file(out, 10 - 2 * k, "trainer.json")));
    }
}

static void a_finished_run_does_nothing_more_and_says_so(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        mr_recipe *recipe = recipe_of(&ways[i]);
        const mr_train_summary again = train_ok(recipe, place(ways[i].name, "a"), (run_options){0});
        mr_recipe_free(recipe);
        assert_int_equal(again.first_step, STEPS + 1);
        assert_int_equal(again.last_step, STEPS);
        assert_true(again.finished);
        assert_true(isfinite(again.loss));
        assert_true(isfinite(again.valid_loss));
        char *log = steps_of_log(place(ways[i].name, "a"));
        int lines = 0;
        for (const char *p = log; *p; p++)
            lines += *p == '\n';
        free(log);
        assert_int_equal(lines, STEPS);
    }
}

static void another_recipe_is_refused_in_the_same_folder(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_train_summary summary = {0};
    mr_recipe *recipe = world_recipe(world, recipe_next_token, "batch: 6\n", schedule);
    assert_status(train(recipe, place("next_token", "a"), (run_options){0}, &summary, &err),
                  MR_MISMATCH, &err);
    assert_contains(err.message, "next_token_a/checkpoint-00000024/trainer.json");
    assert_contains(err.message, "is of another recipe");
    assert_contains(err.message, "train into another folder, or start afresh with --fresh");
    mr_recipe_free(recipe);
    /* What was there is as it was. */
    assert_same_run(place("next_token", "a"), place("next_token", "a"), STEPS);
}

static void a_fresh_run_forgets_what_was_there(void **state)
{
    (void)state;
    mr_recipe *recipe = world_recipe(world, recipe_next_token, "batch: 6\n", schedule);
    recipe->checkpoint.steps = 10;
    train_ok(recipe, test_path(world, "fresh"), (run_options){0});
    mr_recipe_free(recipe);
    assert_int_equal(count_checkpoints(test_path(world, "fresh")), 2);
    recipe = recipe_of(&ways[0]);
    const mr_train_summary stopped =
        train_ok(recipe, test_path(world, "fresh"), (run_options){.fresh = true, .stop_step = 8});
    assert_int_equal(stopped.first_step, 1);
    assert_int_equal(count_checkpoints(test_path(world, "fresh")), 1);
    assert_true(mr_file_exists(checkpoint_file(test_path(world, "fresh"), 8, "trainer.json")));
    train_ok(recipe, test_path(world, "fresh"), (run_options){0});
    mr_recipe_free(recipe);
    assert_same_run(place("next_token", "a"), test_path(world, "fresh"), STEPS);
}

typedef struct {
    int64_t calls, looks;
    double last;
} seen;

static void report(void *context, const mr_train_progress *progress)
{
    seen *s = context;
    s->calls++;
    s->looks += !isnan(progress->valid_loss);
    s->last = progress->smooth_loss;
    assert_int_equal(progress->step, s->calls);
    assert_int_equal(progress->steps, STEPS);
}

static void every_step_is_reported(void **state)
{
    (void)state;
    seen s = {0};
    mr_recipe *recipe = recipe_of(&ways[0]);
    const mr_train_summary summary = train_ok(
        recipe, test_path(world, "told"), (run_options){.report = report, .report_context = &s});
    mr_recipe_free(recipe);
    assert_int_equal(s.calls, STEPS);
    assert_int_equal(s.looks, 3); /* 10, 20, and the last */
    assert_true(s.last == summary.loss);
}

static void epochs_become_steps(void **state)
{
    (void)state;
    mr_recipe *recipe =
        world_recipe(world, RECIPE_RANK("bundle"), rank_parts,
                     "losses: [{kind: listwise}]\nepochs: 2\nbatch: 7\naccumulate: 2\n");
    const mr_train_summary summary = train_ok(recipe, test_path(world, "epochs"), (run_options){0});
    mr_recipe_free(recipe);
    /* 7 people x (4 + 2 + 2) rows, twice, 14 in a step */
    assert_int_equal(summary.last_step, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(a_run_that_was_stopped_goes_on_to_the_same_bits),
        cmocka_unit_test(looks_at_the_valid_split_change_nothing),
        cmocka_unit_test(the_loss_falls),
        cmocka_unit_test(the_log_tells_when_the_valid_split_was_looked_at),
        cmocka_unit_test(what_is_frozen_stays_as_it_was_and_the_rest_moves),
        cmocka_unit_test(micro_batches_learn_what_one_batch_learns),
        cmocka_unit_test(as_many_checkpoints_are_kept_as_asked_for),
        cmocka_unit_test(a_finished_run_does_nothing_more_and_says_so),
        cmocka_unit_test(another_recipe_is_refused_in_the_same_folder),
        cmocka_unit_test(a_fresh_run_forgets_what_was_there),
        cmocka_unit_test(every_step_is_reported),
        cmocka_unit_test(epochs_become_steps),
    };
    return cmocka_run_group_tests_name("trainer", tests, set_up, tear_down);
}
