/* task_baskets.c - D1: a basket without some of its items -> one of them, among items that others
 * hold.
 *
 * All the items that are taken out of a basket are taken out at once, so that no query's history
 * holds another query's answer. Half of the negatives are of the answer's section.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "deploy/demo/tasks.h"

#define HELD_SHARE  4  /* one in four... */
#define HELD_MAX    10 /* ...but not more than this */
#define HISTORY_MAX 60
#define HISTORY_MIN 2

typedef struct {
    const demo_task_input *in;
    demo_task task;
    demo_ids pool;        /* items in anybody's basket */
    demo_ids *in_section; /* of the pool */
    uint8_t *taken;       /* per item, zero between queries */
    demo_ids order, held, history, candidates, scratch;
} baskets;

static mr_status index_pool(baskets *b, mr_error *err)
{
    const demo_people *people = b->in->people;
    mr_status status = MR_OK;
    for (size_t p = 0; p < people->n; p++)
        for (size_t i = 0; i < people->person[p].basket.n && status == MR_OK; i++)
            status = demo_ids_push(&b->pool, people->person[p].basket.id[i], err);
    demo_ids_sort(&b->pool);
    for (size_t i = 0; i < b->pool.n && status == MR_OK; i++)
        status = demo_ids_push(&b->in_section[b->in->items->item[b->pool.id[i]].section],
                               b->pool.id[i], err);
    return status;
}

/* held: items to ask for, in scope. history: the rest, where a cold training query sees train items
 * only. */
static mr_status split_basket(baskets *b, const demo_person *person, demo_scope scope, mr_rng *rng,
                              mr_error *err)
{
    b->order.n = b->held.n = b->history.n = 0;
    mr_status status = MR_OK;
    for (size_t i = 0; i < person->basket.n && status == MR_OK; i++)
        status = demo_ids_push(&b->order, person->basket.id[i], err);
    demo_ids_shuffle(&b->order, rng);

    size_t wanted = person->basket.n / HELD_SHARE;
    wanted = wanted < 1 ? 1 : wanted > HELD_MAX ? HELD_MAX : wanted;
    for (size_t i = 0; i < b->order.n && status == MR_OK; i++) {
        uint32_t item = b->order.id[i];
        bool in_scope = demo_in_scope(b->in->items, item, scope);
        if (in_scope && b->held.n < wanted)
            status = demo_ids_push(&b->held, item, err);
        else if ((in_scope || scope != DEMO_TRAIN_ITEMS) && b->history.n < HISTORY_MAX)
            status = demo_ids_push(&b->history, item, err);
    }
    demo_ids_sort(&b->history);
    return status;
}

static mr_status take_negatives(baskets *b, const demo_ids *from, demo_scope scope, size_t n,
                                mr_rng *rng, mr_error *err)
{
    b->scratch.n = 0;
    for (size_t i = 0; i < from->n; i++) {
        if (b->taken[from->id[i]] || !demo_in_scope(b->in->items, from->id[i], scope))
            continue;
        mr_status status = demo_ids_push(&b->scratch, from->id[i], err);
        if (status != MR_OK)
            return status;
    }
    demo_ids_shuffle(&b->scratch, rng);
    return demo_take(&b->candidates, &b->scratch, n, b->taken, err);
}

static mr_status make_query(baskets *b, const demo_person *person, uint32_t own, demo_scope scope,
                            mr_rng *rng, mr_error *err)
{
    const demo_item *item = &b->in->items->item[own];
    size_t negatives = b->in->rules.candidates - 1;
    b->candidates.n = 0;
    for (size_t i = 0; i < person->basket.n; i++)
        b->taken[person->basket.id[i]] = 1;
    mr_status status = demo_ids_push(&b->candidates, own, err);
    if (status == MR_OK)
        status =
            take_negatives(b, &b->in_section[item->section], scope, (negatives + 1) / 2, rng, err);
    if (status == MR_OK)
        status = take_negatives(b, &b->pool, scope, negatives + 1 - b->candidates.n, rng, err);
    for (size_t i = 0; i < b->candidates.n; i++)
        b->taken[b->candidates.id[i]] = 0;
    for (size_t i = 0; i < person->basket.n; i++)
        b->taken[person->basket.id[i]] = 0;
    if (status != MR_OK || b->candidates.n < 2)
        return status;

    static const int grade[] = {1};
    demo_ids relevant = {.id = &own, .n = 1};
    demo_ids_shuffle(&b->candidates, rng);
    demo_query query = {
        .task = b->task,
        .split = person->fold,
        .text = {"", 0},
        .person = person,
        .history = &b->history,
        .candidates = &b->candidates,
        .relevant = &relevant,
        .grade = grade,
        .same_family = demo_same_family(b->in->items, &b->history, own),
    };
    return b->in->sink->put(b->in->sink, &query, err);
}

static mr_status ask_person(baskets *b, const demo_person *person, demo_scope scope, mr_error *err)
{
    mr_rng rng = demo_seed(b->task, person->key);
    mr_status status = split_basket(b, person, scope, &rng, err);
    if (status != MR_OK || b->history.n < HISTORY_MIN)
        return status;
    for (size_t i = 0; i < b->held.n && status == MR_OK; i++)
        status = make_query(b, person, b->held.id[i], scope, &rng, err);
    return status;
}

mr_status demo_tasks_baskets(const demo_task_input *input, mr_error *err)
{
    size_t n_items = input->items->n, n_sections = input->items->sections.n;
    baskets b = {.in = input};
    mr_status status = MR_OK;
    b.in_section = calloc(n_sections + 1, sizeof *b.in_section);
    b.taken = calloc(n_items + 1, sizeof *b.taken);
    if (!b.in_section || !b.taken) {
        status = MR_FAIL(err, NO_MEMORY, "tables of %zu items", n_items);
        goto out;
    }
    status = index_pool(&b, err);
    for (int cold = 0; cold < 2 && status == MR_OK; cold++) {
        b.task = cold ? DEMO_D1_COLD : DEMO_D1;
        for (size_t p = 0; p < input->people->n && status == MR_OK; p++) {
            const demo_person *person = &input->people->person[p];
            if (person->basket.n >= input->rules.basket)
                status = ask_person(&b, person,
                                    cold ? demo_cold_scope(person->fold) : DEMO_ANY_ITEM, err);
        }
    }

out:
    for (size_t i = 0; b.in_section && i < n_sections; i++)
        demo_ids_done(&b.in_section[i]);
    free(b.in_section);
    free(b.taken);
    demo_ids_done(&b.pool);
    demo_ids_done(&b.order);
    demo_ids_done(&b.held);
    demo_ids_done(&b.history);
    demo_ids_done(&b.candidates);
    demo_ids_done(&b.scratch);
    return status;
}
