/* bench_store_redis.c - what the store adds to Redis: ratios to bare hiredis in the same run.
 *
 * A redis-server of its own, reached over a socket file or loopback. Each figure takes turns with
 * what a program without a store would do: one MGET of the same keys on a synchronous connection,
 * its reply parsed and freed; for puts, as many pipelined SETs of the same bytes, as
 * redis-benchmark sends them. What is printed is the tenth percentile of each: three threads and a
 * server share the machine with whatever else runs, which makes medians those of the scheduler.
 * Shapes are those of item embeddings: 1 and 4 tokens of 1,024 values, int8 and f16. Before the
 * clock starts every record is fetched through every store and compared with what was put.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/bench.h"
#include "core/options.h"
#include "core/rng.h"
#include "featurestore/record.h"
#include "featurestore/store.h"
#include "tests/redis_server.h"

#define SPACE     UINT64_C(0x5eed)
#define DIM       1024
#define MAX_BATCH 4096
#define ID_BYTES  20
#define KEY_BYTES 64
#define QUIET     0.1 /* the quantile: see above */

typedef struct {
    int64_t records, batch;
    double seconds;
    bool tcp;
} options;

static const mr_option option_table[] = {
    MR_OPTION_INT("records", 'n', "N", options, records, 2 * MAX_BATCH, 1000000,
                  "records in the store"),
    MR_OPTION_INT("batch", 'b', "N", options, batch, 1, MAX_BATCH, "ids per fetch and per put"),
    MR_OPTION_REAL("seconds", 's', "S", options, seconds, 0.01, 60,
                   "at least this long per figure"),
    MR_OPTION_FLAG("tcp", 't', options, tcp, "over loopback instead of a socket file"),
    MR_OPTION_END,
};
static const mr_command_help help = {
    "bench_store_redis", "[options]",
    "Fetches and puts through a Redis store and without one; one JSON line per figure.", NULL};

typedef struct {
    const options *opt;
    redis_server *server;
    redisContext *bare;
    mr_store *store;  /* no cache */
    mr_store *cached; /* a cache with room for all */
    mr_record_dtype dtype;
    size_t tokens, record_bytes, records, batch;
    char (*names)[ID_BYTES];
    mr_str *ids;
    char (*keys)[KEY_BYTES];
    uint8_t *payload; /* [records, record_bytes] */
    uint8_t *newer;   /* [batch, record_bytes]: of a put */
    float *values;    /* [batch, tokens * DIM] */
    size_t *chosen;   /* [batch] */
    mr_str *wanted;   /* [batch] */
    const char **args;
    size_t *arg_lens;
    uint64_t version; /* the last that was given to a put */
    size_t wrong;
    unsigned sink;
} bench;

/* ---- what is looked at ----------------------------------------------------------------------- */

static uint8_t *payload_of(const bench *b, size_t i)
{
    return b->payload + i * b->record_bytes;
}

static bool encode(const bench *b, size_t i, uint64_t version, uint8_t *out, mr_error *err)
{
    mr_record_info info = {.dtype = b->dtype,
                           .version = version,
                           .space = SPACE,
                           .tokens = (uint16_t)b->tokens,
                           .dim = DIM};
    float values[4 * DIM];
    mr_rng rng = mr_rng_seed(i);
    for (size_t d = 0; d < b->tokens * DIM; d++)
        values[d] = (float)mr_rng_uniform(&rng) - 0.5f;
    return mr_record_encode(&info, values, out, err) == MR_OK;
}

static void compare_record(void *context, size_t index, mr_bytes record)
{
    bench *b = context;
    b->wrong += record.len != b->record_bytes ||
                memcmp(record.data, payload_of(b, b->chosen[index]), b->record_bytes) != 0;
}

static void touch_record(void *context, size_t index, mr_bytes record)
{
    bench *b = context;
    (void)index;
    b->sink += record.data ? ((const uint8_t *)record.data)[8] : 0;
    b->wrong += record.data == NULL;
}

