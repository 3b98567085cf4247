/* rpc_stream.c - one HTTP/2 stream: its request's messages, its timer, its end.
 *
 * Flow control is by hand: the client may send more only as we take what it sent. Messages are
 * taken into buffers that the server's budget bounds; BIDI messages wait in the stream's window
 * while the client does not read the replies to the earlier ones.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "ranker/service/rpc_private.h"

#define LEFTOVER_US    5000000 /* for the rest of a request that was answered early, or an answer */
#define MOST_DISCARDED ((size_t)65536) /* of it, beyond a whole message */

mr_rpc_stream *mr_rpc_stream_open(mr_rpc_connection *conn, int32_t id)
{
    mr_rpc_loop *loop = conn->loop;
    mr_rpc_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return NULL;
    stream->call = mr_rpc_call_new(loop->mailbox, conn->peer);
    if (!stream->call) {
        free(stream);
        return NULL;
    }
    stream->call->stream = stream;
    stream->call->arrived_us = loop->now_us;
    stream->conn = conn;
    stream->id = id;
    stream->timeout_us = -1;
    stream->lost = MR_RPC_CANCELLED;
    stream->reader.limit = loop->shared->opt.max_message_bytes;
    stream->reader.body.budget = stream->held.budget = &loop->shared->budget;
    stream->next = conn->streams;
    if (stream->next)
        stream->next->previous = stream;
    conn->streams = stream;
    conn->n_streams++;
    return stream;
}

static void record(mr_rpc_stream *stream, mr_rpc_code code)
{
    const mr_rpc_call *call = stream->call;
    const int64_t took = stream->conn->loop->now_us - call->arrived_us;
    mr_rpc_instruments_call(call->shared, call->method, code, (double)took / 1e6);
}

void mr_rpc_stream_close(mr_rpc_stream *stream)
{
    mr_rpc_connection *conn = stream->conn;
    mr_rpc_call *call = stream->call;
    if (stream->timer_set)
        event_del(&stream->timer);
    (void)mr_rpc_call_cancel(call, MR_RPC_CANCELLED, NULL, true);
    if (!stream->ended)
        record(stream, stream->lost);
    call->stream = NULL;
    if (stream->previous)
        stream->previous->next = stream->next;
    else
        conn->streams = stream->next;
    if (stream->next)
        stream->next->previous = stream->previous;
    if (--conn->n_streams == 0)
        conn->idle_us = conn->loop->now_us;
    mr_rpc_buffer_release(&stream->reader.body);
    mr_rpc_buffer_release(&stream->held);
    if (stream->user)
        mr_rpc_call_unref(call);
    mr_rpc_call_drop(call);
    free(stream);
}

/* ---- time ---- */

void mr_rpc_stream_arm(mr_rpc_stream *stream)
{
    mr_rpc_loop *loop = stream->conn->loop;
    const mr_rpc_call *call = stream->call;
    int64_t until = call->deadline_us;
    const bool uploading = !stream->input_ended && !stream->user;
    if (stream->ended || stream->expired)
        until = loop->now_us + LEFTOVER_US;
    else if (uploading && stream->upload_until_us < until)
        until = stream->upload_until_us;
    if (!stream->timer_set) {
        event_assign(&stream->timer, loop->base, -1, 0, mr_rpc_stream_on_timer, stream);
        stream->timer_set = true;
    }
    if ((stream->ended && stream->input_ended) || until == INT64_MAX) {
        event_del(&stream->timer);
        return;
    }
    const int64_t left = until > loop->now_us ? until - loop->now_us : 0;
    const struct timeval tv = {left / 1000000, left % 1000000};
    if (event_add(&stream->timer, &tv) != 0)
        mr_rpc_connection_kill(stream->conn); /* a call without its deadline might stay for ever */
}

static void reset(mr_rpc_stream *stream, uint32_t error_code)
{
    (void)nghttp2_submit_rst_stream(stream->conn->session, NGHTTP2_FLAG_NONE, stream->id,
                                    error_code);
    mr_rpc_connection_dirty(stream->conn);
}

/* Ends the call with a status, behind what is queued for the client. */
static bool end_early(mr_rpc_stream *stream, mr_rpc_code code, const char *message)
{
    const bool fresh = mr_rpc_call_cancel(stream->call, code, message, false);
    stream->discarding = stream->expired = true;
    stream->lost = code;
    mr_rpc_buffer_release(&stream->reader.body);
    mr_rpc_stream_advance(stream);
    mr_rpc_stream_arm(stream);
    return fresh;
}

