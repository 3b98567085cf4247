/* rpc_health.c - see rpc_health.h.
 *
 * A watcher is told the latest status, not every one: while its client does not read, changes only
 * mark it as behind, and the writable hook sends what holds then.
 * Locks: health->lock is taken by hooks on loops, and a call's lock inside it; never the other way.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/service/rpc_health.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "proto/grpc/health/v1/health.pb-c.h"

#define MOST_NAME ((size_t)200)

typedef struct watcher {
    struct watcher *previous, *next;
    mr_rpc_health *health;
    mr_rpc_call *call; /* counted while listed */
    bool listed;
    mr_rpc_serving told; /* the last that was written */
    char name[MOST_NAME + 1];
} watcher;

typedef struct {
    char name[MOST_NAME + 1];
    mr_rpc_serving status;
} entry;

struct mr_rpc_health {
    pthread_mutex_t lock;
    entry entries[MR_RPC_HEALTH_MAX_NAMES];
    size_t n;
    watcher *watchers;
    size_t n_watchers;
};

mr_status mr_rpc_health_new(mr_rpc_health **out, mr_error *err)
{
    mr_rpc_health *health = calloc(1, sizeof *health);
    if (!health || pthread_mutex_init(&health->lock, NULL) != 0) {
        free(health);
        return MR_FAIL(err, NO_MEMORY, "the health service");
    }
    *out = health;
    return MR_OK;
}

void mr_rpc_health_free(mr_rpc_health *health)
{
    if (!health)
        return;
    pthread_mutex_destroy(&health->lock);
    free(health);
}

/* ---- statuses; all under the lock ---- */

static entry *find(mr_rpc_health *health, const char *name)
{
    for (size_t i = 0; i < health->n; i++) {
        if (strcmp(health->entries[i].name, name) == 0)
            return &health->entries[i];
    }
    return NULL;
}

static mr_rpc_serving status_of(mr_rpc_health *health, const char *name)
{
    const entry *e = find(health, name);
    return e ? e->status : MR_RPC_SERVICE_UNKNOWN;
}

static void write_status(mr_rpc_call *call, mr_rpc_serving status, bool last,
                         mr_rpc_write_result *result)
{
    uint8_t bytes[16];
    Grpc__Health__V1__HealthCheckResponse reply = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    reply.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)status;
    const size_t len = grpc__health__v1__health_check_response__pack(&reply, bytes);
    if (last)
        mr_rpc_call_reply(call, bytes, len);
    else
        *result = mr_rpc_call_write(call, bytes, len);
}

static void tell(watcher *w)
{
    mr_rpc_write_result result = MR_RPC_GONE;
    const mr_rpc_serving status = status_of(w->health, w->name);
    if (!w->listed || status == w->told)
        return;
    write_status(w->call, status, false, &result);
    if (result == MR_RPC_WRITTEN)
        w->told = status;
}

static void tell_all(mr_rpc_health *health)
{
    for (watcher *w = health->watchers; w; w = w->next)
        tell(w);
}

mr_status mr_rpc_health_set(mr_rpc_health *health, const char *service, mr_rpc_serving status,
                            mr_error *err)
{
    const size_t len = strlen(service);
    if (len > MOST_NAME)
        return MR_FAIL(err, INVALID, "health name of %zu bytes, at most %zu are taken", len,
                       MOST_NAME);
    pthread_mutex_lock(&health->lock);
    entry *e = find(health, service);
    if (!e && health->n < MR_RPC_HEALTH_MAX_NAMES) {
        e = &health->entries[health->n++];
        memcpy(e->name, service, len + 1);
    }
    if (e) {
        e->status = status;
        tell_all(health);
    }
    pthread_mutex_unlock(&health->lock);
    return e ? MR_OK
             : MR_FAIL(err, EXHAUSTED, "health of '%s': %d names are known, which is the most",
                       service, MR_RPC_HEALTH_MAX_NAMES);
}

void mr_rpc_health_set_all(mr_rpc_health *health, mr_rpc_serving status)
{
    pthread_mutex_lock(&health->lock);
    for (size_t i = 0; i < health->n; i++)
        health->entries[i].status = status;
    tell_all(health);
    pthread_mutex_unlock(&health->lock);
}

mr_rpc_serving mr_rpc_health_get(mr_rpc_health *health, const char *service)
{
    pthread_mutex_lock(&health->lock);
    const mr_rpc_serving status = status_of(health, service);
    pthread_mutex_unlock(&health->lock);
    return status;
}

/* ---- methods ---- */

/* False: answered already. */
static bool read_name(mr_rpc_call *call, char name[MOST_NAME + 1])
{
    const mr_bytes bytes = mr_rpc_call_request(call);
    Grpc__Health__V1__HealthCheckRequest *request =
        grpc__health__v1__health_check_request__unpack(NULL, bytes.len, bytes.data);
    if (!request) {
        mr_rpc_call_finish(call, MR_RPC_INVALID_ARGUMENT,
                           "the message is no grpc.health.v1.HealthCheckRequest");
        return false;
    }
    const size_t len = strlen(request->service);
    const bool fits = len <= MOST_NAME;
    if (fits)
        memcpy(name, request->service, len + 1);
    else
        mr_rpc_call_finish(call, MR_RPC_INVALID_ARGUMENT, "service: longer than 200 bytes");
    grpc__health__v1__health_check_request__free_unpacked(request, NULL);
    return fits;
}

