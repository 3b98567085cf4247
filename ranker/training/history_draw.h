/* history_draw.h - which items of a person stand for them in training.
 *
 * What serving would choose (encoders/history.h): as many as a bundle takes, and no more than the
 * recipe's. Of a longer set another part each time, except on the valid split; a sequence stays
 * one. Private to ranker/training. Threads: a draw belongs to one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_HISTORY_DRAW_H
#define MR_RANKER_TRAINING_HISTORY_DRAW_H

#include "core/rng.h"
#include "ranker/training/lists.h"
#include "ranker/training/trainer_private.h"

typedef struct {
    const mr_lists *lists;
    mr_history_order order;
    size_t most; /* items that a draw gives */
    size_t room; /* items that it chooses from */
    mr_str *id;
    uint32_t *item;
    size_t *chosen;
    void *scratch;
} mr_history_draw;

/* Memory is the arena's. False when there is none. */
bool mr_history_draw_open(mr_history_draw *out, const mr_trainer *trainer, const mr_lists *lists,
                          mr_arena *arena);
/* Writes up to `most` of n items to out, in prompt order; returns how many. */
size_t mr_history_draw_choose(mr_history_draw *draw, const uint32_t *items, size_t n, bool valid,
                              mr_rng *rng, uint32_t *out);

/* Puts x into a random order. */
void mr_shuffle_items(uint32_t *x, size_t n, mr_rng *rng);

#endif
