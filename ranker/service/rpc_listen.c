/* rpc_listen.c - addresses to sockets, sockets to connections, one loop after the other.
 *
 * Loop 0 accepts for all and hands new sockets out in turn: with a few long-lived clients, which is
 * what a ranking service has, the kernel's hashing of SO_REUSEPORT leaves loops empty.
 * When descriptors run out the listening sockets stay readable for ever; accepting then pauses for
 * 100 ms instead of turning in a circle.
 * SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ranker/service/rpc_private.h"

#define BACKLOG          1024
#define ACCEPT_PER_EVENT 64
#define PAUSE_US         100000
#define UNIX_MODE        0660

/* ---- opening ---- */

static void name_address(const struct sockaddr *address, char *out, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "";
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address;
        (void)inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        snprintf(out, size, "%s:%u", host, (unsigned)ntohs(in->sin_port));
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)(const void *)address;
        (void)inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host);
        snprintf(out, size, "[%s]:%u", host, (unsigned)ntohs(in->sin6_port));
    } else {
        snprintf(out, size, "unix");
    }
}

static mr_status fail(mr_error *err, const char *what, const char *address)
{
    const int number = errno;
    const char *hint = number == EADDRINUSE ? "; another process listens there" : "";
    if (number == EACCES || number == EPERM)
        return MR_FAIL(err, INVALID, "cannot %s '%s': %s", what, address, strerror(number));
    return MR_FAIL(err, UNAVAILABLE, "cannot %s '%s': %s%s", what, address, strerror(number), hint);
}

static mr_rpc_listener *next_listener(mr_rpc_listeners *listeners)
{
    return listeners->n < MR_RPC_MOST_LISTEN ? &listeners->listener[listeners->n] : NULL;
}

/* A socket file that nobody listens on is left over from a process that was killed. */
static void remove_stale(const struct sockaddr_un *address)
{
    struct stat info;
    if (lstat(address->sun_path, &info) != 0 || !S_ISSOCK(info.st_mode))
        return;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 &&
        errno == ECONNREFUSED)
        unlink(address->sun_path);
    close(fd);
}

static mr_status open_unix(mr_rpc_listeners *listeners, const char *text, mr_error *err)
{
    const char *path = text + strlen("unix:");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    mr_rpc_listener *listener = next_listener(listeners);
    if (*path == '\0' || strlen(path) >= sizeof address.sun_path)
        return MR_FAIL(err, INVALID, "address '%s': a path of %zu characters, expected 1 to %zu",
                       text, strlen(path), sizeof address.sun_path - 1);
    if (!listener)
        return MR_FAIL(err, INVALID, "more than %d listening addresses", MR_RPC_MOST_LISTEN);
    memcpy(address.sun_path, path, strlen(path) + 1);
    remove_stale(&address);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fail(err, "open a socket for", text);
    listener->fd = fd;
    listeners->n++;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0)
        return fail(err, "listen on", text);
    listener->unlink_path = strdup(path);
    if (chmod(path, UNIX_MODE) != 0 || listen(fd, BACKLOG) != 0) /* nobody connects before listen */
        return fail(err, "listen on", text);
    snprintf(listener->address, sizeof listener->address, "%s", text);
    return MR_OK;
}

static mr_status open_inet(mr_rpc_listeners *listeners, const struct addrinfo *info,
                           const char *text, bool tls, bool *absent, mr_error *err)
{
    static const int on = 1;
    struct sockaddr_storage bound = {0};
    socklen_t len = sizeof bound;
    mr_rpc_listener *listener = next_listener(listeners);
    *absent = false;
    if (!listener)
        return MR_FAIL(err, INVALID, "more than %d listening addresses", MR_RPC_MOST_LISTEN);
    const int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        *absent = errno == EAFNOSUPPORT;
        return fail(err, "open a socket for", text);
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (info->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, info->ai_addr, info->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &len) != 0) {
        *absent = errno == EADDRNOTAVAIL;
        const mr_status status = fail(err, "listen on", text);
        close(fd);
        return status;
    }
    listener->fd = fd;
    listener->tls = tls;
    name_address((const struct sockaddr *)&bound, listener->address, sizeof listener->address);
    listeners->n++;
    return MR_OK;
}

static mr_status open_name(mr_rpc_listeners *listeners, const char *text, bool tls, mr_error *err)
{
    char host[256];
    const char *colon = strrchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : 0;
    const char *from = text;
    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        from++;
        len -= 2;
    }
    if (!colon || colon[1] == '\0' || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
        strlen(colon + 1) > 5 || strtol(colon + 1, NULL, 10) > 65535 || len >= sizeof host ||
        (from == text && memchr(text, ':', len)))
        return MR_FAIL(err, INVALID,
                       "address '%s' is none of HOST:PORT, [IPv6]:PORT, :PORT and unix:PATH", text);
    memcpy(host, from, len);
    host[len] = '\0';
    struct addrinfo *list = NULL;
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
                                   .ai_socktype = SOCK_STREAM};
    const int failed = getaddrinfo(len ? host : NULL, colon + 1, &hints, &list);
    if (failed)
        return MR_FAIL(err, INVALID, "address '%s': %s", text, gai_strerror(failed));
    /* A machine without IPv6 still resolves names to it. */
    mr_status status = MR_OK;
    mr_error why = {0};
    const size_t before = listeners->n;
    bool absent = true;
    for (const struct addrinfo *info = list; info && (status == MR_OK || absent);
         info = info->ai_next)
        status = open_inet(listeners, info, text, tls, &absent, &why);
    freeaddrinfo(list);
    if (status == MR_OK || (absent && listeners->n > before))
        return MR_OK;
    if (err)
        *err = why;
    return status;
}

