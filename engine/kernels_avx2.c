/* kernels_avx2.c - kernels for x86-64 with AVX2, FMA and F16C (Haswell, Zen and later).
 *
 * Matrix products are in dot form: the weights stay as the checkpoint has them, rows of K, mapped
 * from the file, and the vectors run along K. A tile is 3 activation rows by 4 weight rows, 12
 * accumulators of 8 lanes, the most that 16 registers hold beside their operands: 12 FMAs for 7
 * loads. An output is the sum over its own 8 lanes, each accumulated with k ascending, added up by
 * one fixed tree; which tile it was computed in, or how much of the tile was used, leaves no trace.
 *
 * Blocking (measured at 3072 x 1024 and 1024 x 3072): K goes in slices of 1024, so that 4 weight
 * rows and the 3 activation rows in hand stay in a 32 KiB L1; lanes are carried from slice to slice
 * in memory, exactly. 48 activation rows go past each panel of 4 weight rows before the next panel,
 * and their tiles prefetch that panel: a row of a mapped file is a page of its own, where the
 * hardware prefetcher starts again from nothing. Half-precision weights are widened into a panel in
 * L1 once per 48 rows, or in the tile itself when there is only one; misaligned f32 weights are
 * copied there.
 *
 * Remainders load zeroes in place of what is not there (masked loads, which do not touch the memory
 * behind), and go through the same arithmetic as whole vectors.
 * SPDX-License-Identifier: Apache-2.0 */
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "engine/kernels.h"

#define LANES   8
#define TILE_M  3
#define TILE_N  4
#define BLOCK_M 48 /* a multiple of TILE_M */
#define BLOCK_K 1024
#define BLOCK_P 128 /* 4 vectors from so many rows of V are half an L1 */

/* The tile functions are one source, specialised by constant arguments: they must be inlined. */
#if defined(__GNUC__)
#    define INLINE static inline __attribute__((always_inline))
#else
#    define INLINE static inline
#endif

/* All ones in the first n of 8 lanes. */
INLINE __m256i first_lanes(size_t n)
{
    static const int32_t mask[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(mask + LANES - n));
}

INLINE __m256 load_first(const float *p, size_t n)
{
    return _mm256_maskload_ps(p, first_lanes(n));
}

INLINE void store_first(float *p, size_t n, __m256 v)
{
    _mm256_maskstore_ps(p, first_lanes(n), v);
}

/* ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)) of each of four vectors. */
INLINE __m128 add_lanes_4(__m256 a, __m256 b, __m256 c, __m256 d)
{
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}

INLINE float add_lanes(__m256 v)
{
    return _mm_cvtss_f32(add_lanes_4(v, v, v, v));
}

/* ---- Matrix products ------------------------------------------------------------------------- */

