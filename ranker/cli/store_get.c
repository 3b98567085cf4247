/* store_get.c - mixrank store get: records by id, their header and first values, or their bytes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "encoders/space.h"
#include "featurestore/record.h"
#include "ranker/cli/store_commands.h"

#define MAX_IDS 100000

typedef struct {
    mr_store_access access;
    const char *space, *bundle;
    int kind;
    int64_t values;
    bool json, raw;
} get_options;

static const mr_option options[] = {
    MR_STORE_ACCESS_OPTIONS(get_options),
    MR_OPTION_CHOICE("entity", 'e', "KIND", get_options, kind, mr_store_kind_names,
                     "what the ids are of"),
    MR_OPTION_STRING("space", 0, "HEX", get_options, space,
                     "16 digits; else that of --bundle, of the active bundle, or the only one"),
    MR_OPTION_STRING("bundle", 'b', "DIR", get_options, bundle, "whose space"),
    MR_OPTION_INT("values", 0, "N", get_options, values, 0, 16384, "show the first N of a token"),
    MR_OPTION_FLAG("raw", 0, get_options, raw, "the bytes of one record on standard output"),
    MR_OPTION_FLAG("json", 0, get_options, json, "one JSON object for each id"),
    MR_OPTION_END,
};

static const mr_command_help help = {
    "store get", "--store URL [options] ID ...",
    "Shows records: type, shape, version, age, the norm and the first values of each token. Exits "
    "with 1 when one is missing or damaged.",
    "  mixrank store get -s build/demo/store vim emacs\n"
    "  mixrank store get -s build/demo/store -e user u000001 --json\n"
    "  mixrank store get -s build/demo/store vim --raw > vim.mre\n"};

typedef struct {
    const get_options *opt;
    const mr_str *ids;
    uint64_t space;
    size_t lacking; /* or damaged */
    bool failed_write;
} get_state;

static double norm_of(const float *values, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)values[i] * (double)values[i];
    return sqrt(sum);
}

static void print_record(const get_state *state, mr_str id, const mr_record_info *info,
                         const float *values, size_t bytes)
{
    char space[MR_SPACE_TEXT];
    mr_space_format(info->space, space);
    mr_command_print_text(stdout, id);
    if (info->tombstone)
        printf(": removed (a tombstone), version %" PRIu64, info->version);
    else
        printf(": %u x %u %s, version %" PRIu64 ", %zu bytes", info->tokens, info->dim,
               mr_record_dtype_name(info->dtype), info->version, bytes);
    printf(", space %s", space);
    if (info->event_ms > 0)
        printf(", %.1f h old", (double)(mr_clock_wall_ms() - info->event_ms) / 3.6e6);
    putchar('\n');
    for (size_t t = 0; t < info->tokens; t++) {
        const float *row = values + t * info->dim;
        printf("  token %zu  norm %.6g ", t, norm_of(row, info->dim));
        for (size_t i = 0; i < info->dim && i < (size_t)state->opt->values; i++)
            printf(" %.6g", (double)row[i]);
        if (info->dim > (size_t)state->opt->values)
            printf(" ...");
        putchar('\n');
    }
}

static json_t *record_json(const get_state *state, mr_str id, const mr_record_info *info,
                           const float *values, size_t bytes)
{
    char space[MR_SPACE_TEXT];
    mr_space_format(info->space, space);
    json_t *norms = json_array(), *rows = json_array();
    for (size_t t = 0; t < info->tokens; t++) {
        const float *row = values + t * info->dim;
        json_t *list = json_array();
        for (size_t i = 0; i < info->dim && i < (size_t)state->opt->values; i++)
            json_array_append_new(list, json_real((double)row[i]));
        json_array_append_new(rows, list);
        json_array_append_new(norms, json_real(norm_of(row, info->dim)));
    }
    /* A version is a whole number of 64 bits, which not every reader of JSON has. */
    char version[24];
    snprintf(version, sizeof version, "%" PRIu64, info->version);
    return json_pack("{s:o, s:b, s:b, s:s, s:i, s:i, s:s, s:s, s:I, s:I, s:o, s:o}", "id",
                     mr_command_json_text(id), "found", 1, "tombstone", info->tombstone, "dtype",
                     mr_record_dtype_name(info->dtype), "tokens", info->tokens, "dim", info->dim,
                     "version", version, "space", space, "event_ms", (json_int_t)info->event_ms,
                     "bytes", (json_int_t)bytes, "norms", norms, "values", rows);
}

