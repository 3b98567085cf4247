/* image_jpeg.c - the structure of a JPEG (ITU-T T.81, annex B): markers, dimensions, tables, scans.
 *
 * stb_image lets Huffman tables of more than 256 symbols overflow, and repeats scans for as long as
 * there are any: a few bytes each, all blocks of the picture. So the markers are walked first, in
 * exactly the order in which stb_image meets them: inside a scan only FF 00 and restart markers are
 * data. A file without its end marker is refused before it costs anything.
 * SPDX-License-Identifier: Apache-2.0 */
#include "encoders/image_private.h"

/* Progressive files have about ten scans; a scan costs all blocks and a few bytes. */
#define MOST_SCANS  64
#define MOST_TABLES 1024

enum {
    SOI = 0xd8,
    EOI = 0xd9,
    SOS = 0xda,
    DHT = 0xc4,
    FIRST_RESTART = 0xd0,
    LAST_RESTART = 0xd7,
    SOF_PROGRESSIVE = 0xc2
};

typedef struct {
    const char *name;
    const uint8_t *data;
    size_t len, at;
    const mr_image_options *limits;
    mr_image_layout *out;
    bool progressive;
    int components;             /* 0: no frame header yet */
    int sampling_h, sampling_v; /* the largest */
    int scans, tables;
    mr_error *err;
} reader;

static mr_status cut_short(const reader *r)
{
    return MR_FAIL(r->err, CORRUPT,
                   "picture '%s': cut short: %zu bytes end before the JPEG's end marker", r->name,
                   r->len);
}

/* The next FF xx that is a marker, and r->at behind it. Within a scan, FF 00 and restart markers
 * are passed over. */
static mr_status next_marker(reader *r, bool in_scan, uint8_t *marker)
{
    while (r->at + 1 < r->len) {
        const uint8_t byte = r->data[r->at++], next = r->data[r->at];
        if (byte != 0xff || next == 0xff)
            continue;
        if (next == 0 || (in_scan && next >= FIRST_RESTART && next <= LAST_RESTART))
            continue;
        *marker = next;
        r->at++;
        return MR_OK;
    }
    return cut_short(r);
}

/* The body of a marker segment; its length counts itself. */
static mr_status segment(reader *r, const uint8_t **body, size_t *len)
{
    if (r->len - r->at < 2)
        return cut_short(r);
    const size_t whole = (size_t)r->data[r->at] << 8 | r->data[r->at + 1];
    if (whole < 2)
        return MR_FAIL(r->err, CORRUPT, "picture '%s': a JPEG segment of length %zu at byte %zu",
                       r->name, whole, r->at);
    if (whole > r->len - r->at)
        return cut_short(r);
    *body = r->data + r->at + 2;
    *len = whole - 2;
    r->at += whole;
    return MR_OK;
}

static mr_status read_frame(reader *r, uint8_t marker, const uint8_t *body, size_t len)
{
    if (r->components)
        return MR_FAIL(r->err, CORRUPT, "picture '%s': a JPEG with two frame headers", r->name);
    if (marker > SOF_PROGRESSIVE)
        return MR_FAIL(r->err, UNSUPPORTED,
                       "picture '%s': JPEG of kind SOF%d (lossless, hierarchical or arithmetic) is "
                       "not read; save it as baseline or progressive",
                       r->name, marker - 0xc0);
    if (len < 6 || len != 6 + 3 * (size_t)body[5])
        return MR_FAIL(r->err, CORRUPT, "picture '%s': a JPEG frame header of %zu bytes", r->name,
                       len);
    const unsigned height = (unsigned)body[1] << 8 | body[2];
    const unsigned width = (unsigned)body[3] << 8 | body[4];
    mr_status status = mr_image_check_size(r->name, width, height, r->limits, r->err);
    if (status != MR_OK)
        return status;
    if (body[0] != 8)
        return MR_FAIL(r->err, UNSUPPORTED, "picture '%s': JPEG of %d bits; only 8 are read",
                       r->name, body[0]);
    if (body[5] != 1 && body[5] != 3)
        return MR_FAIL(
            r->err, UNSUPPORTED,
            "picture '%s': JPEG of %d components (CMYK has 4); grey and colour are read, "
            "save it as RGB",
            r->name, body[5]);
    for (int i = 0; i < body[5]; i++) {
        const int h = body[7 + 3 * i] >> 4, v = body[7 + 3 * i] & 15;
        if (h < 1 || h > 4 || v < 1 || v > 4)
            return MR_FAIL(r->err, CORRUPT, "picture '%s': JPEG sampling factors %d x %d", r->name,
                           h, v);
        r->sampling_h = h > r->sampling_h ? h : r->sampling_h;
        r->sampling_v = v > r->sampling_v ? v : r->sampling_v;
    }
    r->components = body[5];
    r->progressive = marker == SOF_PROGRESSIVE;
    r->out->info.width = (int)width;
    r->out->info.height = (int)height;
    return MR_OK;
}

