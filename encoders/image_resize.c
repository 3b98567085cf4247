/* image_resize.c - Pillow's bicubic resize, the centre crop and the padding in one pass over rows.
 *
 * Pillow (src/libImaging/Resample.c) computes weights in double, rounds them to 22 fractional bits,
 * and filters rows, then columns, with a rounding to bytes in between. Every output is an integer
 * sum, so it may be added up in any order and still be the same; that allows:
 *
 *  - only the columns and rows that the crop keeps are computed, so that memory does not grow with
 *    the length of a picture;
 *  - the square's padding is never made: the weights that fall on it are added up beforehand and
 *    multiplied with the one colour, for columns; for rows likewise with the one row that padding
 *    becomes.
 *
 * Filtered rows wait in a ring as long as the vertical window.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "encoders/image_private.h"

#define WEIGHT_BITS 22
#define HALF        (1 << (WEIGHT_BITS - 1))
#define MOST_EDGE   4096

/* One direction: for each output, the window of inputs that lies in the picture. */
typedef struct {
    size_t n;         /* outputs */
    size_t taps;      /* room for each window */
    size_t *first;    /* [n] inputs, counted from the picture's edge */
    size_t *count;    /* [n] */
    int32_t *outside; /* [n] sum of the weights that fall on the padding */
    int32_t *weight;  /* [n][taps] */
    void *memory;     /* owned */
} axis;

/* Where a direction of the picture lies in the resized square or rectangle. */
typedef struct {
    size_t in, before, total; /* pixels; padding in front; with all padding */
    size_t resized;           /* total after the resize */
    size_t kept_at, kept;     /* the crop's part of it */
    size_t black;             /* pixels of the result in front of that part */
} span;

static double bicubic(double x)
{
    x = fabs(x);
    if (x < 1.0)
        return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * -0.5;
    return 0.0;
}

static int32_t fixed_point(double weight)
{
    const double scaled = weight * (1 << WEIGHT_BITS);
    return (int32_t)(weight < 0 ? scaled - 0.5 : scaled + 0.5);
}

static void axis_done(axis *a)
{
    free(a->memory);
}

/* False when memory is out. */
static bool axis_init(axis *a, const span *s)
{
    const double scale = (double)s->total / (double)s->resized;
    const double shrink = scale < 1.0 ? 1.0 : scale;
    const double support = 2.0 * shrink;
    a->n = s->kept;
    a->taps = (size_t)ceil(support) * 2 + 1;
    const size_t sizes = 2 * a->n * sizeof(size_t), doubles = a->taps * sizeof(double);
    a->memory = malloc(doubles + sizes + (a->n + a->n * a->taps) * sizeof(int32_t));
    if (!a->memory)
        return false;
    double *exact = a->memory;
    a->first = (size_t *)((char *)a->memory + doubles);
    a->count = a->first + a->n;
    a->outside = (int32_t *)(a->count + a->n);
    a->weight = a->outside + a->n;

    const size_t end = s->before + s->in;
    for (size_t i = 0; i < a->n; i++) {
        const double centre = ((double)(s->kept_at + i) + 0.5) * scale;
        const double low = centre - support + 0.5, high = centre + support + 0.5;
        const size_t from = low < 0 ? 0 : (size_t)low;
        const size_t to = high > (double)s->total ? s->total : (size_t)high;
        double sum = 0;
        for (size_t x = from; x < to; x++) {
            exact[x - from] = bicubic(((double)x - centre + 0.5) * (1.0 / shrink));
            sum += exact[x - from];
        }
        a->first[i] = from <= s->before ? 0 : from - s->before;
        a->count[i] = 0;
        a->outside[i] = 0;
        for (size_t x = from; x < to; x++) {
            const int32_t weight =
                fixed_point(sum != 0.0 ? exact[x - from] / sum : exact[x - from]);
            if (x < s->before || x >= end)
                a->outside[i] += weight;
            else
                a->weight[i * a->taps + a->count[i]++] = weight;
        }
        if (a->count[i] == 0) /* in the padding altogether */
            a->first[i] = from < s->before ? 0 : s->in;
    }
    return true;
}

