/* rpc_call.c - the call as its owner sees it: counted, answered from any thread.
 *
 * Nothing here touches nghttp2 or a socket. What is written goes to a queue under the call's lock,
 * and the call to its loop's mailbox; the loop takes it from there (rpc_stream.c).
 * SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "ranker/service/rpc_private.h"

#define MOST_MESSAGE ((size_t)INT32_MAX)

mr_rpc_call *mr_rpc_call_new(mr_rpc_mailbox *mailbox, const char *peer)
{
    mr_rpc_call *call = calloc(1, sizeof *call);
    if (!call)
        return NULL;
    if (pthread_mutex_init(&call->lock, NULL) != 0) {
        free(call);
        return NULL;
    }
    atomic_init(&call->refs, 1);
    atomic_init(&call->users, 0);
    atomic_init(&call->cancelled, false);
    call->mailbox = mailbox;
    call->shared = mailbox->shared;
    mr_rpc_mailbox_ref(mailbox);
    mr_rpc_shared_ref(call->shared);
    call->metadata.bytes.budget = &call->shared->budget;
    call->request.budget = &call->shared->budget;
    call->headers.bytes.budget = &call->shared->budget;
    call->trailers.bytes.budget = &call->shared->budget;
    call->deadline_us = INT64_MAX;
    snprintf(call->peer, sizeof call->peer, "%s", peer);
    mr_rpc_count(call->shared, MR_RPC_N_CALLS, 1);
    return call;
}

static void free_queue(mr_rpc_call *call)
{
    while (call->out) {
        mr_rpc_out *out = call->out;
        call->out = out->next;
        mr_rpc_budget_give(&call->shared->budget, out->charged);
        free(out->data);
        free(out);
    }
    call->out_last = NULL;
    call->out_at = call->out_bytes = 0;
}

void mr_rpc_call_drop(mr_rpc_call *call)
{
    if (!call || atomic_fetch_sub_explicit(&call->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (call->destroy)
        call->destroy(call->user);
    free_queue(call);
    free(call->message);
    mr_rpc_buffer_release(&call->metadata.bytes);
    mr_rpc_buffer_release(&call->request);
    mr_rpc_buffer_release(&call->headers.bytes);
    mr_rpc_buffer_release(&call->trailers.bytes);
    pthread_mutex_destroy(&call->lock);
    mr_rpc_count(call->shared, MR_RPC_N_CALLS, -1);
    mr_rpc_shared *shared = call->shared;
    mr_rpc_mailbox_unref(call->mailbox);
    free(call);
    mr_rpc_shared_unref(shared);
}

void mr_rpc_call_ref(mr_rpc_call *call)
{
    if (atomic_fetch_add_explicit(&call->users, 1, memory_order_relaxed) == 0)
        atomic_fetch_add_explicit(&call->refs, 1, memory_order_relaxed);
}

void mr_rpc_call_unref(mr_rpc_call *call)
{
    if (!call || atomic_fetch_sub_explicit(&call->users, 1, memory_order_acq_rel) != 1)
        return;
    mr_rpc_call_finish(call, MR_RPC_INTERNAL, "the server gave no answer");
    mr_rpc_call_drop(call);
}

/* ---- what came ---- */

mr_bytes mr_rpc_call_request(const mr_rpc_call *call)
{
    return (mr_bytes){call->request.data, call->request.len};
}

bool mr_rpc_call_request_ended(const mr_rpc_call *call)
{
    return call->request_ended;
}

const char *mr_rpc_call_path(const mr_rpc_call *call)
{
    return call->method ? call->method->path : "unknown";
}

const char *mr_rpc_call_peer(const mr_rpc_call *call)
{
    return call->peer;
}

bool mr_rpc_call_metadata(const mr_rpc_call *call, const char *name, size_t nth, mr_bytes *value)
{
    const mr_str want = mr_str_of(name);
    mr_rpc_pair pair;
    for (size_t at = 0; mr_rpc_metadata_next(&call->metadata, &at, &pair);) {
        if (!mr_str_equal(pair.name, want) || nth-- > 0)
            continue;
        *value = (mr_bytes){pair.value.data, pair.value.len};
        return true;
    }
    return false;
}

