/* rows.h - JSON Lines of the catalogue, written row by row.
 *
 *     bool failed = false;
 *     json_t *row = json_object();
 *     demo_row_text(row, "id", item->id, &failed);
 *     status = demo_row_write(writer.stream, row, failed, "items.jsonl", err);
 *
 * Keys stand in the order in which they were set. A text that is not UTF-8 makes jansson refuse,
 * which `failed` carries to the row's end.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_DEPLOY_DEMO_ROWS_H
#define MR_DEPLOY_DEMO_ROWS_H

#include <jansson.h>
#include <stdio.h>

#include "core/file.h"
#include "core/strbuf.h"
#include "deploy/demo/items.h"
#include "deploy/demo/tasks.h"

void demo_row_text(json_t *row, const char *key, mr_str text, bool *failed);
/* The ids of these items. */
void demo_row_ids(json_t *row, const char *key, const demo_items *items, const demo_ids *ids,
                  bool *failed);
/* {"id","task","split","query"} and, as far as the query has them, "user", "history",
 * "same_family" and "candidates". */
json_t *demo_row_query(const char *id, const demo_query *query, const demo_items *items,
                       bool *failed);
/* Takes the row. `what` names the file in messages. */
mr_status demo_row_write(FILE *stream, json_t *row, bool failed, const char *what, mr_error *err);

mr_status demo_path_in(mr_strbuf *path, const char *folder, const char *name, mr_error *err);
mr_status demo_writer_open(mr_file_writer *writer, const char *folder, const char *name,
                           mr_error *err);

#endif
