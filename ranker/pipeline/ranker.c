/* ranker.c - the public face of a ranking: checks the request, runs the stages, builds the reply.
 * The stages themselves are in fetch.c, score.c, order.c and explain.c; ranking.h says how they
 * hang together.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/pipeline/ranker.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/utf8.h"
#include "ranker/pipeline/ranking.h"

/* Raw records of one request: 10,000 candidates of 50 bf16 tokens of 1,024 are 1 GB; half of that
 * is more than any page needs. */
#define REQUEST_MEMORY ((size_t)512 << 20)
#define MAX_FIELDS     32

/* What the caller may free with one call: the reply and all that it points to. */
typedef struct {
    mr_rank_reply reply; /* first: mr_rank_reply_free casts back */
    mr_arena arena;
} owned_reply;

static const char *const source_names[MR_SOURCE_COUNT] = {"model", "text", "image", "prior"};

static const char *const reason_names[MR_REASON_COUNT] = {
    "none",     "missing",  "removed",    "damaged", "wrong_shape",  "invalid",
    "too_long", "deadline", "store_away", "memory",  "user_missing", "low_coverage"};

const char *mr_source_name(mr_source source)
{
    return (unsigned)source < MR_SOURCE_COUNT ? source_names[source] : "unknown";
}

const char *mr_reason_name(mr_reason reason)
{
    return (unsigned)reason < MR_REASON_COUNT ? reason_names[reason] : "unknown";
}

mr_status mr_ranker_new(mr_ranker **out, const mr_bundle *bundle, mr_store *store,
                        const mr_ranker_options *options, mr_error *err)
{
    mr_ranker_options opt = MR_RANKER_OPTIONS_DEFAULT;
    if (options)
        memcpy(&opt, options, options->size < sizeof opt ? options->size : sizeof opt);
    if (opt.max_candidates == 0)
        opt.max_candidates = 10000;
    if (opt.max_text_bytes == 0)
        opt.max_text_bytes = (size_t)1 << 20;
    if (opt.chunk == 0)
        opt.chunk = 64;
    if (!(opt.min_coverage >= 0 && opt.min_coverage <= 1))
        return MR_FAIL(err, INVALID, "min_coverage is %g, expected 0 to 1", opt.min_coverage);
    mr_ranker *ranker = calloc(1, sizeof *ranker);
    if (!ranker)
        return MR_FAIL(err, NO_MEMORY, "ranker");
    ranker->bundle = bundle;
    ranker->store = store;
    ranker->options = opt;
    ranker->arena.limit = REQUEST_MEMORY;
    mr_scorer_options scorer = {.max_rows = opt.max_rows};
    mr_status status = mr_scorer_new(&ranker->scorer, bundle, &scorer, err);
    if (status == MR_OK && bundle->user.kind == MR_ENCODER_HISTORY && bundle->user.path)
        status = mr_bundle_open_user_encoder(bundle, &ranker->user_encoder, err);
    if (status != MR_OK) {
        mr_ranker_free(ranker);
        return status;
    }
    *out = ranker;
    return MR_OK;
}

void mr_ranker_free(mr_ranker *ranker)
{
    if (!ranker)
        return;
    mr_text_encoder_close(ranker->encoder);
    mr_image_encoder_close(ranker->image_encoder);
    mr_user_encoder_close(ranker->user_encoder);
    mr_scorer_free(ranker->scorer);
    mr_arena_done(&ranker->arena);
    free(ranker);
}

size_t mr_ranker_bytes(const mr_ranker *ranker)
{
    return mr_scorer_bytes(ranker->scorer) +
           (ranker->user_encoder ? mr_user_encoder_bytes(ranker->user_encoder) : 0);
}

/* ---- the request by itself ------------------------------------------------------------------- */

static mr_status check_text(const char *what, mr_str text, size_t max_bytes, mr_error *err)
{
    if (text.len > max_bytes)
        return MR_FAIL(err, INVALID, "%s is %zu bytes long; this ranker takes %zu", what, text.len,
                       max_bytes);
    size_t valid = mr_utf8_valid_prefix(text.data, text.len);
    if (valid != text.len)
        return MR_FAIL(err, INVALID, "%s is not UTF-8 at byte %zu", what, valid);
    return MR_OK;
}

