/* rpc_compress.c - see rpc_compress.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/service/rpc_compress.h"

#include <stdlib.h>
#include <zlib.h>

#define WINDOW     15
#define GZIP_FLAG  16
#define GZIP_LEVEL 1 /* replies are numbers and ids: higher levels cost much and win little */
#define MOST_IN    ((size_t)1 << 30)
#define STEP       ((size_t)16384)

bool mr_rpc_encoding_parse(mr_str name, mr_rpc_encoding *out)
{
    static const char *const names[] = {"identity", "gzip", "deflate"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (mr_str_equal(name, mr_str_of(names[i]))) {
            *out = (mr_rpc_encoding)i;
            return true;
        }
    }
    return false;
}

mr_rpc_wire mr_rpc_inflate(mr_rpc_encoding encoding, mr_bytes in, size_t most, mr_rpc_buffer *out)
{
    z_stream z = {0};
    mr_rpc_wire result = MR_RPC_WIRE_MALFORMED;
    if (in.len == 0 || in.len > MOST_IN)
        return MR_RPC_WIRE_MALFORMED;
    if (inflateInit2(&z, encoding == MR_RPC_GZIP ? WINDOW + GZIP_FLAG : WINDOW) != Z_OK)
        return MR_RPC_WIRE_BUDGET;
    z.next_in = (Bytef *)(uintptr_t)in.data;
    z.avail_in = (uInt)in.len;
    for (;;) {
        /* At the limit one more byte is asked for, to tell an end from an excess. */
        uint8_t excess;
        const size_t room = most - out->len;
        const size_t step = room < STEP ? room : STEP;
        if (step > 0) {
            result = mr_rpc_buffer_reserve(out, step, most);
            if (result != MR_RPC_WIRE_OK)
                break;
        }
        z.next_out = step ? out->data + out->len : &excess;
        z.avail_out = step ? (uInt)step : 1;
        const uInt before = z.avail_out;
        const int zresult = inflate(&z, Z_NO_FLUSH);
        const uInt got = before - z.avail_out;
        if (step == 0 && got > 0) {
            result = MR_RPC_WIRE_TOO_LARGE;
            break;
        }
        if (step)
            out->len += got;
        if (zresult == Z_STREAM_END) {
            result = z.avail_in == 0 ? MR_RPC_WIRE_OK : MR_RPC_WIRE_MALFORMED;
            break;
        }
        if (zresult != Z_OK || (z.avail_in == 0 && z.avail_out > 0)) { /* damaged, or cut */
            result = zresult == Z_MEM_ERROR ? MR_RPC_WIRE_BUDGET : MR_RPC_WIRE_MALFORMED;
            break;
        }
    }
    inflateEnd(&z);
    return result;
}

bool mr_rpc_gzip(mr_bytes in, size_t reserve, uint8_t **out, size_t *len)
{
    z_stream z = {0};
    if (in.len > MOST_IN ||
        deflateInit2(&z, GZIP_LEVEL, Z_DEFLATED, WINDOW + GZIP_FLAG, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return false;
    const size_t most = deflateBound(&z, (uLong)in.len);
    uint8_t *data = malloc(reserve + most);
    bool done = false;
    if (data) {
        z.next_in = (Bytef *)(uintptr_t)in.data;
        z.avail_in = (uInt)in.len;
        z.next_out = data + reserve;
        z.avail_out = (uInt)most;
        done = deflate(&z, Z_FINISH) == Z_STREAM_END;
        *len = most - z.avail_out;
    }
    deflateEnd(&z);
    if (!done) {
        free(data);
        return false;
    }
    *out = data;
    return true;
}