static void decode_record(void *context, size_t index, mr_bytes record)
{
    bench *b = context;
    const size_t n = b->tokens * DIM;
    mr_record_info info;
    b->wrong += mr_record_decode(NULL, record, &info, b->values + index * n, n, NULL) != MR_OK;
}

static void choose(bench *b, mr_rng *rng)
{
    for (size_t k = 0; k < b->batch; k++) {
        b->chosen[k] = mr_rng_below(rng, b->records);
        b->wanted[k] = b->ids[b->chosen[k]];
    }
}

static bool fetch(bench *b, mr_store *store, mr_store_visit visit, mr_error *err)
{
    return mr_store_fetch(store, MR_ENTITY_ITEM, SPACE, b->wanted, b->batch, visit, b, err) ==
           MR_OK;
}

/* One MGET by hiredis; visit may be NULL. */
static bool bare_mget(bench *b, mr_store_visit visit)
{
    b->args[0] = "MGET";
    b->arg_lens[0] = 4;
    for (size_t k = 0; k < b->batch; k++) {
        b->args[k + 1] = b->keys[b->chosen[k]];
        b->arg_lens[k + 1] = strlen(b->args[k + 1]);
    }
    redisReply *reply = redisCommandArgv(b->bare, (int)b->batch + 1, b->args, b->arg_lens);
    bool fine = reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == b->batch;
    for (size_t k = 0; fine && visit && k < b->batch; k++)
        visit(b, k, (mr_bytes){reply->element[k]->str, reply->element[k]->len});
    if (reply)
        freeReplyObject(reply);
    return fine;
}

/* ---- fetch ----------------------------------------------------------------------------------- */

static void line_begin(const bench *b, const char *what)
{
    bench_line_begin("store_redis", what);
    printf(", \"socket\": \"%s\", \"dtype\": \"%s\", \"tokens\": %zu, \"dim\": %d, "
           "\"record_bytes\": %zu, \"batch\": %zu",
           b->opt->tcp ? "tcp" : "unix", mr_record_dtype_name(b->dtype), b->tokens, DIM,
           b->record_bytes, b->batch);
}

enum { MGET, MGET_DECODE, FETCH, FETCH_DECODE, WARM, WARM_DECODE, WAYS };

static bool one_way(bench *b, int way, mr_error *err)
{
    switch (way) {
    case MGET: return bare_mget(b, NULL);
    case MGET_DECODE: return bare_mget(b, decode_record);
    case FETCH: return fetch(b, b->store, touch_record, err);
    case FETCH_DECODE: return fetch(b, b->store, decode_record, err);
    case WARM: return fetch(b, b->cached, touch_record, err);
    default: return fetch(b, b->cached, decode_record, err);
    }
}

static bool check_all(bench *b, mr_error *err)
{
    b->wrong = 0;
    for (size_t first = 0; first < b->records; first += b->batch) {
        for (size_t k = 0; k < b->batch; k++) {
            b->chosen[k] = (first + k) % b->records;
            b->wanted[k] = b->ids[b->chosen[k]];
        }
        if (!fetch(b, b->store, compare_record, err) || !fetch(b, b->cached, compare_record, err) ||
            !fetch(b, b->cached, compare_record, err) || !bare_mget(b, compare_record))
            return false;
    }
    if (b->wrong)
        (void)MR_FAIL(err, CORRUPT, "%zu records are not what was put", b->wrong);
    return b->wrong == 0;
}