static mr_status read_tables(reader *r, const uint8_t *body, size_t len)
{
    for (size_t at = 0; at < len;) {
        if (len - at < 17)
            return MR_FAIL(r->err, CORRUPT, "picture '%s': a JPEG Huffman table is cut", r->name);
        size_t symbols = 0;
        for (int i = 1; i <= 16; i++)
            symbols += body[at + i];
        if (symbols > 256 || symbols > len - at - 17)
            return MR_FAIL(r->err, CORRUPT,
                           "picture '%s': a JPEG Huffman table of %zu symbols in %zu bytes",
                           r->name, symbols, len - at - 17);
        at += 17 + symbols;
        if (++r->tables > MOST_TABLES)
            return MR_FAIL(r->err, INVALID,
                           "picture '%s': more than %d JPEG Huffman tables; the file is not a "
                           "picture or made to take long",
                           r->name, MOST_TABLES);
    }
    return MR_OK;
}

/* A baseline scan costs an inverse DCT for every block, and each component has one. */
static mr_status read_scan(reader *r)
{
    const int most = r->progressive ? MOST_SCANS : r->components;
    if (!r->components)
        return MR_FAIL(r->err, CORRUPT, "picture '%s': JPEG data before the frame header", r->name);
    if (++r->scans > most)
        return MR_FAIL(r->err, INVALID,
                       "picture '%s': more than %d JPEG scans; the file is damaged or made to take "
                       "long",
                       r->name, most);
    return MR_OK;
}

static mr_status walk(reader *r)
{
    bool in_scan = false;
    for (;;) {
        uint8_t marker;
        const uint8_t *body;
        size_t len;
        mr_status status = next_marker(r, in_scan, &marker);
        if (status != MR_OK)
            return status;
        if (marker == EOI)
            break;
        if (marker == SOI || (marker >= FIRST_RESTART && marker <= LAST_RESTART) || marker == 1)
            return MR_FAIL(r->err, CORRUPT, "picture '%s': JPEG marker FF %02X at byte %zu",
                           r->name, marker, r->at - 2);
        status = segment(r, &body, &len);
        if (status != MR_OK)
            return status;
        in_scan = marker == SOS;
        if (in_scan)
            status = read_scan(r);
        else if (marker == DHT)
            status = read_tables(r, body, len);
        else if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc8 && marker != 0xcc)
            status = read_frame(r, marker, body, len);
        if (status != MR_OK)
            return status;
    }
    if (!r->scans)
        return MR_FAIL(r->err, CORRUPT, "picture '%s': a JPEG without picture data", r->name);
    return MR_OK;
}

mr_status mr_jpeg_read_layout(mr_image_layout *out, const char *name, mr_bytes file,
                              const mr_image_options *limits, mr_error *err)
{
    reader r = {.name = name,
                .data = file.data,
                .len = file.len,
                .at = 2,
                .limits = limits,
                .out = out,
                .err = err};
    mr_status status = walk(&r);
    if (status != MR_OK)
        return status;

    /* Planes of whole blocks, their coefficients where scans refine them, a row for each plane,
     * the result. */
    const size_t w = mr_size_round_up((size_t)out->info.width, (size_t)r.sampling_h * 8);
    const size_t h = mr_size_round_up((size_t)out->info.height, (size_t)r.sampling_v * 8);
    const size_t planes = w * h * (size_t)r.components * (r.progressive ? 3 : 1);
    const size_t pixels = (size_t)out->info.width * (size_t)out->info.height * 3;
    out->info.work_bytes = planes + pixels + 4 * w + ((size_t)1 << 17);
    return MR_OK;
}
