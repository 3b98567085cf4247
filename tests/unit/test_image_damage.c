/* test_image_damage.c - bombs, cut files and changed bytes: refused in bounded time and memory.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <sys/resource.h>

#include "core/clock.h"
#include "core/rng.h"
#include "tests/unit/image_fixture.h"

/* ---- Bombs ----------------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__)
#    define COUNTS_MEMORY 0 /* it keeps freed blocks */
#elif defined(__has_feature)
#    if __has_feature(address_sanitizer)
#        define COUNTS_MEMORY 0
#    endif
#endif
#ifndef COUNTS_MEMORY
#    define COUNTS_MEMORY 1
#endif

static long peak_mb(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_maxrss / 1024;
}

/* Decodes, and insists on little time and memory. */
static void assert_cheaply_refused(const buffer *b, mr_status status, const char *message,
                                   long most_mb)
{
    const long before = peak_mb();
    const int64_t start = mr_clock_monotonic_us();
    assert_refused(b, status, message);
    const int64_t us = mr_clock_monotonic_us() - start;
    if (us > 5000000)
        fail_msg("refusing took %lld us, expected less than 5 s", (long long)us);
    if (COUNTS_MEMORY && peak_mb() - before > most_mb)
        fail_msg("refusing took %ld MB, expected %ld at most", peak_mb() - before, most_mb);
}

/* 4 MB that inflate to 650 MB, for a picture of 100 x 100. */
static void a_png_that_inflates_to_more_than_its_pixels_is_stopped(void **state)
{
    (void)state;
    buffer b = {0}, z = deflated_zeros((size_t)650 << 20);
    assert_in_range(z.len, (size_t)4 << 20, (size_t)5 << 20);
    put_signature(&b);
    put_header(&b, 100, 100, 8, 2);
    put_chunk(&b, "IDAT", z.data, z.len);
    put_chunk(&b, "IEND", NULL, 0);
    free(z.data);
    assert_cheaply_refused(&b, MR_CORRUPT, "is damaged (outofmem)", 40);
    free(b.data);
}

static void large_pngs_of_every_kind_decode_within_the_promised_bytes(void **state)
{
    (void)state;
    static const struct {
        uint32_t width, height;
        int depth, colour;
        bool interlaced, over_white;
    } row[] = {
        /* Small ones first: what a process has had at its peak hides what comes after. */
        {900, 700, 16, 6, true, true},    {1000, 900, 8, 4, true, false},
        {1200, 900, 1, 0, true, false},   {1700, 1200, 16, 2, false, false},
        {8192, 4096, 8, 2, false, false}, /* all that is allowed */
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        static const size_t channels[7] = {1, 0, 3, 1, 2, 0, 4};
        const size_t bits = channels[row[i].colour] * (size_t)row[i].depth;
        const size_t bytes = (row[i].width * bits / 8 + 2) * row[i].height;
        const mr_image_options opt = {.over_white = row[i].over_white};
        buffer b = {0}, z = deflated_zeros(row[i].interlaced ? bytes * 9 / 8 + 65536 : bytes);
        put_signature(&b);
        put_header_of(&b, row[i].width, row[i].height, row[i].depth, row[i].colour,
                      row[i].interlaced);
        put_chunk(&b, "IDAT", z.data, z.len);
        put_chunk(&b, "IEND", NULL, 0);
        free(z.data);

        mr_image_info info;
        mr_image image = {0};
        mr_error err = {0};
        const mr_bytes file = {b.data, b.len};
        assert_status(mr_image_inspect(&info, "large", file, &opt, &err), MR_OK, &err);
        const long before = peak_mb(), promised = (long)(info.work_bytes >> 20);
        assert_in_range(info.work_bytes, (size_t)3 * row[i].width * row[i].height,
                        (size_t)800 << 20);
        assert_status(mr_image_decode(&image, "large", file, &opt, &err), MR_OK, &err);
        assert_int_equal(image.width, row[i].width);
        if (COUNTS_MEMORY && peak_mb() - before > promised + 8)
            fail_msg("decoding %u x %u took %ld MB, promised were %ld", row[i].width, row[i].height,
                     peak_mb() - before, promised);
        mr_image_release(&image);
        free(b.data);
    }
}

