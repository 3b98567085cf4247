/* redis_reply.c - see redis_reply.h.
 *
 * hiredis calls our functions once per value, parents first, with the task that it works on; the
 * reader's privdata leads to the arena of the reply that is being built. Returning NULL makes
 * hiredis give up with "out of memory"; `refused` remembers what it was in truth.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/redis_reply.h"

#include <inttypes.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>

#define FIRST_CHUNK ((size_t)256)
#define MAX_CHUNK   ((size_t)1 << 20)
#define MAX_DEPTH   7

typedef struct chunk {
    struct chunk *next;
    size_t size, used;
    alignas(max_align_t) char bytes[];
} chunk;

struct mr_redis_reply {
    const mr_redis_value *value;
    chunk *chunks; /* newest first */
    size_t bytes, elements;
};

struct mr_redis_reader {
    redisReader *hiredis;
    mr_redis_reply *building; /* NULL between replies */
    char refused[128];        /* why an object was not made; "" when memory is out */
};

/* ---- values ---------------------------------------------------------------------------------- */

const mr_redis_value *mr_redis_reply_value(const mr_redis_reply *reply)
{
    return reply ? reply->value : NULL;
}

void mr_redis_reply_free(mr_redis_reply *reply)
{
    if (!reply)
        return;
    for (chunk *c = reply->chunks; c;) {
        chunk *next = c->next;
        free(c);
        c = next;
    }
    free(reply);
}

const char *mr_redis_type_name(mr_redis_type type)
{
    static const char *const names[] = {
        [MR_REDIS_NIL] = "nil",     [MR_REDIS_STRING] = "string",   [MR_REDIS_STATUS] = "status",
        [MR_REDIS_ERROR] = "error", [MR_REDIS_INTEGER] = "integer", [MR_REDIS_ARRAY] = "array",
    };
    return (size_t)type < sizeof names / sizeof *names ? names[type] : "unknown type";
}

bool mr_redis_is_error(const mr_redis_value *value, const char *word)
{
    size_t len = strlen(word);
    return value && value->type == MR_REDIS_ERROR && value->len >= len &&
           memcmp(value->str, word, len) == 0 && (value->len == len || value->str[len] == ' ');
}

/* ---- what hiredis calls ---------------------------------------------------------------------- */

static void *take(mr_redis_reader *reader, size_t bytes)
{
    mr_redis_reply *reply = reader->building;
    if (!reply && !(reply = reader->building = calloc(1, sizeof *reply)))
        return NULL;
    chunk *c = reply->chunks;
    bytes = mr_size_round_up(bytes, alignof(max_align_t));
    if (!c || c->size - c->used < bytes) {
        size_t size = c ? c->size * 4 : FIRST_CHUNK;
        if (size > MAX_CHUNK)
            size = MAX_CHUNK;
        if (size < bytes)
            size = bytes;
        if (reply->bytes + size > MR_REDIS_MAX_REPLY_BYTES) {
            snprintf(reader->refused, sizeof reader->refused, "a reply of more than %zu bytes",
                     MR_REDIS_MAX_REPLY_BYTES);
            return NULL;
        }
        c = malloc(sizeof *c + size);
        if (!c)
            return NULL;
        *c = (chunk){.next = reply->chunks, .size = size};
        reply->chunks = c;
        reply->bytes += size;
    }
    void *out = c->bytes + c->used;
    c->used += bytes;
    return out;
}

/* Puts the value where its parent expects it. */
static mr_redis_value *add_value(const redisReadTask *task, mr_redis_value value)
{
    mr_redis_value *out = take(task->privdata, sizeof *out);
    if (!out)
        return NULL;
    *out = value;
    if (task->parent) {
        const mr_redis_value *parent = task->parent->obj;
        ((mr_redis_value **)(uintptr_t)parent->element)[task->idx] = out;
    }
    return out;
}

static void *refuse(const redisReadTask *task, const char *what)
{
    mr_redis_reader *reader = task->privdata;
    snprintf(reader->refused, sizeof reader->refused, "%s", what);
    return NULL;
}

static void *create_string(const redisReadTask *task, char *str, size_t len)
{
    mr_redis_type type = task->type == REDIS_REPLY_ERROR    ? MR_REDIS_ERROR
                         : task->type == REDIS_REPLY_STATUS ? MR_REDIS_STATUS
                                                            : MR_REDIS_STRING;
#if HIREDIS_MAJOR >= 1
    if (task->type == REDIS_REPLY_VERB || task->type == REDIS_REPLY_BIGNUM)
        return refuse(task, "a RESP3 string that was not asked for");
#endif
    char *copy = len < SIZE_MAX / 2 ? take(task->privdata, len + 1) : NULL;
    if (!copy)
        return NULL;
    if (len)
        memcpy(copy, str, len);
    copy[len] = '\0';
    return add_value(task, (mr_redis_value){.type = type, .str = copy, .len = len});
}

static void *create_elements(const redisReadTask *task, size_t n)
{
    mr_redis_reader *reader = task->privdata;
    size_t depth = 0;
    for (const redisReadTask *t = task->parent; t; t = t->parent)
        depth++;
    if (depth >= MAX_DEPTH) /* hiredis 1.x sets no bound of its own */
        return refuse(task, "arrays that are nested too deeply");
    size_t before = reader->building ? reader->building->elements : 0;
    if (n > MR_REDIS_MAX_REPLY_ELEMENTS || before + n > MR_REDIS_MAX_REPLY_ELEMENTS) {
        snprintf(reader->refused, sizeof reader->refused,
                 "a reply of %zu elements, at most %zu are taken", before + n,
                 MR_REDIS_MAX_REPLY_ELEMENTS);
        return NULL;
    }
    mr_redis_value **element = take(reader, (n ? n : 1) * sizeof(mr_redis_value *));
    if (!element)
        return NULL;
    reader->building->elements += n;
    memset(element, 0, n * sizeof(mr_redis_value *));
    return add_value(task, (mr_redis_value){.type = MR_REDIS_ARRAY, .n = n, .element = element});
}

