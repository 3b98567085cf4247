/* redis_node.c - see redis_node.h.
 *
 * A node is RESTING (until its timer connects it again), LOCATING, SIGNING_IN or READY. What its
 * connections say while they are made is redis_signin.c, what is asked and answered afterwards is
 * redis_queue.c; here is how a node begins, what ends it, and what the invalidation connection
 * brings.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/redis_node.h"

#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "featurestore/redis_node_private.h"

#define TICK_MS        50
#define PING_US        INT64_C(1000000) /* a silent connection is asked */
#define BACKOFF_MS     50
#define MAX_BACKOFF_MS 1000

/* ---- loss ------------------------------------------------------------------------------------ */

static void close_links(mr_redis_node *node)
{
    mr_redis_link_free(node->data);
    mr_redis_link_free(node->news);
    node->data = node->news = NULL;
}

static int64_t next_pause(mr_redis_node *node)
{
    int64_t pause = node->backoff_ms / 2 +
                    (int64_t)mr_rng_below(&node->rng, (uint64_t)node->backoff_ms / 2 + 1);
    node->backoff_ms =
        node->backoff_ms * 2 > MAX_BACKOFF_MS ? MAX_BACKOFF_MS : node->backoff_ms * 2;
    return pause;
}

static void node_lost(mr_redis_node *node, const mr_error *why, int64_t pause_ms)
{
    const mr_store_watcher *watcher = node->options.watcher;
    char text[MR_REDIS_ADDRESS_TEXT];
    if (node->state == RESTING)
        return;
    node->state = RESTING;
    node->why = *why;
    (void)mr_error_prefix(&node->why, why->status, "Redis at %s",
                          node->address.host[0] ? mr_redis_address_text(&node->address, text)
                                                : node->options.url->shown);
    close_links(node);
    mr_redis_signin_end(&node->signin);
    atomic_store(&node->shown_ready, false);
    atomic_store(&node->shown_tracks, false);
    if (node->tracks) {
        node->tracks = false;
        watcher->flush(watcher->context);
        watcher->tracking(watcher->context, false);
    }
    mr_redis_timer_arm(node->timer, pause_ms < 0 ? next_pause(node) : pause_ms);
    mr_redis_breaker_failed(node);
    mr_redis_queue_fail(node, &node->why);
    if (node->options.changed)
        node->options.changed(node->options.context, node, false, &node->why);
}

/* ---- replies --------------------------------------------------------------------------------- */

static void on_answer(mr_redis_node *node, mr_redis_reply *reply)
{
    mr_error why = {0};
    switch (mr_redis_queue_answer(node, reply, &why)) {
    case ANSWER_FINE: break;
    case ANSWER_ODD: node_lost(node, &why, -1); break;
    case ANSWER_DEMOTED:
        (void)MR_FAIL(&why, UNAVAILABLE, "the server is a replica now");
        node_lost(node, &why, 0);
        break;
    }
}

static void on_news(mr_redis_node *node, const mr_redis_value *value)
{
    const mr_store_watcher *watcher = node->options.watcher;
    mr_error why = {0};
    const mr_redis_value *kind =
        value->type == MR_REDIS_ARRAY && value->n ? value->element[0] : NULL;
    bool is_string = kind && kind->type == MR_REDIS_STRING;
    if (is_string && value->n == 2 && strcmp(kind->str, "pong") == 0)
        return;
    if (is_string && value->n == 3 && strcmp(kind->str, "message") == 0) {
        const mr_redis_value *keys = value->element[2];
        if (keys->type == MR_REDIS_NIL) {
            watcher->flush(watcher->context);
            return;
        }
        bool fine = keys->type == MR_REDIS_ARRAY;
        for (size_t i = 0; fine && i < keys->n; i++) {
            const mr_redis_value *key = keys->element[i];
            fine = key->type == MR_REDIS_STRING;
            if (fine)
                watcher->changed(watcher->context, (mr_bytes){key->str, key->len});
        }
        if (fine)
            return;
    }
    (void)MR_FAIL(&why, CORRUPT, "the invalidation connection brought an unknown message");
    node_lost(node, &why, -1);
}

static void on_data_reply(void *context, mr_redis_reply *reply)
{
    mr_redis_node *node = context;
    if (node->state == READY) {
        on_answer(node, reply);
        return;
    }
    mr_redis_signin_data(&node->signin, mr_redis_reply_value(reply));
    mr_redis_reply_free(reply);
}

