/* redis_signin.h - what a node's connections say before the first request: who we are, where to.
 *
 * Each connection sends all its sign-in at once and checks the replies in order; CLIENT TRACKING
 * waits for the other connection's id. What an ACL forbids and we can do without (a name, tracking)
 * is done without; anything else ends the attempt with a message that names the user and the
 * server. Loop thread only; part of redis_node.c.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_REDIS_SIGNIN_H
#define MR_FEATURESTORE_REDIS_SIGNIN_H

#include "featurestore/redis_link.h"

typedef struct {
    const mr_redis_url *url;
    mr_redis_link *data;
    mr_redis_link *news; /* NULL: no tracking */
    bool must_be_master;
    void (*done)(void *context, bool tracks); /* one of the two, once */
    void (*refused)(void *context, const mr_error *why);
    void *context;
} mr_redis_signin_options;

#define MR_REDIS_SIGNIN_STEPS 8

typedef struct {
    mr_redis_signin_options options;
    bool active;
    struct {
        int step[MR_REDIS_SIGNIN_STEPS];
        size_t n, next;
        bool done;
    } data, news;
    int64_t news_id;
    bool no_tracking; /* the server does not let us */
    int64_t pinged_us;
} mr_redis_signin;

void mr_redis_signin_begin(mr_redis_signin *signin, const mr_redis_signin_options *options);
void mr_redis_signin_end(mr_redis_signin *signin); /* nothing is called back any more */

void mr_redis_signin_data_up(mr_redis_signin *signin);
void mr_redis_signin_news_up(mr_redis_signin *signin);
void mr_redis_signin_data(mr_redis_signin *signin, const mr_redis_value *value);
void mr_redis_signin_news(mr_redis_signin *signin, const mr_redis_value *value);

#endif
