/* redis_sentinel.c - see redis_sentinel.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/redis_sentinel.h"

#include <stdlib.h>
#include <string.h>

#include "featurestore/redis_link.h"

#define MAX_WAIT_MS 500 /* for one Sentinel */

struct mr_redis_sentinel {
    mr_redis_loop *loop;
    const mr_redis_url *url;
    int64_t timeout_ms;
    mr_redis_timer *timer; /* made with the first question: events belong to the loop thread */
    mr_redis_link *link;
    mr_redis_node *node; /* that asked; NULL: nobody */
    size_t at, left;     /* the Sentinel that is asked, and how many more may be */
    bool auth_sent, skip_auth_reply;
    mr_error why;
};

static void ask_one(mr_redis_sentinel *sentinel);

mr_status mr_redis_sentinel_new(mr_redis_sentinel **out, mr_redis_loop *loop,
                                const mr_redis_url *url, int64_t timeout_ms, mr_error *err)
{
    mr_redis_sentinel *sentinel = calloc(1, sizeof *sentinel);
    if (!sentinel)
        return MR_FAIL(err, NO_MEMORY, "no memory to ask Sentinels");
    sentinel->loop = loop;
    sentinel->url = url;
    sentinel->timeout_ms = timeout_ms < MAX_WAIT_MS ? timeout_ms : MAX_WAIT_MS;
    *out = sentinel;
    return MR_OK;
}

void mr_redis_sentinel_stop(mr_redis_sentinel *sentinel)
{
    sentinel->node = NULL;
    mr_redis_link_free(sentinel->link);
    sentinel->link = NULL;
    if (sentinel->timer)
        mr_redis_timer_stop(sentinel->timer);
}

void mr_redis_sentinel_free(mr_redis_sentinel *sentinel)
{
    if (!sentinel)
        return;
    mr_redis_sentinel_stop(sentinel);
    mr_redis_timer_free(sentinel->timer);
    free(sentinel);
}

/* ---- answers --------------------------------------------------------------------------------- */

static void answer(mr_redis_sentinel *sentinel, const mr_redis_address *address)
{
    mr_redis_node *node = sentinel->node;
    sentinel->at = (sentinel->at + 1) % sentinel->url->n; /* should the answer be old news */
    mr_redis_sentinel_stop(sentinel);
    mr_redis_node_located(node, address, &sentinel->why);
}

static void try_next(mr_redis_sentinel *sentinel, const mr_error *why)
{
    char text[MR_REDIS_ADDRESS_TEXT];
    sentinel->why = *why;
    (void)mr_error_prefix(&sentinel->why, why->status, "the Sentinel at %s",
                          mr_redis_address_text(&sentinel->url->address[sentinel->at], text));
    mr_redis_link_free(sentinel->link);
    sentinel->link = NULL;
    sentinel->at = (sentinel->at + 1) % sentinel->url->n;
    if (--sentinel->left)
        ask_one(sentinel);
    else
        answer(sentinel, NULL);
}

static bool send_args(mr_redis_sentinel *sentinel, const char *const *text, size_t n)
{
    mr_redis_wire wire = {0};
    mr_bytes args[4];
    for (size_t i = 0; i < n; i++)
        args[i] = (mr_bytes){text[i], strlen(text[i])};
    bool fine = mr_redis_wire_add(&wire, args, n) &&
                mr_redis_link_send(sentinel->link, wire.data, wire.len);
    mr_redis_wire_free(&wire);
    return fine;
}

static bool send_question(mr_redis_sentinel *sentinel)
{
    const char *const question[] = {"SENTINEL", "get-master-addr-by-name", sentinel->url->master};
    return send_args(sentinel, question, 3);
}

static bool send_auth(mr_redis_sentinel *sentinel)
{
    const mr_redis_url *url = sentinel->url;
    const char *password = url->password ? url->password : "";
    const char *const both[] = {"AUTH", url->user, password}, *const one[] = {"AUTH", password};
    sentinel->auth_sent = sentinel->skip_auth_reply = true;
    return url->user ? send_args(sentinel, both, 3) : send_args(sentinel, one, 2);
}

