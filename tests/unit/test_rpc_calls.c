/* test_rpc_calls.c - requests good and odd against a server in this process, looked at on the wire.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ranker/service/rpc_compress.h"
#include "ranker/service/rpc_server.h"
#include "tests/rpc_client.h"
#include "tests/support.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static mr_rpc_server *server;
static const char *address;
static atomic_int handled;

/* Sends the request back, three times when it is a stream. */
static void echo(void *context, mr_rpc_call *call)
{
    const mr_bytes bytes = mr_rpc_call_request(call);
    mr_bytes value;
    (void)context;
    atomic_fetch_add(&handled, 1);
    for (size_t nth = 0; mr_rpc_call_metadata(call, "x-raw-bin", nth, &value); nth++)
        assert_status(mr_rpc_call_add_trailer(call, "x-raw-bin", value, NULL), MR_OK, NULL);
    mr_rpc_call_reply(call, bytes.data, bytes.len);
}

static void three(void *context, mr_rpc_call *call)
{
    const mr_bytes bytes = mr_rpc_call_request(call);
    (void)context;
    for (int i = 0; i < 3; i++)
        assert_int_equal(mr_rpc_call_write(call, bytes.data, bytes.len), MR_RPC_WRITTEN);
    mr_rpc_call_finish(call, MR_RPC_ABORTED, "after three");
    assert_int_equal(mr_rpc_call_write(call, "x", 1), MR_RPC_GONE);
    mr_rpc_call_finish(call, MR_RPC_OK, NULL); /* the first one counts */
}

static void bidi(void *context, mr_rpc_call *call)
{
    const mr_bytes bytes = mr_rpc_call_request(call);
    (void)context;
    if (mr_rpc_call_request_ended(call))
        mr_rpc_call_finish(call, MR_RPC_OK, NULL);
    else if (bytes.len == 4 && memcmp(bytes.data, "stop", 4) == 0)
        mr_rpc_call_finish(call, MR_RPC_CANCELLED, "as you wish");
    else
        (void)mr_rpc_call_write(call, bytes.data, bytes.len);
}

static void refuse(void *context, mr_rpc_call *call)
{
    mr_error err = {0};
    (void)context;
    (void)MR_FAIL(&err, MISMATCH, "the space is %d %%", 5);
    mr_rpc_call_retry_after(call, 250);
    mr_rpc_call_fail(call, &err);
}

static void silent(void *context, mr_rpc_call *call)
{
    (void)context;
    (void)call;
}

static int start_server(void **state)
{
    static const mr_rpc_method methods[] = {
        {.path = "/test.T/Echo", .handle = echo},
        {.path = "/test.T/Three", .kind = MR_RPC_SERVER_STREAM, .handle = three},
        {.path = "/test.T/Bidi", .kind = MR_RPC_BIDI, .handle = bidi},
        {.path = "/test.T/Refuse", .handle = refuse},
        {.path = "/test.T/Silent", .handle = silent}};
    static const char *const listen[] = {"127.0.0.1:0"};
    const mr_rpc_options opt = {.listen = listen,
                                .n_listen = 1,
                                .methods = methods,
                                .n_methods = COUNT(methods),
                                .max_message_bytes = 100000,
                                .gzip_from = 500,
                                .upload_ms = 500};
    mr_error err = {0};
    (void)state;
    assert_status(mr_rpc_server_new(&server, &opt, &err), MR_OK, &err);
    assert_status(mr_rpc_server_start(server, &err), MR_OK, &err);
    address = mr_rpc_server_address(server, 0);
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    mr_rpc_server_free(server);
    return 0;
}

/* ---- rows ---- */