INLINE __m256 widen_8(mr_dtype dtype, __m128i half)
{
    return dtype == MR_DTYPE_F16
               ? _mm256_cvtph_ps(half)
               : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

INLINE __m256 load_weights(mr_dtype dtype, const void *row, size_t k)
{
    if (dtype == MR_DTYPE_F32)
        return _mm256_loadu_ps((const float *)row + k);
    return widen_8(dtype, _mm_loadu_si128((const __m128i *)((const uint16_t *)row + k)));
}

INLINE __m256 load_weights_first(mr_dtype dtype, const void *row, size_t k, size_t n)
{
    if (dtype == MR_DTYPE_F32)
        return load_first((const float *)row + k, n);
    uint16_t half[LANES] = {0};
    memcpy(half, (const uint16_t *)row + k, n * sizeof *half);
    return widen_8(dtype, _mm_loadu_si128((const __m128i *)half));
}

/* A slice of four weight rows. When fewer are left the last one stands in for the rest, and its
 * surplus results are dropped. */
typedef struct {
    const void *row[TILE_N];
    size_t rows;
    size_t K;
    bool first, last; /* of the slices along K */
} panel;

/* Rows of the next panel are prefetched while a tile runs, a line at a time: step bytes for every
 * 16 of k. step 0: nothing to prefetch. */
typedef struct {
    const char *at;
    size_t step;
} ahead;

/* y[M][4] from the lanes so far (carried in `carry` between slices) and this slice. M is 1..3. */
INLINE void tile(const size_t M, const mr_dtype dtype, float *y, size_t ldy, const float *a,
                 size_t lda, const panel *w, float *carry, ahead next)
{
    const float *rows[TILE_M] = {a, M > 1 ? a + lda : a, M > 2 ? a + 2 * lda : a};
    const void *const w0 = w->row[0], *const w1 = w->row[1], *const w2 = w->row[2],
                      *const w3 = w->row[3];
    const size_t K = w->K;
    __m256 sum[TILE_M][TILE_N];

    for (size_t m = 0; m < M; m++)
        for (size_t n = 0; n < TILE_N; n++)
            sum[m][n] =
                w->first ? _mm256_setzero_ps() : _mm256_load_ps(carry + (m * TILE_N + n) * LANES);

#define MULTIPLY(n, weights)                                 \
    do {                                                     \
        const __m256 v = (weights);                          \
        for (size_t m = 0; m < M; m++)                       \
            sum[m][n] = _mm256_fmadd_ps(x[m], v, sum[m][n]); \
    } while (0)
#define STEP(k)                                    \
    do {                                           \
        __m256 x[TILE_M];                          \
        for (size_t m = 0; m < M; m++)             \
            x[m] = _mm256_loadu_ps(rows[m] + (k)); \
        MULTIPLY(0, load_weights(dtype, w0, (k))); \
        MULTIPLY(1, load_weights(dtype, w1, (k))); \
        MULTIPLY(2, load_weights(dtype, w2, (k))); \
        MULTIPLY(3, load_weights(dtype, w3, (k))); \
    } while (0)

    size_t k = 0;
    for (; k + 2 * LANES <= K; k += 2 * LANES) {
        _mm_prefetch(next.at, _MM_HINT_T1);
        next.at += next.step;
        STEP(k);
        STEP(k + LANES);
    }
    if (k + LANES <= K) {
        STEP(k);
        k += LANES;
    }
    if (k < K) {
        const size_t left = K - k;
        __m256 x[TILE_M];
        for (size_t m = 0; m < M; m++)
            x[m] = load_first(rows[m] + k, left);
        MULTIPLY(0, load_weights_first(dtype, w0, k, left));
        MULTIPLY(1, load_weights_first(dtype, w1, k, left));
        MULTIPLY(2, load_weights_first(dtype, w2, k, left));
        MULTIPLY(3, load_weights_first(dtype, w3, k, left));
    }
#undef STEP
#undef MULTIPLY

    for (size_t m = 0; m < M; m++) {
        if (!w->last) {
            for (size_t n = 0; n < TILE_N; n++)
                _mm256_store_ps(carry + (m * TILE_N + n) * LANES, sum[m][n]);
            continue;
        }
        const __m128 out = add_lanes_4(sum[m][0], sum[m][1], sum[m][2], sum[m][3]);
        if (w->rows == TILE_N)
            _mm_storeu_ps(y + m * ldy, out);
        else
            store_first(y + m * ldy, w->rows, _mm256_castps128_ps256(out));
    }
}

typedef void (*tile_function)(float *y, size_t ldy, const float *a, size_t lda, const panel *w,
                              float *carry, ahead next);

#define TILE_FUNCTION(label, M, dtype)                                                  \
    static void label(float *y, size_t ldy, const float *a, size_t lda, const panel *w, \
                      float *carry, ahead next)                                         \
    {                                                                                   \
        tile(M, dtype, y, ldy, a, lda, w, carry, next);                                 \
    }
TILE_FUNCTION(tile_f32_1, 1, MR_DTYPE_F32)
TILE_FUNCTION(tile_f32_2, 2, MR_DTYPE_F32)
TILE_FUNCTION(tile_f32_3, 3, MR_DTYPE_F32)
TILE_FUNCTION(tile_f16_1, 1, MR_DTYPE_F16)
TILE_FUNCTION(tile_f16_2, 2, MR_DTYPE_F16)
TILE_FUNCTION(tile_f16_3, 3, MR_DTYPE_F16)
TILE_FUNCTION(tile_bf16_1, 1, MR_DTYPE_BF16)
TILE_FUNCTION(tile_bf16_2, 2, MR_DTYPE_BF16)
TILE_FUNCTION(tile_bf16_3, 3, MR_DTYPE_BF16)

static const tile_function tiles_f32[TILE_M] = {tile_f32_1, tile_f32_2, tile_f32_3};
static const tile_function tiles_f16[TILE_M] = {tile_f16_1, tile_f16_2, tile_f16_3};
static const tile_function tiles_bf16[TILE_M] = {tile_bf16_1, tile_bf16_2, tile_bf16_3};

/* Widens the panel's rows into buffer and makes them point there. */
static void widen_panel(panel *w, mr_dtype dtype, float buffer[TILE_N][BLOCK_K])
{
    for (size_t n = 0; n < TILE_N; n++) {
        if (n < w->rows) {
            size_t k = 0;
            for (; k + LANES <= w->K; k += LANES)
                _mm256_store_ps(buffer[n] + k, load_weights(dtype, w->row[n], k));
            if (k < w->K)
                _mm256_store_ps(buffer[n] + k, load_weights_first(dtype, w->row[n], k, w->K - k));
        }
        w->row[n] = buffer[n < w->rows ? n : w->rows - 1];
    }
}

/* M of at most BLOCK_M rows past all of w. */
static void dot_block(float *y, size_t ldy, const float *a, size_t lda, size_t M, const char *w,
                      mr_dtype dtype, size_t ldw, size_t N, size_t K)
{
    _Alignas(32) float carry[BLOCK_M * TILE_N * LANES];
    _Alignas(32) float buffer[TILE_N][BLOCK_K];
    const size_t size = dtype == MR_DTYPE_F32 ? sizeof(float) : sizeof(uint16_t);
    /* Rows of a mapped file stand at any multiple of 8 bytes, and a load across two cache lines
     * costs two: for more than one tile a copy is cheaper (61 against 72 % of the peak). */
    const bool aligned = (uintptr_t)w % (LANES * sizeof(float)) == 0 && ldw % LANES == 0;
    const bool copy = M > TILE_M && (dtype != MR_DTYPE_F32 || !aligned);
    const tile_function *const tiles = dtype == MR_DTYPE_F32 || copy ? tiles_f32
                                       : dtype == MR_DTYPE_F16       ? tiles_f16
                                                                     : tiles_bf16;

    for (size_t n0 = 0; n0 < N; n0 += TILE_N) {
        for (size_t k0 = 0; k0 < K; k0 += BLOCK_K) {
            panel p = {.rows = N - n0 < TILE_N ? N - n0 : TILE_N,
                       .K = K - k0 < BLOCK_K ? K - k0 : BLOCK_K,
                       .first = k0 == 0};
            p.last = k0 + p.K == K;
            for (size_t n = 0; n < TILE_N; n++)
                p.row[n] = w + ((n0 + (n < p.rows ? n : p.rows - 1)) * ldw + k0) * size;

            /* What comes next: the following slice of these rows, else the following rows. */
            const size_t next_n = p.last ? n0 + TILE_N : n0, next_k = p.last ? 0 : k0 + p.K;
            const size_t next_rows = next_n >= N ? 0 : N - next_n < TILE_N ? N - next_n : TILE_N;

            if (copy)
                widen_panel(&p, dtype, buffer);

            for (size_t m = 0, i = 0; m < M; i++) {
                /* 4 rows are left: 2 + 2 keep the FMA units busier than 3 + 1. */
                const size_t left = M - m,
                             rows = left == 4 || left < TILE_M ? (left > 1 ? 2 : 1) : TILE_M;
                ahead next = {(const char *)(a + m * lda), 0};
                if (i < next_rows)
                    next = (ahead){w + ((next_n + i) * ldw + next_k) * size, 2 * LANES * size};
                tiles[rows - 1](y + m * ldy + n0, ldy, a + m * lda + k0, lda, &p,
                                carry + m * TILE_N * LANES, next);
                m += rows;
            }
        }
    }
}

static void dot_rows(float *y, size_t ldy, const float *a, size_t lda, size_t M, const void *w,
                     mr_dtype dtype, size_t ldw, size_t N, size_t K)
{
    if (K == 0) {
        for (size_t m = 0; m < M; m++)
            memset(y + m * ldy, 0, N * sizeof *y);
        return;
    }
    for (size_t m = 0; m < M; m += BLOCK_M)
        dot_block(y + m * ldy, ldy, a + m * lda, lda, M - m < BLOCK_M ? M - m : BLOCK_M, w, dtype,
                  ldw, N, K);
}

/* out[M][4 vectors] += weight v, for M of 1..3 rows. `last` lanes of the fourth vector exist; fewer
 * vectors when V < 4. */
INLINE void sum_tile(const size_t M, const size_t V, float *out, size_t ldo, const float *weight,
                     size_t ldw, const float *v, size_t ldv, size_t P, size_t last)
{
    const __m256i mask = first_lanes(last);
    __m256 sum[TILE_M][TILE_N];

    for (size_t m = 0; m < M; m++)
        for (size_t j = 0; j < V; j++)
            sum[m][j] = j + 1 < V ? _mm256_loadu_ps(out + m * ldo + j * LANES)
                                  : _mm256_maskload_ps(out + m * ldo + j * LANES, mask);
    for (size_t p = 0; p < P; p++) {
        const float *row = v + p * ldv;
        __m256 x[TILE_M];
        for (size_t m = 0; m < M; m++)
            x[m] = _mm256_broadcast_ss(weight + m * ldw + p);
        for (size_t j = 0; j < V; j++) {
            const __m256 value = j + 1 < V ? _mm256_loadu_ps(row + j * LANES)
                                           : _mm256_maskload_ps(row + j * LANES, mask);
            for (size_t m = 0; m < M; m++)
                sum[m][j] = _mm256_fmadd_ps(x[m], value, sum[m][j]);
        }
    }
    for (size_t m = 0; m < M; m++)
        for (size_t j = 0; j < V; j++) {
            if (j + 1 < V)
                _mm256_storeu_ps(out + m * ldo + j * LANES, sum[m][j]);
            else
                _mm256_maskstore_ps(out + m * ldo + j * LANES, mask, sum[m][j]);
        }
}

/* P of at most BLOCK_P. */
static void sum_block(float *out, size_t ldo, const float *weight, size_t ldw, size_t R,
                      const float *v, size_t ldv, size_t P, size_t D)
{
    for (size_t d = 0; d < D; d += TILE_N * LANES) {
        const size_t width = D - d < TILE_N * LANES ? D - d : TILE_N * LANES;
        const size_t vectors = (width + LANES - 1) / LANES;
        const size_t last = width - (vectors - 1) * LANES;
        for (size_t r = 0; r < R; r += TILE_M) {
            const size_t rows = R - r < TILE_M ? R - r : TILE_M;
            float *const o = out + r * ldo + d;
            const float *const x = weight + r * ldw;

#define SUM_TILE(M, V) \
    case (M)*8 + (V): sum_tile(M, V, o, ldo, x, ldw, v + d, ldv, P, last); break
            switch (rows * 8 + vectors) {
                SUM_TILE(1, 1);
                SUM_TILE(1, 2);
                SUM_TILE(1, 3);
                SUM_TILE(1, 4);
                SUM_TILE(2, 1);
                SUM_TILE(2, 2);
                SUM_TILE(2, 3);
                SUM_TILE(2, 4);
                SUM_TILE(3, 1);
                SUM_TILE(3, 2);
                SUM_TILE(3, 3);
                SUM_TILE(3, 4);
            }
#undef SUM_TILE
        }
    }
}

static void weighted_sum(float *out, size_t ldo, const float *weight, size_t ldw, size_t R,
                         const float *v, size_t ldv, size_t P, size_t D)
{
    for (size_t p = 0; p < P; p += BLOCK_P)
        sum_block(out, ldo, weight + p, ldw, R, v + p * ldv, ldv, P - p < BLOCK_P ? P - p : BLOCK_P,
                  D);
}

/* ---- Row functions --------------------------------------------------------------------------- */

/* exp(x) = 2^n exp(r), r = x - n ln 2 in [-ln 2 / 2, ln 2 / 2], exp(r) = 1 + r + r^2 q(r) with a
 * minimax q (truncation 4e-9). 2^n is applied in two halves, so that subnormal results and infinity
 * come out as such. NaN in, NaN out: max and min return their second operand then. */
INLINE __m256 exp_8(__m256 x)
{
    x = _mm256_max_ps(_mm256_set1_ps(-105.0f), x);
    x = _mm256_min_ps(_mm256_set1_ps(89.0f), x);
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e400p-1f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20f), r);

    __m256 q = _mm256_set1_ps(0x1.6a243ap-10f);
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.1239e0p-7f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.5558f2p-5f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.555492p-3f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.fffffcp-2f));
    q = _mm256_fmadd_ps(q, _mm256_mul_ps(r, r), r);
    q = _mm256_add_ps(q, _mm256_set1_ps(1.0f));

    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i low = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i high =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(q, _mm256_castsi256_ps(low)), _mm256_castsi256_ps(high));
}

