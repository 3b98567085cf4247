/* user_encoder.c - see user_encoder.h: the weights and the pass.
 * SPDX-License-Identifier: Apache-2.0 */
#include "encoders/user_encoder.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/bytes.h"
#include "core/file.h"
#include "core/guard.h"
#include "core/layout.h"
#include "engine/gemm.h"
#include "engine/untrained.h"

#define NAME_BYTES  96
#define CHECK_CHUNK 1024
/* Tensors outside the blocks, and the most of one block. */
#define END_TENSORS   5
#define BLOCK_TENSORS 10

/* One block, of the history or of the latents. */
typedef struct {
    float *norm, *context_norm; /* [C]; context_norm: of the latents' blocks alone */
    mr_linear q, k, v, o;       /* [H D, C], [K D, C] twice, [C, H D] */
    float *mlp_norm;
    mr_linear gate, up, down; /* [F, C] twice, [C, F] */
} block;

struct mr_user_encoder {
    mr_user_config config;
    const mr_kernels *kernels;
    mr_pool *pool;
    mr_safetensors *file;
    mr_arena arena; /* blocks and copies of small tensors */
    mr_linear input;
    float *positions; /* [max_history][C], or NULL */
    float *latents;   /* [latents][C] */
    block *layers, *cross_layers;
    float *final_norm;
    const char **bound; /* [n_bound] names of the file's tensors that have their place */
    size_t n_bound;

    /* One allocation; R: the larger of max_history and latents. */
    void *memory;
    size_t bytes;
    float *x, *y;     /* [max_history][C], [latents][C]: the two residual streams */
    float *h, *fresh; /* [R][C] */
    float *q, *k, *v; /* [R][H D], [max_history][K D] */
    float *attended;  /* [R][H D] */
    float *gate, *up; /* [R][F] */
    float *scores;    /* [R][max_history] */
    void *gemm_scratch;
};

/* ---- Weights --------------------------------------------------------------------------------- */

static mr_status need(mr_user_encoder *encoder, const char *prefix, const char *name, size_t rows,
                      size_t cols, mr_tensor *out, mr_error *err)
{
    char full[NAME_BYTES];
    const int64_t shape[2] = {(int64_t)rows, (int64_t)cols};
    snprintf(full, sizeof full, "%s%s", prefix, name);
    mr_status status = mr_safetensors_need(encoder->file, full, cols > 0 ? 2 : 1, shape, out, err);
    if (status != MR_OK)
        return status;
    const size_t size = mr_dtype_size(out->dtype), n = out->bytes / size;
    float chunk[CHECK_CHUNK];
    for (size_t begin = 0; begin < n; begin += CHECK_CHUNK) {
        const size_t count = n - begin < CHECK_CHUNK ? n - begin : CHECK_CHUNK;
        mr_dtype_to_f32(chunk, (const char *)out->data + begin * size, out->dtype, count);
        for (size_t i = 0; i < count; i++)
            if (!isfinite(chunk[i]))
                return MR_FAIL(err, CORRUPT, "%s: tensor '%s' holds %g at element %zu",
                               mr_safetensors_name(encoder->file), full, (double)chunk[i],
                               begin + i);
    }
    encoder->bound[encoder->n_bound++] = out->name;
    return MR_OK;
}

/* A copy in f32: of a vector (cols 0) or a small matrix. */
static mr_status copy_of(mr_user_encoder *encoder, const char *prefix, const char *name,
                         size_t rows, size_t cols, float **out, mr_error *err)
{
    mr_tensor tensor;
    mr_status status = need(encoder, prefix, name, rows, cols, &tensor, err);
    if (status != MR_OK)
        return status;
    const size_t n = rows * (cols ? cols : 1);
    *out = mr_arena_array(&encoder->arena, float, n);
    if (!*out)
        return MR_FAIL(err, NO_MEMORY, "%s%s: %zu values", prefix, name, n);
    mr_dtype_to_f32(*out, tensor.data, tensor.dtype, n);
    return MR_OK;
}

