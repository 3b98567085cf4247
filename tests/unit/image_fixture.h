/* image_fixture.h - pictures made or changed byte by byte, for tests of what is refused.
 *
 * PNGs are made chunk by chunk, with right checksums, so that what is refused is what a case names.
 * Include after cmocka.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_UNIT_IMAGE_FIXTURE_H
#define MR_TESTS_UNIT_IMAGE_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encoders/image.h"
#include "tests/support.h"

#define FOLDER "data/images"

typedef struct {
    uint8_t *data;
    size_t len, room;
} buffer;

static inline void put(buffer *b, const void *data, size_t len)
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

static inline void put_u32be(buffer *b, uint32_t v)
{
    put(b, (const uint8_t[]){(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v},
        4);
}

static inline uint32_t crc32_of(const uint8_t *data, size_t len)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

static inline void put_chunk(buffer *b, const char *type, const void *data, size_t len)
{
    put_u32be(b, (uint32_t)len);
    const size_t at = b->len;
    put(b, type, 4);
    put(b, data, len);
    put_u32be(b, crc32_of(b->data + at, len + 4));
}

static inline void put_signature(buffer *b)
{
    put(b, "\x89PNG\r\n\x1a\n", 8);
}

static inline void put_header_of(buffer *b, uint32_t width, uint32_t height, int depth, int colour,
                                 bool interlaced)
{
    buffer header = {0};
    put_u32be(&header, width);
    put_u32be(&header, height);
    put(&header, (const uint8_t[]){(uint8_t)depth, (uint8_t)colour, 0, 0, interlaced}, 5);
    put_chunk(b, "IHDR", header.data, header.len);
    free(header.data);
}

static inline void put_header(buffer *b, uint32_t width, uint32_t height, int depth, int colour)
{
    put_header_of(b, width, height, depth, colour, false);
}

/* zlib with stored blocks: len bytes of one value. */
static inline buffer stored(uint8_t value, size_t len)
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
static inline buffer deflated_zeros(size_t bytes)
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

static inline buffer read_picture(const char *file)
{
    buffer b = {0};
    b.data = (uint8_t *)test_file_read(test_path(FOLDER, file), &b.len);
    b.room = b.len;
    return b;
}

/* From a block of exactly the length, so that a sanitizer sees a byte read too many. */
static inline mr_status decode_exact(const uint8_t *data, size_t len, const mr_image_options *opt,
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

static inline void assert_refused(const buffer *b, mr_status status, const char *message)
{
    mr_error err = {0};
    assert_status(decode_exact(b->data, b->len, NULL, &err), status, &err);
    assert_contains(err.message, message);
}

/* Finds the segment with this marker; the offset of its FF. */
static inline size_t find_marker(const buffer *b, uint8_t marker)
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

#endif
