/* redis_cluster.c - the router of a Redis Cluster: where a request goes, and when it has to wait.
 *
 * A request that cannot go now is held, and routed again every 20 to 40 ms, when the map comes and
 * when a node becomes ready: no map, a slot without a master, TRYAGAIN, CLUSTERDOWN, LOADING.
 * Patient ones (writes, walks) are held too while their node is away, since the map may soon name
 * another. A fetch goes to its node, whose breaker answers for it at once when it is known to be
 * gone, and costs only the keys of that node. A request may be sent twice here: a write replaces
 * smaller versions only, so that the second one does nothing.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "featurestore/redis_cluster.h"

#define RETRY_MS     20 /* to twice that */
#define MIN_STALL_MS 1000
#define MAX_HOPS     8
#define ASKING       "*1\r\n$6\r\nASKING\r\n"

static void route(mr_redis_router *self, mr_redis_request *request);

/* ---- requests that wait ---------------------------------------------------------------------- */

void mr_redis_cluster_retry(mr_redis_cluster *c, int64_t after_ms)
{
    if (c->is_closing)
        return;
    c->is_retry_armed = true;
    mr_redis_timer_arm(c->retry_timer, after_ms);
}

static void held_remove(mr_redis_cluster *c, mr_redis_command *command)
{
    command->previous->next = command->next;
    command->next->previous = command->previous;
    command->next = command->previous = NULL;
    c->n_held--;
}

static void hold(mr_redis_cluster *c, mr_redis_request *request)
{
    mr_redis_command *command = &request->command;
    if (c->n_held == MR_REDIS_MAX_COMMANDS) {
        mr_error err = {0};
        (void)MR_FAIL(&err, EXHAUSTED, "%zu requests wait for the cluster already", c->n_held);
        mr_redis_request_fail(request, &err);
        return;
    }
    command->previous = c->held.previous;
    command->next = &c->held;
    c->held.previous->next = command;
    c->held.previous = command;
    c->n_held++;
    if (!c->is_retry_armed)
        mr_redis_cluster_retry(c, RETRY_MS + (int64_t)mr_rng_below(&c->rng, RETRY_MS));
}

static void fail_late(mr_redis_cluster *c, mr_redis_request *request)
{
    mr_error err = c->why;
    if (err.status == MR_OK)
        (void)MR_FAIL(&err, TIMEOUT, "the cluster did not answer in time");
    mr_redis_request_fail(request, &err);
}

static void retry_held(void *context)
{
    mr_redis_cluster *c = context;
    int64_t now = mr_clock_monotonic_us();
    c->is_retry_armed = false;
    mr_redis_cluster_sweep(c);
    mr_redis_command *first = c->held.next, *last = c->held.previous;
    if (first == &c->held)
        return;
    /* All at once out of the ring: those that have to wait again come back into it. */
    last->next = NULL;
    c->held.next = c->held.previous = &c->held;
    c->n_held = 0;
    while (first) {
        mr_redis_command *command = first;
        first = command->next;
        command->next = command->previous = NULL;
        mr_redis_request *request = mr_redis_request_of(command);
        /* Those that the next time would be too late for: now there is a reason to give. */
        if (command->deadline_us <= now + 2 * RETRY_MS * 1000)
            fail_late(c, request);
        else
            route(&c->router, request);
    }
}

/* ---- where to -------------------------------------------------------------------------------- */

static void send_to(mr_redis_cluster *c, mr_redis_place *to, mr_redis_request *request)
{
    if (request->command.patient && !mr_redis_node_is_ready(to->node)) {
        hold(c, request);
        return;
    }
    request->router_data = to;
    mr_redis_node_send(to->node, &request->command);
}

static void fail_left(mr_redis_request *request)
{
    char text[MR_REDIS_ADDRESS_TEXT];
    mr_error err = {0};
    (void)MR_FAIL(&err, UNAVAILABLE, "Redis at %s is no master of the cluster any more",
                  mr_redis_address_text(request->at, text));
    mr_redis_request_fail(request, &err);
}

