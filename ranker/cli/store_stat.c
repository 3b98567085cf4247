/* store_stat.c - mixrank store stat: what a store holds, by entity and space.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/progress.h"
#include "core/strbuf.h"
#include "encoders/space.h"
#include "featurestore/record.h"
#include "ranker/cli/store_commands.h"

#define SHAPES 16

typedef struct {
    mr_store_access access;
    const char *bundle;
    bool json, quiet;
} stat_options;

static const mr_option options[] = {
    MR_STORE_ACCESS_OPTIONS(stat_options),
    MR_OPTION_STRING("bundle", 'b', "DIR", stat_options, bundle, "say which spaces are this one's"),
    MR_OPTION_FLAG("json", 0, stat_options, json, "print JSON"),
    MR_OPTION_FLAG("quiet", 0, stat_options, quiet, "no progress bar"),
    MR_OPTION_END,
};

static const mr_command_help help = {
    "store stat", "--store URL [options]",
    "Counts the records of every entity and space: bytes, types, shapes, versions, ages, "
    "tombstones. "
    "Goes through the whole store.",
    "  mixrank store stat -s build/demo/store -b build/demo/bundle\n"
    "  mixrank store stat -s redis://127.0.0.1 --json\n"};

typedef struct {
    uint64_t records, tombstones, unreadable, bytes;
    uint64_t dtype[MR_RECORD_DTYPE_COUNT];
    struct {
        uint16_t tokens, dim;
        uint64_t n;
    } shape[SHAPES];
    size_t n_shapes;
    uint64_t other_shapes;
    uint64_t least_version, most_version;
    int64_t oldest_ms, newest_ms; /* of records with a time */
    mr_progress *bar;
    uint64_t *done;
} space_count;

static void count_shape(space_count *count, const mr_record_info *info)
{
    for (size_t i = 0; i < count->n_shapes; i++) {
        if (count->shape[i].tokens == info->tokens && count->shape[i].dim == info->dim) {
            count->shape[i].n++;
            return;
        }
    }
    if (count->n_shapes == SHAPES) {
        count->other_shapes++;
        return;
    }
    count->shape[count->n_shapes].tokens = info->tokens;
    count->shape[count->n_shapes].dim = info->dim;
    count->shape[count->n_shapes++].n = 1;
}

static bool on_record(void *context, mr_str id, mr_bytes record)
{
    space_count *count = context;
    mr_record_info info;
    (void)id;
    mr_progress_update(count->bar, ++*count->done, NULL);
    count->bytes += record.len;
    if (mr_record_peek(NULL, record, &info, NULL) != MR_OK) {
        count->unreadable++;
        return true;
    }
    const bool first = count->records + count->tombstones == 0;
    if (first || info.version < count->least_version)
        count->least_version = info.version;
    if (first || info.version > count->most_version)
        count->most_version = info.version;
    if (info.event_ms > 0) {
        if (!count->oldest_ms || info.event_ms < count->oldest_ms)
            count->oldest_ms = info.event_ms;
        if (info.event_ms > count->newest_ms)
            count->newest_ms = info.event_ms;
    }
    if (info.tombstone) {
        count->tombstones++;
        return true;
    }
    count->records++;
    count->dtype[info.dtype]++;
    count_shape(count, &info);
    return true;
}

/* Whose space it is: of --bundle, the active one, the one before. Any number of them. */
typedef struct {
    uint64_t bundle[MR_KIND_COUNT], active[MR_KIND_COUNT], previous[MR_KIND_COUNT];
} known_spaces;

static void add_names(mr_strbuf *out, const char *whose, const uint64_t *spaces, mr_entity entity,
                      uint64_t space)
{
    for (int kind = 0; kind < MR_KIND_COUNT; kind++)
        if (spaces[kind] == space && space && mr_store_kind_entity((mr_store_kind)kind) == entity)
            mr_strbuf_printf(out, "%s%s's %ss", out->len ? ", " : "", whose,
                             mr_store_kind_names[kind]);
}

static void print_space(mr_entity entity, uint64_t space, const space_count *count,
                        const char *names)
{
    char text[MR_SPACE_TEXT];
    mr_space_format(space, text);
    printf("%s %s%s%s%s\n", entity == MR_ENTITY_USER ? "user" : "item", text, *names ? "  (" : "",
           names, *names ? ")" : "");
    printf("  records     %" PRIu64 ", tombstones %" PRIu64 ", unreadable %" PRIu64 ", %" PRIu64
           " bytes\n",
           count->records, count->tombstones, count->unreadable, count->bytes);
    if (count->records + count->tombstones)
        printf("  versions    %" PRIu64 " to %" PRIu64 "\n", count->least_version,
               count->most_version);
    if (count->records) {
        printf("  types      ");
        for (int dtype = 0; dtype < MR_RECORD_DTYPE_COUNT; dtype++)
            if (count->dtype[dtype])
                printf(" %s %" PRIu64, mr_record_dtype_name((mr_record_dtype)dtype),
                       count->dtype[dtype]);
        printf("\n  shapes     ");
        for (size_t i = 0; i < count->n_shapes; i++)
            printf("%s %u x %u: %" PRIu64, i ? "," : "", count->shape[i].tokens,
                   count->shape[i].dim, count->shape[i].n);
        if (count->other_shapes)
            printf(", others: %" PRIu64, count->other_shapes);
        putchar('\n');
    }
    if (count->newest_ms) {
        const double now = (double)mr_clock_wall_ms();
        printf("  age         %.1f h to %.1f h\n", (now - (double)count->newest_ms) / 3.6e6,
               (now - (double)count->oldest_ms) / 3.6e6);
    }
}