static mr_status linear_of(mr_user_encoder *encoder, const char *prefix, const char *name,
                           size_t rows, size_t cols, const float *bias, mr_linear *out,
                           mr_error *err)
{
    mr_tensor tensor;
    mr_status status = need(encoder, prefix, name, rows, cols, &tensor, err);
    return status == MR_OK ? mr_linear_prepare(out, MR_GEMM_SCORING, &tensor, bias, err) : status;
}

static mr_status bind_block(mr_user_encoder *encoder, const char *kind, size_t index, bool cross,
                            block *b, mr_error *err)
{
    const mr_user_config *c = &encoder->config;
    const size_t HD = c->H * c->D, KD = c->K * c->D;
    char prefix[48], attention[64];
    snprintf(prefix, sizeof prefix, "%s.%zu.", kind, index);
    snprintf(attention, sizeof attention, "%s%s_attn.", prefix, cross ? "cross" : "self");
    const struct {
        const char *prefix, *name;
        size_t rows, cols;
        mr_linear *linear;
    } matrices[] = {{attention, "q_proj.weight", HD, c->C, &b->q},
                    {attention, "k_proj.weight", KD, c->C, &b->k},
                    {attention, "v_proj.weight", KD, c->C, &b->v},
                    {attention, "o_proj.weight", c->C, HD, &b->o},
                    {prefix, "mlp.gate_proj.weight", c->F, c->C, &b->gate},
                    {prefix, "mlp.up_proj.weight", c->F, c->C, &b->up},
                    {prefix, "mlp.down_proj.weight", c->C, c->F, &b->down}};
    mr_status status = copy_of(encoder, prefix, "input_layernorm.weight", c->C, 0, &b->norm, err);
    if (status == MR_OK && cross)
        status =
            copy_of(encoder, prefix, "context_layernorm.weight", c->C, 0, &b->context_norm, err);
    if (status == MR_OK)
        status =
            copy_of(encoder, prefix, "post_attention_layernorm.weight", c->C, 0, &b->mlp_norm, err);
    for (size_t i = 0; status == MR_OK && i < sizeof matrices / sizeof *matrices; i++)
        status = linear_of(encoder, matrices[i].prefix, matrices[i].name, matrices[i].rows,
                           matrices[i].cols, NULL, matrices[i].linear, err);
    return status;
}

static mr_status bind_blocks(mr_user_encoder *encoder, const char *kind, size_t n, bool cross,
                             block **out, mr_error *err)
{
    *out = mr_arena_array(&encoder->arena, block, n);
    if (!*out)
        return MR_FAIL(err, NO_MEMORY, "%zu blocks", n);
    mr_status status = MR_OK;
    for (size_t i = 0; status == MR_OK && i < n; i++)
        status = bind_block(encoder, kind, i, cross, *out + i, err);
    return status;
}

static mr_status bind_positions(mr_user_encoder *encoder, mr_error *err)
{
    const mr_user_config *c = &encoder->config;
    if (c->positions == MR_USER_POSITIONS_LEARNED)
        return copy_of(encoder, "", "position_embedding.weight", c->max_history, c->C,
                       &encoder->positions, err);
    if (c->positions == MR_USER_POSITIONS_NONE)
        return MR_OK;
    double *row = mr_arena_array(&encoder->arena, double, c->C);
    encoder->positions = mr_arena_array(&encoder->arena, float, c->max_history * c->C);
    if (!row || !encoder->positions)
        return MR_FAIL(err, NO_MEMORY, "%zu positions", c->max_history);
    for (size_t r = 0; r < c->max_history; r++) {
        mr_user_sinusoid(r, c->C, row);
        for (size_t i = 0; i < c->C; i++)
            encoder->positions[r * c->C + i] = (float)row[i];
    }
    return MR_OK;
}

