/* store_commands.h - the subcommands of `mixrank store`, one file for each subject. Private to
 * ranker/cli.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_CLI_STORE_COMMANDS_H
#define MR_RANKER_CLI_STORE_COMMANDS_H

#include "ranker/cli/command.h"
#include "ranker/cli/store_access.h"

int mr_store_cmd_get(int argc, char **argv);      /* store_get.c */
int mr_store_cmd_stat(int argc, char **argv);     /* store_stat.c */
int mr_store_cmd_verify(int argc, char **argv);   /* store_verify.c */
int mr_store_cmd_copy(int argc, char **argv);     /* store_copy.c */
int mr_store_cmd_remove(int argc, char **argv);   /* store_remove.c */
int mr_store_cmd_active(int argc, char **argv);   /* store_active.c */
int mr_store_cmd_coverage(int argc, char **argv); /* store_coverage.c */
int mr_store_cmd_switch(int argc, char **argv);   /* store_active.c */
int mr_store_cmd_rollback(int argc, char **argv); /* store_active.c */

/* What --min is compared with: the least of the shares of the kinds that both bundles have. */
typedef struct {
    bool compared[MR_KIND_COUNT]; /* the current bundle has such a space, and the next too */
    bool same[MR_KIND_COUNT];     /* it is the same space: nothing to look up */
    bool empty; /* the next bundle reads items, and its space has none: never enough */
    struct mr_store_cover {
        uint64_t current, next;
        uint64_t ids, covered, missing, removed, damaged, older, tombstones;
        double share;
    } kind[MR_KIND_COUNT];
    double share;
    json_t *missing[MR_KIND_COUNT]; /* ids, the first of them; owned */
} mr_store_report;

/* store_coverage.c. Spaces as of mr_bundle_spaces; current NULL: there is no bundle to compare
 * with. limit: of ids in `missing`. Free in any case. */
MR_NODISCARD mr_status mr_store_report_make(mr_store *store, const uint64_t *current,
                                            const uint64_t *next, size_t limit,
                                            mr_store_report *out, mr_error *err);
void mr_store_report_free(mr_store_report *report);
void mr_store_report_print(const mr_store_report *report);
json_t *mr_store_report_json(const mr_store_report *report);

#endif
