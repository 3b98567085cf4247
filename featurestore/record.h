/* record.h - an embedding record: the bytes that stand for one item or user in a store.
 *
 *   offset size
 *        0    4  magic "MRE1"
 *        4    1  layout, 1
 *        5    1  dtype: 0 f32, 1 f16, 2 bf16, 3 int8
 *        6    1  flags: bit 0 tombstone (the entity was removed; no payload)
 *        7    1  zero
 *        8    8  version, u64: a record replaces one with a smaller version only
 *       16    8  space, u64: which encoder made the vectors
 *       24    8  event time, i64, milliseconds since 1970
 *       32    2  tokens, T
 *       34    2  dim, D
 *       36    4  payload bytes
 *       40    4  CRC-32C of the header (with this field 0) and the payload
 *       44    4  zero
 *       48       payload: T rows of D values; int8: T f32 scales, padded with zeros to a multiple
 * of 16 bytes, then T x D int8 (value = scale x integer; written: -127 to 127)
 *
 * Little-endian; readers assume no alignment. A tombstone has T = D = 0. What is stored is the
 * encoder's output before the projector. Reading trusts nothing: lengths, checksum, dtype and
 * finiteness are checked, and a failure names the key. Only in-range input gives a record: a value
 * that a dtype would turn into infinity is refused, not clamped.
 * Threads: pure functions.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_RECORD_H
#define MR_FEATURESTORE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/error.h"

#define MR_RECORD_HEADER_BYTES 48
#define MR_RECORD_MAX_TOKENS   1024
#define MR_RECORD_MAX_DIM      16384

typedef enum {
    MR_RECORD_F32 = 0,
    MR_RECORD_F16 = 1,
    MR_RECORD_BF16 = 2,
    MR_RECORD_I8 = 3,
    MR_RECORD_DTYPE_COUNT
} mr_record_dtype;

const char *mr_record_dtype_name(mr_record_dtype dtype); /* "f32", "f16", "bf16", "int8" */
bool mr_record_dtype_from_name(const char *name, mr_record_dtype *out);

typedef struct {
    mr_record_dtype dtype;
    bool tombstone;
    uint64_t version;
    uint64_t space;
    int64_t event_ms;
    uint16_t tokens;
    uint16_t dim;
} mr_record_info;

/* Header plus payload for this info; 0 when dtype, tokens or dim are out of bounds. The shape of a
 * tombstone is not looked at. */
size_t mr_record_bytes(const mr_record_info *info);

/* Encodes values [tokens, dim] f32 (NULL for a tombstone) into out, which has mr_record_bytes and
 * holds no record after a failure. INVALID when a value is not finite, or overflows the dtype. */
MR_NODISCARD mr_status mr_record_encode(const mr_record_info *info, const float *values, void *out,
                                        mr_error *err);

/* Checks everything, values included, and reports the header: what passes always decodes. key (may
 * be NULL) is for messages. CORRUPT on any damage; *info is untouched then, here and below. */
MR_NODISCARD mr_status mr_record_check(const char *key, mr_bytes record, mr_record_info *info,
                                       mr_error *err);
/* The header alone (magic, layout, lengths), no checksum: for comparing versions. */
MR_NODISCARD mr_status mr_record_peek(const char *key, mr_bytes record, mr_record_info *info,
                                      mr_error *err);

/* mr_record_check, then the values as f32 into out [tokens, dim]; out_values is its capacity
 * (INVALID when it is too small). out is untouched on failure. A tombstone decodes to zero tokens.
 */
MR_NODISCARD mr_status mr_record_decode(const char *key, mr_bytes record, mr_record_info *info,
                                        float *out, size_t out_values, mr_error *err);

#endif
