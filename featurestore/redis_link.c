/* redis_link.c - see redis_link.h.
 *
 * What is sent is collected and written when the loop's current callbacks are through: a batch of
 * 256 writes is one system call. A callback may free the link; the functions that call back look at
 * `freed` afterwards and leave.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/redis_link.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/event.h>

#include "core/clock.h"
#include "featurestore/redis_tls.h"

#define READ_BYTES      ((size_t)128 << 10)
#define READS_PER_EVENT 16 /* then other sockets have their turn */
#define KEEP_BYTES      ((size_t)1 << 20)
#define KEEPALIVE_S     15

typedef enum { CONNECTING, SHAKING_HANDS, OPEN, FAILED } link_state;

struct mr_redis_link {
    mr_redis_loop *loop;
    mr_redis_address address;
    mr_redis_link_handler handler;
    link_state state;
    bool freed;
    int depth; /* of callbacks that are running */

    struct addrinfo *found, *next; /* addresses of the host, and the one to try next */
    int fd;
    bool wants_tls;
    mr_redis_tls *tls;
    struct event *readable, *writable;
    struct event *soon; /* flush what was sent, or tell of a failure */
    mr_redis_reader *reader;
    char *out;
    size_t out_len, out_written, out_capacity;
    int64_t heard_us;
    mr_error why;
};

static void link_release(mr_redis_link *link)
{
    if (link->soon)
        event_free(link->soon);
    mr_redis_reader_free(link->reader);
    if (link->out)
        explicit_bzero(link->out, link->out_len); /* AUTH may be in there */
    free(link->out);
    free(link);
}

static void close_socket(mr_redis_link *link)
{
    if (link->readable)
        event_free(link->readable);
    if (link->writable)
        event_free(link->writable);
    link->readable = link->writable = NULL;
    mr_redis_tls_free(link->tls);
    link->tls = NULL;
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
}

static void leave(mr_redis_link *link)
{
    if (--link->depth == 0 && link->freed)
        link_release(link);
}

void mr_redis_link_free(mr_redis_link *link)
{
    if (!link)
        return;
    close_socket(link);
    event_del(link->soon);
    if (link->found)
        freeaddrinfo(link->found);
    link->found = link->next = NULL;
    link->freed = true;
    if (link->depth == 0)
        link_release(link);
}

static void link_fail(mr_redis_link *link, const mr_error *why)
{
    if (link->state == FAILED || link->freed)
        return;
    link->state = FAILED;
    link->why = *why;
    close_socket(link);
    event_active(link->soon, EV_TIMEOUT, 0);
}

