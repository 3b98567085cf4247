/* oracle.h - the transformer again, in plain C, one loop per formula, in float and in double.
 *
 * No cache, no batching, no pool, no shared code with session.c beyond the weights: what the engine
 * is checked against. The two precisions are one source (oracle.inc) compiled twice. Slow on
 * purpose; allocates freely.
 * Threads: any; reads the model only.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_ORACLE_H
#define MR_ENGINE_ORACLE_H

#include "core/error.h"
#include "engine/session.h"

/* hidden: [n, C] after the final norm. layers, when not NULL: [L + 1][n][C], as transformers'
 * hidden_states but for the last entry, which is before the final norm. */
MR_NODISCARD mr_status mr_oracle_forward_f32(const mr_model *model, const mr_input *input,
                                             float *hidden, float *layers, mr_error *err);
MR_NODISCARD mr_status mr_oracle_forward_f64(const mr_model *model, const mr_input *input,
                                             double *hidden, double *layers, mr_error *err);

#endif
