/* session.c - a session's memory, and a run cut into passes.
 *
 * A run first checks everything that can fail, then computes; so an error leaves the timeline as it
 * was, and the part that computes can neither fail nor allocate. Passes are filled in order: pieces
 * of the prefix, then whole suffixes, the first of them beside the prefix's last piece.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/session.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/guard.h"
#include "core/layout.h"
#include "engine/session_input.h"
#include "engine/session_private.h"

/* ---- Memory ---------------------------------------------------------------------------------- */

static void lay_out(mr_session *s, mr_layout *l)
{
    const mr_model_config *config = &s->model->config;
    const size_t C = (size_t)config->C, F = (size_t)config->F, D = (size_t)config->D;
    const size_t HD = (size_t)config->H * D, KD = (size_t)config->K * D, R = s->max_rows;
    const size_t threads = (size_t)mr_pool_threads(s->pool);

    s->cos = mr_layout_part(l, s->n_positions, D / 2, sizeof(float));
    s->sin = mr_layout_part(l, s->n_positions, D / 2, sizeof(float));
    s->rows = mr_layout_part(l, R, 1, sizeof *s->rows);
    s->x = mr_layout_part(l, R, C, sizeof(float));
    s->h = mr_layout_part(l, R, C, sizeof(float));

    /* Attention and feed-forward never hold their buffers at the same time; nor are k and v read
     * after q is written. */
    mr_layout attention = *l, mlp = *l, fresh = *l;
    s->q = mr_layout_part(&attention, R, HD, sizeof(float));
    s->heads = mr_layout_part(&attention, R, HD, sizeof(float));
    s->own_k = mr_layout_part(&attention, R, KD, sizeof(float));
    s->own_v = mr_layout_part(&attention, R, KD, sizeof(float));
    s->k = mr_layout_part(&fresh, R, KD, sizeof(float)); /* at most as wide as q and heads */
    s->v = mr_layout_part(&fresh, R, KD, sizeof(float));
    s->gate = mr_layout_part(&mlp, R, F, sizeof(float));
    s->up = mr_layout_part(&mlp, R, F, sizeof(float));
    l->used = mr_size_max(attention.used, mlp.used);
    l->overflow |= attention.overflow || mlp.overflow || fresh.overflow;

    s->gemm_scratch =
        mr_layout_part(l, 1,
                       mr_gemm_scratch_bytes(s->model->gemm, R, mr_size_max(mr_size_max(HD, F), C),
                                             mr_size_max(mr_size_max(HD, F), C), (int)threads),
                       1);
    s->attention_floats = mr_size_round_up(mr_attention_floats(config, s->n_positions),
                                           MR_LAYOUT_ALIGN / sizeof(float));
    s->attention_scratch = mr_layout_part(l, threads, s->attention_floats, sizeof(float));
}

static void fill_rotations(mr_session *s)
{
    const size_t half = (size_t)s->model->config.D / 2;
    for (size_t p = 0; p < s->n_positions; p++) {
        for (size_t i = 0; i < half; i++) {
            const double angle = (double)p * s->model->rope_inverse[i];
            s->cos[p * half + i] = (float)cos(angle);
            s->sin[p * half + i] = (float)sin(angle);
        }
    }
}

mr_status mr_session_new(mr_session **out, const mr_model *model, const mr_session_options *opt,
                         mr_error *err)
{
    const size_t positions = (size_t)model->config.max_positions;
    if (opt->max_rows == 0)
        return MR_FAIL(err, INVALID, "a session with max_rows 0; it must be at least 1");
    if (opt->max_suffix > opt->max_rows)
        return MR_FAIL(err, INVALID,
                       "max_suffix %zu is over max_rows %zu; a suffix is computed in one pass",
                       opt->max_suffix, opt->max_rows);
    if (opt->max_prefix > positions || opt->max_suffix > positions)
        return MR_FAIL(err, EXHAUSTED,
                       "a session of %zu prefix and %zu suffix positions; the model has "
                       "max_position_embeddings %zu",
                       opt->max_prefix, opt->max_suffix, positions);

    mr_session *s = calloc(1, sizeof *s);
    if (!s)
        return MR_FAIL(err, NO_MEMORY, "a session");
    s->model = model;
    s->pool = opt->pool;
    s->max_prefix = opt->max_prefix;
    s->max_rows = opt->max_rows;
    s->max_suffix = opt->max_suffix ? opt->max_suffix : opt->max_rows;
    if (s->max_suffix > positions)
        s->max_suffix = positions;
    s->n_positions = s->max_prefix + s->max_suffix;
    if (s->n_positions > positions)
        s->n_positions = positions;

    mr_layout plan = {0}, real;
    lay_out(s, &plan);
    s->memory = mr_layout_allocate(&plan, &real, &s->bytes);
    if (!s->memory) {
        mr_session_free(s);
        return MR_FAIL(err, NO_MEMORY,
                       "a session of %zu prefix positions and %zu rows (%zu bytes); ask for less",
                       opt->max_prefix, opt->max_rows, plan.overflow ? SIZE_MAX : plan.used);
    }
    lay_out(s, &real);
    fill_rotations(s);
    if (!opt->borrowed_timelines) {
        mr_status status = mr_timeline_new(&s->timeline, model, s->max_prefix, err);
        if (status != MR_OK) {
            mr_session_free(s);
            return status;
        }
    }
    *out = s;
    return MR_OK;
}

