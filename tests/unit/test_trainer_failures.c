/* test_trainer_failures.c - runs that cannot go on: what they say, and that the last checkpoint is
 * whole and goes on to the same bits: after data that is wrong, a loss that is not finite, a full
 * disk, a kill at any moment, and with a damaged checkpoint.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/safetensors.h"
#include "tests/unit/training_fixture.h"

static char *world;

static int set_up(void **state)
{
    (void)state;
    world = world_new();
    world_decoders(world);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_folder_free(world);
    return 0;
}

/* ---- Data ------------------------------------------------------------------------------------ */

typedef struct {
    const char *name;
    const char *file, *content; /* written before; or NULL */
    const char *piece[4];
    mr_status status;
    const char *message[3];
} refusal;

#define CONTRASTIVE(data)                                                            \
    "stage: contrastive\ntokenizer: '@/tok'\nbundle: '@/bundle.json'\n"              \
    "parts: [{name: encoder, new: decoder, " WORLD_SHAPE "}]\nmax_tokens: 24\n" data \
    "steps: 2\nbatch: 8\n"
#define NEXT_TOKEN(data)                                                         \
    "stage: next_token\ntokenizer: '@/tok'\n"                                    \
    "parts: [{name: llm, new: decoder, " WORLD_SHAPE "}]\nmax_tokens: 16\n" data \
    "steps: 2\nbatch: 4\n"
#define RANK(bundle, data)                                                                    \
    "stage: rank\ntokenizer: '@/tok'\nbundle: '@/" bundle "'\ncandidates: 4\n" data           \
    "parts:\n  - {name: llm, from: '@/lm/llm'}\n  - {name: encoder, from: '@/enc/encoder'}\n" \
    "losses: [{kind: listwise}]\nsteps: 2\nbatch: 2\n"
#define RANK_DATA(lists) "data:\n  items: '@/items.jsonl'\n  lists: [" lists "]\n"

static const refusal refusals[] = {
    {"a window longer than the positions",
     NULL,
     NULL,
     {"stage: next_token\ntokenizer: '@/tok'\nparts: [{name: llm, from: '@/lm/llm'}]\n"
      "data: {texts: ['@/texts.jsonl']}\nmax_tokens: 4096\nsteps: 2\nbatch: 4\n"},
     MR_INVALID,
     {"max_tokens is 4096, the llm has 2048 positions"}},
    {"a text shorter than the tokens that it has to give",
     "short.json",
     "{'mode':'mixed','prefix':[{'token':'<|user|>'}],'suffix':[{'slot':'item'}],"
     "'score':{'yes':'<|yes|>','no':'<|no|>'},"
     "'encoders':{'item':{'kind':'causal_last_n','tokens':9,'text':[{'field':'text'}]}}}",
     {"stage: contrastive\ntokenizer: '@/tok'\nbundle: '@/short.json'\n"
      "parts: [{name: encoder, new: decoder, " WORLD_SHAPE "}]\nmax_tokens: 24\n"
      "data: {pairs: ['@/pairs.jsonl']}\nsteps: 2\nbatch: 8\n"},
     MR_INVALID,
     {"pairs.jsonl, line 1", "cannot give 9 embedding tokens", "{\"token\": ...}"}},
    {"a task that is not there",
     NULL,
     NULL,
     {RANK("bundle.json", RANK_DATA("{file: '@/queries.jsonl', tasks: [serch]}"))},
     MR_NOT_FOUND,
     {"has no task 'serch'", "it has search, browse"}},
    {"an encoder that the bundle does not describe",
     NULL,
     NULL,
     {RANK("teacher.json", RANK_DATA("{file: '@/queries.jsonl', tasks: [search]}"))},
     MR_INVALID,
     {"teacher.json' does not describe encoders.item, as part 'encoder' needs"}},
    {"a mode that there is not",
     "f.json",
     "{'mode':'vector','prefix':[],'suffix':[],'score':{}}",
     {RANK("f.json", RANK_DATA("{file: '@/queries.jsonl', tasks: [search]}"))},
     MR_INVALID,
     {"f.json: 'mode' is 'vector', expected 'mixed' or 'text'"}},
    {"a label that is no token",
     "f.json",
     "{'mode':'mixed','prefix':['a'],'suffix':['b'],'score':{'yes':'no such','no':'<|no|>'}}",
     {RANK("f.json", RANK_DATA("{file: '@/queries.jsonl', tasks: [search]}"))},
     MR_INVALID,
     {"f.json: score.yes", "expected a token of the tokenizer"}},
    {"a prompt that cannot be",
     "f.json",
     "{'mode':'mixed','prefix':[{'token':'<|user|>'},{'field':'query'}],"
     "'suffix':[{'slot':'item'},{'token':'<|t1|>'}],'max_length':8,"
     "'score':{'yes':'<|yes|>','no':'<|no|>'},"
     "'encoders':{'item':{'kind':'causal_last_n','tokens':8,"
     "'text':[{'field':'text'},{'token':'<|t1|>'}]}}}",
     {RANK("f.json", RANK_DATA("{file: '@/queries.jsonl', tasks: [search]}"))},
     MR_EXHAUSTED,
     {"row 'search-", "the suffix alone takes 9 of 'max_length' 8 tokens"}},
};

