/* redis_server.c - see redis_server.h.
 *
 * A port is free when we ask and may be taken when the server binds it: a server that ends at once
 * is started again on another port, a few times. Restarts keep the port.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/redis_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "tests/redis_folder.h"

#define READY_MS       20000
#define STOP_MS        10000
#define STARTS         5
#define MAX_SERVERS    64
#define MIN_MAJOR      7
#define COMMAND_LIMIT  5 /* seconds */
#define CONFIG_SIZE    4096
#define PASSWORD_BYTES 64

struct redis_server {
    pid_t pid, owner;
    int lock; /* on FOLDER/owner, while this process lives */
    int port;
    bool sentinel, unix_only;
    char password[PASSWORD_BYTES];
    char locale[32];
    char folder[REDIS_FOLDER_PATH], socket[REDIS_FOLDER_PATH + 16], config[REDIS_FOLDER_PATH + 16],
        log[REDIS_FOLDER_PATH + 16];
    char address[32], url[PASSWORD_BYTES + 64], url_unix[REDIS_FOLDER_PATH + PASSWORD_BYTES + 64];
    char lines[CONFIG_SIZE]; /* of the configuration, without the port */
    redisContext *side;
};

static redis_server *servers[MAX_SERVERS]; /* not yet freed */

static const char *binary(void)
{
    const char *named = getenv("REDIS_SERVER");
    return named && *named ? named : "redis-server";
}

void redis_server_sleep_ms(int ms)
{
    struct timespec pause = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (nanosleep(&pause, &pause) != 0 && errno == EINTR)
        continue;
}

/* ---- is there one? --------------------------------------------------------------------------- */

const char *redis_server_missing(void)
{
    static char reason[256];
    char command[REDIS_FOLDER_PATH], line[256] = "";

    reason[0] = '\0';
    snprintf(command, sizeof command, "'%s' --version 2>/dev/null", binary());
    FILE *stream = popen(command, "r");
    if (stream) {
        if (!fgets(line, sizeof line, stream))
            line[0] = '\0';
        pclose(stream);
    }
    const char *version = strstr(line, "v=");
    if (!version)
        snprintf(reason, sizeof reason, "there is no '%s' in the PATH (Debian: redis-server)",
                 binary());
    else if (strtol(version + 2, NULL, 10) < MIN_MAJOR)
        snprintf(reason, sizeof reason, "%s is too old (%.40s), expected %d.0 or newer", binary(),
                 version, MIN_MAJOR);
    return reason[0] ? reason : NULL;
}

int redis_server_skip(void)
{
    const char *reason = redis_server_missing();
    printf("skipped: %s\n", reason ? reason : "no reason");
    return 77;
}

/* ---- port, log ------------------------------------------------------------------------------- */

int redis_server_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    int port = -1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0)
        return -1;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &len) == 0)
        port = ntohs(address.sin_port);
    close(fd);
    return port;
}

static void show_log(const redis_server *server)
{
    char tail[2048];
    FILE *stream = fopen(server->log, "rb");
    if (!stream)
        return;
    if (fseek(stream, -(long)sizeof tail + 1, SEEK_END) != 0)
        rewind(stream);
    size_t n = fread(tail, 1, sizeof tail - 1, stream);
    tail[n] = '\0';
    fprintf(stderr, "redis_server: end of the log of %s:\n%s\n", server->address, tail);
    fclose(stream);
}

/* ---- the process ----------------------------------------------------------------------------- */

static bool write_config(redis_server *server)
{
    FILE *stream = fopen(server->config, "wb");
    if (!stream)
        return false;
    fprintf(stream, "port %d\n", server->unix_only ? 0 : server->port);
    fprintf(stream, "bind 127.0.0.1\n");
    fputs(server->lines, stream);
    return fclose(stream) == 0;
}

static bool launch(redis_server *server)
{
    const char *program = binary();
    char locale[48];
    snprintf(locale, sizeof locale, "LC_ALL=%s", server->locale);
    char *arguments[] = {(char *)(uintptr_t) "env",
                         locale,
                         (char *)(uintptr_t)program,
                         server->config,
                         (char *)(uintptr_t)(server->sentinel ? "--sentinel" : NULL),
                         NULL};
    char **from = server->locale[0] ? arguments : arguments + 2;
    pid_t parent = getpid();
    int log = open(server->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0)
        return false;
    /* Nothing allocates behind the fork: other threads may hold malloc's lock. */
    pid_t pid = fork();
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        signal(SIGPIPE, SIG_DFL);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(127);
        dup2(log, STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
        execvp(from[0], from);
        _exit(127);
    }
    close(log);
    server->pid = pid > 0 ? pid : 0;
    return pid > 0;
}

