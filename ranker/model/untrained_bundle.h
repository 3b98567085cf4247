/* untrained_bundle.h - a whole bundle with random weights and a byte-level tokenizer: to try the
 * program before anything is trained, and to measure real shapes. What it ranks means nothing, and
 * everything that reads it says so.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_MODEL_UNTRAINED_BUNDLE_H
#define MR_RANKER_MODEL_UNTRAINED_BUNDLE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "engine/untrained.h"

/* A byte-level BPE tokenizer.json whose vocabulary is the 256 bytes, "yes", "no" and the special
 * tokens of Qwen3: every text has ids, and a model of any vocabulary of 300 or more fits it. */
MR_NODISCARD mr_status mr_untrained_tokenizer_write(const char *path, mr_error *err);

typedef struct {
    const mr_untrained_shape *shape; /* of ranker and item encoder */
    mr_dtype dtype;
    uint64_t seed;
    int item_tokens; /* embedding tokens of an item */
    int user_tokens; /* history items that stand for a user; 0: no user slot */
    bool overwrite;
} mr_untrained_bundle_options;

MR_NODISCARD mr_status mr_untrained_bundle_write(const char *folder,
                                                 const mr_untrained_bundle_options *opt,
                                                 mr_error *err);

#endif