static void fail_errno(mr_redis_link *link, const char *what, int error)
{
    mr_error why = {0};
    (void)MR_FAIL(&why, UNAVAILABLE, "%s: %s", what, strerror(error));
    link_fail(link, &why);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void flush_out(mr_redis_link *link)
{
    while (link->out_written < link->out_len) {
        const char *from = link->out + link->out_written;
        size_t left = link->out_len - link->out_written;
        ssize_t n = link->tls ? mr_redis_tls_write(link->tls, from, left)
                              : send(link->fd, from, left, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            event_add(link->writable, NULL);
            return;
        }
        if (n <= 0) {
            fail_errno(link, "writing failed", n < 0 ? errno : EPIPE);
            return;
        }
        link->out_written += (size_t)n;
    }
    explicit_bzero(link->out, link->out_len < 512 ? link->out_len : 512); /* sign-in is short */
    link->out_len = link->out_written = 0;
    if (link->out_capacity > KEEP_BYTES) {
        free(link->out);
        link->out = NULL;
        link->out_capacity = 0;
    }
}

bool mr_redis_link_send(mr_redis_link *link, const void *data, size_t len)
{
    size_t need;
    if (link->state == FAILED)
        return true; /* `down` is on its way */
    if (link->out_written && link->out_len + len > link->out_capacity) {
        memmove(link->out, link->out + link->out_written, link->out_len - link->out_written);
        link->out_len -= link->out_written;
        link->out_written = 0;
    }
    if (!mr_size_add(link->out_len, len, &need))
        return false;
    if (need > link->out_capacity) {
        size_t capacity = mr_size_max(need, 2 * link->out_capacity);
        char *out = realloc(link->out, capacity);
        if (!out)
            return false;
        link->out = out;
        link->out_capacity = capacity;
    }
    memcpy(link->out + link->out_len, data, len);
    link->out_len = need;
    if (link->state == OPEN)
        event_active(link->soon, EV_TIMEOUT, 0);
    return true;
}

int64_t mr_redis_link_heard_us(const mr_redis_link *link)
{
    return link->heard_us;
}

static void on_soon(evutil_socket_t fd, short what, void *context)
{
    mr_redis_link *link = context;
    (void)fd;
    (void)what;
    link->depth++;
    if (link->state == OPEN)
        flush_out(link);
    else if (link->state == FAILED)
        link->handler.down(link->handler.context, &link->why);
    leave(link);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* False: stop. */
static bool deliver(mr_redis_link *link)
{
    for (;;) {
        mr_error why = {0};
        mr_redis_reply *reply;
        if (mr_redis_reader_next(link->reader, &reply, &why) != MR_OK) {
            link_fail(link, &why);
            return false;
        }
        if (!reply)
            return true;
        link->handler.reply(link->handler.context, reply);
        if (link->freed || link->state != OPEN)
            return false;
    }
}

static void read_in(mr_redis_link *link)
{
    char bytes[READ_BYTES];
    for (int i = 0; i < READS_PER_EVENT; i++) {
        ssize_t n = link->tls ? mr_redis_tls_read(link->tls, bytes, sizeof bytes)
                              : recv(link->fd, bytes, sizeof bytes, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n <= 0) {
            mr_error why = {0};
            if (n == 0)
                (void)MR_FAIL(&why, UNAVAILABLE, "the server closed the connection");
            else
                (void)MR_FAIL(&why, UNAVAILABLE, "reading failed: %s", strerror(errno));
            link_fail(link, &why);
            return;
        }
        link->heard_us = mr_clock_monotonic_us();
        mr_error why = {0};
        if (mr_redis_reader_feed(link->reader, bytes, (size_t)n, &why) != MR_OK) {
            link_fail(link, &why);
            return;
        }
        if (!deliver(link))
            return;
        if ((size_t)n < sizeof bytes && !link->tls)
            return; /* that was all; TLS hands out one record at a time */
    }
    event_active(link->readable, EV_READ, 0); /* TLS may hold bytes that poll does not see */
}

/* ---- connecting ------------------------------------------------------------------------------ */

static void on_event(evutil_socket_t fd, short what, void *context);

static bool watch_socket(mr_redis_link *link)
{
    struct event_base *base = mr_redis_loop_base(link->loop);
    link->readable = event_new(base, link->fd, EV_READ | EV_PERSIST, on_event, link);
    link->writable = event_new(base, link->fd, EV_WRITE, on_event, link);
    return link->readable && link->writable && event_add(link->writable, NULL) == 0;
}

/* Begins on the next address that can be begun on. */
static void connect_next(mr_redis_link *link)
{
    int error = EADDRNOTAVAIL;
    while (link->next) {
        const struct addrinfo *to = link->next;
        const int on = 1, idle = KEEPALIVE_S;
        link->next = link->next->ai_next;
        close_socket(link);
        link->fd =
            socket(to->ai_family, to->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, to->ai_protocol);
        if (link->fd < 0) {
            error = errno;
            continue;
        }
        if (to->ai_family != AF_UNIX) {
            (void)setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            (void)setsockopt(link->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
#ifdef TCP_KEEPIDLE
            (void)setsockopt(link->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
            (void)setsockopt(link->fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle, sizeof idle);
#endif
        }
        if (connect(link->fd, to->ai_addr, to->ai_addrlen) == 0 || errno == EINPROGRESS) {
            if (watch_socket(link))
                return;
            errno = ENOMEM;
        }
        error = errno;
    }
    fail_errno(link, "connecting failed", error);
}

static void opened(mr_redis_link *link)
{
    link->state = OPEN;
    link->heard_us = mr_clock_monotonic_us();
    event_add(link->readable, NULL);
    link->handler.up(link->handler.context);
    if (!link->freed && link->state == OPEN)
        flush_out(link);
}

static void shake_hands(mr_redis_link *link)
{
    mr_error why = {0};
    switch (mr_redis_tls_handshake(link->tls, &why)) {
    case MR_REDIS_TLS_DONE: opened(link); break;
    case MR_REDIS_TLS_WANTS_READ: event_add(link->readable, NULL); break;
    case MR_REDIS_TLS_WANTS_WRITE: event_add(link->writable, NULL); break;
    case MR_REDIS_TLS_FAILED: link_fail(link, &why); break;
    }
}

static void connected(mr_redis_link *link)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        error = errno;
    if (error) {
        if (link->next)
            connect_next(link);
        else
            fail_errno(link, "connecting failed", error);
        return;
    }
    if (!link->wants_tls) {
        opened(link);
        return;
    }
    mr_error why = {0};
    link->state = SHAKING_HANDS;
    if (mr_redis_tls_new(&link->tls, link->fd, link->address.host, &why) != MR_OK)
        link_fail(link, &why);
    else
        shake_hands(link);
}

static void on_event(evutil_socket_t fd, short what, void *context)
{
    mr_redis_link *link = context;
    (void)fd;
    link->depth++;
    if (link->state == CONNECTING)
        connected(link);
    else if (link->state == SHAKING_HANDS)
        shake_hands(link);
    else if (link->state == OPEN && what & EV_WRITE)
        flush_out(link);
    else if (link->state == OPEN)
        read_in(link);
    leave(link);
}

static bool begin_unix(mr_redis_link *link)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (strlen(link->address.host) >= sizeof to.sun_path) {
        fail_errno(link, "connecting failed", ENAMETOOLONG);
        return true;
    }
    memcpy(to.sun_path, link->address.host, strlen(link->address.host) + 1);
    struct addrinfo one = {.ai_family = AF_UNIX,
                           .ai_socktype = SOCK_STREAM,
                           .ai_addr = (struct sockaddr *)&to,
                           .ai_addrlen = sizeof to};
    link->next = &one;
    connect_next(link);
    link->next = NULL;
    return true;
}

static bool begin_tcp(mr_redis_link *link)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    char port[8];
    hints.ai_flags = AI_NUMERICSERV;
    snprintf(port, sizeof port, "%u", (unsigned)link->address.port);
    int rc = getaddrinfo(link->address.host, port, &hints, &link->found);
    if (rc == EAI_MEMORY)
        return false;
    if (rc != 0) {
        mr_error why = {0};
        (void)MR_FAIL(&why, UNAVAILABLE, "the name '%.200s' is not found: %s", link->address.host,
                      gai_strerror(rc));
        link_fail(link, &why);
        return true;
    }
    link->next = link->found;
    connect_next(link);
    return true;
}

mr_status mr_redis_link_open(mr_redis_link **out, mr_redis_loop *loop,
                             const mr_redis_address *address, bool tls,
                             const mr_redis_link_handler *handler, mr_error *err)
{
    mr_redis_link *link = calloc(1, sizeof *link);
    if (!link)
        return MR_FAIL(err, NO_MEMORY, "no memory for a connection to Redis");
    link->loop = loop;
    link->address = *address;
    link->handler = *handler;
    link->fd = -1;
    link->wants_tls = tls;
    link->soon = event_new(mr_redis_loop_base(loop), -1, 0, on_soon, link);
    if (!link->soon || mr_redis_reader_new(&link->reader, NULL) != MR_OK ||
        !(address->port ? begin_tcp(link) : begin_unix(link))) {
        close_socket(link);
        link_release(link);
        return MR_FAIL(err, NO_MEMORY, "no memory for a connection to Redis");
    }
    *out = link;
    return MR_OK;
}
