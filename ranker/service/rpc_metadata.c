/* rpc_metadata.c - headers of a request and of a reply, name by name in one buffer.
 *
 * A record is the two lengths (u32, little-endian), then name and value.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/base64.h"
#include "ranker/service/rpc_private.h"

#define RECORD      ((size_t)8)
#define MOST_STORED ((size_t)1 << 20) /* far above what limits of headers let through */

static mr_rpc_wire reserve(mr_rpc_metadata *md, mr_str name, size_t value_bytes)
{
    if (name.len > MOST_STORED || value_bytes > MOST_STORED)
        return MR_RPC_WIRE_TOO_LARGE;
    return mr_rpc_buffer_reserve(&md->bytes, RECORD + name.len + value_bytes, MOST_STORED);
}

/* Room was reserved, and the value lies in its place. */
static void commit(mr_rpc_metadata *md, mr_str name, size_t value_bytes)
{
    uint8_t *p = md->bytes.data + md->bytes.len;
    mr_store_u32le(p, (uint32_t)name.len);
    mr_store_u32le(p + 4, (uint32_t)value_bytes);
    memcpy(p + RECORD, name.data, name.len);
    md->bytes.len += RECORD + name.len + value_bytes;
    md->n++;
}

mr_rpc_wire mr_rpc_metadata_add(mr_rpc_metadata *md, mr_str name, mr_str value)
{
    const mr_rpc_wire result = reserve(md, name, value.len);
    if (result != MR_RPC_WIRE_OK)
        return result;
    if (value.len)
        memcpy(md->bytes.data + md->bytes.len + RECORD + name.len, value.data, value.len);
    commit(md, name, value.len);
    return MR_RPC_WIRE_OK;
}

mr_rpc_wire mr_rpc_metadata_receive(mr_rpc_metadata *md, mr_str name, mr_str value)
{
    if (name.len < 4 || memcmp(name.data + name.len - 4, "-bin", 4) != 0)
        return mr_rpc_metadata_add(md, name, value);
    for (size_t from = 0;;) {
        const char *comma =
            value.len > from ? memchr(value.data + from, ',', value.len - from) : NULL;
        size_t to = comma ? (size_t)(comma - value.data) : value.len;
        const size_t next = to + 1;
        while (from < to && value.data[from] == ' ')
            from++;
        while (to > from && value.data[to - 1] == ' ')
            to--;
        const mr_rpc_wire result = reserve(md, name, to - from + 2);
        if (result != MR_RPC_WIRE_OK)
            return result;
        size_t len = 0;
        const mr_str text = {value.data ? value.data + from : NULL, to - from};
        if (!mr_base64_decode_unpadded(text, md->bytes.data + md->bytes.len + RECORD + name.len,
                                       &len))
            return MR_RPC_WIRE_MALFORMED;
        commit(md, name, len);
        if (!comma)
            return MR_RPC_WIRE_OK;
        from = next;
    }
}

bool mr_rpc_metadata_next(const mr_rpc_metadata *md, size_t *at, mr_rpc_pair *out)
{
    if (*at >= md->bytes.len)
        return false;
    const uint8_t *p = md->bytes.data + *at;
    const size_t name = mr_load_u32le(p), value = mr_load_u32le(p + 4);
    out->name = (mr_str){(const char *)p + RECORD, name};
    out->value = (mr_str){(const char *)p + RECORD + name, value};
    *at += RECORD + name + value;
    return true;
}
