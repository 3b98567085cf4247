/* redis_single.c - the router of a store with one server, at a fixed address or found by Sentinel.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "featurestore/redis_batch.h"
#include "featurestore/redis_sentinel.h"

#define MIN_STALL_MS 1000

typedef struct {
    mr_redis_router router; /* first */
    const mr_redis_url *url;
    mr_redis_node *node;
    mr_redis_sentinel *sentinel; /* NULL: the address is fixed */
    mr_store_watcher watcher;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool ready;
    unsigned attempts; /* that failed */
    mr_redis_address address;
    mr_error why; /* of the last */
} single;

static void single_route(mr_redis_router *self, mr_redis_request *request)
{
    mr_redis_node_send(((single *)self)->node, &request->command);
}

static void on_changed(void *context, mr_redis_node *node, bool ready, const mr_error *why)
{
    single *s = context;
    pthread_mutex_lock(&s->lock);
    s->ready = ready;
    if (ready) {
        s->address = *mr_redis_node_address(node);
    } else {
        s->attempts++;
        s->why = *why;
    }
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void single_locate(void *context, mr_redis_node *node)
{
    mr_redis_sentinel_ask(((single *)context)->sentinel, node);
}

static void single_forget(void *context, mr_redis_node *node)
{
    (void)node;
    mr_redis_sentinel_stop(((single *)context)->sentinel);
}

static mr_status single_wait_ready(mr_redis_router *self, int64_t deadline_us, mr_error *err)
{
    single *s = (single *)self;
    const struct timespec until = {.tv_sec = (time_t)(deadline_us / 1000000),
                                   .tv_nsec = (long)(deadline_us % 1000000 * 1000)};
    mr_status status = MR_OK;
    int rc = 0;
    pthread_mutex_lock(&s->lock);
    /* The first failure ends the wait, unless it is a server that is loading its data. */
    while (!s->ready && rc == 0 && !(s->attempts && !strstr(s->why.message, "LOADING")))
        rc = pthread_cond_timedwait(&s->changed, &s->lock, &until);
    if (!s->ready && s->attempts) {
        status = s->why.status;
        if (err)
            *err = s->why;
    } else if (!s->ready) {
        status = MR_FAIL(err, UNAVAILABLE, "'%s' does not answer", s->url->shown);
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

static mr_status single_servers(mr_redis_router *self, mr_redis_address *out, size_t capacity,
                                size_t *n, mr_error *err)
{
    single *s = (single *)self;
    (void)err;
    pthread_mutex_lock(&s->lock);
    if (capacity)
        *out = s->address;
    pthread_mutex_unlock(&s->lock);
    *n = 1;
    return MR_OK;
}

static void single_health(mr_redis_router *self, mr_store_health *out)
{
    mr_redis_node_health(((single *)self)->node, out);
}

static void start_watching(void *context)
{
    single *s = context;
    mr_error why = {0};
    (void)MR_FAIL(&why, UNAVAILABLE, "connecting anew, to be told of changes");
    pthread_mutex_lock(&s->lock);
    s->ready = false;
    s->attempts = 0;
    pthread_mutex_unlock(&s->lock);
    mr_redis_node_restart(s->node, &s->watcher, &why);
    pthread_mutex_lock(&s->lock);
    s->attempts = 0; /* the restart is none */
    pthread_mutex_unlock(&s->lock);
}

static void single_watch(mr_redis_router *self, const mr_store_watcher *watcher)
{
    single *s = (single *)self;
    s->watcher = *watcher;
    mr_redis_loop_call(s->router.loop, start_watching, s);
}

static void single_release(single *s)
{
    mr_redis_sentinel_free(s->sentinel);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static void single_close(mr_redis_router *self)
{
    single *s = (single *)self;
    mr_redis_node_free(s->node);
    single_release(s);
}

typedef struct {
    single *s;
    mr_redis_node_options options;
    mr_error err;
    mr_status status;
} node_call;

static void make_node(void *context)
{
    node_call *call = context;
    single *s = call->s;
    call->status =
        mr_redis_node_new(&s->node, s->router.loop, s->sentinel ? NULL : &s->url->address[0],
                          &call->options, &call->err);
}

mr_status mr_redis_single_open(mr_redis_router **out, mr_redis_loop *loop, const mr_redis_url *url,
                               const mr_store_options *options, mr_error *err)
{
    single *s = calloc(1, sizeof *s);
    pthread_condattr_t monotonic;
    if (!s)
        return MR_FAIL(err, NO_MEMORY, "no memory for a Redis store");
    s->router = (mr_redis_router){.loop = loop,
                                  .route = single_route,
                                  .wait_ready = single_wait_ready,
                                  .servers = single_servers,
                                  .health = single_health,
                                  .watch = single_watch,
                                  .close = single_close};
    s->url = url;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);

    node_call call = {.s = s,
                      .options = {.url = url,
                                  .connect_timeout_ms = options->connect_timeout_ms,
                                  .stall_timeout_ms = options->connect_timeout_ms > MIN_STALL_MS
                                                          ? options->connect_timeout_ms
                                                          : MIN_STALL_MS,
                                  .changed = on_changed,
                                  .context = s}};
    mr_status status = MR_OK;
    if (url->kind == MR_REDIS_SENTINEL) {
        status = mr_redis_sentinel_new(&s->sentinel, loop, url, options->connect_timeout_ms, err);
        call.options.locate = single_locate;
        call.options.forget = single_forget;
        call.options.must_be_master = true;
    }
    if (status == MR_OK) {
        mr_redis_loop_call(loop, make_node, &call);
        status = call.status;
        if (status != MR_OK && err)
            *err = call.err;
    }
    if (status != MR_OK) {
        single_release(s);
        return status;
    }
    *out = &s->router;
    return MR_OK;
}
