/* encoder_pass.h - texts through the item encoder and back: embedding tokens and their gradients.
 *
 * One text is one span; its last T states are its tokens, as in encoders/text_encoder.h.
 * Private to ranker/training. Threads: one pass, one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_ENCODER_PASS_H
#define MR_RANKER_TRAINING_ENCODER_PASS_H

#include "ranker/training/trainer_private.h"

typedef struct {
    const mr_trainer *trainer;
    size_t T, max_texts, max_rows;
    mr_decoder_f32 *run;
    int32_t *ids;
    bool *wanted;
    mr_span *span;
    mr_pack pack;
    float *d_out; /* [max_texts][T][C] */
} mr_encoder_pass;

MR_NODISCARD mr_status mr_encoder_pass_open(mr_encoder_pass *out, const mr_trainer *trainer,
                                            size_t max_texts, size_t max_rows, mr_error *err);
void mr_encoder_pass_close(mr_encoder_pass *pass); /* idempotent */

void mr_encoder_pass_clear(mr_encoder_pass *pass);
/* Appends a text of at least T tokens (INVALID otherwise); EXHAUSTED when there is no room. */
MR_NODISCARD mr_status mr_encoder_pass_add(mr_encoder_pass *pass, const int32_t *ids, size_t n,
                                           mr_error *err);
/* [texts][T][C], valid until the next pass. */
const float *mr_encoder_pass_forward(mr_encoder_pass *pass);
/* From pass->d_out, which is overwritten. */
void mr_encoder_pass_backward(mr_encoder_pass *pass, float *gradients);

#endif
