/* fuzz_rpc_connection.c - whatever bytes a client sends: a connection that ends, and nothing kept.
 *
 * Input: a byte for the size of the pieces, then what follows the client's preface and SETTINGS
 * (both are sent for it: a fuzzer would never come past them). The connection runs on a loop
 * without a thread, over a socket pair, until the server has closed it or has nothing more to say.
 * SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/descriptors.h"
#include "ranker/service/rpc_health.h"
#include "ranker/service/rpc_private.h"
#include "ranker/service/rpc_reflection.h"
#include "tests/fuzz/fuzz.h"

static mr_rpc_server *server;

static void require(int condition)
{
    if (!condition)
        abort();
}

static void echo(void *context, mr_rpc_call *call)
{
    const mr_bytes bytes = mr_rpc_call_request(call);
    mr_bytes value;
    (void)context;
    (void)mr_rpc_call_metadata(call, "x-bin", 0, &value);
    if (bytes.len % 2)
        mr_rpc_call_reply(call, bytes.data, bytes.len);
    else
        mr_rpc_call_finish(call, MR_RPC_NOT_FOUND, "even");
}

static void open_server(void)
{
    static mr_rpc_method methods[8] = {{.path = "/a/b", .handle = echo}};
    mr_rpc_health *health = NULL;
    mr_rpc_reflection *reflection = NULL;
    size_t n = 1;
    const mr_bytes set = {mr_proto_descriptors, mr_proto_descriptors_len};
    require(mr_rpc_health_new(&health, NULL) == MR_OK);
    require(mr_rpc_reflection_new(&reflection, set, NULL) == MR_OK);
    n += mr_rpc_health_methods(health, methods + n);
    n += mr_rpc_reflection_methods(reflection, methods + n);
    const mr_rpc_options opt = {.methods = methods,
                                .n_methods = n,
                                .loops = 1,
                                .max_message_bytes = 20000,
                                .max_buffered_bytes = 1 << 20,
                                .stream_buffer_bytes = 1000};
    require(mr_rpc_server_new(&server, &opt, NULL) == MR_OK);
}

static void turn(mr_rpc_loop *loop, int fd)
{
    uint8_t ignored[4096];
    (void)event_base_loop(loop->base, EVLOOP_NONBLOCK);
    while (recv(fd, ignored, sizeof ignored, MSG_DONTWAIT) > 0)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t greeting[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                                      "\0\0\0\4\0\0\0\0\0";
    int fds[2];
    if (size == 0)
        return 0;
    if (!server)
        open_server();
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    require(fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0);
    mr_rpc_loop *loop = &server->loops[0];
    const mr_rpc_socket socket = {.fd = fds[0], .peer = "fuzz"};
    mr_rpc_count(server->shared, MR_RPC_N_CONNECTIONS, 1);
    mr_rpc_loop_enter(loop);
    mr_rpc_connection_open(loop, &socket);
    mr_rpc_loop_settle(loop);
    require(send(fds[1], greeting, sizeof greeting - 1, MSG_NOSIGNAL) > 0);
    const size_t piece = 16 * (size_t)data[0] + 1;
    for (size_t at = 1; at < size; at += piece) {
        const size_t n = size - at < piece ? size - at : piece;
        if (send(fds[1], data + at, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break; /* closed by the server */
        turn(loop, fds[1]);
    }
    turn(loop, fds[1]);
    close(fds[1]);
    for (int i = 0; i < 10 && loop->connections; i++)
        (void)event_base_loop(loop->base, EVLOOP_NONBLOCK);
    require(!loop->connections);
    require(mr_rpc_counted(server->shared, MR_RPC_N_CONNECTIONS) == 0);
    require(mr_rpc_counted(server->shared, MR_RPC_N_CALLS) == 0);
    require(atomic_load(&server->shared->budget.used) == 0);
    return 0;
}
