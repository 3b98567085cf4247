/* redis_link.h - one connection to one Redis server: bytes out, replies in, on the loop thread.
 *
 * A link knows no Redis commands: it connects (TCP with keep-alive and no delay, or a socket file;
 * TLS where the URL says so), writes what it is given and calls back per reply. What the replies
 * mean, and when to connect again, is redis_node.h. Loop thread only.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_REDIS_LINK_H
#define MR_FEATURESTORE_REDIS_LINK_H

#include "featurestore/redis_loop.h"
#include "featurestore/redis_reply.h"
#include "featurestore/redis_url.h"

typedef struct mr_redis_link mr_redis_link;

/* Callbacks may send and may free the link. reply belongs to whom it is handed. */
typedef struct {
    void *context;
    void (*up)(void *context); /* connected; sent bytes are on their way only now */
    void (*reply)(void *context, mr_redis_reply *reply);
    void (*down)(void *context, const mr_error *why); /* once; the link is closed, free it */
} mr_redis_link_handler;

/* Begins to connect; what is sent meanwhile waits. A failure that shows at once is told by `down`
 * from the loop too, so that there is one place to handle it. NO_MEMORY otherwise. */
MR_NODISCARD mr_status mr_redis_link_open(mr_redis_link **out, mr_redis_loop *loop,
                                          const mr_redis_address *address, bool tls,
                                          const mr_redis_link_handler *handler, mr_error *err);
/* Without calling `down`. NULL is fine. */
void mr_redis_link_free(mr_redis_link *link);

/* Copies the bytes (from small requests) to what waits to be written, and writes what the socket
 * takes. False: out of memory. Failures of the socket are told by `down`, later. */
bool mr_redis_link_send(mr_redis_link *link, const void *data, size_t len);
int64_t mr_redis_link_heard_us(const mr_redis_link *link); /* when bytes came last; monotonic */

#endif
