/* image_bmp.c - BMP: its headers from OS/2 to version 5, and its pixels, as Pillow reads them.
 *
 * A field that stands for alpha is ignored, as few programs agree on it. Masks are those that
 * Pillow knows: whole bytes of 32 bits, and 555 and 565 of 16.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "encoders/image_private.h"

#define FILE_HEADER_BYTES 14
#define CORE_BYTES        12 /* OS/2 1.x: 16-bit dimensions, palette entries of 3 bytes */
#define INFO_BYTES        40
#define MASKS_AT          (FILE_HEADER_BYTES + INFO_BYTES)

enum { PLAIN = 0, RLE8 = 1, RLE4 = 2, BITFIELDS = 3 };

typedef struct {
    const char *name;
    const uint8_t *data;
    size_t len;
    const mr_image_options *limits;
    mr_image_layout *out;
    size_t header; /* bytes of the info header */
    uint32_t compression, colours;
    mr_error *err;
} reader;

static mr_status cut_short(const reader *r, size_t needed)
{
    return MR_FAIL(r->err, CORRUPT, "picture '%s': cut short: a BMP of %zu bytes needs %zu",
                   r->name, r->len, needed);
}

static mr_status read_size(reader *r)
{
    const uint8_t *p = r->data + FILE_HEADER_BYTES;
    mr_bmp_layout *bmp = &r->out->bmp;
    int64_t width, height;
    if (r->header == CORE_BYTES) {
        width = mr_load_u16le(p + 4);
        height = mr_load_u16le(p + 6);
        bmp->bits = mr_load_u16le(p + 10);
    } else {
        width = (int32_t)mr_load_u32le(p + 4);
        height = (int32_t)mr_load_u32le(p + 8);
        bmp->bits = mr_load_u16le(p + 14);
        r->compression = mr_load_u32le(p + 16);
        r->colours = mr_load_u32le(p + 32);
    }
    bmp->top_down = height < 0;
    height = height < 0 ? -height : height;
    if (width < 0)
        return MR_FAIL(r->err, CORRUPT, "picture '%s': a BMP %lld pixels wide", r->name,
                       (long long)width);
    mr_status status =
        mr_image_check_size(r->name, (uint64_t)width, (uint64_t)height, r->limits, r->err);
    r->out->info.width = (int)width;
    r->out->info.height = (int)height;
    return status;
}

static bool same_masks(const uint32_t *mask, uint32_t red, uint32_t green, uint32_t blue)
{
    return mask[0] == red && mask[1] == green && mask[2] == blue;
}

static mr_status read_masks(reader *r)
{
    mr_bmp_layout *bmp = &r->out->bmp;
    static const uint32_t plain16[3] = {0x7c00, 0x3e0, 0x1f};
    static const uint32_t plain32[3] = {0xff0000, 0xff00, 0xff};
    memcpy(bmp->mask, bmp->bits == 16 ? plain16 : plain32, sizeof bmp->mask);
    if (r->compression != BITFIELDS)
        return MR_OK;
    if (bmp->bits != 16 && bmp->bits != 32)
        return MR_FAIL(r->err, CORRUPT, "picture '%s': a BMP of %d bits with masks", r->name,
                       bmp->bits);
    if (r->len < MASKS_AT + 12)
        return cut_short(r, MASKS_AT + 12);
    for (size_t i = 0; i < 3; i++)
        bmp->mask[i] = mr_load_u32le(r->data + MASKS_AT + 4 * i);
    const uint32_t *m = bmp->mask;
    const bool known =
        bmp->bits == 16
            ? same_masks(m, 0xf800, 0x7e0, 0x1f) || same_masks(m, 0x7c00, 0x3e0, 0x1f)
            : same_masks(m, 0xff0000, 0xff00, 0xff) || same_masks(m, 0xff, 0xff00, 0xff0000) ||
                  same_masks(m, 0xff000000, 0xff0000, 0xff00) ||
                  same_masks(m, 0xff000000, 0xff00, 0xff);
    if (!known)
        return MR_FAIL(r->err, UNSUPPORTED,
                       "picture '%s': BMP masks %08x %08x %08x are not read; save it with 24 bits",
                       r->name, m[0], m[1], m[2]);
    return MR_OK;
}

/* Entries are blue, green, red. The pixels follow at once where the header's offset says so; then
 * Pillow goes by the number of colours. */
static mr_status read_palette(reader *r)
{
    mr_bmp_layout *bmp = &r->out->bmp;
    const size_t at = FILE_HEADER_BYTES + r->header, step = r->header == CORE_BYTES ? 3 : 4;
    const size_t entries = r->colours ? r->colours : (size_t)1 << bmp->bits;
    if (entries > 65536)
        return MR_FAIL(r->err, CORRUPT, "picture '%s': a BMP palette of %zu colours", r->name,
                       entries);
    if (at + entries * step > r->len)
        return cut_short(r, at + entries * step);
    for (size_t i = 0; i < entries && i < 256; i++) {
        for (size_t c = 0; c < 3; c++)
            bmp->palette[i][c] = r->data[at + i * step + 2 - c];
    }
    if (bmp->pixels_at == at)
        bmp->pixels_at += entries * step;
    return MR_OK;
}

