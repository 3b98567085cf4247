/* clip_image.c - pictures through the vision tower, and the pooling of its patch grid.
 *
 * The patch convolution has a stride of its own size, so it is a linear over flattened patches: all
 * patches of all pictures of a pass make one product.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/guard.h"
#include "encoders/clip_private.h"

typedef struct {
    mr_clip *clip;
    const float *pixels;
} embed_step;

/* Rows of patches [begin, end), counted over all pictures: pixels -> wide [n * grid^2][3 * p * p].
 */
static void unfold_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    const embed_step *st = context;
    const mr_clip_vision_config *config = &st->clip->vision_config;
    const size_t grid = (size_t)config->grid, p = (size_t)config->patch_size;
    const size_t S = (size_t)config->image_size;
    for (size_t row = begin; row < end; row++) {
        const float *picture = st->pixels + row / grid * 3 * S * S;
        float *to = st->clip->wide + row * grid * 3 * p * p;
        for (size_t x = 0; x < grid; x++)
            for (size_t channel = 0; channel < 3; channel++)
                for (size_t y = 0; y < p; y++, to += p)
                    memcpy(to, picture + (channel * S + row % grid * p + y) * S + x * p,
                           p * sizeof *to);
    }
}

/* x = class token and patches, plus positions. */
static void place_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    const embed_step *st = context;
    const mr_clip *clip = st->clip;
    const size_t C = clip->vision.C, grid = (size_t)clip->vision_config.grid, T = grid * grid + 1;
    for (size_t row = begin; row < end; row++) {
        const size_t picture = row / T, at = row % T;
        const float *from = at == 0 ? clip->vision_ends.class_embedding
                                    : clip->h + (picture * (T - 1) + at - 1) * C;
        float *to = clip->x + row * C;
        memcpy(to, from, C * sizeof *to);
        clip->kernels->add(to, clip->vision_ends.positions + at * C, C);
    }
}

/* Hidden state 0 of n pictures in x. */
static void embed(mr_clip *clip, const float *pixels, size_t n)
{
    const size_t grid = (size_t)clip->vision_config.grid, T = grid * grid + 1;
    embed_step st = {clip, pixels};
    mr_parallel_for(clip->pool, n * grid, 1, unfold_task, &st);
    mr_clip_linear(clip, &clip->vision_ends.patch, clip->h, clip->wide, n * grid * grid);
    mr_parallel_for(clip->pool, n * T, 16, place_task, &st);
    mr_clip_norm_rows(clip, &clip->vision, &clip->vision_ends.pre_norm, clip->x, n * T);
}

static void take_features(const mr_clip *clip, size_t n, bool keep_cls, float *out)
{
    const size_t C = clip->vision.C, grid = (size_t)clip->vision_config.grid, T = grid * grid + 1;
    const size_t skip = keep_cls ? 0 : 1, rows = T - skip;
    for (size_t i = 0; i < n; i++)
        memcpy(out + i * rows * C, clip->x + (i * T + skip) * C, rows * C * sizeof *out);
}

/* The class tokens after post_layernorm, and projected. */
static void pool(mr_clip *clip, size_t n, float *pooled, float *embeds)
{
    const size_t C = clip->vision.C, grid = (size_t)clip->vision_config.grid, T = grid * grid + 1;
    for (size_t i = 0; i < n; i++)
        memcpy(clip->pooled + i * C, clip->x + i * T * C, C * sizeof *clip->pooled);
    mr_clip_norm_rows(clip, &clip->vision, &clip->vision_ends.post_norm, clip->pooled, n);
    if (pooled)
        memcpy(pooled, clip->pooled, n * C * sizeof *pooled);
    if (embeds)
        mr_clip_linear(clip, &clip->vision_ends.projection, embeds, clip->pooled, n);
}

