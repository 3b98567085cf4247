/* clip.c - opening the towers: config.json, the weights, and the scratch of a pass.
 * SPDX-License-Identifier: Apache-2.0 */
#include "encoders/clip.h"

#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/file.h"
#include "core/layout.h"
#include "encoders/clip_private.h"
#include "engine/untrained.h"

#define MOST_IMAGES 1024
#define PASS_ROWS   1024 /* fill the kernels; more rows of a pass only fall out of the caches */

/* ---- config.json ----------------------------------------------------------------------------- */

/* Folders from before 4.27 hold the values that count in "..._config_dict". */
static const json_t *part_of(mr_json_cursor *cur, const char *key, const char *old_key)
{
    const json_t *old = mr_json_object(cur, old_key, false);
    return old ? old : mr_json_object(cur, key, false);
}

static mr_status read_clip(const char *path, const json_t *root, bool with_text,
                           mr_clip_vision_config *vision, mr_clip_text_config *text, mr_error *err)
{
    mr_json_cursor cur = mr_json_cursor_of(path, root, err);
    const json_t *vision_root = part_of(&cur, "vision_config", "vision_config_dict");
    const json_t *text_root = part_of(&cur, "text_config", "text_config_dict");
    const int projection_dim = (int)mr_json_int(&cur, "projection_dim", 1, 65536, 512);
    if (cur.status != MR_OK)
        return cur.status;
    mr_status status = mr_clip_vision_config_parse(vision, path, vision_root, err);
    if (status == MR_OK && with_text)
        status = mr_clip_text_config_parse(text, path, text_root, err);
    /* The parts carry the key too, but the pair goes by its own. */
    vision->projection_dim = text->projection_dim = projection_dim;
    return status;
}

static mr_status read_config(const char *path, bool with_text, mr_clip_vision_config *vision,
                             mr_clip_text_config *text, mr_error *err)
{
    json_t *root = NULL;
    mr_status status = mr_json_load_file(&root, path, MR_JSON_MAX_CONFIG, err);
    if (status != MR_OK)
        return status;

    mr_json_cursor cur = mr_json_cursor_of(path, root, err);
    const char *type = mr_json_string(&cur, "model_type", "", true);
    if (cur.status != MR_OK) {
        status = cur.status;
        goto out;
    }
    const bool is_clip = strcmp(type, "clip") == 0;
    const bool is_vision = strcmp(type, "clip_vision_model") == 0;
    const bool is_llava = strcmp(type, "llava") == 0;
    if (!is_clip && !is_vision && !is_llava)
        status = MR_FAIL(err, UNSUPPORTED,
                         "%s: model_type '%.60s' has no CLIP tower; known are clip, "
                         "clip_vision_model and llava",
                         path, type);
    else if (with_text && !is_clip)
        status = MR_FAIL(err, NOT_FOUND,
                         "%s: model_type '%s' has no text tower; texts need a folder of "
                         "model_type clip",
                         path, type);
    else if (is_clip)
        status = read_clip(path, root, with_text, vision, text, err);
    else if (is_vision)
        status = mr_clip_vision_config_parse(vision, path, root, err);
    else
        status = mr_clip_llava_vision_config(vision, path, root, err);

out:
    json_decref(root);
    return status;
}

mr_status mr_clip_llava_vision_config(mr_clip_vision_config *out, const char *name,
                                      const json_t *root, mr_error *err)
{
    mr_json_cursor cur = mr_json_cursor_of(name, root, err);
    const json_t *vision = mr_json_object(&cur, "vision_config", false);
    if (cur.status != MR_OK)
        return cur.status;
    if (vision)
        return mr_clip_vision_config_parse(out, name, vision, err);
    /* LlavaConfig's own defaults: ViT-L/14-336. A part that is there, however short, takes the
     * class's instead. */
    *out = (mr_clip_vision_config){.L = 24,
                                   .C = 1024,
                                   .H = 16,
                                   .F = 4096,
                                   .image_size = 336,
                                   .patch_size = 14,
                                   .grid = 24,
                                   .projection_dim = 768,
                                   .quick_gelu = true,
                                   .eps = 1e-5f};
    return MR_OK;
}

/* ---- Scratch --------------------------------------------------------------------------------- */

