/* lmdb_header.c - see lmdb_header.h.
 *
 * LMDB checks the magic number and the version, and uses the rest of its meta pages as it finds it:
 * a page size of 0 ends in a division by zero. Checked here is what never changes in the life of a
 * file, so that a writer in another process cannot make the look fail. The layout is that of LMDB
 * 0.9 on a 64-bit machine (mdb.c: MDB_page, MDB_meta, MDB_db), numbers in the machine's own order;
 * a file of another data version is left to LMDB, which refuses it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/lmdb_header.h"

#include <lmdb.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    AT_PAGE_FLAGS = 10,
    AT_MAGIC = 16,
    AT_VERSION = 20,
    AT_PAGE_SIZE = 40,
    AT_FREE_FLAGS = 44,
    AT_FREE_ROOT = 80,
    AT_MAIN_ROOT = 128,
    META_BYTES = 152
};
#define MAGIC        UINT32_C(0xBEEFC0DE)
#define DATA_VERSION 1u
#define META_PAGE    0x08u
/* Kept in the same field as the flags of the list of free pages. */
#define ENV_FLAGS     (MDB_FIXEDMAP | MDB_NOSUBDIR)
#define MIN_PAGE_SIZE 512
#define MAX_PAGE_SIZE 65536

static uint32_t native_u32(const unsigned char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint16_t native_u16(const unsigned char *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static size_t native_page(const unsigned char *p)
{
    size_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static const char *meta_fault(const unsigned char *meta)
{
    uint32_t page_size = native_u32(meta + AT_PAGE_SIZE);
    if (native_u32(meta + AT_MAGIC) != MAGIC || !(native_u16(meta + AT_PAGE_FLAGS) & META_PAGE))
        return "it does not begin as an LMDB file does";
    if (native_u32(meta + AT_VERSION) != DATA_VERSION)
        return NULL;
    if (page_size < MIN_PAGE_SIZE || page_size > MAX_PAGE_SIZE || (page_size & (page_size - 1)))
        return "its page size makes no sense";
    if ((native_u16(meta + AT_FREE_FLAGS) & ~ENV_FLAGS) != MDB_INTEGERKEY)
        return "its list of free pages is damaged";
    if (native_page(meta + AT_FREE_ROOT) < 2 || native_page(meta + AT_MAIN_ROOT) < 2)
        return "its header calls itself a data page";
    return NULL;
}

const char *mr_lmdb_header_fault(int fd)
{
    unsigned char first[META_BYTES], second[META_BYTES];
    struct stat st;
    if (fstat(fd, &st) != 0 || st.st_size == 0)
        return NULL;
    if (pread(fd, first, sizeof first, 0) != (ssize_t)sizeof first)
        return "it is too short for an LMDB file";
    const char *fault = meta_fault(first);
    if (fault || native_u32(first + AT_VERSION) != DATA_VERSION)
        return fault;

    uint32_t page_size = native_u32(first + AT_PAGE_SIZE);
    if (pread(fd, second, sizeof second, page_size) != (ssize_t)sizeof second)
        return "it ends within its header";
    fault = meta_fault(second);
    if (!fault && native_u32(second + AT_PAGE_SIZE) != page_size)
        fault = "its two headers differ";
    return fault;
}