mr_status mr_bmp_read_layout(mr_image_layout *out, const char *name, mr_bytes file,
                             const mr_image_options *limits, mr_error *err)
{
    reader r = {
        .name = name, .data = file.data, .len = file.len, .limits = limits, .out = out, .err = err};
    mr_bmp_layout *bmp = &out->bmp;
    if (r.len < FILE_HEADER_BYTES + CORE_BYTES)
        return cut_short(&r, FILE_HEADER_BYTES + CORE_BYTES);
    bmp->pixels_at = mr_load_u32le(r.data + 10);
    r.header = mr_load_u32le(r.data + FILE_HEADER_BYTES);
    if (r.header != CORE_BYTES && r.header != INFO_BYTES && r.header != 52 && r.header != 56 &&
        r.header != 64 && r.header != 108 && r.header != 124)
        return MR_FAIL(err, UNSUPPORTED, "picture '%s': a BMP header of %zu bytes is not known",
                       name, r.header);
    if (r.len < FILE_HEADER_BYTES + r.header)
        return cut_short(&r, FILE_HEADER_BYTES + r.header);

    mr_status status = read_size(&r);
    if (status != MR_OK)
        return status;
    const int bits = bmp->bits;
    if (bits != 1 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32)
        return MR_FAIL(err, UNSUPPORTED, "picture '%s': BMP of %d bits is not read", name, bits);
    if (r.compression != PLAIN && r.compression != BITFIELDS)
        return MR_FAIL(err, UNSUPPORTED,
                       "picture '%s': compressed BMP (kind %u%s) is not read; save it as PNG", name,
                       r.compression,
                       r.compression == RLE8 || r.compression == RLE4 ? ", run lengths" : "");
    status = bits > 8 ? read_masks(&r) : read_palette(&r);
    if (status != MR_OK)
        return status;

    const size_t row = ((size_t)out->info.width * (size_t)bits + 7) / 8;
    bmp->stride = mr_size_round_up(row, 4);
    if (bmp->pixels_at < FILE_HEADER_BYTES + r.header)
        return MR_FAIL(err, CORRUPT,
                       "picture '%s': a BMP whose pixels begin at byte %zu, in its "
                       "header",
                       name, bmp->pixels_at);
    /* Padding of the last row may be missing. */
    const size_t needed = bmp->pixels_at + bmp->stride * ((size_t)out->info.height - 1) + row;
    if (needed > r.len)
        return cut_short(&r, needed);
    out->info.work_bytes = (size_t)out->info.width * (size_t)out->info.height * 3;
    return MR_OK;
}

/* A field of 5 or 6 bits as Pillow spreads it over a byte; one of 8 is itself. */
static uint8_t field(uint32_t pixel, uint32_t mask)
{
    uint32_t value = pixel & mask;
    while (!(mask & 1)) {
        mask >>= 1;
        value >>= 1;
    }
    return (uint8_t)(value * 255 / mask);
}

static void decode_row(const mr_bmp_layout *bmp, const uint8_t *row, size_t width, uint8_t *out)
{
    const unsigned bits = (unsigned)bmp->bits;
    for (size_t x = 0; x < width; x++, out += 3) {
        if (bits <= 8) {
            const unsigned in_byte = 8 - bits - (unsigned)(x * bits % 8);
            const unsigned index = row[x * bits / 8] >> in_byte & ((1u << bits) - 1);
            memcpy(out, bmp->palette[index], 3);
        } else if (bits == 24) {
            out[0] = row[3 * x + 2];
            out[1] = row[3 * x + 1];
            out[2] = row[3 * x];
        } else {
            const uint32_t pixel =
                bits == 16 ? mr_load_u16le(row + 2 * x) : mr_load_u32le(row + 4 * x);
            for (int c = 0; c < 3; c++)
                out[c] = field(pixel, bmp->mask[c]);
        }
    }
}

uint8_t *mr_bmp_decode(mr_bytes file, const mr_image_layout *layout)
{
    const mr_bmp_layout *bmp = &layout->bmp;
    const size_t width = (size_t)layout->info.width, height = (size_t)layout->info.height;
    uint8_t *pixels = mr_pixels_new(layout->info.work_bytes);
    if (!pixels)
        return NULL;
    for (size_t y = 0; y < height; y++) {
        const size_t from = bmp->top_down ? y : height - 1 - y;
        decode_row(bmp, (const uint8_t *)file.data + bmp->pixels_at + from * bmp->stride, width,
                   pixels + y * width * 3);
    }
    return pixels;
}
