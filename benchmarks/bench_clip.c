/* bench_clip.c - the CLIP vision tower at the shape of ViT-L/14-336, against the machine's limit.
 *
 *     bench_clip [--threads N] [--batch N] [--dtype F32|F16|BF16] [--seconds S]
 *
 * Writes a tower with random weights into a temporary folder, and prints a JSON line for each back
 * end and number of pictures in a pass: pictures a second, GFLOP/s, and their share of the f32 peak
 * that a register-only FMA loop reaches on the same threads in the same run; cpu_share is the same
 * per second of CPU time, which a busy machine hardly moves. Features are those of LLaVA, hidden
 * state -2, so 23 of 24 blocks are computed and counted. Before it is timed, a back end's first
 * block is compared with the generic kernels.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "benchmarks/bench.h"
#include "benchmarks/bench_peak.h"
#include "core/options.h"
#include "core/rng.h"
#include "encoders/llava_untrained.h"

#define MAX_BATCH 8

enum { TYPE_F32, TYPE_F16, TYPE_BF16 };
static const char *const type_names[] = {"F32", "F16", "BF16", NULL};

typedef struct {
    int64_t threads, batch;
    double seconds;
    int type;
} options;

static const mr_option option_table[] = {
    MR_OPTION_INT("threads", 't', "N", options, threads, 0, MR_MAX_THREADS,
                  "threads; 0: the CPUs of this process"),
    MR_OPTION_INT("batch", 'b', "N", options, batch, 0, MAX_BATCH,
                  "pictures in a pass; 0: 1, 2 and 8"),
    MR_OPTION_REAL("seconds", 's', "S", options, seconds, 0.01, 600, "least time per figure"),
    MR_OPTION_CHOICE("dtype", 'd', "TYPE", options, type, type_names, "how weights are stored"),
    MR_OPTION_END,
};
static const mr_command_help help = {"bench_clip", "[options]",
                                     "ViT-L/14-336 in pictures a second and as a share of the FMA "
                                     "peak.",
                                     "  bench_clip --threads 2\n"};

/* Of one picture through so many blocks: linears, and both products of attention. */
static double flops(const mr_clip_vision_config *config, int blocks)
{
    const double T = (double)config->grid * config->grid + 1, C = config->C, F = config->F;
    const double patch = 3.0 * config->patch_size * config->patch_size;
    return 2 * (T - 1) * patch * C + blocks * (2 * T * (4 * C * C + 2 * C * F) + 4 * T * T * C);
}

static mr_clip *open_tower(const char *folder, mr_gemm_kind gemm, const mr_kernels *kernels,
                           mr_pool *pool, size_t batch)
{
    mr_clip *clip = NULL;
    mr_error err;
    const mr_clip_options opt = {
        .gemm = gemm, .kernels = kernels, .pool = pool, .max_images = batch};
    if (mr_clip_open(&clip, folder, &opt, &err) != MR_OK) {
        fprintf(stderr, "bench_clip: %s\n", err.message);
        exit(1);
    }
    return clip;
}

static void run(mr_clip *clip, const float *pixels, size_t n, int layer, float *features)
{
    mr_error err;
    const mr_clip_image_request request = {.feature_layer = layer, .features = features};
    if (mr_clip_image(clip, pixels, n, &request, &err) != MR_OK) {
        fprintf(stderr, "bench_clip: %s\n", err.message);
        exit(1);
    }
}

static double relative_error(const float *got, const float *want, size_t n)
{
    double worst = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
        largest = fmax(largest, fabs((double)want[i]));
        if (isnan(got[i]))
            return (double)NAN;
    }
    return worst / largest;
}