void mr_rpc_stream_stop(mr_rpc_stream *stream)
{
    const mr_rpc_method *method = stream->call->method;
    if (end_early(stream, MR_RPC_UNAVAILABLE, "the server is stopping") &&
        !(method && method->long_lived))
        atomic_fetch_add(&stream->conn->loop->server->cancelled, 1);
}

void mr_rpc_stream_on_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    mr_rpc_stream *stream = context;
    mr_rpc_loop *loop = stream->conn->loop;
    mr_rpc_loop_enter(loop);
    if (stream->ended) {
        reset(stream, NGHTTP2_NO_ERROR); /* answered; the rest of the request is not wanted */
    } else if (stream->expired) {
        reset(stream, NGHTTP2_CANCEL); /* not even the status could be sent */
    } else {
        const bool late = loop->now_us >= stream->call->deadline_us;
        const mr_rpc_call_state state = mr_rpc_call_look(stream->call, false);
        if (stream->responded && (state.waiting || state.finished)) {
            /* A client that is this slow has given up; it gets no status behind all that. */
            (void)mr_rpc_call_cancel(stream->call, MR_RPC_DEADLINE_EXCEEDED, NULL, true);
            stream->lost = MR_RPC_DEADLINE_EXCEEDED;
            reset(stream, NGHTTP2_CANCEL);
        } else {
            (void)end_early(stream, MR_RPC_DEADLINE_EXCEEDED,
                            late ? "the deadline is over" : "the request did not arrive in time");
        }
    }
    mr_rpc_loop_settle(loop);
}

void mr_rpc_stream_sent(mr_rpc_stream *stream)
{
    pthread_mutex_lock(&stream->call->lock);
    const mr_rpc_code code = stream->call->code;
    pthread_mutex_unlock(&stream->call->lock);
    stream->ended = stream->discarding = true;
    mr_rpc_buffer_release(&stream->reader.body);
    record(stream, code);
    mr_rpc_stream_arm(stream);
}

/* ---- answers of the transport's own ---- */

void mr_rpc_stream_refuse(mr_rpc_stream *stream, mr_rpc_code code, const char *message)
{
    stream->discarding = true;
    mr_rpc_buffer_release(&stream->reader.body);
    mr_rpc_call_abort(stream->call, code, message);
}

void mr_rpc_stream_shed(mr_rpc_stream *stream, const char *message)
{
    mr_rpc_call_retry_after(stream->call, stream->call->shared->opt.retry_after_ms);
    mr_rpc_stream_refuse(stream, MR_RPC_RESOURCE_EXHAUSTED, message);
}

static void refuse_bytes(mr_rpc_stream *stream, mr_rpc_wire why, bool inflated)
{
    char text[128];
    switch (why) {
    case MR_RPC_WIRE_TOO_LARGE:
        if (inflated)
            snprintf(text, sizeof text, "a message of more than %zu bytes after decompression",
                     stream->reader.limit);
        else
            snprintf(text, sizeof text, "a message of %u bytes, at most %zu are taken",
                     (unsigned)stream->reader.length, stream->reader.limit);
        mr_rpc_stream_refuse(stream, MR_RPC_RESOURCE_EXHAUSTED, text);
        break;
    case MR_RPC_WIRE_BUDGET: mr_rpc_stream_shed(stream, "the server's buffers are full"); break;
    default:
        mr_rpc_stream_refuse(stream, MR_RPC_INTERNAL,
                             inflated ? "a compressed message is damaged"
                                      : "the compressed flag of a message is neither 0 nor 1");
    }
}

/* ---- messages ---- */

static void handle(mr_rpc_stream *stream)
{
    mr_rpc_call *call = stream->call;
    mr_rpc_call_ref(call);
    call->method->handle(call->method->context, call);
    mr_rpc_call_unref(call);
}

/* The reader holds a whole message: inflates it, hands it over or keeps it for the end. */
static void take_message(mr_rpc_stream *stream)
{
    mr_rpc_call *call = stream->call;
    mr_rpc_buffer body = stream->reader.body;
    stream->reader.body = (mr_rpc_buffer){.budget = body.budget};
    if (stream->reader.compressed) {
        mr_rpc_buffer plain = {.budget = body.budget};
        mr_rpc_wire result = MR_RPC_WIRE_MALFORMED;
        if (stream->encoding != MR_RPC_IDENTITY)
            result = mr_rpc_inflate(stream->encoding, (mr_bytes){body.data, body.len},
                                    stream->reader.limit, &plain);
        mr_rpc_buffer_release(&body);
        body = plain;
        if (result != MR_RPC_WIRE_OK) {
            mr_rpc_buffer_release(&body);
            refuse_bytes(stream, result, true);
            return;
        }
    }
    mr_rpc_reader_next(&stream->reader);
    if (stream->have_message && call->method->kind != MR_RPC_BIDI) {
        mr_rpc_buffer_release(&body);
        mr_rpc_stream_refuse(stream, MR_RPC_UNIMPLEMENTED, "more than one message in the request");
        return;
    }
    stream->have_message = true;
    mr_rpc_buffer_release(&call->request);
    call->request = body;
    if (call->method->kind == MR_RPC_BIDI) {
        handle(stream);
        mr_rpc_buffer_release(&call->request);
    }
}