static void lay_out(mr_clip *clip, mr_layout *l)
{
    const mr_clip_vision_config *config = &clip->vision_config;
    const size_t patches = (size_t)config->grid * (size_t)config->grid;
    const size_t patch = 3 * (size_t)config->patch_size * (size_t)config->patch_size;
    const size_t threads = (size_t)mr_pool_threads(clip->pool);
    const mr_clip_tower *vision = &clip->vision, *text = &clip->text;
    const size_t vision_rows = clip->max_images * (patches + 1);
    const size_t text_rows = clip->has_text ? (size_t)clip->text_config.max_positions : 0;

    const size_t narrow = mr_size_max(vision_rows * vision->C, text_rows * text->C);
    const size_t wide = mr_size_max(mr_size_max(vision_rows * mr_clip_wide_columns(vision),
                                                text_rows * mr_clip_wide_columns(text)),
                                    clip->max_images * patches * patch);
    clip->x = mr_layout_part(l, narrow, 1, sizeof(float));
    clip->h = mr_layout_part(l, narrow, 1, sizeof(float));
    clip->wide = mr_layout_part(l, wide, 1, sizeof(float));
    clip->pooled =
        mr_layout_part(l, mr_size_max(clip->max_images * vision->C, text->C), 1, sizeof(float));

    const size_t widest = mr_size_max(
        mr_size_max(mr_size_max(vision->F, vision->C), mr_size_max(text->F, text->C)),
        mr_size_max(mr_size_max((size_t)config->projection_dim,
                                clip->has_text ? (size_t)clip->text_config.projection_dim : 0),
                    patch));
    clip->gemm_scratch =
        mr_layout_part(l, 1,
                       mr_gemm_scratch_bytes(clip->gemm, mr_size_max(vision_rows, text_rows),
                                             widest, widest, (int)threads),
                       1);
    clip->attention_floats =
        mr_size_round_up(mr_size_max(mr_clip_attention_floats(vision, patches + 1),
                                     text_rows ? mr_clip_attention_floats(text, text_rows) : 0),
                         MR_LAYOUT_ALIGN / sizeof(float));
    clip->attention_scratch = mr_layout_part(l, threads, clip->attention_floats, sizeof(float));
}

static mr_status allot(mr_clip *clip, mr_error *err)
{
    mr_layout plan = {0}, real;
    lay_out(clip, &plan);
    clip->memory = mr_layout_allocate(&plan, &real, &clip->bytes);
    if (!clip->memory)
        return MR_FAIL(err, NO_MEMORY,
                       "scratch for %zu pictures of %d x %d patches (%zu bytes); ask for fewer",
                       clip->max_images, clip->vision_config.grid, clip->vision_config.grid,
                       plan.overflow ? SIZE_MAX : plan.used);
    lay_out(clip, &real);
    return MR_OK;
}

/* ---- Opening --------------------------------------------------------------------------------- */

mr_status mr_clip_bind(mr_clip **out, const mr_safetensors *file,
                       const mr_clip_vision_config *vision, const mr_clip_text_config *text,
                       const mr_clip_options *opt, mr_error *err)
{
    mr_status status;
    if (opt->max_images > MOST_IMAGES)
        return MR_FAIL(err, INVALID, "passes of %zu pictures; at most %d", opt->max_images,
                       MOST_IMAGES);
    if (opt->text && !text)
        return MR_FAIL(err, INVALID, "the text tower is wanted without a text_config");
    mr_clip *clip = calloc(1, sizeof *clip);
    if (!clip)
        return MR_FAIL(err, NO_MEMORY, "opening '%s'", mr_safetensors_name(file));
    clip->file = file;
    clip->vision_config = *vision;
    clip->has_text = opt->text;
    if (opt->text)
        clip->text_config = *text;
    clip->gemm = opt->gemm;
    clip->kernels = opt->kernels ? opt->kernels : mr_kernels_select();
    clip->pool = opt->pool;
    const size_t positions = (size_t)vision->grid * (size_t)vision->grid + 1;
    clip->max_images = opt->max_images ? opt->max_images : (PASS_ROWS + positions - 1) / positions;

    status = mr_clip_bind_vision(clip, err);
    if (status == MR_OK && opt->text)
        status = mr_clip_bind_text(clip, err);
    if (status == MR_OK)
        status = allot(clip, err);
    if (status != MR_OK)
        goto out;
    *out = clip;
    clip = NULL;

out:
    mr_clip_close(clip);
    return status;
}

mr_status mr_clip_open(mr_clip **out, const char *folder, const mr_clip_options *opt, mr_error *err)
{
    mr_arena scratch = {0};
    mr_safetensors *file = NULL;
    mr_clip_vision_config vision = {0};
    mr_clip_text_config text = {0};
    mr_status status;

    const char *path = mr_path_join(&scratch, folder, "config.json");
    if (!path) {
        status = MR_FAIL(err, NO_MEMORY, "opening '%s'", folder);
        goto out;
    }
    status = read_config(path, opt->text, &vision, &text, err);
    if (status != MR_OK)
        goto out;

    status = mr_safetensors_open(&file, folder, err);
    if (status != MR_OK)
        goto out;

    status = mr_clip_bind(out, file, &vision, &text, opt, err);
    if (status != MR_OK)
        goto out;
    (*out)->owned_file = file;
    file = NULL;

out:
    mr_safetensors_close(file);
    mr_arena_done(&scratch);
    return status;
}

void mr_clip_close(mr_clip *clip)
{
    if (!clip)
        return;
    mr_clip_unbind(clip);
    mr_safetensors_close(clip->owned_file);
    mr_arena_done(&clip->arena);
    free(clip->memory);
    free(clip);
}

const mr_clip_vision_config *mr_clip_vision(const mr_clip *clip)
{
    return &clip->vision_config;
}

const mr_clip_text_config *mr_clip_text(const mr_clip *clip)
{
    return clip->has_text ? &clip->text_config : NULL;
}

float mr_clip_logit_scale(const mr_clip *clip)
{
    return clip->logit_scale;
}

size_t mr_clip_bytes(const mr_clip *clip)
{
    return clip->bytes + clip->arena.used + sizeof *clip;
}

bool mr_clip_is_untrained(const mr_clip *clip)
{
    return mr_safetensors_metadata(clip->file, MR_UNTRAINED_KEY) != NULL;
}
