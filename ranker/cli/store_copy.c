/* store_copy.c - mixrank store copy: records from a store or a file to a store or a file.
 *
 * Records keep their versions, and the write rule of the destination decides: a copy may be
 * repeated, run while others write, and never puts an old record over a newer one. A store is
 * walked in key order, batch by batch; with each batch the destination notes how far it is, so that
 * --resume goes on behind what an interrupted copy has done.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/hash.h"
#include "core/progress.h"
#include "core/strbuf.h"
#include "encoders/space.h"
#include "featurestore/record.h"
#include "featurestore/record_file.h"
#include "ranker/cli/store_commands.h"

#define BATCH_BYTES   ((size_t)8 << 20)
#define DAMAGED_SHOWN 20

typedef struct {
    const char *from_password, *to_password, *from_namespace, *to_namespace, *space, *prefix;
    int64_t batch;
    double map_gb;
    int entity; /* 0: all */
    bool resume, json, quiet;
} copy_options;

static const char *const entity_choices[] = {"all", "item", "user", NULL};

static const mr_option options[] = {
    MR_OPTION_CHOICE("entity", 'e', "KIND", copy_options, entity, entity_choices,
                     "only these (pictures are items)"),
    MR_OPTION_STRING("space", 0, "HEX", copy_options, space, "only this space"),
    MR_OPTION_STRING("prefix", 0, "TEXT", copy_options, prefix,
                     "only ids that begin with this text"),
    MR_OPTION_FLAG("resume", 0, copy_options, resume,
                   "go on behind what an interrupted copy between the same two has done"),
    MR_OPTION_INT("batch", 0, "N", copy_options, batch, 1, 65536, "records of one write"),
    MR_OPTION_STRING("from-password", 0, "TEXT", copy_options, from_password,
                     "of a Redis; better in MIXRANK_STORE__PASSWORD, which serves both"),
    MR_OPTION_STRING("to-password", 0, "TEXT", copy_options, to_password, "likewise"),
    MR_OPTION_STRING("from-namespace", 0, "NAME", copy_options, from_namespace,
                     "prefix of the keys"),
    MR_OPTION_STRING("to-namespace", 0, "NAME", copy_options, to_namespace, "prefix of the keys"),
    MR_OPTION_REAL("map-gb", 0, "GB", copy_options, map_gb, 0.001, 65536,
                   "most that an LMDB file may grow to"),
    MR_OPTION_FLAG("json", 0, copy_options, json, "print the summary as JSON"),
    MR_OPTION_FLAG("quiet", 0, copy_options, quiet, "no progress bar"),
    MR_OPTION_END,
};

static const mr_command_help help = {
    "store copy", "[options] FROM TO",
    "Copies records between stores and files (file:PATH; - is standard input or output). Records "
    "keep "
    "their versions: what the destination has newer stays, and a copy may be repeated.",
    "  mixrank store copy build/demo/store redis://127.0.0.1\n"
    "  mixrank store copy redis://127.0.0.1 file:store.mrs\n"
    "  mixrank store copy --entity item - lmdb:other < store.mrs\n"};

typedef struct {
    const copy_options *opt;
    const char *from; /* without a password */
    mr_store *source, *store;
    mr_record_file file; /* where `store` is NULL */
    FILE *stream;        /* where `source` is NULL */
    mr_record_file input;
    bool one_space;
    uint64_t space; /* of --space */

    /* The batch: of one entity and space. */
    mr_entity entity;
    uint64_t batch_space;
    mr_store_put_item *items; /* [opt->batch] */
    size_t n, bytes;
    mr_arena arena;
    char note[96]; /* where the place is kept; "": it is not */
    char last[MR_STORE_MAX_ID_BYTES];
    size_t last_len; /* with --resume: ids up to this one are there */

    uint64_t read, written, stale, damaged, skipped;
    mr_progress bar;
    mr_status status; /* of a visit */
    mr_error *err;
} copy_state;

static bool is_file(const char *name)
{
    return strcmp(name, "-") == 0 || strncmp(name, "file:", 5) == 0;
}

static const char *path_of(const char *name)
{
    return strcmp(name, "-") == 0 ? name : name + 5;
}

/* ---- what is copied -------------------------------------------------------------------------- */

