/* redis_node.h - one Redis server: its connections, sign-in, order of replies, and its breaker.
 *
 * A node keeps a data connection and, when it is watched, an invalidation connection:
 *     invalidation: AUTH, CLIENT SETNAME, CLIENT ID, SUBSCRIBE __redis__:invalidate; pinged
 *     data:         AUTH, CLIENT SETNAME, SELECT, CLIENT TRACKING ON REDIRECT <id>, PING
 * RESP2, so that any hiredis will do. When either is lost, or says something that it cannot have
 * been asked, both are closed: watcher.flush, watcher.tracking(false), every command on its way
 * fails, and both are made anew after a pause of 50 ms that doubles to 1 s, with jitter. Ready
 * again: watcher.flush, watcher.tracking(true), and only then is a waiting command sent. A server
 * that allows no tracking (an ACL) is used without.
 *
 * A command is one request with one reply. It ends exactly once, by its `done`, on the loop thread:
 * with a reply (which may be an error of the server) or without one and with the reason.
 * Until the node is ready a command waits, no longer than its deadline; at most
 * MR_REDIS_MAX_COMMANDS and MR_REDIS_MAX_QUEUED_BYTES wait or are under way.
 *
 * Breaker: after 5 failures in a row (not answered in time, connection lost) it opens; commands
 * that are not patient then fail at once. It is half open after 200 ms, or as soon as the server
 * was signed in to: one impatient command goes as a probe. Any answer closes it. Patient commands
 * (writes) are not held back by it, they wait.
 *
 * Everything here is for the loop thread, but mr_redis_node_health.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_REDIS_NODE_H
#define MR_FEATURESTORE_REDIS_NODE_H

#include "featurestore/redis_loop.h"
#include "featurestore/redis_reply.h"
#include "featurestore/redis_url.h"
#include "featurestore/store_backend.h"

#define MR_REDIS_MAX_COMMANDS     65536
#define MR_REDIS_MAX_QUEUED_BYTES ((size_t)256 << 20)

#define MR_REDIS_ANY_N            SIZE_MAX

typedef struct mr_redis_node mr_redis_node;
typedef struct mr_redis_command mr_redis_command;

/* Caller's memory, from mr_redis_node_send until done. */
struct mr_redis_command {
    const char *wire; /* the request; borrowed until done */
    size_t wire_len;
    /* Replies that come before the one that counts and are dropped: 1 where the wire begins with
     * ASKING. An error among them does not count either. */
    unsigned skip;
    bool patient; /* see above */
    /* What the reply must be unless it is an error: a server that says anything else has lost its
     * place, and the node leaves it. */
    struct {
        bool on;
        mr_redis_type type;
        size_t n; /* elements, of an ARRAY; MR_REDIS_ANY_N: any number */
    } expect;
    int64_t deadline_us; /* monotonic; not sent, and no longer waited for, after it */
    /* reply (may be NULL) belongs to done. why is set when there is none: TIMEOUT, UNAVAILABLE,
     * EXHAUSTED (too much waits), NO_MEMORY, CORRUPT (what came was no RESP). The node may have
     * been told to send another command, but must not be freed, within done. */
    void (*done)(mr_redis_command *command, mr_redis_reply *reply, const mr_error *why);
    void *context;

    /* The node's own, and for who looks for where a command is: NULL when it is with no node. */
    mr_redis_node *node;
    mr_redis_command *next, *previous; /* while it waits */
    uint64_t place;                    /* among the sent ones; 0: waits */
    int64_t sent_us;
};

typedef struct {
    const mr_redis_url *url; /* user, password, database, tls; borrowed, outlives the node */
    int64_t connect_timeout_ms;
    int64_t stall_timeout_ms; /* a server that owes replies and is silent so long is lost */
    /* NULL: no tracking. Borrowed, outlives the node. The store's, whose own context says more. */
    const mr_store_watcher *watcher;

    /* Finds the address anew before every connection (Sentinel), NULL: it is fixed. Must lead to
     * one mr_redis_node_located, now or later; a node that is freed meanwhile calls `forget`. */
    void (*locate)(void *context, mr_redis_node *node);
    void (*forget)(void *context, mr_redis_node *node);
    /* What the node became, after the fact; may be NULL. ready false: why says what happened. */
    void (*changed)(void *context, mr_redis_node *node, bool ready, const mr_error *why);
    void *context;
    bool must_be_master; /* asks ROLE at sign-in, and leaves a server that is none */
} mr_redis_node_options;

/* Begins to connect. Options are copied. address may be NULL when there is a locate. */
MR_NODISCARD mr_status mr_redis_node_new(mr_redis_node **out, mr_redis_loop *loop,
                                         const mr_redis_address *address,
                                         const mr_redis_node_options *options, mr_error *err);
/* Ends its commands with CANCELLED; the watcher is not called. NULL is fine. */
void mr_redis_node_free(mr_redis_node *node);

const mr_redis_address *mr_redis_node_address(const mr_redis_node *node);
bool mr_redis_node_is_ready(const mr_redis_node *node);
void mr_redis_node_located(mr_redis_node *node, const mr_redis_address *address /* or NULL */,
                           const mr_error *why /* when there is none */);

/* Never fails: done says. done may be called before this returns. */
void mr_redis_node_send(mr_redis_node *node, mr_redis_command *command);
/* The caller of a command no longer waits: ends it with TIMEOUT and counts a failure. A reply that
 * still comes is dropped. Nothing happens when the command is with no node. */
void mr_redis_node_abandon(mr_redis_command *command);
/* Closes both connections and connects again at once, e.g. since the server is no master any more
 * or another watcher came. */
void mr_redis_node_restart(mr_redis_node *node, const mr_store_watcher *watcher,
                           const mr_error *why);

/* Any thread while the node lives: adds reconnects; raises breaker to the node's, clears connected
 * and tracking when the node is not. Begin with 0, true, true. */
void mr_redis_node_health(const mr_redis_node *node, mr_store_health *out);

#endif
