/* hash.h - the three hashes of the project and what each is for.
 *
 *   XXH3-64   identity of spaces, caches and numerics ids (xxHash 0.8: stable output)
 *   CRC-32C   record integrity (polynomial 0x1EDC6F41, reflected, as iSCSI, RFC 3720 B.4)
 *   SHA-256   file digests in bundles (FIPS 180-4)
 *
 * Hashes that experiments specify live with the experiments.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_HASH_H
#define MR_CORE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

uint64_t mr_hash_xxh3(const void *data, size_t len);

/* Chainable: start with 0; mr_hash_crc32c(mr_hash_crc32c(0, a), b) is the checksum of a then b. */
uint32_t mr_hash_crc32c(uint32_t crc, const void *data, size_t len);

#define MR_SHA256_HEX 65 /* 64 digits and the terminator */
mr_status mr_hash_sha256_hex(const void *data, size_t len, char out[MR_SHA256_HEX], mr_error *err);
mr_status mr_hash_sha256_file(const char *path, char out[MR_SHA256_HEX], mr_error *err);

#endif
