/* test_recipe.c - recipes that are taken, what they become, and what their digest covers.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ranker/training/recipe.h"
#include "tests/support.h"

#define COUNT_OF(a) (sizeof(a) / sizeof *(a))

static const char rank_recipe[] =
    "stage: rank\n"
    "seed: 7\n"
    "bundle: recipes/bundle.json\n"
    "parts:\n"
    "  - {name: llm, from: train/lm}\n"
    "  - {name: encoder, from: train/encoder}\n"
    "  - {name: item_projector, new: linear, deviation: 0.05}\n"
    "  - name: user\n"
    "    new: perceiver\n"
    "    layers: 2\n"
    "    heads: 3\n"
    "    ffn: 512\n"
    "    latents: 4\n"
    "  - {name: teacher, from: train/teacher}\n"
    "freeze: [\"encoder.*\", \"llm.model.embed_tokens.*\"]\n"
    "data:\n"
    "  items: catalogue/items.jsonl\n"
    "  users: catalogue/users.jsonl\n"
    "  transductive: true\n"
    "  lists:\n"
    "    - {file: catalogue/queries.jsonl, tasks: [E1-cold, D1-cold], weight: 2}\n"
    "    - file: more.jsonl\n"
    "      weight: 0.5\n"
    "losses:\n"
    "  - {kind: listwise, weight: 1, weight_late: 0.5}\n"
    "  - {kind: distill, weight: 0, weight_late: 2, temperature: 2}\n"
    "  - {kind: align, alpha: 0.3}\n"
    "second_phase: 0.4\n"
    "teacher: recipes/teacher.json\n"
    "steps: 4000\n"
    "batch: 16\n"
    "accumulate: 2\n"
    "user_dropout: 0\n"
    "valid_every: 500\n"
    "optimizer: {rate: 1e-3, warm_up: 200, weight_decay: 0, clip: 0.5}\n"
    "checkpoint: {minutes: 2.5, keep: 3}\n";

static mr_recipe *parse(const char *text)
{
    mr_recipe *recipe = NULL;
    mr_error err = {0};
    assert_status(mr_recipe_parse(&recipe, "r.yaml", text, strlen(text), &err), MR_OK, &err);
    return recipe;
}

static void a_whole_recipe_is_read(void **state)
{
    (void)state;
    mr_recipe *r = parse(rank_recipe);
    assert_int_equal(r->stage, MR_STAGE_RANK);
    assert_int_equal(r->seed, 7);
    assert_string_equal(r->bundle, "recipes/bundle.json");
    assert_null(r->tokenizer);
    assert_int_equal(r->n_parts, 5);
    assert_string_equal(r->part[0].name, "llm");
    assert_string_equal(r->part[0].from, "train/lm");
    assert_null(r->part[0].made);
    assert_string_equal(r->part[2].made, "linear");
    assert_true(r->part[2].deviation == 0.05);
    assert_true(r->part[3].deviation == 0.02);
    assert_true(r->part[0].deviation == 0);
    assert_int_equal(r->part[3].layers, 2);
    assert_int_equal(r->part[3].latents, 4);
    assert_ptr_equal(mr_recipe_find_part(r, "user"), &r->part[3]);
    assert_null(mr_recipe_find_part(r, "vision"));
    assert_int_equal(r->n_freeze, 2);
    assert_string_equal(r->freeze[0], "encoder.*");
    assert_string_equal(r->data.items, "catalogue/items.jsonl");
    assert_null(r->data.captions);
    assert_int_equal(r->data.n_texts, 0);
    assert_int_equal(r->data.n_lists, 2);
    assert_int_equal(r->data.lists[0].n_tasks, 2);
    assert_string_equal(r->data.lists[0].tasks[1], "D1-cold");
    assert_true(r->data.lists[0].weight == 2);
    assert_true(r->data.transductive);
    assert_string_equal(r->data.lists[1].file, "more.jsonl");
    assert_int_equal(r->data.lists[1].n_tasks, 0);
    assert_true(r->data.lists[1].weight == 0.5);
    assert_int_equal(r->n_losses, 3);
    assert_int_equal(r->loss[0].kind, MR_LOSS_LISTWISE);
    assert_true(r->loss[0].weight_late == 0.5);
    assert_int_equal(r->loss[1].kind, MR_LOSS_DISTILL);
    assert_true(r->loss[1].weight == 0);
    assert_true(r->loss[1].temperature == 2);
    assert_int_equal(r->loss[2].kind, MR_LOSS_ALIGN);
    assert_true(r->loss[2].weight == 1);
    assert_true(r->loss[2].weight_late == 1);
    assert_true(r->loss[0].temperature == 1);
    assert_true(r->loss[2].alpha == 0.3);
    assert_true(r->loss[2].beta == 1);
    assert_true(r->second_phase == 0.4);
    assert_string_equal(r->teacher, "recipes/teacher.json");
    assert_int_equal(r->steps, 4000);
    assert_int_equal(r->batch, 16);
    assert_int_equal(r->accumulate, 2);
    assert_true(r->user_dropout == 0);
    assert_int_equal(r->valid_every, 500);
    assert_true(r->optimizer.rate == 1e-3);
    assert_int_equal(r->optimizer.warm_up, 200);
    assert_true(r->optimizer.weight_decay == 0);
    assert_true(r->optimizer.clip == 0.5);
    assert_true(r->checkpoint.minutes == 2.5);
    assert_int_equal(r->checkpoint.keep, 3);
    mr_recipe_free(r);
    mr_recipe_free(NULL);
}

static void what_a_recipe_leaves_out_has_its_default(void **state)
{
    (void)state;
    mr_recipe *r = parse("stage: next_token\n"
                         "parts:\n"
                         "- {name: llm, new: decoder, layers: 2, width: 96, heads: 3, ffn: 64}\n"
                         "data: {texts: [a.jsonl, b.jsonl]}\n"
                         "epochs: 1.5\n"
                         "batch: 2\n");
    assert_int_equal(r->seed, 0);
    assert_int_equal(r->part[0].kv_heads, 3);
    assert_int_equal(r->part[0].head_dim, 32);
    assert_int_equal(r->part[0].vocab, 0);
    assert_int_equal(r->data.n_texts, 2);
    assert_true(r->data.pairs_weight == 1);
    assert_false(r->data.transductive);
    assert_int_equal(r->n_losses, 1);
    assert_int_equal(r->loss[0].kind, MR_LOSS_NEXT_TOKEN);
    assert_true(r->loss[0].weight == 1);
    assert_true(r->loss[0].weight_late == 1);
    assert_true(r->second_phase == 1);
    assert_int_equal(r->steps, 0);
    assert_true(r->epochs == 1.5);
    assert_int_equal(r->accumulate, 1);
    assert_int_equal(r->shards, 2); /* no more than a batch has examples */
    assert_int_equal(r->max_tokens, 128);
    assert_int_equal(r->candidates, 32);
    assert_int_equal(r->history, 32);
    assert_true(r->user_dropout == 0.15);
    assert_true(r->query_dropout == 0);
    assert_int_equal(r->valid_every, 0);
    assert_true(r->optimizer.rate == 1e-3);
    assert_true(r->optimizer.floor == 0.1);
    assert_int_equal(r->optimizer.warm_up, 0);
    assert_true(r->optimizer.weight_decay == 0.01);
    assert_true(r->optimizer.beta1 == 0.9);
    assert_true(r->optimizer.beta2 == 0.999);
    assert_true(r->optimizer.eps == 1e-8);
    assert_true(r->optimizer.clip == 1);
    assert_true(r->checkpoint.minutes == 5);
    assert_int_equal(r->checkpoint.steps, 0);
    assert_int_equal(r->checkpoint.keep, 2);
    mr_recipe_free(r);
}

