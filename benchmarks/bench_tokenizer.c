/* bench_tokenizer.c - ids per second of the tokenizer, on lines and on one long text.
 *
 * The same texts as bench_tokenizer_hf.py, which times the tokenizers library on them and writes
 * the ids that this program compares its own with before it starts the clock: one JSON list per
 * line, then one for the whole file. Lines are as a request has them: each is a call of its own.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "benchmarks/bench.h"
#include "core/arena.h"
#include "core/file.h"
#include "core/jsonl.h"
#include "core/options.h"
#include "engine/tokenizer.h"

#define MAX_TEXT ((size_t)256 << 20)

typedef struct {
    const char *model, *text, *reference;
    double seconds;
} options;

static const mr_option option_table[] = {
    MR_OPTION_STRING("model", 'm', "DIR", options, model, "folder with tokenizer.json"),
    MR_OPTION_STRING("text", 't', "FILE", options, text, "what to tokenize"),
    MR_OPTION_STRING("reference", 'r', "FILE", options, reference,
                     "ids that must come out, from bench_tokenizer_hf.py"),
    MR_OPTION_REAL("seconds", 's', "S", options, seconds, 0.01, 60,
                   "at least this long per figure"),
    MR_OPTION_END,
};
static const mr_command_help help = {"bench_tokenizer", "--model DIR --text FILE [options]",
                                     "Tokenizes a text; one JSON line per figure.", NULL};

/* The next line, without its line feed. */
static bool next_line(mr_str *rest, mr_str *line)
{
    if (rest->len == 0)
        return false;
    const char *end = memchr(rest->data, '\n', rest->len);
    line->data = rest->data;
    line->len = end ? (size_t)(end - rest->data) : rest->len;
    const size_t used = line->len + (end != NULL);
    rest->data += used;
    rest->len -= used;
    return true;
}

/* Compares ids with the next row of the reference, {"ids": [...]}. */
static mr_status check_row(mr_jsonl *reference, const mr_ids *ids, mr_error *err)
{
    json_t *row = NULL;
    mr_status status = mr_jsonl_next(reference, &row, err);
    if (status != MR_OK)
        return status;
    const json_t *list = json_object_get(row, "ids");
    if (json_array_size(list) != ids->n)
        status = MR_FAIL(err, MISMATCH, "reference row %llu has %zu ids, found %zu",
                         (unsigned long long)reference->line_number, json_array_size(list), ids->n);
    for (size_t i = 0; i < ids->n && status == MR_OK; i++) {
        if (json_integer_value(json_array_get(list, i)) != ids->data[i])
            status = MR_FAIL(err, MISMATCH, "reference row %llu, id %zu: found %d",
                             (unsigned long long)reference->line_number, i, (int)ids->data[i]);
    }
    json_decref(row);
    return status;
}

static mr_status encode_all(const mr_tokenizer *tok, mr_str text, bool lines, mr_jsonl *reference,
                            mr_ids *ids, size_t *n_ids, mr_error *err)
{
    mr_str rest = text, line = text;
    mr_status status = MR_OK;
    *n_ids = 0;
    while (status == MR_OK && (!lines || next_line(&rest, &line))) {
        ids->n = 0;
        status = mr_tokenizer_encode(tok, line, MR_TOKENIZE_PARSE_SPECIAL, ids, err);
        if (status == MR_OK && reference)
            status = check_row(reference, ids, err);
        *n_ids += ids->n;
        if (!lines)
            break;
    }
    return status;
}

static mr_status run(const options *opt, mr_error *err)
{
    static bench_clock clock;
    mr_arena arena = {0};
    mr_tokenizer *tok = NULL;
    mr_jsonl reference = {0};
    mr_ids ids = {0};
    mr_str text;
    mr_status status = mr_file_read(&arena, opt->text, MAX_TEXT, &text, err);
    if (status != MR_OK)
        goto out;
    double began = bench_now();
    status = mr_tokenizer_open(&tok, opt->model, err);
    if (status != MR_OK)
        goto out;
    const double open_seconds = bench_now() - began;
    if (opt->reference) {
        status = mr_jsonl_open(&reference, opt->reference, MAX_TEXT, err);
        if (status != MR_OK)
            goto out;
    }
    for (int lines = 1; lines >= 0; lines--) {
        size_t n_ids = 0;
        status =
            encode_all(tok, text, lines, opt->reference ? &reference : NULL, &ids, &n_ids, err);
        if (status != MR_OK)
            goto out;
        clock = bench_start(opt->seconds, 3);
        while (status == MR_OK && bench_more(&clock)) {
            bench_tick(&clock);
            status = encode_all(tok, text, lines, NULL, &ids, &n_ids, err);
            bench_tock(&clock);
        }
        if (status != MR_OK)
            goto out;
        const double seconds = bench_median(&clock);
        bench_line_begin("tokenizer", lines ? "lines" : "whole");
        printf(", \"bytes\": %zu, \"ids\": %zu, \"seconds\": %.6f, \"ids_per_second\": %.0f, "
               "\"mb_per_second\": %.2f, \"checked\": %s, \"open_seconds\": %.3f",
               text.len, n_ids, seconds, (double)n_ids / seconds, 1e-6 * (double)text.len / seconds,
               opt->reference ? "true" : "false", open_seconds);
        bench_line_end();
    }

out:
    mr_ids_release(&ids);
    mr_jsonl_close(&reference);
    mr_tokenizer_close(tok);
    mr_arena_done(&arena);
    return status;
}

int main(int argc, char **argv)
{
    options opt = {.seconds = 1};
    const options defaults = opt;
    mr_error err = {0};
    int n_positional = 0;
    bool help_wanted = false;
    if (mr_options_parse(option_table, argc, argv, &opt, &n_positional, &help_wanted, &err) !=
        MR_OK) {
        fprintf(stderr, "bench_tokenizer: %s\n", err.message);
        return 2;
    }
    if (help_wanted || !opt.model || !opt.text) {
        mr_options_print_help(help_wanted ? stdout : stderr, &help, option_table, &defaults);
        return help_wanted ? 0 : 2;
    }
    if (run(&opt, &err) != MR_OK) {
        fprintf(stderr, "bench_tokenizer: %s\n", err.message);
        return 1;
    }
    return 0;
}
