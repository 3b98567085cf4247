/* text_table.c - see text_table.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/text_table.h"

#include <stdlib.h>

#include "encoders/text_encoder.h"

void mr_text_table_release(mr_text_table *table)
{
    mr_ids_release(&table->ids);
    free(table->begin);
    *table = (mr_text_table){0};
}

mr_status mr_text_table_add(mr_text_table *table, const mr_template *tmpl, mr_fields fields,
                            int min_tokens, int max_tokens, int32_t eos_id, mr_prompt *prompt,
                            mr_error *err)
{
    if (table->n + 1 >= table->capacity) {
        const size_t capacity = table->capacity ? 2 * table->capacity : 1024;
        size_t *grown = realloc(table->begin, capacity * sizeof *grown);
        if (!grown)
            return MR_FAIL(err, NO_MEMORY, "a table of %zu texts", capacity);
        table->begin = grown;
        table->capacity = capacity;
        table->begin[table->n] = table->ids.n;
    }
    mr_status status = mr_text_encoder_expand(tmpl, fields, max_tokens, eos_id, prompt, err);
    if (status == MR_OK && prompt->ids.n == 0)
        status = MR_FAIL(err, INVALID, "the item encoder's template gives no token for it");
    if (status == MR_OK && prompt->ids.n < (size_t)min_tokens)
        status = MR_FAIL(err, INVALID,
                         "a text of %zu tokens cannot give %d embedding tokens; end the template "
                         "of encoders.item.text with as many {\"token\": ...}",
                         prompt->ids.n, min_tokens);
    if (status == MR_OK)
        status = mr_ids_append(&table->ids, prompt->ids.data, prompt->ids.n, err);
    if (status == MR_OK)
        table->begin[++table->n] = table->ids.n;
    return status;
}
