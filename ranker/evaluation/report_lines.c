/* report_lines.c - see report_lines.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/evaluation/report_lines.h"

#include <stdlib.h>

bool mr_report_has_families(const mr_report_options *options, const mr_task_result *task,
                            size_t *n_rows)
{
    *n_rows = 0;
    for (size_t r = 0; r < task->n_rows; r++)
        *n_rows += !task->same_family[r];
    return options->no_family && *n_rows<task->n_rows && * n_rows> 0;
}

/* The rows of a line, gathered. */
typedef struct {
    double *value, *other;
    uint32_t *person;
    size_t n;
} gathered;

static void gather(gathered *rows, const mr_task_result *task, const double *value,
                   const double *other, bool without_family)
{
    rows->n = 0;
    for (size_t r = 0; r < task->n_rows; r++) {
        if (without_family && task->same_family[r])
            continue;
        rows->person[rows->n] = task->person[r];
        rows->value[rows->n] = value[r];
        rows->other[rows->n++] = other ? other[r] : 0;
    }
}

static mr_status fill_intervals(const mr_report_options *options, const mr_task_result *task,
                                const mr_system_result *system, const mr_system_result *other,
                                bool without_family, gathered *rows, mr_report_line *out,
                                mr_error *err)
{
    static const mr_measure measure[] = {MR_MEASURE_NDCG, MR_MEASURE_RR_BEST, MR_MEASURE_HIT_10};
    mr_interval *const interval[] = {&out->ndcg, &out->rr, &out->hit};
    mr_interval *const gain[] = {&out->gain_ndcg, &out->gain_rr, NULL};
    mr_status status = MR_OK;
    for (size_t i = 0; status == MR_OK && i < 3; i++) {
        gather(rows, task, system->value[measure[i]], other ? other->value[measure[i]] : NULL,
               without_family);
        status = mr_bootstrap_mean(rows->value, rows->person, rows->n, &options->bootstrap,
                                   interval[i], err);
        if (status == MR_OK && other && gain[i])
            status = mr_bootstrap_difference(rows->value, rows->other, rows->person, rows->n,
                                             &options->bootstrap, gain[i], err);
    }
    return status;
}

static void fill_costs(const mr_system_result *system, mr_report_line *out)
{
    const mr_system_work *work = &system->work;
    const double n = (double)(work->candidates ? work->candidates : 1);
    out->suffix_tokens = (double)work->suffix_tokens / n;
    out->tokens = (double)(work->suffix_tokens + work->prefix_tokens) / n;
    out->unscored = (double)work->unscored / n;
    out->per_second =
        work->time_us > 0 ? (double)work->candidates * 1e6 / (double)work->time_us : 0;
    out->item_bytes = system->item_bytes;
}

mr_status mr_report_make_line(const mr_evaluation *evaluation, const mr_report_options *options,
                              const mr_task_result *task, size_t system, bool without_family,
                              mr_report_line *out, mr_error *err)
{
    const mr_system_result *one = &task->system[system];
    const mr_system_result *other = NULL;
    *out = (mr_report_line){.blank = one->blank};
    if (one->blank)
        return MR_OK;
    if (options->against < evaluation->n_systems && options->against != system &&
        !task->system[options->against].blank)
        other = &task->system[options->against];
    out->has_gain = other != NULL;
    fill_costs(one, out);
    gathered rows = {calloc(task->n_rows + 1, sizeof(double)),
                     calloc(task->n_rows + 1, sizeof(double)),
                     calloc(task->n_rows + 1, sizeof(uint32_t)), 0};
    mr_status status = rows.value && rows.other && rows.person
                           ? MR_OK
                           : MR_FAIL(err, NO_MEMORY, "figures of %zu rows", task->n_rows);
    for (size_t m = 0; status == MR_OK && m < MR_MEASURE_COUNT; m++) {
        double sum = 0;
        gather(&rows, task, one->value[m], NULL, without_family);
        for (size_t r = 0; r < rows.n; r++)
            sum += rows.value[r];
        out->mean[m] = rows.n ? sum / (double)rows.n : 0;
    }
    if (status == MR_OK)
        status = fill_intervals(options, task, one, other, without_family, &rows, out, err);
    free(rows.value);
    free(rows.other);
    free(rows.person);
    return status;
}
