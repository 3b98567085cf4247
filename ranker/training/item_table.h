/* item_table.h - embedding tokens of all items of a catalogue, made by the encoder as it stands.
 *
 * For stages in which the encoder is frozen, and for a frozen teacher: what `encode` would store.
 * Private to ranker/training.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_ITEM_TABLE_H
#define MR_RANKER_TRAINING_ITEM_TABLE_H

#include "ranker/training/lists.h"
#include "ranker/training/text_table.h"
#include "ranker/training/trainer_private.h"

/* Embedding tokens of items: [T][dim] for each. */
typedef struct {
    const float *tokens; /* row `place[item]`, or row `item` where place is NULL */
    const uint32_t *place;
    size_t T, dim;
} mr_item_tokens;

static inline const float *mr_item_tokens_of(const mr_item_tokens *tokens, uint32_t item)
{
    const size_t row = tokens->place ? tokens->place[item] : item;
    return tokens->tokens + row * tokens->T * tokens->dim;
}

/* Appends the texts of all items, in their order, cut to max_tokens. */
MR_NODISCARD mr_status mr_item_texts_add(mr_text_table *out, const mr_trainer *trainer,
                                         const mr_lists *lists, int max_tokens, mr_error *err);
/* [n_items][T][dim], owned by the caller (free). */
MR_NODISCARD mr_status mr_item_table_new(float **out, const mr_trainer *trainer,
                                         const mr_text_table *texts, mr_error *err);

#endif
