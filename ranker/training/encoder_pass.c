/* encoder_pass.c - see encoder_pass.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/encoder_pass.h"

#include <stdlib.h>
#include <string.h>

mr_status mr_encoder_pass_open(mr_encoder_pass *out, const mr_trainer *trainer, size_t max_texts,
                               size_t max_rows, mr_error *err)
{
    const mr_decoder_layout *layout = &trainer->encoder.decoder;
    mr_encoder_pass pass = {.trainer = trainer,
                            .T = (size_t)trainer->spec.item_tokens,
                            .max_texts = max_texts,
                            .max_rows = max_rows};
    pass.ids = calloc(max_rows, sizeof *pass.ids);
    pass.wanted = calloc(max_rows, sizeof *pass.wanted);
    pass.span = calloc(max_texts, sizeof *pass.span);
    pass.d_out = calloc(max_texts * pass.T * (size_t)layout->config.C, sizeof *pass.d_out);
    mr_status status = MR_OK;
    if (!pass.ids || !pass.wanted || !pass.span || !pass.d_out)
        status = MR_FAIL(err, NO_MEMORY, "a pass of %zu texts", max_texts);
    if (status == MR_OK)
        status =
            mr_decoder_new_f32(&pass.run, layout, &trainer->weights, trainer->ops, max_rows, err);
    *out = pass;
    if (status != MR_OK)
        mr_encoder_pass_close(out);
    return status;
}

void mr_encoder_pass_close(mr_encoder_pass *pass)
{
    mr_decoder_free_f32(pass->run);
    free(pass->ids);
    free(pass->wanted);
    free(pass->span);
    free(pass->d_out);
    *pass = (mr_encoder_pass){0};
}

void mr_encoder_pass_clear(mr_encoder_pass *pass)
{
    pass->pack = (mr_pack){.ids = pass->ids, .span = pass->span, .wanted = pass->wanted};
}

mr_status mr_encoder_pass_add(mr_encoder_pass *pass, const int32_t *ids, size_t n, mr_error *err)
{
    const size_t at = pass->pack.rows;
    if (n < pass->T)
        return MR_FAIL(err, INVALID,
                       "a text of %zu tokens cannot give %zu embedding tokens; end the template of "
                       "encoders.item.text with as many {\"token\": ...}",
                       n, pass->T);
    if (n > pass->max_rows - at || pass->pack.n_spans == pass->max_texts)
        return MR_FAIL(err, EXHAUSTED, "a text of %zu tokens beside %zu of %zu", n, at,
                       pass->max_rows);
    memcpy(pass->ids + at, ids, n * sizeof *ids);
    memset(pass->wanted + at, 0, n * sizeof *pass->wanted);
    for (size_t i = n - pass->T; i < n; i++)
        pass->wanted[at + i] = true;
    pass->span[pass->pack.n_spans++] = (mr_span){at, n, -1};
    pass->pack.rows += n;
    return MR_OK;
}

const float *mr_encoder_pass_forward(mr_encoder_pass *pass)
{
    return mr_decoder_forward_f32(pass->run, pass->trainer->values, &pass->pack, NULL);
}

void mr_encoder_pass_backward(mr_encoder_pass *pass, float *gradients)
{
    mr_decoder_backward_f32(pass->run, pass->trainer->values, pass->d_out, gradients, NULL);
}
