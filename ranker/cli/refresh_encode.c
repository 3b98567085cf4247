/* refresh_encode.c - see refresh_encode.h.
 *
 * What is wrong with a row alone rejects that row; what is wrong with the machine (memory, the
 * store) fails the call, which is then made again. A text that the encoder refuses fails the call
 * too, for good, and the refresher finds it by calling row by row.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/cli/refresh_encode.h"

#include <stdio.h>
#include <string.h>

mr_status mr_refresh_encode_open(mr_refresh_encode *out, const mr_bundle *bundle, mr_store *store,
                                 const mr_refresh_encode_options *options, mr_error *err)
{
    *out = (mr_refresh_encode){.bundle = bundle, .store = store, .dtype = options->dtype};
    if (options->items && bundle->item.kind == MR_ENCODER_NONE)
        return MR_FAIL(err, MISMATCH, "bundle '%s' ranks text: it has no item vectors to keep",
                       mr_bundle_name(bundle));
    if (options->users && bundle->user.kind != MR_ENCODER_HISTORY)
        return MR_FAIL(err, MISMATCH,
                       "bundle '%s' has no history encoder: its users are not made of items",
                       mr_bundle_name(bundle));
    mr_status status = MR_OK;
    if (options->items && bundle->item.kind == MR_ENCODER_CAUSAL_LAST_N)
        status = mr_bundle_open_item_encoder(
            bundle, options->exact ? MR_GEMM_SCORING : MR_GEMM_BLAS, 0, &out->text_encoder, err);
    if (status == MR_OK && options->users && bundle->user.path)
        status = mr_bundle_open_user_encoder(bundle, &out->user_encoder, err);
    if (status != MR_OK)
        mr_refresh_encode_close(out);
    return status;
}

void mr_refresh_encode_close(mr_refresh_encode *encode)
{
    mr_text_encoder_close(encode->text_encoder);
    mr_user_encoder_close(encode->user_encoder);
    mr_arena_done(&encode->arena);
    *encode = (mr_refresh_encode){0};
}

static void reject(mr_refresh_record *out, const char *reason)
{
    out->record = (mr_bytes){0};
    snprintf(out->reason, sizeof out->reason, "%.*s", (int)sizeof out->reason - 1, reason);
}

/* Values NULL: a tombstone. A record that cannot be made (a value that overflows the dtype) is the
 * row's fault. */
static mr_status make_record(mr_refresh_encode *encode, uint64_t space, const mr_refresh_row *row,
                             const float *values, uint16_t tokens, size_t dim,
                             mr_refresh_record *out, mr_error *err)
{
    const mr_record_info info = {.dtype = encode->dtype,
                                 .version = row->version,
                                 .space = space,
                                 .event_ms = row->event_ms,
                                 .tokens = tokens,
                                 .dim = (uint16_t)dim};
    mr_error why = {0};
    mr_status status = mr_encode_make_record(info, values, &encode->arena, &out->record, &why);
    if (status == MR_INVALID) {
        reject(out, why.message);
        return MR_OK;
    }
    if (status != MR_OK && err)
        *err = why;
    return status;
}

/* Parsed once by the refresher; it is an object with the right id. */
static mr_status read_item(mr_refresh_encode *encode, const mr_refresh_row *row,
                           mr_catalogue_item *item, mr_refresh_record *out, mr_error *err)
{
    json_t *object = NULL;
    mr_error why = {0};
    mr_status status = mr_json_parse(&object, "value", row->json, &why);
    if (status == MR_OK)
        status = mr_catalogue_read_row(object, &encode->arena, item, &why);
    json_decref(object);
    if (status == MR_NO_MEMORY) {
        if (err)
            *err = why;
        return status;
    }
    if (status != MR_OK)
        reject(out, why.message);
    return MR_OK;
}

