/* image_stb.c - the one file that includes stb_image, and the memory that it may use.
 *
 * stb_image 2.27 (Debian 12) trusts its input in ways that its callers must make up for:
 *
 *  - Inflating a PNG doubles the output for as long as there is input. So it allocates through a
 *    budget, per thread, that the caller derives from the dimensions.
 *  - A JPEG without data for a component, or with a scan that ends early, shows what malloc left
 *    behind. So memory is zeroed.
 *  - Huffman tables of more than 256 symbols overflow, and palette indices beyond the palette read
 *    the stack. image_jpeg.c and image_png.c let neither pass.
 *  - Sums of corrupt coefficients overflow an int: this file is compiled with -fwrapv, and without
 *    the sanitizer that complains about its shifts (CMakeLists.txt).
 *
 * BMP is left out on purpose: the palette of an OS/2 file comes out too short there, and missing
 * entries and cut files are read from uninitialised memory. image_bmp.c is shorter than guarding
 * that.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "encoders/image_private.h"

/* In front of each block, so that realloc and free know what goes back to the budget. */
#define PREFIX 16

static _Thread_local size_t budget_left;

static void *budget_alloc(size_t bytes)
{
    if (bytes > budget_left || bytes > SIZE_MAX - PREFIX)
        return NULL;
    char *block = calloc(1, bytes + PREFIX);
    if (!block)
        return NULL;
    memcpy(block, &bytes, sizeof bytes);
    budget_left -= bytes;
    return block + PREFIX;
}

static size_t block_bytes(const void *p)
{
    size_t bytes;
    memcpy(&bytes, (const char *)p - PREFIX, sizeof bytes);
    return bytes;
}

static void budget_free(void *p)
{
    if (!p)
        return;
    budget_left += block_bytes(p);
    free((char *)p - PREFIX);
}

static void *budget_realloc(void *p, size_t bytes)
{
    void *grown = budget_alloc(bytes);
    if (!grown || !p)
        return grown;
    const size_t old = block_bytes(p);
    memcpy(grown, p, old < bytes ? old : bytes);
    budget_free(p);
    return grown;
}

#define STBI_MALLOC(bytes)     budget_alloc(bytes)
#define STBI_REALLOC(p, bytes) budget_realloc((p), (bytes))
#define STBI_FREE(p)           budget_free(p)
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_MAX_DIMENSIONS 65535
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>

uint8_t *mr_stb_decode(mr_bytes file, int channels, size_t budget, int *width, int *height,
                       const char **why)
{
    int found = 0;
    budget_left = budget;
    uint8_t *pixels =
        stbi_load_from_memory(file.data, (int)file.len, width, height, &found, channels);
    budget_left = 0;
    *why = NULL;
    if (!pixels) {
        *why = stbi_failure_reason();
        if (!*why)
            *why = "broken data"; /* a few paths give none */
    }
    return pixels;
}

uint8_t *mr_pixels_new(size_t bytes)
{
    budget_left = bytes;
    uint8_t *pixels = budget_alloc(bytes);
    budget_left = 0;
    return pixels;
}

void mr_pixels_free(uint8_t *pixels)
{
    budget_free(pixels);
    budget_left = 0;
}
