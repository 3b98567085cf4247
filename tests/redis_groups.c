/* redis_groups.c - see redis_groups.h.
 *
 * Sentinels look at their servers once in 10 s and greet each other every 2 s by default; SENTINEL
 * DEBUG shortens that, so that a group is whole after about a second. A cluster is put together by
 * hand: redis-cli --cluster create waits in whole seconds.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/redis_groups.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"

#define WHOLE_MS  20000
#define POLL_MS   20
#define SLOTS     16384
#define ID_BYTES  40
#define EXTRA     2048
#define URL_BYTES 512

static int64_t deadline(int ms)
{
    return mr_clock_monotonic_us() + (int64_t)ms * 1000;
}

static bool in_time(int64_t end)
{
    if (mr_clock_monotonic_us() >= end)
        return false;
    redis_server_sleep_ms(POLL_MS);
    return true;
}

static const char *user_part(const redis_server_options *options)
{
    static char user[128];
    user[0] = '\0';
    if (options && options->password)
        snprintf(user, sizeof user, "default:%s@", options->password);
    return user;
}

/* options with more lines; the lines live in `extra` [EXTRA]. */
static redis_server_options with_lines(const redis_server_options *options, char *extra)
{
    redis_server_options all = options ? *options : (redis_server_options){0};
    size_t used = strlen(extra);
    if (all.extra)
        snprintf(extra + used, EXTRA - used, "\n%s", all.extra);
    all.extra = extra;
    return all;
}

/* ---- sentinels ------------------------------------------------------------------------------- */

struct redis_sentinels {
    int n_servers, n_sentinels;
    redis_server *servers[REDIS_GROUP_MAX], *sentinels[REDIS_GROUP_MAX];
    char url[URL_BYTES];
};

static bool start_servers(redis_sentinels *group, int replicas, const redis_server_options *options)
{
    for (int i = 0; i <= replicas; i++) {
        char extra[EXTRA] = "";
        if (i)
            snprintf(extra, sizeof extra, "replicaof 127.0.0.1 %d",
                     redis_server_port(group->servers[0]));
        redis_server_options all = with_lines(options, extra);
        group->servers[i] = redis_server_start(&all);
        if (!group->servers[i])
            return false;
        group->n_servers++;
    }
    for (int i = 1; i <= replicas; i++) {
        if (!redis_server_wait_info(group->servers[i], "master_link_status:up", WHOLE_MS)) {
            fprintf(stderr, "redis_sentinels: replica %d does not follow its master\n", i);
            return false;
        }
    }
    return true;
}

static bool start_sentinels(redis_sentinels *group, int n, const redis_server_options *options)
{
    char config[EXTRA];
    int len = snprintf(config, sizeof config,
                       "sentinel monitor mixrank 127.0.0.1 %d %d\n"
                       "sentinel down-after-milliseconds mixrank 500\n"
                       "sentinel failover-timeout mixrank 3000\n",
                       redis_server_port(group->servers[0]), n / 2 + 1);
    if (options && options->password)
        snprintf(config + len, sizeof config - (size_t)len, "sentinel auth-pass mixrank %s\n",
                 options->password);
    for (int i = 0; i < n; i++) {
        group->sentinels[i] = redis_server_start_sentinel(config);
        if (!group->sentinels[i])
            return false;
        group->n_sentinels++;
        if (!redis_server_run(group->sentinels[i],
                              "SENTINEL DEBUG info-period 200 publish-period 200 ask-period 200"))
            return false;
    }
    return true;
}

/* A number among the name, value, name, value of SENTINEL MASTER. */
static long master_field(redis_server *sentinel, const char *name)
{
    long value = -1;
    redisReply *reply = redis_server_command(sentinel, "SENTINEL MASTER mixrank");
    for (size_t i = 0; reply && reply->type == REDIS_REPLY_ARRAY && i + 1 < reply->elements;
         i += 2) {
        if (strcmp(reply->element[i]->str, name) == 0)
            value = strtol(reply->element[i + 1]->str, NULL, 10);
    }
    if (reply)
        freeReplyObject(reply);
    return value;
}

static bool sentinels_whole(redis_sentinels *group)
{
    int64_t end = deadline(WHOLE_MS);
    for (int i = 0; i < group->n_sentinels; i++) {
        while (master_field(group->sentinels[i], "num-slaves") != group->n_servers - 1 ||
               master_field(group->sentinels[i], "num-other-sentinels") != group->n_sentinels - 1) {
            if (!in_time(end)) {
                fprintf(stderr, "redis_sentinels: sentinel %d does not know all others\n", i);
                return false;
            }
        }
    }
    return true;
}

