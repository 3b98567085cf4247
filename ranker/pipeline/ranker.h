/* ranker.h - PUBLIC. One ranking from request to reply: fetch, score, fall back, order. No sockets.
 *
 *     mr_ranker *ranker = NULL;
 *     mr_ranker_new(&ranker, bundle, store, NULL, &err);
 *     mr_rank_request request = MR_RANK_REQUEST_DEFAULT;
 *     request.query = mr_str_of("text editor");
 *     request.candidates = candidates;
 *     request.n_candidates = n;
 *     mr_rank_reply *reply = NULL;
 *     if (mr_ranker_rank(ranker, &request, &reply, &err) == MR_OK) ... reply->items[0].index ...
 *     mr_rank_reply_free(reply);
 *
 * A ranking never fails because of one candidate. One that cannot be scored (no embedding, a
 * damaged record, the deadline) keeps the place that its prior gave it; scored ones fill the other
 * places by margin (+ blend x prior), ties by input index. With no priors the prior order is the
 * input order. The reply says for each item where its place came from, and whether the list is
 * degraded and why. A request fails only as a whole and only for its caller's mistake: INVALID,
 * MISMATCH (inline user vectors of another width), EXHAUSTED (a query that the prompt has no room
 * for); or when memory is out.
 *
 * Threads: one ranker, one thread; bundle and store may be shared by many rankers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_PIPELINE_RANKER_H
#define MR_RANKER_PIPELINE_RANKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/api.h"
#include "core/bytes.h"
#include "core/error.h"
#include "featurestore/store.h"
#include "ranker/model/bundle.h"

MR_BEGIN_DECLS

typedef struct mr_ranker mr_ranker;

typedef struct {
    size_t size;           /* sizeof(mr_ranker_options) */
    size_t max_candidates; /* a request with more is INVALID; 0: 10,000 */
    size_t max_text_bytes; /* of a query or of one field; 0: 1 MiB */
    size_t max_rows;       /* tokens per forward pass; 0: 1024 */
    size_t chunk;          /* most candidates between two looks at the deadline; 0: 64 */
    bool encode_missing;   /* encode a candidate's text when the store has no vectors for it */
    double min_coverage;   /* warn as degraded when fewer items than this share were found */
} mr_ranker_options;
#define MR_RANKER_OPTIONS_DEFAULT                                                      \
    {                                                                                  \
        .size = sizeof(mr_ranker_options), .encode_missing = true, .min_coverage = 0.5 \
    }

/* store may be NULL (text mode, or vectors inline). bundle and store are borrowed for the ranker's
 * life. options may be NULL. */
MR_API MR_NODISCARD mr_status mr_ranker_new(mr_ranker **out, const mr_bundle *bundle,
                                            mr_store *store, const mr_ranker_options *options,
                                            mr_error *err);
MR_API void mr_ranker_free(mr_ranker *ranker);          /* NULL is fine */
MR_API size_t mr_ranker_bytes(const mr_ranker *ranker); /* session and buffers */

typedef struct {
    mr_str id; /* looked up in the store; may be empty when vectors or text come along */
    /* title, text, ...; "document" is "text" when it is not given. A text that is not UTF-8 keeps
     * the candidate from being scored, whether the prompt takes it or not. */
    mr_fields fields;
    double prior; /* the caller's own score; higher is better */
    bool has_prior;
    const float *vectors; /* inline embedding tokens [tokens][dim], instead of the store's */
    uint16_t tokens, dim;
    /* The bytes of a PNG, JPEG or BMP file, instead of the store's tokens of the item's picture;
     * data NULL: none was sent. Not looked at by a bundle without a picture in its prompt or
     * without an image encoder of its own. A damaged or hostile one keeps the candidate from being
     * scored, as text that is not UTF-8 does. */
    mr_bytes image;
} mr_candidate;

