/* redis_cluster_map.c - the nodes of a Redis Cluster and the map of its slots, kept up to date.
 *
 * The map comes from CLUSTER SLOTS, of any node that is ready, another one each time: a node that
 * is cut off from the others tells an old map, and is not asked twice in a row. It is asked for
 * every half a minute (with jitter), after a MOVED, when a node is lost, and four times a second
 * until every slot has a master that answers: a cluster takes a second or more to replace a master,
 * so that the answer to a loss is to keep asking, not to ask once.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "featurestore/redis_cluster.h"

#define REFRESH_MS      30000 /* spread by a fifth to both sides */
#define LEAST_MS        50    /* between two refreshes, whatever happens */
#define KEPT_US         INT64_C(60000000)
#define REFRESH_COMMAND "*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n"

void mr_redis_cluster_note(mr_redis_cluster *c, const mr_error *why)
{
    pthread_mutex_lock(&c->lock);
    c->why = *why;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

/* ---- nodes ----------------------------------------------------------------------------------- */

mr_redis_place *mr_redis_cluster_find(mr_redis_cluster *c, const mr_redis_address *address,
                                      uint16_t *index)
{
    for (size_t i = 0; i < c->n_places; i++) {
        mr_redis_place *p = c->places[i];
        if (p && mr_redis_address_equal(mr_redis_node_address(p->node), address)) {
            if (index)
                *index = (uint16_t)i;
            return p;
        }
    }
    return NULL;
}

mr_redis_place *mr_redis_cluster_make(mr_redis_cluster *c, const mr_redis_address *address,
                                      uint16_t *index, mr_error *err)
{
    mr_redis_place *p = mr_redis_cluster_find(c, address, index);
    size_t i = 0;
    if (p)
        return p;
    while (i < c->n_places && c->places[i])
        i++;
    if (i == MR_REDIS_MAX_NODES) {
        (void)MR_FAIL(err, EXHAUSTED, "the cluster has more than %d nodes", MR_REDIS_MAX_NODES);
        return NULL;
    }
    if (!(p = calloc(1, sizeof *p))) {
        (void)MR_FAIL(err, NO_MEMORY, "no memory for a node of the cluster");
        return NULL;
    }
    if (mr_redis_node_new(&p->node, c->router.loop, address, &c->node_options, err) != MR_OK) {
        free(p);
        return NULL;
    }
    p->used_us = mr_clock_monotonic_us();
    pthread_mutex_lock(&c->lock);
    c->places[i] = p;
    if (i == c->n_places)
        c->n_places++;
    pthread_mutex_unlock(&c->lock);
    if (index)
        *index = (uint16_t)i;
    return p;
}

static void place_free(mr_redis_cluster *c, size_t i)
{
    mr_redis_place *p = c->places[i];
    mr_store_health counted = {.connected = true};
    pthread_mutex_lock(&c->lock);
    c->places[i] = NULL;
    mr_redis_node_health(p->node, &counted);
    c->gone.reconnects += counted.reconnects;
    c->gone.failures += counted.failures;
    pthread_mutex_unlock(&c->lock);
    mr_redis_node_free(p->node); /* its commands come back as cancelled, and are routed again */
    free(p);
}

void mr_redis_cluster_sweep(mr_redis_cluster *c)
{
    int64_t now = mr_clock_monotonic_us();
    for (size_t i = 0; c->has_map && i < c->n_places; i++) {
        mr_redis_place *p = c->places[i];
        bool is_asked = p && c->is_refreshing &&
                        mr_redis_address_equal(&c->refresh_from, mr_redis_node_address(p->node));
        if (p && !p->is_owner && !is_asked && now - p->used_us > KEPT_US)
            place_free(c, i);
    }
}

/* What other threads are told, after a node or the map changed. */
static void judge(mr_redis_cluster *c)
{
    pthread_mutex_lock(&c->lock);
    c->is_well = c->has_map && c->covered == MR_REDIS_SLOTS;
    c->is_hopeless = !c->has_map && c->n_places > 0;
    for (size_t i = 0; i < c->n_places; i++) {
        const mr_redis_place *p = c->places[i];
        c->is_well &= !p || !p->is_owner || mr_redis_node_is_ready(p->node);
        c->is_hopeless &= !p || p->has_failed;
    }
    if (c->is_well)
        c->why = (mr_error){0};
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

void mr_redis_cluster_node_changed(void *context, mr_redis_node *node, bool is_ready,
                                   const mr_error *why)
{
    mr_redis_cluster *c = context;
    if (c->is_closing)
        return;
    for (size_t i = 0; i < c->n_places; i++) {
        if (c->places[i] && c->places[i]->node == node)
            c->places[i]->has_failed = !is_ready && why && !strstr(why->message, "LOADING");
    }
    if (!is_ready && why)
        mr_redis_cluster_note(c, why);
    judge(c);
    if (is_ready)
        mr_redis_cluster_retry(c, 0);
    if (!is_ready || !c->has_map)
        mr_redis_cluster_refresh(c, MR_REDIS_CLUSTER_NOW);
}

/* ---- the map --------------------------------------------------------------------------------- */

static bool owns(mr_redis_cluster *c, unsigned slot, uint16_t index)
{
    if (c->owner[slot] == MR_REDIS_NO_NODE && index != MR_REDIS_NO_NODE)
        c->covered++;
    c->owner[slot] = index;
    if (index == MR_REDIS_NO_NODE)
        return false;
    c->places[index]->is_owner = true;
    return true;
}

/* The slot's old master counts as an owner until the next map says what it has. */
void mr_redis_cluster_set_owner(mr_redis_cluster *c, unsigned slot, uint16_t index)
{
    pthread_mutex_lock(&c->lock);
    (void)owns(c, slot, index);
    pthread_mutex_unlock(&c->lock);
}

static mr_status install(mr_redis_cluster *c, const mr_redis_slot_map *map, mr_error *err)
{
    uint16_t index[MR_REDIS_MAX_NODES];
    mr_status status = MR_OK;
    int64_t now = mr_clock_monotonic_us();
    for (size_t i = 0; i < map->n; i++) {
        index[i] = MR_REDIS_NO_NODE;
        if (!mr_redis_cluster_make(c, &map->node[i], &index[i], err))
            status = err->status; /* its slots have no master; the next refresh tries again */
    }

    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->n_places; i++) {
        if (!c->places[i])
            continue;
        if (c->places[i]->is_owner)
            c->places[i]->used_us = now;
        c->places[i]->is_owner = false;
    }
    c->covered = 0;
    for (unsigned slot = 0; slot < MR_REDIS_SLOTS; slot++) {
        uint16_t master = map->owner[slot];
        c->owner[slot] = MR_REDIS_NO_NODE;
        (void)owns(c, slot, master == MR_REDIS_NO_NODE ? MR_REDIS_NO_NODE : index[master]);
    }
    c->has_map = true;
    pthread_mutex_unlock(&c->lock);
    judge(c);
    mr_redis_cluster_retry(c, 0);
    return status;
}

/* ---- refresh --------------------------------------------------------------------------------- */

void mr_redis_cluster_refresh(mr_redis_cluster *c, int64_t within_ms)
{
    int64_t now = mr_clock_monotonic_us();
    int64_t due = now + within_ms * 1000, least = c->refreshed_us + LEAST_MS * 1000;
    if (c->is_closing)
        return;
    if (c->is_refreshing) {
        c->again = true;
        return;
    }
    if (due < least)
        due = least;
    if (c->refresh_due_us && c->refresh_due_us <= due)
        return;
    c->refresh_due_us = due;
    mr_redis_timer_arm(c->refresh_timer, (due - now) / 1000);
}

static void refresh_later(mr_redis_cluster *c)
{
    bool again = c->again;
    c->is_refreshing = c->again = false;
    if (again || !c->is_well)
        mr_redis_cluster_refresh(c, MR_REDIS_CLUSTER_SOON * 3 / 4 +
                                        (int64_t)mr_rng_below(&c->rng, MR_REDIS_CLUSTER_SOON / 2));
    else
        mr_redis_cluster_refresh(c, REFRESH_MS * 4 / 5 +
                                        (int64_t)mr_rng_below(&c->rng, REFRESH_MS * 2 / 5));
}

static void refresh_done(mr_redis_command *command, mr_redis_reply *reply, const mr_error *why)
{
    mr_redis_cluster *c = command->context;
    char text[MR_REDIS_ADDRESS_TEXT];
    mr_error err = {0};
    mr_status status = MR_OK;
    if (c->is_closing) {
        mr_redis_reply_free(reply);
        return;
    }
    if (!reply) {
        err = *why;
        status = why->status;
    } else {
        status =
            mr_redis_slots_read(mr_redis_reply_value(reply), &c->refresh_from, c->scratch, &err);
        mr_redis_reply_free(reply);
        /* A node that was reset, or has not met the others: the map that we have is better. */
        if (status == MR_OK && c->scratch->covered == 0)
            status = MR_FAIL(&err, UNAVAILABLE,
                             "Redis at %s knows of no slots: it has not joined a cluster yet",
                             mr_redis_address_text(&c->refresh_from, text));
        if (status == MR_OK)
            status = install(c, c->scratch, &err);
    }
    if (status != MR_OK)
        mr_redis_cluster_note(c, &err);
    refresh_later(c);
}

/* A node that is ready and was not asked in this round. */
static mr_redis_place *source(mr_redis_cluster *c)
{
    size_t from = c->n_places ? (size_t)mr_rng_below(&c->rng, c->n_places) : 0;
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < c->n_places; i++) {
            mr_redis_place *p = c->places[(from + i) % c->n_places];
            if (p && !p->was_asked && mr_redis_node_is_ready(p->node))
                return p;
        }
        for (size_t i = 0; i < c->n_places; i++) {
            if (c->places[i])
                c->places[i]->was_asked = false;
        }
    }
    return NULL;
}

