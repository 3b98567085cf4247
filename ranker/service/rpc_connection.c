/* rpc_connection.c - a socket and its HTTP/2 session: reading, sending, time limits, farewell.
 *
 * The end of a connection has two forms. Killed: closed as soon as the event settles. Ended in
 * peace, after GOAWAY and the last stream: our side is shut down and what the client still sends is
 * read and thrown away for a second, because closing a socket with unread bytes makes the kernel
 * send a reset, which destroys replies that the client has not read yet.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ranker/service/rpc_private.h"

#define READS_PER_EVENT 4
#define FRAME_ROOM      ((size_t)32768) /* more than nghttp2 hands out at once */
#define LINGER_US       1000000
#define NOTICE_US       100000 /* between "no new streams, please" and the last stream's number */
#define MOST_QUEUED     ((size_t)1000)

static void on_readable(evutil_socket_t fd, short what, void *context);
static void on_writable(evutil_socket_t fd, short what, void *context);

bool mr_rpc_bucket_take(mr_rpc_bucket *bucket, double burst, double per_second, int64_t now_us)
{
    if (bucket->filled_us == 0)
        bucket->tokens = burst;
    else
        bucket->tokens += (double)(now_us - bucket->filled_us) / 1e6 * per_second;
    bucket->filled_us = now_us;
    if (bucket->tokens > burst)
        bucket->tokens = burst;
    if (bucket->tokens < 1)
        return false;
    bucket->tokens -= 1;
    return true;
}

/* ---- life ---- */

void mr_rpc_connection_dirty(mr_rpc_connection *conn)
{
    if (conn->dirty)
        return;
    conn->dirty = true;
    conn->next_dirty = conn->loop->dirty;
    conn->loop->dirty = conn;
}

void mr_rpc_connection_kill(mr_rpc_connection *conn)
{
    conn->state = MR_RPC_DEAD;
    mr_rpc_connection_dirty(conn);
}

void mr_rpc_connection_drop(mr_rpc_connection *conn)
{
    if (conn->state == MR_RPC_OPEN && !conn->condemned)
        mr_rpc_count(conn->loop->shared, MR_RPC_N_DROPPED, 1);
    mr_rpc_connection_kill(conn);
}

void mr_rpc_connection_condemned(mr_rpc_connection *conn)
{
    if (!conn->condemned)
        mr_rpc_count(conn->loop->shared, MR_RPC_N_DROPPED, 1);
    conn->condemned = conn->going = true;
}

void mr_rpc_connection_condemn(mr_rpc_connection *conn, uint32_t error_code)
{
    if (conn->condemned || conn->state != MR_RPC_OPEN)
        return;
    mr_rpc_connection_condemned(conn);
    if (!conn->session || nghttp2_session_terminate_session(conn->session, error_code) != 0)
        mr_rpc_connection_kill(conn);
    mr_rpc_connection_dirty(conn);
}

void mr_rpc_connection_open(mr_rpc_loop *loop, const mr_rpc_socket *socket)
{
    mr_rpc_connection *conn = calloc(1, sizeof *conn);
    if (!conn) {
        close(socket->fd);
        mr_rpc_count(loop->shared, MR_RPC_N_CONNECTIONS, -1);
        return;
    }
    conn->loop = loop;
    conn->io.fd = socket->fd;
    memcpy(conn->peer, socket->peer, sizeof conn->peer);
    conn->opened_us = conn->received_us = conn->progress_us = conn->idle_us = loop->now_us;
    conn->next = loop->connections;
    if (conn->next)
        conn->next->previous = conn;
    loop->connections = conn;
    event_assign(&conn->reading, loop->base, conn->io.fd, EV_READ | EV_PERSIST, on_readable, conn);
    event_assign(&conn->writing, loop->base, conn->io.fd, EV_WRITE, on_writable, conn);
    conn->events_set = true;
    if (socket->tls) {
        conn->io.ssl = mr_rpc_server_tls(loop->server);
        if (!conn->io.ssl || !SSL_set_fd(conn->io.ssl, conn->io.fd)) {
            mr_rpc_connection_kill(conn);
            return;
        }
    } else {
        conn->io.open = true;
        if (mr_rpc_session_open(conn, NULL) != MR_OK) {
            mr_rpc_connection_kill(conn);
            return;
        }
    }
    if (event_add(&conn->reading, NULL) != 0) {
        mr_rpc_connection_kill(conn);
        return;
    }
    mr_rpc_connection_dirty(conn); /* our SETTINGS */
    if (loop->draining)
        mr_rpc_connection_drain(conn);
}

void mr_rpc_connection_free(mr_rpc_connection *conn)
{
    while (conn->streams)
        mr_rpc_stream_close(conn->streams);
    if (conn->events_set) {
        event_del(&conn->reading);
        event_del(&conn->writing);
    }
    if (conn->previous)
        conn->previous->next = conn->next;
    else
        conn->loop->connections = conn->next;
    if (conn->next)
        conn->next->previous = conn->previous;
    nghttp2_session_del(conn->session);
    mr_rpc_io_close(&conn->io);
    free(conn->pending);
    mr_rpc_count(conn->loop->shared, MR_RPC_N_CONNECTIONS, -1);
    free(conn);
}

