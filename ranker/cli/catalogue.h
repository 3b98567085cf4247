/* catalogue.h - items of a JSONL file by id, for commands that need their texts: titles to show,
 * texts to rank in text mode.
 *
 * A row: {"id", "title"?, "text"?, "prior"?, "vector"? or "vectors"?, ...}. String values become
 * fields of that name. Unlike `encode`, which streams, a catalogue is held in memory, within a
 * bound. Threads: read-only after open.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_CLI_CATALOGUE_H
#define MR_RANKER_CLI_CATALOGUE_H

#include "core/arena.h"
#include "core/json.h"

typedef struct {
    mr_str id;
    mr_fields fields;
    double prior;
    bool has_prior;
    const float *vectors; /* [tokens][dim] or NULL */
    uint16_t tokens, dim;
} mr_catalogue_item;

typedef struct mr_catalogue mr_catalogue;

MR_NODISCARD mr_status mr_catalogue_open(mr_catalogue **out, const char *path, mr_error *err);
void mr_catalogue_close(mr_catalogue *catalogue); /* NULL is fine */
/* NULL when there is none. */
const mr_catalogue_item *mr_catalogue_find(const mr_catalogue *catalogue, mr_str id);
size_t mr_catalogue_count(const mr_catalogue *catalogue);
const mr_catalogue_item *mr_catalogue_at(const mr_catalogue *catalogue, size_t index);

/* Reads one row; strings and vectors are copied into the arena. Shared with `encode` and with
 * candidates that stand inline in a request. */
MR_NODISCARD mr_status mr_catalogue_read_row(const json_t *row, mr_arena *arena,
                                             mr_catalogue_item *out, mr_error *err);

#endif
