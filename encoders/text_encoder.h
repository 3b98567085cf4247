/* text_encoder.h - item text to embedding tokens: MixLM's item encoder (arXiv 2512.07846).
 *
 * A causal transformer reads the item's text and the states of its last T positions, after the
 * final norm, are the item's embedding tokens. A text of fewer than T tokens gives fewer. The text
 * comes from a template (template.h), so that serving, `encode` and training agree on every token.
 * It is cut to max_tokens before the end-of-sequence token is appended: segments marked "truncate"
 * give way first, then the whole from the right. An item whose template gives nothing has no
 * embedding; no end-of-sequence token is appended to nothing.
 *
 * Threads: one encoder, one thread; it spreads work over its pool.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_TEXT_ENCODER_H
#define MR_ENCODERS_TEXT_ENCODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/json.h"
#include "core/threads.h"
#include "encoders/template.h"
#include "engine/model.h"

#define MR_TEXT_ENCODER_MAX_TOKENS 50 /* T, as far as MixLM's table goes */

typedef struct mr_text_encoder mr_text_encoder;

typedef struct {
    const json_t *text;  /* template segments, no slots; borrowed during open.
                          * NULL: [{"field": "text"}] */
    int tokens;          /* T, 1..50, at most max_tokens */
    int max_tokens;      /* longest text in tokens, the appended one included; 2..32768 */
    bool append_eos;     /* end with the end-of-sequence token of config.json */
    mr_gemm_kind gemm;   /* MR_GEMM_BLAS encodes in bulk; MR_GEMM_SCORING gives the same bits in
                          * any batch */
    size_t batch_tokens; /* positions per pass; 0: 4096. At least max_tokens is allotted */
    mr_pool *pool;       /* borrowed; NULL: one thread */
    const mr_kernels *kernels; /* NULL: the best */
} mr_text_encoder_options;

/* folder: Hugging Face layout with tokenizer.json, config.json, model.safetensors (or its index). A
 * tokenizer with ids that the model has no embedding for is MISMATCH. */
MR_NODISCARD mr_status mr_text_encoder_open(mr_text_encoder **out, const char *folder,
                                            const mr_text_encoder_options *opt, mr_error *err);
void mr_text_encoder_close(mr_text_encoder *encoder); /* NULL is fine */

/* What an encoder reads of an item: its template filled in and cut to max_tokens, which counts the
 * closing token (eos_id; -1: none is appended). Nothing for an item whose template gives nothing.
 * Training reads items through it too. */
MR_NODISCARD mr_status mr_text_encoder_expand(const mr_template *tmpl, mr_fields fields,
                                              int max_tokens, int32_t eos_id, mr_prompt *prompt,
                                              mr_error *err);

size_t mr_text_encoder_dim(const mr_text_encoder *encoder);
size_t mr_text_encoder_tokens(const mr_text_encoder *encoder); /* T */
const mr_model *mr_text_encoder_model(const mr_text_encoder *encoder);

typedef struct {
    uint64_t text_tokens; /* positions computed */
    uint64_t truncated;   /* texts that were cut */
} mr_text_encoder_stats;

/* Encodes n items in their order, in batches of its own choice. out: [n][T][dim]; the first
 * tokens[i] rows of item i are filled, the rest zeroed. tokens[i] is 0 only for an item whose
 * template gave nothing. An item with invalid text (UTF-8) fails the call with its index in the
 * message; out and tokens are then unspecified. stats, when not NULL, are those of this call. */
MR_NODISCARD mr_status mr_text_encoder_run(mr_text_encoder *encoder, const mr_fields *items,
                                           size_t n, float *out, uint16_t *tokens,
                                           mr_text_encoder_stats *stats, mr_error *err);

#endif
