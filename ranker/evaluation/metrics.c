/* metrics.c - see metrics.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/evaluation/metrics.h"

#include <math.h>

static int clamp_grade(int grade)
{
    return grade > MR_GRADE_MAX ? MR_GRADE_MAX : grade;
}

void mr_judgements_add(mr_judgements *judged, int grade)
{
    if (grade > 0)
        judged->count[clamp_grade(grade)]++;
}

size_t mr_judgements_relevant(const mr_judgements *judged, int level)
{
    size_t n = 0;
    for (int grade = level > 1 ? level : 1; grade <= MR_GRADE_MAX; grade++)
        n += judged->count[grade];
    return n;
}

int mr_judgements_highest(const mr_judgements *judged)
{
    int grade = MR_GRADE_MAX;
    while (grade > 0 && judged->count[grade] == 0)
        grade--;
    return grade;
}

static size_t cut(size_t n, size_t k)
{
    return k && k < n ? k : n;
}

static double gain_of(int grade, mr_gain gain)
{
    if (grade <= 0)
        return 0;
    return gain == MR_GAIN_LINEAR ? clamp_grade(grade) : ldexp(1, clamp_grade(grade)) - 1;
}

/* place from 0. */
static double discounted(double gain, size_t place)
{
    return gain / log2((double)place + 2);
}

double mr_metric_ndcg(const int *grades, size_t n, const mr_judgements *judged, size_t k,
                      mr_gain gain)
{
    double sum = 0, ideal = 0;
    for (size_t place = 0; place < cut(n, k); place++)
        sum += discounted(gain_of(grades[place], gain), place);
    size_t place = 0;
    for (int grade = MR_GRADE_MAX; grade > 0; grade--)
        for (size_t i = 0; i < judged->count[grade] && (k == 0 || place < k); i++, place++)
            ideal += discounted(gain_of(grade, gain), place);
    return ideal > 0 ? sum / ideal : 0;
}

/* Relevant ones among the first k. */
static size_t count(const int *grades, size_t n, size_t k, int level)
{
    size_t found = 0;
    for (size_t place = 0; place < cut(n, k); place++)
        found += grades[place] >= level;
    return found;
}

double mr_metric_reciprocal_rank(const int *grades, size_t n, int level)
{
    for (size_t place = 0; place < n; place++)
        if (grades[place] >= level)
            return 1 / ((double)place + 1);
    return 0;
}

double mr_metric_average_precision(const int *grades, size_t n, const mr_judgements *judged,
                                   int level)
{
    const size_t relevant = mr_judgements_relevant(judged, level);
    size_t found = 0;
    double sum = 0;
    for (size_t place = 0; place < n; place++)
        if (grades[place] >= level)
            sum += (double)++found / ((double)place + 1);
    return relevant ? sum / (double)relevant : 0;
}

double mr_metric_precision(const int *grades, size_t n, size_t k, int level)
{
    const size_t of = k ? k : n;
    return of ? (double)count(grades, n, k, level) / (double)of : 0;
}

double mr_metric_recall(const int *grades, size_t n, const mr_judgements *judged, size_t k,
                        int level)
{
    const size_t relevant = mr_judgements_relevant(judged, level);
    return relevant ? (double)count(grades, n, k, level) / (double)relevant : 0;
}

double mr_metric_success(const int *grades, size_t n, size_t k, int level)
{
    return count(grades, n, k, level) > 0;
}
