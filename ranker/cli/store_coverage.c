/* store_coverage.c - mixrank store coverage: how much of the next bundle's spaces is there. Shared
 * with switch, which asks for the same before it switches.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "core/progress.h"
#include "encoders/space.h"
#include "featurestore/coverage.h"
#include "featurestore/record.h"
#include "ranker/cli/store_commands.h"

typedef struct {
    mr_store_access access;
    const char *bundle, *against;
    double min;
    int64_t list;
    bool json, quiet;
} coverage_options;

static const mr_option options[] = {
    MR_STORE_ACCESS_OPTIONS(coverage_options),
    MR_OPTION_STRING("bundle", 'b', "DIR", coverage_options, bundle, "the next bundle"),
    MR_OPTION_STRING("against", 0, "DIR", coverage_options, against,
                     "the current bundle; else the store's active one"),
    MR_OPTION_REAL("min", 0, "SHARE", coverage_options, min, 0, 1, "exit with 1 below this share"),
    MR_OPTION_INT("list", 0, "N", coverage_options, list, 0, 1e6,
                  "name the first N ids that are missing"),
    MR_OPTION_FLAG("json", 0, coverage_options, json, "print JSON"),
    MR_OPTION_FLAG("quiet", 0, coverage_options, quiet, "no progress bar"),
    MR_OPTION_END,
};

static const mr_command_help help = {
    "store coverage", "--bundle NEXT --store URL [options]",
    "Of the ids in the current bundle's spaces, counts those that the next bundle's spaces have "
    "too, "
    "and names the missing ones. Exits with 1 below --min.",
    "  mixrank store coverage -b bundles/2 -s redis://127.0.0.1\n"};

/* ---- the report ------------------------------------------------------------------------------ */

typedef struct {
    json_t *missing;
    size_t limit;
    mr_progress *bar;
} report_context;

static void on_lacking(void *context, mr_str id)
{
    report_context *report = context;
    if (json_array_size(report->missing) < report->limit)
        json_array_append_new(report->missing, mr_command_json_text(id));
}

static void on_progress(void *context, uint64_t done)
{
    report_context *report = context;
    mr_progress_update(report->bar, done, NULL);
}

static bool on_any(void *context, mr_str id, mr_bytes record)
{
    mr_record_info info;
    (void)id;
    *(bool *)context = mr_record_peek(NULL, record, &info, NULL) == MR_OK && !info.tombstone;
    return !*(bool *)context;
}

static mr_status cover(mr_store *store, mr_store_kind kind, struct mr_store_cover *out,
                       json_t *missing, size_t limit, mr_error *err)
{
    mr_coverage coverage = {0};
    mr_progress bar = mr_progress_start(mr_store_kind_names[kind], 0, "ids");
    report_context report = {missing, limit, &bar};
    mr_status status = mr_store_coverage(store, mr_store_kind_entity(kind), out->current, out->next,
                                         on_lacking, on_progress, &report, &coverage, err);
    mr_progress_finish(&bar, NULL);
    out->ids = coverage.ids;
    out->covered = coverage.covered;
    out->missing = coverage.missing;
    out->removed = coverage.removed;
    out->damaged = coverage.damaged;
    out->older = coverage.older;
    out->tombstones = coverage.tombstones;
    out->share = mr_coverage_share(&coverage);
    return status;
}

mr_status mr_store_report_make(mr_store *store, const uint64_t *current, const uint64_t *next,
                               size_t limit, mr_store_report *out, mr_error *err)
{
    mr_status status = MR_OK;
    *out = (mr_store_report){.share = 1};
    for (int kind = 0; status == MR_OK && kind < MR_KIND_COUNT; kind++) {
        out->kind[kind] = (struct mr_store_cover){
            .current = current ? current[kind] : 0, .next = next[kind], .share = 1};
        out->compared[kind] = out->kind[kind].current && out->kind[kind].next;
        out->same[kind] = out->compared[kind] && out->kind[kind].current == out->kind[kind].next;
        if (!out->compared[kind] || out->same[kind])
            continue;
        out->missing[kind] = json_array();
        status =
            cover(store, (mr_store_kind)kind, &out->kind[kind], out->missing[kind], limit, err);
        if (out->kind[kind].share < out->share)
            out->share = out->kind[kind].share;
    }
    if (status == MR_OK && next[MR_KIND_ITEM]) {
        bool any = false;
        status = mr_store_walk(store, MR_ENTITY_ITEM, next[MR_KIND_ITEM], on_any, &any, err);
        out->empty = !any;
        if (out->empty)
            out->share = 0;
    }
    return status;
}

void mr_store_report_free(mr_store_report *report)
{
    for (int kind = 0; kind < MR_KIND_COUNT; kind++)
        json_decref(report->missing[kind]);
}

