/* image_target.c - preprocessor_config.json: how a published tower wants its pictures.
 *
 * A step that the file turns off, or does in another way, is refused: a tower that is fed otherwise
 * than it was trained answers with vectors that look right.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/arena.h"
#include "core/file.h"
#include "encoders/image_private.h"

#define BICUBIC 3 /* PIL.Image.Resampling */

mr_image_target mr_image_target_clip(int size)
{
    return (mr_image_target){
        .edge = size,
        .crop = size,
        .rescale = 1.0 / 255,
        .mean = {0.48145466, 0.4578275, 0.40821073},
        .std = {0.26862954, 0.26130258, 0.27577711},
    };
}

static void require_step(mr_json_cursor *cur, const char *key)
{
    if (!mr_json_bool(cur, key, true) && cur->status == MR_OK)
        cur->status = MR_FAIL(cur->err, UNSUPPORTED,
                              "%s: '%s' is false; pictures are prepared as CLIP's processor does, "
                              "with every step",
                              cur->name, key);
}

/* 224, {"shortest_edge": 224}, or a square {"height": 224, "width": 224}. */
static int read_size(mr_json_cursor *cur, const char *key, bool crop, int fallback)
{
    const json_t *value = json_object_get(cur->object, key);
    if (!json_is_object(value))
        return (int)mr_json_int(cur, key, 1, 4096, fallback);
    mr_json_cursor part = mr_json_cursor_of(cur->name, value, cur->err);
    int size = fallback;
    if (!crop && json_object_get(value, "shortest_edge")) {
        size = (int)mr_json_int(&part, "shortest_edge", 1, 4096, MR_JSON_REQUIRED);
        if (part.status == MR_OK && json_object_get(value, "longest_edge"))
            part.status = MR_FAIL(cur->err, UNSUPPORTED,
                                  "%s: '%s' bounds the longest edge too, which is not computed",
                                  cur->name, key);
    } else {
        size = (int)mr_json_int(&part, "height", 1, 4096, MR_JSON_REQUIRED);
        const int width = (int)mr_json_int(&part, "width", 1, 4096, MR_JSON_REQUIRED);
        if (part.status == MR_OK && (!crop || width != size))
            part.status = MR_FAIL(cur->err, UNSUPPORTED,
                                  "%s: '%s' is %d x %d; a shortest edge and a square crop are "
                                  "computed",
                                  cur->name, key, size, width);
    }
    if (cur->status == MR_OK)
        cur->status = part.status;
    return size;
}

static void read_three(mr_json_cursor *cur, const char *key, double least, double out[3])
{
    const json_t *list = mr_json_array(cur, key, false);
    if (!list)
        return;
    bool good = json_array_size(list) == 3;
    for (size_t i = 0; good && i < 3; i++) {
        const json_t *value = json_array_get(list, i);
        const double number = json_number_value(value);
        good = json_is_number(value) && number >= least && number <= 1;
        out[i] = number;
    }
    if (!good && cur->status == MR_OK)
        cur->status =
            MR_FAIL(cur->err, INVALID,
                    "%s: '%s' must be three numbers from %g to 1, for red, green and blue",
                    cur->name, key, least);
}

mr_status mr_image_target_parse(mr_image_target *out, const char *name, const json_t *root,
                                int size, mr_error *err)
{
    mr_image_target target = mr_image_target_clip(size);
    mr_json_cursor cur = mr_json_cursor_of(name, root, err);
    require_step(&cur, "do_resize");
    require_step(&cur, "do_center_crop");
    require_step(&cur, "do_rescale");
    require_step(&cur, "do_normalize");
    const int64_t resample = mr_json_int(&cur, "resample", 0, 100, BICUBIC);
    if (cur.status == MR_OK && resample != BICUBIC)
        cur.status =
            MR_FAIL(err, UNSUPPORTED, "%s: 'resample' is %lld; only 3, bicubic, is computed", name,
                    (long long)resample);
    target.edge = read_size(&cur, "size", false, target.edge);
    target.crop = read_size(&cur, "crop_size", true, target.crop);
    target.pad_to_square = mr_json_bool(&cur, "do_pad", false);
    target.rescale = mr_json_real(&cur, "rescale_factor", 1e-6, 1, target.rescale);
    read_three(&cur, "image_mean", 0, target.mean);
    read_three(&cur, "image_std", 1e-6, target.std);
    if (cur.status == MR_OK)
        *out = target;
    return cur.status;
}

mr_status mr_image_target_load(mr_image_target *out, const char *folder, int size, mr_error *err)
{
    static const struct {
        const char *file, *part;
    } places[] = {{"preprocessor_config.json", NULL}, {"processor_config.json", "image_processor"}};
    mr_arena arena = {0};
    mr_status status = MR_OK;
    bool found = false;
    *out = mr_image_target_clip(size);
    for (size_t i = 0; status == MR_OK && !found && i < sizeof places / sizeof *places; i++) {
        json_t *root = NULL;
        const char *path = mr_path_join(&arena, folder, places[i].file);
        if (!path)
            status = MR_FAIL(err, NO_MEMORY, "opening '%s'", folder);
        if (status != MR_OK || !mr_file_exists(path))
            continue;
        status = mr_json_load_file(&root, path, MR_JSON_MAX_CONFIG, err);
        const json_t *part = places[i].part ? json_object_get(root, places[i].part) : root;
        found = part != NULL;
        if (status == MR_OK && part)
            status = mr_image_target_parse(out, path, part, size, err);
        if (status == MR_OK && part && out->crop != size)
            status = MR_FAIL(err, MISMATCH,
                             "%s: makes pictures of %d pixels, but config.json says image_size %d",
                             path, out->crop, size);
        json_decref(root);
    }
    mr_arena_done(&arena);
    return status;
}
