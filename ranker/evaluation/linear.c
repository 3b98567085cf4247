/* linear.c - see baseline.h: logistic regression by Newton's method, and the ranker made of it.
 *
 * The loss is convex and smooth and there are a dozen weights, so Newton's steps (halved while they
 * overshoot) reach the one minimum to rounding in about ten passes over the rows: no learning rate,
 * no seed, the same weights every time.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/evaluation/linear.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WEIGHTS 64
#define MAX_STEPS   100
#define MAX_HALVES  40
/* What another Newton step would still gain, as a share of the loss: rounding. */
#define LEAST_GAIN 1e-13

typedef struct {
    const double *x;
    const uint8_t *label;
    size_t n, n_weights; /* the intercept counted */
    double gradient[MAX_WEIGHTS];
    double hessian[MAX_WEIGHTS][MAX_WEIGHTS]; /* lower triangle */
} logistic;

/* Without features there need not be any rows to point into. */
static const double *row_of(const logistic *fit, size_t i)
{
    return fit->n_weights > 1 ? fit->x + i * (fit->n_weights - 1) : NULL;
}

static double margin_of(const double *w, const double *x, size_t n_weights)
{
    double z = w[0];
    for (size_t j = 1; j < n_weights; j++)
        z += w[j] * x[j - 1];
    return z;
}

static double probability(double z)
{
    return z >= 0 ? 1 / (1 + exp(-z)) : exp(z) / (1 + exp(z));
}

static double loss_at(const logistic *fit, const double *w)
{
    double loss = 0;
    for (size_t i = 0; i < fit->n; i++) {
        const double z = margin_of(w, row_of(fit, i), fit->n_weights);
        const double wrong = fit->label[i] ? -z : z;
        loss += wrong > 0 ? wrong + log1p(exp(-wrong)) : log1p(exp(wrong));
    }
    for (size_t j = 1; j < fit->n_weights; j++)
        loss += w[j] * w[j] / 2;
    return loss;
}

static void differentiate(logistic *fit, const double *w)
{
    const size_t m = fit->n_weights;
    memset(fit->gradient, 0, sizeof fit->gradient);
    memset(fit->hessian, 0, sizeof fit->hessian);
    for (size_t i = 0; i < fit->n; i++) {
        const double *x = row_of(fit, i);
        const double p = probability(margin_of(w, x, m));
        const double slope = p - (fit->label[i] ? 1 : 0), curve = p * (1 - p);
        for (size_t j = 0; j < m; j++) {
            const double xj = j ? x[j - 1] : 1;
            fit->gradient[j] += slope * xj;
            fit->hessian[j][0] += curve * xj;
            for (size_t k = 1; k <= j; k++)
                fit->hessian[j][k] += curve * xj * x[k - 1];
        }
    }
    for (size_t j = 1; j < m; j++) {
        fit->gradient[j] += w[j];
        fit->hessian[j][j] += 1;
    }
}

/* step = hessian^-1 gradient by Cholesky, in place; false where it is not positive definite. */
static bool solve(logistic *fit, double *step)
{
    const size_t m = fit->n_weights;
    for (size_t j = 0; j < m; j++) {
        for (size_t k = 0; k <= j; k++) {
            double sum = fit->hessian[j][k];
            for (size_t q = 0; q < k; q++)
                sum -= fit->hessian[j][q] * fit->hessian[k][q];
            if (k == j && !(sum > 0))
                return false;
            fit->hessian[j][k] = k == j ? sqrt(sum) : sum / fit->hessian[k][k];
        }
    }
    for (size_t j = 0; j < m; j++) {
        double sum = fit->gradient[j];
        for (size_t q = 0; q < j; q++)
            sum -= fit->hessian[j][q] * step[q];
        step[j] = sum / fit->hessian[j][j];
    }
    for (size_t j = m; j-- > 0;) {
        double sum = step[j];
        for (size_t q = j + 1; q < m; q++)
            sum -= fit->hessian[q][j] * step[q];
        step[j] = sum / fit->hessian[j][j];
    }
    return true;
}

static mr_status check_rows(const double *x, const uint8_t *label, size_t n, size_t dim,
                            mr_error *err)
{
    if (dim + 1 > MAX_WEIGHTS)
        return MR_FAIL(err, INVALID, "a logistic regression on %zu features, expected at most %d",
                       dim, MAX_WEIGHTS - 1);
    size_t positive = 0;
    for (size_t i = 0; i < n; i++) {
        positive += label[i] != 0;
        for (size_t j = 0; j < dim; j++)
            if (!isfinite(x[i * dim + j]))
                return MR_FAIL(err, INVALID, "feature %zu of row %zu is not a finite number", j, i);
    }
    if (positive == 0 || positive == n)
        return MR_FAIL(err, INVALID,
                       "%zu of %zu rows are positive: there is nothing to tell apart, expected "
                       "rows of both kinds",
                       positive, n);
    return MR_OK;
}

