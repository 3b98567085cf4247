/* trec_run.c - see trec_run.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/evaluation/trec_run.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "core/options.h"
#include "ranker/model/intern.h"

#define COLUMNS  6
#define MAX_LINE ((size_t)64 << 10)

void mr_trec_name(const char *name, char *out, size_t size)
{
    size_t n = 0;
    for (; *name && n + 1 < size; name++) {
        const char c = *name;
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                           (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '+';
        if (plain)
            out[n++] = c;
        else if (n && out[n - 1] != '-')
            out[n++] = '-';
    }
    out[n] = '\0';
}

/* The columns of a run are apart by blanks. */
static mr_status check_id(const char *what, mr_str id, mr_error *err)
{
    bool good = id.len > 0;
    for (size_t i = 0; i < id.len; i++)
        good &= (unsigned char)id.data[i] > ' ' && id.data[i] != 0x7f;
    return good ? MR_OK
                : MR_FAIL(err, INVALID,
                          "%s id '%.*s' is empty, or has a blank or a control character: a TREC "
                          "file cannot hold it",
                          what, MR_STR_ARG(id));
}

static mr_status check_stream(FILE *out, mr_error *err)
{
    return ferror(out) ? mr_file_fail(err, errno, "write", "a run") : MR_OK;
}

mr_status mr_trec_run_write(FILE *out, const mr_tasks *tasks, const mr_task_row *row,
                            const size_t *order, const double *scores, const char *tag,
                            mr_error *err)
{
    float above = INFINITY;
    mr_status status = check_id("row", row->id, err);
    for (size_t place = 0; status == MR_OK && place < row->n_candidates; place++) {
        if (!row->candidates && place == MR_TREC_RUN_MOST)
            break;
        const mr_str id = mr_tasks_item(tasks, mr_task_candidate(row, order[place]))->id;
        const double score = scores[order[place]];
        float written = isnan(score) ? above : (float)fmax(fmin(score, (double)FLT_MAX), -1e38);
        if (isinf(above) && isnan(score))
            written = 0;
        else if (written >= above)
            written = nextafterf(above, -INFINITY);
        above = written;
        status = check_id("item", id, err);
        if (status == MR_OK)
            fprintf(out, "%.*s Q0 %.*s %zu %.9g %s\n", (int)row->id.len, row->id.data, (int)id.len,
                    id.data, place + 1, (double)written, tag);
    }
    return status == MR_OK ? check_stream(out, err) : status;
}

mr_status mr_trec_qrels_write(FILE *out, const mr_tasks *tasks, const mr_task_row *row,
                              mr_error *err)
{
    mr_status status = check_id("row", row->id, err);
    for (size_t i = 0; status == MR_OK && i < row->n_labels; i++) {
        const mr_str id = mr_tasks_item(tasks, row->labels[i].item)->id;
        status = check_id("item", id, err);
        if (status == MR_OK)
            fprintf(out, "%.*s 0 %.*s %d\n", (int)row->id.len, row->id.data, (int)id.len, id.data,
                    row->labels[i].grade);
    }
    return status == MR_OK ? check_stream(out, err) : status;
}

/* ---- reading --------------------------------------------------------------------------------- */

struct mr_trec_run {
    double *scores; /* of all rows, one after the other */
    size_t *first;  /* [n_rows + 1] */
};

typedef struct {
    mr_trec_run *run;
    const mr_tasks *tasks;
    const mr_task_row *rows;
    mr_intern ids; /* of rows, in their order */
} run_reader;

static bool split_line(mr_str line, mr_str column[COLUMNS])
{
    size_t at = 0;
    for (size_t n = 0;; n++) {
        while (at < line.len &&
               (line.data[at] == ' ' || line.data[at] == '\t' || line.data[at] == '\r'))
            at++;
        if (at == line.len)
            return n == COLUMNS;
        if (n == COLUMNS)
            return false;
        const size_t begin = at;
        while (at < line.len && line.data[at] != ' ' && line.data[at] != '\t' &&
               line.data[at] != '\r')
            at++;
        column[n] = (mr_str){line.data + begin, at - begin};
    }
}

/* Where the row has the item; false: nowhere. */
static bool find_candidate(const mr_task_row *row, uint32_t item, size_t *place)
{
    if (!row->candidates) {
        *place = item;
        return true;
    }
    for (*place = 0; *place < row->n_candidates; (*place)++)
        if (row->candidates[*place] == item)
            return true;
    return false;
}

