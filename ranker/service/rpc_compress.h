/* rpc_compress.h - gzip and deflate of messages, bounded on the way in.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_SERVICE_RPC_COMPRESS_H
#define MR_RANKER_SERVICE_RPC_COMPRESS_H

#include "ranker/service/rpc_wire.h"

typedef enum {
    MR_RPC_IDENTITY,
    MR_RPC_GZIP,    /* RFC 1952 */
    MR_RPC_DEFLATE, /* RFC 1950, as gRPC means it */
} mr_rpc_encoding;

#define MR_RPC_ENCODINGS "identity,gzip,deflate" /* what grpc-accept-encoding says */

/* False for an encoding that we do not know. */
bool mr_rpc_encoding_parse(mr_str name, mr_rpc_encoding *out);

/* Appends to out, whose budget is charged as it grows: a small message that would become a large
 * one stops at `most` bytes with TOO_LARGE. MALFORMED for a damaged or cut stream, and for anything
 * behind it. */
mr_rpc_wire mr_rpc_inflate(mr_rpc_encoding encoding, mr_bytes in, size_t most, mr_rpc_buffer *out);

/* Whole; false when memory is out or the message is beyond 1 GiB. *out is for free(). The first
 * `reserve` bytes of *out are left for the caller and not counted by *len. */
bool mr_rpc_gzip(mr_bytes in, size_t reserve, uint8_t **out, size_t *len);

#endif
