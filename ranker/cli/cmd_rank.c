/* cmd_rank.c - mixrank rank: one query from the command line, or many from a JSONL file.
 *
 * Both go the same way: a request becomes a row {"query", "user", "candidates", ...}, the row
 * becomes an mr_rank_request, the reply is printed as a table, as JSON or as a TREC run.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/base64.h"
#include "core/clock.h"
#include "core/jsonl.h"
#include "core/progress.h"
#include "core/utf8.h"
#include "featurestore/record.h"
#include "ranker/cli/catalogue.h"
#include "ranker/cli/command.h"
#include "ranker/cli/rank_print.h"
#include "ranker/cli/store_access.h"
#include "ranker/cli/store_items.h"
#include "ranker/model/parts.h"
#include "ranker/pipeline/rotation.h"

typedef struct {
    const char *bundle, *store, *items, *query, *user, *candidates, *requests;
    mr_option_list fields;
    int64_t top, threads, timeout_ms, limit, max_candidates;
    double blend;
    bool json, trec, explain, quiet;
} rank_options;

static const mr_option options[] = {
    MR_OPTION_STRING(
        "bundle", 'b', "DIR", rank_options, bundle,
        "the bundle to rank with; none: the store's active one (mixrank store switch)"),
    MR_OPTION_STRING("store", 's', "URL", rank_options, store,
                     "where the embedding tokens are: lmdb:PATH, a path, or redis://HOST:PORT"),
    MR_OPTION_STRING("query", 'q', "TEXT", rank_options, query, "what is being looked for"),
    MR_OPTION_STRING("user", 'u', "ID", rank_options, user, "a user of the store; none: anonymous"),
    MR_OPTION_STRING(
        "candidates", 'c', "IDS", rank_options, candidates,
        "item ids apart by commas, or - for one a line on standard input; all items of "
        "the store or of --items when left out"),
    MR_OPTION_STRING("items", 'i', "FILE", rank_options, items,
                     "items as JSONL: titles to show, texts for a bundle in text mode"),
    MR_OPTION_LIST("field", 'f', "NAME=TEXT", rank_options, fields,
                   "a further field of the prompt, such as instruction=..."),
    MR_OPTION_STRING("requests", 'r', "FILE", rank_options, requests,
                     "many requests as JSONL: {id?, query, user?, history?, candidates}"),
    MR_OPTION_INT("limit", 0, "N", rank_options, limit, 0, 1e9,
                  "stop after N requests; 0: all of them"),
    MR_OPTION_INT("top", 'k', "K", rank_options, top, 0, 1e6, "print the best K; 0: all"),
    MR_OPTION_REAL("blend", 0, "W", rank_options, blend, -1e6, 1e6,
                   "order by margin + W x prior instead of margin alone"),
    MR_OPTION_INT("timeout-ms", 0, "MS", rank_options, timeout_ms, 0, 3600000,
                  "score best prior first until the time is over; 0: all of them"),
    MR_OPTION_INT("max-candidates", 0, "N", rank_options, max_candidates, 1, 1e6,
                  "refuse requests with more candidates"),
    MR_OPTION_INT("threads", 't', "N", rank_options, threads, 0, 256,
                  "threads; 0: the CPUs of this process"),
    MR_OPTION_FLAG(
        "explain", 'x', rank_options, explain,
        "show the prompt as tokens and slots, the tokens saved and the time of each stage"),
    MR_OPTION_FLAG("json", 0, rank_options, json, "one JSON object for each request"),
    MR_OPTION_FLAG("trec", 0, rank_options, trec, "a TREC run: query Q0 item rank score tag"),
    MR_OPTION_FLAG("quiet", 0, rank_options, quiet, "no progress bar"),
    MR_OPTION_END,
};

static const mr_command_help help = {
    "rank", "[--bundle DIR] --store URL --query TEXT [options]",
    "Ranks items for a query and a user. Items whose embedding tokens the store does not have keep "
    "the "
    "place of their prior (or their input order) and say so in the source column.",
    "  mixrank rank -b build/demo/bundle -s build/demo/store -q 'text editor' -k 10\n"
    "  mixrank rank -b build/demo/bundle -s build/demo/store -q game -u u000001 -k 5 --explain\n"
    "  mixrank rank -b reranker -i items.jsonl -q 'text editor' -c vim,emacs --json\n"};

typedef struct {
    const rank_options *opt;
    const mr_bundle *bundle;
    mr_bundle *opened; /* with --bundle; else the seat's is ranked with */
    mr_store *store;
    mr_catalogue *catalogue;
    mr_ranker *ranker; /* with --bundle */
    mr_rotation *rotation;
    mr_seat *seat;
    mr_str *all_ids; /* when a request names no candidates */
    size_t n_all, all_capacity;
    mr_arena ids_arena;
    mr_arena arena; /* of one request */
    bool failed_walk;
} rank_state;