static mr_status check_request(const mr_ranker *ranker, const mr_rank_request *request,
                               mr_error *err)
{
    const mr_ranker_options *opt = &ranker->options;
    if (request->n_candidates == 0)
        return MR_FAIL(err, INVALID, "the request has no candidates");
    if (request->n_candidates > opt->max_candidates)
        return MR_FAIL(err, INVALID, "the request has %zu candidates; this ranker takes %zu",
                       request->n_candidates, opt->max_candidates);
    const bool knows_user = request->user_id.len || request->n_history || request->user_vectors;
    if (request->query.len == 0 && !knows_user)
        return MR_FAIL(err, INVALID, "the query is empty and there is no user: nothing to rank by");
    if (!isfinite(request->blend))
        return MR_FAIL(err, INVALID, "blend is %g, expected a finite number", request->blend);
    mr_status status = check_text("the query", request->query, opt->max_text_bytes, err);
    if (status != MR_OK)
        return status;
    if (request->fields.n > MAX_FIELDS)
        return MR_FAIL(err, INVALID, "the request has %zu fields; at most %d", request->fields.n,
                       MAX_FIELDS);
    for (size_t i = 0; i < request->fields.n; i++) {
        status = check_text("a field of the request", request->fields.field[i].value,
                            opt->max_text_bytes, err);
        if (status != MR_OK)
            return mr_error_prefix(err, status, "field '%.*s'",
                                   MR_STR_ARG(request->fields.field[i].name));
    }
    if (request->user_vectors && (request->user_tokens == 0 || request->user_dim == 0))
        return MR_FAIL(err, INVALID, "inline user vectors are [%u, %u]", request->user_tokens,
                       request->user_dim);
    if (request->n_history && ranker->bundle->user.kind != MR_ENCODER_HISTORY)
        return MR_FAIL(err, INVALID, "a history was given, but bundle '%s' has no history encoder",
                       ranker->bundle->name);
    if (request->n_history > 100000)
        return MR_FAIL(err, INVALID, "the history has %zu items; at most 100000",
                       request->n_history);
    return MR_OK;
}

/* Given, though it may be empty: an empty instruction is one too. */
static bool has_field(mr_fields fields, const char *name)
{
    for (size_t i = 0; i < fields.n; i++)
        if (mr_str_equal(fields.field[i].name, mr_str_of(name)))
            return true;
    return false;
}

/* The query, the default instruction and the request's own fields, as the prefix template sees
 * them. */
static mr_status prefix_fields(mr_ranking *ranking, mr_fields *out, mr_error *err)
{
    const mr_rank_request *request = ranking->request;
    const mr_bundle *bundle = ranking->ranker->bundle;
    mr_field *field = mr_arena_array(ranking->arena, mr_field, request->fields.n + 2);
    if (!field)
        return MR_FAIL(err, NO_MEMORY, "fields of the prefix");
    size_t n = 0;
    field[n++] = (mr_field){mr_str_of("query"), request->query};
    for (size_t i = 0; i < request->fields.n; i++)
        field[n++] = request->fields.field[i];
    if (bundle->defaults_instruction && !has_field(request->fields, "instruction"))
        field[n++] = (mr_field){mr_str_of("instruction"), mr_str_of(bundle->defaults_instruction)};
    *out = (mr_fields){field, n};
    return MR_OK;
}

/* A candidate's fields with the alias of ranker.h. What is wrong with its text is its own problem.
 */
static void item_fields(mr_ranking *ranking, size_t index)
{
    const mr_candidate *candidate = &ranking->request->candidates[index];
    mr_ranking_item *item = &ranking->items[index];
    item->fields = candidate->fields;
    if (candidate->fields.n > MAX_FIELDS) {
        item->fields = (mr_fields){0};
        item->reason = MR_REASON_INVALID;
        return;
    }
    for (size_t i = 0; i < candidate->fields.n; i++)
        if (check_text("", candidate->fields.field[i].value,
                       ranking->ranker->options.max_text_bytes, NULL) != MR_OK) {
            item->fields = (mr_fields){0};
            item->reason = MR_REASON_INVALID;
            return;
        }
    if (has_field(candidate->fields, "text") && !has_field(candidate->fields, "document") &&
        mr_template_uses_field(ranking->ranker->bundle->suffix, "document")) {
        mr_field *field = mr_arena_array(ranking->arena, mr_field, candidate->fields.n + 1);
        if (!field)
            return;
        memcpy(field, candidate->fields.field, candidate->fields.n * sizeof *field);
        field[candidate->fields.n] =
            (mr_field){mr_str_of("document"), mr_fields_get(candidate->fields, "text")};
        item->fields = (mr_fields){field, candidate->fields.n + 1};
    }
}

