/* layout.c - see layout.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/layout.h"

#include <stdint.h>
#include <stdlib.h>

#include "core/bytes.h"

void *mr_layout_part(mr_layout *layout, size_t rows, size_t columns, size_t size)
{
    size_t bytes, end;
    if (!mr_size_mul(rows, columns, &bytes) || !mr_size_mul(bytes, size, &bytes) ||
        !mr_size_add(bytes, MR_LAYOUT_ALIGN - 1, &bytes) ||
        !mr_size_add(layout->used, bytes / MR_LAYOUT_ALIGN * MR_LAYOUT_ALIGN, &end)) {
        layout->overflow = true;
        return NULL;
    }
    void *p = layout->base ? layout->base + layout->used : NULL;
    layout->used = end;
    return p;
}

void *mr_layout_allocate(const mr_layout *plan, mr_layout *real, size_t *bytes)
{
    if (plan->overflow || plan->used > SIZE_MAX - MR_LAYOUT_ALIGN)
        return NULL;
    /* calloc, because large blocks come zeroed and untouched. */
    char *memory = calloc(1, plan->used + MR_LAYOUT_ALIGN);
    if (!memory)
        return NULL;
    *real = (mr_layout){.base = memory + (size_t)(-(uintptr_t)memory % MR_LAYOUT_ALIGN)};
    *bytes = plan->used + MR_LAYOUT_ALIGN;
    return memory;
}
