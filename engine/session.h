/* session.h - one mutable timeline over a model: a prefix in the KV cache, and ragged suffixes that
 * share it.
 *
 *     mr_session *session = NULL;
 *     mr_session_options opt = {.max_prefix = 512, .max_rows = 1024, .pool = pool};
 *     mr_session_new(&session, model, &opt, &err);
 *     mr_session_reset(session);
 *     mr_batch batch = {.prefix = &prompt, .suffixes = suffixes, .n_suffixes = n};
 *     mr_session_run(session, &batch, hidden, &err);       [rows wanted, C], after the final norm
 *
 * What a run computes. The batch's prefix input is appended to the timeline at positions
 * [length, length + n); then each suffix is evaluated as if it alone followed the timeline: its
 * tokens attend to the whole timeline and causally to their own suffix, and their positions restart
 * at the timeline's length. Prefix and suffixes go through each layer together; the prefix's K and
 * V stay, a suffix's K and V are scratch of that layer and are gone afterwards. In the last layer,
 * rows whose output nobody wants compute K and V only.
 *
 * A run may take several batches, each with a timeline of its own (timeline.h): prefixes and
 * suffixes of several requests then go through each layer together, and each sees its own timeline
 * alone.
 *
 * Same bits: a wanted row's output depends on the model, the timeline and its own suffix alone; not
 * on the other suffixes or batches, the slot, the number of threads, how the prefix was cut into
 * runs, or whether it was there before. Holds for MR_GEMM_SCORING models; MR_GEMM_BLAS gives it up
 * for speed.
 *
 * Memory is allocated at creation; a run allocates nothing (core/guard.h proves it in tests).
 * Cost of memory: mr_session_bytes.
 * Threads: a session is used by one thread at a time; it spreads work over its pool.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_SESSION_H
#define MR_ENGINE_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/threads.h"
#include "engine/model.h"
#include "engine/timeline.h"

/* Marks a position that takes its vector from `embeds` instead of the vocabulary. Outside every
 * vocabulary, so no text can spell it. */
#define MR_ID_EMBED ((int32_t)-1)

/* Ids and embeddings, mixed. The count of MR_ID_EMBED in ids must equal n_embeds, as
 * torch.Tensor.masked_scatter demands; vectors are taken in order. All borrowed. */
typedef struct {
    const int32_t *ids;
    size_t n;
    const float *embeds; /* [n_embeds, C] f32 */
    size_t n_embeds;
} mr_input;

/* Which rows of an input come out. */
typedef enum {
    MR_WANT_NONE,
    MR_WANT_LAST, /* the last n_last rows, fewer when the input is shorter */
    MR_WANT_ALL,
} mr_want;

typedef struct {
    mr_timeline *timeline;  /* borrowed; NULL: the session's own */
    const mr_input *prefix; /* appended to the timeline; NULL: nothing to append */
    mr_want prefix_want;
    const mr_input *suffixes; /* [n_suffixes]; each at least one position */
    size_t n_suffixes;
    mr_want suffix_want;
    size_t n_last; /* for MR_WANT_LAST; at least 1 */
} mr_batch;

typedef struct mr_session mr_session;

typedef struct {
    size_t max_prefix;       /* positions that a timeline can hold before a suffix */
    size_t max_rows;         /* positions computed in one pass; larger runs are cut into passes */
    size_t max_suffix;       /* longest single suffix; at most max_rows. 0: max_rows */
    mr_pool *pool;           /* borrowed; NULL: one thread */
    bool borrowed_timelines; /* every batch brings its own: the session has none */
} mr_session_options;

MR_NODISCARD mr_status mr_session_new(mr_session **out, const mr_model *model,
                                      const mr_session_options *opt, mr_error *err);
void mr_session_free(mr_session *session); /* NULL is fine */
size_t mr_session_bytes(const mr_session *session);

/* The session's own timeline. */
void mr_session_reset(mr_session *session);          /* length becomes 0 */
size_t mr_session_length(const mr_session *session); /* positions */
void mr_session_truncate(mr_session *session, size_t length);

/* Rows come out in order: wanted prefix rows, then wanted rows of each suffix. hidden: [rows, C]
 * after the final norm; mr_batch_rows counts them. INVALID (ids outside the vocabulary, counts that
 * do not match, a non-finite embedding) or EXHAUSTED (timeline, suffix or position limit) leave the
 * timeline as it was. */
MR_NODISCARD mr_status mr_session_run(mr_session *session, const mr_batch *batch, float *hidden,
                                      mr_error *err);
/* Rows of all batches, in their order. Two batches may read one timeline; one that is appended to
 * is one batch's alone (INVALID). A failure leaves every timeline as it was. */
MR_NODISCARD mr_status mr_session_run_many(mr_session *session, const mr_batch *batches, size_t n,
                                           float *hidden, mr_error *err);
size_t mr_batch_rows(const mr_batch *batch);

/* The part of an input from a position on, borrowed from it; C is the model's width. n is 0 from
 * the end on. */
mr_input mr_input_from(const mr_input *input, size_t position, size_t C);

/* The first rows of a model's forward, for checks: out[n][C] = embeddings after the scatter. */
MR_NODISCARD mr_status mr_input_embeds(const mr_model *model, const mr_input *input, float *out,
                                       mr_error *err);

/* Called after the embedding (layer 0) and after each block, as transformers' hidden_states counts
 * them (the last one is reported before the final norm; mr_session_run's output is after it). While
 * a tap is set nothing is pruned. For `forward` and tests; NULL removes it. rows: those of the
 * pass.
 */
typedef void (*mr_tap)(void *context, int layer, const float *rows, size_t n_rows);
void mr_session_set_tap(mr_session *session, mr_tap tap, void *context);

/* Work done since creation or the last clear: what pruning and sharing saved. */
typedef struct {
    uint64_t rows;        /* positions computed */
    uint64_t pruned_rows; /* rows whose last layer stopped at K and V */
    uint64_t flops;       /* 2 per multiply-add in linears and attention */
    int64_t gemm_us, attention_us, other_us;
} mr_session_stats;
mr_session_stats mr_session_take_stats(mr_session *session);

#endif
