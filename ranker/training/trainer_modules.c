/* trainer_modules.c - the parts that are neither decoders nor projectors: the user encoder and the
 * vision tower. See trainer_private.h.
 *
 * What they look like is said where they will be served: a bundle.json without positions of a set,
 * histories as long as the recipe's, pictures as the tower's folder wants them.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/file.h"
#include "ranker/training/trainer_private.h"

#define NEW_EPS 1e-6f

/* ---- The user encoder ------------------------------------------------------------------------ */

/* A new one is as wide as the items unless the recipe says otherwise; a sequence has positions that
 * need no training, as histories are short at first and long later. */
static mr_status new_user(const mr_trainer *t, const mr_recipe_part *part, mr_user_config *out,
                          mr_error *err)
{
    const size_t item_dim = (size_t)t->encoder.decoder.config.C;
    const size_t C = part->width > 0 ? (size_t)part->width : item_dim;
    const size_t T = (size_t)t->spec.item_tokens, H = (size_t)part->heads;
    const mr_user_config config = {.item_dim = item_dim,
                                   .C = C,
                                   .H = H,
                                   .K = H,
                                   .D = C % H == 0 ? C / H : 0,
                                   .F = (size_t)part->ffn,
                                   .layers = (size_t)part->layers,
                                   .cross_layers = 1,
                                   .latents = (size_t)part->latents,
                                   .max_history = (size_t)t->recipe->history * T,
                                   .positions = t->spec.user_order == MR_HISTORY_SET
                                                    ? MR_USER_POSITIONS_NONE
                                                    : MR_USER_POSITIONS_SINUSOID,
                                   .eps = NEW_EPS};
    if (config.D == 0)
        return MR_FAIL(err, INVALID, "part 'user': its width %zu is no multiple of its heads (%zu)",
                       C, H);
    if (config.max_history > MR_USER_MAX_HISTORY)
        return MR_FAIL(
            err, INVALID,
            "part 'user': a history of %d items of %zu tokens is more than the %d vectors "
            "that a user encoder takes; lower 'history'",
            t->recipe->history, T, MR_USER_MAX_HISTORY);
    /* Written and read again, so that a shape that cannot be is refused here, by the same words. */
    json_t *json = mr_user_config_to_json(&config);
    mr_status status = json ? mr_user_config_parse(out, "part 'user'", json, err)
                            : MR_FAIL(err, NO_MEMORY, "part 'user'");
    json_decref(json);
    return status;
}

/* What a bundle would refuse. */
static mr_status check_user(const mr_trainer *t, const mr_user_config *config, mr_error *err)
{
    const size_t item_dim = (size_t)t->encoder.decoder.config.C, T = (size_t)t->spec.item_tokens;
    if (config->item_dim != item_dim)
        return MR_FAIL(err, MISMATCH,
                       "part 'user' reads vectors of %zu numbers, part 'encoder' makes some of %zu",
                       config->item_dim, item_dim);
    if (config->max_history < T)
        return MR_FAIL(err, MISMATCH,
                       "part 'user' takes %zu history vectors, but an item has %zu tokens",
                       config->max_history, T);
    if (t->spec.user_order == MR_HISTORY_SET && config->positions != MR_USER_POSITIONS_NONE)
        return MR_FAIL(
            err, INVALID,
            "part 'user' has positions, which mean nothing in a set; encoders.user.order "
            "of '%s' is to be 'sequence'",
            t->recipe->bundle);
    return MR_OK;
}

