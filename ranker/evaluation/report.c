/* report.c - the table and the JSON. See report.h; the page is in report_markdown.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/evaluation/report.h"

#include "ranker/evaluation/report_lines.h"

mr_status mr_report_find_system(const mr_evaluation *evaluation, const char *name, size_t *out,
                                mr_error *err)
{
    mr_strbuf known = {0};
    for (size_t i = 0; i < evaluation->n_systems; i++) {
        if (strcmp(evaluation->systems[i].name, name) == 0) {
            mr_strbuf_release(&known);
            *out = i;
            return MR_OK;
        }
        mr_strbuf_printf(&known, "%s'%s'", i ? ", " : "", evaluation->systems[i].name);
    }
    mr_status status = MR_FAIL(err, NOT_FOUND, "no system is called '%s'; they are %s", name,
                               known.data ? known.data : "none");
    mr_strbuf_release(&known);
    return status;
}

/* ---- the table ------------------------------------------------------------------------------- */

static void put_number(mr_strbuf *out, double value, int digits)
{
    char text[32];
    snprintf(text, sizeof text, value > 0 ? "%.*f" : "-", digits, value);
    mr_strbuf_printf(out, "  %9s", text);
}

static void put_line(mr_strbuf *out, const mr_evaluation *evaluation,
                     const mr_system_result *result, size_t system, int width, bool gains,
                     const mr_report_line *line)
{
    mr_strbuf_printf(out, "%-*s", width, evaluation->systems[system].name);
    if (line->blank) {
        mr_strbuf_puts(out, "  nothing to go by\n");
        return;
    }
    mr_strbuf_printf(out, "  %.3f [%.3f, %.3f]  %.3f [%.3f, %.3f]  %.3f  %.3f", line->ndcg.mean,
                     line->ndcg.low, line->ndcg.high, line->rr.mean, line->rr.low, line->rr.high,
                     line->mean[MR_MEASURE_HIT_1], line->hit.mean);
    if (gains && line->has_gain)
        mr_strbuf_printf(out, "  %+.3f [%+.3f, %+.3f]", line->gain_ndcg.mean, line->gain_ndcg.low,
                         line->gain_ndcg.high);
    else if (gains)
        mr_strbuf_printf(out, "  %-23s", "-");
    put_number(out, line->tokens, 1);
    put_number(out, line->per_second, 0);
    put_number(out, line->item_bytes, 0);
    if (evaluation->systems[system].tune)
        mr_strbuf_printf(out,
                         result->untuned ? "  not tuned: no rows of split valid" : "  W = %.4g",
                         result->blend);
    if (line->unscored > 0)
        mr_strbuf_printf(out, "  %.2g %% of the candidates not scored", 100 * line->unscored);
    if (evaluation->about[system].untrained)
        mr_strbuf_puts(out, "  untrained");
    mr_strbuf_puts(out, "\n");
}

static mr_status put_block(mr_strbuf *out, const mr_evaluation *evaluation,
                           const mr_report_options *options, const mr_task_result *task,
                           bool without_family, mr_error *err)
{
    int width = 6;
    const bool gains = options->against < evaluation->n_systems;
    for (size_t i = 0; i < evaluation->n_systems; i++)
        if ((int)strlen(evaluation->systems[i].name) > width)
            width = (int)strlen(evaluation->systems[i].name);
    mr_strbuf_printf(out, "%-*s  %-20s  %-20s  %-5s  %-5s", width, "system", "NDCG@10", "MRR",
                     "hit@1", "hit@10");
    if (gains)
        mr_strbuf_printf(out, " %-23s", "NDCG@10 gain");
    mr_strbuf_printf(out, " %9s  %9s  %9s\n", "tokens", "per s", "bytes");
    for (size_t i = 0; i < evaluation->n_systems; i++) {
        mr_report_line line;
        mr_status status =
            mr_report_make_line(evaluation, options, task, i, without_family, &line, err);
        if (status != MR_OK)
            return status;
        put_line(out, evaluation, &task->system[i], i, width, gains, &line);
    }
    return MR_OK;
}

