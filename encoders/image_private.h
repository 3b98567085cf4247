/* image_private.h - what the files of picture decoding share.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_IMAGE_PRIVATE_H
#define MR_ENCODERS_IMAGE_PRIVATE_H

#include "encoders/image.h"

typedef struct {
    size_t pixels_at; /* offset in the file */
    size_t stride;    /* bytes from row to row */
    int bits;         /* per pixel: 1, 4, 8, 16, 24, 32 */
    bool top_down;
    uint32_t mask[3];        /* of red, green, blue, for 16 and 32 bits */
    uint8_t palette[256][3]; /* as R, G, B; entries that the file lacks are black */
} mr_bmp_layout;

typedef struct {
    size_t palette_at;      /* offset of the PLTE chunk; 0: none */
    size_t palette_entries; /* that the file has */
    bool short_palette;     /* fewer than indices can name: stb_image would read beyond */
} mr_png_layout;

/* All that the structure of a file says. */
typedef struct {
    mr_image_info info;
    union {
        mr_bmp_layout bmp;
        mr_png_layout png;
    };
} mr_image_layout;

/* The options with their defaults filled in. */
mr_image_options mr_image_limits(const mr_image_options *opt);
/* INVALID beyond the limits, CORRUPT without pixels. Every reader calls it as soon as it knows the
 * dimensions and before it believes anything else. */
mr_status mr_image_check_size(const char *name, uint64_t width, uint64_t height,
                              const mr_image_options *limits, mr_error *err);

/* Each reads one format's structure: file is known to start with its signature. */
mr_status mr_png_read_layout(mr_image_layout *out, const char *name, mr_bytes file,
                             const mr_image_options *limits, mr_error *err);
mr_status mr_jpeg_read_layout(mr_image_layout *out, const char *name, mr_bytes file,
                              const mr_image_options *limits, mr_error *err);
mr_status mr_bmp_read_layout(mr_image_layout *out, const char *name, mr_bytes file,
                             const mr_image_options *limits, mr_error *err);

/* Pixels [height][width][3], for mr_pixels_free. NULL when memory is out. */
uint8_t *mr_bmp_decode(mr_bytes file, const mr_image_layout *layout);

/* The copy of a PNG whose palette is filled up with black, for free(). NULL when memory is out. */
uint8_t *mr_png_with_full_palette(mr_bytes file, const mr_png_layout *layout, size_t *len);

/* The one door to stb_image (image_stb.c). channels: 3 or 4. Allocates at most budget bytes; NULL
 * with a static reason in *why when the file is broken, or needs more, or memory is out. The pixels
 * are width * height * channels bytes, for mr_pixels_free. */
uint8_t *mr_stb_decode(mr_bytes file, int channels, size_t budget, int *width, int *height,
                       const char **why);
uint8_t *mr_pixels_new(size_t bytes); /* zeroed */
void mr_pixels_free(uint8_t *pixels); /* NULL is fine */

#endif