void mr_store_report_print(const mr_store_report *report)
{
    for (int kind = 0; kind < MR_KIND_COUNT; kind++) {
        const struct mr_store_cover *c = &report->kind[kind];
        char from[MR_SPACE_TEXT], to[MR_SPACE_TEXT];
        mr_space_format(c->current, from);
        mr_space_format(c->next, to);
        if (!c->next)
            continue;
        printf("%ss  %s -> %s  ", mr_store_kind_names[kind], c->current ? from : "none", to);
        if (report->same[kind])
            puts("the same space");
        else if (!report->compared[kind])
            puts("new: nothing to compare with");
        else
            printf("%.4f: of %" PRIu64 " ids %" PRIu64 " there (%" PRIu64
                   " of an older version), %" PRIu64 " removed there, %" PRIu64 " missing, %" PRIu64
                   " damaged; %" PRIu64 " tombstones apart\n",
                   c->share, c->ids, c->covered, c->older, c->removed, c->missing, c->damaged,
                   c->tombstones);
        size_t i;
        json_t *id;
        json_array_foreach(report->missing[kind], i, id)
        {
            printf("  missing  ");
            mr_command_print_text(stdout, (mr_str){json_string_value(id), json_string_length(id)});
            putchar('\n');
        }
        const uint64_t lacking = c->missing + c->damaged;
        if (report->missing[kind] && lacking > json_array_size(report->missing[kind]))
            printf("  and %" PRIu64 " more\n", lacking - json_array_size(report->missing[kind]));
    }
    if (report->empty)
        puts("the next bundle's item space is empty: encode into it first");
    printf("share %.4f\n", report->share);
}

json_t *mr_store_report_json(const mr_store_report *report)
{
    json_t *root = json_pack("{s:f, s:b}", "share", report->share, "empty", report->empty);
    for (int kind = 0; root && kind < MR_KIND_COUNT; kind++) {
        const struct mr_store_cover *c = &report->kind[kind];
        char from[MR_SPACE_TEXT], to[MR_SPACE_TEXT];
        mr_space_format(c->current, from);
        mr_space_format(c->next, to);
        if (!c->next)
            continue;
        json_t *one = json_pack(
            "{s:o, s:s, s:b, s:b, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "from",
            c->current ? json_string(from) : json_null(), "to", to, "compared",
            report->compared[kind], "same", report->same[kind], "share", c->share, "ids",
            (json_int_t)c->ids, "covered", (json_int_t)c->covered, "older", (json_int_t)c->older,
            "removed", (json_int_t)c->removed, "missing", (json_int_t)c->missing, "damaged",
            (json_int_t)c->damaged, "tombstones", (json_int_t)c->tombstones, "missing_ids",
            report->missing[kind] ? json_incref(report->missing[kind]) : json_array());
        json_object_set_new(root, mr_store_kind_names[kind], one);
    }
    return root;
}

/* ---- the command ----------------------------------------------------------------------------- */

static mr_status make_report(mr_store *store, const coverage_options *opt, mr_store_report *out,
                             mr_error *err)
{
    uint64_t next[MR_KIND_COUNT], current[MR_KIND_COUNT];
    mr_arena arena = {0};
    mr_active active;
    mr_status status = mr_bundle_spaces(opt->bundle, next, err);
    if (status == MR_OK && opt->against) {
        status = mr_bundle_spaces(opt->against, current, err);
    } else if (status == MR_OK) {
        status = mr_active_read(store, &arena, &active, err);
        if (status == MR_OK && !active.generation)
            status = MR_FAIL(err, NOT_FOUND,
                             "the store names no active bundle to compare with; give the current "
                             "one by --against");
        if (status == MR_OK)
            mr_active_spaces(&active.bundle, current);
    }
    if (status == MR_OK)
        status = mr_store_report_make(store, current, next, (size_t)opt->list, out, err);
    mr_arena_done(&arena);
    return status;
}

int mr_store_cmd_coverage(int argc, char **argv)
{
    coverage_options opt = {.access = MR_STORE_ACCESS_DEFAULT, .min = 0.99, .list = 20};
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
    mr_status status = mr_store_access_open(&store, &opt.access, MR_STORE_READ, &err);
    if (status == MR_OK)
        status = make_report(store, &opt, &report, &err);
    if (status != MR_OK)
        code = mr_command_fail(help.name, &err);
    else if (opt.json)
        mr_command_print_json(mr_store_report_json(&report));
    else
        mr_store_report_print(&report);
    if (status == MR_OK && report.share < opt.min) {
        fprintf(stderr, "mixrank store coverage: %.4f is under --min %g\n", report.share, opt.min);
        code = MR_EXIT_FAILED;
    }
    mr_store_report_free(&report);
    mr_store_close(store);
    return code;
}