static const struct {
    const char *what;
    rpc_request request;
    int http_status, code;
    const char *text; /* in headers or trailers */
} rows[] = {
    {"a whole call",
     {.path = "/test.T/Echo", .body = (const uint8_t *)"\0\0\0\0\2hi", .len = 7},
     200,
     MR_RPC_OK,
     "grpc-accept-encoding: identity,gzip,deflate\n"},
    {"with +proto",
     {.path = "/test.T/Echo",
      .content_type = "application/grpc+proto",
      .body = (const uint8_t *)"\0\0\0\0\0",
      .len = 5},
     200,
     MR_RPC_OK,
     ""},
    {"with parameters",
     {.path = "/test.T/Echo",
      .content_type = "application/grpc;charset=utf-8",
      .body = (const uint8_t *)"\0\0\0\0\0",
      .len = 5},
     200,
     MR_RPC_OK,
     ""},
    {"GET", {.path = "/test.T/Echo", .method = "GET"}, 405, -1, ""},
    {"another type", {.path = "/test.T/Echo", .content_type = "application/json"}, 415, -1, ""},
    {"a type that only begins so",
     {.path = "/test.T/Echo", .content_type = "application/grpcx"},
     415,
     -1,
     ""},
    {"no type", {.path = "/test.T/Echo", .content_type = ""}, 415, -1, ""},
    {"no such method",
     {.path = "/test.T/echo", .body = (const uint8_t *)"\0\0\0\0\0", .len = 5},
     200,
     MR_RPC_UNIMPLEMENTED,
     "grpc-message: no such method\n"},
    {"no message", {.path = "/test.T/Echo"}, 200, MR_RPC_UNIMPLEMENTED, "no message"},
    {"two messages",
     {.path = "/test.T/Echo", .body = (const uint8_t *)"\0\0\0\0\0\0\0\0\0\1x", .len = 11},
     200,
     MR_RPC_UNIMPLEMENTED,
     "more than one message"},
    {"half a prefix",
     {.path = "/test.T/Echo", .body = (const uint8_t *)"\0\0\0", .len = 3},
     200,
     MR_RPC_INTERNAL,
     "ends inside a message"},
    {"half a message",
     {.path = "/test.T/Echo", .body = (const uint8_t *)"\0\0\0\0\5abc", .len = 8},
     200,
     MR_RPC_INTERNAL,
     "ends inside a message"},
    {"a flag of 3",
     {.path = "/test.T/Echo", .body = (const uint8_t *)"\3\0\0\0\1a", .len = 6},
     200,
     MR_RPC_INTERNAL,
     "neither 0 nor 1"},
    {"compressed without an encoding",
     {.path = "/test.T/Echo", .body = (const uint8_t *)"\1\0\0\0\1a", .len = 6},
     200,
     MR_RPC_INTERNAL,
     "damaged"},
    {"damaged gzip",
     {.path = "/test.T/Echo",
      .headers = {"grpc-encoding", "gzip"},
      .body = (const uint8_t *)"\1\0\0\0\3abc",
      .len = 8},
     200,
     MR_RPC_INTERNAL,
     "damaged"},
    {"not compressed though it might be",
     {.path = "/test.T/Echo",
      .headers = {"grpc-encoding", "gzip"},
      .body = (const uint8_t *)"\0\0\0\0\3abc",
      .len = 8},
     200,
     MR_RPC_OK,
     ""},
    {"an unknown encoding",
     {.path = "/test.T/Echo",
      .headers = {"grpc-encoding", "snappy"},
      .body = (const uint8_t *)"\0\0\0\0\0",
      .len = 5},
     200,
     MR_RPC_UNIMPLEMENTED,
     "grpc-accept-encoding: identity,gzip,deflate\n"},
    {"100,001 bytes",
     {.path = "/test.T/Echo", .body = (const uint8_t *)"\0\0\1\x86\xa1", .len = 5},
     200,
     MR_RPC_RESOURCE_EXHAUSTED,
     "a message of 100001 bytes, at most 100000 are taken"},
    {"a broken timeout",
     {.path = "/test.T/Echo",
      .headers = {"grpc-timeout", "1x"},
      .body = (const uint8_t *)"\0\0\0\0\0",
      .len = 5},
     200,
     MR_RPC_INTERNAL,
     "grpc-timeout"},
    {"a timeout of nothing",
     {.path = "/test.T/Silent",
      .headers = {"grpc-timeout", "0n"},
      .body = (const uint8_t *)"\0\0\0\0\0",
      .len = 5,
      .open = true},
     200,
     MR_RPC_DEADLINE_EXCEEDED,
     "deadline"},
    {"a broken binary header",
     {.path = "/test.T/Echo",
      .headers = {"x-raw-bin", "?"},
      .body = (const uint8_t *)"\0\0\0\0\0",
      .len = 5},
     200,
     MR_RPC_INTERNAL,
     "-bin"},
    {"binary headers, joined and padded",
     {.path = "/test.T/Echo",
      .headers = {"x-raw-bin", "AP8,/w==", "x-raw-bin", ""},
      .body = (const uint8_t *)"\0\0\0\0\0",
      .len = 5},
     200,
     MR_RPC_OK,
     "x-raw-bin: AP8\nx-raw-bin: /w\nx-raw-bin: \n"},
    {"a failure",
     {.path = "/test.T/Refuse", .body = (const uint8_t *)"\0\0\0\0\0", .len = 5},
     200,
     MR_RPC_FAILED_PRECONDITION,
     "grpc-message: the space is 5 %25\ngrpc-retry-pushback-ms: 250\n"},
    {"a handler that forgets",
     {.path = "/test.T/Silent", .body = (const uint8_t *)"\0\0\0\0\0", .len = 5},
     200,
     MR_RPC_INTERNAL,
     "no answer"},
    {"an upload that stops",
     {.path = "/test.T/Echo", .body = (const uint8_t *)"\0\0\0\0\5ab", .len = 7, .open = true},
     200,
     MR_RPC_DEADLINE_EXCEEDED,
     "did not arrive in time"},
};

