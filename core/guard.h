/* guard.h - proves that a phase does not allocate.
 *
 *     mr_guard_begin("forward");
 *     ...                              an allocation here is counted and named by a test build
 *     mr_guard_end();
 *
 * The engine brackets its forward pass with this pair; it costs two atomic operations. Tests that
 * link tests/alloc_guard.c wrap malloc and its kin and call mr_guard_note_allocation, which records
 * a violation when any thread is inside a guarded phase of the process. Phases nest.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_GUARD_H
#define MR_CORE_GUARD_H

#include <stddef.h>

void mr_guard_begin(const char *phase /* static storage */);
void mr_guard_end(void);

void mr_guard_note_allocation(size_t bytes);
/* Violations since the start, and the phase of the first (NULL when none). */
size_t mr_guard_violations(const char **first_phase);
/* What the first violation asked for: helps to find it. 0 when there was none. */
size_t mr_guard_first_bytes(void);

#endif