static void on_news_reply(void *context, mr_redis_reply *reply)
{
    mr_redis_node *node = context;
    if (node->state == READY)
        on_news(node, mr_redis_reply_value(reply));
    else
        mr_redis_signin_news(&node->signin, mr_redis_reply_value(reply));
    mr_redis_reply_free(reply);
}

/* ---- making the connections ------------------------------------------------------------------ */

static void on_data_up(void *context)
{
    mr_redis_node *node = context;
    mr_redis_signin_data_up(&node->signin);
}

static void on_news_up(void *context)
{
    mr_redis_node *node = context;
    mr_redis_signin_news_up(&node->signin);
}

static void on_down(void *context, const mr_error *why)
{
    node_lost(context, why, -1);
}

static void on_signed_in(void *context, bool tracks)
{
    mr_redis_node *node = context;
    const mr_store_watcher *watcher = node->options.watcher;
    node->state = READY;
    mr_redis_timer_stop(node->timer);
    mr_redis_timer_arm(node->tick, TICK_MS);
    node->backoff_ms = BACKOFF_MS;
    if (node->was_ready)
        atomic_fetch_add(&node->reconnects, 1);
    node->was_ready = true;
    if (node->breaker.state == OPEN)
        mr_redis_breaker_set(node, HALF_OPEN);
    if (!tracks && node->news) {
        mr_redis_link_free(node->news);
        node->news = NULL;
    }
    atomic_store(&node->shown_ready, true);
    if (tracks) {
        node->tracks = true;
        atomic_store(&node->shown_tracks, true);
        watcher->flush(watcher->context); /* what was kept meanwhile is not followed */
        watcher->tracking(watcher->context, true);
    }
    if (node->options.changed)
        node->options.changed(node->options.context, node, true, NULL);
    mr_redis_queue_send_waiting(node);
}

static void on_refused(void *context, const mr_error *why)
{
    node_lost(context, why, -1);
}

static void begin_links(mr_redis_node *node)
{
    const mr_redis_link_handler data = {node, on_data_up, on_data_reply, on_down};
    const mr_redis_link_handler news = {node, on_news_up, on_news_reply, on_down};
    mr_error why = {0};
    node->state = SIGNING_IN;
    node->queue.head = node->queue.tail = 1;
    mr_redis_timer_arm(node->timer, node->options.connect_timeout_ms);
    mr_status status = mr_redis_link_open(&node->data, node->loop, &node->address,
                                          node->options.url->tls, &data, &why);
    if (status == MR_OK && node->options.watcher)
        status = mr_redis_link_open(&node->news, node->loop, &node->address, node->options.url->tls,
                                    &news, &why);
    if (status != MR_OK) {
        node_lost(node, &why, -1);
        return;
    }
    mr_redis_signin_begin(&node->signin, &(mr_redis_signin_options){
                                             .url = node->options.url,
                                             .data = node->data,
                                             .news = node->news,
                                             .must_be_master = node->options.must_be_master,
                                             .done = on_signed_in,
                                             .refused = on_refused,
                                             .context = node,
                                         });
}

static void node_connect(mr_redis_node *node)
{
    if (!node->options.locate) {
        begin_links(node);
        return;
    }
    node->state = LOCATING;
    node->options.locate(node->options.context, node);
}

void mr_redis_node_located(mr_redis_node *node, const mr_redis_address *address,
                           const mr_error *why)
{
    if (node->state != LOCATING)
        return;
    if (!address) {
        memset(&node->address, 0, sizeof node->address);
        node_lost(node, why, -1);
        return;
    }
    node->address = *address;
    begin_links(node);
}

static void on_timer(void *context)
{
    mr_redis_node *node = context;
    mr_error why = {0};
    if (node->state == RESTING) {
        node_connect(node);
    } else if (node->state == SIGNING_IN) {
        (void)MR_FAIL(&why, UNAVAILABLE, "no connection and sign-in within %lld ms%s",
                      (long long)node->options.connect_timeout_ms,
                      node->options.url->tls ? "; does the port speak TLS?" : "");
        node_lost(node, &why, -1);
    }
}

