/* bench_rank.c - whole rankings in process, from text to order, at the shape of a bundle.
 *
 *     mixrank bundle untrained --shape qwen3-0.6b --item-tokens 4 --user-tokens 0 /tmp/full
 *     bench_rank --bundle /tmp/full
 *
 * Rows: embedding tokens (1 and 4 an item, from a memory store) for 50 and 250 candidates, beside
 * the same model reading the items as text of 200 and 900 tokens. The prefix is 60 tokens in all of
 * them. Before the clock starts, every row is checked: the margin of three candidates alone must
 * have the same bits as among the others. One JSON line a row; "gflops" counts what the pruned
 * computation needs.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "benchmarks/bench.h"
#include "core/arena.h"
#include "core/file.h"
#include "core/options.h"
#include "core/rng.h"
#include "featurestore/record.h"
#include "ranker/model/bundle_write.h"
#include "ranker/model/parts.h"
#include "ranker/pipeline/ranker.h"

#define PREFIX_TOKENS 60

typedef struct {
    const char *bundle, *text_bundle;
    int64_t threads, repetitions;
    bool quick;
} bench_options;

static const mr_option table[] = {
    MR_OPTION_STRING("bundle", 'b', "DIR", bench_options, bundle, "a mixed bundle, 4 item tokens"),
    MR_OPTION_STRING("text-bundle", 0, "DIR", bench_options, text_bundle,
                     "where to make the text twin; made of links, beside the bundle by default"),
    MR_OPTION_INT("threads", 't', "N", bench_options, threads, 0, 256, "threads; 0: all"),
    MR_OPTION_INT("repetitions", 'n', "N", bench_options, repetitions, 1, 1000, "of each row"),
    MR_OPTION_FLAG("quick", 0, bench_options, quick, "leave the text rows out"),
    MR_OPTION_END,
};

static const mr_command_help help = {"bench_rank", "--bundle DIR", "Times whole rankings.", NULL};

static int fail(const mr_error *err)
{
    fprintf(stderr, "bench_rank: %s\n", err->message);
    return 1;
}

/* A query that makes the prefix exactly so long: one byte is one token in an untrained bundle, and
 * a few tries find it in any other. */
static mr_status fit_query(mr_ranker *ranker, mr_rank_request *request, char *query, size_t size,
                           mr_error *err)
{
    size_t words = 1;
    for (int attempt = 0; attempt < 64; attempt++) {
        memset(query, 'a', size);
        for (size_t i = 1; i < size; i += 2)
            query[i] = ' ';
        request->query = (mr_str){query, words};
        mr_rank_reply *reply = NULL;
        mr_status status = mr_ranker_rank(ranker, request, &reply, err);
        if (status != MR_OK)
            return status;
        const size_t tokens = (size_t)reply->work.prefix_tokens;
        mr_rank_reply_free(reply);
        if (tokens == PREFIX_TOKENS)
            return MR_OK;
        if (tokens > PREFIX_TOKENS && words <= tokens - PREFIX_TOKENS)
            return MR_FAIL(err, INVALID, "the prefix has %zu tokens without a query",
                           tokens - words);
        words = words + PREFIX_TOKENS - tokens;
        if (words == 0 || words >= size)
            break;
    }
    return MR_FAIL(err, INVALID, "no query makes the prefix %d tokens long", PREFIX_TOKENS);
}

/* Margins alone and among the others, bit for bit. */
static mr_status check_same(mr_ranker *ranker, const mr_rank_request *request, mr_error *err)
{
    mr_rank_reply *all = NULL;
    mr_status status = mr_ranker_rank(ranker, request, &all, err);
    if (status == MR_OK && all->n_scored != request->n_candidates)
        status = MR_FAIL(err, INVALID, "%zu of %zu candidates were scored", all->n_scored,
                         request->n_candidates);
    for (size_t k = 0; k < 3 && status == MR_OK; k++) {
        const mr_ranked_item *item = &all->items[k * (all->n_items - 1) / 2];
        mr_rank_request alone = *request;
        alone.candidates = &request->candidates[item->index];
        alone.n_candidates = 1;
        mr_rank_reply *one = NULL;
        status = mr_ranker_rank(ranker, &alone, &one, err);
        if (status == MR_OK &&
            memcmp(&one->items[0].margin, &item->margin, sizeof item->margin) != 0)
            status = MR_FAIL(err, MISMATCH, "candidate %zu: margin %.9g alone, %.9g among others",
                             item->index, one->items[0].margin, item->margin);
        mr_rank_reply_free(one);
    }
    mr_rank_reply_free(all);
    return status;
}