static json_t *space_json(mr_entity entity, uint64_t space, const space_count *count,
                          const char *names)
{
    char text[MR_SPACE_TEXT], least[24], most[24];
    mr_space_format(space, text);
    snprintf(least, sizeof least, "%" PRIu64, count->least_version);
    snprintf(most, sizeof most, "%" PRIu64, count->most_version);
    json_t *dtypes = json_object(), *shapes = json_object();
    for (int dtype = 0; dtype < MR_RECORD_DTYPE_COUNT; dtype++)
        if (count->dtype[dtype])
            json_object_set_new(dtypes, mr_record_dtype_name((mr_record_dtype)dtype),
                                json_integer((json_int_t)count->dtype[dtype]));
    for (size_t i = 0; i < count->n_shapes; i++) {
        char shape[24];
        snprintf(shape, sizeof shape, "%ux%u", count->shape[i].tokens, count->shape[i].dim);
        json_object_set_new(shapes, shape, json_integer((json_int_t)count->shape[i].n));
    }
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:s, s:I, s:I, s:o, s:o, s:I}",
                     "entity", entity == MR_ENTITY_USER ? "user" : "item", "space", text, "names",
                     names, "records", (json_int_t)count->records, "tombstones",
                     (json_int_t)count->tombstones, "unreadable", (json_int_t)count->unreadable,
                     "bytes", (json_int_t)count->bytes, "least_version", least, "most_version",
                     most, "oldest_ms", (json_int_t)count->oldest_ms, "newest_ms",
                     (json_int_t)count->newest_ms, "dtypes", dtypes, "shapes", shapes,
                     "other_shapes", (json_int_t)count->other_shapes);
}

typedef struct {
    mr_store *store;
    const known_spaces *known;
    json_t *out; /* NULL: printed */
    mr_progress bar;
    uint64_t done;
} stat_visit;

static mr_status stat_space(void *context, mr_entity entity, uint64_t space, mr_error *err)
{
    stat_visit *visit = context;
    const known_spaces *known = visit->known;
    space_count count = {.bar = &visit->bar, .done = &visit->done};
    mr_strbuf names = {0};
    mr_status status = mr_store_walk(visit->store, entity, space, on_record, &count, err);
    add_names(&names, "the bundle", known->bundle, entity, space);
    add_names(&names, "the active bundle", known->active, entity, space);
    add_names(&names, "the previous bundle", known->previous, entity, space);
    const char *text = names.data ? names.data : "";
    if (status == MR_OK && visit->out)
        json_array_append_new(visit->out, space_json(entity, space, &count, text));
    else if (status == MR_OK)
        print_space(entity, space, &count, text);
    mr_strbuf_release(&names);
    return status;
}

static mr_status know_spaces(mr_store *store, const stat_options *opt, known_spaces *out,
                             mr_error *err)
{
    mr_arena arena = {0};
    mr_active active;
    mr_status status = mr_active_read(store, &arena, &active, err);
    if (status == MR_OK) {
        mr_active_spaces(&active.bundle, out->active);
        mr_active_spaces(&active.previous, out->previous);
    }
    if (status == MR_OK && opt->bundle)
        status = mr_bundle_spaces(opt->bundle, out->bundle, err);
    mr_arena_done(&arena);
    return status;
}

int mr_store_cmd_stat(int argc, char **argv)
{
    stat_options opt = {.access = MR_STORE_ACCESS_DEFAULT};
    int n = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n, &code))
        return code;
    if (n)
        return mr_command_misuse(help.name, "unexpected argument '%s'", argv[1]);
    if (!opt.access.store)
        return mr_command_misuse(help.name, "--store is missing");
    mr_progress_set_quiet(opt.quiet);
    mr_error err = {0};
    mr_store *store = NULL;
    mr_store_stats stats = {0};
    known_spaces known = {{0}, {0}, {0}};
    json_t *spaces = opt.json ? json_array() : NULL;
    mr_status status = mr_store_access_open(&store, &opt.access, MR_STORE_READ, &err);
    if (status == MR_OK)
        status = mr_store_stat(store, &stats, &err);
    if (status == MR_OK)
        status = know_spaces(store, &opt, &known, &err);
    if (status == MR_OK && !opt.json)
        printf("%s store: %" PRIu64 " records, %" PRIu64 " of %" PRIu64 " bytes used\n",
               mr_store_backend(store), stats.records, stats.used_bytes, stats.max_bytes);
    if (status == MR_OK) {
        stat_visit visit = {.store = store,
                            .known = &known,
                            .out = spaces,
                            .bar = mr_progress_start("counting", stats.records, "records")};
        status = mr_store_each_space(store, MR_ENTITY_COUNT, stat_space, &visit, &err);
        mr_progress_finish(&visit.bar, NULL);
    }
    if (status == MR_OK && opt.json)
        mr_command_print_json(
            json_pack("{s:s, s:I, s:I, s:I, s:O}", "backend", mr_store_backend(store), "records",
                      (json_int_t)stats.records, "used_bytes", (json_int_t)stats.used_bytes,
                      "max_bytes", (json_int_t)stats.max_bytes, "spaces", spaces));
    if (status != MR_OK)
        code = mr_command_fail(help.name, &err);
    json_decref(spaces);
    mr_store_close(store);
    return code;
}
