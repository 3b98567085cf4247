/* redis_batch.c - see redis_batch.h.
 *
 * A batch that its caller gave up is still with the loop: requests of it wait or are under way. So
 * it is counted, and goes when both have let go. The loop marks what came under the batch's lock,
 * and drops what comes after the caller has left.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/redis_batch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"

typedef struct {
    mr_redis_request request; /* first: a command leads to its slot */
    mr_redis_batch *batch;
    size_t wire_at, wire_len; /* within the batch's wire, which moves while it grows */
    size_t key_at;            /* within the batch's keys */
    mr_redis_address *at;
    mr_redis_reply *reply;
    bool under_way; /* loop thread */
} slot;

struct mr_redis_batch {
    mr_redis_router *router;
    slot *slots;
    size_t n, capacity;
    mr_redis_wire wire;
    char *keys;
    size_t keys_len, keys_capacity;
    int64_t deadline_us, began_us;
    bool patient;
    mr_redis_job submit, abandon;

    atomic_int holders;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    size_t pending; /* the rest is under lock while it runs */
    bool abandoned;
    mr_error first_error; /* status OK: none */
};

mr_redis_request *mr_redis_request_of(mr_redis_command *command)
{
    return (mr_redis_request *)command;
}

mr_status mr_redis_batch_new(mr_redis_batch **out, mr_redis_router *router, mr_error *err)
{
    mr_redis_batch *batch = calloc(1, sizeof *batch);
    pthread_condattr_t monotonic;
    if (!batch)
        return MR_FAIL(err, NO_MEMORY, "no memory for requests to Redis");
    batch->router = router;
    atomic_init(&batch->holders, 1);
    pthread_mutex_init(&batch->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&batch->ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *out = batch;
    return MR_OK;
}

static void let_go(mr_redis_batch *batch, int holders)
{
    if (atomic_fetch_sub(&batch->holders, holders) != holders)
        return;
    for (size_t i = 0; i < batch->n; i++) {
        mr_redis_reply_free(batch->slots[i].reply);
        mr_redis_wire_free(&batch->slots[i].request.own);
        free(batch->slots[i].at);
    }
    free(batch->slots);
    free(batch->keys);
    free(batch->wire.data);
    pthread_cond_destroy(&batch->ended);
    pthread_mutex_destroy(&batch->lock);
    free(batch);
}

void mr_redis_batch_free(mr_redis_batch *batch)
{
    if (batch)
        let_go(batch, 1);
}

/* ---- building -------------------------------------------------------------------------------- */

static bool grow(void **data, size_t *capacity, size_t need, size_t element)
{
    size_t more = mr_size_max(need, 2 * *capacity), bytes;
    if (need <= *capacity)
        return true;
    void *grown = mr_size_mul(more, element, &bytes) ? realloc(*data, bytes) : NULL;
    if (!grown)
        return false;
    *data = grown;
    *capacity = more;
    return true;
}

mr_status mr_redis_batch_add(mr_redis_batch *batch, const mr_bytes *args, size_t n, mr_bytes key,
                             const mr_redis_address *at, mr_error *err)
{
    size_t wire_at = batch->wire.len;
    void *slots = batch->slots, *keys = batch->keys;
    mr_redis_address *copy = NULL;
    bool fine = grow(&slots, &batch->capacity, batch->n + 1, sizeof(slot));
    batch->slots = slots;
    fine = fine && grow(&keys, &batch->keys_capacity, batch->keys_len + key.len, 1);
    batch->keys = keys;
    if (fine && at) {
        copy = malloc(sizeof *copy);
        fine = copy != NULL;
    }
    if (!fine || !mr_redis_wire_add(&batch->wire, args, n)) {
        free(copy);
        return MR_FAIL(err, NO_MEMORY, "no memory for requests to Redis");
    }
    if (copy)
        *copy = *at;
    slot *s = &batch->slots[batch->n++];
    *s = (slot){.batch = batch,
                .wire_at = wire_at,
                .wire_len = batch->wire.len - wire_at,
                .key_at = batch->keys_len,
                .at = copy,
                .request.key.len = key.len};
    if (key.len)
        memcpy(batch->keys + batch->keys_len, key.data, key.len);
    batch->keys_len += key.len;
    return MR_OK;
}

void mr_redis_batch_expect(mr_redis_batch *batch, mr_redis_type type, size_t n)
{
    mr_redis_command *command = &batch->slots[batch->n - 1].request.command;
    command->expect.on = true;
    command->expect.type = type;
    command->expect.n = n;
}

size_t mr_redis_batch_count(const mr_redis_batch *batch)
{
    return batch->n;
}

const mr_redis_value *mr_redis_batch_value(const mr_redis_batch *batch, size_t index)
{
    return mr_redis_reply_value(batch->slots[index].reply);
}

void mr_redis_batch_forget(mr_redis_batch *batch, size_t index)
{
    mr_redis_reply_free(batch->slots[index].reply);
    batch->slots[index].reply = NULL;
}

mr_status mr_redis_batch_replace(mr_redis_batch *batch, size_t index, const mr_bytes *args,
                                 size_t n, mr_error *err)
{
    size_t at = batch->wire.len;
    if (!mr_redis_wire_add(&batch->wire, args, n))
        return MR_FAIL(err, NO_MEMORY, "no memory for requests to Redis");
    batch->slots[index].wire_at = at;
    batch->slots[index].wire_len = batch->wire.len - at;
    mr_redis_batch_forget(batch, index);
    return MR_OK;
}

/* ---- running --------------------------------------------------------------------------------- */

/* Loop thread: how a request ended, for good. */
static void slot_ended(slot *s, mr_redis_reply *reply, const mr_error *why)
{
    mr_redis_batch *batch = s->batch;
    s->under_way = false;
    pthread_mutex_lock(&batch->lock);
    if (batch->abandoned) {
        mr_redis_reply_free(reply);
    } else if (reply) {
        s->reply = reply;
    } else if (batch->first_error.status == MR_OK) {
        batch->first_error = *why;
    }
    bool last = --batch->pending == 0;
    if (last)
        pthread_cond_signal(&batch->ended);
    pthread_mutex_unlock(&batch->lock);
    if (last)
        let_go(batch, 1);
}

static void on_done(mr_redis_command *command, mr_redis_reply *reply, const mr_error *why)
{
    slot *s = (slot *)command;
    mr_redis_router *router = s->batch->router;
    if (router->ended && router->ended(router, &s->request, reply, why))
        return;
    slot_ended(s, reply, why);
}

void mr_redis_request_fail(mr_redis_request *request, const mr_error *why)
{
    slot_ended((slot *)request, NULL, why);
}

static void submit(mr_redis_job *job)
{
    mr_redis_batch *batch =
        (mr_redis_batch *)(uintptr_t)((char *)job - offsetof(mr_redis_batch, submit));
    mr_redis_router *router = batch->router;
    for (size_t i = 0; i < batch->n; i++) {
        if (batch->slots[i].under_way)
            router->route(router, &batch->slots[i].request);
    }
    let_go(batch, 1);
}

static void abandon(mr_redis_job *job)
{
    mr_redis_batch *batch =
        (mr_redis_batch *)(uintptr_t)((char *)job - offsetof(mr_redis_batch, abandon));
    mr_redis_router *router = batch->router;
    for (size_t i = 0; i < batch->n; i++) {
        slot *s = &batch->slots[i];
        if (s->under_way && s->request.command.node)
            mr_redis_node_abandon(&s->request.command);
        if (s->under_way && router->abandon)
            router->abandon(router, &s->request);
    }
    let_go(batch, 1);
}

/* What the loop works with. Before the job is handed in, so that no lock is needed. */
static size_t make_ready(mr_redis_batch *batch)
{
    size_t sent = 0;
    for (size_t i = 0; i < batch->n; i++) {
        slot *s = &batch->slots[i];
        if (s->reply)
            continue;
        mr_redis_command *command = &s->request.command;
        command->wire = batch->wire.data + s->wire_at;
        command->wire_len = s->wire_len;
        command->skip = 0;
        command->patient = batch->patient;
        command->deadline_us = batch->deadline_us;
        command->done = on_done;
        command->node = NULL;
        command->next = command->previous = NULL;
        command->place = 0;
        s->request.key.data = batch->keys + s->key_at;
        s->request.at = s->at;
        s->request.hops = 0;
        s->under_way = true;
        sent++;
    }
    return sent;
}

mr_status mr_redis_batch_run(mr_redis_batch *batch, int64_t deadline_us, bool patient,
                             mr_error *err)
{
    const struct timespec until = {.tv_sec = (time_t)(deadline_us / 1000000),
                                   .tv_nsec = (long)(deadline_us % 1000000 * 1000)};
    if (batch->abandoned)
        return MR_FAIL(err, TIMEOUT, "Redis did not answer in time");
    batch->deadline_us = deadline_us;
    batch->began_us = mr_clock_monotonic_us();
    batch->patient = patient;
    batch->first_error = (mr_error){0};
    batch->pending = make_ready(batch);
    if (batch->pending == 0)
        return MR_OK;
    size_t sent = batch->pending;
    batch->submit.run = submit;
    batch->abandon.run = abandon;
    atomic_fetch_add(&batch->holders, 2); /* the job, and what is pending */
    mr_redis_loop_post(batch->router->loop, &batch->submit);

    pthread_mutex_lock(&batch->lock);
    int rc = 0;
    while (batch->pending && rc == 0)
        rc = pthread_cond_timedwait(&batch->ended, &batch->lock, &until);
    size_t missing = batch->pending;
    if (missing) {
        batch->abandoned = true;
        atomic_fetch_add(&batch->holders, 1);
    }
    pthread_mutex_unlock(&batch->lock);

    if (missing) {
        mr_redis_loop_post(batch->router->loop, &batch->abandon);
        return MR_FAIL(err, TIMEOUT, "Redis did not answer %zu of %zu requests within %lld ms",
                       missing, sent,
                       (long long)(mr_clock_monotonic_us() - batch->began_us) / 1000);
    }
    if (batch->first_error.status == MR_OK)
        return MR_OK;
    if (err)
        *err = batch->first_error;
    return batch->first_error.status;
}