static float softmax_exp(float *x, size_t n, float max)
{
    const __m256 m = _mm256_set1_ps(max);
    __m256 sum = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const __m256 e = exp_8(_mm256_sub_ps(_mm256_loadu_ps(x + i), m));
        _mm256_storeu_ps(x + i, e);
        sum = _mm256_add_ps(sum, e);
    }
    if (i < n) {
        const __m256 e = exp_8(_mm256_sub_ps(load_first(x + i, n - i), m));
        store_first(x + i, n - i, e);
        sum = _mm256_add_ps(sum, _mm256_and_ps(e, _mm256_castsi256_ps(first_lanes(n - i))));
    }
    return add_lanes(sum);
}

static float max(const float *x, size_t n)
{
    __m256 m = _mm256_set1_ps(-INFINITY);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        m = _mm256_max_ps(_mm256_loadu_ps(x + i), m);
    float lane[LANES], out = -INFINITY;
    _mm256_storeu_ps(lane, m);
    for (size_t j = 0; j < LANES; j++)
        out = lane[j] > out ? lane[j] : out;
    for (; i < n; i++)
        out = x[i] > out ? x[i] : out;
    return out;
}

static void rms_norm(float *y, const float *x, const float *weight, size_t n, float eps)
{
    __m256 sum = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const __m256 v = _mm256_loadu_ps(x + i);
        sum = _mm256_fmadd_ps(v, v, sum);
    }
    if (i < n) {
        const __m256 v = load_first(x + i, n - i);
        sum = _mm256_fmadd_ps(v, v, sum);
    }

    const __m256 scale = _mm256_set1_ps(1.0f / sqrtf(add_lanes(sum) / (float)n + eps));
    for (i = 0; i + LANES <= n; i += LANES) {
        const __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), scale);
        _mm256_storeu_ps(y + i, _mm256_mul_ps(v, _mm256_loadu_ps(weight + i)));
    }
    for (const float s = _mm256_cvtss_f32(scale); i < n; i++)
        y[i] = x[i] * s * weight[i];
}

