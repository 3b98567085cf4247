/* test_training_split.c - nothing of what is measured later is learned or tuned on: labels of test
 * items, rows and baskets of test people. Design: split by person and by item.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>

#include "ranker/training/contrast_data.h"
#include "ranker/training/rank_draw.h"
#include "tests/unit/training_fixture.h"

#define DRAWN 2000

static char *world;

static int set_up(void **state)
{
    (void)state;
    world = world_new();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_folder_free(world);
    return 0;
}

static const char new_parts[] = "parts:\n"
                                "  - {name: llm, new: decoder, " WORLD_SHAPE "}\n"
                                "  - {name: encoder, new: decoder, " WORLD_SHAPE "}\n"
                                "  - {name: item_projector, new: linear}\n"
                                "losses: [{kind: listwise}]\n"
                                "steps: 1\nbatch: 4\n";

/* ---- Rows that are refused ------------------------------------------------------------------- */

/* Lists of one file of rows; users: with data.users. */
static mr_status open_rows(const char *rows, const char *task, bool transductive, mr_lists *lists,
                           mr_error *err)
{
    char head[256];
    write_json(world, "rows.jsonl", rows);
    snprintf(head, sizeof head,
             "stage: rank\ntokenizer: '@/tok'\nbundle: '@/bundle.json'\n"
             "data:\n  items: '@/items.jsonl'\n  users: '@/users.jsonl'\n"
             "  transductive: %s\n  lists: [{file: '@/rows.jsonl'%s%s%s}]\n",
             transductive ? "true" : "false", *task ? ", tasks: [" : "", task, *task ? "]" : "");
    mr_recipe *recipe = world_recipe(world, head, new_parts);
    mr_status status = mr_lists_open(lists, recipe, err);
    mr_recipe_free(recipe);
    return status;
}

/* A row of train that may be learned from: every file needs one. Test items are i02, i05, i08, ...;
 * u00 is of fold train, u07 of valid, u09 of test. */
#define GOOD                                                                              \
    "{'id':'good','task':'t','split':'train','query':'q','user':'u00','history':['i03']," \
    "'candidates':['i00','i01'],'grades':[1,0]}\n"

static void rows_that_would_teach_what_is_measured_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *rows, *message;
        bool is_of_people; /* refused when transductive, too */
    } table[] = {
        {"candidate of a training row",
         GOOD "{'id':'r','task':'t','split':'train','query':'q','candidates':['i00','i02'],"
              "'grades':[1,0]}\n",
         "row 'r' of split train has item 'i02' of fold test in its candidates", false},
        {"label of a training row",
         GOOD "{'id':'r','task':'t','split':'train','query':'q','candidates':['i05','i00'],"
              "'grades':[2,1]}\n",
         "row 'r' of split train has item 'i05' of fold test in its candidates", false},
        {"history of a training row",
         GOOD "{'id':'r','task':'t','split':'train','query':'q','history':['i00','i29'],"
              "'candidates':['i01','i00'],'grades':[2,1]}\n",
         "row 'r' of split train has item 'i29' of fold test in its history", false},
        {"candidate of a valid row",
         GOOD "{'id':'r','task':'t','split':'valid','query':'q','candidates':['i00','i02'],"
              "'grades':[1,0]}\n",
         "row 'r' of split valid has item 'i02' of fold test in its candidates", false},
        {"history of a valid row",
         GOOD "{'id':'r','task':'t','split':'valid','query':'q','history':['i08'],"
              "'candidates':['i00','i01'],'grades':[1,0]}\n",
         "row 'r' of split valid has item 'i08' of fold test in its history", false},
        {"valid person in train",
         GOOD "{'id':'r','task':'t','split':'train','query':'q','user':'u07',"
              "'candidates':['i00','i01'],'grades':[1,0]}\n",
         "row 'r' of split train is asked by 'u07', who is of fold valid", true},
        {"test person in train",
         GOOD "{'id':'r','task':'t','split':'train','query':'q','user':'u09',"
              "'candidates':['i00','i01'],'grades':[1,0]}\n",
         "row 'r' of split train is asked by 'u09', who is of fold test", true},
        {"nobody knows the person",
         GOOD "{'id':'r','task':'t','split':'train','query':'q','user':'u99',"
              "'candidates':['i00','i01'],'grades':[1,0]}\n",
         "row 'r' is asked by a person who is not in", true},
        {"test person in valid",
         GOOD "{'id':'r','task':'t','split':'valid','query':'q','user':'u11',"
              "'candidates':['i00','i01'],'grades':[1,0]}\n",
         "row 'r' of split valid is asked by 'u11', who is of fold test", true},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        for (int transductive = 0; transductive <= 1; transductive++) {
            mr_lists lists = {0};
            mr_error err = {0};
            mr_status status = open_rows(table[i].rows, "t", transductive, &lists, &err);
            const bool refused = !transductive || table[i].is_of_people;
            if (status != (refused ? MR_INVALID : MR_OK))
                fail_msg("%s, transductive %d: %s (%s)", table[i].name, transductive,
                         mr_status_name(status), err.message);
            if (refused)
                assert_contains(err.message, table[i].message);
            if (refused && !table[i].is_of_people)
                assert_contains(err.message, "say data.transductive: true");
            mr_lists_close(&lists);
        }
    }
}

