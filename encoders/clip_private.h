/* clip_private.h - what the files of the CLIP towers share: weights, the tables of their names, and
 * the scratch of a pass.
 *
 * Letters: B pictures of a pass, T positions of a sequence (patches + 1), C width, H heads,
 * D head size, F MLP width. Rows of a pass are [B * T], picture after picture.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_CLIP_PRIVATE_H
#define MR_ENCODERS_CLIP_PRIVATE_H

#include "core/arena.h"
#include "encoders/clip.h"

typedef struct {
    float *weight, *bias; /* [C]; NULL: not in the folder */
} mr_clip_norm;

typedef struct {
    mr_clip_norm norm1;
    mr_linear q, k, v, out; /* [C, C] */
    mr_clip_norm norm2;
    mr_linear fc1, fc2; /* [F, C], [C, F] */
} mr_clip_layer;

/* What the blocks of both towers need to know. */
typedef struct {
    size_t L, C, H, D, F;
    float eps;
    bool quick_gelu;
    bool causal;
    mr_clip_layer *layers; /* [L] */
} mr_clip_tower;

typedef struct {
    float *class_embedding; /* [C] */
    float *positions;       /* [T, C] */
    mr_linear patch;        /* [C, 3 * patch_size^2] */
    mr_clip_norm pre_norm, post_norm;
    mr_linear projection; /* [projection_dim, C]; weight.data NULL: not in the folder */
} mr_clip_vision_ends;

typedef struct {
    mr_tensor tokens; /* [V, C] */
    float *positions; /* [max_positions, C] */
    mr_clip_norm final_norm;
    mr_linear projection; /* [projection_dim, C] */
} mr_clip_text_ends;

struct mr_clip {
    mr_clip_vision_config vision_config;
    mr_clip_text_config text_config;
    bool has_text;
    const mr_kernels *kernels;
    mr_pool *pool;
    mr_gemm_kind gemm;
    mr_safetensors *owned_file; /* NULL: borrowed */
    const mr_safetensors *file;
    mr_arena arena; /* copies of small tensors, tables of layers */
    mr_clip_tower vision, text;
    mr_clip_vision_ends vision_ends;
    mr_clip_text_ends text_ends;
    float logit_scale;

    /* One allocation. R: the rows of the larger tower's pass. */
    size_t max_images;
    void *memory; /* owned */
    size_t bytes;
    float *x;      /* [R][C], the residual stream */
    float *h;      /* [R][C], a norm's output, later the attention's */
    float *wide;   /* [R][max(4 C, F)]: fresh rows of a linear, then q, k, v by head; or the MLP */
    float *pooled; /* [B][C] */
    void *gemm_scratch;
    float *attention_scratch; /* [threads][attention_floats] */
    size_t attention_floats;
};

/* Parts of the tables: what decides a shape, and what config.json calls it. */
typedef enum {
    MR_CLIP_DIM_C,
    MR_CLIP_DIM_F,
    MR_CLIP_DIM_POSITIONS,
    MR_CLIP_DIM_PROJECTION,
    MR_CLIP_DIM_V,
    MR_CLIP_DIM_COUNT
} mr_clip_dim;

typedef struct {
    int64_t size[MR_CLIP_DIM_COUNT];
    char reason[MR_CLIP_DIM_COUNT][64]; /* "hidden_size 64" */
    int64_t patch;                      /* of the vision tower */
} mr_clip_dims;

/* Binds the vision tower under whichever prefix the file has it; likewise the text tower. Linears
 * that were prepared stay in clip on failure, for mr_clip_close. */
mr_status mr_clip_bind_vision(mr_clip *clip, mr_error *err);
mr_status mr_clip_bind_text(mr_clip *clip, mr_error *err);
void mr_clip_unbind(mr_clip *clip);

/* Every tensor of a tower, names under the prefix, data NULL, in the order of a forward pass: for
 * writers. NOT the projections of a CLIPModel unless with_projection. In the arena. */
mr_status mr_clip_vision_layout(const mr_clip_vision_config *config, const char *prefix,
                                bool with_projection, mr_dtype dtype, mr_arena *arena,
                                mr_tensor **tensors, size_t *n, mr_error *err);
mr_status mr_clip_text_layout(const mr_clip_text_config *config, mr_dtype dtype, mr_arena *arena,
                              mr_tensor **tensors, size_t *n, mr_error *err);

/* Floats of `wide` for so many rows, and of attention scratch per thread. */
size_t mr_clip_wide_columns(const mr_clip_tower *tower);
size_t mr_clip_attention_floats(const mr_clip_tower *tower, size_t T);

/* x -> x through block `index`, for n sequences of T rows. */
void mr_clip_block(mr_clip *clip, const mr_clip_tower *tower, size_t index, size_t n, size_t T);
/* rows[n][C] = norm(rows), in place. */
void mr_clip_norm_rows(mr_clip *clip, const mr_clip_tower *tower, const mr_clip_norm *norm,
                       float *rows, size_t n);
/* y[n, N] = x[n, K] W^T + b. */
void mr_clip_linear(mr_clip *clip, const mr_linear *linear, float *y, const float *x, size_t n);

#endif
