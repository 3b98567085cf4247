/* cmd_evaluate.c - mixrank evaluate: systems over the rows of a catalogue's tasks.
 *
 * The work is in ranker/evaluation; here are options, bars and where the report goes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/progress.h"
#include "core/strbuf.h"
#include "ranker/cli/command.h"
#include "ranker/evaluation/report.h"

typedef struct {
    const char *catalogue, *task, *against, *markdown, *runs;
    mr_option_list systems;
    int64_t limit, seed, threads, resamples;
    int split;
    bool tune, no_family, titles, json, quiet;
} evaluate_options;

static const char *const split_choices[] = {"train", "valid", "test", NULL};

static const mr_option options[] = {
    MR_OPTION_STRING("catalogue", 'c', "DIR", evaluate_options, catalogue,
                     "folder with items.jsonl, queries.jsonl and qrels/"),
    MR_OPTION_STRING("task", 'T', "NAMES", evaluate_options, task,
                     "tasks apart by commas; NAME@FILE for one whose items are another file of the "
                     "folder: C@items_long.jsonl"),
    MR_OPTION_LIST(
        "system", 's', "SPEC", evaluate_options, systems,
        "what to measure, several times: random, bm25, bm25-history, tfidf, lsa, "
        "co-occurrence, sum, history-sum, linear, dot:BUNDLE, bundle:DIR, run:FILE, with "
        "options after commas: name=TEXT, no-user, no-query, store=URL, blend=W|tune, "
        "prior=BASELINE, history-items=N; of dot: history=W, nearest=N, last"),
    MR_OPTION_STRING("against", 'a', "NAME", evaluate_options, against,
                     "show each system's paired gain over the system of this name"),
    MR_OPTION_CHOICE("split", 0, "SPLIT", evaluate_options, split, split_choices,
                     "rows that are measured; others are never looked at, but for fitting the "
                     "linear ranker (train) and tuning (valid)"),
    MR_OPTION_FLAG(
        "tune", 0, evaluate_options, tune,
        "also each whole bundle with its score blended with the prior, the weight chosen "
        "on rows of split valid"),
    MR_OPTION_FLAG("no-family", 0, evaluate_options, no_family,
                   "also figures without rows whose answer shares its name's first word with an "
                   "item of the history (same_family)"),
    MR_OPTION_FLAG("titles", 0, evaluate_options, titles, "baselines read the titles too"),
    MR_OPTION_INT("limit", 0, "N", evaluate_options, limit, 0, 1e9,
                  "rows per task, spread evenly; 0: all"),
    MR_OPTION_INT("resamples", 0, "N", evaluate_options, resamples, 1, 1e6,
                  "of people, for the intervals"),
    MR_OPTION_INT("seed", 0, "N", evaluate_options, seed, 0, 9e15,
                  "of ties, the random baseline and the intervals"),
    MR_OPTION_INT("threads", 't', "N", evaluate_options, threads, 0, 256,
                  "threads; 0: the CPUs of this process"),
    MR_OPTION_STRING("runs", 'r', "DIR", evaluate_options, runs,
                     "write <task>.<system>.run and <task>.qrels there, as TREC files"),
    MR_OPTION_STRING("markdown", 'm', "FILE", evaluate_options, markdown,
                     "write the report as a page"),
    MR_OPTION_FLAG("json", 0, evaluate_options, json, "one JSON object instead of a table"),
    MR_OPTION_FLAG("quiet", 0, evaluate_options, quiet, "no progress bar"),
    MR_OPTION_END,
};

static const mr_command_help help = {
    "evaluate", "--catalogue DIR --task NAMES --system SPEC ... [options]",
    "Ranks the lists of a catalogue's tasks with each system and says how good they are: NDCG@10, "
    "MRR, hits, intervals over people, gains, and what it costs. A user is made from the row's "
    "history, never from a store.",
    "  mixrank evaluate -c build/demo/catalogue -T E1-cold,E1 -s random -s bm25 -s linear\n"
    "  mixrank evaluate -c build/demo/catalogue -T E1-cold -s linear -s bundle:build/demo/bundle "
    "\\\n"
    "      -s bundle:build/demo/bundle,no-user -s dot:build/demo/bundle --against linear --tune\n"
    "  mixrank evaluate -c build/demo/catalogue -T C@items_long.jsonl -s bm25 --runs runs\n"
    "  mixrank evaluate -c build/demo/catalogue -T E1 -s 'run:runs/%.bm25.run,name=before'\n"};

/* A bar for each stage; one begins where the last one ended. */
typedef struct {
    mr_progress bar;
    char what[192];
    bool running;
} stage_bar;