/* ---- the reply ------------------------------------------------------------------------------- */

static void count_work(mr_ranking *ranking)
{
    mr_scorer_stats stats = mr_scorer_take_stats(ranking->ranker->scorer);
    mr_rank_work *work = &ranking->work;
    work->expand_us = stats.expand_us;
    work->project_us = stats.project_us;
    work->forward_us = stats.forward_us + stats.head_us;
    work->prefix_tokens = stats.prefix_tokens;
    work->prefix_tokens_cached = stats.prefix_tokens_cached;
    work->suffix_tokens = stats.suffix_tokens;
    work->tokens_without_sharing = stats.prefix_tokens * ranking->n_scored + stats.suffix_tokens;
    work->rows_pruned = stats.session.pruned_rows;
    work->flops = stats.session.flops;
    if (work->records_aged)
        work->mean_age_ms = ranking->ages_ms / (int64_t)work->records_aged;
}

/* Copies: a reply may outlive the bundle. */
static mr_status name_bundle(const mr_bundle *bundle, owned_reply *owned, mr_error *err)
{
    mr_rank_reply *reply = &owned->reply;
    reply->bundle_name = mr_arena_strndup(&owned->arena, bundle->name, strlen(bundle->name));
    reply->bundle_version =
        mr_arena_strndup(&owned->arena, bundle->version, strlen(bundle->version));
    if (!reply->bundle_name || !reply->bundle_version)
        return MR_FAIL(err, NO_MEMORY, "the name of bundle '%s' for a reply", bundle->name);
    reply->item_space = mr_bundle_item_space(bundle);
    reply->user_space = mr_bundle_user_space(bundle);
    reply->image_space = bundle->image.kind == MR_ENCODER_NONE ? 0 : bundle->image.space;
    return MR_OK;
}

static mr_status build_reply(mr_ranking *ranking, owned_reply *owned, mr_error *err)
{
    const mr_rank_request *request = ranking->request;
    const size_t n = request->n_candidates;
    size_t *order = mr_arena_array(ranking->arena, size_t, n);
    size_t *scratch = mr_arena_array(ranking->arena, size_t, 2 * n);
    const size_t n_items = request->top_k && request->top_k < n ? request->top_k : n;
    mr_ranked_item *items = mr_arena_array(&owned->arena, mr_ranked_item, n_items);
    if (!order || !scratch || !items)
        return MR_FAIL(err, NO_MEMORY, "a reply of %zu items", n_items);
    mr_order_final(ranking->keys, n, request->blend, order, scratch);

    mr_rank_reply *reply = &owned->reply;
    reply->n_scored = ranking->n_scored;
    for (size_t place = 0; place < n_items; place++) {
        const size_t i = order[place];
        const double margin = ranking->keys[i].margin;
        const bool scored = !isnan(margin);
        items[place] = (mr_ranked_item){
            .index = i,
            .margin = margin,
            .score = scored ? mr_bundle_score(ranking->ranker->bundle, margin) : (double)NAN,
            .source = scored ? ranking->items[i].source : MR_SOURCE_PRIOR,
            .reason = ranking->items[i].reason};
    }
    reply->items = items;
    reply->n_items = n_items;
    reply->n_candidates = n;
    reply->n_found = ranking->n_found;
    reply->degraded = ranking->degraded;
    mr_status status = name_bundle(ranking->ranker->bundle, owned, err);
    if (status != MR_OK)
        return status;
    if (request->explain)
        return mr_ranking_explain(ranking, order, &owned->arena, &reply->explain,
                                  &reply->explain_json, err);
    return MR_OK;
}