static void data_that_cannot_be_trained_on_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refusals); i++) {
        const refusal *r = &refusals[i];
        mr_train_summary summary = {0};
        mr_error err = {0};
        if (r->file)
            write_json(world, r->file, r->content);
        mr_recipe *recipe = world_recipe(world, r->piece[0], "", "");
        mr_status status =
            train(recipe, test_path(world, "refused"), (run_options){.threads = 2}, &summary, &err);
        mr_recipe_free(recipe);
        if (status != r->status)
            fail_msg("%s: %s, expected %s; %s", r->name, mr_status_name(status),
                     mr_status_name(r->status), err.message);
        for (size_t m = 0; m < COUNT(r->message) && r->message[m]; m++)
            assert_contains(err.message, r->message[m]);
        assert_false(mr_file_is_folder(test_path(world, "refused/llm")));
        assert_false(mr_file_is_folder(test_path(world, "refused/encoder")));
    }
}

/* The teacher's bundle.json may say nothing of items, and its prompts may have users of several
 * tokens each. */
static void a_teacher_may_read_the_vectors_of_users(void **state)
{
    (void)state;
    mr_recipe *recipe = world_recipe(world, RECIPE_RANK("bundle"), rank_parts,
                                     "  - {name: teacher, from: '@/lm/llm'}\n"
                                     "teacher: '@/teacher_of_users.json'\n"
                                     "losses: [{kind: distill}, {kind: align}]\n",
                                     "steps: 2\nbatch: 8\nshards: 1\nuser_dropout: 0\n");
    recipe->candidates = 2;
    assert_true(train_ok(recipe, test_path(world, "users"), (run_options){0}).finished);
    mr_recipe_free(recipe);
}

/* ---- A loss that is not finite --------------------------------------------------------------- */

static const char lm_steps[] = "steps: 20\nbatch: 4\ncheckpoint: {steps: 4, keep: 2}\n";

/* A division by next to nothing: rows of the embedding that a step does not see have a gradient of
 * 0 and still momentum. */
static const char explosive[] = "optimizer: {rate: 1, beta1: 0.9, beta2: 0, eps: 1e-30, clip: 0}\n";
static const char sane[] = "optimizer: {rate: 1e-2, warm_up: 3}\n";

static int64_t newest_checkpoint(const char *out)
{
    int64_t newest = 0;
    DIR *dir = opendir(out);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        int64_t step = 0;
        char state[16];
        if (strncmp(entry->d_name, "checkpoint-", 11) == 0)
            step = strtoll(entry->d_name + 11, NULL, 10);
        snprintf(state, sizeof state, "trainer.json");
        if (step > newest && mr_file_exists(checkpoint_file(out, step, state)))
            newest = step;
    }
    if (dir)
        closedir(dir);
    return newest;
}

