/* checkpoint.c - saving a run and going on from there.
 *
 * A checkpoint is a folder: the parts in Hugging Face layout, optimizer.safetensors with the two
 * moments, and trainer.json, written last: a folder without it is not one. It is made under another
 * name and renamed, so that a run that is killed in between leaves only rubbish, which the next
 * write removes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "ranker/model/folder.h"
#include "ranker/training/trainer_private.h"

#define PREFIX  "checkpoint-"
#define PARTIAL "checkpoint.partial"
#define STATE   "trainer.json"
#define MOMENTS "optimizer.safetensors"

/* ---- Folders --------------------------------------------------------------------------------- */

/* Failures show when a checkpoint is written next, or not at all. */
static void remove_folder(const char *path)
{
    mr_folder_remove(path);
}

static const char *step_folder(mr_arena *arena, const char *out, int64_t step)
{
    char name[64];
    snprintf(name, sizeof name, PREFIX "%08" PRId64, step);
    return mr_path_join(arena, out, name);
}

/* 0 for what is not named as a checkpoint is. */
static int64_t step_of(const char *name)
{
    char same[64];
    if (strncmp(name, PREFIX, sizeof PREFIX - 1) != 0)
        return 0;
    const long long step = strtoll(name + sizeof PREFIX - 1, NULL, 10);
    snprintf(same, sizeof same, PREFIX "%08lld", step);
    return step > 0 && strcmp(same, name) == 0 ? step : 0;
}

static bool is_whole(const char *out, int64_t step)
{
    mr_arena arena = {0};
    const char *folder = step_folder(&arena, out, step);
    const char *state = folder ? mr_path_join(&arena, folder, STATE) : NULL;
    const bool whole = state && mr_file_exists(state);
    mr_arena_done(&arena);
    return whole;
}

/* The largest step below `below` that has a whole checkpoint; 0 when there is none. */
static int64_t newest_before(const char *out, int64_t below)
{
    int64_t newest = 0;
    DIR *dir = opendir(out);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        const int64_t step = step_of(entry->d_name);
        if (step > newest && step < below && is_whole(out, step))
            newest = step;
    }
    if (dir)
        closedir(dir);
    return newest;
}

/* ---- Writing --------------------------------------------------------------------------------- */

static mr_status write_moments(const mr_trainer *t, const char *path, mr_error *err)
{
    const size_t bytes = t->weights.total * sizeof(float);
    const mr_tensor tensors[2] = {{.name = "moment1",
                                   .data = t->moment1,
                                   .dtype = MR_DTYPE_F32,
                                   .n_dims = 1,
                                   .shape = {(int64_t)t->weights.total},
                                   .bytes = bytes},
                                  {.name = "moment2",
                                   .data = t->moment2,
                                   .dtype = MR_DTYPE_F32,
                                   .n_dims = 1,
                                   .shape = {(int64_t)t->weights.total},
                                   .bytes = bytes}};
    return mr_safetensors_write(path, tensors, 2, NULL, err);
}

static mr_status write_state(const mr_trainer *t, const mr_checkpoint_state *state,
                             const char *path, mr_error *err)
{
    json_t *json =
        json_pack("{s:I, s:s, s:s, s:f, s:I}", "step", (json_int_t)state->step, "stage",
                  mr_stage_name(t->recipe->stage), "recipe", t->recipe->digest, "smooth_loss",
                  state->smooth_loss, "tokens", (json_int_t)state->tokens);
    if (json && isfinite(state->valid_loss)) /* JSON has no NaN */
        json_object_set_new(json, "valid_loss", json_real(state->valid_loss));
    mr_status status =
        json ? mr_json_save_file(json, path, err) : MR_FAIL(err, NO_MEMORY, "writing '%s'", path);
    json_decref(json);
    return status;
}

