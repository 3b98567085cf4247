/* rpc_io.c - one socket, plain or TLS, without blocking.
 *
 * Loops block SIGPIPE, as OpenSSL writes without MSG_NOSIGNAL.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ranker/service/rpc_private.h"

static ssize_t plain_result(ssize_t n)
{
    if (n >= 0)
        return n;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? MR_RPC_IO_BLOCKED
                                                                     : MR_RPC_IO_FAILED;
}

static ssize_t tls_result(mr_rpc_io *io, int result)
{
    const int why = SSL_get_error(io->ssl, result);
    ERR_clear_error();
    switch (why) {
    case SSL_ERROR_WANT_READ: return MR_RPC_IO_BLOCKED;
    case SSL_ERROR_WANT_WRITE: io->wants_write = true; return MR_RPC_IO_BLOCKED;
    case SSL_ERROR_ZERO_RETURN: return 0;
    default: return MR_RPC_IO_FAILED;
    }
}

static int at_most_int(size_t n)
{
    return n > INT_MAX ? INT_MAX : (int)n;
}

ssize_t mr_rpc_io_read(mr_rpc_io *io, uint8_t *data, size_t size)
{
    if (!io->ssl)
        return plain_result(recv(io->fd, data, size, 0));
    ERR_clear_error();
    const int n = SSL_read(io->ssl, data, at_most_int(size));
    return n > 0 ? n : tls_result(io, n);
}

ssize_t mr_rpc_io_write(mr_rpc_io *io, const uint8_t *data, size_t len)
{
    if (!io->ssl)
        return plain_result(send(io->fd, data, len, MSG_NOSIGNAL));
    ERR_clear_error();
    io->wants_write = false;
    const int n = SSL_write(io->ssl, data, at_most_int(len));
    if (n > 0)
        return n;
    const ssize_t result = tls_result(io, n);
    return result == 0 ? MR_RPC_IO_FAILED : result;
}

int mr_rpc_io_handshake(mr_rpc_io *io)
{
    if (io->open)
        return 1;
    if (io->ssl) {
        ERR_clear_error();
        io->wants_write = false;
        const int n = SSL_accept(io->ssl);
        if (n != 1) {
            const ssize_t result = tls_result(io, n);
            return result == MR_RPC_IO_BLOCKED ? MR_RPC_IO_BLOCKED : MR_RPC_IO_FAILED;
        }
        /* A client that offers no protocol at all is not asked for one. */
        const unsigned char *name;
        unsigned len;
        SSL_get0_alpn_selected(io->ssl, &name, &len);
        if (len != 2)
            return MR_RPC_IO_FAILED;
    }
    io->open = true;
    return 1;
}

void mr_rpc_io_shutdown(mr_rpc_io *io)
{
    if (io->ssl && io->open) {
        ERR_clear_error();
        (void)SSL_shutdown(io->ssl);
        ERR_clear_error();
    }
    if (io->fd >= 0)
        (void)shutdown(io->fd, SHUT_WR);
}

void mr_rpc_io_close(mr_rpc_io *io)
{
    SSL_free(io->ssl);
    io->ssl = NULL;
    if (io->fd >= 0)
        close(io->fd);
    io->fd = -1;
}