static void end_bar(stage_bar *stage)
{
    if (stage->running)
        mr_progress_finish(&stage->bar, NULL);
    stage->running = false;
}

static void on_progress(void *context, const char *what, uint64_t done, uint64_t total)
{
    stage_bar *stage = context;
    if (!stage->running || strcmp(stage->what, what) != 0) {
        end_bar(stage);
        snprintf(stage->what, sizeof stage->what, "%s", what);
        stage->bar = mr_progress_start(stage->what, total, "rows");
        stage->running = true;
    }
    mr_progress_update(&stage->bar, done, NULL);
}

/* What the command line asks for, parsed. */
typedef struct {
    mr_arena arena;
    const char *task[MR_TASKS_MAX];
    size_t n_tasks;
    mr_system_spec system[MR_EVALUATION_MAX_SYSTEMS];
    size_t n_systems;
} evaluate_plan;

static mr_status plan_tasks(evaluate_plan *plan, const char *list, mr_error *err)
{
    while (*list) {
        const size_t len = strcspn(list, ",");
        if (len) {
            if (plan->n_tasks == MR_TASKS_MAX)
                return MR_FAIL(err, INVALID, "more than %d tasks", MR_TASKS_MAX);
            plan->task[plan->n_tasks] = mr_arena_strndup(&plan->arena, list, len);
            if (!plan->task[plan->n_tasks++])
                return MR_FAIL(err, NO_MEMORY, "tasks");
        }
        list += len + (list[len] == ',');
    }
    return plan->n_tasks ? MR_OK : MR_FAIL(err, INVALID, "--task names no task");
}

static mr_status plan_systems(evaluate_plan *plan, const evaluate_options *opt, mr_error *err)
{
    for (size_t i = 0; i < opt->systems.n; i++) {
        mr_system_spec *spec = &plan->system[plan->n_systems++];
        mr_status status = mr_system_spec_parse(&plan->arena, opt->systems.value[i], spec, err);
        if (status != MR_OK)
            return status;
        if (!opt->tune || spec->kind != MR_SYSTEM_BUNDLE || spec->tune || spec->blend != 0 ||
            spec->variant.no_user || spec->variant.no_query)
            continue;
        status = mr_system_spec_tuned(&plan->arena, spec, &plan->system[plan->n_systems++], err);
        if (status != MR_OK)
            return status;
    }
    return MR_OK;
}

/* How to make a page again, without the folders of this machine. */
static void put_system(mr_strbuf *out, const char *text)
{
    const size_t head = strcspn(text, ",");
    size_t kind = strcspn(text, ":");
    kind = kind < head ? kind + 1 : 0;
    size_t end = head;
    while (end > kind && text[end - 1] == '/')
        end--;
    size_t base = end;
    while (base > kind && text[base - 1] != '/')
        base--;
    mr_strbuf_puts(out, " \\\n        --system '");
    mr_strbuf_append(out, text, kind);
    mr_strbuf_append(out, text + base, end - base);
    for (const char *part = text + head; *part;) {
        const size_t len = 1 + strcspn(part + 1, ",");
        if (strncmp(part, ",store=", 7) == 0)
            mr_strbuf_puts(out, ",store=URL");
        else
            mr_strbuf_append(out, part, len);
        part += len;
    }
    mr_strbuf_puts(out, "'");
}

static void put_command(mr_strbuf *out, const evaluate_options *opt)
{
    mr_strbuf_printf(out, "mixrank evaluate --catalogue CATALOGUE --task %s", opt->task);
    for (size_t i = 0; i < opt->systems.n; i++)
        put_system(out, opt->systems.value[i]);
    if (opt->against)
        mr_strbuf_printf(out, " \\\n        --against '%s'", opt->against);
    mr_strbuf_puts(out, opt->tune ? " --tune" : "");
    mr_strbuf_puts(out, opt->no_family ? " --no-family" : "");
    mr_strbuf_puts(out, opt->titles ? " --titles" : "");
    if (opt->limit)
        mr_strbuf_printf(out, " --limit %lld", (long long)opt->limit);
    if (opt->split != MR_SPLIT_TEST)
        mr_strbuf_printf(out, " --split %s", split_choices[opt->split]);
    mr_strbuf_puts(out, " --markdown docs/evaluation.md");
}