redis_sentinels *redis_sentinels_start(int replicas, int sentinels,
                                       const redis_server_options *options)
{
    if (replicas < 1 || replicas > 4 || sentinels < 1 || sentinels > 3)
        return NULL;
    redis_sentinels *group = calloc(1, sizeof *group);
    if (!group)
        return NULL;
    if (!start_servers(group, replicas, options) || !start_sentinels(group, sentinels, options) ||
        !sentinels_whole(group)) {
        redis_sentinels_free(group);
        return NULL;
    }
    size_t used =
        (size_t)snprintf(group->url, URL_BYTES, "redis+sentinel://%s", user_part(options));
    for (int i = 0; i < sentinels; i++)
        used += (size_t)snprintf(group->url + used, URL_BYTES - used, "%s%s", i ? "," : "",
                                 redis_server_address(group->sentinels[i]));
    snprintf(group->url + used, URL_BYTES - used, "/mixrank");
    return group;
}

void redis_sentinels_free(redis_sentinels *group)
{
    if (!group)
        return;
    for (int i = 0; i < group->n_sentinels; i++)
        redis_server_free(group->sentinels[i]);
    for (int i = 0; i < group->n_servers; i++)
        redis_server_free(group->servers[i]);
    free(group);
}

redis_server *redis_sentinels_server(redis_sentinels *group, int i)
{
    return i >= 0 && i < group->n_servers ? group->servers[i] : NULL;
}

redis_server *redis_sentinels_sentinel(redis_sentinels *group, int i)
{
    return i >= 0 && i < group->n_sentinels ? group->sentinels[i] : NULL;
}

const char *redis_sentinels_url(const redis_sentinels *group)
{
    return group->url;
}

redis_server *redis_sentinels_master(redis_sentinels *group)
{
    for (int i = 0; i < group->n_sentinels; i++) {
        redis_server *found = NULL;
        if (!redis_server_running(group->sentinels[i]))
            continue;
        redisReply *reply =
            redis_server_command(group->sentinels[i], "SENTINEL GET-MASTER-ADDR-BY-NAME mixrank");
        if (reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2) {
            long port = strtol(reply->element[1]->str, NULL, 10);
            for (int k = 0; k < group->n_servers; k++) {
                if (redis_server_port(group->servers[k]) == port)
                    found = group->servers[k];
            }
        }
        if (reply)
            freeReplyObject(reply);
        if (found)
            return found;
    }
    return NULL;
}

redis_server *redis_sentinels_wait_master(redis_sentinels *group, const redis_server *old,
                                          int timeout_ms)
{
    int64_t end = deadline(timeout_ms);
    do {
        redis_server *master = redis_sentinels_master(group);
        if (master && master != old && redis_server_running(master) &&
            redis_server_wait_info(master, "role:master", 0))
            return master;
    } while (in_time(end));
    fprintf(stderr, "redis_sentinels: no new master within %d ms\n", timeout_ms);
    return NULL;
}

/* ---- cluster: start -------------------------------------------------------------------------- */

struct redis_cluster {
    int n, masters;
    redis_server *nodes[REDIS_GROUP_MAX];
    int bus_ports[REDIS_GROUP_MAX];
    char ids[REDIS_GROUP_MAX][ID_BYTES + 1];
    char password[64];
    char url[URL_BYTES];
};

static bool start_node(redis_cluster *cluster, const redis_server_options *options)
{
    int i = cluster->n;
    for (int attempt = 0; attempt < 3 && !cluster->nodes[i]; attempt++) {
        char extra[EXTRA];
        cluster->bus_ports[i] = redis_server_free_port();
        snprintf(extra, sizeof extra,
                 "cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-port %d\n"
                 "cluster-node-timeout 1000\ncluster-replica-validity-factor 0\n"
                 "cluster-allow-replica-migration no",
                 cluster->bus_ports[i]);
        redis_server_options all = with_lines(options, extra);
        cluster->nodes[i] = redis_server_start(&all);
    }
    if (!cluster->nodes[i])
        return false;
    cluster->n++;

    redisReply *reply = redis_server_command(cluster->nodes[i], "CLUSTER MYID");
    bool fine = reply && reply->type == REDIS_REPLY_STRING && reply->len == ID_BYTES;
    if (fine)
        memcpy(cluster->ids[i], reply->str, ID_BYTES);
    if (reply)
        freeReplyObject(reply);
    return fine;
}

