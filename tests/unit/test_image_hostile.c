/* test_image_hostile.c - pictures whose headers lie, and files that are none: refused by name.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/image_fixture.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_files_are_refused_and_named_where_they_are_known),
        cmocka_unit_test(png_dimensions_beyond_the_limits_are_refused_before_decoding),
        cmocka_unit_test(the_callers_limits_are_the_ones_that_count),
        cmocka_unit_test(png_structure_that_no_png_has_is_refused),
        cmocka_unit_test(jpeg_headers_that_lie_are_refused),
        cmocka_unit_test(bmp_headers_that_lie_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