static mr_redis_place *any_ready(mr_redis_cluster *c)
{
    size_t from = c->n_places ? (size_t)mr_rng_below(&c->rng, c->n_places) : 0;
    for (size_t i = 0; i < c->n_places; i++) {
        mr_redis_place *p = c->places[(from + i) % c->n_places];
        if (p && p->is_owner && mr_redis_node_is_ready(p->node))
            return p;
    }
    return NULL;
}

static void route(mr_redis_router *self, mr_redis_request *request)
{
    mr_redis_cluster *c = (mr_redis_cluster *)self;
    mr_redis_place *to = NULL;
    if (request->at) {
        to = mr_redis_cluster_find(c, request->at, NULL);
        if (c->has_map && (!to || !to->is_owner)) {
            fail_left(request);
            return;
        }
    } else if (request->key.len == 0) {
        to = any_ready(c);
    } else if (c->has_map) {
        uint16_t owner = c->owner[mr_redis_slot(request->key)];
        to = owner == MR_REDIS_NO_NODE ? NULL : c->places[owner];
    }
    if (to) {
        send_to(c, to, request);
        return;
    }
    hold(c, request);
    mr_redis_cluster_refresh(c, MR_REDIS_CLUSTER_SOON);
}

/* ---- replies --------------------------------------------------------------------------------- */

/* ASKING goes before the request, in one piece; its own reply is skipped. */
static bool ask_first(mr_redis_request *request)
{
    const size_t ahead = sizeof ASKING - 1;
    mr_redis_command *command = &request->command;
    if (!request->own.data || command->wire != request->own.data + ahead) {
        size_t bytes;
        char *data = mr_size_add(ahead, command->wire_len, &bytes) ? malloc(bytes) : NULL;
        if (!data)
            return false;
        memcpy(data, ASKING, ahead);
        memcpy(data + ahead, command->wire, command->wire_len);
        mr_redis_wire_free(&request->own);
        request->own = (mr_redis_wire){data, bytes, bytes};
    }
    command->wire = request->own.data;
    command->wire_len = request->own.len;
    command->skip = 1;
    return true;
}

/* The request as it was before ask_first; its bytes stay in `own`. */
static void ask_no_more(mr_redis_request *request)
{
    mr_redis_command *command = &request->command;
    if (command->skip == 0)
        return;
    command->wire += sizeof ASKING - 1;
    command->wire_len -= sizeof ASKING - 1;
    command->skip = 0;
}

/* Servers that send us to each other do so until they agree: a moment later, from the start. */
static void redirect(mr_redis_cluster *c, mr_redis_request *request, mr_redis_redirect kind,
                     unsigned slot, const mr_redis_address *address)
{
    char text[MR_REDIS_ADDRESS_TEXT];
    uint16_t index;
    mr_error err = {0};
    mr_redis_place *to = NULL;
    if (request->hops++ >= MAX_HOPS)
        (void)MR_FAIL(&err, UNAVAILABLE,
                      "nodes of the cluster send slot %u to each other, last to %s", slot,
                      mr_redis_address_text(address, text));
    else
        to = mr_redis_cluster_make(c, address, &index, &err);
    if (to && kind == MR_REDIS_ASK && !ask_first(request)) {
        (void)MR_FAIL(&err, NO_MEMORY, "no memory to ask another node");
        to = NULL;
    }
    if (!to) {
        mr_redis_cluster_note(c, &err);
        request->hops = 0;
        hold(c, request);
        return;
    }
    to->used_us = mr_clock_monotonic_us();
    if (kind == MR_REDIS_MOVED) {
        mr_redis_cluster_set_owner(c, slot, index);
        mr_redis_cluster_refresh(c, MR_REDIS_CLUSTER_NOW);
        send_to(c, to, request);
        return;
    }
    /* Not held when the node is not ready: the place to ask is forgotten there. */
    request->router_data = to;
    mr_redis_node_send(to->node, &request->command);
}

static bool is_passing(const mr_redis_value *value)
{
    return mr_redis_is_error(value, "TRYAGAIN") || mr_redis_is_error(value, "CLUSTERDOWN") ||
           mr_redis_is_error(value, "LOADING") || mr_redis_is_error(value, "MASTERDOWN");
}