/* Every node knows every other by its lasting name: no handshake goes on. */
static bool all_met(redis_cluster *cluster, int asked)
{
    bool met = true;
    redisReply *reply = redis_server_command(cluster->nodes[asked], "CLUSTER NODES");
    const char *text = reply && reply->type == REDIS_REPLY_STRING ? reply->str : "";
    for (int i = 0; i < cluster->n; i++)
        met &= strstr(text, cluster->ids[i]) != NULL;
    met &= strstr(text, "handshake") == NULL;
    if (reply)
        freeReplyObject(reply);
    return met;
}

static bool join(redis_cluster *cluster)
{
    int64_t end = deadline(WHOLE_MS);
    for (int i = 0; i < cluster->n; i++) {
        int first = SLOTS * i / cluster->masters, behind = SLOTS * (i + 1) / cluster->masters;
        redis_server *node = cluster->nodes[i];
        if (!redis_server_run(node, "CLUSTER SET-CONFIG-EPOCH %d", i + 1))
            return false;
        if (i < cluster->masters &&
            !redis_server_run(node, "CLUSTER ADDSLOTSRANGE %d %d", first, behind - 1))
            return false;
        if (i && !redis_server_run(cluster->nodes[0], "CLUSTER MEET 127.0.0.1 %d %d",
                                   redis_server_port(node), cluster->bus_ports[i]))
            return false;
    }
    for (int i = 0; i < cluster->n; i++) {
        while (!all_met(cluster, i)) {
            if (!in_time(end)) {
                fprintf(stderr, "redis_cluster: node %d did not meet all others\n", i);
                return false;
            }
        }
    }
    for (int i = cluster->masters; i < cluster->n; i++) {
        if (!redis_server_run(cluster->nodes[i], "CLUSTER REPLICATE %s",
                              cluster->ids[(i - cluster->masters) % cluster->masters]))
            return false;
    }
    for (int i = cluster->masters; i < cluster->n; i++) {
        if (!redis_server_wait_info(cluster->nodes[i], "master_link_status:up", WHOLE_MS)) {
            fprintf(stderr, "redis_cluster: replica %d does not follow its master\n", i);
            return false;
        }
    }
    return redis_cluster_wait_ok(cluster, WHOLE_MS);
}

redis_cluster *redis_cluster_start(int masters, int replicas, const redis_server_options *options)
{
    if (masters < 1 || masters > 6 || replicas < 0 || masters + replicas > REDIS_GROUP_MAX)
        return NULL;
    redis_cluster *cluster = calloc(1, sizeof *cluster);
    if (!cluster)
        return NULL;
    cluster->masters = masters;
    if (options && options->password)
        snprintf(cluster->password, sizeof cluster->password, "%s", options->password);
    bool fine = true;
    for (int i = 0; i < masters + replicas && fine; i++)
        fine = start_node(cluster, options);
    if (!fine || !join(cluster)) {
        redis_cluster_free(cluster);
        return NULL;
    }
    snprintf(cluster->url, URL_BYTES, "redis+cluster://%s%s%s%s", user_part(options),
             redis_server_address(cluster->nodes[0]), cluster->n > 1 ? "," : "",
             cluster->n > 1 ? redis_server_address(cluster->nodes[cluster->n - 1]) : "");
    return cluster;
}

void redis_cluster_free(redis_cluster *cluster)
{
    if (!cluster)
        return;
    for (int i = 0; i < cluster->n; i++)
        redis_server_free(cluster->nodes[i]);
    free(cluster);
}

/* ---- cluster: what it says ------------------------------------------------------------------- */

int redis_cluster_nodes(const redis_cluster *cluster)
{
    return cluster->n;
}

redis_server *redis_cluster_node(redis_cluster *cluster, int i)
{
    return i >= 0 && i < cluster->n ? cluster->nodes[i] : NULL;
}

const char *redis_cluster_id(const redis_cluster *cluster, int i)
{
    return cluster->ids[i];
}

const char *redis_cluster_url(const redis_cluster *cluster)
{
    return cluster->url;
}

int redis_cluster_owner(redis_cluster *cluster, int asked, int slot)
{
    int owner = -1;
    redisReply *reply = redis_server_command(cluster->nodes[asked], "CLUSTER SLOTS");
    for (size_t i = 0; reply && reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++) {
        redisReply *range = reply->element[i];
        if (slot < range->element[0]->integer || slot > range->element[1]->integer)
            continue;
        for (int k = 0; k < cluster->n; k++) {
            if (redis_server_port(cluster->nodes[k]) == range->element[2]->element[1]->integer)
                owner = k;
        }
    }
    if (reply)
        freeReplyObject(reply);
    return owner;
}