static mr_status time_row(const char *what, mr_ranker *ranker, const mr_bundle *bundle,
                          mr_rank_request *request, size_t item_tokens, int repetitions,
                          mr_error *err)
{
    char query[256];
    mr_rank_request probe = *request;
    probe.n_candidates = 1;
    mr_status status = fit_query(ranker, &probe, query, sizeof query, err);
    request->query = probe.query;
    if (status == MR_OK)
        status = check_same(ranker, request, err);
    bench_clock clock = bench_start(0, repetitions);
    mr_rank_work work = {0};
    while (status == MR_OK && bench_more(&clock)) {
        mr_rank_reply *reply = NULL;
        /* Another query each time: only the instruction in front of it is found in the cache, as
         * it is for a service ("tokens" counts what was computed). */
        query[0] = (char)('b' + clock.started % 24);
        bench_tick(&clock);
        status = mr_ranker_rank(ranker, request, &reply, err);
        bench_tock(&clock);
        if (status == MR_OK)
            work = reply->work;
        mr_rank_reply_free(reply);
    }
    if (status != MR_OK)
        return mr_error_prefix(err, status, "%s", what);
    const double seconds = bench_median(&clock), n = (double)request->n_candidates;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    bench_line_begin("rank", what);
    printf(
        ", \"numerics\": \"%s\", \"threads\": %d, \"candidates\": %zu, \"item_tokens\": %zu, "
        "\"prefix\": %llu, \"tokens\": %llu, \"ms\": %.2f, \"candidates_per_s\": %.1f, "
        "\"tokens_per_s\": %.1f, \"gflops\": %.1f, \"forward_share\": %.3f, \"max_rss_mb\": %.0f",
        mr_bundle_numerics_id(bundle), mr_pool_threads(bundle->pool), request->n_candidates,
        item_tokens, (unsigned long long)work.prefix_tokens,
        (unsigned long long)(work.prefix_tokens - work.prefix_tokens_cached + work.suffix_tokens),
        1e3 * seconds, n / seconds, (double)(work.prefix_tokens + work.suffix_tokens) / seconds,
        1e-9 * (double)work.flops / seconds, (double)work.forward_us / (double)work.total_us,
        (double)usage.ru_maxrss / 1024.0);
    bench_line_end();
    return MR_OK;
}

static mr_status mixed_rows(const mr_bundle *bundle, int repetitions, mr_error *err)
{
    static const struct {
        size_t candidates, tokens;
        const char *what;
    } rows[] = {{50, 1, "embedding 50 x 1"},
                {50, 4, "embedding 50 x 4"},
                {250, 1, "embedding 250 x 1"},
                {250, 4, "embedding 250 x 4"}};
    const size_t dim = bundle->item.dim;
    mr_status status = MR_OK;
    for (size_t r = 0; r < sizeof rows / sizeof *rows && status == MR_OK; r++) {
        if (rows[r].tokens > (size_t)bundle->item.tokens)
            continue;
        mr_arena arena = {0};
        mr_store *store = NULL;
        mr_ranker *ranker = NULL;
        const size_t n = rows[r].candidates, tokens = rows[r].tokens;
        mr_candidate *candidates = mr_arena_array(&arena, mr_candidate, n);
        float *values = mr_arena_array(&arena, float, tokens *dim);
        status = candidates && values ? mr_store_open(&store, "memory:", NULL, err)
                                      : MR_FAIL(err, NO_MEMORY, "%zu candidates", n);
        mr_rng rng = mr_rng_seed(7);
        for (size_t i = 0; i < n && status == MR_OK; i++) {
            const mr_record_info info = {.dtype = MR_RECORD_BF16,
                                         .version = 1,
                                         .space = bundle->item.space,
                                         .tokens = (uint16_t)tokens,
                                         .dim = (uint16_t)dim};
            for (size_t k = 0; k < tokens * dim; k++)
                values[k] = (float)mr_rng_normal(&rng);
            char id[32];
            snprintf(id, sizeof id, "item%zu", i);
            char *kept = mr_arena_strndup(&arena, id, strlen(id));
            void *record = mr_arena_alloc(&arena, mr_record_bytes(&info), 1, 16);
            status = kept && record ? mr_record_encode(&info, values, record, err)
                                    : MR_FAIL(err, NO_MEMORY, "a record");
            candidates[i].id = mr_str_of(kept);
            const mr_store_put_item item = {candidates[i].id, {record, mr_record_bytes(&info)}};
            mr_store_put_result result;
            if (status == MR_OK)
                status = mr_store_put(store, MR_ENTITY_ITEM, info.space, &item, 1, &result, err);
        }
        if (status == MR_OK)
            status = mr_ranker_new(&ranker, bundle, store, NULL, err);
        mr_rank_request request = MR_RANK_REQUEST_DEFAULT;
        request.candidates = candidates;
        request.n_candidates = n;
        if (status == MR_OK)
            status = time_row(rows[r].what, ranker, bundle, &request, tokens, repetitions, err);
        mr_ranker_free(ranker);
        mr_store_close(store);
        mr_arena_done(&arena);
    }
    return status;
}

