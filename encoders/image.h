/* image.h - pictures: from the bytes of a file to pixels, and from pixels to a CLIP tower's input.
 *
 *     mr_image image = {0};
 *     mr_image_target target = mr_image_target_clip(336);
 *     mr_image_decode(&image, "cat.png", bytes, NULL, &err);
 *     mr_image_preprocess(&image, &target, pixels, &err);      pixels [3][336][336]
 *     mr_image_release(&image);
 *
 * Formats: PNG, JPEG and BMP; the first bytes decide, whatever a name says. PNG and JPEG are
 * decoded by stb_image, BMP here. Pixels are those of Pillow's convert("RGB"), to the last bit for
 * PNG and BMP: grey is repeated, palettes are looked up (an index beyond the end is black), 16 bits
 * lose their low byte, alpha is dropped or laid over white. JPEG decoders differ: over the
 * reference files (test_image.c) the mean difference to Pillow's is at most 0.25 of 255 and the
 * largest 3, but for the last column of 4:2:2 files, which stb_image gets wrong by up to 41. EXIF
 * orientation and colour profiles are not applied, as the reference does not.
 *
 * Not read: grey PNG of 16 bits (Pillow turns all but the lowest 255 values white), CMYK JPEG,
 * JPEG of 12 bits, lossless and arithmetic ones, run-length coded BMP: UNSUPPORTED by name.
 *
 * A file is hostile until proved otherwise. Dimensions, structure, checksums (PNG) and lengths are
 * checked before anything is decoded; decoding allocates no more than mr_image_info.work_bytes and
 * its time is bounded by the limits. Cut files are refused, where Pillow would at times fill up
 * with grey; so are damaged ones where the format shows it: any changed byte of a PNG, but a JPEG
 * has no checksums.
 *
 * Errors name the picture: CORRUPT for damaged bytes, UNSUPPORTED for a format or a variant that is
 * not read, INVALID for one beyond the limits.
 * Threads: all functions may run at once on different pictures. They allocate.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_IMAGE_H
#define MR_ENCODERS_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/error.h"
#include "core/json.h"

typedef enum { MR_IMAGE_PNG, MR_IMAGE_JPEG, MR_IMAGE_BMP } mr_image_format;

/* Zero in a field: its default. */
typedef struct {
    size_t max_bytes;  /* of the file; 32 MiB, at most 1 GiB */
    size_t max_pixels; /* width * height; 2^25 */
    int max_side;      /* 16384, at most 65535 */
    int max_aspect;    /* longer side by shorter; 256 */
    bool over_white;   /* where a PNG is transparent, white shows through, as in transformers since
                        * 5; false: alpha is dropped, as convert("RGB") does */
} mr_image_options;

typedef struct {
    mr_image_format format;
    int width, height;
    bool has_alpha;    /* PNG: an alpha channel, or a palette or colour key with transparency */
    size_t work_bytes; /* the most that decoding allocates, the pixels included */
} mr_image_info;

typedef struct {
    int width, height;
    uint8_t *rgb; /* [height][width][3], owned */
} mr_image;

/* Reads and checks the structure without decoding. name is for messages; opt may be NULL. */
MR_NODISCARD mr_status mr_image_inspect(mr_image_info *out, const char *name, mr_bytes file,
                                        const mr_image_options *opt, mr_error *err);
/* Untouched on failure. */
MR_NODISCARD mr_status mr_image_decode(mr_image *out, const char *name, mr_bytes file,
                                       const mr_image_options *opt, mr_error *err);
void mr_image_release(mr_image *image); /* idempotent */

const char *mr_image_format_name(mr_image_format format); /* "PNG"; static storage */

/* What CLIP's image processor does, step by step: pad to a square (optional), resize the shortest
 * edge bicubically, crop the centre, multiply by rescale, subtract mean, divide by std. */
typedef struct {
    int edge; /* shortest edge after the resize, 1..4096; the other one is rounded down */
    int crop; /* side of the result, 1..4096; black is added where the picture is smaller */
    bool pad_to_square; /* with the mean colour: the original LLaVA, which crops nothing away */
    double rescale;
    double mean[3], std[3]; /* std above 0 */
} mr_image_target;

/* Mean and deviation of OpenAI's CLIP, edge and crop of one size. */
mr_image_target mr_image_target_clip(int size);
/* preprocessor_config.json, in any of the spellings that published folders have ("size": 224,
 * {"shortest_edge": 224}; do_pad). What it leaves out is as in mr_image_target_clip(size). A
 * resampling, a size or a step left out (do_resize false) that is not computed is UNSUPPORTED by
 * name. name is for messages. */
MR_NODISCARD mr_status mr_image_target_parse(mr_image_target *out, const char *name,
                                             const json_t *root, int size, mr_error *err);

/* What a model folder says: preprocessor_config.json, or the image_processor part of
 * processor_config.json (transformers 5); without either mr_image_target_clip(size). MISMATCH when
 * its crop is not size. */
MR_NODISCARD mr_status mr_image_target_load(mr_image_target *out, const char *folder, int size,
                                            mr_error *err);

/* uint8 after the crop: out [crop][crop][3]. Pillow's fixed-point arithmetic (Resample.c): 22-bit
 * weights, antialiased when shrinking, rounded to a byte between the two passes: rows first, then
 * columns, as in all versions before 13, which at times filters columns first. INVALID for a target
 * outside its bounds. Scratch is a few rows. */
MR_NODISCARD mr_status mr_image_resize_crop(const mr_image *image, const mr_image_target *target,
                                            uint8_t *out, mr_error *err);
/* The whole: out [3][crop][crop]. */
MR_NODISCARD mr_status mr_image_preprocess(const mr_image *image, const mr_image_target *target,
                                           float *out, mr_error *err);

#endif
