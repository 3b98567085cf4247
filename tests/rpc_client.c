/* rpc_client.c - see rpc_client.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/rpc_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/clock.h"

#define MOST_RESULTS 512
#define WAIT_MS      20000

typedef struct {
    rpc_result result; /* first: a result is its slot */
    uint8_t *out;      /* owned: what to send */
    size_t out_at, out_len, piece;
    bool open;
} slot;

struct rpc_client {
    int fd;
    nghttp2_session *session;
    slot *slots[MOST_RESULTS];
    size_t n;
    bool gone, told;
};

static slot *slot_of(rpc_client *client, int32_t id)
{
    for (size_t i = 0; i < client->n; i++) {
        if (client->slots[i]->result.id == id)
            return client->slots[i];
    }
    return NULL;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *context)
{
    (void)session;
    (void)flags;
    slot *s = slot_of(context, frame->hd.stream_id);
    if (!s)
        return 0;
    rpc_result *r = &s->result;
    if (strcmp((const char *)name, ":status") == 0) {
        r->http_status = (int)strtol((const char *)value, NULL, 10);
        return 0;
    }
    if (strcmp((const char *)name, "grpc-status") == 0)
        r->code = (int)strtol((const char *)value, NULL, 10);
    const size_t used = strlen(r->text);
    snprintf(r->text + used, sizeof r->text - used, "%.*s: %.*s\n", (int)name_len,
             (const char *)name, (int)value_len, (const char *)value);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t len, void *context)
{
    (void)session;
    (void)flags;
    slot *s = slot_of(context, id);
    if (!s)
        return 0;
    s->result.body = realloc(s->result.body, s->result.len + len + 1);
    assert_non_null(s->result.body);
    memcpy(s->result.body + s->result.len, data, len);
    s->result.len += len;
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    (void)session;
    rpc_client *client = context;
    slot *s = slot_of(client, frame->hd.stream_id);
    if (frame->hd.type == NGHTTP2_GOAWAY)
        client->told = true;
    if (!s)
        return 0;
    if (frame->hd.type == NGHTTP2_HEADERS)
        s->result.header_frames++;
    if (frame->hd.type == NGHTTP2_RST_STREAM)
        s->result.was_reset = true;
    if ((frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        s->result.ended = true;
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *context)
{
    (void)session;
    slot *s = slot_of(context, id);
    if (s) {
        s->result.done = true;
        s->result.reset = error_code;
    }
    return 0;
}

rpc_client *rpc_client_open(const char *address)
{
    rpc_client *client = calloc(1, sizeof *client);
    nghttp2_session_callbacks *callbacks;
    assert_non_null(client);
    if (strncmp(address, "unix:", 5) == 0) {
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        snprintf(un.sun_path, sizeof un.sun_path, "%s", address + 5);
        client->fd = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(connect(client->fd, (struct sockaddr *)&un, sizeof un), 0);
    } else {
        struct sockaddr_in in = {.sin_family = AF_INET};
        in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        in.sin_port = htons((uint16_t)strtol(strrchr(address, ':') + 1, NULL, 10));
        client->fd = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(client->fd, (struct sockaddr *)&in, sizeof in), 0);
    }
    assert_int_equal(nghttp2_session_callbacks_new(&callbacks), 0);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    assert_int_equal(nghttp2_session_client_new(&client->session, callbacks, client), 0);
    nghttp2_session_callbacks_del(callbacks);
    assert_int_equal(nghttp2_submit_settings(client->session, 0, NULL, 0), 0);
    return client;
}

void rpc_client_close(rpc_client *client)
{
    if (!client)
        return;
    nghttp2_session_del(client->session);
    close(client->fd);
    for (size_t i = 0; i < client->n; i++) {
        free(client->slots[i]->result.body);
        free(client->slots[i]->out);
        free(client->slots[i]);
    }
    free(client);
}

void rpc_client_set_window(rpc_client *client, uint32_t bytes)
{
    const nghttp2_settings_entry entry = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, bytes};
    assert_int_equal(nghttp2_submit_settings(client->session, 0, &entry, 1), 0);
}

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *out, size_t size,
                         uint32_t *flags, nghttp2_data_source *source, void *context)
{
    (void)session;
    (void)id;
    (void)context;
    slot *s = source->ptr;
    size_t n = s->out_len - s->out_at;
    if (n > size)
        n = size;
    if (s->piece && n > s->piece)
        n = s->piece;
    if (n)
        memcpy(out, s->out + s->out_at, n);
    s->out_at += n;
    if (s->out_at == s->out_len && !s->open)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    else if (n == 0)
        return NGHTTP2_ERR_DEFERRED;
    return (ssize_t)n;
}

static nghttp2_nv pair(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name),
                        strlen(value), NGHTTP2_NV_FLAG_NONE};
}

