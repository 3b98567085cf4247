/* rpc_wire.c - see rpc_wire.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/service/rpc_wire.h"

#include <stdlib.h>
#include <string.h>

#include "core/utf8.h"

#define FIRST_CAPACITY ((size_t)1024)

/* ---- budget and buffers ---- */

bool mr_rpc_budget_take(mr_rpc_budget *budget, size_t bytes)
{
    if (!budget)
        return true;
    size_t used = atomic_load_explicit(&budget->used, memory_order_relaxed);
    do {
        if (used > budget->limit || bytes > budget->limit - used)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&budget->used, &used, used + bytes,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

void mr_rpc_budget_force(mr_rpc_budget *budget, size_t bytes)
{
    if (budget)
        atomic_fetch_add_explicit(&budget->used, bytes, memory_order_relaxed);
}

void mr_rpc_budget_give(mr_rpc_budget *budget, size_t bytes)
{
    if (budget)
        atomic_fetch_sub_explicit(&budget->used, bytes, memory_order_relaxed);
}

mr_rpc_wire mr_rpc_buffer_reserve(mr_rpc_buffer *buf, size_t more, size_t most)
{
    if (more > most || buf->len > most - more)
        return MR_RPC_WIRE_TOO_LARGE;
    if (buf->len + more <= buf->capacity)
        return MR_RPC_WIRE_OK;
    size_t capacity = buf->capacity > most / 2 ? most : 2 * buf->capacity;
    capacity = mr_size_max(capacity, FIRST_CAPACITY < most ? FIRST_CAPACITY : most);
    capacity = mr_size_max(capacity, buf->len + more);
    if (!mr_rpc_budget_take(buf->budget, capacity - buf->capacity))
        return MR_RPC_WIRE_BUDGET;
    uint8_t *data = realloc(buf->data, capacity);
    if (!data) {
        mr_rpc_budget_give(buf->budget, capacity - buf->capacity);
        return MR_RPC_WIRE_BUDGET;
    }
    buf->data = data;
    buf->capacity = capacity;
    return MR_RPC_WIRE_OK;
}

void mr_rpc_buffer_release(mr_rpc_buffer *buf)
{
    free(buf->data);
    mr_rpc_budget_give(buf->budget, buf->capacity);
    *buf = (mr_rpc_buffer){.budget = buf->budget};
}

/* ---- framing ---- */

void mr_rpc_prefix_write(uint8_t out[MR_RPC_PREFIX], bool compressed, uint32_t len)
{
    out[0] = compressed ? 1 : 0;
    for (int i = 0; i < 4; i++)
        out[1 + i] = (uint8_t)(len >> (24 - 8 * i));
}

static mr_rpc_wire prefix_read(mr_rpc_reader *reader)
{
    const uint8_t *p = reader->prefix;
    if (p[0] > 1)
        return MR_RPC_WIRE_MALFORMED;
    reader->compressed = p[0] == 1;
    reader->length =
        (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | (uint32_t)p[4];
    return reader->length > reader->limit ? MR_RPC_WIRE_TOO_LARGE : MR_RPC_WIRE_OK;
}

mr_rpc_wire mr_rpc_reader_feed(mr_rpc_reader *reader, const uint8_t *data, size_t len, size_t *used)
{
    size_t at = 0;
    *used = 0;
    while (at < len && reader->n_prefix < MR_RPC_PREFIX) {
        reader->prefix[reader->n_prefix++] = data[at++];
        if (reader->n_prefix == MR_RPC_PREFIX) {
            const mr_rpc_wire result = prefix_read(reader);
            if (result != MR_RPC_WIRE_OK)
                return result;
        }
    }
    *used = at;
    if (reader->n_prefix < MR_RPC_PREFIX)
        return MR_RPC_WIRE_MORE;
    const size_t missing = reader->length - reader->body.len;
    const size_t take = len - at < missing ? len - at : missing;
    if (take > 0) {
        const mr_rpc_wire result = mr_rpc_buffer_reserve(&reader->body, take, reader->length);
        if (result != MR_RPC_WIRE_OK)
            return result;
        memcpy(reader->body.data + reader->body.len, data + at, take);
        reader->body.len += take;
        *used = at + take;
    }
    return take == missing ? MR_RPC_WIRE_OK : MR_RPC_WIRE_MORE;
}

void mr_rpc_reader_next(mr_rpc_reader *reader)
{
    reader->n_prefix = 0;
    reader->length = 0;
    reader->compressed = false;
}

bool mr_rpc_reader_is_partial(const mr_rpc_reader *reader)
{
    return reader->n_prefix > 0;
}

/* ---- headers ---- */

bool mr_rpc_timeout_parse(mr_str text, int64_t *us)
{
    static const struct {
        char unit;
        int64_t us; /* negative: units in a microsecond */
    } units[] = {{'H', INT64_C(3600000000)},
                 {'M', 60000000},
                 {'S', 1000000},
                 {'m', 1000},
                 {'u', 1},
                 {'n', -1000}};
    if (text.len < 2 || text.len > 9)
        return false;
    int64_t value = 0;
    for (size_t i = 0; i + 1 < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = 10 * value + (text.data[i] - '0');
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (text.data[text.len - 1] == units[i].unit) {
            *us = units[i].us > 0 ? value * units[i].us : (value - units[i].us - 1) / -units[i].us;
            return true;
        }
    }
    return false;
}

void mr_rpc_message_encode(mr_strbuf *out, const char *text, size_t most)
{
    static const char replacement[] = "%EF%BF%BD";
    const size_t len = text ? strlen(text) : 0;
    for (size_t i = 0; i < len;) {
        uint32_t c;
        const size_t size = mr_utf8_decode(text + i, len - i, &c);
        if (i + mr_size_max(size, 1) > most)
            break;
        if (size == 0)
            mr_strbuf_puts(out, replacement);
        else if (c >= ' ' && c <= '~' && c != '%')
            mr_strbuf_append(out, text + i, 1);
        else
            for (size_t k = 0; k < size; k++)
                mr_strbuf_printf(out, "%%%02X", (unsigned)(uint8_t)text[i + k]);
        i += mr_size_max(size, 1);
    }
}

bool mr_rpc_list_has(mr_str list, const char *word)
{
    const size_t want = strlen(word);
    for (size_t i = 0; i < list.len;) {
        size_t end = i;
        while (end < list.len && list.data[end] != ',')
            end++;
        size_t from = i, to = end;
        while (from < to && list.data[from] == ' ')
            from++;
        while (to > from && list.data[to - 1] == ' ')
            to--;
        if (to - from == want && memcmp(list.data + from, word, want) == 0)
            return true;
        i = end + 1;
    }
    return false;
}

bool mr_rpc_name_valid(mr_str name)
{
    if (name.len == 0 || name.len > 128)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        const char c = name.data[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_' && c != '.')
            return false;
    }
    return true;
}
