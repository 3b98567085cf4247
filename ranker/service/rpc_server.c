/* rpc_server.c - see rpc_server.h: putting it together, secrets, drain and stop.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/service/rpc_server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "ranker/service/rpc_private.h"

#define MOST_LOOPS  64
#define FAREWELL_MS 500 /* for statuses of calls that a stop cancels to get out */

/* ---- secrets ---- */

static mr_status read_secrets(const mr_rpc_server *server, SSL_CTX **tls, mr_rpc_keys **keys,
                              mr_error *err)
{
    mr_status status = MR_OK;
    *tls = NULL;
    *keys = NULL;
    if (server->tls_certificate)
        status = mr_rpc_tls_new(tls, server->tls_certificate, server->tls_key,
                                server->tls_client_ca, err);
    if (status == MR_OK && server->keys_file)
        status = mr_rpc_keys_read(keys, server->keys_file, err);
    if (status != MR_OK) {
        SSL_CTX_free(*tls);
        *tls = NULL;
    }
    return status;
}

mr_status mr_rpc_server_reload(mr_rpc_server *server, mr_error *err)
{
    SSL_CTX *tls;
    mr_rpc_keys *keys;
    const mr_status status = read_secrets(server, &tls, &keys, err);
    if (status != MR_OK)
        return status;
    pthread_rwlock_wrlock(&server->secrets_lock);
    SSL_CTX *old_tls = server->tls;
    mr_rpc_keys *old_keys = server->keys;
    server->tls = tls;
    server->keys = keys;
    pthread_rwlock_unlock(&server->secrets_lock);
    SSL_CTX_free(old_tls); /* connections of before count it */
    mr_rpc_keys_free(old_keys);
    return MR_OK;
}

bool mr_rpc_server_authorized(mr_rpc_server *server, mr_str header)
{
    pthread_rwlock_rdlock(&server->secrets_lock);
    const bool yes = !server->keys || mr_rpc_keys_accept(server->keys, header);
    pthread_rwlock_unlock(&server->secrets_lock);
    return yes;
}

SSL *mr_rpc_server_tls(mr_rpc_server *server)
{
    pthread_rwlock_rdlock(&server->secrets_lock);
    SSL *ssl = server->tls ? SSL_new(server->tls) : NULL;
    pthread_rwlock_unlock(&server->secrets_lock);
    return ssl;
}

/* ---- life ---- */

static mr_status check_options(const mr_rpc_options *options, mr_error *err)
{
    if (!options->tls_certificate != !options->tls_key)
        return MR_FAIL(err, INVALID, "TLS needs both a certificate and its key; only the %s is set",
                       options->tls_key ? "key" : "certificate");
    if (options->tls_client_ca && !options->tls_certificate)
        return MR_FAIL(err, INVALID, "client CAs are set, but no certificate of the server");
    if (options->loops > MOST_LOOPS)
        return MR_FAIL(err, INVALID, "%d event loops, expected 1 to %d", options->loops,
                       MOST_LOOPS);
    if (options->max_message_bytes > INT32_MAX)
        return MR_FAIL(err, INVALID, "max_message_bytes is %zu, expected at most %d",
                       options->max_message_bytes, INT32_MAX);
    for (size_t i = 0; i < options->n_methods; i++) {
        const char *path = options->methods[i].path;
        if (!path || path[0] != '/' || !strchr(path + 1, '/') || !options->methods[i].handle)
            return MR_FAIL(err, INVALID, "method '%s': expected /package.Service/Method, handled",
                           path ? path : "");
        for (size_t j = 0; j < i; j++) {
            if (strcmp(path, options->methods[j].path) == 0)
                return MR_FAIL(err, EXISTS, "method '%s' is given twice", path);
        }
    }
    return MR_OK;
}

static bool copy(char **out, const char *text)
{
    *out = text ? strdup(text) : NULL;
    return *out || !text;
}

static bool init_locks(mr_rpc_server *server)
{
    pthread_condattr_t attr;
    if (pthread_rwlock_init(&server->secrets_lock, NULL) != 0 ||
        pthread_mutex_init(&server->idle_lock, NULL) != 0 || pthread_condattr_init(&attr) != 0)
        return false;
    const bool done = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0 &&
                      pthread_cond_init(&server->idle, &attr) == 0;
    pthread_condattr_destroy(&attr);
    return done;
}

mr_status mr_rpc_server_new(mr_rpc_server **out, const mr_rpc_options *options, mr_error *err)
{
    mr_status status = check_options(options, err);
    if (status != MR_OK)
        return status;
    mr_rpc_server *server = calloc(1, sizeof *server);
    if (!server || !init_locks(server)) {
        free(server);
        return MR_FAIL(err, NO_MEMORY, "a gRPC server");
    }
    server->shared = mr_rpc_shared_new(options);
    const size_t n = server->shared ? (size_t)server->shared->opt.loops : 0;
    server->loops = calloc(n + 1, sizeof *server->loops);
    if (!server->shared || !server->loops ||
        !copy(&server->tls_certificate, options->tls_certificate) ||
        !copy(&server->tls_key, options->tls_key) ||
        !copy(&server->tls_client_ca, options->tls_client_ca) ||
        !copy(&server->keys_file, options->keys_file)) {
        status = MR_FAIL(err, NO_MEMORY, "a gRPC server");
        goto out;
    }
    status = mr_rpc_instruments_attach(server->shared, err);
    if (status == MR_OK)
        status = read_secrets(server, &server->tls, &server->keys, err);
    for (; status == MR_OK && server->n_loops < n; server->n_loops++)
        status = mr_rpc_loop_open(&server->loops[server->n_loops], server, server->shared, err);
    if (status == MR_OK && options->n_listen > 0)
        status = mr_rpc_listeners_open(&server->listeners, server, options, err);

out:
    if (status == MR_OK)
        *out = server;
    else
        mr_rpc_server_free(server);
    return status;
}

