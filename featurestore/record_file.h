/* record_file.h - records in a plain file: to carry a store elsewhere, or to keep it.
 *
 *   file     "MRSTORE1", then entries, then the end mark
 *   entry    entity u8 (0 item, 1 user), 0 u8, id bytes u16, record bytes u32, space u64,
 *            the id, the record (record.h)
 *   end      0xff u8, 0 u8, 0 u16, checksum u32, entries u64
 *
 * Little-endian. The checksum is the CRC-32C of all that stands before the end mark. Without an end
 * mark the file was cut short, and what follows one is not of the file. Nothing in it depends on
 * the machine or the back end that it came from; entries come in any order.
 * Threads: one reader or writer, one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_RECORD_FILE_H
#define MR_FEATURESTORE_RECORD_FILE_H

#include <stdio.h>

#include "featurestore/store.h"

typedef struct {
    FILE *stream;     /* borrowed */
    const char *name; /* for messages; borrowed */
    uint64_t entries;
    uint32_t crc;
    /* Reading. */
    unsigned char *buffer; /* owned */
    size_t capacity;
} mr_record_file;

/* EXHAUSTED: the disk is full; IO otherwise. The caller flushes and closes the stream. */
MR_NODISCARD mr_status mr_record_file_begin(mr_record_file *out, FILE *stream, const char *name,
                                            mr_error *err);
MR_NODISCARD mr_status mr_record_file_write(mr_record_file *file, mr_entity entity, uint64_t space,
                                            mr_str id, mr_bytes record, mr_error *err);
MR_NODISCARD mr_status mr_record_file_end(mr_record_file *file, mr_error *err);

typedef struct {
    mr_entity entity;
    uint64_t space;
    mr_str id;       /* until the next read */
    mr_bytes record; /* likewise; not checked */
} mr_record_entry;

/* CORRUPT when the file is none of ours. Free with mr_record_file_done, which leaves the stream. */
MR_NODISCARD mr_status mr_record_file_open(mr_record_file *out, FILE *stream, const char *name,
                                           mr_error *err);
/* *more false at the end mark, when everything fits together. CORRUPT: cut short, a length out of
 * bounds, a checksum that does not fit, or bytes behind the end. */
MR_NODISCARD mr_status mr_record_file_read(mr_record_file *file, mr_record_entry *out, bool *more,
                                           mr_error *err);
void mr_record_file_done(mr_record_file *file);

#endif