/* ---- candidates ------------------------------------------------------------------------------ */

static bool add_id(rank_state *state, mr_str id)
{
    if (state->n_all == state->all_capacity) {
        const size_t capacity = state->all_capacity ? 2 * state->all_capacity : 1024;
        mr_str *bigger = realloc(state->all_ids, capacity * sizeof *bigger);
        if (!bigger)
            return false;
        state->all_ids = bigger;
        state->all_capacity = capacity;
    }
    char *copy = mr_arena_strndup(&state->ids_arena, id.data, id.len);
    if (!copy)
        return false;
    state->all_ids[state->n_all++] = (mr_str){copy, id.len};
    return true;
}

static bool on_stored_id(void *context, mr_str id, mr_bytes record)
{
    rank_state *state = context;
    mr_record_info info;
    if (mr_record_peek(NULL, record, &info, NULL) == MR_OK && info.tombstone)
        return true; /* removed: nobody's candidate */
    state->failed_walk = !add_id(state, id);
    return !state->failed_walk;
}

static mr_status ids_from_lines(rank_state *state, mr_error *err)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t len;
    mr_status status = MR_OK;
    while (status == MR_OK && (len = getline(&line, &capacity, stdin)) >= 0) {
        while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
            len--;
        if (len > 0 && !add_id(state, (mr_str){line, (size_t)len}))
            status = MR_FAIL(err, NO_MEMORY, "candidate ids");
    }
    if (status == MR_OK)
        status = mr_command_check_stdin(err);
    free(line);
    return status;
}

static mr_status collect_ids(rank_state *state, mr_error *err)
{
    const char *list = state->opt->candidates;
    if (list && strcmp(list, "-") == 0)
        return ids_from_lines(state, err);
    if (list) {
        while (*list) {
            const size_t len = strcspn(list, ",");
            if (len && !add_id(state, (mr_str){list, len}))
                return MR_FAIL(err, NO_MEMORY, "candidate ids");
            list += len + (list[len] == ',');
        }
        return MR_OK;
    }
    if (state->store && mr_bundle_is_mixed(state->bundle)) {
        mr_status status =
            mr_store_walk(state->store, MR_ENTITY_ITEM, mr_bundle_item_space(state->bundle),
                          on_stored_id, state, err);
        if (status == MR_OK && state->failed_walk)
            status = MR_FAIL(err, NO_MEMORY, "candidate ids");
        if (status == MR_OK && state->n_all == 0)
            status = mr_store_items_check(state->store, state->opt->store, state->bundle, err);
        if (status == MR_OK && state->n_all == 0)
            status =
                MR_FAIL(err, NOT_FOUND, "all items of store '%s' were removed", state->opt->store);
        return status;
    }
    for (size_t i = 0; state->catalogue && i < mr_catalogue_count(state->catalogue); i++)
        if (!add_id(state, mr_catalogue_at(state->catalogue, i)->id))
            return MR_FAIL(err, NO_MEMORY, "candidate ids");
    return MR_OK;
}

/* A candidate by id takes its texts and prior from the catalogue where there is one. */
static mr_candidate candidate_of_id(const rank_state *state, mr_str id)
{
    mr_candidate out = {.id = id};
    const mr_catalogue_item *item =
        state->catalogue ? mr_catalogue_find(state->catalogue, id) : NULL;
    if (item) {
        out.fields = item->fields;
        out.prior = item->prior;
        out.has_prior = item->has_prior;
        out.vectors = item->vectors;
        out.tokens = item->tokens;
        out.dim = item->dim;
    }
    return out;
}

/* A picture that stands in the request, as JSON can hold it. */
static mr_status read_image(rank_state *state, const json_t *value, mr_candidate *out,
                            mr_error *err)
{
    if (!value || json_is_null(value))
        return MR_OK;
    if (!json_is_string(value))
        return MR_FAIL(err, INVALID, "'image_base64' of candidate '%.*s' is %s, expected a string",
                       MR_STR_ARG(out->id), mr_json_describe(value));
    const mr_str text = {json_string_value(value), json_string_length(value)};
    mr_status status = mr_base64_decode(&state->arena, text, &out->image, err);
    return status == MR_OK ? MR_OK
                           : mr_error_prefix(err, status, "'image_base64' of candidate '%.*s'",
                                             MR_STR_ARG(out->id));
}