static inline uint8_t to_byte(int32_t sum)
{
    const int32_t value = sum >> WEIGHT_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* One row of pixels to the kept columns. Four taps at a time: their twelve bytes are a loop that
 * compilers turn into vectors. */
static void filter_row(const axis *a, const uint8_t *row, const uint8_t colour[3], uint8_t *out)
{
    for (size_t i = 0; i < a->n; i++) {
        const int32_t *weight = a->weight + i * a->taps;
        const uint8_t *p = row + 3 * a->first[i];
        const size_t count = a->count[i];
        int32_t lane[12] = {0};
        size_t k = 0;
        for (; k + 4 <= count; k += 4) {
            const int32_t w[12] = {weight[k],     weight[k],     weight[k],     weight[k + 1],
                                   weight[k + 1], weight[k + 1], weight[k + 2], weight[k + 2],
                                   weight[k + 2], weight[k + 3], weight[k + 3], weight[k + 3]};
            for (size_t j = 0; j < 12; j++)
                lane[j] += p[3 * k + j] * w[j];
        }
        for (; k < count; k++) {
            for (size_t c = 0; c < 3; c++)
                lane[c] += p[3 * k + c] * weight[k];
        }
        for (size_t c = 0; c < 3; c++)
            out[3 * i + c] = to_byte(HALF + colour[c] * a->outside[i] + lane[c] + lane[3 + c] +
                                     lane[6 + c] + lane[9 + c]);
    }
}

/* What a row of padding becomes. */
static void filter_padding(const axis *a, const uint8_t colour[3], uint8_t *out)
{
    for (size_t i = 0; i < a->n; i++) {
        int32_t sum = a->outside[i];
        for (size_t k = 0; k < a->count[i]; k++)
            sum += a->weight[i * a->taps + k];
        for (size_t c = 0; c < 3; c++)
            out[3 * i + c] = to_byte(HALF + colour[c] * sum);
    }
}

typedef struct {
    axis x, y;
    uint8_t *ring;    /* [y.taps][bytes] filtered rows; row r is at r % y.taps */
    uint8_t *padding; /* [bytes] */
    int32_t *sums;    /* [bytes] */
    void *memory;     /* owned */
} resizer;

static void add_row(int32_t *sums, const uint8_t *row, int32_t weight, size_t bytes)
{
    for (size_t j = 0; j < bytes; j++)
        sums[j] += row[j] * weight;
}

static void filter_columns(const resizer *r, size_t i, size_t bytes, uint8_t *out)
{
    const axis *y = &r->y;
    for (size_t j = 0; j < bytes; j++)
        r->sums[j] = HALF + r->padding[j] * y->outside[i];
    for (size_t k = 0; k < y->count[i]; k++)
        add_row(r->sums, r->ring + (y->first[i] + k) % y->taps * bytes, y->weight[i * y->taps + k],
                bytes);
    for (size_t j = 0; j < bytes; j++)
        out[j] = to_byte(r->sums[j]);
}

/* Both directions of the plan: what the crop keeps of the resized picture. */
static span plan(size_t in, size_t total, size_t resized, size_t crop)
{
    span s = {.in = in, .before = (total - in) / 2, .total = total, .resized = resized};
    s.kept = resized < crop ? resized : crop;
    s.kept_at = resized < crop ? 0 : (resized - crop) / 2;
    s.black = resized < crop ? (crop - resized + 1) / 2 : 0;
    return s;
}

static mr_status check_target(const mr_image_target *target, mr_error *err)
{
    const bool sizes = target->edge >= 1 && target->edge <= MOST_EDGE && target->crop >= 1 &&
                       target->crop <= MOST_EDGE;
    if (!sizes)
        return MR_FAIL(err, INVALID,
                       "a picture's target of edge %d and crop %d; both must be from 1 to %d",
                       target->edge, target->crop, MOST_EDGE);
    for (int c = 0; c < 3; c++) {
        if (!(target->std[c] > 0) || !(target->mean[c] >= 0 && target->mean[c] <= 1))
            return MR_FAIL(err, INVALID,
                           "a picture's target with mean %g and deviation %g; expected a mean from "
                           "0 to 1 and a deviation above 0",
                           target->mean[c], target->std[c]);
    }
    return MR_OK;
}

mr_status mr_image_resize_crop(const mr_image *image, const mr_image_target *target, uint8_t *out,
                               mr_error *err)
{
    mr_status status = check_target(target, err);
    if (status != MR_OK)
        return status;
    const size_t width = (size_t)image->width, height = (size_t)image->height;
    const size_t shorter = width < height ? width : height, longer = width + height - shorter;
    const size_t edge = (size_t)target->edge, crop = (size_t)target->crop;
    const size_t far = edge * longer / shorter;
    const bool pad = target->pad_to_square;
    const span x = plan(width, pad ? longer : width, pad || width == shorter ? edge : far, crop);
    const span y = plan(height, pad ? longer : height, pad || height == shorter ? edge : far, crop);
    const size_t bytes = 3 * x.kept;
    uint8_t colour[3];
    for (int c = 0; c < 3; c++)
        colour[c] = (uint8_t)(target->mean[c] * 255);

    resizer r = {0};
    const bool axes = axis_init(&r.x, &x) && axis_init(&r.y, &y);
    if (axes)
        r.memory = malloc(bytes * (sizeof *r.sums + 1 + r.y.taps));
    if (!r.memory) {
        status =
            MR_FAIL(err, NO_MEMORY, "resizing a picture of %d x %d", image->width, image->height);
        goto out;
    }
    r.sums = r.memory;
    r.padding = (uint8_t *)(r.sums + bytes);
    r.ring = r.padding + bytes;
    filter_padding(&r.x, colour, r.padding);

    memset(out, 0, 3 * crop * crop);
    size_t next = r.y.first[0]; /* the next row to filter */
    for (size_t i = 0; i < y.kept; i++) {
        const size_t end = r.y.first[i] + r.y.count[i];
        if (next < r.y.first[i])
            next = r.y.first[i];
        for (; next < end; next++)
            filter_row(&r.x, image->rgb + next * width * 3, colour,
                       r.ring + next % r.y.taps * bytes);
        filter_columns(&r, i, bytes, out + ((y.black + i) * crop + x.black) * 3);
    }

out:
    free(r.memory);
    axis_done(&r.x);
    axis_done(&r.y);
    return status;
}

mr_status mr_image_preprocess(const mr_image *image, const mr_image_target *target, float *out,
                              mr_error *err)
{
    mr_status status = check_target(target, err);
    if (status != MR_OK)
        return status;
    const size_t n = (size_t)target->crop * (size_t)target->crop;
    uint8_t *pixels = malloc(3 * n);
    if (!pixels)
        return MR_FAIL(err, NO_MEMORY, "a picture of %d x %d", target->crop, target->crop);
    status = mr_image_resize_crop(image, target, pixels, err);
    if (status == MR_OK) {
        /* The reference multiplies in double, and rounds to float before it subtracts. */
        for (size_t c = 0; c < 3; c++) {
            float value[256];
            for (int v = 0; v < 256; v++)
                value[v] =
                    ((float)(v * target->rescale) - (float)target->mean[c]) / (float)target->std[c];
            for (size_t i = 0; i < n; i++)
                out[c * n + i] = value[pixels[3 * i + c]];
        }
    }
    free(pixels);
    return status;
}