static void a_row_of_all_items_names_those_of_the_test_fold(void **state)
{
    (void)state;
    mr_lists lists = {0};
    mr_error err = {0};
    assert_int_equal(mkdir(test_path(world, "qrels"), 0700), -1);
    write_json(world, "qrels/whole.txt", "r 0 i00 1\n");
    assert_status(open_rows("{'id':'r','task':'whole','split':'train','query':'q'}\n", "whole",
                            false, &lists, &err),
                  MR_INVALID, &err);
    assert_contains(err.message, "has item 'i02' of fold test in its candidates");
    mr_lists_close(&lists);
    /* A label of an item that is not a candidate is a label. */
    write_json(world, "qrels/beside.txt", "r 0 i00 1\nr 0 i02 1\n");
    assert_status(open_rows("{'id':'r','task':'beside','split':'train','query':'q',"
                            "'candidates':['i00','i01']}\n",
                            "beside", false, &lists, &err),
                  MR_INVALID, &err);
    mr_lists_close(&lists);
}

static void rows_of_split_test_are_never_read(void **state)
{
    (void)state;
    /* What would be refused in any other split, and what could not be read at all. */
    static const char rows[] =
        GOOD "{'id':'v','task':'t','split':'valid','query':'q','user':'u07',"
             "'candidates':['i00','i01'],'grades':[1,0]}\n"
             "{'id':'x','task':'t','split':'test','query':'q','user':'u00',"
             "'candidates':['i02','i05'],'grades':[1,0]}\n"
             "{'id':'y','task':'t','split':'test','candidates':['no such item']}\n"
             "{'id':'z','task':'only_test','split':'test','candidates':['i02'],'grades':[1]}\n";
    static const char *const tasks[] = {"t", ""}; /* named, and all that there are */
    for (size_t k = 0; k < COUNT(tasks); k++) {
        mr_lists lists = {0};
        mr_error err = {0};
        assert_status(open_rows(rows, tasks[k], false, &lists, &err), MR_OK, &err);
        assert_int_equal(lists.source[0].n_train, 1);
        assert_int_equal(lists.source[0].n_valid, 1);
        assert_true(mr_str_equal(lists.source[0].train[0]->id, mr_str_of("good")));
        assert_true(mr_str_equal(lists.source[0].valid[0]->id, mr_str_of("v")));
        mr_lists_close(&lists);
    }
}

static void an_entry_without_tasks_reads_them_all(void **state)
{
    (void)state;
    mr_recipe *recipe = world_recipe(world,
                                     "stage: rank\ntokenizer: '@/tok'\nbundle: '@/bundle.json'\n"
                                     "data: {items: '@/items.jsonl', users: '@/users.jsonl', "
                                     "lists: [{file: '@/queries.jsonl'}]}\n",
                                     new_parts);
    mr_lists lists = {0};
    mr_error err = {0};
    assert_status(mr_lists_open(&lists, recipe, &err), MR_OK, &err);
    assert_int_equal(lists.source[0].n_train, 7 * (4 + 2));
    assert_int_equal(lists.source[0].n_valid, 2 * (4 + 2));
    mr_lists_close(&lists);
    mr_recipe_free(recipe);
}