static int figures(const options *opt, const char *folder, mr_pool *pool, mr_gemm_kind gemm,
                   peak_rate peak, const float *pixels, float *features, const float *expected,
                   size_t n_expected)
{
    static const size_t batches[] = {1, 2, MAX_BATCH};
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        const size_t batch = opt->batch ? (size_t)opt->batch : batches[i];
        mr_clip *clip = open_tower(folder, gemm, NULL, pool, batch);
        const mr_clip_vision_config *config = mr_clip_vision(clip);
        run(clip, pixels, 1, 1, features);
        const double error = relative_error(features, expected, n_expected);
        if (!(error < 1e-5)) {
            fprintf(stderr,
                    "bench_clip: %s: error %g against the generic kernels, expected under "
                    "1e-5\n",
                    mr_gemm_name(gemm), error);
            mr_clip_close(clip);
            return 1;
        }

        bench_clock clock = bench_start(opt->seconds, 3);
        while (bench_more(&clock)) {
            bench_tick(&clock);
            run(clip, pixels, batch, -2, features);
            bench_tock(&clock);
        }
        const double seconds = bench_median(&clock);
        const double gflop = 1e-9 * (double)batch * flops(config, config->L - 1);
        const double cpu_gflops = gflop * clock.n / clock.cpu_seconds;
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);

        bench_line_begin("clip", "vit-l-14-336");
        printf(", \"backend\": \"%s\", \"kernels\": \"%s\", \"weights\": \"%s\", \"threads\": %d, "
               "\"batch\": %zu, \"images_per_s\": %.3f, \"gflops\": %.1f, "
               "\"peak_gflops\": %.1f, \"share\": %.3f, \"cpu_share\": %.3f, "
               "\"scratch_mb\": %.0f, \"max_rss_mb\": %.0f, \"repetitions\": %d, \"error\": %.1e",
               mr_gemm_name(gemm), mr_kernels_select()->name, type_names[opt->type],
               mr_pool_threads(pool), batch, (double)batch / seconds, gflop / seconds, peak.gflops,
               gflop / seconds / peak.gflops, cpu_gflops / peak.cpu_gflops,
               1e-6 * (double)mr_clip_bytes(clip), 1e-3 * (double)usage.ru_maxrss, clock.n, error);
        bench_line_end();
        mr_clip_close(clip);
        if (opt->batch)
            break;
    }
    return 0;
}

static int measure(const options *opt, const char *folder, mr_pool *pool)
{
    static const mr_dtype types[] = {MR_DTYPE_F32, MR_DTYPE_F16, MR_DTYPE_BF16};
    const mr_clip_vision_config vision = mr_llava_shape_find("llava-1.5-7b")->vision;
    const size_t S = (size_t)vision.image_size, patches = (size_t)(vision.grid * vision.grid);
    const size_t state = patches * (size_t)vision.C;
    mr_untrained_options weights = MR_UNTRAINED_OPTIONS_DEFAULT;
    weights.dtype = types[opt->type];
    mr_error err;
    if (mr_clip_untrained_write(folder, &vision, NULL, &weights, &err) != MR_OK) {
        fprintf(stderr, "bench_clip: %s\n", err.message);
        return 1;
    }

    float *pixels = malloc(MAX_BATCH * 3 * S * S * sizeof *pixels);
    float *features = malloc(MAX_BATCH * state * sizeof *features);
    float *expected = malloc(state * sizeof *expected);
    int failed = 1;
    if (!pixels || !features || !expected)
        goto out;
    mr_rng rng = mr_rng_seed(1);
    for (size_t i = 0; i < MAX_BATCH * 3 * S * S; i++)
        pixels[i] = (float)mr_rng_normal(&rng);

    mr_clip *generic = open_tower(folder, MR_GEMM_SCORING, &mr_kernels_generic, pool, 1);
    run(generic, pixels, 1, 1, expected);
    mr_clip_close(generic);

    const peak_rate peak = measure_peak(pool);
    failed = figures(opt, folder, pool, MR_GEMM_SCORING, peak, pixels, features, expected, state) |
             figures(opt, folder, pool, MR_GEMM_BLAS, peak, pixels, features, expected, state);

out:
    free(pixels);
    free(features);
    free(expected);
    return failed;
}

int main(int argc, char **argv)
{
    options opt = {.threads = 0, .seconds = 5, .type = TYPE_F16};
    const options defaults = opt;
    int code;
    mr_error err;
    mr_pool *pool = NULL;

    if (!bench_read_options(&help, option_table, argc, argv, &opt, &defaults, &code))
        return code;
    char folder[256], path[300];
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/bench_clip-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(folder)) {
        perror("bench_clip: a temporary folder");
        return 1;
    }
    int failed = 1;
    if (mr_pool_new(&pool, (int)opt.threads, &err) == MR_OK)
        failed = measure(&opt, folder, pool);
    else
        fprintf(stderr, "bench_clip: %s\n", err.message);
    mr_pool_free(pool);
    static const char *const files[] = {"config.json", "model.safetensors"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
    return failed;
}
