/* cmd_train.c - mixrank train: a recipe into a folder, with a bar, signals and a summary.
 *
 * The first SIGINT or SIGTERM lets the step end and a checkpoint be written; the second kills,
 * which loses what came since the last checkpoint and nothing else. A file that may not grow
 * (ulimit -f) is an error like a full disk, not a signal.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/progress.h"
#include "ranker/cli/command.h"
#include "ranker/training/trainer.h"

typedef struct {
    const char *out;
    int64_t threads, stop_step;
    bool fresh, check, json, quiet;
} train_options;

static const mr_option options[] = {
    MR_OPTION_STRING("out", 'o', "DIR", train_options, out,
                     "the folder of the run: log.jsonl, loss.svg, checkpoints, and at the end the "
                     "trained parts. One recipe, one folder"),
    MR_OPTION_INT("threads", 't', "N", train_options, threads, 0, 256,
                  "threads; 0: the CPUs of this process. The result does not depend on it"),
    MR_OPTION_FLAG(
        "fresh", 0, train_options, fresh,
        "begin anew: checkpoints that are there are not read, and go when the first new one "
        "is whole. Without it a run goes on from its newest"),
    MR_OPTION_INT("stop-step", 0, "N", train_options, stop_step, 0, 1e9,
                  "stop with a checkpoint after this step; 0: at the end"),
    MR_OPTION_FLAG("check", 0, train_options, check,
                   "check the recipe and that its files are there, and train nothing"),
    MR_OPTION_FLAG("json", 0, train_options, json, "print the summary as JSON"),
    MR_OPTION_FLAG("quiet", 'q', train_options, quiet, "no progress bar"),
    MR_OPTION_END,
};

static const mr_command_help help = {
    "train", "RECIPE.yaml --out DIR [options]",
    "Runs one stage of training as its recipe says: a vocabulary (bpe), a language model "
    "(next_token), an item encoder (contrastive), the ranker (rank), a user encoder (user), a "
    "picture projector (caption). May be interrupted with Ctrl-C or killed: the same command goes "
    "on, to the same weights as if it had never stopped. docs/training.md explains every key of a "
    "recipe.",
    "  mixrank train recipes/lm.yaml --check\n"
    "  mixrank train recipes/lm.yaml --out build/train/lm\n"
    "  mixrank train recipes/lm.yaml --out build/train/lm --stop-step 100\n"};

/* ---- Signals --------------------------------------------------------------------------------- */

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    static const char words[] =
        "\nmixrank train: stopping after this step, with a checkpoint; once more to quit at once\n";
    if (stop) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    stop = 1;
    /* Nothing is to be done about a terminal that is gone. */
    if (write(STDERR_FILENO, words, sizeof words - 1) < 0)
        return;
}

static void watch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGXFSZ, SIG_IGN);
}

/* ---- --check --------------------------------------------------------------------------------- */

typedef struct {
    json_t *list; /* of {role, path, found}; NULL once memory was out */
    size_t missing;
    const char *first; /* borrowed from the recipe */
} file_check;

static void check_file(file_check *check, const char *role, const char *path)
{
    if (!path)
        return;
    const bool found = mr_file_exists(path);
    if (!found && check->missing++ == 0)
        check->first = path;
    json_t *row = json_object();
    json_object_set_new(row, "role", mr_command_json_text(mr_str_of(role)));
    json_object_set_new(row, "path", mr_command_json_text(mr_str_of(path)));
    json_object_set_new(row, "found", json_boolean(found));
    json_array_append_new(check->list, row);
}