/* ---- Baskets --------------------------------------------------------------------------------- */

static void baskets_are_of_training_people_and_cut_to_items_that_may_be_learned(void **state)
{
    (void)state;
    for (int transductive = 0; transductive <= 1; transductive++) {
        mr_lists lists = {0};
        mr_error err = {0};
        assert_status(open_rows(GOOD, "t", transductive, &lists, &err), MR_OK, &err);
        assert_int_equal(lists.n_baskets, 7);
        size_t of_test = 0, seven = 0;
        for (size_t b = 0; b < lists.n_baskets; b++) {
            assert_true(lists.basket[b].n >= 2);
            for (size_t i = 0; i < lists.basket[b].n; i++) {
                of_test += item_is_test((int)lists.basket[b].item[i]);
                /* The n-th basket is that of the n-th person of fold train: what they like. */
                seven += topic_of((int)lists.basket[b].item[i]) == (int)b % N_TOPICS;
                assert_true(i == 0 || lists.basket[b].item[i] > lists.basket[b].item[i - 1]);
            }
        }
        assert_int_equal(of_test > 0, transductive);
        assert_true(seven >= 7 * 4);
        mr_lists_close(&lists);
    }
}

static void an_item_that_is_twice_in_a_history_is_once_in_a_basket(void **state)
{
    (void)state;
    mr_lists lists = {0};
    mr_error err = {0};
    write_json(world, "twice.jsonl",
               "{'id':'a','history':['i00','i01','i00','gone','i02','i01']}\n"
               "{'id':'b','history':['i03','i03']}\n"
               "{'id':'u00','history':[]}\n");
    write_json(world, "rows.jsonl", GOOD);
    mr_recipe *recipe = world_recipe(
        world,
        "stage: rank\ntokenizer: '@/tok'\nbundle: '@/bundle.json'\n"
        "data: {items: '@/items.jsonl', users: '@/twice.jsonl', lists: [{file: '@/rows.jsonl'}]}\n",
        new_parts);
    assert_status(mr_lists_open(&lists, recipe, &err), MR_OK, &err);
    mr_recipe_free(recipe);
    assert_int_equal(lists.n_baskets, 1);
    assert_int_equal(lists.basket[0].n, 2);
    assert_int_equal(lists.basket[0].item[0], 0);
    assert_int_equal(lists.basket[0].item[1], 1);
    mr_lists_close(&lists);
}

/* ---- What is drawn --------------------------------------------------------------------------- */

static void open_trainer(mr_trainer *t, const mr_train_options *opt, mr_recipe *recipe)
{
    mr_error err = {0};
    *t = (mr_trainer){.recipe = recipe, .opt = opt, .ops = mr_ops_select_f32()};
    assert_status(mr_trainer_open_parts(t, &err), MR_OK, &err);
}

static bool row_is_of_train(mr_str id)
{
    /* "search-12" is of person 12 / 4; see write_rows. */
    const char *dash = memchr(id.data, '-', id.len);
    assert_non_null(dash);
    char digits[16] = "";
    const size_t n = (size_t)(id.data + id.len - dash - 1);
    assert_true(n < sizeof digits);
    memcpy(digits, dash + 1, n);
    return strcmp(fold_of((int)strtol(digits, NULL, 10) /
                          (strncmp(id.data, "search", 6) == 0 ? 4 : 2)),
                  "train") == 0;
}

