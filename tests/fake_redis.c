/* fake_redis.c - see fake_redis.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/fake_redis.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS = 8, INPUT = 1 << 16, RULES = 16, FLOOD_BYTES = 64 << 20 };

typedef struct {
    int fd;
    bool deaf; /* we said the last word */
    size_t len;
    char in[INPUT];
} client;

struct fake_redis {
    int listener, stop[2];
    char url[64];
    fake_rule rules[RULES];
    int used[RULES];
    size_t n;
    pthread_t thread;
    pthread_mutex_t lock;
    client clients[CLIENTS]; /* fds under lock */
    int connections;         /* under lock */
};

static bool send_all(int fd, const char *bytes, size_t len)
{
    while (len) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

static void client_close(fake_redis *fake, client *c)
{
    pthread_mutex_lock(&fake->lock);
    close(c->fd);
    c->fd = -1;
    pthread_mutex_unlock(&fake->lock);
}

/* What a real server says to a sign-in. */
static void answer_plainly(client *c, const char *request)
{
    static const char subscribed[] =
        "*3\r\n$9\r\nsubscribe\r\n$20\r\n__redis__:invalidate\r\n:1\r\n";
    static int id;
    char text[64];
    if (strncmp(request, "PING", 4) == 0)
        (void)send_all(c->fd, "+PONG\r\n", 7);
    else if (strncmp(request, "CLIENT ID", 9) == 0)
        (void)send_all(c->fd, text, (size_t)snprintf(text, sizeof text, ":%d\r\n", ++id));
    else if (strncmp(request, "SUBSCRIBE", 9) == 0)
        (void)send_all(c->fd, subscribed, sizeof subscribed - 1);
    else
        (void)send_all(c->fd, "+OK\r\n", 5);
}

static void answer_by(fake_redis *fake, client *c, const fake_rule *rule)
{
    size_t len = rule->len ? rule->len : rule->bytes ? strlen(rule->bytes) : 0;
    const struct timespec pause = {.tv_nsec = 1000000};
    size_t sent = 0;
    switch (rule->action) {
    case FAKE_SAY: (void)send_all(c->fd, rule->bytes, len); break;
    case FAKE_SAY_SLOWLY:
        for (size_t i = 0; i < len && send_all(c->fd, rule->bytes + i, 1); i++)
            (void)nanosleep(&pause, NULL);
        break;
    case FAKE_STALL: break;
    case FAKE_CLOSE:
        (void)send_all(c->fd, rule->bytes, len);
        client_close(fake, c);
        break;
    case FAKE_HALF_CLOSE:
        (void)send_all(c->fd, rule->bytes, len);
        (void)shutdown(c->fd, SHUT_WR);
        c->deaf = true;
        break;
    case FAKE_FLOOD:
        while (sent < FLOOD_BYTES && send_all(c->fd, rule->bytes, len))
            sent += len;
        break;
    }
}

static void answer(fake_redis *fake, client *c, const char *request)
{
    for (size_t i = 0; i < fake->n; i++) {
        const fake_rule *rule = &fake->rules[i];
        if (strncmp(request, rule->command, strlen(rule->command)) != 0 ||
            (rule->times && fake->used[i] == rule->times))
            continue;
        fake->used[i]++;
        answer_by(fake, c, rule);
        return;
    }
    answer_plainly(c, request);
}

/* One request at the front of what came, as words with spaces between. 0: not yet whole. */
static size_t take_request(const client *c, char *out, size_t capacity)
{
    char head[32];
    size_t at = 0, used = 0;
    unsigned long args = 0;
    for (unsigned long i = 0; i <= args; i++) {
        const char *end = memchr(c->in + at, '\n', c->len - at);
        size_t line = end ? (size_t)(end - (c->in + at)) + 1 : 0;
        if (!end || line < 4 || line >= sizeof head)
            return 0;
        memcpy(head, c->in + at, line);
        head[line] = '\0';
        at += line;
        unsigned long number = strtoul(head + 1, NULL, 10);
        if (i == 0) {
            args = number;
            continue;
        }
        if (c->len - at < number + 2)
            return 0;
        if (used + number + 2 < capacity) {
            memcpy(out + used, c->in + at, number);
            used += number;
            out[used++] = ' ';
        }
        at += number + 2;
    }
    out[used] = '\0';
    return at;
}

static void client_read(fake_redis *fake, client *c)
{
    static char request[INPUT];
    ssize_t n = recv(c->fd, c->in + c->len, sizeof c->in - c->len, 0);
    if (n <= 0) {
        client_close(fake, c);
        return;
    }
    c->len += (size_t)n;
    for (;;) {
        size_t taken = take_request(c, request, sizeof request);
        if (taken == 0) {
            if (c->len == sizeof c->in)
                c->len = 0; /* larger than any that a rule answers */
            return;
        }
        memmove(c->in, c->in + taken, c->len - taken);
        c->len -= taken;
        if (!c->deaf)
            answer(fake, c, request);
        if (c->fd < 0)
            return;
    }
}

static void client_accept(fake_redis *fake)
{
    int fd = accept(fake->listener, NULL, NULL);
    if (fd < 0)
        return;
    pthread_mutex_lock(&fake->lock);
    for (size_t i = 0; i < CLIENTS; i++) {
        client *c = &fake->clients[i];
        if (c->fd >= 0)
            continue;
        c->fd = fd;
        c->len = 0;
        c->deaf = false;
        fake->connections++;
        fd = -1;
        break;
    }
    pthread_mutex_unlock(&fake->lock);
    if (fd >= 0)
        close(fd);
}

static void *serve(void *context)
{
    fake_redis *fake = context;
    for (;;) {
        struct pollfd polled[CLIENTS + 2] = {{.fd = fake->stop[0], .events = POLLIN},
                                             {.fd = fake->listener, .events = POLLIN}};
        for (size_t i = 0; i < CLIENTS; i++)
            polled[i + 2] = (struct pollfd){.fd = fake->clients[i].fd, .events = POLLIN};
        if (poll(polled, CLIENTS + 2, -1) < 0 && errno != EINTR)
            return NULL;
        if (polled[0].revents)
            return NULL;
        if (polled[1].revents)
            client_accept(fake);
        for (size_t i = 0; i < CLIENTS; i++) {
            if (polled[i + 2].fd >= 0 && polled[i + 2].revents)
                client_read(fake, &fake->clients[i]);
        }
    }
}

fake_redis *fake_redis_start(const fake_rule *rules, size_t n)
{
    fake_redis *fake = calloc(1, sizeof *fake);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    assert_non_null(fake);
    assert_true(n <= RULES);
    if (n)
        memcpy(fake->rules, rules, n * sizeof *rules);
    fake->n = n;
    for (size_t i = 0; i < CLIENTS; i++)
        fake->clients[i].fd = -1;
    pthread_mutex_init(&fake->lock, NULL);
    assert_int_equal(pipe(fake->stop), 0);
    fake->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fake->listener >= 0);
    assert_int_equal(bind(fake->listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fake->listener, 16), 0);
    assert_int_equal(getsockname(fake->listener, (struct sockaddr *)&at, &len), 0);
    snprintf(fake->url, sizeof fake->url, "redis://127.0.0.1:%d", ntohs(at.sin_port));
    assert_int_equal(pthread_create(&fake->thread, NULL, serve, fake), 0);
    return fake;
}

void fake_redis_free(fake_redis *fake)
{
    assert_int_equal(write(fake->stop[1], "x", 1), 1);
    pthread_join(fake->thread, NULL);
    for (size_t i = 0; i < CLIENTS; i++) {
        if (fake->clients[i].fd >= 0)
            close(fake->clients[i].fd);
    }
    close(fake->listener);
    close(fake->stop[0]);
    close(fake->stop[1]);
    pthread_mutex_destroy(&fake->lock);
    free(fake);
}

const char *fake_redis_url(const fake_redis *fake)
{
    return fake->url;
}

int fake_redis_connections(fake_redis *fake)
{
    pthread_mutex_lock(&fake->lock);
    int connections = fake->connections;
    pthread_mutex_unlock(&fake->lock);
    return connections;
}

void fake_redis_push(fake_redis *fake, const char *bytes, size_t len)
{
    pthread_mutex_lock(&fake->lock);
    for (size_t i = 0; i < CLIENTS; i++) {
        if (fake->clients[i].fd >= 0)
            (void)send_all(fake->clients[i].fd, bytes, len);
    }
    pthread_mutex_unlock(&fake->lock);
}
