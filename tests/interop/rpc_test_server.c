/* rpc_test_server.c - a gRPC server for foreign clients: echo.proto, health and reflection over
 * ranker/service, with a pool of threads that answers.
 *
 *     rpc_test_server --listen 127.0.0.1:0 [--listen unix:PATH] [--cert F --key F [--client-ca F]]
 *
 * Prints "listening ADDRESS" for each address, then "ready". SIGHUP reloads certificates and keys
 * ("reloaded" or the error on standard output), SIGUSR1 turns the health of "" over, SIGTERM drains
 * and prints "stopped, N cancelled".
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/options.h"
#include "core/strbuf.h"
#include "ranker/service/rpc_health.h"
#include "ranker/service/rpc_reflection.h"
#include "tests/interop/echo.pb-c.h"

extern const unsigned char echo_descriptors[];
extern const size_t echo_descriptors_len;

typedef Mixrank__Test__EchoRequest echo_request;

#define MOST_WORKERS 64

typedef struct job {
    struct job *next;
    mr_rpc_call *call;
    bool stream;
} job;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    job *first, *last;
    bool closed;
    pthread_t threads[MOST_WORKERS];
    int n_threads;
    atomic_ullong cancelled, hooks, blocked;
    mr_rpc_server *server;
} pool;

/* A writer that waits for room. It hangs on the call, since the hook may come late. */
typedef struct {
    pool *p;
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool writable;
} waiter;

static void waiter_free(void *user)
{
    waiter *w = user;
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->change);
    free(w);
}

static void wake(waiter *w)
{
    pthread_mutex_lock(&w->lock);
    w->writable = true;
    pthread_cond_signal(&w->change);
    pthread_mutex_unlock(&w->lock);
}

static void on_writable(mr_rpc_call *call, void *user)
{
    (void)call;
    wake(user);
}

static void on_cancel(mr_rpc_call *call, void *user)
{
    (void)call;
    waiter *w = user;
    atomic_fetch_add(&w->p->hooks, 1);
    wake(w);
}

/* ---- answers ---- */

static void send_metadata(mr_rpc_call *call, const echo_request *request)
{
    for (size_t i = 0; i < request->n_names; i++) {
        mr_bytes value;
        for (size_t nth = 0; mr_rpc_call_metadata(call, request->names[i], nth, &value); nth++) {
            mr_error err = {0};
            if (mr_rpc_call_add_header(call, request->names[i], value, &err) != MR_OK ||
                mr_rpc_call_add_trailer(call, request->names[i], value, &err) != MR_OK)
                fprintf(stderr, "rpc_test_server: %s\n", err.message);
        }
    }
}

static uint8_t *pack(mr_rpc_call *call, const echo_request *request, uint32_t index, size_t *len)
{
    Mixrank__Test__EchoReply reply = MIXRANK__TEST__ECHO_REPLY__INIT;
    const int64_t deadline = mr_rpc_call_deadline_us(call);
    uint8_t *made = NULL;
    reply.payload = request->payload;
    if (request->reply_bytes) {
        made = malloc(request->reply_bytes);
        if (!made)
            return NULL;
        uint32_t x = 2463534242u + index; /* xorshift: bytes that do not compress */
        for (uint32_t i = 0; i < request->reply_bytes; i++) {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            made[i] = (uint8_t)x;
        }
        reply.payload = (ProtobufCBinaryData){request->reply_bytes, made};
    }
    reply.index = index;
    reply.peer = (char *)(uintptr_t)mr_rpc_call_peer(call);
    reply.deadline_left_us = deadline == INT64_MAX ? 0 : deadline - mr_clock_monotonic_us();
    *len = mixrank__test__echo_reply__get_packed_size(&reply);
    uint8_t *bytes = malloc(*len ? *len : 1);
    if (bytes)
        (void)mixrank__test__echo_reply__pack(&reply, bytes);
    free(made);
    return bytes;
}

/* Work that looks whether anybody still wants it. */
static bool work(pool *p, mr_rpc_call *call, uint32_t ms)
{
    const int64_t until = mr_clock_monotonic_us() + (int64_t)ms * 1000;
    while (mr_clock_monotonic_us() < until) {
        if (mr_rpc_call_is_cancelled(call)) {
            atomic_fetch_add(&p->cancelled, 1);
            return false;
        }
        usleep(500);
    }
    return true;
}