/* All that were asked for are in the file; what is left over has no place. */
static mr_status refuse_unknown(const mr_user_encoder *encoder, mr_error *err)
{
    for (size_t i = 0; i < mr_safetensors_count(encoder->file); i++) {
        const char *name = mr_safetensors_at(encoder->file, i)->name;
        size_t k = 0;
        while (k < encoder->n_bound && encoder->bound[k] != name)
            k++;
        if (k == encoder->n_bound)
            return MR_FAIL(err, UNSUPPORTED,
                           "%s: tensor '%.200s' has no place in a user encoder of the shape that "
                           "config.json gives",
                           mr_safetensors_name(encoder->file), name);
    }
    return MR_OK;
}

static mr_status bind(mr_user_encoder *encoder, mr_error *err)
{
    const mr_user_config *c = &encoder->config;
    float *bias = NULL;
    encoder->bound = mr_arena_array(&encoder->arena, const char *,
                                    END_TENSORS + BLOCK_TENSORS * (c->layers + c->cross_layers));
    if (!encoder->bound)
        return MR_FAIL(err, NO_MEMORY, "names of tensors");
    mr_status status = copy_of(encoder, "", "input_proj.bias", c->C, 0, &bias, err);
    if (status == MR_OK)
        status = linear_of(encoder, "", "input_proj.weight", c->C, c->item_dim, bias,
                           &encoder->input, err);
    if (status == MR_OK)
        status = bind_positions(encoder, err);
    if (status == MR_OK)
        status = bind_blocks(encoder, "layers", c->layers, false, &encoder->layers, err);
    if (status == MR_OK)
        status = copy_of(encoder, "", "latents.weight", c->latents, c->C, &encoder->latents, err);
    if (status == MR_OK)
        status = bind_blocks(encoder, "cross_layers", c->cross_layers, true, &encoder->cross_layers,
                             err);
    if (status == MR_OK)
        status = copy_of(encoder, "", "norm.weight", c->C, 0, &encoder->final_norm, err);
    if (status == MR_OK)
        status = refuse_unknown(encoder, err);
    return status;
}

static void unbind_blocks(block *blocks, size_t n)
{
    for (size_t i = 0; blocks && i < n; i++) {
        mr_linear *const all[] = {&blocks[i].q,    &blocks[i].k,  &blocks[i].v,   &blocks[i].o,
                                  &blocks[i].gate, &blocks[i].up, &blocks[i].down};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++)
            mr_linear_done(all[k]);
    }
}

/* ---- Opening --------------------------------------------------------------------------------- */

static void lay_out(mr_user_encoder *encoder, mr_layout *l)
{
    const mr_user_config *c = &encoder->config;
    const size_t n = c->max_history, R = mr_size_max(n, c->latents), size = sizeof(float);
    const size_t widest =
        mr_size_max(mr_size_max(c->C, c->F), mr_size_max(c->H * c->D, c->item_dim));
    encoder->x = mr_layout_part(l, n, c->C, size);
    encoder->y = mr_layout_part(l, c->latents, c->C, size);
    encoder->h = mr_layout_part(l, R, c->C, size);
    encoder->fresh = mr_layout_part(l, R, c->C, size);
    encoder->q = mr_layout_part(l, R, c->H * c->D, size);
    encoder->k = mr_layout_part(l, n, c->K * c->D, size);
    encoder->v = mr_layout_part(l, n, c->K * c->D, size);
    encoder->attended = mr_layout_part(l, R, c->H * c->D, size);
    encoder->gate = mr_layout_part(l, R, c->F, size);
    encoder->up = mr_layout_part(l, R, c->F, size);
    encoder->scores = mr_layout_part(l, R, n, size);
    encoder->gemm_scratch = mr_layout_part(
        l, 1,
        mr_gemm_scratch_bytes(MR_GEMM_SCORING, R, widest, widest, mr_pool_threads(encoder->pool)),
        1);
}

static mr_status allot(mr_user_encoder *encoder, mr_error *err)
{
    mr_layout plan = {0}, real;
    lay_out(encoder, &plan);
    encoder->memory = mr_layout_allocate(&plan, &real, &encoder->bytes);
    if (!encoder->memory)
        return MR_FAIL(err, NO_MEMORY, "scratch for a history of %zu vectors (%zu bytes)",
                       encoder->config.max_history, plan.overflow ? SIZE_MAX : plan.used);
    lay_out(encoder, &real);
    return MR_OK;
}

