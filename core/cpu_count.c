/* cpu_count.c - how many CPUs this process may keep busy.
 *
 * Three limits apply at once: the affinity mask (taskset, cpusets), and the CPU quota of the
 * process's control group and of every group above it, in version 2 (cpu.max) or version 1
 * (cpu.cfs_quota_us) form. A container without a namespace of its own reads the host's path in
 * /proc/self/cgroup but sees its group mounted at the root; walking up to the root covers both.
 * Compiled with _GNU_SOURCE (CMakeLists.txt) for sched_getaffinity.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/cpu_count.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/threads.h"

#define AFFINITY_CPUS_MAX (1 << 16)

static int affinity_count(void)
{
#ifdef CPU_ALLOC
    /* A mask smaller than the kernel's is refused with EINVAL: try larger ones. */
    for (int n = 1024; n <= AFFINITY_CPUS_MAX; n *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)n);
        if (!set)
            break;
        size_t bytes = CPU_ALLOC_SIZE((size_t)n);
        int failed = sched_getaffinity(0, bytes, set) != 0 ? errno : 0;
        int count = failed ? 0 : CPU_COUNT_S(bytes, set);
        CPU_FREE(set);
        if (count > 0)
            return count;
        if (failed != EINVAL)
            break;
    }
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online < INT_MAX ? (int)online : 1;
}

/* Up to two whole numbers from the start of a small file; the others are 0. "max" is none. */
static void read_numbers(const char *path, long long *first, long long *second)
{
    *first = *second = 0;
    FILE *stream = fopen(path, "re");
    if (!stream)
        return;
    char line[64];
    if (fgets(line, sizeof line, stream)) {
        char *end = line;
        *first = strtoll(line, &end, 10);
        *second = strtoll(end, NULL, 10);
    }
    fclose(stream);
}

/* The quota of one group in CPUs, rounded up; 0 when it has none. */
static int group_limit(const char *root, const char *controller, const char *group)
{
    char path[PATH_MAX];
    long long quota, period, unused;
    if (controller[0] == '\0') {
        snprintf(path, sizeof path, "%s%s/cpu.max", root, group);
        read_numbers(path, &quota, &period);
    } else {
        snprintf(path, sizeof path, "%s/%s%s/cpu.cfs_quota_us", root, controller, group);
        read_numbers(path, &quota, &unused);
        snprintf(path, sizeof path, "%s/%s%s/cpu.cfs_period_us", root, controller, group);
        read_numbers(path, &period, &unused);
    }
    if (quota <= 0 || period <= 0)
        return 0;
    long long cpus = quota / period + (quota % period != 0);
    return cpus < INT_MAX ? (int)cpus : 0;
}

static bool names_cpu(const char *controllers)
{
    for (const char *at = controllers; *at;) {
        size_t len = strcspn(at, ",");
        if (len == 3 && memcmp(at, "cpu", 3) == 0)
            return true;
        at += len + (at[len] == ',');
    }
    return false;
}

int mr_cgroup_cpu_limit(const char *membership, const char *root)
{
    FILE *stream = fopen(membership, "re");
    if (!stream)
        return 0;
    int smallest = 0;
    char line[PATH_MAX];
    /* hierarchy:controllers:path; no controllers means version 2. */
    while (fgets(line, sizeof line, stream)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group || group[1] != '/')
            continue;
        controllers++;
        *group++ = '\0';
        if (controllers[0] != '\0' && !names_cpu(controllers))
            continue;
        size_t len = strlen(group);
        while (len > 0 && group[len - 1] == '/')
            group[--len] = '\0';
        for (;;) {
            int limit = group_limit(root, controllers, group);
            if (limit > 0 && (smallest == 0 || limit < smallest))
                smallest = limit;
            char *slash = strrchr(group, '/');
            if (!slash)
                break;
            *slash = '\0';
        }
    }
    fclose(stream);
    return smallest;
}

int mr_cpu_count(void)
{
    int count = affinity_count();
    int limit = mr_cgroup_cpu_limit("/proc/self/cgroup", "/sys/fs/cgroup");
    if (limit > 0 && limit < count)
        count = limit;
    return count < MR_MAX_THREADS ? count : MR_MAX_THREADS;
}
