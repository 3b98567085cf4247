/* cpu_count.h - INTERNAL to core: the control-group part of mr_cpu_count, on files of the caller's
 * choice so that it can be tested.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_CPU_COUNT_H
#define MR_CORE_CPU_COUNT_H

/* membership is laid out as /proc/self/cgroup, root as /sys/fs/cgroup. The smallest CPU quota on
 * the way from the process's group to the root, rounded up to whole CPUs; 0 when there is none. */
int mr_cgroup_cpu_limit(const char *membership, const char *root);

#endif
