/* rpc_reply.c - a call's answer into nghttp2: headers, messages, trailers.
 *
 *   nothing written, finished    one HEADERS frame with the status and END_STREAM
 *   written                      HEADERS; DATA as the queue fills; HEADERS with the status
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core/base64.h"
#include "ranker/service/rpc_private.h"

#define MOST_STATUS_TEXT ((size_t)1024)

/* Names and values lie in one text that grows: until seal, pointers are places in it. */
typedef struct {
    nghttp2_nv *nv;
    size_t n, capacity;
    mr_strbuf text;
} nv_list;

static void push(nv_list *list, size_t name_at, size_t name_len, size_t value_at)
{
    if (list->n == list->capacity) {
        const size_t capacity = list->capacity ? 2 * list->capacity : 16;
        nghttp2_nv *nv = realloc(list->nv, capacity * sizeof *nv);
        if (!nv) {
            list->text.failed = true;
            return;
        }
        list->nv = nv;
        list->capacity = capacity;
    }
    list->nv[list->n++] = (nghttp2_nv){.name = (uint8_t *)name_at,
                                       .value = (uint8_t *)value_at,
                                       .namelen = name_len,
                                       .valuelen = list->text.len - value_at};
}

static void put(nv_list *list, const char *name, const char *value)
{
    const size_t at = list->text.len;
    mr_strbuf_puts(&list->text, name);
    const size_t value_at = list->text.len;
    mr_strbuf_puts(&list->text, value);
    push(list, at, value_at - at, value_at);
}

static void put_metadata(nv_list *list, const mr_rpc_metadata *md)
{
    mr_rpc_pair pair;
    for (size_t i = 0; mr_rpc_metadata_next(md, &i, &pair);) {
        const size_t at = list->text.len;
        mr_strbuf_append(&list->text, pair.name.data, pair.name.len);
        const size_t value_at = list->text.len;
        if (pair.name.len >= 4 && memcmp(pair.name.data + pair.name.len - 4, "-bin", 4) == 0)
            mr_base64_encode_unpadded(&list->text, (mr_bytes){pair.value.data, pair.value.len});
        else
            mr_strbuf_append(&list->text, pair.value.data, pair.value.len);
        push(list, at, pair.name.len, value_at);
    }
}

/* Under the call's lock. */
static void put_status(nv_list *list, const mr_rpc_call *call)
{
    char code[16];
    snprintf(code, sizeof code, "%d", (int)call->code);
    put(list, "grpc-status", code);
    if (call->message) {
        const size_t at = list->text.len;
        mr_strbuf_puts(&list->text, "grpc-message");
        const size_t value_at = list->text.len;
        mr_rpc_message_encode(&list->text, call->message, MOST_STATUS_TEXT);
        push(list, at, value_at - at, value_at);
    }
    put_metadata(list, &call->trailers);
}

static bool seal(nv_list *list)
{
    if (list->text.failed)
        return false;
    for (size_t i = 0; i < list->n; i++) {
        list->nv[i].name = (uint8_t *)list->text.data + (size_t)list->nv[i].name;
        list->nv[i].value = (uint8_t *)list->text.data + (size_t)list->nv[i].value;
    }
    return true;
}

static void release(nv_list *list)
{
    free(list->nv);
    mr_strbuf_release(&list->text);
}

static bool submit_trailers(mr_rpc_stream *stream)
{
    nv_list list = {0};
    pthread_mutex_lock(&stream->call->lock);
    put_status(&list, stream->call);
    pthread_mutex_unlock(&stream->call->lock);
    const bool done = seal(&list) && nghttp2_submit_trailer(stream->conn->session, stream->id,
                                                            list.nv, list.n) == 0;
    release(&list);
    return done;
}

static ssize_t read_reply(nghttp2_session *session, int32_t id, uint8_t *out, size_t size,
                          uint32_t *flags, nghttp2_data_source *source, void *context)
{
    (void)session;
    (void)id;
    (void)context;
    mr_rpc_stream *stream = source->ptr;
    bool last;
    const size_t n = mr_rpc_call_take(stream->call, out, size, &last);
    if (last) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (!submit_trailers(stream))
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    } else if (n == 0) {
        stream->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    return (ssize_t)n;
}

static void submit_response(mr_rpc_stream *stream, bool trailers_only)
{
    mr_rpc_call *call = stream->call;
    const nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = read_reply};
    nv_list list = {0};
    put(&list, ":status", "200");
    put(&list, "content-type", "application/grpc");
    put(&list, "grpc-accept-encoding", MR_RPC_ENCODINGS);
    if (call->accepts_gzip && call->shared->opt.gzip_from != SIZE_MAX && !trailers_only)
        put(&list, "grpc-encoding", "gzip");
    pthread_mutex_lock(&call->lock);
    put_metadata(&list, &call->headers);
    if (trailers_only)
        put_status(&list, call);
    pthread_mutex_unlock(&call->lock);
    stream->responded = true;
    if (!seal(&list) || nghttp2_submit_response(stream->conn->session, stream->id, list.nv, list.n,
                                                trailers_only ? NULL : &provider) != 0)
        (void)nghttp2_submit_rst_stream(stream->conn->session, NGHTTP2_FLAG_NONE, stream->id,
                                        NGHTTP2_INTERNAL_ERROR);
    release(&list);
}

void mr_rpc_stream_http_error(mr_rpc_stream *stream, const char *http_status)
{
    nv_list list = {0};
    put(&list, ":status", http_status);
    stream->responded = stream->discarding = true;
    (void)mr_rpc_call_cancel(stream->call, MR_RPC_UNKNOWN, NULL, true);
    if (!seal(&list) ||
        nghttp2_submit_response(stream->conn->session, stream->id, list.nv, list.n, NULL) != 0)
        (void)nghttp2_submit_rst_stream(stream->conn->session, NGHTTP2_FLAG_NONE, stream->id,
                                        NGHTTP2_INTERNAL_ERROR);
    release(&list);
}

void mr_rpc_stream_advance(mr_rpc_stream *stream)
{
    mr_rpc_call *call = stream->call;
    const mr_rpc_call_state state = mr_rpc_call_look(call, true);
    if (state.writable) {
        if (state.on_writable && !state.finished)
            state.on_writable(call, call->user);
        mr_rpc_stream_resume_input(stream);
    }
    if (stream->ended)
        return;
    if (!stream->responded) {
        if (state.wrote || state.finished)
            submit_response(stream, !state.wrote);
    } else if (stream->deferred && (state.waiting || state.finished)) {
        stream->deferred = false;
        (void)nghttp2_session_resume_data(stream->conn->session, stream->id);
    }
    if (state.finished)
        stream->discarding = true;
    mr_rpc_connection_dirty(stream->conn);
}