/* ---- reading ---- */

static void read_leftovers(mr_rpc_connection *conn)
{
    for (int i = 0; i < READS_PER_EVENT; i++) {
        const ssize_t n = mr_rpc_io_read(&conn->io, conn->loop->read_buffer, MR_RPC_READ_BYTES);
        if (n == MR_RPC_IO_BLOCKED)
            return;
        if (n <= 0) {
            mr_rpc_connection_kill(conn);
            return;
        }
    }
}

static bool finish_handshake(mr_rpc_connection *conn)
{
    const int done = mr_rpc_io_handshake(&conn->io);
    if (done == MR_RPC_IO_BLOCKED) {
        if (conn->io.wants_write)
            (void)event_add(&conn->writing, NULL);
        return false;
    }
    if (done != 1) {
        mr_rpc_connection_drop(conn);
        return false;
    }
    if (mr_rpc_session_open(conn, NULL) != MR_OK) {
        mr_rpc_connection_kill(conn);
        return false;
    }
    mr_rpc_connection_dirty(conn);
    if (conn->loop->draining)
        mr_rpc_connection_drain(conn);
    return true;
}

static void read_frames(mr_rpc_connection *conn)
{
    mr_rpc_loop *loop = conn->loop;
    for (int i = 0; i < READS_PER_EVENT; i++) {
        const ssize_t n = mr_rpc_io_read(&conn->io, loop->read_buffer, MR_RPC_READ_BYTES);
        if (n == MR_RPC_IO_BLOCKED)
            return;
        if (n <= 0) {
            mr_rpc_connection_kill(conn); /* the client left */
            return;
        }
        conn->received_us = loop->now_us;
        conn->pinged_us = 0;
        mr_rpc_count(loop->shared, MR_RPC_N_RECEIVED, n);
        mr_rpc_connection_dirty(conn);
        const ssize_t taken = nghttp2_session_mem_recv(conn->session, loop->read_buffer, (size_t)n);
        if (taken < 0) {
            mr_rpc_connection_drop(conn);
            return;
        }
        if (conn->condemned || conn->state != MR_RPC_OPEN)
            return;
        if (!conn->io.ssl && (size_t)n < MR_RPC_READ_BYTES)
            return;
    }
    if (conn->io.ssl && SSL_pending(conn->io.ssl) > 0)
        event_active(&conn->reading, EV_READ, 0); /* the socket will not say so */
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    mr_rpc_connection *conn = context;
    mr_rpc_loop *loop = conn->loop;
    mr_rpc_loop_enter(loop);
    if (conn->state == MR_RPC_LINGERING)
        read_leftovers(conn);
    else if (conn->state == MR_RPC_OPEN && (conn->io.open || finish_handshake(conn)))
        read_frames(conn);
    mr_rpc_loop_settle(loop);
}

/* ---- sending ---- */

/* A client that does not read what it makes us say is not listened to. */
static void pause_reading(mr_rpc_connection *conn)
{
    const bool pause = conn->pending_len > 0 &&
                       nghttp2_session_get_outbound_queue_size(conn->session) > MOST_QUEUED;
    if (pause == conn->read_paused)
        return;
    conn->read_paused = pause;
    if (pause)
        event_del(&conn->reading);
    else if (event_add(&conn->reading, NULL) != 0)
        mr_rpc_connection_kill(conn);
}

/* False: the socket is full, or the connection dead. */
static bool send_bytes(mr_rpc_connection *conn, const uint8_t *data, size_t len, size_t *sent)
{
    *sent = 0;
    while (*sent < len) {
        const ssize_t n = mr_rpc_io_write(&conn->io, data + *sent, len - *sent);
        if (n == MR_RPC_IO_BLOCKED) {
            if (event_add(&conn->writing, NULL) != 0)
                mr_rpc_connection_kill(conn);
            return false;
        }
        if (n <= 0) {
            mr_rpc_connection_kill(conn);
            return false;
        }
        *sent += (size_t)n;
        conn->progress_us = conn->loop->now_us;
        mr_rpc_count(conn->loop->shared, MR_RPC_N_SENT, n);
    }
    return true;
}

static bool send_pending(mr_rpc_connection *conn)
{
    size_t sent;
    if (conn->pending_len == 0)
        return true;
    const bool all = send_bytes(conn, conn->pending + conn->pending_at, conn->pending_len, &sent);
    conn->pending_at += sent;
    conn->pending_len -= sent;
    if (conn->pending_len == 0) {
        free(conn->pending);
        conn->pending = NULL;
        conn->pending_at = 0;
    }
    return all;
}

static bool keep_pending(mr_rpc_connection *conn, const uint8_t *data, size_t len)
{
    conn->pending = malloc(len);
    if (!conn->pending) {
        mr_rpc_connection_kill(conn);
        return false;
    }
    memcpy(conn->pending, data, len);
    conn->pending_at = 0;
    conn->pending_len = len;
    return true;
}