/* The twin: the same weights and prefix, the item as text in the suffix. */
static mr_status make_text_bundle(const mr_bundle *bundle, const char *folder, mr_error *err)
{
    mr_arena arena = {0};
    char *llm = mr_path_join(&arena, bundle->folder, "llm");
    json_t *spec = json_pack(
        "{s:i, s:s, s:s, s:s, s:b, s:i, s:[s, {s:s}], s:[{s:s}, {s:s}], s:{s:s, s:s, s:s}}",
        "format", 1, "name", "text twin", "version", "1", "mode", "text", "untrained",
        bundle->untrained, "max_length", 1024, "prefix",
        "Rank the item for this person. Query: ", "field", "query", "suffix", "field", "text",
        "token", "<|endoftext|>", "score", "kind", "yes_no", "yes", "yes", "no", "no");
    const mr_bundle_create_options opt = {
        .spec = spec, .llm = llm, .link = true, .overwrite = true};
    mr_status status =
        llm && spec ? mr_bundle_create(folder, &opt, err) : MR_FAIL(err, NO_MEMORY, "text twin");
    json_decref(spec);
    mr_arena_done(&arena);
    return status;
}

static mr_status text_rows(const char *folder, const bench_options *opt, mr_error *err)
{
    static const struct {
        size_t candidates, tokens;
        const char *what;
    } rows[] = {{10, 200, "text 10 x 200"}, {4, 900, "text 4 x 900"}};
    mr_bundle *bundle = NULL;
    mr_ranker *ranker = NULL;
    mr_bundle_options options = MR_BUNDLE_OPTIONS_DEFAULT;
    options.threads = (int)opt->threads;
    mr_status status = mr_bundle_open(&bundle, folder, &options, err);
    if (status == MR_OK)
        status = mr_ranker_new(&ranker, bundle, NULL, NULL, err);
    for (size_t r = 0; r < sizeof rows / sizeof *rows && status == MR_OK; r++) {
        char text[1024];
        for (size_t i = 0; i < rows[r].tokens; i++) /* "a b c ..": one byte, one token */
            text[i] = i % 2 ? ' ' : (char)('a' + i % 26);
        mr_candidate candidates[16];
        const mr_field field = {mr_str_of("text"), {text, rows[r].tokens}};
        for (size_t i = 0; i < rows[r].candidates; i++)
            candidates[i] = (mr_candidate){.fields = {&field, 1}};
        mr_rank_request request = MR_RANK_REQUEST_DEFAULT;
        request.candidates = candidates;
        request.n_candidates = rows[r].candidates;
        status = time_row(rows[r].what, ranker, bundle, &request, rows[r].tokens, 3, err);
    }
    mr_ranker_free(ranker);
    mr_bundle_close(bundle);
    return status;
}

int main(int argc, char **argv)
{
    bench_options opt = {.repetitions = 11};
    const bench_options defaults = opt;
    mr_error err = {0};
    int n_positional = 0;
    bool help_wanted = false;
    if (mr_options_parse(table, argc, argv, &opt, &n_positional, &help_wanted, &err) != MR_OK)
        return fail(&err);
    if (help_wanted || !opt.bundle) {
        mr_options_print_help(stdout, &help, table, &defaults);
        return help_wanted ? 0 : 2;
    }
    mr_bundle *bundle = NULL;
    mr_bundle_options options = MR_BUNDLE_OPTIONS_DEFAULT;
    options.threads = (int)opt.threads;
    mr_status status = mr_bundle_open(&bundle, opt.bundle, &options, &err);
    if (status == MR_OK)
        status = mixed_rows(bundle, (int)opt.repetitions, &err);
    if (status == MR_OK && !opt.quick) {
        char twin[4096];
        snprintf(twin, sizeof twin, "%s-text", opt.bundle);
        const char *folder = opt.text_bundle ? opt.text_bundle : twin;
        status = make_text_bundle(bundle, folder, &err);
        if (status == MR_OK)
            status = text_rows(folder, &opt, &err);
    }
    mr_bundle_close(bundle);
    return status == MR_OK ? 0 : fail(&err);
}