void mr_session_free(mr_session *session)
{
    if (!session)
        return;
    mr_timeline_free(session->timeline);
    free(session->memory);
    free(session);
}

size_t mr_session_bytes(const mr_session *session)
{
    return session->bytes + sizeof *session +
           (session->timeline ? mr_timeline_bytes(session->timeline) : 0);
}

void mr_session_reset(mr_session *session)
{
    mr_session_truncate(session, 0);
}

size_t mr_session_length(const mr_session *session)
{
    return session->timeline ? session->timeline->length : 0;
}

void mr_session_truncate(mr_session *session, size_t length)
{
    if (session->timeline)
        mr_timeline_truncate(session->timeline, length);
}

void mr_session_set_tap(mr_session *session, mr_tap tap, void *context)
{
    session->tap = tap;
    session->tap_context = context;
}

mr_session_stats mr_session_take_stats(mr_session *session)
{
    const mr_session_stats stats = session->stats;
    session->stats = (mr_session_stats){0};
    return stats;
}

/* ---- Checks ---------------------------------------------------------------------------------- */

static size_t wanted_rows(const mr_input *input, mr_want want, size_t n_last)
{
    switch (want) {
    case MR_WANT_ALL: return input->n;
    case MR_WANT_LAST: return input->n < n_last ? input->n : n_last;
    case MR_WANT_NONE: break;
    }
    return 0;
}

size_t mr_batch_rows(const mr_batch *batch)
{
    size_t rows = batch->prefix ? wanted_rows(batch->prefix, batch->prefix_want, batch->n_last) : 0;
    for (size_t i = 0; i < batch->n_suffixes; i++)
        rows += wanted_rows(&batch->suffixes[i], batch->suffix_want, batch->n_last);
    return rows;
}

static mr_timeline *timeline_of(const mr_session *s, const mr_batch *batch)
{
    return batch->timeline ? batch->timeline : s->timeline;
}

static mr_status check_batch(const mr_session *s, const mr_batch *batch, const float *hidden,
                             mr_error *err)
{
    const mr_timeline *timeline = timeline_of(s, batch);
    const size_t positions = (size_t)s->model->config.max_positions;
    const size_t n_prefix = batch->prefix ? batch->prefix->n : 0;
    size_t longest = 0;

    if (batch->n_last == 0 &&
        (batch->prefix_want == MR_WANT_LAST || batch->suffix_want == MR_WANT_LAST))
        return MR_FAIL(err, INVALID, "the last 0 rows are wanted; n_last must be at least 1");
    if (batch->n_suffixes > 0 && !batch->suffixes)
        return MR_FAIL(err, INVALID, "%zu suffixes, but no list of them", batch->n_suffixes);
    if (!hidden && mr_batch_rows(batch) > 0)
        return MR_FAIL(err, INVALID, "%zu rows are wanted, but there is nowhere to put them",
                       mr_batch_rows(batch));
    if (!timeline)
        return MR_FAIL(err, INVALID,
                       "a batch without a timeline, in a session that was made to borrow them");
    if (timeline->model != s->model)
        return MR_FAIL(err, INVALID, "a batch's timeline is of another model than the session");
    if (n_prefix > timeline->capacity - timeline->length)
        return MR_FAIL(err, EXHAUSTED,
                       "a prefix of %zu positions after %zu; the timeline holds %zu (max_prefix)",
                       n_prefix, timeline->length, timeline->capacity);

    if (batch->prefix) {
        mr_status status = mr_input_check(s->model, batch->prefix, "prefix", err);
        if (status != MR_OK)
            return status;
    }
    for (size_t i = 0; i < batch->n_suffixes; i++) {
        const size_t n = batch->suffixes[i].n;
        char name[48];
        snprintf(name, sizeof name, "suffix %zu", i);
        if (n == 0)
            return MR_FAIL(err, INVALID, "%s is empty; it needs at least one position", name);
        if (n > s->max_suffix)
            return MR_FAIL(err, EXHAUSTED, "%s has %zu positions; the session takes max_suffix %zu",
                           name, n, s->max_suffix);
        mr_status status = mr_input_check(s->model, &batch->suffixes[i], name, err);
        if (status != MR_OK)
            return status;
        longest = mr_size_max(longest, n);
    }
    if (timeline->length + n_prefix + longest > s->n_positions)
        return MR_FAIL(err, EXHAUSTED,
                       "%zu positions before a suffix of %zu; the session computes %zu, and the "
                       "model has max_position_embeddings %zu",
                       timeline->length + n_prefix, longest, s->n_positions, positions);
    return MR_OK;
}