mr_status mr_rpc_server_start(mr_rpc_server *server, mr_error *err)
{
    mr_status status = mr_rpc_listeners_start(&server->listeners, server->loops, err);
    server->started = true;
    for (size_t i = 0; status == MR_OK && i < server->n_loops; i++)
        status = mr_rpc_loop_start(&server->loops[i], err);
    if (status != MR_OK)
        (void)mr_rpc_server_stop(server, 0);
    return status;
}

const char *mr_rpc_server_address(const mr_rpc_server *server, size_t i)
{
    return i < server->listeners.n ? server->listeners.listener[i].address : NULL;
}

static void command_all(mr_rpc_server *server, unsigned command)
{
    for (size_t i = 0; i < server->n_loops; i++)
        mr_rpc_mailbox_command(server->loops[i].mailbox, command);
}

void mr_rpc_server_drain(mr_rpc_server *server)
{
    atomic_store(&server->shared->draining, true);
    command_all(server, MR_RPC_COMMAND_DRAIN);
}

static void wait_for_clients(mr_rpc_server *server, int64_t ms)
{
    const int64_t until = mr_clock_monotonic_us() + ms * 1000;
    const struct timespec when = {until / 1000000, until % 1000000 * 1000};
    pthread_mutex_lock(&server->idle_lock);
    while (mr_rpc_counted(server->shared, MR_RPC_N_CONNECTIONS) > 0) {
        if (pthread_cond_timedwait(&server->idle, &server->idle_lock, &when) == ETIMEDOUT)
            break;
    }
    pthread_mutex_unlock(&server->idle_lock);
}

size_t mr_rpc_server_stop(mr_rpc_server *server, int64_t grace_ms)
{
    if (server->started && !server->stopped) {
        mr_rpc_server_drain(server);
        wait_for_clients(server, grace_ms > 0 ? grace_ms : 0);
        command_all(server, MR_RPC_COMMAND_CANCEL);
        wait_for_clients(server, FAREWELL_MS);
        command_all(server, MR_RPC_COMMAND_QUIT);
        for (size_t i = 0; i < server->n_loops; i++) {
            if (server->loops[i].running)
                pthread_join(server->loops[i].thread, NULL);
            server->loops[i].running = false;
        }
    }
    server->stopped = true;
    return atomic_load(&server->cancelled);
}

void mr_rpc_server_free(mr_rpc_server *server)
{
    if (!server)
        return;
    (void)mr_rpc_server_stop(server, 0);
    mr_rpc_listeners_close(&server->listeners);
    for (size_t i = 0; i < server->n_loops; i++)
        mr_rpc_loop_close(&server->loops[i]);
    free(server->loops);
    if (server->shared)
        mr_rpc_instruments_detach(server->shared);
    SSL_CTX_free(server->tls);
    mr_rpc_keys_free(server->keys);
    free(server->tls_certificate);
    free(server->tls_key);
    free(server->tls_client_ca);
    free(server->keys_file);
    pthread_rwlock_destroy(&server->secrets_lock);
    pthread_mutex_destroy(&server->idle_lock);
    pthread_cond_destroy(&server->idle);
    mr_rpc_shared_unref(server->shared);
    free(server);
}

void mr_rpc_server_stats(const mr_rpc_server *server, mr_rpc_stats *out)
{
    const mr_rpc_shared *shared = server->shared;
    *out = (mr_rpc_stats){
        .connections = mr_rpc_counted(shared, MR_RPC_N_CONNECTIONS),
        .calls = mr_rpc_counted(shared, MR_RPC_N_CALLS),
        .buffered_bytes = atomic_load_explicit(&shared->budget.used, memory_order_relaxed),
        .accepted = mr_rpc_counted(shared, MR_RPC_N_ACCEPTED),
        .refused = mr_rpc_counted(shared, MR_RPC_N_REFUSED),
        .accept_errors = mr_rpc_counted(shared, MR_RPC_N_ACCEPT_ERRORS),
        .resets_received = mr_rpc_counted(shared, MR_RPC_N_RESETS_RECEIVED),
        .resets_sent = mr_rpc_counted(shared, MR_RPC_N_RESETS_SENT),
        .dropped = mr_rpc_counted(shared, MR_RPC_N_DROPPED),
        .received_bytes = mr_rpc_counted(shared, MR_RPC_N_RECEIVED),
        .sent_bytes = mr_rpc_counted(shared, MR_RPC_N_SENT),
        .finished = mr_rpc_counted(shared, MR_RPC_N_FINISHED),
    };
}