static mr_status write_page(const mr_evaluation *evaluation, const mr_report_options *report,
                            const evaluate_options *opt, mr_error *err)
{
    mr_strbuf page = {0}, command = {0};
    put_command(&command, opt);
    mr_status status = command.failed
                           ? MR_FAIL(err, NO_MEMORY, "a page")
                           : mr_report_markdown(evaluation, report, command.data, &page, err);
    if (status == MR_OK)
        status = mr_file_write(opt->markdown, page.data, page.len, err);
    mr_strbuf_release(&page);
    mr_strbuf_release(&command);
    return status;
}

static mr_status print_report(const mr_evaluation *evaluation, const mr_report_options *report,
                              const evaluate_options *opt, mr_error *err)
{
    if (opt->json) {
        json_t *json = NULL;
        mr_status status = mr_report_json(evaluation, report, &json, err);
        if (status == MR_OK)
            mr_command_print_json(json);
        return status;
    }
    mr_strbuf table = {0};
    mr_status status = mr_report_table(evaluation, report, &table, err);
    if (status == MR_OK)
        fputs(table.data, stdout);
    mr_strbuf_release(&table);
    return status;
}

/* What a reader must know before believing a figure. */
static void warn(const mr_evaluation *evaluation, bool json)
{
    bool untrained = false;
    for (size_t i = 0; i < evaluation->n_systems; i++)
        untrained |= evaluation->about[i].untrained;
    if (untrained)
        mr_command_warn_untrained(help.name, !json);
    for (size_t t = 0; t < evaluation->n_tasks; t++)
        if (evaluation->tasks[t].verbatim > 0.25)
            fprintf(stderr,
                    "mixrank evaluate: warning: in %.0f %% of the rows of task %s with a query of "
                    "3 words or more the answer's text has the whole query; is another items file "
                    "meant (NAME@FILE)?\n",
                    100 * evaluation->tasks[t].verbatim, evaluation->tasks[t].name);
}

static mr_status evaluate(const evaluate_options *opt, mr_error *err)
{
    evaluate_plan *plan = calloc(1, sizeof *plan);
    mr_evaluation *evaluation = NULL;
    stage_bar stage = {.running = false};
    if (!plan)
        return MR_FAIL(err, NO_MEMORY, "a plan");
    mr_report_options report = {.against = MR_REPORT_NO_AGAINST,
                                .no_family = opt->no_family,
                                .bootstrap = MR_BOOTSTRAP_OPTIONS_DEFAULT};
    report.bootstrap.resamples = (uint32_t)opt->resamples;
    report.bootstrap.seed = (uint64_t)opt->seed;
    mr_status status = plan_tasks(plan, opt->task, err);
    if (status == MR_OK)
        status = plan_systems(plan, opt, err);
    if (status == MR_OK && opt->against) {
        const mr_evaluation names = {.systems = plan->system, .n_systems = plan->n_systems};
        status = mr_report_find_system(&names, opt->against, &report.against, err);
    }
    if (status != MR_OK)
        goto out;
    const mr_evaluation_options run = {.catalogue = opt->catalogue,
                                       .tasks = plan->task,
                                       .n_tasks = plan->n_tasks,
                                       .systems = plan->system,
                                       .n_systems = plan->n_systems,
                                       .split = (mr_split)opt->split,
                                       .limit = (size_t)opt->limit,
                                       .seed = (uint64_t)opt->seed,
                                       .threads = (int)opt->threads,
                                       .titles = opt->titles,
                                       .runs = opt->runs,
                                       .progress = on_progress,
                                       .progress_context = &stage};
    status = mr_evaluation_run(&evaluation, &run, err);
    end_bar(&stage);
    if (status != MR_OK)
        goto out;
    warn(evaluation, opt->json);
    status = print_report(evaluation, &report, opt, err);
    if (status == MR_OK && opt->markdown)
        status = write_page(evaluation, &report, opt, err);
out:
    mr_evaluation_free(evaluation);
    mr_arena_done(&plan->arena);
    free(plan);
    return status;
}

int mr_cmd_evaluate(int argc, char **argv)
{
    evaluate_options opt = {.split = MR_SPLIT_TEST, .seed = 1, .resamples = 2000};
    int n_positional = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n_positional, &code))
        return code;
    if (n_positional)
        return mr_command_misuse(help.name, "unexpected argument '%s'", argv[1]);
    if (!opt.catalogue)
        return mr_command_misuse(help.name, "--catalogue is missing");
    if (!opt.task)
        return mr_command_misuse(help.name, "--task is missing");
    if (opt.systems.n == 0)
        return mr_command_misuse(help.name, "--system is missing: what is to be measured?");
    mr_progress_set_quiet(opt.quiet);
    mr_error err = {0};
    return evaluate(&opt, &err) == MR_OK ? MR_EXIT_OK : mr_command_fail(help.name, &err);
}
