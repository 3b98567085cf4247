/* redis_server.h - real redis-server processes for tests, benchmarks and the chaos run.
 *
 *     if (redis_server_missing())
 *         return redis_server_skip();              77, with the reason printed
 *     redis_server *server = redis_server_start(NULL);
 *     mr_store_open(&store, redis_server_url(server), NULL, &err);
 *     redis_server_kill(server);                   SIGKILL
 *     redis_server_restart(server);                same port, same folder
 *     redis_server_free(server);
 *
 * A server lives in a folder of its own under $TMPDIR or /tmp, listens on 127.0.0.1 at a port that
 * was free a moment ago and on FOLDER/redis.sock, keeps nothing on disk unless `appendonly` is
 * asked for, and is ready (answers PING, has loaded its data) when start and restart return. It
 * dies with the thread that started it, however that ends (PR_SET_PDEATHSIG): start servers from
 * the main thread. What is not freed goes, with its folder, when the program exits; folders of
 * programs that crashed go when the next one starts a server.
 *
 * What fails prints its reason, with the end of the server's log, to stderr and returns NULL or
 * false: no cmocka here, so that benchmarks can link it. Groups (a master with replicas and
 * sentinels, a cluster) are in redis_groups.h. Environment: REDIS_SERVER names another binary.
 * Threads: one at a time per server; start and free from one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_REDIS_SERVER_H
#define MR_TESTS_REDIS_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <hiredis/hiredis.h>

#include "core/api.h"

/* NULL when redis-server 7.0 or newer can be started, else why not; static storage. */
const char *redis_server_missing(void);
/* Prints "skipped: <reason>" and returns 77, what main() then returns. */
int redis_server_skip(void);

typedef struct redis_server redis_server;

typedef struct {
    const char *password;  /* requirepass */
    const char *acl;       /* lines of an ACL users file, "user alice on >secret ~* &* +@all\n"; the
                              side connection needs "user default" to keep its rights there */
    const char *maxmemory; /* "8mb"; with it writes fail with OOM when it is full (noeviction) */
    const char *extra;     /* more lines of redis.conf */
    const char *locale;    /* LC_ALL of the server, "en_US.UTF-8"; NULL: ours */
    int databases;         /* 0: 16 */
    bool appendonly;       /* what was answered survives kill and restart */
    bool unix_only;        /* no TCP port; redis_server_url is the socket's */
} redis_server_options;

redis_server *redis_server_start(const redis_server_options *options); /* NULL: all defaults */
void redis_server_free(redis_server *server);                          /* NULL is fine */

/* Ends the process and waits for its end; a server that is not running is left alone. */
bool redis_server_stop(redis_server *server); /* SIGTERM; killed after 10 s */
void redis_server_kill(redis_server *server); /* SIGKILL */
bool redis_server_restart(redis_server *server);
/* A paused server (SIGSTOP) keeps its connections and answers nothing. */
void redis_server_pause(redis_server *server);
void redis_server_resume(redis_server *server);
bool redis_server_running(redis_server *server);

/* For mr_store_open, user "default" and the password in it; owned by the server. */
const char *redis_server_url(const redis_server *server);      /* redis://, or the socket's */
const char *redis_server_url_unix(const redis_server *server); /* redis+unix:// */
int redis_server_port(const redis_server *server);             /* 0 with unix_only */
const char *redis_server_address(const redis_server *server);  /* "127.0.0.1:PORT" */
const char *redis_server_socket(const redis_server *server);   /* path */
const char *redis_server_folder(const redis_server *server);
pid_t redis_server_pid(const redis_server *server); /* 0 when it is not running */

/* On a synchronous connection of our own, made (again) when there is none: for setting up and for
 * looking at what a store did. hiredis's format: %s, %b with (data, size_t), %lld. NULL when the
 * server does not answer within 5 s. The reply, which may be an error, is for freeReplyObject. */
redisReply *redis_server_command(redis_server *server, const char *format, ...);
/* True when the answer is no error; prints it otherwise. */
bool redis_server_run(redis_server *server, const char *format, ...);
/* Of an integer, or of a decimal string; INT64_MIN otherwise. */
int64_t redis_server_integer(redis_server *server, const char *format, ...);
/* A number field of INFO: redis_server_info(server, "total_connections_received"). INT64_MIN when
 * there is none. */
int64_t redis_server_info(redis_server *server, const char *field);
/* Polls once in 20 ms until INFO's text holds `line` ("master_link_status:up"); false after the
 * time. */
bool redis_server_wait_info(redis_server *server, const char *line, int timeout_ms);

/* The clients that the server has now, by a pattern of CLIENT LIST ("sub=1"; "" for all), without
 * our own side connection. -1 when it does not answer. */
int redis_server_clients(redis_server *server, const char *pattern);

/* ---- for redis_groups.c ---------------------------------------------------------------------- */

/* As start, but without data: `config` is the whole configuration behind the port and the folder's
 * lines, and the process is a sentinel. */
redis_server *redis_server_start_sentinel(const char *config);
int redis_server_free_port(void); /* of loopback; -1 when there is none */
void redis_server_sleep_ms(int ms);

#endif