mr_status mr_trainer_add_user(mr_trainer *t, mr_trainer_part *out, mr_error *err)
{
    const mr_recipe_part *recipe = mr_recipe_find_part(t->recipe, "user");
    mr_user_config config;
    mr_status status = MR_OK;
    if (!recipe)
        return MR_OK;
    if (!t->encoder.recipe)
        return MR_FAIL(err, INVALID,
                       "part 'user' reads what part 'encoder' makes of items; the recipe has none");
    if (!t->spec.item_text)
        return MR_FAIL(err, INVALID,
                       "part 'user' needs a 'bundle' that describes encoders.item, whose tokens it "
                       "reads");
    if (recipe->from) {
        const char *path = mr_path_join(&t->arena, recipe->from, "config.json");
        status =
            path ? mr_user_config_load(&config, path, err) : MR_FAIL(err, NO_MEMORY, "part 'user'");
    } else {
        status = new_user(t, recipe, &config, err);
    }
    if (status == MR_OK)
        status = check_user(t, &config, err);
    if (status != MR_OK)
        return status;
    mr_weights_begin_part(&t->weights, "user");
    out->recipe = recipe;
    return mr_user_train_add(&out->user, &config, &t->weights, err);
}

size_t mr_trainer_history(const mr_trainer *t)
{
    const size_t asked = (size_t)t->recipe->history;
    size_t most = asked;
    if (t->user.recipe)
        most = t->user.user.config.max_history / (size_t)t->spec.item_tokens;
    else if (t->spec.user_tokens > 0)
        most = (size_t)t->spec.user_tokens;
    return most < asked ? most : asked;
}

mr_status mr_trainer_save_user(const mr_trainer *t, const char *folder, mr_arena *arena,
                               mr_error *err)
{
    const char *to = mr_path_join(arena, folder, "user");
    const char *config = to ? mr_path_join(arena, to, "config.json") : NULL;
    const char *weights = to ? mr_path_join(arena, to, "model.safetensors") : NULL;
    mr_status status = config && weights ? mr_file_make_folders(to, err)
                                         : MR_FAIL(err, NO_MEMORY, "writing '%s'", folder);
    if (status == MR_OK)
        status = mr_user_config_save(&t->user.user.config, config, err);
    if (status == MR_OK)
        status =
            mr_weights_save(&t->weights, t->user.part, weights, MR_DTYPE_F32, t->values, NULL, err);
    return status;
}

/* ---- The vision tower ------------------------------------------------------------------------ */

mr_status mr_trainer_add_vision(mr_trainer *t, mr_trainer_part *out, mr_error *err)
{
    const mr_recipe_part *recipe = mr_recipe_find_part(t->recipe, "vision");
    mr_vision_shape shape;
    if (!recipe)
        return MR_OK;
    mr_status status =
        mr_vision_train_shape(&shape, recipe->from, recipe->feature_layer, recipe->tokens, err);
    if (status != MR_OK)
        return status;
    if (shape.tokens == 0) /* as LLaVA: every patch is a token */
        shape.tokens = shape.config.grid * shape.config.grid;
    mr_weights_begin_part(&t->weights, "vision");
    out->recipe = recipe;
    status = mr_vision_train_add(&out->vision, &shape, &t->weights, err);
    return status == MR_OK ? status : mr_error_prefix(err, status, "part 'vision'");
}

mr_status mr_trainer_save_vision(const mr_trainer *t, const char *folder, mr_arena *arena,
                                 mr_error *err)
{
    static const char *const files[] = {"config.json", "preprocessor_config.json",
                                        "processor_config.json"};
    if (!mr_trainer_trains(t, &t->vision))
        return MR_OK;
    const char *to = mr_path_join(arena, folder, "vision");
    const char *weights = to ? mr_path_join(arena, to, "model.safetensors") : NULL;
    mr_status status =
        weights ? mr_file_make_folders(to, err) : MR_FAIL(err, NO_MEMORY, "writing '%s'", folder);
    for (size_t i = 0; status == MR_OK && i < sizeof files / sizeof *files; i++) {
        const char *from = mr_path_join(arena, t->vision.recipe->from, files[i]);
        const char *target = mr_path_join(arena, to, files[i]);
        if (!from || !target)
            status = MR_FAIL(err, NO_MEMORY, "writing '%s'", to);
        else if (mr_file_exists(from))
            status = mr_file_copy(from, target, err);
    }
    if (status == MR_OK)
        status = mr_weights_save(&t->weights, t->vision.part, weights, MR_DTYPE_F32, t->values,
                                 NULL, err);
    return status;
}