static mr_status flush(copy_state *state)
{
    mr_store_put_result result = {0};
    if (!state->store || !state->n)
        return MR_OK;
    const mr_str last = state->items[state->n - 1].id;
    mr_status status =
        *state->note
            ? mr_store_put_with_note(state->store, state->entity, state->batch_space, state->items,
                                     state->n, state->note, last, &result, state->err)
            : mr_store_put(state->store, state->entity, state->batch_space, state->items, state->n,
                           &result, state->err);
    state->written += result.written;
    state->stale += result.stale;
    state->n = state->bytes = 0;
    mr_arena_rewind(&state->arena, (mr_arena_mark){0});
    return status;
}

static void on_damaged(copy_state *state, mr_str id, const mr_error *why)
{
    if (state->damaged++ >= DAMAGED_SHOWN)
        return;
    mr_progress_clear();
    fprintf(stderr, "mixrank store copy: not copied: ");
    mr_command_print_text(stderr, id);
    fprintf(stderr, ": ");
    mr_command_print_text(stderr, mr_str_of(why->message));
    fputc('\n', stderr);
}

static bool is_wanted(const copy_state *state, mr_entity entity, uint64_t space, mr_str id)
{
    const char *prefix = state->opt->prefix;
    const size_t len = prefix ? strlen(prefix) : 0;
    return (!state->opt->entity || entity == (mr_entity)(state->opt->entity - 1)) &&
           (!state->one_space || space == state->space) &&
           (len == 0 || (id.len >= len && memcmp(id.data, prefix, len) == 0));
}

static bool is_behind(const copy_state *state, mr_str id)
{
    const size_t common = id.len < state->last_len ? id.len : state->last_len;
    const int order = common ? memcmp(id.data, state->last, common) : 0;
    return order > 0 || (order == 0 && id.len > state->last_len);
}

static mr_status add(copy_state *state, mr_entity entity, uint64_t space, mr_str id,
                     mr_bytes record)
{
    mr_record_info info;
    mr_error why = {0};
    mr_status status = MR_OK;
    state->read++;
    mr_progress_update(&state->bar, state->read, NULL);
    if (!is_wanted(state, entity, space, id) || (state->last_len && !is_behind(state, id))) {
        state->skipped++;
        return MR_OK;
    }
    status = mr_record_check("its record", record, &info, &why);
    if (status == MR_OK && info.space != space)
        status = MR_FAIL(&why, MISMATCH, "its record is of space %016" PRIx64, info.space);
    if (status != MR_OK) {
        on_damaged(state, id, &why);
        return MR_OK;
    }
    if (!state->store) {
        status = mr_record_file_write(&state->file, entity, space, id, record, state->err);
        state->written += status == MR_OK;
        return status;
    }
    if (state->n == (size_t)state->opt->batch || state->bytes >= BATCH_BYTES ||
        (state->n && (entity != state->entity || space != state->batch_space)))
        status = flush(state);
    if (status != MR_OK)
        return status;
    char *copy_id = mr_arena_strndup(&state->arena, id.data, id.len);
    void *copy = mr_arena_alloc(&state->arena, record.len, 1, 16);
    if (!copy_id || !copy)
        return MR_FAIL(state->err, NO_MEMORY, "a batch of %zu records", state->n);
    memcpy(copy, record.data, record.len);
    state->entity = entity;
    state->batch_space = space;
    state->items[state->n++] = (mr_store_put_item){{copy_id, id.len}, {copy, record.len}};
    state->bytes += record.len;
    return MR_OK;
}

/* ---- from a file ----------------------------------------------------------------------------- */

/* Before a destination is made for it. */
static mr_status open_input(copy_state *state, const char *name, mr_error *err)
{
    const char *path = path_of(name);
    state->stream = strcmp(path, "-") == 0 ? stdin : NULL;
    if (!state->stream && mr_file_is_folder(path))
        return MR_FAIL(err, INVALID, "'%s' is a folder, expected a file of records", path);
    if (!state->stream && !(state->stream = fopen(path, "rb")))
        return mr_file_fail(err, errno, "open", path);
    return mr_record_file_open(&state->input, state->stream,
                               state->stream == stdin ? "standard input" : path, err);
}

