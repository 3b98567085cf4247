/* store_active.c - mixrank store active, switch, rollback: the note that bundle and spaces switch
 * by. What it is, and why two operators cannot cross, is in ranker/pipeline/active.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "core/progress.h"
#include "encoders/space.h"
#include "ranker/cli/store_commands.h"

typedef struct {
    mr_store_access access;
    const char *bundle;
    double min;
    int64_t list, threads;
    bool force, json, quiet;
} active_options;

/* ---- showing --------------------------------------------------------------------------------- */

static json_t *bundle_json(const mr_active_bundle *bundle)
{
    uint64_t spaces[MR_KIND_COUNT];
    if (!bundle->name)
        return json_null();
    json_t *out = json_pack("{s:s, s:s, s:s, s:s}", "name", bundle->name, "version",
                            bundle->version, "digest", bundle->digest, "path", bundle->path);
    mr_active_spaces(bundle, spaces);
    for (int kind = 0; out && kind < MR_KIND_COUNT; kind++) {
        char text[MR_SPACE_TEXT], key[16];
        mr_space_format(spaces[kind], text);
        snprintf(key, sizeof key, "%s_space", mr_store_kind_names[kind]);
        json_object_set_new(out, key, spaces[kind] ? json_string(text) : json_null());
    }
    return out;
}

static void print_bundle(const char *what, const mr_active_bundle *bundle)
{
    uint64_t spaces[MR_KIND_COUNT];
    if (!bundle->name)
        return;
    printf("%-9s ", what);
    mr_command_print_text(stdout, mr_str_of(bundle->name));
    putchar(' ');
    mr_command_print_text(stdout, mr_str_of(bundle->version));
    printf(", digest %.12s, in ", bundle->digest);
    mr_command_print_text(stdout, mr_str_of(bundle->path));
    putchar('\n');
    mr_active_spaces(bundle, spaces);
    for (int kind = 0; kind < MR_KIND_COUNT; kind++) {
        char text[MR_SPACE_TEXT];
        mr_space_format(spaces[kind], text);
        if (spaces[kind])
            printf("  %ss  %s\n", mr_store_kind_names[kind], text);
    }
}

/* Reads the note again and shows it. report may be NULL. */
static mr_status show(mr_store *store, const active_options *opt, const mr_store_report *report,
                      mr_error *err)
{
    mr_arena arena = {0};
    mr_active active;
    mr_status status = mr_active_read(store, &arena, &active, err);
    if (status == MR_OK && !active.generation)
        status = MR_FAIL(err, NOT_FOUND,
                         "the store names no active bundle; `mixrank store switch` does");
    if (status == MR_OK && opt->json) {
        json_t *root =
            json_pack("{s:I, s:I, s:o, s:o}", "generation", (json_int_t)active.generation,
                      "switched_ms", (json_int_t)active.switched_ms, "bundle",
                      bundle_json(&active.bundle), "previous", bundle_json(&active.previous));
        if (root && report)
            json_object_set_new(root, "coverage", mr_store_report_json(report));
        mr_command_print_json(root);
    } else if (status == MR_OK) {
        printf("generation %" PRIu64 "\n", active.generation);
        print_bundle("active", &active.bundle);
        print_bundle("previous", &active.previous);
    }
    mr_arena_done(&arena);
    return status;
}

static const mr_option show_options[] = {
    MR_STORE_ACCESS_OPTIONS(active_options),
    MR_OPTION_FLAG("json", 0, active_options, json, "print JSON"),
    MR_OPTION_END,
};

int mr_store_cmd_active(int argc, char **argv)
{
    static const mr_command_help help = {
        "store active", "--store URL [--json]",
        "Shows the bundle that the store is ranked with, and the one before it.",
        "  mixrank store active -s build/demo/store\n"};
    active_options opt = {.access = MR_STORE_ACCESS_DEFAULT};
    int n = 0, code = 0;
    if (!mr_command_options(&help, show_options, argc, argv, &opt, &n, &code))
        return code;
    if (n || !opt.access.store)
        return mr_command_misuse(help.name, "%s", n ? "unexpected argument" : "--store is missing");
    mr_error err = {0};
    mr_store *store = NULL;
    mr_status status = mr_store_access_open(&store, &opt.access, MR_STORE_READ, &err);
    if (status == MR_OK)
        status = show(store, &opt, NULL, &err);
    if (status != MR_OK)
        code = mr_command_fail(help.name, &err);
    mr_store_close(store);
    return code;
}

/* ---- switch ---------------------------------------------------------------------------------- */

/* The bundle whole, with its golden requests: one that cannot rank is not switched to. */
static mr_status describe_next(const active_options *opt, mr_arena *arena, mr_active_bundle *out,
                               mr_error *err)
{
    mr_bundle *bundle = NULL;
    mr_bundle_options options = MR_BUNDLE_OPTIONS_DEFAULT;
    options.threads = (int)opt->threads;
    mr_status status = mr_bundle_open(&bundle, opt->bundle, &options, err);
    if (status == MR_OK)
        status = mr_active_describe(bundle, opt->bundle, arena, out, err);
    if (status == MR_OK && mr_bundle_is_untrained(bundle))
        mr_command_warn_untrained("store switch", false);
    mr_bundle_close(bundle);
    return status;
}