mr_status mr_user_encoder_open(mr_user_encoder **out, const char *folder,
                               const mr_user_encoder_options *opt, mr_error *err)
{
    mr_user_encoder *encoder = calloc(1, sizeof *encoder);
    if (!encoder)
        return MR_FAIL(err, NO_MEMORY, "opening '%s'", folder);
    encoder->kernels = opt && opt->kernels ? opt->kernels : mr_kernels_select();
    encoder->pool = opt ? opt->pool : NULL;
    const char *path = mr_path_join(&encoder->arena, folder, "config.json");
    mr_status status = path ? mr_user_config_load(&encoder->config, path, err)
                            : MR_FAIL(err, NO_MEMORY, "opening '%s'", folder);
    if (status == MR_OK)
        status = mr_safetensors_open(&encoder->file, folder, err);
    if (status == MR_OK)
        status = bind(encoder, err);
    if (status == MR_OK)
        status = allot(encoder, err);
    if (status != MR_OK) {
        mr_user_encoder_close(encoder);
        return status;
    }
    *out = encoder;
    return MR_OK;
}

void mr_user_encoder_close(mr_user_encoder *encoder)
{
    if (!encoder)
        return;
    mr_linear_done(&encoder->input);
    unbind_blocks(encoder->layers, encoder->config.layers);
    unbind_blocks(encoder->cross_layers, encoder->config.cross_layers);
    mr_safetensors_close(encoder->file);
    mr_arena_done(&encoder->arena);
    free(encoder->memory);
    free(encoder);
}

const mr_user_config *mr_user_encoder_config(const mr_user_encoder *encoder)
{
    return &encoder->config;
}

bool mr_user_encoder_is_untrained(const mr_user_encoder *encoder)
{
    return mr_safetensors_metadata(encoder->file, MR_UNTRAINED_KEY) != NULL;
}

size_t mr_user_encoder_bytes(const mr_user_encoder *encoder)
{
    return encoder->bytes + encoder->arena.used + sizeof *encoder;
}

/* ---- The pass -------------------------------------------------------------------------------- */

static void run_linear(mr_user_encoder *encoder, const mr_linear *linear, float *y, const float *x,
                       size_t rows)
{
    mr_linear_run(linear, encoder->kernels, encoder->pool, encoder->gemm_scratch, y, linear->N, x,
                  linear->K, rows);
}

static void norm_rows(mr_user_encoder *encoder, float *y, const float *x, const float *weight,
                      size_t rows)
{
    const size_t C = encoder->config.C;
    for (size_t r = 0; r < rows; r++)
        encoder->kernels->rms_norm(y + r * C, x + r * C, weight, C, encoder->config.eps);
}

/* to[rows] += from[rows], row by row: where a value stands in a vector depends on its column. */
static void add_rows(mr_user_encoder *encoder, float *to, const float *from, size_t rows, size_t n)
{
    for (size_t r = 0; r < rows; r++)
        encoder->kernels->add(to + r * n, from + r * n, n);
}

/* attended = softmax(q k / sqrt(D)) v, every query over all keys. */
static void attend(mr_user_encoder *encoder, size_t n_queries, size_t n_keys)
{
    const mr_user_config *c = &encoder->config;
    const mr_kernels *kernels = encoder->kernels;
    const size_t D = c->D, ldq = c->H * D, ldkv = c->K * D;
    const float scale = 1.0f / sqrtf((float)D);
    for (size_t i = 0; i < n_queries * ldq; i++)
        encoder->q[i] *= scale;
    memset(encoder->attended, 0, n_queries * ldq * sizeof *encoder->attended);
    for (size_t h = 0; h < c->H; h++) {
        const size_t kv = h / (c->H / c->K) * D;
        float *out = encoder->attended + h * D;
        kernels->dot_rows(encoder->scores, n_keys, encoder->q + h * D, ldq, n_queries,
                          encoder->k + kv, MR_DTYPE_F32, ldkv, n_keys, D);
        for (size_t r = 0; r < n_queries; r++) {
            float *score = encoder->scores + r * n_keys;
            const float sum = kernels->softmax_exp(score, n_keys, kernels->max(score, n_keys));
            for (size_t i = 0; i < n_keys; i++)
                score[i] /= sum;
        }
        kernels->weighted_sum(out, ldq, encoder->scores, n_keys, n_queries, encoder->v + kv, ldkv,
                              n_keys, D);
    }
}

