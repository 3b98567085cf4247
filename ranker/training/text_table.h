/* text_table.h - texts as ids, tokenised once: what the stages that read the same texts again and
 * again draw from. Private to ranker/training.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_TEXT_TABLE_H
#define MR_RANKER_TRAINING_TEXT_TABLE_H

#include "encoders/template.h"
#include "engine/tokenizer.h"

typedef struct {
    mr_ids ids;
    size_t *begin; /* [n + 1] */
    size_t n, capacity;
} mr_text_table;

void mr_text_table_release(mr_text_table *table); /* idempotent */

/* Appends what the item encoder reads of these fields (mr_text_encoder_expand): text number n - 1.
 * A text of fewer than min_tokens, those that become embedding tokens, is INVALID. prompt is
 * scratch. */
MR_NODISCARD mr_status mr_text_table_add(mr_text_table *table, const mr_template *tmpl,
                                         mr_fields fields, int min_tokens, int max_tokens,
                                         int32_t eos_id, mr_prompt *prompt, mr_error *err);

static inline const int32_t *mr_text_table_at(const mr_text_table *table, size_t i, size_t *n)
{
    *n = table->begin[i + 1] - table->begin[i];
    return table->ids.data + table->begin[i];
}

#endif
