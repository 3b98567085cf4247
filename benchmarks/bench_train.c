/* bench_train.c - a training step of a decoder, against the machine's limit.
 *
 *     bench_train [--threads N] [--seconds S]
 *
 * Prints a JSON line for next tokens at the demo's size (4 layers of 192, 2.6 M weights) and at
 * 30 M weights (8 layers of 512), and one for the demo's item encoder (1 layer, one state of a
 * text): rows a second forward and backward, GFLOP/s and their share of the f32 peak that a
 * register-only FMA loop reaches on the same threads in the same run; cpu_share is the same per
 * second of CPU time. Counted are the products of linears and of the head, three times (forward,
 * and back to inputs and weights), not attention, norms and the optimiser. Each thread computes a
 * shard of its own, as the loop does. Before it is timed, gradients are compared with those of the
 * plain ops.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "benchmarks/bench.h"
#include "benchmarks/bench_peak.h"
#include "core/options.h"
#include "core/rng.h"
#include "ranker/training/decoder.h"

#define WINDOW      128
#define WINDOWS     16 /* of a shard */
#define ROWS        (WINDOW * WINDOWS)
#define MAX_THREADS 64

typedef struct {
    int64_t threads;
    double seconds;
} options;

static const mr_option option_table[] = {
    MR_OPTION_INT("threads", 't', "N", options, threads, 0, MAX_THREADS,
                  "threads, a shard each; 0: the CPUs of this process"),
    MR_OPTION_REAL("seconds", 's', "S", options, seconds, 0.01, 600, "least time per figure"),
    MR_OPTION_END,
};
static const mr_command_help help = {"bench_train", "[options]",
                                     "A training step in rows a second and as a share of the FMA "
                                     "peak.",
                                     "  bench_train --threads 2\n"};

typedef struct {
    const char *name;
    mr_model_config config;
    bool pooled; /* an encoder: one state of each text is wanted */
} shape;

#define FAMILY                                                                  \
    .family = MR_FAMILY_QWEN3, .tied = true, .qk_norm = true, .rms_eps = 1e-6f, \
    .max_positions = 2048, .rope_theta = 1e4, .bos_id = -1, .eos_id = -1
static const shape shapes[] = {
    {"demo ranker",
     {FAMILY, .L = 4, .C = 192, .H = 3, .K = 3, .D = 64, .F = 512, .V = 4096},
     false},
    {"30M", {FAMILY, .L = 8, .C = 512, .H = 8, .K = 8, .D = 64, .F = 1536, .V = 8192}, false},
    {"demo encoder",
     {FAMILY, .L = 1, .C = 192, .H = 3, .K = 3, .D = 64, .F = 512, .V = 4096},
     true},
};

typedef struct {
    const shape *shape;
    mr_weights weights;
    mr_decoder_layout layout;
    float *values;
    int32_t ids[ROWS], target[ROWS];
    bool wanted[ROWS];
    mr_span span[WINDOWS];
    mr_pack pack;
    mr_decoder_f32 *run[MAX_THREADS];
    float *gradients[MAX_THREADS], *d_out[MAX_THREADS];
} job;

static void step_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    job *j = context;
    const size_t C = (size_t)j->layout.config.C;
    for (size_t s = begin; s < end; s++) {
        const float *out = mr_decoder_forward_f32(j->run[s], j->values, &j->pack, NULL);
        if (j->shape->pooled)
            for (size_t i = 0; i < WINDOWS * C; i++)
                j->d_out[s][i] = 1e-3f * out[i];
        else
            mr_decoder_next_token_f32(j->run[s], j->values, out, j->target, ROWS, 1.0f / ROWS,
                                      j->d_out[s], j->gradients[s]);
        mr_decoder_backward_f32(j->run[s], j->values, j->d_out[s], j->gradients[s], NULL);
    }
}

static mr_status open_job(job *j, const shape *sh, size_t threads, const mr_ops_f32 *ops,
                          mr_error *err)
{
    mr_rng rng = mr_rng_seed(1);
    *j = (job){.shape = sh};
    mr_weights_begin_part(&j->weights, "llm");
    mr_status status = mr_decoder_add(&j->layout, &sh->config, false, &j->weights, err);
    const size_t n = j->weights.total;
    j->values = calloc(n, sizeof(float));
    for (size_t r = 0; r < ROWS; r++) {
        j->ids[r] = (int32_t)mr_rng_below(&rng, (uint64_t)sh->config.V);
        j->target[r] = (int32_t)mr_rng_below(&rng, (uint64_t)sh->config.V);
        j->wanted[r] = r % WINDOW == WINDOW - 1;
    }
    for (size_t w = 0; w < WINDOWS; w++)
        j->span[w] = (mr_span){w * WINDOW, WINDOW, -1};
    j->pack = (mr_pack){j->ids, ROWS, j->span, WINDOWS, sh->pooled ? j->wanted : NULL};
    if (status == MR_OK && j->values)
        mr_weights_draw(&j->weights, &j->weights.part[0], 1, 0.02, j->values);
    for (size_t s = 0; status == MR_OK && s < threads; s++) {
        j->gradients[s] = calloc(n, sizeof(float));
        j->d_out[s] = calloc(ROWS * (size_t)sh->config.C, sizeof(float));
        if (!j->values || !j->gradients[s] || !j->d_out[s])
            status = MR_FAIL(err, NO_MEMORY, "%zu shards", threads);
        else
            status = mr_decoder_new_f32(&j->run[s], &j->layout, &j->weights, ops, ROWS, err);
    }
    return status;
}