static void a_loss_that_is_not_finite_ends_the_run_and_names_the_step(void **state)
{
    (void)state;
    char out[1024], saved[2048];
    snprintf(out, sizeof out, "%s/explodes", world);
    mr_train_summary summary = {0};
    mr_error err = {0}, again = {0};
    mr_recipe *recipe = world_recipe(world, recipe_next_token, lm_steps, explosive);
    recipe->checkpoint.steps = 1;
    assert_status(train(recipe, out, (run_options){0}, &summary, &err), MR_CORRUPT, &err);
    assert_contains(err.message, "the loss is ");
    assert_contains(err.message, "lower optimizer.rate, or look at the data");
    assert_contains(err.message, "The last checkpoint is as it was");
    const int64_t last = newest_checkpoint(out);
    assert_in_range(last, 1, 19);
    char step[32];
    snprintf(step, sizeof step, "step %" PRId64 ": ", last + 1);
    assert_contains(err.message, step);
    assert_false(mr_file_exists(test_path(out, "checkpoint.partial")));
    assert_false(mr_file_is_folder(test_path(out, "llm")));

    /* It can be read again, and ends at the same step; a changed rate is told how to begin. */
    snprintf(saved, sizeof saved, "%s", checkpoint_file(out, last, "optimizer.safetensors"));
    size_t before, after;
    char *bytes = test_file_read(saved, &before);
    assert_status(train(recipe, out, (run_options){0}, &summary, &again), MR_CORRUPT, &again);
    assert_string_equal(err.message, again.message);
    char *now = test_file_read(saved, &after);
    assert_int_equal(before, after);
    assert_memory_equal(bytes, now, before);
    free(bytes);
    free(now);
    mr_recipe_free(recipe);
    recipe = world_recipe(world, recipe_next_token, lm_steps, sane);
    assert_status(train(recipe, out, (run_options){0}, &summary, &err), MR_MISMATCH, &err);
    assert_contains(err.message, "start afresh with --fresh");
    assert_true(train_ok(recipe, out, (run_options){.fresh = true}).finished);
    mr_recipe_free(recipe);
}

static void weights_that_overflow_are_an_error_of_the_first_step(void **state)
{
    (void)state;
    mr_safetensors *file = NULL;
    mr_train_summary summary = {0};
    mr_error err = {0};
    assert_int_equal(mkdir(test_path(world, "huge"), 0700), 0);
    for (int i = 0; i < 2; i++) {
        const char *const name = i ? "config.json" : "tokenizer.json";
        assert_status(mr_file_copy(test_path(test_path(world, "lm/llm"), name),
                                   test_path(test_path(world, "huge"), name), &err),
                      MR_OK, &err);
    }
    assert_status(mr_safetensors_open(&file, test_path(world, "lm/llm/model.safetensors"), &err),
                  MR_OK, &err);
    const size_t n = mr_safetensors_count(file);
    mr_tensor *tensors = calloc(n, sizeof *tensors);
    assert_non_null(tensors);
    float *huge = NULL;
    for (size_t i = 0; i < n; i++) {
        tensors[i] = *mr_safetensors_at(file, i);
        if (strcmp(tensors[i].name, "model.norm.weight") != 0)
            continue;
        huge = malloc(tensors[i].bytes);
        assert_non_null(huge);
        for (size_t k = 0; k < tensors[i].bytes / sizeof *huge; k++)
            huge[k] = 3e38f;
        tensors[i].data = huge;
    }
    assert_non_null(huge);
    assert_status(
        mr_safetensors_write(test_path(world, "huge/model.safetensors"), tensors, n, NULL, &err),
        MR_OK, &err);
    mr_safetensors_close(file);
    free(tensors);
    free(huge);
    mr_recipe *recipe = world_recipe(
        world, "stage: next_token\ntokenizer: '@/tok'\nparts: [{name: llm, from: '@/huge'}]\n"
               "data: {texts: ['@/texts.jsonl']}\nmax_tokens: 16\nsteps: 2\nbatch: 4\n");
    assert_status(train(recipe, test_path(world, "overflow"), (run_options){0}, &summary, &err),
                  MR_CORRUPT, &err);
    assert_contains(err.message, "step 1: the loss is ");
    mr_recipe_free(recipe);
}

