/* session_input.h - checking an mr_input and turning it into rows; internal to sessions.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_SESSION_INPUT_H
#define MR_ENGINE_SESSION_INPUT_H

#include "engine/session.h"

/* INVALID, with the input's name in front, unless ids are in the vocabulary, slots and vectors are
 * as many, and every vector is finite. */
MR_NODISCARD mr_status mr_input_check(const mr_model *model, const mr_input *input,
                                      const char *name, mr_error *err);

/* out[end - begin][C] = the vectors of positions [begin, end) of a checked input. *embed counts the
 * embedding vectors used so far: 0 before the first call. */
void mr_input_rows(const mr_model *model, const mr_input *input, size_t begin, size_t end,
                   size_t *embed, float *out);

#endif
