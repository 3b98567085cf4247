/* losses.c - see losses.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/losses.h"

#include <math.h>

/* log(sum(exp(scale x))), past which no exponent overflows. */
static double log_sum_exp(const float *x, size_t n, double scale)
{
    double largest = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++) {
        const double value = scale * (double)x[i];
        if (value > largest)
            largest = value;
    }
    for (size_t i = 0; i < n; i++)
        sum += exp(scale * (double)x[i] - largest);
    return largest + log(sum);
}

double mr_loss_cross_entropy(const float *logits, const int32_t *target, size_t n, size_t classes,
                             float *gradient)
{
    size_t counted = 0;
    double loss = 0;
    for (size_t i = 0; i < n; i++)
        counted += target[i] != MR_LOSS_IGNORE;
    const double share = counted ? 1.0 / (double)counted : 0;
    for (size_t i = 0; i < n; i++) {
        const float *row = logits + i * classes;
        float *out = gradient + i * classes;
        if (target[i] == MR_LOSS_IGNORE) {
            for (size_t c = 0; c < classes; c++)
                out[c] = 0;
            continue;
        }
        const size_t wanted = (size_t)target[i];
        const double norm = log_sum_exp(row, classes, 1);
        loss += norm - (double)row[wanted];
        for (size_t c = 0; c < classes; c++)
            out[c] = (float)(share * (exp((double)row[c] - norm) - (c == wanted)));
    }
    return loss * share;
}

double mr_loss_yes_no(const float *margin, const float *target, size_t n, float *gradient)
{
    double loss = 0;
    for (size_t i = 0; i < n; i++) {
        const double m = (double)margin[i], t = (double)target[i];
        /* log(1 + exp(-|m|)) never overflows, and keeps its digits where m is large. */
        loss += (m > 0 ? m : 0) - m * t + log1p(exp(-fabs(m)));
        gradient[i] = (float)((1.0 / (1.0 + exp(-m)) - t) / (double)n);
    }
    return n ? loss / (double)n : 0;
}

double mr_loss_listwise(const float *margin, const float *gain, size_t n, float *gradient)
{
    double gains = 0, loss = 0;
    for (size_t i = 0; i < n; i++)
        gains += (double)gain[i];
    if (gains <= 0) {
        for (size_t i = 0; i < n; i++)
            gradient[i] = 0;
        return 0;
    }
    const double norm = log_sum_exp(margin, n, 1);
    for (size_t i = 0; i < n; i++) {
        const double log_share = (double)margin[i] - norm, wanted = (double)gain[i] / gains;
        loss -= wanted * log_share;
        gradient[i] = (float)(exp(log_share) - wanted);
    }
    return loss;
}

double mr_loss_distill(const float *student, const float *teacher, size_t n, double temperature,
                       float *gradient)
{
    double loss = 0;
    if (n == 0)
        return 0;
    const double student_norm = log_sum_exp(student, n, 1 / temperature);
    const double teacher_norm = log_sum_exp(teacher, n, 1 / temperature);
    for (size_t i = 0; i < n; i++) {
        const double s = (double)student[i] / temperature - student_norm;
        const double t = (double)teacher[i] / temperature - teacher_norm;
        loss += exp(t) * (t - s);
        gradient[i] = (float)(temperature * (exp(s) - exp(t)));
    }
    return temperature * temperature * loss;
}

double mr_loss_cosine(const float *student, const float *teacher, size_t dim, float *gradient)
{
    double dot = 0, student_square = 0, teacher_square = 0;
    for (size_t i = 0; i < dim; i++) {
        dot += (double)student[i] * (double)teacher[i];
        student_square += (double)student[i] * (double)student[i];
        teacher_square += (double)teacher[i] * (double)teacher[i];
    }
    const double lengths = sqrt(student_square) * sqrt(teacher_square);
    if (!(lengths > 0)) {
        for (size_t i = 0; i < dim; i++)
            gradient[i] = 0;
        return dim ? 1 : 0;
    }
    const double cosine = dot / lengths;
    for (size_t i = 0; i < dim; i++)
        gradient[i] =
            (float)(cosine * (double)student[i] / student_square - (double)teacher[i] / lengths);
    return 1 - cosine;
}