static bool write_waiting(pool *p, mr_rpc_call *call, const uint8_t *bytes, size_t len)
{
    waiter *w = mr_rpc_call_user(call);
    for (;;) {
        pthread_mutex_lock(&w->lock);
        w->writable = false;
        pthread_mutex_unlock(&w->lock);
        const mr_rpc_write_result result = mr_rpc_call_write(call, bytes, len);
        if (result == MR_RPC_WRITTEN)
            return true;
        if (result == MR_RPC_GONE)
            break;
        atomic_fetch_add(&p->blocked, 1);
        pthread_mutex_lock(&w->lock);
        while (!w->writable && !mr_rpc_call_is_cancelled(call))
            pthread_cond_wait(&w->change, &w->lock);
        pthread_mutex_unlock(&w->lock);
    }
    atomic_fetch_add(&p->cancelled, 1);
    return false;
}

static void answer(pool *p, mr_rpc_call *call, bool stream)
{
    const mr_bytes bytes = mr_rpc_call_request(call);
    echo_request *request = mixrank__test__echo_request__unpack(NULL, bytes.len, bytes.data);
    if (!request) {
        mr_rpc_call_finish(call, MR_RPC_INVALID_ARGUMENT, "the message is no EchoRequest");
        return;
    }
    if (request->forget)
        goto out;
    send_metadata(call, request);
    if (!stream && !work(p, call, request->delay_ms))
        goto out;
    if (request->code && !stream) {
        mr_rpc_call_finish(call, (mr_rpc_code)request->code, request->message);
        goto out;
    }
    for (uint32_t i = 0; i < (stream ? request->count : 1); i++) {
        size_t len;
        uint8_t *reply = pack(call, request, i, &len);
        bool going = reply != NULL;
        if (reply && !stream)
            mr_rpc_call_reply(call, reply, len);
        else if (reply)
            going = write_waiting(p, call, reply, len) && work(p, call, request->delay_ms);
        free(reply);
        if (!going)
            goto out;
    }
    if (stream)
        mr_rpc_call_finish(call, (mr_rpc_code)request->code, request->message);

out:
    mixrank__test__echo_request__free_unpacked(request, NULL);
}

/* ---- hand-off ---- */

static void *run(void *context)
{
    pool *p = context;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->first && !p->closed)
            pthread_cond_wait(&p->more, &p->lock);
        job *j = p->first;
        if (!j)
            break;
        p->first = j->next;
        if (!p->first)
            p->last = NULL;
        pthread_mutex_unlock(&p->lock);
        answer(p, j->call, j->stream);
        mr_rpc_call_unref(j->call);
        free(j);
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void push(pool *p, mr_rpc_call *call, bool stream)
{
    job *j = calloc(1, sizeof *j);
    waiter *w = calloc(1, sizeof *w);
    if (!j || !w) {
        free(j);
        free(w);
        mr_rpc_call_finish(call, MR_RPC_RESOURCE_EXHAUSTED, "no memory");
        return;
    }
    w->p = p;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->change, NULL);
    mr_rpc_call_attach(call, w, waiter_free);
    mr_rpc_call_on_cancel(call, on_cancel);
    mr_rpc_call_on_writable(call, on_writable);
    mr_rpc_call_ref(call);
    *j = (job){NULL, call, stream};
    pthread_mutex_lock(&p->lock);
    if (p->last)
        p->last->next = j;
    else
        p->first = j;
    p->last = j;
    pthread_cond_signal(&p->more);
    pthread_mutex_unlock(&p->lock);
}

static void handle_unary(void *context, mr_rpc_call *call)
{
    push(context, call, false);
}

static void handle_stream(void *context, mr_rpc_call *call)
{
    push(context, call, true);
}

static void handle_direct(void *context, mr_rpc_call *call)
{
    answer(context, call, false);
}

