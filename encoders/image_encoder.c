/* image_encoder.c - see image_encoder.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "encoders/image_encoder.h"

#include <stdlib.h>

#include "encoders/clip.h"
#include "encoders/image.h"

struct mr_image_encoder {
    mr_clip *clip;
    mr_image_target target;
    int feature_layer;
    size_t tokens, batch;
    size_t pixels;   /* floats of one preprocessed picture */
    size_t patches;  /* floats of one picture's features */
    float *input;    /* [batch][pixels] */
    float *features; /* [batch][patches] */
};

int mr_image_encoder_side(int tokens)
{
    int side = 1;
    while (side * side < tokens && side < 256)
        side++;
    return side * side == tokens ? side : 0;
}

static mr_status check_shape(const mr_image_encoder *encoder, const mr_image_encoder_options *opt,
                             mr_error *err)
{
    const mr_clip_vision_config *vision = mr_clip_vision(encoder->clip);
    const int side = mr_image_encoder_side(opt->tokens);
    if (side == 0 || side > vision->grid)
        return MR_FAIL(err, INVALID,
                       "%d tokens of a picture, expected a square up to the tower's grid of %d x "
                       "%d: 1, 4, 9, 16, ...",
                       opt->tokens, vision->grid, vision->grid);
    if (opt->feature_layer > vision->L || opt->feature_layer < -vision->L - 1)
        return MR_FAIL(err, INVALID,
                       "feature layer %d, but the tower has hidden states 0 to %d (-1 is the last)",
                       opt->feature_layer, vision->L);
    return MR_OK;
}

mr_status mr_image_encoder_open(mr_image_encoder **out, const char *folder,
                                const mr_image_encoder_options *opt, mr_error *err)
{
    mr_image_encoder *encoder = calloc(1, sizeof *encoder);
    if (!encoder)
        return MR_FAIL(err, NO_MEMORY, "image encoder");
    encoder->batch = opt->batch ? opt->batch : 1;
    encoder->feature_layer = opt->feature_layer;
    encoder->tokens = (size_t)opt->tokens;
    const mr_clip_options clip = {.gemm = opt->gemm, .pool = opt->pool};
    mr_status status = mr_clip_open(&encoder->clip, folder, &clip, err);
    if (status == MR_OK)
        status = check_shape(encoder, opt, err);
    if (status == MR_OK)
        status = mr_image_target_load(&encoder->target, folder,
                                      mr_clip_vision(encoder->clip)->image_size, err);
    if (status == MR_OK) {
        const mr_clip_vision_config *vision = mr_clip_vision(encoder->clip);
        encoder->pixels = 3 * (size_t)vision->image_size * (size_t)vision->image_size;
        encoder->patches = (size_t)vision->grid * (size_t)vision->grid * (size_t)vision->C;
        encoder->input = calloc(encoder->batch, encoder->pixels * sizeof(float));
        encoder->features = calloc(encoder->batch, encoder->patches * sizeof(float));
        if (!encoder->input || !encoder->features)
            status = MR_FAIL(err, NO_MEMORY, "buffers for %zu pictures", encoder->batch);
    }
    if (status != MR_OK) {
        mr_image_encoder_close(encoder);
        return status;
    }
    *out = encoder;
    return MR_OK;
}

void mr_image_encoder_close(mr_image_encoder *encoder)
{
    if (!encoder)
        return;
    mr_clip_close(encoder->clip);
    free(encoder->input);
    free(encoder->features);
    free(encoder);
}

size_t mr_image_encoder_dim(const mr_image_encoder *encoder)
{
    return (size_t)mr_clip_vision(encoder->clip)->C;
}

bool mr_image_encoder_is_untrained(const mr_image_encoder *encoder)
{
    return mr_clip_is_untrained(encoder->clip);
}

mr_status mr_image_encoder_put(mr_image_encoder *encoder, size_t slot, const char *name,
                               mr_bytes file, mr_error *err)
{
    mr_image image = {0};
    mr_status status = mr_image_decode(&image, name, file, NULL, err);
    if (status == MR_OK)
        status = mr_image_preprocess(&image, &encoder->target,
                                     encoder->input + slot * encoder->pixels, err);
    mr_image_release(&image);
    return status;
}

mr_status mr_image_encoder_run(mr_image_encoder *encoder, size_t n, float *out, mr_error *err)
{
    const mr_clip_vision_config *vision = mr_clip_vision(encoder->clip);
    const size_t grid = (size_t)vision->grid, C = (size_t)vision->C;
    const size_t side = (size_t)mr_image_encoder_side((int)encoder->tokens);
    if (n > encoder->batch)
        return MR_FAIL(err, INVALID, "%zu pictures in one run, opened for %zu", n, encoder->batch);
    const mr_clip_image_request request = {.feature_layer = encoder->feature_layer,
                                           .features = encoder->features};
    mr_status status = mr_clip_image(encoder->clip, encoder->input, n, &request, err);
    for (size_t i = 0; i < n && status == MR_OK; i++)
        mr_clip_pool_grid(encoder->features + i * encoder->patches, grid, C, side,
                          out + i * encoder->tokens * C);
    return status;
}