static void requests_get_the_status_of_the_specification(void **state)
{
    (void)state;
    rpc_client *client = rpc_client_open(address);
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (size_t piece = 0; piece < 2; piece++) { /* at once, and in DATA frames of one byte */
            rpc_request request = rows[i].request;
            request.piece = piece;
            rpc_result *r = rpc_client_start(client, &request);
            if (!rpc_client_wait_end(client, r, 10000) || r->http_status != rows[i].http_status ||
                r->code != rows[i].code || !strstr(r->text, rows[i].text))
                fail_msg("%s: HTTP %d, status %d, headers:\n%sexpected HTTP %d, status %d, '%s'",
                         rows[i].what, r->http_status, r->code, r->text, rows[i].http_status,
                         rows[i].code, rows[i].text);
            if (request.open)
                rpc_client_end(client, r);
            if (r->code != MR_RPC_OK && r->header_frames != 1)
                fail_msg("%s: %d frames of headers, expected one with the status", rows[i].what,
                         r->header_frames);
        }
    }
    rpc_client_close(client);
}

static void a_reply_has_its_prefix(void **state)
{
    (void)state;
    rpc_client *client = rpc_client_open(address);
    const rpc_result *r = rpc_client_call(
        client,
        &(rpc_request){.path = "/test.T/Echo", .body = (const uint8_t *)"\0\0\0\0\2hi", .len = 7});
    assert_int_equal(r->len, 7);
    assert_memory_equal(r->body, "\0\0\0\0\2hi", 7);
    assert_int_equal(r->header_frames, 2);
    assert_int_equal(r->reset, 0);
    rpc_client_close(client);
}

static void a_stream_sends_all_then_its_status(void **state)
{
    (void)state;
    rpc_client *client = rpc_client_open(address);
    const rpc_result *r = rpc_client_call(
        client,
        &(rpc_request){.path = "/test.T/Three", .body = (const uint8_t *)"\0\0\0\0\1x", .len = 6});
    assert_int_equal(r->len, 18);
    assert_memory_equal(r->body, "\0\0\0\0\1x\0\0\0\0\1x\0\0\0\0\1x", 18);
    assert_int_equal(r->code, MR_RPC_ABORTED);
    assert_non_null(strstr(r->text, "grpc-message: after three\n"));
    rpc_client_close(client);
}

