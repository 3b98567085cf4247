/* ops_avx2.c - training's steps in float, compiled for AVX2 and FMA (see CMakeLists.txt).
 *
 * The source is that of every other set; the compiler does the rest.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "engine/blas.h"
#include "ranker/training/ops.h"
#include "ranker/training/ops_exp.h"

#define LANES     16

#define REAL      float
#define NAME(x)   x##_f32
#define EXP       mr_exp_f32
#define REAL_LOG  logf
#define REAL_SQRT sqrtf
#define REAL_ERFC erfcf
#include "ranker/training/ops.inc"
const mr_ops_f32 mr_ops_avx2_f32 = OPS_TABLE("avx2");
