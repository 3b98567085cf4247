/* rpc_server.h - the gRPC transport: methods by path, calls that any thread may answer.
 *
 *     static const mr_rpc_method methods[] = {{"/mixrank.v1.RankingService/Rank", MR_RPC_UNARY,
 * rank, service}}; const char *listen[] = {"127.0.0.1:50051", "unix:/run/mixrank.sock"};
 *     mr_rpc_options opt = {.listen = listen, .n_listen = 2, .methods = methods, .n_methods = 1};
 *     mr_rpc_server *server = NULL;
 *     if (mr_rpc_server_new(&server, &opt, &err) != MR_OK || mr_rpc_server_start(server, &err)...
 *     ...
 *     mr_rpc_server_stop(server, 25000);     drains: what was accepted is answered
 *     mr_rpc_server_free(server);
 *
 *     static void rank(void *service, mr_rpc_call *call)      on an event loop: must not block
 *     {
 *         mr_rpc_call_ref(call);                              kept beyond the handler
 *         push(service, call);
 *     }
 *     ... on a compute thread: mr_rpc_call_request, poll mr_rpc_call_is_cancelled, then
 *         mr_rpc_call_reply(call, bytes, len); mr_rpc_call_unref(call);
 *
 * Wire: gRPC over HTTP/2 (PROTOCOL-HTTP2.md of the gRPC project), HTTP/2 by nghttp2, cleartext with
 * prior knowledge or TLS with ALPN "h2". Knows no messages: requests and replies are bytes.
 * Threads: one loop per thread, a connection stays on its loop. A handler and the hooks of a call
 * run on its loop; every mr_rpc_call_ function that does not say otherwise may be called by any
 * thread. Memory: whatever peers can make the server keep is bounded by mr_rpc_options.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_SERVICE_RPC_SERVER_H
#define MR_RANKER_SERVICE_RPC_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/error.h"
#include "core/metrics.h"

/* The codes of grpc/statuscodes, by their numbers. */
#define MR_RPC_CODE_MAP(X)    \
    X(OK, 0)                  \
    X(CANCELLED, 1)           \
    X(UNKNOWN, 2)             \
    X(INVALID_ARGUMENT, 3)    \
    X(DEADLINE_EXCEEDED, 4)   \
    X(NOT_FOUND, 5)           \
    X(ALREADY_EXISTS, 6)      \
    X(PERMISSION_DENIED, 7)   \
    X(RESOURCE_EXHAUSTED, 8)  \
    X(FAILED_PRECONDITION, 9) \
    X(ABORTED, 10)            \
    X(OUT_OF_RANGE, 11)       \
    X(UNIMPLEMENTED, 12)      \
    X(INTERNAL, 13)           \
    X(UNAVAILABLE, 14)        \
    X(DATA_LOSS, 15)          \
    X(UNAUTHENTICATED, 16)

typedef enum {
#define MR_RPC_CODE_ENUM(name, number) MR_RPC_##name = number,
    MR_RPC_CODE_MAP(MR_RPC_CODE_ENUM)
#undef MR_RPC_CODE_ENUM
        MR_RPC_CODE_COUNT
} mr_rpc_code;

/* "INVALID_ARGUMENT" and the like; "UNKNOWN" for a number that is none. Static storage. */
const char *mr_rpc_code_name(mr_rpc_code code);

typedef struct mr_rpc_server mr_rpc_server;
typedef struct mr_rpc_call mr_rpc_call;

/* ---- methods ---- */

typedef enum {
    MR_RPC_UNARY,         /* one message in, one out */
    MR_RPC_SERVER_STREAM, /* one in, any number out */
    MR_RPC_BIDI,          /* any number both ways; answered on the loop */
} mr_rpc_kind;

/* Called on the call's loop: must return at once, so whoever computes refs the call and hands it to
 * another thread. UNARY and SERVER_STREAM: called once, with the whole request. BIDI: once per
 * message (valid until the handler returns), and once more when the client has sent its last, with
 * mr_rpc_call_request_ended; while written replies wait for a slow client, no further message
 * comes. A call that nobody holds any longer and nobody finished is answered with INTERNAL. */
typedef void (*mr_rpc_handler)(void *context, mr_rpc_call *call);

