/* redis_tls.c - see redis_tls.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/redis_tls.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

struct mr_redis_tls {
    SSL_CTX *context;
    SSL *ssl;
};

static const char *last_reason(void)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    return reason ? reason : "no reason given";
}

void mr_redis_tls_free(mr_redis_tls *tls)
{
    if (!tls)
        return;
    SSL_free(tls->ssl);
    SSL_CTX_free(tls->context);
    free(tls);
}

/* An address is compared with the certificate's addresses, a name with its names. */
static int expect_host(SSL *ssl, const char *host)
{
    ASN1_OCTET_STRING *address = a2i_IPADDRESS(host);
    if (address) {
        ASN1_OCTET_STRING_free(address);
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host);
    }
    return SSL_set1_host(ssl, host) && SSL_set_tlsext_host_name(ssl, host);
}

/* A context per connection: certificates that were renewed count from the next one on. */
mr_status mr_redis_tls_new(mr_redis_tls **out, int fd, const char *host, mr_error *err)
{
    mr_redis_tls *tls = calloc(1, sizeof *tls);
    if (!tls)
        return MR_FAIL(err, NO_MEMORY, "no memory for TLS to Redis");
    ERR_clear_error();
    tls->context = SSL_CTX_new(TLS_client_method());
    if (tls->context && SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION) &&
        SSL_CTX_set_default_verify_paths(tls->context))
        tls->ssl = SSL_new(tls->context);
    if (!tls->ssl || !expect_host(tls->ssl, host) || !SSL_set_fd(tls->ssl, fd)) {
        mr_redis_tls_free(tls);
        return MR_FAIL(err, UNAVAILABLE, "TLS to '%.200s' cannot begin: %s", host, last_reason());
    }
    SSL_set_verify(tls->ssl, SSL_VERIFY_PEER, NULL);
    SSL_set_mode(tls->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_set_connect_state(tls->ssl);
    *out = tls;
    return MR_OK;
}

mr_redis_tls_progress mr_redis_tls_handshake(mr_redis_tls *tls, mr_error *err)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(tls->ssl);
    if (rc == 1)
        return MR_REDIS_TLS_DONE;
    int kind = SSL_get_error(tls->ssl, rc);
    if (kind == SSL_ERROR_WANT_READ)
        return MR_REDIS_TLS_WANTS_READ;
    if (kind == SSL_ERROR_WANT_WRITE)
        return MR_REDIS_TLS_WANTS_WRITE;
    long verified = SSL_get_verify_result(tls->ssl);
    if (verified != X509_V_OK)
        (void)MR_FAIL(err, IO,
                      "the server's certificate is refused: %s; name the authority's file in "
                      "SSL_CERT_FILE, and the host as the certificate has it",
                      X509_verify_cert_error_string(verified));
    else
        (void)MR_FAIL(err, UNAVAILABLE, "the TLS handshake failed: %s; does the port speak TLS?",
                      last_reason());
    return MR_REDIS_TLS_FAILED;
}

static ssize_t end_of(mr_redis_tls *tls, int rc)
{
    if (rc > 0)
        return rc;
    switch (SSL_get_error(tls->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
    case SSL_ERROR_ZERO_RETURN: return 0;
    case SSL_ERROR_SYSCALL:
        if (errno == 0)
            return 0;
        return -1;
    default: errno = EPROTO; return -1;
    }
}

ssize_t mr_redis_tls_read(mr_redis_tls *tls, void *data, size_t len)
{
    ERR_clear_error();
    errno = 0;
    return end_of(tls, SSL_read(tls->ssl, data, len > INT_MAX ? INT_MAX : (int)len));
}

ssize_t mr_redis_tls_write(mr_redis_tls *tls, const void *data, size_t len)
{
    ERR_clear_error();
    errno = 0;
    return end_of(tls, SSL_write(tls->ssl, data, len > INT_MAX ? INT_MAX : (int)len));
}
