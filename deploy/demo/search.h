/* search.h - what E1 and the lists for training share: which items a tag is a query for, and one
 * list of judged candidates.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_DEPLOY_DEMO_SEARCH_H
#define MR_DEPLOY_DEMO_SEARCH_H

#include "core/strbuf.h"
#include "deploy/demo/tasks.h"

#define DEMO_HISTORY_MAX 80
#define DEMO_HISTORY_MIN 2

typedef struct {
    const demo_task_input *in;
    demo_task task;
    demo_sink *sink;    /* of the task */
    size_t matches_min; /* of the task: others that have the tag */
    demo_ids *content;  /* per item: its content tags, sorted */
    demo_ids *with_tag; /* per tag: judged items, sorted */
    uint8_t *usable;    /* per tag: it may be a query */
    demo_ids judged;    /* items with two content tags or more */
    /* Where other candidates are drawn from: an item is drawn the sooner the more often it stands
     * here. NULL: every judged item once. */
    const demo_ids *drawn_from;
    demo_ids *asked; /* per person: item, tag, item, tag, ... of the queries that were made */

    /* scratch; bytes are zero between queries */
    uint8_t *taken, *has_tag; /* per item */
    uint8_t *near;            /* per section */
    demo_ids pool, candidates, history, relevant, rest;
    int *grade;
    mr_strbuf words;
} demo_search;

/* Whether the item is judged and the tag, one of its own, may be a query. */
bool demo_search_may_ask(const demo_search *search, uint32_t item, uint32_t tag);
/* Hands the sink the person's query for the item by the tag; nothing when the history is too short
 * or too few others have the tag. */
mr_status demo_search_ask(demo_search *search, const demo_person *person, uint32_t own,
                          uint32_t tag, demo_scope scope, mr_rng *rng, mr_error *err);
/* E1-more, E1-cold-more; after E1 and E1-cold, whose training queries they do not repeat.
 * asked[0] and asked[1]: theirs. */
mr_status demo_search_lists(demo_search *search, demo_ids *const asked[2], mr_error *err);

#endif