static void replies_are_compressed_for_those_who_accept_it(void **state)
{
    uint8_t body[MR_RPC_PREFIX + 2000] = {0};
    (void)state;
    mr_rpc_prefix_write(body, false, 2000);
    rpc_client *client = rpc_client_open(address);
    const rpc_request plain = {.path = "/test.T/Echo", .body = body, .len = sizeof body};
    rpc_request accepting = plain, small = plain;
    accepting.headers[0] = small.headers[0] = "grpc-accept-encoding";
    accepting.headers[1] = small.headers[1] = "deflate, gzip";
    small.len = MR_RPC_PREFIX + 100;

    rpc_result *r = rpc_client_call(client, &plain);
    assert_int_equal(r->len, sizeof body);
    assert_null(strstr(r->text, "grpc-encoding"));

    r = rpc_client_call(client, &accepting);
    assert_non_null(strstr(r->text, "\ngrpc-encoding: gzip\n"));
    assert_int_equal(r->body[0], 1);
    assert_true(r->len < 200);
    mr_rpc_buffer inflated = {0};
    assert_int_equal(
        mr_rpc_inflate(MR_RPC_GZIP, (mr_bytes){r->body + 5, r->len - 5}, 5000, &inflated),
        MR_RPC_WIRE_OK);
    assert_int_equal(inflated.len, 2000);
    mr_rpc_buffer_release(&inflated);

    mr_rpc_prefix_write(body, false, 100); /* too small to be worth it: each message says so */
    small.body = body;
    r = rpc_client_call(client, &small);
    assert_int_equal(r->body[0], 0);
    assert_int_equal(r->len, MR_RPC_PREFIX + 100);
    rpc_client_close(client);
}

/* A reset in the face of a client that still sends hides the status from clients behind proxies. */
static void an_early_answer_lets_the_client_finish(void **state)
{
    uint8_t chunk[20000] = {0};
    (void)state;
    rpc_client *client = rpc_client_open(address);
    mr_rpc_prefix_write(chunk, false, 1 << 20);
    rpc_result *r = rpc_client_start(
        client,
        &(rpc_request){.path = "/test.T/Echo", .body = chunk, .len = sizeof chunk, .open = true});
    assert_true(rpc_client_wait_end(client, r, 10000));
    assert_int_equal(r->code, MR_RPC_RESOURCE_EXHAUSTED);
    for (int i = 0; i < 4; i++)
        rpc_client_send(client, r, chunk, sizeof chunk);
    assert_false(rpc_client_wait(client, r, 100));
    assert_false(r->was_reset);
    rpc_client_end(client, r);
    assert_true(rpc_client_wait(client, r, 10000));
    assert_int_equal(r->reset, NGHTTP2_NO_ERROR);

    /* One that never stops is reset, after as much as a whole message. */
    r = rpc_client_start(
        client,
        &(rpc_request){.path = "/test.T/Echo", .body = chunk, .len = sizeof chunk, .open = true});
    assert_true(rpc_client_wait_end(client, r, 10000));
    for (int i = 0; i < 20; i++)
        rpc_client_send(client, r, chunk, sizeof chunk);
    assert_true(rpc_client_wait(client, r, 10000));
    assert_true(r->was_reset);
    assert_int_equal(r->reset, NGHTTP2_NO_ERROR);
    rpc_client_close(client);
}

