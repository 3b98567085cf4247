/* weights.h - everything that is trained, as one long vector with names.
 *
 * A *part* is one file of the bundle: "llm", "encoder", "item_projector", "user". A weight is a
 * tensor of a part under its Hugging Face name, at an offset of the vector. Values, gradients and
 * the optimiser's moments are vectors of the same layout, so that gradients of shards can be added,
 * clipped and stepped without knowing what they are.
 *
 * Weights added one after the other lie one after the other: a module that adds q, k and v in a row
 * may multiply by the three at once.
 * Threads: the layout is read-only once built; the vectors are their users' matter.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_WEIGHTS_H
#define MR_RANKER_TRAINING_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/error.h"
#include "engine/safetensors.h"

#define MR_WEIGHTS_MAX_PARTS 8
#define MR_NO_WEIGHT         SIZE_MAX

/* How a new model starts, and whether weight decay applies: to matrices alone. */
typedef enum {
    MR_WEIGHT_MATRIX, /* normal with the deviation that is asked for */
    MR_WEIGHT_ONES,   /* the gain of a norm */
    MR_WEIGHT_ZEROS,  /* a bias */
} mr_weight_kind;

typedef struct {
    const char *name; /* in the part's file */
    mr_weight_kind kind;
    int n_dims;
    int64_t shape[MR_TENSOR_MAX_DIMS];
    size_t offset, n; /* elements of the vector */
    bool trained;     /* false: frozen, no gradient is computed for it */
} mr_weight;

typedef struct {
    const char *name;
    size_t first, n; /* weights */
} mr_weights_part;

typedef struct {
    mr_arena arena;
    mr_weight *weight;
    size_t n, capacity;
    mr_weights_part part[MR_WEIGHTS_MAX_PARTS];
    size_t n_parts;
    size_t total; /* elements */
    bool failed;  /* memory was out during add: reported by mr_weights_check */
} mr_weights;

void mr_weights_done(mr_weights *weights); /* idempotent; zero-initialised is ready */

/* Weights that are added from here on belong to this part. */
void mr_weights_begin_part(mr_weights *weights, const char *name);
/* Returns the weight's index; failures are kept for mr_weights_check. Names are copied. */
size_t mr_weights_add(mr_weights *weights, const char *name, mr_weight_kind kind, int n_dims,
                      const int64_t *shape);
MR_NODISCARD mr_status mr_weights_check(const mr_weights *weights, mr_error *err);

/* The part of that name, or NULL. */
const mr_weights_part *mr_weights_find_part(const mr_weights *weights, const char *name);
/* Whether a weight's gradient is wanted; false for MR_NO_WEIGHT. */
bool mr_weights_trained(const mr_weights *weights, size_t index);
/* Elements that are trained. */
size_t mr_weights_trained_elements(const mr_weights *weights);

/* pattern: a glob (fnmatch) over "part.name", as in "llm.model.layers.[01].*" or "encoder.*".
 * INVALID when it matches nothing, naming a weight that it might have meant. */
MR_NODISCARD mr_status mr_weights_freeze(mr_weights *weights, const char *pattern, mr_error *err);

/* Draws a part's values: matrices normal with this deviation, each from a stream of its own (seed
 * and name), norms 1, biases 0. */
void mr_weights_draw(const mr_weights *weights, const mr_weights_part *part, uint64_t seed,
                     double deviation, float *values);

/* Reads a part's values from a safetensors file or folder, any weight dtype. Every weight must be
 * there in its shape (the prefix "model." may be absent, as in engine/model.h); NaN is CORRUPT. */
MR_NODISCARD mr_status mr_weights_load(const mr_weights *weights, const mr_weights_part *part,
                                       const char *path, float *values, mr_error *err);
/* Writes a part in one step; dtype F32, F16 or BF16 (rounded to nearest, ties to even).
 * metadata: see mr_safetensors_write. */
MR_NODISCARD mr_status mr_weights_save(const mr_weights *weights, const mr_weights_part *part,
                                       const char *path, mr_dtype dtype, const float *values,
                                       const char *const *metadata, mr_error *err);

#endif
