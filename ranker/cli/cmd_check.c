/* cmd_check.c - mixrank check: what this machine and build can do, and whether a bundle and a store
 * fit each other.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core/clock.h"
#include "encoders/space.h"
#include "engine/kernels.h"
#include "featurestore/store.h"
#include "mixrank_version.h"
#include "ranker/cli/command.h"
#include "ranker/cli/store_access.h"
#include "ranker/cli/store_items.h"
#include "ranker/model/bundle_write.h"
#include "ranker/model/parts.h"
#include "ranker/pipeline/ranker.h"

typedef struct {
    const char *bundle, *store;
    bool json;
} check_options;

static const mr_option options[] = {
    MR_OPTION_STRING("bundle", 'b', "DIR", check_options, bundle,
                     "open it and run its golden requests"),
    MR_OPTION_STRING("store", 's', "URL", check_options, store,
                     "open it, count its records; with --bundle: are they of the bundle's spaces?"),
    MR_OPTION_FLAG("json", 0, check_options, json, "print JSON"),
    MR_OPTION_END,
};

static const mr_command_help help = {"check", "[--bundle DIR] [--store URL]",
                                     "Shows kernels, threads and memory of this machine, opens a "
                                     "bundle with its golden requests, and "
                                     "tells whether a store holds vectors that the bundle can "
                                     "read. Exits with 1 when something does not "
                                     "fit.",
                                     "  mixrank check\n"
                                     "  mixrank check -b build/demo/bundle -s build/demo/store\n"};

static void check_machine(json_t *report)
{
    const mr_kernels *list[8];
    const size_t n = mr_kernels_available(list);
    json_t *kernels = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(kernels, json_string(list[i]->name));
    json_object_set_new(report, "version", json_string(MR_VERSION));
    json_object_set_new(report, "commit", json_string(MR_COMMIT));
    json_object_set_new(report, "threads", json_integer(mr_cpu_count()));
    json_object_set_new(report, "kernels", kernels);
    json_object_set_new(report, "kernels_in_use", json_string(mr_kernels_select()->name));
}

static mr_status check_bundle(const char *folder, mr_bundle **out, json_t *report, mr_error *err)
{
    const int64_t started = mr_clock_monotonic_us();
    mr_bundle *bundle = NULL;
    mr_status status = mr_bundle_load(&bundle, folder, 0, err);
    if (status != MR_OK)
        return status;
    *out = bundle;
    const int64_t loaded = mr_clock_monotonic_us();
    const bool golden = json_object_get(bundle->root, "golden") != NULL;
    if (golden)
        status = mr_bundle_check_golden(bundle, err);
    if (status != MR_OK)
        return status;
    mr_ranker *ranker = NULL;
    status = mr_ranker_new(&ranker, bundle, NULL, NULL, err);
    if (status != MR_OK)
        return status;
    char space[MR_SPACE_TEXT] = "none";
    if (bundle->item.kind != MR_ENCODER_NONE)
        mr_space_format(bundle->item.space, space);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    json_object_set_new(report, "bundle",
                        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:f, s:f, s:f, s:f, s:f}",
                                  "name", bundle->name, "version", bundle->version, "mode",
                                  bundle->mixed ? "mixed" : "text", "numerics_id",
                                  bundle->numerics_id, "item_space", space, "golden",
                                  golden ? "passed" : "none", "untrained", bundle->untrained,
                                  "load_ms", (double)(loaded - started) / 1e3, "golden_ms",
                                  (double)(mr_clock_monotonic_us() - loaded) / 1e3, "weights_mb",
                                  (double)mr_safetensors_bytes(bundle->llm->file) / 1048576.0,
                                  "session_mb", (double)mr_ranker_bytes(ranker) / 1048576.0,
                                  "max_rss_mb", (double)usage.ru_maxrss / 1024.0));
    mr_ranker_free(ranker);
    return MR_OK;
}

static mr_status check_store(const char *url, const mr_bundle *bundle, json_t *report,
                             mr_error *err)
{
    mr_store *store = NULL;
    mr_store_options opt = MR_STORE_OPTIONS_DEFAULT;
    opt.no_create = true;
    opt.read_only = true;
    mr_store_stats stats;
    json_t *spaces = NULL;
    mr_arena arena = {0};
    mr_status status = mr_store_access_password(&opt, &arena, err);
    if (status == MR_OK)
        status = mr_store_open(&store, url, &opt, err);
    if (status == MR_OK)
        status = mr_store_stat(store, &stats, err);
    if (status == MR_OK)
        status = mr_store_items_spaces(store, &spaces, err);
    if (status != MR_OK)
        goto out;
    json_object_set_new(report, "store",
                        json_pack("{s:s, s:I, s:f, s:f, s:o}", "backend", mr_store_backend(store),
                                  "records", (json_int_t)stats.records, "used_mb",
                                  (double)stats.used_bytes / 1048576.0, "max_mb",
                                  (double)stats.max_bytes / 1048576.0, "item_spaces", spaces));
    if (bundle)
        status = mr_store_items_check(store, url, bundle, err);
out:
    mr_store_close(store);
    mr_arena_done(&arena);
    return status;
}

static void print_report(const json_t *report)
{
    const char *section;
    json_t *value;
    json_object_foreach((json_t *)report, section, value)
    {
        if (!json_is_object(value)) {
            char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
            printf("%-15s %s\n", section, json_is_string(value) ? json_string_value(value) : text);
            free(text);
            continue;
        }
        printf("%s\n", section);
        const char *key;
        json_t *entry;
        json_object_foreach(value, key, entry)
        {
            char *text = json_dumps(entry, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
            printf("  %-13s %s\n", key, json_is_string(entry) ? json_string_value(entry) : text);
            free(text);
        }
    }
}

int mr_cmd_check(int argc, char **argv)
{
    check_options opt = {0};
    int n_positional = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n_positional, &code))
        return code;
    if (n_positional)
        return mr_command_misuse(help.name, "unexpected argument '%s'", argv[1]);
    mr_error err = {0};
    mr_bundle *bundle = NULL;
    json_t *report = json_object();
    check_machine(report);
    mr_status status = MR_OK;
    if (opt.bundle)
        status = check_bundle(opt.bundle, &bundle, report, &err);
    if (status == MR_OK && opt.store)
        status = check_store(opt.store, bundle, report, &err);
    if (status != MR_OK)
        json_object_set_new(report, "error", json_string(err.message));
    if (bundle && bundle->untrained)
        json_object_set_new(report, "notice", json_string(MR_UNTRAINED_NOTICE));
    if (opt.json)
        mr_command_print_json(json_incref(report));
    else
        print_report(report);
    if (status != MR_OK)
        code = mr_command_fail(help.name, &err);
    else if (bundle && bundle->untrained)
        mr_command_warn_untrained(help.name, !opt.json);
    json_decref(report);
    mr_bundle_close(bundle);
    return code;
}
