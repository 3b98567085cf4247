/* kernels_support.h - buffers and loops that the kernel tests share.
 *
 * Buffers end where the data ends and begin at odd addresses: the sanitizer sees a read too far,
 * and nothing may count on alignment. Include after cmocka.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_KERNELS_SUPPORT_H
#define MR_TESTS_KERNELS_SUPPORT_H

#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "engine/kernels.h"
#include "engine/kernels_f64.h"

/* Lengths around every vector, block and tail: 0..133 and a few beyond the blocks along K. */
static const size_t long_lengths[] = {255, 256, 257, 1023, 1024, 1025, 1033, 2048, 2051, 3072};
#define N_SHORT   134
#define N_LENGTHS (N_SHORT + sizeof long_lengths / sizeof *long_lengths)
#define LONGEST   3072

static inline size_t length_at(size_t i)
{
    return i < N_SHORT ? i : long_lengths[i - N_SHORT];
}

/* ---- Buffers --------------------------------------------------------------------------------- */

/* n floats, 4 bytes off any vector's alignment, up to the end of the block. */
typedef struct {
    float *block;
    float *data;
    size_t n;
} floats;

static inline floats floats_new(size_t n)
{
    floats f = {.n = n};
    f.block = malloc((n + 1) * sizeof(float));
    assert_non_null(f.block);
    f.data = f.block + 1;
    return f;
}

static inline floats floats_random(mr_rng *rng, size_t n, double scale)
{
    floats f = floats_new(n);
    for (size_t i = 0; i < n; i++)
        f.data[i] = (float)(scale * mr_rng_normal(rng));
    return f;
}

static inline floats floats_copy(floats from)
{
    floats f = floats_new(from.n);
    memcpy(f.data, from.data, from.n * sizeof(float));
    return f;
}

static inline double *doubles_of(floats f)
{
    double *d = malloc((f.n + 1) * sizeof *d);
    assert_non_null(d);
    for (size_t i = 0; i < f.n; i++)
        d[i] = (double)f.data[i];
    return d;
}

/* n weights at an odd address, up to the end of the block. */
typedef struct {
    char *block;
    char *data;
    mr_dtype type;
} weights;

static inline weights weights_random(mr_rng *rng, mr_dtype type, size_t n)
{
    weights w = {.type = type};
    w.block = malloc(1 + n * mr_dtype_size(type));
    assert_non_null(w.block);
    w.data = w.block + 1;
    for (size_t i = 0; i < n; i++) {
        const float value = (float)mr_rng_normal(rng);
        mr_dtype_from_f32(w.data + i * mr_dtype_size(type), type, &value, 1);
    }
    return w;
}

static inline void same_bits(const char *what, const mr_kernels *kernels, size_t i, float got,
                             float want)
{
    if (memcmp(&got, &want, sizeof got) == 0)
        return;
    print_error("%s/%s [%zu]: %.9g, expected the bits of %.9g\n", kernels->name, what, i,
                (double)got, (double)want);
    fail();
}

/* Runs a check for every kernel set. */
static inline void for_each_set(void (*check)(const mr_kernels *kernels))
{
    const mr_kernels *list[MR_KERNELS_MAX];
    const size_t n = mr_kernels_available(list);
    for (size_t i = 0; i < n; i++)
        check(list[i]);
}

#endif
