/* scorer.c - fusion and scoring: prompts with slots, vectors through the projector into the slots,
 * one forward over prefix and suffixes, two rows of the head.
 *
 * A score call works in groups so that its buffers are bounded whatever the number of candidates.
 * What goes wrong with one candidate (its text, its vectors, its length) is settled while the group
 * is being built, before the model runs: the run itself then has only valid input.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/model/scorer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "ranker/model/prompts.h"

/* A suffix of one embedding and one closing token wants many candidates per pass, a long text few.
 */
#define GROUP_CANDIDATES 256
#define DEFAULT_MAX_ROWS 1024

/* What fills the slots of one kind in a group: vectors of one width, through one projector. */
typedef struct {
    float *raw;       /* [n, dim], before the projector */
    float *projected; /* [n, C] */
    size_t raw_capacity, projected_capacity;
    size_t n; /* of the group under way */
} slot_vectors;

struct mr_scorer {
    const mr_bundle *bundle;
    mr_session *session; /* NULL with a batcher */
    mr_batcher *batcher; /* borrowed, may be NULL */
    int64_t deadline_us; /* for the batcher */
    const atomic_bool *cancelled;
    bool first_group;      /* since begin */
    double *batch_margins; /* [GROUP_CANDIDATES] */
    size_t max_prefix;
    size_t max_rows; /* of a group; a longer suffix makes a group of its own */
    size_t C;

    /* The current prefix, whole, and how much of it the session holds. */
    bool begun;
    mr_prompt prefix;
    float *prefix_embeds; /* [prefix slots, C], projected */
    size_t prefix_slots, prefix_slot_capacity;
    /* What the session's timeline was built from: the previous prefix. */
    mr_ids cached_ids;
    float *cached_embeds;
    size_t cached_capacity;

    /* One group. */
    mr_prompt suffix;
    mr_ids ids; /* all suffixes, one after the other */
    slot_vectors items, images;
    bool *is_image; /* [slots] in the order of the prompts: which of the two fills it */
    float *embeds;  /* [slots, C] in that order; not used by a group without pictures */
    size_t kind_capacity, embed_capacity;
    const float *placed; /* [slots, C]: embeds, or the items' as they are */
    mr_input *inputs;    /* [GROUP_CANDIDATES] */
    size_t *owner;       /* [GROUP_CANDIDATES], candidate of each input */
    float *hidden;       /* [GROUP_CANDIDATES, C] */
    void *projector_scratch;
    size_t projector_scratch_bytes;

    mr_scorer_stats stats;
};

/* ---- buffers --------------------------------------------------------------------------------- */

static bool grow(void **buffer, size_t *capacity, size_t need, size_t element)
{
    if (need <= *capacity)
        return true;
    size_t wanted = need < 16 ? 16 : need + need / 2, bytes;
    if (!mr_size_mul(wanted, element, &bytes) || bytes == 0)
        return false;
    void *bigger = realloc(*buffer, bytes);
    if (!bigger)
        return false;
    *buffer = bigger;
    *capacity = wanted;
    return true;
}

mr_status mr_scorer_new(mr_scorer **out, const mr_bundle *bundle, const mr_scorer_options *options,
                        mr_error *err)
{
    mr_scorer_options opt = options ? *options : (mr_scorer_options){0};
    mr_scorer *s = calloc(1, sizeof *s);
    if (!s)
        return MR_FAIL(err, NO_MEMORY, "scorer");
    s->bundle = bundle;
    s->C = (size_t)bundle->llm->config.C;
    const size_t max_length = bundle->max_length;
    /* A prefix may take the whole length, and so may a document that is a suffix. What a session
     * allots and never uses is address space alone. */
    s->max_prefix = opt.max_prefix && opt.max_prefix < max_length ? opt.max_prefix : max_length;
    s->max_rows = opt.max_rows ? opt.max_rows : DEFAULT_MAX_ROWS;
    s->batcher = opt.batcher;
    mr_session_options session = {.max_prefix = s->max_prefix,
                                  .max_rows = s->max_rows > max_length ? s->max_rows : max_length,
                                  .max_suffix = max_length,
                                  .pool = bundle->pool};
    mr_status status = s->batcher ? MR_OK : mr_session_new(&s->session, bundle->llm, &session, err);
    s->batch_margins = calloc(GROUP_CANDIDATES, sizeof *s->batch_margins);
    s->inputs = calloc(GROUP_CANDIDATES, sizeof *s->inputs);
    s->owner = calloc(GROUP_CANDIDATES, sizeof *s->owner);
    s->hidden = calloc(GROUP_CANDIDATES * s->C, sizeof *s->hidden);
    if (status == MR_OK && (!s->inputs || !s->owner || !s->hidden || !s->batch_margins))
        status = MR_FAIL(err, NO_MEMORY, "scorer buffers");
    if (status != MR_OK) {
        mr_scorer_free(s);
        return status;
    }
    *out = s;
    return MR_OK;
}

