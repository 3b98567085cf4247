/* test_record_file.c - files of records: written and read back, cut short and damaged everywhere.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "featurestore/record_file.h"
#include "tests/unit/store_fixture.h"

static const struct {
    mr_entity entity;
    uint64_t space;
    const char *id;
    size_t width;
} rows[] = {
    {MR_ENTITY_ITEM, SPACE, "first", 4},
    {MR_ENTITY_USER, 0, "u", 0},
    {MR_ENTITY_ITEM, UINT64_MAX, "caf\xC3\xA9", 8},
};

/* For free(). */
static char *written(size_t *len)
{
    char *text = NULL;
    FILE *stream = open_memstream(&text, len);
    mr_record_file file;
    mr_error err = {0};
    assert_non_null(stream);
    assert_status(mr_record_file_begin(&file, stream, "out", &err), MR_OK, &err);
    for (size_t i = 0; i < COUNT(rows); i++) {
        const mr_bytes record = record_new(rows[i].space, i + 1, (float)i, rows[i].width);
        assert_status(mr_record_file_write(&file, rows[i].entity, rows[i].space,
                                           mr_str_of(rows[i].id), record, &err),
                      MR_OK, &err);
        record_free(record);
    }
    assert_status(mr_record_file_end(&file, &err), MR_OK, &err);
    fclose(stream);
    return text;
}

/* Reads all; *n is how many whole entries came. */
static mr_status read_all(const void *data, size_t len, size_t *n, mr_error *err)
{
    FILE *stream = len ? fmemopen((void *)(uintptr_t)data, len, "r") : tmpfile();
    mr_record_file file;
    mr_record_entry entry;
    bool more = true;
    *n = 0;
    assert_non_null(stream);
    mr_status status = mr_record_file_open(&file, stream, "in", err);
    while (status == MR_OK && more) {
        status = mr_record_file_read(&file, &entry, &more, err);
        if (status == MR_OK && more) {
            if (*n < COUNT(rows) && entry.entity == rows[*n].entity &&
                entry.space == rows[*n].space && mr_str_equal(entry.id, mr_str_of(rows[*n].id)) &&
                entry.record.len == MR_RECORD_HEADER_BYTES + 4 * rows[*n].width)
                (*n)++;
            else
                break;
        }
    }
    mr_record_file_done(&file);
    fclose(stream);
    return status;
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    size_t len, n;
    mr_error err = {0};
    char *text = written(&len);
    assert_status(read_all(text, len, &n, &err), MR_OK, &err);
    assert_int_equal(n, COUNT(rows));
    free(text);
}

static void one_cut_short_anywhere_is_told_and_keeps_its_whole_records(void **state)
{
    (void)state;
    size_t len, n, last = 0;
    char *text = written(&len);
    for (size_t cut = 0; cut < len; cut++) {
        mr_error err = {0};
        assert_status(read_all(text, cut, &n, &err), MR_CORRUPT, &err);
        assert_contains(err.message, cut < 8 ? "no file of records" : "it was cut short");
        assert_true(n >= last);
        last = n;
    }
    assert_int_equal(last, COUNT(rows));
    free(text);
}

static void damage_anywhere_is_found(void **state)
{
    (void)state;
    size_t len, n;
    char *text = written(&len);
    for (size_t at = 0; at < len; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            mr_error err = {0};
            text[at] = (char)(text[at] ^ 1 << bit);
            const mr_status status = read_all(text, len, &n, &err);
            /* An entry that differs ends read_all early: that is found as well, by the checksum. */
            if (status == MR_OK && n == COUNT(rows))
                fail_msg("bit %u of byte %zu turned round, and nothing was found", bit, at);
            assert_true(status == MR_OK || status == MR_CORRUPT || status == MR_UNSUPPORTED);
            text[at] = (char)(text[at] ^ 1 << bit);
        }
    }
    free(text);
}

static void what_is_no_such_file_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        mr_status status;
        const char *message;
    } row[] = {
        {"", 0, MR_CORRUPT, "'in' is no file of records"},
        {"MRSTORE", 7, MR_CORRUPT, "no file of records"},
        {"MRSTORE2", 8, MR_UNSUPPORTED, "format '2', expected '1'"},
        {"MRSTORE1\2\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0x", 25, MR_CORRUPT, "entity 2"},
        {"MRSTORE1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0x", 25, MR_CORRUPT, "an id of 0 bytes"},
        {"MRSTORE1\0\0\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0x", 25, MR_CORRUPT, "an id of 65535 bytes"},
        {"MRSTORE1\0\0\1\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0x", 25, MR_CORRUPT, "of 4294967295"},
        {"MRSTORE1\0\0\1\0\0\0\0\4\0\0\0\0\0\0\0\0x", 25, MR_CORRUPT, "it was cut short"},
        {"MRSTORE1\0\1\1\0\0\0\0\4\0\0\0\0\0\0\0\0x", 25, MR_CORRUPT, "record 0 is damaged"},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_error err = {0};
        size_t n;
        assert_status(read_all(row[i].bytes, row[i].len, &n, &err), row[i].status, &err);
        assert_contains(err.message, row[i].message);
    }
    size_t len, n;
    mr_error err = {0};
    char *text = written(&len), *longer = malloc(len + 1);
    memcpy(longer, text, len);
    longer[len] = 'x';
    assert_status(read_all(longer, len + 1, &n, &err), MR_CORRUPT, &err);
    assert_contains(err.message, "goes on behind its end mark");
    free(text);
    free(longer);
}

static void a_full_disk_is_told(void **state)
{
    (void)state;
    FILE *full = fopen("/dev/full", "w");
    mr_record_file file;
    mr_error err = {0};
    if (!full)
        skip();
    mr_status status = mr_record_file_begin(&file, full, "disk", &err);
    if (status == MR_OK)
        status = mr_record_file_end(&file, &err);
    assert_status(status, MR_EXHAUSTED, &err);
    assert_contains(err.message, "'disk'");
    fclose(full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(one_cut_short_anywhere_is_told_and_keeps_its_whole_records),
        cmocka_unit_test(damage_anywhere_is_found),
        cmocka_unit_test(what_is_no_such_file_is_refused),
        cmocka_unit_test(a_full_disk_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
