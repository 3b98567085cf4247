/* redis_url.h - where a Redis store is and how to sign in, read from its URL.
 *
 *     redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]       rediss:// the same with TLS
 *     redis+unix:[//[USER[:PASSWORD]@]]PATH[?db=N]
 *     redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT],HOST[:PORT].../MASTER[/DB]
 *     redis+cluster://[USER[:PASSWORD]@]HOST[:PORT],HOST[:PORT]...
 *
 * User, password, path and master are percent-decoded; an IPv6 address stands in brackets. A user
 * without a name ("redis://:secret@host") is Redis' default user. No message of this file or of its
 * callers shows a password: mr_redis_url.shown is the URL without one.
 * Threads: pure functions.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_REDIS_URL_H
#define MR_FEATURESTORE_REDIS_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

#define MR_REDIS_PORT          6379
#define MR_REDIS_SENTINEL_PORT 26379
#define MR_REDIS_MAX_SEEDS     32
#define MR_REDIS_MAX_HOST      255
#define MR_REDIS_MAX_DATABASE  65535

/* A server. Port 0: host is the path of a socket file. */
typedef struct {
    char host[MR_REDIS_MAX_HOST + 1]; /* without brackets */
    uint16_t port;
} mr_redis_address;

/* "host:port", "[::1]:port" or the path. */
#define MR_REDIS_ADDRESS_TEXT (MR_REDIS_MAX_HOST + 16)
const char *mr_redis_address_text(const mr_redis_address *address,
                                  char text[MR_REDIS_ADDRESS_TEXT]);
bool mr_redis_address_equal(const mr_redis_address *a, const mr_redis_address *b);
/* "HOST", "HOST:PORT", "[V6]", "[V6]:PORT", 1 to 65535. False on anything else. */
bool mr_redis_address_parse(const char *text, size_t len, uint16_t default_port,
                            mr_redis_address *out);

typedef enum { MR_REDIS_SINGLE, MR_REDIS_SENTINEL, MR_REDIS_CLUSTER } mr_redis_kind;

typedef struct {
    mr_redis_kind kind;
    bool tls;
    int database;
    char *user;     /* NULL: the default user */
    char *password; /* NULL: no AUTH */
    char *master;   /* Sentinel's name of it; NULL elsewhere */
    char *shown;    /* the URL, "***" for the password; for messages */
    size_t n; /* addresses: one server, or the Sentinels, or nodes of the cluster to begin with */
    mr_redis_address address[MR_REDIS_MAX_SEEDS];
} mr_redis_url;

/* INVALID: which part of the URL is wrong, what was found and what is expected. On failure *out
 * holds nothing. mr_redis_url_free wipes the password. */
MR_NODISCARD mr_status mr_redis_url_parse(const char *text, mr_redis_url *out, mr_error *err);
/* Takes a password from elsewhere (a file, the environment) in place of the URL's. */
MR_NODISCARD mr_status mr_redis_url_set_password(mr_redis_url *url, const char *password,
                                                 mr_error *err);
void mr_redis_url_free(mr_redis_url *url);
/* Whether text begins with one of the schemes above. */
bool mr_redis_url_is(const char *text);

#endif
