/* timeline.h - the keys and values of a prefix: what a session computed once and many suffixes
 * read.
 *
 *     mr_timeline *timeline = NULL;
 *     mr_timeline_new(&timeline, model, 512, &err);
 *     mr_batch batch = {.timeline = timeline, .prefix = &prompt, .suffixes = suffixes, ...};
 *     mr_session_run(session, &batch, hidden, &err);         appends the prompt, reads it
 *
 * A session owns one and uses it when a batch names none. Timelines apart from a session let
 * prefixes outlive the request that computed them (a cache) and let one run serve several prefixes
 * at once. What a timeline holds depends on the positions that were appended, not on which session
 * of the model did it, nor in how many runs.
 *
 * Memory: L x K x capacity x D floats, twice, allocated at creation.
 * Threads: a run that appends to a timeline has it alone; runs that only read it may share it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_TIMELINE_H
#define MR_ENGINE_TIMELINE_H

#include <stddef.h>

#include "core/error.h"
#include "engine/model.h"

typedef struct mr_timeline mr_timeline;

/* capacity: positions, at most the model's max_positions (EXHAUSTED). model is borrowed. */
MR_NODISCARD mr_status mr_timeline_new(mr_timeline **out, const mr_model *model, size_t capacity,
                                       mr_error *err);
void mr_timeline_free(mr_timeline *timeline); /* NULL is fine */
size_t mr_timeline_bytes(const mr_timeline *timeline);
/* What one of this capacity takes; SIZE_MAX when it does not fit a size_t. */
size_t mr_timeline_bytes_for(const mr_model *model, size_t capacity);

size_t mr_timeline_length(const mr_timeline *timeline); /* positions held */
size_t mr_timeline_capacity(const mr_timeline *timeline);
/* Forgets all positions from `length` on: an instruction prefix that many queries share stays. */
void mr_timeline_truncate(mr_timeline *timeline, size_t length);

/* `to` then holds the first `length` positions of `from`, and nothing else: to branch off a shared
 * beginning. INVALID when from holds fewer, to has less room, or the models differ. */
MR_NODISCARD mr_status mr_timeline_copy(mr_timeline *to, const mr_timeline *from, size_t length,
                                        mr_error *err);

#endif
