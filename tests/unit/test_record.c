/* test_record.c - embedding records: layout, precision, and everything that can be wrong with one.
 *
 * Damaged input lies in a block of exactly its length, so that AddressSanitizer sees an overread.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "core/rng.h"
#include "featurestore/record.h"
#include "tests/support.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const mr_record_info base = {
    .dtype = MR_RECORD_F32,
    .version = UINT64_C(0x0102030405060708),
    .space = UINT64_C(0x1112131415161718),
    .event_ms = -2,
    .tokens = 1,
    .dim = 2,
};

static mr_bytes encoded(const mr_record_info *info, const float *values)
{
    mr_error err = {0};
    size_t bytes = mr_record_bytes(info);
    void *out = malloc(bytes);
    assert_non_null(out);
    assert_status(mr_record_encode(info, values, out, &err), MR_OK, &err);
    return (mr_bytes){out, bytes};
}

static void drop(mr_bytes record)
{
    free((void *)(uintptr_t)record.data);
}

/* Puts a right checksum on bytes that were changed: what a careless or hostile writer sends. */
static void reseal(uint8_t *record, size_t len)
{
    mr_store_u32le(record + 40, 0);
    mr_store_u32le(record + 40, mr_hash_crc32c(0, record, len));
}

/* ---- layout ---------------------------------------------------------------------------------- */

/* Made by an independent script with a bitwise CRC-32C (struct.pack, little-endian). */
static const struct {
    const char *what;
    mr_record_dtype dtype;
    bool tombstone;
    uint16_t tokens;
    float values[4];
    const char *hex;
} golden[] = {
    {"f32",
     MR_RECORD_F32,
     false,
     1,
     {1.0f, -2.5f}, //
     "4d52453101000000"
     "0807060504030201"
     "1817161514131211"
     "feffffffffffffff"
     "0100020008000000"
     "30364e2d00000000"
     "0000803f000020c0"},
    {"f16",
     MR_RECORD_F16,
     false,
     1,
     {1.0f, -2.5f}, //
     "4d52453101010000"
     "0807060504030201"
     "1817161514131211"
     "feffffffffffffff"
     "0100020004000000"
     "d2cb9cfb00000000"
     "003c00c1"},
    {"bf16",
     MR_RECORD_BF16,
     false,
     1,
     {1.0f, -2.5f}, //
     "4d52453101020000"
     "0807060504030201"
     "1817161514131211"
     "feffffffffffffff"
     "0100020004000000"
     "7babea1f00000000"
     "803f20c0"},
    {"int8: scales 2 and 0.5, padding, integers", //
     MR_RECORD_I8,
     false,
     2,
     {254.0f, -128.0f, 63.5f, -0.5f},
     "4d52453101030000"
     "0807060504030201"
     "1817161514131211"
     "feffffffffffffff"
     "0200020014000000"
     "a5612e1500000000"
     "000000400000003f"
     "0000000000000000"
     "7fc07fff"},
    {"tombstone",
     MR_RECORD_F32,
     true,
     1,
     {0}, //
     "4d52453101000100"
     "0807060504030201"
     "1817161514131211"
     "feffffffffffffff"
     "0000000000000000"
     "e65899eb00000000"},
};

static void records_have_the_documented_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(golden); i++) {
        mr_record_info info = base;
        info.dtype = golden[i].dtype;
        info.tombstone = golden[i].tombstone;
        info.tokens = golden[i].tokens;
        mr_bytes record = encoded(&info, golden[i].values);
        char hex[256] = "";
        for (size_t b = 0; b < record.len; b++)
            snprintf(hex + 2 * b, 3, "%02x", ((const uint8_t *)record.data)[b]);
        if (strcmp(hex, golden[i].hex) != 0)
            fail_msg("%s:\n  got      %s\n  expected %s", golden[i].what, hex, golden[i].hex);
        drop(record);
    }
}

static void dtype_names_go_both_ways(void **state)
{
    (void)state;
    static const char *const names[] = {"f32", "f16", "bf16", "int8"};
    for (int i = 0; i < MR_RECORD_DTYPE_COUNT; i++) {
        mr_record_dtype found = MR_RECORD_DTYPE_COUNT;
        assert_string_equal(mr_record_dtype_name((mr_record_dtype)i), names[i]);
        assert_true(mr_record_dtype_from_name(names[i], &found));
        assert_int_equal(found, i);
    }
    mr_record_dtype kept = MR_RECORD_BF16;
    assert_false(mr_record_dtype_from_name("F32", &kept));
    assert_false(mr_record_dtype_from_name("", &kept));
    assert_false(mr_record_dtype_from_name(NULL, &kept));
    assert_int_equal(kept, MR_RECORD_BF16);
    assert_string_equal(mr_record_dtype_name(MR_RECORD_DTYPE_COUNT), "unknown");
}

