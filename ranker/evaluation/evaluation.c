/* evaluation.c - the order of it all: files, bundles, tasks, rows. See evaluation.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/evaluation/evaluation.h"

#include <math.h>
#include <stdlib.h>

#include "core/file.h"
#include "core/json.h"
#include "core/strbuf.h"
#include "encoders/template.h"
#include "ranker/evaluation/evaluation_private.h"

static const struct {
    const char *name, *what;
} measures[MR_MEASURE_COUNT] = {
#define MR_MEASURE_ROW(id, text, about) {text, about},
    MR_MEASURE_MAP(MR_MEASURE_ROW)
#undef MR_MEASURE_ROW
};

const char *mr_measure_name(mr_measure measure)
{
    return (unsigned)measure < MR_MEASURE_COUNT ? measures[measure].name : "unknown";
}

const char *mr_measure_what(mr_measure measure)
{
    return (unsigned)measure < MR_MEASURE_COUNT ? measures[measure].what : "unknown";
}

static void tell(const mr_evaluation_state *state, const char *what, uint64_t done, uint64_t total)
{
    if (state->options->progress)
        state->options->progress(state->options->progress_context, what, done, total);
}

/* ---- a row's facts --------------------------------------------------------------------------- */

static bool has_words(mr_str text, size_t words)
{
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++)
        n += text.data[i] != ' ' && (i == 0 || text.data[i - 1] == ' ');
    return n >= words;
}

static bool contains(mr_str text, mr_str part)
{
    for (size_t i = 0; part.len && i + part.len <= text.len; i++)
        if (text.data[i] == part.data[0] && memcmp(text.data + i, part.data, part.len) == 0)
            return true;
    return false;
}

/* Whether the text of the best item has the whole query, word for word. */
static bool gives_answer_away(const mr_tasks *tasks, const mr_task_row *row)
{
    const mr_label *best = row->labels;
    for (size_t i = 1; i < row->n_labels; i++)
        if (row->labels[i].grade > best->grade)
            best = &row->labels[i];
    return contains(mr_fields_get(mr_tasks_item(tasks, best->item)->fields, "text"), row->query);
}

static void describe_rows(const mr_evaluation_state *state)
{
    mr_task_result *result = state->result;
    size_t n_candidates = 0, long_queries = 0, given_away = 0;
    bool *seen = mr_arena_array(&state->evaluation->arena, bool, mr_tasks_n_users(state->tasks));
    for (size_t r = 0; r < state->n_rows; r++) {
        const mr_task_row *row = &state->rows[r];
        result->person[r] = row->user == MR_TASK_NOBODY ? MR_GROUP_NONE : row->user;
        result->same_family[r] = row->same_family;
        n_candidates += row->n_candidates;
        if (row->user != MR_TASK_NOBODY && seen) {
            result->n_people += !seen[row->user];
            seen[row->user] = true;
        }
        if (has_words(row->query, 3)) {
            long_queries++;
            given_away += gives_answer_away(state->tasks, row);
        }
    }
    result->mean_candidates = (double)n_candidates / (double)state->n_rows;
    result->verbatim = long_queries ? (double)given_away / (double)long_queries : 0;
}

/* ---- runs ------------------------------------------------------------------------------------ */

/* The path of a run that is read: % stands for the task. */
static mr_status open_runs(mr_evaluation_state *state, mr_error *err)
{
    mr_status status = MR_OK;
    for (size_t i = 0; status == MR_OK && i < state->evaluation->n_systems; i++) {
        const mr_system_spec *spec = &state->evaluation->systems[i];
        if (spec->kind != MR_SYSTEM_RUN || state->base[i] != i)
            continue;
        mr_strbuf path = {0};
        for (const char *c = spec->path; *c; c++) {
            if (*c == '%')
                mr_strbuf_puts(&path, state->result->name);
            else
                mr_strbuf_append(&path, c, 1);
        }
        status = path.failed ? MR_FAIL(err, NO_MEMORY, "a path")
                             : mr_trec_run_open(&state->run[i], path.data, state->tasks,
                                                state->rows, state->n_rows, err);
        mr_strbuf_release(&path);
    }
    return status;
}

