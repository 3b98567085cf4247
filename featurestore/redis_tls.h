/* redis_tls.h - TLS over a socket that is connected already, for redis_link.c.
 *
 * OpenSSL on the socket itself, not hiredis_ssl: Debian 12's hiredis has no TLS, its OpenSSL does.
 * TLS 1.2 or newer; the server's certificate must be valid for the URL's host and be signed by an
 * authority that the system trusts, or by those of the files and folders that OpenSSL's variables
 * SSL_CERT_FILE and SSL_CERT_DIR name. Loop thread only.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_REDIS_TLS_H
#define MR_FEATURESTORE_REDIS_TLS_H

#include <stddef.h>
#include <sys/types.h>

#include "core/error.h"

typedef struct mr_redis_tls mr_redis_tls;

typedef enum {
    MR_REDIS_TLS_DONE,
    MR_REDIS_TLS_WANTS_READ,
    MR_REDIS_TLS_WANTS_WRITE,
    MR_REDIS_TLS_FAILED
} mr_redis_tls_progress;

/* fd stays the caller's. host: a name or an address, which the certificate must be for. */
MR_NODISCARD mr_status mr_redis_tls_new(mr_redis_tls **out, int fd, const char *host,
                                        mr_error *err);
void mr_redis_tls_free(mr_redis_tls *tls); /* NULL is fine */
mr_redis_tls_progress mr_redis_tls_handshake(mr_redis_tls *tls, mr_error *err);
/* As read and send: -1 with errno, EAGAIN when the socket has nothing or takes nothing. */
ssize_t mr_redis_tls_read(mr_redis_tls *tls, void *data, size_t len);
ssize_t mr_redis_tls_write(mr_redis_tls *tls, const void *data, size_t len);

#endif