static void close_job(job *j)
{
    for (size_t s = 0; s < MAX_THREADS; s++) {
        mr_decoder_free_f32(j->run[s]);
        free(j->gradients[s]);
        free(j->d_out[s]);
    }
    free(j->values);
    mr_weights_done(&j->weights);
}

/* Of one row, once through: linears, and the head where it is computed. */
static double flops(const shape *sh)
{
    const double C = sh->config.C, F = sh->config.F, HD = (double)sh->config.H * sh->config.D;
    const double KD = (double)sh->config.K * sh->config.D;
    const double keys = 2 * C * (HD + 2 * KD), rest = 2 * (HD * C + 3 * C * F);
    if (sh->pooled)
        return keys + rest / WINDOW;
    return sh->config.L * (keys + rest) + 2.0 * C * sh->config.V;
}

/* Worst difference of a step's gradients between this job's ops and the plain ones. */
static mr_status check(job *j, mr_error *err)
{
    static job plain;
    mr_status status = open_job(&plain, j->shape, 1, &mr_ops_generic_f32, err);
    double worst = 0, largest = 0;
    if (status == MR_OK) {
        step_task(&plain, 0, 1, 0);
        step_task(j, 0, 1, 0);
        for (size_t i = 0; i < j->weights.total; i++) {
            worst = fmax(worst, fabs((double)j->gradients[0][i] - (double)plain.gradients[0][i]));
            largest = fmax(largest, fabs((double)plain.gradients[0][i]));
        }
        if (!(worst <= 1e-4 * largest))
            status = MR_FAIL(err, MISMATCH, "gradients differ by %g of %g", worst, largest);
    }
    close_job(&plain);
    return status;
}

static mr_status bench(const shape *sh, const options *opt, mr_pool *pool, mr_error *err)
{
    static job j;
    const size_t threads = (size_t)mr_pool_threads(pool);
    const mr_ops_f32 *ops = mr_ops_select_f32();
    mr_status status = open_job(&j, sh, threads, ops, err);
    if (status == MR_OK)
        status = check(&j, err);
    if (status == MR_OK) {
        const peak_rate peak = measure_peak(pool);
        bench_clock clock = bench_start(opt->seconds, 3);
        while (bench_more(&clock)) {
            bench_tick(&clock);
            mr_parallel_for(pool, threads, 1, step_task, &j);
            bench_tock(&clock);
        }
        const double rows = (double)(threads * ROWS), work = 3 * flops(sh) * rows * 1e-9;
        const double seconds = bench_median(&clock);
        bench_line_begin("train", sh->name);
        printf(", \"ops\": \"%s\", \"threads\": %zu, \"weights_m\": %.2f, \"rows_per_s\": %.0f, "
               "\"gflops\": %.1f, \"peak_gflops\": %.1f, \"share\": %.3f, \"cpu_share\": %.3f",
               ops->name, threads, (double)j.weights.total * 1e-6, rows / seconds, work / seconds,
               peak.gflops, work / seconds / peak.gflops,
               work * clock.n / clock.cpu_seconds / peak.cpu_gflops);
        bench_line_end();
    }
    close_job(&j);
    return status;
}

int main(int argc, char **argv)
{
    options opt = {.seconds = 2};
    mr_error err = {0};
    mr_pool *pool = NULL;
    int n_positional;
    bool help_wanted;
    if (mr_options_parse(option_table, argc, argv, &opt, &n_positional, &help_wanted, &err) !=
            MR_OK ||
        n_positional > 0) {
        fprintf(stderr, "bench_train: %s\n", err.message[0] ? err.message : "takes no arguments");
        return 2;
    }
    if (help_wanted) {
        mr_options_print_help(stdout, &help, option_table, &opt);
        return 0;
    }
    mr_status status = mr_pool_new(&pool, (int)opt.threads, &err);
    for (size_t i = 0; status == MR_OK && i < sizeof shapes / sizeof *shapes; i++)
        status = bench(&shapes[i], &opt, pool, &err);
    mr_pool_free(pool);
    if (status != MR_OK)
        fprintf(stderr, "bench_train: %s\n", err.message);
    return status == MR_OK ? 0 : 1;
}
