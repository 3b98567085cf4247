/* cmd_encode.c - mixrank encode: a catalogue and users into a store, resumable and repeatable. What
 * it does and how it goes on is in encode.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "core/clock.h"
#include "core/progress.h"
#include "featurestore/record.h"
#include "ranker/cli/command.h"
#include "ranker/cli/encode.h"
#include "ranker/cli/store_access.h"

static const char *const dtype_choices[] = {"f32", "f16", "bf16", "int8", NULL};

static const mr_option options[] = {
    MR_OPTION_STRING("bundle", 'b', "DIR", mr_encode_options, bundle, "whose encoders to use"),
    MR_OPTION_STRING(
        "store", 's', "URL", mr_encode_options, store,
        "where to write: lmdb:PATH or a path, made when it is not there, or redis://HOST:PORT"),
    MR_OPTION_STRING(
        "items", 'i', "FILE", mr_encode_options, items,
        "items as JSONL: {id, title?, text?, image?}, or {id, vector | vectors} for vectors from "
        "outside; - is standard input. An image is the path of a PNG, JPEG or BMP file, from this "
        "file's folder"),
    MR_OPTION_STRING("users", 'u', "FILE", mr_encode_options, users,
                     "users as JSONL: {id, history: [item ids]}; their items must be encoded"),
    MR_OPTION_CHOICE("dtype", 'd', "TYPE", mr_encode_options, dtype, dtype_choices,
                     "how the store keeps the numbers"),
    MR_OPTION_INT("batch", 0, "N", mr_encode_options, batch, 1, 65536, "items of one transaction"),
    MR_OPTION_INT("version", 0, "N", mr_encode_options, version, 0, 9e15,
                  "version of the records; 0: the last one, or the next when the file changed"),
    MR_OPTION_REAL("map-gb", 0, "GB", mr_encode_options, map_gb, 0.001, 65536,
                   "most that the LMDB file may grow to"),
    MR_OPTION_INT("threads", 't', "N", mr_encode_options, threads, 0, 256,
                  "threads; 0: the CPUs of this process"),
    MR_OPTION_FLAG("exact", 0, mr_encode_options, exact,
                   "encode with the scoring kernels: the same bits in any batch, slower"),
    MR_OPTION_FLAG("json", 0, mr_encode_options, json, "print the summary as JSON"),
    MR_OPTION_FLAG("quiet", 0, mr_encode_options, quiet, "no progress bar"),
    MR_OPTION_END,
};

static const mr_command_help help = {
    "encode", "--bundle DIR --store URL --items FILE [options]",
    "Turns items into embedding tokens and keeps them in a store, under the bundle's space. May be "
    "killed and started again; a second run over the same file does nothing.",
    "  mixrank encode -b build/demo/bundle -s build/demo/store -i build/demo/data/items.jsonl\n"
    "  mixrank encode -b build/demo/bundle -s build/demo/store -u build/demo/data/users.jsonl\n"};

static json_t *refusals_json(const mr_encode_state *state)
{
    json_t *list = json_array();
    for (size_t i = 0; i < state->n_refusals; i++)
        json_array_append_new(list, mr_command_json_text(mr_str_of(state->refusals[i])));
    return list;
}

/* After the bar, where they stay on the screen. */
static void print_refusals(const mr_encode_state *state)
{
    for (size_t i = 0; i < state->n_refusals; i++) {
        fprintf(stderr, "mixrank encode: refused: ");
        mr_command_print_text(stderr, mr_str_of(state->refusals[i]));
        fputc('\n', stderr);
    }
    if (state->counts.refused > state->n_refusals)
        fprintf(stderr, "mixrank encode: and %" PRIu64 " more\n",
                state->counts.refused - state->n_refusals);
}

static void print_summary(const mr_encode_state *state, const char *what, double seconds)
{
    const mr_encode_counts *counts = &state->counts;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    const double rss_mb = (double)usage.ru_maxrss / 1024.0;
    const bool untrained = mr_bundle_is_untrained(state->bundle);
    if (state->opt->json) {
        json_t *root =
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "entity",
                      what, "version", (json_int_t)state->version, "read", (json_int_t)counts->read,
                      "encoded", (json_int_t)counts->encoded, "skipped",
                      (json_int_t)counts->skipped, "empty", (json_int_t)counts->empty, "stale",
                      (json_int_t)counts->stale, "text_tokens", (json_int_t)counts->text_tokens,
                      "truncated", (json_int_t)counts->truncated, "unknown_history_items",
                      (json_int_t)counts->unknown_items, "seconds", seconds, "max_rss_mb", rss_mb);
        if (root)
            json_object_set_new(root, "refused", refusals_json(state));
        if (root)
            json_object_set_new(root, "removed", json_integer((json_int_t)counts->removed));
        if (root && untrained)
            json_object_set_new(root, "notice", json_string(MR_UNTRAINED_NOTICE));
        mr_command_print_json(root);
        return;
    }
    printf("%s: %" PRIu64 " read, %" PRIu64 " encoded at version %" PRIu64 ", %" PRIu64
           " already there, %" PRIu64 " stale, %" PRIu64 " empty",
           what, counts->read, counts->encoded, state->version, counts->skipped, counts->stale,
           counts->empty);
    if (counts->text_tokens)
        printf("; %" PRIu64 " tokens (%.0f/s), %" PRIu64 " texts cut", counts->text_tokens,
               seconds > 0 ? (double)counts->text_tokens / seconds : 0.0, counts->truncated);
    if (counts->unknown_items)
        printf("; %" PRIu64 " history items without a record", counts->unknown_items);
    if (counts->refused)
        printf("; %" PRIu64 " refused", counts->refused);
    if (counts->removed)
        printf("; %" PRIu64 " removed", counts->removed);
    printf("; %.1f s, %.0f MB at most%s\n", seconds, rss_mb,
           untrained ? "; " MR_UNTRAINED_NOTICE : "");
}