/* ---- Another process ------------------------------------------------------------------------- */

/* In a child: trains, with files of at most this many bytes where not 0; exits with the status. The
 * message goes to out/../message. */
static pid_t train_in_child(const mr_recipe *recipe, const char *out, rlim_t most)
{
    char message[1024];
    snprintf(message, sizeof message, "%s", test_path(world, "message"));
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0)
        return child;
    mr_train_summary summary = {0};
    mr_error err = {0};
    FILE *told = fopen(message, "wb");
    if (most > 0) {
        const struct rlimit limit = {most, most};
        signal(SIGXFSZ, SIG_IGN);
        if (!told || setrlimit(RLIMIT_FSIZE, &limit) != 0)
            _exit(99);
    }
    const mr_status status = train(recipe, out, (run_options){.threads = 2}, &summary, &err);
    if (told) {
        fprintf(told, "%s", err.message);
        fclose(told);
    }
    _exit((int)status);
}

static int wait_for(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        assert_int_equal(errno, EINTR);
    return status;
}

static void a_full_disk_ends_the_run_and_keeps_the_checkpoint(void **state)
{
    (void)state;
    char out[1024], whole[1024];
    snprintf(out, sizeof out, "%s/full", world);
    snprintf(whole, sizeof whole, "%s/not_full", world);
    mr_recipe *recipe = world_recipe(world, recipe_next_token, lm_steps, sane);
    train_ok(recipe, whole, (run_options){0});
    train_ok(recipe, out, (run_options){.stop_step = 6});
    size_t log_bytes, moment_bytes;
    free(test_file_read(test_path(out, "log.jsonl"), &log_bytes));
    free(test_file_read(checkpoint_file(out, 6, "optimizer.safetensors"), &moment_bytes));
    /* No room for another line of the log, for any weight, for the moments behind the weights. */
    const size_t sizes[] = {log_bytes + 10, moment_bytes / 4, moment_bytes - 1};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        const int status = wait_for(train_in_child(recipe, out, (rlim_t)sizes[i]));
        char *message = test_file_read(test_path(world, "message"), NULL);
        if (!WIFEXITED(status) || WEXITSTATUS(status) == MR_OK || WEXITSTATUS(status) == 99)
            fail_msg("files of %zu bytes: status %d, '%s'", sizes[i], status, message);
        assert_contains(message, i == 0 ? "log.jsonl" : "checkpoint");
        free(message);
        assert_true(newest_checkpoint(out) == 6);
        assert_false(mr_file_exists(test_path(out, "checkpoint.partial")));
    }
    const mr_train_summary rest = train_ok(recipe, out, (run_options){0});
    assert_int_equal(rest.first_step, 7);
    assert_same_run(whole, out, 20);
    mr_recipe_free(recipe);
}

static void a_run_that_is_killed_at_any_moment_goes_on_to_the_same_bits(void **state)
{
    (void)state;
    char out[1024], whole[1024];
    snprintf(out, sizeof out, "%s/killed", world);
    snprintf(whole, sizeof whole, "%s/not_killed", world);
    mr_recipe *recipe = world_recipe(
        world, recipe_next_token, "steps: 60\nbatch: 4\ncheckpoint: {steps: 2, keep: 1}\n", sane);
    const int64_t began = (int64_t)time(NULL);
    train_ok(recipe, whole, (run_options){0});
    mr_rng rng = mr_rng_seed((uint64_t)began);
    print_message("seed of the kills: %" PRId64 "\n", began);
    int killed = 0;
    for (int round = 0; round < 12; round++) {
        const pid_t child = train_in_child(recipe, out, 0);
        const struct timespec pause = {0, (long)mr_rng_below(&rng, 60000000)};
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
        const int status = wait_for(child);
        if (!WIFSIGNALED(status)) {
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == MR_OK);
            break; /* it was done before */
        }
        killed++;
    }
    assert_true(killed > 0);
    train_ok(recipe, out, (run_options){0});
    mr_recipe_free(recipe);
    assert_same_run(whole, out, 60);
    assert_false(mr_file_exists(test_path(out, "checkpoint.partial")));
}

