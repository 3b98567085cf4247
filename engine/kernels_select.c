/* kernels_select.c - which kernel sets this machine can run, and which one it uses.
 *
 * Compiled without instruction-set flags: it runs on any CPU of the architecture before the
 * question is answered. Looking at the environment and the CPU costs microseconds, so nothing is
 * cached: tests may change the variable between two models.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernels.h"

#ifdef MR_HAVE_AVX2
#    include <cpuid.h>

static bool runs_avx2(void)
{
    /* f16c is not a name that every compiler's __builtin_cpu_supports knows. The builtin also asks
     * whether the operating system saves the wide registers. */
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

size_t mr_kernels_available(const mr_kernels *list[MR_KERNELS_MAX])
{
    size_t n = 0;
    list[n++] = &mr_kernels_generic;
#ifdef MR_HAVE_AVX2
    if (runs_avx2())
        list[n++] = &mr_kernels_avx2;
#endif
    return n;
}

const mr_kernels *mr_kernels_find(const char *name)
{
    const mr_kernels *list[MR_KERNELS_MAX];
    const size_t n = mr_kernels_available(list);
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i]->name, name) == 0)
            return list[i];
    return NULL;
}

const mr_kernels *mr_kernels_select(void)
{
    const mr_kernels *list[MR_KERNELS_MAX];
    const size_t n = mr_kernels_available(list);
    const char *wanted = getenv("MIXRANK_KERNELS");
    const mr_kernels *found = wanted ? mr_kernels_find(wanted) : NULL;
    return found ? found : list[n - 1];
}
