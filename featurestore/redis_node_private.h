/* redis_node_private.h - what redis_node.c (connections) and redis_queue.c (commands, breaker)
 * share.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_REDIS_NODE_PRIVATE_H
#define MR_FEATURESTORE_REDIS_NODE_PRIVATE_H

#include <stdatomic.h>

#include "core/rng.h"
#include "featurestore/redis_link.h"
#include "featurestore/redis_node.h"
#include "featurestore/redis_signin.h"

typedef enum { RESTING, LOCATING, SIGNING_IN, READY } node_state;
enum { CLOSED = 0, HALF_OPEN = 1, OPEN = 2 };

/* Where a reply goes. */
typedef struct {
    mr_redis_command *command; /* NULL: abandoned, or a ping of ours */
    unsigned skip;
    int64_t sent_us;
} place;

/* What waits and what is under way. Replies come in the order of the requests: a command that was
 * abandoned leaves its place empty, since its reply is still to come. */
typedef struct {
    mr_redis_command *first, *last; /* that wait */
    place *places;                  /* a ring; its size is a power of two */
    size_t capacity;
    uint64_t head, tail; /* the oldest and the next; counted from 1 */
    size_t commands, bytes;
} command_queue;

typedef struct {
    int state;
    unsigned failures; /* in a row */
    int64_t opened_us;
    mr_redis_command *probe;
} breaker;

struct mr_redis_node {
    mr_redis_loop *loop;
    mr_redis_node_options options;
    mr_redis_address address;
    node_state state;
    mr_redis_link *data, *news; /* news: the invalidation connection; NULL: none */
    mr_redis_signin signin;
    bool tracks;           /* the server tells of changes, and the watcher knows */
    mr_redis_timer *timer; /* RESTING: connect again; SIGNING_IN: took too long */
    mr_redis_timer *tick;
    int64_t backoff_ms;
    bool was_ready;
    mr_rng rng;
    mr_error why; /* of the last loss */
    command_queue queue;
    breaker breaker;

    atomic_int shown_breaker; /* the last four for other threads */
    atomic_bool shown_ready, shown_tracks;
    atomic_uint_least64_t reconnects;
};

/* redis_queue.c */
void mr_redis_breaker_set(mr_redis_node *node, int state);
void mr_redis_breaker_failed(mr_redis_node *node);
/* Takes a request for the wire; command NULL: a ping, whose reply is dropped. False: no memory. */
bool mr_redis_queue_write(mr_redis_node *node, mr_redis_command *command, const char *wire,
                          size_t len);
void mr_redis_queue_send_waiting(mr_redis_node *node); /* when the node is READY */
typedef enum {
    ANSWER_FINE,
    ANSWER_ODD,    /* the server has lost its place, as *why says: it must be left */
    ANSWER_DEMOTED /* it must be left too: it is no master any more */
} answer_kind;
/* The reply to the oldest request, which ends. */
answer_kind mr_redis_queue_answer(mr_redis_node *node, mr_redis_reply *reply, mr_error *why);
/* Ends what is under way, and what waits when the breaker says that waiting is of no use. */
void mr_redis_queue_fail(mr_redis_node *node, const mr_error *why);
void mr_redis_queue_fail_all(mr_redis_node *node, const mr_error *why);
void mr_redis_queue_expire(mr_redis_node *node, int64_t now_us);

#endif
