/* encode_images.c - pictures of the items of a JSONL file into records, batch by batch. See
 * encode.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/file.h"
#include "featurestore/record.h"
#include "ranker/cli/command.h"
#include "ranker/cli/encode.h"

/* Pixels of a batch are floats: 64 pictures of 336 x 336 are 87 MB. */
#define BATCH_PICTURES 64

/* What a flush works with. */
typedef struct {
    mr_image_encoder *encoder;
    const char *folder; /* that the paths start from */
} picture_run;

static mr_status refuse(mr_encode_state *state, const mr_error *why, mr_error *err)
{
    /* Not the picture's fault: going on would call a run whole that is not. */
    if (why->status == MR_NO_MEMORY || why->status == MR_IO) {
        if (err)
            *err = *why;
        return why->status;
    }
    state->counts.refused++;
    if (state->n_refusals == MR_ENCODE_REFUSALS_KEPT)
        return MR_OK;
    const char *text = mr_arena_strndup(&state->refusals_arena, why->message, strlen(why->message));
    if (!text)
        return MR_FAIL(err, NO_MEMORY, "the list of refused pictures");
    state->refusals[state->n_refusals++] = text;
    return MR_OK;
}

/* Reads, decodes and preprocesses a row's picture into the encoder's slot. */
static mr_status load_picture(mr_encode_state *state, const picture_run *run, size_t slot,
                              const mr_catalogue_item *row, mr_error *err)
{
    const mr_str image = mr_fields_get(row->fields, "image");
    const mr_arena_mark mark = mr_arena_now(&state->arena);
    char *relative = mr_arena_strndup(&state->arena, image.data, image.len);
    mr_str file = {0};
    mr_status status = relative ? MR_OK : MR_FAIL(err, NO_MEMORY, "its path");
    /* The path is the catalogue's word, and a catalogue may be anybody's. */
    if (status == MR_OK && strlen(relative) != image.len)
        status = MR_FAIL(err, INVALID, "the path has a zero byte");
    if (status == MR_OK)
        status = mr_path_check_relative(relative, err);
    char *path = status == MR_OK ? mr_path_join(&state->arena, run->folder, relative) : NULL;
    if (status == MR_OK && !path)
        status = MR_FAIL(err, NO_MEMORY, "its path");
    if (status == MR_OK)
        status = mr_file_read(&state->arena, path, MR_COMMAND_MAX_IMAGE, &file, err);
    if (status == MR_OK)
        status = mr_image_encoder_put(run->encoder, slot, relative, (mr_bytes){file.data, file.len},
                                      err);
    if (status != MR_OK)
        mr_error_prefix(err, status, "item '%.*s'", MR_STR_ARG(row->id));
    mr_arena_rewind(&state->arena, mark);
    return status;
}

/* What the store has of a row's picture. */
typedef enum { PICTURE_NONE, PICTURE_OLDER, PICTURE_CURRENT } picture_state;

typedef struct {
    uint64_t version;
    picture_state *known; /* [rows] */
} known_pictures;

static void on_picture(void *context, size_t i, mr_bytes record)
{
    const known_pictures *visit = context;
    mr_record_info info;
    if (!record.data || mr_record_check("", record, &info, NULL) != MR_OK)
        return;
    visit->known[i] = info.version >= visit->version ? PICTURE_CURRENT
                      : info.tombstone               ? PICTURE_NONE
                                                     : PICTURE_OLDER;
}

/* Takes away pictures of an earlier version: they are not of what the catalogue says now. */
static mr_status put_removed(mr_encode_state *state, const mr_store_put_item *removed, size_t n,
                             mr_error *err)
{
    const uint64_t encoded = state->counts.encoded;
    mr_status status =
        n ? mr_encode_put(state, MR_ENTITY_ITEM, state->bundle->image.space, removed, n, err)
          : MR_OK;
    state->counts.removed += state->counts.encoded - encoded;
    state->counts.encoded = encoded;
    return status;
}