/* ip and port, as strings. */
static bool read_address(const mr_redis_value *value, mr_redis_address *out)
{
    char text[MR_REDIS_ADDRESS_TEXT];
    if (value->n != 2 || value->element[0]->type != MR_REDIS_STRING ||
        value->element[1]->type != MR_REDIS_STRING || value->element[0]->len > MR_REDIS_MAX_HOST ||
        value->element[1]->len > 5)
        return false;
    bool v6 = memchr(value->element[0]->str, ':', value->element[0]->len) != NULL;
    int len = snprintf(text, sizeof text, v6 ? "[%s]:%s" : "%s:%s", value->element[0]->str,
                       value->element[1]->str);
    return len > 0 && (size_t)len < sizeof text &&
           mr_redis_address_parse(text, (size_t)len, MR_REDIS_PORT, out);
}

static void on_reply(void *context, mr_redis_reply *reply)
{
    mr_redis_sentinel *sentinel = context;
    const mr_redis_value *value = mr_redis_reply_value(reply);
    mr_redis_address address;
    mr_error why = {0};
    if (sentinel->skip_auth_reply && value->type != MR_REDIS_ERROR) {
        sentinel->skip_auth_reply = false;
        mr_redis_reply_free(reply);
        return;
    }
    if (mr_redis_is_error(value, "NOAUTH") && !sentinel->auth_sent &&
        (sentinel->url->user || sentinel->url->password)) {
        mr_redis_reply_free(reply);
        if (send_auth(sentinel) && send_question(sentinel))
            return;
        (void)MR_FAIL(&why, NO_MEMORY, "no memory to ask");
        try_next(sentinel, &why);
        return;
    }
    if (value->type == MR_REDIS_ARRAY && read_address(value, &address)) {
        mr_redis_reply_free(reply);
        answer(sentinel, &address);
        return;
    }
    if (value->type == MR_REDIS_NIL)
        (void)MR_FAIL(&why, UNAVAILABLE, "it watches no master '%.100s'", sentinel->url->master);
    else if (value->type == MR_REDIS_ERROR)
        (void)MR_FAIL(&why, UNAVAILABLE, "it said %.200s", value->str);
    else
        (void)MR_FAIL(&why, CORRUPT, "it named no address, but sent a %s",
                      mr_redis_type_name(value->type));
    mr_redis_reply_free(reply);
    try_next(sentinel, &why);
}

static void on_up(void *context)
{
    mr_redis_sentinel *sentinel = context;
    mr_error why = {0};
    if (send_question(sentinel))
        return;
    (void)MR_FAIL(&why, NO_MEMORY, "no memory to ask");
    try_next(sentinel, &why);
}

static void on_down(void *context, const mr_error *why)
{
    try_next(context, why);
}

static void on_timer(void *context)
{
    mr_redis_sentinel *sentinel = context;
    mr_error why = {0};
    (void)MR_FAIL(&why, UNAVAILABLE, "it did not answer within %lld ms",
                  (long long)sentinel->timeout_ms);
    try_next(sentinel, &why);
}

/* ---- questions ------------------------------------------------------------------------------- */

static void ask_one(mr_redis_sentinel *sentinel)
{
    const mr_redis_link_handler handler = {sentinel, on_up, on_reply, on_down};
    mr_error why = {0};
    sentinel->auth_sent = sentinel->skip_auth_reply = false;
    mr_redis_timer_arm(sentinel->timer, sentinel->timeout_ms);
    if (mr_redis_link_open(&sentinel->link, sentinel->loop, &sentinel->url->address[sentinel->at],
                           sentinel->url->tls, &handler, &why) != MR_OK) {
        sentinel->why = why;
        answer(sentinel, NULL);
    }
}

void mr_redis_sentinel_ask(mr_redis_sentinel *sentinel, mr_redis_node *node)
{
    sentinel->node = node;
    sentinel->left = sentinel->url->n;
    if (!sentinel->timer)
        sentinel->timer = mr_redis_timer_new(sentinel->loop, on_timer, sentinel);
    if (!sentinel->timer) {
        (void)MR_FAIL(&sentinel->why, NO_MEMORY, "no memory to ask a Sentinel");
        answer(sentinel, NULL);
        return;
    }
    ask_one(sentinel);
}