static bool measure_fetches(bench *b, mr_error *err)
{
    static bench_clock clocks[WAYS]; /* too large for a stack */
    mr_rng rng = mr_rng_seed(5);
    bool fine = true;
    b->wrong = 0;
    for (int way = 0; way < WAYS; way++)
        clocks[way] = bench_start(b->opt->seconds * WAYS, 100);
    while (fine && bench_more(&clocks[0])) {
        choose(b, &rng);
        /* In turns: who comes first finds the server's memory cold. */
        for (int k = 0, first = clocks[0].started; fine && k < WAYS; k++) {
            const int way = (first + k) % WAYS;
            bench_tick(&clocks[way]);
            fine = one_way(b, way, err);
            bench_tock(&clocks[way]);
        }
    }
    if (!fine || b->wrong)
        return false;
    double us[WAYS];
    for (int way = 0; way < WAYS; way++)
        us[way] = 1e6 * bench_quantile(&clocks[way], QUIET);
    line_begin(b, "fetch");
    printf(", \"fetches\": %d, \"mget_us\": %.1f, \"mget_decode_us\": %.1f, \"fetch_us\": %.1f, "
           "\"fetch_decode_us\": %.1f, \"fetch_decode_p50_us\": %.1f, \"fetch_decode_p99_us\": "
           "%.1f, \"warm_us\": %.1f, "
           "\"warm_decode_us\": %.1f, \"fetch_ratio\": %.2f, \"fetch_decode_ratio\": %.2f, "
           "\"decode_both_ratio\": %.2f",
           clocks[MGET].n, us[MGET], us[MGET_DECODE], us[FETCH], us[FETCH_DECODE],
           1e6 * bench_median(&clocks[FETCH_DECODE]),
           1e6 * bench_quantile(&clocks[FETCH_DECODE], 0.99), us[WARM], us[WARM_DECODE],
           us[FETCH] / us[MGET], us[FETCH_DECODE] / us[MGET], us[FETCH_DECODE] / us[MGET_DECODE]);
    bench_line_end();
    return true;
}

static mr_store *open_store(bench *b, uint64_t cache_bytes, mr_error *err)
{
    mr_store_options store_options = MR_STORE_OPTIONS_DEFAULT;
    mr_store *store = NULL;
    store_options.fetch_timeout_ms = 10000; /* of a busy machine the medians count, not failures */
    store_options.cache_bytes = cache_bytes;
    const char *url = b->opt->tcp ? redis_server_url(b->server) : redis_server_url_unix(b->server);
    return mr_store_open(&store, url, &store_options, err) == MR_OK ? store : NULL;
}

/* Every batch of ids once through an empty cache, again and again. */
static bool measure_cold(bench *b, mr_error *err)
{
    static bench_clock bare, cold;
    bool fine = true;
    bare = cold = bench_start(2 * b->opt->seconds, 100);
    while (fine && bench_more(&cold)) {
        mr_store *empty = open_store(b, UINT64_C(4) << 30, err);
        fine = empty != NULL;
        for (size_t first = 0; fine && first + b->batch <= b->records && bench_more(&cold);
             first += b->batch) {
            for (size_t k = 0; k < b->batch; k++) {
                b->chosen[k] = first + k;
                b->wanted[k] = b->ids[first + k];
            }
            for (int k = 0, order = cold.started; fine && k < 2; k++) {
                bench_clock *clock = (order + k) % 2 ? &cold : &bare;
                bench_tick(clock);
                fine = clock == &bare ? bare_mget(b, NULL) : fetch(b, empty, decode_record, err);
                bench_tock(clock);
            }
        }
        mr_store_close(empty);
    }
    if (!fine || b->wrong)
        return false;
    line_begin(b, "fetch through a cold cache");
    printf(", \"fetches\": %d, \"mget_us\": %.1f, \"cold_decode_us\": %.1f, "
           "\"cold_decode_ratio\": %.2f",
           cold.n, 1e6 * bench_quantile(&bare, QUIET), 1e6 * bench_quantile(&cold, QUIET),
           bench_quantile(&cold, QUIET) / bench_quantile(&bare, QUIET));
    bench_line_end();
    return true;
}

/* ---- put ------------------------------------------------------------------------------------- */

