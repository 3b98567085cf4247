/* rpc_tls.c - certificates into an SSL_CTX: TLS 1.2 and later, HTTP/2 by ALPN, client certificates.
 *
 * No session tickets: connections live long, and a ticket would let a client whose CA was taken
 * away by a reload come back. No renegotiation (RFC 9113 9.2.1), and for TLS 1.2 no cipher of its
 * list of forbidden ones.
 * SPDX-License-Identifier: Apache-2.0 */
#include <openssl/err.h>
#include <string.h>

#include "ranker/service/rpc_private.h"

static const unsigned char protocol[] = "\x02h2";

/* "h2" or nothing: a client that wants HTTP/1.1 is told so by the alert. */
static int select_h2(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                     const unsigned char *in, unsigned in_len, void *context)
{
    (void)ssl;
    (void)context;
    for (unsigned i = 0; i < in_len && i + 1 + in[i] <= in_len; i += 1 + in[i]) {
        if (in[i] == protocol[0] && memcmp(in + i + 1, protocol + 1, protocol[0]) == 0) {
            *out = in + i + 1;
            *out_len = protocol[0];
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Nobody sits at a terminal. */
static int no_passphrase(char *out, int size, int writing, void *context)
{
    (void)out;
    (void)size;
    (void)writing;
    (void)context;
    return -1;
}

static mr_status fail(mr_error *err, const char *doing, const char *path)
{
    const unsigned long code = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(code);
    ERR_clear_error();
    return MR_FAIL(err, INVALID, "cannot %s '%s': %s", doing, path, reason ? reason : "TLS error");
}

mr_status mr_rpc_tls_new(SSL_CTX **out, const char *certificate, const char *key,
                         const char *client_ca, mr_error *err)
{
    mr_status status = MR_OK;
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx) {
        ERR_clear_error();
        return MR_FAIL(err, NO_MEMORY, "TLS context");
    }
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_TICKET |
                                 SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
    SSL_CTX_set_alpn_select_cb(ctx, select_h2, NULL);
    if (!SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) ||
        !SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20")) {
        status = fail(err, "set up TLS for", certificate);
        goto out;
    }
    if (SSL_CTX_use_certificate_chain_file(ctx, certificate) != 1) {
        status = fail(err, "read certificates of", certificate);
        goto out;
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1) {
        status = fail(err, "read the private key of", key);
        goto out;
    }
    if (SSL_CTX_check_private_key(ctx) != 1) {
        ERR_clear_error();
        status = MR_FAIL(err, INVALID, "the key of '%s' does not belong to the certificate of '%s'",
                         key, certificate);
        goto out;
    }
    if (client_ca) {
        STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(client_ca);
        if (!names || SSL_CTX_load_verify_locations(ctx, client_ca, NULL) != 1) {
            sk_X509_NAME_pop_free(names, X509_NAME_free);
            status = fail(err, "read client CAs of", client_ca);
            goto out;
        }
        SSL_CTX_set_client_CA_list(ctx, names); /* takes them */
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }

out:
    if (status == MR_OK)
        *out = ctx;
    else
        SSL_CTX_free(ctx);
    return status;
}