rpc_result *rpc_client_start(rpc_client *client, const rpc_request *request)
{
    nghttp2_nv nv[16];
    size_t n = 0;
    slot *s = calloc(1, sizeof *s);
    assert_non_null(s);
    assert_true(client->n < MOST_RESULTS);
    nv[n++] = pair(":method", request->method ? request->method : "POST");
    nv[n++] = pair(":scheme", "http");
    nv[n++] = pair(":path", request->path);
    nv[n++] = pair(":authority", "test");
    const char *type = request->content_type ? request->content_type : "application/grpc";
    if (*type)
        nv[n++] = pair("content-type", type);
    nv[n++] = pair("te", "trailers");
    for (size_t i = 0; i + 1 < sizeof request->headers / sizeof *request->headers; i += 2) {
        if (!request->headers[i])
            break;
        nv[n++] = pair(request->headers[i], request->headers[i + 1]);
    }
    s->result.http_status = s->result.code = -1;
    s->piece = request->piece;
    s->open = request->open;
    s->out_len = request->len;
    if (request->len) {
        s->out = malloc(request->len);
        assert_non_null(s->out);
        memcpy(s->out, request->body, request->len);
    }
    const nghttp2_data_provider provider = {.source.ptr = s, .read_callback = read_body};
    s->result.id = nghttp2_submit_request(client->session, NULL, nv, n, &provider, NULL);
    assert_true(s->result.id > 0);
    client->slots[client->n++] = s;
    return &s->result;
}

void rpc_client_send(rpc_client *client, rpc_result *result, const void *data, size_t len)
{
    slot *s = slot_of(client, result->id);
    s->out = realloc(s->out, s->out_len + len);
    assert_non_null(s->out);
    memcpy(s->out + s->out_len, data, len);
    s->out_len += len;
    (void)nghttp2_session_resume_data(client->session, result->id);
}

void rpc_client_end(rpc_client *client, rpc_result *result)
{
    slot_of(client, result->id)->open = false;
    (void)nghttp2_session_resume_data(client->session, result->id);
}

void rpc_client_reset(rpc_client *client, rpc_result *result, uint32_t error_code)
{
    assert_int_equal(nghttp2_submit_rst_stream(client->session, 0, result->id, error_code), 0);
}

static bool send_all(rpc_client *client)
{
    for (;;) {
        const uint8_t *data;
        const ssize_t n = nghttp2_session_mem_send(client->session, &data);
        assert_true(n >= 0);
        if (n == 0)
            return true;
        for (ssize_t at = 0; at < n;) {
            const ssize_t sent = send(client->fd, data + at, (size_t)(n - at), MSG_NOSIGNAL);
            if (sent < 0)
                return false;
            at += sent;
        }
    }
}

/* Sends what there is and reads once; false when the connection is gone. */
static bool step(rpc_client *client, int ms)
{
    uint8_t buffer[65536];
    struct pollfd poller = {client->fd, POLLIN, 0};
    if (client->gone)
        return false;
    (void)send_all(client); /* what the server said last may still be read */
    if (poll(&poller, 1, ms) <= 0)
        return true;
    const ssize_t n = recv(client->fd, buffer, sizeof buffer, 0);
    if (n <= 0) {
        client->gone = true;
        return false;
    }
    if (nghttp2_session_mem_recv(client->session, buffer, (size_t)n) < 0)
        client->gone = true;
    (void)send_all(client);
    return !client->gone;
}

typedef bool (*condition)(const rpc_result *result, size_t number);

static bool wait_for(rpc_client *client, const rpc_result *result, condition holds, size_t number,
                     int ms)
{
    const int64_t until = mr_clock_monotonic_us() + (int64_t)ms * 1000;
    while (!holds(result, number)) {
        if (mr_clock_monotonic_us() > until || !step(client, 5))
            return holds(result, number);
    }
    return true;
}

static bool is_done(const rpc_result *result, size_t number)
{
    (void)number;
    return result->done;
}

static bool is_ended(const rpc_result *result, size_t number)
{
    (void)number;
    return result->ended || result->done;
}

static bool has_bytes(const rpc_result *result, size_t number)
{
    return result->len >= number;
}

bool rpc_client_wait(rpc_client *client, const rpc_result *result, int ms)
{
    return wait_for(client, result, is_done, 0, ms);
}

bool rpc_client_wait_end(rpc_client *client, const rpc_result *result, int ms)
{
    return wait_for(client, result, is_ended, 0, ms);
}

bool rpc_client_wait_bytes(rpc_client *client, const rpc_result *result, size_t len, int ms)
{
    return wait_for(client, result, has_bytes, len, ms);
}

rpc_result *rpc_client_call(rpc_client *client, const rpc_request *request)
{
    rpc_result *result = rpc_client_start(client, request);
    if (!rpc_client_wait(client, result, WAIT_MS))
        fail_msg("%s: no end within %d ms", request->path, WAIT_MS);
    return result;
}

bool rpc_client_gone(rpc_client *client, int ms)
{
    const int64_t until = mr_clock_monotonic_us() + (int64_t)ms * 1000;
    while (mr_clock_monotonic_us() < until && step(client, 5))
        ;
    return client->gone;
}

bool rpc_client_told_to_go(const rpc_client *client)
{
    return client->told;
}
