/* clock.h - time in microseconds. Monotonic for durations and deadlines, wall for records.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_CLOCK_H
#define MR_CORE_CLOCK_H

#include <stdint.h>

int64_t mr_clock_monotonic_us(void);
int64_t mr_clock_wall_ms(void); /* since 1970-01-01 UTC */

#endif
