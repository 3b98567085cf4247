/* llava_private.h - what the files of LLaVA share.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_LLAVA_PRIVATE_H
#define MR_ENCODERS_LLAVA_PRIVATE_H

#include "core/arena.h"
#include "encoders/image.h"
#include "encoders/llava.h"
#include "encoders/projector.h"

#define MR_LLAVA_MAX_ENDS    16
#define MR_LLAVA_PASS_IMAGES 4 /* pictures whose pixels are in memory together */

typedef struct {
    mr_clip_vision_config vision;
    mr_model_config text;
    int feature_layer;
    bool keep_cls;          /* strategy "full" */
    bool projector_bias;    /* both layers */
    mr_image_target target; /* what the tower wants of a picture */
    int32_t image_token;
    int32_t ends[MR_LLAVA_MAX_ENDS];
    size_t n_ends;
} mr_llava_config;

/* Reads config.json of a folder, and generation_config.json and preprocessor_config.json where they
 * are. */
mr_status mr_llava_config_load(mr_llava_config *out, const char *folder, mr_error *err);

struct mr_llava {
    mr_llava_config config;
    mr_tokenizer *tokenizer;
    mr_safetensors *file; /* NULL once the model owns it */
    mr_clip *clip;
    mr_projector *projector;
    mr_model *model;
    mr_session *session;
    mr_pool *pool;
    const mr_kernels *kernels;
    const char *marker; /* how the tokenizer spells image_token; borrowed from it */
    size_t image_tokens;
    size_t max_positions;
    void *projector_scratch;
    float *hidden; /* [C] */
    size_t bytes;  /* of the last two */
};

#endif