/* ---- values ---------------------------------------------------------------------------------- */

/* Half a step of the dtype at value; row_largest is the largest magnitude of its token. */
static double tolerance(mr_record_dtype dtype, double value, double row_largest)
{
    switch (dtype) {
    case MR_RECORD_F16: return fmax(fabs(value) * ldexp(1, -11), ldexp(1, -25));
    case MR_RECORD_BF16: return fabs(value) * ldexp(1, -8);
    case MR_RECORD_I8: return row_largest / 127 / 2 * (1 + 1e-6);
    default: return 0;
    }
}

static void check_round_trip(const mr_record_info *info, const float *values, size_t misalign)
{
    mr_error err = {0};
    size_t n = (size_t)info->tokens * info->dim, bytes = mr_record_bytes(info);
    uint8_t *block = malloc(bytes + misalign);
    float *back = malloc(n * sizeof *back);
    assert_non_null(block);
    assert_non_null(back);
    mr_bytes record = {block + misalign, bytes};
    mr_record_info found;
    assert_status(mr_record_encode(info, values, block + misalign, &err), MR_OK, &err);
    assert_status(mr_record_decode("k", record, &found, back, n, &err), MR_OK, &err);
    assert_memory_equal(&found.version, &info->version, sizeof found.version);
    assert_int_equal(found.tokens, info->tokens);
    assert_int_equal(found.dim, info->dim);
    assert_int_equal(found.dtype, info->dtype);
    for (size_t t = 0; t < info->tokens; t++) {
        double largest = 0;
        for (size_t d = 0; d < info->dim; d++)
            largest = fmax(largest, fabs((double)values[t * info->dim + d]));
        for (size_t d = 0; d < info->dim; d++) {
            double want = (double)values[t * info->dim + d], got = (double)back[t * info->dim + d];
            double off = fabs(got - want), bound = tolerance(info->dtype, want, largest);
            if (!(off <= bound))
                fail_msg("%s [%zu, %zu] of [%d, %d]: got %.9g, expected %.9g within %.3g",
                         mr_record_dtype_name(info->dtype), t, d, info->tokens, info->dim, got,
                         want, bound);
        }
    }
    free(back);
    free(block);
}

static void every_dtype_comes_back_within_half_a_step(void **state)
{
    (void)state;
    static const uint16_t shapes[][2] = {{1, 1},     {1, 2},  {3, 7},    {4, 16},   {5, 1023},
                                         {50, 1024}, {64, 1}, {1024, 3}, {1, 16384}};
    mr_rng rng = mr_rng_seed(7);
    for (size_t s = 0; s < COUNT(shapes); s++) {
        size_t n = (size_t)shapes[s][0] * shapes[s][1];
        float *values = malloc(n * sizeof *values);
        assert_non_null(values);
        for (size_t i = 0; i < n; i++)
            values[i] = (float)(mr_rng_normal(&rng) * pow(10, (double)mr_rng_below(&rng, 7) - 4));
        for (int dtype = 0; dtype < MR_RECORD_DTYPE_COUNT; dtype++) {
            mr_record_info info = base;
            info.dtype = (mr_record_dtype)dtype;
            info.tokens = shapes[s][0];
            info.dim = shapes[s][1];
            check_round_trip(&info, values, s % 4);
        }
        free(values);
    }
}

static void special_but_finite_values_survive(void **state)
{
    (void)state;
    static const float exact[] = {0.0f, -0.0f, FLT_MAX, -FLT_MAX, FLT_MIN, 1.4e-45f, -1.4e-45f};
    float back[COUNT(exact)];
    mr_error err = {0};
    mr_record_info info = base, found;
    info.dim = COUNT(exact);
    mr_bytes record = encoded(&info, exact);
    assert_status(mr_record_decode("k", record, &found, back, COUNT(back), &err), MR_OK, &err);
    assert_memory_equal(back, exact, sizeof exact);
    drop(record);
}

