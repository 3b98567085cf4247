/* test_training_refused.c - recipes whose data, parts or bundle cannot be trained with: the error
 * names file, line and thing, and nothing is written.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <unistd.h>

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

static void assert_nothing_was_written(const char *out)
{
    DIR *dir = opendir(out);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (entry->d_name[0] != '.')
            fail_msg("'%s' is in '%s'", entry->d_name, out);
    if (dir)
        closedir(dir);
}

#define RANK(users, lists)                                                                      \
    "stage: rank\ntokenizer: '@/tok'\nbundle: '@/bundle.json'\nsteps: 2\nbatch: 2\n"            \
    "losses: [{kind: listwise}]\ndata:\n  items: '@/items.jsonl'\n  users: '@/" users ".jsonl'" \
    "\n  lists: [" lists "]\n"
#define BAD_ROWS     RANK("users", "{file: '@/bad.jsonl', tasks: [t]}")
#define BAD_PEOPLE   RANK("bad", "{file: '@/more.jsonl', tasks: [more]}")
#define ROW(rest)    "{'id':'r','task':'t','split':'train','query':'q'," rest "}\n"
#define OTHERS(more) "{'id':'x','history':[]}\n" more

static void what_cannot_be_learned_from_is_refused_by_name(void **state)
{
    (void)state;
    static const char few[] = "steps: 2\nbatch: 2\n";
    static const char texts[] = "stage: next_token\ntokenizer: '@/tok'\nmax_tokens: 16\n"
                                "parts: [{name: llm, new: decoder, " WORLD_SHAPE "}]\n"
                                "data: {texts: ['@/bad.jsonl']}\n";
    static const char pairs[] = "stage: contrastive\ntokenizer: '@/tok'\nbundle: '@/bundle.json'\n"
                                "parts: [{name: encoder, new: decoder, " WORLD_SHAPE "}]\n"
                                "max_tokens: 24\n";
    static const struct {
        const char *file, *content; /* written before; content NULL: not there */
        const char *piece[3];
        mr_status status;
        const char *message[2];
    } table[] = {
        {"bad.jsonl",
         "",
         {texts, few},
         MR_INVALID,
         {"data.texts gives 0 tokens, fewer than one window of 16 (max_tokens)"}},
        {"bad.jsonl",
         "{'text':'red'}\n",
         {texts, few},
         MR_INVALID,
         {"fewer than one window of 16"}},
        {"bad.jsonl",
         "{'text':'red'}\n{'title':'red'}\n",
         {texts, few},
         MR_INVALID,
         {"bad.jsonl, line 2", "text"}},
        {"bad.jsonl", "{'text':\n", {texts, few}, MR_CORRUPT, {"bad.jsonl", "line 1"}},
        {"bad.jsonl", NULL, {texts, few}, MR_NOT_FOUND, {"bad.jsonl"}},

        {"bad.jsonl",
         "",
         {pairs, "data: {pairs: ['@/bad.jsonl']}\n", few},
         MR_INVALID,
         {"data.pairs has 0 pairs and no section with 8"}},
        {"bad.jsonl",
         "{'a':'x','b':'y'}\n{'a':'x'}\n",
         {pairs, "data: {pairs: ['@/bad.jsonl']}\n", few},
         MR_INVALID,
         {"bad.jsonl, line 2", "'b'"}},
        {"bad.jsonl",
         NULL,
         {pairs, "data: {pairs: ['@/bad.jsonl']}\n", few},
         MR_NOT_FOUND,
         {"bad.jsonl"}},
        {"bad.jsonl",
         "",
         {pairs, "data: {pairs: ['@/pairs.jsonl'], users: '@/users.jsonl', users_weight: 0.5}\n",
          few},
         MR_INVALID,
         {"data.users_weight is 0.5", "the recipe has none"}},
        {"bad.jsonl",
         "",
         {pairs,
          "data: {pairs: ['@/pairs.jsonl'], items: '@/items.jsonl', lists: [{file: "
          "'@/queries.jsonl', tasks: [browse]}]}\n",
          few},
         MR_INVALID,
         {"no row of split train in data.lists has a query"}},

        {"bad.jsonl", "", {BAD_ROWS, rank_parts}, MR_NOT_FOUND, {"no task 't'", "no rows at all"}},
        {"bad.jsonl", NULL, {BAD_ROWS, rank_parts}, MR_NOT_FOUND, {"bad.jsonl"}},
        {"bad.jsonl",
         "{'id':'r','task':'t','split':'test','candidates':['i02'],'grades':[1]}\n",
         {BAD_ROWS, rank_parts},
         MR_NOT_FOUND,
         {"qrels/t.txt"}},
        {"bad.jsonl",
         "{'id':'r','task':'t','split':'valid','candidates':['i00'],'grades':[1]}\n",
         {BAD_ROWS, rank_parts},
         MR_INVALID,
         {"bad.jsonl' has no row of split train"}},
        {"bad.jsonl",
         ROW("'candidates':['i00','i99'],'grades':[1,0]"),
         {BAD_ROWS, rank_parts},
         MR_INVALID,
         {"line 1 of", "'candidates': the catalogue has no item 'i99'"}},
        {"bad.jsonl",
         ROW("'history':['gone'],'candidates':['i00'],'grades':[1]"),
         {BAD_ROWS, rank_parts},
         MR_INVALID,
         {"line 1 of", "'history': the catalogue has no item 'gone'"}},
        {"bad.jsonl",
         ROW("'candidates':['i00','i01']"),
         {BAD_ROWS, rank_parts},
         MR_NOT_FOUND,
         {"qrels/t.txt"}},
        {"bad.jsonl",
         ROW("'user':'nobody','candidates':['i00'],'grades':[1]"),
         {BAD_ROWS, rank_parts},
         MR_INVALID,
         {"row 'r' is asked by a person who is not in '", "users.jsonl'"}},
        {"bad.jsonl", NULL, {BAD_PEOPLE, rank_parts}, MR_NOT_FOUND, {"bad.jsonl"}},
        {"bad.jsonl",
         OTHERS("{'id':'x','history':[]}\n"),
         {BAD_PEOPLE, rank_parts},
         MR_INVALID,
         {"bad.jsonl, line 2", "'x' is there twice"}},
        {"bad.jsonl",
         OTHERS("{'id':'y','fold':'tset','history':[]}\n"),
         {BAD_PEOPLE, rank_parts},
         MR_INVALID,
         {"bad.jsonl, line 2", "person 'y' is of fold 'tset', expected train, valid or test"}},
        {"bad.jsonl",
         OTHERS("{'id':'y'}\n"),
         {BAD_PEOPLE, rank_parts},
         MR_INVALID,
         {"bad.jsonl, line 2", "history"}},
        {"odd.jsonl",
         "{'id':'i00','fold':'Test'}\n",
         {"stage: rank\ntokenizer: '@/tok'\nbundle: '@/bundle.json'\nlosses: [{kind: listwise}]\n"
          "data: {items: '@/odd.jsonl', lists: [{file: '@/one.jsonl', tasks: [t]}]}\n",
          rank_parts, few},
         MR_INVALID,
         {"item 'i00' is of fold 'Test', expected train, valid or test"}},
        {"bad.jsonl",
         ROW("'candidates':['i00'],'grades':[1]"),
         {RANK("few_users", "{file: '@/bad.jsonl', tasks: [t]}") "  users_weight: 1\n", rank_parts},
         MR_INVALID,
         {"data.users_weight is 1 and '", "nobody of fold train with two items"}},
        {"bad.jsonl",
         "",
         {RANK("users", "{file: '@/more.jsonl', weight: 0}"), rank_parts},
         MR_INVALID,
         {"data.lists have weight 0 altogether"}},

        {"bad.jsonl",
         "",
         {RANK("users", "{file: '@/more.jsonl'}"),
          "parts: [{name: llm, from: '@/nowhere'}, {name: encoder, from: '@/enc/encoder'}]\n"},
         MR_NOT_FOUND,
         {"nowhere/config.json"}},
        {"bad.json",
         NULL,
         {"stage: rank\ntokenizer: '@/tok'\nbundle: '@/bad.json'\nlosses: [{kind: listwise}]\n"
          "data: {items: '@/items.jsonl', lists: [{file: '@/more.jsonl'}]}\n",
          rank_parts, few},
         MR_NOT_FOUND,
         {"bad.json"}},
        {"short.json",
         "{'mode':'mixed','prefix':[{'field':'query'}],'suffix':[{'slot':'item'}],"
         "'score':{'yes':'<|yes|>','no':'<|no|>'},'encoders':{'item':{'tokens':4,'append_eos':"
         "false,"
         "'text':[{'field':'title','max_tokens':2}]}}}",
         {"stage: rank\ntokenizer: '@/tok'\nbundle: '@/short.json'\nlosses: [{kind: listwise}]\n"
          "data: {items: '@/items.jsonl', lists: [{file: '@/more.jsonl'}]}\n",
          rank_parts, few},
         MR_INVALID,
         {"item 'i00': a text of 2 tokens cannot give 4 embedding tokens", "encoders.item.text"}},
        {"bad.jsonl",
         "",
         {RANK("users", "{file: '@/more.jsonl'}"), rank_parts, "freeze: ['encodr.*']\n"},
         MR_INVALID,
         {"freeze: 'encodr.*' matches no weight", "weights are named like '"}},
        {"bad.jsonl",
         "",
         {RANK("users", "{file: '@/more.jsonl'}"), rank_parts, "freeze: ['*']\n"},
         MR_INVALID,
         {"everything is frozen: there is nothing to train"}},
    };
    write_json(world, "one.jsonl", ROW("'candidates':['i00'],'grades':[1]"));
    write_json(world, "few_users.jsonl", "{'id':'a','history':['i00','i02','gone','i00']}\n");
    for (size_t i = 0; i < COUNT(table); i++) {
        mr_error err = {0};
        mr_train_summary summary = {0};
        char name[32];
        snprintf(name, sizeof name, "refused_%d", (int)i);
        if (table[i].content)
            write_json(world, table[i].file, table[i].content);
        else
            unlink(test_path(world, table[i].file));
        mr_recipe *recipe =
            world_recipe(world, table[i].piece[0], table[i].piece[1], table[i].piece[2]);
        const mr_status status =
            train(recipe, test_path(world, name), (run_options){0}, &summary, &err);
        mr_recipe_free(recipe);
        if (status != table[i].status)
            fail_msg("case %d (%s): %s (%s)", (int)i, table[i].message[0], mr_status_name(status),
                     err.message);
        for (size_t m = 0; m < COUNT(table[i].message) && table[i].message[m]; m++)
            assert_contains(err.message, table[i].message[m]);
        assert_nothing_was_written(test_path(world, name));
    }
}

static void a_folder_that_cannot_be_made_is_named(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_train_summary summary = {0};
    test_file_write(test_path(world, "a_file"), "x", 1);
    mr_recipe *recipe = world_recipe(world, recipe_next_token, "steps: 2\nbatch: 2\n");
    const mr_status status =
        train(recipe, test_path(world, "a_file/out"), (run_options){0}, &summary, &err);
    mr_recipe_free(recipe);
    assert_int_not_equal(status, MR_OK);
    assert_contains(err.message, "a_file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_learned_from_is_refused_by_name),
        cmocka_unit_test(a_folder_that_cannot_be_made_is_named),
    };
    return cmocka_run_group_tests_name("training refused", tests, set_up, tear_down);
}
