/* trainer_parts.c - the parts of a recipe: where they come from, and writing them.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "ranker/training/trainer_private.h"

#define DEVIATION 0.02

static const char *path_in(mr_trainer *t, const char *folder, const char *name)
{
    return mr_path_join(&t->arena, folder, name);
}

/* ---- Decoders -------------------------------------------------------------------------------- */

/* The shape of a decoder that is made anew: Qwen3's family. */
static mr_status new_config(const mr_trainer *t, const mr_recipe_part *part, mr_model_config *out,
                            mr_error *err)
{
    if (!t->tokenizer)
        return MR_FAIL(err, INVALID, "part '%s' is new and needs a 'tokenizer' in the recipe",
                       part->name);
    const int32_t ids = mr_tokenizer_vocab_size(t->tokenizer);
    *out = (mr_model_config){.family = MR_FAMILY_QWEN3,
                             .L = part->layers,
                             .C = part->width,
                             .H = part->heads,
                             .K = part->kv_heads > 0 ? part->kv_heads : part->heads,
                             .D = part->head_dim > 0 ? part->head_dim : part->width / part->heads,
                             .F = part->ffn,
                             .V = part->vocab > 0 ? part->vocab : ids,
                             .tied = true,
                             .qk_norm = true,
                             .rms_eps = 1e-6f,
                             .max_positions = 2048,
                             .rope_theta = 10000,
                             .rope_type = MR_ROPE_DEFAULT,
                             .bos_id = -1,
                             .eos_id = mr_tokenizer_token_id(t->tokenizer, "<|endoftext|>")};
    if (out->V < ids)
        return MR_FAIL(err, INVALID, "part '%s': vocab is %d, the tokenizer has ids up to %d",
                       part->name, (int)out->V, (int)ids - 1);
    /* Written and read again, so that a shape that cannot be is refused here, by the same words. */
    json_t *json = mr_model_config_to_json(out);
    mr_status status = json ? mr_model_config_parse(out, part->name, json, err)
                            : MR_FAIL(err, NO_MEMORY, "part '%s'", part->name);
    json_decref(json);
    return status;
}

static mr_status add_decoder(mr_trainer *t, const char *name, bool headless, mr_trainer_part *out,
                             mr_error *err)
{
    const mr_recipe_part *recipe = mr_recipe_find_part(t->recipe, name);
    if (!recipe)
        return MR_OK;
    mr_model_config config;
    mr_status status;
    if (recipe->from) {
        const char *path = path_in(t, recipe->from, "config.json");
        status = path ? mr_model_config_load(&config, path, err)
                      : MR_FAIL(err, NO_MEMORY, "part '%s'", name);
    } else {
        status = new_config(t, recipe, &config, err);
    }
    if (status == MR_OK && t->tokenizer && mr_tokenizer_vocab_size(t->tokenizer) > config.V)
        status = MR_FAIL(err, MISMATCH, "part '%s' has a vocabulary of %d, the tokenizer of %d",
                         name, (int)config.V, (int)mr_tokenizer_vocab_size(t->tokenizer));
    if (status != MR_OK)
        return status;
    out->file_layers = recipe->from ? config.L : 0;
    if (recipe->from && recipe->layers > 0 && recipe->layers < config.L)
        return MR_FAIL(err, INVALID, "part '%s' has %d layers, the recipe asks for %d: fewer", name,
                       config.L, recipe->layers);
    if (recipe->from && recipe->layers > 0)
        config.L = recipe->layers;
    mr_weights_begin_part(&t->weights, name);
    out->recipe = recipe;
    return mr_decoder_add(&out->decoder, &config, headless, &t->weights, err);
}

/* ---- Projectors ------------------------------------------------------------------------------ */