/* stream -> stream through one block. Keys and values come from the history: in the history's own
 * blocks, that is the stream. */
static void run_block(mr_user_encoder *encoder, const block *b, float *stream, size_t rows,
                      size_t n_keys)
{
    const mr_user_config *c = &encoder->config;
    if (b->context_norm) {
        norm_rows(encoder, encoder->h, encoder->x, b->context_norm, n_keys);
        run_linear(encoder, &b->k, encoder->k, encoder->h, n_keys);
        run_linear(encoder, &b->v, encoder->v, encoder->h, n_keys);
    }
    norm_rows(encoder, encoder->h, stream, b->norm, rows);
    run_linear(encoder, &b->q, encoder->q, encoder->h, rows);
    if (!b->context_norm) {
        run_linear(encoder, &b->k, encoder->k, encoder->h, n_keys);
        run_linear(encoder, &b->v, encoder->v, encoder->h, n_keys);
    }
    attend(encoder, rows, n_keys);
    run_linear(encoder, &b->o, encoder->fresh, encoder->attended, rows);
    add_rows(encoder, stream, encoder->fresh, rows, c->C);

    norm_rows(encoder, encoder->h, stream, b->mlp_norm, rows);
    run_linear(encoder, &b->gate, encoder->gate, encoder->h, rows);
    run_linear(encoder, &b->up, encoder->up, encoder->h, rows);
    for (size_t r = 0; r < rows; r++)
        encoder->kernels->silu_mul(encoder->gate + r * c->F, encoder->up + r * c->F, c->F);
    run_linear(encoder, &b->down, encoder->fresh, encoder->gate, rows);
    add_rows(encoder, stream, encoder->fresh, rows, c->C);
}

static mr_status check_values(const char *what, const float *values, size_t rows, size_t n,
                              mr_error *err)
{
    for (size_t i = 0; i < rows * n; i++)
        if (!isfinite(values[i]))
            return MR_FAIL(err, INVALID, "%s %zu is %g in column %zu", what, i / n,
                           (double)values[i], i % n);
    return MR_OK;
}

mr_status mr_user_encoder_run(mr_user_encoder *encoder, const float *items, size_t n, float *out,
                              mr_error *err)
{
    const mr_user_config *c = &encoder->config;
    if (n < 1 || n > c->max_history)
        return MR_FAIL(err, INVALID, "a history of %zu vectors; this user encoder takes 1 to %zu",
                       n, c->max_history);
    mr_status status = check_values("history vector", items, n, c->item_dim, err);
    if (status != MR_OK)
        return status;
    mr_guard_begin("user encoder");
    run_linear(encoder, &encoder->input, encoder->x, items, n);
    for (size_t r = 0; encoder->positions && r < n; r++)
        encoder->kernels->add(encoder->x + r * c->C, encoder->positions + (n - 1 - r) * c->C, c->C);
    for (size_t i = 0; i < c->layers; i++)
        run_block(encoder, &encoder->layers[i], encoder->x, n, n);
    memcpy(encoder->y, encoder->latents, c->latents * c->C * sizeof *encoder->y);
    for (size_t i = 0; i < c->cross_layers; i++)
        run_block(encoder, &encoder->cross_layers[i], encoder->y, c->latents, n);
    norm_rows(encoder, out, encoder->y, encoder->final_norm, c->latents);
    mr_guard_end();
    return check_values("embedding token", out, c->latents, c->C, err);
}
