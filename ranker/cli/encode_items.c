/* encode_items.c - items of a JSONL file into records, batch by batch. See encode.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "core/jsonl.h"
#include "core/progress.h"
#include "ranker/cli/encode.h"

mr_status mr_encode_fetch_batch(mr_encode_state *state, uint64_t space, mr_store_visit visit,
                                void *context, mr_error *err)
{
    mr_str *ids = mr_arena_array(&state->arena, mr_str, state->n_rows);
    if (!ids)
        return MR_FAIL(err, NO_MEMORY, "ids of a batch");
    for (size_t i = 0; i < state->n_rows; i++)
        ids[i] = state->rows[i].id;
    return mr_store_fetch(state->store, MR_ENTITY_ITEM, space, ids, state->n_rows, visit, context,
                          err);
}

/* Drops from the batch what the store already has at this version. */
static mr_status skip_known(mr_encode_state *state, uint64_t space, mr_error *err)
{
    bool *there = mr_arena_array(&state->arena, bool, state->n_rows);
    if (!there)
        return MR_FAIL(err, NO_MEMORY, "ids of a batch");
    mr_encode_known visit = {state->version, there};
    mr_status status = mr_encode_fetch_batch(state, space, mr_encode_on_known, &visit, err);
    if (status != MR_OK)
        return status;
    size_t kept = 0;
    for (size_t i = 0; i < state->n_rows; i++) {
        if (there[i])
            state->counts.skipped++;
        else
            state->rows[kept++] = state->rows[i];
    }
    state->n_rows = kept;
    return MR_OK;
}

/* [n][T][dim] for the batch, from the encoder or from the rows themselves. */
static mr_status batch_vectors(mr_encode_state *state, float *out, uint16_t *tokens, mr_error *err)
{
    const mr_encoder_spec *spec = &state->bundle->item;
    const size_t width = (size_t)spec->tokens * spec->dim;
    if (state->encoder) {
        mr_fields *fields = mr_arena_array(&state->arena, mr_fields, state->n_rows);
        if (!fields)
            return MR_FAIL(err, NO_MEMORY, "texts of a batch");
        for (size_t i = 0; i < state->n_rows; i++)
            fields[i] = state->rows[i].fields;
        mr_text_encoder_stats stats = {0};
        mr_status status =
            mr_text_encoder_run(state->encoder, fields, state->n_rows, out, tokens, &stats, err);
        state->counts.text_tokens += stats.text_tokens;
        state->counts.truncated += stats.truncated;
        return status;
    }
    for (size_t i = 0; i < state->n_rows; i++) {
        mr_status status =
            mr_encode_take_vectors(spec, &state->rows[i], out + i * width, &tokens[i], err);
        if (status != MR_OK)
            return status;
    }
    return MR_OK;
}

static mr_status flush_items(mr_encode_state *state, void *context, mr_error *err)
{
    (void)context;
    const mr_encoder_spec *spec = &state->bundle->item;
    mr_status status = state->n_rows ? skip_known(state, spec->space, err) : MR_OK;
    if (status != MR_OK || state->n_rows == 0)
        goto out;
    const size_t n = state->n_rows, width = (size_t)spec->tokens * spec->dim;
    float *values = mr_arena_array(&state->arena, float, n *width);
    uint16_t *tokens = mr_arena_array(&state->arena, uint16_t, n);
    mr_store_put_item *records = mr_arena_array(&state->arena, mr_store_put_item, n);
    if (!values || !tokens || !records) {
        status = MR_FAIL(err, NO_MEMORY, "a batch of %zu items; a smaller --batch needs less", n);
        goto out;
    }
    status = batch_vectors(state, values, tokens, err);
    size_t made = 0;
    for (size_t i = 0; i < n && status == MR_OK; i++) {
        if (tokens[i] == 0)
            state->counts.empty++;
        else
            status = mr_encode_record(state, state->rows[i].id, spec->space, values + i * width,
                                      tokens[i], spec->dim, &records[made++], err);
    }
    if (status == MR_OK)
        status = mr_encode_put(state, MR_ENTITY_ITEM, spec->space, records, made, err);
out:
    state->n_rows = 0;
    mr_arena_rewind(&state->arena, (mr_arena_mark){0});
    return status;
}

static mr_status read_item(mr_encode_state *state, const json_t *row, mr_error *err)
{
    mr_catalogue_item *item = &state->rows[state->n_rows];
    mr_status status = mr_catalogue_read_row(row, &state->arena, item, err);
    if (status == MR_OK && item->id.len > MR_STORE_MAX_ID_BYTES)
        status = MR_FAIL(err, INVALID, "'id' is %zu bytes long, expected at most %d", item->id.len,
                         MR_STORE_MAX_ID_BYTES);
    state->counts.read++;
    state->n_rows += status == MR_OK;
    return status;
}

static void show_progress(const mr_encode_state *state, mr_progress *bar, uint64_t bytes)
{
    char note[64];
    const double seconds = (double)(mr_clock_monotonic_us() - bar->started_us) / 1e6;
    snprintf(note, sizeof note, "%.0f tokens/s",
             seconds > 0 ? (double)state->counts.text_tokens / seconds : 0.0);
    mr_progress_update(bar, bytes, state->counts.text_tokens ? note : NULL);
}

mr_status mr_encode_items_pass(mr_encode_state *state, const mr_encode_pass *pass, mr_error *err)
{
    const char *path = state->opt->items;
    mr_jsonl reader = {0};
    mr_status status = mr_encode_begin_run(state, MR_ENTITY_ITEM, pass->space, path, err);
    if (status == MR_OK)
        status = mr_jsonl_open(&reader, path, MR_JSONL_MAX_LINE, err);
    mr_progress bar = mr_progress_start(pass->label, mr_encode_file_size(path), "bytes");
    while (status == MR_OK) {
        json_t *row = NULL;
        status = mr_jsonl_next(&reader, &row, err);
        if (status != MR_OK || !row)
            break;
        status = read_item(state, row, err);
        if (status == MR_OK && pass->check)
            status = pass->check(state, row, err);
        if (status != MR_OK)
            mr_error_prefix(err, status, "line %" PRIu64 " of %s", reader.line_number, reader.name);
        json_decref(row);
        if (status == MR_OK && state->n_rows == pass->batch) {
            status = pass->flush(state, pass->context, err);
            show_progress(state, &bar, reader.bytes);
        }
    }
    if (status == MR_OK)
        status = pass->flush(state, pass->context, err);
    if (status == MR_OK)
        status = mr_encode_end_run(state, err);
    mr_progress_finish(&bar, NULL);
    mr_jsonl_close(&reader);
    return status;
}

mr_status mr_encode_items(mr_encode_state *state, mr_error *err)
{
    const mr_encode_pass pass = {.label = "encoding items",
                                 .space = state->bundle->item.space,
                                 .batch = (size_t)state->opt->batch,
                                 .flush = flush_items};
    mr_status status = MR_OK;
    if (state->bundle->item.kind == MR_ENCODER_CAUSAL_LAST_N)
        status = mr_bundle_open_item_encoder(state->bundle,
                                             state->opt->exact ? MR_GEMM_SCORING : MR_GEMM_BLAS, 0,
                                             &state->encoder, err);
    return status == MR_OK ? mr_encode_items_pass(state, &pass, err) : status;
}
