/* fuzz_image.c - any bytes either decode to a picture that can be resized, within the promised
 * memory, or are refused with a message; the same bytes give the same pixels.
 *
 * A PNG is tried once more with right checksums, without which a fuzzer would never come past the
 * first chunk.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "encoders/image.h"
#include "tests/fuzz/fuzz.h"

static void require(int condition)
{
    if (!condition)
        abort();
}

/* Every byte counts, so that a sanitizer sees one that was never written. */
static uint64_t look_at(const mr_image *image)
{
    static const struct {
        int edge, crop;
        bool pad;
    } targets[] = {{14, 14, false}, {9, 14, true}, {20, 7, false}};
    uint64_t seen = mr_hash_xxh3(image->rgb, 3 * (size_t)image->width * (size_t)image->height);
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        float values[3 * 14 * 14];
        mr_image_target target = mr_image_target_clip(targets[i].edge);
        target.crop = targets[i].crop;
        target.pad_to_square = targets[i].pad;
        require(mr_image_preprocess(image, &target, values, NULL) == MR_OK);
        for (int k = 0; k < 3 * target.crop * target.crop; k++)
            require(values[k] > -3 && values[k] < 3);
        seen ^= mr_hash_xxh3(values, 3 * (size_t)(target.crop * target.crop) * sizeof *values);
    }
    return seen;
}

static void read_picture(const uint8_t *data, size_t size, bool over_white)
{
    const mr_image_options opt = {.max_pixels = 1 << 16, .over_white = over_white};
    const mr_bytes file = {data, size};
    mr_error err = {0};
    mr_image_info info;
    mr_image image = {0};
    mr_status inspected = mr_image_inspect(&info, "fuzz", file, &opt, &err);
    mr_status decoded = mr_image_decode(&image, "fuzz", file, &opt, &err);
    if (decoded != MR_OK) {
        require(err.message[0] != '\0' && image.rgb == NULL);
        require(inspected == MR_OK || inspected == decoded);
        require(decoded == MR_CORRUPT || decoded == MR_UNSUPPORTED || decoded == MR_INVALID);
        return;
    }
    require(inspected == MR_OK && info.width == image.width && info.height == image.height);
    require((size_t)info.width * (size_t)info.height <= opt.max_pixels);
    const uint64_t seen = look_at(&image);
    mr_image_release(&image);
    require(mr_image_decode(&image, "fuzz", file, &opt, NULL) == MR_OK);
    require(look_at(&image) == seen);
    mr_image_release(&image);
}

static uint32_t load_u32be(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void seal(uint8_t *chunk, size_t len)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 4; i < len + 8; i++) {
        crc ^= chunk[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    crc = ~crc;
    for (size_t i = 0; i < 4; i++)
        chunk[8 + len + i] = (uint8_t)(crc >> (24 - 8 * i));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_picture(data, size, size % 2 != 0);
    if (size < 20 || memcmp(data, "\x89PNG\r\n\x1a\n", 8) != 0)
        return 0;
    uint8_t *sealed = malloc(size);
    if (!sealed)
        return 0;
    memcpy(sealed, data, size);
    for (size_t at = 8; size - at >= 12;) {
        const size_t len = load_u32be(sealed + at);
        if (len > size - at - 12)
            break;
        seal(sealed + at, len);
        at += 12 + len;
    }
    read_picture(sealed, size, size % 2 == 0);
    free(sealed);
    return 0;
}