/* Repeats the last scan of a progressive JPEG, header alone: each would cost all blocks. */
static void a_jpeg_of_thousands_of_scans_is_refused(void **state)
{
    (void)state;
    buffer b = read_picture("jpeg-progressive.jpg");
    b.len -= 2; /* the end marker */
    for (int i = 0; i < 5000; i++)
        put(&b, "\xff\xda\0\x08\1\1\0\0\0\0\x2a", 11);
    put(&b, "\xff\xd9", 2);
    assert_cheaply_refused(&b, MR_INVALID, "more than 64 JPEG scans", 20);
    free(b.data);

    b = read_picture("jpeg-444.jpg");
    b.len -= 2;
    for (int i = 0; i < 3; i++)
        put(&b, "\xff\xda\0\x08\1\1\0\0\x3f\0\x2a", 11);
    put(&b, "\xff\xd9", 2);
    assert_refused(&b, MR_INVALID, "more than 3 JPEG scans");
    free(b.data);
}

static void a_jpeg_of_thousands_of_tables_is_refused(void **state)
{
    (void)state;
    buffer b = {0};
    put(&b, "\xff\xd8", 2);
    for (int i = 0; i < 2000; i++)
        put(&b, "\xff\xc4\0\x14\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\5", 22);
    put(&b, "\xff\xd9", 2);
    assert_refused(&b, MR_INVALID, "more than 1024 JPEG Huffman tables");
    free(b.data);
}

/* 300 codes of 16 bits make a valid tree, and more symbols than a byte can name. */
static void a_jpeg_huffman_table_of_more_symbols_than_there_are_is_refused(void **state)
{
    (void)state;
    buffer b = {0};
    put(&b, "\xff\xd8\xff\xc4\1\x3f\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x2d\xff", 23);
    for (int i = 0; i < 300; i++)
        put(&b, "\x11", 1);
    put(&b, "\xff\xd9", 2);
    assert_refused(&b, MR_CORRUPT, "Huffman table of 300 symbols in 300 bytes");
    free(b.data);
}

/* Only its first of three components has data: the others must not show what memory held. */
static void a_jpeg_without_data_for_a_component_decodes_to_the_same_bytes_each_time(void **state)
{
    (void)state;
    buffer b = read_picture("jpeg-444.jpg");
    const size_t scan = find_marker(&b, 0xda);
    b.len = scan;
    put(&b, "\xff\xda\0\x08\1\1\0\0\x3f\0", 10);
    for (int i = 0; i < 300; i++)
        put(&b, "\x55", 1);
    put(&b, "\xff\xd9", 2);
    mr_error err = {0};
    mr_image first = {0}, second = {0};
    const mr_bytes bytes = {b.data, b.len};
    assert_status(mr_image_decode(&first, "x", bytes, NULL, &err), MR_OK, &err);
    void *noise = malloc((size_t)1 << 20);
    assert_non_null(noise);
    memset(noise, 0x5a, (size_t)1 << 20);
    free(noise);
    assert_status(mr_image_decode(&second, "x", bytes, NULL, &err), MR_OK, &err);
    assert_memory_equal(first.rgb, second.rgb, 3 * (size_t)(first.width * first.height));
    mr_image_release(&first);
    mr_image_release(&second);
    free(b.data);
}

/* ---- Damage ---------------------------------------------------------------------------------- */

static bool has_ending(const char *name, const char *ending)
{
    const size_t n = strlen(name), m = strlen(ending);
    return n >= m && strcmp(name + n - m, ending) == 0;
}

/* Calls visit for every picture of the folder; returns their number. */
static size_t each_picture(void (*visit)(const char *file, const buffer *whole))
{
    size_t n = 0;
    DIR *dir = opendir(FOLDER);
    assert_non_null(dir);
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        if (!has_ending(entry->d_name, ".png") && !has_ending(entry->d_name, ".bmp") &&
            !has_ending(entry->d_name, ".jpg"))
            continue;
        buffer whole = read_picture(entry->d_name);
        visit(entry->d_name, &whole);
        free(whole.data);
        n++;
    }
    closedir(dir);
    return n;
}

