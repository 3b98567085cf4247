/* output.c - see output.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "deploy/demo/output.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/hash.h"
#include "core/json.h"
#include "core/strbuf.h"
#include "deploy/demo/rows.h"
#include "mixrank_version.h"

static const char *const data_files[] = {"items.jsonl", "items_long.jsonl", "users.jsonl",
                                         "queries.jsonl"};

static void qrels_name(demo_task task, char out[64])
{
    snprintf(out, 64, "qrels/%s.txt", demo_task_name(task));
}

static mr_status query_put(demo_sink *sink, const demo_query *query, mr_error *err);

mr_status demo_output_open(demo_output *out, const char *folder, const demo_items *items,
                           mr_error *err)
{
    *out = (demo_output){.sink = {query_put}, .folder = folder, .items = items};
    mr_strbuf path = {0};
    mr_status status = demo_path_in(&path, folder, "manifest.json", err);
    if (status != MR_OK)
        goto out;
    if (unlink(path.data) != 0 && errno != ENOENT && errno != ENOTDIR) {
        status = MR_FAIL(err, IO, "'%s': %s", path.data, strerror(errno));
        goto out;
    }
    static const char *const part[] = {"qrels", "icons"};
    for (int i = 0; i < 2 && status == MR_OK; i++) {
        status = demo_path_in(&path, folder, part[i], err);
        if (status == MR_OK)
            status = mr_file_make_folders(path.data, err);
    }
    if (status == MR_OK)
        status = demo_training_open(&out->training, folder, items, err);
    if (status == MR_OK)
        status = demo_writer_open(&out->queries, folder, "queries.jsonl", err);
    for (int t = 0; t < DEMO_TASKS && status == MR_OK; t++) {
        char name[64];
        qrels_name((demo_task)t, name);
        status = demo_writer_open(&out->qrels[t], folder, name, err);
    }

out:
    mr_strbuf_release(&path);
    if (status != MR_OK)
        demo_output_abandon(out);
    return status;
}

void demo_output_abandon(demo_output *output)
{
    demo_training_abandon(&output->training);
    mr_file_writer_abandon(&output->queries);
    for (int t = 0; t < DEMO_TASKS; t++)
        mr_file_writer_abandon(&output->qrels[t]);
}

/* --- rows ------------------------------------------------------------------------------------ */

static mr_status write_item(FILE *stream, const demo_items *items, const demo_item *item,
                            bool long_only, mr_strbuf *text, mr_error *err)
{
    mr_strbuf_clear(text);
    if (!long_only)
        mr_strbuf_append(text, item->summary.data, item->summary.len);
    if (text->len && item->detail.len)
        mr_strbuf_append(text, " ", 1);
    mr_strbuf_append(text, item->detail.data, item->detail.len);
    bool failed = text->failed;
    json_t *row = json_object();
    demo_row_text(row, "id", item->id, &failed);
    demo_row_text(row, "title", item->title, &failed);
    demo_row_text(row, "text", (mr_str){text->data ? text->data : "", text->len}, &failed);
    demo_row_text(row, "section", items->sections.name[item->section], &failed);
    demo_row_text(row, "fold", mr_str_of(demo_fold_name(item->fold)), &failed);
    if (item->icon.len) {
        char image[256];
        snprintf(image, sizeof image, "icons/%.*s", MR_STR_ARG(item->icon));
        demo_row_text(row, "image", mr_str_of(image), &failed);
    }
    return demo_row_write(stream, row, failed, long_only ? data_files[1] : data_files[0], err);
}

/* A hard link where the file system allows it: thousands of small copies would only wait for the
 * disk. */
static mr_status place_icon(const demo_output *output, const demo_item *item,
                            const char *icon_folder, mr_error *err)
{
    mr_strbuf from = {0}, to = {0};
    char name[256];
    snprintf(name, sizeof name, "icons/%.*s", MR_STR_ARG(item->icon));
    mr_status status = demo_path_in(&from, icon_folder, item->icon.data, err);
    if (status == MR_OK)
        status = demo_path_in(&to, output->folder, name, err);
    struct stat source, target;
    bool in_place = status == MR_OK && stat(from.data, &source) == 0 &&
                    stat(to.data, &target) == 0 && source.st_dev == target.st_dev &&
                    source.st_ino == target.st_ino;
    if (status == MR_OK && !in_place) {
        unlink(to.data);
        if (link(from.data, to.data) != 0)
            status = mr_file_copy(from.data, to.data, err);
    }
    mr_strbuf_release(&from);
    mr_strbuf_release(&to);
    return status;
}

