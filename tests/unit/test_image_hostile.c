/* test_image_hostile.c - cut, damaged and lying pictures: refused by name, in bounded time and
 * memory.
 *
 * PNGs are made here chunk by chunk, with right checksums, so that what is refused is what the case
 * names. SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/rng.h"
#include "encoders/image.h"
#include "tests/support.h"

#define FOLDER "data/images"

/* ---- Making files ---------------------------------------------------------------------------- */

typedef struct {
    uint8_t *data;
    size_t len, room;
} buffer;

static void put(buffer *b, const void *data, size_t len)
{
    if (b->len + len > b->room) {
        b->room = 2 * (b->len + len);
        b->data = realloc(b->data, b->room);
        assert_non_null(b->data);
    }
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
}

static void put_u32be(buffer *b, uint32_t v)
{
    put(b, (const uint8_t[]){(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v},
        4);
}

static uint32_t crc32_of(const uint8_t *data, size_t len)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

static void put_chunk(buffer *b, const char *type, const void *data, size_t len)
{
    put_u32be(b, (uint32_t)len);
    const size_t at = b->len;
    put(b, type, 4);
    put(b, data, len);
    put_u32be(b, crc32_of(b->data + at, len + 4));
}

static void put_signature(buffer *b)
{
    put(b, "\x89PNG\r\n\x1a\n", 8);
}

static void put_header_of(buffer *b, uint32_t width, uint32_t height, int depth, int colour,
                          bool interlaced)
{
    buffer header = {0};
    put_u32be(&header, width);
    put_u32be(&header, height);
    put(&header, (const uint8_t[]){(uint8_t)depth, (uint8_t)colour, 0, 0, interlaced}, 5);
    put_chunk(b, "IHDR", header.data, header.len);
    free(header.data);
}

static void put_header(buffer *b, uint32_t width, uint32_t height, int depth, int colour)
{
    put_header_of(b, width, height, depth, colour, false);
}

/* zlib with stored blocks: len bytes of one value. */
static buffer stored(uint8_t value, size_t len)
{
    buffer z = {0};
    put(&z, "\x78\x01", 2);
    while (len) {
        const size_t n = len < 65535 ? len : 65535;
        len -= n;
        put(&z,
            (const uint8_t[]){len == 0, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)~n,
                              (uint8_t)(~n >> 8)},
            5);
        uint8_t *bytes = malloc(n);
        assert_non_null(bytes);
        memset(bytes, value, n);
        put(&z, bytes, n);
        free(bytes);
    }
    put(&z, "\0\0\0\0", 4);
    return z;
}

/* zlib that inflates to 258 zeros for every 13 bits, with the fixed code: length 258 is 11000101,
 * distance 1 is 00000, first bit first. */
static buffer deflated_zeros(size_t bytes)
{
    buffer z = {0};
    uint32_t bits = 0;
    int n = 0;
    put(&z, "\x78\x01", 2);
#define BITS(value, count)                         \
    do {                                           \
        bits |= (uint32_t)(value) << n;            \
        for (n += (count); n >= 8; n -= 8) {       \
            put(&z, &(uint8_t){(uint8_t)bits}, 1); \
            bits >>= 8;                            \
        }                                          \
    } while (0)
    BITS(3, 3);    /* the last block, fixed code */
    BITS(0x0c, 8); /* a zero: 00110000 from its first bit on */
    for (size_t i = 0; i <= bytes / 258; i++) {
        BITS(0xa3, 8);
        BITS(0, 5);
    }
    BITS(0, 7); /* the end */
    BITS(0, 7);
#undef BITS
    put(&z, "\0\0\0\0", 4);
    return z;
}

static buffer read_picture(const char *file)
{
    buffer b = {0};
    b.data = (uint8_t *)test_file_read(test_path(FOLDER, file), &b.len);
    b.room = b.len;
    return b;
}