static void remove_step(const char *out, int64_t step)
{
    mr_arena arena = {0};
    const char *folder = step_folder(&arena, out, step);
    const char *state = folder ? mr_path_join(&arena, folder, STATE) : NULL;
    /* First what makes it a checkpoint: being killed here must not leave a part of one. */
    if (state)
        (void)unlink(state);
    if (folder)
        remove_folder(folder);
    mr_arena_done(&arena);
}

/* Older ones beyond those to keep, later ones, which are of a run that was begun anew, and what is
 * left where a run was killed while it removed one. */
static void remove_others(const mr_trainer *t, int64_t newest)
{
    const char *out = t->opt->out;
    int64_t step = INT64_MAX;
    DIR *dir = opendir(out);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        const int64_t other = step_of(entry->d_name);
        if (other > 0 && !is_whole(out, other))
            remove_step(out, other);
    }
    if (dir)
        closedir(dir);
    for (int kept = 0; (step = newest_before(out, step)) > 0;) {
        if (step > newest || kept++ >= t->recipe->checkpoint.keep)
            remove_step(out, step);
    }
}

mr_status mr_checkpoint_write(const mr_trainer *t, const mr_checkpoint_state *state, mr_error *err)
{
    mr_arena arena = {0};
    const char *partial = mr_path_join(&arena, t->opt->out, PARTIAL);
    const char *final = step_folder(&arena, t->opt->out, state->step);
    const char *moments = partial ? mr_path_join(&arena, partial, MOMENTS) : NULL;
    const char *trainer = partial ? mr_path_join(&arena, partial, STATE) : NULL;
    mr_status status = MR_OK;
    if (!final || !moments || !trainer)
        status = MR_FAIL(err, NO_MEMORY, "a checkpoint in '%s'", t->opt->out);
    if (status != MR_OK)
        goto out;
    remove_folder(partial);
    status = mr_file_make_folders(partial, err);
    if (status == MR_OK)
        status = mr_trainer_save_parts(t, partial, err);
    if (status == MR_OK)
        status = write_moments(t, moments, err);
    if (status == MR_OK)
        status = write_state(t, state, trainer, err);
    if (status == MR_OK) {
        remove_folder(final); /* of the same step: equal, or not whole */
        if (rename(partial, final) != 0)
            status = mr_file_fail(err, errno, "cannot rename to", final);
    }
    if (status == MR_OK)
        remove_others(t, state->step);
    else
        remove_folder(partial);

out:
    mr_arena_done(&arena);
    return status == MR_OK ? status : mr_error_prefix(err, status, "checkpoint");
}

/* ---- Reading --------------------------------------------------------------------------------- */

static mr_status read_state(const mr_trainer *t, const char *path, int64_t step,
                            mr_checkpoint_state *out, mr_error *err)
{
    json_t *json = NULL;
    mr_status status = mr_json_load_file(&json, path, MR_JSON_MAX_CONFIG, err);
    if (status != MR_OK)
        return status;
    mr_json_cursor cur = mr_json_cursor_of(path, json, err);
    const char *digest = mr_json_string(&cur, "recipe", NULL, true);
    out->step = mr_json_int(&cur, "step", 1, INT64_MAX, MR_JSON_REQUIRED);
    out->tokens = (uint64_t)mr_json_int(&cur, "tokens", 0, INT64_MAX, 0);
    out->smooth_loss = mr_json_real(&cur, "smooth_loss", -1e300, 1e300, (double)NAN);
    out->valid_loss = (double)NAN;
    if (json_object_get(json, "valid_loss"))
        out->valid_loss = mr_json_real(&cur, "valid_loss", -1e300, 1e300, (double)NAN);
    status = cur.status;
    if (status == MR_OK && out->step != step)
        status = MR_FAIL(err, CORRUPT, "'%s' is of step %" PRId64 ", its folder of step %" PRId64,
                         path, out->step, step);
    if (status == MR_OK && strcmp(digest, t->recipe->digest) != 0)
        status = MR_FAIL(err, MISMATCH,
                         "'%s' is of another recipe (%s, this one is %s): train into another "
                         "folder, or start afresh with --fresh",
                         path, digest, t->recipe->digest);
    json_decref(json);
    return status;
}