static void check(void *context, mr_rpc_call *call)
{
    mr_rpc_health *health = context;
    char name[MOST_NAME + 1];
    if (!read_name(call, name))
        return;
    const mr_rpc_serving status = mr_rpc_health_get(health, name);
    if (status == MR_RPC_SERVICE_UNKNOWN)
        mr_rpc_call_finish(call, MR_RPC_NOT_FOUND, "unknown service");
    else
        write_status(call, status, true, NULL);
}

static void list(void *context, mr_rpc_call *call)
{
    mr_rpc_health *health = context;
    Grpc__Health__V1__HealthCheckResponse status[MR_RPC_HEALTH_MAX_NAMES];
    Grpc__Health__V1__HealthListResponse__StatusesEntry row[MR_RPC_HEALTH_MAX_NAMES];
    Grpc__Health__V1__HealthListResponse__StatusesEntry *rows[MR_RPC_HEALTH_MAX_NAMES];
    Grpc__Health__V1__HealthListResponse reply = GRPC__HEALTH__V1__HEALTH_LIST_RESPONSE__INIT;
    pthread_mutex_lock(&health->lock);
    for (size_t i = 0; i < health->n; i++) {
        grpc__health__v1__health_check_response__init(&status[i]);
        grpc__health__v1__health_list_response__statuses_entry__init(&row[i]);
        status[i].status =
            (Grpc__Health__V1__HealthCheckResponse__ServingStatus)health->entries[i].status;
        row[i].key = health->entries[i].name;
        row[i].value = &status[i];
        rows[i] = &row[i];
    }
    reply.statuses = rows;
    reply.n_statuses = health->n;
    const size_t len = grpc__health__v1__health_list_response__get_packed_size(&reply);
    uint8_t *bytes = malloc(len ? len : 1);
    if (bytes)
        (void)grpc__health__v1__health_list_response__pack(&reply, bytes);
    pthread_mutex_unlock(&health->lock);
    if (bytes)
        mr_rpc_call_reply(call, bytes, len);
    else
        mr_rpc_call_finish(call, MR_RPC_RESOURCE_EXHAUSTED, "no memory for the reply");
    free(bytes);
}

static void unlist(mr_rpc_call *call, void *user)
{
    watcher *w = user;
    mr_rpc_health *health = w->health;
    pthread_mutex_lock(&health->lock);
    const bool was = w->listed;
    if (was) {
        w->listed = false;
        health->n_watchers--;
        if (w->previous)
            w->previous->next = w->next;
        else
            health->watchers = w->next;
        if (w->next)
            w->next->previous = w->previous;
    }
    pthread_mutex_unlock(&health->lock);
    if (was)
        mr_rpc_call_unref(call);
}

static void catch_up(mr_rpc_call *call, void *user)
{
    (void)call;
    watcher *w = user;
    pthread_mutex_lock(&w->health->lock);
    tell(w);
    pthread_mutex_unlock(&w->health->lock);
}

static void watch(void *context, mr_rpc_call *call)
{
    mr_rpc_health *health = context;
    watcher *w = calloc(1, sizeof *w);
    if (!w) {
        mr_rpc_call_finish(call, MR_RPC_RESOURCE_EXHAUSTED, "no memory for a watcher");
        return;
    }
    if (!read_name(call, w->name)) {
        free(w);
        return;
    }
    w->health = health;
    w->call = call;
    w->told = MR_RPC_HEALTH_UNKNOWN;
    mr_rpc_call_attach(call, w, free);
    mr_rpc_call_ref(call);
    pthread_mutex_lock(&health->lock);
    w->listed = health->n_watchers < MR_RPC_HEALTH_MAX_WATCHERS;
    if (w->listed) {
        mr_rpc_write_result ignored;
        health->n_watchers++;
        w->next = health->watchers;
        if (w->next)
            w->next->previous = w;
        health->watchers = w;
        w->told = status_of(health, w->name);
        write_status(call, w->told, false, &ignored);
    }
    const bool listed = w->listed;
    pthread_mutex_unlock(&health->lock);
    if (!listed) {
        mr_rpc_call_finish(call, MR_RPC_RESOURCE_EXHAUSTED, "too many watchers");
        mr_rpc_call_unref(call);
        return;
    }
    mr_rpc_call_on_writable(call, catch_up);
    mr_rpc_call_on_cancel(call, unlist);
}

size_t mr_rpc_health_methods(mr_rpc_health *health, mr_rpc_method out[MR_RPC_HEALTH_METHODS])
{
    out[0] = (mr_rpc_method){.path = "/grpc.health.v1.Health/Check",
                             .kind = MR_RPC_UNARY,
                             .handle = check,
                             .context = health,
                             .open = true};
    out[1] = (mr_rpc_method){.path = "/grpc.health.v1.Health/List",
                             .kind = MR_RPC_UNARY,
                             .handle = list,
                             .context = health,
                             .open = true};
    out[2] = (mr_rpc_method){.path = "/grpc.health.v1.Health/Watch",
                             .kind = MR_RPC_SERVER_STREAM,
                             .handle = watch,
                             .context = health,
                             .open = true,
                             .long_lived = true};
    return MR_RPC_HEALTH_METHODS;
}
