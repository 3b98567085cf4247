/* optimizer.c - see optimizer.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/optimizer.h"

#include <math.h>

/* Elements that one thread takes at a time: enough to be worth the hand-off. */
#define GRAIN 16384

double mr_gradient_norm(const mr_parameter *parameters, size_t n)
{
    double square = 0;
    for (size_t p = 0; p < n; p++) {
        double sum = 0;
        for (size_t i = 0; i < parameters[p].n; i++)
            sum += (double)parameters[p].gradient[i] * (double)parameters[p].gradient[i];
        square += sum;
    }
    return sqrt(square);
}

double mr_clip_scale(double norm, double most)
{
    const double scale = most > 0 ? most / (norm + 1e-6) : 1;
    return scale < 1 ? scale : 1;
}

/* One tensor of one step. */
typedef struct {
    const mr_parameter *p;
    float beta2, rest1, rest2, eps, scale; /* rest: 1 - beta, rounded once: 1 - 0.999f is off */
    float keep;                            /* of the value, after decay */
    float rate;                            /* corrected for moment1's start */
    float correction;                      /* square root of moment2's */
} update;

static void update_range(void *context, size_t begin, size_t end, int worker)
{
    const update *u = context;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        const float g = u->scale * u->p->gradient[i];
        const float m = u->p->moment1[i] + u->rest1 * (g - u->p->moment1[i]);
        const float v = u->beta2 * u->p->moment2[i] + u->rest2 * g * g;
        u->p->moment1[i] = m;
        u->p->moment2[i] = v;
        u->p->value[i] =
            u->keep * u->p->value[i] - u->rate * (m / (sqrtf(v) / u->correction + u->eps));
    }
}

void mr_adamw_step(const mr_adamw *adamw, int64_t step, double rate, double scale,
                   const mr_parameter *parameters, size_t n, mr_pool *pool)
{
    const double correction1 = 1 - pow(adamw->beta1, (double)step);
    const double correction2 = 1 - pow(adamw->beta2, (double)step);
    for (size_t p = 0; p < n; p++) {
        const double decay = parameters[p].decay ? adamw->weight_decay : 0;
        update u = {.p = &parameters[p],
                    .beta2 = (float)adamw->beta2,
                    .rest1 = (float)(1 - adamw->beta1),
                    .rest2 = (float)(1 - adamw->beta2),
                    .eps = (float)adamw->eps,
                    .scale = (float)scale,
                    .keep = (float)(1 - rate * decay),
                    .rate = (float)(rate / correction1),
                    .correction = (float)sqrt(correction2)};
        mr_parallel_for(pool, parameters[p].n, GRAIN, update_range, &u);
    }
}

double mr_schedule_rate(const mr_schedule *schedule, int64_t step)
{
    const double pi = 3.14159265358979323846;
    if (step >= schedule->steps)
        return schedule->floor;
    if (step < schedule->warm_up)
        return schedule->peak * (double)step / (double)schedule->warm_up;
    const double done =
        (double)(step - schedule->warm_up) / (double)(schedule->steps - schedule->warm_up);
    return schedule->floor + (schedule->peak - schedule->floor) * 0.5 * (1 + cos(pi * done));
}
