/* redis_signin.c - see redis_signin.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/redis_signin.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NEWS_CHANNEL "__redis__:invalidate"

enum { AUTH, NAME, SELECT, ROLE, PING, ID, SUBSCRIBE, TRACKING };

static void refused(mr_redis_signin *signin, const mr_error *why)
{
    signin->active = false;
    signin->options.refused(signin->options.context, why);
}

void mr_redis_signin_begin(mr_redis_signin *signin, const mr_redis_signin_options *options)
{
    *signin = (mr_redis_signin){.options = *options, .active = true};
    signin->no_tracking = options->news == NULL;
    signin->news.done = options->news == NULL;
}

void mr_redis_signin_end(mr_redis_signin *signin)
{
    signin->active = false;
}

static mr_bytes text_bytes(const char *text)
{
    return (mr_bytes){text, strlen(text)};
}

static bool add(mr_redis_wire *wire, const char *a, const char *b, const char *c)
{
    mr_bytes args[3] = {text_bytes(a)};
    size_t n = 1;
    if (b)
        args[n++] = text_bytes(b);
    if (c)
        args[n++] = text_bytes(c);
    return mr_redis_wire_add(wire, args, n);
}

static bool add_auth(mr_redis_wire *wire, const mr_redis_url *url)
{
    const char *password = url->password ? url->password : "";
    return url->user ? add(wire, "AUTH", url->user, password) : add(wire, "AUTH", password, NULL);
}

static void send_all(mr_redis_signin *signin, mr_redis_link *link, mr_redis_wire *wire, bool fine)
{
    mr_error why = {0};
    fine = fine && mr_redis_link_send(link, wire->data, wire->len);
    mr_redis_wire_free(wire);
    if (!fine) {
        (void)MR_FAIL(&why, NO_MEMORY, "no memory to sign in");
        refused(signin, &why);
    }
}

void mr_redis_signin_data_up(mr_redis_signin *signin)
{
    const mr_redis_url *url = signin->options.url;
    mr_redis_wire wire = {0};
    char number[16];
    bool fine = true;
    if (!signin->active)
        return;
    if (url->user || url->password) {
        signin->data.step[signin->data.n++] = AUTH;
        fine = fine && add_auth(&wire, url);
    }
    signin->data.step[signin->data.n++] = NAME;
    fine = fine && add(&wire, "CLIENT", "SETNAME", "mixrank");
    if (url->database) {
        signin->data.step[signin->data.n++] = SELECT;
        snprintf(number, sizeof number, "%d", url->database);
        fine = fine && add(&wire, "SELECT", number, NULL);
    }
    if (signin->options.must_be_master) {
        signin->data.step[signin->data.n++] = ROLE;
        fine = fine && add(&wire, "ROLE", NULL, NULL);
    }
    signin->data.step[signin->data.n++] = PING;
    fine = fine && add(&wire, "PING", NULL, NULL);
    send_all(signin, signin->options.data, &wire, fine);
}

void mr_redis_signin_news_up(mr_redis_signin *signin)
{
    const mr_redis_url *url = signin->options.url;
    mr_redis_wire wire = {0};
    bool fine = true;
    if (!signin->active)
        return;
    if (url->user || url->password) {
        signin->news.step[signin->news.n++] = AUTH;
        fine = fine && add_auth(&wire, url);
    }
    signin->news.step[signin->news.n++] = NAME;
    fine = fine && add(&wire, "CLIENT", "SETNAME", "mixrank-news");
    signin->news.step[signin->news.n++] = ID;
    fine = fine && add(&wire, "CLIENT", "ID", NULL);
    signin->news.step[signin->news.n++] = SUBSCRIBE;
    fine = fine && add(&wire, "SUBSCRIBE", NEWS_CHANNEL, NULL);
    send_all(signin, signin->options.news, &wire, fine);
}

static void maybe_done(mr_redis_signin *signin)
{
    if (!signin->data.done || !signin->news.done)
        return;
    if (signin->no_tracking) {
        signin->active = false;
        signin->options.done(signin->options.context, false);
        return;
    }
    char id[24];
    snprintf(id, sizeof id, "%" PRId64, signin->news_id);
    const mr_bytes args[] = {text_bytes("CLIENT"), text_bytes("TRACKING"), text_bytes("ON"),
                             text_bytes("REDIRECT"), text_bytes(id)};
    mr_redis_wire wire = {0};
    signin->data.done = false;
    signin->data.step[0] = TRACKING;
    signin->data.n = 1;
    signin->data.next = 0;
    bool fine = mr_redis_wire_add(&wire, args, sizeof args / sizeof *args);
    send_all(signin, signin->options.data, &wire, fine);
}

static bool is_text(const mr_redis_value *value, const char *text)
{
    return (value->type == MR_REDIS_STATUS || value->type == MR_REDIS_STRING) &&
           strcmp(value->str, text) == 0;
}

static void refuse_auth(const mr_redis_signin *signin, const mr_redis_value *value, mr_error *why)
{
    const char *user = signin->options.url->user, *password = signin->options.url->password;
    /* "unknown command 'AUTH', with args ...": some servers and proxies say what they were told. */
    if (value->type == MR_REDIS_ERROR && password && *password && strstr(value->str, password))
        (void)MR_FAIL(why, IO, "the server does not know AUTH; is it Redis 6 or newer?");
    else if (value->type != MR_REDIS_ERROR)
        (void)MR_FAIL(why, CORRUPT, "the answer to AUTH is of type %s",
                      mr_redis_type_name(value->type));
    else if (mr_redis_is_error(value, "WRONGPASS") || mr_redis_is_error(value, "NOAUTH") ||
             mr_redis_is_error(value, "ERR"))
        (void)MR_FAIL(why, IO,
                      "user '%.100s' is not let in (%.150s); check the user and the password of "
                      "the store's URL or options",
                      user ? user : "default", value->str);
    else
        (void)MR_FAIL(why, UNAVAILABLE, "signing in failed: %.200s", value->str);
}

