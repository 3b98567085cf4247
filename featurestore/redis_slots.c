/* redis_slots.c - see redis_slots.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/redis_slots.h"

#include <stdio.h>
#include <string.h>

/* ---- the slot of a key ----------------------------------------------------------------------- */

/* Four bits at a time: 16 entries, and a key costs less than its way through a socket. */
uint16_t mr_redis_crc16(const void *data, size_t len)
{
    static const uint16_t table[16] = {
        0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
        0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef,
    };
    const uint8_t *bytes = data;
    unsigned crc = 0;
    for (size_t i = 0; i < len; i++) {
        crc = (crc << 4 & 0xffff) ^ table[crc >> 12 ^ bytes[i] >> 4];
        crc = (crc << 4 & 0xffff) ^ table[crc >> 12 ^ (bytes[i] & 15)];
    }
    return (uint16_t)crc;
}

unsigned mr_redis_slot(mr_bytes key)
{
    const char *open = key.len ? memchr(key.data, '{', key.len) : NULL;
    if (open) {
        size_t behind = key.len - (size_t)(open + 1 - (const char *)key.data);
        const char *shut = memchr(open + 1, '}', behind);
        if (shut && shut != open + 1)
            key = (mr_bytes){open + 1, (size_t)(shut - open - 1)};
    }
    return mr_redis_crc16(key.data, key.len) % MR_REDIS_SLOTS;
}

/* ---- the map --------------------------------------------------------------------------------- */

static bool set_host(mr_redis_address *address, const char *host, size_t len)
{
    if (len == 0 || len > MR_REDIS_MAX_HOST || memchr(host, '\0', len))
        return false;
    memcpy(address->host, host, len);
    address->host[len] = '\0';
    return true;
}

typedef enum { NODE_READ, NODE_UNKNOWN, NODE_BROKEN } node_result;

/* [host, port, id, ...] */
static node_result read_node(const mr_redis_value *value, const mr_redis_address *asked,
                             mr_redis_address *out)
{
    if (value->type != MR_REDIS_ARRAY || value->n < 2)
        return NODE_BROKEN;
    const mr_redis_value *host = value->element[0], *port = value->element[1];
    if (port->type != MR_REDIS_INTEGER || port->integer < 1 || port->integer > UINT16_MAX)
        return NODE_BROKEN;
    *out = (mr_redis_address){.port = (uint16_t)port->integer};
    if (host->type == MR_REDIS_NIL || (host->type == MR_REDIS_STRING && host->len == 0)) {
        memcpy(out->host, asked->host, sizeof out->host);
        return NODE_READ;
    }
    if (host->type != MR_REDIS_STRING)
        return NODE_BROKEN;
    if (host->len == 1 && host->str[0] == '?')
        return NODE_UNKNOWN;
    return set_host(out, host->str, host->len) ? NODE_READ : NODE_BROKEN;
}

static bool node_index(mr_redis_slot_map *map, const mr_redis_address *address, size_t *index)
{
    for (size_t i = map->n; i-- > 0;) { /* ranges of one master often come in a row */
        if (mr_redis_address_equal(&map->node[i], address)) {
            *index = i;
            return true;
        }
    }
    if (map->n == MR_REDIS_MAX_NODES)
        return false;
    *index = map->n;
    map->node[map->n++] = *address;
    return true;
}

static mr_status read_range(const mr_redis_value *range, const mr_redis_address *asked,
                            mr_redis_slot_map *map, mr_error *err)
{
    mr_redis_address address;
    size_t index;
    if (range->type != MR_REDIS_ARRAY || range->n < 3 ||
        range->element[0]->type != MR_REDIS_INTEGER || range->element[1]->type != MR_REDIS_INTEGER)
        return MR_FAIL(err, CORRUPT,
                       "a range of CLUSTER SLOTS is no array of two numbers and a server");
    int64_t first = range->element[0]->integer, last = range->element[1]->integer;
    if (first < 0 || first > last || last >= MR_REDIS_SLOTS)
        return MR_FAIL(err, CORRUPT,
                       "a range of CLUSTER SLOTS is %lld to %lld, expected within 0 to %d",
                       (long long)first, (long long)last, MR_REDIS_SLOTS - 1);
    node_result result = read_node(range->element[2], asked, &address);
    if (result == NODE_UNKNOWN)
        return MR_OK;
    if (result == NODE_BROKEN)
        return MR_FAIL(err, CORRUPT,
                       "the master of slots %lld to %lld in CLUSTER SLOTS has no host of 1 to %d "
                       "bytes with a port of 1 to 65535",
                       (long long)first, (long long)last, MR_REDIS_MAX_HOST);
    if (!node_index(map, &address, &index))
        return MR_FAIL(err, CORRUPT, "CLUSTER SLOTS names more than %d masters",
                       MR_REDIS_MAX_NODES);
    for (int64_t slot = first; slot <= last; slot++) {
        if (map->owner[slot] != MR_REDIS_NO_NODE)
            return MR_FAIL(err, CORRUPT, "CLUSTER SLOTS gives slot %lld twice", (long long)slot);
        map->owner[slot] = (uint16_t)index;
    }
    map->covered += (size_t)(last - first + 1);
    return MR_OK;
}

