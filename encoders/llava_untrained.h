/* llava_untrained.h - LLaVA and CLIP folders with random weights: to try the program, and to
 * measure the published shapes without the published weights.
 *
 *     const mr_llava_shape *shape = mr_llava_shape_find("llava-1.5-7b");
 *     mr_llava_untrained_write("folder", shape, 7, &err);            14 GB, streamed
 *
 * As engine/untrained.h: the same bytes for a seed on every machine, small memory, and metadata
 * that says what they are; whoever reads them has to say so too.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_LLAVA_UNTRAINED_H
#define MR_ENCODERS_LLAVA_UNTRAINED_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "encoders/clip.h"
#include "engine/model_config.h"
#include "engine/untrained.h"

typedef struct {
    const char *name;
    mr_clip_vision_config vision;
    mr_model_config text;
    mr_dtype dtype;
    double deviation; /* of its weights */
    int32_t tokens;   /* that have a text; then come <image> and <pad> */
} mr_llava_shape;

/* "llava-1.5-7b", "llava-tiny". NULL when unknown. */
const mr_llava_shape *mr_llava_shape_find(const char *name);
const mr_llava_shape *mr_llava_shapes(size_t *n);

/* The weights under the names of the published folder, in shards of less than 5 GB when there is
 * more; config.json, generation_config.json and a tokenizer.json whose words are made of syllables.
 * Makes the folder when it is not there. */
MR_NODISCARD mr_status mr_llava_untrained_write(const char *folder, const mr_llava_shape *shape,
                                                uint64_t seed, mr_error *err);

/* config.json and model.safetensors: of a CLIPModel, or of a CLIPVisionModel when text is NULL
 * (vision->projection_dim above 0 then adds a visual_projection). */
MR_NODISCARD mr_status mr_clip_untrained_write(const char *folder,
                                               const mr_clip_vision_config *vision,
                                               const mr_clip_text_config *text,
                                               const mr_untrained_options *opt, mr_error *err);

#endif