mr_status demo_output_items(demo_output *output, const char *icon_folder, mr_error *err)
{
    const demo_items *items = output->items;
    mr_strbuf text = {0};
    mr_status status = MR_OK;
    for (int long_only = 0; long_only < 2 && status == MR_OK; long_only++) {
        mr_file_writer writer = {0};
        status = demo_writer_open(&writer, output->folder, data_files[long_only], err);
        for (size_t i = 0; i < items->n && status == MR_OK; i++) {
            const demo_item *item = &items->item[i];
            status = write_item(writer.stream, items, item, long_only == 1, &text, err);
            if (status == MR_OK && !long_only && item->icon.len) {
                status = place_icon(output, item, icon_folder, err);
                output->n_icons++;
            }
        }
        if (status == MR_OK)
            status = mr_file_writer_commit(&writer, err);
        else
            mr_file_writer_abandon(&writer);
    }
    mr_strbuf_release(&text);
    return status;
}

mr_status demo_output_users(demo_output *output, const demo_people *people, mr_error *err)
{
    mr_file_writer writer = {0};
    mr_status status = demo_writer_open(&writer, output->folder, "users.jsonl", err);
    for (size_t p = 0; p < people->n && status == MR_OK; p++) {
        const demo_person *person = &people->person[p];
        bool failed = false;
        json_t *row = json_object();
        demo_row_text(row, "id", mr_str_of(person->id), &failed);
        demo_row_text(row, "fold", mr_str_of(demo_fold_name(person->fold)), &failed);
        demo_row_ids(row, "history", output->items, &person->basket, &failed);
        status = demo_row_write(writer.stream, row, failed, "users.jsonl", err);
    }
    if (status == MR_OK)
        return mr_file_writer_commit(&writer, err);
    mr_file_writer_abandon(&writer);
    return status;
}

static mr_status query_put(demo_sink *sink, const demo_query *query, mr_error *err)
{
    demo_output *output = (demo_output *)sink;
    size_t *counts = output->n_queries[query->task];
    char id[64];
    snprintf(id, sizeof id, "%s-%05zu", demo_task_name(query->task),
             counts[0] + counts[1] + counts[2] + 1);

    bool failed = false;
    json_t *row = demo_row_query(id, query, output->items, &failed);
    mr_status status = demo_row_write(output->queries.stream, row, failed, "queries.jsonl", err);
    if (status != MR_OK)
        return status;

    FILE *qrels = output->qrels[query->task].stream;
    for (size_t i = 0; i < query->relevant->n; i++) {
        mr_str item = output->items->item[query->relevant->id[i]].id;
        if (fprintf(qrels, "%s 0 %.*s %d\n", id, MR_STR_ARG(item), query->grade[i]) < 0)
            return MR_FAIL(err, IO, "writing the labels of %s: %s", id, strerror(errno));
    }
    counts[query->split]++;
    output->n_labels[query->task] += query->relevant->n;
    return MR_OK;
}

/* --- manifest -------------------------------------------------------------------------------- */

/* {"sha256","bytes","rows"} of one file, and the digest's line for the sum over all. */
static mr_status describe_file(const char *folder, const char *name, json_t *files,
                               mr_strbuf *digests, mr_error *err)
{
    mr_strbuf path = {0};
    mr_file_map map = {0};
    char hex[MR_SHA256_HEX];
    mr_status status = demo_path_in(&path, folder, name, err);
    if (status == MR_OK)
        status = mr_file_map_open(&map, path.data, err);
    if (status == MR_OK)
        status = mr_hash_sha256_hex(map.data, map.len, hex, err);
    if (status == MR_OK) {
        json_int_t rows = 0;
        const char *at = map.data;
        size_t left = map.len;
        for (const char *end; left && (end = memchr(at, '\n', left)) != NULL; at = end + 1) {
            rows++;
            left -= (size_t)(end + 1 - at);
        }
        mr_strbuf_printf(digests, "%s  %s\n", hex, name);
        json_t *entry =
            json_pack("{s:s, s:I, s:I}", "sha256", hex, "bytes", (json_int_t)map.len, "rows", rows);
        if (json_object_set_new(files, name, entry) != 0)
            status = MR_FAIL(err, NO_MEMORY, "the manifest");
    }
    mr_file_map_close(&map);
    mr_strbuf_release(&path);
    return status;
}