static mr_status read_moments(mr_trainer *t, const char *path, mr_error *err)
{
    const int64_t shape[1] = {(int64_t)t->weights.total};
    mr_safetensors *file = NULL;
    mr_tensor tensor;
    mr_status status = mr_safetensors_open(&file, path, err);
    if (status == MR_OK)
        status = mr_safetensors_need(file, "moment1", 1, shape, &tensor, err);
    if (status == MR_OK)
        mr_dtype_to_f32(t->moment1, tensor.data, tensor.dtype, t->weights.total);
    if (status == MR_OK)
        status = mr_safetensors_need(file, "moment2", 1, shape, &tensor, err);
    if (status == MR_OK)
        mr_dtype_to_f32(t->moment2, tensor.data, tensor.dtype, t->weights.total);
    mr_safetensors_close(file);
    return status;
}

static mr_status read_part(mr_trainer *t, const mr_trainer_part *p, bool is_folder,
                           const char *folder, mr_arena *arena, mr_error *err)
{
    if (!p->part || p->part->n == 0)
        return MR_OK;
    char name[64];
    snprintf(name, sizeof name, "%s%s", p->part->name, is_folder ? "" : ".safetensors");
    const char *path = mr_path_join(arena, folder, name);
    return path ? mr_weights_load(&t->weights, p->part, path, t->values, err)
                : MR_FAIL(err, NO_MEMORY, "reading '%s'", folder);
}

mr_status mr_checkpoint_resume(mr_trainer *t, mr_checkpoint_state *state, mr_error *err)
{
    *state = (mr_checkpoint_state){.valid_loss = (double)NAN};
    const int64_t step = newest_before(t->opt->out, INT64_MAX);
    if (step == 0)
        return MR_OK;
    mr_arena arena = {0};
    const char *folder = step_folder(&arena, t->opt->out, step);
    const char *moments = folder ? mr_path_join(&arena, folder, MOMENTS) : NULL;
    const char *trainer = folder ? mr_path_join(&arena, folder, STATE) : NULL;
    mr_status status = moments && trainer ? read_state(t, trainer, step, state, err)
                                          : MR_FAIL(err, NO_MEMORY, "reading '%s'", t->opt->out);
    if (status == MR_OK)
        status = read_moments(t, moments, err);
    if (status == MR_OK)
        status = read_part(t, &t->llm, true, folder, &arena, err);
    if (status == MR_OK)
        status = read_part(t, &t->encoder, true, folder, &arena, err);
    if (status == MR_OK)
        status = read_part(t, &t->item_projector, false, folder, &arena, err);
    if (status == MR_OK)
        status = read_part(t, &t->user_projector, false, folder, &arena, err);
    if (status == MR_OK)
        status = read_part(t, &t->image_projector, false, folder, &arena, err);
    if (status == MR_OK)
        status = read_part(t, &t->user, true, folder, &arena, err);
    if (status == MR_OK && mr_trainer_trains(t, &t->vision))
        status = read_part(t, &t->vision, true, folder, &arena, err);
    if (status != MR_OK && status != MR_MISMATCH && status != MR_NO_MEMORY)
        mr_error_prefix(err, status, "resuming (remove '%s' to go on from an older checkpoint)",
                        folder);
    else if (status != MR_OK)
        mr_error_prefix(err, status, "resuming");
    mr_arena_done(&arena);
    return status;
}

mr_status mr_checkpoint_publish(const mr_trainer *t, mr_error *err)
{
    mr_status status = mr_trainer_save_parts(t, t->opt->out, err);
    /* A run that was killed right behind its last checkpoint has not come to this. */
    if (status == MR_OK)
        remove_others(t, newest_before(t->opt->out, INT64_MAX));
    return status;
}