/* From a block of exactly the length, so that a sanitizer sees a byte read too many. */
static mr_status decode_exact(const uint8_t *data, size_t len, const mr_image_options *opt,
                              mr_error *err)
{
    uint8_t *exact = malloc(len ? len : 1);
    assert_non_null(exact);
    if (len)
        memcpy(exact, data, len);
    mr_image image = {0};
    mr_status status = mr_image_decode(&image, "the picture", (mr_bytes){exact, len}, opt, err);
    if (status != MR_OK) {
        assert_null(image.rgb);
        assert_contains(err->message, "picture 'the picture': ");
    } else {
        /* Every pixel is there to be read. */
        const mr_image_target target = mr_image_target_clip(9);
        uint8_t pixels[3 * 9 * 9];
        assert_status(mr_image_resize_crop(&image, &target, pixels, err), MR_OK, err);
    }
    mr_image_release(&image);
    free(exact);
    return status;
}

static void assert_refused(const buffer *b, mr_status status, const char *message)
{
    mr_error err = {0};
    assert_status(decode_exact(b->data, b->len, NULL, &err), status, &err);
    assert_contains(err.message, message);
}

/* ---- Headers --------------------------------------------------------------------------------- */

static void other_files_are_refused_and_named_where_they_are_known(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        mr_status status;
        const char *message;
    } row[] = {
        {"", 0, MR_CORRUPT, "the file is empty"},
        {"\x89", 1, MR_UNSUPPORTED, "1 bytes that begin with 89"},
        {"\x89PNG\r\n\x1a", 7, MR_UNSUPPORTED, "7 bytes that begin with 89 50 4e 47"},
        {"\x89PNG\r\n\x1a\n", 8, MR_CORRUPT, "cut short"},
        {"\xff\xd8\xff", 3, MR_CORRUPT, "cut short"},
        {"BM", 2, MR_CORRUPT, "cut short"},
        {"GIF89a\1\0\1\0", 10, MR_UNSUPPORTED, "begins like GIF"},
        {"RIFF\4\0\0\0WEBPVP8 ", 16, MR_UNSUPPORTED, "begins like WebP"},
        {"II*\0\10\0\0\0", 8, MR_UNSUPPORTED, "begins like TIFF"},
        {"\0\0\0\x1c"
         "ftypavif",
         12, MR_UNSUPPORTED, "begins like AVIF"},
        {"<svg xmlns=", 11, MR_UNSUPPORTED, "begins like SVG"},
        {"<!DOCTYPE html>", 15, MR_UNSUPPORTED, "begins like HTML"},
        {"{\"error\": 404}", 14, MR_UNSUPPORTED, "begins like JSON"},
        {"P6 1 1 255 abc", 14, MR_UNSUPPORTED, "50 36 20 31"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        assert_status(decode_exact((const uint8_t *)row[i].bytes, row[i].len, NULL, &err),
                      row[i].status, &err);
        assert_contains(err.message, row[i].message);
    }
}

