/* lists.h - the ranked lists of a recipe, and the rule of what may be trained on.
 *
 * Rows come from folders like the demo catalogue's (ranker/model/tasks.h), splits train and valid
 * only. Items and people have folds. A row of split train that a person of fold other than "train"
 * asks, a row of split valid that one of fold "test" asks, and a row of either that names an item
 * of fold "test" in its candidates, labels or history, is refused: what is measured later must be
 * neither learned nor tuned on. data.transductive allows items, never people.
 * Private to ranker/training. Threads: read-only after open.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_LISTS_H
#define MR_RANKER_TRAINING_LISTS_H

#include "ranker/model/tasks.h"
#include "ranker/training/recipe.h"

/* The rows of one entry of data.lists. */
typedef struct {
    double weight;
    const mr_task_row **train, **valid; /* owned arrays, borrowed rows */
    size_t n_train, n_valid;
} mr_lists_source;

typedef struct {
    uint32_t *item; /* owned; ascending */
    size_t n;
    uint32_t *given; /* [n_given], owned: as the file has them, newest last */
    size_t n_given;
} mr_lists_basket;

typedef struct {
    mr_tasks **tasks; /* one per source, of equal items */
    mr_lists_source *source;
    size_t n_sources;
    /* Of data.users: baskets of people of fold train, and of fold valid, cut to items that may be
     * trained on; of two items at least. */
    mr_lists_basket *basket, *valid;
    size_t n_baskets, n_valid;
    size_t *begin; /* [n_baskets + 1]: picks of the baskets before it; the last: of all */
} mr_lists;

/* A recipe without data.lists: items and people alone, and no source. */
MR_NODISCARD mr_status mr_lists_open(mr_lists *out, const mr_recipe *recipe, mr_error *err);
void mr_lists_close(mr_lists *lists); /* idempotent */

static inline const mr_item *mr_lists_item(const mr_lists *lists, uint32_t item)
{
    return mr_tasks_item(lists->tasks[0], item);
}
size_t mr_lists_n_items(const mr_lists *lists);

/* Items of all baskets of fold train, one after the other, and the basket of one of them. */
size_t mr_lists_n_picks(const mr_lists *lists);
uint32_t mr_lists_pick(const mr_lists *lists, size_t pick, const mr_lists_basket **basket);
bool mr_lists_holds(const mr_lists_basket *basket, uint32_t item);
/* What a person is known by when `target` is taken out: the others, in the order that histories
 * have. Writes up to `room` to out; returns how many. */
size_t mr_lists_fellows(const mr_lists_basket *basket, uint32_t target, bool sequence, size_t room,
                        uint32_t *out);

#endif