/* ---- What lies in the folder ----------------------------------------------------------------- */

static void rubbish_beside_the_checkpoints_is_no_matter(void **state)
{
    (void)state;
    char out[1024], whole[1024];
    snprintf(out, sizeof out, "%s/rubbish", world);
    snprintf(whole, sizeof whole, "%s/clean", world);
    mr_error err = {0};
    mr_recipe *recipe = world_recipe(world, recipe_next_token, lm_steps, sane);
    train_ok(recipe, whole, (run_options){0});
    /* Left by a run that was killed: a partial one, and later ones that are not whole. */
    static const char *const folders[] = {"checkpoint.partial/llm",  "checkpoint-00000019",
                                          "checkpoint-00000008/llm", "checkpoint-x",
                                          "checkpoint--0000003",     "checkpoint-"};
    for (size_t i = 0; i < COUNT(folders); i++)
        assert_status(mr_file_make_folders(test_path(out, folders[i]), &err), MR_OK, &err);
    test_file_write(test_path(out, "checkpoint-99999999"), "a file", 6);
    test_file_write(test_path(out, "checkpoint.partial/trainer.json"), "{", 1);
    test_file_write(test_path(out, "checkpoint-00000019/optimizer.safetensors"), "x", 1);
    test_file_write(test_path(out, "log.jsonl"), "{\"step\":1,\"lo", 13);
    train_ok(recipe, out, (run_options){.stop_step = 9});
    const mr_train_summary rest = train_ok(recipe, out, (run_options){0});
    assert_int_equal(rest.first_step, 10);
    assert_same_run(whole, out, 20);
    mr_recipe_free(recipe);
}

typedef struct {
    const char *name, *file;
    long cut; /* bytes that are kept; -1: the content is replaced; -2: removed */
    const char *content;
    mr_status status;
    const char *message[3];
} damage;

