/* scorer.h - margins of candidates for one prefix: expand, project, scatter, run, read two logits.
 *
 *     mr_scorer *scorer = NULL;
 *     mr_scorer_new(&scorer, bundle, NULL, &err);
 *     mr_scorer_begin(scorer, &prefix, &err);               one query and user
 *     mr_scorer_score(scorer, candidates, n, margins, status, &err);   as often as wanted
 *
 * begin keeps the expanded prefix; the first score call computes it together with the suffixes,
 * later ones find it warm. When the next begin has the same first tokens (an instruction, a whole
 * query), the part that is equal stays in the cache.
 *
 * The margin is logit(yes) - logit(no) at the last token of the suffix. It depends on bundle,
 * prefix and candidate alone (session.h, Same bits).
 * Threads: one scorer, one thread; the bundle's pool does the work.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_MODEL_SCORER_H
#define MR_RANKER_MODEL_SCORER_H

#include "engine/session.h"
#include "ranker/model/batcher.h"
#include "ranker/model/parts.h"

typedef struct mr_scorer mr_scorer;

typedef struct {
    size_t max_prefix; /* tokens; 0: the bundle's max_length */
    size_t max_rows;   /* tokens of the candidates of one pass; 0: 1024. A longer one goes alone */
    /* Passes are run by this batcher of the same bundle, with those of other scorers, and prefixes
     * kept by it: the scorer has no session of its own. Borrowed for its life; NULL: alone. */
    mr_batcher *batcher;
} mr_scorer_options;

MR_NODISCARD mr_status mr_scorer_new(mr_scorer **out, const mr_bundle *bundle,
                                     const mr_scorer_options *options, mr_error *err);
void mr_scorer_free(mr_scorer *scorer); /* NULL is fine */
size_t mr_scorer_bytes(const mr_scorer *scorer);

/* Vectors in an encoder's space: [tokens][dim], before the projector. Borrowed for the call. */
typedef struct {
    const float *values;
    size_t tokens;
    size_t dim;
} mr_vectors;

typedef struct {
    mr_fields fields; /* query, instruction, ... */
    mr_vectors user;  /* tokens 0: anonymous */
} mr_scorer_prefix;

/* INVALID or EXHAUSTED (query longer than the bundle's max_length allows) name the cause; the
 * scorer stays usable. */
MR_NODISCARD mr_status mr_scorer_begin(mr_scorer *scorer, const mr_scorer_prefix *prefix,
                                       mr_error *err);

/* For scorers with a batcher: what is not computed by then, or once it is cancelled, is left.
 * deadline_us on the monotonic clock, 0: none; cancelled is borrowed, may be NULL. */
void mr_scorer_set_limits(mr_scorer *scorer, int64_t deadline_us, const atomic_bool *cancelled);

typedef struct {
    mr_fields fields; /* title, text, document, ... */
    mr_vectors item;  /* tokens 0: none */
    mr_vectors image; /* of its picture; tokens 0: none */
} mr_scorer_candidate;

/* margins[i] for each candidate; status[i] is MR_OK, or why that one has none (its margin is then
 * NaN and first_error, when not NULL and still OK, keeps the first message): TIMEOUT for those that
 * the deadline overtook. The call itself fails only when nothing can be scored (no begin, out of
 * memory, a batcher that is full: EXHAUSTED) or when it was cancelled. */
MR_NODISCARD mr_status mr_scorer_score(mr_scorer *scorer, const mr_scorer_candidate *candidates,
                                       size_t n, double *margins, mr_status *status,
                                       mr_error *first_error, mr_error *err);

/* The prefix as expanded, and the suffix of a candidate with these fields and so many embedding
 * tokens of item and picture as it would be: for explain. Borrowed until the next call on the
 * scorer. */
const mr_prompt *mr_scorer_prefix_prompt(const mr_scorer *scorer);
MR_NODISCARD mr_status mr_scorer_suffix_prompt(mr_scorer *scorer, mr_fields fields,
                                               size_t item_tokens, size_t image_tokens,
                                               const mr_prompt **out, mr_error *err);

typedef struct {
    uint64_t prefix_tokens;        /* of the current prefix */
    uint64_t prefix_tokens_cached; /* of these, found in the cache */
    uint64_t suffix_tokens;        /* since begin */
    uint64_t candidates;           /* since begin */
    int64_t expand_us, project_us, forward_us, head_us;
    int64_t waited_us; /* of forward_us: in a batcher's queue before the first pass */
    mr_session_stats session;
} mr_scorer_stats;
/* The session's counters are since the last take. */
mr_scorer_stats mr_scorer_take_stats(mr_scorer *scorer);

#endif