bool redis_server_running(redis_server *server)
{
    if (server->pid && waitpid(server->pid, NULL, WNOHANG) == server->pid)
        server->pid = 0;
    return server->pid != 0;
}

static void disconnect(redis_server *server)
{
    redisFree(server->side);
    server->side = NULL;
}

static bool connect_side(redis_server *server)
{
    struct timeval limit = {COMMAND_LIMIT, 0};
    if (server->side && server->side->err)
        disconnect(server);
    if (server->side)
        return true;
    redisContext *side = server->unix_only
                             ? redisConnectUnixWithTimeout(server->socket, limit)
                             : redisConnectWithTimeout("127.0.0.1", server->port, limit);
    if (!side || side->err) {
        redisFree(side);
        return false;
    }
    redisSetTimeout(side, limit);
    server->side = side;
    if (!server->password[0])
        return true;
    redisReply *reply = redisCommand(side, "AUTH default %s", server->password);
    bool fine = reply && reply->type != REDIS_REPLY_ERROR;
    if (reply)
        freeReplyObject(reply);
    if (!fine)
        disconnect(server);
    return fine;
}

static bool wait_ready(redis_server *server)
{
    int64_t end = mr_clock_monotonic_us() + (int64_t)READY_MS * 1000;
    while (mr_clock_monotonic_us() < end && redis_server_running(server)) {
        if (connect_side(server)) {
            redisReply *reply = redisCommand(server->side, "PING");
            bool ready = reply && reply->type == REDIS_REPLY_STATUS;
            if (reply)
                freeReplyObject(reply);
            if (ready)
                return true;
        }
        redis_server_sleep_ms(5);
    }
    return false;
}