/* Under other keys than the put of the same turn, which would find itself stale. */
static bool bare_sets(bench *b)
{
    bool fine = true;
    for (size_t k = 0; fine && k < b->batch; k++) {
        const char *args[] = {"SET", b->keys[(b->chosen[k] + b->records / 2) % b->records],
                              (const char *)b->newer + k * b->record_bytes};
        const size_t lens[] = {3, strlen(args[1]), b->record_bytes};
        fine = redisAppendCommandArgv(b->bare, 3, args, lens) == REDIS_OK;
    }
    for (size_t k = 0; fine && k < b->batch; k++) {
        void *reply = NULL;
        fine = redisGetReply(b->bare, &reply) == REDIS_OK &&
               ((redisReply *)reply)->type == REDIS_REPLY_STATUS;
        if (reply)
            freeReplyObject(reply);
    }
    return fine;
}

static bool store_puts(bench *b, size_t want_written, mr_error *err)
{
    mr_store_put_item items[MAX_BATCH];
    mr_store_put_result result = {0};
    for (size_t k = 0; k < b->batch; k++)
        items[k] =
            (mr_store_put_item){b->wanted[k], {b->newer + k * b->record_bytes, b->record_bytes}};
    if (mr_store_put(b->store, MR_ENTITY_ITEM, SPACE, items, b->batch, &result, err) != MR_OK)
        return false;
    if (result.written != want_written || result.stale != b->batch - want_written) {
        (void)MR_FAIL(err, INTERNAL, "a put wrote %zu and found %zu stale, expected %zu written",
                      result.written, result.stale, want_written);
        return false;
    }
    return true;
}

/* Records of a new version over older ones, then the same once more: stale. */
static bool measure_puts(bench *b, mr_error *err)
{
    static bench_clock sets, puts, stale;
    mr_rng rng = mr_rng_seed(6);
    bool fine = true;
    sets = puts = stale = bench_start(3 * b->opt->seconds, 100);
    while (fine && bench_more(&sets)) {
        size_t first = mr_rng_below(&rng, b->records - b->batch + 1);
        b->version++;
        for (size_t k = 0; fine && k < b->batch; k++) {
            b->chosen[k] = first + k;
            b->wanted[k] = b->ids[first + k];
            fine = encode(b, first + k, b->version, b->newer + k * b->record_bytes, err);
        }
        for (int k = 0, order = puts.started; fine && k < 2; k++) {
            const bool is_put = (order + k) % 2 == 0;
            bench_tick(is_put ? &puts : &sets);
            fine = is_put ? store_puts(b, b->batch, err) : bare_sets(b);
            bench_tock(is_put ? &puts : &sets);
        }
        bench_tick(&stale);
        fine = fine && store_puts(b, 0, err);
        bench_tock(&stale);
    }
    if (!fine)
        return false;
    double n = (double)b->batch;
    line_begin(b, "put");
    printf(", \"puts\": %d, \"sets_per_s\": %.0f, \"puts_per_s\": %.0f, \"stale_per_s\": %.0f, "
           "\"put_ratio\": %.2f",
           puts.n, n / bench_quantile(&sets, QUIET), n / bench_quantile(&puts, QUIET),
           n / bench_quantile(&stale, QUIET),
           bench_quantile(&puts, QUIET) / bench_quantile(&sets, QUIET));
    bench_line_end();
    return true;
}

/* ---- a shape --------------------------------------------------------------------------------- */

static bool fill(bench *b, mr_error *err)
{
    bool fine = true;
    for (size_t first = 0; fine && first < b->records; first += b->batch) {
        size_t n = b->records - first < b->batch ? b->records - first : b->batch;
        mr_store_put_item items[MAX_BATCH];
        for (size_t k = 0; fine && k < n; k++) {
            fine = encode(b, first + k, 1, payload_of(b, first + k), err);
            items[k] =
                (mr_store_put_item){b->ids[first + k], {payload_of(b, first + k), b->record_bytes}};
        }
        fine = fine && mr_store_put(b->store, MR_ENTITY_ITEM, SPACE, items, n, NULL, err) == MR_OK;
    }
    b->version = 1;
    return fine;
}