static void refuse_when_cut(const char *file, const buffer *whole)
{
    /* Every length of a small file, about 500 of a large one, and all near its end. */
    const size_t step = whole->len / 500 + 1;
    for (size_t len = 0; len < whole->len; len += len + 64 < whole->len ? step : 1) {
        mr_error err = {0};
        /* The last row of a BMP may lack its padding. */
        if (decode_exact(whole->data, len, NULL, &err) == MR_OK &&
            !(has_ending(file, ".bmp") && whole->len - len <= 3))
            fail_msg("%s: %zu of %zu bytes are taken for a picture", file, len, whole->len);
    }
}

static void a_picture_cut_short_anywhere_is_refused(void **state)
{
    (void)state;
    assert_int_equal(each_picture(refuse_when_cut), 56);
}

static void refuse_when_flipped(const char *file, const buffer *whole)
{
    if (!has_ending(file, ".png") || whole->len > 2000)
        return;
    for (size_t i = 0; i < whole->len; i++) {
        mr_error err = {0};
        whole->data[i] ^= (uint8_t)(1u << i % 8);
        if (decode_exact(whole->data, whole->len, NULL, &err) == MR_OK)
            fail_msg("%s: byte %zu changed, and it is still taken for a picture", file, i);
        whole->data[i] ^= (uint8_t)(1u << i % 8);
    }
}

static void a_png_with_any_byte_changed_is_refused(void **state)
{
    (void)state;
    assert_int_equal(each_picture(refuse_when_flipped), 56);
}

static void survive_changes(const char *file, const buffer *whole)
{
    mr_rng rng = mr_rng_seed(7 + whole->len);
    (void)file;
    buffer changed = {0};
    put(&changed, whole->data, whole->len);
    for (int round = 0; round < 60; round++) {
        memcpy(changed.data, whole->data, whole->len);
        for (int i = 0; i < 3; i++)
            changed.data[mr_rng_below(&rng, whole->len)] = (uint8_t)mr_rng_below(&rng, 256);
        mr_error err = {0};
        (void)decode_exact(changed.data, changed.len, NULL, &err);
    }
    free(changed.data);
}

static void changed_pictures_decode_or_are_refused_and_nothing_else(void **state)
{
    (void)state;
    assert_int_equal(each_picture(survive_changes), 56);
}

static void random_bytes_behind_a_signature_are_refused(void **state)
{
    (void)state;
    static const char *const signatures[] = {"\x89PNG\r\n\x1a\n", "\xff\xd8\xff\xe0", "BM"};
    mr_rng rng = mr_rng_seed(3);
    for (size_t s = 0; s < 3; s++) {
        for (int round = 0; round < 200; round++) {
            uint8_t bytes[400];
            for (size_t i = 0; i < sizeof bytes; i++)
                bytes[i] = (uint8_t)mr_rng_below(&rng, 256);
            memcpy(bytes, signatures[s], strlen(signatures[s]));
            mr_error err = {0};
            assert_int_not_equal(decode_exact(bytes, sizeof bytes, NULL, &err), MR_OK);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_png_that_inflates_to_more_than_its_pixels_is_stopped),
        cmocka_unit_test(a_jpeg_of_thousands_of_scans_is_refused),
        cmocka_unit_test(a_jpeg_of_thousands_of_tables_is_refused),
        cmocka_unit_test(a_jpeg_huffman_table_of_more_symbols_than_there_are_is_refused),
        cmocka_unit_test(a_jpeg_without_data_for_a_component_decodes_to_the_same_bytes_each_time),
        cmocka_unit_test(a_picture_cut_short_anywhere_is_refused),
        cmocka_unit_test(a_png_with_any_byte_changed_is_refused),
        cmocka_unit_test(changed_pictures_decode_or_are_refused_and_nothing_else),
        cmocka_unit_test(random_bytes_behind_a_signature_are_refused),
        cmocka_unit_test(large_pngs_of_every_kind_decode_within_the_promised_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