static void check_files(file_check *check, const mr_recipe *recipe)
{
    const mr_recipe_data *data = &recipe->data;
    check_file(check, "bundle", recipe->bundle);
    check_file(check, "tokenizer", recipe->tokenizer);
    for (size_t i = 0; i < recipe->n_parts; i++)
        check_file(check, recipe->part[i].name, recipe->part[i].from);
    check_file(check, "teacher", recipe->teacher);
    for (size_t i = 0; i < data->n_texts; i++)
        check_file(check, "data.texts", data->texts[i]);
    for (size_t i = 0; i < data->n_pairs; i++)
        check_file(check, "data.pairs", data->pairs[i]);
    check_file(check, "data.items", data->items);
    check_file(check, "data.users", data->users);
    for (size_t i = 0; i < data->n_lists; i++)
        check_file(check, "data.lists", data->lists[i].file);
    check_file(check, "data.captions", data->captions);
}

static void print_check(const file_check *check)
{
    size_t i;
    json_t *row;
    json_array_foreach(check->list, i, row)
    {
        printf("%-8s %-16s ", json_is_true(json_object_get(row, "found")) ? "found" : "MISSING",
               json_string_value(json_object_get(row, "role")));
        mr_command_print_text(stdout, mr_str_of(json_string_value(json_object_get(row, "path"))));
        putchar('\n');
    }
}

static int run_check(const mr_recipe *recipe, const char *path, bool as_json)
{
    file_check check = {.list = json_array()};
    mr_error err = {0};
    check_files(&check, recipe);
    if (as_json) {
        json_t *root =
            json_pack("{s:s, s:s, s:I, s:f, s:i, s:o}", "stage", mr_stage_name(recipe->stage),
                      "digest", recipe->digest, "steps", (json_int_t)recipe->steps, "epochs",
                      recipe->epochs, "batch", recipe->batch, "files", check.list);
        check.list = NULL;
        mr_command_print_json(root);
    } else {
        print_check(&check);
        printf("stage %s", mr_stage_name(recipe->stage));
        if (recipe->stage != MR_STAGE_BPE && recipe->steps)
            printf(", %" PRId64 " steps of %d", recipe->steps, recipe->batch);
        else if (recipe->stage != MR_STAGE_BPE)
            printf(", %g epochs in steps of %d", recipe->epochs, recipe->batch);
        printf(", recipe %s\n", recipe->digest);
    }
    json_decref(check.list);
    if (!check.missing)
        return MR_EXIT_OK;
    (void)MR_FAIL(&err, NOT_FOUND, "%s: %zu of its files %s not there, the first is '%s'", path,
                  check.missing, check.missing > 1 ? "are" : "is", check.first);
    return mr_command_fail(help.name, &err);
}

/* ---- Training -------------------------------------------------------------------------------- */

typedef struct {
    const char *stage;
    mr_progress bar;
    bool started;
    char label[64];
    int64_t first, steps;
} watcher;

static void on_step(void *context, const mr_train_progress *p)
{
    watcher *w = context;
    char note[80];
    if (!w->started) {
        w->started = true;
        w->first = p->step;
        w->steps = p->steps;
        if (w->first > 1)
            snprintf(w->label, sizeof w->label, "%s from step %" PRId64, w->stage, w->first);
        else
            snprintf(w->label, sizeof w->label, "%s", w->stage);
        /* Of this call's steps, so that the time left is right after resuming. */
        w->bar = mr_progress_start(w->label, (uint64_t)(p->steps - p->step + 1), "steps");
        return;
    }
    snprintf(note, sizeof note, "loss %.4f  %.1fk tokens/s", p->smooth_loss, p->tokens_per_s / 1e3);
    mr_progress_update(&w->bar, (uint64_t)(p->step - w->first + 1), note);
}

static void print_steps(const watcher *w, const mr_train_summary *s, double seconds)
{
    if (s->last_step < s->first_step) {
        printf("%s at step %" PRId64, s->finished ? "was finished" : "is", s->last_step);
    } else {
        printf("steps %" PRId64 " to %" PRId64, s->first_step, s->last_step);
        if (w->steps)
            printf(" of %" PRId64, w->steps);
        printf(" in %.1f s, %.0f tokens/s", seconds, s->tokens_per_s);
    }
    printf("; loss %.4f", s->loss);
    if (!isnan(s->valid_loss))
        printf(", valid %.4f", s->valid_loss);
    if (s->passed_over)
        printf("; %" PRIu64 " rows without a picture passed over", s->passed_over);
}

