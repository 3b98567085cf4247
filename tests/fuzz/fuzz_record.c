/* fuzz_record.c - what passes the check decodes, to finite values, and encodes to the same bytes.
 *
 * Each input is tried as it is and once more with a right checksum and payload length, without
 * which a fuzzer would never come past the header.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "featurestore/record.h"
#include "tests/fuzz/fuzz.h"

static void require(int condition)
{
    if (!condition)
        abort();
}

/* int8 is left out: another writer may choose scales that ours would not. */
static void encode_again(const mr_record_info *info, const float *values, mr_bytes record)
{
    if (info->dtype == MR_RECORD_I8 && !info->tombstone)
        return;
    require(mr_record_bytes(info) == record.len);
    void *again = malloc(record.len);
    if (!again)
        return;
    require(mr_record_encode(info, values, again, NULL) == MR_OK);
    require(memcmp(again, record.data, record.len) == 0);
    free(again);
}

static void read_record(mr_bytes record)
{
    mr_error err = {0};
    mr_record_info peeked, checked, decoded;
    mr_status peek = mr_record_peek("fuzz", record, &peeked, &err);
    mr_status check = mr_record_check("fuzz", record, &checked, &err);
    if (check != MR_OK) {
        require(check == MR_CORRUPT && err.message[0] != '\0');
        require(mr_record_decode("fuzz", record, &decoded, NULL, 0, NULL) == MR_CORRUPT);
        return;
    }
    require(peek == MR_OK && peeked.version == checked.version && peeked.space == checked.space);

    size_t n = (size_t)checked.tokens * checked.dim;
    float *values = malloc((n ? n : 1) * sizeof *values);
    if (!values)
        return;
    if (n)
        require(mr_record_decode("fuzz", record, &decoded, values, n - 1, &err) == MR_INVALID);
    require(mr_record_decode("fuzz", record, &decoded, values, n, &err) == MR_OK);
    for (size_t i = 0; i < n; i++)
        require(isfinite(values[i]));
    encode_again(&decoded, values, record);
    free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_record((mr_bytes){data, size});
    if (size < MR_RECORD_HEADER_BYTES)
        return 0;
    uint8_t *sealed = malloc(size);
    if (!sealed)
        return 0;
    memcpy(sealed, data, size);
    mr_store_u32le(sealed + 36, (uint32_t)(size - MR_RECORD_HEADER_BYTES));
    mr_store_u32le(sealed + 40, 0);
    mr_store_u32le(sealed + 40, mr_hash_crc32c(0, sealed, size));
    read_record((mr_bytes){sealed, size});
    free(sealed);
    return 0;
}