static void every_stage_has_a_smallest_recipe(void **state)
{
    (void)state;
    static const struct {
        mr_stage_kind stage;
        const char *text;
    } rows[] = {
        {MR_STAGE_BPE,
         "stage: bpe\ndata: {texts: [a]}\nvocabulary: 4096\nspecial: [\"<|endoftext|>\"]\n"},
        {MR_STAGE_NEXT_TOKEN, "stage: next_token\nparts: [{name: llm, from: a}]\n"
                              "data: {texts: [a]}\nsteps: 1\nbatch: 4\n"},
        {MR_STAGE_CONTRASTIVE, "stage: contrastive\nparts: [{name: encoder, from: a}]\n"
                               "data: {pairs: [a]}\nsteps: 1\nbatch: 4\n"},
        {MR_STAGE_CONTRASTIVE, "stage: contrastive\nparts: [{name: encoder, from: a}]\n"
                               "data: {users: a, items: b}\nsteps: 1\nbatch: 4\n"},
        {MR_STAGE_RANK, "stage: rank\nbundle: b\nparts: [{name: llm, from: a}]\n"
                        "data: {items: a, lists: [{file: b}]}\nlosses: [{kind: yes_no}]\n"
                        "steps: 1\nbatch: 4\n"},
        {MR_STAGE_USER, "stage: user\nbundle: b\n"
                        "parts: [{name: user, from: a}, {name: encoder, from: b}]\n"
                        "data: {items: a, users: b}\nsteps: 1\nbatch: 4\n"},
        {MR_STAGE_CAPTION, "stage: caption\nparts: [{name: llm, from: a}, {name: vision, from: b},"
                           " {name: image_projector, new: mlp}]\n"
                           "data: {captions: a}\nsteps: 1\nbatch: 4\n"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        mr_recipe *r = parse(rows[i].text);
        assert_int_equal(r->stage, rows[i].stage);
        assert_int_equal(strncmp(rows[i].text + strlen("stage: "), mr_stage_name(r->stage),
                                 strlen(mr_stage_name(r->stage))),
                         0);
        mr_recipe_free(r);
    }
    mr_recipe *r = parse(rows[2].text);
    assert_true(r->loss[0].temperature == 0.05); /* of cosines */
    mr_recipe_free(r);
    assert_string_equal(mr_stage_name(MR_STAGE_COUNT), "unknown");
    assert_string_equal(mr_loss_name(MR_LOSS_SAMPLED_SOFTMAX), "sampled_softmax");
    assert_string_equal(mr_loss_name(MR_LOSS_COUNT), "unknown");
}

static void the_bpe_stage_has_words_of_its_own(void **state)
{
    (void)state;
#define BPE "stage: bpe\ndata: {texts: [a]}\nvocabulary: 300\n"
    static const struct {
        const char *text;
        mr_bpe_words style;
        bool lowercase;
        int min_frequency;
    } rows[] = {
        {BPE, MR_BPE_GPT2, false, 2},
        {BPE "style: gpt2\nlowercase: false\nmin_frequency: 2\n", MR_BPE_GPT2, false, 2},
        {BPE "style: qwen2\n", MR_BPE_QWEN2, false, 2},
        {BPE "lowercase: true\n", MR_BPE_GPT2, true, 2},
        {BPE "min_frequency: 9\n", MR_BPE_GPT2, false, 9},
    };
    mr_recipe *first = parse(BPE);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        mr_recipe *r = parse(rows[i].text);
        assert_int_equal(r->style, rows[i].style);
        assert_int_equal(r->lowercase, rows[i].lowercase);
        assert_int_equal(r->min_frequency, rows[i].min_frequency);
        if ((strcmp(r->digest, first->digest) == 0) != (i < 2))
            fail_msg("row %zu: digest %s, the first %s", i, r->digest, first->digest);
        mr_recipe_free(r);
    }
    mr_recipe_free(first);
}