static void int8_scales_are_per_token(void **state)
{
    (void)state;
    /* A row of zeros, a row too small for any scale, a small and a large row, side by side. */
    static const float values[4][2] = {{0, 0}, {1e-44f, 0}, {0.001f, -0.0005f}, {1000, -1}};
    float back[4][2];
    mr_error err = {0};
    mr_record_info info = base, found;
    info.dtype = MR_RECORD_I8;
    info.tokens = 4;
    mr_bytes record = encoded(&info, values[0]);
    assert_status(mr_record_decode("k", record, &found, back[0], 8, &err), MR_OK, &err);
    assert_true(back[0][0] == 0 && back[0][1] == 0);
    assert_true(back[1][0] == 0 && back[1][1] == 0);
    assert_true(fabsf(back[2][0] - 0.001f) < 1e-9f && fabsf(back[2][1] + 0.0005f) < 4e-6f);
    assert_true(fabsf(back[3][0] - 1000) < 1e-3f && fabsf(back[3][1] + 1) < 4);
    drop(record);
}

static void values_that_a_dtype_cannot_hold_are_refused(void **state)
{
    (void)state;
    static const struct {
        mr_record_dtype dtype;
        float value;
        const char *message; /* NULL: fits */
    } row[] = {
        {MR_RECORD_F32, NAN, "must be finite"},
        {MR_RECORD_F32, INFINITY, "must be finite"},
        {MR_RECORD_F32, -INFINITY, "must be finite"},
        {MR_RECORD_F16, NAN, "must be finite"},
        {MR_RECORD_F16, INFINITY, "must be finite"},
        {MR_RECORD_F16, 65519.0f, NULL},
        {MR_RECORD_F16, 65520.0f, "does not fit f16 (largest 65504)"},
        {MR_RECORD_F16, -7e4f, "does not fit f16"},
        {MR_RECORD_BF16, NAN, "must be finite"},
        {MR_RECORD_BF16, -INFINITY, "must be finite"},
        {MR_RECORD_BF16, 3.39e38f, NULL},
        {MR_RECORD_BF16, FLT_MAX, "does not fit bf16"},
        {MR_RECORD_I8, NAN, "must be finite"},
        {MR_RECORD_I8, INFINITY, "must be finite"},
        {MR_RECORD_I8, 3.37e38f, NULL},
        {MR_RECORD_I8, -FLT_MAX, "does not fit int8"},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        for (size_t at = 0; at < 6; at++) {
            float values[6] = {1, 2, 3, 4, 5, 6};
            uint8_t out[128];
            char position[32];
            mr_error err = {0};
            mr_record_info info = base;
            info.dtype = row[i].dtype;
            info.tokens = 2;
            info.dim = 3;
            values[at] = row[i].value;
            mr_status status = mr_record_encode(&info, values, out, &err);
            assert_status(status, row[i].message ? MR_INVALID : MR_OK, &err);
            if (!row[i].message)
                continue;
            snprintf(position, sizeof position, "value [%zu, %zu]", at / 3, at % 3);
            assert_contains(err.message, row[i].message);
            assert_contains(err.message, position);
        }
    }
}

static void impossible_shapes_are_refused(void **state)
{
    (void)state;
    static const struct {
        unsigned tokens, dim, dtype;
        bool no_values;
        const char *message;
    } row[] = {
        {0, 4, 0, false, "0 tokens x 4 values"}, {4, 0, 0, false, "4 tokens x 0 values"},
        {1025, 4, 0, false, "1025 tokens"},      {4, 16385, 0, false, "16385 values"},
        {4, 4, 4, false, "dtype is 4"},          {4, 4, 0, true, "no values"},
    };
    static const float values[16] = {0};
    for (size_t i = 0; i < COUNT(row); i++) {
        uint8_t out[512];
        mr_error err = {0};
        mr_record_info info = base;
        info.tokens = (uint16_t)row[i].tokens;
        info.dim = (uint16_t)row[i].dim;
        info.dtype = (mr_record_dtype)row[i].dtype;
        assert_true((mr_record_bytes(&info) == 0) == !row[i].no_values);
        assert_status(mr_record_encode(&info, row[i].no_values ? NULL : values, out, &err),
                      MR_INVALID, &err);
        assert_contains(err.message, row[i].message);
    }
}

static void a_tombstone_has_a_header_and_no_values(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_record_info found, info = base;
    info.tombstone = true;
    info.version = UINT64_MAX;
    info.space = UINT64_MAX;
    info.event_ms = INT64_MIN;
    mr_bytes record = encoded(&info, NULL);
    assert_int_equal(record.len, MR_RECORD_HEADER_BYTES);
    assert_status(mr_record_decode("k", record, &found, NULL, 0, &err), MR_OK, &err);
    assert_true(found.tombstone);
    assert_int_equal(found.tokens, 0);
    assert_int_equal(found.dim, 0);
    assert_true(found.version == UINT64_MAX && found.space == UINT64_MAX);
    assert_true(found.event_ms == INT64_MIN);
    drop(record);
}

