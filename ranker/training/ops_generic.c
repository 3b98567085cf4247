/* ops_generic.c - training's steps in float for every machine and in double for checks, and which
 * set is used.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "engine/blas.h"
#include "engine/kernels.h"
#include "ranker/training/ops.h"
#include "ranker/training/ops_exp.h"

#define LANES     8

#define REAL      float
#define NAME(x)   x##_f32
#define EXP       mr_exp_f32
#define REAL_LOG  logf
#define REAL_SQRT sqrtf
#define REAL_ERFC erfcf
#include "ranker/training/ops.inc"
const mr_ops_f32 mr_ops_generic_f32 = OPS_TABLE("generic");
#undef REAL
#undef NAME
#undef EXP
#undef REAL_LOG
#undef REAL_SQRT
#undef REAL_ERFC
#undef OPS_TABLE

#define REAL      double
#define NAME(x)   x##_f64
#define EXP       exp
#define REAL_LOG  log
#define REAL_SQRT sqrt
#define REAL_ERFC erfc
#include "ranker/training/ops.inc"
const mr_ops_f64 mr_ops_generic_f64 = OPS_TABLE("generic-f64");

const mr_ops_f32 *mr_ops_select_f32(void)
{
#ifdef MR_HAVE_AVX2_OPS
    if (strcmp(mr_kernels_select()->name, "generic") != 0)
        return &mr_ops_avx2_f32;
#endif
    return &mr_ops_generic_f32;
}

const mr_ops_f64 *mr_ops_select_f64(void)
{
    return &mr_ops_generic_f64;
}
