/* untrained.h - a model folder with random weights: for demonstrations before training, for
 * benchmarks at the real shapes, and for tests.
 *
 *     const mr_untrained_shape *shape = mr_untrained_find("qwen3-0.6b");
 *     mr_untrained_options opt = MR_UNTRAINED_OPTIONS_DEFAULT;
 *     opt.dtype = shape->dtype;
 *     mr_untrained_write("llm", &shape->config, &opt, &err);
 *
 * Writes config.json and model.safetensors, tensor by tensor: memory stays small whatever the
 * model. Weights are drawn bell-shaped in exact integer arithmetic, each tensor from its own stream
 * (seed and name), so that a seed gives the same bytes on every machine, and a tensor does not
 * change when others come or go.
 *
 * The file's metadata says that it is untrained; readers (mr_model_is_untrained) must tell their
 * users that what it ranks means nothing.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_UNTRAINED_H
#define MR_ENGINE_UNTRAINED_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "engine/dtype.h"
#include "engine/model_config.h"
#include "engine/safetensors.h"

/* The metadata key; its value is "seed 7". */
#define MR_UNTRAINED_KEY "mixrank.untrained"

typedef struct {
    const char *name;
    mr_model_config config;
    mr_dtype dtype; /* as published */
} mr_untrained_shape;

/* "tiny", "qwen3-0.6b", "qwen2.5-0.5b", "smollm2-135m", "llama-3.2-1b". NULL when unknown. */
const mr_untrained_shape *mr_untrained_find(const char *name);
/* The whole table, for help texts. */
const mr_untrained_shape *mr_untrained_shapes(size_t *n);

typedef struct {
    uint64_t seed;
    double deviation;      /* of matrices and biases; 0.02 is what these models start from */
    double norm_deviation; /* norm weights are 1 + this much; 0: exactly 1. For tests */
    mr_dtype dtype;        /* F32, F16 or BF16 */
} mr_untrained_options;
#define MR_UNTRAINED_OPTIONS_DEFAULT \
    ((mr_untrained_options){.seed = 1, .deviation = 0.02, .dtype = MR_DTYPE_F32})

/* Makes the folder when it is not there; replaces the two files, each in one step. */
MR_NODISCARD mr_status mr_untrained_write(const char *folder, const mr_model_config *config,
                                          const mr_untrained_options *opt, mr_error *err);

/* The weights alone, of any model: tensors give names, dtypes and shapes, their data is ignored
 * (opt->dtype is not looked at). A tensor "...norm...weight" is a norm's. With max_shard_bytes
 * above 0 and more weights than that, shards of at most so much each and their index, cut as
 * transformers cuts them; else model.safetensors. */
MR_NODISCARD mr_status mr_untrained_write_tensors(const char *folder, const mr_tensor *tensors,
                                                  size_t n, size_t max_shard_bytes,
                                                  const mr_untrained_options *opt, mr_error *err);

#endif
