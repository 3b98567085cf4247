/* task_lists.c - E1-more and E1-cold-more: more of E1's queries, for training alone.
 *
 * E1 asks six queries of a person; here every item of a training person is asked for by each of its
 * tags. What differs from E1: all other candidates, with the tag and without, are items that other
 * *training* people hold, drawn one pick at a time. So an item that many hold is as often a wrong
 * candidate as a right one, and having an owner says nothing. Baskets of other folds are not looked
 * at: what only a test person holds never enters, neither as a pick nor as a negative.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "deploy/demo/search.h"

typedef struct {
    demo_search *search;
    demo_scope scope;
    demo_ids picks;       /* judged items of training people, each as often as it is held */
    uint32_t *n_with_tag; /* per tag: different items among the picks */
    uint32_t *n_own;      /* per tag: of one person; zero between people */
    demo_ids item, tag;   /* the queries that one person could be asked, in parallel */
    demo_ids order;
} lists;

static mr_status collect_picks(lists *l, mr_error *err)
{
    const demo_search *s = l->search;
    demo_ids different = {0};
    mr_status status = MR_OK;
    for (size_t p = 0; p < s->in->people->n; p++) {
        const demo_person *person = &s->in->people->person[p];
        for (size_t i = 0; i < person->basket.n && status == MR_OK; i++) {
            uint32_t item = person->basket.id[i];
            if (person->fold == DEMO_TRAIN && s->content[item].n >= 2 &&
                demo_in_scope(s->in->items, item, l->scope))
                status = demo_ids_push(&l->picks, item, err);
        }
    }
    for (size_t i = 0; i < l->picks.n && status == MR_OK; i++)
        status = demo_ids_push(&different, l->picks.id[i], err);
    demo_ids_sort(&different);
    for (size_t i = 0; i < different.n; i++)
        for (size_t k = 0; k < s->content[different.id[i]].n; k++)
            l->n_with_tag[s->content[different.id[i]].id[k]]++;
    demo_ids_done(&different);
    return status;
}

/* Some tags of different facets have the same words: to a reader they are one query. */
static bool is_repeated(const lists *l, const demo_ids *asked, uint32_t item, uint32_t tag)
{
    const mr_str *words = l->search->in->items->tag_words;
    for (size_t i = 0; i + 1 < asked->n; i += 2)
        if (asked->id[i] == item && mr_str_equal(words[asked->id[i + 1]], words[tag]))
            return true;
    for (size_t i = l->item.n; i > 0 && l->item.id[i - 1] == item; i--)
        if (mr_str_equal(words[l->tag.id[i - 1]], words[tag]))
            return true;
    return false;
}

/* Adds up to the person's items in scope, by the tag; or, with -1, takes them off again. */
static size_t count_own(lists *l, const demo_person *person, int by)
{
    const demo_search *s = l->search;
    size_t n = 0;
    for (size_t i = 0; i < person->basket.n; i++) {
        uint32_t item = person->basket.id[i];
        if (!demo_in_scope(s->in->items, item, l->scope))
            continue;
        n++;
        for (size_t k = 0; s->content[item].n >= 2 && k < s->content[item].n; k++)
            l->n_own[s->content[item].id[k]] += (uint32_t)by;
    }
    return n;
}

/* What the person could be asked that E1 has not asked, and that enough others answer. */
static mr_status list_queries(lists *l, const demo_person *person, mr_error *err)
{
    const demo_search *s = l->search;
    const demo_ids *asked = &s->asked[person - s->in->people->person];
    mr_status status = MR_OK;
    l->item.n = l->tag.n = 0;
    size_t n_in_scope = count_own(l, person, 1);
    for (size_t i = 0; i < person->basket.n && n_in_scope > DEMO_HISTORY_MIN; i++) {
        uint32_t item = person->basket.id[i];
        if (!demo_in_scope(s->in->items, item, l->scope))
            continue;
        for (size_t k = 0; k < s->content[item].n && status == MR_OK; k++) {
            uint32_t tag = s->content[item].id[k];
            if (!demo_search_may_ask(s, item, tag) || is_repeated(l, asked, item, tag) ||
                l->n_with_tag[tag] - l->n_own[tag] < s->in->rules.cold_matches_min)
                continue;
            status = demo_ids_push(&l->item, item, err);
            if (status == MR_OK)
                status = demo_ids_push(&l->tag, tag, err);
        }
    }
    count_own(l, person, -1);
    return status;
}

/* Asks a part of the listed queries: each item once before any is asked for a second time. */
static mr_status ask(lists *l, const demo_person *person, mr_error *err)
{
    demo_search *s = l->search;
    size_t cap = s->in->rules.lists_per_person;
    mr_rng rng = demo_seed(s->task, person->key);
    mr_status status = MR_OK;
    l->order.n = 0;
    for (size_t i = 0; i < l->item.n && status == MR_OK; i++)
        status = demo_ids_push(&l->order, (uint32_t)i, err);
    demo_ids_shuffle(&l->order, &rng);

    uint32_t *times = calloc(s->in->items->n + 1, sizeof *times);
    if (!times)
        return MR_FAIL(err, NO_MEMORY, "a table of %zu items", s->in->items->n);
    size_t n = 0;
    for (uint32_t round = 0; n < cap && n < l->order.n && status == MR_OK; round++) {
        for (size_t i = 0; i < l->order.n && n < cap && status == MR_OK; i++) {
            if (l->order.id[i] == DEMO_NONE)
                continue;
            uint32_t item = l->item.id[l->order.id[i]], tag = l->tag.id[l->order.id[i]];
            if (times[item] > round)
                continue;
            times[item]++;
            l->order.id[i] = DEMO_NONE;
            n++;
            status = demo_search_ask(s, person, item, tag, l->scope, &rng, err);
        }
    }
    free(times);
    return status;
}

static mr_status make_lists(lists *l, mr_error *err)
{
    const demo_people *people = l->search->in->people;
    mr_status status = collect_picks(l, err);
    l->search->drawn_from = &l->picks;
    for (size_t p = 0; p < people->n && status == MR_OK; p++) {
        if (people->person[p].fold != DEMO_TRAIN)
            continue;
        status = list_queries(l, &people->person[p], err);
        if (status == MR_OK)
            status = ask(l, &people->person[p], err);
    }
    l->search->drawn_from = NULL;
    return status;
}

mr_status demo_search_lists(demo_search *search, demo_ids *const asked[2], mr_error *err)
{
    size_t n_tags = search->in->items->tags.n;
    mr_status status = MR_OK;
    search->sink = search->in->lists;
    for (int cold = 0; cold < 2 && status == MR_OK; cold++) {
        search->task = cold ? DEMO_E1_COLD_MORE : DEMO_E1_MORE;
        search->asked = asked[cold];
        search->matches_min = search->in->rules.cold_matches_min;
        lists l = {.search = search, .scope = cold ? DEMO_TRAIN_ITEMS : DEMO_ANY_ITEM};
        l.n_with_tag = calloc(n_tags + 1, sizeof *l.n_with_tag);
        l.n_own = calloc(n_tags + 1, sizeof *l.n_own);
        if (!l.n_with_tag || !l.n_own)
            status = MR_FAIL(err, NO_MEMORY, "tables of %zu tags", n_tags);
        else
            status = make_lists(&l, err);
        free(l.n_with_tag);
        free(l.n_own);
        demo_ids_done(&l.picks);
        demo_ids_done(&l.item);
        demo_ids_done(&l.tag);
        demo_ids_done(&l.order);
    }
    return status;
}
