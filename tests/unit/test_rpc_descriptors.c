/* test_rpc_descriptors.c - the project's own descriptors, and sets that are broken at any byte.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "proto/descriptors.h"
#include "ranker/service/rpc_descriptors.h"
#include "tests/support.h"

static mr_bytes whole(void)
{
    return (mr_bytes){mr_proto_descriptors, mr_proto_descriptors_len};
}

static void services_and_symbols_are_found(void **state)
{
    static const struct {
        const char *symbol, *file; /* NULL: not found */
    } rows[] = {{"mixrank.v1.RankingService", "mixrank/v1/ranking.proto"},
                {"mixrank.v1.RankingService.Rank", "mixrank/v1/ranking.proto"},
                {"mixrank.v1.Tokens.DType", "mixrank/v1/ranking.proto"},
                {"mixrank.v1.Tokens.F16", "mixrank/v1/ranking.proto"},
                {"mixrank.v1.EmbedReply.Result.tokens", "mixrank/v1/ranking.proto"},
                {"grpc.health.v1.HealthCheckResponse.SERVING", "grpc/health/v1/health.proto"},
                {"grpc.reflection.v1alpha.ServerReflectionRequest.message_request",
                 "grpc/reflection/v1alpha/reflection.proto"},
                {"mixrank.v1", NULL},
                {"mixrank", NULL},
                {"", NULL},
                {".mixrank.v1.RankingService", NULL},
                {"mixrank.v1.RankingService.rank", NULL}};
    mr_rpc_descriptors *d = NULL;
    mr_error err = {0};
    (void)state;
    assert_status(mr_rpc_descriptors_open(&d, whole(), &err), MR_OK, &err);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const int got = mr_rpc_descriptors_symbol(d, rows[i].symbol);
        const int want = rows[i].file ? mr_rpc_descriptors_file(d, rows[i].file) : -1;
        if (got != want || (rows[i].file && want < 0))
            fail_msg("'%s' is in file %d, expected %d", rows[i].symbol, got, want);
    }
    assert_true(mr_rpc_descriptors_is_message(d, "mixrank.v1.RankReply"));
    assert_false(mr_rpc_descriptors_is_message(d, "mixrank.v1.Source"));
    assert_int_equal(mr_rpc_descriptors_file(d, "mixrank/v1/nope.proto"), -1);
    size_t n = 0;
    while (mr_rpc_descriptors_service(d, n))
        n++;
    assert_int_equal(n, 4);
    mr_bytes files[8];
    assert_int_equal(mr_rpc_descriptors_closure(d, 0, files, 8), 1); /* ours import nothing */
    mr_rpc_descriptors_close(d);
}

static void imports_come_along_and_must_be_there(void **state)
{
    /* a.proto imports b.proto, b.proto imports a.proto: field 1 of the set, 1 and 3 of a file. */
    static const uint8_t pair[] = "\x0a\x12\x0a\x07"
                                  "a.proto\x1a\x07"
                                  "b.proto\x0a\x12\x0a\x07"
                                  "b.proto\x1a\x07"
                                  "a.proto";
    mr_rpc_descriptors *d = NULL;
    mr_error err = {0};
    mr_bytes files[4];
    (void)state;
    assert_status(mr_rpc_descriptors_open(&d, (mr_bytes){pair, sizeof pair - 1}, &err), MR_OK,
                  &err);
    assert_int_equal(mr_rpc_descriptors_closure(d, 1, files, 4), 2);
    assert_int_equal(mr_rpc_descriptors_closure(d, 1, files, 1), 1);
    mr_rpc_descriptors_close(d);
    d = NULL;
    assert_status(mr_rpc_descriptors_open(&d, (mr_bytes){pair, 20}, &err), MR_CORRUPT, &err);
    assert_contains(err.message, "'a.proto' imports 'b.proto'");
    assert_null(d);
}

static void a_set_cut_at_any_length_or_changed_breaks_nothing(void **state)
{
    (void)state;
    const size_t len = mr_proto_descriptors_len;
    uint8_t *bytes = malloc(len);
    assert_non_null(bytes);
    size_t refused = 0;
    for (size_t i = 0; i < len; i += 1 + i / 100) {
        mr_rpc_descriptors *d = NULL;
        uint8_t *exact = malloc(i ? i : 1);
        memcpy(exact, mr_proto_descriptors, i);
        if (mr_rpc_descriptors_open(&d, (mr_bytes){exact, i}, NULL) != MR_OK)
            refused++;
        mr_rpc_descriptors_close(d);
        free(exact);
        memcpy(bytes, mr_proto_descriptors, len);
        bytes[i] ^= 0x55;
        d = NULL;
        if (mr_rpc_descriptors_open(&d, (mr_bytes){bytes, len}, NULL) == MR_OK)
            (void)mr_rpc_descriptors_symbol(d, "mixrank.v1.RankReply");
        mr_rpc_descriptors_close(d);
    }
    assert_true(refused > 100);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(services_and_symbols_are_found),
        cmocka_unit_test(imports_come_along_and_must_be_there),
        cmocka_unit_test(a_set_cut_at_any_length_or_changed_breaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