static bool ended(mr_redis_router *self, mr_redis_request *request, mr_redis_reply *reply,
                  const mr_error *why)
{
    mr_redis_cluster *c = (mr_redis_cluster *)self;
    mr_error err = {0};
    ask_no_more(request);
    if (c->is_closing)
        return false;
    if (!reply) {
        /* Cancelled: the node left the map. Lost: a patient one may find the next master. */
        if (why->status == MR_UNAVAILABLE)
            mr_redis_cluster_refresh(c, MR_REDIS_CLUSTER_NOW);
        if (why->status != MR_CANCELLED &&
            (why->status != MR_UNAVAILABLE || !request->command.patient))
            return false;
        hold(c, request);
        return true;
    }

    const mr_redis_value *value = mr_redis_reply_value(reply);
    if (value->type != MR_REDIS_ERROR)
        return false;
    if (is_passing(value) && !request->at) {
        (void)MR_FAIL(&err, UNAVAILABLE, "the cluster says: %.200s", value->str);
        mr_redis_cluster_note(c, &err);
        mr_redis_reply_free(reply);
        mr_redis_cluster_refresh(c, MR_REDIS_CLUSTER_SOON);
        hold(c, request);
        return true;
    }
    unsigned slot;
    mr_redis_address to;
    const mr_redis_place *from = request->router_data; /* it lives: it has just answered */
    mr_redis_redirect kind =
        mr_redis_redirect_read(value, mr_redis_node_address(from->node), &slot, &to);
    if (kind == MR_REDIS_NO_REDIRECT || request->at)
        return false;
    mr_redis_reply_free(reply);
    redirect(c, request, kind, slot, &to);
    return true;
}

static void abandon(mr_redis_router *self, mr_redis_request *request)
{
    mr_redis_cluster *c = (mr_redis_cluster *)self;
    if (!request->command.node && request->command.next) {
        held_remove(c, &request->command);
        fail_late(c, request);
    }
}

/* ---- what other threads ask ------------------------------------------------------------------ */

/* With a map, a master that does not become ready costs its own keys only: no reason to fail. */
static mr_status wait_ready(mr_redis_router *self, int64_t deadline_us, mr_error *err)
{
    mr_redis_cluster *c = (mr_redis_cluster *)self;
    mr_status status = MR_OK;
    struct timespec end = {deadline_us / 1000000, (long)(deadline_us % 1000000) * 1000};
    pthread_mutex_lock(&c->lock);
    while (!c->is_well && !c->is_hopeless && c->why.status != MR_UNSUPPORTED) {
        if (pthread_cond_timedwait(&c->changed, &c->lock, &end) == ETIMEDOUT)
            break;
    }
    if (!c->has_map && c->why.status == MR_OK) {
        status = MR_FAIL(err, UNAVAILABLE, "no node of %s answers", c->url->shown);
    } else if (!c->has_map) {
        status = c->why.status;
        if (err)
            *err = c->why;
    }
    pthread_mutex_unlock(&c->lock);
    return status;
}

static mr_status servers(mr_redis_router *self, mr_redis_address *out, size_t capacity, size_t *n,
                         mr_error *err)
{
    mr_redis_cluster *c = (mr_redis_cluster *)self;
    mr_status status = MR_OK;
    size_t count = 0;
    pthread_mutex_lock(&c->lock);
    if (!c->has_map || c->covered < MR_REDIS_SLOTS) {
        status = MR_FAIL(err, UNAVAILABLE, "%zu of %d slots of %s have no master%s%.300s",
                         MR_REDIS_SLOTS - c->covered, MR_REDIS_SLOTS, c->url->shown,
                         c->why.status ? ": " : "", c->why.message);
    }
    for (size_t i = 0; status == MR_OK && i < c->n_places; i++) {
        if (!c->places[i] || !c->places[i]->is_owner)
            continue;
        if (count < capacity)
            out[count] = *mr_redis_node_address(c->places[i]->node);
        count++;
    }
    pthread_mutex_unlock(&c->lock);
    if (status == MR_OK)
        *n = count;
    return status;
}