static void png_dimensions_beyond_the_limits_are_refused_before_decoding(void **state)
{
    (void)state;
    static const struct {
        uint32_t width, height;
        mr_status status;
        const char *message;
    } row[] = {
        {60000, 60000, MR_INVALID, "60000 x 60000 pixels; at most 33554432 pixels"},
        {16384, 16384, MR_INVALID, "16384 x 16384 pixels; at most"},
        {16385, 100, MR_INVALID, "16384 a side"},
        {0xffffffff, 0xffffffff, MR_INVALID, "4294967295 x 4294967295"},
        {0x80000000, 2, MR_INVALID, "2147483648 x 2"},
        {300, 1, MR_INVALID, "256 times the other"},
        {1, 300, MR_INVALID, "256 times the other"},
        {0, 5, MR_CORRUPT, "0 x 5 pixels"},
        {5, 0, MR_CORRUPT, "5 x 0 pixels"},
        {8192, 4096, MR_CORRUPT, "cannot hold 8192 x 4096 pixels"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        buffer b = {0}, z = stored(0, 50);
        put_signature(&b);
        put_header(&b, row[i].width, row[i].height, 8, 2);
        put_chunk(&b, "IDAT", z.data, z.len);
        put_chunk(&b, "IEND", NULL, 0);
        assert_refused(&b, row[i].status, row[i].message);
        free(z.data);
        free(b.data);
    }
}

static void the_callers_limits_are_the_ones_that_count(void **state)
{
    (void)state;
    static const struct {
        mr_image_options opt;
        const char *message; /* NULL: decodes */
    } row[] = {
        {{.max_bytes = 7714}, "7715 bytes; at most 7714 are read"},
        {{.max_bytes = 7715}, NULL},
        {{.max_pixels = 61 * 47 - 1}, "61 x 47 pixels; at most 2866"},
        {{.max_pixels = 61 * 47}, NULL},
        {{.max_side = 60}, "60 a side"},
        {{.max_aspect = 1}, "1 times the other"},
        {{.max_aspect = 2, .max_side = 61}, NULL},
    };
    buffer b = read_picture("rgb-61x47.png");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        mr_status want = row[i].message ? MR_INVALID : MR_OK;
        assert_status(decode_exact(b.data, b.len, &row[i].opt, &err), want, &err);
        if (row[i].message)
            assert_contains(err.message, row[i].message);
    }
    free(b.data);
}

