/* report_markdown.c - the page: the same figures with what they mean. See report.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/evaluation/report_lines.h"

static const char introduction[] =
    "# Evaluation\n"
    "\n"
    "Made by one command; do not edit. Figures hold for the catalogue and the bundles named here.\n"
    "\n";

static const char measures_text[] =
    "## How to read it\n"
    "\n"
    "| column | meaning |\n"
    "| --- | --- |\n"
    "| NDCG@10 | gain 2^grade - 1, discount log2(place + 1), against the best order of all labels "
    "|\n"
    "| MRR | 1 / place of the first item with the row's highest grade |\n"
    "| hit@1, hit@10 | share of rows with such an item first, among the first 10 |\n"
    "| gain | of NDCG@10 over the system named above, paired by row |\n"
    "| tokens | that the model computed per candidate, its share of the prefix included |\n"
    "| candidates/s | ranked on the machine of the run; encoding items beforehand is not in it |\n"
    "| bytes | that stand for one item: its record in the store, or its text |\n"
    "\n"
    "A row's history is all that is known of the person. Equal scores are ordered by a seeded "
    "shuffle.\n";

/* A cell of a table: no bar, no line break. */
static void put_cell(mr_strbuf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '|')
            mr_strbuf_puts(out, "\\|");
        else if ((unsigned char)*text >= ' ')
            mr_strbuf_append(out, text, 1);
    }
}

static void put_number(mr_strbuf *out, double value, int digits)
{
    if (value > 0)
        mr_strbuf_printf(out, " %.*f |", digits, value);
    else
        mr_strbuf_puts(out, " |");
}

static void put_line(mr_strbuf *out, const mr_evaluation *evaluation,
                     const mr_system_result *result, size_t system, bool gains,
                     const mr_report_line *line)
{
    mr_strbuf_puts(out, "| ");
    put_cell(out, evaluation->systems[system].name);
    if (evaluation->systems[system].tune)
        mr_strbuf_printf(out,
                         result->untuned ? " (not tuned: no rows of split valid)" : " (W = %.4g)",
                         result->blend);
    if (evaluation->about[system].untrained)
        mr_strbuf_puts(out, " (untrained)");
    if (line->blank) {
        mr_strbuf_puts(out, gains ? " | nothing to go by | | | | | | | |\n"
                                  : " | nothing to go by | | | | | | |\n");
        return;
    }
    mr_strbuf_printf(out, " | %.3f [%.3f, %.3f] | %.3f [%.3f, %.3f] | %.3f | %.3f |",
                     line->ndcg.mean, line->ndcg.low, line->ndcg.high, line->rr.mean, line->rr.low,
                     line->rr.high, line->mean[MR_MEASURE_HIT_1], line->hit.mean);
    if (gains && line->has_gain)
        mr_strbuf_printf(out, " %+.3f [%+.3f, %+.3f] |", line->gain_ndcg.mean, line->gain_ndcg.low,
                         line->gain_ndcg.high);
    else if (gains)
        mr_strbuf_puts(out, " |");
    put_number(out, line->tokens, 1);
    put_number(out, line->per_second, 0);
    put_number(out, line->item_bytes, 0);
    mr_strbuf_puts(out, "\n");
}

static mr_status put_block(mr_strbuf *out, const mr_evaluation *evaluation,
                           const mr_report_options *options, const mr_task_result *task,
                           bool without_family, mr_error *err)
{
    const bool gains = options->against < evaluation->n_systems;
    mr_strbuf_printf(
        out,
        "| system | NDCG@10 | MRR | hit@1 | hit@10 |%s tokens | candidates/s | bytes |\n"
        "| --- | --- | --- | --- | --- |%s --- | --- | --- |\n",
        gains ? " gain |" : "", gains ? " --- |" : "");
    for (size_t i = 0; i < evaluation->n_systems; i++) {
        mr_report_line line;
        mr_status status =
            mr_report_make_line(evaluation, options, task, i, without_family, &line, err);
        if (status != MR_OK)
            return status;
        put_line(out, evaluation, &task->system[i], i, gains, &line);
    }
    return MR_OK;
}

