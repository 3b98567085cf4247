/* redis_url.c - see redis_url.h.
 *
 * Messages are made from parts of the URL that cannot hold the password, or from `shown`: what
 * stands between the first ':' of the sign-in part and the last '@' is replaced before anything is
 * parsed, so that a URL that is wrong elsewhere does not show it either.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/redis_url.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"

#define MAX_URL       4096
#define MAX_SOCKET    107 /* sun_path of Linux, without its NUL */
#define FORM_SINGLE   "redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]"
#define FORM_UNIX     "redis+unix:[//USER:PASSWORD@]PATH[?db=N]"
#define FORM_SENTINEL "redis+sentinel://[USER[:PASSWORD]@]HOST:PORT,HOST:PORT/MASTER[/DB]"
#define FORM_CLUSTER  "redis+cluster://[USER[:PASSWORD]@]HOST:PORT,HOST:PORT"

typedef struct {
    const char *name;
    const char *form;
    mr_redis_kind kind;
    bool tls, path;
    uint16_t port;
} scheme_row;

static const scheme_row schemes[] = {
    {"redis:", FORM_SINGLE, MR_REDIS_SINGLE, false, false, MR_REDIS_PORT},
    {"rediss:", FORM_SINGLE, MR_REDIS_SINGLE, true, false, MR_REDIS_PORT},
    {"redis+unix:", FORM_UNIX, MR_REDIS_SINGLE, false, true, 0},
    {"redis+sentinel:", FORM_SENTINEL, MR_REDIS_SENTINEL, false, false, MR_REDIS_SENTINEL_PORT},
    {"redis+cluster:", FORM_CLUSTER, MR_REDIS_CLUSTER, false, false, MR_REDIS_PORT},
};

static const scheme_row *scheme_of(const char *text)
{
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        if (strncmp(text, schemes[i].name, strlen(schemes[i].name)) == 0)
            return &schemes[i];
    }
    return NULL;
}

bool mr_redis_url_is(const char *text)
{
    return scheme_of(text) != NULL;
}

/* ---- addresses ------------------------------------------------------------------------------- */

const char *mr_redis_address_text(const mr_redis_address *address, char text[MR_REDIS_ADDRESS_TEXT])
{
    if (address->port == 0)
        snprintf(text, MR_REDIS_ADDRESS_TEXT, "%s", address->host);
    else if (strchr(address->host, ':'))
        snprintf(text, MR_REDIS_ADDRESS_TEXT, "[%s]:%u", address->host, (unsigned)address->port);
    else
        snprintf(text, MR_REDIS_ADDRESS_TEXT, "%s:%u", address->host, (unsigned)address->port);
    return text;
}

bool mr_redis_address_equal(const mr_redis_address *a, const mr_redis_address *b)
{
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* Whole, 0 to most, no sign. */
static bool parse_number(mr_str text, unsigned long most, unsigned long *out)
{
    unsigned long value = 0;
    if (text.len == 0 || text.len > 10)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (unsigned long)(text.data[i] - '0');
    }
    *out = value;
    return value <= most;
}