typedef struct {
    const char
        *path; /* "/package.Service/Method", as on the wire; borrowed for the server's life */
    mr_rpc_kind kind;
    mr_rpc_handler handle;
    void *context;
    bool open;       /* served without a bearer key: health */
    bool long_lived; /* max_deadline_ms does not apply, and a drain ends it: Watch */
} mr_rpc_method;

/* ---- server ---- */

/* 0 or NULL anywhere means the default in brackets. */
typedef struct {
    /* "127.0.0.1:50051", "[::1]:50051", "name:50051", ":50051" (any address), port 0 (any free
     * one), or "unix:/path" (mode 0660; never TLS). */
    const char *const *listen;
    size_t n_listen;
    const mr_rpc_method *methods; /* copied */
    size_t n_methods;
    int loops;                 /* threads [2] */
    size_t max_message_bytes;  /* of a request, after decompression [16 MiB] */
    size_t max_buffered_bytes; /* requests and unsent replies of all calls [256 MiB] */
    size_t max_calls;          /* in handlers, cancelled ones that still compute included [4096] */
    size_t max_connections;    /* further ones are closed at once [1024] */
    uint32_t max_streams; /* concurrent calls of one connection; clients queue the rest [256] */
    uint32_t max_header_bytes;   /* names + values + 32 each, as RFC 9113 counts [16 KiB] */
    size_t stream_buffer_bytes;  /* unsent replies from which mr_rpc_call_write blocks [256 KiB] */
    size_t gzip_from;            /* replies of so many bytes are compressed where taken [never] */
    int64_t max_deadline_ms;     /* cap, and deadline of calls that bring none [60,000] */
    int64_t upload_ms;           /* from headers to the end of a request [20,000] */
    int64_t handshake_ms;        /* TLS and HTTP/2 preface; a frame of headers [10,000] */
    int64_t idle_ms;             /* connection without calls [900,000] */
    int64_t keepalive_ms;        /* silence after which we ping [30,000] */
    int64_t keepalive_answer_ms; /* silence after the ping that ends a connection [20,000] */
    int64_t stall_ms;            /* client does not read what waits for it [30,000] */
    uint32_t retry_after_ms;     /* grpc-retry-pushback-ms when the transport sheds [1,000] */
    /* TLS for all but unix sockets: PEM files, both or neither. With client CAs only clients that
     * show a certificate of theirs are let in. */
    const char *tls_certificate;
    const char *tls_key;
    const char *tls_client_ca;
    /* Bearer keys, one a line, '#' begins a comment: calls without one are UNAUTHENTICATED. */
    const char *keys_file;
    mr_metrics *metrics; /* NULL: not counted; must live until mr_rpc_server_free */
} mr_rpc_options;

/* Binds and listens (nothing is accepted before start), reads certificates and keys. Errors name
 * the address or file. */
MR_NODISCARD mr_status mr_rpc_server_new(mr_rpc_server **out, const mr_rpc_options *options,
                                         mr_error *err);
MR_NODISCARD mr_status mr_rpc_server_start(mr_rpc_server *server, mr_error *err);

/* The i-th bound address, with the port that port 0 became: "127.0.0.1:40123"; NULL beyond the
 * last. A name that resolves to several addresses gives several. Lives as long as the server. */
const char *mr_rpc_server_address(const mr_rpc_server *server, size_t i);

/* Reads certificates and keys again, all or nothing: after an error the old ones stay in use.
 * Connections keep what they were opened with; keys count from the next call on. Any thread. */
MR_NODISCARD mr_status mr_rpc_server_reload(mr_rpc_server *server, mr_error *err);

/* Starts a drain and returns: sockets stop listening, clients are told to send new calls elsewhere
 * (GOAWAY), long-lived calls end with UNAVAILABLE, all others go on. Any thread; again is fine. */
void mr_rpc_server_drain(mr_rpc_server *server);

/* Drains, waits up to grace_ms for the calls to end, cancels the rest (UNAVAILABLE) and joins the
 * loops. Returns the number of calls that had to be cancelled. Not from a loop. Calls that other
 * threads still hold stay valid: what is written to them goes nowhere. */
size_t mr_rpc_server_stop(mr_rpc_server *server, int64_t grace_ms);

/* Stops without grace when that was not done. NULL is fine. */
void mr_rpc_server_free(mr_rpc_server *server);

