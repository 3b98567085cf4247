/* item_batch.c - see item_batch.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/item_batch.h"

#include <stdlib.h>
#include <string.h>

mr_status mr_item_batch_open(mr_item_batch *out, const mr_trainer *trainer,
                             const mr_text_table *texts, size_t max_items, mr_error *err)
{
    *out = (mr_item_batch){.texts = texts};
    out->place = calloc(texts->n, sizeof *out->place);
    out->stamp = calloc(texts->n, sizeof *out->stamp);
    if (!out->place || !out->stamp)
        return MR_FAIL(err, NO_MEMORY, "places of %zu items", texts->n);
    return mr_encoder_pass_open(&out->pass, trainer, max_items,
                                max_items * (size_t)trainer->spec.item_max_tokens, err);
}

void mr_item_batch_close(mr_item_batch *b)
{
    mr_encoder_pass_close(&b->pass);
    free(b->place);
    free(b->stamp);
    *b = (mr_item_batch){0};
}

void mr_item_batch_begin(mr_item_batch *b)
{
    b->batch++;
    mr_encoder_pass_clear(&b->pass);
}

mr_status mr_item_batch_add(mr_item_batch *b, uint32_t item, mr_error *err)
{
    if (b->stamp[item] == b->batch)
        return MR_OK;
    size_t n;
    const int32_t *ids = mr_text_table_at(b->texts, item, &n);
    b->stamp[item] = b->batch;
    b->place[item] = (uint32_t)b->pass.pack.n_spans;
    return mr_encoder_pass_add(&b->pass, ids, n, err);
}

mr_item_tokens mr_item_batch_forward(mr_item_batch *b)
{
    mr_item_tokens tokens = {.place = b->place,
                             .T = b->pass.T,
                             .dim = (size_t)b->pass.trainer->encoder.decoder.config.C};
    if (b->pass.pack.n_spans > 0)
        tokens.tokens = mr_encoder_pass_forward(&b->pass);
    return tokens;
}

float *mr_item_batch_gradient(mr_item_batch *b)
{
    const size_t n = b->pass.pack.n_spans;
    if (n == 0)
        return NULL;
    memset(b->pass.d_out, 0,
           n * b->pass.T * (size_t)b->pass.trainer->encoder.decoder.config.C * sizeof(float));
    return b->pass.d_out;
}

void mr_item_batch_backward(mr_item_batch *b, float *gradients)
{
    if (b->pass.pack.n_spans > 0)
        mr_encoder_pass_backward(&b->pass, gradients);
}
