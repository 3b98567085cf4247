/* jsonl.h - JSON Lines, streaming, bounded, with line numbers in messages.
 *
 *     mr_jsonl reader;
 *     if (mr_jsonl_open(&reader, "items.jsonl", MR_JSONL_MAX_LINE, &err) != MR_OK) ...
 *     json_t *row;
 *     while ((s = mr_jsonl_next(&reader, &row, &err)) == MR_OK && row) {
 *         ...  json_decref(row);
 *     }
 *     mr_jsonl_close(&reader);
 *
 * or mr_jsonl_each, which is that loop.
 *
 * Memory is one line. Blank lines are skipped. A path of "-" is standard input.
 * Threads: one reader, one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_JSONL_H
#define MR_CORE_JSONL_H

#include <stdint.h>
#include <stdio.h>

#include "core/json.h"

#define MR_JSONL_MAX_LINE ((size_t)16 << 20)

typedef struct {
    FILE *stream; /* owned unless standard input */
    char *name;   /* owned */
    char *line;   /* owned buffer */
    size_t capacity;
    size_t max_line;
    uint64_t line_number; /* of the row last returned, from 1 */
    uint64_t bytes;       /* consumed so far: for progress bars */
} mr_jsonl;

mr_status mr_jsonl_open(mr_jsonl *out, const char *path, size_t max_line, mr_error *err);
void mr_jsonl_close(mr_jsonl *reader); /* idempotent; zero-initialised is fine */
/* *row is an object that the caller owns, or NULL at the end of the file. A line that is too long,
 * is not JSON or is not an object is CORRUPT and names the line; the next call goes on after it. */
mr_status mr_jsonl_next(mr_jsonl *reader, json_t **row, mr_error *err);

/* The whole file, row by row, up to the first failure. A failure of visit is returned as it is,
 * with *line the number of its row, from 1, for the caller to put in front in its own words; *line
 * is 0 otherwise: what mr_jsonl_open and _next refuse is named by them. */
typedef mr_status (*mr_jsonl_visit)(void *context, const json_t *row, uint64_t line, mr_error *err);
mr_status mr_jsonl_each(const char *path, size_t max_line, mr_jsonl_visit visit, void *context,
                        uint64_t *line, mr_error *err);

#endif
