/* fuzz_record_file.c - a file of records: what is read whole is written again to the same bytes.
 *
 * Each input is tried as it is, and once more with an end mark that fits, without which a fuzzer
 * would never see one accepted.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "featurestore/record_file.h"
#include "tests/fuzz/fuzz.h"

static void require(int condition)
{
    if (!condition)
        abort();
}

static void read_file(const uint8_t *data, size_t size)
{
    char *again = NULL;
    size_t again_len = 0;
    FILE *in = size ? fmemopen((void *)(uintptr_t)data, size, "r") : NULL;
    FILE *out = open_memstream(&again, &again_len);
    mr_record_file from, to;
    mr_record_entry entry;
    mr_error err = {0};
    bool more = true;
    if (in && out) {
        mr_status status = mr_record_file_open(&from, in, "fuzz", &err);
        require(mr_record_file_begin(&to, out, "again", NULL) == MR_OK);
        while (status == MR_OK && more) {
            status = mr_record_file_read(&from, &entry, &more, &err);
            if (status == MR_OK && more)
                require(mr_record_file_write(&to, entry.entity, entry.space, entry.id, entry.record,
                                             NULL) == MR_OK);
        }
        require(mr_record_file_end(&to, NULL) == MR_OK);
        if (status == MR_OK)
            require(again_len == size && memcmp(again, data, size) == 0);
        else
            require(err.status == status && err.message[0] != '\0');
        mr_record_file_done(&from);
    }
    if (in)
        fclose(in);
    if (out)
        fclose(out);
    free(again);
}

/* The number of entries before the end, as far as the lengths can be followed. */
static uint64_t count_entries(const uint8_t *data, size_t size)
{
    uint64_t n = 0;
    for (size_t at = 8; at + 16 <= size && data[at] != 0xff; n++)
        at += 16 + (size_t)mr_load_u16le(data + at + 2) + mr_load_u32le(data + at + 4);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_file(data, size);
    if (size < 24)
        return 0;
    uint8_t *sealed = malloc(size);
    if (!sealed)
        return 0;
    memcpy(sealed, data, size);
    uint8_t *end = sealed + size - 16;
    memset(end, 0, 16);
    end[0] = 0xff;
    mr_store_u32le(end + 4, mr_hash_crc32c(0, sealed, size - 16));
    mr_store_u64le(end + 8, count_entries(sealed, size));
    read_file(sealed, size);
    free(sealed);
    return 0;
}