int64_t mr_rpc_call_deadline_us(const mr_rpc_call *call)
{
    return call->deadline_us;
}

bool mr_rpc_call_is_cancelled(const mr_rpc_call *call)
{
    return atomic_load_explicit(&call->cancelled, memory_order_relaxed);
}

/* ---- hooks ---- */

void mr_rpc_call_attach(mr_rpc_call *call, void *user, void (*destroy)(void *user))
{
    call->user = user;
    call->destroy = destroy;
}

void *mr_rpc_call_user(const mr_rpc_call *call)
{
    return call->user;
}

void mr_rpc_call_on_cancel(mr_rpc_call *call, mr_rpc_hook hook)
{
    pthread_mutex_lock(&call->lock);
    const bool now = hook && atomic_load(&call->cancelled);
    call->on_cancel = now ? NULL : hook;
    pthread_mutex_unlock(&call->lock);
    if (now)
        hook(call, call->user);
}

void mr_rpc_call_on_writable(mr_rpc_call *call, mr_rpc_hook hook)
{
    pthread_mutex_lock(&call->lock);
    call->on_writable = hook;
    pthread_mutex_unlock(&call->lock);
}

/* ---- what goes out ---- */

static bool is_reserved(mr_str name)
{
    static const char *const allowed[] = {"grpc-retry-pushback-ms", "grpc-status-details-bin"};
    static const char *const refused[] = {"connection", "keep-alive",        "proxy-connection",
                                          "upgrade",    "transfer-encoding", "content-type",
                                          "te",         "content-length",    "trailer"};
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        if (mr_str_equal(name, mr_str_of(allowed[i])))
            return false;
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (mr_str_equal(name, mr_str_of(refused[i])))
            return true;
    }
    return name.len >= 5 && memcmp(name.data, "grpc-", 5) == 0;
}

static mr_status check_pair(mr_str name, mr_bytes value, mr_error *err)
{
    if (!mr_rpc_name_valid(name) || is_reserved(name))
        return MR_FAIL(err, INVALID,
                       "metadata '%.*s': a name is 1 to 128 of a-z 0-9 _ - . and none of the "
                       "protocol's own",
                       MR_STR_ARG(name));
    if (name.len >= 4 && memcmp(name.data + name.len - 4, "-bin", 4) == 0)
        return MR_OK;
    const char *text = value.data;
    for (size_t i = 0; i < value.len; i++) {
        if (text[i] < ' ' || text[i] > '~')
            return MR_FAIL(err, INVALID,
                           "metadata '%.*s': byte %zu is 0x%02x; only names that end in -bin may "
                           "have other bytes than printable ASCII",
                           MR_STR_ARG(name), i, (unsigned)(uint8_t)text[i]);
    }
    if (value.len && (text[0] == ' ' || text[value.len - 1] == ' '))
        return MR_FAIL(err, INVALID, "metadata '%.*s': a value may not begin or end with a blank",
                       MR_STR_ARG(name));
    return MR_OK;
}

static mr_status add(mr_rpc_call *call, mr_rpc_metadata *md, const char *name_text, mr_bytes value,
                     mr_error *err)
{
    const mr_str name = mr_str_of(name_text);
    mr_status status = check_pair(name, value, err);
    if (status != MR_OK)
        return status;
    pthread_mutex_lock(&call->lock);
    const bool late = call->finished || (md == &call->headers && call->wrote);
    if (late)
        status = MR_FAIL(err, INVALID, "metadata '%s' comes after it was sent", name_text);
    else if (value.len > MR_RPC_MOST_METADATA ||
             md->bytes.len + name.len + value.len > MR_RPC_MOST_METADATA)
        status = MR_FAIL(err, EXHAUSTED, "metadata '%s': more than %zu bytes in all", name_text,
                         MR_RPC_MOST_METADATA);
    else if (mr_rpc_metadata_add(md, name, (mr_str){value.data, value.len}) != MR_RPC_WIRE_OK)
        status = MR_FAIL(err, EXHAUSTED, "metadata '%s': no memory", name_text);
    pthread_mutex_unlock(&call->lock);
    return status;
}

