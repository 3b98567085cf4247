/* rank_draw.h - which candidates stand in a list that is trained on.
 *
 * From a row, its best candidates (grade 2 and above, or 1 where nothing is better) are kept, and
 * of the others as many as there is room for, at random; the history is that of
 * history_draw.h. Some lists lose their user or
 * their query, so that anonymous requests and browsing work. A list may also be made of a basket:
 * an item taken out of it, beside items that other people hold, each as likely as it is held, so
 * that being held is no cue. All of it depends on the seed and the example's number alone. Private
 * to ranker/training. Threads: a draw belongs to one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_RANK_DRAW_H
#define MR_RANKER_TRAINING_RANK_DRAW_H

#include "ranker/training/history_draw.h"

typedef struct {
    mr_str id, query; /* of the row; borrowed */
    uint32_t *item;   /* [capacity of candidates] */
    int *grade;
    size_t n;
    uint32_t *history; /* [histories.most], in prompt order */
    size_t n_history;
    bool has_query;
} mr_rank_list;

typedef struct {
    const mr_trainer *trainer;
    const mr_lists *lists;
    mr_rank_list *list; /* [max_lists] */
    size_t n_lists, max_lists;
    mr_history_draw histories;
    uint32_t *order; /* scratch [n_items] */
    mr_arena arena;
} mr_rank_draw;

MR_NODISCARD mr_status mr_rank_draw_open(mr_rank_draw *out, const mr_trainer *trainer,
                                         const mr_lists *lists, size_t max_lists, mr_error *err);
void mr_rank_draw_close(mr_rank_draw *draw); /* idempotent */

void mr_rank_draw_clear(mr_rank_draw *draw);
/* Appends example i of all epochs, or row i of the valid split (whose candidates are the first of
 * a shuffle that does not change, and which loses nothing). */
MR_NODISCARD mr_status mr_rank_draw_add(mr_rank_draw *draw, uint64_t i, bool valid, mr_error *err);
/* Rows of split train and valid, over all sources. */
uint64_t mr_rank_draw_examples(const mr_lists *lists, bool valid);

#endif
