/* redis_reply.h - requests as bytes, and replies parsed by hiredis into memory that is bounded.
 *
 * hiredis' reader does the protocol (RESP2); its object functions are ours. So a reply is one arena
 * (a batch of 256 values costs two or three allocations, not 512), and a server that announces an
 * array of a billion elements, or never ends a value, meets a limit instead of our memory. hiredis'
 * own asynchronous contexts are not used: they assert on what a server sends (an unasked reply, an
 * odd subscription message), and a process must not die of its peer.
 *
 * Nothing in a reply is to be trusted: who reads one checks its type, and the number of elements
 * against what was asked.
 * Threads: a reader belongs to one thread. A reply may be handed over; read-only from then on.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_REDIS_REPLY_H
#define MR_FEATURESTORE_REDIS_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/error.h"

#define MR_REDIS_MAX_REPLY_BYTES    ((size_t)512 << 20)
#define MR_REDIS_MAX_REPLY_ELEMENTS ((size_t)1 << 20)

typedef enum {
    MR_REDIS_NIL,
    MR_REDIS_STRING,
    MR_REDIS_STATUS,
    MR_REDIS_ERROR,
    MR_REDIS_INTEGER,
    MR_REDIS_ARRAY
} mr_redis_type;

typedef struct mr_redis_value {
    mr_redis_type type;
    int64_t integer;                       /* INTEGER */
    size_t len;                            /* STRING, STATUS, ERROR */
    const char *str;                       /* terminated behind len, never NULL for these three */
    size_t n;                              /* ARRAY */
    struct mr_redis_value *const *element; /* never NULL inside */
} mr_redis_value;

typedef struct mr_redis_reply mr_redis_reply; /* a value and the arena that it lies in */
const mr_redis_value *mr_redis_reply_value(const mr_redis_reply *reply);
void mr_redis_reply_free(mr_redis_reply *reply); /* NULL is fine */

const char *mr_redis_type_name(mr_redis_type type); /* "nil", "string", ... for messages */
/* Whether value is an error that begins with this word ("MOVED", "NOSCRIPT"). */
bool mr_redis_is_error(const mr_redis_value *value, const char *word);

typedef struct mr_redis_reader mr_redis_reader;
MR_NODISCARD mr_status mr_redis_reader_new(mr_redis_reader **out, mr_error *err);
void mr_redis_reader_free(mr_redis_reader *reader); /* NULL is fine */
/* CORRUPT: what came is no RESP2, or beyond the limits; NO_MEMORY. The reader is of no use then. */
MR_NODISCARD mr_status mr_redis_reader_feed(mr_redis_reader *reader, const void *data, size_t len,
                                            mr_error *err);
/* *out is NULL when the bytes so far end within a reply. */
MR_NODISCARD mr_status mr_redis_reader_next(mr_redis_reader *reader, mr_redis_reply **out,
                                            mr_error *err);

/* Appends one request to *wire (grown with realloc; NULL and 0 at first). False: out of memory, and
 * *wire is as before. */
typedef struct {
    char *data; /* owned */
    size_t len;
    size_t capacity;
} mr_redis_wire;
bool mr_redis_wire_add(mr_redis_wire *wire, const mr_bytes *args, size_t n);
void mr_redis_wire_free(mr_redis_wire *wire); /* wipes it: AUTH is in there */

#endif
