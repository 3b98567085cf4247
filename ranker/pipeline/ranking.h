/* ranking.h - the state of one ranking between its stages. Private to ranker/pipeline.
 *
 * Stages, in order: check (the request by itself), fetch (records of items and user, raw), score
 * (in chunks, best prior first: decode or encode, project, run), order, reply. All memory of a
 * ranking comes from one arena with a bound; records are kept as they were stored and decoded chunk
 * by chunk, so that 10,000 candidates of many tokens do not need all their floats at once.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_PIPELINE_RANKING_H
#define MR_RANKER_PIPELINE_RANKING_H

#include "core/arena.h"
#include "core/strbuf.h"
#include "ranker/model/scorer.h"
#include "ranker/pipeline/order.h"
#include "ranker/pipeline/ranker.h"

struct mr_ranker {
    const mr_bundle *bundle;
    mr_store *store; /* borrowed, may be NULL */
    mr_ranker_options options;
    mr_scorer *scorer;
    mr_text_encoder *encoder; /* opened at the first candidate that needs it */
    bool encoder_failed;
    mr_user_encoder *user_encoder;   /* NULL: users are item vectors, or come from outside */
    mr_image_encoder *image_encoder; /* opened at the first picture that comes with a request */
    mr_error image_encoder_error;    /* why it cannot be opened; OK: not tried, or it could */
    double us_per_candidate;         /* of the last chunk; 0: none was scored yet */
    mr_arena arena;                  /* of the ranking under way */
};

/* One candidate on its way. */
typedef struct {
    mr_fields fields;       /* the request's, with the aliases of ranker.h */
    mr_bytes record;        /* raw, in the arena; empty when there is none */
    mr_reason reason;       /* why it has no margin, so far */
    mr_bytes image_record;  /* of its picture, raw; empty when there is none */
    mr_reason image_reason; /* why it has no tokens of a picture */
    size_t image_tokens;    /* that it was scored by */
    mr_source source;
    size_t tokens; /* embedding tokens that it was scored by */
} mr_ranking_item;

typedef struct {
    mr_ranker *ranker;
    const mr_rank_request *request; /* `given`, whole: a ranking does not move */
    mr_arena *arena;
    mr_ranking_item *items; /* [n] */
    mr_order_input *keys;   /* [n]: margins as they come */
    mr_vectors user;
    bool user_is_stored; /* from records, not from the request: never a reason to fail */
    size_t n_found;      /* items with a record or inline vectors */
    size_t n_scored;     /* keys with a margin; counted once scoring has ended */
    uint32_t degraded;
    mr_rank_work work;
    int64_t ages_ms;      /* of work.records_aged together */
    mr_error first_error; /* of a candidate, for explain */
    mr_rank_request given;
    int64_t started_us, wall_ms;
} mr_ranking;

static inline void mr_ranking_degrade(mr_ranking *ranking, mr_reason reason)
{
    ranking->degraded |= 1u << reason;
}

/* Keeps the first. */
static inline void mr_ranking_note(mr_ranking *ranking, const mr_error *why)
{
    if (ranking->first_error.status == MR_OK)
        ranking->first_error = *why;
}

/* ranker.c. A ranking in two halves, for whoever looks at what was found before anything is scored.
 * begin checks the request and fetches the items' records; what given points to is borrowed until
 * finish, as is the ranker: its next begin ends this ranking. Without finish nothing is left to
 * free. */
MR_NODISCARD mr_status mr_ranking_begin(mr_ranking *ranking, mr_ranker *ranker,
                                        const mr_rank_request *given, mr_error *err);
MR_NODISCARD mr_status mr_ranking_finish(mr_ranking *ranking, mr_rank_reply **reply, mr_error *err);

/* fetch.c. Never fails for what the store holds or lacks: reasons are noted per item. */
MR_NODISCARD mr_status mr_ranking_fetch(mr_ranking *ranking, mr_error *err);
MR_NODISCARD mr_status mr_ranking_fetch_user(mr_ranking *ranking, mr_error *err);
/* From here on the user is anonymous, and the list says so. */
void mr_ranking_drop_user(mr_ranking *ranking);

/* score.c. Scores in chunks until all are done or the deadline is near. */
MR_NODISCARD mr_status mr_ranking_score(mr_ranking *ranking, mr_error *err);

/* explain.c. Texts in the reply's arena. order: best first. */
MR_NODISCARD mr_status mr_ranking_explain(mr_ranking *ranking, const size_t *order, mr_arena *out,
                                          const char **text, const char **json, mr_error *err);

/* fetch.c. A candidate's vectors, inline or decoded into the arena; sets the item's reason when
 * they cannot be used. */
mr_vectors mr_ranking_item_vectors(mr_ranking *ranking, size_t index);

/* Whether the candidate's own picture is to be looked at, and not the store's. */
bool mr_ranking_brings_image(const mr_ranking *ranking, size_t index);
/* The same for the stored tokens of its picture; sets image_reason. */
mr_vectors mr_ranking_image_vectors(mr_ranking *ranking, size_t index);

#endif
