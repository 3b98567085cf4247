/* guard.c - see guard.h.
 *
 * Nothing here may allocate: mr_guard_note_allocation runs inside malloc.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/guard.h"

#include <stdatomic.h>

#define NAMED_DEPTH 8 /* deeper phases count, but go by the name of the eighth */

static atomic_int n_active;
static _Atomic(const char *) latest_phase;
static atomic_size_t n_violations;
static _Atomic(const char *) first_violated;
static atomic_size_t first_bytes;

/* The phases of this thread, so that the end of an inner one restores the name of the outer. */
static _Thread_local const char *own_phase[NAMED_DEPTH];
static _Thread_local int own_depth;

void mr_guard_begin(const char *phase)
{
    if (own_depth < NAMED_DEPTH)
        own_phase[own_depth] = phase;
    own_depth++;
    atomic_store(&latest_phase, phase);
    atomic_fetch_add(&n_active, 1);
}

void mr_guard_end(void)
{
    atomic_fetch_sub(&n_active, 1);
    if (own_depth > 0)
        own_depth--;
    if (own_depth > 0 && own_depth <= NAMED_DEPTH)
        atomic_store(&latest_phase, own_phase[own_depth - 1]);
}

void mr_guard_note_allocation(size_t bytes)
{
    if (atomic_load(&n_active) <= 0)
        return;
    const char *phase = atomic_load(&latest_phase);
    if (own_depth > 0)
        phase = own_phase[(own_depth < NAMED_DEPTH ? own_depth : NAMED_DEPTH) - 1];
    if (atomic_fetch_add(&n_violations, 1) == 0) {
        atomic_store(&first_bytes, bytes);
        atomic_store(&first_violated, phase);
    }
}

size_t mr_guard_violations(const char **first_phase)
{
    if (first_phase)
        *first_phase = atomic_load(&first_violated);
    return atomic_load(&n_violations);
}

size_t mr_guard_first_bytes(void)
{
    return atomic_load(&first_bytes);
}