/* One digest for all pictures, in the order of the items. */
static mr_status describe_icons(const demo_output *output, json_t *files, mr_strbuf *digests,
                                mr_error *err)
{
    mr_strbuf list = {0}, path = {0};
    char hex[MR_SHA256_HEX];
    mr_status status = MR_OK;
    for (size_t i = 0; i < output->items->n && status == MR_OK; i++) {
        mr_str icon = output->items->item[i].icon;
        if (!icon.len)
            continue;
        char name[256];
        snprintf(name, sizeof name, "icons/%.*s", MR_STR_ARG(icon));
        status = demo_path_in(&path, output->folder, name, err);
        if (status == MR_OK)
            status = mr_hash_sha256_file(path.data, hex, err);
        if (status == MR_OK)
            mr_strbuf_printf(&list, "%s  %s\n", hex, name);
    }
    if (status == MR_OK)
        status = list.failed ? MR_FAIL(err, NO_MEMORY, "the digests of the icons")
                             : mr_hash_sha256_hex(list.data ? list.data : "", list.len, hex, err);
    if (status == MR_OK) {
        mr_strbuf_printf(digests, "%s  icons/\n", hex);
        json_t *entry =
            json_pack("{s:s, s:I}", "sha256", hex, "pictures", (json_int_t)output->n_icons);
        if (json_object_set_new(files, "icons/", entry) != 0)
            status = MR_FAIL(err, NO_MEMORY, "the manifest");
    }
    mr_strbuf_release(&list);
    mr_strbuf_release(&path);
    return status;
}

static json_t *count_queries(const demo_output *output)
{
    json_t *tasks = json_object();
    for (int t = 0; t < DEMO_TASKS; t++) {
        const size_t *n = output->n_queries[t];
        json_object_set_new(tasks, demo_task_name((demo_task)t),
                            json_pack("{s:I, s:I, s:I, s:I}", "train", (json_int_t)n[DEMO_TRAIN],
                                      "valid", (json_int_t)n[DEMO_VALID], "test",
                                      (json_int_t)n[DEMO_TEST], "labels",
                                      (json_int_t)output->n_labels[t]));
    }
    return tasks;
}

/* Of the digests' lines, in hex. */
static mr_status sum_up(const mr_strbuf *digests, char hex[MR_SHA256_HEX], mr_error *err)
{
    return digests->failed ? MR_FAIL(err, NO_MEMORY, "the digests of the manifest")
                           : mr_hash_sha256_hex(digests->data, digests->len, hex, err);
}

static mr_status write_manifest(demo_output *output, const demo_people *people,
                                const demo_origin *origin, mr_error *err)
{
    mr_strbuf digests = {0}, training = {0}, path = {0};
    json_t *files = json_object();
    json_t *manifest = NULL;
    char hex[MR_SHA256_HEX], training_hex[MR_SHA256_HEX];
    mr_status status = MR_OK;
    for (size_t i = 0; i < sizeof data_files / sizeof *data_files && status == MR_OK; i++)
        status = describe_file(output->folder, data_files[i], files, &digests, err);
    for (int t = 0; t < DEMO_TASKS && status == MR_OK; t++) {
        char name[64];
        qrels_name((demo_task)t, name);
        status = describe_file(output->folder, name, files, &digests, err);
    }
    if (status == MR_OK)
        status = describe_icons(output, files, &digests, err);
    for (size_t i = 0; i < DEMO_TRAINING_FILES && status == MR_OK; i++)
        status = describe_file(output->folder, demo_training_files[i], files, &training, err);
    if (status == MR_OK)
        status = sum_up(&digests, hex, err);
    if (status == MR_OK)
        status = sum_up(&training, training_hex, err);
    if (status == MR_OK)
        status = demo_path_in(&path, output->folder, "manifest.json", err);
    if (status != MR_OK)
        goto out;

    manifest = json_pack("{s:i, s:s, s:{s:s, s:s}, s:{s:I, s:I, s:I}, s:o, s:o, s:O, s:s, s:s}",
                         "format", DEMO_FORMAT, "tool", "demo-catalogue " MR_VERSION, "archive",
                         "suite", origin->suite, "date", origin->date, "counts", "items",
                         (json_int_t)output->items->n, "users", (json_int_t)people->n, "icons",
                         (json_int_t)output->n_icons, "queries", count_queries(output), "training",
                         demo_training_counts(&output->training), "files", files, "digest", hex,
                         "training_digest", training_hex);
    status = manifest
                 ? mr_json_save_file(manifest, path.data, err)
                 : MR_FAIL(err, CORRUPT, "the manifest: a text of the release file is not UTF-8");

out:
    json_decref(manifest);
    json_decref(files);
    mr_strbuf_release(&digests);
    mr_strbuf_release(&training);
    mr_strbuf_release(&path);
    return status;
}

mr_status demo_output_finish(demo_output *output, const demo_people *people,
                             const demo_origin *origin, mr_error *err)
{
    mr_status status = mr_file_writer_commit(&output->queries, err);
    for (int t = 0; t < DEMO_TASKS && status == MR_OK; t++)
        status = mr_file_writer_commit(&output->qrels[t], err);
    if (status == MR_OK)
        status = demo_training_finish(&output->training, err);
    if (status == MR_OK)
        status = write_manifest(output, people, origin, err);
    if (status != MR_OK)
        demo_output_abandon(output);
    return status;
}
