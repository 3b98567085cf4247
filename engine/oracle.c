/* oracle.c - the transformer as the papers write it, in float and in double.
 *
 * Shares nothing with sessions but the weights and the check of the input: no kernels, no cache, no
 * batch. See oracle.inc.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "engine/session_input.h"

#define REAL      float
#define NAME(x)   x##_f32
#define REAL_EXP  expf
#define REAL_SQRT sqrtf
#include "engine/oracle.inc"
#undef REAL
#undef NAME
#undef REAL_EXP
#undef REAL_SQRT

#define REAL      double
#define NAME(x)   x##_f64
#define REAL_EXP  exp
#define REAL_SQRT sqrt
#include "engine/oracle.inc"
