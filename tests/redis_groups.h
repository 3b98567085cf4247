/* redis_groups.h - several redis-servers that belong together: behind sentinels, or as a cluster.
 *
 *     redis_sentinels *group = redis_sentinels_start(1, 3, NULL);
 *     mr_store_open(&store, redis_sentinels_url(group), NULL, &err);
 *     redis_server_kill(redis_sentinels_master(group));
 *     redis_sentinels_wait_master(group, old, 15000);
 *
 *     redis_cluster *cluster = redis_cluster_start(3, 3, NULL);
 *     mr_store_open(&store, redis_cluster_url(cluster), NULL, &err);
 *
 * All of redis_server.h holds. Start returns when the group is whole: replicas are in step, the
 * sentinels know them and each other, every node says cluster_state:ok. Times are short: a dead
 * master is replaced after about 2 seconds.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_REDIS_GROUPS_H
#define MR_TESTS_REDIS_GROUPS_H

#include "tests/redis_server.h"

#define REDIS_GROUP_MAX 12

typedef struct redis_sentinels redis_sentinels;

/* A master, 1 to 4 replicas and 1 to 3 sentinels that call it "mixrank". options: of the master
 * and the replicas; the sentinels take no password. */
redis_sentinels *redis_sentinels_start(int replicas, int sentinels,
                                       const redis_server_options *options);
void redis_sentinels_free(redis_sentinels *group);                   /* NULL is fine */
redis_server *redis_sentinels_server(redis_sentinels *group, int i); /* 0: the first master */
redis_server *redis_sentinels_sentinel(redis_sentinels *group, int i);
const char *redis_sentinels_url(const redis_sentinels *group); /* redis+sentinel://, all of them */
/* Whom the first running sentinel names; NULL when none answers. */
redis_server *redis_sentinels_master(redis_sentinels *group);
/* Until the sentinels name another one than `old` and that one says role:master. */
redis_server *redis_sentinels_wait_master(redis_sentinels *group, const redis_server *old,
                                          int timeout_ms);

typedef struct redis_cluster redis_cluster;

/* 1 to 6 masters with equal shares of the slots; replica i follows master i % masters. */
redis_cluster *redis_cluster_start(int masters, int replicas, const redis_server_options *options);
void redis_cluster_free(redis_cluster *cluster); /* NULL is fine */
int redis_cluster_nodes(const redis_cluster *cluster);
redis_server *redis_cluster_node(redis_cluster *cluster, int i); /* masters first */
const char *redis_cluster_id(const redis_cluster *cluster, int i);
const char *redis_cluster_url(const redis_cluster *cluster); /* redis+cluster://, two nodes of it */
/* The index of the node that serves the slot as node `asked` sees it; -1 when nobody does. */
int redis_cluster_owner(redis_cluster *cluster, int asked, int slot);
/* Until every running node says cluster_state:ok. */
bool redis_cluster_wait_ok(redis_cluster *cluster, int timeout_ms);
/* Until every running node gives the slots of the dead one to another, and says ok. */
bool redis_cluster_wait_failover(redis_cluster *cluster, int dead, int timeout_ms);

/* Moves a slot in the steps of redis-cli --cluster reshard, so that a test can look in between.
 * begin: the source is MIGRATING, the target IMPORTING. keys: up to n of its keys go (-1 on error,
 * else how many went). end: every node is told. */
bool redis_cluster_move_begin(redis_cluster *cluster, int slot, int from, int to);
int redis_cluster_move_keys(redis_cluster *cluster, int slot, int from, int to, int n);
bool redis_cluster_move_end(redis_cluster *cluster, int slot, int from, int to);

#endif
