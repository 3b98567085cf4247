/* rank_draw.c - see rank_draw.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/rank_draw.h"

#include <stdlib.h>
#include <string.h>

#include "core/rng.h"

#define KEPT_GRADE 2

mr_status mr_rank_draw_open(mr_rank_draw *out, const mr_trainer *trainer, const mr_lists *lists,
                            size_t max_lists, mr_error *err)
{
    const size_t candidates = (size_t)trainer->recipe->candidates;
    mr_rank_draw draw = {.trainer = trainer, .lists = lists, .max_lists = max_lists};
    draw.list = mr_arena_array(&draw.arena, mr_rank_list, max_lists);
    draw.order = mr_arena_array(&draw.arena, uint32_t, mr_lists_n_items(lists));
    bool failed = !draw.list || !draw.order;
    failed |= !mr_history_draw_open(&draw.histories, trainer, lists, &draw.arena);
    for (size_t i = 0; !failed && i < max_lists; i++) {
        draw.list[i].item = mr_arena_array(&draw.arena, uint32_t, candidates);
        draw.list[i].grade = mr_arena_array(&draw.arena, int, candidates);
        draw.list[i].history = mr_arena_array(&draw.arena, uint32_t, draw.histories.most);
        failed = !draw.list[i].item || !draw.list[i].grade || !draw.list[i].history;
    }
    *out = draw;
    if (!failed)
        return MR_OK;
    mr_rank_draw_close(out);
    return MR_FAIL(err, NO_MEMORY, "%zu lists of %zu candidates", max_lists, candidates);
}

void mr_rank_draw_close(mr_rank_draw *draw)
{
    mr_arena_done(&draw->arena);
    *draw = (mr_rank_draw){0};
}

void mr_rank_draw_clear(mr_rank_draw *draw)
{
    draw->n_lists = 0;
}

uint64_t mr_rank_draw_examples(const mr_lists *lists, bool valid)
{
    uint64_t n = 0;
    for (size_t s = 0; s < lists->n_sources; s++)
        n += valid ? lists->source[s].n_valid : lists->source[s].n_train;
    return n;
}

static double basket_weight(const mr_rank_draw *draw)
{
    return mr_lists_n_picks(draw->lists) > 0 ? draw->trainer->recipe->data.users_weight : 0;
}

/* Example i of split train, or NULL when a basket is its turn: a source by weight, then its rows in
 * the order of an epoch. Which source is drawn is random, which row is not: i counts all examples,
 * so a source's own count is what its share of i says. */
static const mr_task_row *train_row(const mr_rank_draw *draw, uint64_t i, mr_rng *rng)
{
    const mr_lists *lists = draw->lists;
    const double baskets = basket_weight(draw);
    double total = baskets;
    for (size_t s = 0; s < lists->n_sources; s++)
        total += lists->source[s].weight;
    double wanted = mr_rng_uniform(rng) * total - baskets;
    if (wanted < 0)
        return NULL;
    size_t s = 0;
    while (s + 1 < lists->n_sources && wanted >= lists->source[s].weight)
        wanted -= lists->source[s++].weight;
    const mr_lists_source *source = &lists->source[s];
    const uint64_t number = (uint64_t)((double)i * source->weight / total), n = source->n_train;
    const uint64_t at = mr_shuffle_at(draw->trainer->recipe->seed + s, number / n, n, number % n);
    return source->train[at];
}

static const mr_task_row *valid_row(const mr_rank_draw *draw, uint64_t i)
{
    const mr_lists *lists = draw->lists;
    size_t s = 0;
    while (i >= lists->source[s].n_valid)
        i -= lists->source[s++].n_valid;
    return lists->source[s].valid[i];
}

static void draw_candidates(mr_rank_draw *draw, const mr_task_row *row, mr_rank_list *list,
                            mr_rng *rng)
{
    const size_t most = (size_t)draw->trainer->recipe->candidates;
    int kept = 1;
    for (size_t i = 0; i < row->n_candidates; i++) {
        draw->order[i] = mr_task_candidate(row, i);
        if (mr_task_grade(row, draw->order[i]) >= KEPT_GRADE)
            kept = KEPT_GRADE;
    }
    mr_shuffle_items(draw->order, row->n_candidates, rng);
    list->n = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < row->n_candidates && list->n < most; i++) {
            const int grade = mr_task_grade(row, draw->order[i]);
            if ((grade >= kept) != (pass == 0))
                continue;
            list->item[list->n] = draw->order[i];
            list->grade[list->n++] = grade > 0 ? grade : 0;
        }
    }
}

static bool holds(const uint32_t *items, size_t n, uint32_t item)
{
    for (size_t i = 0; i < n; i++)
        if (items[i] == item)
            return true;
    return false;
}

/* One item out of a basket, its fellows as the history, picks of others beside it. */
static void draw_basket(mr_rank_draw *draw, mr_rank_list *list, mr_rng *rng)
{
    const size_t most = (size_t)draw->trainer->recipe->candidates;
    const size_t picks = mr_lists_n_picks(draw->lists);
    const mr_lists_basket *basket, *other;
    const uint32_t target = mr_lists_pick(draw->lists, mr_rng_below(rng, picks), &basket);
    list->id = mr_str_of("a basket");
    list->query = (mr_str){0};
    list->item[0] = target;
    list->grade[0] = 1;
    list->n = 1;
    for (size_t tries = 0; list->n < most && tries < 8 * most; tries++) {
        const uint32_t item = mr_lists_pick(draw->lists, mr_rng_below(rng, picks), &other);
        if (mr_lists_holds(basket, item) || holds(list->item, list->n, item))
            continue;
        list->item[list->n] = item;
        list->grade[list->n++] = 0;
    }
    const bool sequence = draw->histories.order == MR_HISTORY_SEQUENCE;
    const size_t n = mr_lists_fellows(basket, target, sequence, draw->histories.room, draw->order);
    list->n_history =
        mr_history_draw_choose(&draw->histories, draw->order, n, false, rng, list->history);
    list->has_query = false;
}

mr_status mr_rank_draw_add(mr_rank_draw *draw, uint64_t i, bool valid, mr_error *err)
{
    const mr_recipe *recipe = draw->trainer->recipe;
    if (draw->n_lists == draw->max_lists)
        return MR_FAIL(err, EXHAUSTED, "more than %zu lists", draw->max_lists);
    mr_rng rng = mr_rng_seed(recipe->seed ^ (2 * i + valid) * UINT64_C(0x9E3779B97F4A7C15));
    const mr_task_row *row = valid ? valid_row(draw, i) : train_row(draw, i, &rng);
    mr_rank_list *list = &draw->list[draw->n_lists++];
    if (!row) {
        draw_basket(draw, list, &rng);
        return MR_OK;
    }
    list->id = row->id;
    list->query = row->query;
    draw_candidates(draw, row, list, &rng);
    list->n_history = mr_history_draw_choose(&draw->histories, row->history, row->n_history, valid,
                                             &rng, list->history);
    list->has_query = row->query.len > 0;
    const bool drop_user = !valid && mr_rng_uniform(&rng) < recipe->user_dropout;
    const bool drop_query = !valid && mr_rng_uniform(&rng) < recipe->query_dropout;
    if (drop_user && list->has_query)
        list->n_history = 0;
    else if (drop_query && list->n_history > 0)
        list->has_query = false;
    return MR_OK;
}