static mr_status add_projector(mr_trainer *t, const char *name, size_t in, size_t out_dim,
                               mr_trainer_part *out, mr_error *err)
{
    const mr_recipe_part *recipe = mr_recipe_find_part(t->recipe, name);
    mr_projector_shape shape = {MR_PROJECTOR_IDENTITY, in, 0, out_dim, {true, true}};
    mr_status status = MR_OK;
    if (!recipe)
        return MR_OK;
    if (recipe->from)
        status = mr_projector_train_shape(&shape, recipe->from, in, err);
    else if (recipe->made && strcmp(recipe->made, "linear") == 0)
        shape.form = MR_PROJECTOR_LINEAR;
    else if (recipe->made && strcmp(recipe->made, "mlp") == 0)
        shape = (mr_projector_shape){MR_PROJECTOR_MLP, in, out_dim, out_dim, {true, true}};
    if (status == MR_OK && (shape.in != in || shape.out != out_dim))
        status = MR_FAIL(err, MISMATCH, "part '%s' maps %zu to %zu numbers, expected %zu to %zu",
                         name, shape.in, shape.out, in, out_dim);
    if (status != MR_OK)
        return status;
    mr_weights_begin_part(&t->weights, name);
    out->recipe = recipe;
    return mr_projector_train_add(&out->projector, &shape, &t->weights, err);
}

/* ---- Values ---------------------------------------------------------------------------------- */

/* A new projector starts near what keeps a vector's length: deviation 1 / sqrt(in). */
static double deviation_of(const mr_trainer *t, const mr_recipe_part *recipe,
                           const mr_weights_part *part)
{
    if (recipe->deviation > 0)
        return recipe->deviation;
    const bool is_projector = strstr(recipe->name, "projector") != NULL;
    if (!is_projector || part->n == 0)
        return DEVIATION;
    return 1 / sqrt((double)t->weights.weight[part->first].shape[1]);
}

/* Reads a decoder that has more layers here than in its file. What the file has is contiguous at
 * both ends of the part: embedding and lower layers, final norm and head. New layers stand on top
 * and add little to the residual stream at first, as their weights are small. */
static mr_status load_grown(mr_trainer *t, const mr_trainer_part *p, mr_error *err)
{
    const mr_decoder_layout *d = &p->decoder;
    const size_t grown = d->layer[p->file_layers].attention_norm, end = p->part->first + p->part->n;
    const mr_weights_part lower = {p->part->name, p->part->first, grown - p->part->first};
    const mr_weights_part upper = {p->part->name, d->final_norm, end - d->final_norm};
    mr_status status = mr_weights_load(&t->weights, &lower, p->recipe->from, t->values, err);
    if (status == MR_OK)
        status = mr_weights_load(&t->weights, &upper, p->recipe->from, t->values, err);
    return status;
}

/* Rows of a head made orthonormal, in their order (Gram-Schmidt). */
static void orthonormal(float *rows, size_t n, size_t width, const mr_ops_f32 *ops)
{
    for (size_t i = 0; i < n; i++) {
        float *row = rows + i * width;
        for (size_t k = 0; k < i; k++)
            ops->add_scaled(row, rows + k * width, -ops->dot(row, rows + k * width, width), width);
        const float length = sqrtf(ops->dot(row, row, width)) + 1e-12f;
        for (size_t c = 0; c < width; c++)
            row[c] /= length;
    }
}

static float *values_of(mr_trainer *t, size_t weight, size_t *n)
{
    const mr_weight *w = &t->weights.weight[weight];
    *n = w->n;
    return t->values + w->offset;
}

/* New layers begin by attending to what is alike. A head's queries are an orthonormal projection of
 * the space in which the layers below, an encoder's, end: after its final norm. Keys are projected
 * the same way, so that a head's score is a cosine, and their gain keeps it soft enough to learn:
 * sqrt(0.6) twice, which is 0.6 sqrt(D) at most. */
static void share_qk(mr_trainer *t, const mr_trainer_part *p)
{
    const mr_decoder_layout *d = &p->decoder;
    const size_t group = (size_t)(d->config.H / d->config.K), D = (size_t)d->config.D;
    const size_t C = (size_t)d->config.C;
    size_t n;
    const float *final_norm = values_of(t, d->final_norm, &n);
    for (int l = p->file_layers; l < d->config.L; l++) {
        const mr_decoder_layer *layer = &d->layer[l];
        float *q = values_of(t, layer->q, &n), *k = values_of(t, layer->k, &n);
        for (size_t head = 0; head < (size_t)d->config.H; head++)
            orthonormal(q + head * D * C, D < C ? D : C, C, t->ops);
        for (size_t kv = 0; kv < (size_t)d->config.K; kv++)
            memcpy(k + kv * D * C, q + kv * group * D * C, D * C * sizeof *k);
        memcpy(values_of(t, layer->attention_norm, &n), final_norm, C * sizeof(float));
        for (size_t i = 0; layer->q_norm != MR_NO_WEIGHT && i < D; i++) {
            values_of(t, layer->q_norm, &n)[i] = sqrtf(0.6f);
            values_of(t, layer->k_norm, &n)[i] = sqrtf(0.6f);
        }
    }
}