mr_status mr_rpc_call_add_header(mr_rpc_call *call, const char *name, mr_bytes value, mr_error *err)
{
    return add(call, &call->headers, name, value, err);
}

mr_status mr_rpc_call_add_trailer(mr_rpc_call *call, const char *name, mr_bytes value,
                                  mr_error *err)
{
    return add(call, &call->trailers, name, value, err);
}

void mr_rpc_call_retry_after(mr_rpc_call *call, uint32_t ms)
{
    char text[16];
    const int n = snprintf(text, sizeof text, "%u", (unsigned)ms);
    (void)add(call, &call->trailers, "grpc-retry-pushback-ms", (mr_bytes){text, (size_t)n}, NULL);
}

/* Under the lock. */
static bool end_call(mr_rpc_call *call, mr_rpc_code code, const char *message)
{
    if (call->finished)
        return false;
    call->finished = true;
    call->code = (unsigned)code < MR_RPC_CODE_COUNT ? code : MR_RPC_UNKNOWN;
    call->message = message && *message ? strdup(message) : NULL;
    return true;
}

static void end_and_post(mr_rpc_call *call, mr_rpc_code code, const char *message, bool by_owner)
{
    pthread_mutex_lock(&call->lock);
    const bool fresh = end_call(call, code, message);
    call->owner_done |= by_owner;
    pthread_mutex_unlock(&call->lock);
    if (fresh)
        mr_rpc_mailbox_post(call->mailbox, call);
}

void mr_rpc_call_finish(mr_rpc_call *call, mr_rpc_code code, const char *message)
{
    end_and_post(call, code, message, true);
}

void mr_rpc_call_abort(mr_rpc_call *call, mr_rpc_code code, const char *message)
{
    end_and_post(call, code, message, false);
}

/* The message with its prefix, compressed when that was asked for and wins something. */
static mr_rpc_out *make_out(const mr_rpc_call *call, const void *data, size_t len)
{
    mr_rpc_out *out = calloc(1, sizeof *out);
    size_t body = len;
    bool compressed = false;
    if (!out)
        return NULL;
    if (call->accepts_gzip && len >= call->shared->opt.gzip_from) {
        compressed = mr_rpc_gzip((mr_bytes){data, len}, MR_RPC_PREFIX, &out->data, &body);
        if (compressed && body >= len) {
            free(out->data);
            out->data = NULL;
            compressed = false;
        }
    }
    if (!compressed) {
        body = len;
        out->data = malloc(MR_RPC_PREFIX + len);
        if (!out->data) {
            free(out);
            return NULL;
        }
        if (len)
            memcpy(out->data + MR_RPC_PREFIX, data, len);
    }
    mr_rpc_prefix_write(out->data, compressed, (uint32_t)body);
    out->len = MR_RPC_PREFIX + body;
    out->charged = out->len + sizeof *out;
    return out;
}

/* Under the lock. */
static mr_rpc_write_result may_write(mr_rpc_call *call)
{
    if (call->finished || atomic_load_explicit(&call->cancelled, memory_order_relaxed))
        return MR_RPC_GONE;
    if (call->out_bytes >= call->shared->opt.stream_buffer_bytes) {
        call->blocked = true;
        return MR_RPC_WOULD_BLOCK;
    }
    return MR_RPC_WRITTEN;
}