static void every_cut_of_a_recipe_is_an_error_or_a_recipe(void **state)
{
    (void)state;
    size_t taken = 0;
    for (size_t len = 0; len <= strlen(rank_recipe); len++) {
        char *exact = malloc(len ? len : 1); /* so that a sanitizer sees a byte read too many */
        assert_non_null(exact);
        memcpy(exact, rank_recipe, len);
        mr_recipe *recipe = NULL;
        mr_error err = {0};
        const mr_status status = mr_recipe_parse(&recipe, "r.yaml", exact, len, &err);
        if ((status == MR_OK) == (err.message[0] != '\0') || (status == MR_OK) != (recipe != NULL))
            fail_msg("cut at %zu: %s '%s'", len, mr_status_name(status), err.message);
        taken += status == MR_OK;
        mr_recipe_free(recipe);
        free(exact);
    }
    assert_true(taken > 10); /* what follows 'batch' may be missing */
}

#define GOOD                          \
    "stage: next_token\n"             \
    "parts: [{name: llm, from: a}]\n" \
    "data: {texts: [a]}\n"            \
    "steps: 100\n"                    \
    "batch: 8\n"

static void the_digest_is_of_what_decides_the_run(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool same;
    } rows[] = {
        {GOOD, true},
        {"batch: 8 # the order of keys and how they are written do not count\n"
         "data:\n  texts:\n    - \"a\"\n"
         "steps: 100\nparts:\n- {from: 'a', name: llm}\nstage: next_token\n",
         true},
        {GOOD "seed: 0\noptimizer: {rate: 0.001}\nlosses: [{kind: next_token}]\nshards: 4\n", true},
        {GOOD "checkpoint: {minutes: 1, steps: 10, keep: 9}\nvalid_every: 3\n", true},
        {GOOD "seed: 1\n", false},
        {GOOD "optimizer: {rate: 0.0010000000000000002}\n", false},
        {GOOD "freeze: [a]\n", false},
        {GOOD "shards: 2\n", false},
        {GOOD "losses: [{kind: next_token, weight: 2}]\n", false},
        {"stage: next_token\nparts: [{name: llm, from: a}]\ndata: {texts: [a, b]}\n"
         "steps: 100\nbatch: 8\n",
         false},
    };
    mr_recipe *first = parse(GOOD);
    /* A schema with more keys gives the same one, or runs could not be gone on with. */
    assert_string_equal(first->digest, "ec37d9762df16be2");
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        mr_recipe *r = parse(rows[i].text);
        if ((strcmp(r->digest, first->digest) == 0) != rows[i].same)
            fail_msg("row %zu: digest %s, the first %s, expected %s", i, r->digest, first->digest,
                     rows[i].same ? "the same" : "another");
        mr_recipe_free(r);
    }
    mr_recipe_free(first);
}

