/* item_batch.h - items of a batch through the encoder that is trained: each once, however often it
 * stands in histories and lists.
 *
 *     mr_item_batch_begin(&batch);
 *     mr_item_batch_add(&batch, item, &err) ...
 *     const mr_item_tokens tokens = mr_item_batch_forward(&batch);
 *     float *d_tokens = mr_item_batch_gradient(&batch);         zeroed, laid out as tokens
 *     mr_item_batch_backward(&batch, gradients);
 *
 * Private to ranker/training. Threads: one batch, one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_ITEM_BATCH_H
#define MR_RANKER_TRAINING_ITEM_BATCH_H

#include "ranker/training/encoder_pass.h"
#include "ranker/training/item_table.h"

typedef struct {
    const mr_text_table *texts;
    mr_encoder_pass pass;
    uint32_t *place, *stamp; /* [n_items] row of the encoder's output, and in which batch */
    uint32_t batch;
} mr_item_batch;

/* texts: of all items; borrowed. Room for max_items different ones. */
MR_NODISCARD mr_status mr_item_batch_open(mr_item_batch *out, const mr_trainer *trainer,
                                          const mr_text_table *texts, size_t max_items,
                                          mr_error *err);
void mr_item_batch_close(mr_item_batch *batch); /* idempotent */

void mr_item_batch_begin(mr_item_batch *batch);
MR_NODISCARD mr_status mr_item_batch_add(mr_item_batch *batch, uint32_t item, mr_error *err);
mr_item_tokens mr_item_batch_forward(mr_item_batch *batch);
/* NULL when there is no item. */
float *mr_item_batch_gradient(mr_item_batch *batch);
void mr_item_batch_backward(mr_item_batch *batch, float *gradients);
static inline size_t mr_item_batch_rows(const mr_item_batch *batch)
{
    return batch->pass.pack.rows;
}

#endif
