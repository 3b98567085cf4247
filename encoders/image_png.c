/* image_png.c - the structure of a PNG (W3C PNG, third edition): chunks, checksums, palette.
 *
 * stb_image checks no CRC and trusts palette indices; here the chunks that decide the pixels are
 * checked first. Deflate packs at most 1032 bytes into one, so a file that is too short for its
 * dimensions is refused before any of it is inflated.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "encoders/image_private.h"

#define SIGNATURE_BYTES 8
#define CHUNK_OVERHEAD  12 /* length, type and CRC around the data */
#define MOST_PER_BYTE   1032

enum { GREY = 0, RGB = 2, PALETTE = 3, GREY_ALPHA = 4, RGBA = 6 };

static uint32_t load_u32be(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void store_u32be(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

/* CRC-32 of ISO 3309 (polynomial 0xEDB88320), four bits at a time: the table fits a cache line. */
static uint32_t crc32_iso(const uint8_t *data, size_t len)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

typedef struct {
    const char *name;
    const uint8_t *data;
    size_t len;
    const mr_image_options *limits;
    mr_image_layout *out;
    int depth, colour;
    bool interlaced;
    size_t packed; /* bytes of all IDATs */
    mr_error *err;
} reader;

static bool is_chunk(const uint8_t *chunk, const char *type)
{
    return memcmp(chunk + 4, type, 4) == 0;
}

/* A type is four letters; a small first one means that a decoder may pass the chunk over. */
static mr_status check_type(const reader *r, const uint8_t *chunk, size_t at)
{
    for (int i = 4; i < 8; i++) {
        const uint8_t letter = chunk[i] | 0x20;
        if (letter < 'a' || letter > 'z')
            return MR_FAIL(r->err, CORRUPT,
                           "picture '%s': no PNG chunk at byte %zu; the file is damaged", r->name,
                           at);
    }
    return MR_OK;
}

static mr_status read_header(reader *r, const uint8_t *data, size_t len)
{
    static const uint8_t depths[7] = {
        1 | 2 | 4 | 8 | 16, 0, 8 | 16, 1 | 2 | 4 | 8, 8 | 16, 0, 8 | 16};
    if (len != 13)
        return MR_FAIL(r->err, CORRUPT, "picture '%s': its IHDR is %zu bytes, expected 13", r->name,
                       len);
    const uint64_t width = load_u32be(data), height = load_u32be(data + 4);
    mr_status status = mr_image_check_size(r->name, width, height, r->limits, r->err);
    if (status != MR_OK)
        return status;
    r->depth = data[8];
    r->colour = data[9];
    const bool known_depth =
        r->depth == 1 || r->depth == 2 || r->depth == 4 || r->depth == 8 || r->depth == 16;
    if (r->colour > 6 || !known_depth || !(depths[r->colour] & r->depth))
        return MR_FAIL(r->err, CORRUPT,
                       "picture '%s': PNG colour type %d with %d bits, which does not exist",
                       r->name, r->colour, r->depth);
    if (data[10] != 0 || data[11] != 0 || data[12] > 1)
        return MR_FAIL(r->err, UNSUPPORTED,
                       "picture '%s': PNG compression %d, filter %d, interlacing %d; known are 0, "
                       "0, and 0 or 1",
                       r->name, data[10], data[11], data[12]);
    if (r->colour == GREY && r->depth == 16)
        return MR_FAIL(r->err, UNSUPPORTED,
                       "picture '%s': grey of 16 bits is not read; save it with 8 bits", r->name);
    r->interlaced = data[12] == 1;
    r->out->info.width = (int)width;
    r->out->info.height = (int)height;
    r->out->info.has_alpha = (r->colour & 4) != 0;
    return MR_OK;
}

static mr_status read_palette(reader *r, size_t at, size_t len)
{
    mr_png_layout *png = &r->out->png;
    if (len == 0 || len > 768 || len % 3 != 0 || png->palette_at || r->packed > 0)
        return MR_FAIL(r->err, CORRUPT,
                       "picture '%s': a palette of %zu bytes at byte %zu; expected one before the "
                       "pixels, 3 to 768 bytes",
                       r->name, len, at);
    png->palette_at = at;
    png->palette_entries = len / 3;
    return MR_OK;
}

/* Which chunk it is and whether it may stand here. */
static mr_status read_chunk(reader *r, const uint8_t *chunk, size_t at, size_t len, bool *ended)
{
    const bool first = at == SIGNATURE_BYTES;
    if (is_chunk(chunk, "IHDR") != first)
        return MR_FAIL(r->err, CORRUPT, "picture '%s': PNG chunk '%.4s' where IHDR is %s", r->name,
                       (const char *)chunk + 4, first ? "expected" : "past");
    if (first)
        return read_header(r, chunk + 8, len);
    if (is_chunk(chunk, "PLTE"))
        return read_palette(r, at, len);
    if (is_chunk(chunk, "tRNS"))
        r->out->info.has_alpha = true;
    else if (is_chunk(chunk, "IDAT"))
        r->packed += len;
    else if (is_chunk(chunk, "IEND"))
        *ended = true;
    else if (!(chunk[4] & 0x20))
        return MR_FAIL(r->err, UNSUPPORTED, "picture '%s': PNG chunk '%.4s' is not known", r->name,
                       (const char *)chunk + 4);
    return MR_OK;
}

/* The chunks up to IEND; what comes behind it is no part of the picture. */
static mr_status walk(reader *r)
{
    bool ended = false;
    for (size_t at = SIGNATURE_BYTES; !ended;) {
        if (r->len - at < CHUNK_OVERHEAD)
            return MR_FAIL(r->err, CORRUPT,
                           "picture '%s': cut short: %zu bytes end before the PNG's last chunk",
                           r->name, r->len);
        const uint8_t *chunk = r->data + at;
        const size_t len = load_u32be(chunk);
        mr_status status = check_type(r, chunk, at);
        if (status != MR_OK)
            return status;
        if (len > r->len - at - CHUNK_OVERHEAD)
            return MR_FAIL(r->err, CORRUPT,
                           "picture '%s': cut short: PNG chunk '%.4s' at byte %zu has %zu bytes, "
                           "the file %zu",
                           r->name, (const char *)chunk + 4, at, len, r->len);
        /* The header first of all: its limits make the rest affordable. */
        status = read_chunk(r, chunk, at, len, &ended);
        if (status == MR_OK && crc32_iso(chunk + 4, len + 4) != load_u32be(chunk + 8 + len))
            status = MR_FAIL(r->err, CORRUPT,
                             "picture '%s': the checksum of PNG chunk '%.4s' at byte %zu does not "
                             "match; the file is damaged",
                             r->name, (const char *)chunk + 4, at);
        if (status != MR_OK)
            return status;
        at += CHUNK_OVERHEAD + len;
    }
    return MR_OK;
}

/* What stb_image allocates: the packed data doubling as it grows (old and new together), the
 * inflated data likewise, and up to three pictures when 16 bits, interlacing and a conversion of
 * channels meet. */
static size_t work_bytes(const reader *r, size_t inflated)
{
    static const size_t channels[7] = {1, 0, 3, 1, 2, 0, 4};
    const size_t n = (size_t)r->out->info.width * (size_t)r->out->info.height;
    const size_t stored = (channels[r->colour] + 1) * (r->depth == 16 ? 2 : 1);
    const size_t pictures = stored * (r->interlaced ? 2 : 1) + 8;
    return 3 * r->packed + 3 * inflated + pictures * n + r->len + ((size_t)1 << 17);
}

mr_status mr_png_read_layout(mr_image_layout *out, const char *name, mr_bytes file,
                             const mr_image_options *limits, mr_error *err)
{
    static const size_t channels[7] = {1, 0, 3, 1, 2, 0, 4};
    reader r = {
        .name = name, .data = file.data, .len = file.len, .limits = limits, .out = out, .err = err};
    mr_status status = walk(&r);
    if (status != MR_OK)
        return status;

    if (r.colour == PALETTE) {
        if (!out->png.palette_at)
            return MR_FAIL(err, CORRUPT, "picture '%s': a PNG of palette indices has no palette",
                           name);
        out->png.short_palette = out->png.palette_entries < (size_t)1 << r.depth;
    }
    const size_t row = ((size_t)out->info.width * channels[r.colour] * (size_t)r.depth + 7) / 8 + 1;
    const size_t inflated = row * (size_t)out->info.height;
    if (inflated / MOST_PER_BYTE > r.packed)
        return MR_FAIL(err, CORRUPT,
                       "picture '%s': %zu bytes of data cannot hold %d x %d pixels; the file is "
                       "cut short or its dimensions are false",
                       name, r.packed, out->info.width, out->info.height);
    out->info.work_bytes = work_bytes(&r, inflated);
    return MR_OK;
}

uint8_t *mr_png_with_full_palette(mr_bytes file, const mr_png_layout *layout, size_t *len)
{
    const size_t missing = (256 - layout->palette_entries) * 3;
    const size_t end = layout->palette_at + 8 + layout->palette_entries * 3;
    uint8_t *copy = calloc(1, file.len + missing);
    if (!copy)
        return NULL;
    memcpy(copy, file.data, end);
    store_u32be(copy + layout->palette_at, 256 * 3);
    memcpy(copy + end + missing, (const uint8_t *)file.data + end, file.len - end);
    *len = file.len + missing;
    return copy;
}
