/* bench_store.c - what it costs to fetch the embeddings of a request's candidates.
 *
 * Random batches from a store of 1 KiB records (f16 [1, 488] and the header), for each back end in
 * three ways: the records are only touched, copied out, or decoded to f32, which is what a ranking
 * does. Before the clock starts every record is fetched, checked and compared with what was put.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "benchmarks/bench.h"
#include "core/options.h"
#include "core/rng.h"
#include "featurestore/record.h"
#include "featurestore/store.h"

#define SPACE    UINT64_C(0x5eed)
#define DIM      488
#define BYTES    (MR_RECORD_HEADER_BYTES + 2 * DIM)
#define ID_BYTES 20
#define PUT      256

typedef struct {
    int64_t records, batch;
    double seconds;
    const char *folder;
} options;

static const mr_option option_table[] = {
    MR_OPTION_INT("records", 'n', "N", options, records, PUT, 10000000, "records in the store"),
    MR_OPTION_INT("batch", 'b', "N", options, batch, 1, 100000, "ids per fetch"),
    MR_OPTION_REAL("seconds", 's', "S", options, seconds, 0.01, 60,
                   "at least this long per figure"),
    MR_OPTION_STRING("folder", 'd', "DIR", options, folder, "where the LMDB file goes for a while"),
    MR_OPTION_END,
};
static const mr_command_help help = {
    "bench_store", "[options]", "Fetches random batches from each store; one JSON line per figure.",
    NULL};

typedef struct {
    mr_store *store;
    size_t records, batch;
    char (*names)[ID_BYTES];
    mr_str *ids;
    float *values;  /* [batch, DIM] */
    uint8_t *bytes; /* [batch, BYTES] */
    size_t first;   /* of a check: the record that index 0 stands for */
    size_t wrong;
    unsigned sink;
} bench;

/* What record i holds; exact in f16. */
static float value_of(size_t i, size_t d)
{
    return (float)((i * 31 + d * 7) % 2048);
}

static void check_record(void *context, size_t index, mr_bytes record)
{
    bench *b = context;
    float values[DIM];
    mr_record_info info;
    bool right = mr_record_decode(NULL, record, &info, values, DIM, NULL) == MR_OK;
    for (size_t d = 0; right && d < DIM; d++)
        right = values[d] == value_of(b->first + index, d);
    b->wrong += !right;
}

static void touch_record(void *context, size_t index, mr_bytes record)
{
    bench *b = context;
    (void)index;
    b->sink += ((const uint8_t *)record.data)[8];
}

static void copy_record(void *context, size_t index, mr_bytes record)
{
    bench *b = context;
    memcpy(b->bytes + index * BYTES, record.data, BYTES);
}

static void decode_record(void *context, size_t index, mr_bytes record)
{
    bench *b = context;
    mr_record_info info;
    b->wrong += mr_record_decode(NULL, record, &info, b->values + index * DIM, DIM, NULL) != MR_OK;
}

static bool fill(bench *b, double *puts_per_second, mr_error *err)
{
    mr_store_put_item items[PUT];
    uint8_t *bytes = malloc((size_t)PUT * BYTES);
    float values[DIM];
    double inside = 0;
    bool fine = bytes != NULL;
    for (size_t i = 0; fine && i < b->records; i += PUT) {
        size_t n = b->records - i < PUT ? b->records - i : PUT;
        for (size_t k = 0; fine && k < n; k++) {
            mr_record_info info = {
                .dtype = MR_RECORD_F16, .version = i + k, .space = SPACE, .tokens = 1, .dim = DIM};
            for (size_t d = 0; d < DIM; d++)
                values[d] = value_of(i + k, d);
            fine = mr_record_encode(&info, values, bytes + k * BYTES, err) == MR_OK;
            items[k] = (mr_store_put_item){b->ids[i + k], {bytes + k * BYTES, BYTES}};
        }
        double start = bench_now();
        fine = fine && mr_store_put(b->store, MR_ENTITY_ITEM, SPACE, items, n, NULL, err) == MR_OK;
        inside += bench_now() - start;
    }
    *puts_per_second = (double)b->records / inside;
    free(bytes);
    return fine;
}

static bool check(bench *b, mr_error *err)
{
    b->wrong = 0;
    for (b->first = 0; b->first < b->records; b->first += b->batch) {
        size_t left = b->records - b->first, n = left < b->batch ? left : b->batch;
        if (mr_store_fetch(b->store, MR_ENTITY_ITEM, SPACE, b->ids + b->first, n, check_record, b,
                           err) != MR_OK)
            return false;
    }
    return b->wrong == 0;
}

