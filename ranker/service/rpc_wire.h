/* rpc_wire.h - the bytes of gRPC: framing, timeouts, messages of errors, binary headers. No
 * sockets.
 *
 * Specification: PROTOCOL-HTTP2.md of the gRPC project. Everything here takes bytes of a peer.
 * Threads: functions are pure; a reader and a buffer belong to one owner at a time; a budget is
 * shared.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_SERVICE_RPC_WIRE_H
#define MR_RANKER_SERVICE_RPC_WIRE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/strbuf.h"

/* ---- memory that peers make us keep ---- */

/* One bound for many buffers. */
typedef struct {
    atomic_size_t used;
    size_t limit;
} mr_rpc_budget;

/* False, and nothing taken, when that would pass the limit. */
bool mr_rpc_budget_take(mr_rpc_budget *budget, size_t bytes);
/* Beyond the limit too: for replies, which exist already. */
void mr_rpc_budget_force(mr_rpc_budget *budget, size_t bytes);
void mr_rpc_budget_give(mr_rpc_budget *budget, size_t bytes);

/* Bytes that grow as they come; what was allocated is charged to the budget (NULL: to nobody). */
typedef struct {
    uint8_t *data; /* owned */
    size_t len;
    size_t capacity;
    mr_rpc_budget *budget;
} mr_rpc_buffer;

typedef enum {
    MR_RPC_WIRE_OK,
    MR_RPC_WIRE_MORE,      /* the message is not there yet */
    MR_RPC_WIRE_TOO_LARGE, /* above the limit of one message */
    MR_RPC_WIRE_MALFORMED,
    MR_RPC_WIRE_BUDGET, /* the budget is used up, or memory is out */
} mr_rpc_wire;

/* Room for `more` bytes behind len; grows by doubling, never beyond most. */
mr_rpc_wire mr_rpc_buffer_reserve(mr_rpc_buffer *buf, size_t more, size_t most);
void mr_rpc_buffer_release(mr_rpc_buffer *buf); /* keeps the budget; ready for reuse */

/* ---- framing: 1 byte compressed flag, 4 bytes big-endian length, body ---- */

#define MR_RPC_PREFIX 5

void mr_rpc_prefix_write(uint8_t out[MR_RPC_PREFIX], bool compressed, uint32_t len);

/* Takes a message out of pieces that are cut anywhere. A body is never allocated before its bytes
 * come: the buffer at most doubles what has arrived. */
typedef struct {
    mr_rpc_buffer body; /* set body.budget before use */
    size_t limit;       /* of a body */
    uint8_t prefix[MR_RPC_PREFIX];
    uint8_t n_prefix;
    bool compressed; /* valid from the prefix on */
    uint32_t length;
} mr_rpc_reader;

/* Reads from data[0..len), at most to the end of one message; *used says how far. OK: body holds a
 * whole message; take it or release it, then mr_rpc_reader_next. After a failure nothing follows.
 */
mr_rpc_wire mr_rpc_reader_feed(mr_rpc_reader *reader, const uint8_t *data, size_t len,
                               size_t *used);
void mr_rpc_reader_next(mr_rpc_reader *reader);
/* Whether a message has begun and not ended. */
bool mr_rpc_reader_is_partial(const mr_rpc_reader *reader);

/* ---- headers ---- */

/* grpc-timeout: 1 to 8 digits and one of H M S m u n, to microseconds, rounded up. */
bool mr_rpc_timeout_parse(mr_str text, int64_t *us);

/* grpc-message: everything but ' ' to '~' without '%' becomes %XX. At most `most` bytes of text are
 * taken, cut between characters; bytes that are not UTF-8 become U+FFFD. */
void mr_rpc_message_encode(mr_strbuf *out, const char *text, size_t most);

/* Whether the comma-separated list has the word; blanks around words are no part of them. */
bool mr_rpc_list_has(mr_str list, const char *word);

/* A name that metadata may have: 1 to 128 of a-z 0-9 _ - . */
bool mr_rpc_name_valid(mr_str name);

#endif