void mr_scorer_free(mr_scorer *s)
{
    if (!s)
        return;
    mr_session_free(s->session);
    mr_prompt_release(&s->prefix);
    mr_prompt_release(&s->suffix);
    mr_ids_release(&s->cached_ids);
    mr_ids_release(&s->ids);
    free(s->prefix_embeds);
    free(s->cached_embeds);
    free(s->items.raw);
    free(s->items.projected);
    free(s->images.raw);
    free(s->images.projected);
    free(s->is_image);
    free(s->embeds);
    free(s->inputs);
    free(s->owner);
    free(s->hidden);
    free(s->batch_margins);
    free(s->projector_scratch);
    free(s);
}

size_t mr_scorer_bytes(const mr_scorer *s)
{
    return (s->session ? mr_session_bytes(s->session) : 0) +
           GROUP_CANDIDATES * s->C * sizeof(float) +
           (s->items.raw_capacity * s->bundle->item.dim +
            s->images.raw_capacity * s->bundle->image.dim) *
               sizeof(float) +
           (s->items.projected_capacity + s->images.projected_capacity + s->embed_capacity) * s->C *
               sizeof(float) +
           s->kind_capacity * sizeof(bool) +
           (s->prefix_slot_capacity + s->cached_capacity) * s->C * sizeof(float) +
           s->projector_scratch_bytes;
}

/* ---- vectors --------------------------------------------------------------------------------- */

