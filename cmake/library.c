/* library.c - libmixrank's own object: a shared library needs one source, and this one tells which
 * build a user has linked.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/api.h"
#include "mixrank_version.h"

const char *mr_library_version(void)
{
    return MR_VERSION " (" MR_COMMIT ")";
}