typedef struct {
    size_t size; /* sizeof(mr_rank_request) */
    mr_str query;
    mr_fields fields;      /* instruction and further prefix fields; an empty one is not absent */
    mr_str user_id;        /* looked up in the store; empty: anonymous */
    const mr_str *history; /* item ids, instead of a stored user; needs a history encoder */
    size_t n_history;
    const float *user_vectors; /* inline user tokens [tokens][dim] */
    uint16_t user_tokens, user_dim;
    const mr_candidate *candidates;
    size_t n_candidates;
    size_t top_k;        /* 0: all */
    int64_t deadline_us; /* on the monotonic clock (core/clock.h); 0: none */
    double blend;        /* order by margin + blend x prior */
    bool explain;
} mr_rank_request;
#define MR_RANK_REQUEST_DEFAULT         \
    {                                   \
        .size = sizeof(mr_rank_request) \
    }

typedef enum {
    MR_SOURCE_MODEL, /* scored from stored or inline vectors */
    MR_SOURCE_TEXT,  /* scored from text that came with the request */
    MR_SOURCE_IMAGE, /* scored with a picture that came with the request */
    MR_SOURCE_PRIOR, /* not scored: stands where its prior puts it */
    MR_SOURCE_COUNT
} mr_source;
MR_API const char *mr_source_name(mr_source source); /* "model", "text", ... */

/* Why an item was not scored, or a list is degraded. */
typedef enum {
    MR_REASON_NONE,
    MR_REASON_MISSING,     /* the store has no record in this space */
    MR_REASON_REMOVED,     /* a tombstone */
    MR_REASON_DAMAGED,     /* the record did not pass its checks */
    MR_REASON_WRONG_SHAPE, /* vectors of another width, or more tokens than the bundle takes */
    MR_REASON_INVALID,     /* text that is not UTF-8, non-finite vectors, a broken picture */
    MR_REASON_TOO_LONG,    /* the prompt does not fit */
    MR_REASON_DEADLINE,
    MR_REASON_STORE_AWAY,   /* the store did not answer */
    MR_REASON_MEMORY,       /* its record did not fit the request's memory bound */
    MR_REASON_USER_MISSING, /* list only: ranked as anonymous */
    MR_REASON_LOW_COVERAGE, /* list only */
    MR_REASON_COUNT
} mr_reason;
MR_API const char *mr_reason_name(mr_reason reason); /* "missing", "deadline", ... */

typedef struct {
    size_t index;  /* in the request's candidates */
    double score;  /* sigmoid of the margin, 0..1; NaN when not scored */
    double margin; /* logit(yes) - logit(no); NaN when not scored */
    mr_source source;
    mr_reason reason; /* why it was not scored */
} mr_ranked_item;

typedef struct {
    int64_t total_us, fetch_us, expand_us, encode_us, project_us, forward_us, order_us;
    uint64_t prefix_tokens, prefix_tokens_cached, suffix_tokens;
    uint64_t tokens_without_sharing; /* what the same prompts cost one by one */
    uint64_t rows_pruned;            /* positions whose last layer stopped at keys and values */
    uint64_t flops;
    /* How old the records were that were ranked by: since their event time, at the time of this
     * ranking. Those that carry no time are not among them; an event in the future is 0 old. */
    uint64_t records_aged;
    int64_t oldest_age_ms, mean_age_ms; /* 0 when there were none */
} mr_rank_work;

typedef struct {
    const mr_ranked_item *items; /* best first */
    size_t n_items;
    size_t n_candidates, n_scored, n_found;
    uint32_t degraded; /* bit (1 << mr_reason) for each reason; 0: not degraded */
    mr_rank_work work;
    const char *explain; /* text for people: the prompt as tokens and slots; NULL unless asked */
    const char *explain_json; /* the same for programs */
    /* The one bundle that ranked all of it, and the spaces that its records were looked up in; 0:
     * the bundle has no such space. */
    const char *bundle_name, *bundle_version;
    uint64_t item_space, user_space, image_space;
    bool by_previous; /* not by the active bundle, but by the one before it (rotation.h) */
} mr_rank_reply;

/* On success *reply is owned by the caller. */
MR_API MR_NODISCARD mr_status mr_ranker_rank(mr_ranker *ranker, const mr_rank_request *request,
                                             mr_rank_reply **reply, mr_error *err);
MR_API void mr_rank_reply_free(mr_rank_reply *reply); /* NULL is fine */

MR_END_DECLS

#endif