static mr_rpc_write_result write_message(mr_rpc_call *call, const void *data, size_t len, bool end)
{
    pthread_mutex_lock(&call->lock);
    mr_rpc_write_result result = may_write(call);
    pthread_mutex_unlock(&call->lock);
    if (result != MR_RPC_WRITTEN)
        return result;
    if (len > MOST_MESSAGE) {
        mr_rpc_call_abort(call, MR_RPC_INTERNAL, "the reply is larger than 2 GiB");
        return MR_RPC_GONE;
    }
    mr_rpc_out *out = make_out(call, data, len); /* not under the lock: it may compress */
    if (!out) {
        mr_rpc_call_abort(call, MR_RPC_RESOURCE_EXHAUSTED, "no memory for the reply");
        return MR_RPC_GONE;
    }
    pthread_mutex_lock(&call->lock);
    result = may_write(call);
    if (result == MR_RPC_WRITTEN) {
        mr_rpc_budget_force(&call->shared->budget, out->charged);
        if (call->out_last)
            call->out_last->next = out;
        else
            call->out = out;
        call->out_last = out;
        call->out_bytes += out->len;
        call->wrote = true;
        if (end) {
            call->finished = call->owner_done = true;
            call->code = MR_RPC_OK;
        }
    }
    pthread_mutex_unlock(&call->lock);
    if (result == MR_RPC_WRITTEN) {
        mr_rpc_mailbox_post(call->mailbox, call);
    } else {
        free(out->data);
        free(out);
    }
    return result;
}

mr_rpc_write_result mr_rpc_call_write(mr_rpc_call *call, const void *data, size_t len)
{
    return write_message(call, data, len, false);
}

void mr_rpc_call_reply(mr_rpc_call *call, const void *data, size_t len)
{
    if (write_message(call, data, len, true) == MR_RPC_WOULD_BLOCK)
        mr_rpc_call_finish(call, MR_RPC_INTERNAL, "a reply behind a stream that is full");
}

void mr_rpc_call_fail(mr_rpc_call *call, const mr_error *err)
{
    mr_rpc_call_finish(call, (mr_rpc_code)mr_status_grpc_code(err->status), err->message);
}

/* ---- the loop's side ---- */

bool mr_rpc_call_cancel(mr_rpc_call *call, mr_rpc_code code, const char *message, bool discard)
{
    pthread_mutex_lock(&call->lock);
    atomic_store(&call->cancelled, true);
    const bool fresh = end_call(call, code, message);
    const mr_rpc_hook hook = call->owner_done ? NULL : call->on_cancel;
    call->on_cancel = NULL;
    if (discard)
        free_queue(call);
    pthread_mutex_unlock(&call->lock);
    if (hook)
        hook(call, call->user);
    return fresh;
}

mr_rpc_call_state mr_rpc_call_look(mr_rpc_call *call, bool advance)
{
    pthread_mutex_lock(&call->lock);
    const mr_rpc_call_state state = {.wrote = call->wrote,
                                     .finished = call->finished,
                                     .waiting = call->out != NULL,
                                     .full =
                                         call->out_bytes >= call->shared->opt.stream_buffer_bytes,
                                     .writable = call->writable_due,
                                     .on_writable = call->on_writable};
    if (advance)
        call->writable_due = false;
    pthread_mutex_unlock(&call->lock);
    return state;
}

void mr_rpc_call_want_room(mr_rpc_call *call)
{
    pthread_mutex_lock(&call->lock);
    call->blocked = true;
    pthread_mutex_unlock(&call->lock);
}

size_t mr_rpc_call_take(mr_rpc_call *call, uint8_t *out, size_t size, bool *last)
{
    size_t n = 0;
    pthread_mutex_lock(&call->lock);
    while (call->out && n < size) {
        mr_rpc_out *first = call->out;
        const size_t left = first->len - call->out_at;
        const size_t take = left < size - n ? left : size - n;
        memcpy(out + n, first->data + call->out_at, take);
        n += take;
        call->out_at += take;
        if (take < left)
            break;
        call->out = first->next;
        call->out_last = call->out ? call->out_last : NULL;
        call->out_at = 0;
        mr_rpc_budget_give(&call->shared->budget, first->charged);
        free(first->data);
        free(first);
    }
    call->out_bytes -= n;
    const bool due = call->blocked && call->out_bytes <= call->shared->opt.stream_buffer_bytes / 2;
    if (due) {
        call->blocked = false;
        call->writable_due = true;
    }
    *last = !call->out && call->finished;
    pthread_mutex_unlock(&call->lock);
    if (due)
        mr_rpc_mailbox_post(call->mailbox, call);
    return n;
}
