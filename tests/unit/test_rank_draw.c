/* test_rank_draw.c - which candidates are drawn: the best of a row always, the others in turn.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ranker/training/rank_draw.h"
#include "tests/unit/training_fixture.h"

#define DRAWN 300

static char *world;

static int set_up(void **state)
{
    (void)state;
    world = test_folder_new();
    write_items(world);
    write_users(world);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_folder_free(world);
    return 0;
}

typedef struct {
    mr_recipe *recipe;
    mr_lists lists;
    mr_trainer trainer;
    mr_rank_draw draw;
} drawing;

static void open_drawing(drawing *d, const char *rows, const char *more)
{
    mr_error err = {0};
    write_json(world, "rows.jsonl", rows);
    *d = (drawing){0};
    d->recipe = world_recipe(world,
                             "stage: rank\nbundle: '@/bundle.json'\nlosses: [{kind: listwise}]\n"
                             "parts: [{name: llm, from: '@/llm'}]\nsteps: 1\nbatch: 1\n"
                             "data:\n  items: '@/items.jsonl'\n  users: '@/users.jsonl'\n"
                             "  lists: [{file: '@/rows.jsonl', tasks: [t]}]\n",
                             more);
    d->trainer = (mr_trainer){.recipe = d->recipe, .spec = {.user_tokens = 4}};
    assert_status(mr_lists_open(&d->lists, d->recipe, &err), MR_OK, &err);
    assert_status(mr_rank_draw_open(&d->draw, &d->trainer, &d->lists, 1, &err), MR_OK, &err);
}

static void close_drawing(drawing *d)
{
    mr_rank_draw_close(&d->draw);
    mr_lists_close(&d->lists);
    mr_recipe_free(d->recipe);
}

static const mr_rank_list *drawn(drawing *d, uint64_t i)
{
    mr_error err = {0};
    mr_rank_draw_clear(&d->draw);
    assert_status(mr_rank_draw_add(&d->draw, i, false, &err), MR_OK, &err);
    return &d->draw.list[0];
}

#define ROW(grades)                                                                           \
    "{'id':'r','task':'t','split':'train','query':'q','candidates':['i00','i01','i03','i04'," \
    "'i06','i07','i09','i10','i12','i13','i15','i16'],'grades':" grades "}\n"

static void the_best_of_a_row_are_always_drawn_and_the_others_in_turn(void **state)
{
    (void)state;
    static const struct {
        const char *rows;
        int best, n_best; /* grade of those that are kept, and how many of them there is room for */
        int n_lower;      /* candidates that are not */
    } table[] = {
        {ROW("[0,0,0,0,0,0,0,1,0,0,0,0]"), 1, 1, 11}, {ROW("[0,1,0,0,0,0,0,1,0,0,0,0]"), 1, 2, 10},
        {ROW("[1,1,1,1,0,2,0,0,0,0,0,0]"), 2, 1, 11}, {ROW("[1,1,3,1,0,2,0,0,0,-1,0,0]"), 2, 2, 10},
        {ROW("[2,2,3,2,2,2,0,0,0,0,0,0]"), 2, 4, 0},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        drawing d;
        int seen[N_ITEMS] = {0};
        open_drawing(&d, table[i].rows, "candidates: 4\n");
        for (uint64_t e = 0; e < DRAWN; e++) {
            const mr_rank_list *list = drawn(&d, e);
            int best = 0;
            assert_int_equal(list->n, 4);
            for (size_t k = 0; k < list->n; k++) {
                best += list->grade[k] >= table[i].best;
                seen[list->item[k]]++;
                assert_true(list->grade[k] >= 0);
            }
            if (best != table[i].n_best)
                fail_msg("case %d, example %d: %d of the best, expected %d", (int)i, (int)e, best,
                         table[i].n_best);
        }
        /* Each of the lower ones about as often as its fellows. */
        const int room = 4 - table[i].n_best;
        for (size_t k = 0; k < d.lists.source[0].train[0]->n_candidates; k++) {
            const uint32_t item = d.lists.source[0].train[0]->candidates[k];
            const int share = table[i].n_lower ? DRAWN * room / table[i].n_lower : 0;
            if (mr_task_grade(d.lists.source[0].train[0], item) < table[i].best && room > 0)
                assert_in_range(seen[item], share / 2, 2 * share);
        }
        close_drawing(&d);
    }
}

static void users_and_queries_are_dropped_as_often_as_asked_for(void **state)
{
    (void)state;
    static const char row[] =
        "{'id':'r','task':'t','split':'train','query':'q','user':'u00','history':['i00','i01',"
        "'i03','i04','i06','i07'],'candidates':['i09','i10'],'grades':[1,0]}\n";
    static const struct {
        const char *more;
        int anonymous, without_query; /* in a hundred */
    } table[] = {{"user_dropout: 0\n", 0, 0},
                 {"user_dropout: 1\n", 100, 0},
                 {"user_dropout: 0\nquery_dropout: 1\n", 0, 100},
                 {"user_dropout: 0.5\nquery_dropout: 0.5\n", 50, 25}};
    for (size_t i = 0; i < COUNT(table); i++) {
        drawing d;
        int anonymous = 0, without_query = 0;
        open_drawing(&d, row, table[i].more);
        for (uint64_t e = 0; e < DRAWN; e++) {
            const mr_rank_list *list = drawn(&d, e);
            anonymous += list->n_history == 0;
            without_query += !list->has_query;
            /* Something is left to go by, and a history is what the prompt has room for. */
            assert_true(list->has_query || list->n_history > 0);
            assert_true(list->n_history == 0 || list->n_history == 4);
        }
        assert_true(abs(anonymous * 100 / DRAWN - table[i].anonymous) <= 8);
        assert_true(abs(without_query * 100 / DRAWN - table[i].without_query) <= 8);
        close_drawing(&d);
    }
}

static void rows_of_an_epoch_come_once_each(void **state)
{
    (void)state;
    drawing d;
    mr_strbuf rows = {0};
    for (int i = 0; i < 20; i++)
        mr_strbuf_printf(&rows,
                         "{'id':'%d','task':'t','split':'train','query':'q','candidates':['i00',"
                         "'i01'],'grades':[1,0]}\n",
                         i);
    open_drawing(&d, rows.data, "");
    mr_strbuf_release(&rows);
    char order[2][256] = {"", ""};
    for (int epoch = 0; epoch < 2; epoch++) {
        bool seen[20] = {false};
        for (int i = 0; i < 20; i++) {
            const mr_rank_list *list = drawn(&d, (uint64_t)(epoch * 20 + i));
            char id[8];
            snprintf(id, sizeof id, "%.*s", MR_STR_ARG(list->id));
            const long row = strtol(id, NULL, 10);
            assert_in_range(row, 0, 19);
            assert_false(seen[row]);
            seen[row] = true;
            snprintf(order[epoch] + strlen(order[epoch]), 8, "%ld ", row);
        }
    }
    assert_string_not_equal(order[0], order[1]);
    close_drawing(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_of_a_row_are_always_drawn_and_the_others_in_turn),
        cmocka_unit_test(users_and_queries_are_dropped_as_often_as_asked_for),
        cmocka_unit_test(rows_of_an_epoch_come_once_each),
    };
    return cmocka_run_group_tests_name("rank draw", tests, set_up, tear_down);
}
