/* user_encoder.h - a history of item vectors to K embedding tokens, by a small trained transformer.
 *
 *     mr_user_encoder_open(&encoder, "user/", &opt, &err);
 *     mr_user_encoder_run(encoder, items, n, tokens, &err);      items [n][item_dim] -> [K][C]
 *
 * User-LLM's compressor (arXiv 2402.13598): vectors go through a linear layer, gain a position
 * where the history is a sequence, pass any number of blocks of self-attention that sees the whole
 * history, and K learned latents then look at them by cross-attention (Perceiver, arXiv
 * 2103.03206); what the latents have become is the user, before any projector. Blocks are those of
 * Llama but for the mask and the positions: RMSNorm, grouped attention, SwiGLU, residuals, no
 * biases. A history without positions is a set: its order then changes the last bits of the result
 * and no more.
 *
 * The folder: config.json (user_config.h) and model.safetensors, F32, F16 or BF16, with
 *
 *     input_proj.weight [C, item_dim], input_proj.bias [C]
 *     position_embedding.weight [max_history, C]      learned positions; row 0 is the newest item
 *     layers.N.input_layernorm.weight, .self_attn.{q,k,v,o}_proj.weight,
 *         .post_attention_layernorm.weight, .mlp.{gate,up,down}_proj.weight
 *     latents.weight [K, C]
 *     cross_layers.N.  the same, with cross_attn for self_attn, and context_layernorm.weight
 *     norm.weight [C]
 *
 * Threads: one encoder, one thread at a time; it spreads work over its pool. The training twin is
 * ranker/training/user_encoder.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_USER_ENCODER_H
#define MR_ENCODERS_USER_ENCODER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"
#include "core/threads.h"
#include "encoders/user_config.h"
#include "engine/kernels.h"

typedef struct mr_user_encoder mr_user_encoder;

typedef struct {
    const mr_kernels *kernels; /* NULL: the best of this machine */
    mr_pool *pool;             /* borrowed; NULL: one thread */
} mr_user_encoder_options;

/* Weights are mapped; all scratch is allotted here. A tensor that is missing, unknown or of another
 * shape is NOT_FOUND, UNSUPPORTED or MISMATCH, a weight that is not finite CORRUPT. opt: NULL for
 * the defaults. */
MR_NODISCARD mr_status mr_user_encoder_open(mr_user_encoder **out, const char *folder,
                                            const mr_user_encoder_options *opt, mr_error *err);
void mr_user_encoder_close(mr_user_encoder *encoder); /* NULL is fine */

const mr_user_config *mr_user_encoder_config(const mr_user_encoder *encoder);
bool mr_user_encoder_is_untrained(const mr_user_encoder *encoder);
size_t mr_user_encoder_bytes(const mr_user_encoder *encoder); /* of its own memory */

/* items: [n][item_dim], 1 to max_history of them, the newest last. out: [latents][C]. INVALID for
 * another n, a value that is not finite, or one that does not stay so. Fixed order: the same bits
 * with any pool. Nothing is allocated. */
MR_NODISCARD mr_status mr_user_encoder_run(mr_user_encoder *encoder, const float *items, size_t n,
                                           float *out, mr_error *err);

#endif