/* What the layers of the file add to the residual stream, made smaller: vectors that enter it from
 * outside then pass them almost as they came. */
static void damp_lower(mr_trainer *t, const mr_trainer_part *p)
{
    for (int l = 0; l < p->file_layers; l++) {
        const size_t weights[2] = {p->decoder.layer[l].o, p->decoder.layer[l].down};
        for (size_t i = 0; i < 2; i++) {
            size_t n;
            float *w = values_of(t, weights[i], &n);
            for (size_t k = 0; k < n; k++)
                w[k] *= (float)p->recipe->damp;
        }
    }
}

/* A new linear projector that only scales, and takes back the gain of the encoder's final norm:
 * what comes out is the direction in which the encoder's own residual stream ended. */
static mr_status set_identity(mr_trainer *t, const mr_trainer_part *p, mr_error *err)
{
    const mr_weight *w = &t->weights.weight[p->part->first];
    const size_t n = (size_t)w->shape[0];
    if (p->projector.shape.form != MR_PROJECTOR_LINEAR || w->shape[0] != w->shape[1])
        return MR_FAIL(err, INVALID,
                       "part '%s' has a scale, which is for a linear projector between equal "
                       "widths, not from %d to %d",
                       p->recipe->name, (int)w->shape[1], (int)w->shape[0]);
    memset(t->values + w->offset, 0, w->n * sizeof(float));
    size_t gains;
    const float *gain = values_of(t, t->encoder.decoder.final_norm, &gains);
    for (size_t i = 0; i < n; i++) {
        const float inverse = gains == n && fabsf(gain[i]) > 1e-3f ? 1 / gain[i] : 1;
        t->values[w->offset + i * n + i] = (float)p->recipe->scale * inverse;
    }
    return MR_OK;
}

static mr_status fill_part(mr_trainer *t, mr_trainer_part *p, mr_error *err)
{
    if (!p->recipe)
        return MR_OK;
    p->part = mr_weights_find_part(&t->weights, p->recipe->name);
    if (!p->part || p->part->n == 0)
        return MR_OK;
    const bool grown = p->decoder.layer && p->file_layers < p->decoder.config.L;
    if (p->recipe->from && !grown)
        return mr_weights_load(&t->weights, p->part, p->recipe->from, t->values, err);
    mr_weights_draw(&t->weights, p->part, t->recipe->seed, deviation_of(t, p->recipe, p->part),
                    t->values);
    if (p->recipe->scale > 0)
        return set_identity(t, p, err);
    mr_status status = p->recipe->from ? load_grown(t, p, err) : MR_OK;
    if (status == MR_OK && p->recipe->share_qk)
        share_qk(t, p);
    if (status == MR_OK && grown && p->recipe->damp > 0)
        damp_lower(t, p);
    return status;
}

static mr_status allocate(mr_trainer *t, mr_error *err)
{
    const size_t n = t->weights.total;
    t->n_shards = (size_t)t->recipe->shards;
    t->values = calloc(n, sizeof(float));
    t->moment1 = calloc(n, sizeof(float));
    t->moment2 = calloc(n, sizeof(float));
    t->gradient = calloc(t->n_shards, sizeof *t->gradient);
    t->parameter = calloc(t->weights.n, sizeof *t->parameter);
    bool failed = !t->values || !t->moment1 || !t->moment2 || !t->gradient || !t->parameter;
    for (size_t s = 0; !failed && s < t->n_shards; s++) {
        t->gradient[s] = calloc(n, sizeof(float));
        failed = !t->gradient[s];
    }
    if (failed)
        return MR_FAIL(err, NO_MEMORY, "weights, moments and %zu gradients of %zu numbers",
                       t->n_shards, n);
    return MR_OK;
}