static mr_status candidate_of_json(rank_state *state, const json_t *value, mr_candidate *out,
                                   mr_error *err)
{
    if (json_is_string(value)) {
        *out =
            candidate_of_id(state, (mr_str){json_string_value(value), json_string_length(value)});
        return MR_OK;
    }
    if (!json_is_object(value))
        return MR_FAIL(err, INVALID, "a candidate is %s, expected an id or an object",
                       mr_json_describe(value));
    mr_catalogue_item row;
    mr_status status = mr_catalogue_read_row(value, &state->arena, &row, err);
    if (status != MR_OK)
        return mr_error_prefix(err, status, "a candidate");
    *out = candidate_of_id(state, row.id);
    if (row.fields.n)
        out->fields = row.fields;
    if (row.has_prior) {
        out->prior = row.prior;
        out->has_prior = true;
    }
    if (row.vectors) {
        out->vectors = row.vectors;
        out->tokens = row.tokens;
        out->dim = row.dim;
    }
    return read_image(state, json_object_get(value, "image_base64"), out, err);
}

/* ---- requests -------------------------------------------------------------------------------- */

/* Absent and null give an empty one. */
static mr_status read_string(const json_t *row, const char *key, mr_str *out, mr_error *err)
{
    const json_t *value = json_object_get(row, key);
    if (value && !json_is_null(value) && !json_is_string(value))
        return MR_FAIL(err, INVALID, "'%s' is %s, expected a string", key, mr_json_describe(value));
    *out = (mr_str){json_string_value(value), json_string_length(value)};
    return MR_OK;
}

static mr_status read_candidates(rank_state *state, const json_t *row, mr_rank_request *request,
                                 mr_error *err)
{
    const json_t *list = json_object_get(row, "candidates");
    if (json_is_null(list))
        list = NULL;
    if (list && !json_is_array(list))
        return MR_FAIL(err, INVALID, "'candidates' is %s, expected an array",
                       mr_json_describe(list));
    if (!list && !state->all_ids) {
        mr_status status = collect_ids(state, err);
        if (status != MR_OK)
            return status;
    }
    const size_t n = list ? json_array_size(list) : state->n_all;
    mr_candidate *candidates = mr_arena_array(&state->arena, mr_candidate, n);
    if (!candidates)
        return MR_FAIL(err, NO_MEMORY, "%zu candidates", n);
    for (size_t i = 0; i < n; i++) {
        if (!list) {
            candidates[i] = candidate_of_id(state, state->all_ids[i]);
            continue;
        }
        mr_status status = candidate_of_json(state, json_array_get(list, i), &candidates[i], err);
        if (status != MR_OK)
            return status;
    }
    request->candidates = candidates;
    request->n_candidates = n;
    return MR_OK;
}

static mr_status read_history(rank_state *state, const json_t *row, mr_rank_request *request,
                              mr_error *err)
{
    const json_t *list = json_object_get(row, "history");
    if (!list || json_is_null(list))
        return MR_OK;
    if (!json_is_array(list))
        return MR_FAIL(err, INVALID, "'history' is %s, expected an array", mr_json_describe(list));
    const size_t n = json_array_size(list);
    mr_str *ids = mr_arena_array(&state->arena, mr_str, n);
    if (!ids)
        return MR_FAIL(err, NO_MEMORY, "a history of %zu items", n);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_string(id))
            return MR_FAIL(err, INVALID, "'history' holds %s, expected item ids",
                           mr_json_describe(id));
        ids[i] = (mr_str){json_string_value(id), json_string_length(id)};
    }
    request->history = ids;
    request->n_history = n;
    return MR_OK;
}

static bool uses_field(const mr_bundle *bundle, mr_str name)
{
    char text[64];
    if (name.len >= sizeof text)
        return false;
    memcpy(text, name.data, name.len);
    text[name.len] = '\0';
    return mr_template_uses_field(bundle->prefix, text) ||
           mr_template_uses_field(bundle->suffix, text);
}

static mr_status read_fields(rank_state *state, mr_rank_request *request, mr_error *err)
{
    const mr_option_list *list = &state->opt->fields;
    mr_field *field = mr_arena_array(&state->arena, mr_field, list->n);
    if (!field)
        return MR_FAIL(err, NO_MEMORY, "fields");
    for (size_t i = 0; i < list->n; i++) {
        const char *equals = strchr(list->value[i], '=');
        if (!equals || equals == list->value[i])
            return MR_FAIL(err, INVALID, "--field '%s': expected NAME=TEXT", list->value[i]);
        const mr_str name = {list->value[i], (size_t)(equals - list->value[i])};
        if (!uses_field(state->bundle, name))
            return MR_FAIL(err, NOT_FOUND, "the prompt of bundle '%s' has no field '%.*s'",
                           mr_bundle_name(state->bundle), MR_STR_ARG(name));
        field[i] = (mr_field){name, mr_str_of(equals + 1)};
    }
    request->fields = (mr_fields){field, list->n};
    return MR_OK;
}

