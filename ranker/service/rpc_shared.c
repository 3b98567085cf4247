/* rpc_shared.c - limits, methods and counters: what calls need of a server, and may need after it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "ranker/service/rpc_private.h"

#define KIB ((size_t)1024)
#define MIB (KIB * KIB)

static size_t size_or(size_t value, size_t standard)
{
    return value ? value : standard;
}

static int64_t ms_or(int64_t value, int64_t standard)
{
    /* A day is longer than any limit that makes sense, and times 1,000 it cannot overflow. */
    const int64_t most = INT64_C(86400000);
    return value <= 0 ? standard : value < most ? value : most;
}

static mr_rpc_options fill_in(const mr_rpc_options *in)
{
    mr_rpc_options opt = {0};
    opt.loops = in->loops > 0 ? in->loops : 2;
    opt.max_message_bytes = size_or(in->max_message_bytes, 16 * MIB);
    opt.max_buffered_bytes = size_or(in->max_buffered_bytes, 256 * MIB);
    opt.max_calls = size_or(in->max_calls, 4096);
    opt.max_connections = size_or(in->max_connections, 1024);
    opt.max_streams = in->max_streams ? in->max_streams : 256;
    opt.max_header_bytes = in->max_header_bytes ? in->max_header_bytes : 16 * 1024;
    opt.stream_buffer_bytes = size_or(in->stream_buffer_bytes, 256 * KIB);
    opt.gzip_from = size_or(in->gzip_from, SIZE_MAX);
    opt.max_deadline_ms = ms_or(in->max_deadline_ms, 60000);
    opt.upload_ms = ms_or(in->upload_ms, 20000);
    opt.handshake_ms = ms_or(in->handshake_ms, 10000);
    opt.idle_ms = ms_or(in->idle_ms, 900000);
    opt.keepalive_ms = ms_or(in->keepalive_ms, 30000);
    opt.keepalive_answer_ms = ms_or(in->keepalive_answer_ms, 20000);
    opt.stall_ms = ms_or(in->stall_ms, 30000);
    opt.retry_after_ms = in->retry_after_ms ? in->retry_after_ms : 1000;
    opt.metrics = in->metrics;
    return opt;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const mr_rpc_method *)a)->path, ((const mr_rpc_method *)b)->path);
}

mr_rpc_shared *mr_rpc_shared_new(const mr_rpc_options *options)
{
    mr_rpc_shared *shared = calloc(1, sizeof *shared);
    if (!shared)
        return NULL;
    atomic_init(&shared->refs, 1);
    shared->opt = fill_in(options);
    shared->budget.limit = shared->opt.max_buffered_bytes;
    shared->n_methods = options->n_methods;
    shared->methods = calloc(options->n_methods + 1, sizeof *shared->methods);
    if (!shared->methods) {
        mr_rpc_shared_unref(shared);
        return NULL;
    }
    if (shared->n_methods) {
        memcpy(shared->methods, options->methods, shared->n_methods * sizeof *shared->methods);
        qsort(shared->methods, shared->n_methods, sizeof *shared->methods, by_path);
    }
    shared->instruments =
        mr_rpc_instruments_new(options->metrics, shared->methods, shared->n_methods);
    return shared;
}

void mr_rpc_shared_ref(mr_rpc_shared *shared)
{
    atomic_fetch_add_explicit(&shared->refs, 1, memory_order_relaxed);
}

void mr_rpc_shared_unref(mr_rpc_shared *shared)
{
    if (!shared || atomic_fetch_sub_explicit(&shared->refs, 1, memory_order_acq_rel) != 1)
        return;
    mr_rpc_instruments_free(shared->instruments);
    free(shared->methods);
    free(shared);
}

const mr_rpc_method *mr_rpc_shared_find(const mr_rpc_shared *shared, mr_str path)
{
    size_t from = 0, to = shared->n_methods;
    while (from < to) {
        const size_t middle = from + (to - from) / 2;
        const mr_rpc_method *method = &shared->methods[middle];
        const size_t len = strlen(method->path);
        const int order = memcmp(path.data, method->path, path.len < len ? path.len : len);
        if (order == 0 && path.len == len)
            return method;
        if (order < 0 || (order == 0 && path.len < len))
            to = middle;
        else
            from = middle + 1;
    }
    return NULL;
}

void mr_rpc_count(mr_rpc_shared *shared, mr_rpc_counter which, int64_t amount)
{
    atomic_fetch_add_explicit(&shared->count[which], (uint64_t)amount, memory_order_relaxed);
}

uint64_t mr_rpc_counted(const mr_rpc_shared *shared, mr_rpc_counter which)
{
    return atomic_load_explicit(&shared->count[which], memory_order_relaxed);
}

static const char *const code_names[] = {
#define CODE_NAME(name, number) #name,
    MR_RPC_CODE_MAP(CODE_NAME)
#undef CODE_NAME
};

const char *mr_rpc_code_name(mr_rpc_code code)
{
    return (unsigned)code < MR_RPC_CODE_COUNT ? code_names[code] : code_names[MR_RPC_UNKNOWN];
}