static mr_status freeze(mr_trainer *t, mr_error *err)
{
    mr_status status = MR_OK;
    for (size_t i = 0; status == MR_OK && i < t->recipe->n_freeze; i++)
        status = mr_weights_freeze(&t->weights, t->recipe->freeze[i], err);
    if (status == MR_OK && t->teacher.part)
        status = mr_weights_freeze(&t->weights, "teacher.*", err);
    if (status == MR_OK && t->teacher_projector.part && t->teacher_projector.part->n > 0)
        status = mr_weights_freeze(&t->weights, "teacher_projector.*", err);
    if (status == MR_OK && mr_weights_trained_elements(&t->weights) == 0)
        status = MR_FAIL(err, INVALID, "everything is frozen: there is nothing to train");
    for (size_t i = 0; status == MR_OK && i < t->weights.n; i++) {
        const mr_weight *weight = &t->weights.weight[i];
        if (!weight->trained)
            continue;
        t->parameter[t->n_parameters++] =
            (mr_parameter){.value = t->values + weight->offset,
                           .gradient = t->gradient[0] + weight->offset,
                           .moment1 = t->moment1 + weight->offset,
                           .moment2 = t->moment2 + weight->offset,
                           .n = weight->n,
                           .decay = weight->kind == MR_WEIGHT_MATRIX};
    }
    return status;
}

static mr_status open_tokenizer(mr_trainer *t, mr_error *err)
{
    static const char *const holders[] = {"llm", "encoder"};
    t->tokenizer_folder = t->recipe->tokenizer;
    for (size_t i = 0; !t->tokenizer_folder && i < 2; i++) {
        const mr_recipe_part *part = mr_recipe_find_part(t->recipe, holders[i]);
        t->tokenizer_folder = part ? part->from : NULL;
    }
    if (!t->tokenizer_folder)
        return MR_FAIL(err, INVALID, "the recipe has no 'tokenizer', and no part to take it from");
    return mr_tokenizer_open(&t->tokenizer, t->tokenizer_folder, err);
}

mr_status mr_trainer_open_parts(mr_trainer *t, mr_error *err)
{
    mr_status status = open_tokenizer(t, err);
    if (status == MR_OK && t->recipe->bundle)
        status = mr_trainer_spec_open(&t->spec, t->recipe->bundle, t->tokenizer, err);
    if (status == MR_OK)
        status = add_decoder(t, "llm", false, &t->llm, err);
    if (status == MR_OK)
        status = add_decoder(t, "encoder", true, &t->encoder, err);
    if (status == MR_OK)
        status = add_decoder(t, "teacher", false, &t->teacher, err);
    if (status == MR_OK)
        status = mr_trainer_add_user(t, &t->user, err);
    if (status == MR_OK)
        status = mr_trainer_add_vision(t, &t->vision, err);
    const size_t in = (size_t)t->encoder.decoder.config.C, out = (size_t)t->llm.decoder.config.C;
    const size_t of_users = t->user.recipe ? t->user.user.config.C : in;
    if (status == MR_OK)
        status = add_projector(t, "item_projector", in, out, &t->item_projector, err);
    if (status == MR_OK)
        status = add_projector(t, "user_projector", of_users, out, &t->user_projector, err);
    if (status == MR_OK)
        status = add_projector(t, "image_projector", (size_t)t->vision.vision.shape.config.C, out,
                               &t->image_projector, err);
    if (status == MR_OK)
        status = add_projector(t, "teacher_projector", in, (size_t)t->teacher.decoder.config.C,
                               &t->teacher_projector, err);
    if (status == MR_OK)
        status = mr_weights_check(&t->weights, err);
    if (status == MR_OK)
        status = allocate(t, err);
    mr_trainer_part *const parts[] = {&t->llm,
                                      &t->encoder,
                                      &t->teacher,
                                      &t->item_projector,
                                      &t->user_projector,
                                      &t->teacher_projector,
                                      &t->user,
                                      &t->vision,
                                      &t->image_projector};
    for (size_t i = 0; status == MR_OK && i < sizeof parts / sizeof *parts; i++)
        status = fill_part(t, parts[i], err);
    return status == MR_OK ? freeze(t, err) : status;
}

bool mr_trainer_trains(const mr_trainer *t, const mr_trainer_part *p)
{
    for (size_t i = 0; p->part && i < p->part->n; i++)
        if (t->weights.weight[p->part->first + i].trained)
            return true;
    return false;
}

