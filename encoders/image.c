/* image.c - decoding: which format, which limits, which pixels.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "encoders/image_private.h"

#define DEFAULT_BYTES  ((size_t)32 << 20)
#define MOST_BYTES     ((size_t)1 << 30) /* stb_image counts in int */
#define DEFAULT_PIXELS ((size_t)1 << 25)
#define DEFAULT_SIDE   16384
#define MOST_SIDE      65535
#define DEFAULT_ASPECT 256

static const struct {
    const char *magic;
    size_t len;
    mr_image_format format;
    const char *name;
} formats[] = {
    {"\x89PNG\r\n\x1a\n", 8, MR_IMAGE_PNG, "PNG"},
    {"\xff\xd8\xff", 3, MR_IMAGE_JPEG, "JPEG"},
    {"BM", 2, MR_IMAGE_BMP, "BMP"},
};
#define N_FORMATS (sizeof formats / sizeof *formats)

/* What people hand over in their place. */
static const struct {
    size_t at;
    const char *magic;
    const char *name;
} strangers[] = {
    {0, "GIF8", "GIF"},  {8, "WEBP", "WebP"},         {0, "II*", "TIFF"},
    {0, "MM", "TIFF"},   {4, "ftyp", "AVIF or HEIC"}, {0, "<svg", "SVG"},
    {0, "<?xml", "SVG"}, {0, "<", "HTML or SVG"},     {0, "{", "JSON"},
    {0, "%PDF", "PDF"},
};
#define N_STRANGERS (sizeof strangers / sizeof *strangers)

const char *mr_image_format_name(mr_image_format format)
{
    for (size_t i = 0; i < N_FORMATS; i++) {
        if (formats[i].format == format)
            return formats[i].name;
    }
    return "unknown";
}

mr_image_options mr_image_limits(const mr_image_options *opt)
{
    mr_image_options limits = opt ? *opt : (mr_image_options){0};
    if (limits.max_bytes == 0)
        limits.max_bytes = DEFAULT_BYTES;
    if (limits.max_bytes > MOST_BYTES)
        limits.max_bytes = MOST_BYTES;
    if (limits.max_pixels == 0)
        limits.max_pixels = DEFAULT_PIXELS;
    if (limits.max_side <= 0)
        limits.max_side = DEFAULT_SIDE;
    if (limits.max_side > MOST_SIDE)
        limits.max_side = MOST_SIDE;
    if (limits.max_aspect <= 0)
        limits.max_aspect = DEFAULT_ASPECT;
    return limits;
}

mr_status mr_image_check_size(const char *name, uint64_t width, uint64_t height,
                              const mr_image_options *limits, mr_error *err)
{
    const uint64_t side = (uint64_t)limits->max_side, aspect = (uint64_t)limits->max_aspect;
    if (width == 0 || height == 0)
        return MR_FAIL(err, CORRUPT, "picture '%s': %llu x %llu pixels; there is nothing to see",
                       name, (unsigned long long)width, (unsigned long long)height);
    if (width > side || height > side || width * height > limits->max_pixels)
        return MR_FAIL(err, INVALID,
                       "picture '%s': %llu x %llu pixels; at most %zu pixels and %llu a side are "
                       "read; scale it down",
                       name, (unsigned long long)width, (unsigned long long)height,
                       limits->max_pixels, (unsigned long long)side);
    if (width > aspect * height || height > aspect * width)
        return MR_FAIL(err, INVALID,
                       "picture '%s': %llu x %llu pixels; one side may be %llu times the other at "
                       "most",
                       name, (unsigned long long)width, (unsigned long long)height,
                       (unsigned long long)aspect);
    return MR_OK;
}

static mr_status refuse_format(const char *name, mr_bytes file, mr_error *err)
{
    const uint8_t *p = file.data;
    for (size_t i = 0; i < N_STRANGERS; i++) {
        const size_t len = strlen(strangers[i].magic);
        if (file.len >= strangers[i].at + len &&
            memcmp(p + strangers[i].at, strangers[i].magic, len) == 0)
            return MR_FAIL(err, UNSUPPORTED,
                           "picture '%s': begins like %s; PNG, JPEG and BMP are read", name,
                           strangers[i].name);
    }
    char start[8 * 3 + 1] = "";
    for (size_t i = 0; i < file.len && i < 8; i++)
        snprintf(start + 3 * i, 4, " %02x", p[i]);
    return MR_FAIL(err, UNSUPPORTED,
                   "picture '%s': not PNG, JPEG or BMP: %zu bytes that begin with%s", name,
                   file.len, start);
}