typedef struct {
    uint64_t connections, calls; /* now */
    uint64_t buffered_bytes;     /* now */
    uint64_t accepted, refused;  /* connections */
    uint64_t accept_errors;      /* no descriptors or memory: accepting paused for 100 ms */
    uint64_t resets_received, resets_sent;
    uint64_t dropped; /* connections that broke the protocol, a limit or a time limit */
    uint64_t received_bytes, sent_bytes;
    uint64_t finished; /* calls */
} mr_rpc_stats;

void mr_rpc_server_stats(const mr_rpc_server *server, mr_rpc_stats *out);

/* ---- a call ---- */

void mr_rpc_call_ref(mr_rpc_call *call);
void mr_rpc_call_unref(mr_rpc_call *call); /* NULL is fine */

/* The message, uncompressed; borrowed until the last unref (BIDI: until the handler returns). */
mr_bytes mr_rpc_call_request(const mr_rpc_call *call);
bool mr_rpc_call_request_ended(const mr_rpc_call *call); /* BIDI, in the handler: no more come */
const char *mr_rpc_call_path(const mr_rpc_call *call);
/* "127.0.0.1:40123", "[::1]:40123" or "unix". */
const char *mr_rpc_call_peer(const mr_rpc_call *call);
/* The nth value (from 0) of a header, name in lower case; of names that end in -bin it is decoded.
 * Borrowed until the last unref. False when there is none. */
bool mr_rpc_call_metadata(const mr_rpc_call *call, const char *name, size_t nth, mr_bytes *value);
/* On mr_clock_monotonic_us; INT64_MAX when there is none (long-lived calls only). */
int64_t mr_rpc_call_deadline_us(const mr_rpc_call *call);
/* One atomic load. True from when the client went away, the deadline passed or the server stopped.
 */
bool mr_rpc_call_is_cancelled(const mr_rpc_call *call);

/* What the owner keeps beside the call; destroy (may be NULL) runs when nobody can see it any more,
 * after the last unref and on any thread. Once, in the handler. */
void mr_rpc_call_attach(mr_rpc_call *call, void *user, void (*destroy)(void *user));
void *mr_rpc_call_user(const mr_rpc_call *call);

/* Hooks run on the call's loop, with the call alive. They may run while another thread finishes the
 * call: what they touch should hang on the call (attach) or have a lock of its own. */
typedef void (*mr_rpc_hook)(mr_rpc_call *call, void *user);
/* At most once, and not for a call that was finished before. When the call is already cancelled it
 * runs now, on the calling thread. NULL takes it back. */
void mr_rpc_call_on_cancel(mr_rpc_call *call, mr_rpc_hook hook);
/* After a write gave WOULD_BLOCK, each time half of the buffer has drained. */
void mr_rpc_call_on_writable(mr_rpc_call *call, mr_rpc_hook hook);

/* Headers before the first message, and after the last. Copied. Names are lower case; values of
 * names that end in -bin are any bytes, others printable ASCII. INVALID otherwise, for names of the
 * protocol ("grpc-...", but for grpc-retry-pushback-ms and grpc-status-details-bin), and when it is
 * too late; EXHAUSTED beyond 8 KiB. */
mr_status mr_rpc_call_add_header(mr_rpc_call *call, const char *name, mr_bytes value,
                                 mr_error *err);
mr_status mr_rpc_call_add_trailer(mr_rpc_call *call, const char *name, mr_bytes value,
                                  mr_error *err);
/* The trailer grpc-retry-pushback-ms: when a shed call may be sent again. */
void mr_rpc_call_retry_after(mr_rpc_call *call, uint32_t ms);

typedef enum {
    MR_RPC_WRITTEN,     /* taken, copied */
    MR_RPC_WOULD_BLOCK, /* not taken: stream_buffer_bytes wait; see mr_rpc_call_on_writable */
    MR_RPC_GONE,        /* not taken: cancelled or finished */
} mr_rpc_write_result;

/* One message. The first always fits. Compresses on the calling thread. */
mr_rpc_write_result mr_rpc_call_write(mr_rpc_call *call, const void *data, size_t len);

/* Ends the call. message is UTF-8 for people, cut at 1,024 bytes; NULL is fine. The first one
 * counts; after a cancellation it goes nowhere. The reference stays the caller's. */
void mr_rpc_call_finish(mr_rpc_call *call, mr_rpc_code code, const char *message);
void mr_rpc_call_reply(mr_rpc_call *call, const void *data, size_t len); /* write, finish OK */
void mr_rpc_call_fail(mr_rpc_call *call, const mr_error *err);           /* by MR_STATUS_MAP */

#endif
