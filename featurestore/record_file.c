/* record_file.c - see record_file.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/record_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/hash.h"
#include "featurestore/record.h"

#define MAGIC       "MRSTORE1"
#define MAGIC_BYTES 8
#define HEAD_BYTES  16
#define END_MARK    0xff
/* The largest record that there can be: f32, all tokens, the full width. */
#define MAX_RECORD (MR_RECORD_HEADER_BYTES + (size_t)4 * MR_RECORD_MAX_TOKENS * MR_RECORD_MAX_DIM)

/* ---- writing --------------------------------------------------------------------------------- */

static mr_status put_bytes(mr_record_file *file, const void *data, size_t len, mr_error *err)
{
    if (len && fwrite(data, 1, len, file->stream) != len)
        return mr_file_fail(err, errno, "write", file->name);
    file->crc = mr_hash_crc32c(file->crc, data, len);
    return MR_OK;
}

mr_status mr_record_file_begin(mr_record_file *out, FILE *stream, const char *name, mr_error *err)
{
    *out = (mr_record_file){.stream = stream, .name = name};
    return put_bytes(out, MAGIC, MAGIC_BYTES, err);
}

mr_status mr_record_file_write(mr_record_file *file, mr_entity entity, uint64_t space, mr_str id,
                               mr_bytes record, mr_error *err)
{
    unsigned char head[HEAD_BYTES] = {(unsigned char)entity};
    if (id.len == 0 || id.len > MR_STORE_MAX_ID_BYTES || record.len > MAX_RECORD)
        return MR_FAIL(err, INVALID, "'%s': an id of %zu bytes and a record of %zu cannot be kept",
                       file->name, id.len, record.len);
    mr_store_u16le(head + 2, (uint16_t)id.len);
    mr_store_u32le(head + 4, (uint32_t)record.len);
    mr_store_u64le(head + 8, space);
    mr_status status = put_bytes(file, head, sizeof head, err);
    if (status == MR_OK)
        status = put_bytes(file, id.data, id.len, err);
    if (status == MR_OK)
        status = put_bytes(file, record.data, record.len, err);
    file->entries += status == MR_OK;
    return status;
}

mr_status mr_record_file_end(mr_record_file *file, mr_error *err)
{
    unsigned char head[HEAD_BYTES] = {END_MARK};
    mr_store_u32le(head + 4, file->crc);
    mr_store_u64le(head + 8, file->entries);
    mr_status status = put_bytes(file, head, sizeof head, err);
    if (status == MR_OK && fflush(file->stream) != 0)
        status = mr_file_fail(err, errno, "write", file->name);
    return status;
}

/* ---- reading --------------------------------------------------------------------------------- */

static mr_status get_bytes(mr_record_file *file, void *out, size_t len, mr_error *err)
{
    const size_t got = fread(out, 1, len, file->stream);
    if (got == len)
        return MR_OK;
    if (ferror(file->stream))
        return mr_file_fail(err, errno, "read", file->name);
    return MR_FAIL(err, CORRUPT,
                   "'%s' ends after %llu records without its end mark: it was cut short; what it "
                   "holds was read",
                   file->name, (unsigned long long)file->entries);
}

mr_status mr_record_file_open(mr_record_file *out, FILE *stream, const char *name, mr_error *err)
{
    char magic[MAGIC_BYTES];
    *out = (mr_record_file){.stream = stream, .name = name};
    const size_t got = fread(magic, 1, sizeof magic, stream);
    if (got < sizeof magic && ferror(stream))
        return mr_file_fail(err, errno, "read", name);
    if (got < sizeof magic || memcmp(magic, MAGIC, MAGIC_BYTES - 1) != 0)
        return MR_FAIL(err, CORRUPT,
                       "'%s' is no file of records: it does not begin with \"" MAGIC "\"", name);
    if (magic[MAGIC_BYTES - 1] != MAGIC[MAGIC_BYTES - 1])
        return MR_FAIL(err, UNSUPPORTED, "'%s' is a file of records of format '%c', expected '%c'",
                       name, magic[MAGIC_BYTES - 1] >= ' ' ? magic[MAGIC_BYTES - 1] : '?',
                       MAGIC[MAGIC_BYTES - 1]);
    out->crc = mr_hash_crc32c(0, magic, sizeof magic);
    return MR_OK;
}

static mr_status check_end(mr_record_file *file, const unsigned char *head, mr_error *err)
{
    if (mr_load_u32le(head + 4) != file->crc || mr_load_u64le(head + 8) != file->entries)
        return MR_FAIL(err, CORRUPT,
                       "'%s': %llu records with checksum %08x were read, its end mark says %llu "
                       "with %08x: it is damaged",
                       file->name, (unsigned long long)file->entries, (unsigned)file->crc,
                       (unsigned long long)mr_load_u64le(head + 8),
                       (unsigned)mr_load_u32le(head + 4));
    if (fgetc(file->stream) != EOF)
        return MR_FAIL(err, CORRUPT, "'%s' goes on behind its end mark", file->name);
    return MR_OK;
}

mr_status mr_record_file_read(mr_record_file *file, mr_record_entry *out, bool *more, mr_error *err)
{
    unsigned char head[HEAD_BYTES];
    mr_status status = get_bytes(file, head, sizeof head, err);
    if (status != MR_OK)
        return status;
    *more = head[0] != END_MARK;
    const size_t id = mr_load_u16le(head + 2), record = mr_load_u32le(head + 4);
    if (head[1] != 0 || (!*more && id != 0))
        return MR_FAIL(err, CORRUPT, "'%s': the entry after record %llu is damaged", file->name,
                       (unsigned long long)file->entries);
    if (!*more)
        return check_end(file, head, err);
    if (head[0] >= MR_ENTITY_COUNT || id == 0 || id > MR_STORE_MAX_ID_BYTES || record > MAX_RECORD)
        return MR_FAIL(err, CORRUPT,
                       "'%s': the entry after record %llu is damaged: entity %u, an id of %zu "
                       "bytes, a record of %zu",
                       file->name, (unsigned long long)file->entries, head[0], id, record);
    /* A length that lies costs no more memory than the file has bytes: the room grows with what was
     * read. */
    file->crc = mr_hash_crc32c(file->crc, head, sizeof head);
    for (size_t done = 0, len = id + record; done < len;) {
        const size_t step = len - done < ((size_t)1 << 20) ? len - done : (size_t)1 << 20;
        if (done + step > file->capacity) {
            const size_t capacity = mr_size_max(done + step, 2 * file->capacity);
            unsigned char *bigger = realloc(file->buffer, capacity);
            if (!bigger)
                return MR_FAIL(err, NO_MEMORY, "a record of %zu bytes", record);
            file->buffer = bigger;
            file->capacity = capacity;
        }
        status = get_bytes(file, file->buffer + done, step, err);
        if (status != MR_OK)
            return status;
        done += step;
    }
    file->crc = mr_hash_crc32c(file->crc, file->buffer, id + record);
    file->entries++;
    *out = (mr_record_entry){.entity = (mr_entity)head[0],
                             .space = mr_load_u64le(head + 8),
                             .id = {(const char *)file->buffer, id},
                             .record = {file->buffer + id, record}};
    return MR_OK;
}

void mr_record_file_done(mr_record_file *file)
{
    free(file->buffer);
    file->buffer = NULL;
    file->capacity = 0;
}
