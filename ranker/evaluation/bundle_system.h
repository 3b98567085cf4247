/* bundle_system.h - a bundle asked the rows of a task, the way serving would ask it.
 *
 * prepare encodes what the rows need, once, into a store in memory (or takes a store that was
 * filled by `mixrank encode`); rank then goes through ranker/pipeline: the query's text, the row's
 * history as the request's history, the candidates by id with their texts. A user's stored vectors
 * are never looked at: they may know the answer. A bundle in text mode reads each candidate's
 * fields; if its prompt has a field "history", it is given the titles and first words of items of
 * the row's history (history_text below).
 *
 * dot is late fusion by the same item encoder, as a bi-encoder: cosine of the query's vector and
 * the item's, plus a weight times the mean of the item's cosines with the nearest items of the
 * history. A vector is the mean of the embedding tokens, as contrastive training makes it; the
 * query goes through the item's template, as the field text.
 *
 * Threads: one at a time.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_EVALUATION_BUNDLE_SYSTEM_H
#define MR_RANKER_EVALUATION_BUNDLE_SYSTEM_H

#include "core/error.h"
#include "ranker/model/bundle.h"
#include "ranker/model/tasks.h"

typedef struct mr_bundle_system mr_bundle_system;

/* store: a URL, or NULL to encode in memory. */
MR_NODISCARD mr_status mr_bundle_system_open(mr_bundle_system **out, const char *folder,
                                             const char *store, int threads, mr_error *err);
void mr_bundle_system_close(mr_bundle_system *system); /* NULL is fine */
const mr_bundle *mr_bundle_system_bundle(const mr_bundle_system *system);

typedef void (*mr_encode_progress)(void *context, uint64_t done, uint64_t total);

/* needed: one flag per item, of candidates and histories. tasks is borrowed until the next prepare
 * or close; what was encoded for another mr_tasks is dropped. with_means: dot will be asked for.
 * MISMATCH: the bundle's vectors come from outside and no store was given. */
MR_NODISCARD mr_status mr_bundle_system_prepare(mr_bundle_system *system, const mr_tasks *tasks,
                                                const uint8_t *needed, bool with_means,
                                                mr_encode_progress progress, void *context,
                                                mr_error *err);

typedef struct {
    bool no_user, no_query;
    size_t history_items; /* of history_text; 0: 50 */
} mr_bundle_variant;

typedef struct {
    uint64_t candidates, unscored;
    uint64_t prefix_tokens, suffix_tokens; /* computed; a prefix once per row */
    int64_t time_us;                       /* of ranking, without encoding */
} mr_system_work;

/* scores[row->n_candidates], NaN for one that could not be scored; work is added to. A row that
 * leaves nothing to rank by (no query, no history) has all 0. */
MR_NODISCARD mr_status mr_bundle_system_rank(mr_bundle_system *system, const mr_task_row *row,
                                             const mr_bundle_variant *variant, double *scores,
                                             mr_system_work *work, mr_error *err);

typedef struct {
    double history;  /* weight of the history's part; 0: the query alone */
    size_t nearest;  /* items of the history, at most 64; 0: 3 */
    bool last_token; /* the query's vector is the state of its last token, not the mean */
} mr_dot_options;

MR_NODISCARD mr_status mr_bundle_system_dot(mr_bundle_system *system, const mr_task_row *row,
                                            const mr_bundle_variant *variant,
                                            const mr_dot_options *options, double *scores,
                                            mr_system_work *work, mr_error *err);

/* Mean bytes that stand for one item: its record, or its text for a bundle in text mode. */
double mr_bundle_system_item_bytes(const mr_bundle_system *system);
/* The same for dot, which needs one vector. */
double mr_bundle_system_dot_bytes(const mr_bundle_system *system);

#endif