mr_status mr_report_table(const mr_evaluation *evaluation, const mr_report_options *options,
                          mr_strbuf *out, mr_error *err)
{
    mr_status status = MR_OK;
    for (size_t t = 0; status == MR_OK && t < evaluation->n_tasks; t++) {
        const mr_task_result *task = &evaluation->tasks[t];
        size_t n;
        mr_strbuf_printf(out, "%s%s, split %s: %zu rows", t ? "\n" : "", task->name,
                         mr_split_name(evaluation->split), task->n_rows);
        if (task->n_people)
            mr_strbuf_printf(out, " of %zu people", task->n_people);
        mr_strbuf_printf(out, ", %.0f candidates each\n", task->mean_candidates);
        status = put_block(out, evaluation, options, task, false, err);
        if (status == MR_OK && mr_report_has_families(options, task, &n)) {
            mr_strbuf_printf(out, "\n%s without name families: %zu rows\n", task->name, n);
            status = put_block(out, evaluation, options, task, true, err);
        }
    }
    if (options->against < evaluation->n_systems)
        mr_strbuf_printf(out, "\ngain: over '%s', paired by row\n",
                         evaluation->systems[options->against].name);
    mr_strbuf_printf(
        out,
        "%sintervals: %g %%, people resampled %u times. MRR, hit: of the items with the highest "
        "grade.\ntokens: computed per candidate; bytes: that stand for one item\n",
        options->against < evaluation->n_systems ? "" : "\n", 100 * options->bootstrap.confidence,
        options->bootstrap.resamples);
    return status == MR_OK && out->failed ? MR_FAIL(err, NO_MEMORY, "a table") : status;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *interval_json(const mr_interval *interval)
{
    return json_pack("{s:f, s:f, s:f}", "mean", interval->mean, "low", interval->low, "high",
                     interval->high);
}

static json_t *line_json(const mr_evaluation *evaluation, const mr_system_result *result,
                         size_t system, const mr_report_line *line)
{
    const mr_system_about *about = &evaluation->about[system];
    json_t *out =
        json_pack("{s:s, s:b}", "system", evaluation->systems[system].name, "blank", line->blank);
    if (about->name)
        json_object_set_new(out, "bundle",
                            json_pack("{s:s, s:s, s:s, s:b}", "name", about->name, "version",
                                      about->version, "numerics", about->numerics, "untrained",
                                      about->untrained));
    if (line->blank)
        return out;
    json_t *means = json_object();
    for (size_t m = 0; m < MR_MEASURE_COUNT; m++)
        json_object_set_new(means, mr_measure_name((mr_measure)m), json_real(line->mean[m]));
    json_object_set_new(out, "means", means);
    json_object_set_new(out, "intervals",
                        json_pack("{s:o, s:o, s:o}", mr_measure_name(MR_MEASURE_NDCG),
                                  interval_json(&line->ndcg), mr_measure_name(MR_MEASURE_RR_BEST),
                                  interval_json(&line->rr), mr_measure_name(MR_MEASURE_HIT_10),
                                  interval_json(&line->hit)));
    if (line->has_gain)
        json_object_set_new(out, "gains",
                            json_pack("{s:o, s:o}", mr_measure_name(MR_MEASURE_NDCG),
                                      interval_json(&line->gain_ndcg),
                                      mr_measure_name(MR_MEASURE_RR_BEST),
                                      interval_json(&line->gain_rr)));
    json_object_set_new(out, "blend", json_real(result->blend));
    if (evaluation->systems[system].tune)
        json_object_set_new(out, "tuned", json_boolean(!result->untuned));
    json_object_set_new(out, "costs",
                        json_pack("{s:f, s:f, s:f, s:f, s:f}", "tokens_per_candidate", line->tokens,
                                  "suffix_tokens_per_candidate", line->suffix_tokens,
                                  "candidates_per_s", line->per_second, "bytes_per_item",
                                  line->item_bytes, "unscored", line->unscored));
    return out;
}

static mr_status block_json(const mr_evaluation *evaluation, const mr_report_options *options,
                            const mr_task_result *task, bool without_family, json_t **out,
                            mr_error *err)
{
    *out = json_array();
    for (size_t i = 0; i < evaluation->n_systems; i++) {
        mr_report_line line;
        mr_status status =
            mr_report_make_line(evaluation, options, task, i, without_family, &line, err);
        if (status != MR_OK)
            return status;
        json_array_append_new(*out, line_json(evaluation, &task->system[i], i, &line));
    }
    return MR_OK;
}

static mr_status task_json(const mr_evaluation *evaluation, const mr_report_options *options,
                           const mr_task_result *task, json_t *out, mr_error *err)
{
    json_t *lines = NULL;
    size_t n;
    json_object_set_new(out, "task", json_string(task->name));
    json_object_set_new(out, "rows", json_integer((json_int_t)task->n_rows));
    json_object_set_new(out, "people", json_integer((json_int_t)task->n_people));
    json_object_set_new(out, "tuned_on_rows", json_integer((json_int_t)task->n_valid));
    json_object_set_new(out, "candidates", json_real(task->mean_candidates));
    json_object_set_new(out, "verbatim", json_real(task->verbatim));
    mr_status status = block_json(evaluation, options, task, false, &lines, err);
    json_object_set_new(out, "systems", lines);
    if (status == MR_OK && mr_report_has_families(options, task, &n)) {
        lines = NULL;
        status = block_json(evaluation, options, task, true, &lines, err);
        json_object_set_new(out, "no_family",
                            json_pack("{s:I, s:o}", "rows", (json_int_t)n, "systems", lines));
    }
    return status;
}

mr_status mr_report_json(const mr_evaluation *evaluation, const mr_report_options *options,
                         json_t **out, mr_error *err)
{
    mr_status status = MR_OK;
    json_t *tasks = json_array();
    json_t *root = json_pack(
        "{s:s, s:I, s:I, s:I, s:f}", "split", mr_split_name(evaluation->split), "limit",
        (json_int_t)evaluation->limit, "seed", (json_int_t)evaluation->seed, "resamples",
        (json_int_t)options->bootstrap.resamples, "confidence", options->bootstrap.confidence);
    if (evaluation->digest[0])
        json_object_set_new(root, "catalogue_digest", json_string(evaluation->digest));
    if (options->against < evaluation->n_systems)
        json_object_set_new(root, "against",
                            json_string(evaluation->systems[options->against].name));
    json_object_set_new(root, "tasks", tasks);
    for (size_t t = 0; status == MR_OK && t < evaluation->n_tasks; t++) {
        json_t *task = json_object();
        json_array_append_new(tasks, task);
        status = task_json(evaluation, options, &evaluation->tasks[t], task, err);
    }
    if (status == MR_OK && !root)
        status = MR_FAIL(err, NO_MEMORY, "a report");
    if (status == MR_OK)
        *out = root;
    else
        json_decref(root);
    return status;
}
