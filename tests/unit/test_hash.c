/* test_hash.c - published vectors, and both CRC-32C paths against each other.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32c.h"
#include "core/hash.h"
#include "core/rng.h"
#include "tests/support.h"

static void crc32c_matches_rfc_3720(void **state)
{
    (void)state;
    unsigned char zeros[32] = {0}, ones[32], up[32], down[32];
    memset(ones, 0xff, sizeof ones);
    for (int i = 0; i < 32; i++) {
        up[i] = (unsigned char)i;
        down[i] = (unsigned char)(31 - i);
    }
    /* RFC 3720 B.4: a read command of iSCSI. */
    const unsigned char command[48] = {
        0x01, 0xc0, 0, 0,    0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 4, 0,
        0,    0,    0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0};
    const struct {
        const void *data;
        size_t len;
        uint32_t want;
    } cases[] = {
        {zeros, 32, 0x8A9136AA},
        {ones, 32, 0x62A8AB43},
        {up, 32, 0x46DD794E},
        {down, 32, 0x113FDB5C},
        {command, 48, 0xD9963A56},
        {"123456789", 9, 0xE3069283}, /* the check value of catalogues of CRCs */
        {"", 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t got = mr_hash_crc32c(0, cases[i].data, cases[i].len);
        uint32_t tables = mr_crc32c_tables(0, cases[i].data, cases[i].len);
        if (got != cases[i].want || tables != cases[i].want)
            fail_msg("case %zu: 0x%08X, by tables 0x%08X, expected 0x%08X", i, got, tables,
                     cases[i].want);
    }
}

static void crc32c_is_the_same_by_instruction_by_tables_and_in_pieces(void **state)
{
    (void)state;
    unsigned char data[300];
    mr_rng rng = mr_rng_seed(7);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)mr_rng_u64(&rng);
    for (size_t start = 0; start < 9; start++) {
        for (size_t len = 0; len + start <= sizeof data; len++) {
            uint32_t want = mr_crc32c_tables(0, data + start, len);
            size_t cut = len / 3;
            uint32_t chained =
                mr_hash_crc32c(mr_hash_crc32c(0, data + start, cut), data + start + cut, len - cut);
            if (chained != want || mr_hash_crc32c(0, data + start, len) != want)
                fail_msg("start %zu, length %zu: tables and chosen path differ", start, len);
#ifdef MR_HAVE_CRC32C_SSE42
            if (mr_crc32c_sse42_usable())
                assert_int_equal(mr_crc32c_sse42(0, data + start, len), want);
#endif
        }
    }
}

static void crc32c_sees_every_single_flipped_bit(void **state)
{
    (void)state;
    unsigned char data[64] = {0};
    uint32_t want = mr_hash_crc32c(0, data, sizeof data);
    for (size_t bit = 0; bit < 8 * sizeof data; bit++) {
        data[bit / 8] ^= (unsigned char)(1u << bit % 8);
        assert_int_not_equal(mr_hash_crc32c(0, data, sizeof data), want);
        data[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
}

static void sha256_matches_fips_180_4(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    char *folder = test_folder_new();
    mr_error err = {0};
    char hex[MR_SHA256_HEX];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = strlen(cases[i].text);
        assert_status(mr_hash_sha256_hex(len ? cases[i].text : NULL, len, hex, &err), MR_OK, &err);
        assert_string_equal(hex, cases[i].want);
        const char *path = test_path(folder, "file");
        test_file_write(path, cases[i].text, len);
        assert_status(mr_hash_sha256_file(path, hex, &err), MR_OK, &err);
        assert_string_equal(hex, cases[i].want);
    }
    test_folder_free(folder);
}

static void sha256_of_a_million_letters_is_the_same_from_memory_and_from_a_file(void **state)
{
    (void)state;
    const size_t len = 1000000; /* FIPS 180-4's long vector; more than one chunk of the reader */
    char *text = malloc(len);
    assert_non_null(text);
    memset(text, 'a', len);
    char *folder = test_folder_new();
    const char *path = test_path(folder, "million");
    test_file_write(path, text, len);
    mr_error err = {0};
    char memory[MR_SHA256_HEX], file[MR_SHA256_HEX];
    assert_status(mr_hash_sha256_hex(text, len, memory, &err), MR_OK, &err);
    assert_status(mr_hash_sha256_file(path, file, &err), MR_OK, &err);
    assert_string_equal(memory, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_string_equal(file, memory);
    test_folder_free(folder);
    free(text);
}

static void sha256_of_a_file_that_cannot_be_read_names_it(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    char hex[MR_SHA256_HEX];
    mr_error err = {0};
    assert_status(mr_hash_sha256_file(test_path(folder, "none"), hex, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "/none': No such file");
    assert_status(mr_hash_sha256_file(folder, hex, &err), MR_INVALID, &err);
    assert_contains(err.message, "is a folder, expected a regular file");
    test_folder_free(folder);
}

static void xxh3_is_the_stable_64_bit_variant(void **state)
{
    (void)state;
    assert_true(mr_hash_xxh3("", 0) == UINT64_C(0x2D06800538D394C2));
    assert_true(mr_hash_xxh3(NULL, 0) == UINT64_C(0x2D06800538D394C2));
    assert_true(mr_hash_xxh3("a", 1) == UINT64_C(0xE6C632B61E964E1F));
    assert_true(mr_hash_xxh3("abc", 3) == UINT64_C(0x78AF5F94892F3950));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc32c_matches_rfc_3720),
        cmocka_unit_test(crc32c_is_the_same_by_instruction_by_tables_and_in_pieces),
        cmocka_unit_test(crc32c_sees_every_single_flipped_bit),
        cmocka_unit_test(sha256_matches_fips_180_4),
        cmocka_unit_test(sha256_of_a_million_letters_is_the_same_from_memory_and_from_a_file),
        cmocka_unit_test(sha256_of_a_file_that_cannot_be_read_names_it),
        cmocka_unit_test(xxh3_is_the_stable_64_bit_variant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