/* One more at a time: the cluster may have moved away from all that the map knew. node_changed
 * tells when it is ready. */
void mr_redis_cluster_try_seed(mr_redis_cluster *c)
{
    mr_error err = {0};
    mr_redis_place *p = mr_redis_cluster_make(c, &c->url->address[c->seed], NULL, &err);
    c->seed = (c->seed + 1) % c->url->n;
    if (p)
        p->used_us = mr_clock_monotonic_us();
    else
        mr_redis_cluster_note(c, &err);
}

void mr_redis_cluster_refresh_timer(void *context)
{
    mr_redis_cluster *c = context;
    c->refresh_due_us = 0;
    c->refreshed_us = mr_clock_monotonic_us();
    mr_redis_place *asked = source(c);
    if (!asked) {
        mr_redis_cluster_try_seed(c);
        refresh_later(c);
        return;
    }
    asked->was_asked = true;
    c->is_refreshing = true;
    c->refresh_from = *mr_redis_node_address(asked->node);
    c->refresh = (mr_redis_command){
        .wire = REFRESH_COMMAND,
        .wire_len = sizeof REFRESH_COMMAND - 1,
        .patient = true, /* the breaker of the one that is asked does not matter */
        .expect = {true, MR_REDIS_ARRAY, MR_REDIS_ANY_N},
        .deadline_us = c->refreshed_us + c->node_options.connect_timeout_ms * 1000,
        .done = refresh_done,
        .context = c,
    };
    mr_redis_node_send(asked->node, &c->refresh);
}