static void no_list_that_is_drawn_names_a_test_item_or_a_test_person(void **state)
{
    (void)state;
    mr_recipe *recipe = world_recipe(world, RECIPE_RANK("bundle") "  users_weight: 1\n", new_parts);
    const mr_train_options opt = {0};
    mr_trainer t;
    mr_lists lists = {0};
    mr_rank_draw draw = {0};
    mr_error err = {0};
    size_t of_rows = 0, of_baskets = 0, items = 0, anonymous = 0;
    open_trainer(&t, &opt, recipe);
    assert_status(mr_lists_open(&lists, recipe, &err), MR_OK, &err);
    assert_status(mr_rank_draw_open(&draw, &t, &lists, 1, &err), MR_OK, &err);
    for (uint64_t i = 0; i < DRAWN; i++) {
        mr_rank_draw_clear(&draw);
        assert_status(mr_rank_draw_add(&draw, i, false, &err), MR_OK, &err);
        const mr_rank_list *list = &draw.list[0];
        const bool basket = mr_str_equal(list->id, mr_str_of("a basket"));
        of_baskets += basket;
        of_rows += !basket;
        anonymous += list->n_history == 0;
        assert_true(basket || row_is_of_train(list->id));
        assert_in_range(list->n, 2, 6);
        assert_true(list->n_history <= 4);
        int relevant = 0;
        for (size_t k = 0; k < list->n; k++) {
            relevant += list->grade[k] > 0;
            if (item_is_test((int)list->item[k]))
                fail_msg("example %d, of '%.*s': candidate i%02d is of fold test", (int)i,
                         MR_STR_ARG(list->id), (int)list->item[k]);
            for (size_t h = 0; h < list->n_history; h++)
                assert_int_not_equal(list->history[h], list->item[k]);
            for (size_t other = 0; other < k; other++)
                assert_int_not_equal(list->item[other], list->item[k]);
        }
        assert_true(relevant > 0);
        for (size_t h = 0; h < list->n_history; h++)
            if (item_is_test((int)list->history[h]))
                fail_msg("example %d, of '%.*s': i%02d of its history is of fold test", (int)i,
                         MR_STR_ARG(list->id), (int)list->history[h]);
        items += list->n;
    }
    /* Weights are 1, 0.5 and 1 of baskets; 15 % lose their user. */
    assert_in_range(of_baskets, DRAWN * 35 / 100, DRAWN * 45 / 100);
    assert_in_range(anonymous, DRAWN * 4 / 100, DRAWN * 20 / 100);
    assert_true(of_rows > 0 && items > 4 * DRAWN);

    const uint64_t valid = mr_rank_draw_examples(&lists, true);
    assert_int_equal(valid, 2 * (4 + 2 + 2));
    for (uint64_t i = 0; i < valid; i++) {
        mr_rank_draw_clear(&draw);
        assert_status(mr_rank_draw_add(&draw, i, true, &err), MR_OK, &err);
        assert_false(row_is_of_train(draw.list[0].id));
        for (size_t k = 0; k < draw.list[0].n; k++)
            assert_false(item_is_test((int)draw.list[0].item[k]));
    }
    mr_rank_draw_close(&draw);
    mr_lists_close(&lists);
    mr_trainer_close_parts(&t);
    mr_recipe_free(recipe);
}

/* Which of the catalogue's items a text of the table is, by its tokens; -1: none. */
static int item_of_text(const mr_text_table *texts, size_t text, const mr_text_table *items)
{
    size_t n, m;
    const int32_t *ids = mr_text_table_at(texts, text, &n);
    for (size_t i = 0; i < items->n; i++) {
        const int32_t *other = mr_text_table_at(items, i, &m);
        if (n == m && memcmp(ids, other, n * sizeof *ids) == 0)
            return (int)i;
    }
    return -1;
}

static void no_pair_that_is_drawn_names_a_test_item(void **state)
{
    (void)state;
    mr_recipe *recipe = world_recipe(world, recipe_contrastive, "steps: 1\nbatch: 16\n");
    const mr_train_options opt = {0};
    mr_trainer t;
    mr_contrast_data *data = NULL;
    mr_text_table items = {0};
    mr_prompt prompt = {0};
    mr_lists lists = {0};
    mr_error err = {0};
    open_trainer(&t, &opt, recipe);
    assert_status(mr_lists_open(&lists, recipe, &err), MR_OK, &err);
    for (uint32_t i = 0; i < N_ITEMS; i++)
        assert_status(mr_text_table_add(&items, t.spec.item_text, mr_lists_item(&lists, i)->fields,
                                        1, recipe->max_tokens, t.encoder.decoder.config.eos_id,
                                        &prompt, &err),
                      MR_OK, &err);
    assert_status(mr_contrast_data_open(&data, &t, &err), MR_OK, &err);
    const mr_text_table *texts = mr_contrast_data_texts(data);
    static const mr_contrast_source sources[] = {MR_FROM_LISTS, MR_FROM_BASKETS};
    for (size_t s = 0; s < COUNT(sources); s++) {
        assert_true(mr_contrast_data_count(data, sources[s], false) > 0);
        assert_int_equal(mr_contrast_data_count(data, sources[s], true), 0);
        for (uint64_t i = 0; i < DRAWN; i++) {
            const mr_contrast_example e = mr_contrast_data_example(data, sources[s], false, i);
            const int a = item_of_text(texts, e.a, &items), b = item_of_text(texts, e.b, &items);
            assert_in_range(b, 0, N_ITEMS - 1);
            assert_int_equal(a >= 0, sources[s] == MR_FROM_BASKETS); /* else a query */
            assert_int_not_equal(a, b);
            if (item_is_test(b) || (a >= 0 && item_is_test(a)))
                fail_msg("example %d of source %d names items %d and %d", (int)i, (int)sources[s],
                         a, b);
        }
    }
    mr_contrast_data_close(data);
    mr_lists_close(&lists);
    mr_text_table_release(&items);
    mr_prompt_release(&prompt);
    mr_trainer_close_parts(&t);
    mr_recipe_free(recipe);
}