static void on_tick(void *context)
{
    static const char ping[] = "*1\r\n$4\r\nPING\r\n";
    mr_redis_node *node = context;
    int64_t now = mr_clock_monotonic_us();
    mr_error why = {0};
    mr_redis_timer_arm(node->tick, TICK_MS);
    mr_redis_queue_expire(node, now);
    if (node->state != READY)
        return;
    int64_t stall_us = node->options.stall_timeout_ms * 1000;
    int64_t heard = mr_redis_link_heard_us(node->data);
    if (node->queue.head < node->queue.tail) {
        int64_t sent = node->queue.places[node->queue.head & (node->queue.capacity - 1)].sent_us;
        if (now - (sent > heard ? sent : heard) > stall_us) {
            (void)MR_FAIL(&why, UNAVAILABLE, "silent for %lld ms with requests under way",
                          (long long)node->options.stall_timeout_ms);
            node_lost(node, &why, -1);
            return;
        }
    } else if (now - heard > PING_US && !mr_redis_queue_write(node, NULL, ping, sizeof ping - 1)) {
        return; /* the next tick may have the memory */
    }
    if (!node->news)
        return;
    heard = mr_redis_link_heard_us(node->news);
    if (now - heard > PING_US + stall_us) {
        (void)MR_FAIL(&why, UNAVAILABLE, "the invalidation connection is silent");
        node_lost(node, &why, -1);
    } else if (now - heard > PING_US && now - node->signin.pinged_us > PING_US) {
        node->signin.pinged_us = now;
        (void)mr_redis_link_send(node->news, ping, sizeof ping - 1);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

mr_status mr_redis_node_new(mr_redis_node **out, mr_redis_loop *loop,
                            const mr_redis_address *address, const mr_redis_node_options *options,
                            mr_error *err)
{
    mr_redis_node *node = calloc(1, sizeof *node);
    if (node) {
        node->timer = mr_redis_timer_new(loop, on_timer, node);
        node->tick = mr_redis_timer_new(loop, on_tick, node);
    }
    if (!node || !node->timer || !node->tick) {
        if (node) {
            mr_redis_timer_free(node->timer);
            mr_redis_timer_free(node->tick);
        }
        free(node);
        return MR_FAIL(err, NO_MEMORY, "no memory for a Redis server's connections");
    }
    node->loop = loop;
    node->options = *options;
    if (address)
        node->address = *address;
    node->backoff_ms = BACKOFF_MS;
    node->rng = mr_rng_seed((uint64_t)mr_clock_monotonic_us() ^ (uint64_t)(uintptr_t)node);
    node->queue.head = node->queue.tail = 1;
    *out = node; /* what is called back below may ask for it */
    mr_redis_timer_arm(node->tick, TICK_MS);
    mr_redis_timer_arm(node->timer, 0);
    return MR_OK;
}

void mr_redis_node_free(mr_redis_node *node)
{
    mr_error why = {0};
    if (!node)
        return;
    if (node->state == LOCATING && node->options.forget)
        node->options.forget(node->options.context, node);
    (void)MR_FAIL(&why, CANCELLED, "the connection to Redis was closed");
    node->state = RESTING;
    close_links(node);
    mr_redis_signin_end(&node->signin);
    mr_redis_breaker_set(node, OPEN); /* nothing waits on */
    mr_redis_queue_fail_all(node, &why);
    mr_redis_timer_free(node->timer);
    mr_redis_timer_free(node->tick);
    free(node->queue.places);
    free(node);
}

void mr_redis_node_restart(mr_redis_node *node, const mr_store_watcher *watcher,
                           const mr_error *why)
{
    if (node->state == LOCATING) { /* nothing to close; it will be made with the new watcher */
        node->options.watcher = watcher;
        return;
    }
    if (node->state != RESTING)
        node_lost(node, why, 0);
    node->options.watcher = watcher;
}

const mr_redis_address *mr_redis_node_address(const mr_redis_node *node)
{
    return &node->address;
}

bool mr_redis_node_is_ready(const mr_redis_node *node)
{
    return node->state == READY;
}

void mr_redis_node_health(const mr_redis_node *node, mr_store_health *out)
{
    /* Loads of what is not changed here. */
    mr_redis_node *shown = (mr_redis_node *)(uintptr_t)node;
    int state = atomic_load(&shown->shown_breaker);
    out->reconnects += atomic_load(&shown->reconnects);
    if (state > out->breaker)
        out->breaker = state;
    out->connected = out->connected && atomic_load(&shown->shown_ready);
    out->tracking = out->tracking && atomic_load(&shown->shown_tracks);
}
