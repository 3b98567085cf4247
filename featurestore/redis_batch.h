/* redis_batch.h - several requests sent at once, to one server or many, and one wait for them all.
 *
 *     mr_redis_batch *batch;
 *     mr_redis_batch_new(&batch, router, &err);
 *     mr_redis_batch_add(batch, args, n_args, key, NULL, &err);       once per request
 *     status = mr_redis_batch_run(batch, deadline_us, patient, &err);
 *     mr_redis_batch_value(batch, i);                                 NULL where none came
 *     mr_redis_batch_free(batch);
 *
 * A router says where a request goes: to the one server, or, in a cluster, to the node of its key's
 * slot. It runs on the loop thread, may hold a request back until it knows, and looks at a reply
 * before the batch does (MOVED, ASK: it sends the request again, elsewhere).
 * Threads: a batch belongs to one caller; any number of batches run at once.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_REDIS_BATCH_H
#define MR_FEATURESTORE_REDIS_BATCH_H

#include "featurestore/redis_node.h"

typedef struct mr_redis_batch mr_redis_batch;

/* One request. What the router needs to know of it, and the command that a node takes. */
typedef struct mr_redis_request {
    mr_redis_command command;   /* wire, deadline and patience are set; done is the batch's */
    mr_bytes key;               /* decides the server; len 0: any, or `at` */
    const mr_redis_address *at; /* this server, e.g. for SCAN; NULL: by key */
    unsigned hops;              /* for the router: how often it was sent elsewhere; 0 at first */
    mr_redis_wire own;          /* for the router: a wire of its own (ASKING), freed by the batch */
    void *router_data;          /* for the router; NULL at first */
} mr_redis_request;
/* The request that holds a command of which a node called done, or that waits in a router. */
mr_redis_request *mr_redis_request_of(mr_redis_command *command);

typedef struct mr_redis_router mr_redis_router;
struct mr_redis_router {
    mr_redis_loop *loop;
    /* A key per request: MGET and EVALSHA of keys in several slots cannot be. */
    bool one_key;

    /* Loop thread. Hands the request's command to a node, or keeps it (linked by command.next) and
     * sends it later, or ends it: mr_redis_request_fail. */
    void (*route)(mr_redis_router *self, mr_redis_request *request);
    /* Loop thread, before the batch sees how a command ended. True: the router took the request
     * back and has sent or kept it (the reply is then the router's to free). May be NULL. */
    bool (*ended)(mr_redis_router *self, mr_redis_request *request, mr_redis_reply *reply,
                  const mr_error *why);
    /* Loop thread. The caller no longer waits: a request that the router keeps ends now. The batch
     * has asked the nodes already. May be NULL. */
    void (*abandon)(mr_redis_router *self, mr_redis_request *request);

    /* Any thread. Waits until the deadline for the first sign-in (every server, or that of the
     * cluster's map); the reason why there is none otherwise. */
    mr_status (*wait_ready)(mr_redis_router *self, int64_t deadline_us, mr_error *err);
    /* Any thread. The servers that hold records, each once: masters of a cluster. All are counted
     * in *n, the first `capacity` are written. UNAVAILABLE while they are not known. */
    mr_status (*servers)(mr_redis_router *self, mr_redis_address *out, size_t capacity, size_t *n,
                         mr_error *err);
    /* Any thread. See mr_redis_node_health; *out begins with connected, tracking true. */
    void (*health)(mr_redis_router *self, mr_store_health *out);
    /* Any thread, once. tracking(true) may follow before it returns. May be NULL: no tracking. */
    void (*watch)(mr_redis_router *self, const mr_store_watcher *watcher);
    /* Loop thread, as the loop's last job: frees nodes and the router itself. No batch runs. */
    void (*close)(mr_redis_router *self);
};

/* Makes the router for a URL on a loop; url and options are borrowed and outlive it. */
mr_status mr_redis_single_open(mr_redis_router **out, mr_redis_loop *loop, const mr_redis_url *url,
                               const mr_store_options *options, mr_error *err); /* and Sentinel */
mr_status mr_redis_cluster_open(mr_redis_router **out, mr_redis_loop *loop, const mr_redis_url *url,
                                const mr_store_options *options, mr_error *err);

MR_NODISCARD mr_status mr_redis_batch_new(mr_redis_batch **out, mr_redis_router *router,
                                          mr_error *err);
void mr_redis_batch_free(mr_redis_batch *batch); /* NULL is fine; not while it runs */

/* args are copied into the wire; key (or empty) and at (or NULL) are copied too. */
MR_NODISCARD mr_status mr_redis_batch_add(mr_redis_batch *batch, const mr_bytes *args, size_t n,
                                          mr_bytes key, const mr_redis_address *at, mr_error *err);
/* What the reply to the request added last must be; see mr_redis_command.expect. */
void mr_redis_batch_expect(mr_redis_batch *batch, mr_redis_type type, size_t n);
size_t mr_redis_batch_count(const mr_redis_batch *batch);

/* Sends every request that has no reply yet and waits. OK when all of them have one, error replies
 * included. Otherwise the first failure: UNAVAILABLE, EXHAUSTED, CORRUPT: those that came are
 * there, and running again sends the rest. TIMEOUT after the deadline: then it cannot run again,
 * since what is under way still belongs to the loop. */
MR_NODISCARD mr_status mr_redis_batch_run(mr_redis_batch *batch, int64_t deadline_us, bool patient,
                                          mr_error *err);
const mr_redis_value *mr_redis_batch_value(const mr_redis_batch *batch, size_t index);
/* Forgets a reply, so that the next run sends this request again, or another in its place. */
void mr_redis_batch_forget(mr_redis_batch *batch, size_t index);
MR_NODISCARD mr_status mr_redis_batch_replace(mr_redis_batch *batch, size_t index,
                                              const mr_bytes *args, size_t n, mr_error *err);

/* For routers, on the loop thread: how a request ends that no node has. */
void mr_redis_request_fail(mr_redis_request *request, const mr_error *why);

#endif
