/* redis_cluster.h - inside of the router of a Redis Cluster: its nodes, its map, its requests.
 *
 * All of it runs on the loop thread; a lock covers what other threads look at (places, owner, why).
 * Nodes are kept in a list whose places do not move, so that a slot's owner is an index.
 * redis_cluster.c routes requests and reads replies, redis_cluster_map.c keeps nodes and map.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_REDIS_CLUSTER_H
#define MR_FEATURESTORE_REDIS_CLUSTER_H

#include <pthread.h>

#include "core/rng.h"
#include "featurestore/redis_batch.h"
#include "featurestore/redis_slots.h"

typedef struct {
    mr_redis_node *node;
    bool is_owner;   /* of a slot, by the map or by a MOVED since */
    bool was_asked;  /* for the map, in this round */
    bool has_failed; /* to connect or to sign in, the last time */
    int64_t used_us; /* when a redirection or the URL last led here */
} mr_redis_place;

typedef struct {
    mr_redis_router router; /* first: what the store holds */
    const mr_redis_url *url;
    mr_redis_node_options node_options;
    mr_rng rng;
    size_t seed; /* the next of the URL's nodes to try */
    bool is_closing;

    mr_redis_slot_map *scratch; /* what a refresh reads into */
    mr_redis_command refresh;   /* CLUSTER SLOTS, while is_refreshing */
    mr_redis_address refresh_from;
    mr_redis_timer *refresh_timer;
    bool is_refreshing, again; /* again: a reason came while it went on */
    int64_t refreshed_us;      /* begin of the last one */
    int64_t refresh_due_us;    /* of the timer; 0: not armed */

    mr_redis_command held; /* head of a ring of requests that wait for a better moment */
    size_t n_held;
    mr_redis_timer *retry_timer;
    bool is_retry_armed;

    pthread_mutex_t lock;
    pthread_cond_t changed;                     /* has_map, why */
    mr_redis_place *places[MR_REDIS_MAX_NODES]; /* NULL: free */
    size_t n_places;                            /* used ones are below */
    uint16_t owner[MR_REDIS_SLOTS];             /* index into places, or MR_REDIS_NO_NODE */
    size_t covered;
    bool has_map;
    bool is_well;         /* every slot has a master that is ready */
    bool is_hopeless;     /* no map, and every node refuses us */
    mr_error why;         /* the last thing that went wrong since all was well */
    mr_store_health gone; /* what nodes counted that are no more */
} mr_redis_cluster;

/* redis_cluster_map.c */

/* Finds a node, or NULL; index may be NULL. */
mr_redis_place *mr_redis_cluster_find(mr_redis_cluster *c, const mr_redis_address *address,
                                      uint16_t *index);
/* Finds or makes it. NULL: no memory, or too many. */
mr_redis_place *mr_redis_cluster_make(mr_redis_cluster *c, const mr_redis_address *address,
                                      uint16_t *index, mr_error *err);
/* Lets go of nodes that own nothing and were not used for a while. From timers only: a node must
 * not be freed in a callback of its own. */
void mr_redis_cluster_sweep(mr_redis_cluster *c);
/* MOVED said so. */
void mr_redis_cluster_set_owner(mr_redis_cluster *c, unsigned slot, uint16_t index);
void mr_redis_cluster_note(mr_redis_cluster *c, const mr_error *why);

#define MR_REDIS_CLUSTER_NOW  0   /* as soon as the least pause since the last refresh allows */
#define MR_REDIS_CLUSTER_SOON 250 /* ms; something is amiss */
/* Asks for the map within that time; what is due earlier stays so. */
void mr_redis_cluster_refresh(mr_redis_cluster *c, int64_t within_ms);
void mr_redis_cluster_refresh_timer(void *context); /* what refresh_timer runs */
void mr_redis_cluster_node_changed(void *context, mr_redis_node *node, bool is_ready,
                                   const mr_error *why); /* node_options.changed */
void mr_redis_cluster_try_seed(mr_redis_cluster *c);     /* connects to the URL's next node */

/* redis_cluster.c */

void mr_redis_cluster_retry(mr_redis_cluster *c, int64_t after_ms); /* routes the held ones again */

#endif
