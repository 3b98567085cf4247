/* prompts.h - how prefix and suffix share a bundle's max_length. Serving and training both expand
 * their prompts here, so that what is learned is what is asked.
 *
 * The prefix may take what the suffix's fixed tokens leave; a suffix what the prefix left.
 * Threads: pure, but for the prompt that is filled.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_MODEL_PROMPTS_H
#define MR_RANKER_MODEL_PROMPTS_H

#include "encoders/template.h"

typedef struct {
    const mr_template *prefix, *suffix;
    size_t max_length;
    size_t item_tokens, image_tokens; /* most of a candidate */
} mr_prompt_shape;

/* EXHAUSTED when the fixed tokens alone are too long. most: another bound on the prefix. */
MR_NODISCARD mr_status mr_prompt_expand_prefix(const mr_prompt_shape *shape, mr_fields fields,
                                               size_t user_tokens, size_t most, mr_prompt *out,
                                               mr_error *err);
/* For a prefix of this length. INVALID when the suffix is empty. */
MR_NODISCARD mr_status mr_prompt_expand_suffix(const mr_prompt_shape *shape, mr_fields fields,
                                               size_t item_tokens, size_t image_tokens,
                                               size_t prefix_length, mr_prompt *out, mr_error *err);

#endif
