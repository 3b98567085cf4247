/* image_encoder.h - an item's picture to embedding tokens: decode, preprocess, CLIP tower, and the
 * patch grid pooled to a few tokens.
 *
 *     mr_image_encoder *encoder = NULL;
 *     mr_image_encoder_open(&encoder, "vision/", &opt, &err);
 *     mr_image_encoder_put(encoder, 0, "item 'gimp'", png, &err);
 *     mr_image_encoder_run(encoder, 1, vectors, &err);          vectors [1][tokens][dim]
 *
 * The vectors are the tower's, before any projector (clip.h, feature_layer), averaged over side^2
 * cells of the grid as mr_clip_pool_grid does. The folder is a CLIP or LLaVA folder, and pictures
 * are prepared as it says (mr_image_target_load).
 * Threads: one encoder, one thread; it spreads work over its pool.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_IMAGE_ENCODER_H
#define MR_ENCODERS_IMAGE_ENCODER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/bytes.h"
#include "core/error.h"
#include "core/threads.h"
#include "engine/gemm.h"

typedef struct mr_image_encoder mr_image_encoder;

typedef struct {
    int tokens;        /* a square, at most the tower's grid: 1, 4, 9, 16, ... */
    int feature_layer; /* as in mr_clip_image_request */
    mr_gemm_kind gemm; /* MR_GEMM_SCORING: the same bits in any company */
    size_t batch;      /* pictures that one run may take; 0: 1 */
    mr_pool *pool;     /* borrowed; NULL: one thread */
} mr_image_encoder_options;

/* The side of a square number of tokens; 0 when it is none. */
int mr_image_encoder_side(int tokens);

/* INVALID for tokens that the grid cannot give or a layer that the tower does not have. */
MR_NODISCARD mr_status mr_image_encoder_open(mr_image_encoder **out, const char *folder,
                                             const mr_image_encoder_options *opt, mr_error *err);
void mr_image_encoder_close(mr_image_encoder *encoder); /* NULL is fine */

size_t mr_image_encoder_dim(const mr_image_encoder *encoder);
bool mr_image_encoder_is_untrained(const mr_image_encoder *encoder);

/* Decodes and preprocesses one picture into place `slot`, below the batch. What is wrong with it is
 * told as in image.h and costs no other slot anything. name is for messages. */
MR_NODISCARD mr_status mr_image_encoder_put(mr_image_encoder *encoder, size_t slot,
                                            const char *name, mr_bytes file, mr_error *err);
/* out: [n][tokens][dim] of slots 0..n-1, which must be filled. */
MR_NODISCARD mr_status mr_image_encoder_run(mr_image_encoder *encoder, size_t n, float *out,
                                            mr_error *err);

#endif