/* A seed that owns nothing does not make the store "not connected". */
static void health(mr_redis_router *self, mr_store_health *out)
{
    mr_redis_cluster *c = (mr_redis_cluster *)self;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->n_places; i++) {
        if (!c->places[i])
            continue;
        mr_store_health one = {.connected = true, .tracking = true};
        mr_redis_node_health(c->places[i]->node, &one);
        out->reconnects += one.reconnects;
        out->failures += one.failures;
        if (c->places[i]->is_owner || !c->has_map) {
            out->connected &= one.connected;
            out->breaker = one.breaker > out->breaker ? one.breaker : out->breaker;
        }
    }
    out->reconnects += c->gone.reconnects;
    out->failures += c->gone.failures;
    out->connected &= c->has_map && c->covered == MR_REDIS_SLOTS;
    out->tracking = false; /* the soft age of a cache rules */
    pthread_mutex_unlock(&c->lock);
}

/* ---- open and close -------------------------------------------------------------------------- */

static void cluster_close(mr_redis_router *self)
{
    mr_redis_cluster *c = (mr_redis_cluster *)self;
    c->is_closing = true;
    for (size_t i = 0; i < c->n_places; i++) {
        if (c->places[i])
            mr_redis_node_free(c->places[i]->node);
        free(c->places[i]);
    }
    mr_redis_timer_free(c->refresh_timer);
    mr_redis_timer_free(c->retry_timer);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c->scratch);
    free(c);
}

static void cluster_start(void *context)
{
    mr_redis_cluster *c = context;
    c->refresh_timer = mr_redis_timer_new(c->router.loop, mr_redis_cluster_refresh_timer, c);
    c->retry_timer = mr_redis_timer_new(c->router.loop, retry_held, c);
    if (!c->refresh_timer || !c->retry_timer)
        return;
    for (size_t i = 0; i < c->url->n; i++)
        mr_redis_cluster_try_seed(c);
    mr_redis_cluster_refresh(c, MR_REDIS_CLUSTER_SOON);
}

static void close_on_loop(void *context)
{
    cluster_close(context);
}

mr_status mr_redis_cluster_open(mr_redis_router **out, mr_redis_loop *loop, const mr_redis_url *url,
                                const mr_store_options *options, mr_error *err)
{
    pthread_condattr_t monotonic;
    mr_redis_cluster *c = calloc(1, sizeof *c);
    mr_redis_slot_map *scratch = malloc(sizeof *scratch);
    if (!c || !scratch) {
        free(c);
        free(scratch);
        return MR_FAIL(err, NO_MEMORY, "no memory for the map of a redis cluster");
    }
    c->router = (mr_redis_router){
        .loop = loop,
        .one_key = true,
        .route = route,
        .ended = ended,
        .abandon = abandon,
        .wait_ready = wait_ready,
        .servers = servers,
        .health = health,
        .watch = NULL,
        .close = cluster_close,
    };
    c->url = url;
    c->node_options = (mr_redis_node_options){
        .url = url,
        .connect_timeout_ms = options->connect_timeout_ms,
        .stall_timeout_ms =
            options->connect_timeout_ms > MIN_STALL_MS ? options->connect_timeout_ms : MIN_STALL_MS,
        .changed = mr_redis_cluster_node_changed,
        .context = c,
    };
    c->scratch = scratch;
    c->rng = mr_rng_seed((uint64_t)mr_clock_monotonic_us() ^ (uint64_t)(uintptr_t)c);
    c->held.next = c->held.previous = &c->held;
    for (size_t slot = 0; slot < MR_REDIS_SLOTS; slot++)
        c->owner[slot] = MR_REDIS_NO_NODE;
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);

    mr_redis_loop_call(loop, cluster_start, c);
    if (!c->refresh_timer || !c->retry_timer) {
        mr_redis_loop_call(loop, close_on_loop, c);
        return MR_FAIL(err, NO_MEMORY, "no memory for the timers of a redis cluster");
    }
    *out = &c->router;
    return MR_OK;
}
