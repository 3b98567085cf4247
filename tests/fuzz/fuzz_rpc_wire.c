/* fuzz_rpc_wire.c - framing, compression and headers of gRPC, from bytes.
 *
 * The first byte chooses how large the pieces are in which the rest arrives.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core/base64.h"
#include "core/utf8.h"
#include "ranker/service/rpc_compress.h"
#include "ranker/service/rpc_wire.h"
#include "tests/fuzz/fuzz.h"

#define MOST ((size_t)1 << 16)

static void require(int condition)
{
    if (!condition)
        abort();
}

static void inflate_both(mr_bytes body)
{
    for (int encoding = MR_RPC_GZIP; encoding <= MR_RPC_DEFLATE; encoding++) {
        mr_rpc_budget budget = {.limit = MOST};
        mr_rpc_buffer plain = {.budget = &budget};
        const mr_rpc_wire result =
            mr_rpc_inflate((mr_rpc_encoding)encoding, body, MOST / 2, &plain);
        require(result != MR_RPC_WIRE_MORE && plain.len <= MOST / 2);
        mr_rpc_buffer_release(&plain);
        require(atomic_load(&budget.used) == 0);
    }
}

static void frames(const uint8_t *data, size_t size, size_t piece)
{
    mr_rpc_budget budget = {.limit = MOST};
    mr_rpc_reader reader = {.limit = MOST / 4, .body.budget = &budget};
    for (size_t at = 0; at < size;) {
        size_t used;
        const size_t n = size - at < piece ? size - at : piece;
        const mr_rpc_wire result = mr_rpc_reader_feed(&reader, data + at, n, &used);
        require(used <= n && atomic_load(&budget.used) <= MOST);
        at += used;
        if (result == MR_RPC_WIRE_OK) {
            require(reader.body.len == reader.length && reader.length <= reader.limit);
            if (reader.compressed)
                inflate_both((mr_bytes){reader.body.data, reader.body.len});
            mr_rpc_buffer_release(&reader.body);
            mr_rpc_reader_next(&reader);
        } else if (result == MR_RPC_WIRE_MORE) {
            require(used == n);
        } else {
            break;
        }
    }
    mr_rpc_buffer_release(&reader.body);
    require(atomic_load(&budget.used) == 0);
}

static void headers(const uint8_t *data, size_t size)
{
    const mr_str text = {(const char *)data, size};
    int64_t us = 0;
    if (mr_rpc_timeout_parse(text, &us))
        require(us >= 0 && us <= INT64_C(99999999) * 3600000000);
    (void)mr_rpc_list_has(text, "gzip");
    (void)mr_rpc_name_valid(text);
    uint8_t *bytes = malloc(size / 4 * 3 + 3);
    size_t len = 0;
    if (bytes && mr_base64_decode_unpadded(text, bytes, &len)) {
        mr_strbuf back = {0};
        require(len <= size / 4 * 3 + 2);
        mr_base64_encode_unpadded(&back, (mr_bytes){bytes, len});
        require(back.len <= size);
        mr_strbuf_release(&back);
    }
    free(bytes);
    char *message = malloc(size + 1);
    if (message) {
        mr_strbuf out = {0};
        memcpy(message, data, size);
        message[size] = '\0';
        mr_rpc_message_encode(&out, message, 100);
        require(out.len <= 900);
        for (size_t i = 0; i < out.len; i++)
            require(out.data[i] >= ' ' && out.data[i] <= '~');
        mr_strbuf_release(&out);
    }
    free(message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    frames(data + 1, size - 1, (size_t)data[0] + 1);
    headers(data + 1, size - 1);
    inflate_both((mr_bytes){data + 1, size - 1});
    return 0;
}