mr_status mr_logistic_fit(const double *x, const uint8_t *label, size_t n, size_t dim, double *w,
                          mr_error *err)
{
    const mr_status status = check_rows(x, label, n, dim, err);
    if (status != MR_OK)
        return status;
    const size_t m = dim + 1;
    logistic fit = {.x = x, .label = label, .n = n, .n_weights = m};
    double at[MAX_WEIGHTS] = {0}, step[MAX_WEIGHTS] = {0}, next[MAX_WEIGHTS] = {0};
    double loss = loss_at(&fit, at);
    for (int pass = 0; pass < MAX_STEPS; pass++) {
        differentiate(&fit, at);
        if (!solve(&fit, step))
            break;
        double gain = 0;
        for (size_t j = 0; j < m; j++)
            gain += step[j] * fit.gradient[j] / 2;
        double share = 1, next_loss = HUGE_VAL;
        for (int half = 0; half < MAX_HALVES && !(next_loss <= loss); half++, share /= 2) {
            for (size_t j = 0; j < m; j++)
                next[j] = at[j] - share * step[j];
            next_loss = loss_at(&fit, next);
        }
        const bool done = gain <= LEAST_GAIN * loss;
        if (next_loss <= loss) {
            memcpy(at, next, sizeof at);
            loss = next_loss;
        }
        if (done) {
            memcpy(w, at, m * sizeof *w);
            return MR_OK;
        }
    }
    return MR_FAIL(err, INTERNAL,
                   "a logistic regression on %zu rows did not settle in %d steps: features of very "
                   "different sizes do that, standardise them",
                   n, MAX_STEPS);
}

double mr_linear_ranker_score(const mr_linear_ranker *linear, const double *features)
{
    double expected = 0, gain_before = 1;
    for (size_t k = 0; k < linear->n_levels; k++) {
        const double gain = (double)(1u << linear->grade[k]);
        expected += (gain - gain_before) *
                    probability(margin_of(linear->weight[k], features, MR_BASELINE_FEATURES + 1));
        gain_before = gain;
    }
    return expected;
}

static mr_status count_rows(const mr_linear_row *rows, size_t n_rows, size_t *n_candidates,
                            bool found[MR_BASELINE_MAX_GRADE + 1], mr_error *err)
{
    *n_candidates = 0;
    for (size_t r = 0; r < n_rows; r++) {
        if (!mr_size_add(*n_candidates, rows[r].request.n, n_candidates))
            return MR_FAIL(err, EXHAUSTED, "too many candidates in %zu rows", n_rows);
        for (size_t i = 0; i < rows[r].request.n; i++) {
            const unsigned grade = rows[r].grade[i];
            if (grade > MR_BASELINE_MAX_GRADE)
                return MR_FAIL(err, INVALID,
                               "grade %u of candidate %zu in row %zu, expected 0 to %d", grade, i,
                               r, MR_BASELINE_MAX_GRADE);
            found[grade] = true;
        }
    }
    return MR_OK;
}

mr_status mr_linear_ranker_fit(mr_linear_ranker *out, const mr_baseline_context *context,
                               const mr_linear_row *rows, size_t n_rows, mr_error *err)
{
    bool found[MR_BASELINE_MAX_GRADE + 1] = {false};
    size_t n = 0, n_values, at = 0;
    mr_linear_ranker made = {0};
    mr_status status = count_rows(rows, n_rows, &n, found, err);
    if (status != MR_OK)
        return status;
    double *features = NULL;
    uint8_t *label = NULL;
    if (mr_size_mul(n, MR_BASELINE_FEATURES, &n_values)) {
        features = calloc(n_values + 1, sizeof *features);
        label = calloc(n + 1, sizeof *label);
    }
    if (!features || !label) {
        status = MR_FAIL(err, NO_MEMORY, "features of %zu candidates in %zu rows", n, n_rows);
        goto out;
    }
    for (size_t r = 0; r < n_rows; r++) {
        status = mr_baseline_features(context, &rows[r].request,
                                      features + at * MR_BASELINE_FEATURES, err);
        if (status != MR_OK) {
            status = mr_error_prefix(err, status, "row %zu", r);
            goto out;
        }
        at += rows[r].request.n;
    }
    for (unsigned grade = 1; grade <= MR_BASELINE_MAX_GRADE; grade++) {
        if (!found[grade])
            continue;
        at = 0;
        for (size_t r = 0; r < n_rows; r++)
            for (size_t i = 0; i < rows[r].request.n; i++)
                label[at++] = rows[r].grade[i] >= grade;
        status = mr_logistic_fit(features, label, n, MR_BASELINE_FEATURES,
                                 made.weight[made.n_levels], err);
        if (status != MR_OK) {
            status = mr_error_prefix(err, status, "grades of %u and above", grade);
            goto out;
        }
        made.grade[made.n_levels++] = (uint8_t)grade;
    }
    if (made.n_levels == 0) {
        status =
            MR_FAIL(err, INVALID,
                    "%zu rows without a grade above 0: there is nothing to tell apart, expected "
                    "rows of split train with their labels",
                    n_rows);
        goto out;
    }
    *out = made;

out:
    free(features);
    free(label);
    return status;
}