static mr_status run_stage(mr_encode_state *state, const char *what,
                           mr_status (*stage)(mr_encode_state *, mr_error *), mr_error *err)
{
    const int64_t started = mr_clock_monotonic_us();
    state->counts = (mr_encode_counts){0};
    state->n_refusals = 0;
    mr_status status = stage(state, err);
    if (status == MR_OK)
        status = mr_store_sync(state->store, err);
    print_refusals(state);
    if (status == MR_OK)
        print_summary(state, what, (double)(mr_clock_monotonic_us() - started) / 1e6);
    else if (status == MR_EXHAUSTED)
        mr_error_prefix(err, status, "with --map-gb %g", state->opt->map_gb);
    return status;
}

/* Before a store is made for it. */
static mr_status check_bundle(const mr_encode_options *opt, const mr_bundle *bundle, mr_error *err)
{
    if (opt->items && bundle->item.kind == MR_ENCODER_NONE)
        return MR_FAIL(err, MISMATCH, "bundle '%s' ranks text: it has no item vectors to keep",
                       mr_bundle_name(bundle));
    struct stat info;
    if (opt->items && bundle->image.kind == MR_ENCODER_CLIP &&
        (strcmp(opt->items, "-") == 0 || (stat(opt->items, &info) == 0 && !S_ISREG(info.st_mode))))
        return MR_FAIL(err, INVALID,
                       "bundle '%s' takes pictures too: items are read twice, so --items must be a "
                       "file",
                       mr_bundle_name(bundle));
    if (opt->users && bundle->user.kind != MR_ENCODER_HISTORY)
        return MR_FAIL(err, MISMATCH,
                       "bundle '%s' has no history encoder: its users are not made of items",
                       mr_bundle_name(bundle));
    return MR_OK;
}

int mr_cmd_encode(int argc, char **argv)
{
    mr_encode_options opt = {.batch = 64, .map_gb = 64, .dtype = MR_RECORD_BF16};
    int n_positional = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n_positional, &code))
        return code;
    if (n_positional)
        return mr_command_misuse(help.name, "unexpected argument '%s'", argv[1]);
    if (!opt.bundle || !opt.store || (!opt.items && !opt.users))
        return mr_command_misuse(help.name, "%s is missing",
                                 !opt.bundle  ? "--bundle"
                                 : !opt.store ? "--store"
                                              : "--items or --users");
    if (mr_command_count_stdin((const char *const[]){opt.items, opt.users}, 2) > 1)
        return mr_command_misuse(help.name, "standard input is one file: --items or --users");
    mr_progress_set_quiet(opt.quiet);
    mr_error err = {0};
    mr_bundle *bundle = NULL;
    mr_encode_state state = {.opt = &opt};
    mr_bundle_options bundle_options = MR_BUNDLE_OPTIONS_DEFAULT;
    bundle_options.threads = (int)opt.threads;
    /* They prove the ranking model, which nobody asks here: running them would only fill memory. */
    bundle_options.skip_golden = true;
    mr_status status = mr_bundle_open(&bundle, opt.bundle, &bundle_options, &err);
    if (status == MR_OK)
        status = check_bundle(&opt, bundle, &err);
    if (status == MR_OK) {
        mr_store_options store = MR_STORE_OPTIONS_DEFAULT;
        store.max_bytes = (uint64_t)(opt.map_gb * 0x1p30);
        store.fast_writes = true;
        status = mr_store_access_password(&store, &state.refusals_arena, &err);
        if (status == MR_OK)
            status = mr_store_open(&state.store, opt.store, &store, &err);
    }
    state.bundle = bundle;
    state.rows = calloc((size_t)opt.batch, sizeof *state.rows);
    if (status == MR_OK && !state.rows)
        status = MR_FAIL(&err, NO_MEMORY, "a batch of %lld items", (long long)opt.batch);
    if (status == MR_OK && mr_bundle_is_untrained(bundle))
        mr_command_warn_untrained(help.name, !opt.json);
    if (status == MR_OK && opt.items)
        status = run_stage(&state, "items", mr_encode_items, &err);
    if (status == MR_OK && opt.items && bundle->image.kind == MR_ENCODER_CLIP)
        status = run_stage(&state, "pictures", mr_encode_images, &err);
    if (status == MR_OK && opt.users && bundle->user.path)
        status = mr_bundle_open_user_encoder(bundle, &state.user_encoder, &err);
    if (status == MR_OK && opt.users)
        status = run_stage(&state, "users", mr_encode_users, &err);
    if (status != MR_OK)
        code = mr_command_fail(help.name, &err);

    mr_text_encoder_close(state.encoder);
    mr_user_encoder_close(state.user_encoder);
    mr_store_close(state.store);
    mr_bundle_close(bundle);
    mr_arena_done(&state.arena);
    mr_arena_done(&state.refusals_arena);
    free(state.rows);
    return code;
}