static void layer_norm(float *y, const float *x, const float *weight, const float *bias, size_t n,
                       float eps)
{
    __m256 sum = _mm256_setzero_ps(), square = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sum = _mm256_add_ps(sum, _mm256_loadu_ps(x + i));
    if (i < n)
        sum = _mm256_add_ps(sum, load_first(x + i, n - i));

    const __m256 mean = _mm256_set1_ps(add_lanes(sum) / (float)n);
    for (i = 0; i + LANES <= n; i += LANES) {
        const __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + i), mean);
        square = _mm256_fmadd_ps(v, v, square);
    }
    if (i < n) {
        const __m256 v = _mm256_and_ps(_mm256_sub_ps(load_first(x + i, n - i), mean),
                                       _mm256_castsi256_ps(first_lanes(n - i)));
        square = _mm256_fmadd_ps(v, v, square);
    }

    const __m256 scale = _mm256_set1_ps(1.0f / sqrtf(add_lanes(square) / (float)n + eps));
    for (i = 0; i < n; i += LANES) {
        const size_t left = n - i < LANES ? n - i : LANES;
        const __m256 v = _mm256_mul_ps(_mm256_sub_ps(load_first(x + i, left), mean), scale);
        store_first(y + i, left,
                    _mm256_fmadd_ps(v, load_first(weight + i, left), load_first(bias + i, left)));
    }
}

