/* catalogue.h - the demo catalogue, from an archive's index files to a folder of JSON Lines.
 *
 * Reads from `lists`: Packages, Translation-en, Sources, Components.yml and Release, plain text,
 * as deploy/demo/fetch lays them out. Memory: the mapped files and about 100 MB.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_DEPLOY_DEMO_CATALOGUE_H
#define MR_DEPLOY_DEMO_CATALOGUE_H

#include <stdio.h>

#include "core/error.h"
#include "deploy/demo/tasks.h"

#define DEMO_FILE_BYTES ((size_t)1 << 30) /* of one index file */

typedef struct {
    const char *lists;      /* folder */
    const char *icons;      /* folder of PNG files; NULL: no pictures */
    const char *vocabulary; /* file: the words of the tags */
    const char *out;        /* folder, made if need be */
    demo_rules rules;
    FILE *report; /* NULL: do not measure the baselines */
} demo_options;

typedef struct {
    size_t items, users, icons, icons_missing, queries;
    size_t texts, pairs, lists; /* for training */
} demo_summary;

mr_status demo_catalogue_build(const demo_options *options, demo_summary *out, mr_error *err);

#endif