static uint64_t resident_bytes(void)
{
    unsigned long long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f) {
        if (fscanf(f, "%llu %llu", &size, &resident) != 2)
            resident = 0;
        fclose(f);
    }
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void handle_stats(void *context, mr_rpc_call *call)
{
    pool *p = context;
    mr_rpc_stats stats;
    uint8_t bytes[256];
    Mixrank__Test__StatsReply reply = MIXRANK__TEST__STATS_REPLY__INIT;
    mr_rpc_server_stats(p->server, &stats);
    reply.connections = stats.connections;
    reply.calls = stats.calls;
    reply.buffered_bytes = stats.buffered_bytes;
    reply.accepted = stats.accepted;
    reply.refused = stats.refused;
    reply.accept_errors = stats.accept_errors;
    reply.resets_received = stats.resets_received;
    reply.dropped = stats.dropped;
    reply.cancelled = atomic_load(&p->cancelled);
    reply.hooks = atomic_load(&p->hooks);
    reply.blocked_writes = atomic_load(&p->blocked);
    reply.rss_bytes = resident_bytes();
    mr_rpc_call_reply(call, bytes, mixrank__test__stats_reply__pack(&reply, bytes));
}

/* ---- the program ---- */

typedef struct {
    mr_option_list listen;
    const char *cert, *key, *client_ca, *keys;
    int64_t threads, loops, max_message, max_buffered, max_streams, max_connections, max_calls;
    int64_t upload_ms, handshake_ms, idle_ms, keepalive_ms, keepalive_answer_ms, stall_ms;
    int64_t max_deadline_ms, grace_ms, drain_delay_ms, gzip_from;
    bool metrics;
} options;

#define LIMIT(name, field, help) MR_OPTION_INT(name, 0, "N", options, field, 0, 1e9, help)
static const mr_option table[] = {
    MR_OPTION_LIST("listen", 0, "ADDRESS", options, listen, "where to listen"),
    MR_OPTION_STRING("cert", 0, "FILE", options, cert, "certificate chain, PEM"),
    MR_OPTION_STRING("key", 0, "FILE", options, key, "its key"),
    MR_OPTION_STRING("client-ca", 0, "FILE", options, client_ca, "CAs of clients: mutual TLS"),
    MR_OPTION_STRING("keys", 0, "FILE", options, keys, "bearer keys"),
    LIMIT("threads", threads, "threads that answer"),
    LIMIT("loops", loops, "event loops"),
    LIMIT("max-message", max_message, "bytes of a request"),
    LIMIT("max-buffered", max_buffered, "bytes of all requests"),
    LIMIT("max-streams", max_streams, "calls of a connection"),
    LIMIT("max-connections", max_connections, "connections"),
    LIMIT("max-calls", max_calls, "calls"),
    LIMIT("upload-ms", upload_ms, "for a request to arrive"),
    LIMIT("handshake-ms", handshake_ms, "for TLS and preface"),
    LIMIT("idle-ms", idle_ms, "connection without calls"),
    LIMIT("keepalive-ms", keepalive_ms, "silence before a ping"),
    LIMIT("keepalive-answer-ms", keepalive_answer_ms, "silence after it"),
    LIMIT("stall-ms", stall_ms, "client that does not read"),
    LIMIT("max-deadline-ms", max_deadline_ms, "cap of deadlines"),
    LIMIT("grace-ms", grace_ms, "for calls to end after SIGTERM"),
    LIMIT("drain-delay-ms", drain_delay_ms, "between NOT_SERVING and the drain"),
    LIMIT("gzip-from", gzip_from, "bytes from which replies are compressed"),
    MR_OPTION_FLAG("metrics", 0, options, metrics, "print the metrics at the end"),
    MR_OPTION_END,
};

static void say(const char *text)
{
    puts(text);
    (void)fflush(stdout);
}

static void serve(pool *p, mr_rpc_health *health, const sigset_t *signals, const options *o)
{
    bool serving = true;
    for (;;) {
        int number = 0;
        mr_error err = {0};
        if (sigwait(signals, &number) != 0)
            continue;
        if (number == SIGHUP) {
            say(mr_rpc_server_reload(p->server, &err) == MR_OK ? "reloaded" : err.message);
        } else if (number == SIGUSR1) {
            serving = !serving;
            (void)mr_rpc_health_set(health, "", serving ? MR_RPC_SERVING : MR_RPC_NOT_SERVING,
                                    NULL);
        } else {
            break;
        }
    }
    mr_rpc_health_set_all(health, MR_RPC_NOT_SERVING);
    usleep((useconds_t)(o->drain_delay_ms * 1000));
    const size_t cancelled = mr_rpc_server_stop(p->server, o->grace_ms);
    printf("stopped, %zu cancelled\n", cancelled);
    (void)fflush(stdout);
}

