/* fake_redis.h - a server on loopback that says what a test tells it, right or wrong.
 *
 *     fake_redis *fake = fake_redis_start(rules, n_rules);
 *     mr_store_open(&store, fake_redis_url(fake), ...);
 *     fake_redis_free(fake);
 *
 * It reads requests as real clients write them and answers each by the first rule whose word begins
 * the request ("MGET", "CLIENT SETNAME"); what no rule names is answered as a real server answers a
 * sign-in: +OK, +PONG, an id, a subscription. Include after cmocka.h.
 * Threads: one thread per server serves one connection after the other, and up to 8 at once.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_FAKE_REDIS_H
#define MR_TESTS_FAKE_REDIS_H

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    FAKE_SAY,        /* bytes (len 0: terminated) as they are */
    FAKE_SAY_SLOWLY, /* one byte at a time, a pause of 1 ms between */
    FAKE_STALL,      /* nothing, ever */
    FAKE_CLOSE,      /* bytes, then the end of the connection */
    FAKE_HALF_CLOSE, /* bytes, then no more from us; what comes is still read */
    FAKE_FLOOD,      /* bytes again and again until the client is gone, or 64 MiB */
} fake_action;

typedef struct {
    const char *command;
    fake_action action;
    const char *bytes;
    size_t len;
    int times; /* how often the rule holds; 0: always */
} fake_rule;

typedef struct fake_redis fake_redis;
fake_redis *fake_redis_start(const fake_rule *rules,
                             size_t n); /* rules are copied, not the bytes */
void fake_redis_free(fake_redis *fake);
const char *fake_redis_url(const fake_redis *fake);
int fake_redis_connections(fake_redis *fake); /* accepted so far */
/* Says it on every connection that is open now, unasked. */
void fake_redis_push(fake_redis *fake, const char *bytes, size_t len);

#endif
