/* bench_cache.c - what a hit and a fill cost, and which share of requests are hits, beside a LRU of
 * as many entries in the same run.
 *
 * Records of 1 KiB under keys as the stores make them. The traces ask for items of a catalogue ten
 * times the cache, by Zipf's law, alone or with a walk over the whole catalogue in between (a
 * verification, a backfill), of which only the other requests are counted. `best_share` is what a
 * cache would have that knew the law and held the most popular. Before the clock starts every
 * record is asked for, filled and compared.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/bench.h"
#include "benchmarks/bench_lru.h"
#include "core/options.h"
#include "core/rng.h"
#include "featurestore/cache.h"
#include "featurestore/store_backend.h"

#define RECORD_BYTES 1024
#define KEY_BYTES    48
#define BATCH        4096
#define MAX_THREADS  64
#define IDS          256 /* of a fetch */

typedef struct {
    int64_t megabytes, threads;
    double seconds;
} options;

static const mr_option option_table[] = {
    MR_OPTION_INT("megabytes", 'm', "N", options, megabytes, 1, 4096, "size of the cache"),
    MR_OPTION_INT("threads", 't', "N", options, threads, 1, MAX_THREADS, "that ask at once"),
    MR_OPTION_REAL("seconds", 's', "S", options, seconds, 0.01, 60,
                   "at least this long per figure"),
    MR_OPTION_END,
};
static const mr_command_help help = {
    "bench_cache", "[options]",
    "Hits, fills and hit rates of the cache of records, beside a LRU; one JSON line per figure.",
    NULL};

typedef struct {
    mr_cache *cache;
    lru lru;
    bool use_lru;
    size_t catalogue; /* keys */
    size_t room;      /* entries that the cache takes */
    char (*keys)[KEY_BYTES];
    uint8_t *copied; /* [threads][RECORD_BYTES] */
    atomic_size_t wrong;
} bench;

static mr_bytes key_of(const bench *b, size_t i)
{
    return (mr_bytes){b->keys[i], strlen(b->keys[i])};
}

static mr_bytes record_of(size_t i, uint64_t out[RECORD_BYTES / 8])
{
    for (size_t w = 0; w < RECORD_BYTES / 8; w++)
        out[w] = i * 1000 + w;
    return (mr_bytes){out, RECORD_BYTES};
}

static bool fill(bench *b, size_t i)
{
    uint64_t bytes[RECORD_BYTES / 8];
    const mr_bytes record = record_of(i, bytes);
    mr_cache_fill *one;
    mr_cache_entry *came;
    if (b->use_lru) {
        lru_put(&b->lru, key_of(b, i), record);
        return true;
    }
    if (mr_cache_begin(b->cache, key_of(b, i), NULL, &one, &came) != MR_CACHE_FILL_OURS)
        return false;
    mr_cache_entry *entry = mr_cache_end(b->cache, one, true, record);
    mr_cache_release(entry);
    return entry != NULL;
}

/* Looks a key up; on a hit copies its record where `out` is not NULL. */
static bool get(bench *b, size_t i, void *out)
{
    if (b->use_lru) {
        lru_entry *e = lru_get(&b->lru, key_of(b, i));
        if (e && out)
            memcpy(out, e->bytes, RECORD_BYTES);
        lru_release(e);
        return e != NULL;
    }
    mr_cache_entry *e = mr_cache_get(b->cache, key_of(b, i));
    if (e && out)
        memcpy(out, mr_cache_record(e).data, RECORD_BYTES);
    mr_cache_release(e);
    return e != NULL;
}

static bool check(bench *b)
{
    uint64_t want[RECORD_BYTES / 8], got[RECORD_BYTES / 8];
    for (int l = 0; l < 2; l++) {
        b->use_lru = l;
        for (size_t i = 0; i < b->catalogue; i++) {
            record_of(i, want);
            if (get(b, i, got) || !fill(b, i) || !get(b, i, got) ||
                memcmp(got, want, sizeof want) != 0)
                return false;
        }
    }
    return true;
}

/* ---- hits and fills -------------------------------------------------------------------------- */

typedef struct {
    bench *b;
    const uint32_t *wanted; /* [BATCH] */
    uint8_t *out;
    double until;
    size_t gets;
    double cpu_seconds;
} worker;