static bool must_wait(mr_rpc_stream *stream)
{
    if (stream->call->method->kind != MR_RPC_BIDI)
        return false;
    const mr_rpc_call_state state = mr_rpc_call_look(stream->call, false);
    if (state.finished)
        stream->discarding = true;
    if (!state.full || state.finished)
        return false;
    mr_rpc_call_want_room(stream->call);
    return true;
}

/* Returns how many bytes were taken: all, unless a BIDI stream has to wait for its client. */
static size_t parse(mr_rpc_stream *stream, const uint8_t *data, size_t len)
{
    size_t at = 0;
    while (at < len && !stream->discarding) {
        size_t used;
        if (must_wait(stream))
            return at;
        if (stream->discarding)
            break;
        const mr_rpc_wire result = mr_rpc_reader_feed(&stream->reader, data + at, len - at, &used);
        at += used;
        if (result == MR_RPC_WIRE_OK)
            take_message(stream);
        else if (result != MR_RPC_WIRE_MORE)
            refuse_bytes(stream, result, false);
    }
    return len;
}

static void end_of_input(mr_rpc_stream *stream)
{
    mr_rpc_call *call = stream->call;
    if (stream->discarding || stream->held.len > 0)
        return;
    if (mr_rpc_reader_is_partial(&stream->reader)) {
        mr_rpc_stream_refuse(stream, MR_RPC_INTERNAL, "the request ends inside a message");
    } else if (call->method->kind == MR_RPC_BIDI) {
        call->request_ended = true;
        if (!mr_rpc_call_look(call, false).finished)
            handle(stream);
        stream->user = false;
        mr_rpc_call_unref(call);
    } else if (!stream->have_message) {
        mr_rpc_stream_refuse(stream, MR_RPC_UNIMPLEMENTED, "no message in the request");
    } else {
        handle(stream);
    }
}

void mr_rpc_stream_data(mr_rpc_stream *stream, const uint8_t *data, size_t len)
{
    nghttp2_session *session = stream->conn->session;
    size_t taken = len;
    if (stream->discarding) {
        stream->discarded += len;
        if (stream->discarded > stream->reader.limit + MOST_DISCARDED && stream->ended)
            reset(stream, NGHTTP2_NO_ERROR);
    } else if (stream->held.len > 0) {
        taken = 0;
    } else {
        taken = parse(stream, data, len);
    }
    (void)nghttp2_session_consume_stream(session, stream->id, taken);
    (void)nghttp2_session_consume_connection(session, len);
    if (taken == len)
        return;
    /* At most the stream's window: the client may not send more before this is taken. */
    const size_t rest = len - taken;
    const mr_rpc_wire result = mr_rpc_buffer_reserve(&stream->held, rest, (size_t)1 << 20);
    if (result != MR_RPC_WIRE_OK) {
        refuse_bytes(stream, MR_RPC_WIRE_BUDGET, false);
        return;
    }
    memcpy(stream->held.data + stream->held.len, data + taken, rest);
    stream->held.len += rest;
}

void mr_rpc_stream_resume_input(mr_rpc_stream *stream)
{
    mr_rpc_buffer *held = &stream->held;
    if (held->len == 0)
        return;
    const size_t taken = parse(stream, held->data, held->len);
    held->len -= taken;
    memmove(held->data, held->data + taken, held->len);
    (void)nghttp2_session_consume_stream(stream->conn->session, stream->id, taken);
    mr_rpc_connection_dirty(stream->conn);
    if (held->len > 0)
        return;
    mr_rpc_buffer_release(held);
    if (stream->input_ended)
        end_of_input(stream);
}

void mr_rpc_stream_input_end(mr_rpc_stream *stream)
{
    if (stream->input_ended)
        return;
    stream->input_ended = true;
    mr_rpc_stream_arm(stream);
    end_of_input(stream);
}