static mr_status begin(mr_ranking *ranking, mr_error *err)
{
    mr_scorer *scorer = ranking->ranker->scorer;
    mr_scorer_prefix prefix = {.user = ranking->user};
    mr_error why = {0};
    mr_status status = prefix_fields(ranking, &prefix.fields, err);
    if (status != MR_OK)
        return status;
    status = mr_scorer_begin(scorer, &prefix, &why);
    if (status != MR_OK && status != MR_NO_MEMORY && ranking->user_is_stored &&
        ranking->user.tokens) {
        /* What the store holds of a user is no mistake of the caller's. */
        mr_ranking_note(ranking, &why);
        mr_ranking_drop_user(ranking);
        prefix.user = ranking->user;
        why = (mr_error){0};
        status = mr_scorer_begin(scorer, &prefix, &why);
    }
    if (status != MR_OK && err)
        *err = why;
    return status;
}

static mr_status run_stages(mr_ranking *ranking, owned_reply *owned, mr_error *err)
{
    const int64_t started = mr_clock_monotonic_us();
    mr_status status = mr_ranking_fetch_user(ranking, err);
    ranking->work.fetch_us += mr_clock_monotonic_us() - started;
    if (status == MR_OK)
        status = begin(ranking, err);
    if (status == MR_OK)
        status = mr_ranking_score(ranking, err);
    if (status != MR_OK)
        return status;

    const int64_t scored = mr_clock_monotonic_us();
    for (size_t i = 0; i < ranking->request->n_candidates; i++)
        ranking->n_scored += !isnan(ranking->keys[i].margin);
    count_work(ranking);
    status = build_reply(ranking, owned, err);
    const int64_t now = mr_clock_monotonic_us();
    ranking->work.order_us = now - scored;
    ranking->work.total_us = now - ranking->started_us;
    owned->reply.work = ranking->work;
    return status;
}

mr_status mr_ranking_begin(mr_ranking *ranking, mr_ranker *ranker, const mr_rank_request *given,
                           mr_error *err)
{
    *ranking = (mr_ranking){.ranker = ranker,
                            .arena = &ranker->arena,
                            .given = MR_RANK_REQUEST_DEFAULT,
                            .started_us = mr_clock_monotonic_us(),
                            .wall_ms = mr_clock_wall_ms()};
    mr_rank_request *request = &ranking->given;
    memcpy(request, given, given->size < sizeof *request ? given->size : sizeof *request);
    ranking->request = request;
    mr_status status = check_request(ranker, request, err);
    if (status != MR_OK)
        return status;

    const size_t n = request->n_candidates;
    mr_arena_rewind(&ranker->arena, (mr_arena_mark){0});
    ranking->items = mr_arena_array(&ranker->arena, mr_ranking_item, n);
    ranking->keys = mr_arena_array(&ranker->arena, mr_order_input, n);
    if (!ranking->items || !ranking->keys)
        return MR_FAIL(err, NO_MEMORY, "a ranking of %zu candidates", n);
    for (size_t i = 0; i < n; i++) {
        const mr_candidate *candidate = &request->candidates[i];
        ranking->keys[i] =
            (mr_order_input){.margin = (double)NAN,
                             .prior = candidate->prior,
                             .has_prior = candidate->has_prior && isfinite(candidate->prior)};
        item_fields(ranking, i);
    }
    status = mr_ranking_fetch(ranking, err);
    ranking->work.fetch_us = mr_clock_monotonic_us() - ranking->started_us;
    return status;
}

mr_status mr_ranking_finish(mr_ranking *ranking, mr_rank_reply **reply, mr_error *err)
{
    owned_reply *owned = calloc(1, sizeof *owned);
    if (!owned)
        return MR_FAIL(err, NO_MEMORY, "a reply of %zu items", ranking->request->n_candidates);
    mr_status status = run_stages(ranking, owned, err);
    if (status != MR_OK) {
        mr_rank_reply_free(&owned->reply);
        return status;
    }
    *reply = &owned->reply;
    return MR_OK;
}

mr_status mr_ranker_rank(mr_ranker *ranker, const mr_rank_request *given, mr_rank_reply **reply,
                         mr_error *err)
{
    mr_ranking ranking;
    mr_status status = mr_ranking_begin(&ranking, ranker, given, err);
    return status == MR_OK ? mr_ranking_finish(&ranking, reply, err) : status;
}

void mr_rank_reply_free(mr_rank_reply *reply)
{
    if (!reply)
        return;
    owned_reply *owned = (owned_reply *)(void *)reply;
    mr_arena_done(&owned->arena);
    free(owned);
}