static mr_status check_request(const mr_clip *clip, const mr_clip_image_request *request,
                               size_t *layer, mr_error *err)
{
    const int L = clip->vision_config.L;
    const int wanted = request->feature_layer;
    *layer = 0;
    if (request->features) {
        if (wanted < -(L + 1) || wanted > L)
            return MR_FAIL(err, INVALID,
                           "feature layer %d; a tower of %d blocks has hidden states 0 to %d, or "
                           "-1 to %d from the end",
                           wanted, L, L, -(L + 1));
        *layer = (size_t)(wanted < 0 ? L + 1 + wanted : wanted);
    }
    if ((request->pooled || request->embeds) && !clip->vision_ends.post_norm.weight)
        return MR_FAIL(err, NOT_FOUND,
                       "%s: holds no 'post_layernorm', so there is no pooled picture",
                       mr_safetensors_name(clip->file));
    if (request->embeds && !clip->vision_ends.projection.weight.data)
        return MR_FAIL(err, NOT_FOUND,
                       "%s: holds no 'visual_projection.weight', so pictures have no embedding; "
                       "a CLIPModel folder has it",
                       mr_safetensors_name(clip->file));
    return MR_OK;
}

mr_status mr_clip_image(mr_clip *clip, const float *pixels, size_t n,
                        const mr_clip_image_request *request, mr_error *err)
{
    size_t layer;
    mr_status status = check_request(clip, request, &layer, err);
    if (status != MR_OK)
        return status;

    const size_t C = clip->vision.C, S = (size_t)clip->vision_config.image_size;
    const size_t grid = (size_t)clip->vision_config.grid, T = grid * grid + 1;
    const size_t rows = request->keep_cls ? T : T - 1;
    const bool to_the_end = request->pooled || request->embeds;
    const size_t blocks = to_the_end ? clip->vision.L : layer;

    mr_guard_begin("clip image");
    for (size_t first = 0; first < n; first += clip->max_images) {
        const size_t count = n - first < clip->max_images ? n - first : clip->max_images;
        float *features = request->features ? request->features + first * rows * C : NULL;
        embed(clip, pixels + first * 3 * S * S, count);
        for (size_t l = 0;; l++) {
            if (l == layer && features)
                take_features(clip, count, request->keep_cls, features);
            if (l == blocks)
                break;
            mr_clip_block(clip, &clip->vision, l, count, T);
        }
        if (to_the_end)
            pool(clip, count, request->pooled ? request->pooled + first * C : NULL,
                 request->embeds
                     ? request->embeds + first * (size_t)clip->vision_config.projection_dim
                     : NULL);
    }
    mr_guard_end();
    return MR_OK;
}

mr_status mr_clip_hidden_states(mr_clip *clip, const float *pixels, float *out, mr_error *err)
{
    (void)err;
    const size_t grid = (size_t)clip->vision_config.grid, T = grid * grid + 1;
    const size_t state = T * clip->vision.C;
    mr_guard_begin("clip hidden states");
    embed(clip, pixels, 1);
    for (size_t l = 0;; l++) {
        memcpy(out + l * state, clip->x, state * sizeof *out);
        if (l == clip->vision.L)
            break;
        mr_clip_block(clip, &clip->vision, l, 1, T);
    }
    mr_guard_end();
    return MR_OK;
}

void mr_clip_pool_grid(const float *features, size_t grid, size_t C, size_t side, float *out)
{
    for (size_t cell = 0; cell < side * side; cell++, out += C) {
        const size_t top = cell / side * grid / side, bottom = (cell / side + 1) * grid / side;
        const size_t left = cell % side * grid / side, right = (cell % side + 1) * grid / side;
        memset(out, 0, C * sizeof *out);
        for (size_t y = top; y < bottom; y++)
            for (size_t x = left; x < right; x++)
                for (size_t c = 0; c < C; c++)
                    out[c] += features[(y * grid + x) * C + c];
        const float share = 1.0f / (float)((bottom - top) * (right - left));
        for (size_t c = 0; c < C; c++)
            out[c] *= share;
    }
}
