/* redis_sentinel.h - which server is the master now, asked of the Sentinels in turn.
 *
 * Asked before every connection that a node makes, so that a failover is followed as soon as the
 * old master's connections end, which Sentinel sees to; the node itself asks the server for its
 * ROLE, and leaves one that answers READONLY. The Sentinels have their turns, the one behind the
 * last first: so one with old news, which named a server that is no master, is not asked again at
 * once. One that is silent or does not know the master is left for the next. A Sentinel that wants
 * a sign-in gets the URL's. Loop thread only.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_REDIS_SENTINEL_H
#define MR_FEATURESTORE_REDIS_SENTINEL_H

#include "featurestore/redis_node.h"

typedef struct mr_redis_sentinel mr_redis_sentinel;

/* url is borrowed. Any thread. */
MR_NODISCARD mr_status mr_redis_sentinel_new(mr_redis_sentinel **out, mr_redis_loop *loop,
                                             const mr_redis_url *url, int64_t timeout_ms,
                                             mr_error *err);
void mr_redis_sentinel_free(mr_redis_sentinel *sentinel); /* NULL is fine; loop thread once asked */

/* Leads to mr_redis_node_located, later: with the master's address, or why nobody knows it. One
 * question at a time. */
void mr_redis_sentinel_ask(mr_redis_sentinel *sentinel, mr_redis_node *node);
void mr_redis_sentinel_stop(mr_redis_sentinel *sentinel); /* the node does not want to know */

#endif
