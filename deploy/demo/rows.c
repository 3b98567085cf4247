/* rows.c - see rows.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "deploy/demo/rows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void demo_row_text(json_t *row, const char *key, mr_str text, bool *failed)
{
    if (json_object_set_new(row, key, json_stringn(text.data ? text.data : "", text.len)) != 0)
        *failed = true;
}

void demo_row_ids(json_t *row, const char *key, const demo_items *items, const demo_ids *ids,
                  bool *failed)
{
    json_t *list = json_array();
    for (size_t i = 0; i < ids->n; i++) {
        mr_str id = items->item[ids->id[i]].id;
        if (json_array_append_new(list, json_stringn(id.data, id.len)) != 0)
            *failed = true;
    }
    if (json_object_set_new(row, key, list) != 0)
        *failed = true;
}

json_t *demo_row_query(const char *id, const demo_query *query, const demo_items *items,
                       bool *failed)
{
    json_t *row = json_object();
    demo_row_text(row, "id", mr_str_of(id), failed);
    demo_row_text(row, "task", mr_str_of(demo_task_name(query->task)), failed);
    demo_row_text(row, "split", mr_str_of(demo_fold_name(query->split)), failed);
    demo_row_text(row, "query", query->text, failed);
    if (query->person) {
        demo_row_text(row, "user", mr_str_of(query->person->id), failed);
        demo_row_ids(row, "history", items, query->history, failed);
        *failed |= json_object_set_new(row, "same_family", json_boolean(query->same_family)) != 0;
    }
    if (query->candidates)
        demo_row_ids(row, "candidates", items, query->candidates, failed);
    return row;
}

mr_status demo_row_write(FILE *stream, json_t *row, bool failed, const char *what, mr_error *err)
{
    mr_status status = MR_OK;
    char *line = failed || !row ? NULL : json_dumps(row, JSON_COMPACT);
    if (!line)
        status = MR_FAIL(err, CORRUPT, "%s: a text is not UTF-8, or memory is out", what);
    else if (fputs(line, stream) == EOF || fputc('\n', stream) == EOF)
        status = MR_FAIL(err, IO, "writing %s: %s", what, strerror(errno));
    free(line);
    json_decref(row);
    return status;
}

mr_status demo_path_in(mr_strbuf *path, const char *folder, const char *name, mr_error *err)
{
    mr_strbuf_clear(path);
    mr_strbuf_printf(path, "%s/%s", folder, name);
    return path->failed ? MR_FAIL(err, NO_MEMORY, "the path of '%s'", name) : MR_OK;
}

mr_status demo_writer_open(mr_file_writer *writer, const char *folder, const char *name,
                           mr_error *err)
{
    mr_strbuf path = {0};
    mr_status status = demo_path_in(&path, folder, name, err);
    if (status == MR_OK)
        status = mr_file_writer_open(writer, path.data, err);
    mr_strbuf_release(&path);
    return status;
}
