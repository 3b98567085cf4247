/* kernels_generic.c - plain C kernels, in float for every machine and in double for checks.
 *
 * The oracle of all other kernel sets: it stays short and obvious. See kernels_generic.inc.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/half.h"
#include "engine/kernels.h"
#include "engine/kernels_f64.h"

#define LANES     8
#define BLOCK_M   16
#define BLOCK_K   256

#define REAL      float
#define NAME(x)   x##_f32
#define REAL_EXP  expf
#define REAL_SQRT sqrtf
#define REAL_ERFC erfcf
#include "engine/kernels_generic.inc"
const mr_kernels mr_kernels_generic = KERNEL_TABLE("generic");
#undef REAL
#undef NAME
#undef REAL_EXP
#undef REAL_SQRT
#undef REAL_ERFC
#undef KERNEL_TABLE

#define REAL      double
#define NAME(x)   x##_f64
#define REAL_EXP  exp
#define REAL_SQRT sqrt
#define REAL_ERFC erfc
#include "engine/kernels_generic.inc"
const mr_kernels_f64 mr_kernels_generic_f64 = KERNEL_TABLE("generic-f64");
