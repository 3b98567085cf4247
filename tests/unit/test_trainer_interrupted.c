/* test_trainer_interrupted.c - runs that stop where nobody planned it, beside those of
 * test_trainer_failures.c: on a signal, when the valid split's loss is no number, while a
 * checkpoint is removed, and while the parts of a finished run are put in their place.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"
#include "tests/unit/training_fixture.h"

#define STEPS 24

static char *world;

static mr_recipe *small_recipe(void)
{
    return world_recipe(world, recipe_next_token,
                        "batch: 5\nsteps: 24\nvalid_every: 10\n"
                        "optimizer: {rate: 1e-2, warm_up: 3, weight_decay: 0.05}\n");
}

static int set_up(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    world = world_new();
    mr_recipe *recipe = small_recipe();
    train_ok(recipe, test_path(world, "whole"), (run_options){0});
    mr_recipe_free(recipe);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_folder_free(world);
    return 0;
}

/* A run with checkpoints 8 and 16, stopped at step 16. */
static const char *stopped_run(const char *name)
{
    mr_recipe *recipe = small_recipe();
    recipe->checkpoint.steps = 8;
    train_ok(recipe, test_path(world, name), (run_options){.stop_step = 16});
    mr_recipe_free(recipe);
    return test_path(world, name);
}

static void assert_goes_on(const char *name, int64_t from)
{
    mr_recipe *recipe = small_recipe();
    const mr_train_summary summary = train_ok(recipe, test_path(world, name), (run_options){0});
    mr_recipe_free(recipe);
    assert_int_equal(summary.first_step, from + 1);
    assert_true(summary.finished);
    assert_same_run(test_path(world, "whole"), test_path(world, name), STEPS);
}

/* Folders that are checkpoints, or were, or were to become some. */
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

static volatile sig_atomic_t asked_to_stop;

static void stop_at_five(void *context, const mr_train_progress *progress)
{
    (void)context;
    if (progress->step == 5)
        asked_to_stop = 1;
}

static void a_signal_stops_the_run_with_a_checkpoint(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_train_summary summary = {0};
    char out[1024];
    snprintf(out, sizeof out, "%s", test_path(world, "signalled"));
    mr_recipe *recipe = small_recipe();
    const mr_train_options opt = {
        .out = out, .threads = 1, .stop = &asked_to_stop, .report = stop_at_five};
    assert_status(mr_train_run(recipe, &opt, &summary, &err), MR_OK, &err);
    mr_recipe_free(recipe);
    assert_int_equal(summary.last_step, 5);
    assert_false(summary.finished);
    assert_goes_on("signalled", 5);
}

/* A rate that makes weights too large for the next pass, though not for a float. */
static void numbers_that_are_none_end_the_run_and_leave_the_checkpoint(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double rate;
        int64_t valid_every;
        const char *message;
    } table[] = {{"no_gradient", 1e30, 0, "step 18: the loss is 5.8"},
                 {"no_loss", 1e18, 0, "step 18: the loss is "},
                 {"no_valid_loss", 1e18, 1, "step 17: the loss of the valid split is "}};
    for (size_t i = 0; i < COUNT(table); i++) {
        stopped_run(table[i].name);
        mr_error err = {0};
        mr_train_summary summary = {0};
        mr_recipe *recipe = small_recipe();
        /* The digest was taken before: the checkpoint is this recipe's. */
        recipe->optimizer.rate = table[i].rate;
        recipe->valid_every = table[i].valid_every;
        const mr_status status =
            train(recipe, test_path(world, table[i].name), (run_options){0}, &summary, &err);
        mr_recipe_free(recipe);
        assert_status(status, MR_CORRUPT, &err);
        assert_contains(err.message, table[i].message);
        assert_contains(err.message, "lower optimizer.rate");
        assert_contains(err.message, "The last checkpoint is as it was");
        assert_int_equal(count_checkpoints(test_path(world, table[i].name)), 2);
        assert_goes_on(table[i].name, 16);
    }
}