/* Checks the reply of one step of the data connection. False: *why says. */
static bool check_data(mr_redis_signin *signin, int step, const mr_redis_value *value,
                       mr_error *why)
{
    const mr_redis_url *url = signin->options.url;
    bool error = value->type == MR_REDIS_ERROR;
    switch (step) {
    case AUTH:
        if (is_text(value, "OK"))
            return true;
        refuse_auth(signin, value, why);
        return false;
    case NAME: return true;
    case SELECT:
        if (is_text(value, "OK"))
            return true;
        if (error && !mr_redis_is_error(value, "LOADING"))
            (void)MR_FAIL(why, IO, "database %d cannot be used: %.200s", url->database, value->str);
        else
            (void)MR_FAIL(why, UNAVAILABLE, "database %d cannot be used yet: %.200s", url->database,
                          error ? value->str : mr_redis_type_name(value->type));
        return false;
    case ROLE:
        if (mr_redis_is_error(value, "NOPERM"))
            return true; /* the Sentinel's word must do */
        if (value->type == MR_REDIS_ARRAY && value->n && is_text(value->element[0], "master"))
            return true;
        (void)MR_FAIL(why, UNAVAILABLE, "the server is no master (%.100s); asking again",
                      error ? value->str
                      : value->type == MR_REDIS_ARRAY && value->n &&
                              value->element[0]->type == MR_REDIS_STRING
                          ? value->element[0]->str
                          : mr_redis_type_name(value->type));
        return false;
    case PING:
        if (is_text(value, "PONG") || mr_redis_is_error(value, "NOPERM"))
            return true;
        if (mr_redis_is_error(value, "NOAUTH"))
            (void)MR_FAIL(why, IO,
                          "the server wants a password (%.100s); write it into the store's URL, "
                          "redis://USER:PASSWORD@HOST, or its options",
                          value->str);
        else
            (void)MR_FAIL(why, UNAVAILABLE, "the server does not serve yet: %.200s",
                          error ? value->str : mr_redis_type_name(value->type));
        return false;
    default: return true;
    }
}

/* What nobody has asked for: an error that the server sends before it closes the connection. */
static bool is_turned_away(mr_redis_signin *signin, bool asked, const mr_redis_value *value)
{
    mr_error why = {0};
    bool full = value->type == MR_REDIS_ERROR && strstr(value->str, "max number of clients");
    if (asked && !full)
        return false;
    (void)MR_FAIL(&why, UNAVAILABLE, "the server said %.200s",
                  value->type == MR_REDIS_ERROR ? value->str : "what nobody had asked for");
    refused(signin, &why);
    return true;
}

void mr_redis_signin_data(mr_redis_signin *signin, const mr_redis_value *value)
{
    mr_error why = {0};
    if (!signin->active)
        return;
    if (is_turned_away(signin, signin->data.next < signin->data.n, value))
        return;
    int step = signin->data.step[signin->data.next];
    if (step == TRACKING) {
        /* NOPERM, or a server older than 6: work without. */
        signin->active = false;
        signin->options.done(signin->options.context, is_text(value, "OK"));
        return;
    }
    if (!check_data(signin, step, value, &why)) {
        refused(signin, &why);
        return;
    }
    if (++signin->data.next == signin->data.n) {
        signin->data.done = true;
        maybe_done(signin);
    }
}

void mr_redis_signin_news(mr_redis_signin *signin, const mr_redis_value *value)
{
    mr_error why = {0};
    if (!signin->active)
        return;
    if (is_turned_away(signin, signin->news.next < signin->news.n, value))
        return;
    switch (signin->news.step[signin->news.next]) {
    case AUTH:
        if (!is_text(value, "OK")) {
            refuse_auth(signin, value, &why);
            refused(signin, &why);
            return;
        }
        break;
    case ID:
        if (value->type == MR_REDIS_INTEGER)
            signin->news_id = value->integer;
        else
            signin->no_tracking = true;
        break;
    case SUBSCRIBE:
        if (value->type != MR_REDIS_ARRAY)
            signin->no_tracking = true;
        break;
    default: break;
    }
    if (++signin->news.next == signin->news.n) {
        signin->news.done = true;
        maybe_done(signin);
    }
}