static void decoding_needs_room_for_all_values(void **state)
{
    (void)state;
    static const float values[2] = {1, 2};
    float out[2] = {7, 7};
    mr_error err = {0};
    mr_record_info found;
    mr_bytes record = encoded(&base, values);
    assert_status(mr_record_decode("shop:item:9", record, &found, out, 1, &err), MR_INVALID, &err);
    assert_contains(err.message, "'shop:item:9' holds 1 tokens x 2 values; there is room for 1");
    assert_true(out[0] == 7 && out[1] == 7);
    drop(record);
}

/* ---- damage ---------------------------------------------------------------------------------- */

/* All three readers must refuse, or peek alone may pass, and nothing may be written. */
static void assert_refused(mr_bytes record, bool peek_may_pass, mr_error *err)
{
    float out[8] = {7, 7, 7, 7, 7, 7, 7, 7};
    static const mr_record_info untouched = {.version = 99};
    mr_record_info info = untouched;
    mr_status peek = mr_record_peek("a key", record, &info, err);
    if (!peek_may_pass || peek != MR_OK) {
        assert_status(peek, MR_CORRUPT, err);
        assert_memory_equal(&info, &untouched, sizeof info);
    }
    info = untouched;
    assert_status(mr_record_decode("a key", record, &info, out, COUNT(out), err), MR_CORRUPT, err);
    assert_status(mr_record_check("a key", record, &info, err), MR_CORRUPT, err);
    assert_memory_equal(&info, &untouched, sizeof info);
    for (size_t i = 0; i < COUNT(out); i++)
        assert_true(out[i] == 7);
    assert_contains(err->message, "'a key'");
}

static void a_record_cut_anywhere_is_refused(void **state)
{
    (void)state;
    for (size_t g = 0; g < COUNT(golden); g++) {
        mr_record_info info = base;
        info.dtype = golden[g].dtype;
        info.tombstone = golden[g].tombstone;
        info.tokens = golden[g].tokens;
        mr_bytes record = encoded(&info, golden[g].values);
        for (size_t len = 0; len < record.len; len++) {
            mr_error err = {0};
            void *cut = malloc(len ? len : 1);
            assert_non_null(cut);
            memcpy(cut, record.data, len);
            assert_refused((mr_bytes){len ? cut : NULL, len}, false, &err);
            assert_contains(err.message, len < MR_RECORD_HEADER_BYTES ? "its header alone takes 48"
                                                                      : "cut short?");
            free(cut);
        }
        drop(record);
    }
}

static void bytes_behind_a_record_are_refused(void **state)
{
    (void)state;
    static const float values[2] = {1, 2};
    mr_error err = {0};
    mr_bytes record = encoded(&base, values);
    uint8_t *longer = malloc(record.len + 1);
    assert_non_null(longer);
    memcpy(longer, record.data, record.len);
    longer[record.len] = 0;
    assert_refused((mr_bytes){longer, record.len + 1}, false, &err);
    assert_contains(err.message, "is 57 bytes, its header says 56: bytes were added?");
    free(longer);
    drop(record);
}