static void close_runs(mr_evaluation_state *state)
{
    for (size_t i = 0; i < MR_EVALUATION_MAX_SYSTEMS; i++) {
        mr_trec_run_close(state->run[i]);
        state->run[i] = NULL;
    }
}

typedef struct {
    mr_file_writer run[MR_EVALUATION_MAX_SYSTEMS], qrels;
    char tag[MR_EVALUATION_MAX_SYSTEMS][128];
    size_t n_open;
    bool on;
} run_files;

static mr_status open_file(const mr_evaluation_state *state, const char *name, const char *ending,
                           mr_file_writer *out, mr_error *err)
{
    mr_strbuf path = {0};
    mr_strbuf_printf(&path, "%s/%s.%s", state->options->runs, state->result->name, ending);
    if (name)
        mr_strbuf_printf(&path, ".%s", name);
    mr_status status =
        path.failed ? MR_FAIL(err, NO_MEMORY, "a path") : mr_file_writer_open(out, path.data, err);
    mr_strbuf_release(&path);
    return status;
}

static mr_status open_files(const mr_evaluation_state *state, run_files *files, mr_error *err)
{
    if (!state->options->runs)
        return MR_OK;
    mr_status status = mr_file_make_folders(state->options->runs, err);
    if (status == MR_OK)
        status = open_file(state, NULL, "qrels", &files->qrels, err);
    files->on = status == MR_OK;
    for (size_t i = 0; status == MR_OK && i < state->evaluation->n_systems; i++) {
        mr_trec_name(state->evaluation->systems[i].name, files->tag[i], sizeof files->tag[i]);
        status = open_file(state, "run", files->tag[i], &files->run[i], err);
        files->n_open += status == MR_OK;
    }
    return status;
}

/* Commits all, or none after a failure. */
static mr_status close_files(run_files *files, mr_status status, mr_error *err)
{
    if (!files->on)
        return status;
    if (status == MR_OK)
        status = mr_file_writer_commit(&files->qrels, err);
    else
        mr_file_writer_abandon(&files->qrels);
    for (size_t i = 0; i < files->n_open; i++) {
        if (status == MR_OK)
            status = mr_file_writer_commit(&files->run[i], err);
        else
            mr_file_writer_abandon(&files->run[i]);
    }
    return status;
}

/* ---- a task ---------------------------------------------------------------------------------- */

static mr_status measure_row(mr_evaluation_state *state, size_t r, run_files *files, bool *told,
                             mr_system_work *work, mr_error *err)
{
    const mr_task_row *row = &state->rows[r];
    mr_status status = mr_evaluation_score_row(state, r, NULL, work, err);
    if (status == MR_OK && files->on)
        status = mr_trec_qrels_write(files->qrels.stream, state->tasks, row, err);
    for (size_t i = 0; status == MR_OK && i < state->evaluation->n_systems; i++) {
        const mr_system_spec *spec = &state->evaluation->systems[i];
        mr_system_result *out = &state->result->system[i];
        double value[MR_MEASURE_COUNT];
        told[i] |= mr_evaluation_order(state, row, state->scores[state->base[i]],
                                       state->baseline[spec->prior], out->blend);
        mr_evaluation_measure(state, row, value);
        for (size_t m = 0; m < MR_MEASURE_COUNT; m++)
            out->value[m][r] = value[m];
        if (files->on)
            status = mr_trec_run_write(files->run[i].stream, state->tasks, row, state->order,
                                       state->blended, files->tag[i], err);
    }
    return status;
}