static void print_summary(const train_options *opt, const mr_recipe *recipe, const watcher *w,
                          const mr_train_summary *s, double seconds)
{
    if (opt->json) {
        json_t *root = json_pack(
            "{s:s, s:s, s:I, s:I, s:b, s:f, s:I, s:f, s:f}", "stage", mr_stage_name(recipe->stage),
            "digest", recipe->digest, "first_step", (json_int_t)s->first_step, "last_step",
            (json_int_t)s->last_step, "finished", (int)s->finished, "loss", s->loss, "tokens",
            (json_int_t)s->tokens, "tokens_per_s", s->tokens_per_s, "seconds", seconds);
        if (root) {
            json_object_set_new(root, "out", mr_command_json_text(mr_str_of(opt->out)));
            json_object_set_new(root, "valid_loss",
                                isnan(s->valid_loss) ? json_null() : json_real(s->valid_loss));
            json_object_set_new(root, "passed_over", json_integer((json_int_t)s->passed_over));
        }
        mr_command_print_json(root);
        return;
    }
    printf("%s: ", mr_stage_name(recipe->stage));
    if (recipe->stage == MR_STAGE_BPE)
        printf("a vocabulary of %" PRIu64 " in %.1f s", s->tokens, seconds);
    else
        print_steps(w, s, seconds);
    printf("; in ");
    mr_command_print_text(stdout, mr_str_of(opt->out));
    putchar('\n');
}

static int run_training(const train_options *opt, const mr_recipe *recipe, const char *path)
{
    watcher w = {.stage = mr_stage_name(recipe->stage)};
    const mr_train_options train = {.out = opt->out,
                                    .threads = (int)opt->threads,
                                    .fresh = opt->fresh,
                                    .stop_step = opt->stop_step,
                                    .stop = &stop,
                                    .report = on_step,
                                    .report_context = &w};
    mr_train_summary summary = {.valid_loss = (double)NAN};
    mr_error err = {0};
    const int64_t started = mr_clock_monotonic_us();
    mr_status status = mr_train_run(recipe, &train, &summary, &err);
    mr_progress_finish(&w.bar, NULL);
    if (status != MR_OK)
        return mr_command_fail(help.name, &err);
    print_summary(opt, recipe, &w, &summary, (double)(mr_clock_monotonic_us() - started) / 1e6);
    if (summary.finished)
        return MR_EXIT_OK;
    fprintf(stderr, "mixrank train: stopped after step %" PRId64 "; to go on: mixrank train ",
            summary.last_step);
    mr_command_print_text(stderr, mr_str_of(path));
    fputs(" --out ", stderr);
    mr_command_print_text(stderr, mr_str_of(opt->out));
    fputc('\n', stderr);
    /* A shell script must not go on to the next stage after Ctrl-C. */
    return stop ? MR_EXIT_FAILED : MR_EXIT_OK;
}

int mr_cmd_train(int argc, char **argv)
{
    train_options opt = {0};
    int n_positional = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n_positional, &code))
        return code;
    if (n_positional != 1)
        return mr_command_misuse(help.name, "give one recipe");
    if (!opt.out && !opt.check)
        return mr_command_misuse(help.name, "--out is missing");
    mr_progress_set_quiet(opt.quiet);
    mr_recipe *recipe = NULL;
    mr_error err = {0};
    if (mr_recipe_load(&recipe, argv[1], &err) != MR_OK)
        return mr_command_fail(help.name, &err);
    if (opt.check) {
        code = run_check(recipe, argv[1], opt.json);
    } else {
        watch_signals();
        code = run_training(&opt, recipe, argv[1]);
    }
    mr_recipe_free(recipe);
    return code;
}
