/* fuzz_jsonl.c - the JSON lines reader, the JSON parser below it, and cursors on what comes out.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/jsonl.h"
#include "core/utf8.h"
#include "tests/fuzz/fuzz.h"

#define MAX_LINE ((size_t)4096)

static void require(int condition)
{
    if (!condition)
        abort();
}

static void read_row(const json_t *row)
{
    static const char *const known[] = {"id", "title", "text", "prior", "history", NULL};
    mr_error err = {0};
    mr_json_cursor cur = mr_json_cursor_of("row", row, &err);
    int64_t n = mr_json_int(&cur, "id", -5, 5, 0);
    require(n >= -5 && n <= 5);
    double r = mr_json_real(&cur, "prior", 0, 1, 0.5);
    require(r >= 0 && r <= 1);
    (void)mr_json_bool(&cur, "title", true);
    (void)mr_json_string(&cur, "text", "", false);
    (void)mr_json_array(&cur, "history", false);
    (void)mr_json_object(&cur, "text", true);
    mr_json_only(&cur, known);
    require((cur.status == MR_OK) == (err.status == MR_OK));
    (void)mr_json_describe(json_object_get(row, "text"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    /* fmemopen wants memory that may be written; it does not write with "r". */
    mr_jsonl reader = {.stream = fmemopen((void *)data, size, "r"), .max_line = MAX_LINE};
    reader.name = malloc(sizeof "fuzz");
    if (!reader.stream || !reader.name) {
        mr_jsonl_close(&reader);
        return 0;
    }
    memcpy(reader.name, "fuzz", sizeof "fuzz");

    uint64_t last_line = 0;
    for (;;) {
        mr_error err = {0};
        json_t *row = NULL;
        mr_status status = mr_jsonl_next(&reader, &row, &err);
        require((status == MR_OK) == (err.status == MR_OK));
        require(mr_utf8_valid_prefix(err.message, strlen(err.message)) == strlen(err.message));
        if (status == MR_OK && !row)
            break;
        require(reader.line_number > last_line); /* so it ends */
        last_line = reader.line_number;
        if (row)
            read_row(row);
        json_decref(row);
    }
    require(reader.bytes == size);
    mr_jsonl_close(&reader);
    return 0;
}
