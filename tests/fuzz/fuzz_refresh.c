/* fuzz_refresh.c - a Kafka message of any bytes becomes a sound record, a row or a rejection.
 *
 * The first byte says which topic it is of and what else the message has; the rest is the value.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "featurestore/refresh_message.h"
#include "tests/fuzz/fuzz.h"

static void require(int condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const uint8_t how = data[0];
    const mr_refresh_rule rule = {.rows = how & 1,
                                  .space = 0x9f,
                                  .dim = how & 2 ? 4 : 0,
                                  .dtype = (mr_record_dtype)(how >> 2 & 3),
                                  .epoch = 1};
    mr_refresh_message message = {.key = {"i1", 2}, .value = {data + 1, size - 1}, .offset = 9};
    if (how & 16)
        message.version = message.value;
    if (how & 32)
        message.key = message.value;
    mr_arena arena = {0}, scratch = {.limit = (size_t)16 << 20};
    mr_refresh_parsed *parsed = malloc(sizeof *parsed);
    mr_record_info info;
    if (parsed && mr_refresh_parse(&rule, &message, &arena, &scratch, parsed, NULL) == MR_OK) {
        require(parsed->kind == MR_REFRESH_REJECTED ||
                (parsed->id.len > 0 && parsed->id.len <= 400));
        if (parsed->kind == MR_REFRESH_RECORD) {
            require(mr_record_check("fuzz", parsed->record, &info, NULL) == MR_OK);
            require(info.space == rule.space && info.version == parsed->version);
            require(info.tombstone || rule.dim == 0 || info.dim == rule.dim);
        } else if (parsed->kind == MR_REFRESH_ROW) {
            require(rule.rows && parsed->version > 0);
        } else {
            require(parsed->reason[0] != '\0');
        }
    }
    free(parsed);
    mr_arena_done(&arena);
    mr_arena_done(&scratch);
    return 0;
}