static mr_status encode_texts(mr_refresh_encode *encode, const mr_catalogue_item *items, size_t n,
                              float *values, uint16_t *tokens, mr_error *err)
{
    mr_fields *fields = mr_arena_array(&encode->arena, mr_fields, n);
    if (!fields)
        return MR_FAIL(err, NO_MEMORY, "texts of %zu items", n);
    for (size_t i = 0; i < n; i++)
        fields[i] = items[i].fields;
    return mr_text_encoder_run(encode->text_encoder, fields, n, values, tokens, NULL, err);
}

static mr_status encode_items(mr_refresh_encode *encode, uint64_t space, const mr_refresh_row *rows,
                              size_t n, mr_refresh_record *out, mr_error *err)
{
    const mr_encoder_spec *spec = &encode->bundle->item;
    const size_t width = (size_t)spec->tokens * spec->dim;
    mr_arena *arena = &encode->arena;
    mr_catalogue_item *items = mr_arena_array(arena, mr_catalogue_item, n);
    size_t *which = mr_arena_array(arena, size_t, n);
    uint16_t *tokens = mr_arena_array(arena, uint16_t, n);
    float *values = mr_arena_array(arena, float, n *width);
    if (!items || !which || !tokens || !values)
        return MR_FAIL(err, NO_MEMORY, "a batch of %zu items", n);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        mr_status status = read_item(encode, &rows[i], &items[kept], &out[i], err);
        if (status != MR_OK)
            return status;
        if (out[i].reason[0])
            continue;
        if (!encode->text_encoder) {
            mr_error why = {0};
            if (mr_encode_take_vectors(spec, &items[kept], values + kept * width, &tokens[kept],
                                       &why) != MR_OK) {
                reject(&out[i], why.message);
                continue;
            }
        }
        which[kept++] = i;
    }
    mr_status status = MR_OK;
    if (encode->text_encoder && kept)
        status = encode_texts(encode, items, kept, values, tokens, err);
    for (size_t k = 0; k < kept && status == MR_OK; k++) {
        const size_t i = which[k];
        if (tokens[k] == 0)
            reject(&out[i],
                   "its texts give no tokens: is the field that the bundle reads missing?");
        else
            status = make_record(encode, space, &rows[i], values + k * width, tokens[k], spec->dim,
                                 &out[i], err);
    }
    return status;
}

static mr_status encode_user(mr_refresh_encode *encode, uint64_t space, const mr_refresh_row *row,
                             mr_refresh_record *out, mr_error *err)
{
    const mr_encode_user_source source = {encode->bundle, encode->store, encode->user_encoder};
    mr_encode_user_vectors user = {0};
    mr_error why = {0};
    json_t *object = NULL;
    mr_status status = mr_json_parse(&object, "value", row->json, &why);
    const json_t *history = json_object_get(object, "history");
    const size_t length = json_array_size(history);
    const bool empty = json_is_array(history) && length == 0;
    if (status == MR_OK && !empty)
        status = mr_encode_make_user(&source, history, &encode->arena, &user, &why);
    json_decref(object);
    if (status == MR_INVALID) {
        reject(out, why.message);
        return MR_OK;
    }
    if (status != MR_OK) {
        if (err)
            *err = why;
        return status;
    }
    if (empty || user.tokens)
        return make_record(encode, space, row, empty ? NULL : user.values, (uint16_t)user.tokens,
                           encode->bundle->user.dim, out, err);
    char reason[sizeof out->reason];
    snprintf(reason, sizeof reason,
             "none of the %zu items of the history is in the store: encode items first", length);
    reject(out, reason);
    return MR_OK;
}

mr_status mr_refresh_encode_rows(void *context, mr_entity entity, uint64_t space,
                                 const mr_refresh_row *rows, size_t n, mr_refresh_record *out,
                                 mr_error *err)
{
    mr_refresh_encode *encode = context;
    mr_arena_rewind(&encode->arena, (mr_arena_mark){0});
    if (entity == MR_ENTITY_ITEM)
        return encode_items(encode, space, rows, n, out, err);
    mr_status status = MR_OK;
    for (size_t i = 0; i < n && status == MR_OK; i++)
        status = encode_user(encode, space, &rows[i], &out[i], err);
    return status;
}
