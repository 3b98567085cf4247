/* decoder.h - the causal transformer of engine/model.h with a way back.
 *
 * A *pack* is what one pass computes: rows in *spans*. A span is a run of rows that see each other
 * causally; one with a parent sees all rows of the parent span before its own, and its positions
 * continue from there. A text is a span without parent; a list to rank is one span for the prefix
 * and, as its children, one per candidate (the shared-prefix mask of engine/session.h). A row's
 * input is a word embedding, or a vector handed in: the scatter of embedding tokens.
 *
 *     mr_decoder_f32 *run; mr_decoder_new_f32(&run, &layout, &weights, ops, max_rows, ...)
 *     mr_decoder_forward_f32(run, values, &pack, vectors);        run->out: wanted rows
 *     ...loss: d_out...
 *     mr_decoder_backward_f32(run, values, d_out, gradients, d_vectors);
 *
 * As in serving, the last layer goes beyond keys and values for wanted rows only.
 * Families, norms, rotary positions and biases are those of the engine; a test holds the two
 * forwards against each other. Compiled in float and in double (decoder.inc).
 *
 * Threads: one run, one thread; any number of runs over the same weights.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_DECODER_H
#define MR_RANKER_TRAINING_DECODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/error.h"
#include "engine/model_config.h"
#include "ranker/training/ops.h"
#include "ranker/training/weights.h"

/* A row whose input is the next of the vectors. */
#define MR_ROW_VECTOR (-1)

typedef struct {
    size_t begin, n; /* rows */
    int64_t parent;  /* index of an earlier span without parent of its own, or -1 */
} mr_span;

typedef struct {
    const int32_t *ids; /* [rows], below V, or MR_ROW_VECTOR */
    size_t rows;
    const mr_span *span; /* [n_spans], in the order of their rows, covering all of them; the
                          * children of a span follow each other */
    size_t n_spans;
    const bool *wanted; /* [rows]: whose state after the final norm is wanted; NULL: all */
} mr_pack;

/* Indexes into mr_weights; MR_NO_WEIGHT for what the family lacks. q, k, v stand together, gate and
 * up too, and so do their biases. */
typedef struct {
    size_t attention_norm, q, k, v, qkv_bias, q_norm, k_norm, o, o_bias;
    size_t mlp_norm, gate, up, gate_up_bias, down, down_bias;
} mr_decoder_layer;

typedef struct {
    mr_model_config config;
    size_t embedding, head, final_norm; /* head is the embedding when tied */
    mr_decoder_layer *layer;            /* [L], in the weights' arena */
} mr_decoder_layout;

/* Adds a decoder's weights to the current part. headless: an encoder without lm_head. */
MR_NODISCARD mr_status mr_decoder_add(mr_decoder_layout *out, const mr_model_config *config,
                                      bool headless, mr_weights *weights, mr_error *err);

/* INVALID, naming the span or row, unless the pack is as described above and its ids are in the
 * vocabulary; *n_vectors and *n_wanted are what it takes and gives. */
MR_NODISCARD mr_status mr_pack_check(const mr_pack *pack, const mr_model_config *config,
                                     size_t *n_vectors, size_t *n_wanted, mr_error *err);

#define REAL    float
#define NAME(x) x##_f32
#include "ranker/training/decoder_decl.inc"
#undef REAL
#undef NAME
#define REAL    double
#define NAME(x) x##_f64
#include "ranker/training/decoder_decl.inc"
#undef REAL
#undef NAME

#endif
