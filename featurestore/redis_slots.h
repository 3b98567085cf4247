/* redis_slots.h - which server of a Redis Cluster has a key: slots, the map of them, redirections.
 *
 * The Redis Cluster specification: a key belongs to slot CRC16(key) mod 16384, where only what
 * stands between the first '{' and the next '}' counts, if there is anything. A cluster tells its
 * map (CLUSTER SLOTS), and a server that a slot has left, or is leaving, says where to ask (MOVED
 * for good, ASK this once). Replies are a peer's word: ranges, ports and lengths are checked, and a
 * map that contradicts itself is refused whole.
 * Threads: pure functions.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_REDIS_SLOTS_H
#define MR_FEATURESTORE_REDIS_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/error.h"
#include "featurestore/redis_reply.h"
#include "featurestore/redis_url.h"

#define MR_REDIS_SLOTS     16384
#define MR_REDIS_MAX_NODES 1024 /* the specification advises against more than 1,000 */
#define MR_REDIS_NO_NODE   UINT16_MAX

/* CRC-16/XMODEM: polynomial 0x1021, from 0, no reflection. "123456789" gives 0x31C3. */
uint16_t mr_redis_crc16(const void *data, size_t len);
unsigned mr_redis_slot(mr_bytes key);

typedef struct {
    size_t n;       /* masters that have slots */
    size_t covered; /* slots that have a master */
    mr_redis_address node[MR_REDIS_MAX_NODES];
    uint16_t owner[MR_REDIS_SLOTS]; /* index into node, or MR_REDIS_NO_NODE */
} mr_redis_slot_map;                /* 300 KiB: not for the stack */

/* Reads the reply to CLUSTER SLOTS; asked is the server that gave it, whose host stands in for one
 * that the reply leaves empty (a server that does not know its own address). A range whose host is
 * unknown to the cluster ("?") has no master. A server without slots gives a map with covered 0.
 * UNSUPPORTED: the server is in no cluster. UNAVAILABLE: another error of the server, quoted.
 * CORRUPT: anything else than a map. *out is of no use after a failure. */
MR_NODISCARD mr_status mr_redis_slots_read(const mr_redis_value *reply,
                                           const mr_redis_address *asked, mr_redis_slot_map *out,
                                           mr_error *err);

typedef enum { MR_REDIS_NO_REDIRECT, MR_REDIS_MOVED, MR_REDIS_ASK } mr_redis_redirect;

/* Reads "MOVED 3999 host:port" and "ASK 3999 host:port". The host may be empty (then it is the
 * asked one's) or an IPv6 address without brackets. NO_REDIRECT for every other reply, and for a
 * redirection that leads nowhere: *slot and *to are untouched. */
mr_redis_redirect mr_redis_redirect_read(const mr_redis_value *reply, const mr_redis_address *asked,
                                         unsigned *slot, mr_redis_address *to);

#endif