static void png_structure_that_no_png_has_is_refused(void **state)
{
    (void)state;
    enum { PIXELS = 10 * 31 };
    buffer z = stored(0, PIXELS);
    uint8_t palette[771] = {0};
    static const struct {
        const char *what; /* D data, E end, H header, P palette of 256, p of one, L of 257, X
                           * unknown and needed, x unknown and not, C iPhone's, T transparency */
        int depth, colour;
        mr_status status;
        const char *message; /* NULL: decodes */
    } row[] = {
        {"HDE", 8, 2, MR_OK, NULL},
        {"HxDxE", 8, 2, MR_OK, NULL},
        {"HDEDDHXL", 8, 2, MR_OK, NULL}, /* what comes after the end is no part of it */
        {"DE", 8, 2, MR_CORRUPT, "'IDAT' where IHDR is expected"},
        {"CHDE", 8, 2, MR_CORRUPT, "'CgBI' where IHDR is expected"},
        {"HHDE", 8, 2, MR_CORRUPT, "'IHDR' where IHDR is past"},
        {"HD", 8, 2, MR_CORRUPT, "cut short"},
        {"HE", 8, 2, MR_CORRUPT, "is damaged"},
        {"HXDE", 8, 2, MR_UNSUPPORTED, "'XXXX' is not known"},
        {"HDE", 8, 3, MR_CORRUPT, "has no palette"},
        {"HLDE", 8, 3, MR_CORRUPT, "palette of 771 bytes"},
        {"HPPDE", 8, 3, MR_CORRUPT, "palette of 768 bytes"},
        {"HDPE", 8, 3, MR_CORRUPT, "palette of 768 bytes"},
        {"HpDE", 8, 3, MR_OK, NULL},
        {"HTDE", 8, 4, MR_CORRUPT, "is damaged (tRNS with alpha)"},
        {"HDE", 3, 0, MR_CORRUPT, "colour type 0 with 3 bits"},
        {"HDE", 4, 2, MR_CORRUPT, "colour type 2 with 4 bits"},
        {"HDE", 16, 3, MR_CORRUPT, "colour type 3 with 16 bits"},
        {"HDE", 8, 1, MR_CORRUPT, "colour type 1 with 8 bits"},
        {"HDE", 8, 200, MR_CORRUPT, "colour type 200"},
        {"HDE", 16, 0, MR_UNSUPPORTED, "grey of 16 bits"},
        {"HDE", 16, 6, MR_CORRUPT, "is damaged (not enough pixels)"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        buffer b = {0};
        put_signature(&b);
        for (const char *c = row[i].what; *c; c++) {
            switch (*c) {
            case 'H': put_header(&b, 10, 10, row[i].depth, row[i].colour); break;
            case 'D': put_chunk(&b, "IDAT", z.data, z.len); break;
            case 'E': put_chunk(&b, "IEND", NULL, 0); break;
            case 'P': put_chunk(&b, "PLTE", palette, 768); break;
            case 'p': put_chunk(&b, "PLTE", palette, 3); break;
            case 'L': put_chunk(&b, "PLTE", palette, 771); break;
            case 'X': put_chunk(&b, "XXXX", NULL, 0); break;
            case 'x': put_chunk(&b, "xxXx", "abc", 3); break;
            case 'C': put_chunk(&b, "CgBI", "abcd", 4); break;
            default: put_chunk(&b, "tRNS", "\0\0", 2); break;
            }
        }
        if (row[i].message) {
            assert_refused(&b, row[i].status, row[i].message);
        } else {
            mr_error err = {0};
            assert_status(decode_exact(b.data, b.len, NULL, &err), MR_OK, &err);
        }
        free(b.data);
    }
    free(z.data);
}

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

/* Finds the segment with this marker; the offset of its FF. */
static size_t find_marker(const buffer *b, uint8_t marker)
{
    for (size_t at = 2; at + 4 < b->len;) {
        assert_int_equal(b->data[at], 0xff);
        if (b->data[at + 1] == marker)
            return at;
        at += 2 + ((size_t)b->data[at + 2] << 8 | b->data[at + 3]);
    }
    fail_msg("no marker %02x", marker);
    return 0;
}

static void jpeg_headers_that_lie_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint8_t marker;
        size_t at; /* behind the marker */
        const char *bytes;
        size_t len;
        mr_status status;
        const char *message;
    } row[] = {
        {0xc0, 3, "\xea\x60\xea\x60", 4, MR_INVALID, "60000 x 60000 pixels"},
        {0xc0, 3, "\0\0", 2, MR_CORRUPT, "83 x 0 pixels"},
        {0xc0, 5, "\0\0", 2, MR_CORRUPT, "0 x 61 pixels"},
        {0xc0, 2, "\x0c", 1, MR_UNSUPPORTED, "JPEG of 12 bits"},
        {0xc0, 7, "\x04", 1, MR_CORRUPT, "frame header"},
        {0xc0, 9, "\x51", 1, MR_CORRUPT, "sampling factors 5 x 1"},
        {0xc0, 9, "\x20", 1, MR_CORRUPT, "sampling factors 2 x 0"},
        {0xc0, 9, "\x31", 1, MR_CORRUPT, "is damaged"}, /* 3 is no multiple of 1 and 2 */
        {0xc0, (size_t)-1, "\xc3", 1, MR_UNSUPPORTED, "SOF3 (lossless"},
        {0xc0, (size_t)-1, "\xc9", 1, MR_UNSUPPORTED, "SOF9"},
        {0xc0, 0, "\0\1", 2, MR_CORRUPT, "segment of length 1"},
        {0xc0, 0, "\xff\xff", 2, MR_CORRUPT, "cut short"},
        {0xc4, 3, "\xff\xff\xff", 3, MR_CORRUPT, "Huffman table of"},
        {0xc4, 2, "\x40", 1, MR_CORRUPT, "is damaged"},
        {0xdb, 2, "\x09", 1, MR_CORRUPT, "is damaged"},
        {0xda, 2, "\x05", 1, MR_CORRUPT, "is damaged"},
        {0xda, (size_t)-1, "\xd8", 1, MR_CORRUPT, "marker FF D8"},
        {0xda, (size_t)-1, "\xd9", 1, MR_CORRUPT, "without picture data"},
        {0xc0, (size_t)-1, "\xfe", 1, MR_CORRUPT, "before the frame header"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        buffer b = read_picture("jpeg-420.jpg");
        const size_t at = find_marker(&b, row[i].marker) + 2 + row[i].at;
        memcpy(b.data + at, row[i].bytes, row[i].len);
        assert_refused(&b, row[i].status, row[i].message);
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

static void bmp_headers_that_lie_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        size_t at;
        const char *bytes;
        size_t len;
        mr_status status;
        const char *message;
    } row[] = {
        {"bmp24-47x35.bmp", 18, "\x60\xea\0\0\x60\xea\0\0", 8, MR_INVALID, "60000 x 60000"},
        {"bmp24-47x35.bmp", 18, "\0\0\0\0", 4, MR_CORRUPT, "0 x 35 pixels"},
        {"bmp24-47x35.bmp", 22, "\0\0\0\0", 4, MR_CORRUPT, "47 x 0 pixels"},
        {"bmp24-47x35.bmp", 18, "\xff\xff\xff\xff", 4, MR_CORRUPT, "a BMP -1 pixels wide"},
        {"bmp24-47x35.bmp", 22, "\0\0\0\x80", 4, MR_INVALID, "47 x 2147483648"},
        {"bmp24-47x35.bmp", 22, "\x24\0\0\0", 4, MR_CORRUPT, "cut short"},
        {"bmp24-47x35.bmp", 10, "\xff\xff\xff\xff", 4, MR_CORRUPT, "cut short"},
        {"bmp24-47x35.bmp", 10, "\x0e\0\0\0", 4, MR_CORRUPT, "pixels begin at byte 14"},
        {"bmp24-47x35.bmp", 14, "\x29\0\0\0", 4, MR_UNSUPPORTED, "header of 41 bytes"},
        {"bmp24-47x35.bmp", 14, "\xff\xff\xff\xff", 4, MR_UNSUPPORTED, "is not known"},
        {"bmp24-47x35.bmp", 28, "\x02", 1, MR_UNSUPPORTED, "BMP of 2 bits"},
        {"bmp24-47x35.bmp", 28, "\x20", 1, MR_CORRUPT, "cut short"},
        {"bmp24-47x35.bmp", 30, "\x03", 1, MR_CORRUPT, "24 bits with masks"},
        {"bmp8.bmp", 30, "\x01", 1, MR_UNSUPPORTED, "run lengths"},
        {"bmp8.bmp", 46, "\xff\xff\xff\xff", 4, MR_CORRUPT, "palette of 4294967295"},
        {"bmp8.bmp", 46, "\xff\xff\0\0", 4, MR_CORRUPT, "cut short"},
        {"bmp32-masks.bmp", 54, "\0\0\0\0", 4, MR_UNSUPPORTED, "masks 00000000"},
        {"bmp32-masks.bmp", 54, "\0\0\xf0", 3, MR_UNSUPPORTED, "masks 00f00000"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        buffer b = read_picture(row[i].file);
        memcpy(b.data + row[i].at, row[i].bytes, row[i].len);
        assert_refused(&b, row[i].status, row[i].message);
        free(b.data);
    }
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
        cmocka_unit_test(other_files_are_refused_and_named_where_they_are_known),
        cmocka_unit_test(png_dimensions_beyond_the_limits_are_refused_before_decoding),
        cmocka_unit_test(the_callers_limits_are_the_ones_that_count),
        cmocka_unit_test(png_structure_that_no_png_has_is_refused),
        cmocka_unit_test(a_png_that_inflates_to_more_than_its_pixels_is_stopped),
        cmocka_unit_test(jpeg_headers_that_lie_are_refused),
        cmocka_unit_test(a_jpeg_of_thousands_of_scans_is_refused),
        cmocka_unit_test(a_jpeg_of_thousands_of_tables_is_refused),
        cmocka_unit_test(a_jpeg_without_data_for_a_component_decodes_to_the_same_bytes_each_time),
        cmocka_unit_test(bmp_headers_that_lie_are_refused),
        cmocka_unit_test(a_picture_cut_short_anywhere_is_refused),
        cmocka_unit_test(a_png_with_any_byte_changed_is_refused),
        cmocka_unit_test(changed_pictures_decode_or_are_refused_and_nothing_else),
        cmocka_unit_test(random_bytes_behind_a_signature_are_refused),
        cmocka_unit_test(large_pngs_of_every_kind_decode_within_the_promised_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