static mr_status allot_result(mr_evaluation_state *state, mr_error *err)
{
    mr_arena *arena = &state->evaluation->arena;
    mr_task_result *result = state->result;
    const size_t n = state->n_rows;
    result->n_rows = n;
    result->person = mr_arena_array(arena, uint32_t, n);
    result->same_family = mr_arena_array(arena, bool, n);
    bool good = result->person && result->same_family;
    for (size_t i = 0; good && i < state->evaluation->n_systems; i++)
        for (size_t m = 0; good && m < MR_MEASURE_COUNT; m++) {
            result->system[i].value[m] = mr_arena_array(arena, double, n);
            good = result->system[i].value[m] != NULL;
        }
    return good ? MR_OK : MR_FAIL(err, NO_MEMORY, "figures of %zu rows", n);
}

/* The rows that are measured: all, or `limit` of them spread evenly. */
static mr_status choose_rows(mr_evaluation_state *state, size_t task, mr_error *err)
{
    const mr_evaluation_options *options = state->options;
    size_t n;
    const mr_task_row *rows = mr_tasks_rows(state->tasks, task, options->split, &n);
    if (n == 0)
        return MR_FAIL(err, NOT_FOUND, "task '%s' has no rows of split %s", state->result->name,
                       mr_split_name(options->split));
    state->rows = rows;
    state->n_rows = n;
    if (options->limit == 0 || options->limit >= n)
        return MR_OK;
    mr_task_row *some = mr_arena_array(&state->evaluation->arena, mr_task_row, options->limit);
    if (!some)
        return MR_FAIL(err, NO_MEMORY, "%zu rows", options->limit);
    for (size_t i = 0; i < options->limit; i++)
        some[i] = rows[i * n / options->limit];
    state->rows = some;
    state->n_rows = options->limit;
    return MR_OK;
}

static double item_bytes(const mr_evaluation_state *state, size_t i)
{
    if (!state->bundle_of[i])
        return 0;
    return state->evaluation->systems[i].kind == MR_SYSTEM_DOT
               ? mr_bundle_system_dot_bytes(state->bundle_of[i]->system)
               : mr_bundle_system_item_bytes(state->bundle_of[i]->system);
}

static mr_status run_task(mr_evaluation_state *state, size_t task, mr_error *err)
{
    mr_evaluation *evaluation = state->evaluation;
    bool told[MR_EVALUATION_MAX_SYSTEMS] = {false};
    mr_system_work work[MR_EVALUATION_MAX_SYSTEMS] = {{0}};
    run_files files = {.on = false};
    mr_status status = MR_OK;
    for (size_t i = 0; i < evaluation->n_systems; i++)
        state->result->system[i].blend = evaluation->systems[i].blend;
    if (state->lexical)
        status =
            mr_lexical_system_begin(state->lexical, task, state->needs_linear, &state->fitted, err);
    if (status == MR_OK && state->tunes)
        status = mr_evaluation_tune(state, task, err);
    if (status == MR_OK)
        status = choose_rows(state, task, err);
    if (status == MR_OK)
        status = allot_result(state, err);
    if (status == MR_OK)
        status = open_runs(state, err);
    if (status == MR_OK)
        status = open_files(state, &files, err);
    if (status == MR_OK)
        describe_rows(state);
    for (size_t r = 0; status == MR_OK && r < state->n_rows; r++) {
        status = measure_row(state, r, &files, told, work, err);
        tell(state, state->result->name, r + 1, state->n_rows);
    }
    status = close_files(&files, status, err);
    close_runs(state);
    state->result->cold = state->lexical && mr_lexical_system_is_cold(state->lexical);
    for (size_t i = 0; i < evaluation->n_systems; i++) {
        state->result->system[i].blank = !told[i];
        state->result->system[i].work = work[state->base[i]];
        state->result->system[i].item_bytes = item_bytes(state, i);
    }
    return status == MR_OK ? status : mr_error_prefix(err, status, "task %s", state->result->name);
}

/* ---- the tasks of one items file ------------------------------------------------------------- */

static void mark_rows(const mr_tasks *tasks, size_t task, mr_split split, uint8_t *needed)
{
    size_t n;
    const mr_task_row *row = mr_tasks_rows(tasks, task, split, &n);
    for (size_t r = 0; r < n; r++) {
        for (size_t i = 0; i < row[r].n_candidates; i++)
            needed[mr_task_candidate(&row[r], i)] = 1;
        for (size_t i = 0; i < row[r].n_history; i++)
            needed[row[r].history[i]] = 1;
    }
}