/* line: of the requests file; 0 for the one request of the command line. */
static mr_status rank_row(rank_state *state, const json_t *row, uint64_t line, mr_error *err)
{
    const rank_options *opt = state->opt;
    mr_arena_rewind(&state->arena, (mr_arena_mark){0});
    mr_rank_request request = MR_RANK_REQUEST_DEFAULT;
    request.top_k = (size_t)opt->top;
    request.blend = opt->blend;
    request.explain = opt->explain;
    mr_str id = {0};
    mr_status status = read_string(row, "id", &id, err);
    if (status == MR_OK)
        status = read_string(row, "query", &request.query, err);
    if (status == MR_OK)
        status = read_string(row, "user", &request.user_id, err);
    if (status == MR_OK)
        status = read_fields(state, &request, err);
    if (status == MR_OK)
        status = read_history(state, row, &request, err);
    if (status == MR_OK)
        status = read_candidates(state, row, &request, err);
    if (status != MR_OK)
        return status;
    if (opt->timeout_ms)
        request.deadline_us = mr_clock_monotonic_us() + opt->timeout_ms * 1000;
    mr_rank_reply *reply = NULL;
    status = state->seat ? mr_seat_rank(state->seat, &request, &reply, err)
                         : mr_ranker_rank(state->ranker, &request, &reply, err);
    if (status != MR_OK)
        return status;
    const mr_rank_output out = {.bundle = state->bundle,
                                .catalogue = state->catalogue,
                                .request = &request,
                                .reply = reply,
                                .query_id = id,
                                .line = line};
    if (opt->trec)
        status = mr_rank_print_trec(&out, err);
    else if (opt->json)
        mr_rank_print_json(&out);
    else
        mr_rank_print_table(&out);
    mr_rank_reply_free(reply);
    return status;
}

static mr_status rank_file(rank_state *state, mr_error *err)
{
    mr_jsonl reader = {0};
    mr_status status = mr_jsonl_open(&reader, state->opt->requests, MR_JSONL_MAX_LINE, err);
    uint64_t done = 0;
    /* A bar and a table on the same terminal would write over each other. */
    const bool bar_wanted = !isatty(STDOUT_FILENO);
    mr_progress bar = {0};
    if (bar_wanted)
        bar = mr_progress_start("ranking", (uint64_t)state->opt->limit, "requests");
    while (status == MR_OK && (!state->opt->limit || done < (uint64_t)state->opt->limit)) {
        json_t *row = NULL;
        status = mr_jsonl_next(&reader, &row, err);
        if (status != MR_OK || !row)
            break;
        status = rank_row(state, row, reader.line_number, err);
        if (status != MR_OK)
            mr_error_prefix(err, status, "line %llu of %s", (unsigned long long)reader.line_number,
                            reader.name);
        json_decref(row);
        done++;
        if (bar_wanted)
            mr_progress_update(&bar, done, NULL);
    }
    if (bar_wanted)
        mr_progress_finish(&bar, NULL);
    mr_jsonl_close(&reader);
    return status;
}

/* An argument as JSON text; what the caller typed may be no text at all. */
static mr_status set_argument(json_t *row, const char *key, const char *text, mr_error *err)
{
    if (!text)
        return MR_OK;
    const size_t len = strlen(text), valid = mr_utf8_valid_prefix(text, len);
    if (valid < len)
        return MR_FAIL(err, INVALID, "--%s is not UTF-8 at byte %zu", key, valid);
    if (json_object_set_new(row, key, json_stringn(text, len)) != 0)
        return MR_FAIL(err, NO_MEMORY, "the request");
    return MR_OK;
}

static mr_status rank_one(rank_state *state, mr_error *err)
{
    json_t *row = json_object();
    mr_status status = set_argument(row, "query", state->opt->query, err);
    if (status == MR_OK)
        status = set_argument(row, "user", state->opt->user, err);
    if (status == MR_OK)
        status = rank_row(state, row, 0, err);
    json_decref(row);
    return status;
}

