/* clip_text.c - one text through CLIP's text tower: causal, pooled at its end token.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/guard.h"
#include "encoders/clip_private.h"

static mr_status check_ids(const mr_clip *clip, const int32_t *ids, size_t n, mr_error *err)
{
    const mr_clip_text_config *config = &clip->text_config;
    if (!clip->has_text)
        return MR_FAIL(err, INVALID, "the text tower was not opened");
    if (n == 0)
        return MR_FAIL(err, INVALID, "a text of no tokens");
    if (n > (size_t)config->max_positions)
        return MR_FAIL(err, EXHAUSTED,
                       "a text of %zu tokens; the model has max_position_embeddings %d", n,
                       config->max_positions);
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= config->V)
            return MR_FAIL(err, INVALID, "id %d at position %zu is outside the vocabulary of %d",
                           (int)ids[i], i, (int)config->V);
    }
    return MR_OK;
}

/* Hidden state 0 in x. */
static void embed(mr_clip *clip, const int32_t *ids, size_t n)
{
    const size_t C = clip->text.C;
    const mr_tensor *table = &clip->text_ends.tokens;
    const size_t row_bytes = C * mr_dtype_size(table->dtype);
    for (size_t i = 0; i < n; i++) {
        float *row = clip->x + i * C;
        mr_dtype_to_f32(row, (const char *)table->data + (size_t)ids[i] * row_bytes, table->dtype,
                        C);
        clip->kernels->add(row, clip->text_ends.positions + i * C, C);
    }
}

/* n when the text has no end token. */
static size_t pooled_position(const mr_clip_text_config *config, const int32_t *ids, size_t n)
{
    size_t best = 0;
    if (config->eos_id == 2) {
        for (size_t i = 1; i < n; i++)
            best = ids[i] > ids[best] ? i : best;
        return best;
    }
    while (best < n && ids[best] != config->eos_id)
        best++;
    return best;
}

mr_status mr_clip_text_embed(mr_clip *clip, const int32_t *ids, size_t n, float *out, mr_error *err)
{
    mr_status status = check_ids(clip, ids, n, err);
    if (status != MR_OK)
        return status;
    const size_t at = pooled_position(&clip->text_config, ids, n);
    if (at == n)
        return MR_FAIL(err, INVALID,
                       "the text of %zu tokens has no end token %d; tokenise with special tokens",
                       n, (int)clip->text_config.eos_id);

    mr_guard_begin("clip text");
    /* What comes after the pooled position is not looked at by it. */
    embed(clip, ids, at + 1);
    for (size_t l = 0; l < clip->text.L; l++)
        mr_clip_block(clip, &clip->text, l, 1, at + 1);
    float *pooled = clip->x + at * clip->text.C;
    mr_clip_norm_rows(clip, &clip->text, &clip->text_ends.final_norm, pooled, 1);
    mr_clip_linear(clip, &clip->text_ends.projection, out, pooled, 1);
    mr_guard_end();
    return MR_OK;
}

mr_status mr_clip_text_hidden_states(mr_clip *clip, const int32_t *ids, size_t n, float *out,
                                     mr_error *err)
{
    mr_status status = check_ids(clip, ids, n, err);
    if (status != MR_OK)
        return status;
    const size_t state = n * clip->text.C;
    mr_guard_begin("clip text hidden states");
    embed(clip, ids, n);
    for (size_t l = 0;; l++) {
        memcpy(out + l * state, clip->x, state * sizeof *out);
        if (l == clip->text.L)
            break;
        mr_clip_block(clip, &clip->text, l, 1, n);
    }
    mr_guard_end();
    return MR_OK;
}
