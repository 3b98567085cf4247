/* rpc_client.h - a small blocking gRPC client on nghttp2, for tests that need odd requests.
 *
 *     rpc_client *client = rpc_client_open("127.0.0.1:40123");
 *     rpc_request request = {.path = "/test.T/Echo", .body = bytes, .len = n};
 *     rpc_result *result = rpc_client_call(client, &request);     waits for the stream's end
 *     assert_int_equal(result->code, MR_RPC_OK);
 *     rpc_client_close(client);                                    frees the results too
 *
 * What is sent as body is raw: prefixes are the test's. Failures of the client itself fail the
 * test.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_RPC_CLIENT_H
#define MR_TESTS_RPC_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <nghttp2/nghttp2.h>

typedef struct rpc_client rpc_client;

typedef struct {
    const char *path;
    const char *method;       /* NULL: POST */
    const char *content_type; /* NULL: application/grpc; "": none */
    const char *headers[8];   /* name, value, ... ; NULL ends */
    const uint8_t *body;
    size_t len;
    size_t piece; /* bytes of a DATA frame; 0: as many as fit */
    bool open;    /* no END_STREAM after the body; see rpc_client_end */
} rpc_request;

typedef struct {
    int32_t id;
    bool done;         /* the stream is closed */
    bool ended;        /* END_STREAM came */
    uint32_t reset;    /* error code of a closed stream */
    bool was_reset;    /* RST_STREAM came */
    int http_status;   /* -1: none yet */
    int code;          /* grpc-status; -1: none */
    int header_frames; /* 1: trailers only */
    char text[4096];   /* "name: value\n" of all headers and trailers, but :status */
    uint8_t *body;
    size_t len;
} rpc_result;

rpc_client *rpc_client_open(const char *address);
void rpc_client_close(rpc_client *client);
/* Sends the request; the result fills as rpc_client_run goes on. */
rpc_result *rpc_client_start(rpc_client *client, const rpc_request *request);
void rpc_client_send(rpc_client *client, rpc_result *result, const void *data, size_t len);
void rpc_client_end(rpc_client *client, rpc_result *result); /* END_STREAM */
void rpc_client_reset(rpc_client *client, rpc_result *result, uint32_t error_code);
/* Until the stream is done; false after so many milliseconds, or when the connection ended. */
bool rpc_client_wait(rpc_client *client, const rpc_result *result, int ms);
/* Until END_STREAM came. */
bool rpc_client_wait_end(rpc_client *client, const rpc_result *result, int ms);
/* Until so many bytes of body came. */
bool rpc_client_wait_bytes(rpc_client *client, const rpc_result *result, size_t len, int ms);
rpc_result *rpc_client_call(rpc_client *client, const rpc_request *request);
bool rpc_client_gone(rpc_client *client, int ms); /* the server closed the connection */
bool rpc_client_told_to_go(const rpc_client *client);
/* A window this small from the next stream on. */
void rpc_client_set_window(rpc_client *client, uint32_t bytes);

#endif
