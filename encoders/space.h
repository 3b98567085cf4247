/* space.h - which encoder made a vector: a 64-bit fingerprint of its canonical description.
 *
 * The description is a JSON object with at least "kind":
 *
 *     causal_last_n  {kind, text, tokens, max_tokens, append_eos, dim, files: {name: sha256}}
 *     external       {kind, name, dim, normalised}
 *     history        {kind, tokens, order, item_space; dim and files with a user encoder}
 *
 * Its canonical text is compact JSON with sorted keys, UTF-8, reals with 17 significant digits
 * (jansson's dump); the space is XXH3-64 of that text, written as 16 lower-case hex digits. Two
 * vectors may be compared or mixed only when their spaces are equal.
 * Threads: pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_SPACE_H
#define MR_ENCODERS_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/json.h"

#define MR_SPACE_TEXT 17 /* 16 digits and the terminator */

/* INVALID when it is no object or has no "kind". The order of keys does not matter, that of arrays
 * does. */
MR_NODISCARD mr_status mr_space_of(const json_t *description, uint64_t *out, mr_error *err);
void mr_space_format(uint64_t space, char out[MR_SPACE_TEXT]);
/* Exactly the form above: it is part of keys, so that no second spelling may pass. */
MR_NODISCARD mr_status mr_space_parse(const char *text, uint64_t *out, mr_error *err);

/* Vectors [n, dim] from outside: finite and, when the space says so, of unit length (within 1e-2).
 * INVALID names the vector and what it holds. name is for messages. */
MR_NODISCARD mr_status mr_external_check(const char *name, const float *vectors, size_t n,
                                         size_t dim, bool normalised, mr_error *err);

#endif