/* What a bar is called while a bundle encodes. */
typedef struct {
    mr_evaluation_state *state;
    char what[160];
} encode_bar;

static void on_encoded(void *context, uint64_t done, uint64_t total)
{
    encode_bar *bar = context;
    tell(bar->state, bar->what, done, total);
}

static mr_status prepare_bundles(mr_evaluation_state *state, size_t n_tasks, mr_error *err)
{
    const size_t n_items = mr_tasks_n_items(state->tasks);
    uint8_t *needed = calloc(n_items, 1);
    if (!needed)
        return MR_FAIL(err, NO_MEMORY, "%zu items", n_items);
    for (size_t t = 0; t < n_tasks; t++) {
        mark_rows(state->tasks, t, state->options->split, needed);
        if (state->tunes)
            mark_rows(state->tasks, t, MR_SPLIT_VALID, needed);
    }
    mr_status status = MR_OK;
    for (size_t b = 0; status == MR_OK && b < state->n_bundles; b++) {
        mr_bundle_system *system = state->bundle[b].system;
        encode_bar bar = {.state = state};
        snprintf(bar.what, sizeof bar.what, "encoding items with %s",
                 mr_bundle_name(mr_bundle_system_bundle(system)));
        status = mr_bundle_system_prepare(system, state->tasks, needed, state->bundle[b].with_means,
                                          on_encoded, &bar, err);
    }
    free(needed);
    return status;
}

/* members[n]: places in the evaluation's tasks, all of the same items file. */
static mr_status run_group(mr_evaluation_state *state, const size_t *members, size_t n,
                           mr_error *err)
{
    const mr_evaluation_options *options = state->options;
    const char *names[MR_TASKS_MAX];
    for (size_t i = 0; i < n; i++)
        names[i] = state->evaluation->tasks[members[i]].name;
    unsigned splits = 1u << options->split;
    if (state->needs_lexical)
        splits |= 1u << MR_SPLIT_TRAIN | 1u << MR_SPLIT_TEST; /* fitting, and what cold means */
    if (state->tunes)
        splits |= 1u << MR_SPLIT_VALID;
    const mr_tasks_options tasks = {.items = state->evaluation->tasks[members[0]].items,
                                    .tasks = names,
                                    .n_tasks = n,
                                    .splits = splits};
    tell(state, "reading the catalogue", 0, 0);
    mr_status status = mr_tasks_open(&state->tasks, options->catalogue, &tasks, err);
    if (status == MR_OK && state->needs_lexical) {
        const mr_lexical_options lexical = {options->titles, options->seed};
        tell(state, "indexing texts", 0, 0);
        status = mr_lexical_system_open(&state->lexical, options->catalogue, state->tasks, &lexical,
                                        err);
    }
    if (status == MR_OK)
        status = prepare_bundles(state, n, err);
    for (size_t i = 0; status == MR_OK && i < n; i++) {
        state->result = &state->evaluation->tasks[members[i]];
        status = run_task(state, i, err);
    }
    mr_lexical_system_close(state->lexical);
    state->lexical = NULL;
    mr_tasks_close(state->tasks);
    state->tasks = NULL;
    return status;
}

