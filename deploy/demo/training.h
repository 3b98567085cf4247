/* training.h - the files that training reads beside the tasks, and nothing else should.
 *
 *   texts.jsonl           {"id","text"}: every distinct short description and paragraph of a long
 *                         one, of the whole archive, a package's together
 *   pairs.jsonl           {"id","section","a","b","group"}: a package's short description without
 *                         its name, its long one, its source package
 *   training_lists.jsonl  rows of queries.jsonl with "grades": [per candidate]
 *
 * What the split allows. Texts have no labels: those of test items are in. Pairs are C's labels:
 * none is of a source package whose item C tests or validates with, nor shares that item's short
 * text, a paragraph of it, or the long text of a package of that source. Lists are of training
 * people alone, those of E1-cold-more of train items alone.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_DEPLOY_DEMO_TRAINING_H
#define MR_DEPLOY_DEMO_TRAINING_H

#include <jansson.h>

#include "core/file.h"
#include "deploy/demo/archive.h"
#include "deploy/demo/items.h"
#include "deploy/demo/tasks.h"

#define DEMO_TRAINING_FILES 3
extern const char *const demo_training_files[DEMO_TRAINING_FILES];

typedef struct {
    size_t rows;
    size_t repeated;  /* left out: the text stands in another row */
    size_t addressed; /* left out: it has an e-mail address */
} demo_text_counts;

typedef struct {
    size_t rows;
    /* Left out, each package for the first reason that holds: */
    size_t of_test_items, of_valid_items; /* or of their source package */
    size_t short_query;                   /* fewer words than C asks with, or no long text */
    size_t addressed;
    size_t like_held_out; /* the short text or a paragraph is that of such an item, or the long
                           * text that of a package of its source */
    size_t repeated;      /* the short or the long text stands in another row */
} demo_pair_counts;

typedef struct {
    demo_sink sink; /* first: put() casts back; takes the lists */
    const char *folder;
    const demo_items *items;
    mr_file_writer lists;
    demo_text_counts texts;
    demo_pair_counts pairs;
    size_t n_lists[DEMO_LISTS_END - DEMO_TASKS];
} demo_training;

/* folder and items are borrowed. */
mr_status demo_training_open(demo_training *out, const char *folder, const demo_items *items,
                             mr_error *err);
mr_status demo_training_texts(demo_training *training, const demo_archive *archive, mr_error *err);
mr_status demo_training_pairs(demo_training *training, const demo_archive *archive, mr_error *err);
/* Lists arrive through training->sink. */
mr_status demo_training_finish(demo_training *training, mr_error *err);
void demo_training_abandon(demo_training *training); /* no-op after finish */

/* For the manifest; NULL when memory is out. */
json_t *demo_training_counts(const demo_training *training);

/* Whether the text has an e-mail address: something@host.tld. Apart so that it can be tested. */
bool demo_has_address(mr_str text);

#endif