/* Frames from nghttp2 into the loop's buffer; false when the connection died. */
static bool collect(mr_rpc_connection *conn, size_t *len)
{
    uint8_t *buffer = conn->loop->write_buffer;
    *len = 0;
    while (MR_RPC_WRITE_BYTES - *len >= FRAME_ROOM) {
        const uint8_t *data;
        const ssize_t n = nghttp2_session_mem_send(conn->session, &data);
        if (n < 0 || (size_t)n > MR_RPC_WRITE_BYTES - *len) {
            mr_rpc_connection_kill(conn);
            return false;
        }
        if (n == 0)
            break;
        memcpy(buffer + *len, data, (size_t)n);
        *len += (size_t)n;
    }
    return true;
}

void mr_rpc_connection_flush(mr_rpc_connection *conn)
{
    if (conn->state != MR_RPC_OPEN || !conn->session)
        return;
    if (conn->pending_len == 0)
        conn->progress_us = conn->loop->now_us;
    while (send_pending(conn)) {
        size_t len, sent;
        if (!collect(conn, &len))
            return;
        if (len == 0)
            break;
        if (!send_bytes(conn, conn->loop->write_buffer, len, &sent)) {
            if (conn->state == MR_RPC_OPEN &&
                keep_pending(conn, conn->loop->write_buffer + sent, len - sent))
                pause_reading(conn);
            return;
        }
    }
    if (conn->state != MR_RPC_OPEN)
        return;
    pause_reading(conn);
    if (conn->pending_len == 0 && !nghttp2_session_want_read(conn->session) &&
        !nghttp2_session_want_write(conn->session)) {
        mr_rpc_io_shutdown(&conn->io);
        conn->state = MR_RPC_LINGERING;
        conn->opened_us = conn->loop->now_us;
    }
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
    mr_rpc_connection *conn = context;
    if (conn->state == MR_RPC_OPEN && !conn->io.open) {
        on_readable(fd, what, context);
        return;
    }
    mr_rpc_loop_enter(conn->loop);
    mr_rpc_connection_dirty(conn);
    mr_rpc_loop_settle(conn->loop);
}

/* ---- drain and time ---- */

static void end_long_lived(mr_rpc_connection *conn)
{
    for (mr_rpc_stream *stream = conn->streams; stream; stream = stream->next) {
        if (stream->call->method && stream->call->method->long_lived && !stream->ended)
            mr_rpc_stream_stop(stream);
    }
}

void mr_rpc_connection_drain(mr_rpc_connection *conn)
{
    if (conn->state != MR_RPC_OPEN || !conn->session || conn->notice_us || conn->going)
        return;
    (void)nghttp2_submit_shutdown_notice(conn->session);
    conn->notice_us = conn->loop->now_us;
    end_long_lived(conn);
    mr_rpc_connection_dirty(conn);
}

static void go_away(mr_rpc_connection *conn)
{
    conn->going = true;
    (void)nghttp2_submit_goaway(conn->session, NGHTTP2_FLAG_NONE,
                                nghttp2_session_get_last_proc_stream_id(conn->session),
                                NGHTTP2_NO_ERROR, NULL, 0);
    end_long_lived(conn);
    mr_rpc_connection_dirty(conn);
}

void mr_rpc_connection_sweep(mr_rpc_connection *conn)
{
    const mr_rpc_options *opt = &conn->loop->shared->opt;
    const int64_t now = conn->loop->now_us;
    if (conn->state == MR_RPC_LINGERING && now - conn->opened_us > LINGER_US)
        mr_rpc_connection_kill(conn);
    if (conn->state != MR_RPC_OPEN)
        return;
    const bool slow_greeting = !conn->greeted && now - conn->opened_us > opt->handshake_ms * 1000;
    const bool slow_headers = conn->frame_us && now - conn->frame_us > opt->handshake_ms * 1000;
    const bool stalled = conn->pending_len && now - conn->progress_us > opt->stall_ms * 1000;
    const bool silent = conn->pinged_us && now - conn->pinged_us > opt->keepalive_answer_ms * 1000;
    if (slow_greeting || slow_headers || stalled || silent) {
        mr_rpc_connection_drop(conn);
        return;
    }
    if (!conn->session) { /* in its TLS handshake: no call of it can have been accepted */
        if (conn->loop->draining && now - conn->opened_us > LINGER_US)
            mr_rpc_connection_kill(conn);
        return;
    }
    const bool noticed = conn->notice_us && now - conn->notice_us >= NOTICE_US;
    const bool idle = conn->n_streams == 0 && now - conn->idle_us > opt->idle_ms * 1000;
    if (!conn->going && (noticed || idle))
        go_away(conn);
    if (!conn->pinged_us && now - conn->received_us > opt->keepalive_ms * 1000) {
        conn->pinged_us = now;
        (void)nghttp2_submit_ping(conn->session, NGHTTP2_FLAG_NONE, NULL);
        mr_rpc_connection_dirty(conn);
    }
    /* A client that was told to go and stays without a call: its side may wait for ours. */
    if (conn->going)
        mr_rpc_connection_dirty(conn);
}