static bool same_items(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static mr_status run_groups(mr_evaluation_state *state, mr_error *err)
{
    mr_evaluation *evaluation = state->evaluation;
    bool done[MR_TASKS_MAX] = {false};
    mr_status status = MR_OK;
    for (size_t i = 0; status == MR_OK && i < evaluation->n_tasks; i++) {
        size_t members[MR_TASKS_MAX], n = 0;
        for (size_t k = i; !done[i] && k < evaluation->n_tasks; k++)
            if (same_items(evaluation->tasks[i].items, evaluation->tasks[k].items))
                members[n++] = k;
        for (size_t k = 0; k < n; k++)
            done[members[k]] = true;
        if (n)
            status = run_group(state, members, n, err);
    }
    return status;
}

/* ---- beginning ------------------------------------------------------------------------------- */

static mr_status open_bundle(mr_evaluation_state *state, size_t i, mr_error *err)
{
    const mr_system_spec *spec = &state->evaluation->systems[i];
    mr_open_bundle *open = NULL;
    for (size_t b = 0; b < state->n_bundles && !open; b++)
        if (strcmp(state->bundle[b].path, spec->path) == 0 &&
            same_items(state->bundle[b].store, spec->store))
            open = &state->bundle[b];
    if (!open) {
        open = &state->bundle[state->n_bundles];
        *open = (mr_open_bundle){.path = spec->path, .store = spec->store};
        mr_status status = mr_bundle_system_open(&open->system, spec->path, spec->store,
                                                 state->options->threads, err);
        if (status != MR_OK)
            return mr_error_prefix(err, status, "system '%s'", spec->name);
        state->n_bundles++;
    }
    open->with_means |= spec->kind == MR_SYSTEM_DOT;
    state->bundle_of[i] = open;
    const mr_bundle *bundle = mr_bundle_system_bundle(open->system);
    mr_system_about *about = &state->evaluation->about[i];
    mr_arena *arena = &state->evaluation->arena;
    const char *name = mr_bundle_name(bundle), *version = mr_bundle_version(bundle);
    const char *numerics = mr_bundle_numerics_id(bundle);
    about->name = mr_arena_strndup(arena, name, strlen(name));
    about->version = mr_arena_strndup(arena, version, strlen(version));
    about->numerics = mr_arena_strndup(arena, numerics, strlen(numerics));
    about->untrained = mr_bundle_is_untrained(bundle);
    return about->name && about->version && about->numerics
               ? MR_OK
               : MR_FAIL(err, NO_MEMORY, "a bundle's name");
}

static mr_status begin_systems(mr_evaluation_state *state, mr_error *err)
{
    mr_evaluation *evaluation = state->evaluation;
    mr_status status = MR_OK;
    for (size_t i = 0; status == MR_OK && i < evaluation->n_systems; i++) {
        const mr_system_spec *spec = &evaluation->systems[i];
        const bool blends = spec->tune || spec->blend != 0;
        for (size_t k = 0; k < i; k++)
            if (strcmp(evaluation->systems[k].name, spec->name) == 0)
                return MR_FAIL(
                    err, INVALID,
                    "two systems are called '%s': tell them apart with name=", spec->name);
        state->base[i] = i;
        for (size_t k = 0; k < i && state->base[i] == i; k++)
            if (mr_system_spec_same_scores(&evaluation->systems[k], spec))
                state->base[i] = k;
        state->tunes |= spec->tune;
        state->needs_lexical |= blends || spec->kind == MR_SYSTEM_BASELINE;
        state->needs_linear |=
            (spec->kind == MR_SYSTEM_BASELINE && spec->baseline == MR_BASELINE_LINEAR) ||
            (blends && spec->prior == MR_BASELINE_LINEAR);
        if (spec->kind == MR_SYSTEM_BUNDLE || spec->kind == MR_SYSTEM_DOT)
            status = open_bundle(state, i, err);
    }
    return status;
}

/* "C@items_long.jsonl" */
static mr_status begin_task(mr_evaluation *evaluation, const char *text, mr_task_result *out,
                            mr_error *err)
{
    char *name = mr_arena_strndup(&evaluation->arena, text, strlen(text));
    out->system = mr_arena_array(&evaluation->arena, mr_system_result, evaluation->n_systems);
    if (!name || !out->system)
        return MR_FAIL(err, NO_MEMORY, "a task");
    char *at = strchr(name, '@');
    if (at) {
        *at = '\0';
        out->items = at + 1;
    }
    out->name = name;
    for (const mr_task_result *other = evaluation->tasks; other < out; other++)
        if (strcmp(other->name, name) == 0)
            return MR_FAIL(err, INVALID, "task '%s' is asked for twice", name);
    return MR_OK;
}

/* What the figures are about, if the catalogue says it. */
static void read_manifest(mr_evaluation *evaluation, const char *folder)
{
    mr_strbuf path = {0};
    json_t *root = NULL;
    mr_strbuf_printf(&path, "%s/manifest.json", folder);
    if (!path.failed && mr_file_exists(path.data) &&
        mr_json_load_file(&root, path.data, MR_JSON_MAX_CONFIG, NULL) == MR_OK) {
        const char *digest = json_string_value(json_object_get(root, "digest"));
        const char *date =
            json_string_value(json_object_get(json_object_get(root, "archive"), "date"));
        if (digest && strlen(digest) < sizeof evaluation->digest)
            memcpy(evaluation->digest, digest, strlen(digest) + 1);
        if (date)
            evaluation->catalogue_date = mr_arena_strndup(&evaluation->arena, date, strlen(date));
    }
    json_decref(root);
    mr_strbuf_release(&path);
}

static mr_status begin(mr_evaluation_state *state, mr_error *err)
{
    mr_evaluation *evaluation = state->evaluation;
    const mr_evaluation_options *options = state->options;
    if (options->n_systems == 0 || options->n_systems > MR_EVALUATION_MAX_SYSTEMS)
        return MR_FAIL(err, INVALID, "%zu systems, expected 1 to %d", options->n_systems,
                       MR_EVALUATION_MAX_SYSTEMS);
    if (options->n_tasks == 0 || options->n_tasks > MR_TASKS_MAX)
        return MR_FAIL(err, INVALID, "%zu tasks, expected 1 to %d", options->n_tasks, MR_TASKS_MAX);
    evaluation->n_systems = options->n_systems;
    evaluation->n_tasks = options->n_tasks;
    evaluation->split = options->split;
    evaluation->limit = options->limit;
    evaluation->seed = options->seed;
    mr_arena *arena = &evaluation->arena;
    evaluation->systems = mr_arena_array(arena, mr_system_spec, options->n_systems);
    evaluation->about = mr_arena_array(arena, mr_system_about, options->n_systems);
    evaluation->tasks = mr_arena_array(arena, mr_task_result, options->n_tasks);
    if (!evaluation->systems || !evaluation->about || !evaluation->tasks)
        return MR_FAIL(err, NO_MEMORY, "an evaluation");
    mr_status status = MR_OK;
    for (size_t i = 0; i < options->n_systems; i++) {
        evaluation->systems[i] = options->systems[i];
        const char *name = options->systems[i].name;
        evaluation->systems[i].name = mr_arena_strndup(arena, name, strlen(name));
        if (!evaluation->systems[i].name)
            return MR_FAIL(err, NO_MEMORY, "a system's name");
    }
    for (size_t i = 0; status == MR_OK && i < options->n_tasks; i++)
        status = begin_task(evaluation, options->tasks[i], &evaluation->tasks[i], err);
    if (status == MR_OK)
        status = begin_systems(state, err);
    read_manifest(evaluation, options->catalogue);
    return status;
}

mr_status mr_evaluation_run(mr_evaluation **out, const mr_evaluation_options *options,
                            mr_error *err)
{
    mr_evaluation_state state = {.options = options};
    state.evaluation = calloc(1, sizeof *state.evaluation);
    if (!state.evaluation)
        return MR_FAIL(err, NO_MEMORY, "an evaluation");
    mr_status status = begin(&state, err);
    if (status == MR_OK)
        status = run_groups(&state, err);
    mr_evaluation_release(&state);
    for (size_t b = 0; b < state.n_bundles; b++)
        mr_bundle_system_close(state.bundle[b].system);
    if (status == MR_OK)
        *out = state.evaluation;
    else
        mr_evaluation_free(state.evaluation);
    return status;
}

void mr_evaluation_free(mr_evaluation *evaluation)
{
    if (!evaluation)
        return;
    mr_arena_done(&evaluation->arena);
    free(evaluation);
}
