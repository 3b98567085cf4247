/* clip.h - the CLIP towers: pictures to patch features and embeddings, texts to embeddings.
 *
 *     mr_clip *clip = NULL;
 *     mr_clip_open(&clip, "clip/", &opt, &err);
 *     mr_clip_image(clip, pixels, n_images, &request, &err);
 *
 * Any CLIPVisionConfig (transformers, models/clip/configuration_clip.py): patch embedding without
 * bias, class embedding, learned positions, pre_layrnorm (sic), blocks of LayerNorm, attention with
 * biases and a two-layer MLP (quick_gelu or gelu), post_layernorm on the pooled CLS token alone.
 *
 * Hidden states are counted as transformers counts them: [0] after pre_layrnorm, [i] after block i;
 * none of them has passed post_layernorm. A feature layer of -2 is LLaVA's, -1 the last block's.
 * Blocks after the wanted layer are not computed unless the pooled embedding is wanted too.
 *
 * Weight folders: a CLIPModel, a CLIPVisionModel, or a LLaVA folder's vision tower (all three
 * spellings of its tensor names). Weights F32, F16 or BF16, mapped. Where transformers would leave
 * out a tensor or make one up with a warning, this refuses.
 *
 * Pictures of one call share GEMMs. With MR_GEMM_SCORING a picture's numbers do not depend on the
 * others, nor on the threads. Scratch is allocated at open; nothing after it allocates.
 * Threads: one tower object, one thread; it spreads work over its pool.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_CLIP_H
#define MR_ENCODERS_CLIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/json.h"
#include "core/threads.h"
#include "engine/gemm.h"
#include "engine/safetensors.h"

typedef struct {
    int L, C, H, F; /* blocks, width, heads, MLP width */
    int image_size, patch_size;
    int grid;           /* image_size / patch_size, rounded down; the rest of a picture is unseen */
    int projection_dim; /* of a bound tower: 0 when the folder has no visual_projection */
    bool quick_gelu;    /* else gelu, the exact one */
    float eps;
} mr_clip_vision_config;

typedef struct {
    int L, C, H, F;
    int32_t V;
    int max_positions;
    int projection_dim;
    bool quick_gelu;
    float eps;
    int32_t eos_id; /* the pooled position is this token's first; 2: that of the largest id, as
                     * folders from before transformers 4.31 want it */
} mr_clip_text_config;

typedef struct mr_clip mr_clip;

typedef struct {
    mr_gemm_kind gemm; /* MR_GEMM_BLAS for bulk; MR_GEMM_SCORING for the same bits in any batch */
    const mr_kernels *kernels; /* NULL: the best */
    mr_pool *pool;             /* borrowed; NULL: one thread */
    size_t max_images; /* of one pass; larger calls are cut; at most 1024. 0: as many as make 1024
                        * rows: 2 of ViT-L/14-336, 21 of ViT-B/32 */
    bool text;         /* bind the text tower too */
} mr_clip_options;

/* folder: config.json with model_type clip, clip_vision_model or llava, and the weights. */
MR_NODISCARD mr_status mr_clip_open(mr_clip **out, const char *folder, const mr_clip_options *opt,
                                    mr_error *err);
/* The same for weights that are open already: file is borrowed until close. text: NULL without
 * opt->text. */
MR_NODISCARD mr_status mr_clip_bind(mr_clip **out, const mr_safetensors *file,
                                    const mr_clip_vision_config *vision,
                                    const mr_clip_text_config *text, const mr_clip_options *opt,
                                    mr_error *err);
void mr_clip_close(mr_clip *clip); /* NULL is fine */

/* A vision_config or text_config, with the defaults of transformers' classes. name is for messages.
 * root NULL: all defaults. A hidden_act, a number of channels or a model_type that is not computed
 * is UNSUPPORTED by name. */
MR_NODISCARD mr_status mr_clip_vision_config_parse(mr_clip_vision_config *out, const char *name,
                                                   const json_t *root, mr_error *err);
MR_NODISCARD mr_status mr_clip_text_config_parse(mr_clip_text_config *out, const char *name,
                                                 const json_t *root, mr_error *err);

/* The vision tower that the config.json of a LLaVA folder describes. */
MR_NODISCARD mr_status mr_clip_llava_vision_config(mr_clip_vision_config *out, const char *name,
                                                   const json_t *root, mr_error *err);

const mr_clip_vision_config *mr_clip_vision(const mr_clip *clip);
const mr_clip_text_config *mr_clip_text(const mr_clip *clip); /* NULL: not bound */
/* exp(logit_scale): what transformers multiplies cosines with. 0 when the folder has none. */
float mr_clip_logit_scale(const mr_clip *clip);
size_t mr_clip_bytes(const mr_clip *clip); /* of scratch and copies, without the mapped weights */
bool mr_clip_is_untrained(const mr_clip *clip); /* the file says so (engine/untrained.h) */

typedef struct {
    int feature_layer; /* which hidden state: 0..L, or -1 for L, -2 for L - 1, ... */
    bool keep_cls;     /* the class token's row first; dropped otherwise */
    float *features;   /* [n][grid^2 (+1)][C], or NULL */
    float *embeds;     /* [n][projection_dim]: pooled and projected, not normalised, or NULL */
    float *pooled;     /* [n][C]: post_layernorm of the class token, or NULL */
} mr_clip_image_request;

/* pixels: [n][3][image_size][image_size], preprocessed (image.h). INVALID for a feature layer that
 * there is not; NOT_FOUND for pooled or embeds when the folder lacks post_layernorm or
 * visual_projection. */
MR_NODISCARD mr_status mr_clip_image(mr_clip *clip, const float *pixels, size_t n,
                                     const mr_clip_image_request *request, mr_error *err);

/* Every hidden state of one picture, [L + 1][grid^2 + 1][C]: for checks and --explain. */
MR_NODISCARD mr_status mr_clip_hidden_states(mr_clip *clip, const float *pixels, float *out,
                                             mr_error *err);

/* One text's embedding, projected, not normalised: out [projection_dim]. ids with the tokens that
 * the tokenizer adds; longer than max_positions is EXHAUSTED, one without the end token INVALID
 * (transformers would silently pool the first position). */
MR_NODISCARD mr_status mr_clip_text_embed(mr_clip *clip, const int32_t *ids, size_t n, float *out,
                                          mr_error *err);
/* Every hidden state of one text, [L + 1][n][C]; the last is before final_layer_norm. For checks.
 */
MR_NODISCARD mr_status mr_clip_text_hidden_states(mr_clip *clip, const int32_t *ids, size_t n,
                                                  float *out, mr_error *err);

/* Mean over cells of the patch grid: out [side^2][C] from features [grid^2][C] (without CLS), side
 * at most grid. Cell i covers rows [i * grid / side, (i + 1) * grid / side): as even as integers
 * allow. For visual items of side^2 tokens (1, 4, 9, 16). */
void mr_clip_pool_grid(const float *features, size_t grid, size_t C, size_t side, float *out);

#endif