/* One that is appended to belongs to one batch of a run: what others read would depend on order. */
static mr_status check_apart(const mr_session *s, const mr_batch *batches, size_t n, mr_error *err)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; batches[i].prefix && j < n; j++) {
            if (i != j && timeline_of(s, &batches[i]) == timeline_of(s, &batches[j]))
                return MR_FAIL(err, INVALID,
                               "batches %zu and %zu of a run share a timeline, and batch %zu "
                               "appends to it; put their suffixes into one batch",
                               i, j, i);
        }
    }
    return MR_OK;
}

/* ---- Passes ---------------------------------------------------------------------------------- */

static void flush(mr_session *s)
{
    if (s->n_rows > 0)
        mr_forward_pass(s);
    s->n_rows = 0;
}

/* Adds positions [begin, end) of an input to the pass, of which those from `wanted` on come out.
 * first: the timeline position of its position 0. */
static void add_rows(mr_session *s, mr_timeline *timeline, const mr_input *input, size_t begin,
                     size_t end, size_t first, bool is_suffix, size_t wanted, size_t *embed)
{
    mr_input_rows(s->model, input, begin, end, embed,
                  s->x + s->n_rows * (size_t)s->model->config.C);
    const size_t own_first = s->n_rows;
    for (size_t i = begin; i < end; i++) {
        mr_row *row = &s->rows[s->n_rows++];
        *row = (mr_row){.timeline = timeline,
                        .position = first + i,
                        .cached = first + i + 1,
                        .wanted = i >= wanted};
        if (is_suffix) {
            row->cached = first;
            row->own = i + 1;
            row->own_first = own_first;
        }
    }
}

static void run_prefix(mr_session *s, const mr_batch *batch)
{
    const mr_input *prefix = batch->prefix;
    const size_t wanted = prefix->n - wanted_rows(prefix, batch->prefix_want, batch->n_last);
    mr_timeline *timeline = timeline_of(s, batch);
    size_t embed = 0;
    for (size_t begin = 0, end; begin < prefix->n; begin = end) {
        if (s->n_rows == s->max_rows)
            flush(s);
        const size_t room = s->max_rows - s->n_rows;
        end = prefix->n - begin < room ? prefix->n : begin + room;
        add_rows(s, timeline, prefix, begin, end, timeline->length, false, wanted, &embed);
    }
}

static void run_suffix(mr_session *s, const mr_batch *batch, const mr_input *suffix, size_t first)
{
    size_t embed = 0;
    if (suffix->n > s->max_rows - s->n_rows)
        flush(s);
    add_rows(s, timeline_of(s, batch), suffix, 0, suffix->n, first, true,
             suffix->n - wanted_rows(suffix, batch->suffix_want, batch->n_last), &embed);
}

mr_status mr_session_run(mr_session *session, const mr_batch *batch, float *hidden, mr_error *err)
{
    return mr_session_run_many(session, batch, 1, hidden, err);
}

mr_status mr_session_run_many(mr_session *session, const mr_batch *batches, size_t n, float *hidden,
                              mr_error *err)
{
    for (size_t i = 0; i < n; i++) {
        mr_status status = check_batch(session, &batches[i], hidden, err);
        if (status != MR_OK)
            return n > 1 ? mr_error_prefix(err, status, "batch %zu: ", i) : status;
    }
    mr_status status = check_apart(session, batches, n, err);
    if (status != MR_OK)
        return status;

    mr_guard_begin("forward");
    session->out = hidden;
    for (size_t b = 0; b < n; b++) {
        const mr_batch *batch = &batches[b];
        const size_t length =
            timeline_of(session, batch)->length + (batch->prefix ? batch->prefix->n : 0);
        if (batch->prefix)
            run_prefix(session, batch);
        for (size_t i = 0; i < batch->n_suffixes; i++)
            run_suffix(session, batch, &batch->suffixes[i], length);
    }
    flush(session);
    for (size_t b = 0; b < n; b++)
        timeline_of(session, &batches[b])->length += batches[b].prefix ? batches[b].prefix->n : 0;
    mr_guard_end();
    return MR_OK;
}