/* Of this thread: what a shared machine's other users take of the wall clock is not counted. */
static double cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *ask_until(void *context)
{
    worker *w = context;
    const double start = cpu_now();
    do {
        size_t missed = 0;
        for (size_t i = 0; i < BATCH; i++)
            missed += !get(w->b, w->wanted[i], w->out);
        atomic_fetch_add(&w->b->wrong, missed);
        w->gets += BATCH;
    } while (bench_now() < w->until);
    w->cpu_seconds = cpu_now() - start;
    return NULL;
}

/* Hits per second of CPU time; keys are drawn evenly from what both caches hold. */
static double hit_rate(bench *b, int threads, bool copy, double seconds)
{
    static uint32_t wanted[MAX_THREADS][BATCH];
    worker workers[MAX_THREADS];
    pthread_t ids[MAX_THREADS];
    size_t gets = 0;
    double cpu_seconds = 0;
    mr_rng rng = mr_rng_seed(3);
    const double until = bench_now() + seconds;
    for (int t = 0; t < threads; t++) {
        for (size_t i = 0; i < BATCH; i++)
            wanted[t][i] = (uint32_t)mr_rng_below(&rng, b->room / 2);
        workers[t] =
            (worker){b, wanted[t], copy ? b->copied + (size_t)t * RECORD_BYTES : NULL, until, 0, 0};
        if (pthread_create(&ids[t], NULL, ask_until, &workers[t]) != 0)
            abort();
    }
    for (int t = 0; t < threads; t++) {
        pthread_join(ids[t], NULL);
        gets += workers[t].gets;
        cpu_seconds += workers[t].cpu_seconds;
    }
    return (double)gets / cpu_seconds;
}

static void measure_hits(bench *b, int threads, bool copy, double seconds)
{
    double rate[2] = {0};
    for (int l = 0; l < 2; l++) { /* warms up */
        b->use_lru = l;
        hit_rate(b, threads, copy, seconds / 8);
    }
    for (int turn = 0; turn < 8; turn++) { /* by turns: others may use the machine */
        b->use_lru = turn & 1;
        const double r = hit_rate(b, threads, copy, seconds / 4);
        rate[turn & 1] = r > rate[turn & 1] ? r : rate[turn & 1];
    }
    bench_line_begin("cache", copy ? "hit and copy" : "hit");
    printf(", \"threads\": %d, \"records\": %zu, \"record_bytes\": %d, \"ns\": %.1f, "
           "\"cpu_hits_per_s\": %.0f, \"cpu_lru_hits_per_s\": %.0f, \"over_lru\": %.2f",
           threads, b->room / 2, RECORD_BYTES, 1e9 / rate[0], rate[0], rate[1], rate[0] / rate[1]);
    if (copy)
        printf(", \"copied_gb_s\": %.2f", rate[0] * RECORD_BYTES / 1e9);
    bench_line_end();
}

static void measure_fills(bench *b, double seconds)
{
    double rate[2];
    for (int l = 0; l < 2; l++) {
        static bench_clock clock;
        size_t next = 0;
        b->use_lru = l;
        clock = bench_start(seconds, 10);
        while (bench_more(&clock)) {
            bench_tick(&clock);
            for (size_t i = 0; i < BATCH; i++) { /* a walk: each has left when its turn comes */
                atomic_fetch_add(&b->wrong, get(b, next, NULL));
                fill(b, next);
                next = (next + 1) % b->catalogue;
            }
            bench_tock(&clock);
        }
        rate[l] = BATCH * clock.n / clock.cpu_seconds;
    }
    bench_line_begin("cache", "miss and fill");
    printf(
        ", \"record_bytes\": %d, \"ns\": %.1f, \"cpu_fills_per_s\": %.0f, \"cpu_lru_fills_per_s\": "
        "%.0f, \"over_lru\": %.2f",
        RECORD_BYTES, 1e9 / rate[0], rate[0], rate[1], rate[0] / rate[1]);
    bench_line_end();
}

/* ---- traces ---------------------------------------------------------------------------------- */

static bool begin_empty(bench *b, int64_t megabytes, mr_error *err)
{
    mr_cache_free(b->cache);
    b->cache = NULL;
    lru_destroy(&b->lru);
    return mr_cache_new(&b->cache, (uint64_t)megabytes << 20, err) == MR_OK &&
           lru_init(&b->lru, b->room);
}

/* weight[i]: how often one of the first i + 1 is asked for. */
static void zipf(double *weight, size_t n, double exponent)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        weight[i] = sum += pow((double)(i + 1), -exponent);
    for (size_t i = 0; i < n; i++)
        weight[i] /= sum;
}