static bool all_finite(const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

/* most: embedding tokens that the bundle takes. */
static mr_status check_vectors(const char *what, const mr_encoder_spec *spec, size_t most,
                               const mr_vectors *vectors, mr_error *err)
{
    if (vectors->tokens == 0)
        return MR_OK;
    if (spec->kind == MR_ENCODER_NONE)
        return MR_FAIL(err, MISMATCH, "%s vectors were given, but the bundle has no %s encoder",
                       what, what);
    if (vectors->dim != spec->dim)
        return MR_FAIL(err, MISMATCH, "%s vectors are %zu wide, the bundle's are %zu", what,
                       vectors->dim, spec->dim);
    if (vectors->tokens > most)
        return MR_FAIL(err, MISMATCH, "%s has %zu embedding tokens, the bundle takes %zu", what,
                       vectors->tokens, most);
    for (size_t i = 0; i < vectors->tokens * vectors->dim; i++)
        if (!isfinite(vectors->values[i]))
            return MR_FAIL(err, INVALID, "%s vectors: token %zu is %g in column %zu", what,
                           i / vectors->dim, (double)vectors->values[i], i % vectors->dim);
    return MR_OK;
}

static mr_status check_user(const mr_bundle *bundle, const mr_vectors *user, mr_error *err)
{
    return check_vectors("user", &bundle->user, mr_bundle_user_tokens(bundle), user, err);
}

static mr_status check_item(const mr_bundle *bundle, const mr_scorer_candidate *candidate,
                            mr_error *err)
{
    mr_status status =
        check_vectors("item", &bundle->item, (size_t)bundle->item.tokens, &candidate->item, err);
    if (status == MR_OK)
        status = check_vectors("image", &bundle->image, (size_t)bundle->image.tokens,
                               &candidate->image, err);
    return status;
}

/* Slots that a prompt has: those of the template whose condition holds. */
static size_t count_slots(const mr_prompt *prompt)
{
    size_t n = 0;
    for (size_t i = 0; i < prompt->ids.n; i++)
        n += prompt->ids.data[i] == MR_ID_EMBED;
    return n;
}

static mr_status project(mr_scorer *s, const mr_projector *projector, const float *x, size_t n,
                         float *y, mr_error *err)
{
    const int64_t started = mr_clock_monotonic_us();
    size_t bytes = mr_projector_scratch_bytes(projector, n);
    if (!grow(&s->projector_scratch, &s->projector_scratch_bytes, bytes, 1))
        return MR_FAIL(err, NO_MEMORY, "projector scratch for %zu vectors", n);
    mr_projector_run(projector, s->bundle->llm->kernels, s->bundle->pool, s->projector_scratch, x,
                     n, y);
    s->stats.project_us += mr_clock_monotonic_us() - started;
    return MR_OK;
}

/* ---- prefix ---------------------------------------------------------------------------------- */

/* Positions that the new prefix has in common with what the session holds, from the start. */
static size_t common_positions(const mr_scorer *s)
{
    size_t held = mr_session_length(s->session), slot = 0, i = 0;
    for (; i < held && i < s->prefix.ids.n; i++) {
        if (s->prefix.ids.data[i] != s->cached_ids.data[i])
            break;
        if (s->prefix.ids.data[i] == MR_ID_EMBED) {
            if (memcmp(s->prefix_embeds + slot * s->C, s->cached_embeds + slot * s->C,
                       s->C * sizeof(float)) != 0)
                break;
            slot++;
        }
    }
    return i;
}

static mr_status remember_prefix(mr_scorer *s, mr_error *err)
{
    s->cached_ids.n = 0;
    mr_status status = mr_ids_append(&s->cached_ids, s->prefix.ids.data, s->prefix.ids.n, err);
    if (status != MR_OK)
        return status;
    if (!grow((void **)&s->cached_embeds, &s->cached_capacity, s->prefix_slots,
              s->C * sizeof(float)))
        return MR_FAIL(err, NO_MEMORY, "prefix cache");
    if (s->prefix_slots)
        memcpy(s->cached_embeds, s->prefix_embeds, s->prefix_slots * s->C * sizeof(float));
    return MR_OK;
}

static mr_prompt_shape prompt_shape(const mr_bundle *bundle)
{
    return (mr_prompt_shape){bundle->prefix, bundle->suffix, bundle->max_length,
                             bundle->mixed ? (size_t)bundle->item.tokens : 0,
                             bundle->mixed ? (size_t)bundle->image.tokens : 0};
}

mr_status mr_scorer_begin(mr_scorer *s, const mr_scorer_prefix *prefix, mr_error *err)
{
    const mr_bundle *bundle = s->bundle;
    const int64_t started = mr_clock_monotonic_us();
    s->begun = false;
    s->first_group = true;
    s->stats = (mr_scorer_stats){0};
    if (s->session)
        mr_session_take_stats(s->session);

    mr_status status = check_user(bundle, &prefix->user, err);
    if (status != MR_OK)
        return status;
    const mr_prompt_shape shape = prompt_shape(bundle);
    status = mr_prompt_expand_prefix(&shape, prefix->fields, prefix->user.tokens, s->max_prefix,
                                     &s->prefix, err);
    if (status != MR_OK)
        return status;
    s->stats.expand_us += mr_clock_monotonic_us() - started;

    s->prefix_slots = count_slots(&s->prefix);
    if (!grow((void **)&s->prefix_embeds, &s->prefix_slot_capacity, s->prefix_slots,
              s->C * sizeof(float)))
        return MR_FAIL(err, NO_MEMORY, "prefix vectors");
    if (s->prefix_slots) {
        status = project(s, bundle->user_projector, prefix->user.values, s->prefix_slots,
                         s->prefix_embeds, err);
        if (status == MR_OK && !all_finite(s->prefix_embeds, s->prefix_slots * s->C))
            status = MR_FAIL(err, INVALID, "user vectors are not finite after the projector");
        if (status != MR_OK)
            return status;
    }

    s->stats.prefix_tokens = s->prefix.ids.n;
    if (s->session) {
        size_t common = common_positions(s);
        mr_session_truncate(s->session, common);
        s->stats.prefix_tokens_cached = common;
        status = remember_prefix(s, err);
        if (status != MR_OK) {
            mr_session_reset(s->session);
            return status;
        }
    }
    s->begun = true;
    return MR_OK;
}

void mr_scorer_set_limits(mr_scorer *s, int64_t deadline_us, const atomic_bool *cancelled)
{
    s->deadline_us = deadline_us;
    s->cancelled = cancelled;
}

static mr_input whole_prefix(const mr_scorer *s)
{
    return (mr_input){.ids = s->prefix.ids.data,
                      .n = s->prefix.ids.n,
                      .embeds = s->prefix_slots ? s->prefix_embeds : NULL,
                      .n_embeds = s->prefix_slots};
}

/* The prefix as the batcher's cache knows it: another request may differ where a field or the user
 * begins. */
static mr_prefix_key prefix_key(const mr_scorer *s)
{
    mr_prefix_key key = {.input = whole_prefix(s)};
    for (size_t i = 0; i < s->prefix.n_pieces && key.n_boundaries < MR_PREFIX_MAX_BOUNDARIES; i++) {
        const mr_piece *piece = &s->prefix.piece[i];
        const bool varies = piece->kind == MR_PIECE_FIELD || piece->kind == MR_PIECE_SLOT ||
                            piece->kind == MR_PIECE_JOIN;
        if (varies && piece->n && piece->begin)
            key.boundary[key.n_boundaries++] = piece->begin;
    }
    return key;
}

/* The part of the prefix that the session does not hold yet. */
static mr_input pending_prefix(const mr_scorer *s)
{
    const mr_input prefix = whole_prefix(s);
    return mr_input_from(&prefix, mr_session_length(s->session), s->C);
}

/* ---- suffixes -------------------------------------------------------------------------------- */

static mr_status expand_suffix(mr_scorer *s, mr_fields fields, size_t item_tokens,
                               size_t image_tokens, mr_error *err)
{
    const mr_prompt_shape shape = prompt_shape(s->bundle);
    return mr_prompt_expand_suffix(&shape, fields, item_tokens, image_tokens, s->prefix.ids.n,
                                   &s->suffix, err);
}

typedef struct {
    size_t n;     /* inputs */
    size_t rows;  /* positions */
    size_t slots; /* embedding tokens */
} group;

/* Appends a candidate's vectors of one kind; n_slots is how many of them the prompt takes: all, or
 * none. */
static bool slot_append(slot_vectors *to, const mr_vectors *vectors, size_t n_slots, size_t C)
{
    if (n_slots == 0)
        return true;
    const size_t dim = vectors->dim, need = to->n + n_slots;
    if (!grow((void **)&to->raw, &to->raw_capacity, need, dim * sizeof(float)) ||
        !grow((void **)&to->projected, &to->projected_capacity, need, C * sizeof(float)))
        return false;
    memcpy(to->raw + to->n * dim, vectors->values, n_slots * dim * sizeof(float));
    to->n = need;
    return true;
}

/* Notes which kind each slot of the expanded suffix is of, and counts them. */
static void note_kinds(const mr_prompt *suffix, bool *is_image, size_t *n_items, size_t *n_images)
{
    size_t slot = 0;
    *n_items = *n_images = 0;
    for (size_t i = 0; i < suffix->n_pieces; i++) {
        const mr_piece *piece = &suffix->piece[i];
        if (piece->kind != MR_PIECE_SLOT)
            continue;
        const bool image = piece->slot == MR_SLOT_IMAGE;
        *(image ? n_images : n_items) += piece->n;
        for (size_t t = 0; t < piece->n; t++)
            is_image[slot++] = image;
    }
}

/* Adds one candidate, whose suffix is expanded, to the group. */
static mr_status group_add(mr_scorer *s, group *g, size_t index,
                           const mr_scorer_candidate *candidate, mr_error *err)
{
    const size_t slots = count_slots(&s->suffix);
    size_t n_items, n_images;
    mr_status status = mr_ids_append(&s->ids, s->suffix.ids.data, s->suffix.ids.n, err);
    if (status != MR_OK)
        return status;
    if (!grow((void **)&s->is_image, &s->kind_capacity, g->slots + slots, sizeof(bool)))
        return MR_FAIL(err, NO_MEMORY, "slots of a group");
    note_kinds(&s->suffix, s->is_image + g->slots, &n_items, &n_images);
    if (!slot_append(&s->items, &candidate->item, n_items, s->C) ||
        !slot_append(&s->images, &candidate->image, n_images, s->C))
        return MR_FAIL(err, NO_MEMORY, "vectors of a group");
    s->inputs[g->n] = (mr_input){.n = s->suffix.ids.n, .n_embeds = slots};
    s->owner[g->n] = index;
    g->n++;
    g->rows += s->suffix.ids.n;
    g->slots += slots;
    return MR_OK;
}

static void note_failure(mr_error *first_error, const mr_error *why)
{
    if (first_error && first_error->status == MR_OK)
        *first_error = *why;
}

/* Points the inputs into the buffers, which no longer move, and takes out the candidates whose
 * vectors the projector made infinite: the session would refuse the whole group for one. */
static void group_place(mr_scorer *s, group *g, mr_status *status, mr_error *first_error)
{
    size_t position = 0, slot = 0, kept = 0;
    g->rows = 0;
    for (size_t i = 0; i < g->n; i++) {
        mr_input input = s->inputs[i];
        input.ids = s->ids.data + position;
        input.embeds = input.n_embeds ? s->placed + slot * s->C : NULL;
        position += input.n;
        slot += input.n_embeds;
        if (!all_finite(input.embeds, input.n_embeds * s->C)) {
            mr_error why = {0};
            status[s->owner[i]] =
                MR_FAIL(&why, INVALID, "%s vectors are not finite after the projector",
                        s->images.n ? "item or picture" : "item");
            note_failure(first_error, &why);
            continue;
        }
        s->owner[kept] = s->owner[i];
        s->inputs[kept++] = input;
        g->rows += input.n;
    }
    g->n = kept;
}

/* Vectors of both kinds through their projectors and into the order of the slots. */
static mr_status group_project(mr_scorer *s, const group *g, mr_error *err)
{
    const mr_bundle *bundle = s->bundle;
    const size_t row = s->C * sizeof(float);
    mr_status status = MR_OK;
    if (s->items.n)
        status =
            project(s, bundle->item_projector, s->items.raw, s->items.n, s->items.projected, err);
    s->placed = s->items.projected;
    if (status != MR_OK || s->images.n == 0)
        return status;
    status =
        project(s, bundle->image_projector, s->images.raw, s->images.n, s->images.projected, err);
    if (status != MR_OK)
        return status;
    if (!grow((void **)&s->embeds, &s->embed_capacity, g->slots, row))
        return MR_FAIL(err, NO_MEMORY, "vectors of a group");
    size_t item = 0, image = 0;
    for (size_t i = 0; i < g->slots; i++)
        memcpy(s->embeds + i * s->C,
               s->is_image[i] ? s->images.projected + image++ * s->C
                              : s->items.projected + item++ * s->C,
               row);
    s->placed = s->embeds;
    return MR_OK;
}

/* Margins of a placed group from the batcher. A deadline costs the candidates that it overtook. */
static mr_status group_batch(mr_scorer *s, const group *g, double *margins, mr_status *statuses,
                             mr_error *first_error, mr_error *err)
{
    mr_batch_job job = {.prefix = prefix_key(s),
                        .suffixes = s->inputs,
                        .n = g->n,
                        .deadline_us = s->deadline_us,
                        .cancelled = s->cancelled,
                        .margins = s->batch_margins};
    mr_error why = {0};
    const int64_t started = mr_clock_monotonic_us();
    mr_status status = mr_batcher_run(s->batcher, &job, &why);
    s->stats.forward_us += mr_clock_monotonic_us() - started;
    s->stats.waited_us += job.waited_us;
    if (s->first_group)
        s->stats.prefix_tokens_cached = job.prefix_cached;
    s->first_group = false;
    for (size_t i = 0; i < job.n_done; i++) {
        margins[s->owner[i]] = s->batch_margins[i];
        s->stats.suffix_tokens += s->inputs[i].n;
    }
    s->stats.candidates += job.n_done;
    if (status == MR_TIMEOUT) {
        for (size_t i = job.n_done; i < g->n; i++)
            statuses[s->owner[i]] = MR_TIMEOUT;
        note_failure(first_error, &why);
        return MR_OK;
    }
    if (status != MR_OK && err)
        *err = why;
    return status;
}

static mr_status group_run(mr_scorer *s, group *g, double *margins, mr_status *statuses,
                           mr_error *first_error, mr_error *err)
{
    mr_status status = group_project(s, g, err);
    if (status != MR_OK)
        return status;
    group_place(s, g, statuses, first_error);
    if (g->n == 0)
        return MR_OK;
    if (s->batcher)
        return group_batch(s, g, margins, statuses, first_error, err);
    const mr_input prefix = pending_prefix(s);
    const mr_batch batch = {.prefix = prefix.n ? &prefix : NULL,
                            .prefix_want = MR_WANT_NONE,
                            .suffixes = s->inputs,
                            .n_suffixes = g->n,
                            .suffix_want = MR_WANT_LAST,
                            .n_last = 1};
    int64_t started = mr_clock_monotonic_us();
    status = mr_session_run(s->session, &batch, s->hidden, err);
    s->stats.forward_us += mr_clock_monotonic_us() - started;
    if (status != MR_OK)
        return status;

    started = mr_clock_monotonic_us();
    for (size_t i = 0; i < g->n; i++)
        margins[s->owner[i]] = mr_bundle_margin(s->bundle, s->hidden + i * s->C);
    s->stats.head_us += mr_clock_monotonic_us() - started;
    s->stats.suffix_tokens += g->rows;
    s->stats.candidates += g->n;
    return MR_OK;
}

/* Takes candidates from `next` on until the group is full; returns the first that is not in it. */
static mr_status group_fill(mr_scorer *s, group *g, const mr_scorer_candidate *candidates, size_t n,
                            size_t *next, double *margins, mr_status *status, mr_error *first_error,
                            mr_error *err)
{
    const int64_t started = mr_clock_monotonic_us();
    mr_status added = MR_OK;
    s->ids.n = 0;
    s->items.n = s->images.n = 0;
    for (; *next < n && g->n < GROUP_CANDIDATES && added == MR_OK; ++*next) {
        const mr_scorer_candidate *candidate = &candidates[*next];
        mr_error why = {0};
        margins[*next] = (double)NAN;
        status[*next] = check_item(s->bundle, candidate, &why);
        if (status[*next] == MR_OK)
            status[*next] = expand_suffix(s, candidate->fields, candidate->item.tokens,
                                          candidate->image.tokens, &why);
        if (status[*next] != MR_OK) {
            note_failure(first_error, &why);
            continue;
        }
        if (g->n && g->rows + s->suffix.ids.n > s->max_rows)
            break;
        added = group_add(s, g, *next, candidate, err);
    }
    s->stats.expand_us += mr_clock_monotonic_us() - started;
    return added;
}

mr_status mr_scorer_score(mr_scorer *s, const mr_scorer_candidate *candidates, size_t n,
                          double *margins, mr_status *status, mr_error *first_error, mr_error *err)
{
    if (!s->begun)
        return MR_FAIL(err, INVALID, "mr_scorer_score before a successful mr_scorer_begin");
    for (size_t next = 0; next < n;) {
        group g = {0};
        mr_status ran = group_fill(s, &g, candidates, n, &next, margins, status, first_error, err);
        if (ran == MR_OK && g.n)
            ran = group_run(s, &g, margins, status, first_error, err);
        if (ran != MR_OK)
            return ran;
    }
    return MR_OK;
}

/* ---- explain --------------------------------------------------------------------------------- */

const mr_prompt *mr_scorer_prefix_prompt(const mr_scorer *s)
{
    return &s->prefix;
}

mr_status mr_scorer_suffix_prompt(mr_scorer *s, mr_fields fields, size_t item_tokens,
                                  size_t image_tokens, const mr_prompt **out, mr_error *err)
{
    mr_status status = expand_suffix(s, fields, item_tokens, image_tokens, err);
    if (status == MR_OK)
        *out = &s->suffix;
    return status;
}

mr_scorer_stats mr_scorer_take_stats(mr_scorer *s)
{
    mr_scorer_stats stats = s->stats;
    if (s->session)
        stats.session = mr_session_take_stats(s->session);
    return stats;
}