static mr_status copy_from_file(copy_state *state)
{
    mr_record_entry entry;
    bool more = true;
    mr_status status = MR_OK;
    while (status == MR_OK && more) {
        status = mr_record_file_read(&state->input, &entry, &more, state->err);
        if (status == MR_OK && more)
            status = add(state, entry.entity, entry.space, entry.id, entry.record);
    }
    if (status == MR_OK || !state->store)
        return status == MR_OK ? flush(state) : status;
    /* What was read of a file that was cut short is as good as it would be whole. */
    const mr_error first = *state->err;
    (void)flush(state);
    *state->err = first;
    return status;
}

/* ---- from a store ---------------------------------------------------------------------------- */

typedef struct {
    copy_state *state;
    mr_entity entity;
    uint64_t space;
} walk_context;

static bool on_record(void *context, mr_str id, mr_bytes record)
{
    walk_context *walk = context;
    walk->state->status = add(walk->state, walk->entity, walk->space, id, record);
    return walk->state->status == MR_OK;
}

/* The note's name says between what and what the copy is; its value is the last id. */
static mr_status find_place(copy_state *state, mr_entity entity, uint64_t space, mr_error *err)
{
    mr_strbuf what = {0};
    char *value = NULL;
    size_t len = 0;
    state->last_len = 0;
    state->note[0] = '\0';
    if (!state->store)
        return MR_OK;
    mr_strbuf_printf(&what, "%s %s %s", state->from, state->opt->from_namespace,
                     state->opt->prefix ? state->opt->prefix : "");
    if (what.failed)
        return MR_FAIL(err, NO_MEMORY, "the name of a note");
    snprintf(state->note, sizeof state->note, "copy:%016" PRIx64 ":%d:%016" PRIx64,
             mr_hash_xxh3(what.data, what.len), (int)entity, space);
    mr_strbuf_release(&what);
    if (!state->opt->resume)
        return MR_OK;
    mr_error why = {0};
    mr_status status = mr_store_get_note(state->store, state->note, &value, &len, &why);
    if (status == MR_OK && len <= sizeof state->last) {
        memcpy(state->last, value, len);
        state->last_len = len;
    } else if (status != MR_OK && status != MR_NOT_FOUND) {
        *err = why;
        return status;
    }
    free(value);
    return MR_OK;
}

static mr_status copy_space(copy_state *state, mr_entity entity, uint64_t space)
{
    walk_context walk = {state, entity, space};
    mr_status status = find_place(state, entity, space, state->err);
    if (status == MR_OK)
        status = mr_store_walk(state->source, entity, space, on_record, &walk, state->err);
    if (state->status != MR_OK)
        status = state->status;
    if (status == MR_OK)
        status = flush(state);
    /* Whole: there is nothing to resume. */
    if (status == MR_OK && *state->note)
        status = mr_store_set_note(state->store, state->note, (mr_str){"", 0}, state->err);
    return status;
}

static mr_status copy_if_wanted(void *context, mr_entity entity, uint64_t space, mr_error *err)
{
    copy_state *state = context;
    (void)err; /* the state's own */
    return !state->one_space || space == state->space ? copy_space(state, entity, space) : MR_OK;
}

static mr_status copy_from_store(copy_state *state)
{
    const mr_entity entity =
        state->opt->entity ? (mr_entity)(state->opt->entity - 1) : MR_ENTITY_COUNT;
    return mr_store_each_space(state->source, entity, copy_if_wanted, state, state->err);
}

/* ---- the command ----------------------------------------------------------------------------- */

static mr_status copy(copy_state *state)
{
    return state->source ? copy_from_store(state) : copy_from_file(state);
}

static mr_status copy_to_file(copy_state *state, const char *to)
{
    mr_file_writer writer = {0};
    const char *path = path_of(to);
    const bool is_stdout = strcmp(path, "-") == 0;
    mr_status status = is_stdout ? MR_OK : mr_file_writer_open(&writer, path, state->err);
    if (status != MR_OK)
        return status;
    status = mr_record_file_begin(&state->file, is_stdout ? stdout : writer.stream,
                                  is_stdout ? "standard output" : path, state->err);
    if (status == MR_OK)
        status = copy(state);
    if (status == MR_OK)
        status = mr_record_file_end(&state->file, state->err);
    if (is_stdout)
        return status;
    if (status == MR_OK)
        return mr_file_writer_commit(&writer, state->err);
    mr_file_writer_abandon(&writer);
    return status;
}