static size_t draw(mr_rng *rng, const double *weight, size_t n)
{
    const double at = mr_rng_uniform(rng);
    size_t low = 0, high = n - 1;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (weight[middle] <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool measure_trace(bench *b, const options *opt, double exponent, bool walk, mr_error *err)
{
    const size_t n = b->catalogue, requests = 20 * n;
    double *weight = malloc(n * sizeof *weight);
    size_t hits[2] = {0}, asked = 0;
    if (!weight || !begin_empty(b, opt->megabytes, err)) {
        free(weight);
        return false;
    }
    zipf(weight, n, exponent);
    for (int l = 0; l < 2; l++) {
        mr_rng rng = mr_rng_seed(11);
        size_t next = 0;
        b->use_lru = l;
        asked = 0;
        for (size_t i = 0; i < requests; i++) {
            const size_t key = draw(&rng, weight, n) * 7919 % n; /* popular ones apart */
            const bool hit = get(b, key, NULL) || (fill(b, key), false);
            if (i >= requests / 2) { /* the first half warms up */
                asked++;
                hits[l] += hit;
            }
            if (walk) {
                next = (next + 1) % n;
                (void)(get(b, next, NULL) || fill(b, next));
            }
        }
    }
    bench_line_begin("cache", walk ? "zipf and a walk" : "zipf");
    printf(", \"exponent\": \"%.1f\", \"records\": %zu, \"cached\": %zu, \"hit_share\": %.4f, "
           "\"lru_hit_share\": %.4f, \"best_share\": %.4f",
           exponent, n, b->room, (double)hits[0] / (double)asked, (double)hits[1] / (double)asked,
           weight[b->room - 1]);
    bench_line_end();
    free(weight);
    return true;
}

/* ---- a store with a cache before it ---------------------------------------------------------- */

typedef struct {
    bench *b;
    size_t seen;
    uint8_t *out; /* [IDS][RECORD_BYTES] */
} copy_visit;

static mr_status inner_fetch(void *self, mr_store_key *key, const mr_str *ids, size_t n,
                             mr_store_visit visit, void *context, mr_error *err)
{
    uint64_t bytes[RECORD_BYTES / 8];
    (void)self;
    (void)key;
    (void)ids;
    (void)err;
    const mr_bytes record = record_of(1, bytes);
    for (size_t i = 0; i < n; i++)
        visit(context, i, record);
    return MR_OK;
}

static void inner_close(void *self)
{
    (void)self;
}

static void copy_record(void *context, size_t index, mr_bytes record)
{
    copy_visit *v = context;
    if (record.len == RECORD_BYTES) {
        memcpy(v->out + index * RECORD_BYTES, record.data, RECORD_BYTES);
        v->seen++;
    }
}

/* The store itself takes no time here: what is left is the cache's. */
static bool measure_fetch(bench *b, const options *opt, bool warm, mr_error *err)
{
    static const mr_store_ops ops = {.name = "none", .close = inner_close, .fetch = inner_fetch};
    const mr_store_options store_options = {.cache_bytes = (uint64_t)opt->megabytes << 20};
    static bench_clock clock, copies;
    void *store = NULL;
    mr_str ids[IDS];
    mr_rng rng = mr_rng_seed(8);
    size_t next = 0, fetches = 0;
    mr_store_key key = {.prefix_len = 0};
    copy_visit visit = {.b = b, .out = malloc((size_t)IDS * RECORD_BYTES)};
    uint8_t *source = malloc(b->room * RECORD_BYTES);
    bool fine = visit.out && source &&
                mr_store_cached_open(&store, &ops, NULL, &store_options, err) == MR_OK;
    clock = bench_start(opt->seconds, 50);
    copies = bench_start(opt->seconds, 50);
    if (source)
        memset(source, 1, b->room * RECORD_BYTES);
    for (size_t i = 0; fine && warm && i < b->room / 2; i += IDS) {
        for (size_t k = 0; k < IDS; k++)
            ids[k] = mr_str_of(b->keys[i + k]);
        fine = mr_store_cached_ops.fetch(store, &key, ids, IDS, copy_record, &visit, err) == MR_OK;
    }
    visit.seen = 0;
    while (fine && bench_more(&clock)) {
        size_t from[IDS];
        for (size_t k = 0; k < IDS; k++) {
            next = warm ? (size_t)mr_rng_below(&rng, b->room / 2) : (next + 1) % b->catalogue;
            ids[k] = mr_str_of(b->keys[next]);
            from[k] = mr_rng_below(&rng, b->room);
        }
        bench_tick(&clock);
        fine = mr_store_cached_ops.fetch(store, &key, ids, IDS, copy_record, &visit, err) == MR_OK;
        bench_tock(&clock);
        fetches++;
        bench_tick(&copies); /* the copies alone, from as much memory */
        for (size_t k = 0; k < IDS; k++)
            memcpy(visit.out + k * RECORD_BYTES, source + from[k] * RECORD_BYTES, RECORD_BYTES);
        bench_tock(&copies);
    }
    if (fine && visit.seen == fetches * IDS) {
        bench_line_begin("cache", warm ? "fetch, warm" : "fetch, cold");
        printf(", \"ids\": %d, \"record_bytes\": %d, \"p50_us\": %.1f, \"cpu_us\": %.1f, "
               "\"copies_cpu_us\": %.1f",
               IDS, RECORD_BYTES, 1e6 * bench_median(&clock), 1e6 * clock.cpu_seconds / clock.n,
               1e6 * copies.cpu_seconds / copies.n);
        bench_line_end();
    } else {
        fine = false;
    }
    if (store)
        mr_store_cached_ops.close(store);
    free(visit.out);
    free(source);
    return fine;
}

/* ---- main ------------------------------------------------------------------------------------ */

/* Entries of this size that a cache takes: what is there after three times as many. */
static bool find_room(bench *b, const options *opt, mr_error *err)
{
    mr_cache_stats stats;
    if (mr_cache_new(&b->cache, (uint64_t)opt->megabytes << 20, err) != MR_OK)
        return false;
    for (size_t i = 0; i < b->catalogue; i++)
        fill(b, i);
    mr_cache_stat(b->cache, &stats);
    b->room = (size_t)stats.entries;
    mr_cache_flush(b->cache);
    return lru_init(&b->lru, b->room);
}

int main(int argc, char **argv)
{
    options opt = {.megabytes = 32, .threads = 2, .seconds = 1};
    const options defaults = opt;
    int code;
    mr_error err = {0};
    if (!bench_read_options(&help, option_table, argc, argv, &opt, &defaults, &code))
        return code;

    bench b = {.catalogue = (size_t)opt.megabytes * 10 * 1024 * 1024 / (RECORD_BYTES + 160)};
    b.keys = calloc(b.catalogue, sizeof *b.keys);
    b.copied = calloc((size_t)opt.threads, RECORD_BYTES);
    bool fine = b.keys && b.copied;
    for (size_t i = 0; fine && i < b.catalogue; i++)
        snprintf(b.keys[i], KEY_BYTES, "mixrank:item:00000000c0ffee00:item-%08u", (unsigned)i);
    fine = fine && find_room(&b, &opt, &err);
    if (fine && !check(&b)) {
        fprintf(stderr, "bench_cache: a record is not what was put\n");
        fine = false;
    }
    fine = fine && begin_empty(&b, opt.megabytes, &err);
    if (fine) {
        for (int l = 0; l < 2; l++) {
            b.use_lru = l;
            for (size_t i = 0; i < b.room / 2; i++)
                fill(&b, i);
        }
        measure_hits(&b, 1, false, opt.seconds);
        measure_hits(&b, 1, true, opt.seconds);
        if (opt.threads > 1) {
            measure_hits(&b, (int)opt.threads, false, opt.seconds);
            measure_hits(&b, (int)opt.threads, true, opt.seconds);
        }
    }
    fine = fine && begin_empty(&b, opt.megabytes, &err);
    if (fine)
        measure_fills(&b, opt.seconds);
    fine = fine && measure_fetch(&b, &opt, true, &err) && measure_fetch(&b, &opt, false, &err) &&
           measure_trace(&b, &opt, 0.8, false, &err) && measure_trace(&b, &opt, 1.0, false, &err) &&
           measure_trace(&b, &opt, 0.8, true, &err) && measure_trace(&b, &opt, 1.0, true, &err);
    if (fine && atomic_load(&b.wrong)) {
        fprintf(stderr, "bench_cache: %zu keys were there that should not, or the reverse\n",
                atomic_load(&b.wrong));
        fine = false;
    }
    if (!fine)
        fprintf(stderr, "bench_cache: %s\n", err.message[0] ? err.message : "failed");
    mr_cache_free(b.cache);
    lru_destroy(&b.lru);
    free(b.keys);
    free(b.copied);
    return fine ? 0 : 1;
}