static void a_damaged_checkpoint_is_named(void **state)
{
    (void)state;
    static const damage table[] = {
        {"cut moments",
         "optimizer.safetensors",
         1000,
         NULL,
         MR_CORRUPT,
         {"checkpoint-00000009/optimizer.safetensors",
          "checkpoint-00000009' to go on from an older checkpoint"}},
        {"empty moments",
         "optimizer.safetensors",
         0,
         NULL,
         MR_CORRUPT,
         {"checkpoint-00000009/optimizer.safetensors"}},
        {"no moments",
         "optimizer.safetensors",
         -2,
         NULL,
         MR_NOT_FOUND,
         {"checkpoint-00000009/optimizer.safetensors"}},
        {"cut weights",
         "llm/model.safetensors",
         2000,
         NULL,
         MR_CORRUPT,
         {"checkpoint-00000009/llm"}},
        {"no weights",
         "llm/model.safetensors",
         -2,
         NULL,
         MR_NOT_FOUND,
         {"checkpoint-00000009/llm"}},
        {"a state that is no JSON",
         "trainer.json",
         5,
         NULL,
         MR_CORRUPT,
         {"checkpoint-00000009/trainer.json"}},
        {"an empty state",
         "trainer.json",
         0,
         NULL,
         MR_CORRUPT,
         {"checkpoint-00000009/trainer.json"}},
        {"a state without a step",
         "trainer.json",
         -1,
         "{'recipe':'0123456789abcdef'}",
         MR_INVALID,
         {"checkpoint-00000009/trainer.json", "'step' is missing"}},
        {"a state of another step",
         "trainer.json",
         -1,
         "{'step':12,'recipe':'0123456789abcdef','smooth_loss':1.0,'tokens':1}",
         MR_CORRUPT,
         {"checkpoint-00000009/trainer.json' is of step 12, its folder of step 9"}},
        {"a state of another recipe",
         "trainer.json",
         -1,
         "{'step':9,'recipe':'0123456789abcdef','smooth_loss':1.0,'tokens':1}",
         MR_MISMATCH,
         {"checkpoint-00000009/trainer.json' is of another recipe (0123456789abcdef"}},
    };
    char out[1024], whole[1024], older[2048];
    snprintf(whole, sizeof whole, "%s/undamaged", world);
    snprintf(out, sizeof out, "%s/damaged", world);
    mr_recipe *recipe = world_recipe(world, recipe_next_token, lm_steps, sane);
    train_ok(recipe, whole, (run_options){0});
    train_ok(recipe, out, (run_options){.stop_step = 9});
    for (size_t i = 0; i < COUNT(table); i++) {
        char path[2048];
        size_t len;
        mr_train_summary summary = {0};
        mr_error err = {0};
        snprintf(path, sizeof path, "%s", checkpoint_file(out, 9, table[i].file));
        char *bytes = test_file_read(path, &len);
        if (table[i].cut >= 0)
            test_file_write(path, bytes, (size_t)table[i].cut);
        else if (table[i].cut == -1)
            write_json(out, path + strlen(out) + 1, table[i].content);
        else
            assert_int_equal(unlink(path), 0);
        mr_status status = train(recipe, out, (run_options){0}, &summary, &err);
        if (status != table[i].status)
            fail_msg("%s: %s, expected %s; %s", table[i].name, mr_status_name(status),
                     mr_status_name(table[i].status), err.message);
        assert_contains(err.message, "resuming");
        for (size_t m = 0; m < COUNT(table[i].message) && table[i].message[m]; m++)
            assert_contains(err.message, table[i].message[m]);
        test_file_write(path, bytes, len);
        free(bytes);
    }
    /* The advice: without the newest, an older one; the end is the same. */
    snprintf(older, sizeof older, "%s", checkpoint_file(out, 9, "trainer.json"));
    assert_int_equal(unlink(older), 0);
    const mr_train_summary rest = train_ok(recipe, out, (run_options){0});
    assert_int_equal(rest.first_step, 9);
    assert_same_run(whole, out, 20);
    mr_recipe_free(recipe);
}

static void a_folder_that_cannot_be_made_is_an_error(void **state)
{
    (void)state;
    mr_train_summary summary = {0};
    mr_error err = {0};
    mr_recipe *recipe = world_recipe(world, recipe_next_token, lm_steps, sane);
    test_file_write(test_path(world, "in_the_way"), "x", 1);
    assert_true(train(recipe, test_path(world, "in_the_way"), (run_options){0}, &summary, &err) !=
                MR_OK);
    assert_contains(err.message, "in_the_way");
    mr_recipe_free(recipe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_that_cannot_be_trained_on_is_named),
        cmocka_unit_test(a_teacher_may_read_the_vectors_of_users),
        cmocka_unit_test(a_loss_that_is_not_finite_ends_the_run_and_names_the_step),
        cmocka_unit_test(weights_that_overflow_are_an_error_of_the_first_step),
        cmocka_unit_test(a_full_disk_ends_the_run_and_keeps_the_checkpoint),
        cmocka_unit_test(a_run_that_is_killed_at_any_moment_goes_on_to_the_same_bits),
        cmocka_unit_test(rubbish_beside_the_checkpoints_is_no_matter),
        cmocka_unit_test(a_damaged_checkpoint_is_named),
        cmocka_unit_test(a_folder_that_cannot_be_made_is_an_error),
    };
    return cmocka_run_group_tests_name("trainer_failures", tests, set_up, tear_down);
}
