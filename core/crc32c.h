/* crc32c.h - INTERNAL to core: the two ways to compute CRC-32C, so that tests hold both to the same
 * answers. Others call mr_hash_crc32c.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_CRC32C_H
#define MR_CORE_CRC32C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Both take and return the finished form, as mr_hash_crc32c does. */
uint32_t mr_crc32c_tables(uint32_t crc, const void *data, size_t len);

#ifdef MR_HAVE_CRC32C_SSE42
bool mr_crc32c_sse42_usable(void);
uint32_t mr_crc32c_sse42(uint32_t crc, const void *data, size_t len);
#endif

#endif
