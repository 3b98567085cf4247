/* rpc_session.c - nghttp2's callbacks: frames to streams, and the floods that are not forbidden by
 * the protocol.
 *
 * Rapid reset (CVE-2023-44487) and its mirror image, where a client provokes resets of ours
 * (CVE-2025-8671), pings, empty frames and settings without end (CVE-2019-9512 to 9518): each costs
 * a token, and a client that has none left is sent away with ENHANCE_YOUR_CALM. Real clients ping
 * and cancel far less. Continuation floods and unread acknowledgements are nghttp2's own limits.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "ranker/service/rpc_private.h"

#define STREAM_WINDOW     (256 << 10)
#define CONNECTION_WINDOW (4 << 20)
#define RESETS            1000.0 /* burst */
#define RESETS_PER_S      100.0
#define IDLE_FRAMES       1000.0
#define IDLE_PER_S        100.0
#define MOST_ACKS         200
#define MOST_SETTINGS     32

static bool is_request(const nghttp2_frame *frame)
{
    return frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST;
}

static mr_rpc_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

static void idle_frame(mr_rpc_connection *conn)
{
    if (!mr_rpc_bucket_take(&conn->idle_frames, IDLE_FRAMES, IDLE_PER_S, conn->loop->now_us))
        mr_rpc_connection_condemn(conn, NGHTTP2_ENHANCE_YOUR_CALM);
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *context)
{
    (void)session;
    mr_rpc_connection *conn = context;
    if (hd->type == NGHTTP2_HEADERS)
        conn->frame_us = conn->loop->now_us;
    else if (hd->type == NGHTTP2_PRIORITY) /* nghttp2 ignores them, and says nothing later */
        idle_frame(conn);
    return 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    mr_rpc_connection *conn = context;
    if (!is_request(frame))
        return 0;
    mr_rpc_stream *stream = mr_rpc_stream_open(conn, frame->hd.stream_id);
    if (!stream)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    (void)nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *context)
{
    (void)flags;
    (void)context;
    mr_rpc_stream *stream = stream_of(session, frame->hd.stream_id);
    if (!stream)
        return 0;
    return mr_rpc_stream_header(stream, (mr_str){(const char *)name, name_len},
                                (mr_str){(const char *)value, value_len});
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                         size_t len, void *context)
{
    (void)flags;
    (void)context;
    mr_rpc_stream *stream = stream_of(session, id);
    if (stream)
        mr_rpc_stream_data(stream, data, len);
    else
        (void)nghttp2_session_consume(session, id, len);
    return 0;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    mr_rpc_connection *conn = context;
    mr_rpc_stream *stream = frame->hd.stream_id ? stream_of(session, frame->hd.stream_id) : NULL;
    const bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        conn->frame_us = 0;
        if (stream && is_request(frame))
            mr_rpc_stream_begin(stream);
        if (stream && end)
            mr_rpc_stream_input_end(stream);
        break;
    case NGHTTP2_DATA:
        if (frame->hd.length == 0 && !end)
            idle_frame(conn);
        if (stream && end)
            mr_rpc_stream_input_end(stream);
        break;
    case NGHTTP2_SETTINGS:
        conn->greeted = true;
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
            idle_frame(conn);
        break;
    case NGHTTP2_PING:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
            idle_frame(conn);
        break;
    case NGHTTP2_RST_STREAM:
        mr_rpc_count(conn->loop->shared, MR_RPC_N_RESETS_RECEIVED, 1);
        if (!mr_rpc_bucket_take(&conn->their_resets, RESETS, RESETS_PER_S, conn->loop->now_us))
            mr_rpc_connection_condemn(conn, NGHTTP2_ENHANCE_YOUR_CALM);
        break;
    default: break;
    }
    return 0;
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error_code,
                            void *context)
{
    (void)session;
    (void)error_code;
    mr_rpc_connection *conn = context;
    if (frame->hd.type == NGHTTP2_HEADERS)
        conn->frame_us = 0;
    return 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    mr_rpc_connection *conn = context;
    if (frame->hd.type == NGHTTP2_RST_STREAM) {
        mr_rpc_count(conn->loop->shared, MR_RPC_N_RESETS_SENT, 1);
        if (frame->rst_stream.error_code != NGHTTP2_NO_ERROR &&
            frame->rst_stream.error_code != NGHTTP2_CANCEL &&
            !mr_rpc_bucket_take(&conn->our_resets, RESETS, RESETS_PER_S, conn->loop->now_us))
            mr_rpc_connection_condemn(conn, NGHTTP2_ENHANCE_YOUR_CALM);
    }
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR)
        mr_rpc_connection_condemned(conn); /* by nghttp2, when it was not us */
    if (frame->hd.type == NGHTTP2_HEADERS && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
        mr_rpc_stream *stream = stream_of(session, frame->hd.stream_id);
        if (stream)
            mr_rpc_stream_sent(stream);
    }
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *context)
{
    (void)error_code;
    (void)context;
    mr_rpc_stream *stream = stream_of(session, id);
    if (stream) {
        (void)nghttp2_session_set_stream_user_data(session, id, NULL);
        mr_rpc_stream_close(stream);
    }
    return 0;
}

nghttp2_session_callbacks *mr_rpc_session_callbacks(void)
{
    nghttp2_session_callbacks *callbacks = NULL;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return NULL;
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    return callbacks;
}

nghttp2_option *mr_rpc_session_options(void)
{
    nghttp2_option *option = NULL;
    if (nghttp2_option_new(&option) != 0)
        return NULL;
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_outbound_ack(option, MOST_ACKS);
    nghttp2_option_set_max_settings(option, MOST_SETTINGS);
#ifdef MR_HAVE_NGHTTP2_RESET_LIMIT
    nghttp2_option_set_stream_reset_rate_limit(option, (uint64_t)RESETS, (uint64_t)RESETS_PER_S);
#endif
    return option;
}

mr_status mr_rpc_session_open(mr_rpc_connection *conn, mr_error *err)
{
    const mr_rpc_options *opt = &conn->loop->shared->opt;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, opt->max_streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, opt->max_header_bytes},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    if (nghttp2_session_server_new2(&conn->session, conn->loop->callbacks, conn,
                                    conn->loop->option) != 0 ||
        nghttp2_submit_settings(conn->session, NGHTTP2_FLAG_NONE, settings,
                                sizeof settings / sizeof *settings) != 0 ||
        nghttp2_session_set_local_window_size(conn->session, NGHTTP2_FLAG_NONE, 0,
                                              CONNECTION_WINDOW) != 0)
        return MR_FAIL(err, NO_MEMORY, "an HTTP/2 session");
    return MR_OK;
}
