/* history.h - a user as embedding tokens made of the items in a history.
 *
 * The direct form (User-LLM's soft prompt without the compressor, arXiv 2402.13598): the embedding
 * tokens of up to N history items, which the projector then maps into the prompt's prefix. With
 * order "set" (the default: the histories at hand have no honest order) items are sorted by the
 * XXH3 of their id and the first N of that order stand for the user, so that the same set gives the
 * same tokens; with "sequence" the last N in the given order.
 * Threads: pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_HISTORY_H
#define MR_ENCODERS_HISTORY_H

#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"

typedef enum { MR_HISTORY_SET, MR_HISTORY_SEQUENCE } mr_history_order;

/* Writes the indexes of the items that stand for the user, in prompt order, to chosen (capacity
 * `most`); returns how many. A repeated id counts once: in a set its first place is told, in a
 * sequence its last one. Takes O(n log n) whatever the ids, and allocates nothing: scratch is the
 * caller's, mr_history_scratch_bytes(n) bytes with malloc's alignment. */
size_t mr_history_choose(const mr_str *ids, size_t n, mr_history_order order, size_t most,
                         size_t *chosen, void *scratch);
size_t mr_history_scratch_bytes(size_t n); /* 16 n; SIZE_MAX when that overflows */

#endif
