/* projector.h - from an encoder's space into the LLM's word-embedding space.
 *
 * Three kinds, told by the tensors in the file: a two-layer MLP (linear_1, exact GELU, linear_2;
 * LLaVA-1.5, arXiv 2310.03744), linear (linear_1 alone), or identity (no file; MixLM, arXiv
 * 2512.07846). Biases are optional. The names may have the prefix "multi_modal_projector." (or
 * "model.multi_modal_projector."); other tensors are then not looked at, so that the file of a
 * whole LLaVA serves. Without the prefix the file is the projector's own and a tensor that is not
 * one of the four is refused.
 *
 * Threads: read-only after open; run uses the caller's scratch.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_PROJECTOR_H
#define MR_ENCODERS_PROJECTOR_H

#include <stddef.h>

#include "core/error.h"
#include "core/threads.h"
#include "engine/kernels.h"
#include "engine/safetensors.h"

typedef struct mr_projector mr_projector;

/* path: a safetensors file (engine/safetensors.h says what else it may be). NULL: identity, which
 * needs in_dim == out_dim. A dim of 0: whatever the file says. A file whose shapes do not map
 * in_dim to out_dim is MISMATCH; a weight that is not finite is CORRUPT. Memory: the weights are
 * mapped. */
MR_NODISCARD mr_status mr_projector_open(mr_projector **out, const char *path, size_t in_dim,
                                         size_t out_dim, mr_error *err);
/* The same for weights that are open already: file is borrowed until close. */
MR_NODISCARD mr_status mr_projector_bind(mr_projector **out, const mr_safetensors *file,
                                         size_t in_dim, size_t out_dim, mr_error *err);
void mr_projector_close(mr_projector *projector); /* NULL is fine */

const char *mr_projector_kind(const mr_projector *projector); /* "identity", "linear", "mlp" */
size_t mr_projector_in_dim(const mr_projector *projector);
size_t mr_projector_out_dim(const mr_projector *projector);

/* Bytes of scratch for any call with up to n rows: bounded, as rows are taken in blocks. */
size_t mr_projector_scratch_bytes(const mr_projector *projector, size_t n);
/* y [n, out_dim] = project(x [n, in_dim]); y and x do not overlap. Fixed order: a row's result does
 * not depend on n, its place or the threads. Nothing is allocated. */
void mr_projector_run(const mr_projector *projector, const mr_kernels *kernels, mr_pool *pool,
                      void *scratch, const float *x, size_t n, float *y);

#endif