static void *create_integer(const redisReadTask *task, long long value)
{
    return add_value(task, (mr_redis_value){.type = MR_REDIS_INTEGER, .integer = value});
}

static void *create_nil(const redisReadTask *task)
{
    return add_value(task, (mr_redis_value){.type = MR_REDIS_NIL});
}

/* The arena goes as a whole. */
static void free_object(void *object)
{
    (void)object;
}

#if HIREDIS_MAJOR >= 1
/* RESP3 was not asked for: what is beyond RESP2 is refused. */
static void *create_array(const redisReadTask *task, size_t n)
{
    return task->type == REDIS_REPLY_ARRAY ? create_elements(task, n)
                                           : refuse(task, "a RESP3 reply that was not asked for");
}

static void *create_double(const redisReadTask *task, double value, char *str, size_t len)
{
    (void)value, (void)str, (void)len;
    return refuse(task, "a RESP3 double that was not asked for");
}

static void *create_bool(const redisReadTask *task, int value)
{
    (void)value;
    return refuse(task, "a RESP3 boolean that was not asked for");
}
#else
static void *create_array(const redisReadTask *task, int n)
{
    return n < 0 ? refuse(task, "an array of a negative length") : create_elements(task, (size_t)n);
}
#endif

static redisReplyObjectFunctions functions = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
    .createNil = create_nil,
    .freeObject = free_object,
#if HIREDIS_MAJOR >= 1
    .createDouble = create_double,
    .createBool = create_bool,
#endif
};

/* ---- reader ---------------------------------------------------------------------------------- */

mr_status mr_redis_reader_new(mr_redis_reader **out, mr_error *err)
{
    mr_redis_reader *reader = calloc(1, sizeof *reader);
    if (reader)
        reader->hiredis = redisReaderCreateWithFunctions(&functions);
    if (!reader || !reader->hiredis) {
        free(reader);
        return MR_FAIL(err, NO_MEMORY, "no memory to read from Redis");
    }
    reader->hiredis->privdata = reader;
    *out = reader;
    return MR_OK;
}

void mr_redis_reader_free(mr_redis_reader *reader)
{
    if (!reader)
        return;
    redisReaderFree(reader->hiredis);
    mr_redis_reply_free(reader->building);
    free(reader);
}

static mr_status reader_failed(mr_redis_reader *reader, mr_error *err)
{
    if (reader->refused[0])
        return MR_FAIL(err, CORRUPT, "the server sent %s", reader->refused);
    if (reader->hiredis->err == REDIS_ERR_OOM)
        return MR_FAIL(err, NO_MEMORY, "no memory for a reply of Redis");
    return MR_FAIL(err, CORRUPT, "the server does not speak Redis' protocol: %.100s",
                   reader->hiredis->errstr);
}

mr_status mr_redis_reader_feed(mr_redis_reader *reader, const void *data, size_t len, mr_error *err)
{
    if (reader->hiredis->len - reader->hiredis->pos > MR_REDIS_MAX_REPLY_BYTES - len)
        return MR_FAIL(err, CORRUPT, "the server sent a value of more than %zu bytes",
                       MR_REDIS_MAX_REPLY_BYTES);
    return redisReaderFeed(reader->hiredis, data, len) == REDIS_OK ? MR_OK
                                                                   : reader_failed(reader, err);
}

mr_status mr_redis_reader_next(mr_redis_reader *reader, mr_redis_reply **out, mr_error *err)
{
    void *value = NULL;
    *out = NULL;
    if (redisReaderGetReply(reader->hiredis, &value) != REDIS_OK)
        return reader_failed(reader, err);
    if (!value)
        return MR_OK;
    *out = reader->building;
    reader->building = NULL;
    (*out)->value = value;
    return MR_OK;
}

/* ---- requests -------------------------------------------------------------------------------- */

#define HEAD_BYTES 24 /* '$' or '*', 20 digits, CR LF */

bool mr_redis_wire_add(mr_redis_wire *wire, const mr_bytes *args, size_t n)
{
    size_t need = wire->len;
    if (!mr_size_add(need, HEAD_BYTES, &need))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!mr_size_add(need, args[i].len, &need) || !mr_size_add(need, HEAD_BYTES + 2, &need))
            return false;
    }
    if (need > wire->capacity) {
        size_t capacity = wire->capacity < SIZE_MAX / 2 ? 2 * wire->capacity : SIZE_MAX;
        capacity = mr_size_max(need, capacity);
        char *data = realloc(wire->data, capacity);
        if (!data)
            return false;
        wire->data = data;
        wire->capacity = capacity;
    }
    char *to = wire->data + wire->len;
    to += snprintf(to, HEAD_BYTES, "*%zu\r\n", n);
    for (size_t i = 0; i < n; i++) {
        to += snprintf(to, HEAD_BYTES, "$%zu\r\n", args[i].len);
        if (args[i].len)
            memcpy(to, args[i].data, args[i].len);
        to += args[i].len;
        *to++ = '\r';
        *to++ = '\n';
    }
    wire->len = (size_t)(to - wire->data);
    return true;
}

void mr_redis_wire_free(mr_redis_wire *wire)
{
    if (wire->data)
        explicit_bzero(wire->data, wire->len);
    free(wire->data);
    *wire = (mr_redis_wire){0};
}