void mr_trainer_close_parts(mr_trainer *t)
{
    for (size_t s = 0; t->gradient && s < t->n_shards; s++)
        free(t->gradient[s]);
    free(t->gradient);
    free(t->parameter);
    free(t->values);
    free(t->moment1);
    free(t->moment2);
    mr_trainer_spec_close(&t->spec);
    mr_tokenizer_close(t->tokenizer);
    mr_weights_done(&t->weights);
    mr_arena_done(&t->arena);
}

mr_status mr_trainer_need(const mr_trainer *t, const mr_trainer_part *part, const char *name,
                          mr_error *err)
{
    return part->recipe ? MR_OK
                        : MR_FAIL(err, INVALID, "stage %s needs a part '%s' in the recipe",
                                  mr_stage_name(t->recipe->stage), name);
}

/* ---- Writing --------------------------------------------------------------------------------- */

static mr_status copy_tokenizer(const mr_trainer *t, const char *to, mr_arena *arena, mr_error *err)
{
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json"};
    mr_status status = MR_OK;
    for (size_t i = 0; status == MR_OK && i < sizeof files / sizeof *files; i++) {
        const char *from = mr_path_join(arena, t->tokenizer_folder, files[i]);
        const char *target = mr_path_join(arena, to, files[i]);
        if (!from || !target)
            status = MR_FAIL(err, NO_MEMORY, "writing '%s'", to);
        else if (i == 0 || mr_file_exists(from))
            status = mr_file_copy(from, target, err);
    }
    return status;
}

static mr_status save_decoder(const mr_trainer *t, const mr_trainer_part *p, const char *folder,
                              mr_arena *arena, mr_error *err)
{
    static const char *const metadata[] = {"format", "pt", NULL};
    const char *to = mr_path_join(arena, folder, p->part->name);
    const char *config = to ? mr_path_join(arena, to, "config.json") : NULL;
    const char *weights = to ? mr_path_join(arena, to, "model.safetensors") : NULL;
    json_t *json = mr_model_config_to_json(&p->decoder.config);
    mr_status status = config && weights && json ? mr_file_make_folders(to, err)
                                                 : MR_FAIL(err, NO_MEMORY, "writing '%s'", folder);
    if (status == MR_OK)
        status = mr_json_save_file(json, config, err);
    if (status == MR_OK)
        status = copy_tokenizer(t, to, arena, err);
    if (status == MR_OK)
        status =
            mr_weights_save(&t->weights, p->part, weights, MR_DTYPE_F32, t->values, metadata, err);
    json_decref(json);
    return status;
}

static mr_status save_projector(const mr_trainer *t, const mr_trainer_part *p, const char *folder,
                                mr_arena *arena, mr_error *err)
{
    char name[64];
    snprintf(name, sizeof name, "%s.safetensors", p->part->name);
    const char *path = mr_path_join(arena, folder, name);
    if (!path)
        return MR_FAIL(err, NO_MEMORY, "writing '%s'", folder);
    return p->part->n == 0
               ? MR_OK
               : mr_weights_save(&t->weights, p->part, path, MR_DTYPE_F32, t->values, NULL, err);
}

mr_status mr_trainer_save_parts(const mr_trainer *t, const char *folder, mr_error *err)
{
    mr_arena arena = {0};
    mr_status status = MR_OK;
    if (t->llm.part)
        status = save_decoder(t, &t->llm, folder, &arena, err);
    if (status == MR_OK && t->encoder.part)
        status = save_decoder(t, &t->encoder, folder, &arena, err);
    if (status == MR_OK && t->item_projector.part)
        status = save_projector(t, &t->item_projector, folder, &arena, err);
    if (status == MR_OK && t->user_projector.part)
        status = save_projector(t, &t->user_projector, folder, &arena, err);
    if (status == MR_OK && t->image_projector.part)
        status = save_projector(t, &t->image_projector, folder, &arena, err);
    if (status == MR_OK && t->user.part)
        status = mr_trainer_save_user(t, folder, &arena, err);
    if (status == MR_OK && t->vision.part)
        status = mr_trainer_save_vision(t, folder, &arena, err);
    mr_arena_done(&arena);
    return status;
}