static mr_status start(pool *p, const options *o, mr_metrics *metrics, mr_rpc_health *health,
                       mr_rpc_reflection *reflection, mr_error *err)
{
    mr_rpc_method methods[16] = {
        {.path = "/mixrank.test.Echo/Unary", .handle = handle_unary, .context = p},
        {.path = "/mixrank.test.Echo/Direct", .handle = handle_direct, .context = p},
        {.path = "/mixrank.test.Echo/Stream",
         .kind = MR_RPC_SERVER_STREAM,
         .handle = handle_stream,
         .context = p},
        {.path = "/mixrank.test.Echo/Stats", .handle = handle_stats, .context = p, .open = true}};
    size_t n = 4;
    n += mr_rpc_health_methods(health, methods + n);
    n += mr_rpc_reflection_methods(reflection, methods + n);
    const mr_rpc_options opt = {.listen = o->listen.value,
                                .n_listen = o->listen.n,
                                .methods = methods,
                                .n_methods = n,
                                .loops = (int)o->loops,
                                .max_message_bytes = (size_t)o->max_message,
                                .max_buffered_bytes = (size_t)o->max_buffered,
                                .max_streams = (uint32_t)o->max_streams,
                                .max_connections = (size_t)o->max_connections,
                                .max_calls = (size_t)o->max_calls,
                                .upload_ms = o->upload_ms,
                                .handshake_ms = o->handshake_ms,
                                .idle_ms = o->idle_ms,
                                .keepalive_ms = o->keepalive_ms,
                                .keepalive_answer_ms = o->keepalive_answer_ms,
                                .stall_ms = o->stall_ms,
                                .max_deadline_ms = o->max_deadline_ms,
                                .gzip_from = (size_t)o->gzip_from,
                                .tls_certificate = o->cert,
                                .tls_key = o->key,
                                .tls_client_ca = o->client_ca,
                                .keys_file = o->keys,
                                .metrics = metrics};
    mr_status status = mr_rpc_server_new(&p->server, &opt, err);
    if (status == MR_OK)
        status = mr_rpc_server_start(p->server, err);
    for (; status == MR_OK && p->n_threads < o->threads && p->n_threads < MOST_WORKERS;
         p->n_threads++) {
        if (pthread_create(&p->threads[p->n_threads], NULL, run, p) != 0)
            return MR_FAIL(err, EXHAUSTED, "cannot start a thread");
    }
    return status;
}

int main(int argc, char **argv)
{
    options o = {.threads = 4, .grace_ms = 5000};
    pool p = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};
    mr_metrics *metrics = NULL;
    mr_rpc_health *health = NULL;
    mr_rpc_reflection *reflection = NULL;
    mr_error err = {0};
    int positional = 0, result = 1;
    bool help = false;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    const mr_bytes set = {echo_descriptors, echo_descriptors_len};
    if (mr_options_parse(table, argc, argv, &o, &positional, &help, &err) != MR_OK ||
        mr_metrics_new(&metrics, &err) != MR_OK || mr_rpc_health_new(&health, &err) != MR_OK ||
        mr_rpc_health_set(health, "", MR_RPC_SERVING, &err) != MR_OK ||
        mr_rpc_health_set(health, "mixrank.test.Echo", MR_RPC_SERVING, &err) != MR_OK ||
        mr_rpc_reflection_new(&reflection, set, &err) != MR_OK ||
        start(&p, &o, metrics, health, reflection, &err) != MR_OK) {
        fprintf(stderr, "rpc_test_server: %s\n", err.message);
    } else {
        for (size_t i = 0; mr_rpc_server_address(p.server, i); i++)
            printf("listening %s\n", mr_rpc_server_address(p.server, i));
        say("ready");
        serve(&p, health, &signals, &o);
        result = 0;
    }
    pthread_mutex_lock(&p.lock);
    p.closed = true;
    pthread_cond_broadcast(&p.more);
    pthread_mutex_unlock(&p.lock);
    for (int i = 0; i < p.n_threads; i++)
        pthread_join(p.threads[i], NULL);
    if (o.metrics) {
        mr_strbuf text = {0};
        mr_metrics_write(metrics, &text);
        printf("%s", text.data ? text.data : "");
        mr_strbuf_release(&text);
    }
    mr_rpc_server_free(p.server);
    mr_rpc_reflection_free(reflection);
    mr_rpc_health_free(health);
    mr_metrics_free(metrics);
    return result;
}