/* ---- The demo's recipes ---------------------------------------------------------------------- */

/* A path of a recipe in the catalogue that is there, for free(). */
static char *moved(char *path, const char *catalogue)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const size_t n = strlen(catalogue) + strlen(name) + 2;
    char *out = malloc(n);
    assert_non_null(out);
    snprintf(out, n, "%s/%s", catalogue, name);
    free(path);
    return out;
}

static void lists_of_the_demo_recipes_open(void **state)
{
    (void)state;
    static const char folder[] = "../deploy/demo/recipes";
    const char *catalogue = getenv("MIXRANK_DEMO_CATALOGUE");
    DIR *dir = opendir(folder);
    if (!catalogue || !mr_file_exists(test_path(catalogue, "queries.jsonl")) || !dir) {
        print_message("skipped: %s\n", !dir         ? "there are no recipes in deploy/demo"
                                       : !catalogue ? "MIXRANK_DEMO_CATALOGUE is not set"
                                                    : "the demo's catalogue is not built");
        if (dir)
            closedir(dir);
        skip();
    }
    int opened = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        const char *dot = strrchr(entry->d_name, '.');
        mr_recipe *recipe = NULL;
        mr_lists lists = {0};
        mr_error err = {0};
        if (!dot || strcmp(dot, ".yaml") != 0)
            continue;
        assert_status(mr_recipe_load(&recipe, test_path(folder, entry->d_name), &err), MR_OK, &err);
        if (recipe->data.n_lists > 0) {
            /* What learns from labels of test items says so in its name. */
            if (recipe->data.transductive != (strncmp(entry->d_name, "transductive", 12) == 0))
                fail_msg("%s: data.transductive is %d", entry->d_name, recipe->data.transductive);
            assert_non_null(recipe->data.users); /* or folds of people are not looked at */
            recipe->data.users = moved(recipe->data.users, catalogue);
            if (recipe->data.items)
                recipe->data.items = moved(recipe->data.items, catalogue);
            for (size_t i = 0; i < recipe->data.n_lists; i++)
                recipe->data.lists[i].file = moved(recipe->data.lists[i].file, catalogue);
            if (mr_lists_open(&lists, recipe, &err) != MR_OK)
                fail_msg("%s: %s", entry->d_name, err.message);
            mr_lists_close(&lists);
            opened++;
        }
        mr_recipe_free(recipe);
    }
    closedir(dir);
    print_message("lists of %d recipes opened\n", opened);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_that_would_teach_what_is_measured_are_refused),
        cmocka_unit_test(a_row_of_all_items_names_those_of_the_test_fold),
        cmocka_unit_test(rows_of_split_test_are_never_read),
        cmocka_unit_test(an_entry_without_tasks_reads_them_all),
        cmocka_unit_test(baskets_are_of_training_people_and_cut_to_items_that_may_be_learned),
        cmocka_unit_test(an_item_that_is_twice_in_a_history_is_once_in_a_basket),
        cmocka_unit_test(no_list_that_is_drawn_names_a_test_item_or_a_test_person),
        cmocka_unit_test(no_pair_that_is_drawn_names_a_test_item),
        cmocka_unit_test(lists_of_the_demo_recipes_open),
    };
    return cmocka_run_group_tests_name("training_split", tests, set_up, tear_down);
}