static mr_status open_stores(copy_state *state, const char *from, const char *to)
{
    const copy_options *opt = state->opt;
    const mr_store_access source = {from, opt->from_password, opt->from_namespace, 64};
    const mr_store_access store = {to, opt->to_password, opt->to_namespace, opt->map_gb};
    mr_status status =
        is_file(from) ? open_input(state, from, state->err)
                      : mr_store_access_open(&state->source, &source, MR_STORE_READ, state->err);
    if (status == MR_OK && !is_file(to))
        status = mr_store_access_open(&state->store, &store, MR_STORE_CREATE, state->err);
    return status;
}

static void print_summary(const copy_state *state, double seconds)
{
    FILE *out = state->store ? stdout : stderr; /* the file may be standard output */
    if (state->opt->json) {
        json_t *root = json_pack("{s:I, s:I, s:I, s:I, s:I, s:f}", "read", (json_int_t)state->read,
                                 "written", (json_int_t)state->written, "stale",
                                 (json_int_t)state->stale, "skipped", (json_int_t)state->skipped,
                                 "damaged", (json_int_t)state->damaged, "seconds", seconds);
        char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
        fprintf(out, "%s\n", text ? text : "{}");
        free(text);
        json_decref(root);
        return;
    }
    fprintf(out,
            "%" PRIu64 " records read, %" PRIu64 " written, %" PRIu64
            " there as new or newer, %" PRIu64 " skipped, %" PRIu64 " damaged; %.1f s\n",
            state->read, state->written, state->stale, state->skipped, state->damaged, seconds);
}

int mr_store_cmd_copy(int argc, char **argv)
{
    copy_options opt = {
        .from_namespace = "mixrank", .to_namespace = "mixrank", .batch = 512, .map_gb = 64};
    int n = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n, &code))
        return code;
    if (n != 2)
        return mr_command_misuse(help.name, "give FROM and TO");
    const char *from = argv[1], *to = argv[2];
    if (is_file(from) && is_file(to))
        return mr_command_misuse(help.name, "one of the two must be a store");
    if (opt.resume && (is_file(from) || is_file(to)))
        return mr_command_misuse(help.name, "--resume is for a copy from store to store");
    if (strcmp(to, "-") == 0 && isatty(STDOUT_FILENO))
        return mr_command_misuse(help.name, "- writes bytes: send them to a file");
    mr_progress_set_quiet(opt.quiet);
    mr_error err = {0};
    mr_store_stats stats = {0};
    mr_arena names = {0};
    const int64_t started = mr_clock_monotonic_us();
    copy_state state = {.opt = &opt, .err = &err, .from = mr_store_access_shown(from, &names)};
    state.items = calloc((size_t)opt.batch, sizeof *state.items);
    mr_status status =
        state.items ? MR_OK : MR_FAIL(&err, NO_MEMORY, "a batch of %lld", (long long)opt.batch);
    if (status == MR_OK && opt.space) {
        status = mr_space_parse(opt.space, &state.space, &err);
        state.one_space = true;
    }
    if (status == MR_OK)
        status = open_stores(&state, from, to);
    if (status == MR_OK && state.source)
        status = mr_store_stat(state.source, &stats, &err);
    if (status == MR_OK) {
        state.bar = mr_progress_start("copying", stats.records, "records");
        status = state.store ? copy(&state) : copy_to_file(&state, to);
        if (state.store) {
            mr_error sync = {0};
            if (mr_store_sync(state.store, &sync) != MR_OK && status == MR_OK) {
                status = sync.status;
                err = sync;
            }
        }
        mr_progress_finish(&state.bar, NULL);
    }
    if (status == MR_EXHAUSTED && state.store && strcmp(mr_store_backend(state.store), "lmdb") == 0)
        mr_error_prefix(&err, status, "with --map-gb %g", opt.map_gb);
    if (status == MR_OK)
        print_summary(&state, (double)(mr_clock_monotonic_us() - started) / 1e6);
    else
        code = mr_command_fail(help.name, &err);
    if (status == MR_OK && state.damaged)
        code = MR_EXIT_FAILED;
    mr_store_close(state.store);
    mr_store_close(state.source);
    mr_record_file_done(&state.input);
    if (state.stream && state.stream != stdin)
        fclose(state.stream);
    mr_arena_done(&state.arena);
    mr_arena_done(&names);
    free(state.items);
    return code;
}