static void a_file_is_read_and_named(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    const char *path = test_path(folder, "r.yaml");
    mr_recipe *recipe = NULL;
    mr_error err = {0};
    assert_status(mr_recipe_load(&recipe, path, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "r.yaml");
    test_file_write(path, rank_recipe, strlen(rank_recipe));
    assert_status(mr_recipe_load(&recipe, path, &err), MR_OK, &err);
    assert_int_equal(recipe->steps, 4000);
    mr_recipe_free(recipe);
    recipe = NULL;
    test_file_write(path, "stage: x\n", 9);
    assert_status(mr_recipe_load(&recipe, path, &err), MR_INVALID, &err);
    assert_contains(err.message, "r.yaml:1: stage is 'x'");
    assert_status(mr_recipe_load(&recipe, folder, &err), MR_INVALID, &err);
    assert_null(recipe);
    test_folder_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_recipe_is_read),
        cmocka_unit_test(what_a_recipe_leaves_out_has_its_default),
        cmocka_unit_test(every_stage_has_a_smallest_recipe),
        cmocka_unit_test(every_cut_of_a_recipe_is_an_error_or_a_recipe),
        cmocka_unit_test(the_bpe_stage_has_words_of_its_own),
        cmocka_unit_test(the_digest_is_of_what_decides_the_run),
        cmocka_unit_test(a_file_is_read_and_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