static mr_status open_store(rank_state *state, mr_error *err)
{
    mr_store_options store = MR_STORE_OPTIONS_DEFAULT;
    store.no_create = true;
    store.read_only = true;
    mr_status status = mr_store_access_password(&store, &state->ids_arena, err);
    return status == MR_OK ? mr_store_open(&state->store, state->opt->store, &store, err) : status;
}

/* The bundle that the store names, and the one before it. */
static mr_status take_seat(rank_state *state, const mr_ranker_options *ranker, mr_error *err)
{
    mr_rotation_options rotation = MR_ROTATION_OPTIONS_DEFAULT;
    rotation.ranker = *ranker;
    rotation.threads = (int)state->opt->threads;
    mr_status status = mr_rotation_new(&state->rotation, state->store, &rotation, err);
    if (status == MR_OK)
        status = mr_rotation_refresh(state->rotation, NULL, err);
    if (status == MR_OK)
        status = mr_seat_new(&state->seat, state->rotation, err);
    if (status == MR_OK)
        state->bundle = mr_seat_bundle(state->seat);
    return status;
}

static mr_status open_bundle(rank_state *state, mr_error *err)
{
    mr_bundle_options bundle = MR_BUNDLE_OPTIONS_DEFAULT;
    bundle.threads = (int)state->opt->threads;
    mr_status status = mr_bundle_open(&state->opened, state->opt->bundle, &bundle, err);
    state->bundle = state->opened;
    return status;
}

static mr_status open_all(rank_state *state, mr_error *err)
{
    const rank_options *opt = state->opt;
    mr_ranker_options ranker = MR_RANKER_OPTIONS_DEFAULT;
    ranker.max_candidates = (size_t)opt->max_candidates;
    mr_status status = opt->bundle ? open_bundle(state, err) : MR_OK;
    if (status == MR_OK && opt->store)
        status = open_store(state, err);
    if (status == MR_OK && !opt->bundle)
        status = take_seat(state, &ranker, err);
    if (status == MR_OK && opt->store && opt->bundle) {
        mr_error why = {0};
        /* One without items may hold users; whoever wants its items is told later. */
        if (mr_store_items_check(state->store, opt->store, state->bundle, &why) == MR_MISMATCH) {
            *err = why;
            status = MR_MISMATCH;
        }
    }
    if (status == MR_OK && opt->items)
        status = mr_catalogue_open(&state->catalogue, opt->items, err);
    if (status == MR_OK && opt->bundle)
        status = mr_ranker_new(&state->ranker, state->bundle, state->store, &ranker, err);
    return status;
}

int mr_cmd_rank(int argc, char **argv)
{
    rank_options opt = {.top = 10, .max_candidates = 100000};
    int n_positional = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n_positional, &code))
        return code;
    if (n_positional)
        return mr_command_misuse(help.name, "unexpected argument '%s'", argv[1]);
    if (!opt.bundle && !opt.store)
        return mr_command_misuse(
            help.name, "--bundle is missing (or --store, with the bundle that is active there)");
    if (!opt.query && !opt.user && !opt.requests)
        return mr_command_misuse(help.name, "--query, --user or --requests is missing");
    if (opt.requests && (opt.query || opt.user))
        return mr_command_misuse(help.name, "--requests brings its own queries and users");
    if (opt.json && opt.trec)
        return mr_command_misuse(help.name, "give either --json or --trec");
    if (!opt.store && !opt.items && !opt.requests)
        return mr_command_misuse(help.name, "--store or --items is missing: nothing to rank");
    if (mr_command_count_stdin((const char *const[]){opt.items, opt.requests, opt.candidates}, 3) >
        1)
        return mr_command_misuse(help.name,
                                 "standard input is one file: --items, --requests or --candidates");

    mr_progress_set_quiet(opt.quiet);
    rank_state state = {.opt = &opt};
    mr_error err = {0};
    mr_status status = open_all(&state, &err);
    if (status == MR_OK && mr_bundle_is_untrained(state.bundle))
        mr_command_warn_untrained(help.name, !opt.json && !opt.trec);
    if (status == MR_OK)
        status = opt.requests ? rank_file(&state, &err) : rank_one(&state, &err);
    if (status != MR_OK)
        code = mr_command_fail(help.name, &err);

    mr_seat_free(state.seat);
    mr_rotation_free(state.rotation);
    mr_ranker_free(state.ranker);
    mr_catalogue_close(state.catalogue);
    mr_store_close(state.store);
    mr_bundle_close(state.opened);
    mr_arena_done(&state.arena);
    mr_arena_done(&state.ids_arena);
    free(state.all_ids);
    return code;
}
