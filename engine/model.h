/* model.h - a causal transformer's weights, mapped and bound by name.
 *
 *     mr_model *model = NULL;
 *     mr_model_options opt = MR_MODEL_OPTIONS_DEFAULT;
 *     if (mr_model_open(&model, "llm/", &opt, &err) != MR_OK) ...
 *     ...                        sessions (session.h) borrow the model
 *     mr_model_close(model);
 *
 * Weights are pointers into the mapped file (F32, F16 or BF16); norm weights and biases are small
 * and held as f32 copies. Tensor names with and without the "model." prefix are accepted
 * (Qwen3-Embedding ships none), and "model.language_model." / "language_model.model." (LLaVA).
 * A missing tensor or a wrong shape names tensor, found and what config.json implies; so does a
 * bias or a q/k norm that is in the file though config.json says that the model has none. Where
 * transformers would guess with a warning, this refuses.
 * Threads: read-only after open; shared by any number of sessions.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_MODEL_H
#define MR_ENGINE_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/error.h"
#include "engine/gemm.h"
#include "engine/kernels.h"
#include "engine/model_config.h"

/* Goes up when the same build, kernels and weights may give other bits: part of numerics_id. */
#define MR_ENGINE_REVISION 1

typedef struct {
    mr_gemm_kind gemm;         /* which back end the linears are prepared for */
    const mr_kernels *kernels; /* NULL: mr_kernels_select() */
    bool headless;             /* an encoder: lm_head may be absent and is not bound */
} mr_model_options;
#define MR_MODEL_OPTIONS_DEFAULT ((mr_model_options){.gemm = MR_GEMM_SCORING})

/* One decoder block; shapes in the letters of model_config.h. */
typedef struct {
    float *attention_norm;  /* [C] */
    mr_linear q, k, v;      /* [H*D, C], [K*D, C], [K*D, C] */
    float *q_norm, *k_norm; /* [D] or NULL */
    mr_linear o;            /* [C, H*D] */
    float *mlp_norm;        /* [C] */
    mr_linear gate, up;     /* [F, C] */
    mr_linear down;         /* [C, F] */
} mr_layer;

/* The fields are the engine's own: sessions and training read them, nobody else. */
typedef struct mr_model {
    mr_model_config config;
    const mr_kernels *kernels;
    mr_gemm_kind gemm;
    mr_safetensors *file; /* owned */
    mr_arena arena;       /* norms, biases, layers */
    mr_tensor embedding;  /* [V, C] */
    mr_tensor head;       /* [V, C]; the embedding when tied; data NULL when headless */
    float *final_norm;    /* [C] */
    mr_layer *layers;     /* [L] */
    double *rope_inverse; /* [D/2] */
    size_t owned_bytes;   /* norms, biases and packed weights: what is not in the mapped file */
} mr_model;

/* folder holds config.json and model.safetensors or its index. */
MR_NODISCARD mr_status mr_model_open(mr_model **out, const char *folder,
                                     const mr_model_options *opt, mr_error *err);
/* The same for weights that are open already. Takes ownership of file on success only. */
MR_NODISCARD mr_status mr_model_bind(mr_model **out, mr_safetensors *file,
                                     const mr_model_config *config, const mr_model_options *opt,
                                     mr_error *err);
void mr_model_close(mr_model *model); /* NULL is fine */

/* True when the file says that its weights are random (untrained.h): what such a model says means
 * nothing, and every output has to say so. */
bool mr_model_is_untrained(const mr_model *model);

/* Identifies how numbers come out: back end, kernel set, weight dtype, engine revision, as
 * "scoring/avx2/BF16/r1". Two runs of one build with equal ids give the same bits for the same
 * weights. Writes a terminated string; MR_NUMERICS_ID bytes are enough. */
#define MR_NUMERICS_ID 64
void mr_model_numerics_id(const mr_model *model, char *out, size_t size);

/* out[C] = the embedding row of id, widened. id must be in the vocabulary. */
void mr_model_embed(const mr_model *model, int32_t id, float *out);

/* out[i] = head[ids[i]] . hidden, for a hidden row after the final norm: the head for a few labels,
 * at the cost of those rows alone. Fixed order, as the scoring kernels, whatever the back end. ids
 * must be in the vocabulary; the model must have a head. */
void mr_model_label_logits(const mr_model *model, const float *hidden, const int32_t *ids, size_t n,
                           float *out);
/* out[n][V]: the whole head, for tests, `forward` and generation. The same bits as label_logits,
 * for the head runs on the kernels: it is never packed, and this cannot fail. */
void mr_model_logits(const mr_model *model, mr_pool *pool, const float *hidden, size_t n,
                     float *out);

#endif