INLINE __m256 silu_8(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    return _mm256_div_ps(x, _mm256_add_ps(one, exp_8(_mm256_sub_ps(_mm256_setzero_ps(), x))));
}

static void silu_mul(float *gate, const float *up, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        _mm256_storeu_ps(gate + i,
                         _mm256_mul_ps(silu_8(_mm256_loadu_ps(gate + i)), _mm256_loadu_ps(up + i)));
    if (i < n)
        store_first(gate + i, n - i,
                    _mm256_mul_ps(silu_8(load_first(gate + i, n - i)), load_first(up + i, n - i)));
}

/* gelu(x) = x Phi(x). With z = |x|, Phi(-z) = erfc(z / sqrt 2) / 2 = exp(-z^2 / 2) t p(t) / 2,
 * t = 1 / (1 + 0.35 z), p a minimax fit over z in [0, 14.5] (relative error 5e-8); nothing cancels
 * on the negative side. The rounding of z^2 would grow with z in the exponential, so what it lost
 * is put back to first order. */
INLINE __m256 gelu_8(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    const __m256 half = _mm256_set1_ps(0.5f);
    const __m256 z = _mm256_min_ps(_mm256_set1_ps(15.0f), _mm256_andnot_ps(sign, x));
    const __m256 square = _mm256_mul_ps(z, z), lost = _mm256_fmsub_ps(z, z, square);
    const __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(z, _mm256_set1_ps(0.35f), one));

    __m256 p = _mm256_set1_ps(-0.058315687f);
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.28806147f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-0.51167732f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.31863871f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-0.046424314f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.21110487f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.23964261f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.27972704f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.2792426f));

    __m256 e = exp_8(_mm256_mul_ps(square, _mm256_set1_ps(-0.5f)));
    e = _mm256_fnmadd_ps(_mm256_mul_ps(half, lost), e, e);
    const __m256 tail = _mm256_mul_ps(_mm256_mul_ps(half, e), _mm256_mul_ps(t, p));
    const __m256 phi = _mm256_blendv_ps(_mm256_sub_ps(one, tail), tail, x);
    return _mm256_mul_ps(x, phi);
}