mr_status mr_redis_slots_read(const mr_redis_value *reply, const mr_redis_address *asked,
                              mr_redis_slot_map *out, mr_error *err)
{
    char text[MR_REDIS_ADDRESS_TEXT];
    mr_status status = MR_OK;
    out->n = out->covered = 0;
    for (size_t slot = 0; slot < MR_REDIS_SLOTS; slot++)
        out->owner[slot] = MR_REDIS_NO_NODE;

    if (reply->type == MR_REDIS_ERROR) {
        if (strstr(reply->str, "cluster support disabled"))
            return MR_FAIL(
                err, UNSUPPORTED,
                "Redis at %s is not part of a cluster; write redis:// for a single server",
                mr_redis_address_text(asked, text));
        return MR_FAIL(err, UNAVAILABLE, "Redis at %s does not tell the cluster's slots: %.200s",
                       mr_redis_address_text(asked, text), reply->str);
    }
    if (reply->type != MR_REDIS_ARRAY)
        status = MR_FAIL(err, CORRUPT, "CLUSTER SLOTS is a %s, expected an array",
                         mr_redis_type_name(reply->type));
    for (size_t i = 0; status == MR_OK && i < reply->n; i++)
        status = read_range(reply->element[i], asked, out, err);
    if (status != MR_OK)
        return mr_error_prefix(err, status, "Redis at %s", mr_redis_address_text(asked, text));
    return MR_OK;
}

/* ---- redirections ---------------------------------------------------------------------------- */

/* A number of at most 5 digits that ends at `end`. */
static bool read_number(const char *text, const char *end, unsigned *out)
{
    unsigned value = 0;
    if (text == end || end - text > 5)
        return false;
    for (; text < end; text++) {
        if (*text < '0' || *text > '9')
            return false;
        value = value * 10 + (unsigned)(*text - '0');
    }
    *out = value;
    return true;
}

mr_redis_redirect mr_redis_redirect_read(const mr_redis_value *reply, const mr_redis_address *asked,
                                         unsigned *slot, mr_redis_address *to)
{
    mr_redis_redirect kind = mr_redis_is_error(reply, "MOVED") ? MR_REDIS_MOVED
                             : mr_redis_is_error(reply, "ASK") ? MR_REDIS_ASK
                                                               : MR_REDIS_NO_REDIRECT;
    if (kind == MR_REDIS_NO_REDIRECT)
        return kind;

    const char *number = reply->str + (kind == MR_REDIS_MOVED ? sizeof "MOVED" : sizeof "ASK");
    const char *end = reply->str + reply->len;
    const char *blank = number < end ? memchr(number, ' ', (size_t)(end - number)) : NULL;
    const char *colon = end;
    while (blank && colon > blank && *colon != ':')
        colon--;
    unsigned found, port;
    if (!blank || colon == blank || !read_number(number, blank, &found) ||
        found >= MR_REDIS_SLOTS || !read_number(colon + 1, end, &port) || port < 1 ||
        port > UINT16_MAX)
        return MR_REDIS_NO_REDIRECT;

    mr_redis_address address = {.port = (uint16_t)port};
    const char *host = blank + 1;
    size_t len = (size_t)(colon - host);
    if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
        host++;
        len -= 2;
    }
    if (len == 0)
        memcpy(address.host, asked->host, sizeof address.host);
    else if ((len == 1 && *host == '?') || !set_host(&address, host, len))
        return MR_REDIS_NO_REDIRECT;
    *slot = found;
    *to = address;
    return kind;
}
