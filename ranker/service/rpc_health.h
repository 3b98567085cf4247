/* rpc_health.h - grpc.health.v1: Check, List and Watch over statuses that a program sets.
 *
 *     mr_rpc_health *health = NULL;
 *     mr_rpc_health_new(&health, &err);
 *     n += mr_rpc_health_methods(health, methods + n);        into the server's table
 *     mr_rpc_health_set(health, "", MR_RPC_SERVING);          "" is the whole server
 *     ...
 *     mr_rpc_health_set_all(health, MR_RPC_NOT_SERVING);      first step of a drain
 *     mr_rpc_server_free(server); mr_rpc_health_free(health);
 *
 * Served without a bearer key: probes have none.
 * Threads: any. Free it after the server.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_SERVICE_RPC_HEALTH_H
#define MR_RANKER_SERVICE_RPC_HEALTH_H

#include "ranker/service/rpc_server.h"

typedef struct mr_rpc_health mr_rpc_health;

typedef enum {
    MR_RPC_HEALTH_UNKNOWN,
    MR_RPC_SERVING,
    MR_RPC_NOT_SERVING,
    MR_RPC_SERVICE_UNKNOWN, /* only what Watch says of a name that nobody set */
} mr_rpc_serving;

#define MR_RPC_HEALTH_METHODS      3
#define MR_RPC_HEALTH_MAX_NAMES    64
#define MR_RPC_HEALTH_MAX_WATCHERS 1024 /* more are RESOURCE_EXHAUSTED */

MR_NODISCARD mr_status mr_rpc_health_new(mr_rpc_health **out, mr_error *err);
void mr_rpc_health_free(mr_rpc_health *health); /* NULL is fine */
size_t mr_rpc_health_methods(mr_rpc_health *health, mr_rpc_method out[MR_RPC_HEALTH_METHODS]);

/* Watchers of the name hear of it when it differs from before. EXHAUSTED beyond the names allowed;
 * INVALID for one longer than 200 bytes. */
mr_status mr_rpc_health_set(mr_rpc_health *health, const char *service, mr_rpc_serving status,
                            mr_error *err);
void mr_rpc_health_set_all(mr_rpc_health *health, mr_rpc_serving status); /* known names */
/* SERVICE_UNKNOWN for a name that nobody set. */
mr_rpc_serving mr_rpc_health_get(mr_rpc_health *health, const char *service);

#endif
