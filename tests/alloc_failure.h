/* alloc_failure.h - memory that runs out at the k-th allocation of our code, for tests that are
 * made with mr_test(... ALLOC_FAILURE).
 *
 *     for (bool done = false; !done; k++) {
 *         alloc_fail_at(k);
 *         status = work(&err);
 *         done = !alloc_failed();                there were fewer allocations than k
 *     }
 *
 * The linker's --wrap sends our code's calls here; those inside shared libraries are not seen.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_ALLOC_FAILURE_H
#define MR_TESTS_ALLOC_FAILURE_H

#include <stdbool.h>

/* The k-th allocation from here on fails, k from 1; those after it do not. */
void alloc_fail_at(long k);
/* Whether it has failed. From here on none does. */
bool alloc_failed(void);

#endif
