/* catalogue.c - see catalogue.h. The order of the steps; each is a file of its own.
 * SPDX-License-Identifier: Apache-2.0 */
#include "deploy/demo/catalogue.h"

#include <string.h>

#include "core/file.h"
#include "core/progress.h"
#include "core/strbuf.h"
#include "deploy/demo/archive.h"
#include "deploy/demo/output.h"
#include "deploy/demo/report.h"

#define ARENA_BYTES ((size_t)1 << 30)

typedef struct {
    mr_file_map packages, translations, sources, components, release, vocabulary;
    char suite[64], date[64];
    mr_arena arena;
    demo_archive archive;
    demo_components component_list;
    demo_items items;
    demo_people people;
    demo_bm25 full, detail;
    demo_output output;
    demo_report report;
} build;

static mr_status map_file(mr_file_map *out, const char *path, mr_error *err)
{
    mr_status status = mr_file_map_open(out, path, err);
    if (status == MR_OK && out->len > DEMO_FILE_BYTES)
        return MR_FAIL(err, EXHAUSTED, "'%s' has %zu bytes, expected at most %zu", path, out->len,
                       DEMO_FILE_BYTES);
    return status;
}

static mr_status map_list(mr_file_map *out, const char *folder, const char *name, mr_error *err)
{
    mr_strbuf path = {0};
    mr_strbuf_printf(&path, "%s/%s", folder, name);
    mr_status status = path.failed ? MR_FAIL(err, NO_MEMORY, "the path of '%s'", name)
                                   : map_file(out, path.data, err);
    mr_strbuf_release(&path);
    return status;
}

