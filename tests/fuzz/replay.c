/* replay.c - a main for fuzz targets where libFuzzer is not: runs the corpus, and simple mutations
 * of it from a fixed seed, so that each target runs shortly in every test run with any compiler.
 *
 *     fuzz_safetensors [-rounds=N] FILE|FOLDER ...
 *
 * Inputs are copied to blocks of exactly their length, so that a sanitizer sees a byte read too
 * many. A crash names the input: it is written to ./crash-replay before it runs when
 * MIXRANK_FUZZ_KEEP is set.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/options.h"
#include "core/rng.h"
#include "tests/fuzz/fuzz.h"

#define MAX_FILE_BYTES ((size_t)1 << 20)
#define MAX_CHANGES    4
#define DEFAULT_ROUNDS 2000

typedef struct {
    int64_t rounds;
    uint64_t files, inputs;
    mr_rng rng;
} replay;

static void run_one(replay *r, const uint8_t *data, size_t len)
{
    uint8_t *exact = malloc(len ? len : 1);
    if (!exact)
        abort();
    if (len)
        memcpy(exact, data, len);
    if (getenv("MIXRANK_FUZZ_KEEP"))
        (void)mr_file_write("crash-replay", exact, len, NULL);
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
    r->inputs++;
}

/* Overwrites, removes, repeats or cuts a few bytes of text[0..len); room for MAX_CHANGES more. */
static size_t mutate(mr_rng *rng, uint8_t *text, size_t len)
{
    static const uint8_t values[] = {0,   '"', '{', '}',  '[',  ']', ',',
                                     ':', '9', '-', 0x7f, 0x80, 0xff};
    const uint64_t changes = 1 + mr_rng_below(rng, MAX_CHANGES);
    for (uint64_t i = 0; i < changes && len > 0; i++) {
        const size_t at = (size_t)mr_rng_below(rng, len);
        switch (mr_rng_below(rng, 6)) {
        case 0: text[at] = (uint8_t)mr_rng_below(rng, 256); break;
        case 1: text[at] = values[mr_rng_below(rng, sizeof values)]; break;
        case 2: text[at] ^= (uint8_t)(1u << mr_rng_below(rng, 8)); break;
        case 3: memmove(text + at, text + at + 1, --len - at); break;
        case 4: memmove(text + at + 1, text + at, len++ - at); break;
        default: len = mr_rng_below(rng, 4) == 0 ? at : len; break;
        }
    }
    return len;
}

static int replay_file(replay *r, const char *path)
{
    mr_arena arena = {0};
    mr_error err = {0};
    mr_str text;
    if (mr_file_read(&arena, path, MAX_FILE_BYTES, &text, &err) != MR_OK) {
        fprintf(stderr, "replay: %s\n", err.message);
        mr_arena_done(&arena);
        return 1;
    }
    run_one(r, (const uint8_t *)text.data, text.len);
    r->files++;
    uint8_t *scratch = mr_arena_array(&arena, uint8_t, text.len + MAX_CHANGES);
    for (int64_t i = 0; scratch && i < r->rounds; i++) {
        memcpy(scratch, text.data, text.len);
        run_one(r, scratch, mutate(&r->rng, scratch, text.len));
    }
    mr_arena_done(&arena);
    return scratch ? 0 : 1;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* In the order of names, whatever the file system says: the mutations follow from it. */
static int replay_folder(replay *r, const char *path)
{
    enum { MOST = 4096 };
    static char *names[MOST];
    size_t n = 0;
    int failed = 0;
    mr_arena arena = {0};
    DIR *dir = opendir(path);
    if (!dir) {
        fprintf(stderr, "replay: cannot open '%s'\n", path);
        return 1;
    }
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL && n < MOST) {
        if (entry->d_name[0] != '.')
            names[n++] = mr_path_join(&arena, path, entry->d_name);
    }
    closedir(dir);
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++)
        failed |= !names[i] || replay_file(r, names[i]);
    mr_arena_done(&arena);
    return failed;
}

int main(int argc, char **argv)
{
    replay r = {.rounds = DEFAULT_ROUNDS, .rng = mr_rng_seed(20)};
    int failed = 0;
    for (int i = 1; i < argc; i++) {
        mr_error err = {0};
        if (strncmp(argv[i], "-rounds=", 8) == 0) {
            if (mr_parse_int("-rounds", argv[i] + 8, 0, 1000000000, &r.rounds, &err) != MR_OK) {
                fprintf(stderr, "replay: %s\n", err.message);
                return 2;
            }
        } else {
            failed |=
                mr_file_is_folder(argv[i]) ? replay_folder(&r, argv[i]) : replay_file(&r, argv[i]);
        }
    }
    printf("%llu files, %llu inputs\n", (unsigned long long)r.files, (unsigned long long)r.inputs);
    return failed || r.files == 0;
}