static void end_process(redis_server *server, int signal_number)
{
    if (!redis_server_running(server))
        return;
    kill(server->pid, signal_number);
    while (waitpid(server->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    server->pid = 0;
}

void redis_server_kill(redis_server *server)
{
    disconnect(server);
    end_process(server, SIGKILL);
}

bool redis_server_stop(redis_server *server)
{
    disconnect(server);
    if (!redis_server_running(server))
        return true;
    kill(server->pid, SIGTERM);
    for (int waited = 0; waited < STOP_MS; waited += 5) {
        if (!redis_server_running(server))
            return true;
        redis_server_sleep_ms(5);
    }
    fprintf(stderr, "redis_server: %s did not end within %d ms of SIGTERM\n", server->address,
            STOP_MS);
    show_log(server);
    end_process(server, SIGKILL);
    return false;
}

bool redis_server_restart(redis_server *server)
{
    if (redis_server_running(server) && !redis_server_stop(server))
        return false;
    if (launch(server) && wait_ready(server))
        return true;
    fprintf(stderr, "redis_server: %s did not come back\n", server->address);
    show_log(server);
    redis_server_kill(server);
    return false;
}

void redis_server_pause(redis_server *server)
{
    if (redis_server_running(server))
        kill(server->pid, SIGSTOP);
}

void redis_server_resume(redis_server *server)
{
    if (redis_server_running(server))
        kill(server->pid, SIGCONT);
}

/* ---- start and free -------------------------------------------------------------------------- */

static void free_all(void)
{
    for (size_t i = 0; i < MAX_SERVERS; i++) {
        if (servers[i] && servers[i]->owner == getpid()) /* not in a forked child of a test */
            redis_server_free(servers[i]);
    }
}

static bool keep(redis_server *server)
{
    static bool registered;
    if (!registered)
        registered = atexit(free_all) == 0;
    for (size_t i = 0; i < MAX_SERVERS; i++) {
        if (!servers[i]) {
            servers[i] = server;
            return true;
        }
    }
    return false;
}

static redis_server *server_new(void)
{
    redis_server *server = calloc(1, sizeof *server);
    if (!server)
        return NULL;
    server->owner = getpid();
    if ((server->lock = redis_folder_new(server->folder)) < 0) {
        free(server);
        return NULL;
    }
    snprintf(server->socket, sizeof server->socket, "%s/redis.sock", server->folder);
    snprintf(server->config, sizeof server->config, "%s/redis.conf", server->folder);
    snprintf(server->log, sizeof server->log, "%s/redis.log", server->folder);
    if (!keep(server)) {
        fprintf(stderr, "redis_server: %d servers at once are too many\n", MAX_SERVERS);
        redis_folder_free(server->folder, server->lock);
        free(server);
        return NULL;
    }
    return server;
}

static void name_address(redis_server *server)
{
    char user[PASSWORD_BYTES + 16] = "";
    if (server->password[0])
        snprintf(user, sizeof user, "default:%s@", server->password);
    snprintf(server->address, sizeof server->address, "127.0.0.1:%d", server->port);
    snprintf(server->url_unix, sizeof server->url_unix, "redis+unix:%s%s%s", *user ? "//" : "",
             user, server->socket);
    snprintf(server->url, sizeof server->url, "redis://%s%s", user, server->address);
}

static redis_server *start(redis_server *server)
{
    for (int i = 0; i < STARTS; i++) {
        if (!server->unix_only && (server->port = redis_server_free_port()) < 0)
            break;
        name_address(server);
        if (write_config(server) && launch(server) && wait_ready(server))
            return server;
        if (server->pid) /* it runs and does not answer: another port does not help */
            break;
    }
    fprintf(stderr, "redis_server: a server in %s did not start\n", server->folder);
    show_log(server);
    redis_server_free(server);
    return NULL;
}

static bool add_lines(redis_server *server, const char *format, ...) MR_PRINTF(2, 3);
static bool add_lines(redis_server *server, const char *format, ...)
{
    size_t used = strlen(server->lines);
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(server->lines + used, CONFIG_SIZE - used, format, arguments);
    va_end(arguments);
    return n >= 0 && (size_t)n < CONFIG_SIZE - used;
}

static bool write_acl(redis_server *server, const char *acl)
{
    char path[REDIS_FOLDER_PATH + 16];
    snprintf(path, sizeof path, "%s/users.acl", server->folder);
    FILE *stream = fopen(path, "wb");
    if (!stream)
        return false;
    if (!strstr(acl, "user default ")) /* what a server has that is told of no users */
        fputs("user default on nopass ~* &* +@all\n", stream);
    fputs(acl, stream);
    return fclose(stream) == 0 && add_lines(server, "aclfile %s\n", path);
}

redis_server *redis_server_start(const redis_server_options *given)
{
    static const redis_server_options none;
    const redis_server_options *options = given ? given : &none;
    redis_server *server = server_new();
    if (!server)
        return NULL;

    server->unix_only = options->unix_only;
    if (options->locale)
        snprintf(server->locale, sizeof server->locale, "%s", options->locale);
    bool fine = add_lines(server,
                          "dir %s\nunixsocket %s\nunixsocketperm 700\nsave \"\"\n"
                          "appendonly %s\ndatabases %d\ndaemonize no\nlogfile \"\"\n"
                          "repl-diskless-sync-delay 0\n",
                          server->folder, server->socket, options->appendonly ? "yes" : "no",
                          options->databases ? options->databases : 16);
    if (fine && options->password) {
        fine = strlen(options->password) < PASSWORD_BYTES;
        snprintf(server->password, sizeof server->password, "%s", options->password);
        if (fine && !options->acl)
            fine = add_lines(server, "requirepass %s\nmasterauth %s\n", options->password,
                             options->password);
    }
    if (fine && options->maxmemory)
        fine = add_lines(server, "maxmemory %s\nmaxmemory-policy noeviction\n", options->maxmemory);
    if (fine && options->acl)
        fine = write_acl(server, options->acl);
    if (fine && options->extra)
        fine = add_lines(server, "%s\n", options->extra);
    if (!fine) {
        fprintf(stderr, "redis_server: options too long, or %s is full\n", server->folder);
        redis_server_free(server);
        return NULL;
    }
    return start(server);
}

redis_server *redis_server_start_sentinel(const char *config)
{
    redis_server *server = server_new();
    if (!server)
        return NULL;
    server->sentinel = true;
    if (!add_lines(server, "dir %s\nlogfile \"\"\n%s\n", server->folder, config)) {
        redis_server_free(server);
        return NULL;
    }
    return start(server);
}

void redis_server_free(redis_server *server)
{
    if (!server)
        return;
    redis_server_kill(server);
    redis_folder_free(server->folder, server->lock);
    for (size_t i = 0; i < MAX_SERVERS; i++) {
        if (servers[i] == server)
            servers[i] = NULL;
    }
    free(server);
}

/* ---- names ----------------------------------------------------------------------------------- */

const char *redis_server_url(const redis_server *server)
{
    return server->unix_only ? server->url_unix : server->url;
}

const char *redis_server_url_unix(const redis_server *server)
{
    return server->url_unix;
}

int redis_server_port(const redis_server *server)
{
    return server->port;
}

const char *redis_server_address(const redis_server *server)
{
    return server->unix_only ? server->socket : server->address;
}

const char *redis_server_socket(const redis_server *server)
{
    return server->socket;
}

const char *redis_server_folder(const redis_server *server)
{
    return server->folder;
}

pid_t redis_server_pid(const redis_server *server)
{
    return server->pid;
}

/* ---- side connection ------------------------------------------------------------------------- */

/* A connection that died while nobody looked (a restart) fails at its next use, and gets one more
 * chance on a new one. */
static redisReply *command(redis_server *server, const char *format, va_list arguments)
{
    redisReply *reply = NULL;
    for (bool is_fresh = false; !reply && !is_fresh;) {
        va_list copy;
        is_fresh = !server->side;
        if (!connect_side(server))
            break;
        va_copy(copy, arguments);
        reply = redisvCommand(server->side, format, copy);
        va_end(copy);
        if (!reply)
            disconnect(server);
    }
    return reply;
}

redisReply *redis_server_command(redis_server *server, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = command(server, format, arguments);
    va_end(arguments);
    return reply;
}

bool redis_server_run(redis_server *server, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = command(server, format, arguments);
    va_end(arguments);
    bool fine = reply && reply->type != REDIS_REPLY_ERROR;
    if (!fine)
        fprintf(stderr, "redis_server: %s answered '%s' with %s\n", server->address, format,
                reply ? reply->str : "nothing");
    if (reply)
        freeReplyObject(reply);
    return fine;
}

int64_t redis_server_integer(redis_server *server, const char *format, ...)
{
    int64_t value = INT64_MIN;
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = command(server, format, arguments);
    va_end(arguments);
    if (reply && reply->type == REDIS_REPLY_INTEGER)
        value = reply->integer;
    else if (reply && reply->type == REDIS_REPLY_STRING && reply->len)
        value = strtoll(reply->str, NULL, 10);
    if (reply)
        freeReplyObject(reply);
    return value;
}

int64_t redis_server_info(redis_server *server, const char *field)
{
    int64_t value = INT64_MIN;
    char name[128];
    int n = snprintf(name, sizeof name, "\n%s:", field);
    redisReply *reply = redis_server_command(server, "INFO everything");
    const char *found = reply && reply->type == REDIS_REPLY_STRING ? strstr(reply->str, name) : 0;
    if (found)
        value = strtoll(found + n, NULL, 10);
    if (reply)
        freeReplyObject(reply);
    return value;
}

bool redis_server_wait_info(redis_server *server, const char *line, int timeout_ms)
{
    int64_t end = mr_clock_monotonic_us() + (int64_t)timeout_ms * 1000;
    do {
        redisReply *reply = redis_server_command(server, "INFO everything");
        bool found = reply && reply->type == REDIS_REPLY_STRING && strstr(reply->str, line);
        if (reply)
            freeReplyObject(reply);
        if (found)
            return true;
        redis_server_sleep_ms(20);
    } while (mr_clock_monotonic_us() < end);
    return false;
}

int redis_server_clients(redis_server *server, const char *pattern)
{
    redisReply *reply = redis_server_command(server, "CLIENT LIST");
    int n = -1;
    if (reply && reply->type == REDIS_REPLY_STRING) {
        n = 0;
        for (char *line = reply->str; line && *line;) {
            char *next = strchr(line, '\n');
            if (next)
                *next++ = '\0';
            if (strstr(line, pattern) && !strstr(line, "cmd=client|list"))
                n++;
            line = next;
        }
    }
    if (reply)
        freeReplyObject(reply);
    return n;
}
