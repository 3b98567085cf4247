/* encode_images.c - pictures of the items of a JSONL file into records, batch by batch. See
 * encode.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/jsonl.h"
#include "core/progress.h"
#include "featurestore/record.h"
#include "ranker/cli/encode.h"

/* Pixels of a batch are floats: 64 pictures of 336 x 336 are 87 MB. */
#define BATCH_PICTURES 64
/* A little more than image.h takes, so that it is image.h that says so. */
#define MAX_IMAGE_BYTES ((size_t)64 << 20)

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
static mr_status load_picture(mr_encode_state *state, mr_image_encoder *encoder, size_t slot,
                              const mr_catalogue_item *row, const char *folder, mr_error *err)
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
    char *path = status == MR_OK ? mr_path_join(&state->arena, folder, relative) : NULL;
    if (status == MR_OK && !path)
        status = MR_FAIL(err, NO_MEMORY, "its path");
    if (status == MR_OK)
        status = mr_file_read(&state->arena, path, MAX_IMAGE_BYTES, &file, err);
    if (status == MR_OK)
        status =
            mr_image_encoder_put(encoder, slot, relative, (mr_bytes){file.data, file.len}, err);
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

static mr_status find_known(mr_encode_state *state, picture_state **out, mr_error *err)
{
    const size_t n = state->n_rows;
    mr_str *ids = mr_arena_array(&state->arena, mr_str, n);
    *out = mr_arena_array(&state->arena, picture_state, n);
    if (!ids || !*out)
        return MR_FAIL(err, NO_MEMORY, "ids of a batch");
    for (size_t i = 0; i < n; i++)
        ids[i] = state->rows[i].id;
    known_pictures visit = {state->version, *out};
    return mr_store_fetch(state->store, MR_ENTITY_ITEM, state->bundle->image.space, ids, n,
                          on_picture, &visit, err);
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

static mr_status flush_images(mr_encode_state *state, mr_image_encoder *encoder, const char *folder,
                              mr_error *err)
{
    const mr_encoder_spec *spec = &state->bundle->image;
    const size_t width = (size_t)spec->tokens * spec->dim, n_rows = state->n_rows;
    picture_state *known = NULL;
    mr_status status = n_rows ? find_known(state, &known, err) : MR_OK;
    if (status != MR_OK || n_rows == 0)
        goto out;
    float *values = mr_arena_array(&state->arena, float, n_rows *width);
    mr_store_put_item *records = mr_arena_array(&state->arena, mr_store_put_item, n_rows);
    mr_store_put_item *removed = mr_arena_array(&state->arena, mr_store_put_item, n_rows);
    if (!values || !records || !removed) {
        status = MR_FAIL(err, NO_MEMORY, "a batch of %zu pictures", n_rows);
        goto out;
    }
    size_t n = 0, n_removed = 0;
    for (size_t i = 0; i < n_rows && status == MR_OK; i++) {
        const mr_catalogue_item row = state->rows[i];
        const bool has_picture = mr_fields_get(row.fields, "image").len > 0;
        mr_error why = {0};
        if (known[i] == PICTURE_CURRENT) {
            state->counts.skipped += has_picture;
            continue;
        }
        if (has_picture && load_picture(state, encoder, n, &row, folder, &why) == MR_OK) {
            state->rows[n++] = row;
            continue;
        }
        if (has_picture)
            status = refuse(state, &why, err);
        if (status == MR_OK && known[i] == PICTURE_OLDER)
            status = mr_encode_record(state, row.id, spec->space, NULL, 0, 0, &removed[n_removed++],
                                      err);
    }
    if (status == MR_OK && n)
        status = mr_image_encoder_run(encoder, n, values, err);
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
static mr_status check_member(mr_encode_state *state, const json_t *image, mr_error *err)
{
    if (!image || json_is_null(image) || json_is_string(image))
        return MR_OK;
    mr_error why = {0};
    (void)MR_FAIL(&why, INVALID, "item '%.*s': 'image' is %s, expected the path of a picture",
                  MR_STR_ARG(state->rows[state->n_rows - 1].id), mr_json_describe(image));
    return refuse(state, &why, err);
}

/* The folder that the paths of an items file start from; "." for standard input. */
static char *folder_of(mr_arena *arena, const char *path)
{
    const char *slash = strcmp(path, "-") == 0 ? NULL : strrchr(path, '/');
    if (!slash)
        return mr_arena_strndup(arena, ".", 1);
    return mr_arena_strndup(arena, path, slash == path ? 1 : (size_t)(slash - path));
}

mr_status mr_encode_images(mr_encode_state *state, mr_error *err)
{
    const mr_encode_options *opt = state->opt;
    const size_t batch = opt->batch < BATCH_PICTURES ? (size_t)opt->batch : BATCH_PICTURES;
    mr_arena names = {0};
    mr_jsonl reader = {0};
    mr_image_encoder *encoder = NULL;
    char *folder = folder_of(&names, opt->items);
    mr_status status = folder ? MR_OK : MR_FAIL(err, NO_MEMORY, "folder of '%s'", opt->items);
    if (status == MR_OK)
        status = mr_bundle_open_image_encoder(
            state->bundle, opt->exact ? MR_GEMM_SCORING : MR_GEMM_BLAS, batch, &encoder, err);
    if (status == MR_OK)
        status =
            mr_encode_begin_run(state, MR_ENTITY_ITEM, state->bundle->image.space, opt->items, err);
    if (status == MR_OK)
        status = mr_jsonl_open(&reader, opt->items, MR_JSONL_MAX_LINE, err);
    mr_progress bar =
        mr_progress_start("encoding pictures", mr_encode_file_size(opt->items), "bytes");
    while (status == MR_OK) {
        json_t *row = NULL;
        status = mr_jsonl_next(&reader, &row, err);
        if (status != MR_OK || !row)
            break;
        status = mr_encode_read_item(state, row, err);
        if (status == MR_OK)
            status = check_member(state, json_object_get(row, "image"), err);
        if (status != MR_OK)
            mr_error_prefix(err, status, "line %" PRIu64 " of %s", reader.line_number, reader.name);
        json_decref(row);
        if (status == MR_OK && state->n_rows == batch) {
            status = flush_images(state, encoder, folder, err);
            mr_progress_update(&bar, reader.bytes, NULL);
        }
    }
    if (status == MR_OK)
        status = flush_images(state, encoder, folder, err);
    if (status == MR_OK)
        status = mr_encode_end_run(state, err);
    mr_progress_finish(&bar, NULL);
    mr_jsonl_close(&reader);
    mr_image_encoder_close(encoder);
    mr_arena_done(&names);
    return status;
}
