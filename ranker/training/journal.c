/* journal.c - see journal.h.
 *
 * Rows go through write() in one call each, not through stdio: after a failure nothing may be left
 * in a buffer that a later flush would write behind it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/jsonl.h"

#define MAX_LINE ((size_t)4096)
#define MAX_ROWS ((size_t)1 << 22)
#define ROWS     1000 /* that a run is to have */
#define MOST     1e100

struct mr_journal {
    char *path;
    int fd;
    off_t end; /* of the last whole line */
    int64_t every, started_us;
    double seconds; /* before this call */
};

static mr_status row_of(mr_journal_row *out, const char *name, const json_t *json, mr_error *err)
{
    mr_json_cursor cur = mr_json_cursor_of(name, json, err);
    *out =
        (mr_journal_row){.step = mr_json_int(&cur, "step", 1, INT64_MAX, MR_JSON_REQUIRED),
                         .loss = mr_json_real(&cur, "loss", -MOST, MOST, (double)NAN),
                         .smooth = mr_json_real(&cur, "smooth", -MOST, MOST, (double)NAN),
                         .rate = mr_json_real(&cur, "rate", 0, MOST, (double)NAN),
                         .norm = mr_json_real(&cur, "norm", 0, MOST, (double)NAN),
                         .tokens_per_s = mr_json_real(&cur, "tokens_per_s", 0, MOST, (double)NAN),
                         .seconds = mr_json_real(&cur, "seconds", 0, MOST, (double)NAN),
                         .valid = (double)NAN};
    if (cur.status == MR_OK && json_object_get(json, "valid"))
        out->valid = mr_json_real(&cur, "valid", -MOST, MOST, (double)NAN);
    return cur.status;
}

/* Whether the byte before an offset ends a line. */
static bool ends_line(int fd, uint64_t offset)
{
    char c = 0;
    return offset > 0 && pread(fd, &c, 1, (off_t)offset - 1) == 1 && c == '\n';
}

/* Where the lines of steps up to `step` end. What follows is of later steps, or was cut off. */
static mr_status find_end(mr_journal *journal, int64_t step, mr_error *err)
{
    mr_jsonl reader;
    mr_status status = mr_jsonl_open(&reader, journal->path, MAX_LINE, err);
    if (status != MR_OK)
        return status;
    for (int64_t last = 0;;) {
        json_t *json = NULL;
        mr_journal_row row;
        mr_error why = {0};
        status = mr_jsonl_next(&reader, &json, &why);
        const bool kept = status == MR_OK && json && ends_line(journal->fd, reader.bytes) &&
                          row_of(&row, "", json, NULL) == MR_OK && row.step > last &&
                          row.step <= step;
        json_decref(json);
        if (!kept) {
            if (status != MR_OK && status != MR_CORRUPT && err)
                *err = why;
            status = status == MR_CORRUPT ? MR_OK : status;
            break;
        }
        last = row.step;
        journal->end = (off_t)reader.bytes;
        journal->seconds = row.seconds;
    }
    mr_jsonl_close(&reader);
    return status;
}

mr_status mr_journal_open(mr_journal **out, const char *path, int64_t step, int64_t every,
                          mr_error *err)
{
    mr_status status = MR_OK;
    struct stat info;
    mr_journal *journal = calloc(1, sizeof *journal);
    char *copy = malloc(strlen(path) + 1);
    if (!journal || !copy) {
        free(journal);
        free(copy);
        return MR_FAIL(err, NO_MEMORY, "the journal '%s'", path);
    }
    memcpy(copy, path, strlen(path) + 1);
    *journal = (mr_journal){.path = copy, .every = every, .started_us = mr_clock_monotonic_us()};
    /* Without O_NONBLOCK a pipe of that name would be waited for. */
    journal->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
    if (journal->fd < 0)
        status = mr_file_fail(err, errno, "open", path);
    else if (fstat(journal->fd, &info) != 0)
        status = mr_file_fail(err, errno, "look at", path);
    else if (!S_ISREG(info.st_mode))
        status = MR_FAIL(err, INVALID, "'%s' is no regular file, expected a journal", path);
    else if (step > 0)
        status = find_end(journal, step, err);
    if (status == MR_OK && ftruncate(journal->fd, journal->end) != 0)
        status = mr_file_fail(err, errno, "cut", path);
    if (status == MR_OK)
        *out = journal;
    else
        mr_journal_close(journal);
    return status;
}

/* 1, 2 or 5 times a power of ten, so that about ROWS lines cover a run. */
static int64_t every_of(int64_t steps)
{
    int64_t every = 1;
    for (int i = 0; every * ROWS < steps; i++)
        every = i % 3 == 1 ? every / 2 * 5 : every * 2;
    return every;
}

static bool is_logged(const mr_journal *journal, const mr_train_progress *p)
{
    const int64_t every = journal->every > 0 ? journal->every : every_of(p->steps);
    return p->step == 1 || p->step == p->steps || p->step % every == 0 || !isnan(p->valid_loss);
}

/* What JSON and a plot can take. */
static bool is_number(double value)
{
    return fabs(value) <= MOST;
}