/* Names, IPv4 addresses and, in brackets, IPv6 ones with a zone. */
static bool is_host(mr_str host, bool brackets)
{
    if (host.len == 0 || host.len > MR_REDIS_MAX_HOST)
        return false;
    bool colon = false;
    for (size_t i = 0; i < host.len; i++) {
        char c = host.data[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '-' || c == '_' || c == '.' || (brackets && (c == ':' || c == '%'));
        if (!fine)
            return false;
        colon |= c == ':';
    }
    return colon == brackets;
}

bool mr_redis_address_parse(const char *text, size_t len, uint16_t default_port,
                            mr_redis_address *out)
{
    mr_str host = {text, len}, port = {NULL, 0};
    bool brackets = len && text[0] == '[', has_port = false;
    if (brackets) {
        const char *end = memchr(text, ']', len);
        if (!end)
            return false;
        host = (mr_str){text + 1, (size_t)(end - text) - 1};
        size_t rest = len - host.len - 2;
        if (rest && end[1] != ':')
            return false;
        has_port = rest > 0;
        if (has_port)
            port = (mr_str){end + 2, rest - 1};
    } else {
        const char *colon = len ? memchr(text, ':', len) : NULL;
        has_port = colon != NULL;
        if (colon) {
            host.len = (size_t)(colon - text);
            port = (mr_str){colon + 1, len - host.len - 1};
        }
    }
    unsigned long number = default_port;
    if (!is_host(host, brackets) || (has_port && !parse_number(port, 65535, &number)) ||
        number == 0)
        return false;
    memset(out, 0, sizeof *out);
    memcpy(out->host, host.data, host.len);
    out->port = (uint16_t)number;
    return true;
}

/* ---- parts ----------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* A percent-decoded copy, for free(). INVALID for a broken escape or a NUL. what is for messages,
 * which do not show the text. */
static mr_status decode(mr_str text, const char *what, char **out, mr_error *err)
{
    char *copy = malloc(text.len + 1);
    size_t n = 0;
    if (!copy)
        return MR_FAIL(err, NO_MEMORY, "no memory for a Redis URL");
    for (size_t i = 0; i < text.len; i++) {
        int c = (unsigned char)text.data[i];
        if (c == '%') {
            int high = i + 2 < text.len ? hex_digit(text.data[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(text.data[i + 2]) : -1;
            if (low < 0 || high * 16 + low == 0) {
                explicit_bzero(copy, n);
                free(copy);
                return MR_FAIL(err, INVALID,
                               "the %s in a Redis URL has a '%%' that is not followed by two hex "
                               "digits (other than 00); write %%25 for '%%'",
                               what);
            }
            c = high * 16 + low;
            i += 2;
        }
        copy[n++] = (char)c;
    }
    copy[n] = '\0';
    *out = copy;
    return MR_OK;
}

/* The URL with "***" where the password stands. */
static char *without_password(const char *text, const char *sign_in, size_t sign_in_len)
{
    const char *colon = sign_in ? memchr(sign_in, ':', sign_in_len) : NULL;
    size_t len = strlen(text);
    char *shown = malloc(len + 4);
    if (!shown)
        return NULL;
    if (!colon) {
        memcpy(shown, text, len + 1);
        return shown;
    }
    size_t before = (size_t)(colon - text) + 1;
    memcpy(shown, text, before);
    memcpy(shown + before, "***", 3);
    memcpy(shown + before + 3, sign_in + sign_in_len,
           len - (size_t)(sign_in + sign_in_len - text) + 1);
    return shown;
}

static mr_status take_sign_in(mr_str sign_in, mr_redis_url *out, mr_error *err)
{
    const char *colon = sign_in.len ? memchr(sign_in.data, ':', sign_in.len) : NULL;
    mr_str user = {sign_in.data, colon ? (size_t)(colon - sign_in.data) : sign_in.len};
    mr_status status = MR_OK;
    if (user.len)
        status = decode(user, "user", &out->user, err);
    if (status == MR_OK && colon && (size_t)(colon - sign_in.data) + 1 < sign_in.len)
        status = decode((mr_str){colon + 1, sign_in.len - user.len - 1}, "password", &out->password,
                        err);
    return status;
}

static mr_status take_database(mr_str text, mr_redis_url *out, mr_error *err)
{
    unsigned long number;
    if (!parse_number(text, MR_REDIS_MAX_DATABASE, &number))
        return MR_FAIL(err, INVALID, "'%s' names database '%.*s', expected a number from 0 to %d",
                       out->shown, MR_STR_ARG(text), MR_REDIS_MAX_DATABASE);
    out->database = (int)number;
    return MR_OK;
}

static mr_status take_addresses(mr_str list, const scheme_row *scheme, mr_redis_url *out,
                                mr_error *err)
{
    for (;;) {
        const char *comma = list.len ? memchr(list.data, ',', list.len) : NULL;
        mr_str one = {list.data, comma ? (size_t)(comma - list.data) : list.len};
        if (scheme->kind == MR_REDIS_SINGLE && comma)
            return MR_FAIL(err, INVALID,
                           "'%s' names several servers, expected one; several are for "
                           "redis+sentinel:// and redis+cluster://",
                           out->shown);
        if (out->n == MR_REDIS_MAX_SEEDS)
            return MR_FAIL(err, INVALID, "'%s' names more than %d servers", out->shown,
                           MR_REDIS_MAX_SEEDS);
        if (!mr_redis_address_parse(one.data, one.len, scheme->port, &out->address[out->n]))
            return MR_FAIL(err, INVALID,
                           "'%s': '%.*s' is no server; write HOST, HOST:PORT (1 to 65535), or "
                           "[IPV6]:PORT",
                           out->shown, MR_STR_ARG(one));
        out->n++;
        if (!comma)
            return MR_OK;
        list = (mr_str){comma + 1, list.len - one.len - 1};
    }
}

/* rest is what follows the sign-in part: PATH[?db=N]. */
static mr_status take_path(mr_str rest, mr_redis_url *out, mr_error *err)
{
    const char *query = rest.len ? memchr(rest.data, '?', rest.len) : NULL;
    mr_str path = {rest.data, query ? (size_t)(query - rest.data) : rest.len};
    char *decoded = NULL;
    if (query) {
        mr_str text = {query + 1, rest.len - path.len - 1};
        if (text.len < 3 || memcmp(text.data, "db=", 3) != 0)
            return MR_FAIL(err, INVALID, "'%s': only \"db=N\" may follow the '?'", out->shown);
        mr_status status = take_database((mr_str){text.data + 3, text.len - 3}, out, err);
        if (status != MR_OK)
            return status;
    }
    mr_status status = decode(path, "path", &decoded, err);
    if (status != MR_OK)
        return status;
    size_t len = strlen(decoded);
    if (len == 0 || len > MAX_SOCKET) {
        free(decoded);
        return MR_FAIL(
            err, INVALID,
            "'%s': the path of the socket is %zu bytes long, expected 1 to %d; write " FORM_UNIX,
            out->shown, len, MAX_SOCKET);
    }
    memcpy(out->address[0].host, decoded, len + 1);
    out->address[0].port = 0;
    out->n = 1;
    free(decoded);
    return MR_OK;
}

/* rest: HOSTS[/...]. */
static mr_status take_hosts(mr_str rest, const scheme_row *scheme, mr_redis_url *out, mr_error *err)
{
    const char *slash = rest.len ? memchr(rest.data, '/', rest.len) : NULL;
    mr_str hosts = {rest.data, slash ? (size_t)(slash - rest.data) : rest.len};
    mr_str tail = {slash ? slash + 1 : NULL, slash ? rest.len - hosts.len - 1 : 0};
    mr_status status = take_addresses(hosts, scheme, out, err);
    if (status != MR_OK)
        return status;
    if (scheme->kind == MR_REDIS_SENTINEL) {
        const char *second = tail.len ? memchr(tail.data, '/', tail.len) : NULL;
        mr_str name = {tail.data, second ? (size_t)(second - tail.data) : tail.len};
        if (name.len == 0)
            return MR_FAIL(
                err, INVALID,
                "'%s' does not name the master that the Sentinels watch; write " FORM_SENTINEL,
                out->shown);
        status = decode(name, "master's name", &out->master, err);
        if (status != MR_OK)
            return status;
        tail = second ? (mr_str){second + 1, tail.len - name.len - 1} : (mr_str){NULL, 0};
    }
    if (tail.len == 0)
        return MR_OK;
    if (scheme->kind == MR_REDIS_CLUSTER)
        return MR_FAIL(err, INVALID, "'%s': a cluster has no database numbers; write " FORM_CLUSTER,
                       out->shown);
    return take_database(tail, out, err);
}

mr_status mr_redis_url_parse(const char *text, mr_redis_url *out, mr_error *err)
{
    const scheme_row *scheme = scheme_of(text);
    size_t len = strlen(text);
    memset(out, 0, sizeof *out);
    if (!scheme)
        return MR_FAIL(err, INVALID,
                       "a Redis URL begins with redis://, rediss://, redis+unix:, "
                       "redis+sentinel:// or redis+cluster://");
    if (len > MAX_URL)
        return MR_FAIL(err, INVALID, "a Redis URL is %zu bytes long, expected at most %d", len,
                       MAX_URL);

    mr_str rest = {text + strlen(scheme->name), len - strlen(scheme->name)};
    bool authority = rest.len >= 2 && memcmp(rest.data, "//", 2) == 0;
    if (!authority && !scheme->path)
        return MR_FAIL(err, INVALID, "'%.*s' is not followed by \"//\"; write %s",
                       (int)strlen(scheme->name), scheme->name, scheme->form);
    mr_str sign_in = {NULL, 0};
    if (authority) {
        rest = (mr_str){rest.data + 2, rest.len - 2};
        /* The last '@': an unescaped one is the password's. A path that begins here has no sign-in.
         */
        for (size_t i = scheme->path && rest.len && rest.data[0] == '/' ? 0 : rest.len; i-- > 0;) {
            if (rest.data[i] != '@')
                continue;
            sign_in = (mr_str){rest.data, i};
            rest = (mr_str){rest.data + i + 1, rest.len - i - 1};
            break;
        }
    }
    out->kind = scheme->kind;
    out->tls = scheme->tls;
    out->shown = without_password(text, sign_in.data, sign_in.len);
    mr_status status = out->shown ? MR_OK : MR_FAIL(err, NO_MEMORY, "no memory for a Redis URL");
    if (status == MR_OK)
        status = take_sign_in(sign_in, out, err);
    if (status == MR_OK && scheme->path && authority && !sign_in.data &&
        (rest.len == 0 || rest.data[0] != '/'))
        status = MR_FAIL(err, INVALID,
                         "'%s': behind \"//\" comes a sign-in with an '@', or an absolute path "
                         "(redis+unix:///run/redis.sock)",
                         out->shown);
    if (status == MR_OK)
        status = scheme->path ? take_path(rest, out, err) : take_hosts(rest, scheme, out, err);
    if (status != MR_OK)
        mr_redis_url_free(out);
    return status;
}

static void wipe(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}

mr_status mr_redis_url_set_password(mr_redis_url *url, const char *password, mr_error *err)
{
    size_t len = strlen(password);
    char *copy = malloc(len + 1);
    if (!copy)
        return MR_FAIL(err, NO_MEMORY, "no memory for a Redis URL");
    memcpy(copy, password, len + 1);
    wipe(url->password);
    url->password = copy;
    return MR_OK;
}

void mr_redis_url_free(mr_redis_url *url)
{
    if (!url)
        return;
    free(url->user);
    wipe(url->password);
    free(url->master);
    free(url->shown);
    *url = (mr_redis_url){0};
}
