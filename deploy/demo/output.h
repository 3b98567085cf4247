/* output.h - the files of a finished catalogue.
 *
 *   items.jsonl        {"id","title","text","section","fold","image"?}
 *   items_long.jsonl   the same with the long description alone as text: for C and C-all
 *   users.jsonl        {"id","fold","history":[ids]}
 *   queries.jsonl      {"id","task","split","query","user"?,"history"?,"same_family"?,
 *                      "candidates"?}
 *   qrels/<task>.txt   TREC: query 0 item grade; a candidate that is not listed has grade 0
 *   icons/             the pictures that items.jsonl names
 *   texts.jsonl, pairs.jsonl, training_lists.jsonl: see training.h
 *   manifest.json      written last: counts, digests, where the data came from
 *
 * Every file is replaced in one step. An old manifest goes first, so that a folder with a manifest
 * is whole. Equal input gives equal bytes.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_DEPLOY_DEMO_OUTPUT_H
#define MR_DEPLOY_DEMO_OUTPUT_H

#include "core/file.h"
#include "deploy/demo/items.h"
#include "deploy/demo/people.h"
#include "deploy/demo/tasks.h"
#include "deploy/demo/training.h"

#define DEMO_FORMAT 1

typedef struct {
    const char *suite; /* "bookworm" */
    const char *date;  /* of the release file */
} demo_origin;

typedef struct {
    demo_sink sink; /* first: put() casts back */
    const char *folder;
    const demo_items *items;
    mr_file_writer queries;
    mr_file_writer qrels[DEMO_TASKS];
    size_t n_queries[DEMO_TASKS][3]; /* by split */
    size_t n_labels[DEMO_TASKS];
    size_t n_icons;
    demo_training training;
} demo_output;

mr_status demo_output_open(demo_output *out, const char *folder, const demo_items *items,
                           mr_error *err);
/* icon_folder may be NULL when no item has an icon. */
mr_status demo_output_items(demo_output *output, const char *icon_folder, mr_error *err);
mr_status demo_output_users(demo_output *output, const demo_people *people, mr_error *err);
/* Queries arrive through output->sink, lists through output->training.sink. Finish commits them and
 * writes the manifest. */
mr_status demo_output_finish(demo_output *output, const demo_people *people,
                             const demo_origin *origin, mr_error *err);
void demo_output_abandon(demo_output *output); /* no-op after finish */

#endif