static bool measure(bench *b, const options *opt, const char *what, mr_store_visit visit,
                    mr_error *err)
{
    static bench_clock clock; /* too large for a stack */
    mr_rng rng = mr_rng_seed(5);
    mr_str *wanted = malloc(b->batch * sizeof *wanted);
    bool fine = wanted != NULL;
    b->wrong = 0;
    clock = bench_start(opt->seconds, 100);
    while (fine && bench_more(&clock)) {
        for (size_t i = 0; i < b->batch; i++)
            wanted[i] = b->ids[mr_rng_below(&rng, b->records)];
        bench_tick(&clock);
        fine = mr_store_fetch(b->store, MR_ENTITY_ITEM, SPACE, wanted, b->batch, visit, b, err) ==
               MR_OK;
        bench_tock(&clock);
    }
    free(wanted);
    if (!fine || b->wrong)
        return false;
    bench_line_begin("store", what);
    printf(", \"backend\": \"%s\", \"records\": %zu, \"record_bytes\": %d, \"batch\": %zu, "
           "\"fetches\": %d, \"p50_us\": %.1f, \"p99_us\": %.1f",
           mr_store_backend(b->store), b->records, BYTES, b->batch, clock.n,
           1e6 * bench_median(&clock), 1e6 * bench_quantile(&clock, 0.99));
    bench_line_end();
    return true;
}

static bool run(bench *b, const options *opt, const char *url, mr_error *err)
{
    mr_store_options store_options = MR_STORE_OPTIONS_DEFAULT;
    double puts;
    store_options.max_bytes = UINT64_C(64) << 30;
    store_options.fast_writes = true;
    if (mr_store_open(&b->store, url, &store_options, err) != MR_OK)
        return false;
    bool fine = fill(b, &puts, err);
    if (fine) {
        bench_line_begin("store", "put");
        printf(", \"backend\": \"%s\", \"records\": %zu, \"record_bytes\": %d, \"batch\": %d, "
               "\"puts_per_s\": %.0f",
               mr_store_backend(b->store), b->records, BYTES, PUT, puts);
        bench_line_end();
    }
    fine = fine && check(b, err);
    fine = fine && measure(b, opt, "fetch and touch", touch_record, err);
    fine = fine && measure(b, opt, "fetch and copy", copy_record, err);
    fine = fine && measure(b, opt, "fetch and decode", decode_record, err);
    if (b->wrong)
        fprintf(stderr, "bench_store: %zu records are not what was put\n", b->wrong);
    mr_store_close(b->store);
    return fine;
}

static bool run_lmdb(bench *b, const options *opt, mr_error *err)
{
    char folder[4000], url[4096], file[4096];
    snprintf(folder, sizeof folder, "%s/bench-store-XXXXXX", opt->folder);
    if (!mkdtemp(folder)) {
        (void)MR_FAIL(err, IO, "cannot make a folder in '%.200s'", opt->folder);
        return false;
    }
    snprintf(url, sizeof url, "lmdb:%s", folder);
    bool fine = run(b, opt, url, err);
    static const char *const files[] = {"data.mdb", "lock.mdb"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(file, sizeof file, "%s/%s", folder, files[i]);
        (void)unlink(file);
    }
    (void)rmdir(folder);
    return fine;
}

int main(int argc, char **argv)
{
    options opt = {.records = 200000, .batch = 256, .seconds = 1, .folder = "/tmp"};
    const options defaults = opt;
    int code;
    mr_error err = {0};
    if (!bench_read_options(&help, option_table, argc, argv, &opt, &defaults, &code))
        return code;

    bench b = {.records = (size_t)opt.records, .batch = (size_t)opt.batch};
    b.names = calloc(b.records, sizeof *b.names);
    b.ids = calloc(b.records, sizeof *b.ids);
    b.values = calloc(b.batch, DIM * sizeof(float));
    b.bytes = calloc(b.batch, BYTES);
    bool fine = b.names && b.ids && b.values && b.bytes;
    for (size_t i = 0; fine && i < b.records; i++) {
        snprintf(b.names[i], ID_BYTES, "item-%08u", (unsigned)i);
        b.ids[i] = mr_str_of(b.names[i]);
    }
    fine = fine && run(&b, &opt, "memory:", &err) && run_lmdb(&b, &opt, &err);
    if (!fine)
        fprintf(stderr, "bench_store: %s\n", err.message[0] ? err.message : "failed");
    free(b.names);
    free(b.ids);
    free(b.values);
    free(b.bytes);
    return fine ? 0 : 1;
}