static mr_status read_line(run_reader *reader, mr_str line, mr_error *err)
{
    mr_str column[COLUMNS];
    uint32_t row, item;
    size_t place;
    char number[64];
    double score = 0;
    if (!split_line(line, column))
        return MR_FAIL(err, CORRUPT, "expected six columns: row id, Q0, item id, rank, score, tag");
    if (!mr_intern_find(&reader->ids, column[0], &row))
        return MR_OK;
    if (column[4].len >= sizeof number)
        return MR_FAIL(err, CORRUPT, "the score is '%.*s', expected a number",
                       MR_STR_ARG(column[4]));
    memcpy(number, column[4].data, column[4].len);
    number[column[4].len] = '\0';
    mr_status status = mr_parse_real("the score", number, -HUGE_VAL, HUGE_VAL, &score, err);
    if (status != MR_OK)
        return status;
    if (!mr_tasks_find_item(reader->tasks, column[2], &item) ||
        !find_candidate(&reader->rows[row], item, &place))
        return MR_FAIL(err, INVALID, "item '%.*s' is no candidate of row '%.*s'",
                       MR_STR_ARG(column[2]), MR_STR_ARG(column[0]));
    double *out = &reader->run->scores[reader->run->first[row] + place];
    if (!isnan(*out))
        return MR_FAIL(err, INVALID, "item '%.*s' stands twice in row '%.*s'",
                       MR_STR_ARG(column[2]), MR_STR_ARG(column[0]));
    *out = score;
    return MR_OK;
}

static mr_status read_lines(run_reader *reader, const char *path, mr_error *err)
{
    mr_file_map map = {0};
    mr_status status = mr_file_map_open(&map, path, err);
    const char *at = map.data;
    size_t rest = map.len;
    for (uint64_t number = 1; status == MR_OK && rest; number++) {
        const char *end = memchr(at, '\n', rest);
        const size_t len = end ? (size_t)(end - at) : rest;
        if (len > MAX_LINE)
            status = MR_FAIL(err, CORRUPT, "longer than %zu bytes", MAX_LINE);
        else if (len)
            status = read_line(reader, (mr_str){at, len}, err);
        if (status != MR_OK)
            mr_error_prefix(err, status, "line %llu of %s", (unsigned long long)number, path);
        at += len + (end != NULL);
        rest -= len + (end != NULL);
    }
    mr_file_map_close(&map);
    return status;
}

mr_status mr_trec_run_open(mr_trec_run **out, const char *path, const mr_tasks *tasks,
                           const mr_task_row *rows, size_t n_rows, mr_error *err)
{
    mr_status status = MR_OK;
    size_t total = 0;
    run_reader reader = {.tasks = tasks, .rows = rows};
    reader.run = calloc(1, sizeof *reader.run);
    if (reader.run)
        reader.run->first = calloc(n_rows + 1, sizeof *reader.run->first);
    if (!reader.run || !reader.run->first)
        status = MR_FAIL(err, NO_MEMORY, "a run of %zu rows", n_rows);
    for (size_t i = 0; status == MR_OK && i < n_rows; i++) {
        uint32_t ignored;
        status = mr_intern_add(&reader.ids, rows[i].id, &ignored, NULL, err);
        reader.run->first[i] = total;
        total += rows[i].n_candidates;
    }
    if (status == MR_OK) {
        reader.run->scores = calloc(total + 1, sizeof *reader.run->scores);
        if (!reader.run->scores)
            status = MR_FAIL(err, NO_MEMORY, "a run of %zu scores", total);
    }
    for (size_t i = 0; status == MR_OK && i < total; i++)
        reader.run->scores[i] = (double)NAN;
    if (status == MR_OK)
        status = read_lines(&reader, path, err);
    mr_intern_release(&reader.ids);
    if (status == MR_OK)
        *out = reader.run;
    else
        mr_trec_run_close(reader.run);
    return status;
}

void mr_trec_run_close(mr_trec_run *run)
{
    if (!run)
        return;
    free(run->scores);
    free(run->first);
    free(run);
}

const double *mr_trec_run_scores(const mr_trec_run *run, size_t row)
{
    return run->scores + run->first[row];
}