/* All of it or, after a failure, none. */
static mr_status append(mr_journal *journal, const char *line, size_t len, mr_error *err)
{
    for (size_t done = 0; done < len;) {
        const ssize_t n = pwrite(journal->fd, line + done, len - done, journal->end + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            const mr_status status =
                mr_file_fail(err, n < 0 ? errno : ENOSPC, "write", journal->path);
            if (ftruncate(journal->fd, journal->end) != 0)
                return mr_error_prefix(err, status, "and a part of a line is left");
            return status;
        }
        done += (size_t)n;
    }
    journal->end += (off_t)len;
    return MR_OK;
}

mr_status mr_journal_add(mr_journal *journal, const mr_train_progress *p, mr_error *err)
{
    char line[512], valid[48] = "";
    if (!is_number(p->loss) || !is_number(p->smooth_loss) || !is_number(p->rate) ||
        !is_number(p->gradient_norm) || (!isnan(p->valid_loss) && !is_number(p->valid_loss)))
        return MR_FAIL(err, INVALID,
                       "step %" PRId64 ": a loss, rate or norm is too large or not a number",
                       p->step);
    if (!is_logged(journal, p))
        return MR_OK;
    if (!isnan(p->valid_loss))
        snprintf(valid, sizeof valid, "\"valid\":%.9g,", p->valid_loss);
    const double seconds =
        journal->seconds + (double)(mr_clock_monotonic_us() - journal->started_us) / 1e6;
    const int n = snprintf(line, sizeof line,
                           "{\"step\":%" PRId64
                           ",\"loss\":%.9g,\"smooth\":%.9g,%s\"rate\":%.6g,\"norm\":%.6g,"
                           "\"tokens_per_s\":%.0f,\"seconds\":%.1f}\n",
                           p->step, p->loss, p->smooth_loss, valid, p->rate, p->gradient_norm,
                           is_number(p->tokens_per_s) ? p->tokens_per_s : 0.0, seconds);
    return append(journal, line, (size_t)n, err);
}

mr_status mr_journal_sync(mr_journal *journal, mr_error *err)
{
    return fsync(journal->fd) == 0 ? MR_OK : mr_file_fail(err, errno, "write", journal->path);
}

void mr_journal_close(mr_journal *journal)
{
    if (!journal)
        return;
    if (journal->fd >= 0)
        close(journal->fd); /* mr_journal_sync is where failures are told */
    free(journal->path);
    free(journal);
}

static mr_status add_row(mr_journal_rows *rows, size_t *capacity, const mr_journal_row *row,
                         mr_error *err)
{
    if (rows->n == *capacity) {
        const size_t grown = *capacity ? 2 * *capacity : 1024;
        mr_journal_row *more = grown <= MAX_ROWS ? realloc(rows->row, grown * sizeof *more) : NULL;
        if (!more)
            return MR_FAIL(err, EXHAUSTED, "a journal of more than %zu lines", rows->n);
        rows->row = more;
        *capacity = grown;
    }
    rows->row[rows->n++] = *row;
    return MR_OK;
}

/* Whether a file ends with a line's end; regular files alone. */
static mr_status look_at_end(const char *path, size_t *bytes, bool *whole, mr_error *err)
{
    mr_file_map map = {0};
    mr_status status = mr_file_map_open(&map, path, err);
    *bytes = map.len;
    *whole = map.len == 0 || ((const char *)map.data)[map.len - 1] == '\n';
    mr_file_map_close(&map);
    return status;
}

mr_status mr_journal_read(mr_journal_rows *out, const char *path, mr_error *err)
{
    mr_journal_rows rows = {0};
    mr_jsonl reader = {0};
    size_t capacity = 0, bytes = 0;
    bool whole = true;
    mr_status status = look_at_end(path, &bytes, &whole, err);
    if (status == MR_OK)
        status = mr_jsonl_open(&reader, path, MAX_LINE, err);
    while (status == MR_OK) {
        json_t *json = NULL;
        mr_journal_row row;
        status = mr_jsonl_next(&reader, &json, err);
        if (!whole && reader.bytes >= bytes && (status == MR_OK || status == MR_CORRUPT)) {
            json_decref(json);
            status = MR_OK;
            break;
        }
        if (status != MR_OK || !json)
            break;
        status = row_of(&row, "the row", json, err);
        if (status == MR_OK && rows.n && row.step <= rows.row[rows.n - 1].step)
            status = MR_FAIL(err, INVALID, "step %" PRId64 " comes after step %" PRId64, row.step,
                             rows.row[rows.n - 1].step);
        if (status == MR_OK)
            status = add_row(&rows, &capacity, &row, err);
        else
            mr_error_prefix(err, status, "line %" PRIu64 " of %s", reader.line_number, path);
        json_decref(json);
    }
    mr_jsonl_close(&reader);
    if (status == MR_OK)
        *out = rows;
    else
        mr_journal_rows_free(&rows);
    return status;
}

void mr_journal_rows_free(mr_journal_rows *rows)
{
    if (!rows)
        return;
    free(rows->row);
    *rows = (mr_journal_rows){0};
}
