/* contrast_data.h - pairs of texts that belong together: what InfoNCE is trained on.
 *
 * Three sources: pairs.jsonl (a short and a long text of one thing; "group" names
 * what several pairs are about), lists (a query and an item
 * that a label makes relevant), baskets (two items of one person). A batch is a block of each, and
 * negatives are the other texts of the block, unless they belong together as well.
 * Private to ranker/training. Threads: read-only after open.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_CONTRAST_DATA_H
#define MR_RANKER_TRAINING_CONTRAST_DATA_H

#include "ranker/training/text_table.h"
#include "ranker/training/trainer_private.h"

typedef enum { MR_FROM_PAIRS, MR_FROM_LISTS, MR_FROM_BASKETS, MR_FROM_COUNT } mr_contrast_source;

/* Texts a and b, as numbers of the table; key_a and key_b tell what they are: see related. */
typedef struct {
    size_t a, b;
    uint32_t key_a, key_b;
} mr_contrast_example;

typedef struct mr_contrast_data mr_contrast_data;

MR_NODISCARD mr_status mr_contrast_data_open(mr_contrast_data **out, const mr_trainer *trainer,
                                             mr_error *err);
void mr_contrast_data_close(mr_contrast_data *data); /* NULL is fine */

const mr_text_table *mr_contrast_data_texts(const mr_contrast_data *data);
/* Examples of a source in one epoch; 0: the recipe does not name it. */
uint64_t mr_contrast_data_count(const mr_contrast_data *data, mr_contrast_source source,
                                bool valid);
/* The i-th example of all epochs. */
mr_contrast_example mr_contrast_data_example(const mr_contrast_data *data,
                                             mr_contrast_source source, bool valid, uint64_t i);
/* Whether a of x belongs together with b of y too, so that it is no negative. */
bool mr_contrast_data_related(const mr_contrast_data *data, mr_contrast_source source,
                              const mr_contrast_example *x, const mr_contrast_example *y);

#endif