static mr_status switch_bundle(mr_store *store, const active_options *opt, mr_store_report *report,
                               mr_error *err)
{
    mr_arena arena = {0};
    mr_active now;
    mr_active_bundle next;
    uint64_t current_spaces[MR_KIND_COUNT], next_spaces[MR_KIND_COUNT];
    /* The note first: what is decided below is decided about this generation. */
    mr_status status = mr_active_read(store, &arena, &now, err);
    if (status == MR_OK)
        status = describe_next(opt, &arena, &next, err);
    if (status == MR_OK) {
        mr_active_spaces(&now.bundle, current_spaces);
        mr_active_spaces(&next, next_spaces);
        status = mr_store_report_make(store, now.generation ? current_spaces : NULL, next_spaces,
                                      (size_t)opt->list, report, err);
    }
    if (status == MR_OK && report->share < opt->min && !opt->force)
        status = MR_FAIL(err, MISMATCH,
                         "the next bundle's spaces have %.4f of what the current one's have%s, "
                         "under --min %g: nothing was switched. `mixrank store coverage` names "
                         "what is missing; --force switches all the same",
                         report->share, report->empty ? " (no item at all)" : "", opt->min);
    if (status == MR_OK)
        status = mr_active_switch(store, &now, &next, err);
    if (status == MR_OK)
        status = mr_store_sync(store, err);
    mr_arena_done(&arena);
    return status;
}

int mr_store_cmd_switch(int argc, char **argv)
{
    static const mr_option options[] = {
        MR_STORE_ACCESS_OPTIONS(active_options),
        MR_OPTION_STRING("bundle", 'b', "DIR", active_options, bundle, "the next bundle"),
        MR_OPTION_REAL("min", 0, "SHARE", active_options, min, 0, 1,
                       "refuse to switch below this coverage"),
        MR_OPTION_FLAG("force", 0, active_options, force, "switch below it all the same"),
        MR_OPTION_INT("threads", 't', "N", active_options, threads, 0, 256,
                      "threads; 0: the CPUs of this process"),
        MR_OPTION_FLAG("json", 0, active_options, json, "print JSON"),
        MR_OPTION_FLAG("quiet", 0, active_options, quiet, "no progress bar"),
        MR_OPTION_END,
    };
    static const mr_command_help help = {
        "store switch", "--bundle NEXT --store URL [options]",
        "Makes a bundle and its spaces the active ones, in one write; services pick it up. The "
        "bundle is opened with its golden requests, and what the store has of its spaces is "
        "counted first.",
        "  mixrank store switch -b build/demo/bundle -s build/demo/store\n"};
    active_options opt = {.access = MR_STORE_ACCESS_DEFAULT, .min = 0.99};
    int n = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n, &code))
        return code;
    if (n)
        return mr_command_misuse(help.name, "unexpected argument '%s'", argv[1]);
    if (!opt.access.store || !opt.bundle)
        return mr_command_misuse(help.name, "%s is missing", opt.bundle ? "--store" : "--bundle");
    mr_progress_set_quiet(opt.quiet);
    mr_error err = {0};
    mr_store *store = NULL;
    mr_store_report report = {0};
    mr_status status = mr_store_access_open(&store, &opt.access, MR_STORE_CHANGE, &err);
    if (status == MR_OK)
        status = switch_bundle(store, &opt, &report, &err);
    if (status == MR_OK)
        status = show(store, &opt, &report, &err);
    if (status != MR_OK)
        code = mr_command_fail(help.name, &err);
    mr_store_report_free(&report);
    mr_store_close(store);
    return code;
}

/* ---- rollback -------------------------------------------------------------------------------- */

int mr_store_cmd_rollback(int argc, char **argv)
{
    static const mr_command_help help = {
        "store rollback", "--store URL [--json]",
        "Makes the previous bundle the active one again, and the active one the previous. Services "
        "have it loaded still. A second one goes forward again.",
        "  mixrank store rollback -s redis://127.0.0.1\n"};
    active_options opt = {.access = MR_STORE_ACCESS_DEFAULT};
    int n = 0, code = 0;
    if (!mr_command_options(&help, show_options, argc, argv, &opt, &n, &code))
        return code;
    if (n || !opt.access.store)
        return mr_command_misuse(help.name, "%s", n ? "unexpected argument" : "--store is missing");
    mr_error err = {0};
    mr_store *store = NULL;
    mr_arena arena = {0};
    mr_active now;
    mr_status status = mr_store_access_open(&store, &opt.access, MR_STORE_CHANGE, &err);
    if (status == MR_OK)
        status = mr_active_read(store, &arena, &now, &err);
    if (status == MR_OK)
        status = mr_active_roll_back(store, &now, &err);
    if (status == MR_OK)
        status = mr_store_sync(store, &err);
    if (status == MR_OK)
        status = show(store, &opt, NULL, &err);
    if (status != MR_OK)
        code = mr_command_fail(help.name, &err);
    mr_arena_done(&arena);
    mr_store_close(store);
    return code;
}