mr_status mr_rpc_listeners_open(mr_rpc_listeners *listeners, mr_rpc_server *server,
                                const mr_rpc_options *options, mr_error *err)
{
    if (options->n_listen == 0)
        return MR_FAIL(err, INVALID, "the gRPC server has no address to listen on");
    for (size_t i = 0; i < options->n_listen; i++) {
        const char *text = options->listen[i];
        const mr_status status = strncmp(text, "unix:", 5) == 0
                                     ? open_unix(listeners, text, err)
                                     : open_name(listeners, text, server->tls != NULL, err);
        if (status != MR_OK)
            return status;
    }
    for (size_t i = 0; i < listeners->n; i++)
        listeners->listener[i].server = server;
    return MR_OK;
}

/* ---- accepting ---- */

static void pause_accepting(mr_rpc_listeners *listeners)
{
    const struct timeval pause = {0, PAUSE_US};
    if (listeners->paused || event_add(listeners->resume, &pause) != 0)
        return;
    listeners->paused = true;
    for (size_t i = 0; i < listeners->n; i++)
        event_del(listeners->listener[i].accepting);
}

static void on_resume(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    mr_rpc_listeners *listeners = context;
    listeners->paused = false;
    for (size_t i = 0; i < listeners->n; i++)
        (void)event_add(listeners->listener[i].accepting, NULL);
}

/* False: nothing more to accept now. */
static bool accept_one(mr_rpc_listener *listener)
{
    static const int on = 1;
    mr_rpc_server *server = listener->server;
    mr_rpc_shared *shared = server->shared;
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof address;
    const int fd =
        accept4(listener->fd, (struct sockaddr *)&address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return false;
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            mr_rpc_count(shared, MR_RPC_N_ACCEPT_ERRORS, 1);
            pause_accepting(&server->listeners);
            return false;
        }
        return true; /* that client's trouble: it left, or its network did */
    }
    mr_rpc_socket *socket = NULL;
    if (mr_rpc_counted(shared, MR_RPC_N_CONNECTIONS) < shared->opt.max_connections)
        socket = calloc(1, sizeof *socket);
    if (!socket) {
        mr_rpc_count(shared, MR_RPC_N_REFUSED, 1);
        close(fd);
        return true;
    }
    socket->fd = fd;
    socket->tls = listener->tls;
    if (listener->unlink_path) {
        snprintf(socket->peer, sizeof socket->peer, "unix");
    } else {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        name_address((const struct sockaddr *)&address, socket->peer, sizeof socket->peer);
    }
    mr_rpc_count(shared, MR_RPC_N_CONNECTIONS, 1);
    mr_rpc_count(shared, MR_RPC_N_ACCEPTED, 1);
    mr_rpc_listeners *listeners = &server->listeners;
    mr_rpc_mailbox_hand(server->loops[listeners->next_loop].mailbox, socket);
    listeners->next_loop = (listeners->next_loop + 1) % server->n_loops;
    return true;
}

static void on_accept(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    mr_rpc_listener *listener = context;
    mr_rpc_loop_enter(listener->server->loops);
    for (int i = 0; i < ACCEPT_PER_EVENT && accept_one(listener); i++)
        ;
    mr_rpc_loop_settle(listener->server->loops);
}

/* What the kernel has accepted already is served; then nobody gets in. Merely not accepting would
 * let clients connect and wait for their deadline. */
static void on_drain(void *context)
{
    mr_rpc_listeners *listeners = context;
    for (size_t i = 0; i < listeners->n; i++) {
        while (accept_one(&listeners->listener[i]))
            ;
    }
    mr_rpc_listeners_close(listeners);
}

mr_status mr_rpc_listeners_start(mr_rpc_listeners *listeners, mr_rpc_loop *loop, mr_error *err)
{
    listeners->resume = event_new(loop->base, -1, 0, on_resume, listeners);
    if (!listeners->resume)
        return MR_FAIL(err, NO_MEMORY, "events of listening sockets");
    for (size_t i = 0; i < listeners->n; i++) {
        mr_rpc_listener *listener = &listeners->listener[i];
        listener->accepting =
            event_new(loop->base, listener->fd, EV_READ | EV_PERSIST, on_accept, listener);
        if (!listener->accepting || event_add(listener->accepting, NULL) != 0)
            return MR_FAIL(err, NO_MEMORY, "events of listening sockets");
    }
    loop->on_drain = on_drain;
    loop->on_drain_context = listeners;
    return MR_OK;
}

void mr_rpc_listeners_close(mr_rpc_listeners *listeners)
{
    for (size_t i = 0; i < listeners->n; i++) {
        mr_rpc_listener *listener = &listeners->listener[i];
        if (listener->accepting)
            event_free(listener->accepting);
        listener->accepting = NULL;
        if (listener->fd >= 0)
            close(listener->fd);
        listener->fd = -1;
        if (listener->unlink_path)
            (void)unlink(listener->unlink_path);
        free(listener->unlink_path);
        listener->unlink_path = NULL;
    }
    if (listeners->resume)
        event_free(listeners->resume);
    listeners->resume = NULL;
}