static bool connect_bare(bench *b, mr_error *err)
{
    b->bare = b->opt->tcp ? redisConnect("127.0.0.1", redis_server_port(b->server))
                          : redisConnectUnix(redis_server_socket(b->server));
    if (b->bare && !b->bare->err)
        return true;
    (void)MR_FAIL(err, UNAVAILABLE, "hiredis does not connect to the server just started");
    return false;
}

static bool run(bench *b, mr_record_dtype dtype, size_t tokens, mr_error *err)
{
    mr_record_info info = {.dtype = dtype, .tokens = (uint16_t)tokens, .dim = DIM};
    b->dtype = dtype;
    b->tokens = tokens;
    b->record_bytes = mr_record_bytes(&info);
    b->payload = calloc(b->records, b->record_bytes);
    b->newer = calloc(b->batch, b->record_bytes);
    bool fine = b->payload && b->newer && (b->server = redis_server_start(NULL)) != NULL &&
                connect_bare(b, err) && (b->store = open_store(b, 0, err)) != NULL &&
                (b->cached = open_store(b, UINT64_C(4) << 30, err)) != NULL;
    fine = fine && fill(b, err) && check_all(b, err) && measure_fetches(b, err) &&
           measure_cold(b, err) && measure_puts(b, err);
    mr_store_close(b->cached);
    mr_store_close(b->store);
    redisFree(b->bare);
    redis_server_free(b->server);
    free(b->payload);
    free(b->newer);
    b->cached = b->store = NULL;
    b->bare = NULL;
    b->server = NULL;
    return fine;
}

int main(int argc, char **argv)
{
    options opt = {.records = 10000, .batch = 256, .seconds = 1};
    const options defaults = opt;
    int code;
    mr_error err = {0};
    if (!bench_read_options(&help, option_table, argc, argv, &opt, &defaults, &code))
        return code;
    if (redis_server_missing())
        return redis_server_skip();

    bench b = {.opt = &opt, .records = (size_t)opt.records, .batch = (size_t)opt.batch};
    b.names = calloc(b.records, sizeof *b.names);
    b.ids = calloc(b.records, sizeof *b.ids);
    b.keys = calloc(b.records, sizeof *b.keys);
    b.values = calloc(b.batch, 4 * DIM * sizeof(float));
    b.chosen = calloc(b.batch, sizeof *b.chosen);
    b.wanted = calloc(b.batch, sizeof *b.wanted);
    b.args = calloc(b.batch + 1, sizeof *b.args);
    b.arg_lens = calloc(b.batch + 1, sizeof *b.arg_lens);
    bool fine =
        b.names && b.ids && b.keys && b.values && b.chosen && b.wanted && b.args && b.arg_lens;
    for (size_t i = 0; fine && i < b.records; i++) {
        snprintf(b.names[i], ID_BYTES, "item-%08u", (unsigned)i);
        snprintf(b.keys[i], KEY_BYTES, "mixrank:item:%016" PRIx64 ":%s", SPACE, b.names[i]);
        b.ids[i] = mr_str_of(b.names[i]);
    }
    static const mr_record_dtype dtypes[] = {MR_RECORD_I8, MR_RECORD_F16};
    for (size_t i = 0; fine && i < 2; i++)
        fine = run(&b, dtypes[i], 1, &err) && run(&b, dtypes[i], 4, &err);
    if (!fine)
        fprintf(stderr, "bench_store_redis: %s\n", err.message[0] ? err.message : "failed");
    free(b.names);
    free(b.ids);
    free(b.keys);
    free(b.values);
    free(b.chosen);
    free(b.wanted);
    free(b.args);
    free(b.arg_lens);
    return fine ? 0 : 1;
}