static void messages_go_both_ways(void **state)
{
    static const uint8_t three_messages[] = "\0\0\0\0\1a\0\0\0\0\0\0\0\0\0\2bc";
    (void)state;
    for (size_t piece = 0; piece < 4; piece++) {
        rpc_client *client = rpc_client_open(address);
        rpc_result *r = rpc_client_start(client, &(rpc_request){.path = "/test.T/Bidi",
                                                                .body = three_messages,
                                                                .len = sizeof three_messages - 1,
                                                                .piece = piece,
                                                                .open = true});
        assert_true(rpc_client_wait_bytes(client, r, sizeof three_messages - 1, 10000));
        assert_memory_equal(r->body, three_messages, sizeof three_messages - 1);
        assert_false(r->ended);
        rpc_client_send(client, r, "\0\0\0\0\1z", 6);
        assert_true(rpc_client_wait_bytes(client, r, sizeof three_messages + 5, 10000));
        rpc_client_end(client, r);
        assert_true(rpc_client_wait(client, r, 10000));
        assert_int_equal(r->code, MR_RPC_OK);
        rpc_client_close(client);
    }
}

static void a_server_may_end_a_conversation(void **state)
{
    (void)state;
    rpc_client *client = rpc_client_open(address);
    rpc_result *r = rpc_client_start(
        client, &(rpc_request){.path = "/test.T/Bidi",
                               .body = (const uint8_t *)"\0\0\0\0\4stop\0\0\0\0\1x",
                               .len = 15,
                               .open = true});
    assert_true(rpc_client_wait_end(client, r, 10000));
    assert_int_equal(r->code, MR_RPC_CANCELLED);
    assert_int_equal(r->len, 0); /* what came behind it was not answered */
    rpc_client_close(client);
}

/* 2,000 messages that are answered at once, to a client with a window of a few bytes. */
static void a_slow_client_holds_its_own_stream_only(void **state)
{
    enum { N = 2000, SIZE = MR_RPC_PREFIX + 1000 };
    uint8_t *many = calloc(N, SIZE);
    (void)state;
    assert_non_null(many);
    for (size_t i = 0; i < N; i++)
        mr_rpc_prefix_write(many + i * SIZE, false, 1000);
    rpc_client *client = rpc_client_open(address);
    rpc_client_set_window(client, 3000);
    rpc_result *slow = rpc_client_start(
        client, &(rpc_request){.path = "/test.T/Bidi", .body = many, .len = (size_t)N * SIZE});
    rpc_client *other = rpc_client_open(address);
    mr_rpc_stats stats;
    for (int i = 0; i < 20; i++) {
        const rpc_result *r = rpc_client_call(
            other, &(rpc_request){
                       .path = "/test.T/Echo", .body = (const uint8_t *)"\0\0\0\0\1x", .len = 6});
        assert_int_equal(r->code, MR_RPC_OK);
        (void)rpc_client_wait(client, slow, 5);
        mr_rpc_server_stats(server, &stats);
        assert_true(stats.buffered_bytes < (size_t)1 << 20);
    }
    assert_true(rpc_client_wait(client, slow, 20000));
    assert_int_equal(slow->code, MR_RPC_OK);
    assert_int_equal(slow->len, (size_t)N * SIZE);
    rpc_client_close(client);
    rpc_client_close(other);
    free(many);
}

static void nothing_is_kept_when_all_have_left(void **state)
{
    mr_rpc_stats stats;
    (void)state;
    for (int i = 0; i < 2000; i++) {
        mr_rpc_server_stats(server, &stats);
        if (stats.calls == 0 && stats.connections == 0)
            break;
        usleep(5000);
    }
    assert_int_equal(stats.calls, 0);
    assert_int_equal(stats.connections, 0);
    assert_int_equal(stats.buffered_bytes, 0);
    assert_true(stats.finished > 2 * COUNT(rows));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_get_the_status_of_the_specification),
        cmocka_unit_test(a_reply_has_its_prefix),
        cmocka_unit_test(a_stream_sends_all_then_its_status),
        cmocka_unit_test(replies_are_compressed_for_those_who_accept_it),
        cmocka_unit_test(an_early_answer_lets_the_client_finish),
        cmocka_unit_test(messages_go_both_ways),
        cmocka_unit_test(a_server_may_end_a_conversation),
        cmocka_unit_test(a_slow_client_holds_its_own_stream_only),
        cmocka_unit_test(nothing_is_kept_when_all_have_left),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
