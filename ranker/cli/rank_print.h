/* rank_print.h - a reply as a table, as a TREC run, as JSON. Private to ranker/cli.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_CLI_RANK_PRINT_H
#define MR_RANKER_CLI_RANK_PRINT_H

#include "ranker/cli/catalogue.h"
#include "ranker/pipeline/ranker.h"

typedef struct {
    const mr_bundle *bundle;
    const mr_catalogue *catalogue; /* for titles; may be NULL */
    const mr_rank_request *request;
    const mr_rank_reply *reply;
    mr_str query_id; /* empty: none */
    uint64_t line;   /* of the requests file: a run names a query without an id by it; 0: none */
} mr_rank_output;

/* All three say it when the weights are untrained; a run, which has no room for a sentence, in its
 * last column. */
void mr_rank_print_table(const mr_rank_output *out);
/* INVALID, and nothing printed, when an id has a blank: the columns of a run are apart by blanks.
 */
MR_NODISCARD mr_status mr_rank_print_trec(const mr_rank_output *out, mr_error *err);
void mr_rank_print_json(const mr_rank_output *out);

#endif