static mr_status flush_images(mr_encode_state *state, void *context, mr_error *err)
{
    const picture_run *run = context;
    const mr_encoder_spec *spec = &state->bundle->image;
    const size_t width = (size_t)spec->tokens * spec->dim, n_rows = state->n_rows;
    mr_status status = MR_OK;
    if (n_rows == 0)
        goto out;
    known_pictures visit = {state->version, mr_arena_array(&state->arena, picture_state, n_rows)};
    float *values = mr_arena_array(&state->arena, float, n_rows *width);
    mr_store_put_item *records = mr_arena_array(&state->arena, mr_store_put_item, n_rows);
    mr_store_put_item *removed = mr_arena_array(&state->arena, mr_store_put_item, n_rows);
    if (!visit.known || !values || !records || !removed) {
        status = MR_FAIL(err, NO_MEMORY, "a batch of %zu pictures", n_rows);
        goto out;
    }
    status = mr_encode_fetch_batch(state, spec->space, on_picture, &visit, err);
    size_t n = 0, n_removed = 0;
    for (size_t i = 0; i < n_rows && status == MR_OK; i++) {
        const mr_catalogue_item row = state->rows[i];
        const bool has_picture = mr_fields_get(row.fields, "image").len > 0;
        mr_error why = {0};
        if (visit.known[i] == PICTURE_CURRENT) {
            state->counts.skipped += has_picture;
            continue;
        }
        if (has_picture && load_picture(state, run, n, &row, &why) == MR_OK) {
            state->rows[n++] = row;
            continue;
        }
        if (has_picture)
            status = refuse(state, &why, err);
        if (status == MR_OK && visit.known[i] == PICTURE_OLDER)
            status = mr_encode_record(state, row.id, spec->space, NULL, 0, 0, &removed[n_removed++],
                                      err);
    }
    if (status == MR_OK && n)
        status = mr_image_encoder_run(run->encoder, n, values, err);
    for (size_t i = 0; i < n && status == MR_OK; i++)
        status = mr_encode_record(state, state->rows[i].id, spec->space, values + i * width,
                                  (uint16_t)spec->tokens, spec->dim, &records[i], err);
    if (status == MR_OK && n)
        status = mr_encode_put(state, MR_ENTITY_ITEM, spec->space, records, n, err);
    if (status == MR_OK)
        status = put_removed(state, removed, n_removed, err);
out:
    state->n_rows = 0;
    mr_arena_rewind(&state->arena, (mr_arena_mark){0});
    return status;
}

/* An "image" of the last row that is no string is a mistake of the catalogue's: told, not skipped.
 */
static mr_status check_member(mr_encode_state *state, const json_t *row, mr_error *err)
{
    const json_t *image = json_object_get(row, "image");
    if (!image || json_is_null(image) || json_is_string(image))
        return MR_OK;
    mr_error why = {0};
    (void)MR_FAIL(&why, INVALID, "item '%.*s': 'image' is %s, expected the path of a picture",
                  MR_STR_ARG(state->rows[state->n_rows - 1].id), mr_json_describe(image));
    return refuse(state, &why, err);
}

/* The folder that a file is in. */
static char *folder_of(mr_arena *arena, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return mr_arena_strndup(arena, ".", 1);
    return mr_arena_strndup(arena, path, slash == path ? 1 : (size_t)(slash - path));
}

mr_status mr_encode_images(mr_encode_state *state, mr_error *err)
{
    const mr_encode_options *opt = state->opt;
    mr_arena names = {0};
    picture_run run = {.folder = folder_of(&names, opt->items)};
    const mr_encode_pass pass = {.label = "encoding pictures",
                                 .space = state->bundle->image.space,
                                 .batch = opt->batch < BATCH_PICTURES ? (size_t)opt->batch
                                                                      : BATCH_PICTURES,
                                 .check = check_member,
                                 .flush = flush_images,
                                 .context = &run};
    mr_status status = run.folder ? MR_OK : MR_FAIL(err, NO_MEMORY, "folder of '%s'", opt->items);
    if (status == MR_OK)
        status =
            mr_bundle_open_image_encoder(state->bundle, opt->exact ? MR_GEMM_SCORING : MR_GEMM_BLAS,
                                         pass.batch, &run.encoder, err);
    if (status == MR_OK)
        status = mr_encode_items_pass(state, &pass, err);
    mr_image_encoder_close(run.encoder);
    mr_arena_done(&names);
    return status;
}