static mr_status map_all(build *b, const demo_options *options, mr_error *err)
{
    const struct {
        mr_file_map *map;
        const char *name;
    } list[] = {
        {&b->packages, "Packages"}, {&b->translations, "Translation-en"},
        {&b->sources, "Sources"},   {&b->components, "Components.yml"},
        {&b->release, "Release"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        mr_status status = map_list(list[i].map, options->lists, list[i].name, err);
        if (status != MR_OK)
            return status;
    }
    return map_file(&b->vocabulary, options->vocabulary, err);
}

static mr_str text_of(const mr_file_map *map)
{
    return (mr_str){map->data, map->len};
}

static void copy_value(char *out, size_t size, mr_str value)
{
    size_t len = value.len < size - 1 ? value.len : size - 1;
    if (len)
        memcpy(out, value.data, len);
    out[len] = '\0';
}

/* A release file is one stanza, signed inline or not; only two of its lines are wanted, and the
 * signature's armour is no stanza. */
static mr_status read_release(build *b, mr_error *err)
{
    mr_str rest = text_of(&b->release), line;
    while (demo_lines_next(&rest, &line)) {
        if (line.len > 10 && memcmp(line.data, "Codename: ", 10) == 0 && !b->suite[0])
            copy_value(b->suite, sizeof b->suite,
                       demo_trim((mr_str){line.data + 10, line.len - 10}));
        if (line.len > 6 && memcmp(line.data, "Date: ", 6) == 0 && !b->date[0])
            copy_value(b->date, sizeof b->date, demo_trim((mr_str){line.data + 6, line.len - 6}));
    }
    if (!b->suite[0] || !b->date[0])
        return MR_FAIL(err, CORRUPT,
                       "Release: no 'Codename:' or no 'Date:'; is it a release file?");
    return MR_OK;
}

static mr_status index_texts(build *b, mr_error *err)
{
    mr_status status = MR_OK;
    for (size_t i = 0; i < b->items.n && status == MR_OK; i++) {
        const demo_item *item = &b->items.item[i];
        status = demo_bm25_add(&b->full, (uint32_t)i, item->summary, err);
        if (status == MR_OK)
            status = demo_bm25_add(&b->full, (uint32_t)i, item->detail, err);
        if (status == MR_OK)
            status = demo_bm25_add(&b->detail, (uint32_t)i, item->detail, err);
    }
    if (status == MR_OK)
        status = demo_bm25_finish(&b->full, b->items.n, err);
    if (status == MR_OK)
        status = demo_bm25_finish(&b->detail, b->items.n, err);
    return status;
}

static mr_status read_all(build *b, const demo_options *options, mr_progress *bar, mr_error *err)
{
    mr_status status = map_all(b, options, err);
    if (status == MR_OK)
        status = read_release(b, err);
    if (status == MR_OK)
        status =
            demo_archive_read(&b->archive, text_of(&b->packages), text_of(&b->translations), err);
    mr_progress_update(bar, 1, "packages");
    if (status == MR_OK)
        status = demo_dep11_read("Components.yml", text_of(&b->components), DEMO_ICON_SIZE,
                                 &b->arena, &b->component_list, err);
    mr_progress_update(bar, 2, "programs");
    if (status == MR_OK) {
        demo_archive_select(&b->archive, &b->component_list);
        status = demo_items_build(&b->items, &b->archive, &b->component_list,
                                  text_of(&b->vocabulary), options->icons, &b->arena, err);
    }
    if (status == MR_OK)
        status = demo_people_read(&b->people, text_of(&b->sources), &b->items, err);
    if (status == MR_OK)
        status = index_texts(b, err);
    mr_progress_update(bar, 3, "texts");
    return status;
}

static mr_status write_all(build *b, const demo_options *options, mr_progress *bar, mr_error *err)
{
    mr_status status = demo_output_open(&b->output, options->out, &b->items, err);
    if (status == MR_OK)
        status = demo_output_items(&b->output, options->icons, err);
    if (status == MR_OK)
        status = demo_output_users(&b->output, &b->people, err);
    if (status == MR_OK)
        status = demo_training_texts(&b->output.training, &b->archive, err);
    if (status == MR_OK)
        status = demo_training_pairs(&b->output.training, &b->archive, err);
    mr_progress_update(bar, 4, "queries");
    if (status != MR_OK)
        return status;

    demo_report_init(&b->report, &b->items, &b->full, &b->detail, &b->output.sink);
    const demo_task_input input = {
        .items = &b->items,
        .people = &b->people,
        .full = &b->full,
        .detail = &b->detail,
        .rules = options->rules,
        .sink = options->report ? &b->report.sink : &b->output.sink,
        .lists = &b->output.training.sink,
    };
    status = demo_tasks_make(&input, err);
    const demo_origin origin = {b->suite, b->date};
    if (status == MR_OK)
        status = demo_output_finish(&b->output, &b->people, &origin, err);
    if (status == MR_OK && options->report)
        demo_report_print(&b->report, &b->people, options->report);
    return status;
}

mr_status demo_catalogue_build(const demo_options *options, demo_summary *out, mr_error *err)
{
    build b = {.arena = {.limit = ARENA_BYTES}};
    b.full.words.limit = b.detail.words.limit = ARENA_BYTES;
    mr_progress bar = mr_progress_start("building the catalogue", 5, "steps");
    mr_status status = read_all(&b, options, &bar, err);
    if (status == MR_OK)
        status = write_all(&b, options, &bar, err);
    if (status == MR_OK) {
        *out = (demo_summary){.items = b.items.n,
                              .users = b.people.n,
                              .icons = b.output.n_icons,
                              .icons_missing = b.items.icons_missing,
                              .texts = b.output.training.texts.rows,
                              .pairs = b.output.training.pairs.rows};
        for (int t = 0; t < DEMO_TASKS; t++)
            for (int split = 0; split < 3; split++)
                out->queries += b.output.n_queries[t][split];
        for (int t = 0; t < DEMO_LISTS_END - DEMO_TASKS; t++)
            out->lists += b.output.training.n_lists[t];
    }
    mr_progress_finish(&bar, NULL);

    demo_output_abandon(&b.output);
    demo_report_done(&b.report);
    demo_bm25_done(&b.full);
    demo_bm25_done(&b.detail);
    demo_people_done(&b.people);
    demo_items_done(&b.items);
    demo_components_done(&b.component_list);
    demo_archive_done(&b.archive);
    mr_arena_done(&b.arena);
    mr_file_map_close(&b.packages);
    mr_file_map_close(&b.translations);
    mr_file_map_close(&b.sources);
    mr_file_map_close(&b.components);
    mr_file_map_close(&b.release);
    mr_file_map_close(&b.vocabulary);
    return status;
}