static void a_flipped_bit_anywhere_is_caught(void **state)
{
    (void)state;
    for (size_t g = 0; g < COUNT(golden); g++) {
        mr_record_info info = base;
        info.dtype = golden[g].dtype;
        info.tombstone = golden[g].tombstone;
        info.tokens = golden[g].tokens;
        mr_bytes record = encoded(&info, golden[g].values);
        uint8_t *bytes = (uint8_t *)(uintptr_t)record.data;
        for (size_t bit = 0; bit < record.len * 8; bit++) {
            mr_error err = {0};
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_refused(record, true, &err);
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        mr_error err = {0};
        assert_status(mr_record_check("k", record, &info, &err), MR_OK, &err);
        drop(record);
    }
}

static void a_lying_record_with_a_right_checksum_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        size_t golden; /* row that is changed */
        size_t at;
        uint8_t bytes[4];
        size_t n;
        const char *message;
    } row[] = {
        {"other magic", 0, 0, {'P', 'K', 3, 4}, 4, "begins with 50 4b 03 04, expected \"MRE1\""},
        {"newer layout", 0, 4, {2}, 1, "has layout 2; this build reads layout 1"},
        {"unknown dtype", 0, 5, {4}, 1, "has dtype 4"},
        {"unknown flag", 0, 6, {2}, 1, "layout 1 keeps zero (flags 0x02)"},
        {"byte 7", 0, 7, {1}, 1, "layout 1 keeps zero"},
        {"bytes 44 to 47", 0, 47, {1}, 1, "layout 1 keeps zero"},
        {"no tokens", 0, 32, {0, 0}, 2, "has 0 tokens x 2 values"},
        {"too many tokens", 0, 32, {1, 4}, 2, "has 1025 tokens"},
        {"no dim", 0, 34, {0, 0}, 2, "has 1 tokens x 0 values"},
        {"too large a dim", 0, 34, {1, 64}, 2, "16385 values"},
        {"payload of 4 GiB",
         0,
         36,
         {255, 255, 255, 255},
         4,
         "says its payload is 4294967295 bytes"},
        {"dtype of another size", 0, 5, {1}, 1, "values of f16 take 4"},
        {"tombstone with payload", 0, 6, {1}, 1, "is a tombstone with 1 tokens"},
        {"live record without shape", 4, 6, {0}, 1, "has 0 tokens x 0 values"},
        {"f32 NaN", 0, 52, {0, 0, 0xc0, 0x7f}, 4, "not finite"},
        {"f32 infinity", 0, 48, {0, 0, 0x80, 0xff}, 4, "not finite"},
        {"f16 infinity", 1, 50, {0x00, 0x7c}, 2, "not finite"},
        {"f16 NaN", 1, 48, {0x01, 0xfc}, 2, "not finite"},
        {"bf16 NaN", 2, 50, {0xc0, 0x7f}, 2, "not finite"},
        {"bf16 infinity", 2, 48, {0x80, 0x7f}, 2, "not finite"},
        {"int8 scale NaN", 3, 48, {0, 0, 0xc0, 0x7f}, 4, "not finite"},
        {"int8 scale that overflows", 3, 52, {0, 0, 0, 0x7e}, 4, "not finite"},
        {"int8 padding", 3, 63, {1}, 1, "padding of its scales"},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_record_info info = base;
        size_t g = row[i].golden;
        info.dtype = golden[g].dtype;
        info.tombstone = golden[g].tombstone;
        info.tokens = golden[g].tokens;
        mr_bytes record = encoded(&info, golden[g].values);
        uint8_t *bytes = (uint8_t *)(uintptr_t)record.data;
        mr_error err = {0};
        memcpy(bytes + row[i].at, row[i].bytes, row[i].n);
        reseal(bytes, record.len);
        assert_refused(record, true, &err);
        if (!strstr(err.message, row[i].message))
            fail_msg("%s: \"%s\" does not contain \"%s\"", row[i].what, err.message,
                     row[i].message);
        drop(record);
    }
}

static void an_int8_of_minus_128_is_read(void **state)
{
    (void)state;
    static const float values[2] = {254, -128};
    float back[2];
    mr_error err = {0};
    mr_record_info found, info = base;
    info.dtype = MR_RECORD_I8;
    mr_bytes record = encoded(&info, values);
    uint8_t *bytes = (uint8_t *)(uintptr_t)record.data;
    bytes[64] = 0x80;
    reseal(bytes, record.len);
    assert_status(mr_record_decode("k", record, &found, back, 2, &err), MR_OK, &err);
    assert_true(back[0] == -256 && back[1] == -128);
    drop(record);
}

static void a_message_without_a_key_still_makes_sense(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_record_info info;
    assert_status(mr_record_check(NULL, (mr_bytes){"x", 1}, &info, &err), MR_CORRUPT, &err);
    assert_contains(err.message, "record '(unnamed)' is 1 bytes");
    assert_int_equal(mr_record_check(NULL, (mr_bytes){"x", 1}, &info, NULL), MR_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_have_the_documented_bytes),
        cmocka_unit_test(dtype_names_go_both_ways),
        cmocka_unit_test(every_dtype_comes_back_within_half_a_step),
        cmocka_unit_test(special_but_finite_values_survive),
        cmocka_unit_test(int8_scales_are_per_token),
        cmocka_unit_test(values_that_a_dtype_cannot_hold_are_refused),
        cmocka_unit_test(impossible_shapes_are_refused),
        cmocka_unit_test(a_tombstone_has_a_header_and_no_values),
        cmocka_unit_test(decoding_needs_room_for_all_values),
        cmocka_unit_test(a_record_cut_anywhere_is_refused),
        cmocka_unit_test(bytes_behind_a_record_are_refused),
        cmocka_unit_test(a_flipped_bit_anywhere_is_caught),
        cmocka_unit_test(a_lying_record_with_a_right_checksum_is_refused),
        cmocka_unit_test(an_int8_of_minus_128_is_read),
        cmocka_unit_test(a_message_without_a_key_still_makes_sense),
    };
    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