static void parts_that_did_not_fit_are_put_in_place_by_the_next_run(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_train_summary summary = {0};
    struct rlimit before;
    char model[1024];
    mr_recipe *recipe = small_recipe();
    train_ok(recipe, test_path(world, "late"), (run_options){0});
    snprintf(model, sizeof model, "%s", test_path(world, "late/llm/model.safetensors"));
    assert_int_equal(unlink(model), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    const struct rlimit small = {4096, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const mr_status status =
        train(recipe, test_path(world, "late"), (run_options){0}, &summary, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    mr_recipe_free(recipe);
    assert_int_not_equal(status, MR_OK);
    assert_contains(err.message, "late/llm/");
    assert_contains(err.message, "File too large");
    assert_false(mr_file_exists(model));
    assert_goes_on("late", STEPS);
}

static void what_is_left_of_a_checkpoint_is_removed_by_the_next(void **state)
{
    (void)state;
    const char *out = stopped_run("half_removed");
    assert_int_equal(unlink(checkpoint_file(out, 8, "trainer.json")), 0);
    assert_goes_on("half_removed", 16);
    assert_false(mr_file_is_folder(checkpoint_file(test_path(world, "half_removed"), 8, "")));
    /* Also by a run that has nothing left to do but to put its parts in place. */
    assert_int_equal(mkdir(checkpoint_file(test_path(world, "half_removed"), 20, ""), 0700), 0);
    assert_goes_on("half_removed", STEPS);
    assert_false(mr_file_is_folder(checkpoint_file(test_path(world, "half_removed"), 20, "")));
    /* Not named as the trainer names its own: somebody else's. */
    out = stopped_run("foreign");
    assert_int_equal(mkdir(test_path(out, "checkpoint-9"), 0700), 0);
    assert_goes_on("foreign", 16);
    assert_true(mr_file_is_folder(test_path(test_path(world, "foreign"), "checkpoint-9")));
}

/* Trains in a process of its own, which is killed after this time. Returns whether it got to its
 * end before. */
static bool run_and_kill(const char *name, int64_t microseconds)
{
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        mr_recipe *recipe = small_recipe();
        recipe->checkpoint.steps = 1; /* many are killed while they write or remove one */
        mr_error err = {0};
        mr_train_summary summary = {0};
        const mr_status status =
            train(recipe, test_path(world, name), (run_options){0}, &summary, &err);
        if (status != MR_OK)
            fprintf(stderr, "in the child: %s\n", err.message);
        _exit(status == MR_OK ? 0 : 1);
    }
    const int64_t end = mr_clock_monotonic_us() + microseconds;
    int code = 0;
    pid_t done = 0;
    while (done == 0 && mr_clock_monotonic_us() < end) {
        usleep(200);
        done = waitpid(child, &code, WNOHANG);
    }
    if (done == 0) {
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &code, 0), child);
    }
    if (WIFEXITED(code) && WEXITSTATUS(code) != 0)
        fail_msg("a run that was killed before does not go on: exit %d", WEXITSTATUS(code));
    return WIFEXITED(code);
}

static void a_run_that_is_killed_between_any_two_checkpoints_leaves_no_more_than_are_kept(
    void **state)
{
    (void)state;
    mr_rng rng = mr_rng_seed(17);
    const int64_t began = mr_clock_monotonic_us();
    assert_true(run_and_kill("timed", INT64_C(60000000)));
    const int64_t whole = mr_clock_monotonic_us() - began;
    int kills = 0;
    for (; kills < 30; kills++) {
        /* The machine may be faster now than it was: the first come early. */
        const uint64_t most = (uint64_t)whole * (uint64_t)(kills + 1) / 16;
        if (run_and_kill("killed", (int64_t)mr_rng_below(&rng, most)))
            break;
    }
    assert_true(kills > 0);
    mr_recipe *recipe = small_recipe();
    assert_true(train_ok(recipe, test_path(world, "killed"), (run_options){0}).finished);
    mr_recipe_free(recipe);
    assert_same_run(test_path(world, "whole"), test_path(world, "killed"), STEPS);
    assert_in_range(count_checkpoints(test_path(world, "killed")), 1, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signal_stops_the_run_with_a_checkpoint),
        cmocka_unit_test(numbers_that_are_none_end_the_run_and_leave_the_checkpoint),
        cmocka_unit_test(parts_that_did_not_fit_are_put_in_place_by_the_next_run),
        cmocka_unit_test(what_is_left_of_a_checkpoint_is_removed_by_the_next),
        cmocka_unit_test(
            a_run_that_is_killed_between_any_two_checkpoints_leaves_no_more_than_are_kept),
    };
    return cmocka_run_group_tests_name("trainer interrupted", tests, set_up, tear_down);
}
