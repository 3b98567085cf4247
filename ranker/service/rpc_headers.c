/* rpc_headers.c - the headers of a request, and what they decide before a byte of the message.
 *
 * A call that cannot be served is answered here, while its body may still be on the way: the body
 * is then read and thrown away, because a reset in its face would hide the answer from clients
 * behind proxies.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "ranker/service/rpc_private.h"

#define ABSURD 64 /* times max_header_bytes: nobody does that by mistake (HPACK bombs) */

static bool equal(mr_str text, const char *want)
{
    return mr_str_equal(text, mr_str_of(want));
}

/* application/grpc, also with +proto or ;parameters. */
static bool is_grpc(mr_str type)
{
    static const char prefix[] = "application/grpc";
    const size_t len = sizeof prefix - 1;
    if (type.len < len || memcmp(type.data, prefix, len) != 0)
        return false;
    return type.len == len || type.data[len] == '+' || type.data[len] == ';';
}

static void pseudo_header(mr_rpc_stream *stream, mr_str name, mr_str value)
{
    if (equal(name, ":method"))
        stream->is_post = equal(value, "POST");
    else if (equal(name, ":path"))
        stream->call->method = mr_rpc_shared_find(stream->call->shared, value);
}

/* True when it was one of the protocol's own. */
static bool protocol_header(mr_rpc_stream *stream, mr_str name, mr_str value)
{
    if (equal(name, "content-type"))
        stream->is_grpc = is_grpc(value);
    else if (equal(name, "grpc-timeout"))
        stream->timeout_bad = !mr_rpc_timeout_parse(value, &stream->timeout_us);
    else if (equal(name, "grpc-encoding"))
        stream->encoding_bad = !mr_rpc_encoding_parse(value, &stream->encoding);
    else if (equal(name, "grpc-accept-encoding"))
        stream->call->accepts_gzip = mr_rpc_list_has(value, "gzip");
    else if (equal(name, "authorization")) /* not kept: keys should not lie about in memory */
        stream->authorized = mr_rpc_server_authorized(stream->conn->loop->server, value);
    else
        return equal(name, "te");
    return true;
}

int mr_rpc_stream_header(mr_rpc_stream *stream, mr_str name, mr_str value)
{
    const size_t most = stream->call->shared->opt.max_header_bytes;
    stream->header_bytes += name.len + value.len + 32;
    if (stream->header_bytes > most) {
        stream->headers_wire = MR_RPC_WIRE_TOO_LARGE;
        if (stream->header_bytes > ABSURD * most) {
            mr_rpc_connection_condemn(stream->conn, NGHTTP2_ENHANCE_YOUR_CALM);
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
        return 0;
    }
    if (stream->headers_done || name.len == 0) /* a client's trailers mean nothing in gRPC */
        return 0;
    if (name.data[0] == ':') {
        pseudo_header(stream, name, value);
    } else if (!protocol_header(stream, name, value)) {
        const mr_rpc_wire result = mr_rpc_metadata_receive(&stream->call->metadata, name, value);
        if (stream->headers_wire == MR_RPC_WIRE_OK)
            stream->headers_wire = result;
    }
    return 0;
}

static void set_deadline(mr_rpc_stream *stream)
{
    mr_rpc_call *call = stream->call;
    const mr_rpc_options *opt = &call->shared->opt;
    if (!call->method || !call->method->long_lived)
        call->deadline_us = call->arrived_us + opt->max_deadline_ms * 1000;
    if (stream->timeout_us >= 0 && call->arrived_us + stream->timeout_us < call->deadline_us)
        call->deadline_us = call->arrived_us + stream->timeout_us;
    stream->upload_until_us = call->arrived_us + opt->upload_ms * 1000;
}

static bool headers_pass(mr_rpc_stream *stream)
{
    const mr_rpc_call *call = stream->call;
    char text[128];
    switch (stream->headers_wire) {
    case MR_RPC_WIRE_OK: return true;
    case MR_RPC_WIRE_TOO_LARGE:
        snprintf(text, sizeof text, "headers of %zu bytes, at most %u are taken",
                 stream->header_bytes, (unsigned)call->shared->opt.max_header_bytes);
        mr_rpc_stream_refuse(stream, MR_RPC_RESOURCE_EXHAUSTED, text);
        return false;
    case MR_RPC_WIRE_BUDGET: mr_rpc_stream_shed(stream, "no memory for headers"); return false;
    default:
        mr_rpc_stream_refuse(stream, MR_RPC_INTERNAL,
                             "a header whose name ends in -bin is not base64");
        return false;
    }
}

void mr_rpc_stream_begin(mr_rpc_stream *stream)
{
    mr_rpc_call *call = stream->call;
    mr_rpc_shared *shared = call->shared;
    const mr_rpc_method *method = call->method;
    stream->headers_done = true;
    call->arrived_us = stream->conn->loop->now_us;
    set_deadline(stream);
    mr_rpc_stream_arm(stream);
    if (!stream->is_post) {
        mr_rpc_stream_http_error(stream, "405");
    } else if (!stream->is_grpc) {
        mr_rpc_stream_http_error(stream, "415");
    } else if (!headers_pass(stream)) {
        return;
    } else if (!stream->authorized && !(method && method->open) &&
               !mr_rpc_server_authorized(stream->conn->loop->server, (mr_str){NULL, 0})) {
        mr_rpc_stream_refuse(stream, MR_RPC_UNAUTHENTICATED,
                             "a known key is needed: authorization: Bearer KEY");
    } else if (!method) {
        mr_rpc_stream_refuse(stream, MR_RPC_UNIMPLEMENTED, "no such method");
    } else if (stream->timeout_bad) {
        mr_rpc_stream_refuse(stream, MR_RPC_INTERNAL,
                             "grpc-timeout is not 1 to 8 digits and one of H M S m u n");
    } else if (stream->encoding_bad) {
        mr_rpc_stream_refuse(stream, MR_RPC_UNIMPLEMENTED,
                             "grpc-encoding: only " MR_RPC_ENCODINGS " are known");
    } else if (mr_rpc_counted(shared, MR_RPC_N_CALLS) > shared->opt.max_calls && !method->open) {
        mr_rpc_stream_shed(stream, "too many calls at once");
    } else if (method->kind == MR_RPC_BIDI) {
        mr_rpc_call_ref(call);
        stream->user = true;
        mr_rpc_stream_arm(stream); /* such a request may take its time */
    }
}