static void gelu(float *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        _mm256_storeu_ps(x + i, gelu_8(_mm256_loadu_ps(x + i)));
    if (i < n)
        store_first(x + i, n - i, gelu_8(load_first(x + i, n - i)));
}

INLINE __m256 quick_gelu_8(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    return _mm256_div_ps(x, _mm256_add_ps(one, exp_8(_mm256_mul_ps(x, _mm256_set1_ps(-1.702f)))));
}

static void quick_gelu(float *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        _mm256_storeu_ps(x + i, quick_gelu_8(_mm256_loadu_ps(x + i)));
    if (i < n)
        store_first(x + i, n - i, quick_gelu_8(load_first(x + i, n - i)));
}

static void add(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), _mm256_loadu_ps(x + i)));
    for (; i < n; i++)
        y[i] += x[i];
}

static void rope(float *x, const float *cos, const float *sin, size_t D)
{
    const size_t half = D / 2;
    for (size_t i = 0; i < half; i += LANES) {
        const size_t n = half - i < LANES ? half - i : LANES;
        const __m256 c = load_first(cos + i, n), s = load_first(sin + i, n);
        const __m256 a = load_first(x + i, n), b = load_first(x + half + i, n);
        store_first(x + i, n, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        store_first(x + half + i, n, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
    }
}

const mr_kernels mr_kernels_avx2 = {
    .name = "avx2",
    .dot_rows = dot_rows,
    .weighted_sum = weighted_sum,
    .softmax_exp = softmax_exp,
    .max = max,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .silu_mul = silu_mul,
    .gelu = gelu,
    .quick_gelu = quick_gelu,
    .add = add,
    .rope = rope,
};