bool redis_cluster_wait_ok(redis_cluster *cluster, int timeout_ms)
{
    int64_t end = deadline(timeout_ms);
    for (int i = 0; i < cluster->n; i++) {
        for (bool is_ok = !redis_server_running(cluster->nodes[i]); !is_ok;) {
            redisReply *reply = redis_server_command(cluster->nodes[i], "CLUSTER INFO");
            is_ok = reply && reply->type == REDIS_REPLY_STRING &&
                    strstr(reply->str, "cluster_state:ok") &&
                    strstr(reply->str, "cluster_slots_ok:16384");
            if (reply)
                freeReplyObject(reply);
            if (!is_ok && !in_time(end)) {
                fprintf(stderr, "redis_cluster: node %d is not cluster_state:ok\n", i);
                return false;
            }
        }
    }
    return true;
}

/* The first slot that node `asked` says to be node `i`'s; -1 when it has none. */
static int first_slot(redis_cluster *cluster, int asked, int i)
{
    int slot = -1;
    redisReply *reply = redis_server_command(cluster->nodes[asked], "CLUSTER SLOTS");
    for (size_t k = 0; reply && reply->type == REDIS_REPLY_ARRAY && k < reply->elements; k++) {
        redisReply *range = reply->element[k];
        if (range->element[2]->element[1]->integer == redis_server_port(cluster->nodes[i]))
            slot = (int)range->element[0]->integer;
    }
    if (reply)
        freeReplyObject(reply);
    return slot;
}

bool redis_cluster_wait_failover(redis_cluster *cluster, int dead, int timeout_ms)
{
    int64_t end = deadline(timeout_ms);
    for (int i = 0; i < cluster->n; i++) {
        while (redis_server_running(cluster->nodes[i]) && first_slot(cluster, i, dead) >= 0) {
            if (!in_time(end)) {
                fprintf(stderr, "redis_cluster: nobody took over from node %d\n", dead);
                return false;
            }
        }
    }
    return redis_cluster_wait_ok(cluster, timeout_ms);
}

/* ---- cluster: moving a slot ------------------------------------------------------------------ */

bool redis_cluster_move_begin(redis_cluster *cluster, int slot, int from, int to)
{
    return redis_server_run(cluster->nodes[to], "CLUSTER SETSLOT %d IMPORTING %s", slot,
                            cluster->ids[from]) &&
           redis_server_run(cluster->nodes[from], "CLUSTER SETSLOT %d MIGRATING %s", slot,
                            cluster->ids[to]);
}

static bool migrate(redis_cluster *cluster, int from, int to, const redisReply *key)
{
    int port = redis_server_port(cluster->nodes[to]);
    if (cluster->password[0])
        return redis_server_run(cluster->nodes[from],
                                "MIGRATE 127.0.0.1 %d %b 0 5000 AUTH2 default %s", port, key->str,
                                key->len, cluster->password);
    return redis_server_run(cluster->nodes[from], "MIGRATE 127.0.0.1 %d %b 0 5000", port, key->str,
                            key->len);
}

int redis_cluster_move_keys(redis_cluster *cluster, int slot, int from, int to, int n)
{
    int moved = 0;
    redisReply *reply =
        redis_server_command(cluster->nodes[from], "CLUSTER GETKEYSINSLOT %d %d", slot, n);
    if (!reply || reply->type != REDIS_REPLY_ARRAY)
        moved = -1;
    for (size_t i = 0; moved >= 0 && i < reply->elements; i++)
        moved = migrate(cluster, from, to, reply->element[i]) ? moved + 1 : -1;
    if (reply)
        freeReplyObject(reply);
    return moved;
}

bool redis_cluster_move_end(redis_cluster *cluster, int slot, int from, int to)
{
    bool fine = redis_server_run(cluster->nodes[to], "CLUSTER SETSLOT %d NODE %s", slot,
                                 cluster->ids[to]) &&
                redis_server_run(cluster->nodes[from], "CLUSTER SETSLOT %d NODE %s", slot,
                                 cluster->ids[to]);
    for (int i = 0; fine && i < cluster->masters; i++) {
        if (i != from && i != to && redis_server_running(cluster->nodes[i]))
            fine = redis_server_run(cluster->nodes[i], "CLUSTER SETSLOT %d NODE %s", slot,
                                    cluster->ids[to]);
    }
    return fine;
}