static mr_status put_task(mr_strbuf *out, const mr_evaluation *evaluation,
                          const mr_report_options *options, const mr_task_result *task,
                          mr_error *err)
{
    size_t n;
    mr_strbuf_printf(out, "\n## %s\n\n%zu rows of split %s", task->name, task->n_rows,
                     mr_split_name(evaluation->split));
    if (task->n_people)
        mr_strbuf_printf(out, " by %zu people", task->n_people);
    mr_strbuf_printf(out, ", %.0f candidates each.", task->mean_candidates);
    if (task->n_valid)
        mr_strbuf_printf(out, " Blends were tuned on %zu rows of split valid.", task->n_valid);
    if (task->items)
        mr_strbuf_printf(out, " Texts of `%s`.", task->items);
    mr_strbuf_puts(out, "\n\n");
    mr_status status = put_block(out, evaluation, options, task, false, err);
    if (status == MR_OK && mr_report_has_families(options, task, &n)) {
        mr_strbuf_printf(
            out,
            "\nWithout the rows whose answer shares its name's first word with an item "
            "of the history, %zu rows:\n\n",
            n);
        status = put_block(out, evaluation, options, task, true, err);
    }
    return status;
}

static void put_systems(mr_strbuf *out, const mr_evaluation *evaluation)
{
    mr_strbuf_puts(out, "\n## Systems\n\n| system | what |\n| --- | --- |\n");
    for (size_t i = 0; i < evaluation->n_systems; i++) {
        const mr_system_spec *spec = &evaluation->systems[i];
        const mr_system_about *about = &evaluation->about[i];
        mr_strbuf_puts(out, "| ");
        put_cell(out, spec->name);
        mr_strbuf_puts(out, " | ");
        if (spec->kind == MR_SYSTEM_BASELINE)
            put_cell(out, mr_baseline_what(spec->baseline));
        if (spec->kind == MR_SYSTEM_RUN)
            mr_strbuf_puts(out, "a run that was written before");
        if (about->name) {
            mr_strbuf_puts(out, "bundle ");
            put_cell(out, about->name);
            mr_strbuf_puts(out, " ");
            put_cell(out, about->version);
        }
        if (spec->kind == MR_SYSTEM_DOT)
            mr_strbuf_printf(out, ": late fusion by its item encoder, history x %g",
                             spec->variant.no_user ? 0 : spec->dot.history);
        if (spec->variant.no_user)
            mr_strbuf_puts(out, ", without the history");
        if (spec->variant.no_query)
            mr_strbuf_puts(out, ", without the query");
        if (spec->tune || spec->blend != 0)
            mr_strbuf_printf(out, ", + W x %s", mr_baseline_name(spec->prior));
        mr_strbuf_puts(out, " |\n");
    }
}

mr_status mr_report_markdown(const mr_evaluation *evaluation, const mr_report_options *options,
                             const char *command, mr_strbuf *out, mr_error *err)
{
    mr_status status = MR_OK;
    mr_strbuf_puts(out, introduction);
    mr_strbuf_printf(out, "    %s\n\n", command);
    if (evaluation->digest[0])
        mr_strbuf_printf(out, "Catalogue: digest `%s`%s%s.\n", evaluation->digest,
                         evaluation->catalogue_date ? ", archive of " : "",
                         evaluation->catalogue_date ? evaluation->catalogue_date : "");
    mr_strbuf_printf(out, "Intervals: %g %%, %u resamples of people, seed %llu.\n",
                     100 * options->bootstrap.confidence, options->bootstrap.resamples,
                     (unsigned long long)evaluation->seed);
    if (options->against < evaluation->n_systems) {
        mr_strbuf_puts(out, "Gains are over ");
        put_cell(out, evaluation->systems[options->against].name);
        mr_strbuf_puts(out, ".\n");
    }
    if (evaluation->limit)
        mr_strbuf_printf(out, "At most %zu rows of each task were measured.\n", evaluation->limit);
    for (size_t t = 0; status == MR_OK && t < evaluation->n_tasks; t++)
        status = put_task(out, evaluation, options, &evaluation->tasks[t], err);
    put_systems(out, evaluation);
    mr_strbuf_puts(out, "\n");
    mr_strbuf_puts(out, measures_text);
    return status == MR_OK && out->failed ? MR_FAIL(err, NO_MEMORY, "a report") : status;
}
