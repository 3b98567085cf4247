/* optimizer.h - AdamW, clipping by the global norm, and the learning rate over a run.
 *
 *     const double norm = mr_gradient_norm(parameters, n);
 *     const double scale = mr_clip_scale(norm, 1.0);
 *     mr_adamw_step(&adamw, step, mr_schedule_rate(&schedule, step), scale, parameters, n, pool);
 *
 * AdamW is torch.optim.AdamW's (Loshchilov and Hutter 2019: decay apart from the gradient), with
 * states in f32. An element's update depends on that element alone and the norm is summed in a
 * fixed order, so a step gives the same bits with any number of threads.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_OPTIMIZER_H
#define MR_RANKER_TRAINING_OPTIMIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/threads.h"

/* One tensor that is trained. All arrays [n], borrowed; moments start at 0. */
typedef struct {
    float *value;
    const float *gradient;
    float *moment1, *moment2;
    size_t n;
    bool decay; /* weight decay: for matrices; by custom not for biases and norms */
} mr_parameter;

typedef struct {
    double beta1, beta2, eps, weight_decay;
} mr_adamw;
#define MR_ADAMW_DEFAULT                                                \
    {                                                                   \
        .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01 \
    }

/* The length of all gradients as one vector; not finite when any of them is not. */
double mr_gradient_norm(const mr_parameter *parameters, size_t n);
/* What gradients are multiplied by so that their norm is at most `most`: torch's clip_grad_norm_,
 * which divides by norm + 1e-6. most 0: no clipping. */
double mr_clip_scale(double norm, double most);

/* step counts from 1: it corrects the moments' start at zero. scale multiplies the gradients (of
 * clipping, and 1 / accumulated batches), which are left as they are. */
void mr_adamw_step(const mr_adamw *adamw, int64_t step, double rate, double scale,
                   const mr_parameter *parameters, size_t n, mr_pool *pool);

/* Linear from 0 over warm_up steps to `peak`, then half a cosine down to `floor` at the last step.
 */
typedef struct {
    double peak, floor;
    int64_t warm_up, steps;
} mr_schedule;
/* Of step 1..steps; after the last one: floor. */
double mr_schedule_rate(const mr_schedule *schedule, int64_t step);

#endif