static void on_lacking(get_state *state, mr_str id, const char *why)
{
    state->lacking++;
    if (state->opt->json) {
        mr_command_print_json(json_pack("{s:o, s:b, s:s}", "id", mr_command_json_text(id), "found",
                                        0, "reason", why));
        return;
    }
    mr_command_print_text(state->opt->raw ? stderr : stdout, id);
    fprintf(state->opt->raw ? stderr : stdout, ": %s\n", why);
}

static void on_record(void *context, size_t i, mr_bytes record)
{
    get_state *state = context;
    const mr_str id = state->ids[i];
    mr_record_info info = {0};
    mr_error err = {0};
    char key[128];
    if (!record.data) {
        on_lacking(state, id, "no record");
        return;
    }
    if (state->opt->raw) {
        state->failed_write = fwrite(record.data, 1, record.len, stdout) != record.len;
        return;
    }
    snprintf(key, sizeof key, "the record of '%.*s'", MR_STR_ARG(id));
    mr_status status = mr_record_check(key, record, &info, &err);
    const size_t n = (size_t)info.tokens * info.dim;
    float *values = status == MR_OK ? malloc((n + 1) * sizeof *values) : NULL;
    if (status == MR_OK && !values)
        status = MR_FAIL(&err, NO_MEMORY, "%zu values", n);
    if (status == MR_OK)
        status = mr_record_decode(key, record, &info, values, n + 1, &err);
    if (status == MR_OK && info.space != state->space)
        status = MR_FAIL(&err, MISMATCH, "%s was made in space %016" PRIx64, key, info.space);
    if (status != MR_OK)
        on_lacking(state, id, err.message);
    else if (state->opt->json)
        mr_command_print_json(record_json(state, id, &info, values, record.len));
    else
        print_record(state, id, &info, values, record.len);
    free(values);
}

int mr_store_cmd_get(int argc, char **argv)
{
    get_options opt = {.access = MR_STORE_ACCESS_DEFAULT, .values = 8};
    int n = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n, &code))
        return code;
    if (!opt.access.store)
        return mr_command_misuse(help.name, "--store is missing");
    if (n == 0 || n > MAX_IDS)
        return mr_command_misuse(help.name, n ? "too many ids" : "give the ids to look up");
    if (opt.raw && (n != 1 || opt.json))
        return mr_command_misuse(help.name, "--raw is for one id, without --json");
    if (opt.raw && isatty(STDOUT_FILENO))
        return mr_command_misuse(help.name, "--raw writes bytes: send them to a file");
    mr_error err = {0};
    mr_store *store = NULL;
    get_state state = {.opt = &opt};
    mr_str *ids = calloc((size_t)n, sizeof *ids);
    mr_status status = ids ? mr_store_access_open(&store, &opt.access, MR_STORE_READ, &err)
                           : MR_FAIL(&err, NO_MEMORY, "%d ids", n);
    const mr_store_kind kind = (mr_store_kind)opt.kind;
    if (status == MR_OK)
        status = mr_store_access_space(store, &opt.access, kind, opt.space, opt.bundle,
                                       &state.space, &err);
    for (int i = 0; i < n && ids; i++)
        ids[i] = mr_str_of(argv[1 + i]);
    state.ids = ids;
    if (status == MR_OK)
        status = mr_store_fetch(store, mr_store_kind_entity(kind), state.space, ids, (size_t)n,
                                on_record, &state, &err);
    if (status != MR_OK)
        code = mr_command_fail(help.name, &err);
    else if (state.lacking || state.failed_write)
        code = MR_EXIT_FAILED;
    mr_store_close(store);
    free(ids);
    return code;
}
