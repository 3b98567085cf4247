/* rpc_loop.c - one thread with an event base: connections, their calls' answers, time limits.
 * SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "ranker/service/rpc_private.h"

#define SWEEP_US       250000
#define DRAIN_SWEEP_US 20000
#define MOST_ROUNDS    16 /* of settling, before other events get their turn */

static _Thread_local const mr_rpc_mailbox *current;

bool mr_rpc_loop_is_current(const mr_rpc_mailbox *mailbox)
{
    return current == mailbox;
}

static void arm_sweep(mr_rpc_loop *loop, long us)
{
    const struct timeval interval = {us / 1000000, us % 1000000};
    (void)event_add(loop->sweep, &interval);
}

static void drain(mr_rpc_loop *loop)
{
    if (loop->draining)
        return;
    loop->draining = true;
    if (loop->on_drain)
        loop->on_drain(loop->on_drain_context);
    for (mr_rpc_connection *conn = loop->connections; conn; conn = conn->next)
        mr_rpc_connection_drain(conn);
    arm_sweep(loop, DRAIN_SWEEP_US);
}

static void cancel_all(mr_rpc_loop *loop)
{
    for (mr_rpc_connection *conn = loop->connections; conn; conn = conn->next) {
        for (mr_rpc_stream *stream = conn->streams; stream; stream = stream->next) {
            if (!stream->ended)
                mr_rpc_stream_stop(stream);
        }
        mr_rpc_connection_dirty(conn);
    }
}

static void obey(mr_rpc_loop *loop, unsigned commands)
{
    if (commands & MR_RPC_COMMAND_DRAIN)
        drain(loop);
    if (commands & MR_RPC_COMMAND_CANCEL)
        cancel_all(loop);
    if (commands & MR_RPC_COMMAND_QUIT) {
        for (mr_rpc_connection *conn = loop->connections; conn; conn = conn->next)
            mr_rpc_connection_kill(conn);
        (void)event_base_loopbreak(loop->base);
    }
}

static bool empty_mailbox(mr_rpc_loop *loop)
{
    mr_rpc_mail mail;
    if (!mr_rpc_mailbox_take(loop->mailbox, &mail))
        return false;
    while (mail.sockets) {
        mr_rpc_socket *socket = mail.sockets;
        mail.sockets = socket->next;
        mr_rpc_connection_open(loop, socket);
        free(socket);
    }
    obey(loop, mail.commands);
    for (mr_rpc_call *call; (call = mr_rpc_mailbox_next(loop->mailbox, &mail)) != NULL;) {
        if (call->stream)
            mr_rpc_stream_advance(call->stream);
        mr_rpc_call_drop(call);
    }
    return true;
}

static void tell_server(mr_rpc_server *server)
{
    pthread_mutex_lock(&server->idle_lock);
    pthread_cond_signal(&server->idle);
    pthread_mutex_unlock(&server->idle_lock);
}

static bool serve_dirty(mr_rpc_loop *loop)
{
    mr_rpc_connection *conn = loop->dirty;
    if (!conn)
        return false;
    loop->dirty = NULL;
    while (conn) {
        mr_rpc_connection *next = conn->next_dirty;
        conn->dirty = false;
        conn->next_dirty = NULL;
        if (conn->state != MR_RPC_DEAD)
            mr_rpc_connection_flush(conn);
        /* A flush that failed marked it again; that mark is what frees it. */
        if (conn->state == MR_RPC_DEAD && !conn->dirty) {
            mr_rpc_connection_free(conn);
            if (loop->draining)
                tell_server(loop->server);
        }
        conn = next;
    }
    return true;
}

void mr_rpc_loop_enter(mr_rpc_loop *loop)
{
    current = loop->mailbox;
    loop->now_us = mr_clock_monotonic_us();
}

void mr_rpc_loop_settle(mr_rpc_loop *loop)
{
    int round = 0;
    for (;; round++) {
        const bool mail = empty_mailbox(loop);
        const bool sent = serve_dirty(loop);
        if (!mail && !sent)
            break;
        if (round == MOST_ROUNDS) {
            mr_rpc_mailbox_wake(loop->mailbox);
            break;
        }
    }
    current = NULL;
}

static void on_wake(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    mr_rpc_loop *loop = context;
    mr_rpc_loop_enter(loop);
    mr_rpc_loop_settle(loop);
}

static void on_sweep(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    mr_rpc_loop *loop = context;
    mr_rpc_loop_enter(loop);
    for (mr_rpc_connection *conn = loop->connections; conn; conn = conn->next)
        mr_rpc_connection_sweep(conn);
    mr_rpc_loop_settle(loop);
}

mr_status mr_rpc_loop_open(mr_rpc_loop *loop, mr_rpc_server *server, mr_rpc_shared *shared,
                           mr_error *err)
{
    loop->server = server;
    loop->shared = shared;
    struct event_config *config = event_config_new();
    if (config) {
        (void)event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_PRECISE_TIMER);
        loop->base = event_base_new_with_config(config);
        event_config_free(config);
    }
    loop->mailbox = mr_rpc_mailbox_new(shared);
    loop->callbacks = mr_rpc_session_callbacks();
    loop->option = mr_rpc_session_options();
    loop->read_buffer = malloc(MR_RPC_READ_BYTES);
    loop->write_buffer = malloc(MR_RPC_WRITE_BYTES);
    if (loop->base && loop->mailbox) {
        loop->wake =
            event_new(loop->base, loop->mailbox->wake_fd, EV_READ | EV_PERSIST, on_wake, loop);
        loop->sweep = event_new(loop->base, -1, EV_PERSIST, on_sweep, loop);
    }
    if (!loop->wake || !loop->sweep || !loop->callbacks || !loop->option || !loop->read_buffer ||
        !loop->write_buffer || event_add(loop->wake, NULL) != 0)
        return MR_FAIL(err, NO_MEMORY, "an event loop of the gRPC server");
    arm_sweep(loop, SWEEP_US);
    return MR_OK;
}

void mr_rpc_loop_close(mr_rpc_loop *loop)
{
    if (loop->base) {
        mr_rpc_loop_enter(loop);
        for (mr_rpc_connection *conn = loop->connections; conn; conn = conn->next)
            mr_rpc_connection_kill(conn);
        if (loop->mailbox && loop->wake)
            mr_rpc_loop_settle(loop);
        current = NULL;
    }
    if (loop->wake)
        event_free(loop->wake);
    if (loop->sweep)
        event_free(loop->sweep);
    if (loop->mailbox) {
        mr_rpc_mailbox_close(loop->mailbox);
        mr_rpc_mailbox_unref(loop->mailbox);
    }
    if (loop->base)
        event_base_free(loop->base);
    nghttp2_session_callbacks_del(loop->callbacks);
    nghttp2_option_del(loop->option);
    free(loop->read_buffer);
    free(loop->write_buffer);
    memset(loop, 0, sizeof *loop);
}

static void *run(void *context)
{
    mr_rpc_loop *loop = context;
    (void)event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

/* Signals are for the program's own threads; SIGPIPE is for nobody. */
mr_status mr_rpc_loop_start(mr_rpc_loop *loop, mr_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&loop->thread, NULL, run, loop);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return MR_FAIL(err, EXHAUSTED, "cannot start a thread of the gRPC server: %s",
                       strerror(failed));
    loop->running = true;
    return MR_OK;
}
