/* encode_images.c - pictures of the items of a JSONL file into records, batch by batch. See
 * encode.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/jsonl.h"
#include "core/progress.h"
#include "ranker/cli/encode.h"

/* Pixels of a batch are floats: 64 pictures of 336 x 336 are 87 MB. */
#define BATCH_PICTURES 64
/* A little more than image.h takes, so that it is image.h that says so. */
#define MAX_IMAGE_BYTES ((size_t)64 << 20)

static mr_status refuse(mr_encode_state *state, const mr_error *why, mr_error *err)
{
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

static mr_status flush_images(mr_encode_state *state, mr_image_encoder *encoder, const char *folder,
                              mr_error *err)
{
    const mr_encoder_spec *spec = &state->bundle->image;
    const size_t width = (size_t)spec->tokens * spec->dim;
    mr_status status = state->n_rows ? mr_encode_skip_known(state, spec->space, err) : MR_OK;
    if (status != MR_OK || state->n_rows == 0)
        goto out;
    float *values = mr_arena_array(&state->arena, float, state->n_rows *width);
    mr_store_put_item *records = mr_arena_array(&state->arena, mr_store_put_item, state->n_rows);
    if (!values || !records) {
        status = MR_FAIL(err, NO_MEMORY, "a batch of %zu pictures", state->n_rows);
        goto out;
    }
    size_t n = 0;
    for (size_t i = 0; i < state->n_rows && status == MR_OK; i++) {
        mr_error why = {0};
        const mr_status one = load_picture(state, encoder, n, &state->rows[i], folder, &why);
        if (one == MR_OK)
            state->rows[n++] = state->rows[i];
        else
            status = refuse(state, &why, err);
    }
    if (status == MR_OK && n)
        status = mr_image_encoder_run(encoder, n, values, err);
    for (size_t i = 0; i < n && status == MR_OK; i++)
        status = mr_encode_record(state, state->rows[i].id, spec->space, values + i * width,
                                  (uint16_t)spec->tokens, spec->dim, &records[i], err);
    if (status == MR_OK && n)
        status = mr_encode_put(state, MR_ENTITY_ITEM, spec->space, records, n, err);
out:
    state->n_rows = 0;
    mr_arena_rewind(&state->arena, (mr_arena_mark){0});
    return status;
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
        if (json_string_length(json_object_get(row, "image")) > 0)
            status = mr_encode_read_item(state, row, err);
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