static mr_status read_layout(mr_image_layout *out, const char *name, mr_bytes file,
                             const mr_image_options *limits, mr_error *err)
{
    memset(out, 0, sizeof *out);
    if (file.len == 0)
        return MR_FAIL(err, CORRUPT, "picture '%s': the file is empty", name);
    if (file.len > limits->max_bytes)
        return MR_FAIL(err, INVALID, "picture '%s': %zu bytes; at most %zu are read", name,
                       file.len, limits->max_bytes);
    for (size_t i = 0; i < N_FORMATS; i++) {
        if (file.len < formats[i].len || memcmp(file.data, formats[i].magic, formats[i].len) != 0)
            continue;
        out->info.format = formats[i].format;
        switch (formats[i].format) {
        case MR_IMAGE_PNG: return mr_png_read_layout(out, name, file, limits, err);
        case MR_IMAGE_JPEG: return mr_jpeg_read_layout(out, name, file, limits, err);
        case MR_IMAGE_BMP: return mr_bmp_read_layout(out, name, file, limits, err);
        }
    }
    return refuse_format(name, file, err);
}

mr_status mr_image_inspect(mr_image_info *out, const char *name, mr_bytes file,
                           const mr_image_options *opt, mr_error *err)
{
    const mr_image_options limits = mr_image_limits(opt);
    mr_image_layout layout;
    mr_status status = read_layout(&layout, name, file, &limits, err);
    if (status == MR_OK)
        *out = layout.info;
    return status;
}

/* RGBA over opaque white, in place, in the arithmetic of Pillow's alpha_composite. */
static void lay_over_white(uint8_t *pixels, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint32_t alpha = pixels[4 * i + 3];
        for (size_t c = 0; c < 3; c++) {
            const uint32_t mixed =
                pixels[4 * i + c] * (alpha << 7) + 255 * ((255 - alpha) << 7) + (0x80 << 7);
            pixels[3 * i + c] = (uint8_t)(((mixed >> 8) + mixed) >> 8 >> 7);
        }
    }
}

static mr_status decode_by_stb(uint8_t **pixels, const char *name, mr_bytes file,
                               const mr_image_layout *layout, bool over_white, mr_error *err)
{
    const mr_image_info *info = &layout->info;
    const char *why = NULL;
    uint8_t *copy = NULL;
    int width = 0, height = 0;
    mr_status status = MR_OK;

    if (info->format == MR_IMAGE_PNG && layout->png.short_palette) {
        size_t len = 0;
        copy = mr_png_with_full_palette(file, &layout->png, &len);
        if (!copy)
            return MR_FAIL(err, NO_MEMORY, "picture '%s': a copy of %zu bytes", name, file.len);
        file = (mr_bytes){copy, len};
    }
    uint8_t *decoded =
        mr_stb_decode(file, over_white ? 4 : 3, info->work_bytes, &width, &height, &why);
    if (!decoded) {
        status = MR_FAIL(err, CORRUPT, "picture '%s': the %s is damaged (%s)", name,
                         mr_image_format_name(info->format), why);
    } else if (width != info->width || height != info->height) {
        status = MR_FAIL(err, INTERNAL, "picture '%s': decoded to %d x %d, its header says %d x %d",
                         name, width, height, info->width, info->height);
        mr_pixels_free(decoded);
    } else {
        if (over_white)
            lay_over_white(decoded, (size_t)width * (size_t)height);
        *pixels = decoded;
    }
    free(copy);
    return status;
}

mr_status mr_image_decode(mr_image *out, const char *name, mr_bytes file,
                          const mr_image_options *opt, mr_error *err)
{
    const mr_image_options limits = mr_image_limits(opt);
    mr_image_layout layout;
    uint8_t *pixels = NULL;
    mr_status status = read_layout(&layout, name, file, &limits, err);
    if (status != MR_OK)
        return status;
    if (layout.info.format == MR_IMAGE_BMP) {
        pixels = mr_bmp_decode(file, &layout);
        if (!pixels)
            return MR_FAIL(err, NO_MEMORY, "picture '%s': %zu bytes of pixels", name,
                           layout.info.work_bytes);
    } else {
        const bool over_white = limits.over_white && layout.info.has_alpha;
        status = decode_by_stb(&pixels, name, file, &layout, over_white, err);
        if (status != MR_OK)
            return status;
    }
    *out = (mr_image){layout.info.width, layout.info.height, pixels};
    return MR_OK;
}

void mr_image_release(mr_image *image)
{
    mr_pixels_free(image->rgb);
    *image = (mr_image){0};
}
